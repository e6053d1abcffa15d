"""Lesson 10: flows and denoisers, straightness, reflow, transport, which times are drawn."""

import copy
import functools
import json
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import report
import torch
from torch import Tensor, nn

from measured.claim import Claim, Difference, Numbers, mean_and_error, paired
from tutorial_lib import flows
from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.oracles import GaussianMixtureOracle
from tutorial_lib.samplers import ddim, evenly_spaced, last
from tutorial_lib.schedules import NoiseSchedule, cosine_schedule, linear_schedule

F64 = torch.float64
VARIANCE = 0.05
ANGLES = torch.arange(8, dtype=F64) * math.pi / 4
RING = 2 * torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1)
SEEDS = (0, 1, 2, 3, 4)


def ring(schedule: NoiseSchedule) -> GaussianMixtureOracle:
    """The lesson's world: eight clusters on a ring of radius 2."""
    return GaussianMixtureOracle(schedule, RING, torch.full((8,), VARIANCE), torch.ones(8))


def exact_flow(x: Tensor, time: Tensor) -> Tensor:
    """The mean velocity of the ring's lines, all at one time."""
    at = float(time[0])
    if at == 1:
        return x - RING.mean(0).to(x)
    schedule = flows.schedule_through([at, 0.0])
    share = torch.full((len(x),), float(flows.times_of(schedule)[1]), dtype=F64)
    return flows.flow_from_denoiser(ring(schedule), schedule)(x, share.to(x.dtype))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=F64)


def evenly(count: int) -> list[float]:
    return [1 - k / count for k in range(count + 1)]


def end_of(flow: Callable, x: Tensor, times: Sequence[float] | Tensor) -> Tensor:
    return list(flows.euler(flow, x, times))[-1].x


# --- two currencies -------------------------------------------------------------------------------


def same(quick: bool) -> Numbers:
    """From denoiser to flow and back, and DDIM beside Euler's method along the flow."""
    points, strides = (4, 3) if quick else (500, 50)
    found: dict[str, Any] = {"seed": 0, "count": points, "strides": strides}
    found["there and back"], found["walks"] = [], []
    for schedule in (linear_schedule(), cosine_schedule()):
        oracle, x = ring(schedule), normal(0, points, 2)
        flow = flows.flow_from_denoiser(oracle, schedule)
        back = flows.denoiser_from_flow(flow, schedule)
        steps = (1, 10, 100, 500, 900, 1000)
        off = [
            float((back(x, t) - oracle(x, t)).abs().max())
            for t in (torch.full((points,), step) for step in steps)
        ]
        found["there and back"].append(max(off))
        found["walks"].append(_walks_differ(oracle, schedule, x, strides))
    checkpoint = load_checkpoint("mnist", device="cpu")
    x = normal(0, 2 if quick else 16, *checkpoint.image_shape).float()
    found["digits"] = len(x)
    found["network"] = _walks_differ(checkpoint.model, checkpoint.schedule, x, strides)
    return found


def _walks_differ(model: Callable, schedule: NoiseSchedule, x_T: Tensor, strides: int) -> float:
    """The largest difference between the ends of DDIM and of Euler's method along the flow."""
    steps = evenly_spaced(schedule.num_steps, strides)
    total = (schedule.signal_rate + schedule.noise_rate)[-1]
    flow, times = flows.flow_from_denoiser(model, schedule), flows.times_of(schedule)[steps]
    return float(
        (end_of(flow, (x_T / total).to(x_T), times) - last(ddim(model, schedule, x_T, steps)))
        .abs()
        .max()
    )


def _same_verdict(numbers: Numbers) -> str:
    exact = max(*numbers["there and back"], *numbers["walks"]) < 1e-8
    close = numbers["network"] < 0.008  # a gray level
    return "no: one model, two currencies" if exact and close else "not the same here"


def _same_number(numbers: Numbers) -> str:
    return (
        f"there and back {max(numbers['there and back']):.0e}, Euler along the flow minus DDIM "
        f"{max(numbers['walks']):.0e} in float64 ({numbers['count']} points); "
        f"{numbers['network']:.0e} in fp32 ({numbers['digits']} digits)"
    )


# --- few steps along the exact flow ---------------------------------------------------------------

FEW = 10


