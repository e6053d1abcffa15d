"""Lesson 7: the cosine schedule, where steps are spent, and a distance with its floor."""

import math

import numpy as np
import torch
from torch import Tensor

from tutorial_lib.checks.framework import Choice, Exercise, Mistake, Number, Wrong, tensor_like
from tutorial_lib.metrics import frechet_distance
from tutorial_lib.schedules import cosine_schedule, linear_schedule


def _fits(result: object, like: Tensor) -> bool:
    """Whether a result is finite numbers in the shape of ``like``; else the framework says what."""
    try:
        tensor_like(result, like)
    except Wrong:
        return False
    return True


def _entries(result: object, expected: Tensor, name: str, rtol: float, atol: float) -> Tensor:
    """``expected`` if the result, which fits, is that.

    Raises:
        Wrong: it is not; says which entry is the first that differs, and what is right before it.
    """
    values = tensor_like(result, expected).double()
    right = torch.isclose(values, expected, rtol=rtol, atol=atol)
    if right.all():
        return expected
    i = int((~right).nonzero()[0])
    text = f"{name}[{i}] should be {_digits(expected[i])}, yours is {_digits(values[i])}."
    late = torch.isclose(values[1:], expected[:-1], rtol=rtol, atol=atol)
    early = torch.isclose(values[:-1], expected[1:], rtol=rtol, atol=atol)
    if len(values) > 2 and (late.all() or early.all()):
        where = "late" if late.all() else "early"
        text = f"Your numbers are right, but one place {where}: {text}"
    elif int((~right).sum()) == 1:
        text += f" All other {len(values) - 1} entries are right."
    elif i:
        text += " What comes before it is right."
    else:
        text += f" {int((~right).sum())} of {len(values)} entries differ."
    raise Wrong("values", text)


def _digits(value: Tensor | float) -> str:
    return f"{float(value):.4g}"


# alpha_bar_curve(num_steps, offset): f(t) / f(0) for t = 0..T, before any beta is cut.


def _alpha_bar_curve(num_steps, offset):
    t = torch.arange(num_steps + 1, dtype=torch.float64)
    f = torch.cos((t / num_steps + offset) / (1 + offset) * math.pi / 2) ** 2
    return f / f[0]


def _curve_cases(generator: torch.Generator):
    for num_steps in (4, 1, 13, 49, 200, 1000):
        yield num_steps, 0.01 + 0.1 * float(torch.rand((), generator=generator))
    yield 1000, 0.008
    yield 6, 30.0


def _each_entry(answer, num_steps, offset):
    result, expected = answer(num_steps, offset), _alpha_bar_curve(num_steps, offset)
    if not _fits(result, expected):
        return result
    return _entries(result, expected, "alpha_bar", 1e-4, 1e-5)


def _curve(
    count=0,
    start=0,
    share=lambda t, T: t / T,
    angle=lambda u, s: (u + s) / (1 + s) * math.pi / 2,
    wave=torch.cos,
    power=2,
    divide=True,
):
    """The curve with something changed: which t, the angle, the function, the power, f(0)."""

    def alpha_bar_curve(num_steps, offset):
        t = torch.arange(start, num_steps + 1 + count, dtype=torch.float64)
        f = wave(angle(share(t, num_steps), offset)) ** power
        f0 = wave(angle(torch.zeros((), dtype=torch.float64), offset)) ** power
        return f / f0 if divide else f

    return alpha_bar_curve


def _curve_angle(num_steps, offset):
    share = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    return (share + offset) / (1 + offset) * math.pi / 2


def _shifted_steps(num_steps, offset):
    t = torch.arange(num_steps + 1, dtype=torch.float64)
    f = torch.cos((t + offset) / num_steps / (1 + offset) * math.pi / 2) ** 2
    return f / f[0]


def _places_from_1(num_steps, offset):
    t = torch.arange(1, num_steps + 2, dtype=torch.float64)
    f = torch.cos((t / num_steps + offset) / (1 + offset) * math.pi / 2) ** 2
    return f / f[0]


def _offset_in_steps(num_steps, offset):
    t = torch.arange(num_steps + 1, dtype=torch.float64)
    f = torch.cos((t + offset) / (num_steps + offset) * math.pi / 2) ** 2
    return f / f[0]


def _curve_by_loop(num_steps, offset):
    quarter = math.pi / 2 / (1 + offset)
    first = math.cos(offset * quarter)
    return [
        (math.cos((t / num_steps + offset) * quarter) / first) ** 2 for t in range(num_steps + 1)
    ]


def _curve_by_double_angle(num_steps, offset):
    place = np.linspace(0, 1, num_steps + 1)
    f = 0.5 + 0.5 * np.cos(np.pi * (place + offset) / (1 + offset))
    f /= f[0]
    return f


