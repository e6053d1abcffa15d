"""What the explorers of lessons 4 and 6 show in their own pages, pixel by pixel, against torch."""

from collections.abc import Callable, Iterator

import pytest
import torch
from jupyter_lab import painted
from playwright.sync_api import Browser, Page
from torch import Tensor

from tests.browser.canvas import pixels
from tutorial_lib import schedules
from tutorial_lib.explorers import (
    EmbeddingExplorer,
    ReceptiveFieldExplorer,
    TrajectoryExplorer,
)
from tutorial_lib.explorers.receptive.widget import receptive_fields
from tutorial_lib.explorers.shared.base import Explorer
from tutorial_lib.images import to_bytes
from tutorial_lib.networks.unet import TwoLevelUNet, timestep_embedding
from tutorial_lib.oracles import DatasetOracle
from tutorial_lib.samplers import ddim, ddpm, evenly_spaced

SET = """([node, value]) => {
  node.value = value;
  node.dispatchEvent(new Event("input", { bubbles: true }));
}"""


@pytest.fixture
def open_page(browser: Browser, tmp_path) -> Iterator[Callable[[Explorer], Page]]:
    """Opens the page that an explorer writes of itself; nothing may go wrong on it."""
    opened: list[Page] = []
    errors: list[str] = []

    def open_one(explorer: Explorer) -> Page:
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        opened.append(page)
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(explorer.save_html(tmp_path / "explorer.html").as_uri())
        page.wait_for_selector(".tx[data-frames]")
        return page

    yield open_one
    for page in opened:
        page.close()
    assert errors == []


def label(page: Page, number: int) -> str:
    return page.locator("canvas").nth(number).get_attribute("aria-label") or ""


def set_slider(page: Page, name: str, place: float) -> None:
    """Puts a slider where a hand would have put it, and waits for the painting."""
    root = page.locator(".tx")
    before = int(root.get_attribute("data-frames") or 0)
    handle = page.get_by_role("slider", name=name).element_handle()
    page.evaluate(SET, [handle, place])
    page.wait_for_function(
        "before => +document.querySelector('.tx').dataset.frames > before", arg=before
    )


def ramp(share: Tensor) -> Tensor:
    """The colors of the script for shares in [0, 1], (..., 3)."""
    dark, light = torch.tensor([10.0, 30, 90]), torch.tensor([255.0, 234, 70])
    return dark + share[..., None] * (light - dark)


@pytest.mark.parametrize(("dim", "base"), [(64, 10000), (4, 10), (128, 100000)])
def test_the_embedding_of_the_script_is_the_librarys(open_script, dim, base):
    page = open_script(EmbeddingExplorer._esm)
    steps = [0, 1, 2, 250, 999, 1000]
    got = page.evaluate(
        """([steps, dim, base]) => steps.map((t) => {
          const out = new Float32Array(dim);
          explorer.embed(out, t, explorer.speeds(dim, base));
          return Array.from(out);
        })""",
        [steps, dim, base],
    )
    expected = timestep_embedding(torch.tensor(steps), dim, float(base))
    assert (torch.tensor(got) - expected).abs().max() < 5e-4  # float32 angles up to 1000
    similar = page.evaluate(
        "([dim, base]) => Array.from(explorer.similarity(1000, explorer.speeds(dim, base)))",
        [dim, base],
    )
    table = timestep_embedding(torch.arange(1001), dim, float(base))
    assert (torch.tensor(similar) - table @ table[0] / (dim / 2)).abs().max() < 5e-4


