"""LoRA: nothing changes at first, little trains, and what is merged answers the same."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.draws import seeded
from tutorial_lib.networks import TextUNet
from tutorial_lib.networks.lora import LowRank, add_lora, lora_parameters, merge_lora

LAYERS = {
    "linear": (nn.Linear(6, 5), torch.randn(3, 6, generator=seeded())),
    "linear without bias": (nn.Linear(6, 5, bias=False), torch.randn(3, 6, generator=seeded())),
    "conv": (nn.Conv2d(4, 6, 3, padding=1), torch.randn(2, 4, 5, 5, generator=seeded())),
    "conv, stride 2": (nn.Conv2d(4, 6, 3, stride=2), torch.randn(2, 4, 7, 7, generator=seeded())),
    "circular": (
        nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"),
        torch.randn(2, 4, 5, 5, generator=seeded()),
    ),
    "embedding": (nn.Embedding(7, 6), torch.tensor([[0, 3], [6, 6]])),
}


def learned(network: nn.Module) -> nn.Module:
    """The network with its A and B changed, as training would."""
    with torch.no_grad():
        for parameter in lora_parameters(network).values():
            parameter += 0.3 * torch.randn(parameter.shape, generator=seeded(parameter.numel()))
    return network


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_begins_as_it_was_and_answers_with_the_formula(kind: str):
    layer, x = LAYERS[kind]
    expected = layer(x).detach()
    adapted = LowRank(layer, 2, alpha=3.0, generator=seeded(1))
    assert torch.equal(adapted(x), expected)
    learned(adapted)
    with torch.no_grad():
        change = torch.zeros_like(layer.weight).flatten(1)  # type: ignore[arg-type]
        for i in range(len(change)):  # W + (alpha / r) sum over r of B[i, r] A[r, j]
            for j in range(change.shape[1]):
                change[i, j] = 3.0 / 2 * sum(adapted.up[i, r] * adapted.down[r, j] for r in (0, 1))
        other = LowRank(layer, 2).merged()
        other.weight += change.view_as(layer.weight)  # type: ignore[operator, arg-type]
    torch.testing.assert_close(adapted(x), other(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(adapted.merged()(x), adapted(x), atol=1e-6, rtol=1e-6)
    assert type(adapted.merged()) is type(layer)


@pytest.fixture
def network() -> TextUNet:
    torch.manual_seed(0)
    net = TextUNet(4, 9, 5, widths=(32, 64), text_width=32)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=seeded(parameter.numel()))
    return net


def answer(net: nn.Module) -> Tensor:
    x = torch.randn(2, 4, 8, 8, generator=seeded(2))
    words = torch.tensor([[1, 2, 3, 0, 0], [8, 0, 0, 0, 0]])
    with torch.no_grad():
        return net(x, torch.tensor([5, 500]), words)


def test_a_network_with_lora_is_trained_a_little_and_merged(network: TextUNet):
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    adapted = add_lora(network, rank=2, generator=seeded())
    assert torch.equal(answer(adapted), answer(network))
    trained = [p for p in adapted.parameters() if p.requires_grad]
    assert {id(p) for p in trained} == {id(p) for p in lora_parameters(adapted).values()}
    share = sum(p.numel() for p in trained) / sum(p.numel() for p in network.parameters())
    assert share < 0.2
    optimizer = torch.optim.SGD(trained, lr=0.1)
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([5, 500])
    (adapted(x, t, torch.tensor([[1, 2, 3, 0, 0]] * 2)) - 1).square().mean().backward()
    optimizer.step()
    assert not torch.allclose(answer(adapted), answer(network))
    merged = merge_lora(learned(adapted))
    torch.testing.assert_close(answer(merged), answer(adapted), atol=1e-4, rtol=1e-4)
    assert type(merged) is TextUNet
    assert merged.config == network.config
    assert merged.state_dict().keys() == kept.keys()
    assert all(p.requires_grad for p in merged.parameters())
    assert all(torch.equal(value, kept[name]) for name, value in network.state_dict().items())


def test_where_chooses_layers(network: TextUNet):
    adapted = add_lora(network, rank=4, where=lambda name, _: name.endswith((".query", ".word")))
    names = {name.rpartition(".")[0] for name in lora_parameters(adapted)}
    ask = [f"levels.{part}.ask.query" for part in ("down", "inner", "up")]
    assert names == {"text.word", *ask}
    share = sum(p.numel() for p in lora_parameters(adapted).values())
    assert share < 0.05 * sum(p.numel() for p in network.parameters())


def test_the_first_a_comes_from_the_generator(network: TextUNet):
    state = torch.get_rng_state()
    one, two = (lora_parameters(add_lora(network, generator=seeded(5))) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], two[name]) for name in one)
    ups = [value for name, value in one.items() if name.endswith(".up")]
    assert all((up == 0).all() for up in ups)
    assert all((value != 0).all() for name, value in one.items() if name.endswith(".down"))


ODD: Any = "no"


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: LowRank(nn.LayerNorm(3), 2),
            TypeError,
            "layer must be an nn.Linear, .* LayerNorm",
        ),
        (lambda: LowRank(nn.Conv2d(4, 4, 1, groups=2), 2), TypeError, "Conv2d of one group"),
        (lambda: LowRank(nn.Linear(3, 3), 0), ValueError, "rank must be at least 1, got 0"),
        (lambda: LowRank(nn.Linear(3, 3), 2, 0.0), ValueError, "alpha must be above 0, got 0"),
        (lambda: LowRank(nn.Linear(3, 3), 2, 1.0, ODD), TypeError, "generator must be a torch.Gen"),
        (lambda: add_lora(ODD), TypeError, "network must be a Module"),
        (lambda: add_lora(nn.ReLU()), ValueError, "where must choose a layer to adapt, got none"),
        (
            lambda: add_lora(nn.Sequential(nn.Linear(2, 2)), where=lambda name, _: name == "x"),
            ValueError,
            "where must choose a layer to adapt, got none",
        ),
        (
            lambda: add_lora(add_lora(nn.Sequential(nn.Linear(2, 2)))),
            ValueError,
            "network must have no LoRA yet; merge_lora ends it",
        ),
        (lambda: merge_lora(nn.ReLU()), ValueError, "network must have LoRA to merge, got none"),
        (lambda: merge_lora(ODD), TypeError, "network must be a Module"),
    ],
)
def test_what_is_wrong_is_named(call, error: type, message: str):
    with pytest.raises(error, match=message):
        call()
