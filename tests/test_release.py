"""What a release needs: a tag that fits, a section of the changelog, versions stated once."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from oldest import oldest
from release import ReleaseError, notes

import tutorial_lib

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def course(root: Path, changelog: str) -> Path:
    """A folder with a library of version 1.2.0 and this changelog."""
    (root / "tutorial_lib").mkdir()
    (root / "tutorial_lib" / "__init__.py").write_text(
        '"""A library."""\n\n__version__ = "1.2.0"\n'
    )
    (root / "CHANGELOG.md").write_text(changelog)
    return root


def test_the_version_is_stated_once():
    assert version("tutorial_lib") == tutorial_lib.__version__
    project = (ROOT / "pyproject.toml").read_text()
    assert tutorial_lib.__version__ not in re.findall(r"^version = .*", project, re.MULTILINE)
    assert 'dynamic = ["version"]' in project


def test_the_notes_of_a_release_are_its_section_of_the_changelog(tmp_path: Path):
    newer, this, older = "## Unreleased\n\n- c", "### Added\n\n- b", "## 1.1.0 - 2025-12-01\n\n- a"
    text = "\n\n".join(["# Changelog", newer, "## 1.2.0 - 2026-01-31", this, older])
    assert notes(course(tmp_path, text), "v1.2.0") == "### Added\n\n- b\n"


@pytest.mark.parametrize(
    ("tag", "changelog", "says"),
    [
        ("v1.2.1", "## 1.2.0 - 2026-01-31\n\n- b\n", "has version 1.2.0, so its tag is v1.2.0"),
        ("1.2.0", "## 1.2.0 - 2026-01-31\n\n- b\n", "so its tag is v1.2.0, not 1.2.0"),
        ("v1.2.0", "## Unreleased\n\n- b\n", "needs a section '## 1.2.0 - "),
        ("v1.2.0", "## 1.2.0\n\n- b\n", "needs a section '## 1.2.0 - "),
        ("v1.2.0", "## 1.2.0 - 2026-01-31\n\n## 1.1.0 - 2026-01-01\n\n- a\n", "needs a section"),
        ("v1.2.0", "## 11.2.0 - 2026-01-31\n\n- b\n", "needs a section"),
        ("v1.2.0", "## 1.2.01 - 2026-01-31\n\n- b\n", "needs a section"),
    ],
)
def test_a_tag_that_is_not_a_release_is_refused(
    tmp_path: Path, tag: str, changelog: str, says: str
):
    with pytest.raises(ReleaseError, match=re.escape(says)):
        notes(course(tmp_path, changelog), tag)


def test_the_command_line_of_releases():
    words = [sys.executable, ROOT / "tools" / "release.py"]
    refused = subprocess.run([*words, "v0.0.0"], capture_output=True, text=True)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"its tag is v{tutorial_lib.__version__}" in refused.stderr
    assert subprocess.run(words, capture_output=True).returncode == 2


def test_the_oldest_versions_are_those_of_the_requirements():
    given = ["torch>=2.6", "torchvision>=0.21", "numpy"]
    assert oldest("torch", given) == "torch==2.6.*"
    assert oldest("torchvision", given) == "torchvision==0.21.*"
    with pytest.raises(ValueError, match="no oldest release of 'numpy'"):
        oldest("numpy", given)
    words = [sys.executable, ROOT / "tools" / "oldest.py"]
    shown = subprocess.run([*words, "torch", "torchvision"], capture_output=True, text=True)
    assert re.fullmatch(r"torch==2\.\d+\.\* torchvision==0\.\d+\.\*\n", shown.stdout)
    assert subprocess.run([*words, "nothing"], capture_output=True).returncode == 1


def steps(workflow: str) -> str:
    """All that the steps of a workflow run, in one text."""
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / workflow).read_text())["jobs"]
    return "\n".join(step.get("run", "") for job in jobs.values() for step in job["steps"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_calls_what_is_there(path: Path):
    """Files of ours, and targets of the Makefile; each job has a limit and few rights."""
    found = yaml.safe_load(path.read_text())
    assert found["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in found["jobs"].values())
    text = steps(path.name)
    for name in re.findall(r"\b(?:tools|\.ci|tests|benchmarks)/[\w./-]+", text):
        assert (ROOT / name).exists(), name
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in re.findall(r"^ *make ([\w -]+)$", text, re.MULTILINE):
        assert set(words.split()) <= targets, words


def test_ci_holds_the_oldest_torch():
    text = steps("ci.yml")
    assert "$(python tools/oldest.py torch torchvision)" in text


def test_a_release_is_checked_before_it_is_published():
    text = steps("release.yml")
    assert (
        text.index("tools/release.py") < text.index("python -m build") < text.index("twine check")
    )
    assert text.index("twine check") < text.index("gh release create")
