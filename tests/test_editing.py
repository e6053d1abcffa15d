"""Editing: against exact conditionals, laws that are worked out in matrices, and walks by hand."""

# pyright: reportArgumentType=false
# (part of this file passes what the annotations forbid)

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate
from torch.testing import assert_close

from tests.draws import normal, seeded
from tests.samplers.walks import F64, QUESTIONS, each_sampler, network, simple
from tutorial_lib._random import Streams
from tutorial_lib.editing import consistent, edit, inpaint, solve_linear
from tutorial_lib.forward import diffuse, predict_x0
from tutorial_lib.guidance import LabeledMixture, guide
from tutorial_lib.oracles import GaussianMixtureOracle
from tutorial_lib.samplers import SAMPLERS, SampleStep, ddim, ddpm, evenly_spaced, last
from tutorial_lib.schedules import NoiseSchedule, cosine_schedule, linear_schedule

SCHEDULE = cosine_schedule(1000)
WALK = evenly_spaced(1000, 5)
IMAGES = (2, 3, 6, 6)
MASK = torch.zeros(1, 6, 6, dtype=torch.bool)
MASK[:, :3] = True

each = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)


def sampler_of(name: str) -> Callable[..., Iterator[SampleStep]]:
    """What ``each_sampler`` names."""
    return SAMPLERS.get(name) or partial(ddim, eta=1.0)


def half(x: Tensor) -> Tensor:
    """Means of 2 x 2 pixels."""
    return avg_pool2d(x, 2)


def repeated(y: Tensor) -> Tensor:
    return interpolate(y, scale_factor=2, mode="nearest")


# --- a walk that is sent states ------------------------------------------------------------------


@each_sampler
def test_a_walk_goes_on_from_what_it_is_sent(name: str):
    sampler, model = sampler_of(name), network(SCHEDULE)
    x_T, elsewhere = normal(*IMAGES), normal(*IMAGES, seed=1)
    walk: Any = sampler(model, SCHEDULE, x_T, WALK, generator=seeded(2))
    next(walk)
    went_on = walk.send(elsewhere)
    generator = seeded(2)
    next(iter(sampler(model, SCHEDULE, x_T, WALK[:2], generator=generator)))
    anew = next(iter(sampler(model, SCHEDULE, elsewhere, WALK[1:], generator=generator)))
    assert torch.equal(went_on.eps_hat, anew.eps_hat)
    if name != "dpm_solver":  # which remembers the x0_hat before
        assert torch.equal(went_on.x_t, anew.x_t)


@each_sampler
def test_a_constraint_that_constrains_nothing_is_the_plain_walk(name: str):
    sampler, model, x_T = sampler_of(name), network(SCHEDULE), normal(*IMAGES)
    plain = list(sampler(model, SCHEDULE, x_T, WALK, generator=seeded(1)))
    asked = {"sampler": sampler, "generator": seeded(1)}
    free = list(solve_linear(model, SCHEDULE, x_T, WALK, half(x_T), half, scale=0, **asked))
    assert [step.t for step in free] == WALK[1:]
    for ours, theirs in zip(free, plain, strict=True):
        assert torch.equal(ours.x_t, theirs.x_t)
    if name not in ("ddpm", "euler_ancestral", "ddim, eta 1"):  # else the noise is another
        nothing = torch.zeros(1, 6, 6, dtype=torch.bool)
        free = list(inpaint(model, SCHEDULE, x_T, WALK, x_T, nothing, sampler=sampler))
        assert torch.equal(last(free), plain[-1].x_t)


# --- image to image ------------------------------------------------------------------------------


