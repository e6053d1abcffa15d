"""What the website is made with: where the course is published, links, glossary, docstrings.

The site itself is looked at in tests/browser/test_site.py.
"""

import io
from pathlib import Path

import nbformat
import pytest
import yaml
from build_notebooks import lessons
from nbformat import NotebookNode
from PIL import Image, ImageDraw
from repository import Repository, published, repository
from torchvision.transforms.functional import pil_to_tensor
from website.docstrings import as_rst
from website.front import thumbnail
from website.links import Links
from website.words import Term, glossary, modules, reference, terms

ROOT = Path(__file__).resolve().parents[1]
SOMEWHERE = Repository("ann", "course")
PAGES = {"docs/teachers.md": "guides/teachers.md", "README.md": "index.md"}


def project(folder: Path, setting: str) -> Path:
    (folder / "pyproject.toml").write_text(f"[tool.course]\n{setting}\n")
    return folder


@pytest.mark.parametrize("end", ["", "/", ".git"])
def test_one_setting_says_where_the_course_is(tmp_path, end):
    root = project(tmp_path, f'repository = "https://github.com/ann/my.course{end}"')
    assert repository(root) == Repository("ann", "my.course")


@pytest.mark.parametrize("setting", ["", 'repository = ""'])
def test_no_setting_is_no_repository(tmp_path, setting):
    assert repository(project(tmp_path, setting)) is None
    assert published(tmp_path, {}) is None


@pytest.mark.parametrize(
    "address", ["https://gitlab.com/a/b", "https://github.com/a", "a/b", "https://github.com/a/b/c"]
)
def test_an_address_elsewhere_is_refused(tmp_path, address):
    with pytest.raises(ValueError, match=r"\[tool.course\].*owner/name"):
        repository(project(tmp_path, f'repository = "{address}"'))


def test_a_fork_s_workflow_builds_the_fork_s_site(tmp_path):
    root = project(tmp_path, 'repository = "https://github.com/ann/course"')
    fork = published(root, {"GITHUB_REPOSITORY": "Bob/course"})
    assert fork is not None
    assert fork == Repository("Bob", "course")
    assert fork.site == "https://bob.github.io/course/"
    assert Repository("Bob", "bob.github.io").site == "https://bob.github.io/"


def test_doors_lead_to_the_notebook():
    notebook = "notebooks/00_start_here.ipynb"
    assert SOMEWHERE.doors(notebook) == {
        "Colab": f"https://colab.research.google.com/github/ann/course/blob/main/{notebook}",
        "Kaggle": "https://kaggle.com/kernels/welcome?src="
        f"https://github.com/ann/course/blob/main/{notebook}",
        "Binder": f"https://mybinder.org/v2/gh/ann/course/main?urlpath=lab/tree/{notebook}",
        "Codespaces": "https://codespaces.new/ann/course?quickstart=1",
    }
    assert SOMEWHERE.file("data/") == "https://github.com/ann/course/tree/main/data"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](teachers.md)", "[a](teachers.md)"),
        ("[a](teachers.md#b)", "[a](teachers.md#b)"),
        ("[a](../README.md)", "[a](../index.md)"),
        ('<a href="../README.md">', '<a href="../index.html">'),
        ('<img src="digits.png">', '<img src="../images/digits.png">'),
        ("[a](https://x.org/b)", "[a](https://x.org/b)"),
        ("[a](#b)", "[a](#b)"),
        ("[a](../Makefile)", "[a](https://github.com/ann/course/tree/main/Makefile)"),
        ("[a](../data/README.md)", "[a](https://github.com/ann/course/blob/main/data/README.md)"),
    ],
)
def test_links_lead_to_the_page_of_a_file_or_to_the_repository(text, expected):
    links = Links(SOMEWHERE, PAGES, {"docs": "images"})
    assert links.seen_from("guides/training.md", "docs/training.md", text) == expected


def test_without_a_repository_files_are_named_and_not_linked():
    links = Links(None, PAGES, {})
    seen = links.seen_from("guides/x.md", "docs/x.md", "[a](teachers.md) [`b c`](../data/d.md#e)")
    assert seen == "[a](teachers.md) `b c`"
    with pytest.raises(ValueError, match="no page"):
        links.seen_from("guides/x.md", "docs/x.md", '<a href="../data/d.md">')


def with_table(*rows: str) -> NotebookNode:
    head = ["| what people say | what it means |", "|---|---|"]
    cell = nbformat.v4.new_markdown_cell("\n".join([*head, *rows]))
    return nbformat.v4.new_notebook(cells=[cell])


def test_the_glossary_holds_the_lessons_terms_and_the_course_s_own_words():
    first, second = lessons(ROOT)[:2]
    head = "| word | meaning | not |\n|---|---|---|\n"
    own = f"{head}| walk | the states | chain |\n| run | a call | |\n"
    notebooks = [
        (first, with_table("| walk | a way down |")),
        (second, with_table(r"| \|x\| | the size |", "| walk | again |")),
    ]
    found = terms(own, notebooks)
    assert [(term.word, term.meaning) for term in found] == [
        ("run", "a call"),
        ("walk", "a way down"),
        (r"\|x\|", "the size"),
    ]
    assert found[1] == Term("walk", "a way down", "chain", first)
    assert "Not called chain here. [Lesson 0](lessons/00_start_here.ipynb)" in glossary(found)


def test_the_course_has_terms_in_its_lessons_and_its_own():
    course = [(one, nbformat.read(one.solved, as_version=4)) for one in lessons(ROOT)]
    found = terms((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), course)
    words = {term.word for term in found}
    assert {"denoiser", "signal rate, noise rate", "broadcasting"} <= words
    assert len(words) == len(found) > 60


def test_every_public_module_has_a_page_in_the_reference():
    names = modules()
    assert {"samplers", "schedules", "training", "course"} <= set(names)
    pages = reference(names)
    assert set(pages) == {f"reference/{name}.md" for name in (*names, "index")}
    assert all(f"[`{name}`]({name}.md)" in pages["reference/index.md"] for name in names)


def test_docstrings_keep_their_bars_and_tables():
    lines = ["The |x| of ``a | b``.", "", "    | a | b |", "    |---|---|", "    | 1 | 2 |"]
    assert as_rst(lines) == [
        r"The \|x\| of ``a | b``.",
        "",
        "",
        "    .. list-table::",
        "       :header-rows: 1",
        "",
        "       * - a",
        "         - b",
        "       * - 1",
        "         - 2",
        "",
    ]


def test_a_thumbnail_shows_the_figure_without_the_line_below_it():
    picture = Image.new("RGBA", (300, 200))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((20, 20, 279, 170), fill="red")
    draw.rectangle((20, 185, 120, 190), fill="blue")
    file = io.BytesIO()
    picture.save(file, "png")
    with Image.open(io.BytesIO(thumbnail(file.getvalue(), (80, 40)))) as small:
        assert small.size == (80, 40)
        shown = pil_to_tensor(small.convert("RGB"))
    assert shown[0].min() > 200
    assert shown[1:].max() < 60


def test_the_workflow_publishes_what_make_site_builds():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "pages.yml").read_text())
    build, publish = workflow["jobs"]["build"], workflow["jobs"]["publish"]
    assert "make site" in [step.get("run") for step in build["steps"]]
    uploads = [step for step in build["steps"] if "upload-pages" in step.get("uses", "")]
    assert uploads[0]["with"]["path"] == "build/site"
    assert publish["permissions"] == {"pages": "write", "id-token": "write"}
    assert 'ROOT / "build" / "site"' in (ROOT / "tools" / "build_site.py").read_text()
