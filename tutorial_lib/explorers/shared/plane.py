"""Walks through the plane: the mixture that they lead to, and the points where they begin."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._random import normal_like
from tutorial_lib.oracles import GaussianMixtureOracle

MOST_POINTS, MOST_CLUSTERS = 40, 40


def double_bytes(values: Tensor) -> bytes:
    """Values as float64."""
    return np.ascontiguousarray(values.detach().cpu().double().numpy()).tobytes()


def check_mixture(oracle: object) -> GaussianMixtureOracle:
    """``oracle`` if it is a mixture in the plane of few enough clusters.

    Raises:
        TypeError, ValueError: another object, another dimension, or more clusters.
    """
    if not isinstance(oracle, GaussianMixtureOracle):
        came = _validate.describe(oracle)
        raise TypeError(f"oracle must be a GaussianMixtureOracle, got {came}")
    if oracle.means.shape[1:] != (2,):
        shape = tuple(oracle.means.shape)
        raise ValueError(f"oracle must be of points in the plane, means (K, 2); got {shape}")
    if len(oracle.means) > MOST_CLUSTERS:
        raise ValueError(
            f"oracle must have at most {MOST_CLUSTERS} clusters, got {len(oracle.means)}"
        )
    return oracle


def check_points(points: object, generator: torch.Generator) -> Float[Tensor, "points 2"]:
    """Where walks begin, (P, 2) float64: the points given, or as many drawn from N(0, I).

    Raises:
        TypeError, ValueError: neither a number nor points in the plane, too many, or not finite.
    """
    if not isinstance(points, Tensor):
        count = _validate.whole_number("points", points, at_least=1, at_most=MOST_POINTS)
        return normal_like(torch.empty(count, 2, dtype=torch.float64), generator)
    found = _validate.batch("points", points)
    if found.ndim != 2 or found.shape[1] != 2 or not 1 <= len(found) <= MOST_POINTS:
        shape = tuple(found.shape)
        raise ValueError(f"points must have shape (1 to {MOST_POINTS}, 2), got {shape}")
    if not found.isfinite().all():
        raise ValueError("points must be finite, got NaN or infinity")
    return found.detach().cpu().double()
