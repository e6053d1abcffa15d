"""Lesson 6: DDPM and DDIM, with a perfect denoiser and with the network that ships.

The perfect denoiser knows the lesson's two villages on a line. The network draws digits without
being told which; their features are compared with those of real test images. Contenders start
from the same noise.
"""

import statistics

import torch
from quality import features_of
from torch import Tensor

from measured.claim import Claim, Difference, Numbers, mean_and_error, paired
from tutorial_lib import hardware
from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.metrics import frechet_distance, kernel_distance
from tutorial_lib.metrics.digit_features import load_digit_reference
from tutorial_lib.oracles import GaussianMixtureOracle
from tutorial_lib.samplers import ddim, ddpm, evenly_spaced, last, respace
from tutorial_lib.sampling import Recipe
from tutorial_lib.schedules import linear_schedule

STD = 0.1
SEED, GROUP = 0, 50
ROWS = (("ddim", 50, 1000), ("ddpm", 50, 1000), ("ddpm", 1000, 1000))
"""Samplers, numbers of steps, and numbers of digits; ddpm takes the posterior variance."""
QUICK_ROWS = (("ddim", 2, 100), ("ddpm", 2, 100), ("ddpm", 3, 100))
QUICK_NAMES = {("ddim", 2): "ddim 50", ("ddpm", 2): "ddpm 50", ("ddpm", 3): "ddpm 1000"}


def villages() -> GaussianMixtureOracle:
    """A third of the data near -1, two thirds near +1."""
    means, weights = torch.tensor([[-1.0], [1.0]]), torch.tensor([1.0, 2.0])
    return GaussianMixtureOracle(linear_schedule(), means, torch.full((2,), STD**2), weights)


