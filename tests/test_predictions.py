"""Prediction targets: the identities between eps, v, x_0 and the velocity, in float64."""

# pyright: reportArgumentType=false
# (part of this file passes what the annotations forbid)

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch.testing import assert_close

from tests.draws import normal
from tutorial_lib.flows import denoiser_from_flow, times_of
from tutorial_lib.forward import diffuse
from tutorial_lib.oracles import GaussianMixtureOracle
from tutorial_lib.predictions import (
    TARGETS,
    as_eps_model,
    clip_x0,
    eps_from_flow,
    eps_from_v,
    eps_from_x0,
    velocity,
)
from tutorial_lib.samplers import ddim, evenly_spaced, last
from tutorial_lib.schedules import cosine_schedule, linear_schedule

F64 = torch.float64
LINEAR, COSINE = linear_schedule(), cosine_schedule(100)
schedules = st.sampled_from([LINEAR, COSINE, linear_schedule(1)])
shapes = st.sampled_from([(3,), (3, 2), (3, 2, 4, 4)])


def a_batch(schedule, shape, share: float, seed: int):
    """Data, noise, t and the noisy data; t is 1, ``share`` of the way to T, and T."""
    T = schedule.num_steps
    t = torch.tensor([1, max(1, round(share * T)), T])
    x0, eps = normal(*shape, seed=seed), normal(*shape, seed=seed + 1)
    return x0, eps, t, diffuse(schedule, x0, t, eps)


def test_velocity_equals_a_plain_loop():
    """Salimans & Ho 2022, sec. 4, number by number, with alpha_bar computed from the betas."""
    x0, eps, t = normal(4, 2, 3, 3), normal(4, 2, 3, 3, seed=1), torch.tensor([0, 1, 400, 1000])
    v = velocity(LINEAR, x0, t, eps)
    for b in range(4):
        betas = [1e-4 + (0.02 - 1e-4) * i / 999 for i in range(int(t[b]))]
        bar = math.prod(1 - beta for beta in betas)
        pairs = zip(x0[b].flatten().tolist(), eps[b].flatten().tolist(), strict=True)
        expected = [math.sqrt(bar) * e - math.sqrt(1 - bar) * x for x, e in pairs]
        assert_close(v[b].flatten(), torch.tensor(expected, dtype=F64), rtol=1e-9, atol=1e-11)


def test_velocity_equals_that_of_diffusers():
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    x0, eps, t = normal(4, 3), normal(4, 3, seed=1), torch.tensor([1, 300, 700, 1000])
    theirs = DDPMScheduler().get_velocity(x0, eps, t - 1)  # they count from 0
    assert_close(velocity(LINEAR, x0, t, eps), theirs, rtol=0, atol=1e-5)


@given(schedules, shapes, st.floats(0, 1), st.integers(0, 2**31))
def test_velocity_is_the_derivative_of_x_t_with_respect_to_the_angle(schedule, shape, share, seed):
    """x = cos(a) x_0 + sin(a) eps has dx/da = v: compare with a central difference."""
    x0, eps, t, _ = a_batch(schedule, shape, share, seed)
    angle = torch.acos(schedule.signal_rate[t]).reshape(-1, *[1] * (len(shape) - 1))
    h = 1e-5
    ahead = (angle + h).cos() * x0 + (angle + h).sin() * eps
    behind = (angle - h).cos() * x0 + (angle - h).sin() * eps
    v = velocity(schedule, x0, t, eps)
    # acos is steep near signal_rate = 1, where half of the digits are lost
    assert_close(v, (ahead - behind) / (2 * h), rtol=0, atol=1e-6)


@given(schedules, shapes, st.floats(0, 1), st.integers(0, 2**31))
def test_eps_follows_from_v(schedule, shape, share, seed):
    x0, eps, t, x_t = a_batch(schedule, shape, share, seed)
    model = eps_from_v(lambda x, t: velocity(schedule, x0, t, eps), schedule)
    assert_close(model(x_t, t), eps, rtol=0, atol=1e-13)


