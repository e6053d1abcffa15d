"""Samplers: walks from noise to data, as generators of steps."""

from tutorial_lib.samplers.ddim import ddim
from tutorial_lib.samplers.ddpm import ddpm
from tutorial_lib.samplers.timesteps import evenly_spaced, respace
from tutorial_lib.samplers.walk import SampleStep, last

__all__ = ["SampleStep", "ddim", "ddpm", "evenly_spaced", "last", "respace"]
