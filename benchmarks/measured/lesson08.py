"""Lesson 8: what guidance gains and costs, and what guided walks draw."""

import functools
import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from measured.claim import Claim, Numbers, paired
from tutorial_lib import hardware
from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.guidance import LabeledMixture, guide, labeled
from tutorial_lib.metrics import frechet_distance
from tutorial_lib.metrics.digit_features import load_digit_classifier, load_digit_reference
from tutorial_lib.predictions import clip_x0
from tutorial_lib.samplers import ddim, ddpm, evenly_spaced, last
from tutorial_lib.schedules import cosine_schedule

SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 12.0, 20.0)
CLIPPED = (7.5, 12.0)
PER_CLASS, STEPS = 10, 20
MARGIN = 0.02
"""A pixel is out of range beyond 1 + MARGIN: the background alone scatters by 0.01 around -1."""


def spread_within(features: Tensor, labels: Tensor) -> float:
    """Mean distance of two samples of one class, averaged over the classes."""
    classes = [features[labels == label] for label in labels.unique()]
    return float(torch.stack([torch.nn.functional.pdist(own).mean() for own in classes]).mean())


def ink(images: Tensor) -> float:
    """How white the images are on a screen, from 0 (all black) to 1."""
    return float((images.clamp(-1, 1).mean() + 1) / 2)


def out_of_range(images: Tensor) -> float:
    """The share of pixels beyond the range of images."""
    return float((images.abs() > 1 + MARGIN).float().mean())


@functools.cache
def digits(quick: bool) -> Numbers:
    """Measures of the shipped model's digits, by scale, a number for each seed.

    As in the lesson: ten of each digit by DDIM in 20 steps, in fp32, the same noise for each scale.
    """
    hardware.keep_freed_memory()
    device = hardware.pick_device()
    checkpoint = load_checkpoint("mnist", device=device)
    schedule, num_classes = checkpoint.schedule, len(checkpoint.class_names)
    model = labeled(checkpoint.network, schedule, checkpoint.card["target"])
    judge, real = load_digit_classifier(), load_digit_reference()
    seeds, scales, per_class, steps = [0, 1, 2, 3, 4], SCALES, PER_CLASS, STEPS
    if quick:
        seeds, scales, per_class, steps = [0, 1], (1.0, 2.0, 3.0, 7.5, 12.0), 2, 2
    asked = torch.arange(num_classes).repeat_interleave(per_class)
    found: dict[str, Any] = {"seeds": seeds, "count": len(asked), "steps": steps}
    walks = [(f"{s:g}", s, False) for s in scales]
    walks += [(f"{s:g} clipped", s, True) for s in scales if s in CLIPPED]
    for name, scale, clipped in walks:
        denoiser = guide(model, asked.to(device), scale, num_classes)
        denoiser = clip_x0(denoiser, schedule) if clipped else denoiser
        row: dict[str, list[float]] = {}
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            noise = torch.randn(len(asked), *checkpoint.image_shape, generator=generator)
            walk = ddim(denoiser, schedule, noise.to(device), evenly_spaced(1000, steps))
            drawn = last(walk).cpu()
            features = judge.features(drawn)
            read = judge.probabilities(drawn).argmax(1)
            measures = {
                "accuracy": float((read == asked).float().mean()),
                "spread": spread_within(features, asked),
                "frechet": frechet_distance(features, real.test),
                "out": out_of_range(drawn),
                "ink": ink(drawn),
            }
            for measure, value in measures.items():
                row.setdefault(measure, []).append(round(value, 5))
        found[name] = row
    found["real"] = {
        "spread": spread_within(real.test, real.test_labels),
        "accuracy": judge.card["metrics"]["test_accuracy"],
    }
    return found


def part(*measures: str) -> Any:
    """A function that measures the digits and keeps only these measures of each scale."""

    def measure(quick: bool) -> Numbers:
        found = digits(quick)
        rows = {
            name: {key: values[key] for key in measures if key in values}
            for name, values in found.items()
            if isinstance(values, dict)
        }
        return {"seeds": found["seeds"], "count": found["count"], "steps": found["steps"], **rows}

    return measure


