"""What a check does with answers of every kind, including hostile ones."""

import array
import builtins
import contextlib
import decimal
import gc
import logging
import math
import os
import random
import re
import signal
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from tutorial_lib.checks.framework import (
    Choice,
    Exercise,
    Mistake,
    Number,
    Property,
    Result,
    Wrong,
    run,
    time_limit,
)

pytestmark = pytest.mark.plain_errors


def _scale(x, factor):
    return x * factor


def _cases(generator):
    for shape in ((1, 3), (2, 2), (4, 5)):
        yield torch.randn(shape, generator=generator), 3.0


def make(**changes) -> Exercise:
    fields = {
        "difficulty": 1,
        "minutes": 1,
        "hints": ("Multiply.",),
        "model_answer": _scale,
        "cases": _cases,
        "mistakes": (
            Mistake("added", lambda x, factor: x + factor, "This adds; it should multiply."),
            Mistake("rows lost", lambda x, factor: x[:1] * factor, "Only the first row is left."),
            Mistake("wrong axis", lambda x, f: x @ torch.ones(3, 3) * f, "That is a product of …"),
        ),
    }
    return Exercise("lesson99.scale", "Scaling", **fields | changes)


SCALE = make()
HASTY = make(seconds=0.4)  # only for answers that are meant to run out of time


def failed(result: Result, stage: str, *words: str) -> None:
    assert (result.outcome, result.stage) == ("failed", stage), str(result)
    for word in words:
        assert word in result.message, result.message


def _times(x: list, factor: float) -> list:
    return [factor * entry for entry in x]


def _lists(generator):
    yield [1, 2], 3.0
    yield [4.5], 2.0


class TestOverwrittenArguments:
    """A right answer passes, and its writer is warned: the caller's own numbers change."""

    @pytest.mark.parametrize(
        "answer",
        [
            lambda x, factor: x.mul_(factor),
            lambda x, factor: (x * factor, x.zero_())[0],
            lambda x, factor: np.multiply(x.numpy(), factor, out=x.numpy()),
            lambda x, factor: (x * factor, x.t_())[0],
            lambda x, *, factor: x.mul_(factor),
            lambda *everything: everything[0].mul_(everything[1]),
        ],
    )
    def test_a_tensor(self, answer):
        result = SCALE.check(answer)
        assert result.passed
        assert "overwrites its argument `x`" in result.message
        assert "`x *= 2` changes the caller's" in result.message

    def test_a_list(self):
        def reverses(x, factor):
            x.reverse()
            return _times(x, factor)[::-1]

        exercise = make(model_answer=_times, cases=_lists, mistakes=())
        assert "Take care" not in exercise.check(_times).message
        result = exercise.check(reverses)
        assert result.passed
        assert "`x.reverse()`" in result.message

    def test_an_array(self):
        def grows(x, factor):
            x *= factor
            return x

        exercise = make(cases=lambda generator: [(np.ones((2, 3)), 3.0)], mistakes=())
        assert "Take care" not in exercise.check(_scale).message
        assert "makes a new array" in exercise.check(grows).message

    def test_after_the_call_by_a_generator(self):
        def walk(x, factor):
            yield x * factor
            x.zero_()

        def last(answer, x, factor):
            return list(answer(x, factor))[-1]

        exercise = make(model_answer=lambda x, factor: iter([x * factor]), use=last, mistakes=())
        assert "Take care" not in exercise.check(lambda x, factor: iter([factor * x])).message
        assert "its argument `x`" in exercise.check(walk).message

    def test_wrong_numbers_come_first(self):
        result = SCALE.check(lambda x, factor: x.mul_(2 * factor))
        failed(result, "values")
        assert "Take care" not in result.message

    def test_what_stays_the_same_is_no_matter(self):
        assert "Take care" not in SCALE.check(lambda x, factor: x.mul_(1) * factor).message

    def test_not_a_number_is_equal_to_itself(self):
        exercise = make(
            model_answer=lambda x, factor: x.nan_to_num() * factor,
            cases=lambda generator: [(torch.tensor([[1.0, torch.nan]]), 2.0)],
            mistakes=(),
        )
        result = exercise.check(lambda x, factor: factor * torch.nan_to_num(x))
        assert result.passed
        assert "Take care" not in result.message


class TestRightAnswers:
    def test_the_model_answer(self):
        result = SCALE.check(_scale)
        assert (result.outcome, result.stage, result.mistake) == ("passed", "passed", None)
        assert result.passed

    @pytest.mark.parametrize(
        "answer",
        [
            lambda x, factor: x.numpy() * factor,
            lambda x, factor: x.double() * factor,
            lambda x, factor: (x.numpy() * factor).tolist(),
            lambda x, factor: [row * factor for row in x],
            lambda other, names, extra=1: other * names * extra,
            lambda *everything: everything[0] * everything[1],
            lambda x, *, factor: x * factor,
            lambda *, factor, x: x * factor,
            lambda x, factor: (x * factor).requires_grad_(),
            lambda x, factor: np.flip(np.flip(x.numpy() * factor, 0), 0),
            lambda x, factor: (x.numpy() * factor).astype(np.longdouble),
            lambda x, factor: (x.numpy() * factor).astype(">f4"),
            lambda x, factor: [[Fraction(v) * 3 for v in row] for row in x.tolist()],
            lambda x, factor: [[Decimal(v) * 3 for v in row] for row in x.tolist()],
            lambda x, factor: [array.array("d", (row * factor).tolist()) for row in x],
            lambda x, factor: reversed([row * factor for row in x.flip(0)]),
        ],
    )
    def test_other_ways_to_write_it(self, answer):
        assert SCALE.check(answer).outcome == "passed"

    def test_a_callable_object_and_a_method_and_a_partial(self):
        class Scaler:
            def __call__(self, x, factor):
                return x * factor

            def method(self, x, factor):
                return factor * x

        assert SCALE.check(Scaler()).passed
        assert SCALE.check(Scaler().method).passed
        assert SCALE.check(torch.mul).passed

    def test_a_result_that_the_next_call_overwrites(self):
        buffer = torch.empty(100)

        def answer(x, factor):
            out = buffer[: x.numel()].view(x.shape)
            return out.copy_(x * factor)

        assert SCALE.check(answer).passed

    def test_several_parts_as_a_tuple_list_dict_or_named_tuple(self):
        pair = namedtuple("pair", "low high")
        exercise = make(model_answer=lambda x, f: (x, x * f), parts=("low", "high"), mistakes=())
        assert exercise.check(lambda x, f: [x, x * f]).passed
        assert exercise.check(lambda x, f: pair(x, x * f)).passed
        assert exercise.check(lambda x, f: {"high": x * f, "low": x}).passed
        failed(exercise.check(lambda x, f: x), "shape", "2 things", "(low, high)")
        failed(exercise.check(lambda x, f: (x, x)), "values", "`high`")

    def test_infinity_where_infinity_is_right(self):
        exercise = make(model_answer=lambda x, f: x / torch.zeros_like(x), mistakes=())
        assert exercise.check(lambda x, f: x.sign() * math.inf).passed
        failed(exercise.check(lambda x, f: x), "values")

    def test_a_range_read_backwards_for_a_list_of_numbers(self):
        exercise = make(model_answer=lambda x, f: list(range(9, -1, -3)), mistakes=())
        for answer in (
            range(9, -1, -3),
            [9, 6, 3, 0],
            np.array([9, 6, 3, 0], dtype=np.uint16),
            (9, 6, 3, 0),
        ):
            assert exercise.check(lambda x, f, answer=answer: answer).passed
        assert exercise.check(lambda x, f: reversed(range(0, 10, 3))).passed

    def test_a_python_number_for_a_scalar(self):
        exercise = make(model_answer=lambda x, f: x.mean() * 0 + f, mistakes=())
        for answer in (lambda x, f: 3, lambda x, f: 3.0, lambda x, f: np.float32(3)):
            assert exercise.check(answer).passed
        failed(exercise.check(lambda x, f: x), "shape", "single number")


