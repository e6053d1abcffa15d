"""How far a learner has come: run their notebooks and list what the checks report.

A notebook runs in a fresh kernel and in a temporary folder, so none of the learner's files change.
Every check, shown or not, adds a line to a log whose path the kernel is given; if an exercise is
checked several times, the last check counts.
"""

import asyncio
import os
import re
import shutil
import sys
import tempfile
import textwrap
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from json import dumps, loads
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

from tutorial_lib import _files
from tutorial_lib._validate import FileError, InvalidValueError, MissingFileError
from tutorial_lib.checks import all_exercises
from tutorial_lib.checks.framework import LOG_VARIABLE, Task

STATUSES = ("passed", "failed", "not attempted", "missing")
"""The states of an exercise; missing: its lesson's notebook never checked it."""

CELL_SECONDS = 300
NOTEBOOK_SECONDS = 1800
COPIED_BYTES = 20_000_000
"""Largest file next to a notebook that is copied into the folder where it runs (bytes)."""


@dataclass(frozen=True)
class Entry:
    """One exercise in one notebook."""

    id: str
    title: str
    status: str
    stage: str = ""
    message: str = ""
    mistake: str | None = None


@dataclass
class Report:
    """One notebook: its exercises, the cells that raised, and why it ended early, if it did."""

    path: Path
    entries: list[Entry] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    ended: str | None = None
    seconds: float = 0.0


def progress(
    notebooks: Sequence[str | Path] = (),
    *,
    json: str | Path | None = None,
    junit: str | Path | None = None,
    require_all: bool = False,
    cell_seconds: float = CELL_SECONDS,
) -> int:
    """Runs notebooks, prints a table of their exercises, and returns whether all is well.

    Args:
        notebooks: files, or folders of notebooks; none means the folder ``notebooks`` if there is
            one, else the current folder.
        json: a file for the same report as JSON.
        junit: a file for it as JUnit XML, which CI services read.
        require_all: whether exercises that are missing or not attempted count as failed.
        cell_seconds: how long a cell may take before it is interrupted (seconds).

    Returns:
        An exit code: 0, or 1 if an exercise failed or a notebook could not be run to its end.

    Raises:
        FileNotFoundError: a notebook does not exist, or a folder holds none.
        ValueError: a file is not a notebook.
        OSError: a file cannot be read or written.
    """
    paths = _find(notebooks)
    loaded = [_read(path) for path in paths]  # report a wrong path before minutes of running
    reports = []
    for path, notebook in zip(paths, loaded, strict=True):
        print(f"running {path} ...", file=sys.stderr, flush=True)
        reports.append(_report(path, notebook, cell_seconds))
        print(_table(reports[-1]), flush=True)
    counts = Counter(entry.status for report in reports for entry in report.entries)
    print(", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status]))
    if json is not None:
        text = dumps({"notebooks": [_as_dict(report) for report in reports]}, indent=2)
        _write(Path(json), f"{text}\n".encode())
    if junit is not None:
        tree = _junit(reports, require_all)
        _write(Path(junit), ET.tostring(tree, encoding="utf-8", xml_declaration=True))
    bad = {"failed", "not attempted", "missing"} if require_all else {"failed"}
    return int(any(counts[status] for status in bad) or any(report.ended for report in reports))


def _write(path: Path, content: bytes) -> None:
    try:
        _files.write_whole(path, content)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from error


def _find(notebooks: Sequence[str | Path]) -> list[Path]:
    """The notebooks that files and folders stand for, in order, each once."""
    given = [Path(path) for path in notebooks] or [Path("notebooks")]
    if not notebooks and not given[0].is_dir():
        given = [Path()]
    found: dict[Path, None] = {}
    for path in given:
        if path.is_dir():
            inside = sorted(path.glob("*.ipynb"))
            if not inside:
                raise MissingFileError(f"notebooks: no *.ipynb in the folder {path.resolve()}")
            found.update(dict.fromkeys(inside))
        elif path.is_file():
            found[path] = None
        else:
            raise MissingFileError(f"notebooks: {path} does not exist")
    return list(found)


def _read(path: Path) -> nbformat.NotebookNode:
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except (ValueError, nbformat.ValidationError, AttributeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidValueError(f"notebooks: {path} is not a notebook ({first})") from None
    except OSError as error:
        raise FileError(f"notebooks: cannot read {path}: {error.strerror}") from error
    return notebook


def _report(path: Path, notebook: nbformat.NotebookNode, cell_seconds: float) -> Report:
    report, started = Report(path), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="progress-") as name:
        log, folder = Path(name) / "log", Path(name) / "notebooks"
        _copy_neighbors(path.parent, folder)
        report.ended = _run(notebook, folder, log, cell_seconds)
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    results = {line["exercise"]: line for line in map(loads, lines)}
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                text = textwrap.shorten(f"{output.ename}: {output.evalue}", 200)
                report.errors.append({"cell": number, "error": text, "source": cell.source})
    report.entries = [_entry(task, results, report) for task in _tasks(path, results)]
    report.seconds = time.perf_counter() - started
    return report


def _copy_neighbors(source: Path, folder: Path) -> None:
    """Copies the files next to a notebook, so that it finds a helper module or a picture."""
    folder.mkdir()
    for file in source.iterdir():
        plain = file.is_file() and not file.name.startswith(".") and file.suffix != ".ipynb"
        if plain and file.stat().st_size <= COPIED_BYTES:
            shutil.copy(file, folder)


def _run(
    notebook: nbformat.NotebookNode, folder: Path, log: Path, cell_seconds: float
) -> str | None:
    """Runs ``notebook`` in place; returns why it did not reach its end, or None."""
    for cell in notebook.cells:  # drop the outputs of an earlier run
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=int(cell_seconds),
        interrupt_on_timeout=True,
        allow_errors=True,
        resources={"metadata": {"path": str(folder)}},
    )
    environment = {**os.environ, LOG_VARIABLE: str(log)}
    try:
        asyncio.run(_within(client, environment))
    except DeadKernelError:
        return "the kernel died"
    except TimeoutError:
        return f"stopped after {NOTEBOOK_SECONDS} seconds"
    return None


