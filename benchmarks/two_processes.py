"""Two processes of one thread each against one process of one thread, the same global batch.

    python benchmarks/two_processes.py

``torchrun --nproc-per-node 2 -m tutorial_lib train`` and the same without ``torchrun`` take turns.
Images a second are those of the run's own metrics after its first lines; the median of the rounds'
ratios counts. Needs two cores with nothing else to do.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import report
import torch

WARM = 10
"""Steps that are not timed, also the steps between two lines of the metrics."""


def rate(processes: int, batch: int, steps: int, seed: int) -> float:
    """Images a second of a run in so many processes of one thread."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["-m", "tutorial_lib", "train", "--dataset", "circles", "--no-progress"]
        words += ["--batch-size", str(batch), "--steps", str(WARM + steps), "--seed", str(seed)]
        words += ["--device", "cpu", "--log-every", str(WARM), "--out", f"{folder}/run"]
        if processes > 1:
            torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
            words = ["-m", *torchrun, *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *words], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)} failed: {done.stderr}")
        text = (Path(folder) / "run" / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    spent = lines[-1]["seconds"] - lines[0]["seconds"]
    return (lines[-1]["step"] - lines[0]["step"]) * batch / spent


def main() -> None:
    parser = report.parser(__doc__, __file__)
    parser.add_argument("--batch", type=int, default=64, help="images in a step, of all processes")
    parser.add_argument("--steps", type=int, default=100, help="steps that are timed")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    options = parser.parse_args()
    if options.quick:
        options.batch, options.steps, options.rounds = 4, WARM, 1
    torch.set_num_threads(1)  # as in the runs, for what is said about them
    result = report.about(options, __file__, device="cpu")
    rates: dict[int, list[float]] = {1: [], 2: []}
    sizes = {"batch": options.batch, "steps": options.steps}
    for done in range(1, options.rounds + 1):
        for processes, found in rates.items():
            found.append(rate(processes, options.batch, options.steps, options.seed))
        about = {**result, **sizes, "rounds": done}
        report.write(options, {**about, "images_per_second": rates, "rows": rows_of(rates)})
    print(report.table(rows_of(rates)))


def rows_of(rates: dict[int, list[float]]) -> list[dict[str, Any]]:
    """The medians of the rounds so far."""
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    return [
        {"processes": 1, "images/s": statistics.median(rates[1]), "ratio": 1.0},
        {
            "processes": 2,
            "images/s": statistics.median(rates[2]),
            "ratio": statistics.median(ratios),
        },
    ]


if __name__ == "__main__":
    main()
