"""Trains the models that draw pictures from words, and counts how often every word is right.

    python benchmarks/words.py --out data
    torchrun --nproc-per-node 2 benchmarks/words.py --out data

First an autoencoder of scenes, ``OUT/autoencoders/scenes``, then a network that draws its latents
from sentences, ``OUT/words``. The second never sees objects of ``HELD_OUT``, so that prompts which
ask for them tell whether it composes. Both are made from fixed numbers of steps, so that the same
command on the same kind of machine gives the same weights. A command that was stopped goes on where
it was: an autoencoder that is there, made with the same settings, is kept, and the run in
``--run-folder`` is resumed. Under ``torchrun`` the processes share each batch of the network's
training.

Each row says how many of ``--count`` prompts were drawn with every word right, by the judge of
``metrics.scenes``, with DDIM; the standard error is that of a share. Prompts are captions of scenes
that were not trained on.
"""

import argparse
import copy
import dataclasses
import math
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import report
import torch
from torch import Tensor

from tutorial_lib import hardware
from tutorial_lib.autoencoders import (
    TrainedAutoencoder,
    load_autoencoder,
    save_autoencoder,
    with_autoencoder,
)
from tutorial_lib.checkpoints import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from tutorial_lib.datasets import scenes
from tutorial_lib.datasets.scene_captions import PARTS, VOCABULARY, parse
from tutorial_lib.hardware import parallel
from tutorial_lib.latents import Codec, peak_signal_to_noise
from tutorial_lib.metrics import judge_scenes
from tutorial_lib.networks.text_unet import TextUNet
from tutorial_lib.sampling import Recipe, draw
from tutorial_lib.training import Run, TrainConfig, train
from tutorial_lib.training.autoencoder import KL_WEIGHT, train_autoencoder
from tutorial_lib.training.batches import Examples, LatentsOf

COMMAND = "OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 benchmarks/words.py --out data"
"""What makes the models that ship."""
HELD_OUT = [
    ("green", "triangle"),
    ("red", "ring"),
    ("blue", "cross"),
    ("yellow", "square"),
    ("magenta", "disc"),
]
"""Combinations that the network never sees; each color and each shape once, cyan never."""
WIDTHS = (48, 96)
"""Of the network: with the autoencoder its weights take at most 5 MB, which may ship."""
STEPS = {"layout": 800, "details": 7_000, "both": 4_000}
"""Of the three parts of the network's training: about half an hour on two idle cores."""
FIRST = 10_000
"""Pictures are drawn, and encoded, so many at a time; each part has a seed of its own."""
PROMPTS_SEED = 1_000_000
"""Of the scenes whose captions are prompts, and of those that test the autoencoder: no training
picture has such a seed."""


def autoencoder_of(options: argparse.Namespace, folder: Path) -> TrainedAutoencoder:
    """The autoencoder in ``folder``, trained unless one with the same settings is there."""
    settings = {
        "steps": options.autoencoder_steps,
        "images": options.autoencoder_images,
        "size": options.size,
        "kl_weight": KL_WEIGHT,
        "seed": options.seed,
    }
    path = folder / "autoencoders" / "scenes"
    try:
        there = load_autoencoder(path)
        if there.card.get("settings") == settings:
            print(f"kept: {there.path}", file=sys.stderr)
            return there
    except CheckpointError:
        pass
    images = scenes(options.autoencoder_images, size=options.size, seed=options.seed).images
    device = hardware.pick_device()
    trained = train_autoencoder(
        quarters(images),
        steps=options.autoencoder_steps,
        seed=options.seed,
        device=device,
        progress=not options.quick,
    )
    codec = Codec.fitted(trained.codec.autoencoder, images[:2048])  # scaled for whole pictures
    path.parent.mkdir(parents=True, exist_ok=True)
    card = {
        "dataset": "scenes",
        "settings": settings,
        "command": COMMAND,
        "seconds": round(trained.seconds, 1),
        "device": hardware.describe_device(device),
        "metrics": quality_of(codec, options),
    }
    save_autoencoder(path, codec.to("cpu"), card=card)
    return load_autoencoder(path)


def quarters(images: Tensor) -> Tensor:
    """Each picture in four parts, without those that show nothing but ground.

    The autoencoder looks no farther than some pixels and has no norms, so it learns as much from a
    part as from the whole, and no time goes to the ground.
    """
    side = images.shape[-1] // 2
    parts = images.unfold(2, side, side).unfold(3, side, side)  # (N, 3, 2, 2, side, side)
    parts = parts.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    spread = parts.amax((2, 3)) - parts.amin((2, 3))  # (4 N, 3)
    return parts[spread.amax(1) > 0.1].contiguous()


def quality_of(codec: Codec, options: argparse.Namespace) -> dict[str, float]:
    """Decibels and the judge's verdict on reconstructions of pictures that were not trained on."""
    test = scenes(options.count, size=options.size, seed=PROMPTS_SEED)
    again = codec.decode(codec.encode(test.images))
    right = judge_scenes(again, test.words).all_right.double().mean()
    return {
        "psnr": round(float(peak_signal_to_noise(test.images, again)), 3),
        "all_right": round(float(right), 4),
    }


