"""Cross-attention: each place of a picture asks the words of a sentence."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from tutorial_lib import _validate
from tutorial_lib._typing import Images
from tutorial_lib._validate import InvalidTypeError, InvalidValueError
from tutorial_lib.networks.layers import group_norm

Context = Float[Tensor, "batch words text_width"]
"""A vector for each word of each sentence."""

Visible = Bool[Tensor, "batch words"]
"""Which words may be attended to; False for padding."""

Shares = Float[Tensor, "batch heads queries words"]
"""How much each query takes of each word; sums to 1 over the words."""

HEAD = 32
"""Channels of a head, where it divides the width; a width that it does not has one head."""


def attention_shares(queries: Tensor, keys: Tensor, visible: Visible) -> Shares:
    """softmax(Q K' / sqrt(d)) over the visible words (Vaswani et al. 2017, eq. 1).

    Args:
        queries: (B, heads, Q, d).
        keys: (B, heads, S, d).
        visible: bool (B, S), at least one True in each row: a softmax over nothing is NaN.
    """
    scores = queries * queries.shape[-1] ** -0.5 @ keys.transpose(-1, -2)  # (B, heads, Q, S)
    return scores.masked_fill(~visible[:, None, None], float("-inf")).softmax(-1)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, S, heads d) to (B, heads, S, d)."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def head_count(width: int) -> int:
    """How many heads an attention of this width has."""
    return width // HEAD if width % HEAD == 0 else 1


class CrossAttention(nn.Module):
    """Every place of a picture takes from the words what it asks for, and adds it to itself.

    softmax(Q(picture) K(words)' / sqrt(d)) V(words) (Rombach et al. 2022, sec. 3.3). Unlike the
    branches of a ``ResBlock`` its output does not start at zero: then the words would be ignored
    until the rest of the network has learned to do without them.

    Args:
        width: channels of the picture.
        text_width: length of a word's vector.
    """

    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        _validate.whole_number("width", width, at_least=1)
        _validate.whole_number("text_width", text_width, at_least=1)
        self.heads = head_count(width)
        self.norm = group_norm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(text_width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Images, context: Context, visible: Visible) -> Images:
        """x (B, width, H, W), words (B, S, text_width), bool (B, S), to the shape of x.

        Raises:
            TypeError, ValueError: ``visible`` is not bool, or of another shape than the words.
        """
        shares, values = self._attend(x, context, visible)
        mixed = (shares.to(values.dtype) @ values).transpose(1, 2).flatten(2)  # (B, HW, width)
        return x + self.out(mixed).transpose(1, 2).unflatten(2, x.shape[2:])

    def shares(self, x: Images, context: Context, visible: Visible) -> Tensor:
        """How much each place takes of each word, (B, heads, H, W, S): the maps to look at."""
        shares, _ = self._attend(x, context, visible)
        return shares.unflatten(2, x.shape[2:])

    def _attend(self, x: Images, context: Context, visible: Visible) -> tuple[Shares, Tensor]:
        check_visible(context, visible)
        places = self.norm(x).flatten(2).transpose(1, 2)  # (B, HW, width)
        queries = split_heads(self.query(places), self.heads)
        keys, values = (
            split_heads(part, self.heads) for part in self.key_value(context).chunk(2, 2)
        )
        return attention_shares(queries, keys, visible), values


def check_visible(context: Tensor, visible: Tensor) -> None:
    """Raises unless ``visible`` is bool with an entry for each word of ``context`` (B, S, D)."""
    if not isinstance(visible, Tensor) or visible.dtype != torch.bool:
        got = visible.dtype if isinstance(visible, Tensor) else _validate.describe(visible)
        raise InvalidTypeError(f"visible must be a bool tensor, got {got}")
    if visible.shape != context.shape[:2]:
        expected, got = tuple(context.shape[:2]), tuple(visible.shape)
        raise InvalidValueError(f"visible must have shape {expected}, one a word; got {got}")
