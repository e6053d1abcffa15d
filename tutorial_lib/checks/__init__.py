"""The checks of the course's exercises: ``from tutorial_lib.checks import lesson02``."""

import importlib

from tutorial_lib.checks.framework import Result, Task
from tutorial_lib.course import LESSONS

__all__ = ["Result", "Task", "all_exercises"]


def all_exercises() -> list[Task]:
    """Every exercise and question of every lesson, in the order of the lessons."""
    lessons = [importlib.import_module(f"{__name__}.{lesson.checks}") for lesson in LESSONS]
    return [task for lesson in lessons for task in vars(lesson).values() if isinstance(task, Task)]
