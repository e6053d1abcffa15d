"""Damage to files, as disks, downloads and attackers do it."""

import os
from pathlib import Path


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


class Code:
    """A pickle of this runs code when it is read: it makes the folder ``pickle-ran``."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("pickle-ran",)
