"""A run outlives its surroundings: displays that break, errors in a step, signals that end jobs."""

import itertools
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_cases import Net, left_behind, metrics_of, tiny, trainer_of

from tutorial_lib import _extras, datasets, images
from tutorial_lib.datasets import Dataset
from tutorial_lib.training import TrainConfig, journal, train
from tutorial_lib.training import loop as training
from tutorial_lib.training import state as run_state
from tutorial_lib.training.interrupts import ANNOUNCED, ASKED, Interrupted, Interrupts

STEPS = 9


@pytest.fixture(scope="module")
def discs() -> Dataset:
    return datasets.circles(40, size=8, seed=0)


def config_of(out: Path, **settings: Any) -> TrainConfig:
    return tiny(out, **{"steps": STEPS, "batch_size": 8, "num_steps": 5, "log_every": 2} | settings)


def net(kind: type[Net] = Net) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind()


def pictures(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "samples").iterdir()}


# --- what is shown beside the run -----------------------------------------------------------------


class Closed:
    """A stream whose other end is gone."""

    def __init__(self, error: type[Exception], after: int = 0) -> None:
        self.error, self.left = error, after

    def write(self, text: str) -> int:
        if self.left <= 0:
            raise self.error("the stream is gone")
        self.left -= 1
        return len(text)

    def flush(self) -> None:
        self.write("")


@pytest.mark.parametrize(
    "stream",
    [
        None,
        Closed(BrokenPipeError),
        Closed(OSError, 3),
        Closed(ValueError, 1),
        Closed(RuntimeError),
    ],
    ids=["none", "closed pipe", "full disk", "closed file", "anything"],
)
def test_a_bar_that_cannot_be_drawn_is_switched_off_with_one_warning(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch, stream: Any
) -> None:
    whole = train(config_of(tmp_path / "whole"), data=discs, model=net())
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.warns(UserWarning, match="the progress bar is switched off") as found:
        run = train(config_of(tmp_path / "run", progress=True), data=discs, model=net())
    assert len(found) == 1
    assert run.losses == whole.losses
    assert left_behind(tmp_path / "run") == left_behind(tmp_path / "whole")


def test_a_warning_that_nobody_can_read_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Closed(ValueError))
    monkeypatch.setattr(warnings, "showwarning", _shows_on_stderr)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        _extras.warn("nobody reads this")


def _shows_on_stderr(message: Any, *_: Any, **__: Any) -> None:
    sys.stderr.write(str(message))


@pytest.mark.parametrize("breaks", ["opening", "adding", "closing"])
def test_a_broken_tensorboard_is_switched_off(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch, breaks: str
) -> None:
    class Board:
        def __init__(self, *_: Any, **__: Any) -> None:
            self.fail("opening")

        def fail(self, when: str) -> None:
            if when == breaks:
                raise OSError(28, "No space left on device")

        def add_scalar(self, *_: Any) -> None:
            self.fail("adding")

        add_image = add_scalar

        def close(self) -> None:
            self.fail("closing")

    monkeypatch.setattr(training, "check_tensorboard", lambda: None)
    module = type(sys)("torch.utils.tensorboard")
    module.SummaryWriter = Board  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    warning = "TensorBoard is switched off: No space left on device"
    with pytest.warns(UserWarning, match=warning) as found:
        run = train(config_of(tmp_path / "run", tensorboard=True), data=discs, model=net())
    assert len(found) == 1
    assert len(run.losses) == STEPS


@pytest.mark.parametrize("failures", [1, 2, 99])
@pytest.mark.parametrize("part", [0, 10])
def test_lines_that_cannot_be_written_are_kept_and_written_later(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch, failures: int, part: int
) -> None:
    """The second line and ``failures - 1`` more fail, with ``part`` bytes already on the disk."""
    train(config_of(tmp_path / "whole"), data=discs, model=net())
    real, tried = journal._append, itertools.count()

    def full(path: Path, content: bytes) -> None:
        if 1 <= next(tried) <= failures:
            real(path, content[:part])
            os.truncate(path, path.stat().st_size - part)
            raise OSError(28, "No space left on device")
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(journal, "_append", full)
        with pytest.warns(UserWarning, match=r"cannot write .*metrics.jsonl: No space") as found:
            train(config_of(tmp_path / "run"), data=discs, model=net())
    assert len(found) == 1
    if failures > 4:  # the disk stays full to the end: the state has the lines
        assert [line["step"] for line in metrics_of(tmp_path / "run")] == [2]
        training.resume(tmp_path / "run", data=discs, model=net())
    assert left_behind(tmp_path / "run") == left_behind(tmp_path / "whole")


