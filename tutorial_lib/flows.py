"""Flow matching: continuous time, straight paths, and how both relate to diffusion.

A flow lives in continuous time from 0 (clean data) to 1 (noise). Each sample moves along the
straight path x = (1 - time) x_0 + time eps, whose velocity is eps - x_0. The model predicts the
mean velocity of all paths through x; following it from noise back to data draws samples (Lipman et
al. 2022, "Flow matching"; Liu et al. 2022, "Rectified flow"; Albergo & Vanden-Eijnden 2022,
"Stochastic interpolants"). These papers differ in the direction of time; here 1 is noise, so that
time grows with t.

A flow and a denoiser are the same model in other words. Divided by signal_rate + noise_rate, x_t
of a ``NoiseSchedule`` lies on the straight path at

    time = noise_rate / (signal_rate + noise_rate),

for the same x_0 and eps, so eps_hat and velocity determine each other (Gao et al. 2024, "Diffusion
meets flow matching"). ``times_of``, ``denoiser_from_flow`` and ``flow_from_denoiser`` convert.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._typing import EpsModel, PerSample, States, Steps, VelocityModel
from tutorial_lib._validate import InvalidTypeError, InvalidValueError
from tutorial_lib.forward import at_steps
from tutorial_lib.samplers.walk import check_start
from tutorial_lib.schedules import NoiseSchedule, on_device

_TOLERANCE = 4  # rounding errors by which a time may miss a step's time


def straight_path(x0: States, time: PerSample, eps: States) -> States:
    """The point at ``time`` on the straight path from data to noise: (1 - time) x_0 + time eps.

    Lipman et al. 2022, eq. 22 with sigma_min = 0; Liu et al. 2022, eq. 1.

    Args:
        x0: clean data, (B, ...).
        time: floating point (B,), each in [0, 1]; 0 gives x0, 1 gives eps.
        eps: standard normal noise of the shape of ``x0``.

    Returns:
        x, with the shape and dtype of ``x0``.

    Raises:
        TypeError, ValueError: a tensor of the wrong type or shape or not finite, a time outside
            [0, 1].
    """
    _validate.batch("x0", x0)
    _validate.same_shape("eps", eps, "x0", x0)
    share = _factors(time, x0)
    return ((1 - share) * x0 + share * eps).to(x0.dtype)


def straight_velocity(x0: States, eps: States) -> States:
    """The velocity of the straight path, eps - x_0, the same at all times.

    It is the target of training: the model that minimizes the mean of (model(x, time) - (eps -
    x_0))^2 is E[eps - x_0 given x].

    Args:
        x0: clean data, (B, ...).
        eps: standard normal noise of the shape of ``x0``.

    Raises:
        TypeError, ValueError: a tensor of the wrong type or shape or not finite.
    """
    _validate.batch("x0", x0)
    return _validate.same_shape("eps", eps, "x0", x0) - x0


def predict_x0(x: States, time: PerSample, velocity: States) -> States:
    """Where the straight path through ``x`` starts: x_0 = x - time velocity.

    Args:
        x: states, (B, ...).
        time: floating point (B,), each in [0, 1].
        velocity: of the shape of ``x``.

    Raises:
        TypeError, ValueError: a tensor of the wrong type or shape or not finite, a time outside
            [0, 1].
    """
    _validate.batch("x", x)
    _validate.same_shape("velocity", velocity, "x", x)
    return (x - _factors(time, x) * velocity).to(x.dtype)


def predict_eps(x: States, time: PerSample, velocity: States) -> States:
    """Where the straight path through ``x`` ends: eps = x + (1 - time) velocity.

    Args:
        x: states, (B, ...).
        time: floating point (B,), each in [0, 1].
        velocity: of the shape of ``x``.

    Raises:
        TypeError, ValueError: a tensor of the wrong type or shape or not finite, a time outside
            [0, 1].
    """
    _validate.batch("x", x)
    _validate.same_shape("velocity", velocity, "x", x)
    return (x + (1 - _factors(time, x)) * velocity).to(x.dtype)


def times_of(schedule: NoiseSchedule) -> Tensor:
    """The time of each step of a schedule: noise_rate / (signal_rate + noise_rate).

    Returns:
        (T + 1,), rising from 0 at t = 0 to just below 1 at t = T; 0.5 is where data and noise
        weigh the same.
    """
    _validate.instance("schedule", schedule, NoiseSchedule)
    return schedule.noise_rate / (schedule.signal_rate + schedule.noise_rate)


def schedule_through(times: Sequence[float] | Tensor) -> NoiseSchedule:
    """The schedule whose steps have these times, so that a flow can be walked by any sampler.

    ``denoiser_from_flow(model, schedule_through(times))`` is a denoiser that is asked at exactly
    these times, and an oracle made with this schedule is exact there.

    Args:
        times: fall strictly from below 1 to 0, as for ``euler``; T + 1 of them. The largest leaves
            some of the data: at time 1 a schedule's x_t would hold none.

    Raises:
        TypeError, ValueError: ``times`` are not such numbers.
    """
    walk = _check_times(times)
    if walk[0] == 1:
        raise InvalidValueError(
            "times must start below 1 (a schedule keeps some of the data), got 1"
        )
    if walk[-1] != 0:
        raise InvalidValueError(f"times must end at 0 (clean data), got {walk[-1]:g} at the end")
    time = torch.tensor(walk[::-1], dtype=torch.float64)
    return NoiseSchedule((1 - time) ** 2 / ((1 - time) ** 2 + time**2))


def denoiser_from_flow(model: VelocityModel, schedule: NoiseSchedule) -> EpsModel:
    """The denoiser that a flow is: samplers, guidance and losses then take it.

    eps_hat = x + (1 - time) velocity with x = x_t / (signal_rate + noise_rate). Exact at each step.

    Args:
        model: called as ``model(x, time)`` with ``time`` in float32, or float64 if ``x_t`` is. If
            the denoiser is called with a condition as its third argument, the model gets it too.
        schedule: defines what step t means.

    Returns:
        ``eps_hat = denoiser(x_t, t)``, in the dtype of ``x_t``, for t in 0..T.

    Raises:
        TypeError, ValueError: when called: ``x_t`` or ``t`` of the wrong type, shape or range, or
            an answer of the model that is not finite or has another shape.
    """
    _validate.function("model", model)
    times = times_of(schedule)
    signal, total = schedule.signal_rate, schedule.signal_rate + schedule.noise_rate

    def denoiser(x_t: States, t: Steps, /, *condition: Tensor) -> States:
        _validate.batch("x_t", x_t)
        _validate.steps("t", t, batch=len(x_t), low=0, high=schedule.num_steps)
        x = (x_t / at_steps(total, t, x_t)).to(x_t.dtype)
        time = at_steps(times, t, x_t).flatten()
        velocity = _answer(model(x, time, *condition), x)
        return (x + at_steps(signal / total, t, x_t) * velocity).to(x_t.dtype)

    return denoiser


def flow_from_denoiser(model: EpsModel, schedule: NoiseSchedule) -> VelocityModel:
    """The flow that a denoiser is, at the times of its schedule.

    velocity = (eps_hat - x) / (1 - time), where eps_hat is asked at x_t = x (signal_rate +
    noise_rate). A denoiser knows steps only, so other times than ``times_of(schedule)[1:]`` are
    refused rather than rounded. ``euler`` then walks along

        times_of(schedule)[timesteps]

    for any falling ``timesteps`` such as 1000, 980, ..., 0. For data known exactly, take an oracle
    of ``schedule_through(times)`` instead, which is exact at any times. The division makes an error
    of ``eps_hat`` larger, at the last step of the linear schedule 158 times.

    Args:
        model: called as ``model(x_t, t)``. If the flow is called with a condition as its third
            argument, the model gets it too.
        schedule: the schedule that the model was trained for.

    Returns:
        ``velocity = flow(x, time)``, in the dtype of ``x``; ``time`` is float32 or float64 (B,).

    Raises:
        ValueError: the schedule's steps are too close together to tell them apart by their times.
        TypeError, ValueError: when called: ``x`` or ``time`` of the wrong type or shape, a time
            that no step has, or an answer of the model that is not finite or has another shape.
    """
    _validate.function("model", model)
    times = times_of(schedule)
    signal, total = schedule.signal_rate, schedule.signal_rate + schedule.noise_rate
    if (times.diff() <= 0).any():
        t = int((times.diff() <= 0).nonzero()[0]) + 1
        raise InvalidValueError(
            f"schedule must have a time of its own for each step, got none at t = {t}"
        )

    def flow(x: States, time: PerSample, /, *condition: Tensor) -> States:
        _validate.batch("x", x)
        t = _steps_at(times, _check_time(time, len(x)))
        x_t = (x * at_steps(total, t, x)).to(x.dtype)
        eps_hat = _answer(model(x_t, t, *condition), x)
        return ((eps_hat - x) / at_steps(signal / total, t, x)).to(x.dtype)

    return flow


class FlowStep(NamedTuple):
    """One step of a walk along a flow.

    Attributes:
        time: the time just reached, from below 1 down to 0.
        x: the state there, (B, ...); the sample itself at time 0.
        velocity: what the model predicted at the state before, (B, ...).
        x0_hat: the clean data that this velocity implies, (B, ...).
    """

    time: float
    x: Tensor
    velocity: Tensor
    x0_hat: Tensor


def euler(model: VelocityModel, x: States, times: Sequence[float] | Tensor) -> Iterator[FlowStep]:
    """Euler's method from noise back to data: x at s = x + (s - time) velocity.

    For a flow made from a denoiser this is DDIM with eta = 0. The sample is the state of the last
    step: ``*_, end = euler(model, noise, torch.linspace(1, 0, 51))``, then ``end.x``.

    Args:
        model: predicts the velocity.
        x: the state at ``times[0]``, (B, ...), float32 or float64; standard normal noise if that
            time is 1.
        times: fall strictly within [0, 1], at least two of them; they must reach 0 for the walk to
            end on clean data.

    Yields:
        ``FlowStep`` at times[1], times[2], ...

    Raises:
        TypeError, ValueError: ``x`` is not a finite batch in float32 or float64, ``times`` do not
            fall or leave [0, 1]; during the walk, an answer of the model that is not finite or has
            another shape.
    """
    _validate.function("model", model)
    check_start(x, "x")
    return _walk(model, x, _check_times(times))


def _walk(model: VelocityModel, x: Tensor, times: list[float]) -> Iterator[FlowStep]:
    for time, reached in zip(times[:-1], times[1:], strict=True):
        with torch.no_grad():  # not around the yield: it would reach the caller's code
            velocity = _answer(model(x, x.new_full((len(x),), time)), x, f" at time {time:g}")
            x0_hat = x - time * velocity
            x = x + (reached - time) * velocity
        yield FlowStep(reached, x, velocity, x0_hat)


def _answer(answer: object, x: Tensor, where: str = "") -> Tensor:
    """What a model said about ``x``, in its dtype; an error unless it has that shape and is finite.

    Without the check numbers would broadcast into wrong ones unnoticed.
    """
    return _validate.same_shape(f"the answer of model{where}", answer, "x", x).to(x.dtype)


def _check_time(time: object, batch: int) -> Tensor:
    """``time`` if it is floating point (batch,) with values in [0, 1]; else an error.

    Values are checked on the CPU only: elsewhere the check would wait for the device at each step.
    """
    times = _validate.floating("time", time)
    if times.shape != (batch,):
        shape = tuple(times.shape)
        raise InvalidValueError(
            f"time must have shape ({batch},), one time for each sample; got {shape}"
        )
    if times.device.type == "cpu" and not ((times >= 0) & (times <= 1)).all():  # NaN compares false
        wrong = times[~((times >= 0) & (times <= 1))][0]
        raise InvalidValueError(f"time must be in [0, 1], got {float(wrong):g}")
    return times


def _factors(time: Tensor, like: Tensor) -> Tensor:
    """``time`` (B,) shaped to multiply ``like``, (B, 1, ...), in float32 or wider."""
    wide = torch.promote_types(like.dtype, torch.float32)
    return _check_time(time, len(like)).to(like.device, wide).reshape(-1, *[1] * (like.ndim - 1))


def _steps_at(times: Tensor, time: Tensor) -> Tensor:
    """The step in 1..T whose time is ``time``, for each entry (B,); else an error."""
    if time.dtype not in (torch.float32, torch.float64):
        raise InvalidTypeError(f"time must be float32 or float64 to name a step, got {time.dtype}")
    grid = on_device(times, time.device)
    sought = time.to(grid.dtype)
    t = torch.bucketize(sought, (grid[1:] + grid[:-1]) / 2)  # the nearest step
    # Where times are small alpha_bar is near 1, so sqrt(1 - alpha_bar) has lost digits.
    rounding = torch.finfo(time.dtype).eps + torch.finfo(grid.dtype).eps / grid[t]
    wrong = ((grid[t] - sought).abs() > _TOLERANCE * rounding) | (t == 0)
    if wrong.any():
        got, near = float(sought[wrong][0]), float(grid[t][wrong][0])
        span = f"{float(grid[1]):.6g} to {float(grid[-1]):.6g}"
        raise InvalidValueError(
            f"time must be that of a step in 1..{len(grid) - 1} of the schedule ({span}, see "
            f"times_of); got {got:.6g}, the nearest step's is {near:.6g}"
        )
    return t


def _check_times(times: Sequence[float] | Tensor) -> list[float]:
    """``times`` as a list, if they are numbers that fall strictly within [0, 1]."""
    entries = _validate.held("times", times).tolist() if isinstance(times, Tensor) else times
    if not isinstance(entries, Iterable):
        got = _validate.describe(times)
        raise InvalidTypeError(f"times must be a falling sequence of numbers, got {got}")
    walk = [_validate.number("an entry of times", time, low=0.0, high=1.0) for time in entries]
    if len(walk) < 2:
        raise InvalidValueError(f"times must hold at least a start and an end, got {walk}")
    for before, after in zip(walk[:-1], walk[1:], strict=True):
        if after >= before:
            raise InvalidValueError(f"times must fall strictly, got {before:g} then {after:g}")
    return walk
