"""Calling a function that may never end, from a notebook's own process, and getting back from it.

The answer of a learner runs in the kernel itself: its arguments and results (networks, generators,
tensors with a graph, classes) cannot be sent to another process, so it has to be stopped in place.
All that Python offers for this is to raise an exception in the middle of it. Four things make
that harder than it sounds, and each has its step here:

1.  *When.* In the main thread of Linux and macOS a timer signal interrupts the call
    (``_call_with_signal``). On Windows, and in other threads, a second thread asks the interpreter
    to raise in this one (``_call_with_thread``).
2.  *The answer may swallow it*: ``while True: try: ... except: pass``. The exception is no
    ``Exception``, so ``except Exception`` lets it pass; for a bare ``except:`` it is raised again
    and again, where it cannot be swallowed as easily (``_raise_at_next_line``).
3.  *The answer may just have ended.* An exception that comes too late would hit our own code. So
    it is raised only while the answer is on the stack (``_frames_inside``).
4.  *Python may be tidying up inside the answer*: ``__del__`` and the callbacks of garbage
    collection run between two of its lines, and what is raised there is lost, but reported. The
    report is left out, and the next attempt stops the answer (``_lost_without_a_report``).
"""

import contextlib
import ctypes
import inspect
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

AGAIN = 0.05
"""Seconds until the next attempt, should the answer swallow this one."""

BURST = 2e-5
"""Seconds, times 1 to 9, between later attempts of a signal; see ``_call_with_signal``."""


BUSY = 4.0
"""How many times as long an answer may take by the clock, if the machine is busy with others."""


LATER = 2.0
"""Seconds after which a second thread stops an answer that has switched off the timer."""


class TimeUp(BaseException):
    """The time is over. Not an ``Exception``, so that ``except Exception`` does not swallow it."""


def call_within(function: Callable[[], object], seconds: float) -> object:
    """``function()``, stopped by a ``TimeUp`` after ``seconds``.

    These are seconds of this thread's work, or ``BUSY`` times as many by the clock: a machine that
    is busy with something else makes no answer wrong. A single call into C code that lasts longer
    ends first: Python cannot interrupt it.
    """
    has_signals = hasattr(signal, "setitimer")
    in_main_thread = threading.current_thread() is threading.main_thread()
    with _lost_without_a_report():
        if has_signals and in_main_thread:
            return _call_with_signal(function, seconds)
        return _call_with_thread(function, seconds)


@contextlib.contextmanager
def _lost_without_a_report() -> Iterator[None]:
    """Inside, a ``TimeUp`` that is raised where Python must ignore it is not reported."""
    report = sys.unraisablehook

    def report_others(lost: "sys.UnraisableHookArgs") -> None:
        if not isinstance(lost.exc_value, TimeUp):
            report(lost)

    sys.unraisablehook = report_others
    try:
        yield
    finally:
        sys.unraisablehook = report


def _call_with_signal(function: Callable[[], object], seconds: float) -> object:
    """``call_within`` by a timer signal, whose handler raises in the middle of the answer.

    The second alarm means that the answer swallowed the first. From then on the next line of the
    answer raises (``_raise_at_next_line``). Python removes a trace function that raises, so an
    answer with handlers around handlers survives this as well, and it has to be armed again before
    the answer is back inside a ``try``. When that is, nobody can tell; hence a burst of alarms at
    changing distances, some of which come at the right moment.
    """

    def guarded() -> object:  # a frame of our own, which tells whether the answer still runs
        return function()

    alarms, time_left = 0, _time_left(seconds)

    def on_alarm(_signal: int, frame: FrameType | None) -> None:
        nonlocal alarms
        inside = _frames_inside(guarded, frame)
        if inside is None:  # the call is over: raising now would hit our own code
            return
        if not alarms and (more := time_left()):
            signal.setitimer(signal.ITIMER_REAL, max(more, AGAIN), AGAIN)
            return
        alarms += 1
        if alarms > 1:
            _raise_at_next_line(inside)
            signal.setitimer(signal.ITIMER_REAL, BURST * (1 + alarms % 9), AGAIN)
        raise TimeUp

    old_trace, started, outer = sys.gettrace(), time.monotonic(), _running.copy()
    old_handler = signal.signal(signal.SIGALRM, on_alarm)
    old_delay, old_interval = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        _running[:] = [(guarded, started + BUSY * seconds + LATER)]
        return guarded()
    finally:
        is_back = False
        while not is_back:
            with contextlib.suppress(TimeUp):  # of the second thread, a little late
                _running[:] = outer
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, old_handler)
                if alarms:
                    sys.settrace(old_trace)
                is_back = True
        if old_delay:  # the caller's own timer goes on from where it would be by now
            left = max(old_delay - (time.monotonic() - started), 0.001)
            signal.setitimer(signal.ITIMER_REAL, left, old_interval)


