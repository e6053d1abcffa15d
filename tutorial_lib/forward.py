"""The forward process: adding noise to an image, step by step or in one jump."""

import torch
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._random import normal_like
from tutorial_lib._typing import Factors, States, Steps
from tutorial_lib._validate import InvalidValueError
from tutorial_lib.schedules import NoiseSchedule, on_device


def at_steps(values: Tensor, t: Steps, like: States) -> Factors:
    """``values[t]``, one number per sample, shaped to multiply ``like``: (B,) becomes (B, 1, ...).

    The values are looked up in their own precision; only the result takes the dtype of ``like``, or
    float32 if that is wider: half precision keeps few digits of a number like 0.0000491.
    """
    wide = torch.promote_types(like.dtype, torch.float32)
    picked = on_device(values, t.device).index_select(0, t).to(like.device, wide)
    return picked.reshape(-1, *[1] * (like.ndim - 1))  # (B,) -> (B, 1, 1, 1) for images


def diffuse(schedule: NoiseSchedule, x0: States, t: Steps, eps: States) -> States:
    """x_t in one jump: sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps (Ho et al. 2020, eq. 4).

    Args:
        schedule: how much of x_0 is left after t noisings.
        x0: clean data, (B, ...).
        t: int64 (B,), each in 0..T; 0 returns x0.
        eps: standard normal noise of the shape of ``x0``.

    Returns:
        x_t, with the shape and dtype of ``x0``.

    Raises:
        TypeError, ValueError: a tensor of the wrong type or shape or not finite, t out of 0..T.
    """
    _check_state(schedule, "x0", x0, t, low=0)
    _validate.same_shape("eps", eps, "x0", x0)
    signal, noise = at_steps(schedule.signal_rate, t, x0), at_steps(schedule.noise_rate, t, x0)
    return (signal * x0 + noise * eps).to(x0.dtype)


def diffuse_stepwise(
    schedule: NoiseSchedule, x0: States, t: Steps, *, generator: torch.Generator | None = None
) -> States:
    """x_t by walking the chain, with new noise at each of the t steps (Ho et al. 2020, eq. 2).

    The same distribution as ``diffuse``, at max(t) times the cost. Half precision would round most
    steps away, so the walk is computed in float32 and the result converted back.

    Args:
        schedule: gives the beta of each step.
        x0: clean data, (B, ...).
        t: int64 (B,), each in 0..T: the number of steps for each sample.
        generator: source of the noise; None means torch's default generator.

    Raises:
        TypeError, ValueError: a tensor of the wrong type or shape or not finite, t out of 0..T.
    """
    _check_state(schedule, "x0", x0, t, low=0)
    x = x0.to(torch.promote_types(x0.dtype, torch.float32), copy=True)
    keep, add = schedule.alpha.sqrt().tolist(), schedule.beta.sqrt().tolist()
    for step in range(1, int(t.max()) + 1 if len(t) else 1):
        moved = keep[step - 1] * x + add[step - 1] * normal_like(x, generator)
        still_walking = (step <= t).reshape(-1, *[1] * (x.ndim - 1))  # (B,) -> (B, 1, 1, 1)
        x = torch.where(still_walking, moved, x)
    return x.to(x0.dtype)


def predict_x0(schedule: NoiseSchedule, x_t: States, t: Steps, eps_hat: States) -> States:
    """The jump solved for x_0: (x_t - sqrt(1 - alpha_bar_t) eps_hat) / sqrt(alpha_bar_t).

    Ho et al. 2020, eq. 15. The division amplifies an error in ``eps_hat`` by noise_rate /
    signal_rate, a factor of 157 at the last step of the linear schedule.

    Args:
        schedule: the schedule that made ``x_t``.
        x_t: noisy data, (B, ...).
        t: int64 (B,), each in 0..T.
        eps_hat: the noise predicted for ``x_t``, of its shape.

    Raises:
        TypeError, ValueError: a tensor of the wrong type or shape or not finite, t out of 0..T; on
            a CPU, numbers so large that the result overflows.
    """
    _check_state(schedule, "x_t", x_t, t, low=0)
    _validate.same_shape("eps_hat", eps_hat, "x_t", x_t)
    signal, noise = at_steps(schedule.signal_rate, t, x_t), at_steps(schedule.noise_rate, t, x_t)
    x0 = ((x_t - noise * eps_hat) / signal).to(x_t.dtype)
    return _no_overflow("x_t and eps_hat", x0)


