"""The flow explorer of lesson 10."""

import math
from typing import NamedTuple

import torch
import traitlets
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from tutorial_lib import _validate, flows, plots
from tutorial_lib._random import normal_like
from tutorial_lib._typing import PerSample, States
from tutorial_lib.explorers.shared import base, plane, wire
from tutorial_lib.oracles import GaussianMixtureOracle

Points = Float[Tensor, "points 2"]

FEWEST_PAIRS, MOST_PAIRS = 10, 4000
LEAST_BLUR = 1e-3
MEASURED = 200
"""Noise points whose walks give the numbers."""


class PairedMixture(NamedTuple):
    """The mean velocity of straight lines whose ends are drawn together, known exactly.

    With probability ``weights[k]`` the data end is drawn from N(data[k], data_variance[k] I) and
    the noise end, independently, from N(noise[k], noise_variance[k] I). The line between them is at
    x = (1 - time) x_0 + time eps; the velocity is E[eps - x_0 given x], what a flow learns (Lipman
    et al. 2022, eq. 8). All is Gaussian given k, so that both expectations are linear in x.

    A flow on a mixture is the case of noise ends from N(0, I). A flow that is learned again from
    pairs (reflow) is the case of one k for each pair, with variances that blur the pairs a little.

    Attributes:
        data, noise: (K, D).
        data_variance, noise_variance, weights: (K,), above 0.
    """

    data: Tensor
    noise: Tensor
    data_variance: Tensor
    noise_variance: Tensor
    weights: Tensor

    def __call__(self, x: States, time: PerSample, /) -> States:
        """The velocity at ``x`` (B, D) and ``time`` (B,), in float64."""
        x, time = x.double(), time.double()[:, None]  # (B, D), (B, 1)
        variance = (1 - time) ** 2 * self.data_variance + time**2 * self.noise_variance  # (B, K)
        # |x - center|^2 without a tensor (B, K, D): there may be thousands of pairs
        data, noise = self.data.square().sum(1), self.noise.square().sum(1)
        between = (self.data * self.noise).sum(1)
        center = (1 - time) ** 2 * data + 2 * time * (1 - time) * between + time**2 * noise
        along = (1 - time) * (x @ self.data.T) + time * (x @ self.noise.T)
        away = x.square().sum(1, keepdim=True) - 2 * along + center
        log_normal = -away / (2 * variance) - x.shape[1] / 2 * variance.log()
        share = (self.weights.log() + log_normal).softmax(1)  # (B, K)
        slope = share * (time * self.noise_variance - (1 - time) * self.data_variance) / variance
        middle = (1 - time) * (slope @ self.data) + time * (slope @ self.noise)
        return share @ (self.noise - self.data) + slope.sum(1, keepdim=True) * x - middle


def exact_flow(oracle: GaussianMixtureOracle) -> PairedMixture:
    """The flow that training on the data of a mixture would learn at best."""
    means, ones = oracle.means, torch.ones_like(oracle.variances)
    return PairedMixture(means, torch.zeros_like(means), oracle.variances, ones, oracle.weights)


def reflowed(flow: PairedMixture, noise: Points, blur: float) -> PairedMixture:
    """The flow of the straight lines that join each noise point to where ``flow`` leads it.

    The pairs are blurred at the noise end by a standard deviation of ``blur``, and at the data end
    by ``blur`` times that of the data's clusters.
    """
    times = torch.linspace(1, 0, wire.MANY_STEPS + 1, dtype=torch.float64)
    ends, noise = flows.reflow_pairs(flow, noise, times)
    same = torch.ones(len(noise), dtype=torch.float64)
    spread = float(flow.data_variance.mean())
    return PairedMixture(ends, noise, same * blur**2 * spread, same * blur**2, same / len(noise))


def walk(flow: PairedMixture, start: Points, steps: int) -> Float[Tensor, "states points 2"]:
    """The states of Euler's method in equal steps from noise to data, the start among them."""
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return torch.stack([start, *(step.x for step in flows.euler(flow, start, times))])