class TestNotAttempted:
    def test_stubs(self):
        def dots(x, factor): ...

        def documented(x, factor):
            """Multiply."""

        def returned(x, factor):
            return ...

        def two(x, factor):
            low = ...
            return low, ...

        def calculated(x, factor):
            scaled = ... * x
            return scaled

        def method(x, factor):
            scaled = ...
            return scaled.sum()  # pyright: ignore[reportAttributeAccessIssue]

        class Net:
            def __init__(self, x, factor):
                self.x = x

            def forward(self, x): ...

        for stub in (..., None, dots, documented, returned, two, calculated, method, Net):
            result = SCALE.check(stub)
            assert (result.outcome, result.stage) == ("not attempted", "not attempted"), stub
            assert "lesson99.scale.hint(1)" in result.message

    def test_a_constant_is_an_attempt(self):
        def constant(x, factor):
            return 5

        failed(SCALE.check(constant), "shape", "yours has shape ()")


class TestStages:
    def test_an_exception_shows_the_learners_line(self):
        def answer(x, factor):
            y = x * factor
            return y.reshape(7, 7)  # does not fit

        result = SCALE.check(answer)
        failed(result, "raised", "RuntimeError", "invalid for input", "return y.reshape(7, 7)")
        line = answer.__code__.co_firstlineno + 2
        assert f"Line {line}:" in result.message

    def test_a_helper_functions_line(self):
        def helper(x):
            raise KeyError("nobody")

        failed(SCALE.check(lambda x, f: helper(x)), "raised", "KeyError", "raise KeyError")

    def test_too_few_arguments(self):
        failed(SCALE.check(lambda x: x), "raised", "does not take the arguments")

    def test_an_exception_whose_text_raises(self):
        class BrokenError(Exception):
            def __str__(self):
                raise ValueError("no text")

        def answer(x, factor):
            raise BrokenError

        failed(SCALE.check(answer), "raised", "BrokenError")

    def test_forgotten_return(self):
        def answer(x, factor):
            x * factor

        failed(SCALE.check(answer), "shape", "return")

    def test_result_instead_of_function(self):
        failed(SCALE.check(torch.ones(2)), "shape", "without calling it", "(2,)")

    @pytest.mark.parametrize(
        ("answer", "word"),
        [
            (lambda x, f: (x * f)[None], "Expected shape (1, 3), yours has shape (1, 1, 3)"),
            (lambda x, f: "text", "a str"),
            (lambda x, f: object(), "an object"),
            (lambda x, f: [], "a list of 0"),
            (lambda x, f: (n for n in x), "yield"),
            (lambda x, f: {"a": x}, "a dict"),
            (lambda x, f: (x * f).long(), "whole numbers"),
            (lambda x, f: x > f, "True / False"),
            (lambda x, f: (x * f).to(torch.complex64), "complex"),
            (lambda x, f: (x * f).to("meta"), "device=x.device"),
            (lambda x, f: np.array(["a"]), "an array"),
        ],
    )
    def test_shape_kind_and_device(self, answer, word):
        failed(SCALE.check(answer), "shape", word)

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_not_finite(self, bad):
        def answer(x, factor):
            y = x * factor
            y[-1, -1] = bad
            return y

        word = "NaN" if math.isnan(bad) else "infinite"
        failed(SCALE.check(answer), "finite", word, "1 of 3", "[0, 2]")

    def test_values_show_the_first_difference(self):
        def answer(x, factor):
            y = x * factor
            y[0, 1] += 0.5
            return y

        result = SCALE.check(answer)
        failed(result, "values", "1 of 3 numbers")
        assert result.difference is not None
        assert result.difference.index == (0, 1)
        assert result.difference.max_abs_error == pytest.approx(0.5, abs=1e-5)
        assert result.difference.yours - result.difference.expected == pytest.approx(0.5, abs=1e-5)
        assert result.where == "x = shape (1, 3), factor = 3"

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (lambda x, f: -x * f, "opposite sign"),
            (lambda x, f: x, "times 0.3333"),
            (lambda x, f: x * f + 2, "plus 2"),
        ],
    )
    def test_simple_differences_are_described(self, answer, words):
        failed(SCALE.check(answer), "values", words)

    def test_an_answer_for_batch_one_only(self):
        def answer(x, factor):
            return torch.cat([x[:1] * factor, x[1:]])

        failed(
            SCALE.check(answer),
            "values",
            "The first entry along axis 0 is right",
        )

    def test_where_the_numbers_are_wrong(self):
        def told(answer, words: str, **changes):
            result = make(mistakes=(), **changes).check(answer)
            failed(result, "values", words)
            assert result.is_located
            assert len(result.message) <= 300

        def pictures(generator):
            for shape, t in (
                ((2, 1, 4, 4), [1, 5]),
                ((1, 3, 4, 4), [4]),
                ((3, 2, 4, 4), [1, 6, 1]),
            ):
                yield torch.randn(shape, generator=generator), torch.tensor(t)

        def by_t(x, t):
            return x * t[:, None, None, None]

        def first_only(x, t):
            return torch.cat([by_t(x, t)[:1], x[1:] * 0.7])

        told(lambda x, f: x * f + (len(x) > 3), "Right in 2 of 3 cases; wrong where `len(x)` is 4")
        told(lambda x, f: (x * f) ** 2, "the square of the expected one")
        told(lambda x, f: x, "Your result is `x` itself", model_answer=lambda x, f: x**3)
        told(lambda x, f: (x * f).flip(0).flip(1), "in another order")
        told(lambda x, f: torch.full_like(x, 2.0), "All your numbers are 2")
        both = {"model_answer": by_t, "cases": pictures}
        told(lambda x, t: by_t(x, t.clamp(min=2)), "where `t` is 1; right for the others", **both)
        told(first_only, "The first sample of the batch is right, later ones are not", **both)
        last = torch.tensor([1.0, 1, 1, 2])
        told(lambda x, t: by_t(x, t) * last, "The first entry along axis 3", **both)

    def test_factors_of_a_sum_are_told_one_by_one(self):
        def pairs(generator):
            for shape in ((2, 8), (1, 3, 4), (3, 2, 2, 5)):
                yield (*torch.randn(2, *shape, generator=generator), torch.rand(shape[0]) + 0.2)

        def mixed(x, eps, a):
            a = a.reshape(-1, *[1] * (x.ndim - 1))
            return a * x + (1 - a) * eps

        exercise = make(model_answer=mixed, cases=pairs, mistakes=())
        result = exercise.check(lambda x, eps, a: mixed(x, 2 * eps, a))
        failed(result, "values", "the factor of `eps` is", "That of `x` is right")
        result = exercise.check(lambda x, eps, a: mixed(x, eps, a) + 1)
        failed(result, "values", "plus 1")
        result = exercise.check(lambda x, eps, a: mixed(x, eps, a).clamp(-1, 1))
        failed(result, "values", "Is something clamped")
        assert exercise.check(mixed).passed

    def test_two_mistakes_at_once_and_one_in_a_part(self):
        def answer(x, f, low=1.0, high=1.0):
            return low * x + f, high * x.square() - f

        slips = (
            Mistake("low", lambda x, f: answer(x, f, low=2.0), "Low is doubled."),
            Mistake("high", lambda x, f: answer(x, f, high=3.0), "High is tripled."),
            Mistake("both", lambda x, f: (x, x), "Both are x."),
        )
        exercise = make(model_answer=answer, mistakes=slips, parts=("low", "high"))
        result = exercise.check(lambda x, f: answer(x, f, 2.0, 3.0))
        assert result.mistake == "low and high"
        failed(result, "values", "`low`: Low is doubled.\n`high`: High is tripled.")
        result = exercise.check(lambda x, f: (x.exp(), answer(x, f)[1]))
        failed(result, "values", "`high` is right. `low`:")
        assert result.mistake is None
        single = make(
            model_answer=lambda x, f: x.sin() + f * x.square(),
            mistakes=(
                Mistake("cos", lambda x, f: x.cos() + f * x.square(), "The first is a sine."),
                Mistake("root", lambda x, f: x.sin() + f**0.5 * x.square(), "No root of f."),
            ),
        )
        result = single.check(lambda x, f: x.cos() + f**0.5 * x.square())
        assert result.mistake == "cos and root"
        result = single.check(lambda x, f: -x.cos() - f * x.square())
        failed(result, "values", "The first is a sine. And its sign is wrong.")
        result = single.check(
            lambda x, f: (x.cos() if len(x) == 4 else x.sin()) + f * x.square(),
        )
        failed(result, "values", "Right in 2 of 3 cases. In the others: The first is a sine.")

    def test_what_is_near_a_mistake_but_nearer_the_right_answer_is_not_named(self):
        exercise = make(
            model_answer=lambda x, f: torch.tensor([0.2, 0.999]),
            mistakes=(Mistake("not cut", lambda x, f: torch.tensor([0.2, 1.0]), "It is 1."),),
        )
        assert exercise.check(lambda x, f: torch.tensor([0.2, 1.0])).mistake == "not cut"
        result = exercise.check(lambda x, f: torch.tensor([0.2, 0.9999]))
        assert result.mistake is None
        failed(result, "values", "The first entry along axis 0 is right, later ones are not")

    def test_numbers_are_shown_as_the_learner_wrote_them(self):
        exercise = make(
            model_answer=lambda x, f: torch.tensor([0.5, 1e-9]),
            scale=torch.log,
            mistakes=(Mistake("zero", lambda x, f: torch.tensor([0.5, 0.0]), "Not quite 0."),),
        )
        assert exercise.check(lambda x, f: torch.tensor([0.5, 1.00001e-9])).passed
        assert exercise.check(lambda x, f: torch.tensor([0.5, 0.0])).mistake == "zero"
        result = exercise.check(lambda x, f: torch.tensor([0.5, 2e-9]))
        failed(result, "values", "The first entry along axis 0 is right, later ones are not")
        assert result.difference is not None
        assert (result.difference.expected, result.difference.yours) == pytest.approx((1e-9, 2e-9))

    @pytest.mark.parametrize(
        ("answer", "why"),
        [
            (lambda x, f: (-1 - x.abs()).sqrt(), "a root is taken of a negative number, -"),
            (lambda x, f: (x * 0) / (f - 3), "0 is divided by 0"),
            (lambda x, f: x / (f - 3), "a number is divided by 0"),
            (lambda x, f: (x * 0).log(), "a logarithm is taken of 0"),
            (lambda x, f: (x + 900).exp(), "`exp` is taken of a number that is too large"),
            (lambda x, f: x.numpy() / np.float32(f - 3), "NumPy says: divide by zero"),
        ],
    )
    def test_the_line_where_a_number_gets_lost(self, answer, why: str):
        result = make(mistakes=()).check(answer)
        failed(result, "finite", why, f"Line {answer.__code__.co_firstlineno}: `(lambda x, f:")
        assert result.is_located

    def test_a_function_among_the_arguments_is_called_one(self):
        def functions(generator):
            yield (torch.randn(2, 2, generator=generator), lambda x: x)

        result = make(model_answer=lambda x, model: x, cases=functions, mistakes=()).check(
            lambda x, model: x**2
        )
        assert result.where == "x = shape (2, 2), model = a function"

    def test_the_earliest_stage_of_all_cases_decides(self):
        def answer(x, factor):
            if len(x) == 4:
                raise ValueError("four")
            return x

        failed(SCALE.check(answer), "raised", "four")

    def test_known_mistakes_of_value_of_shape_and_that_raise(self):
        for mistake in SCALE.mistakes:
            result = SCALE.check(mistake.answer)
            assert (result.mistake, result.message) == (mistake.name, mistake.message)
        stages = [SCALE.check(mistake.answer).stage for mistake in SCALE.mistakes]
        assert stages == ["values", "shape", "raised"]

    def test_a_mistake_is_named_only_if_it_fits_every_case(self):
        def added_once(x, factor):
            return x + factor if len(x) == 1 else x - factor

        result = SCALE.check(added_once)
        failed(result, "values")
        assert result.mistake is None

    def test_a_mistake_written_differently_is_named_too(self):
        assert SCALE.check(lambda a, b: (a.double() + b).numpy()).mistake == "added"

    def test_properties(self):
        def twice_is_nine(answer):
            return torch.allclose(answer(answer(torch.ones(1), 3.0), 3.0), torch.tensor(9.0))

        message = "Scaling twice by 3 is scaling by 9."
        exercise = make(properties=(Property(message, twice_is_nine, mistake="forgets"),))
        assert exercise.check(_scale).passed
        calls = []

        def only_while_asked(x, factor):
            calls.append(1)
            return x * factor if len(calls) <= 3 else x

        result = exercise.check(only_while_asked)
        failed(result, "properties", message)
        assert result.mistake == "forgets"

    def test_use_and_wrong(self):
        def use(answer, x, factor):
            net = answer(factor)
            if not hasattr(net, "run"):
                raise Wrong("shape", "Your class has no method `run`.", "no run")
            return net.run(x)

        class Net:
            def __init__(self, factor):
                self.factor = factor

            def run(self, x):
                return x * self.factor

        class Empty:
            def __init__(self, factor):
                self.factor = factor

        exercise = make(use=use, model_answer=Net, reference=_scale, mistakes=())
        assert exercise.check(Net).passed
        result = exercise.check(Empty)
        failed(result, "shape", "no method")
        assert result.mistake == "no run"

    def test_wrong_needs_a_known_stage(self):
        with pytest.raises(ValueError, match="stage must be one of"):
            Wrong("color", "…")

    def test_a_broken_reference_is_reported_as_the_authors_error(self):
        with pytest.raises(RuntimeError, match="reference of lesson99"):
            make(reference=lambda x, f: x.nothing).check(_scale)


