"""Exercises: the learner writes a function or class, and a check runs it on many cases."""

import dis
import functools
import inspect
import re
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tutorial_lib.checks.framework import (
    combined,
    compare,
    patterns,
    run,
    show,
    touched,
    weights,
    written,
)
from tutorial_lib.checks.framework.messages import NO_RETURN, brief, failure_text, gist
from tutorial_lib.checks.framework.origin import FirstNotFinite
from tutorial_lib.checks.framework.task import (
    STAGES,
    BrokenExerciseError,
    Mistake,
    Note,
    Property,
    Result,
    Task,
    Wrong,
)
from tutorial_lib.checks.framework.tensors import is_open, kept, tidy

WIDE = 1e-3
"""An absolute tolerance from which on it is meant for the noise of statistics."""

NEARER = 0.05
"""How much nearer a wrong answer must be to a known mistake than that is to what is right."""

_OWN_DRAWS = (
    "Called twice with the same arguments, your function gives two different results. Does it draw "
    "random numbers of its own, as `torch.randn_like` does? Use the noise (or the generator) that "
    "it is given."
)


@dataclass(frozen=True)
class _Outcome:
    """What an answer gave in one case: the run, or the ``Wrong`` that the exercise raised."""

    ran: run.Ran
    wrong: Wrong | None = None


def _call(answer: Callable, *arguments: object) -> object:
    return answer(*arguments)


