"""What a training run can be asked for: every field with its default, its unit and its check."""

import dataclasses
import functools
import math
import os
import shlex
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutorial_lib import _validate, flows, hardware, losses, schedules
from tutorial_lib._validate import InvalidTypeError, InvalidValueError
from tutorial_lib.networks.text import LARGEST_LAYERS
from tutorial_lib.predictions import TARGETS
from tutorial_lib.schedules import NoiseSchedule
from tutorial_lib.training.optimizers import OPTIMIZERS

SCHEDULES: dict[str, Callable[[int], NoiseSchedule]] = {
    "linear": schedules.linear_schedule,
    "quadratic": schedules.quadratic_schedule,
    "cosine": schedules.cosine_schedule,
}
STEP_SAMPLERS: dict[str, Callable[[NoiseSchedule], losses.StepSampler]] = {
    "uniform": lambda schedule: losses.UniformSteps(schedule.num_steps),
    "stratified": lambda schedule: losses.StratifiedSteps(schedule.num_steps),
    "importance": lambda schedule: losses.ImportanceSteps(schedule.num_steps),
    "noisy": lambda schedule: losses.NoisySteps(schedule.num_steps),
    "noisiest": lambda schedule: losses.NoisySteps(schedule.num_steps, power=16),
    "uniform_time": lambda schedule: losses.TimeSteps(schedule, flows.uniform_times),
    "logit_normal": lambda schedule: losses.TimeSteps(schedule, flows.logit_normal_times),
}
Weigh = Callable[["TrainConfig"], losses.Weight | None]
WEIGHTS: dict[str, Weigh] = {
    "none": lambda config: None,
    "p2": lambda config: losses.p2_weight,
    "min_snr": lambda config: functools.partial(losses.min_snr_weight, gamma=config.min_snr_gamma),
    "v": lambda config: losses.v_weight,
    "x0": lambda config: losses.x0_weight,
    "velocity": lambda config: losses.velocity_weight,
}
DECAYS: dict[str, Callable[[float], float]] = {
    "constant": lambda fraction: 1.0,
    "linear": lambda fraction: 1 - fraction,
    "cosine": lambda fraction: 0.5 * (1 + math.cos(math.pi * fraction)),
}
LARGEST_SEED = 2**32 - 1
"""Torch's generator on the CPU uses 32 bits: larger seeds would repeat smaller ones."""
LARGEST_COUNT = 2**53
"""Of steps, images or anything else; larger ints are not all exact as floats."""

MAY_CHANGE = {
    *("root", "device", "precision", "compile", "accumulate"),  # compared as they turn out
    "latent",  # its checksum is compared, wherever the file is
    *("steps", "max_seconds"),  # see ``resume``
    *("out", "checkpoint_every", "keep", "sample_every", "log_every"),
    *("progress", "tensorboard", "resume"),
}
"""Fields of a config that may change when a run is resumed."""

