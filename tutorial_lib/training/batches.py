"""What a run trains on, which examples a step gets, and how they reach the device."""

import functools
import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tutorial_lib import _memory, _validate
from tutorial_lib._typing import Condition, States
from tutorial_lib._validate import InvalidTypeError, InvalidValueError
from tutorial_lib.datasets import Dataset, Vocabulary
from tutorial_lib.latents import Codec

MOST_REPEATS = 2**16
"""How often an example may be in a batch; each time takes a new order of all."""


@dataclass(frozen=True, eq=False)
class LatentsOf:
    """Where latents come from: which pictures, and which autoencoder.

    Attributes:
        autoencoder: its name.
        checksum: that of its file, see ``autoencoders``.
        image_shape: (C, H, W) of the pictures.
        fingerprint: of the pictures, see ``Examples.fingerprint``.
    """

    autoencoder: str
    checksum: str
    image_shape: tuple[int, ...]
    fingerprint: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Examples:
    """What a run trains on: images, points, latents, or anything else with a batch axis.

    Attributes:
        x: (N, ...) float32, N at least 1.
        condition: int64 with a row an example, labels (N,) or words (N, L); None for none.
        class_names: the names of the labels, where they have names.
        vocabulary: what the words mean, where that is known.
        latents: where ``x`` comes from, if it is the latents of pictures.
    """

    x: States
    condition: Condition | None
    class_names: tuple[str, ...] = ()
    vocabulary: Vocabulary | None = None
    latents: LatentsOf | None = None

    @classmethod
    def of(cls, data: object) -> "Examples":
        """``data`` as examples; nothing is copied, and no gradient reaches them.

        Args:
            data: a ``Dataset``, a float32 tensor (N, ...), or a pair of that and its condition.

        Raises:
            TypeError, ValueError: it is none of these, empty, or not finite.
        """
        if isinstance(data, Examples):
            return data
        if isinstance(data, Dataset):
            return cls(data.images.detach(), data.labels, data.class_names, data.vocabulary)
        x, condition = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
        if not isinstance(x, Tensor):
            kinds = "a Dataset, a tensor (N, ...) or a pair of a tensor and its condition"
            raise InvalidTypeError(f"data must be {kinds}, got {_validate.describe(data)}")
        if x.dtype != torch.float32:
            raise InvalidTypeError(f"data must be float32, got {x.dtype}")
        x = _validate.held("data", x).detach()
        if x.ndim < 2 or not x.numel():
            shape = tuple(x.shape)
            raise InvalidValueError(f"data must have shape (N, ...), N >= 1; got {shape}")
        if not x.isfinite().all():
            raise InvalidValueError("data must be finite, got NaN or infinity")
        if condition is not None:
            _check_condition(condition, len(x))
        return cls(x, condition)

    def encoded(self, codec: Codec, autoencoder: str, checksum: str) -> "Examples":
        """The latents of these pictures, with the same conditions.

        Args:
            codec: makes them.
            autoencoder, checksum: the name of its file, and what tells it from others.

        Raises:
            ValueError: pictures that the autoencoder cannot take.
        """
        if self.x.ndim != 4:
            shape = tuple(self.x.shape)
            raise InvalidValueError(f"latent needs pictures (N, C, H, W) as data, got {shape}")
        shape = tuple(self.x.shape[1:])
        codec.latent_shape(shape)
        origin = LatentsOf(autoencoder, checksum, shape, self.fingerprint)
        latents = codec.encode(self.x)
        return Examples(latents, self.condition, self.class_names, self.vocabulary, origin)

    def described(self, name: str) -> dict[str, Any]:
        """The entry ``dataset`` of a card, for data called ``name``."""
        entry: dict[str, Any] = {
            "name": name,
            "image_shape": list(self.x.shape[1:]),
            "images": len(self.x),
            "class_names": list(self.class_names),
        }
        if self.vocabulary is not None:
            words = {"words": list(self.vocabulary.words), "length": self.vocabulary.length}
            entry["vocabulary"] = words
        if self.latents is not None:
            entry["latents"] = {
                "autoencoder": self.latents.autoencoder,
                "sha256": self.latents.checksum,
                "image_shape": list(self.latents.image_shape),
            }
        return entry

    @functools.cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What tells these data from others: shapes, class names, checksums of all values.

        ``crc32`` is that of 256 examples: all that earlier versions have saved in states. Latents
        are known by their pictures and their autoencoder: their last bits may depend on the device.
        """
        if self.latents is not None:
            return {**self.latents.fingerprint, "autoencoder": self.latents.checksum}
        every = max(1, len(self.x) // 256)
        conditions = [] if self.condition is None else [self.condition]
        words = {} if self.vocabulary is None else {"vocabulary": list(self.vocabulary.words)}
        return {
            "images": list(self.x.shape),
            "class_names": list(self.class_names),
            "crc32": _checksum([self.x[::every]]),
            "crc32_of_all": _checksum(self.x.split(4096)),
            "labels_crc32": _checksum(conditions),
            **words,
        }


def _checksum(parts: Iterable[Tensor]) -> int:
    """The checksum of the values of tensors, one after the other."""
    found = 0
    for part in parts:
        found = zlib.crc32(part.detach().contiguous().cpu().numpy().tobytes(), found)
    return found


def _check_condition(condition: object, count: int) -> None:
    if not isinstance(condition, Tensor) or condition.dtype != torch.int64:
        got = _validate.describe(condition)
        if isinstance(condition, Tensor):
            got = str(condition.dtype)
        raise InvalidTypeError(f"the condition in data must be an int64 tensor, got {got}")
    _validate.held("the condition in data", condition)
    if condition.ndim not in (1, 2) or len(condition) != count:
        expected = f"({count},) or ({count}, L), a row for each example"
        shape = tuple(condition.shape)
        raise InvalidValueError(f"the condition in data must have shape {expected}; got {shape}")
    if (condition < 0).any():
        raise InvalidValueError("the condition in data must be 0 or more everywhere")


def check_batch_size(batch_size: int, examples: Examples, device: torch.device) -> None:
    """Raises unless a batch of so many of the examples can be trained on.

    Raises:
        ValueError: it does not fit in the memory of ``device``, or would hold each example more
            than ``MOST_REPEATS`` times.
    """
    # x_0, eps, x_t and the network's answer
    needed = 4 * 4 * batch_size * examples.x[0].numel()
    _memory.check_fits("batch_size", batch_size, needed, "a batch of so many examples", device)
    most = MOST_REPEATS * len(examples.x)
    why = f"each example would be in a batch more than {MOST_REPEATS} times"
    _validate.whole_number("batch_size", batch_size, at_least=1, at_most=most, why=why)


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
        there, where = len(self.order) - self.position, self.generator.device
        if there < count:
            orders = math.ceil((count - there) / self.count)
            fresh = [
                torch.randperm(self.count, generator=self.generator, device=where)
                for _ in range(orders)
            ]
            self.order, self.position = torch.cat([self.rest, *fresh]), 0
        self.position += count
        return self.order[self.position - count : self.position]

    @property
    def rest(self) -> Tensor:
        """What is left of the order, int64; with the generator's state it decides all to come."""
        return self.order[self.position :]

    def resume(self, rest: Tensor) -> None:
        """Takes ``rest`` first, then new orders."""
        self.order, self.position = rest.to(self.generator.device), 0


