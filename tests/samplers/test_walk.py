"""What every sampler does: the steps it yields, where its noise comes from, what it refuses."""

# pyright: reportArgumentType=false
# (part of this file passes what the annotations forbid)

import inspect
import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.samplers.walks import (
    DETERMINISTIC,
    F64,
    IMAGES,
    QUESTIONS,
    SHORT,
    each_sampler,
    normal,
    seeded,
    simple,
    walks_of_all,
)
from tutorial_lib._typing import EpsModel
from tutorial_lib.forward import predict_x0
from tutorial_lib.samplers import (
    SAMPLERS,
    SampleStep,
    ddim,
    ddpm,
    evenly_spaced,
    last,
    options_of,
    respace,
    walks_every_step,
)
from tutorial_lib.schedules import linear_schedule


@each_sampler
def test_an_answer_that_lies_otherwise_changes_no_bit(name: str):
    """Channels last, broadcast from fewer numbers, in bf16: the walk is that of a plain answer."""

    def turned(x_t: Tensor, t: Tensor) -> Tensor:
        return simple(x_t, t).contiguous(memory_format=torch.channels_last)

    def few(x_t: Tensor, t: Tensor) -> Tensor:
        return simple(x_t, t)[:, :1, :1, :1].expand_as(x_t)

    def rough(x_t: Tensor, t: Tensor) -> Tensor:
        return simple(x_t, t).bfloat16()

    x_T = normal(*IMAGES, dtype=torch.float32)
    for model in (turned, few, rough):

        def plain(x_t: Tensor, t: Tensor, model: EpsModel = model) -> Tensor:
            return model(x_t, t).to(x_t.dtype).contiguous()

        walks = [
            list(walks_of_all(generator=seeded(0))[name](each, x_T)) for each in (model, plain)
        ]
        for one, other in zip(*walks, strict=True):
            assert torch.equal(one.x_t, other.x_t)
            assert torch.equal(one.x0_hat, other.x0_hat)
            assert torch.equal(one.eps_hat, other.eps_hat)
            assert one.x_t.stride() == one.eps_hat.stride() == x_T.stride()


@each_sampler
@pytest.mark.parametrize("shape", [(5, 2), (3, 1, 4, 4), (2, 3, 5, 7), (0, 2)], ids=str)
def test_the_model_is_asked_with_the_right_t_and_state(name, shape):
    asked, questions = [], QUESTIONS.get(name, 1)

    def model(x_t, t):
        asked.append((x_t, t))
        return simple(x_t, t)

    x_T = normal(*shape)
    steps = list(walks_of_all(generator=seeded(0))[name](model, x_T))
    assert [step.t for step in steps] == list(range(19, -1, -1))
    assert len(asked) == 19 * questions + 1
    states = [x_T, *(step.x_t for step in steps)]
    for i, (x_t, t) in enumerate(asked[::questions]):
        assert t.dtype == torch.int64
        assert torch.equal(t, torch.full((shape[0],), 20 - i))
        assert torch.equal(x_t, states[i])
        assert torch.equal(steps[i].eps_hat, simple(x_t, t))
        x0_hat = predict_x0(SHORT, x_t, t, steps[i].eps_hat)
        assert_close(steps[i].x0_hat, x0_hat, rtol=1e-12, atol=1e-12)
        assert steps[i].x_t.shape == shape


@each_sampler
def test_the_last_state_of_a_walk_to_0_is_its_x0_hat(name):
    *_, end = walks_of_all(generator=seeded(0))[name](simple, normal(3, 2))
    assert end.t == 0
    assert_close(end.x_t, end.x0_hat, rtol=0, atol=1e-12)


@each_sampler
def test_no_gradient_graph_is_kept_and_gradients_work_outside(name):
    w = torch.tensor(0.5, requires_grad=True)
    x_T = normal(2, 2).requires_grad_()
    for step in walks_of_all(generator=seeded(0))[name](lambda x, t: w * x, x_T):
        assert not step.x_t.requires_grad
        assert not step.eps_hat.requires_grad
        assert torch.is_grad_enabled()  # between two steps the caller's world is as it was


@each_sampler
def test_states_that_were_yielded_stay_as_they_were(name):
    x_T = normal(2, 2)
    kept = x_T.clone()
    steps, copies = [], []
    for step in walks_of_all(generator=seeded(0))[name](simple, x_T):
        steps.append(step)
        copies.append(step.x_t.clone())
    assert torch.equal(x_T, kept)
    for step, copy in zip(steps, copies, strict=True):
        assert torch.equal(step.x_t, copy)


