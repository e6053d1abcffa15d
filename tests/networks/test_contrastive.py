"""Pictures and sentences in one space: the loss by a loop, and pairs that are found."""

import math
from typing import Any

import pytest
import torch

from tests.draws import seeded
from tutorial_lib.datasets import scenes
from tutorial_lib.datasets.scene_captions import VOCABULARY
from tutorial_lib.networks.contrastive import LARGEST_SCALE, PictureTextNet, contrastive_loss

ODD: Any = "no"


def small() -> PictureTextNet:
    torch.manual_seed(0)
    return PictureTextNet(16, len(VOCABULARY), VOCABULARY.length, width=32, channels=8)


def test_the_loss_is_the_mean_over_rows_and_columns_by_a_loop():
    s = torch.randn(5, 5, generator=seeded(), dtype=torch.float64)
    total = 0.0
    for i in range(5):
        total -= float(s[i, i]) - math.log(sum(math.exp(s[i, j]) for j in range(5)))
        total -= float(s[i, i]) - math.log(sum(math.exp(s[j, i]) for j in range(5)))
    assert float(contrastive_loss(s)) == pytest.approx(total / 10, rel=1e-12)
    assert float(contrastive_loss(torch.zeros(7, 7))) == pytest.approx(math.log(7))
    assert float(contrastive_loss(50 * torch.eye(4))) < 1e-6


@torch.no_grad()
def test_similarities_are_scaled_cosines():
    net, data = small(), scenes(6, size=16)
    pictures, words = net.encode_pictures(data.images), net.encode_words(data.words)
    torch.testing.assert_close(pictures.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(words.norm(dim=1), torch.ones(6))
    expected = torch.tensor([[float(p @ w) / 0.07 for w in words] for p in pictures])
    torch.testing.assert_close(net(data.images, data.words), expected, atol=1e-4, rtol=1e-4)
    net.log_scale.fill_(20.0)
    assert net(data.images, data.words).abs().max() <= LARGEST_SCALE * (1 + 1e-6)


def test_it_learns_which_caption_belongs_to_which_picture():
    net, data = small(), scenes(32, size=16, seed=3)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(60):
        loss = contrastive_loss(net(data.images, data.words))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = net(data.images, data.words).argmax(1)
    assert (found == torch.arange(32)).double().mean() > 0.5, "by chance 1 in 32"


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: PictureTextNet(24, 5, 3), ValueError, "size must be a multiple of 16, got 24"),
        (lambda: PictureTextNet(16, 5, 3, channels=0), ValueError, "channels must be at least 1"),
        (lambda: PictureTextNet(16, 1, 3), ValueError, "vocabulary must be at least 2, got 1"),
        (
            lambda: small().encode_pictures(torch.zeros(2, 3, 16, 32)),
            ValueError,
            r"images must have shape \(B, \*\(3, 16, 16\)\), got \(2, 3, 16, 32\)",
        ),
        (lambda: small().encode_words(torch.zeros(2, 4).long()), ValueError, "words must have sh"),
        (lambda: contrastive_loss(ODD), TypeError, "similarity must be a tensor"),
        (lambda: contrastive_loss(torch.zeros(2, 3)), ValueError, r"shape \(B, B\), got \(2, 3\)"),
        (lambda: contrastive_loss(torch.zeros(0, 0)), ValueError, r"shape \(B, B\), got \(0, 0\)"),
    ],
)
def test_what_is_wrong_is_named(call, error: type, message: str):
    with pytest.raises(error, match=message):
        call()
