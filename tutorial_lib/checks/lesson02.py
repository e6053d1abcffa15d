"""Lesson 2, the closed-form jump: chain and jump, one t per image, x_0 back, the posterior."""

import math

import torch
from torch import Tensor

from tutorial_lib import forward
from tutorial_lib.checks.framework import (
    Choice,
    Exercise,
    Mistake,
    Number,
    Property,
    Wrong,
    per_sample,
    tensor_like,
    tidy,
)
from tutorial_lib.schedules import (
    NoiseSchedule,
    cosine_schedule,
    from_betas,
    linear_schedule,
)


def _column(values: Tensor, t: Tensor, x: Tensor) -> Tensor:
    """``values[t]`` in the precision of ``x``, shaped to multiply it."""
    return per_sample(values[t].to(x.dtype), x)


def _short_schedule(num_steps: int = 40) -> NoiseSchedule:
    """Few, large steps: neighboring steps and rates differ enough to tell mistakes apart."""
    return from_betas(torch.linspace(0.02, 0.2, num_steps))


_SHAPES = (
    *((1, 1, 4, 4), (3, 1, 5, 3), (2, 3, 2, 2), (4, 2), (5, 1, 2, 6)),
    *((3, 3, 2, 4), (3, 3, 5), (4,), (2, 2, 3, 2, 3)),
)
"""Batch 1; batch equal to the width, where a missing reshape raises nothing; points; batch equal to
the channels; 3, 1 and 5 axes."""


def _batches(generator: torch.Generator):
    """x_0, t and eps of several shapes; the last step among the t."""
    schedule = _short_schedule()
    for shape in _SHAPES:
        x0 = torch.rand(shape, generator=generator) * 2 - 1
        t = torch.randint(1, schedule.num_steps, shape[:1], generator=generator)
        t[-1] = schedule.num_steps
        yield schedule, x0, t, torch.randn(shape, generator=generator)
    t = torch.tensor([6, 2])
    yield schedule, _disc(), t, torch.randn(2, 1, 20, 20, generator=generator)
    for schedule in (linear_schedule(1000), cosine_schedule(1000)):  # the course's own
        t = torch.tensor([1, 2, 500, 999, 1000, 2])
        x0 = torch.rand(len(t), 3, 2, 2, generator=generator, dtype=torch.float64) * 2 - 1
        eps = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
        yield schedule, x0, t, eps