class DataStore:
    """Examples and their conditions, on the device or in this machine's own memory.

    From there a batch travels through pinned memory, which the GPU reads by itself, so the step
    does not wait for it.

    Args:
        x: (N, ...).
        condition: int64 (N, ...); None for unconditional runs.
        device: where the batches go.
        kept_on: the device that holds the data: ``device`` or the CPU. Indices for ``pick`` should
            be there too; others have to be fetched, which waits.
        layout: how the pixels of a batch are laid out in memory.
    """

    def __init__(
        self,
        x: Tensor,
        condition: Tensor | None,
        device: torch.device,
        kept_on: torch.device,
        layout: torch.memory_format = torch.channels_last,
    ) -> None:
        self.device, self.kept_on = device, kept_on
        self.layout = layout if x.ndim == 4 else torch.contiguous_format
        self.x = x.to(kept_on)
        self.condition = None if condition is None else condition.to(kept_on)

    def __len__(self) -> int:
        return len(self.x)

    def pick(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """The examples (B, ...), in the layout, and conditions (B, ...) at the indices (B,)."""
        index = index.to(self.kept_on)
        x0 = self._sent(self.x[index]).contiguous(memory_format=self.layout)
        return x0, None if self.condition is None else self._sent(self.condition[index])

    def _sent(self, batch: Tensor) -> Tensor:
        if self.kept_on == self.device:
            return batch
        if self.device.type == "cuda":
            batch = batch.pin_memory()
        return batch.to(self.device, non_blocking=True)
