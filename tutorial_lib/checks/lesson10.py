"""Flow matching: straight lines, their mean velocity, the loss, conversions, walks and reflow."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tutorial_lib import flows
from tutorial_lib.checks.framework import (
    Choice,
    Exercise,
    Mistake,
    Number,
    Wrong,
    per_sample,
    tensor_like,
)
from tutorial_lib.checks.framework.compare import describe
from tutorial_lib.flows import euler, flow_from_denoiser, times_of
from tutorial_lib.schedules import (
    NoiseSchedule,
    cosine_schedule,
    from_betas,
    linear_schedule,
    quadratic_schedule,
)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _uniform(generator: torch.Generator, count: int) -> Tensor:
    return torch.rand(count, generator=generator, dtype=torch.float64)


# --- a point on the line --------------------------------------------------------------------------


def _line(x0, time, eps):
    share = time.reshape(-1, *[1] * (x0.ndim - 1))
    return (1 - share) * x0 + share * eps, eps - x0


_SHAPES = ((2, 3), (1, 3), (4, 4), (4,), (3, 3, 3), (2, 1, 4, 4), (2, 3, 1, 2, 2), (5, 1))


def _line_cases(generator: torch.Generator):
    for shape in _SHAPES:
        yield _normal(generator, *shape), _uniform(generator, shape[0]), _normal(generator, *shape)
    x0, eps = _normal(generator, 2, 3, 2)
    yield x0, torch.tensor([0.0, 1.0, 0.25], dtype=torch.float64), eps


def _line_with(
    *,
    of_data: Callable[[Tensor], Tensor] = lambda share: 1 - share,
    of_noise: Callable[[Tensor], Tensor] = lambda share: share,
    velocity: Callable = lambda x0, eps, x, share: eps - x0,
    share_of: Callable[[Tensor, Tensor], Tensor] = per_sample,
) -> Callable:
    """The answer with something changed: the two shares, the velocity, how time is shaped."""

    def answer(x0, time, eps):
        share = share_of(time, x0)
        x = of_data(share) * x0 + of_noise(share) * eps
        return x, velocity(x0, eps, x, share)

    return answer


def _line_sample_by_sample(x0, time, eps):
    points = [x0[i] + time[i] * (eps[i] - x0[i]) for i in range(len(x0))]
    return torch.stack(points), eps - x0


def _line_numpy(x0, time, eps):
    start, end, share = x0.numpy().T, eps.numpy().T, time.numpy()
    return [((1 - share) * start + share * end).T, (end - start).T]


line = Exercise(
    "lesson10.line",
    "A point on the line",
    difficulty=1,
    minutes=4,
    hints=(
        "`time` is (B,), and x0 may have many axes behind the first. Shape it like (B, 1, 1, ...) "
        "first: `time.reshape(-1, *[1] * (x0.ndim - 1))`.",
        "At time 0 the point is x0, at time 1 it is eps. The velocity is the derivative by time, "
        "and time does not appear in it.",
    ),
    model_answer=_line,
    cases=_line_cases,
    parts=("x", "velocity"),
    mistakes=(
        Mistake(
            "time reversed",
            _line_with(
                of_data=lambda share: share,
                of_noise=lambda share: 1 - share,
                velocity=lambda x0, eps, x, share: x0 - eps,
            ),
            "Your time runs the other way: 0 is noise, 1 is data. Many papers have it so. "
            "In this course time 0 is data, and 1 is noise, as for t.",
        ),
        Mistake(
            "shares swapped",
            _line_with(of_data=lambda share: share, of_noise=lambda share: 1 - share),
            "In your x the shares of data and noise have changed places: at time 0 x must be x0.",
        ),
        Mistake(
            "sign of the velocity",
            _line_with(velocity=lambda x0, eps, x, share: x0 - eps),
            "Your velocity has the wrong sign. When time grows, x moves from x0 toward eps.",
        ),
        Mistake(
            "time not shaped",
            _line_with(share_of=lambda time, x0: time),
            "`time` (B,) meets the *last* axis of x0, not the first. Shape it like (B, 1, ..., 1) "
            "before you multiply.",
        ),
        Mistake(
            "one axis only",
            _line_with(share_of=lambda time, x0: time[:, None]),
            "`time[:, None]` fits data of two axes only. Give it as many axes as x0 has.",
        ),
        Mistake(
            "four axes only",
            _line_with(share_of=lambda time, x0: time[:, None, None, None]),
            "`time[:, None, None, None]` fits images only. Give time as many axes as x0 has.",
        ),
        Mistake(
            "one time for all",
            _line_with(share_of=lambda time, x0: time[0]),
            "All samples get the time of the first one. Each has a time of its own.",
        ),
        Mistake(
            "square roots",
            _line_with(of_data=lambda share: (1 - share).sqrt(), of_noise=lambda share: share**0.5),
            "Your shares are square roots, as in the jump of lesson 2. A straight line has no "
            "roots: the shares themselves add up to 1.",
        ),
        Mistake(
            "only one root",
            _line_with(of_data=lambda share: (1 - share**2).sqrt()),
            "Your data share is sqrt(1 - time^2), so that variances add up to 1. On a straight "
            "line the shares add up to 1.",
        ),
        Mistake(
            "data not shrunk",
            _line_with(of_data=torch.ones_like),
            "In your x the data keep their full size at all times. At time 1 nothing is left of "
            "them: their share is 1 - time.",
        ),
        Mistake(
            "noise not scaled",
            _line_with(of_noise=torch.ones_like),
            "In your x the noise has its full size at all times. At time 0 there is none: its "
            "share is time.",
        ),
        Mistake(
            "way so far",
            _line_with(velocity=lambda x0, eps, x, share: x - x0),
            "x - x0 is the way covered so far, which grows with time. The velocity is that way "
            "divided by the time: the same all along the line.",
        ),
        Mistake(
            "way that is left",
            _line_with(velocity=lambda x0, eps, x, share: eps - x),
            "eps - x is the way that is left, which shrinks as time grows. The velocity is the "
            "same all along the line.",
        ),
        Mistake(
            "velocity is eps",
            _line_with(velocity=lambda x0, eps, x, share: eps),
            "Your velocity is eps, what the networks so far had to find. As eps comes in, x0 goes "
            "out: its share falls with time.",
        ),
        Mistake(
            "sum",
            _line_with(velocity=lambda x0, eps, x, share: eps + x0),
            "Your velocity is a sum. The derivative of 1 - time is -1, so x0 is subtracted.",
        ),
        Mistake(
            "parts swapped",
            lambda x0, time, eps: _line(x0, time, eps)[::-1],
            "The two have changed places: first return x, then the velocity.",
        ),
        Mistake(
            "x alone",
            lambda x0, time, eps: _line(x0, time, eps)[0],
            "This is x alone. Return two things: `return x, velocity`.",
        ),
    ),
    alternatives=(
        lambda x0, time, eps: (torch.lerp(x0, eps, per_sample(time, x0)), eps - x0),
        lambda x0, time, eps: (flows.straight_path(x0, time, eps), eps - x0),
        _line_sample_by_sample,
        _line_numpy,
    ),
    passed="No schedule and no square roots.",
)


# --- the mean of all lines ------------------------------------------------------------------------


def _mean_velocity(x, time, data):
    away = x[:, None] - (1 - time[:, None, None]) * data
    logits = -(away**2).sum(2) / (2 * time[:, None] ** 2)
    x0_hat = logits.softmax(1) @ data
    return (x - x0_hat) / time[:, None]


def _mean_cases(generator: torch.Generator):
    for batch, dim, count in ((3, 2, 5), (1, 2, 1), (1, 3, 4), (3, 3, 3), (2, 2, 2), (4, 1, 6)):
        data = 1.2 * _normal(generator, count, dim) + 0.3
        time = 0.2 + 0.7 * _uniform(generator, batch)
        yield _normal(generator, batch, dim), time, data
    data = _normal(generator, 30, 6)
    time = torch.tensor([1.0, 0.6, 0.004, 0.9], dtype=torch.float64)  # exp underflows at 0.004
    yield _normal(generator, 4, 6), time, data
    close = 0.05 * _normal(generator, 5, 1)  # several count, though there is little noise
    yield 0.05 * _normal(generator, 2, 1), torch.tensor([0.03, 0.05], dtype=torch.float64), close


def _by_hand(x, time, data):
    """The mean of the velocities of all lines, one after the other, in Python's numbers."""
    rows = []
    for point, share in zip(x.tolist(), time.tolist(), strict=True):
        lines = []  # the logarithm of each line's weight, and its velocity
        for begin in data.tolist():
            noise = [(p - (1 - share) * d) / share for p, d in zip(point, begin, strict=True)]
            velocity = [e - d for e, d in zip(noise, begin, strict=True)]
            lines.append((-sum(e * e for e in noise) / 2, velocity))
        top = max(log for log, _ in lines)
        total = sum(math.exp(log - top) for log, _ in lines)
        rows.append(
            [
                sum(math.exp(log - top) * velocity[d] for log, velocity in lines) / total
                for d in range(len(point))
            ]
        )
    return torch.tensor(rows, dtype=torch.float64)


