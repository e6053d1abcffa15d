"""Latents: scaled to mean 0 and standard deviation 1, decoded to the same, measured."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.draws import seeded
from tutorial_lib.latents import Codec, autoencoder_losses, peak_signal_to_noise
from tutorial_lib.networks import Autoencoder


def pictures(count: int = 100, size: int = 16) -> Tensor:
    """Smooth random pictures."""
    coarse = torch.randn(count, 3, 4, 4, generator=seeded())
    return torch.tanh(nn.functional.interpolate(coarse, size, mode="bilinear"))


@pytest.fixture
def autoencoder() -> Autoencoder:
    torch.manual_seed(3)
    return Autoencoder(widths=(8, 16))


def test_fitted_latents_have_mean_0_and_deviation_1_in_each_channel(autoencoder: Autoencoder):
    x = pictures()
    codec = Codec.fitted(autoencoder, x)
    latents = codec.encode(x).double()
    assert latents.shape == (100, 4, 4, 4)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4).double(), atol=1e-5, rtol=0)
    spread = latents.std((0, 2, 3), correction=0)
    torch.testing.assert_close(spread, torch.ones(4).double(), atol=1e-5, rtol=0)
    with torch.no_grad():
        raw = autoencoder.encode(x).mean
    by_hand = torch.stack(
        [(raw[:, c] - raw[:, c].mean()) / raw[:, c].std(correction=0) for c in range(4)], dim=1
    )
    torch.testing.assert_close(latents.float(), by_hand, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_decoding_undoes_the_scale(autoencoder: Autoencoder):
    x = pictures()
    codec = Codec.fitted(autoencoder, x)
    again = codec.decode(codec.encode(x))
    torch.testing.assert_close(again, autoencoder(x).clamp(-1, 1), atol=1e-5, rtol=1e-4)
    assert not again.requires_grad
    far = codec.decode(100 * torch.randn(2, 4, 4, 4, generator=seeded()))
    assert far.abs().max() <= 1, "pictures stay in their range"


def test_batches_change_nothing_and_shapes_are_foreseen(autoencoder: Autoencoder):
    x = pictures(70)
    codec = Codec.fitted(autoencoder, x)
    torch.testing.assert_close(codec.encode(x)[66:], codec.encode(x[66:]), atol=1e-5, rtol=1e-4)
    assert codec.latent_shape((3, 64, 32)) == (4, 16, 8)
    assert codec.image_shape((4, 16, 8)) == (3, 64, 32)
    assert codec.device == torch.device("cpu")
    assert codec.to("cpu").scale.equal(codec.scale)


def test_the_loss_is_the_mean_error_and_the_mean_divergence(autoencoder: Autoencoder):
    x = pictures(5)
    reconstruction, divergence = autoencoder_losses(autoencoder, x, seeded(1))
    with torch.no_grad():
        posterior = autoencoder.encode(x)
        noise = torch.randn(posterior.mean.shape, generator=seeded(1))
        z = posterior.mean + (posterior.log_variance / 2).exp() * noise
        error = sum(float((autoencoder.decode(z)[i] - x[i]).square().sum()) for i in range(5))
        terms = posterior.mean**2 + posterior.log_variance.exp() - 1 - posterior.log_variance
    assert math.isclose(reconstruction.item(), error / x.numel(), rel_tol=1e-4)
    assert math.isclose(divergence.item(), float(terms.mean()) / 2, rel_tol=1e-4)
    (reconstruction + divergence).backward()
    assert all(p.grad is not None for p in autoencoder.parameters())


@pytest.mark.parametrize("share", [0.1, 0.01])
def test_psnr_of_a_known_error(share: float):
    """An error of 1/10 of the range is 20 dB, of 1/100 it is 40 dB."""
    x = torch.zeros(2, 3, 8, 8)
    got = peak_signal_to_noise(x, x + 2 * share)
    assert math.isclose(float(got), -20 * math.log10(share), rel_tol=1e-5)


NET: Any = Autoencoder(widths=(8, 16))
ONES, ODD = torch.ones(4), "no"
WRONG: Any = ODD
CODEC = Codec(NET, 0 * ONES, ONES)


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Codec(nn.ReLU(), ONES, ONES), TypeError, "autoencoder must be a Autoencoder"),  # pyright: ignore
        (lambda: Codec(NET, ONES[:3], ONES), ValueError, r"shift must have shape \(4,\), got \(3"),
        (lambda: Codec(NET, ONES, ONES / 0), ValueError, "scale must be finite"),
        (lambda: Codec(NET, ONES, 0 * ONES), ValueError, "scale must be above 0, got 0"),
        (lambda: Codec(NET, WRONG, ONES), TypeError, "shift must be a tensor"),
        (
            lambda: Codec.fitted(NET, torch.zeros(3, 3, 8, 10)),
            ValueError,
            "size of images must be a multiple of 4 for the autoencoder, got 8 x 10",
        ),
        (lambda: CODEC.encode(torch.zeros(0, 3, 8, 8)), ValueError, r"images must have .* N >= 1"),
        (lambda: CODEC.encode(torch.zeros(2, 1, 8, 8)), ValueError, r"\(3, height, width\) each"),
        (
            lambda: CODEC.decode(torch.zeros(2, 3, 8, 8)),
            ValueError,
            "latents must have 4 channels, got 3",
        ),
        (lambda: CODEC.decode(torch.zeros(4, 8, 8)), ValueError, r"latents must have shape \(N, C"),
        (lambda: CODEC.image_shape((3, 8, 8)), ValueError, "latents must have 4 channels, got 3"),
        (lambda: autoencoder_losses(WRONG, ONES), TypeError, "autoencoder must be a Autoencoder"),
        (lambda: peak_signal_to_noise(ONES, ONES[:2]), ValueError, "again must have the shape of"),
    ],
)
def test_what_is_wrong_is_named(call, error: type, message: str):
    with pytest.raises(error, match=message):
        call()