def _disc() -> Tensor:
    """Two pictures with a disc, so that what goes wrong can be seen."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 20), torch.linspace(-1, 1, 20), indexing="ij")
    disc = torch.where((x - 0.1) ** 2 + y**2 < 0.4, 0.9, -0.9)
    return torch.stack([disc, -disc])[:, None]  # (2, 1, 20, 20)


def _weights_named(first: str, second: str, reference, right):
    """For ``use``: where an answer is a mixture of two arguments, a wrong weight is named.

    Args:
        first, second: what the two arguments are called.
        reference: the right answer.
        right: from the schedule and t, the right weights, each (B,).
    """

    def use(answer, schedule: NoiseSchedule, *case: Tensor) -> object:
        t = next(part for part in case if not part.is_floating_point())
        a, b = (part.clone() for part in case if part.is_floating_point())
        expected = reference(schedule, *(part.clone() for part in case))
        given = tidy(answer(schedule, *case))
        if not isinstance(given, Tensor) or given.shape != a.shape or not given.isfinite().all():
            return given
        if torch.isclose(given.double(), expected.double(), rtol=1e-4, atol=1e-5).all():
            return given
        found = _mixture(given, a, b)
        if found is None:
            return given
        raise Wrong("values", _which_weight(found, right(schedule, t), t, (first, second)))

    return use


def _mixture(given: Tensor, a: Tensor, b: Tensor) -> Tensor | None:
    """The weights (B, 2) for which ``given`` is a mixture of a and b, sample by sample, if it is.

    None also if a sample has too few numbers to tell.
    """
    columns = torch.stack([a, b], dim=-1).double().reshape(len(a), -1, 2)
    if columns.shape[1] < 4:
        return None
    target = given.double().reshape(len(a), -1, 1)
    weights = torch.linalg.lstsq(columns, target).solution
    left = (columns @ weights - target).abs().amax((1, 2))
    if (left > 1e-3 * target.abs().amax((1, 2)).clamp(min=1e-6)).any():
        return None
    return weights[..., 0]


def _which_weight(found: Tensor, right: tuple[Tensor, Tensor], t: Tensor, names) -> str:
    wanted = torch.stack(right, dim=1).double()
    wrong = ~torch.isclose(found, wanted, rtol=2e-4, atol=1e-5)
    if not wrong.any():
        return "Close: your weights are right to three digits only. Compute in float32 or better."
    at = int(((found - wanted).abs() / wanted.abs().clamp(min=1e-3)).amax(1).argmax())
    parts = [
        f"{name} is multiplied by {_brief(found[at, i])}, right is {_brief(wanted[at, i])}"
        if wrong[:, i].any()
        else f"the weight of {name} is right"
        for i, name in enumerate(names)
    ]
    text = f"At t = {int(t[at])}: {'; '.join(parts)}."
    count = int(wrong.any(1).sum())
    return text if count == len(t) else f"{text} {count} of {len(t)} samples are wrong."


def _brief(value: Tensor) -> str:
    """Four digits, at most four of them decimals: what rounding leaves of 0 is 0."""
    return f"{round(float(value), 4) + 0.0:.4g}"


# at_steps(values, t, x): values (T + 1,), t int64 (B,), x (B, ...): one number a sample, shaped
# so that the result times x multiplies each sample by its own number: (B, 1, 1, 1) for images.


def _at_steps(values, t, x):
    picked = values[t]
    return picked.reshape(len(t), *[1] * (x.ndim - 1))


def _values_and_steps(generator: torch.Generator):
    for schedule, x0, t, _ in _batches(generator):
        yield schedule.signal_rate.to(x0.dtype), t, x0


def _multiplied(answer, values: Tensor, t: Tensor, x: Tensor) -> object:
    picked = answer(values, t, x)
    if picked is None or picked is ...:
        return picked
    return torch.as_tensor(picked) * x


def _at_steps_by_loop(values: Tensor, t: Tensor, x: Tensor) -> Tensor:
    result = torch.empty_like(x)
    for i, step in enumerate(t.tolist()):
        result[i] = values[step]
    return result


def _at_steps_unsqueezed(values: Tensor, t: Tensor, x: Tensor) -> Tensor:
    picked = values.gather(0, t)
    while picked.ndim < x.ndim:
        picked = picked.unsqueeze(-1)
    return picked


at_steps = Exercise(
    "lesson02.at_steps",
    "One t per image",
    difficulty=1,
    minutes=6,
    hints=(
        "`values[t]` looks up one number for each image. Which shape does it have, and which shape "
        "lets it multiply (B, C, H, W)?",
        "Broadcasting lines axes up from the *right*: (B,) meets the width. You want (B, 1, 1, 1).",
        "`values[t].reshape(-1, *[1] * (x.ndim - 1))` has as many axes as x, whatever x is.",
    ),
    model_answer=_at_steps,
    reference=lambda values, t, x: forward.at_steps(values, t, x) * x,
    use=_multiplied,
    cases=_values_and_steps,
    mistakes=(
        Mistake(
            "not reshaped",
            lambda values, t, x: values[t],
            "Your numbers have shape (B,), which broadcasting lines up with the *last* axis of x, "
            "the width. Where B equals the width nothing complains, and columns are scaled.",
        ),
        Mistake(
            "on the channels",
            lambda values, t, x: values[t].reshape(1, -1, *[1] * (x.ndim - 2)),
            "Your numbers lie along the second axis, the channels. The batch is the first one.",
        ),
        Mistake(
            "the first t for all",
            lambda values, t, x: values[t[0]],
            "Every image gets the number of the first t. Each image has a t of its own.",
        ),
        Mistake(
            "images only",
            lambda values, t, x: values[t].reshape(-1, 1, 1, 1),
            "Right for images. For points, x of shape (B, 2), it has too many axes: let the number "
            "of ones follow from `x.ndim`.",
        ),
        Mistake(
            "points only",
            lambda values, t, x: values[t].reshape(-1, 1),
            "Right for points, x of shape (B, 2). Pictures have more axes: let the number of ones "
            "follow from `x.ndim`.",
        ),
        Mistake(
            "images and points only",
            lambda values, t, x: (
                values[t][:, None, None, None] if x.ndim == 4 else values[t][:, None]
            ),
            "Right for pictures and for points, and x may have any number of axes, such as sound "
            "(B, C, L). Let the number of ones follow from `x.ndim`.",
        ),
        Mistake(
            "one axis too many",
            lambda values, t, x: values[t].reshape(-1, *[1] * x.ndim),
            "One axis too many: B and then `x.ndim` ones. Together there should be x.ndim axes.",
        ),
        Mistake(
            "each t once",
            lambda values, t, x: _at_steps(values, t.unique(), x),
            "`unique` throws repeated steps away and sorts the others. Each sample needs its own "
            "number, in the order of t.",
        ),
        Mistake(
            "sorted",
            lambda values, t, x: _at_steps(values, t.sort().values, x),
            "You sort the steps. The first number belongs to the first sample, whatever its t is.",
        ),
        Mistake(
            "mean t",
            lambda values, t, x: values[t].mean(),
            "You average over the batch. Each sample has a number of its own.",
        ),
        Mistake(
            "one step late",
            lambda values, t, x: _at_steps(values, (t + 1).clamp(max=len(values) - 1), x),
            "You look one step too late: entry t of `values` belongs to step t.",
        ),
        Mistake(
            "one step early",
            lambda values, t, x: _at_steps(values, t - 1, x),
            "You look one step too early: `values` has T + 1 entries and `values[t]` is step t.",
        ),
        Mistake(
            "first entries",
            lambda values, t, x: _at_steps(values, torch.arange(len(t)), x),
            "You take the first B entries of `values`, whatever t says.",
        ),
        Mistake(
            "t itself",
            lambda values, t, x: _at_steps(torch.arange(len(values)).float(), t, x),
            "The shape is right. You return t itself; look the numbers up in `values`.",
        ),
        Mistake(
            "x scaled already",
            lambda values, t, x: _at_steps(values, t, x) * x,
            "You return x already scaled. Return the numbers alone, in a shape that will do it.",
        ),
    ),
    alternatives=(
        _at_steps_by_loop,
        _at_steps_unsqueezed,
        lambda values, t, x: values[t].view(len(x), *(1 for _ in x.shape[1:])).numpy(),
        lambda values, t, x: values[(...,) + (None,) * (x.ndim - 1)][t],
    ),
    passed="The same line serves images, points and sound.",
)

# jump(schedule, x0, t, eps): x_t from x_0 in one go; t int64 (B,), each in 1..T.


def _jump(schedule, x0, t, eps):
    shape = (-1, *[1] * (x0.ndim - 1))
    signal_rate = schedule.signal_rate[t].reshape(shape)
    noise_rate = schedule.noise_rate[t].reshape(shape)
    return signal_rate * x0 + noise_rate * eps


def _weighted(signal, noise):
    """A jump with other weights: ``signal(schedule)`` and ``noise(schedule)``, entries 0..T."""

    def answer(schedule: NoiseSchedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        return _column(signal(schedule), t, x0) * x0 + _column(noise(schedule), t, x0) * eps

    return answer


def _from_step_1(values: Tensor) -> Tensor:
    """T values for t = 1..T, with one more in front, so that they can be indexed by t."""
    return torch.cat([values[:1], values])


def _jump_without_reshape(schedule: NoiseSchedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    return schedule.signal_rate[t].float() * x0 + schedule.noise_rate[t].float() * eps


def _jump_with_new_noise(schedule: NoiseSchedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    return _jump(schedule, x0, t, torch.randn_like(x0))


def _jump_by_loop(schedule: NoiseSchedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    pictures = []
    for i in range(len(x0)):
        share = float(schedule.alpha_bar[t[i]])
        pictures.append(share**0.5 * x0[i] + (1 - share) ** 0.5 * eps[i])
    return torch.stack(pictures)


def _jump_from_alphas(schedule: NoiseSchedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    alpha_bar = schedule.alpha.cumprod(0)[t - 1]
    while alpha_bar.ndim < x0.ndim:
        alpha_bar = alpha_bar[..., None]
    return x0.mul_(alpha_bar.sqrt()).add_(eps.mul_((1 - alpha_bar).sqrt()))


def _jump_in_numpy(schedule: NoiseSchedule, x0: Tensor, t: Tensor, eps: Tensor):
    share = schedule.alpha_bar.numpy()[t.numpy()]
    moved = share**0.5 * x0.numpy().T + (1 - share) ** 0.5 * eps.numpy().T
    return moved.T


def _jump_of_two_kinds(schedule: NoiseSchedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    place = (..., None, None, None) if x0.ndim == 4 else (..., None)
    return schedule.signal_rate[t][place] * x0 + schedule.noise_rate[t][place] * eps


def _jump_of_images(schedule: NoiseSchedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    signal_rate, noise_rate = (
        rate[t].reshape(-1, 1, 1, 1) for rate in (schedule.signal_rate, schedule.noise_rate)
    )
    return signal_rate * x0 + noise_rate * eps


jump = Exercise(
    "lesson02.jump",
    "The jump",
    difficulty=2,
    minutes=6,
    hints=(
        "x_t is a mixture: so much of x_0, so much of eps. The two weights are in the schedule.",
        "`schedule.signal_rate[t]` and `schedule.noise_rate[t]` are the weights, one for each "
        "image.",
        "Both are (B,): use your answer to the exercise before to shape them for x0.",
    ),
    model_answer=_jump,
    reference=forward.diffuse,
    use=_weights_named(
        "x0",
        "eps",
        forward.diffuse,
        lambda schedule, t: (schedule.signal_rate[t], schedule.noise_rate[t]),
    ),
    cases=_batches,
    mistakes=(
        Mistake(
            "alpha for alpha_bar",
            _weighted(
                lambda s: _from_step_1(s.alpha).sqrt(), lambda s: _from_step_1(s.beta).sqrt()
            ),
            "This uses alpha_t where the jump needs alpha_bar_t: you took the last of t steps "
            "only.",
        ),
        Mistake(
            "no roots",
            _weighted(lambda s: s.alpha_bar, lambda s: 1 - s.alpha_bar),
            "Both roots are missing: alpha_bar is a share of variance, a weight is its root.",
        ),
        Mistake(
            "no root at the noise",
            _weighted(lambda s: s.signal_rate, lambda s: 1 - s.alpha_bar),
            "The weight of eps lacks its root: 1 - alpha_bar is the variance of the noise.",
        ),
        Mistake(
            "no root at the signal",
            _weighted(lambda s: s.alpha_bar, lambda s: s.noise_rate),
            "The weight of x_0 lacks its root: x_0 is multiplied by the signal rate.",
        ),
        Mistake(
            "swapped",
            _weighted(lambda s: s.noise_rate, lambda s: s.signal_rate),
            "The weights are swapped: at small t your picture is noise, at large t it is clean.",
        ),
        Mistake(
            "weights add up to 1",
            _weighted(lambda s: s.signal_rate, lambda s: 1 - s.signal_rate),
            "Your weights add up to 1. It is their squares that should: variances add, not "
            "amplitudes.",
        ),
        Mistake(
            "beta for the noise",
            _weighted(lambda s: s.signal_rate, lambda s: _from_step_1(s.beta).sqrt()),
            "The signal is right. Your noise is that of one step, root of beta_t; t steps add "
            "more.",
        ),
        Mistake(
            "betas for alphas",
            _weighted(
                lambda s: torch.cat([torch.ones(1), s.beta.cumprod(0)]).sqrt(),
                lambda s: (1 - torch.cat([torch.ones(1), s.beta.cumprod(0)])).sqrt(),
            ),
            "You multiply the betas, what each step takes away. alpha_bar multiplies what it "
            "keeps.",
        ),
        Mistake(
            "one step early",
            lambda s, x0, t, eps: _jump(s, x0, t - 1, eps),
            "You are at step t - 1: `signal_rate` and `noise_rate` begin at t = 0, so index by t.",
        ),
        Mistake(
            "the first t for all",
            lambda s, x0, t, eps: _jump(s, x0, t[:1], eps),
            "All images jump to the first image's t. Each has its own.",
        ),
        Mistake(
            "not reshaped",
            _jump_without_reshape,
            "The rates have shape (B,), and broadcasting lines that up with the width of x0. Shape "
            "them (B, 1, 1, 1).",
        ),
        Mistake(
            "new noise",
            _jump_with_new_noise,
            "You draw noise of your own. Use the eps that you are given: a network will have to "
            "find exactly this one.",
        ),
        Mistake(
            "noise taken away",
            lambda s, x0, t, eps: _jump(s, x0, t, -eps),
            "Your noise has a minus sign. It would look the same, but it is -eps that you add.",
        ),
        Mistake(
            "signal not shrunk",
            _weighted(lambda s: torch.ones_like(s.alpha_bar), lambda s: s.noise_rate),
            "Your x_0 stays at full strength. It fades while the noise grows; the variance stays "
            "near 1.",
        ),
        Mistake(
            "images only",
            _jump_of_images,
            "Right for images. For points, x0 of shape (B, 2), the rates have too many axes: let "
            "the number of ones follow from `x0.ndim`.",
        ),
        Mistake(
            "images and points only",
            _jump_of_two_kinds,
            "Right for pictures and points. x0 may have any number of axes, such as sound (B, C, "
            "L): let the number of ones follow from `x0.ndim`.",
        ),
        Mistake(
            "squares",
            _weighted(lambda s: s.alpha_bar**2, lambda s: (1 - s.alpha_bar) ** 2),
            "You square alpha_bar and 1 - alpha_bar. The weights are their roots.",
        ),
        Mistake(
            "alpha_bar one step early",
            lambda s, x0, t, eps: (
                _column(s.signal_rate, t - 1, x0) * x0 + _column(s.noise_rate, t, x0) * eps
            ),
            "The noise is right. The signal is that of step t - 1: index both rates by t.",
        ),
        Mistake(
            "noise one step early",
            lambda s, x0, t, eps: (
                _column(s.signal_rate, t, x0) * x0 + _column(s.noise_rate, t - 1, x0) * eps
            ),
            "The signal is right. The noise is that of step t - 1: index both rates by t.",
        ),
        Mistake(
            "eps not scaled",
            _weighted(lambda s: s.signal_rate, lambda s: torch.ones_like(s.alpha_bar)),
            "You add eps at full strength. Its weight is the noise rate.",
        ),
        Mistake(
            "signal only",
            _weighted(lambda s: s.signal_rate, lambda s: torch.zeros_like(s.alpha_bar)),
            "The signal is right, and no noise is added: + noise rate times eps.",
        ),
        Mistake(
            "minus for plus",
            lambda s, x0, t, eps: -_jump(s, x0, t, -eps),
            "x_0 enters with a minus sign. Both weights are positive.",
        ),
        Mistake(
            "clamped",
            lambda s, x0, t, eps: _jump(s, x0, t, eps).clamp(-1, 1),
            "You clamp x_t to [-1, 1]. Noise goes beyond, and must: a clamped x_t is not Gaussian.",
        ),
        Mistake(
            "signal rate of the whole",
            lambda s, x0, t, eps: _column(s.signal_rate, t, x0) * (x0 + eps),
            "You multiply x_0 *and* eps by the signal rate. eps has a weight of its own.",
        ),
        Mistake(
            "root taken twice",
            _weighted(lambda s: s.signal_rate.sqrt(), lambda s: s.noise_rate.sqrt()),
            "`signal_rate` and `noise_rate` are roots already: multiply by them as they are.",
        ),
    ),
    alternatives=(_jump_by_loop, _jump_from_alphas, _jump_in_numpy, forward.diffuse),
    passed="One line instead of a thousand steps: this is what makes training affordable.",
)

# chain(schedule, x0, t, generator): the same by t single steps; here t is one int for all images.
# Draw fresh noise at each step with torch.randn(x.shape, generator=generator).


def _chain(schedule, x0, t, generator):
    x = x0
    for step in range(1, t + 1):
        z = torch.randn(x.shape, generator=generator)
        beta = schedule.beta[step - 1]
        x = (1 - beta).sqrt() * x + beta.sqrt() * z
    return x


def _crowds(generator: torch.Generator):
    """Many samples, so that what is random shows in numbers; few steps with large betas."""
    short = from_betas(torch.tensor([0.3, 0.5, 0.2, 0.4, 0.15]))
    for schedule, shape, t, width in (
        (short, (1, 1, 128, 128), 1, 2.0),
        (short, (4096, 4), 3, 2.0),
        (short, (3, 64, 80), 4, 2.0),
        (short, (64, 3, 8, 10), 5, 2.0),
        (short, (16384,), 2, 2.0),
        (linear_schedule(1000), (16, 3, 2, 16, 16), 100, 40.0),  # the course's own
        (from_betas([0.2, 0.999]), (64, 3, 8, 10), 2, 2.0),
    ):
        x0 = (torch.rand(shape, generator=generator) * 2 - 1) * width
        seed = int(torch.randint(1_000_000, (1,), generator=generator))
        yield schedule, x0, t, torch.Generator().manual_seed(seed)


def _statistics(
    answer, schedule: NoiseSchedule, x0: Tensor, t: int, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """What can be said about x_t whatever the order of draws."""
    start = x0.clone()  # the answer may overwrite its argument
    x_t = tensor_like(answer(schedule, x0, t, generator), start).double()
    start = start.double()
    slope = (x_t * start).mean() / start.square().mean()
    noise = x_t - slope * start
    spread = noise.std()
    scaled = noise / spread.clamp(min=1e-30)
    alike = [_along(scaled, axis) for axis in range(noise.ndim)]
    samples, neighbors = alike[0], alike[-1]
    channels = max(alike[1:-1], key=lambda one: abs(float(one)), default=torch.zeros(()))
    tails = scaled.pow(4).mean() / 10  # 0.3 for a Gaussian, 0.18 for a uniform
    found = slope, spread, noise.mean(), neighbors, samples, channels, tails
    _no_small_error(found, schedule, start, t)
    return found


def _along(noise: Tensor, axis: int) -> Tensor:
    """The correlation of noise with the noise beside it, along an axis."""
    count = noise.shape[axis] - 1
    if not count:
        return torch.zeros(())
    return (noise.narrow(axis, 0, count) * noise.narrow(axis, 1, count)).mean()


_COARSE = 0.05
"""Differences above it are compared with those of known mistakes."""


def _no_small_error(found: tuple, schedule: NoiseSchedule, x0: Tensor, t: int) -> None:
    """Raises for a difference below ``_COARSE`` that is far too large for chance."""
    count, noise_rate = x0.numel(), float(schedule.noise_rate[t])
    by_chance = noise_rate / count**0.5
    errors = (
        by_chance / float(x0.square().mean()) ** 0.5,
        by_chance / 2**0.5,
        by_chance,
        *[(2 / count) ** 0.5] * 3,  # an axis of length 2 has half as many pairs
        (24 / count) ** 0.5 / 10,
    )
    wanted = _exact_statistics(schedule, x0, t, None)
    off = [abs(float(a) - float(b)) for a, b in zip(found, wanted, strict=True)]
    if max(off) > _COARSE or not all(map(math.isfinite, off)):
        return
    for name, value, right, far, error in zip(_PARTS, found, wanted, off, errors, strict=True):
        if far > 6 * error:
            raise Wrong(
                "values",
                f"Close, but not by chance: `{name}` is {float(value):.4f} in yours and should be "
                f"{float(right):.4f}; chance moves it by about {error:.4f}.",
            )


_PARTS = (
    "signal left",
    "spread of the noise",
    "mean of the noise",
    "noise of neighboring pixels",
    "noise of neighboring samples",
    "noise of neighboring channels",
    "tails of the noise",
)


def _exact_statistics(
    schedule: NoiseSchedule, x0: Tensor, t: int, generator: torch.Generator | None
) -> tuple[Tensor, ...]:
    zero = torch.zeros(())
    slope, spread = schedule.signal_rate[t], schedule.noise_rate[t]
    return slope, spread, zero, zero, zero, zero, torch.tensor(0.3)


def _walk(keep, add, draw=torch.randn, steps=lambda t: range(1, t + 1)):
    """A chain whose steps are ``keep(beta) * x + add(beta) * draw(...)``."""

    def answer(schedule: NoiseSchedule, x0: Tensor, t: int, generator: torch.Generator) -> Tensor:
        x = x0
        for step in steps(t):
            beta = schedule.beta[step - 1]
            x = keep(beta) * x + add(beta) * draw(x.shape, generator=generator)
        return x

    return answer


def _root_keep(beta: Tensor) -> Tensor:
    return (1 - beta).sqrt()


def _chain_with_one_noise(
    schedule: NoiseSchedule, x0: Tensor, t: int, generator: torch.Generator
) -> Tensor:
    z = torch.randn(x0.shape, generator=generator)
    for beta in schedule.beta[:t]:
        x0 = (1 - beta).sqrt() * x0 + beta.sqrt() * z
    return x0


def _chain_of_alpha_bars(
    schedule: NoiseSchedule, x0: Tensor, t: int, generator: torch.Generator
) -> Tensor:
    for step in range(1, t + 1):
        z = torch.randn(x0.shape, generator=generator)
        x0 = schedule.signal_rate[step] * x0 + schedule.noise_rate[step] * z
    return x0


def _chain_without_generator(
    schedule: NoiseSchedule, x0: Tensor, t: int, generator: torch.Generator
) -> Tensor:
    for beta in schedule.beta[:t]:
        x0 = (1 - beta).sqrt() * x0 + beta.sqrt() * torch.randn_like(x0)
    return x0


def _chain_in_place(
    schedule: NoiseSchedule, x0: Tensor, t: int, generator: torch.Generator
) -> Tensor:
    for alpha in schedule.alpha[:t]:
        x0 *= alpha.sqrt()
        x0 += (1 - alpha).sqrt() * torch.empty_like(x0).normal_(generator=generator)
    return x0


def _chain_drawn_first(
    schedule: NoiseSchedule, x0: Tensor, t: int, generator: torch.Generator
) -> Tensor:
    noises = torch.randn(x0.ndim and t, *x0.shape, generator=generator, dtype=torch.float64)
    for z, beta in zip(noises, schedule.beta.tolist(), strict=False):
        x0 = (1 - beta) ** 0.5 * x0 + beta**0.5 * z
    return x0


def _chain_sample_by_sample(
    schedule: NoiseSchedule, x0: Tensor, t: int, generator: torch.Generator
) -> Tensor:
    walked = [_chain(schedule, part, t, generator) for part in x0.chunk(min(len(x0), 8))]
    return torch.cat(walked)


def _obeys_its_generator(answer) -> bool:
    def walk(seed: int) -> Tensor:
        x0 = torch.ones(2, 3)
        return answer(from_betas([0.3, 0.3]), x0, 2, torch.Generator().manual_seed(seed))

    return torch.equal(walk(1), walk(1)) and not torch.equal(walk(1), walk(2))


def _has_other_noise_each_time(answer) -> bool:
    generator = torch.Generator().manual_seed(3)
    walks = [
        answer(from_betas([0.3, 0.3]), torch.ones(2, 3), 2, generator).clone() for _ in range(2)
    ]
    return not torch.equal(*walks)


def _chain_from_x0(
    schedule: NoiseSchedule, x0: Tensor, t: int, generator: torch.Generator
) -> Tensor:
    x = x0
    for beta in schedule.beta[:t]:
        x = (1 - beta).sqrt() * x0 + beta.sqrt() * torch.randn(x0.shape, generator=generator)
    return x


chain = Exercise(
    "lesson02.chain",
    "Step by step",
    difficulty=2,
    minutes=8,
    hints=(
        "A loop over the steps 1 to t. In each, x shrinks a little and a little noise is added.",
        "Step t multiplies x by the root of 1 - beta_t and adds noise of *variance* beta_t. "
        "`schedule.beta[0]` belongs to t = 1.",
        "Draw inside the loop: `torch.randn(x.shape, generator=generator)`, and multiply it by the "
        "root of beta.",
    ),
    model_answer=_chain,
    use=_statistics,
    reference=_exact_statistics,
    parts=_PARTS,
    rtol=0.0,
    atol=_COARSE,
    cases=_crowds,
    properties=(
        Property(
            "The same seed should walk the same way and another seed another way: draw from the "
            "generator that you are given.",
            _obeys_its_generator,
            mistake="generator not used",
        ),
        Property(
            "Two walks with the same generator should differ: it moves on with each draw; do not "
            "seed it anew.",
            _has_other_noise_each_time,
            mistake="seeded anew",
        ),
    ),
    mistakes=(
        Mistake(
            "beta as standard deviation",
            _walk(_root_keep, lambda beta: beta),
            "Your noise has standard deviation beta_t. beta_t is a variance: multiply by its root.",
        ),
        Mistake(
            "no root at the signal",
            _walk(lambda beta: 1 - beta, torch.sqrt),
            "x is multiplied by 1 - beta_t; it should be the root of that, or the variance "
            "shrinks.",
        ),
        Mistake(
            "no roots",
            _walk(lambda beta: 1 - beta, lambda beta: beta),
            "Both roots are missing: 1 - beta_t and beta_t are shares of variance.",
        ),
        Mistake(
            "signal not shrunk",
            _walk(lambda beta: 1.0, torch.sqrt),
            "You add noise and leave x as strong as it was: the variance grows with every step.",
        ),
        Mistake(
            "one step short",
            _walk(_root_keep, torch.sqrt, steps=lambda t: range(1, t)),
            "Your loop ends one step early: t steps are t noisings, and range(1, t) has t - 1.",
        ),
        Mistake(
            "one step too many",
            _walk(_root_keep, torch.sqrt, steps=lambda t: [*range(1, t + 1), min(t + 1, 5)]),
            "Your loop takes t + 1 steps; x_t has been noised t times.",
        ),
        Mistake(
            "betas one late",
            _walk(_root_keep, torch.sqrt, steps=lambda t: [min(s + 1, 5) for s in range(1, t + 1)]),
            "Your first step uses the second beta: `schedule.beta[t - 1]` belongs to step t.",
        ),
        Mistake(
            "the same noise at every step",
            _chain_with_one_noise,
            "You draw once and add the same noise at every step, so it adds up too fast. Each step "
            "is a fresh draw.",
        ),
        Mistake(
            "alpha_bar at each step",
            _chain_of_alpha_bars,
            "Each of your steps is a whole jump: it uses alpha_bar_t, where one step uses alpha_t.",
        ),
        Mistake(
            "rand for randn",
            _walk(_root_keep, torch.sqrt, draw=torch.rand),
            "Your noise is never negative: `rand` is uniform on 0..1, `randn` is Gaussian.",
        ),
        Mistake(
            "one number for all",
            _walk(
                _root_keep,
                torch.sqrt,
                draw=lambda shape, generator: torch.randn(1, generator=generator),
            ),
            "All pixels of all images get the same number. Draw as many as x has: `x.shape`.",
        ),
        Mistake(
            "one noise for the batch",
            _walk(
                _root_keep,
                torch.sqrt,
                draw=lambda shape, generator: torch.randn(
                    (1, *shape[1:]) if shape[0] > 1 else shape, generator=generator
                ),
            ),
            "Every image of the batch gets the same noise. Each needs its own: draw with "
            "`x.shape`.",
        ),
        Mistake(
            "1 - beta / 2",
            _walk(lambda beta: 1 - beta / 2, torch.sqrt),
            "You multiply x by 1 - beta / 2, which is near the root of 1 - beta for small betas "
            "only. Take the root.",
        ),
        Mistake(
            "channels share their noise",
            _walk(
                _root_keep,
                torch.sqrt,
                draw=lambda shape, generator: torch.randn(
                    (shape[0], 1, *shape[2:]) if len(shape) > 3 else shape, generator=generator
                ),
            ),
            "The channels of a picture get the same noise. Every number of x needs its own: draw "
            "with `x.shape`.",
        ),
        Mistake(
            "noise only",
            _walk(lambda beta: 0.0, torch.sqrt),
            "Nothing of x is left after a step: you return noise alone. Add it to the shrunken x.",
        ),
        Mistake(
            "no noise",
            _walk(_root_keep, lambda beta: 0.0),
            "x shrinks, and no noise is added.",
        ),
        Mistake(
            "noise added to x_0 only once",
            lambda schedule, x0, t, generator: (
                schedule.signal_rate[t] * x0
                + schedule.beta[t - 1].sqrt() * torch.randn(x0.shape, generator=generator)
            ),
            "The signal is right; the noise is that of the last step alone. Noise is added at each "
            "step.",
        ),
        Mistake(
            "root of 1 + beta",
            _walk(lambda beta: (1 + beta).sqrt(), torch.sqrt),
            "x grows at each step: it is multiplied by the root of 1 *minus* beta.",
        ),
        Mistake(
            "first beta throughout",
            _walk(_root_keep, torch.sqrt, steps=lambda t: [1] * t),
            "Each of your steps uses the first beta. Step s has its own: `schedule.beta[s - 1]`.",
        ),
        Mistake(
            "steps backward",
            _walk(lambda beta: beta.sqrt(), _root_keep),
            "Signal and noise have changed places: x is multiplied by the root of 1 - beta, the "
            "noise by the root of beta.",
        ),
        Mistake(
            "no step taken",
            lambda schedule, x0, t, generator: x0,
            "You return x_0 unchanged: no step was taken. Is x given a new value in the loop?",
        ),
        Mistake(
            "generator not used",
            _chain_without_generator,
            "The same seed should walk the same way and another seed another way: draw from the "
            "generator that you are given.",
        ),
        Mistake(
            "from step 0",
            _walk(_root_keep, torch.sqrt, steps=lambda t: range(t)),
            "Your loop begins at step 0, and `beta[0 - 1]` is for Python the *last* beta. Steps "
            "run from 1 to t: `range(1, t + 1)`.",
        ),
        Mistake(
            "step 0 too",
            _walk(_root_keep, torch.sqrt, steps=lambda t: range(t + 1)),
            "Your loop takes t + 1 steps, and its first one uses `beta[-1]`, the last beta. Steps "
            "run from 1 to t.",
        ),
        Mistake(
            "beta[t] for step t",
            _walk(_root_keep, torch.sqrt, steps=lambda t: range(2, t + 2)),
            "You take `beta[t]` for step t, and at t = T there is none. `schedule.beta` begins "
            "with step 1, so beta_t is `beta[t - 1]`.",
        ),
        Mistake(
            "last beta throughout",
            _walk(_root_keep, torch.sqrt, steps=lambda t: [t] * t),
            "Each of your steps uses beta_t. Step s has its own: `schedule.beta[s - 1]`.",
        ),
        Mistake(
            "returned in the loop",
            _walk(_root_keep, torch.sqrt, steps=lambda t: [1]),
            "You stop after the first step: is `return` inside the loop?",
        ),
        Mistake(
            "x_0 at each step",
            _chain_from_x0,
            "Each of your steps begins at x_0 again. It should go on from where the step before "
            "ended: is x given a new value?",
        ),
        Mistake(
            "1 minus a root",
            _walk(lambda beta: 1 - beta.sqrt(), torch.sqrt),
            "x is multiplied by 1 - root(beta). The root is taken of the whole, 1 - beta: then the "
            "variances add up to 1.",
        ),
        Mistake(
            "one row of noise",
            _walk(
                _root_keep,
                torch.sqrt,
                draw=lambda shape, generator: torch.randn(shape[-1], generator=generator),
            ),
            "You draw one row of noise and use it for all rows and samples. Draw as many numbers "
            "as x has: `x.shape`.",
        ),
    ),
    alternatives=(
        _chain_in_place,
        _chain_drawn_first,
        _chain_sample_by_sample,
        lambda schedule, x0, t, generator: forward.diffuse_stepwise(
            schedule, x0, torch.full((len(x0),), t), generator=generator
        ),
        lambda schedule, x0, t, generator: forward.diffuse(
            schedule, x0, torch.full((len(x0),), t), torch.randn(x0.shape, generator=generator)
        ),
    ),
    why="Every step keeps the variance: (1 - beta) · 1 + beta = 1.",
    passed="Whoever is handed your x_t cannot tell whether you walked or jumped.",
)

# predict_x0(schedule, x_t, t, eps_hat): the jump solved for x_0.


def _predict_x0(schedule, x_t, t, eps_hat):
    shape = (-1, *[1] * (x_t.ndim - 1))
    signal_rate = schedule.signal_rate[t].reshape(shape)
    noise_rate = schedule.noise_rate[t].reshape(shape)
    return (x_t - noise_rate * eps_hat) / signal_rate


def _noisy_batches(generator: torch.Generator):
    for schedule, x0, t, eps in _batches(generator):
        x_t = forward.diffuse(schedule, x0, t, eps)
        if schedule.num_steps == 1000:  # far from 0 throughout: float32 is off by 1e-3 at t = T
            error = 0.2 + torch.rand(eps.shape, generator=generator, dtype=eps.dtype)
        else:
            error = 0.3 * torch.randn(eps.shape, generator=generator)
        yield schedule, x_t, t, eps + error


def _back(noise, signal):
    """x_0 back with other rates: (x_t - noise eps_hat) / signal."""

    def answer(schedule: NoiseSchedule, x_t: Tensor, t: Tensor, eps_hat: Tensor) -> Tensor:
        moved = x_t - _column(noise(schedule), t, x_t) * eps_hat
        return moved / _column(signal(schedule), t, x_t)

    return answer


def _predict_x0_by_loop(
    schedule: NoiseSchedule, x_t: Tensor, t: Tensor, eps_hat: Tensor
) -> list[Tensor]:
    result = []
    for picture, step, noise in zip(x_t, t.tolist(), eps_hat, strict=True):
        share = float(schedule.alpha_bar[step])
        result.append(picture / share**0.5 - (1 / share - 1) ** 0.5 * noise)
    return result


def _predict_x0_in_place(
    schedule: NoiseSchedule, x_t: Tensor, t: Tensor, eps_hat: Tensor
) -> Tensor:
    eps_hat *= _column(schedule.noise_rate, t, x_t)
    x_t -= eps_hat
    x_t /= _column(schedule.signal_rate, t, x_t)
    return x_t


def _returns_to_start(answer) -> bool:
    schedule = _short_schedule()
    generator = torch.Generator().manual_seed(7)
    x0, eps = torch.randn(2, 3, 4, 4, generator=generator).chunk(2)
    t = torch.tensor([17])
    back = answer(schedule, forward.diffuse(schedule, x0, t, eps), t, eps)
    return torch.allclose(back.float(), x0, atol=1e-4)


def _of_two_kinds(schedule: NoiseSchedule, x_t: Tensor, t: Tensor, eps_hat: Tensor) -> Tensor:
    place = (..., None, None, None) if x_t.ndim == 4 else (..., None)
    return (x_t - schedule.noise_rate[t][place] * eps_hat) / schedule.signal_rate[t][place]


predict_x0 = Exercise(
    "lesson02.predict_x0",
    "x_0 back again",
    difficulty=2,
    minutes=5,
    hints=(
        "Write the jump down and solve it for x_0, as you would with numbers.",
        "First take the noise away, with its weight; then undo the weight of x_0.",
        "`(x_t - noise_rate * eps_hat) / signal_rate`, both rates shaped (B, 1, ...).",
    ),
    model_answer=_predict_x0,
    reference=forward.predict_x0,
    use=_weights_named(
        "x_t",
        "eps_hat",
        forward.predict_x0,
        lambda schedule, t: (
            1 / schedule.signal_rate[t],
            -schedule.noise_rate[t] / schedule.signal_rate[t],
        ),
    ),
    cases=_noisy_batches,
    properties=(
        Property("Given the true noise, your x0_hat should be x_0 itself.", _returns_to_start),
    ),
    mistakes=(
        Mistake(
            "not divided",
            _back(lambda s: s.noise_rate, lambda s: torch.ones_like(s.alpha_bar)),
            "You took the noise away. What is left is signal_rate · x_0, too faint: divide.",
        ),
        Mistake(
            "multiplied",
            _back(lambda s: s.noise_rate, lambda s: 1 / s.signal_rate),
            "You multiply by the signal rate, where the jump did that already: divide by it.",
        ),
        Mistake(
            "divided by alpha_bar",
            _back(lambda s: s.noise_rate, lambda s: s.alpha_bar),
            "You divide by alpha_bar; x_0 was multiplied by its root.",
        ),
        Mistake(
            "no root at the noise",
            _back(lambda s: 1 - s.alpha_bar, lambda s: s.signal_rate),
            "You take 1 - alpha_bar times the noise away. That is its variance: take the root.",
        ),
        Mistake(
            "noise added",
            _back(lambda s: -s.noise_rate, lambda s: s.signal_rate),
            "You add the noise once more. Going back, take it away.",
        ),
        Mistake(
            "whole noise taken away",
            _back(lambda s: torch.ones_like(s.alpha_bar), lambda s: s.signal_rate),
            "You take all of eps_hat away; x_t holds noise_rate times eps only.",
        ),
        Mistake(
            "divided first",
            lambda s, x_t, t, e: (
                x_t / _column(s.signal_rate, t, x_t) - _column(s.noise_rate, t, x_t) * e
            ),
            "You divide x_t only. The noise has to be divided too: brackets.",
        ),
        Mistake(
            "swapped",
            _back(lambda s: s.signal_rate, lambda s: s.noise_rate),
            "Signal and noise rate are swapped.",
        ),
        Mistake(
            "alpha for alpha_bar",
            _back(lambda s: _from_step_1(s.beta).sqrt(), lambda s: _from_step_1(s.alpha).sqrt()),
            "This undoes one step of the chain: it uses alpha_t, where the jump used alpha_bar_t.",
        ),
        Mistake(
            "one step early",
            lambda s, x_t, t, e: _predict_x0(s, x_t, t - 1, e),
            "You use the rates of step t - 1; those tensors begin at t = 0, so index by t.",
        ),
        Mistake(
            "not reshaped",
            lambda s, x_t, t, e: (x_t - s.noise_rate[t].float() * e) / s.signal_rate[t].float(),
            "The rates are (B,), which broadcasting lines up with the width. Shape them (B, 1, 1, "
            "1).",
        ),
        Mistake(
            "clamped",
            lambda s, x_t, t, e: _predict_x0(s, x_t, t, e).clamp(-1, 1),
            "You clamp to [-1, 1]. Good before showing; here the bare solution of the equation is "
            "asked for.",
        ),
        Mistake(
            "images and points only",
            lambda s, x_t, t, e: _of_two_kinds(s, x_t, t, e),
            "Right for pictures and points. x_t may have any number of axes, such as (B, C, L): "
            "let the number of ones follow from `x_t.ndim`.",
        ),
        Mistake(
            "images only",
            lambda s, x_t, t, e: (
                (x_t - s.noise_rate[t].reshape(-1, 1, 1, 1) * e)
                / s.signal_rate[t].reshape(-1, 1, 1, 1)
            ),
            "Right for images. For points, x_t of shape (B, 2), the rates have too many axes.",
        ),
        Mistake(
            "kept from 0",
            lambda s, x_t, t, e: (
                (x_t - _column(s.noise_rate, t, x_t) * e)
                / _column(s.signal_rate.clamp(min=0.01), t, x_t)
            ),
            "You keep the signal rate from getting small. At t = T it is 0.006 or less, never 0: "
            "divide by it as it is.",
        ),
        Mistake(
            "no brackets",
            lambda s, x_t, t, e: (
                x_t - _column(s.noise_rate, t, x_t) * e / _column(s.signal_rate, t, x_t) ** 2
            ),
            "You divide the noise only, and by alpha_bar. Bracket x_t - noise_rate * eps_hat, then "
            "divide by the signal rate.",
        ),
        Mistake(
            "the first t for all",
            lambda s, x_t, t, e: _predict_x0(s, x_t, t[:1], e),
            "All samples get the rates of the first t. Each has its own.",
        ),
        Mistake(
            "sign turned",
            lambda s, x_t, t, e: -_predict_x0(s, x_t, t, e),
            "The sign is turned: it is x_t minus the noise, not the noise minus x_t.",
        ),
        Mistake(
            "jump again",
            lambda s, x_t, t, e: _jump(s, x_t, t, e),
            "This is the jump forward once more. Solve it for x_0: take the noise away, then "
            "divide.",
        ),
        Mistake(
            "rates add up to 1",
            _back(lambda s: 1 - s.signal_rate, lambda s: s.signal_rate),
            "You take 1 - signal_rate times the noise away. It is the squares of the rates that "
            "add up to 1.",
        ),
        Mistake(
            "divided by the noise rate",
            _back(lambda s: s.noise_rate, lambda s: s.noise_rate),
            "You divide by the noise rate. What x_0 was multiplied by is the signal rate.",
        ),
        Mistake(
            "only the noise divided",
            lambda s, x_t, t, e: x_t - _column(s.noise_rate / s.signal_rate, t, x_t) * e,
            "You divide the noise only: put brackets around x_t - noise_rate * eps_hat.",
        ),
    ),
    alternatives=(_predict_x0_by_loop, _predict_x0_in_place, forward.predict_x0),
    passed="A network that guesses the noise thereby guesses the picture.",
)

# posterior(schedule, x0, x_t, t) -> (mean, variance) of x_{t-1} given x_t and x_0; t in 1..T. The
# variance is one number a sample; any shape that broadcasts is fine. (The pride of the lesson.)


def _posterior(schedule, x0, x_t, t):
    shape = (-1, *[1] * (x0.ndim - 1))
    alpha_bar = schedule.alpha_bar[t].reshape(shape)
    before = schedule.alpha_bar[t - 1].reshape(shape)
    beta = schedule.beta[t - 1].reshape(shape)
    mean = (before.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - before) * x_t) / (1 - alpha_bar)
    variance = beta * (1 - before) / (1 - alpha_bar)
    return mean, variance


def _pairs(generator: torch.Generator):
    for schedule, x0, t, eps in _batches(generator):
        t[0] = 1  # where x_{t-1} is x_0
        if len(t) == 1:  # and one case without it
            t[0] = 23
        yield schedule, x0, eps, t


def _spread_out(answer, schedule: NoiseSchedule, x0: Tensor, x_t: Tensor, t: Tensor) -> object:
    """Mean and variance, the variance in the shape of x_0, however it was given."""
    like, start = x0.clone(), x_t.clone()
    result = tidy(answer(schedule, x0, x_t, t), ("mean", "variance"))
    if result is None or result is ...:
        return result
    if not isinstance(result, tuple) or len(result) != 2:
        text = "Return two things, the mean and the variance: `return mean, variance`."
        raise Wrong("shape", text)
    if not isinstance(result[1], Tensor):
        return result
    mean, variance = result
    _mean_named(mean, schedule, like, start, t)
    if variance.shape == (len(like),):
        variance = per_sample(variance, like)
    try:
        share = variance / per_sample(schedule.beta[t - 1], like)
        return mean, variance.expand(like.shape), share.expand(like.shape)
    except RuntimeError:
        given = tuple(variance.shape)
        text = f"`variance`: expected one number per sample, yours has shape {given}."
        raise Wrong("shape", text) from None


def _mean_named(mean: object, schedule: NoiseSchedule, x0: Tensor, x_t: Tensor, t: Tensor) -> None:
    """Raises, with the weight that is wrong, if the mean is a mixture of x_0 and x_t."""
    if not isinstance(mean, Tensor) or mean.shape != x0.shape or not mean.isfinite().all():
        return
    wanted = forward.posterior(schedule, x0, x_t, t)[0]
    if torch.isclose(mean.double(), wanted.double(), rtol=2e-3, atol=2e-3).all():
        return
    found = _mixture(mean, x0, x_t)
    if found is not None:
        right = _right_weights(
            schedule.alpha_bar[t], schedule.alpha_bar[t - 1], schedule.beta[t - 1]
        )
        text = _which_weight(found, right[:2], t, ("x0", "x_t"))
        raise Wrong("values", f"`mean`: {text[0].lower()}{text[1:]}")


def _bayes(weights):
    """A posterior with other numbers: ``weights(alpha_bar, before, beta)`` gives w0, wt, var."""

    def answer(schedule: NoiseSchedule, x0: Tensor, x_t: Tensor, t: Tensor):
        alpha_bar = _column(schedule.alpha_bar, t, x0)
        before = _column(schedule.alpha_bar, t - 1, x0)
        beta = _column(schedule.beta, t - 1, x0)
        weight_x0, weight_x_t, variance = weights(alpha_bar, before, beta)
        return weight_x0 * x0 + weight_x_t * x_t, variance

    return answer


def _right_weights(a: Tensor, before: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    weight_x0 = before.sqrt() * beta / (1 - a)
    weight_x_t = (1 - beta).sqrt() * (1 - before) / (1 - a)
    return weight_x0, weight_x_t, beta * (1 - before) / (1 - a)


def _by_variance(before: Tensor, alpha: Tensor, v1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights from two beliefs about x_{t-1}: from x_0, and x_t / sqrt(alpha), variance ``v1``."""
    v0 = 1 - before
    total = v0 + v1
    return before.sqrt() * v1 / total, v0 / total / alpha.sqrt(), v0 * v1 / total


