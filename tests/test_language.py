"""Plain American English in code and docs; CONTRIBUTING.md has the words.

The sources of lessons are read too, once they have the mark of an opening picture: the prose of the
others is edited together with their content. Built notebooks, what others wrote and this file,
which names what it refuses, are left out for good.
"""

import re
import subprocess
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = ("LICENSE", "tests/test_language.py")
LESSONS = "notebooks/source/"
OLD_NAMES = {
    "tutorial_lib/guidance.py": {"labelled"},
    "tutorial_lib/plots/__init__.py": {"colours"},
    "tutorial_lib/plots/figures.py": {"colours"},
    "CONTRIBUTING.md": {"colours"},
    "CHANGELOG.md": {"colours"},
}
"""Old names that a module still offers beside its new ones: in this file only."""

BANNED = {
    r"cannot be meant": "is invalid",
    r"\b(go|goes|going|went|gone) on with\b": "continue, resume",
    r"\b(hand|hands|handed|handing) in\b": "pass, passed",
    r"\b(has|have|had) not (a|an|the|any|its|one|been there)\b": "does not have",
    r"\b(has|have|had) not[.,;:)]": "does not have",
    r"\bthere is not,": "does not exist",
    r"\bby the word of\b": "according to",
    r"\bwhat came of\b": "the result of",
    r"\bsoon told\b": "quick to find out",
    r"\b(lies|lie) as\b": "has the same layout as",
    r"\bin the eyes of\b": "for",
    r"\bwithout a word\b": "silently",
    r"\b(is|are) no (int|ints|number|numbers|float|floats|tensor)\b": "is not a, is not an",
    r"\bno ints?\b": "not an int",
    r"\blearnt\b": "learned",
    r"\bwhilst\b": "while",
    r"\bamongst\b": "among",
    r"\bby heart\b": "memorized",
    r"\b(hang|hangs|hung|hanging) together\b": "be correlated, be connected",
    r"\b(work|works|worked|working) (it|them|this|that) off\b": "does it in parts",
    r"\bknows? (no|of no) (window|limit|limits|bounds?)\b": "has no",
    r"\b(is|are|was|were|be) survived\b": "survives",
    r"\bfrom lessons? \d+b? (you|we) need\b": "you need ... of lesson",
}
"""Phrases that are archaic or translated, and what to write instead."""


def sources() -> list[Path]:
    """The tracked files whose text people read."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "*.py", "*.md", "*.js", "*.toml", "*.yml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    names = [name for name in listed if name and not name.startswith(LEFT_OUT)]
    return [ROOT / name for name in names if not name.startswith(LESSONS) or is_converted(name)]


def is_converted(name: str) -> bool:
    path = ROOT / name
    return path.exists() and "<!-- opening -->" in path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    paths = [path for path in sources() if path.exists()]  # a file may be deleted, not committed
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}


def british_words() -> dict[str, str]:
    """British spellings and the American ones, from codespell's dictionary."""
    lines = (files("codespell_lib") / "data" / "dictionary_en-GB_to_en-US.txt").read_text()
    pairs = (line.split("->") for line in lines.splitlines())
    return dict(pairs)


def without(dictionary: dict[str, str], names: set[str]) -> dict[str, str]:
    return {word: better for word, better in dictionary.items() if word not in names}


def words(text: str) -> Iterator[str]:
    """The words of a text in lower case; identifiers in snake_case and CamelCase are split."""
    for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", text):
        yield word.lower()


def british(text: str, dictionary: dict[str, str]) -> list[str]:
    found = sorted(set(words(text)) & dictionary.keys())
    return [f"{word} (write {dictionary[word]})" for word in found]


def banned(text: str) -> list[str]:
    """Phrases of ``BANNED`` in a text, also across the end of a line."""
    flat = re.sub(r"\s+(?:#|\*|//)?\s*", " ", text)
    return [
        f"{match.group()!r} (write {better})"
        for phrase, better in BANNED.items()
        for match in re.finditer(phrase, flat, re.IGNORECASE)
    ]


def test_spelling_is_american(texts: dict[str, str]):
    dictionary = british_words()
    found = [
        f"{name}: {word}"
        for name, text in texts.items()
        for word in british(text, without(dictionary, OLD_NAMES.get(name, set())))
    ]
    assert not found, "\n".join(found)


def test_no_phrase_is_banned(texts: dict[str, str]):
    found = [f"{name}: {phrase}" for name, text in texts.items() for phrase in banned(text)]
    assert not found, "\n".join(found)


def test_the_texts_are_those_of_the_whole_repository(texts: dict[str, str]):
    for part in ("tutorial_lib/schedules.py", "tests/conftest.py", "README.md", "pyproject.toml"):
        assert part in texts
    assert any(name.endswith(".js") for name in texts)
    lessons = {name for name in texts if name.startswith("notebooks/")}
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / LESSONS).glob("*.py")}
    assert lessons == {name for name in sources if is_converted(name)}


@pytest.mark.parametrize(
    "text",
    [
        "the colour of",
        "test_grey_discs",
        "centreX",
        "NEIGHBOURS",
        "Initialise",
        'f"{x}honours"',
    ],
)
def test_british_spelling_is_found_in_prose_and_names(text: str):
    assert british(text, british_words())


@pytest.mark.parametrize(
    "text",
    [
        "Randomness is handed in.",
        "the run goes on\n    with the next step",
        "# it is handed\n# in by the caller",
        "a device that this machine has not.",
        "an answer that has not the shape",
        "count is no int",
        "# neighboring pixels hang\n# together",
        "A power cut is survived.",
        "From lesson 3 you need the loss.",
    ],
)
def test_banned_phrases_are_found(text: str):
    assert banned(text)


@pytest.mark.parametrize(
    "text", ["it has not been trained", "color, gray, center", "the program has not started yet"]
)
def test_plain_english_passes(text: str):
    assert not banned(text)
    assert not british(text, british_words())
