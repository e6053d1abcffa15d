"""The loss of flow matching, and times drawn for a batch."""

# pyright: reportArgumentType=false
# (part of this file passes what the annotations forbid)

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tests.draws import normal, seeded
from tests.flows.exact import F64, LINEAR, exact_velocity, oracle
from tutorial_lib.flows import (
    denoiser_from_flow,
    flow_loss,
    flow_losses,
    logit_normal_times,
    times_of,
    uniform_times,
)
from tutorial_lib.losses import epsilon_losses

SHAPES = [(2,), (1, 3, 2)]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_loss_against_a_loop(shape: tuple[int, ...]):
    x0, eps, time = normal(4, *shape), normal(4, *shape, seed=1), torch.tensor([0.0, 0.3, 0.9, 1.0])
    found = flow_losses(lambda x, time: x.sin(), x0, time, eps)
    for i in range(4):
        s, squares = float(time[i]), []
        for a, b in zip(x0[i].flatten().tolist(), eps[i].flatten().tolist(), strict=True):
            squares.append((math.sin((1 - s) * a + s * b) - (b - a)) ** 2)
        assert float(found[i]) == pytest.approx(sum(squares) / len(squares), abs=1e-6)
    loss = flow_loss(lambda x, time: x.sin(), x0, time, eps)
    assert float(loss) == pytest.approx(float(found.sum()) / 4)


def test_the_model_is_asked_at_the_times_and_told_the_condition():
    x0, eps, time = normal(3, 2), normal(3, 2, seed=1), torch.tensor([0.1, 0.5, 0.8], dtype=F64)
    told = []

    def model(x: Tensor, *rest: Tensor) -> Tensor:
        told.append(rest)
        return torch.zeros_like(x)

    labels, words = torch.tensor([3, 0, 1]), torch.tensor([[1, 2], [3, 4], [5, 6]])
    for condition in (None, labels, words):
        loss = flow_loss(model, x0, time, eps, condition=condition)
        assert float(loss) == pytest.approx(float((eps - x0).square().mean()))
    assert [len(rest) for rest in told] == [1, 2, 2]
    assert all(torch.equal(rest[0], time) for rest in told)
    assert torch.equal(told[1][1], labels)
    assert torch.equal(told[2][1], words)


def test_the_loss_trains_weights():
    """The gradient for a model that answers with one number: 2 mean(c - (eps - x_0))."""
    answer = nn.Parameter(torch.tensor(0.7, dtype=F64))
    x0, eps = normal(5, 3), normal(5, 3, seed=1)
    flow_loss(lambda x, time: answer.expand_as(x), x0, torch.rand(5), eps).backward()
    assert answer.grad is not None
    assert float(answer.grad) == pytest.approx(2 * float((0.7 - (eps - x0)).mean()))


def test_the_mean_velocity_has_the_smallest_loss():
    """With an error d the loss grows by d^2, within four standard errors of so many draws."""
    x0 = oracle(LINEAR).sample(20_000, seeded(0))
    eps, time = normal(*x0.shape, seed=1), uniform_times(len(x0), generator=seeded(2)).double()
    exact = exact_velocity()
    best = flow_losses(exact, x0, time, eps)
    for error in (torch.tensor([0.3, -0.2], dtype=F64), torch.tensor([0.0, 0.1], dtype=F64)):
        off = flow_losses(lambda x, time, error=error: exact(x, time) + error, x0, time, eps)
        grown = off - best
        expected = float(error.square().mean())
        assert abs(float(grown.mean()) - expected) < 4 * float(grown.std()) / len(x0) ** 0.5


def test_the_epsilon_loss_is_the_same_with_another_weight():
    """An error d of the velocity is an error (1 - time) d of eps: at every step of a schedule."""
    t = torch.arange(1, 1001)
    x0, eps, time = normal(1000, 3), normal(1000, 3, seed=1), times_of(LINEAR)[t]

    def model(x: Tensor, time: Tensor) -> Tensor:
        return (3 * x + time[:, None]).cos()

    as_eps = epsilon_losses(denoiser_from_flow(model, LINEAR), LINEAR, x0, t, eps)
    as_flow = flow_losses(model, x0, time, eps)
    assert_close(as_eps, (1 - time) ** 2 * as_flow, atol=1e-10, rtol=0)


# --- times


