"""Lesson 11: what editing draws, against exact conditionals and by a judge of digits."""

import functools
import math
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from measured.claim import Claim, Numbers, paired
from tutorial_lib import hardware
from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.editing import consistent, edit, inpaint, solve_linear
from tutorial_lib.guidance import condition, guide, labeled
from tutorial_lib.metrics.digit_features import load_digit_classifier
from tutorial_lib.oracles import GaussianMixtureOracle
from tutorial_lib.samplers import ddim, ddpm, evenly_spaced, last
from tutorial_lib.schedules import cosine_schedule

# --- replacement on a mixture whose conditional is known ------------------------------------------

MEANS, VARIANCE, PLACE = ((-1.0, -1.0), (1.0, 1.0)), 0.4, -0.28
RESAMPLINGS = (1, 5, 20)
STRIDES = (25, 50, 100)


def exact_share() -> float:
    """P(second cluster given x_1 = PLACE), by Bayes' rule."""
    odds = math.exp(((PLACE - MEANS[0][0]) ** 2 - (PLACE - MEANS[1][0]) ** 2) / (2 * VARIANCE))
    return odds / (1 + odds)


@functools.cache
def mixture(quick: bool) -> Numbers:
    """The share of completions in the second cluster, by resamplings, and by strides at one."""
    seeds, count, strides = ([0, 1], 50, 5) if quick else ([0, 1, 2, 3, 4], 4000, 50)
    schedule = cosine_schedule(1000)
    means = torch.tensor(MEANS, dtype=torch.float64)
    variances = torch.full((2,), VARIANCE, dtype=torch.float64)
    oracle = GaussianMixtureOracle(schedule, means, variances, torch.ones(2))
    known = torch.full((count, 2), PLACE, dtype=torch.float64)
    mask = torch.tensor([True, False])

    def share(seed: int, n: int, resamplings: int) -> float:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(count, 2, generator=generator, dtype=torch.float64)
        walk = inpaint(
            oracle,
            schedule,
            noise,
            evenly_spaced(1000, n),
            known,
            mask,
            resamplings=resamplings,
            sampler=ddpm,
            generator=generator,
        )
        away = (last(walk)[:, None] - means).square().sum(2)
        belongs = (-away / (2 * VARIANCE)).softmax(1)[:, 1]
        return round(float(belongs.mean()), 5)

    return {
        "seeds": seeds,
        "count": count,
        "strides": strides,
        "exact": round(exact_share(), 5),
        "resamplings": {str(r): [share(s, strides, r) for s in seeds] for r in RESAMPLINGS},
        "by strides": {str(n): [share(s, n, 1) for s in seeds] for n in STRIDES},
    }


def _off(numbers: Numbers, resamplings: int) -> Any:
    shares = numbers["resamplings"][str(resamplings)]
    return paired(shares, [numbers["exact"]] * len(shares))


def _posterior_verdict(numbers: Numbers) -> str:
    return "no, it is biased" if _off(numbers, 1).told_apart else "not told apart"


def _posterior_number(numbers: Numbers) -> str:
    shares = "/".join(f"{statistics.mean(v):.3f}" for v in numbers["by strides"].values())
    return (
        f"share of one cluster, exactly {numbers['exact']:.3f}: in {'/'.join(map(str, STRIDES))} "
        f"strides {shares}; at {numbers['strides']} off by {_off(numbers, 1)} {about(numbers)}"
    )


def _resampling_verdict(numbers: Numbers) -> str:
    first, most = RESAMPLINGS[0], RESAMPLINGS[-1]
    shares = numbers["resamplings"]
    less = paired(shares[str(most)], shares[str(first)])
    if not less.told_apart or less.mean > 0:
        return "not told apart"
    left = _off(numbers, most)
    return f"less, but not gone at {most}" if left.told_apart else f"gone at {most}"


