"""Fast solvers: Euler, Heun, DPM-Solver++, spaced steps, and the density that the ODE knows."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tutorial_lib.checks.framework import (
    Choice,
    Exercise,
    Mistake,
    Number,
    per_sample,
    tensor_like,
)
from tutorial_lib.schedules import (
    NoiseSchedule,
    cosine_schedule,
    from_betas,
    linear_schedule,
    quadratic_schedule,
)

_NAMED = {"linear": linear_schedule, "cosine": cosine_schedule, "quadratic": quadratic_schedule}


def _schedule(kind: int | str, generator: torch.Generator) -> NoiseSchedule:
    """One of the course's own, by name, or a short one of so many random betas."""
    if isinstance(kind, str):
        return _NAMED[kind](1000)
    return from_betas(0.02 + 0.2 * torch.rand(kind, generator=generator, dtype=torch.float64))


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _rates(schedule: NoiseSchedule) -> tuple[Tensor, Tensor]:
    """signal_rate and sigma."""
    return schedule.signal_rate, schedule.noise_rate / schedule.signal_rate


def _fresh(argument: object) -> object:
    """A copy, so that an answer may change what it gets."""
    return argument.clone() if isinstance(argument, Tensor) else argument


def _in_parts(linear: dict[str, int]) -> Callable:
    """Calls a step that is linear in some arguments, and also asks for its factor of each.

    Where a number is wrong, the message then says which factor it is. What is None in a case is
    left out.

    Args:
        linear: the places of those arguments, by name.
    """

    def use(answer: Callable, *arguments: object) -> object:
        there = {name: arguments[place] for name, place in linear.items()}
        there = {name: value for name, value in there.items() if isinstance(value, Tensor)}
        like = next(iter(there.values()))
        came = answer(*map(_fresh, arguments))
        if came is ...:
            return ...
        found = {"factors": torch.zeros(len(linear)), "result": tensor_like(came, like)}
        for number, name in enumerate(linear):
            if name not in there:
                continue
            probe = [_fresh(argument) for argument in arguments]
            for other, value in there.items():
                fill = torch.ones_like if other == name else torch.zeros_like
                probe[linear[other]] = fill(value)
            given = tensor_like(answer(*probe), like).flatten()
            found["factors"][number] = given[0]
        factors = found.pop("factors")
        named = {f"factor of {name}": factors[n] for n, name in enumerate(linear)}
        return {**named, **found}

    return use


# --- Euler's step ---------------------------------------------------------------------------------


def _euler_step(schedule, x_t, t, s, eps_hat):
    sigma = schedule.noise_rate / schedule.signal_rate
    y = x_t / schedule.signal_rate[t]
    y = y + (sigma[s] - sigma[t]) * eps_hat
    return schedule.signal_rate[s] * y


_STEPS = (
    (5, 3, 1, (1, 3)),
    (5, 5, 0, (2, 1, 4, 4)),
    (8, 7, 2, (4, 4)),
    ("linear", 1000, 900, (2, 3, 1, 2, 2)),
    ("linear", 400, 399, (4,)),
    ("linear", 2, 1, (3, 3, 3)),
    ("linear", 1, 0, (3, 2)),
    ("cosine", 1000, 960, (2, 2)),
    ("cosine", 500, 20, (1, 3, 2)),
    ("cosine", 2, 0, (5,)),
    ("quadratic", 700, 300, (3, 3)),
)
"""Schedule, t, s, and the shape of a batch."""


def _euler_cases(generator: torch.Generator):
    for kind, t, s, shape in _STEPS:
        schedule = _schedule(kind, generator)
        x_t, eps_hat = _normal(generator, 2, *shape)
        yield schedule, x_t, t, s, eps_hat


def _ddim(schedule, x_t, t, s, eps_hat):
    """The step of lesson 6, without dice."""
    bar_t, bar_s = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
    x0_hat = (x_t - math.sqrt(1 - bar_t) * eps_hat) / math.sqrt(bar_t)
    return math.sqrt(bar_s) * x0_hat + math.sqrt(1 - bar_s) * eps_hat


def _euler_with(
    *,
    start: Callable = lambda signal, t, s: signal[t],
    stride: Callable = lambda schedule, sigma, t, s: sigma[s] - sigma[t],
    back: Callable = lambda signal, t, s: signal[s],
) -> Callable:
    """The answer with something changed: what x_t is divided by, the stride, the way back."""

    def answer(schedule, x_t, t, s, eps_hat):
        signal, sigma = _rates(schedule)
        y = x_t / start(signal, t, s) + stride(schedule, sigma, t, s) * eps_hat
        return back(signal, t, s) * y

    return answer


def _euler_numpy(schedule, x_t, t, s, eps_hat):
    signal, noise = schedule.signal_rate.numpy(), schedule.noise_rate.numpy()
    ratio = signal[s] / signal[t]
    return ratio * x_t.numpy() + (noise[s] - ratio * noise[t]) * eps_hat.numpy()


def _euler_in_place(schedule, x_t, t, s, eps_hat):
    signal, sigma = _rates(schedule)
    x_t /= signal[t]
    x_t += (sigma[s] - sigma[t]) * eps_hat
    x_t *= signal[s]
    return x_t


def _euler_reference(schedule, x_t, t, s, eps_hat):
    return _in_parts({"x_t": 1, "eps_hat": 4})(_ddim, schedule, x_t, t, s, eps_hat)


euler_step = Exercise(
    "lesson09.euler_step",
    "Euler's step",
    difficulty=1,
    minutes=4,
    hints=(
        "Three lines: divide x_t by the signal rate of t; add the stride in sigma times the slope "
        "eps_hat; multiply by the signal rate of s.",
        "sigma falls on the way to data, so the stride `sigma[s] - sigma[t]` is negative: noise is "
        "taken out.",
    ),
    model_answer=_euler_step,
    cases=_euler_cases,
    use=_in_parts({"x_t": 1, "eps_hat": 4}),
    reference=_euler_reference,
    mistakes=(
        Mistake(
            "stride the other way",
            _euler_with(stride=lambda schedule, sigma, t, s: sigma[t] - sigma[s]),
            "Your stride has the wrong sign: sigma_t - sigma_s is positive, so noise is put in. A "
            "step goes from t to s: end minus start.",
        ),
        Mistake(
            "never to y",
            _euler_with(start=lambda signal, t, s: 1.0, back=lambda signal, t, s: 1.0),
            "You step in x_t itself. The ODE is that of y: first divide by the signal rate of t, "
            "at the end multiply by that of s.",
        ),
        Mistake(
            "not divided",
            _euler_with(start=lambda signal, t, s: 1.0),
            "You multiply by the signal rate of s at the end, but x_t was not divided by that of t "
            "at the start.",
        ),
        Mistake(
            "y returned",
            _euler_with(back=lambda signal, t, s: 1.0),
            "This is y at sigma_s. The walk continues with x_s: multiply by the signal rate of s.",
        ),
        Mistake(
            "back by t",
            _euler_with(back=lambda signal, t, s: signal[t]),
            "You come back with the signal rate of t. The state is at s now.",
        ),
        Mistake(
            "divided by s",
            _euler_with(start=lambda signal, t, s: signal[s]),
            "You divide x_t by the signal rate of s. It is a state at t.",
        ),
        Mistake(
            "rates swapped",
            _euler_with(start=lambda signal, t, s: signal[s], back=lambda signal, t, s: signal[t]),
            "The signal rates of t and s have changed places: x_t belongs to t, the result to s.",
        ),
        Mistake(
            "noise rate for sigma",
            _euler_with(
                stride=lambda schedule, sigma, t, s: schedule.noise_rate[s] - schedule.noise_rate[t]
            ),
            "Your stride is one of noise_rate. In y the noise has the size sigma = noise_rate / "
            "signal_rate.",
        ),
        Mistake(
            "sigma squared",
            _euler_with(stride=lambda schedule, sigma, t, s: sigma[s] ** 2 - sigma[t] ** 2),
            "Your stride is one of sigma squared, a variance. The ODE is in sigma itself.",
        ),
        Mistake(
            "alpha_bar for the signal rate",
            lambda schedule, x_t, t, s, eps_hat: (
                schedule.alpha_bar[s]
                * (
                    x_t / schedule.alpha_bar[t]
                    + (_rates(schedule)[1][s] - _rates(schedule)[1][t]) * eps_hat
                )
            ),
            "You scale by alpha_bar. The signal rate is its square root.",
        ),
        Mistake(
            "clean data",
            lambda schedule, x_t, t, s, eps_hat: _ddim(schedule, x_t, t, 0, eps_hat),
            "You go all the way to sigma = 0, whatever s is: this is x0_hat. Stop at sigma_s.",
        ),
        Mistake(
            "all noise of t taken out",
            _euler_with(stride=lambda schedule, sigma, t, s: -sigma[t]),
            "You take out all the noise. At s there is still sigma_s of it: the stride is sigma_s "
            "- sigma_t.",
        ),
        Mistake(
            "noise of s put in",
            _euler_with(stride=lambda schedule, sigma, t, s: sigma[s]),
            "Your stride is sigma_s alone. It is the way from sigma_t to sigma_s.",
        ),
        Mistake(
            "stride in t",
            _euler_with(stride=lambda schedule, sigma, t, s: (s - t) / schedule.num_steps),
            "Your stride is one of the step number. The slope eps_hat is that of y over sigma.",
        ),
        Mistake(
            "not moved",
            lambda schedule, x_t, t, s, eps_hat: x_t * 1,
            "The state comes back as it was. Add the stride in sigma times eps_hat to y.",
        ),
        Mistake(
            "only rescaled",
            _euler_with(stride=lambda schedule, sigma, t, s: 0.0),
            "x_t is rescaled from t to s, and no noise is taken out: eps_hat does not appear.",
        ),
    ),
    alternatives=(_ddim, _euler_numpy, _euler_in_place),
    passed="In lesson 6 the same step was called DDIM.",
)


