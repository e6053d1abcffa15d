"""The learner's own model: kept in lesson 5, found by later lessons, and never in the way."""

from pathlib import Path

import pytest
import torch

from tests.damage import flip_a_bit
from tutorial_lib import hardware, lab
from tutorial_lib._typing import EpsModel
from tutorial_lib.checkpoints import find_checkpoint, shipped
from tutorial_lib.datasets import Dataset, circles
from tutorial_lib.predictions import as_eps_model
from tutorial_lib.training import TrainConfig, Trainer, new_network, train


@pytest.fixture
def course_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A course without a model of the learner's, whose notebooks one works in."""
    folder = tmp_path / "course"
    (folder / "notebooks" / "solutions").mkdir(parents=True)
    monkeypatch.delenv("TUTORIAL_RUNS", raising=False)
    monkeypatch.chdir(folder / "notebooks")
    return folder


def trained(steps: int = 2) -> tuple[Trainer, Dataset]:
    config = TrainConfig(size=8, widths=(8, 8), steps=steps, batch_size=4)
    data = circles(8, size=8)
    device = torch.device("cpu")
    torch.manual_seed(config.seed)
    precision = hardware.pick_precision("fp32", device)
    trainer = Trainer(config, new_network(config, data), data, device, precision)
    for _ in range(steps):
        trainer.step()
        trainer.update_lr()
    return trainer, data


def answers(model: EpsModel) -> torch.Tensor:
    x_t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(x_t, torch.tensor([1, 700]))


def test_without_a_model_of_ones_own_it_is_the_one_that_ships(
    course_folder: Path, capsys: pytest.CaptureFixture[str]
):
    found = lab.your_model("cpu")
    assert capsys.readouterr().out == "the model that ships; train your own in lesson 5\n"
    assert found.path == shipped()["mnist"]
    assert not (course_folder / "runs").exists()


@pytest.mark.parametrize("inside", ["notebooks", "notebooks/solutions", "."])
def test_ones_own_model_is_found_again(
    course_folder: Path,
    inside: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    trainer, data = trained()
    path = lab.keep(trainer, data)
    assert capsys.readouterr().out == "your model is kept in runs/lesson05\n"
    assert path is not None
    assert path.parent == course_folder / "runs" / "lesson05"
    monkeypatch.chdir(course_folder / inside)
    found = lab.your_model("cpu")
    assert capsys.readouterr().out == "your own model of lesson 5 (runs/lesson05)\n"
    expected = as_eps_model(trainer.ema.module.eval(), trainer.schedule, trainer.config.target)
    assert answers(found.model).equal(answers(expected))
    assert (found.image_shape, found.card["steps"]) == ((3, 8, 8), 2)
    assert find_checkpoint(course_folder / "runs" / "lesson05") == path


def test_the_last_one_kept_counts(course_folder: Path):
    lab.keep(*trained(3))
    lab.keep(*trained(1))
    assert lab.your_model("cpu").card["steps"] == 1


def test_a_run_of_the_command_line_counts_too(course_folder: Path):
    out = course_folder / "runs" / "lesson05"
    config = TrainConfig(size=8, widths=(8, 8), steps=1, batch_size=4, out=out, progress=False)
    train(config, data=circles(8, size=8))
    assert lab.your_model("cpu").path.parent == out


def test_another_folder_can_be_named(
    course_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setenv("TUTORIAL_RUNS", str(elsewhere))
    lab.keep(*trained())
    assert lab.your_model("cpu").path.parent == elsewhere / "lesson05"
    assert f"({elsewhere / 'lesson05'})" in capsys.readouterr().out
    monkeypatch.delenv("TUTORIAL_RUNS")
    assert lab.your_model("cpu").path == shipped()["mnist"]


def test_a_damaged_model_of_ones_own_is_said_and_not_used(
    course_folder: Path, capsys: pytest.CaptureFixture[str]
):
    path = lab.keep(*trained())
    assert path is not None
    flip_a_bit(path)
    capsys.readouterr()
    assert lab.your_model("cpu").path == shipped()["mnist"]
    out = capsys.readouterr().out
    assert out.startswith("the model that ships; yours cannot be used: ")
    assert path.name in out
    assert out.count("\n") == 1


def test_where_nothing_can_be_written_it_says_so_and_goes_on(
    course_folder: Path, capsys: pytest.CaptureFixture[str]
):
    (course_folder / "runs").write_text("a file where the folder should be")
    assert lab.keep(*trained()) is None
    assert capsys.readouterr().out.startswith("your model could not be kept: ")
    assert lab.your_model("cpu").path == shipped()["mnist"]


@pytest.mark.plain_errors
def test_a_device_that_is_none_is_refused(course_folder: Path):
    with pytest.raises(ValueError, match="device"):
        lab.your_model("gpu")