def _one_and_all(answer: Callable, x, time, data) -> object:
    """The answer for one data point, where weights do not matter, and for all of them."""
    found = {}
    for name, points in (("velocity with one data point", data[:1]), ("velocity", data)):
        came = answer(x.clone(), time.clone(), points.clone())
        if came is ...:
            return ...
        found[name] = tensor_like(came, x)
    return found


def _mean_reference(x, time, data) -> object:
    return _one_and_all(_by_hand, x, time, data)


def _mean_with(
    *,
    away_of: Callable = lambda x, share, data: x[:, None] - (1 - share)[:, None] * data,
    logits_of: Callable = lambda away, share: -away.square().sum(2) / (2 * share**2),
    weigh: Callable[[Tensor], Tensor] = lambda logits: logits.softmax(1),
    mean_of: Callable = lambda weights, data, share: weights @ data,
    result: Callable = lambda x, x0_hat, share: (x - x0_hat) / share,
    time_of: Callable[[Tensor], Tensor] = lambda time: time,
) -> Callable:
    """The answer with something changed."""

    def answer(x, time, data):
        share = time_of(time)[:, None]
        weights = weigh(logits_of(away_of(x, share, data), share))
        return result(x, mean_of(weights, data, share), share)

    return answer


def _plain_weights(logits: Tensor) -> Tensor:
    likely = logits.exp()
    return likely / likely.sum(1, keepdim=True)


def _mean_of_velocities(x, time, data):
    share = time[:, None, None]
    logits = -((x[:, None] - (1 - share) * data) / share).square().sum(2) / 2
    velocities = (x[:, None] - data) / share
    return (logits.softmax(1)[..., None] * velocities).sum(1)


def _mean_numpy(x, time, data):
    x, share, data = x.numpy(), time.numpy()[:, None], data.numpy()
    noise = (x[:, None] - (1 - share)[..., None] * data) / share[..., None]
    logs = -(noise**2).sum(2) / 2
    weights = np.exp(logs - logs.max(1, keepdims=True))
    eps_hat = np.einsum("bn,bnd->bd", weights, noise) / weights.sum(1, keepdims=True)
    x0_hat = weights @ data / weights.sum(1, keepdims=True)
    return eps_hat - x0_hat


def _mean_by_cdist(x, time, data):
    rows = []
    for point, share in zip(x, time, strict=True):
        distance = torch.cdist(point[None], (1 - share) * data)[0]
        rows.append((point - (-(distance**2) / (2 * share**2)).softmax(0) @ data) / share)
    return torch.stack(rows)


mean_velocity = Exercise(
    "lesson10.mean_velocity",
    "The mean of all lines",
    difficulty=3,
    minutes=8,
    hints=(
        "First the logarithms of the weights, (B, N): minus the squared distance between x and "
        "(1 - time) times each data point, over 2 time^2. Sum over the D coordinates.",
        "`logits.softmax(1)` is (B, N), and `weights @ data` is x0_hat, (B, D).",
        "At last (x - x0_hat) / time, with time of shape (B, 1).",
    ),
    model_answer=_mean_velocity,
    cases=_mean_cases,
    use=_one_and_all,
    reference=_mean_reference,
    mistakes=(
        Mistake(
            "sign",
            _mean_with(result=lambda x, x0_hat, share: (x0_hat - x) / share),
            "The sign is wrong: this points to the data. Time grows toward noise, so the velocity "
            "points from x0_hat to x.",
        ),
        Mistake(
            "not divided by time",
            _mean_with(result=lambda x, x0_hat, share: x - x0_hat),
            "x - x0_hat is the way from the data to x. It was covered in the time tau: divide.",
        ),
        Mistake(
            "divided by what is left",
            _mean_with(result=lambda x, x0_hat, share: (x - x0_hat) / (1 - share)),
            "You divide by 1 - time. From x0_hat to x the point has moved for the time tau.",
        ),
        Mistake(
            "x0_hat",
            _mean_with(result=lambda x, x0_hat, share: x0_hat),
            "This is x0_hat, the mean of the data at the lines' ends. The velocity follows from "
            "it: (x - x0_hat) / time.",
        ),
        Mistake(
            "eps_hat",
            _mean_with(result=lambda x, x0_hat, share: (x - (1 - share) * x0_hat) / share),
            "This is the mean of the noise, eps_hat. The velocity is eps_hat - x0_hat.",
        ),
        Mistake(
            "sum",
            _mean_with(result=lambda x, x0_hat, share: (x + x0_hat) / share),
            "You add x and x0_hat. From x0_hat to x it is x - x0_hat.",
        ),
        Mistake(
            "multiplied by time",
            _mean_with(result=lambda x, x0_hat, share: (x - x0_hat) * share),
            "You multiply the way by the time. A velocity is the way divided by the time.",
        ),
        Mistake(
            "x0_hat over time",
            _mean_with(result=lambda x, x0_hat, share: -x0_hat / share),
            "The way from x0_hat ends at x, not at 0: (x - x0_hat) / time.",
        ),
        Mistake(
            "x over time",
            _mean_with(result=lambda x, x0_hat, share: x / share),
            "The way to x begins at x0_hat, not at 0: (x - x0_hat) / time.",
        ),
        Mistake(
            "data not shrunk in the weights",
            _mean_with(away_of=lambda x, share, data: (x[:, None] - data).expand(-1, -1, -1)),
            "Your weights compare x with the data themselves. At time tau a line from x_i is at "
            "(1 - tau) x_i plus noise.",
        ),
        Mistake(
            "time not squared",
            _mean_with(logits_of=lambda away, share: -away.square().sum(2) / (2 * share)),
            "Your weights divide by 2 tau. The noise at time tau has the standard deviation tau, "
            "so its variance is tau squared.",
        ),
        Mistake(
            "no 2",
            _mean_with(logits_of=lambda away, share: -away.square().sum(2) / share**2),
            "The 2 below the fraction in your weights is missing: a bell curve is exp(-d^2 / (2 "
            "variance)).",
        ),
        Mistake(
            "no time in the weights",
            _mean_with(logits_of=lambda away, share: -away.square().sum(2) / 2),
            "Your weights do not divide by tau squared, the variance of the noise at time tau.",
        ),
        Mistake(
            "weights the wrong way",
            _mean_with(logits_of=lambda away, share: away.square().sum(2) / (2 * share**2)),
            "Your weights prefer the lines that need the *largest* noise: the minus sign before "
            "the squared distance is missing.",
        ),
        Mistake(
            "distance not squared",
            _mean_with(logits_of=lambda away, share: -away.norm(dim=2) / (2 * share**2)),
            "Your weights take the distance as it is. In a bell curve it is squared.",
        ),
        Mistake(
            "mean over coordinates",
            _mean_with(logits_of=lambda away, share: -away.square().mean(2) / (2 * share**2)),
            "You take the mean over the D coordinates. A squared distance is their sum.",
        ),
        Mistake(
            "softmax over the batch",
            _mean_with(weigh=lambda logits: logits.softmax(0)),
            "Your weights sum to 1 over the batch. For each x they must sum to 1 over the data: "
            "softmax(1).",
        ),
        Mistake(
            "nearest only",
            _mean_with(
                weigh=lambda logits: nn.functional.one_hot(logits.argmax(1), logits.shape[1]).to(
                    logits
                )
            ),
            "You take the likeliest data point only. Every one counts, by its weight.",
        ),
        Mistake(
            "all alike",
            _mean_with(weigh=lambda logits: torch.full_like(logits, 1 / logits.shape[1])),
            "All data points count the same in your mean. A line counts as much as its noise is "
            "probable.",
        ),
        Mistake(
            "exp without softmax",
            _mean_with(weigh=_plain_weights),
            "Right, but where time is small all your exponentials are 0, and 0/0 is NaN. Leave "
            "the exponentials to softmax, which keeps them in range.",
        ),
        Mistake(
            "weights do not sum to 1",
            _mean_with(weigh=lambda logits: logits.exp()),
            "Your weights do not sum to 1: divide the exponentials by their sum, or let softmax do "
            "both.",
        ),
        Mistake(
            "time reversed",
            _mean_with(time_of=lambda time: 1 - time),
            "Your time runs the other way. Here 0 is data, so a line from x_i is at (1 - tau) x_i "
            "plus tau times noise.",
        ),
        Mistake(
            "time reversed in the weights",
            _mean_with(
                away_of=lambda x, share, data: x[:, None] - share[:, None] * data,
                logits_of=lambda away, share: -away.square().sum(2) / (2 * (1 - share) ** 2),
            ),
            "In your weights time runs the other way: data shrink by 1 - tau, noise has the "
            "standard deviation tau.",
        ),
        Mistake(
            "one time for all",
            _mean_with(time_of=lambda time: time[:1].expand(len(time))),
            "All rows get the time of the first one. Each has its own.",
        ),
    ),
    alternatives=(_mean_of_velocities, _mean_numpy, _mean_by_cdist),
    passed="So much a perfect network would know, and no more.",
)


