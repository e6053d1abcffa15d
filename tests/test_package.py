"""The installed package, away from the checkout: it has what ships, draws digits, runs lesson 0.

With its core alone, too: the packages that its metadata asks for, and those that these ask for.
"""

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
Run = Callable[..., subprocess.CompletedProcess[str]]

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
SHIPPED = {
    "mnist.json",
    "mnist.safetensors",
    "words.json",
    "words.safetensors",
    "autoencoders/scenes.json",
    "autoencoders/scenes.safetensors",
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


ONLY = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] not in REFUSED:
            return super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
"""
"""Hides the packages in REFUSED, as if they were not installed."""

NEEDS_MORE = """
import importlib
for name in ("plots", "explorers"):
    try:
        importlib.import_module(f"tutorial_lib.{name}")
    except ModuleNotFoundError as error:
        print(type(error).__name__, error)
"""


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


def test_wheel_and_source_distribution_fit_for_pypi(wheel: Path, tmp_path: Path) -> None:
    words = ("-m", "hatchling", "build", "--target", "sdist", "--directory", str(tmp_path))
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)
    (archive,) = tmp_path.glob("tutorial_lib-*.tar.gz")
    words = ("-m", "twine", "check", "--strict", str(wheel), str(archive))
    checked = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    assert checked.stdout.count("PASSED") == 2


def asked_for(requirements: list[str]) -> set[str]:
    """The distributions that ``requirements`` bring, on this machine, by their canonical names."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in found or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        waiting += [Requirement(text) for text in distribution(name).requires or []]
    return found


def brought_by(wheel: Path, extra: str = "") -> set[str]:
    """The distributions that come with the wheel, and with one of its extras."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    lines = [line.partition(": ")[2] for line in metadata.splitlines() if "Requires-Dist" in line]
    parts = [line.partition("extra ==") for line in lines]
    wanted = [head.partition(";")[0] for head, _, of in parts if of.strip(" '\"") in ("", extra)]
    return asked_for(wanted)


def hiding_all_but(brought: set[str]) -> str:
    """Code that makes Python see these distributions only, and the course."""
    refused = {
        package
        for package, owners in packages_distributions().items()
        if not brought & {canonicalize_name(owner) for owner in owners}
    } - {"tutorial_lib"}
    return f"REFUSED = {refused!r}\n{ONLY}\n"


@pytest.mark.long("each runs a whole lesson")
@pytest.mark.parametrize("name", ["00_start_here", "01_noise_schedules"])
def test_lessons_run_as_on_colab(wheel: Path, installed: Run, name: str) -> None:
    """With the wheel and its extra for notebooks alone, in another folder than the checkout's.

    A learner's notebook from its first cell on, as a plain program: what cells show in a notebook
    is printed or left out.
    """
    brought = brought_by(wheel, "notebook")
    assert {"torch", "ipykernel", "anywidget"} <= brought
    assert not brought & {"jupyterlab", "pytest", "jupytext", "diffusers"}
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    assert "find_spec" in code[0]
    done = installed("-c", "\n\n".join([hiding_all_but(brought), *code]))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Lesson {int(name[:2])} · ")


def test_the_core_trains_and_samples_without_a_jupyter(wheel: Path, installed: Run) -> None:
    """Whatever the core does not ask for is hidden; what needs it names the extra to install."""
    core = brought_by(wheel)
    assert {"torch", "numpy", "safetensors"} <= core
    assert not core & {"jupyterlab", "ipython", "ipykernel", "ipywidgets", "anywidget", "pytest"}
    hidden = hiding_all_but(core)
    run = f"{hidden}\nimport sys; from tutorial_lib.cli import main; sys.exit(main(sys.argv[1:]))"
    few = ("--device", "cpu", "--out")
    for words in (
        ("train", "--dataset", "glyphs", "--steps", "2", "--no-progress", *few, "run"),
        ("sample", "--count", "4", "--steps", "2", *few, "core.png"),
    ):
        done = installed("-c", run, *words)
        assert done.returncode == 0, done.stderr
    graded = installed("-c", run, "progress", ".")
    assert graded.returncode == 1
    missing = "must be installed: pip install 'tutorial_lib[notebook]'"
    assert graded.stderr.startswith("error: to run notebooks, ")
    assert missing in graded.stderr
    shown = installed("-c", hidden + NEEDS_MORE).stdout.splitlines()
    assert [line.partition(",")[0] for line in shown] == [
        "MissingPackageError to draw figures",
        "MissingPackageError to show explorers",
    ]
    assert all(line.endswith(missing) for line in shown)
