"""The command line: ``python -m tutorial_lib train | sample | doctor | progress``.

A mistake is answered by one line on stderr, ``error: ...``, that names the culprit. Exit code 2
means that the command was not understood, 1 that it could not be carried out. ``TUTORIAL_DEBUG=1``
in the environment shows where an error came from.
"""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from tutorial_lib.cli.doctor import DoctorConfig, doctor
from tutorial_lib.cli.sample import SampleConfig, sample
from tutorial_lib.cli.words import UsageError, parse
from tutorial_lib.hardware import parallel
from tutorial_lib.hardware.parallel import ParallelError
from tutorial_lib.training import TrainConfig, TrainingError, train
from tutorial_lib.training.interrupts import Interrupted

EXPECTED = (
    *(ValueError, TypeError, OSError),
    *(TrainingError, ParallelError, torch.OutOfMemoryError),
)
"""Errors whose message is for the user; any other is a bug and shows its traceback."""


@dataclass(frozen=True)
class ProgressConfig:
    """Run the notebooks and say which exercises pass."""

    notebooks: tyro.conf.Positional[tuple[Path, ...]] = (Path("notebooks"),)
    """Notebooks, or folders of them."""
    json: Path | None = None
    """A file for the results as JSON."""
    junit: Path | None = None
    """A file for the results as JUnit XML, which CI systems show."""
    require_all: bool = False
    """Whether an exercise that nobody tried counts as a failure."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        argv: the words after the program's name; None takes those of this process.
    """
    try:
        configs = {name: config for name, (config, _) in COMMANDS.items()}
        config = parse(sys.argv[1:] if argv is None else list(argv), configs)
    except UsageError as error:
        return _fail(error, code=2)
    if config is None:  # --help was asked for and answered
        return 0
    try:
        with _warnings_in_one_line():
            return next(run for kind, run in COMMANDS.values() if isinstance(config, kind))(config)
    except Interrupted as stop:
        if parallel.is_first():
            print(stop, file=sys.stderr)
        return 128 + stop.signal
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    except EXPECTED as error:
        return _fail(error, code=1)


@contextlib.contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Warnings without the file and the line of code that they come from."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def _train(config: TrainConfig) -> int:
    try:
        run = train(config)
    except torch.OutOfMemoryError as error:
        advice = f"try --accumulate {2 * config.accumulate}, or a smaller --batch-size"
        raise TrainingError(f"the memory of the GPU is full; {advice}") from error
    if not parallel.is_first():
        return 0
    rate = len(run.losses) * config.batch_size / run.seconds
    recent = run.losses[-100:]
    print(f"{len(run.losses)} steps in {run.seconds:.1f} s, {rate:.0f} images/s")
    print(f"loss {sum(recent) / len(recent):.4f} (mean of the last {len(recent)} steps)")
    print(f"checkpoint: {run.checkpoint}")
    return 0


def _progress(config: ProgressConfig) -> int:
    from tutorial_lib.cli.progress import progress  # brings Jupyter with it: only where needed

    return progress(
        config.notebooks, json=config.json, junit=config.junit, require_all=config.require_all
    )


def _fail(error: BaseException, *, code: int) -> int:
    """Says what is wrong in one line and returns the exit code."""
    if os.environ.get("TUTORIAL_DEBUG"):
        raise error
    message = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        message = f"{error.filename}: {error.strerror}"
    print("error:", " ".join(message.split()), file=sys.stderr)
    return code


COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "train": (TrainConfig, _train),
    "sample": (SampleConfig, sample),
    "doctor": (DoctorConfig, doctor),
    "progress": (ProgressConfig, _progress),
}
