"""What every explorer is: a widget whose frames are computed in the browser.

Each has two parts. Pure functions turn tensors into the numbers that the browser needs; the script
has pure functions as well, which it exports for the tests. Around them is a thin widget. The data
travels once, as bytes, so an explorer moves at the speed of the browser, also while the kernel is
busy, and in an exported page that has no kernel.
"""

import base64
import functools
import html
import json
from collections.abc import Mapping
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import numpy as np
import torch
from IPython.core.getipython import get_ipython
from matplotlib.figure import Figure
from torch import Tensor

from tutorial_lib import _files, _validate, plots
from tutorial_lib.explorers.shared import wire
from tutorial_lib.explorers.shared.bundle import bundle
from tutorial_lib.schedules import NoiseSchedule

MAX_BYTES = 1_400_000
"""The most data that one explorer may send (bytes): a saved notebook then stays below 2 MB."""

RUN_ME = "A still picture. Run this cell in JupyterLab to move the controls."
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 2em auto; padding: 0 1em; max-width: 940px; font: 15px/1.5 system-ui, sans-serif; }}
{css}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{description}</p>
<div id="explorer"></div>
</main>
<script type="application/json" id="state">{state}</script>
<script type="module">
{script}
</script>
</body>
</html>
"""

_PAGE_SCRIPT = """\
import {{ modelFrom }} from "./shared/page.js";
import {{ render }} from "./{script}";
const model = modelFrom(document.getElementById("state").textContent);
render({{ model, el: document.getElementById("explorer") }});
"""


@functools.cache
def _read(path: str) -> str:
    """A file of the package of explorers."""
    return resources.files("tutorial_lib.explorers").joinpath(path).read_text(encoding="utf-8")


class Explorer(anywidget.AnyWidget):
    """A picture to drag, with its data inside; see the subclasses.

    A subclass names its folder, which holds its script and has a title in ``wire.TITLES``. It
    passes its values to ``super().__init__`` as traits, and draws a still picture for places that
    cannot show a widget.
    """

    title: ClassVar[str] = ""
    standalone: ClassVar[bool] = True
    _script: ClassVar[str] = ""
    _css = _read("shared/stage.css")

    def __init_subclass__(cls, folder: str | None = None, **options: Any) -> None:
        if folder is not None:
            cls.title = wire.TITLES[folder]
            cls._script = f"{folder}/widget.js"
            cls._esm = bundle(cls._script, _read)
        super().__init_subclass__(**options)

    def __init__(self, **traits: Any) -> None:
        size = sum(len(value) for value in traits.values() if isinstance(value, bytes))
        if size > MAX_BYTES:
            raise ValueError(
                f"{type(self).__name__} must send at most {MAX_BYTES:,} bytes to the browser, so "
                f"that a saved notebook stays small; got {size:,}: give {self._advice()}"
            )
        super().__init__(**traits)
        _close_earlier_run(self)

    def close(self) -> None:
        """Ends the widget and its layout, which is a widget of its own, in kernel and page."""
        layout = self.layout
        super().close()
        if layout is not None:
            layout.close()

    def _advice(self) -> str:
        """What to give instead where there is too much data."""
        return "fewer or smaller images"

    def _still(self) -> Figure:
        """A still figure of the explorer as it is now."""
        raise NotImplementedError

    def _summary(self) -> str:
        """What the still figure shows, in a sentence or two."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self._summary()} Run this cell in JupyterLab to explore."

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict, dict]:
        """The widget, and a still picture for GitHub, untrusted notebooks and print."""
        widget = super()._repr_mimebundle_(**options)
        data, metadata = widget if isinstance(widget, tuple) else (widget or {}, {})
        still, about = plots.bundle(self._still(), f"{self._summary()} {RUN_ME}", RUN_ME)
        return {**data, **still, "text/plain": repr(self)}, {**metadata, **about}

    def save_html(self, path: str | PathLike[str]) -> Path:
        """Writes one page that holds the explorer: it needs no kernel and no network.

        Args:
            path: the page, ``.html``; its folder must exist.

        Raises:
            ValueError: this explorer needs a kernel; ``path`` does not end in ``.html`` or cannot
                be written.
        """
        if not self.standalone:
            raise ValueError(
                f"{type(self).__name__} needs a kernel and cannot be a page of its own"
            )
        target = Path(path)
        if target.suffix != ".html":
            raise ValueError(f"path must end in .html, got {target.name!r}")
        try:
            _files.write_whole(target, self._page().encode())
        except OSError as error:
            raise ValueError(f"path cannot be written: {target}: {error.strerror}") from error
        return target

    @classmethod
    def _page_script(cls) -> str:
        """The script of an exported page, as one module."""
        entry = _PAGE_SCRIPT.format(script=cls._script)
        return bundle("page.js", lambda path: entry if path == "page.js" else _read(path))

    def _page(self) -> str:
        names = [name for name in self.keys if not name.startswith("_")]
        values = {name: getattr(self, name) for name in names}
        raw = {name: value for name, value in values.items() if isinstance(value, bytes)}
        state = {
            "bytes": {name: base64.b64encode(value).decode() for name, value in raw.items()},
            "values": {
                name: value
                for name, value in values.items()
                if name not in raw and name not in ("layout", "tabbable", "tooltip", "comm")
            },
        }
        return _PAGE.format(
            title=html.escape(self.title),
            css=self._css,
            description=html.escape(self._summary()),
            state=json.dumps(state).replace("<", "\\u003c"),
            script=self._page_script().replace("</", "<\\/"),
        )


