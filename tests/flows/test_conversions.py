"""Flows: straight paths, conversions from and to denoisers, wrong arguments."""

# pyright: reportArgumentType=false
# (part of this file passes what the annotations forbid)

import math
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.testing import assert_close

from tests.draws import normal, seeded
from tests.flows.exact import F64, LINEAR, exact_velocity, oracle, parts, shaped
from tutorial_lib import flows
from tutorial_lib._typing import EpsModel, VelocityModel
from tutorial_lib.flows import (
    denoiser_from_flow,
    euler,
    flow_from_denoiser,
    schedule_through,
    straight_path,
    straight_velocity,
    times_of,
)
from tutorial_lib.forward import diffuse
from tutorial_lib.guidance import LabeledMixture, guide
from tutorial_lib.oracles import DatasetOracle
from tutorial_lib.schedules import (
    NoiseSchedule,
    cosine_schedule,
    linear_schedule,
    quadratic_schedule,
)

SCHEDULES = {
    "linear": LINEAR,
    "cosine": cosine_schedule(),
    "quadratic": quadratic_schedule(),
    "short": linear_schedule(10, 0.01, 0.5),
}
SHAPES = [(2,), (1, 3, 2)]


def all_steps(schedule: NoiseSchedule) -> Tensor:
    return torch.arange(1, schedule.num_steps + 1)


