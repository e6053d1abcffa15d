"""The words of a command line, read into a config."""

import contextlib
import io
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tyro

from tutorial_lib import _validate
from tutorial_lib.training import TrainConfig, asked_for

DESCRIPTION = "Train a denoiser, draw images with it, look at this machine, run the exercises."


class UsageError(ValueError):
    """A command line that cannot be meant."""


def parse(argv: list[str], commands: Mapping[str, type]) -> Any:
    """The config that the words ask for; None where they asked for help.

    Raises:
        UsageError: they ask for nothing that there is.
    """
    if argv and not argv[0].startswith("-"):
        try:
            _validate.one_of("command", argv[0], commands)
        except ValueError as error:
            raise UsageError(error) from error
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            return _ask_tyro(argv, commands)
    except SystemExit as end:
        if not end.code:
            return None
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown), contextlib.suppress(SystemExit), _wide_terminal():
        _ask_tyro(argv, commands)  # again, in a frame so wide that it breaks no path in two
    raise UsageError(_box_in_words(shown.getvalue()))


def _ask_tyro(argv: list[str], commands: Mapping[str, type]) -> Any:
    before = _run_to_resume(argv)
    if before is not None:
        prog = "python -m tutorial_lib train"
        return tyro.cli(TrainConfig, default=before, prog=prog, args=argv[1:])
    return tyro.extras.subcommand_cli_from_dict(
        dict(commands), prog="python -m tutorial_lib", description=DESCRIPTION, args=argv
    )


def _run_to_resume(argv: list[str]) -> TrainConfig | None:
    """What a run to go on with was asked for: fields that the words leave out stay as they were.

    None where the words are about no such run.

    Raises:
        UsageError: its config.json cannot be read.
    """
    if argv[:1] != ["train"] or "--resume" not in argv:
        return None
    # the last one counts, as it does for tyro
    joined = [word.removeprefix("--out=") for word in argv if word.startswith("--out=")]
    apart = [value for word, value in itertools.pairwise(argv) if word == "--out"]
    for out in [*joined, *apart][-1:]:
        if (Path(out) / "config.json").exists():
            try:
                return asked_for(out)
            except (ValueError, TypeError) as error:
                raise UsageError(error) from error
    return None


@contextlib.contextmanager
def _wide_terminal() -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


def _box_in_words(box: str) -> str:
    """The message in a framed error of tyro, as one line.

    The frame is drawn with lines where the output can show them; else a title comes first, and
    rulers of dashes.
    """
    lines = [line.strip(" │") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    parts = re.split("[─-]{8,}", " ".join(lines))
    message = parts[0 if "╭" in box else 1].strip()
    message = re.sub(r"^Error parsing \w*Config: ", "", message).partition(" Got errors:")[0]
    near = re.search(r"Perhaps you meant:\s+(--[\w-]+)", " ".join(lines))
    return f"{message}; did you mean {near[1]}?" if near else message
