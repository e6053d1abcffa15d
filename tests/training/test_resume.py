"""A run that was stopped, killed or damaged ends with the same bits as one that was not."""

import dataclasses
import errno
import itertools
import json
import os
import pickle
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from training_cases import Net, left_behind

from tests.damage import Code, flip_a_bit
from tests.sealed_forms import FORMS, in_form
from tutorial_lib import _files, datasets, hardware
from tutorial_lib.checkpoints import CheckpointError, load_checkpoint
from tutorial_lib.cli import program as cli
from tutorial_lib.datasets import Dataset
from tutorial_lib.training import TrainConfig, TrainingError, saver, train
from tutorial_lib.training import loop as training
from tutorial_lib.training import state as run_state
from tutorial_lib.training.batches import Examples
from tutorial_lib.training.config import MAY_CHANGE
from tutorial_lib.training.interrupts import Interrupted, Interrupts

SETTINGS = {"size": 8, "batch_size": 8, "steps": 11, "precision": "fp32", "device": "cpu"}
SETTINGS |= {"progress": False, "log_every": 3, "num_steps": 5}


def net() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net()


@pytest.fixture(scope="module")
def discs() -> Dataset:
    return datasets.circles(40, size=8, seed=0)


def config_of(out: Path, **settings) -> TrainConfig:
    return TrainConfig(**{**SETTINGS, "out": out, **settings})


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch, number: int = signal.SIGTERM) -> None:
    """Raises a signal in the middle of a step."""
    real = training.Trainer.step

    def step_and_signal(trainer: training.Trainer) -> Tensor:
        if trainer.steps_done == step - 1:
            signal.raise_signal(number)
        return real(trainer)

    monkeypatch.setattr(training.Trainer, "step", step_and_signal)


# --- bit for bit ----------------------------------------------------------------------------------

