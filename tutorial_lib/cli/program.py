"""The command line: ``python -m tutorial_lib train | sample | doctor | progress``.

A mistake is answered by one line on stderr, ``error: ...``, that names the culprit. Exit code 2
means that the command was not understood, 1 that it could not be carried out. ``TUTORIAL_DEBUG=1``
in the environment shows where an error came from.
"""

import contextlib
import io
import itertools
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import tyro

from tutorial_lib import _files, _validate, datasets, hardware, sampling
from tutorial_lib.checkpoints import load_checkpoint, shipped, versions
from tutorial_lib.course import LESSONS
from tutorial_lib.hardware import parallel
from tutorial_lib.hardware.parallel import ParallelError
from tutorial_lib.images import png_bytes
from tutorial_lib.sampling import Recipe
from tutorial_lib.training import (
    TrainConfig,
    Trainer,
    TrainingError,
    asked_for,
    new_network,
    train,
)
from tutorial_lib.training.interrupts import Interrupted

LARGEST_GRID = 4096
"""Images of one PNG, unless asked for by name; more go to shards."""
EXPECTED = (
    *(ValueError, TypeError, OSError),
    *(TrainingError, ParallelError, torch.OutOfMemoryError),
)
"""Errors whose message is for the user; any other is a bug and shows its traceback."""


