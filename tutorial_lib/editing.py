"""Editing: pictures changed, completed and enlarged by a model that was never trained for it.

A walk is a loop, and between two of its steps there is room for a constraint: put the known part of
a picture back (``inpaint``), start from a picture instead of noise (``edit``), or go a little
downhill towards what was measured (``solve_linear``). ``consistent`` constrains x0_hat inside a
model, as ``predictions.clip_x0`` does.

Each takes any denoiser, so a guided one too (``guidance.guide``), and walks with any sampler of
``samplers.SAMPLERS``. A sampler's own options go in by ``functools.partial(ddim, eta=1.0)``.
"""

import inspect
import math
from collections.abc import Callable, Generator, Iterator, Sequence

import torch
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._random import Streams, normal_like
from tutorial_lib._typing import EpsModel, States, Steps
from tutorial_lib._validate import InvalidTypeError, InvalidValueError
from tutorial_lib.forward import diffuse, predict_eps, predict_x0
from tutorial_lib.samplers import Sampler, SampleStep, ddim
from tutorial_lib.samplers.walk import check_start, check_walk
from tutorial_lib.schedules import NoiseSchedule

Linear = Callable[[Tensor], Tensor]
"""A linear map of each member of a batch: (B, ...) to (B, ...), by operations of torch."""

MOST_RESAMPLINGS = 1000
_SEED = 20  # of the numbers that maps are tried on


def edit(
    model: EpsModel,
    schedule: NoiseSchedule,
    x0: States,
    timesteps: Sequence[int] | Tensor,
    strength: float,
    *,
    sampler: Sampler = ddim,
    generator: torch.Generator | Streams | None = None,
) -> Iterator[SampleStep]:
    """Image to image: noises a picture part of the way, and walks back (SDEdit, Meng et al. 2022).

    Of the n strides of ``timesteps`` the last round(strength n) are taken, so half the strength is
    half the work. Where the first of them starts, x_t is drawn from x0 by the jump.

    Args:
        model: predicts the noise in x_t; what it was told decides what the picture becomes.
        schedule: the schedule that the model was trained for.
        x0: the clean pictures to change, (B, ...), in float32 or float64.
        timesteps: the whole walk, falling strictly within T..0.
        strength: in (0, 1], the share of the walk that is taken. 1 takes all of it, and still
            begins with what the schedule leaves of x0 at its last step.
        sampler: one of ``SAMPLERS``, or called like one.
        generator: where the noise comes from, that of the jump first; None means torch's default.

    Yields:
        ``SampleStep`` at each step reached, the last at the end of ``timesteps``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or range; a strength so small
            that no stride is left. During the walk, as the sampler.
    """
    check_start(x0, "x0")
    walk = check_walk(model, schedule, x0, timesteps)
    _check_sampler(sampler)
    strength = _validate.number("strength", strength, low=0.0, high=1.0)
    count = math.floor(strength * (len(walk) - 1) + 0.5)
    if count == 0:
        least = 0.5 / (len(walk) - 1)
        raise InvalidValueError(
            f"strength must leave a stride to take: at least {least:.3g} of {len(walk) - 1} "
            f"strides; got {strength:g}"
        )
    rest = walk[-count - 1 :]
    start = _noised(schedule, x0, rest[0], generator)
    return sampler(model, schedule, start, rest, generator=generator)