# --- judging a loss -------------------------------------------------------------------------------

_NO_GRADIENT = (
    "No gradient leads from your loss back to the model, so it could not learn. Leave out "
    "`.item()`, `.detach()`, `float(...)`, and let no `torch.no_grad()` reach the model you train."
)


class _Flow(nn.Module):
    """A velocity that depends on all that it is told, and keeps what it was asked."""

    def __init__(self, shape: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        shift = 0.5 + float(torch.rand((), generator=generator))
        self.shift = nn.Parameter(torch.tensor(shift, dtype=torch.float64))
        self.shape = tuple(shape[1:])
        self.asked: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, x: Tensor, time: Tensor, /) -> Tensor:
        """The velocity at x (B, ...) and time (B,)."""
        if not isinstance(x, Tensor) or x.shape[1:] != self.shape or x.ndim == 0:
            got = tuple(x.shape) if isinstance(x, Tensor) else describe(x)
            wanted = ", ".join(map(str, ("B", *self.shape)))
            raise Wrong("shape", f"Your model got x of shape {got}; it takes ({wanted}).")
        if not isinstance(time, Tensor) or not time.is_floating_point() or time.shape != (len(x),):
            got = f"of shape {tuple(time.shape)}" if isinstance(time, Tensor) else describe(time)
            text = f"Your model got a time {got}. It takes one number for each of the {len(x)} "
            raise Wrong("shape", text + "samples, a tensor (B,) of floats.")
        age = per_sample(time, x)
        answer = torch.sin(self.shift * x + 2 * age) + 0.4 * x + age
        if answer.requires_grad:
            answer.retain_grad()
        self.asked.append((x.detach().clone(), time.detach().clone(), answer))
        return answer

    def __repr__(self) -> str:
        return "a test model"


class _NearlyRight(_Flow):
    """Finds the velocity to within 0.2 % where x0 is 0, or where nothing moves."""

    def __init__(self, shape: Sequence[int], generator: torch.Generator, *, moves: bool) -> None:
        super().__init__(shape, generator)
        self.moves = moves

    def forward(self, x: Tensor, time: Tensor, /) -> Tensor:
        """The velocity at x (B, ...) and time (B,)."""
        super().forward(x, time)
        self.asked.pop()
        share = per_sample(time, x)
        factor = 1.002 / share.clamp(min=1e-6) if self.moves else 0.002
        answer = factor * x * (self.shift / self.shift.detach())
        if answer.requires_grad:
            answer.retain_grad()
        self.asked.append((x.detach().clone(), time.detach().clone(), answer))
        return answer


class _Still(_Flow):
    """A flow in which nothing moves."""

    def forward(self, x: Tensor, time: Tensor, /) -> Tensor:
        """Zeros."""
        return 0 * super().forward(x, time)


def _loss_and_questions(came: object, model: _Flow, like: Tensor) -> object:
    """The loss, what its model was asked, and what each answer was compared with.

    The gradient at the answers tells: of c times the sum of (answer - target)^2 it is 2 c (answer -
    target), and with the loss that gives both c and the target.
    """
    if came is ...:
        return ...
    loss = tensor_like(came, torch.zeros((), dtype=torch.float64))
    if not model.asked:
        raise Wrong("values", "Your loss never asks the model that is to learn.")
    x = torch.cat([x for x, _, _ in model.asked])
    if len(x) != len(like):
        text = f"Your loss asks the model about {len(x)} samples, {len(like)} are in the batch."
        raise Wrong("values", text)
    if not isinstance(came, Tensor) or not came.requires_grad:
        raise Wrong("properties", _NO_GRADIENT, mistake="no gradient")
    came.sum().backward()
    answers = torch.cat([answer.detach() for _, _, answer in model.asked])
    slopes = [answer.grad for _, _, answer in model.asked]
    if any(slope is None for slope in slopes):
        raise Wrong("properties", _NO_GRADIENT, mistake="no gradient")
    slope = torch.cat([slope for slope in slopes if slope is not None])
    if not slope.any():
        text = "Whatever the model answers, your loss stays the same: its gradient is 0."
        raise Wrong("properties", text)
    scale = slope.square().sum() / (4 * loss.detach())
    return {
        "x that the model is asked about": x,
        "time that it is told": torch.cat([time for _, time, _ in model.asked]),
        "what its answers are compared with": answers - slope / (2 * scale),
        "loss": loss.detach(),
    }


def _loss_expected(model: _Flow, x: Tensor, time: Tensor, velocity: Tensor) -> object:
    with torch.no_grad():
        error = model(x, time) - velocity
    return {
        "x that the model is asked about": x,
        "time that it is told": time,
        "what its answers are compared with": velocity,
        "loss": torch.as_tensor(np.mean(error.numpy() ** 2)),
    }


def _loss_with(
    *,
    x_of: Callable = lambda x0, share, eps: (1 - share) * x0 + share * eps,
    told: Callable[[Tensor], Tensor] = lambda time: time,
    target: Callable = lambda x0, share, eps, x: eps - x0,
    reduce: Callable[[Tensor], object] = lambda error: error.square().mean(),
    share_of: Callable[[Tensor, Tensor], Tensor] = per_sample,
) -> Callable:
    """The loss with something changed."""

    def answer(model, x0, time, eps):
        share = share_of(time, x0)
        x = x_of(x0, share, eps)
        return reduce(model(x, told(time)) - target(x0, share, eps, x))

    return answer


