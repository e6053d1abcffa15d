"""What scenes are made of, and the sentences that say it.

    caption  = object [relation object] ["on" ground]
    object   = "a" size color shape
    relation = "left of" | "right of" | "above" | "below"

So "a small red disc", or "a large blue square left of a small green ring on gray": 12 words at
most. A picture always has a ground; half of the captions name it, the others leave it open.
``parse`` also reads sentences that leave out sizes and colors, as in "a disc above a square".
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._validate import InvalidTypeError, InvalidValueError
from tutorial_lib.datasets.scene_shapes import SHAPES
from tutorial_lib.datasets.vocabulary import PADDING, Vocabulary, Words

SIZES = {"small": (0.095, 0.115), "large": (0.16, 0.19)}
"""Radii by their names, in sides of the picture."""
COLORS = {
    "red": (0.90, 0.12, 0.12),
    "yellow": (0.95, 0.88, 0.10),
    "green": (0.10, 0.70, 0.20),
    "cyan": (0.10, 0.82, 0.88),
    "blue": (0.15, 0.25, 0.90),
    "magenta": (0.88, 0.15, 0.80),
    "orange": (0.95, 0.50, 0.05),
}
"""Colors of objects, RGB in [0, 1]; each object's is darker by up to ``DARKER``."""
DARKER = 0.15
GROUNDS = {"black": (0.0, 0.0, 0.0), "gray": (0.5, 0.5, 0.5), "white": (1.0, 1.0, 1.0)}
RELATIONS = {
    "left": ("left", "of"),
    "right": ("right", "of"),
    "above": ("above",),
    "below": ("below",),
}
"""Where the first object is, seen from the second, and the words for it."""
NEW_WORDS = ("orange", "star")
"""A color and a shape that no scene has unless it is asked for: words that a trained model does not
know, though its vocabulary has them."""

VOCABULARY = Vocabulary(
    (
        *(PADDING, "a", *SIZES, *COLORS, *SHAPES),
        *("left", "right", "of", "above", "below", "on", *GROUNDS),
    ),
    length=12,
)
"""The 25 words of captions."""

_SIZES, _COLORS, _SHAPES = tuple(SIZES), tuple(COLORS), tuple(SHAPES)
_GROUNDS = tuple(GROUNDS)

Places = Int64[Tensor, "batch length"]


class Described(NamedTuple):
    """What sentences say, each part as an index into the names above, -1 where nothing is said.

    Attributes:
        size, color, shape: int64 (B, 2), of the first and the second object; ``shape`` is -1 where
            there is none.
        relation: int64 (B,), of the first to the second.
        ground: int64 (B,).
        part: int64 (B, L), which part of the sentence each word belongs to, see ``PARTS``.
    """

    size: Tensor
    color: Tensor
    shape: Tensor
    relation: Tensor
    ground: Tensor
    part: Places


PARTS = (
    *("padding", "object", "size", "color", "shape"),
    *("second object", "second size", "second color", "second shape", "relation", "ground"),
)
"""What a word can be about; "object" is the word "a", which says that there is one."""


def captions(size: Tensor, color: Tensor, shape: Tensor, relation: Tensor, ground: Tensor) -> Words:
    """The words of the captions of scenes.

    Args:
        size, color, shape: int64 (N, 2), indices into ``SIZES``, ``COLORS``, ``SHAPES``.
        relation: int64 (N,), index into ``RELATIONS``; -1 for scenes of one object.
        ground: int64 (N,), index into ``GROUNDS``; -1 where the caption leaves it open.

    Returns:
        int64 (N, 12), numbers of ``VOCABULARY``.
    """
    number = VOCABULARY.number
    a = torch.full_like(relation, number("a"))
    names = [torch.tensor([number(w) for w in group]) for group in (_SIZES, _COLORS, _SHAPES)]
    kinds = (size, color, shape)
    objects = [
        torch.stack([a, *(table[kind[:, i]] for table, kind in zip(names, kinds, strict=True))], 1)
        for i in (0, 1)
    ]  # (N, 4) each
    pairs = [[number(w) for w in words] + [0] * (2 - len(words)) for words in RELATIONS.values()]
    between = torch.tensor([*pairs, [0, 0]])[relation]  # the last row for -1
    behind = torch.tensor([[number("on"), number(w)] for w in _GROUNDS] + [[0, 0]])[ground]
    second = objects[1] * (relation >= 0)[:, None]
    words = torch.cat([objects[0], between, second, behind], dim=1)  # (N, 12) with gaps
    order = (words == 0).long().argsort(dim=1, stable=True)  # words first, in their order
    return words.gather(1, order)


