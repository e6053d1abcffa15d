"""An autoencoder: pictures to latents, a quarter as high and wide, and back."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tutorial_lib import _memory, _validate
from tutorial_lib._random import normal_like
from tutorial_lib._typing import Images
from tutorial_lib._validate import InvalidValueError
from tutorial_lib.networks.layers import with_defaults, zeroed

FACTOR = 4
"""How many times smaller the sides of latents are than those of pictures."""
_HALF = 2  # the first halving is a pixel_unshuffle, the second a convolution with stride 2
_RANGE = 10.0  # of log variances: e^-10 to e^10, beyond which nothing is to be gained

Latents = Float[Tensor, "batch latent_channels down across"]
"""What an encoder makes of pictures; not yet scaled, see ``latents``."""


class Posterior(NamedTuple):
    """What an encoder says of a picture's latents: a Gaussian for each number.

    Attributes:
        mean: (B, latent_channels, H/4, W/4).
        log_variance: the same shape.
    """

    mean: Tensor
    log_variance: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """mean + sd noise: the reparameterization trick, so that gradients reach both."""
        noise = normal_like(self.mean, generator)
        return self.mean + (0.5 * self.log_variance).exp() * noise

    def divergence(self) -> Float[Tensor, " batch"]:
        """KL(N(mean, variance) to N(0, 1)) in nats, summed over the latents of a picture, (B,).

        (mean^2 + variance - 1 - log variance) / 2 each (Kingma & Welling 2014, app. B).
        """
        each = self.mean.square() + self.log_variance.exp() - 1 - self.log_variance
        return 0.5 * each.flatten(1).sum(1)


class Residual(nn.Module):
    """Two convolutions beside a shortcut; the second starts at zero.

    Without a norm: that would divide by the spread of the whole picture, and then how bright a
    place is drawn depends on what is elsewhere.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = zeroed(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Images) -> Images:
        """x (B, width, H, W) to the same shape."""
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


