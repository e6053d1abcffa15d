"""The first exercise: from pixel bytes to the numbers that the course works with."""

import numpy as np
import torch
from torch import Tensor

from tutorial_lib.checks.framework import Exercise, Mistake


def _to_range(pixels):
    return pixels.float() / 127.5 - 1


def _pictures(generator: torch.Generator):
    for shape in ((1, 1, 2, 2), (2, 3, 8, 8), (3, 1, 4, 5)):
        pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        pixels.view(-1)[:2] = torch.tensor([0, 255], dtype=torch.uint8)  # both ends
        yield (pixels,)
    yield (torch.randint(40, 200, (1, 1, 3, 3), generator=generator, dtype=torch.uint8),)


def _one_by_one(pixels: Tensor) -> Tensor:
    values = [2 * int(p) / 255 - 1 for p in pixels.flatten()]
    return torch.tensor(values).reshape(pixels.shape)


def _in_place(pixels: Tensor) -> Tensor:
    values = pixels.to(torch.float32)
    values /= 255
    values -= 0.5
    values *= 2
    return values


to_range = Exercise(
    "lesson00.to_range",
    "Pixels from -1 to 1",
    difficulty=1,
    minutes=3,
    hints=(
        "Two things happen to each pixel: it is scaled, then moved. Bytes cannot be negative, so "
        "turn them into floating-point numbers first.",
        "The range 0..255 is 255 wide, the range -1..1 is 2 wide: scale by 2/255, then move.",
        "`pixels.float()` times 2/255, minus 1.",
    ),
    model_answer=_to_range,
    cases=_pictures,
    atol=1e-3,  # half precision is good enough
    mistakes=(
        Mistake(
            "range 0 to 1",
            lambda pixels: pixels.float() / 255,
            "Your pixels lie in 0..1. The course wants -1..1, with middle gray at 0: the noise "
            "that comes later is centered at 0 too.",
        ),
        Mistake(
            "center not moved far enough",
            lambda pixels: pixels.float() / 255 - 0.5,
            "Your pixels lie in -0.5..0.5: centered, and half as wide as asked.",
        ),
        Mistake(
            "range -1 to 0",
            lambda pixels: pixels.float() / 255 - 1,
            "Your pixels lie in -1..0: the scale is half of what is needed.",
        ),
        Mistake(
            "divided by 128",
            lambda pixels: pixels.float() / 128 - 1,
            "White (255) becomes 0.992 and not 1: the largest byte is 255, half of it 127.5.",
        ),
        Mistake(
            "turned around",
            lambda pixels: 1 - pixels.float() / 127.5,
            "Black and white have changed places: 0 should become -1 and 255 should become 1.",
        ),
        Mistake(
            "bytes only",
            lambda pixels: pixels * 2 // 255 - 1,
            "You calculate with bytes, which wrap around at 256 and have no fractions: begin with "
            "`pixels.float()`.",
        ),
        Mistake(
            "wraps around",
            lambda pixels: 2 * pixels / 255 - 1,
            "Twice a byte wraps around at 256: `2 * pixels` is still uint8. Begin with "
            "`pixels.float()`.",
        ),
        Mistake(
            "whole numbers only",
            lambda pixels: pixels // 127.5 - 1,
            "`//` rounds down to whole numbers, so all gray becomes -1 or 0. Divide with `/`.",
        ),
        Mistake(
            "stretched",
            lambda pixels: (pixels - pixels.min()).float() / (pixels.max() - pixels.min()) * 2 - 1,
            "You stretch every picture from its own darkest to its own lightest pixel. Here 0 is "
            "always -1 and 255 always 1, whatever occurs.",
        ),
        Mistake(
            "not scaled",
            lambda pixels: pixels.float(),
            "These are floating-point numbers, and still 0..255: scale and move them.",
        ),
        Mistake(
            "moved before scaling",
            lambda pixels: (pixels.float() - 1) / 127.5,
            "You subtract 1 before scaling, when it is worth only 1/127.5. Scale first, then move.",
        ),
    ),
    alternatives=(
        _one_by_one,
        _in_place,
        lambda pixels: (pixels.double() - 127.5) / 127.5,
        lambda pixels: np.interp(pixels.numpy(), [0, 255], [-1, 1]),
    ),
    passed="This is the range in which every image of the course lives.",
)