# --- the order of a method ------------------------------------------------------------------------


def _order(counts, errors):
    x, y = torch.log(counts), torch.log(errors)
    x, y = x - x.mean(), y - y.mean()
    return -(x * y).sum() / (x * x).sum()


def _order_cases(generator: torch.Generator):
    for order, counts, factor, noise in (
        (1.0, [10, 20, 40, 80], 0.7, 0.0),
        (2.0, [8, 16, 32, 64, 128], 0.7, 0.1),
        (1.0, [1, 2, 5, 10, 50], 40.0, 0.15),
        (3.0, [4, 9, 25], 0.7, 0.2),
        (0.5, [100, 1000], 0.7, 0.0),
        (2.0, [7, 8, 100], 0.7, 0.3),
        (2.0, [1000, 1010, 1025], 0.7, 0.0),
        (-0.5, [10, 20, 30], 0.01, 0.0),
    ):
        counts = torch.tensor(counts, dtype=torch.float64)
        scatter = noise * _normal(generator, len(counts))
        yield counts, factor * counts**-order * scatter.exp()


def _slope_of(x: Tensor, y: Tensor) -> Tensor:
    x, y = x - x.mean(), y - y.mean()
    return (x * y).sum() / (x * x).sum()


def _order_by_matrix(counts, errors):
    design = torch.stack([torch.log2(counts), torch.ones_like(counts)], dim=1)
    return -torch.linalg.lstsq(design, torch.log2(errors)[:, None]).solution[0, 0]


def _order_numpy(counts, errors):
    return -np.polyfit(np.log10(counts.numpy()), np.log10(errors.numpy()), 1)[0]


order = Exercise(
    "lesson09.order",
    "The order of a method",
    difficulty=1,
    minutes=3,
    hints=(
        "If the error is c N^(-p), its logarithm is log c - p log N: a straight line, and p is the "
        "slope with its sign changed.",
        "The slope of the line of least squares is sum(x y) / sum(x x), where x and y are the two "
        "logarithms, each less its mean.",
    ),
    model_answer=_order,
    cases=_order_cases,
    mistakes=(
        Mistake(
            "sign",
            lambda counts, errors: _slope_of(counts.log(), errors.log()),
            "This is the slope, and it is negative: the error falls. The order is its size.",
        ),
        Mistake(
            "no logarithms",
            lambda counts, errors: -_slope_of(counts, errors),
            "This is the slope of the error itself over the number of evaluations. A power law is "
            "straight only where both axes are logarithms.",
        ),
        Mistake(
            "only the errors",
            lambda counts, errors: -_slope_of(counts, errors.log()),
            "You took the logarithm of the errors only. Take that of the counts as well.",
        ),
        Mistake(
            "only the counts",
            lambda counts, errors: -_slope_of(counts.log(), errors),
            "You took the logarithm of the counts only. Take that of the errors as well.",
        ),
        Mistake(
            "axes swapped",
            lambda counts, errors: -_slope_of(errors.log(), counts.log()),
            "The axes have changed places: this is the slope of log N over the log error.",
        ),
        Mistake(
            "first and last",
            lambda counts, errors: (
                (errors[0].log() - errors[-1].log()) / (counts[-1].log() - counts[0].log())
            ),
            "You use the first and the last point only. The line of least squares listens to all.",
        ),
        Mistake(
            "through the origin",
            lambda counts, errors: (
                -(counts.log() * errors.log()).sum() / counts.log().square().sum()
            ),
            "Your line is forced through the origin. Subtract the means of both logarithms first, "
            "then the constant c drops out.",
        ),
        Mistake(
            "logarithm of the mean",
            lambda counts, errors: (
                -((counts.log() - counts.mean().log()) * (errors.log() - errors.mean().log())).sum()
                / (counts.log() - counts.mean().log()).square().sum()
            ),
            "You subtract the logarithm of the mean. Subtract the mean of the logarithms: first "
            "the logarithm, then its mean.",
        ),
        Mistake(
            "mean of the pieces",
            lambda counts, errors: (-errors.log().diff() / counts.log().diff()).mean(),
            "You average the slopes between neighbors, so two points that lie close together count "
            "as much as two far apart. Fit one line by least squares.",
        ),
        Mistake(
            "ratio of the logarithms",
            lambda counts, errors: (-errors.log() / counts.log()).mean(),
            "You divide the logarithms by each other. The order is how much the log error "
            "*changes* when log N changes.",
        ),
    ),
    alternatives=(
        _order_by_matrix,
        _order_numpy,
        lambda counts, errors: (
            -torch.cov(torch.stack([counts.log(), errors.log()]))[0, 1] / counts.log().var()
        ),
    ),
)


# --- Heun's step ----------------------------------------------------------------------------------


def _heun_step(model, schedule, x_t, t, s):
    signal, sigma = schedule.signal_rate, schedule.noise_rate / schedule.signal_rate
    y, stride = x_t / signal[t], sigma[s] - sigma[t]
    slope = model(x_t, torch.full((len(x_t),), t))
    if s > 0:
        x_s = signal[s] * (y + stride * slope)
        there = model(x_s, torch.full((len(x_t),), s))
        slope = (slope + there) / 2
    return signal[s] * (y + stride * slope)


class _Field:
    """A denoiser whose answer depends on all that it is told; it keeps count of the calls."""

    def __init__(self, num_steps: int, shape: tuple[int, ...], generator: torch.Generator) -> None:
        self.num_steps, self.shape = num_steps, shape
        self.shift = float(torch.rand((), generator=generator)) + 0.5
        self.calls = 0

    def __call__(self, x_t: Tensor, t: Tensor, /) -> Tensor:
        if tuple(x_t.shape) != self.shape:
            raise ValueError(f"x_t must have shape {self.shape}, got {tuple(x_t.shape)}")
        if not isinstance(t, Tensor) or t.dtype != torch.int64 or t.shape != x_t.shape[:1]:
            got = f"{t.dtype} {tuple(t.shape)}" if isinstance(t, Tensor) else f"{t!r}"
            raise ValueError(
                f"t must be int64 with a step for each of the {len(x_t)} samples; got {got}"
            )
        if ((t < 0) | (t > self.num_steps)).any():
            raise ValueError(f"t must be in 0..{self.num_steps}, got {int(t[0])}")
        self.calls += 1
        age = per_sample(t, x_t) / self.num_steps
        return torch.sin(self.shift * x_t + 2 * age) + 0.3 * x_t + age

    def __repr__(self) -> str:
        return "a test model"