MAY_DIFFER_BETWEEN_PROCESSES = {"root", "device", "out", "progress", "tensorboard"}
"""Fields that may differ from one process of a run to another; ``out`` is that of the first."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a denoiser and leave a run folder with its checkpoints and its metrics."""

    dataset: str = "circles"
    """Name of the data set: circles, glyphs, scenes, mnist, fashion_mnist, cifar10 or
    folder:PATH."""
    size: int | None = None
    """Side of the images (pixels); None keeps the data set's own."""
    root: Path | None = None
    """Folder of downloaded data sets; None means TUTORIAL_DATA, else data/."""
    seed: int = 0
    """Seed of everything random: first weights, order of the images, t and noise; below 2^32."""

    schedule: str = "cosine"
    """Noise schedule: linear, quadratic or cosine."""
    num_steps: int = 1000
    """T, how often an image is noised (noise steps)."""
    target: str = "v"
    """What the network is trained to predict: eps, v (v-prediction), x0, or velocity (of a flow);
    samplers get eps in any case."""
    weight: str = "min_snr"
    """How much each t counts in the eps loss: none, p2, min_snr, or v, x0, velocity, which make it
    the loss of that target; flow matching is target velocity with weight velocity."""
    min_snr_gamma: float = 5.0
    """Where the weight min_snr stops growing, as a signal-to-noise ratio; unused by the others."""
    step_sampler: str = "stratified"
    """How t is drawn in a batch: uniform, stratified, importance, noisy, which draws large t more
    often, or by its time in a flow: uniform_time, logit_normal."""

    steps: int | None = 2000
    """Length of the run (training steps); None leaves it to max_seconds."""
    max_seconds: float | None = None
    """Longest time that training may take (seconds); None leaves it to steps."""
    batch_size: int = 32
    """Images in a training step (images)."""
    optimizer: str = "muon"
    """What turns gradients into steps: muon (with adamw for vectors) or adamw (for all)."""
    lr: float = 3e-3
    """Largest learning rate of adamw (change of a weight per training step)."""
    muon_lr: float = 0.02
    """Largest learning rate of muon (change of a singular value per training step)."""
    warmup: float = 0.03
    """Share of the run over which the learning rates grow linearly, in [0, 1]."""
    decay: str = "linear"
    """How the learning rates fall to 0 over the run: linear, cosine, or constant (they do not)."""
    weight_decay: float = 0.0
    """Pull of matrices and kernels towards 0, times the learning rate (per training step)."""
    grad_clip: float = 1.0
    """Largest norm of all gradients together; 0 does not clip."""
    ema: float = 0.95
    """Share of the averaged weights kept at a step, in [0, 1]; less in the first steps. With
    a constant learning rate take 0.999 or more."""

    widths: tuple[int, ...] = (32, 64)
    """Channels of each resolution of the network, finest first (channels)."""
    blocks: int = 1
    """Residual blocks at each resolution, down and again up (blocks)."""
    bottom_blocks: int | None = None
    """Residual blocks behind the attention of the lowest resolution (blocks); None as blocks."""
    patch: int = 2
    """Side of the patch that becomes one position of the network (pixels)."""
    text: bool = False
    """Whether the network reads the caption of each example, by cross-attention; implies
    conditional. For data sets with captions, such as scenes."""
    conditional: bool = False
    """Whether the network is told what each example shows: its class, or other conditions."""
    label_drop: float = 0.1
    """Share of the conditions hidden in training, in [0, 1]; unused unless conditional."""
    text_width: int = 64
    """Length of a word's vector, where the network reads captions (numbers)."""
    text_layers: int = 2
    """Layers of the transformer that reads captions (layers)."""
    latent: str | None = None
    """Autoencoder whose latents to train on, a file or the name of one that comes with the course;
    None trains on the images themselves."""

    device: str = "auto"
    """Where to train: auto, cpu, cuda or mps."""
    precision: str = "auto"
    """Number format of the network: auto, fp32, bf16 or fp16; auto is bf16 where it is native,
    fp16 on older GPUs, fp32 elsewhere."""
    compile: bool = False
    """Whether to compile the network first, which takes a minute and may make steps faster."""
    accumulate: int = 1
    """Parts that a batch is worked on in, one after the other, to save memory (parts)."""
    out: Path | None = None
    """Folder of the run, new or empty; None takes the next free runs/DATASET-N."""
    resume: bool = False
    """Whether to resume the run in out, from its newest state; without one, it begins."""
    checkpoint_every: int | None = None
    """Steps between checkpoints (training steps); None writes one, at the end."""
    keep: int | None = None
    """How many of the newest checkpoints stay (checkpoints); None keeps all."""
    sample_every: int | None = None
    """Steps between grids of samples, as PNG (training steps); None draws none."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl (training steps)."""
    progress: bool = True
    """Whether to show a progress bar."""
    tensorboard: bool = False
    """Whether to write the metrics and grids for TensorBoard too, which must be installed."""

    def __post_init__(self) -> None:
        if self.text is True:
            object.__setattr__(self, "conditional", True)
        for name in ("root", "out"):
            object.__setattr__(self, name, _path(name, getattr(self, name)))
        _check_config(self)
        for name, annotation in typing.get_type_hints(type(self)).items():
            kind, value = _NUMBERS.get(annotation), getattr(self, name)
            if kind is not None and value is not None:  # NumPy's numbers too; JSON has only its own
                object.__setattr__(self, name, kind(value))
        object.__setattr__(self, "widths", tuple(map(int, self.widths)))

    def command(self, launcher: Sequence[str] = ("python", "-m")) -> str:
        """The command line that asks for this config; fields at their defaults are left out.

        Args:
            launcher: the words before ``tutorial_lib``, such as those that start several processes.
        """
        words = [*launcher, "tutorial_lib", "train"]
        for field in dataclasses.fields(self):
            value, flag = getattr(self, field.name), field.name.replace("_", "-")
            if value == field.default:
                continue
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            elif isinstance(value, tuple):
                words += [f"--{flag}", *map(str, value)]
            else:
                words += _option(flag, value)
        return shlex.join(words)

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them."""
        fields = dataclasses.asdict(self)
        return {k: str(v) if isinstance(v, Path) else v for k, v in fields.items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "TrainConfig":
        """The reverse of ``as_dict``, also where it went through JSON.

        Raises:
            TypeError, ValueError: an unknown field, or an invalid value.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(fields.keys() - known):
            raise InvalidTypeError(f"{unknown[0]} is not a field of a training run")
        # Values of other types are left as they are, for the checks to name.
        paths = {
            name: Path(path)
            for name in ("root", "out")
            if isinstance(path := fields.get(name), str) and path
        }
        widths = fields.get("widths")
        as_tuple = {"widths": tuple(widths)} if isinstance(widths, list) else {}
        return cls(**{**fields, **paths, **as_tuple})


