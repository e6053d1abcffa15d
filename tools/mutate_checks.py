"""Tests the checks: every answer that differs from the right one in one place must be rejected.

    python tools/mutate_checks.py                      # all lessons, some minutes
    python tools/mutate_checks.py lesson05             # a lesson
    python tools/mutate_checks.py lesson05.lr_at       # an exercise
    python tools/mutate_checks.py lesson05 --show generic   # what they are told, mutant by mutant

The model answer of each exercise is changed in one place (``mutants.py``), and the exercise's own
check judges the result, in a process that may hang or die. The table says what became of them:

- named: rejected, and a known mistake recognized;
- located: rejected by a message that says where it is: an exception with its line, a shape, a type,
  a property, a pattern of the numbers, a message of the exercise's own;
- generic: rejected with "k of n numbers differ" or "are NaN", and no more;
- allowed: accepted, since all that was changed is float64 to float32, which every exercise allows;
- survivors: accepted. Either the check has a hole, or the mutant is as right as the answer.

A survivor that is right is explained in ``tests/checks/equal_mutants/lessonNN.toml``:

    [[equal]]
    exercise = "lesson05.lr_at"
    reason = "warmup is at least 0, so that only 0 is left."
    mutants = [
      '''
    -     grown = min(1, fraction / warmup) if warmup > 0 else 1
    +     grown = min(1, fraction / warmup) if warmup != 0 else 1
    ''',
    ]

The script prints unexplained survivors in this form. It exits with 1 if there are any, or if an
explanation is stale: its mutant is rejected now, or is no mutant any more.

The results of the exercises that ran replace theirs in ``benchmarks/results/mutants.json``. After a
change of an exercise run this script for it; ``tests/checks/test_mutants.py`` notices otherwise.
Works where processes can fork (Linux, macOS).
"""

import argparse
import ast
import contextlib
import dataclasses
import hashlib
import importlib
import inspect
import json
import linecache
import os
import select
import signal
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools")]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402
from mutants import Meddler, Mutant, mutants_of  # noqa: E402

from tutorial_lib.checks import all_exercises  # noqa: E402
from tutorial_lib.checks.framework import Exercise, Result, source_of  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "mutants.json"
EXPLAINED = ROOT / "tests" / "checks" / "equal_mutants"
COLUMNS = ("mutants", "named", "located", "generic", "allowed", "survivors")
PATIENCE = 60.0
"""How long a mutant may take longer than all cases of its exercise may (seconds)."""
BATCH = 100
"""Mutants of one process. After them the right answer must still pass there."""


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant.

    Attributes:
        outcome: "named", "located", "generic", "allowed", "survivors", "idle" (no mutant: a
            helper that it calls has nothing to do), "timeout" or "died".
        told: the name of the known mistake, or the message.
    """

    mutant: Mutant
    outcome: str
    told: str = ""


def exercises(wanted: Sequence[str] = ()) -> list[Exercise]:
    """The exercises of these ids, lessons or numbers of lessons; all without any.

    Raises:
        ValueError: something is wanted that is neither.
    """
    every = [task for task in all_exercises() if isinstance(task, Exercise)]
    if not wanted:
        return every
    for word in wanted:
        if not any(_is_meant(exercise, word) for exercise in every):
            raise ValueError(f"LESSON: no exercise is called {word!r}")
    return [e for e in every if any(_is_meant(e, word) for word in wanted)]


def _is_meant(exercise: Exercise, word: str) -> bool:
    lesson = exercise.id.split(".")[0]
    return word in (exercise.id, lesson, lesson.removeprefix("lesson"))


def made(exercise: Exercise, source: str, meddler: Meddler) -> Callable:
    """The function or class that ``source`` defines, with the names that the model answer knows."""
    namespace = dict(vars(sys.modules[exercise.model_answer.__module__])) | meddler.names()
    file = f"<mutant of {exercise.id}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    exec(compile(source, file, "exec"), namespace)
    return namespace[ast.parse(source).body[-1].name]  # type: ignore[attr-defined]


def judged(exercise: Exercise, mutant: Mutant) -> Verdict:
    """What the check says about a mutant, in this process."""
    meddler = Meddler()
    result: Result = exercise.judge(made(exercise, mutant.source, meddler))
    calls_helper = any(f"{name}(" in mutant.diff for name in meddler.names())
    if calls_helper and meddler.idle and result.passed:
        return Verdict(mutant, "idle")
    if result.passed:
        is_allowed = calls_helper and meddler.only_rounded
        return Verdict(mutant, "allowed" if is_allowed else "survivors")
    if result.mistake is not None:
        return Verdict(mutant, "named", result.mistake)
    return Verdict(mutant, "located" if result.is_located else "generic", result.message)


def verdicts(exercise: Exercise) -> list[Verdict]:
    """What becomes of all mutants of an exercise, each judged in another process."""
    source = source_of(exercise.model_answer)
    todo, done = list(mutants_of(source)), []
    while todo:
        batch, clean = _forked(exercise, todo[:BATCH])
        if not clean and len(batch) > 1:  # one of them has spoiled the process for the others
            batch = [_forked(exercise, [verdict.mutant])[0][0] for verdict in batch]
        done += batch
        todo = todo[len(batch) :]
    if not any(v.outcome != "idle" for v in done if v.mutant.kind in ("detached", "number")):
        # Nothing that is returned carries a gradient, so none is missing.
        lost = [v for v in done if v.mutant.kind == "no_grad" and v.outcome == "survivors"]
        done = [dataclasses.replace(v, outcome="idle") if v in lost else v for v in done]
    return done


def _forked(exercise: Exercise, mutants: list[Mutant]) -> tuple[list[Verdict], bool]:
    """The verdicts on the mutants, or on the first of them, up to one that hangs or kills.

    The second value says whether the process was still able to judge afterwards.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with contextlib.suppress(BaseException), os.fdopen(writing, "w") as stream:
            for mutant in mutants:
                verdict = judged(exercise, mutant)
                stream.write(json.dumps([verdict.outcome, verdict.told]) + "\n")
                stream.flush()
            stream.write(json.dumps(exercise.judge(exercise.model_answer).passed) + "\n")
            stream.flush()
        os._exit(0)
    os.close(writing)
    limit = exercise.seconds + PATIENCE
    found: list[Verdict] = []
    try:
        for line in _lines(reading, limit):
            if line is None:
                return [*found, Verdict(mutants[len(found)], "timeout")], True
            if len(found) == len(mutants):
                return found, json.loads(line)
            outcome, told = json.loads(line)
            found.append(Verdict(mutants[len(found)], outcome, told))
        if len(found) == len(mutants):
            return found, False
        return [*found, Verdict(mutants[len(found)], "died")], True
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _lines(stream: int, limit: float) -> Iterator[str | None]:
    """The lines that come; None, and no more, where one takes longer than ``limit``."""
    text = b""
    while True:
        ready, _, _ = select.select([stream], [], [], limit)
        if not ready:
            yield None
            return
        more = os.read(stream, 65536)
        if not more:
            return
        text += more
        *whole, text = text.split(b"\n")
        yield from (line.decode() for line in whole)