class TestTheWorldStaysAsItWas:
    def test_random_states_and_defaults(self):
        def answer(x, factor):
            torch.manual_seed(5), np.random.seed(5), random.seed(5)  # noqa: NPY002
            torch.randn(3), np.random.rand(3), random.random()  # noqa: NPY002
            torch.set_default_dtype(torch.float64)
            torch.set_default_device("meta")
            torch.set_grad_enabled(False)
            np.seterr(all="raise")
            sys.setrecursionlimit(5000)
            os.chdir("/")
            return x * factor

        def state():
            return (
                torch.get_rng_state().tolist(),
                str(np.random.get_state()),  # noqa: NPY002
                random.getstate(),
                torch.get_default_dtype(),
                torch.get_default_device(),
                torch.is_grad_enabled(),
                np.geterr(),
                sys.getrecursionlimit(),
                os.getcwd(),
                signal.getsignal(signal.SIGALRM),
                signal.getitimer(signal.ITIMER_REAL),
                sys.stdout,
            )

        with torch.no_grad():  # grad mode of the caller is kept too
            before = state()
            assert SCALE.check(answer).passed
            SCALE.check(lambda x, factor: torch.manual_seed(5))
            assert state() == before

    def test_a_notebook_with_its_own_defaults(self):
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        try:
            assert SCALE.check(_scale).passed
            assert torch.get_default_dtype() == torch.float64
            assert torch.get_default_device().type == "meta"
        finally:
            torch.set_default_dtype(torch.float32)
            torch.set_default_device(None)

    def test_the_result_does_not_depend_on_the_callers_seed(self):
        def noisy(x, factor):
            return x * factor + torch.randn(()) * 10

        messages = set()
        for seed in range(3):
            torch.manual_seed(seed)
            messages.add(str(SCALE.check(noisy)))
        assert len(messages) == 1

    def test_the_callers_own_timer_keeps_running(self):
        fired = []
        old = signal.signal(signal.SIGALRM, lambda *_: fired.append(1))
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.15)
            SCALE.check(_scale)
            deadline = time.monotonic() + 30
            while not fired and time.monotonic() < deadline:
                time.sleep(0.02)
            assert fired == [1]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)

    def test_prints_are_shortened_and_shown(self, capsys):
        def chatty(x, factor):
            print("<b>look</b>" + "x" * 10_000)
            return x + 1

        result = SCALE.check(chatty)
        assert capsys.readouterr().out == ""
        assert len(result.printed) <= 3 * run.PRINT_LIMIT
        assert "&lt;b&gt;look" in result._repr_html_()

    def test_quitting_is_caught_but_an_interrupt_is_not(self):
        def quits(x, factor):
            sys.exit(3)

        def interrupted(x, factor):
            raise KeyboardInterrupt

        failed(SCALE.check(quits), "raised", "quit")
        with pytest.raises(KeyboardInterrupt):
            SCALE.check(interrupted)
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)

    def test_recursion_and_memory(self):
        def deep(x, factor):
            return deep(x, factor)

        failed(SCALE.check(deep), "raised", "calls itself")
        failed(SCALE.check(lambda x, f: torch.empty(10**15)), "raised", "memory")
        failed(SCALE.check(lambda x, f: np.empty(10**15)), "raised", "memory")


