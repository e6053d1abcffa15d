"""Images by the thousand: drawn with a checkpoint, streamed to disk, resumed, shared out.

``write_shards`` leaves a folder:

    samples.json                  what determines the images, see ``Recipe``, and the checkpoint;
                                  with a checksum of all entries
    shard-00000.safetensors, ...  ``images`` uint8 (N, C, H, W) as in a PNG, 0 for -1 and 255 for
                                  1, and ``labels`` int64, what the network was told, a row an
                                  image; in the header a checksum of the whole file, and what
                                  determines the images, so that shards of other samples are
                                  recognized without samples.json

Image i is determined by the recipe and by i. All its noise, at the start and on the way, comes from
the stream (seed, i), so the noise is the same to the bit however the images are divided among
batches, shards, processes or interrupted runs. The network's answer may differ in its last bits for
batches of another size, so every batch is filled up to ``batch`` images. With the same ``batch``,
device and library versions the images, too, are then the same to the bit, whatever their number,
the number of processes and the interruptions.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tutorial_lib import _files, _memory, _sealed, _shards, _validate, hardware, samplers
from tutorial_lib._extras import ProgressBar
from tutorial_lib._random import Streams, normal_like
from tutorial_lib._typing import Condition, EpsModel
from tutorial_lib._validate import FileError, InvalidTypeError, InvalidValueError
from tutorial_lib.checkpoints import Checkpoint, versions
from tutorial_lib.guidance import guide, labeled
from tutorial_lib.hardware import parallel
from tutorial_lib.images import from_bytes, to_bytes
from tutorial_lib.predictions import clip_x0
from tutorial_lib.samplers import SAMPLERS, SPACINGS

DEFAULT_STEPS = 50
"""Length of a walk, unless its sampler walks every step by default."""
SHARD = 1024
"""Images in a shard: a megabyte of digits, 12 of 64 x 64 RGB. No more are held in memory."""
MOST = 2**64
"""Most images: the stream of noise of each is found by its number, which has 64 bits."""
Labels = Callable[[range], Tensor | None]
"""What the network is told about the images of these numbers."""
_ONCE_IMPLIED = {"guidance": 1.0, "spacing": "even"}
"""What the manifests of older folders leave out."""


@dataclass(frozen=True)
class Recipe:
    """What determines the images that a checkpoint draws, and how many are drawn at once."""

    sampler: str = field(default="ddim", metadata={"one_of": SAMPLERS})
    """How to walk from noise to an image: the name of a sampler."""
    steps: int | None = None
    """Length of the walk (steps); None means 50, or all T for ddpm."""
    spacing: str = field(default="even", metadata={"one_of": SPACINGS})
    """Which steps to take: even strides; karras, shorter ones where there is little noise; or edm,
    the same from 80 times as much noise as signal on, where T has more."""
    eta: float = 0.0
    """Share of fresh noise in a ddim step, in [0, 1]; 0 is deterministic."""
    variance: str = "posterior"
    """Variance of the noise in a ddpm step: posterior or beta."""
    clip: bool = True
    """Whether to keep the predicted clean image in [-1, 1], where images live; unused for latents,
    which have no bounds."""
    label: str | None = None
    """Class to draw: its name, or its number, counted from 0; "none" leaves it to chance. None
    lets the classes take turns. For conditional networks only."""
    prompt: str | None = None
    """What the pictures should show, in words that the network knows, as in "a small red disc above
    a large blue square"; None leaves it to chance. For networks that read only."""
    guidance: float = 1.0
    """Guidance scale, how strongly to insist on class or prompt: 1 is the plain conditional
    network, 0 ignores what is asked for, more than 1 exaggerates what that changes. Scales other
    than 0 and 1 take twice the time."""
    seed: int = 0
    """Seed of the noise: image i has the same noise whatever the count, the batch or the device."""
    batch: int = 64
    """Images drawn at once (images); another batch gives the same images apart from rounding."""
    precision: str = "auto"
    """Number format of the network: auto, fp32, bf16 or fp16; auto is bf16 if it is native, fp16
    on older CUDA GPUs with matrix units for it, else fp32."""

    def __post_init__(self) -> None:
        _validate.one_of("sampler", self.sampler, SAMPLERS)
        _validate.one_of("spacing", self.spacing, SPACINGS)
        _validate.one_of("variance", self.variance, ("posterior", "beta"))
        _validate.one_of("precision", self.precision, hardware.PRECISIONS)
        _validate.whole_number("batch", self.batch, at_least=1)
        _validate.seed("seed", self.seed)
        _validate.number("eta", self.eta, low=0.0, high=1.0)
        _validate.number("guidance", self.guidance, low=0.0, high=math.inf)
        _validate.boolean("clip", self.clip)
        if self.label is not None:
            _validate.text("label", self.label)
        if self.prompt is not None and not _validate.text("prompt", self.prompt).split():
            raise InvalidValueError(
                "prompt must hold a word, got none; leave it out to draw anything"
            )
        if self.prompt is not None and self.label is not None:
            raise InvalidValueError("label and prompt must not both be given")
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
        (len(numbers), C, H, W) float32 in [-1, 1], on the CPU; latents come back decoded.

    Raises:
        ValueError: no numbers, more than fit in memory, or one out of range; a label or a word
            the network does not know, guidance without a class or a condition, more steps than T, a
            condition beside a label or a prompt or without a row per image; a checkpoint of latents
            without its autoencoder, see ``autoencoders.with_autoencoder``.
        TypeError: ``condition`` is not an int64 tensor, a number is not an int.
    """
    numbers = _checked_numbers(checkpoint, recipe, numbers)
    _check_codec(checkpoint)
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
    return (x0.clamp(-1, 1) if checkpoint.codec is None else checkpoint.codec.decode(x0)).cpu()


def _check_recipe(recipe: object) -> None:
    if not isinstance(recipe, Recipe):
        raise InvalidTypeError(f"recipe must be a Recipe, got {_validate.describe(recipe)}")


def _checked_numbers(
    checkpoint: Checkpoint, recipe: Recipe, numbers: Sequence[int]
) -> Sequence[int]:
    """``numbers`` if there are any, no more than fit in memory, and each is an image's."""
    _check_recipe(recipe)
    if not hasattr(numbers, "__len__") or isinstance(numbers, str | bytes | dict):
        got = _validate.describe(numbers)
        raise InvalidTypeError(f"numbers must be a sequence of ints, got {got}")
    if not len(numbers):
        raise InvalidValueError("numbers must hold at least one image's number, got none")
    check_batch("numbers", len(numbers), checkpoint)
    ends = (numbers[0], numbers[-1]) if isinstance(numbers, range) else numbers
    for number in ends:
        _validate.whole_number("each of numbers", number, at_least=0, at_most=MOST - 1)
    return numbers


