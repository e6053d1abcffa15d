"""Prediction targets: wrappers that turn predictions of other things into predictions of eps.

A network may be trained to predict v, x_0 or the velocity of a flow; a sampler needs eps. Each
function here takes a model and returns another callable ``model(x_t, t) -> eps_hat``, so samplers
and losses need not know what the network was trained to predict.

Two of the targets are easily confused. "v" is v-prediction, signal_rate eps - noise_rate x_0: how
x_t moves along a circle. "velocity" is eps - x_0: how the state of a flow moves along a straight
line (``flows``).
"""

from collections.abc import Callable

from torch import Tensor

from tutorial_lib import _validate
from tutorial_lib._typing import Condition, EpsModel, States, Steps
from tutorial_lib._validate import InvalidValueError
from tutorial_lib.forward import at_steps, predict_eps, predict_x0
from tutorial_lib.schedules import NoiseSchedule


def velocity(schedule: NoiseSchedule, x0: States, t: Steps, eps: States) -> States:
    """v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x_0 (Salimans & Ho 2022, sec. 4).

    This is what the target "v" predicts. What the target "velocity" predicts, the velocity of a
    flow, is ``flows.straight_velocity``.

    Args:
        schedule: the noise schedule.
        x0: clean data, (B, ...).
        t: int64 (B,), each in 0..T.
        eps: noise of the shape of ``x0``.

    Raises:
        TypeError, ValueError: a tensor of the wrong type or shape or not finite, t out of 0..T.
    """
    _validate.instance("schedule", schedule, NoiseSchedule)
    _validate.same_shape("eps", eps, "x0", _validate.batch("x0", x0))
    _validate.steps("t", t, batch=len(x0), low=0, high=schedule.num_steps, of="x0")
    signal, noise = at_steps(schedule.signal_rate, t, x0), at_steps(schedule.noise_rate, t, x0)
    return (signal * eps - noise * x0).to(x0.dtype)


def eps_from_v(v_model: EpsModel, schedule: NoiseSchedule) -> EpsModel:
    """An eps model from one that predicts v: eps = sqrt(abar) v + sqrt(1 - abar) x_t.

    This follows from the definition of v with x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps (Salimans &
    Ho 2022, appendix D). Its error in eps is sqrt(abar) times the error in v.

    Raises:
        TypeError: ``v_model`` cannot be called, ``schedule`` is none.
    """
    _validate.function("v_model", v_model)
    _validate.instance("schedule", schedule, NoiseSchedule)

    def model(x_t: States, t: Steps, /) -> States:
        _validate.steps("t", t, batch=len(x_t), low=0, high=schedule.num_steps)
        v_hat = _validate.answer("v_model", v_model(x_t, t), x_t)
        signal, noise = (
            at_steps(schedule.signal_rate, t, x_t),
            at_steps(schedule.noise_rate, t, x_t),
        )
        return (signal * v_hat + noise * x_t).to(x_t.dtype)

    return model


def eps_from_x0(x0_model: EpsModel, schedule: NoiseSchedule) -> EpsModel:
    """An eps model from one that predicts x_0, by solving the jump for eps; t in 1..T.

    Raises:
        TypeError: ``x0_model`` cannot be called, ``schedule`` is none.
    """
    _validate.function("x0_model", x0_model)
    _validate.instance("schedule", schedule, NoiseSchedule)

    def model(x_t: States, t: Steps, /) -> States:
        return predict_eps(schedule, x_t, t, _validate.answer("x0_model", x0_model(x_t, t), x_t))

    return model