async def _within(client: NotebookClient, environment: dict[str, str]) -> None:
    await asyncio.wait_for(client.async_execute(env=environment), NOTEBOOK_SECONDS)


def _tasks(path: Path, results: dict[str, dict]) -> list[Task]:
    """The exercises of the lesson in the file's name, and any other that was checked."""
    number = re.match(r"(\d\d)[_-]", path.name)
    lesson = f"lesson{number[1]}." if number else "no lesson"
    return [task for task in all_exercises() if task.id.startswith(lesson) or task.id in results]


def _entry(task: Task, results: dict[str, dict], report: Report) -> Entry:
    line = results.get(task.id)
    if line:
        stage, message = line["stage"], line["message"]
        return Entry(task.id, task.title, line["outcome"], stage, message, line["mistake"])
    lesson, name = task.id.split(".")
    call = re.compile(rf"\b({lesson}\.)?{name}\.check\(")
    for error in report.errors:
        if call.search(error["source"]):
            text = f"cell {error['cell']}, which checks it, raised {error['error']}"
            return Entry(task.id, task.title, "failed", "raised", text)
    return Entry(task.id, task.title, "missing")


def _table(report: Report) -> str:
    """The report as text: one line per exercise, then the cells that raised."""
    width = max((len(entry.id) for entry in report.entries), default=0)
    lines = [f"{report.path} ({report.seconds:.0f} s)"]
    for entry in report.entries:
        lines.append(f"  {entry.id:<{width}}  {_summary(entry)}")
    if not report.entries:
        lines.append("  no exercises")
    lines += [f"  note: cell {error['cell']} raised {error['error']}" for error in report.errors]
    if report.ended:
        lines.append(f"  not run to its end: {report.ended}")
    return "\n".join(lines)


def _summary(entry: Entry) -> str:
    if entry.status != "failed":
        return entry.status
    why = f"{entry.mistake}: {entry.message}" if entry.mistake else entry.message
    return "failed (" + textwrap.shorten(why, 160, placeholder=" ...") + ")"


def _as_dict(report: Report) -> dict[str, Any]:
    return {
        "path": str(report.path),
        "seconds": round(report.seconds, 1),
        "ended": report.ended,
        "exercises": [vars(entry) for entry in report.entries],
        "errors": [{"cell": e["cell"], "error": e["error"]} for e in report.errors],
    }


def _junit(reports: list[Report], require_all: bool) -> ET.Element:
    """A test suite per notebook, a test case per exercise, and one if a notebook ended early."""
    root = ET.Element("testsuites")
    for report in reports:
        suite = ET.SubElement(root, "testsuite", name=str(report.path))
        for entry in report.entries:
            lesson, name = entry.id.split(".")
            case = ET.SubElement(suite, "testcase", classname=lesson, name=name)
            if entry.status == "failed":
                kind = entry.mistake or entry.stage
                ET.SubElement(case, "failure", type=kind, message=_printable(entry.message))
            elif entry.status != "passed":
                tag = "failure" if require_all else "skipped"
                ET.SubElement(case, tag, type=entry.status, message=entry.status)
        if report.ended:
            case = ET.SubElement(suite, "testcase", classname="notebook", name="runs to its end")
            ET.SubElement(case, "error", type="ended", message=report.ended)
        tags = Counter(child.tag for case in suite for child in case)
        suite.set("tests", str(len(suite)))
        for tag, attribute in (
            ("failure", "failures"),
            ("error", "errors"),
            ("skipped", "skipped"),
        ):
            suite.set(attribute, str(tags[tag]))
    return root


def _printable(text: str) -> str:
    """``text`` without the control characters that XML cannot hold."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
