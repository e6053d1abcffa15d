"""How good are the digits, and how long do they take: DDPM and DDIM by number of steps.

    python benchmarks/ddpm_vs_ddim.py
    python benchmarks/ddpm_vs_ddim.py --count 1000 --seeds 0 1 2 3 4     # on a GPU

The course's MNIST checkpoint draws ``count`` digits for each seed; their features are measured
against those of 5000 real test images. The floor is what as many real training images score against
the same 5000. Every sampler starts from the same noise. Results so far are kept after each row.
"""

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from tutorial_lib import hardware, samplers
from tutorial_lib._typing import EpsModel
from tutorial_lib.checkpoints import Checkpoint, load_checkpoint, versions
from tutorial_lib.metrics import frechet_distance, kernel_distance, real_floor
from tutorial_lib.metrics.digit_features import load_digit_classifier, load_digit_reference
from tutorial_lib.predictions import clip_x0
from tutorial_lib.schedules import NoiseSchedule

RESULTS = Path(__file__).parent / "results"
BATCH = 64
ROWS = (
    ("DDIM", 10),
    ("DDIM", 20),
    ("DDIM", 50),
    ("DDPM, posterior", 20),
    ("DDPM, beta", 20),
    ("DDPM, posterior", 50),
    ("DDPM, beta", 50),
    ("DDPM, posterior", 1000),
)


def walk(
    name: str,
    steps: int,
    model: EpsModel,
    schedule: NoiseSchedule,
    x_T: Tensor,
    generator: torch.Generator,
) -> Iterator[samplers.SampleStep]:
    """The sampler ``name`` over so many steps."""
    timesteps = samplers.evenly_spaced(schedule.num_steps, steps)
    if name == "DDIM":
        return samplers.ddim(model, schedule, x_T, timesteps)
    variance = name.removeprefix("DDPM, ")
    if steps < schedule.num_steps:
        model, schedule = samplers.respace(model, schedule, timesteps)
    return samplers.ddpm(model, schedule, x_T, variance=variance, generator=generator)


def draw(name: str, steps: int, checkpoint: Checkpoint, count: int, seed: int) -> Tensor:
    """``count`` digits, on the CPU; the noise depends on the seed alone."""
    schedule, device = checkpoint.schedule, checkpoint.schedule.alpha_bar.device
    precision = hardware.pick_precision("auto", device)
    model = clip_x0(hardware.in_precision(checkpoint.model, device, precision), schedule)
    x_T = torch.randn(count, *checkpoint.image_shape, generator=torch.Generator().manual_seed(seed))
    generator = torch.Generator(device).manual_seed(1000 + seed)
    parts = x_T.to(device).split(BATCH if device.type == "cpu" else count)
    return torch.cat(
        [samplers.last(walk(name, steps, model, schedule, x, generator)).cpu() for x in parts]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="DDPM against DDIM, on digits.")
    parser.add_argument("--count", type=int, default=128, help="digits a seed (default 128)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    device = hardware.pick_device()
    checkpoint = load_checkpoint("mnist", device=device)
    judge, real = load_digit_classifier(), load_digit_reference()
    both = torch.cat([real.train, real.test])
    result: dict = {
        "count": options.count,
        "seeds": options.seeds,
        "command": shlex.join(["python", *sys.argv]),
        "device": hardware.describe_device(device),
        "precision": hardware.pick_precision("auto", device).name,
        "versions": versions(),
        "checkpoint": checkpoint.card["weights"]["sha256"],
        "rows": [],
    }
    for name, distance in (("frechet", frechet_distance), ("kernel", kernel_distance)):
        generator = torch.Generator().manual_seed(0)
        floor = real_floor(distance, both, options.count, 5000, repeats=5, generator=generator)
        result[f"floor_{name}"] = [round(value, 4) for value in floor.tolist()]
        print(f"floor, {name}: {floor.mean():.3f} ± {floor.std():.3f}", flush=True)
    for name, steps in ROWS:
        row: dict = {"sampler": name, "steps": steps, "frechet": [], "kernel": [], "seconds": []}
        for seed in options.seeds:
            start = time.perf_counter()
            features = judge.features(draw(name, steps, checkpoint, options.count, seed))
            row["seconds"].append(round(time.perf_counter() - start, 2))
            row["frechet"].append(round(frechet_distance(features, real.test), 4))
            row["kernel"].append(round(kernel_distance(features, real.test), 5))
        result["rows"].append(row)
        values = " ".join(f"{value:.2f}" for value in row["frechet"])
        kernel = statistics.mean(row["kernel"])
        print(f"{name:16s} {steps:5d} steps: {values}, kernel {kernel:.4f}", flush=True)
        RESULTS.mkdir(exist_ok=True)
        text = json.dumps(result, indent=2) + "\n"
        (RESULTS / "ddpm_vs_ddim.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
