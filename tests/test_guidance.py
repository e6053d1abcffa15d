"""Guidance against closed forms: mixtures of Gaussians know the exact answer for every class."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.draws import seeded
from tutorial_lib import guidance
from tutorial_lib._typing import EpsModel
from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.guidance import (
    LabeledMixture,
    condition,
    drop_condition,
    drop_labels,
    guide,
    guided,
    labeled,
)
from tutorial_lib.metrics.digit_features import load_digit_classifier
from tutorial_lib.networks.unet import TinyUNet
from tutorial_lib.oracles import GaussianMixtureOracle
from tutorial_lib.samplers import ddim, evenly_spaced, last
from tutorial_lib.schedules import cosine_schedule, linear_schedule

SCHEDULE = linear_schedule(200, 1e-3, 0.05)
MEANS = torch.tensor([[-1.5, 0.3], [0.2, 1.4], [1.1, -0.6], [0.4, -1.8]], dtype=torch.float64)
VARIANCES = torch.tensor([0.05, 0.2, 0.1, 0.02], dtype=torch.float64)
WEIGHTS = torch.tensor([0.1, 0.3, 0.2, 0.4], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 1, 0])


@pytest.fixture
def mixture() -> LabeledMixture:
    return LabeledMixture(SCHEDULE, MEANS, VARIANCES, WEIGHTS, LABELS)


def query(count: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Random places, steps and classes 0 or 1."""
    generator = seeded(5)
    x_t = 1.5 * torch.randn(count, 2, generator=generator, dtype=torch.float64)
    t = torch.randint(1, SCHEDULE.num_steps + 1, (count,), generator=generator)
    return x_t, t, torch.randint(2, (count,), generator=generator)


# --- the guided answer


def log_density(x: Tensor, t: int, members: list[int]) -> Tensor:
    """log of the mixture of ``members`` after t noisings at one place x (2,), written out."""
    alpha_bar = float(SCHEDULE.alpha_bar[t])
    terms = []
    for k in members:
        variance = alpha_bar * float(VARIANCES[k]) + 1 - alpha_bar
        away = (x - math.sqrt(alpha_bar) * MEANS[k]).square().sum()
        terms.append(math.log(WEIGHTS[k]) - math.log(2 * math.pi * variance) - away / 2 / variance)
    share = math.log(sum(float(WEIGHTS[k]) for k in members))
    return torch.stack(terms).logsumexp(0) - share


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.0, 7.5])
def test_the_guided_answer_is_the_sharpened_score(mixture: LabeledMixture, scale: float):
    """-noise_rate times the gradient of log p(x) + s log p(c given x), by autograd on densities
    that are written out here: p(c given x) is p(x given c) p(c) / p(x)."""
    x_t, t, labels = query()
    eps_hat = guide(mixture, labels, scale, mixture.num_classes)(x_t, t)
    for i, x in enumerate(x_t):
        place, step = x.clone().requires_grad_(), int(t[i])
        members = (labels[i] == LABELS).nonzero().flatten().tolist()
        everything = log_density(place, step, [0, 1, 2, 3])
        sharpened = everything + scale * (log_density(place, step, members) - everything)
        (score,) = torch.autograd.grad(sharpened, place)
        # a maximum absolute error of 1e-12 where answers are of the order of 1 to 10
        assert_close(eps_hat[i], -SCHEDULE.noise_rate[step] * score, rtol=1e-12, atol=1e-12)


def test_two_equal_gaussians_by_hand():
    """Classes at -m and m, variance v: the share of the right class is a sigmoid, so
    eps = noise_rate / V (x - M (p - q)) + s noise_rate / V (M (p - q) - M c), M and V after t."""
    means, schedule = torch.tensor([[-1.0], [1.0]], dtype=torch.float64), cosine_schedule(50)
    model = LabeledMixture(
        schedule, means, torch.full((2,), 0.3), torch.ones(2), torch.tensor([0, 1])
    )
    for step in (3, 25, 48):
        abar = float(schedule.alpha_bar[step])
        mean, variance = math.sqrt(abar), abar * 0.3 + 1 - abar
        x = torch.linspace(-3, 3, 13, dtype=torch.float64)[:, None]
        pull = torch.tanh(mean * x / variance)  # p - q
        for scale in (0.0, 1.0, 4.0):
            plain, right = x - mean * pull, x - mean
            expected = math.sqrt(1 - abar) / variance * (plain + scale * (right - plain))
            ones = torch.ones(13, dtype=torch.int64)
            eps_hat = guide(model, ones, scale, 2)(x, step * ones)
            # variances come in as float32, so 0.3 is 1e-8 off
            assert_close(eps_hat, expected, rtol=0, atol=1e-6)


