"""Images a second of DDIM in 50 steps: ours against DDIMPipeline of diffusers, one network.

    python benchmarks/sample_speed.py

The same untrained ``UNet2DModel`` draws the same number of images. Each contender is a process of
its own; ours keeps freed memory, as the command line does. They take turns, and the median of the
rounds' ratios counts. ``pipeline`` is what a user of diffusers writes (fp32, PIL pictures);
``pipeline, bf16`` is the same under torch's autocast. Ours ends with the same uint8 pixels.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import report
import torch
from time_to_quality import Diffusers
from torch import Tensor
from workers import by_turns, compared, serve

from tutorial_lib import hardware
from tutorial_lib.images import to_bytes
from tutorial_lib.samplers import ddim, evenly_spaced, last
from tutorial_lib.schedules import linear_schedule

CONTENDERS = ("pipeline", "pipeline, bf16", "ours, fp32", "ours")


def pipeline(options: argparse.Namespace, precision: str) -> Callable[[], object]:
    """diffusers' pipeline as its users call it."""
    from diffusers.pipelines.ddim.pipeline_ddim import DDIMPipeline
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    warnings.filterwarnings("ignore", category=FutureWarning)
    device = hardware.pick_device()
    found = DDIMPipeline(unet=Diffusers().net.eval(), scheduler=DDIMScheduler()).to(device)
    found.set_progress_bar_config(disable=True)

    def run() -> object:
        return found(batch_size=options.batch, num_inference_steps=options.steps)

    def run_in_bf16() -> object:  # pipeline.to(bfloat16) fails: NumPy has no such dtype
        with torch.autocast(device.type, torch.bfloat16):
            return run()

    return run_in_bf16 if precision == "bf16" else run


def ours(options: argparse.Namespace, precision: str) -> Callable[[], object]:
    """Our sampler, with the network laid out as ``load_checkpoint`` does."""
    hardware.keep_freed_memory()
    device = hardware.pick_device()
    schedule = linear_schedule().to(device)
    net = hardware.laid_out(Diffusers(), device).eval()
    chosen = hardware.pick_precision(precision, device)
    model = hardware.in_precision(net, device, chosen, few_token_attention=True)
    walk = evenly_spaced(schedule.num_steps, options.steps)
    generator = torch.Generator().manual_seed(options.seed)

    def run() -> object:
        x_T: Tensor = torch.randn(options.batch, 3, 32, 32, generator=generator).to(device)
        return to_bytes(last(ddim(model, schedule, x_T, walk)))

    return run


def contender(name: str, options: argparse.Namespace) -> Callable[[int], float]:
    """The contender ``name``: draws the given number of batches and returns the seconds taken."""
    torch.manual_seed(options.seed)  # the same weights for all
    kind, _, precision = name.partition(", ")
    draw = (pipeline if kind == "pipeline" else ours)(options, precision or "auto")

    def run(batches: int) -> float:
        start = time.perf_counter()
        for _ in range(batches):
            draw()
        report.synchronize(hardware.pick_device())
        return time.perf_counter() - start

    return run


def main() -> None:
    parser = report.parser(__doc__, __file__)
    parser.add_argument("--batch", type=int, default=32, help="images at once")
    parser.add_argument("--steps", type=int, default=50, help="of DDIM")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.batch, options.steps, options.rounds = 2, 2, 1
    if options.worker:
        serve(lambda: contender(options.worker, options))
        return
    result = report.about(options, __file__, "diffusers")
    sizes = {key: getattr(options, key) for key in ("batch", "steps")}
    rows: list[dict[str, Any]] = []
    for done, seconds in enumerate(by_turns(__file__, CONTENDERS, 1, options.rounds), 1):
        rows = compared(seconds, CONTENDERS, options.batch)
        about = {**result, **sizes, "rounds": done}
        report.write(options, {**about, "seconds": seconds, "rows": rows})
    print(report.table(rows))


if __name__ == "__main__":
    main()
