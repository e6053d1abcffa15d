"""Noise schedules against papers, other libraries and exact arithmetic."""

# pyright: reportArgumentType=false
# (half of this file passes what the annotations forbid)

import dataclasses
import math
from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from torch.testing import assert_close

from tutorial_lib.schedules import (
    LARGEST_NUM_STEPS,
    NoiseSchedule,
    cosine_schedule,
    from_betas,
    linear_schedule,
    quadratic_schedule,
)

EXACT = {"rtol": 1e-12, "atol": 0.0}

# At most 64 of 0.9 leave 1e-64, so the bounds keep alpha_bar above the 1e-60 that is asked for.
valid_betas = st.lists(st.floats(1e-15, 0.85), min_size=1, max_size=64)


def all_schedules():
    """One of each kind, short, usual and harsh."""
    yield pytest.param(linear_schedule(), id="linear")
    yield pytest.param(quadratic_schedule(), id="quadratic")
    yield pytest.param(cosine_schedule(), id="cosine")
    yield pytest.param(linear_schedule(1), id="one step")
    yield pytest.param(cosine_schedule(1), id="cosine, one step")
    yield pytest.param(cosine_schedule(4, offset=0.0), id="cosine, no offset")
    yield pytest.param(linear_schedule(10, 0.9, 0.1), id="falling betas")
    yield pytest.param(linear_schedule(10_000), id="ten thousand steps")
    yield pytest.param(from_betas([1e-15, 0.999999]), id="extreme betas")


# --- facts that papers state -------------------------------------------------------------------


def test_the_linear_schedule_keeps_4_04e_5_of_the_signal():
    """The product of 1 - beta_t in exact fractions, betas as in Ho et al. 2020, sec. 4."""
    start, end = Fraction(1, 10_000), Fraction(2, 100)
    alphas = [1 - (start + (end - start) * Fraction(i, 999)) for i in range(1000)]
    alpha_bar_T = float(math.prod(alphas))
    assert f"{alpha_bar_T:.2e}" == "4.04e-05"
    assert_close(linear_schedule().alpha_bar[-1].item(), alpha_bar_T, **EXACT)
    half = float(math.prod(alphas[:500]))
    assert_close(linear_schedule().alpha_bar[500].item(), half, **EXACT)


def test_the_linear_betas_run_from_1e_4_to_0_02():
    beta = linear_schedule().beta
    assert_close(beta[0].item(), 1e-4, rtol=1e-11, atol=0)
    assert_close(beta[-1].item(), 0.02, **EXACT)
    assert_close(
        beta.diff(), torch.full((999,), (0.02 - 1e-4) / 999, dtype=torch.float64), rtol=1e-9, atol=0
    )


def test_the_quadratic_schedule_is_linear_in_the_root_of_beta():
    roots = np.linspace(np.longdouble(1e-4) ** 0.5, np.longdouble(0.02) ** 0.5, 300)
    alpha_bar = np.cumprod(1 - roots**2)
    expected = torch.tensor(alpha_bar.astype(np.float64))
    assert_close(quadratic_schedule(300).alpha_bar[1:], expected, **EXACT)


