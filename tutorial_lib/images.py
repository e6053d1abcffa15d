"""Tensors to picture files and back, with Pillow alone."""

import io
import math
import os
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from tutorial_lib import _files, _memory, _validate
from tutorial_lib._validate import InvalidValueError

GAP_GRAY = 128  # between the pictures of a grid: visible beside black and white
_GAP = 2
LARGEST_SIDE = 2**31 - 1
"""Of a PNG, in pixels."""
LARGEST_FILE = 2**26
"""Most pixels of an image file that is read, 67 million: a file of a few kilobytes can hold any
number, and in memory each takes up to 16 bytes. JPEGs, which can be read smaller, may have more."""


def to_pil(images: Tensor, columns: int | None = None, *, enlarge: int = 1) -> Image.Image:
    """A grid of images as one picture, row by row, with two pixels of gray between them.

    Values outside [-1, 1] are clamped.

    Args:
        images: (N, C, H, W), values in [-1, 1], C is 1 or 3.
        columns: images in a row; by default, as many as make the grid square.
        enlarge: the side of the square, in pixels, that each pixel becomes.

    Returns:
        A gray picture (mode L) for one channel, RGB for three.

    Raises:
        TypeError, ValueError: images of another dtype or shape, none at all, or NaN or infinite;
            ``columns`` or ``enlarge`` below 1.
    """
    pixels = to_bytes(images)  # (N, H, W, C)
    check_grid(len(images), images.shape[1:], columns, enlarge)
    columns = _columns(len(pixels), columns)
    pixels = pixels.repeat(enlarge, axis=1).repeat(enlarge, axis=2)
    count, height, width, channels = pixels.shape
    gap = _GAP if count > 1 else 0
    down, right = height + gap, width + gap
    rows = math.ceil(count / columns)
    grid = np.full((rows * down - gap, columns * right - gap, channels), GAP_GRAY, np.uint8)
    for i, picture in enumerate(pixels):
        top, left = i // columns * down, i % columns * right
        grid[top : top + height, left : left + width] = picture
    return Image.fromarray(grid[:, :, 0] if channels == 1 else grid)


def check_grid(count: int, shape: Sequence[int], columns: int | None, enlarge: int) -> None:
    """Raises unless ``to_pil`` can make a grid of ``count`` images of this shape (C, H, W).

    Raises:
        TypeError, ValueError: ``columns`` or ``enlarge`` is not an int or below 1, or the picture
            would be more than a PNG can hold or than fits in memory.
    """
    if columns is not None:
        _validate.whole_number("columns", columns, at_least=1)
    _validate.whole_number("enlarge", enlarge, at_least=1)
    channels, height, width = shape
    across = _columns(count, columns)
    rows = -(-count // across)  # rounded up
    sides = (rows * (height * enlarge + _GAP), across * (width * enlarge + _GAP))
    name, value = ("count", count) if enlarge == 1 else ("enlarge", enlarge)
    if max(sides) > LARGEST_SIDE:
        picture = f"a picture of {_validate.shown(sides[1])} x {_validate.shown(sides[0])} pixels"
        limit = f"no side may be over {LARGEST_SIDE:,}"
        raise InvalidValueError(f"{name} gives {picture}, got {_validate.shown(value)}: {limit}")
    _memory.check_fits(name, value, 3 * channels * math.prod(sides), "the picture")


def _columns(count: int, columns: int | None) -> int:
    """Images in a row of a grid, at most as many as there are."""
    return min(max(count, 1), math.isqrt(count - 1) + 1 if columns is None else columns)


def png_bytes(images: Tensor, columns: int | None = None, *, enlarge: int = 1) -> bytes:
    """The grid of ``to_pil`` as the content of a PNG file."""
    buffer = io.BytesIO()
    to_pil(images, columns, enlarge=enlarge).save(buffer, format="PNG")
    return buffer.getvalue()


def save_grid(
    images: Tensor, path: str | os.PathLike, columns: int | None = None, *, enlarge: int = 1
) -> None:
    """Writes the grid of ``to_pil`` as a PNG file, the whole file or nothing.

    Raises:
        TypeError, ValueError: as ``to_pil``; ``path`` does not end in .png.
        OSError: the folder is missing or not writable, or the disk is full.
    """
    path = _files.as_path("path", path)
    if path.suffix.lower() != ".png":
        raise InvalidValueError(f"path must end in .png, got {path}")
    _files.write_whole(path, png_bytes(images, columns, enlarge=enlarge))


def to_bytes(images: Tensor) -> np.ndarray:
    """Images (N, C, H, W) in [-1, 1] as uint8 (N, H, W, C), clamped and rounded to 0..255.

    Raises:
        TypeError, ValueError: images of another dtype or shape, none at all, or NaN or infinite.
    """
    images = _validate.floating("images", images).detach()
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.numel():
        shape = tuple(images.shape)
        raise InvalidValueError(f"images must have shape (N, 1 or 3, H, W), N >= 1; got {shape}")
    if not images.isfinite().all():
        raise InvalidValueError("images must be finite, got NaN or infinity")
    scaled = (images.float().clamp(-1, 1) + 1) * 127.5
    return scaled.round().byte().permute(0, 2, 3, 1).cpu().numpy()


def from_bytes(pixels: Tensor) -> Tensor:
    """uint8 of any shape as float32 in [-1, 1]: 0 is -1, 255 is 1."""
    return pixels.float().div_(127.5).sub_(1)


def read_square(path: str | os.PathLike, size: int) -> Tensor:
    """The middle square of an image file, resized to ``size``, uint8 (1 or 3, size, size).

    Gray files give one channel, all others three. The orientation that cameras note is followed,
    what is transparent becomes white, and of an animation the first picture is taken.

    Raises:
        ValueError, OSError: the file cannot be read as an image, or has more pixels than
            ``LARGEST_FILE``. Decoders of broken files may raise other exceptions too.
    """
    with Image.open(path) as file:
        file.draft(None, (2 * size, 2 * size))  # reads a large JPEG at a fraction of its size
        if math.prod(file.size) > LARGEST_FILE:  # known from its header
            pixels = f"{file.width} x {file.height} pixels"
            raise InvalidValueError(f"{pixels} are more than the {LARGEST_FILE:,} that are read")
        image = ImageOps.exif_transpose(file)
    if image.mode in ("I", "F"):
        raise InvalidValueError(f"images of mode {image.mode} have no known range of pixel values")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    gray = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = ImageOps.fit(image.convert("L" if gray else "RGB"), (size, size))
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if gray else pixels.permute(2, 0, 1)
