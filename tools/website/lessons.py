"""A solved notebook becomes a page of the site, with its explorers alive.

Solutions are folded, so that a reader can try first. Figures become files beside the page, with
their alternative texts, and an explorer's still picture waits until its script has come.
"""

import base64
import copy
import hashlib
import html
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from build_notebooks import EXPLORER, Lesson
from nbformat import NotebookNode
from repository import Repository

from website.links import Links

SOLUTION = {"code_prompt_show": "Show a solution", "code_prompt_hide": "Hide the solution"}
CODE = {"code_prompt_show": "Show the code", "code_prompt_hide": "Hide the code"}
KINDS = ("image/gif", "image/png")
DOORS = {
    "Colab": "a GPU of Google's, free",
    "Kaggle": "a GPU, free with an account",
    "Binder": "no account, two cores",
    "Codespaces": "VS Code in the browser",
}
"""What each place offers, in a few words."""


@dataclass
class Staged:
    """What the pages of lessons need beside their text.

    Attributes:
        pictures: the bytes of each picture, by its path on the site.
        explorers: which explorers are shown: page, kind, name of what it holds, still picture.
    """

    pictures: dict[str, bytes] = field(default_factory=dict)
    explorers: list[dict[str, str]] = field(default_factory=list)


def doors(repository: Repository | None, notebook: str) -> str:
    """Buttons that open ``notebook`` elsewhere, as HTML; nothing without a repository."""
    if repository is None:
        return ""
    buttons = " ".join(
        f'<a class="door" href="{html.escape(address)}" title="{DOORS[name]}">{name}</a>'
        for name, address in repository.doors(notebook).items()
    )
    return f'<p class="doors"><span>Do the exercises in</span> {buttons}</p>'


def live(kind: str, name: str, still: str, root: str) -> str:
    """The place of an explorer on a page: a still picture, until the script has come.

    Args:
        kind: the explorer's folder, "forward".
        name: of what it holds.
        still: HTML of the still picture.
        root: the way from the page to the top of the site, "../".
    """
    data = f'data-kind="{kind}" data-holds="{name}" data-root="{root}"'
    return f'<div class="explorer" id="{name}" {data}>{still}</div>'


def page(
    lesson: Lesson, learner: NotebookNode, solved: NotebookNode, links: Links, staged: Staged
) -> NotebookNode:
    """The page of ``lesson``; what it needs beside itself is added to ``staged``."""
    name = lesson.entry.name
    here, file = f"lessons/{name}.ipynb", f"notebooks/solutions/{name}.ipynb"
    shown = copy.deepcopy(solved)
    stubs = {cell.id: cell.source for cell in learner.cells}
    for cell in shown.cells:
        if cell.cell_type == "markdown":
            cell.source = links.seen_from(here, file, cell.source)
            continue
        tags = set(cell.metadata.get("tags", []))
        if stubs.get(cell.id, cell.source) != cell.source:
            tags.add("hide-input")
            cell.metadata["mystnb"] = dict(SOLUTION)
        elif "hide-input" in tags:
            cell.metadata["mystnb"] = dict(CODE)
        cell.metadata["tags"] = sorted(tags & {"hide-input", "raises-exception"})
        cell.outputs = [_output(output, here, lesson.explorers, staged) for output in cell.outputs]
    first = shown.cells[0]
    title, _, rest = first.source.partition("\n")
    button = doors(links.repository, f"notebooks/{lesson.entry.notebook}")
    first.source = f"{title}\n\n{button}\n{rest}"
    return shown


def _output(output: NotebookNode, here: str, explorers: Path, staged: Staged) -> NotebookNode:
    data: dict[str, Any] = output.get("data", {})
    kind = next((kind for kind in KINDS if kind in data), None)
    if kind is None:
        return output
    root = "../"
    raw = base64.b64decode(data[kind])
    about = output.metadata.get(kind, {})
    path = f"images/{hashlib.sha256(raw).hexdigest()[:16]}.{kind.partition('/')[2]}"
    staged.pictures[path] = raw
    alt = html.escape(about.get("alt", ""))
    width = f' width="{about["width"]}"' if "width" in about else ""
    picture = f'<img src="{root}{path}" alt="{alt}"{width} loading="lazy">'
    held = output.metadata.get(EXPLORER)
    if held:
        name = held.removesuffix(".json")
        folder = json.loads((explorers / held).read_text(encoding="utf-8"))["explorer"]
        entry = {"page": here, "kind": folder, "name": name, "still": path}
        staged.explorers.append(entry)
        picture = live(folder, name, picture, root)
    output.metadata = {}
    output.data = {"text/html": picture}
    return output
