"""A model that copies its training images is recognized when it has been trained."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from tutorial_lib import datasets
from tutorial_lib.cli import copies
from tutorial_lib.cli import program as cli

WORDS = "train --size 8 --widths 8 --batch-size 8 --device cpu --steps 2 --no-progress --out run"


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Tensor]], int]:
    """Trains on 11 of twelve pictures; gives what the model then draws."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few").mkdir()
    for number, image in enumerate(datasets.circles(12, size=8, seed=0).images):
        pixels = ((image + 1) * 127.5).byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / "few" / f"{number}.png")

    def run(drawn: Callable[[], Tensor]) -> int:
        monkeypatch.setattr(copies, "draw", lambda *_: drawn())
        return cli.main([*WORDS.split(), "--dataset", "folder:few"])

    return run


def test_copies_are_counted_in_a_warning(train: Callable[[Callable[[], Tensor]], int]) -> None:
    def drawn() -> Tensor:
        images = datasets.load("folder:few", size=8).images
        return torch.cat([images, torch.full((21, *images.shape[1:]), -0.1)])

    warning = "11 of 32 samples are copies of one of the 11 training images; train on more"
    with pytest.warns(UserWarning, match=warning):
        assert train(drawn) == 0


def test_other_samples_need_no_warning(train: Callable[[Callable[[], Tensor]], int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert train(lambda: torch.rand(32, 3, 8, 8) * 2 - 1) == 0


def test_a_test_that_fails_does_not_fail_the_run(
    train: Callable[[Callable[[], Tensor]], int],
) -> None:
    def drawn() -> Tensor:
        raise MemoryError("no room for samples")

    with pytest.warns(UserWarning, match="the test for copies is switched off: no room"):
        assert train(drawn) == 0


def test_many_images_are_not_tested(
    train: Callable[[Callable[[], Tensor]], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "FEW", 10)

    def drawn() -> Tensor:
        raise AssertionError("nothing is to be drawn")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert train(drawn) == 0
