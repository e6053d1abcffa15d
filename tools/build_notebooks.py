"""Builds the notebooks: notebooks/source/NN_name.py becomes two of them.

    notebooks/NN_name.ipynb            for learners: exercises open, no outputs
    notebooks/solutions/NN_name.ipynb  solved and run, with outputs
    notebooks/explorers/               what the explorers in these outputs hold, for the website

    python tools/build_notebooks.py                  write both, keep outputs that still hold
    python tools/build_notebooks.py --execute        and run solved notebooks that lack outputs
    python tools/build_notebooks.py --execute 03 05  and run these; `--execute all` runs all
    python tools/build_notebooks.py --check          change nothing, exit 1 if anything is stale

The lessons are those of tutorial_lib/course.py. The source is jupytext's percent format. What an
author may write in it:

    # BEGIN SOLUTION lesson05.jump   the builder puts the body of that exercise's model answer
    ...                              here, from tutorial_lib/checks/lesson05.py. It goes into the
    # END SOLUTION                   solved notebook only; learners get `return ...`.

    # BEGIN SOLUTION      a solution of a question, written in place: for the solved notebook only.
    x = a + b             Learners get the lines after `# STUB`, without their `# `; or, where there
    # STUB                is no `# STUB`, `return ...` or `name = ...`, whichever the solution ends
    # x = ...             with.
    # END SOLUTION

    # %% tags=["solution"]      a cell of the solved notebook only
    # %% tags=["learner"]       a cell of the learner's notebook only
    # %% tags=["plumbing"]      a code cell that is not to be learned from; it appears folded. Of it
                                JupyterLab shows the first line, so a comment is put there that says
                                what the cell does, unless it begins with one of its own
    # %% tags=["opening"]       the code cell whose figure opens the lesson; see the mark below
    # NBVAL_CHECK_OUTPUT        what this cell prints must be the same in every run

    <!-- minutes -->      in a text cell: the lesson's minutes, by the manifest
    <!-- navigation -->   links to the lessons before and after this one
    <!-- lessons -->      the table of all lessons
    <!-- claims -->       the lesson's claims, as benchmarks/claims.py measured them
    <!-- opening -->      on a line of its own: the picture that the cell with the tag "opening"
                          shows in the solved notebook. The builder writes it to notebooks/images/,
                          an animation with its last frame, for readers who have asked for less
                          motion. Nothing stands here until the cell has run.

The learner's notebook has one more cell, after the title: it installs the course where it is
missing, as on Colab. Where pyproject.toml says which repository the course is in, the title and
README also say where it can be run without installing anything; see tools/repository.py.

docs/teachers.md says between `<!-- needs -->` and `<!-- end of needs -->` what each lesson needs.

README has the table, too, between `<!-- lessons -->` and `<!-- end of lessons -->`.

Links are written as seen from notebooks/. Cell ids come from the cells' text, with solutions and
generated parts filled in, so building twice gives the same bytes.
"""

import argparse
import ast
import base64
import copy
import hashlib
import html
import importlib
import io
import json
import os
import posixpath
import re
import runpy
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from PIL import Image, ImageChops
from repository import Repository, repository

if TYPE_CHECKING:
    from tutorial_lib.course import Lesson as Entry

ROOT = Path(__file__).resolve().parents[1]
CELL_SECONDS = 600  # a cell that runs longer is stopped

BEGIN, STUB, END = "# BEGIN SOLUTION", "# STUB", "# END SOLUTION"
CHECK_OUTPUT = "# NBVAL_CHECK_OUTPUT"
NEARLY_A_MARK = re.compile(r"^\s*#+\s*((BEGIN|END)\s*SOLUTION|STUB\b|NBVAL)", re.IGNORECASE)
PULLED = re.compile(rf"^\s*{BEGIN} (lesson\d\d[a-z]?)\.(\w+)$")
CHECKS = re.compile(r"lesson\d\d[a-z]?")
KNOWN_TAGS = {"solution", "learner", "plumbing", "opening", "raises-exception"}
INSTALLS = "install"  # the id of the cell that does so
INSTALL = """\
# installs the course where it is missing, as on Colab; does nothing where it is there
from importlib.util import find_spec

if find_spec("tutorial_lib") is None:
    get_ipython().run_line_magic("pip", "install --quiet '{}'")"""