@given(schedules, shapes, st.floats(0, 1), st.integers(0, 2**31))
def test_eps_follows_from_the_velocity_of_a_flow(schedule, shape, share, seed):
    x0, eps, t, x_t = a_batch(schedule, shape, share, seed)
    model = eps_from_flow(lambda x, t: eps - x0, schedule)
    assert_close(model(x_t, t), eps, rtol=0, atol=1e-13)


def test_a_flow_s_network_is_asked_on_the_straight_line_and_told_the_step():
    """At x = x_t / (signal + noise), which is (1 - time) x_0 + time eps, number by number."""
    t = torch.tensor([1, 400, 1000])
    x0, eps, asked = normal(3, 2), normal(3, 2, seed=1), []
    model = eps_from_flow(lambda x, t: asked.append((x, t)) or torch.zeros_like(x), LINEAR)
    model(diffuse(LINEAR, x0, t, eps), t)
    ((x, told),) = asked
    assert told is t
    for b in range(3):
        bar = math.prod((1 - LINEAR.beta[: int(t[b])]).tolist())
        time = math.sqrt(1 - bar) / (math.sqrt(bar) + math.sqrt(1 - bar))
        expected = [(1 - time) * a + time * e for a, e in zip(x0[b], eps[b], strict=True)]
        assert x[b].tolist() == pytest.approx([float(e) for e in expected], abs=1e-12)


@pytest.mark.parametrize("schedule", [LINEAR, COSINE], ids=["linear", "cosine"])
def test_a_network_that_looks_up_the_time_of_its_step_is_a_flow(schedule):
    """The wrapper for networks against the wrapper for flows, the same to the last digits."""

    def flow(x, time):
        return (3 * x + time[:, None]).cos()

    t = torch.arange(1, schedule.num_steps + 1)
    network = eps_from_flow(lambda x, t: flow(x, times_of(schedule)[t]), schedule)
    x_t = normal(len(t), 3)
    assert_close(network(x_t, t), denoiser_from_flow(flow, schedule)(x_t, t), rtol=0, atol=1e-12)


@given(schedules, shapes, st.floats(0, 1), st.integers(0, 2**31))
def test_eps_follows_from_x0(schedule, shape, share, seed):
    x0, eps, t, x_t = a_batch(schedule, shape, share, seed)
    model = eps_from_x0(lambda x, t: x0, schedule)
    assert_close(model(x_t, t), eps, rtol=0, atol=1e-12)  # / noise_rate, at least 0.01 here


def test_wrapped_models_get_x_t_and_t_unchanged():
    _, _, t, x_t = a_batch(LINEAR, (3, 2), 0.5, 0)
    for wrap in (eps_from_v, eps_from_x0, clip_x0):
        asked = []
        wrap(lambda x, t, asked=asked: asked.append((x, t)) or torch.zeros_like(x), LINEAR)(x_t, t)
        assert len(asked) == 1
        assert asked[0][0] is x_t
        assert asked[0][1] is t


