"""Every explorer in a real JupyterLab: dragged, keyed, read aloud, re-run, reloaded, exported."""

import json
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from axe_playwright_python.sync_playwright import Axe
from explorer_cases import ALONE, CASES, DRAGGED, SETUP, make
from jupyter_lab import RUN_CELL, in_time, painted
from playwright.sync_api import Browser, Locator, Page

RERUNS = {"playground": 20}  # of the explorer with the most to leave behind; 9 of the others
OTHERS = [name for name in CASES if name != "playground"]
RERUN_TOGETHER = [["playground"], OTHERS[:4], OTHERS[4:8], OTHERS[8:]]  # in one notebook each
MOST_RERUNS = 50
"""Runs of one explorer, until the page has settled."""
LARGEST_NOTEBOOK = 2_000_000  # bytes, with the widget's saved state
PAINTED = "([root, before]) => +root.dataset.frames > before"
# Two sums over the pixels of all canvases: any change of a picture changes them.
PICTURE = """root => [...root.querySelectorAll("canvas")].map((canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let sum = 0;
  for (let i = 0; i < data.length; i++) sum = (sum * 31 + data[i]) | 0;
  return sum;
})"""
# The theme's name, and its style sheet, which arrives later.
WEARS = """light => {
  const ground = getComputedStyle(document.querySelector(".tx")).backgroundColor;
  const [r, g, b] = ground.match(/[\\d.]+/g).map(Number);
  return document.body.dataset.jpThemeLight === String(light) && (r + g + b > 384) === light;
}"""
NAMES = """root => [...root.querySelectorAll("input, select, button, canvas")].map((node) => ({
  what: node.tagName + (node.type ? `[${node.type}]` : ""),
  name: node.getAttribute("aria-label") || node.labels?.[0]?.textContent.trim()
    || (node.tagName === "BUTTON" && node.textContent.trim()) || "",
  value: node.type === "range" ? node.getAttribute("aria-valuetext") : "none needed",
  role: node.getAttribute("role"),
}))"""


def view(notebook, number: int = 0) -> Locator:
    """The explorer that the cell shows, once it has painted."""
    root = notebook.page.locator(".tx").nth(number)
    root.wait_for()
    notebook.page.wait_for_function("root => +root.dataset.frames > 0", arg=root.element_handle())
    return root


def picture(root: Locator) -> list[int]:
    return root.evaluate(PICTURE)


def slider(root: Locator, name: str) -> Locator:
    return root.get_by_role("slider", name=DRAGGED[name])


def after_painting(root: Locator, act: Callable[[], object]) -> list[int]:
    """The picture that follows `act`, which must make the explorer paint."""
    before = int(root.get_attribute("data-frames") or 0)
    act()
    arguments = [root.element_handle(), before]
    root.page.wait_for_function(PAINTED, arg=arguments)
    painted(root.page)  # also what `act` did last
    return picture(root)


def drag(root: Locator, name: str, start: float, end: float, steps: int = 10) -> None:
    """Drags the main slider between two places of its width."""
    handle = slider(root, name)
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    assert box is not None
    x, y = (lambda share: box["x"] + share * box["width"]), box["y"] + box["height"] / 2
    mouse = root.page.mouse
    mouse.move(x(start), y)
    mouse.down()
    mouse.move(x(end), y, steps=steps)
    mouse.up()


@pytest.fixture(scope="module")
def shown(open_for_all):
    """A notebook that shows every explorer, and where each one is."""
    notebook = open_for_all("explorers", SETUP, *CASES.values())
    notebook.run_all()
    for number in range(len(CASES)):
        view(notebook, number)
    return notebook


@pytest.fixture(params=CASES)
def explorer(request, shown) -> tuple[str, Locator]:
    """Each explorer's name and its view."""
    return request.param, view(shown, list(CASES).index(request.param))


def test_dragging_changes_the_picture(explorer):
    name, root = explorer
    before = picture(root)
    assert any(before), "nothing is painted"
    after = after_painting(root, lambda: drag(root, name, 0.2, 0.7))
    assert after != before


