"""The exact noise predictors against numerical derivatives, brute force and closed forms."""

# pyright: reportArgumentType=false
# (part of this file passes what the annotations forbid)

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch.testing import assert_close

from tests.draws import normal, seeded
from tutorial_lib.forward import diffuse
from tutorial_lib.oracles import DatasetOracle, GaussianMixtureOracle
from tutorial_lib.samplers import ddim, ddpm, evenly_spaced, last
from tutorial_lib.schedules import cosine_schedule, linear_schedule

F64 = torch.float64
LINEAR = linear_schedule()


MEANS = torch.tensor([[2.0, 0.0], [-1.0, 1.5], [-1.0, -2.0]], dtype=F64)
VARIANCES = torch.tensor([0.04, 0.16, 0.09], dtype=F64)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=F64)


def mixture(schedule=LINEAR) -> GaussianMixtureOracle:
    return GaussianMixtureOracle(schedule, MEANS, VARIANCES, WEIGHTS)


def log_density_by_hand(x: torch.Tensor, alpha_bar: float) -> torch.Tensor:
    """log q(x_t) of the noised mixture, as torch.distributions knows it."""
    D = torch.distributions
    scale = (alpha_bar * VARIANCES + 1 - alpha_bar).sqrt()[:, None].expand(3, 2)
    parts = D.Independent(D.Normal(math.sqrt(alpha_bar) * MEANS, scale), 1)
    return D.MixtureSameFamily(D.Categorical(WEIGHTS), parts).log_prob(x)


# --- the Gaussian mixture ----------------------------------------------------------------------

STEPS = [1, 2, 10, 100, 500, 999, 1000]


@pytest.mark.parametrize("t", STEPS)
def test_log_density_is_that_of_torch_distributions(t):
    x = 2 * normal(50, 2)
    alpha_bar = LINEAR.alpha_bar[t].item()
    log_density = mixture().log_density(x, torch.full((50,), t))
    assert_close(log_density, log_density_by_hand(x, alpha_bar), rtol=1e-11, atol=1e-11)


def test_the_density_integrates_to_one():
    grid = torch.linspace(-8, 8, 801, dtype=F64)
    x = torch.cartesian_prod(grid, grid)
    for t in (1, 300, 1000):
        density = mixture().log_density(x, torch.full((len(x),), t)).exp()
        assert_close(density.sum().item() * 0.02**2, 1.0, rtol=0, atol=1e-9)


