"""The guidance explorer of lesson 8."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from tutorial_lib import _validate, plots
from tutorial_lib.explorers.shared import base, wire
from tutorial_lib.guidance import LabeledModel, guide
from tutorial_lib.metrics.digit_features import DigitReference
from tutorial_lib.samplers import ddim, evenly_spaced, last
from tutorial_lib.schedules import NoiseSchedule

SCALES = (0.0, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 12.0)
LARGEST_CLASS = 255
"""The classes that the judge reads travel as bytes."""


@runtime_checkable
class Judge(Protocol):
    """Classifies images, and turns each into features: a ``DigitClassifier``, for example."""

    def probabilities(self, images: Tensor) -> Tensor:
        """How likely each class is, (N, classes), for images (N, C, H, W)."""
        ...

    def features(self, images: Tensor) -> Tensor:
        """Features (N, F), which are close for images that look alike."""
        ...


class Measures(NamedTuple):
    """A judge's verdict on samples, by class; the last column is for all classes together.

    Attributes:
        accuracy: (S, K + 1), the share of samples read as the class they were ordered for.
        spread: (S, K + 1), the mean distance of two samples of a class; NaN if it has only one.
    """

    accuracy: Tensor
    spread: Tensor


def spread_by_class(features: Tensor, labels: Tensor, classes: Sequence[int]) -> Tensor:
    """Mean Euclidean distance of two different rows of a class, and the mean over the classes.

    Args:
        features: (N, F).
        labels: int64 (N,), the class of each row.
        classes: K classes.

    Returns:
        (K + 1,), the mean last; NaN for a class with fewer than two rows, which the mean leaves
        out.
    """
    rows = [features[labels == label].double() for label in classes]
    each = torch.stack([torch.nn.functional.pdist(own).mean() for own in rows])
    return torch.cat([each, each.nanmean()[None]])


def accuracy_by_class(reads: Tensor, labels: Tensor, classes: Sequence[int]) -> Tensor:
    """The share of ``reads`` (N,) that equals the label, for K classes and for all, (K + 1,)."""
    right = (reads == labels).double()
    return torch.stack([*(right[labels == label].mean() for label in classes), right.mean()])


class GuidanceExplorer(base.Explorer, folder="guidance"):
    """What the guidance scale does: choose a class, drag the scale, see samples and two numbers.

    The samples of all scales start from the same noise. Beside them are the share that a judge
    reads as the class that was ordered, and how different the samples of one class are. Samples
    that it reads otherwise have a frame. ``GuidanceExplorer.from_model`` draws the samples first.

    Args:
        samples: for each scale images (N, C, H, W) in [-1, 1], at most 64 pixels wide and high,
            all in the same order.
        labels: int64 (N,), the class that was ordered for each.
        judge: reads classes as the numbers in ``labels``; without one there are only pictures.
        reference: features of real examples from this judge, whose spread is drawn for comparison.
        class_names: the name of each class, from class 0; by default its number.
        per_class: how many samples of a class are shown; all of them are measured.
        scale: the scale to begin with; the nearest of ``samples`` is taken.

    Raises:
        TypeError, ValueError: invalid arguments, or more images than a saved
            notebook should carry.
    """

    images = traitlets.Bytes().tag(sync=True)
    reads = traitlets.Bytes().tag(sync=True)
    accuracy = traitlets.Bytes().tag(sync=True)
    spread = traitlets.Bytes().tag(sync=True)
    real = traitlets.Bytes().tag(sync=True)
    shape = traitlets.List(traitlets.Int()).tag(sync=True)
    owners = traitlets.List(traitlets.Int()).tag(sync=True)
    counts = traitlets.List(traitlets.Int()).tag(sync=True)
    classes = traitlets.List(traitlets.Int()).tag(sync=True)
    class_names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    scales = traitlets.List(traitlets.Float()).tag(sync=True)
    chosen = traitlets.Int(wire.ALL, min=wire.ALL).tag(sync=True)
    place = traitlets.Int(0, min=0).tag(sync=True)

    def __init__(
        self,
        samples: Mapping[float, Tensor] | Mapping[int, Tensor],
        labels: Tensor,
        *,
        judge: Judge | None = None,
        reference: DigitReference | None = None,
        class_names: Sequence[str] | None = None,
        per_class: int = 5,
        scale: float = 1.0,
    ) -> None:
        self._samples = _check_samples(samples)
        self._scales = list(self._samples)
        count = len(next(iter(self._samples.values())))
        self._labels = _check_labels(labels, count)
        per_class = _validate.whole_number("per_class", per_class, at_least=1)
        scale = _validate.number("scale", scale, low=0, high=float("inf"))
        if reference is not None and judge is None:
            raise ValueError("reference needs a judge to be compared with, got no judge")
        classes = self._labels.unique().tolist()
        own = [(self._labels == label).nonzero()[:, 0] for label in classes]
        self._shown = torch.cat([rows[:per_class] for rows in own])
        super().__init__(
            **self._judged(judge, reference, classes),
            images=base.gray_bytes(torch.stack([s[self._shown] for s in self._samples.values()])),
            shape=list(next(iter(self._samples.values())).shape[1:]),
            owners=self._labels[self._shown].tolist(),
            counts=[*map(len, own), count],
            classes=classes,
            class_names=_check_names(class_names, max(classes) + 1),
            scales=self._scales,
            place=min(range(len(self._scales)), key=lambda k: abs(self._scales[k] - scale)),
        )

    @classmethod
    def from_model(
        cls,
        model: LabeledModel,
        schedule: NoiseSchedule,
        x_T: Tensor,
        labels: Tensor,
        *,
        num_classes: int,
        scales: Sequence[float] = SCALES,
        steps: int = 20,
        **options: Any,
    ) -> "GuidanceExplorer":
        """Draws samples at each scale from the same noise, with DDIM, and explores them.

        Args:
            model: called as ``model(x_t, t, labels)``.
            schedule: the schedule that the model was trained for.
            x_T: the noise, (N, C, H, W).
            labels: int64 (N,), one for each sample.
            num_classes: the label that means "no class".
            scales: the guidance scales, rising.
            steps: DDIM steps for each sample; each asks the model twice.
            options: as for ``GuidanceExplorer``.

        Raises:
            TypeError, ValueError: as ``guide`` and ``ddim`` raise them, and the explorer.
        """
        walk = evenly_spaced(schedule.num_steps, steps)
        drawn = {
            scale: last(ddim(guide(model, labels, scale, num_classes), schedule, x_T, walk))
            for scale in scales
        }
        return cls(drawn, labels, **options)

    def _judged(
        self, judge: Judge | None, reference: DigitReference | None, classes: list[int]
    ) -> dict[str, bytes]:
        """Keeps the judge's measures, and returns them packed for the browser."""
        self._measures: Measures | None = None
        if judge is None:
            return {}
        reads = [judge.probabilities(s).argmax(1).cpu() for s in self._samples.values()]
        if max(int(read.max()) for read in reads) > LARGEST_CLASS:
            raise ValueError(f"judge must know at most {LARGEST_CLASS + 1} classes")
        features = [judge.features(s).cpu() for s in self._samples.values()]
        self._measures = Measures(
            torch.stack([accuracy_by_class(read, self._labels, classes) for read in reads]),
            torch.stack([spread_by_class(f, self._labels, classes) for f in features]),
        )
        seen = torch.stack([read[self._shown] for read in reads]).to(torch.uint8)
        data = {
            "reads": seen.numpy().tobytes(),
            "accuracy": base.float_bytes(self._measures.accuracy),
            "spread": base.float_bytes(self._measures.spread),
        }
        if reference is not None:
            real = spread_by_class(reference.test, reference.test_labels, classes)
            data["real"] = base.float_bytes(real)
        return data

    def _advice(self) -> str:
        return "a smaller per_class, fewer scales or smaller images"

    def _now(self) -> int:
        return min(self.place, len(self._scales) - 1)

    def _summary(self) -> str:
        now, count = self._now(), len(self._labels)
        shown = (
            f"{count} samples of {len(self.classes)} classes at {len(self._scales)} guidance "
            f"scales from {self._scales[0]:g} to {self._scales[-1]:g}"
        )
        if self._measures is None:
            return f"{shown}."
        accuracy, spread = (float(values[now, -1]) for values in self._measures)
        wide = f", and the spread within a class is {spread:.2f}" if spread == spread else ""
        return f"{shown}; at s = {self._scales[now]:g} {accuracy:.0%} are read as ordered{wide}."

    def _still(self) -> Figure:
        firsts = [(self._labels == label).nonzero()[0, 0] for label in self.classes[:12]]
        return plots.filmstrip(
            [samples[torch.stack(firsts)] for samples in self._samples.values()],
            labels=[self._name(label) for label in self.classes[:12]],
            rows=[f"s = {scale:g}" for scale in self._scales],
        )

    def _name(self, label: int) -> str:
        return self.class_names[label]


