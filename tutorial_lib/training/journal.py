"""The losses of a run: read from the device, checked, shown, timed and written to a file."""

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tutorial_lib import _extras, _files
from tutorial_lib._validate import InvalidValueError, UserError
from tutorial_lib.hardware.parallel import ONE_PROCESS, Ranks
from tutorial_lib.training.run_folder import RunFolder


class TrainingError(UserError, RuntimeError):
    """A run that cannot continue; the message names the step and what to try."""


@dataclass
class Position:
    """How far the lines of the metrics have come: what a resumed journal needs besides losses.

    Attributes:
        logged: the steps that the lines so far cover.
        logged_seconds: the time of the last line, in seconds of training.
        smoothed: the running average of the loss, for the progress bar.
        lr: the learning rate of the last step that was read.
        unwritten: lines that could not be written yet, oldest first.
    """

    logged: int = 0
    logged_seconds: float = 0.0
    smoothed: float = 0.0
    lr: float = 0.0
    unwritten: list[str] = field(default_factory=list)


class Journal:
    """The losses of a run: lines of ``metrics.jsonl`` and a progress bar.

    Args:
        folder: of the run.
        batch_size: images in a step.
        log_every: steps between lines.
        steps: length of the run, for the time left; None where it is not known.
        progress: whether to show the bar.
        tensorboard: whether to write event files for TensorBoard too.
        ranks: of the run; only the first writes and shows.
        clock: the time in seconds, from any start.

    Raises:
        ValueError: ``tensorboard`` where it is not installed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        batch_size: int,
        log_every: int,
        steps: int | None,
        progress: bool = True,
        tensorboard: bool = False,
        ranks: Ranks = ONE_PROCESS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        places = RunFolder(folder)
        self.path = places.metrics
        self.batch_size, self.log_every, self.ranks = batch_size, log_every, ranks
        self.losses: list[float] = []
        self._total = None if steps is None else steps * batch_size
        self._progress = progress and ranks.writes
        self._board_folder = places.tensorboard if tensorboard and ranks.writes else None
        self._board: Any = None
        self._board_extra = _extras.Extra("TensorBoard")
        self._warned = False
        self._waiting: list[tuple[Tensor, float]] = []
        self._position, self._earlier_seconds = Position(), 0.0
        self._clock = clock

    def facts(self) -> dict[str, Any]:
        """What ``resume`` needs besides the losses, as JSON can hold it."""
        return dataclasses.asdict(self._position)

    def resume(self, losses: list[float], facts: Mapping[str, Any], seconds: float) -> None:
        """Continues after the steps whose losses are given; lines written later are removed.

        Args:
            losses: of the steps so far.
            facts: what ``facts`` returned then.
            seconds: of training so far.

        Raises:
            TrainingError: the metrics cannot be written.
        """
        self.losses, self._earlier_seconds = losses, seconds
        self._position = Position(**facts)
        if not self.ranks.writes:
            return
        try:
            before = self.path.read_bytes() if self.path.exists() else b""
            late = [line.encode().rstrip() for line in self._position.unwritten]
            lines = {_step_in(line): line for line in (*late, *before.split(b"\n"))}
            kept = [line for step, line in sorted(lines.items()) if step <= self._position.logged]
            _files.write_whole(self.path, b"".join(line + b"\n" for line in kept))
            self._position.unwritten.clear()
        except OSError as error:
            raise TrainingError(f"cannot write {self.path}: {error.strerror}") from error

    def __enter__(self) -> "Journal":
        self._board_extra.do(self._open_board)
        self._bar = _extras.ProgressBar(
            shown=self._progress,
            total=self._total,
            initial=len(self.losses) * self.batch_size,
            unit=" images",
            unit_scale=True,
        )
        self._start = self._clock()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
        if self._board is not None:
            self._board_extra.do(self._board.close)

    def _open_board(self) -> None:
        if self._board_folder is not None:
            from torch.utils.tensorboard import SummaryWriter  # only where it is asked for

            begins = len(self.losses) + 1
            self._board = SummaryWriter(str(self._board_folder), purge_step=begins)

    def seconds(self) -> float:
        """Seconds of training so far. An accelerator may lag behind, up to the last ``read``."""
        return self._earlier_seconds + self._clock() - self._start

    @property
    def unread(self) -> int:
        """How many losses are still on the device."""
        return len(self._waiting)

    def note(self, loss: Tensor, lr: float) -> None:
        """Takes the loss of one step without reading its value."""
        self._waiting.append((loss, lr))

    def read(self) -> float:
        """Reads the losses noted since the last call; returns the seconds when they had arrived.

        Raises:
            TrainingError: one is not finite.
        """
        if not self._waiting:
            return self.seconds()
        waiting = self.ranks.mean(torch.stack([loss for loss, _ in self._waiting]))
        values = waiting.tolist()  # waits for the device
        seconds = self.seconds()
        for value, (_, lr) in zip(values, self._waiting, strict=True):
            if not math.isfinite(value):
                step = len(self.losses) + 1
                advice = "try a smaller lr, a longer warmup or precision fp32"
                raise TrainingError(f"the loss is {value} at step {step}; {advice}")
            self.losses.append(value)
            self._position.lr = lr
            self._position.smoothed += (value - self._position.smoothed) * max(
                0.02, 1 / len(self.losses)
            )
            if len(self.losses) % self.log_every == 0:
                self._write(seconds)
        self._bar.update(len(values) * self.batch_size, f"loss {self._position.smoothed:.4f}")
        self._waiting.clear()
        return seconds

    def finish(self) -> float:
        """Reads what is left and writes the last line, even before it is due; see ``read``."""
        seconds = self.read()
        if len(self.losses) > self._position.logged:
            self._write(seconds)
        elif self._position.unwritten:
            self._write_lines()
        return seconds

    def show_picture(self, name: str, pixels: np.ndarray) -> None:
        """Passes a picture, uint8 (H, W, 1 or 3), to TensorBoard where that is in use."""
        if self._board is not None:
            add = partial(self._board.add_image, name, pixels, len(self.losses), dataformats="HWC")
            self._board_extra.do(add)

    def _write(self, seconds: float) -> None:
        """Adds a line to the metrics: the mean loss since the line before."""
        recent = self.losses[self._position.logged :]
        passed = max(seconds - self._position.logged_seconds, 1e-9)
        line = {
            "step": len(self.losses),
            "loss": sum(recent) / len(recent),
            "lr": self._position.lr,
            "seconds": round(seconds, 3),
            "images_per_second": round(len(recent) * self.batch_size / passed, 1),
        }
        self._position.logged, self._position.logged_seconds = len(self.losses), seconds
        if not self.ranks.writes:
            return
        self._position.unwritten.append(json.dumps(line) + "\n")
        self._write_lines()
        if self._board is not None:
            for name in ("loss", "lr", "images_per_second"):
                self._board_extra.do(
                    partial(self._board.add_scalar, name, line[name], line["step"])
                )

    def _write_lines(self) -> None:
        """Writes the lines that are waiting; where that fails, they wait for the next one."""
        try:
            _append(self.path, "".join(self._position.unwritten).encode())
        except OSError as error:
            if not self._warned:
                why = f"cannot write {self.path}: {_extras.reason(error)}"
                _extras.warn(f"{why}; the lines are kept, to be written later")
            self._warned = True
        else:
            self._position.unwritten.clear()
            self._warned = False


def _append(path: Path, content: bytes) -> None:
    """Adds ``content`` to the end of a file, all of it or nothing.

    Raises:
        OSError: it cannot be written.
    """
    with open(path, "ab", buffering=0) as file:
        end = file.tell()
        try:
            _files.write_fully(file, content)
        except OSError:
            with contextlib.suppress(OSError):  # a part of a line is found when the run resumes
                file.truncate(end)
            raise


def check_tensorboard() -> None:
    """Raises ValueError where TensorBoard is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        advice = "pip install tensorboard, or leave out the option"
        raise InvalidValueError(f"tensorboard is not installed: {advice}") from error


def _step_in(line: bytes) -> float:
    """The step that a line of the metrics is about; infinite for a line that is damaged."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return math.inf