_LOSS_MISTAKES = {
    "sign of the velocity": (
        _loss_with(target=lambda x0, share, eps, x: x0 - eps),
        "Your target has the wrong sign: the velocity is eps - x0 where time 1 is noise.",
    ),
    "time reversed": (
        _loss_with(
            x_of=lambda x0, share, eps: share * x0 + (1 - share) * eps,
            target=lambda x0, share, eps, x: x0 - eps,
        ),
        "Your time runs the other way: you noise as if 0 were noise. Many papers do, but here 1 is "
        "noise and the velocity is eps - x0.",
    ),
    "shares swapped": (
        _loss_with(x_of=lambda x0, share, eps: share * x0 + (1 - share) * eps),
        "In the x that you ask about, the shares of data and noise have changed places: at time 0 "
        "it must be x0.",
    ),
    "told 1 - time": (
        _loss_with(told=lambda time: 1 - time),
        "Your x is right, but the model is told 1 - time. It must be told the time of x.",
    ),
    "target eps": (
        _loss_with(target=lambda x0, share, eps, x: eps),
        "You compare with eps, as in the epsilon loss. The model answers with a velocity here: "
        "compare with eps - x0.",
    ),
    "target x0": (
        _loss_with(target=lambda x0, share, eps, x: x0),
        "You compare with x0. The model answers with a velocity here: compare with eps - x0.",
    ),
    "target x": (
        _loss_with(target=lambda x0, share, eps, x: x),
        "You compare with the x that the model was shown. Compare with the velocity, eps - x0.",
    ),
    "way so far": (
        _loss_with(target=lambda x0, share, eps, x: x - x0),
        "You compare with x - x0, the way so far. The velocity is eps - x0 at all times.",
    ),
    "way that is left": (
        _loss_with(target=lambda x0, share, eps, x: eps - x),
        "You compare with eps - x, the way that is left. The velocity is eps - x0 at all times.",
    ),
    "sum": (
        _loss_with(target=lambda x0, share, eps, x: eps + x0),
        "Your target is a sum. The velocity is the difference of eps and x0.",
    ),
    "asked at x0": (
        _loss_with(x_of=lambda x0, share, eps: x0),
        "You ask the model at x0, the end of the line. Ask at the point that belongs to `time`.",
    ),
    "asked at eps": (
        _loss_with(x_of=lambda x0, share, eps: eps),
        "You ask the model at eps, pure noise. Ask at the point that belongs to `time`.",
    ),
    "square roots": (
        _loss_with(
            x_of=lambda x0, share, eps: (1 - share).sqrt() * x0 + share.sqrt() * eps,
        ),
        "Your x weighs by square roots, as in the jump of lesson 2. A straight line has none.",
    ),
    "time not shaped": (
        _loss_with(share_of=lambda time, x0: time),
        "`time` (B,) meets the *last* axis of x0, not the first. Shape it like (B, 1, ..., 1) "
        "before you multiply.",
    ),
    "one time for all": (
        _loss_with(share_of=lambda time, x0: time[0]),
        "The points of all samples are made with the time of the first one. Each has its own.",
    ),
    "summed": (
        _loss_with(reduce=lambda error: error.square().sum()),
        "You add up all squared errors. Take their mean, so that the loss does not grow with the "
        "batch.",
    ),
    "summed over each sample": (
        _loss_with(reduce=lambda error: error.square().sum() / len(error)),
        "You add up the squared errors of each sample and average over the batch only. Average "
        "over all entries.",
    ),
    "absolute error": (
        _loss_with(reduce=lambda error: error.abs().mean()),
        "You average absolute errors. Squares have the mean velocity as their best answer, "
        "absolute errors the median.",
    ),
    "not squared": (
        _loss_with(reduce=lambda error: error.mean()),
        "You average the plain differences, so that errors of both signs cancel. Square them.",
    ),
    "square of the mean": (
        _loss_with(reduce=lambda error: error.mean() ** 2),
        "You average first and square then, so that errors of both signs cancel. Square first.",
    ),
    "root": (
        _loss_with(reduce=lambda error: error.square().mean().sqrt()),
        "You take the root of the mean squared error. The loss has no root.",
    ),
    "norm": (
        _loss_with(reduce=lambda error: error.norm()),
        "You take the norm of all errors, the root of the sum of squares. The loss is the mean of "
        "the squares, without a root.",
    ),
    "weighed by time": (
        lambda model, x0, time, eps: (
            per_sample(time, x0)
            * (model(torch.lerp(x0, eps, per_sample(time, x0)), time) - eps + x0).square()
        ).mean(),
        "Your squared errors are multiplied by time. In this loss all times count the same.",
    ),
    "half": (
        _loss_with(reduce=lambda error: error.square().mean() / 2),
        "Your loss is half of what it should be: no factor 1/2 here.",
    ),
    "not averaged": (
        _loss_with(reduce=lambda error: error.square()),
        "You return many numbers. The loss is one: the mean of all of them.",
    ),
    "no gradient": (_loss_with(reduce=lambda error: error.square().mean().item()), _NO_GRADIENT),
}


# --- the loss of flow matching --------------------------------------------------------------------


def _flow_loss(model, x0, time, eps):
    share = time.reshape(-1, *[1] * (x0.ndim - 1))
    x = (1 - share) * x0 + share * eps
    return ((model(x, time) - (eps - x0)) ** 2).mean()


def _loss_cases(generator: torch.Generator):
    for shape in ((2, 3), (1, 2), (4, 4), (4, 1), (3, 3, 3), (2, 1, 3, 3), (2, 3, 1, 2, 2)):
        x0, eps = _normal(generator, 2, *shape)
        yield _Flow(shape, generator), x0, _uniform(generator, shape[0]), eps
    x0, eps = _normal(generator, 2, 3, 2)
    yield _Flow((3, 2), generator), x0, torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64), eps
    time = 0.2 + 0.7 * _uniform(generator, 3)
    yield _NearlyRight((3, 2), generator, moves=True), 0 * x0, time, eps


def _judge_loss(answer: Callable, model: _Flow, x0, time, eps) -> object:
    model.asked.clear()
    came = answer(model, x0.clone(), time.clone(), eps.clone())
    return _loss_and_questions(came, model, x0)


def _loss_reference(model: _Flow, x0, time, eps) -> object:
    share = per_sample(time, x0)
    return _loss_expected(model, x0 + share * (eps - x0), time, eps - x0)


def _loss_sample_by_sample(model, x0, time, eps):
    total = 0.0
    for i in range(len(x0)):
        x = torch.lerp(x0[i : i + 1], eps[i : i + 1], time[i])
        total = total + (model(x, time[i : i + 1]) - eps[i] + x0[i]).square().mean()
    return total / len(x0)


flow_loss = Exercise(
    "lesson10.flow_loss",
    "The loss of flow matching",
    difficulty=1,
    minutes=4,
    hints=(
        "Three steps: the point on the line (exercise 10.1), the model's answer there, the mean "
        "of the squared differences to eps - x0.",
        "The model is told `time` as it came, (B,). For your own multiplication it must be shaped "
        "like (B, 1, ..., 1).",
    ),
    model_answer=_flow_loss,
    cases=_loss_cases,
    use=_judge_loss,
    reference=_loss_reference,
    mistakes=tuple(Mistake(name, *rest) for name, rest in _LOSS_MISTAKES.items()),
    alternatives=(
        lambda model, x0, time, eps: flows.flow_loss(model, x0, time, eps),
        _loss_sample_by_sample,
        lambda model, x0, time, eps: nn.functional.mse_loss(
            model(torch.lerp(x0, eps, per_sample(time, x0)), time) + x0, eps
        ),
    ),
    passed="Four lines, and a flow can learn from them.",
)


# --- from denoiser to flow ------------------------------------------------------------------------


def _to_flow(denoiser, schedule, x, t):
    signal, noise = schedule.signal_rate[t], schedule.noise_rate[t]
    x_t = (signal + noise) * x
    eps_hat = denoiser(x_t, torch.full((len(x),), t))
    x0_hat = (x_t - noise * eps_hat) / signal
    return eps_hat - x0_hat


_NAMED = {"linear": linear_schedule, "cosine": cosine_schedule, "quadratic": quadratic_schedule}


def _schedule(kind: int | str, generator: torch.Generator) -> NoiseSchedule:
    """One of the course's own, by name, or a short one of so many random betas."""
    if isinstance(kind, str):
        return _NAMED[kind](1000)
    return from_betas(0.05 + 0.3 * torch.rand(kind, generator=generator, dtype=torch.float64))


class _Denoiser:
    """A denoiser whose answer depends on all that it is told, and which keeps what it was asked."""

    def __init__(self, num_steps: int, shape: Sequence[int], generator: torch.Generator) -> None:
        self.num_steps, self.shape = num_steps, tuple(shape)
        self.shift = 0.5 + float(torch.rand((), generator=generator))
        self.asked: list[Tensor] = []

    def __call__(self, x_t: Tensor, t: Tensor, /) -> Tensor:
        if not isinstance(x_t, Tensor) or tuple(x_t.shape) != self.shape:
            got = tuple(x_t.shape) if isinstance(x_t, Tensor) else describe(x_t)
            raise Wrong("shape", f"The denoiser got x_t of shape {got}; it takes {self.shape}.")
        if not isinstance(t, Tensor) or t.dtype != torch.int64 or t.shape != x_t.shape[:1]:
            got = f"{t.dtype} {tuple(t.shape)}" if isinstance(t, Tensor) else describe(t)
            text = f"The denoiser wants steps, int64 ({len(x_t)},), one a sample; it got {got}: "
            raise Wrong("shape", text + "`torch.full((len(x),), t)`.")
        if ((t < 0) | (t > self.num_steps)).any():
            raise Wrong("values", f"The denoiser was asked at step {int(t[0])}, beyond 0..T.")
        self.asked.append(x_t.detach().clone())
        age = per_sample(t, x_t) / self.num_steps
        return torch.sin(self.shift * x_t + 2 * age) + 0.3 * x_t + age

    def __repr__(self) -> str:
        return "a test denoiser"


