"""Lesson 3: targets, weights and draws of t, on a ring of clusters whose best answer is known.

Small networks, one for each seed, are trained at once: their weights lie in one tensor, and nothing
connects them. ``excess`` is the squared distance between a network's answer and the exact one.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from measured.claim import Claim, Numbers, mean_and_error, paired
from tutorial_lib.forward import diffuse, predict_x0
from tutorial_lib.lab import seeded
from tutorial_lib.losses import ImportanceSteps, UniformSteps, min_snr_weight, p2_weight
from tutorial_lib.oracles import GaussianMixtureOracle
from tutorial_lib.predictions import eps_from_v, eps_from_x0, velocity
from tutorial_lib.samplers import ddim, evenly_spaced, last
from tutorial_lib.schedules import linear_schedule

SCHEDULE = linear_schedule(1000)
T = SCHEDULE.num_steps
BATCH = 256
STEPS = 1000


@functools.cache
def ring() -> GaussianMixtureOracle:
    """Lesson 3's data: eight clusters of standard deviation 0.2 on a circle of radius 1.4."""
    angle = torch.arange(8) * 2 * torch.pi / 8
    means = 1.4 * torch.stack([angle.cos(), angle.sin()], 1)
    return GaussianMixtureOracle(SCHEDULE, means, torch.full((8,), 0.04), torch.ones(8))


class SmallNets(nn.Module):
    """Lesson 3's network (4 to 64 to 64 to 64 to 2, SiLU), once for each seed."""

    def __init__(self, seeds: list[int], width: int = 64) -> None:
        super().__init__()
        self.count = len(seeds)
        self.rates = torch.stack([SCHEDULE.signal_rate, SCHEDULE.noise_rate], 1).float()
        sizes = [4, width, width, width, 2]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        generators = [seeded(seed) for seed in seeds]
        for wide, out in zip(sizes[:-1], sizes[1:], strict=True):
            bound = 1 / math.sqrt(wide)  # as nn.Linear starts
            shapes = (wide, out), (1, out)
            for kept, shape in zip((self.weights, self.biases), shapes, strict=True):
                start = [torch.rand(shape, generator=g) * 2 - 1 for g in generators]
                kept.append(nn.Parameter(bound * torch.stack(start)))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Points x_t (S * B, 2) at t (S * B,): the first B belong to the first network."""
        h = torch.cat([x_t, self.rates[t]], 1).unflatten(0, (self.count, -1))  # (S, B, 4)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, h if i == 0 else F.silu(h), weight)
        return h.flatten(0, 1)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained."""

    target: str = "eps"
    draw: Callable[[int], Any] = UniformSteps
    weight: Callable[..., Tensor] | None = None
    steps: int = STEPS


def bound_weight(schedule, t: Tensor) -> Tensor:
    """The weight of step t in the variational bound, with sigma_t^2 = beta_t."""
    return (schedule.beta / (2 * schedule.alpha * (1 - schedule.alpha_bar[1:])))[t - 1]


def _target(name: str, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    if name == "v":
        return velocity(SCHEDULE, x0, t, eps)
    return x0 if name == "x0" else eps


def train(recipe: Recipe, seeds: list[int]) -> Callable[[Tensor, Tensor], Tensor]:
    """Trains one network for each seed; together they are one eps model of (S * B, 2) points."""
    nets, generator = SmallNets(seeds), seeded(1000 + seeds[0])
    # Draws that learn from the losses must not learn from those of another network.
    draws = [recipe.draw(T) for _ in seeds] if recipe.draw is ImportanceSteps else [recipe.draw(T)]
    optimizer = torch.optim.Adam(nets.parameters(), lr=5e-3)
    for step in range(recipe.steps):
        optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / recipe.steps)
        x0 = ring().sample(len(seeds) * BATCH, generator).float()
        eps = torch.randn(x0.shape, generator=generator)
        share = len(x0) // len(draws)
        drawn = [draw.draw(share, generator=generator, device="cpu") for draw in draws]
        t, factor = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        answer = nets(diffuse(SCHEDULE, x0, t, eps), t)
        losses = (answer - _target(recipe.target, x0, t, eps)).square().mean(1)
        if recipe.weight is not None:
            losses = recipe.weight(SCHEDULE, t).float() * losses
        for draw, steps, each in zip(draws, t.split(share), losses.split(share), strict=True):
            draw.update(steps, each.detach())
        optimizer.zero_grad()
        (factor * losses).unflatten(0, (len(seeds), -1)).mean(1).sum().backward()
        optimizer.step()
    nets.requires_grad_(False)
    wrappers = {"eps": lambda net, _: net, "x0": eps_from_x0, "v": eps_from_v}
    return wrappers[recipe.target](nets, SCHEDULE)


