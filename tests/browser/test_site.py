"""The website, built as a fork on GitHub would build it, in a browser that reaches no other host.

Every page is opened once, and the tests look at what was found.
"""

import functools
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from jupyter_lab import ROOT, SCREENSHOTS, painted
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Route, expect
from repository import Repository
from torchvision.transforms.functional import pil_to_tensor

from tutorial_lib.course import LESSONS
from tutorial_lib.metrics.digit_features import load_digit_classifier

FORK = Repository("Some-One", "a.fork")
WIDTHS = {"wide": 1366, "tablet": 768, "phone": 375}
LARGEST_FRONT_PAGE = 1_000_000  # bytes
OTHERS = ("https://github.com/huggingface/", "https://github.com/pradyunsg/furo")
LOADS = {("script", "src"), ("img", "src"), ("img", "srcset"), ("source", "srcset")}
"""What a browser fetches by itself, beside style sheets and icons."""

pytestmark = pytest.mark.xdist_group("site")  # one process builds it, and looks at all of it


class Parsed(HTMLParser):
    """What a page links to, what it loads, and which places it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fetched = dict(attrs).get("rel") in ("stylesheet", "icon", "shortcut icon")
        for name, value in attrs:
            if value is None:
                continue
            if name == "id":
                self.places.add(value)
            elif (tag, name) in LOADS or (tag, name, fetched) == ("link", "href", True):
                self.loads.append(value)
            elif (tag, name) == ("a", "href"):
                self.links.append(value)


JOIN = """() => {
  for (const formula of document.querySelectorAll(".katex")) formula.replaceWith("x");
  for (const word of document.querySelectorAll(".highlight pre span")) {
    word.replaceWith(word.textContent);
  }
}"""
WHOLE = ("index.html", "lessons/00_start_here.html", "guides/diffusers.html")
OF_THE_REFERENCE = ("reference/index.html", "reference/samplers.html", "reference/training.html")
"""The pages of the reference that axe looks at: all are made alike."""


@dataclass
class Seen:
    """What came to light while all pages were open, one after the other.

    Attributes:
        errors: that pages logged, or raised, or could not load.
        elsewhere: addresses of other hosts that pages asked for.
        asleep: explorers that did not come alive.
        wide: pages that a phone must scroll sideways.
        serious: what axe found, by page.
    """

    errors: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    asleep: list[str] = field(default_factory=list)
    wide: list[str] = field(default_factory=list)
    serious: dict[str, list] = field(default_factory=dict)


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing is logged, but for what goes wrong."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a site that was just built."""
    out = tmp_path_factory.mktemp("website") / "site"
    words = [sys.executable, str(ROOT / "tools" / "build_site.py"), "--out", str(out)]
    done = subprocess.run(
        words,
        env={**os.environ, "GITHUB_REPOSITORY": FORK.slug, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def parsed(built: Path) -> dict[str, Parsed]:
    """Every page, by its path on the site."""
    return {n: Parsed((built / n).read_text(encoding="utf-8")) for n in names(built)}


@pytest.fixture(scope="module")
def address(built: Path) -> Iterator[str]:
    """Where the site is served, not at the top: as on GitHub, it has a folder of its own."""
    handler = functools.partial(Quiet, directory=str(built.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/{built.name}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def seen() -> Seen:
    return Seen()


@pytest.fixture(scope="module")
def page(address: str, browser: Browser, seen: Seen) -> Iterator[Page]:
    """A page in a browser that reaches the site and nothing else."""
    context = browser.new_context(viewport={"width": 1366, "height": 900}, color_scheme="light")

    def only_here(route: Route) -> None:
        if route.request.url.startswith(address):
            route.continue_()
        else:
            seen.elsewhere.append(route.request.url)
            route.abort()

    context.route("**/*", only_here)
    opened = context.new_page()
    opened.on("console", lambda m: seen.errors.append(m.text) if m.type == "error" else None)
    opened.on("pageerror", lambda error: seen.errors.append(str(error)))
    opened.on("response", lambda r: seen.errors.append(r.url) if r.status >= 400 else None)
    yield opened
    context.close()


def names(built: Path) -> list[str]:
    """All pages, as paths on the site."""
    return sorted(path.relative_to(built).as_posix() for path in built.rglob("*.html"))


def view(page: Page, name: str, address: str, width: int = 1366) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(address + name)
    painted(page)


def serious(page: Page, *, whole: bool = False) -> list:
    """What axe holds to be serious, in short.

    Unless the page is asked for as a ``whole``, formulas become one letter and colored code one
    text: of lessons they are nine tenths, and all alike.
    """
    for place in page.locator(".explorer").all():
        assert awake(place)  # one that comes alive meanwhile has no words yet
    if not whole:
        page.evaluate(JOIN)
    painted(page)
    found = Axe().run(page).response["violations"]
    grave = [v for v in found if v["impact"] in ("serious", "critical")]
    return [(v["id"], [node["html"][:160] for node in v["nodes"][:5]]) for v in grave]


def awake(place: Locator) -> bool:
    """Whether an explorer comes alive once it is near the screen."""
    place.scroll_into_view_if_needed()
    expect(place).to_have_attribute("data-alive", "")
    place.locator(".tx[data-frames]").wait_for()
    return place.locator("canvas").count() > 0


@pytest.fixture(scope="module")
def visited(built: Path, address: str, page: Page, seen: Seen) -> Seen:
    """What is seen when every page is opened, at two widths."""
    for name in names(built):
        view(page, name, address)
        places = page.locator(".explorer")
        seen.asleep += [f"{name}: {i}" for i in range(places.count()) if not awake(places.nth(i))]
        page.set_viewport_size({"width": WIDTHS["phone"], "height": 800})
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            seen.wide.append(name)
        page.set_viewport_size({"width": WIDTHS["wide"], "height": 900})
        if name.startswith("reference/") and name not in OF_THE_REFERENCE:
            continue
        if found := serious(page, whole=name in WHOLE):
            seen.serious[name] = found
    return seen


@pytest.mark.long("opens every page of the site")
def test_every_page_opens_and_logs_no_error(visited):
    assert visited.errors == []


def test_no_page_needs_another_host(visited, parsed):
    assert visited.elsewhere == []
    for name, found in parsed.items():
        assert [load for load in found.loads if re.match(r"[a-z]+:|//", load)] == [], name


def test_every_explorer_is_alive(visited):
    assert visited.asleep == []


def test_no_page_is_wider_than_a_phone(visited):
    assert visited.wide == []


def test_axe_finds_nothing_serious_by_day(visited):
    assert visited.serious == {}, json.dumps(visited.serious, indent=1)


def test_no_link_is_dead(built, parsed):
    dead = []
    for name, found in parsed.items():
        for link in (*found.links, *found.loads):
            if re.match(r"[a-z]+:", link):
                continue
            path, place = urldefrag(urljoin(f"/{name}", link))
            there = unquote(path.lstrip("/").partition("?")[0]) or "index.html"
            known = there not in parsed or place in ("", *parsed[there].places)
            if not (built / there).is_file() or not known:
                dead.append(f"{name}: {link}")
    assert dead == []


def test_links_to_the_repository_are_links_to_the_fork(built, parsed):
    doors = re.compile(r"https://(github\.com|colab\.research|kaggle\.com|mybinder|codespaces)\S*")
    links = {link for found in parsed.values() for link in found.links if doors.match(link)}
    assert links
    assert [link for link in links if not link.startswith(OTHERS) and FORK.slug not in link] == []
    for lesson in LESSONS:
        there = parsed[f"lessons/{lesson.name}.html"].links
        assert set(FORK.doors(f"notebooks/{lesson.notebook}").values()) <= set(there)
    address = "https://some-one.github.io/a.fork/index.html"
    assert f'<link rel="canonical" href="{address}"' in (built / "index.html").read_text("utf-8")


def test_lessons_follow_each_other(built):
    for before, after in zip(LESSONS, LESSONS[1:], strict=False):
        for here, kind, there in ((before, "next", after), (after, "prev", before)):
            text = (built / "lessons" / f"{here.name}.html").read_text(encoding="utf-8")
            assert re.search(rf'<link rel="{kind}"[^>]*href="{there.name}\.html"', text)


def test_solutions_and_what_only_draws_are_folded(page, address):
    view(page, "lessons/02_closed_form_jump.html", address)
    folds = page.locator("details.above-input")
    assert {"Show a solution", "Show the code"} <= set(folds.locator("summary").all_inner_texts())
    code = folds.first.locator("pre").first
    expect(code).to_be_hidden()
    folds.first.locator("summary").click()
    expect(code).to_be_visible()


def test_every_kind_of_explorer_can_be_dragged(page, address):
    view(page, "explorers.html", address)
    places = page.locator(".explorer")
    for number in range(places.count()):
        place = places.nth(number)
        assert awake(place)
        slider = place.get_by_role("slider").first
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        assert box is not None
        before, value = picture(place), slider.input_value()
        share = 0.15 if float(value) > float(slider.get_attribute("max") or 1) / 2 else 0.85
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] / 2, steps=3)
        page.mouse.up()
        painted(page)
        kind = place.get_attribute("data-kind")
        assert slider.input_value() != value, kind
        assert picture(place) != before, kind


def picture(place: Locator) -> str:
    """All that an explorer paints, as one text."""
    return place.evaluate(
        "el => [...el.querySelectorAll('canvas')].map((one) => one.toDataURL()).join()"
    )


def test_the_front_page_is_light_and_its_digits_come_out_of_noise(page, address, built):
    sizes: dict[str, int] = {}
    page.on("response", lambda r: sizes.update({r.url: int(r.headers["content-length"])}))
    view(page, "index.html", address)
    slider = page.get_by_role("slider", name="timestep t")
    slider.wait_for()
    for card in page.locator("a.card img").all():  # they load when they are near
        card.scroll_into_view_if_needed()
    page.wait_for_load_state("networkidle")
    assert len([url for url in sizes if url.endswith(".webp")]) >= len(LESSONS)
    assert sum(sizes.values()) < LARGEST_FRONT_PAGE
    hero = page.locator("figure.hero")
    shown = []
    slider.focus()
    for key, t in (("End", 0), ("Home", 1000)):  # the first one stops it, wherever it is
        page.keyboard.press(key)
        expect(hero.locator("output")).to_have_text(f"t = {t}")
        expect(hero.get_by_role("button")).to_have_text("Play")
        shown.append(hero.locator("canvas").evaluate("canvas => canvas.toDataURL()"))
    assert shown[0] != shown[1]
    hero.get_by_role("button").click()
    expect(hero.locator("output")).to_have_text("t = 0")
    expect(hero.get_by_role("button")).to_have_text("Play")


def test_the_digits_of_the_front_page_are_0_to_9(built):
    """The judge that ships reads them from the picture."""
    with Image.open(built / "images" / "hero-end.png") as end:
        row = pil_to_tensor(end).float() / 127.5 - 1
    digits = torch.stack(row.chunk(10, dim=2))
    read = load_digit_classifier().probabilities(digits).argmax(1)
    assert int((read == torch.arange(10)).sum()) >= 9


def test_search_finds_what_was_asked_for(page, address):
    view(page, "search.html?q=posterior", address)
    found = page.locator("ul.search li a")
    expect(found.first).to_be_visible()
    assert "2 · The closed-form jump" in " ".join(found.all_inner_texts())


def test_axe_finds_nothing_serious_by_night(page, address):
    page.emulate_media(color_scheme="dark")
    try:
        for name in ("explorers.html", "reference/samplers.html", *WHOLE):
            view(page, name, address)
            assert serious(page, whole=name in WHOLE) == [], name
    finally:
        page.emulate_media(color_scheme="light")


def test_screenshots(page, address):
    """In both themes, at three widths; for people to look at."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        for width, pixels in WIDTHS.items():
            for name in ("index", "lessons/02_closed_form_jump"):
                view(page, f"{name}.html", address, width=pixels)
                file = f"site-{name.rpartition('/')[2]}-{theme}-{width}.png"
                page.screenshot(path=SCREENSHOTS / file)
                paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
                bright = sum(map(int, re.findall(r"\d+", paper)[:3])) / 3
                assert (bright > 200) == (theme == "light")
    page.emulate_media(color_scheme="light")
