"""Lesson 4: how the time goes in, what a pixel sees, and what the parts of a network are worth."""

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from measured.claim import Claim, Difference, Numbers, mean_and_error, paired
from tutorial_lib.datasets import circles
from tutorial_lib.forward import diffuse
from tutorial_lib.lab import seeded
from tutorial_lib.losses import StratifiedSteps, epsilon_loss, epsilon_losses
from tutorial_lib.metrics import disc_quality
from tutorial_lib.networks.unet import ResBlock, TinyUNet, TwoLevelUNet, timestep_embedding
from tutorial_lib.predictions import clip_x0
from tutorial_lib.samplers import ddim, evenly_spaced, last
from tutorial_lib.schedules import linear_schedule

SCHEDULE = linear_schedule(1000)
T = SCHEDULE.num_steps


def _log_ratio(first: list[float], second: list[float]) -> Difference:
    """The paired difference of logarithms: of factors, those that differ by chance cancel."""
    return paired([math.log(a) for a in first], [math.log(b) for b in second])


def _times(first: list[float], second: list[float]) -> str:
    """How many times the second the first is, "1.08 ± 0.02"."""
    return mean_and_error([a / b for a, b in zip(first, second, strict=True)])


# The time as a number


def _rms_errors(inputs: Tensor, wanted: Tensor, width: int, seed: int, steps: int) -> Tensor:
    """RMS error of a small network that learns ``wanted`` (T, 3) from ``inputs`` (T, ...)."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(inputs.shape[1], width), nn.SiLU(),
        nn.Linear(width, width), nn.SiLU(),
        nn.Linear(width, 3),
    )  # fmt: skip
    optimizer, generator = torch.optim.Adam(net.parameters(), lr=1e-2), seeded(seed)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        some = torch.randint(T, (256,), generator=generator)
        loss = (net(inputs[some]) - wanted[some]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return (net(inputs) - wanted).square().mean(0).sqrt()


def share_of_t(quick: bool) -> Numbers:
    """What is learned of three functions of t, from t / 1000 and from the embedding."""
    seeds, steps = ([0, 1], 10) if quick else (list(range(8)), 500)
    t = torch.arange(1, T + 1)
    wave = torch.sin(2 * math.pi * t / 100)
    wanted = torch.stack([SCHEDULE.noise_rate[1:], SCHEDULE.snr[1:].log(), wave], 1).float()
    wanted = (wanted - wanted.mean(0)) / wanted.std(0)
    forms = {"share": (t[:, None] / T, 92), "embedding": (timestep_embedding(t, 64), 64)}
    numbers: Numbers = {"seeds": seeds, "steps": steps}
    for form, (inputs, width) in forms.items():
        errors = [_rms_errors(inputs, wanted, width, seed, steps) for seed in seeds]
        for i, name in enumerate(("noise_rate", "log_snr", "wave")):
            numbers[f"{form}_{name}"] = [float(error[i]) for error in errors]
    return numbers


def _share_verdict(numbers: Numbers) -> str:
    smooth, wave = max(numbers["share_noise_rate"]), min(numbers["share_wave"])
    if smooth < 0.1 and wave > 0.5:
        return "too strong: it works for what changes slowly"
    return "no" if wave < 0.1 else "yes"


def _share_number(numbers: Numbers) -> str:
    parts = [
        f"{name.replace('_', ' ').replace('snr', 'SNR')} "
        f"{max(numbers[f'share_{name}']):.3f} ({max(numbers[f'embedding_{name}']):.3f})"
        for name in ("noise_rate", "log_snr", "wave")
    ]
    count = len(numbers["seeds"])
    return f"RMS error, worst of {count} seeds (with the embedding): {', '.join(parts)}"


# The two-level net


def width_of_view(net: nn.Module) -> int:
    """The side of the square of pixels that the middle pixel of 64 x 64 depends on."""
    x = torch.randn(1, 3, 64, 64, generator=seeded(0)).requires_grad_()
    net(x, torch.tensor([500]))[:, :, 32, 32].sum().backward()
    assert x.grad is not None
    return int(x.grad.abs().sum((0, 1)).any(0).sum())


class WindowOracle:
    """The best denoiser for ``data`` (N, C, H, W) whose every pixel sees ``width`` x ``width``."""

    def __init__(self, data: Tensor, width: int) -> None:
        self.data, self.width = data, width

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        return torch.cat([self._one(x_t[i : i + 1], int(t[i])) for i in range(len(t))])

    def _one(self, x_t: Tensor, t: int) -> Tensor:
        signal, noise = float(SCHEDULE.signal_rate[t]), float(SCHEDULE.noise_rate[t])
        distance = (x_t - signal * self.data).square().sum(1, keepdim=True)  # (N, 1, H, W)
        for _ in range(2):  # sum over the window: along rows, then along columns
            half = self.width // 2
            total = F.pad(distance, (half + 1, half)).cumsum(3)
            distance = (total[..., self.width :] - total[..., : -self.width]).mT
        share = (-distance / (2 * noise**2)).softmax(0)
        return (x_t - signal * (share * self.data).sum(0)) / noise


def _trained_two_levels(seed: int, images: Tensor, steps: int) -> nn.Module:
    torch.manual_seed(seed)
    net, generator = TwoLevelUNet(3, width=16), seeded(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(steps):
        x0 = images[torch.randint(len(images), (32,), generator=generator)]
        loss = epsilon_loss(net, SCHEDULE, x0, generator=generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.requires_grad_(False)


def two_level(quick: bool) -> Numbers:
    """Discs among the samples of the best denoiser with that window, and of trained nets."""
    noises, per_noise, timesteps = ([0], 2, 3) if quick else ([0, 1, 2, 3, 4], 12, 25)
    seeds, epochs, count = ([0], 1, 32) if quick else ([0, 1, 2], 20, 600)
    field = width_of_view(TwoLevelUNet(3, width=64))
    world = circles(400, size=32, channels=1).images
    numbers: Numbers = {"field": field, "share": field**2 / 32**2}
    numbers |= {"noises": noises, "samples": per_noise, "seeds": seeds}
    for name, width in (("window", field), ("whole", 63)):
        oracle, found = WindowOracle(world, width), []
        for noise in noises:
            x_T = torch.randn(per_noise, 1, 32, 32, generator=seeded(noise))
            drawn = last(ddim(oracle, SCHEDULE, x_T, evenly_spaced(T, timesteps)))
            found.append(int(disc_quality(drawn).is_disc.sum()))
        numbers[name] = found
    images = circles(count, size=32, channels=3).images
    numbers |= {"epochs": epochs, "images": count, "trained_samples": 32, "trained": []}
    for seed in seeds:
        net = _trained_two_levels(seed, images, epochs * count // 32)
        x_T = torch.randn(32, 3, 32, 32, generator=seeded(100 + seed))
        walk = ddim(clip_x0(net, SCHEDULE), SCHEDULE, x_T, evenly_spaced(T, 2 * timesteps))
        numbers["trained"].append(int(disc_quality(last(walk)).is_disc.sum()))
    return numbers


def _two_level_verdict(numbers: Numbers) -> str:
    drawn = sum(numbers["trained"]) / (len(numbers["seeds"]) * numbers["trained_samples"])
    if drawn > 0.8:
        return "yes"
    return "no: its window is too small" if sum(numbers["window"]) < sum(numbers["whole"]) else "no"


def _two_level_number(numbers: Numbers) -> str:
    total = len(numbers["noises"]) * numbers["samples"]
    field = f"{numbers['field']} x {numbers['field']}"
    trained = len(numbers["seeds"]) * numbers["trained_samples"]
    return (
        f"pixels see {field} of 32 x 32; discs: {sum(numbers['trained'])} of {trained} after "
        f"{numbers['epochs']} epochs ({len(numbers['seeds'])} seeds); best denoiser with that "
        f"window {sum(numbers['window'])} of {total}, with all {sum(numbers['whole'])}"
    )


# Parts of a network


def _deaf(_block: nn.Module, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """This block is not told the time."""
    x, time = inputs
    return x, torch.zeros_like(time)


def _without_skip(_block: nn.Module, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The second half of the channels that go into this block, the skip, is 0."""
    x, time = inputs
    x = x.clone()
    x[:, x.shape[1] // 2 :] = 0
    return x, time


def _net(how: str, seed: int) -> TinyUNet:
    """A TinyUNet with something missing."""
    torch.manual_seed(seed)
    net = TinyUNet(1, widths=(16, 32))
    for name, module in list(net.named_modules()):
        if isinstance(module, ResBlock):
            if how == "no time" or (how == "time at bottom only" and "inner" not in name):
                module.register_forward_pre_hook(_deaf)
            if how == "no skips" and ".up." in name:
                module.register_forward_pre_hook(_without_skip)
        if how == "no norm":
            for child_name, child in module.named_children():
                if isinstance(child, nn.GroupNorm):
                    setattr(module, child_name, nn.Identity())
    return net


def _sizes(quick: bool) -> tuple[list[int], int]:
    """Seeds and training steps."""
    return ([0, 1], 3) if quick else ([0, 1, 2, 3, 4], 250)


@functools.cache
def _nets(how: str, quick: bool) -> list[TinyUNet]:
    """A trained network for each seed."""
    seeds, steps = _sizes(quick)
    images, sampler = circles(2000, size=16, channels=1).images, StratifiedSteps(T)
    nets = []
    for seed in seeds:
        net, generator = _net(how, seed), seeded(seed)
        optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
        for step in range(steps):
            factor = min(1, (step + 1) / 20, 2 * (1 - step / steps))
            optimizer.param_groups[0]["lr"] = 3e-3 * factor
            x0 = images[torch.randint(len(images), (32,), generator=generator)]
            loss = epsilon_loss(net, SCHEDULE, x0, generator=generator, sampler=sampler)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        nets.append(net.requires_grad_(False))
    return nets


@functools.cache
def _losses(how: str, quick: bool) -> tuple[float, ...]:
    """The loss of each seed's network on 512 new discs, at steps spread evenly over 1..T."""
    x0 = circles(512, size=16, channels=1, seed=1).images
    t = torch.arange(512) * T // 512 + 1
    eps = torch.randn(x0.shape, generator=seeded(2))
    return tuple(
        float(epsilon_losses(net, SCHEDULE, x0, t, eps).mean()) for net in _nets(how, quick)
    )


def parts(quick: bool, *variants: str) -> Numbers:
    """The loss of whole networks, and of those with something missing."""
    seeds, steps = _sizes(quick)
    numbers: Numbers = {"seeds": seeds, "steps": steps}
    for how in ("whole", *variants):
        numbers[how.replace(" ", "_")] = list(_losses(how, quick))
    return numbers


def _setting(numbers: Numbers) -> str:
    return f"{len(numbers['seeds'])} seeds, {numbers['steps']} steps"


def _skips_verdict(numbers: Numbers) -> str:
    worse = _log_ratio(numbers["no_skips"], numbers["whole"])
    return "yes" if worse.told_apart and worse.mean > 0 else "not told apart"


def _skips_number(numbers: Numbers) -> str:
    skips, norm = (_times(numbers[how], numbers["whole"]) for how in ("no_skips", "no_norm"))
    return f"{skips} times the loss without skips, {norm} times without norm ({_setting(numbers)})"


def _every_block_verdict(numbers: Numbers) -> str:
    worse = _log_ratio(numbers["time_at_bottom_only"], numbers["whole"])
    if not worse.told_apart:
        return "not told apart"
    return "it helps" if worse.mean > 0 else "no, the bottom alone is better"


def _every_block_number(numbers: Numbers) -> str:
    ratio = _times(numbers["time_at_bottom_only"], numbers["whole"])
    return f"{ratio} times the loss with the time at the bottom only ({_setting(numbers)})"


# Without time


class Blind:
    """The best denoiser for points or images ``data`` (K, ...), told t or not."""

    def __init__(self, data: Tensor, variance: float) -> None:
        self.data, self.variance = data.flatten(1).double(), variance
        self.grid = torch.arange(10, T + 1, 10)  # it knows that t is one of these
        self.signal, self.noise = SCHEDULE.signal_rate[self.grid], SCHEDULE.noise_rate[self.grid]

    def __call__(self, x_t: Tensor, t: Tensor | None = None) -> Tensor:
        x = x_t.flatten(1).double()
        spread = self.signal**2 * self.variance + self.noise**2  # (G,)
        square = x.square().sum(1)[:, None, None]
        square = square - 2 * (x @ self.data.T)[:, None] * self.signal[:, None]
        square = square + self.data.square().sum(1) * self.signal[:, None] ** 2  # (B, G, K)
        score = -0.5 * square / spread[:, None] - 0.5 * x.shape[1] * spread.log()[:, None]
        mean = score.softmax(2) @ self.data  # (B, G, D)
        eps = (self.noise / spread)[:, None] * (x[:, None] - self.signal[:, None] * mean)
        share = score.logsumexp(2).softmax(1)  # p(t | x), (B, G)
        if t is not None:
            share = (self.grid == t[:, None]).double()
        return (share[:, :, None] * eps).sum(1).reshape(x_t.shape).to(x_t)


def _excess(perfect: Blind, data: Tensor, width: float, seed: int, repeats: int) -> float:
    """How much more loss the best denoiser has if it is not told t."""
    t, generator = perfect.grid.repeat(repeats), seeded(seed)
    x0 = data[torch.randint(len(data), (len(t),), generator=generator)]
    x0 = x0 + width * torch.randn(x0.shape, generator=generator)
    eps = torch.randn(x0.shape, generator=generator)
    x_t = diffuse(SCHEDULE, x0, t, eps)
    found = []
    for x, step, noise in zip(x_t.split(100), t.split(100), eps.split(100), strict=True):
        told, blind = ((answer - noise).square() for answer in (perfect(x, step), perfect(x)))
        found.append(float((blind - told).mean()))
    return sum(found) / len(found)


def no_time(quick: bool) -> Numbers:
    """Trained with and without the time; and the best denoisers, told t or not."""
    numbers = parts(quick, "no time")
    noises, count, repeats = ([0, 1], 2, 1) if quick else ([0, 1, 2, 3, 4], 64, 10)
    angle = torch.arange(8) * 2 * math.pi / 8
    ring = 1.4 * torch.stack([angle.cos(), angle.sin()], 1)
    discs = circles(400, size=16, channels=1).images
    worlds: dict[str, Any] = {
        "plane": (Blind(ring, 0.04), ring, 0.2),
        "discs": (Blind(discs, 0.0), discs, 0.0),
    }
    for name, (model, data, width) in worlds.items():
        numbers[f"excess_{name}"] = [
            _excess(model, data, width, noise, repeats) for noise in noises
        ]
    perfect = worlds["discs"][0]
    models: dict[str, Callable] = {"told": perfect, "blind": lambda x, t: perfect(x)}
    for name, model in models.items():
        drawn = [
            last(
                ddim(
                    model,
                    SCHEDULE,
                    torch.randn(count, 1, 16, 16, generator=seeded(noise)),
                    evenly_spaced(T, 25),
                )
            )
            for noise in noises
        ]
        numbers[f"discs_{name}"] = [int(disc_quality(x).is_disc.sum()) for x in drawn]
    return numbers | {"noises": noises, "samples": count}


def _no_time_verdict(numbers: Numbers) -> str:
    trained = _log_ratio(numbers["no_time"], numbers["whole"])
    samples = paired(numbers["discs_told"], numbers["discs_blind"])
    worse = [
        name
        for name, difference in (("loss", trained), ("samples", samples))
        if difference.told_apart and (difference.mean > 0)
    ]
    return f"yes, by the {' and the '.join(worse)}" if worse else "not told apart"


def _no_time_number(numbers: Numbers) -> str:
    total = len(numbers["noises"]) * numbers["samples"]
    return (
        f"{_times(numbers['no_time'], numbers['whole'])} times the loss ({_setting(numbers)}); "
        f"best denoisers: {sum(numbers['discs_blind'])} of {total} samples are discs, "
        f"{sum(numbers['discs_told'])} if told t"
    )


CLAIMS = [
    Claim(
        "share_of_t",
        "t / 1000 does not work as a time embedding",
        share_of_t,
        _share_verdict,
        _share_number,
    ),
    Claim(
        "two_level",
        "The plain two-level net learns the colored circles in 20 epochs",
        two_level,
        _two_level_verdict,
        _two_level_number,
    ),
    Claim(
        "skips",
        "Skips save the detail",
        lambda quick: parts(quick, "no skips", "no norm"),
        _skips_verdict,
        _skips_number,
    ),
    Claim(
        "every_block",
        "The time must go into every block",
        lambda quick: parts(quick, "time at bottom only"),
        _every_block_verdict,
        _every_block_number,
    ),
    Claim(
        "no_time",
        "Without time conditioning it works, only less well",
        no_time,
        _no_time_verdict,
        _no_time_number,
    ),
]