@pytest.mark.parametrize("t", STEPS)
def test_eps_is_the_slope_of_the_log_density_by_central_differences(t):
    """eps = -sqrt(1 - alpha_bar) grad log q; the differences err by about 1e-9 here."""
    alpha_bar, h = LINEAR.alpha_bar[t].item(), 1e-5
    x = 1.5 * normal(40, 2)
    slope = torch.stack(
        [
            (log_density_by_hand(x + h * e, alpha_bar) - log_density_by_hand(x - h * e, alpha_bar))
            / (2 * h)
            for e in torch.eye(2, dtype=F64)
        ],
        1,
    )
    expected = -math.sqrt(1 - alpha_bar) * slope
    assert_close(mixture()(x, torch.full((40,), t)), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("t", STEPS)
def test_eps_is_the_slope_of_the_log_density_by_autograd(t):
    alpha_bar = LINEAR.alpha_bar[t].item()
    x = (2 * normal(40, 2, seed=1)).requires_grad_()
    (slope,) = torch.autograd.grad(log_density_by_hand(x, alpha_bar).sum(), x)
    expected = -math.sqrt(1 - alpha_bar) * slope
    assert_close(mixture()(x.detach(), torch.full((40,), t)), expected, rtol=1e-10, atol=1e-12)


def test_eps_is_the_mean_of_the_noises_that_lead_to_x_t():
    """E[eps given x_t] by drawing: noised samples that land near a point, 5 standard errors."""
    schedule, t, count = linear_schedule(20, 0.02, 0.3), 8, 2_000_000
    means = torch.tensor([[1.0], [-1.0]], dtype=F64)
    oracle = GaussianMixtureOracle(
        schedule, means, torch.tensor([0.1, 0.2], dtype=F64), torch.tensor([0.7, 0.3], dtype=F64)
    )
    eps = normal(count, 1, seed=2)
    x_t = diffuse(schedule, oracle.sample(count, seeded(1)), torch.full((count,), t), eps)
    for place in (-0.7, 0.0, 0.5):
        near = (x_t - place).abs().flatten() < 0.005
        here = eps[near]
        expected = oracle(torch.tensor([[place]], dtype=F64), torch.tensor([t])).item()
        error = 5 * here.std().item() / math.sqrt(len(here)) + 0.005  # and the width of the window
        assert abs(here.mean().item() - expected) < error


def test_a_different_t_for_each_sample_is_one_call_each():
    oracle, x = mixture(), 2 * normal(7, 2)
    t = torch.tensor(STEPS)
    together = oracle(x, t)
    for b in range(7):
        assert_close(together[b : b + 1], oracle(x[b : b + 1], t[b : b + 1]), rtol=0, atol=1e-14)
    densities = oracle.log_density(x, t)
    for b in range(7):
        alone = oracle.log_density(x[b : b + 1], t[b : b + 1])
        assert_close(densities[b : b + 1], alone, rtol=0, atol=1e-12)


def test_images_are_treated_as_flat_points():
    means = normal(2, 3, 4, 4)
    variances, weights = torch.tensor([0.1, 0.3], dtype=F64), torch.tensor([1.0, 3.0], dtype=F64)
    images = GaussianMixtureOracle(LINEAR, means, variances, weights)
    points = GaussianMixtureOracle(LINEAR, means.flatten(1), variances, weights)
    x, t = normal(5, 3, 4, 4, seed=1), torch.tensor([1, 50, 500, 900, 1000])
    assert images(x, t).shape == x.shape
    assert torch.equal(images(x, t).flatten(1), points(x.flatten(1), t))
    assert images.sample(6, seeded(0)).shape == (6, 3, 4, 4)


def test_weights_are_normalized():
    x, t = normal(4, 2), torch.tensor([1, 10, 100, 1000])
    scaled = GaussianMixtureOracle(LINEAR, MEANS, VARIANCES, 8 * WEIGHTS)
    assert_close(scaled.weights, WEIGHTS, rtol=1e-14, atol=0)
    assert_close(scaled(x, t), mixture()(x, t), rtol=1e-12, atol=1e-12)


def test_a_component_may_be_a_point():
    """Then it is the finite-data oracle, which is written another way."""
    points = GaussianMixtureOracle(LINEAR, MEANS, torch.zeros(3), torch.ones(3))
    data = DatasetOracle(LINEAR, MEANS)
    x, t = normal(4, 2), torch.tensor([1, 10, 100, 1000])
    assert_close(points(x, t), data(x, t), rtol=1e-9, atol=1e-9)


def test_answers_have_the_dtype_of_x_t_and_are_computed_in_float64():
    oracle, x, t = mixture(), normal(4, 2), torch.tensor([1, 10, 100, 1000])
    exact = oracle(x.float().double(), t)
    assert oracle(x.float(), t).dtype == torch.float32
    assert torch.equal(oracle(x.float(), t), exact.float())
    assert oracle(x.bfloat16(), t).dtype == torch.bfloat16
    assert oracle.log_density(x.float(), t).dtype == torch.float32


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.integers(1, 1000))
@settings(max_examples=100)
def test_it_stays_finite_far_from_the_data(a, b, t):
    x, steps = torch.tensor([[a, b]], dtype=F64), torch.tensor([t])
    for oracle in (mixture(), DatasetOracle(LINEAR, MEANS)):
        assert oracle(x, steps).isfinite().all()
        assert oracle(x.float(), steps).isfinite().all()
    assert mixture().log_density(x, steps).isfinite().all()


def test_it_samples_the_mixture_within_statistical_error():
    count = 60_000
    check_moments(mixture().sample(count, seeded(3)))


def check_moments(x: torch.Tensor, *, bias: float = 0.0) -> None:
    """Weights, means and covariances of the three components, each within 4.5 standard errors.

    ``bias`` is what may be off besides, relative to a component's standard deviation.
    """
    count = len(x)
    component = torch.cdist(x, MEANS).argmin(1)  # they lie 9 standard deviations apart
    for k in range(3):
        mine, w, v = x[component == k], WEIGHTS[k].item(), VARIANCES[k].item()
        n = len(mine)
        assert abs(n / count - w) < 4.5 * math.sqrt(w * (1 - w) / count) + bias
        mean_error = 4.5 * math.sqrt(v / n) + bias * math.sqrt(v)
        assert_close(mine.mean(0), MEANS[k], rtol=0, atol=mean_error)
        covariance_error = v * (4.5 * math.sqrt(2 / n) + 2 * bias)
        assert_close(mine.T.cov(), v * torch.eye(2, dtype=F64), rtol=0, atol=covariance_error)


