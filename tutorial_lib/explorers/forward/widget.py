"""The forward explorer of lesson 2."""

from collections.abc import Mapping

import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from tutorial_lib import _validate, plots
from tutorial_lib._random import normal_like
from tutorial_lib.explorers.shared import base, wire
from tutorial_lib.forward import diffuse
from tutorial_lib.schedules import NoiseSchedule


class ForwardExplorer(base.Explorer, folder="forward"):
    """A batch noised at t: drag t and watch its pixels become N(0, 1).

    Beside the images are the histogram of their pixels and the two weights of the jump
    x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps. *New noise* draws another eps in the
    browser.

    Args:
        images: (N, C, H, W), values in [-1, 1], at most 64 pixels wide and high.
        schedules: one schedule, or several by name, all with the same ``num_steps``.
        schedule: the name to begin with; by default the first.
        t: the step to begin with, 0 to T.
        seed: of the first noise.

    Raises:
        TypeError, ValueError: invalid images, schedules or numbers, or more images
            than a saved notebook should carry.
    """

    x0 = traitlets.Bytes().tag(sync=True)
    eps = traitlets.Bytes().tag(sync=True)
    alpha_bar = traitlets.Bytes().tag(sync=True)
    schedule_names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    shape = traitlets.List(traitlets.Int()).tag(sync=True)
    schedule = traitlets.Unicode().tag(sync=True)
    t = traitlets.Int(0, min=0).tag(sync=True)
    image = traitlets.Int(wire.ALL, min=wire.ALL).tag(sync=True)
    noise = traitlets.Int(0, min=0).tag(sync=True)

    def __init__(
        self,
        images: Tensor,
        schedules: NoiseSchedule | Mapping[str, NoiseSchedule],
        *,
        schedule: str | None = None,
        t: int = 0,
        seed: int = 0,
    ) -> None:
        self._images = base.check_images("images", images)
        self._schedules = base.named_schedules(schedules)
        names = list(self._schedules)
        first = names[0] if schedule is None else _validate.one_of("schedule", schedule, names)
        last = self._schedules[first].num_steps
        _validate.number("t", _validate.whole_number("t", t, at_least=0), low=0, high=last)
        generator = torch.Generator().manual_seed(_validate.seed("seed", seed))
        self._eps = normal_like(self._images, generator)
        bars = torch.stack([kept.alpha_bar for kept in self._schedules.values()])
        super().__init__(
            x0=base.gray_bytes(self._images),
            eps=base.eps_bytes(self._eps),
            alpha_bar=bars.numpy().tobytes(),
            schedule_names=names,
            shape=list(self._images.shape),
            schedule=first,
            t=t,
        )

    def _summary(self) -> str:
        schedule = self._schedules[self.schedule]
        t = min(self.t, schedule.num_steps)
        return (
            f"{len(self._images)} images noised step by step from t = 0 to {schedule.num_steps}; "
            f"at t = {t} the signal weighs {float(schedule.signal_rate[t]):.3f} and the noise "
            f"{float(schedule.noise_rate[t]):.3f}."
        )

    def _still(self) -> Figure:
        schedule = self._schedules[self.schedule]
        steps = torch.linspace(0, schedule.num_steps, 6).round().long()
        strips = []
        for image, eps in zip(self._images[:3], self._eps[:3], strict=True):
            many = (len(steps), *image.shape)
            strips.append(diffuse(schedule, image.expand(many), steps, eps.expand(many)))
        return plots.filmstrip(strips, labels=[f"t = {int(t)}" for t in steps])
