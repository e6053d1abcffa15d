"""Compares the result of an answer with the expected one, part by part."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


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


def as_tensor(value: object) -> Tensor | None:
    """A copy of ``value`` as a tensor, or None if it does not hold numbers."""
    try:
        if isinstance(value, Tensor):
            return _plain(value.detach())
        if isinstance(value, (bool, int, float)):
            return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
        if isinstance(value, (np.ndarray, np.generic)):
            return torch.from_numpy(np.array(value))
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
    yours: object, expected: object, names: Sequence[str], rtol: float, atol: float
) -> Problem | None:
    """The problem of the first stage that rejects ``yours``, or None if it is right."""
    wanted = parts_of(expected, names)
    if "" in wanted:
        given: dict[str, object] = {"": yours}
    else:
        match yours:
            case Mapping() if set(yours) == set(wanted):
                given = {name: yours[name] for name in wanted}
            case tuple() | list() if len(yours) == len(wanted):
                given = dict(zip(wanted, yours, strict=True))
            case _:
                parts = ", ".join(wanted)
                text = f"Return {len(wanted)} things, ({parts}); yours gave {describe(yours)}."
                return Problem("shape", text)
    pairs = [(name, given[name], as_tensor(wanted[name])) for name in wanted]
    for stage in (_shape, _finite, _values):
        for name, yours_part, target in pairs:
            if target is None:
                raise TypeError(f"the reference gave {describe(expected)}, expected numbers")
            problem = stage(name, yours_part, target, rtol, atol)
            if problem:
                return problem
    return None


def same(a: object, b: object, rtol: float, atol: float) -> bool:
    """Whether two results, right or wrong, are the same: type, shape and numbers."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return set(a) == set(b) and all(same(a[key], b[key], rtol, atol) for key in a)
    first, second = as_tensor(a), as_tensor(b)
    if first is None or second is None:
        if isinstance(a, (tuple, list)) and isinstance(b, (tuple, list)):
            pairs = zip(a, b, strict=False)
            return len(a) == len(b) and all(same(x, y, rtol, atol) for x, y in pairs)
        return first is None and second is None and type(a) is type(b)
    if (
        first.shape != second.shape
        or first.device != second.device
        or _kind(first) != _kind(second)
    ):
        return False
    if _kind(first) == "complex numbers":
        return torch.allclose(first, second)
    return bool(_close(first, second, rtol, atol).all())


def describe(value: object) -> str:
    """What ``value`` is, in a few words: "a tensor of shape (2, 3)", "None", "a str"."""
    match value:
        case None:
            return "None"
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


def _shape(name: str, yours: object, target: Tensor, _rtol: float, _atol: float) -> Problem | None:
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


def _finite(name: str, yours: object, target: Tensor, _rtol: float, _atol: float) -> Problem | None:
    given = as_tensor(yours)
    assert given is not None
    bad = ~given.isfinite() & target.isfinite()
    if not bad.any():
        return None
    label = f"`{name}`: " if name else ""
    which = "NaN" if given[bad].isnan().any() else "infinite"
    count, first = int(bad.sum()), tuple(bad.nonzero()[0].tolist())
    where = f", the first at {list(first)}" if first else ""
    text = f"{label}{count} of {bad.numel()} numbers are {which}{where}."
    return Problem("finite", text, _difference(name, given, target, bad), is_located=False)


def _values(name: str, yours: object, target: Tensor, rtol: float, atol: float) -> Problem | None:
    given = as_tensor(yours)
    assert given is not None
    bad = ~_close(given, target, rtol, atol)
    if math.isinf(atol) or not bad.any():
        return None
    label = f"`{name}`: " if name else ""
    difference = _difference(name, given, target, bad)
    text = _pattern(given.double(), target.double(), bad)
    if text:
        return Problem("values", label + text, difference)
    count, total = int(bad.sum()), bad.numel()
    text = "The numbers differ from the expected ones."
    if count < total:
        text = f"{count} of {total} numbers differ from the expected ones."
    return Problem("values", label + text, difference, is_located=False)


def _close(a: Tensor, b: Tensor, rtol: float, atol: float) -> Tensor:
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


def _pattern(yours: Tensor, target: Tensor, bad: Tensor) -> str:
    """The pattern of the difference, if it is a simple one, else ""."""
    big = target.abs() > 1e-3 * target.abs().max()
    if target.isfinite().all() and big.sum() > 2:
        ratio = (yours[big] / target[big]).double()
        if _is_constant(ratio) and abs(float(ratio.mean()) - 1) > 5e-3:
            factor = float(ratio.mean())
            how = "with the opposite sign" if abs(factor + 1) < 1e-3 else f"times {factor:.4g}"
            return f"Everywhere your number is the expected one {how}."
        offset = yours - target
        if _is_constant(offset):
            return f"Everywhere your number is the expected one plus {float(offset.mean()):.4g}."
        if target.ndim == 1 and torch.allclose(yours.flip(0), target, rtol=1e-3):
            return "These are the expected numbers in reversed order."
    if target.ndim > 1 and len(target) > 1 and not bad[0].any():
        return "The first sample of the batch is right, later ones are not."
    return ""


def _is_constant(x: Tensor) -> bool:
    return bool(x.isfinite().all()) and float(x.std()) < 1e-3 * float(x.mean().abs())


def _kind(x: Tensor) -> str:
    if x.dtype == torch.bool:
        return "True / False"
    if x.is_complex():
        return "complex numbers"
    return "floating-point numbers" if x.is_floating_point() else "whole numbers"
