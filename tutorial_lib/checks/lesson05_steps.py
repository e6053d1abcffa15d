"""What the exercises about training steps share, in lessons 5 and 5b."""

import torch
from torch import Tensor, nn


def weights_of(network: nn.Module) -> Tensor:
    """All weights of a network in one tensor."""
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def unanswered(value: object) -> bool:
    """Whether an answer gave nothing yet; the framework says which it is, `...` or None."""
    return value is ... or value is None


def some_seed(generator: torch.Generator) -> int:
    """A seed for what a case builds, drawn from the generator of the cases."""
    return int(torch.randint(2**31, (), generator=generator))
