"""Pictures from words: numbers of words, attention, negative prompts, LoRA, a small CLIP."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.checks.framework import (
    Choice,
    Exercise,
    Mistake,
    Number,
    Wrong,
    per_sample,
    tensor_like,
)

# --- sentences as numbers ------------------------------------------------------------------------


def _tokens(sentence, words, length, unknown):
    parts = sentence.lower().split()
    numbers = [words.index(part) if part in words else unknown for part in parts]
    numbers = numbers[:length]
    return torch.tensor(numbers + [0] * (length - len(numbers)))


_WORDS = ("a", "small", "large", "red", "blue", "disc", "square", "left", "of", "above", "on")


def _tokens_cases(generator: torch.Generator):
    for sentence, length in (
        ("a small red disc", 6),
        ("a large blue square above a small red disc", 12),
        ("a red disc left of a red square", 8),
        ("a purple disc on a striped square", 9),  # two that are not on the list
        ("A Large RED disc", 5),
        ("a  small   blue square", 7),
        ("disc", 1),
        ("", 4),
        ("a small red disc above a large blue square", 6),  # longer than a row
        ("of of of unicorn a", 5),
    ):
        order = torch.randperm(len(_WORDS), generator=generator).tolist()
        unknown = int(torch.randint(20, 100, (), generator=generator))
        yield sentence, ["", *(_WORDS[i] for i in order)], length, unknown


def _tokens_with(
    *,
    split: Callable = lambda sentence: sentence.lower().split(),
    number: Callable = lambda part, words, unknown: words.index(part) if part in words else unknown,
    fill: Callable = lambda numbers, length: (
        numbers[:length] + [0] * (length - len(numbers[:length]))
    ),
    order: Callable = lambda parts: parts,
) -> Callable:
    """An answer with something changed."""

    def tokens(sentence, words, length, unknown):
        numbers = [number(part, words, unknown) for part in order(split(sentence))]
        return torch.tensor(fill(numbers, length), dtype=torch.int64)

    return tokens


def _tokens_dropped(sentence, words, length, unknown):
    known = " ".join(part for part in sentence.lower().split() if part in words)
    return _tokens(known, words, length, unknown)


def _tokens_letters(sentence, words, length, unknown):
    parts = list(sentence.lower())
    numbers = [words.index(part) if part in words else unknown for part in parts][:length]
    return torch.tensor(numbers + [0] * (length - len(numbers)))


def _tokens_table(sentence, words, length, unknown):
    table = {word: i for i, word in enumerate(words)}
    parts = sentence.lower().split()[:length]
    row = [table.get(part, unknown) for part in parts]
    return np.pad(np.array(row, dtype=np.int64), (0, length - len(row)))


def _tokens_list(sentence, words, length, unknown):
    row = []
    for part in sentence.lower().split():
        if len(row) == length:
            break
        row.append(words.index(part) if words.count(part) else unknown)
    while len(row) < length:
        row.append(0)
    return row


tokens = Exercise(
    "lesson13.tokens",
    "Words to numbers",
    difficulty=1,
    minutes=4,
    hints=(
        "`sentence.lower().split()` is the list of its words, and `words.index(word)` the place of "
        "one on the list.",
        "Make the list of numbers first. Then cut it to `length`, and add as many zeros as are "
        "missing: `[0] * n` is a list of n zeros.",
    ),
    model_answer=_tokens,
    cases=_tokens_cases,
    first_axis="place",
    mistakes=(
        Mistake(
            "padding in front",
            _tokens_with(
                fill=lambda numbers, length: (
                    [0] * (length - len(numbers[:length])) + numbers[:length]
                )
            ),
            "The padding stands in front of the words. It fills the row *behind* them.",
        ),
        Mistake(
            "unknown words dropped",
            _tokens_dropped,
            "A word that is not on the list is missing from your row, and those behind it have "
            "moved. It keeps its place, with the number `unknown`.",
        ),
        Mistake(
            "unknown as padding",
            _tokens_with(
                number=lambda part, words, unknown: words.index(part) if part in words else 0
            ),
            "A word that is not on the list becomes 0 in your row. That number means that there is "
            "no word at all.",
        ),
        Mistake(
            "unknown as the last word",
            _tokens_with(
                number=lambda part, words, unknown: (
                    words.index(part) if part in words else len(words) - 1
                )
            ),
            "A word that is not on the list gets the number of the last word on it. The number for "
            "such words is `unknown`.",
        ),
        Mistake(
            "capitals",
            _tokens_with(split=lambda sentence: sentence.split()),
            "A word with capital letters is not found, since all words on the list are in lower "
            "case.",
        ),
        Mistake(
            "split at single spaces",
            _tokens_with(split=lambda sentence: sentence.lower().split(" ")),
            "Between two spaces there is an empty word in your list, and it takes a place. "
            "`split()`, with nothing in the brackets, splits at any number of spaces.",
        ),
        Mistake(
            "one too many",
            _tokens_with(
                number=lambda part, words, unknown: (
                    words.index(part) + 1 if part in words else unknown
                )
            ),
            "All numbers of words are too large by one. The padding is on the list already, at "
            "place 0.",
        ),
        Mistake(
            "one too few",
            _tokens_with(
                number=lambda part, words, unknown: (
                    words.index(part) - 1 if part in words else unknown
                )
            ),
            "All numbers of words are too small by one: the list begins with the padding, so the "
            "first real word has number 1.",
        ),
        Mistake(
            "the end kept",
            _tokens_with(
                fill=lambda numbers, length: (
                    numbers[-length:] + [0] * (length - len(numbers[-length:]))
                )
            ),
            "Of a sentence that is too long you keep the end. Keep the beginning.",
        ),
        Mistake(
            "not cut",
            _tokens_with(fill=lambda numbers, length: numbers + [0] * (length - len(numbers))),
            "A sentence with more words than `length` gives a row that is too long. Cut it.",
        ),
        Mistake(
            "not padded",
            _tokens_with(fill=lambda numbers, length: numbers[:length]),
            "Your rows are as long as the sentences. All must have `length` numbers, or they do "
            "not fit into one tensor.",
        ),
        Mistake(
            "each word once",
            _tokens_with(order=lambda parts: list(dict.fromkeys(parts))),
            'Each word comes only once in your row. "a red disc left of a red square" says "a '
            'red" twice.',
        ),
        Mistake(
            "sorted",
            _tokens_with(order=sorted),
            "Your words are in the order of the alphabet. Their order in the sentence matters.",
        ),
        Mistake(
            "reversed",
            _tokens_with(order=lambda parts: parts[::-1]),
            "Your row begins with the last word of the sentence.",
        ),
        Mistake(
            "letters",
            _tokens_letters,
            "You number the letters of the sentence. Split it into words first.",
        ),
        Mistake(
            "filled with unknown",
            lambda sentence, words, length, unknown: torch.tensor(
                (_tokens(sentence, words, length, unknown)[: len(sentence.split())]).tolist()
                + [unknown] * (length - len(sentence.split()[:length]))
            ),
            "You fill the row with `unknown`. That is for words that are there and not on the "
            "list; behind the last word stands 0.",
        ),
        Mistake(
            "unknown as the next number",
            _tokens_with(
                number=lambda part, words, unknown: (
                    words.index(part) if part in words else len(words)
                )
            ),
            "A word that is not on the list gets the first number that no word has. The number for "
            "such words is passed to you: `unknown`.",
        ),
        Mistake(
            "unknown as -1",
            _tokens_with(
                number=lambda part, words, unknown: words.index(part) if part in words else -1
            ),
            "A word that is not on the list becomes -1, as `str.find` would say. Its number is "
            "`unknown`.",
        ),
        Mistake(
            "unknown as 1",
            _tokens_with(
                number=lambda part, words, unknown: words.index(part) if part in words else 1
            ),
            "A word that is not on the list becomes 1, the number of another word. It gets "
            "`unknown`.",
        ),
        Mistake(
            "the wrong way round",
            _tokens_with(number=lambda part, words, unknown: unknown if part in words else 0),
            "The words that *are* on the list get `unknown`. It is for the others; these get their "
            "place on the list.",
        ),
        Mistake(
            "nothing found",
            _tokens_with(split=lambda sentence: sentence.upper().split()),
            "No word of the sentence is found on your list, which is in lower case. `.lower()` "
            "brings a sentence there.",
        ),
        Mistake(
            "first letter only",
            _tokens_with(split=lambda sentence: (sentence[:1].lower() + sentence[1:]).split()),
            "Only the first letter of the sentence loses its capital. Later words have some, too.",
        ),
        Mistake(
            "filled with -1",
            _tokens_with(
                fill=lambda numbers, length: (
                    numbers[:length] + [-1] * (length - len(numbers[:length]))
                )
            ),
            "You fill the row with -1. The padding is the first word on the list, number 0.",
        ),
        Mistake(
            "filled with 1",
            _tokens_with(
                fill=lambda numbers, length: (
                    numbers[:length] + [1] * (length - len(numbers[:length]))
                )
            ),
            "You fill the row with 1, which is the number of a word. The padding is 0.",
        ),
        Mistake(
            "characters cut",
            lambda sentence, words, length, unknown: _tokens(
                sentence[:length], words, length, unknown
            ),
            "You cut the sentence after `length` *letters*. Cut the list of numbers.",
        ),
        Mistake(
            "a mark in front",
            _tokens_with(
                fill=lambda numbers, length: ([0, *numbers] + [0] * length)[:length],
            ),
            "Your row begins with a 0, so that every word stands one place too late. (Many "
            "tokenizers do put a mark there. This one does not.)",
        ),
        Mistake(
            "in the order of the list",
            _tokens_with(
                fill=lambda numbers, length: (
                    sorted(numbers[:length]) + [0] * (length - len(numbers[:length]))
                )
            ),
            "Your numbers are in rising order. Keep the order of the words in the sentence.",
        ),
        Mistake(
            "stopped at an unknown word",
            lambda sentence, words, length, unknown: _tokens(
                " ".join(itertools.takewhile(lambda part: part in words, sentence.lower().split())),
                words,
                length,
                unknown,
            ),
            "Your row ends before the first word that is not on the list. That word gets "
            "`unknown`, and the next ones follow.",
        ),
        Mistake(
            "stopped behind an unknown word",
            _tokens_with(
                fill=lambda numbers, length: (
                    numbers[: next((i + 1 for i, n in enumerate(numbers) if n >= 20), length)]
                    + [0] * length
                )[:length]
            ),
            "After the first word that is not on the list nothing follows in your row. The words "
            "behind it count as well.",
        ),
        Mistake(
            "a part of a word",
            _tokens_with(
                number=lambda part, words, unknown: next(
                    (i for i, word in enumerate(words) if part in word), unknown
                )
            ),
            "You take the first word on the list that *contains* yours: `in` asks that of two "
            "texts. It has to be the same word.",
        ),
        Mistake(
            "a word inside a word",
            _tokens_with(
                number=lambda part, words, unknown: next(
                    (i for i, word in enumerate(words) if i and word in part), unknown
                )
            ),
            'You take the first word that is contained in yours: there is an "a" in "small". It '
            "has to be the same word.",
        ),
        Mistake(
            "too long, so empty",
            _tokens_with(
                fill=lambda numbers, length: (
                    [0] * length
                    if len(numbers) > length
                    else numbers + [0] * (length - len(numbers))
                )
            ),
            "A sentence that is too long gives a row of zeros. Keep what fits of it.",
        ),
        Mistake(
            "last place never used",
            _tokens_with(fill=lambda numbers, length: [*(numbers + [0] * length)[: length - 1], 0]),
            "The last place of your row is always 0, even where the sentence has enough words.",
        ),
    ),
    alternatives=(
        _tokens_table,
        _tokens_list,
    ),
    passed="Real tokenizers also split words into pieces, so that nothing is unknown to them.",
)


# --- attention -----------------------------------------------------------------------------------


def _attention(queries, keys, values, visible):
    scores = queries @ keys.transpose(1, 2) / queries.shape[-1] ** 0.5
    scores = scores.masked_fill(~visible[:, None], float("-inf"))
    return scores.softmax(-1) @ values


def _visible(batch: int, count: int, generator: torch.Generator) -> Tensor:
    """Bool (B, S): sentences of several lengths, padding behind them."""
    lengths = torch.randint(1, count + 1, (batch,), generator=generator)
    lengths[0] = max(1, count - 1)  # one with padding, where there is room for it
    return torch.arange(count) < lengths[:, None]


def _attention_cases(generator: torch.Generator):
    for batch, asking, count, width, out in (
        (2, 5, 4, 3, 6),
        (1, 3, 5, 4, 2),
        (3, 3, 3, 3, 3),  # every broken broadcast fits here
        (4, 2, 6, 16, 5),
        (2, 4, 4, 9, 4),
        (3, 1, 7, 2, 2),
        (2, 6, 1, 5, 3),
    ):
        queries = 2 * torch.randn(batch, asking, width, generator=generator)
        keys = torch.randn(batch, count, width, generator=generator)
        values = torch.randn(batch, count, out, generator=generator)
        yield queries, keys, values, _visible(batch, count, generator)


def _attended(answer: Callable, queries, keys, values, visible) -> object:
    """The shares, which values that are a unit matrix bring to light, and the result."""
    count = keys.shape[1]
    unit = torch.eye(count).expand(len(keys), -1, -1).clone()
    shares = answer(queries.clone(), keys.clone(), unit, visible.clone())
    if shares is ...:
        return ...
    shares = tensor_like(shares, queries @ keys.transpose(1, 2))
    like = torch.zeros(*queries.shape[:2], values.shape[2])
    result = answer(queries.clone(), keys.clone(), values.clone(), visible.clone())
    return *_in_all(shares, visible), shares, tensor_like(result, like)


def _in_all(shares: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """What the padding gets of each query, and what the words get; (B, Q) each."""
    hidden = shares * ~visible[:, None]
    return hidden.sum(2), (shares - hidden).sum(2)


def _attended_reference(queries, keys, values, visible) -> tuple[Tensor, ...]:
    q, k = queries.double(), keys.double()
    unit = torch.eye(keys.shape[1], dtype=torch.float64).expand(len(keys), -1, -1)
    shares, result = (
        F.scaled_dot_product_attention(
            q, k, v, attn_mask=visible[:, None].expand(-1, q.shape[1], -1)
        )
        for v in (unit, values.double())
    )
    return *_in_all(shares, visible), shares, result


def _hidden(scores: Tensor, visible: Tensor) -> Tensor:
    return scores.masked_fill(~visible[:, None], float("-inf"))


def _attention_with(
    *,
    score: Callable = lambda q, k, v: q @ k.transpose(1, 2) / q.shape[-1] ** 0.5,
    hide: Callable = _hidden,
    share: Callable = lambda scores, visible: scores.softmax(-1),
    take: Callable = lambda shares, q, k, v: shares @ v,
) -> Callable:
    """An answer with something changed."""

    def attention(queries, keys, values, visible):
        shares = share(hide(score(queries, keys, values), visible), visible)
        return take(shares, queries, keys, values)

    return attention


def _unmasked(scores: Tensor, visible: Tensor) -> Tensor:
    return scores


def _smothered(scores: Tensor, visible: Tensor) -> Tensor:
    """The mask inverted; where nothing is left to look at, all shares are 0."""
    return scores.masked_fill(visible[:, None], float("-inf")).softmax(-1).nan_to_num(0.0)


def _added_mask(scores: Tensor, visible: Tensor) -> Tensor:
    """What becomes of scores if the mask is a number: 1 more for a word."""
    return scores + visible[:, None].to(scores)


def _attention_no_look_ahead(queries, keys, values, visible):
    scores = queries @ keys.transpose(1, 2) / queries.shape[-1] ** 0.5
    late = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
    return _hidden(scores, visible).masked_fill(late, -1e9).softmax(-1) @ values


def _attention_sdpa(queries, keys, values, visible):
    mask = visible[:, None].expand(-1, queries.shape[1], -1)
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)


def _attention_einsum(queries, keys, values, visible):
    scores = torch.einsum("bqd,bsd->bqs", queries, keys) * queries.shape[-1] ** -0.5
    scores = scores + torch.where(visible, 0.0, -1e9)[:, None]
    return torch.einsum("bqs,bse->bqe", F.softmax(scores, dim=2), values)


def _attention_loop(queries, keys, values, visible):
    samples = []
    for q, k, v, seen in zip(queries, keys, values, visible, strict=True):
        rows = []
        for one in q:
            powers = torch.exp(k[seen] @ one / math.sqrt(len(one)))
            rows.append((powers[:, None] * v[seen]).sum(0) / powers.sum())
        samples.append(torch.stack(rows))
    return torch.stack(samples)


attention = Exercise(
    "lesson13.attention",
    "Attention",
    difficulty=2,
    minutes=8,
    hints=(
        "`queries @ keys.transpose(1, 2)` holds the product of each query with each key, "
        "(B, Q, S). Divide by the root of d = `queries.shape[-1]`.",
        "`scores.masked_fill(~visible[:, None], -math.inf)` hides the padding from every query: "
        "exp(-inf) is 0. It has to happen before the softmax.",
        "`.softmax(-1)` makes shares of the scores, over the words. `shares @ values` is the mean "
        "of the values, weighted by them.",
    ),
    model_answer=_attention,
    cases=_attention_cases,
    use=_attended,
    reference=_attended_reference,
    parts=(
        "what the padding gets, which must be 0",
        "what all words get together, which must be 1",
        "shares, how much each query takes of each word",
        "result",
    ),
    mistakes=(
        Mistake(
            "no root of d",
            _attention_with(score=lambda q, k, v: q @ k.transpose(1, 2)),
            "The scores are not divided by the root of d. Products of long vectors are large, and "
            "the softmax would take nearly all from one word.",
        ),
        Mistake(
            "divided by d",
            _attention_with(score=lambda q, k, v: q @ k.transpose(1, 2) / q.shape[-1]),
            "You divide the scores by d. A sum of d products of random numbers grows like the "
            "*root* of d.",
        ),
        Mistake(
            "times the root",
            _attention_with(score=lambda q, k, v: q @ k.transpose(1, 2) * q.shape[-1] ** 0.5),
            "You multiply the scores by the root of d. They are to be divided by it.",
        ),
        Mistake(
            "the root of the number of words",
            _attention_with(score=lambda q, k, v: q @ k.transpose(1, 2) / k.shape[1] ** 0.5),
            "You divide by the root of the number of words. d is the length of a query and of a "
            "key.",
        ),
        Mistake(
            "the root of the batch",
            _attention_with(score=lambda q, k, v: q @ k.transpose(1, 2) / len(q) ** 0.5),
            "You divide by the root of the batch size: `len(queries)` is B. d is the last axis.",
        ),
        Mistake(
            "softmax over the queries",
            _attention_with(
                share=lambda scores, visible: scores.nan_to_num(neginf=-1e4).softmax(1)
            ),
            "Your softmax runs over the queries. Each *query* shares out its attention among the "
            "words: the last axis.",
        ),
        Mistake(
            "softmax over the batch",
            _attention_with(
                share=lambda scores, visible: scores.nan_to_num(neginf=-1e4).softmax(0)
            ),
            "Your softmax runs over the batch, so that the samples compete for words. Each query "
            "shares out its attention among the words: the last axis.",
        ),
        Mistake(
            "no softmax",
            _attention_with(
                hide=_unmasked, share=lambda scores, visible: scores * visible[:, None]
            ),
            "The scores are used as they are. The softmax makes shares of them, which are not "
            "negative and sum to 1.",
        ),
        Mistake(
            "sigmoid",
            _attention_with(share=lambda scores, visible: scores.sigmoid()),
            "A sigmoid looks at each score alone, and the shares do not sum to 1. Use a softmax.",
        ),
        Mistake(
            "one word takes all",
            _attention_with(
                share=lambda scores, visible: F.one_hot(scores.argmax(-1), scores.shape[-1]).to(
                    scores
                )
            ),
            "You take the word with the highest score alone. Attention is the soft version of "
            "that: a softmax.",
        ),
        Mistake(
            "mask inverted",
            _attention_with(
                hide=lambda scores, visible: scores.masked_fill(visible[:, None], -1e4)
            ),
            "Your queries look at the padding, and not at the words. `visible` is True where there "
            "is a word.",
        ),
        Mistake(
            "padding not hidden",
            _attention_with(hide=_unmasked),
            "Some attention goes to the padding. What has no word must be hidden before the "
            "softmax.",
        ),
        Mistake(
            "hidden after the softmax",
            _attention_with(
                hide=_unmasked,
                share=lambda scores, visible: scores.softmax(-1) * visible[:, None],
            ),
            "The padding is hidden after the softmax, when it has already taken its share: the "
            "rest no longer sums to 1. Hide it before.",
        ),
        Mistake(
            "hidden by 0",
            _attention_with(hide=lambda scores, visible: scores * visible[:, None]),
            "You set the scores of the padding to 0. exp(0) is 1, so it is still looked at; hide "
            "it by -inf, whose exponential is 0.",
        ),
        Mistake(
            "keys taken",
            _attention_with(take=lambda shares, q, k, v: shares @ (k if k.shape == v.shape else v)),
            "The shares are right, but you take the mean of the keys. What a word gives away is "
            "its value.",
        ),
        Mistake(
            "keys and values swapped",
            _attention_with(
                score=lambda q, k, v: (
                    q @ (v if k.shape == v.shape else k).transpose(1, 2) / q.shape[-1] ** 0.5
                ),
                take=lambda shares, q, k, v: shares @ (k if k.shape == v.shape else v),
            ),
            "Keys and values have changed places: what is compared with the queries are the keys, "
            "what is taken are the values.",
        ),
        Mistake(
            "softmax over the queries, of -inf",
            _attention_with(share=lambda scores, visible: scores.softmax(1)),
            "Your softmax runs over the queries. For a padding word all their scores are -inf, "
            "which gives NaN. Each query shares out its attention among the *words*, the last "
            "axis.",
        ),
        Mistake(
            "softmax over the batch, of -inf",
            _attention_with(share=lambda scores, visible: scores.softmax(0)),
            "Your softmax runs over the batch; where every sentence has padding all scores are "
            "-inf, and that gives NaN. Take the last axis, the words.",
        ),
        Mistake(
            "softmax over a whole table",
            _attention_with(
                share=lambda scores, visible: scores.flatten(1).softmax(1).view_as(scores)
            ),
            "All shares of a sentence sum to 1, over queries and words together. Each query has "
            "one whole attention of its own to share out.",
        ),
        Mistake(
            "softmax twice",
            _attention_with(share=lambda scores, visible: scores.softmax(-1).softmax(-1)),
            "There is a second softmax. It makes new shares of shares, and gives the padding some, "
            "since exp(0) is 1.",
        ),
        Mistake(
            "not divided by the sum",
            _attention_with(share=lambda scores, visible: scores.exp()),
            "You take the exponential only. A softmax then divides by the sum over the words.",
        ),
        Mistake(
            "scores divided by their sum",
            _attention_with(
                hide=_unmasked,
                share=lambda scores, visible: (
                    (scores * visible[:, None]) / (scores * visible[:, None]).sum(-1, keepdim=True)
                ),
            ),
            "You divide the scores by their sum. They may be negative, and so may that sum: first "
            "the exponential, as the softmax does.",
        ),
        Mistake(
            "sign",
            _attention_with(score=lambda q, k, v: -(q @ k.transpose(1, 2)) / q.shape[-1] ** 0.5),
            "The word that fits least gets most: a sign of the scores is wrong.",
        ),
        Mistake(
            "mask inverted, NaN",
            _attention_with(
                hide=lambda scores, visible: scores.masked_fill(visible[:, None], float("-inf"))
            ),
            "You hide the words, and show the padding; where a sentence has none, nothing is left, "
            "and that is NaN. `visible` is True where there is a word: `~visible`.",
        ),
        Mistake(
            "mask inverted, nothing left",
            _attention_with(
                hide=lambda scores, visible: scores,
                share=_smothered,
            ),
            "You hide the words and show the padding; where a sentence has none, nothing is left "
            "to look at. True means that it may be looked at.",
        ),
        Mistake(
            "hidden by a small number",
            _attention_with(
                hide=lambda scores, visible: scores.masked_fill(~visible[:, None], -1.0)
            ),
            "You set the scores of the padding to -1. exp(-1) is 0.37, so it is still looked at. "
            "Only -inf hides completely.",
        ),
        Mistake(
            "infinity in the wrong place",
            _attention_with(
                hide=_unmasked, share=lambda scores, visible: _hidden(scores.softmax(-1), visible)
            ),
            "Each query that meets padding gets NaN. Did you write +inf in place of -inf, or -inf "
            "into the *shares*? It goes into the scores, before the softmax.",
        ),
        Mistake(
            "multiplied by -inf",
            _attention_with(
                hide=lambda scores, visible: (
                    scores * torch.where(visible, 1.0, float("-inf"))[:, None]
                )
            ),
            "You multiply scores by -inf, and a negative one becomes +inf. Replace them "
            "(`masked_fill`), or *add* -inf.",
        ),
        Mistake(
            "a mask of numbers",
            _attention_with(hide=_added_mask),
            "A mask of 1 and 0 is *added* to the scores, so the padding still has its share. Use "
            "True and False, or 0 and -inf.",
        ),
        Mistake(
            "no look ahead",
            _attention_no_look_ahead,
            "Your queries do not see later words. That is for models that write text; here the "
            "whole sentence is known.",
        ),
        Mistake(
            "the root of the number of queries",
            _attention_with(score=lambda q, k, v: q @ k.transpose(1, 2) / q.shape[1] ** 0.5),
            "You divide by the root of the number of queries, axis 1. d is the last axis.",
        ),
        Mistake(
            "the root of the values",
            lambda queries, keys, values, visible: (
                _hidden(queries @ keys.transpose(1, 2) / values.shape[-1] ** 0.5, visible).softmax(
                    -1
                )
                @ values
            ),
            "You divide by the root of the length of a *value*. d is the length of a query and of "
            "a key.",
        ),
        Mistake(
            "root twice",
            _attention_with(score=lambda q, k, v: q @ k.transpose(1, 2) / q.shape[-1] ** 0.25),
            "You divide by the fourth root of d: `** 0.5` and `sqrt` are the same root, so take "
            "one.",
        ),
        Mistake(
            "divided after the softmax",
            _attention_with(
                score=lambda q, k, v: q @ k.transpose(1, 2),
                take=lambda shares, q, k, v: shares @ v / q.shape[-1] ** 0.5,
            ),
            "You divide by the root of d after the softmax, so that the shares no longer sum to 1. "
            "It is the scores that are divided.",
        ),
        Mistake(
            "cosines",
            _attention_with(
                score=lambda q, k, v: (
                    F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(1, 2)
                )
            ),
            "You bring queries and keys to length 1. Here their length counts; what keeps the "
            "scores small is the root of d.",
        ),
        Mistake(
            "reshape for transpose",
            _attention_with(
                score=lambda q, k, v: q @ k.reshape(len(k), q.shape[2], -1) / q.shape[2] ** 0.5
            ),
            "`reshape` does not swap axes: it cuts the same numbers in another way. "
            "`keys.transpose(1, 2)` swaps them.",
        ),
        Mistake(
            "all words alike",
            _attention_with(score=lambda q, k, v: 0 * (q @ k.transpose(1, 2))),
            "Every visible word gets the same share. The scores are the products of queries and "
            "keys.",
        ),
    ),
    alternatives=(_attention_sdpa, _attention_einsum, _attention_loop),
    passed="Vaswani et al. 2017, equation 1. PyTorch has it as F.scaled_dot_product_attention.",
)


# --- pictures ask words --------------------------------------------------------------------------


def _cross(x, context, visible, W_q, W_k, W_v):
    places = x.flatten(2).transpose(1, 2)
    queries, keys, values = places @ W_q, context @ W_k, context @ W_v
    taken = F.scaled_dot_product_attention(queries, keys, values, attn_mask=visible[:, None])
    return x + taken.transpose(1, 2).unflatten(2, x.shape[2:])


def _cross_cases(generator: torch.Generator):
    for batch, channels, height, width, count, text, inner in (
        (2, 3, 2, 4, 5, 6, 4),
        (1, 4, 3, 2, 3, 2, 4),
        (3, 4, 2, 2, 4, 4, 4),  # channels = places = words = width of a word
        (2, 5, 1, 3, 6, 3, 2),
        (2, 2, 4, 3, 2, 5, 8),
        (4, 6, 3, 3, 1, 6, 6),
    ):
        x = torch.randn(batch, channels, height, width, generator=generator)
        context = torch.randn(batch, count, text, generator=generator)
        visible = _visible(batch, count, generator)
        W_q = torch.randn(channels, inner, generator=generator)
        W_k = torch.randn(text, inner, generator=generator)
        W_v = torch.randn(text, channels, generator=generator)
        yield x, context, visible, W_q, W_k, W_v


def _taken(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(queries, keys, values, attn_mask=visible[:, None])


def _cross_with(
    *,
    rows: Callable = lambda x: x.flatten(2).transpose(1, 2),
    back: Callable = lambda taken, x: taken.transpose(1, 2).unflatten(2, x.shape[2:]),
    attend: Callable = _taken,
    join: Callable = lambda x, taken: x + taken,
    key_matrix: Callable = lambda W_k, W_v: W_k,
    value_matrix: Callable = lambda W_k, W_v: W_v,
) -> Callable:
    """An answer with something changed."""

    def cross(x, context, visible, W_q, W_k, W_v):
        queries = rows(x) @ W_q
        keys = context @ key_matrix(W_k, W_v)
        values = context @ value_matrix(W_k, W_v)
        return join(x, back(attend(queries, keys, values, visible), x))

    return cross


def _if_it_fits(instead: Tensor, own: Tensor) -> Tensor:
    """Matrices that are swapped by mistake give an answer only where their shapes agree."""
    return instead if instead.shape == own.shape else own


def _cross_on_itself(x, context, visible, W_q, W_k, W_v):
    places = x.flatten(2).transpose(1, 2)
    asked = places if places.shape[2] == context.shape[2] else context
    seen = torch.ones(asked.shape[:2], dtype=torch.bool) if asked is places else visible
    taken = _taken(places @ W_q, asked @ W_k, asked @ W_v, seen)
    return x + taken.transpose(1, 2).unflatten(2, x.shape[2:])


def _cross_one_by_one(x, context, visible, W_q, W_k, W_v):
    out = x.clone()
    for b in range(len(x)):
        words = context[b][visible[b]]
        for i in range(x.shape[2]):
            for j in range(x.shape[3]):
                scores = (x[b, :, i, j] @ W_q) @ (words @ W_k).T / W_q.shape[1] ** 0.5
                out[b, :, i, j] += scores.softmax(0) @ (words @ W_v)
    return out


def _cross_einsum(x, context, visible, W_q, W_k, W_v):
    queries = torch.einsum("bchw,cd->bhwd", x, W_q)
    scores = torch.einsum("bhwd,bsd->bhws", queries, context @ W_k) / math.sqrt(W_q.shape[1])
    scores = scores.masked_fill(~visible[:, None, None], float("-inf"))
    return x + torch.einsum("bhws,bsc->bchw", scores.softmax(-1), context @ W_v)


def _cross_parts(answer: Callable, x, context, visible, W_q, W_k, W_v) -> object:
    """What is answered if words have nothing to give, if none is padding, and as it is."""
    given = {
        "x": x,
        "context": context,
        "visible": visible,
        "W_q": W_q,
        "W_k": W_k,
        "W_v": W_v,
    }

    def ask(**other: Tensor) -> object:
        return answer(*(tensor.clone() for tensor in (given | other).values()))

    silent = ask(W_v=torch.zeros_like(W_v))
    if silent is ...:
        return ...
    whole = ask(visible=torch.ones_like(visible))
    return tensor_like(silent, x), tensor_like(whole, x), tensor_like(ask(), x)


def _cross_reference(x, context, visible, W_q, W_k, W_v) -> tuple[Tensor, Tensor, Tensor]:
    x, context, W_q, W_k, W_v = (given.double() for given in (x, context, W_q, W_k, W_v))
    return (
        x,
        _cross_einsum(x, context, torch.ones_like(visible), W_q, W_k, W_v),
        _cross_einsum(x, context, visible, W_q, W_k, W_v),
    )


def _cross_nan(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor) -> Tensor:
    """The mask inverted, by hand: NaN where a sentence has no padding."""
    scores = queries @ keys.transpose(1, 2) / queries.shape[-1] ** 0.5
    return scores.masked_fill(visible[:, None], float("-inf")).softmax(-1) @ values


def _cross_pooled(x, context, visible, W_q, W_k, W_v):
    mean = (context * visible[..., None]).sum(1) / visible.sum(1, keepdim=True)
    return x + (mean @ W_v)[:, :, None, None]


cross = Exercise(
    "lesson13.cross",
    "The picture asks the words",
    difficulty=2,
    minutes=7,
    hints=(
        "`x.flatten(2)` is (B, C, H W), and `.transpose(1, 2)` makes a row of C numbers for each "
        "place of it, (B, H W, C).",
        "Queries come from the places, keys *and* values from the words. "
        "`F.scaled_dot_product_attention(q, k, v, attn_mask=visible[:, None])` is your attention.",
        "The way back has the same two steps in reverse: `.transpose(1, 2)`, then "
        "`.unflatten(2, x.shape[2:])`. And what the words say is *added* to the picture.",
    ),
    model_answer=_cross,
    cases=_cross_cases,
    use=_cross_parts,
    reference=_cross_reference,
    parts=(
        "result with W_v = 0, which must be x",
        "result of sentences without padding",
        "result",
    ),
    mistakes=(
        Mistake(
            "not added",
            _cross_with(join=lambda x, taken: taken),
            "What the words gave is right, but it takes the place of the picture. Add it to x.",
        ),
        Mistake(
            "subtracted",
            _cross_with(join=lambda x, taken: x - taken),
            "You subtract what the words gave. Add it.",
        ),
        Mistake(
            "reshaped in",
            _cross_with(rows=lambda x: x.reshape(len(x), -1, x.shape[1])),
            "`reshape` to (B, H W, C) cuts the numbers in another order: a row then holds pieces "
            "of one channel. Flatten the places, then swap the axes.",
        ),
        Mistake(
            "reshaped out",
            _cross_with(back=lambda taken, x: taken.reshape(x.shape)),
            "On the way back, `reshape` mixes places and channels. First swap the axes, so that "
            "channels come before places, then unflatten.",
        ),
        Mistake(
            "reshaped in and out",
            _cross_with(
                rows=lambda x: x.reshape(len(x), -1, x.shape[1]),
                back=lambda taken, x: taken.reshape(x.shape),
            ),
            "`reshape` mixes places and channels, on the way in and on the way out. Flatten and "
            "transpose on the way in; transpose and unflatten on the way out.",
        ),
        Mistake(
            "rows and columns swapped",
            _cross_with(rows=lambda x: x.transpose(2, 3).flatten(2).transpose(1, 2)),
            "The places went in column by column and came out row by row.",
        ),
        Mistake(
            "padding not hidden",
            _cross_with(attend=lambda q, k, v, visible: F.scaled_dot_product_attention(q, k, v)),
            "Some attention goes to the padding. Pass on which words are visible.",
        ),
        Mistake(
            "mask inverted",
            _cross_with(
                attend=lambda q, k, v, visible: _taken(q, k, v, ~visible | visible.all(1)[:, None])
            ),
            "Your places look at the padding instead of the words. In `attn_mask`, too, True means "
            "that it may be looked at.",
        ),
        Mistake(
            "no root of d",
            _cross_with(
                attend=lambda q, k, v, visible: F.scaled_dot_product_attention(
                    q, k, v, attn_mask=visible[:, None], scale=1.0
                )
            ),
            "The scores are not divided by the root of d, the length of a query.",
        ),
        Mistake(
            "the root of the channels",
            _cross_with(
                attend=lambda q, k, v, visible: F.scaled_dot_product_attention(
                    q, k, v, attn_mask=visible[:, None], scale=v.shape[2] ** -0.5
                )
            ),
            "You divide by the root of the number of channels. d is the length of a query, the "
            "columns of W_q.",
        ),
        Mistake(
            "the picture asks itself",
            _cross_on_itself,
            "Keys and values come from the picture. That is self-attention. Here the words answer.",
        ),
        Mistake(
            "values by W_k",
            _cross_with(value_matrix=lambda W_k, W_v: _if_it_fits(W_k, W_v)),
            "The values are made with W_k. They have a matrix of their own, W_v.",
        ),
        Mistake(
            "keys by W_v",
            _cross_with(key_matrix=lambda W_k, W_v: _if_it_fits(W_v, W_k)),
            "The keys are made with W_v. Their matrix is W_k.",
        ),
        Mistake(
            "W_k and W_v swapped",
            _cross_with(
                key_matrix=lambda W_k, W_v: _if_it_fits(W_v, W_k),
                value_matrix=lambda W_k, W_v: _if_it_fits(W_k, W_v),
            ),
            "W_k and W_v have changed places: the keys are what is compared, the values what is "
            "taken.",
        ),
        Mistake(
            "the same for all places",
            _cross_with(back=lambda taken, x: taken.mean(1)[:, :, None, None].expand_as(x)),
            "Every place gets the same. Each has asked for itself, so each gets an answer of its "
            "own.",
        ),
        Mistake(
            "mask inverted, nothing left",
            _cross_with(
                attend=lambda q, k, v, visible: _cross_nan(q, k, v, visible).nan_to_num(0.0)
            ),
            "You hide the words and show the padding. In `attn_mask` True means that it may be "
            "looked at, as in `visible`: hand it over as it is.",
        ),
        Mistake(
            "mask inverted, NaN",
            _cross_with(attend=_cross_nan),
            "You hide the words and show the padding; where a sentence has none, nothing is left, "
            "and that is NaN. `visible` is True where there is a word.",
        ),
        Mistake(
            "a mask of numbers",
            _cross_with(
                attend=lambda q, k, v, visible: F.scaled_dot_product_attention(
                    q, k, v, attn_mask=visible[:, None].to(q)
                )
            ),
            "A mask of numbers is *added* to the scores, and 1 more or less hides nothing. Leave "
            "it True and False.",
        ),
        Mistake(
            "padding set to 0",
            _cross_with(
                key_matrix=lambda W_k, W_v: W_k,
                attend=lambda q, k, v, visible: F.scaled_dot_product_attention(
                    q, k * visible[..., None], v * visible[..., None]
                ),
            ),
            "You set the padding's vectors to 0. Their score is then 0, and exp(0) is 1: they "
            "still take a share. Pass the mask on.",
        ),
        Mistake(
            "divided twice",
            _cross_with(
                attend=lambda q, k, v, visible: _taken(q / q.shape[-1] ** 0.5, k, v, visible)
            ),
            "The scores are divided by the root of d twice. `F.scaled_dot_product_attention` does "
            "it by itself: hence its name.",
        ),
        Mistake(
            "softmax over the places",
            _cross_with(
                attend=lambda q, k, v, visible: (
                    (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5)
                    .masked_fill(~visible[:, None], -1e4)
                    .softmax(1)
                    @ v
                )
            ),
            "The places share out each word among themselves. It is the other way round: each "
            "place shares out its attention among the words.",
        ),
        Mistake(
            "the mean of the words",
            _cross_pooled,
            "Every place gets the mean of all words. Nobody asks: the queries are not used.",
        ),
        Mistake(
            "x alone",
            _cross_with(join=lambda x, taken: x * 1),
            "This is x alone: what the words gave is not used.",
        ),
        Mistake(
            "x twice",
            _cross_with(join=lambda x, taken: x + x),
            "You add x to itself. Add to it what the words gave.",
        ),
        Mistake(
            "added twice",
            _cross_with(join=lambda x, taken: x + 2 * taken),
            "What the words gave is added twice. Once is enough.",
        ),
        Mistake(
            "multiplied",
            _cross_with(join=lambda x, taken: x * taken),
            "You multiply x by what the words gave. Add it: where words have nothing to say, the "
            "picture stays as it is.",
        ),
        Mistake(
            "norm first",
            _cross_with(rows=lambda x: F.layer_norm(x.flatten(2).mT, x.shape[1:2])),
            "You normalize the numbers of each place before they ask. The library does that, too; "
            "here the queries are made of x as it is.",
        ),
    ),
    alternatives=(_cross_einsum, _cross_one_by_one),
    passed="Rombach et al. 2022, section 3.3: how words get into Stable Diffusion.",
)


# --- a negative prompt ---------------------------------------------------------------------------


class _Reader:
    """A model that reads: its answer for a sample depends on all that it is told about it."""

    def __init__(self, shape: tuple[int, ...], length: int, generator: torch.Generator) -> None:
        self.shape, self.length = shape, length
        self.table = torch.randn(20, length, generator=generator)

    def __call__(self, x_t: Tensor, t: Tensor, words: Tensor) -> Tensor:
        if x_t.shape[1:] != self.shape[1:]:
            wanted = ", ".join(["n", *map(str, self.shape[1:])])
            raise ValueError(f"x_t must have shape ({wanted}), got {tuple(x_t.shape)}")
        if t.shape != x_t.shape[:1]:
            raise ValueError(f"t must be {len(x_t)} steps, got shape {tuple(t.shape)}")
        if words.shape != (len(x_t), self.length):
            wanted = (len(x_t), self.length)
            raise ValueError(f"words must have shape {wanted}, got {tuple(words.shape)}")
        if words.min() < 0 or words.max() >= len(self.table):
            raise ValueError("words must be numbers of words, 0..19")
        shift = per_sample(self.table.to(x_t)[words, torch.arange(self.length)].mean(1), x_t)
        return torch.sin(x_t * (1 + 0.3 * shift)) + shift + 1e-3 * per_sample(t, x_t)

    def __repr__(self) -> str:
        return "a test model"


def _negative(model, x_t, t, words, negative, scale):
    eps = model(x_t, t, words)
    eps_negative = model(x_t, t, negative)
    return eps_negative + scale * (eps - eps_negative)


def _negative_cases(generator: torch.Generator):
    for shape, length, scale in (
        ((3, 1, 2, 2), 4, 3.0),
        ((1, 4, 2), 6, 1.5),
        ((2, 2), 2, 0.5),
        ((4, 3, 2, 2), 12, 7.5),
        ((3, 2), 3, 0.0),
        ((2, 3), 5, 1.0),
        ((2, 2, 1, 2, 2), 3, 2),
    ):
        model = _Reader(shape, length, generator)
        x_t = torch.randn(shape, generator=generator)
        t = torch.randint(1, 1001, shape[:1], generator=generator)
        words, negative = torch.randint(1, 20, (2, shape[0], length), generator=generator)
        negative[:, length // 2 + 1 :] = 0
        yield model, x_t, t, words, negative, scale


def _negative_use(answer: Callable, model, x_t, t, words, negative, scale) -> object:
    """The answer; if it is a sum of the model's two answers, but not the right one, what sum it is.

    Two numbers explain so many only if that is how they were made.
    """
    given = answer(model, x_t.clone(), t.clone(), words.clone(), negative.clone(), scale)
    if given is ...:
        return ...
    mixed = tensor_like(given, x_t).double()
    two = [model(x_t, t, told).double().flatten() for told in (words, negative)]
    factors = torch.linalg.lstsq(torch.stack(two, 1), mixed.flatten()[:, None]).solution[:, 0]
    is_sum = torch.allclose(factors[0] * two[0] + factors[1] * two[1], mixed.flatten(), atol=1e-4)
    right = torch.tensor([scale, 1 - scale], dtype=torch.float64)
    if is_sum and not torch.allclose(factors, right, atol=1e-3):
        told = [f"{round(float(factor), 2) + 0:g}" for factor in (*factors, *right)]
        raise Wrong(
            "values",
            f"With scale {scale:g} yours is {told[0]} times the prompt's answer and {told[1]} "
            f"times the negative prompt's. They should count {told[2]} and {told[3]} times.",
        )
    return given


def _negative_mixed(mix: Callable, negative_of: Callable = lambda negative: negative) -> Callable:
    """An answer that combines the two answers in another way."""

    def answer(model, x_t, t, words, negative, scale):
        eps = model(x_t, t, words)
        return mix(eps, model(x_t, t, negative_of(negative)), scale)

    return answer


def _negative_three(model, x_t, t, words, negative, scale):
    empty = model(x_t, t, torch.zeros_like(words))
    return empty + scale * (model(x_t, t, words) - model(x_t, t, negative))


def _negative_one_call(model, x_t, t, words, negative, scale):
    both = model(torch.cat([x_t, x_t]), torch.cat([t, t]), torch.cat([words, negative]))
    eps, eps_negative = both.chunk(2)
    return torch.lerp(eps_negative, eps, float(scale))


negative_prompt = Exercise(
    "lesson13.negative_prompt",
    "A negative prompt",
    difficulty=1,
    minutes=4,
    hints=(
        "Ask the model twice: `model(x_t, t, words)` and `model(x_t, t, negative)`.",
        "It is the guidance of lesson 8, with the negative prompt where no condition was: start "
        "from its answer, and go `scale` times the way to the other.",
    ),
    model_answer=_negative,
    cases=_negative_cases,
    use=_negative_use,
    reference=_negative,
    mistakes=(
        Mistake(
            "towards the negative",
            _negative_mixed(lambda eps, no, s: eps + s * (no - eps)),
            "The two have changed places: at scale 1 you draw what is *not* wanted.",
        ),
        Mistake(
            "away from both",
            _negative_mixed(lambda eps, no, s: no - s * (eps - no)),
            "Your step goes away from the prompt: look at the sign.",
        ),
        Mistake(
            "counted from the prompt",
            _negative_mixed(lambda eps, no, s: eps + s * (eps - no)),
            "Your scale counts from the prompt's answer (the w of the paper). Here scale 1 is the "
            "plain prompt, so start from the negative one's.",
        ),
        Mistake(
            "one scale too few",
            _negative_mixed(lambda eps, no, s: no + (s - 1) * (eps - no)),
            "You go scale - 1 times the way from the negative answer. It is the scale itself.",
        ),
        Mistake(
            "empty prompt, too",
            _negative_three,
            "You start from the empty prompt's answer. That is another rule, with three answers. "
            "Here the negative prompt takes the place of the empty one.",
        ),
        Mistake(
            "negative prompt not read",
            _negative_mixed(lambda eps, no, s: no + s * (eps - no), torch.zeros_like),
            "You guide away from the empty prompt. What is not wanted is not used.",
        ),
        Mistake(
            "prompt alone",
            _negative_mixed(lambda eps, no, s: eps * 1),
            "This is the prompt's answer, whatever scale and negative prompt are.",
        ),
        Mistake(
            "difference alone",
            _negative_mixed(lambda eps, no, s: s * (eps - no)),
            "This is the exaggerated difference only. It has to be added to the answer from which "
            "you start.",
        ),
        Mistake(
            "scale on the prompt",
            _negative_mixed(lambda eps, no, s: no + s * eps),
            "You scale the prompt's answer itself. What is exaggerated is the difference.",
        ),
        Mistake(
            "scaled and subtracted",
            _negative_mixed(lambda eps, no, s: eps - s * no),
            "You subtract the negative answer itself, times the scale. Both answers are noise of "
            "the same size: what counts is their difference.",
        ),
        Mistake(
            "brackets",
            _negative_mixed(lambda eps, no, s: no + s * eps - no),
            "The negative answer cancels out: look at the brackets around the difference.",
        ),
        Mistake(
            "scale not used",
            _negative_mixed(lambda eps, no, s: 2 * eps - no),
            "Your scale is 2, whatever is asked for.",
        ),
        Mistake(
            "negative alone",
            _negative_mixed(lambda eps, no, s: no * 1),
            "This is the negative prompt's answer alone. The way from there to the prompt's is "
            "missing.",
        ),
        Mistake(
            "difference, no scale",
            _negative_mixed(lambda eps, no, s: eps - no),
            "This is only the difference of the two answers. Multiply it by the scale, and add the "
            "answer from which you start.",
        ),
        Mistake(
            "scale on the prompt, minus the negative",
            _negative_mixed(lambda eps, no, s: s * eps - no),
            "You scale the prompt's answer and subtract the whole negative one. At scale 1 that is "
            "not the plain prompt.",
        ),
        Mistake(
            "scale on the negative",
            _negative_mixed(lambda eps, no, s: s * no + (eps - no)),
            "The scale is on the negative answer. It belongs to the difference.",
        ),
        Mistake(
            "both added",
            _negative_mixed(lambda eps, no, s: no + s * (eps + no)),
            "You add the two answers in the brackets. The way from one to the other is their "
            "difference.",
        ),
        Mistake(
            "scale added",
            _negative_mixed(lambda eps, no, s: no + s + (eps - no)),
            "The scale is added to every number. It multiplies the difference.",
        ),
        Mistake(
            "squared scale",
            _negative_mixed(lambda eps, no, s: no + s * s * (eps - no)),
            "The scale comes in twice. Multiply the difference by it once.",
        ),
        Mistake(
            "scale at least 1",
            _negative_mixed(lambda eps, no, s: no + max(s, 1) * (eps - no)),
            "A scale below 1 counts as 1. It may be 0.5 or 0 as well: less of the prompt.",
        ),
        Mistake(
            "whole scale",
            _negative_mixed(lambda eps, no, s: no + int(s) * (eps - no)),
            "You round the scale down to a whole number.",
        ),
        Mistake(
            "clamped",
            _negative_mixed(lambda eps, no, s: (no + s * (eps - no)).clamp(-1, 1)),
            "You clamp the result to [-1, 1]. It is noise, which may be larger than that.",
        ),
        Mistake(
            "subtracted from x_t",
            lambda model, x_t, t, words, negative, scale: (
                x_t - _negative(model, x_t, t, words, negative, scale)
            ),
            "You subtract the noise from x_t already. The sampler does that, step by step: return "
            "the noise.",
        ),
        Mistake(
            "the mean",
            _negative_mixed(lambda eps, no, s: (eps + no) / 2),
            "This is the mean of both answers, which draws a bit of each.",
        ),
    ),
    alternatives=(
        _negative_one_call,
        _negative_mixed(lambda eps, no, s: s * eps + (1 - s) * no),
        _negative_mixed(lambda eps, no, s: eps.numpy() + (s - 1) * (eps - no).numpy()),
    ),
)


# --- LoRA ----------------------------------------------------------------------------------------


def _lora(x, W, A, B, alpha):
    return x @ W.T + alpha / len(A) * (x @ A.T @ B.T)


def _lora_cases(generator: torch.Generator):
    for shape, inputs, outputs, rank, alpha in (
        ((3,), 5, 4, 2, 4.0),
        ((1,), 3, 6, 1, 2.0),
        ((4,), 4, 4, 4, 1.0),  # everything is square
        ((2, 3), 6, 2, 3, 8.0),
        ((2,), 2, 5, 4, 4),  # alpha = rank
        ((2, 2, 2), 3, 3, 2, 16.0),
        ((5,), 8, 3, 2, 0.5),
    ):
        x = torch.randn(*shape, inputs, generator=generator)
        W = torch.randn(outputs, inputs, generator=generator)
        A = torch.randn(rank, inputs, generator=generator)
        B = torch.randn(outputs, rank, generator=generator)
        yield x, W, A, B, alpha


def _lora_parts(answer: Callable, x, W, A, B, alpha) -> object:
    """What is answered as it begins, with B = 0, what is added to that, and the whole."""
    like = x @ W.T
    begun = answer(*(z.clone() for z in (x, W, A)), torch.zeros_like(B), alpha)
    if begun is ...:
        return ...
    begun = tensor_like(begun, like)
    change = answer(x.clone(), torch.zeros_like(W), A.clone(), B.clone(), alpha)
    change = tensor_like(change, like)
    frozen = W.clone()
    whole = tensor_like(answer(x.clone(), frozen, A.clone(), B.clone(), alpha), like)
    right = _lora(x, W, A, B, alpha)
    if not torch.equal(frozen, W) and torch.allclose(whole.to(x), right, rtol=1e-4, atol=1e-4):
        raise Wrong("properties", _THAWED, "overwrites W")
    return begun, change, whole


_THAWED = (
    "Your layer overwrites W, which is frozen, so the next call adds the change once more. "
    "`W + ...` makes a new matrix; `W += ...` and `W.add_` change the caller's."
)


def _lora_into_w(x, W, A, B, alpha):
    return x @ W.add_(alpha / len(A) * (B @ A)).T


def _lora_reference(x, W, A, B, alpha) -> tuple[Tensor, Tensor, Tensor]:
    plain = F.linear(x.double(), W.double())
    change = F.linear(x.double(), (alpha / A.shape[0]) * (B.double() @ A.double()))
    return plain, change, plain + change


def _lora_scaled(factor: Callable) -> Callable:
    """An answer whose change is multiplied by something else."""
    return lambda x, W, A, B, alpha: x @ W.T + factor(W, A, B, alpha) * (x @ A.T @ B.T)


def _lora_or(condition: Callable, instead: Callable) -> Callable:
    """Another answer where the shapes allow it, else the right one."""

    def answer(x, W, A, B, alpha):
        right = _lora(x, W, A, B, alpha)
        return instead(x, W, A, B, alpha) if condition(W, A, B) else right

    return answer


def _all_square(W: Tensor, A: Tensor, B: Tensor) -> bool:
    return W.shape == A.shape == B.shape


lora = Exercise(
    "lesson13.lora",
    "A layer with LoRA",
    difficulty=2,
    minutes=5,
    hints=(
        "A linear layer computes `x @ W.T`. The change is a matrix, too: B @ A. What does a layer "
        "with that matrix compute?",
        "`x @ A.T` is (..., r), and `@ B.T` brings it to (..., out). r is the number of rows of A: "
        "`len(A)`.",
    ),
    model_answer=_lora,
    cases=_lora_cases,
    use=_lora_parts,
    together=True,  # W may be overwritten
    reference=_lora_reference,
    parts=("answer while B is zero", "change alone (W is zero)", "answer"),
    mistakes=(
        Mistake(
            "no factor",
            _lora_scaled(lambda W, A, B, alpha: 1.0),
            "The change is not multiplied by alpha / r.",
        ),
        Mistake(
            "r forgotten",
            _lora_scaled(lambda W, A, B, alpha: alpha),
            "The change is multiplied by alpha. The factor is alpha / r, so that another rank "
            "needs no other learning rate.",
        ),
        Mistake(
            "alpha forgotten",
            _lora_scaled(lambda W, A, B, alpha: 1 / len(A)),
            "The change is divided by r; it is also multiplied by alpha.",
        ),
        Mistake(
            "upside down",
            _lora_scaled(lambda W, A, B, alpha: len(A) / alpha),
            "Your factor is r / alpha. It is alpha / r.",
        ),
        Mistake(
            "root of r",
            _lora_scaled(lambda W, A, B, alpha: alpha / len(A) ** 0.5),
            "You divide by the root of r. That exists (rsLoRA, Kalajdzievski 2023), but here, as "
            "in the paper, it is alpha / r.",
        ),
        Mistake(
            "divided by the outputs",
            _lora_scaled(lambda W, A, B, alpha: alpha / len(B)),
            "You divide by the number of outputs. r is the inner size: rows of A, columns of B.",
        ),
        Mistake(
            "divided by the inputs",
            _lora_scaled(lambda W, A, B, alpha: alpha / A.shape[1]),
            "You divide by the number of inputs. r is the inner size: rows of A, columns of B.",
        ),
        Mistake(
            "multiplied by r",
            _lora_scaled(lambda W, A, B, alpha: alpha * len(A)),
            "Your factor is alpha times r. It is alpha / r.",
        ),
        Mistake(
            "one plus the factor",
            _lora_scaled(lambda W, A, B, alpha: 1 + alpha / len(A)),
            "The change is multiplied by 1 + alpha / r. The 1 belongs to the frozen layer, which "
            "is there already.",
        ),
        Mistake(
            "r squared",
            _lora_scaled(lambda W, A, B, alpha: alpha / len(A) ** 2),
            "You divide by r twice. Your factor is alpha / r^2, and it is alpha / r.",
        ),
        Mistake(
            "whole division",
            _lora_scaled(lambda W, A, B, alpha: alpha // len(A)),
            "`//` rounds down, and alpha // r is 0 where alpha is smaller than r. Use `/`.",
        ),
        Mistake(
            "the number of samples",
            lambda x, W, A, B, alpha: x @ W.T + alpha / len(x) * (x @ A.T @ B.T),
            "You divide by the number of samples, `len(x)`. r is the number of rows of A.",
        ),
        Mistake(
            "rank 4",
            _lora_scaled(lambda W, A, B, alpha: alpha / 4),
            "You divide by 4, whatever the rank is. Take r from the shape of A.",
        ),
        Mistake("overwrites W", _lora_into_w, _THAWED),
        Mistake(
            "something between",
            lambda x, W, A, B, alpha: x @ W.T + alpha / len(A) * ((x @ A.T).relu() @ B.T),
            "There is a ReLU between A and B. Then no single matrix could take their place; "
            "without it, B A is one.",
        ),
        Mistake(
            "change alone",
            lambda x, W, A, B, alpha: alpha / len(A) * (x @ A.T @ B.T),
            "This is the change alone. The frozen layer still answers: add x @ W.T.",
        ),
        Mistake(
            "frozen layer alone",
            lambda x, W, A, B, alpha: x @ W.T,
            "This is the frozen layer alone. A and B are not used.",
        ),
        Mistake(
            "subtracted",
            lambda x, W, A, B, alpha: x @ W.T - alpha / len(A) * (x @ A.T @ B.T),
            "The change is subtracted. Add it.",
        ),
        Mistake(
            "everything scaled",
            lambda x, W, A, B, alpha: alpha / len(A) * (x @ W.T + x @ A.T @ B.T),
            "You scale the frozen layer, too. The factor belongs to the change alone.",
        ),
        Mistake(
            "A B in place of B A",
            _lora_or(
                _all_square,
                lambda x, W, A, B, alpha: x @ W.T + alpha / len(A) * (x @ B.T @ A.T),
            ),
            "Where all matrices are square you can see it: A and B have changed places. x meets A "
            "first.",
        ),
        Mistake(
            "not transposed",
            _lora_or(
                _all_square,
                lambda x, W, A, B, alpha: x @ W.T + alpha / len(A) * (x @ A @ B),
            ),
            "Where all matrices are square you can see it: A and B lack their transpose. Like W "
            "they have a row for each output.",
        ),
        Mistake(
            "W not transposed",
            _lora_or(
                lambda W, A, B: W.shape[0] == W.shape[1],
                lambda x, W, A, B, alpha: x @ W + alpha / len(A) * (x @ A.T @ B.T),
            ),
            "Where W is square you can see it: a linear layer computes x @ W.T.",
        ),
    ),
    alternatives=(
        lambda x, W, A, B, alpha: F.linear(x, W + alpha / A.shape[0] * (B @ A)),
        lambda x, W, A, B, alpha: F.linear(x, W) + F.linear(F.linear(x, A), B) * alpha / A.shape[0],
        lambda x, W, A, B, alpha: torch.einsum(
            "...i,oi->...o", x, W + torch.einsum("or,ri->oi", B, A) * (alpha / B.shape[1])
        ),
    ),
    passed="As long as B is zero, the layer answers as it did before.",
)


def _merge(W, A, B, alpha):
    return W + alpha / len(A) * (B @ A)


def _merge_cases(generator: torch.Generator):
    for _, W, A, B, alpha in _lora_cases(generator):
        yield W, A, B, alpha


def _merge_parts(answer: Callable, W, A, B, alpha) -> object:
    """The matrix while B is zero, the change, and both."""
    begun = answer(W.clone(), A.clone(), torch.zeros_like(B), alpha)
    if begun is ...:
        return ...
    change = answer(torch.zeros_like(W), A.clone(), B.clone(), alpha)
    whole = answer(W.clone(), A.clone(), B.clone(), alpha)
    return tensor_like(begun, W), tensor_like(change, W), tensor_like(whole, W)


def _merge_reference(W, A, B, alpha) -> tuple[Tensor, Tensor, Tensor]:
    change = alpha / A.shape[0] * torch.einsum("or,ri->oi", B.double(), A.double())
    return W.double(), change, W + change


def _merge_or(instead: Callable) -> Callable:
    """Another answer where the shapes allow it, else the right one."""
    return lambda W, A, B, alpha: (
        instead(W, A, B, alpha) if _all_square(W, A, B) else _merge(W, A, B, alpha)
    )


def _merged(factor: Callable) -> Callable:
    """An answer whose change is multiplied by something else."""
    return lambda W, A, B, alpha: W + factor(W, A, B, alpha) * (B @ A)


merge = Exercise(
    "lesson13.merge",
    "Merge",
    difficulty=1,
    minutes=3,
    hints=(
        "The merged matrix M must answer x @ M.T with what the layer with LoRA answers, for every "
        "x. Put the factor x outside a bracket.",
        "(B A)' = A' B'. So the change is B @ A, times the same factor as before.",
    ),
    model_answer=_merge,
    cases=_merge_cases,
    use=_merge_parts,
    reference=_merge_reference,
    parts=("matrix while B is zero", "change alone (W is zero)", "matrix"),
    mistakes=(
        Mistake(
            "no factor",
            lambda W, A, B, alpha: W + B @ A,
            "The change is not multiplied by alpha / r: merged, it counts differently than before.",
        ),
        Mistake(
            "r forgotten",
            lambda W, A, B, alpha: W + alpha * (B @ A),
            "The change is multiplied by alpha. The factor is alpha / r, as in the layer.",
        ),
        Mistake(
            "alpha forgotten",
            lambda W, A, B, alpha: W + B @ A / len(A),
            "The change is divided by r; it is also multiplied by alpha.",
        ),
        Mistake(
            "upside down",
            lambda W, A, B, alpha: W + len(A) / alpha * (B @ A),
            "Your factor is r / alpha. It is alpha / r.",
        ),
        Mistake(
            "root of r",
            _merged(lambda W, A, B, alpha: alpha / len(A) ** 0.5),
            "You divide by the root of r. The layer has alpha / r, so this is another matrix.",
        ),
        Mistake(
            "divided by the outputs",
            _merged(lambda W, A, B, alpha: alpha / len(B)),
            "You divide by the number of outputs, the rows of B. r is the inner size: rows of A, "
            "columns of B.",
        ),
        Mistake(
            "divided by the inputs",
            _merged(lambda W, A, B, alpha: alpha / A.shape[1]),
            "You divide by the number of inputs, the columns of A. r is the inner size: rows of A, "
            "columns of B.",
        ),
        Mistake(
            "multiplied by r",
            _merged(lambda W, A, B, alpha: alpha * len(A)),
            "Your factor is alpha times r. It is alpha / r.",
        ),
        Mistake(
            "whole division",
            _merged(lambda W, A, B, alpha: alpha // len(A)),
            "`//` rounds down, and alpha // r is 0 where alpha is smaller than r. Use `/`.",
        ),
        Mistake(
            "one plus the factor",
            _merged(lambda W, A, B, alpha: 1 + alpha / len(A)),
            "The change is multiplied by 1 + alpha / r. The 1 belongs to W, which is there anyway.",
        ),
        Mistake(
            "factor on both",
            _merged(lambda W, A, B, alpha: (alpha / len(A)) ** 2),
            "The factor comes in twice, perhaps with A and with B. The product B A gets it once.",
        ),
        Mistake(
            "blended",
            lambda W, A, B, alpha: (1 - alpha / len(A)) * W + alpha / len(A) * (B @ A),
            "You blend W and the change, so that W loses. The change is added to the whole W.",
        ),
        Mistake(
            "multiplied with W",
            lambda W, A, B, alpha: W * (alpha / len(A) * (B @ A)),
            "You multiply W by the change. Add it.",
        ),
        Mistake(
            "merged twice",
            lambda W, A, B, alpha: W + 2 * alpha / len(A) * (B @ A),
            "The change is there twice. That is what happens when a merged layer goes on adding "
            "its A and B.",
        ),
        Mistake(
            "subtracted",
            lambda W, A, B, alpha: W - alpha / len(A) * (B @ A),
            "The change is subtracted. That is how one takes a LoRA *out* again.",
        ),
        Mistake(
            "change alone",
            lambda W, A, B, alpha: alpha / len(A) * (B @ A),
            "This is the change alone. W is what it changes.",
        ),
        Mistake(
            "W alone",
            lambda W, A, B, alpha: W * 1,
            "This is the frozen matrix: nothing was merged into it.",
        ),
        Mistake(
            "everything scaled",
            lambda W, A, B, alpha: alpha / len(A) * (W + B @ A),
            "You scale W, too. The factor belongs to the change alone.",
        ),
        Mistake(
            "A B in place of B A",
            _merge_or(lambda W, A, B, alpha: W + alpha / len(A) * (A @ B)),
            "Where all matrices are square you can see it: A @ B is another matrix than B @ A.",
        ),
        Mistake(
            "transposed",
            _merge_or(lambda W, A, B, alpha: W + alpha / len(A) * (B @ A).T),
            "Where all matrices are square you can see it: the change is transposed. W has a row "
            "for each output, and so has B @ A.",
        ),
        Mistake(
            "number by number",
            _merge_or(lambda W, A, B, alpha: W + alpha / len(A) * (B * A)),
            "Where all matrices are square you can see it: `*` multiplies number by number. A "
            "product of matrices is `@`.",
        ),
    ),
    alternatives=(
        lambda W, A, B, alpha: torch.einsum("or,ri->oi", B, A) * (alpha / A.shape[0]) + W,
        lambda W, A, B, alpha: torch.addmm(W, B, A, alpha=alpha / A.shape[0]),
        lambda W, A, B, alpha: W.numpy() + B.numpy() @ A.numpy() * alpha / B.shape[1],
    ),
    passed="Merged, the network has its old size and speed. Keep A and B to take it out again.",
)


# --- a small CLIP --------------------------------------------------------------------------------


def _contrastive(pictures, sentences, temperature):
    pictures = F.normalize(pictures, dim=1)
    sentences = F.normalize(sentences, dim=1)
    similarity = pictures @ sentences.T / temperature
    own = torch.arange(len(pictures))
    return (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2


def _contrastive_cases(generator: torch.Generator):
    for batch, width, temperature in (
        (4, 3, 0.5),
        (2, 5, 0.1),
        (3, 3, 1.0),
        (1, 4, 0.3),
        (6, 2, 0.07),
        (5, 8, 2.0),
        (4, 4, 0.25),
        (3, 1, 0.5),  # vectors that point along an axis
        (3, 6, 0.008),
    ):
        pictures, sentences = 3 * torch.randn(2, batch, width, generator=generator)
        yield pictures, sentences + 0.5 * pictures, temperature


def _contrastive_parts(answer: Callable, pictures, sentences, temperature) -> object:
    """The loss of vectors along the axes; of length 1, at temperature 1 and at another; and as
    they are given. Where that is right, its gradients must be, too."""
    units = [F.normalize(vectors, dim=1) for vectors in (pictures, sentences)]
    one = torch.zeros(())
    plain = answer(*_along_axes(len(pictures)), 1.0)
    if plain is ...:
        return ...
    plain = tensor_like(plain, one)
    easy = tensor_like(answer(*(unit.clone() for unit in units), 1.0), one)
    sharp = tensor_like(answer(*(unit.clone() for unit in units), temperature), one)
    loss = tensor_like(answer(pictures.clone(), sentences.clone(), temperature), one)
    right = _contrastive(pictures, sentences, temperature)
    if torch.allclose(loss.to(right), right, rtol=1e-4, atol=1e-5):
        _must_teach(answer, pictures, sentences, temperature)
    return plain, easy, sharp, loss


def _along_axes(count: int) -> tuple[Tensor, Tensor]:
    """Vectors along the axes: two pairs fit, each later sentence fits the picture before it."""
    pictures, own = torch.eye(count), torch.arange(count)
    return pictures, pictures[own - (own >= 2).long()].clone()


def _must_teach(answer: Callable, pictures: Tensor, sentences: Tensor, temperature: float) -> None:
    """Raises unless the loss, called as a net's training calls it, has the right gradients."""
    slopes = []
    losses: list[Callable] = [answer, _contrastive]
    for loss in losses:
        given = [vectors.clone().requires_grad_() for vectors in (pictures, sentences)]
        value = loss(*(vectors.clone() for vectors in given), temperature)
        if not isinstance(value, Tensor) or not value.requires_grad:
            raise Wrong("properties", _NO_GRADIENT, "no gradient")
        try:
            value.backward()
        except RuntimeError as error:
            if "inplace" not in str(error):
                raise
            raise Wrong("properties", _IN_PLACE, "in place") from error
        slopes.append([torch.zeros(()) if v.grad is None else v.grad for v in given])
    for mine, right in zip(*slopes, strict=True):
        if (mine - right).norm() > 1e-2 * right.norm() + 1e-4:
            raise Wrong("properties", _NO_GRADIENT, "no gradient")


