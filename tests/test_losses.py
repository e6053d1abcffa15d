"""The epsilon loss, its weights and its choices of t, against loops and the papers' formulas."""

# pyright: reportArgumentType=false
# (part of this file passes what the annotations forbid)

import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from tests.draws import normal, seeded
from tutorial_lib.flows import (
    denoiser_from_flow,
    flow_losses,
    logit_normal_times,
    times_of,
    uniform_times,
)
from tutorial_lib.forward import diffuse, predict_x0
from tutorial_lib.losses import (
    ImportanceSteps,
    NoisySteps,
    StratifiedSteps,
    TimeSteps,
    UniformSteps,
    epsilon_loss,
    epsilon_losses,
    min_snr_weight,
    p2_weight,
    v_weight,
    velocity_weight,
    x0_weight,
)
from tutorial_lib.oracles import GaussianMixtureOracle
from tutorial_lib.predictions import eps_from_v, eps_from_x0, velocity
from tutorial_lib.schedules import cosine_schedule, linear_schedule

F64 = torch.float64
LINEAR, COSINE = linear_schedule(), cosine_schedule(200)
BETAS = [1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)]


def alpha_bar(t: int) -> float:
    """Of the linear schedule, multiplied up here."""
    return math.prod(1 - beta for beta in BETAS[:t])


def denoiser(x_t, t):
    """A wrong but smooth model that listens to x_t and to t."""
    return torch.sin(2 * x_t) + (t / 1000).to(x_t).reshape(-1, *[1] * (x_t.ndim - 1))


# --- the loss ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 3), (5, 2, 4, 4)], ids=str)
def test_each_loss_in_a_plain_loop(shape):
    x0, eps, t = normal(*shape), normal(*shape, seed=1), torch.tensor([1, 2, 300, 999, 1000])
    losses = epsilon_losses(denoiser, LINEAR, x0, t, eps)
    for b in range(5):
        bar = alpha_bar(int(t[b]))
        errors = []
        for x, e in zip(x0[b].flatten().tolist(), eps[b].flatten().tolist(), strict=True):
            x_t = math.sqrt(bar) * x + math.sqrt(1 - bar) * e
            errors.append((math.sin(2 * x_t) + int(t[b]) / 1000 - e) ** 2)
        expected = math.fsum(errors) / len(errors)
        assert losses[b].item() == pytest.approx(expected, rel=1e-7)  # t / 1000 is float32


def test_the_loss_in_a_plain_loop_with_the_same_generator():
    """t is drawn first, then the noise: Ho et al. 2020, algorithm 1, lines 3 and 4."""
    x0 = normal(6, 2, 3, dtype=torch.float32)
    loss = epsilon_loss(denoiser, LINEAR, x0, generator=seeded(5))
    draws = seeded(5)
    t = torch.randint(1, 1001, (6,), generator=draws)
    eps = torch.randn(6, 2, 3, generator=draws)
    total = 0.0
    for b in range(6):
        bar = alpha_bar(int(t[b]))
        for i in range(2):
            for j in range(3):
                e = eps[b, i, j].item()
                x_t = math.sqrt(bar) * x0[b, i, j].item() + math.sqrt(1 - bar) * e
                total += (math.sin(2 * x_t) + int(t[b]) / 1000 - e) ** 2
    assert loss.shape == ()
    assert loss.item() == pytest.approx(total / 36, rel=1e-6)


def test_a_model_that_knows_the_noise_has_no_loss():
    x0, eps = normal(4, 3), normal(4, 3, seed=1)
    losses = epsilon_losses(lambda x, t: eps, LINEAR, x0, torch.tensor([1, 9, 99, 999]), eps)
    assert torch.equal(losses, torch.zeros(4, dtype=F64))


