"""Does a picture show what its caption says? A judge for models trained on ``datasets.scenes``.

It knows how scenes are drawn: each object that it finds is drawn again in every shape, and the
shape whose drawing overlaps most is the object's, if there is no doubt. No network is involved.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._typing import Images
from tutorial_lib._validate import InvalidValueError
from tutorial_lib.datasets import scene_captions
from tutorial_lib.datasets.scene_captions import COLORS, DARKER, GROUNDS, PARTS, SIZES, Described
from tutorial_lib.datasets.scene_shapes import SHAPES, coverage
from tutorial_lib.datasets.vocabulary import Words

MOST = 3
"""Objects that are looked at closely; the largest ones. Scenes have at most two."""
MIN_AREA = 0.003
"""Of a spot that counts as an object, in areas of the picture: 12 of 64 x 64 pixels. The smallest
real objects, small stars, have 48; smaller spots are ignored."""
MAX_OFF = 0.5
"""How far the outline of an object may be from that of its shape drawn anew, in pixels: the area in
which the two differ, by the length of the outline. Real objects have 0.07 and less, objects that
are blurred over 5 pixels have 0.7."""
MIN_LEAD = 0.05
"""How much more the shape must overlap, intersection over union, than the one that fits second
best. Real objects lead by 0.13 and more, a square with round corners by less."""
MAX_COLOR = 0.2
"""Distance in RGB to the nearest color, 0 to 1 each. Two colors are at least 0.38 apart."""
MAX_UNEVEN = 0.15
"""Root mean square of the distance to the mean color, inside an object."""
MAX_GROUND = 0.15
"""The same for the frame of a picture and its ground."""
RADII = (0.075, 0.1375, 0.23)
"""Small objects are between the first two, large ones between the last two; real ones are at least
0.02 away from each."""
_CHUNK = 128  # images judged at once
_EDGE = 0.19  # a pixel so different from the ground, in its worst channel, is of an object
_TINY = 1e-6


class SceneObjects(NamedTuple):
    """What was found in N pictures; -1 stands for what cannot be told.

    Attributes:
        number: int64 (N,), how many objects a picture has.
        size, color, shape: int64 (N, 3), of the largest ones, by falling area; indices into
            ``SIZES``, ``COLORS`` and ``SHAPES``. -1 also where there is no object.
        overlap: (N, 3), of each object and its shape drawn anew, 0 to 1.
        x, y, radius: (N, 3), in sides of the picture.
        ground: int64 (N,), index into ``GROUNDS``.
    """

    number: Tensor
    size: Tensor
    color: Tensor
    shape: Tensor
    overlap: Tensor
    x: Tensor
    y: Tensor
    radius: Tensor
    ground: Tensor


class SceneVerdict(NamedTuple):
    """The verdict of ``judge_scenes``.

    Attributes:
        right: bool (N, L), for each word of a caption whether it holds; True for padding.
        all_right: bool (N,), whether all words hold, and there are no other objects.
        found: the objects behind it.
    """

    right: Tensor
    all_right: Tensor
    found: SceneObjects


def judge_scenes(images: Images, captions: Sequence[str] | str | Words) -> SceneVerdict:
    """Which words of each caption hold in its picture.

    The objects that are found are assigned to those of the caption so that as many words as
    possible hold. Of an object that is missing, no word holds, and no relation to it. The words of
    a relation, as in "left of", hold together or not at all: the centers must be farther apart in
    that direction than in the other.

    Args:
        images: (N, 3, S, S), values in [-1, 1]; others are clamped, as on a screen.
        captions: N sentences of the grammar in ``datasets.scene_captions``, as text or as words
            (N, L) of its vocabulary. What they leave out, such as the ground, may be anything.

    Raises:
        TypeError, ValueError: other images, another number of captions, or one that is none of the
            grammar.
    """
    asked = scene_captions.parse(captions)
    found = find_objects(images)
    if len(asked.part) != len(images):
        raise InvalidValueError(
            f"captions must be {len(images)}, one for each image; got {len(asked.part)}"
        )
    holds = _holds(asked, found)  # (N, parts)
    right = holds.gather(1, asked.part)
    objects = (asked.shape >= 0).sum(1)
    return SceneVerdict(right, right.all(1) & (found.number == objects), found)


@torch.no_grad()
def find_objects(images: Images) -> SceneObjects:
    """The objects in pictures of scenes: where each is, and its size, color and shape.

    What differs from the frame of the picture is an object, as far as its pixels touch each other.
    A picture with a NaN or infinite value has none.

    Args:
        images: (N, 3, S, S), S at least 16, values in [-1, 1]; others are clamped.

    Raises:
        TypeError, ValueError: not a floating-point tensor; another shape.
    """
    images = _validate.floating("images", images)
    sides = images.shape[2:]
    if images.ndim != 4 or images.shape[1] != 3 or sides[0] != sides[1] or not len(images):
        shape = tuple(images.shape)
        raise InvalidValueError(f"images must have shape (N, 3, S, S), N >= 1; got {shape}")
    _validate.whole_number("the side of images", sides[0], at_least=16)
    parts = [_find(part.float()) for part in images.split(_CHUNK)]
    return SceneObjects(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _find(images: Tensor) -> SceneObjects:
    """``find_objects`` for one chunk."""
    finite = images.flatten(1).isfinite().all(1)
    pixels = ((images.nan_to_num() + 1) / 2).clamp(0, 1)  # (N, 3, S, S)
    frame = _frame(pixels)  # (N, 3, P)
    level = frame.median(2).values  # (N, 3)
    away = (pixels - level[:, :, None, None]).abs().amax(1)  # (N, S, S)
    spots, count = _largest_spots((away > _EDGE) & finite[:, None, None])  # (N, MOST, S, S)
    objects = [_look(pixels, level, spots[:, k]) for k in range(MOST)]
    columns = (torch.stack(column, dim=1) for column in zip(*objects, strict=True))
    size, color, shape, overlap, x, y, radius = columns
    even = (frame - level[:, :, None]).square().sum(1).mean(1).sqrt() <= MAX_GROUND
    grounds = torch.tensor(list(GROUNDS.values()), device=images.device)
    distance, ground = (level[:, None] - grounds).norm(dim=2).min(1)
    ground = torch.where((distance <= MAX_GROUND) & even & finite, ground, -1)
    return SceneObjects(count, size, color, shape, overlap, x, y, radius, ground)


def _frame(pixels: Tensor) -> Tensor:
    """The outermost pixels, (N, 3, P)."""
    rows, columns = pixels[:, :, [0, -1]].flatten(2), pixels[:, :, :, [0, -1]].flatten(2)
    return torch.cat([rows, columns], dim=2)


def _largest_spots(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The largest connected parts of masks (N, S, S), bool (N, MOST, S, S), and how many there are
    of ``MIN_AREA`` or more."""
    number, side = len(mask), mask.shape[1]
    marks = torch.arange(1.0, side * side + 1, device=mask.device).view(1, 1, side, side)
    marks = marks * mask[:, None]
    while True:  # each pixel takes the highest mark around it, until nothing changes
        before = marks
        for _ in range(4):
            marks = F.max_pool2d(marks, 3, stride=1, padding=1) * mask[:, None]
        if torch.equal(marks, before):
            break
    flat = marks.flatten(1).long()  # 0 is the ground
    areas = torch.zeros(number, side * side + 1, device=mask.device)
    areas.scatter_add_(1, flat, torch.ones_like(flat, dtype=areas.dtype))
    areas[:, 0] = 0
    least = MIN_AREA * side**2
    count = (areas >= least).sum(1)
    area, mark = areas.topk(MOST, dim=1)
    mark = torch.where(area >= least, mark, -1)
    return marks.long() == mark[:, :, None, None], count


