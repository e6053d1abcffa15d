"""Scenes: pictures against points drawn one by one, captions against sentences built from text."""

import itertools
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tutorial_lib.datasets import Dataset, load, scene_captions, scene_set, scenes
from tutorial_lib.datasets.scene_captions import COLORS, GROUNDS, RELATIONS, SIZES, parse
from tutorial_lib.datasets.scene_shapes import SHAPES, coverage

FINE = 16  # points of a pixel along each axis


def polygon(corners: list[tuple[float, float]]) -> Callable[[Tensor, Tensor], Tensor]:
    """Whether points are inside a polygon, by counting how often a ray crosses its edges."""

    def inside(x: Tensor, y: Tensor) -> Tensor:
        crossings = torch.zeros(torch.broadcast_shapes(x.shape, y.shape), dtype=torch.int64)
        for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
            if y1 == y2:
                continue
            across = ((y1 <= y) & (y < y2)) | ((y2 <= y) & (y < y1))
            crossings = crossings + (across & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1)))
        return crossings % 2 == 1

    return inside


def star_corners() -> list[tuple[float, float]]:
    radii = itertools.cycle([1.0, 0.45])
    angles = [math.pi * k / 5 for k in range(10)]
    return [(r * math.sin(a), -r * math.cos(a)) for r, a in zip(radii, angles, strict=False)]


# Whether points belong to a shape of radius 1, written without the library.
OUTLINES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "disc": lambda x, y: x**2 + y**2 < 1,
    "square": lambda x, y: (x.abs() < 0.88) & (y.abs() < 0.88),
    "triangle": polygon([(0, -1), (1, 0.78), (-1, 0.78)]),
    "cross": lambda x, y: ((x.abs() < 1) & (y.abs() < 0.36)) | ((x.abs() < 0.36) & (y.abs() < 1)),
    "ring": lambda x, y: (x**2 + y**2 < 1) & (x**2 + y**2 > 0.52**2),
    "star": polygon(star_corners()),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [6.2, 11.3])
def test_a_shape_covers_what_its_outline_encloses(shape: str, radius: float):
    """Against 256 points a pixel. A ramp is off by 0.09 at most on a slanted edge, by more in the
    pixel of a corner, which is seldom."""
    x, y, size = 20.3, 25.8, 48
    points = (torch.arange(size * FINE) + 0.5) / FINE
    inside = OUTLINES[shape]((points - x)[None] / radius, (points - y)[:, None] / radius)
    exact = inside.float().view(size, FINE, size, FINE).mean((1, 3))
    at_x, at_y, r = (torch.tensor([value]) for value in (x, y, radius))
    got = coverage(shape, at_x, at_y, r, size)[0]
    off = (got - exact).abs()
    assert off.max() < 0.42
    assert (off > 0.12).sum() <= 12  # corners
    assert abs(float(got.sum() / exact.sum()) - 1) < 0.02
    if shape in ("square", "cross"):
        assert off.max() < 2 / FINE, "these are exact"


def test_same_seed_same_bits_whatever_the_count():
    torch.manual_seed(1)
    first = scenes(700, seed=5)
    torch.manual_seed(2)
    again, fewer = scenes(700, seed=5), scenes(7, seed=5)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.words, again.words)
    assert torch.equal(first.images[:7], fewer.images)
    assert torch.equal(first.words[:7], fewer.words)
    assert not torch.equal(first.images, scenes(700, seed=6).images)


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    scenes(3)
    assert torch.equal(before, torch.get_rng_state())


def test_another_size_shows_the_same_scenes():
    large, small = scenes(60, size=128, seed=2), scenes(60, size=64, seed=2)
    assert torch.equal(large.words, small.words)
    pooled = torch.nn.functional.avg_pool2d(large.images, 2)
    assert (pooled - small.images).abs().mean() < 0.003


