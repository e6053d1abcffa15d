"""The playground in a real JupyterLab: drawn on, trained, watched, stopped, left alone."""

import re

import numpy as np
import pytest
import torch
from explorer_cases import SETUP
from jupyter_lab import KERNEL, RUN_CELL, in_time, painted
from playwright.sync_api import Locator, Page, expect

from tutorial_lib import explorers
from tutorial_lib.explorers.playground import points as _points
from tutorial_lib.explorers.shared import wire
from tutorial_lib.forward import diffuse
from tutorial_lib.schedules import linear_schedule

SHOW = "playground = explorers.Playground()\nplayground"
# What a later cell sees of it, as text in that cell's output.
ASK = """
import threading
alive = [thread.name for thread in threading.enumerate() if thread.name == "playground"]
print(f"points {len(playground.points)}, threads {len(alive)}")
"""


@pytest.fixture(scope="module")
def notebook(open_for_all):
    return open_for_all("playground", SETUP, SHOW)


@pytest.fixture
def shown(notebook):
    """A notebook with a new playground, and its view once the kernel has answered."""
    notebook.page.emulate_media(reduced_motion="no-preference")
    notebook.run_all()
    return notebook, view(notebook.page)


def view(page: Page) -> Locator:
    root = page.locator(".tx").first
    root.wait_for()
    expect(status(root)).to_contain_text("press Train")
    return root


def status(root: Locator) -> Locator:
    return root.get_by_role("status")


def plane(root: Locator) -> Locator:
    return root.locator("canvas").first


def press(root: Locator, name: str) -> None:
    root.get_by_role("button", name=name, exact=True).click()


def choose(root: Locator, label: str, option: str) -> None:
    root.get_by_role("combobox", name=label).select_option(option)


def count(root: Locator) -> int:
    """How many points the plane says that it shows."""
    found = re.match(r"(\d+) data points", plane(root).get_attribute("aria-label") or "")
    assert found
    return int(found[1])


def expect_points(root: Locator, number: int) -> None:
    expect(plane(root)).to_have_attribute("aria-label", re.compile(f"^{number} data points"))


def trained(root: Locator, seconds: str = "2 seconds") -> None:
    choose(root, "for", seconds)
    press(root, "Train")
    expect(status(root)).to_contain_text("Trained for")
    expect(status(root)).to_contain_text("Play, or drag t")


def near(canvas: Locator) -> int:
    """The share of particles near the data, in percent, as the canvas says it."""
    found = re.search(r"; (\d+) % lie near the data", canvas.get_attribute("aria-label") or "")
    assert found
    return int(found[1])


# Counts what widgets here and in the kernel tell each other, from now on.
COUNT_MESSAGES = f"""() => {{
  window.messages = {{ send: 0, recv: 0 }};
  {KERNEL}.anyMessage.connect((_, {{ msg, direction }}) => {{
    if (msg.header.msg_type === "comm_msg") messages[direction]++;
  }});
}}"""


def no_threads(notebook) -> bool:
    return notebook.ask(ASK).strip().endswith("threads 0")


def kernel_has_heard(notebook, root: Locator) -> bool:
    """Whether the kernel has as many points as the plane shows: it hears once drawing has ended."""
    ask = "print(len(playground.points))"
    return in_time(lambda: int(notebook.ask(ask)) == count(root))


def test_trains_and_the_particles_flow_back_to_the_data(shown):
    notebook, root = shown
    choose(root, "points", "eight blobs")
    choose(root, "walk back by", "DDIM, 50 steps")
    root.get_by_role("checkbox", name="exact oracle").check()
    expect(status(root)).to_contain_text("Play, or drag t")  # the oracle needs no training
    trained(root, "10 seconds")
    press(root, "Pause")
    network, oracle = root.locator("canvas").nth(0), root.locator("canvas").nth(1)
    slider = root.get_by_role("slider", name="timestep t")
    slider.press("End")
    expect(network).to_have_attribute("aria-label", re.compile("at t = 1000;"))
    assert max(near(network), near(oracle)) < 40  # noise
    slider.press("Home")
    expect(network).to_have_attribute("aria-label", re.compile("network, DDIM.* at t = 0;"))
    expect(oracle).to_have_attribute("aria-label", re.compile("oracle, DDIM.* at t = 0;"))
    assert near(oracle) == 100  # the exact answer ends on members of the data
    assert near(network) > 50
    assert "loss" in (root.locator("canvas").nth(2).get_attribute("aria-label") or "").lower()
    assert notebook.ask(ASK).strip() == "points 400, threads 0"
    code = "x = torch.randn(5, 2); print(playground.model(x, torch.full((5,), 100)).shape)"
    assert notebook.ask(code).strip() == "torch.Size([5, 2])"
    root.get_by_role("checkbox", name="paths of 20").check()
    slider.press("PageUp")
    notebook.screenshot("-trained")


