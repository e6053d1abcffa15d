"""Types that every layer shares: images, steps, and the two kinds of models."""

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
"""What each member of a batch should show: a label (B,) or the words of a sentence (B, L)."""

PerSample = Float[Tensor, " batch"]
"""One number for each member of a batch."""

Factors = Float[Tensor, "batch *ones"]
"""One number for each member of a batch, shaped to multiply it: (B, 1, 1, 1) for images."""


@runtime_checkable
class EpsModel(Protocol):
    """A denoiser: ``eps_hat = model(x_t, t)`` predicts the noise in ``x_t``.

    ``x_t`` is (B, ...) and ``t`` int64 (B,); ``eps_hat`` has the shape of ``x_t``. Networks, exact
    oracles, guided models and models from other libraries all fit this interface.
    """

    def __call__(self, x_t: Tensor, t: Tensor, /) -> Tensor: ...


@runtime_checkable
class VelocityModel(Protocol):
    """A flow: ``velocity = model(x, time)`` predicts how ``x`` moves as time grows.

    ``x`` is (B, ...) and ``time`` floating point (B,) in [0, 1]: 0 is clean data, 1 is noise.
    ``velocity`` has the shape of ``x``. See ``flows`` for the path and for conversions.
    """

    def __call__(self, x: Tensor, time: Tensor, /) -> Tensor: ...
