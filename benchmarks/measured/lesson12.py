"""Lesson 12: what an autoencoder saves, what it costs, and what diffusion makes of its latents.

Pictures to draw are scenes of one large object on black, a disc, a square or a triangle, in 32 x 32
pixels: easy enough that twelve seconds of training say something. Costs of a step are those
of 64 x 64.
"""

import functools
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from words import quarters

from measured.claim import Claim, Numbers, paired
from tutorial_lib import hardware
from tutorial_lib.autoencoders import load_autoencoder
from tutorial_lib.datasets import scenes
from tutorial_lib.datasets.scene_captions import COLORS, parse
from tutorial_lib.datasets.scene_shapes import SHAPES
from tutorial_lib.guidance import guide, labeled
from tutorial_lib.latents import Codec, peak_signal_to_noise
from tutorial_lib.losses import epsilon_loss
from tutorial_lib.metrics import frechet_distance, judge_scenes
from tutorial_lib.metrics.digit_features import load_digit_classifier
from tutorial_lib.networks import TinyUNet
from tutorial_lib.networks.autoencoder import Autoencoder
from tutorial_lib.predictions import as_eps_model
from tutorial_lib.samplers import ddim, evenly_spaced, last
from tutorial_lib.schedules import cosine_schedule
from tutorial_lib.training import TrainConfig, train
from tutorial_lib.training.autoencoder import train_autoencoder

TEST_SEED = 1_000_000
"""Of pictures that nothing was trained on."""

# --- what a step costs ----------------------------------------------------------------------------

WAYS = {"patch 1": 1, "patch 2": 2, "patch 4": 4}
"""In pixels of 64 x 64; the latents have 16 x 16 places, and the network takes each for one."""


def _shape_and_patch(way: str) -> tuple[tuple[int, int, int], int]:
    return ((4, 16, 16), 1) if way == "latents" else ((3, 64, 64), WAYS[way])


@functools.cache
def costs(quick: bool) -> Numbers:
    """Values, multiplications and CPU seconds of a training step, one network in all ways."""
    hardware.keep_freed_memory()
    batch, rounds = (1, 2) if quick else (16, 5)
    widths = (8, 8) if quick else (32, 64)
    schedule, found = cosine_schedule(1000), dict[str, Any](batch=batch, rounds=rounds)
    networks = {}
    for way in ("latents", *WAYS):
        shape, patch = _shape_and_patch(way)
        torch.manual_seed(0)
        networks[way] = TinyUNet(shape[0], widths=widths, patch=patch)
        x = torch.randn(1, *shape)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            networks[way](x, torch.tensor([500]))
        multiplications = counter.get_total_flops() // 2
        values = math.prod(shape)
        found[way] = {"values": values, "multiplications": multiplications, "seconds": []}
    for _ in range(rounds + 1):  # the first one warms up
        for way, network in networks.items():
            x = torch.randn(batch, *_shape_and_patch(way)[0])
            start = time.process_time()
            epsilon_loss(as_eps_model(network, schedule, "v"), schedule, x).backward()
            network.zero_grad()
            found[way]["seconds"].append(round(time.process_time() - start, 5))
    for way in networks:
        found[way]["seconds"] = found[way]["seconds"][1:]
    return found


def _times(numbers: Numbers, way: str) -> list[float]:
    """How many times as long a step takes as in latents, round by round."""
    pairs = zip(numbers[way]["seconds"], numbers["latents"]["seconds"], strict=True)
    return [a / b for a, b in pairs]


def _cost_verdict(numbers: Numbers) -> str:
    times = _times(numbers, "patch 4")
    dearer = paired(times, [1.0] * len(times))
    far = statistics.mean(_times(numbers, "patch 1"))
    against = "more than" if dearer.told_apart and dearer.mean > 0 else "as much as"
    if dearer.told_apart and dearer.mean < 0:
        against = "less than"
    return f"here {far:.0f} times; patches of 4 cost {against} latents"


def _cost_number(numbers: Numbers) -> str:
    base = numbers["latents"]["multiplications"]
    most = "/".join(f"{numbers[way]['multiplications'] / base:.1f}" for way in WAYS)
    seconds = "/".join(f"{statistics.mean(_times(numbers, way)):.1f}" for way in WAYS)
    return (
        f"64 x 64 pixels against latents, patches of 1/2/4: multiplications {most}, "
        f"CPU seconds a step {seconds} times ({numbers['rounds']} rounds, batch {numbers['batch']})"
    )


