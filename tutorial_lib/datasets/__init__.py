"""Data sets: drawn here, downloaded, or read from folders."""

from tutorial_lib.datasets.dataset import DIGITS, Dataset
from tutorial_lib.datasets.drawn import HUES, RADII, circles, glyphs
from tutorial_lib.datasets.files import (
    DRAWN_COUNT,
    FOLDER_SIZE,
    NAMES,
    SPLITS,
    SUFFIXES,
    data_root,
    is_here,
    load,
)

__all__ = [
    "DIGITS",
    "DRAWN_COUNT",
    "FOLDER_SIZE",
    "HUES",
    "NAMES",
    "RADII",
    "SPLITS",
    "SUFFIXES",
    "Dataset",
    "circles",
    "data_root",
    "glyphs",
    "is_here",
    "load",
]
