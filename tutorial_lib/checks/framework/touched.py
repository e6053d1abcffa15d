"""Noticing that an answer overwrites its arguments, with which whoever called it goes on."""

import functools
from collections.abc import Callable, Iterator

import numpy as np
from torch import Tensor

CALLS = 4
"""How many calls of a case are watched: some cases call thousands of times."""


class Watch:
    """Notes which arguments the answers that it watches overwrite.

    Args:
        names: what the arguments are called, in order.
    """

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._calls = 0
        self._open: list[Callable[[], None]] = []
        self.touched: dict[str, str] = {}
        """What each overwritten argument is, "tensor", "array" or "list", by its name."""

    def watched(self, answer: Callable) -> Callable:
        """``answer``, which is called as before; a class is returned as it is."""
        if isinstance(answer, type):
            return answer

        @functools.wraps(answer)
        def call(*arguments: object, **keywords: object) -> object:
            self._calls += 1
            if self._calls > CALLS:
                return answer(*arguments, **keywords)
            given = dict(zip(self._names, arguments, strict=False)) | keywords
            before = {name: copy_of(value) for name, value in given.items()}

            def look() -> None:
                for name, value in given.items():
                    if before[name] is not None and not _equal(value, before[name]):
                        self.touched.setdefault(name, _kind(value))

            value = answer(*arguments, **keywords)
            if isinstance(value, Iterator):  # a generator has not begun yet
                self._open.append(look)
            else:
                look()
            return value

        return call

    def finish(self) -> None:
        """A case has ended: what its generators have done is looked at now."""
        while self._open:
            self._open.pop()()
        self._calls = 0

    def message(self) -> str:
        """A warning for the learner, whose numbers are right; "" if nothing was overwritten."""
        if not self.touched:
            return ""
        name, kind = next(iter(self.touched.items()))
        if kind == "list":
            instead = f"`{name}[::-1]` is a new list; `{name}.reverse()` turns the caller's"
        else:
            instead = (
                f"`{name} = {name} * 2` makes a new {kind}; `{name} *= 2` changes the caller's"
            )
        return (
            f"Take care: your function overwrites its argument `{name}`, so whoever called it goes "
            f"on with changed numbers, also in the cells below. {instead}."
        )


def copy_of(value: object) -> object:
    """A copy to compare with later; None for what is not watched."""
    if isinstance(value, Tensor):
        return None if value.device.type == "meta" else value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, list) and all(isinstance(entry, (int, float)) for entry in value):
        return list(value)
    return None


def _equal(value: object, before: object) -> bool:
    if isinstance(value, Tensor):
        assert isinstance(before, Tensor)
        alike = value.shape == before.shape and value.dtype == before.dtype
        return alike and bool(((value == before) | value.isnan()).all())
    if isinstance(value, np.ndarray):
        assert isinstance(before, np.ndarray)
        return value.dtype == before.dtype and np.array_equal(value, before)
    return value == before


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return "tensor"
    return "array" if isinstance(value, np.ndarray) else "list"
