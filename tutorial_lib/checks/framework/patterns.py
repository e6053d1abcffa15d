"""What wrong numbers have in common, in words: over all cases, never from the look of one."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Arguments = Mapping[str, object]
"""The arguments of a case by name."""


@dataclass(frozen=True)
class Pair:
    """One part of an answer in one case: its numbers, the expected ones, and which are wrong."""

    yours: Tensor
    target: Tensor
    bad: Tensor

    @property
    def is_wrong(self) -> bool:
        """Whether any number is."""
        return bool(self.bad.any())


def one_rule(pairs: Sequence[Pair], cases: Sequence[Arguments]) -> str:
    """The one rule by which all numbers differ from the right ones; "" if there is none.

    Args:
        pairs: one part of the answer, in each case.
        cases: the arguments, in each case.
    """
    if not all(pair.target.isfinite().all() and pair.yours.isfinite().all() for pair in pairs):
        return ""
    if _near(*_all(pairs)):  # too near the right numbers to tell rules apart
        return ""
    return (
        _one_rule(pairs)
        or _an_argument(pairs, cases)
        or _with_an_argument(pairs, cases)
        or _another_order(pairs)
    )


def where(pairs: Sequence[Pair], cases: Sequence[Arguments], sample: str = "") -> str:
    """What tells the wrong numbers from the right ones; "" if nothing simple does.

    Args:
        pairs: one part of the answer, in each case.
        cases: the arguments, in each case.
        sample: what one entry along axis 0 is, as "sample of the batch"; "" if not known.
    """
    sample = sample or _sample(pairs, cases)
    entries = _counted(pairs, _which_entries(pairs, sample))
    several = sum(pair.is_wrong and pair.target.numel() > 1 for pair in pairs) > 1
    return (
        _which_samples(pairs, cases, sample)
        or (entries if several else "")
        or _which_cases([pair.is_wrong for pair in pairs], cases)
        or entries
    )


def how_many(pairs: Sequence[Pair]) -> str:
    """In how many cases all numbers are right; "" if in none."""
    right = sum(not pair.is_wrong for pair in pairs)
    return f"Right in {right} of {len(pairs)} cases." if right else ""


def how_near(pairs: Sequence[Pair]) -> str:
    """By how much the numbers are off at most, if that is little in every case."""
    errors = [
        float((pair.yours - pair.target).abs().max() / pair.target.abs().max().clamp(min=1e-30))
        for pair in pairs
        if pair.target.numel()
    ]
    if not errors or not all(error < 0.02 for error in errors) or not any(errors):  # also NaN
        return ""
    return f"They are close: off by at most {100 * max(errors):.2g} % of a case's largest number."


def _all(pairs: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    return (
        torch.cat([pair.yours.flatten() for pair in pairs]),
        torch.cat([pair.target.flatten() for pair in pairs]),
    )


# One rule for all numbers


def _one_rule(pairs: Sequence[Pair]) -> str:
    yours, target = _all(pairs)
    big = target.abs() > 1e-3 * target.abs().max()
    if int(big.sum()) < 3 or _is_constant(target):
        return ""
    start = "Everywhere your number is"
    if _is_constant(yours):
        return f"All your numbers are {_word(float(yours[0]))}; the expected ones differ."
    ratio = yours[big] / target[big]
    factor = _mean(ratio)
    if _is_constant(ratio) and abs(factor - 1) > 5e-3 and _near(yours, factor * target):
        how = "with the opposite sign" if abs(factor + 1) < 1e-3 else f"times {_word(factor)}"
        return f"{start} the expected one {how}."
    if _is_constant(offset := yours - target):
        return f"{start} the expected one plus {_word(_mean(offset))}."
    for words, rule in _RULES.items():
        made = rule(target)
        if made.isfinite().all() and _near(yours, made) and not _near(target, made):
            return f"{start} {words} the expected one."
    factors = [
        pair.yours[large] / pair.target[large]
        for pair in pairs
        if (large := pair.target.abs() > 1e-3 * pair.target.abs().max()).sum() > 2
    ]
    if len(factors) == len(pairs) and all(_is_constant(f) for f in factors):
        text = "In each case your numbers are the expected ones times one factor, but another "
        return text + "factor in each: " + ", ".join(_word(_mean(f)) for f in factors[:3]) + "."
    return ""


_RULES: dict[str, Callable[[Tensor], Tensor]] = {
    "the square of": torch.square,
    "the square root of": torch.sqrt,
    "the size, without its sign, of": torch.abs,
    "1 divided by": torch.reciprocal,
    "1 minus": lambda x: 1 - x,
    "the logarithm of": torch.log,
    "the exponential of": torch.exp,
}


def _is_constant(x: Tensor) -> bool:
    if not bool(x.isfinite().all()):
        return False
    return float(x.std(correction=0)) <= 1e-3 * float(x.mean().abs())


def _mean(x: Tensor) -> float:
    return float(x.mean())


def _word(value: float) -> str:
    return f"{value:.4g}"


def _near(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))


def _an_argument(pairs: Sequence[Pair], cases: Sequence[Arguments]) -> str:
    """Whether the answer is one of its arguments."""
    for name in cases[0]:
        values = [_numbers(case.get(name)) for case in cases]
        same = [
            value is not None and value.shape == pair.yours.shape and _near(pair.yours, value)
            for pair, value in zip(pairs, values, strict=True)
        ]
        if all(same) and sum(pair.yours.numel() for pair in pairs) > 2:
            return f"Your result is `{name}` itself."
    return ""


def _with_an_argument(pairs: Sequence[Pair], cases: Sequence[Arguments]) -> str:
    """Whether the numbers are the right ones times, divided by, plus or minus an argument."""
    if sum(pair.yours.numel() for pair in pairs) < 3:
        return ""
    for name in cases[0]:
        spread = []
        for pair, case in zip(pairs, cases, strict=True):
            value = _numbers(case.get(name))
            if value is None or value.shape not in ((), pair.target.shape):
                break
            spread.append((pair.target * 0 + value).flatten())
        if len(spread) < len(pairs):
            continue
        flat = torch.cat(spread)
        if _is_constant(flat):
            continue
        yours, target = _all(pairs)
        for words, made in (
            ("times", target * flat),
            ("divided by", target / flat),
            ("plus", target + flat),
            ("minus", target - flat),
        ):
            if made.isfinite().all() and _near(yours, made) and not _near(target, made):
                return f"Everywhere your number is the expected one {words} `{name}`."
    return ""


def _numbers(value: object) -> Tensor | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, Tensor)):
        return None
    if isinstance(value, Tensor) and (value.is_complex() or value.layout != torch.strided):
        return None
    return torch.as_tensor(value).detach().double()


def _another_order(pairs: Sequence[Pair]) -> str:
    wrong = [pair for pair in pairs if pair.is_wrong]
    if not all(pair.target.ndim and pair.target.numel() > 1 for pair in wrong):
        return ""
    if all(_near(pair.yours.flip(0), pair.target) for pair in wrong):
        return "These are the expected numbers in reversed order."
    square = all(pair.target.ndim == 2 and len(set(pair.target.shape)) == 1 for pair in wrong)
    if square and all(_near(pair.yours.mT, pair.target) for pair in wrong):
        return "These are the expected numbers with rows and columns exchanged."
    long = [pair for pair in wrong if len(pair.target) > 3]
    if long and all(_near(pair.yours[1:], pair.target[:-1]) for pair in long):
        return "Your numbers come one place too late along axis 0: yours[1] is what [0] should be."
    if long and all(_near(pair.yours[:-1], pair.target[1:]) for pair in long):
        return "Your numbers come one place too early along axis 0: yours[0] is what [1] should be."
    if sum(pair.target.numel() for pair in wrong) > 3 and all(
        _near(pair.yours.flatten().sort()[0], pair.target.flatten().sort()[0]) for pair in wrong
    ):
        return "These are the expected numbers in another order."
    return ""


# Where they are wrong


def _sample(pairs: Sequence[Pair], cases: Sequence[Arguments]) -> str:
    """ "sample of the batch" if that is what axis 0 of the answer goes along, else ""."""
    if not all(pair.target.ndim for pair in pairs):
        return ""
    lengths = [len(pair.target) for pair in pairs]
    if len(set(lengths)) < 2:
        return ""
    along = [
        [case[name] for case in cases]
        for name in cases[0]
        if all(
            isinstance(value := case.get(name), Tensor) and value.ndim and len(value) == length
            for case, length in zip(cases, lengths, strict=True)
        )
    ]
    most = [max(value.ndim for value in values) for values in along]  # type: ignore[attr-defined]
    has_steps = 1 in most
    return "sample of the batch" if max(most, default=0) > (1 if has_steps else 2) else ""


def _which_samples(pairs: Sequence[Pair], cases: Sequence[Arguments], sample: str) -> str:
    """The values of an argument with one number per entry of axis 0, where the answer is wrong."""
    for name in cases[0]:
        wrong: list[float] = []
        right: list[float] = []
        for pair, case in zip(pairs, cases, strict=True):
            value = case.get(name)
            if not isinstance(value, Tensor) or value.ndim != 1 or value.is_floating_point():
                break
            if not pair.target.ndim or len(value) != len(pair.target):
                break
            rows = pair.bad.reshape(len(value), -1).any(1)
            wrong += value[rows].tolist()
            right += value[~rows].tolist()
        else:
            text = _separated(wrong, right, f"`{name}`")
            if text:
                return f"Wrong for each {sample or 'entry'} where {text}; right for the others."
    return ""


def _separated(these: list[float], others: list[float], name: str) -> str:
    """Which values of ``name`` these are, if they are all of one kind; "" if not."""
    if not these or not others or set(these) & set(others):
        return ""
    if len(set(these)) == 1 and (len(these) > 1 or not min(others) < these[0] < max(others)):
        return f"{name} is {_word(these[0])}"
    if len(set(others)) == 1 and len(others) > 1:
        return f"{name} is not {_word(others[0])}"
    if max(these) < min(others):
        return f"{name} is at most {_word(max(these))}"
    if min(these) > max(others):
        return f"{name} is {_word(min(these))} or more"
    return ""


def _which_cases(is_wrong: Sequence[bool], cases: Sequence[Arguments]) -> str:
    """What the cases in which the answer is wrong have in common."""
    features = [_features(case) for case in cases]
    count, right = len(cases), sum(not wrong for wrong in is_wrong)
    if right in (0, count):
        return ""
    look_at_right = right < count / 2  # the fewer ones are said
    found = []
    for name in features[0]:
        values = [feature.get(name, math.nan) for feature in features]
        if any(math.isnan(value) for value in values):
            continue
        pairs = list(zip(is_wrong, values, strict=True))
        these = [value for wrong, value in pairs if wrong != look_at_right]
        others = [value for wrong, value in pairs if wrong == look_at_right]
        if text := _separated(these, others, name):
            found.append(text)
    if not 0 < len(found) <= 2:  # with more of them nobody knows which it is
        return ""
    cause = " and ".join(found)
    if look_at_right:
        return f"Right in {right} of {count} cases, only where {cause}."
    return f"Right in {right} of {count} cases; wrong where {cause}."


def _features(case: Arguments) -> dict[str, float]:
    """What can be said about the arguments of a case, as numbers."""
    found: dict[str, float] = {}
    for name, value in case.items():
        if isinstance(value, (bool, int, float)):
            found[f"`{name}`"] = float(value)
        elif isinstance(value, Tensor) and value.device.type != "meta":
            if value.ndim == 0 and not value.is_complex():
                found[f"`{name}`"] = float(value)
            elif value.ndim:
                found[f"`{name}.ndim`"] = value.ndim
                found[f"`len({name})`"] = len(value)
        elif isinstance(steps := getattr(value, "num_steps", None), int):
            found[f"`{name}.num_steps`"] = steps
    return found


def _which_entries(pairs: Sequence[Pair], sample: str) -> str:
    """Which entries along an axis are wrong: the first, the last, all but one, one half."""
    wrong = [pair for pair in pairs if pair.is_wrong]
    axes = min(pair.target.ndim for pair in wrong)
    for axis in range(axes):
        rows = [_along(pair.bad, axis) for pair in wrong]
        long = [row for row in rows if len(row) > 1]
        if not long:
            continue
        if axis == 0 and sample:
            what, where = sample, ""
        else:
            what, where = "entry", f" along axis {axis}"
        if len(long) == len(rows) and all(not row[0] for row in rows):
            return f"The first {what}{where} is right, later ones are not."
        if all(row[-1] and not row[:-1].any() for row in long):
            return f"Only the last {what}{where} is wrong."
        if all(row[0] and not row[1:].any() for row in long):
            return f"Only the first {what}{where} is wrong."
        if len(long) == len(rows) and all(not row[-1] and row[:-1].all() for row in rows):
            return f"The last {what}{where} is right, the ones before are not."
        halves = [(row[: len(row) // 2], row[len(row) // 2 :]) for row in rows]
        even = len(long) == len(rows) and all(len(row) % 2 == 0 for row in rows)
        if even and all(not a.any() and b.all() for a, b in halves):
            return f"The first half is right, the second is not (along axis {axis})."
        if even and all(a.all() and not b.any() for a, b in halves):
            return f"The second half is right, the first is not (along axis {axis})."
    return ""


def _counted(pairs: Sequence[Pair], text: str) -> str:
    """``text`` with the number of wrong numbers in the first case that has some."""
    first = next(pair for pair in pairs if pair.is_wrong)
    count, total = int(first.bad.sum()), first.bad.numel()
    return f"{text} ({count} of {total} numbers differ.)" if text and count < total else text


def _along(bad: Tensor, axis: int) -> Tensor:
    """Whether anything is wrong, for each entry along an axis."""
    return bad.movedim(axis, 0).reshape(bad.shape[axis], -1).any(1)
