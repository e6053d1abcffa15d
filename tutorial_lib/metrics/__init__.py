"""Metrics: how good samples are, and how certain the numbers are."""

from tutorial_lib.metrics.discs import (
    MAX_DIRT,
    MAX_UNEVENNESS,
    MIN_BRIGHTNESS,
    MIN_RADIUS,
    MIN_SHAPE,
    DiscQuality,
    disc_quality,
)
from tutorial_lib.metrics.distances import (
    Neighbors,
    PrecisionRecall,
    Score,
    bootstrap_error,
    copies,
    frechet_distance,
    kernel_distance,
    nearest_neighbors,
    precision_recall,
    real_floor,
    score,
)
from tutorial_lib.metrics.scenes import SceneObjects, SceneVerdict, find_objects, judge_scenes

__all__ = [
    "MAX_DIRT",
    "MAX_UNEVENNESS",
    "MIN_BRIGHTNESS",
    "MIN_RADIUS",
    "MIN_SHAPE",
    "DiscQuality",
    "Neighbors",
    "PrecisionRecall",
    "SceneObjects",
    "SceneVerdict",
    "Score",
    "bootstrap_error",
    "copies",
    "disc_quality",
    "find_objects",
    "frechet_distance",
    "judge_scenes",
    "kernel_distance",
    "nearest_neighbors",
    "precision_recall",
    "real_floor",
    "score",
]