def forever(x, factor):
    while True:
        pass


def swallows(x, factor):
    while True:
        try:  # noqa: SIM105
            time.sleep(1)
        except:  # noqa: E722
            pass


def swallows_twice(x, factor):
    while True:
        try:
            try:
                time.sleep(1)
            except BaseException:
                factor += 1
        except:  # noqa: E722
            factor -= 1


def swallows_exceptions(x, factor):
    while True:
        try:  # noqa: SIM105
            x = x * 1
        except Exception:
            pass


def prints_forever(x, factor):
    while True:
        print("again and again")


ENDLESS = [forever, swallows, swallows_twice, swallows_exceptions, prints_forever]


class TestEndlessLoops:
    @pytest.mark.parametrize("answer", ENDLESS)
    def test_stops_in_the_main_thread(self, answer):
        trace, worked = sys.gettrace(), time.thread_time()  # not the clock: others may be busy
        failed(HASTY.check(answer), "raised", "0.4 seconds")
        assert time.thread_time() - worked < 3
        assert sys.gettrace() is trace

    @pytest.mark.parametrize("answer", [forever, swallows_exceptions, prints_forever])
    def test_stops_in_another_thread(self, answer):
        results = []
        thread = threading.Thread(target=lambda: results.append(HASTY.check(answer)), daemon=True)
        thread.start()
        thread.join(60)
        failed(results[0], "raised", "0.4 seconds")

    def test_stops_without_signals_as_on_windows(self, monkeypatch):
        monkeypatch.delattr(signal, "setitimer")
        failed(HASTY.check(forever), "raised", "0.4 seconds")
        assert SCALE.check(_scale).passed

    @pytest.mark.parametrize("how", ["timer", "handler", "both"])
    def test_stops_an_answer_that_switches_the_timer_off(self, monkeypatch, how: str):
        def answer(x, factor):
            if how != "handler":
                signal.setitimer(signal.ITIMER_REAL, 0)
            if how != "timer":
                signal.signal(signal.SIGALRM, signal.SIG_IGN)
            while True:
                pass

        monkeypatch.setattr(time_limit, "LATER", 0.1)
        handler = signal.getsignal(signal.SIGALRM)
        failed(HASTY.check(answer), "raised", "0.4 seconds")
        assert signal.getsignal(signal.SIGALRM) is handler

    def test_a_busy_machine_is_no_fault_of_the_answer(self, monkeypatch):
        """The clock says that it took long, but hardly any of that was this thread's work."""
        monkeypatch.setattr(time_limit, "BUSY", 1e6)
        waited = threading.Event()
        assert time_limit.call_within(lambda: waited.wait(0.4), 0.1) is False
        monkeypatch.setattr(time_limit, "BUSY", 1.0)
        with pytest.raises(time_limit.TimeUp):
            time_limit.call_within(lambda: waited.wait(60), 0.1)

    def test_time_is_up_once_and_not_once_per_case(self):
        calls = []

        def slow(x, factor):
            calls.append(1)
            time.sleep(2)

        failed(HASTY.check(slow), "raised")
        assert len(calls) == 1

    def test_an_alarm_that_comes_too_late_does_nothing(self, monkeypatch):
        """The last moment at which it can come: the call has ended, the timer not yet stopped."""
        late, setitimer = [], signal.setitimer

        def ring_first(which, seconds, interval=0.0):
            if seconds == 0:
                late.append(signal.getsignal(signal.SIGALRM))
                signal.raise_signal(signal.SIGALRM)
            return setitimer(which, seconds, interval)

        monkeypatch.setattr(signal, "setitimer", ring_first)
        assert time_limit.call_within(lambda: "an answer", 60) == "an answer"
        assert len(late) == 1
        assert callable(late[0]), "our handler was still there, and let the alarm pass"
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)

    def test_an_exception_that_comes_too_late_is_waited_for(self, monkeypatch):
        """As on Windows: asked for while the answer runs, it comes when that has ended."""
        asked, raise_in = threading.Event(), time_limit._raise_in
        came = []

        def late(thread, kind):
            if threading.get_ident() == thread:
                came.append(1)
                raise_in(thread, kind)
            asked.set()

        monkeypatch.setattr(time_limit, "_raise_in", late)
        answer = time_limit._call_with_thread(lambda: asked.wait(60) and "an answer", 0.01)
        assert answer == "an answer"
        assert came == [1]
        sys.setprofile(lambda *_: None)  # would never end if a mark were left
        sys.setprofile(None)

    def test_an_alarm_while_python_tidies_up_is_lost_without_a_report(self):
        """Python ignores what `__del__` raises, and reports it; pytest makes an error of that."""
        reached = []

        class Slow:
            def __del__(self):
                while True:
                    reached.append(1)
                    time.sleep(0.01)

        def answer():
            Slow()
            return "an answer"

        hook = sys.unraisablehook
        assert time_limit.call_within(answer, 0.1) == "an answer"
        assert reached
        assert sys.unraisablehook is hook

    def test_what_others_lose_is_reported_as_ever(self, monkeypatch):
        class Broken:
            def __del__(self):
                raise KeyError("lost")

        reports = []
        monkeypatch.setattr(sys, "unraisablehook", lambda lost: reports.append(lost.exc_type))
        time_limit.call_within(lambda: Broken() and None, 60)
        assert reports == [KeyError]

    def test_code_after_the_call_is_never_interrupted(self):
        for _ in range(300):  # the call and the alarm end at about the same moment
            with contextlib.suppress(time_limit.TimeUp):
                time_limit.call_within(lambda: time.sleep(0.0004), 0.0005)
        time.sleep(0.1)
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


