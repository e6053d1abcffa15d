"""What the guidance explorer shows in the browser, against torch."""

import re

import torch
from playwright.sync_api import expect

from tutorial_lib.explorers import GuidanceExplorer
from tutorial_lib.images import to_bytes

LABELS = torch.tensor([0, 0, 0, 2, 2, 1])
READ = """canvas => Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width,
  canvas.height).data)"""


def test_places(open_script):
    page = open_script(GuidanceExplorer._esm)
    place = "([owners, classes, chosen]) => explorer.places(owners, classes, chosen)"
    every = page.evaluate(place, [[0, 0, 1, 2, 2], [0, 1, 2], -1])
    assert [(p["column"], p["row"]) for p in every] == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)]
    assert [p["i"] for p in every] == [0, 1, 2, 3, 4]
    sevens = page.evaluate(place, [[7] * 6 + [3], [3, 7], 7])
    assert [(p["column"], p["row"]) for p in sevens][-2:] == [(4, 0), (0, 1)]
    assert page.evaluate(place, [[7] * 6 + [3], [3, 7], 3]) == [{"i": 6, "column": 0, "row": 0}]


def test_pixels_differ_by_one_gray_level_at_most(browser, tmp_path):
    generator = torch.Generator().manual_seed(0)
    samples = {s: torch.rand(6, 3, 8, 8, generator=generator) * 2.2 - 1.1 for s in (0.0, 1.5)}
    explorer = GuidanceExplorer(samples, LABELS, scale=0)
    page = browser.new_page()
    page.goto(explorer.save_html(tmp_path / "page.html").as_uri())
    page.locator(".tx[data-frames]").wait_for()
    canvas = page.locator("canvas").first
    size = canvas.evaluate("canvas => [canvas.height, canvas.width]")
    for scale, key in ((0.0, "Home"), (1.5, "End")):
        page.get_by_role("slider").press(key)
        expect(canvas).to_have_attribute("aria-label", re.compile(re.escape(f"s = {scale:g}")))
        rgba = torch.tensor(canvas.evaluate(READ)).reshape(*size, 4)
        expected = torch.from_numpy(to_bytes(samples[scale])).int()
        # Columns of six pixels a pixel below a head of 18, two pixels of gap: class 0, 1, 2
        for sample, column, row in ((0, 0, 0), (1, 0, 1), (2, 0, 2), (5, 1, 0), (3, 2, 0)):
            top, left = 18 + row * 50 + 3, column * 50 + 3
            got = rgba[top : top + 48 : 6, left : left + 48 : 6, :3]
            assert (got - expected[sample]).abs().max() <= 1
    page.close()


def test_without_spread_there_is_no_chart_of_it(browser, tmp_path):
    samples = {s: torch.full((3, 1, 8, 8), s - 0.5) for s in (0.0, 1.0)}
    labels = torch.arange(3)
    explorer = GuidanceExplorer(samples, labels, judge=Bright())
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(explorer.save_html(tmp_path / "page.html").as_uri())
    page.locator(".tx[data-frames]").wait_for()
    page.get_by_role("slider").press("End")
    expect(page.locator("canvas")).to_have_count(2)
    says = re.compile(re.escape("s = 1: 3 samples, 33.3 % read as ordered"))
    for canvas in page.locator("canvas").all():
        expect(canvas).to_have_attribute("aria-label", says)
    assert "spread" not in page.locator(".tx").inner_text().lower()
    page.close()
    assert errors == []


class Bright:
    """Reads bright images as class 1 and the others as class 0."""

    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot((images.mean((1, 2, 3)) > 0).long(), 3).float()

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)
