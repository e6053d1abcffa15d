"""Builds the notebooks: notebooks/source/NN_name.py becomes two of them.

    notebooks/NN_name.ipynb            as learners open it: exercises open, no outputs
    notebooks/solutions/NN_name.ipynb  solved and run, outputs kept

    python tools/build_notebooks.py                  write both, keep outputs that still hold
    python tools/build_notebooks.py --execute        and run the solved ones that lack outputs
    python tools/build_notebooks.py --execute 03 05  and run these; `--execute all` runs all
    python tools/build_notebooks.py --check          change nothing, exit 1 if anything is stale

The source is jupytext's percent format. What an author may write in it:

    # BEGIN SOLUTION      these lines stand in the solved notebook only. Learners get the lines
    x = a + b             after `# STUB`, without their `# `; or, where there is no `# STUB`,
    # STUB                `return ...` or `name = ...`, whichever the solution ends with.
    # x = ...
    # END SOLUTION

    # %% tags=["solution"]      a cell of the solved notebook only
    # %% tags=["learner"]       a cell of the learner's notebook only
    # NBVAL_CHECK_OUTPUT        what this cell prints must be the same in every run

Links are written as seen from notebooks/. Cell ids come from the cells' text, so building twice
gives the same bytes.
"""

import argparse
import ast
import copy
import hashlib
import posixpath
import re
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
CELL_SECONDS = 600  # a cell that runs longer than this is taken for hung

BEGIN, STUB, END = "# BEGIN SOLUTION", "# STUB", "# END SOLUTION"
CHECK_OUTPUT = "# NBVAL_CHECK_OUTPUT"
NEARLY_A_MARK = re.compile(r"^\s*#+\s*((BEGIN|END)\s*SOLUTION|STUB\b|NBVAL)", re.IGNORECASE)
KNOWN_TAGS = {"solution", "learner", "raises-exception"}
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # of tracebacks, for terminals
LINK = re.compile(r"""(\]\(|(?:src|href)=["'])([^)\s"'#][^)\s"'#]*)""")


class LessonError(ValueError):
    """A lesson's source cannot be built, and the message says where and why."""


@dataclass(frozen=True)
class Lesson:
    """One lesson: its source and the two notebooks that are built from it."""

    source: Path
    learner: Path
    solved: Path


def lessons(root: Path) -> list[Lesson]:
    """Every lesson under ``root``, in the order of the course."""
    notebooks = root / "notebooks"
    return [
        Lesson(
            source,
            learner=notebooks / f"{source.stem}.ipynb",
            solved=notebooks / "solutions" / f"{source.stem}.ipynb",
        )
        for source in sorted((notebooks / "source").glob("*.py"))
    ]


def build(lesson: Lesson) -> tuple[NotebookNode, NotebookNode]:
    """The learner's and the solved notebook, without outputs.

    Raises:
        LessonError: unbalanced or misspelt marks, an unknown tag, Python that does not parse.
    """
    text = lesson.source.read_text(encoding="utf-8")
    learner, solved = _empty_notebook(), _empty_notebook()
    siblings = {other.stem for other in lesson.source.parent.glob("*.py")}
    seen: dict[str, int] = {}
    for number, cell in enumerate(jupytext.reads(text, fmt="py:percent").cells, start=1):
        try:
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
    return learner, solved


def carry_outputs(new: NotebookNode, old: NotebookNode | None) -> None:
    """Copies outputs from ``old`` to ``new``, up to the first code cell that changed.

    What stands below a changed cell may depend on it, so its outputs no longer hold.
    """
    before = [cell for cell in old.cells if cell.cell_type == "code"] if old else []
    now = [cell for cell in new.cells if cell.cell_type == "code"]
    for cell, earlier in zip(now, before, strict=False):
        if (cell.id, cell.source) != (earlier.get("id"), earlier.source):
            break
        cell.outputs, cell.execution_count = earlier.outputs, earlier.execution_count


