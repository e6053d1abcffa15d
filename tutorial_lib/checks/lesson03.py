"""Lesson 3: the epsilon loss, the best answer there is, and four names for one thing."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tutorial_lib import losses
from tutorial_lib.checks.framework import (
    Choice,
    Exercise,
    Mistake,
    Number,
    Wrong,
    compare,
    per_sample,
)
from tutorial_lib.checks.lesson03_loss import MESSAGES, NearlyRightModel, RecordingModel, judge
from tutorial_lib.forward import diffuse, predict_eps
from tutorial_lib.oracles import DatasetOracle
from tutorial_lib.predictions import velocity
from tutorial_lib.schedules import NoiseSchedule, cosine_schedule, linear_schedule


def _schedule() -> NoiseSchedule:
    """Few steps, far apart, so that a rate of another step is seen at once."""
    return NoiseSchedule(torch.tensor([1.0, 0.8, 0.5, 0.2, 0.05], dtype=torch.float64))


def _ends() -> list[tuple[NoiseSchedule, Tensor]]:
    """The course's own schedules, where a rate is nearly 0, and steps at both ends."""
    return [(make(1000), torch.tensor([1, 2, 400, 1000])) for make in (linear_schedule, _cosine)]


def _cosine(num_steps: int) -> NoiseSchedule:
    return cosine_schedule(num_steps)


def _sample_by_sample(right: Callable, *, t_is: int, rtol: float = 1e-4, atol: float = 1e-5):
    """How to use an answer that treats each sample by its own t: says at which t it is wrong.

    Args:
        right: gives what is expected.
        t_is: which of the arguments is t.
    """

    def use(answer, *case):
        copies = [part.clone() if isinstance(part, Tensor) else part for part in case]
        given = answer(*case)
        yours, wanted = compare.as_tensor(given), compare.as_tensor(right(*copies))
        assert wanted is not None
        if yours is None or yours.shape != wanted.shape or yours.is_complex():
            return given
        yours = yours.double()
        close = torch.isclose(yours, wanted.double(), rtol=rtol, atol=atol)
        good = close.reshape(len(close), -1).all(1)
        t = copies[t_is]
        fine, bad = sorted(set(t[good].tolist())), sorted(set(t[~good].tolist()))
        if bad and yours.isfinite().all() and not set(fine) & set(bad):
            first = (~close).nonzero()[0].tolist()
            numbers = f"expected {float(wanted[tuple(first)]):.5g}, yours {yours[tuple(first)]:.5g}"
            away = ((yours - wanted) / wanted)[~close].abs().max()
            if fine:
                here, there = (", ".join(map(str, steps[:3])) for steps in (fine, bad))
                text = f"Right at t = {here}, wrong at t = {there} ({numbers}). What is different "
                raise Wrong("values", text + "there? Is a rate kept away from 0, or rounded?")
            if away < 0.03:
                text = f"Nearly right: off by at most {float(away):.2%} ({numbers}). Is something "
                raise Wrong("values", text + "added to a rate, or rounded?")
        return given

    return use