def in_words(there: scene_set.Scenes, i: int) -> str:
    """The caption of scene i without its ground, from its numbers, by plain string joining."""
    objects = [
        " ".join(
            [
                "a",
                list(SIZES)[int(there.size[i, k])],
                list(COLORS)[int(there.color[i, k])],
                list(SHAPES)[int(there.shape[i, k])],
            ]
        )
        for k in (0, 1)
    ]
    if there.relation[i] < 0:
        return objects[0]
    between = ["left of", "right of", "above", "below"][int(there.relation[i])]
    return f"{objects[0]} {between} {objects[1]}"


@pytest.fixture(scope="module")
def drawn() -> tuple[Dataset, scene_set.Scenes]:
    """A set, and the numbers that it was drawn from."""
    kept = []
    draw, scene_set.draw = (
        scene_set.draw,
        lambda there, size: kept.append(there) or draw(there, size),
    )
    try:
        return scenes(900, seed=3), kept[0]
    finally:
        scene_set.draw = draw


def test_captions_say_what_was_drawn(drawn: tuple[Dataset, scene_set.Scenes]):
    data, there = drawn
    for i, caption in enumerate(data.captions):
        said, _, ground = caption.partition(" on ")
        assert said == in_words(there, i)
        assert ground in ("", list(GROUNDS)[int(there.ground[i])])
    words = {word for caption in data.captions for word in caption.split()}
    assert words == set(data.vocabulary.words[1:]) - {"orange", "star"}  # type: ignore[union-attr]
    assert len(data.vocabulary) == 26  # type: ignore[arg-type]
    assert max(len(caption.split()) for caption in data.captions) == 12


def test_objects_are_inside_apart_and_where_the_caption_says(
    drawn: tuple[Dataset, scene_set.Scenes],
):
    _, there = drawn
    two = there.relation >= 0
    for k in (0, 1):
        own = two if k else torch.ones_like(two)
        x, y, r = (column[own, k] for column in (there.x, there.y, there.radius))
        for at in (x, y):
            assert ((at - r >= 0.0199) & (at + r <= 0.9801)).all()
        low, high = torch.tensor(list(SIZES.values()), dtype=torch.float64)[there.size[own, k]].T
        assert ((low <= r) & (r <= high)).all()
    dx, dy = (column[two, 1] - column[two, 0] for column in (there.x, there.y))
    along = torch.stack([dx, -dx, dy, -dy], 1).gather(1, there.relation[two, None])[:, 0]
    aside = torch.where(there.relation[two] < 2, dy, dx).abs()
    assert (along - there.radius[two].sum(1) >= 0.0399).all(), "a gap between them"
    assert (aside <= along / 2 + 1e-9).all(), "no doubt about the relation"
    same = [(column[two, 0] == column[two, 1]) for column in there[:3]]
    assert not torch.stack(same).all(0).any(), "two objects differ"


def test_the_parts_of_scenes_are_uniform(drawn: tuple[Dataset, scene_set.Scenes]):
    """Within 5 standard errors."""
    data, there = drawn
    count = len(data)

    def near(got: int, share: float) -> bool:
        return abs(got - share * count) < 5 * math.sqrt(share * (1 - share) * count)

    assert near(int((there.relation < 0).sum()), 1 / 3)
    for relation in range(4):
        assert near(int((there.relation == relation).sum()), 1 / 6)
    assert all(near(int((there.ground == g).sum()), 1 / 3) for g in range(3))
    assert near(sum(" on " in caption for caption in data.captions), 1 / 2)
    for column, choices in ((there.size, 2), (there.color, 6), (there.shape, 5)):
        assert all(near(int((column[:, 0] == k).sum()), 1 / choices) for k in range(choices))


def test_pictures_show_the_colors_and_places_they_are_drawn_from(
    drawn: tuple[Dataset, scene_set.Scenes],
):
    data, there = drawn
    pixels = (data.images + 1) / 2
    for i in range(200):
        ground = torch.tensor(list(GROUNDS.values())[int(there.ground[i])])
        torch.testing.assert_close(pixels[i, :, 0, 0], ground)
        for k in range(2 if there.relation[i] >= 0 else 1):
            if list(SHAPES)[int(there.shape[i, k])] == "ring":
                continue  # nothing at its center
            x, y = int(64 * there.x[i, k]), int(64 * there.y[i, k])
            color = torch.tensor(list(COLORS.values())[int(there.color[i, k])])
            expected = color * float(there.light[i, k])
            torch.testing.assert_close(pixels[i, :, y, x], expected, atol=1e-5, rtol=0)
            assert 0.85 <= there.light[i, k] <= 1


