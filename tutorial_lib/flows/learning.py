"""Learning a flow: the loss of flow matching, and how the times of a batch are drawn."""

from collections.abc import Callable

import torch
from torch import Tensor

from tutorial_lib import _memory, _random, _validate
from tutorial_lib._typing import Condition, PerSample, States
from tutorial_lib._validate import InvalidTypeError, InvalidValueError
from tutorial_lib.flows.path import straight_path, straight_velocity


def flow_losses(
    model: Callable[..., Tensor],
    x0: States,
    time: PerSample,
    eps: States,
    *,
    condition: Condition | None = None,
) -> PerSample:
    """Mean squared error of the predicted velocity, one number per sample.

    The loss of conditional flow matching on the straight path (Lipman et al. 2022, eq. 23 with
    sigma_min = 0; Liu et al. 2022, eq. 1): model(x, time) against eps - x_0. In the epsilon loss
    the same error counts (1 - time)^2 times as much, since eps_hat = x + (1 - time) velocity.

    Args:
        model: the flow, called as ``model(x, time)``, or ``model(x, time, condition)`` with one.
        x0: clean data, (B, ...).
        time: floating point (B,), each in [0, 1].
        eps: standard normal noise of the shape of ``x0``.
        condition: int64 with one row per sample: labels (B,) or words (B, L); None for none.

    Raises:
        TypeError, ValueError: a tensor of the wrong type or shape or not finite, a time outside
            [0, 1], or a model whose answer does not hold floating-point numbers in the shape of
            ``x0``. On a CPU also an answer that is not finite, and numbers too large to square.
    """
    _validate.function("model", model)
    x = straight_path(x0, time, eps)
    told = () if condition is None else (_check_condition(condition, len(x0)),)
    velocity = _validate.answer("model", model(x, time, *told), x)
    losses = (velocity - straight_velocity(x0, eps)).square().flatten(1).mean(1)  # (B, ...) -> (B,)
    if not _validate.seems_finite(losses.detach()):
        _validate.finite("the answer of model", velocity)
        what = f"x0 or the answer of model is too large for a loss in {losses.dtype}"
        raise InvalidValueError(f"{what}: it overflows")
    return losses


def flow_loss(
    model: Callable[..., Tensor],
    x0: States,
    time: PerSample,
    eps: States,
    *,
    condition: Condition | None = None,
) -> Tensor:
    """The loss of flow matching: the mean of ``flow_losses``.

    Draw one time and one noise for each sample: ``uniform_times(len(x0))`` and
    ``torch.randn_like(x0)``.

    Args:
        model, x0, time, eps, condition: as for ``flow_losses``; B at least 1.

    Returns:
        A scalar with its gradient.

    Raises:
        TypeError, ValueError: as ``flow_losses``, or the batch is empty.
    """
    losses = flow_losses(model, x0, time, eps, condition=condition)
    if not len(losses):
        raise InvalidValueError("x0 must hold at least one sample, got an empty batch")
    return losses.mean()


def _check_condition(condition: object, batch: int) -> Condition:
    if not isinstance(condition, Tensor) or condition.dtype != torch.int64:
        kind = condition.dtype if isinstance(condition, Tensor) else _validate.describe(condition)
        raise InvalidTypeError(f"condition must be an int64 tensor, got {kind}")
    _validate.held("condition", condition)
    if condition.ndim not in (1, 2) or len(condition) != batch:
        shape = tuple(condition.shape)
        raise InvalidValueError(
            f"condition must have shape ({batch},) or ({batch}, L), a row a sample; got {shape}"
        )
    return condition


def uniform_times(
    count: int,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> PerSample:
    """Times of a training batch, each equally likely (Liu et al. 2022, algorithm 1).

    Args:
        count: B, at least 1.
        generator: source of the times; None means torch's default generator.
        device: where they are needed.

    Returns:
        float32 (B,) in [0, 1].

    Raises:
        TypeError, ValueError: ``count`` is no such number, or so many do not fit in memory;
            ``generator`` or ``device`` is none.
    """
    count, device = _check_draw(count, generator, device)
    return _random.uniform(count, generator, device)


def logit_normal_times(
    count: int,
    *,
    mean: float = 0.0,
    std: float = 1.0,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> PerSample:
    """Times of a training batch, more of them in the middle: 1 / (1 + exp(-z)), z normal.

    Near time 0 and near time 1 the best answer is close to -x and to eps minus the mean of the
    data, and easy; what lies between is hard and decides what is drawn (Esser et al. 2024, "Scaling
    rectified flow transformers", sec. 3.1; mean 0 and std 1 there are the best of those they try).

    Args:
        count: B, at least 1.
        mean: of z, in [-50, 50]; below 0 moves the times towards the data.
        std: of z, in [0, 50].
        generator: source of the times; None means torch's default generator.
        device: where they are needed.

    Returns:
        float32 (B,) in [0, 1].

    Raises:
        TypeError, ValueError: a number outside its limits, or so many times do not fit in memory;
            ``generator`` or ``device`` is none.
    """
    count, device = _check_draw(count, generator, device)
    mean = _validate.number("mean", mean, low=-50.0, high=50.0)
    std = _validate.number("std", std, low=0.0, high=50.0)
    z = _random.normal_like(torch.empty(count, device=device), generator)
    return torch.sigmoid(mean + std * z)


def _check_draw(count: int, generator: object, device: object) -> tuple[int, torch.device]:
    count = _validate.whole_number("count", count, at_least=1)
    _validate.generator("generator", generator)
    place = _validate.device("device", device)
    _memory.check_fits("count", count, 4 * count, "so many times", place)
    return count, place
