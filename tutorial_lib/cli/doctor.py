"""``python -m tutorial_lib doctor``: what this machine will use, and how long lessons take here."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from tutorial_lib import _validate, datasets, hardware
from tutorial_lib.checkpoints import shipped, versions
from tutorial_lib.course import LESSONS
from tutorial_lib.training import TrainConfig, Trainer, new_network


@dataclass(frozen=True)
class DoctorConfig:
    """Say what this machine will use, what data is there, and how long the lessons take here."""

    root: Path | None = None
    """Folder of downloaded data sets; None means TUTORIAL_DATA, else data/."""
    seconds: float = 3.0
    """How long to measure training, and again sampling (seconds)."""

    def __post_init__(self) -> None:
        _validate.number("seconds", self.seconds, low=0.1, high=600.0)


def doctor(config: DoctorConfig) -> int:
    root = datasets.data_root(config.root)  # a wrong one is told first
    device = hardware.pick_device()
    precision = hardware.pick_precision("auto", device)
    about = versions()
    print(f"device      {hardware.describe_device(device)}")
    print(f"precision   {precision.name}: {precision.reason}")
    print(f"versions    {', '.join(f'{name} {number}' for name, number in about.items())}")
    for name in datasets.NAMES:
        place = (
            f"here, in {root}" if name in ("mnist", "fashion_mnist", "cifar10") else "drawn here"
        )
        here = datasets.is_here(name, config.root)
        print(f"data        {name}: {place if here else f'not in {root}, would be downloaded'}")
    for name, path in shipped().items():
        print(f"checkpoint  {name}: {path}")
    if not shipped():
        print("checkpoint  none came with the course")
    training, drawing = _speeds(device, precision, config.seconds)
    print(f"training    {training:.1f} steps/s (32 x 32 RGB, batches of 32)")
    print(f"sampling    {drawing:.1f} images/s (32 x 32 RGB, 50 DDIM steps, batches of 64)")
    for lesson in LESSONS:
        seconds = lesson.train_steps / training + lesson.images / drawing
        took = f"{lesson.minutes} min, of which {seconds:.0f} s are computing"
        print(f"lesson      {lesson.name}: {took}")
    return 0


def _speeds(
    device: torch.device, precision: hardware.Precision, seconds: float
) -> tuple[float, float]:
    """Training steps a second and images a second, each measured for ``seconds``."""
    data = datasets.circles(256)
    config = TrainConfig(progress=False)
    with torch.random.fork_rng(devices=[]):
        trainer = Trainer(config, new_network(config, data), data, device, precision)
    training = _rate(lambda: trainer.step().item(), seconds)
    model = hardware.in_precision(trainer.network.eval(), device, precision)
    x_t, t = torch.zeros(64, 3, 32, 32, device=device), torch.ones(64, dtype=torch.int64)
    t = t.to(device)
    with torch.no_grad():
        calls = _rate(lambda: model(x_t, t).sum().item(), seconds)
    return training, calls * 64 / 50


def _rate(work: Callable[[], object], seconds: float) -> float:
    """How often a second ``work`` can be done."""
    work()  # the first call sets things up
    count, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds or not count:
        work()
        count += 1
    return count / passed
