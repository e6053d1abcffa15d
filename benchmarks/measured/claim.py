"""A claim, how it is measured, and how two measurements are compared."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Numbers = dict[str, Any]
"""What a measurement found: anything that JSON can hold."""

_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Quantiles 0.975 of Student's t for 1, 2, ... degrees of freedom."""


@dataclass(frozen=True)
class Claim:
    """A sentence that tutorials repeat, and how the course tests it.

    The two texts are made from the numbers, so that they cannot disagree with them: where the
    verdict may turn out one way or the other, ``verdict`` looks at the numbers and decides.

    Attributes:
        name: identifies it in ``benchmarks/results/claims.json`` and on the command line.
        claim: the sentence, as tutorials say it.
        measure: measures it. Is passed ``quick``: if true, the sizes are tiny, since somebody
            only wants to know whether it runs at all. Its seeds and sample sizes are its own, and
            among the numbers it returns.
        verdict: from those numbers, at most 12 words.
        number: from those numbers, at most 30 words: what was measured, with its error or range,
            its seeds and sample size.
    """

    name: str
    claim: str
    measure: Callable[[bool], Numbers]
    verdict: Callable[[Numbers], str]
    number: Callable[[Numbers], str]


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences, and how well it is known.

    Attributes:
        mean: the mean difference, first minus second.
        error: its standard error.
        count: the number of pairs.
    """

    mean: float
    error: float
    count: int

    @property
    def told_apart(self) -> bool:
        """Whether 0 lies outside the mean's 95 % confidence interval (Student's t)."""
        degrees = min(self.count - 1, len(_STUDENT))
        return abs(self.mean) > _STUDENT[degrees - 1] * self.error

    @property
    def words(self) -> str:
        """ "told apart" or "not told apart"."""
        return "told apart" if self.told_apart else "not told apart"

    def __str__(self) -> str:
        digits = _digits(self.error)
        return f"{self.mean:+.{digits}f} ± {self.error:.{digits}f}"


def paired(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Compares two contenders that were measured under the same seeds, seed by seed.

    What a seed does to both contenders alike (its noise, its data) cancels in the difference.

    Args:
        first: one number for each seed.
        second: the other contender's, in the same order.

    Raises:
        ValueError: fewer than two pairs, or lists of different lengths.
    """
    if len(first) != len(second):
        raise ValueError(f"first and second must be pairs, got {len(first)} and {len(second)}")
    if len(first) < 2:
        raise ValueError(f"first must hold at least 2 numbers, one for each seed; got {len(first)}")
    differences = [a - b for a, b in zip(first, second, strict=True)]
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    return Difference(statistics.mean(differences), error, len(differences))


def mean_and_error(values: Sequence[float]) -> str:
    """ "1.23 ± 0.04": the mean of measurements under several seeds, and its standard error.

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(f"values must be at least 2, one for each seed; got {len(values)}")
    error = statistics.stdev(values) / math.sqrt(len(values))
    digits = _digits(error)
    return f"{statistics.mean(values):.{digits}f} ± {error:.{digits}f}"


def _digits(error: float) -> int:
    """Decimals that show two digits of an error below 10, and its whole part above."""
    if error <= 0 or not math.isfinite(error):
        return 2
    return max(0, 1 - math.floor(math.log10(error)))
