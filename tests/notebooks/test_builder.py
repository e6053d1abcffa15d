"""What tools/build_notebooks.py makes of a source, tried on small lessons."""

import json
import re
import textwrap
from pathlib import Path

import build_notebooks
import nbformat
import pytest
import torch
from build_notebooks import (
    LessonError,
    carry_outputs,
    execute,
    lessons,
    split,
    stale,
    update,
)
from nbformat import NotebookNode

from tutorial_lib.explorers import ScheduleExplorer


def course(root: Path, **sources: str) -> Path:
    """A course under ``root`` with these lessons, without exercises."""
    folder, library = root / "notebooks" / "source", root / "tutorial_lib"
    folder.mkdir(parents=True, exist_ok=True)
    (library / "checks").mkdir(parents=True, exist_ok=True)
    entries = ["from tutorial_lib.course import Lesson\n\nLESSONS = ("]
    for name, text in sources.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text).lstrip())
        prefix = name.partition("_")[0]
        entries.append(f'    Lesson("{name}", title="T{prefix}", goal="try it", minutes=7),')
        (library / "checks" / f"lesson{prefix}.py").write_text("")
    (library / "course.py").write_text("\n".join([*entries, ")\n"]))
    return root


def with_checks(root: Path, text: str) -> Path:
    """The same course, with this text as the checks of lesson 1."""
    path = root / "tutorial_lib" / "checks" / "lesson01.py"
    path.write_text(textwrap.dedent(text).lstrip())
    return root


def build(root: Path, number: int = 0) -> tuple[NotebookNode, NotebookNode]:
    """The two notebooks of a lesson of the course under ``root``."""
    found = lessons(root)
    return build_notebooks.build(found[number], found)


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
        build(root)


def test_tags_say_where_a_cell_appears(tmp_path):
    source = '# %%\nx = 1\n\n# %% tags=["solution"]\nx = 2\n\n# %% tags=["learner"]\nx = 3\n'
    learner, solved = build(course(tmp_path, **{"01_a": source}))
    assert [cell.source for cell in learner.cells] == ["x = 1", "x = 3"]
    assert [cell.source for cell in solved.cells] == ["x = 1", "x = 2"]
    assert all(not cell.metadata for cell in learner.cells + solved.cells)


def test_an_unknown_tag_is_refused(tmp_path):
    root = course(tmp_path, **{"01_a": '# %% tags=["solutions"]\nx = 1\n'})
    with pytest.raises(LessonError, match="unknown tag 'solutions'"):
        build(root)


def test_checked_output_becomes_a_tag_of_the_solved_notebook(tmp_path):
    learner, solved = build(course(tmp_path, **{"01_a": TWO_CELLS}))
    assert learner.cells[2].source == solved.cells[2].source == "print(a + 1)"
    assert solved.cells[2].metadata.tags == ["nbval-check-output"]
    assert "tags" not in learner.cells[2].metadata


def test_links_hold_in_both_folders(tmp_path):
    text = (
        "# %% [markdown]\n# [next](02_b.ipynb#top) [home](../README.md) [web](https://arxiv.org)\n"
        '# [solved](solutions/02_b.ipynb) <img src="../data/a.png" alt="a"> [here](#there)\n'
    )
    learner, solved = build(course(tmp_path, **{"01_a": text, "02_b": "# %%\n"}))
    assert "(../README.md)" in learner.cells[0].source
    assert solved.cells[0].source == (
        "[next](02_b.ipynb#top) [home](../../README.md) [web](https://arxiv.org)\n"
        '[solved](02_b.ipynb) <img src="../../data/a.png" alt="a"> [here](#there)'
    )


def test_ids_come_from_the_text(tmp_path):
    source = "# %%\nx = 1\n\n# %%\ny = 2\n\n# %%\nx = 1\n"
    first, _ = build(course(tmp_path, **{"01_a": source}))
    ids = [cell.id for cell in first.cells]
    assert len(set(ids)) == 3
    assert ids[2] == f"{ids[0]}-2"
    inserted, _ = build(course(tmp_path, **{"01_a": "# %%\nz = 0\n\n" + source}))
    assert [cell.id for cell in inserted.cells[1:]] == ids


