"""What guidance gains and costs on digits, over several seeds: the ranges in lesson 8.

    python benchmarks/guidance.py
    python benchmarks/guidance.py --seeds 0 1 2 3 4 --columns 50     # on a GPU

As in the lesson: ``columns`` digits of each class by DDIM in 20 steps, the same noise for each
scale, nothing clipped. ``accuracy`` is the share that the course's judge reads as the class asked
for, ``spread`` the mean distance of two samples of one class in its features, ``frechet`` the
Fréchet distance to 5000 real test images, ``contrast`` the standard deviation of the pixels.
"""

from typing import Any

import report
import torch
from torch import Tensor

from tutorial_lib import hardware
from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.guidance import guide, labeled
from tutorial_lib.metrics import frechet_distance
from tutorial_lib.metrics.digit_features import load_digit_classifier, load_digit_reference
from tutorial_lib.samplers import ddim, evenly_spaced, last

SCALES = (1.0, 1.5, 2.0, 3.0, 7.5, 12.0)
STEPS = 20


def spread_within(features: Tensor, labels: Tensor) -> float:
    """Mean distance of two samples of one class, averaged over the classes."""
    classes = [features[labels == label] for label in labels.unique()]
    return float(torch.stack([torch.nn.functional.pdist(own).mean() for own in classes]).mean())


def main() -> None:
    parser = report.parser(__doc__, __file__, seeds=(0, 1, 2))
    parser.add_argument("--columns", type=int, default=10, help="digits of each class")
    options = parser.parse_args()
    scales, num_steps = SCALES, STEPS
    if options.quick:
        options.columns, options.seed = 2, options.seed[:1]
        scales, num_steps = SCALES[:2], 2
    hardware.keep_freed_memory()
    device = hardware.pick_device()
    checkpoint = load_checkpoint("mnist", device=device)
    schedule, num_classes = checkpoint.schedule, len(checkpoint.class_names)
    model = labeled(checkpoint.network, schedule, checkpoint.card["target"])
    judge, real = load_digit_classifier(), load_digit_reference()
    asked = torch.arange(num_classes).repeat_interleave(options.columns)
    steps = evenly_spaced(schedule.num_steps, num_steps)
    rows: list[dict[str, Any]] = []
    for scale in scales:
        row: dict[str, Any] = {"scale": scale}
        row |= {"accuracy": [], "spread": [], "frechet": [], "contrast": []}
        denoiser = guide(model, asked.to(device), scale, num_classes)
        for seed in options.seed:
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
    result = report.about(options, __file__) | {
        "columns": options.columns,
        "steps": num_steps,
        "checkpoint": checkpoint.card["weights"]["sha256"],
        "rows": rows,
    }
    result["precision"] = "fp32"  # as in the lesson
    report.write(options, result)
    print(report.table([shown(row) for row in rows]))


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the table: the range of each measure over the seeds."""
    ranges = {
        key: f"{min(values):.3f} to {max(values):.3f}"
        for key, values in row.items()
        if key != "scale"
    }
    return {"scale": row["scale"], **ranges}


if __name__ == "__main__":
    main()