def test_the_heat_map_shows_the_librarys_embedding(open_page):
    T, dim = 99, 16
    page = open_page(EmbeddingExplorer(T, dim=dim, max_period=1000))
    left, top, right, bottom = 42, 6, 386, 178  # of the chart's axes
    for t in (0, 60):
        set_slider(page, "timestep t", t)
        shown = pixels(page, 1)
        table = timestep_embedding(torch.arange(T + 1), dim, 1000.0)
        worst = torch.tensor(0.0)
        for step in range(0, T + 1, 7):
            # rows of the picture run from T above to 0 below, each (bottom - top) / 100 high
            y = int(bottom - (step + 0.5) / (T + 1) * (bottom - top))
            if abs(y - (bottom - (t + 0.5) / (T + 1) * (bottom - top))) < 5:
                continue  # under the line that marks t
            for entry in range(dim):
                x = int(left + (entry + 0.5) / dim * (right - left))
                expected = ramp((table[step, entry] + 1) / 2)
                worst = torch.maximum(worst, (shown[y, x, :3] - expected).abs().max())
        assert worst <= 1
    assert "t = 60" in label(page, 0)


def test_the_heat_map_near_t_shows_a_row_for_each_step(open_page):
    T, dim, t = 1000, 8, 640
    page = open_page(EmbeddingExplorer(T, dim=dim, t=t))
    page.get_by_label("only the 100 steps around t").check()
    page.wait_for_function(
        "() => document.querySelectorAll('canvas')[1].ariaLabel.includes('590 to 690')"
    )
    shown = pixels(page, 1)
    left, top, right, bottom = 42, 6, 386, 178
    table = timestep_embedding(torch.arange(T + 1), dim)
    for step in (590, 600, 620, 660, 690):
        y = int(bottom - (step - 590 + 0.5) / 101 * (bottom - top))
        for entry in range(dim):
            x = int(left + (entry + 0.5) / dim * (right - left))
            # rows are 1.7 pixels high: the middle of one may fall on its neighbor
            near = ramp((table[step - 1 : step + 2, entry] + 1) / 2)
            assert (shown[y, x, :3] - near).abs().amax(1).min() <= 1
    assert "similarity" in label(page, 2).lower()


def test_bars_are_as_high_as_the_embedding(open_page):
    dim, t = 8, 77
    page = open_page(EmbeddingExplorer(500, dim=dim, t=t))
    shown = pixels(page, 0)
    top, bottom, left, right = 6, 112, 42, 386
    embedding = timestep_embedding(torch.tensor([t]), dim)[0]
    paper = shown[bottom - 3, left + 1, :3]
    for entry, value in enumerate(embedding.tolist()):
        x = int(left + (entry + 0.35) / dim * (right - left))
        column = (shown[top:bottom, x, :3] != paper).any(1)
        zero = (bottom - top) / 2
        expected = abs(value) * zero
        part = column[: int(zero) - 1] if value > 0 else column[int(zero) + 1 :]
        assert abs(int(part.sum()) - expected) <= 3