def test_outputs_stay_up_to_the_first_cell_that_changed(tmp_path):
    source = "# %%\na = 1\n\n# %%\nb = 2\n\n# %%\nc = 3\n"
    _, old = build(course(tmp_path, **{"01_a": source}))
    for count, cell in enumerate(old.cells, start=1):
        cell.execution_count = count
        cell.outputs = [nbformat.v4.new_output("stream", text=f"{count}\n")]
    _, new = build(course(tmp_path, **{"01_a": source.replace("b = 2", "b = 4")}))
    carry_outputs(new, old)
    assert [cell.execution_count for cell in new.cells] == [1, None, None]
    assert [len(cell.outputs) for cell in new.cells] == [1, 0, 0]


CHECKS = """
    def _jump(x, by=1):
        \"\"\"Seen in the library only.\"\"\"
        # a comment above
        y = x + by  # and beside

        return y


    jump = Exercise("lesson01.jump", "Jump", model_answer=_jump)
    choice = Choice("lesson01.choice", "Which?", right="b")
    """
JUMP = """
    # %%
    def my_jump(x, by=1):
        # BEGIN SOLUTION lesson01.jump
        ...
        # END SOLUTION


    my_jump(1)
    """


def test_a_solution_comes_from_its_check(tmp_path):
    root = with_checks(course(tmp_path, **{"01_a": JUMP}), CHECKS)
    (learner,), (solved,) = (notebook.cells for notebook in build(root))
    assert solved.source == (
        "def my_jump(x, by=1):\n    # a comment above\n    y = x + by  # and beside\n\n"
        "    return y\n\n\nmy_jump(1)"
    )
    assert learner.source == (
        "def my_jump(x, by=1):\n    return ...  # your code here\n\n\nmy_jump(1)"
    )
    in_place = solved.source.replace("    # a", "    # BEGIN SOLUTION\n    # a").replace(
        "return y", "return y\n    # END SOLUTION"
    )
    written_out, _ = build(course(tmp_path, **{"01_a": f"# %%\n{in_place}\n"}))
    assert written_out.cells == [learner], "where a solution comes from must not change its cell"


def test_a_solution_from_a_check_may_have_a_stub(tmp_path):
    stub = "    ...\n        # STUB\n        # y = ...\n        # return y\n"
    root = with_checks(course(tmp_path, **{"01_a": JUMP.replace("    ...\n", stub)}), CHECKS)
    learner, solved = build(root)
    assert learner.cells[0].source.startswith("def my_jump(x, by=1):\n    y = ...\n    return y\n")
    assert "y = x + by  # and beside" in solved.cells[0].source


def test_an_edit_of_the_check_makes_both_the_cell_and_its_outputs_stale(tmp_path):
    root = with_checks(course(tmp_path, **{"01_a": JUMP}), CHECKS)
    update(root, [])
    assert stale(root) == []
    with_checks(course(tmp_path, **{"01_a": JUMP}), CHECKS.replace("x + by", "by + x"))
    assert stale(root) == [
        "notebooks/01_a.ipynb differs from what its source gives",
        "notebooks/solutions/01_a.ipynb differs from what its source gives",
    ]
    update(root)
    assert stale(root) == ["notebooks/solutions/01_a.ipynb has cells that were not run"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("lesson01.jump", "lesson01.jmp"), "lesson01.jmp is no exercise"),
        (("lesson01.jump", "lesson01.choice"), "lesson01.choice is no exercise"),
        (("lesson01.jump", "lesson02.jump"), "lesson02.jump is no exercise"),
        (("lesson01.jump", "lesson1.jump"), "nearly a mark"),
        (("lesson01.jump", "jump"), "nearly a mark"),
        (("    ...\n", "    return 1\n"), "needs a line `...` and nothing else"),
        (("    ...\n", ""), "needs a line `...` and nothing else"),
        (("    ...\n", "    ...\n        x = 1\n"), "needs a line `...` and nothing else"),
        (("(x, by=1)", "(x, by)"), r"takes \(x, by=1\), the function here \(x, by\)"),
        (("def my_jump(x, by=1)", "while True"), r"takes \(x, by=1\), the function here \(None\)"),
        (("my_jump(1)", "my_jump(1"), "no Python"),
    ],
)
def test_a_solution_that_cannot_be_pulled_is_refused(tmp_path, change, complaint):
    assert change[0] in JUMP
    root = with_checks(course(tmp_path, **{"01_a": JUMP.replace(*change)}), CHECKS)
    with pytest.raises(LessonError, match=complaint):
        build(root)


