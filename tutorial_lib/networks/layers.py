"""Parts that several networks are made of."""

import inspect
from typing import Any

import torch
from torch import nn


def with_defaults(network: type[nn.Module], config: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a network by name: those of ``config``, and the defaults of the others.

    Raises:
        TypeError: an argument is missing, or the network has none of that name.
    """
    given = inspect.signature(network).bind(**config)
    given.apply_defaults()
    return given.arguments


def group_norm(width: int) -> nn.GroupNorm:
    """Group norm in groups of 16 channels, in one group where 16 does not divide ``width``.

    Smaller groups are slow on a CPU: in bf16 and channels-last torch 2.11 needs 10 times longer for
    groups of 8 channels than for groups of 16.
    """
    return nn.GroupNorm(width // 16 if width % 16 == 0 else 1, width)


def embedding_table(count: int, width: int) -> nn.Embedding:
    """``nn.Embedding`` with its usual first weights, but quick to make without memory.

    On the device "meta", where checkpoints are built, there is nothing to draw; torch 2.11 would
    load its compiler and a computer algebra system for it, which takes half a second or more.
    """
    weight = torch.empty(count, width)
    if weight.device.type != "meta":
        nn.init.normal_(weight)
    return nn.Embedding(count, width, _weight=weight)


def zeroed(layer: nn.Module) -> nn.Module:
    """The layer with all its parameters at zero: a branch that starts by adding nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
