"""Two processes of one thread each against one process of one thread, the same global batch.

    python benchmarks/two_processes.py

``torchrun --nproc-per-node 2 -m tutorial_lib train`` and the same without ``torchrun`` take turns.
Images a second are those of the run's own metrics after its first line; the median of the rounds'
ratios counts. What a step costs at any size of batch (mainly the optimizer) both processes pay, so
two of them gain more with larger batches. Needs two idle cores.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import report
import torch

from tutorial_lib.training import RunFolder

WARM = 10
"""Steps that are not timed; also the steps between two lines of the metrics."""


def rate(processes: int, batch: int, steps: int, seed: int) -> float:
    """Images a second of a run in this many processes of one thread."""
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
        lines = RunFolder(Path(folder) / "run").read_metrics()
    spent = lines[-1]["seconds"] - lines[0]["seconds"]
    return (lines[-1]["step"] - lines[0]["step"]) * batch / spent


def main() -> None:
    parser = report.parser(__doc__, __file__)
    batches = "images in a step, all processes together"
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 256], help=batches)
    parser.add_argument("--steps", type=int, default=100, help="steps that are timed")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    options = parser.parse_args()
    if options.quick:
        options.batch, options.steps, options.rounds = [4], WARM, 1
    torch.set_num_threads(1)  # as in the runs, so that the result states it
    result = report.about(options, __file__, device="cpu")
    rates: dict[int, dict[int, list[float]]] = {batch: {1: [], 2: []} for batch in options.batch}
    for done in range(1, options.rounds + 1):
        for batch, of_batch in rates.items():
            for processes, found in of_batch.items():
                found.append(rate(processes, batch, options.steps, options.seed))
        about = {**result, "steps": options.steps, "rounds": done}
        report.write(options, {**about, "images_per_second": rates, "rows": rows_of(rates)})
    print(report.table(rows_of(rates)))


def rows_of(rates: dict[int, dict[int, list[float]]]) -> list[dict[str, Any]]:
    """The medians of the rounds so far, a row for each batch."""
    return [
        {
            "batch": batch,
            "images/s, one process": statistics.median(one),
            "two processes": statistics.median(two),
            "ratio": statistics.median(t / o for o, t in zip(one, two, strict=True)),
        }
        for batch, (one, two) in ((batch, found.values()) for batch, found in rates.items())
    ]


if __name__ == "__main__":
    main()
