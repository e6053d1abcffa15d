"""Mutants of model answers: how they are made and judged; the committed results."""

import ast
import json
import os
import signal

import mutate_checks
import pytest
import torch
from mutants import Meddler, Mutant, mutants_of, normal_form

from tutorial_lib.checks.framework import Exercise, Mistake, source_of

pytestmark = pytest.mark.plain_errors
LESSONS = sorted({exercise.id.split(".")[0] for exercise in mutate_checks.exercises()})


def changed(source: str) -> dict[str, str]:
    """The mutants of a function of one line: the changed line, and the kind."""
    source = f"def f(x, y):\n    {source}"
    return {m.source.splitlines()[-1].strip(): m.kind for m in mutants_of(source)}


@pytest.mark.parametrize(
    ("line", "mutant"),
    [
        ("return x + 1", "return x + 2"),
        ("return x + 1", "return x + 0"),
        ("return x + 1", "return x + -1"),
        ("return x + 1", "return x - 1"),
        ("return x + 1", "return y + 1"),
        ("return x + 1", "return x"),
        ("return x / y", "return x // y"),
        ("return x / y", "return y / x"),
        ("return x / y", "return x / at_least(y, 0.01)"),
        ("return x / y", "return x / plus(y, 0.0001)"),
        ("return x * (1 - y)", "return x * 1 - y"),
        ("return x < y", "return x <= y"),
        ("return x == y", "return x != y"),
        ("return not x", "return x"),
        ("return -x", "return x"),
        ("return min(x, y)", "return max(x, y)"),
        ("return min(x, y)", "return x"),
        ("return x.clamp(max=y)", "return x"),
        ("return x.sqrt()", "return x"),
        ("return x.sqrt()", "return x.square()"),
        ("return x.sum(dim=1)", "return x.sum(dim=0)"),
        ("return x.sum(dim=1)", "return x.sum()"),
        ("return x.sum(1, keepdim=True)", "return x.sum(1, keepdim=False)"),
        ("return x[:, None]", "return x"),
        ("return x[:, None]", "return x[:,]"),
        ("return x[1:]", "return x[:]"),
        ("return x[:y]", "return x[:y - 1]"),
        ("return x[y]", "return x[y - 1]"),
        ("return range(1, x + 1)", "return range(1, x)"),
        ("return torch.arange(x)", "return torch.arange(x + 1)"),
        ("return torch.randn(x, generator=y)", "return torch.rand(x, generator=y)"),
        ("return torch.cat([x, y])", "return torch.cat([y, x])"),
        ("return x, y", "return (y, x)"),
        ("return x.alpha_bar[y]", "return x.alpha[y]"),
        ("return x.double()", "return x"),
        ("return x", "return truncated(x)"),
        ("return x", "return within(x, -1.0, 1.0)"),
        ("return x", "return -x"),
        ("return x if y > 0 else 1", "return x"),
        ("return [a for a in x if a]", "return [a for a in x]"),
        ("return lambda t: t + y", "return lambda t: y + y"),
        ("x.mul_(y)", "x = x.mul(y)"),
        ("x.copy_(y)", "x = y"),
        ("x += y", "x = x + y"),
    ],
)
def test_a_slip_is_among_the_mutants(line: str, mutant: str):
    assert mutant in changed(line), "\n".join(changed(line))


def test_statements_are_dropped_moved_and_unwrapped():
    with_, loop = "    with torch.no_grad():", ["        for a in x:", "            y.add_(a)"]
    source = "\n".join(["def f(x, y):", with_, *loop, "        x.step()", "    return y"])
    found = {m.source for m in mutants_of(source)}
    for body in (
        ["    for a in x:", "        y.add_(a)", "    x.step()", "    return y"],
        [with_, "        x.step()", "    return y"],
        [with_, *loop, "    return y"],
        [with_, *loop, "            break", "        x.step()", "    return y"],
    ):
        assert "\n".join(["def f(x, y):", *body]) in found


def test_a_return_slips_into_the_loop():
    source = "def f(x, y):\n    for a in x:\n        y = y + a\n    return y\n"
    slipped = "def f(x, y):\n    for a in x:\n        y = y + a\n        return y"
    assert slipped in {m.source for m in mutants_of(source)}


@pytest.mark.parametrize("exercise", mutate_checks.exercises(), ids=lambda e: e.id)
def test_mutants_of_the_course(exercise: Exercise):
    source = source_of(exercise.model_answer)
    found = mutants_of(source)
    assert len(found) >= 15
    assert len({m.source for m in found}) == len({m.diff for m in found}) == len(found)
    assert normal_form(source) not in {m.source for m in found}
    for mutant in found:
        tree = ast.parse(mutant.source)
        assert ast.unparse(tree) == mutant.source
        assert tree.body[-1].name == ast.parse(source).body[-1].name  # type: ignore[attr-defined]


def test_the_same_source_gives_the_same_mutants():
    for exercise in mutate_checks.exercises(["lesson04"]):
        source = source_of(exercise.model_answer)
        assert mutants_of.__wrapped__(source) == mutants_of(source)


