"""DPM-Solver++ (2M): second order, one evaluation a step."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tutorial_lib._random import Streams
from tutorial_lib._typing import EpsModel, States
from tutorial_lib.samplers.walk import SampleStep, ask, check_walk, mix, take_out, walk
from tutorial_lib.schedules import NoiseSchedule


def dpm_solver(
    model: EpsModel,
    schedule: NoiseSchedule,
    x_T: States,
    timesteps: Sequence[int] | Tensor,
    *,
    generator: torch.Generator | Streams | None = None,
) -> Iterator[SampleStep]:
    """DPM-Solver++ (2M), a multistep method (Lu et al. 2022, "DPM-Solver++", algorithm 2).

    In lambda = log(signal_rate / noise_rate), the ODE's linear part is solved exactly and x0_hat is
    extrapolated along the line through its last two values. With h = lambda_s - lambda_t and
    r = h_last / h: D = (1 + 1 / (2 r)) x0_hat - 1 / (2 r) x0_hat_last, and
    x_s = (noise_s / noise_t) x_t - signal_s (exp(-h) - 1) D. The first step has no last value, and
    in the last one, to s = 0, h is infinite; both take D = x0_hat, a step of ``ddim``.

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
    lam = [math.log(a / b) if b > 0 else math.inf for a, b in zip(signal, noise, strict=True)]
    before: tuple[Tensor, float] | None = None  # the last step's x0_hat, and its h

    def step(x_t: Tensor, t: int, s: int) -> SampleStep:
        nonlocal before
        eps_hat = ask(model, x_t, t)
        x0_hat = take_out(noise[t], eps_hat, x_t, signal[t])
        h = lam[s] - lam[t]
        D = x0_hat
        if before is not None and s > 0:
            x0_hat_last, h_last = before
            D = torch.lerp(x0_hat_last, x0_hat, 1 + h / (2 * h_last))
        before = x0_hat, h
        x_s = mix(noise[s] / noise[t], x_t, -signal[s] * math.expm1(-h), D)
        return SampleStep(s, x_s, eps_hat, x0_hat)

    return walk(step, x_T, timesteps)