@each_sampler
@pytest.mark.parametrize(("strength", "strides"), [(1.0, 5), (0.6, 3), (0.5, 3), (0.29, 1)])
def test_edit_is_the_jump_and_then_the_rest_of_the_walk(name: str, strength: float, strides: int):
    sampler, model, x0 = sampler_of(name), network(SCHEDULE), normal(*IMAGES)
    steps = list(edit(model, SCHEDULE, x0, WALK, strength, sampler=sampler, generator=seeded(3)))
    rest = [1000, 800, 600, 400, 200, 0][5 - strides :]
    assert [step.t for step in steps] == rest[1:]
    generator = seeded(3)
    eps = torch.randn(IMAGES, generator=generator, dtype=F64)
    start = diffuse(SCHEDULE, x0, torch.full((2,), rest[0]), eps)
    by_hand = last(sampler(model, SCHEDULE, start, rest, generator=generator))
    assert torch.equal(last(steps), by_hand)


def test_what_edit_keeps_of_a_gaussian_is_exact():
    """x_0 of N(0, v): after the jump and DDPM's every step, x_0' given x_0 is Gaussian with mean
    k signal x_0 and variance v (1 - k signal) + k^2 noise^2; k = signal v / (signal^2 v + noise^2)
    says what is left of x_t."""
    v, count, where = 0.25, 20_000, 0.8
    oracle = GaussianMixtureOracle(
        SCHEDULE, torch.zeros(1, 1, dtype=F64), torch.tensor([v], dtype=F64), torch.ones(1)
    )
    x0 = torch.full((count, 1), where, dtype=F64)
    for strength in (0.3, 0.6):
        walk = evenly_spaced(1000, 250)
        end = last(edit(oracle, SCHEDULE, x0, walk, strength, sampler=ddpm, generator=seeded(1)))
        start = round(1000 * strength)
        signal, noise = SCHEDULE.signal_rate[start], SCHEDULE.noise_rate[start]
        k = signal * v / (signal**2 * v + noise**2)
        variance = v * (1 - k * signal) + k**2 * noise**2
        # five standard errors, and the discretization of the walk
        assert abs(end.mean() - k * signal * where) < 5 * (variance / count).sqrt() + 0.004
        assert abs(end.var() / variance - 1) < 5 * math.sqrt(2 / count) + 0.01


def test_half_the_strength_asks_half_as_often():
    asked = []

    def model(x_t: Tensor, t: Tensor) -> Tensor:
        asked.append(int(t[0]))
        return 0.1 * x_t

    last(edit(model, SCHEDULE, normal(2, 3), evenly_spaced(1000, 50), 0.5))
    assert asked == list(range(500, 0, -20))


# --- inpainting ----------------------------------------------------------------------------------


@each_sampler
@pytest.mark.parametrize("resamplings", [1, 3])
def test_the_known_part_comes_back_to_the_bit_and_only_it_is_read(name: str, resamplings: int):
    sampler, model = sampler_of(name), network(SCHEDULE)
    x_T, known = normal(*IMAGES), normal(*IMAGES, seed=1)
    other = torch.where(MASK, known, 7.0)

    def complete(known: Tensor, x_T: Tensor = x_T) -> list[SampleStep]:
        options = {"resamplings": resamplings, "sampler": sampler, "generator": seeded(2)}
        return list(inpaint(model, SCHEDULE, x_T, WALK, known, MASK, **options))

    steps = complete(known)
    assert [step.t for step in steps] == WALK[1:]
    assert torch.equal(torch.where(MASK, steps[-1].x_t, 0), torch.where(MASK, known, 0))
    assert torch.equal(last(complete(other)), steps[-1].x_t)
    assert torch.equal(last(complete(known, torch.where(MASK, 5.0, x_T))), steps[-1].x_t)
    assert not torch.equal(last(complete(known + 1)), steps[-1].x_t)


MU = torch.tensor([0.4, -0.3, 0.2], dtype=F64)
COV = torch.tensor([[0.5, 0.35, -0.2], [0.35, 0.6, 0.1], [-0.2, 0.1, 0.4]], dtype=F64)
GIVEN = torch.tensor([0.9, 0.0, -0.5], dtype=F64)


