"""DDIM against diffusers' scheduler, against a plain loop, and against DDPM."""

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
from tutorial_lib.samplers import ddim, ddpm, evenly_spaced, last
from tutorial_lib.schedules import cosine_schedule, from_betas, quadratic_schedule


def their_ddim(schedule, kind: str, count: int, spacing: str, *, own_tables: bool = False):
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    peer = DDIMScheduler(beta_schedule=kind, clip_sample=False, timestep_spacing=spacing)
    peer.set_timesteps(count)
    if not own_tables:
        peer.alphas_cumprod = schedule.alpha_bar[1:]
        peer.final_alpha_cumprod = torch.ones((), dtype=F64)
    return peer


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    ("kind", "spacing", "timesteps"),
    [
        (kind, spacing, walks[count])
        for kind in KINDS
        for spacing, walks in (("trailing", TRAILING), ("leading", LEADING))
        for count in (50, 10)
    ]
    + [("linear", "trailing", TRAILING[1000])],
    ids=lambda x: str(len(x) - 1) if isinstance(x, list) else x,
)
def test_every_state_of_ddim_is_that_of_diffusers(kind, spacing, timesteps, eta):
    schedule = KINDS[kind]()
    model, x_T = network(schedule), normal(*IMAGES).float()
    peer = their_ddim(schedule, kind, len(timesteps) - 1, spacing)
    assert [t + 1 for t in peer.timesteps.tolist()] == timesteps[:-1]
    walk = ddim(model, schedule, x_T, timesteps, eta=eta, generator=seeded(1))
    assert largest_difference(walk, peer, model, x_T, eta=eta) < 1e-5


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("count", LEADING)
@pytest.mark.parametrize("kind", KINDS)
def test_ddim_agrees_with_their_own_tables_too(kind, count, eta):
    schedule = KINDS[kind]()
    model, x_T = network(schedule), normal(*IMAGES).float()
    peer = their_ddim(schedule, kind, count, "leading", own_tables=True)
    walk = ddim(model, schedule, x_T, LEADING[count], eta=eta, generator=seeded(1))
    assert largest_difference(walk, peer, model, x_T, eta=eta) < 1e-5


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_in_float64_nothing_but_rounding_is_left(kind, eta):
    schedule, x_T = KINDS[kind](), normal(*IMAGES)
    model = network(schedule)
    peer = their_ddim(schedule, kind, 50, "trailing")
    walk = ddim(model, schedule, x_T, TRAILING[50], eta=eta, generator=seeded(1))
    assert largest_difference(walk, peer, model, x_T, eta=eta) < 1e-10


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_in_a_plain_loop_of_numbers(eta):
    """Song et al. 2021, eq. 12 and 16, for one number and uneven strides."""
    betas = [0.05 * (i + 1) for i in range(8)]
    walk = [8, 5, 2, 1, 0]
    x_T = torch.tensor([[-1.3]], dtype=F64)
    steps = list(ddim(simple, from_betas(betas), x_T, walk, eta=eta, generator=seeded(2)))
    draws, x = seeded(2), -1.3
    for i, (t, s) in enumerate(zip(walk, walk[1:], strict=False)):
        bar, bar_s = (math.prod(1 - b for b in betas[:n]) for n in (t, s))
        eps_hat = math.tanh(x + torch.tensor(t / 1000).item())
        x0_hat = (x - math.sqrt(1 - bar) * eps_hat) / math.sqrt(bar)
        sigma = eta * math.sqrt((1 - bar_s) / (1 - bar)) * math.sqrt(1 - bar / bar_s)
        z = torch.randn(1, 1, generator=draws, dtype=F64).item() if sigma > 0 else 0.0
        x = math.sqrt(bar_s) * x0_hat + math.sqrt(1 - bar_s - sigma**2) * eps_hat + sigma * z
        assert steps[i].t == s
        assert steps[i].x_t.item() == pytest.approx(x, rel=1e-9)
        assert steps[i].eps_hat.item() == pytest.approx(eps_hat, rel=1e-9)
        assert steps[i].x0_hat.item() == pytest.approx(x0_hat, rel=1e-9)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (F64, 1e-10)])
@pytest.mark.parametrize(
    "schedule",
    [LINEAR, cosine_schedule(100), quadratic_schedule(200)],
    ids=["linear", "cosine", "quadratic"],
)
def test_ddim_with_eta_1_over_every_step_is_ddpm_noise_for_noise(schedule, dtype, atol):
    model, x_T = network(schedule), normal(*IMAGES, dtype=dtype)
    every = range(schedule.num_steps, -1, -1)
    a = ddim(model, schedule, x_T, every, eta=1.0, generator=seeded(3))
    b = ddpm(model, schedule, x_T, variance="posterior", generator=seeded(3))
    for one, other in zip(a, b, strict=True):
        assert one.t == other.t
        assert_close(one.x_t, other.x_t, rtol=0, atol=atol)


def test_with_variance_beta_or_with_steps_left_out_it_is_not():
    model, x_T = network(SHORT), normal(*IMAGES)
    ancestral = last(ddpm(model, SHORT, x_T, generator=seeded(3)))
    beta = last(ddpm(model, SHORT, x_T, variance="beta", generator=seeded(3)))
    fewer = last(ddim(model, SHORT, x_T, evenly_spaced(20, 10), eta=1.0, generator=seeded(3)))
    assert (ancestral - beta).abs().max() > 0.01
    assert (ancestral - fewer).abs().max() > 0.01


def test_a_walk_may_be_any_part_of_the_whole():
    whole = list(ddim(simple, SHORT, normal(3, 2), [20, 15, 9, 4, 0]))
    part = list(ddim(simple, SHORT, whole[0].x_t, [15, 9, 4]))
    assert [step.t for step in part] == [9, 4]
    for one, other in zip(part, whole[1:3], strict=True):
        assert torch.equal(one.x_t, other.x_t)


def test_samples_do_not_depend_on_who_else_is_in_the_batch():
    x_T = normal(4, 2)
    together = last(ddim(simple, SHORT, x_T, evenly_spaced(20, 5)))
    alone = last(ddim(simple, SHORT, x_T[2:3], evenly_spaced(20, 5)))
    assert_close(together[2:3], alone, rtol=0, atol=1e-14)


def test_at_eta_0_no_generator_is_touched():
    generator = seeded(1)
    state, default = generator.get_state(), torch.get_rng_state()
    last(ddim(simple, SHORT, normal(2, 2), evenly_spaced(20, 20), eta=0.0, generator=generator))
    assert torch.equal(generator.get_state(), state)
    last(ddim(simple, SHORT, normal(2, 2), evenly_spaced(20, 20), eta=0.0))
    assert torch.equal(torch.get_rng_state(), default)
