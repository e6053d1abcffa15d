"""How good are the digits, and how long do they take: DDPM and DDIM by number of steps.

    python benchmarks/ddpm_vs_ddim.py
    python benchmarks/ddpm_vs_ddim.py --count 1000 --seeds 0 1 2 3 4     # on a GPU

The course's MNIST checkpoint draws ``count`` digits for each seed; their features are measured
against those of 5000 real test images. The floor is what as many real training images score against
the same 5000. Every sampler starts from the same noise. Results so far are written after each row.
"""

import statistics
import time
from collections.abc import Iterator
from typing import Any

import report
import torch
from torch import Tensor

from tutorial_lib import hardware, samplers
from tutorial_lib._typing import EpsModel
from tutorial_lib.checkpoints import Checkpoint, load_checkpoint
from tutorial_lib.metrics import frechet_distance, kernel_distance, real_floor
from tutorial_lib.metrics.digit_features import load_digit_classifier, load_digit_reference
from tutorial_lib.predictions import clip_x0
from tutorial_lib.schedules import NoiseSchedule

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
    """A walk of the sampler ``name`` in ``steps`` steps."""
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
    parser = report.parser(__doc__, __file__, seeds=(0, 1, 2))
    parser.add_argument("--count", type=int, default=128, help="digits a seed")
    options = parser.parse_args()
    rows_asked, reference, repeats = ROWS, 5000, 5
    if options.quick:
        options.count, options.seed = 20, options.seed[:1]
        rows_asked, reference, repeats = (("DDIM", 2), ("DDPM, posterior", 2)), 100, 2
    hardware.keep_freed_memory()
    checkpoint = load_checkpoint("mnist", device=hardware.pick_device())
    judge, real = load_digit_classifier(), load_digit_reference()
    real_features = real.test[:reference]
    both = torch.cat([real.train, real_features])
    result = report.about(options, __file__) | {
        "count": options.count,
        "checkpoint": checkpoint.card["weights"]["sha256"],
    }
    for name, distance in (("frechet", frechet_distance), ("kernel", kernel_distance)):
        generator = torch.Generator().manual_seed(0)
        floor = real_floor(
            distance, both, options.count, reference, repeats=repeats, generator=generator
        )
        result[f"floor_{name}"] = [round(value, 4) for value in floor.tolist()]
        print(f"floor, {name}: {floor.mean():.3f} ± {floor.std():.3f}", flush=True)
    rows: list[dict[str, Any]] = []
    for name, steps in rows_asked:
        row: dict[str, Any] = {"sampler": name, "steps": steps}
        row |= {"frechet": [], "kernel": [], "seconds": []}
        for seed in options.seed:
            start = time.perf_counter()
            features = judge.features(draw(name, steps, checkpoint, options.count, seed))
            row["seconds"].append(round(time.perf_counter() - start, 2))
            row["frechet"].append(round(frechet_distance(features, real_features), 4))
            row["kernel"].append(round(kernel_distance(features, real_features), 5))
        rows.append(row)
        report.write(options, {**result, "rows": rows})
    print(report.table([shown(row) for row in rows]))


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the table: the distances of all seeds, and means."""
    return {
        "sampler": row["sampler"],
        "steps": row["steps"],
        "Fréchet, by seed": " ".join(f"{value:.2f}" for value in row["frechet"]),
        "kernel": statistics.mean(row["kernel"]),
        "seconds": statistics.mean(row["seconds"]),
    }


if __name__ == "__main__":
    main()
