"""The networks: they take a noisy image and a step number, and predict the noise.

There are two. ``TwoLevelUNet`` is the smallest network that can be called a U-Net, where the lesson
starts. ``TinyUNet`` is the one that works. Both are called as ``net(x, t)``, with images
(B, C, H, W) and step numbers (B,), and return a tensor of the shape of the images.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from tutorial_lib import _memory, _validate
from tutorial_lib._typing import Images, Steps
from tutorial_lib._validate import InvalidTypeError, InvalidValueError
from tutorial_lib.networks.layers import embedding_table, group_norm, with_defaults, zeroed

LARGEST_BLOCKS = 1024
"""Most residual blocks at one resolution: each takes its time to build, and deep networks of more
cannot be trained."""
LARGEST_LEVELS = 16
"""Most resolutions of a network: each halves the one before, and images are padded to match."""

TimeEmbedding = Float[Tensor, "batch time_width"]
"""The second input of a residual block: an embedding of the step (and the class)."""


def timestep_embedding(
    t: Shaped[Tensor, " batch"], dim: int, max_period: float = 10000.0
) -> Float[Tensor, "batch {dim}"]:
    """Step numbers as points on dim/2 circles that turn at different speeds, shape (B, dim).

    Entry i is sin(t w_i) and entry dim/2 + i is cos(t w_i), with w_i falling geometrically from 1
    to nearly 1/``max_period``: the fast circles tell neighbors apart, the slow ones early from
    late. (Vaswani et al. 2017, sec. 3.5, as used by Ho et al. 2020, app. B.)

    Args:
        t: shape (B,), whole or fractional step numbers.
        dim: the length of an embedding, even.
        max_period: 2 pi times this is about the longest turn, in steps; above T it tells all apart.

    Raises:
        TypeError, ValueError: ``t`` is not a tensor of shape (B,); ``dim`` is odd or below 2;
            ``max_period`` is below 1.
    """
    if not isinstance(t, Tensor):
        raise InvalidTypeError(f"t must be a tensor of shape (B,), got {_validate.describe(t)}")
    if t.ndim != 1:
        raise InvalidValueError(f"t must have shape (B,), one step a sample; got {tuple(t.shape)}")
    if _validate.whole_number("dim", dim, at_least=2) % 2:
        raise InvalidValueError(f"dim must be even (a sine and a cosine each), got {dim}")
    _validate.number("max_period", max_period, low=1.0, high=math.inf)
    if dim > 2**20:  # a compiler need not follow this where the size is an ordinary one
        _memory.check_fits("dim", dim, 4 * dim * len(t), "the embedding")
    half = dim // 2
    exponent = torch.arange(half, dtype=torch.float32, device=t.device) / half
    angle = t.float()[:, None] * torch.exp(-math.log(max_period) * exponent)  # (B, dim/2)
    return torch.cat([angle.sin(), angle.cos()], dim=1)  # (B, dim)


class TwoLevelUNet(nn.Module):
    """The minimal U-Net: one stride-2 level, no norm, time added once, at the bottleneck.

    It runs, its loss falls, and it cannot draw: an output pixel sees only a small part of the
    image (the lesson measures how small), so nothing makes the parts agree.

    Args:
        in_channels: channels of the images, and of the answer.
        width: channels at full resolution; the bottleneck has twice as many.
    """

    def __init__(self, in_channels: int, width: int = 64) -> None:
        super().__init__()
        _validate.whole_number("in_channels", in_channels, at_least=1)
        _validate.whole_number("width", width, at_least=2)
        weights = 4 * 9 * (2 * in_channels * width + 10 * width**2)  # of its convolutions
        large = "in_channels" if in_channels > width else "width"
        _memory.check_fits(large, max(in_channels, width), weights, "the network")
        self.config = {"in_channels": in_channels, "width": width}
        self.stem = nn.Conv2d(in_channels, width, 3, padding=1)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.time = nn.Linear(width * 2, width * 2)
        self.middle = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.up = nn.Conv2d(2 * width, width, 3, padding=1)
        self.merge = nn.Conv2d(2 * width, width, 3, padding=1)
        self.head = nn.Conv2d(width, in_channels, 3, padding=1)

    @staticmethod
    def fewest_tensors(in_channels: int, width: int = 64) -> int:
        """How many tensors the weights of a network of these arguments are at least."""
        return 14

    def forward(self, x: Images, t: Steps) -> Images:
        """The answer for images x (B, C, H, W), any H and W, at the steps t (B,) int64."""
        check_inputs(x, t, self.config["in_channels"])
        skip = F.relu(self.stem(x))  # (B, w, H, W)
        time = self.time(timestep_embedding(t, self.time.in_features))  # (B, 2w)
        h = F.relu(self.down(skip) + time[:, :, None, None])  # (B, 2w, H/2, W/2)
        h = F.relu(self.middle(h))
        h = F.interpolate(h, size=skip.shape[2:])  # (B, 2w, H, W), also where H or W is odd
        h = F.relu(self.up(h))  # (B, w, H, W)
        h = F.relu(self.merge(torch.cat([h, skip], dim=1)))  # (B, 2w, H, W) -> (B, w, H, W)
        return self.head(h)


_TENSORS_A_BLOCK = 10
"""Weights and biases of a residual block's two norms, two convolutions and linear layer."""


