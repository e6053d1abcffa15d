"""What the tests of figures share."""

import torch
from torch import Tensor


def random_images(count: int, channels: int = 1, height: int = 7, width: int = 9) -> Tensor:
    return torch.rand(count, channels, height, width) * 2.4 - 1.2
