"""Flows that are known exactly, for the tests: mixtures in closed form, and a fine walk."""

import torch
from torch import Tensor

from tests.draws import normal
from tutorial_lib._typing import VelocityModel
from tutorial_lib.oracles import GaussianMixtureOracle
from tutorial_lib.schedules import NoiseSchedule, linear_schedule

F64 = torch.float64
LINEAR = linear_schedule()


def shaped(factors: Tensor, like: Tensor) -> Tensor:
    return factors.reshape(-1, *[1] * (like.ndim - 1))


def parts(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Means, variances and weights of a mixture of three, one of them a point."""
    variances = torch.tensor([0.04, 0.16, 0.0], dtype=F64)
    return 2 * normal(3, *shape, seed=9), variances, torch.tensor([0.5, 0.3, 0.2], dtype=F64)


def oracle(schedule: NoiseSchedule, shape: tuple[int, ...] = (2,)) -> GaussianMixtureOracle:
    return GaussianMixtureOracle(schedule, *parts(shape))


def exact_velocity(shape: tuple[int, ...] = (2,)) -> VelocityModel:
    """E[eps - x_0 given x] for the mixture, from the formula for straight paths, no schedule.

    At a fixed time component k has mean (1 - time) m_k and variance V_k = (1 - time)^2 v_k +
    time^2; given k, x_0 and eps are linear in x.
    """
    means, variances, weights = parts(shape)
    means = means.flatten(1)

    def velocity(x: Tensor, time: Tensor, /) -> Tensor:
        flat, s = x.flatten(1), time[:, None]
        away = flat[:, None] - (1 - s)[:, None] * means  # (B, K, D)
        variance = (1 - s) ** 2 * variances + s**2  # (B, K)
        log_joint = weights.log() - away.square().sum(2) / (2 * variance)
        log_joint = log_joint - flat.shape[1] / 2 * variance.log()
        share = log_joint.softmax(1)
        x0 = means + ((1 - s) * variances / variance)[:, :, None] * away
        eps = (s / variance)[:, :, None] * away
        return (share[:, :, None] * (eps - x0)).sum(1).reshape(x.shape)

    return velocity


def runge_kutta(model: VelocityModel, x: Tensor, times: list[float]) -> Tensor:
    """The classical method of order 4, which makes the reference for Euler's."""
    for s, r in zip(times[:-1], times[1:], strict=True):
        h = r - s
        now, middle, then = (torch.full((len(x),), time, dtype=F64) for time in (s, s + h / 2, r))
        a = model(x, now)
        b = model(x + h / 2 * a, middle)
        c = model(x + h / 2 * b, middle)
        d = model(x + h * c, then)
        x = x + h / 6 * (a + 2 * b + 2 * c + d)
    return x


def smooth_mixture() -> VelocityModel:
    """Two wide components, so that the velocity stays smooth down to time 0."""
    means = torch.tensor([[1.0, 0.5], [-1.0, -0.2]], dtype=F64)

    def velocity(x: Tensor, time: Tensor, /) -> Tensor:
        s = time[:, None]
        variance = 0.3 * (1 - s) ** 2 + s**2  # (B, 1), the same for both
        away = x[:, None] - (1 - s)[:, None] * means
        share = (-away.square().sum(2) / (2 * variance)).softmax(1)[:, :, None]
        slopes = ((s - 0.3 * (1 - s)) / variance)[:, :, None] * away - means
        return (share * slopes).sum(1)

    return velocity