def kinds(data: Dataset) -> list[set[tuple[str, ...]]]:
    """The objects of each caption, as (size, color, shape)."""
    said = parse(data.words)
    names = (list(SIZES), list(COLORS), list(SHAPES))
    columns = zip(said.size.tolist(), said.color.tolist(), said.shape.tolist(), strict=True)
    return [
        {
            tuple(names[j][column[k]] for j, column in enumerate(row))
            for k in (0, 1)
            if row[2][k] >= 0
        }
        for row in columns
    ]


def test_held_out_combinations_are_never_drawn_and_the_rest_is():
    held_out = [("green", "triangle"), ("small", "red", "disc")]
    found = Counter(kind for row in kinds(scenes(3000, held_out=held_out, seed=1)) for kind in row)
    every = set(itertools.product(SIZES, COLORS, SHAPES))
    without = {k for k in every if {"green", "triangle"} <= set(k) or k == ("small", "red", "disc")}
    new = {k for k in every if {"orange", "star"} & set(k)}
    assert set(found) == every - without - new


def test_only_draws_an_object_of_these_combinations_in_every_picture():
    pair = ("green", "triangle")
    rows = kinds(scenes(400, only=[pair], seed=1))
    holds = [sum(set(pair) <= set(kind) for kind in row) for row in rows]
    assert min(holds) == 1
    assert len({kind for row in rows for kind in row}) > 50, "the other object may be any"
    stars = kinds(scenes(100, only=[("star",)], new_words=True))
    assert all(any("star" in kind for kind in row) for row in stars)
    assert {"orange", "star"} <= {
        w for row in kinds(scenes(300, new_words=True)) for k in row for w in k
    }


def test_load_knows_scenes_and_draws_its_splits_from_streams_of_their_own():
    train, test = load("scenes", size=16), load("scenes", size=16, split="test")
    assert (len(train), len(test)) == (10_000, 2_000)
    assert torch.equal(train.images[:50], scenes(50, size=16).images)
    assert not torch.equal(train.words[:2000], test.words)
    assert load("scenes", split="test", seed=1).images.shape == (2_000, 3, 64, 64)


def test_sentences_are_read_part_by_part():
    said = parse(
        ["a small red disc left of a large blue square on gray", "a disc above a green ring"]
    )
    assert said.size.tolist() == [[0, 1], [-1, -1]]
    assert said.color.tolist() == [[0, 4], [-1, 2]]
    assert said.shape.tolist() == [[0, 1], [0, 4]]
    assert said.relation.tolist() == [0, 2]
    assert said.ground.tolist() == [1, -1]
    parts = [[scene_captions.PARTS[part] for part in row] for row in said.part.tolist()]
    assert parts[0] == [
        *("object", "size", "color", "shape", "relation", "relation"),
        *("second object", "second size", "second color", "second shape", "ground", "ground"),
    ]
    assert parts[1] == [
        *("object", "shape", "relation", "second object", "second color", "second shape"),
        *["padding"] * 6,
    ]


def test_a_data_set_of_captions_describes_itself():
    data = scenes(3)
    assert repr(data) == "Dataset(3 x 3 x 64 x 64 float32 in [-1, 1], captions of 25 words)"
    assert data.words is data.labels
    assert len(data.captions) == 3


