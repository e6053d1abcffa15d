"""Each notebook that pytest runs keeps what it makes in a folder of its own.

So no result depends on which notebooks were run before, or on what a learner has kept in ``runs/``.
(It stands here, and not in ``tests/``, since notebooks are not in there.)
"""

import os
import tempfile
from pathlib import Path

import pytest

_scratch = tempfile.TemporaryDirectory(prefix="runs-")  # removed when Python ends


@pytest.hookimpl(tryfirst=True)  # before the notebook's kernel starts
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.path.suffix == ".ipynb":
        folder = Path(_scratch.name) / item.path.parent.name / item.path.stem
        os.environ["TUTORIAL_RUNS"] = str(folder)