def test_scale_one_is_the_conditional_and_zero_the_unconditional_exactly(mixture: LabeledMixture):
    x_t, t, labels = query()
    nobody = torch.full_like(labels, mixture.num_classes)
    halves = condition(mixture, labels), condition(mixture, nobody)
    whole = GaussianMixtureOracle(SCHEDULE, MEANS, VARIANCES, WEIGHTS)
    for scale, expected in ((1, mixture(x_t, t, labels)), (0, whole(x_t, t))):
        assert torch.equal(guide(mixture, labels, scale, mixture.num_classes)(x_t, t), expected)
        assert torch.equal(guided(*halves, scale)(x_t, t), expected)


@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0, 1.5, 9.0])
def test_one_call_of_two_is_the_two_calls(mixture: LabeledMixture, scale: float):
    x_t, t, labels = query()
    nobody = torch.full_like(labels, mixture.num_classes)
    with_class, without = mixture(x_t, t, labels), mixture(x_t, t, nobody)
    expected = without + scale * (with_class - without)
    assert_close(guide(mixture, labels, scale, mixture.num_classes)(x_t, t), expected)
    two = guided(condition(mixture, labels), condition(mixture, nobody), scale)
    assert_close(two(x_t, t), expected)


@pytest.mark.parametrize(("scale", "calls"), [(0.0, [4]), (1.0, [4]), (2.0, [8])])
def test_how_much_work_a_scale_is(scale: float, calls: list[int]):
    """Two answers come from one call of twice the batch; 0 and 1 need one answer only."""
    sizes = []

    def model(x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        assert len(t) == len(labels) == len(x_t)
        sizes.append(len(x_t))
        return x_t

    guide(model, torch.zeros(4, dtype=torch.int64), scale, 3)(torch.ones(4, 2), torch.full((4,), 7))
    assert sizes == calls


def test_scales_zero_and_one_ask_one_model_only():
    def refuses(x_t: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("asked")

    def answers(x_t: Tensor, t: Tensor) -> Tensor:
        return 2 * x_t

    x_t, t = torch.ones(1, 2), torch.ones(1, dtype=torch.int64)
    assert torch.equal(guided(answers, refuses, 1)(x_t, t), 2 * x_t)
    assert torch.equal(guided(refuses, answers, 0)(x_t, t), 2 * x_t)


def test_the_answer_keeps_the_dtype_of_the_state():
    def half(x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        return x_t.bfloat16()

    x_t, t = torch.ones(2, 3), torch.ones(2, dtype=torch.int64)
    for model in (guided(half, half, 3.0), guide(half, t, 3.0, 5)):
        assert model(x_t, t).dtype == torch.float32


def test_guided_walks_go_where_the_class_is(mixture: LabeledMixture):
    """With the exact model: scale 1 draws the class in its proportions, larger scales move away
    from the other class and spread less."""
    count = 2000
    labels = torch.zeros(count, dtype=torch.int64)
    x_T = torch.randn(count, 2, generator=seeded(1), dtype=torch.float64)
    walk = evenly_spaced(SCHEDULE.num_steps, 100)
    drawn = {
        scale: last(ddim(guide(mixture, labels, scale, 2), SCHEDULE, x_T, walk))
        for scale in (0.0, 1.0, 4.0)
    }
    nearest = {scale: torch.cdist(x_0, MEANS).argmin(1) for scale, x_0 in drawn.items()}
    # 5 standard deviations of a share are 0.05; the walk starts with 8 % of the signal left out
    shares = nearest[1.0].bincount(minlength=4) / count
    assert_close(shares, torch.tensor([0.2, 0.0, 0.0, 0.8]), rtol=0, atol=0.08)
    shares = nearest[0.0].bincount(minlength=4) / count
    assert_close(shares, WEIGHTS.float(), rtol=0, atol=0.08)
    assert float(LABELS[nearest[4.0]].float().mean()) < 0.005  # nearly all in class 0
    first = {scale: drawn[scale][nearest[scale] == 0] for scale in (1.0, 4.0)}
    assert float(first[4.0].mean(0)[0]) < float(first[1.0].mean(0)[0]) - 0.05


# --- labels


def test_labels_are_dropped_one_by_one_with_probability_p():
    labels = torch.arange(20_000) % 10
    kept_before = labels.clone()
    for p in (0.1, 0.5):
        dropped = drop_labels(labels, p, 10, seeded())
        gone = dropped == 10
        # 5 standard deviations of a share of 20,000 draws
        assert float(gone.float().mean()) == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / 2e4))
        assert torch.equal(dropped[~gone], labels[~gone])
        share = torch.stack([gone[labels == c].float().mean() for c in range(10)])
        assert_close(share, torch.full((10,), p), rtol=0, atol=5 * math.sqrt(p * (1 - p) / 2e3))
        together = float((gone[1:] & gone[:-1]).float().mean())  # neighbors do not fall together
        assert together == pytest.approx(p * p, abs=0.02)
    assert torch.equal(labels, kept_before)


def test_dropping_none_dropping_all_and_the_seed():
    labels = torch.arange(10)
    assert torch.equal(drop_labels(labels, 0.0, 10), labels)
    assert torch.equal(drop_labels(labels, 1.0, 10), torch.full((10,), 10))
    assert torch.equal(
        drop_labels(labels, 0.5, 10, seeded(3)), drop_labels(labels, 0.5, 10, seeded(3))
    )
    assert drop_labels(labels[:0], 0.5, 10).shape == (0,)


# --- networks


@pytest.mark.parametrize("target", ["eps", "v", "x0", "velocity"])
def test_a_network_becomes_a_labeled_model(target: str):
    """Whatever the network says, the answer is the eps that follows by the definitions."""
    schedule = cosine_schedule(20)
    network = TinyUNet(1, (8, 8), num_classes=3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=seeded(2)) * 0.2)
    x_t = torch.randn(4, 1, 8, 8, generator=seeded())
    t, labels = torch.tensor([1, 5, 12, 20]), torch.tensor([0, 1, 2, 3])
    with torch.no_grad():
        abar = schedule.alpha_bar[t].float()[:, None, None, None]
        x = x_t / (abar.sqrt() + (1 - abar).sqrt()) if target == "velocity" else x_t
        said, eps_hat = network(x, t, labels), labeled(network, schedule, target)(x_t, t, labels)
    expected = {
        "eps": said,
        "v": abar.sqrt() * said + (1 - abar).sqrt() * x_t,
        "x0": (x_t - abar.sqrt() * said) / (1 - abar).sqrt(),
        "velocity": x + abar.sqrt() / (abar.sqrt() + (1 - abar).sqrt()) * said,
    }
    assert_close(eps_hat, expected[target], rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def digits():
    return load_checkpoint("mnist")


def test_the_shipped_network_draws_what_it_is_asked_for(digits):
    """Ten of each digit, 12 steps; a coin with ten sides would be right in a tenth of them."""
    model = labeled(digits.network, digits.schedule, digits.card["target"])
    labels = torch.arange(10).repeat(4)
    x_T = torch.randn(40, 1, 28, 28, generator=seeded())
    walk = evenly_spaced(digits.schedule.num_steps, 12)
    right = {}
    for scale in (0.0, 1.0, 3.0):
        images = last(ddim(guide(model, labels, scale, 10), digits.schedule, x_T, walk))
        answers = load_digit_classifier().probabilities(images).argmax(1)
        right[scale] = float((answers == labels).float().mean())
    assert right[0.0] < 0.35
    assert right[1.0] > 0.8
    assert right[3.0] >= right[1.0]


def test_a_checkpoint_conditions_as_guidance_does(digits):
    model = labeled(digits.network, digits.schedule, digits.card["target"])
    labels, t = torch.tensor([3, 7]), torch.tensor([500, 20])
    x_t = torch.randn(2, 1, 28, 28, generator=seeded())
    with torch.no_grad():
        assert torch.equal(condition(model, labels)(x_t, t), digits.conditioned(labels)(x_t, t))
        nobody = guide(model, labels, 0.0, 10)(x_t, t)
        assert_close(nobody, digits.model(x_t, t))


# --- bad input


def constant(x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
    return x_t[:1, :1]


ONE = torch.ones(1, dtype=torch.int64)


WORDS = torch.tensor([[1, 2, 3], [4, 5, 0], [2, 2, 2], [5, 0, 0]])
NO_WORDS = torch.tensor([0, 0, 0])


def reads_words(x_t: Tensor, t: Tensor, words: Tensor) -> Tensor:
    """A conditional model that depends on every word and on its place."""
    told = (words * torch.tensor([1.0, 10.0, 100.0])).sum(1)
    return x_t * told[:, None] + t[:, None]


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 3.0])
def test_guidance_by_words_is_the_formula(scale: float):
    x_t, t = torch.randn(4, 2), torch.tensor([3, 9, 1, 5])
    told, nothing = reads_words(x_t, t, WORDS), reads_words(x_t, t, torch.zeros_like(WORDS))
    assert_close(
        guide(reads_words, WORDS, scale, NO_WORDS)(x_t, t), nothing + scale * (told - nothing)
    )
    assert torch.equal(condition(reads_words, WORDS)(x_t, t), told)