# --- scenes of one object -------------------------------------------------------------------------

ASKED = ("disc", "square", "triangle")
_LEFT_OUT = [("small",), ("cross",), ("ring",)]
CLASSES = [f"a {color} {shape}" for color in list(COLORS)[:6] for shape in ASKED]


class Pictures(NamedTuple):
    """Pictures (N, 3, 32, 32) of one object each, and which of ``CLASSES`` it is, (N,)."""

    images: Tensor
    labels: Tensor


@functools.cache
def one_object(count: int) -> Pictures:
    data = scenes(count, size=32, held_out=_LEFT_OUT)
    said = parse(data.words)
    black = data.images[:, :, 0, 0].mean(1) < -0.5
    one = (said.relation < 0) & black
    kinds = torch.tensor([ASKED.index(shape) if shape in ASKED else -1 for shape in SHAPES])
    labels = said.color[one, 0] * len(ASKED) + kinds[said.shape[one, 0]]
    return Pictures(data.images[one], labels)


class Way(NamedTuple):
    """Something to train on, and how.

    Attributes:
        x: (N, ...), pictures or latents.
        decode: turns such samples into pictures.
        options: of the training.
    """

    x: Tensor
    decode: Callable[[Tensor], Tensor]
    options: dict[str, Any]


def _clamped(x: Tensor) -> Tensor:
    return x.clamp(-1, 1)


def drawn(way: Way, labels: Tensor, seed: int, seconds: float, quick: bool) -> Numbers:
    """Trains for so many CPU seconds, draws each class some times, and asks the judge."""
    hardware.keep_freed_memory()
    widths, walk, each = ((8, 8), 2, 1) if quick else ((32, 64), 30, EACH)
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            seed=seed,
            conditional=True,
            widths=widths,
            batch_size=64,
            step_sampler="stratified",
            ema=0.98,
            steps=2 if quick else None,
            max_seconds=None if quick else seconds,
            progress=False,
            out=Path(folder) / "run",
            **way.options,
        )
        run = train(config, data=(way.x, labels), decode=way.decode, clock=time.process_time)
    asked = torch.arange(len(CLASSES)).repeat(each)
    model = labeled(run.ema_network, run.schedule, config.target)
    model = guide(model, asked, 2.0, len(CLASSES))
    generator = torch.Generator().manual_seed(1000 + seed)
    x_T = torch.randn(len(asked), *way.x.shape[1:], generator=generator)
    pictures = way.decode(last(ddim(model, run.schedule, x_T, evenly_spaced(1000, walk))))
    verdict = judge_scenes(pictures, [CLASSES[i] for i in asked.tolist()])
    color = torch.arange(6).repeat_interleave(len(ASKED))[asked]
    return {
        "steps": len(run.losses),
        "right": _share(verdict.all_right),
        "color": _share(verdict.found.color[:, 0] == color),
        "one object": _share(verdict.found.number == 1),
    }


def _share(hits: Tensor) -> float:
    return round(float(hits.double().mean()), 4)


SECONDS = 12.0
"""CPU seconds of training that each contender gets."""
EACH = 4
"""Pictures that are drawn of each class."""


@functools.cache
def _shipped() -> Codec:
    return load_autoencoder("scenes").codec


def _in(codec: Codec, shift: Tensor, scale: Tensor, images: Tensor) -> Way:
    """The latents of these pictures with another shift and scale."""
    other = Codec(codec.autoencoder, shift, scale)
    return Way(other.encode(images), other.decode, {"patch": 1})


def _contender(name: str, quick: bool) -> Way:
    """One of those that draw scenes of one object."""
    images = one_object(400 if quick else 18_000).images
    shipped = _shipped()
    codec = Codec.fitted(shipped.autoencoder, images)
    if name == "latents":
        return Way(codec.encode(images), codec.decode, {"patch": 1})
    if name == "unscaled":  # as the encoder gives them
        return _in(codec, torch.zeros_like(codec.shift), torch.ones_like(codec.scale), images)
    if name == "five times":  # what Stable Diffusion would have without its 0.18215
        return _in(codec, codec.shift, codec.scale / 5, images)
    if name == "other pictures":  # scaled for scenes on black, gray and white, which spread more
        return _in(codec, shipped.shift, shipped.scale, images)
    if name == "patch 4":
        # v would ask for 48 numbers of noise at a place from a network with 32 channels
        return Way(images, _clamped, {"patch": 4, "target": "x0"})
    return Way(images, _clamped, {"patch": 2})