def test_a_line_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """On a device that takes nothing; nothing of what was there is lost either."""
    path = tmp_path / "lines"
    journal._append(path, b"one\n")
    journal._append(path, b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"
    if Path("/dev/full").exists():
        with pytest.raises(OSError, match="No space left"):
            journal._append(Path("/dev/full"), b"three\n")


@pytest.mark.parametrize(
    "damage",
    [b"\xff\xfe\n", b"[" * 100_000 + b"\n", b'{"step": 1e999}\n', b"{}\n", b"\0\0"],
    ids=repr,
)
def test_damaged_metrics_do_not_keep_a_run_from_resuming(
    tmp_path: Path, discs: Dataset, damage: bytes
) -> None:
    train(config_of(tmp_path / "run"), data=discs, model=net())
    whole = left_behind(tmp_path / "run")
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.write_bytes(damage + metrics.read_bytes())
    if not damage.endswith(b"\n"):  # it swallows the first line
        whole["lines"].pop(0)
    training.resume(tmp_path / "run", data=discs, model=net())
    assert left_behind(tmp_path / "run") == whole


def test_a_picture_that_cannot_be_written_does_not_end_the_run(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"sample_every": 3, "checkpoint_every": 3}
    train(config_of(tmp_path / "whole", **settings), data=discs, model=net())
    real = images.save_grid

    def full(drawn: Tensor, path: Path) -> None:
        if path.name == "step-00000009.png":
            raise OSError(28, "No space left on device")
        real(drawn, path)

    with monkeypatch.context() as patch:
        patch.setattr(images, "save_grid", full)
        with pytest.warns(UserWarning, match="this picture is missing"):
            train(config_of(tmp_path / "run", **settings), data=discs, model=net())
    assert left_behind(tmp_path / "run") == left_behind(tmp_path / "whole")
    training.resume(tmp_path / "run", data=discs, model=net())  # that is its state, so it is drawn
    assert pictures(tmp_path / "run") == pictures(tmp_path / "whole")


@pytest.mark.long("two programs, each of which loads torch")
@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full"])
def test_a_program_without_a_working_stderr_trains_to_the_end(tmp_path: Path, where: str) -> None:
    words = "--size 8 --widths 8 --batch-size 8 --device cpu --steps 30 --out run"
    command = f'"{sys.executable}" -m tutorial_lib train {words} {where}'
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert metrics_of(tmp_path / "run")[-1]["step"] == 30
    assert "30 steps in" in done.stdout


# --- errors ---------------------------------------------------------------------------------------


class Stop(BaseException):
    """Neither an Exception nor an interrupt."""


def failing(at: int, error: BaseException) -> Net:
    """A network that raises ``error`` in training step ``at``, after its batch statistics."""

    class Failing(Net):
        calls = -1  # the first question is the trainer's own

        def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
            self.calls += 1
            answer = super().forward(x_t, t, labels)
            if self.calls == at:
                raise error
            return answer

    return net(Failing)


@pytest.mark.plain_errors
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("at", [2, 5, STEPS])
@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), MemoryError(), SystemExit(3), Stop()], ids=lambda e: repr(e)
)
def test_any_error_leaves_the_state_of_the_last_finished_step(
    tmp_path: Path, discs: Dataset, optimizer: str, at: int, error: BaseException
) -> None:
    settings = {"optimizer": optimizer, "step_sampler": "importance", "conditional": True}
    train(config_of(tmp_path / "whole", **settings), data=discs, model=net())
    with pytest.raises(type(error)) as found:
        train(config_of(tmp_path / "run", **settings), data=discs, model=failing(at, error))
    state = run_state.newest_state(tmp_path / "run")
    assert state is not None
    assert state.facts["steps"] == at - 1
    notes = found.value.__notes__
    error.__notes__ = []  # the same object is raised in every case
    assert notes[0].startswith(f"The run is saved at step {at - 1} of {STEPS}; to resume: ")
    training.resume(tmp_path / "run", data=discs, model=net())
    assert left_behind(tmp_path / "run") == left_behind(tmp_path / "whole")


@pytest.mark.plain_errors
def test_an_error_in_the_middle_of_the_parts_of_a_batch(tmp_path: Path, discs: Dataset) -> None:
    settings = {"accumulate": 4}
    train(config_of(tmp_path / "whole", **settings), data=discs, model=net())
    model = failing(4 * 5 + 3, RuntimeError("a bug"))  # the third part of the sixth step
    with pytest.raises(RuntimeError, match="a bug"):
        train(config_of(tmp_path / "run", **settings), data=discs, model=model)
    training.resume(tmp_path / "run", data=discs, model=net())
    assert left_behind(tmp_path / "run") == left_behind(tmp_path / "whole")