FLOW = {"target": "velocity", "weight": "velocity", "step_sampler": "logit_normal"}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"conditional": True, "step_sampler": "importance"},
        {"optimizer": "adamw", "step_sampler": "uniform", "decay": "constant"},
        {"precision": "bf16", "weight_decay": 0.1},
        {"precision": "fp16"} | FLOW,
        {"accumulate": 4, "steps": None, "max_seconds": 1e6, "decay": "cosine"},
        {"pinned": True, "conditional": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("own", [True, False])
def test_stopped_and_resumed_is_the_run_unstopped(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch, settings: dict, own: bool
) -> None:
    settings = dict(settings)
    if settings.pop("pinned", False):  # as where the images do not fit on the device
        monkeypatch.setattr(hardware, "fits", lambda size, device: False)
    made: dict = {} if own else {"widths": (8,)}
    steps = {"steps": 11} if settings.get("steps", 11) else {"steps": 11, "max_seconds": 1e6}
    settings = {**settings, **made, **steps}
    # a clock that stands still leaves the steps to decide
    clock = (lambda: 0.0) if "max_seconds" in settings else time.perf_counter

    def model() -> nn.Module | None:
        return net() if own else None

    whole = train(config_of(tmp_path / "whole", **settings), data=discs, model=model(), clock=clock)
    with monkeypatch.context() as patch:
        stop_at(7, patch)
        with pytest.raises(Interrupted):
            train(config_of(tmp_path / "parts", **settings), data=discs, model=model(), clock=clock)
    run = training.resume(tmp_path / "parts", data=discs, model=model(), clock=clock)
    assert left_behind(tmp_path / "parts") == left_behind(tmp_path / "whole")
    assert run.losses == whole.losses
    assert len(run.losses) == 11


@pytest.mark.long("twenty runs, each killed and then finished")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random_moments_it_resumes_to_the_same_bits(
    tmp_path: Path, forked: Callable[[str, Path], dict]
) -> None:
    found = forked("random", tmp_path)
    assert found == {"killed": 20, "same": [True] * 20}


@pytest.mark.long("a run for each change of a file, over forty")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_every_change_of_a_file_it_resumes_to_the_same_bits(
    tmp_path: Path, forked: Callable[[str, Path], dict]
) -> None:
    """In the middle of each write, before each move, each removal and each new folder."""
    found = forked("calls", tmp_path)
    assert found["calls"] >= 40
    assert found["same"] == [True] * found["calls"]
    assert found["torn"] > 10, "no save was cut in two"


# --- stopping -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_saves_and_says_how_to_resume(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    words = ["--size", "8", "--widths", "8", "--steps", "5", "--device", "cpu", "--no-progress"]
    with monkeypatch.context() as patch:
        stop_at(3, patch, number)
        assert cli.main(["train", *words]) == 128 + number
    printed = capsys.readouterr()
    command = printed.err.partition("to resume: ")[2].split()
    assert printed.err.startswith(
        "stopped and saved at step 3 of 5; to resume: python -m tutorial_lib"
    )
    assert printed.err.count("\n") == 1
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert load_checkpoint("runs/circles-1").card["steps"] == 3  # and can be sampled from
    assert cli.main(command[3:]) == 0
    assert cli.main(["train", *words, "--out", "whole"]) == 0
    assert left_behind(Path("runs/circles-1")) == left_behind(Path("whole"))


@pytest.fixture
def python_interrupts() -> Iterator[None]:
    """Python's own handler of SIGINT: what a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_interrupts")
def test_the_second_signal_does_what_it_always_did() -> None:
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        assert interrupts.signal == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with Interrupts(patient=True) as interrupts:
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
        assert interrupts.signal == signal.SIGINT


def test_a_stop_in_a_notebook_is_a_keyboard_interrupt(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(2, monkeypatch, signal.SIGINT)
    call = rf"training.resume\('{tmp_path / 'run'}', data=data, model=model\)"
    with pytest.raises(KeyboardInterrupt, match=rf"step 2 of 11; to resume: {call}$"):
        train(config_of(tmp_path / "run"), data=discs, model=net())
    with pytest.raises(KeyboardInterrupt, match=r"to resume: training.resume\('.*', data=data\)$"):
        train(config_of(tmp_path / "tiny"), data=discs)


def test_a_stop_on_several_machines_says_what_each_has_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(2, monkeypatch)
    real = saver.RunSaver.how_to_resume

    def as_on_two_machines(run_saver: saver.RunSaver) -> str:
        counts = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2"}
        for name, value in {"RANK": "1", **counts}.items():
            monkeypatch.setenv(name, value)
        return real(run_saver)

    monkeypatch.setattr(saver.RunSaver, "how_to_resume", as_on_two_machines)
    command = "torchrun --nnodes 2 --rdzv-backend c10d --rdzv-endpoint HOST:29500 "
    command += "--nproc-per-node 2 -m tutorial_lib train --size 8 .* --resume"
    message = rf"to resume, on each machine \(HOST is one of them\): {command}"
    with pytest.raises(Interrupted, match=message):
        train(config_of(tmp_path / "run"))


# --- states of earlier versions -------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_run_of_an_earlier_version_is_resumed(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    train(config_of(tmp_path / "whole"), data=discs, model=net())
    with monkeypatch.context() as patch:
        stop_at(7, patch)
        with pytest.raises(Interrupted):
            train(config_of(tmp_path / "run"), data=discs, model=net())
    (path,) = (tmp_path / "run" / "state").iterdir()
    path.write_bytes(in_form(form, path.read_bytes()))
    training.resume(tmp_path / "run", data=discs, model=net())
    assert left_behind(tmp_path / "run") == left_behind(tmp_path / "whole")


# --- damage ---------------------------------------------------------------------------------------


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda p: p.write_bytes(p.read_bytes()[:-3]), "is damaged: its checksum"),
    "cut in the header": (lambda p: p.write_bytes(p.read_bytes()[:100]), "header cannot be read"),
    "empty": (lambda p: p.write_bytes(b""), "is damaged: its header cannot be read"),
    "a bit": (flip_a_bit, "is damaged: its checksum"),
    "longer": (lambda p: p.write_bytes(p.read_bytes() + b"x"), "is damaged: its checksum"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps(Code())), "is a pickle, which could run code"),
    "torch.save": (lambda p: torch.save({"a": torch.ones(3)}, p), "is a pickle"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_state_is_recognized_and_the_one_before_is_used(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    damage, message = DAMAGES[name]
    train(config_of(tmp_path / "run", checkpoint_every=4), data=discs, model=net())
    whole = left_behind(tmp_path / "run")
    before, newest = sorted((tmp_path / "run" / "state").iterdir())
    damage(newest)
    warning = f"{newest.name} .*{message}.*continuing from {before.name}"
    with pytest.warns(UserWarning, match=warning):
        training.resume(tmp_path / "run", data=discs, model=net())
    assert left_behind(tmp_path / "run") == whole
    for path in (before, newest):
        damage(path)
    with pytest.raises(CheckpointError, match=r"no state of .*run can be used: .*; .*"):
        training.resume(tmp_path / "run", data=discs, model=net())
    assert not Path("pickle-ran").exists()


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(7.0), "b": torch.ones(2, 3, dtype=torch.int64)}
    path = run_state.save_state(tmp_path, 3, tensors, {"seconds": 1.25})
    whole = path.read_bytes()
    state = run_state.read_state(path)
    assert state.facts == {"format": 1, "step": 3, "seconds": 1.25}
    assert all(torch.equal(state.tensors[name], value) for name, value in tensors.items())
    for place in range(len(whole)):
        for bit in range(8):
            torn = bytearray(whole)
            torn[place] ^= 1 << bit
            path.write_bytes(torn)
            with pytest.raises(CheckpointError):
                run_state.read_state(path)


# --- a disk that is full --------------------------------------------------------------------------


def test_no_space_for_a_state_keeps_the_one_before(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(config_of(tmp_path / "whole", checkpoint_every=4), data=discs, model=net())
    real = _files._write_synced

    def half(file: BinaryIO, content: bytes) -> None:
        path = Path(file.name)
        if path.name.startswith("step-00000008.safetensors.") and path.parent.name == "state":
            file.write(content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file, content)

    with monkeypatch.context() as patch:
        patch.setattr(_files, "_write_synced", half)
        message = (
            r"cannot write .*step-00000008.safetensors: No space left on device; step-00000004"
        )
        with pytest.raises(CheckpointError, match=message):
            train(config_of(tmp_path / "run", checkpoint_every=4), data=discs, model=net())
    assert [path.name for path in (tmp_path / "run" / "state").iterdir()] == [
        "step-00000004.safetensors"
    ]
    training.resume(tmp_path / "run", data=discs, model=net())
    assert left_behind(tmp_path / "run") == left_behind(tmp_path / "whole")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 KiB, where this machine lets us mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small disk here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_keeps_the_last_state_whole(
    small_disk: Path, tmp_path: Path, discs: Dataset
) -> None:
    config = config_of(small_disk / "run", checkpoint_every=1, steps=40)
    with pytest.raises(CheckpointError, match=r"No space left on device; .* is whole"):
        train(config, data=discs, model=net())
    state = run_state.newest_state(small_disk / "run")
    assert state is not None
    assert 0 < state.facts["steps"] < 40
    train(dataclasses.replace(config, out=tmp_path / "whole"), data=discs, model=net())
    training.resume(small_disk / "run", data=discs, model=net(), keep=1)  # makes room first
    assert left_behind(small_disk / "run") == left_behind(tmp_path / "whole")


# --- what may change when a run is resumed --------------------------------------------------------

OTHERS = {
    "dataset": "glyphs",
    "schedule": "linear",
    "target": "eps",
    "weight": "none",
    "step_sampler": "uniform",
    "optimizer": "adamw",
    "decay": "constant",
    "text": True,
    "conditional": True,
    "widths": (8, 16),
    "bottom_blocks": 3,
}


@pytest.mark.plain_errors
def test_a_change_that_matters_is_refused_by_name(tmp_path: Path, discs: Dataset) -> None:
    train(config_of(tmp_path / "run", steps=2), data=discs, model=net())
    config = config_of(tmp_path / "run", steps=2)
    before = left_behind(tmp_path / "run")
    for field in dataclasses.fields(TrainConfig):
        if field.name in MAY_CHANGE:
            continue
        now = getattr(config, field.name)
        other = OTHERS.get(field.name)
        if other is None:
            other = now + 1 if isinstance(now, int) else now / 3 + 0.01
        changes: dict[str, Any] = {field.name: other}
        with pytest.raises(ValueError, match=rf"^{field.name} must be .*, as in the run to resume"):
            training.resume(tmp_path / "run", data=discs, model=net(), **changes)
    with pytest.raises(
        ValueError, match=r"precision must be fp32, as in the run to resume; got bf"
    ):
        training.resume(tmp_path / "run", data=discs, model=net(), precision="bf16")
    with pytest.raises(ValueError, match=r"data must be .*as in the run to resume"):
        training.resume(tmp_path / "run", data=datasets.circles(41, size=8), model=net())
    relabeled = Dataset(discs.images, (discs.labels + 1) % 6, discs.class_names)
    with pytest.raises(ValueError, match=r"data must be .*: labels_crc32 was \d+, is \d+"):
        training.resume(tmp_path / "run", data=relabeled, model=net())
    with pytest.raises(CheckpointError, match="is for another network than this TinyUNet"):
        training.resume(tmp_path / "run", data=discs)
    with pytest.raises(ValueError, match="steps must be at least 2, which the run has done; got 1"):
        training.resume(tmp_path / "run", data=discs, model=net(), steps=1)
    with pytest.raises(ValueError, match=r"run must be the folder of a run: .*nowhere"):
        training.resume(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="resume needs out"):
        TrainConfig(resume=True)
    assert left_behind(tmp_path / "run") == before


def test_one_other_value_in_the_data_is_noticed(tmp_path: Path, discs: Dataset) -> None:
    train(config_of(tmp_path / "run", steps=2), data=discs, model=net())
    images = discs.images.clone()
    images[37, 1, 2, 3] += 1e-3
    other = Dataset(images, discs.labels, discs.class_names)
    with pytest.raises(ValueError, match=r"data must be .*: crc32\w* was \d+, is \d+"):
        training.resume(tmp_path / "run", data=other, model=net())


def test_data_that_an_earlier_version_knew_by_some_examples_are_compared_by_those(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(config_of(tmp_path / "whole"), data=discs, model=net())
    real = dict(Examples.of(discs).fingerprint)
    del real["crc32_of_all"]
    with monkeypatch.context() as patch:
        patch.setattr(Examples, "fingerprint", real)
        stop_at(4, patch)
        with pytest.raises(Interrupted):
            train(config_of(tmp_path / "run"), data=discs, model=net())
    with pytest.warns(UserWarning, match="only 256 of its examples can be compared"):
        training.resume(tmp_path / "run", data=discs, model=net())
    assert left_behind(tmp_path / "run") == left_behind(tmp_path / "whole")


def test_a_longer_run_is_the_long_run_where_the_rate_is_constant(
    tmp_path: Path, discs: Dataset
) -> None:
    flat = {"decay": "constant", "warmup": 0.0}
    train(config_of(tmp_path / "long", **flat), data=discs, model=net())
    train(config_of(tmp_path / "run", steps=6, **flat), data=discs, model=net())
    run = training.resume(tmp_path / "run", data=discs, model=net(), steps=11)
    assert len(run.losses) == 11
    assert left_behind(tmp_path / "run")["tensors"] == left_behind(tmp_path / "long")["tensors"]


def test_a_longer_run_warns_that_the_rate_changes(tmp_path: Path, discs: Dataset) -> None:
    train(config_of(tmp_path / "run", steps=6, log_every=1), data=discs, model=net())
    with pytest.warns(
        UserWarning, match=r"steps was 6 and is 12: from step 7 on the learning rate"
    ):
        training.resume(tmp_path / "run", data=discs, model=net(), steps=12)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert lines[6]["lr"] == pytest.approx(0.02 * (1 - 6.5 / 12))
    again = training.resume(tmp_path / "run", data=discs, model=net(), steps=12)
    assert len(again.losses) == 12, "a run that is over stays as it is"


def test_the_next_resume_starts_from_the_changed_config(tmp_path: Path, discs: Dataset) -> None:
    flat = {"decay": "constant", "warmup": 0.0}
    run = train(config_of(tmp_path / "run", steps=4, **flat), data=discs, model=net()).path
    training.resume(run, data=discs, model=net(), steps=6, checkpoint_every=5, keep=1)
    assert [path.stem for path in run.glob("step-*.safetensors")] == ["step-00000006"]
    assert training.asked_for(run) == config_of(
        run, steps=6, checkpoint_every=5, keep=1, resume=True, **flat
    )
    assert training.resume(run, data=discs, model=net()).config.keep == 1
    # before the first step everything may change, and config.json says so
    for state in (run / "state").iterdir():
        state.unlink()
    training.resume(run, data=discs, model=net(), seed=1)
    assert training.asked_for(run).seed == 1
    (run / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"config.json is damaged: it holds no fields"):
        training.resume(run, data=discs, model=net())


@pytest.mark.parametrize("began", ["cpu", "elsewhere"])
def test_the_order_is_drawn_where_the_run_began(tmp_path: Path, discs: Dataset, began: str) -> None:
    """Images that did not fit on the device then may fit now, and the reverse.

    Here the device is the CPU, so it is the state that says where the images were.
    """
    train(config_of(tmp_path / "run", steps=2), data=discs, model=net())
    state = run_state.newest_state(tmp_path / "run")
    assert state is not None
    assert state.facts["data_on"] == "cpu"
    trainer = training.Trainer(
        config_of(tmp_path / "run", steps=2),
        *(net(), discs, torch.device("cpu"), hardware.pick_precision("fp32", torch.device("cpu"))),
    )
    state.facts["data_on"] = began
    trainer.restore(state)
    assert (trainer.order.generator is trainer.generator) == (began == "cpu")
    assert torch.equal(trainer.order.rest, state.tensors["order"])
    assert torch.equal(trainer.order.generator.get_state(), state.tensors["random.order"])


def test_resume_without_a_state_begins(tmp_path: Path, discs: Dataset) -> None:
    run = train(config_of(tmp_path / "run", resume=True), data=discs, model=net())
    same = train(config_of(tmp_path / "same"), data=discs, model=net())
    assert run.losses == same.losses
    assert left_behind(tmp_path / "run") == left_behind(tmp_path / "same")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="out must be a new or an empty folder"):
        train(config_of(tmp_path / "other", resume=True), data=discs, model=net())


# --- what is kept, and what else is written -------------------------------------------------------


def test_the_newest_checkpoints_and_states_are_kept(tmp_path: Path, discs: Dataset) -> None:
    train(config_of(tmp_path / "run", checkpoint_every=2, keep=3), data=discs, model=net())
    kept = [f"step-{step:08d}" for step in (8, 10, 11)]
    assert sorted(path.stem for path in (tmp_path / "run").glob("step-*.json")) == kept
    assert sorted(path.stem for path in (tmp_path / "run").glob("step-*.safetensors")) == kept
    assert sorted(path.stem for path in (tmp_path / "run" / "state").iterdir()) == kept[1:]


def test_long_steps_are_saved_by_the_clock(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    minutes = itertools.count(step=6)  # more than SAVE_SECONDS between two reads of the clock
    stop_at(5, monkeypatch, signal.SIGTERM)
    saved: list[int] = []
    real = run_state.save_state

    def save(run: Path, step: int, *rest) -> Path:
        saved.append(step)
        return real(run, step, *rest)

    monkeypatch.setattr(run_state, "save_state", save)
    with pytest.raises(Interrupted):
        train(
            config_of(tmp_path / "run", log_every=1),
            data=discs,
            model=net(),
            clock=lambda: 60.0 * next(minutes),
        )
    assert saved == [1, 2, 3, 4, 5]


class Breaks(Net):
    """Answers NaN from the sixth training step on."""

    calls = -1  # the first question is the trainer's own

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        self.calls += 1
        return super().forward(x_t, t, labels) * (float("nan") if self.calls == 6 else 1.0)


@pytest.mark.plain_errors
def test_a_loss_that_is_not_finite_leaves_the_last_good_state(
    tmp_path: Path, discs: Dataset
) -> None:
    train(config_of(tmp_path / "whole", checkpoint_every=4), data=discs, model=net())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        broken = Breaks()
    with pytest.raises(TrainingError, match="at step 6"):
        train(config_of(tmp_path / "run", checkpoint_every=4), data=discs, model=broken)
    state = run_state.newest_state(tmp_path / "run")
    assert state is not None
    assert state.facts["steps"] == 5
    training.resume(tmp_path / "run", data=discs, model=net())
    assert left_behind(tmp_path / "run") == left_behind(tmp_path / "whole")


@pytest.mark.parametrize("conditional", [False, True])
def test_grids_of_samples_are_drawn_and_change_nothing(
    tmp_path: Path, discs: Dataset, conditional: bool
) -> None:
    settings = {"widths": (8,), "conditional": conditional}
    without = train(config_of(tmp_path / "without", **settings), data=discs)
    run = train(config_of(tmp_path / "run", sample_every=5, **settings), data=discs)
    grids = sorted((tmp_path / "run" / "samples").iterdir())
    assert [path.name for path in grids] == ["step-00000005.png", "step-00000010.png"]
    for path in grids:
        with Image.open(path) as picture:
            assert picture.size == (8 * 8 + 7 * 2, 8 * 8 + 7 * 2)  # 8 x 8 images, gaps of two
    assert run.losses == without.losses
    assert left_behind(run.path) == left_behind(without.path)


def test_metrics_that_were_cut_off_are_mended(tmp_path: Path, discs: Dataset) -> None:
    train(config_of(tmp_path / "run", checkpoint_every=4), data=discs, model=net())
    whole = left_behind(tmp_path / "run")
    newest = max((tmp_path / "run" / "state").iterdir())
    newest.unlink()
    metrics = tmp_path / "run" / "metrics.jsonl"
    metrics.write_text(metrics.read_text() + '{"step": 12, "lo')
    training.resume(tmp_path / "run", data=discs, model=net())
    assert left_behind(tmp_path / "run") == whole
