"""Lessons run twice over, from any folder, and where nothing can be written.

The cells of each solved lesson run twice in one kernel, in a folder outside the repository whose
name contains a space and which is read-only. Nothing may be written there or to the course's
``data/``; that is checked even if the tests run as root, whom permissions do not stop. Lessons that
take long run only if TUTORIAL_ROBUST=all is set.
"""

import os
import stat
from pathlib import Path

import nbformat
import pytest
from build_notebooks import ROOT, Lesson, lessons
from nbclient import NotebookClient

QUICK = ("02",)
EVERYTHING = os.environ.get("TUTORIAL_ROBUST") == "all"
LESSONS = [lesson for lesson in lessons(ROOT) if EVERYTHING or lesson.source.stem.startswith(QUICK)]


def _files(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of the last change of every file below ``folder``."""
    found = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (status.st_size, status.st_mtime_ns) for path, status in found.items()}


@pytest.mark.long("a kernel runs a whole lesson, twice")
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.source.stem)
def test_a_lesson_runs_twice_in_a_folder_that_is_not_writable(lesson: Lesson, tmp_path: Path):
    folder = tmp_path / "my course"
    folder.mkdir()
    notebook = nbformat.read(lesson.solved, as_version=4)
    once = [cell for cell in notebook.cells if cell.cell_type == "code"]
    notebook.cells = [*once, *(nbformat.v4.new_code_cell(cell.source) for cell in once)]
    shipped = _files(ROOT / "data")
    environment = {**os.environ, "TUTORIAL_RUNS": str(tmp_path / "runs")}
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        NotebookClient(
            notebook,
            timeout=600,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            extra_arguments=["--log-level=ERROR", "--HistoryManager.hist_file=:memory:"],
        ).execute(env=environment)  # raises where a cell does
    finally:
        folder.chmod(stat.S_IRWXU)
    assert _files(folder) == {}
    assert _files(ROOT / "data") == shipped
    counts = [cell.execution_count for cell in notebook.cells]
    assert counts == list(range(1, len(counts) + 1))
