"""pyproject.toml, environment.yml and requirements.lock ask for the same things."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tutorial_lib.course import LESSONS

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAME_ON_PYPI = {
    "pytorch": "torch",
    "matplotlib-base": "matplotlib",
    "playwright-python": "playwright",
}


def as_dict(requirements: list[str]) -> dict[str, str]:
    """Name on PyPI to version range."""
    parsed = [Requirement(text) for text in requirements]
    return {canonicalize_name(NAME_ON_PYPI.get(r.name, r.name)): str(r.specifier) for r in parsed}


def extras(*names: str) -> list[str]:
    return [text for name in names for text in PROJECT["optional-dependencies"][name]]


def required() -> dict[str, str]:
    """What a checkout is set up with, but for the website's tools."""
    return as_dict(PROJECT["dependencies"] + extras("lab", "test"))


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return dict(line.split("==") for line in lines)


def test_conda_gets_what_pip_gets():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = as_dict([entry for entry in entries if isinstance(entry, str)])
    del conda["pip"]  # there for the course itself and for what conda-forge lacks
    (by_pip,) = (entry["pip"] for entry in entries if isinstance(entry, dict))
    conda |= as_dict([entry for entry in by_pip if not entry.startswith("--")])
    assert conda == {**required(), "python": PROJECT["requires-python"]}


def test_the_lock_is_a_plain_list():
    """Names and versions only: no addresses, no hashes, nothing of one platform."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.!+_-]*", line) for line in lines)
    assert len(locked()) == len(lines)
    assert not [name for name in locked() if re.match(r"nvidia|cuda|triton|tutorial", name)]


def test_binder_installs_the_course_itself():
    """repo2docker reads environment.yml, and copies the checkout first where it asks for it."""
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (by_pip,) = (entry["pip"] for entry in entries if isinstance(entry, dict))
    assert "--editable ." in by_pip
    assert any(entry.startswith("jupyterlab ") for entry in entries if isinstance(entry, str))


def test_a_codespace_is_set_up_by_make_and_opens_lesson_0():
    """Its schema is checked by a job of CI, which has a network."""
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    target = re.fullmatch(r"make ([\w-]+) PYTHON=python3", container["updateContentCommand"])
    assert target is not None
    assert re.search(rf"^{target[1]}: ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    version = container["image"].rpartition(":")[2]
    assert SpecifierSet(PROJECT["requires-python"]).contains(version)
    (opened,) = container["customizations"]["codespaces"]["openFiles"]
    assert (ROOT / opened).name == LESSONS[0].notebook
    settings = container["customizations"]["vscode"]["settings"]
    assert settings["python.defaultInterpreterPath"].endswith("/.venv/bin/python")


def test_the_extras_agree():
    """One package has one range, but for ipywidgets: Colab keeps its own, which is older."""
    for name, versions in as_dict(extras("notebook")).items():
        expected = ">=7.7" if name == "ipywidgets" else as_dict(extras("lab"))[name]
        assert versions == expected, name
    benchmarks, test = as_dict(extras("benchmarks")), as_dict(extras("test"))
    for name in benchmarks.keys() & test.keys():
        assert benchmarks[name] == test[name]


def test_what_sets_up_a_checkout_asks_for_all_of_it():
    words = (ROOT / "tools" / "set-up").read_text()
    assert "--constraint requirements.lock --editable '.[lab,test,site]'" in words


@pytest.mark.parametrize(("name", "versions"), (required() | as_dict(extras("site"))).items())
def test_the_lock_fits_the_requirements(name, versions):
    pinned = {canonicalize_name(key): version for key, version in locked().items()}
    assert Requirement(f"{name}{versions}").specifier.contains(pinned[name])