def test_rare_components_are_drawn_too():
    weights = torch.tensor([0.001, 0.999], dtype=F64)
    means = torch.tensor([[5.0], [0.0]], dtype=F64)
    x = GaussianMixtureOracle(LINEAR, means, torch.zeros(2), weights).sample(100_000, seeded(0))
    share = (x == 5).double().mean().item()
    assert abs(share - 0.001) < 4.5 * math.sqrt(0.001 / 100_000)


def test_samples_come_from_the_generator_alone():
    state = torch.get_rng_state()
    first = mixture().sample(50, seeded(1))
    assert torch.equal(first, mixture().sample(50, seeded(1)))
    assert not torch.equal(first, mixture().sample(50, seeded(2)))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.dtype == F64
    assert mixture().sample(1, seeded(1)).shape == (1, 2)


# --- samplers driven by the mixture ------------------------------------------------------------

FINE = linear_schedule(3200, 1e-4 / 3.2, 0.02 / 3.2)  # 3200 steps of the usual noise
COUNTS = [25, 50, 100, 200, 400, 800]


def order(counts: list[int], errors: list[float]) -> float:
    """Minus the slope of log error over log count, least squares."""
    x = torch.tensor(counts, dtype=F64).log()
    y = torch.tensor(errors, dtype=F64).log()
    x, y = x - x.mean(), y - y.mean()
    return -(x @ y / (x @ x)).item()


def walk(oracle, x_T: torch.Tensor, count: int) -> torch.Tensor:
    return last(ddim(oracle, FINE, x_T, evenly_spaced(3200, count)))


def test_ddim_converges_with_order_1_to_the_closed_form_for_one_gaussian():
    """The flow scales what is left after the mean by the ratio of standard deviations."""
    mean, variance = torch.tensor([[0.7, -0.4]], dtype=F64), 0.25
    one = GaussianMixtureOracle(FINE, mean, torch.tensor([variance]).double(), torch.ones(1))
    x_T = normal(32, 2)
    alpha_bar = FINE.alpha_bar[-1].item()
    scale = math.sqrt(variance / (alpha_bar * variance + 1 - alpha_bar))
    exact = mean + scale * (x_T - math.sqrt(alpha_bar) * mean)
    errors = [(walk(one, x_T, count) - exact).abs().max().item() for count in COUNTS]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01
    assert order(COUNTS, errors) == pytest.approx(1, abs=0.1)


def flow_by_runge_kutta(x_T: torch.Tensor, alpha_bar: float, steps: int = 4000) -> torch.Tensor:
    """The same flow in y = x / signal over s = noise / signal, where dy/ds = eps (Song et al. 2021,
    eq. 14), with eps of the mixture written out anew, by classical Runge-Kutta in s = r^3."""

    def slope(y: torch.Tensor, r: float) -> torch.Tensor:
        s = r**3
        variance = VARIANCES + s * s
        away = y[:, None] - MEANS
        log_share = WEIGHTS.log() - variance.log() - away.square().sum(2) / (2 * variance)
        share = log_share.softmax(1)
        return 3 * r * r * s * (share[:, :, None] * away / variance[:, None]).sum(1)

    y = x_T / math.sqrt(alpha_bar)
    r = ((1 - alpha_bar) / alpha_bar) ** (1 / 6)
    h = -r / steps
    for i in range(steps):
        here = r + i * h
        k1 = slope(y, here)
        k2 = slope(y + h / 2 * k1, here + h / 2)
        k3 = slope(y + h / 2 * k2, here + h / 2)
        k4 = slope(y + h * k3, here + h)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return y


def test_ddim_converges_with_order_1_to_the_flow_of_the_mixture():
    x_T = normal(32, 2, seed=4)
    alpha_bar = FINE.alpha_bar[-1].item()
    exact = flow_by_runge_kutta(x_T, alpha_bar)
    assert_close(exact, flow_by_runge_kutta(x_T, alpha_bar, 2000), rtol=0, atol=1e-6)
    oracle = mixture(FINE)
    # the mean over the batch: the largest error belongs to whoever starts nearest to a watershed
    errors = [(walk(oracle, x_T, count) - exact).norm(dim=1).mean().item() for count in COUNTS]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 5e-3
    assert order(COUNTS[2:], errors[2:]) == pytest.approx(1, abs=0.15)


