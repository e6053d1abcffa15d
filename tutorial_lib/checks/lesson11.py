"""Editing: a picture to start from, a part put back, and what was measured of a picture."""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.checks.framework import (
    Choice,
    Exercise,
    Mistake,
    Number,
    Wrong,
    per_sample,
    tensor_like,
)
from tutorial_lib.forward import predict_x0
from tutorial_lib.schedules import NoiseSchedule, cosine_schedule, from_betas, linear_schedule


def _schedule(kind: int | str, generator: torch.Generator) -> NoiseSchedule:
    """One of the course's own, by name, or a short one of so many random betas."""
    if isinstance(kind, int):
        return from_betas(0.02 + 0.2 * torch.rand(kind, generator=generator, dtype=torch.float64))
    return linear_schedule() if kind == "linear" else cosine_schedule()


def _fresh(argument: object) -> object:
    """A copy, so that an answer may change what it gets."""
    if isinstance(argument, Tensor):
        return argument.clone()
    return list(argument) if isinstance(argument, list) else argument


OWN_NOISE = (
    "The same arguments give another result each time: you draw noise of your own. Use the noise "
    "among the arguments, so that it can be checked."
)


def _same_twice(answer: Callable, arguments: tuple) -> object:
    """What an answer gives; it is rejected if it rolls dice."""
    first, second = (answer(*map(_fresh, arguments)) for _ in range(2))
    one, two = (x[0] if isinstance(x, tuple) and x else x for x in (first, second))
    if isinstance(one, Tensor) and isinstance(two, Tensor) and one.shape == two.shape:
        same = torch.isclose(one.double(), two.double(), rtol=1e-4, atol=1e-5, equal_nan=True)
        if not same.all():
            raise Wrong("values", OWN_NOISE, "noise of its own")
    return second


def _in_parts(**linear: int) -> Callable:
    """Calls a step that is linear in some arguments, and asks for its factor of each first.

    Where a number is wrong, the message then says which factor it is.
    """

    def use(answer, *arguments):
        like = arguments[next(iter(linear.values()))]
        result = tensor_like(_same_twice(answer, arguments), like)
        found = {}
        for name, place in linear.items():
            probe = [_fresh(argument) for argument in arguments]
            for other in linear.values():
                probe[other] = torch.full_like(like, float(other == place))
            found[f"factor of {name}"] = tensor_like(answer(*probe), like)
        return {**found, "result": result}

    return use


# --- where to start ------------------------------------------------------------------------------


def _start(schedule, x0, timesteps, strength, eps):
    strides = max(1, round(strength * (len(timesteps) - 1)))
    rest = timesteps[len(timesteps) - 1 - strides :]
    t = rest[0]
    return schedule.signal_rate[t] * x0 + schedule.noise_rate[t] * eps, rest


def _start_cases(generator: torch.Generator):
    for kind, walk, strength, shape in (
        ("cosine", [1000, 800, 600, 400, 200, 0], 0.6, (2, 1, 3, 3)),
        ("linear", [1000, 900, 700, 400, 150, 0], 0.4, (3, 4)),
        ("cosine", [1000, 990, 700, 300, 0], 0.25, (1, 2)),
        (9, [9, 7, 4, 2, 1, 0], 0.2, (4, 4)),
        (7, [7, 6, 5, 4, 3, 2, 1, 0], 1.0, (2, 3, 1, 2, 2)),
        ("linear", list(range(1000, -1, -10)), 0.29, (5,)),  # 0.29 * 100 is 28.999999999999996
        (12, [10, 7, 4, 0], 2 / 3, (3, 3, 2)),
        ("cosine", [1000, 800, 500, 100, 0], 0.3, (2, 3)),  # 1.2 strides are 1
        ("linear", [900, 600, 500, 200, 0], 0.7, (3, 1, 2, 2)),  # 2.8 are 3
        ("cosine", [1000, 700, 400, 200, 50, 0], 0.05, (2, 2)),  # 0.25 are still 1
    ):
        x0, eps = torch.randn(2, *shape, generator=generator)
        yield _schedule(kind, generator), x0, walk, strength, eps


_TWO_THINGS = (
    "Return two things: the noisy picture, and the list of the steps that are left, as in "
    "`return x_t, rest`."
)
_A_STEP = "The second thing that you return must be a list of steps, whole numbers; {}."


def _start_parts(answer, schedule, x0, timesteps, strength, eps):
    came = _same_twice(answer, (schedule, x0, timesteps, strength, eps))
    if came is ...:
        return ...
    if not isinstance(came, (tuple, list)) or len(came) != 2:
        raise Wrong("shape", _TWO_THINGS)
    x_t, rest = came
    if isinstance(x_t, (list, int)) and isinstance(rest, Tensor):
        raise Wrong("shape", "Both things are there, in the other order: first the noisy picture.")
    try:
        steps = [int(t) for t in rest]
    except (TypeError, ValueError) as error:
        got = f"it is {type(rest).__name__}"
        raise Wrong("shape", _A_STEP.format(got)) from error
    x_t = tensor_like(x_t, x0)
    return torch.tensor(steps), x_t


def _start_with(rest: Callable, level: Callable = lambda rest, timesteps: rest[0]) -> Callable:
    """An answer with another rest of the walk, or noised to another step."""

    def start(schedule, x0, timesteps, strength, eps):
        strides = max(1, round(strength * (len(timesteps) - 1)))
        left = rest(timesteps, strides)
        t = level(left, timesteps)
        return schedule.signal_rate[t] * x0 + schedule.noise_rate[t] * eps, left

    return start


def _right_rest(timesteps, strides):
    return timesteps[-strides - 1 :]


def _start_mixed(mix: Callable) -> Callable:
    """An answer whose rest is right, with another mixture of picture and noise."""

    def start(schedule, x0, timesteps, strength, eps):
        rest = _right_rest(timesteps, max(1, round(strength * (len(timesteps) - 1))))
        return mix(schedule, x0, rest[0], eps), rest

    return start


def _start_rounded(rounded: Callable[[float], int]) -> Callable:
    """An answer that rounds the number of strides in another way."""

    def start(schedule, x0, timesteps, strength, eps):
        rest = _right_rest(timesteps, rounded(strength * (len(timesteps) - 1)))
        return schedule.signal_rate[rest[0]] * x0 + schedule.noise_rate[rest[0]] * eps, rest

    return start


def _start_share_of_t(schedule, x0, timesteps, strength, eps):
    t = round(strength * schedule.num_steps)
    rest = _right_rest(timesteps, max(1, round(strength * (len(timesteps) - 1))))
    return schedule.signal_rate[t] * x0 + schedule.noise_rate[t] * eps, rest


def _start_share_of_steps(schedule, x0, timesteps, strength, eps):
    rest = timesteps[-max(1, int(strength * len(timesteps))) :]
    return schedule.signal_rate[rest[0]] * x0 + schedule.noise_rate[rest[0]] * eps, rest


def _start_counted(schedule, x0, timesteps, strength, eps):
    last = len(timesteps) - 1
    rest = [t for i, t in enumerate(timesteps) if last - i <= max(1, strength * last + 0.499)]
    abar = schedule.alpha_bar[rest[0]].item()
    return math.sqrt(abar) * x0 + math.sqrt(1 - abar) * eps, rest


def _start_numpy(schedule, x0, timesteps, strength, eps):
    walk = np.array(timesteps)
    strides = int(np.rint(strength * (len(walk) - 1)).clip(1))
    rest = walk[len(walk) - strides - 1 :]
    signal, noise = schedule.signal_rate.numpy(), schedule.noise_rate.numpy()
    return torch.from_numpy(signal[rest[0]] * x0.numpy() + noise[rest[0]] * eps.numpy()), rest