def test_receptive_fields_in_the_page_are_the_gradients(open_page):
    torch.manual_seed(0)
    net, image = TwoLevelUNet(3, width=8), torch.rand(1, 3, 18, 20) * 2 - 1
    fields = receptive_fields(net, image, 500)
    page = open_page(ReceptiveFieldExplorer({"net": net}, image))
    scale = 14  # 280 pixels for 20
    for row, column in ((0, 19), (17, 3), (9, 10)):
        set_slider(page, "row", row)
        set_slider(page, "column", column)
        shown = pixels(page, 1)
        field = fields[row, column]
        share = ((field / field.max()).clamp(min=1e-3).log10() + 3) / 3
        paper = shown[1 + scale // 2, 1 + scale // 2, :3] if not field[0, 0] else None
        checked = 0
        for i in range(18):
            for j in range(20):
                if abs(i - row) <= 1 and abs(j - column) <= 1:
                    continue  # the cross that marks the output pixel
                got = shown[1 + i * scale + scale // 2, 1 + j * scale + scale // 2, :3]
                if field[i, j]:
                    assert (got - ramp(share[i, j])).abs().max() <= 1.5
                elif paper is not None:
                    assert torch.equal(got, paper)
                checked += 1
        assert checked > 300
        seen = f"{int(field.any(0).sum())} × {int(field.any(1).sum())} pixels"
        assert seen in label(page, 1)
        assert f"row {row}, column {column}" in label(page, 0)


def test_a_click_and_a_drag_choose_the_output_pixel(open_page):
    torch.manual_seed(0)
    page = open_page(ReceptiveFieldExplorer(TwoLevelUNet(1, width=4), torch.zeros(1, 1, 20, 20)))
    box = page.locator("canvas").nth(1).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 1 + 14 * 4.5, box["y"] + 1 + 14 * 2.5)
    page.mouse.down()
    page.wait_for_function("() => document.querySelectorAll('input')[1].value === '2'")
    assert page.get_by_role("slider", name="column").input_value() == "4"
    page.mouse.move(box["x"] + 1 + 14 * 9.5, box["y"] + 4000)  # past the edge: the last row
    page.wait_for_function("() => document.querySelectorAll('input')[1].value === '19'")
    page.mouse.up()
    page.mouse.move(box["x"] + 20, box["y"] + 20)  # no button is down
    painted(page)
    assert page.get_by_role("slider", name="column").input_value() == "9"
    assert "row 19, column 9" in label(page, 0)
    assert page.get_by_role("slider", name="output pixel").input_value() == str(19 * 20 + 9)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_pictures_of_a_trajectory_are_the_samplers(open_page, channels):
    T = 60
    schedule = schedules.linear_schedule(T, beta_end=0.2)
    data = torch.rand(5, channels, 9, 7, generator=torch.Generator().manual_seed(2)) * 2 - 1
    model = DatasetOracle(schedule, data)
    x_T = torch.randn(2, channels, 9, 7, generator=torch.Generator().manual_seed(3))
    page = open_page(
        TrajectoryExplorer(model, schedule, x_T, steps=(4, 6), etas=(0.0, 1.0), frames=60, seed=7)
    )
    page.get_by_label("DDIM steps").select_option("6")
    page.get_by_label("DDIM η").select_option("1")

    def dice() -> torch.Generator:
        return torch.Generator().manual_seed(7)

    halts = evenly_spaced(T, 6)
    walks = {
        "DDPM": ddpm(model, schedule, x_T, generator=dice()),
        "DDIM": ddim(model, schedule, x_T, halts, eta=1.0, generator=dice()),
    }
    states = {name: {T: x_T} for name in walks}
    guesses: dict[str, dict[int, Tensor]] = {name: {} for name in walks}
    for name, walk in walks.items():
        before = T
        for step in walk:
            states[name][step.t], guesses[name][before] = step.x_t, step.x0_hat
            before = step.t
        guesses[name][0] = states[name][0]
    for t in (T, 31, 30, 5, 0):
        set_slider(page, "timestep t", T - t)
        for row, name in enumerate(("DDPM", "DDIM")):
            at = min(halt for halt in states[name] if halt >= t)
            for column, found in enumerate((states[name][at], guesses[name][at])):
                shown = pixels(page, 2 * row + column)
                assert shown.shape == (9, 2 * 7 + 2, 4)
                expected = torch.from_numpy(to_bytes(found)).int()
                for i in range(2):
                    got = shown[:, i * 9 : i * 9 + 7, :channels]
                    assert (got - expected[i]).abs().max() <= 1
                assert f"t = {at}," in label(page, 2 * row + column)


def test_play_walks_down_and_stops_at_the_end(open_page):
    T = 20
    schedule = schedules.linear_schedule(T, beta_end=0.3)
    model = DatasetOracle(schedule, torch.zeros(1, 1, 4, 4))
    page = open_page(TrajectoryExplorer(model, schedule, (1, 1, 4, 4), steps=(4,), t=3))
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("() => document.querySelector('input').value === '20'")  # t = 0
    page.get_by_role("button", name="Play").wait_for()
    assert page.locator(".tx-line").inner_text().startswith("t = 0: DDPM after 20 of 20 steps")
