"""Files appear whole or not at all, together or not at all, and paths mean what they say."""

import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from tutorial_lib import _files
from tutorial_lib._validate import FileError, InvalidTypeError, InvalidValueError


def everything_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# --- whole or not at all --------------------------------------------------------------------------


def test_files_are_replaced_together(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    _files.write_all({tmp_path / "a": b"new", tmp_path / "b": b"fresh"})
    assert everything_in(tmp_path) == {"a": b"new", "b": b"fresh"}


def test_a_failure_before_the_first_move_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(FileNotFoundError, match=r"missing/b'$"):
        _files.write_all({tmp_path / "a": b"new", tmp_path / "missing" / "b": b"fresh"})
    assert everything_in(tmp_path) == {"a": b"old"}


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError, match="taken"):
        _files.write_all({tmp_path / "a": b"new", tmp_path / "taken": b"content"})
    assert everything_in(tmp_path) == {}


def test_a_failure_after_the_first_move_keeps_the_other_contents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def move(source: Path, target: Path) -> None:
        if target.name == "b":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, target)

    monkeypatch.setattr(os, "replace", move)
    with pytest.raises(OSError, match=r"b'$"):
        _files.write_all({tmp_path / "a": b"new", tmp_path / "b": b"fresh"})
    assert (tmp_path / "a").read_bytes() == b"new"
    (waiting,) = _files.leftovers(tmp_path / "b")
    assert waiting.read_bytes() == b"fresh"
    monkeypatch.undo()
    _files.write_whole(tmp_path / "b", b"later")
    assert everything_in(tmp_path) == {"a": b"new", "b": b"later"}


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: BinaryIO, content: bytes) -> None:
        file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(_files, "_write_synced", full)
    with pytest.raises(OSError, match="No space left"):
        _files.write_whole(tmp_path / "a", b"content")
    assert everything_in(tmp_path) == {"a": b"old"}


# --- temporary names ------------------------------------------------------------------------------


def test_temporary_names_are_new_each_time_and_in_the_same_folder(tmp_path: Path) -> None:
    names = {_files.temporary(tmp_path / "a") for _ in range(100)}
    assert len(names) == 100
    assert {name.parent for name in names} == {tmp_path}


def test_a_name_that_is_taken_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where somebody guessed it and put a link there."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / "guessed").symlink_to(victim)
    monkeypatch.setattr(_files, "temporary", lambda path: tmp_path / "guessed")
    with pytest.raises(FileExistsError):
        _files.write_whole(tmp_path / "a", b"content")
    assert victim.read_bytes() == b"mine"
    assert (tmp_path / "guessed").is_symlink()
    assert not (tmp_path / "a").exists()


def test_files_of_others_with_similar_names_stay(tmp_path: Path) -> None:
    others = {"p.png.tmp": b"1", "p.png.0123456789abcdef.tmp.bak": b"2", "q.tmp": b"3"}
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    _files.write_whole(tmp_path / "p.png", b"picture")
    assert everything_in(tmp_path) == {**others, "p.png": b"picture"}


def test_what_a_killed_write_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    killed = f"""
import os, signal
from pathlib import Path
from tutorial_lib import _files
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
_files.write_whole(Path({str(tmp_path / "a")!r}), b"content")
"""
    done = subprocess.run([sys.executable, "-c", killed], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.read_bytes() for path in _files.leftovers(tmp_path / "a")] == [b"content"]
    _files.write_whole(tmp_path / "a", b"later")
    assert everything_in(tmp_path) == {"a": b"later"}


def test_what_a_living_process_writes_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second write of a file starts and ends while the first is under way."""
    real, depth = _files._write_synced, iter(range(2))

    def write(file: BinaryIO, content: bytes) -> None:
        if next(depth) == 0:
            _files.write_whole(tmp_path / "a", b"second")
            assert (tmp_path / "a").read_bytes() == b"second"
        real(file, content)

    monkeypatch.setattr(_files, "_write_synced", write)
    _files.write_whole(tmp_path / "a", b"first")
    assert everything_in(tmp_path) == {"a": b"first"}


# --- what a path leads to -------------------------------------------------------------------------


@pytest.mark.parametrize("there_before", [True, False])
def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path, there_before: bool) -> None:
    (tmp_path / "far").mkdir()
    real = tmp_path / "far" / "real"
    if there_before:
        real.write_bytes(b"old")
    (tmp_path / "middle").symlink_to(Path("far") / "real")
    (tmp_path / "link").symlink_to("middle")
    _files.write_whole(tmp_path / "link", b"new")
    assert os.readlink(tmp_path / "link") == "middle"
    assert os.readlink(tmp_path / "middle") == "far/real"
    assert not real.is_symlink()
    assert everything_in(tmp_path / "far") == {"real": b"new"}


def test_links_in_a_circle_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        _files.write_whole(tmp_path / "a", b"new")
    with pytest.raises(FileError, match=r"out cannot be written: .*symbolic links"):
        _files.check_outputs({"out": tmp_path / "a"})


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755])
def test_a_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(mode)
    _files.write_whole(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        _files.write_whole(tmp_path / "a", b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_file_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    os.chown(path, 1234, 5678)
    _files.write_whole(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 5678)


def test_a_file_that_may_not_be_written_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda where, mode: False)  # root may write everything
    with pytest.raises(PermissionError, match=r"a'$"):
        _files.write_whole(path, b"new")
    with pytest.raises(FileError, match=r"out cannot be written: .*Permission denied"):
        _files.check_outputs({"out": path})
    assert everything_in(tmp_path) == {"a": b"old"}


@pytest.fixture
def null(tmp_path: Path) -> Iterator[Path]:
    """A device of our own that swallows everything, or else the system's."""
    path = tmp_path / "null"
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.stat(os.devnull).st_rdev)
        with path.open("wb") as file:
            file.write(b"x")
    except OSError:  # not root, or devices are not allowed here
        path = Path(os.devnull)
    yield path
    assert stat.S_ISCHR(path.stat().st_mode)


