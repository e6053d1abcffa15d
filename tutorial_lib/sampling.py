"""Images by the thousand: drawn with a checkpoint, streamed to disk, resumed, shared out.

``write_shards`` leaves a folder:

    samples.json                  what determines the images, see ``Recipe``, and the checkpoint
    shard-00000.safetensors, ...  ``images`` uint8 (N, C, H, W) as in a PNG, 0 for -1 and 255 for
                                  1, and ``labels`` int64, what the network was told, a row an
                                  image; in the header a checksum of the whole file

Image i is determined by the recipe and by i. All its noise, at the start and on the way, comes from
the stream (seed, i), so the noise is the same to the bit however the images are divided among
batches, shards, processes or interrupted runs. The network's answer may differ in its last bits for
batches of another size, so every batch is filled up to ``batch`` images. With the same ``batch``,
device and library versions the images, too, are then the same to the bit, whatever their number,
the number of processes and the interruptions.
"""

import dataclasses
import hashlib
import json
import math
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from tutorial_lib import _files, _sealed, _validate, hardware, samplers
from tutorial_lib._random import Streams, normal_like
from tutorial_lib._typing import Condition, EpsModel
from tutorial_lib._validate import FileError, InvalidTypeError, InvalidValueError
from tutorial_lib.checkpoints import Checkpoint, versions
from tutorial_lib.guidance import guide, labelled
from tutorial_lib.hardware import parallel
from tutorial_lib.images import from_bytes, to_bytes
from tutorial_lib.predictions import clip_x0
from tutorial_lib.samplers import SAMPLERS

DEFAULT_STEPS = 50
"""Length of a walk, unless its sampler walks every step by default."""
MANIFEST = "samples.json"
SHARD = 1024
"""Images in a shard: a megabyte of digits, 12 of 64 x 64 RGB. No more are held in memory."""
_FORMAT = 2
_ONCE_IMPLIED = {"guidance": 1.0}
"""What the manifests of older folders leave out."""


@dataclass(frozen=True)
class Recipe:
    """What determines the images that a checkpoint draws, and how many are drawn at once."""

    sampler: str = field(default="ddim", metadata={"one_of": SAMPLERS})
    """How to walk from noise to an image: the name of a sampler."""
    steps: int | None = None
    """Length of the walk (steps); None means 50, or all T for ddpm."""
    eta: float = 0.0
    """Share of fresh noise in a ddim step, in [0, 1]; 0 is deterministic."""
    variance: str = "posterior"
    """Variance of the noise in a ddpm step: posterior or beta."""
    clip: bool = True
    """Whether to keep the predicted clean image in [-1, 1], where images live."""
    label: str | None = None
    """Class to draw: its name, or its number, counted from 0; "none" leaves it to chance. None
    lets the classes take turns. For conditional networks only."""
    guidance: float = 1.0
    """Guidance scale, how strongly to insist on the class: 1 is the plain conditional network, 0
    ignores the class, more than 1 exaggerates what the class changes. Scales other than 0 and 1
    take twice the time."""
    seed: int = 0
    """Seed of the noise: image i has the same noise whatever the count, the batch or the device."""
    batch: int = 64
    """Images drawn at once (images); another batch gives the same images apart from rounding."""
    precision: str = "auto"
    """Number format of the network: auto, fp32, bf16 or fp16; auto is bf16 if it is native, fp16
    on older CUDA GPUs with matrix units for it, else fp32."""

    def __post_init__(self) -> None:
        _validate.one_of("sampler", self.sampler, SAMPLERS)
        _validate.one_of("variance", self.variance, ("posterior", "beta"))
        _validate.one_of("precision", self.precision, hardware.PRECISIONS)
        _validate.whole_number("batch", self.batch, at_least=1)
        _validate.seed("seed", self.seed)
        _validate.number("eta", self.eta, low=0.0, high=1.0)
        _validate.number("guidance", self.guidance, low=0.0, high=math.inf)
        _validate.boolean("clip", self.clip)
        if self.label is not None:
            _validate.text("label", self.label)
        if self.steps is not None:
            _validate.whole_number("steps", self.steps, at_least=1)