start = Exercise(
    "lesson11.start",
    "Where to start",
    difficulty=2,
    minutes=6,
    hints=(
        "A walk of n strides has n + 1 steps. With 3 strides left, 4 steps are left: the last four "
        "of the list.",
        "`timesteps[-strides - 1:]` is the rest of the walk. Its first entry says how far to noise "
        "the picture, by the jump of lesson 2.",
    ),
    model_answer=_start,
    cases=_start_cases,
    use=_start_parts,
    reference=lambda *case: (lambda x, rest: (torch.tensor(rest), x))(*_start(*case)),
    parts=("the rest of the walk", "the noisy picture"),
    mistakes=(
        Mistake(
            "strength reversed",
            _start_with(lambda timesteps, strides: timesteps[min(strides, len(timesteps) - 2) :]),
            "The strength works the wrong way round: a small one should change little, so that "
            "only the *last* few strides are left.",
        ),
        Mistake(
            "1 - strength",
            lambda schedule, x0, timesteps, strength, eps: _start(
                schedule, x0, timesteps, 1 - strength, eps
            ),
            "You take 1 - strength of the strides. A small strength should change little, so it "
            "leaves few of them.",
        ),
        Mistake(
            "the first part",
            _start_with(lambda timesteps, strides: timesteps[: strides + 1]),
            "You keep the first part of the walk, which begins in noise and never reaches 0. The "
            "walk must end on a clean picture: keep the last part.",
        ),
        Mistake(
            "one stride short",
            _start_with(lambda timesteps, strides: timesteps[-max(strides, 1) :]),
            "One stride is missing: a walk of n strides has n + 1 steps in its list.",
        ),
        Mistake(
            "one stride long",
            _start_with(lambda timesteps, strides: timesteps[-min(strides + 2, len(timesteps)) :]),
            "One stride too many is left: a walk of n strides has n + 1 steps in its list.",
        ),
        Mistake(
            "a share of the steps",
            _start_share_of_steps,
            "You take a share of the *steps* in the list. Strength counts strides, and those are "
            "one fewer.",
        ),
        Mistake(
            "a share of n + 1",
            lambda schedule, x0, timesteps, strength, eps: _start_with(
                lambda timesteps, strides: timesteps[
                    -max(1, round(strength * len(timesteps))) - 1 :
                ]
            )(schedule, x0, timesteps, strength, eps),
            "You take strength times the length of the list. It has n + 1 entries for n strides: "
            "multiply by `len(timesteps) - 1`.",
        ),
        Mistake(
            "steps below a share",
            lambda schedule, x0, timesteps, strength, eps: _start_with(
                lambda timesteps, strides: (
                    [t for t in timesteps if t <= strength * timesteps[0]] or timesteps[-1:]
                )
            )(schedule, x0, timesteps, strength, eps),
            "You keep the steps below strength times the first one. Strength counts *strides*, "
            "which may differ in length.",
        ),
        Mistake(
            "begun at the next step",
            lambda schedule, x0, timesteps, strength, eps: (lambda x_t, rest: (x_t, rest[1:]))(
                *_start(schedule, x0, timesteps, strength, eps)
            ),
            "The picture is right, but your list lacks the step that it was noised to. A walk "
            "begins at the first step of its list.",
        ),
        Mistake(
            "the whole walk",
            _start_with(lambda timesteps, strides: timesteps),
            "The whole walk is left, whatever the strength is.",
        ),
        Mistake(
            "noised to the next step",
            _start_with(_right_rest, lambda rest, timesteps: rest[1]),
            "The rest of the walk is right, but the picture is noised to its second step. The walk "
            "begins at the first one and expects that much noise.",
        ),
        Mistake(
            "noised to T",
            _start_with(_right_rest, lambda rest, timesteps: timesteps[0]),
            "The rest of the walk is right, but the picture is noised to the first step of the "
            "*whole* walk, where next to nothing of it is left.",
        ),
        Mistake(
            "noised to a share of T",
            _start_share_of_t,
            "You noise to strength times T. The strides need not be equal: noise the picture to "
            "the step where the rest of the walk begins.",
        ),
        Mistake(
            "rounded down",
            _start_rounded(lambda strides: max(1, int(strides))),
            "`int` cuts off: 0.29 * 100 is 28.999999999999996 for a computer. Use `round`.",
        ),
        Mistake(
            "rounded up",
            _start_rounded(lambda strides: math.ceil(strides - 1e-9)),
            "You round the number of strides up: of 1.2 strides, take 1. Use `round`.",
        ),
        Mistake(
            "no stride",
            _start_rounded(round),
            "Where the strength rounds to no stride at all, one must be taken: `max(1, ...)`.",
        ),
        Mistake(
            "not noised",
            _start_mixed(lambda schedule, x0, t, eps: x0 * 1),
            "The picture comes back clean. The walk would take it for a noisy one.",
        ),
        Mistake(
            "noise alone",
            _start_mixed(lambda schedule, x0, t, eps: eps * 1),
            "You begin with noise alone, so nothing of the picture can be left.",
        ),
        Mistake(
            "no roots",
            _start_mixed(
                lambda schedule, x0, t, eps: (
                    schedule.alpha_bar[t] * x0 + (1 - schedule.alpha_bar[t]) * eps
                )
            ),
            "You mix with alpha_bar and 1 - alpha_bar. The jump takes their roots, signal rate and "
            "noise rate.",
        ),
        Mistake(
            "mixed by strength",
            lambda schedule, x0, timesteps, strength, eps: _start_mixed(
                lambda schedule, x0, t, eps: (1 - strength) * x0 + strength * eps
            )(schedule, x0, timesteps, strength, eps),
            "You mix picture and noise by the strength. It only says where to begin; the mixture "
            "there is that of the schedule, by signal rate and noise rate.",
        ),
        Mistake(
            "rates swapped",
            _start_mixed(
                lambda schedule, x0, t, eps: (
                    schedule.noise_rate[t] * x0 + schedule.signal_rate[t] * eps
                )
            ),
            "The rates are swapped: the signal rate belongs to the picture.",
        ),
        Mistake(
            "picture not faded",
            _start_mixed(lambda schedule, x0, t, eps: x0 + schedule.noise_rate[t] * eps),
            "You add noise to the full picture. In x_t the picture is faded by the signal rate.",
        ),
        Mistake(
            "faded only",
            _start_mixed(lambda schedule, x0, t, eps: schedule.signal_rate[t] * x0),
            "The picture is faded, but the noise is missing.",
        ),
        Mistake(
            "noise of its own",
            _start_mixed(
                lambda schedule, x0, t, eps: (
                    schedule.signal_rate[t] * x0 + schedule.noise_rate[t] * torch.randn(eps.shape)
                )
            ),
            OWN_NOISE,
        ),
    ),
    alternatives=(_start_counted, _start_numpy),
)


# --- the known part, put back --------------------------------------------------------------------


def _put_back(schedule, x_s, s, known, mask, eps):
    noised = schedule.signal_rate[s] * known + schedule.noise_rate[s] * eps
    return torch.where(mask, noised, x_s)


def _put_back_cases(generator: torch.Generator):
    for kind, s, shape, mask_shape in (
        ("cosine", 500, (2, 1, 4, 4), (1, 4, 4)),
        ("linear", 0, (3, 5), (5,)),
        ("linear", 300, (4, 4), (4,)),
        ("cosine", 40, (1, 3, 2, 2), (3, 2, 2)),
        (9, 1, (3, 3, 2), (3, 3, 2)),
        (6, 5, (2, 2, 1, 2, 2), (1, 1, 2, 2)),
        (8, 3, (1, 6), (6,)),
    ):
        x_s, known, eps = torch.randn(3, *shape, generator=generator)
        mask = torch.rand(mask_shape, generator=generator) < 0.5
        mask.view(-1)[0], mask.view(-1)[-1] = True, False
        yield _schedule(kind, generator), x_s, s, known, mask, eps


