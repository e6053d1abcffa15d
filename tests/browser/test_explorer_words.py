"""What the words explorer shows in the browser: pictures, maps and marks, and typed sentences."""

import io
import re
from collections.abc import Callable, Iterator

import pytest
import torch
from explorer_cases import SETUP
from jupyter_lab import painted
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from torch import Tensor

from tests.browser.canvas import pixels
from tests.told import SENTENCES, invented
from tutorial_lib.datasets import scenes
from tutorial_lib.datasets.scene_captions import VOCABULARY
from tutorial_lib.explorers import SentenceWalks, WordsExplorer
from tutorial_lib.explorers.shared import wire
from tutorial_lib.metrics import judge_scenes

GIVEN = {"scales": (1.0, 2.0, 4.0), "seeds": (3, 5), "timesteps": (100, 75, 40, 5)}
SIDE = 5  # of the invented maps

DRAWN = """\
def drawn(sentence):
    dice = torch.Generator().manual_seed(len(sentence))
    pictures = torch.rand(1, 2, 3, 3, 16, 16, generator=dice) * 2 - 1
    maps = torch.rand(1, 2, 3, len(sentence.split()), 4, 4, generator=dice)
    return explorers.SentenceWalks(pictures, maps)

first = "a small red disc"
given = {"scales": (1.0, 2.0), "seeds": (0,), "timesteps": (100, 50, 10)}
explorer = explorers.WordsExplorer({first: drawn(first)}, draw=drawn, **given)
explorer"""


@pytest.fixture
def open_page(browser: Browser, tmp_path) -> Iterator[Callable[..., Page]]:
    """Opens the page that an explorer writes of itself; nothing may go wrong on it."""
    opened: list[Page] = []
    errors: list[str] = []

    def open_one(explorer: WordsExplorer, width: int = 1000) -> Page:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="light")
        opened.append(page)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(explorer.save_html(tmp_path / "page.html").as_uri())
        page.locator(".tx[data-frames]").wait_for()
        painted(page)
        return page

    yield open_one
    for page in opened:
        page.close()
    assert errors == []


def ramp(share: Tensor) -> Tensor:
    """The colors of the script for shares in [0, 1], (..., 3)."""
    dark, light = torch.tensor([10.0, 30, 90]), torch.tensor([255.0, 234, 70])
    return dark + share[..., None] * (light - dark)


def choose(page: Page, sentence: str, scale: int, seed: int, step: int) -> None:
    page.get_by_role("combobox", name="sentence").select_option(sentence)
    page.get_by_role("combobox", name="guidance scale").select_option(index=scale)
    page.get_by_role("combobox", name="seed").select_option(index=seed)
    page.get_by_role("slider", name="step").fill(str(step))
    painted(page)


def test_files_are_taken_apart_and_walks_are_counted_as_in_python(open_script):
    page = open_script(WordsExplorer._esm)
    got = page.evaluate(
        "() => explorer.parts(new Uint8Array([1, 2, 3, 4]), [1, 1, 4]).map((p) => Array.from(p))"
    )
    assert got == [[1], [], [2, 3, 4]]
    walk = "([i, j, k]) => explorer.walkNumber(i, j, k, 3, 4)"
    order = [page.evaluate(walk, [i, j, k]) for i in (0, 1) for j in range(3) for k in range(4)]
    assert order == list(range(24))


def test_where_a_word_is_heard_most_is_said(open_script):
    page = open_script(WordsExplorer._esm)
    for row, column, where in (
        (0, 0, "at the upper left"),
        (1, 8, "at the upper right"),
        (0, 4, "at the top"),
        (4, 1, "on the left"),
        (3, 5, "in the middle"),
        (8, 3, "at the bottom"),
        (6, 6, "at the lower right"),
    ):
        values = [7 if p == 9 * row + column else p % 5 for p in range(81)]
        got = page.evaluate("(values) => explorer.highest(values, 9, 9)", values)
        assert got == {"value": 7, "where": where}