def _heun_cases(generator: torch.Generator):
    for kind, t, s, shape in _STEPS:
        schedule = _schedule(kind, generator)
        x_t = _normal(generator, *shape, *([1] if len(shape) == 1 else []))
        yield _Field(schedule.num_steps, tuple(x_t.shape), generator), schedule, x_t, t, s


def _counted(answer: Callable, model: _Field, schedule, x_t, t, s) -> object:
    """The new state, and how often the model was asked."""
    model.calls = 0
    came = answer(model, schedule, x_t.clone(), t, s)
    if came is ...:
        return ...
    return tensor_like(came, x_t), model.calls


def _heun_reference(model: _Field, schedule, x_t, t, s) -> tuple[Tensor, int]:
    """As two steps of DDIM: one to look ahead, one with the mean of both answers."""
    first = model(x_t, torch.full((len(x_t),), t))
    if s == 0:
        return _ddim(schedule, x_t, t, s, first), 1
    second = model(_ddim(schedule, x_t, t, s, first), torch.full((len(x_t),), s))
    return _ddim(schedule, x_t, t, s, (first + second) / 2), 2


def _heun_with(
    *,
    there: Callable = lambda signal, x_t, y, t, s: signal[s] * y,
    asked_at: Callable = lambda t, s: s,
    join: Callable = lambda first, second: (first + second) / 2,
    begin: Callable = lambda y, ahead: y,
    is_last: Callable = lambda s: s == 0,
    stride: Callable = lambda sigma, t, s: sigma[s] - sigma[t],
    back: Callable = lambda signal, t, s: signal[s],
) -> Callable:
    """The answer with something changed."""

    def answer(model, schedule, x_t, t, s):
        signal, sigma = _rates(schedule)
        y, h = x_t / signal[t], stride(sigma, t, s)
        first = model(x_t, torch.full((len(x_t),), t))
        if is_last(s):
            return back(signal, t, s) * (y + h * first)
        ahead = y + h * first
        seen = there(signal, x_t, ahead, t, s)
        second = model(seen, torch.full((len(x_t),), asked_at(t, s)))
        return back(signal, t, s) * (begin(y, ahead) + h * join(first, second))

    return answer


def _heun_of_ddim(model, schedule, x_t, t, s):
    first = model(x_t, torch.full((x_t.shape[0],), t))
    x_s = _ddim(schedule, x_t, t, s, first)
    if s == 0:
        return x_s
    second = model(x_s, torch.full((x_t.shape[0],), s))
    ratio = schedule.signal_rate[s] / schedule.signal_rate[t]
    half = (schedule.noise_rate[s] - ratio * schedule.noise_rate[t]) / 2
    return x_s + half * (second - first)


def _heun_corrected(model, schedule, x_t, t, s):
    """Euler's result, then corrected by half of what the slope has changed."""
    signal, sigma = _rates(schedule)
    steps = torch.ones(len(x_t), dtype=torch.int64)
    d = model(x_t, t * steps)
    y = x_t / signal[t] + (sigma[s] - sigma[t]) * d
    if s != 0:
        y = y + (sigma[s] - sigma[t]) / 2 * (model(y * signal[s], s * steps) - d)
    return y * signal[s]


def _midpoint(model, schedule, x_t, t, s):
    signal, sigma = _rates(schedule)
    y, h = x_t / signal[t], sigma[s] - sigma[t]
    first = model(x_t, torch.full((len(x_t),), t))
    if s == 0:
        return signal[s] * (y + h * first)
    middle = (t + s) // 2
    second = model(signal[middle] * (y + h / 2 * first), torch.full((len(x_t),), middle))
    return signal[s] * (y + h * second)


heun_step = Exercise(
    "lesson09.heun_step",
    "Heun's step",
    difficulty=2,
    minutes=6,
    hints=(
        "First take Euler's step to the end, but only to look: what slope does the model report "
        "there? Then go again *from the start*, with the mean of the two slopes.",
        "The model wants a state x, not y, and the step that belongs to it: `model(signal_rate[s] "
        "* y_there, torch.full((len(x_t),), s))`.",
        "Where s is 0, do not ask again: return Euler's step.",
    ),
    model_answer=_heun_step,
    cases=_heun_cases,
    use=_counted,
    reference=_heun_reference,
    parts=("x_s", "how often the model was asked"),
    mistakes=(
        Mistake(
            "Euler",
            _heun_with(is_last=lambda s: True),
            "This is Euler's step: the model was asked at t only. Ask again at the place where "
            "that step ends.",
        ),
        Mistake(
            "asked at 0",
            _heun_with(is_last=lambda s: False),
            "Right, but for the last step: at s = 0 you ask the model about clean data. It has "
            "never seen any, so that step must be Euler's.",
        ),
        Mistake(
            "sum of the slopes",
            _heun_with(join=lambda first, second: first + second),
            "You add the two slopes and go twice as far. Take their mean.",
        ),
        Mistake(
            "second slope alone",
            _heun_with(join=lambda first, second: second),
            "You go with the slope at the end alone. The mean of both is what makes the method "
            "second order.",
        ),
        Mistake(
            "not from the start",
            _heun_with(begin=lambda y, ahead: ahead),
            "You go on from where the look ahead ended, so the stride is taken twice. Go again "
            "from y at t.",
        ),
        Mistake(
            "half a stride on",
            _heun_with(begin=lambda y, ahead: ahead, join=lambda first, second: second / 2),
            "You go a whole stride with the first slope and half a stride more with the second. "
            "Each of them counts half, from the start.",
        ),
        Mistake(
            "asked at t",
            _heun_with(asked_at=lambda t, s: t),
            "You ask about the state at s, but tell the model it is at t. Its second argument must "
            "say s.",
        ),
        Mistake(
            "the same state again",
            _heun_with(there=lambda signal, x_t, y, t, s: x_t),
            "Your second question is about x_t. Ask about the place that Euler's step reaches.",
        ),
        Mistake(
            "asked with y",
            _heun_with(there=lambda signal, x_t, y, t, s: y),
            "You hand the model y where it wants x: multiply by the signal rate of s before you "
            "ask.",
        ),
        Mistake(
            "scaled by t",
            _heun_with(there=lambda signal, x_t, y, t, s: signal[t] * y),
            "You ask about signal_rate[t] times y. That y is at s, so its signal rate is that of "
            "s.",
        ),
        Mistake(
            "difference of the slopes",
            _heun_with(join=lambda first, second: (first - second) / 2),
            "You take half the difference of the slopes. Take half their sum.",
        ),
        Mistake(
            "stride the other way",
            _heun_with(stride=lambda sigma, t, s: sigma[t] - sigma[s]),
            "Your stride has the wrong sign: sigma must fall from t to s, so it is sigma_s - "
            "sigma_t.",
        ),
        Mistake(
            "y returned",
            _heun_with(back=lambda signal, t, s: 1.0),
            "This is y at sigma_s. Multiply by the signal rate of s to get x_s.",
        ),
        Mistake(
            "back by t",
            _heun_with(back=lambda signal, t, s: signal[t]),
            "You come back with the signal rate of t. The new state is at s.",
        ),
        Mistake(
            "midpoint",
            _midpoint,
            "This is the midpoint method: it asks halfway. It has second order, too, but Heun's "
            "asks at the end of the stride and takes the mean of both slopes.",
        ),
    ),
    alternatives=(_heun_of_ddim, _heun_corrected),
    passed="Two questions a step, and the error falls with the square of the stride.",
)


# --- the step of DPM-Solver++ ---------------------------------------------------------------------


def _dpm_step(schedule, x_t, t, s, x0_hat, t_last, x0_hat_last):
    signal, sigma = schedule.signal_rate, schedule.noise_rate / schedule.signal_rate
    target = x0_hat
    if x0_hat_last is not None and s > 0:
        h, h_last = (sigma[t] / sigma[s]).log(), (sigma[t_last] / sigma[t]).log()
        target = x0_hat + h / (2 * h_last) * (x0_hat - x0_hat_last)
    share = sigma[s] / sigma[t]
    y = share * x_t / signal[t] + (1 - share) * target
    return signal[s] * y


_DPM_PLACES = {"x_t": 1, "x0_hat": 4, "x0_hat_last": 6}