def _check_samples(samples: object) -> dict[float, Tensor]:
    """Images by scale, float32 on the CPU, with rising scales.

    Raises:
        TypeError, ValueError: no mapping, fewer than two scales, a scale below 0, images of
            different shapes or that ``check_images`` refuses.
    """
    if not isinstance(samples, Mapping):
        came = _validate.describe(samples)
        raise TypeError(f"samples must be a dict from scale to images, got {came}")
    found = {
        _validate.number("a scale of samples", scale, low=0, high=float("inf")): images
        for scale, images in samples.items()
    }
    if len(found) < 2:
        raise ValueError(f"samples must be of at least two scales, got {len(found)}")
    found = {
        scale: base.check_images(f"samples[{scale:g}]", found[scale]) for scale in sorted(found)
    }
    shapes = sorted({tuple(images.shape) for images in found.values()})
    if len(shapes) > 1:
        raise ValueError(f"samples must all have the same shape, got {shapes}")
    return found


def _check_labels(labels: object, count: int) -> Tensor:
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        came = labels.dtype if isinstance(labels, Tensor) else _validate.describe(labels)
        raise TypeError(f"labels must be an int64 tensor, got {came}")
    if labels.shape != (count,):
        came = tuple(labels.shape)
        raise ValueError(f"labels must have shape ({count},), one a sample; got {came}")
    labels = labels.cpu()
    if labels.min() < 0 or labels.max() > LARGEST_CLASS:
        worst = int(labels.min()) if labels.min() < 0 else int(labels.max())
        raise ValueError(f"labels must be in 0..{LARGEST_CLASS}, got {worst}")
    return labels


def _check_names(names: Sequence[str] | None, count: int) -> list[str]:
    if names is None:
        return [str(label) for label in range(count)]
    if isinstance(names, str) or len(names) < count:
        raise ValueError(f"class_names must name classes 0..{count - 1}, got {names!r}")
    return [str(name) for name in names]
