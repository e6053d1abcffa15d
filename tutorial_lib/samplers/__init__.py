"""Samplers: walks from noise back to data, as generators of steps.

A new sampler is one file here and one entry in ``SAMPLERS``: ``sampling`` and the command line look
it up there, and see from its signature which options it has (``options_of``).
"""

from tutorial_lib.samplers.ddim import ddim
from tutorial_lib.samplers.ddpm import ddpm
from tutorial_lib.samplers.timesteps import evenly_spaced, respace
from tutorial_lib.samplers.walk import Sampler, SampleStep, last, options_of, walks_every_step

__all__ = [
    "SAMPLERS",
    "SampleStep",
    "Sampler",
    "ddim",
    "ddpm",
    "evenly_spaced",
    "last",
    "options_of",
    "respace",
    "walks_every_step",
]

SAMPLERS: dict[str, Sampler] = {"ddim": ddim, "ddpm": ddpm}
"""The samplers by name, each called as ``sampler(model, schedule, x_T, timesteps, generator=...)``
and, where it has some, with options of its own."""
