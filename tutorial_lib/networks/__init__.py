"""Networks: what is called as ``network(x_t, t)`` or ``network(x_t, t, labels)``."""

from tutorial_lib.networks.unet import TinyUNet, TwoLevelUNet

__all__ = ["TinyUNet", "TwoLevelUNet"]