def correlated(x_t: Tensor, t: Tensor) -> Tensor:
    """The exact eps for data of N(MU, COV)."""
    signal, noise = SCHEDULE.signal_rate[t[0]], SCHEDULE.noise_rate[t[0]]
    precision = torch.linalg.inv(signal**2 * COV + noise**2 * torch.eye(3, dtype=F64))
    return noise * (x_t - signal * MU) @ precision


def law_of_replacement(
    walk: list[int], mask: Tensor, resamplings: int, stochastic: bool
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of inpainting N(MU, COV) by replacement, with no sample drawn."""
    signal, noise, abar = SCHEDULE.signal_rate, SCHEDULE.noise_rate, SCHEDULE.alpha_bar
    eye, free = torch.eye(3, dtype=F64), (~mask).to(F64)

    def put_back(mean: Tensor, cov: Tensor, s: int) -> tuple[Tensor, Tensor]:
        mean = torch.where(mask, signal[s] * GIVEN, mean)
        return mean, free[:, None] * cov * free + torch.diag(mask * noise[s] ** 2)

    mean, cov = put_back(torch.zeros(3, dtype=F64), eye, walk[0])
    for t, s in zip(walk[:-1], walk[1:], strict=True):
        precision = torch.linalg.inv(signal[t] ** 2 * COV + noise[t] ** 2 * eye)
        for again in range(resamplings if s > 0 else 1):
            if again:
                kept = abar[t] / abar[s]
                mean, cov = kept.sqrt() * mean, kept * cov + (1 - kept) * eye
            if stochastic:  # Ho et al. 2020, algorithm 2, with the posterior variance
                alpha = abar[t] / abar[s]
                a, b = 1 / alpha.sqrt(), -(1 - alpha) / noise[t] / alpha.sqrt()
                fresh = (1 - alpha) * (1 - abar[s]) / (1 - abar[t])
            else:  # Song et al. 2021, eq. 12 with sigma = 0
                a, b = signal[s] / signal[t], noise[s] - signal[s] * noise[t] / signal[t]
                fresh = torch.zeros((), dtype=F64)
            move = a * eye + b * noise[t] * precision
            mean = move @ mean - b * noise[t] * precision @ (signal[t] * MU)
            cov = move @ cov @ move.T + fresh * eye
            mean, cov = put_back(mean, cov, s)
    return mean, cov


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize("resamplings", [1, 4])
@pytest.mark.parametrize("mask", [[True, False, False], [True, False, True]])
def test_replacement_has_the_law_that_matrices_give(
    mask: list[bool], resamplings: int, stochastic: bool
):
    """Few, long steps: noise of a neighboring step, or drawn once, would show at once."""
    count, walk, known = 40_000, evenly_spaced(1000, 6), torch.tensor(mask)
    end = last(
        inpaint(
            correlated,
            SCHEDULE,
            normal(count, 3, seed=3),
            walk,
            GIVEN.expand(count, 3),
            known,
            resamplings=resamplings,
            sampler=ddpm if stochastic else ddim,
            generator=seeded(4),
        )
    )
    mean, cov = law_of_replacement(walk, known, resamplings, stochastic)
    spread = cov.diagonal()
    assert ((end.mean(0) - mean).abs() <= 5 * (spread / count).sqrt() + 1e-12).all()
    error = ((spread[:, None] * spread + cov**2) / count).sqrt()
    assert ((end.T.cov() - cov).abs() <= 5 * error + 1e-12).all()


def test_many_resamplings_lead_to_the_conditional():
    """Of the Gaussian, exactly. The mean needs resamplings; the spread needs many strides as well,
    since DDPM's own step adds a little too little noise, again each time it is repeated."""
    mask = torch.tensor([True, False, False])
    gain = COV[1:, 0] / COV[0, 0]
    wanted = MU[1:] + gain * (GIVEN[0] - MU[0])
    spread = COV[1:, 1:] - gain[:, None] * COV[0, 1:]

    def errors(strides: int, resamplings: int) -> tuple[float, float]:
        mean, cov = law_of_replacement(evenly_spaced(1000, strides), mask, resamplings, True)
        return float((mean[1:] - wanted).abs().max()), float((cov[1:, 1:] - spread).abs().max())

    plain, some, many = errors(50, 1), errors(50, 8), errors(50, 40)
    assert plain[0] > 0.1 > 4 * some[0] > 12 * many[0]
    finer = errors(200, 40)
    assert many[1] > 2 * finer[1]
    assert max(finer) < 0.05


MEANS = torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=F64)
VARIANCE, PLACE = 0.4, -0.28