class Written(NamedTuple):
    """What ``write_shards`` did.

    Attributes:
        drawn: images drawn by this process.
        shards: shards written by this process.
        found: shards of this process's share that were there already, complete.
        seconds: how long it took.
    """

    drawn: int
    shards: int
    found: int
    seconds: float


class Shard(NamedTuple):
    """Some of the images of a folder.

    Attributes:
        first: the number of the first.
        images: (N, C, H, W) float32 in [-1, 1].
        labels: int64 with a row an image, the classes (N,) or words (N, L) asked for; None where
            the network was told nothing.
    """

    first: int
    images: Tensor
    labels: Tensor | None


def draw(
    checkpoint: Checkpoint,
    recipe: Recipe,
    numbers: Sequence[int],
    condition: Condition | None = None,
) -> Tensor:
    """The images with these numbers, drawn as one batch; image i depends on the recipe and i alone.

    Args:
        checkpoint: from ``load_checkpoint``; its device is where the images are drawn.
        recipe: its ``batch`` is ignored.
        numbers: from 0 on, each below 2^64; image 3 drawn alone is image 3 of a thousand.
        condition: what the network is told about each of these images, in place of the recipe's
            label: int64 with a row an image, labels (B,) or words (B, L).

    Returns:
        (len(numbers), C, H, W) float32 in [-1, 1], on the CPU.

    Raises:
        ValueError: no numbers, a label the network does not know, guidance without a class or a
            condition, more steps than T, a condition beside a label or without a row per image.
        TypeError: ``condition`` is not an int64 tensor.
    """
    if not len(numbers):
        raise InvalidValueError("numbers must hold at least one image's number, got none")
    device = checkpoint.schedule.alpha_bar.device
    streams = Streams(recipe.seed, numbers)
    shape = (len(numbers), *checkpoint.image_shape)
    x_T = normal_like(torch.empty(shape, device=device), streams)
    if condition is None:
        condition = labels_of(checkpoint, recipe, numbers)
    else:
        _check_condition(condition, len(numbers), recipe)
    _check_guidance(checkpoint, recipe, asked=condition is not None)
    model = _model(checkpoint, recipe, None if condition is None else condition.to(device))
    x0 = samplers.last(_walk(model, checkpoint, recipe, x_T, streams))
    return x0.clamp(-1, 1).cpu()


def labels_of(checkpoint: Checkpoint, recipe: Recipe, numbers: Sequence[int]) -> Tensor | None:
    """The class of each image, int64 (N,); None if the network is to choose.

    Raises:
        ValueError: a label that the network does not know.
    """
    names, label = checkpoint.class_names, _class_name(checkpoint, recipe)
    if label is None and names:
        return torch.tensor([number % len(names) for number in numbers])
    if label in (None, "none"):
        return None
    return torch.full((len(numbers),), names.index(label))


def _class_name(checkpoint: Checkpoint, recipe: Recipe) -> str | None:
    """The recipe's label, as the name of a class even if it was given as a number.

    Raises:
        ValueError: a label that the network does not know.
    """
    names, label = checkpoint.class_names, recipe.label
    if label is None or (names and label == "none"):
        return label
    if not names:
        raise InvalidValueError(f"label: {checkpoint.path.name} was trained without classes")
    if label not in names and label.isdecimal() and int(label) < len(names):
        return names[int(label)]
    return _validate.one_of("label", label, [*names, "none"])


