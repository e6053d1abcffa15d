"""The straight path from data to noise, its velocity, and both ends seen from any point."""

import torch
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._typing import PerSample, States
from tutorial_lib._validate import InvalidValueError


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
    share = factors(time, x0)
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
    return (x - factors(time, x) * velocity).to(x.dtype)


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
    return (x + (1 - factors(time, x)) * velocity).to(x.dtype)


def check_time(time: object, batch: int) -> Tensor:
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


def factors(time: Tensor, like: Tensor) -> Tensor:
    """``time`` (B,) shaped to multiply ``like``, (B, 1, ...), in float32 or wider."""
    wide = torch.promote_types(like.dtype, torch.float32)
    return check_time(time, len(like)).to(like.device, wide).reshape(-1, *[1] * (like.ndim - 1))