@pytest.mark.parametrize("kind", ["mouse", "touch"])
def test_points_are_drawn_where_the_pointer_goes(shown, kind):
    notebook, root = shown
    press(root, "Clear")
    expect_points(root, 0)
    canvas = plane(root)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    # the plane ends 26 pixels from the left, 8 from the right, 6 from the top, 20 from the bottom
    inner = (box["x"] + 26, box["y"] + 6, box["width"] - 34, box["height"] - 26)

    def place(x: float, y: float) -> tuple[float, float]:
        left, top, wide, high = inner
        return left + (x + 3) / 6 * wide, top + (3 - y) / 6 * high

    start, end = place(-2, 1), place(2, 1)
    if kind == "mouse":
        root.page.mouse.move(*start)
        root.page.mouse.down()
        root.page.mouse.move(*end, steps=8)
        root.page.mouse.up()
    else:
        client = root.page.context.new_cdp_session(root.page)
        for name, spots in (
            ("touchStart", [start]),
            *(("touchMove", [place(-2 + i / 2, 1)]) for i in range(1, 9)),
            ("touchEnd", []),
        ):
            points = [{"x": x, "y": y} for x, y in spots]
            client.send("Input.dispatchTouchEvent", {"type": name, "touchPoints": points})
        client.detach()
    assert in_time(lambda: count(root) > 40)
    assert kernel_has_heard(notebook, root)
    code = "p = playground.points; print(*p.mean(0).tolist(), *p.std(0).tolist())"
    mean_x, mean_y, spread_x, spread_y = map(float, notebook.ask(code).split())
    assert abs(mean_x) < 0.25
    assert abs(mean_y - 1) < 0.05  # a line at y = 1
    assert spread_x > 0.9
    assert spread_y < 0.12


def test_no_point_is_lost_when_the_kernel_answers_amid_a_stroke(shown):
    """The kernel echoes what it is told; by then more has been drawn."""
    notebook, root = shown
    page, canvas = root.page, plane(root)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    left, right, y = box["x"] + 60, box["x"] + box["width"] - 60, box["y"] + box["height"] / 2

    def move(*tenths: float) -> None:
        for tenth in tenths:
            page.mouse.move(left + (right - left) * tenth / 10, y, steps=6)

    def begin() -> None:
        press(root, "Clear")
        expect_points(root, 0)
        assert kernel_has_heard(notebook, root)
        page.mouse.move(left, y)
        page.mouse.down()

    def end() -> int:
        page.mouse.move(right, y)
        page.mouse.up()
        painted(page)
        drawn = count(root)
        assert drawn > 40
        assert kernel_has_heard(notebook, root)
        assert count(root) == drawn
        return drawn

    begin()
    move(*range(1, 10))
    whole = end()

    begin()
    page.evaluate(COUNT_MESSAGES)
    with notebook.deaf_kernel():
        move(1, 2, 3)
        page.wait_for_function("() => messages.send")  # the kernel is told so far
        move(4)
    for step in range(500):  # until the kernel's echo has come, and a little longer
        move(4 + step / 100)
        if page.evaluate("() => messages.recv"):
            break
    move(9)
    assert end() == whole


def test_the_keyboard_alone_draws_trains_and_stops(shown):
    notebook, root = shown
    page = root.page
    root.get_by_role("button", name="Clear").focus()
    page.keyboard.press("Enter")
    x, y = (root.get_by_role("slider", name=f"cursor {axis}") for axis in "xy")
    x.focus()
    page.keyboard.press("Home")
    y.focus()
    for _ in range(10):
        page.keyboard.press("ArrowUp")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")  # Add points
    assert root.get_by_role("button", name="Add points").evaluate(
        "node => node === document.activeElement"
    )
    page.keyboard.press("Space")
    expect_points(root, 50)
    assert kernel_has_heard(notebook, root)
    where = notebook.ask("print(*playground.points.mean(0).tolist())").split()
    assert abs(float(where[0]) + 2.9) < 0.15
    assert abs(float(where[1]) - 1.0) < 0.1
    choose(root, "for", "30 seconds")
    root.get_by_role("button", name="Train").focus()
    page.keyboard.press("Enter")
    stop = root.get_by_role("button", name="Stop", exact=True)
    expect(stop).to_be_focused()
    expect(plane(root)).to_have_attribute("aria-label", re.compile(r"network after \d+ steps"))
    page.keyboard.press("Enter")
    expect(status(root)).to_contain_text("Play, or drag t")
    assert no_threads(notebook)


def test_it_says_so_when_the_kernel_is_busy_and_goes_on_afterwards(shown):
    notebook, root = shown
    train = root.get_by_role("button", name="Train")
    choose(root, "for", "2 seconds")
    choose(root, "walk back by", "DDIM, 10 steps")
    with notebook.deaf_kernel():
        press(root, "Train")
        expect(status(root)).to_contain_text("No answer from the kernel")
        expect(train).to_have_attribute("aria-disabled", "true")
        before = count(root)
        press(root, "Add points")  # drawing needs no kernel
        expect_points(root, before + 25)
    expect(status(root)).to_contain_text("Play, or drag t")
    expect(train).to_have_attribute("aria-disabled", "false")