def test_pictures_and_maps_in_the_page_are_those_of_the_walks(open_page):
    walks = invented()
    page = open_page(WordsExplorer(walks, **GIVEN))
    for sentence, scale, seed, step in (
        (SENTENCES[0], 0, 0, 3),
        (SENTENCES[0], 2, 1, 0),
        (SENTENCES[1], 1, 1, 2),
    ):
        choose(page, sentence, scale, seed, step)
        own = walks[sentence]
        shown = pixels(page, 0)
        expected = (own.pictures[seed, scale, step, :, 8, 8] + 1) * 127.5
        assert (shown[145, 145, :3] - expected).abs().max() < 8, "of one color each, by JPEG"
        maps = own.maps[seed, scale]  # (steps, words, h, w)
        for k, word in enumerate(sentence.split()):
            small = pixels(page, 2 + k)
            assert small.shape == (SIDE, SIDE, 4)
            share = (maps[step, k] / maps[:, k].max() * wire.MAP_LEVELS).round() / wire.MAP_LEVELS
            assert (small[..., :3] - ramp(share)).abs().max() <= 1
            column = page.locator("[data-word]").nth(k)
            percent = round(100 * float(maps[step, k].max()))
            said = column.inner_text()
            assert word in said
            found = int(said.split()[-2])
            assert abs(found - percent) <= 2  # half a level of at most 3.2 %, and rounding


def test_a_word_is_pointed_at_chosen_and_reached_by_keys(open_page):
    walks = invented()
    page = open_page(WordsExplorer(walks, **GIVEN))
    over = page.locator("canvas").nth(1)
    words = SENTENCES[0].split()

    def button(k: int):
        return page.get_by_role("button", name=f"{words[k]}, word {k + 1}")

    def shows(word: str) -> None:
        expect(over).to_have_attribute("aria-label", re.compile(f'"{word}" gets up to'))

    shows("red")  # the first color, to begin with
    expect(button(2)).to_have_attribute("aria-pressed", "true")
    button(7).hover()
    shows("blue")
    expect(button(2)).to_have_attribute("aria-pressed", "true")
    page.mouse.move(0, 0)
    shows("red")
    button(8).click()
    page.mouse.move(0, 0)
    shows("square")
    expect(button(8)).to_have_attribute("aria-pressed", "true")
    expect(button(2)).to_have_attribute("aria-pressed", "false")
    button(3).focus()
    shows("disc")
    page.keyboard.press("Tab")
    shows("above")
    page.keyboard.press("Space")
    page.get_by_role("slider").focus()
    shows("above")
    # Over the picture without colors lies the map: yellow where the word is heard most.
    painted(page)
    shown, share = pixels(page, 1), walks[SENTENCES[0]].maps[0, 1, -1, 4]
    top, low = (divmod(int(p), SIDE) for p in (share.argmax(), share.argmin()))
    yellow, blue = (shown[1 + int((r + 0.5) * 58), 1 + int((c + 0.5) * 58)] for r, c in (top, low))
    assert yellow[0] > blue[0]
    assert yellow[1] > blue[1]
    # With another sentence, which is shorter, there are as many buttons as words.
    page.get_by_role("combobox", name="sentence").select_option(SENTENCES[1])
    expect(page.locator("[data-word]")).to_have_count(len(SENTENCES[1].split()))
    shows("on")