def _dpm_cases(generator: torch.Generator):
    for kind, t_last, t, s, shape in (
        (5, 4, 3, 1, (1, 3)),
        (8, 8, 5, 4, (2, 1, 4, 4)),
        (8, 7, 3, 2, (4, 4)),
        (8, None, 8, 3, (3, 3)),
        ("linear", 1000, 950, 900, (2, 3, 1, 2, 2)),
        ("linear", 800, 300, 200, (4,)),
        ("linear", 40, 3, 1, (3, 3, 3)),
        ("cosine", 501, 500, 499, (2, 3)),
        ("cosine", 5, 2, 1, (3, 2)),
        ("linear", 2, 1, 0, (3, 2)),
        ("cosine", None, 1000, 900, (2, 2)),
        ("cosine", 1000, 900, 400, (1, 3, 2)),
        ("cosine", 60, 20, 0, (5,)),
        ("quadratic", 700, 300, 290, (3, 3)),
        ("quadratic", None, 1, 0, (1, 2)),
    ):
        schedule = _schedule(kind, generator)
        x_t, x0_hat, before = _normal(generator, 3, *shape)
        yield schedule, x_t, t, s, x0_hat, t_last, None if t_last is None else before


def _dpm_of_the_paper(schedule, x_t, t, s, x0_hat, t_last, x0_hat_last):
    """Lu et al. 2022, algorithm 2, as it stands there."""
    signal, noise = schedule.signal_rate.tolist(), schedule.noise_rate.tolist()
    if s == 0:
        return x0_hat
    lam = [math.inf if b == 0 else math.log(a / b) for a, b in zip(signal, noise, strict=True)]
    h, D = lam[s] - lam[t], x0_hat
    if x0_hat_last is not None:
        r = (lam[t] - lam[t_last]) / h
        D = (1 + 1 / (2 * r)) * x0_hat - 1 / (2 * r) * x0_hat_last
    return noise[s] / noise[t] * x_t - signal[s] * math.expm1(-h) * D


def _dpm_reference(*case):
    return _in_parts(_DPM_PLACES)(_dpm_of_the_paper, *case)


def _log_strides(schedule, sigma, t_last, t, s):
    return math.log(sigma[t] / sigma[s]), math.log(sigma[t_last] / sigma[t])


def _dpm_with(
    *,
    strides: Callable = _log_strides,
    ahead: Callable = lambda h, h_last: h / (2 * h_last),
    change: Callable = lambda x0_hat, last: x0_hat - last,
    base: Callable = lambda x0_hat, last: x0_hat,
    share: Callable = lambda schedule, sigma, t, s: sigma[s] / sigma[t],
    weights: Callable = lambda share: (share, 1 - share),
    start: Callable = lambda signal, x_t, t: x_t / signal[t],
    back: Callable = lambda signal, t, s: signal[s],
    first: Callable = lambda x0_hat: x0_hat,
) -> Callable:
    """The answer with something changed."""

    def answer(schedule, x_t, t, s, x0_hat, t_last, x0_hat_last):
        signal, sigma = _rates(schedule)
        target = x0_hat if s == 0 else first(x0_hat)
        if x0_hat_last is not None and s > 0:
            factor = ahead(*strides(schedule, sigma, t_last, t, s))
            target = base(x0_hat, x0_hat_last) + factor * change(x0_hat, x0_hat_last)
        stay, go = weights(share(schedule, sigma, t, s))
        return back(signal, t, s) * (stay * start(signal, x_t, t) + go * target)

    return answer


def _dpm_by_slope(schedule, x_t, t, s, x0_hat, t_last, x0_hat_last):
    """As a step of Euler's, with the slope that leads to the extrapolated target."""
    signal, sigma = _rates(schedule)
    lam = -torch.log(sigma)
    if x0_hat_last is not None and s != 0:
        x0_hat = torch.lerp(
            x0_hat_last, x0_hat, 1 + (lam[s] - lam[t]) / (2 * (lam[t] - lam[t_last]))
        )
    y = x_t / signal[t]
    return (y + (sigma[s] - sigma[t]) * (y - x0_hat) / sigma[t]) * signal[s]


dpm_step = Exercise(
    "lesson09.dpm_step",
    "The step of DPM-Solver++",
    difficulty=3,
    minutes=7,
    hints=(
        "Two things to find: the target, and what share of the way is left. The second is "
        "sigma_s / sigma_t.",
        "The stride in log sigma is `(sigma[t] / sigma[s]).log()`, the one before "
        "`(sigma[t_last] / sigma[t]).log()`. Go on along the change of x0_hat by half the "
        "ratio of the two.",
        "Take the plain x0_hat as the target where there is no x0_hat_last, and where s is 0: "
        "there the stride in log sigma is infinite.",
    ),
    model_answer=_dpm_step,
    cases=_dpm_cases,
    use=_in_parts(_DPM_PLACES),
    reference=_dpm_reference,
    mistakes=(
        Mistake(
            "not extrapolated",
            _dpm_with(ahead=lambda h, h_last: 0.0),
            "This is DDIM: the target is always x0_hat as it is now. Use what the last step saw to "
            "tell where it is going.",
        ),
        Mistake(
            "to the end of the stride",
            _dpm_with(ahead=lambda h, h_last: h / h_last),
            "You extrapolate to the end of the stride. What is wanted is the target *on the way*: "
            "half as far.",
        ),
        Mistake(
            "ratio upside down",
            _dpm_with(ahead=lambda h, h_last: h_last / (2 * h)),
            "The ratio of the strides is upside down. The longer the step before you, the farther "
            "you must extrapolate.",
        ),
        Mistake(
            "brackets missing",
            _dpm_with(ahead=lambda h, h_last: h / 2 * h_last),
            "You multiply by h_last. Brackets are missing: `h / (2 * h_last)`.",
        ),
        Mistake(
            "strides taken as equal",
            _dpm_with(ahead=lambda h, h_last: 0.5),
            "You extrapolate by one half, which is right only where both strides in log sigma are "
            "equal.",
        ),
        Mistake(
            "stride in sigma",
            _dpm_with(
                strides=lambda schedule, sigma, t_last, t, s: (
                    sigma[t] - sigma[s],
                    sigma[t_last] - sigma[t],
                )
            ),
            "You measure the strides in sigma. DPM-Solver++ follows x0_hat along the logarithm of "
            "sigma.",
        ),
        Mistake(
            "stride in t",
            _dpm_with(strides=lambda schedule, sigma, t_last, t, s: (t - s, t_last - t)),
            "You measure the strides in step numbers. Measure them in log sigma.",
        ),
        Mistake(
            "log of the noise rate",
            _dpm_with(
                strides=lambda schedule, sigma, t_last, t, s: _log_strides(
                    schedule, schedule.noise_rate, t_last, t, s
                )
            ),
            "You measure the strides in log noise_rate. It is sigma = noise_rate / signal_rate "
            "whose logarithm counts.",
        ),
        Mistake(
            "log of the signal rate",
            _dpm_with(
                strides=lambda schedule, sigma, t_last, t, s: _log_strides(
                    schedule, 1 / schedule.signal_rate, t_last, t, s
                )
            ),
            "You measure the strides in log signal_rate. It is sigma = noise_rate / signal_rate "
            "whose logarithm counts.",
        ),
        Mistake(
            "stride from the last step",
            _dpm_with(
                strides=lambda schedule, sigma, t_last, t, s: (
                    math.log(sigma[t] / sigma[s]),
                    math.log(sigma[t_last] / sigma[s]),
                )
            ),
            "Your stride before goes from t_last to s. It ended at t.",
        ),
        Mistake(
            "backwards",
            _dpm_with(change=lambda x0_hat, last: last - x0_hat),
            "You go back towards the last x0_hat. Go on in the direction in which it has changed: "
            "x0_hat - x0_hat_last.",
        ),
        Mistake(
            "from the old one",
            _dpm_with(base=lambda x0_hat, last: last),
            "You extrapolate from x0_hat_last. Begin at the newer one, x0_hat.",
        ),
        Mistake(
            "sum for difference",
            _dpm_with(change=lambda x0_hat, last: x0_hat + last),
            "You add the two guesses where their difference belongs.",
        ),
        Mistake(
            "shares swapped",
            _dpm_with(weights=lambda share: (1 - share, share)),
            "The shares have changed places: sigma_s / sigma_t is how much of y stays.",
        ),
        Mistake(
            "share upside down",
            lambda schedule, x_t, t, s, x0_hat, t_last, x0_hat_last: (
                _dpm_with()(schedule, x_t, t, s, x0_hat, t_last, x0_hat_last)
                if s == 0
                else _dpm_with(share=lambda schedule, sigma, t, s: sigma[t] / sigma[s])(
                    schedule, x_t, t, s, x0_hat, t_last, x0_hat_last
                )
            ),
            "sigma_t / sigma_s is larger than 1, so you walk away from the target. The share that "
            "is left of y is sigma_s / sigma_t.",
        ),
        Mistake(
            "share of the noise rates",
            _dpm_with(
                share=lambda schedule, sigma, t, s: schedule.noise_rate[s] / schedule.noise_rate[t]
            ),
            "Your share is one of noise rates. In y the noise has the size sigma.",
        ),
        Mistake(
            "share of the stride",
            _dpm_with(share=lambda schedule, sigma, t, s: (t - s) / t),
            "Your share counts step numbers. What is left of y is sigma_s / sigma_t.",
        ),
        Mistake(
            "not divided",
            _dpm_with(start=lambda signal, x_t, t: x_t),
            "You mix x_t with the target. Divide by the signal rate of t first: it is y that "
            "slides toward x0_hat.",
        ),
        Mistake(
            "y returned",
            _dpm_with(back=lambda signal, t, s: 1.0),
            "This is y at sigma_s. Multiply by the signal rate of s to get x_s.",
        ),
        Mistake(
            "back by t",
            _dpm_with(back=lambda signal, t, s: signal[t]),
            "You come back with the signal rate of t. The new state is at s.",
        ),
        Mistake(
            "first step by zero",
            _dpm_with(first=lambda x0_hat: 0 * x0_hat, base=lambda x0_hat, last: x0_hat),
            "In the first step, where there is no x0_hat_last, your target is zero. It is "
            "x0_hat itself.",
        ),
    ),
    alternatives=(_dpm_of_the_paper, _dpm_by_slope),
    passed="Second order, for one question a step: the memory is free.",
)