@dataclass(frozen=True)
class SampleConfig(Recipe):
    """Draw images with a trained denoiser: one PNG grid, or any number of them in shards."""

    checkpoint: tyro.conf.Positional[str] = "mnist"
    """A checkpoint file, a run folder, or the name of a checkpoint that comes with the course."""
    count: int = 64
    """How many images to draw (images)."""
    device: str = "auto"
    """Where to draw: auto, cpu, cuda or mps."""
    out: Path | None = None
    """The PNG file to write, instead of shards; None means samples.png."""
    columns: int | None = None
    """Images in a row of the PNG (images); None makes the grid square."""
    enlarge: int = 1
    """Each pixel of the PNG becomes a square with sides of so many (pixels)."""
    tensors: Path | None = None
    """A .safetensors file for the images as numbers: float32 (N, C, H, W) in [-1, 1]."""
    shards: Path | None = None
    """A folder for the images as uint8 numbers, a file a thousand, in place of the PNG. The same
    command goes on where it was ended. None means samples/ for more than 4,096 images where
    neither out nor tensors is given."""
    progress: bool = True
    """Whether to show a progress bar while drawing into shards."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("count", "enlarge"):
            _validate.whole_number(name, getattr(self, name), at_least=1)
        if self.columns is not None:
            _validate.whole_number("columns", self.columns, at_least=1)
        if self.out is not None and self.out.suffix.lower() != ".png":
            raise ValueError(f"out must end in .png, got {self.out}")
        if self.tensors is not None and self.tensors.suffix != ".safetensors":
            raise ValueError(f"tensors must end in .safetensors, got {self.tensors}")
        if self.tensors is not None and self.shards is not None:
            raise ValueError("tensors and shards must not both be given: shards hold numbers too")
        if self.out is not None and self.shards is not None:
            raise ValueError("out and shards must not both be given: shards are no PNG")
        if self.folder is not None and (self.columns is not None or self.enlarge > 1):
            name = "columns" if self.columns is not None else "enlarge"
            instead = f"{self.count} images go to shards in {self.folder}"
            raise ValueError(f"{name} needs a PNG, but {instead}; give out for a PNG")

    @property
    def folder(self) -> Path | None:
        """The folder of the shards; None where a picture is asked for."""
        picture = self.out is not None or self.tensors is not None
        if self.shards is None and not picture and self.count > LARGEST_GRID:
            return Path("samples")
        return self.shards


@dataclass(frozen=True)
class DoctorConfig:
    """Say what this machine will use, what data is there, and how long the lessons take here."""

    root: Path | None = None
    """Folder of downloaded data sets; None means TUTORIAL_DATA, else data/."""
    seconds: float = 3.0
    """How long to measure training, and again sampling (seconds)."""

    def __post_init__(self) -> None:
        _validate.number("seconds", self.seconds, low=0.1, high=600.0)


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
        config = _parse(sys.argv[1:] if argv is None else list(argv))
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


class UsageError(ValueError):
    """A command line that cannot be meant."""


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


def _sample(config: SampleConfig) -> int:
    if config.folder is not None:
        return _sample_shards(config, config.folder)
    if parallel.launched()[1] > 1:
        raise ValueError("shards must name a folder where several processes draw")
    out = config.out or Path("samples.png")
    for path in (out, config.tensors):
        if path is not None:
            _check_place(path)
    checkpoint = load_checkpoint(config.checkpoint, device=hardware.pick_device(config.device))
    start = time.perf_counter()
    parts = [
        range(config.count)[i : i + config.batch] for i in range(0, config.count, config.batch)
    ]
    images = torch.cat([sampling.draw(checkpoint, config, part) for part in parts])
    seconds = time.perf_counter() - start
    contents = {out: png_bytes(images, config.columns, enlarge=config.enlarge)}
    if config.tensors is not None:
        contents[config.tensors] = safetensors.torch.save({"images": images.contiguous()})
    try:
        _files.write_all(contents)
    except OSError as error:
        places = ", ".join(map(str, contents))
        raise OSError(f"cannot write {places}: {error.strerror}") from error
    print(f"{config.count} images in {seconds:.1f} s, {config.count / seconds:.1f} images/s")
    print(f"written: {', '.join(map(str, contents))}")
    return 0


def _sample_shards(config: SampleConfig, folder: Path) -> int:
    device = hardware.pick_device(config.device)
    if device.type == "cuda" and parallel.launched()[1] > 1:  # a GPU for each process
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    checkpoint = load_checkpoint(config.checkpoint, device=device)
    try:
        done = sampling.write_shards(
            checkpoint, config, folder, config.count, progress=config.progress
        )
    except KeyboardInterrupt:
        print(f"the shards in {folder} are whole; the same command goes on", file=sys.stderr)
        raise
    rate = done.drawn / done.seconds
    print(f"{done.drawn} images in {done.seconds:.1f} s, {rate:.1f} images/s")
    there = f", {done.found} were there" if done.found else ""
    print(f"written: {done.shards} shards in {folder}{there}")
    return 0


def _check_place(path: Path) -> None:
    """Raises where ``path`` can hold no file, before any work is done for it."""
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder")
    if not path.parent.is_dir():
        raise NotADirectoryError(f"cannot write {path}: {path.parent} is no folder")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"cannot write {path}: no permission to write in {path.parent}")


def _doctor(config: DoctorConfig) -> int:
    device = hardware.pick_device()
    precision = hardware.pick_precision("auto", device)
    about = versions()
    print(f"device      {hardware.describe_device(device)}")
    print(f"precision   {precision.name}: {precision.reason}")
    print(f"versions    {', '.join(f'{name} {number}' for name, number in about.items())}")
    root = datasets.data_root(config.root)
    for name in datasets.NAMES:
        place = (
            f"here, in {root}" if name in ("mnist", "fashion_mnist", "cifar10") else "drawn here"
        )
        here = datasets.is_here(name, config.root)
        print(f"data        {name}: {place if here else f'not in {root}, would be downloaded'}")
    for name, path in shipped().items():
        print(f"checkpoint  {name}: {path}")
    if not shipped():
        print("checkpoint  none came with the course")
    training, drawing = _speeds(device, precision, config.seconds)
    print(f"training    {training:.1f} steps/s (32 x 32 RGB, batches of 32)")
    print(f"sampling    {drawing:.1f} images/s (32 x 32 RGB, 50 DDIM steps, batches of 64)")
    for lesson in LESSONS:
        seconds = lesson.train_steps / training + lesson.images / drawing
        took = f"{lesson.minutes} min, of which {seconds:.0f} s are computing"
        print(f"lesson      {lesson.name}: {took}")
    return 0


def _speeds(
    device: torch.device, precision: hardware.Precision, seconds: float
) -> tuple[float, float]:
    """Training steps a second and images a second, each measured for ``seconds``."""
    data = datasets.circles(256)
    config = TrainConfig(progress=False)
    with torch.random.fork_rng(devices=[]):
        trainer = Trainer(config, new_network(config, data), data, device, precision)
    training = _rate(lambda: trainer.step().item(), seconds)
    model = hardware.in_precision(trainer.network.eval(), device, precision)
    x_t, t = torch.zeros(64, 3, 32, 32, device=device), torch.ones(64, dtype=torch.int64)
    t = t.to(device)
    with torch.no_grad():
        calls = _rate(lambda: model(x_t, t).sum().item(), seconds)
    return training, calls * 64 / 50


def _rate(work: Callable[[], object], seconds: float) -> float:
    """How often a second ``work`` can be done."""
    work()  # the first call sets things up
    count, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds or not count:
        work()
        count += 1
    return count / passed


def _progress(config: ProgressConfig) -> int:
    from tutorial_lib.cli.progress import (
        progress,
    )  # brings Jupyter with it: only where it is needed

    return progress(
        config.notebooks, json=config.json, junit=config.junit, require_all=config.require_all
    )


def _parse(argv: list[str]) -> Any:
    """The config that the words ask for; None where they asked for help.

    Raises:
        UsageError: they ask for nothing that there is.
    """
    if argv and not argv[0].startswith("-"):
        try:
            _validate.one_of("command", argv[0], COMMANDS)
        except ValueError as error:
            raise UsageError(error) from error
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            return _ask_tyro(argv)
    except SystemExit as end:
        if not end.code:
            return None
    shown = io.StringIO()
    with contextlib.redirect_stderr(shown), contextlib.suppress(SystemExit), _wide_terminal():
        _ask_tyro(argv)  # again, in a frame so wide that it breaks no path in two
    raise UsageError(_box_in_words(shown.getvalue()))


def _ask_tyro(argv: list[str]) -> Any:
    before = _run_to_resume(argv)
    if before is not None:
        prog = "python -m tutorial_lib train"
        return tyro.cli(TrainConfig, default=before, prog=prog, args=argv[1:])
    commands = {name: config for name, (config, _) in COMMANDS.items()}
    return tyro.extras.subcommand_cli_from_dict(
        commands, prog="python -m tutorial_lib", description=DESCRIPTION, args=argv
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


def _fail(error: BaseException, *, code: int) -> int:
    """Says what is wrong in one line and returns the exit code."""
    if os.environ.get("TUTORIAL_DEBUG"):
        raise error
    message = str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        message = f"{error.filename}: {error.strerror}"
    print("error:", " ".join(message.split()), file=sys.stderr)
    return code


DESCRIPTION = "Train a denoiser, draw images with it, look at this machine, run the exercises."
COMMANDS: dict[str, tuple[type, Callable[[Any], int]]] = {
    "train": (TrainConfig, _train),
    "sample": (SampleConfig, _sample),
    "doctor": (DoctorConfig, _doctor),
    "progress": (ProgressConfig, _progress),
}