class ResBlock(nn.Module):
    """Two convolutions beside a shortcut; the step scales and shifts what flows between them."""

    def __init__(self, in_width: int, width: int, time_width: int) -> None:
        super().__init__()
        self.norm1 = group_norm(in_width)
        self.conv1 = nn.Conv2d(in_width, width, 3, padding=1)
        self.time = nn.Linear(time_width, 2 * width)
        self.norm2 = group_norm(width)
        self.conv2 = zeroed(nn.Conv2d(width, width, 3, padding=1))
        self.shortcut = nn.Identity() if in_width == width else nn.Conv2d(in_width, width, 1)

    def forward(self, x: Images, time: TimeEmbedding) -> Float[Tensor, "batch out height width"]:
        """x (B, in_width, H, W) and the step's embedding (B, time_width) to (B, width, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.time(time)[:, :, None, None].chunk(2, dim=1)  # (B, width, 1, 1) each
        h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        return self.shortcut(x) + self.conv2(F.silu(h))


class Attention(nn.Module):
    """Self-attention over all positions: here the far corners of an image can agree."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // 32)
        if width % self.heads:
            raise InvalidValueError(
                f"the last of widths must be below 64 or a multiple of 32, got {width}"
            )
        self.norm = group_norm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = zeroed(nn.Linear(width, width))

    def forward(self, x: Images) -> Images:
        """x (B, width, H, W) to the same shape."""
        batch, width, height, across = x.shape
        depth = width // self.heads
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # (B, HW, width)
        qkv = self.qkv(tokens).view(batch, height * across, 3, self.heads, depth)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, heads, HW, depth) each
        # Two matrix products: for so few tokens, with gradients, many times faster on a CPU than
        # F.scaled_dot_product_attention.
        share = (q * depth**-0.5 @ k.transpose(-1, -2)).softmax(-1)  # (B, heads, HW, HW)
        mixed = (share.to(v.dtype) @ v).transpose(1, 2).flatten(2)  # (B, HW, width)
        return x + self.out(mixed).transpose(1, 2).view(batch, width, height, across)


class Level(nn.Module):
    """One resolution of a U-Net, wrapped around all the coarser ones."""

    def __init__(
        self, widths: Sequence[int], blocks: int, bottom_blocks: int, time_width: int
    ) -> None:
        super().__init__()
        width, lower = widths[:2]
        self.down = nn.ModuleList(ResBlock(width, width, time_width) for _ in range(blocks))
        self.shrink = nn.Conv2d(width, lower, 3, stride=2, padding=1)
        self.inner = _levels(widths[1:], blocks, bottom_blocks, time_width)
        self.grow = nn.Conv2d(lower, width, 3, padding=1)
        self.up = nn.ModuleList(ResBlock(2 * width, width, time_width) for _ in range(blocks))

    def forward(self, x: Images, time: TimeEmbedding) -> Images:
        """x (B, width, H, W), H and W even, and (B, time_width) to the shape of x."""
        skips = []
        for block in self.down:
            x = block(x, time)
            skips.append(x)
        x = self.inner(self.shrink(x), time)  # (B, lower, H/2, W/2)
        x = self.grow(F.interpolate(x, scale_factor=2.0))  # (B, width, H, W)
        for block in self.up:
            x = block(torch.cat([x, skips.pop()], dim=1), time)  # (B, 2 width, H, W) going in
        return x


class Bottom(nn.Module):
    """The lowest resolution of a U-Net: attention between residual blocks."""

    def __init__(self, width: int, blocks: int, time_width: int) -> None:
        super().__init__()
        self.before = ResBlock(width, width, time_width)
        self.attention = Attention(width)
        self.after = nn.ModuleList(ResBlock(width, width, time_width) for _ in range(blocks))

    def forward(self, x: Images, time: TimeEmbedding) -> Images:
        """x (B, width, H, W) and (B, time_width) to the shape of x."""
        x = self.attention(self.before(x, time))
        for block in self.after:
            x = block(x, time)
        return x


