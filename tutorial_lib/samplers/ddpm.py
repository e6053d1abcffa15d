"""DDPM: ancestral sampling over every step."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._random import Streams, normal_like
from tutorial_lib._typing import EpsModel, States
from tutorial_lib.samplers.walk import SampleStep, ask, check_answer, check_start
from tutorial_lib.schedules import NoiseSchedule


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
    check_start(x_T)
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
            eps_hat = ask(model, x, t)
            x0_hat = (x - noise[t] * eps_hat) / signal[t]
            mean = (x - beta[t - 1] / noise[t] * eps_hat) / math.sqrt(alpha[t - 1])
            x = mean + sigma[t - 1] * normal_like(x, generator) if t > 1 else mean
            check_answer(eps_hat, t, x)
        yield SampleStep(t - 1, x, eps_hat, x0_hat)
