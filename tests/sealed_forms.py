"""Sealed files in every form that the library has written, put together by hand."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

ZEROS = "0" * 64

FORMS: dict[str, Callable[[dict[str, Any]], dict[str, str]]] = {
    "state": lambda facts: {"facts": json.dumps(facts), "sha256": ZEROS},
    "state, other order": lambda facts: {"sha256": ZEROS, "facts": json.dumps(facts)},
    "shard": lambda facts: {"about": json.dumps({"sha256": ZEROS, **facts})},
    "shard, other order": lambda facts: {"about": json.dumps({**facts, "sha256": ZEROS})},
    "sealed": lambda facts: {"sealed": json.dumps({"sha256": ZEROS, "facts": facts})},
}
"""The entries of the header: how states of runs and shards of samples were written before they had
one form; that form comes last. Zeros are in the place of the checksum."""


def put_together(metadata: dict[str, str], tensors: dict[str, Any], body: bytes) -> bytes:
    """A safetensors file of these header entries; ``body`` has the numbers of all tensors."""
    header = json.dumps({"__metadata__": metadata, **tensors}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + body


def with_checksum(content: bytes) -> bytes:
    """``content`` with its checksum in place of the first 64 zeros."""
    checksum = hashlib.sha256(content).hexdigest()
    return content.replace(ZEROS.encode(), checksum.encode(), 1)


def in_form(form: str, content: bytes) -> bytes:
    """The sealed file ``content`` with the same tensors and facts in another form."""
    end = 8 + int.from_bytes(content[:8], "little")
    tensors = json.loads(content[8:end])
    facts = json.loads(tensors.pop("__metadata__")["sealed"])["facts"]
    return with_checksum(put_together(FORMS[form](facts), tensors, content[end:]))