class TestShowing:
    def test_html_is_escaped_and_says_the_outcome_in_words(self):
        def answer(x, factor):
            raise ValueError("<script>alert(1)</script>")

        page = SCALE.check(answer)._repr_html_()
        assert "<script>" not in page
        assert "&lt;script&gt;" in page
        assert "role='status'" in page
        assert "Not yet: Scaling" in page

    def test_text_says_the_same(self):
        text = str(SCALE.check(lambda x, f: x + f))
        assert "✗ Not yet: Scaling" in text
        assert "This adds" in text
        assert "largest error" in text
        assert "✓ Passed" in str(SCALE.check(_scale))

    def test_images_are_side_by_side_with_alternative_text(self):
        def pictures(generator):
            yield torch.rand(2, 1, 8, 8, generator=generator), 1.0

        page = make(cases=pictures).check(lambda x, f: -x)._repr_html_()
        assert "alt='two pictures, sample 0" in page
        assert "data:image/png;base64,iVBOR" in page
        assert len(page) < 20_000

    def test_curves(self):
        def curve(generator):
            yield torch.rand(50, generator=generator), 2.0

        page = make(cases=curve).check(lambda x, f: torch.full_like(x, math.nan))._repr_html_()
        assert "alt='two curves" in page

    def test_colors_come_from_the_theme(self):
        page = SCALE.check(_scale)._repr_html_()
        assert not re.search(r"(?<!-)\bcolor: (?!inherit)", page)
        assert "color: inherit" in page

    def test_hint_and_solution(self):
        note = SCALE.hint()
        assert str(note) == "Hint 1 of 1: Scaling\nMultiply."
        assert "role='note'" in note._repr_html_()
        solution = SCALE.solution()
        assert solution.source == "def scale(x, factor):\n    return x * factor\n"
        for n in (0, 2, -1, "1"):
            with pytest.raises(ValueError, match=r"n must be in 1\.\.1"):
                SCALE.hint(n)  # type: ignore[arg-type]

    def test_the_methods_that_notebooks_call(self):
        from IPython.core.formatters import DisplayFormatter

        formatted, _ = DisplayFormatter().format(SCALE.check(_scale))
        assert set(formatted) == {"text/plain", "text/html"}
        assert formatted["text/plain"].startswith("✓ Passed: Scaling")


