"""Compares the result of an answer with the expected one, part by part."""

import array
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from tutorial_lib.checks.framework.patterns import Pair

_Close = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Difference:
    """Where two tensors of the same shape first differ, and by how much at most."""

    part: str
    index: tuple[int, ...]
    expected: float
    yours: float
    max_abs_error: float
    wrong: int
    target_values: Tensor
    your_values: Tensor


@dataclass(frozen=True)
class Problem:
    """What is wrong in one case, and the stage of the check that noticed it."""

    stage: str
    message: str
    difference: Difference | None = None
    is_located: bool = True
    """Whether the message says more than that numbers differ, or how many of them do."""


@dataclass(frozen=True)
class Thing:
    """Something in a result that holds no numbers: what it is, in words."""

    words: str


def as_tensor(value: object) -> Tensor | None:
    """A copy of ``value`` as a tensor, or None if it does not hold numbers."""
    try:
        if isinstance(value, Tensor):
            return _plain(value.detach())
        if isinstance(value, (bool, int, float)):
            return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
        if isinstance(value, (Fraction, Decimal)):
            return torch.tensor(float(value), dtype=torch.float64)
        if isinstance(value, array.array):
            return torch.from_numpy(np.array(value))
        if isinstance(value, (np.ndarray, np.generic)):
            numbers = np.array(value)
            if numbers.dtype.kind == "f" and numbers.dtype.itemsize > 8:  # torch has none so long
                numbers = numbers.astype(np.float64)
            if numbers.dtype.kind == "u" and numbers.dtype.itemsize > 1:
                numbers = numbers.astype(np.int64)
            return torch.from_numpy(numbers.astype(numbers.dtype.newbyteorder("=")))
        if isinstance(value, (list, tuple, range)) and value:
            parts = [as_tensor(part) for part in value]
            return None if any(part is None for part in parts) else torch.stack(parts)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None
    return None


def _plain(value: Tensor) -> Tensor | None:
    """A copy of a tensor that one can calculate with; None if there is no way to get one."""
    if value.is_nested or value.is_quantized:
        return None
    if value.layout != torch.strided:
        return value.to_dense()
    if value.is_floating_point() and value.dtype.itemsize == 1:  # float8 knows no arithmetic
        return value.float()
    return value.rename(None).clone() if value.has_names() else value.clone()


def parts_of(value: object, names: Sequence[str]) -> dict[str, object]:
    """The parts of an expected result by name; {"": value} if it is a single thing."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        fields = names or getattr(value, "_fields", ()) or [f"part {i}" for i in range(len(value))]
        return dict(zip(fields, value, strict=True))
    return {"": value}


def compare(
    yours: object,
    expected: object,
    names: Sequence[str],
    rtol: float,
    atol: float,
    scale: Callable[[Tensor], Tensor] | None = None,
) -> Problem | None:
    """The problem of the first stage that rejects ``yours``, or None if it is right.

    Args:
        yours: what an answer gave.
        expected: what is right.
        names: the names of its parts, if it is a tuple.
        rtol: relative tolerance.
        atol: absolute tolerance.
        scale: both are compared after this; messages show the numbers as they are.
    """
    wanted = parts_of(expected, names)
    given = _given(yours, wanted)
    if given is None:
        parts = ", ".join(wanted)
        text = f"Return {len(wanted)} things, ({parts}); yours gave {describe(yours)}."
        return Problem("shape", text)
    pairs = [(name, given[name], as_tensor(wanted[name])) for name in wanted]
    for stage in (_shape, _finite) if math.isinf(atol) else (_shape, _finite, _values):
        for name, yours_part, target in pairs:
            if target is None:
                raise TypeError(f"the reference gave {describe(expected)}, expected numbers")
            problem = stage(name, yours_part, target, lambda a, b: _close(a, b, rtol, atol, scale))
            if problem:
                return problem
    return None


def paired(
    yours: object,
    expected: object,
    names: Sequence[str],
    rtol: float,
    atol: float,
    scale: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Pair]:
    """The numbers of each part, for an answer that has the right shapes."""
    wanted = parts_of(expected, names)
    given = _given(yours, wanted) or {}
    pairs = {}
    for name, part in given.items():
        a, b = as_tensor(part), as_tensor(wanted[name])
        assert a is not None
        assert b is not None
        pairs[name] = Pair(a.double(), b.double(), ~_close(a, b, rtol, atol, scale))
    return pairs


def _given(yours: object, wanted: Mapping[str, object]) -> dict[str, object] | None:
    """The parts of an answer by name; None if they are others than the wanted ones."""
    if "" in wanted:
        return {"": yours}
    if isinstance(yours, Mapping) and set(yours) == set(wanted):
        return {name: yours[name] for name in wanted}
    if isinstance(yours, (tuple, list)) and len(yours) == len(wanted):
        return dict(zip(wanted, yours, strict=True))
    return None


def same(
    a: object,
    b: object,
    rtol: float,
    atol: float,
    scale: Callable[[Tensor], Tensor] | None = None,
) -> bool:
    """Whether two results, right or wrong, are the same: type, shape and numbers."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return set(a) == set(b) and all(same(a[key], b[key], rtol, atol, scale) for key in a)
    first, second = as_tensor(a), as_tensor(b)
    if first is None or second is None:
        if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
            pairs = zip(a, b, strict=False)
            return len(a) == len(b) and all(same(x, y, rtol, atol, scale) for x, y in pairs)
        if isinstance(a, Thing) and isinstance(b, Thing):
            return a == b
        return first is None and second is None and type(a) is type(b)
    if (
        first.shape != second.shape
        or first.device != second.device
        or _kind(first) != _kind(second)
    ):
        return False
    if _kind(first) == "complex numbers":
        return torch.allclose(first, second)
    return bool(_close(first, second, rtol, atol, scale).all())


