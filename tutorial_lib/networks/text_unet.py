"""A U-Net that reads: ``TextUNet`` draws what a sentence says."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib import _memory, _validate
from tutorial_lib._typing import Images, Steps
from tutorial_lib._validate import InvalidValueError
from tutorial_lib.networks.attention import Context, CrossAttention, Visible
from tutorial_lib.networks.layers import group_norm, with_defaults, zeroed
from tutorial_lib.networks.text import (
    LARGEST_LAYERS,
    Sentences,
    TextEncoder,
    mean_of_words,
    text_parameters,
)
from tutorial_lib.networks.unet import (
    Attention,
    ResBlock,
    TimeEmbedding,
    check_inputs,
    checked_config,
    fewest_tensors,
    parameter_counts,
    timestep_embedding,
)


class Told(NamedTuple):
    """What a level gets besides the picture.

    Attributes:
        time: (B, 4w), the step and the mean of the words.
        context: (B, S, text_width), the words.
        visible: bool (B, S).
    """

    time: TimeEmbedding
    context: Context
    visible: Visible


WAVES = 8
"""Waves across a picture and down it by which each place is told where it is."""


class Places(nn.Module):
    """Tells each place of a picture where it is, and adds that to the picture.

    A convolution treats all places alike: only the border, padded with zeros, tells left from
    right. "Left of" must be told apart at the noisiest steps, where there is nothing else to see.
    So each place gets cos(pi k u) and cos(pi k v), k = 1 .. ``WAVES``, of its own coordinates u and
    v in (0, 1), and a linear map makes channels of them, as a transformer's tokens are told their
    positions (Vaswani et al. 2017, sec. 3.5).

    Args:
        width: channels of the picture.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.told = nn.Linear(2 * WAVES, width, bias=False)

    def forward(self, x: Images) -> Images:
        """x (B, width, H, W) to the same shape."""
        height, width = x.shape[2:]
        down = _waves(height, x.device)[:, None].expand(-1, width, -1)  # (H, W, WAVES)
        across = _waves(width, x.device)[None].expand(height, -1, -1)
        told = self.told(torch.cat([across, down], dim=2).to(x.dtype))  # (H, W, width)
        return x + told.permute(2, 0, 1)


def _waves(count: int, device: torch.device) -> Tensor:
    """The waves at the centers of ``count`` places in a row, (count, WAVES)."""
    at = (torch.arange(count, device=device) + 0.5) / count
    return torch.cos(math.pi * at[:, None] * torch.arange(1, WAVES + 1, device=device))


class _Asks(nn.Module):
    """Residual blocks, and then cross-attention where there is any."""

    def __init__(
        self,
        widths: Sequence[tuple[int, int]],
        time_width: int,
        text_width: int | None,
        places: bool,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResBlock(a, b, time_width) for a, b in widths)
        self.place, self.ask = _asking(widths[-1][1], text_width, places)


class _Level(nn.Module):
    """One resolution of the U-Net, wrapped around all the coarser ones."""

    def __init__(
        self,
        widths: Sequence[int],
        blocks: int,
        bottom_blocks: int,
        time_width: int,
        text_width: int | None,
        places: bool,
    ) -> None:
        super().__init__()
        width, lower = widths[:2]
        self.down = _Asks([(width, width)] * blocks, time_width, text_width, places)
        self.shrink = nn.Conv2d(width, lower, 3, stride=2, padding=1)
        self.inner = _levels(widths[1:], blocks, bottom_blocks, time_width, text_width, places)
        self.grow = nn.Conv2d(lower, width, 3, padding=1)
        self.up = _Asks([(2 * width, width)] * blocks, time_width, text_width, places)

    def forward(self, x: Images, told: Told) -> Images:
        """x (B, width, H, W), H and W even, to the same shape."""
        skips = []
        for block in self.down.blocks:
            x = block(x, told.time)
            skips.append(x)
        x = _asked(self.down, x, told)
        x = self.inner(self.shrink(x), told)  # (B, lower, H/2, W/2)
        x = self.grow(F.interpolate(x, scale_factor=2.0))  # (B, width, H, W)
        for block in self.up.blocks:
            x = block(torch.cat([x, skips.pop()], dim=1), told.time)
        return _asked(self.up, x, told)


