"""The epsilon loss, and two choices: which t to draw, and how much each t counts."""

import math
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from tutorial_lib import _memory, _validate
from tutorial_lib._random import normal_like, uniform
from tutorial_lib._typing import EpsModel, PerSample, States, Steps
from tutorial_lib._validate import InvalidValueError
from tutorial_lib.flows import times_of
from tutorial_lib.forward import diffuse
from tutorial_lib.schedules import NoiseSchedule, check_num_steps, on_device

Weight = Callable[[NoiseSchedule, Steps], PerSample]
"""How much the squared error at each t counts: (B,) weights for steps ``t`` (B,)."""


@runtime_checkable
class StepSampler(Protocol):
    """Draws the steps of a training batch, and may learn from their losses.

    Attributes:
        learns: whether ``update`` changes anything; if not, it need not be called.
    """

    @property
    def learns(self) -> bool: ...

    def draw(
        self, count: int, *, generator: torch.Generator | None, device: torch.device | str
    ) -> tuple[Steps, PerSample]:
        """Steps (count,) in 1..T and their factors 1 / (T p_t), which keep the mean unbiased."""
        ...

    def update(self, t: Steps, losses: PerSample) -> None:
        """Learns from the losses (B,) at steps ``t`` (B,)."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Everything it has learned; empty if it learns nothing."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores what ``state_dict`` returned."""
        ...


def epsilon_losses(
    model: EpsModel, schedule: NoiseSchedule, x0: States, t: Steps, eps: States
) -> PerSample:
    """Mean squared error of the predicted noise, one number per sample (Ho et al. 2020, eq. 14).

    Args:
        model: the denoiser.
        schedule: the noise schedule.
        x0: clean data, (B, ...).
        t: int64 (B,), each in 1..T.
        eps: the noise to predict, of the shape of ``x0``.

    Raises:
        TypeError, ValueError: a tensor of the wrong type or shape or not finite, t out of 1..T, or
            a model whose answer does not hold floating-point numbers in the shape of ``x0``. On a
            CPU also an answer that is not finite, and numbers too large to square.
    """
    _validate.function("model", model)
    _validate.instance("schedule", schedule, NoiseSchedule)
    batch = len(_validate.batch("x0", x0))
    _validate.steps("t", t, batch=batch, low=1, high=schedule.num_steps, of="x0")
    eps_hat = _validate.answer("model", model(diffuse(schedule, x0, t, eps), t), x0)
    losses = (eps_hat - eps).square().flatten(1).mean(1)  # (B, ...) -> (B,)
    if not _validate.seems_finite(losses.detach()):
        _validate.finite("the answer of model", eps_hat)
        what = f"x0 or the answer of model is too large for a loss in {losses.dtype}"
        raise InvalidValueError(f"{what}: it overflows")
    return losses


def epsilon_loss(
    model: EpsModel,
    schedule: NoiseSchedule,
    x0: States,
    *,
    generator: torch.Generator | None = None,
    sampler: StepSampler | None = None,
    weight: Weight | None = None,
) -> Tensor:
    """The training loss: add noise to ``x0`` at random t, predict it, average the squared error.

    Ho et al. 2020, eq. 14 and algorithm 1: t uniform on 1..T, one t and one noise per sample.

    Args:
        model: the denoiser to train.
        schedule: the noise schedule.
        x0: clean data, (B, ...), B at least 1.
        generator: source of t and the noise; None means torch's default generator.
        sampler: draws t; None means uniformly.
        weight: how much each t counts; None means all the same.

    Returns:
        A scalar with its gradient.

    Raises:
        TypeError, ValueError: ``x0`` is not a finite floating-point batch or is empty; the model's
            answer has another shape, or is not finite (seen on a CPU only: on an accelerator the
            check would make every step wait); ``weight`` or ``sampler`` does not give one number
            per sample.
    """
    _validate.instance("schedule", schedule, NoiseSchedule)
    if not len(_validate.batch("x0", x0)):
        raise InvalidValueError("x0 must hold at least one sample, got an empty batch")
    _validate.generator("generator", generator)
    if sampler is None:
        sampler = UniformSteps(schedule.num_steps)
    _validate.instance("sampler", sampler, StepSampler)
    t, correction = sampler.draw(len(x0), generator=generator, device=x0.device)
    losses = epsilon_losses(model, schedule, x0, t, normal_like(x0, generator))
    if weight is not None:
        _validate.function("weight", weight)
        losses = _one_each("weight", weight(schedule, t), losses) * losses
    sampler.update(t, losses.detach())
    loss = (_one_each("the factors of sampler", correction, losses) * losses).mean()
    if not _validate.seems_finite(loss.detach()):
        raise InvalidValueError("weight must be smaller: the loss overflows")
    return loss