def test_a_model_that_says_zero_has_loss_one_and_the_best_model_has_less():
    x0 = torch.zeros(20_000, 1, dtype=F64)
    loss = epsilon_loss(lambda x, t: torch.zeros_like(x), LINEAR, x0, generator=seeded(1))
    assert abs(loss.item() - 1) < 4.5 * math.sqrt(2 / 20_000)
    oracle = GaussianMixtureOracle(LINEAR, torch.zeros(1, 1), torch.full((1,), 0.25), torch.ones(1))
    x0 = 0.5 * normal(20_000, 1, seed=2)
    best = epsilon_loss(oracle, LINEAR, x0, generator=seeded(1))
    # Var[eps given x_t] = alpha_bar v / (alpha_bar v + 1 - alpha_bar), averaged over t
    each = [alpha_bar(t) * 0.25 / (alpha_bar(t) * 0.25 + 1 - alpha_bar(t)) for t in range(1, 1001)]
    expected = math.fsum(each) / 1000
    # per-sample loss = variance(t) times a squared normal: its variance follows
    spread = math.fsum(3 * e * e for e in each) / 1000 - expected**2
    assert abs(best.item() - expected) < 4.5 * math.sqrt(spread / 20_000)


def test_the_gradient_is_that_of_the_mean_squared_error():
    w = torch.tensor(0.3, dtype=F64, requires_grad=True)
    x0 = normal(6, 3)
    epsilon_loss(lambda x, t: w * x, LINEAR, x0, generator=seeded(2)).backward()
    draws = seeded(2)
    t = torch.randint(1, 1001, (6,), generator=draws)
    eps = torch.randn(6, 3, generator=draws, dtype=F64)
    x_t = diffuse(LINEAR, x0, t, eps)
    by_hand = (2 * (0.3 * x_t - eps) * x_t).mean()
    assert w.grad is not None
    assert_close(w.grad, by_hand, rtol=1e-12, atol=0)


def test_a_model_may_answer_in_bfloat16():
    """As a network under autocast does; the difference is then taken in float32."""
    x0, eps, t = normal(3, 4).float(), normal(3, 4, seed=1).float(), torch.tensor([1, 10, 100])
    losses = epsilon_losses(lambda x, t: eps.bfloat16(), LINEAR, x0, t, eps)
    assert losses.dtype == torch.float32
    assert_close(losses, (eps.bfloat16().float() - eps).square().mean(1))
    assert losses.max() > 0


def test_the_loss_comes_from_the_generator_alone():
    x0 = normal(8, 3)
    state = torch.get_rng_state()
    for sampler in (None, UniformSteps(1000), StratifiedSteps(1000), ImportanceSteps(1000)):
        same = [
            epsilon_loss(denoiser, LINEAR, x0, generator=seeded(3), sampler=sampler)
            for _ in range(2)
        ]
        assert torch.equal(*same)
        other = epsilon_loss(denoiser, LINEAR, x0, generator=seeded(4), sampler=sampler)
        assert not torch.equal(same[0], other)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(8)
    first = epsilon_loss(denoiser, LINEAR, x0)
    torch.manual_seed(8)
    assert torch.equal(first, epsilon_loss(denoiser, LINEAR, x0))


NAN_MODELS = {
    "NaN": (lambda x, t: x * math.nan, ValueError, "the answer of model must be finite"),
    "infinity": (lambda x, t: x / 0, ValueError, "the answer of model must be finite"),
    "one NaN": (
        lambda x, t: torch.where(torch.arange(x.numel()).view_as(x) == 5, math.nan, x),
        ValueError,
        "the answer of model must be finite",
    ),
    "complex": (lambda x, t: x + 0j, TypeError, "model must answer with floating-point numbers"),
    "whole": (lambda x, t: x.long(), TypeError, "model must answer with floating-point numbers"),
    "true or false": (lambda x, t: x > 0, TypeError, "model must answer with floating-point num"),
    "sparse": (lambda x, t: x.to_sparse(), TypeError, "the answer of model must be dense"),
    "meta": (lambda x, t: x.to("meta"), TypeError, "the answer of model must hold numbers"),
}


@pytest.mark.plain_errors
@pytest.mark.parametrize("name", NAN_MODELS)
def test_a_loss_is_never_silently_wrong(name):
    model, error, message = NAN_MODELS[name]
    x0, eps, t = normal(4, 3), normal(4, 3, seed=1), torch.tensor([1, 9, 99, 999])
    with pytest.raises(error, match=message):
        epsilon_losses(model, LINEAR, x0, t, eps)
    with pytest.raises(error, match=message):
        epsilon_loss(model, LINEAR, x0)