def _to_flow_cases(generator: torch.Generator):
    for kind, t, shape in (
        (5, 3, (2, 3)),
        (5, 5, (1, 2)),
        (8, 1, (4, 4)),
        (6, 2, (3,)),
        ("linear", 1000, (2, 3, 1, 2, 2)),
        ("linear", 1, (3, 2)),
        ("linear", 250, (2, 1, 4, 4)),
        ("cosine", 500, (3, 3, 3)),
        ("cosine", 999, (2, 2)),
        ("cosine", 2, (1, 4)),
        ("quadratic", 700, (4, 2)),
    ):
        schedule = _schedule(kind, generator)
        x = _normal(generator, *shape)
        yield _Denoiser(schedule.num_steps, shape, generator), schedule, x, t


def _asked_and_answer(answer: Callable, denoiser: _Denoiser, schedule, x, t) -> object:
    """What the denoiser was asked about, and the velocity."""
    denoiser.asked.clear()
    came = answer(denoiser, schedule, x.clone(), t)
    if came is ...:
        return ...
    velocity = tensor_like(came, x)
    if not denoiser.asked:
        raise Wrong("values", "The denoiser was never asked. Its eps_hat is all you need.")
    return {"what the denoiser is asked about": denoiser.asked[-1], "velocity": velocity}


def _to_flow_reference(denoiser: _Denoiser, schedule: NoiseSchedule, x, t) -> object:
    bar = float(schedule.alpha_bar[t])
    total, share = math.sqrt(bar) + math.sqrt(1 - bar), 1 / (1 + math.sqrt((1 - bar) / bar))
    eps_hat = denoiser(total * x, torch.full((len(x),), t))
    return {"what the denoiser is asked about": total * x, "velocity": (eps_hat - x) / share}


def _to_flow_with(
    *,
    scale: Callable = lambda signal, noise: signal + noise,
    told: Callable[[int], int] = lambda t: t,
    x0_of: Callable = lambda x, x_t, eps_hat, signal, noise: (x_t - noise * eps_hat) / signal,
    result: Callable = lambda eps_hat, x0_hat, x, signal, noise: eps_hat - x0_hat,
    rates: Callable = lambda schedule, t: (schedule.signal_rate[t], schedule.noise_rate[t]),
) -> Callable:
    """The answer with something changed."""

    def answer(denoiser, schedule, x, t):
        signal, noise = rates(schedule, t)
        x_t = scale(signal, noise) * x
        eps_hat = denoiser(x_t, torch.full((len(x),), told(t)))
        return result(eps_hat, x0_of(x, x_t, eps_hat, signal, noise), x, signal, noise)

    return answer


def _to_flow_library(denoiser, schedule, x, t):
    time = times_of(schedule)[t].to(x).expand(len(x))
    return flow_from_denoiser(denoiser, schedule)(x, time)


def _to_flow_numpy(denoiser, schedule, x, t):
    signal, noise = float(schedule.signal_rate[t]), float(schedule.noise_rate[t])
    eps_hat = denoiser(x * (signal + noise), t * torch.ones(len(x), dtype=torch.int64)).numpy()
    return (eps_hat - x.numpy()) * (signal + noise) / signal


to_flow = Exercise(
    "lesson10.to_flow",
    "From denoiser to flow",
    difficulty=2,
    minutes=6,
    hints=(
        "First the way back from the straight line to the denoiser's world: x_t = (a + b) x. Ask "
        "there, at step t.",
        "With eps_hat comes x0_hat = (x_t - b eps_hat) / a, and the velocity is eps_hat - x0_hat.",
    ),
    model_answer=_to_flow,
    cases=_to_flow_cases,
    use=_asked_and_answer,
    reference=_to_flow_reference,
    mistakes=(
        Mistake(
            "asked at x",
            _to_flow_with(
                scale=lambda signal, noise: 1.0,
                x0_of=lambda x, x_t, eps_hat, signal, noise: (x - noise * eps_hat) / signal,
            ),
            "You ask the denoiser about x itself, which is too small for it. It knows x_t = (a + "
            "b) x, where a and b are the two rates.",
        ),
        Mistake(
            "divided by the sum",
            _to_flow_with(scale=lambda signal, noise: 1 / (signal + noise)),
            "You divide by a + b on the way to the denoiser. From x_t to x one divides; from x to "
            "x_t one multiplies.",
        ),
        Mistake(
            "scaled by the signal rate",
            _to_flow_with(scale=lambda signal, noise: signal),
            "Your x_t is a times x: that is the way back from y, in lesson 9. The straight line is "
            "x_t / (a + b).",
        ),
        Mistake(
            "sign",
            _to_flow_with(result=lambda eps_hat, x0_hat, x, signal, noise: x0_hat - eps_hat),
            "The sign is wrong: time grows toward noise, so the velocity is eps_hat - x0_hat.",
        ),
        Mistake(
            "eps_hat",
            _to_flow_with(result=lambda eps_hat, x0_hat, x, signal, noise: eps_hat),
            "This is eps_hat, the answer of the denoiser. The velocity is eps_hat - x0_hat.",
        ),
        Mistake(
            "x0_hat",
            _to_flow_with(result=lambda eps_hat, x0_hat, x, signal, noise: x0_hat),
            "This is x0_hat. The velocity is eps_hat - x0_hat.",
        ),
        Mistake(
            "sum",
            _to_flow_with(result=lambda eps_hat, x0_hat, x, signal, noise: eps_hat + x0_hat),
            "You add eps_hat and x0_hat. The velocity is their difference.",
        ),
        Mistake(
            "x0_hat from x",
            _to_flow_with(
                x0_of=lambda x, x_t, eps_hat, signal, noise: (x - noise * eps_hat) / signal
            ),
            "You asked at the right place, but your x0_hat is made from x. Its formula, with a and "
            "b, is about x_t.",
        ),
        Mistake(
            "x0_hat not divided",
            _to_flow_with(x0_of=lambda x, x_t, eps_hat, signal, noise: x_t - noise * eps_hat),
            "Your x0_hat is still shrunk: without its noise x_t is a times x0_hat. Divide by a.",
        ),
        Mistake(
            "all noise subtracted",
            _to_flow_with(x0_of=lambda x, x_t, eps_hat, signal, noise: (x_t - eps_hat) / signal),
            "In x_t the noise has the size b. Your x0_hat subtracts the whole of eps_hat.",
        ),
        Mistake(
            "target v",
            _to_flow_with(
                result=lambda eps_hat, x0_hat, x, signal, noise: signal * eps_hat - noise * x0_hat
            ),
            "This is the v of lesson 3, a eps - b x0. On the straight line the velocity is eps - "
            "x0.",
        ),
        Mistake(
            "velocity scaled back",
            _to_flow_with(
                result=lambda eps_hat, x0_hat, x, signal, noise: (
                    (eps_hat - x0_hat) / (signal + noise)
                )
            ),
            "You divide the velocity by a + b. eps_hat and x0_hat are the same in both worlds: "
            "nothing is to be scaled.",
        ),
        Mistake(
            "not divided by what is left",
            _to_flow_with(result=lambda eps_hat, x0_hat, x, signal, noise: eps_hat - x),
            "eps_hat - x is the way that is left to the noise. The velocity is eps_hat - x0_hat.",
        ),
        Mistake(
            "way so far",
            _to_flow_with(result=lambda eps_hat, x0_hat, x, signal, noise: x - x0_hat),
            "x - x0_hat is the way so far. The velocity is eps_hat - x0_hat.",
        ),
        Mistake(
            "from x_t",
            lambda denoiser, schedule, x, t: (
                (
                    denoiser(
                        (schedule.signal_rate[t] + schedule.noise_rate[t]) * x,
                        torch.full((len(x),), t),
                    )
                    - (schedule.signal_rate[t] + schedule.noise_rate[t]) * x
                )
                * (1 + schedule.noise_rate[t] / schedule.signal_rate[t])
            ),
            "You use x_t where the straight line's x belongs: (eps_hat - x) / (1 - time).",
        ),
        Mistake(
            "rates swapped",
            _to_flow_with(
                rates=lambda schedule, t: (schedule.noise_rate[t], schedule.signal_rate[t])
            ),
            "The two rates have changed places: a, the signal rate, belongs to x0. (Or you divide "
            "by time where 1 - time belongs.)",
        ),
        Mistake(
            "1 - a for the noise rate",
            _to_flow_with(
                x0_of=lambda x, x_t, eps_hat, signal, noise: (x_t - (1 - signal) * eps_hat) / signal
            ),
            "In your x0_hat the noise has the size 1 - a. On the straight line shares sum to 1, "
            "but x_t is not on it: there the noise rate is b.",
        ),
        Mistake(
            "two worlds in x0_hat",
            _to_flow_with(
                x0_of=lambda x, x_t, eps_hat, signal, noise: (
                    (x - noise / (signal + noise) * eps_hat) / signal
                )
            ),
            "Your x0_hat takes x and tau from the straight line, and divides by a, which belongs "
            "to x_t. Take all of it in one world: (x_t - b eps_hat) / a.",
        ),
        Mistake(
            "x_t over time",
            _to_flow_with(
                result=lambda eps_hat, x0_hat, x, signal, noise: (
                    ((signal + noise) * x - x0_hat) * (signal + noise) / noise
                )
            ),
            "The way so far is x - x0_hat on the straight line; you put x_t in the place of x. "
            "(x - x0_hat) / tau is right, and so is eps_hat - x0_hat.",
        ),
        Mistake(
            "x_t over the noise rate",
            _to_flow_with(
                result=lambda eps_hat, x0_hat, x, signal, noise: (
                    ((signal + noise) * x - x0_hat) / noise
                )
            ),
            "You divide x_t - x0_hat by the noise rate. Both belong to the straight line: it is "
            "(x - x0_hat) / tau, or simply eps_hat - x0_hat.",
        ),
        Mistake(
            "alpha_bar for the rates",
            _to_flow_with(
                rates=lambda schedule, t: (schedule.alpha_bar[t], 1 - schedule.alpha_bar[t])
            ),
            "You take alpha_bar and 1 - alpha_bar. The rates are their square roots.",
        ),
        Mistake(
            "told t - 1",
            _to_flow_with(told=lambda t: t - 1),
            "The denoiser is told t - 1. Steps count noisings, so x_t belongs to step t.",
        ),
        Mistake(
            "told t + 1",
            _to_flow_with(told=lambda t: t + 1),
            "The denoiser is told t + 1. Steps count noisings, so x_t belongs to step t.",
        ),
    ),
    alternatives=(
        _to_flow_library,
        _to_flow_numpy,
        _to_flow_with(
            result=lambda eps_hat, x0_hat, x, signal, noise: (x - x0_hat) * (signal + noise) / noise
        ),
    ),
    passed="Every denoiser of this course is a flow.",
)


