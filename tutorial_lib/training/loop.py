"""Training a denoiser: one loop, from a minute on a laptop to a long run on a GPU.

``train(TrainConfig(...))`` reads the data onto the device, trains, and leaves a run folder; what it
holds, and under which names, is in ``run_folder``.

The same config on the same CPU gives the same bits, unless ``max_seconds`` ends the run: then the
clock decides. That also holds for a run that was stopped, or killed, and resumed. All randomness
comes from ``seed``; the global random state is the same afterwards as before.

Under ``torchrun`` the same call trains in several processes, see ``hardware.parallel``.

To follow one training step, read four files: ``TrainConfig`` in ``config``; ``train`` here, which
builds a ``Trainer`` and calls its ``step``; ``trainer``; and the loss in ``losses``.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutorial_lib import _memory, datasets, hardware
from tutorial_lib._typing import EpsModel
from tutorial_lib._validate import InvalidValueError
from tutorial_lib.autoencoders import TrainedAutoencoder, load_autoencoder
from tutorial_lib.datasets import Dataset
from tutorial_lib.hardware import parallel
from tutorial_lib.hardware.parallel import Ranks
from tutorial_lib.networks.unet import TinyUNet
from tutorial_lib.predictions import as_eps_model
from tutorial_lib.schedules import NoiseSchedule
from tutorial_lib.training.batches import Examples
from tutorial_lib.training.config import MAY_DIFFER_BETWEEN_PROCESSES, TrainConfig
from tutorial_lib.training.interrupts import Interrupted, Interrupts
from tutorial_lib.training.journal import Journal, check_tensorboard
from tutorial_lib.training.randomness import own_randomness, seed_dropout
from tutorial_lib.training.run_folder import RunFolder, asked_for, check_folder, open_run_folder
from tutorial_lib.training.saver import Decode, RunSaver, check_can_draw
from tutorial_lib.training.trainer import Trainer, network_arguments, new_network

READ_EVERY = 50
"""Most steps between reads of the losses on an accelerator: a read waits for its queue to empty."""

Data = Dataset | Tensor | tuple[Tensor, Tensor] | Examples
"""What ``train`` takes as data: a ``Dataset``, tensors (N, ...), or those and their conditions; or
``Examples``, which also say where latents come from."""


@dataclass(frozen=True, eq=False)
class Run:
    """What a training run leaves.

    Attributes:
        path: the run folder.
        checkpoint: the last checkpoint's weights file.
        config: what was asked for.
        network: the network after the last step, in eval mode.
        ema_network: the same with the averaged weights, in eval mode; samples are drawn with it.
        model: ``ema_network`` as ``eps_hat = model(x_t, t)``, whatever it was trained to predict.
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
    config: TrainConfig,
    *,
    data: Data | None = None,
    model: nn.Module | None = None,
    decode: Decode | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Run:
    """Trains as ``config`` says and returns the run; its folder holds checkpoints and metrics.

    Ho et al. 2020, algorithm 1, with an average of the weights (their appendix B).

    Ctrl-C, a notebook's stop button and SIGTERM let the step finish, save the run and raise
    ``Interrupted``, a KeyboardInterrupt whose message says how to resume: no cell below runs on
    half a training. A second one stops at once. Signal handlers are as before when ``train`` ends.

    Args:
        config: everything that decides the run.
        data: what to train on, in place of loading ``config.dataset``: a ``Dataset``, or a float32
            tensor (N, ...) of any shape and range, or a pair of that and its condition, int64 with
            a row an example: labels (N,) or words (N, L). Conditions are used where
            ``config.conditional``. With ``config.latent`` they are pictures, whose latents are
            trained on.
        model: a network to train in place of a ``TinyUNet``, called as ``model(x_t, t)``, or
            ``model(x_t, t, condition)`` where ``config.conditional``. It is trained in place, moved
            to the device, and its kernels are laid out in memory as is fastest there. Its weights
            are float32, whatever ``config.precision`` computes in. One that ``torch.compile`` made
            is trained compiled; the run holds and saves the network inside, as it does for
            ``DataParallel``. If ``model.config`` has ``num_classes``, they must be the data's. In
            bf16 on a CPU that multiplies bf16 natively, its attention of few tokens is computed as
            ``hardware.FewTokenAttention`` does. ``model.no_condition``, int64 () or (L,), is the
            row that means "no condition"; without it, labels of a ``Dataset`` have
            ``len(class_names)`` for that.
        decode: turns samples (N, ...) into images (N, 1 or 3, H, W) in [-1, 1], for the grids that
            ``config.sample_every`` asks for; None where the data are such images, or for the
            decoder of ``config.latent``.
        clock: the time in seconds, from any start; decides only where ``config.max_seconds`` does.

    Raises:
        ValueError: a data set, device or folder that does not exist or cannot be used, a model
            whose answer does not have the shape of the data, a run to resume that was started
            with other settings or data, processes with different configs or data.
        TrainingError: the loss or a weight is no longer finite.
        CheckpointError: a checkpoint or state cannot be written, no state can be read, or
            ``config.latent`` is no autoencoder.
        Interrupted: the run was asked to stop, and is saved.
        ParallelError: another process of the run has ended.
    """
    if config.tensorboard:
        check_tensorboard()
    if config.out is not None and parallel.is_first():  # known before minutes of work
        check_folder(config.out)
    device = hardware.pick_device(config.device)
    arguments = (("data", data), ("model", model), ("decode", decode))
    passed_in = [name for name, value in arguments if value is not None]
    if data is None and model is None:
        _check_sizes(config, device)
    autoencoder = None if config.latent is None else load_autoencoder(config.latent, device=device)
    with parallel.processes(device) as ranks:
        examples = Examples.of(data if data is not None else _load(config, ranks))
        if autoencoder is not None:
            examples, decode = _encoded(examples, autoencoder, ranks.device, decode)
        check_can_draw(config, examples, decode)
        _check_agreement(config, examples, ranks)
        precision = _precision(config, ranks)
        with own_randomness(config.seed, ranks.device):
            network = model if model is not None else new_network(config, examples)
            seed_dropout(config.seed + ranks.rank, ranks.device)
            trainer = Trainer(config, network, examples, ranks.device, precision, ranks)
            with contextlib.ExitStack() as held:  # by the first process, which writes there
                path = ranks.first_does(lambda: _opened(held, config))
                return _run(trainer, examples, RunFolder(Path(path)), passed_in, decode, clock)