def _replaced(noised: Callable) -> Callable:
    """An answer that puts back something else: ``noised(schedule, s, known, eps)``."""

    def put_back(schedule, x_s, s, known, mask, eps):
        return torch.where(mask, noised(schedule, s, known, eps), x_s)

    return put_back


def _jump(schedule, s, known, eps):
    return schedule.signal_rate[s] * known + schedule.noise_rate[s] * eps


def _put_back_indexed(schedule, x_s, s, known, mask, eps):
    where = mask.expand(x_s.shape)
    x_s[where] = _jump(schedule, s, known, eps)[where].to(x_s)
    return x_s


put_back = Exercise(
    "lesson11.put_back",
    "Put the known part back",
    difficulty=2,
    minutes=6,
    hints=(
        "Two parts: first noise the known picture to step s, by the jump. Then choose, pixel by "
        "pixel.",
        "`torch.where(mask, a, b)` takes a where the mask is True and b elsewhere.",
    ),
    model_answer=_put_back,
    cases=_put_back_cases,
    use=_in_parts(x_s=1, known=3, eps=5),
    mistakes=(
        Mistake(
            "mask inverted",
            lambda schedule, x_s, s, known, mask, eps: _put_back(
                schedule, x_s, s, known, ~mask, eps
            ),
            "The mask works the wrong way round: it is True where the picture is *known*, and "
            "there the known pixels replace the walk's.",
        ),
        Mistake(
            "noised one step too far",
            _replaced(
                lambda schedule, s, known, eps: _jump(
                    schedule, min(s + 1, schedule.num_steps), known, eps
                )
            ),
            "The known part is noised to step s + 1, and the rest of the picture has arrived at s. "
            "Both must be at the same step.",
        ),
        Mistake(
            "noised one step too little",
            _replaced(lambda schedule, s, known, eps: _jump(schedule, max(s - 1, 0), known, eps)),
            "The known part is noised to step s - 1, and the rest of the picture is at s. Both "
            "must be at the same step.",
        ),
        Mistake(
            "not noised",
            _replaced(lambda schedule, s, known, eps: known),
            "The known part is put back clean, into a picture that is noisy. The model expects the "
            "same noise everywhere.",
        ),
        Mistake(
            "noise alone",
            _replaced(lambda schedule, s, known, eps: eps),
            "You put back noise alone. The known picture belongs there, noised to step s.",
        ),
        Mistake(
            "faded only",
            _replaced(lambda schedule, s, known, eps: schedule.signal_rate[s] * known),
            "The known part is faded, but it has no noise. The model would see at once that it "
            "does not belong there.",
        ),
        Mistake(
            "nothing at the end",
            lambda schedule, x_s, s, known, mask, eps: (
                _put_back(schedule, x_s, s, known, mask, eps) if s > 0 else x_s * 1
            ),
            "Right, but at s = 0 you put nothing back. There the known part is clean, and the "
            "finished picture must show it as it is.",
        ),
        Mistake(
            "1 minus the signal rate",
            _replaced(
                lambda schedule, s, known, eps: (
                    schedule.signal_rate[s] * known + (1 - schedule.signal_rate[s]) * eps
                )
            ),
            "Your noise has the size 1 - signal_rate. It is the squares of the two rates that sum "
            "to 1: take `schedule.noise_rate[s]`.",
        ),
        Mistake(
            "not faded",
            _replaced(lambda schedule, s, known, eps: known + schedule.noise_rate[s] * eps),
            "The known part has its noise, but it is not faded by the signal rate.",
        ),
        Mistake(
            "no roots",
            _replaced(
                lambda schedule, s, known, eps: (
                    schedule.alpha_bar[s] * known + (1 - schedule.alpha_bar[s]) * eps
                )
            ),
            "You mix with alpha_bar and 1 - alpha_bar. The jump takes their roots, signal rate and "
            "noise rate.",
        ),
        Mistake(
            "rates swapped",
            _replaced(
                lambda schedule, s, known, eps: (
                    schedule.noise_rate[s] * known + schedule.signal_rate[s] * eps
                )
            ),
            "The rates are swapped: the signal rate belongs to the known picture.",
        ),
        Mistake(
            "everything replaced",
            lambda schedule, x_s, s, known, mask, eps: _jump(schedule, s, known, eps) + 0 * x_s,
            "You replace the whole picture. Where the mask is False, what the walk has drawn must "
            "stay.",
        ),
        Mistake(
            "nothing replaced",
            lambda schedule, x_s, s, known, mask, eps: x_s * 1,
            "x_s comes back as it was: nothing was put back.",
        ),
        Mistake(
            "added",
            lambda schedule, x_s, s, known, mask, eps: x_s + mask * _jump(schedule, s, known, eps),
            "You add the known part to what the walk has drawn there. It *replaces* that.",
        ),
        Mistake(
            "the rest erased",
            lambda schedule, x_s, s, known, mask, eps: (
                mask * _jump(schedule, s, known, eps) + 0 * x_s
            ),
            "The known part is right, and the rest is 0: what the walk has drawn there is lost.",
        ),
        Mistake(
            "the rest noised again",
            lambda schedule, x_s, s, known, mask, eps: torch.where(
                mask, _jump(schedule, s, known, eps), _jump(schedule, s, x_s, eps)
            ),
            "You noise the walk's own part once more. It is at step s already.",
        ),
        Mistake(
            "known noised twice",
            _replaced(
                lambda schedule, s, known, eps: _jump(
                    schedule, s, _jump(schedule, s, known, eps), eps
                )
            ),
            "The known part is noised twice. One jump brings it to step s.",
        ),
        Mistake(
            "half and half",
            lambda schedule, x_s, s, known, mask, eps: torch.where(
                mask, (_jump(schedule, s, known, eps) + x_s) / 2, x_s
            ),
            "Where the picture is known you take the mean of both. The known part replaces what "
            "the walk has drawn there.",
        ),
        Mistake(
            "noise of its own",
            _replaced(
                lambda schedule, s, known, eps: _jump(schedule, s, known, torch.randn(eps.shape))
            ),
            OWN_NOISE,
        ),
    ),
    alternatives=(
        lambda schedule, x_s, s, known, mask, eps: (
            mask * _jump(schedule, s, known, eps) + ~mask * x_s
        ),
        lambda schedule, x_s, s, known, mask, eps: (
            x_s + mask.float() * (_jump(schedule, s, known, eps) - x_s)
        ),
        lambda schedule, x_s, s, known, mask, eps: np.where(
            mask.numpy(), _jump(schedule, s, known, eps).numpy(), x_s.numpy()
        ),
        _put_back_indexed,
    ),
    passed="This one line, between two steps of the walk, is inpainting.",
)


# --- what is right -------------------------------------------------------------------------------


def _share(x_1, means, variance, weights):
    away = x_1[:, None] - means[:, 0]
    likely = weights * torch.exp(-(away**2) / (2 * variance))
    return likely / likely.sum(1, keepdim=True)


def _share_cases(generator: torch.Generator):
    for count, clusters, variance in ((5, 2, 0.4), (1, 2, 0.1), (3, 3, 0.25), (2, 4, 1.3)):
        x_1 = torch.randn(count, generator=generator)
        means = 1.5 * torch.randn(clusters, 2, generator=generator)
        weights = 0.2 + torch.rand(clusters, generator=generator)
        yield x_1, means, variance, weights / weights.sum()
    # far from all clusters, and very narrow ones
    means = torch.tensor([[-1.0, 0.3], [0.0, -2.0], [1.0, 0.5]])
    yield torch.tensor([3.5, -3.2]), means, 0.8, torch.tensor([0.5, 0.2, 0.3])
    yield torch.tensor([0.5, 0.52]), means, 0.004, torch.tensor([0.2, 0.5, 0.3])


