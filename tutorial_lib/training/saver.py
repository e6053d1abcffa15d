"""What a run saves while it trains, and how it resumes: checkpoints, states, grids of samples."""

import contextlib
import dataclasses
import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tutorial_lib import _extras, hardware, images
from tutorial_lib._validate import InvalidValueError
from tutorial_lib.checkpoints import CheckpointError, save_checkpoint
from tutorial_lib.hardware import parallel
from tutorial_lib.predictions import as_eps_model, clip_x0
from tutorial_lib.samplers import ddim, evenly_spaced, last
from tutorial_lib.training import state as states
from tutorial_lib.training.batches import Examples
from tutorial_lib.training.config import MAY_CHANGE, TrainConfig
from tutorial_lib.training.interrupts import Interrupted
from tutorial_lib.training.journal import Journal, TrainingError
from tutorial_lib.training.randomness import own_randomness
from tutorial_lib.training.run_folder import RunFolder, cannot_write
from tutorial_lib.training.state import State
from tutorial_lib.training.trainer import Trainer

SAVE_SECONDS = 300.0
"""The state is saved at least this often: the most that a power cut can cost."""

GRID = 64
"""Samples in a grid."""

Decode = Callable[[Tensor], Tensor]
"""Turns samples (N, ...) into images (N, 1 or 3, H, W) in [-1, 1]."""