LABELS = ("# draws the figure below", "# imports and small helpers")  # of folded cells
WIDEST = 900  # pixels of the screen that an opening picture may take
OPENING = re.compile(r"^<!-- *opening *-->$\n*", re.MULTILINE)
GENERATED = re.compile(r"<!-- *(.*?) *-->")
DOORS = re.compile(r"(<!-- doors -->\n).*?(<!-- end of doors -->\n)", re.DOTALL)
NEEDS = re.compile(r"(<!-- needs -->\n).*?(<!-- end of needs -->\n)", re.DOTALL)
YOU_NEED = re.compile(r"\*\*You need\*\*\s*(.*?)\.?\s*\*\*Time:", re.DOTALL)
README_TABLE = re.compile(r"(<!-- lessons -->\n).*?(<!-- end of lessons -->\n)", re.DOTALL)
EXPLORER = "explorer"  # what the metadata of an explorer's output calls its file
TO_EXPLORE = "Run this cell in JupyterLab to explore."  # how an explorer's text ends
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
TERMINAL_COLORS = re.compile(r"\x1b\[[0-9;]*m")
LINK = re.compile(r"""(\]\(|(?:src|srcset|href)=["'])([^)\s"'#][^)\s"'#]*)""")


class LessonError(ValueError):
    """A lesson's source cannot be built, and the message says where and why."""


@dataclass(frozen=True)
class Lesson:
    """One lesson: its entry in the manifest, its source, its checks and the notebooks built."""

    entry: "Entry"
    source: Path
    checks: Path
    learner: Path
    solved: Path

    @property
    def explorers(self) -> Path:
        """The folder for what the explorers of all lessons hold."""
        return self.learner.parent / "explorers"

    def image(self, kind: str) -> Path:
        """Where its opening picture belongs; ``kind`` is "png" or "gif"."""
        return self.learner.parent / "images" / f"{self.entry.name}.{kind}"


def lessons(root: Path) -> list[Lesson]:
    """Every lesson of the manifest under ``root``, in the order of the course.

    Raises:
        LessonError: a lesson lacks one of its three parts (entry, source, checks).
    """
    notebooks, checks = root / "notebooks", root / "tutorial_lib" / "checks"
    found = [
        Lesson(
            entry,
            source=notebooks / "source" / f"{entry.name}.py",
            checks=checks / f"{entry.checks}.py",
            learner=notebooks / entry.notebook,
            solved=notebooks / "solutions" / entry.notebook,
        )
        for entry in _manifest(root)
    ]
    expected = {path for lesson in found for path in (lesson.source, lesson.checks)}
    of_lessons = {path for path in checks.glob("*.py") if CHECKS.fullmatch(path.stem)}
    there = {*(notebooks / "source").glob("*.py"), *of_lessons}
    for path in sorted(expected ^ there):
        name = path.relative_to(root).as_posix()
        if path in there:
            raise LessonError(f"{name} belongs to no lesson of tutorial_lib/course.py")
        raise LessonError(f"{name} is missing: tutorial_lib/course.py lists its lesson")
    return found


def build(lesson: Lesson, course: Sequence[Lesson]) -> tuple[NotebookNode, NotebookNode]:
    """The learner's and the solved notebook of one lesson of ``course``, without outputs.

    The mark of the opening picture is left for ``illustrate``, which needs outputs.

    Raises:
        LessonError: unbalanced, misspelled or unknown marks, an unknown tag or exercise, Python
            that does not parse, an opening picture without its cell or the other way round.
    """
    text = lesson.source.read_text(encoding="utf-8")
    learner, solved = _empty_notebook(), _empty_notebook()
    siblings = {other.entry.name for other in course}
    entries = [other.entry for other in course]
    answers = _Answers(lesson.checks.parent)
    claims = lesson.source.parents[2] / "benchmarks" / "results" / "claims"
    seen: dict[str, int] = {}
    for number, cell in enumerate(jupytext.reads(text, fmt="py:percent").cells, start=1):
        try:
            if cell.cell_type == "markdown":
                cell.source = _with_generated_parts(cell.source, lesson.entry, entries, claims)
            else:
                cell.source = _with_solutions(cell.source, answers)
            for_learner, for_solved = _both_versions(cell)
        except LessonError as error:
            where = f"{lesson.source.name}, cell {number}"
            raise LessonError(f"{where}: {error}\n{_indented(cell.source)}") from None
        identity = _cell_id(lesson.source.stem, cell, seen)
        for notebook, version in ((learner, for_learner), (solved, for_solved)):
            if version is not None:
                version["id"] = identity
                notebook.cells.append(version)
    for cell in solved.cells:
        if cell.cell_type == "markdown":
            cell.source = _seen_from_solutions(cell.source, siblings)
    marks, tagged = len(_opening_marks(learner)), len(_opening_cells(solved))
    if (marks, tagged) not in ((0, 0), (1, 1)) or len(_opening_marks(solved)) != marks:
        raise LessonError(
            f"{lesson.source.name}: a line <!-- opening --> for both notebooks and a cell with the "
            f"tag 'opening' belong together, one each; there are {marks} and {tagged}"
        )
    return learner, solved


