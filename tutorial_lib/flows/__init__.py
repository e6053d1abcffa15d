"""Flow matching: continuous time, straight paths, and how both relate to diffusion.

A flow lives in continuous time from 0 (clean data) to 1 (noise). Each sample moves along the
straight path x = (1 - time) x_0 + time eps, whose velocity is eps - x_0. The model predicts the
mean velocity of all paths through x; following it from noise back to data draws samples (Lipman et
al. 2022, "Flow matching"; Liu et al. 2022, "Rectified flow"; Albergo & Vanden-Eijnden 2022,
"Stochastic interpolants"). These papers differ in the direction of time; here 1 is noise, so that
time grows with t.

A flow and a denoiser are the same model in other words. Divided by signal_rate + noise_rate, x_t
of a ``NoiseSchedule`` lies on the straight path at

    time = noise_rate / (signal_rate + noise_rate),

for the same x_0 and eps, so eps_hat and velocity determine each other (Gao et al. 2024, "Diffusion
meets flow matching"). ``times_of``, ``denoiser_from_flow`` and ``flow_from_denoiser`` convert.

A model learns by ``flow_loss`` at ``uniform_times`` or ``logit_normal_times``, ``euler`` and
``heun`` walk along it, and ``reflow_pairs`` make the next flow straighter (``straightness``).
"""

from tutorial_lib.flows.conversions import (
    denoiser_from_flow,
    flow_from_denoiser,
    schedule_through,
    times_of,
)
from tutorial_lib.flows.learning import flow_loss, flow_losses, logit_normal_times, uniform_times
from tutorial_lib.flows.path import predict_eps, predict_x0, straight_path, straight_velocity
from tutorial_lib.flows.reflow import reflow_pairs, straightness
from tutorial_lib.flows.walk import FlowStep, euler, heun

__all__ = [
    "FlowStep",
    "denoiser_from_flow",
    "euler",
    "flow_from_denoiser",
    "flow_loss",
    "flow_losses",
    "heun",
    "logit_normal_times",
    "predict_eps",
    "predict_x0",
    "reflow_pairs",
    "schedule_through",
    "straight_path",
    "straight_velocity",
    "straightness",
    "times_of",
    "uniform_times",
]
