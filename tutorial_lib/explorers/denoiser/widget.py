"""The denoiser explorer of lessons 3 and 5."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from tutorial_lib import _validate, plots
from tutorial_lib._random import normal_like
from tutorial_lib._typing import EpsModel
from tutorial_lib.explorers.shared import base, wire
from tutorial_lib.forward import diffuse, predict_x0
from tutorial_lib.schedules import NoiseSchedule

GRID = 15
"""Arrows of the field along each axis."""

BUDGET = 400_000
"""Bytes for the model's answers, where the number of steps is left to the explorer."""


class Answers(NamedTuple):
    """A model's answers at K steps about N noised data of any shape.

    Attributes:
        eps_hat: (K, N, ...).
        x0_hat: (K, N, ...), the data that follow from eps_hat.
        losses: (K, N), the mean squared error of eps_hat for each.
    """

    eps_hat: Tensor
    x0_hat: Tensor
    losses: Tensor


@torch.no_grad()
def answers(
    model: EpsModel, schedule: NoiseSchedule, x0: Tensor, eps: Tensor, timesteps: Sequence[int]
) -> Answers:
    """Asks ``model`` about ``x0`` (N, ...) noised with the same ``eps`` to each of ``timesteps``.

    Raises:
        TypeError, ValueError: an answer that is not a tensor of the shape of x_t, or not finite.
    """
    found = []
    for step in timesteps:
        t = torch.full((len(x0),), step, device=x0.device)
        x_t = diffuse(schedule, x0, t, eps)
        eps_hat = _ask(model, x_t, step)
        losses = (eps_hat - eps).square().flatten(1).mean(1)
        found.append((eps_hat, predict_x0(schedule, x_t, t, eps_hat), losses))
    return Answers(*(torch.stack(part).cpu() for part in zip(*found, strict=True)))


def grid_of_points(reach: float, count: int = GRID) -> Tensor:
    """The middles of ``count`` x ``count`` squares that fill [-reach, reach]^2, (count^2, 2).

    Row by row from the lowest y, each from the lowest x.
    """
    middles = ((torch.arange(count) + 0.5) / count * 2 - 1) * reach
    y, x = torch.meshgrid(middles, middles, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 2)


@torch.no_grad()
def field(model: EpsModel, points: Tensor, timesteps: Sequence[int]) -> Tensor:
    """eps_hat at the same ``points`` (P, 2) for each of K steps, (K, P, 2)."""
    return torch.stack([_ask(model, points, step) for step in timesteps]).cpu()


def spread_steps(num_steps: int, count: int) -> list[int]:
    """At most ``count`` steps from 1 to ``num_steps``, closer together where there is less noise.

    Equal steps of sqrt(t): losses change fastest near t = 0.
    """
    share = torch.linspace(0, 1, count, dtype=torch.float64).square()
    return (1 + share * (num_steps - 1)).round().long().unique().tolist()