def illustrate(lesson: Lesson, learner: NotebookNode, solved: NotebookNode) -> dict[Path, bytes]:
    """Puts the picture that ``solved`` shows in its opening cell at the mark in both notebooks.

    Returns:
        The files that belong to it; none if the lesson has no opening, or if its cell has not run.

    Raises:
        LessonError: the cell has run and does not show one picture with an alternative text.
    """
    files: dict[Path, bytes] = {}
    tags = dict.fromkeys(("images", "../images"), "")
    for cell in _opening_cells(solved):
        if cell.execution_count is None:
            continue
        pictures = [
            (kind, base64.b64decode(data), output.metadata.get(f"image/{kind}", {}))
            for output in cell.outputs
            for kind in ("png", "gif")
            if (data := output.get("data", {}).get(f"image/{kind}"))
        ]
        if len(pictures) != 1 or not pictures[0][2].get("alt", "").strip():
            wanted = "must show one picture with an alternative text"
            raise LessonError(f"{lesson.source.name}: the cell with the tag 'opening' {wanted}")
        kind, data, about = pictures[0]
        files[lesson.image(kind)] = data
        if kind == "gif":
            files[lesson.image("png")] = _last_frame(data)
        tags = {folder: _shown(f"{folder}/{lesson.entry.name}", kind, about) for folder in tags}
    for notebook, tag in zip((learner, solved), tags.values(), strict=True):
        for cell in _opening_marks(notebook):
            cell.source = OPENING.sub(lambda _, tag=tag: tag, cell.source).rstrip("\n")
    return files


def with_doors(lesson: Lesson, learner: NotebookNode, there: Repository | None) -> NotebookNode:
    """The learner's notebook as it is opened anywhere: it installs what is missing.

    Args:
        lesson: whose notebook it is.
        learner: as ``build`` gives it.
        there: where the course is published; None leaves out the links to other places.
    """
    opened = copy.deepcopy(learner)
    wanted = there.requirement("notebook") if there else "..[notebook]"  # the checkout above it
    cell = nbformat.v4.new_code_cell(INSTALL.format(wanted), id=INSTALLS)
    cell.metadata = nbformat.from_dict({"jupyter": {"source_hidden": True}, "tags": ["hide-input"]})
    title = next((n for n, c in enumerate(opened.cells) if c.cell_type == "markdown"), -1)
    if there and title >= 0:
        opened.cells[title].source += f"\n\n{doors(there, f'notebooks/{lesson.entry.notebook}')}"
    opened.cells.insert(title + 1, cell)
    return opened


def doors(there: Repository, notebook: str) -> str:
    """A line with links to the places where ``notebook`` can be run at once."""
    *most, last = (f"[{name}]({link})" for name, link in there.doors(notebook).items())
    return f"*Run it without installing anything: {', '.join(most)} or {last}.*"


def table(entries: Sequence["Entry"], folder: str = "") -> str:
    """The table of all lessons, with links to the notebooks in ``folder``."""
    rows = [
        f"| [{entry.number}. {entry.title}]({folder}{entry.notebook}) | {entry.goal} "
        f"| {entry.minutes} |"
        for entry in entries
    ]
    return "\n".join(["| lesson | you will | minutes |", "|---|---|---|", *rows])


def navigation(entry: "Entry", entries: Sequence["Entry"]) -> str:
    """Links to the lessons after and before ``entry``."""
    place = entries.index(entry)
    lines = []
    if place + 1 < len(entries):
        after = entries[place + 1]
        lines.append(f"**Next:** [{after.number}. {after.title}]({after.notebook}): {after.goal}.")
    else:
        lines.append("This is the last lesson of the course.")
    if place > 0:
        before = entries[place - 1]
        lines.append(f"**Before:** [{before.number}. {before.title}]({before.notebook})")
    return "\n\n".join(lines)


def carry_outputs(new: NotebookNode, old: NotebookNode | None) -> None:
    """Copies outputs from ``old`` to ``new``, up to the first code cell that changed.

    Cells below a changed one may depend on it, so their outputs no longer hold. The label of a
    folded cell is a comment and changes nothing.
    """
    before = [cell for cell in old.cells if cell.cell_type == "code"] if old else []
    now = [cell for cell in new.cells if cell.cell_type == "code"]
    for cell, earlier in zip(now, before, strict=False):
        if (cell.id, _unlabeled(cell.source)) != (earlier.get("id"), _unlabeled(earlier.source)):
            break
        cell.outputs, cell.execution_count = earlier.outputs, earlier.execution_count


def lacks_outputs(notebook: NotebookNode) -> bool:
    """Whether a code cell has not been run since it was written."""
    return any(c.cell_type == "code" and c.execution_count is None for c in notebook.cells)


