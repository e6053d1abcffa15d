"""Checks of arguments; each message names the argument, what was expected and what was given."""

import difflib
import math
import numbers
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""The floating-point numbers that torch can compute with; those of 8 bits are for storage."""


class UserError(Exception):
    """A mistake its message explains to whoever made it, such as a wrong argument or a missing
    file; the command line prints the message alone. Any other exception is a bug."""


class InvalidValueError(UserError, ValueError):
    """An argument of the right type with a wrong value."""


class InvalidTypeError(UserError, TypeError):
    """An argument of a wrong type."""


class FileError(UserError, OSError):
    """A file or folder that cannot be read or written; the message names it."""


class MissingFileError(FileError, FileNotFoundError):
    """A file or folder that does not exist."""


def whole_number(
    name: str, value: object, *, at_least: int, at_most: int | None = None, why: str = ""
) -> int:
    """``value`` as an int; TypeError unless it is one, ValueError outside the limits.

    ``why`` says, behind the message, where the upper limit comes from.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):  # NumPy's ints are fine
        raise InvalidTypeError(f"{name} must be an int, got {describe(value)}")
    value = int(value)
    if value < at_least:
        raise InvalidValueError(f"{name} must be at least {at_least}, got {shown(value)}")
    if at_most is not None and value > at_most:
        reason = f": {why}" if why else ""
        raise InvalidValueError(f"{name} must be at most {at_most}, got {shown(value)}{reason}")
    return value


def shown(value: int) -> str:
    """An int as messages show it: those of many digits by their size."""
    if abs(value) < 10**40:
        return str(value)
    return f"about {'-' if value < 0 else ''}10^{math.log10(abs(value)):.0f}"


def seed(name: str, value: object) -> int:
    """``value`` as an int that torch accepts as a seed, 0 to 2^63 - 1; else an error."""
    seed = whole_number(name, value, at_least=0)
    if seed >= 2**63:
        raise InvalidValueError(f"{name} must be below 2^63, got {shown(seed)}")
    return seed


def number(name: str, value: object, *, low: float, high: float) -> float:
    """``value`` as a finite float in [low, high]; TypeError unless a number, else ValueError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InvalidTypeError(f"{name} must be a number, got {describe(value)}")
    try:
        value = float(value)
    except OverflowError:  # an int of more than 308 digits
        value = math.inf if value > 0 else -math.inf  # pyright: ignore[reportOperatorIssue]
    # NaN compares false with everything, so it is rejected too
    if not low <= value <= high or math.isinf(value):
        span = f"finite and at least {low:g}" if math.isinf(high) else f"in [{low:g}, {high:g}]"
        raise InvalidValueError(f"{name} must be {span}, got {value}")
    return value


def boolean(name: str, value: object) -> bool:
    """``value`` if it is True or False; else a TypeError: "no" would count as True."""
    if not isinstance(value, bool):
        raise InvalidTypeError(f"{name} must be True or False, got {describe(value)}")
    return value


def text(name: str, value: object) -> str:
    """``value`` if it is a str; else a TypeError."""
    if not isinstance(value, str):
        raise InvalidTypeError(f"{name} must be a str, got {describe(value)}")
    return value


def instance(name: str, value: object, kind: type[T]) -> T:
    """``value`` if it is an instance of ``kind``; else a TypeError."""
    if not isinstance(value, kind):
        raise InvalidTypeError(f"{name} must be a {kind.__name__}, got {describe(value)}")
    return value


def function(name: str, value: object) -> None:
    """TypeError unless ``value`` can be called."""
    if not callable(value):
        raise InvalidTypeError(f"{name} must be a function or a module, got {describe(value)}")


def generator(name: str, value: object) -> None:
    """TypeError unless ``value`` is a generator of torch's or None."""
    if value is not None and not isinstance(value, torch.Generator):
        raise InvalidTypeError(f"{name} must be a torch.Generator or None, got {describe(value)}")


def path(name: str, value: object, *, kinds: str = "a path or a str") -> Path:
    """``value`` as a path; TypeError, which says ``kinds``, unless it is a str or a path."""
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str):
        raise InvalidTypeError(f"{name} must be {kinds}, got {describe(value)}")
    return Path(value)


def device(name: str, value: object) -> torch.device:
    """``value`` as a device of torch; else a TypeError or ValueError."""
    if not isinstance(value, (str, torch.device)):
        raise InvalidTypeError(f"{name} must be a device or its name, got {describe(value)}")
    try:
        return torch.device(value)
    except RuntimeError as error:
        raise InvalidValueError(f"{name} must name a device, got {value!r:.60}") from error