def _option(flag: str, value: object) -> list[str]:
    """The words that give an option this value, whatever the value looks like."""
    word = str(value)
    # "None" is the word for no path at all, and argparse takes away a lone "--"
    if isinstance(value, Path) and (word == "None" or word.startswith("-")):
        word = f".{os.sep}{word}"
    return [f"--{flag}={word}"] if word.startswith("-") else [f"--{flag}", word]


def weight_of(config: TrainConfig) -> losses.Weight | None:
    """The weight of each t in the loss; None weighs all alike."""
    return WEIGHTS[config.weight](config)


def _path(name: str, value: object) -> Path | None:
    """``value`` as a path; TypeError where it is not one."""
    return None if value is None else _validate.path(name, value, kinds="a path")


_NUMBERS: dict[Any, type] = {int: int, int | None: int, float: float, float | None: float}


def _check_config(config: TrainConfig) -> None:
    """Raises for the first invalid field, naming it."""
    if not isinstance(config.dataset, str) or not config.dataset:
        raise InvalidTypeError(f"dataset must be a name, got {_validate.describe(config.dataset)}")
    names = {
        "schedule": SCHEDULES,
        "target": TARGETS,
        "weight": WEIGHTS,
        "step_sampler": STEP_SAMPLERS,
        "optimizer": OPTIMIZERS,
        "decay": DECAYS,
        "device": hardware.DEVICES,
        "precision": hardware.PRECISIONS,
    }
    for name, options in names.items():
        _validate.one_of(name, getattr(config, name), options)
    if _validate.whole_number("seed", config.seed, at_least=0) > LARGEST_SEED:
        raise InvalidValueError(f"seed must be below 2^32, got {_validate.shown(config.seed)}")
    if config.latent is not None and (not isinstance(config.latent, str) or not config.latent):
        got = _validate.describe(config.latent)
        raise InvalidTypeError(f"latent must be a file or a name, got {got}")
    for name in ("conditional", "text", "compile", "resume", "progress", "tensorboard"):
        if not isinstance(getattr(config, name), bool):
            got = _validate.describe(getattr(config, name))
            raise InvalidTypeError(f"{name} must be True or False, got {got}")
    schedules.check_num_steps(config.num_steps)
    _validate.whole_number("text_layers", config.text_layers, at_least=0, at_most=LARGEST_LAYERS)
    for name in ("batch_size", "blocks", "patch", "text_width", "accumulate", "log_every"):
        _validate.whole_number(name, getattr(config, name), at_least=1, at_most=LARGEST_COUNT)
    if config.batch_size % config.accumulate:
        raise InvalidValueError(
            f"accumulate must divide batch_size, {config.batch_size}; got {config.accumulate}"
        )
    if config.resume and config.out is None:
        raise InvalidValueError("resume needs out, the folder of the run to resume")
    for name in ("size", "steps", "bottom_blocks", "checkpoint_every", "keep", "sample_every"):
        if getattr(config, name) is not None:
            _validate.whole_number(name, getattr(config, name), at_least=1, at_most=LARGEST_COUNT)
    _validate.number("min_snr_gamma", config.min_snr_gamma, low=1e-6, high=1e6)
    for name in ("lr", "muon_lr", "weight_decay", "grad_clip"):
        _validate.number(name, getattr(config, name), low=0.0, high=1e6)
    for name in ("ema", "label_drop", "warmup"):
        _validate.number(name, getattr(config, name), low=0.0, high=1.0)
    if config.max_seconds is not None:
        _validate.number("max_seconds", config.max_seconds, low=1e-3, high=math.inf)
    elif config.steps is None:
        raise InvalidValueError(
            "steps and max_seconds must not both be None: the run would never end"
        )
    if not isinstance(config.widths, tuple) or not config.widths:
        raise InvalidTypeError(
            f"widths must be a tuple of ints, got {_validate.describe(config.widths)}"
        )
    for width in config.widths:
        _validate.whole_number("widths", width, at_least=1, at_most=LARGEST_COUNT)
