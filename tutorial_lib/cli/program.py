"""The command line: ``python -m tutorial_lib train | sample | doctor | progress``.

A mistake is answered by one line on stderr, ``error: ...``, that names the culprit. Exit code 2
means that the command was not understood, 1 that it could not be carried out. ``TUTORIAL_DEBUG=1``
in the environment shows where an error came from.
"""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tutorial_lib import hardware
from tutorial_lib._extras import Extra
from tutorial_lib._packages import brought_by
from tutorial_lib._validate import UserError
from tutorial_lib.cli.copies import warn_of_copies
from tutorial_lib.cli.doctor import DoctorConfig, doctor
from tutorial_lib.cli.output import careful_output, say
from tutorial_lib.cli.sample import SampleConfig, sample
from tutorial_lib.cli.words import parse
from tutorial_lib.hardware import parallel
from tutorial_lib.training import TrainConfig, TrainingError, asked_for, train
from tutorial_lib.training.interrupts import Interrupted
from tutorial_lib.training.run_folder import RunFolder

EXPECTED = (UserError, torch.OutOfMemoryError)
"""Errors whose message is for the user; any other is a bug and shows its traceback."""


@dataclass(frozen=True)
class ProgressConfig:
    """Run the notebooks and say which exercises pass."""

    notebooks: tuple[Path, ...] = field(default=(Path("notebooks"),), metadata={"positional": True})
    """Notebooks, or folders of them."""
    json: Path | None = None
    """A file for the results as JSON."""
    junit: Path | None = None
    """A file for the results as JUnit XML, which CI systems show."""
    require_all: bool = False
    """Whether an exercise that was not attempted counts as a failure, and so does a lesson whose
    notebook a folder lacks."""
    seed: int | None = None
    """Seed of the cases that answers are judged on, to repeat a grading; None draws one."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        argv: the words after the program's name; None takes those of this process.
    """
    with careful_output():
        return _main(sys.argv[1:] if argv is None else argv)


def _main(argv: Sequence[str]) -> int:
    try:
        configs = {name: config for name, (config, _) in COMMANDS.items()}
        asked = parse(argv, configs, _run_to_resume)
    except UserError as error:
        return _fail(error, code=2)
    if asked is None:  # --help was answered
        return 0
    command, config = asked
    hardware.keep_freed_memory()  # steps on a CPU get faster; a program may, a library must not
    try:
        with _warnings_in_one_line():
            _, run = COMMANDS[command]
            return run(config)
    except Interrupted as stop:
        if parallel.is_first():
            say(str(stop))
        return 128 + stop.signal
    except KeyboardInterrupt:
        say("error: interrupted")
        return 130
    except EXPECTED as error:
        return _fail(error, code=1)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        return _fail(error, code=1)


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of this machine is full: torch has no exception of its own for that."""
    return isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)


def _run_to_resume(command: str, given: Mapping[str, Any]) -> TrainConfig | None:
    """The config of the run that ``train --resume --out OUT`` resumes; None if it asks for none.

    Raises:
        ValueError, TypeError: its config.json cannot be read.
    """
    if command == "train" and given.get("resume") and "out" in given:
        out = given["out"]
        if out is not None and os.path.exists(RunFolder(out).config):  # False if it cannot be
            return asked_for(out)
    return None


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
    Extra("the test for copies").do(lambda: warn_of_copies(run))
    return 0


def _progress(config: ProgressConfig) -> int:
    with brought_by("notebook", to="run notebooks"):
        from tutorial_lib.cli.progress import progress  # brings Jupyter: only where needed

    return progress(
        config.notebooks,
        json=config.json,
        junit=config.junit,
        require_all=config.require_all,
        seed=config.seed,
    )


def _fail(error: BaseException, *, code: int) -> int:
    """Says what is wrong in one line and returns the exit code."""
    if os.environ.get("TUTORIAL_DEBUG"):
        raise error
    message = ". ".join([str(error), *getattr(error, "__notes__", ())])
    message = " ".join(message.split())
    if _is_out_of_memory(error):
        message = f"the memory of this machine is full: {message}"
    say(f"error: {message}")
    return code


COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "train": (TrainConfig, _train),
    "sample": (SampleConfig, sample),
    "doctor": (DoctorConfig, doctor),
    "progress": (ProgressConfig, _progress),
}
