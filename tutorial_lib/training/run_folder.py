"""The run folder: where everything that a training run leaves is found.

This is the only place that knows these names (those of checkpoints are in ``checkpoints``):

    config.json      what was asked for
    metrics.jsonl    a line every ``log_every`` steps: step, loss, lr, seconds, images a second
    step-NNNNNNNN.safetensors, .json    checkpoints of the averaged weights, the last at the end
    state/           all that is needed to resume, see ``state``: the newest, and the one before
    samples/         grids of samples, where ``sample_every`` asks for them
    tensorboard/     event files, where ``tensorboard`` asks for them
"""

import contextlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutorial_lib import _files
from tutorial_lib._validate import InvalidValueError
from tutorial_lib.checkpoints import checkpoints_in, step_name, step_of
from tutorial_lib.training.config import TrainConfig


@dataclass(frozen=True)
class RunFolder:
    """The places in the folder ``path`` of a run, and what can be read there."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def states(self) -> Path:
        return self.path / "state"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    def checkpoint(self, step: int) -> Path:
        """The checkpoint after ``step`` steps, without a suffix."""
        return self.path / step_name(step)

    def checkpoints(self) -> list[Path]:
        """The weights files of the checkpoints, oldest first."""
        return checkpoints_in(self.path)

    def state(self, step: int) -> Path:
        """The file of the state after ``step`` steps."""
        return self.states / f"{step_name(step)}.safetensors"

    def state_files(self) -> list[Path]:
        """The files of the states, oldest first."""
        found = self.states.glob("step-*.safetensors")
        return sorted(path for path in found if re.fullmatch(r"step-\d+", path.stem))

    def grid(self, step: int) -> Path:
        """The picture of the samples after ``step`` steps."""
        return self.samples / f"{step_name(step)}.png"

    def newest_grid(self) -> tuple[int, Path] | None:
        """The step and the file of the newest picture of samples; None where there is none."""
        pictures = sorted(self.samples.glob("step-*.png"))
        return (step_of(pictures[-1]), pictures[-1]) if pictures else None

    def asked_steps(self) -> int | None:
        """How many steps config.json asks for; None where it names none or is not there yet."""
        return json.loads(self.config.read_bytes()).get("steps") if self.config.exists() else None

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line that is still being written is left out.

        Raises:
            OSError, ValueError: the file is there, but cannot be read or is damaged.
        """
        text = self.metrics.read_text(encoding="utf-8") if self.metrics.exists() else ""
        whole = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [json.loads(line) for line in whole]

    def write_config(self, config: TrainConfig) -> None:
        """Writes ``config`` into config.json, unless it is there already.

        Raises:
            OSError: it cannot be written.
        """
        content = json.dumps(config.as_dict(), indent=2).encode() + b"\n"
        if not self.config.exists() or self.config.read_bytes() != content:
            _files.write_whole(self.config, content)


def open_run_folder(config: TrainConfig) -> RunFolder:
    """Creates the folder of the run and writes config.json into it.

    Where a run is resumed, config.json stays as it is until the state is seen to fit.

    Raises:
        ValueError: it is not empty although no run is to be resumed there, or cannot be created or
            written.
    """
    folder = RunFolder(config.out or _free_folder(config.dataset))
    there_before = folder.path.exists()
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        if config.resume and folder.config.exists():
            return folder
        # what a run leaves that was cut off before it had begun
        cut_off = _files.leftovers(folder.config) if config.resume else []
        if {path.name for path in folder.path.iterdir()} - {path.name for path in cut_off}:
            raise InvalidValueError(f"out must be a new or an empty folder, got {folder.path}")
        folder.write_config(config)
    except OSError as error:
        if not there_before:
            with contextlib.suppress(OSError):  # it may not exist even now
                folder.path.rmdir()
        raise cannot_write(folder, error) from error
    return folder


def cannot_write(folder: RunFolder, error: OSError) -> InvalidValueError:
    """What to raise where the folder that ``out`` names cannot be written."""
    return InvalidValueError(f"out cannot be written: {folder.path}: {error.strerror}")


def asked_for(run: Path | str | os.PathLike[str]) -> TrainConfig:
    """The config of the run in the folder ``run``, set to resume it there.

    Raises:
        ValueError, TypeError: there is none, or an invalid one.
    """
    path = RunFolder(Path(run)).config
    try:
        fields = json.loads(path.read_bytes())
    except OSError as error:
        message = f"run must be the folder of a run: {path}: {error.strerror}"
        raise InvalidValueError(message) from error
    except ValueError as error:
        raise InvalidValueError(f"{path} is damaged: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidValueError(f"{path} is damaged: it holds no fields")
    return TrainConfig.from_dict({**fields, "out": str(run), "resume": True})


def _free_folder(dataset: str) -> Path:
    """The first of runs/NAME-1, runs/NAME-2, ... that does not exist."""
    name = Path(dataset.removeprefix("folder:")).resolve().name
    number = 1
    while (folder := Path("runs") / f"{name}-{number}").exists():
        number += 1
    return folder