def exact_share() -> float:
    """P(second cluster given x_1 = PLACE), by Bayes' rule."""
    odds = math.exp(((PLACE + 1) ** 2 - (PLACE - 1) ** 2) / (2 * VARIANCE))
    return odds / (1 + odds)


def share_of(resamplings: int, strides: int, count: int) -> float:
    """The same by inpainting: the share of completions that lie at the second cluster.

    Of each completion the chance counts that it belongs there, by Bayes' rule, not a yes or no.
    """
    oracle = GaussianMixtureOracle(
        SCHEDULE, MEANS, torch.full((2,), VARIANCE, dtype=F64), torch.ones(2)
    )
    end = last(
        inpaint(
            oracle,
            SCHEDULE,
            normal(count, 2, seed=5),
            evenly_spaced(1000, strides),
            torch.full((count, 2), PLACE, dtype=F64),
            torch.tensor([True, False]),
            resamplings=resamplings,
            sampler=ddpm,
            generator=seeded(6),
        )
    )
    away = (end[:, None] - MEANS).square().sum(2)
    return float((-away / (2 * VARIANCE)).softmax(1)[:, 1].mean())


def test_replacement_is_biased_and_resampling_takes_the_bias_away():
    exact, count = exact_share(), 2000
    error = 5 * math.sqrt(exact * (1 - exact) / count)
    shares = [share_of(r, 25, count) for r in (1, 5, 40)]
    assert exact == pytest.approx(0.198, abs=0.001)
    assert shares[0] > exact + 0.1
    assert shares[0] - error > shares[1] > shares[2] + error / 2
    assert abs(shares[2] - exact) < error + 0.01


@each
def test_what_is_independent_of_the_known_part_is_drawn_exactly(sampler):
    """One Gaussian with independent coordinates: the free one keeps its own law."""
    count, v = 20_000, 0.25
    oracle = GaussianMixtureOracle(
        SCHEDULE,
        torch.tensor([[1.0, -0.5]], dtype=F64),
        torch.tensor([v], dtype=F64),
        torch.ones(1),
    )
    end = last(
        inpaint(
            oracle,
            SCHEDULE,
            normal(count, 2, seed=7),
            evenly_spaced(1000, 100),
            torch.full((count, 2), 2.0, dtype=F64),
            torch.tensor([True, False]),
            sampler=sampler,
            generator=seeded(8),
        )
    )
    assert (end[:, 0] == 2).all()
    assert abs(end[:, 1].mean() + 0.5) < 5 * math.sqrt(v / count) + 0.005
    assert abs(end[:, 1].var() / v - 1) < 5 * math.sqrt(2 / count) + 0.03


# --- linear constraints --------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_dps_is_the_walk_by_hand(scale: float):
    """On a Gaussian x0_hat = K x_t + c is linear, so the gradient of the norm is known:
    K' A' (A x0_hat - y) / norm. No autograd is used here."""
    A = torch.tensor([[1.0, 1.0, 0.0], [0.5, 0.0, -1.0]], dtype=F64)
    y, x = normal(7, 2, seed=1), normal(7, 3, seed=2)
    walk = evenly_spaced(1000, 12)
    steps = solve_linear(correlated, SCHEDULE, x, walk, y, lambda z: z @ A.T, scale=scale)
    for step, (t, s) in zip(steps, zip(walk[:-1], walk[1:], strict=True), strict=True):
        signal, noise = SCHEDULE.signal_rate[t], SCHEDULE.noise_rate[t]
        eye = torch.eye(3, dtype=F64)
        precision = torch.linalg.inv(signal**2 * COV + noise**2 * eye)
        eps_hat = noise * (x - signal * MU) @ precision
        x0_hat = (x - noise * eps_hat) / signal
        K = (eye - noise**2 * precision) / signal
        off = x0_hat @ A.T - y
        gradient = off @ A @ K / off.norm(dim=1, keepdim=True)
        x = SCHEDULE.signal_rate[s] * x0_hat + SCHEDULE.noise_rate[s] * eps_hat - scale * gradient
        assert_close(step.x_t, x, rtol=0, atol=1e-9)
        assert_close(step.x0_hat, x0_hat, rtol=0, atol=1e-9)