def resume(
    run: Path | str,
    *,
    data: Data | None = None,
    model: nn.Module | None = None,
    decode: Decode | None = None,
    clock: Callable[[], float] = time.perf_counter,
    **changes: Any,
) -> Run:
    """Resumes the run in the folder ``run``, to the same bits as if it had never stopped.

    Args:
        run: the folder; its config.json says what was asked for.
        data, model, decode, clock: as passed to ``train``; the weights of ``model`` are replaced.
        changes: fields of the config to change, such as ``steps`` for a longer run. From there on,
            the learning rate is that of the longer run. The result is the same as if that had been
            asked for at once only where ``decay`` is constant and the warm-up 0: otherwise a run
            whose rate has fallen to 0 gets a high one again.

    Raises:
        ValueError, TypeError: no run there, or a change to a field that decided the steps so far.
        See also ``train``.
    """
    config = dataclasses.replace(asked_for(run), **changes)
    return train(config, data=data, model=model, decode=decode, clock=clock)


def _run(
    trainer: Trainer,
    data: Examples,
    folder: RunFolder,
    passed_in: list[str],
    decode: Decode | None,
    clock: Callable[[], float],
) -> Run:
    """Steps until the time or the steps are spent; saves what is due on the way."""
    config, ranks = trainer.config, trainer.ranks
    journal = Journal(
        folder.path,
        batch_size=config.batch_size,
        log_every=config.log_every,
        steps=config.steps if config.max_seconds is None else None,
        progress=config.progress,
        tensorboard=config.tensorboard,
        ranks=ranks,
        clock=clock,
    )
    saver = RunSaver(trainer, journal, data, folder, passed_in, decode, clock)
    if config.resume:
        saver.resume()
    read_every = _read_every(trainer.device)
    # torchrun passes on a signal that the terminal has already sent, so a second one means nothing
    with Interrupts(patient=ranks.count > 1) as interrupts, journal, saver.saving_on_errors():
        while trainer.fraction_done() < 1:
            journal.note(trainer.step(), trainer.lr)
            if saver.is_anything_due() or journal.unread >= read_every:
                trainer.seconds = journal.read()
                if saver.save_what_is_due(interrupts.signal):
                    raise Interrupted(saver.how_to_resume(), saver.stopped_by)
            elif ranks.count == 1:  # several must agree on the time, which they do when they save
                trainer.seconds = journal.seconds()
            trainer.update_lr()
        trainer.seconds = journal.finish()
        checkpoint = saver.finish()
    network, ema_network = trainer.network.eval(), trainer.ema.module.eval()
    model = as_eps_model(ema_network, trainer.schedule, config.target)
    return Run(
        path=folder.path,
        checkpoint=checkpoint,
        config=config,
        network=network,
        ema_network=ema_network,
        model=model,
        schedule=trainer.schedule,
        losses=journal.losses,
        seconds=trainer.seconds,
    )


