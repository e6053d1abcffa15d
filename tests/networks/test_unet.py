"""The networks: shapes, what reaches what, and the messages about wrong arguments."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tutorial_lib.networks import layers
from tutorial_lib.networks.unet import (
    ResBlock,
    TinyUNet,
    TwoLevelUNet,
    parameter_counts,
    timestep_embedding,
)

SMALL: dict[str, Any] = {"widths": (16, 32)}


def awake(net: Any, scale: float = 0.1) -> Any:
    """The net with every parameter moved a little, so that no branch is switched off by a zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
    return net.eval()


def steps(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


# --- the embedding ------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 6, 32])
@pytest.mark.parametrize("max_period", [100.0, 10000.0])
def test_embedding_equals_a_loop_over_the_formula(dim: int, max_period: float):
    t = steps(0, 1, 7, 500, 1000)
    expected = torch.zeros(len(t), dim, dtype=torch.float64)
    for row, step in enumerate(t.tolist()):
        for i in range(dim // 2):
            angle = step / max_period ** (i / (dim // 2))
            expected[row, i] = math.sin(angle)
            expected[row, dim // 2 + i] = math.cos(angle)
    # float32 angles up to 1000 are right to 6e-5 of a radian
    got = timestep_embedding(t, dim, max_period)
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("num_steps", [10, 1000, 4000])
def test_embedding_tells_all_steps_apart(num_steps: int):
    points = timestep_embedding(torch.arange(num_steps + 1), 64).double()
    # Each point lies on a sphere of radius sqrt(32), so the nearest has the largest product.
    products = (points @ points.T).fill_diagonal_(-math.inf)
    nearest = (2 * (32 - products.max())).sqrt()
    assert nearest > 0.5


def test_embedding_takes_fractional_steps():
    between = timestep_embedding(torch.tensor([2.5]), 8)
    assert not torch.equal(between, timestep_embedding(torch.tensor([2.0]), 8))


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("t", "dim", "error", "message"),
    [
        (3, 8, TypeError, "t must be a tensor"),
        (torch.zeros(2, 1), 8, ValueError, r"t must have shape \(B,\).*\(2, 1\)"),
        (torch.zeros(2), 7, ValueError, "dim must be even.*7"),
        (torch.zeros(2), 0, ValueError, "dim must be at least 2"),
        (torch.zeros(2), 8.0, TypeError, "dim must be an int"),
    ],
)
def test_embedding_refuses(t, dim, error, message):
    with pytest.raises(error, match=message):
        timestep_embedding(t, dim)


@pytest.mark.plain_errors
@pytest.mark.parametrize("max_period", [0.5, math.nan])
def test_embedding_refuses_a_period_below_one(max_period: float):
    with pytest.raises(ValueError, match="max_period"):
        timestep_embedding(torch.zeros(2), 8, max_period)


# --- shapes -------------------------------------------------------------------------------------

NETS: dict[str, Callable[[int], nn.Module]] = {
    "two levels": lambda channels: TwoLevelUNet(channels, width=8),
    "tiny": lambda channels: TinyUNet(channels, **SMALL),
    "tiny on pixels": lambda channels: TinyUNet(channels, widths=(16,), patch=1),
    "tiny, three levels": lambda channels: TinyUNet(channels, widths=(16, 16, 32), blocks=2),
    "tiny, deep below": lambda channels: TinyUNet(channels, **SMALL, bottom_blocks=3),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NETS)
def test_any_image_size_comes_back_as_it_went_in(name: str, channels: int):
    net = awake(NETS[name](channels))
    for height, width in [*((side, side) for side in range(8, 34)), (9, 32), (28, 17)]:
        x = torch.randn(2, channels, height, width)
        with torch.no_grad():
            answer = net(x, steps(1, 1000))
        assert answer.shape == x.shape
        assert answer.isfinite().all()


@pytest.mark.parametrize("widths", [(16,), (16, 32), (16, 16, 32)])
def test_bottom_blocks_stand_at_the_lowest_level_alone(widths: tuple[int, ...]):
    """Each block of the lowest level works on H / (patch 2^(levels-1)) positions a side."""
    sides: list[int] = []

    def note_side(_block: nn.Module, _inputs: object, answer: Tensor) -> None:
        sides.append(answer.shape[-1])

    finest = 32 // 2  # patch 2
    lowest = finest // 2 ** (len(widths) - 1)
    for bottom_blocks, expected in [(None, 2), (1, 1), (4, 4)]:
        net = awake(TinyUNet(3, widths=widths, blocks=2, bottom_blocks=bottom_blocks))
        sides.clear()
        for block in net.modules():
            if isinstance(block, ResBlock):
                block.register_forward_hook(note_side)
        net(torch.randn(1, 3, 32, 32), steps(10))
        assert sides.count(lowest) == 1 + expected  # one stands before the attention
        for level in range(len(widths) - 1):
            assert sides.count(finest // 2**level) == 4  # two down, two up


def test_a_config_from_before_bottom_blocks_builds_the_same_net():
    net = TinyUNet(3, **SMALL)
    older = {name: value for name, value in net.config.items() if name != "bottom_blocks"}
    TinyUNet(**older).load_state_dict(net.state_dict())


def test_padding_does_not_change_what_needs_none():
    """A 32 x 32 image is a multiple of every patch, so cutting nothing must cost nothing."""
    net = awake(TinyUNet(1, **SMALL))
    x, t = torch.randn(2, 1, 32, 32), steps(3, 900)
    smaller = net(x[:, :, :31, :31], t)
    zero_edge = x.clone()
    zero_edge[:, :, 31], zero_edge[:, :, :, 31] = 0, 0
    torch.testing.assert_close(smaller, net(zero_edge, t)[:, :, :31, :31])


def test_samples_of_a_batch_do_not_mix():
    net = awake(TinyUNet(3, **SMALL))
    x, t = torch.randn(3, 3, 16, 16), steps(5, 400, 1000)
    alone = torch.cat([net(x[i : i + 1], t[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(net(x, t), alone, rtol=1e-4, atol=1e-5)


def test_memory_layout_does_not_change_the_answer():
    net = awake(TinyUNet(3, **SMALL))
    x, t = torch.randn(2, 3, 16, 16), steps(5, 400)
    expected = net(x, t)
    answer = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), t)
    torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-5)


# --- a fresh net --------------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [None, 4])
def test_tiny_answers_exactly_zero_before_training(num_classes: int | None):
    net = TinyUNet(3, num_classes=num_classes)
    assert net(torch.randn(2, 3, 32, 32), steps(1, 1000)).count_nonzero() == 0


@pytest.mark.parametrize("name", NETS)
def test_every_parameter_gets_a_finite_gradient(name: str):
    net = awake(NETS[name](3))
    x = torch.randn(4, 3, 16, 16)
    (net(x, steps(1, 10, 100, 1000)) - x).square().mean().backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.count_nonzero(), key


def test_a_fresh_tiny_net_starts_learning_at_once():
    """Zeros at the end of branches must not lock each other: the loss falls from step one."""
    net = TinyUNet(1, **SMALL)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    x, t = torch.randn(4, 1, 8, 8), torch.full((4,), 500)
    history = []
    for _ in range(30):
        loss = (net(x, t) - x).square().mean()
        history.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert history[0] == pytest.approx(x.square().mean().item())
    assert history[-1] < 0.5 * history[0]


@pytest.mark.parametrize("num_classes", [None, 3])
def test_config_rebuilds_tiny(num_classes: int | None):
    net = awake(TinyUNet(3, widths=(16, 32, 32), blocks=2, patch=4, num_classes=num_classes))
    again = TinyUNet(**json.loads(json.dumps(net.config)))
    again.load_state_dict(net.state_dict())
    x, t = torch.randn(1, 3, 20, 20), steps(7)
    assert torch.equal(net(x, t), again.eval()(x, t))


def test_config_rebuilds_two_levels():
    net = TwoLevelUNet(1, width=8)
    again = TwoLevelUNet(**json.loads(json.dumps(net.config)))
    again.load_state_dict(net.state_dict())
    x, t = torch.randn(1, 1, 9, 9), steps(7)
    assert torch.equal(net(x, t), again(x, t))


# --- what reaches what --------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETS)
def test_the_step_changes_the_answer(name: str):
    net = awake(NETS[name](1))
    x = torch.randn(1, 1, 16, 16)
    assert not torch.allclose(net(x, steps(10)), net(x, steps(11)))
    assert not torch.allclose(net(x, steps(10)), net(x, steps(900)), atol=1e-3)


def test_the_step_reaches_every_block_of_tiny_by_its_own_way():
    """With all but one block deaf to the step, the answer must still depend on it."""
    net = awake(TinyUNet(1, widths=(16, 16, 32)))
    ways = [key for key, _ in net.named_modules() if key.endswith(".time")]
    assert len(ways) == 2 * 2 + 2  # down and up at two levels, two at the lowest
    saved = {key: value.clone() for key, value in net.state_dict().items()}
    x = torch.randn(1, 1, 32, 32)
    for way in ways:
        net.load_state_dict(saved)
        for other in ways:
            if other != way:
                nn.init.zeros_(net.get_submodule(other).weight)
        difference = (net(x, steps(10)) - net(x, steps(900))).abs().max()
        assert difference > 1e-4, way


def test_two_levels_hear_of_the_step_at_the_bottleneck_only():
    net = awake(TwoLevelUNet(1, width=8))
    nn.init.zeros_(net.time.weight)
    x = torch.randn(1, 1, 16, 16)
    assert torch.equal(net(x, steps(10)), net(x, steps(900)))


@pytest.mark.parametrize("widths", [(16, 32), (16, 16, 32)])
def test_tiny_uses_its_skip_connections(widths: tuple[int, ...]):
    """With the way through the lower levels cut, each level's input still reaches the output."""
    net = awake(TinyUNet(1, widths=widths))
    level = net.levels
    for _ in widths[1:]:
        nn.init.zeros_(level.grow.weight)
        level = level.inner
    x = torch.randn(1, 1, 32, 32, requires_grad=True)
    net(x, steps(500)).square().sum().backward()
    assert x.grad is not None
    assert x.grad.count_nonzero() == x.numel()


def test_every_skip_of_tiny_carries_something():
    net = awake(TinyUNet(1, widths=(16, 16, 32), blocks=2))
    x = torch.randn(1, 1, 32, 32)
    expected = net(x, steps(500))
    for level in (net.levels, net.levels.inner):
        for block in level.up:
            kept = block.conv1.weight.clone(), block.shortcut.weight.clone()
            with torch.no_grad():  # the second half of what comes in is the skip
                block.conv1.weight[:, 16:] = 0
                block.shortcut.weight[:, 16:] = 0
                without = net(x, steps(500))
                block.conv1.weight.copy_(kept[0])
                block.shortcut.weight.copy_(kept[1])
            assert (without - expected).abs().max() > 1e-3


def test_two_levels_use_their_skip_connection():
    net = awake(TwoLevelUNet(1, width=8))
    nn.init.zeros_(net.up.weight)
    x = torch.randn(1, 1, 16, 16, requires_grad=True)
    net(x, steps(500))[0, 0, 8, 8].backward()
    assert x.grad is not None
    assert x.grad[0, 0, 8, 8] != 0


def seen_by_the_center(net: Any, side: int = 32) -> Tensor:
    """Which pixels of a square image move the output's center pixel, bool (side, side)."""
    seen = torch.zeros(side, side, dtype=torch.bool)
    for seed in range(4):  # a relu that is off in one image is on in another
        x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(seed))
        x.requires_grad_()
        net(x, steps(500))[0, :, side // 2, side // 2].sum().backward()
        assert x.grad is not None
        seen |= (x.grad != 0).any(1)[0]
    return seen


def test_two_levels_see_a_part_of_the_image_and_no_more():
    seen = seen_by_the_center(awake(TwoLevelUNet(3)))
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    # From the output down: head, merge and up look one pixel further each, -3..3, which lies on
    # the halves -2..1; middle and down make them -3..2 and the pixels -7..5; stem -8..6.
    for side in (rows, columns):
        assert (int(side.min()) - 16, int(side.max()) - 16) == (-8, 6)
    assert seen.sum() == 15 * 15  # of 1024


def test_tiny_sees_all_of_the_image():
    assert seen_by_the_center(awake(TinyUNet(3))).all()


@pytest.mark.parametrize("attention", [True, False])
def test_attention_brings_the_far_corners_in(attention: bool):
    net = awake(TinyUNet(3))
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.GroupNorm):  # its mean over the image reaches everywhere too
            net.set_submodule(name, nn.Identity())
    if not attention:
        nn.init.zeros_(net.levels.inner.attention.out.weight)
    assert seen_by_the_center(net, side=96).all() == attention


def test_attention_equals_the_formula_in_a_loop():
    net = awake(TinyUNet(1, widths=(16, 64))).levels.inner.attention
    x = torch.randn(2, 64, 3, 4)
    tokens = net.norm(x).flatten(2).transpose(1, 2)
    expected = x.clone()
    for sample in range(2):
        q, k, v = (tokens[sample] @ net.qkv.weight.T + net.qkv.bias).split(64, dim=1)
        mixed = torch.zeros(12, 64)
        for head in (slice(0, 32), slice(32, 64)):
            for i in range(12):
                weight = torch.stack([(q[i, head] * k[j, head]).sum() for j in range(12)])
                weight = (weight / math.sqrt(32)).exp()
                mixed[i, head] = (weight[:, None] * v[:, head]).sum(0) / weight.sum()
        expected[sample] += (mixed @ net.out.weight.T + net.out.bias).T.view(64, 3, 4)
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)


# --- classes ------------------------------------------------------------------------------------


def test_labels_change_the_answer_and_none_means_no_class():
    net = awake(TinyUNet(1, **SMALL, num_classes=3))
    x, t = torch.randn(2, 1, 16, 16), steps(300, 700)
    answers = [net(x, t, torch.full((2,), label)) for label in range(4)]
    for i in range(4):
        for j in range(i):
            assert not torch.allclose(answers[i], answers[j], atol=1e-4), (i, j)
    assert torch.equal(net(x, t), answers[3])


def test_a_subclass_may_tell_the_blocks_more():
    """As lesson 8 does it: a table of its own gives the answers that ``num_classes`` gives."""

    class Told(TinyUNet):
        def embedding(self, t: Tensor, labels: Tensor | None = None) -> Tensor:
            h = nn.functional.silu(self.time_in(timestep_embedding(t, self.time_in.in_features)))
            return nn.functional.silu(self.time_out(h) + table[labels])

    own = awake(TinyUNet(1, num_classes=4, **SMALL))
    told = Told(1, **SMALL)
    told.load_state_dict({k: v for k, v in own.state_dict().items() if not k.startswith("label.")})
    table = own.label.weight
    x, labels = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)), steps(4, 0, 2)
    torch.testing.assert_close(told(x, steps(5, 6, 7), labels), own(x, steps(5, 6, 7), labels))


def test_each_sample_has_its_own_label():
    net = awake(TinyUNet(1, **SMALL, num_classes=3))
    x, t = torch.randn(2, 1, 16, 16), steps(300, 700)
    mixed = net(x, t, steps(0, 2))
    torch.testing.assert_close(mixed[0], net(x, t, steps(0, 0))[0])
    torch.testing.assert_close(mixed[1], net(x, t, steps(2, 2))[1])


# --- wrong arguments ----------------------------------------------------------------------------

X, T = torch.zeros(2, 3, 8, 8), torch.ones(2, dtype=torch.int64)


@pytest.mark.plain_errors
@pytest.mark.parametrize("net", [TwoLevelUNet(3, 8), TinyUNet(3, **SMALL)], ids=["two", "tiny"])
@pytest.mark.parametrize(
    ("x", "t", "error", "message"),
    [
        ([1.0], T, TypeError, "x must be a tensor"),
        (X.long(), T, TypeError, "x must hold floating-point"),
        (X[0], T, ValueError, r"x must have shape \(batch, 3, height, width\), got \(3, 8, 8\)"),
        (X[:, :1], T, ValueError, r"x must have shape \(batch, 3, .*got \(2, 1, 8, 8\)"),
        (X, 5, TypeError, "t must be an int64 tensor"),
        (X, T.float(), TypeError, "t must be int64"),
        (X, T[:1], ValueError, r"t must have shape \(2,\)"),
        (X, T[:, None], ValueError, r"t must have shape \(2,\)"),
        (X, -T, ValueError, "t must be in 0..*got -1"),
    ],
)
def test_nets_refuse(net, x, t, error, message):
    with pytest.raises(error, match=message):
        net(x, t)


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (steps(0, 4), ValueError, r"labels must be in 0\.\.3, got 4"),
        (steps(-1, 0), ValueError, r"labels must be in 0\.\.3, got -1"),
        (steps(0), ValueError, r"labels must have shape \(2,\)"),
        (torch.zeros(2), TypeError, "labels must be int64"),
    ],
)
def test_tiny_refuses_labels(labels, error, message):
    with pytest.raises(error, match=message):
        TinyUNet(3, **SMALL, num_classes=3)(X, T, labels)