@each_sampler
def test_dps_corrects_the_state_that_a_step_began_in(name: str):
    """x_s less scale times the gradient at x_t, whatever the sampler: no second one for Heun."""
    sampler, model = sampler_of(name), network(SCHEDULE)
    x_T, y = normal(*IMAGES), half(normal(*IMAGES, seed=1))
    asked = []

    def counted(x_t: Tensor, t: Tensor) -> Tensor:
        asked.append(torch.is_grad_enabled())
        return model(x_t, t)

    walk = solve_linear(
        counted, SCHEDULE, x_T, WALK, y, half, scale=0.7, sampler=sampler, generator=seeded(1)
    )
    step = next(walk)
    plain = next(iter(sampler(model, SCHEDULE, x_T, WALK, generator=seeded(1))))
    x = x_T.clone().requires_grad_()
    t = torch.full((2,), WALK[0])
    off = (y - half(predict_x0(SCHEDULE, x, t, model(x, t)))).flatten(1)
    off.square().sum(1).sqrt().sum().backward()
    assert x.grad is not None
    assert_close(step.x_t, plain.x_t - 0.7 * x.grad, rtol=0, atol=1e-12)
    assert not step.x_t.requires_grad
    last(walk)
    assert len(asked) == 5 + (4 if QUESTIONS.get(name) else 0), "no more questions than a walk asks"
    assert sum(asked) == 5, "one gradient a step"


@each
def test_dps_brings_the_picture_to_what_was_measured(sampler):
    """For a mixture of images: the miss becomes a small part of what it is without."""
    means = normal(3, 1, 8, 8, seed=3) / 2
    oracle = GaussianMixtureOracle(SCHEDULE, means, torch.full((3,), 0.05), torch.ones(3))
    x0 = oracle.sample(20, seeded(4))
    y, x_T = half(x0), normal(20, 1, 8, 8, seed=5)

    def missed(scale: float) -> float:
        walk = evenly_spaced(1000, 50)
        options = {"scale": scale, "sampler": sampler, "generator": seeded(6)}
        end = last(solve_linear(oracle, SCHEDULE, x_T, walk, y, half, **options))
        return float((half(end) - y).square().mean().sqrt())

    assert missed(1.0) < 0.2 * missed(0.0)


@each_sampler
def test_a_consistent_model_ends_on_what_was_measured(name: str):
    model = network(SCHEDULE)
    y = half(normal(*IMAGES, seed=1)) / 2
    steps = sampler_of(name)(
        consistent(model, SCHEDULE, y, half, repeated),
        SCHEDULE,
        normal(*IMAGES),
        WALK,
        generator=seeded(1),
    )
    for step in steps:
        assert_close(half(step.x0_hat), y, rtol=0, atol=1e-9)
    assert_close(half(step.x_t), y, rtol=0, atol=1e-9)  # pyright: ignore


def test_a_consistent_model_keeps_what_a_does_not_see():
    model, x_t, t = network(SCHEDULE), normal(*IMAGES), torch.tensor([300, 300])
    y = half(normal(*IMAGES, seed=1))
    free = predict_x0(SCHEDULE, x_t, t, model(x_t, t))
    held = predict_x0(SCHEDULE, x_t, t, consistent(model, SCHEDULE, y, half, repeated)(x_t, t))
    assert_close(held - repeated(half(held)), free - repeated(half(free)), rtol=0, atol=1e-9)