class _Bottom(nn.Module):
    """The lowest resolution: places look at each other, then at the words."""

    def __init__(
        self, width: int, blocks: int, time_width: int, text_width: int | None, places: bool
    ) -> None:
        super().__init__()
        self.before = ResBlock(width, width, time_width)
        self.attention = Attention(width)
        self.place, self.ask = _asking(width, text_width, places)
        self.after = nn.ModuleList(ResBlock(width, width, time_width) for _ in range(blocks))

    def forward(self, x: Images, told: Told) -> Images:
        """x (B, width, H, W) to the same shape."""
        x = _asked(self, self.attention(self.before(x, told.time)), told)
        for block in self.after:
            x = block(x, told.time)
        return x


def _asking(
    width: int, text_width: int | None, places: bool
) -> tuple[Places | nn.Identity, CrossAttention | None]:
    """What a level asks the words with: each place is told where it is, and then it asks."""
    if text_width is None:
        return nn.Identity(), None
    return Places(width) if places else nn.Identity(), CrossAttention(width, text_width)


def _asked(level: _Asks | _Bottom, x: Images, told: Told) -> Images:
    x = level.place(x)
    return x if level.ask is None else level.ask(x, told.context, told.visible)


def _levels(
    widths: Sequence[int],
    blocks: int,
    bottom_blocks: int,
    time_width: int,
    text_width: int | None,
    places: bool,
) -> _Level | _Bottom:
    """The levels of these widths, finest first, one inside the other."""
    if len(widths) == 1:
        return _Bottom(widths[0], bottom_blocks, time_width, text_width, places)
    return _Level(widths, blocks, bottom_blocks, time_width, text_width, places)


class TextUNet(nn.Module):
    """A U-Net that is told a sentence: ``network(x, t, words)``.

    Built as ``TinyUNet``, and at three kinds of places each position of the picture asks the words
    by cross-attention: behind the blocks of a level on the way down, on the way up, and at the
    bottom. Before it asks, and behind the first convolution, each position is told where it is
    (``Places``). The mean of the words is added to the step's embedding, so that every block knows
    what the sentence is about. The last layer starts at zero.

    Args:
        in_channels, widths, blocks, patch, bottom_blocks: as of a ``TinyUNet``.
        vocabulary: how many words there are, counting the padding, number 0.
        length: the words of each sentence, padding counted.
        text_width: length of a word's vector.
        text_layers: layers of the transformer that reads the sentence.
        cross_attention: whether there is any; without it only the mean of the words is told.
        places: whether each position is told where it is.

    Raises:
        TypeError, ValueError: as of a ``TinyUNet``, and for the arguments of the text.
    """

    def __init__(
        self,
        in_channels: int,
        vocabulary: int,
        length: int,
        widths: Sequence[int] = (64, 128),
        blocks: int = 1,
        patch: int = 1,
        bottom_blocks: int | None = None,
        text_width: int = 64,
        text_layers: int = 2,
        cross_attention: bool = True,
        places: bool = True,
    ) -> None:
        super().__init__()
        self.config = _checked(
            in_channels=in_channels,
            vocabulary=vocabulary,
            length=length,
            widths=widths,
            blocks=blocks,
            patch=patch,
            bottom_blocks=bottom_blocks,
            text_width=text_width,
            text_layers=text_layers,
            cross_attention=cross_attention,
            places=places,
        )
        first, time_width = widths[0], 4 * widths[0]
        self.time_in = nn.Linear(time_width, time_width)
        self.time_out = nn.Linear(time_width, time_width)
        self.text = TextEncoder(vocabulary, length, text_width, text_layers)
        self.sentence = nn.Linear(text_width, time_width)
        self.stem = nn.Conv2d(in_channels * patch**2, first, 3, padding=1)
        self.place = Places(first) if places else nn.Identity()
        bottom_blocks = blocks if bottom_blocks is None else bottom_blocks
        asked = text_width if cross_attention else None
        self.levels = _levels(widths, blocks, bottom_blocks, time_width, asked, places)
        self.norm = group_norm(first)
        self.head = zeroed(nn.Conv2d(first, in_channels * patch**2, 3, padding=1))

    @classmethod
    def checked(cls, **config: Any) -> dict[str, Any]:
        """The ``config`` of a network of these arguments, without building it.

        Raises:
            TypeError, ValueError: as for the network.
        """
        return _checked(**with_defaults(cls, config))

    @classmethod
    def fewest_tensors(cls, **config: Any) -> int:
        """How many tensors the weights of a network of these arguments are at least.

        Raises:
            TypeError, ValueError: as for the network.
        """
        config = cls.checked(**config)
        asks = 2 * len(config["widths"]) - 1 if config["cross_attention"] else 0
        told = 1 + asks if config["places"] else 0
        return fewest_tensors(_tiny(config)) + 8 * asks + told + 12 * config["text_layers"]

    @property
    def no_condition(self) -> Tensor:
        """The empty sentence, int64 (length,): nothing but padding."""
        return torch.zeros(self.config["length"], dtype=torch.int64)

    def forward(self, x: Images, t: Steps, words: Sentences | None = None) -> Images:
        """The answer for pictures x (B, C, H, W), any H and W, at the steps t (B,) int64.

        ``words`` (B, length) int64; None is the empty sentence for the whole batch.

        Raises:
            TypeError, ValueError: wrong channel count, shape or dtype; t negative; words of another
                length or out of range, or for another batch.
        """
        check_inputs(x, t, self.config["in_channels"])
        words = self.no_condition.to(x.device).expand(len(x), -1) if words is None else words
        told = self._told(t, words)
        patch, halvings = self.config["patch"], len(self.config["widths"]) - 1
        multiple = patch * 2**halvings  # so that every level has whole positions
        height, width = x.shape[2:]
        x = F.pad(x, (0, -width % multiple, 0, -height % multiple))
        h = self.stem(F.pixel_unshuffle(x, patch))  # (B, C p^2, H/p, W/p) -> (B, w, H/p, W/p)
        h = self.levels(self.place(h), told)
        h = self.head(F.silu(self.norm(h)))  # (B, C p^2, H/p, W/p)
        return F.pixel_shuffle(h, patch)[:, :, :height, :width]  # (B, C, H, W)

    def _told(self, t: Steps, words: Sentences) -> Told:
        if len(words) != len(t):
            raise InvalidValueError(
                f"words must have a row for each of {len(t)} samples; got {len(words)}"
            )
        context, visible = self.text(words)
        h = timestep_embedding(t, self.time_in.in_features)  # (B, 4w)
        h = self.time_out(F.silu(self.time_in(h)))
        h = h + self.sentence(mean_of_words(context, visible))
        return Told(F.silu(h), context, visible)

    @torch.no_grad()
    def attention_maps(self, x: Images, t: Steps, words: Sentences) -> dict[str, Tensor]:
        """Where each word is looked at, by the name of the cross-attention, in the order of use.

        Returns:
            For each a tensor (B, heads, H', W', length + 1): how much each place takes of each
            word; the first is the one before the sentence.

        Raises:
            TypeError, ValueError: as for a call of the network.
        """
        maps: dict[str, Tensor] = {}
        handles = []
        for name, ask in self._asks():

            def note(module: nn.Module, given: tuple, name: str = name) -> None:
                assert isinstance(module, CrossAttention)
                maps[name] = module.shares(*given)

            handles.append(ask.register_forward_pre_hook(note))
        try:
            self(x, t, words)
        finally:
            for handle in handles:
                handle.remove()
        return maps

    def _asks(self) -> Iterator[tuple[str, CrossAttention]]:
        for name, module in self.named_modules():
            if isinstance(module, CrossAttention):
                yield name, module


