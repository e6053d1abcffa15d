"""Images a second in training: ours against two loops that one would otherwise use.

    pip install -e '.[benchmarks]'
    python benchmarks/train_speed.py

Two networks; everywhere the same 32 x 32 images in batches of the same size, Adam, clipped
gradients and an average of the weights:

- the ``UNet2DModel`` of diffusers, in the loop of diffusers' example for unconditional images
  (accelerate, fp32 as it does by default, and with ``--mixed_precision bf16``), and by ours;
- the ``Unet`` of denoising-diffusion-pytorch, by its own ``Trainer`` (fp32 as by default, and with
  ``amp`` in bf16), and by ours.

Each contender is a process of its own; ours keeps freed memory, as the command line does. They take
turns, a warm-up and then rounds of some steps; the median of the rounds' ratios counts.
"""

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import report
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from workers import by_turns, compared, serve

from tutorial_lib import datasets, hardware
from tutorial_lib.images import save_grid, to_pil
from tutorial_lib.training import RunFolder, TrainConfig, train

PEERS = ("diffusers", "accelerate", "denoising_diffusion_pytorch")
GROUPS = {
    "UNet2DModel": ("example, fp32", "example, bf16", "ours, its network"),
    "Unet": ("Trainer, fp32", "Trainer, bf16", "ours, this network"),
}
"""The contenders for each network: the first is its default, the last is ours."""
NEEDED = {
    "UNet2DModel": ("diffusers", "accelerate"),
    "Unet": ("denoising_diffusion_pytorch",),
}
"""The peers that a network is measured against."""

Steps = Callable[[int], float]
"""Trains for the given number of steps and returns the seconds they took."""


