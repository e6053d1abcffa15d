"""Distances and scores of features, against closed forms and loops."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tutorial_lib.metrics import (
    Score,
    bootstrap_error,
    copies,
    frechet_distance,
    kernel_distance,
    nearest_neighbors,
    precision_recall,
    real_floor,
    score,
)
from tutorial_lib.metrics import distances as metrics

# --- distances


def features(count: int, width: int, seed: int, shift: float = 0.0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=rng, dtype=torch.float64)
    return torch.randn(count, width, generator=rng, dtype=torch.float64) @ mix + shift


def exactly(mean: Tensor, variance: Tensor) -> Tensor:
    """Features (2 D, D) whose mean and diagonal covariance are exactly these."""
    width = len(mean)
    step = torch.diag((variance * (2 * width - 1) / 2).sqrt())
    return torch.cat([step, -step]) + mean


def test_frechet_distance_of_known_gaussians():
    """Diagonal covariances commute: the sum of (mean gap)^2 and (sigma gap)^2."""
    rng = torch.Generator().manual_seed(0)
    m = torch.randn(2, 5, generator=rng, dtype=torch.float64)
    v = torch.rand(2, 5, generator=rng, dtype=torch.float64) + 0.1
    expected = (m[0] - m[1]).square().sum() + (v[0].sqrt() - v[1].sqrt()).square().sum()
    distance = frechet_distance(exactly(m[0], v[0]), exactly(m[1], v[1]))
    assert_close(distance, float(expected), atol=1e-10, rtol=0)


def test_frechet_distance_by_another_route():
    """tr (A B)^(1/2) from the eigenvalues of the product, which is not symmetric."""
    a, b = features(300, 7, 0), features(200, 7, 1, shift=0.5)
    covariance_a, covariance_b = a.T.cov(), b.T.cov()
    roots = torch.linalg.eigvals(covariance_a @ covariance_b).real.clamp(min=0).sqrt()
    expected = (a.mean(0) - b.mean(0)).square().sum()
    expected += covariance_a.trace() + covariance_b.trace() - 2 * roots.sum()
    assert_close(frechet_distance(a, b), float(expected), atol=1e-9, rtol=1e-10)


def test_frechet_distance_is_symmetric_zero_to_itself_and_blind_to_turns():
    a, b = features(50, 8, 0), features(40, 8, 1)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-9)
    turn = torch.linalg.qr(features(8, 8, 2)).Q
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_frechet_distance_with_fewer_samples_than_features():
    a, b = features(6, 20, 0), features(5, 20, 1)
    assert frechet_distance(a, b) > 0
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-5)
    one = torch.tensor([[0.0], [2.0]])  # mean 1, variance 2
    assert frechet_distance(one, one + 3) == pytest.approx(9, abs=1e-9)


def test_kernel_distance_against_a_loop():
    a, b = features(9, 4, 0), features(7, 4, 1)

    def kernel(x: Tensor, y: Tensor) -> float:
        return (sum(float(p) * float(q) for p, q in zip(x, y, strict=True)) / 4 + 1) ** 3

    within_a = sum(kernel(a[i], a[j]) for i in range(9) for j in range(9) if i != j) / 72
    within_b = sum(kernel(b[i], b[j]) for i in range(7) for j in range(7) if i != j) / 42
    across = sum(kernel(x, y) for x in a for y in b) / 63
    assert kernel_distance(a, b) == pytest.approx(within_a + within_b - 2 * across, rel=1e-10)


def test_kernel_distance_does_not_depend_on_blocks(monkeypatch: pytest.MonkeyPatch):
    a, b = features(50, 3, 0), features(40, 3, 1)
    whole = kernel_distance(a, b)
    monkeypatch.setattr(metrics, "_CHUNK", 7)
    assert kernel_distance(a, b) == pytest.approx(whole, rel=1e-10)


def test_kernel_distance_of_the_same_distribution_is_zero_on_average():
    rng = torch.Generator().manual_seed(0)
    draws = [
        kernel_distance(*torch.randn(2, 30, 4, generator=rng, dtype=torch.float64).unbind())
        for _ in range(400)
    ]
    values = torch.tensor(draws)
    assert values.mean().abs() < 3 * values.std() / math.sqrt(400)
    assert (values < 0).any()


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_a_floor_is_below_the_distance_of_other_data(distance: Callable):
    real = features(600, 4, 0)
    floor = real_floor(
        distance, real, 100, 300, repeats=6, generator=torch.Generator().manual_seed(0)
    )
    assert floor.shape == (6,)
    assert floor.dtype == torch.float64
    assert floor.mean() + 4 * floor.std() < distance(features(100, 4, 0, shift=1.5), real[:300])


def test_a_floor_compares_as_many_as_asked_without_overlap_and_repeats_itself():
    seen = []

    def note(a: Tensor, b: Tensor) -> float:
        seen.append((a.flatten().tolist(), b.flatten().tolist()))
        return float(len(seen))

    real = torch.arange(10.0)[:, None]
    for _ in range(2):
        real_floor(note, real, 3, 5, repeats=2, generator=torch.Generator().manual_seed(1))
    assert all(len(a) == 3 and len(b) == 5 and not set(a) & set(b) for a, b in seen)
    assert seen[0] != seen[1]
    assert seen[:2] == seen[2:]


@pytest.mark.plain_errors
@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_distances_name_wrong_features(distance: Callable):
    good = torch.zeros(4, 3)
    for a, b, error, message in (
        (good[0], good, ValueError, r"features_a must have shape .* got \(3,\)"),
        (good, good[:1], ValueError, r"features_b must have shape .* got \(1, 3\)"),
        (good, good[:, :2], ValueError, "the same D, got 3 and 2"),
        (good / 0, good, ValueError, "features_a must be finite"),
        (good.int(), good, TypeError, "features_a must hold floating-point"),
    ):
        with pytest.raises(error, match=message):
            distance(a, b)


@pytest.mark.plain_errors
def test_a_floor_needs_enough_features():
    with pytest.raises(ValueError, match=r"real must hold at least .* = 12 features, got 10"):
        real_floor(frechet_distance, torch.zeros(10, 2), 4, 8)
    with pytest.raises(ValueError, match="sample_count must be at least 2, got 1"):
        real_floor(frechet_distance, torch.zeros(10, 2), 1, 8)
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        real_floor(frechet_distance, torch.zeros(10, 2), 4, 4, repeats=0)


# --- doubt


def shifted(count: int, rng: torch.Generator, shift: float = 0.2, width: int = 8) -> Tensor:
    return torch.randn(count, width, generator=rng, dtype=torch.float64) * 1.1 + shift


MEASURES = {
    "frechet": frechet_distance,
    "kernel": kernel_distance,
    "precision": lambda a, b: precision_recall(a, b).precision,
    "recall": lambda a, b: precision_recall(a, b).recall,
}


def test_the_error_of_a_mean_is_the_textbook_one():
    """Over all halves the standard deviation of a mean is exactly s / sqrt(n)."""
    values = features(60, 1, 0)
    rng = torch.Generator().manual_seed(0)
    error = bootstrap_error(
        lambda a, _: float(a.mean()), values, values, repeats=4000, generator=rng
    )
    # the deviation of a standard deviation from 4000 draws is 1.1 %
    assert error == pytest.approx(float(values.std()) / math.sqrt(60), rel=0.05)


@pytest.mark.parametrize("name", MEASURES)
def test_the_error_is_that_over_new_samples(name: str):
    """The standard deviation over fresh samples, which only a test can afford."""
    measure, rng = MEASURES[name], torch.Generator().manual_seed(0)
    real = torch.randn(400, 8, generator=rng, dtype=torch.float64)
    fresh = torch.tensor([measure(shifted(240, rng), real) for _ in range(150)]).std()
    errors = [
        bootstrap_error(measure, shifted(240, rng), real, repeats=40, generator=rng)
        for _ in range(8)
    ]
    assert sum(errors) / 8 == pytest.approx(float(fresh), rel=0.25)


def test_a_score_comes_with_its_error_and_its_floor():
    rng = torch.Generator().manual_seed(0)
    samples, real, more = features(80, 4, 1, shift=0.6), features(300, 4, 0), features(100, 4, 0)
    found = score(frechet_distance, samples, real, more, repeats=6, generator=rng)
    rng.manual_seed(0)
    assert found.value == frechet_distance(samples, real)
    assert found.error == bootstrap_error(frechet_distance, samples, real, repeats=6, generator=rng)
    floor = real_floor(frechet_distance, torch.cat([real, more]), 80, 300, repeats=6, generator=rng)
    assert (found.floor, found.floor_error) == (float(floor.mean()), float(floor.std()))
    assert str(Score(12.345, 0.21, 1.5, 0.03)) == "12.3 ± 0.2 (real data: 1.5 ± 0.03)"


@pytest.mark.plain_errors
def test_an_error_needs_enough_samples_and_repeats():
    four, three = torch.zeros(4, 2), torch.zeros(3, 2)
    with pytest.raises(ValueError, match="samples must hold at least 4 features, got 3"):
        bootstrap_error(frechet_distance, three, four)
    with pytest.raises(ValueError, match="repeats must be at least 2, got 1"):
        bootstrap_error(frechet_distance, four, four, repeats=1)
    with pytest.raises(TypeError, match="samples must be a tensor"):
        bootstrap_error(frechet_distance, [1.0], four)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"real must hold at least .* = 8 features, got 7"):
        score(frechet_distance, four, four, three)


# --- precision and recall, neighbors


def brute_force(samples: Tensor, real: Tensor, k: int) -> tuple[float, float, float, float]:
    """The definitions of the papers, pair by pair."""

    def far(x: Tensor, y: Tensor) -> float:
        return math.dist(x.tolist(), y.tolist())

    def radius(data: Tensor) -> list[float]:
        return [
            sorted(far(x, y) for j, y in enumerate(data) if j != i)[k - 1]
            for i, x in enumerate(data)
        ]

    of_samples, of_real = radius(samples), radius(real)
    inside = [[far(x, y) <= of_real[j] for j, y in enumerate(real)] for x in samples]
    among = [[far(x, y) <= of_samples[i] for i, x in enumerate(samples)] for y in real]
    return (
        sum(map(any, inside)) / len(samples),
        sum(map(any, among)) / len(real),
        sum(map(sum, inside)) / (k * len(samples)),
        sum(map(any, zip(*inside, strict=True))) / len(real),
    )


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall_against_the_definitions(k: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metrics, "_CHUNK", 16)  # several blocks, the last one shorter
    for seed in range(3):
        samples, real = features(40, 2, seed, shift=0.8), features(50, 2, seed + 7)
        found = precision_recall(samples, real, neighbors=k)
        assert found == pytest.approx(brute_force(samples, real, k), abs=1e-12)
        assert 0 < found.precision < 1
        assert 0 < found.recall < 1


def test_precision_is_quality_and_recall_is_variety():
    rng = torch.Generator().manual_seed(0)
    real = torch.cat([torch.randn(300, 4, generator=rng), torch.randn(300, 4, generator=rng) + 20])
    one_mode = torch.randn(600, 4, generator=rng)
    found = precision_recall(one_mode, real)
    assert found.precision > 0.85
    assert found.recall == pytest.approx(0.5, abs=0.08)
    assert found.coverage == pytest.approx(0.5, abs=0.08)
    half_junk = torch.cat([real[::2] + 0.01, torch.randn(300, 4, generator=rng) - 200])
    found = precision_recall(half_junk, real)
    assert found.precision == pytest.approx(0.5, abs=0.01)
    assert found.recall > 0.8
    # more of the same distribution: everything covers everything, density is 1 on average
    others = torch.randn(2, 2000, 3, generator=rng).unbind()
    found = precision_recall(*others, neighbors=5)
    assert found.density == pytest.approx(1, abs=0.05)
    # coverage of the same distribution is 1 - 2^-k for sets of one size (Naeem et al. 2020, eq. 8)
    assert found.coverage == pytest.approx(1 - 0.5**5, abs=0.015)
    assert precision_recall(real, real)[:2] == (1, 1)
    copies = real[:1].expand(20, -1)  # all in one place: good each, and no variety
    assert precision_recall(copies, real)[:2] == pytest.approx((1, 1 / 600), abs=1e-9)


@pytest.mark.plain_errors
def test_precision_and_recall_name_wrong_features():
    good = torch.zeros(5, 3)
    for a, b, message in (
        (good[0], good, r"samples must have shape .* got \(3,\)"),
        (good[:3], good, "samples must hold at least 4, one more than neighbors; got 3"),
        (good, good[:2], "real must hold at least 4, .* got 2"),
        (good, good[:, :2], "samples and real must have the same D, got 3 and 2"),
        (good, good / 0, "real must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            precision_recall(a, b)
    with pytest.raises(ValueError, match="neighbors must be at least 1, got 0"):
        precision_recall(good, good, neighbors=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearest_neighbors_against_a_loop(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metrics, "_CHUNK", 7)
    rng = torch.Generator().manual_seed(0)
    samples = torch.randn(17, 1, 4, 4, generator=rng, dtype=dtype)
    train = torch.randn(150, 1, 4, 4, generator=rng, dtype=dtype)
    train[31] = samples[3]
    found = nearest_neighbors(samples, train, count=3)
    for i, sample in enumerate(samples):
        distances = [math.dist(sample.flatten().tolist(), x.flatten().tolist()) for x in train]
        order = sorted(range(150), key=distances.__getitem__)[:3]
        assert found.place[i].tolist() == order
        expected = torch.tensor([distances[j] for j in order])
        assert_close(found.distance[i], expected, rtol=1e-6, atol=1e-6)
    assert float(found.distance[3, 0]) == 0
    assert found.distance.dtype == torch.float32


def test_near_copies_keep_their_order_where_rounding_would_mix_them():
    """Squares of 784 numbers near 1 lose what tells these neighbors apart, in float32."""
    rng = torch.Generator().manual_seed(0)
    sample = torch.ones(1, 784) + 0.01 * torch.randn(1, 784, generator=rng)
    direction = torch.nn.functional.normalize(torch.randn(1, 784, generator=rng))
    steps = torch.tensor([4e-3, 1e-3, 3e-3, 2e-3])[:, None]
    train = torch.cat([sample + steps * direction, torch.randn(50, 784, generator=rng)])
    assert nearest_neighbors(sample, train, count=4).place.tolist() == [[1, 3, 2, 0]]


@pytest.mark.plain_errors
def test_nearest_neighbors_name_wrong_arguments():
    good = torch.zeros(5, 1, 2, 2)
    for samples, train, count, message in (
        (good, good[:, 0], 1, r"samples and train must be .* got \(5, 1, 2, 2\) and \(5, 2, 2\)"),
        (good[:0], good, 1, "N >= 1"),
        (good, good, 6, "count must be at most 5, the size of train; got 6"),
        (good, good, 0, "count must be at least 1, got 0"),
        (good, good / 0, 1, "train must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            nearest_neighbors(samples, train, count=count)


def test_copies_are_told_from_other_images():
    generator = torch.Generator().manual_seed(0)
    train = torch.randn(40, 1, 4, 4, generator=generator)
    apart = (train.flatten(1)[:, None] - train.flatten(1)).norm(dim=2)
    apart = apart.fill_diagonal_(math.inf).amin(1).median()  # independent of nearest_neighbors
    direction = torch.nn.functional.normalize(torch.randn(16, generator=generator), dim=0)
    for share, copied in ((0.0, True), (0.49, True), (0.51, False)):
        moved = train[:1] + share * apart * direction.view(1, 1, 4, 4)
        assert copies(moved, train).tolist() == [copied]
    assert not copies(torch.randn(99, 1, 4, 4, generator=generator), train).any()
    twice = torch.cat([train, train, train])  # a data set that holds its images several times
    assert copies(train, twice).all()
    assert not copies(torch.randn(9, 1, 4, 4, generator=generator), twice).any()
    alone = train[:1].expand(5, -1, -1, -1)
    assert copies(torch.cat([alone, 0.9 * alone]), alone).all()
    assert not copies(torch.cat([train[1:], torch.zeros(1, 1, 4, 4)]), alone).any()
    assert not copies(torch.ones(3, 4), torch.ones(2, 4)).any()  # even gray is no picture


@pytest.mark.plain_errors
def test_copies_name_wrong_arguments():
    with pytest.raises(ValueError, match="samples and train must be"):
        copies(torch.zeros(3, 4), torch.ones(5, 3))