def inpaint(
    model: EpsModel,
    schedule: NoiseSchedule,
    x_T: States,
    timesteps: Sequence[int] | Tensor,
    known: States,
    mask: Tensor,
    *,
    resamplings: int = 1,
    sampler: Sampler = ddim,
    generator: torch.Generator | Streams | None = None,
) -> Iterator[SampleStep]:
    """Completes pictures by replacement (RePaint, Lugmayr et al. 2022, algorithm 1).

    After each step to s, the known part is put back, noised to the *same* step s with new noise:
    x_s = mask diffuse(known, s) + (1 - mask) x_s. At s = 0 that is the known part itself.

    Replacement alone does not draw from the posterior: the part that is drawn has not seen the
    known part of its own step. With ``resamplings`` = r, each step is taken r times; between two of
    them the state goes back up by the chain, x_t = sqrt(a) x_s + sqrt(1 - a) z, a = abar_t /
    abar_s, so that both parts get time to agree. A step to 0 is taken once, as in the paper.

    Args:
        model: predicts the noise in x_t.
        schedule: the schedule that the model was trained for.
        x_T: the state at ``timesteps[0]``, (B, ...): noise if that is T. Its known part is
            replaced at once.
        timesteps: falls strictly within T..0; see ``samplers.evenly_spaced``.
        known: the clean pictures, in the shape of ``x_T``; read only where ``mask`` is True.
        mask: bool, **True where the picture is known** (``diffusers`` means the opposite), in the
            shape of ``x_T`` or one that broadcasts to it, as (1, H, W) does.
        resamplings: r, how often each step is taken, 1 to 1000; the walk takes r times as long.
            With more than 1, a multistep sampler starts anew in each step, at first order.
        sampler: one of ``SAMPLERS``, or called like one; it must go on from what its generator is
            sent (``samplers.walk``).
        generator: where all noise comes from; None means torch's default.

    Yields:
        ``SampleStep`` at timesteps[1], timesteps[2], ..., with the known part put back in ``x_t``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or range; during the walk, as
            the sampler.
    """
    walk = check_walk(model, schedule, x_T, timesteps)
    _check_sampler(sampler)
    _validate.same_shape("known", known, "x_T", x_T)
    mask = _check_mask(mask, x_T)
    repeats = _validate.whole_number(
        "resamplings", resamplings, at_least=1, at_most=MOST_RESAMPLINGS
    )
    known = known.to(x_T)

    def put_back(x_s: Tensor, s: int) -> Tensor:
        return torch.where(mask, _noised(schedule, known, s, generator), x_s)

    def constrain(step: SampleStep) -> Tensor:
        return put_back(step.x_t, step.t)

    def one_step(x_t: Tensor, t: int, s: int) -> SampleStep:
        step = next(iter(sampler(model, schedule, x_t, [t, s], generator=generator)))
        return step._replace(x_t=constrain(step))

    def resampled() -> Iterator[SampleStep]:
        x = put_back(x_T, walk[0])
        for t, s in zip(walk[:-1], walk[1:], strict=True):
            step = one_step(x, t, s)
            for _ in range(repeats - 1 if s > 0 else 0):
                step = one_step(_back_up(schedule, step.x_t, s, t, generator), t, s)
            yield step
            x = step.x_t

    if repeats > 1:
        return resampled()
    start = put_back(x_T, walk[0])
    return _changed(sampler(model, schedule, start, walk, generator=generator), constrain)


def solve_linear(
    model: EpsModel,
    schedule: NoiseSchedule,
    x_T: States,
    timesteps: Sequence[int] | Tensor,
    y: Tensor,
    A: Linear,
    *,
    scale: float = 1.0,
    sampler: Sampler = ddim,
    generator: torch.Generator | Streams | None = None,
) -> Iterator[SampleStep]:
    """Pictures of which ``y`` = A x_0 was measured: diffusion posterior sampling, DPS.

    After each step from t to s: x_s -= scale times the gradient, with respect to x_t, of the norm
    of y - A x0_hat(x_t), for each sample of its own (Chung et al. 2023, algorithm 1; their step
    size zeta' / norm times the gradient of the squared norm is ours with scale = 2 zeta'). The
    gradient goes back through the model, so a step costs about three evaluations instead of one.

    Args:
        model: predicts the noise in x_t; gradients must pass through it.
        schedule: the schedule that the model was trained for.
        x_T: the state at ``timesteps[0]``, (B, ...): noise if that is T.
        timesteps: falls strictly within T..0; see ``samplers.evenly_spaced``.
        y: what was measured, in the shape that ``A`` gives for ``x_T``.
        A: linear, and differentiable: made of operations of torch. For example
            ``lambda x: torch.nn.functional.avg_pool2d(x, 2)``, or the mean over colors.
        scale: how far to go downhill in each step, finite and at least 0; 0 ignores ``y``.
        sampler: one of ``SAMPLERS``, or called like one; it must go on from what its generator is
            sent (``samplers.walk``).
        generator: where the sampler's noise comes from; None means torch's default.

    Yields:
        ``SampleStep`` at timesteps[1], timesteps[2], ..., corrected in ``x_t``.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or range, an ``A`` that is not
            linear; during the walk, as the sampler, or if no gradient passes through the model.
    """
    walk = check_walk(model, schedule, x_T, timesteps)
    _check_sampler(sampler)
    y = _check_measured(y, A, x_T)
    scale = _validate.number("scale", scale, low=0.0, high=math.inf)
    uphill: list[Tensor] = []  # the gradient where the step began

    def watched(x_t: States, t: Steps, /) -> States:
        if uphill:  # Heun's second question in a step
            return model(x_t, t)
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            eps_hat = _validate.answer("model", model(x, t), x)
            if not eps_hat.requires_grad:
                raise InvalidValueError("model must let gradients pass, got an answer without")
            missed = (y - A(predict_x0(schedule, x, t, eps_hat))).flatten(1)
            (gradient,) = torch.autograd.grad(missed.norm(dim=1).sum(), x)
        uphill.append(gradient)
        return eps_hat.detach()

    def downhill(step: SampleStep) -> Tensor:
        return step.x_t - scale * uphill.pop()

    return _changed(sampler(watched, schedule, x_T, walk, generator=generator), downhill)


