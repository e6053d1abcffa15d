"""Answers that add up their arguments, each times a number: which of these numbers is wrong.

A noisy picture is a times x_0 plus b times eps; so are most steps of samplers. Where the right
answer is such a sum, the factors of an answer can be found by least squares, without a look at how
it is written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tutorial_lib.checks.framework.patterns import Pair

EXACT = 1e-4
"""How near a sum must come, relative to the largest number."""


@dataclass
class Weights:
    """The factors that an answer gives to its arguments, compared with the right ones.

    Attributes:
        of_right: the arguments that the right answer adds up; empty if it is no such sum.
        is_sum: whether the answer is one as well.
        wrong: the arguments whose factor is wrong, with the factor and the right one in the first
            case where it is; "" is a number that is added.
    """

    of_right: set[str]
    is_sum: bool
    wrong: dict[str, tuple[float, float]]


def compared(pairs: Sequence[Pair], cases: Sequence[Mapping[str, object]]) -> Weights:
    """The factors of an answer, from one part of it in each case and its arguments there."""
    found = Weights(set(), True, {})
    nothing = Weights(set(), False, {})
    for pair, case in zip(pairs, cases, strict=True):
        added = {
            name: x.double()
            for name, x in case.items()
            if isinstance(x, Tensor) and x.is_floating_point() and x.shape == pair.target.shape
        }
        units = _units(pair, added)
        if units is None:
            return nothing
        for yours, target, columns in units:
            right, fits = _weights(columns, target)
            if not fits:
                return nothing
            named = zip(added, right.tolist(), strict=False)
            found.of_right |= {name for name, factor in named if abs(factor) > 1e-6}
            mine, fits = _weights(columns, yours)
            if not fits:
                found.is_sum = False
                continue
            limit = 10 * EXACT * max(float(right.abs().max()), 1e-9)
            for name, a, b in zip([*added, ""], mine.tolist(), right.tolist(), strict=True):
                if abs(a - b) > limit:
                    found.wrong.setdefault(name, (a, b))
    return found


def wrong_weights(found: Weights) -> str:
    """Which factors are wrong, in words; "" if that is not what is wrong."""
    if not found.of_right or not found.is_sum or not found.wrong:
        return ""
    bad = {name: pair for name, pair in found.wrong.items() if name}
    if not bad:
        return (
            f"A number is added that does not belong there, {_short(found.wrong[''][0])} at first."
        )
    good = sorted(found.of_right - set(bad))
    told = [f"`{name}` is {_short(a)} instead of {_short(b)}" for name, (a, b) in bad.items()]
    text = f"In your result the factor of {', that of '.join(told)}."
    if len(good) == 1:
        text += f" That of `{good[0]}` is right."
    elif good:
        text += f" Those of {_listed(good)} are right."
    return text


def no_sum(found: Weights) -> str:
    """That the right answer is a sum and the answer is not; "" if that is not so."""
    if not found.of_right or found.is_sum:
        return ""
    return (
        f"A right answer is made of {_listed(sorted(found.of_right))}, times one number each in a "
        "sample; yours is not. Is something clamped, or multiplied along the wrong axis?"
    )


def _short(value: float) -> str:
    return "0" if abs(value) < 1e-6 else f"{value:.4g}"


def _listed(names: Sequence[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if quoted[1:] else quoted)


def _units(pair: Pair, added: dict[str, Tensor]) -> list[tuple[Tensor, Tensor, Tensor]] | None:
    """Numbers with the same factors: those of a case, or of each sample; None if they are few."""
    if not added or not pair.target.numel():
        return None
    whole = _unit(pair.yours, pair.target, list(added.values()))
    if whole is not None and _weights(whole[2], whole[1])[1]:
        return [whole]
    if not pair.target.ndim:
        return None
    units = [
        _unit(pair.yours[i], pair.target[i], [x[i] for x in added.values()])
        for i in range(len(pair.target))
    ]
    return [unit for unit in units if unit is not None]


def _unit(
    yours: Tensor, target: Tensor, added: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor] | None:
    columns = torch.stack([x.flatten() for x in (*added, torch.ones_like(target))], dim=1)
    if len(columns) < columns.shape[1] + 2:
        return None
    return yours.flatten(), target.flatten(), columns


def _weights(columns: Tensor, values: Tensor) -> tuple[Tensor, bool]:
    """The factors of the columns in ``values``, and whether they give it."""
    weights = torch.linalg.lstsq(columns, values[:, None], driver="gelsd").solution[:, 0]
    error = float((columns @ weights - values).abs().max())
    return weights, error <= EXACT * max(float(values.abs().max()), 1e-6)
