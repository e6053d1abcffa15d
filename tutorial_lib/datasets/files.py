"""Images to learn from, always float32 in [-1, 1], (N, C, H, W), with labels and class names.

``circles`` and ``glyphs`` are drawn here, so they need no files and no network; the same seed gives
the same bits. ``load`` gets these, MNIST, Fashion-MNIST and CIFAR-10, and any folder of images.
"""

import contextlib
import os
import socket
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib.datasets import glyph_fields as _glyphs
from tutorial_lib.images import from_bytes, read_square

NAMES = ("circles", "glyphs", "mnist", "fashion_mnist", "cifar10")
"""What ``load`` knows by name; ``folder:PATH`` is for images of your own."""
SPLITS = ("train", "test")
DRAWN_COUNT = {"train": 10_000, "test": 2_000}
"""How many images ``load`` draws; ``circles`` and ``glyphs`` themselves draw any number."""
FOLDER_SIZE = 32
"""Side of the images that ``load`` reads from a folder when no size is asked for."""
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Files of a folder that count as images."""
HUES = ("red", "yellow", "green", "cyan", "blue", "magenta")
RADII = ("small", "medium", "large")
DIGITS = tuple("0123456789")
_CHUNK = 1024  # images drawn or resized at once: keeps the working memory at some tens of megabytes
_PATIENCE = 20.0  # seconds to wait for a server that says nothing


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images with a label each.

    Args:
        images: (N, C, H, W) float32, values in [-1, 1], C is 1 (gray) or 3 (RGB), N at least 1.
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
    """``count`` images of one colored disc each, on black ground.

    The radius is uniform in [0.15, 0.35] x ``size``, the center uniform where the whole disc lies
    inside. The hue is uniform, the saturation uniform in [0.6, 1], the value in [0.7, 1]; with one
    channel the value alone is drawn. The rim is anti-aliased by its distance in pixels.

    Labels: the nearest of six hues (``HUES``); with one channel, thirds of the radii (``RADII``).
    Image i depends on ``seed`` and i alone, so a longer set begins with the shorter one, and
    another ``size`` shows the same discs, larger or smaller.

    Raises:
        TypeError, ValueError: ``count`` below 1, ``size`` below 8, ``seed`` below 0, or no ints;
            ``channels`` other than 1 or 3.
    """
    return _draw_circles(count, size, channels, seed, stream=0)


def _draw_circles(count: int, size: int, channels: int, seed: int, stream: int) -> Dataset:
    """``circles``; streams of one seed are independent (training and test images)."""
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {_validate.describe(channels)}")
    u = _draws(count, size, seed, stream, columns=6).unbind(1)
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
    for start in range(0, count, _CHUNK):
        at = slice(start, start + _CHUNK)
        coverage = _disc_coverage(centre_x[at], centre_y[at], radius[at], size, size)
        torch.mul(coverage[:, None], 2 * colour[at, :, None, None].float(), out=images[at])
    return Dataset(images.sub_(1), labels, names)


def _draws(count: int, size: int, seed: int, stream: int, *, columns: int) -> Tensor:
    """Uniform numbers, float64 (count, columns), a row an image: a longer draw begins with the
    shorter one. Checks what all drawn sets are asked for."""
    _validate.whole_number("count", count, at_least=1)
    _validate.whole_number("size", size, at_least=8)
    _validate.whole_number("seed", seed, at_least=0)
    # NumPy's generator takes seed and stream together; torch's keeps 32 bits of one number.
    return torch.from_numpy(np.random.default_rng([seed, stream]).random((count, columns)))


def _disc_coverage(
    centre_x: Tensor, centre_y: Tensor, radius: Tensor, height: int, width: int
) -> Tensor:
    """The share of each pixel that lies in the disc, by the distance of its center to the rim.

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
    """RGB in [0, 1], (N, 3), of colors given by hue, saturation and value in [0, 1], (N,)."""
    # The compact form of the hexcone: channel n is v - v s max(0, min(k, 4 - k, 1)), k = n + 6 h.
    k = (torch.tensor([5.0, 3.0, 1.0], dtype=hue.dtype) + 6 * hue[:, None]) % 6
    ramp = torch.minimum(k, 4 - k).clamp(0, 1)
    return value[:, None] * (1 - saturation[:, None] * ramp)


