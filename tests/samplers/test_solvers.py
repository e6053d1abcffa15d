"""The solvers of the ODE: against diffusers, against DDIM and DDPM, and their orders."""

import math

import pytest
import torch
from torch.testing import assert_close

from tests.samplers.walks import F64, IMAGES, KINDS, network, normal, seeded, simple
from tutorial_lib.oracles import GaussianMixtureOracle
from tutorial_lib.samplers import (
    SPACINGS,
    ddim,
    ddpm,
    dpm_solver,
    euler,
    euler_ancestral,
    evenly_spaced,
    heun,
    karras_spaced,
    last,
)
from tutorial_lib.schedules import cosine_schedule, linear_schedule, quadratic_schedule

SCHEDULES = {"linear": linear_schedule, "cosine": cosine_schedule, "quadratic": quadratic_schedule}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


# --- the same walks in other words ---------------------------------------------------------------


@each_schedule
@pytest.mark.parametrize("count", [7, 50, 1000])
def test_euler_is_ddim_without_noise(schedule, count):
    schedule, x_T = schedule(1000), normal(*IMAGES)
    model, steps = network(schedule), evenly_spaced(1000, count)
    for ours, theirs in zip(
        euler(model, schedule, x_T, steps), ddim(model, schedule, x_T, steps), strict=True
    ):
        assert ours.t == theirs.t
        for a, b in zip(ours[1:], theirs[1:], strict=True):
            assert_close(a, b, rtol=0, atol=1e-9)


@each_schedule
@pytest.mark.parametrize("count", [7, 50, 1000])
def test_euler_ancestral_is_ddpm_with_the_posterior_variance(schedule, count):
    schedule, x_T = schedule(1000), normal(*IMAGES)
    model, steps = network(schedule), evenly_spaced(1000, count)
    walks = (
        walk(model, schedule, x_T, steps, generator=seeded(3)) for walk in (euler_ancestral, ddpm)
    )
    for ours, theirs in zip(*walks, strict=True):
        assert_close(ours.x_t, theirs.x_t, rtol=0, atol=1e-9)


# --- diffusers -----------------------------------------------------------------------------------


def peer_walk(peer, model, x, count, **options):
    """The end of a walk by a scheduler of diffusers in its own scale, asked as a pipeline would."""
    peer.set_timesteps(count)
    x = x * peer.init_noise_sigma
    for t in peer.timesteps:
        scaled = peer.scale_model_input(x, t)
        eps_hat = model(scaled, torch.full((len(x),), round(float(t)) + 1))
        x = peer.step(eps_hat, t, x, return_dict=False, **options)[0]
    return x


def their_solver(name: str, kind: str):
    import diffusers

    options = {"beta_schedule": kind, "timestep_spacing": "trailing"}
    options |= {"beta_start": 1e-4, "beta_end": 0.02}
    if name == "DPMSolverMultistepScheduler":
        options |= {"algorithm_type": "dpmsolver++", "solver_order": 2}
        options |= {"solver_type": "midpoint", "final_sigmas_type": "zero"}
    return getattr(diffusers, name)(**options)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers'
@pytest.mark.parametrize("count", [5, 10, 50])
@pytest.mark.parametrize("kind", ["linear", "scaled_linear"])
@pytest.mark.parametrize(
    ("ours", "name"),
    [
        (euler, "EulerDiscreteScheduler"),
        (euler_ancestral, "EulerAncestralDiscreteScheduler"),
        (heun, "HeunDiscreteScheduler"),
        (dpm_solver, "DPMSolverMultistepScheduler"),
    ],
)
def test_every_solver_ends_where_that_of_diffusers_ends(ours, name, kind, count):
    schedule = KINDS[kind]()
    model, x_T = network(schedule), normal(*IMAGES).float()
    options = {} if name.startswith(("Heun", "DPM")) else {"generator": seeded(1)}
    peer = their_solver(name, kind)
    peer.set_timesteps(count)
    # Their first state is sqrt(sigma^2 + 1) times noise; ours is noise itself, y is x / signal.
    start = x_T / float(schedule.signal_rate[-1]) / float(peer.init_noise_sigma)
    start = x_T if name.startswith("DPM") else start
    theirs = peer_walk(peer, model, start, count, **options)
    mine = last(ours(model, schedule, x_T, evenly_spaced(1000, count), generator=seeded(1)))
    assert mine.std() > 0.2
    assert_close(mine, theirs, rtol=0, atol=1e-5)


