"""Lesson 7: linear, quadratic and cosine at few steps; training against sampling; the floor."""

import functools
import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from measured.claim import Claim, Difference, Numbers, mean_and_error, paired
from tutorial_lib import hardware
from tutorial_lib._typing import EpsModel
from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.datasets import Dataset, load
from tutorial_lib.metrics import frechet_distance, real_floor
from tutorial_lib.metrics.digit_features import (
    DigitClassifier,
    load_digit_classifier,
    load_digit_reference,
)
from tutorial_lib.oracles import DatasetOracle
from tutorial_lib.predictions import clip_x0
from tutorial_lib.samplers import ddim, evenly_spaced, last
from tutorial_lib.schedules import (
    NoiseSchedule,
    cosine_schedule,
    linear_schedule,
    quadratic_schedule,
)
from tutorial_lib.training import TrainConfig, train

T = 1000
SCHEDULES = {
    "linear": linear_schedule(T),
    "quadratic": quadratic_schedule(T),
    "cosine": cosine_schedule(T),
}
OTHERS = ("linear", "quadratic")
SIZE = 16
NOISE = 1000  # the seed of the starting noise is this plus the seed of the training


@functools.cache
def digits() -> Dataset:
    """The data set of the lesson's experiment: 10,000 drawn digits, 16 x 16."""
    return load("glyphs", size=SIZE)


@functools.cache
def judge() -> DigitClassifier:
    """The digit classifier that ships with the course."""
    return load_digit_classifier()


def features(images: Tensor) -> Tensor:
    """What the classifier sees: (N, 64) for images (N, 1, 16, 16)."""
    enlarged = F.interpolate(images.clamp(-1, 1), size=28, mode="bilinear")
    return judge().features(enlarged)


@functools.cache
def real_features() -> Tensor:
    """Features of all images of the data set, (10000, 64)."""
    return features(digits().images)


def stops_like(own: NoiseSchedule, other: NoiseSchedule, count: int) -> list[int]:
    """Steps of ``own`` whose log-SNR is nearest to that of ``count`` even steps of ``other``."""
    stops = [own.num_steps]
    for t in evenly_spaced(other.num_steps, count)[1:-1]:
        away = (own.snr[1:].log() - other.snr[t].log()).abs()
        stops.append(int(away.argmin()) + 1)
    return [*stops, 0]


def trained(name: str, target: str, steps: int, seed: int) -> EpsModel:
    """A small network, trained on the schedule ``name`` for ``steps`` training steps."""
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            dataset="glyphs",
            size=SIZE,
            schedule=name,
            target=target,
            weight="min_snr" if target == "v" else "none",
            steps=steps,
            batch_size=32,
            widths=(32, 64),
            seed=seed,
            progress=False,
            out=Path(folder) / "run",
        )
        return train(config, data=digits()).model


def score(
    model: EpsModel, schedule: NoiseSchedule, stops: Sequence[int], seed: int, count: int
) -> float:
    """Fréchet distance of ``count`` images by DDIM, from noise of this seed, to all real ones."""
    generator = torch.Generator().manual_seed(NOISE + seed)
    x_T = torch.randn(count, 1, SIZE, SIZE, generator=generator)
    return frechet_distance(features(last(ddim(model, schedule, x_T, stops))), real_features())


