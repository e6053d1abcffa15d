"""The run folder: where everything that a training run leaves is found.

This is the only place that knows these names (those of checkpoints are in ``checkpoints``):

    config.json      what was asked for
    metrics.jsonl    a line every ``log_every`` steps: step, loss, lr, seconds, images a second
    step-NNNNNNNN.safetensors, .json    checkpoints of the averaged weights, the last at the end
    state/           all that is needed to resume, see ``state``: the newest, and the one before
    samples/         grids of samples, where ``sample_every`` asks for them
    tensorboard/     event files, where ``tensorboard`` asks for them
    .lock, .writer   while a process trains here: what keeps others away, and which process it is
"""

import contextlib
import itertools
import json
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

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

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @property
    def writer(self) -> Path:
        return self.path / ".writer"

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


def check_folder(out: Path) -> None:
    """Raises ValueError where the folder of a run cannot be made or written in."""
    try:
        _files.check_output_folder("out", out)
    except OSError as error:
        raise InvalidValueError(str(error)) from error


@contextlib.contextmanager
def open_run_folder(config: TrainConfig) -> Iterator[RunFolder]:
    """Creates the folder of the run and writes config.json into it; keeps others out meanwhile.

    Where a run is resumed, config.json stays as it is until the state is seen to fit. The lock is
    gone as soon as the process is, however that ends, also where a network disk knows locks.

    Raises:
        ValueError: it is not empty although no run is to be resumed there, another process trains
            there, or it cannot be created or written.
    """
    is_new = config.out is None or not config.out.exists()
    folder = RunFolder(_made(config))
    with contextlib.ExitStack() as lock:
        try:
            _check_free(folder, config)
            lock.enter_context(_only_writer(folder))
            _check_free(folder, config)  # another run may have begun, and ended, since
            if not (config.resume and folder.config.exists()):
                folder.write_config(config)
        except (OSError, InvalidValueError) as error:
            lock.close()
            if is_new:
                with contextlib.suppress(OSError):  # something may be in it by now
                    folder.path.rmdir()
            if isinstance(error, OSError):
                raise cannot_write(folder, error) from error
            raise
        yield folder


def _made(config: TrainConfig) -> Path:
    """The folder of the run: ``out``, or the first of runs/NAME-1, runs/NAME-2, ... that is new."""
    if config.out is not None:
        try:
            config.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(RunFolder(config.out), error) from error
        return config.out
    name = Path(config.dataset.removeprefix("folder:")).resolve().name
    for number in itertools.count(1):
        path = Path("runs") / f"{name}-{number}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise cannot_write(RunFolder(path), error) from error
        return path
    raise AssertionError("unreachable")


def _check_free(folder: RunFolder, config: TrainConfig) -> None:
    """Raises ValueError where a new run is to begin in a folder that is not empty."""
    if config.resume and folder.config.exists():
        return
    # what a run leaves that was cut off before it had begun
    cut_off = {folder.lock, folder.writer}
    if config.resume:
        cut_off.update(_files.leftovers(folder.config))
    if {path.name for path in folder.path.iterdir()} - {path.name for path in cut_off}:
        raise InvalidValueError(f"out must be a new or an empty folder, got {folder.path}")


@contextlib.contextmanager
def _only_writer(folder: RunFolder) -> Iterator[None]:
    """Holds the lock of the folder.

    Raises:
        ValueError: another process holds it.
        OSError: the folder cannot be written.
    """
    lock = FileLock(folder.lock, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        who = _writer_in(folder)
        raise InvalidValueError(
            f"out must not be in use: {who} trains in {folder.path} now"
        ) from None
    try:
        since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        words = {"process": os.getpid(), "host": socket.gethostname(), "since": since}
        folder.writer.write_text(json.dumps(words), encoding="utf-8")
        yield
    finally:
        for path in (folder.writer, folder.lock):  # the lock is still held: nobody has it open
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        lock.release()


def _writer_in(folder: RunFolder) -> str:
    """Who trains in the folder, as far as that is known."""
    try:
        words = json.loads(folder.writer.read_bytes())
        return f"process {words['process']} on {words['host']}, since {words['since']},"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # just begun, or damaged
        return "another process"


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
    except (ValueError, RecursionError) as error:
        raise InvalidValueError(f"{path} is damaged: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidValueError(f"{path} is damaged: it holds no fields")
    return TrainConfig.from_dict({**fields, "out": str(run), "resume": True})