def latents_of(trained: TrainedAutoencoder, options: argparse.Namespace) -> Examples:
    """Latents and captions of ``options.images`` scenes without what is held out.

    Drawn and encoded part by part: all pictures together would take gigabytes.
    """
    codec = trained.codec.to(hardware.pick_device())
    latents, words = [], []
    for part, first in enumerate(range(0, options.images, FIRST)):
        count = min(FIRST, options.images - first)
        seed = options.seed + part
        data = scenes(count, size=options.size, seed=seed, held_out=HELD_OUT)
        latents.append(codec.encode(data.images))
        words.append(data.words)
    origin = LatentsOf(
        autoencoder=trained.path.stem,
        checksum=trained.checksum,
        image_shape=(3, options.size, options.size),
        fingerprint={"scenes": options.images, "seed": options.seed, "held_out": str(HELD_OUT)},
    )
    return Examples(torch.cat(latents), torch.cat(words), (), VOCABULARY, origin)


def config_of(options: argparse.Namespace, steps: int, folder: Path) -> TrainConfig:
    """The settings that are usual in this course, with which details are learned."""
    return TrainConfig(
        dataset="scenes",
        size=options.size,
        seed=options.seed,
        text=True,
        widths=tuple(options.widths),
        patch=1,
        text_layers=2,
        target="v",
        weight="min_snr",
        step_sampler="stratified",
        batch_size=options.batch_size,
        steps=steps,
        ema=0.998,
        out=folder,
        resume=True,
        checkpoint_every=min(500, steps),
        keep=1,
        log_every=min(100, steps),
        progress=not options.quick,
    )


def parts_of(options: argparse.Namespace, folder: Path) -> dict[str, TrainConfig]:
    """How the network is trained, part by part, each below ``folder``.

    layout: at the noisiest steps alone. There nothing but the sentence says what is where, so its
        words must be read together: "red" and "left of" make "red, and on the left". Among other
        steps, where the picture itself shows what is where, this is not learned, or lost again.
        From then on the text encoder stays as it is, like those of large models.
    details: what things look like, at all steps. Min-SNR leaves most of the loss where noise is
        about as strong as the signal, and there outlines come out.
    both: min-SNR leaves out the noisiest steps, so t leans there once more, with all t weighed
        alike.
    """
    settings: dict[str, dict[str, Any]] = {
        "layout": {"weight": "v", "step_sampler": "noisiest"},
        "details": {},
        "both": {"weight": "v", "step_sampler": "noisy", "muon_lr": 0.01},
    }
    return {
        name: dataclasses.replace(config_of(options, steps, folder / name), **own)
        for steps, (name, own) in zip(options.steps, settings.items(), strict=True)
    }


def trained_on(
    data: Examples,
    parts: Mapping[str, TrainConfig],
    codec: Codec,
    network: TextUNet | None = None,
    *,
    frozen: bool = True,
) -> dict[str, Run]:
    """All parts in turn, resumed if they are there; done at once if they are finished.

    Args:
        network: where to begin; None for a new one.
        frozen: whether the text encoder stays as the first part leaves it.
    """
    runs: dict[str, Run] = {}
    for name, config in parts.items():
        runs[name] = train(config, data=data, model=network, decode=codec.decode)
        learned = copy.deepcopy(runs[name].ema_network).requires_grad_(True)
        assert isinstance(learned, TextUNet), "what train makes where text is True"
        learned.text.requires_grad_(not frozen)
        network = learned
    return runs


def pictures_of(
    checkpoint: Checkpoint, words: Tensor, scale: float, options: argparse.Namespace
) -> Tensor:
    """What is drawn from ``words`` at a guidance scale, picture i from the i-th noise."""
    recipe = Recipe(steps=options.walk, guidance=scale, seed=options.seed)
    pictures = []
    for first in range(0, len(words), options.batch):
        numbers = range(first, min(first + options.batch, len(words)))
        pictures.append(draw(checkpoint, recipe, numbers, words[numbers.start : numbers.stop]))
    return torch.cat(pictures)


def share_right(
    checkpoint: Checkpoint, words: Tensor, scale: float, options: argparse.Namespace
) -> dict[str, float]:
    """The share of prompts with every word right and its standard error, the same for prompts of
    one and of two objects, and the share of words that hold, those of relations apart."""
    start = time.perf_counter()
    pictures = pictures_of(checkpoint, words, scale, options)
    seconds = time.perf_counter() - start
    verdict = judge_scenes(pictures, words)
    said, right = parse(words), verdict.all_right
    share = float(right.double().mean())
    relations = verdict.right[said.part == PARTS.index("relation")]
    return {
        "all right": round(share, 4),
        "error": round(math.sqrt(share * (1 - share) / len(words)), 4),
        "one object": round(float(right[said.relation < 0].double().mean()), 4),
        "two objects": round(float(right[said.relation >= 0].double().mean()), 4),
        "words right": round(float(verdict.right[words != 0].double().mean()), 4),
        "relations": round(float(relations.double().mean()), 4),
        "pictures/s": round(len(words) / seconds, 1),
    }