def consistent(
    model: EpsModel, schedule: NoiseSchedule, y: Tensor, A: Linear, back: Linear
) -> EpsModel:
    """A denoiser whose x0_hat agrees with ``y`` = A x_0 exactly (DDNM, Wang et al. 2023, eq. 8).

    x0_hat becomes x0_hat + back(y - A x0_hat): its part that ``A`` sees is replaced, the rest is
    the model's. It needs no gradient, so it costs next to nothing.

    Args:
        model: predicts the noise in x_t.
        schedule: the schedule that the model was trained for.
        y: what was measured, (B, ...).
        A: linear: from (B, ...) in the shape of x_t to the shape of ``y``.
        back: linear, with A(back(y)) = y: a right inverse of ``A``. For means of 2 x 2 pixels it
            repeats each pixel; the adjoint alone is too small there, by a factor of 4.

    Raises:
        TypeError, ValueError: ``y`` is not finite, ``back`` is no right inverse of ``A``; when the
            model is asked, an answer or a batch of another shape.
    """
    _validate.function("model", model)
    _validate.instance("schedule", schedule, NoiseSchedule)
    _validate.batch("y", y)
    _validate.function("A", A)
    _validate.function("back", back)
    probe = _probe(y)
    _check_linear("back", back, probe)
    lifted = _validate.floating("the answer of back", back(probe))
    _check_linear("A", A, lifted)
    again = A(lifted)
    if again.shape != y.shape:
        got, expected = tuple(again.shape), tuple(y.shape)
        raise InvalidValueError(f"A must bring back(y) to the shape of y, {expected}; got {got}")
    off = (again - probe).abs().max().item() if probe.numel() else 0.0
    if off > 1e-4:
        raise InvalidValueError(
            f"back must be a right inverse of A, with A(back(y)) = y; they differ by {off:.2g}. "
            "The adjoint of A is one only if A has orthonormal rows"
        )

    def constrained(x_t: States, t: Steps, /) -> States:
        eps_hat = _validate.answer("model", model(x_t, t), x_t)
        x0_hat = predict_x0(schedule, x_t, t, eps_hat)
        seen = A(x0_hat)
        if seen.shape != y.shape:  # broadcasting would give wrong numbers silently
            got, expected = tuple(seen.shape), tuple(y.shape)
            raise InvalidValueError(f"A must answer with the shape of y, {expected}; got {got}")
        return predict_eps(schedule, x_t, t, x0_hat + back(y.to(x0_hat) - seen))

    return constrained


def _changed(
    steps: Iterator[SampleStep], change: Callable[[SampleStep], Tensor]
) -> Iterator[SampleStep]:
    """The steps of a walk that goes on from ``change(step)`` after each of them."""
    if not isinstance(steps, Generator):
        got = _validate.describe(steps)
        raise InvalidTypeError(f"sampler must return a generator, to be sent states; got {got}")

    def walk() -> Iterator[SampleStep]:
        step = next(steps)
        while True:
            with torch.no_grad():
                x_s = change(step)
            yield step._replace(x_t=x_s)
            try:
                step = steps.send(x_s)
            except StopIteration:
                return

    return walk()


