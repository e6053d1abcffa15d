"""Straighter flows: how straight a flow is, and the pairs that make the next one straighter."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from tutorial_lib._typing import States, VelocityModel
from tutorial_lib._validate import InvalidValueError
from tutorial_lib.flows.walk import check_times, euler
from tutorial_lib.samplers.walk import check_start


def straightness(model: VelocityModel, x: States, times: Sequence[float] | Tensor) -> float:
    """How far the paths of a flow are from straight lines: 0 if they are straight.

    The mean over time and samples of |velocity - chord|^2, where the chord is the velocity of the
    straight line from a path's start to its end (S(Z) of Liu et al. 2022, "Rectified flow"),
    divided by the mean of |chord|^2, so that the scale of the data does not matter. A straight flow
    needs one step of Euler's method.

    Args:
        model: predicts the velocity.
        x: the states at ``times[0]``, (B, ...), float32 or float64, B at least 1; standard normal
            noise if that time is 1.
        times: fall strictly within [0, 1]. Euler's method walks along them, and between two of them
            a path is straight already; so take many, such as ``torch.linspace(1, 0, 101)``.

    Returns:
        A number of at least 0; infinite if paths move and yet end where they began.

    Raises:
        TypeError, ValueError: as ``euler``; ``x`` holds no sample.
    """
    walk = check_times(times)
    steps = euler(model, x, walk)
    if not len(x):
        raise InvalidValueError("x must hold at least one sample, got an empty batch")
    # The chord is the mean of the velocities, so the sum of the squares around it is what is left
    # of the sum of all squares; it is summed as such, since the difference would lose its digits.
    durations = [before - after for before, after in pairwise(walk)]
    velocities = torch.stack([step.velocity.cpu().double() for step in steps])  # (N, B, ...)
    weights = torch.tensor(durations, dtype=torch.float64).to(velocities)
    weights = weights.reshape(-1, *[1] * (velocities.ndim - 1)) / weights.sum()
    chord = (weights * velocities).sum(0)
    bent = float((weights * (velocities - chord).square()).sum())
    straight = float(chord.square().sum())
    if bent == 0:
        return 0.0
    return bent / straight if straight > 0 else float("inf")


def reflow_pairs(
    model: VelocityModel, noise: States, times: Sequence[float] | Tensor
) -> tuple[Tensor, Tensor]:
    """Pairs of data and noise that a flow joins, to train a straighter flow on.

    Chance pairs have lines that cross, and where they do the velocity is a mean of many directions,
    so the paths of the flow bend. The lines of pairs that a flow has joined cross much less. A flow
    trained on them (``flow_loss`` with ``x0`` and ``eps`` from here, a fresh time each time) is
    straighter and draws the same distribution, errors of the first included (Liu et al. 2022,
    "Rectified flow", algorithm 1).

    Args:
        model: predicts the velocity: the flow trained before.
        noise: standard normal, (B, ...), float32 or float64.
        times: fall strictly from 1, or from the largest time that the model knows, to 0. Euler's
            method walks along them.

    Returns:
        ``x0``, where the flow has led to, and ``eps``, which is ``noise``, both (B, ...). Keep the
        rows together: shuffled, they are chance pairs again.

    Raises:
        TypeError, ValueError: as ``euler``; ``times`` do not end at 0.
    """
    walk = check_times(times)
    if walk[-1] != 0:
        raise InvalidValueError(f"times must end at 0 (clean data), got {walk[-1]:g} at the end")
    x0 = check_start(noise, "noise")
    for step in euler(model, x0, walk):
        x0 = step.x
    return x0, noise
