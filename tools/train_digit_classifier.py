"""Trains the classifier that judges digits, and writes its features of real digits.

    OMP_NUM_THREADS=1 python tools/train_digit_classifier.py

Needs MNIST (``TUTORIAL_DATA``, else ``data/``). Writes ``data/judge/digit_classifier.*`` and
``data/judge/digit_reference.*``; on the same kind of machine, with one thread, always the same
bytes.
"""

import argparse
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib import _sealed, datasets
from tutorial_lib.checkpoints import versions
from tutorial_lib.hardware import describe_device, pick_device
from tutorial_lib.metrics.digit_features import (
    CARD_ENTRY,
    FOLDER,
    DigitClassifier,
    DigitNet,
    DigitReference,
)

BATCH, LR, SHIFT = 128, 3e-3, 2
REFERENCE = 5000  # images of each split


def shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """The batch, moved by up to ``SHIFT`` pixels each way: samples are less well centered than
    MNIST's images."""
    size = images.shape[-1]
    padded = F.pad(images, [SHIFT] * 4, value=-1.0)
    top, left = torch.randint(2 * SHIFT + 1, (2,), generator=generator).tolist()
    return padded[:, :, top : top + size, left : left + size]


def trained(data: datasets.Dataset, epochs: int, seed: int) -> DigitNet:
    """A classifier after ``epochs`` of AdamW; its learning rate warms up, then falls."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # the network's first weights
    network = DigitNet().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), LR, weight_decay=0.01)
    steps = epochs * (len(data) // BATCH)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / 100, 0.5 + 0.5 * math.cos(math.pi * i / steps))
    )
    for epoch in range(epochs):
        total = 0.0
        order = torch.randperm(len(data), generator=generator)
        for batch in order.split(BATCH)[: len(data) // BATCH]:
            scores = network(shifted(data.images[batch], generator))
            loss = F.cross_entropy(scores, data.labels[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
            total += float(loss)
        print(f"epoch {epoch + 1} of {epochs}: loss {total / (len(data) // BATCH):.4f}", flush=True)
    return network.eval()


def write(path: Path, tensors: dict[str, Tensor], card: dict) -> None:
    """Writes the tensors and the card beside them."""
    card = {CARD_ENTRY: {"name": path.name}, **card, "versions": versions()}
    _sealed.write_with_card(path, tensors, card, CARD_ENTRY)
    print(f"{path}: {path.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args()
    train, test = (datasets.load("mnist", split=split) for split in datasets.SPLITS)
    start = time.perf_counter()
    network = trained(train, options.epochs, options.seed)
    seconds = time.perf_counter() - start
    judge = DigitClassifier(network, {})
    right = judge.probabilities(test.images).argmax(1) == test.labels
    accuracy = float(right.float().mean())
    print(f"test accuracy {accuracy:.4f} after {seconds:.0f} s")
    options.out.mkdir(parents=True, exist_ok=True)
    command = "OMP_NUM_THREADS=1 python tools/train_digit_classifier.py"
    shared = {"dataset": "mnist", "seed": options.seed, "command": command}
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    training = {"epochs": options.epochs, "batch_size": BATCH, "lr": LR, "shift": SHIFT}
    write(
        options.out / "digit_classifier.safetensors",
        weights,
        {
            "what": "weights of tutorial_lib.metrics.digit_features.DigitNet",
            "parameters": sum(p.numel() for p in network.parameters()),
            "metrics": {"test_accuracy": accuracy, "test_images": len(test)},
            "training": {**training, "seconds": round(seconds, 1)},
            "device": describe_device(pick_device("cpu")),
            **shared,
        },
    )
    generator = torch.Generator().manual_seed(options.seed)
    held = {}
    for split, data in zip(datasets.SPLITS, (train, test), strict=True):
        # random ones: the first half of MNIST's test images is easier than the second.
        chosen = torch.randperm(len(data), generator=generator)[:REFERENCE]
        held[split] = judge.features(data.images[chosen]).half()
        held[f"{split}_labels"] = data.labels[chosen].byte()
    assert set(held) == set(DigitReference._fields)
    write(
        options.out / "digit_reference.safetensors",
        held,
        {
            "what": f"float16 features and labels of {REFERENCE} random images of each split",
            **shared,
        },
    )


if __name__ == "__main__":
    main()
