"""``scenes``: colored objects on a plain ground, with a caption that says what there is to see."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._typing import Images
from tutorial_lib._validate import InvalidValueError
from tutorial_lib.datasets.dataset import Dataset
from tutorial_lib.datasets.drawn import draws
from tutorial_lib.datasets.scene_captions import (
    COLORS,
    DARKER,
    GROUNDS,
    NEW_WORDS,
    RELATIONS,
    SIZES,
    VOCABULARY,
    captions,
    check_combinations,
)
from tutorial_lib.datasets.scene_shapes import SHAPES, coverage

NATIVE_SIZE = 64
_CHUNK = 256  # images drawn at once: they stay in the cache
_MARGIN = 0.02  # between an object and the border, in sides of the picture
_GAP = 0.04  # between two objects, along the axis of their relation
_ASIDE = 0.5  # how far two objects may be apart along the other axis, in shares of this one
_SIZES, _COLORS, _SHAPES = tuple(SIZES), tuple(COLORS), tuple(SHAPES)

Combinations = Sequence[Sequence[str]]
"""Words that hold of one object together, such as [("green", "triangle"), ("small", "red")]."""


class Scenes(NamedTuple):
    """What N pictures show, as numbers; ``draw`` makes pictures of them.

    Attributes:
        size, color, shape: int64 (N, 2), indices into the names in ``scene_captions``, of the first
            and the second object.
        relation: int64 (N,), where the first object is, seen from the second; -1 for one object.
        ground: int64 (N,).
        x, y, radius: float64 (N, 2), in sides of the picture; y grows downwards.
        light: float64 (N, 2), what the color of an object is multiplied by.
    """

    size: Tensor
    color: Tensor
    shape: Tensor
    relation: Tensor
    ground: Tensor
    x: Tensor
    y: Tensor
    radius: Tensor
    light: Tensor


def scenes(
    count: int,
    *,
    size: int = NATIVE_SIZE,
    seed: int = 0,
    held_out: Combinations = (),
    only: Combinations = (),
    new_words: bool = False,
) -> Dataset:
    """``count`` pictures of one or two colored objects, with captions.

    One picture in three has one object. Each object has a size, a color and a shape, all
    combinations equally likely, and two objects of a picture differ in at least one of them. They
    are side by side or one above the other; of the two captions that say so, as in "A above B" and
    "B below A", one is drawn. The ground is black, gray or white; half of the captions name it. See
    ``scene_captions`` for words and grammar.

    Picture i depends only on ``seed``, i, and which combinations there are, so a longer set begins
    with the shorter one; another ``size`` shows the same scenes, larger or smaller.

    Args:
        held_out: combinations of words that no object has, as in [("green", "triangle")]: train
            without them, and see whether a model can compose what it never saw together.
        only: each picture has an object with one of these combinations: pictures to test that on,
            or to teach a new word from.
        new_words: whether there are stars, and orange objects, too.

    Raises:
        TypeError, ValueError: ``count`` below 1, ``size`` below 8, ``seed`` below 0, or not ints; a
            combination of unknown words, or nothing left to draw.
    """
    return draw_scenes(
        count, size, seed, stream=0, held_out=held_out, only=only, new_words=new_words
    )


def draw_scenes(
    count: int,
    size: int,
    seed: int,
    stream: int,
    *,
    held_out: Combinations = (),
    only: Combinations = (),
    new_words: bool = False,
) -> Dataset:
    """``scenes``; streams of one seed are independent (training and test images)."""
    _validate.boolean("new_words", new_words)
    every, first = _objects(held_out, only, new_words)
    u = draws(count, size, seed, stream, columns=15, channels=3)
    there = _scenes(u, every, first)
    named = torch.where(u[:, 14] < 0.5, there.ground, -1)
    words = captions(there.size, there.color, there.shape, there.relation, named)
    return Dataset(draw(there, size), words, vocabulary=VOCABULARY)


def _objects(held_out: Combinations, only: Combinations, new_words: bool) -> tuple[Tensor, Tensor]:
    """All (size, color, shape) that objects may have, and those that each picture has one of;
    int64 (K, 3) each.

    Raises:
        TypeError, ValueError: a wrong combination, or too few objects to draw scenes of two.
    """
    without = check_combinations("held_out", held_out)
    wanted = check_combinations("only", only)
    known = [
        names
        for names in itertools.product(_SIZES, _COLORS, _SHAPES)
        if new_words or not set(names) & set(NEW_WORDS)
    ]
    every = [names for names in known if not any(set(one) <= set(names) for one in without)]
    first = [names for names in every if any(set(one) <= set(names) for one in wanted)]
    first = first if wanted else every
    if len(every) < 2:
        raise InvalidValueError(f"held_out must leave two objects or more, got {len(every)}")
    if not first:
        asked = " or ".join(" ".join(words) for words in wanted)
        hint = "; new_words=True draws stars and orange" if not new_words else ""
        raise InvalidValueError(f"only must leave something to draw, got {asked}{hint}")
    return _numbers(every), _numbers(first)


def _numbers(objects: list[tuple[str, str, str]]) -> Tensor:
    places = [
        (_SIZES.index(size), _COLORS.index(color), _SHAPES.index(shape))
        for size, color, shape in objects
    ]
    return torch.tensor(places)


def _scenes(u: Tensor, every: Tensor, first: Tensor) -> Scenes:
    """Scenes from uniform numbers (N, 15)."""
    one = u[:, 0] < 1 / 3
    relation = torch.where(one, -1, (u[:, 1] * len(RELATIONS)).long())
    ground = (u[:, 2] * len(GROUNDS)).long()
    chosen = first[(u[:, 3] * len(first)).long()]  # (N, 3)
    # another one: a number below all but the chosen, moved by one where it comes behind that
    place = (every[None] == chosen[:, None]).all(2).long().argmax(1)
    other = (u[:, 4] * (len(every) - 1)).long()
    other = every[other + (other >= place)]
    swapped = (u[:, 5] < 0.5) & ~one  # whether the chosen one is named second
    pair = torch.stack([chosen, other], dim=1)  # (N, 2, 3)
    pair = torch.where(swapped[:, None, None], pair.flip(1), pair)
    size, color, shape = pair.unbind(2)
    low, high = torch.tensor(list(SIZES.values()), dtype=u.dtype)[size].unbind(2)
    radius = low + u[:, 6:8] * (high - low)
    x, y = _places(u[:, 8:12], relation, radius)
    light = 1 - DARKER * u[:, 12:14]
    return Scenes(size, color, shape, relation, ground, x, y, radius, light)


def _places(u: Tensor, relation: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Centers x and y, (N, 2) each, from uniform numbers (N, 4)."""
    # Named first or not: before is the one on the left or above.
    ahead = (relation == 0) | (relation == 2)  # the first object is before the second
    before, behind = torch.where(ahead[:, None], radius, radius.flip(1)).unbind(1)
    free = 1 - 2 * _MARGIN - _GAP - 2 * (before + behind)
    low, high = u[:, :2].sort(dim=1).values.unbind(1)
    main = torch.stack(
        [_MARGIN + low * free + before, _MARGIN + high * free + 2 * before + _GAP + behind], 1
    )
    reach = _ASIDE * (main[:, 1] - main[:, 0])
    start = _between(u[:, 2], _MARGIN + before, 1 - _MARGIN - before)
    least = torch.maximum(start - reach, _MARGIN + behind)
    most = torch.minimum(start + reach, 1 - _MARGIN - behind)
    cross = torch.stack([start, _between(u[:, 3], least, most)], dim=1)
    main, cross = (torch.where(ahead[:, None], at, at.flip(1)) for at in (main, cross))
    sideways = (relation == 0) | (relation == 1)
    x = torch.where(sideways[:, None], main, cross)
    y = torch.where(sideways[:, None], cross, main)
    alone = _between(u[:, :2], _MARGIN + radius[:, :1], 1 - _MARGIN - radius[:, :1])
    one = (relation < 0)[:, None]
    return torch.where(one, alone[:, :1], x), torch.where(one, alone[:, 1:], y)


