"""What cannot fit in memory is refused by name, before anything is allocated."""

import pytest
import torch

from tutorial_lib import _memory
from tutorial_lib._memory import check_fits, total, words

pytestmark = pytest.mark.plain_errors


def test_this_machine_has_memory() -> None:
    assert 2**27 < total() <= 2**50
    assert total(torch.device("cpu")) == total()


def test_what_needs_more_than_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "total", lambda device: 2**30)
    check_fits("size", 8, 2**30, "a set")
    message = r"^size must fit in memory, got 9: a set takes 1.0 GiB or more, of 1.0 GiB$"
    with pytest.raises(ValueError, match=message):
        check_fits("size", 9, 2**30 + 1, "a set")
    with pytest.raises(ValueError, match=r"got about 10\^400: .* over 10\^6 EiB or more"):
        check_fits("size", 10**400, 10**400, "a set")
    with pytest.raises(ValueError, match=r"got tuple \(8, 9\): "):
        check_fits("widths", (8, 9), 2**40, "the network")


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (2**30, "1.0 GiB")],
)
def test_bytes_in_words(size: int, text: str) -> None:
    assert words(size) == text
