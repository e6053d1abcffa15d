"""The first exercise: from pixel bytes to the numbers that the course works with."""

import numpy as np
import torch
from torch import Tensor

from tutorial_lib.checks.framework import Exercise, Mistake, Wrong, tidy


def _to_range(pixels):
    return pixels.float() / 127.5 - 1


_ATOL = 1e-3  # half precision is good enough


def _pictures(generator: torch.Generator):
    for shape in ((2,), (5, 2), (1, 1, 2, 2), (2, 3, 8, 8), (3, 1, 4, 5), (2, 1, 3, 2, 2)):
        pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        pixels.view(-1)[:2] = torch.tensor([0, 255], dtype=torch.uint8)  # both ends
        yield (pixels,)
    yield (torch.randint(40, 200, (1, 1, 3, 3), generator=generator, dtype=torch.uint8),)


def _pixel_by_pixel(answer, pixels: Tensor) -> object:
    """What the answer gives; if the pixels are wrong, the message says which one becomes what."""
    asked = pixels.double()  # the answer may overwrite its argument
    given = tidy(answer(pixels))
    if not isinstance(given, Tensor) or given.shape != asked.shape:
        return given
    if not given.is_floating_point() or not given.isfinite().all():
        return given
    wrong = ((given.double() - (asked / 127.5 - 1)).abs() > _ATOL).nonzero()
    if not len(wrong):
        return given
    found = {int(asked[tuple(at)]): float(given[tuple(at)]) for at in wrong}
    shown = sorted(found)[:: max(len(found) // 2, 1)][:3]
    parts = [f"{byte} becomes {found[byte]:.5g} (not {byte / 127.5 - 1:.5g})" for byte in shown]
    right = "" if len(wrong) == asked.numel() else " Other pixels are right."
    raise Wrong("values", f"In yours, pixel {', '.join(parts)}.{right}")


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
    use=_pixel_by_pixel,
    reference=_to_range,
    cases=_pictures,
    atol=_ATOL,
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
            "not moved",
            lambda pixels: pixels.float() / 127.5,
            "Your pixels lie in 0..2: the width is right. Move them, so that black becomes -1.",
        ),
        Mistake(
            "divided by 127",
            lambda pixels: pixels.float() / 127 - 1,
            "White (255) becomes 1.008 and not 1: half of 255 is 127.5.",
        ),
        Mistake(
            "only doubled",
            lambda pixels: 2 * pixels.float() - 1,
            "You double the pixels and subtract 1, which is right for numbers from 0 to 1. Divide "
            "by 255 first.",
        ),
        Mistake(
            "moved, not scaled",
            lambda pixels: pixels.float() - 127.5,
            "Middle gray is 0, as it should be. Now the scale: your pixels still span 255.",
        ),
        Mistake(
            "no bytes below zero",
            lambda pixels: (pixels - 128) / 128,
            "`pixels - 128` is still uint8, and a byte below 0 wraps around to 255. Begin with "
            "`pixels.float()`.",
        ),
        Mistake(
            "no bytes below zero, 127",
            lambda pixels: (pixels - 127) / 127.5,
            "`pixels - 127` is still uint8: bytes cannot be negative, so dark pixels wrap around. "
            "Begin with `pixels.float()`.",
        ),
        Mistake(
            "centered at 127",
            lambda pixels: (pixels.float() - 127) / 128,
            "Black becomes -0.992: the middle of 0..255 is 127.5, and half its width is 127.5 too.",
        ),
        Mistake(
            "black or white",
            lambda pixels: (pixels.float() / 255).round() * 2 - 1,
            "All your pixels are -1 or 1: keep the fractions.",
        ),
        Mistake(
            "whole division by 255",
            lambda pixels: pixels // 255 * 2.0 - 1,
            "`//` drops the fraction: every pixel below 255 becomes 0 before it is moved. Use `/`.",
        ),
        Mistake(
            "standardized",
            lambda pixels: (pixels.float() - pixels.float().mean()) / pixels.float().std(),
            "You subtract each picture's mean and divide by its spread. Here the rule is the same "
            "for all pictures: 0 is always -1 and 255 always 1.",
        ),
        Mistake(
            "in place on bytes",
            lambda pixels: (pixels / 127.5 - 1).to(torch.uint8),
            "You turn the result back into bytes, which have no fractions and no negative numbers. "
            "Return floating-point numbers.",
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
        lambda pixels: 2 * (pixels / 255) - 1,  # `/` makes floating-point numbers of bytes
        lambda pixels: pixels.half() / 127.5 - 1,
        lambda pixels: np.interp(pixels.numpy(), [0, 255], [-1, 1]),
    ),
    passed="This is the range in which every image of the course lives.",
)