def few_steps(quick: bool) -> Numbers:
    """The error of ten strides that are even in time, and even in t of two schedules."""
    seeds, points, fine = (SEEDS[:2], 4, 20) if quick else (SEEDS, 500, 2000)
    found: dict[str, Any] = {"seeds": list(seeds), "count": points, "steps": FEW}
    for seed in seeds:
        noise = normal(seed, points, 2)
        exact = end_of(exact_flow, noise, evenly(fine))
        found.setdefault("even time", []).append(
            _off(end_of(exact_flow, noise, evenly(FEW)), exact)
        )
        for name, schedule in (("linear", linear_schedule()), ("cosine", cosine_schedule())):
            end = last(ddim(ring(schedule), schedule, noise, evenly_spaced(1000, FEW)))
            begin = noise / (schedule.signal_rate + schedule.noise_rate)[-1]
            times = float(flows.times_of(schedule)[-1]) * torch.tensor(evenly(fine), dtype=F64)
            exact = end_of(exact_flow, begin, times.tolist())
            found.setdefault(name, []).append(_off(end, exact))
        found.setdefault("straightness", []).append(
            round(flows.straightness(exact_flow, noise, evenly(100)), 4)
        )
    return found


def _off(ends: Tensor, exact: Tensor) -> float:
    return round(float((ends - exact).norm(dim=1).mean()), 5)


def _few_verdict(numbers: Numbers) -> str:
    gaps = {name: paired(numbers["even time"], numbers[name]) for name in ("linear", "cosine")}
    better = [name for name, gap in gaps.items() if gap.told_apart and gap.mean < 0]
    worse = [name for name, gap in gaps.items() if gap.told_apart and gap.mean > 0]
    texts = []
    if better:
        texts.append(f"than {' and '.join(better)} steps, yes")
    if worse:
        texts.append(f"than {' and '.join(worse)} steps, no")
    return "; ".join(texts) or "not told apart"


def _few_number(numbers: Numbers) -> str:
    texts = ", ".join(
        f"{text} {mean_and_error(numbers[name])}"
        for name, text in (
            ("even time", "even in time"),
            ("linear", "linear"),
            ("cosine", "cosine"),
        )
    )
    return (
        f"error of {FEW} Euler steps by exact oracle: {texts} ({len(numbers['seeds'])} seeds of "
        f"{numbers['count']} walks)"
    )


# --- a small network on points --------------------------------------------------------------------


