"""The old name of ``tutorial_lib.metrics.digit_features``."""

from tutorial_lib.metrics.digit_features import *  # noqa: F403