@functools.cache
def contenders(quick: bool) -> Numbers:
    """The same network and the same CPU seconds, in pixels and in latents."""
    seeds, seconds = ([0, 1], 1.0) if quick else ([0, 1, 2], SECONDS)
    pictures = one_object(400 if quick else 18_000)
    found: dict[str, Any] = {"seeds": seeds, "cpu_seconds": seconds, "count": 0}
    found["count"] = len(CLASSES) * (1 if quick else EACH)
    for name in ("latents", "patch 2", "patch 4", "unscaled", "other pictures", "five times"):
        way = _contender(name, quick)
        rows = [drawn(way, pictures.labels, seed, seconds, quick) for seed in seeds]
        found[name] = {key: [row[key] for row in rows] for key in rows[0]}
    return found


def _percent(values: Sequence[float]) -> str:
    return f"{100 * statistics.mean(values):.0f}"


def _about(numbers: Numbers) -> str:
    return f"({len(numbers['seeds'])} seeds of {numbers['count']:,})"


def _against(numbers: Numbers, name: str, key: str = "right") -> Any:
    return paired(numbers["latents"][key], numbers[name][key])


def _pixels_verdict(numbers: Numbers) -> str:
    better = [n for n in ("2", "4") if _better(numbers, f"patch {n}")]
    if len(better) == 2:
        return "yes, against both sizes of patch"
    return f"told apart only from patches of {better[0]}" if better else "not told apart"


def _better(numbers: Numbers, name: str) -> bool:
    difference = _against(numbers, name)
    return difference.told_apart and difference.mean > 0


def _pixels_number(numbers: Numbers) -> str:
    names = ("latents", "patch 2", "patch 4")
    right = "/".join(_percent(numbers[name]["right"]) for name in names)
    steps = "/".join(f"{statistics.mean(numbers[name]['steps']):.0f}" for name in names)
    less = 100 * _against(numbers, "patch 2").mean, 100 * _against(numbers, "patch 2").error
    return (
        f"latents, patches of 2, of 4: right {right} % after {steps} steps; latents minus patches "
        f"of 2 {less[0]:+.0f} ± {less[1]:.0f} % {_about(numbers)}"
    )


WRONG_SCALES = {
    "unscaled": "as they come",
    "other pictures": "for other pictures",
    "five times": "five times too large",
}


def _scale_verdict(numbers: Numbers) -> str:
    worse = [text for name, text in WRONG_SCALES.items() if _better(numbers, name)]
    return f"it trains; worse: {', '.join(worse)}" if worse else "it trains, not told apart"


def _scale_number(numbers: Numbers) -> str:
    names = ("latents", *WRONG_SCALES)
    right = "/".join(_percent(numbers[name]["right"]) for name in names)
    errors = "/".join(
        f"{100 * d.mean:.0f} ± {100 * d.error:.0f}"
        for d in (_against(numbers, name) for name in WRONG_SCALES)
    )
    return (
        f"scaled/as they come/scaled for other pictures/five times too large: right {right} %, "
        f"less by {errors} {_about(numbers)}"
    )


# --- the ceiling ----------------------------------------------------------------------------------

TOO_SMALL = {"widths": (16, 16), "latent_channels": 2}


def _trained(seed: int, steps: int, quick: bool, kl_weight: float, **config: Any) -> Codec:
    images = scenes(40 if quick else 2000, size=64, seed=seed).images
    torch.manual_seed(seed)
    autoencoder = Autoencoder(3, **config)
    train_autoencoder(
        quarters(images),
        autoencoder,
        steps=2 if quick else steps,
        kl_weight=kl_weight,
        seed=seed,
        progress=False,
    )
    return Codec.fitted(autoencoder, images[:512])


