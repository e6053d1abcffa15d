"""The optimizers of a run: AdamW, and Muon for weights that are matrices.

Adam scales each number on its own. Muon treats a weight as the matrix it is, and replaces the
momentum M = U S V' by about U V': every direction moves as fast as every other.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tutorial_lib import _validate
from tutorial_lib._validate import InvalidValueError

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the odd polynomial a s + b s^3 + c s^5 that pulls singular values to about 1 (Jordan 2024)."""


class Muon(Optimizer):
    """Momentum, orthogonalized by a Newton-Schulz iteration (Jordan et al. 2024).

    A convolution kernel (out, in, h, w) counts as a matrix (out, in h w). torch.optim.Muon does
    the same for matrices alone, one by one; here those of like size are worked on together, on
    their small Gram matrices, which is what makes it affordable for many small kernels.

    Args:
        params: weights of two axes or more.
        lr: the size of a step, times sqrt(out / in) where that is above 1.
        momentum: share of the running mean of the gradients that is kept at a step (Nesterov's).
        weight_decay: pull towards 0, times lr.
        iterations: of Newton and Schulz; 5 bring singular values into about 0.7 .. 1.2.

    Raises:
        TypeError, ValueError: a parameter with fewer than two axes, ``momentum`` outside [0, 1],
            ``lr`` or ``weight_decay`` no finite number of 0 or more, ``iterations`` below 1.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        iterations: int = 5,
    ) -> None:
        for name, value in (("lr", lr), ("weight_decay", weight_decay)):
            _validate.number(name, value, low=0.0, high=math.inf)
        _validate.number("momentum", momentum, low=0.0, high=1.0)
        _validate.whole_number("iterations", iterations, at_least=1)
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "iterations": iterations})
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim < 2:
                    shape = tuple(parameter.shape)
                    raise InvalidValueError(
                        f"params must have two axes or more, got one of shape {shape}"
                    )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Moves every parameter that has a gradient; ``closure``, if any, makes them and a loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            if not moved:
                continue
            directions = orthogonalize(self._momenta(moved, group["momentum"]), group["iterations"])
            for parameter, direction in zip(moved, directions, strict=True):
                outputs, inputs = direction.shape
                size = group["lr"] * math.sqrt(max(1.0, outputs / inputs))
                if group["weight_decay"]:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(direction.view(parameter.shape), alpha=size)
        return loss

    def _momenta(self, moved: list[Tensor], momentum: float) -> list[Tensor]:
        """Nesterov's look ahead of the running means, as matrices (out, rest)."""
        gradients = [p.grad for p in moved if p.grad is not None]
        for parameter in moved:
            if "momentum" not in self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        means = [self.state[parameter]["momentum"] for parameter in moved]
        torch._foreach_lerp_(means, gradients, 1 - momentum)  # type: ignore[attr-defined]
        ahead = torch._foreach_lerp(gradients, means, momentum)  # type: ignore[attr-defined]
        return [matrix.flatten(1) for matrix in ahead]  # (out, in, h, w) -> (out, in h w)


def orthogonalize(matrices: Sequence[Tensor], iterations: int = 5) -> list[Tensor]:
    """For each matrix U S V' about U V', by Newton-Schulz steps on U S^2 U'.

    All matrices whose shorter sides are alike share one batch of products. Each is first divided
    by its Frobenius norm, so that its singular values start in [0, 1].

    Raises:
        TypeError, ValueError: ``iterations`` not an int or below 1.
    """
    _validate.whole_number("iterations", iterations, at_least=1)
    wide = [m.T if len(m) > m.shape[1] else m for m in matrices]  # shorter side first
    alike: dict[int, list[int]] = defaultdict(list)
    for place, matrix in enumerate(wide):
        alike[len(matrix)].append(place)
    answers = list(matrices)
    for places in alike.values():
        factors = _newton_schulz(torch.stack([wide[i] @ wide[i].T for i in places]), iterations)
        for i, factor in zip(places, factors, strict=True):
            direction = factor @ wide[i]
            answers[i] = direction.T if wide[i] is not matrices[i] else direction
    return answers