_NO_GRADIENT = (
    "The number is right, but no gradient comes back to pictures and sentences, so that no net "
    "could learn from it. Use torch's functions alone, with no `detach`, `item`, `.data` or "
    "`no_grad`."
)
_IN_PLACE = (
    "The number is right, but you overwrite vectors that the gradient still needs, so that "
    "`loss.backward()` fails. `x = x / length` makes new ones; `x /= length` overwrites them."
)


def _contrastive_in_place(pictures, sentences, temperature):
    pictures.div_(pictures.norm(dim=1, keepdim=True))
    return _contrastive(pictures, sentences, temperature)


def _contrastive_reference(pictures, sentences, temperature) -> tuple[Tensor, ...]:
    loss = _contrastive_loop
    plain = loss(*_along_axes(len(pictures)), 1.0)
    easy, sharp = loss(pictures, sentences, 1.0), loss(pictures, sentences, temperature)
    return plain, easy, sharp, sharp  # the loop divides by the lengths itself


def _contrastive_loop(pictures, sentences, temperature) -> Tensor:
    """The definition, pair by pair."""
    p, s, count = pictures.double(), sentences.double(), len(pictures)

    def alike(i: int, j: int) -> float:
        return float(p[i] @ s[j] / (p[i].norm() * s[j].norm()) / temperature)

    total = 0.0
    for i in range(count):
        row = math.log(sum(math.exp(alike(i, j)) for j in range(count)))
        column = math.log(sum(math.exp(alike(j, i)) for j in range(count)))
        total += row + column - 2 * alike(i, i)
    return torch.tensor(total / (2 * count))


