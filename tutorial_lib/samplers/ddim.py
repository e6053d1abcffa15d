"""DDIM: a walk down any falling sequence of steps."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._random import Streams, normal_like
from tutorial_lib._typing import EpsModel, States
from tutorial_lib.samplers.timesteps import check_timesteps
from tutorial_lib.samplers.walk import SampleStep, ask, check_answer, check_start
from tutorial_lib.schedules import NoiseSchedule


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
    check_start(x_T)
    walk = check_timesteps(timesteps, schedule.num_steps)
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
            eps_hat = ask(model, x, t)
            # in place where a result is our own: making large tensors is what a step costs here
            x0_hat = (x - noise[t] * eps_hat).div_(signal[t])
            x = (signal[s] * x0_hat).add_(kept * eps_hat)
            if sigma > 0:
                x.add_(sigma * normal_like(x, generator))
            check_answer(eps_hat, t, x)
        yield SampleStep(s, x, eps_hat, x0_hat)
