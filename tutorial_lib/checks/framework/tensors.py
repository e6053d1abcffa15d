"""Tensors on their way through a check: what an answer gave, in one form, and kept safe."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from tutorial_lib.checks.framework import compare
from tutorial_lib.checks.framework.messages import NO_RETURN
from tutorial_lib.checks.framework.task import Wrong


def tensor_like(value: object, like: Tensor) -> Tensor:
    """What an answer gave, as a tensor of the shape of ``like``; for use inside ``use``.

    Raises:
        Wrong: ``value`` is ``...``, None, not numbers, of another shape, or not finite.
    """
    if is_open(value):
        raise Wrong("not attempted", "")
    if value is None:
        raise Wrong("shape", NO_RETURN)
    wanted = torch.zeros_like(like)
    problem = compare.compare(value, wanted, (), math.inf, math.inf)
    if problem:
        raise Wrong(problem.stage, problem.message)
    tensor = compare.as_tensor(value)
    assert tensor is not None
    return tensor


def tidy(value: object, parts: Sequence[str] = ()) -> object:
    """A result in one form: arrays, lists and numbers become tensors, several parts a tuple.

    Tensors stay as they are, with their gradients; so does anything that is not numbers.
    """
    if isinstance(value, Tensor):
        return value
    if parts and isinstance(value, Mapping) and set(value) == set(parts):
        return tuple(tidy(value[name]) for name in parts)
    if isinstance(value, tuple) or (parts and isinstance(value, list)):
        return tuple(tidy(part) for part in value)
    tensor = compare.as_tensor(value)
    return value if tensor is None else tensor


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """One number per sample, shaped to multiply ``like``: (B,) becomes (B, 1, ...)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


_READ_ONCE = (type(iter(range(0))), type(reversed([])), type(iter([])), type(iter(())))


def is_open(value: object) -> bool:
    """Whether ``value`` is the ``...`` of a stub, or several things of which one is."""
    return value is ... or (isinstance(value, (tuple, list)) and any(v is ... for v in value))


def kept(value: object) -> object:
    """``value`` as plain data, which no later call changes and which runs no code of the answer's.

    Tensors and arrays are copied; ``reversed(range(3))`` and its like, which can be read only once,
    become lists; what holds no numbers becomes a description of itself.
    """
    kind = type(value)
    if value is None or value is ... or kind in (bool, int, float, str):
        return value
    if isinstance(value, Tensor):
        return value.detach().clone()
    if kind is np.ndarray:
        return value.copy()  # type: ignore[attr-defined]
    if kind in _READ_ONCE:
        value, kind = list(value), list  # type: ignore[arg-type]
    try:
        if kind in (tuple, list):
            return kind(kept(part) for part in value)  # type: ignore[attr-defined]
        if isinstance(value, tuple) and hasattr(kind, "_make"):  # a named one
            return kind._make(kept(part) for part in value)  # type: ignore[attr-defined]
        if isinstance(value, Mapping):
            return {key: kept(part) for key, part in value.items()}
    except RecursionError:
        return compare.Thing(f"a {kind.__name__} that holds itself")
    tensor = compare.as_tensor(value)
    return compare.Thing(compare.describe(value)) if tensor is None else tensor
