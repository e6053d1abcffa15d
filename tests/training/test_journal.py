"""The journal: losses are read seldom and written down once."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
from training_cases import metrics_of, tiny

from tutorial_lib.datasets import Dataset
from tutorial_lib.training import loop as training
from tutorial_lib.training import train
from tutorial_lib.training.journal import Journal


def test_losses_on_an_accelerator_are_read_only_when_a_line_or_a_checkpoint_is_due(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"steps": 11, "log_every": 3, "checkpoint_every": 5}
    often = train(tiny(tmp_path / "often", **settings), data=discs)
    looks: list[int] = []
    read = Journal.read

    def counted(journal: Journal) -> float:
        looks.append(journal.unread)
        return read(journal)

    monkeypatch.setattr(Journal, "read", counted)
    monkeypatch.setattr(training, "_read_every", lambda device: training.READ_EVERY)
    seldom = train(tiny(tmp_path / "seldom", **settings), data=discs)
    assert looks == [3, 2, 1, 3, 1, 1]  # at steps 3, 5, 6, 9, 10, 11
    assert seldom.losses == often.losses
    ours, theirs = metrics_of(tmp_path / "seldom"), metrics_of(tmp_path / "often")
    assert [line["loss"] for line in ours] == [line["loss"] for line in theirs]
    assert [line["step"] for line in ours] == [3, 6, 9, 11]
    assert np.diff([line["seconds"] for line in ours]).min() > 0
    assert ours[-1]["seconds"] == round(seldom.seconds, 3)


def test_tensorboard_gets_what_the_metrics_say(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in with the methods of TensorBoard's writer, which is not among our requirements."""
    written: list[tuple] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            written.append(("open", Path(folder).name, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def add_image(self, name: str, pixels: np.ndarray, step: int, dataformats: str) -> None:
            written.append((name, pixels.shape, step, dataformats))

        def close(self) -> None:
            written.append(("close",))

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    settings = {"steps": 4, "log_every": 2, "sample_every": 3, "tensorboard": True}
    train(tiny(tmp_path / "run", **settings), data=discs)
    assert written[0] == ("open", "tensorboard", 1)
    assert written[-1] == ("close",)
    for line in metrics_of(tmp_path / "run"):
        for name in ("loss", "lr", "images_per_second"):
            assert (name, line[name], line["step"]) in written
    assert ("samples", (78, 78, 3), 3, "HWC") in written


@pytest.mark.plain_errors
def test_tensorboard_that_is_missing_is_named(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="tensorboard is not installed: pip install tensorboard"):
        train(tiny(tmp_path / "run", tensorboard=True), data=discs)
    assert not (tmp_path / "run").exists()
