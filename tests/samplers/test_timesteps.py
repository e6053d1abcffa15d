"""Which steps a walk takes."""

# pyright: reportArgumentType=false
# (part of this file passes what the annotations forbid)

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch.testing import assert_close

from tests.samplers.walks import SHORT, normal, seeded, simple
from tutorial_lib.samplers import ddim, ddpm, evenly_spaced, last, respace

X = torch.zeros(2, 3)


def test_evenly_spaced_as_its_docstring_says():
    assert evenly_spaced(1000, 50) == list(range(1000, -1, -20))
    assert evenly_spaced(1000, 1) == [1000, 0]
    assert evenly_spaced(5, 5) == [5, 4, 3, 2, 1, 0]
    assert evenly_spaced(10, 4) == [10, 8, 5, 3, 0]  # 7.5 and 2.5 go up


@given(st.integers(1, 5000).flatmap(lambda T: st.tuples(st.just(T), st.integers(1, T))))
def test_evenly_spaced_has_equal_strides_but_for_rounding(drawn):
    T, count = drawn
    walk = evenly_spaced(T, count)
    assert len(walk) == count + 1
    assert walk[0] == T
    assert walk[-1] == 0
    strides = {a - b for a, b in zip(walk, walk[1:], strict=False)}
    assert strides <= {T // count, -(T // -count)}
    assert all(type(t) is int for t in walk)
    for i, t in enumerate(reversed(walk)):
        assert abs(t - i * T / count) <= 0.5 + 1e-9


def test_evenly_spaced_takes_numpy_ints():
    assert evenly_spaced(int(np.int64(10)), 2) == [10, 5, 0]


def test_respacing_picks_alpha_bar_and_asks_the_model_about_its_own_steps():
    asked = []

    def model(x_t, t):
        asked.append(t)
        return simple(x_t, t)

    fewer_model, fewer = respace(model, SHORT, [17, 9, 2, 0])
    assert fewer.num_steps == 3
    assert torch.equal(fewer.alpha_bar, SHORT.alpha_bar[[0, 2, 9, 17]])
    x = normal(3, 2)
    answer = fewer_model(x, torch.tensor([1, 3, 2]))
    assert asked[0].tolist() == [2, 17, 9]
    assert torch.equal(answer, simple(x, asked[0]))


def test_ddim_over_a_respaced_schedule_is_ddim_over_those_steps():
    x_T, timesteps = normal(3, 2), [17, 9, 2, 0]
    direct = ddim(simple, SHORT, x_T, timesteps, eta=0.5, generator=seeded(1))
    respaced = ddim(
        *respace(simple, SHORT, timesteps), x_T, range(3, -1, -1), eta=0.5, generator=seeded(1)
    )
    assert_close(last(direct), last(respaced), rtol=0, atol=1e-14)


@pytest.mark.plain_errors  # a NumPy array is no Sequence
def test_timesteps_come_as_any_falling_sequence():
    x_T = normal(2, 2)
    expected = last(ddim(simple, SHORT, x_T, [20, 10, 0]))
    numbers = np.array([20, 10, 0])
    for timesteps in (
        (20, 10, 0),
        range(20, -1, -10),
        torch.tensor([20, 10, 0]),
        torch.tensor([20, 10, 0], dtype=torch.int32),
        numbers,
        list(numbers),
        iter([20, 10, 0]),
    ):
        assert torch.equal(last(ddim(simple, SHORT, x_T, timesteps)), expected)


BAD_TIMESTEPS = [
    ([], ValueError, "timesteps must hold at least a start and an end"),
    ([20], ValueError, "timesteps must hold at least a start and an end"),
    (torch.zeros(0, dtype=torch.int64), ValueError, "timesteps must hold at least a start"),
    ([21, 0], ValueError, r"timesteps must lie in 0\.\.20, got 21"),
    ([20, 10, -1], ValueError, "timesteps must be at least 0, got -1"),
    ([20, 10, 10, 0], ValueError, "timesteps must fall strictly, got 10 then 10"),
    ([0, 10, 20], ValueError, "timesteps must fall strictly, got 0 then 10"),
    ([20, 5, 9, 0], ValueError, "timesteps must fall strictly, got 5 then 9"),
    ([20.0, 0.0], TypeError, "timesteps must be an int, got float 20.0"),
    ([20, True, 0], TypeError, "timesteps must be an int, got bool"),
    ([20, None], TypeError, "timesteps must be an int, got NoneType"),
    (torch.tensor([20.0, 0.0]), TypeError, "timesteps must be an int, got float"),
    (torch.tensor([[20, 0]]), TypeError, "timesteps must be an int, got list"),
    (torch.tensor(20), TypeError, "timesteps must be a falling sequence"),
    (torch.tensor([True, False]), TypeError, "timesteps must be an int, got bool"),
    (np.array([20.0, 0.0]), TypeError, "timesteps must be an int, got float"),
    (20, TypeError, "timesteps must be a falling sequence of ints, got int 20"),
    (None, TypeError, "timesteps must be a falling sequence"),
    ("20", TypeError, "timesteps must be an int, got str '2'"),
]


@pytest.mark.plain_errors
@pytest.mark.parametrize(("timesteps", "error", "message"), BAD_TIMESTEPS)
def test_wrong_timesteps_are_refused_at_the_call(timesteps, error, message):
    with pytest.raises(error, match=message):
        ddim(simple, SHORT, X, timesteps)
    if timesteps is not None:  # every step
        with pytest.raises(error, match=message):
            ddpm(simple, SHORT, X, timesteps)
    with pytest.raises(error, match=message):
        respace(simple, SHORT, timesteps)