def eps_from_flow(flow_model: EpsModel, schedule: NoiseSchedule) -> EpsModel:
    """An eps model from a network that predicts the velocity of a flow, eps - x_0, at step t.

    The network is asked at x = x_t / (signal + noise), which lies on the straight line from x_0 to
    eps at time = noise / (signal + noise); then eps = x + (1 - time) velocity (Gao et al. 2024,
    "Diffusion meets flow matching"). Its error in eps is 1 - time times the error in the velocity.
    The network is told the step; ``flows.denoiser_from_flow`` is for a flow that is told the time.

    Raises:
        TypeError: ``flow_model`` cannot be called, ``schedule`` is none.
    """
    _validate.function("flow_model", flow_model)
    _validate.instance("schedule", schedule, NoiseSchedule)
    signal, total = schedule.signal_rate, schedule.signal_rate + schedule.noise_rate

    def model(x_t: States, t: Steps, /) -> States:
        _validate.steps("t", t, batch=len(x_t), low=0, high=schedule.num_steps)
        x = (x_t / at_steps(total, t, x_t)).to(x_t.dtype)
        velocity_hat = _validate.answer("flow_model", flow_model(x, t), x_t)
        return (x + at_steps(signal / total, t, x_t) * velocity_hat).to(x_t.dtype)

    return model


def clip_x0(
    model: EpsModel, schedule: NoiseSchedule, low: float = -1.0, high: float = 1.0
) -> EpsModel:
    """An eps model whose x0_hat is clipped to [low, high], the range of the data.

    Early in a walk x0_hat = (x_t - noise eps_hat) / signal divides by a small number and can be far
    outside the range of images; clipping keeps the walk on course (Ho et al. 2020 clip in their
    code; ``clip_sample`` in diffusers).

    Raises:
        TypeError, ValueError: ``low`` or ``high`` is not a finite number, or ``low`` is not below
            ``high``.
    """
    _validate.function("model", model)
    _validate.instance("schedule", schedule, NoiseSchedule)
    low = _validate.number("low", low, low=-1e6, high=1e6)
    high = _validate.number("high", high, low=-1e6, high=1e6)
    if low >= high:
        raise InvalidValueError(f"low must be below high, got low = {low:g}, high = {high:g}")

    def clipped(x_t: States, t: Steps, /) -> States:
        eps_hat = _validate.answer("model", model(x_t, t), x_t)
        x0_hat = predict_x0(schedule, x_t, t, eps_hat).clamp(low, high)
        return predict_eps(schedule, x_t, t, x0_hat)

    return clipped


def _already_eps(eps_model: EpsModel, schedule: NoiseSchedule) -> EpsModel:
    return eps_model


TARGETS: dict[str, Callable[[EpsModel, NoiseSchedule], EpsModel]] = {
    "eps": _already_eps,
    "v": eps_from_v,
    "x0": eps_from_x0,
    "velocity": eps_from_flow,
}
"""What a network may be trained to predict, and what turns each prediction into eps.

"v" is v-prediction; "velocity" is eps - x_0, of flow matching."""


def as_eps_model(
    network: Callable[..., Tensor],
    schedule: NoiseSchedule,
    target: str,
    condition: Condition | None = None,
) -> EpsModel:
    """``eps_hat = model(x_t, t)`` from a network trained to predict ``target``.

    Args:
        network: called as ``network(x_t, t)``, or ``network(x_t, t, condition)`` with one.
        schedule: the schedule it was trained for.
        target: a name in ``TARGETS``: "eps", "v" (v-prediction), "x0", or "velocity" (of a flow).
        condition: int64 with one row per sample: labels (B,) or words (B, L); None for none.

    Raises:
        TypeError: ``network`` cannot be called, ``schedule`` is none.
        ValueError: ``target`` is not a name in ``TARGETS``.
    """
    _validate.function("network", network)
    _validate.instance("schedule", schedule, NoiseSchedule)
    _validate.one_of("target", target, TARGETS)
    return TARGETS[target](told(network, condition), schedule)


def told(network: Callable[..., Tensor], condition: Condition | None) -> EpsModel:
    """``network`` as a function of two arguments, which is told ``condition`` each time."""
    if condition is None:
        return network

    def model(x_t: Tensor, t: Tensor, /) -> Tensor:
        return network(x_t, t, condition)

    return model
