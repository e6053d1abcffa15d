"""What tools/build_notebooks.py makes of a source, tried on small lessons."""

import json
import textwrap
from pathlib import Path

import build_notebooks
import nbformat
import pytest
from build_notebooks import (
    LessonError,
    build,
    carry_outputs,
    execute,
    lessons,
    split,
    stale,
    update,
)


def course(root: Path, **sources: str) -> Path:
    """A course under ``root`` with these lessons."""
    folder = root / "notebooks" / "source"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in sources.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text).lstrip())
    return root


TWO_CELLS = """
    # %% [markdown]
    # # A title

    # %%
    a = 1
    print(a)

    # %%
    # NBVAL_CHECK_OUTPUT
    print(a + 1)
    """


def test_a_stub_takes_the_place_of_the_solution():
    learner, solved = split(
        textwrap.dedent(
            """
            def jump(x):
                # BEGIN SOLUTION
                y = x + 1

                return y
                # STUB
                # # one line will do
                # if x:
                #     return ...
                # END SOLUTION


            jump(1)
            """
        )
    )
    assert solved == "def jump(x):\n    y = x + 1\n\n    return y\n\n\njump(1)"
    assert learner == (
        "def jump(x):\n    # one line will do\n    if x:\n        return ...\n\n\njump(1)"
    )


@pytest.mark.parametrize(
    ("solution", "stub"),
    [
        ("y = 1\nreturn y", "return ..."),
        ("half = 0.5\nmean = half * x", "mean = ..."),
        ("mean: float = 2", "mean = ..."),
        ("print(x)", "..."),
        ("a, b = 1, 2", "..."),
    ],
)
def test_without_a_stub_the_placeholder_fits_the_solution(solution, stub):
    learner, solved = split(f"# BEGIN SOLUTION\n{solution}\n# END SOLUTION")
    assert solved == solution
    assert learner == f"{stub}  # your code here"


def test_an_open_placeholder_is_python_that_runs():
    learner, _ = split("def f():\n    # BEGIN SOLUTION\n    return 1\n    # END SOLUTION")
    names: dict = {}
    exec(learner, names)
    assert names["f"]() is ...


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("# BEGIN SOLUTION\nx = 1", "without '# END SOLUTION'"),
        ("x = 1\n# END SOLUTION", "no solution is open"),
        ("# STUB\nx = 1", "no solution is open"),
        ("# BEGIN SOLUTION\n# BEGIN SOLUTION\nx = 1\n# END SOLUTION", "inside a solution"),
        ("# BEGIN SOLUTION\nx\n# STUB\n# y\n# STUB\n# END SOLUTION", "no solution is open"),
        ("### BEGIN SOLUTION\nx = 1\n### END SOLUTION", "nearly a mark"),
        ("# begin solution\nx = 1", "nearly a mark"),
        ("# BEGIN SOLUTION\nx = 1\n# END SOLUTIONS", "nearly a mark"),
        ("# BEGIN SOLUTION\nx = 1\n# STUB\nx = ...\n# END SOLUTION", "stub's lines"),
        ("# BEGIN SOLUTION\nx = = 1\n# END SOLUTION", "no Python"),
    ],
)
def test_marks_that_do_not_balance_are_refused(source, complaint):
    with pytest.raises(LessonError, match=complaint):
        split(source)


def test_an_error_names_the_lesson_and_the_cell(tmp_path):
    root = course(tmp_path, **{"01_a": "# %%\nx = 1\n\n# %%\n# BEGIN SOLUTION\nx = 2\n"})
    with pytest.raises(LessonError, match=r"01_a\.py, cell 2: .*\n    # BEGIN SOLUTION"):
        build(lessons(root)[0])


def test_tags_say_where_a_cell_appears(tmp_path):
    source = '# %%\nx = 1\n\n# %% tags=["solution"]\nx = 2\n\n# %% tags=["learner"]\nx = 3\n'
    learner, solved = build(lessons(course(tmp_path, **{"01_a": source}))[0])
    assert [cell.source for cell in learner.cells] == ["x = 1", "x = 3"]
    assert [cell.source for cell in solved.cells] == ["x = 1", "x = 2"]
    assert all(not cell.metadata for cell in learner.cells + solved.cells)


def test_an_unknown_tag_is_refused(tmp_path):
    root = course(tmp_path, **{"01_a": '# %% tags=["solutions"]\nx = 1\n'})
    with pytest.raises(LessonError, match="unknown tag 'solutions'"):
        build(lessons(root)[0])


def test_checked_output_becomes_a_tag_of_the_solved_notebook(tmp_path):
    learner, solved = build(lessons(course(tmp_path, **{"01_a": TWO_CELLS}))[0])
    assert learner.cells[2].source == solved.cells[2].source == "print(a + 1)"
    assert solved.cells[2].metadata.tags == ["nbval-check-output"]
    assert "tags" not in learner.cells[2].metadata


def test_links_hold_in_both_folders(tmp_path):
    text = (
        "# %% [markdown]\n# [next](02_b.ipynb#top) [home](../README.md) [web](https://arxiv.org)\n"
        '# [solved](solutions/02_b.ipynb) <img src="../data/a.png" alt="a"> [here](#there)\n'
    )
    learner, solved = build(lessons(course(tmp_path, **{"01_a": text, "02_b": "# %%\n"}))[0])
    assert "(../README.md)" in learner.cells[0].source
    assert solved.cells[0].source == (
        "[next](02_b.ipynb#top) [home](../../README.md) [web](https://arxiv.org)\n"
        '[solved](02_b.ipynb) <img src="../../data/a.png" alt="a"> [here](#there)'
    )


