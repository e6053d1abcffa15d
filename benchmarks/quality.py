"""How good are the digits: DDPM and DDIM at 10 to 1000 steps, each beside its floor.

    python benchmarks/quality.py

The checkpoint draws ``count`` digits for each row; image i starts from the same noise in every row.
Their features (``metrics.digit_features``) are compared with those of 5,000 real test images:
Fréchet distance, kernel distance, precision and recall, each with its standard error. The floor is
what as many real training images score against the same 5,000. DDPM uses the posterior variance;
below 1000 steps its schedule is respaced. A network with classes draws them in turn.

The results are written after each row, and a row that is already there, with the same count, seed,
checkpoint, device and versions, is not drawn again. A checkpoint other than the one that ships,
such as ``--checkpoint runs/long``, has a results file of its own: ``quality-long.json``.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import report
import torch
from torch import Tensor

from tutorial_lib import hardware
from tutorial_lib.checkpoints import Checkpoint, load_checkpoint
from tutorial_lib.metrics import (
    bootstrap_error,
    frechet_distance,
    kernel_distance,
    precision_recall,
    real_floor,
)
from tutorial_lib.metrics.digit_features import load_digit_classifier, load_digit_reference
from tutorial_lib.sampling import Recipe, draw

USUAL = "mnist"
"""The checkpoint that comes with the course."""
Measures = Mapping[str, Callable[[Tensor, Tensor], float]]
MEASURES: Measures = {
    "Fréchet": frechet_distance,
    "kernel": kernel_distance,
    "precision": lambda a, b: precision_recall(a, b).precision,
    "recall": lambda a, b: precision_recall(a, b).recall,
}


def features_of(checkpoint: Checkpoint, recipe: Recipe, count: int) -> Tensor:
    """Features (count, 64) of the images 0..count-1; the images are not kept."""
    judge = load_digit_classifier()
    parts = torch.arange(count).split(recipe.batch)
    return torch.cat([judge.features(draw(checkpoint, recipe, part.tolist())) for part in parts])


def measured(
    samples: Tensor, real: Tensor, repeats: int, seed: int, measures: Measures = MEASURES
) -> dict[str, list[float]]:
    """Each measure's value and its standard error."""
    found = {}
    for name, measure in measures.items():
        generator = torch.Generator().manual_seed(seed)
        error = bootstrap_error(measure, samples, real, repeats=repeats, generator=generator)
        found[name] = [round(measure(samples, real), 5), round(error, 5)]
    return found


def floors(
    count: int, reference: int, repeats: int, seed: int, measures: Measures = MEASURES
) -> dict[str, list[float]]:
    """The mean and standard deviation of each measure for real images; the same for all rows."""
    real, found = load_digit_reference(), {}
    both = torch.cat([real.test[:reference], real.train])
    for name, measure in measures.items():
        generator = torch.Generator().manual_seed(seed)
        values = real_floor(measure, both, count, reference, repeats=repeats, generator=generator)
        found[name] = [round(float(values.mean()), 5), round(float(values.std()), 5)]
    return found


def shown(rows: list[dict[str, Any]], floor: dict[str, list[float]]) -> str:
    """The rows as a table, value ± error, with the floor as the last row."""
    lines = []
    for row in rows:
        time = {"ms an image": 1000 * row["seconds"] / row["count"]}
        lines.append(
            {"sampler": row["sampler"], "steps": row["steps"], **_texts(row["scores"]), **time}
        )
    lines.append({"sampler": "real images", "steps": "", **_texts(floor), "ms an image": ""})
    return report.table(lines)


def _texts(scores: dict[str, list[float]]) -> dict[str, str]:
    return {name: f"{value:.3g} ± {error:.1g}" for name, (value, error) in scores.items()}


def rows_there(path: Path | None, same: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of an earlier run if it measured the same; otherwise none, and prints why."""
    if path is None or not path.exists():
        return []
    before = json.loads(path.read_text(encoding="utf-8"))
    other = [key for key, value in same.items() if before.get(key) != value]
    if other:
        print(f"{path} is started afresh: its rows have another {', '.join(other)}", flush=True)
    return [] if other else before["rows"]


def conditions(result: dict[str, Any], checkpoint: Checkpoint, options: Any) -> dict[str, Any]:
    """What must be the same for the rows of an earlier run to be kept (``rows_there``)."""
    asked = ("count", "seed", "batch", "repeats", "reference")
    return {
        **{key: result[key] for key in ("device", "precision", "versions")},
        "checkpoint": checkpoint.card["weights"]["sha256"],
        **{name: getattr(options, name) for name in asked},
    }


def file_words(checkpoint: str) -> list[str]:
    """What the name of the results file says about the checkpoint: nothing for the usual one."""
    return [] if checkpoint == USUAL else [Path(checkpoint).name.removesuffix(".safetensors")]


def main() -> None:
    parser = report.parser(__doc__, __file__)
    parser.add_argument("--checkpoint", default=USUAL, help="of digits, a file or a folder")
    parser.add_argument("--count", type=int, default=1000, help="digits per row, at most 5000")
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 20, 50, 1000])
    parser.add_argument("--batch", type=int, default=100, help="images at once")
    parser.add_argument("--repeats", type=int, default=20, help="of each error and each floor")
    parser.add_argument("--reference", type=int, default=5000, help="real images, at most 5000")
    options = parser.parse_args()
    if options.quick:
        options.count, options.steps, options.batch, options.repeats = 20, [2], 20, 2
        options.reference = 100
    device = hardware.pick_device()
    checkpoint = load_checkpoint(options.checkpoint, device=device)
    result = report.about(options, __file__)
    same = conditions(result, checkpoint, options)
    result |= {"checkpoint_asked_for": options.checkpoint, **same}
    words = file_words(options.checkpoint)
    real = load_digit_reference().test[: options.reference]
    floor = floors(options.count, options.reference, options.repeats, options.seed)
    rows = rows_there(report.place(options, result, *words), same)
    done = {(row["sampler"], row["steps"]) for row in rows}
    walks = [(name, steps) for steps in options.steps for name in ("ddim", "ddpm")]
    for sampler, steps in walks:
        if (sampler.upper(), steps) in done:
            continue
        recipe = Recipe(sampler=sampler, steps=steps, seed=options.seed, batch=options.batch)
        start = time.perf_counter()
        features = features_of(checkpoint, recipe, options.count)
        seconds = round(time.perf_counter() - start, 2)
        row = {"sampler": sampler.upper(), "steps": steps, "count": options.count}
        row |= {"command": result["command"]}
        scores = measured(features, real, options.repeats, options.seed)
        rows.append({**row, "seconds": seconds, "scores": scores})
        rows.sort(key=lambda row: (row["steps"], row["sampler"]))
        report.write(options, {**result, "floors": floor, "rows": rows}, *words)
        print(shown(rows, floor), flush=True)
    if done.issuperset((name.upper(), steps) for name, steps in walks):
        print(shown(rows, floor))


if __name__ == "__main__":
    main()
