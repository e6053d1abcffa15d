"""The run folder: what a run leaves, where, and what happens when it cannot."""

import contextlib
import errno
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from training_cases import (
    Answer,
    metrics_of,
    same_bits,
    tiny,
)

from tutorial_lib import checkpoints, datasets
from tutorial_lib.datasets import Dataset
from tutorial_lib.training import loop as training
from tutorial_lib.training import train
from tutorial_lib.training.run_folder import open_run_folder


def test_run_folder_holds_config_metrics_and_checkpoints(tmp_path: Path, discs: Dataset) -> None:
    config = tiny(tmp_path / "run", steps=7, checkpoint_every=3, log_every=2)
    run = train(config, data=discs)
    assert run.path == tmp_path / "run"
    assert sorted(path.name for path in run.path.iterdir()) == [
        "config.json",
        "metrics.jsonl",
        "state",
        *(f"step-{n:08d}.{s}" for n in (3, 6, 7) for s in ("json", "safetensors")),
    ]
    assert json.loads((run.path / "config.json").read_text())["checkpoint_every"] == 3
    newest = [path.name for path in (run.path / "state").iterdir()]
    assert sorted(newest) == [f"step-{n:08d}.safetensors" for n in (6, 7)]
    lines = metrics_of(run.path)
    assert [line["step"] for line in lines] == [2, 4, 6, 7]
    for line, part in zip(lines, ((0, 2), (2, 4), (4, 6), (6, 7)), strict=True):
        recent = run.losses[slice(*part)]
        assert line["loss"] == pytest.approx(sum(recent) / len(recent))
    saved = checkpoints.load_checkpoint(run.path)
    assert saved.path == run.checkpoint
    assert same_bits(saved.network, run.ema_network)
    assert not same_bits(saved.network, run.network)
    card = saved.card
    assert (card["steps"], card["seed"], card["target"]) == (7, 0, "v")
    assert card["dataset"]["image_shape"] == [3, 8, 8]
    assert card["metrics"]["loss"] == pytest.approx(sum(run.losses) / 7)
    assert card["command"].startswith("python -m tutorial_lib train --steps 7 ")


def test_default_folders_are_numbered(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        train(tiny(None, steps=1), data=discs, model=Answer())
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["circles-1", "circles-2"]


@pytest.mark.plain_errors
def test_nothing_is_written_where_the_run_cannot_start(tmp_path: Path, discs: Dataset) -> None:
    class Wrong(Answer):
        def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
            return super().forward(x_t, t)[:, :, :4]

    with pytest.raises(ValueError, match=r"shape of x_t, \(3, 3, 8, 8\); got \(3, 3, 4, 8\)"):
        train(tiny(tmp_path / "run"), data=discs, model=Wrong())
    gray = training.new_network(tiny(None), datasets.circles(4, size=8, channels=1))
    with pytest.raises(ValueError, match=r"\(batch, 1, height, width\), got \(3, 3, 8, 8\)"):
        train(tiny(tmp_path / "run"), data=discs, model=gray)
    with pytest.raises(ValueError, match="circels"):
        train(tiny(tmp_path / "run", dataset="circels"))
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device 'cuda' is not there"):
            train(tiny(tmp_path / "run", device="cuda"), data=discs)
    assert not (tmp_path / "run").exists()


@pytest.mark.plain_errors
def test_a_folder_that_is_taken_or_cannot_be_is_named(tmp_path: Path, discs: Dataset) -> None:
    train(tiny(tmp_path / "run", steps=1), data=discs, model=Answer())
    with pytest.raises(ValueError, match=r"out must be a new or an empty folder, got .*run"):
        train(tiny(tmp_path / "run", steps=1), data=discs, model=Answer())
    below_a_file = tmp_path / "run" / "config.json" / "deeper"
    with pytest.raises(ValueError, match=r"out cannot be written: .*deeper: .* is not a folder"):
        train(tiny(below_a_file, steps=1), data=discs, model=Answer())


def test_a_full_disk_leaves_no_empty_folder(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    (tmp_path / "mine").mkdir()
    for name in ("new", "mine"):
        with pytest.raises(ValueError, match=rf"out cannot be written: .*{name}: No space left"):
            train(tiny(tmp_path / name), data=discs)
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


# --- one writer -----------------------------------------------------------------------------------

HOLDER = """
import sys
from pathlib import Path
from tutorial_lib.training import TrainConfig
from tutorial_lib.training.run_folder import open_run_folder

with open_run_folder(TrainConfig(out=Path(sys.argv[1]), device="cpu")):
    print("holds it", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that trains in the folder "run"."""
    words = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds it\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_at_once_and_the_first_is_named(
    tmp_path: Path, discs: Dataset, holder: subprocess.Popen[str]
) -> None:
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    name = rf"process {holder.pid} on {re.escape(socket.gethostname())}, since 20"
    with pytest.raises(ValueError, match=rf"out must not be in use: {name}.*, trains in .*run now"):
        train(tiny(tmp_path / "run", resume=True), data=discs)
    with pytest.raises(ValueError, match="out must be a new or an empty folder"):
        train(tiny(tmp_path / "run"), data=discs)
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    holder.kill()  # SIGKILL: it cleans nothing up
    holder.wait()
    run = train(tiny(tmp_path / "run", resume=True, steps=2), data=discs)
    assert not {".lock", ".writer"} & set(os.listdir(run.path))


def test_a_second_run_of_the_same_process_is_refused_too(tmp_path: Path, discs: Dataset) -> None:
    class Starts(Answer):
        refused = ""

        def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
            if self.training and not self.refused:
                with pytest.raises(ValueError, match=f"process {os.getpid()}") as found:
                    train(tiny(tmp_path / "run", resume=True), data=discs, model=Answer())
                self.refused = str(found.value)
            return super().forward(x_t, t)

    model = Starts()
    train(tiny(tmp_path / "run"), data=discs, model=model)
    assert "trains in" in model.refused


def test_a_writer_that_has_not_said_its_name_yet(
    tmp_path: Path, discs: Dataset, holder: subprocess.Popen[str]
) -> None:
    for words in (b"", b"{}", b"\xff", b"[" * 10**5):
        (tmp_path / "run" / ".writer").write_bytes(words)
        with pytest.raises(ValueError, match="another process trains in"):
            train(tiny(tmp_path / "run", resume=True), data=discs)
    assert holder.poll() is None


def test_default_folders_of_runs_that_begin_together_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_run_folder(tiny(None))).path for _ in range(3)]
    assert [path.name for path in opened] == ["circles-1", "circles-2", "circles-3"]
