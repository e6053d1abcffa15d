"""Running a learner's function so that it can do no harm: time, randomness, prints, exceptions."""

import contextlib
import inspect
import io
import linecache
import os
import random
import sys
import sysconfig
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, TracebackType

import numpy as np
import torch

from tutorial_lib.checks.framework.time_limit import call_within

PRINT_LIMIT = 2000
"""Characters kept of what an answer prints."""

TEXT_SECONDS = 2.0
"""How long the text of an exception may take to be made (seconds)."""

# Files below these folders are not the learner's. Cells of a notebook lie in a temporary folder.
_LIBRARIES = tuple(
    os.path.realpath(folder) + os.sep
    for folder in {
        sysconfig.get_path("purelib"),
        sysconfig.get_path("platlib"),
        sysconfig.get_path("stdlib"),
        str(Path(__file__).parents[2]),
    }
)


@dataclass(frozen=True)
class Failure:
    """An exception that an answer raised, kept as text so that no frame stays alive."""

    kind: str
    text: str
    line_number: int | None = None
    line: str = ""


@dataclass(frozen=True)
class Ran:
    """The result of a call: a value or a failure, and what it printed."""

    value: object = None
    failure: Failure | None = None
    error: BaseException | None = None
    printed: str = ""


PLAIN_ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (
        ArithmeticError,
        AttributeError,
        IndexError,
        KeyError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
    )
}
"""Exceptions that another process may name, by name: code here tells them apart."""


class Reported(Exception):  # noqa: N818  (it stands for another exception)
    """An exception of an answer that runs in another process."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text)
        self.failure = failure


def reported(failure: Failure) -> Exception:
    """``failure`` as an exception to raise, of the same kind where that is a plain one."""
    base = PLAIN_ERRORS.get(failure.kind)
    return type("Reported", (Reported, base), {})(failure) if base else Reported(failure)


class Elsewhere(ABC):
    """An answer that runs in another process; the time that it may take is counted there."""

    @abstractmethod
    def __call__(self, *arguments: object, **keywords: object) -> object: ...

    @abstractmethod
    def start(self, seconds: float) -> None:
        """Starts the clock."""

    @abstractmethod
    def use(self, number: int, seed: int) -> object:
        """What the exercise's ``use`` gives there, in the case of this number."""

    @property
    @abstractmethod
    def touched(self) -> dict[str, str]:
        """Arguments that the answer overwrote in the last ``use``, as ``Watch`` names them."""


def run(
    function: Callable[[], object],
    *,
    seconds: float | None,
    own_file: str = "",
    world: Callable[[], AbstractContextManager] | None = None,
) -> Ran:
    """Call ``function()`` and return what it gives or raises; only KeyboardInterrupt escapes.

    Args:
        function: called in this thread, with gradients on and torch's CPU generator seeded.
        seconds: how long it may take; then it is stopped (see ``time_limit``). None: it stops by
            itself.
        own_file: a file that counts as the learner's when the failing line is looked for.
        world: what to set up around the call; None means ``unchanged_world``.
    """
    out = _BoundedText()
    try:
        with (
            (world or unchanged_world)(),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(out),
        ):
            value = function() if seconds is None else call_within(function, seconds)
        return Ran(value=value, printed=out.getvalue())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also SystemExit and TimeUp: no answer may end the notebook
        failure = _describe_failure(error, own_file)
        error.__traceback__ = None
        return Ran(failure=failure, error=error, printed=out.getvalue())


def file_of(answer: object) -> str:
    """The file with the code of an answer, "" if there is none."""
    try:
        code = getattr(inspect.unwrap(answer), "__code__", None)  # type: ignore[arg-type]
    except ValueError:  # an object that seems to wrap itself
        code = None
    return code.co_filename if isinstance(code, CodeType) else ""


@contextlib.contextmanager
def unchanged_world() -> Iterator[None]:
    """Inside: known random states and torch defaults. Afterwards: everything as before."""
    torch_state, cuda_states = torch.get_rng_state(), None
    if torch.cuda.is_initialized():
        cuda_states = torch.cuda.get_rng_state_all()
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    device = torch.get_default_device()
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
        if torch.get_default_device() != device:
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


def _set_default_dtype(dtype: torch.dtype) -> None:
    if torch.get_default_dtype() != dtype:  # setting it takes half a millisecond
        torch.set_default_dtype(dtype)


class _BoundedText(io.StringIO):
    """A text stream that keeps the first ``PRINT_LIMIT`` characters."""

    def write(self, text: str, /) -> int:
        super().write(text[: max(0, PRINT_LIMIT - self.tell())])
        return len(text)


def _describe_failure(error: BaseException, own_file: str) -> Failure:
    if isinstance(error, Reported):
        return error.failure
    number, line = _learners_line(error.__traceback__, own_file)
    try:
        text = str(call_within(lambda: str(error), TEXT_SECONDS))
    except KeyboardInterrupt:
        raise
    except BaseException as broken:  # an exception class whose own __str__ raises, or never ends
        text = f"(its text raised {type(broken).__name__})"
    if isinstance(error, SyntaxError):
        number = error.lineno
    return Failure(type(error).__name__, text, number, line)


def is_learners(file: str, own_file: str) -> bool:
    """Whether code of this file is the learner's: it is the answer's, or of no library."""
    return file == own_file or not os.path.realpath(file).startswith(_LIBRARIES)


def _learners_line(traceback: TracebackType | None, own_file: str) -> tuple[int | None, str]:
    """Number and text of the innermost line of the learner's own code."""
    found: tuple[int | None, str] = None, ""
    while traceback is not None:
        name = traceback.tb_frame.f_code.co_filename
        if is_learners(name, own_file):
            number = traceback.tb_lineno
            found = number, linecache.getline(name, number).strip()
        traceback = traceback.tb_next
    return found