# --- with guidance, and with a stream a sample ----------------------------------------------------


def ends(model: Callable, x: Tensor, noise: Callable[[], Any], sampler: Any) -> dict[str, Tensor]:
    """Where each way to edit ends, with new noise from ``noise`` for each."""
    known, mask = 0 * x + 0.5, torch.tensor([True, False])

    def A(z: Tensor) -> Tensor:
        return z.mean(-1, keepdim=True)

    def end(way: Callable[..., Any], *more: Any, **options: Any) -> Tensor:
        walk, asked = evenly_spaced(1000, 20), {"sampler": sampler, "generator": noise()}
        return last(way(model, SCHEDULE, x, walk, *more, **asked, **options))

    return {
        "edit": end(edit, 0.7),
        "inpaint": end(inpaint, known, mask),
        "resampled": end(inpaint, known, mask, resamplings=2),
        "solve_linear": end(solve_linear, A(known), A, scale=0.1),
    }


@each
def test_a_guided_model_is_just_a_model(sampler):
    world = LabeledMixture(
        SCHEDULE,
        torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=F64),
        torch.full((2,), 0.2),
        torch.ones(2),
        torch.tensor([0, 1]),
    )
    x = normal(30, 2)
    low, high = (
        ends(guide(world, torch.full((30,), label), 2.0, 2), x, lambda: seeded(1), sampler)
        for label in (0, 1)
    )
    for name in low:
        assert low[name][:, 1].mean() < high[name][:, 1].mean() - 0.3, name


@each
def test_a_sample_does_not_depend_on_its_neighbors(sampler):
    x = normal(6, 2)
    together = ends(simple, x, lambda: Streams(1, range(6)), sampler)
    alone = ends(simple, x[4:5], lambda: Streams(1, [4]), sampler)
    for name, end in together.items():
        assert_close(end[4:5], alone[name], rtol=1e-9, atol=1e-12)


# --- wrong arguments -----------------------------------------------------------------------------

