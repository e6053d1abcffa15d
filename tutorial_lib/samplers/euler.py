"""Euler's method on the probability-flow ODE, and its ancestral variant."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tutorial_lib._random import Streams
from tutorial_lib._typing import EpsModel, States
from tutorial_lib.samplers.timesteps import noise_to_signal
from tutorial_lib.samplers.walk import SampleStep, add_noise, ask, check_walk, take_out, walk
from tutorial_lib.schedules import NoiseSchedule


def euler(
    model: EpsModel,
    schedule: NoiseSchedule,
    x_T: States,
    timesteps: Sequence[int] | Tensor,
    *,
    generator: torch.Generator | Streams | None = None,
) -> Iterator[SampleStep]:
    """Euler's method on the probability-flow ODE (Karras et al. 2022, eq. 4).

    With y = x / signal_rate and sigma = noise_rate / signal_rate the ODE is dy/dsigma = eps_hat.
    A step follows that slope from sigma_t to sigma_s: y_s = y_t + (sigma_s - sigma_t) eps_hat. It
    is the step of ``ddim`` with eta = 0, written in other variables.

    Args:
        model: predicts the noise in x_t.
        schedule: the schedule that the model was trained for.
        x_T: the state at ``timesteps[0]``, (B, ...): noise if that is T.
        timesteps: falls strictly within T..0; it must reach 0 for the walk to end on clean data.
            See ``evenly_spaced`` and ``karras_spaced``.
        generator: unused; here so that all samplers can be called alike.

    Yields:
        ``SampleStep`` at timesteps[1], timesteps[2], ...

    Raises:
        TypeError, ValueError: ``x_T`` is not a finite batch in float32 or float64, ``timesteps``
            do not fall or leave 0..T; during the walk, the model answers in another shape or with
            NaN.
    """
    timesteps = check_walk(model, schedule, x_T, timesteps)
    signal, noise = schedule.signal_rate.tolist(), schedule.noise_rate.tolist()
    sigma = noise_to_signal(schedule).tolist()

    def step(x_t: Tensor, t: int, s: int) -> SampleStep:
        eps_hat = ask(model, x_t, t)
        x0_hat = take_out(noise[t], eps_hat, x_t, signal[t])
        y = (x_t / signal[t]).add_(eps_hat, alpha=sigma[s] - sigma[t])
        return SampleStep(s, y.mul_(signal[s]), eps_hat, x0_hat)

    return walk(step, x_T, timesteps)


def euler_ancestral(
    model: EpsModel,
    schedule: NoiseSchedule,
    x_T: States,
    timesteps: Sequence[int] | Tensor,
    *,
    generator: torch.Generator | Streams | None = None,
) -> Iterator[SampleStep]:
    """Euler's method that steps too far down and adds noise to come back (k-diffusion).

    From sigma_t to sigma_s: an Euler step to sigma_down, then sigma_up z, where
    sigma_up^2 = sigma_s^2 (sigma_t^2 - sigma_s^2) / sigma_t^2 and
    sigma_down^2 = sigma_s^2 - sigma_up^2. This is ``ddpm`` with the posterior variance, written in
    the variables of the ODE.

    Args:
        model, schedule, x_T, timesteps: as for ``euler``.
        generator: where z comes from: a torch generator, or one stream per sample (``sampling``);
            None means torch's default generator.

    Yields:
        ``SampleStep`` at timesteps[1], timesteps[2], ...

    Raises:
        TypeError, ValueError: as for ``euler``.
    """
    timesteps = check_walk(model, schedule, x_T, timesteps)
    signal, noise = schedule.signal_rate.tolist(), schedule.noise_rate.tolist()
    sigma = noise_to_signal(schedule).tolist()

    def step(x_t: Tensor, t: int, s: int) -> SampleStep:
        down = sigma[s] ** 2 / sigma[t]  # sqrt(sigma_s^2 - up^2)
        up = math.sqrt(sigma[s] ** 2 - down**2)
        eps_hat = ask(model, x_t, t)
        x0_hat = take_out(noise[t], eps_hat, x_t, signal[t])
        y = (x_t / signal[t]).add_(eps_hat, alpha=down - sigma[t])
        y = add_noise(y, up, generator)
        return SampleStep(s, y.mul_(signal[s]), eps_hat, x0_hat)

    return walk(step, x_T, timesteps)