def noisy(schedule: NoiseSchedule, t: Tensor, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """States x_t of the mixture, one for each step in ``t``."""
    x0 = oracle(schedule, shape).sample(len(t), seeded(seed))
    return diffuse(schedule, x0, t, normal(*x0.shape, seed=seed + 1))


# --- straight paths


@pytest.mark.parametrize("shape", SHAPES)
def test_the_straight_path_against_a_loop(shape: tuple[int, ...]):
    x0, eps, time = normal(5, *shape), normal(5, *shape, seed=1), torch.rand(5, dtype=F64)
    x = straight_path(x0, time, eps)
    for i in range(5):
        for got, a, b in zip(x[i].flatten(), x0[i].flatten(), eps[i].flatten(), strict=True):
            expected = (1 - float(time[i])) * float(a) + float(time[i]) * float(b)
            assert float(got) == pytest.approx(expected, abs=1e-12)


def test_the_straight_path_starts_at_the_data_and_ends_at_the_noise():
    x0, eps = normal(4, 2), normal(4, 2, seed=1)
    assert torch.equal(straight_path(x0, torch.zeros(4), eps), x0)
    assert torch.equal(straight_path(x0, torch.ones(4), eps), eps)


def test_the_velocity_is_the_slope_of_the_path():
    x0, eps = normal(4, 1, 3, 3), normal(4, 1, 3, 3, seed=1)
    early, late = torch.full((4,), 0.2, dtype=F64), torch.full((4,), 0.7, dtype=F64)
    slope = (straight_path(x0, late, eps) - straight_path(x0, early, eps)) / 0.5
    assert_close(straight_velocity(x0, eps), slope, atol=1e-12, rtol=0)


@given(st.floats(0, 1))
def test_both_ends_of_a_path_are_found_from_any_point(time: float):
    x0, eps, when = normal(3, 4), normal(3, 4, seed=1), torch.full((3,), time, dtype=F64)
    x, velocity = straight_path(x0, when, eps), straight_velocity(x0, eps)
    assert_close(flows.predict_x0(x, when, velocity), x0, atol=1e-12, rtol=0)
    assert_close(flows.predict_eps(x, when, velocity), eps, atol=1e-12, rtol=0)


# --- times and schedules


@pytest.mark.parametrize("name", SCHEDULES)
def test_noisy_data_lie_on_the_straight_path_at_their_time(name: str):
    schedule = SCHEDULES[name]
    t = torch.arange(schedule.num_steps + 1)
    times = times_of(schedule)
    x0, eps = normal(len(t), 3), normal(len(t), 3, seed=1)
    scale = schedule.signal_rate + schedule.noise_rate
    x_t = diffuse(schedule, x0, t, eps)
    assert_close(x_t / scale[:, None], straight_path(x0, times, eps), atol=1e-12, rtol=0)
    assert times[0] == 0
    assert (times.diff() > 0).all()
    assert times[-1] < 1
    assert_close(times[1:] / (1 - times[1:]), schedule.snr[1:] ** -0.5, rtol=1e-9, atol=0)


def test_a_schedule_through_times_has_these_times():
    times = [0.999, 0.75, 0.5, 0.01, 0.0]
    schedule = schedule_through(times)
    assert schedule.num_steps == 4
    assert_close(times_of(schedule), torch.tensor(times[::-1], dtype=F64), atol=1e-14, rtol=0)
    assert float(schedule.alpha_bar[2]) == pytest.approx(0.5)  # data and noise weigh the same
    again = schedule_through(times_of(LINEAR).flip(0))
    assert_close(again.alpha_bar, LINEAR.alpha_bar, rtol=1e-11, atol=0)


# --- conversions


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_exact_flow_becomes_the_exact_denoiser(name: str, shape: tuple[int, ...]):
    schedule = SCHEDULES[name]
    t = all_steps(schedule)
    x_t = noisy(schedule, t, shape)
    denoiser = denoiser_from_flow(exact_velocity(shape), schedule)
    assert isinstance(denoiser, EpsModel)
    assert_close(denoiser(x_t, t), oracle(schedule, shape)(x_t, t), atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_exact_denoiser_becomes_the_exact_flow(name: str, shape: tuple[int, ...]):
    """Where 1 - time is 5e-5, at the end of the cosine schedule, rounding grows 20,000 times."""
    schedule = SCHEDULES[name]
    t = all_steps(schedule)
    times = times_of(schedule)[t]
    x_t = noisy(schedule, t, shape)
    x = x_t / shaped((schedule.signal_rate + schedule.noise_rate)[t], x_t)
    flow = flow_from_denoiser(oracle(schedule, shape), schedule)
    assert isinstance(flow, VelocityModel)
    assert_close(flow(x, times), exact_velocity(shape)(x, times), atol=1e-10, rtol=0)


def test_an_oracle_through_any_times_is_an_exact_flow_there():
    times = [0.9999, 0.8, 0.5, 0.123, 1e-2, 0.0]
    schedule = schedule_through(times)
    flow = flow_from_denoiser(oracle(schedule), schedule)
    time = torch.tensor(times[:-1], dtype=F64)
    x = straight_path(normal(5, 2), time, normal(5, 2, seed=1))
    assert_close(flow(x, time), exact_velocity()(x, time), atol=1e-10, rtol=0)


def test_the_flow_of_a_data_set_against_a_loop():
    """E[eps - x_0 given x] over a finite set: Bayes' rule, member by member."""
    data = normal(6, 2)
    flow = flow_from_denoiser(DatasetOracle(LINEAR, data), LINEAR)
    t = torch.tensor([30, 300, 600, 1000])
    time, x = times_of(LINEAR)[t], normal(4, 2, seed=2)
    found = flow(x, time)
    for i in range(4):
        s = float(time[i])
        gaps = [[(float(x[i, d]) - (1 - s) * float(m[d])) / s for d in (0, 1)] for m in data]
        logs = [-sum(g * g for g in gap) / 2 for gap in gaps]  # the eps each member would need
        odds = [math.exp(log - max(logs)) for log in logs]
        for d in (0, 1):
            velocities = [gap[d] - float(m[d]) for gap, m in zip(gaps, data, strict=True)]
            mean = sum(o * v for o, v in zip(odds, velocities, strict=True)) / sum(odds)
            assert float(found[i, d]) == pytest.approx(mean, abs=1e-10)


@pytest.mark.parametrize("name", SCHEDULES)
def test_there_and_back_is_the_same_model(name: str):
    schedule = SCHEDULES[name]
    t = all_steps(schedule)

    def model(x_t: Tensor, t: Tensor) -> Tensor:  # right for no data at all
        return (x_t + t[:, None] / 7).sin()

    def velocity(x: Tensor, time: Tensor) -> Tensor:
        return (3 * x + time[:, None]).cos()

    x = normal(len(t), 3)
    back = denoiser_from_flow(flow_from_denoiser(model, schedule), schedule)
    assert_close(back(x, t), model(x, t), atol=1e-10, rtol=0)
    forth = flow_from_denoiser(denoiser_from_flow(velocity, schedule), schedule)
    time = times_of(schedule)[t]
    assert_close(forth(x, time), velocity(x, time), atol=1e-10, rtol=0)


def test_a_flow_is_a_denoiser_at_step_zero_too():
    """At time 0 the state is x_0: the model says -x_0, and no noise is found."""
    x0 = normal(3, 2)
    denoiser = denoiser_from_flow(lambda x, time: -x, LINEAR)
    assert torch.equal(
        denoiser(x0, torch.zeros(3, dtype=torch.int64)), torch.zeros(3, 2, dtype=F64)
    )


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_small_and_large_times_name_their_steps(dtype: torch.dtype):
    times = torch.tensor([1 - 1e-6, 1 - 1e-4, 0.3, 1e-2, 1e-4, 1e-6, 0.0], dtype=F64)
    asked = []

    def note(x_t: Tensor, t: Tensor) -> Tensor:
        asked.append(t)
        return x_t

    flow_from_denoiser(note, schedule_through(times))(normal(6, 2), times[:-1].to(dtype))
    assert asked[0].tolist() == [6, 5, 4, 3, 2, 1]


def test_times_in_float32_name_the_same_steps():
    schedule = cosine_schedule()
    t = all_steps(schedule)
    asked = []

    def note(x_t: Tensor, t: Tensor) -> Tensor:
        asked.append(t)
        return x_t

    flow_from_denoiser(note, schedule)(normal(len(t), 2), times_of(schedule)[t].float())
    assert torch.equal(asked[0], t)


@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.bfloat16])
def test_conversions_keep_the_dtype(dtype: torch.dtype):
    x = normal(2, 3, dtype=torch.float32).to(dtype)
    t = torch.tensor([1, 700])
    seen = []

    def velocity(x: Tensor, time: Tensor) -> Tensor:
        seen.append((x.dtype, time.dtype))
        return x

    assert denoiser_from_flow(velocity, LINEAR)(x, t).dtype == dtype
    assert seen == [(dtype, torch.promote_types(dtype, torch.float32))]
    flow = flow_from_denoiser(lambda x_t, t: x_t, LINEAR)
    assert flow(x, times_of(LINEAR)[t]).dtype == dtype
    assert straight_path(x, torch.rand(2), x).dtype == dtype