# --- a walk along a flow --------------------------------------------------------------------------


def _walk(model, x, times):
    for here, there in zip(times[:-1], times[1:], strict=True):
        velocity = model(x, x.new_full((len(x),), here))
        x = x + (there - here) * velocity
    return x


def _walk_cases(generator: torch.Generator):
    for shape, times in (
        ((2, 3), [1.0, 0.5, 0.0]),
        ((1, 2), [1.0, 0.0]),
        ((3, 3), [1.0, 0.9, 0.3, 0.0]),
        ((4, 1), [0.8, 0.35, 0.1]),
        ((2, 1, 3, 3), [1.0, 0.8, 0.75, 0.2, 0.05]),
        ((3, 2, 2), [0.6, 0.5]),
        ((2, 3, 1, 2, 2), [0.9, 0.6, 0.45, 0.0]),
    ):
        yield _Flow(shape, generator), _normal(generator, *shape), times


def _walked(answer: Callable, model: _Flow, x, times) -> object:
    """How often the model was asked, the times that it was told, and the end."""
    model.asked.clear()
    came = answer(model, x.clone(), list(times))
    if came is ...:
        return ...
    end = tensor_like(came, x).detach()
    told = [time for _, time, _ in model.asked]
    wanted = x.new_zeros(len(times) - 1)
    if len(told) != len(wanted):
        return {"how often the model is asked": len(told), "times": wanted, "end": end}
    first = torch.stack([time[0] for time in told]).to(wanted)
    return {"how often the model is asked": len(told), "times": first, "end": end}


def _walk_reference(model: _Flow, x, times) -> dict[str, Any]:
    """By the ends of the lines: from eps_hat and x0_hat, as DDIM does it."""
    with torch.no_grad():
        for i in range(1, len(times)):
            velocity = model(
                x, torch.full_like(x.flatten(1)[:, 0] if x.ndim > 1 else x, times[i - 1])
            )
            x0_hat, eps_hat = x - times[i - 1] * velocity, x + (1 - times[i - 1]) * velocity
            x = (1 - times[i]) * x0_hat + times[i] * eps_hat
    told = torch.tensor(times[:-1], dtype=torch.float64)
    return {"how often the model is asked": len(told), "times": told, "end": x}


def _walk_with(
    *,
    times_of: Callable[[list], list] = lambda times: times,
    stride: Callable = lambda here, there, times: there - here,
    told: Callable = lambda here, there: here,
    place: Callable = lambda x, begin: x,
    result: Callable = lambda x, states: x,
) -> Callable:
    """The answer with something changed."""

    def answer(model, x, times):
        begin, states, walked = x, [x], times_of(list(times))
        for here, there in zip(walked[:-1], walked[1:], strict=True):
            velocity = model(place(x, begin), x.new_full((len(x),), told(here, there)))
            x = x + stride(here, there, walked) * velocity
            states.append(x)
        return result(x, states)

    return answer


def _walk_heun(model, x, times):
    for here, there in zip(times[:-1], times[1:], strict=True):
        first = model(x, x.new_full((len(x),), here))
        second = model(x + (there - here) * first, x.new_full((len(x),), there))
        x = x + (there - here) * (first + second) / 2
    return x


def _walk_library(model, x, times):
    *_, step = euler(model, x, times)
    return step.x


def _walk_in_place(model, x, times):
    strides = torch.tensor(times, dtype=x.dtype).diff()
    for time, stride in zip(times, strides, strict=False):
        x += stride * model(x, torch.full(x.shape[:1], time, dtype=x.dtype)).detach()
    return x


def _walk_numpy(model, x, times):
    state = x.numpy()
    for i in range(len(times) - 1):
        time = torch.full((len(state),), times[i], dtype=torch.float64)
        velocity = model(torch.from_numpy(state), time).detach().numpy()
        state = state - (times[i] - times[i + 1]) * velocity
    return state


