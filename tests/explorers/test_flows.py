"""The flow explorer's Python part; its script is compared with it in tests/browser."""

import math

import pytest
import torch

from tests.draws import seeded
from tutorial_lib.explorers import FlowExplorer
from tutorial_lib.explorers.flows import widget as _flows
from tutorial_lib.explorers.shared import wire
from tutorial_lib.flows import flow_from_denoiser, schedule_through
from tutorial_lib.oracles import GaussianMixtureOracle
from tutorial_lib.schedules import linear_schedule

F64 = torch.float64
MEANS = torch.tensor([[-2.0, 0.5], [2.0, 1.0], [0.0, -2.2]], dtype=F64)
VARIANCES = torch.tensor([0.02, 0.05, 0.01], dtype=F64)
WEIGHTS = torch.tensor([1.0, 2.0, 0.5], dtype=F64)


def mixture(schedule=None, means=MEANS) -> GaussianMixtureOracle:
    count = len(means)
    return GaussianMixtureOracle(
        schedule or linear_schedule(), means, VARIANCES[:1].expand(count), torch.ones(count)
    )


@pytest.fixture(scope="module")
def explorer() -> FlowExplorer:
    return FlowExplorer(mixture(), 6, steps=2, pairs=300)


def test_the_exact_flow_is_the_oracles():
    times = torch.linspace(0.99, 0, 12, dtype=F64)
    schedule = schedule_through(times)
    oracle = GaussianMixtureOracle(schedule, MEANS, VARIANCES, WEIGHTS)
    known, flow = flow_from_denoiser(oracle, schedule), _flows.exact_flow(oracle)
    x = torch.randn(len(times) - 1, 2, generator=seeded(0), dtype=F64) * 1.5
    assert (flow(x, times[:-1]) - known(x, times[:-1])).abs().max() < 1e-9


def test_the_mean_velocity_of_pairs_is_that_of_all_lines_through_a_point():
    """In one dimension, by summing over the data ends: each line through x has one of them."""
    data, noise = torch.tensor([[-1.0], [0.4]], dtype=F64), torch.tensor([[0.3], [-0.8]], dtype=F64)
    v_data, v_noise = torch.tensor([0.2, 0.5], dtype=F64), torch.tensor([0.3, 0.1], dtype=F64)
    weights = torch.tensor([0.3, 0.7], dtype=F64)
    flow = _flows.PairedMixture(data, noise, v_data, v_noise, weights)
    x0 = torch.linspace(-8, 8, 20001, dtype=F64)[:, None]
    for time in (1.0, 0.7, 0.2):
        for x in (-0.9, 0.1, 1.3):
            eps = (x - (1 - time) * x0) / time
            log_density = (
                weights.log()
                - (x0 - data.T).square() / (2 * v_data)
                - (eps - noise.T).square() / (2 * v_noise)
                - (v_data * v_noise).log() / 2
            )
            share = log_density.flatten().softmax(0).view(-1, 2).sum(1, keepdim=True)
            expected = float((share * (eps - x0)).sum())
            got = flow(torch.tensor([[x]], dtype=F64), torch.tensor([time], dtype=F64))
            assert float(got) == pytest.approx(expected, abs=1e-8)


def test_a_single_gaussian_is_left_and_reached_on_the_known_path():
    center = torch.tensor([[0.7, -0.3]], dtype=F64)
    flow = _flows.exact_flow(mixture(means=center))
    eps = torch.randn(5, 2, generator=seeded(1), dtype=F64)
    states = _flows.walk(flow, eps, 1000)
    for i in (250, 500, 1000):
        time = 1 - i / 1000
        spread = math.sqrt((1 - time) ** 2 * float(VARIANCES[0]) + time**2)
        expected = (1 - time) * center + spread * eps
        assert (states[i] - expected).abs().max() < 0.01


def test_one_step_along_reflowed_pairs_ends_where_the_flow_leads_its_noise():
    """With little blur the mean at time 1 is the pair's own velocity: one step is the walk."""
    flow = _flows.exact_flow(mixture())
    noise = torch.randn(200, 2, generator=seeded(2), dtype=F64)
    ends = _flows.walk(flow, noise, wire.MANY_STEPS)[-1]
    again = _flows.reflowed(flow, noise, 0.001)
    assert torch.equal(again.noise, noise)
    got = _flows.walk(again, noise, 1)[-1]
    assert (got - ends).norm(dim=1).median() < 1e-6


