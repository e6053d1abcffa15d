"""Training a denoiser: one loop, from a minute on a laptop to a long run on a GPU.

``train(TrainConfig(...))`` reads the data onto the device, trains, and leaves a run folder:

    config.json      what was asked for
    metrics.jsonl    a line every ``log_every`` steps: step, loss, lr, seconds, images a second
    step-NNNNNNNN.safetensors, .json    checkpoints of the averaged weights, the last at the end
    state/           all that is needed to go on, see ``run_state``: the newest, and the one before
    samples/         grids of samples, where ``sample_every`` asks for them

The same config on the same CPU gives the same bits, unless ``max_seconds`` ends the run: then the
clock decides. That also holds for a run that was stopped, or killed, and resumed. All randomness
comes from ``seed``; the global random state is as it was afterwards.

Under ``torchrun`` the same call trains in several processes, see ``parallel``.
"""

import contextlib
import dataclasses
import json
import time
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tutorial_lib import _files, datasets, hardware, images, samplers
from tutorial_lib._typing import EpsModel
from tutorial_lib.checkpoints import as_eps_model, save_checkpoint
from tutorial_lib.datasets import Dataset
from tutorial_lib.hardware import parallel
from tutorial_lib.hardware.parallel import Ranks
from tutorial_lib.predictions import clip_x0
from tutorial_lib.schedules import NoiseSchedule
from tutorial_lib.training import state as run_state
from tutorial_lib.training.config import MAY_CHANGE, OF_ONE_PROCESS, TrainConfig
from tutorial_lib.training.interrupts import Interrupted, Interrupts
from tutorial_lib.training.journal import Journal, TrainingError, check_tensorboard
from tutorial_lib.training.state import State
from tutorial_lib.training.trainer import Trainer, ema_decay, lr_factor, new_network, update_ema

__all__ = [
    "Run",
    "TrainConfig",
    "Trainer",
    "TrainingError",
    "asked_for",
    "ema_decay",
    "lr_factor",
    "new_network",
    "resume",
    "train",
    "update_ema",
]

READ_EVERY = 50
"""Most steps between looks at the losses on an accelerator: each waits for the queue to empty."""

