"""Still figures for the lessons: grids of images, filmstrips along t, curves.

Every function returns a matplotlib Figure; ``show`` displays one in the notebook, together with a
text for readers who cannot see it. The ground is transparent, so that a figure takes the light or
dark ground of the page, and its colors can be seen on both. What matplotlib draws in black unless
told otherwise, text and axes, is drawn in ``INK``. The figures are made without pyplot, so none is
shown twice or left open.
"""

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from IPython.core.getipython import get_ipython
from IPython.display import display
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.colors import to_rgba, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Annotation, Text
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._validate import InvalidValueError
from tutorial_lib.images import to_bytes
from tutorial_lib.plots.animated import Animation

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8A3CFF", "#0F9AE8", "#7A5C48")
"""Colors of lines: blue, orange, green and pink (Okabe & Ito 2008), violet, light blue and brown.

Each has a contrast of 3 to 1 or more with white and with the ground of dark themes, #111, and
color-blind readers can tell any two apart. Lines also differ in dashes.
"""
COLOURS = COLORS
"""The old name."""
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (2, 1)))
INK = "#767676"
"""Text and axes: a contrast of 4.5 to 1 with white, 4.1 to 1 with #111. No gray does better."""
GRAY = "#8F8F8F"
"""Lines that help to read a figure: a grid, a threshold, what is known beforehand."""
WIDTH = 900  # most pixels that a figure takes of a notebook's column
DPI = 100
SHARPNESS = 2  # pixels of the file for one on the screen: dense screens show them all
_GAP = 2  # between images, in their own pixels
_MARGIN = 6  # around a figure, in screen pixels
_FOOT = 22  # screen pixels for a line of text below a figure
_LARGEST = 112  # most screen pixels that an image takes, however few there are
_TEXT = 8.5  # points
_FEW_COLORS = 2048  # curves with their soft edges have some hundred, color images many more
_ALPHAS = 32  # how many degrees of transparency a soft edge is drawn in


def show(figure: Figure | Animation, alt: str) -> None:
    """Shows ``figure`` in the notebook, with ``alt`` for readers who cannot see it.

    Of an animation, readers who have asked their system for less motion see the last picture.
    Outside a notebook the text is printed instead.

    Raises:
        ValueError: ``alt`` is blank.
    """
    data, metadata = bundle(figure, alt)
    if get_ipython() is None:
        print(alt)
        return
    display(data, raw=True, metadata=metadata)


def bundle(
    figure: Figure | Animation, alt: str, note: str = ""
) -> tuple[dict[str, str], dict[str, dict]]:
    """What a notebook shows of ``figure``, by MIME type, and its metadata.

    Args:
        note: a line at the foot of a figure, for viewers that show only the picture.

    Raises:
        ValueError: ``alt`` is blank.
    """
    if not alt.strip():
        raise InvalidValueError("alt must say in words what the figure shows, got a blank text")
    if isinstance(figure, Animation):
        kind, content, still = "image/gif", figure.gif, figure.still()
        width, height = figure.width, figure.height
    else:
        kind, content, still = "image/png", _png(figure, alt, note), None
        width, height = (round(inches * DPI) for inches in figure.get_size_inches())
        height += _FOOT if note else 0
    data = base64.b64encode(content).decode()
    # JupyterLab reads alternative text only from HTML; other viewers show the plain image.
    picture = (
        f'<img src="data:{kind};base64,{data}" alt="{html.escape(alt)}" width="{width}" '
        f'style="max-width: 100%; height: auto">'
    )
    if still is not None:
        calm = f"data:image/png;base64,{base64.b64encode(still).decode()}"
        source = f'<source media="(prefers-reduced-motion: reduce)" srcset="{calm}">'
        picture = f"<picture>{source}{picture}</picture>"
    return (
        {kind: data, "text/html": picture, "text/plain": alt},
        {kind: {"alt": alt, "width": width, "height": height}},
    )