def check_batch(name: str, count: int, checkpoint: Checkpoint) -> None:
    """Raises ValueError, naming the argument ``name``, if a batch of images cannot fit in memory.

    Counted are x_t, the network's answer, the noise and the clean image that it predicts.
    """
    largest = max(math.prod(checkpoint.image_shape), math.prod(checkpoint.picture_shape))
    needed = 4 * 4 * count * largest
    device = checkpoint.schedule.alpha_bar.device
    _memory.check_fits(name, count, needed, "a batch of so many images", device)


def labels_of(checkpoint: Checkpoint, recipe: Recipe, numbers: Sequence[int]) -> Tensor | None:
    """What each image should show: its class, int64 (N,), or the words of the prompt, (N, L); None
    if the network is to choose.

    Raises:
        ValueError: a label or a word that the network does not know.
    """
    if recipe.prompt is not None:
        return _words(checkpoint, recipe.prompt).repeat(len(numbers), 1)
    names, label = checkpoint.class_names, _class_name(checkpoint, recipe)
    if label is None and names:
        return torch.tensor([number % len(names) for number in numbers])
    if label in (None, "none"):
        return None
    return torch.full((len(numbers),), names.index(label))


def _words(checkpoint: Checkpoint, prompt: str) -> Tensor:
    """The words of a prompt, int64 (1, L).

    Raises:
        ValueError: a network without text, a word that it does not know, too many words.
    """
    vocabulary = checkpoint.vocabulary
    if vocabulary is None or _no_condition(checkpoint) is None:
        other = "; it draws classes, ask with label" if checkpoint.class_names else ""
        raise InvalidValueError(f"prompt: {checkpoint.path.name} was trained without text{other}")
    return vocabulary.encode(prompt, name="prompt")


