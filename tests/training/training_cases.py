"""What the tests of training share: small configs, networks and data."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from tutorial_lib.datasets import Dataset
from tutorial_lib.hardware import Precision
from tutorial_lib.training import TrainConfig, Trainer
from tutorial_lib.training import loop as training
from tutorial_lib.training import state as run_state

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
    """``Answer`` without a list of what it was asked, which a compiler cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.5]]))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.weight * x_t


class Net(nn.Module):
    """Everything that has a state: kernels, vectors, a table, batch statistics and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 1)
        self.norm, self.drop = nn.BatchNorm2d(8), nn.Dropout(0.2)
        self.label = nn.Embedding(7, 8)

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.norm(self.first(x_t))
        if labels is not None:
            h = h + self.label(labels)[:, :, None, None]
        return self.last(self.drop(h).relu())


def left_behind(out: Path) -> dict:
    """What two runs must agree in, bit for bit: the last state, the metrics, the checkpoint."""
    state = run_state.newest_state(out)
    assert state is not None
    checkpoint = out / f"step-{state.facts['steps']:08d}.safetensors"
    return {
        "tensors": {name: tensor.tolist() for name, tensor in sorted(state.tensors.items())},
        "scaler": state.facts["scaler"],
        "lines": [[line["step"], line["loss"], line["lr"]] for line in metrics_of(out)],
        "checkpoint": checkpoint.read_bytes(),
    }
