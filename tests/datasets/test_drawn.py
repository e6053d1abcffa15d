"""The drawn data sets, against loops and colorsys."""

import colorsys
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tutorial_lib.datasets import circles, drawn, glyphs, load
from tutorial_lib.datasets import glyph_fields as _glyphs

# --- circles


def test_same_seed_same_bits_whatever_the_count():
    torch.manual_seed(1)
    first = circles(3000, size=16, seed=5)
    torch.manual_seed(2)
    again, fewer = circles(3000, size=16, seed=5), circles(7, size=16, seed=5)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)
    assert torch.equal(first.images[:7], fewer.images)
    assert not torch.equal(first.images, circles(3000, size=16, seed=6).images)


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    circles(3), glyphs(3)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("size", [8, 32, 64])
def test_discs_match_the_numbers_they_are_drawn_from(size: int):
    """Area, center and color, measured on the pixels, against the draws in plain Python."""
    data = circles(200, size=size, seed=3)
    rows = np.random.default_rng([3, 0]).random((200, 6))
    light = ((data.images + 1) / 2).amax(1)
    place = torch.arange(size) + 0.5
    for i, (a, b, c, hue, saturation, value) in enumerate(rows):
        radius = (0.15 + 0.2 * a) * size
        x, y = radius + b * (size - 2 * radius), radius + c * (size - 2 * radius)
        r, g, b_ = colorsys.hsv_to_rgb(hue, 0.6 + 0.4 * saturation, 0.7 + 0.3 * value)
        at = data.images[i, :, int(y), int(x)]
        assert_close((at + 1) / 2, torch.tensor([r, g, b_]).float(), atol=1e-6, rtol=0)
        covered = light[i] / max(r, g, b_)
        # A ramp from 1 to 0 around the radius covers pi / 12 more than the disc.
        area = np.pi * (radius**2 + 1 / 12)
        assert_close(float(covered.sum()), area, atol=0, rtol=0.05)
        assert_close(float((covered.sum(0) * place).sum() / covered.sum()), x, atol=0.1, rtol=0)
        assert_close(float((covered.sum(1) * place).sum() / covered.sum()), y, atol=0.1, rtol=0)


def test_the_rim_is_near_the_exact_coverage():
    """Against 64 x 64 points per pixel. The ramp along the distance is exact for upright edges; at
    45 degrees it is off by up to (sqrt(2) - 1)^2 / 2 = 0.086, the small radius adds a little."""
    x, y, radius = torch.tensor([9.3, 16.0]), torch.tensor([12.8, 16.0]), torch.tensor([4.8, 11.2])
    coverage = drawn._disc_coverage(x, y, radius, 32, 32)
    fine = (torch.arange(32 * 64) + 0.5) / 64
    for i in range(2):
        inside = (fine - x[i]) ** 2 + (fine[:, None] - y[i]) ** 2 < radius[i] ** 2
        exact = inside.float().view(32, 64, 32, 64).mean((1, 3))
        assert (coverage[i] - exact).abs().max() < 0.11
        assert (coverage[i] - exact).abs().mean() < 0.002


def test_hue_classes_are_the_nearest_hue():
    data = circles(600, seed=1)
    assert data.class_names == ("red", "yellow", "green", "cyan", "blue", "magenta")
    brightest = data.images.flatten(2).sum(1).argmax(1)
    for image, label, at in zip(data.images, data.labels, brightest, strict=True):
        r, g, b = ((image.flatten(1)[:, at] + 1) / 2).tolist()
        away = abs(colorsys.rgb_to_hsv(r, g, b)[0] * 6 - int(label))
        assert min(away, 6 - away) < 0.5 + 1e-4


def test_gray_discs_are_sorted_by_radius():
    data = circles(600, channels=1, size=32, seed=1)
    assert data.images.shape == (600, 1, 32, 32)
    assert data.class_names == ("small", "medium", "large")
    level = (data.images + 1).flatten(1)
    radius = ((level.sum(1) / level.amax(1)) / np.pi).sqrt() / 32
    expected = ((radius - 0.15) / 0.2 * 3).clamp(0, 2.999)
    off = (expected - data.labels - 0.5).abs()
    assert off.max() < 0.55  # half a class, and what pixels blur
    assert data.labels.bincount().min() > 150