@pytest.mark.plain_errors
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_is_named(value):
    weight = lambda schedule, t: torch.full((4,), value)  # noqa: E731
    with pytest.raises(ValueError, match="weight must be finite"):
        epsilon_loss(denoiser, LINEAR, normal(4, 3), weight=weight)


# --- weights -----------------------------------------------------------------------------------

T_MANY = torch.tensor([1, 2, 50, 400, 700, 999, 1000])


def test_v_weight_turns_the_eps_loss_into_the_loss_of_v():
    x0, eps, v_hat = (normal(7, 5, seed=s) for s in range(3))
    losses = epsilon_losses(eps_from_v(lambda x, t: v_hat, LINEAR), LINEAR, x0, T_MANY, eps)
    v_losses = (v_hat - velocity(LINEAR, x0, T_MANY, eps)).square().mean(1)
    assert_close(v_weight(LINEAR, T_MANY) * losses, v_losses, rtol=1e-9, atol=1e-12)


def test_x0_weight_turns_the_eps_loss_into_the_loss_of_x0():
    x0, eps, x0_hat = (normal(7, 5, seed=s) for s in range(3))
    losses = epsilon_losses(eps_from_x0(lambda x, t: x0_hat, LINEAR), LINEAR, x0, T_MANY, eps)
    expected = (x0_hat - x0).square().mean(1)
    assert_close(x0_weight(LINEAR, T_MANY) * losses, expected, rtol=1e-9, atol=1e-12)
    # and the other way round: an eps model judged by the x_0 that it implies
    eps_hat = normal(7, 5, seed=9)
    x_t = diffuse(LINEAR, x0, T_MANY, eps)
    x0_losses = (predict_x0(LINEAR, x_t, T_MANY, eps_hat) - x0).square().mean(1)
    losses = epsilon_losses(lambda x, t: eps_hat, LINEAR, x0, T_MANY, eps)
    assert_close(x0_weight(LINEAR, T_MANY) * losses, x0_losses, rtol=1e-8, atol=1e-10)


