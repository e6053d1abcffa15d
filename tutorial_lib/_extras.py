"""What is shown beside the work, such as a progress bar: where it fails, the work goes on.

A pipe is closed, a terminal is gone, a disk under the log is full: none of that is a reason to end
a run. What failed is switched off, with one warning.
"""

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

from tqdm import tqdm


class Extra:
    """Something that may fail without harm; the first failure switches it off.

    Args:
        name: what it is, for the warning.

    Attributes:
        works: whether nothing has failed so far.
    """

    def __init__(self, name: str) -> None:
        self.name, self.works = name, True

    def do(self, act: Callable[[], object]) -> None:
        """Calls ``act`` while everything works; a failure is one warning, not an error."""
        if not self.works:
            return
        try:
            act()
        except Exception as error:  # whatever a display may raise: the work does not depend on it
            self.works = False
            warn(f"{self.name} is switched off: {reason(error)}")


class ProgressBar:
    """A bar of ``tqdm`` on stderr that never ends the work it shows; a context manager.

    Args:
        shown: False for a bar that draws nothing.
        options: as ``tqdm`` takes them.
    """

    def __init__(self, *, shown: bool = True, **options: Any) -> None:
        self._bars: list[tqdm] = []
        self._extra = Extra("the progress bar")
        if shown:
            self._extra.do(lambda: self._bars.append(tqdm(**options)))

    def update(self, count: float, words: str = "") -> None:
        """Moves the bar by ``count``; ``words`` stand behind it."""
        for bar in self._bars:
            if words:
                self._extra.do(lambda bar=bar: bar.set_postfix_str(words, refresh=False))
            self._extra.do(lambda bar=bar: bar.update(count))
        if not self._extra.works:
            self._give_up()

    def close(self) -> None:
        """Draws the bar for the last time."""
        for bar in self._bars:
            self._extra.do(bar.close)
        self._give_up()

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _give_up(self) -> None:
        for bar in self._bars:
            bar.disable = True  # or it would draw itself once more when it is collected
        self._bars.clear()


def warn(message: str) -> None:
    """Warns, even where nobody can read it: stderr may be what is broken."""
    with contextlib.suppress(OSError, ValueError):  # of a stream that is full or closed
        warnings.warn(message, stacklevel=3)


def reason(error: BaseException) -> str:
    """Why something failed, in one line."""
    words = getattr(error, "strerror", None) or " ".join(str(error).split())
    return words or type(error).__name__