def _png(figure: Figure, description: str, note: str = "") -> bytes:
    """``figure`` as a PNG file; with a palette if it has few colors, in a third of the bytes."""
    picture = painted(figure)
    if note:
        picture = _with_foot(picture, note)
    notes = PngInfo()
    notes.add_text("Description", description)
    file = io.BytesIO()
    _with_palette(picture).save(file, "png", optimize=True, pnginfo=notes)
    return file.getvalue()


def painted(figure: Figure) -> Image.Image:
    """``figure`` as a picture of mode RGBA on a transparent ground, sharp on dense screens."""
    _follow_theme(figure)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI * SHARPNESS, facecolor="none", edgecolor="none")
    with Image.open(file) as picture:
        pixels = np.array(picture.convert("RGBA"))
    pixels[pixels[..., 3] == 0] = 0  # nothing has one color only
    return Image.fromarray(pixels)


def _follow_theme(figure: Figure) -> None:
    """Draws in ``INK`` what is black, and nothing where grounds are white.

    Black is what matplotlib takes for text and axes where nobody chose a color.
    """
    for axes in figure.axes:
        if _is(axes.get_facecolor(), "white"):
            axes.set_facecolor("none")
        for axis in (axes.xaxis, axes.yaxis):
            for which in ("major", "minor"):
                given = axis.get_tick_params(which)
                if _is(given.get("color", "black"), "black"):
                    axis.set_tick_params(which=which, color=INK)
                if _is(given.get("labelcolor", "black"), "black"):
                    axis.set_tick_params(which=which, labelcolor=INK)
    for part in figure.findobj():
        _recolor(part)


def _recolor(part: Artist) -> None:
    if isinstance(part, Legend):
        frame = part.get_frame()
        if _is(frame.get_facecolor(), "white"):
            frame.set(facecolor="none", edgecolor="none")
    elif isinstance(part, Text):
        if _is(part.get_color(), "black"):
            part.set_color(INK)
        if isinstance(part, Annotation) and part.arrow_patch is not None:
            _recolor(part.arrow_patch)
    elif isinstance(part, Line2D):
        for kind in ("color", "markeredgecolor", "markerfacecolor"):
            if _is(getattr(part, f"get_{kind}")(), "black"):
                part.set(**{kind: INK})
    elif isinstance(part, (Patch, Collection)) and (
        isinstance(part, Patch) or part.get_array() is None
    ):
        for kind in ("edgecolor", "facecolor"):
            colors = to_rgba_array(getattr(part, f"get_{kind}")())
            black = (colors[:, :3] == 0).all(1) & (colors[:, 3] > 0)
            if black.any():
                colors[black, :3] = to_rgba(INK)[:3]
                part.set(**{kind: colors if isinstance(part, Collection) else colors[0]})


def _is(color: object, name: str) -> bool:
    """Whether ``color``, in any form that matplotlib takes, is an opaque or soft ``name``."""
    if color is None or (isinstance(color, str) and color in ("none", "auto")):
        return False
    rgba = to_rgba(color)  # pyright: ignore[reportArgumentType]
    return rgba[3] > 0 and rgba[:3] == to_rgba(name)[:3]


def _with_foot(picture: Image.Image, note: str) -> Image.Image:
    """``picture`` with room for a line of text below it."""
    width, height = picture.size
    card = Image.new("RGBA", (width, height + _FOOT * SHARPNESS))
    card.paste(picture)
    font = ImageFont.load_default(12 * SHARPNESS)
    ImageDraw.Draw(card).text((_MARGIN * SHARPNESS, height), note, fill=INK, font=font)
    return card


def _with_palette(picture: Image.Image) -> Image.Image:
    """``picture`` with a palette of 256 colors, if it has few enough to look the same.

    Each color of the palette has a transparency of its own, so that soft edges stay soft on any
    ground.
    """
    degrees = np.rint(np.rint(np.arange(256) / 255 * (_ALPHAS - 1)) / (_ALPHAS - 1) * 255)
    picture.putalpha(picture.getchannel("A").point(degrees.astype(int).tolist()))
    found = picture.getcolors(_FEW_COLORS)
    if found is None:
        return picture
    colors = np.array([color for _, color in found], np.uint8)
    packed = colors.view("<u4")[:, 0]
    order = packed.argsort()
    palette, nearest = _palette(colors[order], np.array([count for count, _ in found])[order])
    place = np.searchsorted(packed[order], np.asarray(picture).view("<u4")[..., 0])
    small = Image.frombytes("P", picture.size, nearest.astype(np.uint8)[place].tobytes())
    small.putpalette(palette.tobytes(), "RGBA")
    return small


