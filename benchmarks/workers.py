"""Contenders in processes of their own: what one of them sets for its process reaches no other."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path


def serve(ready: Callable[[], Callable[[int], float]]) -> None:
    """What a contender's process does: reads counts, answers with the seconds that each took.

    Args:
        ready: sets the contender up and returns what does its work so many times.
    """
    answers, sys.stdout = sys.stdout, sys.stderr  # the peers print
    run = ready()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(run(int(line)), file=answers, flush=True)


class Worker:
    """A contender in another process, set up and waiting.

    Args:
        name: of the contender.
        script: the benchmark, which is to ``serve`` where it is called with ``words``.
        words: the arguments that the process is started with.
        errors: file for what it prints.

    Raises:
        RuntimeError: the process has ended; the error quotes the end of ``errors``.
    """

    def __init__(self, name: str, script: str, words: Sequence[str], errors: Path) -> None:
        self.name, self._errors = name, errors
        with open(errors, "w", encoding="utf-8") as file:
            self._process = subprocess.Popen(
                [sys.executable, script, *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )
        self._answer()

    def run(self, count: int) -> float:
        """Has it work ``count`` times; the seconds that it took."""
        assert self._process.stdin is not None  # asked for above
        print(count, file=self._process.stdin, flush=True)
        return float(self._answer())

    def end(self) -> None:
        """Lets the process end, and waits for that."""
        self._process.communicate()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.end()
            text = self._errors.read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"{self.name} ended: {text[-3000:]}")
        return line
