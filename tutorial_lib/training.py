"""Training a denoiser: one loop, from a minute on a laptop to a long run on a GPU.

``train(TrainConfig(...))`` reads the data onto the device, trains, and leaves a run folder:

    config.json      what was asked for
    metrics.jsonl    a line every ``log_every`` steps: step, loss, lr, seconds, images a second
    step-NNNNNNNN.safetensors, .json    checkpoints of the averaged weights, the last at the end

The same config on the same CPU gives the same bits, unless ``max_seconds`` ends the run: then the
clock decides. All randomness comes from ``seed``; the global random state is as it was afterwards.
"""

import contextlib
import dataclasses
import json
import math
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from tutorial_lib import _files, _validate, datasets, hardware, losses, schedules
from tutorial_lib._random import uniform
from tutorial_lib._typing import EpsModel
from tutorial_lib.checkpoints import TARGETS, as_eps_model, save_checkpoint
from tutorial_lib.datasets import Dataset
from tutorial_lib.optimizers import Muon, is_matrix
from tutorial_lib.schedules import NoiseSchedule
from tutorial_lib.unet import TinyUNet

SCHEDULES: dict[str, Callable[[int], NoiseSchedule]] = {
    "linear": schedules.linear_schedule,
    "quadratic": schedules.quadratic_schedule,
    "cosine": schedules.cosine_schedule,
}
STEP_SAMPLERS: dict[str, Callable[[int], losses.StepSampler]] = {
    "uniform": losses.UniformSteps,
    "stratified": losses.StratifiedSteps,
    "importance": losses.ImportanceSteps,
}
WEIGHTS: dict[str, losses.Weight | None] = {
    "none": None,
    "p2": losses.p2_weight,
    "min_snr": losses.min_snr_weight,
    "v": losses.v_weight,
    "x0": losses.x0_weight,
}
DECAYS: dict[str, Callable[[float], float]] = {
    "constant": lambda fraction: 1.0,
    "linear": lambda fraction: 1 - fraction,
    "cosine": lambda fraction: 0.5 * (1 + math.cos(math.pi * fraction)),
}
OPTIMIZERS = ("muon", "adamw")

READ_EVERY = 50
"""Most steps between looks at the losses on an accelerator: each waits for the queue to empty."""


class TrainingError(RuntimeError):
    """A run that cannot go on; the message names the step and what to try."""


