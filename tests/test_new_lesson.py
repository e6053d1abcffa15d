"""A new lesson is three files: a source, its checks, an entry in the manifest; nothing else.

An empty lesson is added to a copy of the repository, and everything that knows the course must
take it from there: the builder, the tests of the house, the layers, the exercises and ``doctor``.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import build_notebooks
import pytest

from tutorial_lib.course import LESSONS

ROOT = Path(__file__).resolve().parents[1]
NUMBER = len(LESSONS)
NAME = f"{NUMBER:02d}_nothing_yet"
SOURCE, CHECKS, MANIFEST = (
    f"notebooks/source/{NAME}.py",
    f"tutorial_lib/checks/lesson{NUMBER:02d}.py",
    "tutorial_lib/course.py",
)
THREE_FILES = {
    SOURCE: f"""
        # %% [markdown]
        # # {NUMBER} · Nothing yet
        #
        # **Time:** about <!-- minutes --> minutes.
        #
        # <!-- navigation -->
        """,
    CHECKS: f"""
        from tutorial_lib.checks.framework import Choice

        empty = Choice(
            "lesson{NUMBER:02d}.empty",
            "Is it empty?",
            hints=("Look.",),
            right="a",
            options={{"a": "Yes.", "b": "Look again."}},
        )
        """,
}
ENTRY = f'Lesson("{NAME}", title="Nothing yet", goal="wait", minutes=5, train_steps=1000),'


def tracked(root: Path) -> list[str]:
    """The repository's files, without those that git ignores."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True).stdout
    return [name for name in names.split("\0") if name and (root / name).is_file()]


def contents(root: Path) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in tracked(root)}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the repository's files."""
    for name in tracked(ROOT):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((ROOT / name).read_bytes())
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)  # tests there ask for its files
    return tmp_path


def add(root: Path, *files: str) -> None:
    """Add these files of the new lesson to the copy under ``root``."""
    for name in files:
        path = root / name
        if name == MANIFEST:
            before, mark, after = path.read_text().partition('\n)\n"""Every lesson, in the order')
            assert mark
            path.write_text(f"{before}\n    {ENTRY}{mark}{after}")
        else:
            path.write_text(textwrap.dedent(THREE_FILES[name]).lstrip())


INSIDE = f"""
import contextlib, io, sys
import pytest
from importlinter.cli import lint_imports
from tutorial_lib import course, checks, cli

assert course.__file__.startswith(sys.argv[1]), course.__file__
assert course.LESSONS[-1].name == "{NAME}"
assert [task.title for task in checks.all_exercises()][-1] == "Is it empty?"
with contextlib.redirect_stdout(io.StringIO()) as shown:
    assert cli.main(["doctor", "--seconds", "0.1"]) == 0
assert "lesson      {NAME}: 5 min, of which" in shown.getvalue(), shown.getvalue()
assert lint_imports(cache_dir=None) == 0
tests = ["test_course.py", "notebooks/test_tables.py", "notebooks/test_structure.py"]
tests += ["test_house.py::test_a_lesson_uses_what_was_taught"]
# The library is loaded already, so without the shape checks.
words = ["-q", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib"]
words += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
words += ["-k", "{NAME} or {NAME[:2]} or (tables and README)"]
sys.exit(pytest.main([*words, *(f"tests/{{name}}" for name in tests)]))
"""


def test_a_new_lesson_is_three_files(copy: Path):
    before = contents(copy)
    add(copy, SOURCE, CHECKS, MANIFEST)
    build_notebooks.update(copy)
    assert build_notebooks.stale(copy) == []
    after = contents(copy)
    built = [f"notebooks/{folder}{NAME}.ipynb" for folder in ("", "solutions/")]
    assert set(after) - set(before) == {SOURCE, CHECKS, *built}
    changed = {name for name in before if before[name] != after[name]}
    generated = {
        f"notebooks/{folder}{lesson.notebook}"
        for lesson in (LESSONS[0], LESSONS[-1])  # the table of all, a link to the next
        for folder in ("", "solutions/")
    }
    assert changed == {MANIFEST, "README.md", *generated}

    shown = subprocess.run(
        [sys.executable, "-c", INSIDE, str(copy)],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr


@pytest.mark.parametrize(
    ("left_out", "complaint"),
    [
        (SOURCE, f"{SOURCE} is missing"),
        (CHECKS, f"{CHECKS} is missing"),
        (MANIFEST, f"{CHECKS[:-3]}.py belongs to no lesson|{SOURCE} belongs to no lesson"),
    ],
)
def test_a_file_that_is_left_out_is_noticed(copy: Path, left_out: str, complaint: str):
    add(copy, *({SOURCE, CHECKS, MANIFEST} - {left_out}))
    with pytest.raises(build_notebooks.LessonError, match=complaint):
        build_notebooks.stale(copy)