def _palette(colors: np.ndarray, count: np.ndarray, most: int = 256) -> tuple[np.ndarray, ...]:
    """At most ``most`` colors that stand for ``colors`` (N, 4), and for each the one that does.

    Chosen one by one, each as far as possible from those before it, so that no color, however
    rare, is far from all; each then moves to the mean of those that it stands for.
    """
    if len(colors) <= most:
        return colors, np.arange(len(colors))
    # Distances as they look on a ground: what is transparent has no color.
    alpha = colors[:, 3:].astype(np.float32) / 255
    seen = np.concatenate([colors[:, :3] * alpha, 255 * alpha], axis=1)
    chosen = [int(count.argmax())]
    far = ((seen - seen[chosen[0]]) ** 2).sum(1)
    nearest = np.zeros(len(colors), np.int64)
    while len(chosen) < most:
        chosen.append(int(far.argmax()))
        distance = ((seen - seen[chosen[-1]]) ** 2).sum(1)
        nearest[distance < far] = len(chosen) - 1
        far = np.minimum(far, distance)
    weight = np.bincount(nearest, count, most)
    means = [np.bincount(nearest, count * column, most) / weight for column in seen.T]
    means = np.stack(means, axis=1)
    opacity = np.maximum(means[:, 3:] / 255, 1e-6)
    palette = np.concatenate([means[:, :3] / opacity, means[:, 3:]], axis=1)
    return palette.round().clip(0, 255).astype(np.uint8), nearest


def image_grid(
    images: Tensor, columns: int | None = None, *, titles: Sequence[str] | None = None
) -> Figure:
    """Images in rows, each pixel a sharp square, values outside [-1, 1] clamped.

    Args:
        images: (N, C, H, W), values in [-1, 1], C is 1 (gray) or 3 (RGB).
        columns: images in a row; by default the number that makes the grid square.
        titles: one for each image, drawn above it.

    Raises:
        TypeError, ValueError: images of another type or shape, none, or NaN; ``columns`` below 1;
            the number of titles is not that of the images.
    """
    rows = in_rows(images, columns)
    if titles is None:
        return _mosaic(rows, None)
    if len(titles) != len(images):
        raise InvalidValueError(
            f"titles must be {len(images)}, one for each image; got {len(titles)}"
        )
    across = len(rows[0])
    return _mosaic(rows, [titles[i : i + across] for i in range(0, len(titles), across)])


def in_rows(images: Tensor, columns: int | None) -> list[np.ndarray]:
    """Images as bytes, in rows of ``columns``; None makes a square of them.

    Raises:
        TypeError, ValueError: as ``image_grid``.
    """
    pixels = to_bytes(images)
    if columns is None:
        columns = math.ceil(math.sqrt(len(pixels)))
    columns = min(_validate.whole_number("columns", columns, at_least=1), len(pixels))
    return [pixels[start : start + columns] for start in range(0, len(pixels), columns)]


def filmstrip(
    strips: Sequence[Tensor],
    labels: Sequence[str] | None = None,
    rows: Sequence[str] | None = None,
) -> Figure:
    """Pictures along t: one strip of images below the other.

    Args:
        strips: each (N, C, H, W), values in [-1, 1], all of one shape.
        labels: one for each of the N columns, drawn above them.
        rows: one for each strip, drawn to its left.

    Raises:
        TypeError, ValueError: no strips, strips of different shapes, images that ``image_grid``
            refuses, or a number of labels or rows that is not that of the columns or strips.
    """
    if not len(strips):
        raise InvalidValueError("strips must hold at least one batch of images, got none")
    pictures = [to_bytes(strip) for strip in strips]
    shapes = sorted({tuple(strip.shape) for strip in strips})
    if len(shapes) > 1:
        raise InvalidValueError(f"strips must all have the same shape, got {shapes}")
    if labels is not None and len(labels) != len(pictures[0]):
        count = f"{len(pictures[0])}, one for each column"
        raise InvalidValueError(f"labels must be {count}; got {len(labels)}")
    if rows is not None and len(rows) != len(strips):
        raise InvalidValueError(f"rows must be {len(strips)}, one for each strip; got {len(rows)}")
    return _mosaic(pictures, None if labels is None else [labels], rows)


