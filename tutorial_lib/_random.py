"""Random numbers that are handed in: the same seed gives the same numbers on every device."""

import torch
from torch import Tensor


def normal_like(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise of the shape, dtype and device of ``x``.

    A generator that lives on the CPU draws there and the numbers travel to the device of ``x``,
    so a seed means the same noise on a laptop and on a GPU. Without a generator the numbers come
    from torch's default one, as in ``torch.randn``.
    """
    where = x.device if generator is None else generator.device
    noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=where)
    return noise.to(x.device)


def uniform(
    count: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """``count`` float32 numbers, uniform on [0, 1), drawn where the generator lives."""
    where = device if generator is None else generator.device
    return torch.rand(count, generator=generator, device=where).to(device)
