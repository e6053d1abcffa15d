"""What all explorers have in common: packing, size, still picture, page, one widget a cell."""

import base64
import io
import json
import re
from types import SimpleNamespace

import comm
import pytest
import torch
from ipywidgets.widgets import widget
from PIL import Image

from tutorial_lib import explorers, schedules
from tutorial_lib.explorers.shared import base, wire

LINEAR = schedules.linear_schedule()
IMAGES = torch.linspace(-1, 1, 3 * 8 * 8).reshape(3, 1, 8, 8)


def test_bytes_are_within_half_a_gray_level():
    images = torch.rand(2, 3, 5, 5) * 2.4 - 1.2
    grays = torch.frombuffer(bytearray(base.gray_bytes(images)), dtype=torch.uint8)
    error = grays.double().reshape(images.shape) / 127.5 - 1 - images.clamp(-1, 1).double()
    assert error.abs().max() <= 0.5001 / 127.5


def test_eps_is_kept_to_an_eighth_of_a_thousandth_and_clipped_at_8():
    eps = torch.cat([torch.randn(10_000), torch.tensor([7.9, -7.9])])
    kept = torch.frombuffer(bytearray(base.eps_bytes(eps)), dtype=torch.int16)
    assert (kept.double() / wire.EPS_SCALE - eps.double()).abs().max() <= 0.5001 / wire.EPS_SCALE
    far = torch.frombuffer(
        bytearray(base.eps_bytes(torch.tensor([99.0, -99.0]))), dtype=torch.int16
    )
    assert far.tolist() == [32767, -32768]


def test_too_much_data_is_refused_and_says_what_to_give():
    with pytest.raises(ValueError, match=r"ForwardExplorer must send at most .* fewer or smaller"):
        explorers.ForwardExplorer(torch.zeros(200, 3, 64, 64), LINEAR)


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (torch.zeros(1, 1, 65, 8), ValueError, "images must be at most 64 pixels"),
        (torch.zeros(8, 8), ValueError, "images must have shape"),
        (torch.zeros(2, 2, 8, 8), ValueError, "images must have shape"),
        (torch.full((1, 1, 8, 8), torch.nan), ValueError, "images"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.int64), TypeError, "images"),
        ("images", TypeError, "images"),
    ],
)
def test_images_that_are_invalid(images, error, words):
    with pytest.raises(error, match=words):
        explorers.ForwardExplorer(images, LINEAR)


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({}, ValueError, "at least one schedule"),
        ({"a": 3}, TypeError, "'a' is int 3"),
        (torch.ones(3), TypeError, "schedules must be a NoiseSchedule"),
        ({"a": LINEAR, "b": schedules.cosine_schedule(10)}, ValueError, "same num_steps"),
    ],
)
def test_schedules_that_are_invalid(given, error, words):
    with pytest.raises(error, match=words):
        explorers.ForwardExplorer(IMAGES, given)


def test_where_no_widget_can_be_a_picture_says_what_to_do():
    explorer = explorers.ForwardExplorer(IMAGES, LINEAR)
    bundle = explorer._repr_mimebundle_()
    assert bundle is not None
    data, metadata = bundle
    assert "application/vnd.jupyter.widget-view+json" in data
    assert base.RUN_ME in metadata["image/png"]["alt"]
    assert "Run this cell in JupyterLab" in data["text/plain"]
    with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as picture:
        assert "Run this cell" in picture.info["Description"]
        grays = picture.convert("RGBA").convert("L").tobytes()
    assert len(set(grays)) > 16  # noise, not a blank card


def state_of(page: str) -> dict:
    """The values that a page carries in place of a kernel."""
    found = re.search(r'id="state">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


def test_a_page_holds_everything_and_asks_nobody(tmp_path):
    path = explorers.ForwardExplorer(IMAGES, LINEAR, t=300).save_html(tmp_path / "a.html")
    page = path.read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)\s*=\s*["']|https?://""", page)
    state = state_of(page)
    assert state["values"]["t"] == 300
    assert base64.b64decode(state["bytes"]["x0"]) == base.gray_bytes(IMAGES)


def test_a_page_keeps_names_that_look_like_markup(tmp_path):
    name = "</script><b>mine"
    path = explorers.ForwardExplorer(IMAGES, {name: LINEAR}).save_html(tmp_path / "a.html")
    page = path.read_text(encoding="utf-8")
    assert name not in page
    state = state_of(page)
    assert state["values"]["schedule_names"] == [name]


@pytest.mark.parametrize(
    ("path", "words"), [("a.png", "end in .html"), ("missing/a.html", "cannot be written")]
)
def test_pages_that_cannot_be_written(tmp_path, path, words):
    with pytest.raises(ValueError, match=f"path.* {words}|path {words}|path must {words}"):
        explorers.ForwardExplorer(IMAGES, LINEAR).save_html(tmp_path / path)
    assert list(tmp_path.iterdir()) == []


def test_a_cell_run_again_closes_what_it_made_before(monkeypatch):
    run = {"header": {"msg_id": "1"}, "metadata": {"cellId": "cell-of-this-test"}}
    shell = SimpleNamespace(get_parent=lambda: run)
    monkeypatch.setattr(base, "get_ipython", lambda: shell)
    first, second = (explorers.ForwardExplorer(IMAGES, LINEAR) for _ in range(2))
    assert first.comm is not None
    assert second.comm is not None
    run["header"] = {"msg_id": "2"}
    third = explorers.ForwardExplorer(IMAGES, LINEAR)
    assert (first.comm, second.comm) == (None, None)
    assert third.comm is not None
    run["metadata"] = {"cellId": "another-cell"}
    explorers.ForwardExplorer(IMAGES, LINEAR)
    assert third.comm is not None


@pytest.mark.parametrize(
    "sent",
    [
        {"metadata": {"cellId": "a cell"}, "content": {"code": "forward"}},
        {"metadata": {}, "content": {"code": "forward"}},
        {"content": {"code": "forward"}},
    ],
    ids=["cell id", "no cell id", "no metadata"],
)
def test_fifty_runs_of_a_cell_leave_no_widget_layout_or_comm(monkeypatch, sent):
    run = {**sent, "header": {"msg_id": ""}}
    shell = SimpleNamespace(get_parent=lambda: run)
    monkeypatch.setattr(base, "get_ipython", lambda: shell)
    counts = set()
    for number in range(50):
        run["header"] = {"msg_id": f"run {number}"}
        shown = [explorers.ForwardExplorer(IMAGES, LINEAR) for _ in range(2)]
        counts.add((len(widget._instances), len(comm.get_comm_manager().comms)))
        assert all(each.comm is not None for each in shown)
    assert len(counts) == 1, counts


def test_an_explorer_that_is_closed_takes_its_layout_along():
    before = set(widget._instances)
    explorer = explorers.ForwardExplorer(IMAGES, LINEAR)
    assert len(set(widget._instances) - before) == 2
    explorer.close()
    explorer.close()
    assert set(widget._instances) == before
