"""Lesson 5: warm-up, clipping, averaged weights, and what the loss tells."""

import copy
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from measured.claim import Claim, Numbers, mean_and_error, paired
from tutorial_lib import hardware
from tutorial_lib.datasets import circles
from tutorial_lib.lab import seeded
from tutorial_lib.losses import epsilon_loss, epsilon_losses
from tutorial_lib.metrics import disc_quality
from tutorial_lib.networks import TinyUNet
from tutorial_lib.predictions import as_eps_model, clip_x0
from tutorial_lib.samplers import ddim, evenly_spaced, last
from tutorial_lib.schedules import linear_schedule
from tutorial_lib.training import (
    TrainConfig,
    Trainer,
    ema_decay,
    lr_factor,
    new_network,
    update_ema,
)

CPU = torch.device("cpu")
LAST = 50
"""Training steps at the end of a run whose losses are averaged."""


def fit(
    images: Tensor,
    steps: int,
    lr: Callable[[int], float],
    *,
    seed: int,
    max_norm: float = math.inf,
    factor: Callable[[int], float] = lambda step: 1.0,
    after_step: Callable[[int, nn.Module], None] = lambda step, network: None,
) -> tuple[list[float], list[float]]:
    """The lesson's loop; its losses, and the norms of its gradients before clipping."""
    torch.manual_seed(seed)
    network, generator = TinyUNet(3, widths=(16, 32)), seeded(seed)
    optimizer = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.99), weight_decay=0.0)
    schedule, losses, norms = linear_schedule(1000), [], []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr(step)
        x0 = images[torch.randint(len(images), (32,), generator=generator)]
        loss = epsilon_loss(network, schedule, x0, generator=generator)
        optimizer.zero_grad()
        (factor(step) * loss).backward()
        norms.append(float(nn.utils.clip_grad_norm_(network.parameters(), max_norm)))
        optimizer.step()
        after_step(step, network)
        losses.append(loss.item())
    return losses, norms


def end(losses: Sequence[float]) -> float:
    return statistics.mean(losses[-LAST:])


def warm_up(quick: bool) -> Numbers:
    """The loss at the end of short runs at a fast and a gentle rate, with and without a warm-up."""
    images = circles(2000, size=16).images
    steps = 4 if quick else 150
    found: Numbers = {"seeds": list(range(2 if quick else 8)), "steps": steps, "warmup": 0.2}
    for name, peak, count in (("fast", 0.03, 8), ("gentle", 0.003, 4)):
        seeds = found["seeds"][:count]
        without, with_it = [], []
        for seed in seeds:

            def constant(step: int, peak: float = peak) -> float:
                return peak

            def warmed_up(step: int, peak: float = peak) -> float:
                return peak * lr_factor((step + 0.5) / steps, 0.2, "constant")

            without.append(end(fit(images, steps, constant, seed=seed)[0]))
            with_it.append(end(fit(images, steps, warmed_up, seed=seed)[0]))
        found[name] = {"lr": peak, "seeds": seeds, "without": without, "with": with_it}
    return found


def _learned(losses: Sequence[float]) -> int:
    """How many of the runs came clearly below the loss of a network that always answers 0."""
    return sum(loss < 0.9 for loss in losses)


def _warm_up_verdict(numbers: Numbers) -> str:
    needed = {}
    for name in ("fast", "gentle"):
        difference = paired(numbers[name]["without"], numbers[name]["with"])
        needed[name] = difference.told_apart and difference.mean > 0
    if not needed["fast"]:
        return "not told apart here"
    safe = _learned(numbers["fast"]["with"]) == len(numbers["fast"]["with"])
    rates = "yes" if needed["gentle"] else "for fast rates"
    return rates if safe else f"{rates}; it helps, and guarantees nothing"


def _warm_up_number(numbers: Numbers) -> str:
    fast, gentle = numbers["fast"], numbers["gentle"]
    difference = paired(gentle["without"], gentle["with"])
    return (
        f"rate {fast['lr']}: {_learned(fast['without'])} of {len(fast['with'])} seeds learn "
        f"without, {_learned(fast['with'])} with; rate {gentle['lr']}: loss without is "
        f"{abs(difference.mean):.3f} ± {difference.error:.3f} "
        f"{'lower' if difference.mean < 0 else 'higher'} ({len(gentle['with'])} seeds)"
    )