def _noised(
    schedule: NoiseSchedule, x0: Tensor, s: int, generator: torch.Generator | Streams | None
) -> Tensor:
    """x0 after s noisings, by the jump; draws nothing at 0."""
    if s == 0:
        return x0
    steps = torch.full((len(x0),), s, dtype=torch.int64, device=x0.device)
    return diffuse(schedule, x0, steps, normal_like(x0, generator))


def _back_up(
    schedule: NoiseSchedule,
    x_s: Tensor,
    s: int,
    t: int,
    generator: torch.Generator | Streams | None,
) -> Tensor:
    """x_t from x_s, t > s, by the chain: several noisings at once (Ho et al. 2020, eq. 2)."""
    kept = float(schedule.alpha_bar[t] / schedule.alpha_bar[s])
    return math.sqrt(kept) * x_s + math.sqrt(1 - kept) * normal_like(x_s, generator)


def _check_sampler(sampler: object) -> None:
    """Raises TypeError unless ``sampler`` can be called like those in ``SAMPLERS``."""
    _validate.function("sampler", sampler)
    if inspect.isgenerator(sampler):
        raise InvalidTypeError("sampler must be a sampler itself, such as ddim, got a walk")


def _check_mask(mask: object, x: Tensor) -> Tensor:
    """``mask`` in the shape of ``x``, if it is bool and says something of each of its numbers."""
    if not isinstance(mask, Tensor):
        raise InvalidTypeError(
            f"mask must be a bool tensor, True where known; got {_validate.describe(mask)}"
        )
    if mask.dtype != torch.bool:
        raise InvalidTypeError(f"mask must be bool, True where known; got {mask.dtype}")
    _validate.held("mask", mask)
    got, expected = tuple(mask.shape), tuple(x.shape)
    fits = mask.ndim in (x.ndim - 1, x.ndim) and all(
        own in (1, wanted) for own, wanted in zip(reversed(got), reversed(expected), strict=False)
    )
    if not fits:
        raise InvalidValueError(
            f"mask must have the shape of x_T, {expected}, or of one sample; got {got}"
        )
    return mask.to(x.device).expand(x.shape)


def _check_measured(y: object, A: Linear, x: Tensor) -> Tensor:
    """``y`` in the dtype of ``x``, if the linear ``A`` gives its shape for ``x``."""
    _validate.function("A", A)
    seen = _check_linear("A", A, x)
    measured = _validate.batch("y", y)
    if seen.shape != measured.shape:
        got, expected = tuple(measured.shape), tuple(seen.shape)
        raise InvalidValueError(
            f"y must have the shape that A gives for x_T, {expected}; got {got}"
        )
    return measured.to(x)


def _check_linear(name: str, linear: Callable[[Tensor], object], like: Tensor) -> Tensor:
    """``linear`` of a batch like ``like``; an error unless it is linear and keeps the batch."""
    with torch.no_grad():
        a, b = _probe(like), _probe(like, _SEED + 1)
        both, first, second = (linear(x) for x in (2 * a + b, a, b))
    for found in (both, first, second):
        tensor = _validate.floating(f"the answer of {name}", found)
        if tensor.ndim < 1 or len(tensor) != len(like):
            got = tuple(tensor.shape)
            raise InvalidValueError(f"{name} must keep the batch, {len(like)} samples; got {got}")
    expected = 2 * first + second  # pyright: ignore[reportOperatorIssue]
    if not torch.allclose(both, expected, rtol=1e-3, atol=1e-3):  # pyright: ignore
        raise InvalidValueError(
            f"{name} must be linear, {name}(2 a + b) = 2 {name}(a) + {name}(b); it is not"
        )
    return first  # pyright: ignore[reportReturnType]


def _probe(like: Tensor, seed: int = _SEED) -> Tensor:
    return normal_like(like, torch.Generator().manual_seed(seed))
