"""The editing explorer of lesson 11."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
import traitlets
from matplotlib.figure import Figure
from torch import Tensor

from tutorial_lib import _validate, plots
from tutorial_lib._random import normal_like
from tutorial_lib._typing import EpsModel
from tutorial_lib.editing import inpaint
from tutorial_lib.explorers.shared import base, wire
from tutorial_lib.forward import diffuse
from tutorial_lib.guidance import condition, guide
from tutorial_lib.samplers import SampleStep, ddpm, evenly_spaced, last
from tutorial_lib.schedules import NoiseSchedule

MOST_ANSWERS = 8
AT_ONCE = 64
"""Completions drawn in one batch."""
UNKNOWN = -0.5
"""The gray of what is to be redrawn, in a still picture."""


def area_mask(area: int, height: int, width: int) -> Tensor:
    """What is redrawn, bool (H, W), for a number of ``wire.AREAS``."""
    mask = torch.zeros(height, width, dtype=torch.bool)
    if area == 0:
        mask[height // 2 :] = True
    elif area == 1:
        mask[:, width // 2 :] = True
    elif area == 2:
        mask[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    else:
        mask[:] = True
    return mask


def redrawn(
    model: EpsModel,
    schedule: NoiseSchedule,
    known: Tensor,
    mask: Tensor,
    strength: float,
    steps: int,
    generator: torch.Generator,
) -> Iterator[SampleStep]:
    """A walk that redraws what ``mask`` marks of ``known``, (B, C, H, W), at a strength in (0, 1].

    The walk of ``editing.edit``, begun at the noised pictures, and the constraint of
    ``editing.inpaint``: what is not marked stays.

    Args:
        mask: bool, True where to redraw, (H, W) or with a batch (B, 1, H, W).
    """
    walk = evenly_spaced(schedule.num_steps, steps)
    rest = walk[-max(1, math.floor(strength * steps + 0.5)) - 1 :]
    t = torch.full((len(known),), rest[0], device=known.device)
    start = diffuse(schedule, known, t, normal_like(known, generator))
    keep = ~mask.expand(len(known), 1, *known.shape[2:]).to(known.device)
    return inpaint(model, schedule, start, rest, known, keep, sampler=ddpm, generator=generator)


class EditingExplorer(base.Explorer, folder="editing"):
    """Paint over a part of a picture, and watch it being completed, several times at once.

    The kernel walks by DDPM with ``editing.inpaint`` and sends what the model has in mind on the
    way. The strength says how much of what was there shows through: at 1 nothing does. Completions
    of three areas are made with the explorer, so that a page without a kernel has them, too.

    Args:
        model: called as ``model(x_t, t, labels)`` on the device of ``images`` where there are
            classes, else as ``model(x_t, t)``.
        schedule: the schedule that the model was trained for.
        images: the pictures to edit, (N, C, H, W) in [-1, 1], at most 64 pixels wide and high.
        num_classes: the label that means "no class"; None for a model without classes.
        class_names: the name of each class, from class 0; by default its number.
        answers: how many completions are drawn, 1 to 8.
        steps: length of a whole walk, in 1..T.
        guidance: the guidance scale where a class is chosen, at least 0.
        seed: of the noise.

    Raises:
        TypeError, ValueError: invalid arguments, answers of the model in another shape or not
            finite, or more data than a saved notebook should carry.
    """

    images = traitlets.Bytes().tag(sync=True)
    ready = traitlets.Bytes().tag(sync=True)
    mask = traitlets.Bytes().tag(sync=True)
    shape = traitlets.List(traitlets.Int()).tag(sync=True)
    class_names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    answers = traitlets.Int(4).tag(sync=True)
    chosen = traitlets.Int(0, min=0).tag(sync=True)
    area = traitlets.Int(0, min=wire.PAINTED).tag(sync=True)
    label = traitlets.Int(wire.ALL, min=wire.ALL).tag(sync=True)
    percent = traitlets.Int(100, min=wire.LEAST_STRENGTH, max=100).tag(sync=True)
    row = traitlets.Int(0, min=0).tag(sync=True)
    column = traitlets.Int(0, min=0).tag(sync=True)
    erases = traitlets.Bool(False).tag(sync=True)
    noise = traitlets.Int(0, min=0).tag(sync=True)

    def __init__(
        self,
        model: Callable[..., Tensor],
        schedule: NoiseSchedule,
        images: Tensor,
        *,
        num_classes: int | None = None,
        class_names: Sequence[str] | None = None,
        answers: int = 4,
        steps: int = 20,
        guidance: float = 2.0,
        seed: int = 0,
    ) -> None:
        _validate.function("model", model)
        if not isinstance(schedule, NoiseSchedule):
            came = _validate.describe(schedule)
            raise TypeError(f"schedule must be a NoiseSchedule, got {came}")
        base.check_images("images", images)
        self._images = images.detach().float().clamp(-1, 1)
        self._schedule, self._model = schedule.to(self._images.device), model
        self._num_classes = num_classes
        if num_classes is not None:
            _validate.whole_number("num_classes", num_classes, at_least=1, at_most=1000)
        answers = _validate.whole_number("answers", answers, at_least=1, at_most=MOST_ANSWERS)
        last_step = schedule.num_steps
        self._steps = _validate.whole_number("steps", steps, at_least=1, at_most=last_step)
        self._guidance = _validate.number("guidance", guidance, low=0.0, high=math.inf)
        self._seed = _validate.seed("seed", seed)
        h, w = images.shape[2:]
        self._ready = self._complete_areas(answers)
        super().__init__(
            images=base.gray_bytes(self._images),
            ready=base.gray_bytes(self._ready),
            mask=_packed(area_mask(0, h, w)),
            shape=list(images.shape),
            class_names=_check_names(class_names, num_classes),
            answers=answers,
            row=h // 2,
            column=w // 2,
        )
        self.on_msg(self._on_message)

    def complete(self) -> Tensor:
        """The completions of what is chosen and painted now, (answers, C, H, W) in [-1, 1]."""
        *_, end = self._walk()
        return end.x_t.cpu()

    def _told(self, count: int, label: int) -> EpsModel:
        """The model that knows what to draw, for a batch of ``count``."""
        if self._num_classes is None:
            return self._model
        nobody = torch.full((count,), self._num_classes, device=self._images.device)
        if label == wire.ALL:
            return condition(self._model, nobody)
        return guide(self._model, nobody * 0 + label, self._guidance, self._num_classes)

    def _complete_areas(self, answers: int) -> Tensor:
        """Completions of the first areas for each picture, (N, READY, answers, C, H, W)."""
        count, channels, h, w = self._images.shape
        masks = torch.stack([area_mask(k, h, w) for k in range(wire.READY)])
        each = wire.READY * answers
        known = self._images.repeat_interleave(each, 0)
        marked = masks.repeat_interleave(answers, 0).repeat(count, 1, 1)[:, None]
        generator = torch.Generator().manual_seed(self._seed)
        ends = []
        for part, mask in zip(known.split(AT_ONCE), marked.split(AT_ONCE), strict=True):
            told = self._told(len(part), wire.ALL)
            walk = redrawn(told, self._schedule, part, mask, 1.0, self._steps, generator)
            ends.append(last(walk).cpu())
        return torch.cat(ends).view(count, wire.READY, answers, channels, h, w)

    def _walk(self) -> Iterator[SampleStep]:
        """The walk that redraws what is chosen and painted now."""
        h, w = self.shape[2:]
        mask = torch.frombuffer(bytearray(self.mask), dtype=torch.uint8).view(h, w) > 0
        known = self._images[self._place()].expand(self.answers, -1, -1, -1)
        seed = (self._seed + 1 + self.noise) % 2**63
        return redrawn(
            self._told(self.answers, self.label),
            self._schedule,
            known,
            mask,
            self.percent / 100,
            self._steps,
            torch.Generator().manual_seed(seed),
        )

    def _on_message(self, _widget: object, content: dict, _buffers: object) -> None:
        """Answers a script, which asks whether a kernel is there, or for completions."""
        kind = content.get("kind")
        if kind == wire.Ask.BYE:
            return
        if kind != wire.Ask.FILL:
            self.send({"kind": wire.Tell.HEARD})
            return
        key = content.get("key")
        try:
            step = None
            for step in self._walk():
                seen = step.x_t if step.t == 0 else step.x0_hat
                about = {"kind": wire.Tell.FILLING, "key": key, "t": step.t}
                self.send(about, [base.gray_bytes(seen)])
            self.send({"kind": wire.Tell.FILLED, "key": key})
        except Exception as error:  # shown beside the controls, whatever a model raises
            text = f"{type(error).__name__}: {error}"
            self.send({"kind": wire.Tell.FAILED, "text": text})

    def _advice(self) -> str:
        return "fewer or smaller images, or fewer answers"

    def _place(self) -> int:
        return min(self.chosen, len(self._images) - 1)

    def _summary(self) -> str:
        return (
            f"{len(self._images)} pictures, and {self.answers} completions of each where the lower "
            "half, the right half or the middle is to be redrawn; shown are those of the lower "
            "half."
        )

    def _still(self) -> Figure:
        shown = self._images[:4].cpu()
        mask = area_mask(0, *shown.shape[2:])
        rows = torch.cat([torch.where(mask, UNKNOWN, shown)[:, None], self._ready[:4, 0]], 1)
        names = ["known", *(str(k + 1) for k in range(self.answers))]
        return plots.filmstrip(list(rows), labels=names)


def _packed(mask: Tensor) -> bytes:
    """A byte for each pixel, 1 where it is to be redrawn."""
    return mask.to(torch.uint8).numpy().tobytes()


def _check_names(names: Sequence[str] | None, count: int | None) -> list[str]:
    if count is None:
        if names is not None:
            raise ValueError("class_names needs num_classes, got None")
        return []
    if names is None:
        return [str(label) for label in range(count)]
    if isinstance(names, str) or len(names) != count:
        raise ValueError(f"class_names must name {count} classes, got {names!r}")
    return [str(name) for name in names]
