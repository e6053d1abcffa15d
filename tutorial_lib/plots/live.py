"""The loss and the latest samples of a training run, drawn while it runs."""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from IPython.core.getipython import get_ipython
from IPython.display import DisplayHandle, display
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._extras import Extra
from tutorial_lib._validate import InvalidTypeError, InvalidValueError
from tutorial_lib.images import to_pil
from tutorial_lib.plots.figures import COLORS, DPI, WIDTH, bundle, dress
from tutorial_lib.training.run_folder import RunFolder


class LivePlot:
    """Loss and latest samples of a training run, redrawn in place while it runs.

        with LivePlot(steps=700) as live:
            while trainer.fraction_done() < 1:
                live.update(trainer.steps_done, trainer.step())
                trainer.update_lr()

    ``update`` takes samples too, as ``images``. For a run of ``train``, follow what it writes:

        with LivePlot.following("runs/discs"):
            train(TrainConfig(out=Path("runs/discs"), sample_every=100, progress=False))

    Drawing takes at most a twentieth of the time. Outside a notebook, the text that describes the
    picture is printed instead. A drawing that fails switches the plot off, with one warning: the
    training goes on.

    Args:
        steps: length of the run, for the axis and the text; None if it is unknown.
        interval: seconds between two drawings, at least; more if drawing is slow.
        clock: gives the time in seconds.

    Raises:
        TypeError, ValueError: ``steps`` below 1, ``interval`` negative or not a number.
    """

    def __init__(
        self,
        steps: int | None = None,
        *,
        interval: float = 1.0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.steps = None if steps is None else _validate.whole_number("steps", steps, at_least=1)
        self.interval = _validate.number("interval", interval, low=0.0, high=math.inf)
        self._clock = clock
        self._at: list[int] = []
        self._losses: list[float] = []
        self._new: list[float | Tensor] = []  # read only when drawn, see ``update``
        self._picture: np.ndarray | None = None
        self._picture_at, self._count = 0, 0
        self._handle: DisplayHandle | None = None
        self._shown = Extra("the live plot")
        self._drawn_at, self._cost, self._stale = -math.inf, 0.0, False

    def update(
        self, step: int, loss: float | Tensor | None = None, images: Tensor | None = None
    ) -> None:
        """Adds the loss and samples after ``step`` steps, and draws if a drawing is due.

        Args:
            loss: one number. A tensor on an accelerator is read only when it is drawn.
            images: samples (N, C, H, W) in [-1, 1], which replace the previous ones.

        Raises:
            TypeError, ValueError: ``step`` negative or not an int, a loss that is not one number,
                images that ``images.to_pil`` refuses.
        """
        step = _validate.whole_number("step", step, at_least=0)
        if isinstance(loss, Tensor):
            if loss.numel() != 1:
                raise InvalidValueError(f"loss must be one number, got shape {tuple(loss.shape)}")
            loss = loss.detach()
        elif loss is not None and not isinstance(loss, (int, float)):
            raise InvalidTypeError(f"loss must be a number, got {_validate.describe(loss)}")
        if images is not None:
            self._show_picture(to_pil(images), step, len(images))
        if loss is not None:
            self._at.append(step)
            self._new.append(loss)
        self._stale = True
        if self._clock() - self._drawn_at >= max(self.interval, 20 * self._cost):
            self.draw()

    def draw(self) -> None:
        """Draws now if there is something new, whether a drawing is due or not."""
        if not self._stale or (not self._at and self._picture is None):
            return
        start = self._clock()
        self._losses += [float(loss) for loss in self._new]
        self._new.clear()
        self._shown.do(self._show)
        self._stale, self._drawn_at = False, self._clock()
        self._cost = self._drawn_at - start

    def _show(self) -> None:
        text = self._text()
        if get_ipython() is None:
            print(text)
            return
        data, metadata = bundle(self._figure(), text)
        if self._handle is None:
            self._handle = display(data, raw=True, metadata=metadata, display_id=True)
        else:
            self._handle.update(data, raw=True, metadata=metadata)

    def __enter__(self) -> "LivePlot":
        return self

    def __exit__(self, *error: object) -> None:
        self.draw()

    @classmethod
    @contextlib.contextmanager
    def following(cls, run: Path | str, *, interval: float = 1.0) -> Iterator["LivePlot"]:
        """Draws what the run in the folder ``run`` writes, from a thread, until the block ends.

        The loss is read from metrics.jsonl, one line every ``log_every`` steps; the samples are the
        newest in samples/, if the run has ``sample_every``. The folder need not exist yet.

        Raises:
            OSError: a file exists but cannot be read.
        """
        run, live, stop = Path(run), cls(interval=interval), threading.Event()
        problems: list[Exception] = []

        def follow() -> None:
            try:
                while not stop.wait(max(0.1, interval / 2)):
                    live._read(run)
            except Exception as error:  # raised in the caller's thread, below
                problems.append(error)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield live
        finally:
            stop.set()
            thread.join()
            if not problems:
                live._read(run)
                live.draw()
        if problems:
            raise problems[0]

    def _read(self, run: Path) -> None:
        """Adds what is new in a run folder."""
        folder = RunFolder(run)
        if self.steps is None:
            self.steps = folder.asked_steps()
        known = self._at[-1] if self._at else -1
        for line in folder.read_metrics():
            if line["step"] > known:
                self.update(line["step"], line["loss"])
        step, newest = folder.newest_grid() or (0, None)
        if newest is not None and step > self._picture_at:
            with Image.open(newest) as picture:
                self._show_picture(picture, step, 0)

    def _show_picture(self, picture: Image.Image, step: int, count: int) -> None:
        """Shows a grid of ``count`` samples from now on; 0 if their number is unknown."""
        self._picture, self._picture_at = np.asarray(picture.convert("RGB")), step
        self._count, self._stale = count, True

    def _text(self) -> str:
        """The picture in words."""
        step = max([self._picture_at, *self._at[-1:]])
        parts = [f"step {step} of {self.steps}" if self.steps else f"step {step}"]
        if self._losses:
            parts.append(f"loss {self._smoothed()[-1]:.4f}")
        if self._picture is not None:
            count = f"{self._count} samples" if self._count else "samples"
            parts.append(f"{count} from step {self._picture_at}")
        return "training: " + ", ".join(parts)

    def _smoothed(self) -> np.ndarray:
        """The losses so far, each averaged with its neighbors, up to 25 on either side.

        A centered mean does not lag behind losses that fall fast.
        """
        losses = np.array(self._losses)
        finite = np.isfinite(losses)
        total = np.concatenate([[0.0], np.where(finite, losses, 0.0).cumsum()])
        count = np.concatenate([[0], finite.cumsum()])
        at = np.arange(len(losses))
        low, high = np.maximum(at - 25, 0), np.minimum(at + 26, len(losses))
        with np.errstate(invalid="ignore"):  # no finite loss nearby: NaN, which is not drawn
            return (total[high] - total[low]) / (count[high] - count[low])

    def _figure(self) -> Figure:
        """The loss on the left and the samples on the right, or whichever there is."""
        count = bool(self._losses) + (self._picture is not None)
        figure = Figure(figsize=(WIDTH / DPI, 3.4), dpi=DPI, layout="constrained")
        places = list(np.atleast_1d(figure.subplots(1, count)))
        if self._losses:
            axes = places.pop(0)
            axes.plot(self._at, self._losses, color=COLORS[0], alpha=0.4, linewidth=0.6)
            axes.plot(self._at, self._smoothed(), color=COLORS[0], linewidth=1.8)
            if self.steps is not None:
                axes.set_xlim(0, self.steps)
            if any(loss > 0 for loss in self._losses):
                axes.set_yscale("log")
            dress(axes, "training step", "loss", self._text().partition("training: ")[2])
        if self._picture is not None:
            places[0].set_axis_off()
            places[0].imshow(self._picture, interpolation="nearest")
        return figure