def write_shards(
    checkpoint: Checkpoint,
    recipe: Recipe,
    folder: Path | str,
    count: int,
    *,
    condition: Condition | None = None,
    shard: int = SHARD,
    progress: bool = False,
) -> Written:
    """Draws the images 0..count-1 into the shards of a folder; what is there already is kept.

    No more than one shard is held in memory. A shard appears whole or not at all, so the same call
    resumes a run that was stopped in any way, and at most one shard is lost. A shard that has been
    damaged since, in any of its bytes, is drawn again, with a warning. ``count`` may grow. Under
    ``torchrun`` each process draws every WORLD_SIZE-th shard; the processes need not communicate.
    What cannot be drawn is refused before anything is written.

    Args:
        checkpoint: from ``load_checkpoint``; its device is where the images are drawn.
        folder: new, empty, or with samples of the same recipe and checkpoint.
        count: how many images there should be.
        condition: what the network is told about each image, in place of the recipe's label: int64
            with a row an image, labels (count,) or words (count, L).
        shard: images per shard; a multiple of ``recipe.batch`` wastes least.
        progress: whether to show a progress bar (in the first process).

    Raises:
        ValueError: the folder holds something else (the message names what differs), or whatever
            ``draw`` refuses.
        OSError: the folder or a shard cannot be written; the shards before it are complete.
    """
    count = _validate.whole_number("count", count, at_least=1)
    shard = _validate.whole_number("shard", shard, at_least=1)
    rank, processes = parallel.launched()
    folder, start = Path(folder), time.perf_counter()
    if condition is not None:
        _check_condition(condition, count, recipe)
    manifest = _manifest(checkpoint, recipe, condition, count, shard)
    _begin(folder, manifest, condition, write=rank == 0)
    mine = list(_places(folder, count, shard))[rank::processes]
    missing = []
    for path, numbers in mine:
        state, _ = _look(path, numbers)
        if state == "damaged":
            warnings.warn(f"{path} is damaged and is drawn again", stacklevel=2)
        if state != "whole":
            missing.append((path, numbers))
    todo = sum(len(numbers) for _, numbers in missing)
    with tqdm(total=todo, unit=" images", disable=not progress or rank > 0) as bar:
        for path, numbers in missing:
            _write_shard(path, checkpoint, recipe, numbers, condition, bar)
    seconds = time.perf_counter() - start
    return Written(todo, len(missing), len(mine) - len(missing), seconds)


def read_shards(folder: Path | str) -> Iterator[Shard]:
    """The shards of a folder, in order, one at a time.

    Raises:
        ValueError: the folder holds no samples, or a shard is missing, incomplete or damaged.
    """
    folder = Path(folder)
    manifest = _read_manifest(folder)
    if manifest is None:
        raise InvalidValueError(f"folder must hold samples, got {folder} without {MANIFEST}")
    for path, numbers in _places(folder, manifest["count"], manifest["shard"]):
        state, tensors = _look(path, numbers)
        if state != "whole":
            redraw = "draw it with the command that began the folder"
            raise InvalidValueError(f"{path} is {state}; {redraw}")
        yield Shard(numbers.start, from_bytes(tensors["images"]), tensors.get("labels"))


def _write_shard(
    path: Path,
    checkpoint: Checkpoint,
    recipe: Recipe,
    numbers: range,
    condition: Condition | None,
    bar: tqdm,
) -> None:
    """Draws the images of one shard and writes it."""
    parts = []
    for start in range(numbers.start, numbers.stop, recipe.batch):
        batch = range(start, start + recipe.batch)  # always full, see the top of the file
        size = min(recipe.batch, numbers.stop - start)
        rows = None  # of images past the end, which are not kept, any row will do
        if condition is not None:
            rows = condition[[min(number, len(condition) - 1) for number in batch]]
        images = draw(checkpoint, recipe, batch, rows)[:size]
        parts.append(torch.from_numpy(to_bytes(images)).permute(0, 3, 1, 2))
        bar.update(size)
    tensors = {"images": torch.cat(parts).contiguous()}
    if condition is not None:
        tensors["labels"] = condition[numbers.start : numbers.stop].cpu().contiguous()
    elif (labels := labels_of(checkpoint, recipe, numbers)) is not None:
        tensors["labels"] = labels
    device = hardware.describe_device(checkpoint.schedule.alpha_bar.device)
    facts = {"first": numbers.start, "batch": recipe.batch, "device": device}
    try:
        _sealed.write(path, tensors, facts)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}; resume when it can be") from error


def _look(path: Path, numbers: range) -> tuple[str, dict[str, Tensor]]:
    """Whether a shard is whole, incomplete, damaged or missing; if whole, what it holds.

    An incomplete one was whole for a smaller ``count``.
    """
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        return "missing", {}
    try:
        tensors, facts = _sealed.opened(path, found)
    except _sealed.SealError:
        return "damaged", {}
    if "images" not in tensors or facts.get("first") != numbers.start:  # not this shard
        return "damaged", {}
    missing = len(numbers) - len(tensors["images"])
    if missing < 0:
        return "damaged", {}
    return ("incomplete" if missing else "whole"), tensors


