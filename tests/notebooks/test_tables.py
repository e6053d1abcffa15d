"""What lessons and README say about the course comes from its manifest."""

import re
from pathlib import Path

import nbformat
import pytest

from tutorial_lib.course import LESSONS, Lesson

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(
    r"^\| \[(\d+[a-z]?)\. ([^]]+)\]\((?:notebooks/)?(\w+)\.ipynb\) \| (.*) \| (\d+) \|$", re.M
)
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)


def texts(lesson: Lesson) -> list[str]:
    """The text cells of the learner's notebook."""
    notebook = nbformat.read(ROOT / "notebooks" / lesson.notebook, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


@pytest.mark.parametrize("place", ["README", "lesson 0"])
def test_a_table_lists_every_lesson(place: str):
    lesson_0 = "\n\n".join(texts(LESSONS[0]))
    text = (ROOT / "README.md").read_text("utf-8") if place == "README" else lesson_0
    rows = [(n, title, name, goal, int(m)) for n, title, name, goal, m in ROW.findall(text)]
    assert rows == [(one.number, one.title, one.name, one.goal, one.minutes) for one in LESSONS]


@each_lesson
def test_a_lesson_says_its_minutes_at_its_top(lesson: Lesson):
    source = (ROOT / "notebooks" / "source" / f"{lesson.name}.py").read_text("utf-8")
    assert re.findall(r"<!-- minutes -->\s+(?:#\s+)?minutes", source.partition("# %%\n")[0])
    assert re.search(rf"\b{lesson.minutes}\s+minutes", texts(lesson)[0])


@each_lesson
def test_a_lesson_ends_with_links_to_its_neighbors(lesson: Lesson):
    source = (ROOT / "notebooks" / "source" / f"{lesson.name}.py").read_text("utf-8")
    assert source.endswith("# <!-- navigation -->\n")
    lines = [
        line for line in texts(lesson)[-1].splitlines() if re.match(r"\*\*(Next|Before):", line)
    ]
    linked = [re.findall(r"\((\w+\.ipynb)\)", line) for line in lines]
    place = LESSONS.index(lesson)
    neighbors = [*LESSONS[place + 1 :][:1], *LESSONS[:place][-1:]]
    assert linked == [[one.notebook] for one in neighbors]
