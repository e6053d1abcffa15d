"""The words that every floor shares: what images and steps are, and what a denoiser is."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor

Images = Float[Tensor, "batch channels height width"]
"""A batch of images, values in [-1, 1] when they are data."""

States = Float[Tensor, "batch *shape"]
"""A batch of anything that diffuses: images (B, C, H, W) or points (B, D)."""

Steps = Int64[Tensor, " batch"]
"""One step number for each member of a batch; t means "t noisings", so 0 is clean data."""

Condition = Int64[Tensor, "batch *row"]
"""What each member of a batch is to be: a label (B,) or the words of a sentence (B, L)."""

PerSample = Float[Tensor, " batch"]
"""One number for each member of a batch."""

Factors = Float[Tensor, "batch *ones"]
"""One number for each member of a batch, shaped to multiply it: (B, 1, 1, 1) for images."""


@runtime_checkable
class EpsModel(Protocol):
    """A denoiser: anything that, called as ``model(x_t, t)``, says which noise is in ``x_t``.

    ``x_t`` is (B, ...) and ``t`` int64 (B,); the answer ``eps_hat`` has the shape of ``x_t``.
    Networks, the exact oracles, guided models and models of other libraries are all that.
    """

    def __call__(self, x_t: Tensor, t: Tensor, /) -> Tensor: ...