def _between(u: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return low + u * (high - low)


def draw(there: Scenes, size: int) -> Images:
    """Pictures (N, 3, size, size) of scenes, values in [-1, 1]."""
    grounds, colors = (torch.tensor(list(c.values())) for c in (GROUNDS, COLORS))
    images = torch.empty(len(there.ground), 3, size, size)
    for start in range(0, len(images), _CHUNK):
        part = Scenes(*(column[start : start + _CHUNK] for column in there))
        ground = grounds[part.ground][:, :, None, None]  # (n, 3, 1, 1)
        picture = images[start : start + _CHUNK]
        picture.copy_(ground.expand_as(picture))
        for i in (0, 1):
            chosen = torch.arange(len(picture)) if i == 0 else (part.relation >= 0).nonzero()[:, 0]
            for number, shape in enumerate(SHAPES):
                own = chosen[part.shape[chosen, i] == number]
                if not len(own):
                    continue
                x, y, radius = (size * column[own, i] for column in (part.x, part.y, part.radius))
                covered = coverage(shape, x, y, radius, size)[:, None]  # (n, 1, H, W)
                color = colors[part.color[own, i]] * part.light[own, i, None].float()
                away = (color[:, :, None, None] - ground[own]) * covered
                picture.index_add_(0, own, away)
    return images.mul_(2).sub_(1).clamp_(-1, 1)