def _contrastive_with(
    *,
    unit: Callable = lambda x: F.normalize(x, dim=1),
    alike: Callable = lambda p, s, temperature: p @ s.T / temperature,
    loss: Callable = lambda rows, columns: (rows + columns) / 2,
    reduction: str = "mean",
    unit_sentences: Callable | None = None,
    answers: Callable = lambda own: own,
    twice: Callable = lambda table: table,
    by_width: bool = False,
) -> Callable:
    """An answer with something changed."""

    def contrastive(pictures, sentences, temperature):
        similarity = alike(unit(pictures), (unit_sentences or unit)(sentences), temperature)
        own = answers(torch.arange(pictures.shape[1] if by_width else len(pictures)))
        rows = F.cross_entropy(twice(similarity), own, reduction=reduction)
        columns = F.cross_entropy(twice(similarity.T), own, reduction=reduction)
        return loss(rows, columns)

    return contrastive


def _cosine_table(pictures: Tensor, sentences: Tensor, temperature: float) -> Tensor:
    return F.normalize(pictures, dim=1) @ F.normalize(sentences, dim=1).T / temperature


def _contrastive_left_out(pictures, sentences, temperature):
    table = _cosine_table(pictures, sentences, temperature)
    others = table.masked_fill(torch.eye(len(table), dtype=torch.bool), -1e4)
    halves = (
        (others.logsumexp(1) - table.diagonal()).mean(),
        (others.logsumexp(0) - table.diagonal()).mean(),
    )
    return sum(halves) / 2


