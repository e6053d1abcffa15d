"""Signals that ask a run to stop, noted instead of cutting a training step in two."""

import signal
import threading
from types import FrameType
from typing import Any

ASKED = ("SIGINT", "SIGTERM", "SIGQUIT")
"""Ctrl-C and a notebook's stop button; ``kill``, job queues, machines that shut down; Ctrl-\\."""

ANNOUNCED = ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
"""A terminal or connection that is gone; what job queues send before they end a job, also again
and again. A program that ignores one of them (``nohup``), or uses it otherwise, goes on to."""


class Interrupted(KeyboardInterrupt):
    """A run that was asked to stop, and is saved; the message says how to resume.

    Attributes:
        signal: the number of the signal that asked.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal = signal_number


class Interrupts:
    """While it is entered, the first signal that asks to stop only sets ``signal``.

    The same signal again does what it would have done before (usually end the program at once) if
    somebody asked with it, unless ``patient``; if it only announces the end, it changes nothing.
    Outside the main thread, where Python allows no handlers, nothing is caught.

    Attributes:
        signal: the number of the first signal that arrived; 0 while none has.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.signal = 0
        self._patient = patient
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for number in _numbers(ASKED):
                self._before[number] = signal.signal(number, self._note)
            for number in _numbers(ANNOUNCED):
                if signal.getsignal(number) == signal.SIG_DFL:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number in list(self._before):
            self._put_back(number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or number
        if not self._patient and number in _numbers(ASKED):
            self._put_back(number)

    def _put_back(self, number: int) -> None:
        handler = self._before.pop(number, None)
        signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _numbers(names: tuple[str, ...]) -> list[signal.Signals]:
    """The signals of these names that this system has."""
    return [getattr(signal, name) for name in names if hasattr(signal, name)]
