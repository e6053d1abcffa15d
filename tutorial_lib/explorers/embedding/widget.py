"""The embedding explorer of lesson 4."""

import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from tutorial_lib import _validate, plots
from tutorial_lib.explorers.shared import base, wire
from tutorial_lib.networks.unet import timestep_embedding

MAX_STEPS = 4000
"""The browser computes the similarity of each step anew while dim is dragged."""


def similarities(t: int, num_steps: int, dim: int, max_period: float = 10000.0) -> Tensor:
    """How similar the embedding of step t is to that of every step 0..num_steps, (num_steps + 1,).

    It is the inner product divided by dim/2, so each step has similarity 1 with itself. Because
    sin a sin b + cos a cos b = cos(a - b), it equals the mean of cos((t - s) w_i) over the hands i.
    """
    every = timestep_embedding(torch.arange(num_steps + 1), dim, max_period)  # (T+1, dim)
    return every @ every[t] / (dim / 2)


class EmbeddingExplorer(base.Explorer, folder="embedding"):
    """The sinusoidal embedding of a step: drag t, and change the number of hands and their speeds.

    Bars show the embedding of t, which is one row of the heat map over all steps. A curve shows
    how similar it is to every other step, and clocks show the hands whose tips it lists.

    Args:
        num_steps: T, the last step, 10 to 4000.
        dim: the length of an embedding to begin with, even, 4 to 128.
        max_period: the base to begin with, 10 to 100000: hand i turns by max_period^(-i/(dim/2))
            radians a step.
        t: the step to begin with, 0 to T; by default a quarter of T.

    Raises:
        TypeError, ValueError: an invalid number.
    """

    num_steps = traitlets.Int(1000).tag(sync=True)
    dim = traitlets.Int(64, min=wire.DIM_MIN, max=wire.DIM_MAX).tag(sync=True)
    max_period = traitlets.Float(
        10000.0, min=0.99 * wire.PERIOD_MIN, max=1.001 * wire.PERIOD_MAX
    ).tag(sync=True)  # the slider rounds
    t = traitlets.Int(0, min=0).tag(sync=True)
    near = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        num_steps: int = 1000,
        *,
        dim: int = 64,
        max_period: float = 10000.0,
        t: int | None = None,
    ) -> None:
        _validate.whole_number("num_steps", num_steps, at_least=10)
        _validate.number("num_steps", num_steps, low=10, high=MAX_STEPS)
        _validate.whole_number("dim", dim, at_least=wire.DIM_MIN)
        _validate.number("dim", dim, low=wire.DIM_MIN, high=wire.DIM_MAX)
        if dim % 2:
            raise ValueError(f"dim must be even (a sine and a cosine each), got {dim}")
        _validate.number("max_period", max_period, low=wire.PERIOD_MIN, high=wire.PERIOD_MAX)
        t = num_steps // 4 if t is None else t
        _validate.number("t", _validate.whole_number("t", t, at_least=0), low=0, high=num_steps)
        super().__init__(num_steps=num_steps, dim=dim, max_period=float(max_period), t=t)

    def _step(self) -> int:
        return min(self.t, self.num_steps)

    def _summary(self) -> str:
        t = self._step()
        similar = similarities(t, self.num_steps, self.dim, self.max_period)
        far = [s for s in (t + 1, t + 10, t + 100) if s <= self.num_steps]
        shares = ", ".join(f"{similar[s]:.2f} to step {s}" for s in far)
        shown = f"; step {t} is similar by {shares}" if shares else ""
        return (
            f"The embedding of steps 0 to {self.num_steps} with {self.dim // 2} hands and base "
            f"{self.max_period:g}{shown}."
        )

    def _still(self) -> Figure:
        t, steps = self._step(), torch.arange(self.num_steps + 1)
        table = timestep_embedding(steps, self.dim, self.max_period)
        figure, (left, right) = plots.panels(2)
        image = left.imshow(
            table.numpy(),
            cmap="cividis",
            vmin=-1,
            vmax=1,
            aspect="auto",
            interpolation="nearest",
            origin="lower",
        )
        left.axhline(t, color="white", lw=1.5)
        left.set(xlabel="entry: sines, then cosines", ylabel="step t", title="embedding of each t")
        figure.colorbar(image, ax=left)
        similar = similarities(t, self.num_steps, self.dim, self.max_period)
        plots.curves(
            steps,
            {f"t = {t}": similar},
            x_label="step s",
            y_label="similarity",
            title=f"similarity of step {t} to step s",
            axes=right,
        )
        return figure