X = normal(2, 1, 4, 4)
VALID: dict[Callable, dict[str, Any]] = {
    edit: {"model": simple, "schedule": SCHEDULE, "x0": X, "timesteps": WALK, "strength": 0.5},
    inpaint: {
        "model": simple,
        "schedule": SCHEDULE,
        "x_T": X,
        "timesteps": WALK,
        "known": X,
        "mask": torch.ones(1, 4, 4, dtype=torch.bool),
    },
    solve_linear: {
        "model": simple,
        "schedule": SCHEDULE,
        "x_T": X,
        "timesteps": WALK,
        "y": half(X),
        "A": half,
    },
    consistent: {"model": simple, "schedule": SCHEDULE, "y": half(X), "A": half, "back": repeated},
}


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("function", "wrong", "said"),
    [
        (edit, {"strength": 0}, "strength must leave a stride to take: at least 0.1 of 5"),
        (edit, {"strength": 0.09}, "strength must leave a stride"),
        (edit, {"strength": 1.01}, r"strength must be in \[0, 1\], got 1.01"),
        (edit, {"strength": math.nan}, "strength must be in"),
        (edit, {"x0": X.long()}, "x0 must hold floating-point numbers"),
        (edit, {"x0": X.bfloat16()}, "x0 must be float32 or float64"),
        (edit, {"timesteps": [0, 1000]}, "timesteps must fall strictly"),
        (edit, {"sampler": "ddim"}, "sampler must be a function"),
        (edit, {"sampler": ddim(simple, SCHEDULE, X, WALK)}, "sampler must be a"),
        (inpaint, {"mask": torch.ones(4, 4)}, "mask must be bool, True where known; got torch.fl"),
        (inpaint, {"mask": [True]}, "mask must be a bool tensor, True where known; got list"),
        (inpaint, {"mask": torch.ones(3, 4, dtype=torch.bool)}, "mask must have the shape of x_T"),
        (inpaint, {"mask": torch.ones(3, 1, 4, 4, dtype=torch.bool)}, "mask must have the shape"),
        (inpaint, {"mask": torch.ones(4, dtype=torch.bool)}, "mask must have the shape of x_T"),
        (inpaint, {"mask": torch.tensor(True)}, "mask must have the shape of x_T"),
        (inpaint, {"known": X[:1]}, "known must have the shape of x_T"),
        (inpaint, {"known": X * math.nan}, "known must be finite"),
        (inpaint, {"resamplings": 0}, "resamplings must be at least 1"),
        (inpaint, {"resamplings": 2.0}, "resamplings must be an int"),
        (inpaint, {"resamplings": 1001}, "resamplings must be at most 1000"),
        (solve_linear, {"y": X}, r"y must have the shape that A gives for x_T, \(2, 1, 2, 2\)"),
        (solve_linear, {"y": half(X)[:1]}, "y must have the shape that A gives"),
        (solve_linear, {"A": None}, "A must be a function"),
        (solve_linear, {"A": lambda x: half(x) + 1}, "A must be linear"),
        (solve_linear, {"A": lambda x: half(x).abs()}, "A must be linear"),
        (solve_linear, {"A": lambda x: half(x)[:1]}, "A must keep the batch, 2 samples"),
        (solve_linear, {"A": lambda x: x.numpy()}, "the answer of A must be a tensor"),
        (solve_linear, {"scale": -1}, "scale must be"),
        (solve_linear, {"scale": math.inf}, "scale must be"),
        (consistent, {"back": lambda y: repeated(y) / 4}, "back must be a right inverse of A"),
        (consistent, {"back": lambda y: repeated(y) ** 2}, "back must be linear"),
        (consistent, {"A": lambda x: x}, "A must bring back"),
        (consistent, {"y": half(X) * math.nan}, "y must be finite"),
    ],
)
def test_wrong_arguments_are_refused_before_the_walk(
    function: Callable, wrong: dict[str, Any], said: str
):
    with pytest.raises((ValueError, TypeError), match=said):
        function(**{**VALID[function], **wrong})


@pytest.mark.plain_errors
def test_a_model_without_gradients_is_named():
    def closed(x_t: Tensor, t: Tensor) -> Tensor:
        with torch.no_grad():
            return 0.1 * x_t

    arguments: dict[str, Any] = {**VALID[solve_linear], "model": closed}
    with pytest.raises(ValueError, match="model must let gradients pass"):
        last(solve_linear(**arguments))


@pytest.mark.plain_errors
def test_a_batch_of_another_size_is_named():
    model = consistent(**VALID[consistent])
    with pytest.raises(ValueError, match="A must answer with the shape of y"):
        model(X[:1], torch.tensor([5]))


@pytest.mark.plain_errors
def test_a_sampler_that_cannot_be_sent_states_is_named():
    def listed(*arguments: Any, **options: Any) -> Iterator[SampleStep]:
        return iter(list(ddim(*arguments, **options)))

    for function in (inpaint, solve_linear):
        with pytest.raises(TypeError, match="sampler must return a generator"):
            function(**VALID[function], sampler=listed)


def test_a_measured_match_is_no_division_by_zero():
    """Where A x0_hat is y already, the norm has no gradient; torch takes 0 there."""
    y = torch.zeros(2, 1)

    def model(x_t: Tensor, t: Tensor) -> Tensor:
        return x_t / SCHEDULE.noise_rate[t[0]].to(x_t)  # x0_hat is 0

    end = last(
        solve_linear(model, SCHEDULE, torch.randn(2, 3), WALK, y, lambda x: x.sum(1, keepdim=True))
    )
    assert end.isfinite().all()


def test_other_schedules_walk_as_well():
    short: NoiseSchedule = linear_schedule(20, 0.01, 0.3)
    x, every = normal(3, 2), list(range(20, -1, -1))
    end = last(inpaint(simple, short, x, every, 0 * x, torch.tensor([False, True])))
    assert (end[:, 1] == 0).all()
    assert end.isfinite().all()