_BY_CELL: dict[str, tuple[str, list[Explorer]]] = {}
"""For each notebook cell the latest run that made explorers, and these explorers."""


def _close_earlier_run(explorer: Explorer) -> None:
    """Closes the explorers that an earlier run of the same cell made.

    Widgets live until they are closed: a cell that is run fifty times would leave fifty explorers
    in the kernel, in the page and in the saved notebook. Where the front end does not say which
    cell it is, the same text counts as the same cell.
    """
    parent = getattr(get_ipython(), "get_parent", dict)()  # a kernel has one, a terminal does not
    if not parent:
        return
    cell = parent.get("metadata", {}).get("cellId") or parent.get("content", {}).get("code")
    if not cell:
        return
    run = parent["header"]["msg_id"]
    if _BY_CELL.get(cell, ("", []))[0] != run:
        for old in _BY_CELL.pop(cell, ("", []))[1]:
            old.close()
        _BY_CELL[cell] = (run, [])
    _BY_CELL[cell][1].append(explorer)


def gray_bytes(images: Tensor) -> bytes:
    """Images in [-1, 1] as bytes 0..255; values outside are clamped."""
    grays = (images.detach().cpu().float().clamp(-1, 1) + 1) * wire.GRAYS_PER_UNIT
    return grays.round().to(torch.uint8).numpy().tobytes()


def eps_bytes(eps: Tensor) -> bytes:
    """Noise, or another tensor with values between -8 and 8, as int16; see ``wire.EPS_SCALE``."""
    scaled = (eps.detach().cpu().float() * wire.EPS_SCALE).round()
    return scaled.clamp(wire.INT16_MIN, wire.INT16_MAX).to(torch.int16).numpy().tobytes()


def float_bytes(values: Tensor) -> bytes:
    """Values as float32."""
    return np.ascontiguousarray(values.detach().cpu().float().numpy()).tobytes()


def check_images(name: str, images: Tensor, *, largest: int = 64) -> Tensor:
    """``images``, (N, C, H, W) with 1 or 3 channels, as float32 on the CPU.

    Raises:
        TypeError, ValueError: no tensor of numbers, another shape, NaN, or sides above ``largest``.
    """
    tensor = _validate.batch(name, images)
    if tensor.ndim != 4 or tensor.shape[1] not in (1, 3) or not tensor.numel():
        shape = tuple(tensor.shape)
        raise ValueError(f"{name} must have shape (N, 1 or 3, H, W), N >= 1; got {shape}")
    if max(tensor.shape[2:]) > largest:
        came = f"{tensor.shape[3]} x {tensor.shape[2]}"
        raise ValueError(f"{name} must be at most {largest} pixels wide and high, got {came}")
    return tensor.detach().cpu().float()


def named_schedules(
    schedules: NoiseSchedule | Mapping[str, NoiseSchedule], name: str = "schedules"
) -> dict[str, NoiseSchedule]:
    """One schedule or several by name, all of one length, on the CPU.

    Raises:
        TypeError: something that is not a schedule.
        ValueError: an empty dict, or different ``num_steps``.
    """
    found = schedules if isinstance(schedules, Mapping) else {"this schedule": schedules}
    if not found:
        raise ValueError(f"{name} must hold at least one schedule, got none")
    for key, schedule in found.items():
        if not isinstance(schedule, NoiseSchedule):
            came = _validate.describe(schedule)
            raise TypeError(f"{name} must be a NoiseSchedule or a dict of them; {key!r} is {came}")
    lengths = {schedule.num_steps for schedule in found.values()}
    if len(lengths) > 1:
        raise ValueError(f"{name} must all have the same num_steps, got {sorted(lengths)}")
    return {str(key): schedule.to(torch.device("cpu")) for key, schedule in found.items()}
