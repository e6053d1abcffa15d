"""Figures of the lessons, each with a text for those who cannot see it."""

from tutorial_lib.plots.figures import (
    COLOURS,
    DASHES,
    INK,
    WIDTH,
    bundle,
    curves,
    filmstrip,
    image_grid,
    neighbours,
    panels,
    show,
)
from tutorial_lib.plots.live import LivePlot

__all__ = [
    "COLOURS",
    "DASHES",
    "INK",
    "WIDTH",
    "LivePlot",
    "bundle",
    "curves",
    "filmstrip",
    "image_grid",
    "neighbours",
    "panels",
    "show",
]