def predict_eps(schedule: NoiseSchedule, x_t: States, t: Steps, x0_hat: States) -> States:
    """The jump solved for eps: (x_t - sqrt(alpha_bar_t) x0_hat) / sqrt(1 - alpha_bar_t).

    Args:
        schedule: the schedule that made ``x_t``.
        x_t: noisy data, (B, ...).
        t: int64 (B,), each in 1..T (at 0 there is no noise to speak of).
        x0_hat: the clean data thought to be in ``x_t``, of its shape.

    Raises:
        TypeError, ValueError: a tensor of the wrong type or shape or not finite, t out of 1..T; on
            a CPU, numbers so large that the result overflows.
    """
    _check_state(schedule, "x_t", x_t, t, low=1)
    _validate.same_shape("x0_hat", x0_hat, "x_t", x_t)
    signal, noise = at_steps(schedule.signal_rate, t, x_t), at_steps(schedule.noise_rate, t, x_t)
    eps = ((x_t - signal * x0_hat) / noise).to(x_t.dtype)
    return _no_overflow("x_t and x0_hat", eps)


def posterior(schedule: NoiseSchedule, x0: States, x_t: States, t: Steps) -> tuple[States, Factors]:
    """Mean and variance of the Gaussian q(x_{t-1} given x_t, x_0) (Ho et al. 2020, eq. 6-7).

    Args:
        schedule: the schedule that made ``x_t``.
        x0: clean data, (B, ...).
        x_t: noisy data of the shape of ``x0``.
        t: int64 (B,), each in 1..T.

    Returns:
        The mean, (B, ...), and the variance, (B, 1, ...), one number per sample; it is 0 at t = 1,
        where x_{t-1} is x_0 itself. Both have the dtype of ``x0``.

    Raises:
        TypeError, ValueError: a tensor of the wrong type or shape or not finite, t out of 1..T.
    """
    _check_state(schedule, "x0", x0, t, low=1)
    _validate.same_shape("x_t", x_t, "x0", x0)
    alpha_bar, before = schedule.alpha_bar[1:], schedule.alpha_bar[:-1]
    weight_x0 = before.sqrt() * schedule.beta / (1 - alpha_bar)
    weight_x_t = schedule.alpha.sqrt() * (1 - before) / (1 - alpha_bar)
    mean = at_steps(weight_x0, t - 1, x0) * x0 + at_steps(weight_x_t, t - 1, x0) * x_t
    variance = at_steps(schedule.posterior_variance, t - 1, x0)
    return mean.to(x0.dtype), variance.to(x0.dtype)


def _no_overflow(names: str, result: Tensor) -> Tensor:
    """``result``, computed from finite numbers, if it is finite; looked at on the CPU only."""
    if not _validate.seems_finite(result.detach()) and not result.isfinite().all():
        kind = result.dtype
        raise InvalidValueError(f"{names} must be smaller: what follows from them overflows {kind}")
    return result


def _check_state(schedule: NoiseSchedule, name: str, x: object, t: object, *, low: int) -> None:
    """Raises unless ``x`` is a finite batch and ``t`` has a step in low..T for each member."""
    _validate.instance("schedule", schedule, NoiseSchedule)
    batch = _validate.batch(name, x)
    _validate.steps("t", t, batch=len(batch), low=low, high=schedule.num_steps, of=name)
