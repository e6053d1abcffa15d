"""The trajectory explorer of lesson 6."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import traitlets
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from tutorial_lib import _validate, plots
from tutorial_lib._random import normal_like
from tutorial_lib._typing import EpsModel, Images
from tutorial_lib.explorers.shared import base, wire
from tutorial_lib.samplers import SampleStep, ddim, ddpm, evenly_spaced, respace
from tutorial_lib.schedules import NoiseSchedule

Halts = Float[Tensor, "halts batch channels height width"]

# One walk, as the browser is told of it: sampler, number of steps, eta, and where its halts are.
_WALK = traitlets.Dict(
    per_key_traits={
        "name": traitlets.Unicode(),
        "steps": traitlets.Int(),
        "eta": traitlets.Float(),
        "t": traitlets.List(traitlets.Int()),
    }
)


class Walk(NamedTuple):
    """Some halts of a walk, from T down to 0.

    Attributes:
        t: their steps, falling.
        x_t: the states there.
        x0_hat: the clean images that the model sees in these states; at t = 0 the state itself.
    """

    t: list[int]
    x_t: Halts
    x0_hat: Halts


def record(steps: Iterator[SampleStep], x_T: Images, halts: Sequence[int], frames: int) -> Walk:
    """Keeps the start of a walk and at most ``frames`` of its halts, spread evenly, with the end.

    Args:
        steps: the walk from ``x_T``, as a sampler yields it.
        halts: all its halts, from T down to 0.
    """
    last = len(halts) - 1
    kept = {round(i * last / min(frames, last)) for i in range(min(frames, last) + 1)}
    states, guesses, x_t = [], [], x_T
    for number, step in enumerate(steps):
        if number in kept:  # what the model said at this halt comes with the step that follows
            states.append(x_t.cpu().float())
            guesses.append(step.x0_hat.cpu().float())
        x_t = step.x_t
    states.append(x_t.cpu().float())
    guesses.append(states[-1])
    return Walk([halts[i] for i in sorted(kept)], torch.stack(states), torch.stack(guesses))


def settling(walk: Walk) -> Float[Tensor, " halts"]:
    """How far the guess x0_hat at each halt is from where the walk ends, root mean square."""
    return (walk.x0_hat - walk.x_t[-1]).square().flatten(1).mean(1).sqrt()


class TrajectoryExplorer(base.Explorer, folder="trajectory"):
    """DDPM and DDIM from the same x_T: drag along their walks and compare.

    All walks are computed when the explorer is made; dragging only shows them. Beside x_t and
    x0_hat of both is a curve of how far x0_hat is from the end of its walk.

    Args:
        model: called as ``model(x_t, t)``, predicts the noise in x_t.
        schedule: the schedule that the model was trained for.
        x_T: where all walks start, standard normal noise (N, C, H, W), at most 64 pixels wide and
            high; or only its shape.
        steps: the numbers of DDIM steps to choose from.
        etas: the values of eta to choose from.
        ddpm_steps: how many steps DDPM takes, by default all; with fewer it walks on a shortened
            schedule (see ``samplers.respace``).
        variance: sigma_t^2 of DDPM, "posterior" or "beta".
        frames: how many halts of each walk to keep, besides its start.
        t: the step to begin with, T to 0; by default halfway.
        seed: of x_T where a shape is given, and of the noise on each walk.

    Raises:
        TypeError, ValueError: invalid arguments, or more pictures than a saved
            notebook should carry.
    """

    x_t = traitlets.Bytes().tag(sync=True)
    x0_hat = traitlets.Bytes().tag(sync=True)
    settled = traitlets.Bytes().tag(sync=True)
    walks = traitlets.List(_WALK).tag(sync=True)
    shape = traitlets.List(traitlets.Int()).tag(sync=True)
    num_steps = traitlets.Int().tag(sync=True)
    all_steps = traitlets.List(traitlets.Int()).tag(sync=True)
    all_etas = traitlets.List(traitlets.Float()).tag(sync=True)
    steps = traitlets.Int().tag(sync=True)
    eta = traitlets.Float().tag(sync=True)
    t = traitlets.Int(0, min=0).tag(sync=True)

    def __init__(
        self,
        model: EpsModel,
        schedule: NoiseSchedule,
        x_T: Tensor | Sequence[int],
        *,
        steps: Sequence[int] = (10, 20, 50),
        etas: Sequence[float] = (0.0, 0.5, 1.0),
        ddpm_steps: int | None = None,
        variance: str = "posterior",
        frames: int = 25,
        t: int | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(schedule, NoiseSchedule):
            came = _validate.describe(schedule)
            raise TypeError(f"schedule must be a NoiseSchedule, got {came}")
        T = schedule.num_steps
        counts = [_count("an entry of steps", count, T) for count in _several("steps", steps)]
        dials = [
            _validate.number("an entry of etas", eta, low=0, high=1)
            for eta in _several("etas", etas)
        ]
        ddpm_steps = T if ddpm_steps is None else _count("ddpm_steps", ddpm_steps, T)
        _validate.whole_number("frames", frames, at_least=1)
        t = T // 2 if t is None else _validate.whole_number("t", t, at_least=0)
        _validate.number("t", t, low=0, high=T)
        start = _start(x_T, _validate.seed("seed", seed))
        self._check_size(start, [ddpm_steps, *counts * len(dials)], frames)

        def same_noise() -> torch.Generator:
            return torch.Generator().manual_seed(seed)

        halts = evenly_spaced(T, ddpm_steps)
        shorter = respace(model, schedule, halts)
        walk = ddpm(*shorter, start, variance=variance, generator=same_noise())
        self._walks = {(wire.DDPM, ddpm_steps, 1.0): record(walk, start, halts, frames)}
        for count in counts:
            halts = evenly_spaced(T, count)
            for eta in dials:
                walk = ddim(model, schedule, start, halts, eta=eta, generator=same_noise())
                self._walks[wire.DDIM, count, eta] = record(walk, start, halts, frames)
        kept = self._walks.values()
        super().__init__(
            x_t=base.gray_bytes(torch.cat([walk.x_t for walk in kept])),
            x0_hat=base.gray_bytes(torch.cat([walk.x0_hat for walk in kept])),
            settled=base.float_bytes(torch.cat([settling(walk) for walk in kept])),
            walks=[
                {"name": name, "steps": count, "eta": eta, "t": walk.t}
                for (name, count, eta), walk in self._walks.items()
            ],
            shape=list(start.shape),
            num_steps=T,
            all_steps=counts,
            all_etas=dials,
            steps=counts[0],
            eta=dials[0],
            t=t,
        )

    @traitlets.validate("steps", "eta")
    def _precomputed(self, proposal: Any) -> Any:
        """Accepts only values for which there is a walk."""
        name, value = proposal["trait"].name, proposal["value"]
        options = {walk[1 if name == "steps" else 2] for walk in list(self._walks)[1:]}
        if value not in options:
            raise ValueError(f"{name} must be one of {sorted(options)}, got {value}")
        return value

    def _check_size(self, start: Tensor, counts: list[int], frames: int) -> None:
        """Raises ValueError before the sampling where the walks would be too much to send."""
        halts = sum(min(frames, count) + 1 for count in counts)
        size = 2 * halts * start.numel()
        if size > base.MAX_BYTES:
            raise ValueError(
                f"{type(self).__name__} must send at most {base.MAX_BYTES:,} bytes to the "
                f"browser, got {size:,} for {len(start)} x {halts} halts: give {self._advice()}"
            )

    def _advice(self) -> str:
        return "fewer frames, steps or etas, or fewer or smaller images in x_T"

    def _shown(self) -> tuple[Walk, Walk]:
        """The walks that are compared now, DDPM's and DDIM's."""
        walks = list(self._walks.values())
        return walks[0], self._walks[wire.DDIM, self.steps, self.eta]

    def _summary(self) -> str:
        one, other = self._shown()
        _, count, _ = next(iter(self._walks))
        apart = (one.x_t[-1] - other.x_t[-1]).square().mean().sqrt()
        return (
            f"The walks of DDPM in {count} steps and of DDIM in {self.steps} steps with eta = "
            f"{self.eta:g} from the same noise; where they end, pixels differ by "
            f"{float(apart):.2f} (root mean square)."
        )

    def _still(self) -> Figure:
        times = [round(self.num_steps * i / 8) for i in range(8, -1, -1)]
        rows = {}
        for name, walk in zip((wire.DDPM, wire.DDIM), self._shown(), strict=True):
            at = [reached(walk.t, t) for t in times]
            rows[f"{name}: x_t"] = walk.x_t[at, 0]
            rows[f"{name}: x0_hat"] = walk.x0_hat[at, 0]
        return plots.filmstrip(
            list(rows.values()), labels=[f"t = {t}" for t in times], rows=list(rows)
        )


def reached(halts: Sequence[int], t: int) -> int:
    """The index of the last halt at ``t`` or before it, as the walk comes down from T."""
    return max(i for i, halt in enumerate(halts) if halt >= t)


def _start(x_T: Tensor | Sequence[int], seed: int) -> Tensor:
    """``x_T`` itself, on its device, or noise of that shape from the seed."""
    if not isinstance(x_T, Tensor):
        if not isinstance(x_T, Sequence) or isinstance(x_T, str) or len(x_T) != 4:
            came = _validate.describe(x_T)
            raise TypeError(f"x_T must be a tensor or a shape (N, C, H, W), got {came}")
        sizes = [_validate.whole_number("an entry of x_T", size, at_least=1) for size in x_T]
        x_T = normal_like(torch.empty(*sizes), torch.Generator().manual_seed(seed))
    base.check_images("x_T", x_T)
    return x_T


def _several(name: str, values: object) -> list:
    """A sequence of at least one value, none twice, as a list."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(f"{name} must be a sequence, got {_validate.describe(values)}")
    if not values or len(set(values)) < len(values):
        raise ValueError(f"{name} must hold one value or more, none twice; got {list(values)}")
    return list(values)


def _count(name: str, count: object, num_steps: int) -> int:
    """A number of steps in 1..T."""
    count = _validate.whole_number(name, count, at_least=1)
    if count > num_steps:
        raise ValueError(f"{name} must be in 1..{num_steps}, got {count}")
    return count
