"""How soon the samples are good: colored discs after seconds of training, side by side.

    python benchmarks/time_to_quality.py

In one run, for each budget of seconds: ``TinyUNet`` through ``tutorial_lib.training.train`` with
``OPTIONS``, on several seeds; and, for the longest budget, through the loop that one writes first
(AdamW 1e-4, fp32, linear schedule, uniform t, eps), ``TwoLevelUNet`` and the ``UNet2DModel`` of
diffusers. Seconds are wall time from the first step on, everything in the loop included. Each
model then draws 128 images from the same noise (DDIM, 50 steps, x0_hat clipped) and
``disc_quality`` judges them. The process keeps freed memory, as the command line does.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import report
import torch
from torch import Tensor, nn
from torchvision.utils import save_image

from tutorial_lib import datasets, hardware
from tutorial_lib.forward import diffuse
from tutorial_lib.metrics import disc_quality
from tutorial_lib.networks.unet import TwoLevelUNet
from tutorial_lib.predictions import clip_x0
from tutorial_lib.samplers import ddim, evenly_spaced, last
from tutorial_lib.schedules import NoiseSchedule, linear_schedule
from tutorial_lib.training import TrainConfig, train

GOALS = {30.0: 0.90, 60.0: 0.97}
"""Share of samples that should be discs after this many seconds, on 2 CPU cores."""
OPTIONS: dict[str, Any] = {"min_snr_gamma": 2.0, "bottom_blocks": 2, "muon_lr": 0.014}
"""Of ``TrainConfig``, with all else at its default: a weight that favors the noisier steps, one
more block at the lowest resolution, cheap and with the whole image in view, and a matching rate."""
SAMPLING = {"images": 128, "ddim_steps": 50, "seed": 12345}
QUICK_SAMPLING = {**SAMPLING, "images": 4, "ddim_steps": 2}
PLAIN_LR, PLAIN_BATCH = 1e-4, 32

Trained = tuple[Callable[[Tensor, Tensor], Tensor], NoiseSchedule, dict[str, Any]]
"""An eps model, the schedule it was trained for, and how the training went."""


def tiny(data: datasets.Dataset, seconds: float, seed: int) -> Trained:
    """``TinyUNet`` as the library trains it, with ``OPTIONS``."""
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            dataset="circles",
            steps=None,
            max_seconds=seconds,
            **OPTIONS,
            seed=seed,
            out=Path(folder) / "run",
            progress=False,
        )
        run = train(config, data=data)
    facts = {"steps": len(run.losses), "seconds": run.seconds, **_size(run.network)}
    return run.model, run.schedule, facts


def plain(net: nn.Module, data: datasets.Dataset, seconds: float, seed: int) -> Trained:
    """The loop that one writes first (Ho et al. 2020, algorithm 1), for ``seconds`` seconds."""
    schedule = linear_schedule()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=PLAIN_LR)
    net.train()
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        index = torch.randint(len(data.images), (PLAIN_BATCH,), generator=generator)
        x0 = data.images[index]
        t = torch.randint(1, schedule.num_steps + 1, (PLAIN_BATCH,), generator=generator)
        eps = torch.randn(x0.shape, generator=generator)
        loss = (net(diffuse(schedule, x0, t, eps), t) - eps).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    facts = {"steps": steps, "seconds": time.perf_counter() - start, **_size(net)}
    return net.eval(), schedule, facts


class Diffusers(nn.Module):
    """``UNet2DModel`` of diffusers, called as our networks are; it counts steps from 0."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers.models.unets.unet_2d import UNet2DModel

        self.net = UNet2DModel(
            sample_size=32,
            in_channels=3,
            out_channels=3,
            layers_per_block=1,
            block_out_channels=(32, 64, 128),
            norm_num_groups=8,
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """eps_hat for images x (B, 3, H, W) at the steps t (B,) in 1..T."""
        return self.net(x, t - 1).sample


def sample(trained: Trained, images: int, ddim_steps: int, seed: int) -> Tensor:
    """Images (N, 3, 32, 32), always from the same noise."""
    model, schedule, _ = trained
    x_T = torch.randn(images, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    x_T = x_T.to(schedule.alpha_bar.device)
    timesteps = evenly_spaced(schedule.num_steps, ddim_steps)
    return last(ddim(clip_x0(model, schedule), schedule, x_T, timesteps))


def measure(
    budgets: list[float],
    seeds: list[int],
    grids: Path | None,
    sampling: dict[str, int],
    *,
    rivals_too: bool,
) -> Iterator[dict[str, Any]]:
    """One dict for each training, as soon as it is done."""
    data = datasets.load("circles")
    rivals = {"TwoLevelUNet, plain loop": TwoLevelUNet, "diffusers, plain loop": Diffusers}
    for seconds in budgets:
        runs = [("TinyUNet, train()", seed, tiny) for seed in seeds]
        if rivals_too and seconds == max(budgets):
            runs += [(name, seeds[0], _plain_run(rival)) for name, rival in rivals.items()]
        for name, seed, run in runs:
            load = os.getloadavg()[0]  # how busy the machine is with other work
            trained = run(data, seconds, seed)
            images = sample(trained, **sampling)
            if grids:
                grids.mkdir(parents=True, exist_ok=True)
                file = f"{name.split(',')[0]}-{seconds:g}s-seed{seed}.png"
                save_image((images + 1) / 2, grids / file, nrow=16)
            facts = {"model": name, "budget_seconds": seconds, "seed": seed, **trained[2]}
            yield {**facts, **_judge(images), "load_before": round(load, 2)}


def _plain_run(net: Callable[..., nn.Module]) -> Callable[..., Trained]:
    def run(data: datasets.Dataset, seconds: float, seed: int) -> Trained:
        torch.manual_seed(seed)  # the first weights; the loop has its own generator
        return plain(net(3) if net is TwoLevelUNet else net(), data, seconds, seed)

    return run


def _judge(images: Tensor) -> dict[str, float]:
    """The share of discs, and the medians of the three measurements it rests on."""
    quality = disc_quality(images)
    medians = {f"median_{k}": float(getattr(quality, k).median()) for k in quality._fields[1:]}
    return {"discs": float(quality.is_disc.float().mean()), **medians}


def _size(net: nn.Module) -> dict[str, int]:
    return {"parameters": sum(parameter.numel() for parameter in net.parameters())}


def main() -> None:
    parser = report.parser(__doc__, __file__, seeds=(0, 1, 2))
    parser.add_argument("--seconds", type=float, nargs="+", default=list(GOALS), help="budgets")
    parser.add_argument("--no-rivals", action="store_true", help="TinyUNet alone")
    parser.add_argument("--grids", type=Path, help="a folder for pictures of the samples")
    options = parser.parse_args()
    sampling = QUICK_SAMPLING if options.quick else SAMPLING
    if options.quick:
        options.seconds, options.seed = [0.1], options.seed[:1]
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        print("note: train() uses this machine's accelerator, the plain loops the CPU")
    hardware.keep_freed_memory()
    real = datasets.load("circles", split="test").images[: 20 if options.quick else None]
    result = report.about(options, __file__, "diffusers") | {
        "options": OPTIONS,
        "sampling": sampling,
        "plain_loop": {"optimizer": "AdamW", "lr": PLAIN_LR, "batch_size": PLAIN_BATCH},
        "goals": {f"{seconds:g} s": share for seconds, share in GOALS.items()},
        "judged_real": _judge(real)["discs"],
    }
    print(f"{result['device']}; {result['judged_real']:.1%} of {len(real):,} real images are discs")
    rows: list[dict[str, Any]] = []
    for row in measure(
        options.seconds, options.seed, options.grids, sampling, rivals_too=not options.no_rivals
    ):
        rows.append(row)
        report.write(options, {**result, "rows": rows})
        print(report.table([shown(row) for row in rows]), flush=True)


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the table."""
    goal = GOALS.get(row["budget_seconds"]) if row["model"].startswith("Tiny") else None
    return {
        "model": row["model"],
        "parameters": row["parameters"],
        "budget (s)": row["budget_seconds"],
        "seed": row["seed"],
        "steps": row["steps"],
        "discs": f"{row['discs']:.1%}",
        "goal": f"{goal:.0%}" if goal else "",
    }


if __name__ == "__main__":
    main()
