"""The global random numbers that networks draw from: seeded for a run, and given back."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from tutorial_lib.hardware.tuning import whole_state


@contextlib.contextmanager
def own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, the global generators start from ``seed``; afterwards they are as they were.

    First weights and dropout draw from the global generators; torch offers them no other.
    """
    cuda = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        yield


def seed_dropout(seed: int, device: torch.device) -> None:
    """Starts what a network draws by itself from ``seed``; each rank has its own."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def dropout_states(device: torch.device) -> dict[str, Tensor]:
    """The states of the global generators that networks draw from, uint8 each."""
    states = {"cpu": torch.default_generator.get_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_dropout_state(name: str, state: Tensor, device: torch.device) -> None:
    """Restores one of the ``dropout_states``."""
    state = whole_state(state)
    if name == "cuda":
        torch.cuda.set_rng_state(state, device)
    elif name == "mps":
        torch.mps.set_rng_state(state)
    else:
        torch.default_generator.set_state(state)