def _share_made(likely: Callable, scaled: bool = True) -> Callable:
    """An answer from other weights: ``likely(away, means, variance, weights)``."""

    def share(x_1, means, variance, weights):
        found = likely(x_1[:, None] - means[:, 0], means, variance, weights)
        return found / found.sum(1, keepdim=True) if scaled else found

    return share


def _share_of(likely: Tensor) -> Tensor:
    return likely / likely.sum(1, keepdim=True)


share = Exercise(
    "lesson11.share",
    "Which cluster, by Bayes' rule",
    difficulty=2,
    minutes=5,
    hints=(
        "How likely is x_1 for a point of cluster k? That is a bell curve around the first "
        "coordinate of its mean. Bayes multiplies by the weight of the cluster.",
        "`weights * torch.exp(-away**2 / (2 * variance))`, with `away` of shape (B, K). Then make "
        "each row sum to 1.",
    ),
    model_answer=_share,
    cases=_share_cases,
    mistakes=(
        Mistake(
            "no weights",
            _share_made(lambda away, means, variance, w: torch.exp(-(away**2) / (2 * variance))),
            "The clusters' weights are missing: a large cluster is more likely before you look.",
        ),
        Mistake(
            "weights alone",
            _share_made(lambda away, means, variance, w: w + 0 * away),
            "You return the weights of the clusters. They are what is known *before* x_1 is seen.",
        ),
        Mistake(
            "no half",
            _share_made(lambda away, means, variance, w: w * torch.exp(-(away**2) / variance)),
            "The exponent of a bell curve is divided by *twice* the variance.",
        ),
        Mistake(
            "variance squared",
            _share_made(
                lambda away, means, variance, w: w * torch.exp(-(away**2) / (2 * variance**2))
            ),
            "You square the variance. It is the square of the standard deviation already.",
        ),
        Mistake(
            "variance as its root",
            _share_made(
                lambda away, means, variance, w: w * torch.exp(-(away**2) / (2 * variance**0.5))
            ),
            "You take the root of the variance. The exponent is divided by twice the variance.",
        ),
        Mistake(
            "no variance",
            _share_made(lambda away, means, variance, w: w * torch.exp(-(away**2) / 2)),
            "The variance is missing: you take bell curves of variance 1.",
        ),
        Mistake(
            "neither",
            _share_made(lambda away, means, variance, w: w * torch.exp(-(away**2))),
            "The exponent lacks its divisor: twice the variance.",
        ),
        Mistake(
            "times the variance",
            _share_made(lambda away, means, variance, w: w * torch.exp(-(away**2) / 2 * variance)),
            "You multiply by the variance. Brackets are missing: `/ (2 * variance)`.",
        ),
        Mistake(
            "weights added",
            _share_made(
                lambda away, means, variance, w: w + torch.exp(-(away**2) / (2 * variance))
            ),
            "You add the weights. Bayes multiplies by them.",
        ),
        Mistake(
            "means added",
            _share_made(
                lambda away, means, variance, w: (
                    w * torch.exp(-((away + 2 * means[:, 0]) ** 2) / (2 * variance))
                )
            ),
            "You add the mean to x_1. The distance is their difference.",
        ),
        Mistake(
            "weights squared",
            _share_made(
                lambda away, means, variance, w: w**2 * torch.exp(-(away**2) / (2 * variance))
            ),
            "Your weights count twice. Bayes multiplies by them once.",
        ),
        Mistake(
            "weights after the softmax",
            _share_made(
                lambda away, means, variance, w: w * (-(away**2) / (2 * variance)).softmax(1),
                scaled=False,
            ),
            "The weights come after the softmax, so a row no longer sums to 1. Multiply before "
            "you scale: add their logarithm, then take the softmax.",
        ),
        Mistake(
            "weights in the exponent",
            _share_made(lambda away, means, variance, w: (w - away**2 / (2 * variance)).softmax(1)),
            "You add the weights in the exponent. There a factor becomes its logarithm: "
            "`weights.log()`.",
        ),
        Mistake(
            "likeliest only",
            _share_made(
                lambda away, means, variance, w: F.one_hot(
                    (w.log() - away**2 / (2 * variance)).argmax(1), len(w)
                ).float()
            ),
            "You give the likeliest cluster everything. Each has its share.",
        ),
        Mistake(
            "scaled over all",
            _share_made(
                lambda away, means, variance, w: (lambda likely: likely / likely.sum())(
                    w * torch.exp(-(away**2) / (2 * variance))
                ),
                scaled=False,
            ),
            "You divide by the sum over all points. Each row belongs to one point: divide it by "
            "its own sum, `sum(1, keepdim=True)`.",
        ),
        Mistake(
            "scaled by the mean",
            _share_made(
                lambda away, means, variance, w: (
                    w.numel() * _share_of(w * torch.exp(-(away**2) / (2 * variance)))
                ),
                scaled=False,
            ),
            "You divide by the mean of a row. By its *sum*, then the shares sum to 1.",
        ),
        Mistake(
            "not squared",
            _share_made(
                lambda away, means, variance, w: w * torch.exp(-away.abs() / (2 * variance))
            ),
            "The distance in the exponent must be squared.",
        ),
        Mistake(
            "sign",
            _share_made(lambda away, means, variance, w: w * torch.exp(away**2 / (2 * variance))),
            "The farther away a cluster is, the likelier it gets: a sign is missing in the "
            "exponent.",
        ),
        Mistake(
            "not scaled",
            _share_made(
                lambda away, means, variance, w: w * torch.exp(-(away**2) / (2 * variance)),
                scaled=False,
            ),
            "The proportions are right, but a row does not sum to 1: divide each row by its sum.",
        ),
        Mistake(
            "scaled over the batch",
            lambda x_1, means, variance, weights: (
                lambda likely: likely / likely.sum(0, keepdim=True)
            )(weights * torch.exp(-((x_1[:, None] - means[:, 0]) ** 2) / (2 * variance))),
            "You scale over the batch: columns sum to 1. Each *row* belongs to one point, and its "
            "shares sum to 1.",
        ),
        Mistake(
            "second coordinate",
            lambda x_1, means, variance, weights: _share(x_1, means.flip(1), variance, weights),
            "You compare x_1 with the second coordinate of the means. It is the first that is "
            "known: `means[:, 0]`.",
        ),
        Mistake(
            "both coordinates",
            lambda x_1, means, variance, weights: (
                weights.log() - (x_1[:, None, None] - means).square().sum(2) / (2 * variance)
            ).softmax(1),
            "You compare x_1 with both coordinates of the means. Only the first is known.",
        ),
        Mistake(
            "softmax of shares",
            lambda x_1, means, variance, weights: (
                weights * torch.exp(-((x_1[:, None] - means[:, 0]) ** 2) / (2 * variance))
            ).softmax(1),
            "A softmax would take the exponential once more. Divide by the sum, or take the "
            "softmax of the *logarithm*.",
        ),
    ),
    alternatives=(
        lambda x_1, means, variance, weights: (
            weights.log() - (x_1[:, None] - means[:, 0]).square() / (2 * variance)
        ).softmax(1),
        lambda x_1, means, variance, weights: torch.stack(
            [_share(x[None], means, variance, weights)[0] for x in x_1]
        ),
    ),
)


# --- back up -------------------------------------------------------------------------------------


def _back_up(schedule, x_s, s, t, z):
    kept = schedule.alpha_bar[t] / schedule.alpha_bar[s]
    return kept.sqrt() * x_s + (1 - kept).sqrt() * z