@pytest.mark.plain_errors
def test_a_net_without_classes_refuses_labels():
    with pytest.raises(ValueError, match="labels were given to a net without classes"):
        TinyUNet(3, **SMALL)(X, T, T)


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"in_channels": 0}, ValueError, "in_channels must be at least 1"),
        ({"in_channels": 3, "widths": ()}, ValueError, "widths must hold"),
        ({"in_channels": 3, "widths": 32}, ValueError, "widths must hold.*int 32"),
        ({"in_channels": 3, "widths": (32, 0)}, ValueError, "widths.* at least 1, got 0"),
        ({"in_channels": 3, "widths": (32, 6.4)}, TypeError, "widths.* int"),
        ({"in_channels": 3, "widths": (32, 100)}, ValueError, "widths.*32, got 100"),
        ({"in_channels": 3, "blocks": 0}, ValueError, "blocks must be at least 1"),
        ({"in_channels": 3, "bottom_blocks": 0}, ValueError, "bottom_blocks must be at least 1"),
        ({"in_channels": 3, "bottom_blocks": 1.0}, TypeError, "bottom_blocks must be an int"),
        ({"in_channels": 3, "patch": 0}, ValueError, "patch must be at least 1"),
        ({"in_channels": 3, "num_classes": 0}, ValueError, "num_classes must be at least 1"),
        ({"in_channels": 3, "num_classes": True}, TypeError, "num_classes must be an int"),
    ],
)
def test_tiny_cannot_be_built_of(arguments, error, message):
    with pytest.raises(error, match=message):
        TinyUNet(**arguments)