def _class_name(checkpoint: Checkpoint, recipe: Recipe) -> str | None:
    """The recipe's label, as the name of a class even if it was given as a number.

    Raises:
        ValueError: a label that the network does not know.
    """
    names, label = checkpoint.class_names, recipe.label
    if label is None or (names and label == "none"):
        return label
    if not names:
        hint = "; it reads words, ask with prompt" if checkpoint.vocabulary else ""
        raise InvalidValueError(f"label: {checkpoint.path.name} was trained without classes{hint}")
    if label not in names and label.isdecimal() and len(label) < 10 and int(label) < len(names):
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
    damaged since, in any of its bytes, is drawn again, with a warning. ``count`` may grow, and
    shrink as long as no image beyond it is there. Under ``torchrun`` each process draws every
    WORLD_SIZE-th shard; the processes need not communicate. What cannot be drawn is refused before
    anything is written.

    Args:
        checkpoint: from ``load_checkpoint``; its device is where the images are drawn.
        folder: new, empty, or with samples of the same recipe and checkpoint.
        count: how many images there should be.
        condition: what the network is told about each image, in place of the recipe's label: int64
            with a row an image, labels (count,) or words (count, L).
        shard: images per shard, at least ``recipe.batch``; a multiple of that wastes least.
        progress: whether to show a progress bar (in the first process).

    Raises:
        ValueError: the folder holds something else (the message names what differs), the images
            would not fit on the disk, or whatever ``draw`` refuses.
        OSError: the folder or a shard cannot be written; the shards before it are complete.
    """
    _check_recipe(recipe)
    count = _validate.whole_number("count", count, at_least=1, at_most=MOST)
    shard = _validate.whole_number("shard", shard, at_least=1)
    rank, processes = parallel.launched()
    folder, start = _files.as_path("shards", folder), time.perf_counter()
    largest = max(shard, SHARD)
    why = "more images would be drawn and thrown away than a shard holds"
    _validate.whole_number("batch", recipe.batch, at_least=1, at_most=largest, why=why)
    _check_disk(checkpoint, folder, count)
    if condition is not None:
        _check_condition(condition, count, recipe)
    manifest = _manifest(checkpoint, recipe, condition, count, shard)
    decides = _shards.what_decides(manifest)

    def labels(numbers: range) -> Tensor | None:
        return _labels(checkpoint, recipe, condition, numbers)

    _begin(folder, manifest, condition, labels, write=rank == 0)
    drawn = written = found = unverified = 0
    mine = _shards.share_of(count, shard, rank, processes)
    bar = ProgressBar(total=mine, unit=" images", shown=progress and rank == 0)
    with bar:
        places = itertools.islice(_shards.places(folder, count, shard), rank, None, processes)
        for path, numbers in places:
            there = _shards.look(path, numbers)
            if there.state == "damaged":
                warnings.warn(f"{path} is damaged and is drawn again", stacklevel=2)
            elif there.state != "missing":
                _shards.check_belongs(path, there, decides, "now it is")
                _shards.check_labels(path, there, labels(numbers))
            if there.state == "whole":
                found += 1
                unverified += there.recipe is None
                bar.update(len(numbers))
                continue
            _write_shard(path, checkpoint, recipe, numbers, condition, decides, bar)
            drawn, written = drawn + len(numbers), written + 1
    if unverified:
        _shards.warn_unverified(folder, unverified)
    return Written(drawn, written, found, time.perf_counter() - start)


def read_shards(folder: Path | str) -> Iterator[Shard]:
    """The shards of a folder, in order, one at a time.

    Warns where shards or samples.json are of an earlier version and cannot be verified.

    Raises:
        ValueError: the folder holds no samples, or a shard is missing, incomplete, damaged or of
            other samples.
    """
    folder = _files.as_path("folder", folder)
    manifest = _shards.read_manifest(folder)
    if manifest is None:
        missing = f"{folder} without {_shards.MANIFEST}"
        raise InvalidValueError(f"folder must hold samples, got {missing}")
    decides, unverified = _shards.what_decides(manifest), 0
    for path, numbers in _shards.places(folder, manifest["count"], manifest["shard"]):
        there = _shards.look(path, numbers)
        if there.state != "whole":
            redraw = "draw it with the command that began the folder"
            raise InvalidValueError(f"{path} is {there.state}; {redraw}")
        _shards.check_belongs(path, there, decides, f"{_shards.MANIFEST} says")
        unverified += there.recipe is None
        labels = there.tensors.get("labels")
        yield Shard(numbers.start, from_bytes(there.tensors["images"]), labels)
    if unverified:
        _shards.warn_unverified(folder, unverified)


def _write_shard(
    path: Path,
    checkpoint: Checkpoint,
    recipe: Recipe,
    numbers: range,
    condition: Condition | None,
    decides: dict[str, Any],
    bar: ProgressBar,
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
    if (labels := _labels(checkpoint, recipe, condition, numbers)) is not None:
        tensors["labels"] = labels
    device = hardware.describe_device(checkpoint.schedule.alpha_bar.device)
    facts = {"first": numbers.start, "batch": recipe.batch, "device": device, "recipe": decides}
    try:
        _sealed.write(path, tensors, facts)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}; resume when it can be") from error


def _labels(
    checkpoint: Checkpoint, recipe: Recipe, condition: Condition | None, numbers: range
) -> Tensor | None:
    """What the network is told about these images; None for nothing."""
    if condition is None:
        return labels_of(checkpoint, recipe, numbers)
    return condition[numbers.start : numbers.stop].cpu().contiguous()


def _manifest(
    checkpoint: Checkpoint, recipe: Recipe, condition: Condition | None, count: int, shard: int
) -> dict[str, Any]:
    """What determines the images of a folder, and what is good to know about them.

    Raises:
        ValueError: what cannot be drawn: an unknown label, too many steps, guidance for nothing.
    """
    _check_guidance(checkpoint, recipe, asked=condition is not None)
    _check_codec(checkpoint)
    if recipe.prompt is not None:
        _words(checkpoint, recipe.prompt)
    device = checkpoint.schedule.alpha_bar.device
    decides: dict[str, Any] = {
        "checkpoint": checkpoint.card["weights"]["sha256"],
        **{field.name: getattr(recipe, field.name) for field in dataclasses.fields(Recipe)},
        "steps": _steps(checkpoint, recipe),
        "label": _class_name(checkpoint, recipe),
        "prompt": None if recipe.prompt is None else " ".join(recipe.prompt.lower().split()),
        "precision": hardware.pick_precision(recipe.precision, device).name,
        "condition": _digest(condition, count),
        "shard": shard,
    }
    # Options of other samplers change nothing, and the batch changes the last bits only.
    options = {name for sampler in SAMPLERS.values() for name in samplers.options_of(sampler)}
    for name in {"batch", *options} - _options(recipe).keys():
        decides.pop(name, None)
    manifest = {
        "format": _shards.FORMAT,
        "count": count,
        **decides,
        "checkpoint_file": checkpoint.path.name,
        "image_shape": list(checkpoint.picture_shape),
        "class_names": list(checkpoint.class_names),
        "versions": versions(),
        "decides": list(decides),
    }
    text = json.dumps(manifest, default=lambda number: number.item())  # NumPy's
    return json.loads(text)


def _begin(
    folder: Path,
    manifest: dict[str, Any],
    condition: Condition | None,
    labels: Labels,
    *,
    write: bool,
) -> None:
    """Makes sure that the folder may hold these images, and writes its manifest.

    Raises:
        ValueError: it holds other images, or something else.
        OSError: it cannot be written.
    """
    try:
        before = _shards.read_manifest(folder)
        if before is None and folder.exists() and any(map(_shards.is_foreign, folder.iterdir())):
            raise InvalidValueError(f"shards must be a new or an empty folder, got {folder}")
        if before:
            _check_same(folder, before, manifest, condition)
        # Whatever else is to be known of shards stands in samples.json.
        _check_shards(folder, manifest, None if before else labels)
        folder.mkdir(parents=True, exist_ok=True)
        if not write:
            return
        path, content = folder / _shards.MANIFEST, _shards.sealed_manifest(manifest)
        if before is None and not _files.write_new(path, content):  # another process was faster
            _check_same(folder, _shards.read_manifest(folder) or {}, manifest, condition)
        elif before is not None and before["count"] != manifest["count"]:
            _files.write_whole(path, content)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"cannot write {folder / _shards.MANIFEST}: {error.strerror}") from error


def _check_same(
    folder: Path, before: dict[str, Any], manifest: dict[str, Any], condition: Condition | None
) -> None:
    """Raises if a folder's samples were begun with another recipe."""
    there = {**_ONCE_IMPLIED, **before}
    asked = {**manifest, "condition": _digest(condition, before["count"])}
    for name in manifest["decides"]:
        if name == "condition" and before["count"] > manifest["count"]:
            continue  # its rows are not all there; those of each shard are compared
        if there.get(name) != asked[name]:
            raise InvalidValueError(
                f"{name}: the samples in {folder} were begun with {there.get(name)}, now it is "
                f"{asked[name]}; resume with the same or take another folder"
            )