def lacks_outputs(notebook: NotebookNode) -> bool:
    """Whether a code cell has not been run since it was written."""
    return any(c.cell_type == "code" and c.execution_count is None for c in notebook.cells)


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Runs ``notebook`` in place from top to bottom, as if it lay in ``folder``.

    Raises:
        CellExecutionError: a cell raised.
    """
    NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,  # timestamps would change every run
        coalesce_streams=True,
        store_widget_state=False,
        extra_arguments=["--log-level=ERROR"],  # what kernels say of their sockets
    ).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            _keep_what_lasts(output)
    notebook.metadata = nbformat.from_dict(METADATA)  # the kernel adds its own version


def stale(root: Path) -> list[str]:
    """What is wrong with the committed notebooks, one line each; empty when all is well."""
    found, expected = [], set()
    for lesson in lessons(root):
        for path, notebook in zip((lesson.learner, lesson.solved), build(lesson), strict=True):
            expected.add(path)
            name = path.relative_to(root).as_posix()
            if path == lesson.solved:
                carry_outputs(notebook, _read(path))
            if not path.exists():
                found.append(f"{name} is missing")
            elif _rendered(notebook) != path.read_text(encoding="utf-8"):
                found.append(f"{name} differs from what its source gives")
            elif path == lesson.solved and lacks_outputs(notebook):
                found.append(f"{name} has cells that were not run")
    for folder in (root / "notebooks", root / "notebooks" / "solutions"):
        for path in sorted(set(folder.glob("*.ipynb")) - expected):
            found.append(f"{path.relative_to(root).as_posix()} has no source")
    return found


def update(root: Path, to_run: list[str] | None = None) -> None:
    """Writes every notebook anew.

    Args:
        to_run: which solved notebooks to run: None for none, an empty list for those that lack
            outputs, else beginnings of lessons' names ("03"), or "all".
    """
    todo = lessons(root)
    for name in to_run or []:
        if name != "all" and not any(lesson.source.stem.startswith(name) for lesson in todo):
            raise LessonError(f"no lesson begins with {name!r}")
    for lesson in todo:
        learner, solved = build(lesson)
        carry_outputs(solved, _read(lesson.solved))
        _write(lesson.learner, learner)
        _write(lesson.solved, solved)
        if _wanted(lesson, solved, to_run):
            print(f"running {lesson.solved.relative_to(root)}", flush=True)
            execute(solved, lesson.solved.parent)
            _write(lesson.solved, solved)


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
        print(f"a cell failed:\n{COLOURS.sub('', str(error))}", file=sys.stderr)
        return 1
    for problem in problems:
        print(problem)
    print("run `make notebooks`" if problems else "the notebooks are in step with their sources")
    return 1 if problems else 0


def _empty_notebook() -> NotebookNode:
    return nbformat.v4.new_notebook(metadata=nbformat.from_dict(METADATA))


def _both_versions(cell: NotebookNode) -> tuple[NotebookNode | None, NotebookNode | None]:
    """The learner's and the solved version of a source cell, None where it does not appear."""
    tags = set(cell.metadata.get("tags", []))
    if unknown := tags - KNOWN_TAGS:
        raise LessonError(f"unknown tag {min(unknown)!r}; known are {sorted(KNOWN_TAGS)}")
    learner, solved = copy.deepcopy(cell), copy.deepcopy(cell)
    solved_tags = tags - {"solution", "learner"}
    learner_tags = set(solved_tags)
    if cell.cell_type == "code":
        learner.source, solved.source = split(cell.source)
        if CHECK_OUTPUT in (line.strip() for line in cell.source.splitlines()):
            solved_tags.add("nbval-check-output")
    elif BEGIN in cell.source:
        raise LessonError("solution regions belong into code cells; use tags for text")
    for version, kept in ((learner, learner_tags), (solved, solved_tags)):
        version.metadata.pop("tags", None)
        version.metadata.pop("lines_to_next_cell", None)  # how the source is spaced
        if kept:
            version.metadata["tags"] = sorted(kept)
    return (None if "solution" in tags else learner), (None if "learner" in tags else solved)


def split(source: str) -> tuple[str, str]:
    """A code cell's text for learners and for the solved notebook.

    Raises:
        LessonError: unbalanced or misspelt marks, a stub line that is no comment.
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
            continue  # becomes a tag, which learners need not read
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
    """An id that depends on the cell's own text, and on how often it came before."""
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
    """Drops from an output what is of no use once its kernel is gone, or stands there twice.

    A live widget's view means nothing without its kernel, so its still picture remains. `show`
    sends each figure as HTML, whose alternative text JupyterLab reads, and as a plain image, which
    every other viewer draws; the plain one, with the text in its metadata, is what is stored.
    """
    data = output.get("data", {})
    data.pop("application/vnd.jupyter.widget-view+json", None)
    if any(kind.startswith("image/") for kind in data) and "<img" in data.get("text/html", ""):
        del data["text/html"]


def _wanted(lesson: Lesson, solved: NotebookNode, to_run: list[str] | None) -> bool:
    if not to_run:
        return to_run is not None and lacks_outputs(solved)
    return any(name == "all" or lesson.source.stem.startswith(name) for name in to_run)


def _rendered(notebook: NotebookNode) -> str:
    nbformat.validate(notebook)
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def _read(path: Path) -> NotebookNode | None:
    """The notebook at ``path``; None where there is none or where it is broken, so stale."""
    try:
        return nbformat.read(path, as_version=4)
    except (FileNotFoundError, nbformat.reader.NotJSONError):
        return None


def _write(path: Path, notebook: NotebookNode) -> None:
    """Writes ``notebook``, unless just that is there: an unchanged file keeps its date."""
    text = _rendered(notebook)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


def _indented(text: str) -> str:
    return textwrap.indent(text, "    ")


if __name__ == "__main__":
    sys.exit(main())