@pytest.mark.parametrize(("steps", "offset", "max_beta"), [(1000, 0.008, 0.999), (7, 0.1, 0.5)])
def test_the_cosine_schedule_is_f_of_t_over_f_of_0_with_betas_clipped(steps, offset, max_beta):
    """Nichol & Dhariwal 2021, eq. 17, in a plain loop."""

    def f(t: int) -> float:
        return math.cos((t / steps + offset) / (1 + offset) * math.pi / 2) ** 2

    expected, cuts = [1.0], 0
    for t in range(1, steps + 1):
        beta = 1 - f(t) / f(t - 1)
        cuts += beta > max_beta
        expected.append(expected[-1] * (1 - min(beta, max_beta)))
    assert cuts >= 1  # else the cut would not be tested
    schedule = cosine_schedule(steps, offset, max_beta)
    assert_close(schedule.alpha_bar, torch.tensor(expected, dtype=torch.float64), **EXACT)
    before_the_cut = steps - cuts
    closed_form = [f(t) / f(0) for t in range(before_the_cut + 1)]
    expected = torch.tensor(closed_form, dtype=torch.float64)
    assert_close(schedule.alpha_bar[: before_the_cut + 1], expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("steps", [1, 2, 10, 50, 1000, 4000])
@pytest.mark.parametrize(
    ("ours", "theirs", "ends"),
    [
        (linear_schedule, "linear", (1e-4, 0.02)),
        (linear_schedule, "linear", (0.00085, 0.012)),
        (linear_schedule, "linear", (0.002, 0.05)),
        (quadratic_schedule, "scaled_linear", (1e-4, 0.02)),
        (quadratic_schedule, "scaled_linear", (0.00085, 0.012)),
        (cosine_schedule, "squaredcos_cap_v2", None),
    ],
)
def test_alpha_bar_is_that_of_diffusers_one_step_earlier(ours, theirs, ends, steps):
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    names = {} if ends is None else dict(zip(("beta_start", "beta_end"), ends, strict=True))
    peer = DDPMScheduler(num_train_timesteps=steps, beta_schedule=theirs, **names)
    schedule = ours(steps, **names)
    atol = 1e-6  # theirs is a product of up to 4000 factors in float32
    assert_close(schedule.alpha_bar[1:], peer.alphas_cumprod.double(), rtol=0, atol=atol)
    assert_close(schedule.beta, peer.betas.double(), rtol=0, atol=1e-6)


# --- what follows from alpha_bar ---------------------------------------------------------------


@pytest.mark.parametrize("schedule", all_schedules())
def test_every_quantity_follows_the_papers_in_a_plain_loop(schedule):
    bar = schedule.alpha_bar.tolist()
    steps = schedule.num_steps
    assert len(bar) == steps + 1
    for t in {0, 1, 2, steps // 2, steps - 1, steps} & set(range(steps + 1)):
        assert_close(schedule.signal_rate[t].item(), math.sqrt(bar[t]), **EXACT)
        assert_close(schedule.noise_rate[t].item(), math.sqrt(1 - bar[t]), **EXACT)
        assert schedule.snr[t].item() == (bar[t] / (1 - bar[t]) if t else math.inf)
    for t in {1, 2, steps // 2, steps} & set(range(1, steps + 1)):
        alpha = bar[t] / bar[t - 1]
        assert_close(schedule.alpha[t - 1].item(), alpha, **EXACT)
        assert_close(schedule.beta[t - 1].item(), 1 - alpha, **EXACT)
        # the same variance by adding up what is known: from x_t, and from x_0 (none at t = 1)
        known = alpha / (1 - alpha) + (1 / (1 - bar[t - 1]) if t > 1 else math.inf)
        assert_close(schedule.posterior_variance[t - 1].item(), 1 / known, rtol=1e-9, atol=0)


@pytest.mark.parametrize("schedule", all_schedules())
def test_lengths_and_precision(schedule):
    for name in ("alpha_bar", "signal_rate", "noise_rate", "snr"):
        assert getattr(schedule, name).shape == (schedule.num_steps + 1,), name
        assert getattr(schedule, name).dtype == torch.float64, name
    for name in ("alpha", "beta", "posterior_variance"):
        assert getattr(schedule, name).shape == (schedule.num_steps,), name
        assert getattr(schedule, name).dtype == torch.float64, name


@pytest.mark.parametrize("schedule", all_schedules())
def test_nothing_is_nan_or_out_of_range(schedule):
    assert schedule.alpha_bar[0] == 1
    assert (schedule.alpha_bar.diff() < 0).all()
    for name in ("alpha", "beta"):
        value = getattr(schedule, name)
        assert ((value > 0) & (value < 1)).all(), name
    assert ((schedule.signal_rate > 0) & (schedule.signal_rate <= 1)).all()
    assert ((schedule.noise_rate >= 0) & (schedule.noise_rate <= 1)).all()
    assert ((schedule.snr[1:] > 0) & schedule.snr[1:].isfinite()).all()
    assert schedule.posterior_variance[0] == 0
    assert (schedule.posterior_variance[1:] > 0).all()
    assert (schedule.posterior_variance <= schedule.beta).all()


@given(valid_betas)
@example([1e-15])
@example([0.85] * 64)
@example([0.85, 1e-15])
def test_alpha_bar_falls_from_1_and_is_the_exact_product(betas):
    schedule = from_betas(betas)
    assert schedule.num_steps == len(betas)
    assert schedule.alpha_bar[0] == 1
    assert (schedule.alpha_bar.diff() < 0).all()
    exact = float(math.prod(1 - Fraction(beta) for beta in betas))
    assert_close(schedule.alpha_bar[-1].item(), exact, **EXACT)
    # beta is recovered but for the rounding of 1 - beta, which is about 1e-16
    assert_close(schedule.beta, torch.tensor(betas, dtype=torch.float64), rtol=1e-12, atol=3e-16)
    for name in ("signal_rate", "noise_rate", "posterior_variance"):
        assert getattr(schedule, name).isfinite().all(), name


@given(st.integers(1, 2000), st.floats(1e-6, 0.05), st.floats(1e-6, 0.05))
@settings(max_examples=50)
def test_any_ends_give_a_schedule(steps, start, end):
    for make in (linear_schedule, quadratic_schedule):
        schedule = make(steps, start, end)
        assert schedule.num_steps == steps
        assert (schedule.alpha_bar.diff() < 0).all()
        assert_close(schedule.beta[0].item(), start, rtol=1e-8, atol=0)
        if steps > 1:
            assert_close(schedule.beta[-1].item(), end, rtol=1e-8, atol=0)


@given(st.integers(1, 2000), st.floats(0, 1), st.floats(0.01, 0.999))
@settings(max_examples=50)
def test_any_cosine_gives_a_schedule(steps, offset, max_beta):
    schedule = cosine_schedule(steps, offset, max_beta)
    assert schedule.num_steps == steps
    assert (schedule.alpha_bar.diff() < 0).all()
    assert (schedule.beta <= max_beta + 1e-12).all()


# --- a schedule is one frozen tensor -----------------------------------------------------------


def test_it_is_frozen_and_keeps_its_own_copy():
    alpha_bar = torch.tensor([1.0, 0.5, 0.25], requires_grad=True)
    schedule = NoiseSchedule(alpha_bar)
    with torch.no_grad():
        alpha_bar[1] = 7.0
    assert schedule.alpha_bar.tolist() == [1.0, 0.5, 0.25]
    assert not schedule.alpha_bar.requires_grad
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.alpha_bar = alpha_bar  # pyright: ignore[reportAttributeAccessIssue]


def test_betas_given_as_numbers_keep_their_double_precision():
    assert from_betas([0.1]).alpha_bar[1].item() == 1 - 0.1
    assert from_betas([1e-12, 0.5]).beta[0].item() == pytest.approx(1e-12, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_betas_in_low_precision_are_multiplied_in_double(dtype):
    beta = torch.linspace(1e-3, 0.05, 300).to(dtype)
    exact = float(math.prod(1 - Fraction(b) for b in beta.tolist()))
    assert_close(from_betas(beta).alpha_bar[-1].item(), exact, **EXACT)


@pytest.mark.plain_errors  # the annotation asks for a sequence, a NumPy array comes anyway
@pytest.mark.parametrize(
    "betas",
    [
        (0.25, 0.5),
        np.array([0.25, 0.5]),
        np.array([0.25, 0.5], dtype=np.float32),
        torch.tensor([0.25, 0.5]),
        torch.tensor([0.25, 0.5], dtype=torch.float16),
        torch.tensor([0.25, 0.5], requires_grad=True),
        [torch.tensor(0.25), 0.5],
        [Fraction(1, 4), np.float32(0.5)],
    ],
    ids=lambda betas: type(betas).__name__,
)
def test_betas_come_in_many_shapes_of_list(betas):
    schedule = from_betas(betas)
    assert schedule.alpha_bar.tolist() == [1.0, 0.75, 0.375]
    assert not schedule.alpha_bar.requires_grad


@pytest.mark.plain_errors
def test_numpy_numbers_are_numbers():
    schedule = linear_schedule(np.int64(3), np.float32(0.25), np.float64(0.5))
    assert_close(schedule.beta, torch.tensor([0.25, 0.375, 0.5], dtype=torch.float64))


def test_to_another_device_and_back():
    schedule = linear_schedule(10)
    assert schedule.to("cpu") is schedule
    assert schedule.to(torch.device("cpu")) is schedule


def test_it_says_what_it_is():
    assert repr(linear_schedule()) == "NoiseSchedule(num_steps=1000, alpha_bar[T]=4.04e-05)"


# --- wrong arguments ---------------------------------------------------------------------------

NAN = float("nan")
INFINITE = float("inf")

WRONG = [
    # call, error, what the message must say
    (lambda: linear_schedule(0), ValueError, "num_steps must be at least 1, got 0"),
    (lambda: linear_schedule(-5), ValueError, "num_steps"),
    (lambda: linear_schedule(10.0), TypeError, "num_steps must be an int, got float 10.0"),
    (lambda: linear_schedule(True), TypeError, "num_steps must be an int, got bool True"),
    (lambda: linear_schedule("10"), TypeError, "num_steps"),
    (lambda: linear_schedule(None), TypeError, "num_steps"),
    (lambda: linear_schedule(torch.tensor(10)), TypeError, "num_steps"),
    (lambda: linear_schedule(np.bool_(True)), TypeError, "num_steps"),
    (lambda: linear_schedule(10, 0.0, 0.02), ValueError, r"beta_start must lie in \(0, 1\), got 0"),
    (lambda: linear_schedule(10, 1e-4, 1.0), ValueError, r"beta_end must lie in \(0, 1\), got 1"),
    (lambda: linear_schedule(10, -1e-4), ValueError, "beta_start"),
    (lambda: linear_schedule(10, NAN), ValueError, "beta_start.*nan"),
    (lambda: linear_schedule(10, 1e-4, INFINITE), ValueError, "beta_end.*inf"),
    (lambda: linear_schedule(10, "small"), TypeError, "beta_start must be a number, got str"),
    (lambda: linear_schedule(10, 1e-4, True), TypeError, "beta_end"),
    (lambda: linear_schedule(1000, 0.5, 0.9), ValueError, "beta must leave alpha_bar at 1e-60"),
    (lambda: linear_schedule(10, 1e-20, 0.5), ValueError, "beta .*1e-20 at t = 1, too close to 0"),
    (lambda: quadratic_schedule(0), ValueError, "num_steps"),
    (lambda: quadratic_schedule(10, -1.0), ValueError, "beta_start"),
    (lambda: quadratic_schedule(10, 0.1, NAN), ValueError, "beta_end"),
    (lambda: quadratic_schedule(10, 0.1, 2), ValueError, "beta_end"),
    (lambda: cosine_schedule(0), ValueError, "num_steps"),
    (lambda: cosine_schedule(2.5), TypeError, "num_steps"),
    (lambda: cosine_schedule(10, -0.1), ValueError, "offset"),
    (lambda: cosine_schedule(10, NAN), ValueError, "offset"),
    (lambda: cosine_schedule(10, INFINITE), ValueError, "offset"),
    (lambda: cosine_schedule(10, "s"), TypeError, "offset"),
    (lambda: cosine_schedule(10, max_beta=1.0), ValueError, "max_beta"),
    (lambda: cosine_schedule(10, max_beta=0.0), ValueError, "max_beta"),
    (lambda: cosine_schedule(10, max_beta=NAN), ValueError, "max_beta"),
    (lambda: from_betas([]), ValueError, r"beta must have shape \(T,\).*got \(0,\)"),
    (lambda: from_betas([[0.1]]), ValueError, r"beta must have shape \(T,\).*got \(1, 1\)"),
    (lambda: from_betas(0.1), ValueError, r"beta must have shape \(T,\).*got \(\)"),
    (lambda: from_betas([0.1, NAN]), ValueError, r"beta must lie in \(0, 1\), got nan at t = 2"),
    (lambda: from_betas([0.1, 0.0]), ValueError, r"beta must lie in \(0, 1\), got 0 at t = 2"),
    (lambda: from_betas([1.0]), ValueError, r"beta must lie in \(0, 1\), got 1 at t = 1"),
    (lambda: from_betas([-0.1]), ValueError, r"beta must lie in \(0, 1\), got -0.1 at t = 1"),
    (lambda: from_betas([0.1, INFINITE]), ValueError, "beta .*inf at t = 2"),
    (lambda: from_betas(torch.tensor([1, 2])), ValueError, "beta .*got 1 at t = 1"),
    (lambda: from_betas([1e-17]), ValueError, "beta .*1e-17 at t = 1, too close to 0"),
    (lambda: from_betas([0.5] * 400), ValueError, r"beta must leave alpha_bar .*at t = 200"),
    (lambda: from_betas("abc"), TypeError, "beta must be a sequence of T numbers, got str 'abc'"),
    (lambda: from_betas(["a"]), TypeError, "beta"),
    (lambda: from_betas(None), TypeError, "beta"),
    (lambda: from_betas([[0.1], [0.1, 0.2]]), TypeError, "beta"),
    (lambda: NoiseSchedule([1.0, 0.5]), TypeError, "alpha_bar must be a tensor, got list"),
    (lambda: NoiseSchedule(torch.tensor([1, 0])), TypeError, "alpha_bar must hold floating-point"),
    (lambda: NoiseSchedule(torch.ones(1)), ValueError, "alpha_bar must have shape"),
    (lambda: NoiseSchedule(torch.tensor(1.0)), ValueError, "alpha_bar must have shape"),
    (lambda: NoiseSchedule(torch.ones(2, 2)), ValueError, "alpha_bar must have shape"),
    (lambda: NoiseSchedule(torch.tensor([1, NAN])), ValueError, "alpha_bar is NaN at t = 1"),
    (lambda: NoiseSchedule(torch.tensor([NAN, 0.5])), ValueError, "alpha_bar is NaN at t = 0"),
    (lambda: NoiseSchedule(torch.tensor([0.9, 0.5])), ValueError, "alpha_bar must start at 1"),
    (lambda: NoiseSchedule(torch.tensor([1, 0.5, 0.5])), ValueError, "alpha_bar must fall"),
    (lambda: NoiseSchedule(torch.tensor([1, 0.5, 0.7])), ValueError, "alpha_bar must fall"),
    (lambda: NoiseSchedule(torch.tensor([1, INFINITE])), ValueError, "alpha_bar must fall"),
    (lambda: NoiseSchedule(torch.tensor([1, 0.5, 0.0])), ValueError, "alpha_bar must stay"),
    (lambda: NoiseSchedule(torch.tensor([1, 0.5, -1.0])), ValueError, "alpha_bar must stay"),
    (lambda: NoiseSchedule(torch.tensor([1, -INFINITE])), ValueError, "alpha_bar must stay"),
]


@pytest.mark.plain_errors
@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


LARGE = [2**24 + 1, 10**10, 2**40, 10**400]


@pytest.mark.plain_errors
@pytest.mark.parametrize("num_steps", LARGE)
@pytest.mark.parametrize("schedule", [linear_schedule, quadratic_schedule, cosine_schedule])
def test_more_steps_than_float32_tells_apart_are_refused(schedule, num_steps):
    with pytest.raises(ValueError, match=r"^num_steps must be at most 16777216, got"):
        schedule(num_steps)


def test_float32_tells_all_steps_apart_up_to_the_limit():
    last = torch.tensor([LARGEST_NUM_STEPS - 1, LARGEST_NUM_STEPS, LARGEST_NUM_STEPS + 1]).float()
    assert last[0] != last[1]
    assert last[1] == last[2]


@pytest.mark.plain_errors
def test_numbers_that_no_float_can_hold_are_refused_by_name():
    with pytest.raises(TypeError, match=r"^beta must be a sequence of T numbers"):
        from_betas([10**400])
    with pytest.raises(ValueError, match=r"^offset must be in .* got inf"):
        cosine_schedule(10, offset=10**400)
