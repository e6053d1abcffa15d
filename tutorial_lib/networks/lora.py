"""LoRA: teach a trained network something new by a small change of its matrices.

W stays as it is, and (alpha / r) B A is added to it, with B (out, r) and A (r, in) of a rank r far
below that of W (Hu et al. 2021, eq. 3). B starts at zero, so the network begins as it was.
"""

import copy
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib import _validate
from tutorial_lib._validate import InvalidTypeError, InvalidValueError

Chosen = Callable[[str, nn.Module], bool]
"""Whether the layer of this name is to be adapted."""


class LowRank(nn.Module):
    """A layer whose weight is W + (alpha / r) B A; W and the bias no longer train.

    A kernel (out, in, h, w) counts as a matrix (out, in h w), a table of embeddings as one with a
    row for each entry.

    Args:
        layer: an ``nn.Linear``, ``nn.Conv2d`` (of one group) or ``nn.Embedding``. It becomes part
            of this one and is frozen.
        rank: r, at least 1.
        alpha: how much the change counts, above 0; r makes the factor 1.
        generator: source of the first A; None means torch's default generator.

    Raises:
        TypeError, ValueError: another layer, or a number out of range.
    """

    def __init__(
        self,
        layer: nn.Module,
        rank: int,
        alpha: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not can_adapt(layer):
            kinds = "an nn.Linear, an nn.Conv2d of one group or an nn.Embedding"
            raise InvalidTypeError(f"layer must be {kinds}, got {type(layer).__name__}")
        rank = _validate.whole_number("rank", rank, at_least=1)
        alpha = float(rank) if alpha is None else alpha
        if _validate.number("alpha", alpha, low=0.0, high=1e6) == 0:
            raise InvalidValueError("alpha must be above 0, got 0: nothing would change")
        _validate.generator("generator", generator)
        weight = layer.get_parameter("weight")
        outputs, inputs = weight.flatten(1).shape
        self.layer, self.scale = layer.requires_grad_(False), alpha / rank
        where = "cpu" if generator is None else generator.device
        first = torch.randn(rank, inputs, generator=generator, device=where) / math.sqrt(inputs)
        self.down = nn.Parameter(first.to(weight))  # A
        self.up = nn.Parameter(weight.new_zeros(outputs, rank))  # B

    @property
    def weight(self) -> Tensor:
        """W + (alpha / r) B A, in the shape of W."""
        kept = self.layer.get_parameter("weight")
        return kept + self.scale * (self.up @ self.down).view_as(kept)

    @property
    def in_features(self) -> int:
        """As of an ``nn.Linear``."""
        return self.down.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        """What the layer answers with the changed weight."""
        match self.layer:
            case nn.Linear() as layer:
                return F.linear(x, self.weight, layer.bias)
            case nn.Conv2d() as layer:
                return layer._conv_forward(x, self.weight, layer.bias)
            case _:
                return F.embedding(x, self.weight)

    def merged(self) -> nn.Module:
        """The layer with the change in its weight, which trains again; this one stays."""
        layer = copy.deepcopy(self.layer)
        with torch.no_grad():
            layer.get_parameter("weight").copy_(self.weight)
        return layer.requires_grad_(True)


def can_adapt(layer: nn.Module) -> bool:
    """Whether ``LowRank`` takes a layer."""
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1
    return isinstance(layer, nn.Linear | nn.Embedding)


def add_lora(
    network: nn.Module,
    rank: int = 4,
    *,
    alpha: float | None = None,
    where: Chosen | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """A copy of ``network`` whose chosen layers are ``LowRank``; only their A and B train.

    Args:
        network: it stays as it is.
        rank, alpha, generator: see ``LowRank``.
        where: chooses layers by name and module; None takes all that ``LowRank`` can adapt.

    Raises:
        TypeError, ValueError: no network, a wrong argument, nothing to adapt, or a network that has
            such layers already: merge them first.
    """
    _validate.instance("network", network, nn.Module)
    if any(True for _ in _adapted(network)):
        raise InvalidValueError("network must have no LoRA yet; merge_lora ends it")
    network = copy.deepcopy(network).requires_grad_(False)
    chosen = [
        name
        for name, module in network.named_modules()
        if name and can_adapt(module) and (where is None or where(name, module))
    ]
    if not chosen:
        raise InvalidValueError("where must choose a layer to adapt, got none")
    for name in chosen:
        layer = network.get_submodule(name)
        _put(network, name, LowRank(layer, rank, alpha, generator))
    return network


def merge_lora(network: nn.Module) -> nn.Module:
    """A copy of ``network`` with plain layers again, each with its change in its weight.

    It answers the same apart from rounding, has the class and the names of weights that the network
    had before ``add_lora``, and can be saved as a checkpoint.

    Raises:
        TypeError, ValueError: no network, or none with LoRA.
    """
    _validate.instance("network", network, nn.Module)
    network = copy.deepcopy(network)
    found = list(_adapted(network))
    if not found:
        raise InvalidValueError("network must have LoRA to merge, got none")
    for name, layer in found:
        _put(network, name, layer.merged())
    return network.requires_grad_(True)


def lora_parameters(network: nn.Module) -> dict[str, Tensor]:
    """The A and B of a network by their names: all that has to be kept of what it learned."""
    return {
        f"{name}.{part}": getattr(layer, part)
        for name, layer in _adapted(network)
        for part in ("down", "up")
    }


def _adapted(network: nn.Module) -> Iterator[tuple[str, LowRank]]:
    for name, module in network.named_modules():
        if isinstance(module, LowRank):
            yield name, module


def _put(network: nn.Module, name: str, layer: nn.Module) -> None:
    """Puts ``layer`` in the place of the module of this name."""
    owner, _, last = name.rpartition(".")
    setattr(network.get_submodule(owner), last, layer)
