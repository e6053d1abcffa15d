"""DDPM: ancestral sampling."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._random import Streams
from tutorial_lib._typing import EpsModel, States
from tutorial_lib.samplers.walk import SampleStep, add_noise, ask, check_walk, take_out, walk
from tutorial_lib.schedules import NoiseSchedule


def ddpm(
    model: EpsModel,
    schedule: NoiseSchedule,
    x_T: States,
    timesteps: Sequence[int] | Tensor | None = None,
    *,
    variance: str = "posterior",
    generator: torch.Generator | Streams | None = None,
) -> Iterator[SampleStep]:
    """Ancestral sampling (Ho et al. 2020, algorithm 2), by default over every step T..1.

    x_{t-1} = (x_t - beta_t / sqrt(1 - abar_t) eps_hat) / sqrt(alpha_t) + sigma_t z, with z = 0 at
    t = 1. A larger step, from t to s, is the same with alpha = abar_t / abar_s and
    beta = 1 - alpha (Nichol & Dhariwal 2021, sec. 4).

    Args:
        model: predicts the noise in x_t.
        schedule: the schedule that the model was trained for.
        x_T: the state at ``timesteps[0]``, (B, ...): noise if that is T.
        timesteps: falls strictly within T..0; it must reach 0 for the walk to end on clean data.
            None takes every step. See ``evenly_spaced``.
        variance: sigma^2, "posterior" for the posterior variance (Ho eq. 7) or "beta" for beta.
        generator: where z comes from: a torch generator, or one stream per sample (``sampling``);
            None means torch's default generator.

    Yields:
        ``SampleStep`` at timesteps[1], timesteps[2], ...; by default at T-1, ..., 0.

    Raises:
        TypeError, ValueError: ``x_T`` is not a finite batch in float32 or float64, ``timesteps``
            do not fall or leave 0..T, ``variance`` is another word; during the walk, the model
            answers in another shape or with NaN.
    """
    _validate.one_of("variance", variance, ("posterior", "beta"))
    timesteps = check_walk(model, schedule, x_T, timesteps, none_is_all=True)
    abar, sigma = schedule.alpha_bar.tolist(), _sigma(schedule, timesteps, variance)
    signal, noise = schedule.signal_rate.tolist(), schedule.noise_rate.tolist()

    def step(x_t: Tensor, t: int, s: int) -> SampleStep:
        alpha = abar[t] / abar[s]
        beta = 1 - alpha
        eps_hat = ask(model, x_t, t)
        x0_hat = take_out(noise[t], eps_hat, x_t, signal[t])
        mean = take_out(beta / noise[t], eps_hat, x_t, math.sqrt(alpha))
        x_s = add_noise(mean, sigma[t] if s > 0 else 0.0, generator)
        return SampleStep(s, x_s, eps_hat, x0_hat)

    return walk(step, x_T, timesteps)


def _sigma(schedule: NoiseSchedule, timesteps: list[int], variance: str) -> dict[int, float]:
    """The standard deviation of the noise of each step, by the t that it starts from."""
    abar_t, abar_s = schedule.alpha_bar[timesteps[:-1]], schedule.alpha_bar[timesteps[1:]]
    beta = 1 - abar_t / abar_s
    posterior = beta * (1 - abar_s) / (1 - abar_t)
    sigma = (posterior if variance == "posterior" else beta).sqrt()
    return dict(zip(timesteps[:-1], sigma.tolist(), strict=True))
