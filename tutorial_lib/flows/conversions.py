"""What time a step has, and what turns a flow into a denoiser and back."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._typing import EpsModel, PerSample, States, Steps, VelocityModel
from tutorial_lib._validate import InvalidTypeError, InvalidValueError
from tutorial_lib.flows.path import check_time
from tutorial_lib.flows.walk import answered, check_times
from tutorial_lib.forward import at_steps
from tutorial_lib.schedules import NoiseSchedule, on_device

_TOLERANCE = 4  # rounding errors by which a time may miss a step's time


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
    walk = check_times(times)
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
        velocity = answered(model(x, time, *condition), x)
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
        t = _steps_at(times, check_time(time, len(x)))
        x_t = (x * at_steps(total, t, x)).to(x.dtype)
        eps_hat = answered(model(x_t, t, *condition), x)
        return ((eps_hat - x) / at_steps(signal / total, t, x)).to(x.dtype)

    return flow


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
