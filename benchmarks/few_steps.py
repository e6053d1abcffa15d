"""How few evaluations are enough: Fréchet distance of digits by each sampler and spacing of steps.

    python benchmarks/few_steps.py

The checkpoint that ships draws ``count`` digits for each row, its ten classes in turn (without
guidance, x0_hat clipped); image i starts from the same noise in every row. Their features are
compared with those of 5,000 real test images. The number that counts is that of *evaluations* of
the network: Heun's method asks twice a step, but for the last, so n evaluations allow (n + 1) / 2
steps.

Under ``goal`` stands, seed by seed, whether 10 evaluations are as good as DDIM with 50. The results
are written after each row, and a row that is there already, with the same count, seed, checkpoint,
device and versions, is not drawn again.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import quality
import report
from measured.claim import paired

from tutorial_lib import hardware
from tutorial_lib.checkpoints import Checkpoint, load_checkpoint
from tutorial_lib.metrics import frechet_distance
from tutorial_lib.metrics.digit_features import load_digit_reference
from tutorial_lib.sampling import Recipe

CONTENDERS = {
    "DDIM": ("ddim", "even"),
    "Euler, Karras": ("euler", "karras"),
    "Euler, EDM": ("euler", "edm"),
    "Heun": ("heun", "even"),
    "Heun, EDM": ("heun", "edm"),
    "DPM-Solver++": ("dpm_solver", "even"),
    "DPM-Solver++, Karras": ("dpm_solver", "karras"),
    "DPM-Solver++, EDM": ("dpm_solver", "edm"),
    "DDPM": ("ddpm", "even"),
    "Euler ancestral, EDM": ("euler_ancestral", "edm"),
}
"""Sampler and spacing of each row. Euler with even steps is DDIM, Euler ancestral with even ones
DDPM. EDM is Karras' spacing that begins at sigma = 80."""
MEASURES = {"Fréchet": frechet_distance}
EVALUATIONS = (5, 8, 10, 15, 20, 50)
GOAL = ("DDIM", 50)
AT = 10
RIVALS = ("DPM-Solver++, EDM", "DPM-Solver++", "DDPM", "DDIM")
"""Who is compared with the goal, at AT evaluations."""


def steps_for(sampler: str, evaluations: int) -> int:
    """The most steps that ``evaluations`` of the network allow."""
    return (evaluations + 1) // 2 if sampler == "heun" else evaluations


def asked(sampler: str, steps: int) -> int:
    """How often a walk of so many steps asks the network."""
    return 2 * steps - 1 if sampler == "heun" else steps


def recipe_of(name: str, evaluations: int, seed: int, batch: int) -> Recipe:
    sampler, spacing = CONTENDERS[name]
    steps = steps_for(sampler, evaluations)
    return Recipe(sampler=sampler, spacing=spacing, steps=steps, seed=seed, batch=batch)


def distance(
    checkpoint: Checkpoint, name: str, evaluations: int, options: Any, seed: int
) -> list[float]:
    """The Fréchet distance of ``count`` digits, and its standard error (bootstrap)."""
    real = load_digit_reference().test[: options.reference]
    recipe = recipe_of(name, evaluations, seed, options.batch)
    samples = quality.features_of(checkpoint, recipe, options.count)
    return quality.measured(samples, real, options.repeats, seed, MEASURES)["Fréchet"]


def kept(
    path: Path | None, checkpoint: Checkpoint, options: Any
) -> dict[tuple[str, int, int], float]:
    """Distances that an earlier run wrote to ``path``, by contender, evaluations and seed.

    None at all if that run had another checkpoint, other versions of the libraries or other counts.
    """
    if path is None or not path.exists():
        return {}
    before = json.loads(path.read_text(encoding="utf-8"))
    same = {
        "checkpoint": checkpoint.card["weights"]["sha256"],
        "versions": report.about(options, __file__)["versions"],
        "count": options.count,
        "batch": options.batch,
        "reference": options.reference,
    }
    if any(before.get(key) != value for key, value in same.items()):
        return {}
    found = {}
    for row in before["rows"]:
        found[row["sampler"], row["evaluations"], before["seed"]] = row["Fréchet"][0]
    for name, values in before.get("goal", {}).get("Fréchet", {}).items():
        contender, _, evaluations = name.rpartition(" ")
        for seed, value in enumerate(values, before["seed"]):
            found[contender, int(evaluations), seed] = value
    return found


