"""Distances between samples and real data, with their errors and with what real data score."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._validate import InvalidValueError

_CHUNK = 1024  # rows compared at once


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Fréchet distance of Gaussians fitted to two sets of features (Heusel et al. 2017, eq. 6).

    The squared distance of the means plus tr(A + B - 2 (A B)^(1/2)) for the covariances A and B.
    Computed in float64; the trace of the root is computed as tr (A^(1/2) B A^(1/2))^(1/2), a
    symmetric matrix, so the result is real. It is biased: two samples of the same distribution have
    a distance above 0 that falls with their size, hence ``real_floor``.

    Args:
        features_a, features_b: (N, D) and (M, D), with N and M at least 2.

    Raises:
        TypeError, ValueError: not floating-point tensors of such shapes; NaN or infinite values.
    """
    a, b = _check_features(features_a, features_b)
    root = _symmetric_root(_covariance(a))
    overlap = torch.linalg.eigvalsh(root @ _covariance(b) @ root).clamp(min=0).sqrt().sum()
    spread = a.var(0).sum() + b.var(0).sum() - 2 * overlap
    return float((a.mean(0) - b.mean(0)).square().sum() + spread.clamp(min=0))


def kernel_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel (x.y / D + 1)^3; called KID for
    Inception's features (Bińkowski et al. 2018, sec. 4).

    Two samples of the same distribution have distance 0 on average, so it may be negative. Computed
    in float64.

    Args:
        features_a, features_b: (N, D) and (M, D), with N and M at least 2.

    Raises:
        TypeError, ValueError: not floating-point tensors of such shapes; NaN or infinite values.
    """
    a, b = _check_features(features_a, features_b)
    within = _mean_kernel(a, a, without_diagonal=True) + _mean_kernel(b, b, without_diagonal=True)
    return within - 2 * _mean_kernel(a, b, without_diagonal=False)


def real_floor(
    distance: Callable[[Tensor, Tensor], float],
    real: Tensor,
    sample_count: int,
    reference_count: int,
    *,
    repeats: int = 5,
    generator: torch.Generator | None = None,
) -> Tensor:
    """What real data score against other real data: no model can be expected to do better.

    The features are shuffled and ``sample_count`` of them measured against ``reference_count``
    others, as samples of a model are against real data. Distances depend on these counts, so a
    floor is valid only for the same ones.

    Args:
        distance: ``frechet_distance``, ``kernel_distance`` or another function of two sets.
        real: (N, D), N at least ``sample_count + reference_count``.
        repeats: number of shuffles; they share data, so they differ less than new data would.
        generator: for the shuffles; None means torch's default generator.

    Returns:
        (repeats,) float64: use the mean, and the standard deviation as its uncertainty.

    Raises:
        TypeError, ValueError: too few features, or counts below 2 or ``repeats`` below 1.
    """
    _validate.function("distance", distance)
    _validate.generator("generator", generator)
    _check_one("real", real)
    _validate.whole_number("sample_count", sample_count, at_least=2)
    _validate.whole_number("reference_count", reference_count, at_least=2)
    _validate.whole_number("repeats", repeats, at_least=1)
    together = sample_count + reference_count
    if len(real) < together:
        counts = f"sample_count + reference_count = {together}"
        raise InvalidValueError(f"real must hold at least {counts} features, got {len(real)}")
    floors = []
    for _ in range(repeats):
        order = torch.randperm(len(real), generator=generator).to(real.device)
        floors.append(distance(real[order[:sample_count]], real[order[sample_count:together]]))
    return torch.tensor(floors, dtype=torch.float64)


class Score(NamedTuple):
    """A measurement of samples, with its uncertainty and with what real data score.

    Attributes:
        value: what the samples score.
        error: the standard deviation of that over other samples of the model.
        floor: what as many real data score, on average; no model can be expected to do better.
        floor_error: the standard deviation of that over shuffles.
    """

    value: float
    error: float
    floor: float
    floor_error: float

    def __str__(self) -> str:
        floor = f"{self.floor:.3g} ± {self.floor_error:.1g}"
        return f"{self.value:.3g} ± {self.error:.1g} (real data: {floor})"


def score(
    measure: Callable[[Tensor, Tensor], float],
    samples: Tensor,
    real: Tensor,
    more_real: Tensor,
    *,
    repeats: int = 20,
    generator: torch.Generator | None = None,
) -> Score:
    """``measure(samples, real)`` with its standard error and its floor.

    Args:
        measure: ``frechet_distance``, ``kernel_distance``, or for example
            ``lambda a, b: precision_recall(a, b).recall``.
        samples: features of the samples, (N, D) with N at least 4.
        real: features of real data, (M, D).
        more_real: of other real data, (K, D) with K at least N; the floor is measured on these and
            ``real`` together.
        repeats: repetitions of the measurement for the error, and again for the floor.
        generator: for the shuffles; None means torch's default generator.

    Raises:
        TypeError, ValueError: as ``real_floor``, ``bootstrap_error`` and the measure itself.
    """
    _validate.function("measure", measure)
    for name, features in (("samples", samples), ("real", real), ("more_real", more_real)):
        _check_one(name, features)
    value = measure(samples, real)
    error = bootstrap_error(measure, samples, real, repeats=repeats, generator=generator)
    both = torch.cat([real, more_real])
    counts = len(samples), len(real)
    floor = real_floor(measure, both, *counts, repeats=max(2, repeats), generator=generator)
    return Score(value, error, float(floor.mean()), float(floor.std()))


def bootstrap_error(
    measure: Callable[[Tensor, Tensor], float],
    samples: Tensor,
    real: Tensor,
    *,
    repeats: int = 20,
    generator: torch.Generator | None = None,
) -> float:
    """The standard error of a measurement: how much it varies over other samples of the model.

    Subsampling (Politis & Romano 1994) with halves: the standard deviation over random halves of
    the samples, which for halves needs no correction factor. The usual bootstrap draws some samples
    twice; two copies have distance 0, which misleads every measure that uses nearest neighbors. The
    real data are held fixed.

    Args:
        measure: a function of two sets of features.
        samples: (N, D), N at least 4.
        real: (M, D), passed to ``measure`` unchanged.
        repeats: number of halves, at least 2; 20 give the error to within about 16 %.
        generator: draws the halves; None means torch's default generator.

    Raises:
        TypeError, ValueError: too few samples or repeats; whatever ``measure`` raises.
    """
    _validate.function("measure", measure)
    _validate.generator("generator", generator)
    _check_one("samples", samples)
    _check_one("real", real)
    _validate.whole_number("repeats", repeats, at_least=2)
    if len(samples) < 4:
        raise InvalidValueError(f"samples must hold at least 4 features, got {len(samples)}")
    values = []
    for _ in range(repeats):
        half = torch.randperm(len(samples), generator=generator)[: len(samples) // 2]
        values.append(measure(samples[half.to(samples.device)], real))
    return float(torch.tensor(values, dtype=torch.float64).std())


class PrecisionRecall(NamedTuple):
    """How samples and real data cover each other, see ``precision_recall``.

    Attributes:
        precision: share of the samples that are among the real data, in [0, 1]: quality.
        recall: share of the real data that are among the samples, in [0, 1]: variety.
        density: mean number of real balls that contain a sample, relative to its value for real
            data.
        coverage: share of the real balls that contain a sample, in [0, 1]; unlike recall, outliers
            among the samples cannot raise it.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall(samples: Tensor, real: Tensor, *, neighbors: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi et al. 2019, eq. 1), density and coverage.

    A set is represented by balls around its members, each reaching to the member's k-th nearest
    neighbor in the set. Precision is the share of the samples in a ball of the real data, recall
    the share of the real data in a ball of the samples. Density is the number of real balls that
    contain a sample, divided by k; coverage is the share of real balls that contain a sample (Naeem
    et al. 2020, eq. 6 and 7). All depend on the size of the sets: compare with ``real_floor``,
    which is not 1 here. Computed in float64.

    Args:
        samples: features, (N, D), N above ``neighbors``.
        real: features, (M, D), M above ``neighbors``.
        neighbors: k; 3 in the first paper, 5 in the second.

    Raises:
        TypeError, ValueError: not floating-point tensors of such shapes; NaN or infinite values.
    """
    a, b = _check_features(samples, real, names=("samples", "real"))
    _validate.whole_number("neighbors", neighbors, at_least=1)
    for name, value in (("samples", a), ("real", b)):
        if len(value) <= neighbors:
            fewest = f"{neighbors + 1}, one more than neighbors"
            raise InvalidValueError(f"{name} must hold at least {fewest}; got {len(value)}")
    radius_a, radius_b = _ball_radius(a, neighbors), _ball_radius(b, neighbors)
    real_in_ball = torch.zeros(len(b), dtype=torch.bool, device=b.device)  # of any sample
    balls_met = torch.zeros_like(real_in_ball)  # real balls that hold a sample
    inside, density = 0, 0
    for start in range(0, len(a), _CHUNK):
        rows = slice(start, start + _CHUNK)
        distance = torch.cdist(a[rows], b)
        in_real = distance <= radius_b
        inside, density = inside + int(in_real.any(1).sum()), density + int(in_real.sum())
        balls_met |= in_real.any(0)
        real_in_ball |= (distance <= radius_a[rows, None]).any(0)
    return PrecisionRecall(
        inside / len(a),
        float(real_in_ball.double().mean()),
        density / (neighbors * len(a)),
        float(balls_met.double().mean()),
    )


def _ball_radius(features: Tensor, neighbors: int) -> Tensor:
    """The distance of each row of (N, D) to its k-th nearest other row, (N,)."""
    radii = []
    for start in range(0, len(features), _CHUNK):
        distance = torch.cdist(features[start : start + _CHUNK], features)
        own = torch.arange(len(distance), device=features.device)
        distance[own, start + own] = -1.0  # itself comes first, even among copies
        radii.append(distance.kthvalue(neighbors + 1).values)
    return torch.cat(radii)


class Neighbors(NamedTuple):
    """The nearest members of a set, nearest first, each of shape (N, count).

    Attributes:
        distance: how far they are, float32.
        place: their indices in the set, int64.
    """

    distance: Tensor
    place: Tensor


@torch.no_grad()
def nearest_neighbors(samples: Tensor, train: Tensor, *, count: int = 1) -> Neighbors:
    """The training images nearest to each sample: is it a copy?

    Euclidean distance over all values of an image; a copy has distance 0. To judge a distance,
    compare it with those of real images outside the training set: samples of a model that memorized
    its training images are nearer to them. ``plots.neighbors`` shows the pairs.

    Args:
        samples: (N, ...), images or features.
        train: (M, ...), of the same shape except for the first axis, M at least ``count``.
        count: number of neighbors for each sample.

    Raises:
        TypeError, ValueError: not floating-point tensors of such shapes; NaN or infinite values.
    """
    samples, train = _validate.batch("samples", samples), _validate.batch("train", train)
    if not len(samples) or samples.ndim < 2 or samples.shape[1:] != train.shape[1:]:
        shapes = f"{tuple(samples.shape)} and {tuple(train.shape)}"
        raise InvalidValueError(
            f"samples and train must be (N, ...) and (M, ...), N >= 1; got {shapes}"
        )
    count = _validate.whole_number("count", count, at_least=1)
    if count > len(train):
        raise InvalidValueError(
            f"count must be at most {len(train)}, the size of train; got {count}"
        )
    found = [_nearest(part, train.flatten(1), count) for part in samples.flatten(1).split(_CHUNK)]
    near = Neighbors(*(torch.cat(column) for column in zip(*found, strict=True)))
    if not near.distance.isfinite().all():
        raise InvalidValueError("samples and train must be smaller: their distances overflow")
    return near


@torch.no_grad()
def copies(samples: Tensor, train: Tensor) -> Tensor:
    """Which samples are copies of training images, bool (N,).

    A sample counts as a copy if the nearest training image is less than half as far away as
    training images typically are from each other: half the median distance from one to the nearest
    other, as ``nearest_neighbors`` measures it; for one image alone, half its distance from gray.
    A TinyUNet (widths 16 and 32, seed 0) was trained on 8, 32, 128 and 1,000 MNIST digits, 1,500
    steps of 32 images each, on a CPU: of 64 samples (DDIM, 20 steps), 64, 49, 0 and 0 were copies.

    Args:
        samples: (N, ...), images or features.
        train: (M, ...), of the same shape except for the first axis.

    Raises:
        TypeError, ValueError: as ``nearest_neighbors``.
    """
    distance = nearest_neighbors(samples, train).distance[:, 0]
    different = train.flatten(1).unique(dim=0)
    if len(different) > 1:
        apart = nearest_neighbors(different, different, count=2).distance[:, 1]
    else:
        apart = (different - different.mean()).norm(dim=1)
    return distance < apart.median() / 2


def _nearest(samples: Tensor, train: Tensor, count: int) -> Neighbors:
    """``nearest_neighbors`` of rows (N, D) among rows (M, D), not all N x M at once."""
    spare = min(count + 4, len(train))  # rounding may misorder near ones at first
    best = samples.new_full((len(samples), 0), 0)
    where = torch.empty_like(best, dtype=torch.int64)
    for start in range(0, len(train), 8 * _CHUNK):
        block = train[start : start + 8 * _CHUNK].to(samples)
        squares = block.square().sum(1) - 2 * samples @ block.T  # without the sample's own square
        together = torch.cat([best, squares], 1)
        places = torch.arange(start, start + len(block), device=samples.device)
        numbers = torch.cat([where, places.expand(len(samples), -1)], 1)
        best, chosen = together.topk(min(spare, together.shape[1]), largest=False)
        where = numbers.gather(1, chosen)
    exact = (train[where.to(train.device)].to(samples) - samples[:, None]).square().sum(2).sqrt()
    distance, order = exact.float().sort(stable=True)
    return Neighbors(distance[:, :count], where.gather(1, order)[:, :count])


def _check_one(name: str, value: object) -> Tensor:
    """``value`` if it is a set of finite features, (N, D) with N at least 2; else an error."""
    features = _validate.floating(name, value)
    if features.ndim != 2 or len(features) < 2 or not features.shape[1]:
        shape = tuple(features.shape)
        raise InvalidValueError(
            f"{name} must have shape (N, D) with N >= 2 and D >= 1, got {shape}"
        )
    if not features.isfinite().all():
        raise InvalidValueError(f"{name} must be finite, got NaN or infinity")
    return features


def _check_features(
    features_a: Tensor,
    features_b: Tensor,
    names: tuple[str, str] = ("features_a", "features_b"),
) -> tuple[Tensor, Tensor]:
    """Both as float64; an error unless they are finite features of the same width."""
    both = []
    for name, value in zip(names, (features_a, features_b), strict=True):
        both.append(_check_one(name, value).detach().double())
    a, b = both
    if a.shape[1] != b.shape[1]:
        widths = f"{a.shape[1]} and {b.shape[1]}"
        raise InvalidValueError(f"{names[0]} and {names[1]} must have the same D, got {widths}")
    return a, b


def _covariance(features: Tensor) -> Tensor:
    """Covariance of the columns of (N, D), divided by N - 1; (D, D) even if D is 1."""
    centered = features - features.mean(0)
    return centered.T @ centered / (len(features) - 1)


def _symmetric_root(matrix: Tensor) -> Tensor:
    """The square root of a positive semidefinite matrix, (D, D)."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def _mean_kernel(a: Tensor, b: Tensor, *, without_diagonal: bool) -> float:
    """Mean of the cubic kernel over all pairs of rows, or over pairs of different rows only."""
    total, pairs = 0.0, len(a) * len(b)
    for start in range(0, len(a), _CHUNK):  # a block of rows at a time, not all N x M at once
        total += float(((a[start : start + _CHUNK] @ b.T) / a.shape[1] + 1).pow(3).sum())
    if without_diagonal:
        total -= float((a.square().sum(1) / a.shape[1] + 1).pow(3).sum())
        pairs -= len(a)
    return total / pairs