class RunSaver:
    """Writes what a run leaves, when it is due: checkpoints, states, grids of samples.

    Args:
        trainer: what is saved.
        journal: the losses so far, which are saved with the state.
        data: what the run trains on.
        folder: where to write.
        passed_in: the arguments of ``train`` that no command line can name, such as "model".
        decode: turns samples into pictures, for grids of samples; None where they are pictures.
        clock: the time in seconds, from any start.
    """

    def __init__(
        self,
        trainer: Trainer,
        journal: Journal,
        data: Examples,
        folder: RunFolder,
        passed_in: list[str],
        decode: Decode | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.trainer, self.journal, self.data, self.folder = trainer, journal, data, folder
        self.passed_in, self.decode, self.clock = passed_in, decode, clock
        self.config, self.ranks = trainer.config, trainer.ranks
        self.stopped_by = 0
        self._saved_at, self._saved_step = clock(), 0
        self._fingerprint = data.fingerprint

    def is_anything_due(self) -> bool:
        """Whether a line, a checkpoint or a grid is due after this step."""
        each = (self.config.log_every, self.config.checkpoint_every, self.config.sample_every)
        return any(_is_due(self.trainer.steps_done, every) for every in each)

    def save_what_is_due(self, signal: int) -> bool:
        """Writes what is due, and everything if a ``signal`` arrived; whether the run must stop.

        All ranks call this at the same steps and decide alike.
        """
        trainer, config = self.trainer, self.config
        waited = self.clock() - self._saved_at
        signal_seen, waited, trainer.seconds = self.ranks.largest(signal, waited, trainer.seconds)
        trainer.check_scale()
        stops = bool(signal_seen) and trainer.fraction_done() < 1
        due = _is_due(trainer.steps_done, config.checkpoint_every)
        if due or stops:
            self.save_checkpoint()
        # before the state: a run that is killed in between draws it when it is resumed
        if _is_due(trainer.steps_done, config.sample_every):
            self.draw_grid()
        if due or stops or waited > SAVE_SECONDS:
            self.save_state()
        self.stopped_by = int(signal_seen)
        return stops

    def finish(self) -> Path:
        """Writes the last checkpoint and state; the checkpoint's weights file."""
        checkpoint = self.save_checkpoint()
        self.save_state()
        return checkpoint

    @contextlib.contextmanager
    def saving_on_errors(self) -> Iterator[None]:
        """Inside, an exception leaves the state after the last finished step, and goes on.

        Not where the weights were just changing, or are not finite: then the last state stays the
        newest. Nor in a run of several processes, which would have to agree on it: one of them may
        have ended.
        """
        try:
            yield
        except Interrupted:  # all is saved
            raise
        except BaseException as error:
            asked_to_stop = isinstance(error, KeyboardInterrupt)  # at once, by a second Ctrl-C
            if not asked_to_stop and self.ranks.count == 1 and self.trainer.is_between_steps:
                self._save_after(error)
            raise

    def _save_after(self, error: BaseException) -> None:
        """Saves the state, and adds a note to ``error`` that says so."""
        if self.trainer.steps_done == self._saved_step:
            return
        try:
            self.trainer.seconds = self.journal.read()
            self.save_state()
        except (TrainingError, CheckpointError) as second:
            if str(second) != str(error):
                error.add_note(f"The last step could not be saved: {second}.")
            return
        stopped = self.how_to_resume().removeprefix("stopped and saved")
        error.add_note(f"The run is saved{stopped}")

    def how_to_resume(self) -> str:
        """A sentence with what resumes the run: a command where one can, else a call."""
        where = f"step {self.trainer.steps_done}"
        if self.config.steps is not None:
            where += f" of {self.config.steps}"
        config = dataclasses.replace(self.config, out=self.folder.path, resume=True)
        again = config.command(parallel.launch_words())
        on_each = ", on each machine (HOST is one of them)" if parallel.machine_count() > 1 else ""
        if self.passed_in:
            same = "".join(f", {name}={name}" for name in self.passed_in)
            again = f"training.resume({str(self.folder.path)!r}{same})"
            on_each = ", in each process" if self.ranks.count > 1 else ""
        return f"stopped and saved at {where}; to resume{on_each}: {again}"

    def resume(self) -> None:
        """Continues from the newest state in the folder; from the start where there is none.

        From then on config.json says what was asked for this time.

        Raises:
            ValueError: it is the state of another run, or config.json cannot be written.
            CheckpointError: there are states, and none can be read.
        """
        state = self._newest_state()
        losses_so_far: list[float] = []
        facts: dict[str, Any] = {}
        if state is not None:
            _check_same_run(self.trainer, self._fingerprint, state)
            self.trainer.restore(state)
            self._saved_step = self.trainer.steps_done
            losses_so_far, facts = state.tensors["losses"].tolist(), state.facts["journal"]
        self.journal.resume(losses_so_far, facts, self.trainer.seconds)
        if not self.ranks.writes:
            return
        try:
            self.folder.write_config(self.config)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        step = self.trainer.steps_done
        if step and _is_due(step, self.config.sample_every) and not self.folder.grid(step).exists():
            self.draw_grid()  # it could not be written at its time

    def _newest_state(self) -> State | None:
        """The newest whole state, chosen by rank 0: all ranks resume from the same step.

        Left to themselves they might choose differently: one disk may fail where another does not.
        """
        found: list[State] = []

        def newest() -> str:
            found.extend(filter(None, [states.newest_state(self.folder.path)]))
            return found[0].path.name if found else ""

        name = self.ranks.first_does(newest)
        if name and not found:
            found.append(states.read_state(self.folder.states / name))
        return found[0] if found else None

    def save_state(self) -> None:
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
            "data": self._fingerprint,
            **_circumstances(trainer),
        }
        if self.ranks.writes:
            states.save_state(self.folder.path, trainer.steps_done, tensors, facts)
        self._saved_at, self._saved_step = self.clock(), trainer.steps_done

    def save_checkpoint(self) -> Path:
        """Writes a checkpoint of the averaged weights; its weights file.

        Raises:
            TrainingError: a weight is not finite.
            CheckpointError: it cannot be written.
        """
        trainer, config, data = self.trainer, self.config, self.data
        path = self.folder.checkpoint(trainer.steps_done)
        _check_finite(trainer.ema.module, trainer.steps_done)
        recent = self.journal.losses[-100:]
        asked = dataclasses.replace(config, resume=False)
        card = {
            "dataset": data.described(config.dataset),
            "schedule": {"name": config.schedule, "num_steps": config.num_steps},
            "seed": config.seed,
            "steps": trainer.steps_done,
            "seconds": round(trainer.seconds, 3),
            "metrics": {"loss": sum(recent) / len(recent), "loss_is_mean_of_steps": len(recent)},
            "device": hardware.describe_device(trainer.device),
            "precision": trainer.precision.name,
            "config": asked.as_dict(),
            "command": asked.command(parallel.launch_words()),
        }
        if self.ranks.writes:
            network = trainer.ema.module
            save_checkpoint(path, network, trainer.schedule, target=config.target, card=card)
            for old in self.folder.checkpoints()[: -config.keep if config.keep else 0]:
                # the card first: weights without one are found here again, and removed next time
                old.with_suffix(".json").unlink(missing_ok=True)
                old.unlink()
        return path.with_name(path.name + ".safetensors")

    @torch.no_grad()
    def draw_grid(self) -> None:
        """Writes a picture of samples of the averaged weights, from the same noise every time.

        20 steps of DDIM, which lesson 6 explains. Images stay in [-1, 1] on the way, where data
        lives; what a decoder turns into images has no such bounds.

        Where it cannot be written, a warning says so, and the run goes on.
        """
        if not self.ranks.writes:
            return
        trainer = self.trainer
        schedule, network = trainer.schedule, trainer.ema.module.eval()
        seeded = torch.Generator().manual_seed(self.config.seed)
        shape, kind = (GRID, *self.data.x.shape[1:]), self.data.x.dtype
        x_T = torch.randn(shape, generator=seeded, dtype=kind).to(trainer.device)
        condition = trainer.conditions_for(GRID)
        model = as_eps_model(network, schedule, self.config.target, condition)
        model = hardware.in_precision(model, trainer.device, trainer.precision)
        walk = evenly_spaced(schedule.num_steps, min(20, schedule.num_steps))
        if self.decode is None:
            drawn = last(ddim(clip_x0(model, schedule), schedule, x_T, walk))
        else:
            drawn = last(ddim(model, schedule, x_T, walk))
            with own_randomness(self.config.seed, trainer.device):  # a decoder may draw, too
                drawn = self.decode(drawn)
        drawn = drawn.cpu()
        path = self.folder.grid(trainer.steps_done)
        try:
            path.parent.mkdir(exist_ok=True)
            images.save_grid(drawn, path)
        except OSError as error:
            _extras.warn(f"cannot write {path}: {_extras.reason(error)}; this picture is missing")
        self.journal.show_picture("samples", np.atleast_3d(np.asarray(images.to_pil(drawn))))


