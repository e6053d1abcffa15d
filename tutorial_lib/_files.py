"""Files that are there whole or not at all: written beside their place, then moved into it."""

import contextlib
import os
from pathlib import Path


def temporary(path: Path) -> Path:
    """Where the content of ``path`` waits until it is complete: in the same folder."""
    return path.with_name(path.name + ".tmp")


def write_synced(path: Path, content: bytes) -> None:
    """Writes ``content`` and waits until the disk has it; nothing stays behind if that fails.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full.
    """
    try:
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes) -> None:
    """Replaces ``path`` by ``content`` in one move: a reader sees the old file or the new one.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; ``path`` is as it was.
    """
    write_synced(temporary(path), content)
    os.replace(temporary(path), path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Waits until the disk has the names in ``folder``, where the system can do that."""
    if os.name != "posix":  # Windows cannot open a folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
