"""Undoing a training step that failed before it changed the weights."""

import torch
from torch import nn

from tutorial_lib.training.batches import Shuffled
from tutorial_lib.training.randomness import dropout_states, set_dropout_state


class Rewind:
    """What a step uses up before it changes the weights: random numbers, examples, buffers.

    Args:
        network: the network that is trained.
        device: where it is.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network, self._device = network, device

    def remember(self, generator: torch.Generator, order: Shuffled) -> None:
        """Notes what ``put_back`` is to restore, at the start of a step."""
        # all of them: torch does not count the changes that batch norm makes as new versions
        self._buffers = [(b, b.detach().clone()) for b in self._network.buffers()]
        self._order, self._at = order, (order.order, order.position)
        self._generators = [(g, g.get_state()) for g in {generator, order.generator}]
        self._dropout = dropout_states(self._device)

    @torch.no_grad()
    def put_back(self) -> None:
        """Restores everything as it was when ``remember`` was called."""
        for buffer, content in self._buffers:
            buffer.copy_(content)
        self._order.order, self._order.position = self._at
        for generator, state in self._generators:
            generator.set_state(state)
        for name, state in self._dropout.items():
            set_dropout_state(name, state, self._device)