# What the results were measured on


def digest(exercise: Exercise) -> str:
    """A digest of what decides: the mutants, and the check's own code without its prose."""
    parts = [mutant.source for mutant in mutants_of(source_of(exercise.model_answer))]
    module = sys.modules[f"tutorial_lib.checks.{exercise.id.split('.')[0]}"]
    parts += _definitions(module, exercise.id.split(".")[1])
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _definitions(module: ModuleType, name: str) -> list[str]:
    """What ``name`` is in a module, and all that this needs there and in other checks' modules."""
    seen: dict[tuple[str, str], str] = {}
    todo = [(module.__name__, name)]
    while todo:
        place = todo.pop()
        if place in seen:
            continue
        nodes, imported = _module_level(place[0])
        if place[1] in imported:
            todo.append(imported[place[1]])
            continue
        found = nodes.get(place[1], [])
        seen[place] = "".join(_without_prose(node) for node in found)
        names = {n.id for node in found for n in ast.walk(node) if isinstance(n, ast.Name)}
        names |= {n.value.id + "." + n.attr for node in found for n in _attributes(node)}
        for needed in sorted(names):
            alias, _, attribute = needed.partition(".")
            if attribute and alias in imported:
                todo.append((".".join(imported[alias]), attribute))
            elif needed in nodes or needed in imported:
                todo.append((place[0], needed))
    return [seen[place] for place in sorted(seen)]


def _attributes(node: ast.AST) -> Iterator[Any]:
    for n in ast.walk(node):
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name):
            yield n


_MODULES: dict[str, tuple[dict[str, list[ast.AST]], dict[str, tuple[str, str]]]] = {}


