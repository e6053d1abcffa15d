"""Images a second of DDIM in 50 steps: ours against DDIMPipeline of diffusers, one network.

    python benchmarks/sample_speed.py

The same untrained ``UNet2DModel`` draws the same number of images; the contenders take turns, and
the median of the rounds' ratios counts. ``pipeline`` is what a user of diffusers writes (fp32,
pictures of PIL); ``pipeline, bf16`` is the same under torch's autocast. Ours ends with the same
uint8 pixels.
"""

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import report
import torch
from time_to_quality import Diffusers
from torch import Tensor

from tutorial_lib import hardware
from tutorial_lib.images import to_bytes
from tutorial_lib.samplers import ddim, evenly_spaced, last
from tutorial_lib.schedules import linear_schedule


def pipelines(network: Diffusers, batch: int, steps: int) -> dict[str, Callable[[], object]]:
    """The contenders of diffusers, by name."""
    from diffusers.pipelines.ddim.pipeline_ddim import DDIMPipeline
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    device = hardware.pick_device()
    pipeline = DDIMPipeline(unet=network.net.eval(), scheduler=DDIMScheduler()).to(device)
    pipeline.set_progress_bar_config(disable=True)

    def run() -> object:
        return pipeline(batch_size=batch, num_inference_steps=steps)

    def run_in_bf16() -> object:  # pipeline.to(bfloat16) fails: NumPy knows no such number
        with torch.autocast(device.type, torch.bfloat16):
            return run()

    return {"pipeline": run, "pipeline, bf16": run_in_bf16}


def ours(
    network: Diffusers, precision: str, batch: int, steps: int, seed: int
) -> Callable[[], object]:
    """Our sampler with the network as ``load_checkpoint`` would hand it over."""
    device = hardware.pick_device()
    schedule = linear_schedule().to(device)
    net = Diffusers()
    net.load_state_dict(network.state_dict())
    net = hardware.placed(net, device).eval()
    model = hardware.in_precision(net, device, hardware.pick_precision(precision, device))
    walk = evenly_spaced(schedule.num_steps, steps)
    generator = torch.Generator().manual_seed(seed)

    def run() -> object:
        x_T: Tensor = torch.randn(batch, 3, 32, 32, generator=generator).to(device)
        return to_bytes(last(ddim(model, schedule, x_T, walk)))

    return run


def main() -> None:
    parser = report.parser(__doc__, __file__)
    parser.add_argument("--batch", type=int, default=32, help="images at once")
    parser.add_argument("--steps", type=int, default=50, help="of DDIM")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    options = parser.parse_args()
    if options.quick:
        options.batch, options.steps, options.rounds = 2, 2, 1
    result = report.about(options, __file__, "diffusers")
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.manual_seed(options.seed)
    network = Diffusers()
    size = options.batch, options.steps
    contenders = pipelines(network, *size)
    contenders["ours, fp32"] = ours(network, "fp32", *size, options.seed)
    contenders["ours"] = ours(network, "auto", *size, options.seed)
    for run in contenders.values():  # the first call sets things up
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    sizes = {"batch": options.batch, "steps": options.steps}
    for done in range(1, options.rounds + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            report.synchronize(hardware.pick_device())
            seconds[name].append(time.perf_counter() - start)
        about = {**result, **sizes, "rounds": done}
        report.write(
            options, {**about, "seconds": seconds, "rows": rows_of(seconds, options.batch)}
        )
    print(report.table(rows_of(seconds, options.batch)))


def rows_of(seconds: dict[str, list[float]], batch: int) -> list[dict[str, Any]]:
    """The medians of the rounds so far."""
    rows = []
    for name, spent in seconds.items():
        ratios = [them / us for them, us in zip(spent, seconds["ours"], strict=True)]
        rows.append(
            {
                "contender": name,
                "images/s": batch / statistics.median(spent),
                "ours is faster by": statistics.median(ratios),
            }
        )
    return rows


if __name__ == "__main__":
    main()
