"""Lesson 1, noise schedules: beta, alpha_bar, the rates, and what must change with T."""

import math
from collections.abc import Callable, Sequence
from typing import TypeGuard

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
    tidy,
)
from tutorial_lib.schedules import cosine_schedule, linear_schedule, quadratic_schedule

RTOL, ATOL = 1e-3, 3e-7
"""Nearly relative, as alpha_bar runs over nine powers of ten; float32 is off by 1e-7 near 1."""


def _entry_by_entry(
    reference: Callable,
    *,
    first: int,
    parts: Sequence[str] = (),
    axis: str = "t",
    atol: float = ATOL,
) -> Callable:
    """For ``use``: an answer with a wrong entry is told where, in the words of the lesson.

    Args:
        first: what the first entry belongs to: step 0, or step 1 for betas.
        axis: what entries are counted by.
        atol: that of the exercise.
    """

    def use(answer: Callable, *case: object) -> object:
        expected = reference(*case)  # before the answer overwrites its arguments
        given = tidy(answer(*case), parts)
        yours = given if parts else (given,)
        wanted = expected if parts else (expected,)
        if not isinstance(yours, tuple) or len(yours) != len(wanted):
            return given
        pairs = [
            (one, other)
            for one, other in zip(yours, wanted, strict=True)
            if _comparable(one, other)
        ]
        if len(pairs) != len(wanted):
            return given
        texts = [_where_wrong(one, other, first, axis, atol) for one, other in pairs]
        if not any(texts):
            return given
        names = parts or ("",)
        right = [f"`{name}`" for name, text in zip(names, texts, strict=True) if not text]
        name, text = next((n, text) for n, text in zip(names, texts, strict=True) if text)
        praise = f"{' and '.join(right)}: right. " if right else ""
        raise Wrong("values", f"{praise}`{name}`: {text}" if parts else text)

    return use


def _comparable(yours: object, wanted: Tensor) -> TypeGuard[Tensor]:
    """Whether two results can be compared entry by entry; if not, the framework says why."""
    return (
        isinstance(yours, Tensor)
        and yours.shape == wanted.shape
        and yours.is_floating_point()
        and bool((yours.isfinite() | ~wanted.isfinite()).all())
    )