def _look(pixels: Tensor, level: Tensor, spot: Tensor) -> tuple[Tensor, ...]:
    """Size, color, shape, overlap, x, y and radius, (N,) each, of the objects at ``spot``.

    Args:
        pixels: (N, 3, S, S) in [0, 1].
        level: (N, 3), the ground.
        spot: bool (N, S, S), where the object is; nowhere if there is none.
    """
    side, there = spot.shape[1], spot.flatten(1).any(1)
    inner = _inside(pixels, level, spot)  # (N, S, S)
    amount = inner.sum((1, 2)).clamp(min=1)
    color = (pixels * inner[:, None]).sum((2, 3)) / amount[:, None]  # (N, 3)
    off = (pixels - color[:, :, None, None]).square().sum(1) * inner
    uneven = (off.sum((1, 2)) / amount).sqrt()
    covered = _covered(pixels, level, color, spot)
    area = covered.sum((1, 2)).clamp(min=_TINY)
    place = torch.arange(side, device=spot.device) + 0.5
    x, y = ((covered.sum(axis) * place).sum(1) / area for axis in (1, 2))
    overlaps, offs, radii, downs = [], [], [], []
    for shape, (own_area, own_y, outline) in _measures().items():
        radius = (area / own_area).sqrt()
        model = coverage(shape, x, y - own_y * radius, radius, side)
        shared = torch.minimum(covered, model).sum((1, 2))
        both = area + model.sum((1, 2))
        overlaps.append(shared / (both - shared))
        offs.append((both - 2 * shared) / (outline * radius))
        radii.append(radius)
        downs.append(y - own_y * radius)
    (overlap, second), (shape, _) = torch.stack(overlaps).topk(2, dim=0)
    overlap, lead = overlap * there, overlap - second
    off, radius, y = (torch.stack(each).gather(0, shape[None])[0] for each in (offs, radii, downs))
    radius = radius / side
    size = torch.bucketize(radius, torch.tensor(RADII, device=radius.device)) - 1  # 2: too large
    size = torch.where((size >= 0) & (size < len(SIZES)) & there, size, -1)
    named = torch.where((uneven <= MAX_UNEVEN) & there, _nearest_color(color), -1)
    shape = torch.where(there & (off <= MAX_OFF) & (lead >= MIN_LEAD), shape, -1)
    return size, named, shape, overlap, x / side, y / side, radius


