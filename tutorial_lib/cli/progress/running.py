"""One notebook: run in processes of its own, while the judge listens here."""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import psutil

from tutorial_lib import datasets
from tutorial_lib.checks.framework import Task
from tutorial_lib.checks.framework.asking import BadMessageError
from tutorial_lib.checks.framework.remote.answering import GRADER_VARIABLE
from tutorial_lib.cli.progress import copied, runner
from tutorial_lib.cli.progress.judging import Judge, Verdict
from tutorial_lib.cli.progress.notebooks import Notebook
from tutorial_lib.cli.progress.report import Entry, Report
from tutorial_lib.cli.progress.snapshot import Library, python_path

NOTEBOOK_SECONDS = 1800.0
STOP_SECONDS = 10.0
"""How long a cell may take to stop after it was interrupted, before its kernel is killed."""

COPIED_BYTES = 20_000_000
"""Largest file next to a notebook that is copied into the folder where it runs (bytes)."""

RUNNER = Path(runner.__file__).read_text(encoding="utf-8")
"""The program of a notebook's first process, as it was before any notebook ran."""

MOST_PROBLEMS = 5
"""How many of a notebook's nonsensical messages are told."""


def grade(notebook: Notebook, judge: Judge, library: Library, *, cell_seconds: float) -> Report:
    """Runs a notebook and judges the answers that it hands over.

    When this returns, none of the notebook's processes is left (where the system allows that, see
    ``runner``).
    """
    report, started = Report(notebook.path), time.perf_counter()
    verdicts: dict[str, Verdict] = {}
    if notebook.problem:
        report.problems.append(notebook.problem)
    else:
        try:
            _run(notebook, judge, library, cell_seconds, report, verdicts)
        except (OSError, subprocess.SubprocessError) as error:
            report.problems.append(f"could not be run: {error}")
    copies = copied.asks_for_solutions(notebook.code)
    known = frozenset().union(*(copied.shapes(cell) for cell in notebook.code))
    for task in judge.tasks.values():
        if task.id in verdicts:
            alike = copies or bool(known & judge.solutions.get(task.id, frozenset()))
            report.entries.append(_judged(task, verdicts[task.id], alike))
        elif notebook.lesson and task.id.startswith(f"{notebook.lesson.checks}."):
            report.entries.append(_not_checked(task, report))
    report.seconds = time.perf_counter() - started
    return report


def _run(
    notebook: Notebook,
    judge: Judge,
    library: Library,
    cell_seconds: float,
    report: Report,
    verdicts: dict[str, Verdict],
) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="progress-", ignore_cleanup_errors=True) as name,
        socket.create_server(("127.0.0.1", 0)) as door,
        tempfile.TemporaryFile() as said,
    ):
        folder = Path(name).resolve() / "notebooks"
        _copy_neighbors(notebook.path.parent, folder)
        password = secrets.token_hex(16)
        place = f"{door.getsockname()[1]}:{password}"
        environment = _environment(Path(name).resolve(), library, notebook.path.parent, place)
        order = {
            "cells": notebook.cells,
            "folder": str(folder),
            "environment": environment,
            "cell_seconds": cell_seconds,
            "notebook_seconds": NOTEBOOK_SECONDS,
            "stop_seconds": STOP_SECONDS,
        }
        before = frozenset(runner.descendants())
        runner.adopt_orphans(True)  # should the notebook kill its parent
        try:
            process = _start(order, environment, said)
            try:
                _listen(process, door, password, judge, report, verdicts)
            finally:
                _end(process, place, before)
        finally:
            runner.adopt_orphans(False)
        _take(said, process, notebook, report)


def _environment(folder: Path, library: Library, beside: Path, place: str) -> dict[str, str]:
    """The kernel's environment: what it would change for later kernels lies in ``folder``."""
    return {
        **os.environ,
        GRADER_VARIABLE: place,
        "PYTHONPATH": python_path(library.write(folder / "library"), beside),
        "PYTHONSAFEPATH": "1",
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTER_CONFIG_DIR": str(folder / "jupyter"),
        "TUTORIAL_DATA": str(datasets.data_root().resolve()),
        "TUTORIAL_RUNS": str(folder / "runs"),  # what the learner keeps there changes no grade
    }