@functools.cache
def experiment(
    target: str,
    names: tuple[str, ...],
    steps: int,
    seeds: tuple[int, ...],
    walks: tuple[int, ...],
    crossed: tuple[int, ...],
    count: int,
) -> Numbers:
    """Trains a network for each schedule and seed, and scores its images.

    Args:
        target: what the networks predict: "v", weighted by min-SNR; or "eps", not weighted, and
            x0_hat clipped when images are drawn, as in the papers.
        names: the schedules.
        steps: training steps.
        seeds: of weights, data and noise.
        walks: numbers of DDIM steps.
        crossed: those at which a network also stops where the other schedules would.
        count: images for each network and walk.

    Returns:
        ``scores[name][steps of DDIM]``, one number a seed; ``crossed[trained][stops][steps]``.
    """
    scores: Numbers = {name: {str(walk): [] for walk in walks} for name in names}
    # A quadratic network has no station as noisy as most of the others': it cannot stop there.
    cross: Numbers = {
        name: {other: {str(walk): [] for walk in crossed} for other in names if other != name}
        for name in ("linear", "cosine")
        if crossed
    }
    for seed in seeds:
        for name in names:
            model, schedule = trained(name, target, steps, seed), SCHEDULES[name]
            if target == "eps":
                model = clip_x0(model, schedule)
            for walk in walks:
                stops = evenly_spaced(T, walk)
                scores[name][str(walk)].append(score(model, schedule, stops, seed, count))
            for other in cross.get(name, {}):
                for walk in crossed:
                    stops = stops_like(schedule, SCHEDULES[other], walk)
                    found = score(model, schedule, stops, seed, count)
                    cross[name][other][str(walk)].append(found)
    generator = torch.Generator().manual_seed(1)
    floor = real_floor(
        frechet_distance,
        real_features(),
        count,
        len(real_features()) - count,
        repeats=10,
        generator=generator,
    )
    return {
        "target": target,
        "training_steps": steps,
        "seeds": list(seeds),
        "images": count,
        "scores": scores,
        "crossed": cross,
        "floor": float(floor.mean()),
        "floor_deviation": float(floor.std()),
    }


ALL = tuple(SCHEDULES)


def small_networks(quick: bool) -> Numbers:
    """The lesson's experiment with more seeds and images: target v, min-SNR."""
    if quick:
        return experiment("v", ALL, 2, (0, 1), (2, 4), (2,), 20)
    return experiment("v", ALL, 240, (0, 1, 2, 3, 4), (5, 10, 20, 50), (5, 10), 400)


def clipped_eps(quick: bool) -> Numbers:
    """Closer to the papers: target eps, not weighted, x0_hat clipped."""
    if quick:
        return experiment("eps", ("linear", "cosine"), 2, (0, 1), (2, 4), (), 20)
    return experiment("eps", ("linear", "cosine"), 240, (0, 1, 2, 3), (5, 50), (), 200)


def gap(numbers: Numbers, first: str, second: str, walk: str) -> Difference:
    """How much farther from the data the first schedule's images are, seed by seed."""
    return paired(numbers["scores"][first][walk], numbers["scores"][second][walk])


def walks_of(numbers: Numbers) -> tuple[str, str]:
    """The fewest and the most steps of DDIM."""
    walks = sorted(next(iter(numbers["scores"].values())), key=int)
    return walks[0], walks[-1]


def better(found: Difference) -> str:
    """What a difference of distances, other minus cosine, says about cosine."""
    if not found.told_apart:
        return "not told apart"
    return "yes" if found.mean > 0 else "no"


def verdict_against(other: str) -> Callable[[Numbers], str]:
    """Few steps and many, each with its own verdict."""

    def verdict(numbers: Numbers) -> str:
        fewest, most = walks_of(numbers)
        few = better(gap(numbers, other, "cosine", fewest))
        many = better(gap(numbers, other, "cosine", most))
        if few == many == "yes":
            return "yes here, and not only at few"
        if few == many:
            return few
        return f"{few} at {fewest} steps; {many} at {most}"

    return verdict


def number_against(other: str) -> Callable[[Numbers], str]:
    """The differences at the fewest and the most steps, and what they come from."""

    def number(numbers: Numbers) -> str:
        fewest, most = walks_of(numbers)
        few, many = (gap(numbers, other, "cosine", walk) for walk in (fewest, most))
        seeds, images = len(numbers["seeds"]), numbers["images"]
        return (
            f"Fréchet distance, {other} - cosine: {few} at {fewest} steps, {many} at {most}; "
            f"{seeds} networks each ({numbers['training_steps']} training steps), {images} images "
            f"a network"
        )

    return number


def _stops_verdict(numbers: Numbers) -> str:
    walk = "5" if "5" in numbers["scores"]["linear"] else "2"
    own = numbers["scores"]["linear"][walk]
    moved = paired(own, numbers["crossed"]["linear"]["cosine"][walk])
    whole = gap(numbers, "linear", "cosine", walk)
    if not whole.told_apart or whole.mean <= 0:
        return "there is no advantage to explain"
    if not moved.told_apart:
        return "not told apart from no effect"
    return f"in part: {moved.mean / whole.mean:.0%} of it at {walk} steps"


