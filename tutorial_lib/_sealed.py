"""Files of tensors that can be checked: safetensors with a checksum, in one of two forms.

A *sealed file* carries its checksum itself, see ``write`` and ``read``. Its header has one entry,
``sealed``: JSON with ``sha256``, the checksum of every byte of the file, computed with 64 zeros in
place of the checksum; and ``facts``, anything that JSON can hold. So a change of any single bit is
noticed, whether in the tensors, their names and shapes, or the facts. (There is only one entry
because safetensors writes several in a different order each time.)

A *file with a card* has a JSON file beside it, for people to read, which states the checksum and
the size of the file; see ``write_with_card`` and ``read_with_card``. So a change of any single bit
of the file is noticed, as is one of the checksum or the size on the card. No checksum covers the
rest of the card: a change there goes unnoticed here if the card is still JSON.

Files appear whole or not at all. Reading runs no code from a file; it returns what was written, or
raises ``SealError`` with a message that names the file.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
from torch import Tensor

from tutorial_lib import _files
from tutorial_lib._validate import UserError

_ZEROS = "0" * 64  # in place of the checksum while it is computed
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_BAD_JSON = (ValueError, LookupError, TypeError, OverflowError, RecursionError)


class SealError(UserError, ValueError):
    """A file that cannot be read or is not what was written; the message names it."""


class Sealed(NamedTuple):
    """What a sealed file holds.

    Attributes:
        tensors: by name.
        facts: everything else, as JSON holds it.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


class WithCard(NamedTuple):
    """What a file and its card hold.

    Attributes:
        tensors: by name.
        card: what the card says.
        card_path: where the card was found.
    """

    tensors: dict[str, Tensor]
    card: dict[str, Any]
    card_path: Path


# --- the checksum in the file itself --------------------------------------------------------------


def write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Writes a sealed file at ``path``, whole or not at all.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    header = {"sealed": json.dumps({"sha256": _ZEROS, "facts": facts})}
    head, body = _split(_safetensors(tensors, header))
    sealed_head = head.replace(_ZEROS.encode(), _checksum(head, body).encode(), 1)
    _files.write_whole(path, b"".join((sealed_head, body)))


def read(path: Path) -> Sealed:
    """The tensors and facts in the sealed file at ``path``.

    Raises:
        SealError: it cannot be read, is not a sealed file, or is not what was written.
    """
    return opened(path, _read_bytes(path))


def opened(path: Path, content: bytes) -> Sealed:
    """The tensors and facts in ``content``, the bytes of the sealed file at ``path``.

    Raises:
        SealError: it is not a sealed file or not what was written.
    """
    try:
        head, body = _split(content)
        stated, facts = _stated(json.loads(head[8:])["__metadata__"])
        unsealed_head = head.replace(stated.encode("ascii"), _ZEROS.encode(), 1)
    except _BAD_JSON as error:
        raise SealError(f"{path} is damaged: its header cannot be read") from error
    if _checksum(unsealed_head, body) != stated:
        raise SealError(f"{path} is damaged: its checksum is not what its header says")
    if not isinstance(facts, dict):
        raise SealError(f"{path} is damaged: it holds no facts")
    return Sealed(_tensors(path, content), facts)


def _stated(header: Mapping[str, str]) -> tuple[str, Any]:
    """The checksum and the facts that a header states, also in the forms of earlier versions.

    States of runs had an entry for each; shards of samples had both in one entry, ``about``.
    """
    if "sealed" in header:
        sealed = json.loads(header["sealed"])
        return str(sealed["sha256"]), sealed["facts"]
    if "about" in header:
        about = json.loads(header["about"])
        return str(about["sha256"]), {key: about[key] for key in about if key != "sha256"}
    return str(header["sha256"]), json.loads(header["facts"])


def _split(content: bytes) -> tuple[bytes, memoryview]:
    """The header of a safetensors file, preceded by its length, and what follows it."""
    end = 8 + int.from_bytes(content[:8], "little")
    return content[:end], memoryview(content)[end:]


def _checksum(head: bytes, body: memoryview) -> str:
    checksum = hashlib.sha256(head)
    checksum.update(body)
    return checksum.hexdigest()


# --- the checksum on a card beside the file -------------------------------------------------------


