"""Every exercise of every lesson, tested with its own mistakes and right answers."""

import ast
import dataclasses
import inspect
import math
import random
import statistics
import sys

import numpy as np
import pytest
import torch

from tutorial_lib.checks import all_exercises
from tutorial_lib.checks.framework import Choice, Exercise, Task

pytestmark = pytest.mark.plain_errors  # learners meet the library's own messages
TASKS = all_exercises()
EXERCISES = [task for task in TASKS if isinstance(task, Exercise)]
by_id = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
exercise_by_id = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda task: task.id)
MISTAKES = [(task, mistake) for task in TASKS for mistake in task.wrong_answers()]
RIGHT = [(task, name, answer) for task in TASKS for name, answer in task.right_answers().items()]


@by_id
def test_the_stub_is_not_attempted(task: Task):
    assert task.check(...).outcome == "not attempted"
    assert task.check(None).outcome == "not attempted"


@exercise_by_id
def test_a_stub_function_is_not_attempted(exercise: Exercise):
    def only_dots(*args): ...

    def todo(*args):
        """What to do."""
        answer = ...  # your code
        return answer

    assert exercise.check(only_dots).outcome == "not attempted"
    assert exercise.check(todo).outcome == "not attempted"


@pytest.mark.parametrize(
    ("task", "mistake"), MISTAKES, ids=[f"{task.id}: {m.name}" for task, m in MISTAKES]
)
def test_a_mistake_is_named(task: Task, mistake):
    result = task.check(mistake.answer)
    assert result.outcome == "failed", str(result)
    assert (result.mistake, result.message) == (mistake.name, mistake.message), str(result)


@pytest.mark.parametrize(
    ("task", "name", "answer"), RIGHT, ids=[f"{task.id}: {name}" for task, name, _ in RIGHT]
)
def test_a_right_answer_passes_and_leaves_random_states_alone(task: Task, name: str, answer):
    before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    result = task.check(answer)
    assert result.outcome == "passed", str(result)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), str(np.random.get_state())) == before[1:]  # noqa: NPY002


@pytest.mark.long("lesson 3's loss is drawn some thousand times")
@exercise_by_id
def test_answers_are_judged_alike_on_other_cases(exercise: Exercise):
    """A grading draws cases of its own: nothing may hang on the numbers of one seed."""
    other = dataclasses.replace(exercise, seed=987_654_321)
    for name, answer in other.right_answers().items():
        result = other.check(answer)
        assert result.passed, f"{name}: {result}"
    for mistake in other.mistakes[::2]:
        assert other.check(mistake.answer).mistake == mistake.name


@exercise_by_id
def test_the_shown_solution_passes(exercise: Exercise):
    source = exercise.solution().source
    module = dict(vars(sys.modules[exercise.model_answer.__module__]))
    exec(compile(source, exercise.id, "exec"), module)
    defined = ast.parse(source).body[-1]
    assert isinstance(defined, ast.FunctionDef | ast.ClassDef)
    assert exercise.check(module[defined.name]).outcome == "passed"
    names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    private = sorted(name for name in names if name.startswith("_"))
    assert not private, f"a learner cannot see {private}"
    arguments = [node for node in ast.walk(defined) if isinstance(node, ast.arg)]
    typed = [argument.arg for argument in arguments if argument.annotation is not None]
    assert not typed, f"{typed} have types that a learner's notebook has not imported"


@by_id
def test_messages_are_short_and_unique(task: Task):
    messages = [mistake.message for mistake in task.wrong_answers()]
    assert len(set(messages)) == len(messages)
    for text in [*messages, *task.hints]:
        assert 0 < len(text) <= 300, f"{len(text)} characters: {text}"
    names = [mistake.name for mistake in task.wrong_answers()]
    assert len(set(names)) == len(names)


@by_id
def test_the_card_is_filled_in(task: Task):
    lesson, name = task.id.split(".")
    assert getattr(sys.modules[f"tutorial_lib.checks.{lesson}"], name) is task
    assert task.title
    assert task.hints
    assert task.difficulty in (1, 2, 3)
    assert 1 <= task.minutes <= 40
    assert str(task.solution())
    assert task.hint(1).text == task.hints[0]
    with pytest.raises(ValueError, match="n must be in"):
        task.hint(len(task.hints) + 1)


@exercise_by_id
def test_an_exercise_has_enough_answers_to_test_it(exercise: Exercise):
    assert len(exercise.alternatives) >= 2
    assert len(exercise.mistakes) >= 2
    case = next(iter(exercise.cases(torch.Generator().manual_seed(0))))
    inspect.signature(exercise.model_answer).bind(*case)


@exercise_by_id
def test_garbage_is_rejected(exercise: Exercise):
    def raises(*args):
        raise KeyError("what?")

    for garbage in (
        raises,
        lambda *args: 0.123,
        lambda *args: torch.full((2, 2), math.nan),
        lambda *args: args[0],
        lambda *args: "text",
        lambda *args: print("a body, and no return"),
        lambda: torch.zeros(2),
        object(),
        7,
        np.zeros(3),
    ):
        result = exercise.check(garbage)
        assert result.outcome == "failed", f"{garbage} gave {result}"
        assert 0 < len(result.message) <= 300


def _distorted(value: object, change) -> object:
    """``value`` with its fractions changed."""
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return change(value)
    if type(value) is tuple:
        return tuple(_distorted(part, change) for part in value)
    if type(value) is list:
        return [_distorted(part, change) for part in value]
    return float(change(torch.tensor(value))) if isinstance(value, float) else value


@exercise_by_id
def test_wrong_numbers_of_any_kind_get_a_verdict(exercise: Exercise):
    """Some cases may come out right, others wrong, and others refused by the exercise itself."""
    result = exercise.check(
        lambda *case: _distorted(exercise.model_answer(*case), lambda x: x.clamp(-1, 1))
    )
    assert "cannot be looked at" not in result.message
    assert "could not be judged" not in result.message


def test_at_least_four_mistakes_per_exercise_on_average():
    assert statistics.mean(len(exercise.mistakes) for exercise in EXERCISES) >= 4


def test_ids_are_unique_and_found_in_order():
    ids = [task.id for task in TASKS]
    assert len(set(ids)) == len(ids)
    assert [i.split(".")[0] for i in ids] == sorted(i.split(".")[0] for i in ids)


def test_every_choice_explains_all_its_options():
    choices = [task for task in TASKS if isinstance(task, Choice)]
    for choice in choices:
        assert choice.right in choice.options
        assert len(choice.options) >= 3
        assert list(choice.options) == list("abcdefgh")[: len(choice.options)]