def check_can_draw(config: TrainConfig, data: Examples, decode: Decode | None) -> None:
    """Raises ValueError where grids of samples are asked for and nothing turns them into images."""
    if config.sample_every is None or decode is not None:
        return
    if data.x.ndim != 4 or data.x.shape[1] not in (1, 3):
        shape = tuple(data.x.shape)
        raise InvalidValueError(
            f"sample_every needs decode, which turns samples into images, for data {shape}"
        )


def _check_finite(network: nn.Module, step: int) -> None:
    for name, parameter in network.named_parameters():
        if not parameter.isfinite().all():
            raise TrainingError(f"{name} is not finite at step {step}; nothing was saved")


def _circumstances(trainer: Trainer) -> dict[str, Any]:
    """What ``auto`` turned out to be; the random numbers and the rounding depend on it."""
    return {"device": trainer.device.type, "precision": trainer.precision.name}


def _check_same_run(trainer: Trainer, data: Mapping[str, Any], state: State) -> None:
    """Raises ValueError for the first thing that differs from when ``state`` was saved."""
    now, facts = json.loads(json.dumps(trainer.config.as_dict())), state.facts
    for field in dataclasses.fields(TrainConfig):
        then = facts["config"].get(field.name, now[field.name])
        if field.name not in MAY_CHANGE and then != now[field.name]:
            message = f"{field.name} must be {then!r}, as in the run to resume"
            raise InvalidValueError(f"{message}; got {now[field.name]!r}")
    for name, value in _circumstances(trainer).items():
        if facts[name] != value:
            message = f"{name} must be {facts[name]}, as in the run to resume; got {value}"
            raise InvalidValueError(message)
    for name, value in facts["data"].items():
        if data.get(name) != value:
            message = f"data must be the same as in the run to resume: {name} was {value}"
            raise InvalidValueError(f"{message}, is {data.get(name)}")
    if "autoencoder" in data and "autoencoder" not in facts["data"]:
        raise InvalidValueError("latent must be None, as in the run to resume")
    if "crc32_of_all" not in facts["data"]:
        message = "an earlier version has saved this run: only 256 of its examples can be compared"
        warnings.warn(message, stacklevel=2)
    steps, done = trainer.config.steps, facts["steps"]
    if steps is not None and steps < done:
        raise InvalidValueError(
            f"steps must be at least {done}, which the run has done; got {steps}"
        )
    for name in ("steps", "max_seconds"):
        before, wanted = facts["config"][name], now[name]
        if wanted != before and (trainer.config.decay != "constant" or trainer.config.warmup):
            message = f"{name} was {before} and is {wanted}: from step {done + 1} on"
            warnings.warn(f"{message} the learning rate is that of the new length", stacklevel=2)


def _is_due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
