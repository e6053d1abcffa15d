"""Samplers: walks from noise back to data, one algorithm a function.

A sampler is a generator. It checks its arguments when called, then yields a ``SampleStep`` for each
step that it takes: the step just reached, the state there, and what the model said on the way.
Plots, explorers and progress bars read that one stream; ``last`` runs it to its end.
"""

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._typing import EpsModel, States


class SampleStep(NamedTuple):
    """One step of a walk.

    Attributes:
        t: the step just reached, from T - 1 or less down to 0.
        x_t: the state there, (B, ...); the sample itself at t = 0.
        eps_hat: the noise that the model saw in the state before, (B, ...).
        x0_hat: the clean data that this noise implies, (B, ...).
    """

    t: int
    x_t: Tensor
    eps_hat: Tensor
    x0_hat: Tensor


def last(steps: Iterable[SampleStep]) -> States:
    """Walks to the end and returns the state there, x_0.

    Raises:
        ValueError: the walk has no step, or ends on NaN or infinity.
    """
    end = deque(steps, maxlen=1)
    if not end:
        raise ValueError("steps must hold at least one step, got an empty walk")
    x_0 = end[0].x_t
    if not x_0.isfinite().all():
        raise ValueError("steps must end on finite numbers, got NaN or infinity from the model")
    return x_0


def ask(model: EpsModel, x: Tensor, t: int) -> Tensor:
    """eps_hat at one step for the whole batch, refused where its shape is not that of x."""
    steps = torch.full((len(x),), t, dtype=torch.int64, device=x.device)
    eps_hat = _validate.answer("model", model(x, steps), x)
    if eps_hat.dtype == x.dtype and eps_hat.stride() == x.stride():
        return eps_hat
    # A network may answer in bfloat16, or with its pixels channels last. Each sum of tensors that
    # lie differently costs five times what it costs of two that lie alike.
    return torch.empty_like(x).copy_(eps_hat)


def check_answer(eps_hat: Tensor, t: int, x: Tensor) -> None:
    """Raises where eps_hat at t is not finite; then x, which came of it, is not finite either.

    x is looked at first since it is still in the processor's cache.
    """
    if not _validate.seems_finite(x):
        _validate.finite(f"the answer of model at t = {t}", eps_hat)


def check_start(x_T: object) -> None:
    start = _validate.floating("x_T", x_T)
    if start.dtype not in (torch.float32, torch.float64):
        # half precision rounds most of a small step away; a model may still compute in it
        raise TypeError(f"x_T must be float32 or float64, got {start.dtype}")
    if start.ndim < 2:
        raise ValueError(f"x_T must have shape (B, ...), got {tuple(start.shape)}")
    if not start.isfinite().all():
        raise ValueError("x_T must be finite, got NaN or infinity")
