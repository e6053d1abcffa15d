"""DDPM against diffusers' scheduler and against a plain loop."""

# pyright: reportArgumentType=false
# (part of this file passes what the annotations forbid)

import math

import pytest
import torch
from torch.testing import assert_close

from tests.samplers.walks import (
    F64,
    IMAGES,
    KINDS,
    LEADING,
    LINEAR,
    SHORT,
    TRAILING,
    largest_difference,
    network,
    normal,
    seeded,
    simple,
)
from tutorial_lib.forward import posterior
from tutorial_lib.samplers import ddpm, evenly_spaced, last, respace
from tutorial_lib.schedules import from_betas


def their_ddpm(schedule, kind: str, timesteps, variance: str, *, own_tables: bool = False):
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    variance_type = {"posterior": "fixed_small", "beta": "fixed_large"}[variance]
    peer = DDPMScheduler(beta_schedule=kind, clip_sample=False, variance_type=variance_type)
    peer.set_timesteps(timesteps=[t - 1 for t in timesteps[:-1]])
    if not own_tables:
        peer.alphas_cumprod, peer.one = schedule.alpha_bar[1:], torch.ones((), dtype=F64)
    return peer


# From t = 1000 of the cosine schedule a large first step divides rounding errors by 5e-5, whoever
# takes it, so short ancestral walks start lower. Where the last step is not their 0, their
# "fixed_large" still adds noise there, against algorithm 2; these walks end at their 0.
ANCESTRAL = [*LEADING.values(), [961, 700, 300, 41, 1, 0]]


@pytest.mark.parametrize("variance", ["posterior", "beta"])
@pytest.mark.parametrize(
    ("kind", "timesteps"),
    [(kind, timesteps) for kind in KINDS for timesteps in ANCESTRAL]
    + [("linear", TRAILING[1000]), ("squaredcos_cap_v2", TRAILING[1000])],
    ids=lambda x: str(len(x) - 1) if isinstance(x, list) else x,
)
def test_every_state_of_ddpm_is_that_of_diffusers(kind, timesteps, variance):
    schedule = KINDS[kind]()
    model, x_T = network(schedule), normal(*IMAGES).float()
    peer = their_ddpm(schedule, kind, timesteps, variance)
    walk = ddpm(model, schedule, x_T, timesteps, variance=variance, generator=seeded(1))
    assert largest_difference(walk, peer, model, x_T) < 1e-5


@pytest.mark.parametrize("variance", ["posterior", "beta"])
@pytest.mark.parametrize("kind", ["linear", "squaredcos_cap_v2"])
def test_ddpm_agrees_with_their_own_tables_too(kind, variance):
    schedule, timesteps = KINDS[kind](), LEADING[10]
    model, x_T = network(schedule), normal(*IMAGES).float()
    peer = their_ddpm(schedule, kind, timesteps, variance, own_tables=True)
    walk = ddpm(model, schedule, x_T, timesteps, variance=variance, generator=seeded(1))
    assert largest_difference(walk, peer, model, x_T) < 1e-5


@pytest.mark.parametrize("variance", ["posterior", "beta"])
@pytest.mark.parametrize("kind", KINDS)
def test_in_float64_nothing_but_rounding_is_left(kind, variance):
    schedule, x_T = KINDS[kind](), normal(*IMAGES)
    model = network(schedule)
    peer = their_ddpm(schedule, kind, LEADING[50], variance)
    walk = ddpm(model, schedule, x_T, LEADING[50], variance=variance, generator=seeded(1))
    assert largest_difference(walk, peer, model, x_T) < 1e-10


@pytest.mark.parametrize("variance", ["posterior", "beta"])
@pytest.mark.parametrize("timesteps", [[20, 13, 12, 1, 0], [17, 9, 2, 0], [20, 0]], ids=str)
def test_fewer_steps_are_a_walk_over_the_shortened_schedule(timesteps, variance):
    x_T, options = normal(3, 2), {"variance": variance}
    direct = list(ddpm(simple, SHORT, x_T, timesteps, generator=seeded(1), **options))
    shortened = respace(simple, SHORT, timesteps)
    for one, other in zip(
        direct, ddpm(*shortened, x_T, generator=seeded(1), **options), strict=True
    ):
        assert one.t == timesteps[::-1][other.t]
        assert torch.equal(one.x_t, other.x_t)
        assert torch.equal(one.x0_hat, other.x0_hat)


def test_a_walk_that_ends_above_0_adds_noise_at_every_step():
    whole = list(ddpm(simple, SHORT, normal(3, 2), [20, 15, 9, 4, 0], generator=seeded(1)))
    part = list(ddpm(simple, SHORT, normal(3, 2), [20, 15, 9], generator=seeded(1)))
    assert [step.t for step in part] == [15, 9]
    for one, other in zip(part, whole[:2], strict=True):
        assert torch.equal(one.x_t, other.x_t)


def test_ddpm_needs_no_respacing_for_the_full_walk():
    model, x_T = network(LINEAR), normal(1, 3, 4, 4)
    through_respace = ddpm(
        *respace(model, LINEAR, evenly_spaced(1000, 1000)), x_T, generator=seeded(1)
    )
    assert torch.equal(last(ddpm(model, LINEAR, x_T, generator=seeded(1))), last(through_respace))


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_ddpm_in_a_plain_loop_of_numbers(variance):
    """Ho et al. 2020, algorithm 2, for one number, betas written down."""
    betas = [0.1, 0.25, 0.4, 0.55]
    x_T = torch.tensor([[0.9]], dtype=F64)
    steps = list(ddpm(simple, from_betas(betas), x_T, variance=variance, generator=seeded(2)))
    draws, x = seeded(2), 0.9
    for t in (4, 3, 2, 1):
        bar = math.prod(1 - b for b in betas[:t])
        before = math.prod(1 - b for b in betas[: t - 1])
        beta = betas[t - 1]
        eps_hat = math.tanh(x + torch.tensor(t / 1000).item())
        mean = (x - beta / math.sqrt(1 - bar) * eps_hat) / math.sqrt(1 - beta)
        sigma = math.sqrt(beta if variance == "beta" else beta * (1 - before) / (1 - bar))
        z = torch.randn(1, 1, generator=draws, dtype=F64).item() if t > 1 else 0.0
        x0_hat = (x - math.sqrt(1 - bar) * eps_hat) / math.sqrt(bar)
        x = mean + sigma * z
        step = steps[4 - t]
        assert step.t == t - 1
        assert step.x_t.item() == pytest.approx(x, rel=1e-10)
        assert step.eps_hat.item() == pytest.approx(eps_hat, rel=1e-10)
        assert step.x0_hat.item() == pytest.approx(x0_hat, rel=1e-10)


def test_a_ddpm_step_is_a_draw_from_the_posterior_with_x0_hat_for_x0():
    x_T = normal(4, 3)
    x, draws = x_T, seeded(6)
    for step in ddpm(simple, SHORT, x_T, generator=seeded(6)):
        t = torch.full((4,), step.t + 1)
        mean, variance = posterior(SHORT, step.x0_hat, x, t)
        if step.t > 0:
            z = torch.randn(4, 3, generator=draws, dtype=F64)
            mean = mean + variance.sqrt() * z
        assert_close(step.x_t, mean, rtol=0, atol=1e-12)
        x = step.x_t
