"""Signals that ask a run to stop, noted instead of cutting a training step in two."""

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C and a notebook's stop button; ``kill``, job queues, machines that shut down."""


class Interrupted(KeyboardInterrupt):
    """A run that was asked to stop, and is saved; the message says how to resume.

    Attributes:
        signal: the number of the signal that asked.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal = signal_number


class Interrupts:
    """While it is entered, the first SIGINT or SIGTERM only sets ``signal``.

    A second one does what it would have done before (usually end the program at once), unless
    ``patient``. Outside the main thread, where Python allows no handlers, nothing is caught.

    Attributes:
        signal: the number of the signal that arrived; 0 while none has.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.signal = 0
        self._patient = patient
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        self._put_back()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        if not self._patient:
            self._put_back()

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before = {}
