"""What a check does with answers of every kind, including hostile ones."""

import array
import contextlib
import math
import os
import random
import re
import signal
import sys
import threading
import time
from collections import namedtuple
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


class TestRightAnswers:
    def test_the_model_answer(self):
        result = SCALE.check(_scale)
        assert (result.outcome, result.stage, result.mistake) == ("passed", "passed", None)
        assert result.passed

    @pytest.mark.parametrize(
        "answer",
        [
            lambda x, factor: x.mul_(factor),
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
        for answer in (range(9, -1, -3), [9, 6, 3, 0], np.uint16([9, 6, 3, 0]), (9, 6, 3, 0)):
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
        told(
            lambda x, t: by_t(x, t) * torch.tensor([1.0, 1, 1, 2]), "along axis 3 is wrong", **both
        )

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

    def test_an_exception_that_comes_too_late_is_taken_back(self, monkeypatch):
        """As on Windows; it arrives while it is being taken back."""
        taken_back, raise_in = [], time_limit._raise_in

        def arrives_first(thread, kind):
            if kind is None:
                taken_back.append(1)
                if len(taken_back) == 1:
                    raise_in(thread, time_limit.TimeUp)
                    for _ in range(1000):  # it arrives here
                        pass
            raise_in(thread, kind)

        monkeypatch.setattr(time_limit, "_raise_in", arrives_first)
        assert time_limit._call_with_thread(lambda: "an answer", 60) == "an answer"
        assert len(taken_back) == 2

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


STRANGE = {
    "a mirror": _Mirror(),
    "no name": type("", (), {})(),
    "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
    "8 bits": torch.ones(2, 2).to(torch.float8_e4m3fn),
    "sparse": torch.eye(3).to_sparse(),
    "meta": torch.ones((), device="meta"),
    "complex": 1j,
    "a long number": 10**400,
    "an array of objects": np.array([None]),
    "an error without a text": _quits,
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_check_never_raises(name: str):
    value = STRANGE[name]
    assert SCALE.check(value).outcome == "failed"
    assert SCALE.check(lambda x, factor: value).outcome == "failed"
    assert TestQuestions.number.check(value).outcome == "failed"
    assert TestQuestions.choice.check(value).outcome == "failed"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda x, factor: x * torch.ones(7), "axes up from the right"),
        (lambda x, factor: torch.ones(7) * x, "axes up from the right"),
        (lambda x, factor: torch.cat([x, torch.ones(1, 9)]), "`torch.cat` joins along one axis"),
        (lambda x, factor: x @ torch.ones(7, 7), "last axis of a"),
        (lambda x, factor: x.double() @ x.mT, "`.double()` or `.float()`"),
        (lambda x, factor: x.reshape(100), "`reshape` keeps all numbers"),
        (lambda x, factor: x.flatten()[x.numel()], "Python counts from 0"),
    ],
)
def test_torchs_messages_about_shapes_are_explained(answer, told: str):
    result = make(mistakes=()).check(answer)
    failed(result, "raised", told)
    assert len(result.message) <= 300


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