def _check_shards(folder: Path, manifest: dict[str, Any], labels: Labels | None) -> None:
    """Raises if a folder holds a shard of other samples, or of more images than asked for.

    ``labels`` says what the network is told about images; None leaves that out.
    """
    decides, count, shard = _shards.what_decides(manifest), manifest["count"], manifest["shard"]
    last, most = Path(), 0
    for place, path in _shards.shards_in(folder):
        end = place * shard + (_shards.images_in_own(path, decides) or 0)
        if labels is not None or not place * shard < end <= count:  # worth a closer look
            there = _shards.look(path, range(place * shard, (place + 1) * shard))
            if there.state in ("damaged", "missing"):
                continue
            _shards.check_belongs(path, there, decides, "now it is")
            end = place * shard + len(there.tensors["images"])
            if labels is not None and end <= count:
                _shards.check_labels(path, there, labels(range(place * shard, end)))
        last, most = max((last, most), (path, end), key=lambda found: found[1])
    if most > count:
        first = _shards.place_of(folder, count // shard).name
        files = first if last.name == first else f"{first} to {last.name}"
        raise InvalidValueError(
            f"count must be at least {most}, the images that are in {folder}, got {count}; for "
            f"fewer remove {files}"
        )


def _digest(condition: Condition | None, count: int) -> str | None:
    """A checksum of the first ``count`` rows of a condition, and of their shape."""
    if condition is None:
        return None
    rows = condition[:count].cpu().contiguous()
    shape = ",".join(map(str, rows.shape)).encode()
    return hashlib.sha256(shape + b":" + rows.numpy().tobytes()).hexdigest()


def _check_disk(checkpoint: Checkpoint, folder: Path, count: int) -> None:
    """Raises ValueError if so many images would not fit on the disk, were it empty."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    needed, size = count * math.prod(checkpoint.picture_shape), shutil.disk_usage(there).total
    if needed > size:
        raise InvalidValueError(
            f"count must fit on the disk, got {count}: {_memory.words(needed)} of images, and the "
            f"disk of {folder} holds {_memory.words(size)}"
        )


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
    for name in ("label", "prompt"):
        if (given := getattr(recipe, name)) is not None:
            raise InvalidValueError(
                f"condition and {name} must not both be given, got {name} {given!r:.60}"
            )


def _check_guidance(checkpoint: Checkpoint, recipe: Recipe, *, asked: bool) -> None:
    """Raises if there is nothing for guidance to insist on.

    ``asked`` says whether a condition is given; if not, the recipe's label counts.
    """
    if recipe.guidance == 1:
        return
    why = ""
    asked = asked or recipe.prompt is not None
    if _no_condition(checkpoint) is None:
        why = f"{checkpoint.path.name} was trained without classes"
    elif not asked and checkpoint.vocabulary is not None:
        why = "nothing is asked for; say it with prompt"
    elif not asked and (not checkpoint.class_names or recipe.label == "none"):
        why = "no class is asked for; choose one with label"
    if why:
        raise InvalidValueError(f"guidance must be 1, got {recipe.guidance:g}: {why}")


def _check_codec(checkpoint: Checkpoint) -> None:
    """Raises ValueError if a checkpoint draws latents and lacks what decodes them."""
    if checkpoint.latents is not None and checkpoint.codec is None:
        advice = "load it with autoencoders.with_autoencoder(checkpoint)"
        raise InvalidValueError(f"checkpoint must have its autoencoder: {advice}")


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
        both = labeled(checkpoint.network, checkpoint.schedule, checkpoint.card["target"])
        model = guide(both, condition, recipe.guidance, nothing)
    device = checkpoint.schedule.alpha_bar.device
    model = hardware.in_precision(model, device, hardware.pick_precision(recipe.precision, device))
    clips = recipe.clip and checkpoint.codec is None
    return clip_x0(model, checkpoint.schedule) if clips else model


def _walk(
    model: EpsModel, checkpoint: Checkpoint, recipe: Recipe, x_T: Tensor, streams: Streams
) -> Iterator[samplers.SampleStep]:
    schedule = checkpoint.schedule
    timesteps = SPACINGS[recipe.spacing](schedule, _steps(checkpoint, recipe))
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
