"""The committed notebooks are what their sources give; learners' hold no solution, solved ones all.

Solutions are looked up here through the exercises themselves, not through the builder, so that a
mistake in the builder's reading cannot hide a leak.
"""

import inspect
import re
import textwrap

import jupytext
import nbformat
import pytest
from build_notebooks import INSTALLS, ROOT, Lesson, lessons, stale

from tutorial_lib.checks import all_exercises
from tutorial_lib.checks.framework import Exercise

LESSONS = lessons(ROOT)
EXERCISES = [task for task in all_exercises() if isinstance(task, Exercise)]
PULLED = re.compile(r"^    # BEGIN SOLUTION (\S+)$", re.MULTILINE)
IN_PLACE = re.compile(r"# BEGIN SOLUTION\n(.*?)\n *# (?:STUB|END SOLUTION)\n?", re.DOTALL)
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.entry.name)


def solution(exercise: Exercise) -> str:
    """The body of the model answer, as it stands in the file of checks."""
    source = textwrap.dedent(inspect.getsource(exercise.model_answer))
    return re.sub(r"^def \w+\([^)]*\):\n", "", source).rstrip("\n")


def code(path) -> list[str]:
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


def test_notebooks_are_in_step_with_their_sources():
    assert stale(ROOT) == [], "run: make notebooks"


@each_lesson
def test_the_learners_notebook_is_untouched(lesson: Lesson):
    for cell in nbformat.read(lesson.learner, as_version=4).cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)
        assert "SOLUTION" not in cell.source


def test_every_solution_is_pulled_from_its_check():
    marks = [mark for lesson in LESSONS for mark in PULLED.findall(lesson.source.read_text())]
    assert sorted(marks) == sorted(exercise.id for exercise in EXERCISES)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.id)
def test_a_solution_is_in_the_solved_notebook_only(exercise: Exercise):
    (lesson,) = [one for one in LESSONS if one.entry.checks == exercise.id.split(".")[0]]
    text = solution(exercise)
    assert text.startswith("    ")
    assert not any(text in cell for cell in code(lesson.learner))
    assert any(text in cell for cell in code(lesson.solved))
    assert text not in lesson.source.read_text(), "a solution exists once, in its check"


@each_lesson
def test_the_learners_notebook_tells_no_answer(lesson: Lesson):
    learner = code(lesson.learner)
    for cell in jupytext.read(lesson.source, fmt="py:percent").cells:
        if "solution" in cell.metadata.get("tags", []):
            assert cell.source not in learner
        for answer in IN_PLACE.findall(cell.source):
            assert answer.strip()
            assert not any(answer in text for text in learner), answer


@each_lesson
def test_an_exercise_left_open_is_a_placeholder(lesson: Lesson):
    """A stub returns `...`; one that raised would stop Run All before the end."""
    solved = {cell.id: cell for cell in nbformat.read(lesson.solved, as_version=4).cells}
    open_cells = [
        cell.source
        for cell in nbformat.read(lesson.learner, as_version=4).cells
        if cell.cell_type == "code"
        and cell.id != INSTALLS  # learners only
        and cell.source != solved[cell.id].source
    ]
    assert len(open_cells) == lesson.source.read_text().count("# BEGIN SOLUTION")
    for stub in open_cells:
        assert "..." in stub
        assert "NotImplementedError" not in stub