def write_with_card(
    path: Path, tensors: Mapping[str, Tensor], card: Mapping[str, Any], entry: str
) -> None:
    """Writes tensors at ``path`` and their card beside them, both or neither.

    Both are first written in full under temporary names. Then the tensors are moved into place,
    then the card. A crash before the moves leaves the old pair; a crash between them leaves the new
    tensors with the new card under its temporary name, where ``read_with_card`` finds it.

    Args:
        path: where the tensors go; the card has the same name with the suffix ``.json``.
        card: anything that JSON can hold.
        entry: the entry of ``card``, a dict, to which the file's checksum and size are added.

    Raises:
        OSError: they cannot be written. If that was before the moves, as when the disk is full,
            what was there before is still there; else see above.
    """
    content = _safetensors(tensors)
    full_card = {**card, entry: {**card[entry], **_checksum_and_size(content)}}
    _finish_interrupted_write(path, entry)
    text = json.dumps(full_card, indent=2) + "\n"
    _files.write_all({path: content, path.with_suffix(".json"): text.encode()})


def read_with_card(path: Path, entry: str) -> WithCard:
    """The tensors at ``path`` and the card beside them.

    Args:
        path: of the tensors.
        entry: the entry of the card that states the file's checksum and size.

    Raises:
        SealError: one of the two is missing, cannot be read or is broken, or the file is not the
            one that its card describes.
    """
    content = _read_bytes(path)
    actual = _checksum_and_size(content)
    card_path = path.with_suffix(".json")
    if not _is_card_of(card_path, entry, actual):
        # where the write was interrupted between its two moves
        card_path = _waiting_card(card_path, entry, actual) or card_path
    if not card_path.exists():
        raise SealError(f"{card_path} is missing, the card of {path.name}")
    text = _read_bytes(card_path)
    try:
        card = json.loads(text)
        size, checksum = int(card[entry]["bytes"]), str(card[entry]["sha256"])
    except LookupError as error:
        raise SealError(f"{card_path} is not the card of {path.name}: it lacks {error}") from error
    except _BAD_JSON as error:
        raise SealError(f"{card_path} is not the card of {path.name}: {error}") from error
    if checksum != actual["sha256"]:
        if len(content) < size:
            raise SealError(f"{path} is truncated: {len(content)} of {size} bytes")
        raise SealError(f"{path} is corrupt: its checksum is not what its card says")
    if size != len(content):
        found = f"{path.name} has {len(content)}, and the checksum that the card states"
        raise SealError(f"{card_path} is damaged: it states {size} bytes; {found}")
    return WithCard(_tensors(path, content), card, card_path)


def _finish_interrupted_write(path: Path, entry: str) -> None:
    """Moves the card of a write that was interrupted between its two moves."""
    card_path = path.with_suffix(".json")
    if not _files.leftovers(card_path) or not path.exists():
        return
    waiting = _waiting_card(card_path, entry, _checksum_and_size(path.read_bytes()))
    if waiting is not None:
        os.replace(waiting, os.path.realpath(card_path))


def _waiting_card(card_path: Path, entry: str, actual: Mapping[str, Any]) -> Path | None:
    """The card under a temporary name that states this checksum and size; None if there is none."""
    found = _files.leftovers(card_path)
    return next((waiting for waiting in found if _is_card_of(waiting, entry, actual)), None)


def _is_card_of(card_path: Path, entry: str, actual: Mapping[str, Any]) -> bool:
    """Whether the card at ``card_path`` is whole and states this checksum and size."""
    try:
        stated = json.loads(card_path.read_bytes())[entry]
        return {key: stated[key] for key in actual} == actual
    except (OSError, *_BAD_JSON):  # missing or incomplete: not this one
        return False


def _checksum_and_size(content: bytes) -> dict[str, Any]:
    """What a card states about the bytes of its file."""
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


# --- what both have in common ---------------------------------------------------------------------


def pickle_message(path: Path) -> str:
    """Why the pickle at ``path`` is not read."""
    return f"{path} is a pickle, which could run code when read; only .safetensors is loaded"


def _read_bytes(path: Path) -> bytes:
    """The bytes of the file at ``path``.

    Raises:
        SealError: it cannot be read or is a pickle.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SealError(f"cannot read {path}: {error.strerror}") from error
    if _is_pickle(content):
        raise SealError(pickle_message(path))
    return content


def _is_pickle(content: bytes) -> bool:
    """Whether a file begins like a pickle or like an archive that torch.save writes.

    Safetensors files begin with eight bytes of length and then "{". A length of 640, for example,
    makes the first two bytes those of a pickle.
    """
    return content.startswith(_PICKLE_STARTS) and content[8:9] != b"{"


def _safetensors(tensors: Mapping[str, Tensor], header: Mapping[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file with ``tensors`` and text entries in its header."""
    own: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        # safetensors refuses tensors that share memory, such as tied weights
        own[name] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    return safetensors.torch.save(own, metadata=None if header is None else dict(header))


def _tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    """The tensors in ``content``, the bytes of the safetensors file at ``path``.

    Raises:
        SealError: they are not safetensors.
    """
    try:
        return safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise SealError(f"{path} is not a safetensors file: {error}") from error