def test_whole_sentences_are_dropped():
    many = WORDS[:1].repeat(10_000, 1)
    dropped = drop_condition(many, 0.25, torch.tensor([7, 8, 9]), seeded())
    gone = (dropped == torch.tensor([7, 8, 9])).all(1)
    assert torch.equal(dropped[~gone], many[~gone])
    assert abs(gone.double().mean().item() - 0.25) < 0.02  # 4.6 standard errors
    # the same draws decide about labels
    labels = drop_condition(many[:, 0], 0.25, torch.tensor(7), seeded())
    assert torch.equal(labels == 7, gone)


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: drop_labels([1], 0.1, 3), "labels must be an int64 tensor"),  # type: ignore[arg-type]
        (lambda: drop_labels(torch.ones(2), 0.1, 3), "labels must be int64, got torch.float32"),
        (lambda: drop_labels(torch.ones(2, 1).long(), 0.1, 3), r"labels must have shape \(B,\)"),
        (lambda: drop_labels(4 * ONE, 0.1, 3), r"labels must be in 0\.\.3, got 4"),
        (lambda: drop_labels(ONE, 1.1, 3), r"p must be in \[0, 1\], got 1.1"),
        (lambda: drop_labels(ONE, math.nan, 3), "p must be in"),
        (lambda: drop_labels(ONE, 0.1, 0), "num_classes must be at least 1"),
        (lambda: condition(constant, 3), "condition must be an int64 tensor"),  # type: ignore[arg-type]
        (
            lambda: condition(constant, ONE)(torch.ones(2, 3), ONE),
            "condition must have a row for each of 2 samples",
        ),
        (lambda: guided(constant, constant, -0.1), "scale must be finite and at least 0"),
        (lambda: guided(constant, constant, math.nan), "scale must be finite"),
        (lambda: guided(constant, constant, math.inf), "scale must be finite"),
        (lambda: guided(constant, constant, "7.5"), "scale must be a number"),  # type: ignore[arg-type]
        (
            lambda: guided(constant, constant, 2.0)(torch.ones(2, 3), ONE),
            r"conditional must answer with the shape of x_t, \(2, 3\); got \(1, 1\)",
        ),
        (
            lambda: guide(constant, ONE, 2.0, 1)(torch.ones(2, 3), ONE),
            "condition must have a row for each of 2 samples",
        ),
        (lambda: guide(constant, ONE, 2.0, 1)(torch.ones(1, 3), ONE), "model must answer with"),
        (lambda: guide(constant, 2 * ONE, 2.0, 1), r"condition must be in 0\.\.1, got 2"),
        (lambda: guide(constant, -WORDS, 2.0, NO_WORDS), "condition must be at least 0, got -5"),
        (lambda: guide(constant, WORDS[None], 2.0, NO_WORDS), r"labels \(B,\) or words \(B, L\)"),
        (lambda: guide(constant, WORDS, 2.0, 6), "no_condition must be a tensor"),
        (lambda: guide(constant, WORDS, 2.0, NO_WORDS[:2]), r"of shape \(3,\); got \(2,\)"),
        (lambda: guide(constant, WORDS, 2.0, NO_WORDS.int()), "no_condition must be int64"),
        (lambda: drop_condition(WORDS, 2.0, NO_WORDS), r"p must be in \[0, 1\]"),
        (
            lambda: labeled(TinyUNet(1, (8,)), SCHEDULE, "w"),
            "target must be one of eps, v, x0, velocity",
        ),
        (
            lambda: LabeledMixture(SCHEDULE, MEANS, VARIANCES, WEIGHTS, LABELS[:3]),
            "labels must be 4, one a mean; got 3",
        ),
        (
            lambda: LabeledMixture(SCHEDULE, MEANS, VARIANCES, WEIGHTS, 2 * LABELS),
            r"labels must be 0\.\.2 without a gap; 1 is missing",
        ),
    ],
)
def test_a_wrong_argument_is_named(call, message: str):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_what_comes_out_is_a_denoiser(mixture: LabeledMixture):
    labels = torch.tensor([0, 1])
    for model in (condition(mixture, labels), guide(mixture, labels, 2.0, 2)):
        assert isinstance(model, EpsModel)
    assert set(guidance.__dict__) >= {"LabeledModel", "LabeledMixture"}


def test_the_names_of_earlier_versions_still_work():
    old = {"Label" + "ledModel": guidance.LabeledModel, "label" + "led": labeled}
    for name, new in ({"Label" + "ledMixture": LabeledMixture} | old).items():
        assert getattr(guidance, name) is new
