"""Lesson 2: one jump against t steps of the chain."""

import torch
from torch import Tensor

from measured.claim import Claim, Numbers
from tutorial_lib.forward import diffuse, diffuse_stepwise
from tutorial_lib.schedules import NoiseSchedule, linear_schedule

STEPS = 250
SHUFFLES = 999


def moments(schedule: NoiseSchedule) -> float:
    """The largest difference of mean factor and variance, chain against jump, over all t."""
    signal, variance, worst = 1.0, 0.0, 0.0
    for t, beta in enumerate(schedule.beta.tolist(), start=1):
        signal *= (1 - beta) ** 0.5
        variance = (1 - beta) * variance + beta
        jump = float(schedule.alpha_bar[t])
        worst = max(worst, abs(signal - jump**0.5), abs(variance - (1 - jump)))
    return worst


def p_value(a: Tensor, b: Tensor, generator: torch.Generator, shuffles: int) -> float:
    """How often chance alone gives an energy distance as large (Szekely & Rizzo 2004)."""
    both = torch.cat([a, b]).flatten(1)
    distances = torch.cdist(both, both)
    labels = torch.ones(shuffles + 1, len(both))
    labels[:, len(a) :] = -1
    for row in range(1, shuffles + 1):
        labels[row] = labels[0, torch.randperm(len(both), generator=generator)]
    energy = -((labels @ distances) * labels).sum(1)
    return float((energy >= energy[0]).double().mean())


def one_jump(quick: bool) -> Numbers:
    """Moments without random numbers; a two-sample test on points; a jump that is too long."""
    schedule = linear_schedule(1000)
    seeds, count, shuffles = ([0], 50, 19) if quick else ([0, 1, 2, 3, 4], 1000, SHUFFLES)
    same, longer = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        angle = torch.rand(2 * count, generator=generator) * 2 * torch.pi
        points = 4 * torch.stack([angle.cos(), angle.sin()], dim=1)  # a ring of radius 4
        t = torch.full((count,), STEPS)
        walked = diffuse_stepwise(schedule, points[:count], t, generator=generator)
        eps = torch.randn(count, 2, generator=generator)
        jumped = diffuse(schedule, points[count:], t, eps)
        too_far = diffuse(schedule, points[count:], t + 50, eps)
        same.append(p_value(walked, jumped, generator, shuffles))
        longer.append(p_value(walked, too_far, generator, shuffles))
    return {
        "moments": moments(schedule),
        "seeds": seeds,
        "count": count,
        "t": STEPS,
        "p_same": same,
        "p_longer": longer,
    }


def _verdict(numbers: Numbers) -> str:
    same = numbers["moments"] < 1e-9 and min(numbers["p_same"]) > 0.05 / len(numbers["p_same"])
    return "yes, in distribution" if same else "no"


def _number(numbers: Numbers) -> str:
    p = numbers["p_same"]
    exponent = f"{numbers['moments']:.0e}".replace("e-0", "e-")
    return (
        f"moments agree to {exponent}; two-sample tests with {numbers['count']:,} points: "
        f"p = {min(p):.2f} to {max(p):.2f} over {len(p)} seeds, and at most "
        f"{max(numbers['p_longer']):.3f} for 50 steps too many"
    )


CLAIMS = [
    Claim("one_jump", "One jump equals t steps of the chain", one_jump, _verdict, _number),
]