alpha_bar_curve = Exercise(
    "lesson07.alpha_bar_curve",
    "A squared cosine",
    difficulty=1,
    minutes=6,
    hints=(
        "First the places: t = 0, 1, ..., T, that is T + 1 of them. Then t / T, a number in 0..1.",
        "The angle is (t / T + offset) / (1 + offset) times a quarter turn, `math.pi / 2`. Take "
        "its cosine, then the square.",
        "`f[0]` is a bit below 1, because of the offset. Divide by it, so that clean data has 1.",
    ),
    model_answer=_alpha_bar_curve,
    cases=_curve_cases,
    use=_each_entry,
    reference=_alpha_bar_curve,
    mistakes=(
        Mistake(
            "no division by f(0)",
            _curve(divide=False),
            "Your alpha_bar[0] is not 1: the offset makes f(0) a little smaller. Divide by f(0), "
            "so that clean data is clean.",
        ),
        Mistake(
            "offset missing",
            _curve(angle=lambda u, s: u * math.pi / 2),
            "Your curve ignores the offset: it is added to t / T, and 1 + offset divides.",
        ),
        Mistake(
            "offset not divided away",
            _curve(angle=lambda u, s: (u + s) * math.pi / 2),
            "The offset is added, but the division by 1 + offset is missing, so that the angle "
            "runs past the quarter turn.",
        ),
        Mistake(
            "brackets",
            _curve(angle=lambda u, s: (u + s / (1 + s)) * math.pi / 2),
            "You divide only the offset by 1 + offset. It divides the whole sum: mind the "
            "parentheses.",
        ),
        Mistake(
            "places from 1",
            _places_from_1,
            "Your places begin at t = 1. The curve begins at t = 0, clean data.",
        ),
        Mistake(
            "offset in steps",
            _offset_in_steps,
            "Steps and their share are mixed up: you add the offset to t and not to t / T, so it "
            "all but vanishes when T is large.",
        ),
        Mistake(
            "offset always 0.008",
            lambda T, s: _alpha_bar_curve(T, 0.008),
            "Your offset is 0.008, whatever you are given. Use the argument.",
        ),
        Mistake(
            "offset for a share",
            _shifted_steps,
            "You divide t + offset by T. Only t is divided: t / T is the share of the way, and the "
            "offset is added to that.",
        ),
        Mistake(
            "square inside",
            lambda T, s: (f := torch.cos(_curve_angle(T, s) ** 2)) / f[0],
            "You square the angle. Take the cosine first, then the square.",
        ),
        Mistake(
            "square missing",
            _curve(power=1),
            "The square is missing: that is the signal rate's curve. alpha_bar is the cosine "
            "squared.",
        ),
        Mistake(
            "half a turn",
            _curve(angle=lambda u, s: (u + s) / (1 + s) * math.pi),
            "Your angle goes up to pi, so the curve falls and rises again. A quarter turn is "
            "pi / 2.",
        ),
        Mistake(
            "degrees",
            _curve(angle=lambda u, s: (u + s) / (1 + s) * 90),
            "Your angle is in degrees. torch and math count in radians: 90 degrees are pi / 2.",
        ),
        Mistake(
            "sine",
            lambda T, s: (
                torch.sin(
                    (torch.arange(T + 1, dtype=torch.float64) / T + s) / (1 + s) * math.pi / 2
                )
                ** 2
                / math.sin(s / (1 + s) * math.pi / 2) ** 2
            ),
            "You took the sine, which rises. The signal falls: cosine.",
        ),
        Mistake(
            "no entry for t = 0",
            _curve(start=1),
            "alpha_bar[0] is missing: you have T entries, but there should be T + 1, including t "
            "= 0.",
        ),
        Mistake(
            "last step missing",
            _curve(count=-1),
            "You stop at t = T - 1. T is a step too: t = 0, ..., T are T + 1 entries.",
        ),
        Mistake(
            "stations, not steps",
            _curve(share=lambda t, T: t / (T + 1)),
            "You divide by T + 1, the number of entries. The last step should be at t / T = 1.",
        ),
        Mistake(
            "one step too few below",
            _curve(share=lambda t, T: t / max(T - 1, 1)),
            "You divide by T - 1. The last step is t = T, and there t / T = 1.",
        ),
        Mistake(
            "as many entries as steps",
            lambda T, s: (
                (f := torch.cos((torch.linspace(0, 1, T) + s) / (1 + s) * math.pi / 2) ** 2) / f[0]
            ),
            "Your places run from 0 to 1, but there are only T of them. t = 0, ..., T are T + 1.",
        ),
        Mistake(
            "one step behind",
            _curve(share=lambda t, T: (t - 1) / T),
            "You use t - 1 for t. Steps count noisings here: t = 0 is clean, so t / T starts at 0.",
        ),
        Mistake(
            "whole division",
            _curve(share=lambda t, T: t // T),
            "`//` cuts off what follows the decimal point: t // T is 0 until the last step. `/` "
            "divides.",
        ),
        Mistake(
            "a quarter turn below",
            _curve(angle=lambda u, s: (u + s) / ((1 + s) * math.pi / 2)),
            "You divide by the quarter turn, pi / 2. The share of the way is multiplied by it.",
        ),
        Mistake(
            "no pi",
            _curve(angle=lambda u, s: (u + s) / (1 + s) / 2),
            "pi is missing in your angle. At t = T it should be a quarter turn, pi / 2.",
        ),
        Mistake(
            "no turn at all",
            _curve(angle=lambda u, s: (u + s) / (1 + s)),
            "Your angle goes from almost 0 to 1. It should go to a quarter turn: times pi / 2.",
        ),
        Mistake(
            "divided by the cosine",
            lambda T, s: _curve(divide=False)(T, s) / math.cos(s / (1 + s) * math.pi / 2),
            "You divide by a cosine that is not squared. f(0) is f at t = 0, with its square.",
        ),
        Mistake(
            "offset subtracted",
            _curve(angle=lambda u, s: (u - s) / (1 + s) * math.pi / 2),
            "You subtract the offset. It is added to t / T: the curve starts further down.",
        ),
        Mistake(
            "1 - offset below",
            _curve(angle=lambda u, s: (u + s) / (1 - s) * math.pi / 2),
            "You divide by 1 - offset. It is 1 + offset, so that the angle ends at pi / 2.",
        ),
        Mistake(
            "offset below alone",
            _curve(angle=lambda u, s: u / (1 + s) * math.pi / 2),
            "The offset only divides in yours. It is also added to t / T.",
        ),
        Mistake(
            "noise",
            lambda T, s: 1 - _alpha_bar_curve(T, s),
            "That is 1 minus the curve, the share of the noise. alpha_bar is what is left of the "
            "picture.",
        ),
        Mistake(
            "cut already",
            lambda T, s: cosine_schedule(T, s).alpha_bar,
            "You cut the betas already. Here only the curve itself is asked for; it ends at 0.",
        ),
        Mistake(
            "betas already",
            lambda T, s: 1 - (f := _alpha_bar_curve(T, s))[1:] / f[:-1],
            "These are betas. That is the next exercise; here return the curve, T + 1 entries.",
        ),
    ),
    alternatives=(
        _curve_by_loop,
        _curve_by_double_angle,
        lambda T, s: _alpha_bar_curve(T, s).float(),
    ),
    passed="It falls from exactly 1 to practically 0.",
)

# cut_betas(alpha_bar, max_beta): the betas of a curve, cut where they come too near to 1.


def _cut_betas(alpha_bar, max_beta):
    beta = 1 - alpha_bar[1:] / alpha_bar[:-1]
    return beta.clamp(max=max_beta)


def _beta_cases(generator: torch.Generator):
    for kept in ((0.9, 0.6, 0.3), (0.5,), (0.99, 0.8, 0.7, 0.4, 0.2)):
        wobble = 0.98 + 0.02 * torch.rand(len(kept), generator=generator, dtype=torch.float64)
        inside = torch.tensor(kept, dtype=torch.float64) * wobble
        ends = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        yield torch.cat([ends[0], inside, ends[1]]), 0.6 + 0.3 * float(wobble[0] - 0.98) * 50
    yield _alpha_bar_curve(1000, 0.008), 0.999
    yield _alpha_bar_curve(20, 0.008), 0.5
    yield linear_schedule(1000).alpha_bar, 0.015
    yield torch.ones(2, dtype=torch.float64).cumsum(0).flip(0) - 1, 0.9  # one step, to 0


def _each_beta(answer, alpha_bar, max_beta):
    expected = _cut_betas(alpha_bar, max_beta)
    result = answer(alpha_bar.clone(), max_beta)
    if not _fits(result, expected):
        return result
    values = tensor_like(result, expected).double()
    right = torch.isclose(values, expected, rtol=1e-5, atol=1e-6)
    cut = 1 - alpha_bar[1:] / alpha_bar[:-1] > max_beta
    if right.all() or not cut.any() or cut.all():
        return _entries(result, expected, "beta", 1e-5, 1e-6)
    i = int((~right).nonzero()[0])
    text = f"beta[{i}] should be {_digits(expected[i])}, yours is {_digits(values[i])}."
    if right[~cut].all():
        raise Wrong("values", f"Only what must be cut is wrong: {text}")
    if right[cut].all():
        raise Wrong("values", f"Where betas are cut yours are right, the others are not: {text}")
    return _entries(result, expected, "beta", 1e-5, 1e-6)


def _betas_by_loop(alpha_bar, max_beta):
    betas = []
    for before, after in zip(alpha_bar[:-1].tolist(), alpha_bar[1:].tolist(), strict=True):
        betas.append(min(max_beta, (before - after) / before))
    return betas


def _betas_in_place(alpha_bar, max_beta):
    beta = alpha_bar[1:].clone()
    beta /= alpha_bar[:-1]
    beta *= -1
    beta += 1
    beta[beta > max_beta] = max_beta
    return beta


def _betas_by_where(alpha_bar, max_beta):
    beta = 1 - alpha_bar[1:] / alpha_bar[:-1]
    return torch.where(beta > max_beta, torch.full_like(beta, max_beta), beta)


cut_betas = Exercise(
    "lesson07.cut_betas",
    "Betas, and the cut",
    difficulty=1,
    minutes=5,
    hints=(
        "`alpha_bar[1:]` is the curve at t = 1..T, `alpha_bar[:-1]` the one a step before.",
        "The share that step t keeps is the later one divided by the earlier one. beta is what it "
        "does not keep.",
        "`x.clamp(max=...)` replaces what is above the limit by the limit.",
    ),
    model_answer=_cut_betas,
    cases=_beta_cases,
    use=_each_beta,
    reference=_cut_betas,
    mistakes=(
        Mistake(
            "not cut",
            lambda a, m: 1 - a[1:] / a[:-1],
            "Your last beta is 1: alpha_bar then becomes 0, and dividing by it later gives NaN. "
            "Cut the betas at max_beta.",
        ),
        Mistake(
            "cut from below",
            lambda a, m: (1 - a[1:] / a[:-1]).clamp(min=m),
            "All your betas are at least max_beta. It is the largest value allowed, not the "
            "smallest.",
        ),
        Mistake(
            "alphas",
            lambda a, m: (a[1:] / a[:-1]).clamp(max=m),
            "These are alphas, what a step keeps. beta is 1 minus that.",
        ),
        Mistake(
            "cut always at 0.999",
            lambda a, m: (1 - a[1:] / a[:-1]).clamp(max=0.999),
            "You cut at 0.999, whatever max_beta is. Use the argument.",
        ),
        Mistake(
            "alphas cut",
            lambda a, m: 1 - (a[1:] / a[:-1]).clamp(max=m),
            "You cut the alphas, before they are taken from 1, so the small betas are changed and "
            "the large ones are not. Cut last.",
        ),
        Mistake(
            "left out",
            lambda a, m: (b := 1 - a[1:] / a[:-1])[b < m],
            "Betas above max_beta are missing in your answer. Cutting means that they become "
            "max_beta; there are T betas still.",
        ),
        Mistake(
            "ratio upside down",
            lambda a, m: (1 - a[:-1] / a[1:]).clamp(max=m),
            "Your ratio is upside down: the later alpha_bar, the smaller one, belongs on top.",
        ),
        Mistake(
            "difference",
            lambda a, m: (a[:-1] - a[1:]).clamp(max=m),
            "You subtract neighbors. A step loses a share of what is still there: divide them.",
        ),
        Mistake(
            "from the clean data",
            lambda a, m: (1 - a[1:]).clamp(max=m),
            "1 - alpha_bar is what all steps together have lost. One step's beta needs the "
            "neighbor before it.",
        ),
        Mistake(
            "one step off",
            lambda a, m: torch.cat([torch.zeros(1), (1 - a[1:-1] / a[:-2]).clamp(max=m)]),
            "Your betas are one step late: a 0 in front, the last one lost. There are T betas, "
            "the first for the step from t = 0 to t = 1.",
        ),
        Mistake(
            "one too many",
            lambda a, m: torch.cat([torch.zeros(1), (1 - a[1:] / a[:-1]).clamp(max=m)]),
            "You have T + 1 betas. There are T, one for each step; t = 0 has none.",
        ),
        Mistake(
            "rates",
            lambda a, m: (1 - (a[1:] / a[:-1]).sqrt()).clamp(max=m),
            "You took a root: the ratio of signal rates. Betas are shares of variance, no root.",
        ),
        Mistake(
            "limits of your own",
            lambda a, m: torch.clip(1 - a[1:] / a[:-1], 0.0001, 0.9999),
            "You cut at 0.0001 and 0.9999. The limit is max_beta, and small betas stay: with 1000 "
            "steps the first ones are 0.00004.",
        ),
        Mistake(
            "cut from both sides",
            lambda a, m: torch.clip(1 - a[1:] / a[:-1], 0.0001, m),
            "You also lift small betas to 0.0001. They stay as they are; only max_beta cuts.",
        ),
        Mistake(
            "cut always at 0.9999",
            lambda a, m: (1 - a[1:] / a[:-1]).clamp(max=0.9999),
            "You cut at 0.9999, whatever you are given. The argument max_beta is the limit.",
        ),
        Mistake(
            "sign",
            lambda a, m: (a[1:] / a[:-1] - 1).clamp(max=m),
            "Your betas have the wrong sign: it is 1 minus the ratio.",
        ),
        Mistake(
            "product",
            lambda a, m: (1 - a[1:] * a[:-1]).clamp(max=m),
            "You multiply neighbors. What a step keeps is the later one divided by the earlier.",
        ),
        Mistake(
            "logarithm",
            lambda a, m: -(a[1:] / a[:-1]).log().clamp(min=-m),
            "You take the logarithm of the ratio. That is nearly beta where beta is small, and too "
            "much where it is not: 1 minus the ratio.",
        ),
        Mistake(
            "first step missing",
            lambda a, m: (1 - a[2:] / a[1:-1]).clamp(max=m),
            "You have T - 1 betas. The first is that of the step from t = 0 to t = 1: start at "
            "alpha_bar[0].",
        ),
        Mistake(
            "alpha_bar cut instead",
            lambda a, m: 1 - a.clamp(min=1 - m)[1:] / a.clamp(min=1 - m)[:-1],
            "You cut alpha_bar. It is the betas that are cut: one step must not lose more than "
            "max_beta of what is left.",
        ),
    ),
    alternatives=(
        _betas_by_loop,
        _betas_in_place,
        lambda a, m: torch.minimum(1 - a.float()[1:] / a.float()[:-1], torch.tensor(m)),
        lambda a, m: np.minimum(-np.diff(a.numpy()) / a.numpy()[:-1], m),
        _betas_by_where,
        lambda a, m: (1 - a / a.roll(1))[1:].clip(0, m),
    ),
)

# my_cosine(num_steps, offset, max_beta): alpha_bar, (T + 1,), after the cut.


def _my_cosine(num_steps, offset, max_beta):
    t = torch.arange(num_steps + 1, dtype=torch.float64)
    f = torch.cos((t / num_steps + offset) / (1 + offset) * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(max=max_beta)
    return torch.cat([torch.ones(1), (1 - beta).cumprod(0)])


def _cosine_cases(generator: torch.Generator):
    for num_steps in (5, 1, 2, 20, 50, 1000):
        yield num_steps, 0.008, 0.999
    for num_steps in (3, 17, 400):
        share = torch.rand(2, generator=generator).tolist()
        yield num_steps, 0.005 + 0.05 * share[0], 0.6 + 0.3 * share[1]


def _cosine_with(
    *,
    angle=lambda t, T, s: (t / T + s) / (1 + s) * math.pi / 2,
    power=2,
    cut=lambda beta, m: beta.clamp(max=m),
    loss=lambda f: 1 - f[1:] / f[:-1],
    build=lambda beta: torch.cat([torch.ones(1), (1 - beta).cumprod(0)]),
):
    """The cosine schedule with something changed."""

    def cosine(num_steps, offset, max_beta):
        t = torch.arange(num_steps + 1, dtype=torch.float64)
        f = torch.cos(angle(t, num_steps, offset)) ** power
        return build(cut(loss(f), max_beta))

    return cosine


def _closed_form(num_steps, offset, max_beta):
    return _alpha_bar_curve(num_steps, offset)


def _cosine_not_divided(num_steps, offset, max_beta):
    f = _curve(divide=False)(num_steps, offset)
    beta = (1 - f[1:] / f[:-1]).clamp(max=max_beta)
    return torch.cat([f[:1], f[0] * (1 - beta).cumprod(0)])


def _cosine_thousand(num_steps, offset, max_beta):
    t = torch.arange(num_steps + 1, dtype=torch.float64)
    f = torch.cos((t / 1000 + offset) / (1 + offset) * math.pi / 2) ** 2
    return torch.cat([torch.ones(1), (1 - (1 - f[1:] / f[:-1]).clamp(max=max_beta)).cumprod(0)])


def _cosine_by_loop(num_steps, offset, max_beta):
    def f(t):
        return math.cos((t / num_steps + offset) / (1 + offset) * math.pi / 2) ** 2

    alpha_bar = [1.0]
    for t in range(1, num_steps + 1):
        alpha_bar.append(alpha_bar[-1] * (1 - min(max_beta, 1 - f(t) / f(t - 1))))
    return alpha_bar


def _cosine_in_logs(num_steps, offset, max_beta):
    place = (np.arange(num_steps + 1) / num_steps + offset) / (1 + offset)
    f = np.cos(place * np.pi / 2) ** 2
    kept = np.maximum(f[1:] / f[:-1], 1 - max_beta)
    return np.exp(np.concatenate([[0.0], np.cumsum(np.log(kept))]))


_UNCUT = 1e-13  # rounding leaves 1e-33 (float64) or 1e-15 (float32) where a cut leaves 1e-9
_NEVER_CUT = (
    "Your curve goes down to 0, or to what rounding leaves of it. Cut the betas at max_beta and "
    "build alpha_bar from the cut ones: x_T must keep a trace of x_0."
)


def _each_share(answer, num_steps, offset, max_beta):
    """The expected alpha_bar, if each entry of the answer is within 0.01 % of its own.

    As shares they shrink to 1e-9, so 0.01 % more is allowed for each factor e.
    """
    expected = _my_cosine(num_steps, offset, max_beta)
    result = answer(num_steps, offset, max_beta)
    if not _fits(result, expected):
        return result
    values = tensor_like(result, expected).double()
    off = values / expected - 1
    if (off.abs() <= 1e-4 * (1 - expected.log())).all():
        return expected
    if not (values[:-1] > _UNCUT).all() or values[-1] < -_UNCUT:
        bad = int((~(values > _UNCUT)).nonzero()[0])
        text = f"Your alpha_bar[{bad}] is {values[bad]:.3g}. A share of the picture is above 0"
        raise Wrong("values", f"{text}: only the last entry may come close.")
    if values[-1] < _UNCUT:
        raise Wrong("values", _NEVER_CUT, "never cut")
    if abs(float(values[0]) - 1) > 1e-6:
        text = f"alpha_bar[0] should be exactly 1, yours is {_digits(values[0])}: clean data."
        raise Wrong("values", text)
    lost, given = (1 - x[1:] / x[:-1] for x in (expected, values))
    wrong = ~torch.isclose(given, lost, rtol=1e-3, atol=1e-6)
    if not wrong.any():
        return _entries(result, expected, "alpha_bar", 1e-4, 0.0)
    t = int(wrong.nonzero()[0]) + 1
    text = (
        f"alpha_bar[{t}] should be {_digits(expected[t])}, yours is {_digits(values[t])}: step {t} "
        f"loses the share {_digits(given[t - 1])} instead of {_digits(lost[t - 1])}."
    )
    is_cut = lost >= 0.999 * max_beta
    if not wrong[~is_cut].any():
        text = f"All is right but the steps whose beta is cut: {text}"
    elif not wrong[is_cut].any():
        text += " The cut is right."
    if t > 1:
        text += " What comes before is right."
    raise Wrong("values", text)


cosine = Exercise(
    "lesson07.cosine",
    "The cosine schedule",
    difficulty=3,
    minutes=10,
    hints=(
        "Three moves: the curve f, its betas, cut, and from the cut betas alpha_bar again.",
        "The betas come from ratios of neighbors, f[1:] / f[:-1]. In a ratio f(0) cancels, so the "
        "division by it may be left out here. The cut may not.",
        "`(1 - beta).cumprod(0)` gives t = 1..T; `torch.cat` puts a 1 in front for t = 0.",
    ),
    model_answer=_my_cosine,
    cases=_cosine_cases,
    use=_each_share,
    reference=_my_cosine,
    mistakes=(
        Mistake(
            "never cut",
            _closed_form,
            _NEVER_CUT,
        ),
        Mistake(
            "alpha_bar cut instead",
            lambda T, s, m: _alpha_bar_curve(T, s).clamp(min=1 - m),
            "You cut alpha_bar from below, so the curve ends flat. It is the betas that are cut: "
            "one step loses max_beta of what is left, at most.",
        ),
        Mistake(
            "no division by f(0)",
            _cosine_not_divided,
            "Your alpha_bar starts at f(0), below 1. Divide by f(0): at t = 0 data are clean.",
        ),
        Mistake(
            "offset missing",
            _cosine_with(angle=lambda t, T, s: t / T * math.pi / 2),
            "The offset is missing, so your first steps add far less noise. Add it to t / T, and "
            "divide by 1 + offset.",
        ),
        Mistake(
            "offset not divided away",
            _cosine_with(angle=lambda t, T, s: (t / T + s) * math.pi / 2),
            "1 + offset does not divide in yours: the angle runs past the quarter turn, and the "
            "cosine comes back up.",
        ),
        Mistake(
            "square missing",
            _cosine_with(power=1),
            "The square is missing: the cosine is the signal rate; alpha_bar is its square.",
        ),
        Mistake(
            "always a thousand",
            _cosine_thousand,
            "You divide t by 1000 whatever T is. It is the share of the way, t / num_steps.",
        ),
        Mistake(
            "stations, not steps",
            _cosine_with(angle=lambda t, T, s: (t / (T + 1) + s) / (1 + s) * math.pi / 2),
            "You divide by T + 1, the number of entries of alpha_bar. There are T steps: t / T.",
        ),
        Mistake(
            "offset in steps",
            _cosine_with(angle=lambda t, T, s: (t + s) / (T + s) * math.pi / 2),
            "Your offset is a part of one step. It is a share of the whole way: add it to t / T.",
        ),
        Mistake(
            "betas multiplied",
            _cosine_with(build=lambda beta: torch.cat([torch.ones(1), beta.cumprod(0)])),
            "You multiply the betas, what each step loses. What is left is the product of what "
            "each step keeps, 1 - beta.",
        ),
        Mistake(
            "curve for steps",
            lambda T, s, m: torch.cat(
                [torch.ones(1), _cosine_with(build=lambda b: 1 - b)(T, s, m)]
            ),
            "These are the alphas of single steps. Multiply them: `cumprod`.",
        ),
        Mistake(
            "no entry for t = 0",
            _cosine_with(build=lambda beta: (1 - beta).cumprod(0)),
            "alpha_bar[0] = 1 is missing: there should be T + 1 entries.",
        ),
        Mistake(
            "one step off",
            _cosine_with(build=lambda b: torch.cat([torch.ones(2), (1 - b).cumprod(0)[:-1]])),
            "Your alpha_bar is one step late: alpha_bar[1] is still 1.",
        ),
        Mistake(
            "betas of the difference",
            _cosine_with(loss=lambda f: f[:-1] - f[1:]),
            "Your betas are differences of neighbors. A step loses a *share* of what is left: "
            "1 minus the ratio.",
        ),
        Mistake(
            "betas as arguments",
            _cosine_with(build=lambda beta: beta),
            "These are the betas, T of them. Return alpha_bar, which has T + 1 entries and "
            "starts at 1.",
        ),
        Mistake(
            "cut always at 0.999",
            _cosine_with(cut=lambda beta, m: beta.clamp(max=0.999)),
            "You cut at 0.999 whatever max_beta says. Use the argument.",
        ),
        Mistake(
            "signal rate",
            lambda T, s, m: _my_cosine(T, s, m).sqrt(),
            "That is the signal rate, the root of alpha_bar. Leave out the root at the end.",
        ),
        Mistake(
            "limits of your own",
            _cosine_with(cut=lambda beta, m: beta.clip(0.0001, 0.9999)),
            "You cut at 0.0001 and 0.9999. The limit is max_beta, and the small betas at the start "
            "stay as they are.",
        ),
        Mistake(
            "cut from both sides",
            _cosine_with(cut=lambda beta, m: beta.clip(0.0001, m)),
            "You also lift small betas to 0.0001. With 1000 steps the first ones are 0.00004: let "
            "them be.",
        ),
        Mistake(
            "cut always at 0.9999",
            _cosine_with(cut=lambda beta, m: beta.clamp(max=0.9999)),
            "You cut at 0.9999 whatever max_beta says. The argument is the limit.",
        ),
        Mistake(
            "cut from below",
            _cosine_with(cut=lambda beta, m: beta.clamp(min=m)),
            "Your betas are all at least max_beta. It is the largest allowed: `clamp(max=...)`.",
        ),
        Mistake(
            "alphas cut",
            _cosine_with(cut=lambda beta, m: 1 - (1 - beta).clamp(max=m)),
            "You cut what a step keeps. Cut what it loses, beta.",
        ),
        Mistake(
            "0 in front",
            _cosine_with(build=lambda b: torch.cat([torch.zeros(1), (1 - b).cumprod(0)])),
            "Your alpha_bar[0] is 0. At t = 0 all of the picture is left: 1.",
        ),
        Mistake(
            "1 at the end",
            _cosine_with(build=lambda b: torch.cat([(1 - b).cumprod(0), torch.ones(1)])),
            "Your 1 stands at the end. It belongs in front: alpha_bar[0] is clean data.",
        ),
        Mistake(
            "summed",
            _cosine_with(build=lambda b: torch.cat([torch.ones(1), (1 - b).cumsum(0)])),
            "You add up what the steps keep. Shares of shares are multiplied: `cumprod`.",
        ),
        Mistake(
            "betas summed",
            _cosine_with(build=lambda b: torch.cat([torch.ones(1), 1 - b.cumsum(0)])),
            "You take away the betas one by one. Each is a share of what is left then, so what "
            "steps keep is multiplied.",
        ),
        Mistake(
            "degrees",
            _cosine_with(angle=lambda t, T, s: (t / T + s) / (1 + s) * 90),
            "Your angle is in degrees. torch counts in radians: a quarter turn is pi / 2.",
        ),
        Mistake(
            "half a turn",
            _cosine_with(angle=lambda t, T, s: (t / T + s) / (1 + s) * math.pi),
            "Your angle runs to pi, half a turn. The cosine is 0 after a quarter, pi / 2.",
        ),
        Mistake(
            "no pi",
            _cosine_with(angle=lambda t, T, s: (t / T + s) / (1 + s) / 2),
            "pi is missing: at t = T the angle should be pi / 2.",
        ),
        Mistake(
            "a quarter turn below",
            _cosine_with(angle=lambda t, T, s: (t / T + s) / ((1 + s) * math.pi / 2)),
            "You divide by pi / 2. Multiply: the share of the way, times a quarter turn.",
        ),
        Mistake(
            "brackets",
            _cosine_with(angle=lambda t, T, s: (t / T + s / (1 + s)) * math.pi / 2),
            "Only the offset is divided by 1 + offset in yours. Put the sum in parentheses.",
        ),
        Mistake(
            "T - 1",
            _cosine_with(angle=lambda t, T, s: (t / max(T - 1, 1) + s) / (1 + s) * math.pi / 2),
            "You divide t by T - 1. The share of the way is t / T.",
        ),
        Mistake(
            "one step behind",
            _cosine_with(angle=lambda t, T, s: ((t - 1) / T + s) / (1 + s) * math.pi / 2),
            "You put t - 1 for t into the curve. t = 0 is clean data, and the curve starts there.",
        ),
        Mistake(
            "alphas upside down",
            _cosine_with(loss=lambda f: 1 - f[:-1] / f[1:]),
            "Your ratio is upside down: the later f, the smaller one, belongs on top.",
        ),
        Mistake(
            "offset always 0.008",
            _cosine_with(angle=lambda t, T, s: (t / T + 0.008) / 1.008 * math.pi / 2),
            "Your offset is 0.008 whatever the argument says. Use `offset`.",
        ),
    ),
    alternatives=(
        _cosine_by_loop,
        _cosine_in_logs,
        lambda T, s, m: cosine_schedule(T, s, m).alpha_bar,
    ),
    why="Without the cut the last beta is 1 and alpha_bar[T] practically 0 (1e-33, by rounding).",
    passed="That is a schedule you can train with, for every T from 1 to 1000.",
)

# log_snr_share(alpha_bar, low, high): the share of the steps 1..T with low <= log SNR < high.


def _log_snr_share(alpha_bar, low, high):
    log_snr = (alpha_bar / (1 - alpha_bar)).log()[1:]
    inside = (log_snr >= low) & (log_snr < high)
    return inside.double().mean()


def _share_cases(generator: torch.Generator):
    for schedule, low, high in (
        (linear_schedule(100, 1e-3, 0.2), -3.0, 3.0),
        (cosine_schedule(40), -2.0, 7.0),
        (linear_schedule(37, 0.01, 0.3), -20.0, -1.0),
        (cosine_schedule(1), -9.0, 1.0),
        (linear_schedule(1000), -3.0, 3.0),
        (cosine_schedule(1000), -3.0, 3.0),
    ):
        shift = float(torch.rand((), generator=generator)) / 10
        yield schedule.alpha_bar, low + shift, high + shift
    for schedule in (linear_schedule(1000), cosine_schedule(1000)):
        log_snr = schedule.snr.log().tolist()
        for t in (1, 2, 40, 700, 999, 1000):  # a limit just below or above a step
            yield schedule.alpha_bar, log_snr[t] - 0.005, log_snr[t] + 3
            yield schedule.alpha_bar, log_snr[t] - 3, log_snr[t] + 0.005
    yield cosine_schedule(1000).alpha_bar, -25.0, -19.0
    yield linear_schedule(1000).alpha_bar, 9.5, 12.0  # no step at all
    halves = torch.tensor([1.0, 0.9, 0.5, 0.5, 0.2], dtype=torch.float64)  # log-SNR exactly 0
    yield halves, 0.0, 1.0
    yield halves, -3.0, 0.0


def _which_limit(answer, alpha_bar, low, high):
    """The expected share, if the answer is that."""

    def share(low, high):
        result = answer(alpha_bar.clone(), low, high)
        if isinstance(result, Tensor) and result.dtype in (torch.int64, torch.int32):
            return result.double()  # a count is wrong by its value, not by its type
        return result

    def right(value, low, high):
        expected = _log_snr_share(alpha_bar, low, high)
        return _fits(value, expected) and abs(float(value) - float(expected)) < 1e-5

    value = share(low, high)
    if not _fits(value, torch.zeros(())):
        return value
    value = float(value)
    if right(value, low, high):
        return _log_snr_share(alpha_bar, low, high)
    steps = len(alpha_bar) - 1
    inside = round(float(_log_snr_share(alpha_bar, low, high)) * steps)
    text = f"Of T = {steps} steps {inside} lie in the range; your {_digits(value)} would be "
    text += f"{_digits(value * steps)}."
    works = [right(share(*limits), *limits) for limits in ((low, 1e9), (-1e9, high))]
    if all(works):
        text += " Each limit works if it is alone; both together do not."
    elif any(works):
        names = ("`low`", "`high`") if works[0] else ("`high`", "`low`")
        text += f" The limit {names[0]} works, {names[1]} does not."
    elif right(share(-1e9, 1e9), -1e9, 1e9):
        text += " Without limits all steps count, as they should: look at what you compare."
    else:
        text += " Even without limits the share would not be 1: look at which steps you count."
    raise Wrong("values", text)


def _share_of(log_snr):
    """The share, with another quantity in place of the log-SNR of the steps."""

    def log_snr_share(alpha_bar, low, high):
        values = log_snr(alpha_bar)
        return ((values >= low) & (values < high)).double().mean()

    return log_snr_share


def _share_by_loop(alpha_bar, low, high):
    count = 0
    for a in alpha_bar[1:].tolist():
        count += low <= math.log(a) - math.log(1 - a) < high
    return count / (len(alpha_bar) - 1)


log_snr_share = Exercise(
    "lesson07.log_snr_share",
    "Where the steps are spent",
    difficulty=1,
    minutes=5,
    hints=(
        "SNR is alpha_bar / (1 - alpha_bar); `.log()` is the natural logarithm. Leave out t = 0.",
        "`(x >= low) & (x < high)` is True where x lies in the range.",
        "The share of True entries is their mean: `inside.double().mean()`.",
    ),
    model_answer=_log_snr_share,
    cases=_share_cases,
    use=_which_limit,
    reference=_log_snr_share,
    mistakes=(
        Mistake(
            "t = 0 counted",
            _share_of(lambda a: (a / (1 - a)).log()),
            "You count t = 0 among the steps, or divide by T + 1. Clean data is no step: there are "
            "T.",
        ),
        Mistake(
            "no logarithm",
            _share_of(lambda a: (a / (1 - a))[1:]),
            "low and high are limits for the logarithm of the SNR; you compare the SNR itself.",
        ),
        Mistake(
            "low left out",
            lambda a, low, high: (
                (((x := (a / (1 - a)).log()[1:]) > low) & (x < high)).double().mean()
            ),
            "A step that lies exactly at `low` counts: at least low means >=.",
        ),
        Mistake(
            "high let in",
            lambda a, low, high: (
                (((x := (a / (1 - a)).log()[1:]) >= low) & (x <= high)).double().mean()
            ),
            "A step that lies exactly at `high` does not count: below high means <.",
        ),
        Mistake(
            "last step left out",
            _share_of(lambda a: (a / (1 - a)).log()[:-1]),
            "You take the steps 0 to T - 1. Here they count from 1 to T: leave out the first entry "
            "of alpha_bar, not the last.",
        ),
        Mistake(
            "only low",
            lambda a, low, high: ((a / (1 - a)).log()[1:] >= low).double().mean(),
            "You compare with `low` only. The steps must lie below `high`, too.",
        ),
        Mistake(
            "only high",
            lambda a, low, high: ((a / (1 - a)).log()[1:] < high).double().mean(),
            "You compare with `high` only. The steps must be at least `low`, too.",
        ),
        Mistake(
            "never divided by 0",
            _share_of(lambda a: (a / (1 - a) + 1e-8).log()[1:]),
            "You add a small number before the logarithm. That moves the noisiest steps, and "
            "there is nothing to protect from t = 1 on.",
        ),
        Mistake(
            "noise alone",
            _share_of(lambda a: (1 - a).log()[1:]),
            "That is the logarithm of the noise's variance. SNR is alpha_bar / (1 - alpha_bar).",
        ),
        Mistake(
            "nothing found",
            lambda a, low, high: 0.0,
            "Your share is 0, whatever the limits are: no step is found. Which limit goes with >=, "
            "which with <? And is 1 - alpha_bar in parentheses?",
        ),
        Mistake(
            "product",
            _share_of(lambda a: (a * (1 - a)).log()[1:]),
            "You multiply signal and noise. The SNR divides the one by the other.",
        ),
        Mistake(
            "either side",
            lambda a, low, high: (
                (((x := (a / (1 - a)).log()[1:]) >= low) | (x < high)).double().mean()
            ),
            "`|` is or, and every number is above low or below high. Both must hold: `&`.",
        ),
        Mistake(
            "percent",
            lambda a, low, high: 100 * _log_snr_share(a, low, high),
            "Your share is in percent. It is a number in 0..1.",
        ),
        Mistake(
            "powers of two",
            _share_of(lambda a: (a / (1 - a)).log2()[1:]),
            "That is the logarithm to base 2. The natural one is `.log()`.",
        ),
        Mistake(
            "powers of ten",
            _share_of(lambda a: (a / (1 - a)).log10()[1:]),
            "You took the logarithm to base 10. It is the natural one here, `.log()`.",
        ),
        Mistake(
            "rates, not variances",
            _share_of(lambda a: (a / (1 - a)).sqrt().log()[1:]),
            "You divide the rates; that is the root of the SNR. The SNR divides variances.",
        ),
        Mistake(
            "alpha_bar alone",
            _share_of(lambda a: a.log()[1:]),
            "That is the logarithm of alpha_bar. The SNR is alpha_bar / (1 - alpha_bar).",
        ),
        Mistake(
            "upside down",
            _share_of(lambda a: ((1 - a) / a).log()[1:]),
            "Your ratio is noise to signal, and its logarithm has the wrong sign.",
        ),
        Mistake(
            "a count",
            lambda a, low, high: _log_snr_share(a, low, high) * (len(a) - 1),
            "You count the steps. Divide by T: the share is a number in 0..1.",
        ),
        Mistake(
            "outside",
            lambda a, low, high: 1 - _log_snr_share(a, low, high),
            "That is the share of the steps outside the range.",
        ),
        Mistake(
            "only below",
            _share_of(lambda a: torch.where((a / (1 - a)).log() < 0, 0.0, 99.0)[1:]),
            "You look at the sign alone. Compare with low and with high.",
        ),
    ),
    alternatives=(
        _share_by_loop,
        lambda a, low, high: np.mean(
            [low <= x < high for x in torch.special.logit(a[1:]).tolist()]
        ),
        lambda a, low, high: (
            ((a[1:] >= 1 / (1 + math.exp(-low))) & (a[1:] < 1 / (1 + math.exp(-high)))).sum()
            / len(a[1:])
        ),
    ),
)

# frechet_diagonal(a, b): (N, D) and (M, D) features; each feature's own Gaussian, summed.


def _frechet_diagonal(a, b):
    means = (a.mean(0) - b.mean(0)) ** 2
    spreads = (a.std(0) - b.std(0)) ** 2
    return (means + spreads).sum()


def _feature_cases(generator: torch.Generator):
    for count, other, width in ((5, 7, 3), (4, 4, 4), (2, 9, 1), (30, 20, 5)):
        a = torch.randn(count, width, generator=generator) * 2 + 1
        yield a, torch.randn(other, width, generator=generator)
    a = torch.randn(6, 3, generator=generator)
    yield a, a.flip(0).clone()  # the same distribution: distance 0
    yield a, 1.01 * a + 0.05
    yield a.double(), torch.randn(8, 3, generator=generator, dtype=torch.float64)


def _which_part(answer, a, b):
    """The expected distance, if the answer is that."""

    def distance(a, b):
        return answer(a.clone(), b.clone())

    def right(value, a, b):
        expected = float(_frechet_diagonal(a, b))
        fits = _fits(value, torch.zeros(()))
        return fits and math.isclose(float(value), expected, rel_tol=1e-4, abs_tol=1e-5)

    value = distance(a, b)
    if not _fits(value, torch.zeros(())):
        return value
    if right(value, a, b):
        return _frechet_diagonal(a, b)
    text = f"The distance should be {_digits(_frechet_diagonal(a, b))}, yours is {_digits(value)}."
    as_wide = (b - b.mean(0)) / b.std(0) * a.std(0) + b.mean(0)  # only the means differ
    as_placed = b - b.mean(0) + a.mean(0)  # only the spreads differ
    means, spreads = (right(distance(a, x), a, x) for x in (as_wide, as_placed))
    if means and spreads:
        text += " Each part is right when it is alone, but not both together."
    elif means:
        text += " Where only the means differ yours is right; look at the standard deviations."
    elif spreads:
        text += " Where only the spreads differ yours is right; look at the means."
    elif right(distance(a, a), a, a):
        text += " Two equal sets have distance 0, as they should; neither the means' part nor the "
        text += "spreads' part is right."
    else:
        text += f" From a set to itself it should be 0, yours is {_digits(distance(a, a))}."
    raise Wrong("values", text)


def _frechet_by_loop(a, b):
    total = 0.0
    for x, y in zip(a.double().T, b.double().T, strict=True):
        variances = float(x.var() + y.var() - 2 * (x.var() * y.var()).sqrt())
        total += float(x.mean() - y.mean()) ** 2 + variances
    return total


def _frechet_numpy(a, b):
    a, b = a.double().numpy(), b.double().numpy()
    gap = np.stack([a.mean(0) - b.mean(0), a.std(0, ddof=1) - b.std(0, ddof=1)])
    return np.sum(gap**2)


frechet_diagonal = Exercise(
    "lesson07.frechet_diagonal",
    "A distance between two sets",
    difficulty=2,
    minutes=6,
    hints=(
        "Column by column: mean and standard deviation of `a`, the same of `b`.",
        "`x.mean(0)` and `x.std(0)` work along the samples and leave one number for each feature.",
        "Square both differences, add them, and sum over the features.",
    ),
    model_answer=_frechet_diagonal,
    cases=_feature_cases,
    use=_which_part,
    reference=_frechet_diagonal,
    mistakes=(
        Mistake(
            "variances subtracted",
            lambda a, b: ((a.mean(0) - b.mean(0)) ** 2 + (a.var(0) - b.var(0)) ** 2).sum(),
            "You square the difference of the variances. It is the difference of the standard "
            "deviations.",
        ),
        Mistake(
            "means only",
            lambda a, b: ((a.mean(0) - b.mean(0)) ** 2).sum(),
            "Only the means count in yours: a model that draws the mean picture, again and again, "
            "would be perfect.",
        ),
        Mistake(
            "spreads only",
            lambda a, b: ((a.std(0) - b.std(0)) ** 2).sum(),
            "Only the spreads count in yours. Where the two sets lie matters too: add the means' "
            "part.",
        ),
        Mistake(
            "not squared",
            lambda a, b: ((a.mean(0) - b.mean(0)).abs() + (a.std(0) - b.std(0)).abs()).sum(),
            "You add absolute differences. The Fréchet distance, as it is reported, adds squares.",
        ),
        Mistake(
            "root of it",
            lambda a, b: _frechet_diagonal(a, b).sqrt(),
            "You took the root at the end. What everybody reports is the square, without a root.",
        ),
        Mistake(
            "averaged over features",
            lambda a, b: _frechet_diagonal(a, b) / a.shape[1],
            "You average over the features. They are summed.",
        ),
        Mistake(
            "one number a feature",
            lambda a, b: (a.mean(0) - b.mean(0)) ** 2 + (a.std(0) - b.std(0)) ** 2,
            "You return one number for each feature. Sum them up.",
        ),
        Mistake(
            "all features as one",
            lambda a, b: (a.mean() - b.mean()) ** 2 + (a.std() - b.std()) ** 2,
            "You pool all features. Each has its own mean: use `mean(0)`, `std(0)`.",
        ),
        Mistake(
            "spreads added",
            lambda a, b: ((a.mean(0) - b.mean(0)) ** 2 + (a.std(0) + b.std(0)) ** 2).sum(),
            "You add the two standard deviations. It is their difference that is squared.",
        ),
        Mistake(
            "along the features",
            lambda a, b: ((a.mean(1) - b.mean(1)) ** 2 + (a.std(1) - b.std(1)) ** 2).sum(),
            "You take mean and standard deviation of each sample over its features. They belong to "
            "a feature, over the samples: axis 0.",
        ),
        Mistake(
            "sample by sample",
            lambda a, b: ((a - b) ** 2).sum(),
            "You compare samples one by one. The sets have different sizes, and no sample has a "
            "partner: compare means and spreads.",
        ),
        Mistake(
            "features together",
            frechet_distance,
            "That is the full Fréchet distance, which also sees correlations. Here each feature "
            "counts on its own.",
        ),
        Mistake(
            "divided by N",
            lambda a, b: (
                (a.mean(0) - b.mean(0)) ** 2
                + (a.std(0, correction=0) - b.std(0, correction=0)) ** 2
            ).sum(),
            "Your standard deviations divide by N. Estimated from N samples they divide by N - 1, "
            "as `x.std(0)` does (NumPy's needs `ddof=1`).",
        ),
        Mistake(
            "spreads as variances",
            lambda a, b: ((a.mean(0) - b.mean(0)) ** 2 + (a.var(0) - b.var(0)).abs()).sum(),
            "You add the distance of the variances. Take standard deviations, and square their "
            "difference.",
        ),
        Mistake(
            "spreads not squared",
            lambda a, b: ((a.mean(0) - b.mean(0)) ** 2 + (a.std(0) - b.std(0))).sum(),
            "The difference of the standard deviations is not squared in yours.",
        ),
        Mistake(
            "means not squared",
            lambda a, b: ((a.mean(0) - b.mean(0)) + (a.std(0) - b.std(0)) ** 2).sum(),
            "The difference of the means is not squared in yours.",
        ),
        Mistake(
            "means subtracted from spreads",
            lambda a, b: ((a.mean(0) - b.mean(0)) ** 2 - (a.std(0) - b.std(0)) ** 2).sum(),
            "You subtract the spreads' part. Both parts add up.",
        ),
        Mistake(
            "squared at the end",
            lambda a, b: (((a.mean(0) - b.mean(0)) + (a.std(0) - b.std(0))) ** 2).sum(),
            "You square the sum of the two differences. Square each, then add.",
        ),
        Mistake(
            "summed, then squared",
            lambda a, b: (a.mean(0) - b.mean(0)).sum() ** 2 + (a.std(0) - b.std(0)).sum() ** 2,
            "You sum over the features before you square. Square each difference first.",
        ),
        Mistake(
            "variances summed, no overlap",
            lambda a, b: ((a.mean(0) - b.mean(0)) ** 2 + a.var(0) + b.var(0)).sum(),
            "The overlap is missing: s_a^2 + s_b^2 - 2 s_a s_b. As it is, two equal sets are far "
            "apart.",
        ),
    ),
    alternatives=(
        _frechet_by_loop,
        _frechet_numpy,
        lambda a, b: torch.dist(a.mean(0), b.mean(0)) ** 2 + torch.dist(a.std(0), b.std(0)) ** 2,
    ),
)

# one_floor(distance, real, count, generator): count of the real features against all the others.


def _one_floor(distance, real, count, generator):
    order = torch.randperm(len(real), generator=generator)
    return distance(real[order[:count]], real[order[count:]])


class _Distance:
    """Stands for a distance of two sets; remembers which rows it was shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[Tensor, Tensor]] = []

    def __call__(self, *sets: Tensor, **named: Tensor) -> float:
        sets = (*sets, *(named[name] for name in sorted(named)))  # a and b, or features_a, ...
        if len(sets) != 2:
            raise Wrong("values", f"`distance` wants two sets of features, it got {len(sets)}.")
        a, b = (torch.as_tensor(x).double() for x in sets)
        if a.ndim != 2 or b.ndim != 2:
            raise Wrong("shape", "`distance` wants two sets of features, (N, D) and (M, D).")
        self.shown.append((a, b))
        return 0.25 + float(a[:, 0].mean()) - float(b[:, 0].mean())

    def __repr__(self) -> str:
        return "a test distance"


_FLOOR = {
    "not shuffled": "You cut without shuffling. The data may be sorted, all zeros first: then the "
    "two parts really differ.",
    "overlap": "Some images are in both parts, which makes them look closer than they are. Shuffle "
    "once, then cut.",
    "drawn with repeats": "An image occurs twice in one part. `torch.randperm` draws each index "
    "once, `torch.randint` does not.",
    "wrong sizes": "The first part must have `count` rows and the second all the others: the floor "
    "depends on these numbers.",
    "generator ignored": "Your shuffle does not depend on `generator`. Pass it on: "
    "`torch.randperm(n, generator=generator)`.",
    "always the same": "Two calls with one generator shuffle alike. Do not seed it yourself: let "
    "its state go on.",
    "two shuffles": "You ask `distance` more than once, or never. One shuffle, one number.",
}


def _judge_floor(answer, distance, real, count, generator):
    """0 if the answer splits ``real`` as it should, twice; raises Wrong where it does not."""
    state = generator.get_state()
    orders = []
    for rerun in (False, False, True):
        if rerun:
            generator.set_state(state)
        distance = _Distance()
        result = answer(distance, real.clone(), count, generator)
        if result is None or result is ...:
            return result
        if len(distance.shown) != 1:
            raise Wrong("values", _FLOOR["two shuffles"], "two shuffles")
        a, b = shown = distance.shown[0]
        if len(a) != count and len(b) == count:  # a distance has no direction
            a, b = b, a
        if len(a) != count or len(b) != len(real) - count:
            raise Wrong("values", _FLOOR["wrong sizes"], "wrong sizes")
        first, second = a[:, 1].long().tolist(), b[:, 1].long().tolist()
        if len(set(first)) < len(first) or len(set(second)) < len(second):
            raise Wrong("values", _FLOOR["drawn with repeats"], "drawn with repeats")
        if set(first) & set(second):
            raise Wrong("values", _FLOOR["overlap"], "overlap")
        if max(first) - min(first) < count:  # neighbors in the data, all of them
            raise Wrong("values", _FLOOR["not shuffled"], "not shuffled")
        expected = distance(*shown)
        if not isinstance(result, int | float | Tensor | np.generic | np.ndarray) or (
            np.size(np.asarray(result)) != 1 or abs(float(result) - expected) > 1e-5
        ):
            raise Wrong("values", "Return what `distance` says, one number, as it is.")
        orders.append(first)
    if orders[0] != orders[2]:
        raise Wrong("values", _FLOOR["generator ignored"], "generator ignored")
    if orders[0] == orders[1]:
        raise Wrong("values", _FLOOR["always the same"], "always the same")
    return torch.zeros(())


def _floor_cases(generator: torch.Generator):
    for total, count in ((60, 20), (40, 30), (50, 25)):
        real = torch.stack([torch.arange(total) // 10, torch.arange(total)], 1).float()
        yield _Distance(), real, count, torch.Generator().manual_seed(total)


def _same_seed(distance, real, count, generator):
    return _one_floor(distance, real, count, torch.Generator().manual_seed(0))


def _two_permutations(distance, real, count, generator):
    first = torch.randperm(len(real), generator=generator)[:count]
    second = torch.randperm(len(real), generator=generator)[count:]
    return distance(real[first], real[second])


def _with_repeats(distance, real, count, generator):
    index = torch.randint(len(real), (len(real),), generator=generator)
    return distance(real[index[:count]], real[index[count:]])


def _against_all(distance, real, count, generator):
    order = torch.randperm(len(real), generator=generator)
    return distance(real[order[:count]], real)


def _by_mask(distance, real, count, generator):
    keys = torch.rand(len(real), generator=generator)
    limit = keys.sort().values[count - 1]
    chosen = keys <= limit
    return torch.tensor(distance(real[chosen], real[~chosen]))


def _shuffle_rows(distance, real, count, generator):
    rows = [real[i] for i in torch.randperm(len(real), generator=generator).tolist()]
    return distance(torch.stack(rows[:count]), torch.stack(rows[count:]))


def _other_way_round(distance, real, count, generator):
    order = torch.randperm(len(real), generator=generator)
    return distance(real[order[count:]], real[order[:count]])


def _by_names(distance, real, count, generator):
    order = torch.randperm(len(real), generator=generator)
    return distance(b=real[order[count:]], a=real[order[:count]])


one_floor = Exercise(
    "lesson07.one_floor",
    "Real against real",
    difficulty=2,
    minutes=6,
    hints=(
        "Shuffle the row numbers once. The first `count` of them are one part, the rest the other.",
        "`torch.randperm(n, generator=generator)` is 0..n-1 in random order; `real[order[:count]]` "
        "takes those rows.",
    ),
    model_answer=_one_floor,
    cases=_floor_cases,
    use=_judge_floor,
    reference=lambda *case: torch.zeros(()),
    mistakes=(
        Mistake(
            "not shuffled",
            lambda distance, real, count, generator: distance(real[:count], real[count:]),
            _FLOOR["not shuffled"],
        ),
        Mistake("overlap", _two_permutations, _FLOOR["overlap"]),
        Mistake("drawn with repeats", _with_repeats, _FLOOR["drawn with repeats"]),
        Mistake("wrong sizes", _against_all, _FLOOR["wrong sizes"]),
        Mistake(
            "generator ignored",
            lambda distance, real, count, generator: _one_floor(distance, real, count, None),
            _FLOOR["generator ignored"],
        ),
        Mistake("always the same", _same_seed, _FLOOR["always the same"]),
        Mistake(
            "two shuffles",
            lambda distance, real, count, generator: (
                (
                    _one_floor(distance, real, count, generator)
                    + _one_floor(distance, real, count, generator)
                )
                / 2
            ),
            _FLOOR["two shuffles"],
        ),
    ),
    alternatives=(_by_mask, _shuffle_rows, _other_way_round, _by_names),
    passed="Random, disjoint, and of the sizes that you will compare with.",
)

# Questions


def _wasted() -> float:
    alpha_bar = linear_schedule(1000).alpha_bar
    return float((alpha_bar[1:] < 0.01).double().mean())


wasted = Number(
    "lesson07.wasted",
    "Steps in the dark",
    difficulty=1,
    minutes=2,
    hints=(
        "`linear_schedule(1000).alpha_bar[1:] < 0.01` is True at the steps asked for.",
        "A share is a number in 0..1: `.double().mean()` of True and False.",
    ),
    value=_wasted,
    atol=0.002,
    mistakes=(
        Mistake("count", 327.0, "That is the number of such steps. Divide by T for the share."),
        Mistake("percent", 32.7, "That is in percent. The share is a number in 0..1."),
        Mistake("the others", 0.673, "That is the share of the steps where 1 % or more is left."),
        Mistake(
            "signal rate",
            lambda: float((linear_schedule(1000).signal_rate[1:] < 0.01).double().mean()),
            "You compare the signal rate. The question is about its square, alpha_bar.",
        ),
        Mistake(
            "the cosine's",
            lambda: float((cosine_schedule(1000).alpha_bar[1:] < 0.01).double().mean()),
            "That is the cosine schedule's share. The question is about the linear one.",
        ),
    ),
    why="From t = 674 on alpha_bar is below 0.01: 327 of 1000 steps.",
)

at_the_floor = Choice(
    "lesson07.at_the_floor",
    "A score at the floor",
    minutes=2,
    hints=("Think of a machine that hands out its training images, one after the other.",),
    right="c",
    options={
        "a": "It may be. But a machine that hands out its training images scores as well, and "
        "has drawn nothing.",
        "b": "It works as it should: the two sets look alike to it. The question is what it "
        "does not look at.",
        "c": "Right: the two sets look alike, to these features and with so many images. It "
        "cannot see copying, nor what the features ignore.",
        "d": "With more images the floor sinks, and small differences come to light that are "
        "hidden now.",
    },
)

fair = Choice(
    "lesson07.fair",
    "Which model is better?",
    minutes=2,
    hints=("How did the floor depend on the number of images?",),
    right="d",
    options={
        "a": "B's number is lower, but B was measured with ten times as many images, which "
        "lowers it by itself.",
        "b": "More images did lower B's number. Nobody has measured by how much: B may still be "
        "better.",
        "c": "There is no evidence for that: two numbers with unknown floors say neither "
        "'different' nor 'equal'.",
        "d": "Right: the bias falls like 1/N. Draw as many images from both, and put the floor "
        "for that number beside them.",
    },
)
