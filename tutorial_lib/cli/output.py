"""What a command prints, where printing may fail: the work is done, and its exit code stands."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any


class _Careful:
    """A stream that goes silent when it cannot be written, and spells out foreign letters.

    Attributes:
        error: why it went silent; None while it works.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.error: OSError | ValueError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(lambda: self._write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def _try(self, act: Callable[[], object]) -> None:
        if self.error is None:
            try:
                act()
            except (OSError, ValueError) as error:  # ValueError: the stream was closed
                self.error = error


@contextlib.contextmanager
def careful_output() -> Iterator[None]:
    """Inside, prints never fail. At the end one warning says why something could not be printed.

    A reader that has seen enough, as in ``... --help | head -1``, needs no warning.
    """
    if sys.stdout is None:  # closed; print does nothing
        yield
        return
    careful = _Careful(sys.stdout)
    with contextlib.redirect_stdout(careful):  # type: ignore[type-var]
        try:
            yield
        finally:
            careful.flush()
    if careful.error is not None and not isinstance(careful.error, BrokenPipeError):
        reason = getattr(careful.error, "strerror", None) or careful.error
        say(f"warning: not all could be printed to the standard output: {reason}")


def say(words: str) -> None:
    """Prints a line on stderr, where that can be written."""
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError, ValueError):
        print(words, file=sys.stderr, flush=True)


def drop_what_cannot_be_printed() -> None:
    """Before the program ends: whatever a broken stream still holds must not change its exit code.

    Python writes its streams a last time when it ends, and a failure there is exit code 120.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
