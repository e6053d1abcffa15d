"""Walks along a flow, from noise back to data: Euler's method and Heun's."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._typing import States, VelocityModel
from tutorial_lib._validate import InvalidTypeError, InvalidValueError
from tutorial_lib.samplers.walk import check_start


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

    def step(x: Tensor, time: float, reached: float) -> tuple[Tensor, Tensor]:
        velocity = ask(model, x, time)
        return velocity, x + (reached - time) * velocity

    return _walk(step, *_start(model, x, times))


def heun(model: VelocityModel, x: States, times: Sequence[float] | Tensor) -> Iterator[FlowStep]:
    """Heun's method, of order 2: each step again, with the mean of the velocities at both its ends.

    The last step, to time 0, is Euler's, as in ``samplers.heun``, for another reason. There the
    slope divides by sigma = 0. The velocity at time 0 is finite, -x, whatever the data; but where
    data are single points, or images, it jumps there. Just above time 0 it points from x to the one
    x_0 that x came from, and so takes the rest of the noise away. At time 0 it is a mean that knows
    nothing of that noise: half of it would stay. N steps ask the model 2 N - 1 times.

    Args:
        model: predicts the velocity.
        x: the state at ``times[0]``, (B, ...), float32 or float64; standard normal noise if that
            time is 1.
        times: fall strictly within [0, 1], at least two of them; they must reach 0 for the walk to
            end on clean data.

    Yields:
        ``FlowStep`` at times[1], times[2], ...; ``velocity`` is the first of the two answers.

    Raises:
        TypeError, ValueError: as ``euler``.
    """

    def step(x: Tensor, time: float, reached: float) -> tuple[Tensor, Tensor]:
        h = reached - time
        velocity = slope = ask(model, x, time)
        if reached > 0:
            slope = (velocity + ask(model, x + h * velocity, reached)) / 2
        return velocity, x + h * slope

    return _walk(step, *_start(model, x, times))


def _start(model: object, x: object, times: Sequence[float] | Tensor) -> tuple[Tensor, list[float]]:
    """``x`` and ``times`` as a list, if a walk can begin with them."""
    _validate.function("model", model)
    return check_start(x, "x"), check_times(times)


def _walk(
    step: Callable[[Tensor, float, float], tuple[Tensor, Tensor]], x: Tensor, times: list[float]
) -> Iterator[FlowStep]:
    """Walks along ``times``: ``step(x, time, reached)`` gives the velocity and the new state."""
    for time, reached in pairwise(times):
        with torch.no_grad():  # not around the yield: it would reach the caller's code
            velocity, after = step(x, time, reached)
            x0_hat = x - time * velocity
            x = after
        yield FlowStep(reached, x, velocity, x0_hat)


def ask(model: VelocityModel, x: Tensor, time: float) -> Tensor:
    """The velocity of the whole batch at one time, in the dtype of ``x``.

    Raises:
        TypeError, ValueError: it is not finite, or has another shape.
    """
    return answered(model(x, x.new_full((len(x),), time)), x, f" at time {time:g}")


def check_times(times: Sequence[float] | Tensor) -> list[float]:
    """``times`` as a list, if they are numbers that fall strictly within [0, 1]."""
    entries = _validate.held("times", times).tolist() if isinstance(times, Tensor) else times
    if not isinstance(entries, Iterable):
        got = _validate.describe(times)
        raise InvalidTypeError(f"times must be a falling sequence of numbers, got {got}")
    walk = [_validate.number("an entry of times", time, low=0.0, high=1.0) for time in entries]
    if len(walk) < 2:
        raise InvalidValueError(f"times must hold at least a start and an end, got {walk}")
    for before, after in pairwise(walk):
        if after >= before:
            raise InvalidValueError(f"times must fall strictly, got {before:g} then {after:g}")
    return walk


def answered(answer: object, x: Tensor, where: str = "") -> Tensor:
    """What a model said about ``x``, in its dtype; an error unless it has that shape and is finite.

    Without the check numbers would broadcast into wrong ones unnoticed.
    """
    return _validate.same_shape(f"the answer of model{where}", answer, "x", x).to(x.dtype)
