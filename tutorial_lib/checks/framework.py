"""Exercises that say what is wrong, and how to write one.

A lesson's file, ``tutorial_lib/checks/lessonNN.py``, holds its exercises and questions as module
variables; ``all_exercises()`` finds them. A complete exercise:

    def _rates(alpha_bar):                          # the model answer, shown by .solution()
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()

    def _rates_cases(generator):                    # fresh random arguments, several shapes
        for size in (1, 2, 7):
            yield (torch.rand(size, generator=generator),)

    rates = Exercise(
        "lesson01.rates",                           # lessonNN.<name of the variable>
        "Signal rate and noise rate",
        difficulty=1,                               # 1 to 3
        minutes=3,
        hints=("Variances add up; rates are standard deviations.", "`x.sqrt()` is the root of x."),
        model_answer=_rates,
        cases=_rates_cases,
        parts=("signal_rate", "noise_rate"),        # names for a tuple
        mistakes=(
            Mistake("no root", lambda a: (a, 1 - a), "These are variances; rates are roots."),
            Mistake("swapped", lambda a: _rates(a)[::-1], "The two rates are swapped."),
        ),
        alternatives=(                              # right, written another way: at least two
            lambda a: (a**0.5, (1 - a) ** 0.5),
            lambda a: (np.sqrt(a.numpy()), np.sqrt(1 - a.numpy())),
        ),
    )

The learner calls ``lesson01.rates.check(my_rates)``, ``.hint(1)``, ``.solution()``.

What the framework does for you: stubs, forgotten returns, exceptions with the learner's line,
shapes, kinds of numbers, NaN, endless loops, prints, restored random state. float32, float64, NumPy
arrays and Python numbers all pass. Arguments are made anew for every call, so in-place answers
pass. Verdicts never change by chance, because every case has a fixed seed.

Rules that ``tests/checks/test_exercises.py`` holds you to:

- The model answer and every alternative pass; each mistake fails *with its own name*, which asks
  that any two mistakes differ in some case. Batch 1 is among the cases, and so is a batch where a
  broken broadcast goes unnoticed (batch = width) if that is a mistake people make.
- A message is unique, kind, at most 300 characters, and says what to look at, not the answer.
- The solution is shown as it stands here, without the underscore in front: it may use only names
  that the lesson has imported, and no helper of this file.
- Mistakes take the same arguments as the model answer. Cases are small: a check takes well under
  a second.

When values are not enough:

- ``reference=`` judges instead of the model answer (the library's function, say).
- ``properties=(Property("...", holds, mistake="name"),)``: ``holds(answer)`` is True or False. A
  mistake that gives the right values fails here and is named by the property. The answer it gets
  returns tensors, whatever the learner's own returns (see ``tidy``).
- ``use=`` says how an answer is used: ``use(answer, *case)`` returns what is compared. Run a class
  (``answer(dim)(x)``), take the last of a generator, or *statistics* of a random answer, which do
  not depend on the order of its draws: ``use=lambda f, x0, generator: moments(f(x0, generator))``
  with a ``reference`` that gives the exact moments and a wide ``atol``. The reference is called as
  ``reference(*case)``, without ``use``. ``tensor_like(result, x)`` there refuses a wrong shape,
  None and NaN with the usual messages.
- ``raise Wrong("shape", "...")`` inside ``use`` or ``holds`` speaks at once; ``mistake="name"``
  names it.

Concept questions: ``Choice`` (every wrong option has its explanation) and ``Number`` (tolerance and
common wrong values). They are checked, hinted and solved the same way.
"""

import dis
import functools
import inspect
import json
import math
import os
import re
import textwrap
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tutorial_lib.checks import _compare, _run, _show

Outcome = Literal["passed", "failed", "not attempted"]
STAGES = ("not attempted", "raised", "shape", "finite", "values", "properties", "passed")
LOG_VARIABLE = "TUTORIAL_CHECK_LOG"
"""Environment variable with a file to which each check appends its result, a JSON object a line."""