class DenoiserExplorer(base.Explorer, folder="denoiser"):
    """A denoiser's answers at t: drag t and see x_t, the true eps, eps_hat, its error and x0_hat.

    For images these are side by side. For points in the plane the arrows of eps_hat are on a grid,
    over those of an oracle, beside the guesses for each point. Below is the loss at every step. The
    model is asked when the explorer is made, so dragging needs no kernel. *New noise* asks it
    again, and needs one.

    Args:
        model: called as ``model(x_t, t)`` on the device of ``data``: a network, an oracle, a
            guided model. Its mode (training or evaluation) is left as it is.
        schedule: noises ``data``.
        data: images (N, C, H, W) in [-1, 1], at most 64 pixels wide and high, or points (N, 2).
        oracle: another model to compare with, usually the exact answer for the same data.
        timesteps: how many steps to ask at, which are then closer together where t is small; or the
            steps themselves, rising, each in 1..T. By default 24 to 100, fewer for larger data.
        t: the step to begin with; the nearest of ``timesteps`` is shown.
        seed: of the first noise.

    Raises:
        TypeError, ValueError: invalid arguments, answers in another shape or not
            finite, or more data than a saved notebook should carry.
    """

    x0 = traitlets.Bytes().tag(sync=True)
    eps = traitlets.Bytes().tag(sync=True)
    eps_hat = traitlets.Bytes().tag(sync=True)
    x0_hat = traitlets.Bytes().tag(sync=True)
    each = traitlets.Bytes().tag(sync=True)
    losses = traitlets.Bytes().tag(sync=True)
    floors = traitlets.Bytes().tag(sync=True)
    model_field = traitlets.Bytes().tag(sync=True)
    oracle_field = traitlets.Bytes().tag(sync=True)
    alpha_bar = traitlets.Bytes().tag(sync=True)
    timesteps = traitlets.List(traitlets.Int()).tag(sync=True)
    shape = traitlets.List(traitlets.Int()).tag(sync=True)
    num_steps = traitlets.Int().tag(sync=True)
    reach = traitlets.Float(0.0).tag(sync=True)
    arrows = traitlets.Unicode(wire.Arrows.MODEL.value).tag(sync=True)
    place = traitlets.Int(0, min=0).tag(sync=True)
    chosen = traitlets.Int(0, min=0).tag(sync=True)
    noise = traitlets.Int(0, min=0).tag(sync=True)

    def __init__(
        self,
        model: EpsModel,
        schedule: NoiseSchedule,
        data: Tensor,
        *,
        oracle: EpsModel | None = None,
        timesteps: int | Sequence[int] | None = None,
        t: int | None = None,
        seed: int = 0,
    ) -> None:
        for name, asked in (("model", model), ("oracle", oracle)):
            if asked is not None and not callable(asked):
                raise TypeError(f"{name} must be callable, got {_validate.describe(asked)}")
        if not isinstance(schedule, NoiseSchedule):
            came = _validate.describe(schedule)
            raise TypeError(f"schedule must be a NoiseSchedule, got {came}")
        self._x0 = _check_data(data)
        self._model, self._oracle = model, oracle
        self._schedule = schedule.to(self._x0.device)
        if timesteps is None:
            timesteps = min(100, max(24, BUDGET // self._bytes_a_step()))
        self._steps = _check_steps(timesteps, schedule.num_steps)
        if t is None:
            t = schedule.num_steps // 4
        _validate.number("t", _validate.whole_number("t", t, at_least=0), low=0, high=self._last)
        self._seed = _validate.seed("seed", seed)
        answered = self._ask_models()
        super().__init__(
            **answered,
            **self._fields(),
            x0=base.gray_bytes(self._x0) if self._images else base.float_bytes(self._x0),
            alpha_bar=self._schedule.alpha_bar.cpu().double()[self._steps].numpy().tobytes(),
            timesteps=self._steps,
            shape=list(self._x0.shape),
            num_steps=self._last,
            arrows=wire.Arrows.MODEL.value if oracle is None else wire.Arrows.BOTH.value,
            place=min(range(len(self._steps)), key=lambda k: abs(self._steps[k] - t)),
        )
        self.on_msg(self._on_message)

    @property
    def _images(self) -> bool:
        return self._x0.ndim == 4

    @property
    def _last(self) -> int:
        return self._schedule.num_steps

    def _bytes_a_step(self) -> int:
        """The bytes that one step sends: two for each number, and those of the points' fields."""
        fields = 0 if self._images else 2 * GRID**2 * (1 if self._oracle is None else 2)
        return 2 * (self._x0.numel() + fields)

    def new_noise(self) -> None:
        """Draws other noise for the same data and asks the model again; all views follow."""
        self._seed += 1
        answered = self._ask_models()
        with self.hold_sync():
            for name, value in answered.items():
                setattr(self, name, value)
            self.noise += 1

    def _ask_models(self) -> dict[str, bytes]:
        """Draws noise from the seed, asks model and oracle, and packs it all for the browser."""
        generator = torch.Generator().manual_seed(self._seed)
        eps = normal_like(self._x0, generator)
        asked = (self._schedule, self._x0, eps, self._steps)
        answered = answers(self._model, *asked)
        floors = None if self._oracle is None else answers(self._oracle, *asked).losses.mean(1)
        self._eps, self._answers, self._floors = eps, answered, floors
        data = {
            "eps": base.eps_bytes(eps),
            "losses": base.float_bytes(answered.losses.mean(1)),
            "floors": b"" if floors is None else base.float_bytes(floors),
        }
        if not self._images:
            return {**data, "eps_hat": base.eps_bytes(answered.eps_hat)}
        return {
            **data,
            "eps_hat": base.gray_bytes(answered.eps_hat / wire.EPS_RANGE),
            "x0_hat": base.gray_bytes(answered.x0_hat),
            "each": base.float_bytes(answered.losses),
        }

    def _fields(self) -> dict[str, Any]:
        """On points: eps_hat on a grid that holds the data and most of the noise."""
        if self._images:
            return {}
        reach = 1.05 * max(float(self._x0.abs().max()), 3.0)
        points = grid_of_points(reach).to(self._x0)
        self._grid, self._model_field = points, field(self._model, points, self._steps)
        fields = {"reach": reach, "model_field": base.eps_bytes(self._model_field)}
        if self._oracle is not None:
            self._oracle_field = field(self._oracle, points, self._steps)
            fields["oracle_field"] = base.eps_bytes(self._oracle_field)
        return fields

    def _on_message(self, _widget: object, content: dict, _buffers: object) -> None:
        """Answers a script, which asks whether a kernel is there, or for new noise."""
        kind = content.get("kind")
        if kind == wire.Ask.BYE:
            return
        if kind == wire.Ask.NOISE:
            try:
                self.new_noise()
            except Exception as error:  # shown beside the button, whatever a learner's model raises
                text = f"{type(error).__name__}: {error}"
                self.send({"kind": wire.Tell.FAILED, "text": text})
                return
        self.send({"kind": wire.Tell.HEARD})

    def _advice(self) -> str:
        what = "images" if self._images else "points"
        return f"fewer or smaller {what}, or fewer timesteps"

    def _now(self) -> int:
        return min(self.place, len(self._steps) - 1)

    def _summary(self) -> str:
        k, count = self._now(), len(self._x0)
        floor = "" if self._floors is None else f", the oracle's {float(self._floors[k]):.3g}"
        what = "images" if self._images else "points"
        return (
            f"What a denoiser says about {count} noised {what} "
            f"at {len(self._steps)} steps from t = {self._steps[0]} to {self._steps[-1]}; at "
            f"t = {self._steps[k]} its loss is {float(self._answers.losses[k].mean()):.3g}{floor}."
        )

    def _still(self) -> Figure:
        return self._still_images() if self._images else self._still_field()

    def _still_images(self) -> Figure:
        places = torch.linspace(0, len(self._steps) - 1, 4).round().long().unique()
        one = min(self.chosen, len(self._x0) - 1)
        steps = torch.tensor(self._steps)[places]
        many = (len(steps), *self._x0.shape[1:])
        x0, eps = (v[one].cpu().expand(many) for v in (self._x0, self._eps))
        schedule = self._schedule.to(torch.device("cpu"))
        eps_hat = self._answers.eps_hat[places, one]
        rows = {
            "x_t": diffuse(schedule, x0, steps, eps),
            "eps": eps / wire.EPS_SHOWN,
            "eps_hat": eps_hat / wire.EPS_SHOWN,
            "error": (eps_hat - eps) / wire.EPS_SHOWN,
            "x0_hat": self._answers.x0_hat[places, one],
        }
        return plots.filmstrip(
            list(rows.values()), labels=[f"t = {int(t)}" for t in steps], rows=list(rows)
        )

    def _still_field(self) -> Figure:
        k = self._now()
        figure, (left, right) = plots.panels(2, height=3.6)
        t = torch.full((len(self._x0),), self._steps[k], device=self._x0.device)
        x_t = diffuse(self._schedule, self._x0, t, self._eps).cpu()
        left.scatter(*x_t.T, s=4, color="#777777", linewidths=0)
        grid = self._grid.cpu().T
        same = {"angles": "xy", "scale_units": "xy", "scale": GRID / self.reach}
        same["antialiased"] = False  # few colors make a small file
        if self._oracle is not None:
            wide = {**same, "width": 0.009, "headwidth": 1, "headlength": 0, "headaxislength": 0}
            left.quiver(*grid, *self._oracle_field[k].T, color=plots.COLORS[1], **wide)
        left.quiver(*grid, *self._model_field[k].T, color=plots.COLORS[0], width=0.004, **same)
        span = (-self.reach, self.reach)
        left.set(title=f"eps_hat at t = {self._steps[k]}", xlim=span, ylim=span, aspect="equal")
        lines = {"model": self._answers.losses.mean(1)}
        if self._floors is not None:
            lines["oracle"] = self._floors
        plots.curves(self._steps, lines, x_label="t", y_label="loss", log_x=True, axes=right)
        return figure


def _ask(model: EpsModel, x_t: Tensor, step: int) -> Tensor:
    """eps_hat for a batch at one step; raises an error where its shape is not that of x_t."""
    t = torch.full((len(x_t),), step, device=x_t.device)
    eps_hat = _validate.answer("model", model(x_t, t), x_t).detach().to(x_t)
    if not eps_hat.isfinite().all():
        raise ValueError(
            f"model must answer with finite numbers, got NaN or infinity at t = {step}"
        )
    return eps_hat


def _check_data(data: object) -> Tensor:
    """Images or points, float32, on their device.

    Raises:
        TypeError, ValueError: neither images nor points, none at all, NaN, or too large images.
    """
    tensor = _validate.batch("data", data)
    if tensor.ndim == 2 and tensor.shape[1] == 2 and len(tensor):
        return tensor.detach().float()
    if tensor.ndim != 4:
        shape = tuple(tensor.shape)
        raise ValueError(f"data must be images (N, C, H, W) or points (N, 2), got shape {shape}")
    base.check_images("data", tensor)
    return tensor.detach().float()


def _check_steps(timesteps: int | Sequence[int], num_steps: int) -> list[int]:
    """The steps to ask at, at least two, rising, in 1..num_steps."""
    if isinstance(timesteps, int):
        count = _validate.whole_number("timesteps", timesteps, at_least=2)
        steps = spread_steps(num_steps, count)
    elif isinstance(timesteps, Sequence):
        steps = [_validate.whole_number("an entry of timesteps", t, at_least=1) for t in timesteps]
    else:
        came = _validate.describe(timesteps)
        raise TypeError(f"timesteps must be a number or a list of steps, got {came}")
    if steps != sorted(set(steps)) or not steps or steps[-1] > num_steps:
        raise ValueError(f"timesteps must rise within 1..{num_steps}, got {timesteps}")
    if len(steps) < 2:
        raise ValueError(f"timesteps must be at least two, got {steps}")
    return steps
