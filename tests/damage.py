"""Damage to files, as disks, downloads and attackers do it."""

import json
import os
from collections.abc import Callable
from pathlib import Path


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit_card(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """What changes the card beside a file, so that it is still JSON."""

    def damage(path: Path) -> None:
        card_path = path.with_suffix(".json")
        card = json.loads(card_path.read_bytes())
        change(card)
        card_path.write_text(json.dumps(card))

    return damage


class Code:
    """A pickle of this runs code when it is read: it makes the folder ``pickle-ran``."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("pickle-ran",)