def _contrastive_one_softmax(pictures, sentences, temperature):
    table = _cosine_table(pictures, sentences, temperature)
    return (table.flatten().logsumexp(0) - table.diagonal()).mean()


def _contrastive_sigmoid(pictures, sentences, temperature):
    similarity = _cosine_table(pictures, sentences, temperature)
    signs = 2 * torch.eye(len(pictures)) - 1
    return -F.logsigmoid(signs * similarity).sum(1).mean()


def _contrastive_log_softmax(pictures, sentences, temperature):
    p = pictures / pictures.norm(dim=1, keepdim=True)
    s = sentences / sentences.norm(dim=1, keepdim=True)
    similarity = (p @ s.T) / temperature
    rows, columns = similarity.log_softmax(1), similarity.log_softmax(0)
    return -(rows.diagonal().mean() + columns.diagonal().mean()) / 2


def _contrastive_cosines(pictures, sentences, temperature):
    cosines = F.cosine_similarity(pictures[:, None], sentences[None], dim=2) / temperature
    both = cosines.logsumexp(1) + cosines.logsumexp(0) - 2 * cosines.diagonal()
    return both.mean() / 2


contrastive = Exercise(
    "lesson13.contrastive",
    "Which sentence belongs to which picture?",
    difficulty=2,
    minutes=7,
    hints=(
        "`F.normalize(x, dim=1)` makes vectors of length 1; then `pictures @ sentences.T` is the "
        "table of cosines, a row for each picture. Divide it by the temperature.",
        "Each row is a question with B answers, and the right one of row i is i: "
        "`F.cross_entropy(table, torch.arange(B))`.",
        "The columns are B more questions, from sentence to picture: the same with `table.T`. The "
        "loss is the mean of both.",
    ),
    model_answer=_contrastive,
    cases=_contrastive_cases,
    use=_contrastive_parts,
    together=True,  # gradients go back to the arguments
    reference=_contrastive_reference,
    parts=(
        "loss of vectors along the axes, whose cosines are 0 and 1",
        "loss of vectors of length 1 at temperature 1",
        "loss of vectors of length 1",
        "loss of vectors of any length",
    ),
    mistakes=(
        Mistake(
            "rows only",
            _contrastive_with(loss=lambda rows, columns: rows),
            "You ask for the sentence of each picture only. The other half asks for the picture of "
            "each sentence: the columns.",
        ),
        Mistake(
            "columns only",
            _contrastive_with(loss=lambda rows, columns: columns),
            "You ask for the picture of each sentence only. The other half asks for the sentence "
            "of each picture: the rows.",
        ),
        Mistake(
            "rows twice",
            _contrastive_with(loss=lambda rows, columns: 2 * rows),
            "This is the loss of the rows, twice. The second time it is for the transposed table, "
            "and the result is the mean of both.",
        ),
        Mistake(
            "sum of both",
            _contrastive_with(loss=lambda rows, columns: rows + columns),
            "This is the sum of the two halves. Take their mean.",
        ),
        Mistake(
            "sum over the batch",
            _contrastive_with(reduction="sum"),
            "You sum over the batch. Take the mean, or the loss grows with the batch.",
        ),
        Mistake(
            "no temperature",
            _contrastive_with(alike=lambda p, s, temperature: p @ s.T),
            "The cosines are not divided by the temperature: they are at most 1, too little for a "
            "clear decision.",
        ),
        Mistake(
            "times the temperature",
            _contrastive_with(alike=lambda p, s, temperature: p @ s.T * temperature),
            "You multiply by the temperature. A *low* temperature makes decisions sharp, so it "
            "divides.",
        ),
        Mistake(
            "root of the temperature",
            _contrastive_with(alike=lambda p, s, temperature: p @ s.T / temperature**0.5),
            "You divide by the root of the temperature. It is the temperature itself.",
        ),
        Mistake(
            "root of the width",
            _contrastive_with(
                alike=lambda p, s, temperature: p @ s.T / temperature / p.shape[1] ** 0.5
            ),
            "You also divide by the root of the width, as attention does. These vectors have "
            "length 1 already.",
        ),
        Mistake(
            "not normalized",
            _contrastive_with(unit=lambda x: x),
            "You multiply the vectors as they come, so long ones win. Bring each to length 1 "
            "first.",
        ),
        Mistake(
            "only pictures normalized",
            _contrastive_with(unit_sentences=lambda x: x),
            "The pictures' vectors have length 1, those of the sentences do not.",
        ),
        Mistake(
            "only sentences normalized",
            _contrastive_with(unit=lambda x: x, unit_sentences=lambda x: F.normalize(x, dim=1)),
            "The sentences' vectors have length 1, those of the pictures do not.",
        ),
        Mistake(
            "normalized over the batch",
            _contrastive_with(unit=lambda x: F.normalize(x, dim=0)),
            "You normalize each column, over the batch. What gets length 1 is the vector of each "
            "picture and of each sentence: `dim=1`.",
        ),
        Mistake(
            "squared length",
            _contrastive_with(unit=lambda x: x / x.square().sum(1, keepdim=True)),
            "You divide by the squared length. The length is its root.",
        ),
        Mistake(
            "sign",
            _contrastive_with(alike=lambda p, s, temperature: -(p @ s.T) / temperature),
            "A sign is wrong: your loss falls when pairs that belong together point apart.",
        ),
        Mistake(
            "distances",
            _contrastive_with(alike=lambda p, s, temperature: torch.cdist(p, s) / temperature),
            "You use distances, which are *small* for what belongs together. Use cosines.",
        ),
        Mistake(
            "minus distances",
            _contrastive_with(alike=lambda p, s, temperature: -torch.cdist(p, s) / temperature),
            "You use distances, with a minus. CLIP compares directions, by the cosine: the product "
            "of vectors of length 1.",
        ),
        Mistake(
            "pairs alone",
            lambda pictures, sentences, temperature: (
                -F.cosine_similarity(pictures, sentences).mean() / temperature
            ),
            "You only pull the pairs together. Nothing pushes the others apart, so all vectors may "
            "become the same.",
        ),
        Mistake(
            "sigmoids",
            _contrastive_sigmoid,
            "Each pair is judged alone, by a sigmoid. That is SigLIP (Zhai et al. 2023). In CLIP "
            "the sentences of a batch compete: a cross-entropy.",
        ),
        Mistake(
            "yes or no for each pair",
            lambda pictures, sentences, temperature: F.binary_cross_entropy_with_logits(
                _cosine_table(pictures, sentences, temperature),
                torch.eye(len(pictures)),
            ),
            "You ask for each pair alone, yes or no. Here the sentences of a batch compete for a "
            "picture: `F.cross_entropy`.",
        ),
        Mistake(
            "difference of both",
            _contrastive_with(loss=lambda rows, columns: rows - columns),
            "You subtract the columns' half from the rows'. Both are questions to answer: take "
            "their mean.",
        ),
        Mistake(
            "product of both",
            _contrastive_with(loss=lambda rows, columns: rows * columns),
            "You multiply the two halves. Take their mean.",
        ),
        Mistake(
            "the worse half",
            _contrastive_with(loss=torch.maximum),
            "You take the larger of the two halves. Take their mean.",
        ),
        Mistake(
            "a half too many",
            _contrastive_with(loss=lambda rows, columns: (rows + columns) / 4),
            "You halve twice. The mean of two numbers is their sum divided by 2.",
        ),
        Mistake(
            "opposite sign",
            _contrastive_with(loss=lambda rows, columns: -(rows + columns) / 2),
            "The sign of the whole loss is wrong. `F.cross_entropy` has its minus already.",
        ),
        Mistake(
            "softmax before",
            _contrastive_with(twice=lambda table: table.softmax(1)),
            "You hand shares to `F.cross_entropy`. It takes the scores and does the softmax "
            "itself.",
        ),
        Mistake(
            "all answers 0",
            _contrastive_with(answers=torch.zeros_like),
            "The right answer of every row is 0 with you. For picture i it is sentence i: "
            "`torch.arange`.",
        ),
        Mistake(
            "answers reversed",
            _contrastive_with(answers=lambda own: own.flip(0)),
            "Your right answers run from the last to the first. For picture i it is sentence i.",
        ),
        Mistake(
            "the neighbor",
            _contrastive_with(answers=lambda own: own.roll(1)),
            "Your right answers are shifted by one. For picture i it is sentence i, counted from "
            "0.",
        ),
        Mistake(
            "exponential of the temperature",
            _contrastive_with(alike=lambda p, s, temperature: p @ s.T * math.exp(temperature)),
            "You multiply by the exponential of the temperature. That is right for CLIP's "
            "`logit_scale`, the logarithm of 1 / temperature; here divide by the temperature.",
        ),
        Mistake(
            "divided by the exponential",
            _contrastive_with(alike=lambda p, s, temperature: p @ s.T * math.exp(-temperature)),
            "You divide by the exponential of the temperature. Divide by the temperature itself.",
        ),
        Mistake(
            "temperature squared",
            _contrastive_with(alike=lambda p, s, temperature: p @ s.T / temperature**2),
            "You divide by the temperature twice, perhaps once for each side. The table is divided "
            "once.",
        ),
        Mistake(
            "temperature after the loss",
            lambda pictures, sentences, temperature: (
                _contrastive(pictures, sentences, 1.0) / temperature
            ),
            "You divide the loss by the temperature. It divides the cosines, before the softmax.",
        ),
        Mistake(
            "a temperature of its own",
            _contrastive_with(alike=lambda p, s, temperature: p @ s.T / 0.07),
            "Your temperature is 0.07, whatever is passed.",
        ),
        Mistake(
            "one length for all",
            _contrastive_with(unit=lambda x: x / x.norm()),
            "You divide by the length of all vectors together. Each has its own: `dim=1`.",
        ),
        Mistake(
            "sum for length",
            _contrastive_with(unit=lambda x: F.normalize(x, p=1.0, dim=1)),
            "You divide by the sum of the sizes. The length is the root of the sum of squares.",
        ),
        Mistake(
            "pictures with pictures",
            lambda pictures, sentences, temperature: _contrastive(pictures, pictures, temperature),
            "You compare pictures with pictures. The table has a row for each picture and a column "
            "for each *sentence*.",
        ),
        Mistake(
            "sentences with sentences",
            lambda pictures, sentences, temperature: _contrastive(
                sentences, sentences, temperature
            ),
            "You compare sentences with sentences. The table has a row for each *picture*.",
        ),
        Mistake(
            "a table of the entries",
            _contrastive_with(alike=lambda p, s, temperature: p.T @ s / temperature, by_width=True),
            "Your table is (D, D): it compares entries of the vectors. `pictures @ sentences.T` "
            "compares vectors, (B, B).",
        ),
        Mistake(
            "the right one left out",
            _contrastive_left_out,
            "You divide by the sum over the *wrong* answers. The right one is in that sum, too, or "
            "these are no shares.",
        ),
        Mistake(
            "one softmax for the table",
            _contrastive_one_softmax,
            "You make shares of the whole table at once. Each row is a question of its own, and "
            "so is each column.",
        ),
        Mistake(
            "no logarithm",
            lambda pictures, sentences, temperature: (
                _cosine_table(pictures, sentences, temperature).softmax(1).diagonal().mean()
            ),
            "This is the probability of the right sentence. The cross-entropy is minus its "
            "logarithm.",
        ),
        Mistake(
            "how often it is right",
            lambda pictures, sentences, temperature: (
                _cosine_table(pictures, sentences, 1.0)
                .argmax(1)
                .eq(torch.arange(len(pictures)))
                .float()
                .mean()
            ),
            "This counts how often the best sentence is the right one. Counting has no gradient: "
            "take the cross-entropy.",
        ),
        Mistake(
            "squared distance",
            lambda pictures, sentences, temperature: F.mse_loss(
                F.normalize(pictures, dim=1), F.normalize(sentences, dim=1)
            ),
            "You only measure how far each pair is apart. Other sentences have to be pushed away, "
            "or all vectors may become the same.",
        ),
        Mistake(
            "one minus the cosine",
            lambda pictures, sentences, temperature: (
                1 - F.cosine_similarity(pictures, sentences)
            ).mean(),
            "This is one minus the cosine of each pair. Nothing pushes other sentences away: where "
            "is the rest of the table?",
        ),
        Mistake(
            "no gradient",
            lambda pictures, sentences, temperature: _contrastive(
                pictures, sentences, temperature
            ).item(),
            _NO_GRADIENT,
        ),
        Mistake("in place", _contrastive_in_place, _IN_PLACE),
    ),
    alternatives=(_contrastive_log_softmax, _contrastive_cosines),
    passed="Radford et al. 2021, figure 3. Its text half is what reads prompts in many systems.",
)


