"""Training a denoiser: one loop, from a minute on a laptop to a long run on a GPU."""

from tutorial_lib.hardware.parallel import ParallelError
from tutorial_lib.training.config import TrainConfig
from tutorial_lib.training.interrupts import Interrupted
from tutorial_lib.training.journal import TrainingError
from tutorial_lib.training.loop import READ_EVERY, Run, resume, train
from tutorial_lib.training.run_folder import RunFolder, asked_for
from tutorial_lib.training.saver import SAVE_SECONDS
from tutorial_lib.training.trainer import (
    Trainer,
    ema_decay,
    lr_factor,
    new_network,
    update_ema,
)

__all__ = [
    "READ_EVERY",
    "SAVE_SECONDS",
    "Interrupted",
    "ParallelError",
    "Run",
    "RunFolder",
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
