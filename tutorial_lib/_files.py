"""Files that appear whole or not at all: written under a temporary name, then moved into place."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path


def temporary(path: Path) -> Path:
    """The name, in the same folder, of the content of ``path`` until it is complete."""
    return path.with_name(path.name + ".tmp")


def write_whole(path: Path, content: bytes) -> None:
    """Replaces ``path`` by ``content`` in one move: a reader sees the old file or the new one.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; ``path`` is unchanged.
    """
    write_all({path: content})


def write_all(contents: Mapping[Path, bytes]) -> None:
    """Replaces files that belong together, in the order given.

    All contents are on the disk in full before the first file is moved into place. A failure before
    that leaves everything unchanged. After a failure between two moves, the contents not yet moved
    stay under their temporary names, see ``temporary``.

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
    """Writes ``content`` and waits until it is on the disk."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Waits until the names in ``folder`` are on the disk, on systems that can do that."""
    if os.name != "posix":  # Windows cannot open a folder
        return
    with contextlib.suppress(OSError):  # nor can some network disks; the files are in place
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
