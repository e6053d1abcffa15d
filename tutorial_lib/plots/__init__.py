"""Figures for the lessons, each with a text for readers who cannot see it."""

from tutorial_lib._packages import brought_by

with brought_by("notebook", to="draw figures"):
    from tutorial_lib.plots.animated import Animation
    from tutorial_lib.plots.figures import (
        COLORS,
        COLOURS,
        DASHES,
        GRAY,
        INK,
        WIDTH,
        bundle,
        curves,
        filmstrip,
        image_grid,
        neighbors,
        panels,
        show,
    )
    from tutorial_lib.plots.live import LivePlot
    from tutorial_lib.plots.moving import animation

__all__ = [
    "COLORS",
    "COLOURS",
    "DASHES",
    "GRAY",
    "INK",
    "WIDTH",
    "Animation",
    "LivePlot",
    "animation",
    "bundle",
    "curves",
    "filmstrip",
    "image_grid",
    "neighbors",
    "panels",
    "show",
]
