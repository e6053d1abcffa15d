"""Lesson 9: solvers of the ODE, their orders and their steps, what noise does, exact densities."""

import functools
import math
import statistics
from argparse import Namespace
from typing import Any

import few_steps
import report
import torch
from torch import Tensor

from measured.claim import Claim, Difference, Numbers, mean_and_error, paired
from tutorial_lib import hardware
from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.oracles import GaussianMixtureOracle
from tutorial_lib.samplers import (
    SAMPLERS,
    ddim,
    ddpm,
    euler,
    evenly_spaced,
    karras_spaced,
    last,
)
from tutorial_lib.schedules import NoiseSchedule, linear_schedule

F64 = torch.float64


def ring(schedule: NoiseSchedule) -> GaussianMixtureOracle:
    """The lesson's world: eight clusters on a ring of radius 2."""
    angles = torch.arange(8, dtype=F64) * math.pi / 4
    means = 2 * torch.stack([angles.cos(), angles.sin()], dim=1)
    return GaussianMixtureOracle(schedule, means, torch.full((8,), 0.05), torch.ones(8))


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


# --- DDIM and Euler -------------------------------------------------------------------------------


def same(quick: bool) -> Numbers:
    """The largest difference between walks of DDIM and of Euler, and how large the states are."""
    counts, points = ((3,), 4) if quick else ((10, 50, 1000), 500)
    schedule = linear_schedule()
    oracle, x_T = ring(schedule), normal(0, points, 2)
    found: dict[str, Any] = {"seed": 0, "count": points, "steps": list(counts)}
    found["oracle"] = []
    for count in counts:
        steps = evenly_spaced(1000, count)
        one, two = (last(walk(oracle, schedule, x_T, steps)) for walk in (ddim, euler))
        found["oracle"].append(float((one - two).abs().max()))
    checkpoint = load_checkpoint("mnist", device="cpu")
    x_T = normal(0, 2 if quick else 16, *checkpoint.image_shape).float()
    steps = evenly_spaced(1000, counts[0] if quick else 50)
    walks = [last(w(checkpoint.model, checkpoint.schedule, x_T, steps)) for w in (ddim, euler)]
    return {**found, "digits": len(x_T), "network": float((walks[0] - walks[1]).abs().max())}


def _same_verdict(numbers: Numbers) -> str:
    exact = max(numbers["oracle"]) < 1e-9
    close = numbers["network"] < 0.008  # a gray level
    return "yes" if exact and close else "no"


def _same_number(numbers: Numbers) -> str:
    steps = "/".join(map(str, numbers["steps"]))
    return (
        f"largest difference {max(numbers['oracle']):.0e} in float64 ({numbers['count']} points, "
        f"exact oracle, {steps} steps); {numbers['network']:.0e} in fp32 ({numbers['digits']} "
        "digits, 50 steps)"
    )


# --- orders ---------------------------------------------------------------------------------------

ORDERED = {"euler": 1, "heun": 2, "dpm_solver": 2}


