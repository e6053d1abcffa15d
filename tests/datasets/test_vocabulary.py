"""Words to numbers and back, and the errors that name a wrong word."""

from typing import Any

import pytest
import torch

from tutorial_lib.datasets import Vocabulary

ODD: Any = 3
KNOWN = Vocabulary(("", "a", "red", "green", "disc", "above"), length=5)


def test_sentences_become_rows_and_come_back():
    words = KNOWN.encode(["a red disc", "", "A  GREEN disc\tabove "])
    assert words.tolist() == [[1, 2, 4, 0, 0], [0, 0, 0, 0, 0], [1, 3, 4, 5, 0]]
    assert words.dtype == torch.int64
    assert KNOWN.decode(words) == ["a red disc", "", "a green disc above"]
    assert KNOWN.encode("red").tolist() == [[2, 0, 0, 0, 0]]
    assert KNOWN.encode([]).shape == (0, 5)
    assert len(KNOWN) == 6
    assert [KNOWN.number(word) for word in ("a", "above")] == [1, 5]


def test_vocabularies_of_the_same_words_are_equal():
    assert Vocabulary(KNOWN.words, 5) == KNOWN
    assert Vocabulary(KNOWN.words, 6) != KNOWN
    assert hash(Vocabulary(KNOWN.words, 5)) == hash(KNOWN)


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: KNOWN.encode("a rde disc"), ValueError, "got 'rde'; did you mean 'red'"),
        (lambda: KNOWN.encode("a qqq"), ValueError, "got 'qqq'; known are a, red, green, disc"),
        (lambda: KNOWN.encode("x" * 10**6), ValueError, r"^sentences must have words .{0,140}$"),
        (lambda: KNOWN.encode("a a a a a a"), ValueError, "at most 5 words, got 6"),
        (lambda: KNOWN.encode("a a a a a a", name="prompt"), ValueError, "^prompt must have at"),
        (lambda: KNOWN.encode(ODD), TypeError, "sentences must be a str or a sequence of str, got"),
        (lambda: KNOWN.encode(["a", ODD]), TypeError, "sentences must be a str or a sequence"),
        (lambda: KNOWN.number("rad"), ValueError, "word must be .* 'rad'; did you mean 'red'"),
        (lambda: KNOWN.number(""), ValueError, "word must be in the vocabulary, got ''"),
        (lambda: KNOWN.decode(torch.zeros(2, 5)), TypeError, "must be an int64 tensor, got torch"),
        (lambda: KNOWN.decode(ODD), TypeError, "words must be an int64 tensor"),
        (lambda: KNOWN.decode(torch.tensor([1])), ValueError, r"shape \(B, L\), got \(1,\)"),
        (lambda: KNOWN.decode(torch.tensor([[6]])), ValueError, "words must be in 0..5, .* got 6"),
        (lambda: KNOWN.decode(torch.tensor([[-1]])), ValueError, "in 0..5, .* got -1"),
        (lambda: Vocabulary(("a", "b"), 3), ValueError, "must begin with the empty word"),
        (lambda: Vocabulary(("",), 3), ValueError, "must begin with the empty word and hold oth"),
        (lambda: Vocabulary(("", "a b"), 3), ValueError, "without spaces, got 'a b'"),
        (lambda: Vocabulary(("", "Red"), 3), ValueError, "in lower case .* got 'Red'"),
        (lambda: Vocabulary(("", "a", "a"), 3), ValueError, "differ from each other, got 'a' twi"),
        (lambda: Vocabulary(ODD, 3), TypeError, "words must be a sequence of str"),
        (lambda: Vocabulary(("", "a"), 0), ValueError, "length must be at least 1, got 0"),
    ],
)
def test_what_is_wrong_is_named(call, error: type, message: str):
    with pytest.raises(error, match=message):
        call()