def test_a_conditional_flow_is_guided_as_a_denoiser():
    """Guidance is linear, so guiding velocities and guiding eps is the same."""
    means, variances, weights = parts((2,))
    labeled = LabeledMixture(LINEAR, means, variances, weights, torch.tensor([0, 0, 1]))
    labels, t = torch.tensor([0, 1, 1]), torch.tensor([100, 500, 900])
    x = normal(3, 2)
    flow: Callable[..., Tensor] = flow_from_denoiser(labeled, LINEAR)
    time = times_of(LINEAR)[t]
    conditional, unconditional = flow(x, time, labels), flow(x, time, torch.full((3,), 2))
    expected = unconditional + 3 * (conditional - unconditional)
    again: Any = denoiser_from_flow(flow, LINEAR)
    guided = flow_from_denoiser(guide(again, labels, 3.0, 2), LINEAR)
    assert_close(guided(x, time), expected, atol=1e-10, rtol=0)
    assert not torch.allclose(conditional, unconditional, atol=0.1)


# --- wrong arguments

GOOD = torch.zeros(2, 3)
HALF = torch.full((2,), 0.5)
STEPS = torch.tensor([1, 2])


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: straight_path(1, HALF, GOOD), TypeError, "x0 must be a tensor, got int 1"),
        (lambda: straight_path(GOOD, HALF, GOOD[:, :1]), ValueError, r"eps must have .* x0, \(2,"),
        (lambda: straight_path(GOOD, HALF, GOOD / 0), ValueError, "eps must be finite"),
        (lambda: straight_path(GOOD, 0.5, GOOD), TypeError, "time must be a tensor, got float 0.5"),
        (lambda: straight_path(GOOD, STEPS, GOOD), TypeError, "time must hold floating-point"),
        (lambda: straight_path(GOOD, HALF[:1], GOOD), ValueError, r"time must have shape \(2,\)"),
        (lambda: straight_path(GOOD, HALF[:, None], GOOD), ValueError, r"time .* got \(2, 1\)"),
        (
            lambda: straight_path(GOOD, HALF * 3, GOOD),
            ValueError,
            r"time must be in \[0, 1\].* 1.5",
        ),
        (lambda: straight_path(GOOD, -HALF, GOOD), ValueError, r"time must be in \[0, 1\].* -0.5"),
        (lambda: straight_path(GOOD, HALF / 0 * 0, GOOD), ValueError, r"time must be .* got nan"),
        (lambda: straight_velocity(GOOD, GOOD[:1]), ValueError, "eps must have the shape of x0"),
        (lambda: straight_velocity(GOOD / 0, GOOD), ValueError, "x0 must be finite"),
        (
            lambda: flows.predict_x0(GOOD, HALF, GOOD[:1]),
            ValueError,
            "velocity must have the shape",
        ),
        (lambda: flows.predict_eps(GOOD, HALF, None), TypeError, "velocity must be a tensor"),
        (lambda: schedule_through([1, 0.5, 0]), ValueError, "times must start below 1"),
        (lambda: schedule_through([0.9, 0.1]), ValueError, "times must end at 0 .*, got 0.1"),
        (lambda: schedule_through([0.9, 0.9, 0]), ValueError, "times must fall strictly, got 0.9"),
        (lambda: schedule_through(0.5), TypeError, "times must be a falling sequence of numbers"),
        (
            lambda: schedule_through([0.5]),
            ValueError,
            "times must hold at least a start and an end",
        ),
        (lambda: schedule_through([1.5, 0]), ValueError, r"an entry of times must be in \[0, 1\]"),
        (lambda: schedule_through(["a", 0]), TypeError, "an entry of times must be a number"),
        (lambda: schedule_through([math.nan, 0]), ValueError, "an entry of times must be"),
    ],
)
def test_wrong_arguments_are_named(call: Callable, error: type, message: str):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (GOOD[:, :1], ValueError, r"the answer of model.* \(2, 3\); got \(2, 1\)"),
        (GOOD[:1], ValueError, r"the answer of model.* \(2, 3\); got \(1, 3\)"),
        (GOOD / 0, ValueError, "the answer of model.* must be finite"),
        (None, TypeError, "the answer of model.* must be a tensor"),
    ],
)
def test_an_answer_of_another_shape_or_with_nan_is_refused(
    answer: object, error: type, message: str
):
    with pytest.raises(error, match=f"{message}"):
        denoiser_from_flow(lambda x, time: answer, LINEAR)(GOOD, STEPS)
    with pytest.raises(error, match=message):
        flow_from_denoiser(lambda x_t, t: answer, LINEAR)(GOOD, times_of(LINEAR)[STEPS])
    with pytest.raises(error, match=message):
        list(euler(lambda x, time: answer, GOOD, [0.5, 0.0]))


