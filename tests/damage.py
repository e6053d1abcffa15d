"""Damage to files, as disks, downloads and attackers do it."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tutorial_lib import _sealed


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flips(content: bytes) -> Iterator[tuple[int, bytes]]:
    """``content`` with each of its bits flipped, one at a time; and the place of its byte."""
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            yield place, bytes(flipped)


def flips_believed(card_path: Path, content: bytes, entry: str) -> int:
    """Flips each bit of a card, whose ``entry`` has its checksum; how often it is still read.

    Where it is, it must say the same, as after a change in white space, and it must not pass for a
    card of an earlier version.
    """
    card = _sealed.opened_card(card_path, content, entry)
    believed = 0
    for place, flipped in flips(content):
        try:
            found = _sealed.opened_card(card_path, flipped, entry)
        except _sealed.SealError:
            continue
        assert repr(found) == repr(card), f"byte {place} can change"  # not ==: 1 == 1.0 == True
        believed += 1
    return believed


def seal_card(card: dict) -> None:
    """States the checksum of what a card says now, where it states one."""
    for part in card.values():
        if isinstance(part, dict) and part.pop("card_sha256", None):
            text = json.dumps(card, sort_keys=True, separators=(",", ":"))
            part["card_sha256"] = hashlib.sha256(text.encode()).hexdigest()


def edit_card(change: Callable[[dict], object], *, sealed: bool = True) -> Callable[[Path], None]:
    """What changes the card beside a file, as a forger does it, who states its new checksum.

    Without ``sealed`` the checksum stays, as if a disk had changed the card.
    """

    def damage(path: Path) -> None:
        card_path = path.with_suffix(".json")
        card = json.loads(card_path.read_bytes())
        change(card)
        if sealed:
            seal_card(card)
        card_path.write_text(json.dumps(card))

    return damage


def as_before_checksums(card: dict) -> None:
    """Makes a card one of an earlier version, which gave cards no checksum of their own."""
    for part in card.values():
        if isinstance(part, dict):
            part.pop("card_sha256", None)


class Code:
    """A pickle of this runs code when it is read: it makes the folder ``pickle-ran``."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("pickle-ran",)