def _newton_schulz(gram: Tensor, iterations: int) -> Tensor:
    """Q with Q M about orthogonal, for the Gram matrices M M', (batch, n, n) both.

    The step M <- (a + b R + c R^2) M with R = M M' needs M only through R, so the factors are
    gathered in Q and R follows them.
    """
    a, b, c = COEFFICIENTS
    square = gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]  # Frobenius norm, squared
    gram = gram / square.clamp(min=1e-20)
    gathered = None
    for iteration in range(iterations):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        gathered = factor if gathered is None else torch.bmm(factor, gathered)
        if iteration < iterations - 1:
            gram = torch.bmm(torch.bmm(factor, gram), factor)
    assert gathered is not None, "at least one iteration"
    return gathered / square.sqrt().clamp(min=1e-10)


def is_matrix(module: nn.Module, parameter: Tensor) -> bool:
    """Whether Muon suits a parameter: a matrix or kernel, but no table of embeddings.

    The rows of a table are looked up one at a time; they make no linear map.
    """
    return parameter.ndim >= 2 and not isinstance(module, nn.Embedding)


class Groups(NamedTuple):
    """The parameters of a network that are trained, sorted by how they want to be treated.

    Attributes:
        matrices: matrices and kernels of linear maps.
        tables: embeddings.
        vectors: biases and scales.
    """

    matrices: list[nn.Parameter]
    tables: list[nn.Parameter]
    vectors: list[nn.Parameter]

    @classmethod
    def of(cls, network: nn.Module) -> "Groups":
        """The groups of ``network``.

        Raises:
            ValueError: it has no parameter to train.
        """
        modules = network.modules()
        owner = {p: module for module in modules for p in module.parameters(recurse=False)}
        trained = [p for p in network.parameters() if p.requires_grad]
        if not trained:
            raise InvalidValueError("model must have a parameter to train, got none")
        return cls(
            matrices=[p for p in trained if is_matrix(owner[p], p)],
            tables=[p for p in trained if p.ndim >= 2 and not is_matrix(owner[p], p)],
            vectors=[p for p in trained if p.ndim < 2],
        )


class Rates(NamedTuple):
    """What the optimizers of a run are set to; see ``TrainConfig`` for units."""

    lr: float
    muon_lr: float
    weight_decay: float


def adamw_for_all(groups: Groups, rates: Rates, device: torch.device) -> list[Optimizer]:
    """One AdamW for every parameter."""
    return _adamw([*groups.matrices, *groups.tables], groups.vectors, rates, device)


def muon_and_adamw(groups: Groups, rates: Rates, device: torch.device) -> list[Optimizer]:
    """Muon for matrices and kernels, AdamW for the rest."""
    if not groups.matrices:
        return adamw_for_all(groups, rates, device)
    muon = Muon(groups.matrices, lr=rates.muon_lr, weight_decay=rates.weight_decay)
    return [muon, *_adamw(groups.tables, groups.vectors, rates, device)]


def _adamw(
    decaying: list[nn.Parameter],
    vectors: list[nn.Parameter],
    rates: Rates,
    device: torch.device,
) -> list[Optimizer]:
    # Vectors are left alone by weight decay: pulled towards 0 they would switch channels off.
    groups = [
        {"params": decaying, "weight_decay": rates.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        return []
    fused = device.type in ("cpu", "cuda", "mps")
    return [torch.optim.AdamW(groups, lr=rates.lr, betas=(0.9, 0.99), fused=fused)]


def scale_rates(optimizers: Iterable[Optimizer], factor: float) -> None:
    """Sets each learning rate to ``factor`` times the one that its optimizer was made with."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * factor


MakeOptimizers = Callable[[Groups, Rates, torch.device], list[Optimizer]]

OPTIMIZERS: dict[str, MakeOptimizers] = {"muon": muon_and_adamw, "adamw": adamw_for_all}
"""The optimizers that a config can name: each gives those that together move every parameter."""


class AllOrNone:
    """Several optimizers that look like one to a GradScaler: all of them step, or none does."""

    def __init__(self, optimizers: list[Optimizer]) -> None:
        self.optimizers = optimizers
        self.param_groups = [group for o in optimizers for group in o.param_groups]

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()
