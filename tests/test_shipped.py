"""What ships with the course: small, described by cards, able to draw digits and scenes."""

import json
import shlex

import pytest
import torch

from tests.damage import flips_believed
from tutorial_lib.autoencoders import (
    load_autoencoder,
    shipped_autoencoders,
    with_autoencoder,
)
from tutorial_lib.checkpoints import SHIPPED, load_checkpoint, shipped
from tutorial_lib.cli.words import parse as parse_command
from tutorial_lib.datasets import scenes
from tutorial_lib.datasets.scene_captions import parse
from tutorial_lib.latents import peak_signal_to_noise
from tutorial_lib.metrics import judge_scenes
from tutorial_lib.metrics.digit_features import load_digit_classifier
from tutorial_lib.predictions import clip_x0
from tutorial_lib.samplers import ddim, evenly_spaced, last
from tutorial_lib.sampling import Recipe, draw
from tutorial_lib.training import TrainConfig


def test_it_is_small_and_holds_numbers_only() -> None:
    weights = SHIPPED / "mnist.safetensors"
    assert weights.stat().st_size <= 5_000_000
    header = weights.read_bytes()[8:].lstrip()
    assert header.startswith(b"{")  # safetensors: eight bytes of length, then JSON
    assert list(shipped()) == ["mnist", "words"]
    both = (SHIPPED / "words.safetensors", SHIPPED / "autoencoders" / "scenes.safetensors")
    assert sum(path.stat().st_size for path in both) <= 5_000_000


def test_the_command_on_the_card_gives_the_config_on_the_card() -> None:
    card = json.loads((SHIPPED / "mnist.json").read_text(encoding="utf-8"))
    program, dash_m, package, verb, *words = shlex.split(card["command"])
    assert (program, dash_m, package, verb) == ("python", "-m", "tutorial_lib", "train")
    parsed = parse_command([verb, *words], {"train": TrainConfig})
    assert parsed is not None
    config = parsed[1]
    # through JSON, so that tuples become lists, as on the card
    asked = json.loads(json.dumps(config.as_dict()))
    # fields added since the card was written have their defaults
    assert {name: asked[name] for name in card["config"]} == card["config"]
    assert card["steps"] == config.steps
    assert config.command() == card["command"]


def test_it_draws_the_requested_digits() -> None:
    checkpoint = load_checkpoint("mnist")
    labels = torch.arange(50) % 10
    noise = torch.randn(50, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    model = clip_x0(checkpoint.conditioned(labels), checkpoint.schedule)
    digits = last(ddim(model, checkpoint.schedule, noise, evenly_spaced(1000, 15)))
    judged = load_digit_classifier().probabilities(digits.clamp(-1, 1)).argmax(1)
    # 95 % of 1,000 are right at 50 steps; for 50 digits, 80 % is over three standard errors lower
    assert (judged == labels).float().mean() >= 0.8


def test_the_autoencoder_gives_scenes_back() -> None:
    trained = load_autoencoder("scenes")
    assert list(shipped_autoencoders()) == ["scenes"]
    data = scenes(100, seed=77)  # no picture of the training
    latents = trained.codec.encode(data.images)
    assert latents.shape == (100, 4, 16, 16)
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 0.1
    again = trained.codec.decode(latents)
    # of 512 scenes: 40.6 dB, all with every word right
    assert peak_signal_to_noise(data.images, again) > 39
    assert judge_scenes(again, data.words).all_right.double().mean() >= 0.97


def test_it_draws_what_prompts_say() -> None:
    checkpoint = with_autoencoder(load_checkpoint("words"))
    asked = scenes(160, seed=1_000_001, held_out=checkpoint.card["held_out"]).words
    asked = asked[parse(asked).relation < 0][:32]
    recipe = Recipe(steps=20, guidance=2, precision="fp32")
    verdict = judge_scenes(draw(checkpoint, recipe, range(32), asked), asked)
    # 96 % of such prompts are right at 30 steps; this is over three standard errors of 32 lower
    assert verdict.all_right.double().mean() >= 0.8


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("mnist", "weights"),
        ("words", "weights"),
        ("autoencoders/scenes", "weights"),
        ("judge/digit_classifier", "file"),
        ("judge/digit_reference", "file"),
    ],
)
def test_no_flipped_bit_of_a_card_is_believed(name: str, entry: str) -> None:
    card_path = SHIPPED / f"{name}.json"
    content = card_path.read_bytes()
    assert json.loads(content)[entry]["card_sha256"]
    believed = flips_believed(card_path, content, entry)
    assert believed < len(content) / 4  # of eight for each byte; the card is laid out with spaces
