"""Latents: what an autoencoder makes of pictures, scaled so that diffusion can work on them.

The channels of an encoder differ in mean and spread; a noise schedule expects data with a standard
deviation of about 1 (Rombach et al. 2022, app. G). So each channel is shifted and scaled.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._typing import Images
from tutorial_lib._validate import InvalidValueError
from tutorial_lib.networks.autoencoder import FACTOR, Autoencoder, Latents, Posterior

_BATCH = 64  # pictures at once: some tens of megabytes inside an encoder


class Codec:
    """Pictures to scaled latents and back.

    latents = (mean of the encoder - shift) / scale, a shift and a scale for each channel.

    Args:
        autoencoder: switched to eval mode.
        shift: (latent_channels,).
        scale: (latent_channels,), above 0.

    Raises:
        TypeError, ValueError: shift or scale of another shape, not finite, a scale of 0 or less.
    """

    def __init__(self, autoencoder: Autoencoder, shift: Tensor, scale: Tensor) -> None:
        _validate.instance("autoencoder", autoencoder, Autoencoder)
        expected = (autoencoder.config["latent_channels"],)
        for name, value in (("shift", shift), ("scale", scale)):
            if _validate.floating(name, value).shape != expected:
                got = tuple(value.shape)
                raise InvalidValueError(f"{name} must have shape {expected}, got {got}")
            _validate.finite(name, value)
        if not (scale > 0).all():
            raise InvalidValueError(f"scale must be above 0, got {float(scale.min()):g}")
        self.autoencoder = autoencoder.eval()
        place = next(autoencoder.parameters())
        self.shift, self.scale = shift.to(place), scale.to(place)

    @classmethod
    def fitted(cls, autoencoder: Autoencoder, images: Images) -> "Codec":
        """The codec that gives the latents of these pictures, channel by channel, mean 0 and
        standard deviation 1.

        Args:
            autoencoder: trained.
            images: (N, C, H, W) in [-1, 1], as many as are there: 1,000 will do.

        Raises:
            TypeError, ValueError: pictures that the autoencoder cannot take, or latents that do not
                differ.
        """
        _validate.instance("autoencoder", autoencoder, Autoencoder)
        channels = autoencoder.config["latent_channels"]
        plain = cls(autoencoder, torch.zeros(channels), torch.ones(channels))
        latents = plain.encode(images).double()
        shift = latents.mean((0, 2, 3))
        scale = latents.std((0, 2, 3), correction=0)
        if not (scale > 1e-6).all():
            raise InvalidValueError("images must differ: a channel of their latents is constant")
        return cls(autoencoder, shift.float(), scale.float())

    @property
    def device(self) -> torch.device:
        return self.shift.device

    def to(self, device: torch.device | str) -> "Codec":
        """The codec on a device; its autoencoder moves there too, in place."""
        return Codec(self.autoencoder.to(device), self.shift.to(device), self.scale.to(device))

    @torch.no_grad()
    def encode(self, images: Images) -> Latents:
        """The scaled latents (N, latent_channels, H/4, W/4) of pictures (N, C, H, W) in [-1, 1].

        Batch by batch, where the autoencoder is; they come back to where the pictures are.

        Raises:
            TypeError, ValueError: no pictures, or others than the autoencoder can take.
        """
        self.autoencoder.latent_shape(_batch("images", images).shape[1:])
        parts = [
            (self.autoencoder.encode(part).mean - self._of(self.shift)) / self._of(self.scale)
            for part in self._parts(images)
        ]
        return torch.cat([part.to(images.device) for part in parts])

    @torch.no_grad()
    def decode(self, latents: Latents) -> Images:
        """Pictures (N, C, H, W) in [-1, 1] from scaled latents (N, latent_channels, H/4, W/4).

        Raises:
            TypeError, ValueError: no latents, or of other channels.
        """
        self.image_shape(_batch("latents", latents).shape[1:])
        parts = [
            self.autoencoder.decode(part * self._of(self.scale) + self._of(self.shift))
            for part in self._parts(latents)
        ]
        return torch.cat([part.clamp(-1, 1).to(latents.device) for part in parts])

    def latent_shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """The shape of the latents of a picture of this shape; see ``Autoencoder``."""
        return self.autoencoder.latent_shape(shape)

    def image_shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """The shape (C, H, W) of the picture that latents of this shape are decoded to.

        Raises:
            ValueError: latents of other channels.
        """
        channels, height, width = shape
        if channels != self.autoencoder.config["latent_channels"]:
            expected = self.autoencoder.config["latent_channels"]
            raise InvalidValueError(f"latents must have {expected} channels, got {channels}")
        return (self.autoencoder.config["in_channels"], FACTOR * height, FACTOR * width)

    def _of(self, numbers: Tensor) -> Tensor:
        """(channels,) as (1, channels, 1, 1)."""
        return numbers[:, None, None]

    def _parts(self, x: Tensor) -> Iterator[Tensor]:
        for part in x.split(_BATCH):
            yield part.to(self.shift)


def _batch(name: str, x: object) -> Tensor:
    """``x`` if it is a batch (N, C, H, W), N at least 1; else an error."""
    tensor = _validate.floating(name, x)
    if tensor.ndim != 4 or not len(tensor):
        shape = tuple(tensor.shape)
        raise InvalidValueError(f"{name} must have shape (N, C, H, W), N >= 1; got {shape}")
    return tensor


def autoencoder_losses(
    autoencoder: Autoencoder,
    images: Images,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """The two parts of an autoencoder's loss, each a mean over pictures with its gradient.

    Args:
        autoencoder: the one to train.
        images: (B, C, H, W) in [-1, 1].
        generator: source of the noise on the latents; None means torch's default generator.

    Returns:
        The squared error of the reconstruction, a mean over all numbers; and the divergence
        KL(q(z | x) to N(0, 1)) in nats, a mean over all latents. The loss is the first plus a small
        weight times the second (Rombach et al. 2022, app. G).

    Raises:
        TypeError, ValueError: no autoencoder, or other pictures.
    """
    _validate.instance("autoencoder", autoencoder, Autoencoder)
    posterior = Posterior(*(part.to(images) for part in autoencoder.encode(images)))
    again = autoencoder.decode(posterior.sample(generator)).to(images)
    reconstruction = (again - images).square().mean()
    return reconstruction, posterior.divergence().mean() / posterior.mean[0].numel()


def peak_signal_to_noise(images: Images, again: Images) -> Tensor:
    """PSNR in decibels, 10 log10(range^2 / mean squared error), of all pictures together.

    The range is 2, from -1 to 1. 20 dB is an error of a tenth of it, 40 dB of a hundredth.

    Raises:
        TypeError, ValueError: pictures of different shapes, or not finite.
    """
    _validate.same_shape("again", again, "images", _validate.batch("images", images))
    error = (again.double() - images.double()).square().mean()
    return 10 * torch.log10(4 / error.clamp(min=1e-20))