def test_ddim_turns_noise_into_the_mixture():
    count = 20_000
    x_0 = last(ddim(mixture(), LINEAR, normal(count, 2, seed=5), evenly_spaced(1000, 200)))
    check_moments(x_0, bias=0.05)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_ddpm_reproduces_weights_means_and_covariances(variance):
    """4.5 standard errors of 4,000 samples, and 2 % of a standard deviation for the step size."""
    walk = ddpm(mixture(), LINEAR, normal(4000, 2, seed=6), variance=variance, generator=seeded(7))
    check_moments(last(walk), bias=0.02)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
@pytest.mark.parametrize("steps", [5, 30])
def test_few_steps_of_ddpm_have_the_variance_of_a_linear_recursion(steps, variance):
    """For one Gaussian every step is linear: the mean and variance of x_0 follow without drawing.

    Few steps are far from the data's variance, and the two choices far from each other; the
    sampler must be wrong by exactly that much. 4.5 standard errors.
    """
    schedule = linear_schedule(steps, 0.02, 0.5)
    mean, spread, count = 0.8, 0.3, 40_000
    oracle = GaussianMixtureOracle(
        schedule, torch.tensor([[mean]]).double(), torch.tensor([spread]), torch.ones(1)
    )
    m, v, bar = 0.0, 1.0, [1.0]  # x_T is standard normal
    betas = [0.02 + 0.48 * i / (steps - 1) for i in range(steps)]
    for beta in betas:
        bar.append(bar[-1] * (1 - beta))
    for t in range(steps, 0, -1):
        beta = betas[t - 1]
        total = bar[t] * spread + 1 - bar[t]
        # eps = sqrt(1 - bar) (x - sqrt(bar) mean) / total, so x_{t-1} = a x + b + sigma z
        a = (1 - beta / total) / math.sqrt(1 - beta)
        b = beta / total * math.sqrt(bar[t]) * mean / math.sqrt(1 - beta)
        sigma2 = beta if variance == "beta" else beta * (1 - bar[t - 1]) / (1 - bar[t])
        m, v = a * m + b, a * a * v + (sigma2 if t > 1 else 0.0)
    x_0 = last(
        ddpm(oracle, schedule, normal(count, 1, seed=8), variance=variance, generator=seeded(9))
    )
    assert abs(x_0.mean().item() - m) < 4.5 * math.sqrt(v / count)
    assert abs(x_0.var().item() - v) < 4.5 * v * math.sqrt(2 / count)
    if steps == 5:
        assert abs(v - spread) > 0.03  # else the test would not tell the two apart


# --- the finite data set -----------------------------------------------------------------------


def eps_by_brute_force(data: list, x: list, alpha_bar: float) -> list[float]:
    """E[eps given x] one member at a time in plain Python, logits shifted by their maximum."""
    signal = math.sqrt(alpha_bar)
    logits = [
        -sum((a - signal * b) ** 2 for a, b in zip(x, member, strict=True)) / (2 * (1 - alpha_bar))
        for member in data
    ]
    shares = [math.exp(logit - max(logits)) for logit in logits]
    total = math.fsum(shares)
    eps = []
    for axis, value in enumerate(x):
        mean = math.fsum(s * m[axis] for s, m in zip(shares, data, strict=True)) / total
        eps.append((value - signal * mean) / math.sqrt(1 - alpha_bar))
    return eps


