"""What a grading found: as a table, as JSON, as JUnit XML."""

import textwrap
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal["passed", "failed", "not attempted", "missing"]
STATUSES: tuple[Status, ...] = ("passed", "failed", "not attempted", "missing")
"""The states of an exercise; missing: its lesson's notebook never checked it."""


@dataclass(frozen=True)
class Entry:
    """One exercise in one notebook.

    Attributes:
        as_solution: whether the answer is, but for names, the solution that the course shows.
    """

    id: str
    title: str
    status: Status
    stage: str = ""
    message: str = ""
    mistake: str | None = None
    as_solution: bool = False


@dataclass
class Report:
    """One notebook.

    Attributes:
        path: where it is, or should be.
        entries: its exercises.
        errors: the cells that raised, as "cell" (from 1), "error" and "source".
        ended: why it did not run to its end, if so.
        problems: whatever else is wrong with the notebook as a whole.
        seconds: how long it took.
    """

    path: Path
    entries: list[Entry] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    ended: str | None = None
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def error(self) -> str | None:
        """Why the notebook as a whole is no good, if so."""
        ended = [f"not run to its end: {self.ended}"] if self.ended else []
        return "; ".join([*self.problems, *ended]) or None


def table(report: Report) -> str:
    """The report as text: one line per exercise, then the cells that raised."""
    width = max((len(entry.id) for entry in report.entries), default=0)
    lines = [f"{one_line(str(report.path))} ({report.seconds:.0f} s)"]
    for entry in report.entries:
        lines.append(f"  {entry.id:<{width}}  {_summary(entry)}")
    if not report.entries:
        lines.append("  no exercises")
    for error in report.errors:
        lines.append(f"  note: cell {error['cell']} raised {one_line(error['error'])}")
    lines += [f"  error: {one_line(problem)}" for problem in report.problems]
    if report.ended:
        lines.append(f"  error: not run to its end: {one_line(report.ended)}")
    return "\n".join(lines)


def summary(reports: Sequence[Report]) -> str:
    """How many exercises have which status, and how many notebooks an error, in one line."""
    counts = Counter(entry.status for report in reports for entry in report.entries)
    parts = [f"{counts[status]} {status}" for status in STATUSES if counts[status]]
    copies = sum(entry.as_solution for report in reports for entry in report.entries)
    errors = sum(report.error is not None for report in reports)
    parts += [f"{copies} as the solution"] if copies else []
    parts += [f"notebooks with an error: {errors}"] if errors else []
    return ", ".join(parts)


def as_dict(report: Report) -> dict[str, Any]:
    """The report as JSON has it."""
    return {
        "path": printable(str(report.path)),
        "seconds": round(report.seconds, 1),
        "ended": None if report.ended is None else printable(report.ended),
        "error": None if report.error is None else printable(report.error),
        "exercises": [
            {key: _clean(value) for key, value in vars(entry).items()} for entry in report.entries
        ],
        "errors": [{"cell": e["cell"], "error": printable(e["error"])} for e in report.errors],
    }


def junit(reports: Sequence[Report], *, require_all: bool) -> bytes:
    """The reports as JUnit XML: a suite per notebook, a case per exercise, and one for an error.

    Args:
        reports: of all notebooks.
        require_all: whether what is missing or not attempted is a failure.
    """
    root = ET.Element("testsuites")
    for report in reports:
        suite = ET.SubElement(root, "testsuite", name=printable(str(report.path)))
        for entry in report.entries:
            lesson, name = entry.id.split(".")
            case = ET.SubElement(suite, "testcase", classname=lesson, name=name)
            if entry.as_solution:
                properties = ET.SubElement(case, "properties")
                ET.SubElement(properties, "property", name="as the solution", value="true")
            if entry.status == "failed":
                kind = printable(entry.mistake or entry.stage)
                ET.SubElement(case, "failure", type=kind, message=printable(entry.message))
            elif entry.status != "passed":
                tag = "failure" if require_all else "skipped"
                ET.SubElement(case, tag, type=entry.status, message=entry.status)
        if report.error is not None:
            case = ET.SubElement(suite, "testcase", classname="notebook", name="runs to its end")
            ET.SubElement(case, "error", type="error", message=printable(report.error))
        tags = Counter(child.tag for case in suite for child in case)
        suite.set("tests", str(len(suite)))
        for tag, attribute in (
            ("failure", "failures"),
            ("error", "errors"),
            ("skipped", "skipped"),
        ):
            suite.set(attribute, str(tags[tag]))
    return ET.tostring(root, encoding="utf-8", xml_declaration=True)


def printable(text: str) -> str:
    """``text`` without what terminals obey and XML cannot hold: control characters, halves of
    characters, and what is reserved for neither."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def one_line(text: str) -> str:
    """``text`` in one line, so that no name or message looks like a line of the table."""
    return " ".join(printable(text).split())


def _clean(value: object) -> object:
    return printable(value) if isinstance(value, str) else value


def _summary(entry: Entry) -> str:
    if entry.status == "passed" and entry.as_solution:
        return "passed (as the solution)"
    if entry.status != "failed":
        return entry.status
    why = f"{entry.mistake}: {entry.message}" if entry.mistake else entry.message
    return "failed (" + textwrap.shorten(printable(why), 160, placeholder=" ...") + ")"