@pytest.mark.plain_errors
def test_a_denoiser_from_a_flow_refuses_wrong_states_and_steps():
    denoiser = denoiser_from_flow(lambda x, time: x, LINEAR)
    for x_t, t, error, message in (
        (GOOD / 0, STEPS, ValueError, "x_t must be finite"),
        (GOOD, STEPS[:1], ValueError, r"t must have shape \(2,\)"),
        (GOOD, STEPS + 999, ValueError, "t must be in 0..1000, got 1001"),
        (GOOD, HALF, TypeError, "t must be int64"),
    ):
        with pytest.raises(error, match=message):
            denoiser(x_t, t)


@pytest.mark.plain_errors
def test_a_flow_from_a_denoiser_knows_the_times_of_steps_only():
    flow = flow_from_denoiser(lambda x_t, t: x_t, LINEAR)
    time = times_of(LINEAR)
    for times, error, message in (
        (HALF, ValueError, r"time must be that of a step in 1..1000 .* got 0.5, the nearest"),
        (
            torch.zeros(2),
            ValueError,
            "time must be that of a step .* got 0, the nearest step's is 0",
        ),
        (torch.ones(2), ValueError, "time must be that of a step .* got 1, the nearest .* 0.993"),
        (time[STEPS].bfloat16(), TypeError, "time must be float32 or float64 to name a step"),
        (time[:1], ValueError, r"time must have shape \(2,\)"),
        (time[STEPS] / 0, ValueError, r"time must be in \[0, 1\], got inf"),
    ):
        with pytest.raises(error, match=message):
            flow(GOOD, times)


@pytest.mark.plain_errors
def test_steps_that_share_a_time_are_refused():
    """From 1e-40 of the signal's variance on, times are 1 to all 16 digits."""
    schedule = NoiseSchedule(torch.tensor([1, 0.5, 1e-40, 1e-50], dtype=F64))
    with pytest.raises(ValueError, match="a time of its own for each step, got none at t = 3"):
        flow_from_denoiser(lambda x_t, t: x_t, schedule)


def test_no_end_of_time_gives_nan():
    """Time 0, time 1, a component that is a point, and the noisiest schedule there may be."""
    x = normal(2, 2)
    for time in (torch.zeros(2, dtype=F64), torch.ones(2, dtype=F64)):
        for found in (flows.predict_x0(x, time, x), flows.predict_eps(x, time, x)):
            assert found.isfinite().all()
    end = NoiseSchedule(torch.tensor([1, 1e-60], dtype=F64))
    denoiser = denoiser_from_flow(lambda x, time: -x, end)
    assert denoiser(x, torch.ones(2, dtype=torch.int64)).isfinite().all()
    flow = flow_from_denoiser(lambda x_t, t: x_t, end)
    assert flow(x, times_of(end)[torch.ones(2, dtype=torch.int64)]).isfinite().all()
