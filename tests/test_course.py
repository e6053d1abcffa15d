"""The manifest of the course: complete, in order, true to the library, and easy to read alone."""

import importlib
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tutorial_lib import course
from tutorial_lib.course import LESSONS

each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)


def test_lessons_are_numbered_from_0_in_order():
    """A lesson that was put in between has the number of the one before it, and a letter."""
    names = [lesson.name for lesson in LESSONS]
    assert sorted(names) == names
    numbers = [re.fullmatch(r"(\d+)([a-z]?)", lesson.number) for lesson in LESSONS]
    places = [(int(number[1]), number[2]) for number in numbers if number]
    last = places[-1][0]
    in_order = [(n, letter) for n in range(last + 1) for letter in ("", *"bcdefg")]
    assert places == [place for place in in_order if place in places]
    assert {place for place in places if not place[1]} == {(n, "") for n in range(last + 1)}


@pytest.mark.parametrize(
    ("name", "number", "checks"),
    [
        ("00_start", "0", "lesson00"),
        ("05_training", "5", "lesson05"),
        ("05b_training_for_real", "5b", "lesson05b"),
        ("10_text", "10", "lesson10"),
        ("12c_b", "12c", "lesson12c"),
    ],
)
def test_the_number_comes_from_the_name(name: str, number: str, checks: str):
    lesson = replace(LESSONS[0], name=name)
    assert (lesson.number, lesson.checks) == (number, checks)


@each_lesson
def test_an_entry_is_complete(lesson: course.Lesson):
    assert re.fullmatch(r"\d\d[b-g]?_[a-z0-9_]+", lesson.name)
    assert lesson.title.strip()
    assert lesson.goal.strip()
    assert not re.search(r"[|\n]", lesson.title + lesson.goal), "would break a table"
    assert not lesson.goal.endswith(".")
    assert 5 <= lesson.minutes <= 90
    assert min(lesson.train_steps, lesson.images) >= 0
    assert lesson.notebook == f"{lesson.name}.ipynb"
    assert lesson.checks == f"lesson{lesson.name.partition('_')[0]}"


@each_lesson
def test_what_a_lesson_teaches_exists(lesson: course.Lesson):
    for name in lesson.teaches:
        try:
            importlib.import_module(f"tutorial_lib.{name}")
        except ModuleNotFoundError:
            module, _, part = name.rpartition(".")
            assert hasattr(importlib.import_module(f"tutorial_lib.{module}"), part), name


def test_a_name_is_taught_once():
    taught = [name for lesson in LESSONS for name in lesson.teaches]
    assert len(set(taught)) == len(taught)


def test_the_closest_entry_teaches_a_name(monkeypatch: pytest.MonkeyPatch):
    early, late = LESSONS[1], LESSONS[2]
    lessons = (replace(early, teaches=("walks",)), replace(late, teaches=("walks.fast", "plays")))
    monkeypatch.setattr(course, "LESSONS", lessons)
    for name, expected in (
        ("walks", lessons[0]),
        ("walks.slow", lessons[0]),
        ("walks.fast", lessons[1]),
        ("walks.fast.faster", lessons[1]),
        ("walks.fastest", lessons[0]),
        ("plays", lessons[1]),
        ("play", None),
        ("", None),
    ):
        assert course.taught_in(name) == expected, name


def test_the_manifest_loads_alone(tmp_path: Path):
    """Tools read it as a file: without torch, without the library, from any folder."""
    source = Path(course.__file__)
    alone = tmp_path / "manifest.py"
    alone.write_text(source.read_text())
    code = (
        "import runpy, sys\n"
        f"lessons = runpy.run_path({str(alone)!r})['LESSONS']\n"
        "assert 'torch' not in sys.modules and 'tutorial_lib' not in sys.modules\n"
        "print([lesson.name for lesson in lessons])\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == str([lesson.name for lesson in LESSONS])
    assert len(runpy.run_path(str(source))["LESSONS"]) == len(LESSONS)
