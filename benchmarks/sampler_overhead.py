"""What DDIM costs beyond its network: 50 steps of it against 50 bare forward passes.

    python benchmarks/sampler_overhead.py

The bare passes use nothing of this library but the network: plain torch, with autocast where the
precision is bf16. DDIM gets its model as the command line builds it. Both send the same batch
through the same network, alternating step by step, so that whatever else the machine does affects
both; which of the two goes first changes from step to step. A pair is 50 steps of each, and the
median of the pairs' ratios is reported, for each size of batch. Exit code 1 if one is above its
limit.
"""

import contextlib
import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import report
import torch
from report import timed

from tutorial_lib import hardware, samplers
from tutorial_lib.networks.unet import TinyUNet
from tutorial_lib.schedules import NoiseSchedule, cosine_schedule

LIMITS = {64: 1.03, 1: 1.10}
"""The largest ratio allowed, by size of batch."""


def bare_pass(
    network: torch.nn.Module, x: torch.Tensor, precision: hardware.Precision
) -> Callable[[int], None]:
    """One forward pass of ``network`` at step t, as one would write it with torch alone."""

    def autocast() -> contextlib.AbstractContextManager[object]:
        if precision.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(x.device.type, precision.dtype)

    def run(t: int) -> None:
        steps = torch.full((len(x),), t, device=x.device)
        with torch.no_grad(), autocast():
            network(x, steps)

    return run


def measure_pair(
    model: Callable[..., torch.Tensor],
    schedule: NoiseSchedule,
    x_T: torch.Tensor,
    timesteps: list[int],
    bare: Callable[[int], None],
) -> dict[str, float]:
    """Seconds of one DDIM walk and of as many bare passes, alternating step by step."""
    spent = {"ddim": 0.0, "bare": 0.0}
    steps = iter(())
    for number, t in enumerate(timesteps[:-1]):
        if not number:  # checking the arguments is part of what a walk costs
            start = partial(samplers.ddim, model, schedule, x_T, timesteps)
            spent["ddim"] += timed(start, x_T.device)
            steps = start()
        work = [("ddim", partial(next, steps)), ("bare", partial(bare, t))]
        for name, run in work if number % 2 else work[::-1]:
            spent[name] += timed(run, x_T.device)
    return spent


def row_of(batch: int, pairs: list[dict[str, float]], steps: int) -> dict[str, Any]:
    """The medians of the pairs measured so far."""
    milliseconds = {
        name: 1e3 * statistics.median(pair[name] for pair in pairs) / steps
        for name in ("bare", "ddim")
    }
    return {
        "batch": batch,
        "bare pass (ms)": milliseconds["bare"],
        "DDIM step (ms)": milliseconds["ddim"],
        "ratio": statistics.median(pair["ddim"] / pair["bare"] for pair in pairs),
        "limit": LIMITS.get(batch, max(LIMITS.values())),
        "pairs": len(pairs),
    }


def main() -> int:
    """Measures, prints a table, writes JSON; 1 if a median ratio is above its limit."""
    parser = report.parser(__doc__, __file__)
    parser.add_argument("--batch", type=int, nargs="+", default=list(LIMITS), help="images at once")
    parser.add_argument("--pairs", type=int, default=15, help="pairs of measurements")
    parser.add_argument("--steps", type=int, default=50, help="of DDIM")
    parser.add_argument("--precision", default="auto", help="auto, fp32 or bf16")
    options = parser.parse_args()
    if options.quick:
        options.batch, options.pairs, options.steps = [2, 1], 1, 3
    device = hardware.pick_device()
    precision = hardware.pick_precision(options.precision, device)
    torch.manual_seed(options.seed)
    hardware.keep_freed_memory()  # as the command line does
    network = hardware.laid_out(TinyUNet(3), device).eval()
    model = hardware.in_precision(network, device, precision)
    schedule = cosine_schedule()
    timesteps = samplers.evenly_spaced(schedule.num_steps, options.steps)
    result = report.about(options, __file__) | {
        "precision": precision.name,
        "steps": options.steps,
        "image_shape": [3, 32, 32],
        "network": {"class": "TinyUNet", "config": network.config},
    }
    pairs: dict[int, list[dict[str, float]]] = {batch: [] for batch in options.batch}
    for number in range(options.pairs + 1):
        for batch, measured in pairs.items():
            x_T = torch.randn(batch, 3, 32, 32, device=device)
            bare = bare_pass(network, x_T, precision)
            measured.append(measure_pair(model, schedule, x_T, timesteps, bare))
            if not number:
                measured.clear()  # the first warms up
    rows = [row_of(batch, measured, options.steps) for batch, measured in pairs.items()]
    ratios = {batch: [p["ddim"] / p["bare"] for p in measured] for batch, measured in pairs.items()}
    report.write(options, {**result, "rows": rows, "ratios": ratios})
    print(report.table(rows))
    return int(not options.quick and any(row["ratio"] > row["limit"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