def execute(notebook: NotebookNode, folder: Path, name: str = "notebook") -> dict[str, str]:
    """Runs ``notebook`` in place from top to bottom, with ``folder`` as its working directory.

    What it keeps for later lessons is gone afterwards, and it finds nothing that others kept: the
    outputs are those of a learner who opens this lesson first.

    Returns:
        What each explorer that needs no kernel holds, as JSON by a file name that begins with
        ``name``; its output has the file name in its metadata, as "explorer". There stands false
        for one that needs a kernel.

    Raises:
        CellExecutionError: a cell raised.
    """
    with tempfile.TemporaryDirectory() as scratch:
        runs = Path(scratch).resolve() / "runs"
        client = NotebookClient(
            notebook,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            record_timing=False,  # timestamps would change every run
            coalesce_streams=True,
            extra_arguments=["--log-level=ERROR"],  # without warnings about sockets
        )
        client.execute(env={**os.environ, "TUTORIAL_RUNS": str(runs)})
    held: dict[str, str] = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if (state := _held(client, output)) is not None:
                stem = f"{name}-{cell.id}"
                number = sum(other.startswith(stem) for other in held)
                file = f"{stem}-{number}.json" if number else f"{stem}.json"
                held[file] = json.dumps(state, ensure_ascii=False) + "\n"
                output.metadata[EXPLORER] = file
            elif _is_explorer(output):
                output.metadata[EXPLORER] = False
            _keep_what_lasts(output)
            if "text" in output:
                output.text = output.text.replace(str(runs), "runs")
    notebook.metadata = nbformat.from_dict(METADATA)  # the kernel adds its own version
    return held


def _held(client: NotebookClient, output: NotebookNode) -> dict[str, Any] | None:
    """What the explorer in this output holds, as its own page would; None for other outputs.

    None, too, for one that needs a kernel.
    """
    view = output.get("data", {}).get("application/vnd.jupyter.widget-view+json")
    state = client.widget_state.get(view["model_id"], {}) if view else {}
    module, _, kind = state.get("_anywidget_id", "").rpartition(".")
    if not module.startswith("tutorial_lib.explorers."):
        return None
    if not getattr(importlib.import_module(module), kind).standalone:
        return None
    buffers = client.widget_buffers.get(view["model_id"], {}).values()
    private = ("_", "layout", "tabbable", "tooltip", "comm")
    return {
        "explorer": module.split(".")[2],
        "summary": output.data["text/plain"],
        "bytes": {buffer["path"][0]: buffer["data"] for buffer in buffers},
        "values": {key: value for key, value in state.items() if not key.startswith(private)},
    }