# --- questions -----------------------------------------------------------------------------------

same_mean = Choice(
    "lesson13.same_mean",
    "What a mean says",
    difficulty=1,
    minutes=2,
    hints=("A mean is a sum, divided. Does a sum depend on the order?",),
    right="b",
    options={
        "a": "That one has another word: small in place of large. The mean of other vectors is "
        "another mean.",
        "b": "Right. The same words in another order have the same mean: which color belongs to "
        "which shape is lost.",
        "c": "It says the same, but with other words, and those have other vectors. The mean knows "
        "nothing of what sentences mean.",
        "d": "It lacks words, so the mean is another one.",
    },
)

shares = Number(
    "lesson13.shares",
    "How many shares?",
    difficulty=1,
    minutes=2,
    hints=("One number for each pair of a place and a word, and that in each head.",),
    value=2_523_136.0,
    rtol=0.01,
    mistakes=(
        Mistake("one head", 315_392.0, "That is one head. There are eight of them."),
        Mistake(
            "places with places",
            134_217_728.0,
            "Those are the shares of self-attention, each place with each place. Here places ask "
            "words.",
        ),
        Mistake(
            "pixels",
            161_480_704.0,
            "You count pixels of the picture. The network works on the latents, 64 x 64 places.",
        ),
        Mistake(
            "places and words added",
            33_384.0,
            "You add places and words. Each place has a share for each word: multiply.",
        ),
        Mistake(
            "guidance",
            5_046_272.0,
            "That is for guidance, which asks the network twice. The question is about one time.",
        ),
        Mistake("one row", 39_424.0, "That is one row of 64 places. There are 64 rows."),
        Mistake(
            "words with words",
            47_432.0,
            "Those are the shares of words among words, as in the text encoder. Here places ask.",
        ),
        Mistake("no words", 32_768.0, "Those are the queries of 8 heads. Each has 77 shares."),
        Mistake("words and heads", 616.0, "That is for a single place. There are 64 x 64 of them."),
        Mistake(
            "four channels",
            10_092_544.0,
            "You count the latents' four channels as well. A place asks once, with all its "
            "numbers.",
        ),
        Mistake("all layers", 40_370_176.0, "You count 16 layers. The question is about one."),
    ),
    why="64 x 64 places, 77 words, 8 heads.",
)

