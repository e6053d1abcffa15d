"""Muon against the singular values written out, and against torch's own for plain matrices."""

import pytest
import torch
from torch import nn

from tutorial_lib.training.optimizers import COEFFICIENTS, Muon, orthogonalize


def by_singular_values(matrix: torch.Tensor, iterations: int) -> torch.Tensor:
    """The odd polynomial on the singular values, U p(S) V', in float64."""
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm()
    a, b, c = COEFFICIENTS
    for _ in range(iterations):
        s = a * s + b * s**3 + c * s**5
    return (u * s) @ vh


@pytest.mark.parametrize("iterations", [1, 5])
def test_orthogonalize_acts_on_singular_values_alone(iterations: int) -> None:
    shapes = [(8, 27), (64, 32), (32, 64), (8, 8), (8, 30), (1, 5)]
    matrices = [torch.randn(shape) for shape in shapes]
    for matrix, answer in zip(matrices, orthogonalize(matrices, iterations), strict=True):
        expected = by_singular_values(matrix, iterations).float()
        torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-5)


def test_a_gradient_of_zero_moves_nothing() -> None:
    (answer,) = orthogonalize([torch.zeros(4, 6)])
    assert torch.equal(answer, torch.zeros(4, 6))


def test_singular_values_come_near_one() -> None:
    answers = orthogonalize([torch.randn(16, 40), torch.randn(40, 16)])
    for answer in answers:
        values = torch.linalg.svdvals(answer)
        assert values.min() > 0.6
        assert values.max() < 1.25


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon yet")
def test_steps_like_the_muon_of_torch_on_matrices() -> None:
    """Theirs works in bfloat16, so the walks agree to a few parts in a hundred."""
    start = [torch.randn(12, 20), torch.randn(20, 12), torch.randn(8, 8)]
    ours, theirs = ([nn.Parameter(w.clone()) for w in start] for _ in range(2))
    torch_muon = torch.optim.Muon(
        theirs, lr=0.05, momentum=0.9, weight_decay=0.1, adjust_lr_fn="original"
    )
    walks = [(ours, Muon(ours, lr=0.05, momentum=0.9, weight_decay=0.1)), (theirs, torch_muon)]
    for _ in range(6):
        targets = [torch.randn_like(w) for w in start]
        for weights, optimizer in walks:
            optimizer.zero_grad()
            loss = sum((w - t).square().sum() for w, t in zip(weights, targets, strict=True))
            assert isinstance(loss, torch.Tensor)
            loss.backward()
            optimizer.step()
    for mine, other, first in zip(ours, theirs, start, strict=True):
        moved = (mine - first).norm()
        assert (mine - other).norm() < 0.03 * moved


def test_a_kernel_counts_as_a_matrix_in_either_memory_format() -> None:
    kernel, gradient = torch.randn(6, 4, 3, 3), torch.randn(6, 4, 3, 3)
    expected = kernel - 0.1 * orthogonalize([(1 - 0.95**2) * gradient.flatten(1)])[0].view(
        6, 4, 3, 3
    )
    for memory_format in (torch.contiguous_format, torch.channels_last):
        weight = nn.Parameter(kernel.clone(memory_format=memory_format))
        weight.grad = gradient.clone(memory_format=memory_format)
        Muon([weight], lr=0.1).step()
        torch.testing.assert_close(weight.detach(), expected)


def test_vectors_are_refused_and_missing_gradients_left_out() -> None:
    with pytest.raises(ValueError, match=r"two axes or more, got one of shape \(3,\)"):
        Muon([nn.Parameter(torch.ones(3))])
    still, moved = nn.Parameter(torch.eye(3)), nn.Parameter(torch.eye(3))
    optimizer = Muon([still, moved])
    optimizer.step()
    moved.grad = torch.eye(3)
    assert optimizer.step(lambda: 2.5) == 2.5
    assert torch.equal(still, torch.eye(3))
    assert not torch.equal(moved, torch.eye(3))


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "lr must be .* got -1"),
        ({"weight_decay": float("nan")}, "weight_decay must be .* got nan"),
        ({"momentum": 1.5}, "momentum must be in .* got 1.5"),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
    ],
)
def test_muon_names_the_invalid_argument(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Muon([torch.nn.Parameter(torch.ones(2, 2))], **settings)
