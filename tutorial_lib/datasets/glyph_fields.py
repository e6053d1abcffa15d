"""Digits drawn from fonts, whose outlines are kept as distance fields.

A signed distance field says for each point how deep it lies inside the glyph. Turning, scaling and
thickening a glyph is then a look-up at other places and a number added, and the anti-aliased edge
comes for free: it is where the distance, in pixels of the picture, passes from -1/2 to 1/2.
"""

import importlib.util
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from tutorial_lib._validate import MissingFileError

# Upright, bold, slanted; with serifs and without; all among the fonts that matplotlib ships. Left
# out are DejaVu Sans Mono (a dot in its zero) and cmmi10 (old-style digits of differing heights).
FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    *("cmr10", "cmb10", "cmss10", "cmti10", "cmtt10"),
)
_CANVAS = 96  # side of a distance field
_BOX = 72  # the longer side of a glyph on it
_REACH = 15  # distances are exact up to here; farther ones only say "far"


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
        font, digit: (N,) int64, places in ``FONTS`` and 0..9.
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
    """How deep each point lies inside each glyph, (fonts, 10, canvas, canvas), in its pixels.

    A pixel that the outline crosses is as deep as its gray says, 1/2 being on the outline; from
    there the distance counts on, outwards and inwards. (The exact distance to a black-and-white
    mask instead would have the mask's stairs.)
    """
    folder = font_folder()
    glyphs = [glyph(folder / f"{name}.ttf", str(digit)) for name in FONTS for digit in range(10)]
    grey = torch.stack(glyphs)
    far = torch.tensor(float(_REACH))
    outside = _spread(torch.where(grey > 0, (0.5 - grey).clamp(min=0), far))
    inside = _spread(torch.where(grey < 1, (grey - 0.5).clamp(min=0), far))
    return (inside - outside).view(len(FONTS), 10, _CANVAS, _CANVAS)


def font_folder() -> Path:
    """Where matplotlib keeps its fonts; it is looked up, not imported, which takes a moment.

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
    """The least of "distance to another pixel plus what that starts with", cut at ``_REACH``.

    Of ``start`` (N, H, W), both taken squared: squared distances are sums over the axes, so the
    least is found along columns first and along rows of that result second.
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
