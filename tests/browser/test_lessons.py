"""Every learner's notebook runs from top to bottom in a real JupyterLab, offline.

This is their test in CI, where nbval runs only the solved notebooks. Of a notebook without outputs
nbval asks that every cell ends, and that none raises unless its tag says so: so does `run_all`.
"""

import shutil

import pytest
from build_notebooks import ROOT, lessons
from jupyter_lab import Lab

NAMES = [lesson.learner.name for lesson in lessons(ROOT)]


@pytest.mark.long("a whole lesson in JupyterLab")
@pytest.mark.parametrize("name", NAMES)
def test_runs_to_the_end_and_describes_its_pictures(lab: Lab, open_notebook, name: str):
    shutil.rmtree(lab.notebooks.parent / "runs", ignore_errors=True)  # what another lesson has kept
    lesson = open_notebook(name)
    lesson.run_all()
    # As the browser sees them: JupyterLab ignores a text that stands in an output's metadata only.
    undescribed = lesson.page.eval_on_selector_all(
        ".jp-Notebook img", "images => images.filter(i => !i.alt).map(i => i.src.slice(0, 60))"
    )
    assert undescribed == []