def shown(rows: list[dict[str, Any]], floor: list[float]) -> str:
    """The rows as a table: a line a sampler, a column a number of evaluations."""
    counts = sorted({row["evaluations"] for row in rows})
    lines = []
    for name in dict.fromkeys(row["sampler"] for row in rows):
        own = {row["evaluations"]: row["Fréchet"] for row in rows if row["sampler"] == name}
        texts = {str(n): f"{own[n][0]:.3g} ± {own[n][1]:.1g}" if n in own else "" for n in counts}
        lines.append({"sampler": name, **texts})
    real = f"{floor[0]:.3g} ± {floor[1]:.1g}"
    lines.append({"sampler": "real images", **dict.fromkeys(map(str, counts), real)})
    return report.table(lines)


def goal_of(found: dict[str, list[float]]) -> dict[str, Any]:
    """Each rival less the goal, paired by seed: mean, standard error, and a verdict."""
    first = f"{GOAL[0]} {GOAL[1]}"
    against = {}
    for name, values in found.items():
        if name != first:
            gap = paired(values, found[first])
            against[name] = {
                "minus the goal": [round(gap.mean, 5), round(gap.error, 5)],
                "verdict": gap.words,
            }
    return {"Fréchet": found, "against": against}


def main() -> None:
    parser = report.parser(__doc__, __file__)
    parser.add_argument("--count", type=int, default=1000, help="digits per row, at most 5000")
    parser.add_argument("--evaluations", type=int, nargs="+", default=list(EVALUATIONS))
    parser.add_argument("--batch", type=int, default=100, help="images at once")
    parser.add_argument("--repeats", type=int, default=20, help="of each error and each floor")
    parser.add_argument("--reference", type=int, default=5000, help="real images, at most 5000")
    parser.add_argument("--goal-seeds", type=int, default=5, help="seeds for the goal, from 0 on")
    options = parser.parse_args()
    at, many = AT, GOAL[1]
    if options.quick:
        options.count, options.evaluations, options.batch, options.repeats = 20, [3], 20, 2
        options.reference, options.goal_seeds, at, many = 100, 2, 2, 3
    device = hardware.pick_device()
    hardware.keep_freed_memory()
    checkpoint = load_checkpoint(quality.USUAL, device=device)
    result = report.about(options, __file__)
    same = quality.conditions(result, checkpoint, options)
    result |= {**same, "labels": "the ten classes in turn", "guidance": 1, "x0_hat": "clipped"}
    of_real = (options.count, options.reference, options.repeats, options.seed)
    floor = quality.floors(*of_real, MEASURES)["Fréchet"]
    rows = quality.rows_there(report.place(options, result), same)
    done = {(row["sampler"], row["evaluations"]) for row in rows}
    order = list(CONTENDERS)
    for evaluations in options.evaluations:
        for name in CONTENDERS:
            if (name, evaluations) in done:
                continue
            sampler, spacing = CONTENDERS[name]
            steps = steps_for(sampler, evaluations)
            start = time.perf_counter()
            value, error = distance(checkpoint, name, evaluations, options, options.seed)
            rows.append(
                {
                    "sampler": name,
                    "evaluations": evaluations,
                    "asked": asked(sampler, steps),
                    "steps": steps,
                    "spacing": spacing,
                    "Fréchet": [value, error],
                    "seconds": round(time.perf_counter() - start, 2),
                }
            )
            rows.sort(key=lambda row: (order.index(row["sampler"]), row["evaluations"]))
            report.write(options, {**result, "floor": floor, "rows": rows})
            print(f"{name}, {evaluations}: {value} ± {error}", file=sys.stderr, flush=True)
    known = {(row["sampler"], row["evaluations"]): row["Fréchet"][0] for row in rows}
    found: dict[str, list[float]] = {}
    for name, evaluations in [(GOAL[0], many), *((rival, at) for rival in RIVALS)]:
        found[f"{name} {evaluations}"] = [
            known[name, evaluations]
            if seed == options.seed and (name, evaluations) in known
            else distance(checkpoint, name, evaluations, options, seed)[0]
            for seed in range(options.seed, options.seed + options.goal_seeds)
        ]
    goal: dict[str, Any] = goal_of(found) if not options.quick else {"Fréchet": found}
    report.write(options, {**result, "floor": floor, "rows": rows, "goal": goal})
    print(shown(rows, floor))
    for name, words in goal.get("against", {}).items():
        gap, error = words["minus the goal"]
        print(f"{name} minus {GOAL[0]} {GOAL[1]}: {gap:+.3f} ± {error:.3f}, {words['verdict']}")


if __name__ == "__main__":
    main()