lora_size = Number(
    "lesson13.lora_size",
    "What LoRA costs",
    difficulty=1,
    minutes=1,
    hints=("A has r rows of `in` numbers, B has `out` rows of r.",),
    value=10_240.0,
    rtol=1e-6,
    mistakes=(
        Mistake("A alone", 3_072.0, "That is A alone. B has numbers, too."),
        Mistake("B alone", 7_168.0, "That is B alone. A has numbers, too."),
        Mistake(
            "the whole matrix",
            344_064.0,
            "That is W, which B A has the shape of. What is trained are A and B.",
        ),
        Mistake(
            "product of the sizes",
            2_752_512.0,
            "You multiply W's numbers by r. Neither A nor B has in x out numbers: A has r x in.",
        ),
        Mistake("divided by r", 43_008.0, "You divide W's numbers by r. Count those of A and B."),
        Mistake("counted twice", 20_480.0, "That is twice as many as A and B have."),
        Mistake("W as well", 354_304.0, "You count W, too. It is frozen, and not trained."),
        Mistake("saved", 333_824.0, "That is how many fewer it trains than W has."),
        Mistake(
            "r x r",
            10_304.0,
            "You count an r x r matrix as well. Between A and B there is nothing.",
        ),
        Mistake("as a share", 0.02976, "That is the share of W. How many numbers is it?"),
        Mistake(
            "product of A and B",
            22_020_096.0,
            "You multiply the numbers of A by those of B. Add them.",
        ),
        Mistake("rank 4", 5_120.0, "That is for rank 4. Here r = 8."),
        Mistake("rank 1", 1_280.0, "That is for rank 1. Here r = 8."),
        Mistake("in percent", 2.976, "That is the share of W, in percent. How many numbers is it?"),
    ),
    why="8 x (in + out) = 8 x 1,280, against 344,064 in W: 3 %.",
)