def _levels(
    widths: Sequence[int], blocks: int, bottom_blocks: int, time_width: int
) -> Level | Bottom:
    """The levels of these widths, finest first, one inside the other."""
    if len(widths) == 1:
        return Bottom(widths[0], bottom_blocks, time_width)
    return Level(widths, blocks, bottom_blocks, time_width)


class TinyUNet(nn.Module):
    """The U-Net that works: residual blocks, group norm, the step at every level, attention.

    The image is cut into patches first (a patch's pixels become channels), so the finest level
    runs at 1/``patch`` of the resolution, which is what makes it fast on a CPU; each further
    level halves it again. At the lowest level every position attends to every other. The last
    layer starts at zero, so an untrained net answers exactly 0.

    Args:
        in_channels: channels of the images, and of the answer.
        widths: channels of each level, finest first.
        blocks: residual blocks a level, on the way down and again on the way up.
        bottom_blocks: residual blocks behind the attention of the lowest level; None as many as
            ``blocks``. There they cost least, and see the whole image.
        patch: side of a patch in pixels; 1 works on the pixels themselves.
        num_classes: how many classes the labels name; None for a net without labels. With classes,
            label ``num_classes`` means "no class", which is what guidance trains and asks for.

    Raises:
        TypeError, ValueError: an argument is not a whole number of 1 or more; ``widths`` is empty
            or has more than 16 entries; more than 1024 blocks; weights that do not fit in memory.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int] = (32, 64),
        blocks: int = 1,
        patch: int = 2,
        num_classes: int | None = None,
        bottom_blocks: int | None = None,
    ) -> None:
        super().__init__()
        self.config = checked_config(in_channels, widths, blocks, patch, num_classes, bottom_blocks)
        first, time_width = widths[0], 4 * widths[0]
        self.time_in = nn.Linear(time_width, time_width)
        self.time_out = nn.Linear(time_width, time_width)
        self.label = embedding_table(num_classes + 1, time_width) if num_classes else None
        self.stem = nn.Conv2d(in_channels * patch**2, first, 3, padding=1)
        bottom_blocks = blocks if bottom_blocks is None else bottom_blocks
        self.levels = _levels(widths, blocks, bottom_blocks, time_width)
        self.norm = group_norm(first)
        self.head = zeroed(nn.Conv2d(first, in_channels * patch**2, 3, padding=1))

    @classmethod
    def checked(cls, **config: Any) -> dict[str, Any]:
        """The ``config`` of a network of these arguments, without building it.

        Raises:
            TypeError, ValueError: as for the network.
        """
        return checked_config(**with_defaults(cls, config))

    @classmethod
    def fewest_tensors(cls, **config: Any) -> int:
        """How many tensors the weights of a network of these arguments are at least.

        Counted before anything is built: a file of fewer tensors does not hold such a network.

        Raises:
            TypeError, ValueError: as for the network.
        """
        return fewest_tensors(cls.checked(**config))

    def forward(self, x: Images, t: Steps, labels: Steps | None = None) -> Images:
        """The answer for images x (B, C, H, W), any H and W, at the steps t (B,) int64.

        ``labels`` (B,) int64 in 0..num_classes; None means "no class" for the whole batch.

        Raises:
            TypeError, ValueError: wrong channel count, shape or dtype; t negative; labels out of
                range, or given to a net without classes.
        """
        check_inputs(x, t, self.config["in_channels"])
        patch, halvings = self.config["patch"], len(self.config["widths"]) - 1
        multiple = patch * 2**halvings  # so that every level has whole positions
        height, width = x.shape[2:]
        x = F.pad(x, (0, -width % multiple, 0, -height % multiple))
        h = self.stem(F.pixel_unshuffle(x, patch))  # (B, C p^2, H/p, W/p) -> (B, w, H/p, W/p)
        h = self.levels(h, self.embedding(t, labels))
        h = self.head(F.silu(self.norm(h)))  # (B, C p^2, H/p, W/p)
        return F.pixel_shuffle(h, patch)[:, :, :height, :width]  # (B, C, H, W)

    @property
    def no_condition(self) -> Tensor | None:
        """The label that means "no class", int64 (); None for a network without classes."""
        num_classes = self.config["num_classes"]
        return None if num_classes is None else torch.tensor(num_classes)

    def embedding(self, t: Steps, labels: Steps | None = None) -> TimeEmbedding:
        """What every residual block gets, (B, 4w): the step, and the class if there is one.

        A subclass that overrides it tells the blocks something else, or more.
        """
        h = timestep_embedding(t, self.time_in.in_features)  # (B, 4w)
        h = self.time_out(F.silu(self.time_in(h)))
        if self.label is not None:
            no_class = self.config["num_classes"]
            labels = torch.full_like(t, no_class) if labels is None else labels
            _check_numbers("labels", labels, batch=len(t), high=no_class)
            h = h + self.label(labels)
        elif labels is not None:
            raise InvalidValueError(
                "labels were given to a net without classes (num_classes is None)"
            )
        return F.silu(h)


def checked_config(
    in_channels: int,
    widths: Sequence[int],
    blocks: int,
    patch: int,
    num_classes: int | None,
    bottom_blocks: int | None,
) -> dict[str, Any]:
    """The arguments of a ``TinyUNet`` as a dict that JSON can hold; an error if one is wrong."""
    if not isinstance(widths, Sequence) or not len(widths):
        got = _validate.describe(widths)
        raise InvalidValueError(f"widths must hold the channels of one level or more, got {got}")
    if len(widths) > LARGEST_LEVELS:
        raise InvalidValueError(
            f"widths must hold the channels of at most {LARGEST_LEVELS} levels, got {len(widths)}"
        )
    if num_classes is not None:
        _validate.whole_number("num_classes", num_classes, at_least=1)
    if bottom_blocks is not None:
        _validate.whole_number("bottom_blocks", bottom_blocks, at_least=1, at_most=LARGEST_BLOCKS)
    config = {
        "in_channels": _validate.whole_number("in_channels", in_channels, at_least=1),
        "widths": [_validate.whole_number("an entry of widths", w, at_least=1) for w in widths],
        "blocks": _validate.whole_number("blocks", blocks, at_least=1, at_most=LARGEST_BLOCKS),
        "patch": _validate.whole_number("patch", patch, at_least=1),
        "num_classes": num_classes,
        "bottom_blocks": bottom_blocks,
    }
    counts = parameter_counts(config)
    name = max(counts, key=lambda name: counts[name])
    value = tuple(config["widths"]) if name == "widths" else config[name]
    _memory.check_fits(name, value, 4 * sum(counts.values()), "the network")
    return config


def parameter_counts(config: Mapping[str, Any]) -> dict[str, int]:
    """How many weights a ``TinyUNet`` has, counted without building one.

    Args:
        config: its arguments, as in ``TinyUNet.config``.

    Returns:
        The weights by the argument that decides most about them.
    """
    widths, blocks = config["widths"], config["blocks"]
    bottom_blocks = blocks if config["bottom_blocks"] is None else config["bottom_blocks"]
    first, time = widths[0], 4 * widths[0]
    inside = config["in_channels"] * config["patch"] ** 2
    ends = 9 * inside * first + first + 9 * first * inside + inside
    levels = 2 * (time * time + time) + 2 * first
    for width, lower in zip(widths, widths[1:], strict=False):
        pair = _in_block(width, width, time) + _in_block(2 * width, width, time)
        levels += blocks * pair + 18 * width * lower + lower + width
    last = widths[-1]
    attention = 2 * last + 4 * (last * last + last)
    levels += (1 + bottom_blocks) * _in_block(last, last, time) + attention
    by = "patch" if config["patch"] ** 2 > config["in_channels"] else "in_channels"
    counts = {"widths": levels, by: ends}
    if config["num_classes"] is not None:
        counts["num_classes"] = (config["num_classes"] + 1) * time
    return counts


def fewest_tensors(config: Mapping[str, Any]) -> int:
    """How many tensors the weights of a ``TinyUNet`` of this config are at least."""
    blocks, bottom_blocks = config["blocks"], config["bottom_blocks"]
    levels = 2 * blocks * (len(config["widths"]) - 1)
    at_bottom = 1 + (blocks if bottom_blocks is None else bottom_blocks)
    return _TENSORS_A_BLOCK * (levels + at_bottom)


def _in_block(in_width: int, width: int, time_width: int) -> int:
    """The weights of a ``ResBlock``."""
    convolutions = 9 * in_width * width + 9 * width * width + 2 * width
    shortcut = 0 if in_width == width else in_width * width + width
    return 2 * in_width + convolutions + 2 * width * (time_width + 1) + 2 * width + shortcut


def check_inputs(x: Tensor, t: Tensor, in_channels: int) -> None:
    """Raises unless x is (B, C, H, W) with ``in_channels`` channels and t is int64 (B,)."""
    _validate.floating("x", x)
    if x.ndim != 4 or x.shape[1] != in_channels:
        expected = f"(batch, {in_channels}, height, width)"
        raise InvalidValueError(f"x must have shape {expected}, got {tuple(x.shape)}")
    _check_numbers("t", t, batch=len(x), high=torch.iinfo(torch.int64).max)


def _check_numbers(name: str, numbers: Tensor, *, batch: int, high: int) -> None:
    """Raises unless ``numbers`` is int64 (batch,) with values in 0..high."""
    if not torch.compiler.is_compiling():  # reading values would split the compiled graph
        _validate.steps(name, numbers, batch=batch, low=0, high=high)