def ship(runs: Mapping[str, Run], folder: Path) -> Path:
    """Saves the checkpoint of the last run as ``folder``/words; its card says what was held out,
    and how the runs before it were made."""
    *before, last = (load_checkpoint(run.checkpoint) for run in runs.values())
    card = {
        name: value
        for name, value in last.card.items()
        if name not in ("format", "weights", "network", "target", "versions")
    }
    card["config"] = _anywhere(last.card["config"])
    card["after"] = [
        {
            "steps": checkpoint.card["steps"],
            "seconds": checkpoint.card["seconds"],
            "config": _anywhere(checkpoint.card["config"]),
        }
        for checkpoint in before
    ]
    card["held_out"] = [list(words) for words in HELD_OUT]
    card["command"] = COMMAND
    target = last.card["target"]
    return save_checkpoint(folder / "words", last.network, last.schedule, target=target, card=card)


def _anywhere(config: dict[str, Any]) -> dict[str, Any]:
    """A run's config without the place where the run was on one machine."""
    return {**config, "out": f"runs/words/{Path(config['out']).name}"}


def measured(options: argparse.Namespace, folder: Path, run_folder: Path) -> list[dict[str, Any]]:
    """Trains both models, ships them to ``folder`` and judges what they draw."""
    with parallel.processes(hardware.pick_device()) as ranks:  # the first trains it
        trained = ranks.in_turns(lambda: autoencoder_of(options, folder))
        runs = trained_on(
            latents_of(trained, options), parts_of(options, run_folder), trained.codec
        )
    if not parallel.is_first():
        return []
    row = {
        "model": "autoencoder",
        "prompts": "-",
        "guidance": "-",
        "seconds": trained.card["seconds"],
    }
    metrics = trained.card["metrics"]
    rows: list[dict[str, Any]] = [
        {**row, "all right": metrics["all_right"], "psnr": metrics["psnr"]}
    ]
    place = ship(runs, folder)
    checkpoint = load_checkpoint(place, device=hardware.pick_device())
    checkpoint = with_autoencoder(checkpoint, trained.path)
    asked = {
        "seen": scenes(options.count, size=options.size, seed=PROMPTS_SEED, held_out=HELD_OUT),
        "held out": scenes(options.count, size=options.size, seed=PROMPTS_SEED, only=HELD_OUT),
    }
    seconds = round(sum(run.seconds for run in runs.values()), 1)
    for scale in options.guidance:
        for name, data in asked.items():
            found = share_right(checkpoint, data.words, scale, options)
            model = {"model": f"guidance {scale:g}, {name}", "prompts": name, "guidance": scale}
            rows.append({**model, "seconds": seconds, **found})
            print(f"{model['model']}: {found['all right']}", file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = report.parser(__doc__, __file__)
    parser.add_argument("--out", type=Path, help="folder for the models (default: none is kept)")
    parser.add_argument(
        "--run-folder", type=Path, help="folder of the training run (default: runs/words)"
    )
    parser.add_argument("--autoencoder-steps", type=int, default=2000)
    parser.add_argument("--autoencoder-images", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=20_000, help="scenes to learn words from")
    names = ", ".join(STEPS)
    parser.add_argument(
        "--steps", type=int, nargs=len(STEPS), default=list(STEPS.values()), help=f"for {names}"
    )
    parser.add_argument("--batch-size", type=int, default=64, help="scenes in a training step")
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS))
    parser.add_argument("--size", type=int, default=64, help="side of the pictures")
    parser.add_argument("--count", type=int, default=512, help="prompts of each kind")
    parser.add_argument("--guidance", type=float, nargs="+", default=[1, 2, 4])
    parser.add_argument("--walk", type=int, default=30, help="steps of DDIM")
    parser.add_argument("--batch", type=int, default=64, help="pictures drawn at once")
    options = parser.parse_args()
    if options.quick:
        options.autoencoder_steps, options.autoencoder_images, options.images = 3, 40, 40
        options.steps, options.batch_size = [2, 3, 2], 8
        options.widths, options.size = [16, 16], 16
        options.count, options.guidance, options.walk = 8, [2.0], 3
    hardware.keep_freed_memory()
    result = report.about(options, __file__)
    asked = {
        k: v for k, v in vars(options).items() if k not in ("json", "out", "run_folder", "quick")
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or Path(scratch)
        usual = Path(scratch, "run") if options.out is None else Path("runs", "words")
        folder.mkdir(parents=True, exist_ok=True)
        rows = measured(options, folder, options.run_folder or usual)
    if not rows:  # not the first process of several
        return
    same = {"held_out": [list(words) for words in HELD_OUT], **asked}
    report.write(options, {**result, **same, "rows": rows})
    keys = list(dict.fromkeys(key for row in rows for key in row))
    print(report.table([{key: row.get(key, "-") for key in keys} for row in rows]))


if __name__ == "__main__":
    main()
