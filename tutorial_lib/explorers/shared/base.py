"""What every explorer is: a widget whose frames are computed in the browser.

An explorer is two parts. The pure part turns tensors into the numbers that the browser needs, and
its script has pure functions as well, which it exports for the tests. The thin part is the widget.
The data travels once, as bytes, so an explorer moves at the speed of the browser, while the kernel
is busy, and in a page that was exported without any kernel.
"""

import base64
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
from tutorial_lib.schedules import NoiseSchedule

MAX_BYTES = 1_400_000
"""Data of one explorer at most (bytes): with its state a saved notebook stays below 2 MB."""

RUN_ME = "A still picture. Run this cell in JupyterLab to move the controls."
EPS_SCALE = 4096
"""Noise travels as int16 of eps x 4096: from -8 to 8 in steps that no gray level shows."""

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

// In place of a kernel: the values, and who wants to hear of a change.
const state = JSON.parse(document.getElementById("state").textContent);
for (const [name, value] of Object.entries(state.bytes)) {{
  const text = atob(value), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  state.values[name] = new DataView(bytes.buffer);
}}
const heard = {{}};
const model = {{
  get: (name) => state.values[name],
  set: (name, value) => {{
    if (state.values[name] === value) return;
    state.values[name] = value;
    for (const handler of heard[`change:${{name}}`] ?? []) handler();
  }},
  on: (event, handler) => (heard[event] ??= new Set()).add(handler),
  off: (event, handler) => heard[event]?.delete(handler),
  save_changes: () => {{}},
  send: () => {{}},
}};
widget.render({{ model, el: document.getElementById("explorer") }});
</script>
</body>
</html>
"""


def _read(script: str) -> str:
    """A file of this package."""
    return resources.files("tutorial_lib.explorers").joinpath(script).read_text(encoding="utf-8")


class Explorer(anywidget.AnyWidget):
    """A picture to drag, with its data inside; see the subclasses.

    A subclass names its script and its title, hands its values to ``super().__init__`` as
    traits, and draws a still picture for where no widget can be.
    """

    title: ClassVar[str] = ""
    standalone: ClassVar[bool] = True
    _css = _read("shared/stage.css")

    def __init_subclass__(cls, script: str | None = None, **options: Any) -> None:
        if script is not None:
            cls._esm = _module(script)
        super().__init_subclass__(**options)

    def __init__(self, **traits: Any) -> None:
        size = sum(len(value) for value in traits.values() if isinstance(value, bytes))
        if size > MAX_BYTES:
            raise ValueError(
                f"{type(self).__name__} must send at most {MAX_BYTES:,} bytes to the browser, so "
                f"that a saved notebook stays small; got {size:,}: give {self._less()}"
            )
        super().__init__(**traits)
        _replace_those_before(self)

    def _less(self) -> str:
        """What to give less of, where there is too much data."""
        return "fewer or smaller images"

    def _still(self) -> Figure:
        """The explorer as it stands, as a still figure."""
        raise NotImplementedError

    def _says(self) -> str:
        """What the still figure shows, in a sentence or two."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self._says()} Run this cell in JupyterLab to explore."

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict, dict]:
        """The widget, and a still picture for GitHub, for untrusted notebooks and for print."""
        bundle = super()._repr_mimebundle_(**options)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        still, about = plots.bundle(self._still(), f"{self._says()} {RUN_ME}", RUN_ME)
        return {**data, **still, "text/plain": repr(self)}, {**metadata, **about}

    def save_html(self, path: str | PathLike[str]) -> Path:
        """Writes one page that holds the explorer: it needs no kernel and no network.

        Args:
            path: the page, ``.html``; its folder must exist.

        Raises:
            ValueError: this explorer needs a kernel; ``path`` has another ending, or cannot be
                written.
        """
        if not self.standalone:
            raise ValueError(f"{type(self).__name__} needs a kernel and cannot be a page by itself")
        target = Path(path)
        if target.suffix != ".html":
            raise ValueError(f"path must end in .html, got {target.name!r}")
        try:
            _files.write_whole(target, self._page().encode())
        except OSError as error:
            raise ValueError(f"path cannot be written: {target}: {error.strerror}") from error
        return target

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
            description=html.escape(self._says()),
            state=json.dumps(state).replace("<", "\\u003c"),
            script=str(self._esm).replace("</", "<\\/"),
        )


_OF_CELL: dict[str, tuple[str, list[Explorer]]] = {}
"""By notebook cell: which run of it made explorers, and those."""


def _replace_those_before(explorer: Explorer) -> None:
    """Closes what an earlier run of the same cell made.

    Widgets live until they are closed: run fifty times, a cell would leave fifty explorers in the
    kernel, in the page, and in the notebook when it is saved.
    """
    parent = getattr(get_ipython(), "get_parent", dict)()  # a kernel has it, a terminal has not
    if not parent or not (cell := parent["metadata"].get("cellId")):
        return
    run = parent["header"]["msg_id"]
    if _OF_CELL.get(cell, ("", []))[0] != run:
        for old in _OF_CELL.pop(cell, ("", []))[1]:
            old.close()
        _OF_CELL[cell] = (run, [])
    _OF_CELL[cell][1].append(explorer)


def _module(script: str) -> str:
    """The common script and an explorer's own, as one module."""
    return _read("shared/stage.js") + "\n" + _read(script)


def gray_bytes(images: Tensor) -> bytes:
    """Images in [-1, 1] as bytes 0..255, values outside clamped."""
    grays = (images.detach().cpu().float().clamp(-1, 1) + 1) * 127.5
    return grays.round().to(torch.uint8).numpy().tobytes()


def eps_bytes(eps: Tensor) -> bytes:
    """Noise, or another tensor with values between -8 and 8, as int16; see ``EPS_SCALE``."""
    scaled = (eps.detach().cpu().float() * EPS_SCALE).round().clamp(-32768, 32767)
    return scaled.to(torch.int16).numpy().tobytes()


def float_bytes(values: Tensor) -> bytes:
    """Values as float32."""
    return np.ascontiguousarray(values.detach().cpu().float().numpy()).tobytes()


def check_images(name: str, images: Tensor, *, largest: int = 64) -> Tensor:
    """``images``, (N, C, H, W) with 1 or 3 channels, as float32 on the CPU.

    Raises:
        TypeError, ValueError: another kind of tensor or shape, NaN, sides above ``largest``.
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
        TypeError: no schedule, or something else among them.
        ValueError: none at all, or different ``num_steps``.
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