def test_a_device_is_written_to_and_stays(null: Path) -> None:
    _files.check_outputs({"out": null})
    _files.write_whole(null, b"content")
    assert stat.S_ISCHR(null.stat().st_mode)


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe, content, got = tmp_path / "pipe", bytes(300_000), []
    os.mkfifo(pipe)
    _files.check_outputs({"out": pipe})  # waits for no reader
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    _files.write_whole(pipe, content)
    reader.join()
    assert got == [content]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_socket_is_an_error_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        with pytest.raises(OSError, match=r"s'$"):
            _files.write_whole(Path("s"), b"content")
    assert stat.S_ISSOCK(os.stat("s").st_mode)


@pytest.mark.parametrize("out", ["/dev/stdout", "/dev/fd/1", "{log}"])
def test_a_log_that_this_process_prints_to_is_added_to(tmp_path: Path, out: str) -> None:
    log = tmp_path / "log"
    program = f"""
from pathlib import Path
from tutorial_lib import _files
print("before", flush=True)
_files.check_outputs({{"out": Path({out.format(log=log)!r})}})
_files.write_whole(Path({out.format(log=log)!r}), b"content\\n")
print("after")
"""
    with log.open("ab") as stdout:
        subprocess.run([sys.executable, "-c", program], stdout=stdout, check=True)
    assert log.read_text() == "before\ncontent\nafter\n"
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


# --- tried before the work ------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["missing/a", "folder", "file/a", "n" * 300, "d/" * 3000 + "a"])
def test_a_path_where_nothing_can_be_written_is_refused_by_name(tmp_path: Path, path: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(FileError, match=r"^json cannot be written: "):
        _files.check_outputs({"json": tmp_path / path})
    assert everything_in(tmp_path) == {"file": b"old"}


def test_trying_a_path_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    before = (tmp_path / "a").stat()
    (tmp_path / "link").symlink_to("fresh")
    _files.check_outputs(
        {"a": tmp_path / "a", "b": tmp_path / "b", "c": tmp_path / "link", "none": None}
    )
    assert (tmp_path / "a").stat() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "link"]


def test_a_disk_where_nothing_fits_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: BinaryIO, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_files, "_write_synced", full)
    with pytest.raises(FileError, match=r"out cannot be written: .*No space left"):
        _files.check_outputs({"out": tmp_path / "a"})
    with pytest.raises(FileError, match=r"shards cannot be written: .*No space left"):
        _files.check_output_folder("shards", tmp_path / "new" / "folder")
    assert everything_in(tmp_path) == {}


@pytest.mark.parametrize("other", ["same", "./same", "x/../same", "soft", "hard", "soft_new"])
def test_two_outputs_with_one_name_are_refused(tmp_path: Path, other: str) -> None:
    same = tmp_path / "same"
    (tmp_path / "x").mkdir()
    if other != "soft_new":
        same.write_bytes(b"old")
    (tmp_path / "soft").symlink_to("same")
    (tmp_path / "soft_new").symlink_to("x/../same")
    if other == "hard":
        (tmp_path / "hard").hardlink_to(same)
    with pytest.raises(InvalidValueError, match="json and junit must be different files"):
        _files.check_outputs({"json": same, "junit": Path(f"{tmp_path}/{other}")})


def test_different_outputs_and_two_into_nothing_are_fine(tmp_path: Path) -> None:
    _files.check_outputs({"json": tmp_path / "a", "junit": tmp_path / "b"})
    _files.check_outputs({"json": Path(os.devnull), "junit": Path(os.devnull)})


@pytest.mark.parametrize("path", ["new", "new/inside", "there"])
def test_a_folder_is_tried_without_creating_it(tmp_path: Path, path: str) -> None:
    (tmp_path / "there").mkdir()
    _files.check_output_folder("shards", tmp_path / path)
    assert [found.name for found in tmp_path.rglob("*")] == ["there"]


@pytest.mark.parametrize("path", ["file", "file/new", "n" * 300, "new/" + "n" * 300, "dangling"])
def test_a_folder_that_cannot_be_is_refused_by_name(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(FileError, match=r"^shards cannot be written: "):
        _files.check_output_folder("shards", tmp_path / path)
    assert everything_in(tmp_path) == {"file": b"old"}


@pytest.mark.parametrize("value", [3, None, b"bytes", ["a"]])
def test_what_is_no_path_is_refused_by_name(value: object) -> None:
    with pytest.raises(InvalidTypeError, match="root must be a path, got"):
        _files.as_path("root", value)


def test_paths_that_no_system_knows_are_refused_by_name() -> None:
    with pytest.raises(InvalidValueError, match="root must not contain a byte 0"):
        _files.as_path("root", "a\0b")
    with pytest.raises(InvalidValueError, match="root: no home folder is known for '~nosuchuser"):
        _files.expanded("root", "~nosuchuser/x")
    assert _files.expanded("root", "~/x") == Path.home() / "x"
