"""Questions: choose one of several options, or give a number."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tutorial_lib.checks.framework import compare
from tutorial_lib.checks.framework.task import Mistake, Note, Result, Task


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
    functions that give them); they are recognized with the same relative tolerance.
    """

    value: float | Callable[[], float]
    mistakes: Sequence[Mistake] = ()
    rtol: float = 0.01
    atol: float = 0.0
    why: str = ""

    def right_answers(self) -> dict[str, object]:
        """The number in several types, and one at half the tolerance."""
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
        given = None if isinstance(answer, bool) else compare.as_tensor(answer)
        if given is None or given.numel() != 1 or given.is_complex() or given.dtype == torch.bool:
            text = f"Answer with one number; this is {compare.describe(answer)}."
            return self._result("failed", "shape", text)
        if given.device.type == "meta":
            text = "Answer with one number; this is a tensor without numbers, on the meta device."
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