def clipping(quick: bool) -> Numbers:
    """One loss counts a thousandfold; the loss at the end of the run, with and without clipping."""
    images = circles(2000, size=16).images
    seeds, steps, at = ([0, 1], 4, 1) if quick else (list(range(4)), 200, 60)
    without, with_it, largest = [], [], []
    for seed in seeds:

        def crash(step: int) -> float:
            return 1000.0 if step == at else 1.0

        losses, norms = fit(images, steps, lambda step: 3e-3, seed=seed, factor=crash)
        without.append(end(losses))
        largest.append(max(norms[:at]))
        losses, _ = fit(images, steps, lambda step: 3e-3, seed=seed, factor=crash, max_norm=1.0)
        with_it.append(end(losses))
    return {
        "seeds": seeds,
        "steps": steps,
        "at": at,
        "without": without,
        "with": with_it,
        "largest_ordinary_norm": largest,
    }


def _clipping_verdict(numbers: Numbers) -> str:
    difference = paired(numbers["without"], numbers["with"])
    if not (difference.told_apart and difference.mean > 0):
        return "not seen here"
    idle = max(numbers["largest_ordinary_norm"]) < 1
    return "after a spike; otherwise it did nothing here" if idle else "after a spike"


def _clipping_number(numbers: Numbers) -> str:
    return (
        f"after one loss a thousand times too large: {mean_and_error(numbers['without'])} without, "
        f"{mean_and_error(numbers['with'])} with; largest norm before it "
        f"{max(numbers['largest_ordinary_norm']):.2f} ({len(numbers['seeds'])} seeds)"
    )


def averaging(quick: bool) -> Numbers:
    """The loss on new pictures, of the weights and of their average, at two decays of the rate."""
    images = circles(2000, size=16).images
    new = circles(8 if quick else 128, size=16, seed=1).images
    seeds, steps = ([0, 1], 4) if quick else (list(range(5)), 300)
    schedule = linear_schedule(1000)
    t = torch.randint(1, 1001, (len(new),), generator=seeded(2))
    eps = torch.randn(new.shape, generator=seeded(3))

    @torch.no_grad()
    def test_loss(network: nn.Module) -> float:
        return float(epsilon_losses(network, schedule, new, t, eps).mean())

    found: Numbers = {"seeds": seeds, "steps": steps, "pictures": len(new)}
    for decay in ("constant", "linear"):
        raw, averaged = [], []
        for seed in seeds:
            torch.manual_seed(seed)
            ema = AveragedModel(TinyUNet(3, widths=(16, 32)))
            kept: dict[str, nn.Module] = {}

            def after(
                step: int,
                network: nn.Module,
                ema: AveragedModel = ema,
                kept: dict[str, nn.Module] = kept,
            ) -> None:
                update_ema(ema, network, ema_decay(step, 0.98))
                kept["network"] = network

            def rate(step: int, decay: str = decay) -> float:
                return 0.01 * lr_factor((step + 0.5) / steps, warmup=0.1, decay=decay)

            fit(images, steps, rate, seed=seed, max_norm=1.0, after_step=after)
            raw.append(test_loss(kept["network"]))
            averaged.append(test_loss(ema.module))
        found[decay] = {"raw": raw, "averaged": averaged}
    return found


def _gain(numbers: Numbers, decay: str) -> tuple[str, bool, float]:
    """By how many percent the average is better, with its error; told apart; the mean."""
    raw, averaged = numbers[decay]["raw"], numbers[decay]["averaged"]
    ratios = [100 * (a / r - 1) for r, a in zip(raw, averaged, strict=True)]
    difference = paired(ratios, [0.0] * len(ratios))
    return f"{difference} %", difference.told_apart, difference.mean


def _averaging_verdict(numbers: Numbers) -> str:
    _, apart, mean = _gain(numbers, "constant")
    if not apart or mean > 0:
        return "not told apart by the loss"
    _, apart, mean = _gain(numbers, "linear")
    if apart and mean < 0:
        return "yes, by the loss"
    return "by the loss at a constant rate; not at a falling one"