def neighbors(samples: Tensor, train: Tensor, places: Tensor) -> Figure:
    """Samples, and below each the training images nearest to it: is it a copy?

    Args:
        samples: (N, C, H, W), values in [-1, 1].
        train: (M, C, H, W).
        places: int64 (N, K), as in ``metrics.nearest_neighbors(samples, train, count=K).place``.

    Raises:
        TypeError, ValueError: images that ``filmstrip`` refuses; ``places`` of another shape.
    """
    if places.ndim != 2 or len(places) != len(samples) or not places.shape[1]:
        shape = tuple(places.shape)
        raise InvalidValueError(f"places must have shape ({len(samples)}, K), K >= 1; got {shape}")
    strips = [samples, *(train[column] for column in places.T)]
    names = ["nearest", *(f"{rank}. nearest" for rank in range(2, len(strips)))]
    return filmstrip(strips, rows=["sample", *names])


def curves(
    x: Tensor | Sequence[float],
    lines: Mapping[str, Tensor | Sequence[float]],
    *,
    x_label: str,
    y_label: str,
    title: str | None = None,
    log_x: bool = False,
    log_y: bool = False,
    axes: Axes | None = None,
) -> Figure:
    """Named curves over one x, distinguished by color and by dashes.

    Args:
        x: (N,).
        lines: the values of each curve by its name. Values (N,) give a line; values (S, N), from S
            runs of the same thing, give their mean and a band from the lowest to the highest.
        axes: where to draw; a new figure by default.

    Raises:
        ValueError: no lines, more lines than colors, or values whose length is not that of x.
    """
    if not 1 <= len(lines) <= len(COLORS):
        raise InvalidValueError(f"lines must hold 1 to {len(COLORS)} curves, got {len(lines)}")
    if axes is None:
        axes = Figure(figsize=(6.4, 3.6), dpi=DPI, layout="constrained").add_subplot()
    places = _numbers(x)
    for (name, values), color, dash in zip(lines.items(), COLORS, DASHES, strict=False):
        runs = np.atleast_2d(_numbers(values))
        if places.ndim != 1 or runs.ndim != 2 or runs.shape[1] != len(places):
            came = f"{runs.shape} for x of {places.shape}"
            raise InvalidValueError(
                f"lines[{name!r}] must have shape (N,) or (S, N) with N as x; got {came}"
            )
        axes.plot(places, runs.mean(0), color=color, linestyle=dash, linewidth=1.8, label=name)
        if len(runs) > 1:
            axes.fill_between(places, runs.min(0), runs.max(0), color=color, alpha=0.2, lw=0)
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    dress(axes, x_label, y_label, title)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=_TEXT + 0.5, labelcolor=INK)
    figure = axes.get_figure(root=True)
    assert figure is not None  # axes that are drawn on have one
    return figure


