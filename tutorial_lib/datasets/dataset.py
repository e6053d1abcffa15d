"""Images with labels and class names, the form in which all data sets come."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._validate import InvalidTypeError, InvalidValueError

DIGITS = tuple("0123456789")


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images with a label each.

    Args:
        images: (N, C, H, W) float32, values in [-1, 1], C is 1 (gray) or 3 (RGB), N at least 1.
        labels: (N,) int64, indices into ``class_names``.
        class_names: one name for each class, in the order of the labels.

    Raises:
        TypeError: images that are not float32, labels that are not int64, names that are not str.
        ValueError: another shape, a value outside [-1, 1] or NaN, a label without a name, a name of
            two classes.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]

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
        if self.labels.shape != (len(images),):
            shape = tuple(self.labels.shape)
            raise InvalidValueError(
                f"labels must have shape ({len(images)},), one for each image; got {shape}"
            )
        names = _validate.names("class_names", self.class_names)
        object.__setattr__(self, "class_names", names)
        first, last = (int(end) for end in self.labels.aminmax())
        if first < 0 or last >= len(self.class_names):
            span = f"0..{len(self.class_names) - 1}, one for each class name"
            raise InvalidValueError(f"labels must be in {span}; got {first if first < 0 else last}")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shape = " x ".join(str(n) for n in self.images.shape)
        names = ", ".join(self.class_names[:10])
        more = f", ... ({len(self.class_names)})" if len(self.class_names) > 10 else ""
        return f"Dataset({shape} float32 in [-1, 1], classes: {names}{more})"
