"""Training a denoiser: one loop, from a minute on a laptop to a long run on a GPU."""

from tutorial_lib.training.config import TrainConfig
from tutorial_lib.training.journal import TrainingError
from tutorial_lib.training.loop import READ_EVERY, SAVE_SECONDS, Run, asked_for, resume, train
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
