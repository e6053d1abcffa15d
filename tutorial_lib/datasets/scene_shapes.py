"""Shapes of scenes: how much of each pixel one covers, from its place and its size."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Coverage = Float[Tensor, "count height width"]
"""The share of each pixel that a shape covers, in [0, 1]."""

_BAR = 0.36  # half the width of a cross's bars, in radii
_HOLE = 0.52  # radius of a ring's hole
_SIDE = 0.88  # half the side of a square
_BASE = 0.78  # how far below the center a triangle's base is
_STAR = 0.45  # the radius at which the points of a star meet


class Grid:
    """Each pixel's place relative to the centers of shapes, in pixels.

    Args:
        x, y: (N,), centers in pixels; pixel j spans j..j + 1.
        radius: (N,) in pixels: no shape reaches farther than this to any of the four sides.
        size: pixels along a side.
    """

    def __init__(self, x: Tensor, y: Tensor, radius: Tensor, size: int) -> None:
        place = torch.arange(size, device=x.device) + 0.5
        self.dx = (place - x.float()[:, None])[:, None, :]  # (N, 1, size)
        self.dy = (place - y.float()[:, None])[:, :, None]  # (N, size, 1), downwards
        self.radius = radius.float()[:, None, None]

    def distance(self) -> Coverage:
        return (self.dx**2 + self.dy**2).sqrt_()

    def box(self, across: float, down: float) -> Coverage:
        """A box of these half sides (in radii) around the center; its coverage is exact."""
        return _within(self.dx, across * self.radius) * _within(self.dy, down * self.radius)


def _within(offset: Tensor, half: Tensor) -> Tensor:
    """How much of a pixel at ``offset`` is less than ``half`` away, along one axis."""
    return (offset.clamp(-half - 0.5, half + 0.5).abs().neg_() + half + 0.5).clamp_(0, 1)


def _rim(depth: Tensor) -> Tensor:
    """A ramp one pixel wide where the depth below the edge is 0."""
    return depth.add_(0.5).clamp_(0, 1)


def _disc(grid: Grid) -> Coverage:
    return _rim(grid.distance().neg_().add_(grid.radius))


def _square(grid: Grid) -> Coverage:
    return grid.box(_SIDE, _SIDE)


def _triangle(grid: Grid) -> Coverage:
    """Isosceles, its apex at the top of the circle, its base as wide as that."""
    height = 1 + _BASE
    slope = math.hypot(1.0, height)
    across, down = height / slope, 1 / slope  # the normal of the right side
    side = grid.dx.abs() * -across + (grid.dy + grid.radius) * down
    below = _rim(_BASE * grid.radius - grid.dy)
    return _rim(side).mul_(below)


def _cross(grid: Grid) -> Coverage:
    """Two bars; what both cover counts once."""
    return grid.box(1.0, _BAR) + grid.box(_BAR, 1.0) - grid.box(_BAR, _BAR)


def _ring(grid: Grid) -> Coverage:
    distance = grid.distance()
    return _rim(grid.radius - distance).sub_(_rim(_HOLE * grid.radius - distance))


def _star(grid: Grid) -> Coverage:
    """Five points: the plane is folded onto half a point, whose edge is one line."""
    x, y = grid.dx.abs().expand(-1, grid.dy.shape[1], -1), -grid.dy
    cos, sin = math.cos(math.pi / 5), math.sin(math.pi / 5)
    for side in (1.0, -1.0):
        over = 2 * (side * cos * x - sin * y).clamp(min=0)
        x, y = x - over * side * cos, y + over * sin
    x, y = x.abs(), y - grid.radius
    along_x, along_y = _STAR * sin, _STAR * cos - 1  # from a tip to where two points meet
    length = math.hypot(along_x, along_y)
    return _rim((x * along_y - y * along_x) / length)


SHAPES: dict[str, Callable[[Grid], Coverage]] = {
    "disc": _disc,
    "square": _square,
    "triangle": _triangle,
    "cross": _cross,
    "ring": _ring,
    "star": _star,
}
"""The shapes by their names; each gives its coverage (N, size, size) on a grid."""


def coverage(shape: str, x: Tensor, y: Tensor, radius: Tensor, size: int) -> Coverage:
    """How much of each pixel N shapes of one kind cover.

    Args:
        shape: a name in ``SHAPES``.
        x, y, radius: (N,) in pixels; pixel j spans j..j + 1, y grows downwards.
        size: pixels along a side of the picture.

    Returns:
        (N, size, size) float32 in [0, 1]. Edges are ramps one pixel wide; those of squares and
        crosses are exact.
    """
    return SHAPES[shape](Grid(x, y, radius, size))
