"""The installed package, away from the checkout: it has what ships, draws digits, runs lesson 0."""

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
Run = Callable[..., subprocess.CompletedProcess[str]]

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
SHIPPED = {
    "mnist.json",
    "mnist.safetensors",
    "judge/digit_classifier.json",
    "judge/digit_classifier.safetensors",
    "judge/digit_reference.json",
    "judge/digit_reference.safetensors",
}

NO_CHECKOUT = """
import sys
from pathlib import Path

def is_checkout(path):
    return (path / "pyproject.toml").exists() and (path / "tutorial_lib").exists()

sys.path[:] = [path for path in sys.path if not is_checkout(Path(path))]
"""
"""Takes every checkout off ``sys.path``; Python runs it at its start, as ``sitecustomize``."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the checkout, built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    words = ("wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", str(ROOT))
    subprocess.run([*PIP, *words, "--wheel-dir", str(folder)], check=True, capture_output=True)
    (built,) = folder.glob("tutorial_lib-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs Python in an empty folder, with the package from the wheel in place of the checkout."""
    site, folder = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("elsewhere")
    words = ("install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel))
    subprocess.run([*PIP, *words], check=True, capture_output=True)
    (site / "sitecustomize.py").write_text(NO_CHECKOUT)
    inherited = {name: value for name, value in os.environ.items() if name != "TUTORIAL_DATA"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words],
            cwd=folder,
            env={**inherited, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_wheel_contains_the_library_and_what_ships(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.getinfo(name).file_size for name in archive.namelist()}
    library = [path.relative_to(ROOT) for path in (ROOT / "tutorial_lib").rglob("*")]
    kinds = (".py", ".js", ".css", ".typed")
    assert {path.as_posix() for path in library if path.suffix in kinds} <= held.keys()
    inside = {name.partition("_shipped/")[2]: name for name in held if "_shipped/" in name}
    assert inside.keys() == SHIPPED
    for name, place in inside.items():
        assert held[place] == (ROOT / "data" / name).stat().st_size


def test_a_wheel_can_be_built_from_the_source_distribution(wheel: Path, tmp_path: Path) -> None:
    """It contains the same files as one built from the checkout."""
    words = ("-m", "hatchling", "build", "--target", "sdist", "--directory", str(tmp_path))
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)
    (archive,) = tmp_path.glob("tutorial_lib-*.tar.gz")
    with tarfile.open(archive) as sources:
        sources.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert all((unpacked / "data" / name).is_file() for name in SHIPPED)
    words = ("-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path))
    subprocess.run([sys.executable, *words], cwd=unpacked, check=True, capture_output=True)
    (again,) = tmp_path.glob("tutorial_lib-*.whl")
    names = [set(zipfile.ZipFile(path).namelist()) for path in (wheel, again)]
    assert names[0] == names[1]


def test_it_draws_digits_in_any_folder(installed: Run) -> None:
    found = "import os, sys, tutorial_lib; print(tutorial_lib.__file__, os.getcwd(), *sys.path)"
    where = installed("-c", found)
    library, folder, *path = where.stdout.split()
    assert str(ROOT) not in path, where.stderr
    assert not Path(library).is_relative_to(ROOT)
    words = ("--count", "4", "--steps", "2", "--device", "cpu", "--out", "digits.png")
    drawn = installed("-m", "tutorial_lib", "sample", *words)
    assert drawn.returncode == 0, drawn.stderr
    with Image.open(Path(folder) / "digits.png") as picture:
        assert picture.size == (2 * 30 - 2, 2 * 30 - 2)


@pytest.mark.long("a kernel runs a whole lesson")
def test_lesson_0_runs_in_any_folder(installed: Run) -> None:
    """As a plain program: what its cells show in a notebook is printed or left out."""
    path = ROOT / "notebooks" / "solutions" / "00_start_here.ipynb"
    cells = nbformat.read(path, as_version=4).cells
    code = "\n\n".join(cell.source for cell in cells if cell.cell_type == "code")
    done = installed("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Lesson 0 · Start here\n")
