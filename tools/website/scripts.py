"""Explorers on a page: the script of each kind once, and what each one holds, as plain scripts.

Plain scripts and not modules or JSON: these also load when a page is opened from a disk.
"""

from importlib import resources

from tutorial_lib.explorers.shared.bundle import bundle

ENTRY = """\
import {{ modelFrom }} from "./shared/page.js";
import {{ render }} from "./{kind}/widget.js";
window.courseExplorers.kinds.{kind} = {{ modelFrom, render }};
"""


def script(kind: str) -> str:
    """The script of the explorers of one kind, the name of their folder."""
    entry = ENTRY.format(kind=kind)

    def read(path: str) -> str:
        file = resources.files("tutorial_lib.explorers").joinpath(path)
        return entry if path == "page.js" else file.read_text(encoding="utf-8")

    return f"(() => {{\n{bundle('page.js', read)}}})();\n"


def held(name: str, state: str) -> str:
    """The script that brings what the explorer ``name`` holds, ``state`` in JSON."""
    return f'window.courseExplorers.held["{name}"] = String.raw`{state.strip()}`;\n'
