"""Which notebooks there are, which there should be, and what is in them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat

from tutorial_lib._validate import MissingFileError
from tutorial_lib.course import LESSONS, Lesson

MOST_BYTES = 50_000_000
"""Largest notebook that is read (bytes)."""


@dataclass(frozen=True)
class Notebook:
    """One notebook to grade.

    Attributes:
        path: where it is, or should be.
        lesson: the lesson that its name says, if any.
        cells: the source of each cell; None for a cell that is not code.
        problem: why it cannot be run, if so.
    """

    path: Path
    lesson: Lesson | None
    cells: tuple[str | None, ...] = ()
    problem: str | None = None

    @property
    def code(self) -> list[str]:
        """The sources of its code."""
        return [cell for cell in self.cells if cell is not None]


def find(given: Sequence[str | Path], *, require_all: bool) -> list[Notebook]:
    """The notebooks that files and folders stand for, in order, each once.

    Args:
        given: files, or folders of notebooks; none means the folder ``notebooks`` if there is one,
            else the current folder.
        require_all: whether a folder must hold a notebook of every lesson; those that it lacks are
            in the list too, with a ``problem``. A file must be a lesson's.

    Raises:
        FileNotFoundError: a file does not exist, or a folder holds no notebook.
    """
    places = [Path(path) for path in given] or [Path("notebooks")]
    if not given and not places[0].is_dir():
        places = [Path()]
    found: dict[Path, Notebook] = {}
    for place in places:
        if place.is_dir():
            inside = sorted(place.glob("*.ipynb"))
            if not inside:
                raise MissingFileError(f"notebooks: no *.ipynb in the folder {place.resolve()}")
            found.update((path, _read(path)) for path in inside if path not in found)
            if require_all:
                found.update((lack.path, lack) for lack in _lacking(place, inside))
        elif place.exists():
            if place not in found:
                found[place] = _of_a_lesson(_read(place)) if require_all else _read(place)
        else:
            raise MissingFileError(f"notebooks: {place} does not exist")
    return list(found.values())


def lacking(given: Sequence[Notebook]) -> list[Lesson]:
    """The lessons of which there is no notebook in ``given``."""
    names = {notebook.lesson for notebook in given}
    return [lesson for lesson in LESSONS if lesson not in names]


def _lacking(folder: Path, inside: Sequence[Path]) -> list[Notebook]:
    there = {_lesson(path) for path in inside}
    text = "there is no notebook of this lesson; was it renamed or deleted?"
    return [
        Notebook(folder / lesson.notebook, lesson, problem=text)
        for lesson in LESSONS
        if lesson not in there
    ]


def _lesson(path: Path) -> Lesson | None:
    """The lesson whose number begins the name of a notebook."""
    number = re.match(r"(\d\d[a-z]?)[_-]", path.name)
    return next((one for one in LESSONS if number and one.checks == f"lesson{number[1]}"), None)


def _of_a_lesson(notebook: Notebook) -> Notebook:
    if notebook.lesson is not None or notebook.problem:
        return notebook
    text = "its name begins with no lesson's number; was it renamed?"
    return Notebook(notebook.path, None, problem=text)


def _read(path: Path) -> Notebook:
    lesson = _lesson(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            return Notebook(path, lesson, problem=f"larger than {MOST_BYTES} bytes")
        content = nbformat.reads(path.read_bytes().decode("utf-8"), as_version=4)
        nbformat.validate(content)
        cells = [cell.source if cell.cell_type == "code" else None for cell in content.cells]
        cells = [None if cell is None else _text(cell) for cell in cells]
    except OSError as error:
        return Notebook(path, lesson, problem=f"cannot be read: {error.strerror}")
    except Exception as error:  # nbformat lets all kinds of errors through
        first = str(error).splitlines()[0] if str(error) else ""
        problem = f"not a notebook ({type(error).__name__}: {first[:200]})"
        return Notebook(path, lesson, problem=problem)
    return Notebook(path, lesson, tuple(cells))


def _text(source: object) -> str:
    """The source of a cell, without halves of characters, which no kernel can be sent."""
    return str(source).encode("utf-8", "replace").decode()
