"""The schedule explorer of lesson 1."""

from collections.abc import Mapping

import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from tutorial_lib import _validate, plots, schedules
from tutorial_lib._random import normal_like
from tutorial_lib.explorers.shared import base, wire
from tutorial_lib.schedules import NoiseSchedule


class ScheduleExplorer(base.Explorer, folder="schedule"):
    """What a noise schedule does to one image: drag t, T, the first and the last beta.

    It shows curves of beta, alpha_bar and the signal-to-noise ratio with a marker at t, the step
    where the ratio crosses 1, and the image along t. The browser computes the families as
    ``tutorial_lib.schedules`` does.

    Args:
        image: (C, H, W) or (1, C, H, W), values in [-1, 1], at most 64 pixels wide and high.
        schedules: schedules of your own by name, all with the same ``num_steps``; they can be
            chosen like the families, but T and the ends do not change them.
        family: the schedule to begin with: linear, quadratic, cosine, or a name in ``schedules``.
        num_steps: T to begin with, 10 to 2000.
        t: the step to begin with, 0 to T.
        beta_start, beta_end: the ends to begin with, 1e-5 to 0.5.
        seed: of the noise.

    Raises:
        TypeError, ValueError: an invalid image, schedule or number.
    """

    x0 = traitlets.Bytes().tag(sync=True)
    eps = traitlets.Bytes().tag(sync=True)
    own = traitlets.Bytes().tag(sync=True)
    own_names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    shape = traitlets.List(traitlets.Int()).tag(sync=True)
    family = traitlets.Unicode("linear").tag(sync=True)
    num_steps = traitlets.Int(1000, min=wire.STEPS_MIN, max=wire.STEPS_MAX).tag(sync=True)
    # The sliders round: their last place is 0.501.
    beta_start = traitlets.Float(1e-4, min=wire.BETA_MIN, max=wire.BETA_MAX + 0.01).tag(sync=True)
    beta_end = traitlets.Float(0.02, min=wire.BETA_MIN, max=wire.BETA_MAX + 0.01).tag(sync=True)
    t = traitlets.Int(0, min=0).tag(sync=True)

    def __init__(
        self,
        image: Tensor,
        schedules: NoiseSchedule | Mapping[str, NoiseSchedule] | None = None,
        *,
        family: str = "linear",
        num_steps: int = 1000,
        t: int = 250,
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        seed: int = 0,
    ) -> None:
        image = image[None] if isinstance(image, Tensor) and image.ndim == 3 else image
        self._image = base.check_images("image", image)
        if len(self._image) != 1:
            raise ValueError(f"image must be one image, got {len(self._image)}")
        self._own = {} if schedules is None else base.named_schedules(schedules)
        taken = [name for name in self._own if name in wire.FAMILIES]
        if taken:
            raise ValueError(f"schedules must not have the name of a family, got {taken[0]!r}")
        _validate.one_of("family", family, [*wire.FAMILIES, *self._own])
        _validate.whole_number("num_steps", num_steps, at_least=wire.STEPS_MIN)
        _validate.number("num_steps", num_steps, low=wire.STEPS_MIN, high=wire.STEPS_MAX)
        for name, beta in (("beta_start", beta_start), ("beta_end", beta_end)):
            _validate.number(name, beta, low=wire.BETA_MIN, high=wire.BETA_MAX)
        last = self._own[family].num_steps if family in self._own else num_steps
        _validate.number("t", _validate.whole_number("t", t, at_least=0), low=0, high=last)
        generator = torch.Generator().manual_seed(_validate.seed("seed", seed))
        self._eps = normal_like(self._image, generator)
        bars = [schedule.alpha_bar for schedule in self._own.values()]
        super().__init__(
            x0=base.gray_bytes(self._image),
            eps=base.eps_bytes(self._eps),
            own=torch.stack(bars).numpy().tobytes() if bars else b"",
            own_names=list(self._own),
            shape=list(self._image.shape[1:]),
            family=family,
            num_steps=num_steps,
            t=t,
            beta_start=float(beta_start),
            beta_end=float(beta_end),
        )

    def schedule(self) -> NoiseSchedule:
        """The schedule that the explorer shows now.

        Raises:
            ValueError: it leaves less than 1e-60 of the signal; see ``NoiseSchedule``.
        """
        if self.family in self._own:
            return self._own[self.family]
        if self.family == "cosine":
            return schedules.cosine_schedule(self.num_steps)
        make = {"linear": schedules.linear_schedule, "quadratic": schedules.quadratic_schedule}
        return make[self.family](self.num_steps, beta_start=self.beta_start, beta_end=self.beta_end)

    def _alpha_bar(self) -> Tensor:
        """alpha_bar as it is drawn, also where too little signal is left for a schedule."""
        try:
            return self.schedule().alpha_bar
        except ValueError:
            power = 2 if self.family == "quadratic" else 1
            ends = (self.beta_start ** (1 / power), self.beta_end ** (1 / power))
            betas = torch.linspace(*ends, self.num_steps, dtype=torch.float64) ** power
            left = (1 - betas).cumprod(0).clamp(min=schedules.SMALLEST_ALPHA_BAR)
            return torch.cat([torch.ones(1, dtype=torch.float64), left])

    def _summary(self) -> str:
        alpha_bar = self._alpha_bar()
        last = len(alpha_bar) - 1
        t = min(self.t, last)
        return (
            f"One image along the {self.family} schedule of {last} steps, and its beta, alpha_bar "
            f"and signal-to-noise ratio; at t = {t} alpha_bar is {float(alpha_bar[t]):.3g}."
        )

    def _still(self) -> Figure:
        alpha_bar = self._alpha_bar()
        steps = torch.linspace(0, len(alpha_bar) - 1, 9).round().long()
        kept = alpha_bar[steps].float().reshape(-1, 1, 1, 1)
        strip = kept.sqrt() * self._image + (1 - kept).sqrt() * self._eps
        return plots.filmstrip([strip], labels=[f"t = {int(step)}" for step in steps])