# --- which density guided walks end on -----------------------------------------------------------

MEANS, VARIANCE = (-1.0, 1.0), 0.3
POWERS = (1.0, 2.0, 4.0, 8.0)


def sharpened(scale: float) -> tuple[float, float]:
    """Mean and standard deviation of p(x) p(c given x)^s for the class at +1, on a fine grid."""
    x = torch.linspace(-8, 8, 32_001, dtype=torch.float64)
    near, far = (torch.exp(-(x - m).square() / (2 * VARIANCE)) for m in (MEANS[1], MEANS[0]))
    density = (near + far) * (near / (near + far)) ** scale
    mean = (x * density).sum() / density.sum()
    variance = ((x - mean).square() * density).sum() / density.sum()
    return float(mean), float(variance.sqrt())


def density(quick: bool) -> Numbers:
    """Guided walks with exact answers, against the density that the formula names."""
    seeds, count, steps = ([0, 1], 50, 10) if quick else ([0, 1, 2, 3, 4], 4000, 250)
    schedule = cosine_schedule(1000)
    world = LabeledMixture(
        schedule,
        torch.tensor(MEANS, dtype=torch.float64)[:, None],
        torch.full((2,), VARIANCE, dtype=torch.float64),
        torch.ones(2, dtype=torch.float64),
        torch.tensor([0, 1]),
    )
    asked = torch.ones(count, dtype=torch.int64)
    found: dict[str, Any] = {"seeds": seeds, "count": count, "steps": steps}
    for scale in POWERS:
        mean, spread = sharpened(scale)
        row: dict[str, Any] = {"density mean": mean, "density std": spread}
        denoiser = guide(world, asked, scale, 2)
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            noise = torch.randn(count, 1, generator=generator, dtype=torch.float64)
            walk = evenly_spaced(1000, steps)
            ends = {
                "ddim": last(ddim(denoiser, schedule, noise, walk)),
                "ddpm": last(ddpm(denoiser, schedule, noise, walk, generator=generator)),
            }
            for sampler, x in ends.items():
                row.setdefault(f"{sampler} mean", []).append(round(float(x.mean()), 5))
                row.setdefault(f"{sampler} std", []).append(round(float(x.std()), 5))
        found[f"{scale:g}"] = row
    return found


# --- the texts -----------------------------------------------------------------------------------


def about(numbers: Numbers) -> str:
    """How many seeds and samples: "(5 seeds of 100 digits)"."""
    return f"({len(numbers['seeds'])} seeds of {numbers['count']:,})"


def change(numbers: Numbers, first: str, second: str, measure: str, factor: float = 1.0) -> Any:
    """What ``measure`` gains from the second scale to the first, paired by seed."""
    one, two = (numbers[name][measure] for name in (first, second))
    return paired([factor * x for x in one], [factor * x for x in two])


def percent(values: Sequence[float]) -> str:
    """The mean share, in percent, to two digits."""
    share = 100 * sum(values) / len(values)
    return f"{share:.2g}" if share < 10 else f"{share:.0f}"


def knee(numbers: Numbers) -> str | None:
    """The first scale at which more than twice as many pixels are out of range as at scale 1."""
    for name, row in numbers.items():
        if not isinstance(row, dict) or "clipped" in name or "out" not in row:
            continue
        more = paired(row["out"], [2 * x for x in numbers["1"]["out"]])
        if more.told_apart and more.mean > 0:
            return name
    return None


def _better_verdict(numbers: Numbers) -> str:
    read, varied = (change(numbers, "2", "1", m) for m in ("accuracy", "spread"))
    easier = read.told_apart and read.mean > 0
    less = varied.told_apart and varied.mean < 0
    first = "easier to read" if easier else "not told apart in reading"
    return f"{first}, and {'less varied' if less else 'as varied'}"


