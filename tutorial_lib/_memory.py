"""How much memory there is, and the refusal of what cannot fit in it, before anything is allocated.

Estimates here are lower bounds: what is refused would certainly have failed, and what passes may
still be too much.
"""

import contextlib
import functools
import os
from pathlib import Path

import torch

from tutorial_lib._validate import InvalidValueError, describe, shown

UNKNOWN = 2**40
"""What is taken for the memory of a system that does not say."""
_CONTAINER = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def total(device: torch.device | None = None) -> int:
    """All memory of ``device``, used or free, in bytes; None is the CPU."""
    if device is not None and device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return _of_this_machine()


def check_fits(
    name: str, value: object, needed: int, what: str, device: torch.device | None = None
) -> None:
    """Raises unless ``needed`` bytes are at most all the memory of ``device``.

    Args:
        name: the argument that decides how much is needed.
        value: what it was given.
        needed: at least so many bytes are needed, all at the same time.
        what: what needs them, as in "a batch of images".
        device: where; None is the CPU.

    Raises:
        ValueError: they do not fit; the message names the argument and both amounts.
    """
    there = total(device)
    if needed > there:
        got = shown(value) if isinstance(value, int) else describe(value)
        raise InvalidValueError(
            f"{name} must fit in memory, got {got}: {what} takes {words(needed)} or more, "
            f"of {words(there)}"
        )


def words(size: int) -> str:
    """A number of bytes in words, such as "1.5 GiB"."""
    units = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    power = min(max(size.bit_length() - 1, 0) // 10, len(units) - 1)
    if power == 0:
        return f"{size} bytes"
    whole = size / 2 ** (10 * power) if size < 2**1000 else float("inf")
    return f"{whole:.1f} {units[power]}" if whole < 2**20 else f"over 10^6 {units[power]}"


@functools.cache
def _of_this_machine() -> int:
    """The memory of this machine, or of the container that this process runs in if that is less."""
    found = [UNKNOWN]
    with contextlib.suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in _CONTAINER:
        with contextlib.suppress(OSError, ValueError):  # not there, or "max"
            found.append(int(Path(path).read_text()))
    return min(size for size in found if size > 0)
