"""The rules of the repository: lessons in order, layers, views apart, one vocabulary."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import jupytext
import pytest

from tutorial_lib import course

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted((ROOT / "notebooks" / "source").glob("*.py"))
MODULES = sorted((ROOT / "tutorial_lib").rglob("*.py"))

# What only views may draw with, and which modules are views.
DRAWING = {"matplotlib", "ipywidgets", "anywidget", "IPython"}
VIEWS = ("plots", "explorers", "checks", "__main__", "cli")
# The digits of `glyphs` are the outlines of fonts that matplotlib ships; nothing is plotted.
FONTS = ROOT / "tutorial_lib" / "datasets" / "glyph_fields.py"


def by_path(paths: list[Path]):
    return pytest.mark.parametrize(
        "path", paths, ids=[path.relative_to(ROOT).as_posix() for path in paths]
    )


def in_room(path: Path) -> str:
    """The module or subpackage of tutorial_lib that ``path`` belongs to."""
    return path.relative_to(ROOT / "tutorial_lib").parts[0].removesuffix(".py")


def tracked_files() -> list[Path]:
    """Every text file of the repository."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    paths = [ROOT / name for name in names if name and (ROOT / name).is_file()]
    return [path for path in paths if b"\0" not in path.read_bytes()[:4096]]


def imports(code: str) -> Iterator[tuple[str, str]]:
    """The modules that ``code`` imports, by their full names, and the lines that do it."""
    lines = code.splitlines()
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        statement = "\n".join(lines[node.lineno - 1 : node.end_lineno])
        if isinstance(node, ast.ImportFrom):
            yield node.module or "", statement
        for alias in node.names:
            name = alias.name if isinstance(node, ast.Import) else f"{node.module}.{alias.name}"
            yield name, statement


def taught_later(lesson: course.Lesson, code: str) -> list[str]:
    """Imports in a cell of ``lesson`` that belong to a later one and do not say `# preview`."""
    found = []
    for name, statement in imports(code):
        package, _, below = name.partition(".")
        teacher = course.taught_in(below) if package == "tutorial_lib" else None
        if teacher and teacher.name > lesson.name and "# preview" not in statement:
            found.append(f"{below} is taught in lesson {teacher.number}: {statement}")
    return found


@by_path([path for path in LESSONS if not path.name.startswith("00")])
def test_a_lesson_uses_what_was_taught(path: Path):
    """Later modules may be shown in advance where the import says `# preview: ...`.

    Lesson 0 is all preview: it shows what the course builds, and says so.
    """
    (lesson,) = [one for one in course.LESSONS if one.name == path.stem]
    for cell in jupytext.read(path, fmt="py:percent").cells:
        if cell.cell_type == "code":
            code = re.sub(r"^[%!].*$", "", cell.source, flags=re.MULTILINE)
            assert taught_later(lesson, code) == []


@pytest.mark.parametrize(
    ("code", "noticed"),
    [
        ("from tutorial_lib.samplers import ddim", True),
        ("from tutorial_lib import samplers", True),
        ("import tutorial_lib.samplers", True),
        ("if True:\n    import tutorial_lib.guidance as g", True),
        ("from tutorial_lib.samplers import ddim  # preview: lesson 6 explains it", False),
        ("from tutorial_lib import schedules, plots", False),
        ("from tutorial_lib.training.config import TrainConfig", True),
        ("import torch", False),
    ],
)
def test_an_import_out_of_order_is_noticed(code: str, noticed: bool):
    assert bool(taught_later(course.LESSONS[3], code)) is noticed


def test_the_layers_have_no_exceptions():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    contracts = {contract["id"]: contract for contract in settings["contracts"]}
    assert {"layers", "circles", "framework", "views"} <= set(contracts)
    assert contracts["layers"]["exhaustive"]
    for contract in contracts.values():
        assert not {"ignore_imports", "exhaustive_ignores"} & set(contract)
    assert "lesson0" not in str(settings)


@by_path([path for path in MODULES if not in_room(path).startswith(VIEWS) and path != FONTS])
def test_only_views_draw(path: Path):
    used = {name.split(".")[0] for name, _ in imports(path.read_text())}
    assert not used & DRAWING


def test_schedules_load_without_matplotlib_and_widgets():
    code = f"import sys, tutorial_lib.schedules; print(sorted({DRAWING} & sys.modules.keys()))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_the_package_needs_nothing_but_its_requirements_to_load():
    """Every module loads where the test extra is missing."""
    code = (
        "import importlib, pkgutil, sys\n"
        "for name in ('diffusers', 'hypothesis', 'pytest', 'beartype', 'yaml', 'playwright'):\n"
        "    sys.modules[name] = None\n"
        "import tutorial_lib\n"
        "for found in pkgutil.walk_packages(tutorial_lib.__path__, 'tutorial_lib.'):\n"
        "    if not found.name.endswith('__main__'):\n"
        "        importlib.import_module(found.name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Traces of a single machine, and second names for what the course has named already.
UNWANTED = {
    "a path of one machine": r"(?<![\w./:~-])/(?:home|root|Users|work)/\w",
    "a mark of unfinished work": r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX)\b",
    "a merge conflict": r"^(?:<{7}|>{7}) ",
    "an address of a package registry": r"files\.python"
    + r"hosted\.org|registry\.npm"
    + r"js\.org",
}
SYNONYMS = r"\b(?:alphas_cum" + r"prod|alpha_cum" + r"prod|alphabar|alpha_hat|sqrt_alpha\w*)\b"


def test_no_file_contains_anything_unwanted():
    found = []
    for path in tracked_files():
        text = path.read_text(encoding="utf-8", errors="strict")
        for what, pattern in UNWANTED.items():
            for match in re.finditer(pattern, text, re.MULTILINE):
                line = text.count("\n", 0, match.start()) + 1
                found.append(f"{path.relative_to(ROOT)}:{line}: {what}: {match.group()}")
    assert found == []


@by_path(MODULES)
def test_a_quantity_has_one_name(path: Path):
    names = {
        node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)
    }
    assert not [name for name in names if re.fullmatch(SYNONYMS, name)]


def local_links(text: str) -> list[str]:
    """The files that Markdown links to or shows, without the web and without places in a page."""
    found = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset|href)=\"([^\"]+)\"", text)
    links = [one or other for one, other in found]
    return [link.split("#")[0] for link in links if not re.match(r"[a-z]+:|#", link)]


@by_path(sorted(path for path in tracked_files() if path.suffix == ".md"))
def test_links_in_pages_lead_somewhere(path: Path):
    missing = [
        link for link in local_links(path.read_text("utf-8")) if not (path.parent / link).exists()
    ]
    assert missing == []


def test_links_are_found():
    text = '[a](b.md#c) ![d](e.png) <img src="f.png"> [g](https://h.i) [j](#k)'
    assert local_links(text) == ["b.md", "e.png", "f.png"]