def _better_number(numbers: Numbers) -> str:
    read = change(numbers, "2", "1", "accuracy", 100)
    varied = change(numbers, "2", "1", "spread")
    at_one = sum(numbers["1"]["spread"]) / len(numbers["seeds"])
    return (
        f"from s = 1 to 2: read as ordered {read} %, spread within a class {varied} "
        f"(of {at_one:.1f}; real digits {numbers['real']['spread']:.1f}) {about(numbers)}"
    )


def _typical_verdict(numbers: Numbers) -> str:
    worse = change(numbers, "7.5", "1", "frechet")
    far = "far too much here" if worse.told_apart and worse.mean > 0 else "not told apart here"
    begins = knee(numbers)
    return f"{far}; pixels leave the range from {begins} on" if begins else far


def _typical_number(numbers: Numbers) -> str:
    worse = change(numbers, "7.5", "1", "frechet")
    scales = ("1", "3", "7.5", "12")
    shares = "/".join(percent(numbers[s]["out"]) for s in scales)
    return (
        f"Fréchet distance at 7.5 minus at 1: {worse}; pixels out of range at "
        f"{'/'.join(scales)}: {shares} % {about(numbers)}"
    )


def _clipping_verdict(numbers: Numbers) -> str:
    inside = change(numbers, "12", "12 clipped", "out")
    thick = change(numbers, "12 clipped", "1", "ink")
    cured = "pixels stay in range" if inside.told_apart and inside.mean > 0 else "no effect seen"
    kept = "strokes stay thick" if thick.told_apart and thick.mean > 0 else "strokes are thin again"
    return f"{cured}, {kept}"


def _clipping_number(numbers: Numbers) -> str:
    out, cut = (percent(numbers[s]["out"]) for s in ("12", "12 clipped"))
    more = change(numbers, "12", "1", "ink", 100)
    clipped = change(numbers, "12 clipped", "1", "ink", 100)
    return (
        f"at 12: out of range {out} %, clipped {cut} %; ink {more} points (of 100) over s = 1, "
        f"clipped {clipped} {about(numbers)}"
    )


def _density_verdict(numbers: Numbers) -> str:
    row = numbers["4"]
    exact = [row["density mean"]] * len(numbers["seeds"])
    beyond = {sampler: paired(row[f"{sampler} mean"], exact) for sampler in ("ddim", "ddpm")}
    if not all(found.told_apart for found in beyond.values()):
        return "not told apart"
    far = all(found.mean > 0 for found in beyond.values())
    apart = paired(row["ddim mean"], row["ddpm mean"]).told_apart
    first = "no, it goes farther" if far else "no"
    return f"{first}, and each sampler elsewhere" if apart else first


def _density_number(numbers: Numbers) -> str:
    scales = ("2", "4", "8")
    rows = [numbers[s] for s in scales]

    def listed(sampler: str) -> str:
        return "/".join(f"{statistics.mean(row[f'{sampler} mean']):.2f}" for row in rows)

    means = [row[f"{sampler} mean"] for row in rows for sampler in ("ddim", "ddpm")]
    error = max(statistics.stdev(values) / math.sqrt(len(values)) for values in means)
    promised = "/".join(f"{row['density mean']:.2f}" for row in rows)
    return (
        f"mean at s = {'/'.join(scales)}: DDIM {listed('ddim')}, DDPM {listed('ddpm')}, that "
        f"density {promised}; standard errors up to {error:.3f} {about(numbers)}"
    )


CLAIMS = [
    Claim(
        "guidance_helps",
        "Guidance makes samples better",
        part("accuracy", "spread"),
        _better_verdict,
        _better_number,
    ),
    Claim(
        "guidance_typical",
        "Guidance 7.5 is typical; beyond 8 it over-saturates",
        part("frechet", "out"),
        _typical_verdict,
        _typical_number,
    ),
    Claim(
        "guidance_clipped",
        "Clipping x0_hat cures the saturation",
        part("out", "ink", "spread"),
        _clipping_verdict,
        _clipping_number,
    ),
    Claim(
        "guidance_density",
        "Guidance samples p(x) p(c given x)^s",
        density,
        _density_verdict,
        _density_number,
    ),
]
