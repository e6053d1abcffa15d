"""Samplers: walks from noise to data, as generators of steps."""

from tutorial_lib.samplers.walk import SampleStep, ddim, ddpm, evenly_spaced, last, respace

__all__ = ["SampleStep", "ddim", "ddpm", "evenly_spaced", "last", "respace"]