def _pca_again(train_on: Tensor, images: Tensor, count: int) -> Tensor:
    """Patches of 4 x 4 pixels by their ``count`` best numbers, as many as a latent has."""

    def patches(x: Tensor) -> Tensor:
        return torch.nn.functional.unfold(x, 4, stride=4).transpose(1, 2)  # (N, places, 48)

    flat = patches(train_on).flatten(0, 1)
    mean = flat.mean(0)
    rows = torch.linalg.eigh((flat - mean).T @ (flat - mean)).eigenvectors[:, -count:]
    again = mean + (patches(images) - mean) @ rows @ rows.T
    size = images.shape[2:]
    return torch.nn.functional.fold(again.transpose(1, 2), size, 4, stride=4).clamp(-1, 1)


REFERENCE_SEED = 2_000_000
"""Of other pictures, with which the Fréchet distance compares."""


def _outlines(images: Tensor, originals: Tensor) -> Tensor:
    """Features of shapes, 64 for each quarter that shows something in the originals.

    There is no classifier of scenes. As Inception, trained on photographs, also judges faces and
    churches, so the digit classifier of lesson 7 judges outlines here: it is shown how far each
    pixel is from the ground, bright on black, in the middle 28 x 28 pixels of each quarter of a
    scene. Colors hardly count, and which quarter it is does not.
    """

    def inked(x: Tensor) -> Tensor:
        gray = x.mean(1, keepdim=True)
        return (gray - gray[:, :, :1, :1]).abs().clamp(max=1.0) * 2 - 1

    def middles(x: Tensor) -> Tensor:
        parts = x.unfold(2, 32, 32).unfold(3, 32, 32)  # (N, 1, 2, 2, 32, 32)
        return parts.flatten(0, 3)[:, None, 2:30, 2:30]

    shown = middles(inked(originals)).flatten(1)
    chosen = shown.amax(1) - shown.amin(1) > 0.1
    return load_digit_classifier().features(middles(inked(images))[chosen])


@functools.cache
def ceiling(quick: bool) -> Numbers:
    """What judge and Fréchet distance say of reconstructions; nothing was drawn by diffusion."""
    seeds, count, others = ([0, 1], 16, 32) if quick else (list(range(5)), 512, 2048)
    found: dict[str, Any] = {"seeds": seeds, "count": count, "reference": others}
    reference = scenes(others, seed=REFERENCE_SEED).images
    reference = _outlines(reference, reference)
    found["real"] = {"frechet": []}
    for seed in seeds:
        test = scenes(count, seed=TEST_SEED + seed)
        small = _trained(seed, 800, quick, 1e-6, **TOO_SMALL)
        again = {
            "PCA": _pca_again(scenes(64 if quick else 500, seed=seed).images, test.images, 4),
            "shipped": _shipped().decode(_shipped().encode(test.images)),
            "too small": small.decode(small.encode(test.images)),
        }
        asked = parse(test.words)
        for name, images in {"real": test.images, **again}.items():
            distance = frechet_distance(_outlines(images, test.images), reference)
            row = found.setdefault(
                name, {"frechet": [], "psnr": [], "right": [], "ring or cross": []}
            )
            row["frechet"].append(round(distance, 4))
            if name == "real":
                continue
            verdict = judge_scenes(images, test.words)
            row["psnr"].append(round(float(peak_signal_to_noise(test.images, images)), 3))
            row["right"].append(_share(verdict.all_right))
            names = list(SHAPES)
            hard = (asked.shape == names.index("ring")) | (asked.shape == names.index("cross"))
            row["ring or cross"].append(_share(verdict.all_right[hard.any(1)]))
    return found


def _ceiling_verdict(numbers: Numbers) -> str:
    lost = paired(numbers["shipped"]["right"], numbers["too small"]["right"])
    told = lost.told_apart and lost.mean > 0
    return "no: objects are lost for good" if told else "not told apart"


def _ceiling_number(numbers: Numbers) -> str:
    names = ("PCA", "too small", "shipped")
    right = "/".join(_percent(numbers[name]["right"]) for name in names)
    psnr = "/".join(f"{statistics.mean(numbers[name]['psnr']):.1f}" for name in names)
    small = numbers["too small"]
    return (
        f"reconstructions by PCA/too small/shipped: right {right} % at {psnr} dB; with ring or "
        f"cross, too small {_percent(small['ring or cross'])} % {_about(numbers)}"
    )


AUTOENCODERS = ("PCA", "too small", "shipped")