def _places(folder: Path, count: int, shard: int) -> Iterator[tuple[Path, range]]:
    """The shards of a folder, each with the numbers of its images."""
    for place, first in enumerate(range(0, count, shard)):
        yield folder / f"shard-{place:05d}.safetensors", range(first, min(first + shard, count))


def _manifest(
    checkpoint: Checkpoint, recipe: Recipe, condition: Condition | None, count: int, shard: int
) -> dict[str, Any]:
    """What determines the images of a folder, and what is good to know about them.

    Raises:
        ValueError: what cannot be drawn: an unknown label, too many steps, guidance for nothing.
    """
    _check_guidance(checkpoint, recipe, asked=condition is not None)
    device = checkpoint.schedule.alpha_bar.device
    decides: dict[str, Any] = {
        "checkpoint": checkpoint.card["weights"]["sha256"],
        **{field.name: getattr(recipe, field.name) for field in dataclasses.fields(Recipe)},
        "steps": _steps(checkpoint, recipe),
        "label": _class_name(checkpoint, recipe),
        "precision": hardware.pick_precision(recipe.precision, device).name,
        "condition": _digest(condition, count),
        "shard": shard,
    }
    # Options of other samplers change nothing, and the batch changes the last bits only.
    options = {name for sampler in SAMPLERS.values() for name in samplers.options_of(sampler)}
    for name in {"batch", *options} - _options(recipe).keys():
        decides.pop(name, None)
    return {
        "format": _FORMAT,
        "count": count,
        **decides,
        "checkpoint_file": checkpoint.path.name,
        "image_shape": list(checkpoint.image_shape),
        "class_names": list(checkpoint.class_names),
        "versions": versions(),
        "decides": list(decides),
    }


def _begin(
    folder: Path, manifest: dict[str, Any], condition: Condition | None, *, write: bool
) -> None:
    """Makes sure that the folder may hold these images, and writes its manifest.

    Raises:
        ValueError: it holds other images, or something else.
        OSError: it cannot be written.
    """
    before = _read_manifest(folder)
    if before is None and folder.exists() and any(map(_is_foreign, folder.iterdir())):
        raise InvalidValueError(f"shards must be a new or an empty folder, got {folder}")
    if before:
        _check_same(folder, before, manifest, condition)
    text = json.dumps(manifest, indent=2, default=lambda number: number.item())  # NumPy's
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if write and (before is None or before["count"] < manifest["count"]):
            _files.write_whole(folder / MANIFEST, text.encode() + b"\n")
    except OSError as error:
        raise FileError(f"cannot write {folder / MANIFEST}: {error.strerror}") from error


def _check_same(
    folder: Path, before: dict[str, Any], manifest: dict[str, Any], condition: Condition | None
) -> None:
    """Raises if a folder's samples were drawn from another recipe, or are more than asked for."""
    there = {**_ONCE_IMPLIED, **before}
    asked = {**manifest, "condition": _digest(condition, before["count"])}
    for name in manifest["decides"]:
        if name == "condition" and before["count"] > manifest["count"]:
            continue  # its rows cannot be compared, and the count is refused below
        if there.get(name) != asked[name]:
            raise InvalidValueError(
                f"{name}: the samples in {folder} were begun with {there.get(name)}, now it is "
                f"{asked[name]}; resume with the same or take another folder"
            )
    if before["count"] > manifest["count"]:
        counts = f"{before['count']}, now it is {manifest['count']}"
        raise InvalidValueError(f"count may only grow: the samples in {folder} are {counts}")


def _digest(condition: Condition | None, count: int) -> str | None:
    """A checksum of the first ``count`` rows of a condition, and of their shape."""
    if condition is None:
        return None
    rows = condition[:count].cpu().contiguous()
    shape = ",".join(map(str, rows.shape)).encode()
    return hashlib.sha256(shape + b":" + rows.numpy().tobytes()).hexdigest()


