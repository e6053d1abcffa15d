"""The editing explorer's script: areas and strokes, painting by mouse, finger and keyboard."""

import pytest
import torch
from explorer_cases import SETUP
from jupyter_lab import painted

from tests.browser.canvas import pixels
from tests.draws import seeded
from tutorial_lib import schedules
from tutorial_lib.explorers import EditingExplorer
from tutorial_lib.explorers.editing import widget as _editing
from tutorial_lib.explorers.shared import wire
from tutorial_lib.images import to_bytes
from tutorial_lib.oracles import DatasetOracle

COSINE = schedules.cosine_schedule()
IMAGES = torch.rand(3, 1, 8, 8, generator=seeded(0)) * 2 - 1

NOTEBOOK = """\
data = glyphs.images[:40]
memory = oracles.DatasetOracle(cosine, data)
explorer = explorers.EditingExplorer(memory, cosine, data[:3], steps=6, answers=4)
explorer"""


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 6), (28, 28), (1, 3)])
def test_areas_are_those_of_python(open_script, height, width):
    page = open_script(EditingExplorer._esm)
    for area in range(len(wire.AREAS)):
        got = page.evaluate(
            "([area, h, w]) => Array.from(explorer.areaMask(area, h, w))", [area, height, width]
        )
        expected = _editing.area_mask(area, height, width)
        assert torch.equal(torch.tensor(got).view(height, width).bool(), expected)


def test_a_stroke_marks_all_near_its_way_and_nothing_else(open_script):
    page = open_script(EditingExplorer._esm)
    h, w = 12, 15
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    for start, end in (
        ((2, 3), (2, 3)),
        ((1, 1), (9, 13)),
        ((11, 0), (0, 0)),
        ((5.4, 2.2), (5, 9)),
    ):
        got = page.evaluate(
            """([h, w, from, to]) => Array.from(
              explorer.painted(new Uint8Array(h * w), [h, w], from, to, 1))""",
            [h, w, start, end],
        )
        shares = torch.linspace(0, 1, 2001, dtype=torch.float64)
        way = torch.tensor(start) + shares[:, None] * (torch.tensor(end) - torch.tensor(start))
        away = (
            (rows[..., None] - way[:, 0]).square() + (columns[..., None] - way[:, 1]).square()
        ).amin(2)
        assert torch.equal(torch.tensor(got).view(h, w).bool(), away <= 2.3**2)
    full = page.evaluate(
        "() => Array.from(explorer.painted(new Uint8Array(9).fill(1), [3, 3], [0, 0], [0, 0], 0))"
    )
    assert sum(full) < 9, "what is erased is known again"


def test_a_page_of_its_own_shows_what_was_made_and_does_not_paint(browser, tmp_path):
    made = EditingExplorer(DatasetOracle(COSINE, IMAGES), COSINE, IMAGES, steps=5, answers=2)
    page = browser.new_page()
    page.goto(made.save_html(tmp_path / "page.html").as_uri())
    page.locator(".tx[data-frames]").wait_for()
    page.get_by_role("combobox", name="redraw").select_option("middle")
    painted(page)
    shown = pixels(page, 1)
    ready = torch.from_numpy(to_bytes(made._ready[0, 2])).int()
    for k in range(2):
        got = shown[:, k * 10 : k * 10 + 8, :1]
        assert (got - ready[k]).abs().max() <= 1
    assert page.get_by_role("combobox", name="redraw").locator("option").count() == wire.READY
    assert page.get_by_role("button").count() == 0
    assert page.get_by_role("slider").count() == 1
    assert "painting needs a kernel" in (page.get_by_role("status").text_content() or "")
    page.close()


def label(root, number: int) -> str:
    return root.locator("canvas").nth(number).get_attribute("aria-label") or ""


def completed(page, area: str) -> None:
    """Waits until the kernel has sent completions of an area to the end."""
    page.wait_for_function(
        """(area) => {
          const text = document.querySelector(".tx-line").textContent;
          return text.includes(area) && text.endsWith(": completed");
        }""",
        arg=area,
    )


def test_painting_by_mouse_finger_and_keyboard_is_completed(open_cells):
    notebook = open_cells("editing", SETUP, NOTEBOOK, "print(sum(explorer.mask), explorer.percent)")
    notebook.run_all()
    page, root = notebook.page, notebook.page.locator(".tx")
    completed(page, "lower half")
    root.get_by_role("button", name="Clear").click()
    completed(page, ", 0 % of it")
    canvas = root.locator("canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None

    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 180, box["y"] + 60, steps=3)
    page.mouse.up()
    completed(page, "redraw the masked part, 1")  # 11 %
    by_mouse = label(root, 0)

    # The keyboard: two sliders and a button.
    root.get_by_role("slider", name="row").fill("24")
    root.get_by_role("button", name="Paint").focus()
    page.keyboard.press("Enter")
    page.wait_for_function(
        "([canvas, before]) => canvas.ariaLabel !== before", arg=[canvas.element_handle(), by_mouse]
    )
    by_keyboard = label(root, 0)

    # A finger, as a touch screen reports it; what is painted at its place is erased.
    root.get_by_label("erase").check()
    canvas.evaluate(
        """(canvas) => {
          const { left, top } = canvas.getBoundingClientRect();
          canvas.setPointerCapture = () => {}; // which only knows pointers that are really there
          const at = { clientX: left + 60, clientY: top + 60, pointerId: 7, pointerType: "touch" };
          const down = { ...at, buttons: 1, bubbles: true };
          canvas.dispatchEvent(new PointerEvent("pointerdown", down));
        }"""
    )
    page.wait_for_function(
        "([canvas, before]) => canvas.ariaLabel !== before",
        arg=[canvas.element_handle(), by_keyboard],
    )

    slider = root.get_by_role("slider", name="strength")
    slider.fill("40")
    completed(page, "strength 0.40")
