"""Sentences as tensors: each word a number, each sentence a row of the same length."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int64
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._validate import InvalidTypeError, InvalidValueError

PADDING = ""
"""The empty word, number 0: it fills a row behind the last word of its sentence."""

Words = Int64[Tensor, "batch length"]
"""Sentences: the number of each word, then 0 up to the end of the row."""


@dataclass(frozen=True)
class Vocabulary:
    """The words that sentences may have, and how many of them at most.

    A row of nothing but padding is the empty sentence, which means "no condition".

    Args:
        words: the words by their numbers. The first is ``PADDING``; the others are in lower case,
            without spaces.
        length: the most words of a sentence, and the length of every row.

    Raises:
        TypeError, ValueError: no words besides the padding, a word that is empty, not in lower case
            or has spaces, a word twice; a ``length`` below 1.
    """

    words: tuple[str, ...]
    length: int
    _numbers: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        words = _validate.names("words", self.words)
        if len(words) < 2 or words[0] != PADDING:
            raise InvalidValueError(
                f"words must begin with the empty word and hold others, got {words[:3]}"
            )
        for word in words[1:]:
            if not word.isprintable() or word.split() != [word] or word != word.lower():
                raise InvalidValueError(
                    f"words must be in lower case and without spaces, got {word!r:.60}"
                )
        object.__setattr__(self, "words", words)
        length = _validate.whole_number("length", self.length, at_least=1)
        object.__setattr__(self, "length", length)
        object.__setattr__(self, "_numbers", {word: i for i, word in enumerate(words)})

    def __len__(self) -> int:
        return len(self.words)

    def number(self, word: str) -> int:
        """The number of a word.

        Raises:
            TypeError, ValueError: no str, or a word that is not in the vocabulary; the message
                names the nearest one.
        """
        found = self._numbers.get(_validate.text("word", word)) if word else None
        if found is None:
            raise InvalidValueError(f"word must be in the vocabulary, got {self._unknown(word)}")
        return found

    def encode(self, sentences: str | Sequence[str], *, name: str = "sentences") -> Words:
        """Sentences as rows of numbers; capital letters, and spaces where there are many, are fine.

        Args:
            sentences: one or several; the empty sentence is a row of padding.
            name: what an error calls them.

        Returns:
            int64 (B, length), B is 1 for a single sentence.

        Raises:
            TypeError: something else than sentences.
            ValueError: a sentence with a word that is not in the vocabulary (the message names the
                nearest one) or with more than ``length`` words.
        """
        if isinstance(sentences, str):
            sentences = [sentences]
        if not isinstance(sentences, Sequence) or not all(isinstance(s, str) for s in sentences):
            got = _validate.describe(sentences)
            raise InvalidTypeError(f"{name} must be a str or a sequence of str, got {got}")
        rows = torch.zeros(len(sentences), self.length, dtype=torch.int64)
        for row, sentence in zip(rows, sentences, strict=True):
            words = sentence.lower().split()
            if unknown := [word for word in words if word not in self._numbers]:
                raise InvalidValueError(
                    f"{name} must have words of the vocabulary, got {self._unknown(unknown[0])}"
                )
            if len(words) > self.length:
                raise InvalidValueError(
                    f"{name} must have at most {self.length} words, got {len(words)}"
                )
            row[: len(words)] = torch.tensor([self._numbers[word] for word in words])
        return rows

    def decode(self, words: Words) -> list[str]:
        """The sentences of rows (B, L) of numbers, words separated by single spaces.

        Raises:
            TypeError, ValueError: not int64 with two axes, or a number that no word has.
        """
        if not isinstance(words, Tensor) or words.dtype != torch.int64:
            got = words.dtype if isinstance(words, Tensor) else _validate.describe(words)
            raise InvalidTypeError(f"words must be an int64 tensor, got {got}")
        if words.ndim != 2:
            raise InvalidValueError(f"words must have shape (B, L), got {tuple(words.shape)}")
        check_numbers("words", words, len(self))
        rows = words.tolist()
        return [" ".join(self.words[number] for number in row if number) for row in rows]

    def _unknown(self, word: str) -> str:
        """An unknown word, with the nearest one that is known."""
        near = difflib.get_close_matches(word[:80], self.words[1:], n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(self.words[1:])}"
        return f"{word!r:.60}; {hint}"


def check_numbers(name: str, words: Tensor, count: int) -> None:
    """Raises ValueError unless all ``words`` are numbers of a vocabulary of ``count`` words."""
    if not words.numel():
        return
    low, high = (int(end) for end in words.aminmax())
    if low < 0 or high >= count:
        span = f"0..{count - 1}, one for each word of the vocabulary"
        raise InvalidValueError(f"{name} must be in {span}; got {low if low < 0 else high}")