def test_velocity_weight_turns_the_eps_loss_into_the_loss_of_the_velocity():
    """Of a flow: eps - x_0, with the same model in other words."""
    x0, eps = normal(len(T_MANY), 5), normal(len(T_MANY), 5, seed=1)

    def flow(x, time):
        return (2 * x + time[:, None]).sin()

    eps_losses = epsilon_losses(denoiser_from_flow(flow, LINEAR), LINEAR, x0, T_MANY, eps)
    time = times_of(LINEAR)[T_MANY]
    expected = flow_losses(flow, x0, time, eps)
    assert_close(velocity_weight(LINEAR, T_MANY) * eps_losses, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gamma", [1.0, 5.0, 20])
def test_min_snr_weight_is_the_formula_of_hang_et_al(gamma):
    weight = min_snr_weight(LINEAR, T_MANY, gamma=gamma)
    for b, t in enumerate(T_MANY.tolist()):
        snr = alpha_bar(t) / (1 - alpha_bar(t))
        assert weight[b].item() == pytest.approx(min(snr, gamma) / snr, rel=1e-9)
    # sec. 3.4: for an x_0 model the weight is min(SNR, gamma); the eps loss carries 1 / SNR of it
    assert_close(weight / x0_weight(LINEAR, T_MANY), LINEAR.snr[T_MANY].clamp(max=gamma))


def test_min_snr_weight_takes_gamma_5_unless_told():
    assert torch.equal(min_snr_weight(LINEAR, T_MANY), min_snr_weight(LINEAR, T_MANY, gamma=5.0))


@pytest.mark.parametrize(("k", "gamma"), [(1.0, 1.0), (1.0, 0.5), (0.5, 2)])
def test_p2_weight_is_the_formula_of_choi_et_al(k, gamma):
    weight = p2_weight(LINEAR, T_MANY, k=k, gamma=gamma)
    for b, t in enumerate(T_MANY.tolist()):
        snr = alpha_bar(t) / (1 - alpha_bar(t))
        assert weight[b].item() == pytest.approx((k + snr) ** -gamma, rel=1e-9)


def test_p2_weight_with_k_1_and_gamma_1_is_one_minus_alpha_bar():
    expected = [1 - alpha_bar(t) for t in T_MANY.tolist()]
    assert_close(p2_weight(LINEAR, T_MANY), torch.tensor(expected, dtype=F64), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    "weight", [v_weight, x0_weight, velocity_weight, min_snr_weight, p2_weight]
)
@pytest.mark.parametrize("schedule", [LINEAR, COSINE, linear_schedule(2000, 0.01, 0.02)])
def test_weights_are_positive_and_finite_at_every_step(weight, schedule):
    w = weight(schedule, torch.arange(1, schedule.num_steps + 1))
    assert (w > 0).all()
    assert w.isfinite().all()
    assert w.dtype == F64


@pytest.mark.parametrize("weight", [v_weight, x0_weight, min_snr_weight, partial(p2_weight, k=0.5)])
def test_the_loss_is_the_mean_of_weight_times_error(weight):
    x0 = normal(6, 3)
    loss = epsilon_loss(denoiser, LINEAR, x0, generator=seeded(5), weight=weight)
    draws = seeded(5)
    t = torch.randint(1, 1001, (6,), generator=draws)
    losses = epsilon_losses(
        denoiser, LINEAR, x0, t, torch.randn(6, 3, generator=draws, dtype=F64)
    ).tolist()
    expected = sum(w * e for w, e in zip(weight(LINEAR, t).tolist(), losses, strict=True)) / 6
    assert loss.item() == pytest.approx(expected, rel=1e-12)


# --- which t -----------------------------------------------------------------------------------


def chi_square(t: torch.Tensor, p: torch.Tensor) -> float:
    """How many standard deviations the chi-square statistic lies above its mean (about normal)."""
    expected = len(t) * p
    seen = torch.bincount(t - 1, minlength=len(p))
    statistic = ((seen - expected) ** 2 / expected).sum().item()
    freedom = len(p) - 1
    return (statistic - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize("T", [1, 2, 10, 1000])
def test_uniform_steps_cover_all_steps_evenly(T):
    t, factor = UniformSteps(T).draw(200 * T, generator=seeded(1))
    assert t.dtype == torch.int64
    assert t.min() == 1
    assert t.max() == T
    assert torch.equal(factor, torch.ones(200 * T))
    if T > 1:
        assert abs(chi_square(t, torch.full((T,), 1 / T))) < 4.5


@pytest.mark.parametrize(
    ("T", "count"), [(1000, 64), (1000, 7), (10, 3), (5, 8), (1, 4), (1000, 1)]
)
def test_stratified_steps_fall_one_in_each_piece(T, count):
    sampler, generator = StratifiedSteps(T), seeded(2)
    for _ in range(50):
        t, factor = sampler.draw(count, generator=generator)
        assert t.dtype == torch.int64
        assert torch.equal(factor, torch.ones(count))
        for i, step in enumerate(t.tolist()):
            # piece i is (i T / count, (i + 1) T / count], and t - 1 < x <= t for some x in it
            assert i * T // count + 1 <= step <= -((i + 1) * T // -count), (i, step)


@pytest.mark.parametrize("T", [16, 1000])
def test_as_many_stratified_steps_as_there_are_draw_each_once(T):
    """Exact to the last draw, where float32 arithmetic would now and then take a neighbor."""
    sampler, generator = StratifiedSteps(T), seeded(3)
    for _ in range(300):
        t, _ = sampler.draw(T, generator=generator)
        assert torch.equal(t, torch.arange(1, T + 1))


@pytest.mark.parametrize(("T", "count"), [(10, 4), (100, 7), (6, 6), (7, 3)])
def test_stratified_steps_are_uniform_over_many_batches(T, count):
    """Chi-square, 4.5 standard deviations; stratified counts scatter less, never more."""
    sampler, generator = StratifiedSteps(T), seeded(4)
    t = torch.cat([sampler.draw(count, generator=generator)[0] for _ in range(4000)])
    assert t.min() == 1
    assert t.max() == T
    assert chi_square(t, torch.full((T,), 1 / T)) < 4.5
    # and each sample's own place is uniform within its piece: the middle one's mean
    middle = t.reshape(4000, count)[:, count // 2].double()
    piece = (count // 2 + 0.5) / count * T + 0.5
    assert abs(middle.mean() - piece) < 0.5


@pytest.mark.parametrize("schedule", [LINEAR, COSINE, linear_schedule(1)], ids=str)
def test_time_steps_are_the_nearest_to_the_times_drawn(schedule):
    times = times_of(schedule)
    sampler = TimeSteps(schedule, logit_normal_times)
    t, factor = sampler.draw(500, generator=seeded(5))
    drawn = logit_normal_times(500, generator=seeded(5)).double()
    nearest = (drawn[:, None] - times[1:]).abs().argmin(1) + 1
    assert t.dtype == torch.int64
    assert torch.equal(t, nearest)
    assert torch.equal(factor, torch.ones(500))
    assert not sampler.learns


def test_time_steps_have_the_density_of_the_times():
    """P_t is what uniform times put between the borders halfway to the neighbors of step t."""
    schedule = cosine_schedule(20)
    t, _ = TimeSteps(schedule, uniform_times).draw(20_000, generator=seeded(6))
    times = times_of(schedule)
    halfway = [float(times[k] + times[k + 1]) / 2 for k in range(1, 20)]
    p = torch.tensor([0.0, *halfway, 1.0], dtype=F64).diff()
    assert abs(chi_square(t, p)) < 4.5


def test_the_ends_of_time_are_steps_too():
    def ends(count, *, generator, device):
        return torch.tensor([0.0, 1.0])

    t, _ = TimeSteps(LINEAR, ends).draw(2)
    assert t.tolist() == [1, 1000]


@pytest.mark.parametrize("power", [1, 2, 16.0])
@pytest.mark.parametrize(("T", "count"), [(10, 4), (100, 7), (6, 6), (1000, 32)])
def test_noisy_steps_lean_to_the_noise(T, count, power):
    """P(t <= s) = (s / T)^power, which is t = T u^(1 / power); and u is spread within a batch."""
    sampler, generator = NoisySteps(T, power), seeded(4)
    drawn = [sampler.draw(count, generator=generator) for _ in range(1000)]
    t = torch.cat([steps for steps, _ in drawn])
    assert t.dtype == torch.int64
    assert t.min() >= 1
    assert t.max() == T
    reached = (torch.arange(T + 1, dtype=F64) / T) ** power
    assert chi_square(t, reached.diff()) < 4.5
    assert all(torch.equal(factor, torch.ones(count)) for _, factor in drawn)
    for steps, _ in drawn[:50]:
        for i, step in enumerate(steps.tolist()):
            # x = u^(1 / power) T for some u in [i / count, (i + 1) / count) and x in [t - 1, t)
            low, high = ((u / count) ** (1 / power) * T for u in (i, i + 1))
            assert low - 1 < step <= high + 1
    assert not sampler.learns


def test_stratified_losses_jump_about_less():
    """What it is for: the same mean, a smaller spread."""

    def losses(sampler) -> torch.Tensor:
        x0, generator = 0.5 * normal(64, 1, seed=1), seeded(6)
        one = [
            epsilon_loss(denoiser, LINEAR, x0, generator=generator, sampler=sampler)
            for _ in range(300)
        ]
        return torch.stack(one)

    uniform, stratified = losses(UniformSteps(1000)), losses(StratifiedSteps(1000))
    error = math.sqrt((uniform.var() + stratified.var()).item() / 300)
    assert abs(uniform.mean() - stratified.mean()) < 4.5 * error
    assert stratified.var() < uniform.var()


def filled(losses: list[list[float]], **options) -> ImportanceSteps:
    """An importance sampler that has seen ``losses[t - 1]`` at each t, oldest first."""
    sampler = ImportanceSteps(len(losses), history=len(losses[0]), **options)
    for t, seen in enumerate(losses, 1):
        sampler.update(torch.full((len(seen),), t), torch.tensor(seen, dtype=F64))
    return sampler


def test_importance_steps_are_uniform_until_each_has_its_ten():
    sampler, flat = ImportanceSteps(3), torch.full((3,), 1 / 3, dtype=F64)
    for t, n in [(1, 10), (2, 50), (3, 9)]:
        sampler.update(torch.full((n,), t), torch.full((n,), float(t)))
        assert_close(sampler.probabilities, flat)
        _, factor = sampler.draw(5, generator=seeded(0))
        assert_close(factor, torch.ones(5))
    sampler.update(torch.tensor([3]), torch.tensor([3.0]))
    expected = 0.999 * torch.tensor([1, 2, 3], dtype=F64) / 6 + 0.001 * flat
    assert_close(sampler.probabilities, expected)


def test_importance_steps_follow_the_root_of_the_mean_square():
    """Nichol & Dhariwal 2021, eq. 18, in a plain loop."""
    losses = [[0.1, 0.3, 0.2], [2.0, 0.0, 1.0], [0.5, 0.5, 0.5], [0.0, 0.0, 0.0]]
    for share in (0.0, 0.001, 0.3, 1.0):
        sampler = filled(losses, uniform_share=share)
        size = [math.sqrt(sum(x * x for x in seen) / 3) for seen in losses]
        expected = [(1 - share) * s / sum(size) + share / 4 for s in size]
        assert_close(sampler.probabilities, torch.tensor(expected, dtype=F64), rtol=1e-12, atol=0)


def test_importance_steps_remember_the_last_ten_only():
    sampler = ImportanceSteps(2, uniform_share=0.0)
    sampler.update(torch.ones(13, dtype=torch.int64), torch.arange(13.0))  # 3..12 stay
    sampler.update(torch.full((10,), 2), torch.ones(10))
    rms = math.sqrt(sum(x * x for x in range(3, 13)) / 10)
    expected = torch.tensor([rms / (rms + 1), 1 / (rms + 1)], dtype=F64)
    assert_close(sampler.probabilities, expected)


def test_importance_steps_are_drawn_with_their_probabilities():
    sampler = filled([[1.0], [5.0], [0.5], [3.0]])
    t, factor = sampler.draw(40_000, generator=seeded(1))
    p = sampler.probabilities
    assert chi_square(t, p) < 4.5
    assert_close(factor, (1 / (4 * p[t - 1])).float())


def test_the_correction_keeps_the_expected_loss_exactly():
    """The sum over t of p_t times factor_t times loss_t is the uniform mean of the losses."""
    true = torch.tensor([1.0, 5.0, 0.5, 3.0], dtype=F64)
    sampler = filled([[1.3], [4.0], [0.2], [9.0]])
    t, factor = sampler.draw(4000, generator=seeded(1))
    factor_of = dict(zip(t.tolist(), factor.tolist(), strict=True))
    assert set(factor_of) == {1, 2, 3, 4}
    p = sampler.probabilities.tolist()
    expected = sum(p[i] * factor_of[i + 1] * true[i].item() for i in range(4))
    assert expected == pytest.approx(true.mean().item(), rel=1e-6)


def test_the_loss_itself_is_unbiased_under_importance_steps():
    """The same mean as with uniform t, 4.5 standard errors of 1500 batches; and it learns."""
    schedule = linear_schedule(8, 0.05, 0.6)
    sampler, generator = ImportanceSteps(8), seeded(1)
    x0 = normal(16, 1, seed=3)

    def losses(sampler, count: int) -> torch.Tensor:
        return torch.stack(
            [
                epsilon_loss(denoiser, schedule, x0, generator=generator, sampler=sampler)
                for _ in range(count)
            ]
        )

    losses(sampler, 60)
    assert sampler.probabilities.max() > 1.2 * sampler.probabilities.min()
    uniform, important = losses(None, 1500), losses(sampler, 1500)
    error = math.sqrt((uniform.var() + important.var()).item() / 1500)
    assert abs(uniform.mean() - important.mean()) < 4.5 * error


def test_a_perfect_model_leaves_importance_steps_uniform():
    sampler = filled([[0.0], [0.0], [0.0]])
    assert_close(sampler.probabilities, torch.full((3,), 1 / 3, dtype=F64))
    assert sampler.draw(9, generator=seeded(0))[1].isfinite().all()


def test_a_step_without_loss_is_never_drawn_if_no_share_is_uniform():
    sampler = filled([[0.0], [1.0], [0.0]], uniform_share=0.0)
    t, factor = sampler.draw(5000, generator=seeded(0))
    assert (t == 2).all()
    assert_close(factor, torch.full((5000,), 1 / 3))


class Spy:
    """A sampler that draws given steps and records what it learns."""

    learns = True

    def __init__(self, t, factor):
        self.t, self.factor, self.learned = torch.tensor(t), torch.tensor(factor), []

    def draw(self, count, *, generator, device):
        return self.t, self.factor

    def update(self, t, losses):
        self.learned.append((t, losses))

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        raise AssertionError("a loss restores nothing")


def test_the_sampler_s_t_and_factors_are_used_and_it_learns_the_weighted_losses():
    x0, spy = normal(3, 4), Spy([1, 500, 1000], [0.5, 2.0, 1.0])
    w = torch.tensor(1.0, dtype=F64, requires_grad=True)
    loss = epsilon_loss(
        lambda x, t: w * denoiser(x, t),
        LINEAR,
        x0,
        generator=seeded(1),
        sampler=spy,
        weight=p2_weight,
    )
    eps = torch.randn(3, 4, generator=seeded(1), dtype=F64)
    plain = epsilon_losses(denoiser, LINEAR, x0, spy.t, eps)
    weighted = torch.tensor([1 - alpha_bar(t) for t in (1, 500, 1000)], dtype=F64) * plain
    assert_close(
        loss.detach(), (torch.tensor([0.5, 2.0, 1.0]) * weighted).mean(), rtol=1e-8, atol=0
    )
    ((t, losses),) = spy.learned
    assert torch.equal(t, spy.t)
    assert_close(losses, weighted, rtol=1e-8, atol=0)
    assert not losses.requires_grad


# --- wrong arguments ---------------------------------------------------------------------------

X = torch.zeros(2, 3)
T_OK = torch.tensor([1, 1000])
NAN = float("nan")


def zero(x, t):
    return torch.zeros_like(x)


def losses_of(x0=X, t=T_OK, eps=X, model=zero):
    return lambda: epsilon_losses(model, LINEAR, x0, t, eps)


def loss_of(x0=X, model=zero, **options):
    return lambda: epsilon_loss(model, LINEAR, x0, **options)


WRONG = [
    (losses_of(x0=X.long()), TypeError, "x0 must hold floating-point"),
    (losses_of(x0=None), TypeError, "x0 must be a tensor"),
    (losses_of(x0=torch.tensor(1.0)), ValueError, "x0 must have a batch axis"),
    (losses_of(x0=X * NAN), ValueError, "x0 must be finite"),
    (losses_of(eps=X[:, :1]), ValueError, "eps must have the shape of x0"),
    (losses_of(eps=X[:1]), ValueError, "eps must have the shape of x0"),
    (losses_of(eps=X / 0), ValueError, "eps must be finite"),
    (losses_of(t=torch.tensor([0, 1])), ValueError, r"t must be in 1\.\.1000, got 0"),
    (losses_of(t=torch.tensor([1, 1001])), ValueError, r"t must be in 1\.\.1000, got 1001"),
    (losses_of(t=torch.tensor([1])), ValueError, r"t must have shape \(2,\)"),
    (losses_of(t=torch.tensor([1.0, 2.0])), TypeError, "t must be int64"),
    (losses_of(t=7), TypeError, "t must be an int64 tensor"),
    (losses_of(model=lambda x, t: x[:, :1]), ValueError, r"model .*\(2, 3\); got \(2, 1\)"),
    (losses_of(model=lambda x, t: x.mean()), ValueError, "model must answer with the shape"),
    (losses_of(model=lambda x, t: None), TypeError, "model must answer with a tensor, got NoneT"),
    (losses_of(model=lambda x, t: (x,)), TypeError, "model must answer with a tensor, got tuple"),
    (loss_of(X[:0]), ValueError, "x0 must hold at least one sample"),
    (loss_of(X.byte()), TypeError, "x0 must hold floating-point"),
    (loss_of([1.0]), TypeError, "x0 must be a tensor"),
    (loss_of(torch.tensor(1.0)), ValueError, "x0 must have a batch axis"),
    (loss_of(X * NAN), ValueError, "x0 must be finite"),
    (loss_of(model=lambda x, t: x[:1]), ValueError, "model must answer with the shape"),
    (loss_of(weight=lambda s, t: torch.ones(2, 1)), ValueError, r"weight .*\(2,\).*got \(2, 1\)"),
    (loss_of(weight=lambda s, t: torch.tensor(1.0)), ValueError, "weight must have shape"),
    (loss_of(sampler=Spy([1, 2], [[1.0], [1.0]])), ValueError, r"sampler .*\(2,\).*got \(2, 1\)"),
    (loss_of(sampler=Spy([0, 2], [1.0, 1.0])), ValueError, r"t must be in 1\.\.1000, got 0"),
    (loss_of(sampler=UniformSteps(10_000), x0=torch.zeros(99, 1)), ValueError, "t must be in"),
    (lambda: v_weight(LINEAR, torch.tensor([0])), ValueError, r"t must be in 1\.\.1000, got 0"),
    (lambda: v_weight(LINEAR, torch.tensor([-1])), ValueError, "t must be in"),
    (lambda: x0_weight(LINEAR, torch.tensor([1001])), ValueError, "t must be in"),
    (lambda: x0_weight(LINEAR, 3), TypeError, "t must be an int64 tensor"),
    (lambda: x0_weight(LINEAR, torch.tensor(3)), ValueError, "t must have shape"),
    (lambda: p2_weight(LINEAR, torch.tensor([1.0])), TypeError, "t must be int64"),
    (lambda: p2_weight(LINEAR, T_OK, k=-1.0), ValueError, "k must be finite and at least 0"),
    (lambda: p2_weight(LINEAR, T_OK, gamma=NAN), ValueError, "gamma must be .*nan"),
    (lambda: p2_weight(LINEAR, T_OK, gamma=math.inf), ValueError, "gamma must be finite"),
    (lambda: p2_weight(LINEAR, T_OK, gamma="1"), TypeError, "gamma must be a number"),
    (lambda: min_snr_weight(LINEAR, T_OK, gamma=0.0), ValueError, "gamma must be above 0"),
    (lambda: min_snr_weight(LINEAR, T_OK, gamma=-1.0), ValueError, "gamma must be"),
    (lambda: min_snr_weight(LINEAR, T_OK, gamma=math.inf), ValueError, "gamma must be finite"),
    (lambda: min_snr_weight(LINEAR, torch.tensor([0])), ValueError, "t must be in"),
    (lambda: UniformSteps(0), ValueError, "num_steps must be at least 1"),
    (lambda: UniformSteps(1.0), TypeError, "num_steps must be an int"),
    (lambda: StratifiedSteps(-1), ValueError, "num_steps must be at least 1"),
    (lambda: StratifiedSteps(True), TypeError, "num_steps must be an int"),
    (lambda: ImportanceSteps(0), ValueError, "num_steps must be at least 1"),
    (lambda: ImportanceSteps(5, history=0), ValueError, "history must be at least 1"),
    (lambda: ImportanceSteps(5, uniform_share=1.5), ValueError, r"uniform_share must be in \[0, 1"),
    (lambda: ImportanceSteps(5, uniform_share=NAN), ValueError, "uniform_share"),
    (
        lambda: ImportanceSteps(5).update(torch.tensor([1]), torch.tensor([NAN])),
        ValueError,
        "losses must be finite",
    ),
    (
        lambda: ImportanceSteps(5).update(torch.tensor([6]), torch.tensor([1.0])),
        ValueError,
        r"t must be in 1\.\.5, got 6",
    ),
    (
        lambda: ImportanceSteps(5).update(torch.tensor([0]), torch.tensor([1.0])),
        ValueError,
        r"t must be in 1\.\.5, got 0",
    ),
    (
        lambda: ImportanceSteps(5).update(torch.tensor([1, 2]), torch.tensor([1.0])),
        ValueError,
        r"t must have shape \(1,\)",
    ),
]


@pytest.mark.plain_errors
@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