@pytest.mark.plain_errors
def test_two_levels_cannot_be_built_of_nothing():
    with pytest.raises(ValueError, match="in_channels must be at least 1"):
        TwoLevelUNet(0)
    with pytest.raises(ValueError, match="width must be at least 2"):
        TwoLevelUNet(1, width=1)


def test_no_condition_is_the_label_that_none_means():
    net = awake(TinyUNet(1, **SMALL, num_classes=3))
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 7])
    assert net.no_condition is not None
    assert torch.equal(net(x, t, net.no_condition.expand(2)), net(x, t))
    assert TinyUNet(1, **SMALL).no_condition is None
    assert not any("condition" in name for name in net.state_dict())


# --- sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"widths": (8,)},
        {"widths": (16, 8, 48), "blocks": 3, "patch": 1},
        {"widths": (8, 8), "blocks": 2, "bottom_blocks": 5, "patch": 4, "num_classes": 10},
        {"num_classes": 1, "in_channels": 1},
    ],
)
def test_weights_are_counted_without_building_them(arguments: dict):
    net = TinyUNet(**{"in_channels": 3, **arguments})
    counted = parameter_counts(net.config)
    assert sum(counted.values()) == sum(weight.numel() for weight in net.parameters())


ABSURD: list[tuple[dict[str, Any], str]] = [
    ({"widths": (100_000,)}, r"widths must fit in memory, got tuple \(100000,\): the network"),
    ({"widths": (8, 10**30)}, r"widths must fit in memory"),
    ({"widths": (8,) * 5000}, "widths must hold the channels of at most 16 levels, got 5000"),
    ({"blocks": 10**6}, "blocks must be at most 1024, got 1000000"),
    ({"bottom_blocks": 10**400}, r"bottom_blocks must be at most 1024, got about 10\^"),
    ({"patch": 10**6}, "patch must fit in memory, got 1000000: the network takes"),
    ({"in_channels": 10**18}, "in_channels must fit in memory, got 1000000000000000000"),
    ({"num_classes": 10**18}, "num_classes must fit in memory, got 1000000000000000000"),
]


