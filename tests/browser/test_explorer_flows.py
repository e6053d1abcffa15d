"""What the flow explorer computes and shows in the browser, against the library's `flows.euler`."""

import re
from collections.abc import Callable, Iterator

import pytest
import torch
from jupyter_lab import painted
from playwright.sync_api import Browser, Page, expect
from torch import Tensor

from tests.browser.canvas import pixels
from tests.draws import seeded
from tutorial_lib import flows
from tutorial_lib.explorers import FlowExplorer
from tutorial_lib.explorers.flows import widget as _flows
from tutorial_lib.explorers.shared import wire
from tutorial_lib.oracles import GaussianMixtureOracle
from tutorial_lib.schedules import linear_schedule

F64 = torch.float64
ORANGE, GREEN = (0xAD, 0x45, 0x00), (0x00, 0x71, 0x4F)  # of a light page


def mixture(seed: int = 0) -> GaussianMixtureOracle:
    means = torch.tensor([[-1.9, 0.5], [1.0, 2.0], [0.0, -1.7], [2.0, 0.1]], dtype=F64)
    means = means + 0.2 * torch.randn(4, 2, generator=seeded(seed), dtype=F64)
    variances = torch.tensor([0.02, 0.03, 0.01, 0.015], dtype=F64)
    return GaussianMixtureOracle(
        linear_schedule(), means, variances, torch.tensor([1.0, 2.0, 0.5, 1.0])
    )


@pytest.fixture(scope="module")
def both() -> dict[str, _flows.PairedMixture]:
    """A flow, and the flow of pairs that it has joined."""
    flow = _flows.exact_flow(mixture())
    noise = torch.randn(150, 2, generator=seeded(1), dtype=F64)
    return {"learned": flow, "reflowed": _flows.reflowed(flow, noise, 0.05)}


def script(flow: _flows.PairedMixture) -> dict[str, list[float]]:
    """A flow as the script has it."""
    return {
        "data": flow.data.flatten().tolist(),
        "noise": flow.noise.flatten().tolist(),
        "dataVariance": flow.data_variance.tolist(),
        "noiseVariance": flow.noise_variance.tolist(),
        "weights": flow.weights.tolist(),
    }


@pytest.mark.parametrize("name", ["learned", "reflowed"])
def test_the_velocity_of_the_script_is_pythons(open_script, both, name):
    page = open_script(FlowExplorer._esm)
    x = torch.randn(5, 2, generator=seeded(2), dtype=F64) * 1.5
    time = torch.tensor([1.0, 0.9, 0.5, 0.1, 0.01], dtype=F64)
    got = page.evaluate(
        """([flow, xs, times]) => times.map((time, i) =>
          explorer.velocity(flow, xs[i][0], xs[i][1], time))""",
        [script(both[name]), x.tolist(), time.tolist()],
    )
    assert (torch.tensor(got, dtype=F64) - both[name](x, time)).abs().max() < 1e-7


@pytest.mark.parametrize("name", ["learned", "reflowed"])
def test_walks_of_the_script_are_the_librarys(open_script, both, name):
    page = open_script(FlowExplorer._esm)
    start = torch.tensor([[0.4, -0.9]], dtype=F64)
    for steps in (*wire.FLOW_STEPS, wire.MANY_STEPS):
        got = page.evaluate(
            "([flow, x, steps]) => Array.from(explorer.walk(flow, x, steps))",
            [script(both[name]), start[0].tolist(), steps],
        )
        times = torch.linspace(1, 0, steps + 1, dtype=F64)
        walk = flows.euler(both[name], start, times)
        expected = torch.cat([start, *(step.x for step in walk)]).flatten()
        assert (torch.tensor(got, dtype=F64) - expected).abs().max() < 1e-6


def test_crossings_are_counted_as_by_hand(open_script):
    page = open_script(FlowExplorer._esm)
    count = "(paths) => explorer.crossings(paths)"
    assert page.evaluate(count, [[0, 0, 2, 2], [0, 2, 2, 0]]) == 1
    assert page.evaluate(count, [[0, 0, 2, 2], [3, 3, 3, 0], [0, 1, 1, 2]]) == 0
    zigzag = [0, 1, 1, -1, 2, 1, 3, -1]
    assert page.evaluate(count, [[-1, 0, 5, 0], zigzag, [-1, 0.5, 5, 0.5]]) == 6
    paths = torch.randn(6, 5, 2, generator=seeded(3), dtype=F64)
    got = page.evaluate(count, paths.flatten(1).tolist())
    assert got == crossings(paths)
    assert got > 20


def crossings(paths: Tensor) -> int:
    """Crossings of paths (P, S, 2): two pieces meet at a + r d = b + s e with r and s in (0, 1)."""
    found = 0
    for p in range(len(paths)):
        for q in range(p):
            for a, to in zip(paths[p], paths[p, 1:], strict=False):
                for b, end in zip(paths[q], paths[q, 1:], strict=False):
                    r, s = torch.linalg.solve(torch.stack([to - a, b - end], 1), b - a).tolist()
                    found += 0 < r < 1 and 0 < s < 1
    return found


def test_between_steps_a_walk_is_on_the_straight_line(open_script):
    page = open_script(FlowExplorer._esm)
    states = [0, 0, 1, 2, 5, 2]
    for time, expected in (
        (1, [0, 0]),
        (0.75, [0.5, 1]),
        (0.5, [1, 2]),
        (0.25, [3, 2]),
        (0, [5, 2]),
    ):
        got = page.evaluate("([states, time]) => explorer.at(states, time)", [states, time])
        assert got == pytest.approx(expected)