def test_plumbing_is_folded_in_both_notebooks(tmp_path):
    source = '# %% tags=["plumbing"]\n# NBVAL_CHECK_OUTPUT\nprint(1)\n\n# %%\nx = 2\n'
    learner, solved = build(course(tmp_path, **{"01_a": source}))
    assert learner.cells[0].metadata == {
        "jupyter": {"source_hidden": True},
        "tags": ["hide-input"],
    }
    assert solved.cells[0].metadata == {
        "jupyter": {"source_hidden": True},
        "tags": ["hide-input", "nbval-check-output"],
    }
    assert learner.cells[0].source == solved.cells[0].source
    assert not learner.cells[1].metadata
    plain, _ = build(course(tmp_path, **{"01_a": source.replace(' tags=["plumbing"]', "")}))
    assert plain.cells[0].id == learner.cells[0].id, "folding must not cost a cell its outputs"


@pytest.mark.parametrize(
    ("code", "first"),
    [
        ("import torch", "# imports and small helpers"),
        ("x = 1\nplots.show(figure, alt='a')", "# draws the figure below"),
        ("# my own words\nshow(figure, alt='a')", "# my own words"),
    ],
)
def test_a_folded_cell_says_in_its_first_line_what_it_does(tmp_path, code, first):
    root = course(tmp_path, **{"01_a": f'# %% tags=["plumbing"]\n{code}\n'})
    for notebook in build(root):
        assert notebook.cells[0].source.splitlines()[0] == first
        assert notebook.cells[0].source.endswith(code)


def test_folding_costs_no_cell_its_outputs(tmp_path):
    root = course(tmp_path, **{"01_a": "# %%\nprint(1)\n"})
    _, old = build(root)
    old.cells[0].execution_count = 1
    _, new = build(course(tmp_path, **{"01_a": '# %% tags=["plumbing"]\nprint(1)\n'}))
    assert new.cells[0].source != old.cells[0].source
    carry_outputs(new, old)
    assert new.cells[0].execution_count == 1


@pytest.mark.parametrize(
    "source",
    [
        '# %% [markdown] tags=["plumbing"]\n# Text\n',
        '# %% tags=["plumbing"]\n# BEGIN SOLUTION\nx = 1\n# END SOLUTION\n',
    ],
)
def test_only_code_without_exercises_is_plumbing(tmp_path, source):
    with pytest.raises(LessonError, match="plumbing"):
        build(course(tmp_path, **{"01_a": source}))


TEXT = "# %% [markdown]\n# <!-- minutes --> min\n#\n# <!-- navigation -->\n#\n# <!--lessons-->"
THREE = dict.fromkeys(("00_a", "01_b", "02_c"), TEXT)


def test_text_cells_get_what_the_manifest_says(tmp_path):
    root = course(tmp_path, **THREE)
    table = (
        "| lesson | you will | minutes |\n|---|---|---|\n"
        "| [0. T00](00_a.ipynb) | try it | 7 |\n"
        "| [1. T01](01_b.ipynb) | try it | 7 |\n"
        "| [2. T02](02_c.ipynb) | try it | 7 |"
    )
    after = "**Next:** [{0}. T0{0}]({1}.ipynb): try it."
    before = "**Before:** [{0}. T0{0}]({1}.ipynb)"
    last = "This is the last lesson of the course."
    for number, links in enumerate(
        (
            [after.format(1, "01_b")],
            [after.format(2, "02_c"), before.format(0, "00_a")],
            [last, before.format(1, "01_b")],
        )
    ):
        learner, solved = build(root, number)
        assert learner.cells[0].source == "\n\n".join(["7 min", *links, table])
        assert solved.cells[0].source == learner.cells[0].source


def test_an_unknown_mark_is_refused(tmp_path):
    with pytest.raises(LessonError, match="unknown mark '<!-- minute -->'"):
        build(course(tmp_path, **{"01_a": "# %% [markdown]\n# <!-- minute -->\n"}))


