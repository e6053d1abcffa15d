"""What all samplers share: the steps they yield, the walk that yields them, and how it is run.

A sampler is a generator. It checks its arguments when called, then yields a ``SampleStep`` for each
step it takes: the step just reached, the state there, and what the model predicted on the way.
Plots, explorers and progress bars read that one stream; ``last`` runs it to its end.

A sampler's file holds a function ``step(x_t, t, s)``, which is the algorithm, and hands it to
``walk``. The arithmetic below makes as few passes over memory as it can and reuses results nobody
else holds: that is most of what a step costs beyond the network.
"""

import inspect
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._random import Streams, normal_like
from tutorial_lib._typing import EpsModel, States
from tutorial_lib._validate import InvalidTypeError, InvalidValueError
from tutorial_lib.samplers.timesteps import check_timesteps
from tutorial_lib.schedules import NoiseSchedule


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


@runtime_checkable
class Sampler(Protocol):
    """How every sampler can be called; more keyword arguments are options of its own."""

    def __call__(
        self,
        model: EpsModel,
        schedule: NoiseSchedule,
        x_T: Tensor,
        timesteps: Sequence[int] | Tensor,
        *,
        generator: torch.Generator | Streams | None = None,
    ) -> Iterator[SampleStep]: ...


def options_of(sampler: Sampler) -> tuple[str, ...]:
    """The names of a sampler's own options: its keyword arguments other than ``generator``."""
    parameters = inspect.signature(sampler).parameters.values()
    return tuple(p.name for p in parameters if p.kind == p.KEYWORD_ONLY and p.name != "generator")


def walks_every_step(sampler: Sampler) -> bool:
    """Whether a sampler takes every step of the schedule if called without ``timesteps``."""
    return inspect.signature(sampler).parameters["timesteps"].default is None


def last(steps: Iterable[SampleStep]) -> States:
    """Walks to the end and returns the state there, x_0.

    Raises:
        ValueError: the walk has no step, or ends on NaN or infinity.
    """
    end = deque(steps, maxlen=1)
    if not end:
        raise InvalidValueError("steps must hold at least one step, got an empty walk")
    x_0 = end[0].x_t
    if not x_0.isfinite().all():
        raise InvalidValueError(
            "steps must end on finite numbers, got NaN or infinity from the model"
        )
    return x_0


def walk(
    step: Callable[[Tensor, int, int], SampleStep], x: Tensor, timesteps: Sequence[int]
) -> Generator[SampleStep, Tensor | None, None]:
    """Yields ``step(x_t, t, s)`` for each pair t > s of ``timesteps``, from the state ``x`` on.

    A state that is sent to it (``generator.send``) is where it goes on, in the place of the one it
    has reached: so may a walk be constrained between two of its steps (``editing``).

    Raises:
        ValueError: a step's ``eps_hat`` is not finite.
    """
    for t, s in zip(timesteps[:-1], timesteps[1:], strict=True):
        with torch.no_grad():  # not around the yield: it would reach the caller's code
            reached = step(x, t, s)
            x = reached.x_t
            # An eps_hat that is not finite makes x so too. Look at x first: it is still cached.
            if not _validate.seems_finite(x):
                _validate.finite(f"the answer of model at t = {t}", reached.eps_hat)
        sent = yield reached
        if sent is not None:
            x = sent


def ask(model: EpsModel, x_t: Tensor, t: int) -> Tensor:
    """eps_hat at step t for the whole batch, in the dtype and memory layout of ``x_t``.

    Raises:
        TypeError, ValueError: the answer is not a tensor of floating-point numbers in the shape of
            ``x_t``.
    """
    steps = torch.full((len(x_t),), t, dtype=torch.int64, device=x_t.device)
    eps_hat = _validate.answer("model", model(x_t, steps), x_t)
    if eps_hat.dtype == x_t.dtype and eps_hat.stride() == x_t.stride():
        return eps_hat
    # A network may answer in bfloat16, or with its channels last. Each sum of tensors of different
    # layouts costs five times what it costs of two with the same.
    return torch.empty_like(x_t).copy_(eps_hat)


def take_out(amount: float, eps: Tensor, x: Tensor, scale: float) -> Tensor:
    """(x - amount eps) / scale, a new tensor."""
    return torch.sub(x, eps, alpha=amount).div_(scale)


def mix(a: float, x: Tensor, b: float, y: Tensor) -> Tensor:
    """a x + b y, a new tensor."""
    return (a * x).add_(y, alpha=b)


def add_noise(x: Tensor, sigma: float, generator: torch.Generator | Streams | None) -> Tensor:
    """x + sigma z with z standard normal, in the memory of ``x``; draws nothing if sigma is 0."""
    return x.add_(normal_like(x, generator), alpha=sigma) if sigma > 0 else x


def check_walk(
    model: object,
    schedule: NoiseSchedule,
    x_T: object,
    timesteps: Sequence[int] | Tensor | None,
    *,
    none_is_all: bool = False,
) -> list[int]:
    """``timesteps`` as a list, if a walk can begin with these arguments of a sampler.

    With ``none_is_all``, None stands for every step.

    Raises:
        TypeError, ValueError: it cannot.
    """
    _validate.function("model", model)
    _validate.instance("schedule", schedule, NoiseSchedule)
    check_start(x_T)
    if timesteps is None and none_is_all:
        timesteps = range(schedule.num_steps, -1, -1)
    return check_timesteps(timesteps, schedule.num_steps)


def check_start(x_T: object, name: str = "x_T") -> Tensor:
    """``x_T`` if it is a finite batch in float32 or float64; else a TypeError or ValueError."""
    start = _validate.floating(name, x_T)
    if start.dtype not in (torch.float32, torch.float64):
        # half precision rounds most of a small step away; a model may still compute in it
        raise InvalidTypeError(f"{name} must be float32 or float64, got {start.dtype}")
    if start.ndim < 2:
        raise InvalidValueError(f"{name} must have shape (B, ...), got {tuple(start.shape)}")
    if not start.isfinite().all():
        raise InvalidValueError(f"{name} must be finite, got NaN or infinity")
    return start
