"""``load``: a data set by its name, drawn, downloaded, or read from a folder of images."""

import contextlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib import _files, _validate
from tutorial_lib._validate import InvalidValueError, MissingFileError
from tutorial_lib.datasets.dataset import DIGITS, Dataset
from tutorial_lib.datasets.downloads import Download, fetch
from tutorial_lib.datasets.drawn import check_size, draw_circles, draw_glyphs
from tutorial_lib.datasets.scene_set import NATIVE_SIZE, draw_scenes
from tutorial_lib.images import from_bytes, read_square

SPLITS = ("train", "test")
DRAWN_COUNT = {"train": 10_000, "test": 2_000}
"""How many images ``load`` draws; ``circles``, ``glyphs`` and ``scenes`` draw any number."""
FOLDER_SIZE = 32
"""Side of the images that ``load`` reads from a folder when no size is given."""
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Files of a folder that count as images."""
_CHUNK = 1024  # images resized at once: keeps the working memory at some tens of megabytes


def load(
    name: str,
    *,
    size: int | None = None,
    split: str = "train",
    root: str | os.PathLike | None = None,
    seed: int = 0,
) -> Dataset:
    """A data set by its name.

    | name            | images                    | train / test      | native size     |
    |-----------------|---------------------------|-------------------|-----------------|
    | `circles`       | colored discs, RGB        | 10,000 / 2,000    | 32              |
    | `glyphs`        | printed digits, gray      | 10,000 / 2,000    | 28              |
    | `scenes`        | captioned scenes, RGB     | 10,000 / 2,000    | 64              |
    | `mnist`         | handwritten digits, gray  | 60,000 / 10,000   | 28              |
    | `fashion_mnist` | clothes, gray             | 60,000 / 10,000   | 28              |
    | `cifar10`       | ten kinds of things, RGB  | 50,000 / 10,000   | 32              |
    | `folder:PATH`   | your own, gray or RGB     | 9 of 10 / 1 of 10 | 32              |

    The first three are drawn at any size. The next three are downloaded once, verified by their
    checksums, and resized with anti-aliasing if ``size`` differs from their own. A folder is
    searched recursively for files that end in one of ``SUFFIXES``. The first folder below PATH that
    contains a file is its class; the middle square of each image is resized; every tenth file (by
    name) belongs to the test split. The images are gray if all files are. Files that cannot be read
    are left out, with one warning that counts and names them.

    Args:
        size: side of the images in pixels, at least 8; None is the native size.
        split: "train" or "test"; the drawn sets draw each from a stream of its own.
        root: where downloaded files are stored, see ``data_root``.
        seed: seed of the drawn sets; files keep their order whatever it is.

    Raises:
        TypeError, ValueError: an unknown name (the message suggests the nearest one) or split, a
            size or seed that is too small; a PATH that is not a folder, holds no images, or too
            few for a test split.
        FileNotFoundError: files are missing or broken and could not be downloaded; the message
            says what was tried and what helps offline.
    """
    _validate.one_of("split", split, SPLITS)
    if size is not None:
        _validate.whole_number("size", size, at_least=8)
    _validate.whole_number("seed", seed, at_least=0)
    if isinstance(name, str) and name.startswith("folder:"):
        return _load_folder(name.removeprefix("folder:"), size or FOLDER_SIZE, split)
    _validate.one_of("data set name", name, [*DATASETS, "folder:PATH"])
    if size is not None:
        check_size(DRAWN_COUNT[split], size)  # the downloaded sets are larger
    return DATASETS[name](size=size, split=split, root=data_root(root), seed=seed)


def data_root(root: str | os.PathLike | None = None) -> Path:
    """The folder for downloaded data: ``root``, or TUTORIAL_DATA from the environment, or `data/`.

    `data/` is in the repository if the library is used from there, else in the current folder.

    Raises:
        TypeError, ValueError: not a path, or "~" with a user who has no home here.
    """
    chosen = root if root is not None else os.environ.get("TUTORIAL_DATA")
    if chosen is not None and chosen != "":
        return _files.expanded("root", chosen)
    repository = Path(__file__).resolve().parents[2]
    return (repository if (repository / "pyproject.toml").is_file() else Path.cwd()) / "data"


def is_here(name: str, root: str | os.PathLike | None = None) -> bool:
    """Whether ``load`` needs no download for the set of this name (one of ``DATASETS``).

    Raises:
        ValueError: an unknown name.
    """
    _validate.one_of("name", name, DATASETS)
    loader = DATASETS[name]
    return not isinstance(loader, _Downloaded) or loader.is_here(data_root(root))


class Loader(Protocol):
    """How ``load`` gets a set: its images of a split in ``size`` pixels (None: the native size)."""

    def __call__(self, *, size: int | None, split: str, root: Path, seed: int) -> Dataset: ...


def _circles(*, size: int | None, split: str, root: Path, seed: int) -> Dataset:
    return draw_circles(DRAWN_COUNT[split], size or 32, 3, seed, SPLITS.index(split))


def _glyphs(*, size: int | None, split: str, root: Path, seed: int) -> Dataset:
    return draw_glyphs(DRAWN_COUNT[split], size or 28, seed, SPLITS.index(split))


def _scenes(*, size: int | None, split: str, root: Path, seed: int) -> Dataset:
    return draw_scenes(DRAWN_COUNT[split], size or NATIVE_SIZE, seed, SPLITS.index(split))


@dataclass(frozen=True)
class _Downloaded:
    """The loader of a data set from torchvision.

    Args:
        name: its name in ``DATASETS``.
        maker: its class in torchvision.
        folder: where its files are, below the root.
        files: the names of these files.
        downloads: what has to be downloaded for them, given the class and the root.
        tensors: pixels, uint8 (N, C, H, W), labels and class names, given torchvision's object.
    """

    name: str
    maker: str
    folder: str
    files: tuple[str, ...]
    downloads: Callable[[Any, Path], list[Download]]
    tensors: Callable[[Any], tuple[Tensor, Tensor, tuple[str, ...]]]

    def __call__(self, *, size: int | None, split: str, root: Path, seed: int) -> Dataset:
        import torchvision.datasets  # takes a second to load, so only where it is needed

        make, here = getattr(torchvision.datasets, self.maker), self.is_here(root)
        if not here:
            _files.check_output_folder("root", root)
        try:
            if not here:
                for download in self.downloads(make, root):
                    fetch(download)
            found = make(root, train=split == "train", download=not here)  # unpacks
        # What torchvision raises on broken files depends on where they are broken.
        except Exception as error:
            if not here:
                _remove_empty(root / self.folder)
            raise MissingFileError(self._missing(root, here, error)) from error
        pixels, labels, class_names = self.tensors(found)
        if size is not None:
            check_size(len(pixels), size)
        return Dataset(_resize(from_bytes(pixels), size), labels, class_names)

    def is_here(self, root: Path) -> bool:
        return all(os.path.isfile(root / self.folder / file) for file in self.files)

    def _missing(self, root: Path, here: bool, error: Exception) -> str:
        """What was tried, and what to do."""
        why, folder = " ".join(str(error).split()) or type(error).__name__, root / self.folder
        if here:
            return (
                f"{self.name}: the files in {folder} cannot be read ({why}); remove that folder to "
                "download them again"
            )
        return (
            f"{self.name}: not all of {', '.join(self.files)} are in {folder}, and the download "
            f"failed ({why}). Offline, put these files there, or set TUTORIAL_DATA to the folder "
            f"that holds {self.folder}, or use glyphs, circles or scenes, which are drawn and need "
            "no files"
        )


def _idx_downloads(make: Any, root: Path) -> list[Download]:
    """The four files of MNIST or of a set in its format."""
    folder = root / make.__name__ / "raw"
    return [
        Download(folder / file, md5, [f"{mirror}{file}" for mirror in make.mirrors])
        for file, md5 in make.resources
    ]


def _idx_tensors(found: Any) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    class_names = DIGITS if type(found).__name__ == "MNIST" else tuple(found.classes)
    return found.data[:, None], found.targets, class_names


def _cifar_downloads(make: Any, root: Path) -> list[Download]:
    return [Download(root / make.filename, make.tgz_md5, [make.url])]


def _cifar_tensors(found: Any) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    pixels = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()  # (N, 3, 32, 32)
    return pixels, torch.tensor(found.targets), tuple(found.classes)


_IDX_FILES = tuple(
    f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
)
_CIFAR_FILES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")

DATASETS: dict[str, Loader] = {
    "circles": _circles,
    "glyphs": _glyphs,
    "scenes": _scenes,
    "mnist": _Downloaded("mnist", "MNIST", "MNIST/raw", _IDX_FILES, _idx_downloads, _idx_tensors),
    "fashion_mnist": _Downloaded(
        "fashion_mnist",
        "FashionMNIST",
        "FashionMNIST/raw",
        _IDX_FILES,
        _idx_downloads,
        _idx_tensors,
    ),
    "cifar10": _Downloaded(
        "cifar10", "CIFAR10", "cifar-10-batches-py", _CIFAR_FILES, _cifar_downloads, _cifar_tensors
    ),
}
"""What ``load`` knows by name, and how it gets each; ``folder:PATH`` is for your own images."""
NAMES = tuple(DATASETS)


def _remove_empty(folder: Path) -> None:
    """Removes ``folder`` and its parent if a failed download left them empty."""
    for place in (folder, folder.parent):
        with contextlib.suppress(OSError):  # does not exist, or is not empty and stays
            place.rmdir()


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
    folder = _files.expanded("data set name", path)
    if not path or not os.path.isdir(folder):  # False also for a path that cannot be
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
    check_size(len(chosen), size)
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
    """Whether a path contains a hidden file or folder, such as those that tools create."""
    return any(part.startswith((".", "__MACOSX")) for part in file.parts)
