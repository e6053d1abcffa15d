"""A real JupyterLab on this machine, and a headless Chromium that uses it as a learner would.

A test asks for ``open_notebook`` and gets a page on which it can run cells, drag and type:

    def test_it(open_notebook):
        lesson = open_notebook("01_noise_schedules.ipynb")
        lesson.run_all()
        lesson.page.locator("input[type=range]").first.focus()
        lesson.page.keyboard.press("PageUp")

`open_cells` does the same with a notebook made of given cells, and `open_script` gives a blank page
on which the script of an explorer is loaded as ``window.explorer``.

When the test ends, the page must have logged no error, and a screenshot of it is in
build/screenshots/.
"""

from collections.abc import Callable, Iterator

import pytest
from jupyter_lab import (
    START_SECONDS,
    Lab,
    OpenNotebook,
    opener,
    running_chromium,
    running_lab,
    write_notebook,
)
from playwright.sync_api import Browser, Page, expect

expect.set_options(timeout=START_SECONDS * 1000)

LOAD_SCRIPT = """async (script) => {
  const file = new Blob([script], { type: "text/javascript" });
  window.explorer = await import(URL.createObjectURL(file));
}"""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that look at one notebook together run in one process, where there are several.

    The longest tests come first, so that no process is left with one while the others are done.
    """
    for item in items:
        if "open_for_all" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A JupyterLab that serves a copy of the course."""
    with running_lab(tmp_path_factory.mktemp("lab")) as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium: $CHROMIUM, or the first found on the PATH."""
    with running_chromium() as chromium:
        yield chromium


@pytest.fixture
def open_notebook(lab: Lab, browser: Browser) -> Iterator[Callable[[str], OpenNotebook]]:
    """Opens a notebook of the copy, by its path under notebooks/, with a kernel that is ready."""
    with opener(lab, browser) as open_one:
        yield open_one


@pytest.fixture
def open_cells(
    lab: Lab, open_notebook: Callable[[str], OpenNotebook]
) -> Callable[..., OpenNotebook]:
    """Opens a new notebook, `name`.ipynb, with a code cell for each text."""

    def open_new(name: str, *cells: str) -> OpenNotebook:
        return open_notebook(write_notebook(lab, name, cells))

    return open_new


@pytest.fixture(scope="module")
def open_for_all(lab: Lab, browser: Browser) -> Iterator[Callable[..., OpenNotebook]]:
    """As `open_cells`, for all tests of a file: what they look at stays open between them."""
    with opener(lab, browser) as open_one:
        yield lambda name, *cells: open_one(write_notebook(lab, name, cells))


@pytest.fixture
def open_script(browser: Browser) -> Iterator[Callable[[str], Page]]:
    """A blank page with what a script exports as `window.explorer`."""
    pages: list[Page] = []

    def open_one(script: str) -> Page:
        page = browser.new_page()
        pages.append(page)
        page.evaluate(LOAD_SCRIPT, script)
        return page

    yield open_one
    for page in pages:
        page.close()
