"""Tasks: what exercises and questions have in common, and the results of their checks."""

import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tutorial_lib.checks.framework import compare, show
from tutorial_lib.checks.framework.remote.answering import hand_over
from tutorial_lib.checks.framework.run import is_learners
from tutorial_lib.checks.framework.settings import unchanged_settings
from tutorial_lib.checks.framework.time_limit import watched

Outcome = Literal["passed", "failed", "not attempted"]
STAGES = ("not attempted", "raised", "shape", "finite", "values", "properties", "passed")


class BrokenExerciseError(RuntimeError):
    """An exercise itself is wrong: its reference fails."""


class Wrong(Exception):  # noqa: N818  (the answer is wrong, not the program)
    """Raised by an exercise's own ``use`` or property to reject an answer with a message."""

    def __init__(self, stage: str, message: str, mistake: str | None = None) -> None:
        if stage not in STAGES:
            raise ValueError(f"stage must be one of {', '.join(STAGES)}; got {stage!r}")
        super().__init__(message)
        self.stage, self.message, self.mistake = stage, message, mistake


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that people give: its name, the answer itself, and what to tell them."""

    name: str
    answer: object
    message: str


@dataclass(frozen=True)
class Property:
    """Something true of every right answer: ``holds(answer)`` returns True."""

    message: str
    holds: Callable[[Callable], bool]
    mistake: str | None = None


@dataclass(frozen=True)
class Result:
    """The result of a check.

    Attributes:
        stage: the stage of the check that decided, one of ``STAGES``.
        mistake: the name of the known mistake that was recognized.
        where: the arguments of the case that failed, in words.
        difference: where expected and actual numbers differ.
        printed: what the answer printed.
        is_located: whether the message says more than that numbers differ, or how many do.
    """

    exercise: str
    title: str
    outcome: Outcome
    stage: str
    message: str
    mistake: str | None = None
    where: str = ""
    difference: compare.Difference | None = field(default=None, repr=False)
    printed: str = field(default="", repr=False)
    is_located: bool = field(default=True, repr=False)

    @property
    def passed(self) -> bool:
        """Whether the answer is right."""
        return self.outcome == "passed"

    def __str__(self) -> str:
        return show.text(self.outcome, self.title, self.message, self.where, self.difference)

    def _repr_pretty_(self, printer, cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> str:
        message, where = self.message, self.where
        return show.html(self.outcome, self.title, message, where, self.difference, self.printed)


@dataclass(frozen=True)
class Note:
    """A hint or a solution, which displays itself in a notebook."""

    title: str
    text: str
    source: str = ""

    def __str__(self) -> str:
        return "\n".join(part.strip("\n") for part in (self.title, self.source, self.text) if part)

    def _repr_pretty_(self, printer, cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> str:
        return show.note(self.title, self.text, self.source)


def _cannot_judge(error: BaseException) -> str:
    """What to say if looking at an answer raised: whose code it was, as far as that is known."""
    name = type(error).__name__
    frames = traceback.walk_tb(error.__traceback__)
    if any(is_learners(frame.f_code.co_filename, "") for frame, _ in frames):
        return f"Your answer cannot be looked at: its own code raises {name}."
    return (
        f"This answer could not be judged: looking at it raised {name}. Return plain tensors or "
        "numbers. If that is what you do, the check is at fault, not you: please report it."
    )


@dataclass(frozen=True)
class Task(ABC):
    """An exercise or a question: a name, hints, a check and a solution."""

    id: str
    title: str
    difficulty: int = field(default=1, kw_only=True)
    minutes: int = field(default=1, kw_only=True)
    hints: Sequence[str] = field(kw_only=True)
    passed: str = field(default="", kw_only=True)
    """What to say when the answer is right, apart from that it is."""

    def check(self, answer: object, /) -> Result:
        """Say what is right or wrong with ``answer``; never raises, leaves the process as it was.

        Inside ``progress`` the answer is also lent to the judge, which forms its own opinion.
        """
        with unchanged_settings():
            hand_over(self, answer)
            return self.judge(answer)

    def judge(self, answer: object, /) -> Result:
        """The verdict on an answer, also on one that runs in another process; tells no grader."""
        try:
            with watched():
                return self._judge(answer)
        except (KeyboardInterrupt, BrokenExerciseError):
            raise
        except BaseException as error:  # the answer is an object with hostile methods
            return self._result("failed", "shape", _cannot_judge(error))

    def prepared(self, answer: object) -> object:
        """``answer`` in the form in which it is judged."""
        return answer

    def hint(self, n: int = 1) -> Note:
        """The ``n``-th hint; each says more than the one before.

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