def _rates(schedule: NoiseSchedule, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    return per_sample(schedule.signal_rate[t], like), per_sample(schedule.noise_rate[t], like)


# The epsilon loss


def _epsilon_loss(model, schedule, x0, generator):
    t = torch.randint(1, schedule.num_steps + 1, (len(x0),), generator=generator)
    eps = torch.randn(x0.shape, generator=generator)
    x_t = diffuse(schedule, x0, t, eps)
    eps_hat = model(x_t, t)
    return (eps_hat - eps).square().mean()


def _loss_cases(generator: torch.Generator):
    for shape in ((8, 3, 2, 2), (1, 2), (3, 3), (3, 3, 2, 2), (2, 2, 3, 2, 2)):
        x0 = 0.5 + torch.randn(shape, generator=generator)
        yield RecordingModel(), _schedule(), x0, torch.Generator().manual_seed(shape[0])
    x0 = 0.5 + torch.randn(64, 2, generator=generator)
    yield RecordingModel(), linear_schedule(1000), x0, torch.Generator().manual_seed(64)
    nothing = torch.zeros(4, 2)
    yield NearlyRightModel(_schedule()), _schedule(), nothing, torch.Generator().manual_seed(4)


def _loss_with(
    *,
    low=1,
    high=1,
    shared_t=False,
    draw_noise=torch.randn,
    noise_shape=None,
    rates=None,
    loss=None,
    fresh_target=False,
    show=None,
):
    """The epsilon loss with something changed; ``low`` and ``T + high`` bound the draw of t."""

    def epsilon_loss(model, schedule, x0, generator):
        count = 1 if shared_t else len(x0)
        t = torch.randint(low, schedule.num_steps + high, (count,), generator=generator)
        t = t.expand(len(x0))
        shape = x0.shape if noise_shape is None else noise_shape(x0)
        eps = draw_noise(shape, generator=generator).expand(x0.shape)
        signal, noise = (rates or _rates)(schedule, t.clamp(0, schedule.num_steps), x0)
        x_t = signal * x0 + noise * eps
        eps_hat = model(x_t if show is None else show(x_t, x0), t)
        if fresh_target:
            eps = draw_noise(x0.shape, generator=generator)
        if loss is None:
            return (eps_hat - eps).square().mean()
        return loss(eps_hat, eps, x0, x_t, signal, noise)

    return epsilon_loss


def _without_generator(model, schedule, x0, generator):
    t = torch.randint(1, schedule.num_steps + 1, (len(x0),))
    return losses.epsilon_losses(model, schedule, x0, t, torch.randn(x0.shape)).mean()


def _same_seed(model, schedule, x0, generator):
    generator = torch.Generator().manual_seed(0)
    return losses.epsilon_loss(model, schedule, x0, generator=generator)


def _low_steps_often(model, schedule, x0, generator):
    share = torch.rand(len(x0), generator=generator) ** 2
    t = (share * schedule.num_steps).long() + 1
    eps = torch.randn(x0.shape, generator=generator)
    return losses.epsilon_losses(model, schedule, x0, t, eps).mean()


def _no_gradient(model, schedule, x0, generator):
    return losses.epsilon_loss(model, schedule, x0, generator=generator).item()


def _repaired(model, schedule, x0, generator):
    with torch.no_grad():
        loss = losses.epsilon_loss(model, schedule, x0, generator=generator)
    return loss.requires_grad_()


def _half_detached(model, schedule, x0, generator):
    return _loss_with(
        loss=lambda eps_hat, eps, *_: ((eps_hat - eps) * (eps_hat - eps).detach()).mean()
    )(model, schedule, x0, generator)


def _backward_inside(model, schedule, x0, generator):
    loss = losses.epsilon_loss(model, schedule, x0, generator=generator)
    loss.backward()
    return loss


def _antithetic(shape, generator):
    half = torch.randn((shape[0] + 1) // 2, *shape[1:], generator=generator)
    return torch.cat([half, -half])[: shape[0]]


def _first_channel(x0):
    return (len(x0), 1, *x0.shape[2:]) if x0.ndim > 2 else x0.shape


def _from_last_to_first(model, schedule, x0, generator):
    total = torch.zeros(())
    for image in reversed(list(x0.split(1))):
        total = total + losses.epsilon_loss(model, schedule, image, generator=generator)
    return total / len(x0)


def _shuffled(model, schedule, x0, generator):
    x0 = x0[torch.randperm(len(x0), generator=generator)]
    return losses.epsilon_loss(model, schedule, x0, generator=generator)


def _grouped_by_step(model, schedule, x0, generator):
    t = torch.randint(1, schedule.num_steps + 1, (len(x0),), generator=generator)
    eps = torch.randn(x0.shape, generator=generator)
    errors = []
    for step in t.unique():
        group = t == step
        x_t = diffuse(schedule, x0[group], t[group], eps[group])
        errors.append((model(x_t, t[group]) - eps[group]).square().flatten())
    return torch.cat(errors).mean()


def _asked_once_more(model, schedule, x0, generator):
    t = torch.randint(1, schedule.num_steps + 1, (len(x0),), generator=generator)
    eps = torch.randn(x0.shape, generator=generator)
    loss = losses.epsilon_losses(model, schedule, x0, t, eps).mean()
    with torch.no_grad():
        model(x0, torch.ones_like(t)).mean()  # to print something
    return loss


def _step_rates(schedule, t, like):
    alpha = per_sample(schedule.alpha[t - 1], like)
    return alpha.sqrt(), (1 - alpha).sqrt()


def _one_sample_after_the_other(model, schedule, x0, generator):
    total = torch.zeros(())
    for image in x0:
        noise = torch.randn(1, *image.shape, generator=generator)
        t = torch.randint(1, schedule.num_steps + 1, (1,), generator=generator)
        noisy = schedule.signal_rate[t].item() * image + schedule.noise_rate[t].item() * noise
        total = total + torch.nn.functional.mse_loss(model(noisy, t), noise)
    return total / len(x0)


def _by_hand(model, schedule, x0, generator):
    eps = torch.empty_like(x0).normal_(generator=generator)
    t = 1 + (torch.rand(len(x0), generator=generator) * schedule.num_steps).long()
    abar = schedule.alpha_bar[t].view(-1, *[1] * (x0.dim() - 1))
    difference = eps - model(abar**0.5 * x0 + (1 - abar) ** 0.5 * eps, t)
    return (difference**2).sum() / difference.numel()


_LOSS_MISTAKES = {
    "t from 0 to T - 1": _loss_with(low=0, high=0),
    "t from 0 to T": _loss_with(low=0),
    "T is never drawn": _loss_with(high=0),
    "t beyond T": _loss_with(high=2),
    "one t for the whole batch": _loss_with(shared_t=True),
    "t not uniform": _low_steps_often,
    "rand for randn": _loss_with(draw_noise=torch.rand),
    "noise not normal": _loss_with(draw_noise=lambda s, generator: 2 * torch.rand(s) - 1),
    "one noise for the whole batch": _loss_with(noise_shape=lambda x0: (1, *x0.shape[1:])),
    "one number of noise a sample": _loss_with(
        noise_shape=lambda x0: (len(x0), *[1] * (x0.ndim - 1))
    ),
    "one noise for all channels": _loss_with(noise_shape=_first_channel),
    "noise repeated": _loss_with(noise_shape=lambda x0: (*x0.shape[:-1], 1)),
    "noise not independent": _loss_with(draw_noise=_antithetic),
    "noise drawn anew for the target": _loss_with(fresh_target=True),
    "summed": _loss_with(loss=lambda eps_hat, eps, *_: (eps_hat - eps).square().sum()),
    "summed over each sample": _loss_with(
        loss=lambda eps_hat, eps, *_: (eps_hat - eps).square().flatten(1).sum(1).mean()
    ),
    "not averaged": _loss_with(loss=lambda eps_hat, eps, *_: (eps_hat - eps).square()),
    "target x_0": _loss_with(loss=lambda eps_hat, eps, x0, *_: (eps_hat - x0).square().mean()),
    "target x_t": _loss_with(
        loss=lambda eps_hat, eps, x0, x_t, *_: (eps_hat - x_t).square().mean()
    ),
    "compares x0_hat": _loss_with(
        loss=lambda eps_hat, eps, x0, x_t, signal, noise: (
            ((x_t - noise * eps_hat) / signal - x0).square().mean()
        )
    ),
    "absolute error": _loss_with(loss=lambda eps_hat, eps, *_: (eps_hat - eps).abs().mean()),
    "root of the mean": _loss_with(
        loss=lambda eps_hat, eps, *_: (eps_hat - eps).square().mean().sqrt()
    ),
    "added": _loss_with(loss=lambda eps_hat, eps, *_: (eps_hat + eps).square().mean()),
    "samples weighted": _loss_with(
        loss=lambda eps_hat, eps, x0, x_t, signal, noise: (
            (signal / noise * (eps_hat - eps)).square().mean()
        )
    ),
    "half of it": _loss_with(loss=lambda eps_hat, eps, *_: (eps_hat - eps).square().mean() / 2),
    "target v": _loss_with(
        loss=lambda eps_hat, eps, x0, x_t, signal, noise: (
            (eps_hat - (signal * eps - noise * x0)).square().mean()
        )
    ),
    "Huber": _loss_with(
        loss=lambda eps_hat, eps, *_: torch.nn.functional.smooth_l1_loss(eps_hat, eps)
    ),
    "not squared": _loss_with(loss=lambda eps_hat, eps, *_: (eps - eps_hat).mean()),
    "square of the mean": _loss_with(loss=lambda eps_hat, eps, *_: (eps - eps_hat).mean() ** 2),
    "norm": _loss_with(loss=lambda eps_hat, eps, *_: torch.norm(eps - eps_hat)),
    "x_0 not shrunk": _loss_with(
        rates=lambda schedule, t, like: (torch.ones(()), _rates(schedule, t, like)[1])
    ),
    "eps not shrunk": _loss_with(
        rates=lambda schedule, t, like: (_rates(schedule, t, like)[0], torch.ones(()))
    ),
    "no rates": _loss_with(rates=lambda *_: (torch.ones(()), torch.ones(()))),
    "1 - signal rate": _loss_with(
        rates=lambda schedule, t, like: (
            _rates(schedule, t, like)[0],
            1 - _rates(schedule, t, like)[0],
        )
    ),
    "model sees x_0": _loss_with(show=lambda x_t, x0: x0),
    "t one step off": _loss_with(rates=lambda schedule, t, like: _rates(schedule, t - 1, like)),
    "alpha for alpha_bar": _loss_with(rates=_step_rates),
    "no square roots": _loss_with(
        rates=lambda schedule, t, like: [rate**2 for rate in _rates(schedule, t, like)]
    ),
    "rates swapped": _loss_with(
        rates=lambda schedule, t, like: _rates(schedule, t, like)[::-1],
    ),
    "model told t - 1": lambda model, schedule, x0, generator: _epsilon_loss(
        lambda x_t, t: model(x_t, t - 1), schedule, x0, generator
    ),
    "generator ignored": _without_generator,
    "always the same draws": _same_seed,
    "no gradient": _no_gradient,
    "gradient repaired": _repaired,
    "gradient of a part": _half_detached,
    "backward inside": _backward_inside,
}

epsilon_loss = Exercise(
    "lesson03.epsilon_loss",
    "The epsilon loss",
    difficulty=2,
    minutes=12,
    hints=(
        "Four steps: draw t, draw eps, make x_t, compare. The noise that goes into x_t and the "
        "noise you compare with are one and the same tensor.",
        "`torch.randint(low, high, (n,), generator=generator)` draws whole numbers from low to "
        "high - 1. One for each sample: n is `len(x0)`.",
        "`diffuse(schedule, x0, t, eps)` makes x_t. The model's answer is `model(x_t, t)`. Then "
        "subtract, square, and take the mean over everything.",
    ),
    model_answer=_epsilon_loss,
    cases=_loss_cases,
    use=judge,
    reference=lambda *case: torch.zeros(()),  # the judge returns 0 or raises
    mistakes=[Mistake(name, answer, MESSAGES[name]) for name, answer in _LOSS_MISTAKES.items()],
    alternatives=(
        lambda model, schedule, x0, generator: losses.epsilon_loss(
            model, schedule, x0, generator=generator
        ),
        _one_sample_after_the_other,
        _by_hand,
        _from_last_to_first,
        _shuffled,
        _grouped_by_step,
        _asked_once_more,
        lambda model, schedule, x0, generator: _epsilon_loss(
            lambda x_t, t: model(x_t.double(), t), schedule, x0, generator
        ),
    ),
    passed="Your model was shown the right x_t and t, and compared with the right noise.",
)


# The loss at each step


class _Denoiser:
    """An eps model of one line that insists on its contract."""

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        if not isinstance(t, Tensor) or t.dtype != torch.int64 or t.shape != x_t.shape[:1]:
            text = f"The model wants t as an int64 tensor of shape ({len(x_t)},), one step a "
            raise Wrong("shape", text + f"sample: `torch.full(({len(x_t)},), step)`.")
        return 0.7 * torch.tanh(x_t) + 0.2 * per_sample(t % 5, x_t)

    def __repr__(self) -> str:
        return "a test model"


class _Finder(_Denoiser):
    """Finds the noise to within 0.2 % where x_0 is 0: the losses are nearly 0."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        self._noise_rate = schedule.noise_rate

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        super().__call__(x_t, t)
        return 1.002 * x_t / per_sample(self._noise_rate[t.clamp(min=1)].to(x_t), x_t)


def _loss_by_step(model, schedule, x0, steps, eps):
    losses = []
    for step in steps:
        t = torch.full((len(x0),), step)
        eps_hat = model(diffuse(schedule, x0, t, eps), t)
        losses.append((eps_hat - eps).square().mean())
    return torch.stack(losses)


def _step_cases(generator: torch.Generator):
    for shape, steps in (
        ((5, 2), [1, 3, 4]),
        ((1, 3), [2]),
        ((3, 3), [4, 2, 3]),
        ((2, 3, 4, 5), [3, 1]),
        ((3, 4, 3), [2, 4]),
        ((2, 2, 1, 3, 2), [4, 3, 1]),
    ):
        x0 = 0.4 + torch.randn(shape, generator=generator)
        yield _Denoiser(), _schedule(), x0, steps, torch.randn(shape, generator=generator)
    x0 = 0.4 + torch.randn(4, 2, generator=generator)
    yield (
        _Denoiser(),
        linear_schedule(1000),
        x0,
        [1, 2, 400, 1000],
        torch.randn(x0.shape, generator=generator),
    )
    eps = torch.randn(3, 2, generator=generator)
    yield _Finder(_schedule()), _schedule(), torch.zeros(3, 2), [1, 2, 4], eps


def _by_step(at_step):
    """An answer that puts ``at_step(model, schedule, x0, eps, step)`` of all steps together."""

    def loss_by_step(model, schedule, x0, steps, eps):
        return torch.stack([at_step(model, schedule, x0, eps, step) for step in steps])

    return loss_by_step


def _errors(model, schedule, x0, eps, step):
    t = torch.full((len(x0),), step)
    return model(diffuse(schedule, x0, t, eps), t) - eps


def _all_steps_at_once(model, schedule, x0, steps, eps):
    t = torch.tensor(steps).repeat_interleave(len(x0))
    again = [len(steps), *[1] * (x0.ndim - 1)]
    x_t = diffuse(schedule, x0.repeat(again), t, eps.repeat(again))
    errors = (model(x_t, t) - eps.repeat(again)) ** 2
    return errors.reshape(len(steps), -1).mean(1)


def _noised_again(model, schedule, x0, steps, eps):
    losses = []
    for step in steps:
        t = torch.full((len(x0),), step)
        x0 = diffuse(schedule, x0, t, eps)
        losses.append((model(x0, t) - eps).square().mean())
    return torch.stack(losses)


def _index_for_step(model, schedule, x0, steps, eps):
    return _loss_by_step(model, schedule, x0, range(1, len(steps) + 1), eps)


loss_by_step = Exercise(
    "lesson03.loss_by_step",
    "The loss at each step",
    difficulty=1,
    minutes=5,
    hints=(
        "A loop over `steps`: at each step noise all of `x0`, ask the model, keep one number.",
        "`torch.full((len(x0),), step)` is a whole batch at one step; `torch.stack(numbers)` makes "
        "a tensor of a list of numbers.",
    ),
    model_answer=_loss_by_step,
    cases=_step_cases,
    together=True,  # answers may transform the model, which no stand-in survives
    mistakes=(
        Mistake(
            "one mean over all steps",
            lambda *case: _loss_by_step(*case).mean(),
            "You return a single number. Keep the steps apart: one number each, in their order.",
        ),
        Mistake(
            "summed",
            _by_step(lambda *a: _errors(*a).square().sum()),
            "You add up the squared errors at each step. Take their mean.",
        ),
        Mistake(
            "absolute error",
            _by_step(lambda *a: _errors(*a).abs().mean()),
            "You average absolute errors; the loss averages squares.",
        ),
        Mistake(
            "root of the mean",
            _by_step(lambda *a: _errors(*a).square().mean().sqrt()),
            "You take the root of each mean. The loss has no root.",
        ),
        Mistake(
            "square of the mean",
            _by_step(lambda *a: _errors(*a).mean().square()),
            "You average first and then square, so that errors of both signs cancel. Square first.",
        ),
        Mistake(
            "index for step",
            _index_for_step,
            "You use the place in the list, 1, 2, 3, as the step. The steps are what the list "
            "holds.",
        ),
        Mistake(
            "steps counted from 0",
            _by_step(lambda m, s, x0, eps, step: _errors(m, s, x0, eps, step - 1).square().mean()),
            "You look one step too early, at t - 1. Steps count noisings here: t is t.",
        ),
        Mistake(
            "model sees x_0",
            _by_step(
                lambda model, schedule, x0, eps, step: (
                    (model(x0, torch.full((len(x0),), step)) - eps).square().mean()
                )
            ),
            "Your model is shown the clean x_0. Noise it first: `diffuse(schedule, x0, t, eps)`.",
        ),
        Mistake(
            "target x_0",
            _by_step(
                lambda m, s, x0, eps, k: (_errors(m, s, x0, eps, k) + eps - x0).square().mean()
            ),
            "You compare the model's answer with x_0. It looks for the noise: compare with eps.",
        ),
        Mistake(
            "one number a sample",
            _by_step(lambda *a: _errors(*a).square().reshape(len(a[2]), -1).mean(1)),
            "You keep one number for each sample. Average over the batch too: one number a step.",
        ),
        Mistake(
            "noise drawn anew",
            _by_step(
                lambda model, schedule, x0, eps, step: (
                    (
                        model(
                            diffuse(
                                schedule, x0, torch.full((len(x0),), step), torch.randn_like(eps)
                            ),
                            torch.full((len(x0),), step),
                        )
                        - eps
                    )
                    .square()
                    .mean()
                )
            ),
            "You draw noise of your own for x_t. Use the `eps` that you are given, for x_t and "
            "for the comparison.",
        ),
        Mistake(
            "returned in the loop",
            lambda *case: _loss_by_step(*case)[0],
            "You return the number of the first step only: is `return` inside the loop?",
        ),
        Mistake(
            "steps sorted",
            lambda model, schedule, x0, steps, eps: _loss_by_step(
                model, schedule, x0, sorted(steps), eps
            ),
            "You sort the steps. Return the numbers in the order in which `steps` lists them.",
        ),
        Mistake(
            "last step only",
            lambda *case: _loss_by_step(*case)[-1],
            "You return the number of the last step only: each step overwrites the one before. "
            "Collect them in a list.",
        ),
        Mistake(
            "noised again and again",
            _noised_again,
            "In your loop x0 is replaced by its noisy version, so the next step noises it once "
            "more. Give x_t a name of its own.",
        ),
        Mistake(
            "sum so far",
            lambda *case: _loss_by_step(*case).cumsum(0),
            "Each of your numbers holds those of the steps before it as well. Begin anew at each "
            "step.",
        ),
    ),
    alternatives=(
        _all_steps_at_once,
        lambda *case: [float(loss) for loss in _loss_by_step(*case)],
        _by_step(
            lambda model, schedule, x0, eps, step: losses.epsilon_losses(
                model, schedule, x0.double(), torch.full((len(x0),), step), eps.double()
            ).mean()
        ),
    ),
)

floor_of_a_gaussian = Number(
    "lesson03.floor_of_a_gaussian",
    "The floor under one Gaussian",
    difficulty=2,
    minutes=3,
    hints=(
        "The floor is the variance of eps that is left when x_t is known. eps alone has "
        "variance 1; subtract what the best guess explains.",
        "x_t has variance alpha_bar + (1 - alpha_bar) = 1. The best guess is noise_rate times x_t. "
        "What is its variance?",
    ),
    value=0.36,
    atol=0.004,
    mistakes=(
        Mistake(
            "what is explained",
            0.64,
            "0.64 = 1 - alpha_bar is the variance of the best guess: the share that is explained. "
            "The floor is what is left.",
        ),
        Mistake(
            "nothing left",
            0.0,
            "Zero would mean that x_t gives eps away. It does not: another x_0 with another eps "
            "could have made the same x_t.",
        ),
        Mistake("signal rate", 0.6, "0.6 is the root of it, the signal rate. Variances add up."),
        Mistake("noise rate", 0.8, "0.8 is the noise rate, the factor in the best guess."),
        Mistake("all of it", 1.0, "1 is what you get by always answering 0. Do better than that."),
    ),
    why="The floor is 1 - (1 - alpha_bar) = alpha_bar, here 0.36: near 1 for small t, near 0 at T.",
)

flat_curve = Choice(
    "lesson03.flat_curve",
    "The flat curve",
    minutes=1,
    hints=("Loss = floor + excess. Which of the two can the network change?",),
    right="c",
    options={
        "a": "The loss is flat because the floor makes up most of it. Below, the excess goes on "
        "falling, so it is not the end.",
        "b": "A learning rate that is too high makes a loss rise or jump. This one is flat since "
        "most of it is the floor, which no learning rate changes.",
        "c": "Right: most of the loss is the floor, which no network can lower. What matters is "
        "the excess above it, and on the scale of the loss you cannot see that.",
        "d": "A loss of zero is impossible: the floor is the variance of eps given x_t, however "
        "large the network is.",
    },
)


# What a perfect memory answers


def _posterior_mean(schedule, data, x_t, t):
    alpha_bar = schedule.alpha_bar[t][:, None]  # (B, 1)
    away = x_t[:, None, :] - schedule.signal_rate[t][:, None, None] * data  # (B, N, D)
    logits = -away.square().sum(2) / (2 * (1 - alpha_bar))  # (B, N)
    return logits.softmax(1) @ data.double()  # (B, N) @ (N, D)


def _posterior_cases(generator: torch.Generator):
    schedule = NoiseSchedule(torch.tensor([1.0, 0.97, 0.8, 0.5, 0.2, 0.05]).double())
    for members, dims, batch in ((5, 2, 6), (1, 3, 2), (4, 2, 4), (6, 4, 1), (3, 3, 3)):
        data = torch.randn(members, dims, generator=generator)
        t = torch.randint(1, 6, (batch,), generator=generator)
        yield schedule, data, torch.randn(batch, dims, generator=generator), t
    for course, t in _ends():
        data = 0.7 * torch.randn(5, 2, generator=generator)
        x_t = diffuse(course, data[:4], t, torch.randn(4, 2, generator=generator))
        yield course, data, x_t, t
    # Members so close together that several explain x_t, where there is little noise and much.
    for size, t in ((0.01, torch.tensor([1, 2])), (30.0, torch.tensor([1000, 900]))):
        data = size * torch.randn(5, 2, generator=generator)
        x_t = diffuse(linear_schedule(1000), data[:2], t, torch.randn(2, 2, generator=generator))
        yield linear_schedule(1000), data, x_t, t
    far = 9 + torch.randn(2, 2, generator=generator)
    yield schedule, torch.randn(4, 2, generator=generator), far, torch.tensor([1, 2])


def _mean_with(logits=None, *, shares=lambda logits: logits.softmax(1), mean=None):
    """The posterior mean with something changed."""

    def posterior_mean(schedule, data, x_t, t):
        data, x_t = data.double(), x_t.double()
        alpha_bar = schedule.alpha_bar[t][:, None]
        away = x_t[:, None] - alpha_bar.sqrt()[..., None] * data
        if logits is None:
            values = -away.square().sum(2) / (2 * (1 - alpha_bar))
        else:
            values = logits(away, alpha_bar, x_t, data)
        x0_hat = shares(values) @ data
        return x0_hat if mean is None else mean(x0_hat, x_t, schedule, t)

    return posterior_mean


def _exp_by_hand(schedule, data, x_t, t):
    alpha_bar = schedule.alpha_bar[t].float()[:, None]
    away = x_t[:, None] - alpha_bar.sqrt()[..., None] * data
    likely = torch.exp(-away.square().sum(2) / (2 * (1 - alpha_bar)))
    return likely / likely.sum(1, keepdim=True) @ data


def _with_loops(schedule, data, x_t, t):
    rows = []
    for point, step in zip(x_t, t, strict=True):
        s, v = float(schedule.signal_rate[step]), float(1 - schedule.alpha_bar[step])
        logits = [-float(((point - s * member) ** 2).sum()) / (2 * v) for member in data]
        likely = [np.exp(logit - max(logits)) for logit in logits]
        rows.append(sum(p * member for p, member in zip(likely, data, strict=True)) / sum(likely))
    return torch.stack(rows)


def _with_numpy(schedule, data, x_t, t):
    abar = schedule.alpha_bar.numpy()[t.numpy()][:, None]
    points, members = x_t.double().numpy(), data.double().numpy()
    logits = (np.sqrt(abar) * points @ members.T - abar * (members**2).sum(1) / 2) / (1 - abar)
    likely = np.exp(logits - logits.max(axis=1, keepdims=True))
    return likely @ members / likely.sum(axis=1, keepdims=True)


def _one_step(schedule: NoiseSchedule) -> NoiseSchedule:
    """The schedule whose alpha_bars are the alphas of ``schedule``."""
    return NoiseSchedule(torch.cat([torch.ones(1, dtype=torch.float64), schedule.alpha]))


def _away(schedule, data, x_t, t):
    """x_t minus each scaled member, (B, N, D)."""
    return x_t[:, None].double() - schedule.signal_rate[t][:, None, None] * data.double()


def _shares_alone(schedule, data, x_t, t):
    alpha_bar = schedule.alpha_bar[t][:, None]
    away = x_t[:, None] - alpha_bar.sqrt()[..., None] * data
    return (-away.square().sum(2) / (2 * (1 - alpha_bar))).softmax(1)


posterior_mean = Exercise(
    "lesson03.posterior_mean",
    "The perfect memory",
    difficulty=3,
    minutes=15,
    hints=(
        "Three steps: how far is each x_t from each scaled member, a table (B, N); a softmax along "
        "the members; a mean of the members with these shares.",
        "`x_t[:, None] - signal_rate * data` has shape (B, N, D) if the rate has shape (B, 1, 1): "
        "`schedule.signal_rate[t][:, None, None]`.",
        "Logits: minus the squared distance (a sum over D), divided by 2 (1 - alpha_bar_t), which "
        "needs shape (B, 1) here. Then `logits.softmax(1)`, and `@ data`; mind that float64 does "
        "not multiply float32.",
    ),
    model_answer=_posterior_mean,
    cases=_posterior_cases,
    use=_sample_by_sample(_posterior_mean, t_is=3, rtol=1e-3, atol=1e-4),
    reference=_posterior_mean,
    rtol=1e-3,
    atol=1e-4,
    mistakes=(
        Mistake(
            "softmax over the batch",
            _mean_with(shares=lambda logits: logits.softmax(0)),
            "Your shares add up to 1 along the batch. Each x_t has shares of its own: along the "
            "members, the second axis.",
        ),
        Mistake(
            "no 2 below",
            _mean_with(lambda away, a, *_: -away.square().sum(2) / (1 - a)),
            "Your logits are twice too large: the exponent of a Gaussian has a 2 in its "
            "denominator.",
        ),
        Mistake(
            "noise rate for variance",
            _mean_with(lambda away, a, *_: -away.square().sum(2) / (2 * (1 - a).sqrt())),
            "You divide by the noise rate. A Gaussian's exponent has the variance there, "
            "1 - alpha_bar_t.",
        ),
        Mistake(
            "variance of the signal",
            _mean_with(lambda away, a, *_: -away.square().sum(2) / (2 * a)),
            "You divide by 2 alpha_bar_t. How far x_t strays from the scaled member is the noise's "
            "doing: its variance is 1 - alpha_bar_t.",
        ),
        Mistake(
            "members not scaled",
            _mean_with(
                lambda away, a, x_t, data: -(x_t[:, None] - data).square().sum(2) / (2 * (1 - a))
            ),
            "You measure the distance to x_i. At step t a member has shrunk to signal_rate times "
            "x_i: measure from there.",
        ),
        Mistake(
            "scaled by alpha_bar",
            _mean_with(
                lambda away, a, x_t, data: (
                    -(x_t[:, None] - a[..., None] * data).square().sum(2) / (2 * (1 - a))
                )
            ),
            "You shrink the members by alpha_bar_t. The jump shrinks by its root, the signal rate.",
        ),
        Mistake(
            "sign",
            _mean_with(lambda away, a, *_: away.square().sum(2) / (2 * (1 - a))),
            "Your shares favor the members that are farthest away: the logits lack their minus.",
        ),
        Mistake(
            "distance not squared",
            _mean_with(lambda away, a, *_: -away.square().sum(2).sqrt() / (2 * (1 - a))),
            "You use the distance; a Gaussian's exponent has its square.",
        ),
        Mistake(
            "mean over coordinates",
            _mean_with(lambda away, a, *_: -away.square().mean(2) / (2 * (1 - a))),
            "You average the squared differences over the coordinates. The squared distance is "
            "their sum.",
        ),
        Mistake(
            "nearest member",
            _mean_with(
                shares=lambda logits: torch.nn.functional.one_hot(
                    logits.argmax(1), logits.shape[1]
                ).double()
            ),
            "You return the nearest member alone. The others are possible too, each with its "
            "share: take the mean.",
        ),
        Mistake(
            "plain mean",
            _mean_with(shares=lambda logits: torch.full_like(logits, 1 / logits.shape[1])),
            "You return the plain mean of the data, whatever x_t is. Weigh the members by how well "
            "they explain x_t.",
        ),
        Mistake(
            "mean of the scaled members",
            _mean_with(
                mean=lambda x0_hat, x_t, schedule, t: schedule.signal_rate[t][:, None] * x0_hat
            ),
            "You average the scaled members. For the shares they are scaled; what is averaged is "
            "the clean x_i.",
        ),
        Mistake(
            "noise instead of the mean",
            _mean_with(mean=lambda x0_hat, x_t, schedule, t: predict_eps(schedule, x_t, t, x0_hat)),
            "You return the noise. That comes next; here the answer is the mean of x_0.",
        ),
        Mistake(
            "exp underflows",
            _exp_by_hand,
            "Right in theory. But far from all data every `exp` rounds to 0, and 0 / 0 is NaN. "
            "`logits.softmax(1)` subtracts the largest logit first, which changes no share.",
        ),
        Mistake(
            "no brackets below",
            _mean_with(lambda away, a, *_: -away.square().sum(2) / 2 * (1 - a)),
            "`x / 2 * v` divides by 2 and *multiplies* by v. Put the denominator into brackets: "
            "`x / (2 * v)`.",
        ),
        Mistake(
            "softmax of the likelihoods",
            _mean_with(shares=lambda logits: logits.exp().softmax(1)),
            "You take the exponential twice: softmax does it already. Give it the exponents, the "
            "logits.",
        ),
        Mistake(
            "log of the shares",
            _mean_with(shares=lambda logits: logits.log_softmax(1)),
            "You weigh by the logarithms of the shares. Take `softmax`, not `log_softmax`.",
        ),
        Mistake(
            "shares do not add up to 1",
            _mean_with(shares=lambda logits: logits.exp()),
            "Your shares do not add up to 1. Divide them by their sum, or let `softmax` do both.",
        ),
        Mistake(
            "clamped",
            _mean_with(mean=lambda x0_hat, *_: x0_hat.clamp(-1, 1)),
            "You cut x0_hat off at -1 and 1. That is for images; a mean of points may lie anywhere "
            "among them.",
        ),
        Mistake(
            "one t for all",
            lambda schedule, data, x_t, t: _posterior_mean(schedule, data, x_t, t[:1].expand_as(t)),
            "You use the step of the first sample for all of them. Each x_t has a t of its own.",
        ),
        Mistake(
            "alpha for alpha_bar",
            lambda schedule, data, x_t, t: _posterior_mean(_one_step(schedule), data, x_t, t),
            "You use the alpha of a single step. x_t has been noised t times: alpha_bar, the "
            "product.",
        ),
        Mistake(
            "summed over the members",
            lambda schedule, data, x_t, t: (
                (
                    -_away(schedule, data, x_t, t).square().sum(1)
                    / (2 * (1 - schedule.alpha_bar[t][:, None]))
                ).softmax(1)
                @ data.double()
            ),
            "You add the squares up over the members, axis 1 of (B, N, D). A distance adds them up "
            "over the coordinates, the last axis.",
        ),
        Mistake(
            "variance along the members",
            lambda schedule, data, x_t, t: (
                (
                    -_away(schedule, data, x_t, t).square().sum(2)
                    / (2 * (1 - schedule.alpha_bar[t]))
                ).softmax(1)
                @ data.double()
            ),
            "Your variance has shape (B,), so it meets the members, the last axis of (B, N). Give "
            "it shape (B, 1): `[:, None]`.",
        ),
        Mistake(
            "signal rate along the members",
            lambda schedule, data, x_t, t: (
                (
                    -(x_t[:, None] - schedule.signal_rate[t][:, None] * data).square().sum(2)
                    / (2 * (1 - schedule.alpha_bar[t][:, None]))
                ).softmax(1)
                @ data.double()
            ),
            "Your signal rate has shape (B, 1), so it meets the members of (N, D). Give it shape "
            "(B, 1, 1): `[:, None, None]`.",
        ),
        Mistake(
            "shares returned",
            _shares_alone,
            "These are the shares of the members, (B, N). Return the mean of the members with "
            "these shares: `shares @ data`.",
        ),
        Mistake(
            "step counted from 0",
            lambda schedule, data, x_t, t: _posterior_mean(schedule, data, x_t, t - 1),
            "You use alpha_bar of t - 1, where at t = 1 there is no noise to divide by. "
            "`alpha_bar[t]` is right as it is: entry 0 is clean data.",
        ),
    ),
    alternatives=(
        _with_loops,
        _with_numpy,
        lambda schedule, data, x_t, t: DatasetOracle(schedule, data).posterior_mean(x_t, t),
        _mean_with(),
    ),
    passed="This function remembers a whole data set, and no network can beat it there.",
    why="In float64 the shares stay exact where two members are nearly as likely.",
)


# Four names for one thing


def _step_factors(generator: torch.Generator):
    """Schedules, shapes and steps: points, images, 1, 3 and 5 axes, batch = width = channels."""
    for shape in (
        (4, 2), (1, 3), (3, 3), (2, 1, 4, 4), (3, 3, 2, 2), (5,), (3, 4, 3), (2, 3, 2, 4, 2),
    ):  # fmt: skip
        t = torch.randint(1, 5, (shape[0],), generator=generator)
        t[-1] = 1
        yield _schedule(), shape, t
    for course, t in _ends():
        yield course, (len(t), 2), t


def _score_from_eps(schedule, eps_hat, t):
    noise_rate = schedule.noise_rate[t].reshape(-1, *[1] * (eps_hat.ndim - 1))
    return -eps_hat / noise_rate


def _score_cases(generator: torch.Generator):
    for schedule, shape, t in _step_factors(generator):
        yield schedule, torch.randn(shape, generator=generator), t


def _score_with(factor):
    def score_from_eps(schedule, eps_hat, t):
        return eps_hat * factor(*_rates(schedule, t, eps_hat))

    return score_from_eps


def _by_two_shapes(values: Tensor, like: Tensor) -> Tensor:
    return values[:, None, None, None] if like.ndim == 4 else values[:, None]


def _score_in_place(schedule, eps_hat, t):
    for sample, step in zip(eps_hat, t, strict=True):
        sample /= -float((1 - schedule.alpha_bar[step]) ** 0.5)
    return eps_hat


score_from_eps = Exercise(
    "lesson03.score_from_eps",
    "From noise to score",
    difficulty=1,
    minutes=2,
    hints=(
        "The score points towards more likely places, the noise away from them: mind the sign.",
        "`schedule.noise_rate[t]` has shape (B,). To divide points (B, 2) or images (B, C, H, W) "
        "by it, reshape it to (B, 1, ...).",
    ),
    model_answer=_score_from_eps,
    cases=_score_cases,
    use=_sample_by_sample(_score_from_eps, t_is=2),
    reference=_score_from_eps,
    mistakes=(
        Mistake(
            "sign",
            _score_with(lambda signal, noise: 1 / noise),
            "Your score points to where data is rare. Noise leads away from the data; the score "
            "leads back.",
        ),
        Mistake(
            "divided by the variance",
            _score_with(lambda signal, noise: -1 / noise**2),
            "You divide by 1 - alpha_bar_t. One of its two roots is used up: x_t - signal * x_0 is "
            "noise_rate * eps.",
        ),
        Mistake(
            "multiplied",
            _score_with(lambda signal, noise: -noise),
            "You multiply by the noise rate. At small t the density is steep and the score large: "
            "divide.",
        ),
        Mistake(
            "signal rate",
            _score_with(lambda signal, noise: -1 / signal),
            "You divide by the signal rate; it is the noise rate that says how steep the density "
            "is.",
        ),
        Mistake(
            "not divided",
            lambda schedule, eps_hat, t: -eps_hat,
            "The direction is right, the length is not: divide by the noise rate.",
        ),
        Mistake(
            "step counted from 0",
            lambda schedule, eps_hat, t: _score_from_eps(schedule, eps_hat, t - 1),
            "You use the noise rate of t - 1, which is 0 at t = 1. `noise_rate[t]` is right as it "
            "is: entry 0 is clean data.",
        ),
        Mistake(
            "rate along the wrong axis",
            lambda schedule, eps_hat, t: -eps_hat / schedule.noise_rate[t],
            "A tensor (B,) meets the *last* axis of (B, ...), so each column gets another rate "
            "where each sample should. Reshape it to (B, 1, ...).",
        ),
        Mistake(
            "points and images only",
            lambda schedule, eps_hat, t: -eps_hat / _by_two_shapes(schedule.noise_rate[t], eps_hat),
            "Your rate gets its axes for points and for images only. `eps_hat` may have any number "
            "of axes: count them by `eps_hat.ndim`.",
        ),
        Mistake(
            "images only",
            lambda schedule, eps_hat, t: -eps_hat / schedule.noise_rate[t][:, None, None, None],
            "Your rate has four axes, for images only. `eps_hat` may be points, or anything else "
            "with the batch first: count its axes by `eps_hat.ndim`.",
        ),
        Mistake(
            "one t for all",
            lambda schedule, eps_hat, t: -eps_hat / schedule.noise_rate[t[0]],
            "You use the step of the first sample for all of them. Each has a t of its own.",
        ),
        Mistake(
            "1 - signal rate",
            _score_with(lambda signal, noise: -1 / (1 - signal)),
            "You divide by 1 - signal rate. Variances add up to 1, rates do not: the noise rate is "
            "the root of 1 - alpha_bar.",
        ),
        Mistake(
            "rate kept away from 0",
            _score_with(lambda signal, noise: -1 / noise.clamp(min=0.05)),
            "You keep the rate away from 0. It is small at small t, and the score large there: "
            "leave it as it is.",
        ),
    ),
    alternatives=(
        _score_in_place,
        lambda schedule, eps_hat, t: torch.einsum(
            "b,b...->b...", -1 / schedule.noise_rate[t].float(), eps_hat
        ),
        lambda schedule, eps_hat, t: (
            -(eps_hat.double().numpy().T / schedule.noise_rate.numpy()[t.numpy()]).T
        ),
    ),
)


def _v_target(schedule, x0, t, eps):
    shape = (-1, *[1] * (x0.ndim - 1))
    signal_rate = schedule.signal_rate[t].reshape(shape)
    noise_rate = schedule.noise_rate[t].reshape(shape)
    return signal_rate * eps - noise_rate * x0


def _v_cases(generator: torch.Generator):
    for schedule, shape, t in _step_factors(generator):
        x0, eps = (torch.randn(shape, generator=generator) for _ in range(2))
        yield schedule, x0, t, eps


def _v_with(combine):
    def v_target(schedule, x0, t, eps):
        return combine(*_rates(schedule, t, x0), x0, eps)

    return v_target


def _v_in_place(schedule, x0, t, eps):
    for i, step in enumerate(t.tolist()):
        eps[i] *= float(schedule.signal_rate[step])
        eps[i] -= float(schedule.noise_rate[step]) * x0[i]
    return eps


v_target = Exercise(
    "lesson03.v_target",
    "The target v",
    difficulty=1,
    minutes=2,
    hints=(
        "It is the line of the text, with both rates looked up at t and reshaped to (B, 1, ...).",
        "In v the rates have changed places against the jump: the signal rate goes with eps, the "
        "noise rate with x_0, with a minus.",
    ),
    model_answer=_v_target,
    cases=_v_cases,
    use=_sample_by_sample(_v_target, t_is=2),
    reference=_v_target,
    mistakes=(
        Mistake(
            "rates swapped",
            _v_with(lambda signal, noise, x0, eps: noise * eps - signal * x0),
            "The rates have changed places: in v the signal rate goes with eps, the noise rate "
            "with x_0.",
        ),
        Mistake(
            "x_t instead of v",
            _v_with(lambda signal, noise, x0, eps: signal * x0 + noise * eps),
            "This is x_t. v stands at a right angle to it: the other rates, and a minus.",
        ),
        Mistake(
            "plus",
            _v_with(lambda signal, noise, x0, eps: signal * eps + noise * x0),
            "You add where v subtracts: x_0 comes with a minus.",
        ),
        Mistake(
            "sign",
            _v_with(lambda signal, noise, x0, eps: noise * x0 - signal * eps),
            "Your v has the opposite sign: eps counts positive, x_0 negative.",
        ),
        Mistake(
            "no square roots",
            _v_with(lambda signal, noise, x0, eps: signal**2 * eps - noise**2 * x0),
            "You weigh by alpha_bar and 1 - alpha_bar, which are variances. v takes their roots.",
        ),
        Mistake(
            "no rates",
            lambda schedule, x0, t, eps: eps - x0,
            "This is eps - x_0, whatever t is. Weigh the two by their rates.",
        ),
        Mistake(
            "step counted from 0",
            lambda schedule, x0, t, eps: _v_target(schedule, x0, t - 1, eps),
            "You use the rates of t - 1. `signal_rate[t]` and `noise_rate[t]` are right as they "
            "are: entry 0 is clean data.",
        ),
        Mistake(
            "rate along the wrong axis",
            lambda schedule, x0, t, eps: (
                schedule.signal_rate[t] * eps - schedule.noise_rate[t] * x0
            ),
            "A tensor (B,) meets the *last* axis of (B, ...), so each column gets another rate "
            "where each sample should: reshape the rates to (B, 1, ...).",
        ),
        Mistake(
            "x_0 and eps swapped",
            _v_with(lambda signal, noise, x0, eps: signal * x0 - noise * eps),
            "x_0 and eps have changed places: the signal rate goes with eps, the noise rate with "
            "x_0.",
        ),
        Mistake(
            "points and images only",
            lambda schedule, x0, t, eps: (
                _by_two_shapes(schedule.signal_rate[t], x0) * eps
                - _by_two_shapes(schedule.noise_rate[t], x0) * x0
            ),
            "Your rates get their axes for points and for images only. `x0` may have any number of "
            "axes: count them by `x0.ndim`.",
        ),
        Mistake(
            "images only",
            lambda schedule, x0, t, eps: (
                schedule.signal_rate[t][:, None, None, None] * eps
                - schedule.noise_rate[t][:, None, None, None] * x0
            ),
            "Your rates have four axes, for images only. `x0` may be points, or anything else with "
            "the batch first: count its axes by `x0.ndim`.",
        ),
        Mistake(
            "one t for all",
            lambda schedule, x0, t, eps: _v_target(schedule, x0, t[:1].expand_as(t), eps),
            "You use the step of the first sample for all of them. Each has a t of its own.",
        ),
        Mistake(
            "clamped",
            lambda schedule, x0, t, eps: _v_target(schedule, x0, t, eps).clamp(-1, 1),
            "You cut v off at -1 and 1. There is noise in v, which may lie anywhere.",
        ),
        Mistake(
            "1 - signal rate",
            _v_with(lambda signal, noise, x0, eps: signal * eps - (1 - signal) * x0),
            "You weigh x_0 by 1 - signal rate. Variances add up to 1, rates do not: take "
            "`noise_rate`.",
        ),
        Mistake(
            "made from x_t",
            lambda schedule, x0, t, eps: _v_target(schedule, diffuse(schedule, x0, t, eps), t, eps),
            "You subtract a share of x_t. It is the clean x_0 that goes with the noise rate.",
        ),
    ),
    alternatives=(
        velocity,
        _v_in_place,
        lambda schedule, x0, t, eps: (
            (schedule.alpha_bar[t] ** 0.5 * eps.double().movedim(0, -1)).movedim(-1, 0)
            - ((1 - schedule.alpha_bar[t]) ** 0.5 * x0.double().movedim(0, -1)).movedim(-1, 0)
        ),
    ),
)

currency = Choice(
    "lesson03.currency",
    "The same mistake, counted in x_0",
    difficulty=2,
    minutes=2,
    hints=(
        "Solve the jump for x_0: by what factor does an error in eps become an error in x_0?",
        "The factor is noise_rate / signal_rate, and losses are squares. What is signal_rate^2 / "
        "noise_rate^2 called?",
    ),
    right="c",
    options={
        "a": "The answers can be converted, but the conversion stretches an error by "
        "noise_rate / signal_rate, which is another number at each t.",
        "b": "Upside down. An error in eps is multiplied by noise_rate / signal_rate to become one "
        "in x_0, and that is large where the SNR is small.",
        "c": "Right: (noise_rate / signal_rate)^2 = 1/SNR. A network that is trained on x_0 cares "
        "most for the noisy steps and hardly for the nearly clean ones.",
        "d": "Nearly: the error itself is stretched by that. The loss squares it.",
    },
)


# Weights


def _min_snr_weight(schedule, t, gamma):
    snr = schedule.snr[t]
    return snr.clamp(max=gamma) / snr


def _weight_cases(generator: torch.Generator):
    schedule = NoiseSchedule(torch.tensor([1.0, 0.99, 0.9, 0.6, 0.2, 0.02]).double())
    for size, gamma in ((6, 5.0), (1, 5.0), (4, 1.0), (9, 0.5)):
        t = torch.randint(1, 6, (size,), generator=generator)
        t[0] = 1
        yield schedule, t, gamma
    for course, t in _ends():
        yield course, t, 5.0
    yield linear_schedule(1000), torch.tensor([1, 300, 800, 1000]), 0.001


min_snr_weight = Exercise(
    "lesson03.min_snr_weight",
    "The min-SNR weight",
    difficulty=1,
    minutes=2,
    hints=(
        "`schedule.snr[t]` is the SNR of each sample's step.",
        "`x.clamp(max=gamma)` is the smaller of x and gamma, entry by entry.",
    ),
    model_answer=_min_snr_weight,
    cases=_weight_cases,
    use=_sample_by_sample(_min_snr_weight, t_is=1),
    reference=_min_snr_weight,
    mistakes=(
        Mistake(
            "max for min",
            lambda schedule, t, gamma: schedule.snr[t].clamp(min=gamma) / schedule.snr[t],
            "You take the larger of SNR and gamma. `clamp(max=gamma)` keeps what is below gamma.",
        ),
        Mistake(
            "weight of the x_0 loss",
            lambda schedule, t, gamma: schedule.snr[t].clamp(max=gamma),
            "min(SNR, gamma) is the weight for a loss in x_0. In eps an error counts 1/SNR times "
            "as much already: divide by the SNR.",
        ),
        Mistake(
            "weight of the v loss",
            lambda schedule, t, gamma: schedule.snr[t].clamp(max=gamma) / (schedule.snr[t] + 1),
            "Divided by SNR + 1 it is the weight for a loss in v. For eps divide by the SNR.",
        ),
        Mistake(
            "upside down",
            lambda schedule, t, gamma: schedule.snr[t] / schedule.snr[t].clamp(max=gamma),
            "Numerator and denominator have changed places: nearly clean steps should count less.",
        ),
        Mistake(
            "no min",
            lambda schedule, t, gamma: gamma / schedule.snr[t],
            "Your weight grows without limit where the SNR is small. Where the SNR is below "
            "gamma, the weight is 1.",
        ),
        Mistake(
            "rates not squared",
            lambda schedule, t, gamma: (
                schedule.snr[t].sqrt().clamp(max=gamma) / schedule.snr[t].sqrt()
            ),
            "You use signal_rate / noise_rate. The SNR is a ratio of variances: the square of it.",
        ),
        Mistake(
            "gamma left at 5",
            lambda schedule, t, gamma: schedule.snr[t].clamp(max=5.0) / schedule.snr[t],
            "Right for gamma = 5, whatever gamma is. Use the argument.",
        ),
        Mistake(
            "alpha for alpha_bar",
            lambda schedule, t, gamma: (
                (schedule.alpha / schedule.beta)[t - 1].clamp(max=gamma)
                / (schedule.alpha / schedule.beta)[t - 1]
            ),
            "Your SNR is that of a single step, alpha / (1 - alpha). It takes alpha_bar, the "
            "product of all steps up to t: `schedule.snr[t]`.",
        ),
        Mistake(
            "step counted from 0",
            lambda schedule, t, gamma: _min_snr_weight(schedule, t - 1, gamma).nan_to_num(0),
            "You use the SNR of t - 1. `snr[t]` is right as it is: entry 0 is clean data, where it "
            "is infinite.",
        ),
        Mistake(
            "whole-number division",
            lambda schedule, t, gamma: schedule.snr[t].clamp(max=gamma) // schedule.snr[t],
            "`//` rounds down to whole numbers, here to 0 and 1. Divide by `/`.",
        ),
        Mistake(
            "min of Python",
            lambda schedule, t, gamma: min(schedule.snr[t], gamma) / schedule.snr[t],
            "Python's `min` compares its arguments as a whole, and a tensor holds many numbers. "
            "`x.clamp(max=gamma)` does it entry by entry.",
        ),
        Mistake(
            "soft min",
            lambda schedule, t, gamma: gamma / (schedule.snr[t] + gamma),
            "gamma / (SNR + gamma) resembles it and has no corner. Take the smaller of SNR and "
            "gamma, divided by the SNR.",
        ),
        Mistake(
            "SNR upside down",
            lambda schedule, t, gamma: (1 / schedule.snr[t]).clamp(max=gamma) * schedule.snr[t],
            "Your SNR is noise over signal. It is alpha_bar / (1 - alpha_bar), large at small t.",
        ),
        Mistake(
            "steps forgotten",
            lambda schedule, t, gamma: _min_snr_weight(
                schedule, torch.arange(1, schedule.num_steps + 1), gamma
            ),
            "This is the weight of every step of the schedule. Look the SNR up at the steps `t`: "
            "`schedule.snr[t]`.",
        ),
    ),
    alternatives=(
        lambda schedule, t, gamma: torch.minimum(torch.ones(()), gamma / schedule.snr[t]),
        lambda schedule, t, gamma: np.minimum(
            1, gamma * (1 / schedule.alpha_bar.numpy()[t.numpy()] - 1)
        ),
        lambda schedule, t, gamma: torch.tensor(
            [min(float(schedule.snr[step]), gamma) / float(schedule.snr[step]) for step in t]
        ),
        lambda schedule, t, gamma: losses.min_snr_weight(schedule, t, gamma=gamma),
    ),
)
