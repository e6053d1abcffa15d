"""Judging a loss that draws its own random numbers, by what its model was shown.

An answer may draw t and the noise in any order, so its loss cannot be compared with one number. But
the model it is given records each (x_t, t) that it was asked about. From x_t, t and x_0 follows the
noise that is in x_t, and from the noise what the loss has to be: exactly, not on average.

The gradient that comes back to the model's answers tells what each of them was compared with, and
so which sample of x_0 it belongs to: samples may be shown in any order.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tutorial_lib.checks.framework import Wrong, compare, per_sample
from tutorial_lib.schedules import NoiseSchedule

MANY_CALLS, FEW_CALLS = 40, 6
MANY_SAMPLES, FEW_STEPS = 8, 10
"""Batches of this size or more, of at most so many steps, are drawn often enough to say how t and
the noise are spread."""

MESSAGES = {
    "t from 0 to T - 1": "Your t runs from 0 to T - 1. Here t counts noisings: 0 would be a clean "
    "image with nothing to find in it, and T is never practiced. The upper end of `torch.randint` "
    "is not drawn itself.",
    "t from 0 to T": "Your t includes 0, a clean image, in which there is no noise to be found. "
    "Steps run from 1 to T.",
    "T is never drawn": "Your t never reaches T, the step at which every walk back begins. The "
    "upper end of `torch.randint` is not drawn itself.",
    "t beyond T": "Your t reaches T + 1, a step that does not exist: there are T noisings.",
    "one t for the whole batch": "All samples of your batch share one t. Draw one for each, "
    "`len(x0)` of them: then a batch looks at many steps, and its loss jumps about less.",
    "t not uniform": "Your t favors some steps over others. Each of 1..T should be equally likely: "
    "`torch.randint` does that.",
    "model sees x_0": "Your model is shown the clean x_0. There is no noise in it: show it x_t.",
    "model told t - 1": "Your x_t is noised t times, but the model is told t - 1. Steps count "
    "noisings here, so pass it the same t: `model(x_t, t)`.",
    "t one step off": "At t = 1 your x_t is still the clean x_0, so the rates you use belong to t "
    "- 1. `signal_rate[t]` and `noise_rate[t]` are right as they are: entry 0 "
    "is clean data.",
    "alpha for alpha_bar": "Your x_t is made with the alpha of a single step. The jump needs "
    "alpha_bar, the product of all alphas up to t.",
    "no square roots": "Your x_t weighs x_0 and eps by alpha_bar and 1 - alpha_bar. Those are "
    "variances; the jump takes their roots, the two rates.",
    "rates swapped": "In your x_t the two rates have changed places: `signal_rate` belongs to x_0, "
    "`noise_rate` to eps.",
    "rand for randn": "Your noise lies between 0 and 1, as `torch.rand` draws it. The noise of the "
    "jump is standard normal: `torch.randn`.",
    "noise not normal": "The noise in your x_t is not standard normal. It should have mean 0 and "
    "variance 1, as `torch.randn` draws it.",
    "one noise for the whole batch": "All samples of your batch got the same noise. Draw noise of "
    "the shape of the whole of `x0`.",
    "one number of noise a sample": "Within a sample your noise is one number, repeated. Every "
    "coordinate gets its own: draw noise of the shape of `x0`.",
    "noise drawn anew for the target": "The noise you compare with is not the noise in x_t: you "
    "drew it twice. No model can guess that. Draw it once, keep it, use it in both places.",
    "one noise for all channels": "All channels of an image got the same noise. Every number of "
    "`x0` gets its own: draw noise of the shape of `x0`.",
    "noise repeated": "Your noise repeats itself along one of the axes of `x0`. Every number gets "
    "its own: draw noise of the shape of `x0`.",
    "noise not independent": "Some numbers of your noise are made from others, of another sample "
    "or place. Each should be drawn on its own: `torch.randn(x0.shape, generator=generator)`.",
    "summed": "You add up all squared errors. Take their mean: then the loss does not grow with "
    "the batch or the number of pixels.",
    "summed over each sample": "You add the squared errors of a sample up and average over the "
    "batch only. Average over everything: then 1 means the same for points and for images.",
    "not averaged": "You return many numbers. The loss is one: the mean over samples and "
    "coordinates.",
    "target x_0": "You compare the model's answer with x_0. Its job here is to find the noise: "
    "compare with eps.",
    "target x_t": "You compare the model's answer with the very tensor that it was shown. Show it "
    "x_t, and compare with the noise alone.",
    "target v": "You compare the model's answer with v. Here the model looks for the noise: "
    "compare with eps.",
    "compares x0_hat": "You turn the answer into x0_hat and compare that with x_0. It is a loss, "
    "weighted by 1/SNR; this one compares the noise itself.",
    "absolute error": "You average absolute errors; the loss averages squares.",
    "Huber": "You average a Huber (smooth L1) loss. It is steadier, but another loss: the average "
    "of squares is asked for.",
    "not squared": "You average the plain differences, so that errors of both signs cancel. Square "
    "them first.",
    "square of the mean": "You average first and square afterward, so that errors of both signs "
    "cancel. Square first.",
    "norm": "You return the length of the error, the root of the sum of its squares. Take the mean "
    "of the squares.",
    "x_0 not shrunk": "In your x_t the clean x_0 has its full size. The jump shrinks it by the "
    "signal rate.",
    "eps not shrunk": "In your x_t the noise has its full size at every t. The jump weighs it by "
    "the noise rate.",
    "no rates": "Your x_t is x_0 + eps, whatever t is. The jump weighs the two by the signal rate "
    "and the noise rate.",
    "1 - signal rate": "In your x_t the noise is weighed by 1 - signal rate. Variances add up to "
    "1, rates do not: take `noise_rate`.",
    "root of the mean": "You take the root of the mean squared error. The loss has no root.",
    "added": "You add eps to the model's answer. The error is their difference.",
    "samples weighted": "Your x_t is right, but your samples do not count the same: is there a "
    "weight that depends on t, or a mean of means? Take one mean over everything.",
    "half of it": "Your loss is half of what it should be: no factor 1/2 here.",
    "generator ignored": "With the same `generator` your loss comes out differently. Pass "
    "`generator=generator` to both draws, that of t and that of the noise.",
    "always the same draws": "Every call draws the same t and the same noise: do you set a seed "
    "inside the function? Draw from `generator` and leave it to run on.",
    "no gradient": "The number is right, but no gradient leads back to the model, so nothing could "
    "learn from it. Leave out `.item()`, `.detach()`, `float(...)` and `torch.no_grad()`.",
    "gradient repaired": "The number is right, but its gradient does not reach the model: asking "
    "for one afterwards (`requires_grad`) starts at the loss and leads nowhere. Let the model run "
    "without `no_grad`, and make no new tensor of the loss.",
    "gradient of a part": "The number is right, its gradient is not: a part of the loss is cut off "
    "by `.detach()` or `no_grad`. The whole of (eps_hat - eps)^2 should reach the model.",
    "backward inside": "You call `backward` inside the loss. Return the loss with its gradient; "
    "the training loop calls `backward`.",
}


class RecordingModel(nn.Module):
    """An eps model, right about some of the noise, that keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.shown: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        if not isinstance(x_t, Tensor) or not isinstance(t, Tensor):
            came = compare.describe(t if isinstance(x_t, Tensor) else x_t)
            raise Wrong("shape", f"Ask `model(x_t, t)` with two tensors; one of yours is {came}.")
        if t.dtype != torch.int64:
            text = f"Your model got t as {t.dtype}. Steps are whole numbers (int64), not shares."
            raise Wrong("shape", text)
        if t.numel() == 1 and len(x_t) > 1:
            raise _named("one t for the whole batch")
        if t.shape != x_t.shape[:1]:
            text = f"Your model got t of shape {tuple(t.shape)} with x_t of shape"
            raise Wrong("shape", f"{text} {tuple(x_t.shape)}. It needs one step per sample, (B,).")
        eps_hat = self.answer(x_t, t)
        if eps_hat.requires_grad:
            eps_hat.retain_grad()
        self.shown.append((x_t.detach().clone(), t.clone(), eps_hat))
        return eps_hat

    def answer(self, x_t: Tensor, t: Tensor) -> Tensor:
        """eps_hat, without a record."""
        return self.scale * x_t + 0.1 * per_sample(t % 5, x_t)

    def derivative(self, x_t: Tensor, t: Tensor) -> Tensor:
        """How eps_hat changes with ``scale``, in which it is linear."""
        return (self.answer(x_t, t) - self.answer(torch.zeros_like(x_t), t)) / self.scale.detach()

    def __repr__(self) -> str:
        return "a test model"


