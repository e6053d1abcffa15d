"""Files of tensors that check themselves: safetensors with a checksum in their own header.

The header has one entry, ``sealed``, with ``sha256``, the checksum of every byte of the file, taken
with zeros in the place of the checksum; and ``facts``, anything that JSON can hold. So a change of
any single bit is seen, whether it hits the tensors, their names and shapes, or the facts. (One
entry, since safetensors writes several in another order each time.)

``write`` puts a file in place whole or not at all; ``read`` returns what was written, or raises
``SealError`` with a message that names the file. Nothing in a file is run when it is read.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
from torch import Tensor

from tutorial_lib import _files
from tutorial_lib._validate import UserError

_ZEROS = "0" * 64  # where the checksum stands, while it is being computed
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class SealError(UserError, ValueError):
    """A file that cannot be read, or is not what was written; the message names it."""


class Sealed(NamedTuple):
    """What a sealed file holds.

    Attributes:
        tensors: by name.
        facts: everything else, as JSON holds it.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def content(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    """The bytes of a sealed file with ``tensors`` and ``facts``."""
    unsealed = plain_content(tensors, {"sealed": json.dumps({"sha256": _ZEROS, "facts": facts})})
    head, body = _split(unsealed)
    sealed = head.replace(_ZEROS.encode(), _checksum(head, body).encode(), 1)
    return sealed + bytes(body)


def plain_content(tensors: Mapping[str, Tensor], header: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file.

    Each tensor is copied first: tied weights share their memory, which safetensors does not write.
    """
    copies = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    return safetensors.torch.save(copies, metadata=None if header is None else dict(header))


def write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Writes a sealed file at ``path``, whole or not at all.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    _files.write_whole(path, content(tensors, facts))


def read(path: Path) -> Sealed:
    """The tensors and facts in the sealed file at ``path``.

    Raises:
        SealError: it cannot be read, is not a sealed file, or is not what was written.
    """
    return opened(path, read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """The bytes of the file at ``path``.

    Raises:
        SealError: it cannot be read, or is a pickle.
    """
    try:
        found = path.read_bytes()
    except OSError as error:
        raise SealError(f"cannot read {path}: {error.strerror}") from error
    if is_pickle(found):
        raise SealError(pickle_message(path))
    return found


def opened(path: Path, found: bytes) -> Sealed:
    """``read`` for the bytes ``found`` in the file at ``path``; see there."""
    facts = checked_facts(path, found)
    return Sealed(plain_tensors(path, found), facts)


def checked_facts(path: Path, found: bytes) -> dict[str, Any]:
    """The facts in the bytes ``found`` at ``path``, if every byte is what was written.

    Raises:
        SealError: they are not a sealed file, or not what was written.
    """
    try:
        head, body = _split(found)
        stated, facts = _stated(json.loads(head[8:])["__metadata__"])
    except (ValueError, LookupError, TypeError) as error:
        raise SealError(f"{path} is damaged: its header cannot be read") from error
    if _checksum(head.replace(stated.encode(), _ZEROS.encode(), 1), body) != stated:
        raise SealError(f"{path} is damaged: its checksum is not what its header says")
    if not isinstance(facts, dict):
        raise SealError(f"{path} is damaged: it holds no facts")
    return facts


def plain_tensors(path: Path, found: bytes) -> dict[str, Tensor]:
    """The tensors in the bytes ``found`` of the safetensors file at ``path``, sealed or not.

    Raises:
        SealError: they are not safetensors.
    """
    try:
        return safetensors.torch.load(found)
    except safetensors.SafetensorError as error:
        raise SealError(f"{path} is not a safetensors file: {error}") from error


def fingerprint(found: bytes) -> dict[str, Any]:
    """What a card beside a file says of its bytes: their checksum and their number."""
    return {"sha256": hashlib.sha256(found).hexdigest(), "bytes": len(found)}


def is_pickle(found: bytes) -> bool:
    """Whether a file begins as pickles do, or as the archives of torch.save do.

    Safetensors begin with eight bytes of length and then "{"; a length of 640, for example, gives
    them the first two bytes of a pickle.
    """
    return found.startswith(_PICKLE_STARTS) and found[8:9] != b"{"


def pickle_message(path: Path) -> str:
    """Why a pickle is not read."""
    return f"{path} is a pickle, which could run code when read; only .safetensors is loaded"


def _stated(header: Mapping[str, str]) -> tuple[str, Any]:
    """The checksum and the facts that a header states, also in the forms of earlier versions.

    States of runs had an entry for each; shards of samples had both in one entry, ``about``.
    """
    if "sealed" in header:
        sealed = json.loads(header["sealed"])
        return str(sealed["sha256"]), sealed["facts"]
    if "about" in header:
        facts = json.loads(header["about"])
        return str(facts.pop("sha256")), facts
    return str(header["sha256"]), json.loads(header["facts"])


def _split(found: bytes) -> tuple[bytes, memoryview]:
    """The header of a safetensors file with its length before it, and what follows it."""
    end = 8 + int.from_bytes(found[:8], "little")
    return found[:end], memoryview(found)[end:]


def _checksum(head: bytes, body: memoryview) -> str:
    digest = hashlib.sha256(head)
    digest.update(body)
    return digest.hexdigest()
