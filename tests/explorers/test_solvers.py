"""The solver explorer's Python part; its script is compared with it in tests/browser."""

import math

import pytest
import torch

from tutorial_lib.explorers import SolverExplorer
from tutorial_lib.explorers.solvers import widget as _solvers
from tutorial_lib.oracles import GaussianMixtureOracle
from tutorial_lib.samplers import evenly_spaced, heun, karras_spaced, last
from tutorial_lib.schedules import cosine_schedule, linear_schedule

F64 = torch.float64
MEANS = torch.tensor([[-1.0, 0.5], [1.0, 1.0], [0.0, -1.2]], dtype=F64)


def mixture(schedule=None, means=MEANS) -> GaussianMixtureOracle:
    count = len(means)
    return GaussianMixtureOracle(
        schedule or linear_schedule(), means, torch.full((count,), 0.05), torch.ones(count)
    )


@pytest.fixture(scope="module")
def explorer() -> SolverExplorer:
    return SolverExplorer(mixture(), 5, evaluations=20)


def test_a_single_gaussian_ends_where_its_ODE_leads():
    """For one cluster the paths are known: y - m shrinks like sqrt(v + sigma^2)."""
    schedule, variance = linear_schedule(), 0.05
    center = torch.tensor([[0.7, -0.3]], dtype=F64)
    explorer = SolverExplorer(mixture(schedule, center), 4)
    sigma = float((schedule.noise_rate / schedule.signal_rate)[_first(explorer)])
    signal = float(schedule.signal_rate[_first(explorer)])
    away = explorer._starts / signal - center
    expected = center + away * math.sqrt(variance / (variance + sigma**2))
    assert (explorer._path[-1] - expected).abs().max() < 1e-3


def _first(explorer: SolverExplorer) -> int:
    return explorer._steps["karras", 1][0]


def test_all_spacings_fall_from_one_step_to_0(explorer):
    steps = explorer._steps
    assert {name for name, _ in steps} == set(_solvers.SPACED)
    for (_, count), walk in steps.items():
        assert (walk[0], walk[-1], len(walk)) == (_first(explorer), 0, count + 1)
        assert all(a > b for a, b in zip(walk, walk[1:], strict=False))
    assert steps["karras", 9] == karras_spaced(linear_schedule(), 9, sigma_max=20.0)
    assert steps["even", 9] == evenly_spaced(_first(explorer), 9)


def test_the_steps_are_sent_one_after_the_other(explorer):
    sent = torch.frombuffer(bytearray(explorer.timesteps), dtype=torch.int32).tolist()
    of_spacing, names = len(sent) // 3, list(_solvers.SPACED)
    for name, count in (("karras", 1), ("even", 7), ("logarithmic", 64)):
        first = names.index(name) * of_spacing + (count - 1) * (count + 2) // 2
        assert sent[first : first + count + 1] == explorer._steps[name, count]


def test_the_errors_are_those_of_the_samplers(explorer):
    schedule = linear_schedule()
    found = explorer.errors()
    assert list(found) == ["euler", "heun", "dpm_solver"]
    walk = karras_spaced(schedule, 10, sigma_max=20.0)
    expected = last(heun(mixture(), schedule, explorer._starts, walk))
    assert found["heun"] == pytest.approx(
        float((expected - explorer._path[-1]).norm(dim=1).mean()), abs=1e-12
    )
    assert found["dpm_solver"] < found["euler"]
    assert "20 evaluations" in explorer._summary()
    assert f"{found['euler']:.3g}" in repr(explorer)


def test_second_order_wins_with_many_evaluations():
    found = SolverExplorer(mixture(), 8, evaluations=64).errors()
    assert max(found["heun"], found["dpm_solver"]) < found["euler"] / 3


def test_points_of_ones_own_and_the_still_picture():
    points = torch.tensor([[0.1, -2.0], [1.0, 1.0]])
    explorer = SolverExplorer(mixture(cosine_schedule()), points, spacing="even")
    assert torch.equal(explorer._starts, points.double())
    data, _ = explorer._repr_mimebundle_()
    assert "image/png" in data


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"oracle": lambda x, t: x}, TypeError, "oracle must be a GaussianMixtureOracle"),
        ({"oracle": mixture(means=torch.zeros(2, 3))}, ValueError, r"means \(K, 2\); got \(2, 3"),
        ({"oracle": mixture(means=torch.zeros(41, 2))}, ValueError, "at most 40 clusters, got 41"),
        ({"points": 0}, ValueError, "points must be at least 1"),
        ({"points": 41}, ValueError, "points"),
        ({"points": torch.zeros(2, 3)}, ValueError, r"points must have shape .* got \(2, 3\)"),
        ({"points": torch.full((2, 2), torch.nan)}, ValueError, "points must be finite"),
        ({"evaluations": 1}, ValueError, "evaluations must be at least 2"),
        ({"evaluations": 65}, ValueError, "evaluations"),
        ({"evaluations": 8.0}, TypeError, "evaluations"),
        ({"spacing": "edm"}, ValueError, "spacing"),
        ({"sigma_max": 0}, ValueError, "sigma_max"),
        ({"sigma_max": 0.05}, ValueError, "sigma_max must leave at least 64 steps below it, 0.05"),
        ({"seed": -1}, ValueError, "seed"),
    ],
)
def test_what_is_invalid(arguments, error, words):
    with pytest.raises(error, match=words):
        SolverExplorer(**{"oracle": mixture(), **arguments})


@pytest.mark.plain_errors
def test_a_solver_that_does_not_race_is_refused(explorer):
    with pytest.raises(ValueError, match="solver"):
        explorer.walked("ddpm")