@dataclass(frozen=True, kw_only=True)
class Exercise(Task):
    """A function (or class) to write. The package's docstring explains the fields."""

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
    scale: Callable[[torch.Tensor], torch.Tensor] | None = None
    """Numbers are compared after this, as ``torch.log``; messages show the learner's own."""
    first_axis: str = ""
    """What one entry along axis 0 of the result is, as "step"; where it is plainly a batch, the
    framework sees that itself."""
    seconds: float = 8.0
    together: bool = False
    """Whether the answer changes objects that cannot be sent to another process, such as networks:
    then ``use`` runs beside it (see ``remote``)."""
    seed: int = 1234
    """The seed of the cases. A grading replaces it by one of its own."""
    why: str = ""
    """An explanation below the solution's code."""

    def right_answers(self) -> dict[str, object]:
        """The model answer and the alternatives."""
        others = {f"alternative {i + 1}": f for i, f in enumerate(self.alternatives)}
        return {"model answer": self.model_answer, **others}

    def wrong_answers(self) -> Sequence[Mistake]:
        """The known mistakes."""
        return self.mistakes

    def solution(self) -> Note:
        """The model answer's source, with this exercise's explanation below it."""
        return Note(f"Solution: {self.title}", self.why, source_of(self.model_answer))

    def prepared(self, answer: object) -> object:
        """``...`` for a stub, else ``answer``, callable with the arguments by position."""
        if answer is ... or answer is None or _is_stub(answer):
            return ...
        return self._adapted(answer) if callable(answer) else answer

    def _judge(self, answer: object) -> Result:
        answer = self.prepared(answer)
        if answer is ...:
            return self._not_attempted()
        if not callable(answer):
            text = "Pass the function itself, without calling it"
            text = f"{text}: `check(my_function)`. This is {compare.describe(answer)}."
            return self._result("failed", "shape", text)
        watch = touched.Watch(_parameters(self.model_answer))
        outcomes = self._outcomes(answer, watch)
        if any(_left_open(outcome) for outcome in outcomes):
            return self._not_attempted()
        printed = "".join(outcome.ran.printed for outcome in outcomes)
        number, problem = self._first_problem(outcomes)
        if problem is None:
            return self._judge_properties(answer, printed, watch.message())
        spoke = outcomes[number].wrong
        if mistake := self._known_mistake(outcomes):
            name, message, is_located = mistake.name, mistake.message, True
        elif not (spoke and spoke.mistake) and (text := written.return_in_loop(answer)):
            name, message, is_located = "return inside the loop", text, True
        elif not spoke and problem.stage == "values" and self._changes_its_mind(answer, number):
            name, message, is_located = "own random numbers", _OWN_DRAWS, True
        elif problem.stage == "values":
            name, message, is_located = self._explained(outcomes, number, problem)
        else:
            name, message = spoke.mistake if spoke else None, problem.message
            is_located = problem.is_located
            if problem.stage == "finite" and (origin := self._origin(answer, number)):
                message, is_located = f"{message.split('. ')[0]}. {origin}", True
        return self._result(
            "failed",
            problem.stage,
            message,
            mistake=name,
            where=self._where(number),
            difference=problem.difference,
            printed=printed,
            is_located=is_located,
        )

    def _explained(
        self, outcomes: list[_Outcome], number: int, problem: compare.Problem
    ) -> tuple[str | None, str, bool]:
        """The names of mistakes, what to say about wrong numbers, and whether it says where."""
        if spoke := outcomes[number].wrong:  # the exercise itself has said what is wrong
            return spoke.mistake, problem.message, problem.is_located
        usable = [i for i, outcome in enumerate(outcomes) if outcome.ran.failure is None]
        grid = [self._paired(outcomes[i], self._expected[i]) for i in usable]
        names = list(grid[0])
        if any(list(parts) != names for parts in grid):
            return None, problem.message, problem.is_located
        every = self.all_cases()
        cases = [self._named(every[i]) for i in usable]
        is_right = {name: not any(parts[name].is_wrong for parts in grid) for name in names}
        first = next(name for name in names if not is_right[name])
        right = [f"`{name}`" for name in names if is_right[name]]
        label = f"`{first}`: " if first else ""
        if right:
            label = f"{' and '.join(right)} {'is' if len(right) == 1 else 'are'} right. {label}"
        together = combined.explained(
            [{name: pair.yours for name, pair in parts.items()} for parts in grid],
            [{name: pair.target for name, pair in parts.items()} for parts in grid],
            self._known_numbers(names, usable),
            self._are_near,
        )
        if together and self.atol < WIDE:
            return together[0], together[1], True
        pairs = [parts[first] for parts in grid]
        text = self._seen(pairs, cases) if self.atol < WIDE else ""
        if text:
            return None, label + text, True
        said = problem.message.removeprefix(f"`{first}`: ")
        several = patterns.how_many(pairs) if len(pairs) > 1 else ""
        if several:
            said = f"{several} In the first of the others: {said[:1].lower()}{said[1:]}"
        text = " ".join(part for part in (said, patterns.how_near(pairs)) if part)
        return None, label + text, bool(right)

    def _seen(self, pairs: list[patterns.Pair], cases: list[dict[str, object]]) -> str:
        """What the numbers themselves say about what is wrong with them."""
        if text := patterns.one_rule(pairs, cases):
            return text
        factors = weights.compared(pairs, cases)
        place = patterns.where(pairs, cases, self.first_axis)
        text = " ".join(part for part in (weights.wrong_weights(factors), place) if part)
        return text or weights.no_sum(factors)

    def _changes_its_mind(self, answer: Callable, number: int) -> bool:
        """Whether two calls with the same arguments give different numbers."""
        if self.atol >= WIDE or (self.together and isinstance(answer, run.Elsewhere)):
            return False
        cases = [self.all_cases()[number] for _ in range(2)]
        ran = self._run(lambda: [kept(self.use(answer, *case)) for case in cases], answer).ran
        if ran.failure or not isinstance(ran.value, list):
            return False
        first, second = ran.value
        return not compare.same(first, second, self.rtol, self.atol, self.scale)

    def _paired(self, outcome: _Outcome, expected: object) -> dict[str, patterns.Pair]:
        value = outcome.ran.value
        return compare.paired(value, expected, self.parts, self.rtol, self.atol, self.scale)

    def _known_numbers(self, names: list[str], cases: list[int]) -> list[combined.Known]:
        """The known mistakes that give numbers of the right shapes in all of these cases."""
        found = []
        for number, mistake in enumerate(self.mistakes):
            gives = []
            for case in cases:
                expected = self._expected[case]
                outcome = self._of_mistake(number, case)
                problem = self._problem(outcome, expected)
                if outcome.wrong or (problem and problem.stage != "values"):
                    break
                parts = self._paired(outcome, expected)
                if list(parts) != names:
                    break
                gives.append({name: pair.yours for name, pair in parts.items()})
            else:
                found.append(combined.Known(mistake, gives))
        return found

    def _are_near(self, a: torch.Tensor, b: torch.Tensor) -> bool:
        return bool(torch.isclose(a, b, rtol=self.rtol, atol=self.atol).all())

    def _origin(self, answer: Callable, number: int) -> str:
        """The line of the answer that first makes a number that is none; "" if not found."""
        if isinstance(answer, run.Elsewhere):
            return ""
        case = self.all_cases()[number]
        parts = compare.parts_of(self._expected[number], self.parts).values()
        numbers = [part for part in map(compare.as_tensor, parts) if part is not None]
        watch = FirstNotFinite(
            run.file_of(answer), nan_only=not all(part.isfinite().all() for part in numbers)
        )

        def watched() -> object:
            with watch, np.errstate(invalid="raise", divide="raise"):
                return self.use(answer, *case)

        failure = self._run(watched, answer).ran.failure
        if failure and failure.kind == "FloatingPointError" and failure.line_number:
            return f"NumPy says: {failure.text}.\nLine {failure.line_number}: `{failure.line}`"
        return watch.text()

    def _judge_properties(self, answer: Callable, printed: str, warning: str) -> Result:
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
                stage, message, mistake = "raised", failure_text(outcome.ran.failure), None
            elif outcome.ran.value:
                continue
            else:
                stage, message, mistake = "properties", wanted.message, wanted.mistake
            printed = (printed + outcome.ran.printed)[: run.PRINT_LIMIT]
            return self._result("failed", stage, message, mistake=mistake, printed=printed)
        count = len(self.all_cases())
        text = f"Right in all {count} cases. {self.passed}".rstrip()
        if warning:
            text = f"{text}\n{warning}"
        return self._result("passed", "passed", text, printed=printed)

    def all_cases(self) -> list[tuple]:
        """The cases: the same numbers every time, in new tensors."""
        with run.unchanged_world():
            return [tuple(case) for case in self.cases(torch.Generator().manual_seed(self.seed))]

    def _run(self, function: Callable[[], object], answer: Callable) -> _Outcome:
        limit = self.seconds
        if isinstance(answer, run.Elsewhere):
            answer.start(self.seconds)
            limit = None  # it keeps the time itself
        ran = run.run(function, seconds=limit, own_file=run.file_of(answer))
        return _Outcome(ran, ran.error if isinstance(ran.error, Wrong) else None)

    def watched_use(self, answer: Callable, case: tuple, watch: touched.Watch) -> object:
        """What ``use`` gives in a case, while ``watch`` looks at what becomes of arguments."""
        value = kept(self.use(watch.watched(answer), *case))
        watch.finish()
        return value

    def _tries(self, answer: Callable, watch: touched.Watch) -> Iterator[_Outcome]:
        """What ``answer`` gives, case by case; runs a case only when it is asked for."""
        for number, case in enumerate(self.all_cases()):
            if self.together and isinstance(answer, run.Elsewhere):
                yield self._run(lambda n=number: kept(answer.use(n, self.seed)), answer)
                watch.touched |= answer.touched
            else:
                yield self._run(lambda case=case: self.watched_use(answer, case, watch), answer)

    def _outcomes(self, answer: Callable, watch: touched.Watch | None = None) -> list[_Outcome]:
        """What ``answer`` gives in each case, up to the first that takes too long."""
        outcomes: list[_Outcome] = []
        for outcome in self._tries(answer, watch or touched.Watch([])):
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
            cases = self.all_cases()
            outcomes = [self._run(lambda c=c: kept(reference(*c)), reference) for c in cases]
        for outcome in outcomes:
            if outcome.ran.error:
                text = f"the reference of {self.id} failed"
                raise BrokenExerciseError(text) from outcome.ran.error
        return [outcome.ran.value for outcome in outcomes]

    def _first_problem(self, outcomes: list[_Outcome]) -> tuple[int, compare.Problem | None]:
        """The problem of the earliest stage over all cases, and the number of its case.

        Of several such cases it is the first whose difference can be drawn, else the first.
        """
        found: list[tuple[int, int, compare.Problem]] = []
        for i, outcome in enumerate(outcomes):
            problem = self._problem(outcome, self._expected[i])
            if problem:
                found.append((STAGES.index(problem.stage), i, problem))
        if not found:
            return 0, None
        stage = min(found, key=lambda item: item[0])[0]
        earliest = [(number, problem) for rank, number, problem in found if rank == stage]
        drawn = [pair for pair in earliest if show.has_picture(pair[1].difference)]
        return (drawn or earliest)[0]

    def _problem(self, outcome: _Outcome, expected: object) -> compare.Problem | None:
        if outcome.wrong:
            return compare.Problem(outcome.wrong.stage, outcome.wrong.message)
        if outcome.ran.failure:
            return compare.Problem("raised", failure_text(outcome.ran.failure, self.seconds))
        if outcome.ran.value is None:
            return compare.Problem("shape", NO_RETURN)
        value = outcome.ran.value
        return compare.compare(value, expected, self.parts, self.rtol, self.atol, self.scale)

    def _known_mistake(self, outcomes: list[_Outcome]) -> Mistake | None:
        """The known mistake that gives the same as the answer in every case."""
        if len(outcomes) < len(self.all_cases()):  # stopped: nothing to compare with
            return None
        for number, mistake in enumerate(self.mistakes):
            pairs = ((outcome, self._of_mistake(number, i)) for i, outcome in enumerate(outcomes))
            if all(self._alike(outcome, known) for outcome, known in pairs) and (
                self.atol >= WIDE or self._is_nearer(outcomes, number)
            ):
                return mistake
        return None

    def _is_nearer(self, outcomes: list[_Outcome], number: int) -> bool:
        """Whether the answer is far nearer to a mistake than that is to what is right.

        0.9999 is near 1, but if 0.999 is right, it is not the mistake that gives 1.
        """
        away, far = 0.0, 0.0
        for i, (outcome, expected) in enumerate(zip(outcomes, self._expected, strict=True)):
            known = self._of_mistake(number, i)
            values = [compare.as_tensor(o.ran.value) for o in (outcome, known)]
            target = compare.as_tensor(expected)
            if values[0] is None or values[1] is None or target is None:
                continue
            yours, theirs, right = values[0].double(), values[1].double(), target.double()
            if self.scale:
                yours, theirs, right = self.scale(yours), self.scale(theirs), self.scale(right)
            if yours.shape == theirs.shape == right.shape:
                away = max(away, _largest(yours - theirs))
                far = max(far, _largest(theirs - right))
        return away <= NEARER * far or far == 0

    def _of_mistake(self, number: int, case: int) -> _Outcome:
        """What a known mistake gives in a case; kept, as it is always the same."""
        known, tries = self._mistakes_so_far[number]
        while len(known) <= case:
            known.append(next(tries))
        return known[case]

    @functools.cached_property
    def _mistakes_so_far(self) -> list[tuple[list[_Outcome], Iterator[_Outcome]]]:
        answers = [mistake.answer for mistake in self.mistakes]
        return [
            ([], self._tries(answer, touched.Watch([]))) for answer in answers if callable(answer)
        ]

    def _alike(self, a: _Outcome, b: _Outcome) -> bool:
        if a.ran.failure or b.ran.failure:
            first, second = a.ran.failure, b.ran.failure
            both = first and second
            return bool(both) and gist(first) == gist(second)
        return compare.same(a.ran.value, b.ran.value, self.rtol, self.atol, self.scale)

    def _where(self, number: int) -> str:
        case = self._named(self.all_cases()[number])
        return ", ".join(f"{name} = {brief(value)}" for name, value in case.items())

    def _named(self, case: tuple) -> dict[str, object]:
        return dict(zip(_parameters(self.model_answer), case, strict=False))

    def _adapted(self, answer: Callable) -> Callable:
        """``answer``, callable by position even if some of its arguments are keyword-only."""
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


def _largest(x: torch.Tensor) -> float:
    sizes = x[x.isfinite()].abs()
    return float(sizes.max()) if sizes.numel() else 0.0


def source_of(function: Callable) -> str:
    """The source of a model answer, without the underscore at the start of its name."""
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
    return steps[0].argval is None or is_open(steps[0].argval)


def _left_open(outcome: _Outcome) -> bool:
    """Whether the answer still has a ``...``: it returned it, or calculated with it."""
    failure = outcome.ran.failure
    if outcome.wrong:
        return outcome.wrong.stage == "not attempted"
    if failure:
        return failure.kind in ("TypeError", "AttributeError") and "llipsis" in failure.text
    return is_open(outcome.ran.value)