def _stops_number(numbers: Numbers) -> str:
    walk = "5" if "5" in numbers["scores"]["linear"] else "2"
    own = numbers["scores"]["linear"][walk]
    moved = paired(own, numbers["crossed"]["linear"]["cosine"][walk])
    practiced = paired(own, numbers["crossed"]["cosine"]["linear"][walk])
    return (
        f"{walk} steps, {len(numbers['seeds'])} seeds: moving only the stops to cosine's places "
        f"gains {moved}, only the training {practiced}, both "
        f"{gap(numbers, 'linear', 'cosine', walk)}"
    )


def shipped_stops(quick: bool) -> Numbers:
    """One well-trained network, that of the course, stopping where each schedule would."""
    seeds, walks, count = ((0, 1), (2, 3), 8) if quick else ((0, 1, 2), (3, 5), 300)
    device = torch.device("cpu")
    checkpoint = load_checkpoint("mnist")
    precision = hardware.pick_precision("auto", device)
    model = hardware.in_precision(checkpoint.model, device, precision)
    reference = load_digit_reference()
    real = reference.test[:5000]
    scores: Numbers = {name: {str(walk): [] for walk in walks} for name in SCHEDULES}
    for seed in seeds:
        generator = torch.Generator().manual_seed(NOISE + seed)
        x_T = torch.randn(count, *checkpoint.image_shape, generator=generator)
        for name, schedule in SCHEDULES.items():
            for walk in walks:
                stops = stops_like(checkpoint.schedule, schedule, walk)
                parts = [
                    last(ddim(model, checkpoint.schedule, x, stops)).clamp(-1, 1)
                    for x in x_T.split(100)
                ]
                found = frechet_distance(judge().features(torch.cat(parts)), real)
                scores[name][str(walk)].append(found)
    both = torch.cat([reference.train, real])
    generator = torch.Generator().manual_seed(0)
    floor = real_floor(frechet_distance, both, count, 5000, repeats=5, generator=generator)
    return {
        "checkpoint": checkpoint.card["weights"]["sha256"],
        "seeds": list(seeds),
        "images": count,
        "scores": scores,
        "floor": float(floor.mean()),
        "floor_deviation": float(floor.std()),
    }


def _shipped_verdict(numbers: Numbers) -> str:
    fewest, _ = walks_of(numbers)
    said = [better(gap(numbers, other, "cosine", fewest)) for other in OTHERS]
    if len(set(said)) == 1:
        return f"at {fewest} steps, against both: {said[0]}"
    return f"at {fewest} steps: against linear {said[0]}, against quadratic {said[1]}"


def _shipped_number(numbers: Numbers) -> str:
    fewest, _ = walks_of(numbers)
    gaps = [f"{o} - cosine {gap(numbers, o, 'cosine', fewest)}" for o in OTHERS]
    cosine = mean_and_error(numbers["scores"]["cosine"][fewest])
    return (
        f"{fewest} steps, {numbers['images']} digits, {len(numbers['seeds'])} seeds: "
        f"{', '.join(gaps)}; cosine {cosine}, floor {numbers['floor']:.2f}"
    )


def perfect(quick: bool) -> Numbers:
    """No network: the exact denoiser of a finite set of images, so that only the stops differ."""
    held, seeds, walk, count = (50, (0, 1), 2, 20) if quick else (1000, (0, 1, 2, 3, 4), 5, 200)
    images = digits().images[:held]
    scores: Numbers = {
        name: {
            str(walk): [
                score(DatasetOracle(schedule, images), schedule, evenly_spaced(T, walk), s, count)
                for s in seeds
            ]
        }
        for name, schedule in SCHEDULES.items()
    }
    generator = torch.Generator().manual_seed(NOISE)
    x_T = torch.randn(count, 1, SIZE, SIZE, generator=generator)
    schedule = SCHEDULES["linear"]
    stops = evenly_spaced(T, 10 * walk)
    drawn = last(ddim(DatasetOracle(schedule, images), schedule, x_T, stops))
    away = torch.cdist(drawn.flatten(1), images.flatten(1)).amin(1) / SIZE
    return {
        "seeds": list(seeds),
        "images": count,
        "held": held,
        "scores": scores,
        "to_nearest_median": float(away.median()),
        "to_nearest_largest": float(away.max()),
    }


