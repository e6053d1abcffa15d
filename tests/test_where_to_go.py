"""docs/where_to_go.md is true: the names and defaults of diffusers that it states are there."""

import ast
import importlib.util
import re
from pathlib import Path

import diffusers
import pytest

import tutorial_lib.samplers as samplers
from tutorial_lib import editing, flows

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "where_to_go.md").read_text(encoding="utf-8")
PIPELINES = re.findall(
    r"^\| `(\w+Pipeline)`[^|]*\| ([\d.]*) *\| ([\d.]*) *\| ([\d.]*) *\|$", PAGE, re.M
)


def rows(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its head."""
    part = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    table = part[part.index("\n|") + 1 :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def defaults(pipeline: str) -> dict[str, object]:
    """The defaults of a pipeline's call, read from its source: importing it needs transformers."""
    spec = importlib.util.find_spec("diffusers")
    assert spec is not None
    assert spec.origin is not None
    for path in (Path(spec.origin).parent / "pipelines").rglob("pipeline_*.py"):
        text = path.read_text(encoding="utf-8")
        if f"class {pipeline}(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and node.name == pipeline:
                calls = (part for part in node.body if isinstance(part, ast.FunctionDef))
                call = next(part for part in calls if part.name == "__call__")
                names = [argument.arg for argument in call.args.args]
                values = call.args.defaults
                return {
                    name: value.value
                    for name, value in zip(names[-len(values) :], values, strict=True)
                    if isinstance(value, ast.Constant)
                }
    raise AssertionError(f"diffusers has no {pipeline}")


def test_the_table_of_pipelines_is_read():
    assert len(PIPELINES) == len(rows("Settings that are common")) == 10


@pytest.mark.parametrize(("pipeline", "steps", "guidance", "strength"), PIPELINES)
def test_the_defaults_are_those_of_diffusers(pipeline, steps, guidance, strength):
    found = defaults(pipeline)
    said = {"num_inference_steps": steps, "guidance_scale": guidance, "strength": strength}
    for name, value in said.items():
        assert found.get(name) == (float(value) if value else None), name


def test_every_sampler_has_a_row_and_its_scheduler_exists():
    table = rows("Samplers")
    ours = {cell for row in table for cell in re.findall(r"`([\w.]+)`", row[0])}
    assert set(samplers.SAMPLERS) <= ours
    for row in table:
        for name in re.findall(r"`(\w+Scheduler)`", row[1]):
            assert hasattr(diffusers, name), name
    assert hasattr(samplers, "karras_spaced")
    assert hasattr(flows, "euler")


def test_what_it_calls_ours_is_ours():
    words = {
        name for row in rows("Words for the same thing") for name in re.findall(r"`(\w+)`", row[0])
    }
    assert {"edit", "inpaint", "solve_linear", "consistent"} <= words
    for name in ("edit", "inpaint", "solve_linear", "consistent"):
        assert hasattr(editing, name)