def _tiny(config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the ``TinyUNet`` that the network is built around."""
    names = ("in_channels", "widths", "blocks", "patch", "bottom_blocks")
    return {**{name: config[name] for name in names}, "num_classes": None}


def _checked(**config: Any) -> dict[str, Any]:
    """The arguments of a ``TextUNet`` as a dict that JSON can hold; an error if one is wrong."""
    config = {**config, **checked_config(**_tiny(config))}
    del config["num_classes"]
    _validate.whole_number("vocabulary", config["vocabulary"], at_least=2)
    for name in ("length", "text_width"):
        _validate.whole_number(name, config[name], at_least=1)
    layers = config["text_layers"]
    _validate.whole_number("text_layers", layers, at_least=0, at_most=LARGEST_LAYERS)
    for name in ("cross_attention", "places"):
        _validate.boolean(name, config[name])
    names = ("vocabulary", "length", "text_width")
    largest = max(names, key=lambda name: config[name])
    size = 4 * text_unet_parameters(config)
    _memory.check_fits(largest, config[largest], size, "the network")
    return config


def text_unet_parameters(config: dict[str, Any]) -> int:
    """How many weights a ``TextUNet`` of this config has, counted without building one."""
    text, widths = config["text_width"], config["widths"]
    count = sum(parameter_counts(_tiny(config)).values())
    count += text_parameters(config["vocabulary"], config["length"], text, config["text_layers"])
    count += (text + 1) * 4 * widths[0]
    asks = [*widths[:-1], *widths] if config["cross_attention"] else []  # two a level, one below
    count += sum(2 * width**2 + 2 * width * text + 6 * width for width in asks)
    told = [widths[0], *asks] if config["places"] else []
    return count + 2 * WAVES * sum(told)
