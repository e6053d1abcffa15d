"""A new lesson is three files: a source, its checks, an entry in the manifest; nothing else.

An empty lesson is added to a copy of the repository, and everything that knows the course must
take it from there: the builder, the tests of the house, the layers, the exercises and ``doctor``.
"""

import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import build_notebooks
import pytest

from tutorial_lib.course import LESSONS, Lesson

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class New:
    """An empty lesson that is added.

    Attributes:
        prefix: what its name begins with.
        after: the lesson that it follows.
    """

    prefix: str
    after: Lesson

    @property
    def name(self) -> str:
        return f"{self.prefix}_nothing_yet"

    @property
    def number(self) -> str:
        return self.prefix.removeprefix("0")

    @property
    def source(self) -> str:
        return f"notebooks/source/{self.name}.py"

    @property
    def checks(self) -> str:
        return f"tutorial_lib/checks/lesson{self.prefix}.py"

    def files(self) -> dict[str, str]:
        """Its source and its checks."""
        return {
            self.source: f"""
                # %% [markdown]
                # # {self.number} · Nothing yet
                #
                # **Time:** about <!-- minutes --> minutes.
                #
                # <!-- navigation -->
                """,
            self.checks: f"""
                from tutorial_lib.checks.framework import Choice

                empty = Choice(
                    "lesson{self.prefix}.empty",
                    "Is it empty?",
                    hints=("Look.",),
                    right="a",
                    options={{"a": "Yes.", "b": "Look again."}},
                )
                """,
        }

    def entry(self) -> str:
        given = 'title="Nothing yet", goal="wait", minutes=5, train_steps=1000'
        return f'    Lesson("{self.name}", {given}),\n'


MANIFEST = "tutorial_lib/course.py"
LAST = New(f"{int(LESSONS[-1].name[:2]) + 1:02d}", after=LESSONS[-1])
BETWEEN = New(f"{LESSONS[3].name[:2]}b", after=LESSONS[3])


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


def add(root: Path, new: New, *files: str) -> None:
    """Add these files of the new lesson to the copy under ``root``."""
    for name in files:
        path = root / name
        if name == MANIFEST:
            text = path.read_text()
            place = text.index("\n    ),\n", text.index(f'"{new.after.name}"')) + len("\n    ),\n")
            path.write_text(text[:place] + new.entry() + text[place:])
        else:
            path.write_text(textwrap.dedent(new.files()[name]).lstrip())


@dataclass(frozen=True)
class Added:
    """A copy of the repository with the new lesson, built.

    Attributes:
        root: where it is.
        new: the lesson.
        files: the names of the files that are new.
        changed: the names of those that are not, and changed.
    """

    root: Path
    new: New
    files: set[str]
    changed: set[str]


@pytest.fixture(scope="module", params=[LAST, BETWEEN], ids=lambda new: new.prefix)
def added(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Added:
    root = copy(tmp_path_factory.mktemp("course"))
    before, new = contents(root), request.param
    add(root, new, new.source, new.checks, MANIFEST)
    build_notebooks.update(root)
    after = contents(root)
    changed = {name for name in before if before[name] != after[name]}
    return Added(root, new, set(after) - set(before), changed)


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


def test_the_builder_does_the_rest(added: Added):
    new = added.new
    built = {f"notebooks/{folder}{new.name}.ipynb" for folder in ("", "solutions/")}
    assert added.files == {new.source, new.checks, *built}
    place = LESSONS.index(new.after)
    neighbors = LESSONS[place : place + 2]  # they link to it
    generated = {
        f"notebooks/{folder}{lesson.notebook}"
        for lesson in (LESSONS[0], *neighbors)  # lesson 0 has the table of all
        for folder in ("", "solutions/")
    }
    assert added.changed == {MANIFEST, "README.md", "docs/teachers.md", *generated}
    assert build_notebooks.main(["--check"], added.root) == 0


INSIDE = """
import sys
from pathlib import Path
from importlinter.cli import lint_imports
from tutorial_lib import checks, cli, course, lab
from tutorial_lib.cli import doctor
from tutorial_lib.cli.progress import notebooks

assert course.__file__.startswith(sys.argv[1]), course.__file__
print("exercises", [task.id for task in checks.all_exercises()])
learners = sorted(Path("notebooks").glob("*.ipynb"))
graded = notebooks.find(learners, require_all=False)
assert [one.lesson for one in graded] == list(course.LESSONS)
assert notebooks.lacking(graded) == []
lab.start(sys.argv[2])
doctor._speeds = lambda *_: (50.0, 50.0)  # the speed of this machine is not of interest
assert cli.main(["doctor"]) == 0
assert lint_imports(cache_dir=None) == 0
"""


def test_the_library_knows_it(added: Added):
    """Its exercises are found, ``start``, ``progress`` and ``doctor`` know it, and the layers need
    no new entry."""
    new = added.new
    shown = run(added.root, "-c", INSIDE, str(added.root), new.number)
    assert f"'lesson{new.prefix}.empty'" in shown
    assert f"\nLesson {new.number} · Nothing yet\n" in shown
    assert f"lesson      {new.name}: 5 min, of which 20 s are computing" in shown
    assert "0 broken" in shown


def test_the_tests_of_the_house_accept_it(added: Added):
    """Order of teaching, tables, minutes, links, the entry itself."""
    options = ["-p", "no:cacheprovider", "--noconftest", "-o", "addopts=--import-mode=importlib"]
    law = "tests/test_house.py::test_a_lesson_uses_what_was_taught"
    tests = [law, "tests/test_course.py", "tests/notebooks/test_tables.py"]
    name = added.new.name
    shown = run(
        added.root, "-m", "pytest", "-v", *options, "-k", f"{name} or table or in_order", *tests
    )
    passed = [line for line in shown.splitlines() if "PASSED" in line]
    assert sum(name in line for line in passed) == 5, shown
    assert sum("test_a_table_lists_every_lesson" in line for line in passed) == 2, shown
    assert sum("test_lessons_are_numbered_from_0_in_order" in line for line in passed) == 1, shown


@pytest.mark.parametrize(
    ("left_out", "complaint"),
    [
        (BETWEEN.source, f"{BETWEEN.source} is missing"),
        (BETWEEN.checks, f"{BETWEEN.checks} is missing"),
        (MANIFEST, f"({BETWEEN.checks}|{BETWEEN.source}) belongs to no lesson"),
    ],
)
def test_a_file_that_is_left_out_is_noticed(tmp_path: Path, left_out: str, complaint: str):
    root = copy(tmp_path)
    add(root, BETWEEN, *({BETWEEN.source, BETWEEN.checks, MANIFEST} - {left_out}))
    with pytest.raises(build_notebooks.LessonError, match=complaint):
        build_notebooks.stale(root)