SAVE_SECONDS = 300.0
"""The state is saved at least so often: the most that a power cut can cost."""


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

    Ctrl-C, a notebook's stop button and SIGTERM let the step finish, save the run and raise
    ``Interrupted``, a KeyboardInterrupt whose message says how to go on: no cell below runs on half
    a training. A second one stops at once.

    Args:
        config: everything that decides the run.
        data: images to train on, in place of loading ``config.dataset``.
        model: a network to train in place of a ``TinyUNet``, called as ``model(x_t, t)``, with
            ``labels`` third where ``config.conditional``; it is trained in place.

    Raises:
        ValueError: a data set, device or folder that is not there or cannot be used, a model whose
            answer has not the shape of the images, a run to resume that was another one, processes
            that were asked for different runs.
        TrainingError: the loss or a weight is no longer finite.
        CheckpointError: a checkpoint or state cannot be written, or no state can be read.
        Interrupted: the run was asked to stop, and is saved.
        ParallelError: another process of the run has ended.
    """
    if config.tensorboard:
        check_tensorboard()
    device = hardware.pick_device(config.device)
    given = (("data", data), ("model", model))
    handed_in = [name for name, value in given if value is not None]
    with parallel.processes(device) as ranks:
        if data is None:
            data = _load(config, ranks)
        _check_agreement(config, data, ranks)
        precision = _precision(config, ranks)
        with _own_randomness(config.seed, ranks.device):
            network = model if model is not None else new_network(config, data)
            _seed_dropout(config.seed + ranks.rank, ranks.device)
            trainer = Trainer(config, network, data, ranks.device, precision, ranks)
            folder = Path(ranks.first_does(lambda: str(_run_folder(config))))
            return _run(trainer, data, folder, handed_in)


def resume(
    run: Path | str,
    *,
    data: Dataset | None = None,
    model: nn.Module | None = None,
    **changes: Any,
) -> Run:
    """Goes on with the run in the folder ``run``, to the bits that it would have had unstopped.

    Args:
        run: the folder; its config.json says what was asked for.
        data, model: as handed to ``train``; the weights of ``model`` are replaced.
        changes: fields of the config that are to be others, such as ``steps`` for a longer run.
            From there on, the learning rate is that of the longer run. It is the same as if that
            had been asked for at once only where ``decay`` is constant and the warm-up 0: else a
            run whose rate has fallen to 0 gets a high one again.

    Raises:
        ValueError, TypeError: no run there, or a change to a field that decided the steps so far.
        See also ``train``.
    """
    config = dataclasses.replace(asked_for(run), **changes)
    return train(config, data=data, model=model)


def asked_for(run: Path | str) -> TrainConfig:
    """The config of the run in the folder ``run``, set to go on there.

    Raises:
        ValueError, TypeError: there is none, or none that can be meant.
    """
    path = Path(run) / "config.json"
    try:
        fields = json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"run must be the folder of a run: {path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{path} is damaged: it holds no fields")
    return TrainConfig.from_dict({**fields, "out": str(run), "resume": True})


def _load(config: TrainConfig, ranks: Ranks) -> Dataset:
    """The data set; where one has to be downloaded, that is done once on each machine."""

    def load() -> Dataset:
        return datasets.load(config.dataset, size=config.size, root=config.root, seed=config.seed)

    missing = config.dataset in datasets.NAMES and not datasets.is_here(config.dataset, config.root)
    return load() if ranks.all(not missing) else ranks.in_turns(load)


def _precision(config: TrainConfig, ranks: Ranks) -> hardware.Precision:
    """That of the first rank, for all: where GPUs differ, ``auto`` would say different things."""
    own = hardware.pick_precision(config.precision, ranks.device)
    return hardware.pick_precision(ranks.first_does(lambda: own.name), ranks.device)


def _check_agreement(config: TrainConfig, data: Dataset, ranks: Ranks) -> None:
    """Raises ValueError, on all ranks, where they are about to train different things."""
    fields = {k: v for k, v in config.as_dict().items() if k not in OF_ONE_PROCESS}
    said = json.dumps({**fields, "data": _fingerprint(data)})
    own, first = json.loads(said), json.loads(ranks.first_does(lambda: said))
    other = [name for name, value in own.items() if first[name] != value]
    if not ranks.all(not other):
        which = ", ".join(other) or "config and data"
        raise ValueError(f"{which} must be the same in all processes of a run")


def _run(trainer: Trainer, data: Dataset, folder: Path, handed_in: list[str]) -> Run:
    """Steps until the time or the steps are spent; saves what is due on the way."""
    config, ranks = trainer.config, trainer.ranks
    journal = Journal(
        folder,
        batch_size=config.batch_size,
        log_every=config.log_every,
        steps=config.steps if config.max_seconds is None else None,
        progress=config.progress,
        tensorboard=config.tensorboard,
        ranks=ranks,
    )
    keeper = _Keeper(trainer, journal, data, folder, handed_in)
    if config.resume:
        keeper.take_up()
    read_every = _read_every(trainer.device)
    # torchrun passes a signal on that the terminal has sent already: no second thoughts there
    with Interrupts(patient=ranks.count > 1) as interrupts, journal:
        while trainer.fraction_done() < 1:
            journal.note(trainer.step(), trainer.lr)
            if keeper.is_anything_due() or journal.unread >= read_every:
                trainer.seconds = journal.read()
                if keeper.look(interrupts.signal):
                    raise Interrupted(keeper.how_to_go_on(), keeper.stopped_by)
            elif ranks.count == 1:  # several must agree on the time, when they look
                trainer.seconds = journal.seconds()
            trainer.update_lr()
        trainer.seconds = journal.finish()
        checkpoint = keeper.finish()
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


class _Keeper:
    """Writes what a run leaves, when it is due: checkpoints, states, grids of samples."""

    def __init__(
        self,
        trainer: Trainer,
        journal: Journal,
        data: Dataset,
        folder: Path,
        handed_in: list[str],
    ) -> None:
        self.trainer, self.journal, self.data, self.folder = trainer, journal, data, folder
        self.handed_in = handed_in
        self.config, self.ranks = trainer.config, trainer.ranks
        self.stopped_by = 0
        self._saved_at = time.perf_counter()
        self._print = _fingerprint(data)

    def is_anything_due(self) -> bool:
        """Whether a line, a checkpoint or a grid falls on this step."""
        each = (self.config.log_every, self.config.checkpoint_every, self.config.sample_every)
        return any(_due(self.trainer.steps_done, every) for every in each)

    def look(self, signal: int) -> bool:
        """Writes what is due, and everything where a ``signal`` came; whether the run is to stop.

        All ranks look at the same steps and decide alike.
        """
        trainer, config = self.trainer, self.config
        waited = time.perf_counter() - self._saved_at
        came, waited, trainer.seconds = self.ranks.largest(signal, waited, trainer.seconds)
        trainer.check_scale()
        stops = bool(came) and trainer.fraction_done() < 1
        due = _due(trainer.steps_done, config.checkpoint_every)
        if due or stops:
            self.checkpoint()
        if due or stops or waited > SAVE_SECONDS:
            self.state()
        if _due(trainer.steps_done, config.sample_every):
            self.grid()
        self.stopped_by = int(came)
        return stops

    def finish(self) -> Path:
        """Writes the last checkpoint and state; the checkpoint's weights file."""
        checkpoint = self.checkpoint()
        self.state()
        return checkpoint

    def how_to_go_on(self) -> str:
        """A sentence with what resumes the run: a command, if one can, else a call."""
        where = f"step {self.trainer.steps_done}"
        if self.config.steps is not None:
            where += f" of {self.config.steps}"
        again = dataclasses.replace(self.config, out=self.folder, resume=True).command()
        on_each = ", on each machine (HOST is one of them)" if parallel.machine_count() > 1 else ""
        if self.handed_in:  # no command can hand these in
            same = "".join(f", {name}={name}" for name in self.handed_in)
            again = f"training.resume({str(self.folder)!r}{same})"
            on_each = ", in each process" if self.ranks.count > 1 else ""
        return f"stopped and saved at {where}; to go on{on_each}: {again}"

    def take_up(self) -> None:
        """Goes on where the newest state of the folder is; from the start where there is none.

        From then on config.json says what was asked for this time.

        Raises:
            ValueError: it is the state of another run, or config.json cannot be written.
            CheckpointError: there are states, and none can be read.
        """
        state = self._newest_state()
        losses_so_far: list[float] = []
        facts: dict[str, Any] = {}
        if state is not None:
            _check_same_run(self.trainer, self._print, state)
            self.trainer.restore(state)
            losses_so_far, facts = state.tensors["losses"].tolist(), state.facts["journal"]
        self.journal.go_on(losses_so_far, facts, self.trainer.seconds)
        if not self.ranks.writes:
            return
        try:
            _write_config(self.config, self.folder)
        except OSError as error:
            raise ValueError(f"out cannot be written: {self.folder}: {error.strerror}") from error

    def _newest_state(self) -> State | None:
        """The newest whole state, by the word of rank 0: all go on from the same step.

        On its own each might find another: one disk may fail to read what another does.
        """
        found: list[State] = []

        def newest() -> str:
            found.extend(filter(None, [run_state.newest_state(self.folder)]))
            return found[0].path.name if found else ""

        name = self.ranks.first_does(newest)
        if name and not found:
            found.append(run_state.read_state(self.folder / run_state.FOLDER / name))
        return found[0] if found else None

    def state(self) -> None:
        """Writes the state of the run.

        Raises:
            TrainingError: a weight is not finite.
            CheckpointError: it cannot be written.
        """
        trainer = self.trainer
        _check_finite(trainer.network, trainer.steps_done)
        tensors, facts = trainer.state()
        tensors["losses"] = torch.tensor(self.journal.losses, dtype=torch.float64)
        facts |= {
            "journal": self.journal.facts(),
            "config": self.config.as_dict(),
            "data": self._print,
            **_circumstances(trainer),
        }
        if self.ranks.writes:
            run_state.save_state(self.folder, trainer.steps_done, tensors, facts)
        self._saved_at = time.perf_counter()

    def checkpoint(self) -> Path:
        """Writes a checkpoint of the averaged weights; its weights file.

        Raises:
            TrainingError: a weight is not finite.
            CheckpointError: it cannot be written.
        """
        trainer, config, data = self.trainer, self.config, self.data
        path = self.folder / f"step-{trainer.steps_done:08d}"
        _check_finite(trainer.ema.module, trainer.steps_done)
        recent = self.journal.losses[-100:]
        asked = dataclasses.replace(config, resume=False)
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
            "config": asked.as_dict(),
            "command": asked.command(),
        }
        if self.ranks.writes:
            network = trainer.ema.module
            save_checkpoint(path, network, trainer.schedule, target=config.target, card=card)
            for old in _checkpoints(self.folder)[: -config.keep if config.keep else 0]:
                # the card first: weights left alone are found here again, and removed next time
                old.with_suffix(".json").unlink(missing_ok=True)
                old.unlink()
        return path.with_name(path.name + ".safetensors")

    @torch.no_grad()
    def grid(self) -> None:
        """Writes 64 samples of the averaged weights, from the same noise every time.

        20 steps of DDIM, which lesson 6 explains.

        Raises:
            TrainingError: it cannot be written.
        """
        if not self.ranks.writes:
            return
        trainer, step = self.trainer, self.trainer.steps_done
        schedule, network = trainer.schedule, trainer.ema.module.eval()
        seeded = torch.Generator().manual_seed(self.config.seed)
        x_T = torch.randn(64, *self.data.images.shape[1:], generator=seeded).to(trainer.device)
        labels = None
        if self.config.conditional:
            labels = torch.arange(64, device=trainer.device) % trainer.no_class
        model = clip_x0(trainer._eps_model(network, labels), schedule)
        walk = samplers.evenly_spaced(schedule.num_steps, min(20, schedule.num_steps))
        drawn = samplers.last(samplers.ddim(model, schedule, x_T, walk)).cpu()
        path = self.folder / "samples" / f"step-{step:08d}.png"
        try:
            path.parent.mkdir(exist_ok=True)
            images.save_grid(drawn, path)
        except OSError as error:
            raise TrainingError(f"cannot write {path}: {error.strerror}") from error
        self.journal.show_picture("samples", np.atleast_3d(np.asarray(images.to_pil(drawn))))


