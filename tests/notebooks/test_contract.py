"""What the second edition promises: a picture first, true minutes, an end that looks back.

The first test holds every lesson to the mark `<!-- opening -->`, the others follow the mark.
"""

import re
from functools import cache

import jupytext
import nbformat
import pytest
from build_notebooks import OPENING, ROOT, Lesson, build, lessons
from nbformat import NotebookNode
from reading import Reading, reading, table_rows

from tutorial_lib.checks import all_exercises

COURSE = lessons(ROOT)
CONVERTED = [
    lesson for lesson in COURSE if "<!-- opening -->" in lesson.source.read_text(encoding="utf-8")
]
MOST_MINUTES, MOST_TASKS, MOST_WORDS_IN_A_ROW, MOST_BYTES = 60, 12, 30, 500_000
LAST_HEADING = "## What you can do now"
each_converted = pytest.mark.parametrize("lesson", CONVERTED, ids=lambda lesson: lesson.entry.name)


@cache
def learner(lesson: Lesson) -> NotebookNode:
    """The learner's notebook as its source gives it now; the opening's mark is still in it."""
    return build(lesson, COURSE)[0]


def texts(notebook: NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def test_every_lesson_opens_with_a_picture():
    assert [lesson.entry.name for lesson in CONVERTED] == [lesson.entry.name for lesson in COURSE]


@each_converted
def test_its_minutes_are_true(lesson: Lesson):
    found = reading(learner(lesson))
    assert lesson.entry.minutes == found.minutes, f"course.py must say {found.minutes}: {found}"
    assert found.minutes <= MOST_MINUTES, f"at most {MOST_MINUTES}; fold or cut: {found}"


@each_converted
def test_it_has_at_most_twelve_exercises_and_each_says_its_minutes(lesson: Lesson):
    tasks = [task.id for task in all_exercises() if task.id.startswith(f"{lesson.entry.checks}.")]
    assert len(tasks) <= MOST_TASKS
    stamps = reading(learner(lesson)).stamps
    assert len(stamps) == len(tasks), f"a stamp for each of {tasks}; there are {len(stamps)}"


@each_converted
def test_no_row_of_a_table_is_long(lesson: Lesson):
    """Those that benchmarks/claims.py makes have limits of their own."""
    for row in table_rows(jupytext.read(lesson.source, fmt="py:percent")):
        count = sum(bool(re.search(r"\w", word)) for word in row.split())
        assert count <= MOST_WORDS_IN_A_ROW, f"{count} words: {row}"


@each_converted
def test_it_opens_with_its_picture(lesson: Lesson):
    title, rest = learner(lesson).cells[0].source.split("\n", 1)
    assert title == f"# {lesson.entry.number} · {lesson.entry.title}"
    assert OPENING.match(rest.lstrip("\n")), "the picture comes right after the title"
    shown = nbformat.read(lesson.learner, as_version=4).cells[0].source
    assert re.search(rf'<img src="images/{lesson.entry.name}\.(png|gif)" alt="[^"]', shown)
    files = [path for path in map(lesson.image, ("png", "gif")) if path.exists()]
    assert files
    assert all(path.stat().st_size < MOST_BYTES for path in files)


@each_converted
def test_it_starts_by_start(lesson: Lesson):
    first = next(cell.source for cell in learner(lesson).cells if cell.cell_type == "code")
    number = lesson.entry.number
    wanted = f"start({number})" if number.isdecimal() else f'start("{number}")'
    assert first.rstrip().endswith(wanted)


@each_converted
def test_it_ends_by_looking_back(lesson: Lesson):
    source = lesson.source.read_text(encoding="utf-8")
    after = source.partition(f"\n# {LAST_HEADING}\n")[2]
    assert after, f"no {LAST_HEADING!r}"
    assert not re.search(r"^# #|^# %%", after, re.MULTILINE), "it is the last section, in one cell"
    assert source.endswith("\n# <!-- navigation -->\n")
    lines = [line for line in after.splitlines() if line.strip("# ")]
    assert 3 <= len(lines) <= 15, "three or four lines that say it"


def notebook(*cells: str) -> NotebookNode:
    made = [nbformat.v4.new_markdown_cell(textwrapped) for textwrapped in cells]
    return nbformat.v4.new_notebook(cells=[*made, nbformat.v4.new_code_cell("one = 1  # two")])


@pytest.mark.parametrize(
    ("text", "words", "formulas", "stamps"),
    [
        ("# 3 · The loss\n\nOne **word** more.", 6, 0, ()),
        ("Here $x_t = a + b$ and `x + 1` are.", 6, 0, ()),
        ("Above\n\n$$x = y$$\n\n$$\na\n$$ below", 2, 2, ()),
        ("One\n\n<details><summary>s</summary>\n\nhidden $$x$$\n\n</details>\n\ntwo", 2, 0, ()),
        ("a <details>b <details>c</details> d <b>e</b></details> f", 2, 0, ()),
        ("One\n\n```python\nx = 1\n```\n\ntwo", 2, 0, ()),
        ("One\n\n| a | b |\n|---|---|\n| c c | d |\n\ntwo", 2, 0, ()),
        ("[a link](http://there.is/x y) ![a picture](images/x.png)", 4, 0, ()),
        ('<img src="a.png" alt="not read"> word <!-- minutes --> - – 12', 2, 0, ()),
        ("*Difficulty 2 of 3, 6 minutes.*", 6, 0, (6,)),
        (
            "*Difficulty 3 of 3, 15 minutes. Be\nproud of it.*\n\n*1 minute.*",
            12,
            0,
            (15, 1),
        ),
        ("It takes 7 minutes. *7 minutes* is nothing.", 8, 0, ()),
    ],
)
def test_what_is_read_is_counted(text: str, words: int, formulas: int, stamps: tuple[int, ...]):
    assert reading(notebook(text)) == Reading(words, formulas, stamps)
    assert reading(notebook(text, text)) == Reading(2 * words, 2 * formulas, 2 * stamps)


@pytest.mark.parametrize(
    ("found", "minutes"),
    [
        (Reading(2000, 0, ()), 10),
        (Reading(2001, 0, ()), 15),
        (Reading(1000, 4, (3,)), 10),
        (Reading(1000, 5, (3,)), 15),
        (Reading(0, 0, (20, 40)), 60),
    ],
)
def test_the_sum_is_rounded_up(found: Reading, minutes: int):
    assert found.minutes == minutes
    for part in (f"{found.words} words", f"{found.formulas} formulas", f"{minutes} minutes"):
        assert part in str(found)
    assert all(str(stamp) in str(found) for stamp in found.stamps)
