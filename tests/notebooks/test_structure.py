"""What every notebook owes its readers: order, alternative text, links that lead somewhere."""

import html.parser
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from build_notebooks import ROOT, lessons
from nbformat import NotebookNode

LEARNERS = [lesson.learner for lesson in lessons(ROOT)]
SOLVED = [lesson.solved for lesson in lessons(ROOT)]

LINK = re.compile(r"""(?:\]\(|(?:src|href)=["'])([^)\s"']+)""")
MARKDOWN_IMAGE = re.compile(r"!\[(?P<alt>[^\]]*)\]\(")
CODE_BLOCK = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#{1,6}) +\S", re.MULTILINE)
ABSOLUTE_PATH = re.compile(r"""(?<![\w./:~-])/(?:home|root|Users|work|tmp|opt|mnt)/|\b[A-Z]:\\\\""")
ADDRESS_IN_MEMORY = re.compile(r"\bat 0x[0-9a-f]{6,}")
SHORTEST_ALT = 15  # characters; less does not say what a figure shows


def in_each(paths: list[Path]):
    return pytest.mark.parametrize(
        "path", paths, ids=[path.relative_to(ROOT / "notebooks").as_posix() for path in paths]
    )


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def prose(notebook: NotebookNode) -> str:
    """All text cells, without the code blocks in them."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return CODE_BLOCK.sub("", text)


def outputs(notebook: NotebookNode) -> Iterator[NotebookNode]:
    for cell in notebook.cells:
        yield from cell.get("outputs", [])


class ImageTags(html.parser.HTMLParser):
    """Collects the alternative texts of the <img> in a piece of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.alts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.alts.append(dict(attrs).get("alt") or "")


def alternative_texts(notebook: NotebookNode) -> Iterator[str]:
    """One text for each image in the notebook, empty where an image has none."""
    text = prose(notebook)
    yield from (match["alt"] for match in MARKDOWN_IMAGE.finditer(text))
    yield from ImageTags(text).alts
    for output in outputs(notebook):
        data = output.get("data", {})
        yield from ImageTags(data.get("text/html", "")).alts
        for kind in data:
            if kind.startswith("image/"):
                yield output.metadata.get(kind, {}).get("alt", "")


def texts(notebook: NotebookNode) -> Iterator[str]:
    """All that can be read in the notebook: sources and outputs, without images."""
    for cell in notebook.cells:
        yield cell.source
    for output in outputs(notebook):
        if output.output_type == "stream":
            yield output.text
        else:
            for kind, data in output.get("data", {}).items():
                if kind.startswith("text/"):
                    yield re.sub(r"data:[\w/+;-]+,[\w+/=]+", "", data)
                elif kind.endswith("json"):
                    yield json.dumps(data)


@in_each(LEARNERS + SOLVED)
def test_is_a_valid_notebook_with_ids_of_its_own(path: Path):
    notebook = read(path)
    nbformat.validate(notebook)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)


@in_each(LEARNERS + SOLVED)
def test_is_small_enough_to_open_quickly(path: Path):
    assert path.stat().st_size < 1_000_000


@in_each(LEARNERS + SOLVED)
def test_headings_are_in_order(path: Path):
    """One title, first of all; and no level is skipped on the way down."""
    notebook = read(path)
    assert notebook.cells[0].source.startswith("# ")
    levels = [len(match[1]) for match in HEADING.finditer(prose(notebook))]
    assert levels.count(1) == 1
    for above, below in zip(levels, levels[1:], strict=False):
        assert below <= above + 1, f"a level {below} heading right under level {above}"


@in_each(LEARNERS + SOLVED)
def test_every_image_has_alternative_text(path: Path):
    short = [text for text in alternative_texts(read(path)) if len(text) < SHORTEST_ALT]
    assert not short, "give each figure one: show(fig, alt='what it shows')"


@in_each(LEARNERS + SOLVED)
def test_links_inside_the_course_lead_somewhere(path: Path):
    for target in LINK.findall(prose(read(path))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, heading = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), target
        assert linked.is_relative_to(ROOT), target
        if heading and linked.suffix == ".ipynb":
            titles = re.findall(r"^#{1,6} +(.+?) *$", prose(read(linked)), re.MULTILINE)
            assert heading in [title.replace(" ", "-") for title in titles], target


@in_each(LEARNERS + SOLVED)
def test_says_nothing_about_the_machine_it_was_made_on(path: Path):
    for text in texts(read(path)):
        assert not ABSOLUTE_PATH.search(text)
        assert not ADDRESS_IN_MEMORY.search(text)


def test_every_import_of_a_solved_notebook_is_used():
    """In the sources this cannot be seen: what a solution uses stands in the checks."""
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--output-format=concise"]
    words = [*ruff, "--select=F401,F821", *map(str, SOLVED)]
    found = subprocess.run(words, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr


@in_each(SOLVED)
def test_outputs_come_from_one_run_in_order(path: Path):
    code = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


@in_each(SOLVED)
def test_ran_without_errors_and_warnings(path: Path):
    for cell in read(path).cells:
        expected = "raises-exception" in cell.metadata.get("tags", [])
        for output in cell.get("outputs", []):
            assert expected or output.output_type != "error", output.evalue
            if output.output_type == "stream" and output.name == "stderr":
                assert "Warning" not in output.text, output.text