_NO_RETURN = "Your function returns None: is its `return` missing?"


class Wrong(Exception):  # noqa: N818  (it is an answer that is wrong)
    """Raised by an exercise's own ``use`` or property to reject an answer with a message."""

    def __init__(self, stage: str, message: str, mistake: str | None = None) -> None:
        if stage not in STAGES:
            raise ValueError(f"stage must be one of {', '.join(STAGES)}; got {stage!r}")
        super().__init__(message)
        self.stage, self.message, self.mistake = stage, message, mistake


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that people give: a name, the answer itself, and what to tell them."""

    name: str
    answer: object
    message: str


@dataclass(frozen=True)
class Property:
    """Something that every right answer satisfies: ``holds(answer)`` is true."""

    message: str
    holds: Callable[[Callable], bool]
    mistake: str | None = None


@dataclass(frozen=True)
class Result:
    """What a check found. ``stage`` is the stage that spoke, ``mistake`` a known mistake's name."""

    exercise: str
    title: str
    outcome: Outcome
    stage: str
    message: str
    mistake: str | None = None
    where: str = ""
    difference: _compare.Difference | None = field(default=None, repr=False)
    printed: str = field(default="", repr=False)

    @property
    def passed(self) -> bool:
        """Whether the answer is right."""
        return self.outcome == "passed"

    def __str__(self) -> str:
        return _show.text(self.outcome, self.title, self.message, self.where, self.difference)

    def _repr_pretty_(self, printer, cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> str:
        message, where = self.message, self.where
        return _show.html(self.outcome, self.title, message, where, self.difference, self.printed)


@dataclass(frozen=True)
class Note:
    """A hint or a solution; shows itself in a notebook."""

    title: str
    text: str
    source: str = ""

    def __str__(self) -> str:
        return "\n".join(part.strip("\n") for part in (self.title, self.source, self.text) if part)

    def _repr_pretty_(self, printer, cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> str:
        return _show.note(self.title, self.text, self.source)


@dataclass(frozen=True)
class Task(ABC):
    """What exercises and questions share: a name, hints, a check and a solution."""

    id: str
    title: str
    difficulty: int = field(default=1, kw_only=True)
    minutes: int = field(default=1, kw_only=True)
    hints: Sequence[str] = field(kw_only=True)
    passed: str = field(default="", kw_only=True)
    """What to say when the answer is right, beyond that it is."""

    def check(self, answer: object, /) -> Result:
        """What is right or wrong with ``answer``; never raises, never touches random states."""
        result = self._judge(answer)
        log = os.environ.get(LOG_VARIABLE)
        if log:
            keys = ("exercise", "title", "outcome", "stage", "message", "mistake")
            with open(log, "a", encoding="utf-8") as file:
                file.write(json.dumps({key: getattr(result, key) for key in keys}) + "\n")
        return result

    def hint(self, n: int = 1) -> Note:
        """The ``n``-th hint, each one saying more than the one before.

        Raises:
            ValueError: there is no such hint.
        """
        if n not in range(1, len(self.hints) + 1):
            raise ValueError(f"n must be in 1..{len(self.hints)} (the number of hints), got {n}")
        return Note(f"Hint {n} of {len(self.hints)}: {self.title}", self.hints[n - 1])

    @abstractmethod
    def solution(self) -> Note:
        """The model answer."""

    @abstractmethod
    def right_answers(self) -> dict[str, object]:
        """Answers that must pass, by name."""

    @abstractmethod
    def wrong_answers(self) -> Sequence[Mistake]:
        """Answers that must fail, each with its own message."""

    @abstractmethod
    def _judge(self, answer: object) -> Result: ...

    def _result(self, outcome: Outcome, stage: str, message: str, **details) -> Result:
        return Result(self.id, self.title, outcome, stage, message, **details)

    def _not_attempted(self) -> Result:
        text = f"Put your answer in place of `...`, then check again. Stuck? `{self.id}.hint(1)`"
        return self._result("not attempted", "not attempted", text)


@dataclass(frozen=True)
class _Outcome:
    """What an answer gave in one case: the run, or the ``Wrong`` that the exercise raised."""

    ran: _run.Ran
    wrong: Wrong | None = None


def _call(answer: Callable, *arguments: object) -> object:
    return answer(*arguments)


@dataclass(frozen=True, kw_only=True)
class Exercise(Task):
    """A function (or class) to write. See the module's text for what each field is for."""

    model_answer: Callable
    cases: Callable[[torch.Generator], Iterable[tuple]]
    mistakes: Sequence[Mistake] = ()
    alternatives: Sequence[Callable] = ()
    reference: Callable | None = None
    properties: Sequence[Property] = ()
    use: Callable = _call
    parts: Sequence[str] = ()
    rtol: float = 1e-4
    atol: float = 1e-5
    seconds: float = 8.0
    why: str = ""
    """What the solution says below its code."""

    def right_answers(self) -> dict[str, object]:
        """The model answer and the alternatives."""
        others = {f"alternative {i + 1}": f for i, f in enumerate(self.alternatives)}
        return {"model answer": self.model_answer, **others}

    def wrong_answers(self) -> Sequence[Mistake]:
        """The known mistakes."""
        return self.mistakes

    def solution(self) -> Note:
        """The model answer's source, with this exercise's reason below it."""
        return Note(f"Solution: {self.title}", self.why, source_of(self.model_answer))

    def _judge(self, answer: object) -> Result:
        if answer is ... or answer is None or _is_stub(answer):
            return self._not_attempted()
        if not callable(answer):
            text = "Hand in the function itself, without calling it"
            text = f"{text}: `check(my_function)`. This is {_compare.describe(answer)}."
            return self._result("failed", "shape", text)
        answer = self._adapted(answer)
        outcomes = self._outcomes(answer)
        if any(_left_open(outcome) for outcome in outcomes):
            return self._not_attempted()
        printed = "".join(outcome.ran.printed for outcome in outcomes)
        number, problem = self._first_problem(outcomes)
        if problem is None:
            return self._judge_properties(answer, printed)
        mistake = self._known_mistake(outcomes)
        message = mistake.message if mistake else problem.message
        name = mistake.name if mistake else None
        if not mistake and (spoke := outcomes[number].wrong):
            name = spoke.mistake
        return self._result(
            "failed",
            problem.stage,
            message,
            mistake=name,
            where=self._where(number),
            difference=problem.difference,
            printed=printed,
        )

    def _judge_properties(self, answer: Callable, printed: str) -> Result:
        @functools.wraps(answer)
        def tidied(*arguments: object) -> object:
            return tidy(answer(*arguments), self.parts)

        for wanted in self.properties:
            outcome = self._run(lambda wanted=wanted: bool(wanted.holds(tidied)), answer)
            if outcome.wrong:
                stage, message, mistake = (
                    outcome.wrong.stage,
                    outcome.wrong.message,
                    outcome.wrong.mistake,
                )
            elif outcome.ran.failure:
                stage, message, mistake = "raised", _failure_text(outcome.ran.failure), None
            elif outcome.ran.value:
                continue
            else:
                stage, message, mistake = "properties", wanted.message, wanted.mistake
            printed = (printed + outcome.ran.printed)[: _run.PRINT_LIMIT]
            return self._result("failed", stage, message, mistake=mistake, printed=printed)
        count = len(self._all_cases())
        text = f"Right in all {count} cases. {self.passed}".rstrip()
        return self._result("passed", "passed", text, printed=printed)

    def _all_cases(self) -> list[tuple]:
        """The cases, made anew: the same numbers every time, in fresh tensors."""
        with _run.unchanged_world():
            return [tuple(case) for case in self.cases(torch.Generator().manual_seed(1234))]

    def _run(self, function: Callable[[], object], answer: Callable, seconds=None) -> _Outcome:
        code = getattr(inspect.unwrap(answer), "__code__", None)
        limit = self.seconds if seconds is None else seconds
        ran = _run.run(function, seconds=limit, own_file=code.co_filename if code else "")
        return _Outcome(ran, ran.error if isinstance(ran.error, Wrong) else None)

    def _tries(self, answer: Callable) -> Iterator[_Outcome]:
        """What ``answer`` gives, case by case, for as long as somebody asks."""
        for case in self._all_cases():
            yield self._run(lambda case=case: _kept(self.use(answer, *case)), answer)

    def _outcomes(self, answer: Callable) -> list[_Outcome]:
        """What ``answer`` gives in each case; ends early where the time is over."""
        outcomes: list[_Outcome] = []
        for outcome in self._tries(answer):
            outcomes.append(outcome)
            if outcome.ran.failure and outcome.ran.failure.kind == "TimeUp":
                break
        return outcomes

    @functools.cached_property
    def _expected(self) -> list[object]:
        if self.reference is None:
            outcomes = self._outcomes(self.model_answer)
        else:
            reference = self.reference
            cases = self._all_cases()
            outcomes = [self._run(lambda c=c: _kept(reference(*c)), reference) for c in cases]
        for outcome in outcomes:
            if outcome.ran.error:
                raise RuntimeError(f"the reference of {self.id} failed") from outcome.ran.error
        return [outcome.ran.value for outcome in outcomes]

    def _first_problem(self, outcomes: list[_Outcome]) -> tuple[int, _compare.Problem | None]:
        """The complaint of the earliest stage over all cases, and the case it is about.

        Of several such cases it is the first, or the first whose difference makes a picture.
        """
        found: list[tuple[int, int, _compare.Problem]] = []
        for i, outcome in enumerate(outcomes):
            problem = self._problem(outcome, self._expected[i])
            if problem:
                found.append((STAGES.index(problem.stage), i, problem))
        if not found:
            return 0, None
        stage = min(found, key=lambda item: item[0])[0]
        earliest = [(number, problem) for rank, number, problem in found if rank == stage]
        drawn = [pair for pair in earliest if _show.has_picture(pair[1].difference)]
        return (drawn or earliest)[0]

    def _problem(self, outcome: _Outcome, expected: object) -> _compare.Problem | None:
        if outcome.wrong:
            return _compare.Problem(outcome.wrong.stage, outcome.wrong.message)
        if outcome.ran.failure:
            return _compare.Problem("raised", _failure_text(outcome.ran.failure, self.seconds))
        if outcome.ran.value is None:
            return _compare.Problem("shape", _NO_RETURN)
        return _compare.compare(outcome.ran.value, expected, self.parts, self.rtol, self.atol)

    def _known_mistake(self, outcomes: list[_Outcome]) -> Mistake | None:
        """The known mistake that does the same as the answer in every case."""
        if len(outcomes) < len(self._all_cases()):  # stopped: nothing to compare with
            return None
        for mistake in self.mistakes:
            assert callable(mistake.answer)
            tries = self._tries(mistake.answer)
            if all(self._alike(outcome, next(tries)) for outcome in outcomes):
                return mistake
        return None

    def _alike(self, a: _Outcome, b: _Outcome) -> bool:
        if a.ran.failure or b.ran.failure:
            first, second = a.ran.failure, b.ran.failure
            both = first and second
            return bool(both) and _gist(first) == _gist(second)
        return _compare.same(a.ran.value, b.ran.value, self.rtol, self.atol)

    def _where(self, number: int) -> str:
        names = _parameters(self.model_answer)
        case = self._all_cases()[number]
        shown = [f"{name} = {_brief(value)}" for name, value in zip(names, case, strict=False)]
        return ", ".join(part for part in shown if part)

    def _adapted(self, answer: Callable) -> Callable:
        """``answer``, also where it takes some of its arguments by keyword only."""
        try:
            parameters = inspect.signature(answer).parameters.values()
        except (TypeError, ValueError):  # some callables of C code have no signature
            return answer
        if not any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters):
            return answer
        names = _parameters(self.model_answer)

        @functools.wraps(answer)
        def by_name(*arguments: object) -> object:
            return answer(**dict(zip(names, arguments, strict=False)))

        return by_name


@dataclass(frozen=True, kw_only=True)
class Choice(Task):
    """A question with lettered options: ``options`` explains each of them, right or wrong."""

    right: str
    options: Mapping[str, str]

    def right_answers(self) -> dict[str, object]:
        """The right letter, also as people type it."""
        return {"letter": self.right, "capital": f" {self.right.upper()} ", "dot": f"{self.right})"}

    def wrong_answers(self) -> Sequence[Mistake]:
        """The other letters, each with its explanation."""
        wrong = {key: text for key, text in self.options.items() if key != self.right}
        return [Mistake(f"option {key}", key, text) for key, text in wrong.items()]

    def solution(self) -> Note:
        """The right letter and why."""
        return Note(f"Solution: {self.title}", f"{self.right}: {self.options[self.right]}")

    def _judge(self, answer: object) -> Result:
        letter = answer.strip(" .()").lower() if isinstance(answer, str) else None
        if answer is ... or answer is None or letter == "":
            return self._not_attempted()
        if letter is None or letter not in self.options:
            text = f"Answer with one letter in quotes: one of {', '.join(self.options)}."
            return self._result("failed", "shape", text)
        if letter == self.right:
            return self._result("passed", "passed", self.options[letter])
        name = f"option {letter}"
        return self._result("failed", "values", self.options[letter], mistake=name)


@dataclass(frozen=True, kw_only=True)
class Number(Task):
    """A question whose answer is a number.

    ``value`` may be a function, computed when it is needed. ``mistakes`` hold wrong numbers (or
    functions that give them); they are recognised with the same relative tolerance.
    """

    value: float | Callable[[], float]
    mistakes: Sequence[Mistake] = ()
    rtol: float = 0.01
    atol: float = 0.0
    why: str = ""

    def right_answers(self) -> dict[str, object]:
        """The number in several types, and rounded as far as the tolerance allows."""
        value = self._number(self.value)
        near = value + 0.5 * (self.atol + self.rtol * abs(value))
        tensor = torch.tensor(value, dtype=torch.float64)
        return {"number": value, "near": near, "numpy": np.float64(value), "tensor": tensor}

    def wrong_answers(self) -> Sequence[Mistake]:
        """The known wrong numbers."""
        return [Mistake(m.name, self._number(m.answer), m.message) for m in self.mistakes]

    def solution(self) -> Note:
        """The number and how to get it."""
        return Note(
            f"Solution: {self.title}", f"{self._number(self.value):.6g}. {self.why}".strip()
        )

    def _judge(self, answer: object) -> Result:
        if answer is ... or answer is None:
            return self._not_attempted()
        given = None if isinstance(answer, bool) else _compare.as_tensor(answer)
        if given is None or given.numel() != 1 or given.is_complex() or given.dtype == torch.bool:
            text = f"Answer with one number; this is {_compare.describe(answer)}."
            return self._result("failed", "shape", text)
        number = float(given)
        if not math.isfinite(number):
            return self._result("failed", "finite", f"Your number is {number}; it must be finite.")
        if self._is_near(number, self._number(self.value)):
            return self._result("passed", "passed", f"Right. {self.why}".strip())
        for mistake in self.wrong_answers():
            if self._is_near(number, self._number(mistake.answer)):
                name, text = mistake.name, mistake.message
                return self._result("failed", "values", text, mistake=name)
        if self._is_near(-number, self._number(self.value)):
            return self._result("failed", "values", "The size is right, the sign is not.")
        size = "large" if number > self._number(self.value) else "small"
        return self._result("failed", "values", f"{number:.6g} is too {size}.")

    def _number(self, value: object) -> float:
        return float(value() if callable(value) else value)  # type: ignore[arg-type]

    def _is_near(self, a: float, b: float) -> bool:
        return abs(a - b) <= self.atol + self.rtol * abs(b)


def tensor_like(value: object, like: Tensor) -> Tensor:
    """What an answer gave, as a tensor of the shape of ``like``; for use inside ``use``.

    Raises:
        Wrong: ``value`` is open, None, no numbers, of another shape, or not finite.
    """
    if _is_open(value):
        raise Wrong("not attempted", "")
    if value is None:
        raise Wrong("shape", _NO_RETURN)
    wanted = torch.zeros_like(like)
    problem = _compare.compare(value, wanted, (), math.inf, math.inf)
    if problem:
        raise Wrong(problem.stage, problem.message)
    tensor = _compare.as_tensor(value)
    assert tensor is not None
    return tensor


def tidy(value: object, parts: Sequence[str] = ()) -> object:
    """A result in one form: arrays, lists and numbers become tensors, several parts a tuple.

    Tensors stay what they are, with their gradients; what is nothing like numbers stays too.
    """
    if isinstance(value, Tensor):
        return value
    if parts and isinstance(value, Mapping) and set(value) == set(parts):
        return tuple(tidy(value[name]) for name in parts)
    if isinstance(value, tuple) or (parts and isinstance(value, list)):
        return tuple(tidy(part) for part in value)
    tensor = _compare.as_tensor(value)
    return value if tensor is None else tensor


def source_of(function: Callable) -> str:
    """The source of a model answer, without the underscore that its name begins with."""
    source = textwrap.dedent(inspect.getsource(function))
    name = function.__name__
    return re.sub(rf"\b{re.escape(name)}\b", name.lstrip("_"), source)


def _parameters(function: Callable) -> list[str]:
    return list(inspect.signature(function).parameters)


def _is_stub(answer: object) -> bool:
    """Whether nothing has been written yet: a function, or a method of a class, is only ``...``."""
    if isinstance(answer, types.FunctionType):
        return _has_no_body(answer)
    if isinstance(answer, type):
        own = [f for f in vars(answer).values() if isinstance(f, types.FunctionType)]
        return any(_has_no_body(f) for f in own)
    return False


def _has_no_body(function: types.FunctionType) -> bool:
    """Whether the body is ``...``, ``pass``, a docstring or ``return ...`` and nothing else."""
    steps = [
        step
        for step in dis.get_instructions(inspect.unwrap(function))
        if step.opname not in ("RESUME", "NOP", "RETURN_VALUE")
    ]
    if len(steps) != 1 or steps[0].opname not in ("LOAD_CONST", "RETURN_CONST"):
        return False
    return steps[0].argval is None or _is_open(steps[0].argval)


def _is_open(value: object) -> bool:
    return value is ... or (isinstance(value, (tuple, list)) and any(v is ... for v in value))


def _left_open(outcome: _Outcome) -> bool:
    """Whether a ``...`` is still in the answer: returned, or calculated with."""
    failure = outcome.ran.failure
    if outcome.wrong:
        return outcome.wrong.stage == "not attempted"
    if failure:
        return failure.kind in ("TypeError", "AttributeError") and "llipsis" in failure.text
    return _is_open(outcome.ran.value)


def _kept(value: object) -> object:
    """``value`` with its tensors copied, so that a later call cannot change it."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if type(value) in (tuple, list):
        return type(value)(_kept(part) for part in value)  # type: ignore[attr-defined]
    if type(value) is dict:
        return {key: _kept(part) for key, part in value.items()}
    return value


def _brief(value: object) -> str:
    """An argument in a few words."""
    if isinstance(value, Tensor):
        if value.ndim == 0 or (value.numel() <= 4 and value.ndim == 1):
            return str([round(v, 4) for v in value.flatten().tolist()])
        return f"shape {tuple(value.shape)}"
    if isinstance(value, torch.Generator):
        return "a seeded generator"
    text = f"{value:.4g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else type(value).__name__


def _gist(failure: _run.Failure | None) -> object:
    """What an exception says, whichever of two tensors it names first: ``a + b`` or ``b + a``."""
    assert failure is not None
    words = re.sub(r"\d+", "#", failure.text)
    return failure.kind, words, sorted(re.findall(r"\d+", failure.text))


_TORCH_SAYS = (
    (
        r"size of tensor a .* must match the size of tensor b",
        "The shapes do not fit: broadcasting lines axes up from the right. Give (B,) its missing "
        "axes of length 1, as `[:, None]` or `.reshape(...)` do.",
    ),
    (
        r"sizes of tensors must match except in dimension",
        "`torch.cat` joins along one axis; along all others the lengths must agree.",
    ),
    (
        r"shapes cannot be multiplied",
        "In `a @ b` the last axis of a must be as long as the first one of b.",
    ),
    (
        r"same dtype|expected scalar type",
        "One is float64, the other float32: bring them to one type with `.double()` or `.float()`.",
    ),
    (
        r"shape '.*' is invalid for input of size",
        "`reshape` keeps all numbers, so the lengths must multiply up to as many as there are.",
    ),
    (
        r"index (\d+) is out of bounds for dimension \d+ with size \1$",
        "Python counts from 0: the last of n entries is n - 1.",
    ),
)
"""Texts of torch's exceptions, and what a learner may want to look at then."""


def _advice(failure: _run.Failure) -> str:
    """What to look at, where torch speaks of shapes and types."""
    for pattern, told in _TORCH_SAYS:
        if re.search(pattern, failure.text, re.IGNORECASE):
            return told
    return ""


def _failure_text(failure: _run.Failure, seconds: float = 0.0) -> str:
    """A short and kind account of an exception, with the learner's line."""
    number = failure.line_number
    at = f"\nLine {number}: `{failure.line}`" if number and failure.line else ""
    text = textwrap.shorten(failure.text, 160, placeholder=" …")
    low = failure.text.lower()
    match failure.kind:
        case "TimeUp":
            told = f"Stopped after {seconds:g} seconds: does a loop never end?"
        case "RecursionError":
            told = "Your function calls itself without end."
        case "SystemExit":
            told = "Your code asked Python to quit; a plain `return` does it here."
        case "MemoryError":
            told = "Your code asked for more memory than there is: is a shape too large?"
        case "RuntimeError" if "allocate" in low and "memory" in low:
            told = "Your code asked for more memory than there is: is a shape too large?"
        case "TypeError" if not number and re.search(
            r"\d+ (required )?positional arguments?", failure.text
        ):
            told = f"The function's arguments do not fit the question's: {text}"
        case "RuntimeError" if "boolean value of tensor" in low:
            told = "Python's `if`, `and`, `or`, `min`, `max` and a < x < b want one yes or no, and "
            told += "a tensor holds many. Use `&`, `torch.minimum`, `.clamp` or `torch.where`."
        case "RuntimeError" if "got: bool" in low:
            told = (
                "True and False have no mean: turn them into numbers first, `mask.double().mean()`."
            )
        case "NotImplementedError" if not text:
            told = "Your code raised NotImplementedError: remove that line once you have an answer."
        case _:
            if advice := _advice(failure):
                text = (
                    f"{textwrap.shorten(failure.text, 110, placeholder=' …').rstrip('.')}. {advice}"
                )
            told = f"Your code raised {failure.kind}: {text}"
    return told + at[: 290 - len(told)]
