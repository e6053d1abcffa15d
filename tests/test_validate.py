"""Messages about wrong arguments; no invalid number passes unnoticed."""

import math
from fractions import Fraction
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from tests.draws import seeded
from tutorial_lib import _validate
from tutorial_lib._random import normal_like, uniform

pytestmark = pytest.mark.plain_errors


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_whole_number_returns_a_plain_int(value):
    number = _validate.whole_number("n", value, at_least=3)
    assert type(number) is int
    assert number == 3


@pytest.mark.parametrize(
    "value", [3.0, True, np.bool_(True), "3", None, [3], torch.tensor(3), math.nan, Fraction(3)]
)
def test_whole_number_rejects_anything_else(value):
    with pytest.raises(TypeError, match=f"^n must be an int, got {type(value).__name__}"):
        _validate.whole_number("n", value, at_least=0)


def test_boolean_rejects_anything_else():
    assert _validate.boolean("b", True) is True
    for value in (1, "no", None, np.bool_(True), torch.tensor(True)):
        with pytest.raises(
            TypeError, match=f"^b must be True or False, got {type(value).__name__}"
        ):
            _validate.boolean("b", value)


def test_text_rejects_anything_else():
    assert _validate.text("s", "") == ""
    for value in (7, None, b"seven", ["s"]):
        with pytest.raises(TypeError, match=f"^s must be a str, got {type(value).__name__}"):
            _validate.text("s", value)


@given(st.integers(), st.integers())
def test_whole_number_has_a_lower_bound(value, floor):
    if value >= floor:
        assert _validate.whole_number("n", value, at_least=floor) == value
    else:
        with pytest.raises(ValueError, match=f"^n must be at least {floor}, got {value}$"):
            _validate.whole_number("n", value, at_least=floor)


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), np.float64(1), np.int64(1), Fraction(1)])
def test_number_returns_a_plain_float(value):
    number = _validate.number("x", value, low=0.0, high=1.0)
    assert type(number) is float
    assert number == 1.0


@pytest.mark.parametrize("value", [True, "1", None, [1.0], 1j, torch.tensor(1.0)])
def test_number_rejects_anything_else(value):
    with pytest.raises(TypeError, match=f"^x must be a number, got {type(value).__name__}"):
        _validate.number("x", value, low=0.0, high=1.0)


@given(st.floats(), st.floats(-5, 5), st.floats(0, 5))
def test_number_has_bounds_and_never_accepts_nan(value, low, width):
    high = low + width
    if low <= value <= high:
        assert _validate.number("x", value, low=low, high=high) == value
    else:
        with pytest.raises(ValueError, match=r"^x must be in \["):
            _validate.number("x", value, low=low, high=high)


@pytest.mark.parametrize("value", [math.inf, math.nan, -1.0])
def test_an_open_range_still_requires_a_finite_number(value):
    with pytest.raises(ValueError, match=r"^x must be finite and at least 0, got "):
        _validate.number("x", value, low=0.0, high=math.inf)
    assert _validate.number("x", 1e300, low=0.0, high=math.inf) == 1e300


def test_one_of_suggests_the_nearest_option():
    assert _validate.one_of("kind", "cosine", ["linear", "cosine"]) == "cosine"
    with pytest.raises(ValueError, match="got 'cosin'; did you mean 'cosine'"):
        _validate.one_of("kind", "cosin", ["linear", "cosine"])
    with pytest.raises(ValueError, match=r"^kind must be one of linear, cosine; got 'x'$"):
        _validate.one_of("kind", "x", (word for word in ("linear", "cosine")))
    with pytest.raises(ValueError, match="kind must be one of"):
        _validate.one_of("kind", ["linear"], ["linear", "cosine"])


def test_finite_checks_each_number_if_their_sum_overflows():
    big = torch.tensor([3e38, 3e38])
    assert _validate.finite("x", big) is big
    half = torch.full((100,), 6e4, dtype=torch.float16)
    assert _validate.finite("x", half) is half
    opposite = torch.tensor([math.inf, -math.inf])
    for wrong in (opposite, torch.tensor([1.0, math.nan]), torch.tensor([-math.inf])):
        with pytest.raises(ValueError, match=r"^x must be finite"):
            _validate.finite("x", wrong)
    assert _validate.finite("x", torch.zeros(0)).shape == (0,)


def test_describe_leaves_out_long_values():
    assert _validate.describe(3) == "int 3"
    assert _validate.describe("abc") == "str 'abc'"
    assert _validate.describe(list(range(1000))) == "list"
    assert _validate.describe(None) == "NoneType None"


def test_describe_survives_any_value():
    class Rude:
        def __repr__(self):
            raise RuntimeError

    assert _validate.describe(Rude()) == "Rude"
    assert _validate.describe(10**5000) == "int"  # more digits than Python writes
    assert _validate.describe("a\x1bb") == "str 'a\\x1bb'"
    assert _validate.describe(torch.eye(2)) == "Tensor"  # of more than one line


def test_names_differ():
    assert _validate.names("names", ["a", "b"]) == ("a", "b")
    assert _validate.names("names", ()) == ()
    for wrong in ("ab", None, 3, {"a"}, [1], ["a", None], [["a"]]):
        with pytest.raises(TypeError, match=r"^names must be a sequence of str, got "):
            _validate.names("names", wrong)
    with pytest.raises(ValueError, match=r"^names must differ from each other, got 'a' twice"):
        _validate.names("names", ["a", "b", "a"])