# --- order ---------------------------------------------------------------------------------------


FINE = linear_schedule(17_000, 0.1 / 17_000, 20 / 17_000)
"""The usual linear schedule in finer steps."""
FIRST = 2**14
"""Where walks begin: every stride below is a whole number of steps."""


def eight_clusters(schedule) -> GaussianMixtureOracle:
    angles = torch.arange(8, dtype=F64) * math.pi / 4
    means = 2 * torch.stack([angles.cos(), angles.sin()], dim=1)
    return GaussianMixtureOracle(schedule, means, torch.full((8,), 0.05, dtype=F64), torch.ones(8))


def slope(counts: list[int], errors: list[float]) -> float:
    """Of log error over log count, by least squares."""
    x, y = torch.tensor(counts, dtype=F64).log(), torch.tensor(errors, dtype=F64).log()
    return float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())


def exact(oracle, schedule, x, t_first: int, t_last: int, stride: int = 64):
    """The ODE's solution by the classical Runge-Kutta method in t: dy/dt = eps dsigma/dt."""
    signal = schedule.signal_rate.tolist()
    sigma = (schedule.noise_rate / schedule.signal_rate).tolist()

    def slope_at(y, t):
        rate = (8 * (sigma[t + 1] - sigma[t - 1]) - sigma[t + 2] + sigma[t - 2]) / 12
        return rate * oracle(signal[t] * y, torch.full((len(y),), t))

    y, half = x / signal[t_first], stride // 2
    for t in range(t_first, t_last, -stride):
        k1 = slope_at(y, t)
        k2 = slope_at(y - half * k1, t - half)
        k3 = slope_at(y - half * k2, t - half)
        k4 = slope_at(y - stride * k3, t - stride)
        y = y - stride * (k1 + 2 * k2 + 2 * k3 + k4) / 6
    return signal[t_last] * y