def _by_precision(before: Tensor, alpha: Tensor, v1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same with 1 / variance written out, which breaks where the first variance is 0."""
    v0 = 1 - before
    variance = 1 / (1 / v0 + 1 / v1)
    return variance * before.sqrt() / v0, variance / v1 / alpha.sqrt(), variance


def _changed(change):
    """The right weights, changed by ``change(w0, wt, var, alpha_bar, before, beta)``."""
    return _bayes(lambda a, before, beta: change(*_right_weights(a, before, beta), a, before, beta))


def _posterior_by_precision(schedule: NoiseSchedule, x0: Tensor, x_t: Tensor, t: Tensor):
    """Two Gaussian beliefs about x_{t-1}, added in precision: from x_0 and from x_t."""
    means, variances = [], []
    for i, step in enumerate(t.tolist()):
        before, beta = float(schedule.alpha_bar[step - 1]), float(schedule.beta[step - 1])
        if step == 1:
            means.append(x0[i])
            variances.append(0.0)
            continue
        from_x0, from_x_t = 1 / (1 - before), (1 - beta) / beta
        variance = 1 / (from_x0 + from_x_t)
        guess_0, guess_t = before**0.5 * x0[i], x_t[i] / (1 - beta) ** 0.5
        means.append(variance * (from_x0 * guess_0 + from_x_t * guess_t))
        variances.append(variance)
    return torch.stack(means), torch.tensor(variances)


def _posterior_from_library(schedule: NoiseSchedule, x0: Tensor, x_t: Tensor, t: Tensor):
    mean, _ = forward.posterior(schedule, x0, x_t, t)
    return {"mean": mean, "variance": schedule.posterior_variance[t - 1]}


def _posterior_not_reshaped(schedule: NoiseSchedule, x0: Tensor, x_t: Tensor, t: Tensor):
    a, before, beta = schedule.alpha_bar[t], schedule.alpha_bar[t - 1], schedule.beta[t - 1]
    weight_x0, weight_x_t, variance = _right_weights(a, before, beta)
    return weight_x0 * x0 + weight_x_t * x_t, variance


posterior = Exercise(
    "lesson02.posterior",
    "One step back, if you knew x_0",
    difficulty=3,
    minutes=15,
    hints=(
        "Two things are known about x_{t-1}: from x_0 it is the jump to t - 1, from x_t it is one "
        "step of the chain. Bayes multiplies the two Gaussians.",
        "The product of two Gaussians: precisions (1 / variance) add, means are averaged with the "
        "precisions as weights.",
        "You need `alpha_bar[t]`, `alpha_bar[t - 1]` and `beta[t - 1]`, each shaped (B, 1, ...). "
        "The variance is beta_t (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t).",
        "Weight of x_0: root of alpha_bar_{t-1}, times beta_t. Weight of x_t: root of alpha_t, "
        "times (1 - alpha_bar_{t-1}). Both over (1 - alpha_bar_t).",
    ),
    model_answer=_posterior,
    reference=lambda s, x0, x_t, t: _spread_out(forward.posterior, s, x0, x_t, t),
    use=_spread_out,
    parts=("mean", "variance", "variance as a share of beta_t"),
    rtol=2e-3,
    atol=2e-3,  # in float32, 1 - alpha_bar_1 has three digits
    cases=_pairs,
    mistakes=(
        Mistake(
            "weights swapped",
            _changed(lambda w0, wt, var, a, before, beta: (wt, w0, var)),
            "The weights of x_0 and x_t have changed places. At large t, x_{t-1} is nearly x_t.",
        ),
        Mistake(
            "alpha_bar of the same step",
            _bayes(lambda a, before, beta: _right_weights(a, a, beta)),
            "You use alpha_bar_t throughout. The belief from x_0 is the jump to t - 1: it needs "
            "alpha_bar_{t-1}.",
        ),
        Mistake(
            "alpha for alpha_bar",
            _bayes(lambda a, before, beta: _right_weights(1 - beta, before, beta)),
            "You divide by 1 - alpha_t, which is beta_t. The denominator is 1 - alpha_bar_t.",
        ),
        Mistake(
            "beta as variance",
            _changed(lambda w0, wt, var, a, before, beta: (w0, wt, beta)),
            "The mean is right. Your variance is beta_t, that of a step forward; knowing x_0 makes "
            "it smaller.",
        ),
        Mistake(
            "standard deviation",
            _changed(lambda w0, wt, var, a, before, beta: (w0, wt, var.sqrt())),
            "The mean is right. You return the standard deviation: return the variance, without a "
            "root.",
        ),
        Mistake(
            "logarithm",
            _changed(lambda w0, wt, var, a, before, beta: (w0, wt, var.clamp(min=1e-20).log())),
            "The mean is right. You return the logarithm of the variance.",
        ),
        Mistake(
            "no root at x_0",
            _changed(lambda w0, wt, var, a, before, beta: (w0 * before.sqrt(), wt, var)),
            "The variance is right. The weight of x_0 lacks a root: alpha_bar_{t-1} enters as its "
            "root.",
        ),
        Mistake(
            "no root at x_t",
            _changed(lambda w0, wt, var, a, before, beta: (w0, wt * (1 - beta).sqrt(), var)),
            "The variance is right. The weight of x_t lacks a root: alpha_t enters as its root.",
        ),
        Mistake(
            "means not averaged",
            _changed(
                lambda w0, wt, var, a, before, beta: (before.sqrt(), 1 / (1 - beta).sqrt(), var)
            ),
            "You add both beliefs at full weight; average them, each weighed by its precision.",
        ),
        Mistake(
            "other denominator for the variance",
            _changed(lambda w0, wt, var, a, before, beta: (w0, wt, beta * (1 - a) / (1 - before))),
            "The mean is right. Your variance has its fraction upside down, and divides by 0 at t "
            "= 1.",
        ),
        Mistake(
            "beta one step late",
            lambda s, x0, x_t, t: _posterior_with(s, x0, x_t, t, _from_step_1(s.beta)[t - 1]),
            "Your beta belongs to another step: `schedule.beta` begins at t = 1, so beta_t is "
            "`beta[t - 1]`.",
        ),
        Mistake(
            "divided by the first variance",
            _bayes(lambda a, before, beta: _by_precision(before, 1 - beta, beta / (1 - beta))),
            "At t = 1 yours is not finite: the belief from x_0 has variance 0 there, and you "
            "divide by it. Multiply the fractions out first.",
        ),
        Mistake(
            "step not solved for x_{t-1}",
            _bayes(lambda a, before, beta: _by_variance(before, torch.ones_like(beta), beta)),
            "Your belief from x_t is x_t with variance beta_t. As a statement about x_{t-1} it is "
            "x_t over the root of alpha_t, with variance beta_t / alpha_t.",
        ),
        Mistake(
            "variance first",
            lambda s, x0, x_t, t: _bayes(_right_weights)(s, x0, x_t, t)[::-1],
            "You return the variance first: the mean comes first, then the variance.",
        ),
        Mistake(
            "not reshaped",
            _posterior_not_reshaped,
            "Your factors have shape (B,), which broadcasting lines up with the last axis of x0. "
            "Shape them (B, 1, ...) before they meet x0 and x_t.",
        ),
        Mistake(
            "beta[t] for step t",
            lambda s, x0, x_t, t: _posterior_with(s, x0, x_t, t, s.beta[t]),
            "`schedule.beta` has T entries and begins with step 1: beta_t is `beta[t - 1]`, and "
            "alpha_t is `alpha[t - 1]`.",
        ),
        Mistake(
            "images and points only",
            lambda s, x0, x_t, t: _posterior_of_two_kinds(s, x0, x_t, t),
            "Right for pictures and points. x0 may have any number of axes, such as (B, C, L): let "
            "the number of ones follow from `x0.ndim`.",
        ),
        Mistake(
            "kept from 0",
            _bayes(lambda a, before, beta: _kept_from_0(a, before, beta)),
            "You keep 1 - alpha_bar from getting small. At t = 1 it is 0.0001, and never 0: divide "
            "by it as it is.",
        ),
        Mistake(
            "beta as variance of x_t's belief in the mean",
            _changed(lambda w0, wt, var, a, before, beta: (w0, wt, var / (1 - beta))),
            "The mean is right. Your variance is too large by 1 / alpha_t: the sum of the two "
            "variances is (1 - alpha_bar_t) / alpha_t.",
        ),
        Mistake(
            "alphas",
            _bayes(lambda a, before, beta: _right_weights(a, before, 1 - beta)),
            "You use alpha_t where beta_t belongs, and beta_t for alpha_t.",
        ),
        Mistake(
            "alpha_bar as beta",
            _bayes(lambda a, before, beta: _right_weights(a, before, 1 - a)),
            "You use 1 - alpha_bar_t for beta_t. That is the noise of all steps; beta_t is that of "
            "step t.",
        ),
        Mistake(
            "no denominator",
            _changed(
                lambda w0, wt, var, a, before, beta: (w0 * (1 - a), wt * (1 - a), var * (1 - a))
            ),
            "Everything lacks its denominator, 1 - alpha_bar_t.",
        ),
        Mistake(
            "variance lacks its denominator",
            _changed(lambda w0, wt, var, a, before, beta: (w0, wt, var * (1 - a))),
            "The mean is right. The variance still has to be divided by 1 - alpha_bar_t.",
        ),
        Mistake(
            "both roots missing",
            _changed(
                lambda w0, wt, var, a, before, beta: (
                    w0 * before.sqrt(),
                    wt * (1 - beta).sqrt(),
                    var,
                )
            ),
            "The variance is right. In the mean both roots are missing: of alpha_bar_{t-1} and of "
            "alpha_t.",
        ),
        Mistake(
            "precision",
            _changed(lambda w0, wt, var, a, before, beta: (w0, wt, 1 / var)),
            "The mean is right. You return the precision, one over the variance.",
        ),
        Mistake(
            "sum of the variances",
            _changed(lambda w0, wt, var, a, before, beta: (w0, wt, 1 - before + beta / (1 - beta))),
            "The mean is right. You add the variances of the two witnesses; it is their precisions "
            "that add.",
        ),
        Mistake(
            "simple mean",
            _bayes(
                lambda a, before, beta: (
                    before.sqrt() / 2,
                    1 / (2 * (1 - beta).sqrt()),
                    beta * (1 - before) / (1 - a),
                )
            ),
            "The variance is right. Your mean lies halfway between the two beliefs; weigh each by "
            "its precision.",
        ),
        Mistake(
            "weighted by variance",
            _bayes(
                lambda a, before, beta: (
                    before.sqrt() * (1 - before) * (1 - beta) / (1 - a),
                    beta / (1 - a) / (1 - beta).sqrt(),
                    beta * (1 - before) / (1 - a),
                )
            ),
            "The variance is right. In your mean the *less* certain belief counts more: weigh by "
            "precision, not by variance.",
        ),
        Mistake(
            "mean twice",
            lambda s, x0, x_t, t: (_bayes(_right_weights)(s, x0, x_t, t)[0],) * 2,
            "The mean is right, and you return it as the variance too.",
        ),
        Mistake(
            "alpha_bar_t at x_0",
            _changed(lambda w0, wt, var, a, before, beta: (w0 * (a / before).sqrt(), wt, var)),
            "The variance is right. The weight of x_0 uses alpha_bar_t; it should use "
            "alpha_bar_{t-1}, since the first witness speaks of step t - 1.",
        ),
    ),
    alternatives=(
        _posterior_by_precision,
        _posterior_from_library,
        forward.posterior,
        _bayes(_right_weights),
    ),
    why="At t = 1 the variance is 0: x_0 is known, and that is where the step leads.",
    passed="This is the Gaussian that the reverse process will imitate, without knowing x_0.",
)


def _posterior_with(schedule: NoiseSchedule, x0: Tensor, x_t: Tensor, t: Tensor, beta: Tensor):
    a, before = _column(schedule.alpha_bar, t, x0), _column(schedule.alpha_bar, t - 1, x0)
    beta = beta.float().reshape(a.shape)
    weight_x0, weight_x_t, variance = _right_weights(a, before, beta)
    return weight_x0 * x0 + weight_x_t * x_t, variance


def _kept_from_0(a: Tensor, before: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rest = (1 - a).clamp(min=0.01)
    weight_x_t = (1 - beta).sqrt() * (1 - before) / rest
    return before.sqrt() * beta / rest, weight_x_t, beta * (1 - before) / rest


def _posterior_of_two_kinds(schedule: NoiseSchedule, x0: Tensor, x_t: Tensor, t: Tensor):
    place = (..., None, None, None) if x0.ndim == 4 else (..., None)
    a, before, beta = (
        values[place]
        for values in (schedule.alpha_bar[t], schedule.alpha_bar[t - 1], schedule.beta[t - 1])
    )
    weight_x0, weight_x_t, variance = _right_weights(a, before, beta)
    return weight_x0 * x0 + weight_x_t * x_t, variance


# Why does the chain of t steps fold into one jump?
# a: All steps use the same noise.  b: The betas are small, so the error is small.
# c: A sum of independent Gaussians is a Gaussian whose variance is the sum.
# d: After many steps everything becomes Gaussian, by the central limit theorem.
fold = Choice(
    "lesson02.fold",
    "Why the chain folds",
    hints=("What is z_1 + z_2, when both are Gaussian and independent?",),
    right="c",
    options={
        "a": "Each step draws its own noise. If it were the same, amplitudes would add, and the "
        "noise would grow too fast.",
        "b": "The jump is exact for betas of any size; nothing is approximated.",
        "c": "Right: t small noises are one noise whose variance is the sum, 1 - alpha_bar_t.",
        "d": "No limit is needed: the noises are Gaussian from the first step, so two steps fold "
        "exactly.",
    },
)

# You walk the chain to t = 500 and you jump there, from the same x_0, each with its own noise.
# a: The same picture twice.  b: Different pictures of the same distribution.
# c: The same distribution only at t = T.
same_picture = Choice(
    "lesson02.same_picture",
    "Walked or jumped?",
    hints=("Equal in distribution: what does that say about one draw?",),
    right="b",
    options={
        "a": "The noises differ, so the pictures do. What is the same is how they are distributed.",
        "b": "Right: a histogram over many draws is the same, one draw is not.",
        "c": "It holds at every t: the derivation asks nothing of t.",
    },
)

# At t = 1000 of the linear schedule, eps_hat is wrong by 0.01 in a pixel. By how much is x0_hat?
error_growth = Number(
    "lesson02.error_growth",
    "A small error at a late step",
    hints=(
        "In `predict_x0`, what happens to an error in eps_hat?",
        "It is multiplied by noise_rate / signal_rate, both at t = 1000.",
    ),
    value=lambda: 0.01 * _growth(),
    rtol=0.02,
    mistakes=(
        Mistake(
            "no growth",
            0.01,
            "0.01 is the error in eps_hat, and times the noise rate, which is near 1, it still is. "
            "x0_hat divides by the signal rate, which is small here.",
        ),
        Mistake(
            "alpha, not alpha_bar",
            lambda: 0.01 * (0.02 / 0.98) ** 0.5,
            "You use alpha_t and beta_t of one step. The jump has alpha_bar_t in it.",
        ),
        Mistake(
            "multiplied",
            lambda: 0.01 / _growth(),
            "The other way around: you multiply by the signal rate, and predict_x0 divides by it.",
        ),
        Mistake(
            "no root",
            lambda: 0.01 / float(linear_schedule(1000).alpha_bar[-1]),
            "You divide by alpha_bar, or multiply by 1 / SNR. The factor is its root: noise rate "
            "over signal rate.",
        ),
        Mistake("factor only", lambda: _growth(), "That is the factor; the error was 0.01."),
    ),
    why="157 times: late in the chain a good eps_hat is still a poor x0_hat.",
)


def _growth() -> float:
    schedule = linear_schedule(1000)
    return float(schedule.noise_rate[-1] / schedule.signal_rate[-1])
