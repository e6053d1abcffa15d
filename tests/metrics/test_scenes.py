"""The judge of scenes, against scenes with planted errors."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from tests.draws import seeded
from tutorial_lib.datasets import scenes
from tutorial_lib.datasets.scene_captions import COLORS, GROUNDS, SIZES, VOCABULARY
from tutorial_lib.datasets.scene_set import Scenes, draw
from tutorial_lib.datasets.scene_shapes import SHAPES
from tutorial_lib.metrics import find_objects, judge_scenes

NAMES = {"size": tuple(SIZES), "color": tuple(COLORS), "shape": tuple(SHAPES)}
RED_DISC = ("small", "red", "disc", 0.25, 0.6)
BLUE_SQUARE = ("large", "blue", "square", 0.7, 0.5)
SAID = "a small red disc left of a large blue square on gray"


def picture(*objects: tuple, ground: str = "gray", size: int = 64) -> torch.Tensor:
    """A picture (1, 3, S, S) of one or two objects (size, color, shape, x, y)."""
    pair = [objects[0], objects[-1]]
    kinds, color, shape = (
        torch.tensor([[names.index(one[i]) for one in pair]])
        for i, names in enumerate(NAMES.values())
    )
    x, y = (torch.tensor([[one[i] for one in pair]], dtype=torch.float64) for i in (3, 4))
    radius = torch.tensor([[sum(SIZES[one[0]]) / 2 for one in pair]], dtype=torch.float64)
    relation = torch.tensor([0 if len(objects) > 1 else -1])
    there = torch.tensor([tuple(GROUNDS).index(ground)])
    return draw(Scenes(kinds, color, shape, relation, there, x, y, radius, torch.ones(1, 2)), size)


def wrong_words(image: torch.Tensor, said: str) -> list[str]:
    """The words of a caption that do not hold."""
    right = judge_scenes(image, said).right[0].tolist()
    return [word for word, holds in zip(said.split(), right, strict=False) if not holds]


@pytest.mark.parametrize("size", [32, 64, 128])
def test_real_scenes_are_right(size: int):
    data = scenes(50 if size > 64 else 200, size=size, seed=11, new_words=True)
    verdict = judge_scenes(data.images, data.words)
    assert verdict.all_right.double().mean() >= 0.99
    assert torch.equal(verdict.right.all(1), verdict.all_right)


def test_captions_of_other_pictures_are_wrong():
    data = scenes(200, seed=12)
    verdict = judge_scenes(data.images, data.words.roll(1, 0))
    assert verdict.all_right.double().mean() < 0.01
    two = (data.words != 0).sum(1).roll(1) > 8
    assert not verdict.right[two].all(1).double().mean() > 0.01


def test_what_is_found_is_where_it_was_drawn():
    found = find_objects(picture(RED_DISC, BLUE_SQUARE))
    assert found.number.tolist() == [2]
    assert found.size[0].tolist() == [1, 0, -1], "the largest first"
    assert found.color[0].tolist() == [4, 0, -1]
    assert found.shape[0].tolist() == [1, 0, -1]
    assert found.ground.tolist() == [1]
    expected = torch.tensor([[0.7, 0.5, 0.175], [0.25, 0.6, 0.105]])
    got = torch.stack([found.x[0, :2], found.y[0, :2], found.radius[0, :2]], dim=1)
    torch.testing.assert_close(got, expected, atol=0.002, rtol=0)


@pytest.mark.parametrize(
    ("objects", "ground", "wrong"),
    [
        ((RED_DISC, BLUE_SQUARE), "gray", []),
        ((RED_DISC, BLUE_SQUARE), "black", ["on", "gray"]),
        ((("small", "green", *RED_DISC[2:]), BLUE_SQUARE), "gray", ["red"]),
        ((("small", "orange", *RED_DISC[2:]), BLUE_SQUARE), "gray", ["red"]),
        ((("large", *RED_DISC[1:]), BLUE_SQUARE), "gray", ["small"]),
        ((RED_DISC, ("large", "blue", "disc", 0.7, 0.5)), "gray", ["square"]),
        ((RED_DISC, ("small", "blue", "ring", 0.7, 0.5)), "gray", ["large", "square"]),
        # colors on the wrong owner: what binding gets wrong
        (
            (("small", "blue", *RED_DISC[2:]), ("large", "red", *BLUE_SQUARE[2:])),
            "gray",
            ["red", "blue"],
        ),
        # the other way around, and one above the other
        (((*RED_DISC[:3], 0.8, 0.5), (*BLUE_SQUARE[:3], 0.3, 0.5)), "gray", ["left", "of"]),
        (((*RED_DISC[:3], 0.5, 0.2), (*BLUE_SQUARE[:3], 0.55, 0.7)), "gray", ["left", "of"]),
        # one is missing: all about it, and where it should be
        ((RED_DISC,), "gray", ["left", "of", "a", "large", "blue", "square"]),
        ((BLUE_SQUARE,), "gray", ["a", "small", "red", "disc", "left", "of"]),
        # one twice
        ((RED_DISC, ("small", "red", "disc", 0.7, 0.5)), "gray", ["large", "blue", "square"]),
    ],
)
def test_planted_errors_are_found_word_by_word(objects: tuple, ground: str, wrong: list[str]):
    image = picture(*objects, ground=ground)
    assert wrong_words(image, SAID) == wrong
    assert bool(judge_scenes(image, SAID).all_right) is not bool(wrong)


def test_an_object_too_many_is_not_all_right():
    verdict = judge_scenes(picture(RED_DISC, BLUE_SQUARE), "a small red disc")
    assert verdict.right.all()
    assert not verdict.all_right.any()
    crowded = torch.maximum(picture(RED_DISC, ground="black"), picture(BLUE_SQUARE, ground="black"))
    third = picture(("small", "green", "cross", 0.2, 0.2), ground="black")
    crowded = torch.maximum(crowded, third)
    verdict = judge_scenes(crowded, SAID.replace("gray", "black"))
    assert verdict.found.number.tolist() == [3]
    assert verdict.right.all()
    assert not verdict.all_right.any()


def test_what_a_caption_leaves_out_may_be_anything():
    image = picture(RED_DISC, BLUE_SQUARE)
    assert judge_scenes(image, "a disc left of a square").all_right.all()
    assert judge_scenes(image, "a blue square right of a disc").all_right.all()
    assert wrong_words(image, "a disc above a square") == ["above"]


@pytest.mark.parametrize(
    ("shape", "size", "color"), [*itertools.product(SHAPES, SIZES, ["red", "orange"])]
)
def test_each_shape_and_size_is_told_from_every_other(shape: str, size: str, color: str):
    image = picture((size, color, shape, 0.42, 0.57))
    kinds = [*itertools.product(SIZES, SHAPES)]
    said = [f"a {other_size} {color} {other}" for other_size, other in kinds]
    right = judge_scenes(image.expand(len(said), -1, -1, -1), said).right[:, :4]
    expected = [[True, a == size, True, b == shape] for a, b in kinds]
    assert right.tolist() == expected


def test_colors_are_told_apart_on_every_ground():
    for color, ground, light in itertools.product(COLORS, GROUNDS, (0.85, 1.0)):
        image = picture(("small", color, "triangle", 0.5, 0.5), ground=ground)
        image = ((image + 1) / 2 * light) * 2 - 1 if ground == "black" else image
        said = [f"a small {other} triangle on {ground}" for other in COLORS]
        right = judge_scenes(image.expand(len(said), -1, -1, -1), said).right
        assert (right[:, 2] == torch.tensor([other == color for other in COLORS])).all()
        assert right[:, [0, 1, 3, 4, 5]].all()


def test_a_little_noise_is_forgiven_and_nonsense_is_not():
    data = scenes(60, seed=13)
    noise = torch.randn(data.images.shape, generator=seeded())
    assert judge_scenes(data.images + 0.05 * noise, data.words).all_right.double().mean() > 0.99
    assert judge_scenes(noise, data.words).all_right.sum() == 0
    for level in (-1.0, 0.0, 1.0):
        flat = torch.full_like(data.images, level)
        verdict = judge_scenes(flat, data.words)
        assert verdict.found.number.sum() == 0
        assert not verdict.all_right.any()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", SIZES)
def test_blurred_objects_are_refused(shape: str, size: str):
    sharp = picture((size, "red", shape, 0.5, 0.5))
    said = f"a {size} red {shape}"
    assert wrong_words(sharp, said) == []
    for width in (5, 9, 21):
        half = width // 2
        blurred = F.avg_pool2d(F.pad(sharp, (half,) * 4, mode="replicate"), width, stride=1)
        assert wrong_words(blurred, said)


def test_two_colored_objects_are_refused():
    disc = picture(("large", "red", "disc", 0.5, 0.5))
    half = disc.clone()
    half[:, :, 32:] = picture(("large", "blue", "disc", 0.5, 0.5))[:, :, 32:]
    for color in COLORS:
        assert color in wrong_words(half, f"a large {color} disc")


def test_a_shape_between_two_is_neither():
    """Squares with ever rounder corners, |x|^p + |y|^p = r^p: p = 2 is a disc."""
    place = torch.arange(64) + 0.5 - 32
    seen = set()
    for p in (2.0, 2.7, 3.5, 5.0, 60.0):
        inside = (place.abs()[None] ** p + place.abs()[:, None] ** p) ** (1 / p)
        covered = (10 - inside + 0.5).clamp(0, 1)
        image = (
            2 * covered.expand(1, 3, 64, 64) * torch.tensor([0.9, 0.12, 0.12])[:, None, None] - 1
        )
        shape = int(find_objects(image).shape[0, 0])
        seen.add((p, "doubt" if shape < 0 else NAMES["shape"][shape]))
    assert {(2.0, "disc"), (3.5, "doubt"), (60.0, "square")} <= seen


def test_one_picture_does_not_change_the_verdict_on_another():
    data = scenes(130, seed=14)  # more than one chunk
    alone = [judge_scenes(data.images[i : i + 1], data.words[i : i + 1]).right for i in range(5)]
    assert torch.equal(judge_scenes(data.images, data.words).right[:5], torch.cat(alone))


def test_pictures_with_a_nan_are_wrong_and_the_others_are_not():
    data = scenes(3, seed=1)
    images = data.images.clone()
    images[1, 0, 5, 5] = float("nan")
    assert judge_scenes(images, data.words).all_right.tolist() == [True, False, True]


def test_text_and_words_are_the_same():
    data = scenes(20, seed=2)
    by_text = judge_scenes(data.images, data.captions)
    by_words = judge_scenes(data.images, VOCABULARY.encode(data.captions))
    assert torch.equal(by_text.right, by_words.right)


ONE = torch.zeros(1, 3, 64, 64)


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: judge_scenes(ONE, ["a disc"] * 2), ValueError, "captions must be 1, .* got 2"),
        (lambda: judge_scenes(ONE, "a blob"), ValueError, "got 'blob'"),
        (lambda: judge_scenes(ONE, "disc a"), ValueError, "an object must begin with 'a'"),
        (lambda: find_objects(ONE[:, :1]), ValueError, r"\(N, 3, S, S\).* got \(1, 1, 64, 64\)"),
        (lambda: find_objects(ONE[..., 1:]), ValueError, r"\(N, 3, S, S\).* got"),
        (lambda: find_objects(ONE[:0]), ValueError, "N >= 1"),
        (lambda: find_objects(ONE[0]), ValueError, r"\(N, 3, S, S\).* got \(3, 64, 64\)"),
        (lambda: find_objects(ONE.long()), TypeError, "images must hold floating-point"),
        (lambda: find_objects(ONE[..., :8, :8]), ValueError, "side of images must be at least 16"),
    ],
)
def test_what_is_wrong_is_named(call, error: type, message: str):
    with pytest.raises(error, match=message):
        call()
