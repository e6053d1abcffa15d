"""Animations for the lessons: a walk, picture after picture, as one small GIF.

A GIF packs noise badly and has no half transparent pixels. So an animation has few colors, and a
pixel keeps its color until it is clearly wrong. The last picture, which stays, is exact but for
the number of its colors.
"""

import bisect
import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._validate import InvalidTypeError, InvalidValueError
from tutorial_lib.plots import figures
from tutorial_lib.plots.animated import Animation

MOST_SECONDS = 5.0
"""Longest that an animation moves: what moves longer must offer a way to stop it (WCAG 2.2.2)."""
MOST_BYTES = 400_000
"""Largest file of an animation: a notebook holds it as text, a third longer."""
_REST = 0.2  # the share of its time for which the last picture stays before the first comes again
_NOTHING = 255  # of the palette: a pixel that is transparent, or stays as it was
# From fine to coarse: how many colors each picture has, and by how many steps from one color to the
# next a pixel may be off before it changes; 0.5 is rounding.
_QUALITIES = (
    (128, 0.5),
    (64, 0.5),
    (32, 0.5),
    (16, 0.5),
    (16, 1.0),
    (16, 1.5),
    (12, 1.5),
    (8, 1.5),
)


def animation(
    frames: Sequence[Tensor] | Sequence[Figure] | Sequence[Image.Image],
    columns: int | None = None,
    *,
    seconds: float = 2.5,
    times: int = 2,
) -> Animation:
    """Pictures one after the other; the last one stays.

    Args:
        frames: at least two of one kind and one size: images (N, C, H, W) in [-1, 1], which are
            drawn as a grid, values outside clamped; or figures; or pictures of Pillow.
        columns: images in a row of the grid; by default the number that makes it square.
        seconds: from the first picture to the first again.
        times: how often the animation runs.

    Raises:
        TypeError, ValueError: fewer than two frames, or of different kinds or sizes; images that
            ``image_grid`` refuses; more than 5 seconds in all, since what moves longer must offer
            a way to stop it; frames that even in few colors and pixels make too large a file.
    """
    seconds = _validate.number("seconds", seconds, low=0.1, high=MOST_SECONDS)
    times = _validate.whole_number("times", times, at_least=1)
    if times * seconds > MOST_SECONDS:
        limit = f"at most {MOST_SECONDS:g} seconds, since what moves longer must be easy to stop"
        raise InvalidValueError(f"times must give {limit}; got {times} times {seconds:g} seconds")
    pictures, scales, shown = _pictures(frames, columns)
    height, width = (round(side * shown) for side in pictures.shape[1:3])
    for scale in scales:
        files: list[bytes] = []

        def fits(quality: int, scale: int = scale, files: list[bytes] = files) -> bool:
            files.append(_gif(pictures, scale, seconds, times, *_QUALITIES[quality]))
            return len(files[-1]) <= MOST_BYTES

        if fits(-1):
            bisect.bisect_left(range(len(_QUALITIES) - 1), True, key=fits)
            return Animation(
                max((f for f in files if len(f) <= MOST_BYTES), key=len), width, height
            )
    raise InvalidValueError(
        f"frames must make a file of at most {MOST_BYTES:,} bytes; {len(pictures)} pictures of "
        f"{width} x {height} make a larger one even in few colors: give fewer or smaller ones"
    )


def _pictures(
    frames: Sequence[Tensor] | Sequence[Figure] | Sequence[Image.Image], columns: int | None
) -> tuple[np.ndarray, list[int], float]:
    """The frames as pixels (F, H, W, 4); by how much the file may enlarge them, the best first; and
    how many pixels of the screen one of them is wide."""
    drawn: list[np.ndarray] = []
    scales, shown = [1], 1.0
    kinds: set[type] = set()
    for frame in frames:
        kinds |= {kind for kind in (Tensor, Figure, Image.Image) if isinstance(frame, kind)}
        if isinstance(frame, Tensor):
            rows = figures.in_rows(frame, columns)
            drawn.append(figures.sheet_of(rows)[0])
            shown = figures.largest_scale(drawn[0].shape[1], rows[0].shape[2])
            shown = max(math.floor(shown), 1)
            scales = list(range(shown, 0, -1))
        elif isinstance(frame, Figure):
            drawn.append(np.asarray(figures.painted(frame)))
            shown = 1 / figures.SHARPNESS
        elif isinstance(frame, Image.Image):
            drawn.append(np.asarray(frame.convert("RGBA")))
            shown = min(figures.WIDTH / frame.width, 1)
        else:
            one = "a tensor, a figure or a picture of Pillow"
            raise InvalidTypeError(f"each of frames must be {one}, got {_validate.describe(frame)}")
    sizes = sorted({f"{one.shape[1]} x {one.shape[0]}" for one in drawn})
    if len(drawn) < 2 or len(kinds) > 1 or len(sizes) > 1:
        got = f"{len(drawn)} of {len(kinds)} kinds, in pixels {', '.join(sizes) or 'none'}"
        raise InvalidValueError(f"frames must be at least 2 of one kind and one size; got {got}")
    return np.stack(drawn), scales, shown


