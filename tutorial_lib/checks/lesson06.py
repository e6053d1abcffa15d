"""From noise back to data: ancestral sampling, DDIM, walks between noises and back into noise."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tutorial_lib.checks.framework import (
    Choice,
    Exercise,
    Mistake,
    Number,
    Property,
    Wrong,
    tensor_like,
)
from tutorial_lib.schedules import NoiseSchedule, cosine_schedule, from_betas, linear_schedule


def _short_schedule(num_steps: int, generator: torch.Generator):
    """A schedule of random betas: no answer can be memorized."""
    beta = 0.02 + 0.2 * torch.rand(num_steps, generator=generator, dtype=torch.float64)
    return from_betas(beta)


def _schedule(kind: int | str, generator: torch.Generator) -> NoiseSchedule:
    """One of the course's own, by name, or a short one of so many random betas."""
    if isinstance(kind, int):
        return _short_schedule(kind, generator)
    return linear_schedule() if kind == "linear" else cosine_schedule()


OWN_NOISE = (
    "The same arguments give another result each time: your step draws noise of its own. Use the "
    "argument z, so that it can be checked."
)
DICE = (
    "The same arguments give another result each time: there are dice in your walk. Inversion has "
    "none: all its noise is eps_hat."
)


ASKED_TWICE = (
    "Right numbers, but you ask the model more often than once a step, and asking is what costs: "
    "keep its answer in a variable."
)


def _twice(message: str):
    """Calls an answer twice with the same arguments, and rejects one that rolls dice."""

    def use(answer, *arguments):
        copies = [a.clone() if isinstance(a, Tensor) else a for a in arguments]
        copies = [list(a) if isinstance(a, list) else a for a in copies]
        first, second = answer(*copies), answer(*arguments)
        if isinstance(first, Tensor) and isinstance(second, Tensor) and first.shape == second.shape:
            same = torch.isclose(first, second, rtol=1e-4, atol=1e-5, equal_nan=True)
            if not same.all():
                raise Wrong("values", message, "noise of its own")
        return second

    return use


def _fresh(argument: object) -> object:
    """A copy, so that an answer may change what it gets."""
    if isinstance(argument, Tensor):
        return argument.clone()
    return list(argument) if isinstance(argument, list) else argument


def _step_in_parts(linear: dict[str, int]):
    """Calls a step that is linear in some arguments, and also asks for its factor of each.

    Where a number is wrong, the message then says which factor it is.

    Args:
        linear: the places of those arguments, by name.
    """
    once = _twice(OWN_NOISE)

    def use(answer, *arguments):
        like = arguments[next(iter(linear.values()))]
        result = tensor_like(once(answer, *map(_fresh, arguments)), like)
        found = {}
        for name, place in linear.items():
            probe = [_fresh(argument) for argument in arguments]
            for other in linear.values():
                fill = torch.ones_like if other == place else torch.zeros_like
                probe[other] = fill(like)
            found[f"factor of {name}"] = answer(*probe)
        return {**found, "result": result}

    return use


# --- one step of ancestral sampling ---------------------------------------------------------------


def _ddpm_step(schedule, x_t, t, eps_hat, z, sigma_squared):
    alpha, beta = schedule.alpha[t - 1], schedule.beta[t - 1]
    mean = (x_t - beta / schedule.noise_rate[t] * eps_hat) / alpha.sqrt()
    if t == 1:
        return mean
    return mean + sigma_squared.sqrt() * z


def _ddpm_cases(generator: torch.Generator):
    for kind, t, shape in (
        (5, 3, (1, 3)),
        (5, 5, (2, 1, 4, 4)),
        (4, 1, (3, 2)),
        (8, 2, (1, 3, 2, 5)),
        (8, 7, (4, 4)),
        ("linear", 400, (2, 3)),
        ("linear", 1, (4,)),
        ("linear", 2, (3, 3, 2)),
        ("linear", 1000, (2, 3, 1, 2, 2)),
        ("cosine", 1, (1, 3, 2)),
        ("cosine", 2, (3, 3, 3, 3)),
        ("cosine", 1000, (5,)),
    ):
        schedule = _schedule(kind, generator)
        x_t, eps_hat, z = torch.randn(3, *shape, generator=generator)
        # neither of the two usual choices, so that only the given number is right
        share = 0.3 + 0.6 * float(torch.rand((), generator=generator))
        yield schedule, x_t, t, eps_hat, z, share * schedule.beta[t - 1]


def _ddpm_mean(schedule, x_t, t, eps_hat):
    return _ddpm_step(schedule, x_t, t, eps_hat, torch.zeros_like(x_t), torch.tensor(0.0))


def _with_mean(mean: Callable) -> Callable:
    """A step with another mean, of (schedule, x_t, t, eps_hat), and the right noise."""
    return lambda schedule, x_t, t, eps_hat, z, sigma_squared: (
        mean(schedule, x_t, t, eps_hat) + (t > 1) * math.sqrt(sigma_squared) * z
    )


def _clamped_mean(schedule, x_t, t, eps_hat):
    abar = schedule.alpha_bar
    x0_hat = ((x_t - (1 - abar[t]) ** 0.5 * eps_hat) / abar[t] ** 0.5).clamp(-1, 1)
    weight_x0 = abar[t - 1] ** 0.5 * schedule.beta[t - 1] / (1 - abar[t])
    weight_x_t = schedule.alpha[t - 1] ** 0.5 * (1 - abar[t - 1]) / (1 - abar[t])
    return weight_x0 * x0_hat + weight_x_t * x_t


def _ddpm_mean_of(schedule, x_t, t, eps_hat, divide=None, share=None):
    """The mean of a step with another factor of eps_hat, or another number to divide by."""
    alpha, beta = schedule.alpha[t - 1], schedule.beta[t - 1]
    share = beta / schedule.noise_rate[t] if share is None else share
    return (x_t - share * eps_hat) / (alpha.sqrt() if divide is None else divide)


# The two halves of a step, each done wrong, with a sentence that says so.
_WRONG_MEANS = {
    "no root over alpha": (
        lambda s, x, t, e: _ddpm_mean_of(s, x, t, e, divide=s.alpha[t - 1]),
        "the mean is divided by alpha_t, not by its root",
    ),
    "not divided": (
        lambda s, x, t, e: _ddpm_mean_of(s, x, t, e, divide=1.0),
        "the mean is not divided by the root of alpha_t",
    ),
    "alpha_bar for alpha": (
        lambda s, x, t, e: _ddpm_mean_of(s, x, t, e, divide=s.signal_rate[t]),
        "the mean is divided by the root of alpha_bar_t where alpha_t belongs",
    ),
    "noise rate squared": (
        lambda s, x, t, e: _ddpm_mean_of(s, x, t, e, share=s.beta[t - 1] / (1 - s.alpha_bar[t])),
        "beta_t is divided by 1 - alpha_bar_t, not by its root",
    ),
    "root of the noise rate": (
        lambda s, x, t, e: _ddpm_mean_of(s, x, t, e, share=s.beta[t - 1] / s.noise_rate[t] ** 0.5),
        "beta_t is divided by the root of the noise rate, which is a root already",
    ),
    "only eps_hat divided": (
        lambda s, x, t, e: x - s.beta[t - 1] / s.noise_rate[t] * e / s.alpha[t - 1].sqrt(),
        "only eps_hat is divided by the root of alpha_t, not x_t: mind the parentheses",
    ),
    "noise put in": (
        lambda s, x, t, e: _ddpm_mean_of(s, x, t, -e),
        "eps_hat is added where it should be taken away",
    ),
}
_WRONG_NOISES = {
    "noise at the last step": (
        lambda s, t, z, v: v.sqrt() * z,
        "the step from t = 1 still adds noise",
    ),
    "variance for standard deviation": (
        lambda s, t, z, v: (t > 1) * v * z,
        "z is multiplied by the variance, not by its root",
    ),
    "both in the noise": (
        lambda s, t, z, v: v * z,
        "z is multiplied by the variance, not by its root, and at t = 1, too, where none belongs",
    ),
    "no noise at all": (lambda s, t, z, v: 0 * z, "no fresh noise z is added"),
}


def _ddpm_pairs() -> tuple[Mistake, ...]:
    """A wrong mean with a wrong noise: two mistakes at once."""

    def step(mean, noise):
        return lambda schedule, x_t, t, eps_hat, z, sigma_squared: (
            mean(schedule, x_t, t, eps_hat) + noise(schedule, t, z, sigma_squared)
        )

    return tuple(
        Mistake(f"{first}; {second}", step(mean, noise), f"Two things: {why}; and {also}.")
        for first, (mean, why) in _WRONG_MEANS.items()
        for second, (noise, also) in _WRONG_NOISES.items()
    )


def _ddpm_through_posterior(schedule, x_t, t, eps_hat, z, sigma_squared):
    abar = schedule.alpha_bar
    x0_hat = (x_t - (1 - abar[t]) ** 0.5 * eps_hat) / abar[t] ** 0.5
    weight_x0 = abar[t - 1] ** 0.5 * schedule.beta[t - 1] / (1 - abar[t])
    weight_x_t = schedule.alpha[t - 1] ** 0.5 * (1 - abar[t - 1]) / (1 - abar[t])
    noise = z * sigma_squared**0.5 if t > 1 else torch.zeros_like(z)
    return weight_x0 * x0_hat + weight_x_t * x_t + noise


def _ddpm_in_place(schedule, x_t, t, eps_hat, z, sigma_squared):
    x_t -= eps_hat * float(schedule.beta[t - 1] / schedule.noise_rate[t])
    x_t /= float(schedule.alpha[t - 1]) ** 0.5
    if t > 1:
        x_t += z * sigma_squared**0.5
    return x_t


