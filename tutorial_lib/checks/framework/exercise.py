"""Exercises: the learner writes a function or class, and a check runs it on many cases."""

import dis
import functools
import inspect
import re
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from tutorial_lib.checks.framework import compare, run, show
from tutorial_lib.checks.framework.messages import NO_RETURN, brief, failure_text, gist
from tutorial_lib.checks.framework.task import (
    STAGES,
    Mistake,
    Note,
    Property,
    Result,
    Task,
    Wrong,
)
from tutorial_lib.checks.framework.tensors import is_open, kept, tidy


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
            is_located=problem.is_located or mistake is not None,
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
                stage, message, mistake = "raised", failure_text(outcome.ran.failure), None
            elif outcome.ran.value:
                continue
            else:
                stage, message, mistake = "properties", wanted.message, wanted.mistake
            printed = (printed + outcome.ran.printed)[: run.PRINT_LIMIT]
            return self._result("failed", stage, message, mistake=mistake, printed=printed)
        count = len(self.all_cases())
        text = f"Right in all {count} cases. {self.passed}".rstrip()
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

    def _tries(self, answer: Callable) -> Iterator[_Outcome]:
        """What ``answer`` gives, case by case; runs a case only when it is asked for."""
        for number, case in enumerate(self.all_cases()):
            if self.together and isinstance(answer, run.Elsewhere):
                yield self._run(lambda n=number: kept(answer.use(n, self.seed)), answer)
            else:
                yield self._run(lambda case=case: kept(self.use(answer, *case)), answer)

    def _outcomes(self, answer: Callable) -> list[_Outcome]:
        """What ``answer`` gives in each case, up to the first that takes too long."""
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
            cases = self.all_cases()
            outcomes = [self._run(lambda c=c: kept(reference(*c)), reference) for c in cases]
        for outcome in outcomes:
            if outcome.ran.error:
                raise RuntimeError(f"the reference of {self.id} failed") from outcome.ran.error
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
        return compare.compare(outcome.ran.value, expected, self.parts, self.rtol, self.atol)

    def _known_mistake(self, outcomes: list[_Outcome]) -> Mistake | None:
        """The known mistake that gives the same as the answer in every case."""
        if len(outcomes) < len(self.all_cases()):  # stopped: nothing to compare with
            return None
        for number, mistake in enumerate(self.mistakes):
            pairs = ((outcome, self._of_mistake(number, i)) for i, outcome in enumerate(outcomes))
            if all(self._alike(outcome, known) for outcome, known in pairs):
                return mistake
        return None

    def _of_mistake(self, number: int, case: int) -> _Outcome:
        """What a known mistake gives in a case; kept, as it is always the same."""
        known, tries = self._mistakes_so_far[number]
        while len(known) <= case:
            known.append(next(tries))
        return known[case]

    @functools.cached_property
    def _mistakes_so_far(self) -> list[tuple[list[_Outcome], Iterator[_Outcome]]]:
        answers = [mistake.answer for mistake in self.mistakes]
        return [([], self._tries(answer)) for answer in answers if callable(answer)]

    def _alike(self, a: _Outcome, b: _Outcome) -> bool:
        if a.ran.failure or b.ran.failure:
            first, second = a.ran.failure, b.ran.failure
            both = first and second
            return bool(both) and gist(first) == gist(second)
        return compare.same(a.ran.value, b.ran.value, self.rtol, self.atol)

    def _where(self, number: int) -> str:
        names = _parameters(self.model_answer)
        case = self.all_cases()[number]
        shown = [f"{name} = {brief(value)}" for name, value in zip(names, case, strict=False)]
        return ", ".join(part for part in shown if part)

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
