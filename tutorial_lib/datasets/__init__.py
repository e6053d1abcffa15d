"""Data sets: drawn here, downloaded, or read from folders."""

from tutorial_lib.datasets.files import (
    DIGITS,
    DRAWN_COUNT,
    FOLDER_SIZE,
    HUES,
    NAMES,
    RADII,
    SPLITS,
    SUFFIXES,
    Dataset,
    circles,
    data_root,
    glyphs,
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
