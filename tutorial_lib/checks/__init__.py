"""The checks of the course's exercises: ``from tutorial_lib.checks import lesson02``."""

import importlib
import pkgutil
import re

from tutorial_lib.checks.framework import Result, Task

__all__ = ["Result", "Task", "all_exercises"]


def all_exercises() -> list[Task]:
    """Every exercise and question of every lesson, in the order of the lessons."""
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if _is_lesson(m.name))
    lessons = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return [task for lesson in lessons for task in vars(lesson).values() if isinstance(task, Task)]


def _is_lesson(name: str) -> bool:
    return re.fullmatch(r"lesson\d\d", name) is not None
