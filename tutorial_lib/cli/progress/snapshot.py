"""The library as it was when the grading began, for every kernel anew."""

import os
from pathlib import Path

import tutorial_lib
from tutorial_lib.checkpoints import SHIPPED

SHIPPED_FILES = ("*.json", "*.safetensors", "judge/*")


class Library:
    """A copy of ``tutorial_lib``, and of what ships with it, in memory.

    Each notebook gets it in a folder of its own: what one changes there, the next does not see.
    """

    def __init__(self) -> None:
        package = Path(tutorial_lib.__file__).parent
        files = [file for file in package.rglob("*") if "__pycache__" not in file.parts]
        self._files = {
            Path(package.name, file.relative_to(package)): file.read_bytes()
            for file in files
            if file.is_file()
        }
        if not SHIPPED.is_relative_to(package):
            for pattern in SHIPPED_FILES:
                for file in SHIPPED.glob(pattern):
                    self._files[Path(SHIPPED.name, file.relative_to(SHIPPED))] = file.read_bytes()

    def write(self, folder: Path) -> Path:
        """Writes the copy into ``folder``, which is then what belongs on Python's path."""
        for name, content in self._files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return folder


def python_path(library: Path, beside: Path) -> str:
    """PYTHONPATH for a kernel: the library, then what is on it now, but nothing of ``beside``.

    Args:
        library: where a copy of the library is.
        beside: the folder of the notebook; a relative entry would mean it.
    """
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    others = [Path(entry).resolve() for entry in given if entry]
    kept = [str(entry) for entry in others if entry != beside.resolve()]
    return os.pathsep.join([str(library), *kept])
