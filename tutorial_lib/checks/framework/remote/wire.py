"""Values as JSON, and back: numbers, text, tensors, arrays, and lists of them.

Decoding runs no code that the other side chose: there is no pickle, and every type of number, every
shape and every length is checked. What is none of these values goes over as its type's name
(``Opaque``), or through ``extra``, which each side brings for functions and models.
"""

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

DEEPEST = 16
"""How many lists may lie inside one another."""

MOST_DIGITS = 400
"""Longest whole number that is taken."""

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
        torch.complex64,
        torch.complex128,
    )
}
_ARRAYS = frozenset(str(np.dtype(one)) for one in ("?", *np.typecodes["AllInteger"], *"efdFD"))


class WireError(Exception):
    """A value that cannot go over, or a message that stands for none."""


class Opaque:
    """Stands for a value that does not go over; its type has the same name."""


def opaque(name: str) -> Opaque:
    """An ``Opaque`` whose type is called ``name``."""
    return named(name, Opaque)()


def named(name: str, base: type) -> Callable[..., Any]:
    """A class like ``base`` that is called ``name``, as messages say what a value is."""
    plain = "".join(c for c in name if c.isalnum() or c == "_")[:60]
    return type(plain or "thing", (base,), {})


def encode(value: object, extra: Callable[[Any], dict | None] = lambda value: None) -> Any:
    """``value`` as JSON has it.

    Args:
        value: None, ``...``, bool, int, float, complex, str, a tensor, a NumPy array or number, or
            a list, tuple or dict of these; anything else becomes its type's name.
        extra: asked first about every value that is none of these; None means that it, too, knows
            no way.
    """
    return _encode(value, extra, 0)


def decode(message: object, extra: Callable[[dict], Any] | None = None) -> Any:
    """The value that ``message`` stands for.

    Args:
        message: what ``encode`` gave, or anything else that JSON can hold.
        extra: makes the value of an object that this module does not know.

    Raises:
        WireError: it stands for no value.
    """
    try:
        return _decode(message, extra, 0)
    except (RuntimeError, OverflowError, MemoryError, TypeError, ValueError) as error:
        raise WireError(f"a value that cannot be made: {type(error).__name__}") from None


def _encode(value: Any, extra: Callable[[Any], dict | None], depth: int) -> Any:
    if depth > DEEPEST:
        return {"opaque": type(value).__name__}
    kind = type(value)
    if kind is str:
        return value.encode("utf-8", "replace").decode()
    if value is None or kind is bool:
        return value
    if kind is int:
        return value if abs(value) < 10**MOST_DIGITS else {"opaque": "int"}
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if kind is complex:
        return {"complex": [repr(value.real), repr(value.imag)]}
    if value is ...:
        return {"open": True}
    if isinstance(value, Tensor):
        return _encode_tensor(value)
    if isinstance(value, (np.ndarray, np.generic)):
        return _encode_array(value)
    if isinstance(value, (list, range)):
        return {"list": [_encode(part, extra, depth + 1) for part in value]}
    if isinstance(value, tuple):
        return {"tuple": [_encode(part, extra, depth + 1) for part in value]}
    if isinstance(value, Mapping):
        pairs = [[str(key)[:200], _encode(part, extra, depth + 1)] for key, part in value.items()]
        return {"dict": pairs}
    for plain in (bool, int, float, str):  # a class of somebody's own that is a number or a text
        if isinstance(value, plain):
            return _encode(plain(value), extra, depth)
    found = extra(value)
    return {"opaque": kind.__name__} if found is None else found


def _encode_tensor(value: Tensor) -> dict:
    name = str(value.dtype).removeprefix("torch.")
    if name not in _DTYPES or value.layout != torch.strided or value.is_nested:
        return {"opaque": f"{value.layout}_Tensor".removeprefix("torch.")}
    facts: dict[str, Any] = {"tensor": name, "shape": list(value.shape)}
    if value.device.type == "meta":
        return facts | {"device": "meta"}
    plain = value.detach().to("cpu").resolve_conj().resolve_neg().contiguous()
    content = plain.reshape(-1).view(torch.uint8).numpy().tobytes()
    return facts | {"data": base64.b64encode(content).decode()}