@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (ddim, 1), (heun, 2), (dpm_solver, 2)])
def test_the_error_falls_with_the_order_of_the_method(sampler, order):
    """By an exact denoiser, from heavy noise to a little, where nothing is singular."""
    oracle, x, end_step = eight_clusters(FINE), normal(16, 2), FIRST // 16
    expected = exact(oracle, FINE, x, FIRST, end_step)
    counts, errors = [32, 64, 128, 256], []
    for count in counts:
        steps = [FIRST - (FIRST - end_step) * i // count for i in range(count + 1)]
        *_, end = sampler(oracle, FINE, x, steps)
        errors.append(float((end.x_t - expected).norm(dim=1).mean()))
    assert slope(counts, errors) == pytest.approx(-order, abs=0.15), errors


def test_the_reference_does_not_depend_on_its_stride():
    oracle, x = eight_clusters(FINE), normal(16, 2)
    coarse, fine = (exact(oracle, FINE, x, FIRST, FIRST // 16, stride=s) for s in (64, 32))
    assert float((coarse - fine).norm(dim=1).mean()) < 1e-6


def test_second_order_goes_further_with_as_many_evaluations():
    """From noise to data: errors of the end point at 63 or 64 evaluations of the model."""
    schedule = linear_schedule(1000)
    oracle, x = eight_clusters(schedule), normal(128, 2)
    expected = last(heun(oracle, schedule, x, evenly_spaced(1000, 500)))

    def error(sampler, count):
        end = last(sampler(oracle, schedule, x, karras_spaced(schedule, count)))
        return float((end - expected).norm(dim=1).mean())

    first_order = error(euler, 64)
    assert error(dpm_solver, 64) < first_order / 3
    assert error(heun, 32) < first_order / 2


# --- how they walk -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "questions"), [(euler, 5), (euler_ancestral, 5), (heun, 9), (dpm_solver, 5)]
)
def test_how_often_the_model_is_asked(sampler, questions):
    asked = []

    def model(x_t, t):
        asked.append(int(t[0]))
        return simple(x_t, t)

    *_, end = sampler(model, linear_schedule(100), normal(2, 2), [100, 80, 50, 20, 5, 0])
    assert end.t == 0
    assert len(asked) == questions
    assert min(asked) == 5  # nobody asks about clean data


@pytest.mark.parametrize("sampler", [euler, euler_ancestral, heun, dpm_solver])
def test_one_step_lands_on_the_guess(sampler):
    x_T, schedule = normal(3, 4), linear_schedule(100)
    (only,) = sampler(simple, schedule, x_T, [100, 0], generator=seeded(0))
    assert_close(only.x_t, only.x0_hat)


def test_the_solver_does_not_change_what_it_has_yielded():
    """The multistep method keeps x0_hat for the next step; so may the caller."""
    walk = dpm_solver(simple, linear_schedule(100), normal(3, 4), [100, 60, 30, 10, 0])
    kept = [(step, [part.clone() for part in step[1:]]) for step in walk]
    for step, parts in kept:
        for now, then in zip(step[1:], parts, strict=True):
            assert torch.equal(now, then)


# --- spacing -------------------------------------------------------------------------------------


@each_schedule
@pytest.mark.parametrize("count", [1, 2, 5, 10, 50, 999, 1000])
@pytest.mark.parametrize("rho", [1.0, 7.0, 1000.0])
def test_karras_steps_fall_from_T_to_0(schedule, count, rho):
    steps = karras_spaced(schedule(1000), count, rho)
    assert (steps[0], steps[-1], len(steps)) == (1000, 0, count + 1)
    assert all(a > b for a, b in zip(steps, steps[1:], strict=False))


def test_karras_sigmas_are_those_of_the_formula():
    schedule, rho, count = linear_schedule(2**16, 1e-6, 3e-4), 7, 12
    sigma = schedule.noise_rate / schedule.signal_rate
    steps = karras_spaced(schedule, count, rho)[:-1]
    first, end = float(sigma[-1]), float(sigma[1])
    for i, t in enumerate(steps):
        place = i / (count - 1)
        wanted = (first ** (1 / rho) + place * (end ** (1 / rho) - first ** (1 / rho))) ** rho
        assert float(sigma[t]) == pytest.approx(wanted, rel=2e-3)


def test_a_larger_rho_keeps_more_steps_for_the_end():
    schedule = linear_schedule(1000)
    middle = [karras_spaced(schedule, 20, rho)[10] for rho in (1.0, 3.0, 7.0, 1000.0)]
    assert middle == sorted(middle, reverse=True)
    assert middle[0] > 2 * middle[-1]


def test_a_walk_can_begin_below_T():
    """With the cosine schedule half of ten steps lie above sigma = 80, where nothing is seen."""
    schedule = cosine_schedule(1000)
    sigma = schedule.noise_rate / schedule.signal_rate
    nearest = int((sigma[1:] / 80).log().abs().argmin()) + 1
    steps = karras_spaced(schedule, 10, sigma_max=80)
    assert steps[0] == nearest == 992
    assert steps == SPACINGS["edm"](schedule, 10)
    assert sum(float(sigma[t]) > 80 for t in karras_spaced(schedule, 10)) >= 5
    ends = float(sigma[nearest]), float(sigma[1])
    wanted = [
        (ends[0] ** (1 / 7) + i / 9 * (ends[1] ** (1 / 7) - ends[0] ** (1 / 7))) ** 7
        for i in range(10)
    ]
    between = zip(steps[1:8], wanted[1:8], strict=True)  # where steps lie closely
    assert all(float(sigma[t]) == pytest.approx(w, rel=0.1) for t, w in between)


@pytest.mark.parametrize("sigma_max", [1e-9, 0.5, 80.0, 1e30])
@pytest.mark.parametrize("count", [1, 2, 10, 999, 1000])
def test_a_start_below_T_leaves_a_step_for_each_stride(sigma_max, count):
    schedule = linear_schedule(1000)
    steps = karras_spaced(schedule, count, sigma_max=sigma_max)
    assert len(steps) == count + 1
    assert steps[-1] == 0
    assert all(a > b for a, b in zip(steps, steps[1:], strict=False))
    if sigma_max > 1e6:
        assert steps == karras_spaced(schedule, count)


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 10, "sigma_max": 0}, "sigma_max must be above 0, got 0"),
        ({"count": 10, "sigma_max": -1.0}, "sigma_max must be"),
        ({"count": 10, "sigma_max": math.inf}, "sigma_max must be finite"),
        ({"count": 0}, "count must be at least 1, got 0"),
        ({"count": 1001}, "count must be at most num_steps = 1000, got 1001"),
        ({"count": 10, "rho": 0.5}, "rho must be"),
        ({"count": 10, "rho": math.nan}, "rho must be"),
    ],
)
def test_spacing_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        karras_spaced(linear_schedule(1000), **arguments)
