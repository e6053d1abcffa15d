"""Lesson 5b: what fp16 loses on the way back, and bf16 against fp32."""

import statistics
import time

import torch
from torch import Tensor, nn

from measured.claim import Claim, Numbers, mean_and_error, paired
from measured.lesson05 import CPU, fit, seeded
from tutorial_lib import hardware
from tutorial_lib.datasets import circles
from tutorial_lib.losses import epsilon_loss
from tutorial_lib.schedules import linear_schedule
from tutorial_lib.training import TrainConfig, Trainer, new_network

SCALES = (0, -8, -12)
"""Powers of 2 that the loss is multiplied by; -8 is a mean over 256 times as many numbers."""


def gradients(network: nn.Module, images: Tensor, dtype: torch.dtype, factor: float) -> Tensor:
    """All gradients of one batch, of the loss times ``factor``, divided by ``factor``."""

    def model(x_t: Tensor, t: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            return network(x_t, t).float()

    network.zero_grad()
    loss = epsilon_loss(model, linear_schedule(1000), images, generator=seeded(5))
    (loss * factor).backward()
    found = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    return torch.cat(found) / factor


def loss_scaling(quick: bool) -> Numbers:
    """The error of fp16's gradients where the loss is a mean over more and more numbers."""
    seeds, steps = ([0, 1], 2) if quick else ([0, 1, 2], 150)
    images = circles(2000, size=16).images
    errors: dict[str, list[float]] = {str(power): [] for power in SCALES}
    for seed in seeds:
        kept: dict[str, nn.Module] = {}

        def keep(step: int, network: nn.Module, kept: dict[str, nn.Module] = kept) -> None:
            kept["network"] = network

        fit(images, steps, lambda step: 3e-3, seed=seed, after_step=keep)
        exact = gradients(kept["network"], images[:32], torch.float32, 1.0)
        for power in SCALES:
            half = gradients(kept["network"], images[:32], torch.float16, 2.0**power)
            errors[str(power)].append(float((half - exact).norm() / exact.norm()))
    return {"seeds": seeds, "steps": steps, "numbers_in_a_mean": 32 * 3 * 16 * 16, "errors": errors}


def _percent(values: list[float]) -> str:
    return f"{mean_and_error([100 * value for value in values])} %"


def _scaling_verdict(numbers: Numbers) -> str:
    here, large = (statistics.mean(numbers["errors"][str(power)]) for power in (0, -8))
    if here < 0.1 < large:
        return "not at this size; in big runs yes"
    return "yes" if here >= 0.1 else "not seen here"


def _scaling_number(numbers: Numbers) -> str:
    errors = numbers["errors"]
    return (
        f"error of the gradient {_percent(errors['0'])} (mean over "
        f"{numbers['numbers_in_a_mean']:,} numbers), {_percent(errors['-8'])} with 256 times as "
        f"many ({len(numbers['seeds'])} seeds)"
    )


def bf16(quick: bool) -> Numbers:
    """The loss after the same steps in fp32 and in bf16, and their seconds, in turns."""
    seeds, steps, turn = ([0, 1], 2, 1) if quick else ([0, 1, 2], 40, 5)
    data = circles(64 if quick else 2000)
    found: Numbers = {"seeds": seeds, "steps": steps, "fp32": [], "bf16": [], "times_as_fast": []}
    for seed in seeds:
        trainers: dict[str, Trainer] = {}
        losses: dict[str, list[float]] = {"fp32": [], "bf16": []}
        seconds: dict[str, list[float]] = {"fp32": [], "bf16": []}
        for name in losses:
            config = TrainConfig(steps=steps + 1, precision=name, seed=seed)
            torch.manual_seed(seed)
            precision = hardware.pick_precision(name, CPU)
            trainers[name] = Trainer(config, new_network(config, data), data, CPU, precision)
            trainers[name].step().item()  # the first call sets things up
            trainers[name].update_lr()
        for _ in range(steps // turn):
            for name, trainer in trainers.items():
                start = time.perf_counter()
                for _ in range(turn):
                    losses[name].append(trainer.step().item())
                    trainer.update_lr()
                seconds[name].append(time.perf_counter() - start)
        for name, values in losses.items():
            found[name].append(statistics.mean(values[-20:]))
        ratio = statistics.median(seconds["fp32"]) / statistics.median(seconds["bf16"])
        found["times_as_fast"].append(ratio)
    found["native"] = hardware.pick_precision("auto", CPU).name == "bf16"
    return found


def _bf16_verdict(numbers: Numbers) -> str:
    difference = paired(numbers["bf16"], numbers["fp32"])
    as_good = not difference.told_apart or abs(difference.mean) < 0.01 * min(numbers["fp32"])
    good = "as good" if as_good else "not as good"
    if min(numbers["times_as_fast"]) > 1:
        return f"{good}; faster here"
    return f"{good}; not faster here" if numbers["native"] else f"{good}; slower where emulated"


def _bf16_number(numbers: Numbers) -> str:
    relative = [100 * (b / f - 1) for b, f in zip(numbers["bf16"], numbers["fp32"], strict=True)]
    difference = paired(relative, [0.0] * len(relative))
    where = "native" if numbers["native"] else "emulated"
    return (
        f"loss after {numbers['steps']} steps {difference} % ({len(numbers['seeds'])} seeds); "
        f"{statistics.median(numbers['times_as_fast']):.2f} times as fast on a CPU where it is "
        f"{where}"
    )


CLAIMS = [
    Claim(
        "loss_scaling",
        "fp16 needs loss scaling",
        loss_scaling,
        _scaling_verdict,
        _scaling_number,
    ),
    Claim("bf16", "bf16 is as good as fp32, and faster", bf16, _bf16_verdict, _bf16_number),
]
