"""The tables of claims say what benchmarks/claims.py measured, and nothing else."""

import argparse
import importlib
import json
import math
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks"
sys.path.insert(0, str(FOLDER))
claims = importlib.import_module("claims")
measured = importlib.import_module("measured.claim")
KNOWN = claims.claims()


def test_every_claim_has_been_measured_and_nothing_else():
    assert list(claims.stored()) == list(KNOWN), "run python benchmarks/claims.py"


def test_the_texts_follow_from_the_numbers():
    for name, entry in claims.stored().items():
        texts = claims.rendered(*KNOWN[name], entry["numbers"])
        assert {key: entry[key] for key in texts} == texts, f"claims.py --render: {name}"


def test_readme_has_the_table_of_what_was_measured():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == claims.with_table(text, claims.stored()), "claims.py --render"


@pytest.mark.long("each trains or samples, at tiny sizes")
def test_each_claim_can_be_measured_again(tmp_path: Path):
    before = claims.stored()
    out = tmp_path / "out.json"
    words = [sys.executable, FOLDER / "claims.py", "--quick", "--json", out]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert [row["claim"] for row in rows] == [claim.claim for _, claim in KNOWN.values()]
    for row in rows:
        leaves = [leaf for leaf in tree_leaves(row["numbers"]) if isinstance(leaf, float)]
        assert leaves, row["claim"]
        assert all(math.isfinite(leaf) for leaf in leaves), row["claim"]
    assert claims.stored() == before


def test_paired_differences_leave_out_what_a_seed_does_to_both():
    luck = [0.0, 5.0, -3.0, 2.0]
    first, second = [1.1 + x for x in luck], [1.0 + x for x in luck]
    first[0] += 0.02
    found = measured.paired(first, second)
    differences = [0.12, 0.1, 0.1, 0.1]
    assert found.mean == pytest.approx(statistics.mean(differences))
    assert found.error == pytest.approx(statistics.stdev(differences) / 2)
    assert found.words == "told apart"
    assert measured.paired(second, first).mean == pytest.approx(-found.mean)


def test_student_and_not_the_normal_law_decides_for_few_seeds():
    """Three seeds, mean 3 standard errors from 0: the normal law would call it a difference."""
    first = [2.0 + x for x in (-math.sqrt(4 / 3), 0.0, math.sqrt(4 / 3))]
    found = measured.paired(first, [0.0, 0.0, 0.0])
    assert found.mean / found.error == pytest.approx(3.0)
    assert found.words == "not told apart"


@pytest.mark.parametrize(("first", "second"), [([1.0], [1.0]), ([1.0, 2.0], [1.0])])
def test_what_are_no_pairs_is_refused(first: list[float], second: list[float]):
    with pytest.raises(ValueError, match="first"):
        measured.paired(first, second)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1.0, 1.2], "1.10 ± 0.10"),
        ([100.0, 130.0], "115 ± 15"),
        ([0.001, 0.0012], "0.00110 ± 0.00010"),
    ],
)
def test_an_error_shows_two_digits(values: list[float], text: str):
    assert measured.mean_and_error(values) == text


def example(verdict: str = "yes", number: str = "1") -> Any:
    return measured.Claim("a", "A.", lambda quick: {}, lambda n: verdict, lambda n: number)


def test_a_text_too_long_for_a_row_is_refused():
    claims.rendered("1", example(), {})
    with pytest.raises(ValueError, match="number of a has 31 words"):
        claims.rendered("1", example(number="word " * 31), {})
    with pytest.raises(ValueError, match="verdict of a has 13 words"):
        claims.rendered("1", example(verdict="word " * 13), {})


def test_a_measurement_outlives_a_text_that_is_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(claims, "RESULTS", tmp_path)
    older = {"b": {"numbers": {"from before": 1}}}
    (tmp_path / "lesson01.json").write_text(json.dumps(older))
    options = argparse.Namespace(quick=False, seed="its own")
    with pytest.raises(ValueError, match="number of a has 31 words"):
        claims.measure("a", "1", example(number="word " * 31), options)
    found = json.loads((tmp_path / "lesson01.json").read_text())
    assert set(found) == {"a", "b"}, "and what others measured is still there"
    assert found["a"]["numbers"] == {}
    assert found["b"] == older["b"]


def test_a_readme_without_the_marks_is_refused():
    with pytest.raises(ValueError, match="one pair of lines"):
        claims.with_table("no marks", {})


def test_the_lessons_tables_are_made_from_the_results(tmp_path: Path):
    from build_notebooks import LessonError, claims_table

    from tutorial_lib import course

    row = {"lesson": "6", "claim": "A.", "verdict": "yes", "number": "1 ± 2"}
    (tmp_path / "lesson06.json").write_text(json.dumps({"a": row, "b": row | {"claim": "B."}}))
    entries = {lesson.checks: lesson for lesson in course.LESSONS}
    rows = claims_table(tmp_path, entries["lesson06"]).splitlines()[2:]
    assert rows == ["| A. | yes | 1 ± 2 |", "| B. | yes | 1 ± 2 |"]
    with pytest.raises(LessonError, match=re.escape("python benchmarks/claims.py lesson07")):
        claims_table(tmp_path, entries["lesson07"])
