"""Drawn data sets: they need no files and no network, and a seed always gives the same bits."""

import numpy as np
import torch
from torch import Tensor

from tutorial_lib import _memory, _validate
from tutorial_lib._validate import InvalidValueError
from tutorial_lib.datasets import glyph_fields as _glyphs
from tutorial_lib.datasets.dataset import DIGITS, Dataset

_CHUNK = 1024  # images drawn at once: keeps the working memory at some tens of megabytes
HUES = ("red", "yellow", "green", "cyan", "blue", "magenta")
RADII = ("small", "medium", "large")


def circles(count: int, *, size: int = 32, channels: int = 3, seed: int = 0) -> Dataset:
    """``count`` images of one colored disc each, on a black background.

    The radius is uniform in [0.15, 0.35] x ``size``, the center uniform over the places where the
    whole disc is inside. The hue is uniform, the saturation uniform in [0.6, 1], the value in
    [0.7, 1]; gray discs differ in value only. The rim is anti-aliased by its distance in pixels.

    Labels: the nearest of six hues (``HUES``); with one channel, thirds of the radii (``RADII``).
    Image i depends only on ``seed`` and i, so a longer set begins with the shorter one, and another
    ``size`` shows the same discs, larger or smaller.

    Raises:
        TypeError, ValueError: ``count`` below 1, ``size`` below 8, ``seed`` below 0, or not ints;
            ``channels`` other than 1 or 3.
    """
    return draw_circles(count, size, channels, seed, stream=0)


def draw_circles(count: int, size: int, channels: int, seed: int, stream: int) -> Dataset:
    """``circles``; streams of one seed are independent (training and test images)."""
    if channels not in (1, 3):
        raise InvalidValueError(f"channels must be 1 or 3, got {_validate.describe(channels)}")
    u = draws(count, size, seed, stream, columns=6).unbind(1)
    radius = (0.15 + 0.20 * u[0]) * size
    center_x, center_y = (radius + u[i] * (size - 2 * radius) for i in (1, 2))
    value = 0.7 + 0.3 * u[5]
    if channels == 3:
        color = _hsv_to_rgb(u[3], 0.6 + 0.4 * u[4], value)
        labels, names = (u[3] * 6).round().long() % 6, HUES
    else:
        color = value[:, None]
        labels, names = (u[0] * 3).long(), RADII
    images = torch.empty(count, channels, size, size)
    for start in range(0, count, _CHUNK):
        at = slice(start, start + _CHUNK)
        coverage = _disc_coverage(center_x[at], center_y[at], radius[at], size, size)
        torch.mul(coverage[:, None], 2 * color[at, :, None, None].float(), out=images[at])
    return Dataset(images.sub_(1), labels, names)


def draws(
    count: int, size: int, seed: int, stream: int, *, columns: int, channels: int = 1
) -> Tensor:
    """Uniform numbers, float64 (count, columns), one row for each image, after checking the
    arguments that all drawn sets have. A longer draw begins with the shorter one."""
    _validate.whole_number("count", count, at_least=1)
    _validate.whole_number("size", size, at_least=8)
    _validate.whole_number("seed", seed, at_least=0)
    check_size(count, size, channels)
    # NumPy's generator takes both seed and stream; torch's keeps 32 bits of one number.
    return torch.from_numpy(np.random.default_rng([seed, stream]).random((count, columns)))


def check_size(count: int, size: int, channels: int = 1) -> None:
    """Raises ValueError if ``count`` images of ``size`` pixels a side cannot fit in memory."""
    name, value = ("count", count) if count > size**2 else ("size", size)
    what = f"a set of {_validate.shown(count)} images"
    _memory.check_fits(name, value, 4 * channels * count * size**2, what)


def _disc_coverage(
    center_x: Tensor, center_y: Tensor, radius: Tensor, height: int, width: int
) -> Tensor:
    """The share of each pixel inside the disc, from the distance of its center to the rim.

    Args:
        center_x, center_y, radius: (N,), in pixels; pixel j spans j..j + 1.

    Returns:
        (N, height, width) float32, 1 deep inside, 0 outside, a ramp one pixel wide at the rim.
    """
    dx = torch.arange(width) + 0.5 - center_x.float()[:, None]
    dy = torch.arange(height) + 0.5 - center_y.float()[:, None]
    distance = (dx[:, None, :] ** 2 + dy[:, :, None] ** 2).sqrt_()  # (N, H, W)
    return distance.neg_().add_(radius.float()[:, None, None] + 0.5).clamp_(0, 1)


def _hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """RGB in [0, 1], (N, 3), of colors given by hue, saturation and value in [0, 1], (N,)."""
    # The compact form of the hexcone: channel n is v - v s max(0, min(k, 4 - k, 1)), k = n + 6 h.
    k = (torch.tensor([5.0, 3.0, 1.0], dtype=hue.dtype) + 6 * hue[:, None]) % 6
    ramp = torch.minimum(k, 4 - k).clamp(0, 1)
    return value[:, None] * (1 - saturation[:, None] * ramp)


def glyphs(count: int, *, size: int = 28, seed: int = 0) -> Dataset:
    """``count`` gray images of one printed digit each, white on black.

    Drawn with 17 of the fonts that matplotlib ships. These are uniform: the digit, the font, the
    longer of its height and width in [0.56, 0.68] x ``size``, a rotation of up to 12 degrees, a
    slant from 0.1 to the left to 0.2 to the right, a shift of up to 0.05 x ``size``, and how much
    thicker than printed each side of a stroke is, in [0.004, 0.03] x ``size``.

    Labels: the digit. Image i depends only on ``seed`` and i, and another ``size`` shows the same
    digits, larger or smaller.

    Raises:
        TypeError, ValueError: ``count`` below 1, ``size`` below 8, ``seed`` below 0, or not ints.
        FileNotFoundError: matplotlib's fonts are not installed.
    """
    return draw_glyphs(count, size, seed, stream=0)


def draw_glyphs(count: int, size: int, seed: int, stream: int) -> Dataset:
    """``glyphs``; streams of one seed are independent (training and test images)."""
    numbers = draws(count, size, seed, stream, columns=8)
    u = numbers.unbind(1)
    digit, font = (u[0] * 10).long(), (u[1] * len(_glyphs.FONTS)).long()
    images = torch.empty(count, 1, size, size)
    for start in range(0, count, _CHUNK):
        at = slice(start, start + _CHUNK)
        images[at] = _glyphs.draw(
            font[at],
            digit[at],
            size,
            scale=0.56 + 0.12 * u[2][at],
            turn=torch.deg2rad(24 * u[3][at] - 12),
            slant=0.3 * u[4][at] - 0.1,
            shift=0.1 * numbers[at, 5:7] - 0.05,
            stroke=0.004 + 0.026 * u[7][at],
        )
    return Dataset(images.mul_(2).sub_(1), digit, DIGITS)