def _resampling_number(numbers: Numbers) -> str:
    offs = ", ".join(f"{r}: {_off(numbers, r)}" for r in RESAMPLINGS)
    return f"off by, with resamplings {offs} {about(numbers)}"


# --- the shipped digits ---------------------------------------------------------------------------

STRENGTHS = (0.3, 0.5, 0.7, 0.9)
SCALES = (1.0, 2.0, 4.0, 7.5)
PROMPTED = 0.7
"""The strength at which guidance is compared."""


class Digits:
    """The shipped model, its judge, and digits that it has drawn to be edited."""

    def __init__(self, quick: bool) -> None:
        hardware.keep_freed_memory()
        self.seeds, self.per_class, self.strides = ([0, 1], 1, 2) if quick else ([*range(5)], 2, 25)
        checkpoint = load_checkpoint("mnist")
        self.schedule = checkpoint.schedule
        self.model = labeled(checkpoint.network, self.schedule, checkpoint.card["target"])
        self.judge = load_digit_classifier()
        self.asked = torch.arange(10).repeat(self.per_class)
        self.walk = evenly_spaced(1000, self.strides)

    def noise(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(len(self.asked), 1, 28, 28, generator=generator)

    @functools.cache  # noqa: B019  there are two of these in a process
    def drawn(self, seed: int) -> Tensor:
        model = condition(self.model, self.asked)
        return last(ddim(model, self.schedule, self.noise(100 + seed), self.walk)).clamp(-1, 1)

    def read(self, images: Tensor) -> Tensor:
        return self.judge.probabilities(images).argmax(1)

    def about(self) -> Numbers:
        return {"seeds": self.seeds, "count": len(self.asked), "strides": self.strides}


@functools.cache
def digits(quick: bool) -> Digits:
    return Digits(quick)


def _share(hits: Tensor) -> float:
    return round(float(hits.float().mean()), 5)


def _out_of_range(images: Tensor) -> float:
    return round(float((images.abs() > 1.02).float().mean()), 5)


@functools.cache
def strengths(quick: bool) -> Numbers:
    """Each digit is to become the one five further on, at guidance 2."""
    world = digits(quick)
    wanted = (world.asked + 5) % 10
    model = guide(world.model, wanted, 2.0, 10)
    found: dict[str, Any] = world.about()
    for strength in STRENGTHS:
        row: dict[str, list[float]] = {"new": [], "old": [], "alike": []}
        for seed in world.seeds:
            before = world.drawn(seed)
            generator = torch.Generator().manual_seed(seed)
            walk = edit(model, world.schedule, before, world.walk, strength, generator=generator)
            after = last(walk)
            read = world.read(after)
            row["new"].append(_share(read == wanted))
            row["old"].append(_share(read == world.read(before)))
            both = torch.stack([before.flatten(), after.flatten()])
            row["alike"].append(round(float(both.corrcoef()[0, 1]), 5))
        found[f"{strength:g}"] = row
    return found


def percent(values: Sequence[float]) -> str:
    return f"{100 * statistics.mean(values):.0f}"


def about(numbers: Numbers) -> str:
    """How many seeds and samples: "(5 seeds of 4,000)"."""
    return f"({len(numbers['seeds'])} seeds of {numbers['count']:,})"


def _strength_verdict(numbers: Numbers) -> str:
    changed = paired(numbers["0.7"]["new"], numbers["0.5"]["new"])
    kept = statistics.mean(numbers["0.5"]["old"]) > 0.5
    if kept and changed.told_apart and changed.mean > 0:
        return "yes, too well: the new digit needs more"
    return "yes" if kept else "no"


def _strength_number(numbers: Numbers) -> str:
    names = [f"{s:g}" for s in STRENGTHS]
    new, old = ("/".join(percent(numbers[n][key]) for n in names) for key in ("new", "old"))
    return (
        f"at {'/'.join(names)}: still the old digit {old} %, the new one {new} % {about(numbers)}"
    )


@functools.cache
def prompted(quick: bool) -> Numbers:
    """Strength 0.7, by guidance scale."""
    world = digits(quick)
    wanted = (world.asked + 5) % 10
    found: dict[str, Any] = world.about()
    for scale in SCALES:
        model = guide(world.model, wanted, scale, 10)
        row: dict[str, list[float]] = {"new": [], "out": []}
        for seed in world.seeds:
            generator = torch.Generator().manual_seed(seed)
            start = world.drawn(seed)
            walk = edit(model, world.schedule, start, world.walk, PROMPTED, generator=generator)
            after = last(walk)
            row["new"].append(_share(world.read(after) == wanted))
            row["out"].append(_out_of_range(after))
        found[f"{scale:g}"] = row
    return found


def _guided_verdict(numbers: Numbers, key: str, what: str) -> str:
    """Whether 7.5 gives more of ``key`` than 2, and at what price."""
    more = paired(numbers["7.5"][key], numbers["2"][key])
    worse = paired(numbers["7.5"]["out"], numbers["2"]["out"])
    gain = f"{what} more often than at 2" if more.told_apart and more.mean > 0 else "not told apart"
    return f"{gain}, and out of range" if worse.told_apart and worse.mean > 0 else gain


def _guided_number(numbers: Numbers, key: str, what: str) -> str:
    names = [f"{s:g}" for s in SCALES]
    hits = "/".join(percent(numbers[n][key]) for n in names)
    out = "/".join(f"{100 * statistics.mean(numbers[n]['out']):.2g}" for n in names)
    return f"at {'/'.join(names)}: {what} {hits} %, pixels out of range {out} % {about(numbers)}"


def _prompted_verdict(numbers: Numbers) -> str:
    return _guided_verdict(numbers, "new", "the new digit")


def _prompted_number(numbers: Numbers) -> str:
    return _guided_number(numbers, "new", "the new digit")


@functools.cache
def completed(quick: bool) -> Numbers:
    """The lower half of digits completed from the upper one, told the digit, by guidance scale."""
    world = digits(quick)
    mask = torch.zeros(1, 28, 28, dtype=torch.bool)
    mask[:, :14] = True
    found: dict[str, Any] = world.about()
    for scale in SCALES:
        model = guide(world.model, world.asked, scale, 10)
        row: dict[str, list[float]] = {"read": [], "out": []}
        for seed in world.seeds:
            generator = torch.Generator().manual_seed(seed)
            known, start = world.drawn(seed), world.noise(seed)
            walk = inpaint(
                model, world.schedule, start, world.walk, known, mask, generator=generator
            )
            after = last(walk)
            row["read"].append(_share(world.read(after) == world.asked))
            row["out"].append(_out_of_range(after[:, :, 14:]))
        found[f"{scale:g}"] = row
    return found


def _completed_verdict(numbers: Numbers) -> str:
    more = paired(numbers["4"]["read"], numbers["1"]["read"])
    gain = "better read" if more.told_apart and more.mean > 0 else "not told apart"
    gain = f"at 4 {gain} from 1" if gain.startswith("not") else f"{gain} at 4 than at 1"
    worse = paired(numbers["4"]["out"], numbers["1"]["out"])
    return f"{gain}, and out of range" if worse.told_apart and worse.mean > 0 else gain


def _completed_number(numbers: Numbers) -> str:
    return _guided_number(numbers, "read", "read as ordered")


@functools.cache
def enlarged(quick: bool) -> Numbers:
    """14 x 14 to 28 x 28, with no label: repeated pixels, DDNM and DPS, and what they take."""
    world = digits(quick)
    model = condition(world.model, torch.full_like(world.asked, 10))
    found: dict[str, Any] = world.about()

    def small(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2)

    def large(y: Tensor) -> Tensor:
        return F.interpolate(y, scale_factor=2, mode="nearest")

    schedule, walk = world.schedule, world.walk
    for seed in world.seeds:
        before, start = world.drawn(seed), world.noise(seed)
        y = small(before)
        ways = {
            "plain": lambda start=start: last(ddim(model, schedule, start, walk)),
            "repeated": lambda y=y: large(y),
            "DDNM": lambda start=start, y=y: last(
                ddim(consistent(model, schedule, y, small, large), schedule, start, walk)
            ),
            "DPS": lambda start=start, y=y: last(
                solve_linear(model, schedule, start, walk, y, small, scale=3.0)
            ),
        }
        for name, draw in ways.items():
            began = time.process_time()
            after = draw()
            seconds = time.process_time() - began
            row = found.setdefault(name, {"seconds": [], "off": [], "read": [], "missed": []})
            row["seconds"].append(round(seconds, 4))
            row["off"].append(round(float((after - before).square().mean().sqrt()), 5))
            row["read"].append(_share(world.read(after) == world.read(before)))
            row["missed"].append(round(float((small(after) - y).square().mean().sqrt()), 5))
    return found


def _ratio(numbers: Numbers, name: str) -> list[float]:
    own, plain = numbers[name]["seconds"], numbers["plain"]["seconds"]
    return [a / b for a, b in zip(own, plain, strict=True)]


def _cost_verdict(numbers: Numbers) -> str:
    return f"here {statistics.mean(_ratio(numbers, 'DPS')):.1f} times"


def _cost_number(numbers: Numbers) -> str:
    parts = []
    for name in ("DPS", "DDNM"):
        values = _ratio(numbers, name)
        error = statistics.stdev(values) / math.sqrt(len(values))
        parts.append(f"{name} {statistics.mean(values):.2f} ± {error:.2f}")
    return f"CPU seconds, in those of a plain walk: {', '.join(parts)} {about(numbers)}"


def _worth_verdict(numbers: Numbers) -> str:
    nearer = paired(numbers["DPS"]["off"], numbers["DDNM"]["off"])
    if not nearer.told_apart:
        return "not told apart"
    return "nearer to the original" if nearer.mean < 0 else "farther from the original"


def _worth_number(numbers: Numbers) -> str:
    nearer = paired(numbers["DPS"]["off"], numbers["DDNM"]["off"])
    read = paired(numbers["DPS"]["read"], numbers["DDNM"]["read"])
    rows = "/".join(
        f"{statistics.mean(numbers[n]['off']):.3f}" for n in ("repeated", "DDNM", "DPS")
    )
    return (
        f"root mean square off, repeated/DDNM/DPS: {rows}; DPS minus DDNM {nearer}, read alike "
        f"{100 * read.mean:+.0f} ± {100 * read.error:.0f} % {about(numbers)}"
    )


CLAIMS = [
    Claim(
        "inpainting_posterior",
        "Replacement inpaints from the posterior",
        mixture,
        _posterior_verdict,
        _posterior_number,
    ),
    Claim(
        "inpainting_resampling",
        "More resampling removes the bias",
        mixture,
        _resampling_verdict,
        _resampling_number,
    ),
    Claim(
        "editing_strength",
        "Strength 0.5 keeps the picture",
        strengths,
        _strength_verdict,
        _strength_number,
    ),
    Claim(
        "editing_guidance",
        "Image to image needs guidance 7.5",
        prompted,
        _prompted_verdict,
        _prompted_number,
    ),
    Claim(
        "inpainting_guidance",
        "Inpainting needs guidance 2 to 4",
        completed,
        _completed_verdict,
        _completed_number,
    ),
    Claim(
        "dps_cost",
        "A gradient makes a walk three times as long",
        enlarged,
        _cost_verdict,
        _cost_number,
    ),
    Claim(
        "dps_worth",
        "Guidance by a gradient beats projection",
        enlarged,
        _worth_verdict,
        _worth_number,
    ),
]