def test_readme_has_the_table(tmp_path, capsys):
    root = course(tmp_path, **THREE)
    readme = root / "README.md"
    readme.write_text("Above\n\n<!-- lessons -->\nold\n<!-- end of lessons -->\n\nBelow\n")
    assert build_notebooks.main([], root) == 0
    assert readme.read_text() == (
        "Above\n\n<!-- lessons -->\n\n| lesson | you will | minutes |\n|---|---|---|\n"
        "| [0. T00](notebooks/00_a.ipynb) | try it | 7 |\n"
        "| [1. T01](notebooks/01_b.ipynb) | try it | 7 |\n"
        "| [2. T02](notebooks/02_c.ipynb) | try it | 7 |\n\n<!-- end of lessons -->\n\nBelow\n"
    )
    assert stale(root) == []
    readme.write_text(readme.read_text().replace("| 7 |", "| 8 |", 1))
    assert build_notebooks.main(["--check"], root) == 1
    assert "README.md differs from what course.py" in capsys.readouterr().out
    readme.write_text("no marks\n")
    assert build_notebooks.main(["--check"], root) == 1
    assert "must have one pair of lines" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        ("notebooks/source/02_c.py", "is missing: tutorial_lib/course.py lists its lesson"),
        ("tutorial_lib/checks/lesson02.py", "is missing: tutorial_lib/course.py lists its lesson"),
        ("notebooks/source/03_d.py", "belongs to no lesson of tutorial_lib/course.py"),
        ("tutorial_lib/checks/lesson03.py", "belongs to no lesson of tutorial_lib/course.py"),
        ("tutorial_lib/checks/lesson02b.py", "belongs to no lesson of tutorial_lib/course.py"),
    ],
)
def test_a_lesson_in_pieces_is_refused(tmp_path, capsys, part, complaint):
    root = course(tmp_path, **THREE)
    path = root / part
    if path.exists():
        path.unlink()
    else:
        path.write_text("")
    assert build_notebooks.main(["--check"], root) == 1
    assert capsys.readouterr().err == f"{part} {complaint}\n"


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


def test_a_lesson_in_between_is_run_by_its_own_number(tmp_path, capsys, monkeypatch):
    asked: list[str] = []

    def execute(notebook: NotebookNode, folder: Path, name: str) -> dict[str, str]:
        asked.append(name)
        return {}

    monkeypatch.setattr(build_notebooks, "execute", execute)  # no kernel: which ones, not how
    names = ("05_a", "05b_b", "06_c")
    root = course(tmp_path, **dict.fromkeys(names, "# %%\nx = 1\n"))
    for words, ran in (
        (["05"], ["05_a"]),
        (["05b"], ["05b_b"]),
        (["05_"], ["05_a"]),
        (["0"], [*names]),
        (["06", "05b"], ["05b_b", "06_c"]),
    ):
        asked.clear()
        update(root, words)
        assert asked == ran
        shown = [f"running notebooks/solutions/{name}.ipynb" for name in ran]
        assert capsys.readouterr().out.splitlines() == shown


def test_a_solution_comes_from_the_check_of_a_lesson_in_between(tmp_path):
    root = course(tmp_path, **{"01_a": "# %%\nx = 1\n", "01b_b": JUMP.replace("on01.", "on01b.")})
    (root / "tutorial_lib" / "checks" / "lesson01b.py").write_text(textwrap.dedent(CHECKS))
    learner, solved = build(root, 1)
    assert "return ..." in learner.cells[0].source
    assert "y = x + by" in solved.cells[0].source


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


def test_what_a_lesson_keeps_is_gone_when_it_has_run(tmp_path: Path):
    """Later lessons are run as if nobody had kept anything, whatever lies in ``runs/``."""
    code = (
        "import os; from pathlib import Path; folder = Path(os.environ['TUTORIAL_RUNS'])\n"
        "print(folder / 'lesson05', folder.exists()); (folder / 'lesson05').mkdir(parents=True)"
    )
    for _ in range(2):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
        execute(notebook, tmp_path)
        assert notebook.cells[0].outputs[0].text == "runs/lesson05 False\n"
    assert list(tmp_path.iterdir()) == []


