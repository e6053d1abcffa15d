"""The forward process against loops, against Bayes on a grid, and the chain against the jump."""

# pyright: reportArgumentType=false
# (half of this file passes what the annotations forbid)

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch.testing import assert_close

from tests.draws import normal, seeded
from tutorial_lib.forward import (
    at_steps,
    diffuse,
    diffuse_stepwise,
    posterior,
    predict_eps,
    predict_x0,
)
from tutorial_lib.schedules import cosine_schedule, from_betas, linear_schedule, quadratic_schedule

SCHEDULES = {
    "linear": linear_schedule(),
    "quadratic": quadratic_schedule(200),
    "cosine": cosine_schedule(),
    "harsh": linear_schedule(100, 0.3, 0.8),  # alpha_bar_T = 1e-36, hardly anything of x_0 left
    "one step": linear_schedule(1),
}
SHAPES = [(4,), (4, 2), (4, 3, 8, 8), (4, 2, 3, 2, 5)]

each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


# --- the jump ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@each_schedule
def test_the_jump_in_a_plain_loop_a_different_t_each(schedule, shape):
    """Ho et al. 2020, eq. 4, number by number, alpha_bar computed here from the betas."""
    x0, eps = normal(*shape, seed=1), normal(*shape, seed=2)
    T = schedule.num_steps
    t = torch.tensor([0, 1, (T + 1) // 2, T])
    x_t = diffuse(schedule, x0, t, eps)
    for b in range(len(t)):
        alpha_bar = math.prod((1 - schedule.beta[: t[b]]).tolist())
        pairs = zip(x0[b].flatten().tolist(), eps[b].flatten().tolist(), strict=True)
        expected = [math.sqrt(alpha_bar) * x + math.sqrt(1 - alpha_bar) * e for x, e in pairs]
        assert_close(
            x_t[b].flatten(), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12
        )


@each_schedule
def test_zero_noisings_give_the_data_back_bit_for_bit(schedule):
    x0, t = normal(5, 3, 4, 4, dtype=torch.float32), torch.zeros(5, dtype=torch.int64)
    assert torch.equal(diffuse(schedule, x0, t, normal(5, 3, 4, 4).float()), x0)
    assert torch.equal(diffuse_stepwise(schedule, x0, t, generator=seeded(0)), x0)


@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float32, 1e-6), (torch.bfloat16, 0.03), (torch.float16, 4e-3)]
)
@each_schedule
def test_lower_precision_is_close_and_keeps_its_dtype(schedule, dtype, atol):
    T = schedule.num_steps
    x0, eps = normal(4, 6, seed=1).to(dtype), normal(4, 6, seed=2).to(dtype)
    t = torch.tensor([0, 1, (T + 1) // 2, T])
    x_t = diffuse(schedule, x0, t, eps)
    assert x_t.dtype == dtype
    assert_close(x_t.double(), diffuse(schedule, x0.double(), t, eps.double()), rtol=0, atol=atol)
    # asked for its own noise, at steps where dividing by the rates is no catastrophe
    gentle = torch.tensor([0, 1, 1, min(T, 20)])
    x_t = diffuse(schedule, x0, gentle, eps)
    x0_hat = predict_x0(schedule, x_t, gentle, eps)
    assert x0_hat.dtype == dtype
    assert x0_hat.isfinite().all()


def test_the_result_has_the_dtype_of_the_data_whatever_the_noise_is():
    schedule, t = linear_schedule(10), torch.tensor([3, 5])
    x0, eps = normal(2, 4), normal(2, 4, seed=1)
    assert diffuse(schedule, x0.float(), t, eps).dtype == torch.float32
    assert diffuse(schedule, x0, t, eps.float()).dtype == torch.float64
    assert predict_x0(schedule, x0.float(), t, eps).dtype == torch.float32
    assert predict_eps(schedule, x0.bfloat16(), t, eps.float()).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_tiny_signal_is_not_rounded_to_zero_in_half_precision(dtype):
    """signal_rate = 1e-9 is 0 in float16; 0 / 0 would be NaN."""
    schedule = from_betas([1 - 1e-9, 1 - 1e-9])
    t = torch.tensor([2, 2])
    x_t = torch.zeros(2, 3, dtype=dtype)
    assert torch.equal(predict_x0(schedule, x_t, t, torch.zeros_like(x_t)), x_t)


def test_an_empty_batch_stays_empty():
    schedule, x0 = linear_schedule(10), torch.zeros(0, 3, 8, 8)
    t = torch.zeros(0, dtype=torch.int64)
    assert diffuse(schedule, x0, t, x0).shape == x0.shape
    assert diffuse_stepwise(schedule, x0, t).shape == x0.shape
    assert predict_x0(schedule, x0, t, x0).shape == x0.shape
    assert posterior(schedule, x0, x0, t)[0].shape == x0.shape


def test_gradients_flow_through_the_jump_and_back():
    schedule, t = linear_schedule(20, 1e-2, 0.3), torch.tensor([1, 20])
    x0, eps = normal(2, 3).requires_grad_(), normal(2, 3, seed=1).requires_grad_()
    for function in (diffuse, predict_x0, predict_eps):
        assert torch.autograd.gradcheck(
            lambda a, b, f=function: f(schedule, a, t, b), (x0, eps), raise_exception=True
        )


def test_at_steps_picks_and_shapes():
    values = torch.arange(5).double() / 7
    t = torch.tensor([4, 0, 2])
    picked = at_steps(values, t, torch.zeros(3, 2, 6, 6))
    assert picked.shape == (3, 1, 1, 1)
    assert picked.dtype == torch.float32
    assert_close(picked.flatten(), torch.tensor([4 / 7, 0, 2 / 7]), rtol=0, atol=1e-7)


# --- the jump solved for one of its parts ------------------------------------------------------

steps_and_seeds = st.tuples(st.floats(0, 1), st.integers(0, 2**31), st.sampled_from(SHAPES))


@given(st.sampled_from(list(SCHEDULES.values())), steps_and_seeds)
@settings(max_examples=150)
def test_predict_x0_undoes_the_jump(schedule, drawn):
    share, seed, shape = drawn
    t = torch.full((shape[0],), round(share * schedule.num_steps))
    x0, eps = normal(*shape, seed=seed), normal(*shape, seed=seed + 1)
    x0_hat = predict_x0(schedule, diffuse(schedule, x0, t, eps), t, eps)
    # rounding of x_t, about 1e-16 x 10, is divided by signal_rate
    atol = 1e-14 / schedule.signal_rate[t[0]].item()
    assert_close(x0_hat, x0, rtol=0, atol=atol)
    assert x0_hat.isfinite().all()


@given(st.sampled_from(list(SCHEDULES.values())), steps_and_seeds)
@settings(max_examples=150)
def test_predict_eps_undoes_the_jump(schedule, drawn):
    share, seed, shape = drawn
    t = torch.full((shape[0],), max(1, round(share * schedule.num_steps)))
    x0, eps = normal(*shape, seed=seed), normal(*shape, seed=seed + 1)
    eps_hat = predict_eps(schedule, diffuse(schedule, x0, t, eps), t, x0)
    atol = 1e-14 / schedule.noise_rate[t[0]].item()
    assert_close(eps_hat, eps, rtol=0, atol=atol)


@given(st.sampled_from(list(SCHEDULES.values())), steps_and_seeds, st.floats(-1e6, 1e6))
@settings(max_examples=100)
def test_finite_numbers_in_finite_numbers_out(schedule, drawn, scale):
    """In float32, at every t and for values far from those of data."""
    share, seed, shape = drawn
    t = torch.full((shape[0],), max(1, round(share * schedule.num_steps)))
    x, y = (scale * normal(*shape, seed=seed + i, dtype=torch.float32) for i in (0, 1))
    for function in (diffuse, predict_x0, predict_eps):
        assert function(schedule, x, t, y).isfinite().all(), function.__name__
    mean, variance = posterior(schedule, x, y, t)
    assert mean.isfinite().all()
    assert variance.isfinite().all()


@pytest.mark.parametrize("t", [1, 3])
def test_an_error_in_eps_grows_by_noise_over_signal(t):
    schedule = linear_schedule(3, 0.2, 0.9)
    steps = torch.full((2,), t)
    x_t, eps_hat = normal(2, 5), normal(2, 5, seed=1)
    moved = predict_x0(schedule, x_t, steps, eps_hat + 1)
    left = math.prod([0.8, 0.45, 0.1][:t])
    shift = -math.sqrt(1 - left) / math.sqrt(left)
    expected = torch.full((2, 5), shift, dtype=torch.float64)
    assert_close(moved - predict_x0(schedule, x_t, steps, eps_hat), expected)


def test_the_last_step_of_the_linear_schedule_makes_it_157_times_larger():
    schedule = linear_schedule()
    assert round((schedule.noise_rate[-1] / schedule.signal_rate[-1]).item()) == 157


# --- the chain ---------------------------------------------------------------------------------


def test_the_chain_in_a_plain_loop_noise_for_noise():
    """Ho et al. 2020, eq. 2, with the generator's noises and a t for each sample."""
    betas = [0.1, 0.2, 0.3, 0.4]
    x0, t = normal(5, 2, 3), torch.tensor([0, 1, 2, 3, 4])
    x_t = diffuse_stepwise(from_betas(betas), x0, t, generator=seeded(7))
    draws = seeded(7)
    z = [torch.randn(5, 2, 3, generator=draws, dtype=torch.float64) for _ in betas]
    for b in range(5):
        x = x0[b]
        for step in range(int(t[b])):
            x = math.sqrt(1 - betas[step]) * x + math.sqrt(betas[step]) * z[step][b]
        assert_close(x_t[b], x, rtol=1e-12, atol=1e-12)


def test_the_chain_does_not_touch_its_input():
    x0 = normal(3, 2)
    kept = x0.clone()
    diffuse_stepwise(linear_schedule(5), x0, torch.tensor([0, 3, 5]), generator=seeded(0))
    assert torch.equal(x0, kept)


COUNT = 40_000
STANDARD_ERRORS = 4.5  # a true statement fails 7 times in a million


@pytest.mark.parametrize("t", [1, 7, 30, 60])
def test_the_chain_has_the_mean_and_variance_of_the_jump(t):
    """Given x_0 both are Gaussian with mean sqrt(abar) x_0 and variance 1 - abar."""
    betas = [0.002 * (i + 1) for i in range(60)]
    alpha_bar = math.prod(1 - b for b in betas[:t])
    x0 = torch.full((COUNT, 1), 1.7, dtype=torch.float64)
    steps = torch.full((COUNT,), t)
    schedule = from_betas(betas)
    chain = diffuse_stepwise(schedule, x0, steps, generator=seeded(1))
    jump = diffuse(schedule, x0, steps, normal(COUNT, 1, seed=2))
    variance = 1 - alpha_bar
    for x_t in (chain, jump):
        mean_error = STANDARD_ERRORS * math.sqrt(variance / COUNT)
        assert abs(x_t.mean().item() - math.sqrt(alpha_bar) * 1.7) < mean_error
        variance_error = STANDARD_ERRORS * variance * math.sqrt(2 / COUNT)
        assert abs(x_t.var().item() - variance) < variance_error


def test_the_chain_keeps_its_variance_in_half_precision():
    """In bfloat16 arithmetic sqrt(1 - beta) x rounds back to x: the variance would only grow."""
    count = 4000
    x0 = normal(count, 1).bfloat16()
    t = torch.full((count,), 200)
    x_t = diffuse_stepwise(linear_schedule(200, 1e-3, 1e-3), x0, t, generator=seeded(1))
    assert x_t.dtype == torch.bfloat16
    error = STANDARD_ERRORS * math.sqrt(2 / count)
    assert abs(x_t.float().var().item() - 1) < error + 0.005  # and the rounding of the result


def ring(count: int, seed: int) -> torch.Tensor:
    """Points near a circle and a blob in it: far from Gaussian."""
    angle = torch.rand(count, generator=seeded(seed)) * 2 * math.pi
    points = torch.stack([angle.cos(), angle.sin()], 1)
    points[: count // 3] = 0.2
    return points


def energy_p_value(a: torch.Tensor, b: torch.Tensor, *, shuffles: int = 199) -> float:
    """Two-sample permutation test on the energy distance (Szekely & Rizzo 2004)."""
    both = torch.cat([a, b])
    distance = torch.cdist(both, both)
    n, generator = len(a), seeded(0)

    def energy(order: torch.Tensor) -> float:
        first, second = order[:n], order[n:]
        across = distance[first][:, second].mean()
        within = distance[first][:, first].mean() + distance[second][:, second].mean()
        return float(2 * across - within)

    seen = energy(torch.arange(2 * n))
    null = [energy(torch.randperm(2 * n, generator=generator)) for _ in range(shuffles)]
    return (1 + sum(other >= seen for other in null)) / (1 + shuffles)


@pytest.mark.parametrize("t", [3, 15, 40])
def test_chain_and_jump_are_one_distribution_by_a_two_sample_test(t):
    """Level 0.01; the test has the power to tell alpha from alpha_bar."""
    schedule, count = linear_schedule(40, 0.01, 0.1), 400
    steps = torch.full((count,), t)
    chain = diffuse_stepwise(schedule, ring(count, 1), steps, generator=seeded(2))
    eps = normal(count, 2, seed=3, dtype=torch.float32)
    assert energy_p_value(chain, diffuse(schedule, ring(count, 4), steps, eps)) > 0.01
    if t >= 15:  # before, the two are too near to each other for 400 points
        alpha = schedule.alpha[t - 1].item()  # the mistake that learners make most
        mistaken = math.sqrt(alpha) * ring(count, 4) + math.sqrt(1 - alpha) * eps
        assert energy_p_value(chain, mistaken) == 1 / 200


def test_chain_and_jump_agree_with_different_t_in_one_batch():
    """Kolmogorov-Smirnov for each t, level 1e-4 each."""
    schedule, each = linear_schedule(30, 0.01, 0.2), 5000
    ts = [1, 4, 12, 30]
    t = torch.tensor(ts).repeat_interleave(each)
    x0 = ring(len(t), 5)[torch.randperm(len(t), generator=seeded(8))]
    chain = diffuse_stepwise(schedule, x0, t, generator=seeded(6))
    jump = diffuse(schedule, x0, t, normal(len(t), 2, seed=7, dtype=torch.float32))
    critical = math.sqrt(-math.log(1e-4 / 2) / 2) * math.sqrt(2 / each)
    for i in range(len(ts)):
        rows = slice(i * each, (i + 1) * each)
        for axis in range(2):
            assert ks_distance(chain[rows, axis], jump[rows, axis]) < critical
    # the same distance sees a t that is taken for its neighbor
    assert ks_distance(chain[:each, 0], jump[each : 2 * each, 0]) > critical


def ks_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest gap between two empirical distribution functions."""
    at = torch.cat([a, b]).sort().values
    share_a = torch.searchsorted(a.sort().values, at, right=True) / len(a)
    share_b = torch.searchsorted(b.sort().values, at, right=True) / len(b)
    return (share_a - share_b).abs().max().item()


# --- the posterior -----------------------------------------------------------------------------


def bayes_on_a_grid(betas: list[float], x0: float, x_t: float, t: int) -> tuple[float, float]:
    """Mean and variance of x_{t-1}: prior times likelihood, added up over 40,001 points."""
    before = math.prod(1 - b for b in betas[: t - 1])
    grid = torch.linspace(-12, 12, 40_001, dtype=torch.float64)
    log_prior = -((grid - math.sqrt(before) * x0) ** 2) / (2 * (1 - before))
    log_likelihood = -((x_t - math.sqrt(1 - betas[t - 1]) * grid) ** 2) / (2 * betas[t - 1])
    share = (log_prior + log_likelihood).softmax(0)
    mean = (share * grid).sum()
    return mean.item(), (share * (grid - mean) ** 2).sum().item()


@pytest.mark.parametrize("betas", [[0.01 * (i + 1) for i in range(50)], [0.3, 0.1, 0.6, 0.02]])
def test_the_posterior_is_bayes_rule_on_a_grid(betas):
    ts = [2, 3, (len(betas) + 2) // 2, len(betas)]
    x0, x_t = torch.tensor([0.3, -1.0, 2.0, 0.0]), torch.tensor([-0.5, 0.9, 1.1, -2.0])
    x0, x_t = x0.double()[:, None], x_t.double()[:, None]
    mean, variance = posterior(from_betas(betas), x0, x_t, torch.tensor(ts))
    for b, t in enumerate(ts):
        expected = bayes_on_a_grid(betas, x0[b].item(), x_t[b].item(), t)
        assert_close(mean[b].item(), expected[0], rtol=0, atol=1e-9)
        assert_close(variance[b].item(), expected[1], rtol=0, atol=1e-9)


@each_schedule
def test_at_t_1_the_posterior_is_the_data_itself(schedule):
    x0, x_t = normal(3, 2, 4, 4), normal(3, 2, 4, 4, seed=1)
    mean, variance = posterior(schedule, x0, x_t, torch.ones(3, dtype=torch.int64))
    assert torch.equal(mean, x0)
    assert torch.equal(variance, torch.zeros(3, 1, 1, 1, dtype=torch.float64))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_posterior_has_one_variance_per_sample(shape):
    mean, variance = posterior(
        linear_schedule(9), normal(*shape), normal(*shape), torch.arange(4) + 1
    )
    assert mean.shape == shape
    assert variance.shape == (4, *[1] * (len(shape) - 1))


def test_a_posterior_draw_after_a_jump_is_a_jump_one_step_shorter():
    """q(x_{t-1}, x_t) = q(x_t) q(x_{t-1} given x_t): moments of x_{t-1}, 4.5 standard errors."""
    schedule, t = linear_schedule(20, 0.02, 0.3), 12
    x0, steps = torch.full((COUNT, 1), -0.8, dtype=torch.float64), torch.full((COUNT,), t)
    x_t = diffuse(schedule, x0, steps, normal(COUNT, 1, seed=1))
    mean, variance = posterior(schedule, x0, x_t, steps)
    x = mean + variance.sqrt() * normal(COUNT, 1, seed=2)
    betas = [0.02 + i * 0.28 / 19 for i in range(t - 1)]
    alpha_bar = math.prod(1 - b for b in betas)
    spread = 1 - alpha_bar
    assert abs(x.mean() + 0.8 * math.sqrt(alpha_bar)) < STANDARD_ERRORS * math.sqrt(spread / COUNT)
    assert abs(x.var() - spread) < STANDARD_ERRORS * spread * math.sqrt(2 / COUNT)


# --- randomness --------------------------------------------------------------------------------


def test_the_chain_takes_its_noise_from_the_generator_alone():
    schedule, x0 = linear_schedule(20), normal(4, 3)
    t = torch.tensor([1, 5, 10, 20])
    state = torch.get_rng_state()
    first = diffuse_stepwise(schedule, x0, t, generator=seeded(3))
    torch.rand(5)
    torch.set_rng_state(state)
    second = diffuse_stepwise(schedule, x0, t, generator=seeded(3))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first, diffuse_stepwise(schedule, x0, t, generator=seeded(4)))


def test_without_a_generator_torch_s_default_one_is_used():
    schedule, x0, t = linear_schedule(20), normal(4, 3), torch.tensor([1, 5, 10, 20])
    torch.manual_seed(11)
    first = diffuse_stepwise(schedule, x0, t)
    torch.manual_seed(11)
    assert torch.equal(first, diffuse_stepwise(schedule, x0, t))


# --- wrong arguments ---------------------------------------------------------------------------

S = linear_schedule(10)
X = torch.zeros(2, 3)
T_OK = torch.tensor([1, 10])
NAN = torch.full((2, 3), float("nan"))

BAD_T = [
    (torch.tensor([1, 11]), ValueError, r"t must be in [01]\.\.10, got 11"),
    (torch.tensor([-1, 5]), ValueError, r"t must be in [01]\.\.10, got -1"),
    (torch.tensor([1]), ValueError, r"t must have shape \(2,\)"),
    (torch.tensor([[1, 2]]), ValueError, r"t must have shape \(2,\).*got \(1, 2\)"),
    (torch.tensor(3), ValueError, r"t must have shape \(2,\).*got \(\)"),
    (torch.tensor([1.0, 2.0]), TypeError, "t must be int64, got torch.float32"),
    (torch.tensor([1, 2], dtype=torch.int32), TypeError, "t must be int64, got torch.int32"),
    (torch.tensor([True, False]), TypeError, "t must be int64, got torch.bool"),
    (5, TypeError, "t must be an int64 tensor.*got int 5"),
    ([1, 2], TypeError, "t must be an int64 tensor.*got list"),
    (None, TypeError, "t must be an int64 tensor"),
]

BAD_STATE = [
    (torch.zeros(2, 3, dtype=torch.int64), TypeError, "must hold floating-point.*torch.int64"),
    (torch.zeros(2, 3, dtype=torch.uint8), TypeError, "must hold floating-point.*torch.uint8"),
    (torch.zeros(2, 3, dtype=torch.complex64), TypeError, "must hold floating-point"),
    ([[0.0] * 3] * 2, TypeError, "must be a tensor, got list"),
    (None, TypeError, "must be a tensor, got NoneType"),
    (NAN, ValueError, "must be finite"),
    (torch.full((2, 3), float("inf")), ValueError, "must be finite"),
]
BAD_FIRST = [*BAD_STATE, (torch.tensor(1.0), ValueError, "must have a batch axis")]
BAD_SECOND = [
    *BAD_STATE,
    (torch.zeros(2, 1), ValueError, r"must have the shape of .*\(2, 3\); got \(2, 1\)"),
    (torch.zeros(3), ValueError, r"must have the shape of .*\(2, 3\); got \(3,\)"),
    (torch.zeros(1, 3), ValueError, r"must have the shape of"),
]

FUNCTIONS = {  # name: (call with a state, t and a second tensor; the names of the two tensors)
    "diffuse": (lambda x, t, y: diffuse(S, x, t, y), "x0", "eps"),
    "predict_x0": (lambda x, t, y: predict_x0(S, x, t, y), "x_t", "eps_hat"),
    "predict_eps": (lambda x, t, y: predict_eps(S, x, t, y), "x_t", "x0_hat"),
    "posterior": (lambda x, t, y: posterior(S, x, y, t), "x0", "x_t"),
}
each_function = pytest.mark.parametrize(
    ("call", "first", "second"), FUNCTIONS.values(), ids=FUNCTIONS
)


@pytest.mark.plain_errors
@pytest.mark.parametrize(("t", "error", "message"), BAD_T)
@each_function
def test_a_wrong_t_is_named(call, first, second, t, error, message):
    with pytest.raises(error, match=message):
        call(X, t, X)
    with pytest.raises(error, match=message):
        diffuse_stepwise(S, X, t)


@pytest.mark.plain_errors
@pytest.mark.parametrize(("x", "error", "message"), BAD_FIRST)
@each_function
def test_a_wrong_state_is_named(call, first, second, x, error, message):
    with pytest.raises(error, match=f"^{first} {message}"):
        call(x, T_OK, X)


@pytest.mark.plain_errors
@pytest.mark.parametrize(("x", "error", "message"), BAD_FIRST)
def test_a_wrong_start_of_the_chain_is_named(x, error, message):
    with pytest.raises(error, match=f"^x0 {message}"):
        diffuse_stepwise(S, x, T_OK)


@pytest.mark.plain_errors
@pytest.mark.parametrize(("y", "error", "message"), BAD_SECOND)
@each_function
def test_a_wrong_companion_is_named(call, first, second, y, error, message):
    with pytest.raises(error, match=f"^{second} {message}"):
        call(X, T_OK, y)


@pytest.mark.plain_errors
@pytest.mark.parametrize("call", [FUNCTIONS["predict_eps"][0], FUNCTIONS["posterior"][0]])
def test_noise_cannot_be_predicted_at_step_0(call):
    with pytest.raises(ValueError, match=r"t must be in 1\.\.10, got 0"):
        call(X, torch.tensor([0, 1]), X)


def test_large_but_finite_numbers_are_not_mistaken_for_infinity():
    """Their sum overflows; none of them is infinite."""
    x0 = torch.full((2, 3), 3e38)
    assert diffuse(S, x0, torch.zeros(2, dtype=torch.int64), X).isfinite().all()
