"""The U-Net that reads: what it is told reaches every place; messages about what is wrong."""

import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.draws import seeded
from tutorial_lib.networks import TextUNet, TinyUNet
from tutorial_lib.networks.text_unet import WAVES, Places, text_unet_parameters

SMALL: dict[str, Any] = {"in_channels": 4, "vocabulary": 9, "length": 5, "widths": (16, 32)}


def awake(net: TextUNet) -> TextUNet:
    """The net with every parameter moved a little, so that no branch is switched off by a zero."""
    generator = seeded(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return net.eval()


def inputs(batch: int = 3, height: int = 8, width: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(batch, 4, height, width, generator=seeded(2))
    words = torch.randint(0, 9, (batch, 5), generator=seeded(3))
    return x, torch.arange(1, batch + 1) * 100, words


@pytest.mark.parametrize(
    "settings", [{}, {"patch": 2}, {"widths": (48,)}, {"widths": (16, 24, 32)}]
)
@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 11)])
def test_any_size_comes_back_in_its_shape(settings: dict, height: int, width: int):
    net = awake(TextUNet(**{**SMALL, **settings}))
    x, t, words = inputs(2, height, width)
    answer = net(x, t, words)
    assert answer.shape == x.shape
    assert answer.isfinite().all()


def test_it_starts_at_zero_and_every_weight_gets_a_gradient():
    net = TextUNet(**SMALL)
    x, t, words = inputs()
    assert (net(x, t, words) == 0).all()
    words[0] = torch.tensor([1, 2, 3, 4, 5])  # every position
    awake(net)(x, t, words).square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@torch.no_grad()
def test_no_words_are_the_empty_sentence():
    net = awake(TextUNet(**SMALL))
    x, t, words = inputs()
    empty = net.no_condition.expand(3, -1)
    assert empty.tolist() == [[0] * 5] * 3
    assert torch.equal(net(x, t), net(x, t, empty))
    assert not torch.allclose(net(x, t), net(x, t, words))