def glyphs(count: int, *, size: int = 28, seed: int = 0) -> Dataset:
    """``count`` gray images of one printed digit each, white on black ground.

    Drawn with 17 of the fonts that matplotlib ships. Uniform are the digit, the font, its height
    or width, whichever is longer, in [0.56, 0.68] x ``size``, a turn of up to 12 degrees, a lean
    of 0.1 to the left to 0.2 to the right, a shift of up to 0.05 x ``size``, and how much thicker
    than printed each side of the stroke is, in [0.004, 0.03] x ``size``.

    Labels: the digit. Image i depends on ``seed`` and i alone, and another ``size`` shows the same
    digits, larger or smaller.

    Raises:
        TypeError, ValueError: ``count`` below 1, ``size`` below 8, ``seed`` below 0, or no ints.
        FileNotFoundError: matplotlib's fonts are not installed.
    """
    return _draw_glyphs(count, size, seed, stream=0)


def _draw_glyphs(count: int, size: int, seed: int, stream: int) -> Dataset:
    """``glyphs``; streams of one seed are independent (training and test images)."""
    draws = _draws(count, size, seed, stream, columns=8)
    u = draws.unbind(1)
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
            shift=0.1 * draws[at, 5:7] - 0.05,
            stroke=0.004 + 0.026 * u[7][at],
        )
    return Dataset(images.mul_(2).sub_(1), digit, DIGITS)


def load(
    name: str,
    *,
    size: int | None = None,
    split: str = "train",
    root: str | os.PathLike | None = None,
    seed: int = 0,
) -> Dataset:
    """A data set by its name.

    | name            | images                 | train / test     | native size     |
    |-----------------|------------------------|------------------|-----------------|
    | `circles`       | colored discs, RGB     | 10,000 / 2,000   | 32              |
    | `glyphs`        | printed digits, gray   | 10,000 / 2,000   | 28              |
    | `mnist`         | written digits, gray   | 60,000 / 10,000  | 28              |
    | `fashion_mnist` | clothes, gray          | 60,000 / 10,000  | 28              |
    | `cifar10`       | ten things, RGB        | 50,000 / 10,000  | 32              |
    | `folder:PATH`   | yours, gray or RGB     | 9 of 10 / 1 of 10 | 32             |

    The first two are drawn at any size. The next three are downloaded once (torchvision compares
    checksums) and resized with anti-aliasing where ``size`` asks for it. A folder is searched with
    all that is below it for files that end in one of ``SUFFIXES``; the first folder below PATH
    that a file lies in is its class, the middle square of each image is resized, every tenth file
    (by name) is for testing. The images are gray where all files are. Files that cannot be read
    are left out, with one warning that counts and names them.

    Args:
        size: side of the images in pixels, at least 8; None is the native size.
        split: "train" or "test"; for the drawn sets another stream of the seed.
        root: where downloaded files are or go, see ``data_root``.
        seed: what the drawn sets are drawn from; files stay in their order whatever it is.

    Raises:
        TypeError, ValueError: an unknown name (with the nearest one) or split, a size or seed that
            is too small; a PATH that is no folder, holds no images, or too few for a test split.
        FileNotFoundError: files are missing or broken and could not be downloaded; the message
            says what was tried and what helps offline.
    """
    _validate.one_of("split", split, SPLITS)
    if size is not None:
        _validate.whole_number("size", size, at_least=8)
    _validate.whole_number("seed", seed, at_least=0)
    if isinstance(name, str) and name.startswith("folder:"):
        return _load_folder(name.removeprefix("folder:"), size or FOLDER_SIZE, split)
    _validate.one_of("data set name", name, [*NAMES, "folder:PATH"])
    stream = SPLITS.index(split)
    if name == "circles":
        return _draw_circles(DRAWN_COUNT[split], size or 32, 3, seed, stream)
    if name == "glyphs":
        return _draw_glyphs(DRAWN_COUNT[split], size or 28, seed, stream)
    return _load_files(name, size, split, data_root(root))


def data_root(root: str | os.PathLike | None = None) -> Path:
    """The folder of downloaded data: ``root``, else the environment's TUTORIAL_DATA, else `data/`.

    `data/` lies in the repository when the library is used from there, else where Python runs.
    """
    chosen = root if root is not None else os.environ.get("TUTORIAL_DATA")
    if chosen:
        return Path(chosen).expanduser()
    repository = Path(__file__).resolve().parents[2]
    return (repository if (repository / "pyproject.toml").is_file() else Path.cwd()) / "data"


def is_here(name: str, root: str | os.PathLike | None = None) -> bool:
    """Whether ``load`` gets the set of this name (one of ``NAMES``) without a download."""
    _validate.one_of("name", name, NAMES)
    if name not in _SOURCES:
        return True
    folder = data_root(root) / _SOURCES[name].folder
    return all((folder / file).is_file() for file in _SOURCES[name].files)


class _Source(NamedTuple):
    """A set of torchvision: its class there, and the files it needs, in a folder below the root."""

    maker: str
    folder: str
    files: tuple[str, ...]