@dataclass(frozen=True)
class TrainConfig:
    """Train a denoiser and leave a run folder with its checkpoints and its metrics."""

    dataset: str = "circles"
    """Name of the data set: circles, glyphs, mnist, fashion_mnist, cifar10 or folder:PATH."""
    size: int | None = None
    """Side of the images (pixels); None keeps the data set's own."""
    root: Path | None = None
    """Folder of downloaded data sets; None means TUTORIAL_DATA, else data/."""
    seed: int = 0
    """Seed of everything random: first weights, order of the images, t and noise."""

    schedule: str = "cosine"
    """Noise schedule: linear, quadratic or cosine."""
    num_steps: int = 1000
    """T, how often an image is noised (noise steps)."""
    target: str = "v"
    """What the network is trained to say: eps, v or x0; samplers get eps in any case."""
    weight: str = "min_snr"
    """How much each t counts in the eps loss: none, p2, min_snr, v or x0."""
    step_sampler: str = "stratified"
    """How t is drawn in a batch: uniform, stratified or importance."""

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
    patch: int = 2
    """Side of the patch that becomes one position of the network (pixels)."""
    conditional: bool = False
    """Whether the network is told the class of each image."""
    label_drop: float = 0.1
    """Share of the classes hidden in training, in [0, 1]; unused unless conditional."""

    device: str = "auto"
    """Where to train: auto, cpu, cuda or mps."""
    precision: str = "auto"
    """Number format of the network: auto, fp32 or bf16; auto is bf16 where it is native."""
    out: Path | None = None
    """Folder of the run, new or empty; None takes the next free runs/DATASET-N."""
    checkpoint_every: int | None = None
    """Steps between checkpoints (training steps); None writes one, at the end."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl (training steps)."""
    progress: bool = True
    """Whether to show a progress bar."""

    def __post_init__(self) -> None:
        _check_config(self)

    def command(self) -> str:
        """The command line that asks for this config; fields at their defaults are left out."""
        words = ["python", "-m", "tutorial_lib", "train"]
        for field in dataclasses.fields(self):
            value, flag = getattr(self, field.name), field.name.replace("_", "-")
            if value == field.default:
                continue
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                values = value if isinstance(value, tuple) else (value,)
                words += [f"--{flag}", *map(str, values)]
        return shlex.join(words)

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them."""
        fields = dataclasses.asdict(self)
        return {k: str(v) if isinstance(v, Path) else v for k, v in fields.items()}


@dataclass(frozen=True, eq=False)
class Run:
    """What a training run leaves.

    Attributes:
        path: the run folder.
        checkpoint: the last checkpoint's weights file.
        config: what was asked for.
        network: the network after the last step, in eval mode.
        ema_network: the same with the averaged weights, in eval mode; samples are drawn with it.
        model: ``ema_network`` as ``eps_hat = model(x_t, t)``, whatever it was trained to say.
        schedule: the noise schedule, on the device.
        losses: the loss of each step.
        seconds: how long the steps took.
    """

    path: Path
    checkpoint: Path
    config: TrainConfig
    network: nn.Module
    ema_network: nn.Module
    model: EpsModel
    schedule: NoiseSchedule
    losses: list[float]
    seconds: float


def train(
    config: TrainConfig, *, data: Dataset | None = None, model: nn.Module | None = None
) -> Run:
    """Trains as ``config`` says and returns the run; its folder holds checkpoints and metrics.

    Ho et al. 2020, algorithm 1, with an average of the weights (their appendix B).

    Args:
        config: everything that decides the run.
        data: images to train on, in place of loading ``config.dataset``.
        model: a network to train in place of a ``TinyUNet``, called as ``model(x_t, t)``, with
            ``labels`` third where ``config.conditional``; it is trained in place.

    Raises:
        ValueError: a data set, device or folder that is not there or cannot be used, a model whose
            answer has not the shape of the images.
        TrainingError: the loss or a weight is no longer finite.
        CheckpointError: a checkpoint cannot be written.
    """
    device = hardware.pick_device(config.device)
    precision = hardware.pick_precision(config.precision, device)
    if data is None:
        data = datasets.load(config.dataset, size=config.size, root=config.root, seed=config.seed)
    with _own_randomness(config.seed, device):
        network = model if model is not None else new_network(config, data)
        trainer = Trainer(config, network, data, device, precision)
        folder = _run_folder(config)
        return _run(trainer, data, folder)


class Trainer:
    """What a run carries from one training step to the next.

    Args:
        config: everything that decides the run.
        network: the network to train; it moves to ``device``, channels last.
        data: images and labels; they stay on ``device`` for the whole run.
        device: where to train.
        precision: what the network computes in.

    Raises:
        ValueError: the network's answer has not the shape of the images.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: nn.Module,
        data: Dataset,
        device: torch.device,
        precision: hardware.Precision,
    ) -> None:
        self.config, self.device, self.precision = config, device, precision
        self.network = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.schedule = SCHEDULES[config.schedule](config.num_steps).to(device)
        self.step_sampler = STEP_SAMPLERS[config.step_sampler](config.num_steps)
        self.images = data.images.to(device)
        self.labels = data.labels.to(device) if config.conditional else None
        self.no_class = len(data.class_names)
        # On the device, so that drawing t, noise and images never waits for the CPU.
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.order = Shuffled(len(data.images), self.generator)
        self._check_answer()
        self.network.train()
        self.ema = AveragedModel(self.network)
        self.steps_done, self.seconds = 0, 0.0
        self.optimizers = _optimizers(config, self.network, device)
        self.lr_schedules = [LambdaLR(optimizer, self._lr_factor) for optimizer in self.optimizers]

    def step(self) -> Tensor:
        """One training step; its loss, a scalar that stays on the device."""
        loss = self._loss(*self._next_batch())
        loss.backward()
        if self.config.grad_clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.grad_clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        update_ema(self.ema, self.network, ema_decay(self.steps_done, self.config.ema))
        self.steps_done += 1
        return loss.detach()

    def _loss(self, x0: Tensor, labels: Tensor | None) -> Tensor:
        try:
            return losses.epsilon_loss(
                self._eps_model(self.network, labels),
                self.schedule,
                x0,
                generator=self.generator,
                sampler=self.step_sampler,
                weight=WEIGHTS[self.config.weight],
            )
        except ValueError as error:  # an answer that is not finite, met on the way to the loss
            raise TrainingError(f"at step {self.steps_done + 1}: {error}") from error

    def fraction_done(self) -> float:
        """How much of the run is over, in [0, 1], by whichever of steps and time ends it first."""
        spent = 0.0
        if self.config.steps is not None:
            spent = self.steps_done / self.config.steps
        if self.config.max_seconds is not None:
            spent = max(spent, self.seconds / self.config.max_seconds)
        return min(1.0, spent)

    def update_lr(self) -> None:
        """Sets the learning rate of the next step."""
        for lr_schedule in self.lr_schedules:
            lr_schedule.step()

    @property
    def lr(self) -> float:
        """The learning rate of the next step, of the first optimizer: muon where it is in use."""
        return float(self.lr_schedules[0].get_last_lr()[0])

    def _lr_factor(self, step: int) -> float:
        """The factor for the middle of the coming step, as far as the clock can foresee it."""
        fraction = 0.0
        if self.config.steps is not None:
            fraction = (step + 0.5) / self.config.steps
        if self.config.max_seconds is not None and step:
            foreseen = self.seconds * (step + 0.5) / step
            fraction = max(fraction, foreseen / self.config.max_seconds)
        return lr_factor(min(1.0, fraction), self.config.warmup, self.config.decay)

    def _next_batch(self) -> tuple[Tensor, Tensor | None]:
        index = self.order.take(self.config.batch_size)
        x0 = self.images[index].contiguous(memory_format=torch.channels_last)
        if self.labels is None:
            return x0, None
        hidden = uniform(len(index), self.generator, self.device) < self.config.label_drop
        return x0, self.labels[index].masked_fill(hidden, self.no_class)

    def _eps_model(self, network: nn.Module, labels: Tensor | None) -> EpsModel:
        model = as_eps_model(network, self.schedule, self.config.target, labels)
        return hardware.in_precision(model, self.device, self.precision)

    @torch.no_grad()
    def _check_answer(self) -> None:
        """Asks once, so that a network which does not fit is known before anything is written."""
        x0 = self.images[:1]
        t = torch.ones(1, dtype=torch.int64, device=self.device)
        labels = None if self.labels is None else self.labels[:1]
        answer = self._eps_model(self.network.eval(), labels)(x0, t)
        if answer.shape != x0.shape:
            came, expected = tuple(answer.shape), tuple(x0.shape)
            raise ValueError(f"model must answer with the shape of x_t, {expected}; got {came}")


