"""What makes a model learn what sentences say: one thing is changed at a time.

    python benchmarks/word_settings.py

Each row trains the network of ``words.py``, part by part as there but for the fewer ``--steps``, on
the same latents of the shipped autoencoder, with the same seed, and draws the same ``--count``
prompts from the same noise. It says how many are drawn with every word right, prompts of one object
and of two apart, and how many words about color, shape and relation hold, each with the standard
error over prompts. A relation holds by chance in one of four pictures. Rows of a seed differ by
what they say alone; another seed has other scenes, weights and order.
"""

import argparse
import dataclasses
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import report
import torch
import words
from torch import Tensor

from tutorial_lib import hardware
from tutorial_lib.autoencoders import TrainedAutoencoder, load_autoencoder, with_autoencoder
from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.datasets import scenes
from tutorial_lib.datasets.scene_captions import PARTS, VOCABULARY, parse
from tutorial_lib.metrics import judge_scenes
from tutorial_lib.networks.text_unet import TextUNet
from tutorial_lib.training import TrainConfig
from tutorial_lib.training.batches import Examples

SETTINGS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "no cross-attention: the mean of the words": {"cross_attention": False},
    "words not read together: no text layers": {"text_layers": 0},
    "places not told where they are": {"places": False},
    "text encoder trained to the end": {"frozen": False},
    "layout not first": {"layout": False},
}
"""What a row changes: arguments of the network; whether the text encoder stays as the first part
leaves it; and whether there is that part, whose steps the next one gets else."""
KINDS = ("color", "shape", "relation")
"""Kinds of words; of both objects where there are two."""


def network_of(options: argparse.Namespace, settings: dict[str, Any]) -> TextUNet:
    """The network, from the same first random numbers for every setting."""
    own = {name: settings[name] for name in settings if name not in ("frozen", "layout")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        return TextUNet(4, len(VOCABULARY), VOCABULARY.length, **{"widths": options.widths, **own})


def parts_of(
    options: argparse.Namespace, settings: dict[str, Any], folder: Path
) -> dict[str, TrainConfig]:
    """The parts of the training, as long together in every row."""
    parts = words.parts_of(options, folder)
    if not settings.get("layout", True):
        layout, details, _ = options.steps
        del parts["layout"]
        parts["details"] = dataclasses.replace(parts["details"], steps=layout + details)
    return parts


def trained(
    data: Examples,
    autoencoder: TrainedAutoencoder,
    options: argparse.Namespace,
    settings: dict[str, Any],
    asked: Tensor,
) -> dict[str, Any]:
    """Trains with these settings; what the network then draws, as numbers."""
    with tempfile.TemporaryDirectory() as folder:
        runs = words.trained_on(
            data,
            parts_of(options, settings, Path(folder)),
            autoencoder.codec,
            network_of(options, settings),
            frozen=settings.get("frozen", True),
        )
        *_, run = runs.values()
        checkpoint = load_checkpoint(run.checkpoint, device=hardware.pick_device())
    checkpoint = with_autoencoder(checkpoint, autoencoder.path)
    pictures = words.pictures_of(checkpoint, asked, options.guidance, options)
    verdict, said = judge_scenes(pictures, asked), parse(asked)
    one = said.relation < 0
    columns = {
        "all right": verdict.all_right,
        "one object": verdict.all_right[one],
        "two objects": verdict.all_right[~one],
    }
    for kind in KINDS:
        parts = torch.tensor([i for i, part in enumerate(PARTS) if part.endswith(kind)])
        columns[kind] = verdict.right[torch.isin(said.part, parts)]
    row: dict[str, Any] = {"seconds": round(sum(run.seconds for run in runs.values()), 1)}
    for name, right in columns.items():
        share = float(right.double().mean())
        row[name] = round(share, 4)
        row[f"{name}, error"] = round(math.sqrt(share * (1 - share) / len(right)), 4)
    return row


def measured(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each seed and setting."""
    autoencoder = load_autoencoder("scenes")
    asked = scenes(options.count, size=64, seed=words.PROMPTS_SEED, held_out=words.HELD_OUT).words
    chosen = options.only or SETTINGS
    rows = []
    for seed in options.seed:
        own = argparse.Namespace(**{**vars(options), "seed": seed})
        data = words.latents_of(autoencoder, own)
        for name in chosen:
            row = trained(data, autoencoder, own, SETTINGS[name], asked)
            rows.append({"model": name, "seed": seed, **row})
            print(f"{name}, seed {seed}: {row['all right']}", file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = report.parser(__doc__, __file__, seeds=(0,))
    parser.add_argument("--images", type=int, default=20_000, help="scenes to learn words from")
    names = ", ".join(words.STEPS)
    parser.add_argument("--steps", type=int, nargs=3, default=[600, 900, 600], help=f"for {names}")
    parser.add_argument("--batch-size", type=int, default=64, help="scenes in a training step")
    parser.add_argument("--widths", type=int, nargs="+", default=list(words.WIDTHS))
    parser.add_argument("--count", type=int, default=512, help="prompts")
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--walk", type=int, default=30, help="steps of DDIM")
    parser.add_argument("--batch", type=int, default=64, help="pictures drawn at once")
    parser.add_argument("--only", nargs="+", choices=list(SETTINGS), help="some of the settings")
    options = parser.parse_args()
    options.size = 64
    if options.quick:
        options.images, options.steps, options.batch_size = 40, [1, 1, 1], 8
        options.widths, options.count, options.walk = [16, 16], 8, 2
    hardware.keep_freed_memory()
    result = report.about(options, __file__)
    asked = {k: v for k, v in vars(options).items() if k not in ("json", "quick")}
    rows = measured(options)
    report.write(options, {**result, **asked, "rows": rows})
    print(report.table(rows))


if __name__ == "__main__":
    main()
