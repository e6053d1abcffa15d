"""The oldest versions that pyproject.toml allows of some packages, for pip.

    pip install $(python tools/oldest.py torch torchvision)

Prints ``torch==2.6.* torchvision==0.21.*``. A job of CI runs the tests with these.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def oldest(name: str, requirements: list[str]) -> str:
    """The requirement of the oldest release of ``name`` that ``requirements`` allow.

    Raises:
        ValueError: they say nothing of ``name``, or name no oldest release.
    """
    for text in requirements:
        found = re.match(r"([\w.-]+) *>= *([\d.]+)", text)
        if found and found[1] == name:
            return f"{name}=={found[2]}.*"
    raise ValueError(f"pyproject.toml names no oldest release of {name!r}")


def main(names: list[str]) -> int:
    """The command line; returns the exit code."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    try:
        print(*(oldest(name, project["dependencies"]) for name in names))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
