"""What the tests of training share: small configs, networks and data."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from tutorial_lib.datasets import Dataset
from tutorial_lib.hardware import Precision
from tutorial_lib.training import TrainConfig, Trainer
from tutorial_lib.training import loop as training

CPU = torch.device("cpu")


FP32 = Precision("fp32", torch.float32, "a test")


SETTINGS = {
    "widths": (8, 16),
    "batch_size": 16,
    "steps": 4,
    "precision": "fp32",
    "device": "cpu",
    "progress": False,
}


def tiny(out: Path | None, **settings) -> TrainConfig:
    return TrainConfig(**{**SETTINGS, "out": out, **settings})


def trainer_of(data: Dataset, network: nn.Module | None = None, **settings) -> Trainer:
    config = tiny(None, **settings)
    torch.manual_seed(0)
    return Trainer(config, network or training.new_network(config, data), data, CPU, FP32)


def metrics_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def bits(network: nn.Module) -> list[Tensor]:
    return [value.detach().clone() for value in network.state_dict().values()]


def same_bits(left: nn.Module, right: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(bits(left), bits(right), strict=True))


class Answer(nn.Module):
    """A denoiser of one number that answers ``weight * x_t`` and remembers what it was asked."""

    def __init__(self, weight: float = 0.5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[weight]]))
        self.seen: list[tuple[Tensor, ...]] = []

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        self.seen.append((x_t, t) if labels is None else (x_t, t, labels))
        return self.weight * x_t


class Silent(nn.Module):
    """``Answer`` without a memory, which a compiler does not follow."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.5]]))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.weight * x_t