def test_the_numbers_are_those_of_the_walks(explorer):
    oracle, flow = mixture(), _flows.exact_flow(mixture())
    noise = torch.randn(40, 2, generator=seeded(3), dtype=F64)
    found = _flows.measure(oracle, flow, noise)
    states = _flows.walk(flow, noise, wire.MANY_STEPS)
    for steps, error, share in zip(wire.FLOW_STEPS, found.errors, found.shares, strict=True):
        x = noise
        for i in range(steps):
            x = x - flow(x, torch.full((40,), 1 - i / steps, dtype=F64)) / steps
        assert error == pytest.approx(float((x - states[-1]).norm(dim=1).mean()), abs=1e-12)
        near = [any((p - m).norm() < 3 * VARIANCES[0].sqrt() for m in MEANS) for p in x]
        assert share == sum(near) / 40
    # Liu et al. 2022, eq. 6: the velocity's mean square distance from that of the straight path,
    # here over that of the straight path itself.
    straight = states[0] - states[-1]
    away = (states[:-1] - states[1:]) * wire.MANY_STEPS - straight
    expected = away.square().sum(2).mean() / straight.square().sum(1).mean()
    assert found.straightness == pytest.approx(float(expected), abs=1e-9)


def test_reflowed_paths_are_straighter_and_need_fewer_steps(explorer):
    learned, again = explorer._measured.values()
    assert again.straightness < learned.straightness / 50
    assert again.errors[0] < learned.errors[0] / 10
    assert learned.shares[0] < 0.1
    assert again.shares[0] > 0.8
    assert learned.errors == sorted(learned.errors, reverse=True)


def test_the_share_of_the_data_itself():
    points = mixture().sample(20_000, seeded(4))
    error = math.sqrt(0.011 * 0.989 / 20_000)
    share = _flows.on_a_cluster(mixture(), points)
    assert share == pytest.approx(FlowExplorer(mixture(), 1, pairs=10).real_share, abs=4 * error)


def test_what_is_sent_and_shown(explorer):
    assert explorer.walked("learned").shape == (3, 6, 2)
    lines = explorer.walked("straight")
    assert torch.equal(lines[0], explorer._starts)
    assert len(torch.frombuffer(bytearray(explorer.pairs), dtype=F64)) == 4 * 300
    assert "With 2 steps of Euler's method learned paths" in repr(explorer)
    points = torch.tensor([[0.1, -2.0], [1.0, 1.0]])
    own = FlowExplorer(mixture(), points, paths="reflowed", time=1, pairs=20)
    assert torch.equal(own._starts, points.double())
    assert own.moment == wire.MOMENTS
    data, _ = own._repr_mimebundle_()
    assert "image/png" in data


def test_a_seed_draws_everything():
    one, same, other = (FlowExplorer(mixture(), 3, pairs=10, seed=seed) for seed in (5, 5, 6))
    assert (one.starts, one.lines, one.pairs) == (same.starts, same.lines, same.pairs)
    assert all(getattr(one, name) != getattr(other, name) for name in ("starts", "lines", "pairs"))


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"oracle": lambda x, t: x}, TypeError, "oracle must be a GaussianMixtureOracle"),
        ({"oracle": mixture(means=torch.zeros(2, 3))}, ValueError, r"means \(K, 2\); got \(2, 3"),
        (
            {"oracle": GaussianMixtureOracle(linear_schedule(), MEANS, VARIANCES * 0, WEIGHTS)},
            ValueError,
            "oracle must have variances above 0, got one of 0",
        ),
        ({"points": 0}, ValueError, "points must be at least 1"),
        ({"points": torch.zeros(2, 3)}, ValueError, r"points must have shape .* got \(2, 3\)"),
        ({"paths": "curved"}, ValueError, "paths must be one of straight, learned, reflowed"),
        ({"steps": 3}, ValueError, r"steps must be one of 1, 2, 4, 8, 32; got 3"),
        ({"steps": 4.0}, TypeError, "steps"),
        ({"time": 1.5}, ValueError, r"time must be in \[0, 1\]"),
        ({"pairs": 9}, ValueError, "pairs must be at least 10"),
        ({"pairs": 4001}, ValueError, "pairs"),
        ({"blur": 0}, ValueError, "blur"),
        ({"seed": -1}, ValueError, "seed"),
    ],
)
def test_what_is_invalid(arguments, error, words):
    with pytest.raises(error, match=words):
        FlowExplorer(**{"oracle": mixture(), **arguments})


@pytest.mark.plain_errors
def test_paths_that_are_not_shown_are_refused(explorer):
    with pytest.raises(ValueError, match="paths"):
        explorer.walked("bent")