class TestQuestions:
    choice = Choice(
        "lesson99.choice",
        "Which?",
        hints=("Think.",),
        right="b",
        options={"a": "Too early.", "b": "Right, because.", "c": "Too late."},
    )
    number = Number(
        "lesson99.number",
        "How many?",
        hints=("Count.",),
        value=lambda: 6.4e-3,
        rtol=0.02,
        mistakes=(Mistake("no root", 4.04e-5, "Take the root."),),
        why="sqrt(4.04e-5).",
    )

    def test_choice(self):
        assert self.choice.check("b").message == "Right, because."
        result = self.choice.check("C")
        assert (result.outcome, result.mistake, result.message) == (
            "failed",
            "option c",
            "Too late.",
        )
        for odd in ("d", "ab", 2, ["b"], b"b", torch.ones(3)):
            failed(self.choice.check(odd), "shape", "a, b, c")
        for stub in (..., None, "", "..."):
            assert self.choice.check(stub).outcome == "not attempted"
        assert "b: Right" in str(self.choice.solution())

    def test_number(self):
        for right in (6.4e-3, np.float32(6.41e-3), torch.tensor([6.4e-3]), 0.0065):
            assert self.number.check(right).passed
        assert self.number.check(4e-5).mistake == "no root"
        failed(self.number.check(0.1), "values", "too large")
        failed(self.number.check(-0.1), "values", "too small")
        failed(self.number.check(math.nan), "finite")
        for odd in ("6.4e-3", True, 1j, [1.0, 2.0], torch.ones(2), lambda: 6.4e-3, object()):
            failed(self.number.check(odd), "shape", "one number")
        for stub in (..., None):
            assert self.number.check(stub).outcome == "not attempted"
        assert "0.0064" in str(self.number.solution())


class _ExitsError(Exception):
    def __str__(self):
        raise SystemExit


class _Mirror:
    """Has every attribute, also ``__wrapped__``, which leads back to itself."""

    def __getattr__(self, name):
        return self

    def __call__(self, *arguments):
        return self


def _quits(x, factor):
    raise _ExitsError


def _tensors() -> Iterator[tuple[str, object]]:
    """Tensors of every type in every form that torch makes of them."""
    forms: dict[str, Callable[[torch.Tensor], object]] = {
        "plain": lambda x: x,
        "on meta": lambda x: x.to("meta"),
        "sparse": lambda x: x.to_sparse(),
        "compressed": lambda x: x.to_sparse_csr(),
        "named": lambda x: x.rename(*"ab"[: x.ndim]),
        "conjugate": lambda x: x.conj(),
        "negative view": lambda x: torch._neg_view(x),  # pyright: ignore[reportPrivateImportUsage]
        "parameter": torch.nn.Parameter,
        "expanded": lambda x: x.expand(4, *x.shape),
        "mkldnn": lambda x: x.to_mkldnn(),
        "quantized": lambda x: torch.quantize_per_tensor(x, 1.0, 0, torch.qint8),
        "nested": lambda x: torch.nested.nested_tensor([x, x]),
        "jagged": lambda x: torch.nested.nested_tensor([x, x], layout=torch.jagged),
    }
    for dtype in dict.fromkeys(d for d in vars(torch).values() if isinstance(d, torch.dtype)):
        for shape in ((), (2,)):
            for name, form in forms.items():
                try:
                    value = form(torch.zeros(shape).to(dtype))
                except (RuntimeError, TypeError, IndexError):  # torch makes no such tensor
                    continue
                yield f"{dtype} {shape} {name}", value


def _arrays() -> Iterator[tuple[str, object]]:
    for kind in dict.fromkeys(np.sctypeDict.values()):
        for shape in ((), (2, 2)):
            array_of_kind = np.zeros(shape, dtype=kind)
            yield f"array of {kind.__name__} {shape}", array_of_kind
            yield f"entry of {kind.__name__} {shape}", array_of_kind[()]
    yield "array with fields", np.zeros(2, dtype=[("a", "f4")])
    yield "masked array", np.ma.array([1.0, 2.0])


METHODS = (
    *("__repr__", "__str__", "__len__", "__iter__", "__eq__", "__bool__", "__hash__"),
    *("__getattr__", "__getattribute__", "__float__", "__index__", "__call__", "__array__"),
    *("__torch_function__", "__instancecheck__"),
)


def _hostile() -> Iterator[tuple[str, object]]:
    """Objects one of whose methods raises, or never ends."""

    def forever(*_):
        while True:
            pass

    for error in (ValueError, SystemExit, StopIteration):
        for method in METHODS:
            for base in (object, int, str, list, dict, tuple):

                def raises(*_, error=error):
                    raise error

                kind = type("Hostile", (base,), {method: raises})
                yield f"{base.__name__}, {method} raises {error.__name__}", kind()
    for method in ("__len__", "__iter__", "__eq__", "__repr__"):
        yield f"{method} never ends", type("Endless", (list,), {method: forever})()


def _python() -> Iterator[tuple[str, object]]:
    inside: list = []
    inside.append(inside)
    deep: object = 1.0
    for _ in range(5000):
        deep = [deep]
    things = [_Mirror(), type("", (), {})(), inside, {"a": inside}, deep, b"x", {1}, range(0), 1j]
    things += [10**400, -(10**400), Fraction(10**400), Decimal("NaN"), Decimal("sNaN"), math.nan]
    things += [int, type, torch, np, [...], iter([]), zip(), NotImplemented, "", "b" * 10**6]
    things += [torch.Generator(), torch.float32, torch.nn.Linear(1, 1), slice(1), [1, "a"]]
    things += [[[1], [1, 2]], [torch.ones(2), torch.ones(3)], (None, None), {"a": 1, "b": None}]
    things += [array.array("u", "ab"), np.array([None]), Exception, _quits, memoryview(b"abc")]
    yield from ((f"number {i}", thing) for i, thing in enumerate(things))


def _one_case(generator):
    yield torch.randn(2, 2, generator=generator), 3.0


