"""The picture that opens a lesson: taken from the solved notebook's own output, by the builder."""

import io
import json
import textwrap
from collections.abc import Callable
from pathlib import Path

import build_notebooks
import nbformat
import pytest
from build_notebooks import LessonError, lessons, stale, update
from PIL import Image

from tests.notebooks.test_builder import course

MARKED = """
    # %% [markdown]
    # # A title
    #
    # <!-- opening -->
    #
    # Read on.
    """
STILL = """
    # %% tags=["opening", "plumbing"]
    import base64, io
    from IPython.display import display
    from PIL import Image
    file = io.BytesIO()
    Image.new("RGB", (6, 4), "COLOR").save(file, "png")
    data = base64.b64encode(file.getvalue()).decode()
    _ = display({"image/png": data, "text/plain": "a dot"}, raw=True,
                metadata={"image/png": {"alt": 'a "dot" & more', "width": 640}})
    """
MOVING = """
    # %% tags=["opening"]
    import base64, io
    from IPython.display import display
    from PIL import Image
    file = io.BytesIO()
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "lime", "blue")]
    frames[0].save(file, "gif", save_all=True, append_images=frames[1:], duration=100)
    data = base64.b64encode(file.getvalue()).decode()
    _ = display({"image/gif": data}, raw=True,
                metadata={"image/gif": {"alt": "three colors", "width": 5000}})
    """


def source(*cells: str) -> str:
    return "\n\n".join(textwrap.dedent(cell).strip() for cell in cells) + "\n"


def first_cells(root: Path) -> list[str]:
    """The first text cells of the learner's and of the solved notebook."""
    places = ("01_a.ipynb", "solutions/01_a.ipynb")
    notebooks = [nbformat.read(root / "notebooks" / place, as_version=4) for place in places]
    return [notebook.cells[0].source for notebook in notebooks]


def images(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "notebooks").glob("images/*")}


def solved(root: Path) -> Path:
    return root / "notebooks" / "solutions" / "01_a.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, str]]:
    """The files of the notebooks of a course with this lesson, after a run; each is run once."""
    known: dict[str, dict[str, str]] = {}

    def run(text: str) -> dict[str, str]:
        if text not in known:
            root = course(tmp_path_factory.mktemp("course"), **{"01_a": text})
            update(root, [])
            known[text] = {"solved": solved(root).read_text()}
        return known[text]

    return run


@pytest.fixture
def opened(tmp_path: Path, executed: Callable[[str], dict[str, str]]) -> Callable[[str], Path]:
    """A course with this lesson, its solved notebook run, its notebooks built."""

    def make(cell: str) -> Path:
        text = source(MARKED, cell)
        root = course(tmp_path, **{"01_a": text})
        solved(root).parent.mkdir(exist_ok=True)
        solved(root).write_text(executed(text)["solved"])
        update(root)
        return root

    return make


def test_a_figure_opens_the_lesson(opened: Callable[[str], Path]):
    root = opened(STILL.replace("COLOR", "red"))
    tag = '<img src="{}01_a.png" alt="a &quot;dot&quot; &amp; more" width="640">'
    for cell, folder in zip(first_cells(root), ("images/", "../images/"), strict=True):
        assert cell == f"# A title\n\n{tag.format(folder)}\n\nRead on."
    assert list(images(root)) == ["01_a.png"]
    with Image.open(io.BytesIO(images(root)["01_a.png"])) as picture:
        assert picture.convert("RGB").getpixel((0, 0)) == (255, 0, 0)
    assert stale(root) == []


def test_an_animation_has_a_still_for_those_who_want_no_motion(opened: Callable[[str], Path]):
    root = opened(MOVING)
    for cell, folder in zip(first_cells(root), ("images", "../images"), strict=True):
        assert cell == (
            "# A title\n\n<picture>\n"
            f'<source media="(prefers-reduced-motion: reduce)" srcset="{folder}/01_a.png">\n'
            f'<img src="{folder}/01_a.gif" alt="three colors" width="900">\n'
            "</picture>\n\nRead on."
        )
    assert sorted(images(root)) == ["01_a.gif", "01_a.png"]
    with Image.open(io.BytesIO(images(root)["01_a.png"])) as still:
        assert still.convert("RGB").getcolors() == [(24, (0, 0, 255))], "the last frame"
    assert stale(root) == []


def test_before_the_cell_has_run_nothing_opens_the_lesson(tmp_path: Path):
    root = course(tmp_path, **{"01_a": source(MARKED, STILL)})
    update(root)
    assert first_cells(root) == 2 * ["# A title\n\nRead on."]
    assert images(root) == {}
    assert stale(root) == ["notebooks/solutions/01_a.ipynb has cells that were not run"]


def test_a_picture_is_kept_until_its_cell_has_run_again(opened: Callable[[str], Path]):
    root = opened(STILL.replace("COLOR", "red"))
    before = images(root)
    course(root, **{"01_a": source(MARKED, STILL.replace("COLOR", "blue"))})
    update(root)
    assert images(root) == before
    assert stale(root) == ["notebooks/solutions/01_a.ipynb has cells that were not run"]
    update(root, [])
    assert images(root) != before
    assert stale(root) == []