def names(name: str, value: object) -> tuple[str, ...]:
    """``value`` as a tuple, if it is a sequence of str that differ; else an error."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InvalidTypeError(f"{name} must be a sequence of str, got {describe(value)}")
    seen = set()
    for entry in value:
        if not isinstance(entry, str):
            raise InvalidTypeError(f"{name} must be a sequence of str, got {describe(entry)} in it")
        if entry in seen:
            raise InvalidValueError(f"{name} must differ from each other, got {entry!r:.60} twice")
        seen.add(entry)
    return tuple(value)


def one_of(name: str, value: object, options: Iterable[str]) -> str:
    """``value`` if it is one of ``options``; else a ValueError that suggests the nearest one."""
    options = list(options)
    if isinstance(value, str) and value in options:
        return value
    try:
        got = shown(value) if isinstance(value, int) else repr(value)
    except Exception:  # whatever a foreign class does there, its name says enough
        got = type(value).__name__
    got = got if got.isprintable() else type(value).__name__  # a tensor takes several lines
    got = got if len(got) <= 80 else f"{got[:80]}..."
    wanted = value[:80] if isinstance(value, str) else got
    near = difflib.get_close_matches(wanted, options, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise InvalidValueError(f"{name} must be one of {', '.join(options)}; got {got}{hint}")


def floating(name: str, value: object) -> Tensor:
    """``value`` if it is a tensor of floating-point numbers; else a TypeError."""
    if not isinstance(value, Tensor):
        raise InvalidTypeError(f"{name} must be a tensor, got {describe(value)}")
    if value.dtype not in FLOATS:
        raise InvalidTypeError(f"{name} must hold floating-point numbers, got {value.dtype}")
    return held(name, value)


def held(name: str, tensor: Tensor) -> Tensor:
    """``tensor`` if its numbers are in memory, one place for each; else a TypeError."""
    if tensor.is_meta:
        raise InvalidTypeError(f"{name} must hold numbers, got a tensor of the meta device")
    if tensor.layout != torch.strided:
        raise InvalidTypeError(f"{name} must be dense, got a tensor of layout {tensor.layout}")
    return tensor


def batch(name: str, value: object) -> Tensor:
    """``value`` if it is a batch of finite floating-point numbers, (B, ...); else an error."""
    tensor = floating(name, value)
    if tensor.ndim < 1:
        raise InvalidValueError(f"{name} must have a batch axis, got a single number")
    return finite(name, tensor)


def finite(name: str, tensor: Tensor) -> Tensor:
    """``tensor`` if no entry is NaN or infinite; else a ValueError.

    Checked on the CPU only, for the reason given in ``steps``.
    """
    values = tensor.detach()
    if not seems_finite(values) and not values.isfinite().all():
        raise InvalidValueError(f"{name} must be finite, got NaN or infinity")
    return tensor


def seems_finite(tensor: Tensor) -> bool:
    """Whether the sum of all entries is finite, a quick check; True on devices other than the CPU.

    The sum is NaN or infinite if an entry is. If it merely overflows, each entry must be checked.
    """
    return tensor.device.type != "cpu" or math.isfinite(tensor.sum().item())


def same_shape(name: str, value: object, like_name: str, like: Tensor) -> Tensor:
    """``value`` if it holds finite floating-point numbers in the shape of ``like``; else an error.

    Without the check of the shapes, broadcasting would give wrong numbers silently.
    """
    tensor = floating(name, value)
    if tensor.shape != like.shape:
        expected = f"the shape of {like_name}, {tuple(like.shape)}"
        raise InvalidValueError(f"{name} must have {expected}; got {tuple(tensor.shape)}")
    return finite(name, tensor)


def answer(name: str, value: object, like: Tensor) -> Tensor:
    """``value``, which ``name`` returned for ``like``, if it holds floating-point numbers in that
    shape; else an error."""
    if not isinstance(value, Tensor):
        raise InvalidTypeError(f"{name} must answer with a tensor, got {describe(value)}")
    if value.dtype not in FLOATS:  # a complex answer would lose its imaginary part
        numbers = "floating-point numbers"
        raise InvalidTypeError(f"{name} must answer with {numbers}, got {value.dtype}")
    if value.shape != like.shape:  # broadcasting would give wrong numbers silently
        got, expected = tuple(value.shape), tuple(like.shape)
        raise InvalidValueError(f"{name} must answer with the shape of x_t, {expected}; got {got}")
    if value.is_meta != like.is_meta or value.layout != like.layout:
        held(f"the answer of {name}", value)
    return value


def steps(name: str, t: object, *, batch: int, low: int, high: int, of: str = "") -> Tensor:
    """``t`` if it is int64 of shape (batch,) with values in low..high; else an error.

    ``of`` is the name of the batch, for the message.
    Values are checked on the CPU only: on an accelerator the check would make every step of a
    training run wait for the device, and indexing there rejects numbers out of range anyway.
    """
    if not isinstance(t, Tensor):
        one_each = f"one step for each member of the batch, as in torch.full(({batch},), 10)"
        raise InvalidTypeError(f"{name} must be an int64 tensor, {one_each}; got {describe(t)}")
    if t.dtype != torch.int64:
        raise InvalidTypeError(f"{name} must be int64, got {t.dtype}")
    held(name, t)
    if t.shape != (batch,):
        shape = tuple(t.shape)
        raise InvalidValueError(
            f"{name} must have shape ({batch},), one step a sample{of and f' of {of}'}; got {shape}"
        )
    if t.device.type == "cpu" and t.numel() and (t.min() < low or t.max() > high):
        worst = int(t.min()) if t.min() < low else int(t.max())
        raise InvalidValueError(f"{name} must be in {low}..{high}, got {worst}")
    return t


def describe(value: object) -> str:
    """A value as an error message names it: its type, and its repr if that is short."""
    kind = type(value).__name__
    try:
        text = repr(value)
    except Exception:  # whatever a foreign class does there, its name says enough
        return kind
    return f"{kind} {text}" if len(text) <= 40 and text.isprintable() else kind