walk = Exercise(
    "lesson10.walk",
    "A walk along a flow",
    difficulty=1,
    minutes=4,
    hints=(
        "A loop over neighbors in `times`: `for here, there in zip(times[:-1], times[1:])`.",
        "The stride is `there - here`, a negative number: noise has the time 1, data 0.",
    ),
    model_answer=_walk,
    cases=_walk_cases,
    use=_walked,
    reference=_walk_reference,
    mistakes=(
        Mistake(
            "stride the other way",
            _walk_with(stride=lambda here, there, times: here - there),
            "Your stride has the wrong sign, so the walk leads away from the data. The new time is "
            "smaller than the old one: new minus old.",
        ),
        Mistake(
            "asked at the new time",
            _walk_with(told=lambda here, there: there),
            "You tell the model the time at which the stride ends. x is still where it begins.",
        ),
        Mistake(
            "asked in the middle",
            _walk_with(told=lambda here, there: (here + there) / 2),
            "You tell the model a time in the middle of the stride. x is still where it begins.",
        ),
        Mistake(
            "told 1 - time",
            _walk_with(told=lambda here, there: 1 - here),
            "You tell the model 1 - time. Here 1 is noise, as in `times`.",
        ),
        Mistake(
            "last stride missing",
            _walk_with(times_of=lambda times: times[:-1]),
            "The last stride is missing: n + 1 times have n strides between them.",
        ),
        Mistake(
            "first stride missing",
            _walk_with(times_of=lambda times: times[1:]),
            "The first stride is missing: begin at times[0].",
        ),
        Mistake(
            "one stride too many",
            _walk_with(times_of=lambda times: [*times, 0.0]),
            "You take one more stride, on to 0. Stop at the last of `times`.",
        ),
        Mistake(
            "upwards",
            _walk_with(times_of=lambda times: times[::-1]),
            "You walk through `times` from the last to the first. x belongs to times[0].",
        ),
        Mistake(
            "equal strides",
            _walk_with(stride=lambda here, there, times: (times[-1] - times[0]) / (len(times) - 1)),
            "All your strides are equal. Those of `times` may differ: take each from its own "
            "neighbors.",
        ),
        Mistake(
            "one over the number",
            _walk_with(stride=lambda here, there, times: -1 / (len(times) - 1)),
            "Your stride is 1 over their number. That fits only even times from 1 to 0.",
        ),
        Mistake(
            "one over the number of times",
            _walk_with(stride=lambda here, there, times: -1 / len(times)),
            "Your stride is 1 over the number of times. Take the difference of neighbors.",
        ),
        Mistake(
            "no stride",
            _walk_with(stride=lambda here, there, times: -1.0),
            "You subtract the whole velocity in each step. It is multiplied by the stride in time.",
        ),
        Mistake(
            "to the data at once",
            _walk_with(stride=lambda here, there, times: -here),
            "Each of your strides goes all the way to time 0: this is x0_hat. Stop at the next "
            "time.",
        ),
        Mistake(
            "always at the start",
            _walk_with(place=lambda x, begin: begin),
            "You ask about the first x in every step. Ask about the state that you have reached.",
        ),
        Mistake(
            "mean of the states",
            _walk_with(result=lambda x, states: sum(states[1:]) / len(states[1:])),
            "You return the mean of the states. Return the last one.",
        ),
        Mistake(
            "not moved",
            _walk_with(result=lambda x, states: states[0]),
            "You return the x that you were given. Return the state at the end.",
        ),
        Mistake(
            "Heun",
            _walk_heun,
            "This is Heun's method: more exact for long walks, but it asks twice a step. Here one "
            "question a step is wanted.",
        ),
    ),
    alternatives=(_walk_library, _walk_in_place, _walk_numpy),
    passed="This loop is the whole sampler.",
)


# --- the loss of reflow ---------------------------------------------------------------------------


def _reflow_loss(student, teacher, noise, time, times):
    with torch.no_grad():
        x0 = list(euler(teacher, noise, times))[-1].x
    share = time.reshape(-1, *[1] * (x0.ndim - 1))
    x = (1 - share) * x0 + share * noise
    return ((student(x, time) - (noise - x0)) ** 2).mean()


def _reflow_cases(generator: torch.Generator):
    for shape, times in (
        ((2, 3), [1.0, 0.5, 0.0]),
        ((1, 2), [1.0, 0.4, 0.0]),
        ((4, 4), [1.0, 0.7, 0.3, 0.0]),
        ((5, 1), [1.0, 0.2, 0.0]),
        ((3, 3, 3), [1.0, 0.6, 0.0]),
        ((2, 1, 3, 3), [1.0, 0.8, 0.5, 0.0]),
        ((3, 2, 1, 2, 2), [1.0, 0.35, 0.0]),
    ):
        noise, time = _normal(generator, *shape), 0.05 + 0.9 * _uniform(generator, shape[0])
        yield _Flow(shape, generator), _Flow(shape, generator), noise, time, times
    noise, time = _normal(generator, 3, 2), torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64)
    yield _Flow((3, 2), generator), _Flow((3, 2), generator), noise, time, [1.0, 0.3, 0.0]
    student, still = _NearlyRight((3, 2), generator, moves=False), _Still((3, 2), generator)
    yield student, still, noise, _uniform(generator, 3), [1.0, 0.5, 0.0]


_BY_CHANCE = (
    "Asked twice with the same numbers, your loss comes out differently: something in it is drawn "
    "or shuffled. The end of a walk belongs to the noise where *it* began, and to no other."
)


def _judge_reflow(answer: Callable, student: _Flow, teacher: _Flow, noise, time, times) -> object:
    asked = []
    for _ in range(2):
        student.asked.clear()
        teacher.asked.clear()
        came = answer(student, teacher, noise.clone(), time.clone(), list(times))
        if came is ...:
            return ...
        asked.append(_loss_and_questions(came, student, noise))
    first, second = asked
    if any(not torch.allclose(first[key], second[key]) for key in first):
        raise Wrong("values", _BY_CHANCE, mistake="fresh noise")
    return second


def _reflow_reference(student: _Flow, teacher: _Flow, noise, time, times) -> object:
    x0 = _walk_reference(teacher, noise, times)["end"]
    return _loss_expected(student, torch.lerp(x0, noise, per_sample(time, x0)), time, noise - x0)


def _reflow_with(
    loss: Callable = _flow_loss,
    *,
    drawn: Callable = lambda teacher, noise, times: _walked_to(teacher, noise, times),
    partner: Callable[[Tensor], Tensor] = lambda noise: noise,
    roles: Callable = lambda student, teacher: (student, teacher),
) -> Callable:
    """The answer with something changed: the loss, the walk, the noise that goes with its end."""

    def answer(student, teacher, noise, time, times):
        student, teacher = roles(student, teacher)
        with torch.no_grad():
            x0 = drawn(teacher, noise, times)
        return loss(student, x0, time, partner(noise))

    return answer


def _walked_to(flow: Callable, noise: Tensor, times: Sequence[float]) -> Tensor:
    return _walk(flow, noise, list(times)).detach()


def _learns_velocities(student, teacher, noise, time, times):
    x0 = _walked_to(teacher, noise, times)
    x = torch.lerp(x0, noise, per_sample(time, x0))
    return (student(x, time) - teacher(x, time).detach()).square().mean()


def _on_the_road(student, teacher, noise, time, times):
    """The student is asked on the teacher's road instead of the chord."""
    with torch.no_grad():
        states = [noise]
        for here, there in zip(times[:-1], times[1:], strict=True):
            x = states[-1]
            states.append(x + (there - here) * teacher(x, x.new_full((len(x),), here)))
        rows = []
        for row, at in enumerate(time.tolist()):
            k = max(i for i, begin in enumerate(times[:-1]) if begin >= at)
            part = (times[k] - at) / (times[k] - times[k + 1])
            rows.append(torch.lerp(states[k][row], states[k + 1][row], part))
    return (student(torch.stack(rows), time) - (noise - states[-1])).square().mean()


def _reflow_in_one_walk(student, teacher, noise, time, times):
    steps = list(euler(teacher, noise, torch.tensor(times)))
    velocity = noise - steps[-1].x.detach()
    x = noise - (1 - per_sample(time, noise)) * velocity
    return nn.functional.mse_loss(student(x, time), velocity)


def _loss_of_pairs(student, time, pairs):
    x0, eps = pairs
    return flows.flow_loss(student, x0, time, eps)


_TAKEN = (
    "sign of the velocity",
    "shares swapped",
    "told 1 - time",
    "target eps",
    "target x0",
    "asked at eps",
    "square roots",
    "time not shaped",
    "summed",
    "norm",
    "weighed by time",
    "not averaged",
    "no gradient",
)
"""The mistakes of the plain loss that are known here, too."""