class Shuffled:
    """The numbers 0..count-1 in a new random order, again and again.

    A batch at the end of one order takes the rest from the next, so every batch is full and
    every number comes equally often.
    """

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count, self.generator = count, generator
        self.order = torch.empty(0, dtype=torch.int64, device=generator.device)
        self.position = 0

    def take(self, count: int) -> Tensor:
        """The next ``count`` numbers, int64 (count,)."""
        while len(self.order) - self.position < count:
            where = self.generator.device
            fresh = torch.randperm(self.count, generator=self.generator, device=where)
            self.order = torch.cat([self.order[self.position :], fresh])
            self.position = 0
        self.position += count
        return self.order[self.position - count : self.position]


def lr_factor(fraction: float, warmup: float, decay: str) -> float:
    """The share of the largest learning rate, in [0, 1].

    Args:
        fraction: how much of the run is over, in [0, 1].
        warmup: up to which fraction the rate also grows linearly from 0.
        decay: a name in ``DECAYS``: how it falls with ``fraction``.
    """
    grown = min(1.0, fraction / warmup) if warmup else 1.0
    return grown * DECAYS[decay](fraction)


def ema_decay(step: int, decay: float) -> float:
    """The share of the averaged weights that step ``step`` (0 for the first) keeps.

    min(decay, (1 + step) / (10 + step)): early on the average forgets fast, so the first, random
    weights do not linger in it (as in TensorFlow's ExponentialMovingAverage with num_updates).
    """
    return min(decay, (1 + step) / (10 + step))


def update_ema(ema: AveragedModel, network: nn.Module, decay: float) -> None:
    """ema = decay ema + (1 - decay) network; buffers are copied.

    ``AveragedModel.update_parameters`` does the same with a fixed decay, and on CUDA it waits for
    the GPU at every step to read its own counter.
    """
    averaged: list[Tensor] = list(ema.module.parameters())
    current: list[Tensor] = list(network.parameters())
    get_ema_multi_avg_fn(decay)(averaged, current, 0)
    for kept, now in zip(ema.module.buffers(), network.buffers(), strict=True):
        kept.copy_(now)
    ema.n_averaged += 1


