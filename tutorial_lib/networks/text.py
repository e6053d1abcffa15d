"""From words to vectors: a small transformer that reads sentences."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from tutorial_lib import _memory, _validate
from tutorial_lib._validate import InvalidTypeError, InvalidValueError
from tutorial_lib.networks.attention import (
    Context,
    Visible,
    attention_shares,
    check_visible,
    head_count,
    split_heads,
)
from tutorial_lib.networks.layers import embedding_table

LARGEST_LAYERS = 256
"""Most layers of a text encoder: each takes its time to build."""

Sentences = Int64[Tensor, "batch length"]
"""The numbers of words, 0 is padding."""


class TextLayer(nn.Module):
    """A transformer's layer: each word looks at all the others, then at itself.

    The norms come before what they feed, as in GPT-2: such layers train without a warm-up.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = head_count(width)
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, x: Context, visible: Visible) -> Context:
        """x (B, S, width) and bool (B, S) to the shape of x; padding is not looked at."""
        check_visible(x, visible)
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(self.norm1(x)).chunk(3, 2))
        mixed = attention_shares(q, k, visible).to(v.dtype) @ v  # (B, heads, S, d)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.narrow(F.gelu(self.wide(self.norm2(x))))


class TextEncoder(nn.Module):
    """Sentences to a vector a word: embedding, position, transformer layers.

    A word of its own stands before every sentence. It is always visible, so the empty sentence has
    something to attend to, too.

    Args:
        vocabulary: how many words there are, counting the padding, which is number 0.
        length: the words of each sentence, padding counted.
        width: length of a word's vector.
        layers: how many transformer layers; 0 leaves each word's vector to itself.

    Raises:
        TypeError, ValueError: an argument that is not an int or too small, or weights that do not
            fit in memory.
    """

    def __init__(self, vocabulary: int, length: int, width: int = 64, layers: int = 2) -> None:
        super().__init__()
        _validate.whole_number("vocabulary", vocabulary, at_least=2)
        _validate.whole_number("length", length, at_least=1)
        _validate.whole_number("width", width, at_least=1)
        _validate.whole_number("layers", layers, at_least=0, at_most=LARGEST_LAYERS)
        sizes = {"vocabulary": vocabulary, "length": length, "width": width}
        largest = max(sizes, key=lambda name: sizes[name])
        needed = 4 * text_parameters(vocabulary, length, width, layers)
        _memory.check_fits(largest, sizes[largest], needed, "the text encoder")
        self.vocabulary, self.length = vocabulary, length
        self.word = embedding_table(vocabulary, width)
        self.position = embedding_table(length + 1, width)
        self.layers = nn.ModuleList(TextLayer(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, words: Sentences) -> tuple[Context, Visible]:
        """The vectors (B, length + 1, width) of words (B, length), and which are visible, bool.

        The first vector is that of the word before the sentence, whose number is that of padding.

        Raises:
            TypeError, ValueError: not int64, another length, or a number that no word has (seen on
                a CPU only).
        """
        self._check(words)
        words = F.pad(words, (1, 0))  # (B, length + 1)
        visible = words != 0
        visible[:, 0] = True
        x = self.word(words) + self.position.weight
        for layer in self.layers:
            x = layer(x, visible)
        return self.norm(x), visible

    def _check(self, words: Tensor) -> None:
        if not isinstance(words, Tensor) or words.dtype != torch.int64:
            got = words.dtype if isinstance(words, Tensor) else _validate.describe(words)
            raise InvalidTypeError(f"words must be an int64 tensor, got {got}")
        if words.ndim != 2 or words.shape[1] != self.length:
            shape = tuple(words.shape)
            raise InvalidValueError(f"words must have shape (B, {self.length}); got {shape}")
        if torch.compiler.is_compiling() or words.device.type != "cpu" or not words.numel():
            return
        low, high = (int(end) for end in words.aminmax())
        if low < 0 or high >= self.vocabulary:
            worst = low if low < 0 else high
            raise InvalidValueError(f"words must be in 0..{self.vocabulary - 1}, got {worst}")


def mean_of_words(context: Context, visible: Visible) -> Float[Tensor, "batch text_width"]:
    """The mean of the visible words' vectors, (B, text_width): a sentence as one vector."""
    share = visible.to(context) / visible.sum(1, keepdim=True)
    return (context * share[:, :, None]).sum(1)


def text_parameters(vocabulary: int, length: int, width: int, layers: int) -> int:
    """How many weights a ``TextEncoder`` has."""
    tables, layer = (vocabulary + length + 1) * width, 12 * width**2 + 13 * width
    return tables + layers * layer + 2 * width