def _averaging_number(numbers: Numbers) -> str:
    return (
        f"loss on new pictures, average against weights: {_gain(numbers, 'constant')[0]} at a "
        f"constant rate, {_gain(numbers, 'linear')[0]} where it falls to 0 "
        f"({len(numbers['seeds'])} seeds)"
    )


@torch.no_grad()
def share_of_discs(network: nn.Module, trainer: Trainer, noise: Tensor) -> float:
    model = clip_x0(
        as_eps_model(network, trainer.schedule, trainer.config.target), trainer.schedule
    )
    drawn = last(ddim(model, trainer.schedule, noise, evenly_spaced(1000, 20)))
    return float(disc_quality(drawn.clamp(-1, 1)).is_disc.double().mean())


def loss_and_samples(quick: bool) -> Numbers:
    """Along a run of the lesson: the loss, and the share of clean discs among samples."""
    seeds = [0, 1] if quick else [0, 1, 2]
    steps, looks, count = (6, (2, 4, 6), 2) if quick else (500, (100, 150, 250, 350, 500), 64)
    found: list[dict[str, Any]] = []
    for seed in seeds:
        data = circles(64 if quick else 4096, size=24, seed=seed)
        config = TrainConfig(steps=steps, seed=seed, size=24)
        torch.manual_seed(seed)
        precision = hardware.pick_precision("fp32", CPU)
        trainer = Trainer(config, new_network(config, data), data, CPU, precision)
        noise = torch.randn(count, 3, 24, 24, generator=seeded(8))
        losses: list[float] = []
        at_looks, discs = [], []
        while trainer.fraction_done() < 1:
            losses.append(trainer.step().item())
            trainer.update_lr()
            if trainer.steps_done in looks:
                at_looks.append(end(losses))
                network = copy.deepcopy(trainer.ema.module).eval()
                discs.append(share_of_discs(network, trainer, noise))
        found.append({"loss": at_looks, "discs": discs})
    return {"seeds": seeds, "looks": list(looks), "samples": count, "runs": found}


def _agreement(numbers: Numbers) -> tuple[int, int]:
    """Pairs of looks at one run that differ in discs: where the lower loss has more; how many."""
    agree = count = 0
    for run in numbers["runs"]:
        looks = list(zip(run["loss"], run["discs"], strict=True))
        for number, (loss, discs) in enumerate(looks):
            for other_loss, other_discs in looks[:number]:
                if discs != other_discs:
                    count += 1
                    agree += (loss < other_loss) == (discs > other_discs)
    return agree, count


def _loss_verdict(numbers: Numbers) -> str:
    agree, count = _agreement(numbers)
    return "within one run, yes: read it on a log axis" if agree >= 0.9 * count else "no"


def _loss_number(numbers: Numbers) -> str:
    agree, count = _agreement(numbers)
    second = [run["loss"][1] / run["loss"][-1] for run in numbers["runs"]]
    before = statistics.mean(run["discs"][1] for run in numbers["runs"])
    after = statistics.mean(run["discs"][-1] for run in numbers["runs"])
    return (
        f"steps {numbers['looks'][1]} to {numbers['looks'][-1]}: loss {mean_and_error(second)} "
        f"times lower, clean discs {before:.0%} to {after:.0%}; lower loss means more discs in "
        f"{agree} of {count} pairs ({len(numbers['seeds'])} seeds)"
    )


CLAIMS = [
    Claim("warm_up", "Warm-up is needed", warm_up, _warm_up_verdict, _warm_up_number),
    Claim(
        "clipping",
        "Clipping keeps training stable",
        clipping,
        _clipping_verdict,
        _clipping_number,
    ),
    Claim(
        "averaging",
        "Averaged weights (EMA) are better",
        averaging,
        _averaging_verdict,
        _averaging_number,
    ),
    Claim(
        "loss_tells",
        "The loss tells how good the samples are",
        loss_and_samples,
        _loss_verdict,
        _loss_number,
    ),
]
