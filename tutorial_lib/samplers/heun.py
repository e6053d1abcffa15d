"""Heun's method on the probability-flow ODE: second order, two evaluations a step."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tutorial_lib._random import Streams
from tutorial_lib._typing import EpsModel, States
from tutorial_lib.samplers.timesteps import noise_to_signal
from tutorial_lib.samplers.walk import SampleStep, ask, check_walk, take_out, walk
from tutorial_lib.schedules import NoiseSchedule


def heun(
    model: EpsModel,
    schedule: NoiseSchedule,
    x_T: States,
    timesteps: Sequence[int] | Tensor,
    *,
    generator: torch.Generator | Streams | None = None,
) -> Iterator[SampleStep]:
    """Heun's method (Karras et al. 2022, algorithm 1, without its extra noise).

    With y = x / signal_rate and sigma = noise_rate / signal_rate the ODE is dy/dsigma = eps_hat. A
    step first goes to sigma_s as Euler's does, asks the model there, and then goes again from
    sigma_t with the mean of both slopes. The last step, to sigma = 0, is Euler's: a model has
    nothing to say about clean data. N steps ask the model 2 N - 1 times.

    Args:
        model: predicts the noise in x_t.
        schedule: the schedule that the model was trained for.
        x_T: the state at ``timesteps[0]``, (B, ...): noise if that is T.
        timesteps: falls strictly within T..0; it must reach 0 for the walk to end on clean data.
            See ``evenly_spaced`` and ``karras_spaced``.
        generator: unused; here so that all samplers can be called alike.

    Yields:
        ``SampleStep`` at timesteps[1], timesteps[2], ...; ``eps_hat`` is the first of the two
        answers.

    Raises:
        TypeError, ValueError: ``x_T`` is not a finite batch in float32 or float64, ``timesteps``
            do not fall or leave 0..T; during the walk, the model answers in another shape or with
            NaN.
    """
    timesteps = check_walk(model, schedule, x_T, timesteps)
    signal, noise = schedule.signal_rate.tolist(), schedule.noise_rate.tolist()
    sigma = noise_to_signal(schedule).tolist()

    def step(x_t: Tensor, t: int, s: int) -> SampleStep:
        h = sigma[s] - sigma[t]
        eps_hat = ask(model, x_t, t)
        x0_hat = take_out(noise[t], eps_hat, x_t, signal[t])
        y = x_t / signal[t]
        slope = eps_hat
        if s > 0:
            x_s = torch.add(y, eps_hat, alpha=h).mul_(signal[s])
            slope = (eps_hat + ask(model, x_s, s)).div_(2)
        return SampleStep(s, y.add_(slope, alpha=h).mul_(signal[s]), eps_hat, x0_hat)

    return walk(step, x_T, timesteps)
