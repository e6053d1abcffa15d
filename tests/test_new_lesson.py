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


def copy(root: Path) -> Path:
    """A copy of the repository's files, in ``root``."""
    for name in tracked(ROOT):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((ROOT / name).read_bytes())
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)  # tests there ask for its files
    return root


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


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, set[str], set[str]]:
    """A copy with the new lesson, built; the files that are new there, and those that changed."""
    root = copy(tmp_path_factory.mktemp("course"))
    before = contents(root)
    add(root, SOURCE, CHECKS, MANIFEST)
    build_notebooks.update(root)
    after = contents(root)
    changed = {name for name in before if before[name] != after[name]}
    return root, set(after) - set(before), changed


def run(root: Path, *words: str) -> str:
    """What Python prints in ``root``, with the library that is there."""
    shown = subprocess.run(
        [sys.executable, *words],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    return shown.stdout


def test_the_builder_does_the_rest(added: tuple[Path, set[str], set[str]]):
    root, new, changed = added
    built = {f"notebooks/{folder}{NAME}.ipynb" for folder in ("", "solutions/")}
    assert new == {SOURCE, CHECKS, *built}
    generated = {
        f"notebooks/{folder}{lesson.notebook}"
        for lesson in (LESSONS[0], LESSONS[-1])  # the table of all, a link to the next
        for folder in ("", "solutions/")
    }
    assert changed == {MANIFEST, "README.md", *generated}
    assert build_notebooks.main(["--check"], root) == 0


INSIDE = """
import sys
from importlinter.cli import lint_imports
from tutorial_lib import checks, cli, course
from tutorial_lib.cli import doctor

assert course.__file__.startswith(sys.argv[1]), course.__file__
print("exercises", [task.id for task in checks.all_exercises()])
doctor._speeds = lambda *_: (50.0, 50.0)  # the speed of this machine is not of interest
assert cli.main(["doctor"]) == 0
assert lint_imports(cache_dir=None) == 0
"""


def test_the_library_knows_it(added: tuple[Path, set[str], set[str]]):
    """Its exercises are found, ``doctor`` lists it, and the layers need no new entry."""
    shown = run(added[0], "-c", INSIDE, str(added[0]))
    assert f"'lesson{NUMBER:02d}.empty']\n" in shown
    assert f"lesson      {NAME}: 5 min, of which 20 s are computing" in shown
    assert "0 broken" in shown


def test_the_tests_of_the_house_accept_it(added: tuple[Path, set[str], set[str]]):
    """Order of teaching, tables, minutes, links, the entry itself."""
    options = ["-p", "no:cacheprovider", "--noconftest", "-o", "addopts=--import-mode=importlib"]
    law = "tests/test_house.py::test_a_lesson_uses_what_was_taught"
    tests = [law, "tests/test_course.py", "tests/notebooks/test_tables.py"]
    shown = run(added[0], "-m", "pytest", "-v", *options, "-k", f"{NAME} or table", *tests)
    passed = [line for line in shown.splitlines() if "PASSED" in line]
    assert sum(NAME in line for line in passed) == 5, shown
    assert sum("test_a_table_lists_every_lesson" in line for line in passed) == 2, shown


@pytest.mark.parametrize(
    ("left_out", "complaint"),
    [
        (SOURCE, f"{SOURCE} is missing"),
        (CHECKS, f"{CHECKS} is missing"),
        (MANIFEST, f"({CHECKS}|{SOURCE}) belongs to no lesson"),
    ],
)
def test_a_file_that_is_left_out_is_noticed(tmp_path: Path, left_out: str, complaint: str):
    root = copy(tmp_path)
    add(root, *({SOURCE, CHECKS, MANIFEST} - {left_out}))
    with pytest.raises(build_notebooks.LessonError, match=complaint):
        build_notebooks.stale(root)