def orders(quick: bool) -> Numbers:
    """The slope of log error over log steps between two noise levels, by an exact oracle.

    The linear schedule in finer steps, so that all strides are whole numbers. Both ends lie where
    nothing is singular.
    """
    seeds, counts, points, fine = ([0, 1, 2, 3, 4], [32, 64, 128, 256], 32, 2048)
    if quick:
        seeds, counts, points, fine = ([0, 1], [8, 16], 2, 64)
    schedule = linear_schedule(17_000, 0.1 / 17_000, 20 / 17_000)
    oracle, first, end = ring(schedule), 2**14, 2**10
    found: dict[str, Any] = {"seeds": seeds, "count": points, "steps": counts}

    def walked(name: str, x: Tensor, count: int) -> Tensor:
        steps = [first - (first - end) * i // count for i in range(count + 1)]
        *_, reached = SAMPLERS[name](oracle, schedule, x, steps)
        return reached.x_t

    x = torch.tensor(counts, dtype=F64).log()
    x = x - x.mean()
    for seed in seeds:
        start = normal(seed, points, 2)
        exact = walked("heun", start, fine)
        for name in ORDERED:
            misses = [float((walked(name, start, n) - exact).norm(dim=1).mean()) for n in counts]
            y = torch.tensor(misses, dtype=F64).log()
            slope = -float((x * (y - y.mean())).sum() / (x * x).sum())
            found.setdefault(name, []).append(round(slope, 4))
    return found


def _order_verdict(numbers: Numbers) -> str:
    near = [abs(statistics.mean(numbers[name]) - p) < 0.15 for name, p in ORDERED.items()]
    return "yes, once strides are short" if all(near) else "not measured so"


def _order_number(numbers: Numbers) -> str:
    names = {"euler": "Euler", "heun": "Heun", "dpm_solver": "DPM-Solver++"}
    texts = ", ".join(f"{text} {mean_and_error(numbers[name])}" for name, text in names.items())
    first, *_, most = numbers["steps"]
    return (
        f"order {texts}, by exact oracle, {first} to {most} steps ({len(numbers['seeds'])} seeds "
        f"of {numbers['count']} walks)"
    )


# --- digits ---------------------------------------------------------------------------------------


@functools.cache
def digits(name: str, evaluations: int, quick: bool) -> tuple[float, ...]:
    """The Fréchet distance of the shipped model's digits, a number for each seed.

    What ``few_steps.py`` has measured already, with this checkpoint and these versions, is not
    drawn again.
    """
    hardware.keep_freed_memory()
    checkpoint = load_checkpoint("mnist", device=hardware.pick_device())
    options = Namespace(count=1000, reference=5000, repeats=2, batch=100, seed=0, quick=quick)
    if quick:
        options.count, options.reference, options.batch, evaluations = 20, 100, 20, 2
    path = None if quick else report.RESULTS / "few_steps.json"
    known = few_steps.kept(path, checkpoint, options)
    return tuple(
        known[name, evaluations, seed]
        if (name, evaluations, seed) in known
        else few_steps.distance(checkpoint, name, evaluations, options, seed)[0]
        for seed in range(2 if quick else 5)
    )


def drawn(*walks: tuple[str, int]) -> Any:
    """A function that measures these walks of digits."""

    def measure(quick: bool) -> Numbers:
        rows = {f"{name} {n}": list(digits(name, n, quick)) for name, n in walks}
        seeds = len(next(iter(rows.values())))
        return {"seeds": list(range(seeds)), "count": 20 if quick else 1000, **rows}

    return measure


def _about(numbers: Numbers) -> str:
    return f"({len(numbers['seeds'])} seeds of {numbers['count']:,} digits)"


def _gap(numbers: Numbers, first: str, second: str) -> Difference:
    return paired(numbers[first], numbers[second])


def _fifty_verdict(numbers: Numbers) -> str:
    even = _gap(numbers, "DPM-Solver++ 10", "DDIM 50")
    placed = _gap(numbers, "DPM-Solver++, EDM 10", "DDIM 50")
    if any(gap.told_apart and gap.mean > 0 for gap in (even, placed)):
        return "no, a little worse"
    return "yes, with DPM-Solver++"


def _fifty_number(numbers: Numbers) -> str:
    placed, even = (
        _gap(numbers, f"{name} 10", "DDIM 50") for name in ("DPM-Solver++, EDM", "DPM-Solver++")
    )
    return (
        f"Fréchet distance minus DDIM 50 ({mean_and_error(numbers['DDIM 50'])}): DPM-Solver++ 10 "
        f"edm {placed}, even {even} ({even.words}) {_about(numbers)}"
    )


def _spacing_verdict(numbers: Numbers) -> str:
    whole = _gap(numbers, "DPM-Solver++, Karras 10", "DPM-Solver++ 10")
    cut = _gap(numbers, "DPM-Solver++, EDM 10", "DPM-Solver++ 10")
    worse = whole.told_apart and whole.mean > 0
    better = cut.told_apart and cut.mean < 0
    first = "worse than even from T" if worse else "not worse than even from T"
    return f"{first}, {'better' if better else 'not told apart'} from sigma = 80"


def _spacing_number(numbers: Numbers) -> str:
    whole = _gap(numbers, "DPM-Solver++, Karras 10", "DPM-Solver++ 10")
    cut = _gap(numbers, "DPM-Solver++, EDM 10", "DPM-Solver++ 10")
    return (
        f"Fréchet distance minus even steps, DPM-Solver++ 10: {whole} from the cosine schedule's "
        f"sigma 20,291, {cut} from 80 {_about(numbers)}"
    )


# --- what noise does ------------------------------------------------------------------------------


def dice(quick: bool) -> Numbers:
    """An oracle that is spoiled in heavy noise: who still knows of it at the end?"""
    seeds, count, steps = ([0, 1], 20, 5) if quick else ([0, 1, 2, 3, 4], 4000, 200)
    schedule = linear_schedule()
    oracle = ring(schedule)

    def spoiled(x: Tensor, t: Tensor) -> Tensor:
        eps_hat = oracle(x, t)
        return eps_hat + 0.1 * (t > 600)[:, None] * torch.tensor([1.0, 0.0], dtype=F64)

    found: dict[str, Any] = {"seeds": seeds, "walkers": count, "steps": steps}
    walk = evenly_spaced(1000, steps)
    for seed in seeds:
        x_T, generator = normal(seed, count, 2), torch.Generator().manual_seed(seed)
        ends = {
            "ode": last(ddim(spoiled, schedule, x_T, walk)),
            "dice": last(ddpm(spoiled, schedule, x_T, walk, generator=generator)),
        }
        for name, end in ends.items():
            share = float((end[:, 0] > 0).double().mean())
            found.setdefault(name, []).append(round(share, 5))
    return {**found, **drawn(("DDIM", 10), ("DDPM", 10))(quick)}


def _dice_verdict(numbers: Numbers) -> str:
    right = [0.5] * len(numbers["seeds"])
    ode, rolled = (paired(numbers[name], right) for name in ("ode", "dice"))
    forgets = ode.told_apart and abs(rolled.mean) < abs(ode.mean) / 2
    gap = _gap(numbers, "DDPM 10", "DDIM 10")
    better = gap.told_apart and gap.mean < 0
    if forgets and better:
        return "yes, most of them; digits get better, too"
    return "yes with a spoiled oracle, not told apart on digits" if forgets else "not seen here"


def _dice_number(numbers: Numbers) -> str:
    return (
        f"share on the right side, 0.5 exact: ODE {mean_and_error(numbers['ode'])}, dice "
        f"{mean_and_error(numbers['dice'])}; Fréchet distance DDPM minus DDIM, 10 steps "
        f"{_gap(numbers, 'DDPM 10', 'DDIM 10')} ({len(numbers['seeds'])} seeds)"
    )


# --- exact densities ------------------------------------------------------------------------------


def densities(quick: bool) -> Numbers:
    """The mean error of the log density by Heun's method and the trapezoid rule, in nats."""
    seeds, points, counts = ([0, 1], 3, (5, 10)) if quick else ([0, 1, 2, 3, 4], 100, (80, 320))
    schedule = linear_schedule()
    oracle, signal = ring(schedule), schedule.signal_rate
    sigma = schedule.noise_rate / signal

    def slope_and_divergence(y: Tensor, t: int) -> tuple[Tensor, Tensor]:
        y = y.detach().requires_grad_()
        slope = oracle(signal[t] * y, torch.full((len(y),), t))
        parts = [
            torch.autograd.grad(slope[:, d].sum(), y, retain_graph=True)[0][:, d]
            for d in range(y.shape[1])
        ]
        return slope.detach(), torch.stack(parts).sum(0)

    found: dict[str, Any] = {"seeds": seeds, "count": points, "steps": list(counts)}
    for seed in seeds:
        x = oracle.sample(points, torch.Generator().manual_seed(seed))
        one = torch.ones(points, dtype=torch.int64)
        exact = oracle.log_density(signal[1] * x, one) + 2 * signal[1].log()
        for count in counts:
            steps, y, gained = karras_spaced(schedule, count)[-2::-1], x, torch.zeros(points)
            first, spread = slope_and_divergence(y, steps[0])
            for t, s in zip(steps[:-1], steps[1:], strict=True):
                h, before = sigma[s] - sigma[t], spread
                second, _ = slope_and_divergence(y + h * first, s)
                y = y + h * (first + second) / 2
                first, spread = slope_and_divergence(y, s)
                gained = gained + h * (before + spread) / 2
            log_p = -y.square().sum(1) / (2 * sigma[-1] ** 2)
            log_p = log_p - (2 * math.pi * sigma[-1] ** 2).log() + gained
            error = float((log_p - exact).abs().mean())
            found.setdefault(f"error {count}", []).append(round(error, 6))
    return found


def _density_verdict(numbers: Numbers) -> str:
    most = max(numbers["steps"])
    return "yes" if statistics.mean(numbers[f"error {most}"]) < 0.005 else "not so here"


def _density_number(numbers: Numbers) -> str:
    texts = ", ".join(
        f"{mean_and_error(numbers[f'error {n}'])} nats at {n} steps" for n in numbers["steps"]
    )
    return (
        f"mean error {texts}, exact mixture in the plane ({len(numbers['seeds'])} seeds of "
        f"{numbers['count']} points)"
    )


CLAIMS = [
    Claim("ddim_euler", "DDIM is Euler's method", same, _same_verdict, _same_number),
    Claim(
        "second_order",
        "The error of a second-order method falls with the square of the stride",
        orders,
        _order_verdict,
        _order_number,
    ),
    Claim(
        "fifty_is_ten",
        "50 DDIM steps = 10 of a second-order solver",
        drawn(("DDIM", 50), ("DPM-Solver++", 10), ("DPM-Solver++, EDM", 10)),
        _fifty_verdict,
        _fifty_number,
    ),
    Claim(
        "karras_spacing",
        "Karras' spacing is the best one",
        drawn(("DPM-Solver++", 10), ("DPM-Solver++, EDM", 10), ("DPM-Solver++, Karras", 10)),
        _spacing_verdict,
        _spacing_number,
    ),
    Claim("dice_correct", "Noise corrects errors", dice, _dice_verdict, _dice_number),
    Claim(
        "ode_density",
        "The ODE gives exact log densities",
        densities,
        _density_verdict,
        _density_number,
    ),
]