def _frechet_verdict(numbers: Numbers) -> str:
    farther = {
        name: paired(numbers[name]["frechet"], numbers["real"]["frechet"]) for name in AUTOENCODERS
    }
    worse = [name for name, much in farther.items() if much.told_apart and much.mean > 0]
    if not worse:
        return "none told apart from real pictures"
    rest = [name for name in AUTOENCODERS if name not in worse]
    more = f"; {', '.join(rest)}: not told apart" if rest else ""
    return f"farther than real pictures: {', '.join(worse)}{more}"


def _frechet_number(numbers: Numbers) -> str:
    names = (*AUTOENCODERS, "real")
    far = "/".join(f"{statistics.mean(numbers[name]['frechet']):.2f}" for name in names)
    more = paired(numbers["shipped"]["frechet"], numbers["real"]["frechet"])
    return (
        f"Fréchet distance of outlines, by PCA/too small/shipped/real: {far}; shipped minus real "
        f"{more} ({len(numbers['seeds'])} seeds of {numbers['count']}, "
        f"{numbers['reference']:,} others; features of the digit classifier)"
    )


# --- the weight of the divergence -----------------------------------------------------------------

KL_WEIGHTS = (1e-6, 1e-4, 1e-2)


@functools.cache
def divergences(quick: bool) -> Numbers:
    """The same autoencoder with three weights; what it gives back, and what diffusion draws."""
    seeds, seconds = ([0, 1], 1.0) if quick else ([0, 1], SECONDS)
    pictures = one_object(400 if quick else 18_000)
    test = scenes(16 if quick else 256, seed=TEST_SEED)
    count = len(CLASSES) * (1 if quick else EACH)
    found: dict[str, Any] = {"seeds": seeds, "cpu_seconds": seconds, "count": count}
    for weight in KL_WEIGHTS:
        row: dict[str, list[float]] = {"psnr": [], "spread": [], "noise": [], "right": []}
        for seed in seeds:
            codec = _trained(seed, 200, quick, weight)
            again = codec.decode(codec.encode(test.images))
            with torch.no_grad():
                noise = codec.autoencoder.encode(test.images[:64]).log_variance.div(2).exp()
            row["psnr"].append(round(float(peak_signal_to_noise(test.images, again)), 3))
            row["spread"].append(round(float(codec.scale.mean()), 4))
            share = noise.mean((0, 2, 3)) / codec.scale
            row["noise"].append(round(float(share.mean()), 5))
            codec = Codec.fitted(codec.autoencoder, pictures.images)
            way = Way(codec.encode(pictures.images), codec.decode, {"patch": 1})
            result = drawn(way, pictures.labels, seed, seconds, quick)
            row["right"].append(result["right"])
        found[f"{weight:g}"] = row
    return found


def _kl_verdict(numbers: Numbers) -> str:
    spread = statistics.mean(numbers["1e-06"]["spread"])
    return f"no: at 1e-6 their spread is {spread:.1f}, hence the scale"


def _kl_number(numbers: Numbers) -> str:
    names = [f"{weight:g}" for weight in KL_WEIGHTS]
    spread = "/".join(f"{statistics.mean(numbers[n]['spread']):.1f}" for n in names)
    psnr = "/".join(f"{statistics.mean(numbers[n]['psnr']):.1f}" for n in names)
    right = "/".join(_percent(numbers[n]["right"]) for n in names)
    return (
        f"weights {'/'.join(names)}: spread {spread}, reconstructions {psnr} dB, drawn right "
        f"{right} % {_about(numbers)}"
    )


CLAIMS = [
    Claim("latent_cost", "Latents are 48 times cheaper", costs, _cost_verdict, _cost_number),
    Claim(
        "latent_quality",
        "Diffusion in latents learns faster",
        contenders,
        _pixels_verdict,
        _pixels_number,
    ),
    Claim(
        "latent_scale",
        "Without the scale it does not train",
        contenders,
        _scale_verdict,
        _scale_number,
    ),
    Claim(
        "latent_ceiling",
        "A small autoencoder only blurs a little",
        ceiling,
        _ceiling_verdict,
        _ceiling_number,
    ),
    Claim(
        "latent_frechet",
        "The autoencoder costs no quality",
        ceiling,
        _frechet_verdict,
        _frechet_number,
    ),
    Claim(
        "latent_divergence",
        "The divergence makes latents standard normal",
        divergences,
        _kl_verdict,
        _kl_number,
    ),
]