@pytest.mark.parametrize("schedule", [LINEAR, cosine_schedule(30)], ids=["linear", "cosine"])
@pytest.mark.parametrize("shape", [(2,), (1, 3, 3), (3, 2, 2)], ids=str)
@pytest.mark.parametrize("chunk_size", [1, 4, 10, 4096])
def test_eps_for_a_finite_set_is_the_brute_force_mean(schedule, shape, chunk_size):
    T, data = schedule.num_steps, normal(11, *shape)
    t = torch.tensor([1, 2, T // 3, T // 2, T - 1, T])
    x_t = diffuse(schedule, data[:6], t, normal(6, *shape, seed=1))
    oracle = DatasetOracle(schedule, data, chunk_size=chunk_size)
    eps = oracle(x_t, t)
    mean = oracle.posterior_mean(x_t, t)
    assert eps.shape == mean.shape == x_t.shape
    for b in range(6):
        alpha_bar = schedule.alpha_bar[t[b]].item()
        members = data.flatten(1).tolist()
        expected = torch.tensor(
            eps_by_brute_force(members, x_t[b].flatten().tolist(), alpha_bar), dtype=F64
        )
        assert_close(eps[b].flatten(), expected, rtol=1e-9, atol=1e-9)
        x0_hat = (x_t[b].flatten() - math.sqrt(1 - alpha_bar) * expected) / math.sqrt(alpha_bar)
        assert_close(mean[b].flatten(), x0_hat, rtol=0, atol=1e-9 / math.sqrt(alpha_bar))


def test_the_weights_of_members_follow_bayes_rule():
    data, t = normal(5, 2), torch.tensor([200, 700])
    x_t = normal(2, 2, seed=1)
    shares = DatasetOracle(LINEAR, data, chunk_size=2).weights(x_t, t)
    assert shares.shape == (2, 5)
    for b in range(2):
        bar = LINEAR.alpha_bar[t[b]].item()
        normal_at = torch.distributions.Normal(x_t[b], math.sqrt(1 - bar))
        likelihood = normal_at.log_prob(math.sqrt(bar) * data).sum(1).exp()
        assert_close(shares[b], likelihood / likelihood.sum(), rtol=1e-10, atol=1e-12)


def test_near_the_end_of_a_walk_only_the_nearest_member_counts():
    data = normal(20, 3)
    x_t = data + 1e-4
    eps = DatasetOracle(LINEAR, data)(x_t, torch.ones(20, dtype=torch.int64))
    signal, noise = LINEAR.signal_rate[1], LINEAR.noise_rate[1]
    assert_close(eps, (x_t - signal * data) / noise, rtol=0, atol=1e-10)


def test_where_nearly_all_is_noise_every_member_counts_the_same():
    data = normal(20, 3)
    mean = DatasetOracle(LINEAR, data).posterior_mean(
        torch.zeros(1, 3).double(), torch.tensor([1000])
    )
    assert_close(mean[0], data.mean(0), rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(2,), (1, 4, 4)], ids=str)
@pytest.mark.parametrize("sampler", ["ddim", "ddim with noise", "ddpm"])
def test_a_walk_ends_on_members_of_the_set(sampler, shape):
    data = normal(12, *shape)
    oracle, x_T = DatasetOracle(LINEAR, data), normal(40, *shape, seed=1)
    if sampler == "ddpm":
        x_0 = last(ddpm(oracle, LINEAR, x_T, generator=seeded(2)))
    else:
        eta = 0.7 if sampler == "ddim with noise" else 0.0
        timesteps = evenly_spaced(1000, 100)
        x_0 = last(ddim(oracle, LINEAR, x_T, timesteps, eta=eta, generator=seeded(2)))
    distance, member = torch.cdist(x_0.flatten(1), data.flatten(1)).min(1)
    assert distance.max() < 0.02
    assert len(member.unique()) > 3


def test_data_may_be_float32_or_less_and_the_answer_has_the_dtype_of_x_t():
    data = normal(9, 2, 3, 3).float()
    x, t = normal(2, 2, 3, 3, seed=1).float(), torch.tensor([1, 900])
    answer = DatasetOracle(LINEAR, data)(x, t)
    assert answer.dtype == torch.float32
    assert torch.equal(answer, DatasetOracle(LINEAR, data.double())(x.double(), t).float())
    assert DatasetOracle(LINEAR, data.half())(x.double(), t).dtype == F64


def test_oracles_answer_an_empty_batch():
    none = torch.zeros(0, 2)
    t = torch.zeros(0, dtype=torch.int64)
    assert mixture()(none, t).shape == (0, 2)
    assert mixture().log_density(none, t).shape == (0,)
    assert DatasetOracle(LINEAR, MEANS)(none, t).shape == (0, 2)


# --- wrong arguments ---------------------------------------------------------------------------

M, V, W = MEANS, VARIANCES, WEIGHTS
NAN = float("nan")
WRONG = [
    (lambda: GaussianMixtureOracle(LINEAR, M.tolist(), V, W), TypeError, "means must be a tensor"),
    (lambda: GaussianMixtureOracle(LINEAR, M.long(), V, W), TypeError, "means must hold floating"),
    (lambda: GaussianMixtureOracle(LINEAR, M[0], V, W), ValueError, r"means must have shape \(K"),
    (lambda: GaussianMixtureOracle(LINEAR, M[:0], V[:0], W[:0]), ValueError, "means must have sha"),
    (lambda: GaussianMixtureOracle(LINEAR, M * NAN, V, W), ValueError, "means must be finite"),
    (
        lambda: GaussianMixtureOracle(LINEAR, M, V[:2], W),
        ValueError,
        r"variances .* \(3,\).*\(2,\)",
    ),
    (lambda: GaussianMixtureOracle(LINEAR, M, V[:, None], W), ValueError, "variances must have"),
    (lambda: GaussianMixtureOracle(LINEAR, M, -V, W), ValueError, "variances must be 0 or more"),
    (lambda: GaussianMixtureOracle(LINEAR, M, V * NAN, W), ValueError, "variances must be finite"),
    (lambda: GaussianMixtureOracle(LINEAR, M, 0.1, W), TypeError, "variances must be a tensor"),
    (lambda: GaussianMixtureOracle(LINEAR, M, V, W[:1]), ValueError, "weights must have shape"),
    (lambda: GaussianMixtureOracle(LINEAR, M, V, 0 * W), ValueError, "weights must be above 0"),
    (lambda: GaussianMixtureOracle(LINEAR, M, V, W / 0), ValueError, "weights must be finite"),
    (lambda: GaussianMixtureOracle(LINEAR, M, V, None), TypeError, "weights must be a tensor"),
    (lambda: mixture().sample(0), ValueError, "count must be at least 1"),
    (lambda: mixture().sample(2.0), TypeError, "count must be an int"),
    (lambda: DatasetOracle(LINEAR, M.tolist()), TypeError, "data must be a tensor"),
    (lambda: DatasetOracle(LINEAR, M.byte()), TypeError, "data must hold floating-point"),
    (lambda: DatasetOracle(LINEAR, M[0]), ValueError, r"data must have shape \(N"),
    (lambda: DatasetOracle(LINEAR, M[:0]), ValueError, r"data must have shape \(N.*\(0, 2\)"),
    (lambda: DatasetOracle(LINEAR, M * NAN), ValueError, "data must be finite"),
    (lambda: DatasetOracle(LINEAR, M, chunk_size=0), ValueError, "chunk_size must be at least 1"),
    (lambda: DatasetOracle(LINEAR, M, chunk_size=1.5), TypeError, "chunk_size must be an int"),
]


@pytest.mark.plain_errors
@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


ORACLES = {
    "mixture": lambda x, t: mixture()(x, t),
    "density": lambda x, t: mixture().log_density(x, t),
    "data set": lambda x, t: DatasetOracle(LINEAR, MEANS)(x, t),
    "shares": lambda x, t: DatasetOracle(LINEAR, MEANS).weights(x, t),
    "mean": lambda x, t: DatasetOracle(LINEAR, MEANS).posterior_mean(x, t),
}
X, T_OK = torch.zeros(2, 2), torch.tensor([1, 1000])
WRONG_QUESTIONS = [
    (torch.zeros(2, 3), T_OK, ValueError, r"x_t must have shape \(B, 2\) to match.*got \(2, 3\)"),
    (torch.zeros(2), T_OK, ValueError, r"x_t must have shape \(B, 2\)"),
    (torch.zeros(2, 2, 1), T_OK, ValueError, r"x_t must have shape \(B, 2\)"),
    (torch.tensor(1.0), T_OK, ValueError, "x_t must have a batch axis"),
    (X.long(), T_OK, TypeError, "x_t must hold floating-point"),
    ([[0.0, 0.0]], T_OK, TypeError, "x_t must be a tensor"),
    (X * NAN, T_OK, ValueError, "x_t must be finite"),
    (X, torch.tensor([0, 1]), ValueError, r"t must be in 1\.\.1000, got 0"),
    (X, torch.tensor([1, 1001]), ValueError, r"t must be in 1\.\.1000, got 1001"),
    (X, torch.tensor([1]), ValueError, r"t must have shape \(2,\)"),
    (X, torch.tensor([1.0, 2.0]), TypeError, "t must be int64"),
    (X, 5, TypeError, "t must be an int64 tensor"),
]


@pytest.mark.plain_errors
@pytest.mark.parametrize(("x", "t", "error", "message"), WRONG_QUESTIONS)
@pytest.mark.parametrize("ask", ORACLES.values(), ids=ORACLES)
def test_wrong_queries_are_named(ask, x, t, error, message):
    with pytest.raises(error, match=message):
        ask(x, t)
