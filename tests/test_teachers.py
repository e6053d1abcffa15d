"""docs/teachers.md is true: its exercise is one, its plans can be taught, its workflow grades."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from build_notebooks import ROOT, lessons, needs

from tutorial_lib.checks.framework import Exercise
from tutorial_lib.course import LESSONS

PAGE = (ROOT / "docs" / "teachers.md").read_text(encoding="utf-8")
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "grade.yml").read_text())
PLANS = re.findall(r"^\| (?:an? \w+|two days) \| lessons? ([\d, ]+) \|", PAGE, re.MULTILINE)


def needed(text: str) -> set[str]:
    """The lessons that a lesson needs, by what it says; what only makes it nicer is not needed."""
    found: set[str] = set()
    for listed in re.findall(r"lessons? ((?:\d+b?(?:, | and | to )?)+)", text.partition(";")[0]):
        for first, last in re.findall(r"(\d+) to (\d+)", listed):
            found |= {str(number) for number in range(int(first), int(last) + 1)}
        found |= set(re.findall(r"\d+b?", listed))
    return found


def test_lessons_are_found_in_what_is_said():
    assert needed("lessons 1 to 3: rates. Of PyTorch: 2 things") == {"1", "2", "3"}
    assert needed("lesson 3 (eps and v), lessons 5 and 6 (DDIM)") == {"3", "5", "6"}
    assert needed("lessons 1, 5b and 7; your network of lesson 9 makes it nicer") == {
        "1",
        "5b",
        "7",
    }
    assert needed("what a variance is") == set()


def test_what_a_lesson_needs_comes_before_it():
    numbers = [lesson.number for lesson in LESSONS]
    for lesson in lessons(ROOT):
        text = needs(lesson.source.read_text(encoding="utf-8"))
        before = numbers[: numbers.index(lesson.entry.number)]
        assert needed(text) <= set(before), lesson.entry.name


def test_a_plan_holds_what_its_lessons_need():
    assert len(PLANS) == 4
    says = {
        lesson.entry.number: needs(lesson.source.read_text(encoding="utf-8"))
        for lesson in lessons(ROOT)
    }
    for plan in PLANS:
        taken = plan.replace(" ", "").split(",")
        assert set().union(*(needed(says[number]) for number in taken)) <= set(taken), plan


def test_the_exercise_on_the_page_is_one():
    (code,) = re.findall(r"```python\n(import torch.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    snr = names["snr"]
    assert isinstance(snr, Exercise)
    assert snr.check(...).outcome == "not attempted"
    for answer in snr.right_answers().values():
        assert snr.check(answer).outcome == "passed"
    for mistake in snr.wrong_answers():
        assert snr.check(mistake.answer).mistake == mistake.name


def step(name: str) -> dict:
    (found,) = (step for step in WORKFLOW["jobs"]["grade"]["steps"] if step.get("name") == name)
    return found


@pytest.mark.parametrize("passes", [True, False])
def test_the_workflow_grades_and_keeps_what_came_out(tmp_path: Path, passes: bool):
    """Its own script, with a Python that notes what it is asked in place of a whole grading."""
    asked = tmp_path / "asked.json"
    fake = tmp_path / "bin" / "python"
    fake.parent.mkdir()
    fake.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        f"json.dump(sys.argv[1:], open({str(asked)!r}, 'w'))\n"
        "open('grades/grades.json', 'w').write('{}')\n"
        f"print('| a | table |')\nsys.exit({0 if passes else 1})\n"
    )
    fake.chmod(0o755)
    files = {name: tmp_path / name for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")}
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", step("Grade")["run"]],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{fake.parent}:{os.environ['PATH']}",
            "FORK": "ann/course",
            "NOTEBOOKS": "notebooks",
            **{name: str(path) for name, path in files.items()},
        },
        check=False,
    )
    assert done.returncode == (0 if passes else 1)
    words = json.loads(asked.read_text())
    assert words[:4] == ["-m", "tutorial_lib", "progress", "learner/notebooks"]
    (command,) = re.findall(r"^python -m tutorial_lib progress (.*)$", PAGE, re.MULTILINE)
    options = {word for word in command.split() if word.startswith("--")}
    assert {word for word in words if word.startswith("--")} == options
    assert "### ann/course\n\n    | a | table |\n" in files["GITHUB_STEP_SUMMARY"].read_text()
    assert files["GITHUB_OUTPUT"].read_text() == "name=grades-ann-course\n"
    assert (tmp_path / "grades" / "grades.json").exists()


def test_a_learner_s_machine_holds_no_key():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    checkouts = [s for s in WORKFLOW["jobs"]["grade"]["steps"] if "checkout" in s.get("uses", "")]
    assert len(checkouts) == 2
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)
    assert "secrets" not in json.dumps(step("Grade")) + json.dumps(step("Install the course"))
