"""Files appear whole or not at all, and together or not at all."""

from pathlib import Path

import pytest

from tutorial_lib import _files


def everything_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_files_are_replaced_together(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    _files.write_all({tmp_path / "a": b"new", tmp_path / "b": b"fresh"})
    assert everything_in(tmp_path) == {"a": b"new", "b": b"fresh"}


@pytest.mark.parametrize("broken", ["missing/b", "b"])
def test_a_failure_before_the_first_move_changes_nothing(tmp_path: Path, broken: str) -> None:
    """The second folder is missing, or a folder has the temporary name of the second file."""
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "b.tmp").mkdir()
    with pytest.raises(OSError, match=r"b\.tmp"):
        _files.write_all({tmp_path / "a": b"new", tmp_path / broken: b"fresh"})
    assert everything_in(tmp_path) == {"a": b"old"}


def test_a_move_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        _files.write_whole(tmp_path / "taken", b"content")
    assert everything_in(tmp_path) == {}


def test_a_failure_after_the_first_move_keeps_the_other_contents(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(OSError, match="b"):
        _files.write_all({tmp_path / "a": b"new", tmp_path / "b": b"fresh"})
    assert everything_in(tmp_path) == {"a": b"new", "b.tmp": b"fresh"}