class Autoencoder(nn.Module):
    """Pictures (B, C, H, W) to latents (B, latent_channels, H/4, W/4), and back.

    A variational autoencoder as in Rombach et al. 2022, app. G, without its adversarial part: the
    encoder gives a mean and a variance for each latent. Training draws latents from them, which
    makes the decoder indifferent to a little noise; later only the mean is used.

    Args:
        in_channels: channels of the pictures.
        latent_channels: channels of the latents.
        widths: channels at a half and at a quarter of the resolution.
        blocks: residual blocks at a quarter of the resolution, in encoder and decoder each.

    Raises:
        TypeError, ValueError: an argument that is not a whole number of 1 or more; other than two
            widths; weights that do not fit in memory.
    """

    def __init__(
        self,
        in_channels: int = 3,
        latent_channels: int = 4,
        widths: Sequence[int] = (48, 64),
        blocks: int = 1,
    ) -> None:
        super().__init__()
        self.config = _checked(
            in_channels=in_channels, latent_channels=latent_channels, widths=widths, blocks=blocks
        )
        (width, lower), pixels = widths, in_channels * _HALF**2
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(_HALF),  # (B, C, H, W) -> (B, 4 C, H/2, W/2)
            nn.Conv2d(pixels, width, 3, padding=1),
            Residual(width),
            nn.Conv2d(width, lower, 3, stride=2, padding=1),  # (B, lower, H/4, W/4)
            *(Residual(lower) for _ in range(blocks)),
            nn.SiLU(),
            nn.Conv2d(lower, 2 * latent_channels, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, lower, 3, padding=1),
            *(Residual(lower) for _ in range(blocks)),
            nn.Upsample(scale_factor=2.0),
            nn.Conv2d(lower, width, 3, padding=1),  # (B, width, H/2, W/2)
            Residual(width),
            nn.SiLU(),
            nn.Conv2d(width, pixels, 3, padding=1),
            nn.PixelShuffle(_HALF),
        )

    @classmethod
    def checked(cls, **config: Any) -> dict[str, Any]:
        """The ``config`` of an autoencoder of these arguments, without building it.

        Raises:
            TypeError, ValueError: as for the autoencoder.
        """
        return _checked(**with_defaults(cls, config))

    @classmethod
    def fewest_tensors(cls, **config: Any) -> int:
        """How many tensors the weights of an autoencoder of these arguments are at least.

        Raises:
            TypeError, ValueError: as for the autoencoder.
        """
        return 4 * 2 * (1 + cls.checked(**config)["blocks"])

    def encode(self, images: Images) -> Posterior:
        """What the latents of pictures (B, C, H, W) are, H and W multiples of 4.

        Raises:
            TypeError, ValueError: other pictures.
        """
        self.latent_shape(_validate.floating("images", images).shape[1:])
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(-_RANGE, _RANGE))

    def decode(self, latents: Latents) -> Images:
        """Pictures (B, C, 4 H, 4 W) from latents (B, latent_channels, H, W); not clamped.

        Raises:
            TypeError, ValueError: other latents.
        """
        channels = self.config["latent_channels"]
        if _validate.floating("latents", latents).ndim != 4 or latents.shape[1] != channels:
            expected = f"(batch, {channels}, height, width)"
            got = tuple(latents.shape)
            raise InvalidValueError(f"latents must have shape {expected}, got {got}")
        return self.decoder(latents)

    def latent_shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """The shape of the latents of a picture of this shape (C, H, W).

        Raises:
            ValueError: the autoencoder cannot take such pictures.
        """
        channels = self.config["in_channels"]
        if len(shape) != 3 or shape[0] != channels:
            expected, got = f"({channels}, height, width)", tuple(shape)
            raise InvalidValueError(f"images must have the shape {expected} each, got {got}")
        if any(side % FACTOR or not side for side in shape[1:]):
            got = f"{shape[1]} x {shape[2]}"
            raise InvalidValueError(
                f"size of images must be a multiple of {FACTOR} for the autoencoder, got {got}"
            )
        return (self.config["latent_channels"], shape[1] // FACTOR, shape[2] // FACTOR)

    def forward(self, images: Images) -> Images:
        """The pictures as they come back from the means of their latents."""
        return self.decode(self.encode(images).mean)


def _checked(
    in_channels: int, latent_channels: int, widths: Sequence[int], blocks: int
) -> dict[str, Any]:
    """The arguments of an ``Autoencoder`` as JSON can hold them; an error if one is wrong."""
    for name, value in (("in_channels", in_channels), ("latent_channels", latent_channels)):
        _validate.whole_number(name, value, at_least=1)
    if not isinstance(widths, Sequence) or len(widths) != 2:
        got = _validate.describe(widths)
        raise InvalidValueError(f"widths must hold the channels of two resolutions, got {got}")
    for width in widths:
        _validate.whole_number("an entry of widths", width, at_least=1)
    _validate.whole_number("blocks", blocks, at_least=1, at_most=256)
    config = {"in_channels": int(in_channels), "latent_channels": int(latent_channels)}
    config |= {"widths": [int(width) for width in widths], "blocks": int(blocks)}
    sizes = {"in_channels": in_channels, "latent_channels": latent_channels, "widths": max(widths)}
    largest = max(sizes, key=lambda name: sizes[name])
    _memory.check_fits(largest, config[largest], 4 * autoencoder_parameters(config), "the network")
    return config


def autoencoder_parameters(config: dict[str, Any]) -> int:
    """How many weights an ``Autoencoder`` of this config has, counted without building one."""
    (width, lower), latents = config["widths"], config["latent_channels"]
    pixels, blocks = config["in_channels"] * _HALF**2, config["blocks"]

    def conv(a: int, b: int) -> int:
        return 9 * a * b + b

    def residual(width: int) -> int:
        return 2 * conv(width, width)

    both = 2 * residual(width) + 2 * blocks * residual(lower)
    encoder = conv(pixels, width) + conv(width, lower) + conv(lower, 2 * latents)
    decoder = conv(latents, lower) + conv(lower, width) + conv(width, pixels)
    return both + encoder + decoder