@torch.no_grad()
def test_each_row_is_told_its_own_words_and_the_others_change_nothing():
    net = awake(TextUNet(**SMALL))
    x, t, words = inputs()
    together = net(x, t, words)
    alone = torch.cat([net(x[i : i + 1], t[i : i + 1], words[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    shorter = torch.tensor([[1, 2, 0, 0, 0]])
    assert not torch.allclose(net(x[:1], t[:1], shorter), net(x[:1], t[:1], shorter.flip(1)))


@torch.no_grad()
@pytest.mark.parametrize("cross_attention", [True, False])
def test_without_cross_attention_only_the_mean_of_the_words_is_told(cross_attention: bool):
    """Two sentences of other words, whose vectors have the same mean."""
    net = awake(TextUNet(**SMALL, text_layers=0, cross_attention=cross_attention))
    net.text.position.weight.zero_()
    vectors = torch.randn(3, 64, generator=seeded(4))
    net.text.word.weight[:5] = torch.stack([0 * vectors[0], vectors[0], -vectors[0], *vectors[1:]])
    net.text.word.weight[4] = -vectors[1]
    net.text.norm = torch.nn.LayerNorm(64, elementwise_affine=False)  # odd, so means stay equal
    x, t, _ = inputs(1)
    told = [net(x, t, torch.tensor([words])) for words in ([1, 2, 0, 0, 0], [3, 4, 0, 0, 0])]
    assert torch.allclose(*told, atol=1e-5) is not cross_attention
    assert bool(net.attention_maps(x, t, torch.tensor([[1, 2, 0, 0, 0]]))) is cross_attention


@torch.no_grad()
def test_attention_maps_are_what_the_network_used():
    net = awake(TextUNet(**SMALL))
    x, t, words = inputs()
    words[0] = torch.tensor([1, 2, 0, 0, 0])
    before = net(x, t, words)
    maps = net.attention_maps(x, t, words)
    assert torch.equal(net(x, t, words), before), "looking changes nothing"
    assert list(maps) == ["levels.down.ask", "levels.inner.ask", "levels.up.ask"]
    assert [tuple(m.shape) for m in maps.values()] == [
        (3, 1, 8, 8, 6),
        (3, 1, 4, 4, 6),
        (3, 1, 8, 8, 6),
    ]
    for shares in maps.values():
        torch.testing.assert_close(shares.sum(-1), torch.ones(shares.shape[:-1]))
        assert (shares[0, ..., 3:] == 0).all(), "padding"
    assert not any(module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"widths": (16,), "text_layers": 0},
        {"widths": (16, 24, 32), "blocks": 2, "bottom_blocks": 3, "text_width": 20},
        {"cross_attention": False, "patch": 2},
        {"places": False, "blocks": 2},
        {"places": False, "cross_attention": False},
    ],
)
def test_weights_and_tensors_are_counted_without_building(settings: dict):
    net = TextUNet(**{**SMALL, **settings})
    assert text_unet_parameters(net.config) == sum(p.numel() for p in net.parameters())
    assert TextUNet.fewest_tensors(**net.config) <= len(net.state_dict())
    assert json.loads(json.dumps(net.config)) == net.config
    assert TextUNet.checked(**net.config) == net.config
    again = TextUNet(**net.config)
    assert [p.shape for p in again.parameters()] == [p.shape for p in net.parameters()]


def test_it_is_a_tiny_unet_around_what_it_reads():
    """With the same widths it has the weights of a TinyUNet, and those of the text."""
    tiny = TinyUNet(4, widths=(16, 32), patch=1)
    net = TextUNet(**SMALL)
    both = len(tiny.state_dict())
    ask, text, sentence, places = 8, 2 + 12 * 2 + 2, 2, 4
    assert len(net.state_dict()) == both + 3 * ask + text + sentence + places


@torch.no_grad()
def test_each_place_is_told_where_it_is():
    """Against a loop over places and waves; and no two places of a picture are told the same."""
    place = Places(5)
    x = torch.randn(2, 5, 3, 4, generator=seeded(5))
    told = place(x) - x
    for row in range(3):
        for column in range(4):
            waves = [math.cos(math.pi * k * (column + 0.5) / 4) for k in range(1, WAVES + 1)]
            waves += [math.cos(math.pi * k * (row + 0.5) / 3) for k in range(1, WAVES + 1)]
            expected = place.told.weight @ torch.tensor(waves)
            for sample in told[:, :, row, column]:
                torch.testing.assert_close(sample, expected, atol=1e-5, rtol=1e-4)
    flat = Places(16)(torch.zeros(1, 16, 16, 16)).flatten(2)[0].T
    assert torch.pdist(flat).min() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("places", [True, False])
def test_only_places_tell_left_from_right_far_from_the_border(places: bool):
    """In the middle of a large blank picture all convolutions see the same, so all places ask the
    same."""
    net = awake(TextUNet(**SMALL, places=places))
    words = torch.tensor([[1, 2, 3, 4, 5]])
    middle = net(torch.zeros(1, 4, 64, 64), torch.tensor([1000]), words)[0, :, 30:34, 28:36]
    same = torch.allclose(middle[..., 0:4], middle[..., 4:8], atol=1e-6)
    assert same is not places


X, T, W = inputs()
NET = TextUNet(**SMALL)


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: TextUNet(4, 1, 5), ValueError, "vocabulary must be at least 2, got 1"),
        (lambda: TextUNet(4, 9, 0), ValueError, "length must be at least 1, got 0"),
        (lambda: TextUNet(0, 9, 5), ValueError, "in_channels must be at least 1, got 0"),
        (lambda: TextUNet(**{**SMALL, "widths": ()}), ValueError, "widths must hold the channels"),
        (lambda: TextUNet(**SMALL, text_width=0), ValueError, "text_width must be at least 1"),
        (lambda: TextUNet(**SMALL, text_layers=-1), ValueError, "text_layers must be at least 0"),
        (lambda: TextUNet(**SMALL, cross_attention=1), TypeError, "cross_attention must be True"),  # pyright: ignore
        (lambda: TextUNet(**SMALL, places=None), TypeError, "places must be True"),  # pyright: ignore
        (lambda: TextUNet(4, 10**12, 5), ValueError, "vocabulary must fit in memory"),
        (lambda: TextUNet(4, 9, 5, (10**7,)), ValueError, "widths must fit in memory"),
        (lambda: NET(X[:, :3], T, W), ValueError, r"x must have shape \(batch, 4, height, width"),
        (lambda: NET(X, T.float(), W), TypeError, "t must be int64"),
        (
            lambda: NET(X, T, W[:2]),
            ValueError,
            "words must have a row for each of 3 samples; got 2",
        ),
        (lambda: NET(X, T, W[:, :4]), ValueError, r"words must have shape \(B, 5\); got \(3, 4\)"),
        (lambda: NET(X, T, W + 9), ValueError, "words must be in 0..8, got"),
    ],
)
def test_what_is_wrong_is_named(call, error: type, message: str):
    with pytest.raises(error, match=message):
        call()
