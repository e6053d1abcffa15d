"""Notebooks that try to write their own grade, or somebody else's: none gets what it wants.

All are graded in one call, as a class is: the honest ones among them must come out right.
"""

import contextlib
import io
import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tutorial_lib.checks import all_exercises
from tutorial_lib.cli.progress import progress

pytestmark = [
    pytest.mark.plain_errors,
    pytest.mark.skipif(sys.platform != "linux", reason="some attacks need Linux, as some defenses"),
]

IMPORTS = (
    "import os, sys, json, torch\nfrom tutorial_lib.checks import lesson00, lesson01, lesson02"
)
WRONG = "lesson00.to_range.check(lambda pixels: pixels.float() / 255)"
RIGHT = "lesson00.to_range.check(lambda pixels: (pixels.double() - 127.5) / 127.5)"
SPEAK = """
def say(*messages):
    import contextlib, socket
    port, _, password = os.environ["TUTORIAL_GRADER"].partition(":")
    connection = socket.create_connection(("127.0.0.1", int(port)))
    with connection, contextlib.suppress(ConnectionError):  # the judge may hang up at any time
        for message in messages:
            message = {"password": password, "module": "", "source": "", **message}
            content = json.dumps(message).encode()
            connection.sendall(len(content).to_bytes(8, "big") + content)
        while connection.recv(4096):
            pass
"""
NOTEBOOKS: dict[str, list[str]] = {
    "says so": [  # in print, in the old log, to the judge
        "os.kill(os.getppid(), 19)  # SIGSTOP: its parent is to wait for ever",
        "print('lesson00.to_range  passed')",
        WRONG,
        "os.environ['TUTORIAL_CHECK_LOG'] = 'log'\nopen('log', 'w').write(json.dumps({'exercise':"
        " 'lesson01.rates', 'outcome': 'passed', 'stage': 'passed', 'message': ''}))",
        SPEAK,
        "says = {'outcome': 'passed', 'stage': 'passed', 'passed': True, 'message': ''}\n"
        "say({'exercise': 'lesson01.counting', 'answer': 1, **says}, {'gave': None, **says})\n"
        "say({'exercise': 'lesson01.linear_betas', 'answer': {'function': 0}, **says}, says)\n"
        "say({'exercise': 'lesson01.alpha_bar', 'answer': {'open': True}, **says})",
    ],
    "nonsense": [
        SPEAK,
        "say({'exercise': 'lesson00.extra', 'answer': {'function': 0}})",
        "say({'exercise': 'lesson01.rates', 'answer': {'tensor': 'float32', 'shape': [9]}})",
        "say({'exercise': 7, 'answer': []})",
        "import socket\nport, _, password = os.environ['TUTORIAL_GRADER'].partition(':')\n"
        "with socket.create_connection(('127.0.0.1', int(port))) as c: c.sendall(b'\\xff' * 99)",
        "say({'exercise': 'lesson01.alpha_bar', 'answer': {'function': 0}}, {'gave': {'made': "
        "'os.system', 'fields': {}}})",
        RIGHT,
    ],
    "patched": [
        "from tutorial_lib.checks import lesson03, lesson03_loss, lesson07\n"
        "class Always(torch.Tensor):\n"
        "    def isclose(self, *_, **__): return torch.ones(self.shape, dtype=torch.bool)\n"
        "known = iter(2 * list(lesson02.jump._expected))\n"
        "lesson02.jump.check(lambda *_: next(known).as_subclass(Always))",
        "from tutorial_lib.checks.framework import compare, exercise, run, task\n"
        "passing = lambda self, answer: self._result('passed', 'passed', 'of course')\n"
        "exercise.Exercise._judge = exercise.Exercise.judge = passing\n"
        "exercise.Exercise._first_problem = lambda self, outcomes: (0, None)\n"
        "compare.compare = compare._values = lambda *_: None\n"
        "torch.isclose = torch.allclose = torch.equal = lambda *_, **__: torch.tensor(True)\n"
        "nothing = lambda *_: torch.zeros(())\n"
        "lesson03_loss.judge = lesson03.judge = nothing\n"
        "for one in (lesson00.to_range, lesson03.epsilon_loss, lesson07.one_floor):\n"
        "    object.__setattr__(one, 'use', nothing)\n"
        "    object.__setattr__(one, 'atol', 1e9)",
        WRONG,
        "lesson03.epsilon_loss.check(lambda *_: torch.zeros((), requires_grad=True))",
        "lesson07.one_floor.check(lambda *_: torch.zeros(()))",
    ],
    "solution": [
        "lesson01.alpha_bar.check(lesson01.alpha_bar.model_answer)",
        "exec(lesson00.to_range.solution().source)\nlesson00.to_range.check(to_range)",
    ],
    "retyped": [
        'def mine(p):\n    """My own."""\n    return p.float() / 127.5 - 1  # really\n',
        "lesson00.to_range.check(mine)",
        "lesson01.counting.check(250)",
    ],
    "shadows": [
        "import this_helper, tutorial_lib\nassert this_helper.HALF == 0.5\n"
        "assert 'shadow' not in tutorial_lib.__doc__",
        WRONG,
    ],
    "exits": [
        SPEAK,
        "say({'exercise': 'lesson00.to_range', 'answer': 1, 'outcome': 'passed'})",
        "os._exit(0)",
    ],
    "murders": [
        "import signal\nos.kill(os.getppid(), signal.SIGKILL)\nimport time\ntime.sleep(99)"
    ],
    "edits": [
        "from tutorial_lib.checks.framework import exercise\n"
        "text = open(exercise.__file__).read()\n"
        "open(exercise.__file__, 'w').write(text.replace('number, problem =', 'number, problem ="
        " 0, None #'))\n"
        "startup = os.path.join(os.environ['IPYTHONDIR'], 'profile_default', 'startup')\n"
        "os.makedirs(startup, exist_ok=True)\n"
        "open(os.path.join(startup, 'a.py'), 'w').write('raise SystemExit')",
    ],
    "honest": [
        WRONG,
        "lesson01.alpha_bar.check(lambda beta: torch.cat([torch.ones(1), 1 - beta]).cumprod(0))",
    ],
    "strange words": [
        "import shutil, tutorial_lib\nshutil.rmtree(os.path.dirname(tutorial_lib.__file__))",
        "def strange(pixels): raise ValueError('\\ud800 \\x1b[2J \\x00 \\x1b]0;t\\x07 \\uffff')",
        "lesson00.to_range.check(strange)",
        "raise ValueError('\\ud800 \\x1b[2J')",
    ],
}
DETACHED = """
import subprocess, sys
code = '''
import os, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
open({pid!r}, "w").write(str(os.getpid()))
while not os.path.exists({grades!r}): time.sleep(0.01)
open({grades!r}, "w").write("forged")
'''
subprocess.Popen([sys.executable, "-c", code], env={{}}).wait()
import os, time
while not os.path.exists({pid!r}) or not open({pid!r}).read(): time.sleep(0.01)
"""


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What was found, in one grading of all, with the files that belong beside them."""
    folder, out = tmp_path_factory.mktemp("class"), tmp_path_factory.mktemp("out")
    grades, pids = out / "grades.json", [out / "pid", out / "another pid"]
    detached = [DETACHED.format(pid=str(pid), grades=str(grades)) for pid in pids]
    cells = {**NOTEBOOKS, "detached": [detached[0], WRONG]}
    cells["murders and hides"] = [detached[1], *NOTEBOOKS["murders"]]
    paths = []
    for name, code in cells.items():
        path = folder / f"00_{name}.ipynb"
        nbformat.write(new_notebook(cells=[new_code_cell(c) for c in [IMPORTS, *code]]), path)
        paths.append(path)
    for name in ("torch", "tutorial_lib", "json", "ipykernel_launcher"):
        (folder / f"{name}.py").write_text('"""A shadow."""\nraise SystemExit("shadowed")\n')
    (folder / "this_helper.py").write_text("HALF = 0.5\n")
    (folder / "00_conflict.ipynb").write_text("<<<<<<< HEAD\n{}\n=======\n>>>>>>> theirs\n")
    (folder / "00_\n  lesson00.to_range  passed.ipynb").write_text("{}")
    (folder / "00_deep.ipynb").write_text("[" * 200_000)
    (folder / "00_\x1b[31m \x01.ipynb").write_bytes(b"\xff\xfe\x00")
    paths += sorted(set(folder.glob("*.ipynb")) - set(paths))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = progress(paths, json=grades, junit=out / "grades.xml", require_all=True, seed=5)
    reports = json.loads(grades.read_text())["notebooks"]
    suites = ET.parse(out / "grades.xml").getroot()
    by_name = {Path(r["path"]).stem[3:]: r for r in reports}
    lines = printed.getvalue()
    return {
        "code": code,
        "printed": lines,
        "by_name": by_name,
        "suites": suites,
        "pids": pids,
        "paths": paths,
    }


def entry(graded: dict, name: str, exercise: str) -> dict:
    found = [e for e in graded["by_name"][name]["exercises"] if e["id"] == exercise]
    return found[0] if found else {"status": "missing"}


@pytest.mark.long("starts a kernel for each of a dozen notebooks")
@pytest.mark.parametrize(
    ("name", "exercise", "expected"),
    [
        ("says so", "lesson00.to_range", "failed"),
        ("says so", "lesson01.rates", "missing"),
        ("says so", "lesson01.counting", "failed"),
        ("says so", "lesson01.linear_betas", "missing"),
        ("says so", "lesson01.alpha_bar", "not attempted"),
        ("nonsense", "lesson00.to_range", "passed"),
        ("nonsense", "lesson01.rates", "missing"),
        ("nonsense", "lesson01.alpha_bar", "missing"),
        ("patched", "lesson00.to_range", "failed"),
        ("patched", "lesson02.jump", "failed"),
        ("patched", "lesson03.epsilon_loss", "failed"),
        ("patched", "lesson07.one_floor", "failed"),
        ("shadows", "lesson00.to_range", "failed"),
        ("exits", "lesson00.to_range", "failed"),
        ("murders", "lesson00.to_range", "missing"),
        ("edits", "lesson00.to_range", "missing"),
        ("honest", "lesson00.to_range", "failed"),
        ("honest", "lesson01.alpha_bar", "passed"),
        ("strange words", "lesson00.to_range", "failed"),
    ],
)
def test_what_an_answer_is_worth(graded: dict, name: str, exercise: str, expected: str):
    assert entry(graded, name, exercise)["status"] == expected


@pytest.mark.parametrize(
    ("name", "exercise"),
    [
        ("solution", "lesson01.alpha_bar"),
        ("solution", "lesson00.to_range"),
        ("retyped", "lesson00.to_range"),
    ],
)
def test_the_solution_passes_and_is_marked(graded: dict, name: str, exercise: str):
    found = entry(graded, name, exercise)
    assert (found["status"], found["as_solution"]) == ("passed", True)
    suite = next(s for s in graded["suites"] if s.attrib["name"].endswith(f"00_{name}.ipynb"))
    case = suite.find(f"testcase[@name='{exercise[9:]}']")
    assert case is not None
    assert case.find("properties/property[@name='as the solution']") is not None


def test_an_answer_of_ones_own_is_not_marked(graded: dict):
    assert not entry(graded, "honest", "lesson01.alpha_bar")["as_solution"]
    assert not entry(graded, "retyped", "lesson01.counting")["as_solution"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nonsense", "the unknown exercise 'lesson00.extra'"),
        ("nonsense", "numbers that do not fill their shape"),
        ("nonsense", "an answer without its exercise"),
        ("nonsense", "a message of 18446744073709551615 bytes"),
        ("nonsense", "a value of an unknown kind"),
        ("exits", "the kernel died"),
        ("murders", "ended from outside"),
        ("conflict", "not a notebook"),
        ("deep", "not a notebook"),
        ("?[31m ?", "not a notebook"),
    ],
)
def test_a_broken_notebook_has_an_error_of_its_own(graded: dict, name: str, told: str):
    report = graded["by_name"][name]
    assert told in report["error"]
    suite = next(s for s in graded["suites"] if s.attrib["name"] == report["path"])
    assert suite.find("testcase/error") is not None


@pytest.mark.parametrize("name", ["honest", "shadows", "solution", "retyped"])
def test_nothing_else_is_in_error(graded: dict, name: str):
    assert graded["by_name"][name]["error"] is None
    assert graded["by_name"][name]["errors"] == []


def test_the_terminal_is_told_nothing_but_text(graded: dict):
    assert all(c.isprintable() or c == "\n" for c in graded["printed"])
    assert "\n  lesson00.to_range  passed.ipynb" not in graded["printed"]


def test_everybody_is_in_both_files(graded: dict):
    assert graded["code"] == 1
    assert len(graded["by_name"]) == len(graded["suites"]) == len(graded["paths"])


def test_nothing_outlives_its_notebook(graded: dict):
    """Not even detached processes without an environment whose parents were killed."""
    assert entry(graded, "detached", "lesson00.to_range")["status"] == "failed"
    for pid in graded["pids"]:
        assert not psutil.pid_exists(int(pid.read_text()))


def test_the_list_of_exercises_is_the_teachers(graded: dict):
    expected = {task.id for task in all_exercises() if task.id.startswith("lesson00.")}
    for report in graded["by_name"].values():
        assert expected <= {one["id"] for one in report["exercises"]}