# --- Karras' spacing ------------------------------------------------------------------------------


def _karras_sigmas(sigma_max, sigma_min, count, rho):
    first, last = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    sigmas = torch.linspace(first, last, count, dtype=torch.float64) ** rho
    return torch.cat([sigmas, torch.zeros(1, dtype=torch.float64)])


def _karras_cases(_generator: torch.Generator):
    yield from (
        (80.0, 0.002, 10, 7.0),
        (157.4, 0.01, 5, 7.0),
        (20.0, 0.5, 2, 7.0),
        (30.0, 0.03, 8, 1.0),
        (30.0, 0.03, 7, 3.0),
        (14.6, 0.03, 30, 5.0),
        (50.0, 2.0, 6, 3.0),
        (0.005, 0.001, 3, 1.0),
        (1e5, 1e4, 5, 1.0),
    )


def _karras_with(
    *,
    root: Callable = lambda sigma, rho: sigma ** (1 / rho),
    place: Callable = lambda i, count: i / (count - 1),
    power: Callable = lambda x, rho: x**rho,
    end: Callable = lambda sigmas: [*sigmas, 0.0],
) -> Callable:
    """The answer with something changed."""

    def answer(sigma_max, sigma_min, count, rho):
        first, last = root(sigma_max, rho), root(sigma_min, rho)
        sigmas = [power(first + place(i, count) * (last - first), rho) for i in range(count)]
        return torch.tensor(end(sigmas), dtype=torch.float64)

    return answer


def _karras_numpy(sigma_max, sigma_min, count, rho):
    first, last = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return np.append(np.linspace(first, last, count) ** rho, 0.0)


_ONE_SHORT = "Your list has one entry too few: `count` sigmas, and the 0 in which the walk ends."

karras_sigmas = Exercise(
    "lesson09.karras_sigmas",
    "Karras' spacing",
    difficulty=1,
    minutes=4,
    hints=(
        "Take the root of both ends, `sigma ** (1 / rho)`, space them evenly, and raise each to "
        "the power rho.",
        "`torch.linspace(a, b, count)` gives count numbers from a to b, both included. The 0 comes "
        "after them.",
    ),
    model_answer=_karras_sigmas,
    cases=_karras_cases,
    mistakes=(
        Mistake(
            "evenly in sigma",
            _karras_with(root=lambda sigma, rho: sigma, power=lambda x, rho: x),
            "These sigmas are spaced evenly, as with rho = 1. The *roots* are to be spaced evenly.",
        ),
        Mistake(
            "evenly in the logarithm",
            _karras_with(root=lambda sigma, rho: math.log(sigma), power=lambda x, rho: math.exp(x)),
            "These sigmas are spaced evenly in their logarithm, as with an endless rho.",
        ),
        Mistake(
            "root and power swapped",
            _karras_with(root=lambda sigma, rho: sigma**rho, power=lambda x, rho: x ** (1 / rho)),
            "The root and the power have changed places: first the root 1/rho, and the power rho "
            "at the end. Yours puts the many steps at heavy noise.",
        ),
        Mistake(
            "not raised again",
            _karras_with(power=lambda x, rho: x),
            "These are still the roots. Raise them to the power rho to get sigmas again.",
        ),
        Mistake(
            "no root",
            _karras_with(root=lambda sigma, rho: sigma),
            "You raise to the power rho, but did not take the roots of the ends first.",
        ),
        Mistake(
            "i over count",
            _karras_with(place=lambda i, count: i / count),
            "Your last sigma is not sigma_min: from the first to the last of `count` numbers there "
            "are count - 1 strides.",
        ),
        Mistake(
            "sigma_min for the zero",
            lambda sigma_max, sigma_min, count, rho: _karras_sigmas(
                sigma_max, sigma_min, count + 1, rho
            )[:-1],
            "Your list ends at sigma_min, with one stride too many on the way there. `count` "
            "sigmas lead down to sigma_min, and after them comes 0.",
        ),
        Mistake(
            "one place on",
            _karras_with(place=lambda i, count: (i + 1) / count),
            "Your first sigma is not sigma_max: i begins at 0, and from the first to the last "
            "number there are count - 1 strides.",
        ),
        Mistake("no zero", _karras_with(end=lambda sigmas: sigmas), _ONE_SHORT),
        Mistake(
            "zero for the last",
            _karras_with(end=lambda sigmas: [*sigmas[:-1], 0.0]),
            "The 0 stands where sigma_min belongs: first `count` sigmas, the last of them "
            "sigma_min, and after them the 0.",
        ),
        Mistake(
            "upwards",
            _karras_with(end=lambda sigmas: [0.0, *sigmas[::-1]]),
            "Your list rises. The walk goes from noise to data: sigma_max first, 0 last.",
        ),
        Mistake(
            "upwards, then zero",
            _karras_with(end=lambda sigmas: [*sigmas[::-1], 0.0]),
            "sigma_max and sigma_min have changed places: the walk begins at sigma_max.",
        ),
        Mistake(
            "zero first",
            _karras_with(end=lambda sigmas: [0.0, *sigmas]),
            "The 0 stands at the front. It is where the walk ends.",
        ),
        Mistake(
            "always 7",
            lambda sigma_max, sigma_min, count, rho: _karras_sigmas(sigma_max, sigma_min, count, 7),
            "Right for rho = 7, whatever rho is. Use the argument.",
        ),
        Mistake(
            "one sigma too many",
            lambda sigma_max, sigma_min, count, rho: _karras_sigmas(
                sigma_max, sigma_min, count + 1, rho
            ),
            "Your list has one sigma too many: `count` of them, and then the 0.",
        ),
    ),
    alternatives=(
        _karras_numpy,
        _karras_with(),
        lambda sigma_max, sigma_min, count, rho: [
            *(
                (
                    (1 - i / (count - 1)) * sigma_max ** (1 / rho)
                    + i / (count - 1) * sigma_min ** (1 / rho)
                )
                ** rho
                for i in range(count)
            ),
            0,
        ],
    ),
)


# --- divergence -----------------------------------------------------------------------------------


def _divergence(f, y):
    y = y.detach().requires_grad_()
    values = f(y)
    total = torch.zeros(len(y), dtype=y.dtype)
    for d in range(y.shape[1]):
        (slopes,) = torch.autograd.grad(values[:, d].sum(), y, retain_graph=True)
        total = total + slopes[:, d]
    return total


