"""Where a NaN or an infinity comes from: the first line of an answer that makes one."""

import linecache
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves

from tutorial_lib.checks.framework import run

_OURS = {str(path) for path in Path(__file__).parent.glob("*.py")}
"""Where the way up from an operation ends: what called us is a cell too, but not the answer."""


class FirstNotFinite(TorchFunctionMode):
    """Inside, notes the first operation that makes NaN or infinity of other numbers.

    Args:
        own_file: the file of the answer.
        nan_only: look for NaN alone, as some of the right numbers are infinite.
    """

    def __init__(self, own_file: str, nan_only: bool) -> None:
        super().__init__()
        self._own_file, self._nan_only = own_file, nan_only
        self._found: tuple[str, str] | None = None

    def __torch_function__(self, func, types, args=(), kwargs=None) -> Any:
        value = func(*args, **(kwargs or {}))
        if self._found is None:
            self._look(func, [*args, *(kwargs or {}).values()], value, sys._getframe().f_back)
        return value

    def _look(
        self, func: Any, arguments: Sequence[object], value: object, caller: FrameType | None
    ) -> None:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return
        if not _is_plain(value) or not self._is_bad(value):
            return
        tensors = [x for x in tree_leaves(arguments) if isinstance(x, Tensor)]
        if any(not _is_plain(x) or self._is_bad(x) for x in tensors):
            return  # it was there before
        line = self._line(caller)
        name = (resolve_name(func) or "").rpartition(".")[2].strip("_")
        if line:
            self._found = line, _why(name, arguments, bool(value.isnan().any()))

    def _is_bad(self, value: Tensor) -> bool:
        return bool(value.isnan().any() if self._nan_only else not value.isfinite().all())

    def _line(self, frame: FrameType | None) -> str:
        while frame is not None and frame.f_code.co_filename not in _OURS:
            file = frame.f_code.co_filename
            is_wrapper = file.startswith("<@")  # the shape checker of our tests
            if not is_wrapper and run.is_learners(file, self._own_file):
                return f"Line {frame.f_lineno}: `{linecache.getline(file, frame.f_lineno).strip()}`"
            frame = frame.f_back
        return ""

    def text(self) -> str:
        """What was found, for a learner; "" if nothing was."""
        return "" if self._found is None else f"{self._found[1]}\n{self._found[0]}"[:150]


def _why(name: str, arguments: Sequence[object], is_nan: bool) -> str:
    """What an operation did to its arguments, in words."""
    first = arguments[0]
    numbers = torch.as_tensor(first) if isinstance(first, (Tensor, int, float)) else None
    low = float(numbers.min()) if numbers is not None and numbers.numel() else 0.0
    size = max((x.abs().max() for x in arguments if _has_numbers(x)), default=0)  # type: ignore[attr-defined]
    match name:
        case "sqrt" | "pow" if is_nan and low < 0:
            return f"Here a root is taken of a negative number, {low:.4g}:"
        case "log" | "log2" | "log10" | "log1p":
            return f"Here a logarithm is taken of {low:.4g}:"
        case "acos" | "asin" | "arccos" | "arcsin":
            return f"Here `{name}` gets a number outside of -1 to 1, up to {float(size):.6g}:"
        case "truediv" | "div" | "rtruediv" | "divide" | "itruediv" | "reciprocal" | "rsqrt":
            return f"Here {'0 is divided by 0' if is_nan else 'a number is divided by 0'}:"
        case "mean" | "std" | "var" if numbers is not None:
            return f"Here `{name}` is taken of too few numbers, {numbers.numel()}:"
        case "exp":
            return f"Here `exp` is taken of a number that is too large, {float(size):.4g}:"
    return f"It begins here, with `{name}`:"


def _has_numbers(value: object) -> bool:
    return isinstance(value, Tensor) and _is_plain(value) and value.numel() > 0


def _is_plain(value: Tensor) -> bool:
    return value.layout == torch.strided and value.device.type != "meta"
