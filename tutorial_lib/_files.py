"""Files that are there whole or not at all: written beside their place, then moved into it."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path


def temporary(path: Path) -> Path:
    """Where the content of ``path`` waits until it is complete: in the same folder."""
    return path.with_name(path.name + ".tmp")


def write_whole(path: Path, content: bytes) -> None:
    """Replaces ``path`` by ``content`` in one move: a reader sees the old file or the new one.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; ``path`` is as it was.
    """
    write_all({path: content})


def write_all(contents: Mapping[Path, bytes]) -> None:
    """Replaces files that belong together, in the order given.

    The disk has every content in full before the first file is moved into its place. What fails
    before that leaves everything as it was; what fails between two moves leaves the contents not
    yet moved where they wait, see ``temporary``.

    Raises:
        OSError: a folder is missing or not writable, or the disk is full.
    """
    moved = False
    try:
        for path, content in contents.items():
            _write_synced(temporary(path), content)
        for path in contents:
            os.replace(temporary(path), path)
            moved = True
    except BaseException:
        for path in () if moved else contents:
            with contextlib.suppress(OSError):
                temporary(path).unlink(missing_ok=True)
        raise
    for folder in {path.parent for path in contents}:
        _sync_folder(folder)


def _write_synced(path: Path, content: bytes) -> None:
    """Writes ``content`` and waits until the disk has it."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Waits until the disk has the names in ``folder``, where the system can do that."""
    if os.name != "posix":  # Windows cannot open a folder
        return
    with contextlib.suppress(OSError):  # nor can some network disks; the files are in place
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