def test_every_slider_obeys_the_keyboard(explorer):
    _, root = explorer
    for handle in root.locator("input[type=range]:not(:disabled)").all():
        label = handle.evaluate("node => node.labels[0].textContent")
        before = handle.input_value()
        handle.focus()
        handle.press("Home")
        # The text is made from the value in the model, so an unlinked slider keeps its text.
        assert says_other_things(handle, "End"), label
        handle.press("Home")
        low = handle.input_value()
        handle.press("ArrowRight")
        assert handle.input_value() != low, label
        assert handle.evaluate("node => node === document.activeElement"), label
        handle.fill(before)  # the other tests find what they know


def says_other_things(handle: Locator, key: str) -> bool:
    """Whether a screen reader says something else of a slider once `key` is pressed."""
    painted(handle.page)
    text = handle.get_attribute("aria-valuetext")
    handle.press(key)
    painted(handle.page)
    return handle.get_attribute("aria-valuetext") != text


def test_every_choice_changes_what_is_shown(explorer):
    name, root = explorer
    if name == "playground":
        pytest.skip("its choices are for the next walk; see test_explorer_playground.py")
    drag(root, name, 0.2, 0.5)  # at t = 0 all schedules are alike
    for choice in root.locator("select:not(:disabled)").all():
        label = choice.evaluate("node => node.labels[0].textContent")
        for index in (*range(1, choice.locator("option").count()), 0):
            if choice.evaluate("node => node.selectedIndex") == index:
                continue
            before = shows(root)
            after_painting(root, partial(choice.select_option, index=index))
            assert shows(root) != before, f"{label}: option {index} changes nothing"


def shows(root: Locator) -> tuple:
    """The pictures, and what they and the lines of text say."""
    labels = "root => [...root.querySelectorAll('canvas')].map(c => c.getAttribute('aria-label'))"
    return picture(root), root.evaluate(labels), root.inner_text()


def test_tab_reaches_every_control(explorer):
    _, root = explorer
    reached = """([root, active]) => root.contains(active)
      ? [...root.querySelectorAll("input, select, button")].indexOf(active) : -1"""
    controls = "root => [...root.querySelectorAll('input, select, button')].map(n => !n.disabled)"
    enabled = {i for i, on in enumerate(root.evaluate(controls)) if on}
    root.locator("input, select, button").first.focus()
    found = set()
    for _ in range(len(enabled) + 2):
        active = root.page.evaluate_handle("document.activeElement")
        found.add(root.page.evaluate(reached, [root.element_handle(), active]))
        root.page.keyboard.press("Tab")
    assert enabled <= found


def test_everything_has_a_name_and_a_value(explorer):
    _, root = explorer
    for part in root.evaluate(NAMES):
        assert part["name"], f"{part['what']} has no accessible name"
        assert part["value"], f"{part['what']} {part['name']} has no value text"
        if part["what"] == "CANVAS":
            assert part["role"] == "img"


def test_the_picture_says_what_it_shows_now(explorer):
    name, root = explorer
    labels = "root => [...root.querySelectorAll('canvas')].map(c => c.getAttribute('aria-label'))"
    after_painting(root, lambda: drag(root, name, 0.6, 0.1))
    before = root.evaluate(labels)
    after_painting(root, lambda: drag(root, name, 0.1, 0.8))
    assert root.evaluate(labels) != before


def test_it_fits_the_column(explorer):
    _, root = explorer
    wide, room = root.evaluate("root => [root.scrollWidth, root.clientWidth]")
    assert wide <= room


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_axe_finds_nothing_serious(shown, theme):
    page = shown.page
    page.evaluate("t => jupyterapp.commands.execute('apputils:change-theme', {theme: t})", theme)
    page.wait_for_function(WEARS, arg="Light" in theme)
    painted(page)
    for number, name in enumerate(CASES):
        view(shown, number).evaluate("(root, name) => { root.id = `explorer-${name}`; }", name)
    found = Axe().run(page, context={"include": [[".tx"]]}).response["violations"]
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    told = [(v["id"], [node["html"][:120] for node in v["nodes"]]) for v in serious]
    suffix = "-light" if "Light" in theme else "-dark"
    shown.screenshot(suffix)
    assert serious == [], json.dumps(told, indent=1)