def example(options: argparse.Namespace, precision: str) -> Steps:
    """The loop of diffusers' examples/unconditional_image_generation/train_unconditional.py.

    With ``--use_ema``, as its README runs it; images are in memory instead of files.
    """
    from accelerate import Accelerator  # pyright: ignore[reportMissingImports]
    from diffusers.optimization import get_scheduler
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
    from diffusers.training_utils import EMAModel
    from time_to_quality import Diffusers
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms
    from tqdm.auto import tqdm

    class Pictures(Dataset):
        def __init__(self) -> None:
            self.pictures = [to_pil(image[None]) for image in _data(options).images]
            self.change = transforms.Compose(
                [
                    transforms.Resize(32, interpolation=transforms.InterpolationMode.BILINEAR),
                    transforms.CenterCrop(32),
                    transforms.ToTensor(),
                    transforms.Normalize([0.5], [0.5]),
                ]
            )

        def __len__(self) -> int:
            return len(self.pictures)

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"input": self.change(self.pictures[index])}

    accelerator = Accelerator(mixed_precision="bf16" if precision == "bf16" else "no")
    model = Diffusers().net
    weight_dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    ema = EMAModel(model.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
    )
    loader = DataLoader(Pictures(), batch_size=options.batch, shuffle=True, drop_last=True)
    rates = get_scheduler("cosine", optimizer, num_warmup_steps=500, num_training_steps=100_000)
    model, optimizer, loader, rates = accelerator.prepare(model, optimizer, loader, rates)
    ema.to(accelerator.device)
    bar = tqdm()

    def batches():
        while True:
            yield from loader

    stream = batches()

    def run(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            clean = next(stream)["input"].to(weight_dtype)
            noise = torch.randn(clean.shape, dtype=weight_dtype, device=clean.device)
            t = torch.randint(0, 1000, (len(clean),), device=clean.device).long()
            noisy = scheduler.add_noise(clean, noise, t)  # pyright: ignore[reportArgumentType]
            with accelerator.accumulate(model):
                loss = F.mse_loss(model(noisy, t).sample.float(), noise.float())
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                rates.step()
                optimizer.zero_grad()
            ema.step(model.parameters())
            bar.update(1)
            bar.set_postfix(loss=loss.detach().item(), lr=rates.get_last_lr()[0])
        return time.perf_counter() - start

    return run


def their_trainer(options: argparse.Namespace, precision: str) -> Steps:
    """``Trainer`` of denoising-diffusion-pytorch; its own processes read PNG files."""
    import denoising_diffusion_pytorch as ddp  # pyright: ignore[reportMissingImports]

    folder = Path(tempfile.mkdtemp())
    for number, image in enumerate(_data(options).images):
        save_grid(image[None], folder / f"{number}.png")
    trainer = ddp.Trainer(
        ddp.GaussianDiffusion(_unet(), image_size=32, timesteps=1000),
        str(folder),
        train_batch_size=options.batch,
        train_num_steps=0,
        amp=precision == "bf16",
        mixed_precision_type="bf16",
        calculate_fid=False,
        save_and_sample_every=10**9,
        results_folder=str(folder / "results"),
    )

    def run(steps: int) -> float:
        trainer.train_num_steps = trainer.step + steps
        start = time.perf_counter()
        trainer.train()
        report.synchronize(trainer.device)
        return time.perf_counter() - start

    return run


def ours(options: argparse.Namespace, network: Callable[[], nn.Module]) -> Steps:
    """``train`` with AdamW and automatic precision; the seconds are those of its own metrics."""
    hardware.keep_freed_memory()
    data, net = _data(options), network()

    def run(steps: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            config = TrainConfig(
                seed=options.seed,
                steps=2 * steps,
                log_every=steps,
                batch_size=options.batch,
                target="eps",
                optimizer="adamw",
                lr=1e-4,
                ema=0.9999,
                compile=options.compile,
                out=Path(folder) / "run",
            )
            first, second = RunFolder(train(config, data=data, model=net).path).read_metrics()
        return second["seconds"] - first["seconds"]  # the first half of each call warms up

    return run


class FromZero(nn.Module):
    """A network that counts its steps from 0, called as ours are."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """eps_hat for images x_t (B, 3, H, W) at the steps t (B,) in 1..T."""
        return self.network(x_t, t - 1)


def _unet() -> nn.Module:
    import denoising_diffusion_pytorch as ddp  # pyright: ignore[reportMissingImports]

    return ddp.Unet(dim=32, dim_mults=(1, 2, 4))


def _data(options: argparse.Namespace) -> datasets.Dataset:
    return datasets.circles(options.images, seed=options.seed)


def contender(name: str, options: argparse.Namespace) -> Steps:
    """The contender ``name``, ready to train."""
    from time_to_quality import Diffusers

    torch.manual_seed(options.seed)
    kind, _, detail = name.partition(", ")
    if kind == "ours":
        return ours(options, Diffusers if detail == "its network" else lambda: FromZero(_unet()))
    return (example if kind == "example" else their_trainer)(options, detail)


def main() -> int:
    parser = report.parser(__doc__, __file__)
    parser.add_argument("--batch", type=int, default=32, help="images in a step, at least 16")
    parser.add_argument("--images", type=int, default=2000, help="images to train on")
    parser.add_argument("--steps", type=int, default=20, help="steps in a round")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    parser.add_argument("--compile", action="store_true", help="ours with torch.compile")
    parser.add_argument(
        "--networks", nargs="+", choices=GROUPS, default=list(GROUPS), help="which to measure"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.batch, options.images, options.steps, options.rounds = 16, 100, 1, 1
    needed = {name for network in options.networks for name in NEEDED[network]}
    missing = [n for n in PEERS if n in needed and importlib.util.find_spec(n) is None]
    if missing:
        advice = "pip install -e '.[benchmarks]'"
        print(f"error: not installed: {', '.join(missing)}; {advice}", file=sys.stderr)
        return 2
    if options.worker:
        serve(lambda: contender(options.worker, options))
        return 0
    result = report.about(options, __file__, *(name.replace("_", "-") for name in PEERS))
    sizes = {key: getattr(options, key) for key in ("batch", "images", "steps", "compile")}
    names = [name for network in options.networks for name in GROUPS[network]]
    rows: list[dict[str, Any]] = []
    for done, spent in enumerate(by_turns(__file__, names, options.steps, options.rounds), 1):
        rows = rows_of(spent, options.steps * options.batch)
        about = {**result, **sizes, "rounds": done}
        report.write(options, {**about, "seconds": spent, "rows": rows})
    print(report.table(rows))
    return 0


def rows_of(spent: dict[str, list[float]], images: int) -> list[dict[str, Any]]:
    """The medians of the rounds so far; a round has ``images`` images."""
    return [
        {"network": network, **row}
        for network, names in GROUPS.items()
        if names[0] in spent
        for row in compared(spent, names, images)
    ]


if __name__ == "__main__":
    sys.exit(main())