def start(seed: int, count: int) -> Tensor:
    """Where ``count`` walkers begin."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, generator=generator, dtype=torch.float64)


def walked(seed: int, count: int, steps: int, variance: str) -> Tensor:
    """Where ancestral sampling in ``steps`` steps ends, with a perfect denoiser."""
    guide = villages()
    shorter = respace(guide, guide.schedule, evenly_spaced(guide.schedule.num_steps, steps))
    generator = torch.Generator().manual_seed(1000 + seed)
    return last(ddpm(*shorter, start(seed, count), variance=variance, generator=generator))


def width(x: Tensor) -> float:
    """How wide the villages are in a sample, where 1 is right."""
    return float((x.abs() - 1).square().mean().sqrt()) / STD


def lost(x: Tensor) -> float:
    """The share of walkers more than four standard deviations from both villages."""
    return float(((x.abs() - 1).abs() > 4 * STD).double().mean())


# --- eta = 1 --------------------------------------------------------------------------------------


def eta_one(quick: bool) -> Numbers:
    """The same noise through DDIM with eta = 1 and through three kinds of DDPM, in float64."""
    seeds, count = ([0], 20) if quick else ([0, 1, 2, 3], 4000)
    guide = villages()
    schedule, T = guide.schedule, guide.schedule.num_steps
    few, every = evenly_spaced(T, 50), list(range(T, -1, -1))
    found: dict[str, list[float]] = {"same": [], "shortened": [], "beta": [], "beta_median": []}
    for seed in seeds:
        x_T = start(seed, count)

        def dice(seed: int = seed) -> torch.Generator:
            return torch.Generator().manual_seed(1000 + seed)

        ends = last(ddim(guide, schedule, x_T, every, eta=1.0, generator=dice()))
        in_fifty = last(ddim(guide, schedule, x_T, few, eta=1.0, generator=dice()))
        beta = (walked(seed, count, T, "beta") - ends).abs()
        found["same"].append(float((walked(seed, count, T, "posterior") - ends).abs().max()))
        found["shortened"].append(
            float((walked(seed, count, 50, "posterior") - in_fifty).abs().max())
        )
        found["beta"].append(float(beta.max()))
        found["beta_median"].append(float(beta.median()))
    return {"seeds": seeds, "count": count, **found}


def _eta_verdict(numbers: Numbers) -> str:
    same = max(numbers["same"] + numbers["shortened"]) < 1e-9 < min(numbers["beta_median"])
    return "exactly, with every step and the posterior variance" if same else "no"


def _eta_number(numbers: Numbers) -> str:
    most = f"{max(numbers['same'] + numbers['shortened']):.0e}".replace("e-0", "e-")
    return (
        f"largest gap of {len(numbers['seeds'])} × {numbers['count']:,} walks {most}; with beta up "
        f"to {max(numbers['beta']):.1f}; in 50 steps it is DDPM of the shortened chain"
    )


# --- beta or the posterior variance ---------------------------------------------------------------


def variance_choice(quick: bool) -> Numbers:
    """Widths of the villages with either variance, in 1000 and in 50 steps."""
    seeds, count = ([0, 1], 50) if quick else ([0, 1, 2, 3, 4], 4000)
    numbers: Numbers = {"seeds": seeds, "count": count}
    for steps in (1000, 50):
        for variance in ("beta", "posterior"):
            numbers[f"{variance} {steps}"] = [
                width(walked(seed, count, steps, variance)) for seed in seeds
            ]
    return numbers


def _gap(numbers: Numbers, steps: int) -> Difference:
    return paired(numbers[f"beta {steps}"], numbers[f"posterior {steps}"])


def _variance_verdict(numbers: Numbers) -> str:
    many, few = abs(_gap(numbers, 1000).mean), abs(_gap(numbers, 50).mean)
    if few > 0.1 > many:
        return "nearly true at 1000 steps, false at few"
    return "it matters" if many > 0.1 else "no matter"


def _variance_number(numbers: Numbers) -> str:
    gap = _gap(numbers, 1000)
    few = [mean_and_error(numbers[f"{name} 50"]) for name in ("beta", "posterior")]
    return (
        f"villages' width (1 is right), beta and posterior: {few[0]} and {few[1]} in 50 steps; "
        f"in 1000 they differ by {gap}, {gap.words} ({gap.count} seeds)"
    )


# --- too few steps --------------------------------------------------------------------------------


def stride_error(t: int, s: int, x_t: float) -> float:
    """How much probability the Gaussian of one ancestral step puts in a wrong place.

    The true density of x_s given x_t comes from Bayes' rule on a grid.
    """
    guide = villages()
    schedule = guide.schedule
    grid = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    ratio = schedule.alpha_bar[t] / schedule.alpha_bar[s]
    true = guide.log_density(grid[:, None], torch.full((len(grid),), s)).double()
    true = (true - (x_t - ratio.sqrt() * grid) ** 2 / (2 * (1 - ratio))).softmax(0)
    place, at = torch.tensor([[x_t]], dtype=torch.float64), torch.tensor([t])
    eps_hat = guide(place, at)
    x0_hat = float((place - schedule.noise_rate[t] * eps_hat) / schedule.signal_rate[t])
    abar_t, abar_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
    beta = 1 - ratio
    mean = abar_s.sqrt() * beta / (1 - abar_t) * x0_hat
    mean = mean + ratio.sqrt() * (1 - abar_s) / (1 - abar_t) * x_t
    drawn = (-((grid - mean) ** 2) / (2 * beta * (1 - abar_s) / (1 - abar_t))).softmax(0)
    return float((true - drawn).abs().sum()) / 2


def too_few_steps(quick: bool) -> Numbers:
    """A perfect denoiser, five steps: who is lost, and how wrong is one long stride?"""
    seeds, count = ([0, 1], 50) if quick else ([0, 1, 2, 3, 4], 4000)
    guide = villages()
    five = evenly_spaced(guide.schedule.num_steps, 5)
    return {
        "seeds": seeds,
        "count": count,
        "lost 5": [lost(walked(seed, count, 5, "posterior")) for seed in seeds],
        "lost 1000": [lost(walked(seed, count, 1000, "posterior")) for seed in seeds],
        "lost ddim 5": [
            lost(last(ddim(guide, guide.schedule, start(seed, count), five))) for seed in seeds
        ],
        "stride 500": stride_error(600, 100, -0.1),
        "stride 10": stride_error(600, 590, -0.1),
    }


def _few_verdict(numbers: Numbers) -> str:
    breaks = statistics.mean(numbers["lost 5"]) > 0.05 > 10 * statistics.mean(numbers["lost 1000"])
    lumpy = numbers["stride 500"] > 0.5 > 0.01 > numbers["stride 10"]
    return "yes, even with a perfect denoiser" if breaks and lumpy else "not seen here"


def _few_number(numbers: Numbers) -> str:
    percent = [100 * statistics.mean(numbers[f"lost {name}"]) for name in ("5", "1000", "ddim 5")]
    return (
        f"of {numbers['count']:,} walkers {percent[0]:.0f} % end far from all data in 5 steps, "
        f"{percent[1]:.2f} % in 1000; one stride from 600 to 100 misplaces "
        f"{numbers['stride 500']:.0%} (DDIM in 5: {percent[2]:.0f} %)"
    )


# --- digits ---------------------------------------------------------------------------------------


def groups(features: Tensor) -> list[float]:
    """The kernel distance of each group of digits from 5,000 real test images.

    It is unbiased, so small groups will do, and each group has noise of its own.
    """
    real = load_digit_reference().test[:5000]
    return [kernel_distance(group, real) for group in features.split(GROUP)]


def fifty_steps(quick: bool) -> Numbers:
    """Digits of the network that ships, by DDIM and DDPM, no label asked for.

    Digit i starts from the same noise in every row.
    """
    hardware.keep_freed_memory()
    checkpoint, real = load_checkpoint("mnist", device="cpu"), load_digit_reference().test[:5000]
    numbers: Numbers = {"seed": SEED, "group": GROUP}
    for sampler, steps, count in QUICK_ROWS if quick else ROWS:
        recipe = Recipe(sampler=sampler, steps=steps, label="none", seed=SEED, batch=GROUP)
        features = features_of(checkpoint, recipe, count)
        numbers[f"{sampler} {steps}" if not quick else QUICK_NAMES[sampler, steps]] = {
            "count": count,
            "kernel": groups(features),
            "frechet": frechet_distance(features, real),
        }
    return numbers


def _against(numbers: Numbers, other: str) -> Difference:
    """DDIM in 50 steps less another sampler, over the groups that both have."""
    first, second = numbers["ddim 50"]["kernel"], numbers[other]["kernel"]
    return paired(first[: len(second)], second)


def _fifty_verdict(numbers: Numbers) -> str:
    many, equal = _against(numbers, "ddpm 1000"), _against(numbers, "ddpm 50")
    if many.told_apart:
        return "no, a little worse" if many.mean > 0 else "yes, a little better"
    if equal.told_apart and equal.mean > 0:
        return "not told apart; DDPM in 50 is better"
    return f"not told apart with {numbers['ddpm 1000']['count']:,} digits each"


def _fifty_number(numbers: Numbers) -> str:
    many, equal = _against(numbers, "ddpm 1000"), _against(numbers, "ddpm 50")
    counts = numbers["ddpm 1000"]["count"], numbers["ddpm 50"]["count"]
    return (
        f"kernel distance {many} above DDPM 1000 ({counts[0]:,} digits each); {equal} above DDPM "
        f"50 ({counts[1]:,}; {equal.words}); groups of {numbers['group']}, no label; 20 times "
        f"fewer calls"
    )


CLAIMS = [
    Claim(
        "ddim_50",
        "DDIM in 50 steps is as good as DDPM in 1000, 20 times faster",
        fifty_steps,
        _fifty_verdict,
        _fifty_number,
    ),
    Claim("eta_one", "eta = 1 recovers DDPM", eta_one, _eta_verdict, _eta_number),
    Claim(
        "variance_choice",
        "sigma² = beta or the posterior variance, no matter",
        variance_choice,
        _variance_verdict,
        _variance_number,
    ),
    Claim(
        "too_few_steps",
        "Too few steps break ancestral sampling because the reverse step is no longer Gaussian",
        too_few_steps,
        _few_verdict,
        _few_number,
    ),
]