def parse(sentences: Sequence[str] | str | Words) -> Described:
    """What sentences say, by the grammar; sizes, colors and the ground may be left out.

    Args:
        sentences: as text, or as words (B, L) of ``VOCABULARY``.

    Raises:
        TypeError, ValueError: a sentence that is none of the grammar; the message shows it.
    """
    words = VOCABULARY.encode(sentences) if not isinstance(sentences, Tensor) else sentences
    read: dict[str, list[int]] = {}
    rows = []
    for text in VOCABULARY.decode(words):
        if text not in read:
            read[text] = _Reader(text).read(words.shape[1])
        rows.append(read[text])
    width = 8 + words.shape[1]
    numbers = torch.tensor(rows, dtype=torch.int64).view(len(rows), width)
    first, second, relation, ground, part = numbers.split([3, 3, 1, 1, words.shape[1]], dim=1)
    size, color, shape = torch.stack([first, second], dim=2).unbind(1)  # (B, 2) each
    return Described(size, color, shape, relation[:, 0], ground[:, 0], part)


class _Reader:
    """Reads one sentence from left to right."""

    def __init__(self, text: str) -> None:
        self.text, self.words, self.parts = text, text.split(), []

    def read(self, length: int) -> list[int]:
        """Size, color and shape of both objects, relation, ground, and each word's part."""
        first, second, relation, ground = self._object(""), [-1] * 3, -1, -1
        for number, words in enumerate(RELATIONS.values()):
            if self._next(len(words)) == list(words):
                self._take("relation", len(words))
                relation, second = number, self._object("second ")
                break
        if self._next(1) == ["on"]:
            self._take("ground")
            ground = self._one_of(_GROUNDS, "ground")
            if ground < 0:
                raise self._error("after 'on' must come one of " + ", ".join(_GROUNDS))
        if self._next(1):
            raise self._error(f"{self._next(1)[0]!r} is out of place")
        padding = [0] * (length - len(self.parts))
        return [*first, *second, relation, ground, *self.parts, *padding]

    def _object(self, which: str) -> list[int]:
        if self._next(1) != ["a"]:
            raise self._error("an object must begin with 'a'")
        self._take(f"{which}object")
        size, color, shape = (
            self._one_of(names, f"{which}{kind}")
            for names, kind in ((_SIZES, "size"), (_COLORS, "color"), (_SHAPES, "shape"))
        )
        if shape < 0:
            raise self._error("an object must have a shape, one of " + ", ".join(_SHAPES))
        return [size, color, shape]

    def _one_of(self, names: tuple[str, ...], part: str) -> int:
        """Takes the next word if it is one of these: its place among them, else -1."""
        following = self._next(1)
        if not following or following[0] not in names:
            return -1
        self._take(part)
        return names.index(following[0])

    def _next(self, count: int) -> list[str]:
        return self.words[len(self.parts) : len(self.parts) + count]

    def _take(self, part: str, count: int = 1) -> None:
        self.parts += [PARTS.index(part)] * count

    def _error(self, why: str) -> InvalidValueError:
        grammar = "a [size] [color] shape [relation a [size] [color] shape] [on ground]"
        shown = f"{self.text!r:.100}"
        return InvalidValueError(f"sentences must be like {grammar!r}; got {shown}: {why}")


def check_combinations(name: str, value: object) -> list[tuple[str, ...]]:
    """Combinations of words about one object, such as ("green", "triangle"), as a list.

    Raises:
        TypeError, ValueError: something else; a word that is no size, color or shape (the message
            names the nearest one), or two of a kind.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        got = _validate.describe(value)
        raise InvalidTypeError(f"{name} must be a sequence of tuples of str, got {got}")
    found = []
    for combination in value:
        words = _validate.names(f"each combination of {name}", combination)
        if not words:
            raise InvalidValueError(f"each combination of {name} must hold a word, got none")
        for word in words:
            _validate.one_of(f"a word of {name}", word, (*_SIZES, *_COLORS, *_SHAPES))
        for kind in (_SIZES, _COLORS, _SHAPES):
            if len(alike := [word for word in words if word in kind]) > 1:
                raise InvalidValueError(
                    f"each combination of {name} must be about one object, got {alike}"
                )
        found.append(words)
    return found