def panels(
    count: int,
    *,
    width: float = 8.6,
    height: float = 3.2,
    share_x: bool = False,
    share_y: bool = False,
) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` empty plots side by side, to draw on: ``figure, (left, right)``.

    Args:
        width, height: of the whole figure, in inches; a notebook's column takes up to 9.
        share_x, share_y: whether all plots share one range, labeled at the outer ones only.

    Raises:
        TypeError, ValueError: ``count`` is not an int or is below 1.
    """
    count = _validate.whole_number("count", count, at_least=1)
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    plots = figure.subplots(1, count, squeeze=False, sharex=share_x, sharey=share_y)[0]
    for plot in plots:
        plot.tick_params(labelsize=_TEXT + 0.5)
        plot.spines[["top", "right"]].set_visible(False)
    return figure, list(plots)


def _numbers(values: Tensor | Sequence[float]) -> np.ndarray:
    """Numbers of any kind as float64."""
    if isinstance(values, Tensor):
        return values.detach().cpu().double().numpy()
    return np.asarray(values, np.float64)


def dress(axes: Axes, x_label: str, y_label: str, title: str | None) -> None:
    """Adds labels and a light grid behind the curves, removes the two spines without an axis."""
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    if title is not None:
        axes.set_title(title, color=INK, fontsize=11, loc="left")
    axes.grid(color=GRAY, alpha=0.3, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=_TEXT + 0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRAY)


def _mosaic(
    rows: Sequence[np.ndarray],
    texts: Sequence[Sequence[str]] | None,
    names: Sequence[str] | None = None,
) -> Figure:
    """Rows of images (N, H, W, C) as one picture of sharp pixels, with nothing between them.

    Args:
        texts: above each image of a row; a single list is a head for the columns.
        names: to the left of each row.
    """
    count, (height, width, _) = len(rows[0]), rows[0].shape[1:]
    left = 0 if names is None else 12 + 7 * max(map(len, names))
    across = count * (width + _GAP) - _GAP
    # Whole or half screen pixels for each pixel of the image, so that the file has whole ones.
    scale = largest_scale(across, width, left + 2 * _MARGIN)
    scale = max(math.floor(scale * SHARPNESS), 1) / SHARPNESS
    head = 0 if texts is None else math.ceil(17 / scale)
    heads = [head if texts is not None and i < len(texts) else 0 for i in range(len(rows))]
    sheet, tops = sheet_of(rows, heads)
    figure, axes = _card(sheet, scale, left)
    longest = max((len(text) for line in texts or () for text in line), default=1)
    size = min(_TEXT, 1.15 * width * scale / max(longest, 1))  # points that fit above an image
    for top, line in zip(tops, texts or (), strict=False):
        for i, text in enumerate(line):
            middle = i * (width + _GAP) + width / 2 - 0.5
            axes.text(middle, top - 1 - 2 / scale, text, ha="center", color=INK, fontsize=size)
    for top, name in zip(tops, names or (), strict=False):
        middle = top + height / 2 - 0.5
        axes.text(
            -0.5 - 8 / scale, middle, name, ha="right", va="center", color=INK, fontsize=_TEXT
        )
    return figure


def largest_scale(across: int, width: int, beside: float = 0) -> float:
    """Screen pixels for a pixel of images ``width`` wide in rows of ``across`` pixels in all."""
    return min((WIDTH - beside) / across, max(_LARGEST / width, 1))


def sheet_of(rows: Sequence[np.ndarray], heads: Sequence[int] = ()) -> tuple[np.ndarray, list[int]]:
    """Rows of images (N, H, W, C) as one picture (H, W, 4), and where each row begins.

    Args:
        heads: pixels left free above each row; none by default.
    """
    heads = heads or [0] * len(rows)
    count, (height, width, _) = len(rows[0]), rows[0].shape[1:]
    tops = [sum(heads[: i + 1]) + i * (height + _GAP) for i in range(len(rows))]
    sheet = np.zeros((tops[-1] + height, count * (width + _GAP) - _GAP, 4), np.uint8)
    for top, row in zip(tops, rows, strict=True):
        for i, picture in enumerate(row):
            start = i * (width + _GAP)
            sheet[top : top + height, start : start + width, :3] = picture
            sheet[top : top + height, start : start + width, 3] = 255
    return sheet, tops


def _card(sheet: np.ndarray, scale: float, left: float) -> tuple[Figure, Axes]:
    """A figure with the pixels of ``sheet``, ``scale`` screen pixels each, and a margin."""
    height, width = (side * scale for side in sheet.shape[:2])
    full_width, full_height = left + width + 2 * _MARGIN, height + 2 * _MARGIN
    figure = Figure(figsize=(full_width / DPI, full_height / DPI), dpi=DPI)
    place = (
        (left + _MARGIN) / full_width,
        _MARGIN / full_height,
        width / full_width,
        height / full_height,
    )
    axes = figure.add_axes(place)
    axes.set_axis_off()
    axes.imshow(sheet, interpolation="nearest", aspect="auto")
    return figure, axes