def _fields(dim: int, generator: torch.Generator) -> tuple[Callable, Callable]:
    """A field of dim numbers, and its divergence as a formula."""
    A, b = _normal(generator, dim, dim), _normal(generator, dim)
    c = _normal(generator, dim)

    def field(y: Tensor) -> Tensor:
        return torch.sin(y @ A.T + b) + c * y * y

    def divergence(y: Tensor) -> Tensor:
        return (torch.cos(y @ A.T + b) * A.diagonal() + 2 * c * y).sum(1)

    return field, divergence


def _divergence_cases(generator: torch.Generator):
    for batch, dim in ((1, 2), (4, 2), (3, 3), (5, 1), (2, 4), (1, 1)):
        field, _ = _fields(dim, generator)
        yield field, _normal(generator, batch, dim)


def _by_formula(field: Callable, y: Tensor) -> Tensor:
    """The divergence by central differences in steps that leave nine digits."""
    total, step = torch.zeros(len(y), dtype=y.dtype), 1e-4
    for d in range(y.shape[1]):
        ahead = torch.zeros_like(y)
        ahead[:, d] = step
        near = field(y + ahead)[:, d] - field(y - ahead)[:, d]
        far = field(y + 2 * ahead)[:, d] - field(y - 2 * ahead)[:, d]
        total = total + (8 * near - far) / (12 * step)
    return total


def _jacobians(f: Callable, y: Tensor) -> Tensor:
    """The table of slopes of each sample, (B, D, D): row i holds those of f_i."""
    return torch.stack(
        [torch.autograd.functional.jacobian(lambda row: f(row[None])[0], sample) for sample in y]
    )


def _trace_with(pick: Callable) -> Callable:
    """Something other than the trace of each sample's table of slopes."""
    return lambda f, y: pick(_jacobians(f, y.detach()))


def _divergence_funced(f, y):
    table = torch.func.vmap(torch.func.jacrev(lambda row: f(row[None])[0]))(y)
    return torch.einsum("bii->b", table)


divergence = Exercise(
    "lesson09.divergence",
    "Divergence",
    difficulty=2,
    minutes=5,
    hints=(
        "The samples do not disturb each other, so the gradient of `f(y)[:, d].sum()` with respect "
        "to y holds, in each row, the slopes of that sample's component d.",
        "Of these slopes you need one a row: how component d changes with coordinate d. "
        "`torch.autograd.grad(a_number, y, retain_graph=True)[0]` gives the gradient, (B, D).",
        "y must ask for gradients before f sees it: `y = y.detach().requires_grad_()`.",
    ),
    model_answer=_divergence,
    cases=_divergence_cases,
    reference=_by_formula,
    together=True,  # gradients go through f
    mistakes=(
        Mistake(
            "sum of all slopes",
            _trace_with(lambda table: table.sum((1, 2))),
            "You add up all slopes, also how one component changes with *another* coordinate. The "
            "divergence takes the diagonal only.",
        ),
        Mistake(
            "first component only",
            _trace_with(lambda table: table[:, 0, 0]),
            "You stop after the first coordinate. Add up over all D of them.",
        ),
        Mistake(
            "mean for sum",
            _trace_with(lambda table: table.diagonal(0, 1, 2).mean(1)),
            "You take the mean over the coordinates. The divergence is their sum.",
        ),
        Mistake(
            "one number for the batch",
            _trace_with(lambda table: table.diagonal(0, 1, 2).sum().expand(len(table))),
            "All samples get the same number, the sum over the batch. Each has its own divergence.",
        ),
        Mistake(
            "mean over the batch",
            _trace_with(lambda table: table.diagonal(0, 1, 2).sum(1) / len(table)),
            "Right, but divided by the number of samples. Send `f(y)[:, d].sum()` back, not the "
            "mean: then each row holds the slopes of its own sample.",
        ),
        Mistake(
            "not summed",
            _trace_with(lambda table: table.diagonal(0, 1, 2)),
            "These are the D slopes on the diagonal, sample by sample. Add them up.",
        ),
        Mistake(
            "the whole table",
            _trace_with(lambda table: table),
            "This is the table of slopes, (B, D, D). Its divergence is the sum of the diagonal.",
        ),
        Mistake(
            "sizes of the slopes",
            _trace_with(lambda table: table.diagonal(0, 1, 2).abs().sum(1)),
            "You add up sizes. A slope may be negative, and then it counts as such.",
        ),
        Mistake(
            "determinant",
            _trace_with(torch.linalg.det),
            "This is the determinant of the slopes. For a small stride in time it is their *trace* "
            "that says how space is stretched.",
        ),
        Mistake(
            "product of the diagonal",
            _trace_with(lambda table: table.diagonal(0, 1, 2).prod(1)),
            "You multiply the slopes on the diagonal. Add them.",
        ),
        Mistake(
            "sum of the values",
            lambda f, y: f(y).sum(1).detach(),
            "You add up the values of f. The divergence adds up its slopes.",
        ),
        Mistake(
            "sign",
            _trace_with(lambda table: -table.diagonal(0, 1, 2).sum(1)),
            "The sign is wrong. Where f points away from a place on all sides, its divergence is "
            "positive.",
        ),
        Mistake(
            "squares",
            _trace_with(lambda table: table.square().sum((1, 2))),
            "You add up squares of slopes. Add up the slopes on the diagonal themselves.",
        ),
        Mistake(
            "values times slopes",
            lambda f, y: (_jacobians(f, y.detach()).diagonal(0, 1, 2) * f(y)).sum(1).detach(),
            "Your slopes are multiplied by the values of f. Send a gradient of one number back, "
            "`f(y)[:, d].sum()`.",
        ),
    ),
    alternatives=(
        _divergence_funced,
        _by_formula,
        _trace_with(lambda table: table.diagonal(0, 1, 2).sum(1)),
    ),
)


# --- log density by the ODE -----------------------------------------------------------------------


def _log_density(slope, divergence, y, sigmas):
    gained = torch.zeros(len(y), dtype=y.dtype)
    for here, there in zip(sigmas[:-1], sigmas[1:], strict=True):
        stride = there - here
        first = slope(y, here)
        second = slope(y + stride * first, there)
        ahead = y + stride * (first + second) / 2
        gained = gained + stride * (divergence(y, here) + divergence(ahead, there)) / 2
        y = ahead
    dim, last = y.shape[1], sigmas[-1]
    log_noise = -(y**2).sum(1) / (2 * last**2) - dim / 2 * math.log(2 * math.pi * last**2)
    return log_noise + gained


