"""What the tests of samplers share: schedules, denoisers, walks, and a walk beside diffusers'."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.draws import normal, seeded
from tutorial_lib.samplers import SAMPLERS, evenly_spaced
from tutorial_lib.schedules import cosine_schedule, linear_schedule, quadratic_schedule

F64 = torch.float64

LINEAR, SHORT = linear_schedule(), linear_schedule(20, 0.01, 0.3)


def network(schedule) -> Callable[[Tensor, Tensor], Tensor]:
    """A fixed nonlinear denoiser of images: right for data of variance 1/4 but for a random net.

    Near enough to the truth that states stay of the size of images, and that a difference of 1e-5
    means something; nonlinear and t-dependent enough that no wrong coefficient hides.
    """
    w1, w2 = normal(8, 3, 3, 3, seed=100) / 5, normal(3, 8, 3, 3, seed=101) / 8

    def model(x_t: Tensor, t: Tensor) -> Tensor:
        bar = schedule.alpha_bar[t].to(x_t)[:, None, None, None]
        hidden = torch.nn.functional.conv2d(x_t, w1.to(x_t), padding=1)
        detail = torch.nn.functional.conv2d(torch.tanh(hidden + bar), w2.to(x_t), padding=1)
        exact = (1 - bar).sqrt() * x_t / (bar / 4 + 1 - bar)
        return exact + 0.3 * bar.sqrt() * (1 - bar).sqrt() * detail

    return model


def simple(x_t: Tensor, t: Tensor) -> Tensor:
    """A denoiser of anything, for tests of form."""
    return torch.tanh(x_t + (t / 1000).to(x_t).reshape(-1, *[1] * (x_t.ndim - 1)))


IMAGES = (2, 3, 6, 6)

KINDS = {
    "linear": linear_schedule,
    "scaled_linear": quadratic_schedule,
    "squaredcos_cap_v2": cosine_schedule,
}

# In our count of steps. "trailing" in their words is evenly_spaced; "leading" ends at their 0.
TRAILING = {count: evenly_spaced(1000, count) for count in (1000, 50, 10)}

LEADING = {count: [*range(1001 - 1000 // count, 0, -1000 // count), 0] for count in (50, 10)}


# Their float32 tables carry an error of their own, which a thousand noisy steps pile up to 4e-4,
# where our float32 walk stays within 9e-6 of the same walk in float64. So the formulas are compared
# with exact tables handed to them, and with their own tables where the walk is short enough.


def largest_difference(walk, peer, model, x, **options) -> float:
    """Over every state of both walks; each draws from a generator of the same seed."""
    theirs, worst = seeded(1), 0.0
    for t, step in zip(peer.timesteps.tolist(), walk, strict=True):
        eps_hat = model(x, torch.full((len(x),), t + 1))  # they count from 0
        x, _ = peer.step(eps_hat, t, x, generator=theirs, return_dict=False, **options)
        assert x.dtype == step.x_t.dtype
        worst = max(worst, (step.x_t - x).abs().max().item())
    assert x.std() > 0.2  # else both would agree on nothing
    return worst


def walks_of_all(schedule=SHORT, **options):
    """A walk of each sampler over every step, as functions of model and x_T."""
    every = evenly_spaced(schedule.num_steps, schedule.num_steps)

    def walk(sampler, **own):
        return lambda model, x_T: sampler(model, schedule, x_T, every, **own, **options)

    walks = {name: walk(sampler) for name, sampler in SAMPLERS.items()}
    return {**walks, "ddim, eta 1": walk(SAMPLERS["ddim"], eta=1.0)}


DETERMINISTIC = ("ddim", "euler", "heun", "dpm_solver")
QUESTIONS = {"heun": 2}
"""How often a sampler asks the model in a step that does not end at 0, if not once."""

each_sampler = pytest.mark.parametrize("name", walks_of_all())