def explorers(notebook: NotebookNode) -> dict[str, str]:
    """The files with what the explorers in the outputs of ``notebook`` hold, and what each says."""
    return {
        output.metadata[EXPLORER]: output.data["text/plain"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.get("metadata", {}).get(EXPLORER)
    }


def _is_explorer(output: NotebookNode) -> bool:
    """Whether an output shows an explorer, by what it says in a terminal."""
    return output.get("data", {}).get("text/plain", "").endswith(TO_EXPLORE)


def _forgets(notebook: NotebookNode) -> bool:
    """Whether nobody kept what an explorer of ``notebook`` holds."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return any(_is_explorer(output) and EXPLORER not in output.metadata for output in outputs)


def stale(root: Path) -> list[str]:
    """What is wrong with the committed files, one line each; empty when all is well."""
    found, expected, course = [], set(), lessons(root)
    for lesson in course:
        learner, solved = build(lesson, course)
        carry_outputs(solved, _read(lesson.solved))
        opens = bool(_opening_cells(solved))
        images = illustrate(lesson, learner, solved)
        learner = with_doors(lesson, learner, repository(root))
        for path, data in images.items():
            if not _holds(path, data):
                name = path.relative_to(root).as_posix()
                found.append(f"{name} is not what {lesson.solved.name} shows")
        for file, says in explorers(solved).items():
            path = lesson.explorers / file
            expected.add(path)
            if not path.exists() or json.loads(path.read_text("utf-8"))["summary"] != says:
                found.append(f"explorers/{file} is not what {lesson.solved.name} shows")
        # Before the cell has run, nobody knows which there should be.
        expected.update(images or (map(lesson.image, ("png", "gif")) if opens else ()))
        for path, notebook in ((lesson.learner, learner), (lesson.solved, solved)):
            expected.add(path)
            name = path.relative_to(root).as_posix()
            if not path.exists():
                found.append(f"{name} is missing")
            elif _rendered(notebook) != path.read_text(encoding="utf-8"):
                found.append(f"{name} differs from what its source gives")
            elif path == lesson.solved and lacks_outputs(notebook):
                found.append(f"{name} has cells that were not run")
            elif path == lesson.solved and _forgets(notebook):
                again = f"run tools/build_notebooks.py --execute {lesson.entry.name}"
                found.append(f"{name} lacks what its explorers hold: {again}")
    notebooks = root / "notebooks"
    there = [*notebooks.glob("*.ipynb"), *notebooks.glob("solutions/*.ipynb")]
    there += [*notebooks.glob("images/*"), *notebooks.glob("explorers/*")]
    for path in sorted(set(there) - expected):
        found.append(f"{path.relative_to(root).as_posix()} has no source")
    readme = root / "README.md"
    if readme.exists():
        made = _readme(readme, course, repository(root))
        if readme.read_text(encoding="utf-8") != made:
            found.append("README.md differs from what course.py and pyproject.toml say")
    teachers = root / "docs" / "teachers.md"
    if teachers.exists() and teachers.read_text(encoding="utf-8") != _teachers(teachers, course):
        found.append("docs/teachers.md differs from what the lessons say that they need")
    return found


def update(root: Path, to_run: list[str] | None = None) -> None:
    """Writes every notebook and README's table anew.

    Args:
        to_run: which solved notebooks to run: None for none, an empty list for those that lack
            outputs, otherwise lessons by the beginnings of their names ("03"), or "all".
    """
    course = lessons(root)
    for name in to_run or []:
        if name != "all" and not any(_is_called(lesson, name) for lesson in course):
            raise LessonError(f"no lesson begins with {name!r}")
    readme, there = root / "README.md", repository(root)
    if readme.exists():
        _write(readme, _readme(readme, course, there))
    teachers = root / "docs" / "teachers.md"
    if teachers.exists():
        _write(teachers, _teachers(teachers, course))
    for lesson in course:
        learner, solved = build(lesson, course)
        carry_outputs(solved, _read(lesson.solved))
        _write_lesson(lesson, learner, solved, there)
        if _wanted(lesson, solved, to_run):
            print(f"running {lesson.solved.relative_to(root)}", flush=True)
            held = execute(solved, lesson.solved.parent, lesson.entry.name)
            for file, text in held.items():
                _write(lesson.explorers / file, text)
            _write_lesson(lesson, learner, solved, there)
        for path in lesson.explorers.glob(f"{lesson.entry.name}-*.json"):
            if path.name not in explorers(solved):
                path.unlink()


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Build the notebooks from notebooks/source.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="only say what is stale")
    what.add_argument(
        "--execute",
        nargs="*",
        metavar="LESSON",
        help="run solved notebooks: those named, 'all', or without a name those that need it",
    )
    options = parser.parse_args(arguments)
    try:
        if not options.check:
            update(root, options.execute)
            return 0
        problems = stale(root)
    except LessonError as error:
        print(error, file=sys.stderr)
        return 1
    except CellExecutionError as error:
        print(f"a cell failed:\n{TERMINAL_COLORS.sub('', str(error))}", file=sys.stderr)
        return 1
    for problem in problems:
        print(problem)
    print("run `make notebooks`" if problems else "notebooks and README match their sources")
    return 1 if problems else 0


def _manifest(root: Path) -> tuple["Entry", ...]:
    """The manifest under ``root``, read as a file: it may be another one than the installed."""
    return runpy.run_path(str(root / "tutorial_lib" / "course.py"))["LESSONS"]


def _readme(path: Path, course: Sequence[Lesson], there: Repository | None) -> str:
    """README's text with its table of lessons and its links to other places made anew."""
    new = table([lesson.entry for lesson in course], folder="notebooks/")
    text, count = README_TABLE.subn(rf"\1\n{new}\n\n\2", path.read_text(encoding="utf-8"))
    if count != 1:
        marks = "<!-- lessons --> and <!-- end of lessons -->"
        raise LessonError(f"{path.name} must have one pair of lines {marks}, it has {count}")
    links = ""
    if there and course:
        links = f"\n{doors(there, f'notebooks/{course[0].entry.notebook}')} "
        links += f"[The course as a website]({there.site}).\n\n"
    return DOORS.sub(lambda marks: f"{marks[1]}{links}{marks[2]}", text)


def needs(source: str) -> str:
    """What a lesson's first cell says that one needs for it, by its source."""
    first = re.sub(r"^# ?", "", source.partition("\n# %%\n")[0], flags=re.MULTILINE)
    found = YOU_NEED.search(first)
    return " ".join(found[1].split()) if found else "nothing"


def _teachers(path: Path, course: Sequence[Lesson]) -> str:
    """The text of the page for teachers, with the table of what each lesson needs made anew."""
    rows = ["| lesson | it needs | minutes |", "|---|---|---|"]
    for lesson in course:
        entry = lesson.entry
        link = f"[{entry.number}. {entry.title}](../notebooks/{entry.notebook})"
        rows.append(f"| {link} | {needs(lesson.source.read_text('utf-8'))} | {entry.minutes} |")
    made = "\n".join(rows)
    text = path.read_text(encoding="utf-8")
    return NEEDS.sub(lambda marks: f"{marks[1]}\n{made}\n\n{marks[2]}", text)


def claims_table(folder: Path, entry: "Entry") -> str:
    """What was measured of the claims of lesson ``entry``, read from the results in ``folder``.

    Raises:
        LessonError: nothing was measured.
    """
    path = folder / f"{entry.checks}.json"
    if not path.exists():
        command = f"python benchmarks/claims.py {entry.checks}"
        raise LessonError(f"no claim of {entry.name} has been measured: run `{command}`")
    rows = [
        f"| {claim['claim']} | {claim['verdict']} | {claim['number']} |"
        for claim in json.loads(path.read_text(encoding="utf-8")).values()
    ]
    return "\n".join(["| claim | verdict | what we measured |", "|---|---|---|", *rows])


def _with_generated_parts(
    text: str, entry: "Entry", entries: Sequence["Entry"], claims: Path
) -> str:
    """A text cell with what the manifest and the measured claims say in place of its marks."""

    def part(match: re.Match[str]) -> str:
        match match[1]:
            case "minutes":
                return str(entry.minutes)
            case "navigation":
                return navigation(entry, entries)
            case "lessons":
                return table(entries)
            case "claims":
                return claims_table(claims, entry)
            case "opening" if match[0] in text.splitlines():
                return match[0]  # its picture comes when the notebook has run
            case "opening":
                raise LessonError("<!-- opening --> must stand on a line of its own")
        known = "minutes, navigation, lessons, claims, opening"
        raise LessonError(f"unknown mark {match[0]!r}; known are {known}")

    return GENERATED.sub(part, text)


@dataclass(frozen=True)
class _Answer:
    """A model answer: the lines of its body without indentation, and its arguments."""

    body: list[str]
    arguments: str


class _Answers:
    """The exercises' model answers, read from the files of checks without importing them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, dict[str, _Answer]] = {}

    def of(self, lesson: str, name: str) -> _Answer:
        """The model answer of exercise ``name``.

        Raises:
            LessonError: there is no such exercise, or its answer is not a function of that file.
        """
        if lesson not in self.files:
            path = self.folder / f"{lesson}.py"
            self.files[lesson] = _model_answers(path) if path.exists() else {}
        if name not in self.files[lesson]:
            raise LessonError(f"{lesson}.{name} is no exercise with a function as model answer")
        return self.files[lesson][name]


def _model_answers(path: Path) -> dict[str, _Answer]:
    """The model answers in one file of checks, by the names of their exercises."""
    source = path.read_text(encoding="utf-8")
    module = ast.parse(source, path.name)
    functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
    found = {}
    for node in module.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(keywords=keywords)):
                for keyword in keywords:
                    if keyword.arg == "model_answer" and isinstance(keyword.value, ast.Name):
                        function = functions.get(keyword.value.id)
                        if function is not None:
                            found[name] = _answer(function, source.splitlines())
    return found


def _answer(function: ast.FunctionDef, lines: list[str]) -> _Answer:
    has_docstring = ast.get_docstring(function) is not None
    first = function.body[1 if has_docstring else 0].lineno - 1
    while not lines[first - 1].strip() or lines[first - 1].strip().startswith("#"):
        first -= 1  # comments above the first statement belong to it
    body = textwrap.dedent("\n".join(lines[first : function.end_lineno])).splitlines()
    return _Answer(body, ast.unparse(function.args))


def _with_solutions(source: str, answers: _Answers) -> str:
    """A code cell with its exercises' model answers filled in.

    Raises:
        LessonError: an unknown exercise; a region that holds anything but ``...``, or is not in a
            function with the arguments of the model answer.
    """
    lines, filled = source.splitlines(), []
    for number, line in enumerate(lines):
        mark = PULLED.match(line)
        if mark:
            answer = answers.of(mark[1], mark[2])
            placeholder, end = (text.strip() for text in [*lines[number + 1 :], "", ""][:2])
            if placeholder != "..." or end not in (STUB, END):
                raise LessonError(f"{line.strip()!r} needs a line `...` and nothing else below it")
            if (given := _arguments_at(source, number + 1)) != answer.arguments:
                says = f"the model answer of {mark[1]}.{mark[2]} takes ({answer.arguments})"
                raise LessonError(f"{says}, the function here ({given})")
            indent = line[: line.index("#")]
            filled.append(f"{indent}{BEGIN}")
            filled += [f"{indent}{inner}" if inner else "" for inner in answer.body]
        elif not (number and PULLED.match(lines[number - 1])):
            filled.append(line)
    return "\n".join(filled)


def _arguments_at(source: str, number: int) -> str | None:
    """The arguments of the innermost function around line ``number``; None outside of any."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError as error:
        raise LessonError(f"the cell is no Python: {error.msg}") from None
    around = [
        node
        for node in nodes
        if isinstance(node, ast.FunctionDef) and node.lineno < number <= (node.end_lineno or 0)
    ]
    return ast.unparse(max(around, key=lambda node: node.lineno).args) if around else None


def _empty_notebook() -> NotebookNode:
    return nbformat.v4.new_notebook(metadata=nbformat.from_dict(METADATA))


def _both_versions(cell: NotebookNode) -> tuple[NotebookNode | None, NotebookNode | None]:
    """The learner's and the solved version of a source cell, None where it does not appear."""
    tags = set(cell.metadata.get("tags", []))
    if unknown := tags - KNOWN_TAGS:
        raise LessonError(f"unknown tag {min(unknown)!r}; known are {sorted(KNOWN_TAGS)}")
    learner, solved = copy.deepcopy(cell), copy.deepcopy(cell)
    folded = "plumbing" in tags
    if folded and (cell.cell_type != "code" or BEGIN in cell.source):
        raise LessonError("'plumbing' is for code cells without a solution")
    if "opening" in tags and cell.cell_type != "code":
        raise LessonError("'opening' is for a code cell, whose figure opens the lesson")
    solved_tags = tags - {"solution", "learner", "plumbing"} | ({"hide-input"} if folded else set())
    learner_tags = solved_tags - {"opening"}
    if cell.cell_type == "code":
        learner.source, solved.source = split(cell.source)
        if CHECK_OUTPUT in (line.strip() for line in cell.source.splitlines()):
            solved_tags.add("nbval-check-output")
    elif BEGIN in cell.source:
        raise LessonError("solutions belong in code cells; use tags for text")
    for version, kept in ((learner, learner_tags), (solved, solved_tags)):
        version.metadata.pop("tags", None)
        version.metadata.pop("lines_to_next_cell", None)  # how the source is spaced
        if kept:
            version.metadata["tags"] = sorted(kept)
        if folded:  # JupyterLab reads this; the website reads the tag
            version.source = _labeled(version.source)
            version.metadata["jupyter"] = {"source_hidden": True}
    return (None if "solution" in tags else learner), (None if "learner" in tags else solved)


def _labeled(source: str) -> str:
    """The code of a folded cell with a comment above it, if it has none."""
    if source.startswith("#"):
        return source
    draws = re.search(r"\bshow\(", source) is not None
    return f"{LABELS[0] if draws else LABELS[1]}\n{source}"


def _unlabeled(source: str) -> str:
    first, _, rest = source.partition("\n")
    return rest if first in LABELS else source


def split(source: str) -> tuple[str, str]:
    """A code cell's text for learners and for the solved notebook.

    Raises:
        LessonError: unbalanced or misspelled marks, a stub line that is not a comment.
    """
    learner: list[str] = []
    solved: list[str] = []
    region: _Region | None = None
    for line in source.splitlines():
        mark = line.strip()
        if mark == BEGIN:
            if region is not None:
                raise LessonError(f"{BEGIN!r} inside a solution")
            region = _Region(indent=line[: line.index("#")])
        elif mark in (STUB, END):
            if region is None or (mark == STUB and region.stub is not None):
                raise LessonError(f"{mark!r} where no solution is open")
            if mark == STUB:
                region.stub = []
            else:
                learner += region.for_learner()
                solved += region.solution
                region = None
        elif mark == CHECK_OUTPUT and region is None:
            continue  # becomes a tag
        elif NEARLY_A_MARK.match(line):
            raise LessonError(f"{mark!r} is nearly a mark; marks are {BEGIN!r}, {STUB!r}, {END!r}")
        elif region is None:
            learner.append(line)
            solved.append(line)
        else:
            region.add(line)
    if region is not None:
        raise LessonError(f"{BEGIN!r} without {END!r}")
    return "\n".join(learner).strip("\n"), "\n".join(solved).strip("\n")


class _Region:
    """A solution and what learners find in its place."""

    def __init__(self, indent: str) -> None:
        self.indent = indent
        self.solution: list[str] = []
        self.stub: list[str] | None = None

    def add(self, line: str) -> None:
        if self.stub is None:
            self.solution.append(line)
        elif (comment := line.removeprefix(self.indent)).startswith("# ") or comment == "#":
            self.stub.append((self.indent + comment[2:]).rstrip())
        else:
            raise LessonError(f"a stub's lines begin with '# ', indented like {BEGIN!r}: {line!r}")

    def for_learner(self) -> list[str]:
        if self.stub is not None:
            return self.stub
        return [f"{self.indent}{_placeholder(self.solution)}  # your code here"]


def _placeholder(solution: list[str]) -> str:
    """The statement that stands for ``solution``: it returns or binds ``...`` as that does."""
    try:
        # In a function, so that a solution may end with `return`.
        body = textwrap.indent(textwrap.dedent("\n".join(solution)), "    ")
        statements = ast.parse(f"def solution():\n{body}").body
    except SyntaxError as error:
        raise LessonError(f"the solution is no Python: {error.msg}") from None
    function = statements[0]
    assert isinstance(function, ast.FunctionDef)
    match function.body[-1]:
        case ast.Return():
            return "return ..."
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return f"{name} = ..."
        case _:
            return "..."


def _cell_id(stem: str, cell: NotebookNode, seen: dict[str, int]) -> str:
    """An id that depends on the cell's own text, and on how often that text came before."""
    text = f"{stem}\0{cell.cell_type}\0{cell.source}"
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    seen[digest] = seen.get(digest, 0) + 1
    return digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"


def _seen_from_solutions(text: str, lesson_names: set[str]) -> str:
    """``text`` with its relative links, written for notebooks/, as seen from solutions/."""

    def moved(match: re.Match[str]) -> str:
        opening, target = match.groups()
        path = posixpath.normpath(target)
        is_lesson = path.removesuffix(".ipynb") in lesson_names
        if re.match(r"[a-z]+:|/", target) or is_lesson:
            return match.group()
        return opening + posixpath.relpath(path, "solutions")

    return LINK.sub(moved, text)


def _keep_what_lasts(output: NotebookNode) -> None:
    """Drops from an output what is useless without its kernel, and what it holds twice.

    A live widget's view means nothing without its kernel, so its still picture remains. `show`
    sends each figure as HTML, whose alternative text JupyterLab reads, and as a plain image, which
    every other viewer draws; the plain one, with the text in its metadata, is what is stored.
    """
    data = output.get("data", {})
    data.pop("application/vnd.jupyter.widget-view+json", None)
    if any(kind.startswith("image/") for kind in data) and "<img" in data.get("text/html", ""):
        del data["text/html"]


def _opening_marks(notebook: NotebookNode) -> list[NotebookNode]:
    """A text cell for each mark of an opening picture."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    return [cell for cell in cells for _ in OPENING.findall(cell.source)]


def _opening_cells(solved: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in solved.cells if "opening" in cell.metadata.get("tags", [])]


def _shown(path: str, kind: str, about: dict) -> str:
    """What stands at the mark for the picture ``path``.kind; browsers choose where there are two.

    JupyterLab drops what it does not know of this and keeps the image.
    """
    width = min(about.get("width", WIDEST), WIDEST)
    image = f'<img src="{path}.{kind}" alt="{html.escape(about["alt"])}" width="{width}">'
    if kind == "gif":
        still = f'<source media="(prefers-reduced-motion: reduce)" srcset="{path}.png">'
        image = f"<picture>\n{still}\n{image}\n</picture>"
    return f"{image}\n\n"


def _last_frame(gif: bytes) -> bytes:
    with Image.open(io.BytesIO(gif)) as frames:
        frames.seek(getattr(frames, "n_frames", 1) - 1)
        file = io.BytesIO()
        frames.convert("RGBA").save(file, "png", optimize=True)
    return file.getvalue()


def _holds(path: Path, picture: bytes) -> bool:
    """Whether the file shows ``picture``; other versions of zlib may pack the same pixels anew."""
    if not path.exists():
        return False
    if path.read_bytes() == picture:
        return True
    if path.suffix != ".png":
        return False
    try:
        with Image.open(path) as there, Image.open(io.BytesIO(picture)) as wanted:
            pixels = [one.convert("RGBA") for one in (there, wanted)]
    except OSError:
        return False
    return pixels[0].size == pixels[1].size and not ImageChops.difference(*pixels).getbbox(
        alpha_only=False
    )


def _wanted(lesson: Lesson, solved: NotebookNode, to_run: list[str] | None) -> bool:
    if not to_run:
        return to_run is not None and lacks_outputs(solved)
    return any(name == "all" or _is_called(lesson, name) for name in to_run)


def _is_called(lesson: Lesson, word: str) -> bool:
    """Whether ``word`` begins the lesson's name; a number means that lesson: "05" is not "05b"."""
    name = lesson.entry.name
    return name.startswith(word) and (not word.isdecimal() or name[len(word)] in "_0123456789")


def _rendered(notebook: NotebookNode) -> str:
    nbformat.validate(notebook)
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def _read(path: Path) -> NotebookNode | None:
    """The notebook at ``path``; None if there is none, or if it is broken and so stale."""
    try:
        return nbformat.read(path, as_version=4)
    except (FileNotFoundError, nbformat.reader.NotJSONError):
        return None


def _write_lesson(
    lesson: Lesson, learner: NotebookNode, solved: NotebookNode, there: Repository | None
) -> None:
    """Writes both notebooks, and the picture that opens them if there is one by now."""
    learner, solved = copy.deepcopy(learner), copy.deepcopy(solved)
    for path, data in illustrate(lesson, learner, solved).items():
        if not _holds(path, data):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    _write(lesson.learner, _rendered(with_doors(lesson, learner, there)))
    _write(lesson.solved, _rendered(solved))


def _write(path: Path, text: str) -> None:
    """Writes ``text``, unless the file holds just that: an unchanged file keeps its date."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


def _indented(text: str) -> str:
    return textwrap.indent(text, "    ")


if __name__ == "__main__":
    sys.exit(main())