def _is_foreign(path: Path) -> bool:
    """Whether a file is not one of ours; another process of this run may have written some."""
    return not re.fullmatch(r"(samples\.json|shard-\d+\.safetensors)(\..*tmp)?", path.name)


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder; None if there is none.

    Raises:
        ValueError: it is damaged, or of another format.
        OSError: it cannot be read.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_bytes())
        known = manifest["format"] == _FORMAT
        for name in ("count", "shard") if known else ():
            _validate.whole_number(name, manifest[name], at_least=1)
    except (ValueError, LookupError, TypeError) as error:
        raise InvalidValueError(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    if not known:
        found = f"{path} has format {manifest['format']}"
        raise InvalidValueError(f"{found}, this library reads {_FORMAT}")
    return manifest


def _check_condition(condition: object, count: int, recipe: Recipe) -> None:
    """Raises unless ``condition`` is int64 with ``count`` rows and no label is given as well."""
    if not isinstance(condition, Tensor) or condition.dtype != torch.int64:
        got = condition.dtype if isinstance(condition, Tensor) else _validate.describe(condition)
        raise InvalidTypeError(f"condition must be an int64 tensor, got {got}")
    if condition.ndim not in (1, 2) or len(condition) != count:
        expected = f"({count},) or ({count}, L), a row an image"
        raise InvalidValueError(
            f"condition must have shape {expected}; got {tuple(condition.shape)}"
        )
    if recipe.label is not None:
        raise InvalidValueError(
            f"condition and label must not both be given, got label {recipe.label!r}"
        )


def _check_guidance(checkpoint: Checkpoint, recipe: Recipe, *, asked: bool) -> None:
    """Raises if there is nothing for guidance to insist on.

    ``asked`` says whether a condition is given; if not, the recipe's label counts.
    """
    if recipe.guidance == 1:
        return
    why = ""
    if _no_condition(checkpoint) is None:
        why = f"{checkpoint.path.name} was trained without classes"
    elif not asked and (not checkpoint.class_names or recipe.label == "none"):
        why = "no class is asked for; choose one with label"
    if why:
        raise InvalidValueError(f"guidance must be 1, got {recipe.guidance:g}: {why}")


def _no_condition(checkpoint: Checkpoint) -> Tensor | None:
    """The row that means "no condition" to the network; None if it takes no condition."""
    row = getattr(checkpoint.network, "no_condition", None)
    return row if isinstance(row, Tensor) else None


def _model(checkpoint: Checkpoint, recipe: Recipe, condition: Condition | None) -> EpsModel:
    if condition is None:
        model = checkpoint.model
    elif (nothing := _no_condition(checkpoint)) is None or recipe.guidance == 1:
        model = checkpoint.conditioned(condition)
    else:
        both = labelled(checkpoint.network, checkpoint.schedule, checkpoint.card["target"])
        model = guide(both, condition, recipe.guidance, nothing)
    device = checkpoint.schedule.alpha_bar.device
    model = hardware.in_precision(model, device, hardware.pick_precision(recipe.precision, device))
    return clip_x0(model, checkpoint.schedule) if recipe.clip else model


def _walk(
    model: EpsModel, checkpoint: Checkpoint, recipe: Recipe, x_T: Tensor, streams: Streams
) -> Iterator[samplers.SampleStep]:
    schedule = checkpoint.schedule
    timesteps = samplers.evenly_spaced(schedule.num_steps, _steps(checkpoint, recipe))
    sampler = SAMPLERS[recipe.sampler]
    return sampler(model, schedule, x_T, timesteps, generator=streams, **_options(recipe))


def _options(recipe: Recipe) -> dict[str, Any]:
    """The fields of ``recipe`` that are options of its sampler."""
    known = {field.name for field in dataclasses.fields(Recipe)}
    names = samplers.options_of(SAMPLERS[recipe.sampler])
    return {name: getattr(recipe, name) for name in names if name in known}


def _steps(checkpoint: Checkpoint, recipe: Recipe) -> int:
    """How many steps the walk takes.

    Raises:
        ValueError: more steps than the checkpoint was trained for.
    """
    num_steps = checkpoint.schedule.num_steps
    if recipe.steps is None:
        every = samplers.walks_every_step(SAMPLERS[recipe.sampler])
        return num_steps if every else min(DEFAULT_STEPS, num_steps)
    if recipe.steps > num_steps:
        limit = f"{num_steps}, the checkpoint's T"
        raise InvalidValueError(f"steps must be at most {limit}; got {recipe.steps}")
    return recipe.steps
