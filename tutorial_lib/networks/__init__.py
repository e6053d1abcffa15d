"""Networks: what is called as ``network(x_t, t)`` or ``network(x_t, t, condition)``, and the
autoencoder that makes latents."""

from tutorial_lib.networks.attention import CrossAttention
from tutorial_lib.networks.autoencoder import Autoencoder
from tutorial_lib.networks.text import TextEncoder
from tutorial_lib.networks.text_unet import TextUNet
from tutorial_lib.networks.unet import TinyUNet, TwoLevelUNet

__all__ = [
    "Autoencoder",
    "CrossAttention",
    "TextEncoder",
    "TextUNet",
    "TinyUNet",
    "TwoLevelUNet",
]
