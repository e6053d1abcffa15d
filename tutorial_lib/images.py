"""Tensors to picture files and back, with Pillow alone."""

import io
import math
import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from tutorial_lib import _files, _validate
from tutorial_lib._validate import InvalidValueError

GAP_GRAY = 128  # between the pictures of a grid: visible beside black and white


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
    columns = math.ceil(math.sqrt(len(pixels))) if columns is None else columns
    _validate.whole_number("columns", columns, at_least=1)
    _validate.whole_number("enlarge", enlarge, at_least=1)
    pixels = pixels.repeat(enlarge, axis=1).repeat(enlarge, axis=2)
    count, height, width, channels = pixels.shape
    columns = min(columns, count)
    gap = 2 if count > 1 else 0
    down, right = height + gap, width + gap
    rows = math.ceil(count / columns)
    grid = np.full((rows * down - gap, columns * right - gap, channels), GAP_GRAY, np.uint8)
    for i, picture in enumerate(pixels):
        top, left = i // columns * down, i % columns * right
        grid[top : top + height, left : left + width] = picture
    return Image.fromarray(grid[:, :, 0] if channels == 1 else grid)


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
    path = Path(path)
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
        ValueError, OSError: the file cannot be read as an image. Decoders of broken files may
            raise other exceptions too.
    """
    with Image.open(path) as file:
        file.draft(None, (2 * size, 2 * size))  # reads a large JPEG at a fraction of its size
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