def _perfect_verdict(numbers: Numbers) -> str:
    fewest, _ = walks_of(numbers)
    apart = [other for other in OTHERS if gap(numbers, other, "cosine", fewest).told_apart]
    return f"no: {' and '.join(apart)} told apart from cosine" if apart else "not told apart"


def _perfect_number(numbers: Numbers) -> str:
    fewest, _ = walks_of(numbers)
    gaps = [f"{o} - cosine {gap(numbers, o, 'cosine', fewest)}" for o in OTHERS]
    return (
        f"exact answers for {numbers['held']} images, {fewest} steps: {', '.join(gaps)}; "
        f"{numbers['images']} images, {len(numbers['seeds'])} seeds"
    )


def lower(quick: bool) -> Numbers:
    """Floors for several numbers of images, and what a machine that copies scores."""
    counts, repeats = ((20, 40), 2) if quick else ((100, 200, 400, 800, 1600), 10)
    real = real_features()
    floors = {
        str(count): real_floor(
            frechet_distance,
            real,
            count,
            8000,
            repeats=repeats,
            generator=torch.Generator().manual_seed(1),
        ).tolist()
        for count in counts
    }
    copied = []
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        pick = torch.randperm(len(real), generator=generator)[: counts[1]]
        copied.append(frechet_distance(real[pick], real))
    x = [math.log(count) for count in counts]
    y = [math.log(statistics.mean(floors[str(count)])) for count in counts]
    return {
        "counts": list(counts),
        "floors": floors,
        "copies": copied,
        "slope": statistics.linear_regression(x, y).slope,
    }


def _lower_number(numbers: Numbers) -> str:
    fewest, more, most = numbers["counts"][0], numbers["counts"][1], numbers["counts"][-1]
    means = {
        count: statistics.mean(numbers["floors"][str(count)]) for count in (fewest, more, most)
    }
    return (
        f"real images score {means[fewest]:.2f} if there are {fewest}, {means[most]:.2f} if "
        f"{most} (slope {numbers['slope']:.2f} in logarithms); {more} copied training images "
        f"{mean_and_error(numbers['copies'])}, floor {means[more]:.2f}"
    )


def _lower_verdict(numbers: Numbers) -> str:
    count = str(numbers["counts"][1])
    copied, floor = statistics.mean(numbers["copies"]), numbers["floors"][count]
    said = []
    if numbers["slope"] < -0.5:
        said.append("only for equal numbers of images")
    if copied < statistics.mean(floor) + 2 * statistics.stdev(floor):
        said.append("copies score like new ones")
    return "; ".join(said) or "yes"


CLAIMS = [
    Claim(
        "cosine_few_steps",
        "Cosine gives better samples at few steps than linear",
        small_networks,
        verdict_against("linear"),
        number_against("linear"),
    ),
    Claim(
        "cosine_quadratic",
        "Cosine gives better samples at few steps than quadratic",
        small_networks,
        verdict_against("quadratic"),
        number_against("quadratic"),
    ),
    Claim(
        "cosine_eps_clipped",
        "Cosine is better at few steps, also if trained on eps and clipped",
        clipped_eps,
        verdict_against("linear"),
        number_against("linear"),
    ),
    Claim(
        "cosine_stops",
        "Cosine is better since it spends its few steps in better places",
        small_networks,
        _stops_verdict,
        _stops_number,
    ),
    Claim(
        "shipped_stops",
        "A well-trained network draws best where cosine would stop",
        shipped_stops,
        _shipped_verdict,
        _shipped_number,
    ),
    Claim(
        "perfect_stops",
        "With a perfect denoiser the schedules would be equally good",
        perfect,
        _perfect_verdict,
        _perfect_number,
    ),
    Claim(
        "lower_frechet",
        "A lower Fréchet distance is a better model",
        lower,
        _lower_verdict,
        _lower_number,
    ),
]
