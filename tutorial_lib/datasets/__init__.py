"""Data sets: drawn here, downloaded, or read from folders."""

from tutorial_lib.datasets.dataset import DIGITS, Dataset
from tutorial_lib.datasets.drawn import HUES, RADII, circles, glyphs
from tutorial_lib.datasets.files import (
    DATASETS,
    DRAWN_COUNT,
    FOLDER_SIZE,
    NAMES,
    SPLITS,
    SUFFIXES,
    Loader,
    data_root,
    is_here,
    load,
)
from tutorial_lib.datasets.scene_set import scenes
from tutorial_lib.datasets.vocabulary import Vocabulary

__all__ = [
    "DATASETS",
    "DIGITS",
    "DRAWN_COUNT",
    "FOLDER_SIZE",
    "HUES",
    "NAMES",
    "RADII",
    "SPLITS",
    "SUFFIXES",
    "Dataset",
    "Loader",
    "Vocabulary",
    "circles",
    "data_root",
    "glyphs",
    "is_here",
    "load",
    "scenes",
]
