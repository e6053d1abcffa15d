"""Lesson 1: how pure x_T is, and what must change with the number of steps."""

import statistics

import torch

from measured.claim import Claim, Numbers, mean_and_error
from tutorial_lib.schedules import NoiseSchedule, linear_schedule

PICTURES = {32: 1000, 256: 40}
"""Side of a picture, and how many pictures of this size are guessed under each seed."""


def guessed_right(
    schedule: NoiseSchedule, side: int, count: int, generator: torch.Generator
) -> float:
    """How often the sign of x_T's mean tells a white picture from a black one (3 channels)."""
    signal, noise = float(schedule.signal_rate[-1]), float(schedule.noise_rate[-1])
    right = 0
    for i in range(count):
        brightness = 1 if i % 2 else -1
        x_t = signal * brightness + noise * torch.randn(3, side, side, generator=generator)
        right += bool(x_t.mean() * brightness > 0)
    return right / count


def pure_noise(quick: bool) -> Numbers:
    """The signal rate of the linear schedule at T, and whether somebody notices it."""
    schedule = linear_schedule(1000)
    seeds = [0, 1] if quick else [0, 1, 2, 3, 4]
    sizes = {8: 4, 16: 4} if quick else PICTURES
    shares: dict[str, list[float]] = {str(side): [] for side in sizes}
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        for side, count in sizes.items():
            shares[str(side)].append(guessed_right(schedule, side, count, generator))
    return {
        "signal_rate": float(schedule.signal_rate[-1]),
        "seeds": seeds,
        "counts": {str(side): count for side, count in sizes.items()},
        "shares": shares,
    }


def _pure_verdict(numbers: Numbers) -> str:
    largest = max(numbers["shares"], key=int)
    seen = statistics.mean(numbers["shares"][largest]) > 0.9
    return "nearly; in large pictures the rest shows" if seen else "nearly"


def _pure_number(numbers: Numbers) -> str:
    (small, shares), (large, seen) = numbers["shares"].items()
    count = numbers["counts"][large]
    right, drawn = round(sum(seen) * count), len(seen) * count
    return (
        f"{100 * numbers['signal_rate']:.2f} % of x₀ is left; its mean tells white from black in "
        f"{mean_and_error([100 * share for share in shares])} % of {small}² pictures, "
        f"{right} of {drawn} of {large}² ({len(seen)} seeds)"
    )


def fewer_steps(quick: bool) -> Numbers:
    """The signal rate at the end if only T changes, and if the betas are scaled with it."""
    whole = float(linear_schedule(1000).signal_rate[-1])
    same = float(linear_schedule(512).signal_rate[-1])
    scaled = {}
    for count in (250, 50):
        short = linear_schedule(count, 0.1 / count, 20 / count)
        scaled[str(count)] = float(short.signal_rate[-1])
    return {"whole": whole, "same": same, "scaled": scaled}


def _fewer_verdict(numbers: Numbers) -> str:
    return "no: the betas must grow" if numbers["same"] > 2 * numbers["whole"] else "yes"


def _fewer_number(numbers: Numbers) -> str:
    scaled = ", ".join(f"{rate:.4f} in {count}" for count, rate in numbers["scaled"].items())
    return (
        f"signal rate at T: {numbers['whole']:.4f} in 1000 steps, {numbers['same']:.3f} in 512 "
        f"with the same betas; betas times 1000/T: {scaled}"
    )


CLAIMS = [
    Claim("pure_noise", "x_T is pure noise", pure_noise, _pure_verdict, _pure_number),
    Claim(
        "fewer_steps",
        "For fewer steps, just change T",
        fewer_steps,
        _fewer_verdict,
        _fewer_number,
    ),
]
