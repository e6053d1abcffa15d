"""The judge of discs, on real and faked images."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tutorial_lib import datasets
from tutorial_lib.datasets import circles
from tutorial_lib.metrics import (
    disc_quality,
)
from tutorial_lib.metrics import discs as metrics

COUNT = 60
FINE = 6  # points of a pixel along each axis where shapes are drawn here


def accepted(images: Tensor) -> float:
    return float(disc_quality(images).is_disc.float().mean())


# --- shapes drawn point by point, not by the library


Outline = Callable[[Tensor, Tensor], Tensor]
"""Whether the points (x, y), relative to the center and in radii, belong to a shape."""


def shapes(outline: Outline, size: int = 32, largest: float = 0.28, seed: int = 0) -> Tensor:
    """Images of ``outline`` at random places, sizes, turns and colors, black around."""
    rng = torch.Generator().manual_seed(seed)
    points = (torch.arange(size * FINE) + 0.5) / FINE
    pictures = []
    for _ in range(COUNT):
        u = torch.rand(7, generator=rng).tolist()
        radius = (0.15 + (largest - 0.15) * u[0]) * size
        x, y = (points - radius - place * (size - 2 * radius) for place in u[1:3])
        cos, sin = math.cos(2 * math.pi * u[3]) / radius, math.sin(2 * math.pi * u[3]) / radius
        inside = outline(x * cos + y[:, None] * sin, y[:, None] * cos - x * sin)
        mask = inside.float().view(size, FINE, size, FINE).mean((1, 3))
        color = torch.tensor([0.7 + 0.3 * u[4], 0.4 * u[5], 0.4 * u[6]])
        pictures.append(mask * color.roll(int(3 * u[6]))[:, None, None])
    return torch.stack(pictures) * 2 - 1


def disc(x: Tensor, y: Tensor) -> Tensor:
    return x**2 + y**2 < 1


def ellipse(ratio: float) -> Outline:
    return lambda x, y: x**2 * ratio + y**2 / ratio < 1


def polygon(corners: int) -> Outline:
    def outline(x: Tensor, y: Tensor) -> Tensor:
        angles = [2 * math.pi * k / corners for k in range(corners)]
        depths = [x * math.cos(angle) + y * math.sin(angle) for angle in angles]
        return torch.stack(depths).amax(0) < 0.9

    return outline


def flower(x: Tensor, y: Tensor) -> Tensor:
    return (x**2 + y**2).sqrt() < 1 + 0.12 * torch.cos(4 * torch.atan2(y, x))


NOT_DISCS = {
    "ellipse, 15 % longer": ellipse(1.15),
    "ellipse, 50 % longer": ellipse(1.5),
    "triangle": polygon(3),
    "square": polygon(4),
    "pentagon": polygon(5),
    "flower": flower,
    "ring": lambda x, y: disc(x, y) & ~disc(2 * x, 2 * y),
    "half": lambda x, y: disc(x, y) & (x < 0),
    "quarter missing": lambda x, y: disc(x, y) & ((x < 0) | (y < 0)),
    "slice missing": lambda x, y: disc(x, y) & (x < 0.6),
    "two discs": lambda x, y: disc(2 * x - 1, 2 * y) | disc(2.5 * x + 1.5, 2.5 * y),
    "two apart": lambda x, y: disc((x + 0.35) / 0.6, y / 0.6) | disc((x - 0.75) / 0.2, y / 0.2),
    "bite": lambda x, y: disc(x, y) & ~disc(2.5 * x - 2.5, 2.5 * y),
}


def blurred(images: Tensor, sigma: float) -> Tensor:
    offsets = torch.arange(-9, 10.0)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    flat = (images + 1).flatten(0, 1)[:, None]
    flat = torch.nn.functional.conv2d(flat, kernel, padding=(0, 9))
    flat = torch.nn.functional.conv2d(flat, kernel.transpose(2, 3), padding=(9, 0))
    return flat.view(images.shape) - 1


def shaded(images: Tensor, span: float) -> Tensor:
    """Discs whose color falls by the share ``span`` from their left edge to their right."""
    light = images.amax((1, 2)) > 0  # (N, W), columns of the disc
    place = light.cumsum(1) / light.sum(1, keepdim=True)
    return (images + 1) * (1 - span * place)[:, None, None] - 1


def two_hues(images: Tensor) -> Tensor:
    """Discs whose left half has another color of the same brightness."""
    light = (images.amax((1, 2)) > 0).float()
    left = light.cumsum(1) < light.sum(1, keepdim=True) / 2
    return torch.where(left[:, None, None], images.roll(1, 1), images)


def noisy(images: Tensor, sigma: float) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return images + sigma * torch.randn(images.shape, generator=rng)


# --- the judge


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "count"), [(16, 3000), (24, 2000), (32, 3000), (64, 500)])
def test_every_real_image_is_a_disc(size: int, channels: int, count: int):
    for seed in (0, 1):
        quality = disc_quality(circles(count, size=size, channels=channels, seed=seed).images)
        assert quality.is_disc.all()
        assert quality.shape.min() > 0.96
        assert quality.unevenness.max() < 1e-5
        assert quality.dirt.max() < 1e-5


def test_discs_drawn_in_another_way_are_discs():
    quality = disc_quality(shapes(disc, largest=0.35))
    assert quality.is_disc.all()
    assert quality.shape.min() > 0.97


@pytest.mark.parametrize("size", [24, 32])
@pytest.mark.parametrize("name", NOT_DISCS)
def test_other_shapes_are_not_discs(name: str, size: int):
    assert accepted(shapes(NOT_DISCS[name], size)) <= 0.02


def test_invisible_faults_are_forgiven():
    real = circles(COUNT, seed=2).images
    assert accepted(shapes(ellipse(1.04))) == 1
    assert accepted(blurred(real, 0.3)) == 1
    assert accepted(shaded(real, 0.1)) == 1
    assert accepted(noisy(real, 0.03)) == 1
    assert accepted(real * 1.2) == 1  # a screen clamps


def test_visible_faults_are_not_forgiven():
    real = circles(COUNT, seed=2).images
    spotted, dotted = real.clone(), real.clone()
    for i, image in enumerate(real.amax(1)):
        y, x = (image > 0).nonzero().float().mean(0).round().int().tolist()
        spotted[i, :, y, x] = -0.2
        dotted[i, :, (y + 16) % 32, (x + 16) % 32] = -0.5
    for images in (
        blurred(real, 1.2),
        blurred(real, 3),
        shaded(real, 0.4),
        two_hues(real),
        noisy(real, 0.12),
        real.clamp(min=-0.8),  # gray ground
        -real,
        (real + 1) * 0.45 - 1,  # too dark
        spotted,
        dotted,
    ):
        assert accepted(images) <= 0.02


def test_discs_cut_by_the_border_are_not_discs():
    real = circles(COUNT, size=32, seed=3).images
    for image in real:
        columns = (image.amax((0, 1)) > 0).nonzero()
        middle = int(columns.float().mean())
        image.copy_(torch.cat([image[:, :, middle:], -torch.ones(3, 32, middle)], 2))
    assert accepted(real) == 0


def test_empty_flat_and_random_images_are_not_discs():
    rng = torch.Generator().manual_seed(0)
    normal = torch.randn(COUNT, 3, 32, 32, generator=rng)
    for images in (normal, normal * 0.1 - 1, blurred(normal * 9, 3), normal.sign()):
        assert accepted(images) == 0
    for level in (-1.0, -0.9, 0.0, 1.0):
        assert accepted(torch.full((2, 1, 32, 32), level)) == 0
    assert accepted(datasets.glyphs(COUNT).images) == 0
    corner = -torch.ones(1, 1, 16, 16)
    corner[0, 0, 4:6, 4:6] = 1  # two by two pixels are neither disc nor square
    assert accepted(corner) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_image_that_is_not_finite_gets_the_worst_values(value: float):
    images = circles(3).images
    images[1, 2, 5, 5] = value
    quality = disc_quality(images)
    assert quality.is_disc.tolist() == [True, False, True]
    assert [float(column[1]) for column in quality[1:]] == [0, 1, 1]
    assert all(column.isfinite().all() for column in quality)


def test_each_measurement_reacts_to_its_own_fault():
    real = circles(COUNT, seed=4).images
    limits = (metrics.MIN_SHAPE, metrics.MAX_UNEVENNESS, metrics.MAX_DIRT)
    shape, unevenness, dirt = disc_quality(shapes(ellipse(1.12)))[1:]
    assert (shape < limits[0]).float().mean() > 0.9
    assert (unevenness < limits[1]).float().mean() > 0.9
    assert (dirt < limits[2]).float().mean() > 0.9
    shape, unevenness, dirt = disc_quality(two_hues(real))[1:]
    assert (shape > limits[0]).all()
    assert (unevenness > limits[1]).float().mean() > 0.9
    assert (dirt < limits[2]).all()
    shape, unevenness, dirt = disc_quality(real.clamp(min=-0.85))[1:]
    assert (shape > limits[0]).all()
    assert (unevenness < limits[1]).all()
    assert_close(dirt, torch.full((COUNT,), 0.075), atol=1e-6, rtol=0)


def test_an_ellipse_scores_as_geometry_predicts():
    """The best disc for an ellipse with axes in the ratio 1 + 2 d: 1 - 4 d / pi, to first order."""
    d = 0.05
    shape = disc_quality(shapes(ellipse(1 + 2 * d), size=64)).shape
    assert_close(float(shape.mean()), 1 - 4 * d / math.pi, atol=0.01, rtol=0)


def test_the_verdict_does_not_depend_on_the_batch_or_on_rotation():
    images = noisy(circles(COUNT, seed=5).images, 0.06)
    together = disc_quality(images)
    alone = [disc_quality(image[None]) for image in images]
    assert together.is_disc.tolist() == [bool(one.is_disc) for one in alone]
    turned = disc_quality(torch.rot90(images, 1, (2, 3)))
    for left, right in zip(together[1:], turned[1:], strict=True):
        assert_close(left, right, atol=1e-3, rtol=0)


@pytest.mark.plain_errors
def test_the_judge_names_wrong_images():
    for wrong, error, message in (
        (torch.zeros(3, 32, 32), ValueError, r"images must have shape .* got \(3, 32, 32\)"),
        (torch.zeros(1, 2, 8, 8), ValueError, r"1 or 3.* got \(1, 2, 8, 8\)"),
        (torch.zeros(0, 3, 8, 8), ValueError, "N >= 1"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, "images must hold floating-point"),
        ([1, 2], TypeError, "images must be a tensor"),
    ):
        with pytest.raises(error, match=message):
            disc_quality(wrong)  # pyright: ignore[reportArgumentType]