@pytest.mark.plain_errors
@pytest.mark.parametrize(("arguments", "message"), ABSURD)
def test_networks_that_cannot_be_built_are_refused_by_name(arguments: dict, message: str):
    with pytest.raises(ValueError, match=f"^{message}"):
        TinyUNet(**{"in_channels": 3, **arguments})


@pytest.mark.plain_errors
def test_the_smallest_networks_sizes_are_checked_too():
    with pytest.raises(ValueError, match=r"^width must fit in memory, got 10000000: the network"):
        TwoLevelUNet(3, width=10**7)
    with pytest.raises(ValueError, match=r"^dim must fit in memory, got 1000000000000000"):
        timestep_embedding(steps(1, 2), 10**15)


def test_the_table_of_labels_starts_as_torch_would_start_it():
    torch.manual_seed(3)
    expected = torch.nn.Embedding(5, 64).weight
    torch.manual_seed(3)
    assert torch.equal(layers.embedding_table(5, 64).weight, expected)


def loads_the_compiler(code: str) -> bool:
    """Whether building something without memory loads torch's compiler, or its algebra."""
    program = f"import sys, torch\nwith torch.device('meta'):\n    {code}\n"
    program += "print('torch._dynamo' in sys.modules or 'sympy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.strip() == "True"


def test_a_network_is_built_without_memory_and_without_the_compiler():
    """It takes a second to load, each time that a checkpoint is read."""
    code = "from tutorial_lib.networks import unet; unet.TinyUNet(1, num_classes=10)"
    assert not loads_the_compiler(code)
    assert loads_the_compiler("torch.nn.Embedding(11, 8)"), "embedding_table in layers.py can go"
