"""The autoencoder: shapes, what is drawn from the posterior, and the divergence."""

import json
from typing import Any

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from tests.draws import seeded
from tutorial_lib.networks import Autoencoder
from tutorial_lib.networks.autoencoder import Posterior, autoencoder_parameters

SMALL: dict[str, Any] = {"widths": (8, 16)}


@pytest.mark.parametrize("settings", [{}, {"in_channels": 1, "latent_channels": 8, "blocks": 2}])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (4, 20)])
def test_pictures_become_latents_a_quarter_as_large_and_come_back(
    settings: dict, height: int, width: int
):
    net = Autoencoder(**{**SMALL, **settings})
    channels, latents = net.config["in_channels"], net.config["latent_channels"]
    x = torch.randn(2, channels, height, width, generator=seeded())
    posterior = net.encode(x)
    assert posterior.mean.shape == (2, latents, height // 4, width // 4)
    assert posterior.log_variance.shape == posterior.mean.shape
    assert net.latent_shape(x.shape[1:]) == posterior.mean.shape[1:]
    again = net.decode(posterior.mean)
    assert again.shape == x.shape
    assert torch.equal(net(x), again)


def test_every_weight_gets_a_gradient():
    net = Autoencoder(**SMALL)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=seeded(parameter.numel()))
    posterior = net.encode(torch.randn(2, 3, 8, 8, generator=seeded()))
    loss = net.decode(posterior.sample(seeded(1))).square().mean() + posterior.divergence().mean()
    loss.backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_samples_have_the_mean_and_the_variance_that_the_posterior_says():
    mean = torch.tensor([0.0, -2.0, 5.0]).view(1, 3, 1, 1).expand(1, 3, 200, 200)
    log_variance = torch.tensor([0.0, 2.0, -4.0]).view(1, 3, 1, 1).expand_as(mean)
    drawn = Posterior(mean, log_variance).sample(seeded()).double()
    spread = (log_variance[0, :, 0, 0].double() / 2).exp()
    off = (drawn.mean((0, 2, 3)) - mean[0, :, 0, 0].double()) / spread
    assert off.abs().max() < 5 / 200  # 40,000 draws: 5 standard errors
    ratio = drawn.std((0, 2, 3)) / spread
    assert (ratio - 1).abs().max() < 5 / 200 / 2**0.5


def test_gradients_reach_mean_and_variance_through_a_sample():
    mean, log_variance = (torch.zeros(1, 2, 3, 3, requires_grad=True) for _ in range(2))
    Posterior(mean, log_variance).sample(seeded()).square().sum().backward()
    noise = torch.randn(1, 2, 3, 3, generator=seeded())
    torch.testing.assert_close(mean.grad, 2 * noise)
    torch.testing.assert_close(log_variance.grad, noise.square())  # d(sd)/d(log var) = sd / 2


def test_the_divergence_is_that_of_torch_distributions():
    mean = torch.randn(3, 4, 2, 2, generator=seeded())
    log_variance = torch.randn(3, 4, 2, 2, generator=seeded(1))
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0))
    got = Posterior(mean, log_variance).divergence()
    torch.testing.assert_close(got, expected.sum((1, 2, 3)))
    assert float(Posterior(torch.zeros_like(mean), torch.zeros_like(mean)).divergence().sum()) == 0


@pytest.mark.parametrize("settings", [{}, SMALL, {"in_channels": 1, "widths": (5, 7), "blocks": 3}])
def test_weights_and_tensors_are_counted_without_building(settings: dict):
    net = Autoencoder(**settings)
    assert autoencoder_parameters(net.config) == sum(p.numel() for p in net.parameters())
    assert Autoencoder.fewest_tensors(**net.config) <= len(net.state_dict())
    assert json.loads(json.dumps(net.config)) == net.config
    assert Autoencoder.checked(**net.config) == net.config


NET, ODD = Autoencoder(**SMALL), "no"
WRONG: Any = ODD


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Autoencoder(0), ValueError, "in_channels must be at least 1, got 0"),
        (lambda: Autoencoder(latent_channels=0), ValueError, "latent_channels must be at least 1"),
        (lambda: Autoencoder(widths=(3,)), ValueError, "widths must hold the channels of two res"),
        (lambda: Autoencoder(widths=WRONG), TypeError, "an entry of widths must be an int"),
        (lambda: Autoencoder(widths=(3, 10**7)), ValueError, "widths must fit in memory"),
        (lambda: Autoencoder(blocks=0), ValueError, "blocks must be at least 1, got 0"),
        (
            lambda: NET(torch.zeros(1, 3, 30, 32)),
            ValueError,
            "size of images must be a multiple of 4 for the autoencoder, got 30 x 32",
        ),
        (lambda: NET(torch.zeros(1, 1, 8, 8)), ValueError, r"shape \(3, height, width\) each, got"),
        (
            lambda: NET(torch.zeros(3, 8, 8)),
            ValueError,
            r"images must have the shape .* got \(8, 8",
        ),
        (lambda: NET(WRONG), TypeError, "images must be a tensor, got str 'no'"),
        (
            lambda: NET.decode(torch.zeros(1, 3, 8, 8)),
            ValueError,
            r"latents must .*\(batch, 4, hei",
        ),
        (lambda: NET.decode(WRONG), TypeError, "latents must be a tensor"),
    ],
)
def test_what_is_wrong_is_named(call, error: type, message: str):
    with pytest.raises(error, match=message):
        call()