def _ddpm_numpy(schedule, x_t, t, eps_hat, z, sigma_squared):
    beta, abar = schedule.beta.numpy()[t - 1], schedule.alpha_bar.numpy()[t]
    mean = (x_t.numpy() - beta / np.sqrt(1 - abar) * eps_hat.numpy()) / np.sqrt(1 - beta)
    return mean + (np.sqrt(float(sigma_squared)) * z.numpy() if t != 1 else 0)


ddpm_step = Exercise(
    "lesson06.ddpm_step",
    "One ancestral step",
    difficulty=2,
    minutes=8,
    hints=(
        "Three parts: take some of the noise out of x_t, divide by a root, add fresh noise. And "
        "one question: is t = 1?",
        "`schedule.alpha` and `schedule.beta` have T entries, so step t is entry t - 1. "
        "`schedule.noise_rate` has T + 1, so step t is entry t.",
        "mean = (x_t - beta / noise_rate * eps_hat) / alpha.sqrt(); the noise is the root of "
        "sigma_squared times z, and there is none at t = 1.",
    ),
    model_answer=_ddpm_step,
    cases=_ddpm_cases,
    use=_step_in_parts({"x_t": 1, "eps_hat": 3, "z": 4}),
    mistakes=(
        Mistake(
            "clean guess clamped",
            _with_mean(_clamped_mean),
            "You clamp x0_hat to [-1, 1]. It helps with pictures, and samplers that you have seen "
            "do it, but it belongs to the model (`clip_x0`), not to the step: the step must also "
            "work for data beyond 1.",
        ),
        Mistake(
            "variance, at the last step too",
            lambda schedule, x_t, t, eps_hat, z, sigma_squared: (
                _ddpm_mean(schedule, x_t, t, eps_hat) + sigma_squared * z
            ),
            "Two things in your noise: z wants the standard deviation, the root of sigma_squared; "
            "and the step from t = 1 adds none.",
        ),
        Mistake(
            "one step early, everywhere",
            _with_mean(
                lambda schedule, x_t, t, eps_hat: (
                    (x_t - schedule.beta[t - 2] / schedule.noise_rate[t - 1] * eps_hat)
                    / schedule.alpha[t - 2].sqrt()
                )
            ),
            "Your step is that of t - 1: all your entries are one too early. `alpha` and `beta` "
            "have step t at entry t - 1, `noise_rate` at entry t.",
        ),
        Mistake(
            "noise at the last step",
            lambda schedule, x_t, t, eps_hat, z, sigma_squared: (
                _ddpm_mean(schedule, x_t, t, eps_hat) + math.sqrt(sigma_squared) * z
            ),
            "Your step from t = 1 to 0 still adds noise, and nothing comes after it to take that "
            "noise out again. The last step ends on its mean.",
        ),
        Mistake(
            "variance for standard deviation",
            lambda schedule, x_t, t, eps_hat, z, sigma_squared: (
                _ddpm_mean(schedule, x_t, t, eps_hat) + (t > 1) * sigma_squared * z
            ),
            "You multiply z by the variance sigma_squared. What scales a standard normal z is the "
            "standard deviation.",
        ),
        Mistake(
            "alpha_bar for alpha",
            _with_mean(
                lambda schedule, x_t, t, eps_hat: (
                    _ddpm_mean(schedule, x_t, t, eps_hat)
                    * (schedule.alpha[t - 1] / schedule.alpha_bar[t]).sqrt()
                )
            ),
            "You divide by the root of alpha_bar_t, which undoes all t noisings at once. This step "
            "undoes one: divide by the root of alpha_t.",
        ),
        Mistake(
            "noise rate squared",
            _with_mean(
                lambda schedule, x_t, t, eps_hat: (
                    (x_t - schedule.beta[t - 1] / (1 - schedule.alpha_bar[t]) * eps_hat)
                    / schedule.alpha[t - 1].sqrt()
                )
            ),
            "You divide beta_t by 1 - alpha_bar_t, a variance. The formula divides by its root, "
            "the noise rate.",
        ),
        Mistake(
            "entry t for step t",
            _with_mean(
                lambda schedule, x_t, t, eps_hat: (
                    (x_t - schedule.beta[t] / schedule.noise_rate[t] * eps_hat)
                    / schedule.alpha[t].sqrt()
                )
            ),
            "`alpha` and `beta` hold T entries, for t = 1..T: entry 0 belongs to step 1. You read "
            "one step too far.",
        ),
        Mistake(
            "noise rate of the step before",
            _with_mean(
                lambda schedule, x_t, t, eps_hat: (
                    (x_t - schedule.beta[t - 1] / schedule.noise_rate[t - 1] * eps_hat)
                    / schedule.alpha[t - 1].sqrt()
                )
            ),
            "Your noise rate is that of t - 1. Unlike `beta`, `noise_rate` begins at t = 0, so "
            "step t is entry t.",
        ),
        Mistake(
            "no root over alpha",
            _with_mean(
                lambda schedule, x_t, t, eps_hat: (
                    _ddpm_mean(schedule, x_t, t, eps_hat) / schedule.alpha[t - 1].sqrt()
                )
            ),
            "You divide by alpha_t itself; a noising shrinks the image by the root of it.",
        ),
        Mistake(
            "shrunk once more",
            _with_mean(
                lambda schedule, x_t, t, eps_hat: (
                    _ddpm_mean(schedule, x_t, t, eps_hat) * schedule.alpha[t - 1]
                )
            ),
            "You multiply by the root of alpha_t. The noising did that already; going back, you "
            "divide by it.",
        ),
        Mistake(
            "brackets",
            _with_mean(
                lambda schedule, x_t, t, eps_hat: (
                    x_t / schedule.alpha[t - 1].sqrt()
                    - schedule.beta[t - 1] / schedule.noise_rate[t] * eps_hat
                )
            ),
            "You divide only x_t by the root of alpha_t. Take the noise out first, then divide "
            "the difference: mind the parentheses.",
        ),
        Mistake(
            "root of the noise rate",
            _with_mean(_WRONG_MEANS["root of the noise rate"][0]),
            "You take the root of `noise_rate`, which is a root already: that of 1 - alpha_bar_t.",
        ),
        Mistake(
            "only eps_hat divided",
            _with_mean(_WRONG_MEANS["only eps_hat divided"][0]),
            "You divide only eps_hat by the root of alpha_t. It divides the whole difference: mind "
            "the parentheses.",
        ),
        Mistake(
            "fresh noise divided too",
            lambda schedule, x_t, t, eps_hat, z, sigma_squared: (
                _ddpm_mean(schedule, x_t, t, eps_hat)
                + (t > 1) * math.sqrt(sigma_squared) * z / schedule.alpha[t - 1].sqrt()
            ),
            "The fresh noise is divided by the root of alpha_t as well. Add it after the division.",
        ),
        Mistake(
            "noise taken away",
            lambda schedule, x_t, t, eps_hat, z, sigma_squared: _ddpm_step(
                schedule, x_t, t, eps_hat, -z, sigma_squared
            ),
            "You subtract the fresh noise. As noise that is just as good, but the formula adds z, "
            "and so does the check.",
        ),
        Mistake(
            "posterior variance whatever comes in",
            lambda schedule, x_t, t, eps_hat, z, sigma_squared: _ddpm_step(
                schedule, x_t, t, eps_hat, z, schedule.posterior_variance[t - 1]
            ),
            "Your noise has the posterior variance, whatever is asked for: use the argument "
            "sigma_squared.",
        ),
        Mistake(
            "the clean guess",
            lambda schedule, x_t, t, eps_hat, z, sigma_squared: (
                (x_t - schedule.noise_rate[t] * eps_hat) / schedule.signal_rate[t]
            ),
            "You return x0_hat, the guess of the clean picture. The step leads to t - 1 only.",
        ),
        Mistake(
            "not divided",
            _with_mean(
                lambda schedule, x_t, t, eps_hat: (
                    _ddpm_mean(schedule, x_t, t, eps_hat) * schedule.alpha[t - 1].sqrt()
                )
            ),
            "Your mean takes noise out and never grows the image back: each noising had shrunk it "
            "by the root of alpha_t.",
        ),
        Mistake(
            "noise put in",
            _with_mean(lambda schedule, x_t, t, eps_hat: _ddpm_mean(schedule, x_t, t, -eps_hat)),
            "Your step adds eps_hat where it should take it away: look at the sign.",
        ),
        Mistake(
            "all the way to x_0",
            _with_mean(
                lambda schedule, x_t, t, eps_hat: (
                    (x_t - schedule.noise_rate[t] * eps_hat) / schedule.signal_rate[t]
                )
            ),
            "Your mean is x0_hat, all the noise taken out in one leap. An ancestral step takes out "
            "one noising's worth: beta_t over the noise rate.",
        ),
        Mistake(
            "a variance of its own",
            lambda schedule, x_t, t, eps_hat, z, sigma_squared: _ddpm_step(
                schedule, x_t, t, eps_hat, z, schedule.beta[t - 1]
            ),
            "Your noise has variance beta_t whatever comes in: use the argument sigma_squared.",
        ),
        Mistake(
            "no noise at all",
            lambda schedule, x_t, t, eps_hat, z, sigma_squared: _ddpm_mean(
                schedule, x_t, t, eps_hat
            ),
            "This is the mean of the step, and only that. For t > 1 fresh noise z comes on top.",
        ),
        Mistake(
            "no noise at the first step",
            lambda schedule, x_t, t, eps_hat, z, sigma_squared: (
                _ddpm_mean(schedule, x_t, t, eps_hat)
                + (t < schedule.num_steps) * sigma_squared.sqrt() * z
            ),
            "You leave the noise out at t = T, where the walk begins. The step without noise is "
            "the last one, from t = 1.",
        ),
        Mistake(
            "noise of its own",
            lambda schedule, x_t, t, eps_hat, z, sigma_squared: _ddpm_step(
                schedule, x_t, t, eps_hat, torch.randn_like(z), sigma_squared
            ),
            OWN_NOISE,
        ),
        *_ddpm_pairs(),
    ),
    alternatives=(_ddpm_through_posterior, _ddpm_in_place, _ddpm_numpy),
    passed="A thousand of these steps are a sampler.",
)