def test_the_judges_verdict_is_said_and_marked(open_page):
    data = scenes(2, seed=5)
    captions = VOCABULARY.decode(data.words)
    right = data.images[:, None, None, None].expand(-1, 1, 2, 2, -1, -1, -1).clone()
    right[0, :, 1, -1] = data.images[1]  # at the second scale another picture comes out
    walks = {
        caption: SentenceWalks(right[k], torch.rand(1, 2, 2, len(caption.split()), 4, 4))
        for k, caption in enumerate(captions)
    }
    page = open_page(
        WordsExplorer(walks, scales=(1, 2), seeds=(0,), timesteps=(9, 2), scale=1), width=375
    )
    words = captions[0].split()
    verdict = page.get_by_role("status").last
    expect(verdict).to_have_text(re.compile(f"all {len(words)} words hold. ✓"))
    marked = page.locator("[data-word]")
    for k, word in enumerate(words):
        expect(marked.nth(k).get_by_role("button")).to_have_text(f"✓ {word}")
    page.get_by_role("combobox", name="guidance scale").select_option("2")
    holds = judge_scenes(data.images[1:], captions[:1]).right[0][: len(words)].tolist()
    assert not all(holds)
    expect(verdict).to_have_text(re.compile(f"{sum(holds)} of {len(words)} words hold; ✗ "))
    for k, (word, held) in enumerate(zip(words, holds, strict=True)):
        named = f"{word}, word {k + 1}, {'right' if held else 'wrong'}"
        button = marked.nth(k).get_by_role("button", name=named)
        expect(button).to_have_text(f"{'✓' if held else '✗'} {word}")
        assert (f"{word} (word {k + 1})" in (verdict.text_content() or "")) != held
    wide, room = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= room, "a phone must not scroll sideways"


def test_a_page_of_its_own_says_that_typing_needs_a_kernel(open_page):
    walks = invented()
    page = open_page(WordsExplorer(walks, draw=lambda sentence: walks[sentence], **GIVEN))
    expect(page.get_by_role("status").first).to_have_text(re.compile("needs a running kernel"))
    assert page.get_by_role("textbox").count() == 0
    assert page.get_by_role("button", name="Draw").count() == 0


def test_files_of_a_page_are_pictures_that_others_can_read():
    made = WordsExplorer(invented(), **GIVEN)
    with Image.open(io.BytesIO(made.pictures[: made.picture_ends[0]])) as strip:
        assert (strip.format, strip.size, strip.mode) == ("JPEG", (4 * 16, 16), "RGB")
    with Image.open(io.BytesIO(made.maps[: made.map_ends[0]])) as table:
        assert (table.format, table.size, table.mode) == ("PNG", (4 * SIDE, 9 * SIDE), "L")


def test_a_sentence_is_typed_drawn_refused_and_kept(open_cells):
    notebook = open_cells("words", SETUP, DRAWN)
    notebook.run_all()
    root = notebook.page.locator(".tx")
    field = root.get_by_role("textbox", name="your sentence")
    note, over = root.get_by_role("status").first, root.locator("canvas").nth(1)
    field.fill("a large grean ring")
    field.press("Enter")
    expect(note).to_have_text(re.compile("got 'grean'; did you mean 'green'\\?"))
    expect(field).to_have_attribute("aria-invalid", "true")
    field.fill("a large GREEN ring on white")
    root.get_by_role("button", name="Draw", exact=True).click()
    expect(note).to_have_text("drawn: a large green ring on white")
    expect(field).to_have_attribute("aria-invalid", "false")
    expect(root.locator("[data-word]")).to_have_count(6)
    expect(over).to_have_attribute("aria-label", re.compile('"green" gets up to'))
    selected = root.get_by_role("combobox", name="sentence").locator("option:checked")
    expect(selected).to_have_text("a large green ring on white")
    assert notebook.ask("print(explorer.chosen, len(explorer.sentences))").split() == ["1", "2"]
    root.get_by_role("combobox", name="sentence").select_option("a small red disc")
    expect(root.locator("[data-word]")).to_have_count(4)
    # Once the kernel is gone, the explorer says so, and what is there moves on.
    field.fill("a small blue cross")
    with notebook.deaf_kernel():
        field.press("Enter")
        expect(note).to_have_text("waiting for the kernel, which is busy or gone")
        root.get_by_role("slider", name="step").fill("0")
        expect(over).to_have_attribute("aria-label", re.compile("t = 100"))
    expect(note).to_have_text("drawn: a small blue cross")
