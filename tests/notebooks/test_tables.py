"""The tables that list the lessons agree with each other and with the lessons."""

import re
from pathlib import Path

import pytest

from tutorial_lib import course

LESSONS = {lesson.name: lesson for lesson in course.LESSONS}
ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path.stem for path in (ROOT / "notebooks" / "source").glob("*.py"))
ROW = re.compile(
    r"^(?:# )?\| \[(\d)\. [^]]+\]\((?:notebooks/)?(\w+)\.ipynb\) \|.*\| (\d+) \|$", re.M
)


@pytest.mark.parametrize("file", ["README.md", "notebooks/source/00_start_here.py"])
def test_a_table_lists_every_lesson_with_its_minutes(file: str) -> None:
    rows = ROW.findall((ROOT / file).read_text(encoding="utf-8"))
    assert [stem for _, stem, _ in rows] == SOURCES
    for number, stem, minutes in rows:
        assert stem.startswith(f"0{number}_")
        assert int(minutes) == LESSONS[stem].minutes


@pytest.mark.parametrize("stem", SOURCES)
def test_a_lesson_says_the_same_minutes_at_its_top(stem: str) -> None:
    text = (ROOT / "notebooks" / "source" / f"{stem}.py").read_text(encoding="utf-8")
    opening = text[: text.index("# %%\n")]
    assert str(LESSONS[stem].minutes) in re.findall(r"(\d+)\s+(?:#\s+)?minutes", opening)