def _module_level(name: str) -> tuple[dict[str, list[ast.AST]], dict[str, tuple[str, str]]]:
    """The definitions of a module by name, and what it imports from other checks."""
    if name in _MODULES:
        return _MODULES[name]
    try:
        tree = ast.parse(inspect.getsource(importlib.import_module(name)))
    except ImportError:  # an attribute of something that is not a module
        tree = ast.Module([], [])
    nodes: dict[str, list[ast.AST]] = {}
    imported: dict[str, tuple[str, str]] = {}
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            nodes.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.ImportFrom) and _is_of_checks(node.module or ""):
            for alias in node.names:
                imported[alias.asname or alias.name] = (str(node.module), alias.name)
        else:
            for part in ast.walk(node):
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                    nodes.setdefault(part.id, []).append(node)
    _MODULES[name] = nodes, imported
    return _MODULES[name]


def _is_of_checks(module: str) -> bool:
    here = "tutorial_lib.checks"
    return module.startswith(here) and not module.startswith(f"{here}.framework")


def _without_prose(node: ast.AST) -> str:
    """The code of a node. Messages do not decide, so texts of several words are left out."""
    text = ast.dump(node)
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and " " in part.value:
            text = text.replace(repr(part.value), "''")
    return text


# Explanations


def explanations(lesson: str = "") -> dict[tuple[str, str], str]:
    """The reasons why mutants are as right as the answer, by exercise and diff."""
    found = {}
    for path in sorted(EXPLAINED.glob(f"{lesson or 'lesson*'}.toml")):
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["equal"]:
            for diff in entry["mutants"]:
                found[entry["exercise"], diff.strip("\n")] = entry["reason"].strip()
    return found


def as_toml(exercise: str, diffs: Sequence[str]) -> str:
    """Mutants to be explained."""
    quoted = "".join(f"  '''\n{diff}\n''',\n" for diff in diffs)
    return f'[[equal]]\nexercise = "{exercise}"\nreason = ""\nmutants = [\n{quoted}]\n'


# The table


def summary(found: list[Verdict]) -> dict[str, Any]:
    """The numbers of an exercise for the table and the file."""
    counts = Counter(verdict.outcome for verdict in found if verdict.outcome != "idle")
    row = {"mutants": counts.total(), **{name: counts[name] for name in COLUMNS[1:]}}
    stopped = {name: counts[name] for name in ("timeout", "died") if counts[name]}
    survivors = [verdict.mutant.diff for verdict in found if verdict.outcome == "survivors"]
    return {**row, **stopped, "accepted": survivors}


def problems(results: dict[str, dict], reasons: dict[tuple[str, str], str]) -> list[str]:
    """Survivors without a reason, as TOML, and reasons without a survivor."""
    found = []
    for name, row in results.items():
        bare = [diff for diff in row["accepted"] if not reasons.get((name, diff))]
        if bare:
            found.append(as_toml(name, bare))
    for (name, diff), reason in reasons.items():
        if name in results and diff not in results[name]["accepted"]:
            found.append(f"No survivor of {name} any more ({reason}):\n{diff}\n")
    return found


def written(results: dict[str, dict]) -> None:
    """Puts results into the file, in the order of the lessons."""
    old = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    merged = old | results
    ids = [exercise.id for exercise in exercises()]
    kept = {name: merged[name] for name in ids if name in merged}
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def main(words: Sequence[str] | None = None) -> int:
    """Runs the mutants; 1 if a survivor is unexplained or an explanation stale."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("lesson", nargs="*", help="lesson05, 05 or lesson05.lr_at; all if left out")
    outcomes = ("named", "located", "generic", "allowed", "survivors", "timeout", "died")
    parser.add_argument(
        "--show", choices=outcomes, action="append", default=[], help="print these mutants"
    )
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    try:
        chosen = exercises(arguments.lesson)
    except ValueError as error:
        parser.error(str(error))
    print(f"| {'exercise':27} | {' | '.join(COLUMNS)} |\n|{'---|' * (1 + len(COLUMNS))}")
    results, totals, start = {}, Counter(), time.monotonic()
    for exercise in chosen:
        found = verdicts(exercise)
        row = {"digest": digest(exercise), **summary(found)}
        results[exercise.id] = row
        numbers = {name: row[name] for name in COLUMNS}
        totals.update(numbers)
        print(_line(exercise.id, numbers), flush=True)
        for verdict in found:
            if verdict.outcome in arguments.show:
                print(f"{verdict.outcome}, {verdict.mutant.kind}: {verdict.told}")
                print(verdict.mutant.diff + "\n")
    print(_line("all", totals))
    print(f"{time.monotonic() - start:.0f} s", file=sys.stderr)
    written(results)
    wrong = problems(results, explanations())
    if wrong:
        print("\nNot explained, or explained without need:\n")
        print("\n".join(wrong))
    return 1 if wrong else 0


def _line(name: str, numbers: dict[str, int]) -> str:
    cells = [f"{numbers[c]:{len(c)}}" for c in COLUMNS]
    return f"| {name:27} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