def _back_up_cases(generator: torch.Generator):
    for kind, s, t, shape in (
        ("cosine", 400, 600, (2, 1, 3, 3)),
        ("linear", 40, 80, (3, 5)),
        ("linear", 0, 300, (4, 4)),
        ("cosine", 980, 1000, (1, 3, 2, 2)),
        ("linear", 10, 11, (2, 3)),
        (9, 1, 2, (3, 3, 2)),
        (7, 2, 7, (2, 2, 1, 2, 2)),
        (6, 4, 5, (1, 2)),
    ):
        x_s, z = torch.randn(2, *shape, generator=generator)
        yield _schedule(kind, generator), x_s, s, t, z


def _up(rates: Callable) -> Callable:
    """An answer with other factors: ``rates(alpha_bar, s, t)`` gives those of x_s and z."""

    def back_up(schedule, x_s, s, t, z):
        a, b = rates(schedule.alpha_bar, s, t)
        return (a * x_s + b * z).to(x_s.dtype)

    return back_up


back_up = Exercise(
    "lesson11.back_up",
    "Back up the chain",
    difficulty=2,
    minutes=5,
    hints=(
        "One noising keeps sqrt(alpha_t) of the picture, and alpha_bar is the product of the "
        "alphas. Which product leads from s to t?",
        "alpha_bar[t] / alpha_bar[s] is the product of the alphas of s+1, ..., t. Its root is what "
        "is kept of x_s, and the variance that is missing to 1 is the noise's.",
    ),
    model_answer=_back_up,
    cases=_back_up_cases,
    use=_in_parts(x_s=1, z=4),
    mistakes=(
        Mistake(
            "the jump from clean data",
            _up(lambda abar, s, t: (abar[t].sqrt(), (1 - abar[t]).sqrt())),
            "These are the rates of the jump from a *clean* picture. x_s has its noise of s steps "
            "already: only the noisings from s to t are missing.",
        ),
        Mistake(
            "no roots",
            _up(lambda abar, s, t: (abar[t] / abar[s], 1 - abar[t] / abar[s])),
            "Both roots are missing: these are variances.",
        ),
        Mistake(
            "no root of what is kept",
            _up(lambda abar, s, t: (abar[t] / abar[s], (1 - abar[t] / abar[s]).sqrt())),
            "The factor of x_s lacks its root.",
        ),
        Mistake(
            "no root of the noise",
            _up(lambda abar, s, t: ((abar[t] / abar[s]).sqrt(), 1 - abar[t] / abar[s])),
            "The factor of z lacks its root: 1 - kept is a variance.",
        ),
        Mistake(
            "upside down",
            _up(lambda abar, s, t: ((abar[s] / abar[t]).sqrt(), (1 - abar[s] / abar[t]).sqrt())),
            "The ratio is upside down: more than 1 would be kept, and the noise would have a "
            "negative variance. The later step has the smaller alpha_bar.",
        ),
        Mistake(
            "swapped",
            _up(lambda abar, s, t: ((1 - abar[t] / abar[s]).sqrt(), (abar[t] / abar[s]).sqrt())),
            "The two factors are swapped: from s to a t nearby, most of x_s stays.",
        ),
        Mistake(
            "difference of variances",
            _up(lambda abar, s, t: ((abar[t] / abar[s]).sqrt(), (abar[s] - abar[t]).sqrt())),
            "The noise is too weak. The noise that x_s has fades on the way, too, so the "
            "difference of the two variances is not enough.",
        ),
        Mistake(
            "difference of noise rates",
            _up(
                lambda abar, s, t: (
                    (abar[t] / abar[s]).sqrt(),
                    (1 - abar[t]).sqrt() - (1 - abar[s]).sqrt(),
                )
            ),
            "Standard deviations do not add up, variances do.",
        ),
        Mistake(
            "all the noise of t",
            _up(lambda abar, s, t: ((abar[t] / abar[s]).sqrt(), (1 - abar[t]).sqrt())),
            "You add all the noise of step t. x_s has some of it already.",
        ),
        Mistake(
            "nothing fades",
            _up(lambda abar, s, t: (1.0, (1 - abar[t] / abar[s]).sqrt())),
            "The noise is right, but x_s must fade: a noising keeps the variance at 1.",
        ),
        Mistake(
            "no noise",
            _up(lambda abar, s, t: ((abar[t] / abar[s]).sqrt(), 0.0)),
            "x_s is faded, but the noise is missing.",
        ),
        Mistake(
            "only where it comes from",
            _up(lambda abar, s, t: (abar[s].sqrt(), (1 - abar[s]).sqrt())),
            "You use alpha_bar of s alone. What is kept on the way depends on t as well.",
        ),
        Mistake(
            "product",
            _up(lambda abar, s, t: ((abar[t] * abar[s]).sqrt(), (1 - abar[t] * abar[s]).sqrt())),
            "You multiply the two alpha_bars. The factor *between* s and t is their ratio.",
        ),
        Mistake(
            "one noising short",
            _up(
                lambda abar, s, t: (
                    (abar[t - 1] / abar[s]).sqrt(),
                    (1 - abar[t - 1] / abar[s]).sqrt(),
                )
            ),
            "You go up to t - 1 only.",
        ),
        Mistake(
            "one noising early",
            _up(
                lambda abar, s, t: (
                    (abar[t] / abar[max(s - 1, 0)]).sqrt(),
                    (1 - abar[t] / abar[max(s - 1, 0)]).sqrt(),
                )
            ),
            "You begin at s - 1: the noising that led to s is taken once more.",
        ),
        Mistake(
            "difference for the ratio",
            _up(
                lambda abar, s, t: (
                    (1 - abar[s] + abar[t]).sqrt(),
                    (abar[s] - abar[t]).sqrt(),
                )
            ),
            "You take the difference of the two alpha_bars. They are products: the alphas between "
            "s and t are their *ratio*.",
        ),
        Mistake(
            "one noising late",
            _up(
                lambda abar, s, t: (
                    (abar[t] / abar[s + 1]).sqrt(),
                    (1 - abar[t] / abar[s + 1]).sqrt(),
                )
            ),
            "You begin at s + 1: the noising from s to s + 1 is missing.",
        ),
        Mistake(
            "the first noisings",
            _up(lambda abar, s, t: (abar[t - s].sqrt(), (1 - abar[t - s]).sqrt())),
            "You take t - s noisings from the *beginning* of the chain, which are weaker. Those "
            "from s to t are needed.",
        ),
        Mistake(
            "the same z at each noising",
            lambda schedule, x_s, s, t, z: _noised_again(schedule.beta[s:t], x_s, z),
            "You go step by step and add the same z each time, and equal noise does not add up "
            "like independent noise. Take all the noisings at once.",
        ),
        Mistake(
            "one noising only",
            _up(
                lambda abar, s, t: (
                    (abar[t] / abar[t - 1]).sqrt(),
                    (1 - abar[t] / abar[t - 1]).sqrt(),
                )
            ),
            "That is the last noising alone, from t - 1 to t. The way is from s to t.",
        ),
        Mistake(
            "subtracted",
            _up(lambda abar, s, t: ((abar[t] / abar[s]).sqrt(), -(1 - abar[t] / abar[s]).sqrt())),
            "You subtract the noise. For random z that makes no difference, but the check gives "
            "you a z: add it.",
        ),
        Mistake(
            "noise of its own",
            lambda schedule, x_s, s, t, z: _back_up(schedule, x_s, s, t, torch.randn(z.shape)),
            OWN_NOISE,
        ),
    ),
    alternatives=(
        lambda schedule, x_s, s, t, z: (
            schedule.signal_rate[t] / schedule.signal_rate[s] * x_s
            + (1 - schedule.alpha_bar[t] / schedule.alpha_bar[s]) ** 0.5 * z
        ),
        lambda schedule, x_s, s, t, z: _with_betas(schedule.beta[s:t], x_s, z),
        lambda schedule, x_s, s, t, z: (
            math.sqrt(schedule.alpha_bar[t] / schedule.alpha_bar[s]) * x_s.numpy()
            + math.sqrt(1 - schedule.alpha_bar[t] / schedule.alpha_bar[s]) * z.numpy()
        ),
    ),
)


