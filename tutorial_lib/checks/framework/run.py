"""Running somebody's function without letting it hurt: time, randomness, prints, exceptions."""

import contextlib
import ctypes
import inspect
import io
import linecache
import os
import random
import signal
import sys
import sysconfig
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType

import numpy as np
import torch

PRINT_LIMIT = 2000
"""Characters kept of what an answer prints."""

AGAIN = 0.05
"""Seconds between two attempts to stop an answer that swallowed the first one."""

BURST = 2e-5
"""Seconds, times 1 to 9, until the third and later attempts: they have to hit nested handlers."""

_LIBRARIES = tuple(
    os.path.realpath(folder) + os.sep
    for folder in {
        sysconfig.get_path("purelib"),
        sysconfig.get_path("platlib"),
        sysconfig.get_path("stdlib"),
        str(Path(__file__).parents[2]),
    }
)


class TimeUp(BaseException):
    """The time is over. No ``Exception``, so that ``except Exception`` does not swallow it."""


@dataclass(frozen=True)
class Failure:
    """An exception that came out of an answer, kept as text so that no frame stays alive."""

    kind: str
    text: str
    line_number: int | None = None
    line: str = ""


@dataclass(frozen=True)
class Ran:
    """What a call gave: a value or a failure, and what it printed."""

    value: object = None
    failure: Failure | None = None
    error: BaseException | None = None
    printed: str = ""


def run(function: Callable[[], object], *, seconds: float, own_file: str = "") -> Ran:
    """What ``function()`` gives. Only KeyboardInterrupt escapes; the world is left as it was.

    Args:
        function: called in this thread, with gradients on and torch's CPU generator seeded.
        seconds: afterwards a ``TimeUp`` is raised inside the call. A single call into C code that
            lasts longer ends first: Python cannot interrupt it.
        own_file: a file that counts as the learner's when the failing line is looked for.
    """
    out = _BoundedText()
    try:
        with unchanged_world(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            value = call_within(function, seconds)
        return Ran(value=value, printed=out.getvalue())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit and TimeUp too: an answer must not end the notebook
        failure = _describe_failure(error, own_file)
        error.__traceback__ = None
        return Ran(failure=failure, error=error, printed=out.getvalue())


@contextlib.contextmanager
def unchanged_world() -> Iterator[None]:
    """Inside: known random states and torch defaults. Afterwards: everything as it was before."""
    torch_state, cuda_states = torch.get_rng_state(), None
    if torch.cuda.is_initialized():
        cuda_states = torch.cuda.get_rng_state_all()
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    grad, dtype, device = torch.is_grad_enabled(), torch.get_default_dtype(), _default_device()
    numpy_errors, recursion, folder = np.geterr(), sys.getrecursionlimit(), os.getcwd()
    try:
        torch.set_grad_enabled(True)
        _set_default_dtype(torch.float32)
        if device.type != "cpu":
            torch.set_default_device(None)
        torch.default_generator.manual_seed(0)  # torch.manual_seed would reach for the GPUs too
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_grad_enabled(grad)
        _set_default_dtype(dtype)
        if _default_device() != device:
            torch.set_default_device(device)
        torch.set_rng_state(torch_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)
        np.seterr(**numpy_errors)
        sys.setrecursionlimit(recursion)
        if os.getcwd() != folder:
            os.chdir(folder)


def call_within(function: Callable[[], object], seconds: float) -> object:
    """``function()``, stopped by a ``TimeUp`` after ``seconds``.

    In the main thread of Linux and macOS a timer signal does it; elsewhere (Windows, or another
    thread) a second thread asks the interpreter to raise in this one.
    """
    has_signals = hasattr(signal, "setitimer")
    if has_signals and threading.current_thread() is threading.main_thread():
        return _call_with_signal(function, seconds)
    return _call_with_thread(function, seconds)


def _call_with_signal(function: Callable[[], object], seconds: float) -> object:
    def guarded() -> object:
        return function()

    alarms = 0

    def on_alarm(_signal: int, frame: FrameType | None) -> None:
        nonlocal alarms
        inside = _frames_inside(guarded, frame)
        if inside is None:  # the call is over: raising now would hit our own code
            return
        alarms += 1
        if alarms > 1:  # the first one was swallowed
            _raise_at_next_line(inside)
            signal.setitimer(signal.ITIMER_REAL, BURST * (1 + alarms % 9), AGAIN)
        raise TimeUp

    old_trace, started = sys.gettrace(), time.monotonic()
    old_handler = signal.signal(signal.SIGALRM, on_alarm)
    old_delay, old_interval = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        return guarded()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old_handler)
        if alarms:
            sys.settrace(old_trace)
        if old_delay:  # somebody else's timer runs on from where it would be now
            left = max(old_delay - (time.monotonic() - started), 0.001)
            signal.setitimer(signal.ITIMER_REAL, left, old_interval)


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
    sys.settrace(lambda frame, event, arg: None)


def _call_with_thread(function: Callable[[], object], seconds: float) -> object:
    def guarded() -> object:
        return function()

    thread, over, lock = threading.get_ident(), threading.Event(), threading.Lock()

    def watch() -> None:
        wait = seconds
        while not over.wait(wait):
            with lock:
                frame = sys._current_frames().get(thread)
                if not over.is_set() and _frames_inside(guarded, frame) is not None:
                    _raise_in(thread, TimeUp)
            wait = AGAIN

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        return guarded()
    finally:
        while not over.is_set():
            with contextlib.suppress(TimeUp), lock:  # one may still be on its way: begin again
                _raise_in(thread, None)
                over.set()
        watcher.join()


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Have ``kind`` raised in ``thread``; None takes back what is still on its way."""
    what = ctypes.py_object(kind) if kind else ctypes.py_object()
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), what)


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


def _set_default_dtype(dtype: torch.dtype) -> None:
    if torch.get_default_dtype() != dtype:  # setting it takes half a millisecond
        torch.set_default_dtype(dtype)


def _default_device() -> torch.device:
    return torch.get_default_device()


class _BoundedText(io.StringIO):
    """A text stream that forgets what comes after ``PRINT_LIMIT`` characters."""

    def write(self, text: str, /) -> int:
        super().write(text[: max(0, PRINT_LIMIT - self.tell())])
        return len(text)


def _describe_failure(error: BaseException, own_file: str) -> Failure:
    number, line = _learners_line(error.__traceback__, own_file)
    try:
        text = str(error)
    except Exception as broken:  # an exception class whose own __str__ raises
        text = f"(its text raised {type(broken).__name__})"
    if isinstance(error, SyntaxError):
        number = error.lineno
    return Failure(type(error).__name__, text, number, line)


def _learners_line(traceback: TracebackType | None, own_file: str) -> tuple[int | None, str]:
    """Number and text of the innermost line of the learner's own code."""
    found: tuple[int | None, str] = None, ""
    while traceback is not None:
        name = traceback.tb_frame.f_code.co_filename
        if name == own_file or not os.path.realpath(name).startswith(_LIBRARIES):
            number = traceback.tb_lineno
            found = number, linecache.getline(name, number).strip()
        traceback = traceback.tb_next
    return found