@functools.cache
def points(count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Test points x_t (count, 2), their t with all of 1..T among them, noise, exact answer."""
    t = torch.arange(count) % T + 1
    eps = torch.randn(count, 2, generator=seeded(6))
    x_t = diffuse(SCHEDULE, ring().sample(count, seeded(5)).float(), t, eps)
    return x_t, t, eps, ring()(x_t, t)


@functools.cache
def _trained(recipe: Recipe, quick: bool) -> Callable[[Tensor, Tensor], Tensor]:
    return train(replace(recipe, steps=4) if quick else recipe, _sizes(quick)[0])


@functools.cache
def excess(recipe: Recipe, quick: bool) -> Tensor:
    """The squared error against the exact answer of each seed at each test point, (S, count)."""
    seeds, count = _sizes(quick)
    x_t, t, _, exact = points(count)
    answer = _trained(recipe, quick)(x_t.repeat(len(seeds), 1), t.repeat(len(seeds)))
    return (answer.unflatten(0, (len(seeds), -1)) - exact).square().mean(2)


def distances(recipe: Recipe, quick: bool) -> list[float]:
    """The energy distance of each seed's samples (DDIM, 50 steps) from fresh data."""
    seeds, count = _sizes(quick)
    count = min(count, 2000)
    model = _trained(recipe, quick)
    x_T = torch.randn(len(seeds) * count, 2, generator=seeded(7))
    samples = last(ddim(model, SCHEDULE, x_T, evenly_spaced(T, 50))).unflatten(0, (len(seeds), -1))
    data = ring().sample(len(seeds) * count, seeded(8)).float().unflatten(0, (len(seeds), -1))
    found = []
    for a, b in zip(samples, data, strict=True):
        within = torch.cdist(a, a).sum() + torch.cdist(b, b).sum()
        pairs = count * (count - 1)
        found.append(float(2 * torch.cdist(a, b).mean() - within / pairs))
    return found


def _sizes(quick: bool) -> tuple[list[int], int]:
    return ([0, 1], 1000) if quick else (list(range(12)), 16_000)


def _plain(recipe: Recipe, quick: bool) -> list[float]:
    """1000 times the excess, averaged over all t, of each seed."""
    return (1000 * excess(recipe, quick).mean(1)).tolist()


def _nats(recipe: Recipe, quick: bool) -> list[float]:
    """By how many nats the bound of each seed is above the best one."""
    counts = 2 * T * bound_weight(SCHEDULE, points(_sizes(quick)[1])[1])  # 2 coordinates, T steps
    return (excess(recipe, quick) * counts).mean(1).tolist()


# Eps or x_0


def eps_or_x0(quick: bool) -> Numbers:
    """The exchange of one exact answer, and networks trained on each of the two."""
    seeds, count = _sizes(quick)
    x_t, t, eps, _ = points(count)
    x_t, eps = x_t.double(), eps.double()
    x0_hat = predict_x0(SCHEDULE, x_t, t, eps)
    back = eps_from_x0(lambda x_t, t: x0_hat, SCHEDULE)(x_t, t)
    snr = SCHEDULE.snr[t]
    on_eps, on_x0 = (excess(Recipe(target), quick) for target in ("eps", "x0"))
    return {
        "seeds": seeds,
        "steps": STEPS,
        "round_trip": float((back - eps).abs().max()),
        "eps_in_eps": (1000 * on_eps).mean(1).tolist(),
        "x0_in_eps": (1000 * on_x0).mean(1).tolist(),
        "eps_in_x0": (1000 * on_eps / snr).mean(1).tolist(),
        "x0_in_x0": (1000 * on_x0 / snr).mean(1).tolist(),
    }


def _eps_verdict(numbers: Numbers) -> str:
    functions = "yes" if numbers["round_trip"] < 1e-6 else "no"
    by_eps = paired(numbers["x0_in_eps"], numbers["eps_in_eps"])
    by_x0 = paired(numbers["x0_in_x0"], numbers["eps_in_x0"])
    differ = by_eps.told_apart and by_x0.told_apart
    losses = "no" if differ else "not told apart"
    return f"as functions {functions}, as losses {losses}"


def _eps_number(numbers: Numbers) -> str:
    n = len(numbers["seeds"])
    return (
        f"excess x 1000: trained on eps {mean_and_error(numbers['eps_in_eps'])} in eps, "
        f"{mean_and_error(numbers['eps_in_x0'])} in x_0; trained on x_0 "
        f"{mean_and_error(numbers['x0_in_eps'])} and {mean_and_error(numbers['x0_in_x0'])} "
        f"({n} seeds)"
    )


# Importance sampling


def importance(quick: bool) -> Numbers:
    """The excess after training with t drawn uniformly, and by importance in fewer steps."""
    numbers: Numbers = {"seeds": _sizes(quick)[0], "steps": STEPS}
    for name, weight, measure in (("bound", bound_weight, _nats), ("plain", None, _plain)):
        numbers[f"{name}_uniform"] = measure(Recipe(weight=weight), quick)
        for share in (1.0, 0.8, 0.6):
            recipe = Recipe(draw=ImportanceSteps, weight=weight, steps=round(share * STEPS))
            numbers[f"{name}_importance_{share:.0%}"] = measure(recipe, quick)
    numbers["bound_of_plain"] = _nats(Recipe(), quick)
    return numbers


def _gain(numbers: Numbers, loss: str) -> str:
    """What importance sampling does for ``loss``, in a few words."""
    uniform = numbers[f"{loss}_uniform"]
    same, fewer, fewest = (
        paired(numbers[f"{loss}_importance_{share}"], uniform) for share in ("100%", "80%", "60%")
    )
    if same.mean > 0:
        return "no, slower" if same.told_apart else "not told apart"
    if fewest.mean <= 0:
        return "yes, by over 40 %" if fewest.told_apart else "yes, by about 40 %"
    if fewer.mean <= 0:
        return "yes" if fewer.told_apart and fewest.told_apart else "yes, roughly"
    return "less" if same.told_apart else "not told apart"


def _importance_verdict(numbers: Numbers) -> str:
    return f"bound: {_gain(numbers, 'bound')}; plain loss: {_gain(numbers, 'plain')}"


def _importance_number(numbers: Numbers) -> str:
    fewer, fewest = (
        paired(numbers[f"bound_importance_{share}"], numbers["bound_uniform"])
        for share in ("80%", "60%")
    )
    plain = paired(numbers["plain_importance_100%"], numbers["plain_uniform"])
    return (
        f"excess against uniform t: bound {fewer} nats in 20 % fewer steps, {fewest} in 40 % "
        f"fewer; plain loss x 1000 {plain} ({len(numbers['seeds'])} seeds)"
    )


# P2 and min-SNR


def _weighted(recipe: Recipe, quick: bool) -> Numbers:
    """The excess, and the distance of samples from the data, with a weight and without one."""
    numbers: Numbers = {"seeds": _sizes(quick)[0], "steps": STEPS}
    for name, one in (("plain", Recipe()), ("weighted", recipe)):
        numbers[f"{name}_excess"] = _plain(one, quick)
        numbers[f"{name}_distance"] = [1000 * value for value in distances(one, quick)]
    return numbers


def p2(quick: bool) -> Numbers:
    """With P2's weight."""
    return _weighted(Recipe(weight=p2_weight), quick)


def min_snr(quick: bool) -> Numbers:
    """With the min-SNR weight, gamma = 5."""
    return _weighted(Recipe(weight=min_snr_weight), quick)


def _weighted_verdict(numbers: Numbers) -> str:
    difference = paired(numbers["weighted_distance"], numbers["plain_distance"])
    if not difference.told_apart:
        return "not told apart on points"
    return "yes, on points" if difference.mean < 0 else "no, worse, on points"


def _weighted_number(numbers: Numbers) -> str:
    distance = paired(numbers["weighted_distance"], numbers["plain_distance"])
    loss = paired(numbers["weighted_excess"], numbers["plain_excess"])
    return (
        f"samples' energy distance to the data x 1000: {distance} against plain "
        f"({mean_and_error(numbers['plain_distance'])}); excess x 1000: {loss} "
        f"({len(numbers['seeds'])} seeds)"
    )


# The floor


def floor(quick: bool) -> Numbers:
    """The mean loss of the exact answer, and of trained networks."""
    seeds, count = _sizes(quick)
    _, _, eps, exact = points(count)
    each = (exact - eps).square().mean(1)
    return {
        "seeds": seeds,
        "count": count,
        "floor": float(each.mean()),
        "error": float(each.std()) / count**0.5,
        "excess": _plain(Recipe(), quick),
    }


def _floor_verdict(numbers: Numbers) -> str:
    return "no" if numbers["floor"] > 4 * numbers["error"] else "yes"


def _floor_number(numbers: Numbers) -> str:
    return (
        f"the exact answer's loss is {numbers['floor']:.3f} ± {numbers['error']:.3f} "
        f"({numbers['count']:,} points); networks end {mean_and_error(numbers['excess'])} "
        f"thousandths above it ({len(numbers['seeds'])} seeds)"
    )


CLAIMS = [
    Claim(
        "eps_or_x0",
        "Predicting eps is equivalent to predicting x_0",
        eps_or_x0,
        _eps_verdict,
        _eps_number,
    ),
    Claim(
        "importance",
        "Importance sampling of t speeds training up by 20 to 40 %",
        importance,
        _importance_verdict,
        _importance_number,
    ),
    Claim("p2", "P2 weighting improves quality", p2, _weighted_verdict, _weighted_number),
    Claim(
        "min_snr",
        "min-SNR weighting improves quality",
        min_snr,
        _weighted_verdict,
        _weighted_number,
    ),
    Claim("loss_to_zero", "The loss must go to zero", floor, _floor_verdict, _floor_number),
]
