"""Training an autoencoder: it learns, repeats itself, and names what is wrong."""

from typing import Any

import pytest
import torch

from tutorial_lib.datasets import scenes
from tutorial_lib.latents import peak_signal_to_noise
from tutorial_lib.networks import Autoencoder
from tutorial_lib.training.autoencoder import AutoencoderRun, train_autoencoder
from tutorial_lib.training.journal import TrainingError

IMAGES = scenes(200, size=16, seed=0).images
UNSEEN = scenes(100, size=16, seed=1).images


def small(**settings: Any) -> AutoencoderRun:
    torch.manual_seed(5)
    network = Autoencoder(widths=(8, 16))
    usual = {"progress": False, "steps": 4, "batch_size": 16, "precision": "fp32"}
    return train_autoencoder(IMAGES, network, **{**usual, **settings})


def test_it_learns_to_draw_what_it_has_not_seen():
    trained = small(steps=160)
    codec = trained.codec
    before = sum(trained.reconstruction[:10]) / 10
    assert sum(trained.reconstruction[-10:]) / 10 < before / 5
    again = codec.decode(codec.encode(UNSEEN))
    flat = UNSEEN.mean((2, 3), keepdim=True).expand_as(UNSEEN)
    gain = peak_signal_to_noise(UNSEEN, again) - peak_signal_to_noise(UNSEEN, flat)
    assert gain > 0.5, "decibels, over the mean color of each picture"
    latents = codec.encode(IMAGES)
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 0.01


def test_a_larger_weight_pulls_the_latents_to_a_standard_normal():
    weak, strong = (small(steps=40, kl_weight=weight) for weight in (0.0, 0.1))
    assert sum(strong.divergence[-5:]) < 0.5 * sum(weak.divergence[-5:])


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_state():
    state = torch.get_rng_state()
    first, again, other = (
        train_autoencoder(IMAGES, steps=3, seed=seed, batch_size=8, progress=False)
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert first.reconstruction == again.reconstruction
    pairs = zip(
        first.codec.autoencoder.state_dict().values(),
        again.codec.autoencoder.state_dict().values(),
        strict=True,
    )
    assert all(torch.equal(a, b) for a, b in pairs)
    assert first.codec.scale.equal(again.codec.scale)
    assert first.reconstruction != other.reconstruction


def test_half_precision_learns_the_same_in_float32_weights():
    exact, rough = small(), small(precision="bf16")
    assert rough.reconstruction == pytest.approx(exact.reconstruction, rel=0.01)
    assert rough.divergence == pytest.approx(exact.divergence, rel=0.01)
    assert rough.reconstruction != exact.reconstruction
    assert all(p.dtype == torch.float32 for p in rough.codec.autoencoder.parameters())
    assert rough.codec.scale.dtype == torch.float32


def test_time_ends_a_run():
    ticks = iter(range(1000))
    trained = small(steps=None, max_seconds=5.5, clock=lambda: float(next(ticks)))
    assert len(trained.reconstruction) == 6
    assert trained.seconds == 6.0
    ticks = iter(range(1000))
    assert len(small(steps=3, max_seconds=50.0, clock=lambda: next(ticks)).divergence) == 3


ODD: Any = "no"


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"steps": None}, ValueError, "steps and max_seconds must not both be None"),
        ({"max_seconds": 0}, ValueError, "max_seconds must be finite and at least 0.001, got 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"kl_weight": -1}, ValueError, r"kl_weight must be in \[0, 1e\+06\], got -1"),
        ({"lr": ODD}, TypeError, "lr must be a number, got str 'no'"),
        ({"ema": 2}, ValueError, r"ema must be in \[0, 1\], got 2"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"precision": "fp8"}, ValueError, "precision must be one of auto, fp32, bf16, fp16"),
        ({"device": "nowhere"}, ValueError, "device must name a device, got 'nowhere'"),
    ],
)
def test_what_is_wrong_is_named(settings: dict, error: type, message: str):
    with pytest.raises(error, match=message):
        small(**settings)


@pytest.mark.plain_errors
def test_pictures_that_cannot_be_taken_and_losses_that_explode_are_named():
    with pytest.raises(ValueError, match=r"size of images must be a multiple of 4 .* got 15 x 16"):
        train_autoencoder(IMAGES[:, :, 1:], progress=False)
    with pytest.raises(TypeError, match="images must be a tensor"):
        train_autoencoder(ODD)
    with pytest.raises(TypeError, match="autoencoder must be a Autoencoder"):
        train_autoencoder(IMAGES, ODD)
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step \d+"):
        small(lr=1e6, muon_lr=1e6, steps=50)
