"""Files that appear whole or not at all: written under a temporary name, then moved into place.

Temporary names are in the same folder, cannot be guessed, and are opened only where nothing has
that name. What a path leads to is respected:

- A link stays; the file that it leads to is replaced.
- The new file has the mode and, where the system allows it, the owner of the old one. A file that
  may not be written is not replaced.
- Devices, pipes and whatever this process prints to are written to, never replaced.
- Of several hard links one is replaced; the others keep the old content.
"""

import contextlib
import errno
import io
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from tutorial_lib import _validate
from tutorial_lib._validate import FileError, InvalidValueError

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed or moved
    fcntl = None

# --- writing --------------------------------------------------------------------------------------


def write_whole(path: Path, content: bytes) -> None:
    """Replaces ``path`` by ``content`` in one move: a reader sees the old file or the new one.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; ``path`` is unchanged
            and nothing is left behind.
    """
    write_all({path: content})


def write_new(path: Path, content: bytes) -> bool:
    """Writes ``content`` at ``path`` unless something is there; of several writers one succeeds.

    Returns:
        Whether it was written: False where something is there already, which stays.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; nothing is left behind.
    """
    draft = _Draft(path, content, None)
    try:
        with _naming(path):
            draft.prepare()
            try:
                os.link(draft.waiting, draft.target)
            except FileExistsError:
                return False
            except OSError:  # a disk without hard links, where the moment in between is not safe
                if draft.target.exists():
                    return False
                draft.place()
    finally:
        draft.discard()
    draft.tidy()
    return True


def write_all(contents: Mapping[Path, bytes]) -> None:
    """Replaces files that belong together, in the order given.

    All contents are on the disk in full before the first file is moved into place. A failure before
    that leaves everything unchanged. After a failure between two moves, the contents not yet moved
    stay under their temporary names, see ``leftovers``. What an earlier write of the same path left
    behind when it was killed is removed.

    Raises:
        OSError: a folder is missing or not writable, or the disk is full.
    """
    drafts = [_draft(path, content) for path, content in contents.items()]
    moved = False
    try:
        for draft in drafts:
            with _naming(draft.path):
                draft.prepare()
        for draft in drafts:
            with _naming(draft.path):
                draft.place()
            moved = True
    except BaseException:
        for draft in () if moved else drafts:
            draft.discard()
        raise
    finally:
        for draft in drafts:
            draft.close()
    for draft in drafts:
        draft.tidy()