guessing = Number(
    "lesson13.guessing",
    "A net that guesses",
    difficulty=1,
    minutes=2,
    hints=(
        "It gives each of the 64 sentences the probability 1/64. The cross-entropy is minus the "
        "logarithm of the probability of the right one.",
    ),
    value=math.log(64),
    rtol=0.01,
    mistakes=(
        Mistake("in bits", 6.0, "That is in bits. `F.cross_entropy` takes the natural logarithm."),
        Mistake(
            "sum of both halves",
            2 * math.log(64),
            "That is the sum of rows and columns. The loss is their mean.",
        ),
        Mistake("a probability", 1 / 64, "That is how often it is right, not its loss."),
        Mistake("zero", 0.0, "0 is the loss of a net that is right and sure of it."),
        Mistake("the number of sentences", 64.0, "That is the number of sentences, not a loss."),
        Mistake("wrong answers", 63 / 64, "That is how often it is wrong, not its loss."),
        Mistake(
            "half of it",
            math.log(64) / 2,
            "That is half of it. Both halves of the loss are this large, and so is their mean.",
        ),
        Mistake("two sentences", math.log(2), "That is the loss of a guess between 2 sentences."),
        Mistake(
            "divided by 64",
            math.log(64) / 64,
            "You divide by the number of sentences. The loss of one question is minus the "
            "logarithm of 1/64.",
        ),
        Mistake("decimal", math.log10(64), "That is the decimal logarithm. It is the natural one."),
    ),
    why="ln 64.",
)