@each_sampler
def test_a_walk_keeps_the_dtype_of_its_start(name):
    for dtype in (torch.float32, F64):
        for step in walks_of_all(generator=seeded(0))[name](simple, normal(2, 2, dtype=dtype)):
            assert {step.x_t.dtype, step.eps_hat.dtype, step.x0_hat.dtype} == {dtype}
    # a network under autocast answers in bfloat16; the state stays float32
    for step in walks_of_all(generator=seeded(0))[name](
        lambda x, t: x.bfloat16(), normal(2, 2).float()
    ):
        assert {step.x_t.dtype, step.eps_hat.dtype, step.x0_hat.dtype} == {torch.float32}


@each_sampler
def test_samplers_are_generators_that_work_one_step_at_a_time(name):
    asked = []

    def model(x_t, t):
        asked.append(t)
        return simple(x_t, t)

    walk = walks_of_all(generator=seeded(0))[name](model, normal(2, 2))
    assert inspect.isgenerator(walk)
    assert not asked
    assert isinstance(next(walk), SampleStep)
    assert len(asked) == QUESTIONS.get(name, 1)


def test_last_walks_to_the_end():
    steps = list(ddim(simple, SHORT, normal(2, 2), [20, 10, 0]))
    assert last(steps) is steps[-1].x_t
    assert last(iter(steps)) is steps[-1].x_t


@pytest.mark.parametrize("T", [1, 2, 1000])
def test_every_schedule_length_can_be_walked(T):
    schedule, x_T = linear_schedule(T), normal(2, 2)
    for walk in walks_of_all(schedule, generator=seeded(0)).values():
        assert last(walk(simple, x_T)).isfinite().all()


@each_sampler
def test_noise_comes_from_the_generator_alone(name):
    x_T = normal(4, 2)
    state = torch.get_rng_state()
    first = last(walks_of_all(generator=seeded(1))[name](simple, x_T))
    again = last(walks_of_all(generator=seeded(1))[name](simple, x_T))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)
    other = last(walks_of_all(generator=seeded(2))[name](simple, x_T))
    assert torch.equal(first, other) == (name in DETERMINISTIC)


@each_sampler
def test_without_a_generator_torch_s_default_one_is_used(name):
    x_T = normal(4, 2)
    walks = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        walks.append(last(walks_of_all()[name](simple, x_T)))
    assert torch.equal(walks[0], walks[1])
    assert torch.equal(walks[0], walks[2]) == (name in DETERMINISTIC)


@pytest.mark.parametrize("name", ["ddpm", "ddim, eta 1"])
def test_the_noise_is_fresh_and_none_is_added_at_the_last_step(name):
    """A model that always says zero: what is left of the walk is its noise."""
    x_T = torch.zeros(20_000, 1, dtype=F64)
    steps = list(walks_of_all(generator=seeded(3))[name](lambda x, t: torch.zeros_like(x), x_T))
    before = [x_T, *(step.x_t for step in steps[:-1])]
    added = []
    for step, x in zip(steps, before, strict=True):
        t = step.t + 1
        share = SHORT.signal_rate[step.t] / SHORT.signal_rate[t]  # of x in the next mean
        noise = step.x_t - share * x
        variance = SHORT.posterior_variance[t - 1].item()
        assert abs(noise.var().item() - variance) <= 4.5 * variance * math.sqrt(2 / 20_000) + 1e-24
        if step.t > 0:
            added.append((noise / noise.std()).flatten())
    correlation = torch.stack(added).corrcoef() - torch.eye(19)
    assert correlation.abs().max() < 5 / math.sqrt(20_000)


X = torch.zeros(2, 3)

NAN = float("nan")

GOOD = [20, 10, 0]

BAD_START = [
    (X.long(), TypeError, "x_T must hold floating-point"),
    (X.tolist(), TypeError, "x_T must be a tensor, got list"),
    (None, TypeError, "x_T must be a tensor"),
    (X.half(), TypeError, "x_T must be float32 or float64, got torch.float16"),
    (X.bfloat16(), TypeError, "x_T must be float32 or float64, got torch.bfloat16"),
    (X[0], ValueError, r"x_T must have shape \(B, ...\), got \(3,\)"),
    (torch.tensor(1.0), ValueError, "x_T must have shape"),
    (X * NAN, ValueError, "x_T must be finite"),
    (X + math.inf, ValueError, "x_T must be finite"),
]


@pytest.mark.plain_errors
@pytest.mark.parametrize(("x_T", "error", "message"), BAD_START)
def test_a_wrong_start_is_refused_at_the_call_before_the_first_step(x_T, error, message):
    with pytest.raises(error, match=message):
        ddpm(simple, SHORT, x_T)
    with pytest.raises(error, match=message):
        ddim(simple, SHORT, x_T, GOOD)