ONE = make(cases=_one_case)
PAIR = make(cases=_one_case, model_answer=lambda x, f: (x, x * f), parts=("a", "b"), mistakes=())
HASTY_ONE = make(cases=_one_case, seconds=0.2)


@pytest.mark.long("a thousand strange values")
@pytest.mark.filterwarnings("ignore")  # torch calls many of these tensors experimental
@pytest.mark.parametrize("kind", [_tensors, _arrays, _hostile, _python])
def test_a_check_never_raises(kind: Callable[[], Iterator[tuple[str, object]]]):
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None  # methods that raise when deleted
    try:
        for name, value in kind():
            is_endless = "never ends" in name
            result = (HASTY_ONE if is_endless else ONE).check(lambda x, f, v=value: v)
            assert result.outcome in ("failed", "not attempted"), name
            assert str(result), name
            assert result._repr_html_(), name
            if is_endless:
                continue
            assert PAIR.check(lambda x, f, v=value: (v, v)).outcome == "failed", name
            for task in (ONE, TestQuestions.number, TestQuestions.choice):
                assert task.check(value).outcome in ("failed", "not attempted"), name
    finally:
        sys.unraisablehook = hook


def _settable() -> dict[str, tuple[Callable, Callable]]:
    """Every pair of functions ``set_this`` and ``get_this`` (or the like) of some modules."""
    found = {}
    places = (torch, torch.autograd, torch.backends.cuda, sys, gc, np, threading)
    for module in places:
        for name in dir(module):
            if not re.match(r"set_?[a-z]", name):
                continue
            if re.search("autocast_(cpu|gpu|ipu|xla)_", name):
                continue  # old names, which warn
            stem = name.removeprefix("set").removeprefix("_")
            for reader in (f"get_{stem}", f"get{stem}", f"is_{stem}"):
                read = getattr(module, reader, None)
                if callable(read):
                    with contextlib.suppress(TypeError):  # it wants an argument
                        read()
                        found[f"{module.__name__}.{name}"] = getattr(module, name), read
    return found


FOR_GOOD = {
    "torch.set_autocast_enabled": "takes a device too; below",
    "torch.set_num_interop_threads": "torch lets it be set once only",
    "torch.set_vital": "does nothing unless asked for when torch is loaded",
    "torch.set_rng_state": "random states are tested above",
    "sys.setdlopenflags": "of no use to anybody but who loads libraries",
    "sys.set_asyncgen_hooks": "reads and writes in two forms",
    "numpy.setbufsize": "takes multiples of 16; below",
}


def _another(value: object) -> object:
    """A value that may stand in place of ``value``."""
    match value:
        case bool():
            return not value
        case int():
            return value + 16
        case float():
            return 2 * value
        case str():
            return "medium"
        case torch.dtype():
            return torch.bfloat16 if value != torch.bfloat16 else torch.float16
        case torch.device():
            return torch.device("meta")
        case None:
            return lambda *_: None
        case tuple() if value:
            return (_another(value[0]), *value[1:])
    raise AssertionError(f"what is another {value!r}?")


SETTABLE = {name: pair for name, pair in _settable().items() if name not in FOR_GOOD}


@pytest.mark.parametrize("name", SETTABLE)
def test_what_an_answer_sets_is_put_back(name: str):
    write, read = SETTABLE[name]
    before, seen = read(), []

    def answer(x, factor):
        other = _another(before)
        if not seen:
            write(*other if isinstance(other, tuple) else [other])
            seen.append(read())
        return x * factor

    SCALE.check(answer)
    assert seen != [before], "it was not even set"
    assert read() == before


MEDDLERS: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "environment": (lambda: os.environ.pop("HF_HUB_OFFLINE"), lambda: dict(os.environ)),
    "a variable": (lambda: os.environ.update(NEW="1"), lambda: dict(os.environ)),
    "path": (lambda: sys.path.insert(0, "/nowhere"), lambda: list(sys.path)),
    "torch print": (lambda: torch.set_printoptions(sci_mode=True), lambda: str(torch.ones(1))),
    "NumPy print": (lambda: np.set_printoptions(precision=1), lambda: str(np.array([0.123]))),
    "determinism": (
        lambda: torch.use_deterministic_algorithms(True),
        torch.are_deterministic_algorithms_enabled,
    ),
    "autocast": (
        lambda: torch.set_autocast_enabled("cpu", True),
        lambda: torch.is_autocast_enabled("cpu"),
    ),
    "anomalies": (lambda: torch.autograd.set_detect_anomaly(True), torch.is_anomaly_enabled),
    "collector": (gc.disable, gc.isenabled),
    "Ctrl-C": (
        lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        lambda: signal.getsignal(signal.SIGINT),
    ),
    "decimals": (
        lambda: setattr(decimal.getcontext(), "prec", 3),
        lambda: decimal.getcontext().prec,
    ),
    "logging": (lambda: logging.disable(50), lambda: logging.root.manager.disable),
    "denormals": (
        lambda: torch.set_flush_denormal(True),
        lambda: float(torch.tensor([1e-310], dtype=torch.float64) * 1),
    ),
    "a method": (lambda: setattr(torch.Tensor, "sqrt", abs), lambda: torch.Tensor.sqrt),
    "a function": (lambda: setattr(builtins, "print", abs), lambda: builtins.print),
    "a constant": (lambda: setattr(math, "pi", 3), lambda: math.pi),
    "output": (lambda: setattr(sys, "stdout", None), lambda: sys.stdout),
    "NumPy buffer": (lambda: np.setbufsize(16 * 100), np.getbufsize),
    "a hook": (
        lambda: torch.nn.modules.module.register_module_forward_hook(lambda *_: None),
        lambda: len(torch.nn.modules.module._global_forward_hooks),
    ),
}