def _gif(
    pictures: np.ndarray, scale: int, seconds: float, times: int, count: int, slack: float
) -> bytes:
    """The file, in ``count`` colors, with pixels that change once they are ``slack`` steps off."""
    indices, palette, clears = _few_colors(pictures, count, slack)
    frames = []
    for index in indices:
        index = index.repeat(scale, 0).repeat(scale, 1)
        frames.append(Image.frombytes("P", index.shape[::-1], index.tobytes()))
        frames[-1].putpalette(palette.tobytes())
    pause = seconds * (1 - _REST) / (len(frames) - 1)
    each = [max(round(100 * pause), 2) * 10] * (len(frames) - 1)  # browsers take 20 ms at least
    rest = round(1000 * seconds * _REST)
    again = {"loop": times - 1} if times > 1 else {}
    file = io.BytesIO()
    frames[0].save(
        file,
        "gif",
        save_all=True,
        append_images=frames[1:],
        duration=[*each, rest],
        disposal=2 if clears else 1,
        transparency=_NOTHING,
        optimize=False,
        **again,
    )
    return file.getvalue()


def _few_colors(
    pictures: np.ndarray, count: int, slack: float
) -> tuple[list[np.ndarray], np.ndarray, bool]:
    """The pictures (F, H, W, 4) in few colors.

    Returns:
        For each picture the places of its pixels in the palette; the palette (256, 3); and whether
        a picture must be cleared before the next comes, since that has less of it.
    """
    drawn, colors = pictures[..., 3] >= 128, pictures[..., :3]
    clears = bool((drawn != drawn[0]).any())
    gray = bool((colors == colors[..., :1]).all())
    coarse = _palette(colors[drawn], count, gray)
    fine = np.concatenate([coarse, _palette(colors[-1][drawn[-1]], 64, gray)])
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(fine)] = fine
    step = 255 / (count - 1) if gray else 4 * _mean_error(coarse, colors[drawn])
    shown, indices = np.full(drawn.shape[1:], _NOTHING), []
    for i, (frame, there) in enumerate(zip(colors, drawn, strict=True)):
        last = i == len(colors) - 1
        wanted = np.where(there, _nearest(fine if last else coarse, frame, gray), _NOTHING)
        if not clears:
            off, off_then = (np.abs(palette[p].astype(int) - frame).max(2) for p in (shown, wanted))
            wrong = (off > (0 if last else slack * step)) & (off > off_then)
            wanted = np.where((shown == _NOTHING) | wrong, wanted, _NOTHING)
            shown = np.where(wanted == _NOTHING, shown, wanted)
        indices.append(wanted.astype(np.uint8))
    return indices, palette, clears


def _palette(colors: np.ndarray, count: int, gray: bool) -> np.ndarray:
    """``count`` colors, or a few less, for pixels of ``colors`` (N, 3)."""
    if gray:
        return np.linspace(0, 255, count).round().astype(np.uint8)[:, None].repeat(3, axis=1)
    some = colors[:: len(colors) // 250_000 + 1]
    found = Image.fromarray(some[None]).quantize(count).getpalette() or []
    return np.array(found, np.uint8).reshape(-1, 3)[:count]


def _nearest(palette: np.ndarray, colors: np.ndarray, gray: bool) -> np.ndarray:
    """The place in ``palette`` of the color nearest to each of ``colors`` (..., 3)."""
    if gray:
        known, key = np.arange(256)[:, None].repeat(3, axis=1), colors[..., 0]
    else:  # in cubes of 8 x 8 x 8 colors
        cube = np.arange(32**3)
        known = np.stack([cube >> 10, cube >> 5 & 31, cube & 31], axis=1) * 8 + 4
        high = colors.astype(int) >> 3
        key = high[..., 0] << 10 | high[..., 1] << 5 | high[..., 2]
    points, centers = known.astype(np.float32), palette.astype(np.float32)
    return ((centers**2).sum(1) - 2 * points @ centers.T).argmin(1)[key]


def _mean_error(palette: np.ndarray, colors: np.ndarray) -> float:
    some = colors[:: len(colors) // 250_000 + 1]
    return float(np.abs(palette[_nearest(palette, some, False)].astype(int) - some).max(1).mean())
