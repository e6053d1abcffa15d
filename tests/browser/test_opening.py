"""What a lesson looks like before it is run: its opening picture, folded code, in both themes."""

import io
import shutil
from collections.abc import Callable

import build_notebooks
import pytest
from jupyter_lab import Lab, OpenNotebook, in_time, painted
from PIL import Image
from playwright.sync_api import Locator, expect

from tests.notebooks.test_builder import course

ALT = "Noise that becomes two soft discs"
SOURCE = f"""
# %% [markdown]
# # 1 · Discs
#
# <!-- opening -->
#
# Noise becomes discs.

# %%
import torch

x, y = torch.meshgrid(*2 * [torch.linspace(-2, 2, 28)], indexing="ij")
disc = torch.exp(-((x**2 + y**2) ** 2)) * 2 - 1
print("open")

# %% tags=["plumbing"]
from tutorial_lib import plots

lines = {{str(k): disc[8 + 2 * k] for k in range(7)}}
plots.show(plots.curves(range(28), lines, x_label="pixel", y_label="gray"), alt="Seven bumps")

# %% tags=["opening", "plumbing"]
noise = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
frames = [noise * (1 - s / 9) + disc * s / 9 for s in range(10)]
plots.show(plots.animation(frames), alt="{ALT}")
"""
NAME = "01_discs"
pytestmark = pytest.mark.long("a notebook is run by the builder, then in JupyterLab")
LOADED = "image => image.complete && image.naturalWidth > 0"


@pytest.fixture(scope="module")
def built(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A lesson with an opening, built as every lesson is, among those that the lab serves."""
    root = course(tmp_path_factory.mktemp("course"), **{NAME: SOURCE})
    build_notebooks.update(root, [])
    shutil.copy(root / "notebooks" / f"{NAME}.ipynb", lab.notebooks)
    (lab.notebooks / "images").mkdir(exist_ok=True)
    for path in (root / "notebooks" / "images").iterdir():
        shutil.copy(path, lab.notebooks / "images")
    return f"{NAME}.ipynb"


def use_theme(lesson: OpenNotebook, theme: str) -> None:
    lesson.page.evaluate(
        "theme => jupyterapp.commands.execute('apputils:change-theme', { theme })",
        f"JupyterLab {theme}",
    )
    ground = "rgb(17, 17, 17)" if theme == "Dark" else "rgb(255, 255, 255)"
    panel = "getComputedStyle(document.querySelector('.jp-NotebookPanel')).backgroundColor"
    assert in_time(lambda: lesson.page.evaluate(panel) == ground), lesson.page.evaluate(panel)
    painted(lesson.page)


def ground_of(figure: Locator) -> object:
    """The color of most pixels of a figure as it is on the page."""
    with Image.open(io.BytesIO(figure.screenshot())) as picture:
        return max(picture.convert("RGB").getcolors(picture.width * picture.height) or [])[1]


def test_a_lesson_opens_with_its_picture_before_it_is_run(
    built: str, open_notebook: Callable[[str], OpenNotebook]
):
    lesson = open_notebook(built)
    picture = lesson.page.locator(".jp-MarkdownCell img").first
    expect(picture).to_have_attribute("alt", ALT)
    assert in_time(lambda: picture.evaluate(LOADED))
    assert picture.evaluate("image => image.currentSrc").partition("?")[0].endswith(f"{NAME}.gif")
    box = picture.bounding_box()
    assert box is not None
    assert 100 < box["width"] <= 900
    lesson.screenshot("-before")


def test_folded_code_shows_its_first_line_and_opens_with_a_click(
    built: str, open_notebook: Callable[[str], OpenNotebook]
):
    lesson = open_notebook(built)
    folded = lesson.page.locator(".jp-CodeCell .jp-InputPlaceholder:visible")
    expect(folded).to_have_count(3)
    expect(folded.first).to_contain_text("# installs the course where it is missing")
    drawing = folded.nth(1)
    expect(drawing).to_contain_text("# draws the figure below")
    editors = lesson.page.locator(".jp-CodeCell .jp-InputArea-editor:visible")
    before = editors.count()
    drawing.locator(".jp-MoreHorizIcon").click()
    expect(folded).to_have_count(2)
    expect(editors).to_have_count(before + 1)
    expect(lesson.page.locator(".jp-CodeCell").nth(2)).to_contain_text('x_label="pixel"')


def test_figures_take_the_ground_of_the_page(
    built: str, open_notebook: Callable[[str], OpenNotebook]
):
    lesson = open_notebook(built)
    lesson.run_all()
    figure = lesson.page.get_by_role("img", name="Seven bumps")
    for theme, ground in (("Light", (255, 255, 255)), ("Dark", (17, 17, 17))):
        use_theme(lesson, theme)
        assert in_time(lambda g=ground: ground_of(figure) == g), (theme, ground_of(figure))
        lesson.screenshot(f"-{theme.lower()}")
    moving = lesson.page.locator(f'.jp-OutputArea img[alt="{ALT}"]')
    for kind in ("gif", "png"):
        lesson.page.emulate_media(reduced_motion="reduce" if kind == "png" else "no-preference")
        shown = f"image => image.currentSrc.startsWith('data:image/{kind};') && image.complete"
        assert in_time(lambda shown=shown: moving.evaluate(shown))
