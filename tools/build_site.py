"""Builds the website into build/site, without a network.

    python tools/build_site.py              or: make site
    python tools/build_site.py --out FOLDER

What the site shows is staged first: the solved lessons with their explorers, the front page, the
pages of docs/, and those made from the manifest, the claims and the library's docstrings. Sphinx
then makes the pages. Its warnings are errors, a link that leads nowhere is one; but for those about
how a docstring is laid out, which are only shown. Links to the repository, to Colab and so on come
from tools/repository.py.
"""

import argparse
import io
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
ROOT = TOOLS.parent
sys.path[:0] = [str(TOOLS), str(ROOT)]

import nbformat  # noqa: E402
from build_notebooks import lessons  # noqa: E402
from repository import published  # noqa: E402
from sphinx.application import Sphinx  # noqa: E402
from sphinx.util.docutils import docutils_namespace, patch_docutils  # noqa: E402
from website import front, words  # noqa: E402
from website.formulas import FILES, KATEX  # noqa: E402
from website.lessons import Staged, page  # noqa: E402
from website.links import Links  # noqa: E402
from website.scripts import held, script  # noqa: E402

import tutorial_lib  # noqa: E402

TITLE = "Diffusion models, from noise to pictures"
GUIDES = ("training", "diffusers", "where_to_go", "teachers")
FILES_WITH_PAGES = {
    **{f"docs/{name}.md": f"guides/{name}.md" for name in GUIDES},
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
}
WARNS, DOCSTRING = re.compile(r"\b(WARNING|ERROR|CRITICAL): "), ":docstring of "
PICTURES = {"notebooks/images": "images", "docs": "images"}


def stage(root: Path, source: Path) -> None:
    """Writes all that Sphinx builds the site of ``root`` from into the new folder ``source``."""
    repository, course = published(root), lessons(root)
    pages = dict(FILES_WITH_PAGES)
    for lesson in course:
        for folder in ("notebooks", "notebooks/solutions"):
            pages[f"{folder}/{lesson.entry.notebook}"] = f"lessons/{lesson.entry.notebook}"
    links, staged = Links(repository, pages, PICTURES), Staged()

    solved = []
    for lesson in course:
        learner, notebook = (
            nbformat.read(p, as_version=4) for p in (lesson.learner, lesson.solved)
        )
        solved.append((lesson, notebook))
        shown = page(lesson, learner, notebook, links, staged)
        _write(source / "lessons" / lesson.entry.notebook, nbformat.writes(shown))
    for file, target in FILES_WITH_PAGES.items():
        if target != "index.md":
            text = (root / file).read_text(encoding="utf-8")
            _write(source / target, links.seen_from(target, file, text))
    made = {
        "index.md": front.index(course, repository, staged, TITLE),
        "explorers.md": front.gallery(staged, course, repository),
        "lessons.md": words.lessons_page(course),
        "glossary.md": words.glossary(
            words.terms((root / "CONTRIBUTING.md").read_text(encoding="utf-8"), solved)
        ),
        "claims.md": words.claims(root / "benchmarks" / "results" / "claims", course),
        **words.reference(words.modules()),
    }
    for path, text in made.items():
        _write(source / path, text)

    extra = source / "_extra"
    for pattern in ("notebooks/images/*", "docs/*.png"):
        for picture in root.glob(pattern):
            staged.pictures[f"images/{picture.name}"] = picture.read_bytes()
    for path, data in staged.pictures.items():
        (extra / path).parent.mkdir(parents=True, exist_ok=True)
        (extra / path).write_bytes(data)
    for kind in {shown["kind"] for shown in staged.explorers}:
        _write(extra / "explorers" / f"{kind}.js", script(kind))
    for shown in staged.explorers:
        name = shown["name"]
        state = (root / "notebooks" / "explorers" / f"{name}.json").read_text(encoding="utf-8")
        _write(extra / "explorers" / f"{name}.js", held(name, state))
    _write(extra / ".nojekyll", "")  # GitHub Pages leaves folders with an underscore out otherwise
    katex = source / "_static" / "katex"
    for pattern in FILES:
        for file in KATEX.glob(pattern):
            path = katex / file.relative_to(KATEX)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, path)
    _write(
        source / "_static" / "explorer.css",
        (root / "tutorial_lib/explorers/shared/stage.css").read_text("utf-8"),
    )


def build(root: Path, out: Path) -> int:
    """Builds the site of ``root`` into ``out`` anew; returns the exit code."""
    work = out.with_name(f"{out.name}-work")
    for folder in (work, out):
        shutil.rmtree(folder, ignore_errors=True)
    stage(root, work / "source")
    repository = published(root)
    site = {
        "source": str(work / "source"),
        "title": TITLE,
        "version": tutorial_lib.__version__,
        "address": repository.site if repository else "",
        "repository": repository.address if repository else "",
    }
    os.environ["TUTORIAL_SITE"] = json.dumps(site)
    warnings = io.StringIO()
    with patch_docutils(str(TOOLS / "website")), docutils_namespace():
        sphinx = Sphinx(
            srcdir=work / "source",
            confdir=TOOLS / "website",
            outdir=out,
            doctreedir=work / "doctrees",
            buildername="html",
            status=None,
            warning=warnings,
        )
        sphinx.build()
    told = warnings.getvalue()
    print(told, end="", file=sys.stderr)
    serious = [line for line in told.splitlines() if WARNS.search(line) and DOCSTRING not in line]
    return sphinx.statuscode or int(bool(serious))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Build the website.")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site", help="where it goes")
    options = parser.parse_args(arguments)
    begun = time.perf_counter()
    code = build(ROOT, options.out.resolve())
    if code == 0:
        print(f"{options.out / 'index.html'}, in {time.perf_counter() - begun:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())