@pytest.mark.plain_errors
def test_a_failed_step_can_be_tried_again(discs: Dataset) -> None:
    """Whoever writes the loop by hand may catch the error and go on."""
    whole = trainer_of(discs, net())
    for _ in range(5):
        whole.step()
    tried = trainer_of(discs, failing(3, RuntimeError("once")))
    failed = 0
    while tried.steps_done < 5:
        try:
            tried.step()
        except RuntimeError:
            failed += 1
    assert failed == 1
    (mine, _), (right, _) = tried.state(), whole.state()
    assert mine.keys() == right.keys()
    assert all(torch.equal(mine[name], right[name]) for name in right)


def test_weights_that_were_changing_are_not_saved(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(config_of(tmp_path / "whole", checkpoint_every=4), data=discs, model=net())
    real, calls = training.Trainer._zero_grad, itertools.count(1)

    def broken(trainer: training.Trainer) -> None:
        if next(calls) == 6:
            raise RuntimeError("half-way")
        real(trainer)

    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "_zero_grad", broken)
        with pytest.raises(RuntimeError, match="half-way"):
            train(config_of(tmp_path / "run", checkpoint_every=4), data=discs, model=net())
    state = run_state.newest_state(tmp_path / "run")
    assert state is not None
    assert state.facts["steps"] == 4
    training.resume(tmp_path / "run", data=discs, model=net())
    assert left_behind(tmp_path / "run") == left_behind(tmp_path / "whole")


@pytest.mark.plain_errors
def test_a_decoder_that_raises_leaves_the_state(tmp_path: Path, discs: Dataset) -> None:
    def decode(samples: Tensor) -> Tensor:
        raise RuntimeError("a bug")

    config = config_of(tmp_path / "run", sample_every=3)
    with pytest.raises(RuntimeError, match="a bug"):
        train(config, data=discs, model=net(), decode=decode)
    state = run_state.newest_state(tmp_path / "run")
    assert state is not None
    assert state.facts["steps"] == 3


# --- signals --------------------------------------------------------------------------------------


def number_of(name: str) -> int:
    if not hasattr(signal, name):
        pytest.skip(f"this system has no {name}")
    return getattr(signal, name)


@pytest.fixture
def handlers() -> Any:
    """The handlers of all these signals, as they are in a program that has just started."""
    numbers = [getattr(signal, name) for name in (*ASKED, *ANNOUNCED) if hasattr(signal, name)]
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def raising(number: int, step: int, monkeypatch: pytest.MonkeyPatch, times: int = 1) -> None:
    """Raises a signal in the middle of a step."""
    real: Callable[[training.Trainer], Tensor] = training.Trainer.step

    def step_and_signal(trainer: training.Trainer) -> Tensor:
        if trainer.steps_done == step - 1:
            for _ in range(times):
                signal.raise_signal(number)
        return real(trainer)

    monkeypatch.setattr(training.Trainer, "step", step_and_signal)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("name", [*ASKED, *ANNOUNCED])
def test_every_signal_that_ends_jobs_saves_the_run(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    number = number_of(name)
    before = signal.getsignal(number)
    train(config_of(tmp_path / "whole"), data=discs, model=net())
    with monkeypatch.context() as patch:
        raising(number, 4, patch, times=3 if name in ANNOUNCED else 1)
        with pytest.raises(Interrupted) as found:
            train(config_of(tmp_path / "run"), data=discs, model=net())
    assert found.value.signal == number
    assert signal.getsignal(number) == before
    state = run_state.newest_state(tmp_path / "run")
    assert state is not None
    assert state.facts["steps"] == 4
    training.resume(tmp_path / "run", data=discs, model=net())
    assert left_behind(tmp_path / "run") == left_behind(tmp_path / "whole")


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("name", ANNOUNCED)
@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None], ids=["ignored", "own"])
def test_a_signal_that_means_something_else_here_stays_as_it_is(name: str, handler: Any) -> None:
    """``nohup`` ignores SIGHUP, so that the program goes on when the terminal is gone."""
    number = number_of(name)
    signal.signal(number, handler)
    with Interrupts() as interrupts:
        assert signal.getsignal(number) == handler
        signal.raise_signal(number)
    assert interrupts.signal == 0
    assert signal.getsignal(number) == handler


@pytest.mark.usefixtures("handlers")
def test_a_signal_that_follows_an_announcement_does_not_cut_the_saving_short() -> None:
    """A job queue announces the end, and then asks for it."""
    with Interrupts() as interrupts:
        signal.raise_signal(number_of("SIGUSR1"))
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(number_of("SIGUSR1"))
    assert interrupts.signal == signal.SIGUSR1
    assert json.dumps(interrupts.signal) == str(int(signal.SIGUSR1))
