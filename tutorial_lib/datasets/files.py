"""Images to learn from, always float32 in [-1, 1], (N, C, H, W), with labels and class names.

``circles`` and ``glyphs`` are drawn here, so they need no files and no network; the same seed gives
the same bits. ``load`` gets these, MNIST, Fashion-MNIST and CIFAR-10, and any folder of images.
"""

import contextlib
import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._validate import InvalidValueError, MissingFileError
from tutorial_lib.datasets.dataset import DIGITS, Dataset
from tutorial_lib.datasets.drawn import draw_circles, draw_glyphs
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
_CHUNK = 1024  # images resized at once: keeps the working memory at some tens of megabytes
_PATIENCE = 20.0  # seconds to wait for a server that says nothing


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
        return draw_circles(DRAWN_COUNT[split], size or 32, 3, seed, stream)
    if name == "glyphs":
        return draw_glyphs(DRAWN_COUNT[split], size or 28, seed, stream)
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
        raise MissingFileError(_missing(name, root, here, error)) from error
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
        raise InvalidValueError(
            f"data set name must be folder:PATH with a folder that exists, got PATH {path!r}"
        )
    inside = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    files = sorted(
        (file for file in inside if file.suffix.lower() in SUFFIXES and not _hidden(file)),
        key=Path.as_posix,
    )
    if not files:
        raise InvalidValueError(f"the folder {folder} holds no images ({', '.join(SUFFIXES)})")
    names = [file.parts[0] if len(file.parts) > 1 else folder.resolve().name for file in files]
    class_names = sorted(set(names))
    chosen = [i for i in range(len(files)) if (i % 10 == 9) == (split == "test")]
    if not chosen:
        raise InvalidValueError(
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
            raise InvalidValueError(report)
        warnings.warn(f"{report}; they are left out", stacklevel=3)
    channels = max(len(image) for image in pixels)
    together = torch.stack([image.expand(channels, size, size) for image in pixels])
    return Dataset(from_bytes(together), torch.tensor(labels), tuple(class_names))


def _hidden(file: Path) -> bool:
    """Whether a path leads through a hidden folder or to a hidden file, as tools make them."""
    return any(part.startswith((".", "__MACOSX")) for part in file.parts)
