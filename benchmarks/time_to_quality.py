"""How soon the samples are good: colored discs after seconds of training, side by side.

    python benchmarks/time_to_quality.py --json benchmarks/results/time_to_quality.json

In one run, for each budget of seconds: ``TinyUNet`` through ``tutorial_lib.training.train`` with
``OPTIONS``, on several seeds; and, for the longest budget, by the loop that one writes first
(AdamW 1e-4, fp32, linear schedule, uniform t, eps), ``TwoLevelUNet`` and the ``UNet2DModel`` of
diffusers. Seconds are wall time from the first step on, everything in the loop included. Each
model then draws 128 images from the same noise (DDIM, 50 steps, x0_hat clipped) and
``disc_quality`` judges them.
"""

import argparse
import json
import os
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

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
"""Share of samples that should be discs after so many seconds, on 2 CPU cores."""
OPTIONS: dict[str, Any] = {"min_snr_gamma": 2.0, "bottom_blocks": 2, "muon_lr": 0.014}
"""Of ``TrainConfig``, all else at its default: a weight that leans on the noisier steps, one more
block where it is cheap and sees the whole image, and a learning rate to suit."""
SAMPLES, SAMPLING_STEPS, SAMPLING_SEED = 128, 50, 12345
PLAIN_LR, PLAIN_BATCH = 1e-4, 32

Trained = tuple[Callable[[Tensor, Tensor], Tensor], NoiseSchedule, dict[str, Any]]
"""An eps model, the schedule that it was trained for, and how the training went."""


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
    """The loop that one writes first (Ho et al. 2020, algorithm 1), for so many seconds."""
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
    """``UNet2DModel`` of diffusers, called as ours are; it counts steps from 0."""

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


def sample(trained: Trained) -> Tensor:
    """128 images (128, 3, 32, 32), always from the same noise."""
    model, schedule, _ = trained
    x_T = torch.randn(SAMPLES, 3, 32, 32, generator=torch.Generator().manual_seed(SAMPLING_SEED))
    timesteps = evenly_spaced(schedule.num_steps, SAMPLING_STEPS)
    return last(ddim(clip_x0(model, schedule), schedule, x_T, timesteps))


def measure(
    budgets: list[float], seeds: list[int], grids: Path | None, rivals_too: bool
) -> Iterator[dict[str, Any]]:
    """One dict for each training, as soon as it is done."""
    data = datasets.load("circles")
    rivals = {"TwoLevelUNet, plain loop": TwoLevelUNet, "diffusers, plain loop": Diffusers}
    for seconds in budgets:
        runs = [("TinyUNet, train()", seed, tiny) for seed in seeds]
        if rivals_too and seconds == max(budgets):
            runs += [(name, seeds[0], _plain_run(rival)) for name, rival in rivals.items()]
        for name, seed, run in runs:
            load = os.getloadavg()[0]  # what else keeps this machine busy
            trained = run(data, seconds, seed)
            images = sample(trained)
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
    """The share of discs, and the medians of the three measurements behind it."""
    quality = disc_quality(images)
    medians = {f"median_{k}": float(getattr(quality, k).median()) for k in quality._fields[1:]}
    return {"discs": float(quality.is_disc.float().mean()), **medians}


def _size(net: nn.Module) -> dict[str, int]:
    return {"parameters": sum(parameter.numel() for parameter in net.parameters())}


def _machine() -> dict[str, Any]:
    packages = ("torch", "diffusers", "numpy")
    device = torch.device("cpu")
    return {
        "command": shlex.join(["python", *sys.argv]),
        "device": hardware.describe_device(device),
        "precision": hardware.pick_precision("auto", device).name,
        "options": OPTIONS,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "sampling": {"images": SAMPLES, "ddim_steps": SAMPLING_STEPS, "seed": SAMPLING_SEED},
        "plain_loop": {"optimizer": "AdamW", "lr": PLAIN_LR, "batch_size": PLAIN_BATCH},
        "goals": {f"{seconds:g} s": share for seconds, share in GOALS.items()},
        "judged_real": _judge(datasets.load("circles", split="test").images)["discs"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Discs after seconds of training.")
    parser.add_argument("--seconds", type=float, nargs="+", default=list(GOALS), help="budgets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of TinyUNet")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--no-rivals", action="store_true", help="TinyUNet alone")
    parser.add_argument("--grids", type=Path, help="a folder for pictures of the samples")
    options = parser.parse_args()
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        print("note: train() takes the accelerator of this machine, the plain loops the CPU")
    about = _machine()
    print(f"{about['device']}; of 2,000 real images {about['judged_real']:.1%} are discs")
    print(f"{'model':26} {'size':>7} {'budget':>7} {'seed':>4} {'steps':>6} {'discs':>6}  goal")
    results = []
    for row in measure(options.seconds, options.seeds, options.grids, not options.no_rivals):
        results.append(row)
        tiny_goal = GOALS.get(row["budget_seconds"]) if row["model"].startswith("Tiny") else None
        goal = f"{tiny_goal:.0%}" if tiny_goal else ""
        print(
            f"{row['model']:26} {row['parameters'] / 1e6:5.2f} M {row['budget_seconds']:5g} s "
            f"{row['seed']:4} {row['steps']:6} {row['discs']:6.1%}  {goal}",
            flush=True,
        )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**about, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
