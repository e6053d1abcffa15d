"""What a folder of images in shards holds, and whether what is there belongs together.

``sampling`` draws the images and writes the folder; here are its names, its manifest, and what each
shard says about itself.
"""

import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tutorial_lib import _sealed, _validate
from tutorial_lib._validate import FileError, InvalidValueError

MANIFEST = "samples.json"
FORMAT = 3
_FORMATS = (2, 3)
"""Those that are read; 2 had no checksum."""


# --- samples.json ---------------------------------------------------------------------------------


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder; None if there is none.

    Raises:
        ValueError: it is damaged, or of another format.
        OSError: it cannot be read.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_bytes())
        known = manifest["format"] in _FORMATS
        for name in ("count", "shard") if known else ():
            _validate.whole_number(name, manifest[name], at_least=1)
        sealed = manifest.pop("sha256", None)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise InvalidValueError(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    if not known:
        found, read = f"{path} has format {manifest['format']}", " and ".join(map(str, _FORMATS))
        raise InvalidValueError(f"{found}, this library reads {read}")
    if sealed is None and manifest["format"] == 2:
        warnings.warn(f"{path} is of an earlier version and cannot be verified", stacklevel=3)
    elif sealed != _checksum(manifest):
        raise InvalidValueError(f"{path} is damaged: its checksum is not that of its entries")
    return manifest


def sealed_manifest(manifest: dict[str, Any]) -> bytes:
    """The content of samples.json: the manifest, and a checksum of all its entries."""
    sealed = {**manifest, "sha256": _checksum(manifest)}
    return json.dumps(sealed, indent=2).encode() + b"\n"


def _checksum(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def what_decides(manifest: dict[str, Any]) -> dict[str, Any]:
    """What determines the images of each shard of a folder, by what its manifest says."""
    names = manifest.get("decides", [])
    # A condition is compared row by row.
    return {name: manifest[name] for name in names if name in manifest and name != "condition"}


# --- shards ---------------------------------------------------------------------------------------


class Found(NamedTuple):
    """What is in the place of a shard.

    Attributes:
        state: "whole", "incomplete" (it was whole for a smaller ``count``), "damaged", "missing".
        tensors: what it holds, if whole or incomplete.
        recipe: what decided its images; None where it does not say, as in earlier versions.
    """

    state: str
    tensors: dict[str, Tensor] = {}  # noqa: RUF012  (never changed)
    recipe: dict[str, Any] | None = None


def look(path: Path, numbers: range) -> Found:
    """What is in the place of the shard of these images."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Found("missing")
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    try:
        tensors, facts = _sealed.opened(path, content)
    except _sealed.SealError:
        return Found("damaged")
    images, recipe = tensors.get("images"), facts.get("recipe")
    if images is None or facts.get("first") != numbers.start:  # not this shard
        return Found("damaged")
    missing = len(numbers) - len(images)
    if missing < 0:
        return Found("damaged")
    state = "incomplete" if missing else "whole"
    return Found(state, tensors, recipe if isinstance(recipe, dict) else None)


def check_belongs(path: Path, found: Found, decides: dict[str, Any], now: str) -> None:
    """Raises ValueError if a shard says that it is of other samples."""
    for name, value in (found.recipe or {}).items():
        if decides.get(name, value) != value:
            raise InvalidValueError(
                f"{name}: {path} was drawn with {value}, {now} {decides[name]}; take another "
                "folder, or remove the file to have it drawn again"
            )


def check_labels(path: Path, found: Found, expected: Tensor | None) -> None:
    """Raises ValueError if a shard was drawn for other labels or words."""
    there = found.tensors.get("labels")
    if there is None or expected is None:
        same = there is expected
    else:
        same = torch.equal(there, expected[: len(there)])
    if not same:
        raise InvalidValueError(
            f"condition: {path} was drawn for other labels or words; take another folder, or "
            "remove the file to have it drawn again"
        )


def warn_unverified(folder: Path, count: int) -> None:
    warnings.warn(
        f"{count} shards in {folder} are of an earlier version: they are whole, but do not say "
        "which seed and checkpoint they are of",
        stacklevel=3,
    )


def places(folder: Path, count: int, shard: int) -> Iterator[tuple[Path, range]]:
    """The shards of a folder, each with the numbers of its images."""
    for place, first in enumerate(range(0, count, shard)):
        yield place_of(folder, place), range(first, min(first + shard, count))


def place_of(folder: Path, place: int) -> Path:
    return folder / f"shard-{place:05d}.safetensors"


def share_of(count: int, shard: int, rank: int, processes: int) -> int:
    """How many of the images are in every ``processes``-th shard, from shard ``rank`` on."""
    shards = -(-count // shard)  # rounded up
    mine = len(range(rank, shards, processes))
    has_last = mine > 0 and (shards - 1 - rank) % processes == 0
    return mine * shard - (shards * shard - count if has_last else 0)


def shards_in(folder: Path) -> Iterator[tuple[int, Path]]:
    """The shards that are in a folder, each with its place, in any order."""
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if match := re.fullmatch(r"shard-(\d{5,20})\.safetensors", entry.name):
                yield int(match[1]), Path(entry.path)


def images_in_own(path: Path, decides: dict[str, Any]) -> int | None:
    """How many images a shard holds by its header; None unless that names the same samples.

    Reads no more than the header, and so does not know whether the shard is whole.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length < 2**20 else {}
        facts = json.loads(header["__metadata__"]["sealed"])["facts"]
        return int(header["images"]["shape"][0]) if facts["recipe"] == decides else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def is_foreign(path: Path) -> bool:
    """Whether a file is not one of ours; another process of this run may have written some."""
    return not re.fullmatch(r"(samples\.json|shard-\d+\.safetensors)(\..*tmp)?", path.name)
