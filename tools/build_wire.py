"""Builds what the explorers' scripts know of Python: constants, and the types of traits.

tutorial_lib/explorers/shared/wire.js       the constants of wire.py
tutorial_lib/explorers/shared/traits.d.ts   each widget's traits, for the type checker

python tools/build_wire.py            write both
python tools/build_wire.py --check    change nothing, exit 1 if one is stale
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import traitlets

from tutorial_lib import explorers
from tutorial_lib.explorers.shared import wire
from tutorial_lib.explorers.shared.base import Explorer

SHARED = Path(__file__).resolve().parents[1] / "tutorial_lib" / "explorers" / "shared"
MADE = "// Made by tools/build_wire.py from {}: change it there.\n"
WIDTH = 100
TYPES = {
    traitlets.Bool: "boolean",
    traitlets.Bytes: "DataView",
    traitlets.Float: "number",
    traitlets.Int: "number",
    traitlets.Unicode: "string",
}


def files() -> dict[Path, str]:
    """Each file and what belongs in it."""
    return {SHARED / "wire.js": constants(), SHARED / "traits.d.ts": traits()}


def constants() -> str:
    """wire.js: every public name of wire.py in capitals, and its enumerations."""
    lines = []
    for name, value in vars(wire).items():
        if isinstance(value, type) and issubclass(value, StrEnum) and value is not StrEnum:
            members = {member.name: member.value for member in value}
            lines.append(_constant(name.upper(), members))
        elif name.isupper():
            lines.append(_constant(name, value))
    return MADE.format("wire.py") + "\n" + "\n".join(lines) + "\n"


def _constant(name: str, value: object) -> str:
    """``export const name = value;``, as the formatter would write it."""
    if isinstance(value, Mapping):
        entries = [f"{key}: {json.dumps(each)}" for key, each in value.items()]
        value_text = "Object.freeze({\n" + "".join(f"  {entry},\n" for entry in entries) + "})"
    elif isinstance(value, tuple):
        value_text = f"Object.freeze({json.dumps(list(value))})"
    elif isinstance(value, float):
        value_text = re.sub(r"e\+?(-?)0*", r"e\1", json.dumps(value))  # 1e-5, not 1e-05
    else:
        value_text = json.dumps(value)
    line = f"export const {name} = {value_text};"
    if max(map(len, line.splitlines())) > WIDTH:
        raise ValueError(f"{name} does not fit a line of {WIDTH} letters")
    return line


def traits() -> str:
    """traits.d.ts: an interface for each widget."""
    blocks = []
    for name in explorers.__all__:
        widget: type[Explorer] = getattr(explorers, name)
        rows = "".join(
            f"  {trait}: {typescript(kind)};\n" for trait, kind in sorted(synced(widget).items())
        )
        blocks.append(f"export interface {name}Traits {{\n{rows}}}\n")
    return MADE.format("the widgets' classes") + "\n" + "\n".join(blocks)


def synced(widget: type[Explorer]) -> dict[str, traitlets.TraitType]:
    """The traits that a widget's own class shares with its script."""
    return widget.class_own_traits(sync=True)


def typescript(kind: traitlets.TraitType) -> str:
    """The type of a trait's value in a script.

    Raises:
        TypeError: a kind that is not known here, or a list or dict that does not name its contents.
    """
    if isinstance(kind, traitlets.List) and kind._trait is not None:
        return f"{typescript(kind._trait)}[]"
    if isinstance(kind, traitlets.Dict) and kind._per_key_traits:
        fields = (f"{key}: {typescript(each)}" for key, each in kind._per_key_traits.items())
        return f"{{ {'; '.join(fields)} }}"
    if type(kind) not in TYPES:
        raise TypeError(f"{kind.name or kind!r} has no type for scripts: name it in TYPES")
    return TYPES[type(kind)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if stale")
    options = parser.parse_args()
    made = files()
    stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    if options.check and stale:
        names = ", ".join(path.name for path in stale)
        sys.exit(f"{names}: stale, run python tools/build_wire.py (or make fix)")
    for path in stale:
        path.write_text(made[path], encoding="utf-8")
        print(path.name)


if __name__ == "__main__":
    main()
