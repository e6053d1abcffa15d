"""What guidance buys and costs on digits, over several seeds: the ranges in lesson 8.

    python benchmarks/guidance.py
    python benchmarks/guidance.py --seeds 0 1 2 3 4 --columns 50     # on a GPU

As in the lesson: ``columns`` digits of each class by DDIM in 20 steps, the same noise for each
scale, nothing clipped. ``accuracy`` is the share that the course's judge reads as ordered,
``spread`` the mean distance of two samples of one class in its features, ``frechet`` the Fréchet
distance to 5000 real test images, ``contrast`` the standard deviation of the pixels.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

import torch
from torch import Tensor

from tutorial_lib import hardware
from tutorial_lib.checkpoints import load_checkpoint, versions
from tutorial_lib.guidance import guide, labelled
from tutorial_lib.metrics import frechet_distance
from tutorial_lib.metrics.digit_features import load_digit_classifier, load_digit_reference
from tutorial_lib.samplers import ddim, evenly_spaced, last

RESULT = Path(__file__).parent / "results" / "guidance.json"
SCALES = (1.0, 1.5, 2.0, 3.0, 7.5, 12.0)
STEPS = 20


def spread_within(features: Tensor, labels: Tensor) -> float:
    """Mean distance of two samples of one class, averaged over the classes."""
    classes = [features[labels == label] for label in labels.unique()]
    return float(torch.stack([torch.nn.functional.pdist(own).mean() for own in classes]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description="Guidance by scale, on digits.")
    parser.add_argument("--columns", type=int, default=10, help="digits of each class (default 10)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    device = hardware.pick_device()
    checkpoint = load_checkpoint("mnist", device=device)
    schedule, num_classes = checkpoint.schedule, len(checkpoint.class_names)
    model = labelled(checkpoint.network, schedule, checkpoint.card["target"])
    judge, real = load_digit_classifier(), load_digit_reference()
    asked = torch.arange(num_classes).repeat_interleave(options.columns)
    steps = evenly_spaced(schedule.num_steps, STEPS)
    rows = []
    for scale in SCALES:
        row: dict = {"scale": scale, "accuracy": [], "spread": [], "frechet": [], "contrast": []}
        denoiser = guide(model, asked.to(device), scale, num_classes)
        for seed in options.seeds:
            generator = torch.Generator().manual_seed(seed)
            noise = torch.randn(len(asked), *checkpoint.image_shape, generator=generator)
            digits = last(ddim(denoiser, schedule, noise.to(device), steps)).cpu()
            features = judge.features(digits)
            read = judge.probabilities(digits).argmax(1)
            row["accuracy"].append(round(float((read == asked).float().mean()), 4))
            row["spread"].append(round(spread_within(features, asked), 3))
            row["frechet"].append(round(frechet_distance(features, real.test), 3))
            row["contrast"].append(round(float(digits.std()), 4))
        rows.append(row)
        figures = (f"{key} {min(row[key]):.3f} to {max(row[key]):.3f}" for key in list(row)[1:])
        print(f"s = {scale:4.1f}: " + ", ".join(figures), flush=True)
    result = {
        "columns": options.columns,
        "seeds": options.seeds,
        "steps": STEPS,
        "command": shlex.join(["python", *sys.argv]),
        "device": hardware.describe_device(device),
        "versions": versions(),
        "checkpoint": checkpoint.card["weights"]["sha256"],
        "rows": rows,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
