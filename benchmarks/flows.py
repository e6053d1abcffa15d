"""Flow matching on digits: beside eps and v, in another weight, and with other times drawn.

    python benchmarks/flows.py

For each recipe and seed a network learns the drawn digits of lesson 7, all with the same network,
batches, number of steps and first weights, and draws by DDIM with 5 and with 20 steps (x0_hat
clipped) from the same noise. The number is the Fréchet distance of lesson 7, lower is better, and
beside it stands what real images score. Differences are paired, seed by seed.

What reflow gains, and which times are best on points, is measured by ``claims.py lesson10``.
The results are written after each seed.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import report
import torch
from measured import lesson07
from measured.claim import mean_and_error, paired

from tutorial_lib.metrics import frechet_distance, real_floor
from tutorial_lib.predictions import clip_x0
from tutorial_lib.samplers import evenly_spaced
from tutorial_lib.training import Run, TrainConfig, train

STEPS = (5, 20)
RECIPES: dict[str, dict[str, Any]] = {
    "eps": {"target": "eps", "weight": "none"},
    "v, min-SNR": {"target": "v", "weight": "min_snr"},
    "velocity, min-SNR": {"target": "velocity", "weight": "min_snr"},
    "flow": {"target": "velocity", "weight": "velocity", "step_sampler": "uniform_time"},
    "flow, logit-normal": {
        "target": "velocity",
        "weight": "velocity",
        "step_sampler": "logit_normal",
    },
}
"""What differs between the runs, of ``TrainConfig``; *flow* is plain flow matching."""
PAIRED = [
    ("flow", "eps"),
    ("flow", "v, min-SNR"),
    ("velocity, min-SNR", "v, min-SNR"),
    ("flow, logit-normal", "flow"),
]


def trained(recipe: str, seed: int, options: Any) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            dataset="glyphs",
            size=lesson07.SIZE,
            steps=options.steps,
            seed=seed,
            progress=False,
            out=Path(folder) / "run",
            **RECIPES[recipe],
        )
        return train(config, data=lesson07.digits())


def digits(recipe: str, seed: int, options: Any) -> dict[str, float]:
    """The Fréchet distance of a trained network's digits, by steps of DDIM, and its seconds."""
    began = time.process_time()
    run = trained(recipe, seed, options)
    found = {"cpu seconds": time.process_time() - began}
    model = clip_x0(run.model, run.schedule)
    for steps in STEPS:
        stops = evenly_spaced(run.schedule.num_steps, steps)
        found[str(steps)] = lesson07.score(model, run.schedule, stops, seed, options.count)
    return found


def floor(count: int) -> list[float]:
    """What ``count`` real images score against all others: mean and standard deviation."""
    real, generator = lesson07.real_features(), torch.Generator().manual_seed(0)
    others = len(real) - count
    values = real_floor(frechet_distance, real, count, others, repeats=5, generator=generator)
    return [round(float(values.mean()), 5), round(float(values.std()), 5)]


def differences(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each pair of recipes at each number of steps: first less second, over the seeds."""
    by_name = {row["contender"]: row for row in rows}
    found = []
    for first, second in PAIRED:
        if first in by_name and second in by_name:
            for steps in map(str, STEPS):
                gap = paired(by_name[first][steps], by_name[second][steps])
                names = {"first": first, "second": second, "steps of DDIM": int(steps)}
                found.append({**names, "difference": str(gap), "verdict": gap.words})
    return found


def shown(values: list[float]) -> str:
    return mean_and_error(values) if len(values) > 1 else f"{values[0]:.3g}"


def tables(result: dict[str, Any]) -> str:
    lines = []
    for row in result["rows"]:
        scores = {f"DDIM {steps}": shown(row[str(steps)]) for steps in STEPS}
        seconds = statistics.mean(row["cpu seconds"])
        lines.append({"recipe": row["contender"], **scores, "CPU seconds": seconds})
    floor = "{:.2f} ± {:.2f}".format(*result["floor"])
    lines.append(
        {"recipe": "real images", **{f"DDIM {n}": floor for n in STEPS}, "CPU seconds": ""}
    )
    return "\n\n".join(report.table(part) for part in (lines, result["differences"]) if part)


def main() -> None:
    parser = report.parser(__doc__, __file__, seeds=range(4))
    parser.add_argument("--steps", type=int, default=400, help="training steps of each network")
    parser.add_argument("--count", type=int, default=500, help="digits drawn for each measure")
    options = parser.parse_args()
    if options.quick:
        options.seed, options.steps, options.count = options.seed[:2], 2, 70
    result: dict[str, Any] = {
        **report.about(options, __file__, device="cpu"),
        "steps": options.steps,
        "count": options.count,
        "floor": floor(options.count),
        "rows": [],
        "differences": [],
    }
    scores: dict[str, dict[str, list[float]]] = {name: {} for name in RECIPES}
    for done, seed in enumerate(options.seed, 1):
        for name in RECIPES:
            for key, value in digits(name, seed, options).items():
                scores[name].setdefault(key, []).append(round(value, 5))
        result["rows"] = [
            {"contender": name, "seeds": options.seed[:done], **scores[name]} for name in RECIPES
        ]
        if done > 1:
            result["differences"] = differences(result["rows"])
        report.write(options, result)
    print(tables(result))


if __name__ == "__main__":
    main()