ODD: Any = 1
TWO, ROW = torch.zeros(2, 3, 8, 8), torch.zeros(2, 12, dtype=torch.int64)
VOCABULARY = scene_captions.VOCABULARY


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: scenes(0), ValueError, "count must be at least 1, got 0"),
        (lambda: scenes(2, size=4), ValueError, "size must be at least 8, got 4"),
        (lambda: scenes(2, seed=-1), ValueError, "seed must be at least 0, got -1"),
        (lambda: scenes(10, size=10**6), ValueError, "size must fit in memory, got 1000000"),
        (lambda: scenes(2, held_out="red"), TypeError, "held_out must be a sequence of tuples"),
        (lambda: scenes(2, held_out=["red"]), TypeError, "combination of held_out must be a seq"),
        (lambda: scenes(2, held_out=[("rde",)]), ValueError, "held_out must .*did you mean 'red'"),
        (lambda: scenes(2, held_out=[()]), ValueError, "held_out must hold a word, got none"),
        (lambda: scenes(2, only=[("red", "blue")]), ValueError, r"about one object, got \['red', "),
        (lambda: scenes(2, only=[("star",)]), ValueError, "got star; new_words=True draws stars"),
        (
            lambda: scenes(2, held_out=[("small",), ("large",)]),
            ValueError,
            "held_out must leave two objects or more, got 0",
        ),
        (
            lambda: scenes(2, only=[("red",)], held_out=[("red",)]),
            ValueError,
            "only must leave something to draw, got red",
        ),
        (lambda: scenes(2, new_words=ODD), TypeError, "new_words must be True or False"),
        (lambda: parse("red disc"), ValueError, "must begin with 'a'"),
        (lambda: parse("a small red"), ValueError, "must have a shape, one of disc, square"),
        (lambda: parse("a disc on red"), ValueError, "after 'on' must come one of black, gray"),
        (lambda: parse("a disc on"), ValueError, "after 'on' must come one of black, gray"),
        (lambda: parse("a disc left a disc"), ValueError, "'left' is out of place"),
        (lambda: parse("a disc above"), ValueError, "an object must begin with 'a'"),
        (lambda: parse("a disc a disc"), ValueError, "got 'a disc a disc': 'a' is out of place"),
        (lambda: parse("a dics"), ValueError, "got 'dics'; did you mean 'disc'"),
        (lambda: parse(""), ValueError, "an object must begin with 'a'"),
        (lambda: Dataset(TWO, ROW[:, :5], vocabulary=VOCABULARY), ValueError, r"shape \(2, 12\)"),
        (lambda: Dataset(TWO, ROW + 26, vocabulary=VOCABULARY), ValueError, "in 0..25, .* got 26"),
        (
            lambda: Dataset(TWO, ROW, ("a",), vocabulary=VOCABULARY),
            ValueError,
            "class_names and vocabulary must not both",
        ),
        (
            lambda: Dataset(TWO, ROW[:, 0], vocabulary=("", "a")),  # pyright: ignore
            TypeError,
            "vocabulary must be a Vocabulary",
        ),
        (lambda: Dataset(TWO, ROW[:, 0], ("a",)).captions, ValueError, "captions need a data set"),
        (lambda: Dataset(TWO, ROW[:, 0], ("a",)).words, ValueError, "words need a data set with"),
    ],
)
def test_what_is_wrong_is_named(call, error: type, message: str):
    with pytest.raises(error, match=message):
        call()


def test_every_relation_is_worded():
    """All captions that there are, against strings joined here."""
    names = [*itertools.product(range(2), range(7), range(6))]
    rng = np.random.default_rng(0)
    pairs = torch.tensor(rng.integers(0, len(names), (300, 2)))
    table = torch.tensor(names)
    size, color, shape = table[pairs].unbind(2)
    relation = torch.arange(300) % 5 - 1
    ground = torch.arange(300) % 4 - 1
    words = scene_captions.captions(size, color, shape, relation, ground)
    blank = torch.zeros(300, 2, dtype=torch.float64)
    there = scene_set.Scenes(size, color, shape, relation, ground, blank, blank, blank, blank)
    for i, caption in enumerate(VOCABULARY.decode(words)):
        behind = f" on {list(GROUNDS)[int(ground[i])]}" if ground[i] >= 0 else ""
        assert caption == in_words(there, i) + behind
    assert list(RELATIONS.values())[2:] == [("above",), ("below",)]
