"""Noise schedules: how much of the image is left after t noisings.

A schedule *is* one tensor, ``alpha_bar``: entry t is the share of the signal's variance that is
left after t noisings. Every other quantity that papers name follows from it.

| here                 | paper                 | entries        |
|----------------------|-----------------------|----------------|
| ``alpha_bar[t]``     | alpha-bar_t           | T + 1, t = 0.. |
| ``signal_rate[t]``   | sqrt(alpha-bar_t)     | T + 1          |
| ``noise_rate[t]``    | sqrt(1 - alpha-bar_t) | T + 1          |
| ``snr[t]``           | alpha-bar_t / (1 - alpha-bar_t) | T + 1 |
| ``beta[t - 1]``      | beta_t                | T, t = 1..     |
| ``alpha[t - 1]``     | alpha_t = 1 - beta_t  | T              |
| ``posterior_variance[t - 1]`` | beta-tilde_t | T              |

Steps count noisings: 0 is clean data, and they run 1..T as in Ho et al. 2020. In libraries that
count 0..T-1, our step t is called t - 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._validate import InvalidTypeError, InvalidValueError

LARGEST_NUM_STEPS = 2**24
"""Most steps T: float32, in which networks get t, cannot tell all of more steps apart."""
SMALLEST_ALPHA_BAR = 1e-60
"""Below it signal_rate is under 1e-30, and predicting x_0 overflows float32 and gives NaN."""


@dataclass(frozen=True, eq=False, repr=False)
class NoiseSchedule:
    """A frozen noise schedule, given by ``alpha_bar``.

    Args:
        alpha_bar: shape (T + 1,), floating point; starts at exactly 1, falls strictly, stays
            at 1e-60 or more. Stored as float64.

    Raises:
        TypeError: ``alpha_bar`` is not a floating-point tensor.
        ValueError: it has fewer than two entries or more than one axis, contains NaN, does not
            start at 1, does not fall strictly, or ends below 1e-60 (then x_0 could not be predicted
            in float32).
    """

    alpha_bar: Tensor

    def __post_init__(self) -> None:
        alpha_bar = _validate.floating("alpha_bar", self.alpha_bar).detach()
        if alpha_bar.device.type != "mps":  # MPS has no float64
            alpha_bar = alpha_bar.double()
        if alpha_bar.ndim != 1 or len(alpha_bar) < 2:
            shape = tuple(alpha_bar.shape)
            raise InvalidValueError(f"alpha_bar must have shape (T + 1,) with T >= 1, got {shape}")
        if alpha_bar.isnan().any():
            raise InvalidValueError(
                f"alpha_bar is NaN at t = {int(alpha_bar.isnan().nonzero()[0])}"
            )
        if alpha_bar[0] != 1:
            first = float(alpha_bar[0])
            raise InvalidValueError(
                f"alpha_bar must start at 1 (t = 0 is clean data), got {first:.6g}"
            )
        rises = (alpha_bar.diff() >= 0).nonzero()
        if len(rises):
            t = int(rises[0]) + 1
            pair = (
                f"alpha_bar[{t - 1}] = {alpha_bar[t - 1]:.6g}, alpha_bar[{t}] = {alpha_bar[t]:.6g}"
            )
            raise InvalidValueError(f"alpha_bar must fall strictly, got {pair}")
        _check_signal("alpha_bar must stay", alpha_bar)
        object.__setattr__(self, "alpha_bar", alpha_bar.clone())

    @property
    def num_steps(self) -> int:
        """T, the number of noisings."""
        return len(self.alpha_bar) - 1

    @cached_property
    def alpha(self) -> Tensor:
        """alpha_t = alpha_bar_t / alpha_bar_{t-1} for t = 1..T, shape (T,)."""
        return self.alpha_bar[1:] / self.alpha_bar[:-1]

    @cached_property
    def beta(self) -> Tensor:
        """beta_t = 1 - alpha_t, the variance that step t adds, for t = 1..T, shape (T,)."""
        return 1 - self.alpha

    @cached_property
    def signal_rate(self) -> Tensor:
        """sqrt(alpha_bar_t), the weight of x_0 in x_t, for t = 0..T, shape (T + 1,)."""
        return self.alpha_bar.sqrt()

    @cached_property
    def noise_rate(self) -> Tensor:
        """sqrt(1 - alpha_bar_t), the weight of eps in x_t, for t = 0..T, shape (T + 1,)."""
        return (1 - self.alpha_bar).sqrt()

    @cached_property
    def snr(self) -> Tensor:
        """Signal-to-noise ratio alpha_bar_t / (1 - alpha_bar_t), infinite at t = 0, (T + 1,)."""
        return self.alpha_bar / (1 - self.alpha_bar)

    @cached_property
    def posterior_variance(self) -> Tensor:
        """Variance of x_{t-1} given x_t and x_0 (Ho et al. 2020, eq. 7), t = 1..T, shape (T,)."""
        return self.beta * (1 - self.alpha_bar[:-1]) / (1 - self.alpha_bar[1:])

    def to(self, device: torch.device | str) -> "NoiseSchedule":
        """The same schedule on ``device`` (in float32 on MPS, which has no float64)."""
        if self.alpha_bar.device == torch.device(device):
            return self
        return NoiseSchedule(on_device(self.alpha_bar, torch.device(device)))

    def __repr__(self) -> str:
        end = float(self.alpha_bar[-1])
        return f"NoiseSchedule(num_steps={self.num_steps}, alpha_bar[T]={end:.3g})"


def from_betas(beta: Sequence[float] | Tensor) -> NoiseSchedule:
    """The schedule whose step t adds noise of variance ``beta[t - 1]`` (Ho et al. 2020, eq. 2).

    Args:
        beta: T numbers in (0, 1), a sequence or a tensor of shape (T,).

    Raises:
        TypeError: ``beta`` does not contain numbers.
        ValueError: no entries, more than one axis, NaN, an entry outside (0, 1) or so close to 0
            that 1 - beta is 1, or entries that together leave less than 1e-60 of alpha_bar.
    """
    if isinstance(beta, Tensor):
        values = _validate.held("beta", beta).to(
            torch.float32 if beta.device.type == "mps" else torch.float64
        )
    else:
        try:
            values = torch.as_tensor(beta, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            got = _validate.describe(beta)
            raise InvalidTypeError(f"beta must be a sequence of T numbers, got {got}") from error
    if values.ndim != 1 or not len(values):
        raise InvalidValueError(f"beta must have shape (T,) with T >= 1, got {tuple(values.shape)}")
    alpha = 1 - values
    wrong = ~((alpha > 0) & (alpha < 1))  # written so that NaN counts as wrong
    if wrong.any():
        i = int(wrong.nonzero()[0])
        got = f"{float(values[i]):.6g} at t = {i + 1}"
        note = ", too close to 0 for 1 - beta to differ from 1" if alpha[i] == 1 else ""
        raise InvalidValueError(f"beta must lie in (0, 1), got {got}{note}")
    alpha_bar = torch.cat([alpha.new_ones(1), alpha.cumprod(0)])
    _check_signal("beta must leave alpha_bar", alpha_bar)
    return NoiseSchedule(alpha_bar)


def linear_schedule(
    num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
) -> NoiseSchedule:
    """Betas that grow linearly from ``beta_start`` to ``beta_end`` (Ho et al. 2020, sec. 4).

    Raises:
        TypeError, ValueError: ``num_steps`` not an int in 1..2^24; an end outside (0, 1).
    """
    return from_betas(_ramp(num_steps, beta_start, beta_end))


def quadratic_schedule(
    num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
) -> NoiseSchedule:
    """Betas whose square roots grow linearly between the same ends.

    The code of the DDPM and DDIM authors calls it "quad", diffusers "scaled_linear".

    Raises:
        TypeError, ValueError: ``num_steps`` not an int in 1..2^24; an end outside (0, 1).
    """
    _check_ends(beta_start, beta_end)
    return from_betas(_ramp(num_steps, math.sqrt(beta_start), math.sqrt(beta_end)) ** 2)


def cosine_schedule(
    num_steps: int = 1000, offset: float = 0.008, max_beta: float = 0.999
) -> NoiseSchedule:
    """An alpha_bar that falls like a squared cosine (Nichol & Dhariwal 2021, eq. 17).

    alpha_bar_t = f(t) / f(0) with f(t) = cos^2((t/T + offset) / (1 + offset) * pi/2). The betas
    that follow from it are clipped at ``max_beta``: otherwise alpha_bar_T would be 0.

    Raises:
        TypeError, ValueError: ``num_steps`` not an int in 1..2^24; ``offset`` negative or not
            finite; ``max_beta`` outside (0, 1).
    """
    steps = check_num_steps(num_steps)
    offset = _validate.number("offset", offset, low=0.0, high=1e6)
    _check_open_unit("max_beta", max_beta)
    t = torch.arange(steps + 1, dtype=torch.float64)
    f = torch.cos((t / steps + offset) / (1 + offset) * math.pi / 2) ** 2
    return from_betas((1 - f[1:] / f[:-1]).clamp(max=max_beta))


def check_num_steps(num_steps: object) -> int:
    """``num_steps`` as an int, if it is one in 1..``LARGEST_NUM_STEPS``.

    Raises:
        TypeError, ValueError: it is not.
    """
    return _validate.whole_number("num_steps", num_steps, at_least=1, at_most=LARGEST_NUM_STEPS)


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """``values`` on ``device``, in float32 on MPS, which has no float64."""
    narrow = device.type == "mps" and values.dtype == torch.float64
    return values.to(device, torch.float32 if narrow else values.dtype)


def _ramp(num_steps: int, start: float, end: float) -> Tensor:
    """``num_steps`` numbers from ``start`` to ``end``, both in (0, 1)."""
    steps = check_num_steps(num_steps)
    _check_ends(start, end)
    return torch.linspace(start, end, steps, dtype=torch.float64)


def _check_signal(what: str, alpha_bar: Tensor) -> None:
    """ValueError if ``alpha_bar`` falls so low that x_0 cannot be predicted from x_t."""
    low = (alpha_bar < SMALLEST_ALPHA_BAR).nonzero()
    if len(low):
        t = int(low[0])
        got = f"{float(alpha_bar[t]):.3g} at t = {t}"
        raise InvalidValueError(f"{what} at {SMALLEST_ALPHA_BAR:g} or more, got {got}")


def _check_ends(beta_start: float, beta_end: float) -> None:
    _check_open_unit("beta_start", beta_start)
    _check_open_unit("beta_end", beta_end)


def _check_open_unit(name: str, value: float) -> None:
    """ValueError unless ``value`` lies strictly between 0 and 1."""
    if not 0 < _validate.number(name, value, low=0.0, high=1.0) < 1:
        raise InvalidValueError(f"{name} must lie in (0, 1), got {value}")