@pytest.mark.parametrize("t", [1, 500, 1000])
def test_an_error_in_v_is_scaled_by_signal_rate_in_eps(t):
    x_t, steps = normal(2, 3), torch.full((2,), t)
    right = eps_from_v(lambda x, t: torch.ones_like(x), LINEAR)(x_t, steps)
    off = eps_from_v(lambda x, t: torch.ones_like(x) + 0.5, LINEAR)(x_t, steps)
    factor = math.sqrt(math.prod((1 - LINEAR.beta[:t]).tolist()))
    assert_close(off - right, torch.full((2, 3), 0.5 * factor, dtype=F64), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("schedule", [LINEAR, COSINE], ids=["linear", "cosine"])
def test_a_walk_with_a_wrapped_oracle_equals_the_oracle_s_own(schedule):
    """The oracle converted to v, to x_0 and to a velocity, and back: the same 20 steps."""
    oracle = GaussianMixtureOracle(
        schedule,
        torch.tensor([[1.0, 0.0], [-1.0, 0.5]], dtype=F64),
        torch.tensor([0.1, 0.2], dtype=F64),
        torch.tensor([0.4, 0.6], dtype=F64),
    )

    def x0_model(x_t, t):
        signal, noise = (rate[t][:, None] for rate in (schedule.signal_rate, schedule.noise_rate))
        return (x_t - noise * oracle(x_t, t)) / signal

    def v_model(x_t, t):
        signal, noise = (rate[t][:, None] for rate in (schedule.signal_rate, schedule.noise_rate))
        return signal * oracle(x_t, t) - noise * x0_model(x_t, t)

    x_T, timesteps = normal(8, 2), evenly_spaced(schedule.num_steps, 20)
    expected = last(ddim(oracle, schedule, x_T, timesteps))

    def flow_model(x, t):
        total = (schedule.signal_rate + schedule.noise_rate)[t][:, None]
        return oracle(x * total, t) - x0_model(x * total, t)

    wrapped = [eps_from_v(v_model, schedule), eps_from_x0(x0_model, schedule)]
    for model in (*wrapped, eps_from_flow(flow_model, schedule)):
        assert_close(last(ddim(model, schedule, x_T, timesteps)), expected, rtol=0, atol=1e-8)


# --- targets by name ---------------------------------------------------------------------------


def true_predictions(x0, eps, schedule, t):
    """What a perfect network predicts for each target, from the definitions."""
    bar = schedule.alpha_bar[t].reshape(-1, *[1] * (x0.ndim - 1))
    v = bar.sqrt() * eps - (1 - bar).sqrt() * x0
    return {"eps": eps, "x0": x0, "v": v, "velocity": eps - x0}


def test_each_target_has_a_true_prediction():
    x0, eps, t, _ = a_batch(LINEAR, (3, 2), 0.5, 0)
    assert set(TARGETS) == true_predictions(x0, eps, LINEAR, t).keys()


@pytest.mark.parametrize("target", TARGETS)
def test_a_perfect_network_gives_the_true_eps(target):
    x0, eps, t, x_t = a_batch(LINEAR, (3, 2), 0.5, 0)
    prediction = true_predictions(x0, eps, LINEAR, t)[target]
    model = as_eps_model(lambda x, t: prediction, LINEAR, target)
    assert_close(model(x_t, t), eps, rtol=0, atol=1e-12)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("condition", [torch.arange(3), torch.arange(12).reshape(3, 4)])
def test_a_condition_is_the_network_s_third_argument(target, condition):
    """A network that reads labels (B,) or words (B, L): it predicts right only if told them all."""
    x0, eps, t, x_t = a_batch(LINEAR, (3, 2), 0.5, 0)
    prediction = true_predictions(x0, eps, LINEAR, t)[target]
    weight = normal(12, seed=5)

    def network(x, t, condition):
        rows = condition.reshape(len(condition), -1)
        return prediction + weight[rows].sum(1)[:, None] - expected_shift

    expected_shift = weight[condition.reshape(3, -1)].sum(1)[:, None]
    assert_close(as_eps_model(network, LINEAR, target, condition)(x_t, t), eps, rtol=0, atol=1e-12)
    other = as_eps_model(network, LINEAR, target, condition.flip(0))(x_t, t)
    assert (other - eps)[[0, 2]].abs().min() > 1e-4


def test_without_a_condition_the_network_gets_two_arguments():
    x_t, t, seen = normal(2, 3), torch.tensor([1, 5]), []

    def network(*arguments):
        seen.append(arguments)
        return torch.zeros_like(arguments[0])

    for target in TARGETS:
        as_eps_model(network, LINEAR, target)(x_t, t)
    assert all(len(arguments) == 2 for arguments in seen)
    assert len(seen) == len(TARGETS)


@pytest.mark.plain_errors
@pytest.mark.parametrize("target", ["noise", "", None, ["eps"]])
def test_an_unknown_target_is_named(target):
    with pytest.raises(ValueError, match=r"^target must be one of eps, v, x0, velocity; got "):
        as_eps_model(zero, LINEAR, target)


# --- clipping ----------------------------------------------------------------------------------


def test_clipping_changes_nothing_if_x0_is_within_the_limits():
    x0, eps, t, x_t = a_batch(LINEAR, (3, 4), 0.7, 0)
    x0 = x0.clamp(-0.99, 0.99)
    x_t = diffuse(LINEAR, x0, t, eps)
    clipped = clip_x0(lambda x, t: eps, LINEAR)
    assert_close(clipped(x_t, t), eps, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (-3, 2)])
