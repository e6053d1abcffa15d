"""Answers that no known mistake explains alone: two at once, or one in a part or in some cases.

Mistakes are only known by what they give, so they are combined by their numbers. Where one changes
a term of a sum and another changes another term, both together give ``a + b - right``; for factors
of a product it is ``a * b / right``. Every number of every case must agree, so that nothing is
named by chance.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tutorial_lib.checks.framework.task import Mistake

Numbers = Sequence[Mapping[str, Tensor]]
"""What an answer gives: part by part, in each case."""

MOST_NUMBERS = 50_000
"""How many numbers pairs of mistakes are compared in."""


@dataclass(frozen=True)
class Known:
    """A known mistake and what it gives."""

    mistake: Mistake
    gives: Numbers


def explained(
    yours: Numbers,
    right: Numbers,
    known: Sequence[Known],
    near: Callable[[Tensor, Tensor], bool],
) -> tuple[str, str] | None:
    """The names of the mistakes that together give ``yours``, and what to say; None if none do."""
    return (
        _in_one_part(yours, right, known, near)
        or _two_at_once(yours, right, known, near)
        or _in_some_cases(yours, right, known, near)
    )


def _in_one_part(yours, right, known, near) -> tuple[str, str] | None:
    """One part is wrong as by a mistake that leaves the other parts right."""
    names = list(right[0])
    wrong = [name for name in names if not _agree(yours, right, near, name)]
    if len(names) < 2 or not wrong:
        return None
    found: dict[str, list[Mistake]] = {}
    for one in known:
        changed = [name for name in names if not _agree(one.gives, right, near, name)]
        if (
            changed
            and set(changed) <= set(wrong)
            and all(_agree(yours, one.gives, near, name) for name in changed)
        ):
            found.setdefault(", ".join(f"`{name}`" for name in changed), []).append(one.mistake)
    if not found or any(len(mistakes) > 1 for mistakes in found.values()):
        return None
    texts = [f"{part}: {mistakes[0].message}" for part, mistakes in found.items()]
    return " and ".join(m[0].name for m in found.values()), "\n".join(texts)


def _in_some_cases(yours, right, known, near) -> tuple[str, str] | None:
    """Right in some cases; in all others as by one mistake, and only by that one."""
    cases = range(len(right))
    wrong = [i for i in cases if not _agree(yours[i : i + 1], right[i : i + 1], near)]
    if len(wrong) in (0, len(right)):
        return None
    fitting = [
        one.mistake
        for one in known
        if all(_agree(yours[i : i + 1], one.gives[i : i + 1], near) for i in wrong)
    ]
    if len(fitting) != 1 or sum(_flat(right[i : i + 1]).numel() for i in wrong) < 2:
        return None
    count = len(right) - len(wrong)
    return (
        fitting[0].name,
        f"Right in {count} of {len(right)} cases. In the others: {fitting[0].message}",
    )


def _two_at_once(yours, right, known, near) -> tuple[str, str] | None:
    mine, target = _flat(yours), _flat(right)
    if not 3 <= len(mine) <= MOST_NUMBERS or not mine.isfinite().all():
        return None
    if _is_multiple(mine, target, near):  # which is said more simply
        return None
    gives = [_flat(one.gives) for one in known]
    for i, a in enumerate(gives):
        for j in range(i + 1, len(gives)):
            b = gives[j]
            if near(a, b) or near(mine, a) or near(mine, b):
                continue
            if near(mine, a + b - target) or (
                bool((target.abs() > 1e-9).all()) and near(mine, a * b / target)
            ):
                first, second = known[i].mistake, known[j].mistake
                text = f"Two things at once. {first.message}\nAnd: {second.message}"
                return f"{first.name} and {second.name}", text
    for one, a in zip(known, gives, strict=True):
        big = a.abs() > 1e-3 * a.abs().max()
        ratio = mine[big] / a[big]
        if int(big.sum()) < 3 or a.std() <= 1e-6 * a.abs().mean():
            continue
        factor = float(ratio.mean())
        is_other = 1e-6 < abs(factor) < 1e6 and abs(factor - 1) > 5e-3
        if is_other and near(mine, factor * a):
            sign = "its sign is wrong" if abs(factor + 1) < 1e-3 else f"it is times {factor:.4g}"
            return f"{one.mistake.name}, times {factor:.4g}", f"{one.mistake.message} And {sign}."
    return None


def _is_multiple(a: Tensor, b: Tensor, near: Callable[[Tensor, Tensor], bool]) -> bool:
    size = b.square().sum()
    return bool(size > 0) and near(a, (a * b).sum() / size * b)


def _agree(a: Numbers, b: Numbers, near, name: str | None = None) -> bool:
    """Whether two answers agree, in one part or in all."""
    return all(
        near(x[part], y[part])
        for x, y in zip(a, b, strict=True)
        for part in ([name] if name else y)
    )


def _flat(numbers: Numbers) -> Tensor:
    parts = [part.flatten().double() for case in numbers for part in case.values()]
    return torch.cat(parts) if parts else torch.zeros(0)
