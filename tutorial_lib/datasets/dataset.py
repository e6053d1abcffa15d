"""Images with what they show, a class or a caption: the form in which all data sets come."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._validate import InvalidTypeError, InvalidValueError
from tutorial_lib.datasets.vocabulary import Vocabulary, Words, check_numbers

DIGITS = tuple("0123456789")


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images with a label each, or with a caption each.

    Args:
        images: (N, C, H, W) float32, values in [-1, 1], C is 1 (gray) or 3 (RGB), N at least 1.
        labels: (N,) int64, indices into ``class_names``; with a ``vocabulary`` the words of the
            captions, (N, L) int64, as ``vocabulary.encode`` gives them.
        class_names: one name for each class, in the order of the labels; empty with a
            ``vocabulary``.
        vocabulary: the words of the captions; None where images have labels.

    Raises:
        TypeError: images that are not float32, labels that are not int64, names that are not str.
        ValueError: another shape, a value outside [-1, 1] or NaN, a label without a name, a name of
            two classes, a word that the vocabulary lacks, or class names beside a vocabulary.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...] = ()
    vocabulary: Vocabulary | None = None

    def __post_init__(self) -> None:
        images = _validate.floating("images", self.images)
        if images.dtype != torch.float32:
            raise InvalidTypeError(f"images must be float32, got {images.dtype}")
        if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.numel():
            shape = tuple(images.shape)
            raise InvalidValueError(
                f"images must have shape (N, 1 or 3, H, W), N >= 1; got {shape}"
            )
        low, high = (float(end) for end in images.detach().aminmax())
        if not (low >= -1 and high <= 1):  # NaN compares false, so it is refused here too
            raise InvalidValueError(
                f"images must lie in [-1, 1], got values from {low:g} to {high:g}"
            )
        if not isinstance(self.labels, Tensor) or self.labels.dtype != torch.int64:
            got = _validate.describe(self.labels)
            raise InvalidTypeError(f"labels must be an int64 tensor, got {got}")
        names = _validate.names("class_names", self.class_names)
        object.__setattr__(self, "class_names", names)
        if self.vocabulary is None:
            self._check_labels()
        else:
            self._check_words(_validate.instance("vocabulary", self.vocabulary, Vocabulary))

    def _check_labels(self) -> None:
        if self.labels.shape != (len(self.images),):
            shape = tuple(self.labels.shape)
            raise InvalidValueError(
                f"labels must have shape ({len(self.images)},), one for each image; got {shape}"
            )
        first, last = (int(end) for end in self.labels.aminmax())
        if first < 0 or last >= len(self.class_names):
            span = f"0..{len(self.class_names) - 1}, one for each class name"
            raise InvalidValueError(f"labels must be in {span}; got {first if first < 0 else last}")

    def _check_words(self, vocabulary: Vocabulary) -> None:
        if self.class_names:
            raise InvalidValueError("class_names and vocabulary must not both be given")
        if self.labels.shape != (expected := (len(self.images), vocabulary.length)):
            shape = tuple(self.labels.shape)
            raise InvalidValueError(
                f"labels must have shape {expected}, the words of a caption for each image; "
                f"got {shape}"
            )
        check_numbers("labels", self.labels, len(vocabulary))

    @property
    def words(self) -> Words:
        """The words of the captions, int64 (N, L).

        Raises:
            ValueError: the images have labels.
        """
        self._captioned("words")
        return self.labels

    @property
    def captions(self) -> list[str]:
        """The caption of each image.

        Raises:
            ValueError: the images have labels.
        """
        return self._captioned("captions").decode(self.labels)

    def _captioned(self, name: str) -> Vocabulary:
        if self.vocabulary is None:
            raise InvalidValueError(f"{name} need a data set with captions; this one has labels")
        return self.vocabulary

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shape = " x ".join(str(n) for n in self.images.shape)
        if self.vocabulary is not None:
            what = f"captions of {len(self.vocabulary) - 1} words"
            return f"Dataset({shape} float32 in [-1, 1], {what})"
        names = ", ".join(self.class_names[:10])
        more = f", ... ({len(self.class_names)})" if len(self.class_names) > 10 else ""
        return f"Dataset({shape} float32 in [-1, 1], classes: {names}{more})"
