"""Digits drawn from fonts, whose outlines are stored as distance fields.

A signed distance field holds for each point how deep inside the glyph it is. To rotate, scale or
thicken a glyph is then to look the field up at other points and to add a number, and the
anti-aliased edge comes for free: it is where the distance, in pixels of the picture, goes from -1/2
to 1/2.
"""

import importlib.util
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from tutorial_lib._validate import MissingFileError

# Upright, bold, slanted; with and without serifs; all ship with matplotlib. Left out: DejaVu Sans
# Mono (its zero has a dot) and cmmi10 (old-style digits of different heights).
FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    *("cmr10", "cmb10", "cmss10", "cmti10", "cmtt10"),
)
_CANVAS = 96  # side of a distance field
_BOX = 72  # the longer side of a glyph on it
_REACH = 15  # distances are exact up to here and cut off beyond


def draw(
    font: Tensor,
    digit: Tensor,
    size: int,
    *,
    scale: Tensor,
    turn: Tensor,
    slant: Tensor,
    shift: Tensor,
    stroke: Tensor,
) -> Tensor:
    """Pictures of digits, white (1) on black (0).

    Args:
        font, digit: (N,) int64, indices into ``FONTS`` and 0..9.
        size: side of the pictures in pixels.
        scale: (N,), the longer side of the digit as a share of ``size``.
        turn: (N,), radians, clockwise.
        slant: (N,), how far the top leans to the right, as a share of the height.
        shift: (N, 2), right and down, as a share of ``size``.
        stroke: (N,), how far the outline moves outwards, as a share of ``size``.

    Returns:
        (N, 1, size, size) float32.
    """
    fields = distance_fields()[font, digit][:, None]  # (N, 1, canvas, canvas)
    zoom = _BOX / _CANVAS / scale  # half a picture in units of half a canvas
    cos, sin, zero = turn.cos(), turn.sin(), torch.zeros_like(turn)
    # From a point of the picture back to the glyph: shift, turn and lean it the other way.
    back = torch.stack([cos, sin, zero, -sin, cos, zero], 1).view(-1, 2, 3)
    back[:, 0] += slant[:, None] * back[:, 1]
    back[:, :, 2] = -(back[:, :, :2] @ (2 * shift[:, :, None]))[:, :, 0]
    grid = F.affine_grid(
        (back * zoom[:, None, None]).float(), [len(font), 1, size, size], align_corners=False
    )
    depth = F.grid_sample(fields, grid, padding_mode="border", align_corners=False)
    pixel = zoom * _CANVAS / size  # a pixel of the picture, measured on the canvas
    depth = depth / pixel.float()[:, None, None, None]
    return (depth + 0.5 + size * stroke.float()[:, None, None, None]).clamp(0, 1)


@lru_cache(maxsize=1)
def distance_fields() -> Tensor:
    """How deep inside each glyph each point is, (fonts, 10, canvas, canvas), in canvas pixels.

    The gray level of a pixel that the outline crosses gives its depth, 1/2 being on the outline;
    distances inwards and outwards are measured from there. (Distances to a black-and-white mask
    would show the mask's stairs.)
    """
    folder = font_folder()
    glyphs = [glyph(folder / f"{name}.ttf", str(digit)) for name in FONTS for digit in range(10)]
    ink = torch.stack(glyphs)
    far = torch.tensor(float(_REACH))
    outside = _spread(torch.where(ink > 0, (0.5 - ink).clamp(min=0), far))
    inside = _spread(torch.where(ink < 1, (ink - 0.5).clamp(min=0), far))
    return (inside - outside).view(len(FONTS), 10, _CANVAS, _CANVAS)


def font_folder() -> Path:
    """Where matplotlib keeps its fonts, found without importing it, which is slow.

    Raises:
        FileNotFoundError: matplotlib or its fonts are not installed.
    """
    found = importlib.util.find_spec("matplotlib")
    for place in (found.submodule_search_locations or []) if found else []:
        folder = Path(place) / "mpl-data" / "fonts" / "ttf"
        if folder.is_dir():
            return folder
    raise MissingFileError("glyphs are drawn with matplotlib's fonts, which are not installed")


def glyph(path: Path, digit: str) -> Tensor:
    """The glyph in gray, 0..1, (canvas, canvas), centered, its longer side ``_BOX``."""
    font = ImageFont.truetype(path, 4 * _BOX)
    left, top, right, bottom = (round(edge) for edge in font.getbbox(digit))
    glyph = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(glyph).text((-left, -top), digit, font=font, fill=255)
    glyph = glyph.crop(glyph.getbbox())
    ratio = _BOX / max(glyph.size)
    glyph = glyph.resize([round(side * ratio) for side in glyph.size], Image.Resampling.BOX)
    canvas = Image.new("L", (_CANVAS, _CANVAS))
    canvas.paste(glyph, ((_CANVAS - glyph.width) // 2, (_CANVAS - glyph.height) // 2))
    pixels = torch.frombuffer(bytearray(canvas.tobytes()), dtype=torch.uint8)
    return pixels.view(_CANVAS, _CANVAS) / 255


def _spread(start: Tensor) -> Tensor:
    """For each pixel, the least root of distance^2 + start^2 over all pixels, cut at ``_REACH``.

    ``start`` is (N, H, W). A squared distance is a sum over the axes, so the minimum is taken along
    columns first and then along the rows of that result.
    """
    squares = start.square()
    for axis, around in ((1, [0, 0, _REACH, _REACH]), (2, [_REACH, _REACH])):
        padded = F.pad(squares, around, value=_REACH**2)
        least = squares
        for offset in range(-_REACH, _REACH + 1):
            moved = padded.narrow(axis, _REACH + offset, squares.shape[axis])
            least = torch.minimum(least, moved + offset**2)
        squares = least
    return squares.sqrt()