def test_what_explorers_hold_is_kept_for_the_website(tmp_path: Path):
    """It is what the page holds that the explorer writes of itself; one with a kernel has none."""
    text = """
        # %%
        import torch
        from tutorial_lib.explorers import Playground, ScheduleExplorer
        ScheduleExplorer(torch.ones(1, 8, 8), t=20)

        # %%
        Playground()
        """
    root = course(tmp_path, **{"01_a": text})
    update(root, ["01"])
    solved = root / "notebooks" / "solutions" / "01_a.ipynb"
    notebook = nbformat.read(solved, as_version=4)
    (first,), (second,) = (cell.outputs for cell in notebook.cells)
    assert second.metadata[build_notebooks.EXPLORER] is False
    (file,) = (root / "notebooks" / "explorers").iterdir()
    assert first.metadata[build_notebooks.EXPLORER] == file.name
    held = json.loads(file.read_text(encoding="utf-8"))
    page = ScheduleExplorer(torch.ones(1, 8, 8), t=20).save_html(tmp_path / "page.html")
    state = re.search(r'id="state">(.*?)</script>', page.read_text(encoding="utf-8"))
    assert state is not None
    assert {name: held[name] for name in ("bytes", "values")} == json.loads(state[1])
    assert (held["explorer"], held["summary"]) == ("schedule", first.data["text/plain"])
    assert stale(root) == []

    file.write_text(json.dumps({**held, "summary": "of another"}))
    assert stale(root) == [f"explorers/{file.name} is not what 01_a.ipynb shows"]
    del first.metadata[build_notebooks.EXPLORER]
    solved.write_text(nbformat.writes(notebook).rstrip("\n") + "\n")
    assert stale(root) == [
        "notebooks/solutions/01_a.ipynb lacks what its explorers hold: "
        "run tools/build_notebooks.py --execute 01_a",
        f"notebooks/explorers/{file.name} has no source",
    ]
    update(root)
    assert not file.exists()


def installs(notebook: NotebookNode, monkeypatch: pytest.MonkeyPatch, *, there: bool) -> list[str]:
    """What the cell that installs the course asks IPython for, where the course is there or not."""
    asked: list[str] = []

    class Shell:
        def run_line_magic(self, *words: str) -> None:
            asked.append(" ".join(words))

    found = object() if there else None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found)
    (cell,) = (cell for cell in notebook.cells if cell.id == build_notebooks.INSTALLS)
    exec(cell.source, {"get_ipython": Shell})
    return asked


def test_a_learner_s_notebook_installs_what_is_missing(tmp_path, monkeypatch):
    root = course(tmp_path, **{"01_a": TWO_CELLS})
    (root / "README.md").write_text(
        "<!-- lessons -->\n<!-- end of lessons -->\n<!-- doors -->\n<!-- end of doors -->\n"
    )
    update(root)
    path = root / "notebooks" / "01_a.ipynb"
    plain = nbformat.read(path, as_version=4)
    assert [cell.cell_type for cell in plain.cells[:3]] == ["markdown", "code", "code"]
    assert installs(plain, monkeypatch, there=True) == []
    assert installs(plain, monkeypatch, there=False) == ["pip install --quiet '..[notebook]'"]
    assert "http" not in path.read_text() + (root / "README.md").read_text()

    setting = '[tool.course]\nrepository = "https://github.com/ann/course"\n'
    (root / "pyproject.toml").write_text(setting)
    assert [line for line in stale(root) if "has cells" not in line] == [
        "notebooks/01_a.ipynb differs from what its source gives",
        "README.md differs from what course.py and pyproject.toml say",
    ]
    update(root)
    published = nbformat.read(path, as_version=4)
    wanted = "tutorial_lib[notebook] @ git+https://github.com/ann/course@main"
    assert installs(published, monkeypatch, there=False) == [f"pip install --quiet '{wanted}'"]
    colab = "https://colab.research.google.com/github/ann/course/blob/main/notebooks/01_a.ipynb"
    for text in (published.cells[0].source, (root / "README.md").read_text()):
        assert f"[Colab]({colab})" in text
    assert "https://ann.github.io/course/" in (root / "README.md").read_text()
    solved = (root / "notebooks" / "solutions" / "01_a.ipynb").read_text()
    assert "pip" not in solved
    assert "colab" not in solved
