"""Which images a training step gets, and how they reach the device."""

import torch
from torch import Tensor


class Shuffled:
    """The numbers 0..count-1 in a new random order, again and again.

    A batch at the end of one order takes the rest from the next, so every batch is full and
    every number comes equally often.
    """

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count, self.generator = count, generator
        self.order = torch.empty(0, dtype=torch.int64, device=generator.device)
        self.position = 0

    def take(self, count: int) -> Tensor:
        """The next ``count`` numbers, int64 (count,)."""
        while len(self.order) - self.position < count:
            where = self.generator.device
            fresh = torch.randperm(self.count, generator=self.generator, device=where)
            self.order = torch.cat([self.order[self.position :], fresh])
            self.position = 0
        self.position += count
        return self.order[self.position - count : self.position]

    @property
    def rest(self) -> Tensor:
        """What is left of the order, int64; with the generator's state, all that is to come."""
        return self.order[self.position :]

    def go_on_with(self, rest: Tensor) -> None:
        """Takes ``rest`` first, then new orders."""
        self.order, self.position = rest.to(self.generator.device), 0


class Store:
    """Images and labels, on the device or in this machine's own memory.

    From there a batch travels through pinned memory, which the GPU reads by itself: the step
    does not wait for it.

    Args:
        images: (N, C, H, W).
        labels: int64 (N,); None where nobody asks for them.
        device: where the batches go.
        home: the device that holds them: ``device`` or the CPU. Numbers for ``pick`` should be
            there too; others have to be fetched, which waits.
        layout: how the pixels of a batch lie in memory.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | None,
        device: torch.device,
        home: torch.device,
        layout: torch.memory_format = torch.channels_last,
    ) -> None:
        self.device, self.home, self.layout = device, home, layout
        self.images = images.to(self.home)
        self.labels = None if labels is None else labels.to(self.home)

    def __len__(self) -> int:
        return len(self.images)

    def pick(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """The images (B, C, H, W), in the layout, and labels (B,) of the given numbers (B,)."""
        index = index.to(self.home)
        x0 = self._sent(self.images[index]).contiguous(memory_format=self.layout)
        return x0, None if self.labels is None else self._sent(self.labels[index])

    def _sent(self, batch: Tensor) -> Tensor:
        if self.home == self.device:
            return batch
        if self.device.type == "cuda":
            batch = batch.pin_memory()
        return batch.to(self.device, non_blocking=True)