def test_it_moves_while_the_kernel_is_busy(explorer, shown):
    name, root = explorer
    with shown.deaf_kernel():
        before = picture(root)
        assert after_painting(root, lambda: drag(root, name, 0.7, 0.3)) != before


def test_two_copies_do_not_move_each_other(open_cells):
    notebook = open_cells("two-copies", SETUP, CASES["forward"], CASES["forward"])
    notebook.run_all()
    first, second = view(notebook, 0), view(notebook, 1)
    before = picture(second)
    after_painting(first, lambda: drag(first, "forward", 0.1, 0.8))
    assert picture(second) == before


def test_of_two_views_of_one_explorer_the_last_that_is_moved_leads(open_cells):
    """Also where neither has yet told the kernel of its values."""
    notebook = open_cells(
        "two-views", SETUP, "shown = explorers.EmbeddingExplorer()\nshown", "shown"
    )
    notebook.run_all()
    handles = [slider(view(notebook, number), "embedding") for number in range(2)]
    page, nodes = notebook.page, [handle.element_handle() for handle in handles]
    move = """([nodes, moves]) => {
      for (const [view, value] of moves) {
        nodes[view].value = value;
        nodes[view].dispatchEvent(new Event("input", { bubbles: true }));
      }
    }"""
    for moves in ([[0, 300], [1, 500], [0, 700]], [[0, 200], [1, 400]]):
        page.evaluate(move, [nodes, moves])
        last = str(moves[-1][1])
        # A view's value reaches the kernel after those that it echoes: what the kernel sends
        # because of them is here before its answer to the question.
        assert in_time(lambda last=last: notebook.ask("print(shown.t)").strip() == last)
        painted(page)
        assert [handle.input_value() for handle in handles] == [last, last]


@pytest.mark.long("explorers are run again dozens of times")
@pytest.mark.parametrize("names", RERUN_TOGETHER, ids=" and ".join)
def test_run_again_many_times_saved_and_reloaded(open_cells, lab, names):
    file = f"again-{names[0]}"
    notebook = open_cells(file, SETUP, *(CASES[name] for name in names))
    notebook.run_all()
    for number, name in enumerate(names):
        view(notebook, number)
        counts, steady = [], False
        while not steady:
            counts.append(listeners_after_a_rerun(notebook, number + 1, len(names)))
            assert len(counts) <= MOST_RERUNS, f"{name}: listeners after each run: {counts}"
            # The page itself adds some, above all at first, and removes some now and then. What a
            # view leaves behind is added each time, so with a leak this never ends.
            added = [after - before for before, after in pairwise(counts[-7:])]
            grows = statistics.median(added or [1]) > 0 and sum(added) >= len(added)
            steady = len(counts) >= RERUNS.get(name, 9) and not grows

    notebook.page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    sizes = bytes_saved(lab.notebooks / f"{file}.ipynb")
    assert len(sizes) == len(names), "each cell has its one explorer in the notebook"
    for name, size in zip(names, sizes, strict=True):
        assert size < LARGEST_NOTEBOOK, f"{name}: {size:,} bytes saved"

    notebook.page.reload()
    drag_each(notebook, names, 0.2, 0.9)
    notebook.restart_kernel()
    notebook.run_all()
    drag_each(notebook, names, 0.9, 0.2)


def listeners_after_a_rerun(notebook, cell: int, explorers: int) -> int:
    """Runs a cell again; how many event listeners the page then has, which shows so many."""
    page = notebook.page
    page.evaluate(RUN_CELL, cell)
    page.wait_for_function(
        "count => document.querySelectorAll('.tx').length === count", arg=explorers
    )
    view(notebook, cell - 1)
    client = page.context.new_cdp_session(page)
    client.send("Performance.enable")
    client.send("HeapProfiler.collectGarbage")
    metrics = client.send("Performance.getMetrics")["metrics"]
    client.detach()
    return next(int(m["value"]) for m in metrics if m["name"] == "JSEventListeners")


