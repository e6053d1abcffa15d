"""The installed package, away from the checkout: it has what ships, draws digits, runs lesson 0."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
Run = Callable[..., subprocess.CompletedProcess[str]]

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")


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


def test_the_wheel_holds_the_library_and_what_ships(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    library = [path.relative_to(ROOT) for path in (ROOT / "tutorial_lib").rglob("*")]
    kinds = (".py", ".js", ".css", ".typed")
    assert {path.as_posix() for path in library if path.suffix in kinds} <= held
    shipped = [*(ROOT / "data").glob("mnist.*"), *(ROOT / "data" / "judge").iterdir()]
    inside = {path.relative_to(ROOT / "data").as_posix() for path in shipped}
    assert len(inside) == 6
    assert {name.partition("_shipped/")[2] for name in held if "_shipped/" in name} == inside


def test_it_draws_digits_from_any_folder(installed: Run) -> None:
    where = installed("-c", "import tutorial_lib; print(tutorial_lib.__file__)")
    assert not Path(where.stdout.strip()).is_relative_to(ROOT), where.stderr
    words = ("--count", "4", "--steps", "2", "--device", "cpu", "--out", "digits.png")
    drawn = installed("-m", "tutorial_lib", "sample", *words)
    assert drawn.returncode == 0, drawn.stderr
    folder = installed("-c", "import os; print(os.getcwd())").stdout.strip()
    with Image.open(Path(folder) / "digits.png") as picture:
        assert picture.size == (2 * 30 - 2, 2 * 30 - 2)


def test_lesson_0_runs_from_any_folder(installed: Run) -> None:
    """As a plain program: what its cells show in a notebook is printed or left out."""
    path = ROOT / "notebooks" / "solutions" / "00_start_here.ipynb"
    cells = nbformat.read(path, as_version=4).cells
    code = "\n\n".join(cell.source for cell in cells if cell.cell_type == "code")
    done = installed("-c", code)
    assert done.returncode == 0, done.stderr
    assert "running on" in done.stdout
