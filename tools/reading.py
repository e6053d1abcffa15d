"""How long a learner needs for a lesson: reading at 200 words a minute, formulas, exercises.

    python tools/reading.py          every lesson: minutes, and what they are made of
    python tools/reading.py 03 05b   these

Words are those of the visible prose: text cells of the learner's notebook, without code, tables,
displayed formulas and what is folded into <details>; a formula in a line is a word. Each displayed
formula takes half a minute. Exercises and questions say their minutes: "*Difficulty 2 of 3, 6
minutes.*", "*2 minutes.*". The sum is rounded up to the next 5, and is what
``tutorial_lib/course.py`` must say; a test compares.
"""

import argparse
import math
import re
from dataclasses import dataclass

from build_notebooks import ROOT, build, lessons
from nbformat import NotebookNode

WORDS_A_MINUTE = 200
MINUTES_A_FORMULA = 0.5

DETAILS = re.compile(r"<details\b(?:(?!<details\b).)*?</details>", re.DOTALL | re.IGNORECASE)
CODE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.DOTALL | re.MULTILINE)
TABLE_ROW = re.compile(r"^\s*\|.*\|\s*$", re.MULTILINE)
FORMULA = re.compile(r"\$\$.+?\$\$", re.DOTALL)
INLINE_FORMULA = re.compile(r"(?<!\$)\$(?!\$)[^$]+\$")
TAG = re.compile(r"<[/a-zA-Z!][^>]*>")
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
WORD = re.compile(r"\w")
STAMP = re.compile(r"^\*(?:Difficulty [123] of 3, )?(\d+) minutes?\b[^*]*\*", re.MULTILINE)
"""What an exercise or a question says about itself, at the beginning of a line."""


@dataclass(frozen=True)
class Reading:
    """What a lesson asks of its reader.

    Attributes:
        words: of visible prose.
        formulas: how many are displayed, outside of <details>.
        stamps: the minutes of each exercise and question, in their order.
    """

    words: int
    formulas: int
    stamps: tuple[int, ...]

    @property
    def exact(self) -> float:
        """The sum, in minutes."""
        reading = self.words / WORDS_A_MINUTE + self.formulas * MINUTES_A_FORMULA
        return reading + sum(self.stamps)

    @property
    def minutes(self) -> int:
        """The sum, rounded up to the next 5."""
        return 5 * math.ceil(round(self.exact, 6) / 5)

    def __str__(self) -> str:
        stamps = " + ".join(map(str, self.stamps)) or "0"
        return (
            f"{self.words} words / {WORDS_A_MINUTE} + {self.formulas} formulas x "
            f"{MINUTES_A_FORMULA} + {len(self.stamps)} stamps ({stamps}) = {self.exact:.1f}, "
            f"rounded up {self.minutes} minutes"
        )


def reading(learner: NotebookNode) -> Reading:
    """What the learner's notebook of a lesson asks of its reader."""
    texts = [cell.source for cell in learner.cells if cell.cell_type == "markdown"]
    visible, found = CODE.sub("", "\n\n".join(texts)), 1
    while found:  # one may be inside another
        visible, found = DETAILS.subn("", visible)
    formulas = len(FORMULA.findall(visible))
    stamps = tuple(int(minutes) for minutes in STAMP.findall(visible))
    prose = TABLE_ROW.sub("", FORMULA.sub(" ", visible))
    prose = LINK.sub(r"\1", TAG.sub(" ", INLINE_FORMULA.sub(" x ", prose)))
    return Reading(sum(bool(WORD.search(word)) for word in prose.split()), formulas, stamps)


def table_rows(notebook: NotebookNode) -> list[str]:
    """Every row of a table in the text cells of a notebook."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return TABLE_ROW.findall(CODE.sub("", "\n\n".join(texts)))


def main() -> None:
    parser = argparse.ArgumentParser(description="How long a learner needs for a lesson.")
    parser.add_argument("lessons", nargs="*", help="beginnings of their names; all by default")
    options = parser.parse_args()
    course = lessons(ROOT)
    for lesson in course:
        name = lesson.entry.name
        if not options.lessons or any(name.startswith(word) for word in options.lessons):
            found = reading(build(lesson, course)[0])
            print(f"{name}: course.py says {lesson.entry.minutes}; {found}")


if __name__ == "__main__":
    main()