def describe(value: object) -> str:
    """What ``value`` is, in a few words: "a tensor of shape (2, 3)", "None", "a str"."""
    match value:
        case None:
            return "None"
        case Thing():
            return value.words
        case Tensor() if value.is_nested:
            return "a nested tensor"
        case Tensor():
            return f"a tensor of shape {tuple(value.shape)}"
        case np.ndarray():
            return f"an array of shape {value.shape}"
        case bool() | int() | float():
            return f"the number {value}"
        case tuple() | list():
            return f"a {type(value).__name__} of {len(value)} things"
    name = type(value).__name__
    if name == "generator":
        return "a generator (there is a `yield` in your function)"
    return f"{'an' if name[:1].lower() in set('aeiou') else 'a'} {name or 'thing'}"


def _shape(name: str, yours: object, target: Tensor, _close: _Close) -> Problem | None:
    label = f"`{name}`: " if name else ""
    given = as_tensor(yours)
    if given is None:
        wanted = "a number" if target.ndim == 0 else "a tensor"
        return Problem("shape", f"{label}Expected {wanted}, yours is {describe(yours)}.")
    if given.shape != target.shape:
        if isinstance(yours, tuple) and len(yours) == 1:
            text = "Yours is a tuple of one thing: is there a comma too many after `return ...`?"
            return Problem("shape", label + text)
        if isinstance(yours, tuple):
            text = f"Expected one thing, yours is {describe(yours)}."
            return Problem("shape", label + text)
        want, got = tuple(target.shape), tuple(given.shape)
        wanted = "a single number (shape ())" if want == () else f"shape {want}"
        return Problem("shape", f"{label}Expected {wanted}, yours has shape {got}.")
    if given.device != target.device:
        text = f"{label}Your result is on {given.device}, the inputs were on {target.device}."
        return Problem("shape", text + " Create new tensors with `device=x.device`.")
    is_python_number = isinstance(yours, int) and not isinstance(yours, bool)
    if _kind(given) != _kind(target) and not (is_python_number and _kind(target)[0] == "f"):
        text = f"{label}Expected {_kind(target)}, yours holds {_kind(given)} ({given.dtype})."
        return Problem("shape", text)
    return None


def _finite(name: str, yours: object, target: Tensor, _close: _Close) -> Problem | None:
    given = as_tensor(yours)
    assert given is not None
    bad = ~given.isfinite() & target.isfinite()
    if not bad.any():
        return None
    label = f"`{name}`: " if name else ""
    which = "NaN" if given[bad].isnan().any() else "infinite"
    count, first = int(bad.sum()), tuple(bad.nonzero()[0].tolist())
    where = f", the first at {list(first)}" if first else ""
    many = f"{count} of {bad.numel()} numbers are" if bad.numel() > 1 else "Your number is"
    text = f"{label}{many} {which}{where}. {_WHENCE[which]}"
    return Problem("finite", text, _difference(name, given, target, bad), is_located=False)


_WHENCE = {
    "NaN": "NaN comes from 0 / 0, from the root or logarithm of a negative number, or from another "
    "NaN.",
    "infinite": "Infinity comes from a division by 0, from the logarithm of 0, or from an "
    "exponential of a large number.",
}


def _values(name: str, yours: object, target: Tensor, close: _Close) -> Problem | None:
    given = as_tensor(yours)
    assert given is not None
    bad = ~close(given, target)
    if not bad.any():
        return None
    label = f"`{name}`: " if name else ""
    count, total = int(bad.sum()), bad.numel()
    text = "The numbers differ from the expected ones."
    if total == 1:
        text = "Your number differs from the expected one."
    elif count < total:
        text = f"{count} of {total} numbers differ from the expected ones."
    difference = _difference(name, given, target, bad)
    return Problem("values", label + text, difference, is_located=False)


def _close(
    a: Tensor,
    b: Tensor,
    rtol: float,
    atol: float,
    scale: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    if scale is not None:
        a, b = scale(a.double()), scale(b.double())
    return torch.isclose(a.double(), b.double(), rtol=rtol, atol=atol, equal_nan=True)


def _difference(name: str, yours: Tensor, target: Tensor, bad: Tensor) -> Difference:
    index = tuple(bad.nonzero()[0].tolist())
    errors = (yours.double() - target.double()).abs()[bad]
    return Difference(
        name,
        index,
        float(target[index]),
        float(yours[index]),
        float(errors.max()),
        int(bad.sum()),
        target,
        yours,
    )


def _kind(x: Tensor) -> str:
    if x.dtype == torch.bool:
        return "True / False"
    if x.is_complex():
        return "complex numbers"
    return "floating-point numbers" if x.is_floating_point() else "whole numbers"
