"""What lessons share: ``device = start(3)``, ``seeded(0)``, and the learner's own model.

Lesson 5 keeps what the learner has trained (``keep``), and later lessons use it (``your_model``).
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import tutorial_lib
from tutorial_lib import _files, _validate
from tutorial_lib.checkpoints import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
    shipped,
)
from tutorial_lib.course import LESSONS
from tutorial_lib.hardware import describe_device, pick_device

if TYPE_CHECKING:
    from tutorial_lib.datasets import Dataset
    from tutorial_lib.training import Trainer

RUNS_VARIABLE = "TUTORIAL_RUNS"
"""The environment variable that names another folder for what learners make."""

_OWN, _NAME = "lesson05", "model"


def start(number: int | str, device: torch.device | str | None = None) -> torch.device:
    """Prints which lesson this is, with which versions and on which device; returns the device.

    Nothing else in the process changes.

    Args:
        number: the lesson's number: 3, or "5b".
        device: what to compute on: a name such as "cpu", or a device of torch's. By default a GPU
            if there is one, else the CPU.

    Raises:
        ValueError: a lesson that does not exist, a device that this machine does not have.
    """
    lessons = {lesson.number: lesson for lesson in LESSONS}
    known = {int(name): name for name in lessons if name.isdecimal()}
    name = known.get(number, number) if type(number) is int else number
    lesson = lessons[_validate.one_of("number", name, lessons)]
    if not isinstance(device, torch.device):
        device = pick_device("auto" if device is None else device)
    print(f"Lesson {lesson.number} · {lesson.title}")
    versions = f"tutorial_lib {tutorial_lib.__version__} | torch {torch.__version__}"
    print(f"{versions} | {describe_device(device)}")
    return device


def seeded(seed: int) -> torch.Generator:
    """A source of random numbers, on the CPU, that starts the same way every time.

    Raises:
        TypeError, ValueError: ``seed`` is not an int from 0 to 2^63 - 1.
    """
    return torch.Generator().manual_seed(_validate.seed("seed", seed))


def runs_folder() -> Path:
    """The folder for what learners make: TUTORIAL_RUNS from the environment, or `runs/`.

    `runs/` lies beside the folder `notebooks/` that one works in, else in the current folder. It is
    also where ``python -m tutorial_lib train`` writes when it is called there.

    Raises:
        ValueError: TUTORIAL_RUNS begins with "~" and a user who has no home here.
    """
    chosen = os.environ.get(RUNS_VARIABLE)
    if chosen:
        return _files.expanded(RUNS_VARIABLE, chosen)
    here = Path.cwd()
    inside = (folder.parent for folder in (here, *here.parents) if folder.name == "notebooks")
    return next(inside, here) / "runs"


def keep(trainer: "Trainer", data: "Dataset") -> Path | None:
    """Saves the averaged weights of ``trainer`` as the learner's model, and says where in one line.

    It replaces the one that was there. Where nothing can be written, the line says why.

    Args:
        trainer: its network, as it is now.
        data: what it was trained on.

    Returns:
        The weights file, or None.
    """
    from tutorial_lib.training.batches import Examples  # the trainer has loaded it

    config, folder = trainer.config, runs_folder() / _OWN
    card = {
        "dataset": Examples.of(data).described(config.dataset),
        "steps": trainer.steps_done,
        "seed": config.seed,
        "command": config.command(),
    }
    network, schedule = trainer.ema.module, trainer.schedule
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = save_checkpoint(folder / _NAME, network, schedule, target=config.target, card=card)
    except (OSError, CheckpointError) as error:
        print(f"your model could not be kept: {error}")
        return None
    print(f"your model is kept in {_shown(folder)}")
    return path


def your_model(device: torch.device | str | None = None) -> Checkpoint:
    """The model that the learner trained in lesson 5, if it is there; else the one that ships.

    Prints one line that says which.

    Args:
        device: where it goes; by default a GPU if there is one, else the CPU.

    Raises:
        TypeError, ValueError: ``device`` is none of this machine.
    """
    place = pick_device() if device is None else _validate.device("device", device)
    folder = runs_folder() / _OWN
    why = "train your own in lesson 5"
    if folder.is_dir():
        try:
            found = load_checkpoint(folder, device=place)
        except CheckpointError as error:
            why = f"yours cannot be used: {error}"
        else:
            print(f"your own model of lesson 5 ({_shown(folder)})")
            return found
    print(f"the model that ships; {why}")
    return load_checkpoint(shipped()["mnist"], device=place)


def _shown(folder: Path) -> str:
    """``folder`` as seen from the course where it lies there, else whole."""
    return str(folder) if os.environ.get(RUNS_VARIABLE) else f"runs/{folder.name}"
