"""The run folder: what a run leaves, where, and what happens when it cannot."""

import errno
import json
import os
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
    with pytest.raises(ValueError, match=r"\(batch, 1, height, width\), got \(1, 3, 8, 8\)"):
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
    with pytest.raises(ValueError, match=r"out cannot be written: .*deeper: Not a directory"):
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
