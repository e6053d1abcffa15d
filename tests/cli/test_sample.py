"""``sample``: pictures and numbers, the same for the same seed."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.runs import drawn
from tutorial_lib.cli import program as cli

pytestmark = [pytest.mark.plain_errors, pytest.mark.usefixtures("empty_folder")]


def test_sample_draws_a_grid_and_numbers(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = drawn(trained, "--count", "5", "--steps", "4", "--out", "grid.png")
    assert images.shape == (5, 3, 8, 8)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1
    with Image.open("grid.png") as file:
        picture = np.asarray(file)
    assert picture.ndim == 3
    corner = (images[0].permute(1, 2, 0).numpy() + 1) * 127.5
    np.testing.assert_allclose(picture[:8, :8], corner, atol=0.51)
    assert re.search(r"5 images in [\d.]+ s, [\d.]+ images/s", capsys.readouterr().out)
    assert sorted(os.listdir()) == ["grid.png", "x.safetensors"]


@pytest.mark.parametrize(("precision", "rounding"), [("fp32", 2e-5), ("bf16", 0.1)])
def test_same_seed_same_images(trained: Path, precision: str, rounding: float) -> None:
    words = ("--steps", "4", "--device", "cpu", "--precision", precision)
    whole = drawn(trained, *words, "--count", "8")
    assert torch.equal(drawn(trained, *words, "--count", "8"), whole)
    fewer = drawn(trained, *words, "--count", "3")
    torch.testing.assert_close(fewer, whole[:3], rtol=0, atol=rounding)
    parts = drawn(trained, *words, "--count", "8", "--batch", "3")
    torch.testing.assert_close(parts, whole, rtol=0, atol=rounding)
    other = drawn(trained, *words, "--count", "8", "--seed", "1")
    assert (other - whole).abs().max() > 0.5


@pytest.mark.parametrize(
    "words",
    [
        "--sampler ddpm",
        "--sampler ddpm --steps 7 --variance beta",
        "--eta 1",
        "--steps 20 --no-clip",
        "--sampler heun --steps 5 --spacing karras",
        "--sampler dpm_solver --steps 5 --spacing edm",
        "--sampler euler_ancestral --steps 5",
    ],
)
def test_every_walk_repeats_itself(trained: Path, words: str) -> None:
    first = drawn(trained, "--count", "4", *words.split())
    assert first.isfinite().all()
    assert torch.equal(drawn(trained, "--count", "4", *words.split()), first)


def test_walks_differ_and_labels_matter(trained: Path) -> None:
    choices = ["", "--sampler ddpm", "--eta 1", "--label red", "--label blue", "--no-clip"]
    choices += ["--sampler heun", "--sampler dpm_solver", "--sampler euler_ancestral"]
    choices += ["--steps 10", "--steps 10 --spacing karras"]
    images = [drawn(trained, "--count", "2", *words.split()) for words in choices]
    for i, one in enumerate(images):
        assert not any(torch.equal(one, other) for other in images[i + 1 :])
    assert torch.equal(drawn(trained, "--count", "2", "--label", "0"), images[3])


def test_the_grid_has_the_columns_asked_for(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    words = f"--count 6 --steps 2 --columns 6 --enlarge 2 --out {out}"
    assert cli.main(["sample", str(trained), *words.split()]) == 0
    side = drawn(trained, "--count", "1", "--steps", "2").shape[-1]
    with Image.open(out) as file:
        width, height = file.size
    assert height == 2 * side
    assert width > 6 * height  # six images and the gaps between them


def test_without_a_label_the_classes_take_turns(trained: Path) -> None:
    turns = drawn(trained, "--count", "8", "--batch", "4")
    for i, label in [(0, 0), (1, 1), (5, 5), (6, 0), (7, 1)]:  # six classes, also over batches
        same = drawn(trained, "--count", "8", "--batch", "4", "--label", str(label))[i]
        torch.testing.assert_close(turns[i], same, atol=0.1, rtol=0)
    chance = drawn(trained, "--count", "8", "--batch", "4", "--label", "none")
    assert not torch.equal(chance, turns)


def test_global_random_state_is_left_alone(trained: Path) -> None:
    before = torch.get_rng_state()
    drawn(trained, "--count", "2", "--sampler", "ddpm")
    assert torch.equal(torch.get_rng_state(), before)