def bytes_saved(path: Path) -> list[int]:
    """How many bytes of a saved notebook are due to each of its explorers: cell and state."""
    notebook = nbformat.read(path, as_version=4)
    saved = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    left = {model for model, state in saved.items() if state["model_name"] == "AnyModel"}
    sizes = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if shown := output.get("data", {}).get("application/vnd.jupyter.widget-view+json"):
                left.remove(shown["model_id"])  # of earlier runs nothing is left
                sizes.append(len(json.dumps([cell, saved[shown["model_id"]]])))
    assert not left, f"{len(left)} explorers are saved that no cell shows"
    layouts = sum(state["model_name"] == "LayoutModel" for state in saved.values())
    assert layouts == len(sizes), "of earlier runs no layout is left either"
    return sizes


def drag_each(notebook, names: Sequence[str], start: float, end: float) -> None:
    """Drags the main slider of each; the picture must follow."""
    for number, name in enumerate(names):
        root = view(notebook, number)
        before = picture(root)
        assert after_painting(root, partial(drag, root, name, start, end)) != before, name


@pytest.mark.parametrize("name", ALONE)
def test_a_page_of_its_own(browser, tmp_path, name):
    path = make(name).save_html(tmp_path / "explorer.html")
    page: Page = browser.new_page()
    errors: list[str] = []
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda r: errors.append(r.url) if r.url.startswith("http") else None)
    page.goto(path.as_uri())
    root = page.locator(".tx[data-frames]")
    root.wait_for()
    before = picture(root)
    assert after_painting(root, lambda: drag(root, name, 0.1, 0.8)) != before
    found = Axe().run(page).response["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
    page.close()
    assert errors == []


UNLINKED = "addEventListener('{}', (event) => event.stopImmediatePropagation(), true)"
THROWING = """() => {
  const fail = () => { throw new Error("planted"); };
  Object.assign(CanvasRenderingContext2D.prototype, { putImageData: fail, drawImage: fail });
}"""


@pytest.mark.parametrize(
    ("fault", "moves", "speaks", "expected"),
    [
        (None, True, True, []),
        (UNLINKED.format("input"), False, False, []),
        (THROWING, False, True, ["planted"]),
    ],
    ids=["none", "a slider that is not linked", "a painter that throws"],
)
def test_a_planted_fault_is_seen(browser, tmp_path, fault, moves, speaks, expected):
    """The tests above can fail: with a fault the picture stays as it was, or the words do."""
    root, errors = forward_page(browser, tmp_path, fault)
    before = picture(root)
    drag(root, "forward", 0.1, 0.8)
    painted(root.page)
    assert (picture(root) != before) == moves
    handle = slider(root, "forward")
    handle.press("Home")
    assert says_other_things(handle, "End") == speaks
    assert sorted(set(errors)) == expected
    root.page.close()


@pytest.mark.parametrize("fault", [None, UNLINKED.format("change")], ids=["none", "not linked"])
def test_a_planted_fault_in_a_choice_is_seen(browser, tmp_path, fault):
    root, _ = forward_page(browser, tmp_path, fault)
    drag(root, "forward", 0.2, 0.5)  # at t = 0 all schedules are alike
    painted(root.page)
    before = shows(root)
    root.get_by_label("schedule").select_option(index=1)
    painted(root.page)
    assert (shows(root) != before) == (fault is None)
    root.page.close()


def forward_page(browser: Browser, folder, fault: str | None) -> tuple[Locator, list[str]]:
    """The forward explorer on its own page, a fault planted once it is shown, and its errors."""
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(error.message))
    page.goto(make("forward").save_html(folder / "page.html").as_uri())
    root = page.locator(".tx[data-frames]")
    root.wait_for()
    if fault:
        page.evaluate(fault)
    return root, errors
