"""Is an image one clean disc? A judge for samples of models trained on ``datasets.circles``."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._validate import InvalidValueError

_CHUNK = 1024  # images judged at once

MIN_SHAPE = 0.95
"""An ellipse whose axes differ by a tenth scores 0.94, a regular hexagon 0.93, a square 0.84. Real
discs score 0.97 at least, 0.96 in images of 16 pixels, where the smallest radius is 2.4."""
MAX_UNEVENNESS = 0.05
"""In brightness, black 0 and white 1: 13 of 255 levels in the root mean square, 38 at the worst
pixel. This permits a gradient of up to 0.2 across the disc; a stronger one is plainly visible."""
MAX_DIRT = 0.05
"""The same for the background: a haze above 13 levels looks gray, a dot above 38 is visible."""
MIN_BRIGHTNESS = 0.5
"""Discs of the data have 0.7 to 1; one darker than half is not clearly there any more."""
MIN_RADIUS = 2.0
"""In pixels: a smaller disc covers the same few pixels as a square."""
_FIT_STEPS = 4
_RAMP = 0.7  # see _foreground


class DiscQuality(NamedTuple):
    """The verdict of ``disc_quality`` and the measurements behind it, each of shape (N,).

    Attributes:
        is_disc: bool, True if all three measurements are within their limits.
        shape: 0..1, intersection over union of the foreground and the best disc; 1 is perfect.
        unevenness: 0..1, difference from the disc's mean color inside; 0 is perfect.
        dirt: 0..1, difference from black outside; 0 is perfect.
    """

    is_disc: Tensor
    shape: Tensor
    unevenness: Tensor
    dirt: Tensor


@torch.no_grad()
def disc_quality(images: Tensor) -> DiscQuality:
    """Judges whether each image is one clean, evenly colored disc on a clean black background.

    Made for samples of models trained on ``datasets.circles``. The foreground is what is bright (in
    the largest channel, relative to the disc's own brightness); the disc is its best fit in least
    squares. ``shape`` compares the two. Only ``shape`` judges the rim, one pixel to each side.
    Farther in, pixels must have the disc's color (``unevenness``); farther out, they must be black
    (``dirt``). Both are the larger of the root mean square and a third of the worst pixel: the
    first catches gradients and haze, the second spots, bites and a second disc. Values outside
    [-1, 1] are clamped, as on a screen.

    Images without a disc to measure (too dark, too small, or with a NaN or infinite value) get the
    worst values: shape 0, unevenness 1, dirt 1.

    Args:
        images: (N, C, H, W), values in [-1, 1], C is 1 or 3.

    Raises:
        TypeError, ValueError: not a floating-point tensor; another shape.
    """
    images = _validate.floating("images", images)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.numel():
        shape = tuple(images.shape)
        raise InvalidValueError(f"images must have shape (N, 1 or 3, H, W), N >= 1; got {shape}")
    parts = [_measure_discs(part.float()) for part in images.split(_CHUNK)]
    shape, unevenness, dirt = (torch.cat(column) for column in zip(*parts, strict=True))
    is_disc = (shape >= MIN_SHAPE) & (unevenness <= MAX_UNEVENNESS) & (dirt <= MAX_DIRT)
    return DiscQuality(is_disc, shape, unevenness, dirt)


def _measure_discs(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shape, unevenness and dirt, (N,) each, of float32 images (N, C, H, W)."""
    finite = images.flatten(1).isfinite().all(1)
    color = ((images.nan_to_num() + 1) / 2).clamp(0, 1)  # 0 is black
    light = color.amax(1)  # (N, H, W)
    level, disc = _fit_disc(light)
    covered = _foreground(light / level[:, None, None])
    rim = disc.radius[:, None, None] - disc.distance  # how deep a pixel lies inside
    model = _foreground(rim + 0.5)
    overlap = torch.minimum(covered, model).sum((1, 2))
    # The full area, including what is beyond the border: a disc that is cut off does not count.
    union = covered.sum((1, 2)) + math.pi * disc.radius**2 - overlap
    shape = (overlap / union.clamp(min=1e-6)).clamp(0, 1)
    inside = rim > 1
    mean = (color * inside[:, None]).sum((2, 3)) / inside.sum((1, 2)).clamp(min=1)[:, None]
    off = (color - mean[:, :, None, None]).abs().amax(1)  # (N, H, W), in the worst channel
    unevenness, dirt = _difference(off, inside), _difference(light, rim < -1)
    there = finite & (level >= MIN_BRIGHTNESS) & (disc.radius >= MIN_RADIUS)
    worst = torch.ones_like(shape)
    return shape * there, torch.where(there, unevenness, worst), torch.where(there, dirt, worst)


def _difference(off: Tensor, where: Tensor) -> Tensor:
    """The larger of the root mean square of ``off`` (N, H, W) over ``where`` and a third of its
    maximum there."""
    off = off * where
    spread = (off.square().sum((1, 2)) / where.sum((1, 2)).clamp(min=1)).sqrt()
    return torch.maximum(spread, off.amax((1, 2)) / 3)


class _Disc(NamedTuple):
    """A disc in each image: its radius (N,), and each pixel's distance (N, H, W) to its center."""

    radius: Tensor
    distance: Tensor


def _fit_disc(light: Tensor) -> tuple[Tensor, _Disc]:
    """The brightness (N,) of the disc in ``light`` (N, H, W), and the disc.

    Starts from area and center of mass, then takes Gauss-Newton steps on the squared difference
    between the foreground and a drawn disc, whose rim is a ramp: moving the center or the radius
    changes only pixels of the rim, and for a round rim the three moves are orthogonal.
    """
    bright = light > light.amax((1, 2), keepdim=True) / 2
    level = (light * bright).sum((1, 2)) / bright.sum((1, 2)).clamp(min=1)
    level = level.clamp(min=1e-6)
    covered = _foreground(light / level[:, None, None])
    area = covered.sum((1, 2)).clamp(min=1e-6)
    x = torch.arange(light.shape[2], device=light.device) + 0.5
    y = torch.arange(light.shape[1], device=light.device) + 0.5
    center_x = (covered.sum(1) * x).sum(1) / area
    center_y = (covered.sum(2) * y).sum(1) / area
    radius = (area / math.pi).sqrt()
    for _ in range(_FIT_STEPS):
        dx, dy, distance = _offsets(x, y, center_x, center_y)
        rim = radius[:, None, None] - distance
        inside = rim > 1  # clear of the rim's mixed pixels
        mean = (light * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
        level = torch.where(inside.flatten(1).any(1), mean, level).clamp(min=1e-6)
        error = (_foreground(light / level[:, None, None]) - _foreground(rim + 0.5)) * _RAMP
        on_ramp = rim.abs() < _RAMP / 2
        far = distance.clamp(min=1e-6)
        moves = []
        for slope in (on_ramp.float(), on_ramp * dx / far, on_ramp * dy / far):
            best = (error * slope).sum((1, 2)) / slope.square().sum((1, 2)).clamp(min=1)
            moves.append(best.clamp(-0.5, 0.5))
        radius, center_x, center_y = radius + moves[0], center_x + moves[1], center_y + moves[2]
    return level, _Disc(radius.clamp(min=0), _offsets(x, y, center_x, center_y)[2])


def _offsets(
    x: Tensor, y: Tensor, center_x: Tensor, center_y: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Horizontal, vertical and Euclidean distance of pixels to each center: (N, 1, W), (N, H, 1)
    and (N, H, W)."""
    dx = (x - center_x[:, None])[:, None, :]
    dy = (y - center_y[:, None])[:, :, None]
    return dx, dy, (dx**2 + dy**2).sqrt()


def _foreground(share: Tensor) -> Tensor:
    """Foreground in [0, 1] from brightness relative to the disc's.

    The lowest and highest 15 % count as background and disc. ``dirt`` and ``unevenness`` judge
    small differences there; summed over a thousand pixels they would dominate the shape.
    """
    return ((share - 0.5) / _RAMP + 0.5).clamp(0, 1)
