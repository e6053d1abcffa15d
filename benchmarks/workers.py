"""Contenders that take turns, in processes of their own: what one sets reaches no other."""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any


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
        scratch: the folder for its temporary files, and for what it prints.

    Raises:
        RuntimeError: the process has ended; the error quotes the end of what it printed.
    """

    def __init__(self, name: str, script: str, words: Sequence[str], scratch: Path) -> None:
        self.name, self._errors = name, scratch / f"{name}.txt"
        with open(self._errors, "w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                [sys.executable, script, *words],
                env={**os.environ, "TMPDIR": str(scratch)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
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


def by_turns(
    script: str, names: Sequence[str], count: int, rounds: int
) -> Iterator[dict[str, list[float]]]:
    """After each round, the seconds that each contender took to work ``count`` times, all rounds'.

    A contender is ``script`` called as this process was, with ``--worker NAME``. Before the rounds
    each works once, to warm up.
    """
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        workers = []
        for name in names:
            words = [*sys.argv[1:], "--worker", name]
            workers.append(worker := Worker(name, script, words, Path(scratch)))
            stack.callback(worker.end)
            worker.run(count)
        for _ in range(rounds):
            for worker in workers:
                seconds[worker.name].append(worker.run(count))
            yield seconds


def compared(
    seconds: dict[str, list[float]], names: Sequence[str], images: int
) -> list[dict[str, Any]]:
    """A row for each of ``names``, the last of which is ours: the medians of the rounds so far.

    Args:
        seconds: of each round, from ``by_turns``.
        images: of a round.
    """
    rows = []
    for name in names:
        pairs = zip(seconds[name], seconds[names[-1]], strict=True)
        rows.append(
            {
                "contender": name,
                "images/s": images / statistics.median(seconds[name]),
                "ours is faster by": statistics.median(them / us for them, us in pairs),
            }
        )
    return rows
