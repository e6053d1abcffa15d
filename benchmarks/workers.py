"""Contenders that take turns, each in a process of its own, so that none affects another."""

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
    """Runs a contender's process: reads counts, answers each with the seconds its work took.

    Args:
        ready: sets the contender up; returns a function that does its work ``count`` times and
            returns the seconds taken.
    """
    answers, sys.stdout = sys.stdout, sys.stderr  # other libraries print
    run = ready()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(run(int(line)), file=answers, flush=True)


class Worker:
    """A contender in another process, set up and waiting.

    Args:
        name: of the contender.
        script: the benchmark, which must call ``serve`` when started with ``words``.
        words: the arguments of the process.
        scratch: the folder for its temporary files and its output.

    Raises:
        RuntimeError: the process has ended; the message quotes the end of its output.
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
        """Makes it work ``count`` times; returns the seconds taken."""
        assert self._process.stdin is not None  # asked for above
        print(count, file=self._process.stdin, flush=True)
        return float(self._answer())

    def end(self) -> None:
        """Ends the process and waits for it."""
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
    """Yields after each round the seconds of all rounds so far, by contender.

    In a round each contender works ``count`` times. A contender is ``script`` started as this
    process was, with ``--worker NAME`` added. Each works once before the rounds, to warm up.
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
    """The medians of the rounds so far, a row for each of ``names``, of which the last is ours.

    Args:
        seconds: of each round, from ``by_turns``.
        names: the contenders.
        images: how many images a round has.
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
