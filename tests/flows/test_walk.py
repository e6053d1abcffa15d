"""Walks along a flow: Euler's and Heun's against closed forms and a fine walk, wrong arguments."""

# pyright: reportArgumentType=false
# (part of this file passes what the annotations forbid)

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.draws import normal
from tests.flows.exact import (
    F64,
    LINEAR,
    exact_velocity,
    oracle,
    parts,
    runge_kutta,
    shaped,
    smooth_mixture,
)
from tutorial_lib.flows import (
    denoiser_from_flow,
    euler,
    flow_from_denoiser,
    heun,
    schedule_through,
    times_of,
)
from tutorial_lib.oracles import DatasetOracle
from tutorial_lib.samplers import ddim, evenly_spaced


def test_euler_along_the_flow_of_a_denoiser_is_ddim():
    timesteps = evenly_spaced(1000, 20)
    x_T = normal(8, 2)
    scale = LINEAR.signal_rate + LINEAR.noise_rate
    walk = euler(
        flow_from_denoiser(oracle(LINEAR), LINEAR), x_T / scale[-1], times_of(LINEAR)[timesteps]
    )
    reference = ddim(oracle(LINEAR), LINEAR, x_T, timesteps)
    for step, expected in zip(walk, reference, strict=True):
        assert step.time == float(times_of(LINEAR)[expected.t])
        assert_close(step.x * scale[expected.t], expected.x_t, atol=1e-10, rtol=0)
        assert_close(step.x0_hat, expected.x0_hat, atol=1e-10, rtol=0)
        assert_close(step.velocity, expected.eps_hat - expected.x0_hat, atol=1e-10, rtol=0)


def test_euler_s_walk_is_that_of_diffusers():
    """The same states, the same sign of the velocity; their sigma is our time."""
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
        FlowMatchEulerDiscreteScheduler,
    )

    times, x = torch.linspace(1, 0.1, 10, dtype=F64), normal(5, 2, dtype=torch.float32)
    peer, theirs = FlowMatchEulerDiscreteScheduler(), x
    peer.set_timesteps(sigmas=times.tolist())
    model = smooth_mixture()
    steps = list(euler(model, x, [*times.tolist(), 0.0]))
    for step, t in zip(steps, peer.timesteps, strict=True):
        velocity = model(theirs.double(), t.double().expand(5) / 1000).float()
        theirs = peer.step(velocity, t, theirs, return_dict=False)[0]
        assert_close(step.x, theirs, atol=1e-5, rtol=0)
    assert steps[-1].time == 0


def test_any_sampler_walks_a_flow():
    times = torch.linspace(0.99, 0, 12, dtype=F64)
    schedule, x = schedule_through(times), normal(5, 2)
    scale = schedule.signal_rate + schedule.noise_rate
    denoiser = denoiser_from_flow(exact_velocity(), schedule)
    *_, end = ddim(denoiser, schedule, x * scale[-1], range(11, -1, -1))
    *_, expected = euler(exact_velocity(), x, times)
    assert_close(end.x_t, expected.x, atol=1e-10, rtol=0)


def test_one_step_from_pure_noise_ends_on_the_mean_of_the_data():
    """At time 1 nothing is known about x_0 but its mean."""
    means, _, weights = parts((2,))
    (step,) = euler(exact_velocity(), normal(4, 2), [1, 0])
    expected = (weights[:, None] * means).sum(0).expand(4, 2)
    assert_close(step.x, expected, atol=1e-12, rtol=0)
    assert torch.equal(step.x, step.x0_hat)


def test_a_single_gaussian_is_walked_to_its_own_samples():
    """The flow of one Gaussian in closed form: noise z ends at mean + deviation z."""
    mean, deviation = 1.5, 0.3

    def velocity(x: Tensor, time: Tensor) -> Tensor:
        s = shaped(time, x)
        variance = (1 - s) ** 2 * deviation**2 + s**2
        away = x - (1 - s) * mean
        return s / variance * away - mean - (1 - s) * deviation**2 / variance * away

    z = normal(50, 1)
    *_, end = euler(velocity, z, torch.linspace(1, 0, 2001, dtype=F64))
    assert_close(end.x, mean + deviation * z, atol=2e-3, rtol=0)


@pytest.mark.parametrize(("walk", "order"), [(euler, 1), (heun, 2)])
def test_the_error_of_a_walk_shrinks_with_its_order(walk: Callable, order: int):
    model, x = smooth_mixture(), normal(200, 2)
    exact = runge_kutta(model, x, torch.linspace(1, 0, 1001, dtype=F64).tolist())
    counts, errors = [20, 40, 80, 160, 320], []
    for count in counts:
        *_, end = walk(model, x, torch.linspace(1, 0, count + 1, dtype=F64))
        errors.append(float((end.x - exact).square().mean().sqrt()))
    logs = torch.tensor([counts, errors], dtype=F64).log()
    slope = float(torch.cov(logs)[0, 1] / logs[0].var())
    assert slope == pytest.approx(-order, abs=0.15)


