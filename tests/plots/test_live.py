"""The live plot: redrawn in place, seldom, from what a run writes."""

import base64
import io
import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from nbclient import NotebookClient
from PIL import Image
from torch import Tensor

from tests.plots.pictures import random_images
from tutorial_lib.images import to_bytes
from tutorial_lib.plots import figures
from tutorial_lib.plots import live as live_plots
from tutorial_lib.training import TrainConfig, train


class FakeNotebook:
    """What a notebook would show: ``places`` holds the newest picture of each display.

    ``figures`` are those that were made into pictures, in order: quickly into none, if not
    ``painting``. ``on_show`` is called where a notebook would take its time.
    """

    def __init__(self, patch: pytest.MonkeyPatch, *, painting: bool = False):
        self.places: list[dict] = []
        self.figures: list[Figure] = []
        self.updates = 0
        self.on_show: Callable[[], object] = lambda: None
        patch.setattr(live_plots, "get_ipython", object)
        patch.setattr(live_plots, "display", self.display)
        bundle = live_plots.bundle

        def kept(figure: Figure, alt: str) -> tuple[dict, dict]:
            self.figures.append(figure)
            return bundle(figure, alt) if painting else ({"text/plain": alt}, {})

        patch.setattr(live_plots, "bundle", kept)

    def display(self, data: dict, **options: Any) -> Any:
        assert options["display_id"] is True
        self.places.append(data)
        place = len(self.places) - 1
        self.on_show()

        def update(data: dict, **options: Any) -> None:
            self.places[place] = data
            self.updates += 1
            self.on_show()

        return SimpleNamespace(update=update)

    def panels(self) -> list[Any]:
        """What the newest picture shows."""
        return list(self.figures[-1].axes)


def test_a_live_plot_is_drawn_in_one_place(monkeypatch: pytest.MonkeyPatch):
    notebook = FakeNotebook(monkeypatch, painting=True)
    with live_plots.LivePlot(steps=5, interval=0, clock=lambda: 0.0) as live:  # drawing is free
        live.update(1, 2.0)
        first = notebook.places[0]
        assert first["text/plain"] == "training: step 1 of 5, loss 2.0000"
        live.update(2, torch.tensor(1.0), random_images(6))
    assert len(notebook.places) == 1
    assert notebook.updates == 1
    text = "training: step 2 of 5, loss 1.5000, 6 samples from step 2"  # the mean of both
    assert notebook.places[0]["text/plain"] == text
    with Image.open(io.BytesIO(base64.b64decode(notebook.places[0]["image/png"]))) as picture:
        assert picture.width == figures.WIDTH * figures.SHARPNESS
        assert picture.info["Description"] == text


def test_a_live_plot_shows_curve_and_samples(monkeypatch: pytest.MonkeyPatch):
    notebook = FakeNotebook(monkeypatch)
    live = live_plots.LivePlot(interval=0)
    images = random_images(4, channels=3)
    for step, loss in enumerate([3.0, float("nan"), 1.0]):
        live.update(step, loss)
    live.update(2, images=images)
    live.draw()
    curve, grid = notebook.panels()
    assert curve.lines[0].get_xdata().tolist() == [0, 1, 2]
    assert curve.lines[1].get_ydata()[1] == pytest.approx(2)  # NaN is left out of the mean
    seen = grid.images[0].get_array()
    assert np.array_equal(seen[:7, :9], to_bytes(images)[0])
    alone: Any
    for alone in ({"loss": 1.0}, {"images": images}):
        live = live_plots.LivePlot(interval=0)
        live.update(0, **alone)
        assert len(notebook.panels()) == 1


def test_the_smooth_line_of_a_live_plot_does_not_lag_behind(monkeypatch: pytest.MonkeyPatch):
    notebook = FakeNotebook(monkeypatch)
    live = live_plots.LivePlot(interval=1e6)
    losses = [200.0 - step for step in range(101)]
    for step, loss in enumerate(losses):
        live.update(step, loss)
    live.draw()
    smooth = notebook.panels()[0].lines[1].get_ydata()
    assert smooth[25:76] == pytest.approx(losses[25:76])
    assert smooth[0] == pytest.approx(sum(losses[:26]) / 26)
    assert smooth[-1] == pytest.approx(sum(losses[-26:]) / 26)