class PointFlow(nn.Module):
    """The lesson's network for points of the plane."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(9, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()),
            *(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)),
        )

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """The velocity at x (B, 2) and time (B,)."""
        waves = torch.outer(time, torch.tensor([0.5, 1.0, 2.0]) * math.pi)
        return self.layers(torch.cat([x, time[:, None], waves.sin(), waves.cos()], dim=1))


def fitted(
    network: PointFlow, batch: Callable[[], tuple[Tensor, Tensor, Tensor]], steps: int
) -> PointFlow:
    """Trained by Adam with a learning rate that falls to 0."""
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        x0, time, eps = batch()
        share = time[:, None]
        error = network((1 - share) * x0 + share * eps, time) - (eps - x0)
        optimizer.zero_grad()
        error.square().mean().backward()
        optimizer.step()
        falling.step()
    return network.requires_grad_(False)


def data(count: int, generator: torch.Generator) -> Tensor:
    cluster = torch.randint(8, (count,), generator=generator)
    spread = math.sqrt(VARIANCE) * torch.randn(count, 2, generator=generator)
    return (RING[cluster] + spread).float()


def uniform(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator)


def logit_normal(count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, generator=generator).sigmoid()


@functools.cache
def trained(seed: int, times: str, quick: bool) -> PointFlow:
    """A flow of the ring, learned from random lines."""
    torch.manual_seed(seed)
    draw = {"uniform": uniform, "logit-normal": logit_normal}[times]
    network, dice = PointFlow(8 if quick else 128), seeded(100 + seed)

    def batch() -> tuple[Tensor, Tensor, Tensor]:
        count = 16 if quick else 512
        return data(count, dice), draw(count, dice), torch.randn(count, 2, generator=dice)

    return fitted(network, batch, 5 if quick else 2000)


@functools.cache
def reflowed(seed: int, quick: bool) -> PointFlow:
    """The same flow, learned again from pairs that it has joined itself."""
    first, dice = trained(seed, "uniform", quick), seeded(200 + seed)
    noise = torch.randn(32 if quick else 20_000, 2, generator=dice)
    drawn = end_of(first, noise, evenly(3 if quick else 50))

    def batch() -> tuple[Tensor, Tensor, Tensor]:
        rows = torch.randint(len(noise), (512,), generator=dice)
        return drawn[rows], uniform(512, dice), noise[rows]

    return fitted(copy.deepcopy(first).requires_grad_(True), batch, 5 if quick else 2000)


def on_a_cluster(x: Tensor) -> float:
    """The share of points within three standard deviations of a center."""
    near = torch.cdist(x.double(), RING).amin(1) < 3 * math.sqrt(VARIANCE)
    return round(float(near.double().mean()), 5)


def sized(quick: bool) -> tuple[tuple[int, ...], int]:
    """Seeds, and how many walks each."""
    return (SEEDS[:2], 20) if quick else (SEEDS, 4000)


def reflow(quick: bool) -> Numbers:
    """One step along a flow and along its reflow: how far off, on a cluster, how straight."""
    seeds, count = sized(quick)
    found: dict[str, Any] = {"seeds": list(seeds), "count": count}
    for seed in seeds:
        noise = normal(300 + seed, count, 2).float()
        found.setdefault("data", []).append(on_a_cluster(data(count, seeded(400 + seed))))
        for name, flow in (
            ("first", trained(seed, "uniform", quick)),
            ("reflow", reflowed(seed, quick)),
        ):
            exact, once = end_of(flow, noise, evenly(256)), end_of(flow, noise, [1.0, 0.0])
            row = {
                "off": _off(once, exact),
                "one step": on_a_cluster(once),
                "many steps": on_a_cluster(exact),
                "straightness": round(flows.straightness(flow, noise, evenly(64)), 5),
            }
            for key, value in row.items():
                found.setdefault(f"{name}, {key}", []).append(value)
    return found


def _reflow_verdict(numbers: Numbers) -> str:
    gain = paired(numbers["reflow, one step"], numbers["first, one step"])
    loss = paired(numbers["reflow, one step"], numbers["first, many steps"])
    if not (gain.told_apart and gain.mean > 0.5):
        return "not so here"
    less = loss.told_apart and loss.mean < 0
    return "yes, a little worse than many steps before" if less else "yes"


def _reflow_number(numbers: Numbers) -> str:
    def share(key: str) -> str:
        return mean_and_error([100 * value for value in numbers[key]])

    return (
        f"on a cluster in one step: {share('first, one step')} % before, "
        f"{share('reflow, one step')} % after; before in 256: {share('first, many steps')} % "
        f"({len(numbers['seeds'])} seeds of {numbers['count']:,})"
    )


def _straight_verdict(numbers: Numbers) -> str:
    bent = statistics.mean(numbers["first, straightness"])
    straight = statistics.mean(numbers["reflow, straightness"])
    return "no: only reflow does" if straight < 0.1 * bent else "not so here"


def _straight_number(numbers: Numbers) -> str:
    return (
        f"straightness, 0 is straight: {mean_and_error(numbers['first, straightness'])}, after "
        f"reflow {mean_and_error(numbers['reflow, straightness'])} ({len(numbers['seeds'])} seeds)"
    )


# --- optimal transport ----------------------------------------------------------------------------


def transport(quick: bool) -> Numbers:
    """How far the exact flow is from moving noise to data along the shortest roads.

    In an optimal pairing no swap of two ends shortens the roads, and the map from noise to data is
    the gradient of a convex function (Brenier 1991), so its derivative is a symmetric matrix. The
    clusters have different weights and distances, so that no symmetry of theirs decides.
    """
    seeds, count, strides = (SEEDS[:2], 10, 10) if quick else (SEEDS, 1000, 400)
    means = torch.tensor([[3.0, 0.0], [0.0, 1.0], [-1.0, -1.0]], dtype=F64)
    weights = torch.tensor([0.6, 0.3, 0.1], dtype=F64)
    time = torch.tensor(evenly(strides), dtype=F64).clamp(max=0.9999)
    schedule = flows.schedule_through(time)
    oracle = GaussianMixtureOracle(schedule, means, torch.full((3,), VARIANCE), weights)
    flow, times = flows.flow_from_denoiser(oracle, schedule), flows.times_of(schedule).flip(0)
    found: dict[str, Any] = {"seeds": list(seeds), "count": count}
    for seed in seeds:
        noise = normal(seed, count, 2)
        random = oracle.sample(count, seeded(500 + seed))
        for name, ends in (("random", random), ("flow", end_of(flow, noise, times))):
            found.setdefault(name, []).append(round(_swaps_that_pay(noise, ends), 6))
        columns, h = [], 1e-4
        for d in range(2):
            aside = h * torch.eye(2, dtype=F64)[d]
            there, back = (end_of(flow, noise + shift, times) for shift in (aside, -aside))
            columns.append((there - back) / (2 * h))
        slope = torch.stack(columns, 2)  # (count, 2, 2)
        turn = (slope - slope.mT).flatten(1).norm(dim=1) / (slope + slope.mT).flatten(1).norm(dim=1)
        found.setdefault("asymmetry", []).append(round(float(turn.mean()), 6))
    return found


def _swaps_that_pay(noise: Tensor, ends: Tensor) -> float:
    """The share of pairs of roads whose ends, swapped, have a smaller sum of squared lengths."""
    gain = ((noise[:, None] - noise) * (ends[:, None] - ends)).sum(2)  # below 0 where it pays
    upper = torch.ones_like(gain).triu(1).bool()
    return float((gain[upper] < 0).double().mean())


def _transport_verdict(numbers: Numbers) -> str:
    turns = paired(numbers["asymmetry"], [0.0] * len(numbers["seeds"]))
    if not (turns.told_apart and turns.mean > 0.002):
        return "not told apart from it here"
    return "no, but near it in the plane" if turns.mean < 0.05 else "no"


def _transport_number(numbers: Numbers) -> str:
    share = {
        name: mean_and_error([100 * value for value in numbers[name]])
        for name in ("flow", "random", "asymmetry")
    }
    return (
        f"zero if optimal: asymmetry of the map's derivative {share['asymmetry']} %, swaps "
        f"that shorten {share['flow']} % (random pairs {share['random']} %; "
        f"{len(numbers['seeds'])} seeds of {numbers['count']:,})"
    )


# --- which times are drawn ------------------------------------------------------------------------


def times_drawn(quick: bool) -> Numbers:
    """A flow of the ring trained with even times, and with logit-normal ones."""
    seeds, count = sized(quick)
    found: dict[str, Any] = {"seeds": list(seeds), "count": count}
    for seed in seeds:
        noise, real = normal(300 + seed, count, 2).float(), data(count, seeded(600 + seed))
        for name in ("uniform", "logit-normal"):
            flow = trained(seed, name, quick)
            drawn = end_of(flow, noise, evenly(64))
            found.setdefault(name, []).append(round(100 * on_a_cluster(drawn), 3))
            found.setdefault(f"{name}, energy", []).append(round(energy(drawn, real), 6))
    return found


def energy(first: Tensor, second: Tensor) -> float:
    """The energy distance: 2 E|x - y| - E|x - x'| - E|y - y'|, without a bias."""

    def within(x: Tensor) -> Tensor:
        return torch.cdist(x, x).sum() / (len(x) * (len(x) - 1))

    first, second = first.double(), second.double()
    return float(2 * torch.cdist(first, second).mean() - within(first) - within(second))


def _times_gap(numbers: Numbers, of: str = "") -> Difference:
    return paired(numbers[f"logit-normal{of}"], numbers[f"uniform{of}"])


def _times_verdict(numbers: Numbers) -> str:
    gap = _times_gap(numbers)
    if not gap.told_apart:
        return "not told apart on points"
    return "yes, on points" if gap.mean > 0 else "no, worse on points"


def _times_number(numbers: Numbers) -> str:
    return (
        f"on a cluster {mean_and_error(numbers['logit-normal'])} % against "
        f"{mean_and_error(numbers['uniform'])} %, difference {_times_gap(numbers)} "
        f"({len(numbers['seeds'])} seeds of {numbers['count']:,}, 64 steps)"
    )


# --- digits: what benchmarks of their own have measured -------------------------------------------


def stored(name: str) -> dict[str, Any]:
    """The committed results of the benchmark ``name``.py, which takes too long to run here.

    Raises:
        ValueError: there are none.
    """
    path = report.RESULTS / f"{name}.json"
    if not path.exists():
        raise ValueError(f"run python benchmarks/{name}.py first: {path.name} is not there")
    return json.loads(path.read_text(encoding="utf-8"))


def on_digits(quick: bool) -> Numbers:
    """Fréchet distances of flows and of eps, by the seeds of their training."""
    del quick
    result = stored("flows")
    rows = {row["contender"]: row for row in result["rows"]}
    found = {name: rows[name]["20"] for name in ("eps", "v, min-SNR", "flow", "flow, logit-normal")}
    seeds = rows["flow"]["seeds"]
    return {"seeds": seeds, "count": result["count"], "steps": result["steps"], **found}


def _digits_verdict(numbers: Numbers) -> str:
    gap = paired(numbers["flow"], numbers["eps"])
    if not gap.told_apart:
        return "not told apart"
    other = paired(numbers["flow"], numbers["v, min-SNR"])
    than_v = "also than v" if other.told_apart and other.mean < 0 else "not told apart from v"
    return f"yes, early in training; {than_v}" if gap.mean < 0 else "no, worse"


def _digits_number(numbers: Numbers) -> str:
    gaps = (paired(numbers["flow"], numbers[name]) for name in ("eps", "v, min-SNR"))
    eps, v = map(str, gaps)
    return (
        f"Fréchet distance {mean_and_error(numbers['flow'])}, minus eps {eps}, minus v with "
        f"min-SNR {v} ({len(numbers['seeds'])} seeds, {numbers['steps']} training steps)"
    )


def student(quick: bool) -> Numbers:
    """Fréchet distances of the shipped digits' students and of their teacher, by steps."""
    del quick
    result, many = stored("student"), stored("few_steps")
    found = {f"{row['contender']} {row['steps']}": row["Fréchet"] for row in result["rows"]}
    fifty = next(
        row["Fréchet"]
        for row in many["rows"]
        if (row["sampler"], row["spacing"], row["evaluations"]) == ("DDIM", "even", 50)
    )
    return {"seeds": result["seed"], "count": result["count"], "teacher 50": fifty, **found}


