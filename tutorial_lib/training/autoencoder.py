"""Training an autoencoder: one short loop, as the lesson teaches it."""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from tutorial_lib import _validate, hardware
from tutorial_lib._extras import ProgressBar
from tutorial_lib._typing import Images
from tutorial_lib._validate import InvalidValueError
from tutorial_lib.latents import Codec, autoencoder_losses
from tutorial_lib.networks.autoencoder import Autoencoder
from tutorial_lib.training.batches import Shuffled
from tutorial_lib.training.journal import TrainingError
from tutorial_lib.training.optimizers import AllOrNone, Groups, Rates, muon_and_adamw, scale_rates
from tutorial_lib.training.trainer import ema_decay, lr_factor, update_ema

KL_WEIGHT = 1e-6
"""How much the divergence (nats a latent) counts beside the squared error of a pixel. With 1e-4 the
encoder draws halos around objects, codes that survive the noise, which diffusion learns badly."""


class AutoencoderRun(NamedTuple):
    """What ``train_autoencoder`` leaves.

    Attributes:
        codec: the autoencoder with its averaged weights, and the scale of its latents.
        reconstruction, divergence: the two parts of the loss at each step.
        seconds: how long the steps took.
    """

    codec: Codec
    reconstruction: list[float]
    divergence: list[float]
    seconds: float


def train_autoencoder(
    images: Images,
    autoencoder: Autoencoder | None = None,
    *,
    steps: int | None = 1000,
    max_seconds: float | None = None,
    batch_size: int = 32,
    kl_weight: float = KL_WEIGHT,
    lr: float = 3e-3,
    muon_lr: float = 0.02,
    ema: float = 0.98,
    seed: int = 0,
    device: str | torch.device = "cpu",
    precision: str = "auto",
    progress: bool = True,
    clock: Callable[[], float] = time.perf_counter,
) -> AutoencoderRun:
    """Trains an autoencoder on pictures, and fits the scale of its latents to them.

    Muon with AdamW for vectors; the learning rates grow over the first twentieth of the run and
    fall linearly to 0. The same arguments on the same CPU give the same bits, unless
    ``max_seconds`` ends the run: then the clock decides. The global random state is the same
    afterwards as before.

    Args:
        images: (N, C, H, W) in [-1, 1], H and W multiples of 4.
        autoencoder: the one to train, in place; None makes one of the default size, whose first
            weights ``seed`` decides.
        steps: length of the run; None leaves it to ``max_seconds``.
        max_seconds: longest time for the steps; None leaves it to ``steps``.
        batch_size: pictures in a step.
        kl_weight: how much the divergence counts, 0 or more.
        lr, muon_lr: largest learning rates of AdamW and Muon.
        ema: share of the averaged weights kept at a step.
        seed: of weights, order and noise.
        device: where to train; the codec stays there.
        precision: what the autoencoder computes in while it trains, as of ``TrainConfig``. Its
            weights and the scale of its latents are float32.
        progress: whether to show a progress bar.
        clock: the time in seconds; decides only where ``max_seconds`` does.

    Raises:
        TypeError, ValueError: a wrong argument.
        TrainingError: the loss is no longer finite.
    """
    batch_size = _validate.whole_number("batch_size", batch_size, at_least=1)
    kl_weight = _validate.number("kl_weight", kl_weight, low=0.0, high=1e6)
    for name, value in (("lr", lr), ("muon_lr", muon_lr)):
        _validate.number(name, value, low=0.0, high=1e6)
    _validate.number("ema", ema, low=0.0, high=1.0)
    seed = _validate.seed("seed", seed)
    if steps is not None:
        _validate.whole_number("steps", steps, at_least=1)
    if max_seconds is not None:
        _validate.number("max_seconds", max_seconds, low=1e-3, high=math.inf)
    elif steps is None:
        raise InvalidValueError("steps and max_seconds must not both be None: it would never end")
    place = _validate.device("device", device)
    if autoencoder is None:
        autoencoder = _new(images, seed)
    _validate.instance("autoencoder", autoencoder, Autoencoder)
    autoencoder.latent_shape(_validate.batch("images", images).shape[1:])
    network = hardware.laid_out(autoencoder, place).train()
    numbers = hardware.pick_precision(precision, place)
    scaler = hardware.grad_scaler(place, numbers)
    layout = hardware.memory_format(network, place)
    average = AveragedModel(network)
    optimizers = muon_and_adamw(Groups.of(network), Rates(lr, muon_lr, 0.0), place)
    together = AllOrNone(optimizers)
    order = Shuffled(len(images), torch.Generator().manual_seed(seed))
    noise = torch.Generator().manual_seed(seed + 1)
    parts: tuple[list[float], list[float]] = ([], [])
    start, done, spent = clock(), 0, 0.0
    with ProgressBar(total=steps, unit=" steps", shown=progress) as bar:
        while _fraction(done, steps, spent, max_seconds) < 1:
            middle = done + 0.5  # of the coming step
            foreseen = spent * middle / max(done, 1)
            factor = lr_factor(_fraction(middle, steps, foreseen, max_seconds), 0.05, "linear")
            scale_rates(optimizers, factor)
            x = images[order.take(batch_size)].to(place).contiguous(memory_format=layout)
            with torch.autocast(place.type, numbers.dtype, enabled=numbers.dtype != torch.float32):
                losses = autoencoder_losses(network, x, noise)
            scaler.scale(losses[0] + kl_weight * losses[1]).backward()
            scaler.step(together)  # type: ignore[arg-type]
            scaler.update()
            network.zero_grad()
            update_ema(average, network, ema_decay(done, ema))
            done += 1
            _note(parts, losses, done)
            spent = clock() - start
            bar.update(1)
    averaged = average.module
    assert isinstance(averaged, Autoencoder)
    autoencoder.load_state_dict(averaged.state_dict())
    return AutoencoderRun(Codec.fitted(autoencoder, images[:2048]), *parts, spent)


def _new(images: Tensor, seed: int) -> Autoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Autoencoder(_validate.batch("images", images).shape[1]).float()


def _fraction(done: float, steps: int | None, spent: float, seconds: float | None) -> float:
    """How much of the run is over, in [0, 1]: by steps or by time, whichever is more."""
    by_steps = done / steps if steps is not None else 0.0
    by_time = spent / seconds if seconds is not None else 0.0
    return min(1.0, max(by_steps, by_time))


def _note(parts: tuple[list[float], list[float]], losses: tuple[Tensor, Tensor], step: int) -> None:
    for kept, loss in zip(parts, losses, strict=True):
        kept.append(float(loss.detach()))
        if not math.isfinite(kept[-1]):
            raise TrainingError(f"the loss is {kept[-1]} at step {step}; try a smaller lr")