def test_where_a_picture_stands_costs_no_cell_its_outputs(opened: Callable[[str], Path]):
    root = opened(MOVING)
    cells = json.loads(solved(root).read_text())["cells"]
    assert cells[1]["outputs"]
    update(root)
    assert json.loads(solved(root).read_text())["cells"] == cells


def test_a_lesson_without_an_opening_is_as_before(tmp_path: Path):
    root = course(tmp_path, **{"01_a": "# %% [markdown]\n# # A title\n#\n# Read on.\n"})
    update(root)
    assert first_cells(root) == 2 * ["# A title\n\nRead on."]
    assert not (root / "notebooks" / "images").exists()


@pytest.mark.parametrize("cell", [STILL.replace("COLOR", "red"), MOVING], ids=["png", "gif"])
@pytest.mark.parametrize("damage", ["gone", "other", "broken"])
def test_a_picture_that_differs_is_stale(opened: Callable[[str], Path], cell: str, damage: str):
    root = opened(cell)
    for name, before in images(root).items():
        path = root / "notebooks" / "images" / name
        if damage == "gone":
            path.unlink()
        elif damage == "other":
            Image.new("RGB", (6, 4), "#fe0000").save(path)
        else:
            path.write_bytes(before[:20])
        assert stale(root) == [f"notebooks/images/{name} is not what 01_a.ipynb shows"]
        update(root)
        assert images(root)[name] == before


def test_the_same_pixels_packed_otherwise_are_no_difference(opened: Callable[[str], Path]):
    root = opened(MOVING)
    path = root / "notebooks" / "images" / "01_a.png"
    before = path.read_bytes()
    with Image.open(path) as picture:
        picture.convert("RGBA").save(path, compress_level=0)
    packed = path.read_bytes()
    assert packed != before
    assert stale(root) == []
    update(root)
    assert path.read_bytes() == packed


def test_a_picture_of_no_lesson_is_noticed(opened: Callable[[str], Path]):
    root = opened(STILL.replace("COLOR", "red"))
    for name in ("01_a.gif", "02_b.png"):
        (root / "notebooks" / "images" / name).write_bytes(b"")
    assert stale(root) == [
        f"notebooks/images/{name} has no source" for name in ("01_a.gif", "02_b.png")
    ]


PLAIN = "# %%\nx = 1"
TAGGED = '# %% tags=["opening"]\nx = 1'


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        ((MARKED, PLAIN), r"belong together, one each; there are 1 and 0"),
        ((PLAIN, TAGGED), r"belong together, one each; there are 0 and 1"),
        ((MARKED, TAGGED, TAGGED), r"belong together, one each; there are 1 and 2"),
        ((MARKED, MARKED, TAGGED), r"belong together, one each; there are 2 and 1"),
        (
            (MARKED.replace("[markdown]", '[markdown] tags=["solution"]'), TAGGED),
            "for both notebooks",
        ),
        ((MARKED, TAGGED.replace('["', '["learner", "')), r"there are 1 and 0"),
        ((MARKED.replace("<!--", "Look: <!--"), TAGGED), "on a line of its own"),
        (('# %% [markdown] tags=["opening"]\n# Text', PLAIN), "'opening' is for a code cell"),
    ],
)
def test_a_mark_and_a_cell_belong_together(tmp_path: Path, cells: tuple[str, ...], complaint: str):
    root = course(tmp_path, **{"01_a": source(*cells)})
    found = lessons(root)
    with pytest.raises(LessonError, match=complaint) as error:
        build_notebooks.build(found[0], found)
    assert "01_a.py" in str(error.value)


@pytest.mark.parametrize(
    "outputs",
    [
        [],
        [{"image/png": "iVBORw0KGgo="}],
        2 * [{"image/png": "iVBORw0KGgo=", "alt": "a dot"}],
        [{"image/png": "iVBORw0KGgo=", "image/gif": "R0lGODlh", "alt": "a dot"}],
        [{"text/plain": "a dot", "alt": "a dot"}],
    ],
    ids=["nothing", "no text", "two figures", "two kinds", "no figure"],
)
def test_a_cell_that_does_not_show_one_figure_is_refused(tmp_path: Path, outputs: list[dict]):
    root = course(tmp_path, **{"01_a": source(MARKED, TAGGED)})
    found = lessons(root)
    learner, answers = build_notebooks.build(found[0], found)
    answers.cells[1].execution_count = 1
    for data in outputs:
        alt = {"alt": data.pop("alt", " ")}
        about = dict.fromkeys(data, alt)
        answers.cells[1].outputs.append(
            nbformat.v4.new_output("display_data", data=data, metadata=about)
        )
    with pytest.raises(LessonError, match=r"01_a\.py: the cell .* must show one picture"):
        build_notebooks.illustrate(found[0], learner, answers)