def _encode_array(value: np.ndarray | np.generic) -> dict:
    array = np.ascontiguousarray(value).reshape(np.shape(value))
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if str(array.dtype) not in _ARRAYS:
        return {"opaque": type(value).__name__}
    kind = "array" if isinstance(value, np.ndarray) else "number"
    data = base64.b64encode(array.tobytes()).decode()
    return {kind: str(array.dtype), "shape": list(array.shape), "data": data}


def _decode(message: Any, extra: Callable[[dict], Any] | None, depth: int) -> Any:
    if depth > DEEPEST:
        raise WireError("lists inside lists without end")
    if message is None or isinstance(message, (bool, int, float, str)):
        return message
    if not isinstance(message, dict) or not message:
        raise WireError(f"a value that is a {type(message).__name__}")
    kind = next(iter(message))
    content = message[kind]
    match kind:
        case "open":
            return ...
        case "opaque" if isinstance(content, str):
            return opaque(content)
        case "float" if content in ("inf", "-inf", "nan"):
            return float(content)
        case "complex":
            return _complex(content)
        case "list" | "tuple" if isinstance(content, list):
            parts = [_decode(part, extra, depth + 1) for part in content]
            return parts if kind == "list" else tuple(parts)
        case "dict" if isinstance(content, list):
            return dict(_pair(pair, extra, depth) for pair in content)
        case "tensor":
            return _decode_tensor(message)
        case "array" | "number":
            return _decode_array(message)
    if extra is None:
        raise WireError(f"a value of the unknown kind {kind[:60]!r}")
    return extra(message)


def _complex(content: Any) -> complex:
    try:
        real, imaginary = map(float, content)
    except (TypeError, ValueError, OverflowError):
        raise WireError("a complex number that is none") from None
    return complex(real, imaginary)


def _pair(pair: Any, extra: Callable[[dict], Any] | None, depth: int) -> tuple[str, Any]:
    if not isinstance(pair, list) or len(pair) != 2 or not isinstance(pair[0], str):
        raise WireError("a dict whose entries are no pairs")
    return pair[0], _decode(pair[1], extra, depth + 1)


def _decode_tensor(message: dict) -> Tensor:
    dtype = _DTYPES.get(message["tensor"]) if isinstance(message["tensor"], str) else None
    if dtype is None:
        raise WireError("a tensor of unknown numbers")
    shape = _shape(message.get("shape"))
    if message.get("device") == "meta":
        return torch.empty(shape, dtype=dtype, device="meta")
    content = _content(message, math.prod(shape) * dtype.itemsize)
    if not content:
        return torch.empty(shape, dtype=dtype)
    if dtype is torch.bool:  # any byte but 0 and 1 would be a truth value that is neither
        return torch.frombuffer(bytearray(content), dtype=torch.uint8).ne(0).reshape(shape)
    return torch.frombuffer(bytearray(content), dtype=dtype).reshape(shape)


def _decode_array(message: dict) -> np.ndarray | np.generic:
    kind = next(iter(message))
    if not isinstance(message[kind], str) or message[kind] not in _ARRAYS:
        raise WireError("an array of unknown numbers")
    dtype, shape = np.dtype(message[kind]), _shape(message.get("shape"))
    content = _content(message, math.prod(shape) * dtype.itemsize)
    if dtype.kind == "b":
        array = (np.frombuffer(content, dtype=np.uint8) != 0).reshape(shape)
    else:
        array = np.frombuffer(content, dtype=dtype).copy().reshape(shape)
    if kind == "number" and shape:
        raise WireError("a number with a shape")
    return array if kind == "array" else array[()]


def _shape(shape: Any) -> list[int]:
    plain = isinstance(shape, list) and len(shape) <= 32
    if not plain or not all(type(n) is int and 0 <= n < 2**40 for n in shape):
        raise WireError("a shape that is none")
    return shape


def _content(message: dict, count: int) -> bytes:
    data = message.get("data")
    try:
        content = base64.b64decode(data, validate=True) if isinstance(data, str) else None
    except (binascii.Error, ValueError):
        content = None
    if content is None or len(content) != count:
        raise WireError("numbers that do not fill their shape")
    return content
