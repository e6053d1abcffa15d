"""Pictures and sentences as vectors of one space: a small CLIP (Radford et al. 2021)."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tutorial_lib import _validate
from tutorial_lib._typing import Images
from tutorial_lib._validate import InvalidValueError
from tutorial_lib.networks.text import Sentences, TextEncoder, mean_of_words

Vectors = Float[Tensor, "batch entries"]
"""A vector of length 1 for each picture or sentence."""

LARGEST_SCALE = 100.0
"""Largest inverse temperature, as in Radford et al. 2021, sec. 2.5."""
_FIRST_SCALE = 1 / 0.07


class PictureTextNet(nn.Module):
    """Two encoders whose vectors point the same way where a sentence describes a picture.

    Args:
        size: side of the pictures, a multiple of 16.
        vocabulary: how many words there are, counting the padding, number 0.
        length: the words of each sentence, padding counted.
        width: length of the vectors.
        channels: of the first convolution; the later ones have twice and four times as many.

    Raises:
        TypeError, ValueError: an argument that is no whole number of 1 or more; another ``size``.
    """

    def __init__(
        self,
        size: int,
        vocabulary: int,
        length: int,
        width: int = 64,
        channels: int = 32,
    ) -> None:
        super().__init__()
        _validate.whole_number("size", size, at_least=16)
        _validate.whole_number("channels", channels, at_least=1)
        if size % 16:
            raise InvalidValueError(f"size must be a multiple of 16, got {size}")
        self.size = size
        self.words = TextEncoder(vocabulary, length, width)
        self.pictures = nn.Sequential(
            nn.Conv2d(3, channels, 4, stride=4),  # (B, c, S/4, S/4)
            nn.SiLU(),
            nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(2 * channels, 4 * channels, 3, stride=2, padding=1),  # (B, 4c, S/16, S/16)
            nn.SiLU(),
            nn.Flatten(),  # where something is matters: "left of"
            nn.Linear(4 * channels * (size // 16) ** 2, width),
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(_FIRST_SCALE)))

    def encode_pictures(self, images: Images) -> Vectors:
        """Vectors (B, width) of pictures (B, 3, size, size).

        Raises:
            TypeError, ValueError: other pictures.
        """
        expected = (3, self.size, self.size)
        if _validate.floating("images", images).shape[1:] != expected:
            got = tuple(images.shape)
            raise InvalidValueError(f"images must have shape (B, *{expected}), got {got}")
        return F.normalize(self.pictures(images), dim=1)

    def encode_words(self, words: Sentences) -> Vectors:
        """Vectors (B, width) of sentences (B, length).

        Raises:
            TypeError, ValueError: other words, see ``TextEncoder``.
        """
        return F.normalize(mean_of_words(*self.words(words)), dim=1)

    def forward(self, images: Images, words: Sentences) -> Float[Tensor, "pictures sentences"]:
        """How well each sentence fits each picture: cosines, divided by the learned temperature."""
        scale = self.log_scale.exp().clamp(max=LARGEST_SCALE)
        return scale * self.encode_pictures(images) @ self.encode_words(words).T


def contrastive_loss(similarity: Float[Tensor, "pictures sentences"]) -> Float[Tensor, ""]:
    """The mean of two cross-entropies (Radford et al. 2021, fig. 3): which sentence belongs to each
    picture, over the rows, and which picture to each sentence, over the columns.

    Args:
        similarity: (B, B), the pairs that belong together on the diagonal.

    Raises:
        TypeError, ValueError: no square of floating-point numbers.
    """
    shape = _validate.floating("similarity", similarity).shape
    if len(shape) != 2 or shape[0] != shape[1] or not shape[0]:
        raise InvalidValueError(f"similarity must have shape (B, B), got {tuple(shape)}")
    own = torch.arange(shape[0], device=similarity.device)
    return (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2
