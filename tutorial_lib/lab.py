"""What the first cell of a lesson does: ``device = start(3)``; and ``seeded(0)``."""

import torch

import tutorial_lib
from tutorial_lib import _validate
from tutorial_lib.course import LESSONS
from tutorial_lib.hardware import describe_device, pick_device


def start(number: int | str, device: torch.device | str | None = None) -> torch.device:
    """Prints which lesson this is, with which versions and on which device; returns the device.

    Nothing else in the process changes.

    Args:
        number: the lesson's number: 3, or "5b".
        device: what to compute on: a name such as "cpu", or a device of torch's. By default a GPU
            if there is one, else the CPU.

    Raises:
        ValueError: a lesson that does not exist, a device that this machine does not have.
    """
    lessons = {lesson.number: lesson for lesson in LESSONS}
    known = {int(name): name for name in lessons if name.isdecimal()}
    name = known.get(number, number) if type(number) is int else number
    lesson = lessons[_validate.one_of("number", name, lessons)]
    if not isinstance(device, torch.device):
        device = pick_device("auto" if device is None else device)
    print(f"Lesson {lesson.number} · {lesson.title}")
    versions = f"tutorial_lib {tutorial_lib.__version__} | torch {torch.__version__}"
    print(f"{versions} | {describe_device(device)}")
    return device


def seeded(seed: int) -> torch.Generator:
    """A source of random numbers, on the CPU, that starts the same way every time.

    Raises:
        TypeError, ValueError: ``seed`` is not an int from 0 to 2^63 - 1.
    """
    return torch.Generator().manual_seed(_validate.seed("seed", seed))
