"""Which steps a walk takes: evenly spaced ones, and a schedule that goes through given ones."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._typing import EpsModel, States, Steps
from tutorial_lib._validate import InvalidTypeError, InvalidValueError
from tutorial_lib.schedules import LARGEST_NUM_STEPS, NoiseSchedule

LARGEST_RHO = 1000.0
EDM_SIGMA_MAX = 80.0
"""Where Karras et al. 2022 begin (table 1): there 80 times as much noise as signal is left."""


def evenly_spaced(num_steps: int, count: int) -> list[int]:
    """``count`` strides from T down to 0: ``evenly_spaced(1000, 50)`` is 1000, 980, ..., 20, 0.

    Args:
        num_steps: T.
        count: how many steps the walk takes, in 1..T.

    Returns:
        count + 1 step numbers, the first T, the last 0, strides equal but for rounding.

    Raises:
        TypeError, ValueError: not an int, ``num_steps`` below 1, ``count`` outside 1..T.
    """
    num_steps = _validate.whole_number("num_steps", num_steps, at_least=1)
    count = _check_count(count, num_steps)
    _validate.whole_number("count", count, at_least=1, at_most=LARGEST_NUM_STEPS)
    # whole-number rounding: exact for any T, where round(i * T / count) could lean on a float
    return [(2 * num_steps * i + count) // (2 * count) for i in range(count, -1, -1)]


def karras_spaced(
    schedule: NoiseSchedule, count: int, rho: float = 7.0, sigma_max: float | None = None
) -> list[int]:
    """``count`` strides from T down to 0 that are short where there is little noise.

    Karras et al. 2022, eq. 5: sigma^(1/rho) is evenly spaced, with sigma = noise_rate /
    signal_rate, from that of T to that of step 1; then comes 0. Each sigma becomes the step whose
    own is nearest (in its logarithm), and where two would meet, the next free one.

    A schedule may end far above any sigma that matters: that of the cosine schedule of 1000 steps
    is 20,000. Half of ten steps would then be spent where nothing can be seen yet; ``sigma_max``
    begins the walk below. What is there is noise for all that data of variance 1 can tell, so a
    walk begins with standard normal noise as usual.

    Args:
        schedule: gives T, and the sigma of each step.
        count: how many steps the walk takes, in 1..T.
        rho: in [1, 1000]; the larger, the shorter the strides near clean data. 1 spaces sigma
            evenly, 1000 nearly its logarithm.
        sigma_max: where the walk begins, above 0: at the step whose sigma is nearest, or at step
            ``count`` if that is higher. None, or a sigma above that of T, means T.

    Returns:
        count + 1 step numbers that fall strictly; the first is T, or that of ``sigma_max``, and
        the last 0.

    Raises:
        TypeError, ValueError: ``count`` outside 1..T, ``rho`` outside [1, 1000], ``sigma_max`` not
            above 0.
    """
    _validate.instance("schedule", schedule, NoiseSchedule)
    num_steps = schedule.num_steps
    count = _check_count(count, num_steps)
    rho = _validate.number("rho", rho, low=1.0, high=LARGEST_RHO)
    sigma = noise_to_signal(schedule)[1:].cpu()  # of steps 1..T
    if sigma_max is not None:
        sigma_max = _validate.number("sigma_max", sigma_max, low=0.0, high=math.inf)
        if sigma_max == 0:
            raise InvalidValueError("sigma_max must be above 0, got 0")
        nearest = int((sigma.log() - math.log(sigma_max)).abs().argmin()) + 1
        num_steps = max(nearest, count)
        sigma = sigma[:num_steps]
    fractions = torch.linspace(0, 1, count, dtype=sigma.dtype)
    log_first, log_last = sigma[-1].log(), sigma[0].log()
    ends = torch.exp(torch.stack([log_first, log_last]) / rho)
    wanted = rho * torch.lerp(ends[0], ends[1], fractions).log()
    edges = (sigma[1:].log() + sigma[:-1].log()) / 2
    walk = [num_steps, *(torch.searchsorted(edges, wanted) + 1).tolist()[1:], 0]
    for place in range(1, count):  # each must leave a step for each that follows
        walk[place] = max(count - place, min(walk[place], walk[place - 1] - 1))
    return walk


def noise_to_signal(schedule: NoiseSchedule) -> Tensor:
    """sigma = noise_rate / signal_rate, (T+1,): the noise in y = x / signal_rate."""
    return schedule.noise_rate / schedule.signal_rate


def respace(
    model: EpsModel, schedule: NoiseSchedule, timesteps: Sequence[int] | Tensor
) -> tuple[EpsModel, NoiseSchedule]:
    """A shorter schedule through the given steps, and the model seen through it.

    Step k of the new schedule is the k-th of the given steps from the bottom, so that ``ddpm`` can
    walk few, larger steps with a model trained on many (Nichol & Dhariwal 2021, sec. 4).

    Args:
        model: a model trained on ``schedule``.
        schedule: the schedule to shorten.
        timesteps: falls strictly within T..0 and ends at 0.

    Raises:
        TypeError, ValueError: ``timesteps`` not falling, outside 0..T or not ending at 0.
    """
    _validate.function("model", model)
    _validate.instance("schedule", schedule, NoiseSchedule)
    walk = check_timesteps(timesteps, schedule.num_steps)
    if walk[-1] != 0:
        raise InvalidValueError(f"timesteps must end at 0 (clean data), got {walk[-1]} at the end")
    rising = torch.tensor(walk[::-1], device=schedule.alpha_bar.device)

    def shortened(x_t: States, k: Steps, /) -> States:
        return model(x_t, rising.to(k.device)[k])

    return shortened, NoiseSchedule(schedule.alpha_bar[rising])


def _check_count(count: object, num_steps: int) -> int:
    """``count`` if it is a whole number of steps in 1..num_steps."""
    count = _validate.whole_number("count", count, at_least=1)
    if count > num_steps:
        raise InvalidValueError(f"count must be at most num_steps = {num_steps}, got {count}")
    return count


def check_timesteps(timesteps: Sequence[int] | Tensor | None, num_steps: int) -> list[int]:
    """``timesteps`` as a list, if they are ints that fall strictly within num_steps..0."""
    entries: object = timesteps
    if isinstance(timesteps, Tensor):
        entries = _validate.held("timesteps", timesteps).tolist()
    if not isinstance(entries, Iterable):
        got = _validate.describe(timesteps)
        raise InvalidTypeError(f"timesteps must be a falling sequence of ints, got {got}")
    walk = [_validate.whole_number("an entry of timesteps", t, at_least=0) for t in entries]
    if len(walk) < 2:
        raise InvalidValueError(f"timesteps must hold at least a start and an end, got {walk}")
    if walk[0] > num_steps:
        raise InvalidValueError(f"timesteps must lie in 0..{num_steps}, got {walk[0]}")
    for before, after in zip(walk[:-1], walk[1:], strict=True):
        if after >= before:
            raise InvalidValueError(f"timesteps must fall strictly, got {before} then {after}")
    return walk


def _evenly(schedule: NoiseSchedule, count: int) -> list[int]:
    return evenly_spaced(schedule.num_steps, count)


def _edm(schedule: NoiseSchedule, count: int) -> list[int]:
    return karras_spaced(schedule, count, sigma_max=EDM_SIGMA_MAX)


SPACINGS: dict[str, Callable[[NoiseSchedule, int], list[int]]] = {
    "even": _evenly,
    "karras": karras_spaced,
    "edm": _edm,
}
"""How the steps of a walk can be spaced, by name, each called as ``spacing(schedule, count)``."""