def test_a_path_is_a_str_or_a_path():
    assert _validate.path("p", "a/b") == Path("a/b") == _validate.path("p", Path("a/b"))
    for wrong in (3, None, b"a", ["a"]):
        with pytest.raises(TypeError, match=r"^p must be a path or a str, got "):
            _validate.path("p", wrong)


ODD_TENSORS = [
    (torch.ones(2, device="meta"), "x must hold numbers, got a tensor of the meta device"),
    (torch.ones(2).to_sparse(), "x must be dense, got a tensor of layout torch.sparse_coo"),
    (torch.ones(2).to(torch.float8_e4m3fn), "x must hold floating-point numbers, got .*float8"),
    (torch.ones(2).to(torch.float8_e5m2), "x must hold floating-point numbers, got .*float8"),
    (torch.ones(2) + 0j, "x must hold floating-point numbers, got torch.complex64"),
]


@pytest.mark.parametrize(("value", "message"), ODD_TENSORS)
def test_a_tensor_without_numbers_to_compute_with_is_refused(value, message):
    for check in (_validate.floating, _validate.batch):
        with pytest.raises(TypeError, match=f"^{message}"):
            check("x", value)


def test_an_empty_batch_of_steps_is_valid():
    none = torch.zeros(0, dtype=torch.int64)
    assert _validate.steps("t", none, batch=0, low=1, high=5) is none


# --- random numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_normal_like_draws_what_torch_draws(dtype):
    x = torch.zeros(3, 4, dtype=dtype)
    state = torch.get_rng_state()
    drawn = normal_like(x, seeded(1))
    assert torch.equal(drawn, torch.randn(3, 4, generator=seeded(1), dtype=dtype))
    assert drawn.dtype == dtype
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    expected = torch.randn(3, 4, dtype=dtype)
    torch.manual_seed(2)
    assert torch.equal(normal_like(x), expected)


def test_normal_like_is_standard_normal_and_draws_different_numbers():
    x = normal_like(torch.zeros(100_000), seeded(1)).double()
    assert abs(x.mean()) < 4.5 / math.sqrt(100_000)
    assert abs(x.var() - 1) < 4.5 * math.sqrt(2 / 100_000)
    assert abs((x**4).mean() - 3) < 4.5 * math.sqrt(96 / 100_000)  # a uniform draw has 9/5
    assert len(x.unique()) > 90_000


def test_uniform_is_evenly_spread_over_0_to_1():
    state = torch.get_rng_state()
    u = uniform(100_000, seeded(1))
    assert torch.equal(u, uniform(100_000, seeded(1)))
    assert torch.equal(torch.get_rng_state(), state)
    assert ((u >= 0) & (u < 1)).all()
    seen = torch.bincount((u * 20).long(), minlength=20).double()
    statistic = ((seen - 5000) ** 2 / 5000).sum()
    assert abs(statistic - 19) < 4.5 * math.sqrt(38)


def test_mistakes_of_the_caller_have_a_class_of_their_own():
    """A command line can tell them from bugs, and callers can still catch the built-in classes."""
    for raised, builtin in [
        (lambda: _validate.whole_number("n", -1, at_least=0), ValueError),
        (lambda: _validate.one_of("name", "x", ["a"]), ValueError),
        (lambda: _validate.whole_number("n", "1", at_least=0), TypeError),
        (lambda: _validate.floating("x", [1.0]), TypeError),
    ]:
        with pytest.raises(_validate.UserError) as caught:
            raised()
        assert isinstance(caught.value, builtin)
    assert issubclass(_validate.FileError, OSError)
    assert not issubclass(ValueError, _validate.UserError)


def test_whole_number_has_an_upper_bound_where_one_is_given():
    assert _validate.whole_number("n", 5, at_least=1, at_most=5) == 5
    with pytest.raises(ValueError, match=r"^n must be at most 5, got 6: because$"):
        _validate.whole_number("n", 6, at_least=1, at_most=5, why="because")


@pytest.mark.parametrize("power", [400, 5000])
@pytest.mark.parametrize("sign", [1, -1])
def test_ints_of_many_digits_are_refused_in_short_words(sign, power):
    value = sign * 10**power
    for check in (
        lambda: _validate.whole_number("n", value, at_least=0, at_most=9),
        lambda: _validate.seed("n", value),
        lambda: _validate.number("n", value, low=0.0, high=1.0),
        lambda: _validate.number("n", value, low=0.0, high=math.inf),
        lambda: _validate.text("n", value),
        lambda: _validate.boolean("n", (value,)),
    ):
        with pytest.raises((ValueError, TypeError), match=r"^n must be ") as caught:
            check()
        assert len(str(caught.value)) < 80


@given(st.integers())
def test_an_int_is_shown_by_its_digits_or_its_size(value):
    for number in (value, value * 10**40):
        shown = _validate.shown(number)
        if len(str(abs(number))) <= 40:
            assert shown == str(number)
        else:
            power = int(shown.rpartition("^")[2])
            assert 10 ** (power - 1) < abs(number) < 10 ** (power + 1)
            assert ("-" in shown) == (number < 0)