WRONG = [
    (lambda: ddpm(simple, SHORT, X, variance="posteriour"), ValueError, "did you mean 'posterior'"),
    (lambda: ddpm(simple, SHORT, X, variance="fixed"), ValueError, "variance must be one of post"),
    (lambda: ddpm(simple, SHORT, X, variance=None), ValueError, "variance must be one of"),
    (lambda: ddpm(simple, SHORT, X, variance=0.5), ValueError, "variance must be one of"),
    (lambda: ddim(simple, SHORT, X, GOOD, eta=-0.1), ValueError, r"eta must be in \[0, 1\]"),
    (lambda: ddim(simple, SHORT, X, GOOD, eta=1.1), ValueError, r"eta must be in \[0, 1\]"),
    (lambda: ddim(simple, SHORT, X, GOOD, eta=NAN), ValueError, r"eta must be .*nan"),
    (lambda: ddim(simple, SHORT, X, GOOD, eta=math.inf), ValueError, "eta must be .*inf"),
    (lambda: ddim(simple, SHORT, X, GOOD, eta="1"), TypeError, "eta must be a number, got str"),
    (lambda: ddim(simple, SHORT, X, GOOD, eta=True), TypeError, "eta must be a number, got bool"),
    (lambda: ddim(simple, SHORT, X, GOOD, eta=None), TypeError, "eta must be a number"),
    (lambda: respace(simple, SHORT, [20, 10]), ValueError, "timesteps must end at 0.*got 10"),
    (lambda: evenly_spaced(0, 1), ValueError, "num_steps must be at least 1"),
    (lambda: evenly_spaced(10, 0), ValueError, "count must be at least 1"),
    (lambda: evenly_spaced(10, 11), ValueError, "count must be at most num_steps = 10, got 11"),
    (lambda: evenly_spaced(10, 2.0), TypeError, "count must be an int"),
    (lambda: evenly_spaced(10.0, 2), TypeError, "num_steps must be an int"),
    (lambda: evenly_spaced(True, True), TypeError, "num_steps must be an int"),
    (lambda: last([]), ValueError, "steps must hold at least one step"),
]


@pytest.mark.plain_errors
@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


BAD_MODELS = [
    (lambda x, t: x[:, :1], ValueError, r"model .* shape of x_t, \(2, 3\); got \(2, 1\)"),
    (lambda x, t: x.mean(), ValueError, "model must answer with the shape of x_t"),
    (lambda x, t: None, TypeError, "model must answer with a tensor, got NoneType"),
    (lambda x, t: {"sample": x}, TypeError, "model must answer with a tensor, got dict"),
    (
        lambda x, t: x + 0j,
        TypeError,
        "model must answer with floating-point .*complex",
    ),
    (
        lambda x, t: x.long(),
        TypeError,
        "model must answer with floating-point .*int64",
    ),
    (lambda x, t: x > 0, TypeError, "model must answer with floating-point .*bool"),
    (lambda x, t: x.to_sparse(), TypeError, "the answer of model must be dense"),
    (lambda x, t: x.to("meta"), TypeError, "the answer of model must hold numbers"),
    (lambda x, t: x * NAN, ValueError, "the answer of model at t = 20 must be finite"),
    (lambda x, t: x / (t - 20)[:, None], ValueError, "model at t = 20 must be finite"),
    (lambda x, t: torch.where(t == 7, NAN, 0.0)[:, None] + x, ValueError, "model at t = 7 "),
]


@pytest.mark.plain_errors
@pytest.mark.parametrize(("model", "error", "message"), BAD_MODELS)
@each_sampler
def test_a_model_that_answers_wrongly_is_named_when_it_does(name, model, error, message):
    walk = walks_of_all(generator=seeded(0))[name](model, X)
    with pytest.raises(error, match=message):
        last(walk)


def test_last_refuses_a_walk_that_ends_on_nan():
    step = SampleStep(0, X * NAN, X, X)
    with pytest.raises(ValueError, match="steps must end on finite numbers"):
        last([step])


# --- the registry ------------------------------------------------------------------------------


def test_options_are_read_from_the_signature():
    assert options_of(SAMPLERS["ddim"]) == ("eta",)
    assert options_of(SAMPLERS["ddpm"]) == ("variance",)
    assert [name for name, sampler in SAMPLERS.items() if walks_every_step(sampler)] == ["ddpm"]


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_takes_the_same_arguments(name):
    x_T = normal(2, 2)
    *_, end = SAMPLERS[name](simple, SHORT, x_T, [20, 9, 3, 0], generator=seeded(0))
    assert end.t == 0
    assert end.x_t.shape == x_T.shape