def test_a_step_of_heun_by_hand():
    """dx/dtime = 3 x: two steps of the trapezoid rule, then Euler's to 0, number by number."""
    x = torch.tensor([[2.0]], dtype=F64)
    steps = list(heun(lambda x, time: 3 * x, x, [1.0, 0.75, 0.5, 0.0]))
    at = 2.0
    for step, h in zip(steps[:2], (-0.25, -0.25), strict=True):
        first, then = 3 * at, 3 * (at + h * 3 * at)
        assert float(step.velocity) == pytest.approx(first)
        at += h * (first + then) / 2
        assert float(step.x) == pytest.approx(at)
    assert float(steps[2].x) == pytest.approx(at - 0.5 * 3 * at)


def test_heun_asks_at_both_ends_of_a_step_and_never_at_time_0():
    asked = []

    def model(x: Tensor, time: Tensor) -> Tensor:
        asked.append(float(time[0]))
        return x

    list(heun(model, normal(2, 3), [1.0, 0.5, 0.25, 0.0]))
    assert asked == [1.0, 0.5, 0.5, 0.25, 0.25]
    asked.clear()
    list(heun(model, normal(2, 3), [1.0, 0.5, 0.25]))
    assert asked == [1.0, 0.5, 0.5, 0.25]


def test_heun_takes_all_noise_from_data_that_are_points():
    """Two points: near the end the velocity points to one of them, and Euler's step reaches it.
    With the mean of that and of -x, the velocity at time 0, half of the noise would stay."""
    points = torch.tensor([[2.0, -1.0], [-2.0, -1.0]], dtype=F64)
    schedule = schedule_through(torch.linspace(0.99, 0, 41, dtype=F64))
    flow = flow_from_denoiser(DatasetOracle(schedule, points), schedule)
    *_, end = heun(flow, normal(20, 2), times_of(schedule).flip(0))
    assert float(torch.cdist(end.x, points).amin(1).max()) < 1e-9


@pytest.mark.parametrize("walk", [euler, heun])
def test_a_walk_reaches_the_given_times_and_leaves_gradients_to_the_caller(walk: Callable):
    x = normal(2, 1, 4, 4, dtype=torch.float32)
    asked = []

    def model(x: Tensor, time: Tensor) -> Tensor:
        asked.append(time)
        assert not torch.is_grad_enabled()
        return x

    times = torch.linspace(1, 0, 5)
    reached = []
    for step in walk(model, x, times):
        assert torch.is_grad_enabled()
        assert step.x.dtype == step.velocity.dtype == step.x0_hat.dtype == torch.float32
        assert step.x.shape == x.shape
        reached.append(step.time)
    assert reached == times[1:].tolist()
    assert {tuple(time.tolist()) for time in asked} == {
        (time, time) for time in times[:-1].tolist()
    }
    assert all(time.dtype == torch.float32 for time in asked)


@pytest.mark.parametrize("walk", [euler, heun])
def test_a_start_stays_as_it_was(walk: Callable):
    x = normal(2, 3)
    before = x.clone()
    list(walk(lambda x, time: x, x, [1.0, 0.5, 0.0]))
    assert torch.equal(x, before)


# --- wrong arguments

GOOD = torch.zeros(2, 3)


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("x", "times", "error", "message"),
    [
        (GOOD, [1.0, 1.0], ValueError, "times must fall strictly, got 1 then 1"),
        (GOOD, [0.0, 1.0], ValueError, "times must fall strictly, got 0 then 1"),
        (GOOD, [2.0, 1.0], ValueError, r"an entry of times must be in \[0, 1\], got 2.0"),
        (GOOD.half(), [1.0, 0.0], TypeError, "x must be float32 or float64, got torch.float16"),
        (GOOD / 0, [1.0, 0.0], ValueError, "x must be finite, got NaN or infinity"),
        (GOOD[0], [1.0, 0.0], ValueError, r"x must have shape \(B, ...\), got \(3,\)"),
        ([1.0], [1.0, 0.0], TypeError, "x must be a tensor"),
    ],
)
def test_a_walk_names_wrong_arguments_before_its_first_step(
    x: object, times: list[float], error: type, message: str
):
    with pytest.raises(error, match=message):
        euler(lambda x, time: x, x, times)
    with pytest.raises(error, match=message):
        heun(lambda x, time: x, x, times)
