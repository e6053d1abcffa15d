"""Samplers: walks from noise back to data, as generators of steps.

A new sampler is one file here and one entry in ``SAMPLERS``: ``sampling`` and the command line look
it up there, and see from its signature which options it has (``options_of``).
"""

from tutorial_lib.samplers.ddim import ddim
from tutorial_lib.samplers.ddpm import ddpm
from tutorial_lib.samplers.dpm_solver import dpm_solver
from tutorial_lib.samplers.euler import euler, euler_ancestral
from tutorial_lib.samplers.heun import heun
from tutorial_lib.samplers.timesteps import SPACINGS, evenly_spaced, karras_spaced, respace
from tutorial_lib.samplers.walk import Sampler, SampleStep, last, options_of, walks_every_step

__all__ = [
    "SAMPLERS",
    "SPACINGS",
    "SampleStep",
    "Sampler",
    "ddim",
    "ddpm",
    "dpm_solver",
    "euler",
    "euler_ancestral",
    "evenly_spaced",
    "heun",
    "karras_spaced",
    "last",
    "options_of",
    "respace",
    "walks_every_step",
]

SAMPLERS: dict[str, Sampler] = {
    "ddim": ddim,
    "ddpm": ddpm,
    "euler": euler,
    "euler_ancestral": euler_ancestral,
    "heun": heun,
    "dpm_solver": dpm_solver,
}
"""The samplers by name, each called as ``sampler(model, schedule, x_T, timesteps, generator=...)``
and, where it has some, with options of its own."""
