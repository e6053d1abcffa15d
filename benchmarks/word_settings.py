"""Which settings make a model learn what sentences say: one is changed at a time.

    python benchmarks/word_settings.py

Each row trains the network of ``words.py`` for ``--steps`` steps on the same latents of the shipped
autoencoder, with the same seed, and draws the same ``--count`` prompts from the same noise. It says
how many are drawn with every word right, prompts of one object and of two apart, and how many words
about color, shape and relation hold, each with the standard error over prompts. Rows of a seed
differ by their settings alone; another seed has other scenes, weights and order.
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
from tutorial_lib.training import train
from tutorial_lib.training.batches import Examples

SETTINGS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "no cross-attention: the mean of the words": {"cross_attention": False},
    "words not read together: no text layers": {"text_layers": 0},
    "weight v": {"weight": "v"},
    "weight v, noisy steps": {"weight": "v", "step_sampler": "noisy"},
}
KINDS = ("color", "shape", "relation")
"""Kinds of words; of both objects where there are two."""


def network_of(options: argparse.Namespace, settings: dict[str, Any]) -> TextUNet:
    """The network, from the same first random numbers for every setting."""
    names = ("cross_attention", "text_layers")
    own = {name: settings[name] for name in names if name in settings}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        return TextUNet(4, len(VOCABULARY), VOCABULARY.length, **{"widths": options.widths, **own})


def trained(
    data: Examples,
    autoencoder: TrainedAutoencoder,
    options: argparse.Namespace,
    settings: dict[str, Any],
    asked: Tensor,
) -> dict[str, Any]:
    """Trains with these settings; what the network then draws, as numbers."""
    own = {name: settings[name] for name in ("weight", "step_sampler") if name in settings}
    with tempfile.TemporaryDirectory() as folder:
        config = words.config_of(options, options.steps, Path(folder) / "run")
        run = train(
            dataclasses.replace(config, **own),
            data=data,
            model=network_of(options, settings),
            decode=autoencoder.codec.decode,
        )
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
    row: dict[str, Any] = {"seconds": round(run.seconds, 1)}
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
    parser.add_argument("--steps", type=int, default=1_500, help="training steps")
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
        options.images, options.steps, options.batch_size, options.widths = 40, 2, 8, [16, 16]
        options.count, options.walk = 8, 2
    hardware.keep_freed_memory()
    result = report.about(options, __file__)
    asked = {k: v for k, v in vars(options).items() if k not in ("json", "quick")}
    rows = measured(options)
    report.write(options, {**result, **asked, "rows": rows})
    print(report.table(rows))


if __name__ == "__main__":
    main()
