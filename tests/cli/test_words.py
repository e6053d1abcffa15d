"""From words to a config: types, repeats, help, and what is not understood."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tutorial_lib.cli.words import UsageError, parse

pytestmark = pytest.mark.plain_errors


@dataclass(frozen=True)
class Base:
    """What both share."""

    seed: int = 0
    """Seed of 100 % of the
    noise; signal-to-noise matters."""


@dataclass(frozen=True)
class Config(Base):
    """Do something."""

    place: str = field(default="here", metadata={"positional": True})
    """Where."""
    rate: float = 0.5
    """A share."""
    name: str | None = None
    """A name."""
    kind: str = field(default="a", metadata={"one_of": {"a": 1, "b": 2}})
    """Which kind."""
    out: Path | None = None
    """A file."""
    widths: tuple[int, ...] = (32, 64)
    """Channels."""
    show_all: bool = False
    """Whether to show all."""
    progress: bool = True
    """Whether to show a bar."""


@dataclass(frozen=True)
class Many:
    """Read files."""

    files: tuple[Path, ...] = field(default=(Path("."),), metadata={"positional": True})
    """Files."""
    json: Path | None = None
    """A file."""


COMMANDS = {"do": Config, "read": Many}


def asked(words: str) -> object:
    parsed = parse(words.split(), COMMANDS)
    assert parsed is not None
    return parsed[1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("do", Config()),
        ("do there", Config(place="there")),
        ("do --seed 3 there", Config(seed=3, place="there")),
        ("do there --seed=3", Config(seed=3, place="there")),
        ("do --seed -3", Config(seed=-3)),
        ("do --rate 1e-3 --name x", Config(rate=1e-3, name="x")),
        ("do --name None --out None", Config()),
        ("do --name=--odd", Config(name="--odd")),
        ("do --kind b", Config(kind="b")),
        ("do --out a/b --widths 8", Config(out=Path("a/b"), widths=(8,))),
        ("do --widths 8 16 24 --seed 1", Config(widths=(8, 16, 24), seed=1)),
        ("do --show-all --no-progress", Config(show_all=True, progress=False)),
        ("read", Many()),
        ("read a b", Many(files=(Path("a"), Path("b")))),
        ("read a --json x b", Many(files=(Path("a"), Path("b")), json=Path("x"))),
    ],
)
def test_words_become_fields(words: str, expected: object) -> None:
    assert asked(words) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "^expected a command, one of do, read$"),
        ("--seed 3", "^command must be one of do, read; got '--seed'"),
        ("raed", "^command must be one of .* did you mean 'read'"),
        ("do --seed x", "^--seed must be an int, got 'x'$"),
        ("do --seed 1.5", "^--seed must be an int, got '1.5'$"),
        ("do --seed None", "^--seed must be an int, got 'None'$"),
        ("do --rate much", "^--rate must be a number, got 'much'$"),
        ("do --widths 8 x", "^--widths must be an int, got 'x'$"),
        ("do --widths", "--widths: expected at least one argument"),
        ("do --seed", "--seed: expected one argument"),
        ("do --sed 3", "^not understood: --sed; did you mean --seed\\?$"),
        ("do --show_all", "^not understood: --show_all; did you mean --show-all\\?$"),
        ("do --se 3", "^not understood: --se.*"),
        ("do a b", "^not understood: b$"),
        ("do --progress=maybe", "--progress.*maybe"),
        ("do --seed 1 there --seed=1", "^--seed must be given once, got it twice$"),
        ("do --widths 8 --rate 1 --widths 8", "^--widths must be given once, got it twice$"),
        ("do --no-progress --progress", "^--progress must be given once, got it twice$"),
        ("do --progress --progress", "^--progress must be given once, got it twice$"),
        ("read --json a b --json a", "^--json must be given once, got it twice$"),
        ("do --out=--", "^--out must have a value, got '--'$"),
        (f"do --seed {'9' * 5000}", "^--seed must be an int, got '9{60}' and 4940 more$"),
    ],
)
def test_what_is_not_understood_is_named(words: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse(words.split(), COMMANDS)
    assert "\n" not in str(caught.value)


def test_fields_left_out_come_from_the_config_before() -> None:
    seen = []

    def before(command: str, given: object) -> Config:
        seen.append((command, given))
        return Config(seed=7, rate=0.25, widths=(1,))

    parsed = parse(["do", "--rate=1", "--out=a"], COMMANDS, before)
    assert parsed == ("do", Config(seed=7, rate=1.0, widths=(1,), out=Path("a")))
    assert seen == [("do", {"rate": 1.0, "out": Path("a")})]


@pytest.mark.parametrize("words", ["-h", "--help", "do --help", "do --seed 3 -h", "read -h"])
def test_help_is_answered_and_nothing_else(
    words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert parse(words.split(), COMMANDS) is None
    said = capsys.readouterr()
    assert said.err == ""
    assert max(map(len, said.out.splitlines())) <= 60
    text = " ".join(said.out.split())
    if not words.startswith("do"):
        assert "Read files." in text
        return
    assert "Do something." in text
    assert "Seed of 100 % of the noise; signal-to-noise matters. (default: 0)" in text
    assert "--name TEXT A name. (default: None)" in text
    assert "Which kind. One of a, b. (default: a)" in text
    assert "--widths INT [INT ...] Channels. (default: 32 64)" in text
    assert "--show-all, --no-show-all" in text
    assert "PLACE Where. (default: here)" in text


def test_reading_words_changes_nothing_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    before = dict(os.environ)
    with pytest.raises(UsageError):
        parse(["do", "--sed", "3"], COMMANDS)
    assert dict(os.environ) == before
