"""What DDIM costs beyond the network: 50 steps of it against 50 bare forward passes.

    python benchmarks/sampler_overhead.py

Both send the same batch through the same network, in turn step by step, so that what else the
machine does hits both; which of the two goes first changes from step to step. A pair is 50 steps of
each, and the median of the pairs' ratios is reported. Exit code 1 where it is above the limit.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from tutorial_lib import hardware, samplers
from tutorial_lib.checkpoints import versions
from tutorial_lib.networks.unet import TinyUNet
from tutorial_lib.schedules import cosine_schedule

LIMIT, STEPS, BATCH = 1.03, 50, 64
RESULTS = Path(__file__).parent / "results"


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that ``work`` takes, the device's queue included."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(pairs: int, precision_name: str, seed: int) -> dict:
    """Times ``pairs`` pairs of a DDIM walk and of as many bare forward passes."""
    device = hardware.pick_device()
    precision = hardware.pick_precision(precision_name, device)
    torch.manual_seed(seed)
    network = hardware.placed(TinyUNet(3), device).eval()
    model = hardware.in_precision(network, device, precision)
    schedule = cosine_schedule()
    x_T = torch.randn(BATCH, 3, 32, 32, device=device)
    walk = samplers.evenly_spaced(schedule.num_steps, STEPS)

    @torch.no_grad()
    def bare(t: int) -> None:
        model(x_T, torch.full((BATCH,), t, device=device))

    def pair() -> dict[str, float]:
        spent = {"ddim": 0.0, "bare": 0.0}
        steps = iter(())
        for number, t in enumerate(walk[:-1]):
            if not number:  # checking the arguments belongs to the price of a walk
                spent["ddim"] += timed(lambda: samplers.ddim(model, schedule, x_T, walk), device)
                steps = samplers.ddim(model, schedule, x_T, walk)
            work = [("ddim", partial(next, steps)), ("bare", partial(bare, t))]
            for name, run in work if number % 2 else work[::-1]:
                spent[name] += timed(run, device)
        return spent

    pair()
    measured = [pair() for _ in range(pairs)]
    seconds = {name: [spent[name] for spent in measured] for name in ("ddim", "bare")}
    ratios = [spent["ddim"] / spent["bare"] for spent in measured]
    return {
        "benchmark": "sampler_overhead",
        "median_ratio": statistics.median(ratios),
        "limit": LIMIT,
        "ratios": ratios,
        "median_seconds": {name: statistics.median(values) for name, values in seconds.items()},
        "batch": BATCH,
        "steps": STEPS,
        "image_shape": [3, 32, 32],
        "network": {"class": "TinyUNet", "config": network.config},
        "device": hardware.describe_device(device),
        "precision": precision.name,
        "seed": seed,
        "versions": versions(),
        "command": f"python benchmarks/sampler_overhead.py --pairs {pairs} "
        f"--precision {precision_name} --seed {seed}",
    }


def main() -> int:
    """Measures, prints a table, writes JSON; 1 where the median ratio is above the limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=15, help="pairs of measurements")
    parser.add_argument("--precision", default="auto", help="auto, fp32 or bf16")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the noise")
    parser.add_argument("--out", type=Path, default=RESULTS / "sampler_overhead.json")
    words = parser.parse_args()
    result = measure(words.pairs, words.precision, words.seed)
    seconds, ratio = result["median_seconds"], result["median_ratio"]
    print(f"{result['device']}, {result['precision']}, batch {BATCH}, {STEPS} steps")
    print(f"{'':24}{'median seconds':>16}")
    print(f"{'bare forward passes':24}{seconds['bare']:16.3f}")
    print(f"{'DDIM':24}{seconds['ddim']:16.3f}")
    print(f"median ratio of {words.pairs} pairs: {ratio:.4f} (limit {LIMIT})")
    words.out.parent.mkdir(parents=True, exist_ok=True)
    words.out.write_text(json.dumps(result, indent=2) + "\n")
    return int(ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