def _start(
    order: Mapping[str, Any], environment: Mapping[str, str], said: IO[bytes]
) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", RUNNER],
        stdin=subprocess.PIPE,
        stdout=said,
        stderr=subprocess.DEVNULL,
        env={**environment, "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        start_new_session=True,  # Ctrl-C is for this process, which ends that one
    )
    assert process.stdin is not None
    with process.stdin as stdin:
        stdin.write(json.dumps(order).encode())
    return process


def _listen(
    process: subprocess.Popen,
    door: socket.socket,
    password: str,
    judge: Judge,
    report: Report,
    verdicts: dict[str, Verdict],
) -> None:
    """Judges every answer that comes until the notebook has ended; the last one counts."""
    door.settimeout(0.05)
    end = time.monotonic() + NOTEBOOK_SECONDS + runner.START_SECONDS + 60
    while process.poll() is None:
        if time.monotonic() > end:
            report.problems.append(f"stopped after {NOTEBOOK_SECONDS:g} seconds")
            return
        try:
            connection, _ = door.accept()
        except TimeoutError:
            if os.name == "posix":
                process.send_signal(signal.SIGCONT)  # should the notebook have stopped it
            continue
        try:
            verdict = judge.hear(connection, password)
        except BadMessageError as error:
            text = f"the notebook sent {error}"
            if text not in report.problems and len(report.problems) < MOST_PROBLEMS:
                report.problems.append(text)
            continue
        if verdict is not None:
            verdicts[verdict.result.exercise] = verdict


def _end(process: subprocess.Popen, place: str, before: frozenset[psutil.Process]) -> None:
    """Ends the notebook's processes, also those that it has left behind.

    Args:
        process: the notebook's first process.
        place: what all that keep their environment have in it.
        before: descendants of this process that have nothing to do with the notebook.
    """
    if process.poll() is None:
        process.terminate()  # it kills its descendants
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    on_linux = sys.platform == "linux"
    if process.returncode == 0 and on_linux:
        return  # it has adopted and killed them all
    if on_linux:
        runner.kill_descendants(before)
    for other in psutil.process_iter():
        try:
            if other.environ().get(GRADER_VARIABLE) == place:
                other.kill()
        except (psutil.Error, OSError):
            continue  # another user's, or gone


def _take(said: IO[bytes], process: subprocess.Popen, notebook: Notebook, report: Report) -> None:
    """What the runner says has happened."""
    said.seek(0)
    try:
        happened = json.loads(said.read())
        report.ended = happened["ended"]
        for error in happened["errors"]:
            number, source = error["cell"], notebook.cells[error["cell"]]
            report.errors.append({"cell": number + 1, "error": error["error"], "source": source})
    except (ValueError, KeyError, TypeError, IndexError):
        how = process.returncode
        if how is not None and how < 0:
            how = signal.Signals(-how).name
        report.ended = f"its process was ended from outside ({how})"


def _copy_neighbors(source: Path, folder: Path) -> None:
    """Copies the files next to a notebook, so that it finds a helper module or a picture."""
    folder.mkdir()
    for file in source.iterdir():
        plain = file.is_file() and not file.name.startswith(".") and file.suffix != ".ipynb"
        if plain and file.stat().st_size <= COPIED_BYTES and os.access(file, os.R_OK):
            shutil.copy(file, folder)


def _judged(task: Task, verdict: Verdict, alike: bool) -> Entry:
    result = verdict.result
    passed = result.outcome == "passed"
    same = passed and (alike or verdict.as_solution)
    stage, message, mistake = result.stage, result.message, result.mistake
    return Entry(task.id, task.title, result.outcome, stage, message, mistake, same)


def _not_checked(task: Task, report: Report) -> Entry:
    """Failed where the cell that checks it raised, else missing."""
    lesson, name = task.id.split(".")
    call = re.compile(rf"\b({lesson}\.)?{name}\.check\(")
    for error in report.errors:
        if call.search(error["source"]):
            text = f"cell {error['cell']}, which checks it, raised {error['error']}"
            return Entry(task.id, task.title, "failed", "raised", text)
    return Entry(task.id, task.title, "missing")