def test_uniform_times_are_uniform():
    times = uniform_times(20_000, generator=seeded(0))
    assert times.shape == (20_000,)
    assert times.dtype == torch.float32
    for share in (0.1, 0.5, 0.9):
        found = float((times < share).float().mean())
        assert abs(found - share) < 4 * math.sqrt(share * (1 - share) / 20_000)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-1.2, 0.5), (0.7, 2.0)])
def test_logit_normal_times_have_the_quantiles_of_their_density(mean: float, std: float):
    """P(time < 1 / (1 + exp(-mean - std q))) = Phi(q)."""
    times = logit_normal_times(20_000, mean=mean, std=std, generator=seeded(0))
    assert times.dtype == torch.float32
    assert times.min() >= 0
    assert times.max() <= 1
    for q in (-2.0, -0.5, 0.0, 1.0):
        share = 0.5 * (1 + math.erf(q / math.sqrt(2)))
        found = float((times < 1 / (1 + math.exp(-mean - std * q))).float().mean())
        assert abs(found - share) < 4 * math.sqrt(share * (1 - share) / 20_000)


@pytest.mark.parametrize("draw", [uniform_times, logit_normal_times])
def test_the_same_seed_gives_the_same_times(draw: Callable):
    assert torch.equal(draw(9, generator=seeded(3)), draw(9, generator=seeded(3)))
    assert not torch.equal(draw(9, generator=seeded(3)), draw(9, generator=seeded(4)))
    assert logit_normal_times(3, mean=0.0, std=0.0).tolist() == [0.5] * 3


# --- wrong arguments

GOOD, HALF = torch.zeros(2, 3), torch.full((2,), 0.5)


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: flow_loss(None, GOOD, HALF, GOOD), TypeError, "model must be a function"),
        (lambda: flow_loss(zero, GOOD, HALF[:1], GOOD), ValueError, r"time must have shape \(2,\)"),
        (lambda: flow_loss(zero, GOOD, 2 * HALF + 1, GOOD), ValueError, "time must be in"),
        (lambda: flow_loss(zero, GOOD, HALF, GOOD[:1]), ValueError, "eps must have the shape"),
        (lambda: flow_loss(zero, GOOD[:0], HALF[:0], GOOD[:0]), ValueError, "x0 must hold at"),
        (lambda: flow_loss(half, GOOD, HALF, GOOD), ValueError, "model must answer with the shape"),
        (
            lambda: flow_loss(nan, GOOD, HALF, GOOD),
            ValueError,
            "the answer of model must be finite",
        ),
        (lambda: flow_loss(huge, GOOD, HALF, GOOD), ValueError, "too large for a loss in .* overf"),
        (lambda: told(HALF), TypeError, "condition must be an int64 tensor, got torch.float32"),
        (lambda: told("cat"), TypeError, "condition must be an int64 tensor, got str 'cat'"),
        (lambda: told(torch.tensor([1])), ValueError, r"condition must have shape \(2,\) or"),
        (lambda: told(torch.zeros(2, 1, 1).long()), ValueError, r"condition .* got \(2, 1, 1\)"),
        (lambda: uniform_times(0), ValueError, "count must be at least 1, got 0"),
        (lambda: uniform_times(2.0), TypeError, "count must be an int"),
        (lambda: uniform_times(10**18), ValueError, "count must fit in memory"),
        (lambda: uniform_times(2, generator=3), TypeError, "generator must be a torch.Generator"),
        (lambda: uniform_times(2, device="moon"), ValueError, "device must name a device"),
        (lambda: logit_normal_times(2, mean=math.nan), ValueError, "mean must be in"),
        (lambda: logit_normal_times(2, std=-1), ValueError, r"std must be in \[0, 50\], got -1"),
    ],
)
def test_wrong_arguments_are_named(call: Callable, error: type, message: str):
    with pytest.raises(error, match=message):
        call()


def zero(x: Tensor, time: Tensor, condition: Tensor | None = None) -> Tensor:
    return torch.zeros_like(x)


def half(x: Tensor, time: Tensor) -> Tensor:
    return x[:1]


def nan(x: Tensor, time: Tensor) -> Tensor:
    return x * math.nan


def huge(x: Tensor, time: Tensor) -> Tensor:
    return x + 1e38


def told(condition: object) -> Tensor:
    return flow_loss(zero, GOOD, HALF, GOOD, condition=condition)