@pytest.mark.parametrize("t", [1, 600, 1000])
def test_clipping_clamps_the_x0_that_eps_implies(low, high, t):
    x_t, eps_hat = 3 * normal(5, 6), normal(5, 6, seed=1)
    bar = math.prod((1 - LINEAR.beta[:t]).tolist())
    s, n = math.sqrt(bar), math.sqrt(1 - bar)
    clipped = clip_x0(lambda x, t: eps_hat, LINEAR, low, high)
    answer = clipped(x_t, torch.full((5,), t))
    outside = 0
    for b in range(5):
        for i in range(6):
            x0_hat = (x_t[b, i].item() - n * eps_hat[b, i].item()) / s
            outside += not low <= x0_hat <= high
            expected = (x_t[b, i].item() - s * min(max(x0_hat, low), high)) / n
            assert answer[b, i].item() == pytest.approx(expected, rel=1e-8, abs=1e-10)
    assert outside > 0, "nothing was clipped"


def test_a_walk_with_clipping_equals_that_of_diffusers_with_clip_sample():
    """diffusers clips x0_hat and, on request, recomputes eps from it: 25 DDIM steps in float32."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    def model(x, t):  # so wrong a denoiser that most of x0_hat is outside [-1, 1]
        return 0.6 * torch.tanh(x + t[:, None] / 1000)

    peer = DDIMScheduler(clip_sample=True, timestep_spacing="trailing")
    peer.set_timesteps(25)
    x = theirs = normal(4, 6).float()
    for step in ddim(clip_x0(model, LINEAR), LINEAR, x, evenly_spaced(1000, 25)):
        t = peer.timesteps[24 - step.t // 40]
        eps_hat = model(theirs, torch.full((4,), int(t) + 1))
        theirs, _ = peer.step(eps_hat, t, theirs, use_clipped_model_output=True, return_dict=False)
        assert_close(step.x_t, theirs, rtol=0, atol=1e-5)
    assert theirs.abs().max() <= 1


# --- dtypes, gradients, wrong arguments --------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_answer_is_in_the_dtype_of_x_t(dtype):
    x_t, t = normal(2, 3).to(dtype), torch.tensor([1, 900])
    for wrap in (eps_from_v, eps_from_x0, eps_from_flow, clip_x0):
        answer = wrap(lambda x, t: torch.zeros(2, 3), LINEAR)(x_t, t)
        assert answer.dtype == dtype, wrap.__name__
        assert answer.isfinite().all(), wrap.__name__
    assert velocity(LINEAR, x_t, t, x_t.float()).dtype == dtype


def test_gradients_reach_the_wrapped_model():
    for wrap in (eps_from_v, eps_from_x0, eps_from_flow, clip_x0):
        w = torch.tensor(0.3, dtype=F64, requires_grad=True)
        x_t = 0.1 * normal(2, 3)
        wrap(lambda x, t, w=w: w * x, LINEAR)(x_t, torch.tensor([1, 50])).sum().backward()
        assert w.grad is not None
        assert w.grad.abs() > 0, wrap.__name__


X, T_OK = torch.zeros(2, 3), torch.tensor([1, 1000])
NAN = torch.full((2, 3), float("nan"))


def zero(x, t):
    return torch.zeros_like(x)


WRONG = [
    (
        lambda: velocity(LINEAR, X, torch.tensor([0, 1001]), X),
        ValueError,
        r"t must be in 0\.\.1000",
    ),
    (lambda: velocity(LINEAR, X, torch.tensor([-1, 0]), X), ValueError, r"t must be in 0\.\.1000"),
    (lambda: velocity(LINEAR, X, torch.tensor([1]), X), ValueError, r"t must have shape \(2,\)"),
    (lambda: velocity(LINEAR, X, torch.tensor([1.0, 2.0]), X), TypeError, "t must be int64"),
    (lambda: velocity(LINEAR, X.long(), T_OK, X), TypeError, "x0 must hold floating-point"),
    (lambda: velocity(LINEAR, torch.tensor(1.0), T_OK, X), ValueError, "x0 must have a batch axis"),
    (lambda: velocity(LINEAR, NAN, T_OK, X), ValueError, "x0 must be finite"),
    (lambda: velocity(LINEAR, X, T_OK, X[:, :1]), ValueError, "eps must have the shape of x0"),
    (lambda: velocity(LINEAR, X, T_OK, NAN), ValueError, "eps must be finite"),
    (lambda: velocity(LINEAR, X, T_OK, None), TypeError, "eps must be a tensor"),
    (lambda: clip_x0(zero, LINEAR, 1.0, -1.0), ValueError, "low must be below high.*low = 1"),
    (lambda: clip_x0(zero, LINEAR, 0.0, 0.0), ValueError, "low must be below high"),
    (lambda: clip_x0(zero, LINEAR, float("nan")), ValueError, "low must be in.*nan"),
    (lambda: clip_x0(zero, LINEAR, high=float("inf")), ValueError, "high must be in.*inf"),
    (lambda: clip_x0(zero, LINEAR, low="dark"), TypeError, "low must be a number"),
    (lambda: clip_x0(zero, LINEAR, high=True), TypeError, "high must be a number"),
]


@pytest.mark.plain_errors
@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("wrap", "name"),
    [
        *[(eps_from_v, "v_model"), (eps_from_x0, "x0_model"), (clip_x0, "model")],
        (eps_from_flow, "flow_model"),
    ],
)
def test_a_wrong_answer_of_a_model_is_named(wrap, name):
    shape = f"^{name} must answer with the shape of x_t"
    with pytest.raises(ValueError, match=shape + r", \(2, 3\); got \(2, 1\)"):
        wrap(lambda x, t: x[:, :1], LINEAR)(X, T_OK)  # would broadcast
    with pytest.raises(ValueError, match=shape):
        wrap(lambda x, t: torch.zeros(()), LINEAR)(X, T_OK)
    with pytest.raises(TypeError, match=f"^{name} must answer with a tensor, got NoneType"):
        wrap(lambda x, t: None, LINEAR)(X, T_OK)
    with pytest.raises(TypeError, match=f"^{name} must answer with a tensor, got ndarray"):
        wrap(lambda x, t: np.zeros((2, 3)), LINEAR)(X, T_OK)


@pytest.mark.plain_errors
@pytest.mark.parametrize("wrap", [eps_from_v, eps_from_x0, eps_from_flow, clip_x0])
def test_a_wrapped_model_refuses_wrong_arguments(wrap):
    for t in (torch.tensor([-1, 1]), torch.tensor([1, 1001])):
        with pytest.raises(ValueError, match=r"t must be in [01]\.\.1000"):
            wrap(zero, LINEAR)(X, t)
    with pytest.raises(TypeError, match="t must be int64"):
        wrap(zero, LINEAR)(X, torch.tensor([1.0, 2.0]))