class _Draft:
    """New content for a file, under a temporary name until it is placed."""

    def __init__(self, path: Path, content: bytes, old: os.stat_result | None) -> None:
        self.path, self.content, self.old = path, content, old
        self.target = Path(os.path.realpath(path))
        self.waiting = temporary(self.target)
        self._file: BinaryIO | None = None

    def prepare(self) -> None:
        """Writes the content under the temporary name."""
        if self.old is not None and not os.access(self.target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        _write_synced(self._open(), self.content)
        if self.old is not None:
            _give_mode_and_owner(self.waiting, self.old)
        if fcntl is None:
            self.close()

    def _open(self) -> BinaryIO:
        """Opens a new file, which stays open and locked until it has been moved."""
        while True:
            self.waiting = temporary(self.target)
            self._file = open(self.waiting, "xb")  # noqa: SIM115
            if _lock(self._file) and self.waiting.exists():
                return self._file
            self._file.close()  # it was taken for a leftover before it was locked

    def place(self) -> None:
        os.replace(self.waiting, self.target)

    def discard(self) -> None:
        if self._file is not None:
            self.close()
            with contextlib.suppress(OSError):
                self.waiting.unlink(missing_ok=True)

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # a disk that is full; the content is synced or lost
                self._file.close()

    def tidy(self) -> None:
        _sync_folder(self.target.parent)
        _remove_leftovers(self.target)


class _Stream:
    """New content for a device, a pipe or what this process prints to, which is written to."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path, self.content = path, content

    def prepare(self) -> None:
        """Nothing: what is written to a stream cannot be taken back."""

    def place(self) -> None:
        with open(self.path, "ab", buffering=0) as file:
            write_fully(file, self.content)

    def discard(self) -> None: ...

    def close(self) -> None: ...

    def tidy(self) -> None: ...


def _draft(path: Path, content: bytes) -> _Draft | _Stream:
    old = _status(path)
    if old is not None and _is_stream(old):
        return _Stream(path, content)
    return _Draft(path, content, old)


def write_fully(file: io.RawIOBase, content: bytes) -> None:
    """Writes all of ``content`` to a file without a buffer, which may take a part at a time."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def _write_synced(file: BinaryIO, content: bytes) -> None:
    """Writes ``content`` and waits until it is on the disk."""
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


def _give_mode_and_owner(path: Path, old: os.stat_result) -> None:
    """Gives the new file the owner and the mode of the old one."""
    if hasattr(os, "chown") and (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        with contextlib.suppress(OSError):  # only root may give files away
            os.chown(path, old.st_uid, old.st_gid)
    os.chmod(path, stat.S_IMODE(old.st_mode))


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


# --- temporary names ------------------------------------------------------------------------------


def temporary(path: Path) -> Path:
    """A new name in the same folder for the content of ``path`` until it is complete."""
    return path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")


def leftovers(path: Path) -> list[Path]:
    """What killed writes of ``path`` left under temporary names, or is being written right now.

    Also ``path.tmp``, the name that earlier versions used.
    """
    target = Path(os.path.realpath(path))
    return [*_leftovers(target), *(old for old in [_old_temporary(target)] if old.is_file())]


def _leftovers(target: Path) -> list[Path]:
    pattern = re.compile(re.escape(target.name) + r"\.[0-9a-f]{16}\.tmp")
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        names = sorted(entry.name for entry in entries if pattern.fullmatch(entry.name))
        return [target.with_name(name) for name in names]
    return []


def _old_temporary(target: Path) -> Path:
    return target.with_name(target.name + ".tmp")


def _remove_leftovers(target: Path) -> None:
    """Removes what killed writes left behind; what a living process still writes is locked."""
    for waiting in _leftovers(target):
        with contextlib.suppress(OSError), open(waiting, "rb") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                waiting.unlink()
        if fcntl is None:
            with contextlib.suppress(OSError):
                waiting.unlink()


def _lock(file: BinaryIO) -> bool:
    """Marks a temporary file as in use, for as long as it is open and this process lives.

    Returns:
        False where somebody else has locked it. True without a lock on disks that have none, where
        ``_remove_leftovers`` removes nothing either.
    """
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
    return True


# --- what a path leads to -------------------------------------------------------------------------


def check_outputs(outputs: Mapping[str, Path | str | None]) -> None:
    """Raises unless a file can be written at each path and no two paths lead to the same file.

    Made for the moment before the work whose result goes there. What is there now stays as it is; a
    temporary file of one byte is written in each folder and removed.

    Args:
        outputs: the paths by the name of the argument that gives them; None is left out.

    Raises:
        TypeError: something that is not a path.
        ValueError: two arguments with the same file.
        OSError: a file cannot be written; the message names the argument, the path and the reason.
    """
    given = {name: as_path(name, path) for name, path in outputs.items() if path is not None}
    for name, path in given.items():
        with _refusing(name, path):
            _try_file(path)
    names = list(given)
    for i, one in enumerate(names):
        for other in names[:i]:
            if is_same_file(given[one], given[other]):
                raise InvalidValueError(
                    f"{other} and {one} must be different files, got {given[other]} and "
                    f"{given[one]}"
                )


def check_output_folder(name: str, path: Path | str) -> None:
    """Raises unless ``path`` is a folder to write in, or one that can be created; creates none.

    Raises:
        TypeError: something that is not a path.
        OSError: it is no such folder; the message names the argument, the path and the reason.
    """
    path = as_path(name, path)
    with _refusing(name, path):
        there = path
        while not os.path.lexists(there) and there != there.parent:
            there = there.parent
        if not stat.S_ISDIR(os.stat(there).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, f"{there} is not a folder")
        _try_draft(there / "new")
        for part in path.relative_to(there).parts:
            if len(os.fsencode(part)) > 255:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def as_path(name: str, value: object) -> Path:
    """``value`` as a path; an error names ``name``.

    Raises:
        TypeError, ValueError: not a path, or one that contains a byte 0.
    """
    path = _validate.path(name, value, kinds="a path")
    if "\0" in str(path):
        raise InvalidValueError(f"{name} must not contain a byte 0, got {str(path)!r}")
    return path


def expanded(name: str, value: object) -> Path:
    """``value`` as a path with a home folder in place of "~" or "~user"; an error names ``name``.

    Raises:
        TypeError, ValueError: as ``as_path``; also a user without a known home.
    """
    path = as_path(name, value)
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise InvalidValueError(f"{name}: no home folder is known for {str(path)!r}") from error


def is_same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same file, also by links, or to what will be the same file.

    What is written to /dev/null goes nowhere, so two of that are no conflict.
    """
    if os.path.realpath(one) == os.path.realpath(other):
        return os.path.realpath(one) != os.devnull
    with contextlib.suppress(OSError):
        return os.path.samefile(one, other)
    return False


def _try_file(path: Path) -> None:
    """Raises OSError if nothing can be written at ``path``."""
    old = _status(path)
    if old is not None and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if old is None or not _is_stream(old):  # opening a pipe would wait, or end its reader's wait
        _try_draft(Path(os.path.realpath(path)))


def _try_draft(target: Path) -> None:
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "its folder does not exist")
    draft = _Draft(target, b"\0", None)
    try:
        draft.prepare()
    finally:
        draft.discard()


def _status(path: Path) -> os.stat_result | None:
    """What is at ``path``, links followed; None where nothing is.

    Raises:
        OSError: it cannot be looked at, or is a folder.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    return found


def _is_stream(found: os.stat_result) -> bool:
    """Whether this is a device, a pipe or what this process prints to."""
    if not stat.S_ISREG(found.st_mode):
        return True
    for number in (1, 2):
        with contextlib.suppress(OSError):  # closed
            if os.path.samestat(found, os.fstat(number)):
                return True
    return False


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """An OSError names ``path``, not the temporary file."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def _refusing(name: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileError(f"{name} cannot be written: {path}: {error.strerror}") from error