def test_another_size_shows_the_same_discs():
    """Averaging pairs of pixels of the large ones gives the small ones, except at the rim."""
    large, small = circles(100, size=64, seed=2).images, circles(100, size=32, seed=2).images
    pooled = torch.nn.functional.avg_pool2d(large, 2)
    assert (pooled - small).abs().mean() < 0.003
    assert (pooled - small).abs().max() < 0.35


# --- glyphs


def test_glyphs_are_repeatable_and_begin_alike():
    first, again, fewer = glyphs(1500, seed=4), glyphs(1500, seed=4), glyphs(5, seed=4)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.images[:5], fewer.images)
    assert torch.equal(first.labels[:5], fewer.labels)
    assert not torch.equal(first.images, glyphs(1500, seed=5).images)


def test_glyphs_are_inside_white_on_black_and_balanced():
    data = glyphs(4000, seed=0)
    assert data.images.shape == (4000, 1, 28, 28)
    frame = torch.ones(28, 28, dtype=torch.bool)
    frame[1:-1, 1:-1] = False
    assert (data.images[:, 0, frame] == -1).all()
    # A hairline is half a pixel wide and gray; none is so faint that a digit would vanish.
    assert data.images.amax((1, 2, 3)).min() > 0.5
    assert (data.images.amax((1, 2, 3)) == 1).float().mean() > 0.9
    assert data.labels.bincount(minlength=10).min() > 320
    assert data.class_names == tuple("0123456789")


def test_the_labels_of_glyphs_are_what_they_show():
    """The nearest of 2000 other glyphs has the same label in more than 95 of 100 cases."""
    known, asked = load("glyphs", seed=0), load("glyphs", split="test", seed=0)
    pixels, labels = known.images[:2000].flatten(1), known.labels[:2000]
    nearest = torch.cdist(asked.images[:500].flatten(1), pixels).argmin(1)
    assert (labels[nearest] == asked.labels[:500]).float().mean() > 0.95


def test_glyphs_vary():
    data = glyphs(2000, seed=0)
    zeros = data.images[data.labels == 0].flatten(1)
    assert len(torch.unique(zeros, dim=0)) == len(zeros)
    ink = ((zeros + 1) / 2).mean(1)
    assert ink.quantile(0.95) > 1.8 * ink.quantile(0.05)  # hairlines and bold faces


def test_another_size_shows_the_same_glyphs():
    large, small = glyphs(100, size=56, seed=1).images, glyphs(100, size=28, seed=1).images
    assert (torch.nn.functional.avg_pool2d(large, 2) - small).abs().mean() < 0.03


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"count": 0}, ValueError, "count must be at least 1, got 0"),
        ({"count": 2.5}, TypeError, "count must be an int"),
        ({"count": 2, "size": 4}, ValueError, "size must be at least 8, got 4"),
        ({"count": 2, "channels": 2}, ValueError, "channels must be 1 or 3, got int 2"),
        ({"count": 2, "seed": -3}, ValueError, "seed must be at least 0, got -3"),
    ],
)
def test_circles_name_the_wrong_argument(arguments: dict, error: type, message: str):
    with pytest.raises(error, match=message):
        circles(**arguments)


def test_importing_datasets_loads_neither_torchvision_nor_matplotlib():
    code = (
        "import sys; from tutorial_lib import datasets; datasets.glyphs(1); "
        "print(sorted({'torchvision', 'matplotlib'} & sys.modules.keys()))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_drawing_gives_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _glyphs.distance_fields.cache_clear()
        glyphs(2)
        circles(2)


@pytest.mark.plain_errors
@pytest.mark.parametrize("draw", [circles, glyphs])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 10, "size": 10**6}, "size must fit in memory, got 1000000: a set of 10 images"),
        ({"count": 10**13, "size": 8}, "count must fit in memory, got 10000000000000: a set of"),
        ({"count": 1, "size": 10**400}, r"size must fit in memory, got about 10\^"),
    ],
)
def test_sets_that_do_not_fit_in_memory_are_refused(draw, arguments: dict, message: str):
    with pytest.raises(ValueError, match=f"^{message}"):
        draw(**arguments)