class Measured(NamedTuple):
    """What a flow does with many noise points.

    Attributes:
        errors: how far walks end from where ``wire.MANY_STEPS`` steps end, on average, for each
            number of steps in ``wire.FLOW_STEPS``.
        shares: of those ends, how many lie on a cluster.
        straightness: see ``flows.straightness``.
    """

    errors: list[float]
    shares: list[float]
    straightness: float


def on_a_cluster(oracle: GaussianMixtureOracle, points: Points) -> float:
    """The share of points within three standard deviations of a cluster's mean."""
    near = torch.cdist(points, oracle.means) < 3 * oracle.variances.sqrt()
    return float(near.any(1).double().mean())


def measure(oracle: GaussianMixtureOracle, flow: PairedMixture, noise: Points) -> Measured:
    """Walks ``noise`` along ``flow`` by each number of steps; see ``Measured``."""
    ends = walk(flow, noise, wire.MANY_STEPS)[-1]
    few = [walk(flow, noise, steps)[-1] for steps in wire.FLOW_STEPS]
    errors = [float((end - ends).norm(dim=1).mean()) for end in few]
    times = torch.linspace(1, 0, wire.MANY_STEPS + 1, dtype=torch.float64)
    straightness = flows.straightness(flow, noise, times)
    return Measured(errors, [on_a_cluster(oracle, end) for end in few], straightness)