reflow_loss = Exercise(
    "lesson10.reflow_loss",
    "The loss of reflow",
    difficulty=2,
    minutes=6,
    hints=(
        "Two parts. First x0 = the end of the teacher's walk from `noise`, without gradients. Then "
        "exercise 10.3 for the student, with this x0, and with `noise` in the place of eps.",
        "`list(euler(teacher, noise, times))[-1].x` is the state at the end of a walk.",
    ),
    model_answer=_reflow_loss,
    cases=_reflow_cases,
    use=_judge_reflow,
    reference=_reflow_reference,
    mistakes=(
        *(
            Mistake(name, _reflow_with(_LOSS_MISTAKES[name][0]), text)
            for name, (_, text) in _LOSS_MISTAKES.items()
            if name in _TAKEN
        ),
        Mistake(
            "fresh noise",
            _reflow_with(partner=torch.randn_like),
            _BY_CHANCE,
        ),
        Mistake(
            "pairs shuffled",
            _reflow_with(partner=lambda noise: noise.roll(1, 0)),
            "The pairs are shuffled: each end of a walk meets the noise of its neighbor. Then you "
            "are back at random lines, and they cross.",
        ),
        Mistake(
            "pairs reversed",
            _reflow_with(partner=lambda noise: noise.flip(0)),
            "The pairs are in reversed order: each end of a walk meets another walk's noise. Then "
            "you are back at random lines, and they cross.",
        ),
        Mistake(
            "one step of the teacher",
            _reflow_with(
                drawn=lambda teacher, noise, times: _walked_to(
                    teacher, noise, [times[0], times[-1]]
                )
            ),
            "Your teacher takes a single step. Walk down all of `times`: the student can only be "
            "as good as the pairs.",
        ),
        Mistake(
            "times read upwards",
            _reflow_with(
                drawn=lambda teacher, noise, times: _walked_to(teacher, noise, times[::-1])
            ),
            "The teacher walks through `times` from the last to the first. The walk begins in "
            "noise, at times[0].",
        ),
        Mistake(
            "times of its own",
            _reflow_with(
                drawn=lambda teacher, noise, times: _walked_to(
                    teacher, noise, [i / 50 for i in range(50, -1, -1)]
                )
            ),
            "The teacher walks in 50 even strides. Use the argument `times`.",
        ),
        Mistake(
            "student learns at the start only",
            lambda student, teacher, noise, time, times: (
                (student(noise, torch.ones_like(time)) - noise + _walked_to(teacher, noise, times))
                .square()
                .mean()
            ),
            "You ask the student at the noise only, at time 1. Ask at `time`, on the line between "
            "the two ends.",
        ),
        Mistake(
            "last stride missing",
            _reflow_with(
                drawn=lambda teacher, noise, times: _walked_to(teacher, noise, times[:-1])
            ),
            "The teacher's walk lacks its last stride, so its end is not yet at time 0.",
        ),
        Mistake(
            "teacher walks the other way",
            _reflow_with(
                drawn=lambda teacher, noise, times: _walk_with(
                    stride=lambda here, there, times: here - there
                )(teacher, noise, times).detach()
            ),
            "The teacher's walk has strides of the wrong sign: it leads away from the data.",
        ),
        Mistake(
            "student walks",
            lambda student, teacher, noise, time, times: _flow_loss(
                student, _walked_to(student, noise, times), time, noise
            ),
            "It is the student that walks here. The pairs come from the teacher, which stays as it "
            "is.",
        ),
        Mistake(
            "teacher learns",
            lambda student, teacher, noise, time, times: _flow_loss(
                teacher, _walked_to(student, noise, times), time, noise
            ),
            "The two have changed places: the teacher walks, and the student is asked in the loss.",
        ),
        Mistake(
            "teacher asked in the loss",
            lambda student, teacher, noise, time, times: _flow_loss(
                teacher, _walked_to(teacher, noise, times), time, noise
            ),
            "You ask the teacher in the loss. It is the student that has to learn.",
        ),
        Mistake(
            "learns the teacher's velocity",
            _learns_velocities,
            "The target is the teacher's velocity, so the student would learn the same bent roads. "
            "Its target is the straight line between the two ends: noise - x0.",
        ),
        Mistake(
            "on the teacher's road",
            _on_the_road,
            "You ask the student on the teacher's road. Ask on the straight line between the two "
            "ends: (1 - time) x0 + time noise.",
        ),
        Mistake(
            "ends swapped",
            lambda student, teacher, noise, time, times: _flow_loss(
                student, noise, time, _walked_to(teacher, noise, times)
            ),
            "The two ends have changed places: what the teacher drew is the data, at time 0, and "
            "`noise` is at time 1.",
        ),
    ),
    alternatives=(
        lambda student, teacher, noise, time, times: _flow_loss(
            student, _walked_to(teacher, noise, times), time, noise
        ),
        _reflow_in_one_walk,
        lambda student, teacher, noise, time, times: _loss_of_pairs(
            student, time, flows.reflow_pairs(teacher, noise, times)
        ),
    ),
    passed="What is left is to do it some thousand times.",
)


# --- questions ------------------------------------------------------------------------------------

weight = Number(
    "lesson10.weight",
    "The other weight",
    difficulty=2,
    minutes=2,
    hints=(
        "x is given, it has no error. So the error of v is that of eps, divided by 1 - time.",
        "The loss is of squares.",
    ),
    value=100.0,
    rtol=1e-3,
    mistakes=(
        Mistake("not squared", 10.0, "The error itself is ten times larger. The loss squares it."),
        Mistake(
            "time over what is left",
            81.0,
            "0.9 does not stand in the formula of v, only 1 - time: 1 over its square.",
        ),
        Mistake("by time", 1 / 0.9, "You divide by time. What stands below is 1 - time."),
        Mistake(
            "by time, squared",
            1 / 0.81,
            "You divide by time squared. What stands below is 1 - time.",
        ),
        Mistake("the other way", 0.01, "Turn it around: dividing by 0.1 makes errors *larger*."),
        Mistake("of x0", 1.0, "Not the same: the error is divided by 1 - time, and then squared."),
    ),
    why="The error of v is that of eps over 0.1, and its square is 100 times as large.",
)

one_step = Choice(
    "lesson10.one_step",
    "One perfect step",
    difficulty=2,
    minutes=2,
    hints=("x is pure noise. What is the mean of all data that may lie behind it?",),
    right="b",
    options={
        "a": "The velocity is exact where you stand. But it changes on the way, and a single step "
        "does not notice.",
        "b": "Right. Behind pure noise any data point may lie, so x0_hat is the mean of all, and "
        "the step leads to x - 1 (x - x0_hat) = x0_hat, wherever it began.",
        "c": "Behind pure noise all data are equally likely, near or far: at time 1 nothing of "
        "them is left in x.",
        "d": "They move, by the velocity eps_hat - x0_hat, and that is not zero.",
    },
)

twice = Choice(
    "lesson10.twice",
    "A second look",
    difficulty=1,
    minutes=1,
    hints=("Where do the pairs come from that the new flow learns?",),
    right="b",
    options={
        "a": "Straight roads lead to where the first flow's roads led, and some of those ends lie "
        "between the clusters.",
        "b": "Right. The new flow draws what the old one drew, only faster. (Trained less than "
        "perfectly, it adds errors of its own.)",
        "c": "The points between the clusters are among the pairs, so they are learned like all "
        "others.",
        "d": "That was before: on bent roads. On straight ones a single step arrives.",
    },
)

middle = Number(
    "lesson10.middle",
    "In the middle",
    difficulty=2,
    minutes=2,
    hints=(
        "`torch.randn(100_000).sigmoid()` draws such times. Count those in between.",
        "Or exactly: tau = 0.75 belongs to z = log 3 = 1.0986, and tau = 0.25 to -1.0986.",
    ),
    value=math.erf(math.log(3) / math.sqrt(2)),
    rtol=0.01,
    mistakes=(
        Mistake(
            "even", 0.5, "That is the share of even times. The logit-normal prefers the middle."
        ),
        Mistake(
            "one side",
            math.erf(math.log(3) / math.sqrt(2)) / 2,
            "That is half of it: between 0.5 and 0.75. Count both sides of the middle.",
        ),
        Mistake(
            "outside",
            1 - math.erf(math.log(3) / math.sqrt(2)),
            "That is the share outside. Asked is what lies between 0.25 and 0.75.",
        ),
        Mistake(
            "normal",
            math.erf(0.75 / math.sqrt(2)),
            "You count z itself. First squeeze it into (0, 1): tau = 1 / (1 + exp(-z)).",
        ),
        Mistake(
            "below 0.75",
            0.5 + math.erf(math.log(3) / math.sqrt(2)) / 2,
            "That is the share below 0.75. Leave out what lies below 0.25.",
        ),
        Mistake("in percent", 72.8, "Answer with a share, between 0 and 1."),
    ),
    why="P(|z| < log 3) for a standard normal z.",
)