# --- which steps to visit -------------------------------------------------------------------------


def _timesteps(num_steps, count):
    stride = num_steps // count
    return list(range(num_steps, -1, -stride))


def _timesteps_cases(_generator: torch.Generator):
    yield from ((1000, 50), (12, 4), (10, 10), (100, 1), (1000, 8), (30, 15), (1, 1), (45, 9))


timesteps = Exercise(
    "lesson06.timesteps",
    "Stops on the way down",
    difficulty=1,
    minutes=3,
    hints=(
        "A walk of 50 steps visits 51 places: where it starts, and where each step ends.",
        "The stride is num_steps // count. Python's `range` takes a negative stride, and never "
        "includes its end.",
        "`range(num_steps, -1, -stride)`: the -1 is what lets 0 in.",
    ),
    model_answer=_timesteps,
    cases=_timesteps_cases,
    mistakes=(
        Mistake(
            "never at 0",
            lambda num_steps, count: list(range(num_steps, 0, -(num_steps // count))),
            "Your walk never reaches 0, so its last state still has noise in it. `range` stops "
            "before its end.",
        ),
        Mistake(
            "from T - 1",
            lambda num_steps, count: list(range(num_steps - 1, -1, -(num_steps // count))),
            "You start at T - 1, as libraries do that count 0..T-1. Here the noisiest state is T "
            "and the clean data is 0.",
        ),
        Mistake(
            "upwards",
            lambda num_steps, count: list(range(0, num_steps + 1, num_steps // count)),
            "The right places in the wrong order: a sampler walks down, from T to 0.",
        ),
        Mistake(
            "one stop too few",
            lambda num_steps, count: (
                torch.linspace(num_steps, 0, count, dtype=torch.float64).round().long()
            ),
            "You return `count` places. A walk of `count` steps has one place more: count the "
            "fence posts, not the gaps.",
        ),
        Mistake(
            "ends at 1",
            lambda num_steps, count: (
                torch.linspace(num_steps, 1, count + 1, dtype=torch.float64).round().long()
            ),
            "Your last place is 1, one noising short of clean data. The walk ends at 0.",
        ),
        Mistake(
            "one step too many",
            lambda num_steps, count: [
                num_steps - i * (num_steps // count) for i in range(count + 2)
            ],
            "Your walk goes on below 0, where there is nothing: one entry too many.",
        ),
        Mistake(
            "T left out",
            lambda num_steps, count: [i * (num_steps // count) for i in range(count - 1, -1, -1)],
            "Your walk begins at its second stop: T itself, where the noise is, comes first.",
        ),
        Mistake(
            "count as stride",
            lambda num_steps, count: list(range(num_steps, -1, -count)),
            "You use `count` as the stride. It is the number of strides: each is num_steps // "
            "count long.",
        ),
    ),
    alternatives=(
        lambda num_steps, count: [i * (num_steps // count) for i in range(count, -1, -1)],
        lambda num_steps, count: torch.arange(num_steps, -1, -(num_steps // count)),
        lambda num_steps, count: np.linspace(num_steps, 0, count + 1).round().astype(int),
        lambda num_steps, count: tuple(reversed(range(0, num_steps + 1, num_steps // count))),
    ),
    passed="`samplers.evenly_spaced` also rounds where `count` does not divide T.",
)


# --- one step of DDIM -----------------------------------------------------------------------------


def _ddim_step(schedule, x_t, t, s, eps_hat, eta, z):
    abar_t, abar_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
    x0_hat = (x_t - (1 - abar_t).sqrt() * eps_hat) / abar_t.sqrt()
    sigma = eta * ((1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s)).sqrt()
    kept = (1 - abar_s - sigma**2).sqrt()
    return abar_s.sqrt() * x0_hat + kept * eps_hat + sigma * z


def _ddim_cases(generator: torch.Generator):
    for kind, t, s, eta, shape in (
        (6, 6, 3, 0.0, (1, 3)),
        (6, 5, 2, 0.5, (2, 1, 3, 3)),
        (9, 7, 6, 1.0, (3, 2)),
        (9, 8, 1, 0.8, (1, 3, 2, 4)),
        (5, 3, 0, 1.0, (2, 2)),
        (5, 4, 1, 0.0, (1, 5)),
        ("linear", 500, 480, 0.3, (4, 2)),
        ("linear", 1, 0, 0.5, (4,)),
        ("linear", 2, 1, 0.7, (3, 3, 2)),
        ("linear", 1000, 0, 0.0, (3,)),
        ("linear", 1000, 900, 0.6, (2, 3, 1, 2, 2)),
        ("cosine", 1, 0, 1, (1, 3, 2)),
        ("cosine", 2, 1, 0.4, (3, 3, 3, 3)),
        ("cosine", 1000, 950, 0.9, (5,)),
        ("linear", 1000, 950, 0.0, (3, 2)),
        ("linear", 1000, 700, 1.0, (2, 3)),
    ):
        schedule = _schedule(kind, generator)
        x_t, eps_hat, z = torch.randn(3, *shape, generator=generator)
        yield schedule, x_t, t, s, eps_hat, eta, z


def _fresh_variance(schedule, t, s) -> Tensor:
    """sigma^2 at eta = 1."""
    abar_t, abar_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
    return (1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s)


def _ddim_made_of(schedule, x_t, t, s, eps_hat, z, sigma, kept=None, x0_hat=None):
    """A DDIM step out of parts, right where none is given."""
    abar_t, abar_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
    if x0_hat is None:
        x0_hat = (x_t - (1 - abar_t).sqrt() * eps_hat) / abar_t.sqrt()
    if kept is None:
        kept = (1 - abar_s - sigma**2).sqrt()
    return abar_s.sqrt() * x0_hat + kept * eps_hat + sigma * z


def _eta_not_squared(schedule, x_t, t, s, eps_hat, eta, z):
    sigma = (eta * _fresh_variance(schedule, t, s)).sqrt()
    return _ddim_made_of(schedule, x_t, t, s, eps_hat, z, sigma)


def _no_room_for_noise(schedule, x_t, t, s, eps_hat, eta, z):
    sigma = eta * _fresh_variance(schedule, t, s).sqrt()
    return _ddim_made_of(schedule, x_t, t, s, eps_hat, z, sigma, kept=schedule.noise_rate[s])


def _sigma_not_squared(schedule, x_t, t, s, eps_hat, eta, z):
    sigma = eta * _fresh_variance(schedule, t, s).sqrt()
    kept = (1 - schedule.alpha_bar[s] - sigma).sqrt()
    return _ddim_made_of(schedule, x_t, t, s, eps_hat, z, sigma, kept=kept)


def _sigma_without_root(schedule, x_t, t, s, eps_hat, eta, z):
    sigma = eta * _fresh_variance(schedule, t, s)
    return _ddim_made_of(schedule, x_t, t, s, eps_hat, z, sigma)


def _noise_of_t_kept(schedule, x_t, t, s, eps_hat, eta, z):
    sigma = eta * _fresh_variance(schedule, t, s).sqrt()
    kept = (1 - schedule.alpha_bar[t] - sigma**2).sqrt()
    return _ddim_made_of(schedule, x_t, t, s, eps_hat, z, sigma, kept=kept)


def _no_root_kept(schedule, x_t, t, s, eps_hat, eta, z):
    sigma = eta * _fresh_variance(schedule, t, s).sqrt()
    kept = 1 - schedule.alpha_bar[s] - sigma**2
    return _ddim_made_of(schedule, x_t, t, s, eps_hat, z, sigma, kept=kept)


def _stays_at_t(schedule, x_t, t, s, eps_hat, eta, z):
    sigma = eta * _fresh_variance(schedule, t, s).sqrt()
    kept = (1 - schedule.alpha_bar[t] - sigma**2).sqrt()
    x0_hat = (x_t - schedule.noise_rate[t] * eps_hat) / schedule.signal_rate[t]
    return schedule.signal_rate[t] * x0_hat + kept * eps_hat + sigma * z


def _upside_down(schedule, x_t, t, s, eps_hat, eta, z):
    abar_t, abar_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
    sigma = eta * ((1 - abar_s) / (1 - abar_t) * (1 - abar_s / abar_t)).sqrt()
    return _ddim_made_of(schedule, x_t, t, s, eps_hat, z, sigma)


def _x0_hat_without_root(schedule, x_t, t, s, eps_hat, eta, z):
    sigma = eta * _fresh_variance(schedule, t, s).sqrt()
    x0_hat = (x_t - schedule.noise_rate[t] * eps_hat) / schedule.alpha_bar[t]
    return _ddim_made_of(schedule, x_t, t, s, eps_hat, z, sigma, x0_hat=x0_hat)


def _x_t_for_x0_hat(schedule, x_t, t, s, eps_hat, eta, z):
    sigma = eta * _fresh_variance(schedule, t, s).sqrt()
    return _ddim_made_of(schedule, x_t, t, s, eps_hat, z, sigma, x0_hat=x_t)


def _noised_afresh(schedule, x_t, t, s, eps_hat, eta, z):
    x0_hat = (x_t - schedule.noise_rate[t] * eps_hat) / schedule.signal_rate[t]
    return schedule.signal_rate[s] * x0_hat + schedule.noise_rate[s] * z


def _one_step_variance(schedule, x_t, t, s, eps_hat, eta, z):
    sigma = eta * schedule.posterior_variance[t - 1].sqrt()
    kept = (1 - schedule.alpha_bar[s] - sigma**2).clamp(min=0).sqrt()
    return _ddim_made_of(schedule, x_t, t, s, eps_hat, z, sigma, kept=kept)


def _ddim_at(schedule, x_t, t, s, eps_hat, eta, z, at_t, at_s):
    """A right step with wrong entries of alpha_bar."""
    abar_t, abar_s = schedule.alpha_bar[at_t], schedule.alpha_bar[at_s]
    x0_hat = (x_t - (1 - abar_t).sqrt() * eps_hat) / abar_t.sqrt()
    sigma = eta * ((1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s)).sqrt()
    return abar_s.sqrt() * x0_hat + (1 - abar_s - sigma**2).sqrt() * eps_hat + sigma * z


def _ddim_clamped(schedule, x_t, t, s, eps_hat, eta, z):
    sigma = eta * _fresh_variance(schedule, t, s).sqrt()
    x0_hat = (x_t - schedule.noise_rate[t] * eps_hat) / schedule.signal_rate[t]
    return _ddim_made_of(schedule, x_t, t, s, eps_hat, z, sigma, x0_hat=x0_hat.clamp(-1, 1))


# The three parts of a step, each done wrong, with a sentence that says so.
_WRONG_GUESSES = {
    "x0_hat not divided": (
        lambda p, x, t, e: x - p.noise_rate[t] * e,
        "x0_hat is not divided by the signal rate of t",
    ),
    "x0_hat without its root": (
        lambda p, x, t, e: (x - p.noise_rate[t] * e) / p.alpha_bar[t],
        "x0_hat is divided by alpha_bar_t, not by its root",
    ),
    "noise's root missing in x0_hat": (
        lambda p, x, t, e: (x - (1 - p.alpha_bar[t]) * e) / p.signal_rate[t],
        "in x0_hat eps_hat is weighed with 1 - alpha_bar_t, not with its root",
    ),
    "noise put into x0_hat": (
        lambda p, x, t, e: (x + p.noise_rate[t] * e) / p.signal_rate[t],
        "x0_hat adds eps_hat where it should take it away",
    ),
}
_WRONG_SIGMAS = {
    "eta not squared": (
        lambda p, t, s, eta: (eta * _fresh_variance(p, t, s)).sqrt(),
        "eta stands under the root of sigma",
    ),
    "sigma without its root": (
        lambda p, t, s, eta: eta * _fresh_variance(p, t, s),
        "sigma lacks its root",
    ),
    "sigma missing": (lambda p, t, s, eta: torch.tensor(0.0), "sigma is missing"),
}
_WRONG_SHARES = {
    "no room for the fresh noise": (
        lambda p, s, sigma: p.noise_rate[s],
        "eps_hat keeps the full noise rate of s, without room for the fresh noise",
    ),
    "sigma not squared": (
        lambda p, s, sigma: (1 - p.alpha_bar[s] - sigma).sqrt(),
        "in eps_hat's weight sigma is taken away, not its square",
    ),
    "eps_hat's weight without its root": (
        lambda p, s, sigma: 1 - p.alpha_bar[s] - sigma**2,
        "eps_hat's weight lacks its root",
    ),
}


def _ddim_pairs() -> tuple[Mistake, ...]:
    """Two of the three parts of a step done wrong at once."""

    def step(guess=None, size=None, share=None):
        def answer(schedule, x_t, t, s, eps_hat, eta, z):
            sigma = eta * _fresh_variance(schedule, t, s).sqrt()
            sigma = sigma if size is None else size(schedule, t, s, eta)
            x0_hat = None if guess is None else guess(schedule, x_t, t, eps_hat)
            kept = None if share is None else share(schedule, s, sigma)
            return _ddim_made_of(schedule, x_t, t, s, eps_hat, z, sigma, kept, x0_hat)

        return answer

    kinds = {"guess": _WRONG_GUESSES, "size": _WRONG_SIGMAS, "share": _WRONG_SHARES}
    pairs = []
    for first, second in (("guess", "size"), ("guess", "share"), ("size", "share")):
        for one, (wrong, why) in kinds[first].items():
            for other, (also_wrong, also) in kinds[second].items():
                if (one, other) in _ONE_AND_THE_SAME:
                    continue
                answer = step(**{first: wrong, second: also_wrong})
                text = f"Two things: {why}; and {also}."
                pairs.append(Mistake(f"{one}; {other}", answer, text))
    return tuple(pairs)


# Without sigma there is nothing to make room for, nor to square.
_ONE_AND_THE_SAME = {
    ("sigma missing", "no room for the fresh noise"),
    ("sigma missing", "sigma not squared"),
}


def _ddim_in_place(schedule, x_t, t, s, eps_hat, eta, z):
    abar_t, abar_s = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
    variance = eta**2 * (1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s)
    x_t -= math.sqrt(1 - abar_t) * eps_hat
    x_t *= math.sqrt(abar_s / abar_t)
    x_t += math.sqrt(max(0.0, 1 - abar_s - variance)) * eps_hat
    x_t += math.sqrt(variance) * z
    return x_t


def _ddim_numpy(schedule, x_t, t, s, eps_hat, eta, z):
    signal, noise = schedule.signal_rate.numpy(), schedule.noise_rate.numpy()
    x, e, fresh = x_t.double().numpy(), eps_hat.double().numpy(), z.double().numpy()
    sigma = eta * noise[s] / noise[t] * np.sqrt(1 - (signal[t] / signal[s]) ** 2)
    x0_hat = (x - noise[t] * e) / signal[t]
    return signal[s] * x0_hat + np.sqrt(noise[s] ** 2 - sigma**2) * e + sigma * fresh


def _ddim_one_by_one(schedule, x_t, t, s, eps_hat, eta, z):
    rows = zip(x_t, eps_hat, z, strict=True)
    return torch.stack([_ddim_step(schedule, x, t, s, e, eta, n) for x, e, n in rows])


ddim_step = Exercise(
    "lesson06.ddim_step",
    "One DDIM step",
    difficulty=2,
    minutes=10,
    hints=(
        "Three parts that are added: the clean guess at signal rate s, the old noise eps_hat, the "
        "fresh noise z. First compute x0_hat, by solving the jump at t.",
        "`abar_t, abar_s = schedule.alpha_bar[t], schedule.alpha_bar[s]`. sigma is eta times a "
        "root; then eps_hat gets the root of what 1 - abar_s has left after sigma**2.",
        "sigma = eta * ((1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s)).sqrt() and the weight "
        "of eps_hat is (1 - abar_s - sigma**2).sqrt().",
    ),
    model_answer=_ddim_step,
    cases=_ddim_cases,
    use=_step_in_parts({"x_t": 1, "eps_hat": 4, "z": 6}),
    mistakes=(
        Mistake(
            "clean guess clamped",
            _ddim_clamped,
            "You clamp x0_hat to [-1, 1]. It helps with pictures, and samplers that you have seen "
            "do it, but it belongs to the model (`clip_x0`), not to the step: the step must also "
            "work for data beyond 1.",
        ),
        Mistake(
            "entries counted from 0",
            lambda schedule, x_t, t, s, eps_hat, eta, z: _ddim_at(
                schedule, x_t, t, s, eps_hat, eta, z, t - 1, s - 1
            ),
            "You read alpha_bar at t - 1 and s - 1, as in libraries whose steps begin at 0. Here "
            "`alpha_bar[0]` is 1, for clean data, and step t is entry t; s = 0 would even read "
            "the last entry.",
        ),
        Mistake(
            "entry t - 1 for t",
            lambda schedule, x_t, t, s, eps_hat, eta, z: _ddim_at(
                schedule, x_t, t, s, eps_hat, eta, z, t - 1, s
            ),
            "You read alpha_bar at t - 1. Here `alpha_bar[0]` is 1, for clean data, and step t is "
            "entry t.",
        ),
        Mistake(
            "entries counted from 0, and 1 for clean data",
            lambda schedule, x_t, t, s, eps_hat, eta, z: _ddim_at(
                schedule, x_t, t, s, eps_hat, eta, z, t - 1, max(s - 1, 0)
            ),
            "All your entries of alpha_bar are one too early: t - 1 and s - 1 are the habit of "
            "libraries that count from 0. Here step t is entry t, and entry 0 is clean data.",
        ),
        Mistake(
            "x0_hat not divided",
            lambda schedule, x_t, t, s, eps_hat, eta, z: _ddim_made_of(
                schedule,
                x_t,
                t,
                s,
                eps_hat,
                z,
                eta * _fresh_variance(schedule, t, s).sqrt(),
                x0_hat=x_t - schedule.noise_rate[t] * eps_hat,
            ),
            "Your x0_hat takes the noise out and stops there. The jump shrank the image by the "
            "signal rate of t: divide by it.",
        ),
        Mistake(
            "noise's root missing in x0_hat",
            lambda schedule, x_t, t, s, eps_hat, eta, z: _ddim_made_of(
                schedule,
                x_t,
                t,
                s,
                eps_hat,
                z,
                eta * _fresh_variance(schedule, t, s).sqrt(),
                x0_hat=(x_t - (1 - schedule.alpha_bar[t]) * eps_hat) / schedule.signal_rate[t],
            ),
            "In x0_hat you weigh eps_hat with 1 - alpha_bar_t, a variance. Its root is missing.",
        ),
        Mistake(
            "noise put into x0_hat",
            lambda schedule, x_t, t, s, eps_hat, eta, z: _ddim_made_of(
                schedule,
                x_t,
                t,
                s,
                eps_hat,
                z,
                eta * _fresh_variance(schedule, t, s).sqrt(),
                x0_hat=(x_t + schedule.noise_rate[t] * eps_hat) / schedule.signal_rate[t],
            ),
            "Your x0_hat adds eps_hat where it should take it away: look at the sign.",
        ),
        Mistake(
            "eta not squared",
            _eta_not_squared,
            "Your eta is under the root, so sigma is too large for an eta between 0 and 1. sigma "
            "is eta times the root; in sigma^2 eta comes squared.",
        ),
        Mistake(
            "no room for the fresh noise",
            _no_room_for_noise,
            "Your eps_hat keeps the full noise rate of s, and the fresh noise comes on top: too "
            "much noise in all. Make room for it: take sigma^2 away under the root.",
        ),
        Mistake(
            "sigma not squared",
            _sigma_not_squared,
            "Under the root of eps_hat's weight you take away sigma. Variances are what adds up: "
            "take away sigma^2.",
        ),
        Mistake(
            "sigma without its root",
            _sigma_without_root,
            "Your sigma lacks a root: (1 - abar_s)/(1 - abar_t) (1 - abar_t/abar_s) is a variance.",
        ),
        Mistake(
            "eps_hat's weight of t",
            _noise_of_t_kept,
            "The weight of eps_hat has alpha_bar_t in it, where you come from. It is the noise "
            "that is left at s: 1 - alpha_bar_s.",
        ),
        Mistake(
            "eps_hat's weight without its root",
            _no_root_kept,
            "The weight of eps_hat is 1 - abar_s - sigma^2 in your answer, a variance. Its root is "
            "missing.",
        ),
        Mistake(
            "eta ignored, no noise",
            lambda schedule, x_t, t, s, eps_hat, eta, z: _ddim_step(
                schedule, x_t, t, s, eps_hat, 0.0, z
            ),
            "Right for eta = 0, and the same for every other eta: sigma is missing.",
        ),
        Mistake(
            "eta ignored, full noise",
            lambda schedule, x_t, t, s, eps_hat, eta, z: _ddim_step(
                schedule, x_t, t, s, eps_hat, 1.0, z
            ),
            "Right for eta = 1, and the same for every other eta: it should scale sigma.",
        ),
        Mistake(
            "always to t - 1",
            lambda schedule, x_t, t, s, eps_hat, eta, z: _ddim_step(
                schedule, x_t, t, t - 1, eps_hat, eta, z
            ),
            "Your step goes to t - 1, whatever s is. The point of DDIM is that s may be far away.",
        ),
        Mistake(
            "stays at t",
            _stays_at_t,
            "Your clean guess is put together again with the rates of t, where you come from. You "
            "are going to s.",
        ),
        Mistake(
            "one too far",
            lambda schedule, x_t, t, s, eps_hat, eta, z: _ddim_step(
                schedule, x_t, t, max(s - 1, 0), eps_hat, eta, z
            ),
            "You read alpha_bar at s - 1. It has an entry for every step from 0 on, so s is entry "
            "s: no shift.",
        ),
        Mistake(
            "ratio upside down",
            _upside_down,
            "1 - abar_s/abar_t is negative, as abar_s is the larger of the two, and its root is "
            "NaN. Turn that ratio around.",
        ),
        Mistake(
            "x0_hat without its root",
            _x0_hat_without_root,
            "In x0_hat you divide by alpha_bar_t; the image was shrunk by its root, the signal "
            "rate.",
        ),
        Mistake(
            "x_t for x0_hat",
            _x_t_for_x0_hat,
            "You carry x_t on, noise and all, where the clean guess x0_hat belongs.",
        ),
        Mistake(
            "noised afresh",
            _noised_afresh,
            "You throw eps_hat away and noise the clean guess afresh. DDIM keeps the noise "
            "it has: that is why the walk is smooth.",
        ),
        Mistake(
            "posterior variance of one step",
            _one_step_variance,
            "Your sigma is right where s = t - 1 only: it comes from the posterior variance of one "
            "step. For longer strides use the formula with s.",
        ),
        Mistake(
            "no roots in x0_hat",
            lambda schedule, x_t, t, s, eps_hat, eta, z: _ddim_made_of(
                schedule,
                x_t,
                t,
                s,
                eps_hat,
                z,
                eta * _fresh_variance(schedule, t, s).sqrt(),
                x0_hat=(x_t - (1 - schedule.alpha_bar[t]) * eps_hat) / schedule.alpha_bar[t],
            ),
            "In x0_hat you use 1 - alpha_bar and alpha_bar. The jump mixes with their roots, the "
            "rates.",
        ),
        Mistake(
            "noise ratio upside down",
            lambda schedule, x_t, t, s, eps_hat, eta, z: _ddim_made_of(
                schedule,
                x_t,
                t,
                s,
                eps_hat,
                z,
                eta
                * (
                    (1 - schedule.alpha_bar[t])
                    / (1 - schedule.alpha_bar[s])
                    * (1 - schedule.alpha_bar[t] / schedule.alpha_bar[s])
                ).sqrt(),
            ),
            "The first fraction in your sigma is upside down: 1 - abar_s, the smaller one, belongs "
            "on top. As it is, more fresh noise comes in than fits.",
        ),
        Mistake(
            "beta_t for the stride",
            lambda schedule, x_t, t, s, eps_hat, eta, z: _ddim_made_of(
                schedule,
                x_t,
                t,
                s,
                eps_hat,
                z,
                eta
                * (
                    (1 - schedule.alpha_bar[s]) / (1 - schedule.alpha_bar[t]) * schedule.beta[t - 1]
                ).sqrt(),
            ),
            "Your sigma uses beta_t, the noising of one step. For the stride from t to s it is 1 "
            "- abar_t / abar_s.",
        ),
        Mistake(
            "rates subtracted",
            lambda schedule, x_t, t, s, eps_hat, eta, z: _ddim_made_of(
                schedule,
                x_t,
                t,
                s,
                eps_hat,
                z,
                sigma := eta * _fresh_variance(schedule, t, s).sqrt(),
                kept=schedule.noise_rate[s] - sigma,
            ),
            "You take sigma away from the noise rate. Variances are subtracted, then comes the "
            "root: the root of (1 - abar_s - sigma^2).",
        ),
        Mistake(
            "room, and no noise",
            lambda schedule, x_t, t, s, eps_hat, eta, z: _ddim_made_of(
                schedule,
                x_t,
                t,
                s,
                eps_hat,
                torch.zeros_like(z),
                eta * _fresh_variance(schedule, t, s).sqrt(),
            ),
            "eps_hat makes room for fresh noise, and then none comes: sigma times z is missing.",
        ),
        Mistake(
            "signal rate squared",
            lambda schedule, x_t, t, s, eps_hat, eta, z: (
                _ddim_step(schedule, x_t, t, s, eps_hat, eta, z)
                + (schedule.alpha_bar[s] - schedule.signal_rate[s])
                * (x_t - schedule.noise_rate[t] * eps_hat)
                / schedule.signal_rate[t]
            ),
            "You weigh x0_hat with alpha_bar_s. Its root, the signal rate, belongs there.",
        ),
        Mistake(
            "ends at x0_hat",
            lambda schedule, x_t, t, s, eps_hat, eta, z: (
                (x_t - schedule.noise_rate[t] * eps_hat) / schedule.signal_rate[t]
            ),
            "You return x0_hat. That is the answer only if s = 0; otherwise it has to be noised "
            "to s again.",
        ),
        Mistake(
            "noise of its own",
            lambda schedule, x_t, t, s, eps_hat, eta, z: _ddim_step(
                schedule, x_t, t, s, eps_hat, eta, torch.randn_like(z)
            ),
            OWN_NOISE,
        ),
        *_ddim_pairs(),
    ),
    alternatives=(_ddim_in_place, _ddim_numpy, _ddim_one_by_one),
    passed="With eta from 0 to 1 it reaches from a fixed path to ancestral sampling.",
)


# --- between two noises ---------------------------------------------------------------------------


def _slerp(a, b, w):
    cosine = (a * b).sum() / (a.norm() * b.norm())
    angle = cosine.acos()
    return (((1 - w) * angle).sin() * a + (w * angle).sin() * b) / angle.sin()


def _slerp_cases(generator: torch.Generator):
    for shape, w in (
        ((5,), 0.3),
        ((1, 2, 2), 0.5),
        ((3, 4, 4), 0.0),
        ((3, 4, 4), 1.0),
        ((1, 8, 8), 0.8),
        ((2,), 0.1),
        ((2, 3, 2, 4), 0.6),
        ((2, 1, 3, 2, 2), 0.25),
        ((3, 3, 3), 1),
    ):
        a, b = torch.randn(2, *shape, generator=generator)
        yield a, 1.5 * b, w
    a, b = torch.randn(2, 1, 4, 4, generator=generator)
    yield a, a + 0.05 * b, 0.5  # nearly parallel
    yield 0.02 * a, 0.02 * b, 0.3  # short


def _slerp_unit(a, b, w):
    return _slerp(a / a.norm(), b / b.norm(), w)


def _slerp_not_normalized(a, b, w):
    angle = (a * b).sum().acos()
    return (((1 - w) * angle).sin() * a + (w * angle).sin() * b) / angle.sin()


def _slerp_degrees(a, b, w):
    angle = ((a * b).sum() / (a.norm() * b.norm())).acos().rad2deg()
    return (((1 - w) * angle).sin() * a + (w * angle).sin() * b) / angle.sin()


def _slerp_cosine_as_angle(a, b, w):
    angle = (a * b).sum() / (a.norm() * b.norm())
    return (((1 - w) * angle).sin() * a + (w * angle).sin() * b) / angle.sin()


def _slerp_by_row(a, b, w):
    lengths = a.norm(dim=-1, keepdim=True) * b.norm(dim=-1, keepdim=True)
    angle = ((a * b).sum(-1, keepdim=True) / lengths).acos()
    return (((1 - w) * angle).sin() * a + (w * angle).sin() * b) / angle.sin()


def _slerp_by_angle(cosine):
    """slerp with another cosine of the angle."""

    def slerp(a, b, w):
        angle = cosine(a, b).acos()
        return (((1 - w) * angle).sin() * a + (w * angle).sin() * b) / angle.sin()

    return slerp


def _slerp_first_axis(a, b, w):
    return torch.stack([_slerp(x, y, w) for x, y in zip(a, b, strict=True)])


def _slerp_arcsine(a, b, w):
    angle = ((a * b).sum() / (a.norm() * b.norm())).asin()
    return (((1 - w) * angle).sin() * a + (w * angle).sin() * b) / angle.sin()


def _slerp_by_sine_of_cosine(a, b, w):
    cosine = (a * b).sum() / (a.norm() * b.norm())
    angle = cosine.acos()
    return (((1 - w) * angle).sin() * a + (w * angle).sin() * b) / cosine


def _slerp_one_divided(a, b, w):
    angle = ((a * b).sum() / (a.norm() * b.norm())).acos()
    return ((1 - w) * angle).sin() * a + (w * angle).sin() * b / angle.sin()


def _slerp_not_divided(a, b, w):
    angle = ((a * b).sum() / (a.norm() * b.norm())).acos()
    return ((1 - w) * angle).sin() * a + (w * angle).sin() * b


def _slerp_cosines(a, b, w):
    angle = ((a * b).sum() / (a.norm() * b.norm())).acos()
    return (((1 - w) * angle).cos() * a + (w * angle).cos() * b) / angle.sin()


def _slerp_flat(a, b, w):
    x, y = a.flatten(), b.flatten()
    cosine = torch.nn.functional.cosine_similarity(x, y, dim=0)
    angle = torch.arccos(cosine.clamp(-1, 1))
    mixed = torch.sin((1 - w) * angle) * x + torch.sin(w * angle) * y
    return (mixed / torch.sin(angle)).reshape(a.shape)


def _slerp_numpy(a, b, w):
    x, y = a.double().numpy(), b.double().numpy()
    angle = np.arccos(np.sum(x * y) / np.sqrt(np.sum(x**2) * np.sum(y**2)))
    return (np.sin((1 - w) * angle) * x + np.sin(w * angle) * y) / np.sin(angle)


def _slerp_plane(a, b, w):
    along = (a * b).sum() / (a * a).sum()
    across = b - along * a  # the part of b at a right angle to a
    angle = math.atan2(float(across.norm()), float(along * a.norm()))
    return (math.sin((1 - w) * angle) * a + math.sin(w * angle) * b) / math.sin(angle)


slerp = Exercise(
    "lesson06.slerp",
    "Along the sphere",
    difficulty=1,
    minutes=5,
    hints=(
        "First the angle between the two, each seen as one long vector: its cosine is their inner "
        "product over the product of their lengths.",
        "`(a * b).sum()` and `a.norm()` see the whole tensor, whatever its shape. `.acos()` gives "
        "the angle.",
        "Weigh a with sin((1 - w) angle) / sin(angle), and b with sin(w angle) / sin(angle).",
    ),
    model_answer=_slerp,
    cases=_slerp_cases,
    mistakes=(
        Mistake(
            "straight line",
            lambda a, b, w: (1 - w) * a + w * b,
            "This is the straight line, which cuts through the sphere: halfway, the noise is too "
            "weak. Weigh with sines of the angle.",
        ),
        Mistake(
            "ends swapped",
            lambda a, b, w: _slerp(b, a, w),
            "Your walk goes from b to a: w = 0 should give a.",
        ),
        Mistake(
            "lengths forgotten",
            _slerp_not_normalized,
            "The inner product alone is no cosine: divide it by the length of a and the length of "
            "b, or `acos` gets numbers beyond 1.",
        ),
        Mistake(
            "lengths squared",
            _slerp_by_angle(lambda a, b: (a * b).sum() / ((a**2).sum() * (b**2).sum())),
            "You divide the inner product by the squared lengths. The cosine is the inner product "
            "over the lengths themselves, the roots of the sums of squares.",
        ),
        Mistake(
            "root of the lengths",
            _slerp_by_angle(lambda a, b: (a * b).sum() / (a.norm() * b.norm()).sqrt()),
            "You take a root of the lengths, but `norm` already is the root of the sum of squares. "
            "Divide by the product of the two lengths.",
        ),
        Mistake(
            "one length only",
            _slerp_by_angle(lambda a, b: (a * b).sum() / (a * a).sum()),
            "You divide the inner product by the squared length of a, as if b were as long. Divide "
            "by the length of a times the length of b.",
        ),
        Mistake(
            "an angle for each entry of the first axis",
            _slerp_first_axis,
            "You compute an angle for each entry of the first axis, as for a batch. There is no "
            "batch here: a noise is one vector, so sum over all of it.",
        ),
        Mistake(
            "arcsine",
            _slerp_arcsine,
            "The inner product over the lengths is the cosine of the angle: take `acos` of it, not "
            "`asin`.",
        ),
        Mistake(
            "divided by the cosine",
            _slerp_by_sine_of_cosine,
            "You divide by the cosine. Both weights are divided by the sine of the angle.",
        ),
        Mistake(
            "only b divided",
            _slerp_one_divided,
            "Only the weight of b is divided by sin(angle): mind the parentheses. At w = 0 you "
            "should get a itself.",
        ),
        Mistake(
            "degrees",
            _slerp_degrees,
            "You turn the angle into degrees; torch's `sin` reads radians.",
        ),
        Mistake(
            "cosine as angle",
            _slerp_cosine_as_angle,
            "What you call the angle is its cosine: `.acos()` is missing.",
        ),
        Mistake(
            "an angle for each row",
            _slerp_by_row,
            "You compute an angle along the last axis only. A noise is one vector, however it is "
            "folded: sum over all of it.",
        ),
        Mistake(
            "not divided",
            _slerp_not_divided,
            "The two weights lack the division by sin(angle): at w = 0 you should get a itself.",
        ),
        Mistake(
            "cosines for sines",
            _slerp_cosines,
            "Your weights are cosines. At w = 0 the weight of b must be 0, and sin(0) is.",
        ),
        Mistake(
            "mean for sum",
            lambda a, b, w: (
                (
                    ((1 - w) * (angle := ((a * b).mean() / (a.norm() * b.norm())).acos())).sin() * a
                    + (w * angle).sin() * b
                )
                / angle.sin()
            ),
            "The inner product is a sum; you take the mean of the products.",
        ),
        Mistake(
            "line stretched",
            lambda a, b, w: (m := (1 - w) * a + w * b) / m.norm() * a.norm(),
            "This is a straight line, stretched to the length of a: the right road at an uneven "
            "pace. The sines keep the pace.",
        ),
        Mistake(
            "roots for sines",
            lambda a, b, w: math.sqrt(1 - w) * a + math.sqrt(w) * b,
            "Square roots keep the length where a and b are at right angles, but rush away from "
            "the ends. Weigh with sines of the angle.",
        ),
        Mistake(
            "length one",
            _slerp_unit,
            "Your result has length 1, as you divide a and b themselves by their lengths. Only the "
            "angle needs that.",
        ),
    ),
    alternatives=(_slerp_flat, _slerp_numpy, _slerp_plane),
)


# --- back into noise ------------------------------------------------------------------------------


def _invert(model, schedule, x_0, timesteps):
    signal, noise = schedule.signal_rate, schedule.noise_rate
    upwards = list(timesteps)[::-1]
    x = x_0
    for s, t in zip(upwards[:-1], upwards[1:], strict=True):
        eps_hat = model(x, torch.full((len(x),), t))
        x0_hat = (x - noise[s] * eps_hat) / signal[s]
        x = signal[t] * x0_hat + noise[t] * eps_hat
    return x


def _wavy_model(num_steps: int):
    """A cheap model that depends on x and t, and refuses what a network would refuse."""

    def model(x: Tensor, t: Tensor) -> Tensor:
        if not isinstance(t, Tensor) or t.dtype != torch.int64:
            got = t.dtype if isinstance(t, Tensor) else type(t).__name__
            raise TypeError(f"t must be an int64 tensor of shape (B,), got {got}")
        if t.shape != (len(x),):
            raise ValueError(f"t must have shape ({len(x)},), got {tuple(t.shape)}")
        age = (t.double() / num_steps).reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)
        return torch.sin(1.3 * x + 2 * age) + 0.2 * age * x

    return model


def _invert_cases(generator: torch.Generator):
    for kind, walk, shape in (
        (6, [6, 4, 2, 0], (1, 3)),
        (6, [6, 5, 4, 3, 2, 1, 0], (2, 1, 3, 3)),
        (9, [9, 5, 0], (3, 2)),
        (9, [9, 0], (1, 3, 2, 2)),
        (8, [8, 7, 3, 1, 0], (4, 4)),
        ("linear", [1000, 500, 2, 1, 0], (3, 3, 2)),
        ("cosine", [1000, 999, 600, 2, 0], (4,)),
        ("cosine", [750, 250, 1, 0], (2, 3, 1, 2, 2)),
    ):
        schedule = _schedule(kind, generator)
        x_0 = torch.randn(shape, generator=generator)
        yield _wavy_model(schedule.num_steps), schedule, x_0, walk


REVERSED_GIVES_NONE = (
    "`timesteps.reverse()` turns the list around in place and returns None. `timesteps[::-1]` is "
    "the turned list."
)
_IN_PLACE = {"reverse", "sort"}


def _climb_by_climb(answer, model, schedule, x_0, timesteps):
    """Calls an answer with the first climb of the walk, with the first two, and with all.

    Also with a model that always says the same. Where a number is wrong, the message says in which.
    """
    once = _twice(DICE)
    found = {}
    for name, stops in (("one step up", 2), ("two steps up", 3), ("the whole walk", None)):
        if stops is None or stops < len(timesteps):
            walk = timesteps if stops is None else timesteps[-stops:]
            try:
                given = once(answer, model, schedule, x_0.clone(), list(walk))
            except TypeError as error:
                names = getattr(getattr(answer, "__code__", None), "co_names", ())
                if "NoneType" in str(error) and _IN_PLACE.intersection(names):
                    raise Wrong("raised", REVERSED_GIVES_NONE, "reverse gives None") from error
                raise
            found[name] = tensor_like(given, x_0)
    # With constant answers of the model the walk is linear: what are its factors?
    for name, fill, eps_hat in (("factor of x_0", 1.0, 0.0), ("factor of eps_hat", 0.0, 1.0)):

        def constant(x: Tensor, t: Tensor, eps_hat: float = eps_hat) -> Tensor:
            return torch.full_like(model(x, t), eps_hat)

        given = answer(constant, schedule, torch.full_like(x_0, fill), list(timesteps))
        found[f"{name}, all steps together"] = tensor_like(given, x_0)
    return {name: found[name] for name in sorted(found, key=lambda name: "factor" not in name)}


def _upwards(model, schedule, x_0, timesteps, ask=lambda s, t: t, rates=lambda s, t: (s, t)):
    """Inversion with another step to ask at, or other steps to take the rates from."""
    signal, noise = schedule.signal_rate, schedule.noise_rate
    x = x_0
    upwards = list(timesteps)[::-1]
    for s, t in zip(upwards[:-1], upwards[1:], strict=True):
        eps_hat = model(x, torch.full((len(x),), ask(s, t)))
        old, new = rates(s, t)
        x = signal[new] * (x - noise[old] * eps_hat) / signal[old] + noise[new] * eps_hat
    return x


def _from_the_top(model, schedule, x_0, timesteps):
    signal, noise = schedule.signal_rate, schedule.noise_rate
    x = x_0
    for s, t in zip(timesteps[1:], timesteps[:-1], strict=True):
        eps_hat = model(x, torch.full((len(x),), t))
        x = signal[t] * (x - noise[s] * eps_hat) / signal[s] + noise[t] * eps_hat
    return x


def _inverted_clamped(model, schedule, x_0, timesteps):
    signal, noise = schedule.signal_rate, schedule.noise_rate
    x = x_0
    upwards = list(timesteps)[::-1]
    for s, t in zip(upwards[:-1], upwards[1:], strict=True):
        eps_hat = model(x, torch.full((len(x),), t))
        x0_hat = ((x - noise[s] * eps_hat) / signal[s]).clamp(-1, 1)
        x = signal[t] * x0_hat + noise[t] * eps_hat
    return x


def _with_guess(guess):
    """Inversion with another x0_hat."""

    def invert(model, schedule, x_0, timesteps):
        x = x_0
        upwards = list(timesteps)[::-1]
        for s, t in zip(upwards[:-1], upwards[1:], strict=True):
            eps_hat = model(x, torch.full((len(x),), t))
            x0_hat = guess(schedule, x, s, eps_hat)
            x = schedule.signal_rate[t] * x0_hat + schedule.noise_rate[t] * eps_hat
        return x

    return invert


def _reversed_in_place(model, schedule, x_0, timesteps):
    upwards = timesteps.reverse()
    return _invert(model, schedule, x_0, upwards[::-1])


def _walked_down(model, schedule, x_0, timesteps):
    signal, noise = schedule.signal_rate, schedule.noise_rate
    x = x_0
    for t, s in zip(timesteps[:-1], timesteps[1:], strict=True):
        eps_hat = model(x, torch.full((len(x),), t))
        x = signal[s] * (x - noise[t] * eps_hat) / signal[t] + noise[s] * eps_hat
    return x


def _noised_from_x0(model, schedule, x_0, timesteps):
    x = x_0
    for t in list(timesteps)[-2::-1]:
        eps_hat = model(x, torch.full((len(x),), t))
        x = schedule.signal_rate[t] * x_0 + schedule.noise_rate[t] * eps_hat
    return x


def _without_roots(model, schedule, x_0, timesteps):
    abar = schedule.alpha_bar
    x = x_0
    upwards = list(timesteps)[::-1]
    for s, t in zip(upwards[:-1], upwards[1:], strict=True):
        eps_hat = model(x, torch.full((len(x),), t))
        x = abar[t] * (x - (1 - abar[s]) * eps_hat) / abar[s] + (1 - abar[t]) * eps_hat
    return x


def _guesses_without_roots(model, schedule, x_0, timesteps):
    x = x_0
    upwards = list(timesteps)[::-1]
    for s, t in zip(upwards[:-1], upwards[1:], strict=True):
        eps_hat = model(x, torch.full((len(x),), t))
        x0_hat = (x - (1 - schedule.alpha_bar[s]) * eps_hat) / schedule.alpha_bar[s]
        x = schedule.signal_rate[t] * x0_hat + schedule.noise_rate[t] * eps_hat
    return x


def _guesses_from_the_start(model, schedule, x_0, timesteps):
    signal, noise = schedule.signal_rate, schedule.noise_rate
    x = x_0
    upwards = list(timesteps)[::-1]
    for s, t in zip(upwards[:-1], upwards[1:], strict=True):
        eps_hat = model(x, torch.full((len(x),), t))
        x = signal[t] * (x_0 - noise[s] * eps_hat) / signal[s] + noise[t] * eps_hat
    return x


def _noise_not_taken_out(model, schedule, x_0, timesteps):
    signal, noise = schedule.signal_rate, schedule.noise_rate
    x = x_0
    upwards = list(timesteps)[::-1]
    for s, t in zip(upwards[:-1], upwards[1:], strict=True):
        eps_hat = model(x, torch.full((len(x),), t))
        x = signal[t] / signal[s] * x + noise[t] * eps_hat
    return x


def _one_eps_for_all(model, schedule, x_0, timesteps):
    eps_hat = model(x_0, torch.full((len(x_0),), timesteps[-2]))
    return schedule.signal_rate[timesteps[0]] * x_0 + schedule.noise_rate[timesteps[0]] * eps_hat


def _a_number_for_t(model, schedule, x_0, timesteps):
    for t in list(timesteps)[-2::-1]:
        x_0 = model(x_0, t)
    return x_0


def _invert_by_change(model, schedule, x_0, timesteps):
    # x / signal moves by eps_hat times the change of noise / signal
    signal, ratio = schedule.signal_rate, schedule.noise_rate / schedule.signal_rate
    y = x_0.double()
    for i in range(len(timesteps) - 1, 0, -1):
        s, t = timesteps[i], timesteps[i - 1]
        eps_hat = model(signal[s] * y, torch.tensor([t] * len(y)))
        y = y + (ratio[t] - ratio[s]) * eps_hat
    return signal[timesteps[0]] * y


def _invert_in_place(model, schedule, x_0, timesteps):
    steps = [int(step) for step in timesteps]
    s = steps.pop()
    while steps:
        t = steps.pop()
        abar_s, abar_t = float(schedule.alpha_bar[s]), float(schedule.alpha_bar[t])
        eps_hat = model(x_0, torch.ones(len(x_0), dtype=torch.long) * t)
        x_0 -= (1 - abar_s) ** 0.5 * eps_hat
        x_0 *= (abar_t / abar_s) ** 0.5
        x_0 += (1 - abar_t) ** 0.5 * eps_hat
        s = t
    return x_0


def _invert_one_by_one(model, schedule, x_0, timesteps):
    return torch.cat([_invert(model, schedule, x[None], timesteps) for x in x_0])


def _asked_twice(model, schedule, x_0, timesteps):
    model(x_0, torch.ones(len(x_0), dtype=torch.int64))
    return _invert(model, schedule, x_0, timesteps)


def _asks_once_a_step(answer) -> bool:
    calls = []
    schedule = _short_schedule(9, torch.Generator().manual_seed(0))
    wavy = _wavy_model(9)

    def model(x: Tensor, t: Tensor) -> Tensor:
        calls.append(len(x))
        return wavy(x, t)

    answer(model, schedule, torch.ones(1, 2), [9, 5, 2, 0])
    return len(calls) == 3


invert = Exercise(
    "lesson06.invert",
    "Back into the noise",
    difficulty=3,
    minutes=12,
    hints=(
        "Write the DDIM loop with eta = 0, and let it climb: turn `timesteps` around, and in each "
        "step s (where you are) is the smaller one.",
        "`for s, t in zip(upwards[:-1], upwards[1:])`. x has the rates of s, so x0_hat uses those; "
        "what you put together uses the rates of t.",
        "Ask `model(x, torch.full((len(x),), t))`: the state you have, the step you go to. Then "
        "x0_hat = (x - noise[s] * eps_hat) / signal[s] and x = signal[t] * x0_hat + noise[t] * "
        "eps_hat.",
    ),
    model_answer=_invert,
    cases=_invert_cases,
    use=_climb_by_climb,
    properties=(Property(ASKED_TWICE, _asks_once_a_step, mistake="asked twice"),),
    mistakes=(
        Mistake(
            "walks down",
            _walked_down,
            "Your walk goes down from T, as a sampler does. Inversion starts at 0, where the "
            "picture is, and climbs: go through `timesteps` from its end.",
        ),
        Mistake(
            "asked at s",
            lambda model, schedule, x_0, timesteps: _upwards(
                model, schedule, x_0, timesteps, ask=lambda s, t: s
            ),
            "You ask at (x_s, s). Papers do so too, and it is a right way to invert. But it begins "
            "by asking at step 0, for which no network was trained, so this exercise says: the "
            "state that you have, the step t that you go to.",
        ),
        Mistake(
            "asked at s, but not at 0",
            lambda model, schedule, x_0, timesteps: _upwards(
                model, schedule, x_0, timesteps, ask=lambda s, t: max(s, 1)
            ),
            "You ask at (x_s, s), and at 1 for s = 0. That is a right way to invert, too, and the "
            "lesson tries it below. This exercise asks with the state that you have at the step t "
            "that you go to.",
        ),
        Mistake(
            "asked at s, and at t for s = 0",
            lambda model, schedule, x_0, timesteps: _upwards(
                model, schedule, x_0, timesteps, ask=lambda s, t: s or t
            ),
            "You ask at (x_s, s), except at the start. It is a right way to invert, by another "
            "convention: in this exercise every question is put at t, the step that you go to.",
        ),
        Mistake(
            "asked at t - 1",
            lambda model, schedule, x_0, timesteps: _upwards(
                model, schedule, x_0, timesteps, ask=lambda s, t: t - 1
            ),
            "You ask the model at t - 1, as where steps count from 0. Here step t is t noisings: "
            "ask at t.",
        ),
        Mistake(
            "entries counted from 0",
            lambda model, schedule, x_0, timesteps: _upwards(
                model, schedule, x_0, timesteps, rates=lambda s, t: (s - 1, t - 1)
            ),
            "You read the rates at s - 1 and t - 1, as where steps count from 0. Here entry 0 is "
            "clean data and step t is entry t; s = 0 would read the last entry.",
        ),
        Mistake(
            "return inside the loop",
            lambda model, schedule, x_0, timesteps: _invert(model, schedule, x_0, timesteps[-2:]),
            "Your walk ends after its first step up, at the smallest step above 0. Is `return` "
            "inside the loop? It belongs after it, one level out.",
        ),
        Mistake(
            "always from x_0",
            lambda model, schedule, x_0, timesteps: (
                _invert(model, schedule, x_0, [timesteps[0], timesteps[1]])
                if len(timesteps) == 2
                else _upwards(model, schedule, x_0, [timesteps[0], timesteps[1]])
            ),
            "Each of your steps starts from x_0 again, so only the last one counts: put the result "
            "of a step back into x.",
        ),
        Mistake("reverse gives None", _reversed_in_place, REVERSED_GIVES_NONE),
        Mistake(
            "from the top",
            _from_the_top,
            "Your pairs (s, t) are right, but you go through them from the top. The picture is at "
            "0: begin with the pair at the end of `timesteps`.",
        ),
        Mistake(
            "clean guess clamped",
            _inverted_clamped,
            "You clamp x0_hat to [-1, 1]. What is cut off cannot be found again on the way down, "
            "so inversion does without.",
        ),
        Mistake(
            "x0_hat not divided",
            _with_guess(lambda p, x, s, e: x - p.noise_rate[s] * e),
            "Your x0_hat takes the noise out and is not divided by the signal rate of s, by which "
            "x had been shrunk.",
        ),
        Mistake(
            "x0_hat without its root",
            _with_guess(lambda p, x, s, e: (x - p.noise_rate[s] * e) / p.alpha_bar[s]),
            "In x0_hat you divide by alpha_bar_s; x was shrunk by its root, the signal rate.",
        ),
        Mistake(
            "noise put into x0_hat",
            _with_guess(lambda p, x, s, e: (x + p.noise_rate[s] * e) / p.signal_rate[s]),
            "Your x0_hat adds eps_hat where it should take it away: look at the sign.",
        ),
        Mistake(
            "list not turned around",
            lambda model, schedule, x_0, timesteps: _upwards(
                model, schedule, x_0, list(timesteps)[::-1]
            ),
            "You go through `timesteps` as it comes, from the noise down, with the formula for "
            "going up. Turn the list around first.",
        ),
        Mistake(
            "rates of t only",
            lambda model, schedule, x_0, timesteps: _upwards(
                model, schedule, x_0, timesteps, rates=lambda s, t: (t, t)
            ),
            "You take x apart with the rates of t and put it together with the same: nothing "
            "moves. x is at s, so x0_hat needs the rates of s.",
        ),
        Mistake("asked twice", _asked_twice, ASKED_TWICE),
        Mistake(
            "rates swapped",
            lambda model, schedule, x_0, timesteps: _upwards(
                model, schedule, x_0, timesteps, rates=lambda s, t: (t, s)
            ),
            "The rates of s and t have changed places: x has the noise of s in it, and is going to "
            "have that of t.",
        ),
        Mistake(
            "last climb missing",
            lambda model, schedule, x_0, timesteps: _invert(
                model, schedule, x_0, timesteps[1:] if len(timesteps) > 2 else timesteps
            ),
            "Your walk stops one step below the top: it should reach timesteps[0].",
        ),
        Mistake(
            "first climb missing",
            lambda model, schedule, x_0, timesteps: _invert(
                model, schedule, x_0, timesteps[:-1] if len(timesteps) > 2 else timesteps
            ),
            "Your walk leaves out its first climb, from 0 to the smallest step above it.",
        ),
        Mistake(
            "noised from x_0",
            _noised_from_x0,
            "At each step you noise the x_0 you were given. The step back down will use x0_hat, "
            "the model's guess from x and eps_hat: use it here too.",
        ),
        Mistake(
            "guesses from the start",
            _guesses_from_the_start,
            "You take the noise out of x_0 at each step. Take it out of x, the state that you have "
            "just reached.",
        ),
        Mistake(
            "guesses without roots",
            _guesses_without_roots,
            "In x0_hat you use alpha_bar_s and 1 - alpha_bar_s where their roots belong, the rates "
            "of s.",
        ),
        Mistake(
            "without roots",
            _without_roots,
            "You use alpha_bar and 1 - alpha_bar where their roots belong, the signal and noise "
            "rates.",
        ),
        Mistake(
            "noise piles up",
            _noise_not_taken_out,
            "You put the noise of t in without taking that of s out first: compute x0_hat, then "
            "noise it.",
        ),
        Mistake(
            "one leap",
            _one_eps_for_all,
            "You ask the model once, at x_0, and leap to the top. Ask again at each step on the "
            "way: eps_hat changes along the path.",
        ),
        Mistake(
            "noise of its own",
            lambda model, schedule, x_0, timesteps: (
                schedule.signal_rate[timesteps[0]] * x_0
                + schedule.noise_rate[timesteps[0]] * torch.randn_like(x_0)
            ),
            DICE,
        ),
        Mistake(
            "a number for t",
            _a_number_for_t,
            "The model wants one step for each member of the batch, an int64 tensor of shape "
            "(B,): `torch.full((len(x),), t)`.",
        ),
    ),
    alternatives=(_invert_by_change, _invert_in_place, _invert_one_by_one),
    passed="You can now find the noise from which a given picture comes.",
    why="The sampler asked the model at (x_t, t). Here x_t is what we look for, so x_s stands in "
    "for it: an error that shrinks with the stride.",
)


# --- questions ------------------------------------------------------------------------------------

long_strides = Choice(
    "lesson06.long_strides",
    "A perfect denoiser and five steps",
    difficulty=2,
    minutes=1,
    hints=(
        "The denoiser is exact, so the mean of each step is exact too.",
        "Look at the figure: which shape does the true curve have, and which shape does the step "
        "draw from?",
    ),
    right="c",
    options={
        "a": "No: an exact oracle makes no error that could pile up. The error is there in the "
        "very first step.",
        "b": "No: the oracle computes in float64, and 1000 steps round more often than five.",
        "c": "Yes. Over a long stride x_s given x_t has several humps. Its mean is known exactly, "
        "and a Gaussian around it still draws where no data can be.",
        "d": "No: x_T keeps the same trace of x_0 for five steps as for 1000, and those 1000 do "
        "well.",
    },
)

eta_one = Choice(
    "lesson06.eta_one",
    "Fifty steps with eta = 1",
    difficulty=2,
    minutes=1,
    hints=(
        "Put s = t - 1 into DDIM's sigma, and find its name in lesson 2.",
        "Now let s be t - 20. sigma is still a posterior variance: of which chain?",
    ),
    right="b",
    options={
        "a": "Not quite: eta = 1 equals DDPM's 1000 steps only where it takes all of them. The "
        "long strides have their own error.",
        "b": "Yes: sigma is the posterior variance of a chain that has only those 50 noisings, and "
        "the walk is ancestral sampling in it.",
        "c": "No: at eta = 1 sigma^2 is the posterior variance. With beta in its place the numbers "
        "differ even when every step is taken.",
        "d": "No: that is eta = 0. At eta = 1 each step draws as much fresh noise as it may.",
    },
)

midpoint_length = Number(
    "lesson06.midpoint_length",
    "How long is half of both?",
    difficulty=1,
    minutes=2,
    hints=(
        "Each entry of (a + b) / 2 is a sum of two independent numbers of variance 1/4.",
        "So each entry has variance 1/2, and the squared length is the sum over 784 entries.",
    ),
    value=math.sqrt(784 / 2),
    rtol=0.02,
    mistakes=(
        Mistake(
            "as long as one noise",
            28.0,
            "28 is the length of one noise. The midpoint of a straight line between two points of "
            "a sphere lies inside it.",
        ),
        Mistake(
            "half the length",
            14.0,
            "Half of one noise alone would have length 14, but b adds its own half, at right "
            "angles: lengths add like the sides of a right triangle.",
        ),
        Mistake(
            "squared length",
            392.0,
            "392 is the squared length: the variance 1/2 times 784 entries. Take the root.",
        ),
        Mistake(
            "length of the sum",
            math.sqrt(784 * 2),
            "39.6 is the length of a + b; the midpoint is half of that.",
        ),
    ),
    why="The root of 784 / 2 is 19.8, 71 % of the 28 that the model has seen in training.",
)
