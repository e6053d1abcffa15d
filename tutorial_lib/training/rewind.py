"""Undoing a training step that failed before it changed the weights."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tutorial_lib.training.batches import Shuffled
from tutorial_lib.training.randomness import dropout_states, set_dropout_state


@dataclass
class _Copy:
    """A buffer, what it held, and the version of that."""

    buffer: Tensor
    version: int
    content: Tensor


class Rewind:
    """What a step uses up before it changes the weights: random numbers, examples, buffers.

    ``remember`` at the start of a step costs some microseconds: buffers are copied only where they
    have changed, as batch statistics do.

    Args:
        network: the network that is trained.
        device: where it is.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network, self._device = network, device
        self._copies: list[_Copy] = []

    def remember(self, generator: torch.Generator, order: Shuffled) -> None:
        """Notes what ``put_back`` is to restore."""
        buffers = list(self._network.buffers())
        if [id(b) for b in buffers] != [id(copy.buffer) for copy in self._copies]:
            self._copies = [_Copy(b, b._version, b.detach().clone()) for b in buffers]
        for copy in self._copies:
            if copy.version != copy.buffer._version:
                copy.content.copy_(copy.buffer)
                copy.version = copy.buffer._version
        self._order, self._at = order, (order.order, order.position)
        self._generators = [(g, g.get_state()) for g in {generator, order.generator}]
        self._dropout = dropout_states(self._device)

    @torch.no_grad()
    def put_back(self) -> None:
        """Restores everything as it was when ``remember`` was called."""
        for copy in self._copies:
            if copy.version != copy.buffer._version:
                copy.buffer.copy_(copy.content)
                copy.version = copy.buffer._version
        self._order.order, self._order.position = self._at
        for generator, state in self._generators:
            generator.set_state(state)
        for name, state in self._dropout.items():
            set_dropout_state(name, state, self._device)
