"""Every explorer, as one cell of a notebook shows it: the tests and the benchmark go over these.

`DRAGGED` names the slider that each is dragged by. `ALONE` holds those that also become a page of
their own.
"""

SETUP = """\
import torch
from tutorial_lib import datasets, explorers, schedules
glyphs = datasets.load("glyphs", size=28)
linear, cosine = schedules.linear_schedule(), schedules.cosine_schedule()
"""

CASES = {
    "schedule": 'explorers.ScheduleExplorer(glyphs.images[3], {"mine": cosine}, t=250)',
    "forward": """\
both = {"linear": linear, "cosine": cosine}
explorers.ForwardExplorer(glyphs.images[:12], both)""",
}
"""A cell's text; its last line is the explorer. It runs after `SETUP`."""

DRAGGED = {
    "schedule": "timestep t",
    "forward": "timestep t",
}

ALONE = ("schedule", "forward")


def make(name: str):
    """The explorer of a case, here and now, without a notebook."""
    scope: dict = {}
    *lines, last = CASES[name].splitlines()
    exec("\n".join([SETUP, *lines, f"explorer = {last}"]), scope)
    return scope["explorer"]
