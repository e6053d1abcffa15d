"""Is this tag a release? And what is new in it?

    python tools/release.py v0.1.0 > notes.md

Prints the section of CHANGELOG.md about this version, for the page of the release. Refuses a tag
that is not the version of tutorial_lib/__init__.py, and a version that the changelog does not have.
The workflow of a release (.github/workflows/release.yml) asks it before it builds anything.
"""

import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class ReleaseError(ValueError):
    """The tag is not a release of what is here, and the message says why."""


def version(root: Path) -> str:
    """The version in ``tutorial_lib/__init__.py``, the one place that has it."""
    for node in ast.parse((root / "tutorial_lib" / "__init__.py").read_text("utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__version__")], value=ast.Constant(value=found)):
                return str(found)
    raise ReleaseError("tutorial_lib/__init__.py has no __version__")


def notes(root: Path, tag: str) -> str:
    """What CHANGELOG.md says of the release ``tag``, "v0.1.0".

    Raises:
        ReleaseError: the tag is not this version, or the changelog has nothing on it.
    """
    found = version(root)
    if tag != f"v{found}":
        raise ReleaseError(
            f"tutorial_lib/__init__.py has version {found}, so its tag is v{found}, not {tag}"
        )
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    section = re.search(
        rf"^## \[?{re.escape(found)}\]?(?: - \d{{4}}-\d\d-\d\d)$\n(.*?)(?=^## |\Z)",
        text,
        re.MULTILINE | re.DOTALL,
    )
    if section is None or not section[1].strip():
        raise ReleaseError(
            f"CHANGELOG.md needs a section '## {found} - YEAR-MONTH-DAY' that says what is new"
        )
    return section[1].strip() + "\n"


def main(arguments: list[str]) -> int:
    """The command line; returns the exit code."""
    if len(arguments) != 1:
        print("give the tag: python tools/release.py v0.1.0", file=sys.stderr)
        return 2
    try:
        print(notes(ROOT, arguments[0]), end="")
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