def _run(trainer: Trainer, data: Dataset, folder: Path) -> Run:
    """Steps until the time or the steps are spent; writes checkpoints and metrics on the way."""
    config = trainer.config
    journal = _Journal(folder / "metrics.jsonl", config)
    read_every = 1 if trainer.device.type == "cpu" else READ_EVERY
    with journal:
        while trainer.fraction_done() < 1:
            lr = trainer.lr
            journal.note(trainer.step(), lr)
            due = _due(trainer.steps_done, config.checkpoint_every)
            line_due = _due(trainer.steps_done, config.log_every)
            look = due or line_due or journal.unread >= read_every
            trainer.seconds = journal.read() if look else journal.seconds()
            if due:
                _save(trainer, data, folder, journal.losses)
            trainer.update_lr()
        trainer.seconds = journal.finish()
        checkpoint = _save(trainer, data, folder, journal.losses)
    network, ema_network = trainer.network.eval(), trainer.ema.module.eval()
    model = as_eps_model(ema_network, trainer.schedule, config.target)
    return Run(
        path=folder,
        checkpoint=checkpoint,
        config=config,
        network=network,
        ema_network=ema_network,
        model=model,
        schedule=trainer.schedule,
        losses=journal.losses,
        seconds=trainer.seconds,
    )


class _Journal:
    """The losses of a run: read off the device, checked, shown, timed and written down."""

    def __init__(self, path: Path, config: TrainConfig) -> None:
        self.path, self.config = path, config
        self.losses: list[float] = []
        self._waiting: list[tuple[Tensor, float]] = []
        self._logged, self._logged_seconds = 0, 0.0
        self._smoothed, self._lr = 0.0, 0.0

    def __enter__(self) -> "_Journal":
        images = None
        if self.config.steps is not None and self.config.max_seconds is None:
            images = self.config.steps * self.config.batch_size
        self._bar = tqdm(
            total=images, unit=" images", unit_scale=True, disable=not self.config.progress
        )
        self._start = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def seconds(self) -> float:
        """Seconds since the run began. An accelerator may lag behind, up to the last ``read``."""
        return time.perf_counter() - self._start

    @property
    def unread(self) -> int:
        """How many losses still lie on the device."""
        return len(self._waiting)

    def note(self, loss: Tensor, lr: float) -> None:
        """Takes the loss of one step without looking at it."""
        self._waiting.append((loss, lr))

    def read(self) -> float:
        """Looks at the losses noted since the last look; the seconds by which they were there.

        Raises:
            TrainingError: one is not finite, or the metrics cannot be written.
        """
        if not self._waiting:
            return self.seconds()
        values = torch.stack([loss for loss, _ in self._waiting]).tolist()  # waits for the device
        seconds = self.seconds()
        for value, (_, lr) in zip(values, self._waiting, strict=True):
            if not math.isfinite(value):
                step = len(self.losses) + 1
                advice = "try a smaller lr, a longer warmup or precision fp32"
                raise TrainingError(f"the loss is {value} at step {step}; {advice}")
            self.losses.append(value)
            self._lr = lr
            self._smoothed += (value - self._smoothed) * max(0.02, 1 / len(self.losses))
            if len(self.losses) % self.config.log_every == 0:
                self._write(seconds)
        self._bar.set_postfix_str(f"loss {self._smoothed:.4f}", refresh=False)
        self._bar.update(len(values) * self.config.batch_size)
        self._waiting.clear()
        return seconds

    def finish(self) -> float:
        """Reads what is left and writes the last line, also an early one; see ``read``."""
        seconds = self.read()
        if len(self.losses) > self._logged:
            self._write(seconds)
        return seconds

    def _write(self, seconds: float) -> None:
        """Adds a line to the metrics: the mean loss since the line before."""
        recent = self.losses[self._logged :]
        passed = max(seconds - self._logged_seconds, 1e-9)
        line = {
            "step": len(self.losses),
            "loss": sum(recent) / len(recent),
            "lr": self._lr,
            "seconds": round(seconds, 3),
            "images_per_second": round(len(recent) * self.config.batch_size / passed, 1),
        }
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise TrainingError(f"cannot write {self.path}: {error.strerror}") from error
        self._logged, self._logged_seconds = len(self.losses), seconds


def _save(trainer: Trainer, data: Dataset, folder: Path, losses_so_far: list[float]) -> Path:
    """Writes a checkpoint of the averaged weights.

    Raises:
        TrainingError: a weight is not finite.
        CheckpointError: it cannot be written.
    """
    config, network = trainer.config, trainer.ema.module
    for name, parameter in network.named_parameters():
        if not parameter.isfinite().all():
            step = trainer.steps_done
            raise TrainingError(f"{name} is not finite at step {step}; nothing was saved")
    recent = losses_so_far[-100:]
    card = {
        "dataset": {
            "name": config.dataset,
            "image_shape": list(data.images.shape[1:]),
            "images": len(data.images),
            "class_names": list(data.class_names),
        },
        "schedule": {"name": config.schedule, "num_steps": config.num_steps},
        "seed": config.seed,
        "steps": trainer.steps_done,
        "seconds": round(trainer.seconds, 3),
        "metrics": {"loss": sum(recent) / len(recent), "loss_is_mean_of_steps": len(recent)},
        "device": hardware.describe_device(trainer.device),
        "precision": trainer.precision.name,
        "config": config.as_dict(),
        "command": config.command(),
    }
    path = folder / f"step-{trainer.steps_done:08d}"
    return save_checkpoint(path, network, trainer.schedule, target=config.target, card=card)


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def new_network(config: TrainConfig, data: Dataset) -> TinyUNet:
    """An untrained network as ``config`` describes it, for the images and classes of ``data``.

    Its first weights come from torch's global random state.
    """
    return TinyUNet(
        data.images.shape[1],
        widths=config.widths,
        blocks=config.blocks,
        patch=config.patch,
        num_classes=len(data.class_names) if config.conditional else None,
    )