class _Clusters:
    """Two round clusters in D dimensions: the exact slope of the ODE and its divergence."""

    def __init__(self, means: Tensor, variance: float, weights: tuple[float, float]) -> None:
        self.means, self.variance = means, variance  # (2, D)
        self.log_weights = torch.tensor(weights, dtype=means.dtype).log()

    def _seen(self, y: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """E[x_0 given y], (B, D), and the trace of its covariance, (B,)."""
        v, dim = self.variance, y.shape[1]
        away = y[:, None] - self.means
        share = (self.log_weights - away.square().sum(2) / (2 * (v + sigma**2))).softmax(1)
        centers = self.means + v / (v + sigma**2) * away
        mean = (share[..., None] * centers).sum(1)
        squares = dim * v * sigma**2 / (v + sigma**2) + centers.square().sum(2)
        return mean, (share * squares).sum(1) - mean.square().sum(1)

    def slope(self, y: Tensor, sigma: float) -> Tensor:
        return (y - self._seen(y, sigma)[0]) / sigma

    def divergence(self, y: Tensor, sigma: float) -> Tensor:
        return (y.shape[1] - self._seen(y, sigma)[1] / sigma**2) / sigma


def _density_cases(generator: torch.Generator):
    """Points between two clusters, where the divergence changes quickly; points in a narrow one,
    where the density is high; and a way up with long strides."""
    for batch, dim, apart, variance, spread, first, last, count in (
        (3, 1, 1.5, 0.1, 0.3, 0.2, 15.0, 160),
        (1, 2, None, 0.01, 0.05, 0.05, 15.0, 220),
        (3, 3, None, 1.0, 1.0, 0.4, 60.0, 170),
    ):
        if apart is None:
            means = _normal(generator, 2, dim)
            centers = means[:1].repeat(batch, 1)
        else:
            means = apart * torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
            centers = torch.zeros(batch, 1, dtype=torch.float64)
        clusters = _Clusters(means, variance, (0.4, 0.6))
        y = centers + spread * _normal(generator, *centers.shape)
        ends = math.log(first), math.log(last)
        sigmas = torch.linspace(*ends, count, dtype=torch.float64).exp().tolist()
        yield clusters.slope, clusters.divergence, y, sigmas


def _fine(slope, divergence, y, sigmas):
    """The classical Runge-Kutta method for y and for the integral together."""
    total = torch.zeros(len(y), dtype=y.dtype)
    for a, b in zip(sigmas[:-1], sigmas[1:], strict=True):
        h, m = b - a, (a + b) / 2
        k1 = slope(y, a)
        k2 = slope(y + h / 2 * k1, m)
        k3 = slope(y + h / 2 * k2, m)
        k4 = slope(y + h * k3, b)
        end = y + h * (k1 + 2 * k2 + 2 * k3 + k4) / 6
        middle = divergence(y + h / 2 * (k1 + k2) / 2, m)
        total = total + h * (divergence(y, a) + 4 * middle + divergence(end, b)) / 6
        y = end
    normal = torch.distributions.Normal(torch.zeros((), dtype=y.dtype), sigmas[-1])
    return normal.log_prob(y).sum(1) + total


_FEW = [0.5, 1.0, 2.5]


def _probed(answer: Callable, slope, divergence, y, sigmas) -> object:
    """The answer, and what it says of flows so simple that a wrong part of it shows alone."""
    came = answer(slope, divergence, y.clone(), list(sigmas))
    if came is ...:
        return ...
    like = torch.zeros(len(y), dtype=y.dtype)
    result = tensor_like(came, like)

    def same(value: float) -> tuple[Callable, Callable]:
        return (
            lambda y, sigma: torch.full_like(y, value),
            lambda y, sigma: torch.full((len(y),), value, dtype=y.dtype),
        )

    (still, none), (moves, spreads) = same(0.0), same(1.0)
    probes = {
        "slope 0, divergence 0": (still, none),
        "slope 0, divergence 1": (still, spreads),
        "slope 1, divergence 0": (moves, none),
    }
    found = {
        name: tensor_like(answer(*flow, y.clone(), list(_FEW)), like)
        for name, flow in probes.items()
    }
    return {**found, "the flow of the case": result}


def _density_reference(slope, divergence, y, sigmas):
    return _probed(_fine, slope, divergence, y, sigmas)


def _euler_density(slope, divergence, y, sigmas):
    total = torch.zeros(len(y), dtype=y.dtype)
    for a, b in zip(sigmas[:-1], sigmas[1:], strict=True):
        total = total + (b - a) * divergence(y, a)
        y = y + (b - a) * slope(y, a)
    return _log_normal(y, sigmas[-1]) + total


def _log_normal(y: Tensor, sigma: float, dim: float | None = None) -> Tensor:
    dim = y.shape[1] if dim is None else dim
    return -y.square().sum(1) / (2 * sigma**2) - dim / 2 * math.log(2 * math.pi * sigma**2)


def _density_with(
    *,
    prior: Callable = lambda y, before, sigmas: _log_normal(y, sigmas[-1]),
    join: Callable = lambda prior, gained: prior + gained,
    sigmas_of: Callable = lambda sigmas: sigmas,
    weigh: Callable = lambda here, there, h: h * (here + there) / 2,
    moved: Callable = lambda y, ahead, look: ahead,
    where: Callable = lambda y, ahead: (y, ahead),
) -> Callable:
    """The answer with something changed."""

    def answer(slope, divergence, y, sigmas):
        begin, gained = y, torch.zeros(len(y), dtype=y.dtype)
        sigmas = sigmas_of(sigmas)
        for a, b in zip(sigmas[:-1], sigmas[1:], strict=True):
            h, first = b - a, slope(y, a)
            look = y + h * first
            ahead = moved(y, y + h * (first + slope(look, b)) / 2, look)
            places = where(y, ahead)
            gained = gained + weigh(divergence(places[0], a), divergence(places[1], b), h)
            y = ahead
        return join(prior(y, begin, sigmas), gained)

    return answer


def _both_at_once(slope, divergence, y, sigmas):
    """Heun's method for y and the integral together: the second divergence is where Euler's step
    ends."""
    logp = 0.0
    for i in range(len(sigmas) - 1):
        a, b = sigmas[i], sigmas[i + 1]
        d1, g1 = slope(y, a), divergence(y, a)
        look = y + (b - a) * d1
        d2, g2 = slope(look, b), divergence(look, b)
        y, logp = y + (b - a) * (d1 + d2) / 2, logp + (b - a) * (g1 + g2) / 2
    n = torch.distributions.MultivariateNormal(
        torch.zeros(y.shape[1], dtype=y.dtype), sigmas[-1] ** 2 * torch.eye(y.shape[1]).to(y)
    )
    return n.log_prob(y) + logp


log_density = Exercise(
    "lesson09.log_density",
    "The log density of a point",
    difficulty=3,
    minutes=8,
    hints=(
        "Walk up: for each pair of neighbors in `sigmas` take Heun's step for y, as before, but "
        "with a stride that is positive.",
        "Beside it add up stride times the mean of the two divergences, where the step begins and "
        "where it ends.",
        "At the top add log N(y; 0, sigma_max^2 I) = -|y|^2 / (2 sigma_max^2) - D/2 log(2 pi "
        "sigma_max^2).",
    ),
    model_answer=_log_density,
    cases=_density_cases,
    use=_probed,
    reference=_density_reference,
    rtol=0.0,
    atol=5e-4,
    scale=lambda log_p: log_p / 10,  # 0.005 nats: second order is nearer by far, first is not
    mistakes=(
        Mistake(
            "no divergence",
            _density_with(join=lambda prior, gained: prior),
            "You return the density of the noise that the point becomes. How much the flow has "
            "stretched space on the way is missing: add the integral of the divergence.",
        ),
        Mistake(
            "divergence subtracted",
            _density_with(join=lambda prior, gained: prior - gained),
            "The integral has the wrong sign. Upwards the flow spreads the points apart and their "
            "density falls, so the density at the bottom is *higher* than at the top.",
        ),
        Mistake(
            "integral alone",
            _density_with(join=lambda prior, gained: gained),
            "This is the integral of the divergence alone. Add the log density of the noise at the "
            "top.",
        ),
        Mistake(
            "noise where it began",
            _density_with(prior=lambda y, begin, sigmas: _log_normal(begin, sigmas[-1])),
            "You ask the density of the noise at the point where the walk began. Ask at the one "
            "where it ended.",
        ),
        Mistake(
            "standard normal",
            _density_with(prior=lambda y, begin, sigmas: _log_normal(y, 1.0)),
            "At the top y is noise of standard deviation sigma_max, not 1.",
        ),
        Mistake(
            "sigma for its square",
            _density_with(prior=lambda y, begin, sigmas: _log_normal(y, math.sqrt(sigmas[-1]))),
            "You took sigma_max for the variance of the noise. It is the standard deviation.",
        ),
        Mistake(
            "constant left out",
            _density_with(
                prior=lambda y, begin, sigmas: -y.square().sum(1) / (2 * sigmas[-1] ** 2)
            ),
            "Without its constant, D/2 log(2 pi sigma_max^2), the bell curve at the top is no "
            "density.",
        ),
        Mistake(
            "sigma not in the constant",
            _density_with(
                prior=lambda y, begin, sigmas: (
                    -y.square().sum(1) / (2 * sigmas[-1] ** 2)
                    - y.shape[1] / 2 * math.log(2 * math.pi)
                )
            ),
            "The constant of your bell curve is that of a standard deviation of 1: sigma_max is "
            "missing in it.",
        ),
        Mistake(
            "sigma not squared in the constant",
            _density_with(
                prior=lambda y, begin, sigmas: (
                    _log_normal(y, sigmas[-1]) + y.shape[1] / 2 * math.log(sigmas[-1])
                )
            ),
            "The constant of your bell curve has log(2 pi sigma_max). It is log(2 pi "
            "sigma_max^2), with the variance.",
        ),
        Mistake(
            "constant of one dimension",
            _density_with(prior=lambda y, begin, sigmas: _log_normal(y, sigmas[-1], 1)),
            "The constant of your bell curve is that of one dimension, whatever D is. Each of the "
            "D dimensions, `y.shape[1]`, adds one half log(2 pi sigma_max^2).",
        ),
        Mistake(
            "constant of two dimensions",
            _density_with(prior=lambda y, begin, sigmas: _log_normal(y, sigmas[-1], 2)),
            "The constant of your bell curve is that of two dimensions, whatever D is. D is "
            "`y.shape[1]`.",
        ),
        Mistake(
            "constant of the batch",
            _density_with(prior=lambda y, begin, sigmas: _log_normal(y, sigmas[-1], len(y))),
            "The constant of your bell curve counts samples. D is `y.shape[1]`, not `len(y)`.",
        ),
        Mistake(
            "constant without its sign",
            _density_with(
                prior=lambda y, begin, sigmas: (
                    -_log_normal(y, sigmas[-1]) - y.square().sum(1) / sigmas[-1] ** 2
                )
            ),
            "The constant of your bell curve has the wrong sign: the wider it is, the lower it is.",
        ),
        Mistake(
            "square not negative",
            _density_with(
                prior=lambda y, begin, sigmas: (
                    _log_normal(y, sigmas[-1]) + y.square().sum(1) / sigmas[-1] ** 2
                )
            ),
            "Your bell curve grows with the distance from 0: its square has the wrong sign.",
        ),
        Mistake(
            "not halved",
            _density_with(
                prior=lambda y, begin, sigmas: (
                    _log_normal(y, sigmas[-1]) - y.square().sum(1) / (2 * sigmas[-1] ** 2)
                )
            ),
            "In your bell curve the square is not divided by 2: exp(-y^2 / (2 sigma^2)).",
        ),
        Mistake(
            "point held still",
            _density_with(moved=lambda y, ahead, look: y),
            "Your y does not move: the divergence must be taken along the path.",
        ),
        Mistake(
            "Euler",
            _euler_density,
            "Right in its idea, but of first order: take Heun's step for y, and the mean of the "
            "divergences at both ends of a stride.",
        ),
        Mistake(
            "Euler for y alone",
            _density_with(moved=lambda y, ahead, look: look),
            "The mean of both divergences is there, but y moves by Euler's step. Take the mean of "
            "the two slopes as well.",
        ),
        Mistake(
            "left end only",
            _density_with(weigh=lambda here, there, h: h * here),
            "y is right, but you take the divergence where a stride begins only. Take the mean of "
            "both ends, as for the slopes.",
        ),
        Mistake(
            "right end only",
            _density_with(weigh=lambda here, there, h: h * there),
            "y is right, but you take the divergence where a stride ends only. Take the mean of "
            "both ends, as for the slopes.",
        ),
        Mistake(
            "both at the old place",
            _density_with(where=lambda y, ahead: (y, y)),
            "Both divergences are taken where the stride begins. The second one belongs to the "
            "place where it ends.",
        ),
        Mistake(
            "both at the new place",
            _density_with(where=lambda y, ahead: (ahead, ahead)),
            "Both divergences are taken where the stride ends. Did y move before you asked for the "
            "first one?",
        ),
        Mistake(
            "sum of both ends",
            _density_with(weigh=lambda here, there, h: h * (here + there)),
            "You add the divergences at both ends of a stride without taking their mean, so the "
            "integral comes out twice as large.",
        ),
        Mistake(
            "no stride",
            _density_with(weigh=lambda here, there, h: (here + there) / 2),
            "The divergences are added up without the stride in sigma. An integral is a sum of "
            "heights times widths.",
        ),
        Mistake(
            "downwards",
            _density_with(
                sigmas_of=lambda sigmas: sigmas[::-1],
                prior=lambda y, begin, sigmas: _log_normal(y, sigmas[0]),
            ),
            "You walk from heavy noise to little. A point of data has to be walked *up*, to where "
            "its density is known.",
        ),
        Mistake(
            "no logarithm",
            _density_with(join=lambda prior, gained: (prior + gained).exp()),
            "This is the density itself. Return its logarithm: in many dimensions the density is "
            "too small, or too large, for a computer.",
        ),
        Mistake(
            "negative",
            _density_with(join=lambda prior, gained: -prior - gained),
            "This is the negative log density, a loss. Return the log density.",
        ),
        Mistake(
            "in bits",
            _density_with(join=lambda prior, gained: (prior + gained) / math.log(2)),
            "This is the log density in bits, by the logarithm to base 2. Here nats are asked "
            "for: leave the natural logarithm as it is.",
        ),
    ),
    alternatives=(_both_at_once, _fine),
    passed="You can ask a diffusion model how likely a picture is.",
)


# --- questions ------------------------------------------------------------------------------------

four_times = Number(
    "lesson09.four_times",
    "Four times as many",
    difficulty=1,
    minutes=1,
    hints=("Second order: the error is proportional to the stride squared.",),
    value=16.0,
    rtol=1e-6,
    mistakes=(
        Mistake("first order", 4.0, "That is what Euler's method gains: its order is 1."),
        Mistake("twice", 8.0, "2 x 4 is not 4 squared. Each factor counts with the power 2."),
        Mistake("powers of two", 2.0, "The order is 2; the error falls much more than that."),
        Mistake("one sixteenth", 1 / 16, "Turn it around: how many times *smaller* is the error?"),
    ),
    why="Four times as many evaluations, a quarter of the stride, and 4 squared is 16.",
)

heun_asks = Number(
    "lesson09.heun_asks",
    "What ten steps of Heun cost",
    difficulty=1,
    minutes=1,
    hints=("How often does one step ask? And the last one, to sigma = 0?",),
    value=19.0,
    rtol=1e-6,
    mistakes=(
        Mistake("one a step", 10.0, "Each step asks twice: where it begins and where it ends."),
        Mistake("the last one too", 20.0, "Nearly. The last step, to sigma = 0, asks only once."),
        Mistake(
            "the first one left out",
            18.0,
            "All steps but the last ask twice, and the last asks once: it is not left out.",
        ),
        Mistake(
            "end kept",
            11.0,
            "The answer at the end of a step is asked at another place than "
            "where the next begins, so it cannot be used again.",
        ),
    ),
    why="9 steps ask twice, the last, to sigma = 0, asks once: 2 x 10 - 1.",
)

perfect_solver = Choice(
    "lesson09.perfect_solver",
    "A perfect solver",
    difficulty=2,
    minutes=1,
    hints=("What does a solver solve, and who has written the equation?",),
    right="c",
    options={
        "a": "DDIM with 1000 steps has next to no error of its own left, and it is not at the "
        "floor.",
        "b": "If the model is exact, the ODE ends on the data's density just as the walk with dice "
        "does.",
        "c": "Right. The solver follows the arrows of the network. Where these are a little wrong, "
        "it arrives, exactly, at the wrong place.",
        "d": "The solver's error falls to zero; the distance stops where the error of the network "
        "is left.",
    },
)

bits = Number(
    "lesson09.bits",
    "Bits per dimension",
    difficulty=2,
    minutes=2,
    hints=(
        "First nats into bits: divide by log 2. Then share them among the 784 pixels.",
        "A gray level is a box of width 2/256 = 2^-7: its probability is the density times that, "
        "and -log2 of 2^-7 is 7.",
    ),
    value=4.0,
    rtol=5e-3,
    mistakes=(
        Mistake(
            "no box",
            -3.0,
            "That is the density's share alone. The width of a gray level, 2^-7, adds 7 bits.",
        ),
        Mistake(
            "sign",
            10.0,
            "A high density *saves* bits: their number is minus log2 of the probability.",
        ),
        Mistake(
            "no box, no sign",
            3.0,
            "That is the density's share, which *saves* bits. The width of a gray level, 2^-7, "
            "costs 7 of them.",
        ),
        Mistake("nats", 4.92, "Still in nats: divide by log 2 to get bits."),
        Mistake(
            "levels without the range",
            5.0,
            "256 levels share the range from -1 to 1, so a box is 2/256 wide, not 1/256.",
        ),
        Mistake("all pixels", 3136.0, "This is the whole picture. Divide by its 784 pixels."),
    ),
    why="-1630 / (784 x 0.693) = -3 bits from the density, and 7 for the width of a gray level.",
)