def test_a_cell_that_is_run_again_while_it_trains_leaves_no_thread(shown):
    notebook, root = shown
    for _ in range(3):
        choose(root, "for", "30 seconds")
        press(root, "Train")
        expect(root.get_by_role("button", name="Stop", exact=True)).to_be_visible()
        notebook.page.evaluate(RUN_CELL, 1)
        root = view(notebook.page)
    notebook.page.wait_for_function("() => document.querySelectorAll('.tx').length === 1")
    assert in_time(lambda: no_threads(notebook))
    notebook.page.evaluate("() => jupyterapp.commands.execute('notebook:clear-cell-output')")


def test_the_kernel_is_restarted_while_it_trains(shown):
    notebook, root = shown
    choose(root, "for", "30 seconds")
    press(root, "Train")
    expect(root.get_by_role("button", name="Stop", exact=True)).to_be_visible()
    notebook.restart_kernel()
    expect(status(root)).to_contain_text("No word from the kernel")
    root.get_by_role("button", name="Stop", exact=True).click(force=True)  # does nothing
    press(root, "Add points")
    notebook.run_all()
    root = view(notebook.page)
    trained(root)


def test_the_kernel_is_restarted_before_it_trains(shown):
    notebook, root = shown
    notebook.restart_kernel()
    press(root, "Train")
    expect(status(root)).to_contain_text("No answer from the kernel")
    before = count(root)
    press(root, "Add points")  # drawing goes on
    expect_points(root, before + 25)


def test_the_page_is_reloaded_and_shows_what_was_trained(shown):
    notebook, root = shown
    page = notebook.page
    page.emulate_media(reduced_motion="reduce")
    choose(root, "walk back by", "DDIM, 10 steps")
    trained(root)
    assert root.get_by_role("slider", name="timestep t").input_value() == "0"  # no motion unasked
    expect(root.get_by_role("button", name="Play", exact=True)).to_be_visible()
    page.evaluate("() => jupyterapp.commands.execute('docmanager:save')")
    page.reload()
    root = page.locator(".tx").first
    root.wait_for()
    expect(status(root)).to_contain_text("Trained for")
    slider = root.get_by_role("slider", name="timestep t")
    slider.press("End")
    expect(plane(root)).to_have_attribute("aria-label", re.compile("network, DDIM, 10 steps"))


def test_two_copies_train_by_themselves(open_cells):
    notebook = open_cells("two-playgrounds", SETUP, SHOW, SHOW)
    notebook.run_all()
    page = notebook.page
    first, second = page.locator(".tx").nth(0), page.locator(".tx").nth(1)
    expect(status(second)).to_contain_text("press Train")
    choose(first, "walk back by", "DDIM, 10 steps")
    trained(first)
    assert "press Train" in (status(second).text_content() or "")
    assert "network" not in (plane(second).get_attribute("aria-label") or "")


@pytest.mark.parametrize("t", [0, 1, 37, 500, 999, 1000])
def test_positions_and_shares_are_those_of_torch(open_script, t):
    """The script's arithmetic against torch: between the steps, near the data, noised."""
    generator = torch.Generator().manual_seed(t)
    steps, count = [1000, 980, 500, 36, 0], 50
    states = torch.randint(-9000, 9000, (len(steps), 2 * count), generator=generator)
    points = torch.randint(-9000, 9000, (2 * 30,), generator=generator)
    page = open_script(explorers.Playground._esm)
    found = page.evaluate(
        """([steps, states, points, t]) => {
          const out = new Float32Array(states.length / steps.length);
          explorer.between(out, { steps, states: Int16Array.from(states) }, t);
          const near = explorer.shareNear(out, Int16Array.from(points), 0.3);
          return { out: [...out], near };
        }""",
        [steps, states.flatten().tolist(), points.tolist(), t],
    )
    wanted = [
        np.interp(t, steps[::-1], column.tolist()[::-1]) / wire.EPS_SCALE for column in states.T
    ]
    np.testing.assert_allclose(found["out"], wanted, atol=1e-5)
    xs = torch.tensor(found["out"]).reshape(-1, 2)
    share = _points.share_near(xs, points.reshape(-1, 2) / wire.EPS_SCALE, 0.3)
    assert found["near"] == pytest.approx(share)
    assert 0 < share < 1


def test_the_noised_data_are_those_of_the_jump(open_script):
    points = torch.randint(-9000, 9000, (30, 2), generator=torch.Generator().manual_seed(0))
    eps = torch.randn(50, 2, generator=torch.Generator().manual_seed(1))
    schedule = linear_schedule()
    page = open_script(explorers.Playground._esm)
    found = page.evaluate(
        """([points, eps, bar]) => [...explorer.noisedPoints(new Float32Array(eps.length),
          Int16Array.from(points), eps, bar)]""",
        [points.flatten().tolist(), eps.flatten().tolist(), float(schedule.alpha_bar[300])],
    )
    x0 = (points / wire.EPS_SCALE).repeat(2, 1)[:50]
    wanted = diffuse(schedule, x0, torch.full((50,), 300), eps)
    torch.testing.assert_close(torch.tensor(found).reshape(50, 2), wanted, atol=1e-5, rtol=0)
