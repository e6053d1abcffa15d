"""How far a learner has come: run their notebooks and judge the answers that they hand over.

A notebook runs in a fresh kernel and in a temporary folder, so none of the learner's files change.
Whenever it checks an exercise, shown or not, the judge in *this* process asks for the answer's
values in cases that it has just drawn, and compares them here; if an exercise is checked several
times, the last check counts. ``docs/teachers.md`` says what that holds against, and what not.

Parts: ``notebooks`` (which there are and should be), ``running`` (one notebook), ``runner`` (the
process that it runs in), ``snapshot`` (what its kernel imports), ``judging``, ``copied`` (answers
that are the solution), ``report``.
"""

import traceback
from collections.abc import Sequence
from json import dumps
from pathlib import Path

from tutorial_lib import _files, _validate
from tutorial_lib._validate import FileError
from tutorial_lib.cli.output import careful_output, say
from tutorial_lib.cli.progress import report as reports_of
from tutorial_lib.cli.progress.judging import Judge
from tutorial_lib.cli.progress.notebooks import Notebook, find, lacking
from tutorial_lib.cli.progress.report import Entry, Report
from tutorial_lib.cli.progress.running import grade
from tutorial_lib.cli.progress.snapshot import Library

__all__ = ["CELL_SECONDS", "Entry", "Report", "progress"]

CELL_SECONDS = 300.0


@careful_output()  # where nobody can read it, the grading goes on without
def progress(
    notebooks: Sequence[str | Path] = (),
    *,
    json: str | Path | None = None,
    junit: str | Path | None = None,
    require_all: bool = False,
    seed: int | None = None,
    cell_seconds: float = CELL_SECONDS,
) -> int:
    """Runs notebooks, prints a table of their exercises, and returns whether all is well.

    A notebook that is broken, endless or hostile costs its own grade only: the table and the files
    always come, with an error for that notebook.

    Args:
        notebooks: files, or folders of notebooks; none means the folder ``notebooks`` if there is
            one, else the current folder.
        json: a file for the same report as JSON.
        junit: a file for it as JUnit XML, which CI services read.
        require_all: whether exercises that are missing or not attempted count as failed, and a
            folder must hold a notebook of every lesson.
        seed: of the cases that answers are judged on, at least 0; None draws one.
        cell_seconds: how long a cell may take before it is interrupted (seconds).

    Returns:
        An exit code: 0, or 1 if an exercise failed or a notebook is in error.

    Raises:
        FileNotFoundError: a notebook does not exist, or a folder holds none.
        ValueError: ``json`` and ``junit`` are the same file; a number is out of range.
        OSError: ``json`` or ``junit`` cannot be written.
    """
    if seed is not None:
        _validate.seed("seed", seed)
    _validate.number("cell_seconds", cell_seconds, low=0.1, high=1e6)
    _files.check_outputs({"json": json, "junit": junit})
    found = find(notebooks, require_all=require_all)
    judge, library = Judge(seed), Library()
    reports: list[Report] = []
    try:
        for notebook in found:
            if notebook.problem is None:
                say(f"running {reports_of.one_line(str(notebook.path))} ...")
            reports.append(_grade(notebook, judge, library, cell_seconds))
            _print(reports_of.table(reports[-1]))
    except KeyboardInterrupt:
        left = found[len(reports) :]
        reports += [Report(n.path, problems=["the grading was interrupted"]) for n in left]
        raise
    finally:
        _print(reports_of.summary(reports))
        if not require_all and any(Path(place).is_dir() for place in notebooks or ("notebooks",)):
            names = ", ".join(lesson.name for lesson in lacking(found))
            _print(f"note: no notebook of {names}" if names else "")
        _write(reports, judge.seed, json, junit, require_all)
    bad = {"failed", "not attempted", "missing"} if require_all else {"failed"}
    failed = any(entry.status in bad for report in reports for entry in report.entries)
    return int(failed or any(report.error for report in reports))


def _grade(notebook: Notebook, judge: Judge, library: Library, cell_seconds: float) -> Report:
    try:
        return grade(notebook, judge, library, cell_seconds=cell_seconds)
    except Exception as error:  # a bug here: it is shown, and the others are graded all the same
        traceback.print_exc()
        text = f"could not be graded: {type(error).__name__}: {error}"
        return Report(notebook.path, problems=[text])


def _write(
    reports: list[Report],
    seed: int,
    json: str | Path | None,
    junit: str | Path | None,
    require_all: bool,
) -> None:
    contents: dict[str, bytes] = {}
    if json is not None:
        facts = {"seed": seed, "notebooks": [reports_of.as_dict(report) for report in reports]}
        contents[str(json)] = f"{dumps(facts, indent=2)}\n".encode()
    if junit is not None:
        contents[str(junit)] = reports_of.junit(reports, require_all=require_all)
    problems = []
    for path, content in contents.items():
        try:
            _files.write_whole(Path(path), content)
        except OSError as error:
            problems.append(f"cannot write {path}: {error.strerror}")
    if problems:
        raise FileError("; ".join(problems))


def _print(text: str) -> None:
    """A line of the result, at once; nothing where there is none."""
    if text:
        print(text, flush=True)