def _inside(pixels: Tensor, level: Tensor, spot: Tensor) -> Tensor:
    """The pixels of an object that its edge does not mix with the ground, (N, S, S): those whose
    neighbors are all of the object, or, in a thin one, those most unlike the ground."""
    mask = spot.float()
    eroded = 1 - F.max_pool2d(1 - mask[:, None], 3, stride=1, padding=1)[:, 0]
    away = (pixels - level[:, :, None, None]).square().sum(1).sqrt() * mask
    thin = (away >= 0.8 * away.amax((1, 2), keepdim=True)) & spot
    enough = eroded.sum((1, 2)) >= 8
    return torch.where(enough[:, None, None], eroded, thin.float())


def _covered(pixels: Tensor, level: Tensor, color: Tensor, spot: Tensor) -> Tensor:
    """How much of each pixel an object covers, (N, S, S), from how far the pixel's color is on the
    way from the ground's to the object's."""
    way = color - level  # (N, 3)
    share = ((pixels - level[:, :, None, None]) * way[:, :, None, None]).sum(1)
    share = share / way.square().sum(1).clamp(min=_TINY)[:, None, None]
    near = F.max_pool2d(spot[:, None].float(), 3, stride=1, padding=1)[:, 0]
    return share.clamp(0, 1) * near


def _nearest_color(color: Tensor) -> Tensor:
    """The color (N,) that is nearest to RGB (N, 3) where it may be darker, -1 for none."""
    known = torch.tensor(list(COLORS.values()), device=color.device)  # (K, 3)
    light = (color @ known.T / known.square().sum(1)).clamp(1 - DARKER, 1)  # (N, K)
    distance = (color[:, None] - light[:, :, None] * known).norm(dim=2)
    least, nearest = distance.min(1)
    return torch.where(least <= MAX_COLOR, nearest, -1)


@functools.cache
def _measures() -> dict[str, tuple[float, float, float]]:
    """Of each shape with radius 1: its area, how far its center of mass is below its center, and
    the length of its outline (the integral of the coverage's slope)."""
    side, radius = 512, torch.tensor([200.0])
    middle, found = torch.tensor([side / 2]), {}
    for shape in SHAPES:
        covered = coverage(shape, middle, middle, radius, side)[0].double()
        down = (covered.sum(1) * (torch.arange(side) + 0.5 - side / 2)).sum() / covered.sum()
        slope = torch.stack(torch.gradient(covered)).square().sum(0).sqrt()
        sums = float(covered.sum()) / 200**2, float(down) / 200, float(slope.sum()) / 200
        found[shape] = sums
    return found


def _holds(asked: Described, found: SceneObjects) -> Tensor:
    """For each part of a sentence whether it holds, bool (N, parts), by the best assignment."""
    best, best_score = None, None
    pairs = itertools.permutations(range(MOST + 2), 2)  # the last two stand for missing objects
    for first, second in pairs:
        holds = _assigned(asked, found, first, second)
        score = holds.sum(1)
        if best is None or best_score is None:
            best, best_score = holds, score
            continue
        better = score > best_score
        best = torch.where(better[:, None], holds, best)
        best_score = torch.where(better, score, best_score)
    assert best is not None, "there are pairs"
    return best


def _assigned(asked: Described, found: SceneObjects, first: int, second: int) -> Tensor:
    """What holds if these two of the objects found are the first and the second of a sentence."""
    nothing = torch.ones_like(found.ground, dtype=torch.bool)  # what is not said holds
    columns = {"padding": nothing}
    for i, (which, place) in enumerate((("", first), ("second ", second))):
        there = found.number > place if place < MOST else ~nothing
        said = asked.shape[:, i] >= 0
        columns[f"{which}object"] = there | ~said
        for kind in ("size", "color", "shape"):
            wanted = getattr(asked, kind)[:, i]
            seen = getattr(found, kind)[:, min(place, MOST - 1)]
            columns[f"{which}{kind}"] = ((seen == wanted) & there) | (wanted < 0)
    both = columns["object"] & columns["second object"]
    one, two = min(first, MOST - 1), min(second, MOST - 1)
    relation = _relation(found.x[:, two] - found.x[:, one], found.y[:, two] - found.y[:, one])
    columns["relation"] = (both & (relation == asked.relation)) | (asked.relation < 0)
    columns["ground"] = (found.ground == asked.ground) | (asked.ground < 0)
    return torch.stack([columns[part] for part in PARTS], dim=1)


def _relation(dx: Tensor, dy: Tensor) -> Tensor:
    """Where an object is, seen from one that is (dx, dy) away from it; index into RELATIONS."""
    left_or_right = torch.where(dx > 0, 0, 1)
    return torch.where(dx.abs() >= dy.abs(), left_or_right, torch.where(dy > 0, 2, 3))