def _check_sizes(config: TrainConfig, device: torch.device) -> None:
    """Refuses sizes that could not work with any data set, before one is loaded or drawn."""
    needed = 4 * config.batch_size  # were each example a single number
    what = "a batch of so many examples"
    _memory.check_fits("batch_size", config.batch_size, needed, what, device)
    TinyUNet.checked(in_channels=1, **network_arguments(config))


def _opened(held: contextlib.ExitStack, config: TrainConfig) -> str:
    return str(held.enter_context(open_run_folder(config)).path)


def _encoded(
    examples: Examples, trained: TrainedAutoencoder, device: torch.device, decode: Decode | None
) -> tuple[Examples, Decode]:
    """The latents of pictures, and what turns latents into pictures again."""
    codec = trained.codec.to(device)
    examples = examples.encoded(codec, trained.path.stem, trained.checksum)
    return examples, codec.decode if decode is None else decode


def _load(config: TrainConfig, ranks: Ranks) -> Dataset:
    """The data set; one that has to be downloaded is downloaded once on each machine."""

    def load() -> Dataset:
        return datasets.load(config.dataset, size=config.size, root=config.root, seed=config.seed)

    missing = config.dataset in datasets.NAMES and not datasets.is_here(config.dataset, config.root)
    return load() if ranks.all(not missing) else ranks.in_turns(load)


def _precision(config: TrainConfig, ranks: Ranks) -> hardware.Precision:
    """The first rank's, for all: where GPUs differ, ``auto`` would mean different things."""
    own = hardware.pick_precision(config.precision, ranks.device)
    return hardware.pick_precision(ranks.first_does(lambda: own.name), ranks.device)


def _check_agreement(config: TrainConfig, data: Examples, ranks: Ranks) -> None:
    """Raises ValueError, on all ranks, where they are about to train different things."""
    fields = config.as_dict().items()
    decides = {k: v for k, v in fields if k not in MAY_DIFFER_BETWEEN_PROCESSES}
    text = json.dumps({**decides, "data": data.fingerprint})
    own, first = json.loads(text), json.loads(ranks.first_does(lambda: text))
    different = [name for name, value in own.items() if first[name] != value]
    if not ranks.all(not different):
        which = ", ".join(different) or "config and data"
        raise InvalidValueError(f"{which} must be the same in all processes of a run")


def _read_every(device: torch.device) -> int:
    """Most steps between two reads of the losses. On the CPU a read costs nothing."""
    return 1 if device.type == "cpu" else READ_EVERY
