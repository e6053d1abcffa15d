"""Pages made from what the repository knows: glossary, claims, lessons and reference."""

import importlib
import json
import pkgutil
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from build_notebooks import Lesson
from nbformat import NotebookNode

TERMS = re.compile(r"^\| what people say \|[^\n]*\n\|[-| ]+\|\n((?:\|[^\n]*\n?)+)", re.MULTILINE)
WORDS = re.compile(r"^\| word \| meaning \| not \|\n\|[-| ]+\|\n((?:\|[^\n]*\n)+)", re.MULTILINE)
LEFT_OUT = {"__main__", "checks", "cli", "features", "unet"}
"""Top-level names of the library without a page: programs, exercises and old names."""


@dataclass(frozen=True)
class Term:
    """A word and what it means.

    Attributes:
        word: it, or several for the same thing with commas between.
        meaning: in Markdown.
        instead_of: words that the course does not use for it.
        lesson: where it is defined; None for the course's own usage.
    """

    word: str
    meaning: str
    instead_of: str = ""
    lesson: Lesson | None = None


def _cells(rows: str) -> list[list[str]]:
    """The cells of a table's rows; a bar with a backslash before it does not end a cell."""
    split = (re.split(r"(?<!\\)\|", row.strip()) for row in rows.strip().splitlines())
    return [[cell.strip() for cell in cells[1:-1]] for cells in split]


def terms(contributing: str, lessons: Sequence[tuple[Lesson, NotebookNode]]) -> list[Term]:
    """The course's own words, from CONTRIBUTING.md, and the key terms of each lesson, by word."""
    own = WORDS.search(contributing)
    found = [Term(word, says, no) for word, says, no in _cells(own[1])] if own else []
    for lesson, notebook in lessons:
        for cell in notebook.cells:
            for table in TERMS.finditer(cell.source) if cell.cell_type == "markdown" else ():
                found += [Term(cells[0], cells[1], lesson=lesson) for cells in _cells(table[1])]
    by_word: dict[str, Term] = {}
    for term in found:  # a lesson's definition stands for the course's own
        earlier = by_word.get(term.word)
        own_words = earlier.instead_of if earlier and earlier.lesson is None else ""
        if earlier is None or earlier.lesson is None:
            by_word[term.word] = replace(term, instead_of=term.instead_of or own_words)
    return sorted(by_word.values(), key=lambda term: re.sub(r"[^a-z0-9 ]", "", term.word.lower()))


def glossary(found: Sequence[Term]) -> str:
    """The page of all terms."""
    lines = [
        "# Glossary",
        "",
        "The words that this course uses, each for one thing, and what other people call it.",
        "A link leads to the lesson that a word comes from; those without one are used throughout.",
        "",
    ]
    for term in found:
        lines += [term.word, f": {term.meaning[:1].upper()}{term.meaning[1:].rstrip('.')}."]
        extra = [f"Not called {term.instead_of} here."] if term.instead_of else []
        if term.lesson is not None:
            entry = term.lesson.entry
            extra.append(f"[Lesson {entry.number}](lessons/{entry.notebook})")
        lines += [f"  {' '.join(extra)}" if extra else "", ""]
    return "\n".join(lines)


def claims(folder: Path, lessons: Sequence[Lesson]) -> str:
    """The page of the claims, lesson by lesson, from the results in ``folder``."""
    lines = [
        "# Claims, measured",
        "",
        "What tutorials repeat, and what came out when it was measured with the library of this",
        "course. `python benchmarks/claims.py` measures every number again. Differences are",
        "paired, with their standard error over seeds; where two things are closer than that, the",
        "table says that they are *not told apart*.",
        "",
    ]
    for lesson in lessons:
        path = folder / f"{lesson.entry.checks}.json"
        if not path.exists():
            continue
        entry = lesson.entry
        title = f"[{entry.number} · {entry.title}](lessons/{entry.notebook})"
        lines += [f"## {title}", "", "| claim | verdict | what we measured |", "|---|---|---|"]
        for claim in json.loads(path.read_text(encoding="utf-8")).values():
            lines.append(f"| {claim['claim']} | {claim['verdict']} | {claim['number']} |")
        lines.append("")
    return "\n".join(lines)


def lessons_page(course: Sequence[Lesson]) -> str:
    """The page that lists the lessons, in the order of the course."""
    rows = [
        f"| [{one.entry.number} · {one.entry.title}](lessons/{one.entry.notebook}) "
        f"| {one.entry.goal} | {one.entry.minutes} |"
        for one in course
    ]
    toctree = "\n".join(f"lessons/{one.entry.name}" for one in course)
    return f"""# The lessons

Each lesson is shown here solved and run, and its explorers move. Try an exercise before you unfold
its solution; better, open the lesson in Colab, Binder or your own JupyterLab, where a check tells
you what is wrong with your answer.

| lesson | you will | minutes |
|---|---|---|
{chr(10).join(rows)}

```{{toctree}}
:hidden:

{toctree}
```
"""


def modules() -> list[str]:
    """The public modules of the library that have a page, by name; packages as a whole."""
    package = importlib.import_module("tutorial_lib")
    names = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name for name in names if not name.startswith("_") and name not in LEFT_OUT)


def summary(module: str) -> str:
    """The first sentence of a module's docstring."""
    text = importlib.import_module(f"tutorial_lib.{module}").__doc__ or ""
    return " ".join(text.strip().split("\n\n")[0].split())


def reference(names: Sequence[str]) -> dict[str, str]:
    """The pages of the reference, by path."""
    rows = "\n".join(f"| [`{name}`]({name}.md) | {_plain(summary(name))} |" for name in names)
    listed = "\n".join(names)
    pages = {
        "reference/index.md": f"""# The library

`tutorial_lib` is what the lessons teach, in tested functions: train, sample, measure. Install it
alone, without Jupyter, or with the lessons; [training for real](../guides/training.md) shows its
command line.

| module | |
|---|---|
{rows}

```{{toctree}}
:hidden:

{listed}
```
"""
    }
    for name in names:
        found = importlib.import_module(f"tutorial_lib.{name}")
        imported = "\n:imported-members:" if hasattr(found, "__all__") else ""
        pages[f"reference/{name}.md"] = f"""# `{name}`

```{{eval-rst}}
.. automodule:: tutorial_lib.{name}
   :members:{imported.replace(chr(10), chr(10) + "   ")}
```
"""
    return pages


def _plain(text: str) -> str:
    """RST's double backticks as Markdown's."""
    return text.replace("``", "`")
