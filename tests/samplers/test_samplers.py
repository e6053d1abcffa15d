"""The samplers against diffusers' schedulers, against loops, and against each other."""

# pyright: reportArgumentType=false
# (part of this file hands in what the annotations forbid)

import inspect
import math
from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.testing import assert_close

from tutorial_lib._typing import EpsModel
from tutorial_lib.forward import posterior, predict_x0
from tutorial_lib.samplers import SampleStep, ddim, ddpm, evenly_spaced, last, respace
from tutorial_lib.schedules import (
    cosine_schedule,
    from_betas,
    linear_schedule,
    quadratic_schedule,
)

F64 = torch.float64
LINEAR, SHORT = linear_schedule(), linear_schedule(20, 0.01, 0.3)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=dtype)


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

# --- against diffusers -------------------------------------------------------------------------

KINDS = {
    "linear": linear_schedule,
    "scaled_linear": quadratic_schedule,
    "squaredcos_cap_v2": cosine_schedule,
}
# In our count of steps. "trailing" in their words is evenly_spaced; "leading" ends at their 0.
TRAILING = {count: evenly_spaced(1000, count) for count in (1000, 50, 10)}
LEADING = {count: [*range(1001 - 1000 // count, 0, -1000 // count), 0] for count in (50, 10)}


def their_ddim(schedule, kind: str, count: int, spacing: str, *, own_tables: bool = False):
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    peer = DDIMScheduler(beta_schedule=kind, clip_sample=False, timestep_spacing=spacing)
    peer.set_timesteps(count)
    if not own_tables:
        peer.alphas_cumprod = schedule.alpha_bar[1:]
        peer.final_alpha_cumprod = torch.ones((), dtype=F64)
    return peer


def their_ddpm(schedule, kind: str, timesteps, variance: str, *, own_tables: bool = False):
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    variance_type = {"posterior": "fixed_small", "beta": "fixed_large"}[variance]
    peer = DDPMScheduler(beta_schedule=kind, clip_sample=False, variance_type=variance_type)
    peer.set_timesteps(timesteps=[t - 1 for t in timesteps[:-1]])
    if not own_tables:
        peer.alphas_cumprod, peer.one = schedule.alpha_bar[1:], torch.ones((), dtype=F64)
    return peer


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


# Their float32 tables carry an error of their own, which a thousand noisy steps pile up to 4e-4,
# where our float32 walk stays within 9e-6 of the same walk in float64. So the formulas are compared
# with exact tables handed to them, and their own tables where the walk is short enough.


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
    fewer_model, fewer = respace(model, schedule, timesteps)
    walk = ddpm(fewer_model, fewer, x_T, variance=variance, generator=seeded(1))
    assert largest_difference(walk, peer, model, x_T) < 1e-5


@pytest.mark.parametrize("variance", ["posterior", "beta"])
@pytest.mark.parametrize("kind", ["linear", "squaredcos_cap_v2"])
def test_ddpm_agrees_with_their_own_tables_too(kind, variance):
    schedule, timesteps = KINDS[kind](), LEADING[10]
    model, x_T = network(schedule), normal(*IMAGES).float()
    peer = their_ddpm(schedule, kind, timesteps, variance, own_tables=True)
    fewer_model, fewer = respace(model, schedule, timesteps)
    walk = ddpm(fewer_model, fewer, x_T, variance=variance, generator=seeded(1))
    assert largest_difference(walk, peer, model, x_T) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_in_float64_nothing_but_rounding_is_left(kind):
    schedule, x_T = KINDS[kind](), normal(*IMAGES)
    model = network(schedule)
    for eta in (0.0, 0.3, 1.0):
        peer = their_ddim(schedule, kind, 50, "trailing")
        walk = ddim(model, schedule, x_T, TRAILING[50], eta=eta, generator=seeded(1))
        assert largest_difference(walk, peer, model, x_T, eta=eta) < 1e-10
    for variance in ("posterior", "beta"):
        peer = their_ddpm(schedule, kind, LEADING[50], variance)
        fewer_model, fewer = respace(model, schedule, LEADING[50])
        walk = ddpm(fewer_model, fewer, x_T, variance=variance, generator=seeded(1))
        assert largest_difference(walk, peer, model, x_T) < 1e-10


def test_ddpm_needs_no_respacing_for_the_full_walk():
    model, x_T = network(LINEAR), normal(1, 3, 4, 4)
    through_respace = ddpm(
        *respace(model, LINEAR, evenly_spaced(1000, 1000)), x_T, generator=seeded(1)
    )
    assert torch.equal(last(ddpm(model, LINEAR, x_T, generator=seeded(1))), last(through_respace))


# --- against loops and each other --------------------------------------------------------------


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


# --- what a walk yields ------------------------------------------------------------------------


def both(schedule=SHORT, **options):
    """A walk of each sampler over every step, as functions of model and x_T."""
    every = evenly_spaced(schedule.num_steps, schedule.num_steps)
    return {
        "ddpm": lambda model, x_T: ddpm(model, schedule, x_T, **options),
        "ddim": lambda model, x_T: ddim(model, schedule, x_T, every, **options),
        "ddim, eta 1": lambda model, x_T: ddim(model, schedule, x_T, every, eta=1.0, **options),
    }


each_sampler = pytest.mark.parametrize("name", both())


@each_sampler
def test_an_answer_that_lies_otherwise_changes_no_bit(name: str):
    """Channels last, broadcast from fewer numbers, in bf16: the walk is that of a plain answer."""

    def turned(x_t: Tensor, t: Tensor) -> Tensor:
        return simple(x_t, t).contiguous(memory_format=torch.channels_last)

    def few(x_t: Tensor, t: Tensor) -> Tensor:
        return simple(x_t, t)[:, :1, :1, :1].expand_as(x_t)

    def rough(x_t: Tensor, t: Tensor) -> Tensor:
        return simple(x_t, t).bfloat16()

    x_T = normal(*IMAGES, dtype=torch.float32)
    for model in (turned, few, rough):

        def plain(x_t: Tensor, t: Tensor, model: EpsModel = model) -> Tensor:
            return model(x_t, t).to(x_t.dtype).contiguous()

        walks = [list(both(generator=seeded(0))[name](each, x_T)) for each in (model, plain)]
        for one, other in zip(*walks, strict=True):
            assert torch.equal(one.x_t, other.x_t)
            assert torch.equal(one.x0_hat, other.x0_hat)
            assert torch.equal(one.eps_hat, other.eps_hat)
            assert one.x_t.stride() == one.eps_hat.stride() == x_T.stride()


@each_sampler
@pytest.mark.parametrize("shape", [(5, 2), (3, 1, 4, 4), (2, 3, 5, 7), (0, 2)], ids=str)
def test_the_model_is_asked_once_a_step_with_the_right_t_and_state(name, shape):
    asked = []

    def model(x_t, t):
        asked.append((x_t, t))
        return simple(x_t, t)

    x_T = normal(*shape)
    steps = list(both(generator=seeded(0))[name](model, x_T))
    assert [step.t for step in steps] == list(range(19, -1, -1))
    assert len(asked) == 20
    states = [x_T, *(step.x_t for step in steps)]
    for i, (x_t, t) in enumerate(asked):
        assert t.dtype == torch.int64
        assert torch.equal(t, torch.full((shape[0],), 20 - i))
        assert torch.equal(x_t, states[i])
        assert torch.equal(steps[i].eps_hat, simple(x_t, t))
        x0_hat = predict_x0(SHORT, x_t, t, steps[i].eps_hat)
        assert_close(steps[i].x0_hat, x0_hat, rtol=1e-12, atol=1e-12)
        assert steps[i].x_t.shape == shape


@each_sampler
def test_the_last_state_of_a_walk_to_0_is_its_x0_hat(name):
    *_, end = both(generator=seeded(0))[name](simple, normal(3, 2))
    assert end.t == 0
    assert_close(end.x_t, end.x0_hat, rtol=0, atol=1e-12)


def test_a_walk_may_be_any_part_of_the_whole():
    whole = list(ddim(simple, SHORT, normal(3, 2), [20, 15, 9, 4, 0]))
    part = list(ddim(simple, SHORT, whole[0].x_t, [15, 9, 4]))
    assert [step.t for step in part] == [9, 4]
    for one, other in zip(part, whole[1:3], strict=True):
        assert torch.equal(one.x_t, other.x_t)


@pytest.mark.plain_errors  # a NumPy array is no Sequence
def test_timesteps_come_as_any_falling_sequence():
    x_T = normal(2, 2)
    expected = last(ddim(simple, SHORT, x_T, [20, 10, 0]))
    numbers = np.array([20, 10, 0])
    for timesteps in (
        (20, 10, 0),
        range(20, -1, -10),
        torch.tensor([20, 10, 0]),
        torch.tensor([20, 10, 0], dtype=torch.int32),
        numbers,
        list(numbers),
        iter([20, 10, 0]),
    ):
        assert torch.equal(last(ddim(simple, SHORT, x_T, timesteps)), expected)


@each_sampler
def test_no_gradient_graph_is_kept_and_gradients_work_outside(name):
    w = torch.tensor(0.5, requires_grad=True)
    x_T = normal(2, 2).requires_grad_()
    for step in both(generator=seeded(0))[name](lambda x, t: w * x, x_T):
        assert not step.x_t.requires_grad
        assert not step.eps_hat.requires_grad
        assert torch.is_grad_enabled()  # between two steps the caller's world is as it was


@each_sampler
def test_states_that_were_yielded_stay_as_they_were(name):
    x_T = normal(2, 2)
    kept = x_T.clone()
    steps, copies = [], []
    for step in both(generator=seeded(0))[name](simple, x_T):
        steps.append(step)
        copies.append(step.x_t.clone())
    assert torch.equal(x_T, kept)
    for step, copy in zip(steps, copies, strict=True):
        assert torch.equal(step.x_t, copy)


@each_sampler
def test_a_walk_keeps_the_dtype_of_its_start(name):
    for dtype in (torch.float32, F64):
        for step in both(generator=seeded(0))[name](simple, normal(2, 2, dtype=dtype)):
            assert {step.x_t.dtype, step.eps_hat.dtype, step.x0_hat.dtype} == {dtype}
    # a network under autocast answers in bfloat16; the state stays float32
    for step in both(generator=seeded(0))[name](lambda x, t: x.bfloat16(), normal(2, 2).float()):
        assert {step.x_t.dtype, step.eps_hat.dtype, step.x0_hat.dtype} == {torch.float32}


@each_sampler
def test_samplers_are_generators_that_work_one_step_at_a_time(name):
    asked = []

    def model(x_t, t):
        asked.append(t)
        return simple(x_t, t)

    walk = both(generator=seeded(0))[name](model, normal(2, 2))
    assert inspect.isgenerator(walk)
    assert not asked
    assert isinstance(next(walk), SampleStep)
    assert len(asked) == 1


def test_samples_do_not_depend_on_who_else_is_in_the_batch():
    x_T = normal(4, 2)
    together = last(ddim(simple, SHORT, x_T, evenly_spaced(20, 5)))
    alone = last(ddim(simple, SHORT, x_T[2:3], evenly_spaced(20, 5)))
    assert_close(together[2:3], alone, rtol=0, atol=1e-14)


def test_last_walks_to_the_end():
    steps = list(ddim(simple, SHORT, normal(2, 2), [20, 10, 0]))
    assert last(steps) is steps[-1].x_t
    assert last(iter(steps)) is steps[-1].x_t


@pytest.mark.parametrize("T", [1, 2, 1000])
def test_every_schedule_length_can_be_walked(T):
    schedule, x_T = linear_schedule(T), normal(2, 2)
    for walk in both(schedule, generator=seeded(0)).values():
        assert last(walk(simple, x_T)).isfinite().all()


# --- evenly spaced -----------------------------------------------------------------------------


def test_evenly_spaced_as_its_docstring_says():
    assert evenly_spaced(1000, 50) == list(range(1000, -1, -20))
    assert evenly_spaced(1000, 1) == [1000, 0]
    assert evenly_spaced(5, 5) == [5, 4, 3, 2, 1, 0]
    assert evenly_spaced(10, 4) == [10, 8, 5, 3, 0]  # 7.5 and 2.5 go up


@given(st.integers(1, 5000).flatmap(lambda T: st.tuples(st.just(T), st.integers(1, T))))
def test_evenly_spaced_has_equal_strides_but_for_rounding(drawn):
    T, count = drawn
    walk = evenly_spaced(T, count)
    assert len(walk) == count + 1
    assert walk[0] == T
    assert walk[-1] == 0
    strides = {a - b for a, b in zip(walk, walk[1:], strict=False)}
    assert strides <= {T // count, -(T // -count)}
    assert all(type(t) is int for t in walk)
    for i, t in enumerate(reversed(walk)):
        assert abs(t - i * T / count) <= 0.5 + 1e-9


def test_evenly_spaced_takes_numpy_ints():
    assert evenly_spaced(int(np.int64(10)), 2) == [10, 5, 0]


# --- respacing ---------------------------------------------------------------------------------


def test_respacing_picks_alpha_bar_and_asks_the_model_about_its_own_steps():
    asked = []

    def model(x_t, t):
        asked.append(t)
        return simple(x_t, t)

    fewer_model, fewer = respace(model, SHORT, [17, 9, 2, 0])
    assert fewer.num_steps == 3
    assert torch.equal(fewer.alpha_bar, SHORT.alpha_bar[[0, 2, 9, 17]])
    x = normal(3, 2)
    answer = fewer_model(x, torch.tensor([1, 3, 2]))
    assert asked[0].tolist() == [2, 17, 9]
    assert torch.equal(answer, simple(x, asked[0]))


def test_ddim_over_a_respaced_schedule_is_ddim_over_those_steps():
    x_T, timesteps = normal(3, 2), [17, 9, 2, 0]
    direct = ddim(simple, SHORT, x_T, timesteps, eta=0.5, generator=seeded(1))
    respaced = ddim(
        *respace(simple, SHORT, timesteps), x_T, range(3, -1, -1), eta=0.5, generator=seeded(1)
    )
    assert_close(last(direct), last(respaced), rtol=0, atol=1e-14)


# --- randomness --------------------------------------------------------------------------------


@each_sampler
def test_noise_comes_from_the_generator_alone(name):
    x_T = normal(4, 2)
    state = torch.get_rng_state()
    first = last(both(generator=seeded(1))[name](simple, x_T))
    again = last(both(generator=seeded(1))[name](simple, x_T))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)
    other = last(both(generator=seeded(2))[name](simple, x_T))
    assert torch.equal(first, other) == (name == "ddim")


@each_sampler
def test_without_a_generator_torch_s_default_one_is_used(name):
    x_T = normal(4, 2)
    walks = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        walks.append(last(both()[name](simple, x_T)))
    assert torch.equal(walks[0], walks[1])
    assert torch.equal(walks[0], walks[2]) == (name == "ddim")


def test_at_eta_0_no_generator_is_touched():
    generator = seeded(1)
    state, default = generator.get_state(), torch.get_rng_state()
    last(ddim(simple, SHORT, normal(2, 2), evenly_spaced(20, 20), eta=0.0, generator=generator))
    assert torch.equal(generator.get_state(), state)
    last(ddim(simple, SHORT, normal(2, 2), evenly_spaced(20, 20), eta=0.0))
    assert torch.equal(torch.get_rng_state(), default)


@pytest.mark.parametrize("name", ["ddpm", "ddim, eta 1"])
def test_the_noise_is_fresh_and_none_is_added_at_the_last_step(name):
    """A model that always says zero: what is left of the walk is its noise."""
    x_T = torch.zeros(20_000, 1, dtype=F64)
    steps = list(both(generator=seeded(3))[name](lambda x, t: torch.zeros_like(x), x_T))
    before = [x_T, *(step.x_t for step in steps[:-1])]
    added = []
    for step, x in zip(steps, before, strict=True):
        t = step.t + 1
        share = SHORT.signal_rate[step.t] / SHORT.signal_rate[t]  # of x in the next mean
        noise = step.x_t - share * x
        variance = SHORT.posterior_variance[t - 1].item()
        assert abs(noise.var().item() - variance) <= 4.5 * variance * math.sqrt(2 / 20_000) + 1e-24
        if step.t > 0:
            added.append((noise / noise.std()).flatten())
    correlation = torch.stack(added).corrcoef() - torch.eye(19)
    assert correlation.abs().max() < 5 / math.sqrt(20_000)


# --- wrong arguments ---------------------------------------------------------------------------

X = torch.zeros(2, 3)
NAN = float("nan")
GOOD = [20, 10, 0]
BAD_START = [
    (X.long(), TypeError, "x_T must hold floating-point"),
    (X.tolist(), TypeError, "x_T must be a tensor, got list"),
    (None, TypeError, "x_T must be a tensor"),
    (X.half(), TypeError, "x_T must be float32 or float64, got torch.float16"),
    (X.bfloat16(), TypeError, "x_T must be float32 or float64, got torch.bfloat16"),
    (X[0], ValueError, r"x_T must have shape \(B, ...\), got \(3,\)"),
    (torch.tensor(1.0), ValueError, "x_T must have shape"),
    (X * NAN, ValueError, "x_T must be finite"),
    (X + math.inf, ValueError, "x_T must be finite"),
]


@pytest.mark.plain_errors
@pytest.mark.parametrize(("x_T", "error", "message"), BAD_START)
def test_a_wrong_start_is_refused_at_the_call_before_the_first_step(x_T, error, message):
    with pytest.raises(error, match=message):
        ddpm(simple, SHORT, x_T)
    with pytest.raises(error, match=message):
        ddim(simple, SHORT, x_T, GOOD)


BAD_TIMESTEPS = [
    ([], ValueError, "timesteps must hold at least a start and an end"),
    ([20], ValueError, "timesteps must hold at least a start and an end"),
    (torch.zeros(0, dtype=torch.int64), ValueError, "timesteps must hold at least a start"),
    ([21, 0], ValueError, r"timesteps must lie in 0\.\.20, got 21"),
    ([20, 10, -1], ValueError, "timesteps must be at least 0, got -1"),
    ([20, 10, 10, 0], ValueError, "timesteps must fall strictly, got 10 then 10"),
    ([0, 10, 20], ValueError, "timesteps must fall strictly, got 0 then 10"),
    ([20, 5, 9, 0], ValueError, "timesteps must fall strictly, got 5 then 9"),
    ([20.0, 0.0], TypeError, "timesteps must be an int, got float 20.0"),
    ([20, True, 0], TypeError, "timesteps must be an int, got bool"),
    ([20, None], TypeError, "timesteps must be an int, got NoneType"),
    (torch.tensor([20.0, 0.0]), TypeError, "timesteps must be an int, got float"),
    (torch.tensor([[20, 0]]), TypeError, "timesteps must be an int, got list"),
    (torch.tensor(20), TypeError, "timesteps must be a falling sequence"),
    (torch.tensor([True, False]), TypeError, "timesteps must be an int, got bool"),
    (np.array([20.0, 0.0]), TypeError, "timesteps must be an int, got float"),
    (20, TypeError, "timesteps must be a falling sequence of ints, got int 20"),
    (None, TypeError, "timesteps must be a falling sequence"),
    ("20", TypeError, "timesteps must be an int, got str '2'"),
]


@pytest.mark.plain_errors
@pytest.mark.parametrize(("timesteps", "error", "message"), BAD_TIMESTEPS)
def test_wrong_timesteps_are_refused_at_the_call(timesteps, error, message):
    with pytest.raises(error, match=message):
        ddim(simple, SHORT, X, timesteps)
    with pytest.raises(error, match=message):
        respace(simple, SHORT, timesteps)


WRONG = [
    (lambda: ddpm(simple, SHORT, X, variance="posteriour"), ValueError, "did you mean 'posterior'"),
    (lambda: ddpm(simple, SHORT, X, variance="fixed"), ValueError, "variance must be one of post"),
    (lambda: ddpm(simple, SHORT, X, variance=None), ValueError, "variance must be one of"),
    (lambda: ddpm(simple, SHORT, X, variance=0.5), ValueError, "variance must be one of"),
    (lambda: ddim(simple, SHORT, X, GOOD, eta=-0.1), ValueError, r"eta must be in \[0, 1\]"),
    (lambda: ddim(simple, SHORT, X, GOOD, eta=1.1), ValueError, r"eta must be in \[0, 1\]"),
    (lambda: ddim(simple, SHORT, X, GOOD, eta=NAN), ValueError, r"eta must be .*nan"),
    (lambda: ddim(simple, SHORT, X, GOOD, eta=math.inf), ValueError, "eta must be .*inf"),
    (lambda: ddim(simple, SHORT, X, GOOD, eta="1"), TypeError, "eta must be a number, got str"),
    (lambda: ddim(simple, SHORT, X, GOOD, eta=True), TypeError, "eta must be a number, got bool"),
    (lambda: ddim(simple, SHORT, X, GOOD, eta=None), TypeError, "eta must be a number"),
    (lambda: respace(simple, SHORT, [20, 10]), ValueError, "timesteps must end at 0.*got 10"),
    (lambda: evenly_spaced(0, 1), ValueError, "num_steps must be at least 1"),
    (lambda: evenly_spaced(10, 0), ValueError, "count must be at least 1"),
    (lambda: evenly_spaced(10, 11), ValueError, "count must be at most num_steps = 10, got 11"),
    (lambda: evenly_spaced(10, 2.0), TypeError, "count must be an int"),
    (lambda: evenly_spaced(10.0, 2), TypeError, "num_steps must be an int"),
    (lambda: evenly_spaced(True, True), TypeError, "num_steps must be an int"),
    (lambda: last([]), ValueError, "steps must hold at least one step"),
]


@pytest.mark.plain_errors
@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


BAD_MODELS = [
    (lambda x, t: x[:, :1], ValueError, r"model .* shape of x_t, \(2, 3\); got \(2, 1\)"),
    (lambda x, t: x.mean(), ValueError, "model must answer with the shape of x_t"),
    (lambda x, t: None, TypeError, "model must answer with a tensor, got NoneType"),
    (lambda x, t: {"sample": x}, TypeError, "model must answer with a tensor, got dict"),
    (lambda x, t: x * NAN, ValueError, "the answer of model at t = 20 must be finite"),
    (lambda x, t: x / (t - 20)[:, None], ValueError, "model at t = 20 must be finite"),
    (lambda x, t: torch.where(t == 7, NAN, 0.0)[:, None] + x, ValueError, "model at t = 7 "),
]


@pytest.mark.plain_errors
@pytest.mark.parametrize(("model", "error", "message"), BAD_MODELS)
@each_sampler
def test_a_model_that_answers_wrongly_is_named_when_it_does(name, model, error, message):
    walk = both(generator=seeded(0))[name](model, X)
    with pytest.raises(error, match=message):
        last(walk)


def test_last_refuses_a_walk_that_ends_on_nan():
    step = SampleStep(0, X * NAN, X, X)
    with pytest.raises(ValueError, match="steps must end on finite numbers"):
        last([step])