def test_helpers_note_whether_they_had_anything_to_do():
    def after(name: str, *arguments: object) -> tuple[object, bool, bool]:
        meddler = Meddler()
        value = meddler.names()[name](*arguments)
        return value, meddler.idle, meddler.only_rounded

    whole, real = torch.tensor([0, 3]), torch.tensor([-2.0, 0.5], dtype=torch.float64)
    assert after("at_least", 3, 5.0) == (3, True, True)
    assert after("at_least", 3.0, 5.0) == (5.0, False, False)
    assert after("at_most", whole, 0.5)[1]
    assert after("at_most", real, 0.1)[0].tolist() == [-2.0, 0.1]  # type: ignore[attr-defined]
    assert after("within", real.abs() / 4, -1.0, 1.0)[1], "a share has nothing to be clamped"
    assert not after("within", real, -1.0, 1.0)[1]
    assert after("truncated", 2.7) == (2, False, False)
    assert after("truncated", whole)[1]
    assert after("float32", real)[1:] == (False, True)
    assert after("float32", whole)[1:] == (False, False)
    assert after("int32", whole)[0].dtype == torch.int32  # type: ignore[attr-defined]
    assert after("detached", real)[1]
    assert not after("detached", real.clone().requires_grad_())[1]
    assert after("squeezed", real)[1]
    assert after("plus", 1.0, 0.5) == (1.5, False, False)


def _twice(x):
    return 2 * x


def _doubled(**changes) -> Exercise:
    fields = {
        "hints": ("Double.",),
        "model_answer": _twice,
        "cases": lambda generator: [(torch.rand(3, generator=generator) + 0.5,)],
        "mistakes": (Mistake("three times", lambda x: 3 * x, "That is three times."),),
        "seconds": 60.0,
    }
    return Exercise("lesson99.doubled", "Doubled", **fields | changes)


def outcomes(exercise: Exercise) -> dict[str, str]:
    """The changed line of each mutant, and what became of it."""
    found = mutate_checks.verdicts(exercise)
    return {v.mutant.source.splitlines()[-1].strip(): v.outcome for v in found}


def test_mutants_are_rejected_by_name_by_place_or_survive():
    found = outcomes(_doubled())
    assert found["return 3 * x"] == "named"
    assert found["return 1 * x"] == "located"  # everywhere times 0.5
    assert found["return 2"] == "located"  # its shape
    assert found["return at_most(2 * x, 0.99)"] == "located"  # all the same
    assert found["return 2 / x"] == "generic"
    assert found["return at_least(2 * x, 0.01)"] == "survivors", "no case has small numbers"
    assert found["return detached(2 * x)"] == "idle"


def test_a_hole_in_a_check_is_found():
    holed = _doubled(atol=9.0)
    assert outcomes(_doubled())["return x"] != "survivors"
    assert outcomes(holed)["return x"] == "survivors"
    row = mutate_checks.summary(mutate_checks.verdicts(holed))
    assert row["survivors"] == len(row["accepted"])
    assert row["mutants"] == sum(row[name] for name in mutate_checks.COLUMNS[1:])


def test_a_mutant_that_kills_or_hangs_stops_nobody_else(monkeypatch: pytest.MonkeyPatch):
    def judged(exercise: Exercise, mutant: Mutant) -> mutate_checks.Verdict:
        if mutant.source == "dies":
            os._exit(3)
        while mutant.source == "hangs":
            signal.pause()
        return mutate_checks.Verdict(mutant, "named")

    def forked(exercise: Exercise, mutants: list[Mutant]):
        hangs = mutants[0].source == "hangs"  # is given a tenth of a second, the others minutes
        monkeypatch.setattr(mutate_checks, "PATIENCE", 0.1 - exercise.seconds if hangs else 120.0)
        return patiently(exercise, mutants)

    patiently = mutate_checks._forked
    monkeypatch.setattr(mutate_checks, "judged", judged)
    monkeypatch.setattr(mutate_checks, "_forked", forked)
    monkeypatch.setattr(
        mutate_checks, "mutants_of", lambda _: [Mutant("", s, s) for s in ("hangs", "dies", "fine")]
    )
    assert list(outcomes(_doubled()).values()) == ["timeout", "died", "named"]


# What is committed


@pytest.fixture(scope="module")
def results() -> dict[str, dict]:
    return json.loads(mutate_checks.RESULTS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("lesson", LESSONS)
def test_the_results_are_of_these_exercises(lesson: str, results: dict[str, dict]):
    """After a change of an exercise: ``python tools/mutate_checks.py`` with its name."""
    now = {e.id: mutate_checks.digest(e) for e in mutate_checks.exercises([lesson])}
    measured = {
        name: row["digest"] for name, row in results.items() if name.startswith(f"{lesson}.")
    }
    assert measured == now


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_survivor_is_explained(lesson: str, results: dict[str, dict]):
    """Each accepted mutant is as right as the answer, and ``equal_mutants`` says why."""
    of_lesson = {name: row for name, row in results.items() if name.split(".")[0] == lesson}
    reasons = mutate_checks.explanations(lesson)
    assert {name for name, _ in reasons} <= set(of_lesson)
    wrong = mutate_checks.problems(of_lesson, reasons)
    assert not wrong, "\n".join(wrong)