def _noised_again(beta: Tensor, x: Tensor, z: Tensor) -> Tensor:
    for one in beta:
        x = (1 - one).sqrt() * x + one.sqrt() * z
    return x


def _with_betas(beta: Tensor, x_s: Tensor, z: Tensor) -> Tensor:
    kept = (1 - beta).prod()
    return kept.sqrt() * x_s + (1 - kept).sqrt() * z


# --- the small picture ---------------------------------------------------------------------------


def _fit(x0_hat, y):
    missing = y - F.avg_pool2d(x0_hat, 2)
    return x0_hat + missing.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def _fit_cases(generator: torch.Generator):
    for batch, channels, h, w in ((2, 1, 4, 4), (1, 3, 2, 6), (3, 1, 6, 2), (4, 4, 8, 8)):
        x0_hat = torch.randn(batch, channels, 2 * h, 2 * w, generator=generator)
        yield x0_hat, torch.randn(batch, channels, h, w, generator=generator)


def _twice_as_large(y: Tensor) -> Tensor:
    return F.interpolate(y, scale_factor=2, mode="nearest")


def _fit_by_loops(x0_hat, y):
    out = x0_hat.clone()
    for i in range(y.shape[2]):
        for j in range(y.shape[3]):
            block = out[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            block += (y[:, :, i, j] - block.mean((2, 3)))[:, :, None, None]
    return out


def _fit_by_blocks(x0_hat, y):
    b, c, h, w = y.shape
    blocks = x0_hat.reshape(b, c, h, 2, w, 2)
    blocks = blocks + (y.reshape(b, c, h, 1, w, 1) - blocks.mean((3, 5), keepdim=True))
    return blocks.reshape(x0_hat.shape)


def _fitted(correction: Callable) -> Callable:
    """An answer with another correction: ``correction(missing)``, or of both."""

    def fit(x0_hat, y):
        return x0_hat + correction(y - F.avg_pool2d(x0_hat, 2))

    return fit


fit = Exercise(
    "lesson11.fit",
    "Agree with the small picture",
    difficulty=2,
    minutes=7,
    hints=(
        "What is missing is small: `y - F.avg_pool2d(x0_hat, 2)`, one number for each block of "
        "2 x 2. What happens to a block's mean if you add one number to all four of its pixels?",
        "Make it large by repeating each number in both directions, "
        "`.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)`, and add it.",
    ),
    model_answer=_fit,
    cases=_fit_cases,
    mistakes=(
        Mistake(
            "a quarter",
            _fitted(lambda missing: _twice_as_large(missing) / 4),
            "Each pixel gets a quarter of what its block lacks, so the mean moves by a quarter. "
            "The mean of four pixels rises by 1 if *each* of them does.",
        ),
        Mistake(
            "four times",
            _fitted(lambda missing: 4 * _twice_as_large(missing)),
            "The correction is four times too large. A mean is not a sum.",
        ),
        Mistake(
            "sign",
            _fitted(lambda missing: -_twice_as_large(missing)),
            "You move away from the small picture: the sign of the correction is wrong.",
        ),
        Mistake(
            "detail lost",
            lambda x0_hat, y: _twice_as_large(y) + 0 * x0_hat,
            "You return the small picture, enlarged. What the model has drawn inside the blocks "
            "should stay: only the means change.",
        ),
        Mistake(
            "mean not taken off",
            lambda x0_hat, y: x0_hat + _twice_as_large(y),
            "You add the small picture itself. Add what is *missing*: y less the means that are "
            "there.",
        ),
        Mistake(
            "means added",
            lambda x0_hat, y: x0_hat + _twice_as_large(y + F.avg_pool2d(x0_hat, 2)),
            "You add the means that are there. They must be taken *off* y to find what is missing.",
        ),
        Mistake(
            "means taken off only",
            lambda x0_hat, y: x0_hat - _twice_as_large(F.avg_pool2d(x0_hat, 2)) + 0 * y.sum(),
            "You take the means off, and do not put those of y in their place.",
        ),
        Mistake(
            "smooth",
            _fitted(
                lambda missing: F.interpolate(
                    missing, scale_factor=2, mode="bilinear", align_corners=False
                )
            ),
            "You enlarge what is missing smoothly. Then it leaks into the neighboring blocks, and "
            "the means miss. Repeat each number.",
        ),
        Mistake(
            "tiled",
            _fitted(lambda missing: missing.repeat(1, 1, 2, 2)),
            "`repeat` lays the small picture out four times, side by side. Each *number* must be "
            "repeated: `repeat_interleave`.",
        ),
        Mistake(
            "one pixel of four",
            _fitted(
                lambda missing: torch.kron(missing, torch.tensor([[[[4.0, 0.0], [0.0, 0.0]]]]))
            ),
            "The means are right, but one pixel of each block takes all of the correction. Spread "
            "it evenly: that is the smallest change.",
        ),
        Mistake(
            "half way",
            _fitted(lambda missing: _twice_as_large(missing) / 2),
            "You go half of the way. One full correction makes the means right at once.",
        ),
        Mistake(
            "sums for means",
            lambda x0_hat, y: x0_hat + _twice_as_large(y - 4 * F.avg_pool2d(x0_hat, 2)),
            "You compare y with the sum of each block. It holds means: a quarter of that.",
        ),
        Mistake(
            "one number for the picture",
            _fitted(lambda missing: missing.mean((2, 3), keepdim=True)),
            "You add one number to the whole picture, so only its mean is right. Each block has a "
            "number of its own.",
        ),
        Mistake(
            "maxima",
            lambda x0_hat, y: x0_hat + _twice_as_large(y - F.max_pool2d(x0_hat, 2)),
            "You compare y with the largest pixel of each block. It holds means: `avg_pool2d`.",
        ),
        Mistake(
            "one pixel for the block",
            lambda x0_hat, y: x0_hat + _twice_as_large(y - x0_hat[..., ::2, ::2]),
            "You compare y with one pixel of each block. It holds the means of all four.",
        ),
        Mistake(
            "scaled",
            lambda x0_hat, y: x0_hat * _twice_as_large(y / F.avg_pool2d(x0_hat, 2)),
            "The means are right, but you multiply each block, which stretches its details, and "
            "divides by means that may be 0. Add instead.",
        ),
        Mistake(
            "unchanged",
            lambda x0_hat, y: x0_hat * 1,
            "x0_hat comes back as it was.",
        ),
        Mistake(
            "clamped",
            lambda x0_hat, y: _fit(x0_hat, y).clamp(-1, 1),
            "You clamp the result to [-1, 1], and then its means are no longer those of y. Leave "
            "that to whoever shows the picture.",
        ),
    ),
    alternatives=(
        lambda x0_hat, y: x0_hat + _twice_as_large(y - F.avg_pool2d(x0_hat, 2)),
        _fit_by_loops,
        _fit_by_blocks,
        lambda x0_hat, y: x0_hat + torch.kron(y - F.avg_pool2d(x0_hat, 2), torch.ones(1, 1, 2, 2)),
    ),
)


# --- downhill ------------------------------------------------------------------------------------


def _gradient(model, schedule, x_t, t, y, A):
    x = x_t.detach().requires_grad_()
    x0_hat = predict_x0(schedule, x, t, model(x, t))
    missed = (y - A(x0_hat)).flatten(1)
    return torch.autograd.grad(missed.norm(dim=1).sum(), x)[0]


def _wavy(num_steps: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A cheap model that depends on x and t, and refuses what a network would refuse."""

    def model(x: Tensor, t: Tensor) -> Tensor:
        if not isinstance(t, Tensor) or t.dtype != torch.int64 or t.shape != (len(x),):
            got = f"{t.dtype} {tuple(t.shape)}" if isinstance(t, Tensor) else type(t).__name__
            raise ValueError(f"t must be int64 of shape ({len(x)},), got {got}")
        age = (t / num_steps).reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)
        mixed = x + 0.3 * x.roll(1, -1)
        return torch.sin(1.3 * mixed + 2 * age) + 0.2 * age * x

    return model


def _first_half(x: Tensor) -> Tensor:
    return x[..., : x.shape[-1] // 2]


def _blurred(x: Tensor) -> Tensor:
    return (x + 2 * x.roll(1, -1)) / 3


def _pooled(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2)


def _gray(x: Tensor) -> Tensor:
    return x.mean(1, keepdim=True)


def _gradient_cases(generator: torch.Generator):
    for kind, steps, shape, A in (
        ("cosine", [500, 20], (2, 1, 4, 4), _pooled),
        ("linear", [300], (1, 4), _first_half),
        ("cosine", [1, 700, 400], (3, 3, 2, 2), _gray),
        (9, [9, 2, 1, 5], (4, 4), _blurred),
        (6, [3, 6], (2, 2, 1, 2, 2), _blurred),
    ):
        schedule = _schedule(kind, generator)
        x_t = torch.randn(shape, generator=generator)
        with torch.no_grad():
            y = A(torch.randn(shape, generator=generator))
        yield _wavy(schedule.num_steps), schedule, x_t, torch.tensor(steps), y, A


_NOT_A_GRADIENT = (
    "What you return is the norm, one number a sample. Return its gradient, in the shape of x_t."
)
_A_TUPLE = (
    "`torch.autograd.grad` gives a tuple with the gradient in it, and you return the tuple. Take "
    "what is in it: `[0]`."
)
_NO_GRADIENT = (
    "No gradient can be taken: nothing here knows that it depends on x_t. Make a tensor that "
    "requires a gradient, `x_t.detach().requires_grad_()`, and compute everything from it."
)


def _gradient_use(answer, model, schedule, x_t, t, y, A):
    try:
        came = answer(model, schedule, x_t.clone(), t.clone(), y.clone(), A)
    except RuntimeError as error:
        if "does not require grad" in str(error):
            raise Wrong("raised", _NO_GRADIENT, "nothing requires a gradient") from error
        raise
    if came is ...:
        return ...
    if isinstance(came, tuple) and len(came) == 1:
        raise Wrong("shape", _A_TUPLE, "the tuple")
    if isinstance(came, Tensor) and came.ndim < x_t.ndim and came.numel() in (1, len(x_t)):
        raise Wrong("shape", _NOT_A_GRADIENT, "the norm itself")
    return tensor_like(came, x_t)


def _of(size: Callable[[Tensor], Tensor], sign: float = 1.0) -> Callable:
    """The gradient of another size of what is missed, (B, M) to numbers."""

    def gradient(model, schedule, x_t, t, y, A):
        x = x_t.detach().requires_grad_()
        missed = (y - A(predict_x0(schedule, x, t, model(x, t)))).flatten(1)
        return sign * torch.autograd.grad(size(missed).sum(), x)[0]

    return gradient


def _norms(missed: Tensor) -> Tensor:
    return missed.norm(dim=1)


def _model_detached(model, schedule, x_t, t, y, A):
    x = x_t.detach().requires_grad_()
    x0_hat = predict_x0(schedule, x, t, model(x, t).detach())
    return torch.autograd.grad(_norms((y - A(x0_hat)).flatten(1)).sum(), x)[0]


def _at_x0_hat(model, schedule, x_t, t, y, A):
    x0_hat = predict_x0(schedule, x_t, t, model(x_t, t)).detach().requires_grad_()
    return torch.autograd.grad(_norms((y - A(x0_hat)).flatten(1)).sum(), x0_hat)[0]


def _of_the_state(model, schedule, x_t, t, y, A):
    x = x_t.detach().requires_grad_()
    return torch.autograd.grad(_norms((y - A(x)).flatten(1)).sum(), x)[0]


def _of_eps_hat(model, schedule, x_t, t, y, A):
    x = x_t.detach().requires_grad_()
    return torch.autograd.grad(_norms((y - A(model(x, t))).flatten(1)).sum(), x)[0]


def _without_y(model, schedule, x_t, t, y, A):
    x = x_t.detach().requires_grad_()
    x0_hat = predict_x0(schedule, x, t, model(x, t))
    return torch.autograd.grad(_norms(A(x0_hat).flatten(1)).sum(), x)[0]


def _y_added(model, schedule, x_t, t, y, A):
    return _gradient(model, schedule, x_t, t, -y, A)


def _through_the_model_only(model, schedule, x_t, t, y, A):
    x = x_t.detach().requires_grad_()
    x0_hat = predict_x0(schedule, x_t, t, model(x, t))
    return torch.autograd.grad(_norms((y - A(x0_hat)).flatten(1)).sum(), x)[0]


def _norm_of_axis_1(model, schedule, x_t, t, y, A):
    x = x_t.detach().requires_grad_()
    missed = y - A(predict_x0(schedule, x, t, model(x, t)))
    return torch.autograd.grad(missed.norm(dim=1).sum(), x)[0]


def _one_step(model, schedule, x_t, t, y, A):
    return _gradient(model, schedule, x_t, t.clamp(max=int(t[0])).clamp(min=int(t[0])), y, A)


def _never_required(model, schedule, x_t, t, y, A):
    missed = (y - A(predict_x0(schedule, x_t, t, model(x_t, t)))).flatten(1)
    return torch.autograd.grad(_norms(missed).sum(), x_t)[0]


def _in_a_tuple(model, schedule, x_t, t, y, A):
    return (_gradient(model, schedule, x_t, t, y, A),)


def _norm_itself(model, schedule, x_t, t, y, A):
    return _norms((y - A(predict_x0(schedule, x_t, t, model(x_t, t)))).flatten(1))


def _gradient_backward(model, schedule, x_t, t, y, A):
    x = x_t.clone().requires_grad_(True)
    signal, noise = (
        rate[t].reshape(-1, *[1] * (x.ndim - 1)).to(x)
        for rate in (schedule.signal_rate, schedule.noise_rate)
    )
    missed = A((x - noise * model(x, t)) / signal) - y
    missed.flatten(1).square().sum(1).sqrt().sum().backward()
    return x.grad


def _gradient_one_by_one(model, schedule, x_t, t, y, A):
    rows = []
    for i in range(len(x_t)):
        x = x_t[i : i + 1].detach().requires_grad_()
        one = t[i : i + 1]
        missed = y[i : i + 1] - A(predict_x0(schedule, x, one, model(x, one)))
        rows.append(torch.autograd.grad(missed.norm(), x)[0])
    return torch.cat(rows)


gradient = Exercise(
    "lesson11.gradient",
    "Which way is downhill?",
    difficulty=3,
    minutes=10,
    hints=(
        "Begin with `x = x_t.detach().requires_grad_()` and compute all the rest from x: eps_hat, "
        "x0_hat by `predict_x0`, and what it misses.",
        "`missed.flatten(1).norm(dim=1)` is one norm a sample. The gradient of their *sum* has in "
        "each sample's place the gradient of its own norm.",
        "`torch.autograd.grad(norms.sum(), x)` gives a tuple with one tensor in it.",
    ),
    model_answer=_gradient,
    cases=_gradient_cases,
    use=_gradient_use,
    together=True,  # the gradient goes back through the model
    mistakes=(
        Mistake(
            "the model detached",
            _model_detached,
            "The gradient does not pass through the model: you cut its answer off. x0_hat depends "
            "on x_t in two ways, directly and through eps_hat, and both count.",
        ),
        Mistake(
            "at x0_hat",
            _at_x0_hat,
            "This is the gradient with respect to x0_hat. Take the one with respect to x_t: "
            "how the norm changes when the *noisy* picture does.",
        ),
        Mistake(
            "of the noisy picture",
            _of_the_state,
            "You compare y with A of the noisy x_t. What was measured belongs to the clean "
            "picture: compare it with A(x0_hat).",
        ),
        Mistake(
            "of the noise",
            _of_eps_hat,
            "You compare y with A(eps_hat). eps_hat is the noise; the picture is x0_hat.",
        ),
        Mistake(
            "y forgotten",
            _without_y,
            "This is the gradient of the norm of A(x0_hat): y is missing.",
        ),
        Mistake(
            "y added",
            _y_added,
            "You add y to A(x0_hat). What is missed is their difference.",
        ),
        Mistake(
            "through the model only",
            _through_the_model_only,
            "You give predict_x0 the x_t that needs no gradient. x0_hat depends on it in two ways, "
            "directly and through eps_hat: use your x in both places.",
        ),
        Mistake(
            "plain sum",
            _of(lambda missed: missed.sum(1)),
            "You take the gradient of the plain sum of what is missed, where plus and minus "
            "cancel. Take its norm.",
        ),
        Mistake(
            "uphill and downhill",
            _of(_norms, -1.0),
            "Right but for the sign. The gradient of the norm points *uphill*; the walk subtracts "
            "it.",
        ),
        Mistake(
            "squared norm",
            _of(lambda missed: missed.square().sum(1)),
            "This is the gradient of the *squared* norm. It is large while much is missing and "
            "fades at the end; the norm's has about the same length all the way.",
        ),
        Mistake(
            "half the squared norm",
            _of(lambda missed: missed.square().sum(1) / 2),
            "This is the gradient of half the squared norm. Take the norm itself.",
        ),
        Mistake(
            "mean of squares",
            _of(lambda missed: missed.square().mean(1)),
            "This is the gradient of the mean of squares. Take that of the norm, the root of the "
            "sum of squares.",
        ),
        Mistake(
            "mean of squares over the batch",
            _of(lambda missed: missed.square().mean(0, keepdim=True).mean(1)),
            "This is the gradient of the mean of squares over the whole batch, as in training. "
            "Take the norm of each sample, the root of its sum of squares, and sum those.",
        ),
        Mistake(
            "the step taken",
            lambda model, schedule, x_t, t, y, A: x_t - _gradient(model, schedule, x_t, t, y, A),
            "You take the step yourself: this is x_t less the gradient. Return the gradient alone.",
        ),
        Mistake(
            "of length 1",
            lambda model, schedule, x_t, t, y, A: (
                lambda g: g / per_sample(g.flatten(1).norm(dim=1), g)
            )(_gradient(model, schedule, x_t, t, y, A)),
            "Your gradients are scaled to length 1. Return them as they are.",
        ),
        Mistake(
            "one norm for the batch",
            _of(lambda missed: missed.norm()),
            "You take one norm for the whole batch, so that each sample's gradient depends on the "
            "others. Each has a norm of its own.",
        ),
        Mistake(
            "a norm for each column",
            _norm_of_axis_1,
            "You take norms along one axis of the picture, and sum those. A sample has *one* norm, "
            "over all of its numbers: flatten it first.",
        ),
        Mistake(
            "mean over the batch",
            _of(lambda missed: missed.norm(dim=1).mean(0, keepdim=True)),
            "The mean over the batch makes each gradient smaller, the more samples there are. Sum "
            "the norms.",
        ),
        Mistake(
            "sum of distances",
            _of(lambda missed: missed.abs().sum(1)),
            "You sum absolute values. The norm is the root of the sum of squares.",
        ),
        Mistake(
            "one step for all",
            _one_step,
            "You use the first sample's step for all of them. Each has its own t.",
        ),
        Mistake("nothing requires a gradient", _never_required, _NO_GRADIENT),
        Mistake("the tuple", _in_a_tuple, _A_TUPLE),
        Mistake("the norm itself", _norm_itself, _NOT_A_GRADIENT),
    ),
    alternatives=(_gradient_backward, _gradient_one_by_one),
    passed="Chung et al. called it diffusion posterior sampling, DPS.",
)


# --- questions -----------------------------------------------------------------------------------

strength_one = Choice(
    "lesson11.strength_one",
    "Strength 1",
    difficulty=1,
    minutes=1,
    hints=("What is the signal rate at the last step of the cosine schedule?",),
    right="c",
    options={
        "a": "The label says which digit to draw, not where its strokes are. At 0.5 the strokes "
        "stayed since half of the picture was left in x_t.",
        "b": "At strength 0 nothing would be done and the picture would come back. 1 is the other "
        "end.",
        "c": "Right. The picture is noised to T, where its signal rate is 0.00005: any picture "
        "would do. What remains is the label.",
        "d": "The walk ends on clean data as always. What it begins with is noise.",
    },
)

why_biased = Choice(
    "lesson11.why_biased",
    "Why replacement is biased",
    difficulty=2,
    minutes=2,
    hints=(
        "Put yourself at the first steps of the walk. How much of the known part can the model "
        "see in its noised copy?",
    ),
    right="b",
    options={
        "a": "The oracle is exact, and still the shares are wrong. It is the walk that errs.",
        "b": "Right. The free part is decided while the known part is still buried in noise, and a "
        "walk never goes back. What comes later can only be fitted to the decision.",
        "c": "More steps do not help: the shares stay where they are. Going back up does.",
        "d": "Noise drawn once would only be a second fault: the free part would get used to it.",
    },
)

dps_cost = Number(
    "lesson11.dps_cost",
    "What a gradient costs",
    difficulty=1,
    minutes=2,
    hints=(
        "A walk of 25 strides asks 25 times. Each time the gradient goes back through the network.",
    ),
    value=75.0,
    rtol=1e-6,
    mistakes=(
        Mistake("forward only", 25.0, "That is the plain walk. The way back costs something, too."),
        Mistake(
            "backward only",
            50.0,
            "That is the way back alone. Each stride asks the network as well.",
        ),
        Mistake(
            "three times back",
            100.0,
            "Going back takes two forward evaluations, not three; with the one forward that makes "
            "three a stride.",
        ),
        Mistake(
            "once",
            27.0,
            "The gradient is taken anew in each stride: x_t has changed.",
        ),
    ),
    why="25 times one evaluation forward, and 25 times about two backward.",
)

coloring = Number(
    "lesson11.coloring",
    "What gray leaves open",
    difficulty=1,
    minutes=2,
    hints=("How many numbers does the color picture have, and how many of them does gray fix?",),
    value=2048.0,
    rtol=1e-6,
    mistakes=(
        Mistake(
            "those that are fixed",
            1024.0,
            "That is how many numbers the gray picture *fixes*. How many are left?",
        ),
        Mistake("all of them", 3072.0, "That is how many numbers the color picture has in all."),
        Mistake("a channel", 2047.0, "Each of the 1,024 gray values fixes one number, no more."),
    ),
    why="3 x 32 x 32 = 3,072 numbers, less the 1,024 that the gray picture fixes.",
)
