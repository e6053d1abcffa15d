"""The committed notebooks are what their sources give, and learners' hold no solution."""

import re

import build_notebooks
import jupytext
import nbformat
import pytest
from build_notebooks import ROOT, Lesson, lessons, stale

LESSONS = lessons(ROOT)
# Written anew here, so that a mistake in the builder's own reading cannot hide a leak.
SOLUTION = re.compile(r"# BEGIN SOLUTION\n(.*?)\n *# (?:STUB|END SOLUTION)\n?", re.DOTALL)
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.source.stem)


def test_there_are_lessons_in_order():
    numbers = [lesson.source.stem[:2] for lesson in LESSONS]
    assert numbers == [f"{n:02d}" for n in range(len(LESSONS))]
    assert numbers


def test_notebooks_are_in_step_with_their_sources():
    assert stale(ROOT) == [], "run: make notebooks"


@each_lesson
def test_the_learners_notebook_is_untouched(lesson: Lesson):
    for cell in nbformat.read(lesson.learner, as_version=4).cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)
        assert "SOLUTION" not in cell.source


@each_lesson
def test_the_learners_notebook_tells_no_solution(lesson: Lesson):
    learner = [cell.source for cell in nbformat.read(lesson.learner, as_version=4).cells]
    for cell in jupytext.read(lesson.source, fmt="py:percent").cells:
        if "solution" in cell.metadata.get("tags", []):
            assert cell.source not in learner
        for solution in SOLUTION.findall(cell.source):
            assert solution.strip()
            assert not any(solution in text for text in learner), solution


@each_lesson
def test_an_exercise_left_open_is_a_placeholder(lesson: Lesson):
    """A stub returns `...`; one that raised would stop Run All before the end."""
    for cell in jupytext.read(lesson.source, fmt="py:percent").cells:
        if cell.cell_type == "code" and build_notebooks.BEGIN in cell.source:
            stub, solved = build_notebooks.split(cell.source)
            assert "..." in stub
            assert "NotImplementedError" not in stub
            assert stub != solved