@pytest.mark.parametrize("name", MEDDLERS)
def test_what_an_answer_changes_is_put_back(name: str):
    meddle, read = MEDDLERS[name]
    before = read()

    def answer(x, factor):
        meddle()
        return x * factor

    SCALE.check(answer)
    assert read() == before


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda x, factor: x * torch.ones(7), "axes up from the right"),
        (lambda x, factor: torch.ones(7) * x, "axes up from the right"),
        (lambda x, factor: torch.cat([x, torch.ones(1, 9)]), "`torch.cat` joins along one axis"),
        (lambda x, factor: x @ torch.ones(7, 7), "last axis of a"),
        (lambda x, factor: x.double() @ x.mT, "`.double()` or `.float()`"),
        (lambda x, factor: x.long() @ x.mT, "turn the whole ones into `.float()`"),
        (lambda x, factor: x.reshape(100), "`reshape` keeps all numbers"),
        (lambda x, factor: x.flatten()[x.numel()], "Python counts from 0"),
        (lambda x, factor: x @ torch.ones(x.shape[-1], 3) @ x, "`a * b` multiplies entry by"),
        (lambda x, factor: torch.ones(9) @ torch.ones(8), "`a * b` multiplies entry by entry"),
        (lambda x, factor: torch.where(x > 0 & x < 1, x, x), "`(a < x) & (x < b)`"),
        (lambda x, factor: math.cos(torch.ones(2)), "`x.cos()`"),
        (lambda x, factor: x.sum().item().backward(), "no longer knows its gradients"),
        (lambda x, factor: factor.sqrt(), "plain Python number"),
        (lambda x, factor: torch.sqrt(factor), "plain Python number"),
        (lambda x, factor: list([1, 2].reverse()), "`items[::-1]` is a new list"),  # type: ignore
        (lambda x, factor: [1, 2].reverse()[0], "`items[::-1]` is a new list"),  # type: ignore
        (lambda x, factor: x.sum().backward(), "No gradient reaches this tensor"),
        (lambda x, factor: x.clone().requires_grad_().numpy(), "NumPy cannot follow gradients"),
        (lambda x, factor: x[torch.ones(1)], "An index must be a whole number"),
        (lambda x, factor: x[1.0], "An index must be a whole number"),
        (lambda x, factor: [x][len(x) / 1], "An index must be a whole number"),  # type: ignore
        (lambda x, factor: range(4 / 2), "`/` always gives a float"),  # type: ignore
        (lambda x, factor: torch.arange(3).mean(), "no mean of whole numbers"),
        (lambda x, factor: torch.arange(3).mul_(0.5), "cannot hold fractions"),
        (lambda x, factor: torch.nn.Linear(1, 1).weight.mul_(2), "inside `with torch.no_grad():`"),
        (lambda x, factor: x.clone().requires_grad_().backward(), "starts from one number"),
        (lambda x, factor: list(x.sum()), "single number without axes"),
        (lambda x, factor: _backward_twice(x), "Each `backward` or `grad` uses up its graph"),
    ],
)
def test_torchs_messages_about_shapes_are_explained(answer, told: str):
    result = make(mistakes=()).check(answer)
    failed(result, "raised", told)
    assert len(result.message) <= 300


def _backward_twice(x):
    total = x.clone().requires_grad_().exp().sum()
    total.backward()
    total.backward()


class TestReturnInsideALoop:
    def test_is_named_with_its_line(self):
        def answer(x, factor):
            total = torch.zeros_like(x)
            for _ in range(3):
                total = total + x
                return total

        result = SCALE.check(answer)
        failed(result, "values", "inside the loop", "`return total`")
        assert result.mistake == "return inside the loop"
        number = re.findall(r"Line (\d+)", result.message)
        assert number == [str(answer.__code__.co_firstlineno + 4)]

    def test_behind_an_if_it_may_be_meant(self):
        def answer(x, factor):
            for limit in range(3):
                if limit == 1:
                    return x
            return x

        assert "inside the loop" not in SCALE.check(answer).message

    def test_a_known_mistake_comes_first(self):
        def answer(x, factor):
            for _ in range(2):
                return x + factor

        assert SCALE.check(answer).mistake == "added"


class TestRandomNumbersOfItsOwn:
    @pytest.mark.parametrize(
        "draw",
        [
            torch.randn_like,
            lambda x: torch.rand(x.shape),
            lambda x: torch.as_tensor(np.random.standard_normal(x.shape)),  # noqa: NPY002
            lambda x: random.random(),
        ],
    )
    def test_are_named(self, draw):
        result = SCALE.check(lambda x, factor: x * factor + draw(x))
        failed(result, "values", "two different results")
        assert result.mistake == "own random numbers"

    def test_the_same_wrong_numbers_each_time_are_none(self):
        assert "two different" not in SCALE.check(lambda x, factor: x + 2 * factor).message

    def test_numbers_from_the_generator_that_is_given_are_none(self):
        exercise = make(
            model_answer=lambda generator: torch.rand(3, generator=generator),
            cases=lambda generator: [(torch.Generator().manual_seed(7),)],
            mistakes=(),
        )
        wrong = exercise.check(lambda generator: torch.rand(3, generator=generator) + 1)
        assert "two different" not in wrong.message
        failed(exercise.check(lambda generator: torch.rand(3)), "values", "or the generator")


def test_an_answer_that_the_check_itself_cannot_judge_is_not_called_the_learners_fault():
    exercise = make(scale=torch.linalg.inv)  # of matrices that are not square
    failed(exercise.check(lambda x, factor: x), "shape", "the check is at fault", "RuntimeError")


def test_a_mistake_that_raises_is_recognized_with_shapes_in_either_order():
    exercise = make(
        mistakes=(Mistake("a column", lambda x, factor: x * torch.ones(7), "Seven is too many."),)
    )
    assert exercise.check(lambda x, factor: torch.ones(7) * x).mistake == "a column"
    assert exercise.check(lambda x, factor: x * torch.ones(8)).mistake is None


def test_several_results_instead_of_one_are_counted():
    result = make(mistakes=()).check(lambda x, factor: (x * factor, x))
    failed(result, "shape", "yours is a tuple of 2 things")


def test_a_wrong_call_inside_the_answer_is_not_called_a_wrong_signature():
    def answer(x, factor):
        def two(a, b):
            return a * b

        return two(x)  # type: ignore[call-arg]

    result = make(mistakes=()).check(answer)
    failed(result, "raised", "Your code raised TypeError", "return two(x)")
    failed(make(mistakes=()).check(lambda x: x), "raised", "does not take the arguments")


def test_numbers_are_called_close_only_if_they_are_in_every_case():
    """Where one case has large numbers, a small one may be far off beside them."""

    def cases(_generator):
        yield torch.tensor([1.0, 2.0, 4.0]), 1.0
        yield torch.tensor([1000.0, 3000.0, 2000.0]), 1.0

    near = make(cases=cases, mistakes=()).check(lambda x, factor: x * factor + 1e-3 * x.sqrt())
    failed(near, "values", "They are close: off by at most 0.05 % of a case's largest number.")
    far = make(cases=cases, mistakes=()).check(lambda x, factor: x * factor + x.sqrt())
    failed(far, "values", "differ from the expected ones")
    assert "close" not in far.message
