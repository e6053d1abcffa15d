"""Digits as 64 features: a small classifier that judges samples of handwriting.

It was trained on MNIST's real images only (``tools/train_digit_classifier.py``). Its output says
which digit an image shows; its features, one layer earlier, are close for images that look alike.
``metrics`` has distances between sets of features.
"""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tutorial_lib import _sealed, _validate
from tutorial_lib._typing import Images
from tutorial_lib._validate import InvalidValueError
from tutorial_lib.checkpoints import SHIPPED, CheckpointError, misfits

FOLDER = SHIPPED / "judge"
"""Classifier and reference are in a folder of their own, apart from checkpoints of denoisers."""
CARD_ENTRY = "file"
"""The entry of a card that states the checksum of the file beside it."""
FEATURES = 64
SIZE = 28
CLASSES = 10
_CHUNK = 512  # images at once: some tens of megabytes


class DigitNet(nn.Module):
    """Three convolutions, each followed by pooling; ``FEATURES`` features; one score per digit.

    The features are normalized without scale or shift, so over the training images each has mean 0
    and variance 1: a squared distance between two images has 2 ``FEATURES`` = 128 as its mean.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 5, padding=2, bias=False)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(32, 48, 3, padding=1, bias=False)
        self.norm1, self.norm2, self.norm3 = (nn.BatchNorm2d(width) for width in (16, 32, 48))
        self.squeeze = nn.Linear(48 * 3 * 3, FEATURES, bias=False)
        self.norm4 = nn.BatchNorm1d(FEATURES, affine=False)
        self.head = nn.Linear(FEATURES, CLASSES)

    def features(self, x: Images) -> Float[Tensor, "batch 64"]:
        """Images (B, 1, 28, 28) to their features (B, 64)."""
        x = F.relu(F.max_pool2d(self.norm1(self.conv1(x)), 2))  # (B, 16, 14, 14)
        x = F.relu(F.max_pool2d(self.norm2(self.conv2(x)), 2))  # (B, 32, 7, 7)
        x = F.relu(F.max_pool2d(self.norm3(self.conv3(x)), 2))  # (B, 48, 3, 3)
        return self.norm4(self.squeeze(x.flatten(1)))  # (B, 432) -> (B, 64)

    def forward(self, x: Images) -> Float[Tensor, "batch 10"]:
        """Images (B, 1, 28, 28) to a score for each digit (B, 10), before the softmax."""
        return self.head(F.relu(self.features(x)))


class DigitClassifier:
    """A trained ``DigitNet`` as a judge.

    Values outside [-1, 1] are clamped, as on a screen. Apart from rounding, the answers do not
    depend on the size of the batch.

    Attributes:
        card: how it was trained, and its accuracy.
    """

    def __init__(self, network: DigitNet, card: dict) -> None:
        self._network = network.eval()
        self.card = card

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """(N, 64) float32 for images (N, 1, 28, 28) in [-1, 1].

        Raises:
            TypeError, ValueError: other images, none, or NaN or infinite values.
        """
        return torch.cat([self._network.features(part) for part in self._parts(images)])

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Probabilities of the digits, (N, 10) float32, rows sum to 1, for images (N, 1, 28, 28).

        Raises:
            TypeError, ValueError: other images, none, or NaN or infinite values.
        """
        return torch.cat([self._network(part).softmax(1) for part in self._parts(images)])

    def _parts(self, images: Tensor) -> tuple[Tensor, ...]:
        images = _validate.floating("images", images)
        if images.ndim != 4 or images.shape[1:] != (1, SIZE, SIZE) or not len(images):
            shape = tuple(images.shape)
            raise InvalidValueError(
                f"images must have shape (N, 1, {SIZE}, {SIZE}), N >= 1; got {shape}"
            )
        if not images.isfinite().all():
            raise InvalidValueError("images must be finite, got NaN or infinity")
        images = images.to(self._network.head.weight)  # its device and dtype
        return images.clamp(-1, 1).split(_CHUNK)


class DigitReference(NamedTuple):
    """Features and labels of real digits; they ship with the course and do not need MNIST.

    Attributes:
        train: (5000, 64) float32, features of randomly chosen training images.
        train_labels: (5000,) int64, the digits that they show.
        test: (5000, 64) float32, features of test images, which were never trained on.
        test_labels: (5000,) int64.
    """

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def load_digit_classifier(
    path: Path | str = FOLDER / "digit_classifier.safetensors",
    *,
    device: torch.device | str = "cpu",
) -> DigitClassifier:
    """The classifier that ships with the course, or another one at ``path``.

    Raises:
        CheckpointError: missing, truncated or corrupt files, or weights of another network.
    """
    place = _validate.device("device", device)
    card, tensors = _read(_validate.path("path", path))
    network = DigitNet().float()
    wrong = misfits(network.state_dict(), tensors)
    if wrong:
        raise CheckpointError(f"{path} is for another network than DigitNet: {wrong[0]}")
    network.load_state_dict(tensors)
    return DigitClassifier(network.to(place), card)


def load_digit_reference(
    path: Path | str = FOLDER / "digit_reference.safetensors",
) -> DigitReference:
    """Features of real digits according to the classifier that ships with the course.

    Raises:
        CheckpointError: missing, truncated or corrupt files, or files that hold something else.
    """
    _, tensors = _read(_validate.path("path", path))
    if set(tensors) != set(DigitReference._fields):
        held, wanted = ", ".join(sorted(tensors)), ", ".join(DigitReference._fields)
        raise CheckpointError(f"{path} must hold {wanted}; it holds {held}")
    for split in ("train", "test"):
        features, labels = tensors[split], tensors[f"{split}_labels"]
        if features.shape[1:] != (FEATURES,) or labels.shape != (len(features),):
            shapes = f"{tuple(features.shape)} and {tuple(labels.shape)}"
            raise CheckpointError(f"{path} must hold {FEATURES} features a label: {split} {shapes}")
    kinds = {name: torch.int64 if "labels" in name else torch.float32 for name in tensors}
    return DigitReference(**{name: tensors[name].to(kind) for name, kind in kinds.items()})


def _read(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """The card and the tensors of a file, if its checksum is the one on the card."""
    try:
        tensors, card, _ = _sealed.read_with_card(path, CARD_ENTRY)
    except _sealed.SealError as error:
        raise CheckpointError(str(error)) from error
    return card, tensors
