"""The old name of ``tutorial_lib.networks.unet``."""

from tutorial_lib.networks.unet import *  # noqa: F403
