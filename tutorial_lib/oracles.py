"""Exact noise predictors: for some data the best prediction of the noise is known in closed form.

An oracle has the interface of a network, ``eps_hat = oracle(x_t, t)``, so samplers, losses and
guidance can be tried and tested without training anything. It computes in float64 (float32 on
devices without float64) and returns the dtype of ``x_t``.
"""

import math

import torch
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._random import normal_like, uniform
from tutorial_lib._typing import PerSample, States, Steps
from tutorial_lib._validate import InvalidValueError
from tutorial_lib.forward import predict_eps
from tutorial_lib.schedules import NoiseSchedule, on_device


class GaussianMixtureOracle:
    """The exact eps for data drawn from a mixture of K isotropic Gaussians.

    After t noisings the data are still a mixture: component k has mean sqrt(alpha_bar_t) m_k and
    variance alpha_bar_t v_k + 1 - alpha_bar_t. Its score is known, and the best eps is
    -sqrt(1 - alpha_bar_t) times the score (Song et al. 2021, "Score-based generative modeling").

    Args:
        schedule: the noise schedule.
        means: (K, ...), one mean per component, each with the shape of a sample.
        variances: (K,), 0 or more; 0 makes the component a point.
        weights: (K,), above 0; they are scaled to sum to 1.

    Raises:
        TypeError, ValueError: not floating-point tensors, shapes that do not match, values out of
            range or not finite.
    """

    def __init__(
        self, schedule: NoiseSchedule, means: Tensor, variances: Tensor, weights: Tensor
    ) -> None:
        self.schedule = _validate.instance("schedule", schedule, NoiseSchedule)
        self.means = _finite("means", means)
        if self.means.ndim < 2 or len(self.means) == 0:
            raise InvalidValueError(f"means must have shape (K, D), got {tuple(means.shape)}")
        self.variances = _one_per_component("variances", variances, len(self.means))
        self.weights = _one_per_component("weights", weights, len(self.means))
        if (self.variances < 0).any():
            raise InvalidValueError(
                f"variances must be 0 or more, got {float(self.variances.min()):g}"
            )
        if (self.weights <= 0).any():
            raise InvalidValueError(f"weights must be above 0, got {float(self.weights.min()):g}")
        self.weights = self.weights / self.weights.sum()

    def __call__(self, x_t: States, t: Steps, /) -> States:
        """The best eps_hat for ``x_t`` (B, ...) at steps ``t`` (B,), each in 1..T."""
        share, away, variance = self._components(x_t, t)
        # score = sum_k share_k (mean_k - x) / variance_k, so -score points away from the means
        away_from_data = torch.einsum("bk,bkd->bd", share / variance, away)  # (B, D)
        noise_rate = (
            on_device(self.schedule.noise_rate, t.device)[t].to(away).unsqueeze(1)
        )  # (B, 1)
        return (noise_rate * away_from_data).to(x_t).reshape(x_t.shape)

    def log_density(self, x_t: States, t: Steps) -> PerSample:
        """log q(x_t), natural logarithm, at ``x_t`` (B, ...) and steps ``t`` (B,) in 1..T; (B,)."""
        return self._log_joint(x_t, t)[0].logsumexp(1).to(x_t)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """``count`` clean samples, (count, ...), in float64."""
        count = _validate.whole_number("count", count, at_least=1)
        # torch.multinomial has no float64 guarantee for tiny weights; the cumulative sum does
        edges = self.weights.cumsum(0)
        draws = uniform(count, generator, device=edges.device).to(edges)
        component = torch.searchsorted(edges, draws, right=True).clamp(max=len(edges) - 1)
        spread = self.variances.sqrt()[component]
        x0 = self.means[component]
        return x0 + spread.reshape(-1, *[1] * (x0.ndim - 1)) * normal_like(x0, generator)

    def _components(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """p(component k given x_t) (B, K), x_t - mean_k (B, K, D), and variance_k (B, K)."""
        log_joint, away, variance = self._log_joint(x_t, t)
        return log_joint.softmax(1), away, variance

    def _log_joint(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log(weight_k N(x_t; mean_k, variance_k)) (B, K), x_t - mean_k and variance_k."""
        _check_query(x_t, t, self.means.shape[1:], "means", self.schedule)
        means, variances, weights = (
            on_device(v, x_t.device) for v in (self.means, self.variances, self.weights)
        )
        alpha_bar = on_device(self.schedule.alpha_bar, t.device)[t].to(means)  # (B,)
        x = x_t.to(means).flatten(1)  # (B, D)
        center = alpha_bar.sqrt()[:, None, None] * means.flatten(1)  # (B, K, D)
        variance = alpha_bar[:, None] * variances + (1 - alpha_bar)[:, None]  # (B, K)
        away = x[:, None] - center  # (B, K, D)
        log_normal = -0.5 * (
            away.square().sum(2) / variance + x.shape[1] * (2 * math.pi * variance).log()
        )
        return weights.log() + log_normal, away, variance


class DatasetOracle:
    """The exact eps for data drawn from a finite set: what a network predicts that memorized it.

    By Bayes' rule E[x_0 given x_t] is a mean of the data, weighted by a softmax with logits
    -|x_t - sqrt(alpha_bar_t) x_i|^2 / (2 (1 - alpha_bar_t)); eps follows by ``predict_eps``.
    A sampler that uses it ends on members of the set: it reproduces data and generates nothing new.

    Args:
        schedule: the noise schedule.
        data: (N, ...), finite.
        chunk_size: how many members are compared at a time; limits the memory and does not change
            the result.

    Raises:
        TypeError, ValueError: not a floating-point tensor, an empty set, entries not finite.
    """

    def __init__(self, schedule: NoiseSchedule, data: Tensor, *, chunk_size: int = 4096) -> None:
        self.schedule = _validate.instance("schedule", schedule, NoiseSchedule)
        self.data = _validate.floating("data", data)
        if data.ndim < 2 or len(data) == 0:
            raise InvalidValueError(
                f"data must have shape (N, ...) with N >= 1, got {tuple(data.shape)}"
            )
        if not data.isfinite().all():
            raise InvalidValueError("data must be finite, got NaN or infinity")
        self.chunk_size = _validate.whole_number("chunk_size", chunk_size, at_least=1)

    def __call__(self, x_t: States, t: Steps, /) -> States:
        """The best eps_hat for ``x_t`` (B, ...) at steps ``t`` (B,), each in 1..T."""
        mean = self._mean(x_t, t)
        return predict_eps(self.schedule, x_t.to(mean), t, mean).to(x_t)

    def posterior_mean(self, x_t: States, t: Steps) -> States:
        """E[x_0 given x_t], the weighted mean of the data, in the shape of ``x_t``."""
        return self._mean(x_t, t).to(x_t)

    def weights(self, x_t: States, t: Steps) -> Tensor:
        """The probability of each member to be the x_0 of ``x_t``: (B, N), rows sum to 1."""
        _check_query(x_t, t, self.data.shape[1:], "data", self.schedule)
        wide = _widest(x_t.device)
        x = x_t.to(wide).flatten(1)  # (B, D)
        alpha_bar = on_device(self.schedule.alpha_bar, t.device)[t].to(wide)[:, None]  # (B, 1)
        logits = []
        for chunk in self.data.split(self.chunk_size):
            members = chunk.to(x).flatten(1)  # (n, D)
            # |x - s m|^2 without |x|^2, the same for all members, which cancels in the softmax
            distance = alpha_bar * members.square().sum(1) - 2 * alpha_bar.sqrt() * (x @ members.T)
            logits.append(-distance / (2 * (1 - alpha_bar)))  # (B, n)
        return torch.cat(logits, 1).softmax(1)

    def _mean(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The weighted mean of the data in the widest dtype, in the shape of ``x_t``."""
        weights = self.weights(x_t, t)
        mean = weights.new_zeros(x_t.flatten(1).shape)
        shares = weights.split(self.chunk_size, 1)
        for share, chunk in zip(shares, self.data.split(self.chunk_size), strict=True):
            mean += share @ chunk.to(mean).flatten(1)  # (B, n) @ (n, D)
        return mean.reshape(x_t.shape)


def _widest(device: torch.device) -> torch.dtype:
    """float64, or float32 on MPS, which lacks float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def _finite(name: str, value: Tensor) -> Tensor:
    """``value`` in the widest dtype of its device, if all of it is finite."""
    tensor = _validate.floating(name, value)
    if not tensor.isfinite().all():
        raise InvalidValueError(f"{name} must be finite, got NaN or infinity")
    return tensor.to(_widest(tensor.device))


def _one_per_component(name: str, value: Tensor, count: int) -> Tensor:
    tensor = _finite(name, value)
    if tensor.shape != (count,):
        raise InvalidValueError(
            f"{name} must have shape ({count},), one for each of means; got {tuple(value.shape)}"
        )
    return tensor


def _check_query(
    x_t: object, t: object, shape: torch.Size, owner: str, schedule: NoiseSchedule
) -> None:
    """Raise unless ``x_t`` is a batch of samples of ``shape`` and ``t`` a step in 1..T for each."""
    x = _validate.batch("x_t", x_t)
    if x.shape[1:] != shape:
        expected = f"(B, {', '.join(map(str, shape))}) to match {owner}"
        raise InvalidValueError(f"x_t must have shape {expected}; got {tuple(x.shape)}")
    _validate.steps("t", t, batch=len(x), low=1, high=schedule.num_steps)
