"""Images to learn from, always float32 in [-1, 1], (N, C, H, W), with labels and class names.

``circles`` is drawn here, so it needs no network: the same seed gives the same bits.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tutorial_lib import _validate

HUES = ("red", "yellow", "green", "cyan", "blue", "magenta")
RADII = ("small", "medium", "large")
_CHUNK = 2048  # images drawn at once: keeps the working memory at some tens of megabytes


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images with a label each.

    Args:
        images: (N, C, H, W) float32, values in [-1, 1], C is 1 (grey) or 3 (RGB), N at least 1.
        labels: (N,) int64, places in ``class_names``.
        class_names: one name for each class, in the order of the labels.

    Raises:
        TypeError: images are not float32 or labels not int64.
        ValueError: another shape, a value outside [-1, 1] (NaN included), a label without a name.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        images = _validate.floating("images", self.images)
        if images.dtype != torch.float32:
            raise TypeError(f"images must be float32, got {images.dtype}")
        if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.numel():
            shape = tuple(images.shape)
            raise ValueError(f"images must have shape (N, 1 or 3, H, W), N >= 1; got {shape}")
        low, high = (float(end) for end in images.aminmax())
        if not (low >= -1 and high <= 1):  # NaN compares false, so it lands here too
            raise ValueError(f"images must lie in [-1, 1], got values from {low:g} to {high:g}")
        if not isinstance(self.labels, Tensor) or self.labels.dtype != torch.int64:
            raise TypeError(
                f"labels must be an int64 tensor, got {_validate.describe(self.labels)}"
            )
        if self.labels.shape != (len(images),):
            shape = tuple(self.labels.shape)
            raise ValueError(f"labels must have shape ({len(images)},), one an image; got {shape}")
        object.__setattr__(self, "class_names", tuple(self.class_names))
        first, last = (int(end) for end in self.labels.aminmax())
        if first < 0 or last >= len(self.class_names):
            span = f"0..{len(self.class_names) - 1}, one for each class name"
            raise ValueError(f"labels must be in {span}; got {first if first < 0 else last}")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shape = " x ".join(str(n) for n in self.images.shape)
        names = ", ".join(self.class_names[:10])
        more = f", ... ({len(self.class_names)})" if len(self.class_names) > 10 else ""
        return f"Dataset({shape} float32 in [-1, 1], classes: {names}{more})"


def circles(count: int, *, size: int = 32, channels: int = 3, seed: int = 0) -> Dataset:
    """``count`` images of one coloured disc each, on black ground.

    The radius is uniform in [0.15, 0.35] x ``size``, the centre uniform where the whole disc lies
    inside. The hue is uniform, the saturation uniform in [0.6, 1], the value in [0.7, 1]; with one
    channel the value alone is drawn. The rim is anti-aliased by its distance in pixels.

    Labels: the nearest of six hues (``HUES``); with one channel, thirds of the radii (``RADII``).
    Image i depends on ``seed`` and i alone, so a longer set begins with the shorter one, and
    another ``size`` shows the same discs, larger or smaller.

    Raises:
        TypeError, ValueError: ``count`` below 1, ``size`` below 8, ``seed`` below 0, or no ints;
            ``channels`` other than 1 or 3.
    """
    return _circles(count, size, channels, seed, stream=0)


def _circles(count: int, size: int, channels: int, seed: int, stream: int) -> Dataset:
    """``circles``; streams of one seed are independent (training and test images)."""
    _validate.whole_number("count", count, at_least=1)
    _validate.whole_number("size", size, at_least=8)
    _validate.whole_number("seed", seed, at_least=0)
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {_validate.describe(channels)}")
    # One row an image: a longer draw begins with the shorter one.
    draws = np.random.default_rng([seed, stream]).random((count, 6), dtype=np.float64)
    u = torch.from_numpy(draws).unbind(1)
    radius = (0.15 + 0.20 * u[0]) * size
    centre_x, centre_y = (radius + u[i] * (size - 2 * radius) for i in (1, 2))
    value = 0.7 + 0.3 * u[5]
    if channels == 3:
        colour = _hsv_to_rgb(u[3], 0.6 + 0.4 * u[4], value)
        labels, names = (u[3] * 6).round().long() % 6, HUES
    else:
        colour = value[:, None]
        labels, names = (u[0] * 3).long(), RADII
    images = torch.empty(count, channels, size, size)
    for part in torch.arange(count).split(_CHUNK):
        at = slice(int(part[0]), int(part[-1]) + 1)
        coverage = _disc_coverage(centre_x[at], centre_y[at], radius[at], size, size)
        torch.mul(coverage[:, None], 2 * colour[at, :, None, None].float(), out=images[at])
    return Dataset(images.sub_(1), labels, names)


def _disc_coverage(
    centre_x: Tensor, centre_y: Tensor, radius: Tensor, height: int, width: int
) -> Tensor:
    """The share of each pixel that lies in the disc, by the distance of its centre to the rim.

    Args:
        centre_x, centre_y, radius: (N,), in pixels; pixel j spans j..j + 1.

    Returns:
        (N, height, width) float32, 1 deep inside, 0 outside, a ramp one pixel wide at the rim.
    """
    dx = torch.arange(width) + 0.5 - centre_x.float()[:, None]
    dy = torch.arange(height) + 0.5 - centre_y.float()[:, None]
    distance = (dx[:, None, :] ** 2 + dy[:, :, None] ** 2).sqrt_()  # (N, H, W)
    return distance.neg_().add_(radius.float()[:, None, None] + 0.5).clamp_(0, 1)


def _hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """RGB in [0, 1], (N, 3), of colours given by hue, saturation and value in [0, 1], (N,)."""
    # The compact form of the hexcone: channel n is v - v s max(0, min(k, 4 - k, 1)), k = n + 6 h.
    k = (torch.tensor([5.0, 3.0, 1.0], dtype=hue.dtype) + 6 * hue[:, None]) % 6
    ramp = torch.minimum(k, 4 - k).clamp(0, 1)
    return value[:, None] * (1 - saturation[:, None] * ramp)
