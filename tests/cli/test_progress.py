"""``progress`` on notebooks written here: what it lists, writes and returns."""

import asyncio
import io
import json
import os
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tutorial_lib.checks import all_exercises
from tutorial_lib.checks.framework import Exercise
from tutorial_lib.cli import progress as package
from tutorial_lib.cli.progress import Report, copied, progress, running
from tutorial_lib.cli.progress.judging import Judge
from tutorial_lib.course import LESSONS

pytestmark = pytest.mark.plain_errors
LESSON_1 = [task.id for task in all_exercises() if task.id.startswith("lesson01.")]


def write(path: Path, *cells: str) -> Path:
    code = [new_code_cell(cell) for cell in cells]
    nbformat.write(new_notebook(cells=[new_markdown_cell("# A lesson"), *code]), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("a learner's work")
    (folder / "my_helpers.py").write_text("def halved(x):\n    return x / 2\n")
    write(
        folder / "01_noise_schedules.ipynb",
        "import torch\nfrom tutorial_lib.checks import lesson01",
        "lesson01.counting.check(1.0)",
        "lesson01.counting.check(250)",  # the last check counts
        "_ = lesson01.why_thousand.check('a')",  # and so does one that is not shown
        "def my_alpha_bar(beta):\n    return (1 - beta).cumprod(0)",
        "for _ in range(2):\n    lesson01.alpha_bar.check(my_alpha_bar)",
        "lesson01.rates.check(...)",
        "def my_betas(num_steps, start, end) return 3",
        "lesson01.linear_betas.check(my_betas)",
        "from my_helpers import halved\nopen('written.txt', 'w').write(str(halved(3)))",
    )
    return folder


@pytest.fixture(scope="module")
def reported(folder, tmp_path_factory) -> dict:
    """One run with every output, shared by the tests that look at its parts."""
    out = tmp_path_factory.mktemp("out")
    before = sorted(os.listdir(folder))
    notebook = (folder / "01_noise_schedules.ipynb").read_bytes()

    async def inside_a_loop() -> int:  # as in a notebook
        return progress([folder], json=out / "p.json", junit=out / "p.xml", seed=3)

    code = asyncio.run(inside_a_loop())
    assert sorted(os.listdir(folder)) == before
    assert (folder / "01_noise_schedules.ipynb").read_bytes() == notebook
    report = json.loads((out / "p.json").read_text())["notebooks"][0]
    return {
        "code": code,
        "report": report,
        "by_id": {e["id"]: e for e in report["exercises"]},
        "junit": ET.parse(out / "p.xml").getroot(),
    }


def test_lists_every_exercise_of_the_lesson(reported):
    assert list(reported["by_id"]) == LESSON_1
    statuses = {name: entry["status"] for name, entry in reported["by_id"].items()}
    assert statuses.pop("lesson01.counting") == "passed"
    assert statuses.pop("lesson01.why_thousand") == "failed"
    assert statuses.pop("lesson01.alpha_bar") == "failed"
    assert statuses.pop("lesson01.rates") == "not attempted"
    assert statuses.pop("lesson01.linear_betas") == "failed"
    assert set(statuses.values()) == {"missing"}


def test_says_why(reported):
    entry = reported["by_id"]["lesson01.alpha_bar"]
    assert (entry["stage"], entry["mistake"]) == ("shape", "no entry for t = 0")
    assert (
        "cell 10, which checks it, raised NameError"
        in (reported["by_id"]["lesson01.linear_betas"]["message"])
    )
    assert [error["cell"] for error in reported["report"]["errors"]] == [9, 10]
    assert reported["report"]["ended"] is None
    assert reported["code"] == 1


def test_junit_counts_as_ci_services_do(reported):
    suite = reported["junit"][0]
    assert suite.attrib["tests"] == str(len(LESSON_1))
    assert suite.attrib["failures"] == "3"
    assert suite.attrib["skipped"] == str(len(LESSON_1) - 4)
    case = suite.find("testcase[@name='alpha_bar']/failure")
    assert case is not None
    assert case.attrib["type"] == "no entry for t = 0"


def test_what_is_missing_fails_only_when_all_is_required(tmp_path, capsys, monkeypatch):
    write(
        tmp_path / "01_x.ipynb",
        "from tutorial_lib.checks import lesson01, lesson02",
        "lesson01.counting.check(250); lesson02.fold.check('c')",
    )
    monkeypatch.chdir(tmp_path)
    assert progress() == 0
    printed = capsys.readouterr().out
    assert "lesson02.fold" in printed  # another lesson's exercise is listed where it was checked
    assert f"2 passed, {len(LESSON_1) - 1} missing" in printed
    assert progress(["01_x.ipynb"], require_all=True, junit="p.xml") == 1
    assert ET.parse("p.xml").getroot()[0].attrib["failures"] == str(len(LESSON_1) - 1)


def test_a_dead_kernel(tmp_path, capsys):
    write(
        tmp_path / "00_dies.ipynb",
        "from tutorial_lib.checks import lesson00",
        "lesson00.to_range.check(lambda pixels: pixels / 127.5 - 1)",
        "import os; os._exit(3)",
        "never_reached",
    )
    assert progress([tmp_path / "00_dies.ipynb"], json=tmp_path / "p") == 1
    printed = capsys.readouterr().out
    assert "lesson00.to_range  passed" in printed
    assert "the kernel died" in printed
    assert "never_reached" not in printed


def test_an_endless_cell(tmp_path, capsys):
    write(tmp_path / "x.ipynb", "while True: pass", "reached")  # no cell that takes long to end
    assert progress([tmp_path / "x.ipynb"], cell_seconds=3) == 0
    printed = capsys.readouterr().out
    assert "note: cell 2 raised KeyboardInterrupt" in printed
    assert "note: cell 3 raised NameError: name 'reached' is not defined" in printed


def test_wrong_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        progress([tmp_path / "nowhere"])
    with pytest.raises(FileNotFoundError, match=r"no \*.ipynb"):
        progress([tmp_path])


def test_a_cell_that_swallows_the_interrupt(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(running, "STOP_SECONDS", 0.5)
    stubborn = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    write(tmp_path / "x.ipynb", stubborn, "never_reached")
    assert progress([tmp_path / "x.ipynb"], cell_seconds=1) == 1
    printed = capsys.readouterr().out
    assert "not run to its end: cell 2 ran out of time" in printed
    assert "never_reached" not in printed


def test_every_grading_draws_cases_of_its_own():
    def seeds(judge: Judge) -> list[int]:
        return [task.seed for task in judge.tasks.values() if isinstance(task, Exercise)]

    assert seeds(Judge(5)) == seeds(Judge(5)) != seeds(Judge(6))
    assert len(set(seeds(Judge(5)))) == len(seeds(Judge(5)))
    assert Judge().seed != Judge().seed


@pytest.mark.parametrize(
    ("source", "is_alike"),
    [
        ("def mine(a, b):\n    c = a + b\n    return c", True),
        (
            "def mine(a: int, b=...) -> int:\n    'Text.'\n    c = (a + b)  # why\n    return c",
            False,
        ),
        ("def f(a: int, b: int) -> int:\n    'Text.'\n    c = (a + b)  # why\n    return c", True),
        ("%matplotlib inline\ndef mine(p, q):\n    r = p + q\n    return r", True),
        ("def total(x, y):\n    z = y + x\n    return z", False),
        ("def total(x, y):\n    return x + y", False),
        ("def total(x, y):\n    z = x + z\n    return y", False),
        ("class total:\n    def total(self, x, y):\n        z = x + y\n        return z", False),
        ("no Python (", False),
        ("", False),
    ],
)
def test_code_is_compared_without_its_names(source: str, is_alike: bool):
    solution = copied.shapes("def total(x, y):\n    z = x + y\n    return z")
    assert bool(copied.shapes(source) & solution) is is_alike


@pytest.mark.parametrize(
    ("cell", "asks"),
    [
        ("lesson00.to_range.check(lesson00.to_range.model_answer)", True),
        ("exec(lesson00.to_range.solution( ).source)", True),
        ("lesson00.to_range.alternatives[0]", True),
        ("list(lesson00.to_range.right_answers().values())", True),
        ("lesson00.to_range.solution()", False),
        ("# my solution: see above\nalternatives = 3", False),
    ],
)
def test_taking_the_solution_from_the_library_is_noticed(cell: str, asks: bool):
    assert copied.asks_for_solutions(["x = 1", cell]) is asks


# --- notebooks that need no kernel ----------------------------------------------------------------


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two notebooks with conflict markers, in the current folder."""
    monkeypatch.chdir(tmp_path)
    paths = [Path("00_a.ipynb"), Path("01_b.ipynb")]
    for path in paths:
        path.write_text("<<<<<<< HEAD\n{}\n=======\n>>>>>>> theirs\n")
    return paths


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no json",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"cells": 3, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}',
        b'{"cells": [{"cell_type": "code"}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}',
        b'{"cells": [], "metadata": {}, "nbformat": 99, "nbformat_minor": 5}',
        b"null",
    ],
)
def test_a_file_that_is_not_a_notebook_is_an_error_of_its_own(tmp_path, content: bytes, capsys):
    (tmp_path / "00_x.ipynb").write_bytes(content)
    assert progress([tmp_path / "00_x.ipynb"], json=tmp_path / "j", junit=tmp_path / "x") == 1
    (report,) = json.loads((tmp_path / "j").read_text())["notebooks"]
    assert "not a notebook" in report["error"]
    assert {e["status"] for e in report["exercises"]} == {"missing"}
    assert ET.parse(tmp_path / "x").getroot().find("testsuite/testcase/error") is not None
    assert "error: not a notebook" in capsys.readouterr().out


def test_a_folder_of_the_course_must_hold_every_lesson(broken, capsys):
    Path("01_b.ipynb").rename("essay.ipynb")
    assert progress(["."], require_all=True, json="j") == 1
    reports = {r["path"]: r for r in json.loads(Path("j").read_text())["notebooks"]}
    assert list(reports) == ["00_a.ipynb", "essay.ipynb", *(one.notebook for one in LESSONS[1:])]
    assert "renamed or deleted" in reports["01_noise_schedules.ipynb"]["error"]
    assert [e["id"] for e in reports["01_noise_schedules.ipynb"]["exercises"]] == LESSON_1
    assert [r["exercises"] for r in reports.values()].count([]) == 1  # the essay
    capsys.readouterr()
    progress(["."])
    assert f"note: no notebook of {LESSONS[1].name}, {LESSONS[2].name}" in capsys.readouterr().out


def test_a_file_of_no_lesson_is_an_error_when_all_is_required(tmp_path):
    write(tmp_path / "essay.ipynb")
    assert progress([tmp_path / "essay.ipynb"], require_all=True, json=tmp_path / "j") == 1
    (report,) = json.loads((tmp_path / "j").read_text())["notebooks"]
    assert "no lesson's number" in report["error"]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"json": "same", "junit": "./same"}, "json and junit must be different files"),
        ({"json": "nowhere/x.json"}, "json"),
        ({"junit": "nowhere/x.xml"}, "junit"),
        ({"json": "."}, "json"),
    ],
)
def test_an_output_that_cannot_be_written_is_told_before_anything_runs(
    broken, outputs: dict, message: str, monkeypatch
):
    monkeypatch.setattr(package, "grade", lambda *_, **__: pytest.fail("it has begun"))
    with pytest.raises((OSError, ValueError), match=message):
        progress(broken, **outputs)


def test_an_interrupted_grading_keeps_what_it_has(broken, monkeypatch):
    def interrupted(notebook, *_, **__):
        if notebook.path.name.startswith("01"):
            raise KeyboardInterrupt
        return Report(notebook.path)

    monkeypatch.setattr(package, "grade", interrupted)
    with pytest.raises(KeyboardInterrupt):
        progress(broken, json="j", junit="x")
    first, second = json.loads(Path("j").read_text())["notebooks"]
    assert (first["error"], second["error"]) == (None, "the grading was interrupted")
    assert len(ET.parse("x").getroot()) == 2


def test_a_bug_while_grading_costs_one_notebook(broken, monkeypatch, capsys):
    def buggy(notebook, *_, **__):
        if notebook.path.name.startswith("00"):
            raise RuntimeError("a bug")
        return Report(notebook.path)

    monkeypatch.setattr(package, "grade", buggy)
    assert progress(broken, json="j") == 1
    first, second = json.loads(Path("j").read_text())["notebooks"]
    assert (first["error"], second["error"]) == ("could not be graded: RuntimeError: a bug", None)
    assert "Traceback" in capsys.readouterr().err


class _Full(io.StringIO):
    def write(self, text: str, /) -> int:
        raise OSError(28, "No space left on device")


def test_a_screen_that_cannot_be_written_stops_nothing(broken, monkeypatch):
    closed = io.StringIO()
    closed.close()
    for stream in (_Full(), io.TextIOWrapper(io.BytesIO(), encoding="ascii"), closed, None):
        monkeypatch.setattr(sys, "stdout", stream)
        assert progress([*broken], json="j") == 1
        assert len(json.loads(Path("j").read_text())["notebooks"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"), [({"seed": -1}, "seed"), ({"cell_seconds": 0}, "cell_seconds")]
)
def test_wrong_numbers(broken, arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        progress(broken, **arguments)