def _optimizers(
    config: TrainConfig, network: nn.Module, device: torch.device
) -> list[torch.optim.Optimizer]:
    """The optimizers that together move every parameter once a step."""
    owner = {p: module for module in network.modules() for p in module.parameters(recurse=False)}
    trained = [p for p in network.parameters() if p.requires_grad]
    if not trained:
        raise ValueError("model must have a parameter to train, got none")
    matrices = [p for p in trained if is_matrix(owner[p], p)]
    tables = [p for p in trained if p.ndim >= 2 and not is_matrix(owner[p], p)]
    vectors = [p for p in trained if p.ndim < 2]
    optimizers: list[torch.optim.Optimizer] = []
    if config.optimizer == "muon" and matrices:
        optimizers.append(Muon(matrices, lr=config.muon_lr, weight_decay=config.weight_decay))
        matrices = []
    # Vectors are left alone by weight decay: pulled towards 0 they would switch channels off.
    groups = [
        {"params": [*matrices, *tables], "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if groups:
        fused = device.type in ("cpu", "cuda", "mps")
        adamw = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.99), fused=fused)
        optimizers.append(adamw)
    return optimizers


@contextlib.contextmanager
def _own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Global random numbers that start from ``seed``, and are given back as they were.

    First weights and dropout draw from the global generators; torch offers them no other.
    """
    cuda = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed(seed)
        yield


def _run_folder(config: TrainConfig) -> Path:
    """Creates the folder of the run and writes config.json into it.

    Raises:
        ValueError: it is not empty, or cannot be created or written.
    """
    folder = config.out or _free_folder(config.dataset)
    there_before = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ValueError(f"out must be a new or an empty folder, got {folder}")
        content = json.dumps(config.as_dict(), indent=2) + "\n"
        _files.write_whole(folder / "config.json", content.encode())
    except OSError as error:
        if not there_before:
            with contextlib.suppress(OSError):  # it may not have come to be
                folder.rmdir()
        raise ValueError(f"out cannot be written: {folder}: {error.strerror}") from error
    return folder


def _free_folder(dataset: str) -> Path:
    """The first of runs/NAME-1, runs/NAME-2, ... that does not exist."""
    name = Path(dataset.removeprefix("folder:")).resolve().name
    number = 1
    while (folder := Path("runs") / f"{name}-{number}").exists():
        number += 1
    return folder


def _check_config(config: TrainConfig) -> None:
    """Raises for the first field that cannot be meant, naming it."""
    if not isinstance(config.dataset, str) or not config.dataset:
        raise TypeError(f"dataset must be a name, got {_validate.describe(config.dataset)}")
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
    _validate.seed("seed", config.seed)
    at_least = {"num_steps": 1, "batch_size": 1, "blocks": 1, "patch": 1}
    for name, low in {**at_least, "log_every": 1}.items():
        _validate.whole_number(name, getattr(config, name), at_least=low)
    for name in ("size", "steps", "checkpoint_every"):
        if getattr(config, name) is not None:
            _validate.whole_number(name, getattr(config, name), at_least=1)
    for name in ("lr", "muon_lr", "weight_decay", "grad_clip"):
        _validate.number(name, getattr(config, name), low=0.0, high=1e6)
    for name in ("ema", "label_drop", "warmup"):
        _validate.number(name, getattr(config, name), low=0.0, high=1.0)
    if config.max_seconds is not None:
        _validate.number("max_seconds", config.max_seconds, low=1e-3, high=math.inf)
    elif config.steps is None:
        raise ValueError("steps and max_seconds must not both be None: the run would never end")
    if not isinstance(config.widths, tuple) or not config.widths:
        raise TypeError(f"widths must be a tuple of ints, got {_validate.describe(config.widths)}")
    for width in config.widths:
        _validate.whole_number("widths", width, at_least=1)
