"""Sources of random numbers: the same seed gives the same numbers on every device."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._validate import InvalidValueError


class Streams:
    """A stream of random numbers for each member of a batch, found by seed and number alone.

    So a member's noise does not depend on its neighbors, on the size of the batch or on the
    process that draws it. The streams are those of the counter-based generator Philox (Salmon et
    al. 2011) with (seed, number) as its key: two keys never share a stream. Torch's generator on
    the CPU could not promise that, it forgets all but the lowest 32 bits of a seed.

    Args:
        seed: 0 to 2^64 - 1.
        numbers: one for each member of the batch, each 0 to 2^64 - 1.
    """

    device = torch.device("cpu")
    """Where the numbers are drawn, as on a ``torch.Generator``."""

    def __init__(self, seed: int, numbers: Iterable[int]) -> None:
        keys = (np.array([seed, number], np.uint64) for number in numbers)
        self._members = [np.random.Generator(np.random.Philox(key=key)) for key in keys]

    def normal(self, shape: torch.Size | tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """The next standard normal numbers of each stream, on the CPU.

        Args:
            shape: (B, ...) with B streams.
            dtype: float32 or float64.

        Raises:
            ValueError: another batch than there are streams.
        """
        if shape[0] != len(self._members):
            raise InvalidValueError(
                f"the batch must have {len(self._members)} members, got {shape[0]}"
            )
        kind = np.float64 if dtype == torch.float64 else np.float32
        noise = np.empty(tuple(shape), kind)
        for stream, row in zip(self._members, noise, strict=True):
            stream.standard_normal(dtype=kind, out=row)
        return torch.from_numpy(noise)


def normal_like(x: Tensor, generator: torch.Generator | Streams | None = None) -> Tensor:
    """Standard normal noise of the shape, dtype and device of ``x``.

    A generator that lives on the CPU draws there and the numbers travel to the device of ``x``,
    so a seed means the same noise on a laptop and on a GPU. Without a generator the numbers come
    from torch's default one, as in ``torch.randn``.
    """
    if isinstance(generator, Streams):
        return generator.normal(x.shape, x.dtype).to(x.device)
    _validate.generator("generator", generator)
    where = x.device if generator is None else generator.device
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=where)
    return noise.to(x.device)


def uniform(
    count: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """``count`` float32 numbers, uniform on [0, 1), drawn where the generator lives."""
    _validate.generator("generator", generator)
    where = device if generator is None else generator.device
    return torch.rand(count, generator=generator, device=where).to(device)