def test_ids_come_from_the_text(tmp_path):
    source = "# %%\nx = 1\n\n# %%\ny = 2\n\n# %%\nx = 1\n"
    first, _ = build(lessons(course(tmp_path, **{"01_a": source}))[0])
    ids = [cell.id for cell in first.cells]
    assert len(set(ids)) == 3
    assert ids[2] == f"{ids[0]}-2"
    inserted, _ = build(lessons(course(tmp_path, **{"01_a": "# %%\nz = 0\n\n" + source}))[0])
    assert [cell.id for cell in inserted.cells[1:]] == ids


def test_outputs_stay_up_to_the_first_cell_that_changed(tmp_path):
    source = "# %%\na = 1\n\n# %%\nb = 2\n\n# %%\nc = 3\n"
    _, old = build(lessons(course(tmp_path, **{"01_a": source}))[0])
    for count, cell in enumerate(old.cells, start=1):
        cell.execution_count = count
        cell.outputs = [nbformat.v4.new_output("stream", text=f"{count}\n")]
    _, new = build(lessons(course(tmp_path, **{"01_a": source.replace("b = 2", "b = 4")}))[0])
    carry_outputs(new, old)
    assert [cell.execution_count for cell in new.cells] == [1, None, None]
    assert [len(cell.outputs) for cell in new.cells] == [1, 0, 0]


def test_building_twice_gives_the_same_bytes(tmp_path):
    root = course(tmp_path, **{"01_a": TWO_CELLS})
    update(root)
    made = sorted((root / "notebooks").rglob("*.ipynb"))
    before = [path.read_bytes() for path in made]
    update(root)
    assert [path.read_bytes() for path in made] == before
    assert len(made) == 2


def test_running_keeps_outputs_and_stays_in_step(tmp_path, capsys):
    root = course(tmp_path, **{"01_a": TWO_CELLS, "02_b": "# %%\nprint('b')\n"})
    assert build_notebooks.main(["--check"], root) == 1
    assert "notebooks/01_a.ipynb is missing" in capsys.readouterr().out
    update(root)
    assert stale(root) == [
        f"notebooks/solutions/{name}.ipynb has cells that were not run" for name in ("01_a", "02_b")
    ]
    update(root, ["01"])
    assert stale(root) == ["notebooks/solutions/02_b.ipynb has cells that were not run"]
    solved = root / "notebooks" / "solutions" / "01_a.ipynb"
    cells = json.loads(solved.read_text())["cells"]
    assert [cell.get("execution_count") for cell in cells] == [None, 1, 2]
    assert cells[2]["outputs"][0]["text"] == ["2\n"]
    assert "execution" not in cells[2]["metadata"]
    first_run = solved.read_bytes()
    update(root, [])  # runs only what lacks outputs
    assert stale(root) == []
    assert solved.read_bytes() == first_run
    update(root, ["all"])
    assert solved.read_bytes() == first_run
    assert build_notebooks.main(["--check"], root) == 0


def test_check_notices_an_edit_by_hand_and_a_notebook_without_source(tmp_path):
    root = course(tmp_path, **{"01_a": TWO_CELLS})
    update(root, [])
    learner = root / "notebooks" / "01_a.ipynb"
    learner.write_text(learner.read_text().replace("A title", "Another"))
    (root / "notebooks" / "09_gone.ipynb").write_text("{}")
    assert stale(root) == [
        "notebooks/01_a.ipynb differs from what its source gives",
        "notebooks/09_gone.ipynb has no source",
    ]


def test_a_broken_notebook_is_built_anew(tmp_path):
    root = course(tmp_path, **{"01_a": TWO_CELLS})
    update(root)
    (root / "notebooks" / "solutions" / "01_a.ipynb").write_text("<<<<<<< not JSON")
    update(root, [])
    assert stale(root) == []


def test_a_cell_that_fails_is_named_and_exits_1(tmp_path, capsys):
    root = course(tmp_path, **{"01_a": "# %%\nraise RuntimeError('no such luck')\n"})
    assert build_notebooks.main(["--execute"], root) == 1
    complaint = capsys.readouterr().err
    assert "RuntimeError: no such luck" in complaint
    assert "\x1b" not in complaint


def test_an_unknown_lesson_is_refused(tmp_path, capsys):
    root = course(tmp_path, **{"01_a": TWO_CELLS})
    assert build_notebooks.main(["--execute", "07"], root) == 1
    assert "no lesson begins with '07'" in capsys.readouterr().err


def test_a_figure_is_stored_once_with_its_alternative_text(tmp_path):
    cell = nbformat.v4.new_code_cell(
        "from IPython.display import display\n"
        "display({'image/png': 'iVBORw0KGgo=', 'text/html': '<img alt=\"a dot\" src=\"data:\">',\n"
        "         'text/plain': 'a dot', 'application/vnd.jupyter.widget-view+json': {}},\n"
        "        raw=True, metadata={'image/png': {'alt': 'a dot'}})"
    )
    notebook = nbformat.v4.new_notebook(cells=[cell])
    execute(notebook, tmp_path)
    (output,) = notebook.cells[0].outputs
    assert set(output.data) == {"image/png", "text/plain"}
    assert output.metadata["image/png"]["alt"] == "a dot"
