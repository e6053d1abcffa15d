"""Cross-attention and the text encoder, against loops and torch's own attention."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.draws import seeded
from tutorial_lib.networks import CrossAttention, TextEncoder
from tutorial_lib.networks.text import TextLayer, mean_of_words, text_parameters

ODD: Any = "no"


def visible(*lengths: int, words: int = 5) -> torch.Tensor:
    return torch.arange(words)[None] < torch.tensor(lengths)[:, None]


@pytest.fixture
def told() -> tuple[CrossAttention, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A layer, pictures (2, 64, 3, 4), words (2, 5, 12), and which are visible."""
    x = torch.randn(2, 64, 3, 4, generator=seeded(1))
    context = torch.randn(2, 5, 12, generator=seeded(2))
    return CrossAttention(64, 12), x, context, visible(5, 2)


@torch.no_grad()
def test_cross_attention_equals_a_loop_over_places_heads_and_words(told):
    layer, x, context, seen = told
    expected = x.clone()
    for b in range(2):
        normed = layer.norm(x)[b]
        key, value = layer.key_value(context[b]).split(64, dim=1)  # (S, 64) each
        for i in range(3):
            for j in range(4):
                query, mixed = layer.query(normed[:, i, j]), []
                for head in range(2):
                    own = slice(32 * head, 32 * head + 32)
                    scores = [
                        float(query[own] @ key[s, own]) / 32**0.5 if seen[b, s] else -1e30
                        for s in range(5)
                    ]
                    share = torch.tensor(scores).softmax(0)
                    mixed.append(sum(share[s] * value[s, own] for s in range(5)))
                expected[b, :, i, j] += layer.out(torch.cat(mixed))
    torch.testing.assert_close(layer(x, context, seen), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_cross_attention_equals_torch_s_own(told):
    layer, x, context, seen = told
    places = layer.norm(x).flatten(2).transpose(1, 2)
    parts = (layer.query(places), *layer.key_value(context).chunk(2, 2))
    q, k, v = (part.unflatten(2, (2, 32)).transpose(1, 2) for part in parts)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None, None])
    expected = x + layer.out(mixed.transpose(1, 2).flatten(2)).transpose(1, 2).view_as(x)
    torch.testing.assert_close(layer(x, context, seen), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_padding_is_never_looked_at_and_shares_sum_to_one(told):
    layer, x, context, seen = told
    other = context.clone()
    other[1, 2:] = 1e6
    assert torch.equal(layer(x, context, seen), layer(x, other, seen))
    shares = layer.shares(x, context, seen)
    assert shares.shape == (2, 2, 3, 4, 5)
    torch.testing.assert_close(shares.sum(-1), torch.ones(2, 2, 3, 4))
    assert (shares[1, ..., 2:] == 0).all()
    assert (shares[0] > 0).all()


def test_words_matter_from_the_start(told):
    """Its output is not zero before training, unlike the branches of residual blocks."""
    layer, x, context, seen = told
    assert not torch.allclose(layer(x, context, seen), x)
    assert not torch.allclose(layer(x, context.flip(1), seen), layer(x, context, seen))


@torch.no_grad()
def test_a_text_layer_equals_torch_s_transformer_layer():
    ours = TextLayer(64)
    theirs = nn.TransformerEncoderLayer(
        64, 2, 256, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    pairs = {
        "self_attn.in_proj_weight": ours.qkv.weight,
        "self_attn.in_proj_bias": ours.qkv.bias,
        "self_attn.out_proj.weight": ours.out.weight,
        "self_attn.out_proj.bias": ours.out.bias,
        "linear1.weight": ours.wide.weight,
        "linear1.bias": ours.wide.bias,
        "linear2.weight": ours.narrow.weight,
        "linear2.bias": ours.narrow.bias,
        "norm1.weight": ours.norm1.weight,
        "norm1.bias": ours.norm1.bias,
        "norm2.weight": ours.norm2.weight,
        "norm2.bias": ours.norm2.bias,
    }
    theirs.load_state_dict(pairs)
    x, seen = torch.randn(3, 5, 64, generator=seeded()), visible(5, 3, 1)
    theirs.train()  # its fast path would leave the padding out of the answer
    got, expected = ours(x, seen), theirs(x, src_key_padding_mask=~seen)
    torch.testing.assert_close(got[seen], expected[seen], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_an_encoder_reads_words_in_their_order_and_no_padding():
    encoder = TextEncoder(10, 5, width=32)
    words = torch.tensor([[1, 2, 3, 0, 0], [3, 2, 1, 0, 0], [0, 0, 0, 0, 0]])
    context, seen = encoder(words)
    assert context.shape == (3, 6, 32)
    assert seen.tolist() == [[True] * 4 + [False] * 2] * 2 + [[True] + [False] * 5]
    assert context.isfinite().all(), "the empty sentence, too"
    assert not torch.allclose(context[0, 2], context[1, 2]), "the same word in another sentence"
    sentence = mean_of_words(context, seen)
    torch.testing.assert_close(sentence[0], context[0, :4].mean(0))
    torch.testing.assert_close(sentence[2], context[2, 0])
    # the row of padding changes nothing but the word before the sentence
    before = encoder(words)[0][0, 1:4]
    encoder.position.weight[4:] += 100
    torch.testing.assert_close(encoder(words)[0][0, 1:4], before)


def test_layers_are_what_lets_words_know_of_each_other():
    words = torch.tensor([[1, 2, 0], [1, 3, 0]])
    alone, _ = TextEncoder(5, 3, width=32, layers=0)(words)
    torch.testing.assert_close(alone[0, 1], alone[1, 1])
    together, _ = TextEncoder(5, 3, width=32, layers=1)(words)
    assert not torch.allclose(together[0, 1], together[1, 1])


@pytest.mark.parametrize(("width", "layers"), [(32, 0), (33, 1), (64, 3)])
def test_weights_are_counted_without_building(width: int, layers: int):
    encoder = TextEncoder(11, 7, width, layers)
    counted = sum(parameter.numel() for parameter in encoder.parameters())
    assert text_parameters(11, 7, width, layers) == counted


WORDS = torch.ones(2, 5, dtype=torch.int64)


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: TextEncoder(1, 5), ValueError, "vocabulary must be at least 2, got 1"),
        (lambda: TextEncoder(9, 0), ValueError, "length must be at least 1, got 0"),
        (lambda: TextEncoder(9, 5, layers=-1), ValueError, "layers must be at least 0"),
        (lambda: TextEncoder(9, 5, layers=10**6), ValueError, "layers must be at most 256"),
        (lambda: TextEncoder(10**12, 5), ValueError, "vocabulary must fit in memory"),
        (lambda: TextEncoder(9, 5)(WORDS.float()), TypeError, "words must be an int64 tensor"),
        (lambda: TextEncoder(9, 5)(ODD), TypeError, "words must be an int64 tensor, got str 'no'"),
        (lambda: TextEncoder(9, 4)(WORDS), ValueError, r"words must have shape \(B, 4\); got"),
        (lambda: TextEncoder(9, 5)(9 * WORDS), ValueError, "words must be in 0..8, got 9"),
        (lambda: TextEncoder(9, 5)(-WORDS), ValueError, "words must be in 0..8, got -1"),
        (lambda: CrossAttention(0, 5), ValueError, "width must be at least 1, got 0"),
        (lambda: CrossAttention(32, 0), ValueError, "text_width must be at least 1, got 0"),
        (
            lambda: CrossAttention(32, 5)(torch.zeros(2, 32, 2, 2), torch.zeros(2, 3, 5), ODD),
            TypeError,
            "visible must be a bool tensor, got str 'no'",
        ),
        (
            lambda: TextLayer(32)(torch.zeros(2, 3, 32), visible(1, 2)),
            ValueError,
            r"visible must have shape \(2, 3\), one a word; got \(2, 5\)",
        ),
    ],
)
def test_what_is_wrong_is_named(call, error: type, message: str):
    with pytest.raises(error, match=message):
        call()