def _one_each(name: str, factors: Tensor, losses: PerSample) -> PerSample:
    """``factors`` in the dtype of ``losses`` (B,); (B, 1) would broadcast to a wrong mean."""
    _validate.finite(name, _validate.floating(name, factors))
    if factors.shape != losses.shape:
        got, expected = tuple(factors.shape), tuple(losses.shape)
        raise InvalidValueError(
            f"{name} must have shape {expected}, one number per sample; got {got}"
        )
    return factors.to(losses)


class _FixedSteps:
    """What the step samplers that do not learn have in common."""

    learns = False

    def __init__(self, num_steps: int) -> None:
        self.num_steps = check_num_steps(num_steps)

    def update(self, t: Steps, losses: PerSample) -> None:
        """Learns nothing: the distribution of t stays as it is."""

    def state_dict(self) -> dict[str, Tensor]:
        """Empty: there is nothing to store."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores nothing: nothing is stored."""


class UniformSteps(_FixedSteps):
    """Each t in 1..T equally likely, independently per sample (Ho et al. 2020, algorithm 1)."""

    def draw(
        self,
        count: int,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> tuple[Steps, PerSample]:
        """Steps (count,) in 1..T and the factors (count,), all 1."""
        where = device if generator is None else generator.device
        t = torch.randint(1, self.num_steps + 1, (count,), generator=generator, device=where)
        return t.to(device), torch.ones(count, device=device)


def _one_in_each(
    count: int, generator: torch.Generator | None, device: torch.device | str
) -> Tensor:
    """Numbers (count,) in [0, 1), one drawn in each of ``count`` equal intervals, in order."""
    draws = uniform(count, generator, device)
    # float64, since float32 would occasionally round a draw into the next interval
    wide = draws if draws.device.type == "mps" else draws.double()
    return (torch.arange(count, device=device) + wide) / count


def _steps_at(position: Tensor, num_steps: int) -> Steps:
    """The steps in 1..T at these shares, in [0, 1), of the way."""
    return (position * num_steps).long().clamp(max=num_steps - 1) + 1


class StratifiedSteps(_FixedSteps):
    """Uniform on 1..T over many batches, evenly spread within each one.

    The range is divided into as many equal intervals as the batch has samples, and t is drawn once
    in each (the low-discrepancy sampler of Kingma et al. 2021, "Variational diffusion models", app.
    I.1, with one draw per interval). Each sample's t is still uniform; the loss only varies less.
    """

    def draw(
        self,
        count: int,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> tuple[Steps, PerSample]:
        """Steps (count,) in 1..T, one in each interval, and the factors (count,), all 1."""
        t = _steps_at(_one_in_each(count, generator, device), self.num_steps)
        return t, torch.ones(count, device=device)


class NoisySteps(_FixedSteps):
    """More of the noisy steps: t = T u^(1/power), so that p_t grows as t^(power - 1).

    u is drawn once in each of as many equal intervals of [0, 1) as the batch has samples. The
    factors are all 1: unlike importance sampling this is meant to change what the loss weighs. What
    a picture shows, and where, is decided at high noise; details come later.

    Args:
        num_steps: T.
        power: how strongly t leans to T, at least 1, where it is uniform; with 2, p_t grows in
            proportion to t, with 16 four in five draws are in the noisiest tenth.

    Raises:
        TypeError, ValueError: ``num_steps`` is not an int of 1 or more, ``power`` not a finite
            number of 1 or more.
    """

    def __init__(self, num_steps: int, power: float = 2.0) -> None:
        super().__init__(num_steps)
        self.power = _validate.number("power", power, low=1.0, high=math.inf)

    def draw(
        self,
        count: int,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> tuple[Steps, PerSample]:
        """Steps (count,), one from each interval of u, and the factors (count,), all 1."""
        position = _one_in_each(count, generator, device) ** (1 / self.power)
        return _steps_at(position, self.num_steps), torch.ones(count, device=device)


class ImportanceSteps:
    """Draws those t more often whose losses are large: p_t proportional to sqrt(E[L_t^2]).

    Nichol & Dhariwal 2021, sec. 3.3 (they use it for L_vlb). Uniform until every t has its
    ``history`` losses; from then on the factor 1 / (T p_t) keeps the expected loss unchanged.

    Args:
        num_steps: T.
        history: number of recent losses stored for each t.
        uniform_share: the share of draws that stay uniform, so that every t is drawn now and then
            (0.001 in the authors' code).
    """

    learns = True

    def __init__(self, num_steps: int, *, history: int = 10, uniform_share: float = 0.001) -> None:
        self.num_steps = check_num_steps(num_steps)
        self.history = _validate.whole_number("history", history, at_least=1)
        self.uniform_share = _validate.number("uniform_share", uniform_share, low=0.0, high=1.0)
        # One more place than losses, for those that newer ones of the same batch replace.
        needed = 8 * self.num_steps * self.history
        _memory.check_fits("history", self.history, needed, "so many losses of each step")
        self._losses = torch.zeros(self.num_steps * self.history + 1, dtype=torch.float64)
        self._seen = torch.zeros(self.num_steps, dtype=torch.int64)

    @property
    def probabilities(self) -> Tensor:
        """p_t for t = 1..T, sums to 1; float64 (T,), or float32 on MPS, which lacks float64."""
        last = self._losses[:-1].view(self.num_steps, self.history)
        size = last.square().mean(1).sqrt()
        flat = torch.full_like(size, 1 / self.num_steps)
        total = size.sum()
        learned = size / total.clamp(min=torch.finfo(size.dtype).tiny)
        learned = (1 - self.uniform_share) * learned + self.uniform_share * flat
        # No `if`: on an accelerator it would wait for the numbers. All losses are 0 if the model is
        # perfect; then no step is preferred.
        return torch.where((self._seen >= self.history).all() & (total > 0), learned, flat)

    def draw(
        self,
        count: int,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> tuple[Steps, PerSample]:
        """Steps (count,) in 1..T and the factors 1 / (T p_t) (count,)."""
        self._move(torch.device(device))
        p = self.probabilities
        draws = uniform(count, generator, device).to(p)
        index = torch.searchsorted(p.cumsum(0), draws, right=True).clamp(max=self.num_steps - 1)
        factor = 1 / (self.num_steps * p[index])
        return index + 1, factor.float()

    def update(self, t: Steps, losses: PerSample) -> None:
        """Stores ``losses`` (B,) as the newest ones of their steps ``t`` (B,).

        Raises:
            ValueError: a loss is NaN or infinite, which would spoil every later draw. Checked on
                the CPU only, for the reason given in ``_validate.steps``.
        """
        _validate.steps("t", t, batch=len(losses), low=1, high=self.num_steps)
        _validate.finite("losses", losses)
        self._move(t.device)
        order = t.argsort(stable=True)
        index, values = t[order] - 1, losses[order].to(self._losses)
        alike = torch.zeros_like(self._seen).index_add_(0, index, torch.ones_like(index))
        begins = (alike.cumsum(0) - alike)[index]  # where the losses of the same step begin
        place = torch.arange(len(index), device=index.device) - begins  # 0, 1, ... in each step
        slot = index * self.history + (self._seen[index] + place) % self.history
        pushed_out = place < alike[index] - self.history
        self._losses[slot.masked_fill(pushed_out, len(self._losses) - 1)] = values
        self._seen += alike

    def state_dict(self) -> dict[str, Tensor]:
        """Everything it has learned; ``load_state_dict`` continues from it."""
        return {"losses": self._losses, "seen": self._seen}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores what ``state_dict`` returned, on the current device."""
        self._losses.copy_(state["losses"])
        self._seen.copy_(state["seen"])

    def _move(self, device: torch.device) -> None:
        """Keeps the stored losses on ``device``, so that no draw waits for another device."""
        if self._seen.device.type == device.type and device.index in (
            None,
            self._seen.device.index,
        ):
            return
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self._losses, self._seen = self._losses.to(device, dtype), self._seen.to(device)


class TimeSteps(_FixedSteps):
    """Draws the time of a flow, and takes the step of the schedule whose time is the nearest.

    The factors are all 1: here the way of drawing is a choice of what counts, as in flow matching,
    and nothing takes it back (``ImportanceSteps`` only makes the same mean less noisy).

    Args:
        schedule: says which time each step has, see ``flows.times_of``.
        times: draws them, called as ``times(count, generator=..., device=...)``;
            ``flows.uniform_times`` or ``flows.logit_normal_times``.
    """

    def __init__(self, schedule: NoiseSchedule, times: Callable[..., PerSample]) -> None:
        _validate.function("times", times)
        grid = times_of(schedule)
        super().__init__(schedule.num_steps)
        self.times = times
        self._borders = (grid[1:-1] + grid[2:]) / 2  # (T - 1,) between the times of steps 1..T

    def draw(
        self,
        count: int,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> tuple[Steps, PerSample]:
        """Steps (count,) in 1..T and the factors (count,), all 1."""
        time = self.times(count, generator=generator, device=device)
        borders = on_device(self._borders, time.device)
        return torch.bucketize(time.to(borders), borders) + 1, torch.ones(count, device=device)


def v_weight(schedule: NoiseSchedule, t: Steps) -> PerSample:
    """1 / alpha_bar_t = (SNR + 1) / SNR: makes the eps loss the squared error of v.

    An error of d in v is an error of sqrt(alpha_bar_t) d in eps (Salimans & Ho 2022, sec. 4).
    """
    return 1 / _look_up(schedule, "alpha_bar", t)


def x0_weight(schedule: NoiseSchedule, t: Steps) -> PerSample:
    """1 / SNR: makes the eps loss the squared error of x_0, which follows from ``predict_x0``."""
    return 1 / _look_up(schedule, "snr", t)


def velocity_weight(schedule: NoiseSchedule, t: Steps) -> PerSample:
    """((signal + noise) / signal)^2: makes the eps loss the squared error of a flow's velocity.

    An error of d in the velocity eps - x_0 is an error of (1 - time) d in eps, and 1 - time is
    signal / (signal + noise) (``flows``). This is the plain loss of flow matching.
    """
    signal, noise = (_look_up(schedule, name, t) for name in ("signal_rate", "noise_rate"))
    return ((signal + noise) / signal).square()


def min_snr_weight(schedule: NoiseSchedule, t: Steps, *, gamma: float = 5.0) -> PerSample:
    """min(SNR, gamma) / SNR for the eps loss (Hang et al. 2023, sec. 3.4; gamma = 5 there).

    Raises:
        TypeError, ValueError: ``gamma`` is not a finite number above 0; t out of 1..T.
    """
    gamma = _validate.number("gamma", gamma, low=0.0, high=float("inf"))
    if gamma == 0:
        raise InvalidValueError("gamma must be above 0, got 0: every weight would be 0")
    snr = _look_up(schedule, "snr", t)
    return snr.clamp(max=gamma) / snr


def p2_weight(
    schedule: NoiseSchedule, t: Steps, *, k: float = 1.0, gamma: float = 1.0
) -> PerSample:
    """1 / (k + SNR)^gamma for the eps loss (Choi et al. 2022, eq. 8; k = 1, gamma = 1 there).

    Raises:
        TypeError, ValueError: ``k`` or ``gamma`` is not a finite number of at least 0; t out of
            1..T.
    """
    k = _validate.number("k", k, low=0.0, high=float("inf"))
    gamma = _validate.number("gamma", gamma, low=0.0, high=float("inf"))
    return 1 / (k + _look_up(schedule, "snr", t)) ** gamma


def _look_up(schedule: NoiseSchedule, name: str, t: Steps) -> PerSample:
    """The entries of ``schedule.name`` at steps ``t`` (B,), each in 1..T."""
    _validate.instance("schedule", schedule, NoiseSchedule)
    batch = t.numel() if isinstance(t, Tensor) else 1
    _validate.steps("t", t, batch=batch, low=1, high=schedule.num_steps)
    return on_device(getattr(schedule, name), t.device)[t]