def _where_wrong(yours: Tensor, wanted: Tensor, first: int, axis: str, atol: float) -> str:
    """Which entries are wrong, and by how much; "" if none is."""
    given, target = yours.detach().double(), wanted.double()
    wrong = ~torch.isclose(given, target, rtol=RTOL, atol=atol, equal_nan=True)
    if not wrong.any():
        return ""
    found = wrong.nonzero()
    shown = sorted({0, len(found) // 2, len(found) - 1})
    text = "; ".join(_one_entry(given, target, found[i].tolist(), first, axis) for i in shown)
    places = wrong.any(0) if wrong.ndim > 1 else wrong
    count, total, begin = int(places.sum()), len(places), int(places.nonzero()[0])
    if count == total:
        return f"No entry is right. {text}." if total > 1 else f"{text}."
    if count == 1:
        return f"{text}. All other entries are right."
    if places[begin:].all():
        return f"Right before {axis} = {begin + first}, wrong from there on. {text}."
    if not places[begin + count :].any():
        return f"Right from {axis} = {begin + count + first} on, wrong before. {text}."
    return f"{count} of {total} entries are wrong. {text}."


def _one_entry(given: Tensor, target: Tensor, at: list[int], first: int, axis: str) -> str:
    row = f"row {at[0]}, " if len(at) > 1 else ""
    yours, wanted = (f"{float(values[tuple(at)]):.5g}" for values in (given, target))
    return f"{row}{axis} = {at[-1] + first}: yours {yours}, right {wanted}"


# linear_betas(num_steps, beta_start, beta_end): T numbers that grow evenly from beta_start to
# beta_end, both included.


def _linear_betas(num_steps, beta_start, beta_end):
    return torch.linspace(beta_start, beta_end, num_steps)


def _ends(generator: torch.Generator):
    for num_steps in (2, 7, 40, 49, 100):
        start, end = (0.001 + 0.1 * torch.rand(2, generator=generator)).tolist()
        yield num_steps, start, 0.2 + end
    yield 1000, 1e-4, 0.02  # the course's own
    yield 100, 1e-4, 0.2  # where counting up by a fraction makes one beta too many
    yield 6, 1e-5, 0.995


def _linear_by_formula(num_steps: int, beta_start: float, beta_end: float) -> list[float]:
    width = beta_end - beta_start
    return [beta_start + width * i / (num_steps - 1) for i in range(num_steps)]


def _linear_in_place(num_steps: int, beta_start: float, beta_end: float) -> Tensor:
    beta = torch.arange(num_steps, dtype=torch.float64)
    beta *= (beta_end - beta_start) / (num_steps - 1)
    beta += beta_start
    return beta


linear_betas = Exercise(
    "lesson01.linear_betas",
    "Betas on a straight line",
    difficulty=1,
    minutes=3,
    hints=(
        "You need `num_steps` numbers at equal distances, the first and the last one given.",
        "torch has a function for just that; its name begins with `lin`.",
        "`torch.linspace(first, last, how_many)` includes both ends.",
    ),
    model_answer=_linear_betas,
    reference=_linear_betas,
    use=_entry_by_entry(_linear_betas, first=1),
    cases=_ends,
    rtol=RTOL,
    atol=ATOL,
    mistakes=(
        Mistake(
            "end added to start",
            lambda n, a, b: a + b * torch.linspace(0, 1, n),
            "Your last beta is beta_start + beta_end. From the first to the last it is only "
            "beta_end - beta_start.",
        ),
        Mistake(
            "counted up by a fraction",
            lambda n, a, b: np.arange(a, b + (b - a) / (n - 1), (b - a) / (n - 1)),
            "Counting up in steps of a fraction makes one beta too many for some sizes, since the "
            "fraction is rounded. Say how many you want: `linspace`.",
        ),
        Mistake(
            "all the same",
            lambda n, a, b: torch.full((n,), float(a)),
            "All your betas are beta_start. They should grow evenly up to beta_end.",
        ),
        Mistake(
            "parabola",
            lambda n, a, b: torch.linspace(a**0.5, b**0.5, n) ** 2,
            "The ends are right, but these betas lie on a parabola (exercise 1.5). Here it is a "
            "straight line.",
        ),
        Mistake(
            "alpha_bar",
            lambda n, a, b: (1 - torch.linspace(a, b, n)).cumprod(0),
            "This is alpha_bar, which comes next. Return the betas themselves.",
        ),
        Mistake(
            "distances",
            lambda n, a, b: (b - a) / (n - 1) * torch.arange(n),
            "You start at 0: the distances are right, and beta_start has to be added.",
        ),
        Mistake(
            "one too many",
            lambda n, a, b: torch.linspace(a, b, n + 1),
            "You have T + 1 betas. Each step has one beta, so there are T; it is alpha_bar that "
            "has T + 1 entries.",
        ),
        Mistake(
            "end left out",
            lambda n, a, b: a + (b - a) / n * torch.arange(n),
            "Your last beta stops one step short of beta_end: between T numbers there are T - 1 "
            "gaps.",
        ),
        Mistake(
            "start left out",
            lambda n, a, b: a + (b - a) / n * torch.arange(1, n + 1),
            "Your first beta is already one step above beta_start: the first step uses beta_start.",
        ),
        Mistake(
            "starts at zero",
            lambda n, a, b: torch.linspace(0, b, n),
            "Your betas start at 0: a step without noise. They should start at beta_start.",
        ),
        Mistake(
            "reversed",
            lambda n, a, b: torch.linspace(b, a, n),
            "Your betas fall. The first steps should add the least noise.",
        ),
        Mistake(
            "geometric",
            lambda n, a, b: torch.logspace(math.log10(a), math.log10(b), n),
            "Your betas grow by a constant factor; a straight line grows by a constant amount.",
        ),
        Mistake(
            "alphas",
            lambda n, a, b: 1 - torch.linspace(a, b, n),
            "These are the alphas, 1 - beta. Return the betas themselves.",
        ),
        Mistake(
            "ends written in",
            lambda n, a, b: torch.linspace(1e-4, 0.02, n),
            "You run from 0.0001 to 0.02 whatever is asked for. Use the arguments `beta_start` and "
            "`beta_end`.",
        ),
        Mistake(
            "count written in",
            lambda n, a, b: torch.linspace(a, b, 1000),
            "You return 1000 betas whatever is asked for. Use the argument `num_steps`.",
        ),
    ),
    alternatives=(
        _linear_by_formula,
        _linear_in_place,
        lambda n, a, b: np.linspace(a, b, n, dtype=np.float32),
    ),
)

# alpha_bar(beta): beta (T,) in; (T + 1,) out, alpha_bar[0] = 1, alpha_bar[t] the share of the
# signal's variance after t noisings.


def _alpha_bar(beta):
    return torch.cat([torch.ones(1), (1 - beta).cumprod(0)])


def _some_betas(generator: torch.Generator):
    for num_steps in (1, 2, 5, 30):
        yield (0.01 + 0.3 * torch.rand(num_steps, generator=generator),)
    for schedule in (linear_schedule(1000), cosine_schedule(1000)):  # the course's own
        yield (schedule.beta.clone(),)


def _alpha_bar_by_loop(beta: Tensor) -> Tensor:
    left = [1.0]
    for b in beta.tolist():
        left.append(left[-1] * (1 - b))
    return torch.tensor(left)


def _alpha_bar_in_place(beta: Tensor) -> Tensor:
    beta.neg_().add_(1)
    result = beta.new_ones(len(beta) + 1)
    for t in range(len(beta)):
        result[t + 1] = result[t] * beta[t]
    return result


alpha_bar = Exercise(
    "lesson01.alpha_bar",
    "How much signal is left",
    difficulty=1,
    minutes=5,
    hints=(
        "Step t keeps the share alpha_t = 1 - beta_t of the variance. After t steps, what is left?",
        "Shares of shares multiply: alpha_bar_t = alpha_1 · alpha_2 · … · alpha_t. Look for a "
        "running product in torch.",
        "`(1 - beta).cumprod(0)` gives entries 1 to T. Put a 1 in front, for t = 0, with "
        "`torch.cat([...])`.",
    ),
    model_answer=_alpha_bar,
    reference=_alpha_bar,
    use=_entry_by_entry(_alpha_bar, first=0, atol=1e-12),
    cases=_some_betas,
    rtol=RTOL,
    atol=1e-12,
    mistakes=(
        Mistake(
            "first entry overwritten",
            lambda beta: torch.cat([torch.ones(1), (1 - beta).cumprod(0)[1:]]),
            "You write the 1 over the first step. Put it in front, so that T betas give T + 1 "
            "entries.",
        ),
        Mistake(
            "noise shares",
            lambda beta: torch.cat([torch.zeros(1), 1 - (1 - beta).cumprod(0)]),
            "This is 1 - alpha_bar, the share of noise. alpha_bar is the share of the picture.",
        ),
        Mistake(
            "noise shares after a 1",
            lambda beta: torch.cat([torch.ones(1), 1 - (1 - beta).cumprod(0)]),
            "From t = 1 on yours is 1 - alpha_bar, what has been lost. Wanted is what is left.",
        ),
        Mistake(
            "logarithm",
            lambda beta: torch.cat([torch.zeros(1), (1 - beta).log().cumsum(0)]),
            "This is the logarithm of alpha_bar: take its exp.",
        ),
        Mistake(
            "last entry alone",
            lambda beta: (1 - beta).prod(),
            "You return the product of all steps, a single number. Each t has its own: a *running* "
            "product.",
        ),
        Mistake(
            "flipped",
            lambda beta: torch.cat([torch.ones(1), (1 - beta).flip(0).cumprod(0)]),
            "You multiply from the last step to the first. alpha_bar_t takes steps 1 to t.",
        ),
        Mistake(
            "1 + beta",
            lambda beta: torch.cat([torch.ones(1), (1 + beta).cumprod(0)]),
            "Your numbers grow with t: a step keeps 1 - beta, not 1 + beta.",
        ),
        Mistake(
            "roots multiplied before the root",
            lambda beta: torch.cat([torch.ones(1), ((1 - beta) ** 2).cumprod(0)]),
            "Your numbers are alpha_bar squared: multiply 1 - beta as it is.",
        ),
        Mistake(
            "two steps only",
            lambda beta: torch.cat(
                [torch.ones(1), (1 - beta) * torch.cat([torch.ones(1), 1 - beta[:-1]])]
            ),
            "You multiply each alpha with the one before it only. alpha_bar_t takes all steps up "
            "to t.",
        ),
        Mistake(
            "no entry for t = 0",
            lambda beta: (1 - beta).cumprod(0),
            "alpha_bar[0] is missing: you have T entries, but there should be T + 1. With 0 "
            "noisings, all of the signal is left.",
        ),
        Mistake(
            "1 counted twice",
            lambda beta: torch.cat([torch.ones(2), (1 - beta).cumprod(0)]),
            "There are two entries of 1 in front: only t = 0 is free of noise, so T + 1 entries.",
        ),
        Mistake(
            "off by one",
            lambda beta: torch.cat([torch.ones(2), (1 - beta).cumprod(0)[:-1]]),
            "Your numbers are one step late: alpha_bar[1] is still 1, though step 1 adds noise.",
        ),
        Mistake(
            "betas for alphas",
            lambda beta: torch.cat([torch.ones(1), beta.cumprod(0)]),
            "You multiply the betas, the shares that are lost. Multiply what each step keeps.",
        ),
        Mistake(
            "no running product",
            lambda beta: torch.cat([torch.ones(1), 1 - beta]),
            "These are the alphas, what each single step keeps. alpha_bar takes all steps so far.",
        ),
        Mistake(
            "running sum",
            lambda beta: torch.cat([torch.ones(1), 1 - beta.cumsum(0)]),
            "You add the losses up. Each step takes its share of what is still there, so multiply.",
        ),
        Mistake(
            "exponential",
            lambda beta: torch.cat([torch.ones(1), torch.exp(-beta.cumsum(0))]),
            "exp of minus the sum is nearly right for tiny betas only; 1 - beta is not exp(-beta).",
        ),
        Mistake(
            "root",
            lambda beta: torch.cat([torch.ones(1), (1 - beta).cumprod(0).sqrt()]),
            "You took a root: that is the signal rate. alpha_bar is a share of variance, no root "
            "yet.",
        ),
        Mistake(
            "starts at zero",
            lambda beta: torch.cat([torch.zeros(1), (1 - beta).cumprod(0)]),
            "Your alpha_bar[0] is 0. At t = 0 nothing is lost: the share that is left is 1.",
        ),
        Mistake(
            "1 at the end",
            lambda beta: torch.cat([(1 - beta).cumprod(0), torch.ones(1)]),
            "Your 1 stands at the end. It belongs to t = 0, so it comes first.",
        ),
        Mistake(
            "alphas added",
            lambda beta: torch.cat([torch.ones(1), (1 - beta).cumsum(0)]),
            "You add the alphas up. A share of a share is a product: `cumprod`.",
        ),
        Mistake(
            "1 minus a product",
            lambda beta: torch.cat([torch.ones(1), 1 - beta.cumprod(0)]),
            "You multiply the betas and take that from 1. What multiplies from step to step is "
            "what is kept, 1 - beta.",
        ),
        Mistake(
            "last step left out",
            lambda beta: torch.cat([torch.ones(1), (1 - beta).cumprod(0)[:-1]]),
            "The 1 in front is right, but the last step is missing: T betas give T + 1 entries.",
        ),
    ),
    alternatives=(
        _alpha_bar_by_loop,
        _alpha_bar_in_place,
        lambda beta: torch.exp(torch.log1p(-torch.cat([torch.zeros(1), beta])).cumsum(0)),
        lambda beta: np.concatenate([[1.0], np.cumprod(1 - beta.double().numpy())]),
    ),
    passed="That is the whole schedule: everything else in this lesson follows from it.",
)

# alpha_bars(beta): S schedules at once, one a row: (S, T) in, (S, T + 1) out.


def _alpha_bars(beta):
    clean = torch.ones(len(beta), 1)
    return torch.cat([clean, (1 - beta).cumprod(dim=1)], dim=1)


def _many_betas(generator: torch.Generator):
    for shape in ((1, 4), (3, 3), (2, 9)):
        yield (0.01 + 0.3 * torch.rand(shape, generator=generator),)
    yield (torch.stack([make(1000).beta for make in (linear_schedule, cosine_schedule)]),)


alpha_bars = Exercise(
    "lesson01.alpha_bars",
    "Several schedules at once",
    difficulty=1,
    minutes=4,
    hints=(
        "Rows are schedules, columns are steps. Along which axis does the running product go?",
        "`cumprod(dim=1)` multiplies along a row. The column of ones has shape (S, 1).",
        "`torch.cat([ones, products], dim=1)` puts columns side by side.",
    ),
    model_answer=_alpha_bars,
    reference=_alpha_bars,
    use=_entry_by_entry(_alpha_bars, first=0, atol=1e-12),
    cases=_many_betas,
    rtol=RTOL,
    atol=1e-12,
    mistakes=(
        Mistake(
            "zeros in front",
            lambda b: torch.cat([torch.zeros(len(b), 1), (1 - b).cumprod(1)], 1),
            "Your column for t = 0 holds zeros. Before the first step all of the picture is left: "
            "1.",
        ),
        Mistake(
            "ones at the end",
            lambda b: torch.cat([(1 - b).cumprod(1), torch.ones(len(b), 1)], 1),
            "Your column of ones is the last one. It belongs to t = 0, so it comes first.",
        ),
        Mistake(
            "no running product",
            lambda b: torch.cat([torch.ones(len(b), 1), 1 - b], 1),
            "These are the alphas of single steps, with a 1 in front. alpha_bar takes all steps so "
            "far.",
        ),
        Mistake(
            "running sum",
            lambda b: torch.cat([torch.ones(len(b), 1), 1 - b.cumsum(1)], 1),
            "You add up what is lost. Each step takes its share of what is still there: multiply.",
        ),
        Mistake(
            "root",
            lambda b: torch.cat([torch.ones(len(b), 1), (1 - b).cumprod(1).sqrt()], 1),
            "You took a root: these are signal rates. alpha_bar is a share of variance.",
        ),
        Mistake(
            "first schedule for all",
            lambda b: torch.cat([torch.ones(len(b), 1), (1 - b[:1]).cumprod(1).expand(b.shape)], 1),
            "All your rows are the first schedule. Each row has betas of its own.",
        ),
        Mistake(
            "rows glued",
            lambda b: torch.cat([torch.ones(1), (1 - b).flatten().cumprod(0)]),
            "You return one long row for all schedules. Keep one row for each, (S, T + 1).",
        ),
        Mistake(
            "columns for rows",
            lambda b: torch.cat([torch.ones(len(b), 1), (1 - b).cumprod(1)], 1).T,
            "Rows and columns have changed places: a schedule is a row.",
        ),
        Mistake(
            "last step left out",
            lambda b: torch.cat([torch.ones(len(b), 1), (1 - b).cumprod(1)[:, :-1]], 1),
            "The last step is missing: T betas give T + 1 columns.",
        ),
        Mistake(
            "wrong axis",
            lambda b: torch.cat([torch.ones(len(b), 1), (1 - b).cumprod(0)], 1),
            "Your product runs down the columns, from one schedule into the next. Time runs along "
            "the rows, dim=1.",
        ),
        Mistake(
            "ones on top",
            lambda b: torch.cat([torch.ones(1, b.shape[1]), (1 - b).cumprod(1)], 0),
            "You put a row of ones on top, as if it were one more schedule. Each row needs a 1 in "
            "front.",
        ),
        Mistake(
            "both on the wrong axis",
            lambda b: torch.cat([torch.ones(1, b.shape[1]), (1 - b).cumprod(0)], 0),
            "Product and ones both run down the columns: you treat each column as a schedule.",
        ),
        Mistake(
            "all in one row",
            lambda b: torch.cat(
                [torch.ones(len(b), 1), (1 - b).flatten().cumprod(0).reshape(b.shape)], 1
            ),
            "Your product does not stop at the end of a row: the second schedule goes on from the "
            "first one's last value.",
        ),
        Mistake(
            "no entry for t = 0",
            lambda b: (1 - b).cumprod(1),
            "The column for t = 0 is missing: (S, T) should become (S, T + 1).",
        ),
        Mistake(
            "betas for alphas",
            lambda b: torch.cat([torch.ones(len(b), 1), b.cumprod(1)], 1),
            "You multiply the betas, the shares that are lost. Multiply what each step keeps, 1 - "
            "beta.",
        ),
    ),
    alternatives=(
        lambda b: torch.stack([_alpha_bar(row) for row in b]),
        lambda b: torch.nn.functional.pad(1 - b, (1, 0), value=1.0).cumprod(-1),
        lambda b: np.hstack([np.ones((len(b), 1)), np.cumprod(1 - b.numpy(), axis=1)]),
    ),
)

# rates(alpha_bar): (T + 1,) in; signal_rate, noise_rate, snr out, each (T + 1,).


def _rates(alpha_bar):
    signal_rate = alpha_bar.sqrt()
    noise_rate = (1 - alpha_bar).sqrt()
    snr = alpha_bar / (1 - alpha_bar)
    return signal_rate, noise_rate, snr


def _some_alpha_bars(generator: torch.Generator):
    for (beta,) in _some_betas(generator):
        yield (_alpha_bar(beta),)


def _rates_by_loop(alpha_bar: Tensor) -> tuple[list, list, list]:
    signal, noise, snr = [], [], []
    for a in alpha_bar.tolist():
        signal.append(math.sqrt(a))
        noise.append(math.sqrt(1 - a))
        snr.append(a / (1 - a) if a < 1 else math.inf)
    return signal, noise, snr


def _rates_squared(alpha_bar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    signal, noise = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    return signal, noise, (signal / noise) ** 2


_RATES = ("signal_rate", "noise_rate", "snr")

rates = Exercise(
    "lesson01.rates",
    "Signal rate, noise rate, SNR",
    difficulty=1,
    minutes=5,
    hints=(
        "alpha_bar is a share of *variance*; x_t = signal_rate · x_0 + noise_rate · eps is about "
        "amplitudes. How do the two relate?",
        "The variance of a · x is a² times that of x, so rates are roots. Signal and noise shares "
        "add up to 1.",
        "The SNR compares variances, not amplitudes: alpha_bar over what is missing from 1. It is "
        "infinite at t = 0, and that is right.",
    ),
    model_answer=_rates,
    reference=_rates,
    use=_entry_by_entry(_rates, first=0, parts=_RATES, atol=1e-12),
    cases=_some_alpha_bars,
    parts=_RATES,
    rtol=RTOL,
    atol=1e-12,
    mistakes=(
        Mistake(
            "no root at the signal",
            lambda a: (a, (1 - a).sqrt(), a / (1 - a)),
            "Your signal rate lacks its root: alpha_bar is a share of variance, and x_0 is "
            "multiplied by an amplitude.",
        ),
        Mistake(
            "root of 1 minus a root",
            lambda a: (a.sqrt(), (1 - a.sqrt()).sqrt(), a / (1 - a)),
            "Your noise rate is the root of 1 - signal rate. The *squares* of the rates add up to "
            "1.",
        ),
        Mistake(
            "squares of shares",
            lambda a: (a**2, (1 - a) ** 2, a / (1 - a)),
            "You square the shares. A share of variance is the square of a rate, so a rate is its "
            "root.",
        ),
        Mistake(
            "signal rate over its rest",
            lambda a: (a.sqrt(), (1 - a).sqrt(), a.sqrt() / (1 - a.sqrt())),
            "Your rates are right. Your SNR compares the signal rate with 1 minus itself; compare "
            "the two variances, alpha_bar and 1 - alpha_bar.",
        ),
        Mistake(
            "signal over noise rate squared",
            lambda a: (a.sqrt(), (1 - a).sqrt(), a / (1 - a).sqrt()),
            "Your rates are right. Your SNR has a variance above the line and an amplitude below "
            "it. Both have to be variances.",
        ),
        Mistake(
            "root above the line",
            lambda a: (a.sqrt(), (1 - a).sqrt(), a.sqrt() / (1 - a)),
            "Your rates are right. Your SNR has an amplitude above the line and a variance below "
            "it. Both have to be variances.",
        ),
        Mistake(
            "decibels",
            lambda a: (a.sqrt(), (1 - a).sqrt(), 10 * (a / (1 - a)).log10()),
            "Your rates are right. Your SNR is in decibels; the plain ratio is wanted.",
        ),
        Mistake(
            "alpha_bar for the SNR",
            lambda a: (a.sqrt(), (1 - a).sqrt(), a),
            "Your rates are right. Your SNR is alpha_bar; it still has to be divided by the share "
            "of noise.",
        ),
        Mistake(
            "SNR first",
            lambda a: (a / (1 - a), a.sqrt(), (1 - a).sqrt()),
            "The three tensors are right, their order is not: signal rate, noise rate, SNR.",
        ),
        Mistake(
            "no root",
            lambda a: (a, 1 - a, a / (1 - a)),
            "Your rates are shares of variance. What multiplies x_0 and eps is an amplitude: take "
            "roots.",
        ),
        Mistake(
            "rates add up to 1",
            lambda a: (a.sqrt(), 1 - a.sqrt(), a / (1 - a)),
            "Your rates add up to 1, but it is their squares that do: then the variance of x_t "
            "stays 1.",
        ),
        Mistake(
            "swapped",
            lambda a: ((1 - a).sqrt(), a.sqrt(), a / (1 - a)),
            "Signal and noise rate have changed places: at t = 0 all is signal.",
        ),
        Mistake(
            "ratio of rates",
            lambda a: (a.sqrt(), (1 - a).sqrt(), (a / (1 - a)).sqrt()),
            "Your rates are right. Your SNR is a ratio of amplitudes: it should be one of "
            "variances, the square of that.",
        ),
        Mistake(
            "noise to signal",
            lambda a: (a.sqrt(), (1 - a).sqrt(), (1 - a) / a),
            "Your rates are right. Your SNR is upside down: signal over noise falls with t.",
        ),
        Mistake(
            "logarithm",
            lambda a: (a.sqrt(), (1 - a).sqrt(), (a / (1 - a)).log()),
            "Your rates are right. You took the logarithm of the SNR: good for a plot, but not "
            "wanted here.",
        ),
        Mistake(
            "one root forgotten",
            lambda a: (a.sqrt(), 1 - a, a / (1 - a)),
            "Your noise rate lacks its root: 1 - alpha_bar is the variance of the noise.",
        ),
        Mistake(
            "protected division",
            lambda a: (a.sqrt(), (1 - a).sqrt(), a / (1 - a + 1e-8)),
            "Your rates are right. You guard the SNR against a division by 0, so that it is large "
            "at t = 0 where it should be infinite. torch divides by 0 without an error.",
        ),
        Mistake(
            "SNR of clean data set to 0",
            lambda a: (a.sqrt(), (1 - a).sqrt(), (a / (1 - a)).nan_to_num(posinf=0)),
            "Your rates are right. Your SNR is 0 at t = 0: no signal at all. Clean data have no "
            "noise, so it is infinite there.",
        ),
    ),
    alternatives=(_rates_by_loop, _rates_squared, lambda a: _rates(a.double())),
)

# quadratic_betas(num_steps, beta_start, beta_end): the square roots grow linearly.


def _quadratic_betas(num_steps, beta_start, beta_end):
    return torch.linspace(beta_start**0.5, beta_end**0.5, num_steps) ** 2


def _quadratic_by_loop(num_steps: int, beta_start: float, beta_end: float) -> list[float]:
    low, high = math.sqrt(beta_start), math.sqrt(beta_end)
    return [(low + (high - low) * i / (num_steps - 1)) ** 2 for i in range(num_steps)]


quadratic_betas = Exercise(
    "lesson01.quadratic_betas",
    "Betas on a parabola",
    difficulty=2,
    minutes=4,
    hints=(
        "The *roots* of the betas lie on a straight line. Where does that line start and end?",
        "Take roots of the two ends, draw the line between them, then undo the root.",
        "`torch.linspace(a**0.5, b**0.5, num_steps)`, and square it.",
    ),
    model_answer=_quadratic_betas,
    reference=_quadratic_betas,
    use=_entry_by_entry(_quadratic_betas, first=1),
    cases=lambda generator: ((n + 1, a, b) for n, a, b in _ends(generator)),
    rtol=RTOL,
    atol=ATOL,
    mistakes=(
        Mistake(
            "alphas",
            lambda n, a, b: 1 - torch.linspace(a**0.5, b**0.5, n) ** 2,
            "These are the alphas, 1 - beta. Return the betas, please.",
        ),
        Mistake(
            "end left out",
            lambda n, a, b: torch.linspace(a**0.5, b**0.5, n + 1)[:-1] ** 2,
            "Your last beta stops one step before beta_end: T numbers have T - 1 gaps.",
        ),
        Mistake(
            "start left out",
            lambda n, a, b: torch.linspace(a**0.5, b**0.5, n + 1)[1:] ** 2,
            "Your first beta is one step past beta_start. Both ends belong to the line.",
        ),
        Mistake(
            "starts at zero",
            lambda n, a, b: torch.linspace(0, b**0.5, n) ** 2,
            "Your line starts at 0, so that the first step adds no noise. It starts at the root of "
            "beta_start.",
        ),
        Mistake(
            "reversed",
            lambda n, a, b: torch.linspace(b**0.5, a**0.5, n) ** 2,
            "Your betas fall from beta_end to beta_start. They should rise.",
        ),
        Mistake(
            "square scaled to the end",
            lambda n, a, b: torch.linspace(a, b, n) ** 2 / b,
            "You square the line and scale it, so that only the last beta is right. Draw the line "
            "between the roots; then both ends are.",
        ),
        Mistake(
            "cubed",
            lambda n, a, b: torch.linspace(a ** (1 / 3), b ** (1 / 3), n) ** 3,
            "The ends are right, but this is a cubic: use square roots, and the square.",
        ),
        Mistake(
            "ends written in",
            lambda n, a, b: torch.linspace(1e-4**0.5, 0.02**0.5, n) ** 2,
            "You run from 0.0001 to 0.02, whatever is passed. Use the two arguments.",
        ),
        Mistake(
            "geometric",
            lambda n, a, b: torch.logspace(math.log10(a), math.log10(b), n),
            "Your betas grow by a constant *factor*: their logarithms lie on a line. Here their "
            "roots do.",
        ),
        Mistake(
            "straight line",
            lambda n, a, b: torch.linspace(a, b, n),
            "This is the linear schedule: the betas themselves lie on a line, not their roots.",
        ),
        Mistake(
            "ends without root",
            lambda n, a, b: torch.linspace(a, b, n) ** 2,
            "You square a line between the betas, so the ends come out as beta squared. The line "
            "runs between their roots.",
        ),
        Mistake(
            "not squared again",
            lambda n, a, b: torch.linspace(a**0.5, b**0.5, n),
            "These are the roots of the betas: the line is right, the last step is missing.",
        ),
        Mistake(
            "line of squares",
            lambda n, a, b: torch.linspace(a**2, b**2, n) ** 0.5,
            "You did it the other way around: squares on a line, then a root. Roots on a line, "
            "then squares.",
        ),
        Mistake(
            "squared time",
            lambda n, a, b: a + (b - a) * torch.linspace(0, 1, n) ** 2,
            "The ends are right, but it is another parabola: yours starts flat, at slope 0. The "
            "line is drawn between the roots of the ends.",
        ),
        Mistake(
            "one too many",
            lambda n, a, b: torch.linspace(a**0.5, b**0.5, n + 1) ** 2,
            "You have T + 1 betas; T steps have T of them.",
        ),
        Mistake(
            "root of the line",
            lambda n, a, b: torch.linspace(a, b, n) ** 0.5,
            "You take the root of a straight line. It is the other way around: roots of the ends "
            "first, a line between them, then the square.",
        ),
    ),
    alternatives=(
        _quadratic_by_loop,
        lambda n, a, b: np.square(np.linspace(np.sqrt(a), np.sqrt(b), n)),
        lambda n, a, b: quadratic_schedule(n, a, b).beta,
    ),
)

# rescaled(alpha_bar, num_steps): the betas (num_steps,) of a schedule with another number of steps
# along the same curve: step i of num_steps stands where step i·T/num_steps of the old one stood;
# between two old steps, log(alpha_bar) is interpolated linearly. (The pride of the lesson.)


def _rescaled(alpha_bar, num_steps):
    T = len(alpha_bar) - 1
    stations = torch.linspace(0, T, num_steps + 1, dtype=torch.float64)
    log_alpha_bar = torch.from_numpy(np.interp(stations, torch.arange(T + 1), alpha_bar.log()))
    return 1 - log_alpha_bar.diff().exp()


def _longer_and_shorter(generator: torch.Generator):
    for num_steps, wanted in ((6, 1), (6, 3), (10, 7), (40, 23), (12, 30)):
        beta = torch.linspace(0.01, 0.2, num_steps) * (
            0.8 + 0.4 * torch.rand(1, generator=generator)
        )
        yield _alpha_bar(beta).double(), wanted
    yield linear_schedule(1000).alpha_bar.clone(), 2000  # betas below 1e-4
    yield cosine_schedule(1000).alpha_bar.clone(), 37  # betas near 1


def _rescaled_by_loop(alpha_bar: Tensor, num_steps: int) -> Tensor:
    last, beta, before = len(alpha_bar) - 1, [], 1.0
    for i in range(1, num_steps + 1):
        where = i * last / num_steps
        low = min(int(where), last - 1)
        part = where - low
        now = float(alpha_bar[low]) ** (1 - part) * float(alpha_bar[low + 1]) ** part
        beta.append(1 - now / before)
        before = now
    return torch.tensor(beta)


def _rescaled_torch(alpha_bar: Tensor, num_steps: int) -> Tensor:
    return 1 - torch.exp(torch.diff(_log_at(alpha_bar, num_steps + 1)))


def _log_at(alpha_bar: Tensor, count: int) -> Tensor:
    """log(alpha_bar), interpolated at ``count`` places from the first entry to the last."""
    return torch.nn.functional.interpolate(
        alpha_bar.log()[None, None], count, mode="linear", align_corners=True
    )[0, 0]


def _logs(alpha_bar: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The steps 0..T and log(alpha_bar) there, as np.interp takes them."""
    return np.arange(len(alpha_bar)), alpha_bar.double().log().numpy()


def _ends_as_noisy(answer) -> bool:
    """512 steps along the thousand of the linear schedule end at its alpha_bar_T."""
    alpha_bar = linear_schedule(1000).alpha_bar
    end = answer(alpha_bar.clone(), 512).double().neg().log1p().sum().exp()
    return bool(torch.isclose(end, alpha_bar[-1], rtol=1e-3))


def _nearest(alpha_bar: Tensor, num_steps: int) -> Tensor:
    return alpha_bar[torch.linspace(0, len(alpha_bar) - 1, num_steps + 1).round().long()]


def _every(alpha_bar: Tensor, num_steps: int) -> Tensor:
    return alpha_bar[:: max((len(alpha_bar) - 1) // num_steps, 1)][: num_steps + 1]


def _at_places(values: Tensor, num_steps: int) -> np.ndarray:
    """``values``, interpolated at the places of the new steps 0..S."""
    places = np.linspace(0, len(values) - 1, num_steps + 1)
    return np.interp(places, np.arange(len(values)), values.numpy())


rescaled = Exercise(
    "lesson01.rescaled",
    "The same curve in 512 steps",
    difficulty=3,
    minutes=12,
    hints=(
        "Do not touch the betas first: follow the curve. At which (fractional) old step does new "
        "step i of S stand?",
        "New steps 0..S stand at `torch.linspace(0, T, S + 1)`. Interpolate log(alpha_bar) there; "
        "`np.interp(where, old_steps, values)` does it.",
        "Now you have log(alpha_bar) of the new schedule. alpha_t = alpha_bar_t / alpha_bar_{t-1} "
        "is the exp of a difference, and beta is 1 minus that.",
    ),
    model_answer=_rescaled,
    reference=_rescaled,
    use=_entry_by_entry(_rescaled, first=1, axis="the new step"),
    cases=_longer_and_shorter,
    rtol=RTOL,
    atol=ATOL,
    properties=(
        Property(
            "With 512 steps instead of 1000 the linear schedule should end at the same alpha_bar, "
            "4.04e-5.",
            _ends_as_noisy,
        ),
    ),
    mistakes=(
        Mistake(
            "alpha_bar interpolated",
            lambda a, n: (
                1
                - torch.exp(
                    torch.from_numpy(
                        np.interp(np.linspace(0, len(a) - 1, n + 1), np.arange(len(a)), a)
                    )
                    .log()
                    .diff()
                )
            ),
            "Close: you interpolate alpha_bar itself, not its logarithm. The difference shows "
            "where the curve bends.",
        ),
        Mistake(
            "same betas, other count",
            lambda a, n: torch.linspace(
                1 - float(a[1]), 1 - float(a[-1] / a[-2]), n, dtype=torch.float64
            ),
            "Your betas run between the old ends. With fewer steps each must add more noise, or "
            "x_T keeps too much of the picture.",
        ),
        Mistake(
            "betas picked",
            lambda a, n: (1 - a[1:] / a[:-1])[torch.linspace(0, len(a) - 2, n).round().long()],
            "You pick some of the old betas. The noise of the steps you skip is then missing: go "
            "through alpha_bar.",
        ),
        Mistake(
            "betas scaled",
            lambda a, n: (
                torch.from_numpy(
                    np.interp(
                        np.linspace(0, len(a) - 2, n), np.arange(len(a) - 1), 1 - a[1:] / a[:-1]
                    )
                )
                * (len(a) - 1)
                / n
            ),
            "Scaling the betas by T_old/T_new is a common rule of thumb, and good for small "
            "betas. Here the new schedule has to follow the curve exactly.",
        ),
        Mistake(
            "S places instead of S + 1",
            lambda a, n: 1 - torch.cat([torch.zeros(1), _log_at(a, n)]).diff().exp(),
            "You have one place too few: S steps have S + 1 ends, from 0 to T both included.",
        ),
        Mistake(
            "not divided",
            lambda a, n: 1 - _log_at(a, n + 1)[1:].exp(),
            "You give 1 - alpha_bar, all the noise so far. A beta is what *one* step adds: divide "
            "by the alpha_bar before it.",
        ),
        Mistake(
            "alphas returned",
            lambda a, n: _log_at(a, n + 1).diff().exp(),
            "These are the new alphas. One small step is left: the betas.",
        ),
        Mistake(
            "alpha_bar returned",
            lambda a, n: _log_at(a, n + 1).exp(),
            "This is the new alpha_bar, with S + 1 entries, and it is right. Now derive its S "
            "betas.",
        ),
        Mistake(
            "exp forgotten",
            lambda a, n: -_log_at(a, n + 1).diff(),
            "Very close: these are differences of logarithms. An alpha is the exp of such a "
            "difference, and beta is 1 minus it.",
        ),
        Mistake(
            "places beyond T",
            lambda a, n: 1 - np.exp(np.diff(np.interp(np.linspace(0, len(a), n + 1), *_logs(a)))),
            "Your places run to len(alpha_bar). That is one beyond the last step: with T + 1 "
            "entries, T is len(alpha_bar) - 1.",
        ),
        Mistake(
            "logarithms returned",
            lambda a, n: _log_at(a, n + 1).diff(),
            "These are the logarithms of the new alphas. An alpha is their exp, and beta is 1 "
            "minus it.",
        ),
        Mistake(
            "upside down",
            lambda a, n: 1 - (-_log_at(a, n + 1).diff()).exp(),
            "Your fraction is upside down: an alpha is the new alpha_bar over the one *before* it, "
            "so it is below 1.",
        ),
        Mistake(
            "differences of alpha_bar",
            lambda a, n: -_log_at(a, n + 1).exp().diff(),
            "You subtract neighboring alpha_bars. A beta is a share of what is still there: divide "
            "by the alpha_bar before it.",
        ),
        Mistake(
            "nearest old step",
            lambda a, n: 1 - _nearest(a, n).log().diff().exp(),
            "You take the nearest old step. Between two old steps, interpolate log(alpha_bar).",
        ),
        Mistake(
            "log of base 10",
            lambda a, n: 1 - torch.exp(_log_at(a, n + 1).diff() / math.log(10)),
            "Logarithm and exponential do not match: `log10` belongs to `10 ** x`, `log` to `exp`.",
        ),
        Mistake(
            "whole stride",
            lambda a, n: 1 - _every(a, n).log().diff().exp(),
            "You take every so many-th old step. T / S need not be a whole number, and S may be "
            "larger than T: interpolate.",
        ),
        Mistake(
            "old step below",
            lambda a, n: (
                1 - a[torch.linspace(0, len(a) - 1, n + 1).floor().long()].log().diff().exp()
            ),
            "You round each place down to an old step. Between two old steps, interpolate.",
        ),
        Mistake(
            "rates interpolated",
            lambda a, n: 1 - torch.from_numpy(_at_places(a.sqrt(), n)).log().diff().mul(2).exp(),
            "You interpolate the signal rate. The lesson goes along log(alpha_bar); the two differ "
            "between old steps.",
        ),
        Mistake(
            "roots of the alphas",
            lambda a, n: 1 - (_log_at(a, n + 1).diff() / 2).exp(),
            "You take 1 minus the *root* of the new alpha. A beta is 1 minus alpha itself.",
        ),
        Mistake(
            "one minus the logarithm",
            lambda a, n: 1 - _log_at(a, n + 1).diff(),
            "You take 1 minus a logarithm. First turn the difference into an alpha with exp.",
        ),
        Mistake(
            "alpha_bar 512 of the old road",
            lambda a, n: 1 - a[: n + 1].log().diff().exp(),
            "You keep the first S of the old steps, so the road is cut off. Spread S steps over "
            "all of it.",
        ),
        Mistake(
            "places from 1",
            lambda a, n: (
                1 - np.exp(np.diff(np.interp(np.linspace(1, len(a) - 1, n + 1), *_logs(a))))
            ),
            "Your places begin at step 1. The road begins at 0, clean data.",
        ),
        Mistake(
            "no end",
            lambda a, n: 1 - np.exp(np.diff(np.interp(np.linspace(0, len(a) - 1, n), *_logs(a)))),
            "You have S places, so S - 1 differences. S steps have S + 1 ends: `num_steps + 1` "
            "places.",
        ),
    ),
    alternatives=(_rescaled_by_loop, _rescaled_torch, lambda a, n: _rescaled(a, n).numpy()),
    why="Each new beta bundles the old steps it passes: 1 - beta is the product of their alphas.",
    passed="A schedule is a curve; the number of steps only says how finely you walk along it.",
)

# How much of x_0 is left in x_T, as its signal rate, for linear_schedule(1000)?
left_over = Number(
    "lesson01.left_over",
    "How pure is x_T?",
    hints=(
        "`linear_schedule(1000)` has all you need; which of its tensors multiplies x_0?",
        "It is the last entry of `signal_rate`, a little over half a percent.",
    ),
    value=lambda: float(linear_schedule(1000).signal_rate[-1]),
    rtol=0.009,  # the step before is 0.0102 away
    mistakes=(
        Mistake(
            "alpha_bar",
            lambda: float(linear_schedule(1000).alpha_bar[-1]),
            "That is alpha_bar_T (or the SNR): a share of variance. What multiplies x_0 is its "
            "root.",
        ),
        Mistake(
            "one step alone",
            lambda: float(linear_schedule(1000).alpha[-1]) ** 0.5,
            "That is what the last step alone keeps, the root of alpha_T. All thousand steps "
            "together keep far less.",
        ),
        Mistake(
            "last beta",
            0.02,
            "That is the last beta. x_0 is multiplied by the signal rate, the root of alpha_bar_T.",
        ),
        Mistake(
            "cosine",
            lambda: float(cosine_schedule(1000).signal_rate[-1]),
            "That is the cosine schedule's end. The question is about the linear one, `schedule`.",
        ),
        Mistake(
            "percent",
            lambda: 100 * float(linear_schedule(1000).signal_rate[-1]),
            "You answered in percent; write it as a fraction.",
        ),
        Mistake(
            "one digit",
            0.006,
            "That is rounded to one digit. Give three: with fewer, step 999 looks like step 1000.",
        ),
        Mistake("nothing", 0.0, "Not zero: x_T is nearly pure noise, but not quite."),
        Mistake(
            "noise rate",
            1.0,
            "A number near 1 is how much noise there is, or how much of x_0 is lost. The question "
            "is how much is left.",
        ),
        Mistake(
            "one step early",
            lambda: float(linear_schedule(1000).signal_rate[999]),
            "That is step 999. The last of T steps is T: `signal_rate[1000]`, or `[-1]`.",
        ),
    ),
    why="Of x_0, 0.64 % is still in x_1000: little, and not nothing.",
)

# Someone keeps the betas from 1e-4 to 0.02 and makes only T = 512 steps. Signal rate of x_512?
too_short = Number(
    "lesson01.too_short",
    "Half the steps, the same betas",
    hints=(
        "`linear_schedule(512)` keeps the ends of the betas.",
        "`linear_schedule(512).signal_rate[-1]`.",
    ),
    value=lambda: float(linear_schedule(512).signal_rate[-1]),
    rtol=0.009,  # the step before is 0.0102 away
    mistakes=(
        Mistake(
            "cut off",
            lambda: float(linear_schedule(1000).signal_rate[512]),
            "That is step 512 of the thousand-step schedule. Here the betas reach 0.02 at step "
            "512.",
        ),
        Mistake(
            "no change",
            lambda: float(linear_schedule(1000).signal_rate[-1]),
            "That is the end of the thousand-step schedule; fewer steps with the same betas add "
            "less noise.",
        ),
        Mistake(
            "alpha_bar",
            lambda: float(linear_schedule(512).alpha_bar[-1]),
            "That is alpha_bar, the share of variance. The signal rate is its root.",
        ),
        Mistake(
            "percent of 512",
            lambda: 100 * float(linear_schedule(512).signal_rate[-1]),
            "That is in percent; give the signal rate itself.",
        ),
        Mistake(
            "noise rate",
            1.0,
            "That is about 1, the noise rate at the last step. The signal rate is much smaller.",
        ),
        Mistake(
            "one step early",
            lambda: float(linear_schedule(512).signal_rate[511]),
            "That is step 511. The last step is 512: `signal_rate[512]`, or `[-1]`.",
        ),
    ),
    why="About 12 times as much of x_0 is left as after 1000 steps: the betas must grow as T "
    "falls.",
)

# A library counts its steps 0..999 and speaks of timestep 249. Which step of ours is that?
counting = Number(
    "lesson01.counting",
    "Counting from 1 here, from 0 elsewhere",
    hints=("Its timestep 0 already has one noising.", "Ours count noisings: 0 is clean data."),
    value=250.0,
    rtol=0.0,
    atol=0.01,
    mistakes=(
        Mistake("the same", 249.0, "The same number, another count: its first noisy step is 0."),
        Mistake("wrong way", 248.0, "One step the wrong way: its timestep 0 is our step 1."),
        Mistake("one too many", 251.0, "One too many: its timestep 0 is our step 1, so add 1."),
    ),
    why="Step t here means t noisings, so theirs is ours minus one.",
)

# Why do people take T = 1000 steps, and not 10 with larger betas?
# a: Ten steps cannot reach pure noise.  b: The way back is nearly Gaussian only for small steps.
# c: The forward process would no longer have a closed form.  d: The network needs 1000 inputs.
why_thousand = Choice(
    "lesson01.why_thousand",
    "Why so many steps?",
    hints=("Going forward is easy with any betas. Think of the way back.",),
    right="b",
    options={
        "a": "They can: ten betas of 0.64 end at the same alpha_bar. The difficulty is the way "
        "back.",
        "b": "Right: a step back is drawn from a Gaussian, and the true one has that form only "
        "where the step is small.",
        "c": "It would: alpha_bar is a product of any ten numbers just as well.",
        "d": "The network is told t as a number and works for any T; steps are not its inputs.",
    },
)
