"""What `import tutorial_lib.schedules` adds to `import torch`.

    python benchmarks/import_time.py          # writes benchmarks/results/import_time.json

Each run is a fresh Python that first loads torch, then the module, and times both.
"""

import statistics
import subprocess
import sys

import report

LIMIT = 0.1  # seconds that the module may add
ONE_RUN = """
import time
start = time.perf_counter()
import torch
middle = time.perf_counter()
import tutorial_lib.schedules
print(middle - start, time.perf_counter() - middle)
"""


def measure(runs: int) -> dict[str, float]:
    """Median seconds for torch and for the module on top of it, after one run to warm up."""
    pairs = []
    for _ in range(runs + 1):
        shown = subprocess.run(
            [sys.executable, "-c", ONE_RUN], capture_output=True, text=True, check=True
        )
        pairs.append([float(seconds) for seconds in shown.stdout.split()])
    base, added = (statistics.median(column) for column in zip(*pairs[1:], strict=True))
    return {"torch_seconds": base, "added_seconds": added, "ratio": (base + added) / base}


def main() -> None:
    parser = report.parser(__doc__, __file__)
    parser.add_argument("--runs", type=int, default=9, help="fresh Pythons to time")
    options = parser.parse_args()
    about = report.about(options, __file__, device="cpu")
    result = measure(1 if options.quick else options.runs)
    print(f"import torch                   {result['torch_seconds']:7.3f} s")
    print(f"import tutorial_lib.schedules  {result['added_seconds']:7.3f} s more")
    print(f"ratio                          {result['ratio']:7.3f}")
    print(f"limit                          {LIMIT:7.3f} s more")
    report.write(options, {**about, "runs": options.runs, "limit_seconds": LIMIT, **result})


if __name__ == "__main__":
    main()