def test_a_live_plot_leaves_the_time_to_the_training(monkeypatch: pytest.MonkeyPatch):
    notebook = FakeNotebook(monkeypatch)
    now = [100.0]
    live = live_plots.LivePlot(interval=1.0, clock=lambda: now[0])
    for step in range(1, 101):
        live.update(step, 1.0)
        now[0] += 0.11
    assert len(notebook.figures) == 10  # of 11 seconds
    notebook.figures.clear()
    notebook.on_show = lambda: now.__setitem__(0, now[0] + 0.5)
    for step in range(101, 1101):
        live.update(step, 1.0)
        now[0] += 0.11
    assert 5 <= len(notebook.figures) <= 110 / (20 * 0.5) + 1


def test_a_live_plot_reads_losses_only_to_draw_them():
    class Unreadable(Tensor):
        def __float__(self):
            raise AssertionError("this would wait for the device")

    live = live_plots.LivePlot(interval=1e6)
    live.update(1, 0.5)
    for step in range(2, 9):
        live.update(step, torch.ones(()).as_subclass(Unreadable))
    with pytest.raises(AssertionError, match="wait for the device"):
        live.draw()


def test_a_live_plot_follows_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    notebook = FakeNotebook(monkeypatch)
    run = tmp_path / "run"
    config = TrainConfig(
        size=8,
        widths=(8, 8),
        batch_size=4,
        steps=30,
        num_steps=10,
        log_every=10,
        sample_every=15,
        device="cpu",
        progress=False,
        out=run,
    )
    with live_plots.LivePlot.following(run, interval=0.01):
        train(config)
    assert len(notebook.places) == 1
    text = notebook.places[0]["text/plain"]
    assert text.startswith("training: step 30 of 30, loss ")
    assert text.endswith(", samples from step 30")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    curve, grid = notebook.panels()
    assert curve.lines[0].get_xdata().tolist() == [10, 20, 30]
    assert curve.lines[0].get_ydata().tolist() == [line["loss"] for line in lines]
    with Image.open(run / "samples" / "step-00000030.png") as picture:
        assert np.array_equal(grid.images[0].get_array(), np.asarray(picture.convert("RGB")))


def test_following_ends_with_the_block_and_raises_what_went_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    notebook = FakeNotebook(monkeypatch)
    before = set(threading.enumerate())
    with live_plots.LivePlot.following(tmp_path / "never", interval=0.01):
        pass
    assert set(threading.enumerate()) <= before
    (tmp_path / "metrics.jsonl").write_text("no JSON\n")

    def until_the_thread_has_ended() -> None:
        for thread in set(threading.enumerate()) - before:
            thread.join(60)
        (tmp_path / "metrics.jsonl").unlink()  # only the thread can have read it

    with (
        pytest.raises(json.JSONDecodeError),
        live_plots.LivePlot.following(tmp_path, interval=0.01),
    ):
        until_the_thread_has_ended()
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "lo')  # still being written
    with live_plots.LivePlot.following(tmp_path, interval=0.01):
        pass
    assert notebook.figures == []


def test_a_live_plot_in_a_real_kernel(tmp_path: Path):
    """One output, and the last picture in it, also where a thread has drawn it."""
    code = f"""
import json, threading, time
from pathlib import Path
from tutorial_lib.plots import LivePlot
run = Path({str(tmp_path / "run")!r})
run.mkdir()
with LivePlot(steps=3, interval=0) as live:
    for step in (1, 2, 3):
        live.update(step, 1.0)
with LivePlot.following(run, interval=0.1) as live:
    drawers, draw = [], live.draw
    live.draw = lambda: (draw(), drawers.append(threading.current_thread()))
    for step in (1, 2):
        with open(run / "metrics.jsonl", "a") as file:
            file.write(json.dumps({{"step": step, "loss": 0.5}}) + "\\n")
        while not drawers:  # the second may be left for the end: drawing takes little of the time
            time.sleep(0.01)
    assert drawers[0] is not threading.main_thread()
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    NotebookClient(notebook, timeout=120).execute()
    outputs = notebook.cells[0].outputs
    assert [output["data"]["text/plain"] for output in outputs] == [
        "training: step 3 of 3, loss 1.0000",
        "training: step 2, loss 0.5000",
    ]
    assert all("image/png" in output["data"] for output in outputs)


def test_a_drawing_that_fails_switches_the_plot_off_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notebook = FakeNotebook(monkeypatch)

    def gone() -> None:
        raise BrokenPipeError("the front end is gone")

    notebook.on_show = gone
    live = live_plots.LivePlot(steps=9, interval=0.0, clock=lambda: 0.0)
    with pytest.warns(UserWarning, match="the live plot is switched off: the front end is gone"):
        live.update(1, 0.5)
    live.update(2, 0.4)  # without another warning
    live.draw()
    assert notebook.updates == 0
