"""Samplers: walks from noise back to data, one algorithm a function.

A sampler is a generator. It checks its arguments when called, then yields a ``SampleStep`` for each
step that it takes: the step just reached, the state there, and what the model said on the way.
Plots, explorers and progress bars read that one stream; ``last`` runs it to its end.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._random import Streams, normal_like
from tutorial_lib._typing import EpsModel, States, Steps
from tutorial_lib.schedules import NoiseSchedule


class SampleStep(NamedTuple):
    """One step of a walk.

    Attributes:
        t: the step just reached, from T - 1 or less down to 0.
        x_t: the state there, (B, ...); the sample itself at t = 0.
        eps_hat: the noise that the model saw in the state before, (B, ...).
        x0_hat: the clean data that this noise implies, (B, ...).
    """

    t: int
    x_t: Tensor
    eps_hat: Tensor
    x0_hat: Tensor


def ddpm(
    model: EpsModel,
    schedule: NoiseSchedule,
    x_T: States,
    *,
    variance: str = "posterior",
    generator: torch.Generator | Streams | None = None,
) -> Iterator[SampleStep]:
    """Ancestral sampling over every step T..1 (Ho et al. 2020, algorithm 2).

    x_{t-1} = (x_t - beta_t / sqrt(1 - alpha_bar_t) eps_hat) / sqrt(alpha_t) + sigma_t z, with
    z = 0 at t = 1. For fewer steps shorten the schedule first, see ``respace``.

    Args:
        model: says which noise is in x_t.
        schedule: the schedule that the model was trained for.
        x_T: where the walk starts: standard normal noise, (B, ...).
        variance: sigma_t^2, "posterior" for the posterior variance (Ho eq. 7) or "beta" for beta_t.
        generator: where z comes from: a torch generator, or a stream a sample (``sampling``); None
            means torch's default generator.

    Yields:
        ``SampleStep`` at t = T-1, ..., 0.

    Raises:
        TypeError, ValueError: ``x_T`` no finite batch in float32 or float64, another word for
            ``variance``; during the walk, a model that answers in another shape or with NaN.
    """
    _validate.one_of("variance", variance, ("posterior", "beta"))
    _check_start(x_T)
    sigma_squared = schedule.posterior_variance if variance == "posterior" else schedule.beta
    return _walk_ddpm(model, schedule, x_T, sigma_squared.sqrt().tolist(), generator)


def _walk_ddpm(
    model: EpsModel,
    schedule: NoiseSchedule,
    x: Tensor,
    sigma: list[float],
    generator: torch.Generator | Streams | None,
) -> Iterator[SampleStep]:
    signal, noise = schedule.signal_rate.tolist(), schedule.noise_rate.tolist()
    alpha, beta = schedule.alpha.tolist(), schedule.beta.tolist()
    for t in range(schedule.num_steps, 0, -1):
        with torch.no_grad():  # not around the yield: it would reach the caller's code
            eps_hat = _ask(model, x, t)
            x0_hat = (x - noise[t] * eps_hat) / signal[t]
            mean = (x - beta[t - 1] / noise[t] * eps_hat) / math.sqrt(alpha[t - 1])
            x = mean + sigma[t - 1] * normal_like(x, generator) if t > 1 else mean
            _check_answer(eps_hat, t, x)
        yield SampleStep(t - 1, x, eps_hat, x0_hat)


def ddim(
    model: EpsModel,
    schedule: NoiseSchedule,
    x_T: States,
    timesteps: Sequence[int] | Tensor,
    *,
    eta: float = 0.0,
    generator: torch.Generator | Streams | None = None,
) -> Iterator[SampleStep]:
    """A walk down any falling sequence of steps (Song, Meng & Ermon 2021, eq. 12 and 16).

    From t to s < t: x_s = sqrt(abar_s) x0_hat + sqrt(1 - abar_s - sigma^2) eps_hat + sigma z with
    sigma = eta sqrt((1 - abar_s) / (1 - abar_t) (1 - abar_t / abar_s)).

    Args:
        model: says which noise is in x_t.
        schedule: the schedule that the model was trained for.
        x_T: the state at ``timesteps[0]``, (B, ...): noise where that is T.
        timesteps: falls strictly within T..0, for example 1000, 980, ..., 20, 0; it must reach 0
            for the walk to end on clean data. See ``evenly_spaced``.
        eta: 0 for the deterministic walk, 1 for the noise of DDPM; in [0, 1].
        generator: where z comes from: a torch generator, or a stream a sample (``sampling``); None
            means torch's default generator. Unused at eta = 0.

    Yields:
        ``SampleStep`` at timesteps[1], timesteps[2], ...

    Raises:
        TypeError, ValueError: ``x_T`` no finite batch in float32 or float64, ``timesteps`` not
            falling or outside 0..T, ``eta`` outside [0, 1]; during the walk, a model that answers
            in another shape or with NaN.
    """
    eta = _validate.number("eta", eta, low=0.0, high=1.0)
    _check_start(x_T)
    walk = _check_timesteps(timesteps, schedule.num_steps)
    return _walk_ddim(model, schedule, x_T, walk, eta, generator)


def _walk_ddim(
    model: EpsModel,
    schedule: NoiseSchedule,
    x: Tensor,
    timesteps: list[int],
    eta: float,
    generator: torch.Generator | Streams | None,
) -> Iterator[SampleStep]:
    alpha_bar = schedule.alpha_bar.tolist()
    signal, noise = schedule.signal_rate.tolist(), schedule.noise_rate.tolist()
    for t, s in zip(timesteps[:-1], timesteps[1:], strict=True):
        fresh = (1 - alpha_bar[s]) / (1 - alpha_bar[t]) * (1 - alpha_bar[t] / alpha_bar[s])
        sigma = eta * math.sqrt(fresh)
        # at s = 0 both terms are 0 and rounding may leave their difference a hair below
        kept = math.sqrt(max(0.0, 1 - alpha_bar[s] - sigma**2))
        with torch.no_grad():  # not around the yield: it would reach the caller's code
            eps_hat = _ask(model, x, t)
            # in place where a result is our own: making large tensors is what a step costs here
            x0_hat = (x - noise[t] * eps_hat).div_(signal[t])
            x = (signal[s] * x0_hat).add_(kept * eps_hat)
            if sigma > 0:
                x.add_(sigma * normal_like(x, generator))
            _check_answer(eps_hat, t, x)
        yield SampleStep(s, x, eps_hat, x0_hat)


def evenly_spaced(num_steps: int, count: int) -> list[int]:
    """``count`` strides from T down to 0: ``evenly_spaced(1000, 50)`` is 1000, 980, ..., 20, 0.

    Args:
        num_steps: T.
        count: how many steps the walk takes, in 1..T.

    Returns:
        count + 1 step numbers, the first T, the last 0, strides equal but for rounding.

    Raises:
        TypeError, ValueError: no int, ``num_steps`` below 1, ``count`` outside 1..T.
    """
    num_steps = _validate.whole_number("num_steps", num_steps, at_least=1)
    count = _validate.whole_number("count", count, at_least=1)
    if count > num_steps:
        raise ValueError(f"count must be at most num_steps = {num_steps}, got {count}")
    # whole-number rounding: exact for any T, where round(i * T / count) could lean on a float
    return [(2 * num_steps * i + count) // (2 * count) for i in range(count, -1, -1)]


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
    walk = _check_timesteps(timesteps, schedule.num_steps)
    if walk[-1] != 0:
        raise ValueError(f"timesteps must end at 0 (clean data), got {walk[-1]} at the end")
    rising = torch.tensor(walk[::-1], device=schedule.alpha_bar.device)

    def shortened(x_t: States, k: Steps, /) -> States:
        return model(x_t, rising.to(k.device)[k])

    return shortened, NoiseSchedule(schedule.alpha_bar[rising])


def last(steps: Iterable[SampleStep]) -> States:
    """Walks to the end and returns the state there, x_0.

    Raises:
        ValueError: the walk has no step, or ends on NaN or infinity.
    """
    end = deque(steps, maxlen=1)
    if not end:
        raise ValueError("steps must hold at least one step, got an empty walk")
    x_0 = end[0].x_t
    if not x_0.isfinite().all():
        raise ValueError("steps must end on finite numbers, got NaN or infinity from the model")
    return x_0


def _ask(model: EpsModel, x: Tensor, t: int) -> Tensor:
    """eps_hat at one step for the whole batch, refused where its shape is not that of x."""
    steps = torch.full((len(x),), t, dtype=torch.int64, device=x.device)
    eps_hat = _validate.answer("model", model(x, steps), x)
    if eps_hat.dtype == x.dtype and eps_hat.stride() == x.stride():
        return eps_hat
    # A network may answer in bfloat16, or with its pixels channels last. Each sum of tensors that
    # lie differently costs five times what it costs of two that lie alike.
    return torch.empty_like(x).copy_(eps_hat)


def _check_answer(eps_hat: Tensor, t: int, x: Tensor) -> None:
    """Raises where eps_hat at t is not finite; then x, which came of it, is not finite either.

    x is looked at first since it is still in the processor's cache.
    """
    if not _validate.seems_finite(x):
        _validate.finite(f"the answer of model at t = {t}", eps_hat)


def _check_start(x_T: object) -> None:
    start = _validate.floating("x_T", x_T)
    if start.dtype not in (torch.float32, torch.float64):
        # half precision rounds most of a small step away; a model may still compute in it
        raise TypeError(f"x_T must be float32 or float64, got {start.dtype}")
    if start.ndim < 2:
        raise ValueError(f"x_T must have shape (B, ...), got {tuple(start.shape)}")
    if not start.isfinite().all():
        raise ValueError("x_T must be finite, got NaN or infinity")


def _check_timesteps(timesteps: Sequence[int] | Tensor, num_steps: int) -> list[int]:
    """``timesteps`` as a list, if they are ints that fall strictly within num_steps..0."""
    entries = timesteps.tolist() if isinstance(timesteps, Tensor) else timesteps
    if not isinstance(entries, Iterable):
        got = _validate.describe(timesteps)
        raise TypeError(f"timesteps must be a falling sequence of ints, got {got}")
    walk = [_validate.whole_number("an entry of timesteps", t, at_least=0) for t in entries]
    if len(walk) < 2:
        raise ValueError(f"timesteps must hold at least a start and an end, got {walk}")
    if walk[0] > num_steps:
        raise ValueError(f"timesteps must lie in 0..{num_steps}, got {walk[0]}")
    for before, after in zip(walk[:-1], walk[1:], strict=True):
        if after >= before:
            raise ValueError(f"timesteps must fall strictly, got {before} then {after}")
    return walk