def _check_finite(network: nn.Module, step: int) -> None:
    for name, parameter in network.named_parameters():
        if not parameter.isfinite().all():
            raise TrainingError(f"{name} is not finite at step {step}; nothing was saved")


def _checkpoints(folder: Path) -> list[Path]:
    """The weights files of the checkpoints in a run folder, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def _fingerprint(data: Dataset) -> dict[str, Any]:
    """Enough of the data to notice another set: shapes, classes, checksums of 256 images and of
    all labels."""
    every = max(1, len(data.images) // 256)
    some = data.images[::every].contiguous().cpu().numpy()
    return {
        "images": list(data.images.shape),
        "class_names": list(data.class_names),
        "crc32": zlib.crc32(some.tobytes()),
        "labels_crc32": zlib.crc32(data.labels.contiguous().cpu().numpy().tobytes()),
    }


def _circumstances(trainer: Trainer) -> dict[str, Any]:
    """What ``auto`` came to; the random numbers and the rounding depend on it."""
    return {"device": trainer.device.type, "precision": trainer.precision.name}


def _check_same_run(trainer: Trainer, data: Mapping[str, Any], state: State) -> None:
    """Raises ValueError for the first thing that is another than when ``state`` was saved."""
    now, facts = json.loads(json.dumps(trainer.config.as_dict())), state.facts
    for field in dataclasses.fields(TrainConfig):
        then = facts["config"].get(field.name, now[field.name])
        if field.name not in MAY_CHANGE and then != now[field.name]:
            message = f"{field.name} must be {then!r}, as in the run to resume"
            raise ValueError(f"{message}; got {now[field.name]!r}")
    for name, value in _circumstances(trainer).items():
        if facts[name] != value:
            raise ValueError(f"{name} must be {facts[name]}, as in the run to resume; got {value}")
    for name, value in facts["data"].items():
        if data[name] != value:
            message = f"data must be the same as in the run to resume: {name} was {value}"
            raise ValueError(f"{message}, is {data[name]}")
    steps, done = trainer.config.steps, facts["steps"]
    if steps is not None and steps < done:
        raise ValueError(f"steps must be at least {done}, which the run has done; got {steps}")
    for name in ("steps", "max_seconds"):
        before, wanted = facts["config"][name], now[name]
        if wanted != before and (trainer.config.decay != "constant" or trainer.config.warmup):
            message = f"{name} was {before} and is {wanted}: from step {done + 1} on"
            warnings.warn(f"{message} the learning rate is that of the new length", stacklevel=2)


def _read_every(device: torch.device) -> int:
    """Most steps between looks at the losses. On the CPU a look costs nothing."""
    return 1 if device.type == "cpu" else READ_EVERY


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


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


def _seed_dropout(seed: int, device: torch.device) -> None:
    """Lets what a network itself draws start from ``seed``: each rank has its own."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _run_folder(config: TrainConfig) -> Path:
    """Creates the folder of the run and writes config.json into it.

    Raises:
        ValueError: it is not empty though no run is to be resumed there, or cannot be created or
            written.
    """
    folder = config.out or _free_folder(config.dataset)
    there_before = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        asked = folder / "config.json"
        if config.resume and asked.exists():  # it is rewritten once the state is seen to fit
            return folder
        cut_off = {_files.temporary(asked)} if config.resume else set()  # before it had begun
        if set(folder.iterdir()) - cut_off:
            raise ValueError(f"out must be a new or an empty folder, got {folder}")
        _write_config(config, folder)
    except OSError as error:
        if not there_before:
            with contextlib.suppress(OSError):  # it may not have come to be
                folder.rmdir()
        raise ValueError(f"out cannot be written: {folder}: {error.strerror}") from error
    return folder


def _write_config(config: TrainConfig, folder: Path) -> None:
    """Writes what was asked for into config.json, unless it says so already.

    Raises:
        OSError: it cannot be written.
    """
    path, content = folder / "config.json", json.dumps(config.as_dict(), indent=2) + "\n"
    if not path.exists() or path.read_bytes() != content.encode():
        _files.write_whole(path, content.encode())


def _free_folder(dataset: str) -> Path:
    """The first of runs/NAME-1, runs/NAME-2, ... that does not exist."""
    name = Path(dataset.removeprefix("folder:")).resolve().name
    number = 1
    while (folder := Path("runs") / f"{name}-{number}").exists():
        number += 1
    return folder