@pytest.fixture
def open_page(browser: Browser, tmp_path) -> Iterator[Callable[[FlowExplorer], Page]]:
    """Opens the page that an explorer writes of itself; nothing may go wrong on it."""
    opened: list[Page] = []
    errors: list[str] = []

    def open_one(explorer: FlowExplorer) -> Page:
        page = browser.new_page(viewport={"width": 1000, "height": 800}, color_scheme="light")
        opened.append(page)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(explorer.save_html(tmp_path / "page.html").as_uri())
        page.locator(".tx[data-frames]").wait_for()
        return page

    yield open_one
    for page in opened:
        page.close()
    assert errors == []


def label(page: Page, number: int) -> str:
    return page.locator("canvas").nth(number).get_attribute("aria-label") or ""


@pytest.mark.parametrize(
    ("paths", "steps", "moment", "color"),
    [("learned", 2, 150, ORANGE), ("learned", 8, 0, ORANGE), ("reflowed", 1, 60, GREEN)],
)
def test_dots_are_where_the_librarys_walk_is(open_page, paths, steps, moment, color):
    points = torch.tensor([[1.3, -1.2], [-0.8, -0.4], [-1.2, 1.6]], dtype=F64)
    explorer = FlowExplorer(mixture(4), points, paths=paths, steps=steps, pairs=100)
    page = open_page(explorer)
    # A page's slider runs from noise on the left to data on the right.
    page.get_by_role("slider", name="time").fill(str(wire.MOMENTS - moment))
    time = moment / wire.MOMENTS
    expect(page.locator("canvas").first).to_have_attribute(
        "aria-label", re.compile(f"^time {time:.2f}:")
    )
    times = torch.linspace(1, 0, steps + 1, dtype=F64)
    x = points
    for before, step in zip(
        times, flows.euler(explorer._flows[paths], points, times), strict=False
    ):
        reached = max(step.time, time)
        x = x + (reached - float(before)) * step.velocity
        if step.time <= time:
            break
    shown = pixels(page, 0)
    places = (x * torch.tensor([1.0, -1.0]) / explorer.edge + 1) / 2 * 336 + 2  # of 340, margins 2
    for column, row in places.tolist():
        # A disc of radius 4: all that is within 2.5 of its center has its color.
        near = shown[round(row) - 1 : round(row) + 2, round(column) - 1 : round(column) + 2, :3]
        assert (near - torch.tensor(color)).abs().max() <= 2


def test_the_page_says_what_python_has_measured(open_page):
    explorer = FlowExplorer(mixture(5), 7, pairs=100)
    page = open_page(explorer)
    lines = torch.stack([explorer._starts, explorer._lines], 1)
    straight = label(page, 0)
    assert (
        f"7 straight lines from noise to data; as drawn, they cross {crossings(lines)}" in straight
    )
    for paths, flow in explorer._flows.items():
        title = wire.FLOW_PATHS[paths]
        page.get_by_role("combobox", name="show").select_option(title)
        measured = explorer._measured[paths]
        for i, steps in enumerate(wire.FLOW_STEPS):
            page.get_by_role("combobox", name="Euler steps").select_option(str(steps))
            plane = page.locator("canvas").first
            expect(plane).to_have_attribute("aria-label", re.compile(f"{title} in {steps} Euler"))
            said = label(page, 0)
            found = re.search(
                r"the steps end (\S+) from .*, (\d+)\s% on a cluster; straightness (\S+) \(", said
            )
            assert found, said
            error, share, straightness = map(float, found.groups())
            assert error == pytest.approx(measured.errors[i], rel=0.06)
            assert share == pytest.approx(100 * measured.shares[i], abs=0.5001)
            assert straightness == pytest.approx(measured.straightness, rel=0.06)
            assert f"With {steps}: learned" in label(page, 1)
        path = _flows.walk(flow, explorer._starts, wire.MANY_STEPS).transpose(0, 1)
        count = crossings_of_pieces(path)
        text = {0: "do not cross", 1: "cross once"}.get(count, f"cross {count} times")
        assert f"as drawn, the paths {text}" in label(page, 0)


def crossings_of_pieces(paths: Tensor) -> int:
    """As `crossings`, for long paths: all pieces of two paths at once, by Cramer's rule."""
    found = 0
    for p in range(len(paths)):
        for q in range(p):
            a, d = paths[p, :-1, None], paths[p].diff(dim=0)[:, None]
            b, e = paths[q, None, :-1], paths[q].diff(dim=0)[None]
            area = d[..., 0] * e[..., 1] - d[..., 1] * e[..., 0]
            between = b - a
            r = (between[..., 0] * e[..., 1] - between[..., 1] * e[..., 0]) / area
            s = (between[..., 0] * d[..., 1] - between[..., 1] * d[..., 0]) / area
            found += int(((r > 0) & (r < 1) & (s > 0) & (s < 1)).sum())
    return found


def test_play_goes_from_noise_to_data_and_stops(open_page):
    page = open_page(FlowExplorer(mixture(6), 3, time=0.03, pairs=50))
    page.get_by_role("button", name="Play").click()
    slider = page.get_by_role("slider", name="time")
    expect(slider).to_have_attribute("aria-valuetext", "time 0.00")
    page.get_by_role("button", name="Play").wait_for()
    slider.press("Home")
    expect(slider).to_have_attribute("aria-valuetext", "time 1.00")
    painted(page)
    assert label(page, 0).startswith("time 1.00: 3 straight lines")


def test_a_drag_with_the_mouse_moves_time(open_page):
    page = open_page(FlowExplorer(mixture(7), 3, pairs=50))
    slider = page.get_by_role("slider", name="time")
    box = slider.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.5 * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] + 30, y, steps=4)
    page.mouse.up()
    expect(slider).to_have_attribute("aria-valuetext", "time 0.00")
    expect(page.locator("canvas").first).to_have_attribute("aria-label", re.compile("^time 0.00"))
