"""The solver explorer of lesson 9."""

import math
from collections.abc import Callable

import numpy as np
import torch
import traitlets
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from tutorial_lib import _validate, plots
from tutorial_lib.explorers.shared import base, plane, wire
from tutorial_lib.oracles import GaussianMixtureOracle
from tutorial_lib.samplers import SAMPLERS, heun, karras_spaced
from tutorial_lib.samplers.timesteps import noise_to_signal
from tutorial_lib.schedules import NoiseSchedule

Points = Float[Tensor, "points 2"]

COUNTS = range(1, wire.EVALUATIONS_MAX + 1)
"""All numbers of steps whose walks can be looked at."""


def _even(schedule: NoiseSchedule, count: int, first: int, _sigma_max: float) -> list[int]:
    return [(2 * first * i + count) // (2 * count) for i in range(count, -1, -1)]


def _by_rho(rho: float) -> Callable[[NoiseSchedule, int, int, float], list[int]]:
    return lambda schedule, count, _first, sigma_max: karras_spaced(schedule, count, rho, sigma_max)


SPACED: dict[str, Callable[[NoiseSchedule, int, int, float], list[int]]] = {
    "karras": _by_rho(7.0),
    "even": _even,
    "logarithmic": _by_rho(1000.0),
}
"""How steps are spaced, each called as ``(schedule, count, first step, sigma_max)``."""


def steps_for(solver: str, evaluations: int) -> int:
    """The most steps that so many evaluations allow: Heun asks twice a step, but for the last."""
    return (evaluations + 1) // 2 if solver == "heun" else evaluations


def exact_path(
    oracle: GaussianMixtureOracle, starts: Points, first: int, kept: int = 40
) -> Float[Tensor, "kept points 2"]:
    """The path of the ODE from step ``first`` to clean data, by Heun with every step.

    Of its states, ``kept`` of them spread evenly in log sigma, the start and the end among them.
    """
    states = [starts]
    states += [step.x_t for step in heun(oracle, oracle.schedule, starts, range(first, -1, -1))]
    schedule = oracle.schedule
    sigma = noise_to_signal(schedule)[1 : first + 1].log().cpu()
    wanted = torch.linspace(float(sigma[-1]), float(sigma[0]), kept - 1, dtype=sigma.dtype)
    steps = torch.searchsorted(sigma, wanted).clamp(0, first - 1) + 1
    steps[0] = first
    return torch.stack([*(states[first - int(t)] for t in steps), states[-1]])


class SolverExplorer(base.Explorer, folder="solvers"):
    """A race of Euler, Heun and DPM-Solver++ through an exact field: drag how often they may ask.

    Points walk from noise to the clusters of a mixture in the plane. Beside the walks is how far
    they end from where the ODE leads, over the number of evaluations, on logarithmic axes. All is
    computed in the browser, as ``tutorial_lib.samplers`` does it.

    Args:
        oracle: a mixture in the plane, at most 40 clusters.
        points: where walks begin, (P, 2), at most 40; or how many to draw from N(0, I).
        evaluations: how often each solver may ask, to begin with, 2 to 64.
        spacing: of the steps, to begin with: karras (rho = 7), even (in t) or logarithmic (in
            sigma).
        sigma_max: walks begin at the step whose sigma is nearest to it; above 0.
        seed: of the points, where they are drawn.

    Raises:
        TypeError, ValueError: a mixture of another dimension, too many points or clusters, fewer
            than 64 steps below ``sigma_max``, or a number out of range.
    """

    means = traitlets.Bytes().tag(sync=True)
    variances = traitlets.Bytes().tag(sync=True)
    weights = traitlets.Bytes().tag(sync=True)
    sigma = traitlets.Bytes().tag(sync=True)
    starts = traitlets.Bytes().tag(sync=True)
    ends = traitlets.Bytes().tag(sync=True)
    paths = traitlets.Bytes().tag(sync=True)
    timesteps = traitlets.Bytes().tag(sync=True)
    spacings = traitlets.List(traitlets.Unicode()).tag(sync=True)
    edge = traitlets.Float().tag(sync=True)
    spacing = traitlets.Unicode().tag(sync=True)
    evaluations = traitlets.Int(12, min=wire.EVALUATIONS_MIN, max=wire.EVALUATIONS_MAX).tag(
        sync=True
    )

    def __init__(
        self,
        oracle: GaussianMixtureOracle,
        points: Tensor | int = 16,
        *,
        evaluations: int = 12,
        spacing: str = "karras",
        sigma_max: float = 20.0,
        seed: int = 0,
    ) -> None:
        self._oracle = plane.check_mixture(oracle)
        schedule = oracle.schedule
        least, most = wire.EVALUATIONS_MIN, wire.EVALUATIONS_MAX
        _validate.whole_number("evaluations", evaluations, at_least=least, at_most=most)
        _validate.one_of("spacing", spacing, SPACED)
        generator = torch.Generator().manual_seed(_validate.seed("seed", seed))
        self._starts = plane.check_points(points, generator)
        first = karras_spaced(schedule, 1, sigma_max=sigma_max)[0]
        if first < wire.EVALUATIONS_MAX:
            raise ValueError(
                f"sigma_max must leave at least {wire.EVALUATIONS_MAX} steps below it, "
                f"{sigma_max:g} leaves {first}"
            )
        self._steps = {
            (name, count): spaced(schedule, count, first, sigma_max)
            for name, spaced in SPACED.items()
            for count in COUNTS
        }
        self._path = exact_path(oracle, self._starts, first)
        wide = max(float(self._path.abs().max()), float(oracle.means.abs().max()))
        listed = [t for steps in self._steps.values() for t in steps]
        super().__init__(
            means=plane.double_bytes(oracle.means),
            variances=plane.double_bytes(oracle.variances),
            weights=plane.double_bytes(oracle.weights),
            sigma=plane.double_bytes(noise_to_signal(schedule)),
            starts=plane.double_bytes(self._starts),
            ends=plane.double_bytes(self._path[-1]),
            paths=base.float_bytes(self._path),
            timesteps=np.array(listed, dtype=np.int32).tobytes(),
            spacings=list(SPACED),
            edge=math.ceil(4 * wide * 1.1) / 4,
            spacing=spacing,
            evaluations=evaluations,
        )

    def walked(self, solver: str) -> Float[Tensor, "states points 2"]:
        """All states of a solver's walk as it is shown now, the start among them.

        Args:
            solver: "euler", "heun" or "dpm_solver".

        Raises:
            ValueError: another name.
        """
        _validate.one_of("solver", solver, wire.SOLVERS)
        steps = self._steps[self.spacing, steps_for(solver, self.evaluations)]
        walk = SAMPLERS[solver](self._oracle, self._oracle.schedule, self._starts, steps)
        return torch.stack([self._starts, *(step.x_t for step in walk)])

    def errors(self) -> dict[str, float]:
        """How far each solver's walks end from the exact ends, on average, as shown now."""
        ends = {name: self.walked(name)[-1] for name in wire.SOLVERS}
        return {
            name: float((end - self._path[-1]).norm(dim=1).mean()) for name, end in ends.items()
        }

    def _summary(self) -> str:
        texts = [f"{wire.SOLVERS[name]} {error:.3g}" for name, error in self.errors().items()]
        return (
            f"Walks of three solvers through the exact field of {len(self._oracle.means)} clusters "
            f"with {self.evaluations} evaluations, {self.spacing} spacing; they end this far from "
            f"the exact ends: {', '.join(texts)}."
        )

    def _still(self) -> Figure:
        figure, axes = plots.panels(len(wire.SOLVERS), width=9, height=3.5)
        for k, (axis, name) in enumerate(zip(axes, wire.SOLVERS, strict=True)):
            color, states = plots.COLORS[k], self.walked(name)
            axis.scatter(*self._oracle.means.T, s=60, marker="+", color=plots.INK)
            axis.plot(self._path[..., 0], self._path[..., 1], color=plots.GRAY, linewidth=1)
            axis.plot(states[..., 0], states[..., 1], "-o", color=color, markersize=2, linewidth=1)
            axis.set(xlim=(-self.edge, self.edge), ylim=(-self.edge, self.edge), aspect="equal")
            axis.set_axis_off()
            axis.set_title(wire.SOLVERS[name], color=color)
        return figure