def _student_verdict(numbers: Numbers) -> str:
    gap = paired(numbers["student 1"], numbers["teacher 1"])
    if not (gap.told_apart and gap.mean < 0):
        return "not seen here"
    mean, error = numbers["teacher 50"]
    short = statistics.mean(numbers["student 1"]) - mean > 2 * error
    return "no, though far better than the teacher's one step" if short else "yes"


def _student_number(numbers: Numbers) -> str:
    def row(who: str) -> str:
        return "/".join(mean_and_error(numbers[f"{who} {n}"]) for n in (1, 2, 4))

    return (
        f"Fréchet distance in 1/2/4 steps: student {row('student')}, teacher {row('teacher')}, in "
        f"50: {numbers['teacher 50'][0]:.2f} ± {numbers['teacher 50'][1]:.2f} "
        f"({len(numbers['seeds'])} seeds)"
    )


CLAIMS = [
    Claim(
        "flow_is_diffusion",
        "Flow matching and diffusion are different models",
        same,
        _same_verdict,
        _same_number,
    ),
    Claim(
        "straight_lines",
        "Straight lines make straight flows",
        reflow,
        _straight_verdict,
        _straight_number,
    ),
    Claim(
        "straight_fewer_steps",
        "Straight paths need fewer steps",
        few_steps,
        _few_verdict,
        _few_number,
    ),
    Claim(
        "reflow_one_step",
        "After reflow one step is enough",
        reflow,
        _reflow_verdict,
        _reflow_number,
    ),
    Claim(
        "optimal_transport",
        "Flow matching is optimal transport",
        transport,
        _transport_verdict,
        _transport_number,
    ),
    Claim(
        "flow_trains_better",
        "Flow matching trains better than predicting the noise",
        on_digits,
        _digits_verdict,
        _digits_number,
    ),
    Claim(
        "logit_normal",
        "Logit-normal times help",
        times_drawn,
        _times_verdict,
        _times_number,
    ),
    Claim(
        "one_step_student",
        "A student draws in one step as well as its teacher in fifty",
        student,
        _student_verdict,
        _student_number,
    ),
]