_IDX_FILES = tuple(
    f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
)
_CIFAR_FILES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
_SOURCES = {
    "mnist": _Source("MNIST", "MNIST/raw", _IDX_FILES),
    "fashion_mnist": _Source("FashionMNIST", "FashionMNIST/raw", _IDX_FILES),
    "cifar10": _Source("CIFAR10", "cifar-10-batches-py", _CIFAR_FILES),
}


def _load_files(name: str, size: int | None, split: str, root: Path) -> Dataset:
    """A set of torchvision, from its files in ``root``, downloaded if they are not there."""
    import torchvision.datasets  # takes a second to load, so only where it is needed

    source, here = _SOURCES[name], is_here(name, root)
    make = getattr(torchvision.datasets, source.maker)
    try:
        with _patience():
            found = make(root, train=split == "train", download=not here)
    # What torchvision raises on broken files depends on where they broke.
    except Exception as error:
        if not here:
            _remove_empty(root / source.folder)
        raise FileNotFoundError(_missing(name, root, here, error)) from error
    if name == "cifar10":
        pixels = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
        labels, class_names = torch.tensor(found.targets), found.classes
    else:
        pixels, labels = found.data[:, None], found.targets
        class_names = DIGITS if name == "mnist" else found.classes
    return Dataset(_resize(from_bytes(pixels), size), labels, tuple(class_names))


def _missing(name: str, root: Path, here: bool, error: Exception) -> str:
    """What was tried for the set ``name``, and what to do."""
    source = _SOURCES[name]
    why = " ".join(str(error).split()) or type(error).__name__
    folder = root / source.folder
    if here:
        return (
            f"{name}: the files in {folder} cannot be read ({why}); remove that folder and they "
            "are downloaded again"
        )
    return (
        f"{name}: not all of {', '.join(source.files)} are in {folder}, and the download failed "
        f"({why}). Offline, put these files there, or set TUTORIAL_DATA to the folder that holds "
        f"{source.folder}, or use glyphs or circles, which are drawn and need no files"
    )


def _remove_empty(folder: Path) -> None:
    """Removes ``folder`` and the one above it where a failed download left them empty."""
    for place in (folder, folder.parent):
        with contextlib.suppress(OSError):  # not there, or not empty: then it stays
            place.rmdir()


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Gives up on a server that says nothing; torchvision itself would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _resize(images: Tensor, size: int | None) -> Tensor:
    """Images (N, C, H, W) in [-1, 1] as (N, C, size, size), anti-aliased."""
    if size is None or images.shape[2:] == (size, size):
        return images
    small = [
        F.interpolate(part, (size, size), mode="bicubic", antialias=True).clamp_(-1, 1)
        for part in images.split(_CHUNK)  # bicubic overshoots at edges, hence the clamp
    ]
    return torch.cat(small)


def _load_folder(path: str, size: int, split: str) -> Dataset:
    """All images below the folder ``path``, see ``load``."""
    folder = Path(path).expanduser()
    if not path or not folder.is_dir():
        raise ValueError(
            f"data set name must be folder:PATH with a folder that exists, got PATH {path!r}"
        )
    inside = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    files = sorted(
        (file for file in inside if file.suffix.lower() in SUFFIXES and not _hidden(file)),
        key=Path.as_posix,
    )
    if not files:
        raise ValueError(f"the folder {folder} holds no images ({', '.join(SUFFIXES)})")
    names = [file.parts[0] if len(file.parts) > 1 else folder.resolve().name for file in files]
    class_names = sorted(set(names))
    chosen = [i for i in range(len(files)) if (i % 10 == 9) == (split == "test")]
    if not chosen:
        raise ValueError(
            f"the folder {folder} holds {len(files)} images; every tenth is for testing, so a "
            "test split takes at least 10"
        )
    pixels, labels, failures = [], [], []
    for i in chosen:
        try:
            pixels.append(read_square(folder / files[i], size))
            labels.append(class_names.index(names[i]))
        # Decoders raise nearly anything on broken files; each is counted and named below.
        except Exception as error:
            failures.append(f"{files[i].as_posix()} ({str(error) or type(error).__name__})")
    if failures:
        report = f"{len(failures)} of {len(chosen)} images in {folder} cannot be read"
        report += f": {', '.join(failures[:5])}{', ...' if len(failures) > 5 else ''}"
        if not pixels:
            raise ValueError(report)
        warnings.warn(f"{report}; they are left out", stacklevel=3)
    channels = max(len(image) for image in pixels)
    together = torch.stack([image.expand(channels, size, size) for image in pixels])
    return Dataset(from_bytes(together), torch.tensor(labels), tuple(class_names))


def _hidden(file: Path) -> bool:
    """Whether a path leads through a hidden folder or to a hidden file, as tools make them."""
    return any(part.startswith((".", "__MACOSX")) for part in file.parts)
