"""DDIM: a walk down any falling sequence of steps."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._random import Streams
from tutorial_lib._typing import EpsModel, States
from tutorial_lib.samplers.walk import (
    SampleStep,
    add_noise,
    ask,
    check_walk,
    mix,
    take_out,
    walk,
)
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
        model: predicts the noise in x_t.
        schedule: the schedule that the model was trained for.
        x_T: the state at ``timesteps[0]``, (B, ...): noise if that is T.
        timesteps: falls strictly within T..0, for example 1000, 980, ..., 20, 0; it must reach 0
            for the walk to end on clean data. See ``evenly_spaced``.
        eta: 0 for the deterministic walk, 1 for the noise of DDPM; in [0, 1].
        generator: where z comes from: a torch generator, or one stream per sample (``sampling``);
            None means torch's default generator. Unused at eta = 0.

    Yields:
        ``SampleStep`` at timesteps[1], timesteps[2], ...

    Raises:
        TypeError, ValueError: ``x_T`` is not a finite batch in float32 or float64, ``timesteps``
            do not fall or leave 0..T, ``eta`` is outside [0, 1]; during the walk, the model
            answers in another shape or with NaN.
    """
    eta = _validate.number("eta", eta, low=0.0, high=1.0)
    timesteps = check_walk(model, schedule, x_T, timesteps)
    abar = schedule.alpha_bar.tolist()
    signal, noise = schedule.signal_rate.tolist(), schedule.noise_rate.tolist()

    def step(x_t: Tensor, t: int, s: int) -> SampleStep:
        sigma = eta * math.sqrt((1 - abar[s]) / (1 - abar[t]) * (1 - abar[t] / abar[s]))
        # at s = 0 both terms are 0, and rounding may leave their difference just below
        direction = math.sqrt(max(0.0, 1 - abar[s] - sigma**2))
        eps_hat = ask(model, x_t, t)
        x0_hat = take_out(noise[t], eps_hat, x_t, signal[t])
        x_s = mix(signal[s], x0_hat, direction, eps_hat)
        return SampleStep(s, add_noise(x_s, sigma, generator), eps_hat, x0_hat)

    return walk(step, x_T, timesteps)
