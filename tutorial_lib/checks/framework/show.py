"""Displays a result: as text, as HTML for both themes, and as a small picture of the difference."""

import base64
import io
from html import escape

import torch
from torch import Tensor

from tutorial_lib.checks.framework.compare import Difference

_LOOKS = {  # mark, word, the color of the edge; the text keeps the color of the theme
    "passed": ("✓", "Passed", "46, 160, 90"),
    "failed": ("✗", "Not yet", "214, 100, 60"),
    "not attempted": ("…", "Not attempted", "110, 140, 190"),
}
_SIDE = 120  # pixels of one picture


def text(outcome: str, title: str, message: str, where: str, difference: Difference | None) -> str:
    """The result in plain text."""
    mark, word, _ = _LOOKS[outcome]
    lines = [f"{mark} {word}: {title}", *(f"  {line}" for line in message.splitlines())]
    if where:
        lines.append(f"  tried with {where}")
    lines += [f"  {name}: {value}" for name, value in _numbers(difference)]
    return "\n".join(lines)


def html(
    outcome: str, title: str, message: str, where: str, difference: Difference | None, printed: str
) -> str:
    """The result as a box that states the outcome in words, not by color alone."""
    mark, word, color = _LOOKS[outcome]
    body = [
        f"<strong><span aria-hidden='true'>{mark}</span> {word}: {escape(title)}</strong>",
        f"<div style='white-space: pre-wrap'>{_with_code(message)}</div>",
    ]
    if where:
        body.append(f"<div style='opacity: .85'>Tried with {_with_code(where)}</div>")
    rows = "".join(
        f"<tr><th scope='row' style='text-align: left; padding-right: 1em'>{escape(name)}</th>"
        f"<td style='text-align: left'>{escape(value)}</td></tr>"
        for name, value in _numbers(difference)
    )
    if rows:
        body.append(f"<table style='margin: .4em 0; color: inherit'>{rows}</table>")
    if difference:
        body.append(_picture(difference))
    if printed:
        body.append(f"<details><summary>What your code printed</summary>{code(printed)}</details>")
    return (
        f"<div role='status' style='border-left: 4px solid rgb({color}); padding: .5em .9em; "
        f"background: rgba({color}, .1); color: inherit'>{''.join(body)}</div>"
    )


def code(source: str) -> str:
    """Source text as HTML that keeps its spaces."""
    style = "white-space: pre-wrap; color: inherit; background: transparent"
    return f"<pre style='{style}'>{escape(source.rstrip())}</pre>"


def note(title: str, message: str, source: str = "") -> str:
    """A hint or a solution as HTML."""
    shown = code(source) if source else ""
    return (
        "<div role='note' style='border-left: 4px solid rgb(150, 130, 200); padding: .5em .9em; "
        f"background: rgba(150, 130, 200, .1); color: inherit'><strong>{escape(title)}</strong>"
        f"{shown}<div style='white-space: pre-wrap'>{_with_code(message)}</div></div>"
    )


def _with_code(message: str) -> str:
    """Escaped text, with what is between `backticks` set as code."""
    pieces = escape(message, quote=False).split("`")
    if len(pieces) % 2 == 0:  # an odd number of backticks: leave them as they are
        return "`".join(pieces)
    style = "color: inherit; background: rgba(128, 128, 128, .15)"
    marked = [f"<code style='{style}'>{p}</code>" if i % 2 else p for i, p in enumerate(pieces)]
    return "".join(marked)


def _numbers(difference: Difference | None) -> list[tuple[str, str]]:
    if difference is None:
        return []
    part = difference.part or "the result"
    index = ", ".join(map(str, difference.index))
    return [
        ("first difference", f"{part}[{index}]" if index else part),
        ("expected", f"{difference.expected:.6g}"),
        ("yours", f"{difference.yours:.6g}"),
        ("largest error", f"{difference.max_abs_error:.3g}"),
    ]


def has_picture(difference: Difference | None) -> bool:
    """Whether a difference is between images or curves, which are easier to see than to read."""
    return difference is not None and (_is_image(difference) or _is_curve(difference))


def _is_image(difference: Difference) -> bool:
    shape = difference.target_values.shape
    return len(shape) == 4 and shape[1] in (1, 3) and min(shape[2:]) >= 8


def _is_curve(difference: Difference) -> bool:
    values = difference.target_values
    return values.ndim == 1 and len(values) >= 8 and bool(values.isfinite().any())


def _picture(difference: Difference) -> str:
    """Expected and actual values as images or curves; empty if they are neither."""
    target, yours = difference.target_values.float(), difference.your_values.float()
    if _is_image(difference):
        which = difference.index[0]
        png = _image_pair(target[which], yours[which])
        what = f"two pictures, sample {which} of the batch: the expected one left, yours right"
    elif _is_curve(difference):
        png = _curves(target, yours)
        what = "two curves over the index: the expected one thin and dark, yours thick and orange"
    else:
        return ""
    data = base64.b64encode(png).decode()
    return (
        f"<figure style='margin: .4em 0'><img alt='{what}' src='data:image/png;base64,{data}'>"
        f"<figcaption style='opacity: .85'>{what.capitalize()}.</figcaption></figure>"
    )


def _image_pair(target: Tensor, yours: Tensor) -> bytes:
    from PIL import Image

    gap = 8
    sheet = Image.new("RGB", (2 * _SIDE + gap, _SIDE), "white")
    for i, image in enumerate((target, yours)):
        gray = ((image.nan_to_num().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        pixels = gray.expand(3, -1, -1).permute(1, 2, 0).contiguous().cpu().numpy()
        picture = Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
        sheet.paste(picture, (i * (_SIDE + gap), 0))
    return _png(sheet)


def _curves(target: Tensor, yours: Tensor) -> bytes:
    from PIL import Image, ImageDraw

    width, height, edge = 3 * _SIDE, _SIDE, 6
    finite = torch.cat([target, yours])
    finite = finite[finite.isfinite()]
    low, high = float(finite.min()), float(finite.max())
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for curve, color, thick in ((yours, (230, 120, 20), 4), (target, (20, 40, 90), 1)):
        points = [
            (
                edge + (width - 2 * edge) * i / (len(curve) - 1),
                height - edge - (height - 2 * edge) * (float(y) - low) / ((high - low) or 1.0),
            )
            for i, y in enumerate(curve)
            if y.isfinite()
        ]
        if len(points) > 1:
            draw.line(points, fill=color, width=thick)
    return _png(sheet)


def _png(image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return stream.getvalue()