class FlowExplorer(base.Explorer, folder="flows"):
    """Straight lines, learned paths and reflowed paths from noise to data, with time to drag.

    *Straight lines* join noise and data at random, as in training; in the picture they cross again
    and again. *Learned paths* follow the mean velocity of all lines, known exactly for a mixture:
    no two are ever at one place at one time, so they bend, and a few steps of Euler's method leave
    them. *Reflowed paths* are learned again from noise and data that the flow itself has joined:
    these lines hardly cross, so that they are kept, and one step nearly does.

    Beside the picture are the error of Euler's method and the share of walks that end on a cluster,
    by number of steps. The paths are computed in the browser, as ``flows.euler`` does it.

    Args:
        oracle: a mixture in the plane with variances above 0, at most 40 clusters; its schedule
            plays no part.
        points: where paths begin, (P, 2), at most 40; or how many to draw from N(0, I).
        paths: what is shown to begin with: straight, learned or reflowed.
        steps: of Euler's method, to begin with: 1, 2, 4, 8 or 32.
        time: to begin with, in [0, 1]; 1 is noise.
        pairs: how many the reflowed paths are learned from, 10 to 4000.
        blur: the standard deviation by which the noise of each of these pairs is blurred, 0.001
            to 1.
        seed: of the points, the data that lines lead to, and the pairs.

    Raises:
        TypeError, ValueError: a mixture of another dimension or with a variance of 0, too many
            points or clusters, or a number out of range.
    """

    means = traitlets.Bytes().tag(sync=True)
    variances = traitlets.Bytes().tag(sync=True)
    weights = traitlets.Bytes().tag(sync=True)
    pairs = traitlets.Bytes().tag(sync=True)
    blurs = traitlets.List(traitlets.Float()).tag(sync=True)
    starts = traitlets.Bytes().tag(sync=True)
    lines = traitlets.Bytes().tag(sync=True)
    errors = traitlets.List(traitlets.Float()).tag(sync=True)
    shares = traitlets.List(traitlets.Float()).tag(sync=True)
    straightness = traitlets.List(traitlets.Float()).tag(sync=True)
    real_share = traitlets.Float().tag(sync=True)
    edge = traitlets.Float().tag(sync=True)
    paths = traitlets.Unicode().tag(sync=True)
    steps = traitlets.Int().tag(sync=True)
    moment = traitlets.Int(min=0, max=wire.MOMENTS).tag(sync=True)

    def __init__(
        self,
        oracle: GaussianMixtureOracle,
        points: Tensor | int = 24,
        *,
        paths: str = "straight",
        steps: int = 4,
        time: float = 0.5,
        pairs: int = 800,
        blur: float = 0.03,
        seed: int = 0,
    ) -> None:
        self._oracle = plane.check_mixture(oracle)
        if (oracle.variances <= 0).any():
            raise ValueError("oracle must have variances above 0, got one of 0")
        _validate.one_of("paths", paths, wire.FLOW_PATHS)
        if _validate.whole_number("steps", steps, at_least=1) not in wire.FLOW_STEPS:
            allowed = ", ".join(map(str, wire.FLOW_STEPS))
            raise ValueError(f"steps must be one of {allowed}; got {steps}")
        _validate.number("time", time, low=0.0, high=1.0)
        _validate.whole_number("pairs", pairs, at_least=FEWEST_PAIRS, at_most=MOST_PAIRS)
        _validate.number("blur", blur, low=LEAST_BLUR, high=1.0)
        generator = torch.Generator().manual_seed(_validate.seed("seed", seed))
        self._starts = plane.check_points(points, generator)
        self._lines = oracle.sample(len(self._starts), generator)
        self._flows = {"learned": exact_flow(oracle)}
        noise = normal_like(torch.empty(pairs, 2, dtype=torch.float64), generator)
        self._flows["reflowed"] = reflowed(self._flows["learned"], noise, blur)
        noise = normal_like(torch.empty(MEASURED, 2, dtype=torch.float64), generator)
        self._measured = {name: measure(oracle, flow, noise) for name, flow in self._flows.items()}
        again = self._flows["reflowed"]
        wide = max(float(values.abs().max()) for values in (self._starts, self._lines))
        super().__init__(
            means=plane.double_bytes(oracle.means),
            variances=plane.double_bytes(oracle.variances),
            weights=plane.double_bytes(oracle.weights),
            pairs=plane.double_bytes(torch.cat([again.data, again.noise], 1)),
            blurs=[float(again.data_variance[0]), float(again.noise_variance[0])],
            starts=plane.double_bytes(self._starts),
            lines=plane.double_bytes(self._lines),
            errors=[error for each in self._measured.values() for error in each.errors],
            shares=[share for each in self._measured.values() for share in each.shares],
            straightness=[each.straightness for each in self._measured.values()],
            real_share=1 - math.exp(-4.5),  # of a Gaussian in the plane, within three deviations
            edge=math.ceil(4 * wide * 1.05) / 4,
            paths=paths,
            steps=steps,
            moment=round(time * wire.MOMENTS),
        )

    def walked(self, paths: str) -> Float[Tensor, "states points 2"]:
        """All states of the paths as they are shown now, the starts among them.

        Args:
            paths: "straight", "learned" or "reflowed".

        Raises:
            ValueError: another name.
        """
        _validate.one_of("paths", paths, wire.FLOW_PATHS)
        if paths == "straight":
            return torch.stack([self._starts, self._lines])
        return walk(self._flows[paths], self._starts, self.steps)

    def _advice(self) -> str:
        return "fewer pairs"

    def _summary(self) -> str:
        texts = [
            f"{wire.FLOW_PATHS[name]} end {each.errors[self._place()]:.2g} from where many steps "
            f"end, {100 * each.shares[self._place()]:.0f} % of them on a cluster"
            for name, each in self._measured.items()
        ]
        many = "1 step" if self.steps == 1 else f"{self.steps} steps"
        return (
            f"Paths of {len(self._starts)} points from noise to {len(self._oracle.means)} "
            f"clusters. With {many} of Euler's method {'; '.join(texts)}."
        )

    def _place(self) -> int:
        return wire.FLOW_STEPS.index(self.steps)

    def _still(self) -> Figure:
        figure, axes = plots.panels(len(wire.FLOW_PATHS), width=9, height=3.5)
        for k, (axis, (name, title)) in enumerate(zip(axes, wire.FLOW_PATHS.items(), strict=True)):
            color, states = plots.COLORS[k], self.walked(name)
            axis.scatter(*self._oracle.means.T, s=60, marker="+", color=plots.INK)
            if name in self._flows:
                path = walk(self._flows[name], self._starts, wire.MANY_STEPS)
                axis.plot(path[..., 0], path[..., 1], color=plots.GRAY, linewidth=1)
            axis.plot(states[..., 0], states[..., 1], "-o", color=color, markersize=2, linewidth=1)
            axis.set(xlim=(-self.edge, self.edge), ylim=(-self.edge, self.edge), aspect="equal")
            axis.set_axis_off()
            axis.set_title(title, color=color)
        return figure
