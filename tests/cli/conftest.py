"""Fixtures of the command line's tests: a trained run, an empty folder, digits."""

import os
from pathlib import Path

import numpy as np
import pytest

from tests.cli.runs import QUICK, idx_file
from tutorial_lib.cli import program as cli


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: small discs, three steps, with classes."""
    out = tmp_path_factory.mktemp("trained") / "run"
    words = ["train", *QUICK, "--size", "8", "--conditional", "--num-steps", "20"]
    assert cli.main([*words, "--out", str(out)]) == 0
    return out


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder is an empty one, and errors are told in one line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUTORIAL_DEBUG", raising=False)


@pytest.fixture(scope="session")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real MNIST where it is on this machine, else a small set of the same format."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "datasets"
    for place in (os.environ.get("TUTORIAL_DATA"), beside):
        if place and (Path(place) / "MNIST/raw/train-images-idx3-ubyte").is_file():
            return Path(place)
    root = tmp_path_factory.mktemp("data")
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    draws = np.random.default_rng(0)
    for part, count in (("train", 200), ("t10k", 50)):
        idx_file(raw / f"{part}-images-idx3-ubyte", draws.integers(0, 256, (count, 28, 28)))
        idx_file(raw / f"{part}-labels-idx1-ubyte", np.arange(count) % 10)
    return root