def _time_left(seconds: float) -> Callable[[], float]:
    """How long the calling thread may still work, from now on; 0 when its time is over."""
    worked, clock, thread = time.thread_time(), time.monotonic(), threading.get_ident()

    def left() -> float:
        if time.monotonic() - clock > BUSY * seconds or threading.get_ident() != thread:
            return 0.0
        return max(seconds - (time.thread_time() - worked), 0.0)

    return left


def _raise_at_next_line(frames: list[FrameType]) -> None:
    """Make the next line that one of ``frames`` reaches raise ``TimeUp``.

    A bare ``except:`` in a loop swallows an exception raised inside its ``try``. The line reached
    next is then the ``except:`` itself, and what is raised there leaves the loop.
    """

    def tracer(_frame: FrameType, event: str, _arg: object):
        if event == "line":
            raise TimeUp
        return tracer

    for frame in frames:
        frame.f_trace = tracer
    sys.settrace(lambda frame, event, arg: None)  # without it, no frame is traced


_running: list[tuple[Callable, float]] = []
"""What ``_call_with_signal`` runs now, and when (by the clock) a second thread is to stop it."""


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Inside, answers are stopped that have switched off the timer, or its signal."""
    thread = threading.get_ident()

    def wait() -> float:
        is_late = _running and time.monotonic() >= _running[0][1]
        return AGAIN if is_late else 0.5

    def answer() -> Callable | None:
        return _running[0][0] if _running and time.monotonic() >= _running[0][1] else None

    with _second_thread(thread, wait, answer):
        yield


@contextlib.contextmanager
def _second_thread(
    thread: int, wait: Callable[[], float], answer: Callable[[], Callable | None]
) -> Iterator[None]:
    """Inside, a second thread has the interpreter raise ``TimeUp`` in this one.

    It does so whenever ``wait()`` seconds are over and ``answer()`` is on the stack. Such an
    exception is delivered a little later, between two of this thread's instructions. Under the
    lock it is asked for only while the answer runs. If one may still be on its way at the end, one
    more is asked for, which takes its place, and waited for. (To take it back by asking for none
    leaves a mark in Python 3.11, with which a program under a profiler never ends.)
    """
    lock, ended = threading.Lock(), threading.Lock()
    is_over = was_asked = False
    ended.acquire()

    def watch() -> None:
        nonlocal was_asked
        while not ended.acquire(timeout=wait()):
            with lock:
                function = None if is_over else answer()
                frame = sys._current_frames().get(thread)
                if function is not None and _frames_inside(function, frame) is not None:
                    was_asked = True
                    _raise_in(thread, TimeUp)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        while not is_over:
            with contextlib.suppress(TimeUp), lock:
                is_over = True
                if was_asked:
                    _raise_in(thread, TimeUp)
                    while True:
                        pass
        ended.release()
        watcher.join()


def _call_with_thread(function: Callable[[], object], seconds: float) -> object:
    """``call_within`` by a second thread."""

    def guarded() -> object:  # a frame of our own, which tells whether the answer still runs
        return function()

    end = time.monotonic() + seconds

    def wait() -> float:
        return max(end - time.monotonic(), AGAIN)

    def answer() -> Callable | None:
        return guarded if time.monotonic() >= end else None

    with _second_thread(threading.get_ident(), wait, answer):
        return guarded()


def _raise_in(thread: int, kind: type[BaseException]) -> None:
    """Have ``kind`` raised in ``thread``, in place of what is still on its way there."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(kind))


def _frames_inside(function: Callable, frame: FrameType | None) -> list[FrameType] | None:
    """The frames that ``function`` called, innermost first; None when it does not run."""
    # A wrapper (the shape checker of our tests is one) shares its code with all that it wraps.
    code, frames = inspect.unwrap(function).__code__, []
    while frame is not None:
        if frame.f_code is code:
            return frames
        frames.append(frame)
        frame = frame.f_back
    return None