class NearlyRightModel(RecordingModel):
    """Finds the noise to within 0.2 % where x_0 is 0: the loss is nearly 0."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__()
        self._noise_rate = schedule.noise_rate

    def answer(self, x_t: Tensor, t: Tensor) -> Tensor:
        """eps_hat, without a record."""
        rate = self._noise_rate[t.clamp(1, len(self._noise_rate) - 1)].to(x_t)
        return 2.004 * self.scale * x_t / per_sample(rate, x_t)


@dataclass(frozen=True)
class _Call:
    """One loss, and what its model was shown on the way, in the order of x0; float64.

    Attributes:
        target: what each of the model's answers was compared with, if a mean of squares was taken;
            None if no gradient came back.
        derivative: how each of the model's answers changes with its parameter.
        slope: the gradient at the parameter; None if none came.
    """

    loss: Tensor
    x0: Tensor
    x_t: Tensor
    t: Tensor
    eps_hat: Tensor
    target: Tensor | None
    derivative: Tensor
    slope: float | None
    asks_for_gradient: bool


def judge(
    answer: Callable,
    model: RecordingModel,
    schedule: NoiseSchedule,
    x0: Tensor,
    generator: torch.Generator,
) -> object:
    """0 where ``answer`` is the epsilon loss; raises ``Wrong`` where it is not."""
    many = len(x0) >= MANY_SAMPLES and schedule.num_steps <= FEW_STEPS
    calls: list[_Call] = []
    for _ in range(MANY_CALLS if many else FEW_CALLS):
        call = _call(answer, model, schedule, x0, generator)
        if call is ...:
            return ...
        assert isinstance(call, _Call)
        calls.append(call)
    _judge_told_steps(calls, schedule)
    _judge_steps(torch.stack([call.t for call in calls]), schedule.num_steps, many)
    _judge_loss(calls, schedule, many)
    _judge_noise(torch.stack([_noise_in(call, *_rates(schedule, call)) for call in calls]), many)
    _judge_generator(lambda: _call(answer, model, schedule, x0, generator), generator)
    _judge_gradient(calls, schedule)
    return torch.zeros(())


def _call(answer, model, schedule, x0, generator) -> object:
    """Run ``answer`` once; ``...`` if that is what it returns."""
    model.shown.clear()
    model.scale.grad = None
    loss = answer(model, schedule, x0.clone(), generator)
    if loss is ...:
        return ...
    if loss is None:
        raise Wrong("shape", "Your function returns None: is its `return` missing?")
    if not model.shown:
        raise Wrong("values", "Your loss never asks `model(x_t, t)`, so no model can learn by it.")
    value = compare.as_tensor(loss)
    if value is None:
        raise Wrong("shape", f"Return the loss, one number; yours is {compare.describe(loss)}.")
    if value.numel() > 1:
        raise _named("not averaged", "shape")
    if value.shape != ():
        raise Wrong("shape", f"Return a single number (shape ()), yours is {tuple(value.shape)}.")
    if not value.isfinite():
        raise Wrong("finite", f"Your loss is {float(value)}; it must be finite.")
    if model.scale.grad is not None:
        raise _named("backward inside", "properties")
    asks = isinstance(loss, Tensor) and loss.requires_grad
    if asks:
        loss.backward()
    x_t, t, target = _compared(model, x0)
    with torch.no_grad():
        eps_hat, derivative = (ask(x_t.double(), t) for ask in (model.answer, model.derivative))
    slope = None if model.scale.grad is None else float(model.scale.grad)
    call = _Call(
        loss=value.double(),
        x0=x0.double(),
        x_t=x_t.double(),
        t=t,
        eps_hat=eps_hat,
        target=target,
        derivative=derivative,
        slope=slope,
        asks_for_gradient=asks,
    )
    return _in_order(call, schedule)


def _compared(model: RecordingModel, x0: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """x_t, t and the target of the samples that count in the loss, in the order of the calls."""
    for x_t, _, _ in model.shown:
        if x_t.shape[1:] != x0.shape[1:]:
            came, wanted = tuple(x_t.shape), tuple(x0.shape)
            raise Wrong("shape", f"x_t must have the shape of x0, {wanted}; the model got {came}.")
    count = [eps_hat.grad is not None and bool(eps_hat.grad.any()) for _, _, eps_hat in model.shown]
    used = [one for one, counts in zip(model.shown, count, strict=True) if counts] or model.shown
    x_t, t = (torch.cat(parts) for parts in list(zip(*used, strict=True))[:2])
    if any(count) and len(x_t) != len(x0):
        text = f"Your loss compares {len(x_t)} noisy samples, and x0 holds {len(x0)}. "
        raise Wrong("values", text + "Take one t and one noise for each of them.")
    if len(x_t) < len(x0):
        text = f"Your model was shown {len(x_t)} samples, and x0 holds {len(x0)}. "
        raise Wrong("shape", text + "Show it a noisy version of each.")
    if not any(count):
        return x_t[-len(x0) :], t[-len(x0) :], None  # somebody may ask twice
    pairs = [
        (eps_hat.detach().double(), eps_hat.grad)
        for _, _, eps_hat in used
        if eps_hat.grad is not None
    ]
    # The gradient of a mean of squares is 2 (eps_hat - target) / their number.
    target = torch.cat([eps_hat - grad.double() * x0.numel() / 2 for eps_hat, grad in pairs])
    return x_t, t, target


def _in_order(call: _Call, schedule: NoiseSchedule) -> _Call:
    """``call`` with its samples in the order of x0, if it shows each sample of x0 once."""
    if call.target is None or int(call.t.min()) < 1 or int(call.t.max()) > schedule.num_steps:
        return call
    signal, noise = _rates(schedule, call)
    behind = (call.x_t - noise * call.target) / signal  # x_0, if all is right
    away = (behind[:, None] - call.x0).abs().flatten(2).amax(2)  # (B shown, B)
    nearest = away.argmin(1)
    near = away.amin(1) < 1e-3 * (1 + call.x0.abs().max()) / signal.flatten()
    if not near.all() or len(nearest.unique()) < len(nearest):
        return call
    order, moving = nearest.argsort(), ("x_t", "t", "eps_hat", "target", "derivative")
    moved = {name: getattr(call, name)[order] for name in moving}
    return replace(call, **moved)


def _judge_told_steps(calls: list[_Call], schedule: NoiseSchedule) -> None:
    """Whether the model is told the step that x_t was made for, and not the one before."""
    if any(int(call.t.min()) < 0 or int(call.t.max()) >= schedule.num_steps for call in calls):
        return
    later = [replace(call, t=call.t + 1) for call in calls]
    noises = [_noise_in(call, *_rates(schedule, call)) for call in later]
    if _all_are(calls, noises, lambda call, eps: (call.eps_hat - eps).square().mean()):
        raise _named("model told t - 1")


def _judge_steps(t: Tensor, T: int, many: bool) -> None:
    """Whether t (calls, B) is drawn from 1..T, uniformly and for each sample."""
    low, high = int(t.min()), int(t.max())
    if many and low == 0:
        raise _named("t from 0 to T - 1" if high < T else "t from 0 to T")
    if many and high > T:
        raise _named("t beyond T")
    if low < 1 or high > T:
        worst = low if low < 1 else high
        raise Wrong("values", f"You drew t = {worst}; steps run from 1 to T, here 1..{T}.")
    if t.shape[1] > 1 and (t == t[:, :1]).all():
        raise _named("one t for the whole batch")
    if not many:
        return
    if high < T:
        raise _named("T is never drawn")
    share = torch.bincount(t.flatten(), minlength=T + 1)[1:].double() / t.numel()
    deviation = (share * (1 - share) / t.numel()).sqrt()
    if ((share - 1 / T).abs() > 6 * deviation + 1e-9).any():
        raise _named("t not uniform")


def _judge_loss(calls: list[_Call], schedule: NoiseSchedule, many: bool) -> None:
    """Whether each loss is the mean of (eps_hat - eps)^2, and if not, what it is instead."""
    rates = [_rates(schedule, call) for call in calls]
    noises = [_noise_in(call, *rate) for call, rate in zip(calls, rates, strict=True)]
    if _all_are(calls, noises, lambda call, eps: (call.eps_hat - eps).square().mean()):
        _judge_each_sample(calls, noises, rates)
        return
    if _all_are(calls, noises, lambda call, eps: (eps - call.eps_hat).mean()) or _all_are(
        calls, noises, lambda call, eps: (call.eps_hat - eps).mean()
    ):
        raise _named("not squared")
    vs = [signal * eps - noise * call.x0
          for call, eps, (signal, noise) in zip(calls, noises, rates, strict=True)]  # fmt: skip
    if _all_are(calls, vs, lambda call, v: (call.eps_hat - v).square().mean()):
        raise _named("target v")
    if all(_near(call.x_t, call.x0) for call in calls):
        raise _named("model sees x_0")
    first = [(call.x_t[call.t == 1], call.x0[call.t == 1]) for call in calls]
    if any(len(x_t) for x_t, _ in first) and all(_near(*pair) for pair in first):
        raise _named("t one step off")
    for name, wrong_rates in _OTHER_JUMPS.items():
        others = [_noise_in(call, *wrong_rates(schedule, call)) for call in calls]
        if _all_are(calls, others, lambda call, eps: (call.eps_hat - eps).square().mean()):
            raise _named(name)
    for name, loss in _OTHER_LOSSES.items():
        if _all_are(calls, noises, loss):
            raise _named(name)
    x0_hats = [
        (call.x_t - noise * call.eps_hat) / signal
        for call, (signal, noise) in zip(calls, rates, strict=True)
    ]
    if _all_are(calls, x0_hats, lambda call, x0_hat: (x0_hat - call.x0).square().mean()):
        raise _named("compares x0_hat")
    if _are_weighted(calls, noises):
        raise _named("samples weighted")
    # Fresh noise has nothing to do with eps_hat: on average the loss is eps_hat^2 + 1.
    off = torch.stack([call.loss - call.eps_hat.square().mean() - 1 for call in calls])
    if many and off.mean().abs() < 5 * off.std() / len(off) ** 0.5 and off.std() > 1e-3:
        raise _named("noise drawn anew for the target")
    if all(call.target is None for call in calls):
        text = "No gradient leads from your loss back to the model, so nothing could learn: leave "
        text += "out `torch.no_grad()`, `.item()` and `.detach()`. As far as one can see without "
        raise Wrong("values", text + "it, the number is not right either.")
    if _is_normal(torch.stack(noises).flatten()) and many:
        expected = float((calls[0].eps_hat - noises[0]).square().mean())
        text = "Your x_t is made as it should be. For it the mean of (eps_hat - eps)^2 is "
        text += f"{expected:.4g}, and your loss is {float(calls[0].loss):.4g}: look at what you "
        raise Wrong("values", text + "compare, and how you average.")
    text = "Your x_t is not what the jump makes of x0 and standard normal noise. "
    raise Wrong("values", text + "`diffuse(schedule, x0, t, eps)` makes it.")


def _are_weighted(calls: list[_Call], noises: list[Tensor]) -> bool:
    """Whether each sample is compared with its own noise, but counts more or less than others."""
    for call, eps in zip(calls, noises, strict=True):
        if call.target is None:
            return False
        right, given = call.eps_hat - eps, call.eps_hat - call.target
        factor = (right * given).flatten(1).sum(1) / right.square().flatten(1).sum(1)
        if not _near(given, per_sample(factor, given) * right):
            return False
    return True


def _judge_each_sample(calls: list[_Call], noises: list[Tensor], rates: list) -> None:
    """Whether each sample was compared with its own noise: a mean hides a few that were not."""
    for call, eps, (_, noise) in zip(calls, noises, rates, strict=True):
        if call.target is None:
            continue
        away = (call.target - eps).abs().flatten(1).amax(1)
        wrong = away > 1e-3 + 1e-4 / noise.flatten()  # float32 is coarse where there is no noise
        if wrong.any():
            step = int(call.t[wrong][0])
            text = f"Nearly right, but not at t = {step}: the noise in x_t there is not the one "
            text += "you compare with. Is a rate rounded, or kept away from 0?"
            raise Wrong("values", text)


def _judge_gradient(calls: list[_Call], schedule: NoiseSchedule) -> None:
    """Whether the gradient of the loss arrives at the model, and is that of the loss."""
    for call in calls:
        if call.slope is None or call.target is None:
            asks = call.asks_for_gradient
            raise _named("gradient repaired" if asks else "no gradient", "properties")
        eps = _noise_in(call, *_rates(schedule, call))
        each = 2 * (call.eps_hat - eps) * call.derivative
        if abs(call.slope - float(each.mean())) > 1e-3 * float(each.abs().mean()) + 1e-6:
            raise _named("gradient of a part", "properties")


def _judge_noise(eps: Tensor, many: bool) -> None:
    """Whether ``eps`` (calls, B, ...) is standard normal, each number on its own."""
    if eps.shape[1] > 1 and _near(eps, eps[:, :1].expand_as(eps)):
        raise _named("one noise for the whole batch")
    flat = eps.flatten(2)  # (calls, B, D)
    if flat.shape[2] > 1 and _near(flat, flat[:, :, :1].expand_as(flat)):
        raise _named("one number of noise a sample")
    for axis in range(2, eps.ndim):
        if eps.shape[axis] > 1 and _near(eps, eps.narrow(axis, 0, 1).expand_as(eps)):
            is_channel = axis == 2 and eps.ndim > 4
            raise _named("one noise for all channels" if is_channel else "noise repeated")
    if flat.min() > -1e-3 and flat.max() < 1 + 1e-3:
        raise _named("rand for randn")
    if not many:
        return
    if not _is_normal(flat.flatten()):
        raise _named("noise not normal")
    correlation = torch.corrcoef(flat.flatten(1).T)
    correlation.fill_diagonal_(0)
    if correlation.abs().max() > 0.9:  # by chance, in 40 calls: never
        raise _named("noise not independent")


def _is_normal(numbers: Tensor) -> bool:
    """Whether ``numbers``, independent ones, may well be standard normal."""
    count = len(numbers)
    within_one = (numbers.abs() < 1).double().mean()
    beyond_two = (numbers.abs() > 2).double().mean()
    return bool(
        numbers.mean().abs() < 6 / count**0.5
        and (numbers.square().mean() - 1).abs() < 6 * (2 / count) ** 0.5
        and (within_one - 0.6827).abs() < 6 * (0.6827 * 0.3173 / count) ** 0.5
        and (beyond_two - 0.0455).abs() < 6 * (0.0455 * 0.9545 / count) ** 0.5
    )


def _judge_generator(call: Callable[[], object], generator: torch.Generator) -> None:
    """Whether the generator decides the draws, and runs on between calls."""
    state = generator.get_state()
    first, second = call(), call()
    generator.set_state(state)
    again = call()
    assert isinstance(first, _Call)
    assert isinstance(second, _Call)
    assert isinstance(again, _Call)
    if _near(first.x_t, second.x_t):
        raise _named("always the same draws")
    if not _near(first.x_t, again.x_t):
        raise _named("generator ignored")


def _rates(schedule: NoiseSchedule, call: _Call) -> tuple[Tensor, Tensor]:
    """Signal rate and noise rate of each sample of a call, shaped to multiply it."""
    signal, noise = schedule.signal_rate[call.t], schedule.noise_rate[call.t]
    return per_sample(signal, call.x0), per_sample(noise, call.x0)


def _rates_of_one_step(schedule: NoiseSchedule, call: _Call) -> tuple[Tensor, Tensor]:
    alpha = per_sample(schedule.alpha[call.t - 1], call.x0)
    return alpha.sqrt(), (1 - alpha).sqrt()


_OTHER_JUMPS: dict[str, Callable[[NoiseSchedule, _Call], tuple[Tensor, Tensor]]] = {
    "alpha for alpha_bar": _rates_of_one_step,
    "no square roots": lambda schedule, call: tuple(r**2 for r in _rates(schedule, call)),  # type: ignore[return-value]
    "rates swapped": lambda schedule, call: _rates(schedule, call)[::-1],
    "x_0 not shrunk": lambda schedule, call: (torch.ones(()), _rates(schedule, call)[1]),
    "eps not shrunk": lambda schedule, call: (_rates(schedule, call)[0], torch.ones(())),
    "no rates": lambda schedule, call: (torch.ones(()), torch.ones(())),
    "1 - signal rate": lambda schedule, call: (
        _rates(schedule, call)[0],
        1 - _rates(schedule, call)[0],
    ),
}

_OTHER_LOSSES: dict[str, Callable[[_Call, Tensor], Tensor]] = {
    "summed": lambda call, eps: (call.eps_hat - eps).square().sum(),
    "summed over each sample": lambda c, eps: (c.eps_hat - eps).square().flatten(1).sum(1).mean(),
    "target x_0": lambda call, eps: (call.eps_hat - call.x0).square().mean(),
    "target x_t": lambda call, eps: (call.eps_hat - call.x_t).square().mean(),
    "absolute error": lambda call, eps: (call.eps_hat - eps).abs().mean(),
    "root of the mean": lambda call, eps: (call.eps_hat - eps).square().mean().sqrt(),
    "half of it": lambda call, eps: (call.eps_hat - eps).square().mean() / 2,
    "added": lambda call, eps: (call.eps_hat + eps).square().mean(),
    "Huber": lambda call, eps: torch.nn.functional.smooth_l1_loss(call.eps_hat, eps),
    "square of the mean": lambda call, eps: (call.eps_hat - eps).mean().square(),
    "norm": lambda call, eps: (call.eps_hat - eps).norm(),
}


def _noise_in(call: _Call, signal: Tensor, noise: Tensor) -> Tensor:
    """The jump solved for eps, given the two rates that made x_t."""
    return (call.x_t - signal * call.x0) / noise


def _all_are(calls: list[_Call], others: list[Tensor], loss: Callable) -> bool:
    pairs = zip(calls, others, strict=True)
    return all(torch.allclose(call.loss, loss(call, o), rtol=1e-3, atol=1e-5) for call, o in pairs)


def _near(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def _named(mistake: str, stage: str = "values") -> Wrong:
    return Wrong(stage, MESSAGES[mistake], mistake)
