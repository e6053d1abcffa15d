"""One training step, with all that it carries to the next: ``Trainer``."""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tutorial_lib import hardware, losses
from tutorial_lib._random import uniform
from tutorial_lib._typing import EpsModel, Images, PerSample, Steps
from tutorial_lib.checkpoints import as_eps_model
from tutorial_lib.datasets import Dataset
from tutorial_lib.hardware import parallel
from tutorial_lib.hardware.parallel import ALONE, Ranks
from tutorial_lib.networks.unet import TinyUNet
from tutorial_lib.training import state as run_state
from tutorial_lib.training.batches import Shuffled, Store
from tutorial_lib.training.config import DECAYS, SCHEDULES, STEP_SAMPLERS, TrainConfig, weight_of
from tutorial_lib.training.journal import TrainingError
from tutorial_lib.training.optimizers import Muon, is_matrix
from tutorial_lib.training.state import State

SMALLEST_SCALE = 2.0**-14
"""Of fp16 losses; where gradients overflow even so, they are infinite in truth."""


class Batch(NamedTuple):
    """What a training step works on: images, how far to noise each, and with what.

    Attributes:
        x0: (B, C, H, W).
        t: int64 (B,).
        eps: of the shape of ``x0``.
        factor: (B,), how much each loss counts, for the way ``t`` was drawn.
        labels: int64 (B,), some of them hidden; None for a network without classes.
    """

    x0: Images
    t: Steps
    eps: Images
    factor: PerSample
    labels: Steps | None

    def parts(self, count: int) -> "list[Batch]":
        """The batch in ``count`` equal parts, in order."""
        pieces = [(None,) * count if x is None else x.chunk(count) for x in self]
        return [Batch(*part) for part in zip(*pieces, strict=True)]


class Trainer:
    """What a run carries from one training step to the next.

    Args:
        config: everything that decides the run.
        network: the network to train; it moves to ``device``, channels last where that is faster.
        data: images and labels; they stay on ``device`` for the whole run where they fit.
        device: where to train.
        precision: what the network computes in.
        ranks: the processes that share each batch.

    Raises:
        ValueError: the network's answer has not the shape of the images, or the batch cannot be
            shared evenly.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: nn.Module,
        data: Dataset,
        device: torch.device,
        precision: hardware.Precision,
        ranks: Ranks = ALONE,
    ) -> None:
        self.config, self.device, self.precision, self.ranks = config, device, precision, ranks
        if config.batch_size % (ranks.count * config.accumulate):
            parts = f"{config.accumulate} parts in {ranks.count} processes"
            raise ValueError(f"batch_size must divide into {parts}, got {config.batch_size}")
        self.network = hardware.placed(network, device)
        self.schedule = SCHEDULES[config.schedule](config.num_steps).to(device)
        self.step_sampler = STEP_SAMPLERS[config.step_sampler](config.num_steps)
        home = data_home(data.images.nbytes, device, ranks)
        labels = data.labels if config.conditional else None
        layout = hardware.memory_format(network, device)
        self.store = Store(data.images, labels, device, home, layout)
        self.no_class = len(data.class_names)
        # On the device, so that drawing t, noise and images never waits for the CPU.
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self._draw_order(with_noise=home == device)
        self._check_answer()
        self.network.train()
        self._wrapped = ranks.wrap(self.network)
        self.ema = AveragedModel(self.network)  # of the weights that all ranks have by now
        self.steps_done, self.seconds = 0, 0.0
        self.optimizers = _optimizers(config, self.network, device)
        self.scaler = hardware.grad_scaler(device, precision)
        self._forward = hardware.compiled(self._wrapped) if config.compile else self._wrapped
        self.update_lr()

    def _draw_order(self, *, with_noise: bool) -> None:
        """Draws the order of the images where the noise is drawn, or else on the CPU."""
        own = torch.Generator().manual_seed(self.config.seed)
        self.order = Shuffled(len(self.store), self.generator if with_noise else own)

    def step(self) -> Tensor:
        """One training step; its loss, a scalar that stays on the device."""
        batch = self._next_batch()
        each = self._backward(batch)
        self._learn(batch.t, each)
        together = _Together(self.optimizers)  # an overflow anywhere leaves out the whole step
        self.scaler.unscale_(together)  # type: ignore[arg-type]
        if self.config.grad_clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.grad_clip)
        self.scaler.step(together)  # type: ignore[arg-type]
        self.scaler.update()
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        update_ema(self.ema, self.network, ema_decay(self.steps_done, self.config.ema))
        self.steps_done += 1
        return (batch.factor * each).mean()

    def _backward(self, batch: Batch) -> PerSample:
        """Adds up the gradients of the mean loss, part by part; the losses of the samples (B,)."""
        parts = batch.parts(self.config.accumulate)
        seen = []
        for number, part in enumerate(parts, 1):
            last = number == len(parts)
            with contextlib.nullcontext() if last else parallel.without_average(self._wrapped):
                each = self._losses(part)
                loss = (part.factor * each).mean() / len(parts)
                self.scaler.scale(loss).backward()
            seen.append(each.detach())
        return torch.cat(seen)

    def _losses(self, batch: Batch) -> PerSample:
        """The weighted loss of each sample, (B,)."""
        model = self._eps_model(self._forward, batch.labels)
        weight = weight_of(self.config)
        try:
            each = losses.epsilon_losses(model, self.schedule, batch.x0, batch.t, batch.eps)
        except ValueError as error:  # an answer that is not finite, met on the way to the loss
            raise TrainingError(f"at step {self.steps_done + 1}: {error}") from error
        return each if weight is None else weight(self.schedule, batch.t).to(each) * each

    def _learn(self, t: Steps, each: PerSample) -> None:
        """Tells the step sampler what came of the steps of the whole batch."""
        if self.config.step_sampler != "importance":  # the others learn nothing
            return
        try:
            self.step_sampler.update(self.ranks.gather(t), self.ranks.gather(each))
        except ValueError as error:
            raise TrainingError(f"at step {self.steps_done + 1}: {error}") from error

    def fraction_done(self) -> float:
        """How much of the run is over, in [0, 1], by whichever of steps and time ends it first."""
        spent = 0.0
        if self.config.steps is not None:
            spent = self.steps_done / self.config.steps
        if self.config.max_seconds is not None:
            spent = max(spent, self.seconds / self.config.max_seconds)
        return min(1.0, spent)

    def update_lr(self) -> None:
        """Sets the learning rate of the next step."""
        factor = self._lr_factor(self.steps_done)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
                group["lr"] = group["initial_lr"] * factor

    @property
    def lr(self) -> float:
        """The learning rate of the next step, of the first optimizer: muon where it is in use."""
        return float(self.optimizers[0].param_groups[0]["lr"])

    def _lr_factor(self, step: int) -> float:
        """The factor for the middle of the coming step, as far as the clock can foresee it."""
        fraction = 0.0
        if self.config.steps is not None:
            fraction = (step + 0.5) / self.config.steps
        if self.config.max_seconds is not None and step:
            foreseen = self.seconds * (step + 0.5) / step
            fraction = max(fraction, foreseen / self.config.max_seconds)
        return lr_factor(min(1.0, fraction), self.config.warmup, self.config.decay)

    def _next_batch(self) -> Batch:
        """This rank's share of the next batch; the random numbers are those of the whole one."""
        count, share = self.config.batch_size, self.ranks.share
        x0, labels = self.store.pick(share(self.order.take(count)))
        if labels is not None:
            hidden = uniform(count, self.generator, self.device) < self.config.label_drop
            labels = labels.masked_fill(share(hidden), self.no_class)
        t, factor = self.step_sampler.draw(count, generator=self.generator, device=self.device)
        shape = (count, *x0.shape[1:])
        eps = torch.randn(shape, generator=self.generator, device=self.device)
        return Batch(x0, share(t), share(eps), share(factor), labels)

    def _eps_model(self, network: Callable[..., Tensor], labels: Tensor | None) -> EpsModel:
        model = as_eps_model(network, self.schedule, self.config.target, labels)
        return hardware.in_precision(model, self.device, self.precision)

    @torch.no_grad()
    def _check_answer(self) -> None:
        """Asks once, so that a network which does not fit is known before anything is written."""
        x0, labels = self.store.pick(torch.zeros(1, dtype=torch.int64, device=self.store.home))
        t = torch.ones(1, dtype=torch.int64, device=self.device)
        answer = self._eps_model(self.network.eval(), labels)(x0, t)
        if answer.shape != x0.shape:
            came, expected = tuple(answer.shape), tuple(x0.shape)
            raise ValueError(f"model must answer with the shape of x_t, {expected}; got {came}")

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the next step depends on: tensors by name, and what JSON can hold.

        Every rank must ask: each has random numbers of its own, for dropout.
        """
        tensors = {
            **run_state.module_tensors("network.", self.network),
            **run_state.module_tensors("ema.", self.ema),
            **run_state.optimizer_tensors(self.optimizers),
            "order": self.order.rest,
            "random.order": self.order.generator.get_state(),
            "random.run": self.generator.get_state(),
        }
        for name, own in _dropout_states(self.device).items():
            tensors[f"random.{name}"] = self.ranks.gather(own[None])  # (ranks, bytes)
        if isinstance(self.step_sampler, losses.ImportanceSteps):
            kept = self.step_sampler.state_dict()
            tensors.update({f"step_sampler.{name}": value for name, value in kept.items()})
        facts = {"steps": self.steps_done, "seconds": self.seconds}
        facts["data_on"] = self.order.generator.device.type  # as the run began: the order is its
        return tensors, {**facts, "scaler": self.scaler.state_dict()}

    def restore(self, state: State) -> None:
        """Takes up the run where ``state`` has it.

        Raises:
            CheckpointError: the state is of another network.
        """
        tensors, facts = state.tensors, state.facts
        run_state.fill_module(state, "network.", self.network)
        run_state.fill_module(state, "ema.", self.ema)
        run_state.fill_optimizers(self.optimizers, tensors)
        self.scaler.load_state_dict(facts["scaler"])
        # the order of before, also where the memory for the images is another now
        self._draw_order(with_noise=facts["data_on"] == self.device.type)
        self.order.generator.set_state(tensors["random.order"])
        self.order.go_on_with(tensors["order"])
        self.generator.set_state(tensors["random.run"])
        for name in _dropout_states(self.device):
            kept = tensors[f"random.{name}"]
            if self.ranks.rank < len(kept):  # a rank that was not there keeps its fresh numbers
                # a copy: torch 2.11 crashes on a state that is a part of a larger tensor
                _set_dropout_state(name, kept[self.ranks.rank].clone(), self.device)
        if isinstance(self.step_sampler, losses.ImportanceSteps):
            own = {k: tensors[f"step_sampler.{k}"] for k in self.step_sampler.state_dict()}
            self.step_sampler.load_state_dict(own)
        self.steps_done, self.seconds = facts["steps"], facts["seconds"]
        self.update_lr()

    def check_scale(self) -> None:
        """Raises TrainingError where fp16 gradients overflow however small the loss is made."""
        if self.scaler.is_enabled() and self.scaler.get_scale() < SMALLEST_SCALE:
            advice = "they are not finite; try a smaller lr or precision fp32"
            raise TrainingError(
                f"gradients overflow at every scale by step {self.steps_done}: {advice}"
            )


def data_home(size: int, device: torch.device, ranks: Ranks) -> torch.device:
    """Where data of ``size`` bytes stay: on ``device`` where they fit there on every rank.

    The order of the images is drawn where they are, so all ranks must have them on the same kind
    of device: else each would go through an order of its own.
    """
    return device if ranks.all(hardware.fits(size, device)) else torch.device("cpu")


class _Together:
    """Several optimizers as one, in the eyes of a GradScaler: all of them step, or none."""

    def __init__(self, optimizers: list[torch.optim.Optimizer]) -> None:
        self.optimizers = optimizers
        self.param_groups = [group for o in optimizers for group in o.param_groups]

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()


def lr_factor(fraction: float, warmup: float, decay: str) -> float:
    """The share of the largest learning rate, in [0, 1].

    Args:
        fraction: how much of the run is over, in [0, 1].
        warmup: up to which fraction the rate also grows linearly from 0.
        decay: a name in ``DECAYS``: how it falls with ``fraction``.
    """
    grown = min(1.0, fraction / warmup) if warmup else 1.0
    return grown * DECAYS[decay](fraction)


def ema_decay(step: int, decay: float) -> float:
    """The share of the averaged weights that step ``step`` (0 for the first) keeps.

    min(decay, (1 + step) / (10 + step)): early on the average forgets fast, so the first, random
    weights do not linger in it (as in TensorFlow's ExponentialMovingAverage with num_updates).
    """
    return min(decay, (1 + step) / (10 + step))


def update_ema(ema: AveragedModel, network: nn.Module, decay: float) -> None:
    """ema = decay ema + (1 - decay) network; buffers are copied.

    ``AveragedModel.update_parameters`` does the same with a fixed decay, and on CUDA it waits for
    the GPU at every step to read its own counter.
    """
    averaged: list[Tensor] = list(ema.module.parameters())
    current: list[Tensor] = list(network.parameters())
    get_ema_multi_avg_fn(decay)(averaged, current, 0)
    for kept, now in zip(ema.module.buffers(), network.buffers(), strict=True):
        kept.copy_(now)
    ema.n_averaged += 1


def new_network(config: TrainConfig, data: Dataset) -> TinyUNet:
    """An untrained network as ``config`` describes it, for the images and classes of ``data``.

    Its first weights come from torch's global random state.
    """
    return TinyUNet(
        data.images.shape[1],
        widths=config.widths,
        blocks=config.blocks,
        patch=config.patch,
        num_classes=len(data.class_names) if config.conditional else None,
        bottom_blocks=config.bottom_blocks,
    )


def _optimizers(
    config: TrainConfig, network: nn.Module, device: torch.device
) -> list[torch.optim.Optimizer]:
    """The optimizers that together move every parameter once a step."""
    owner = {p: module for module in network.modules() for p in module.parameters(recurse=False)}
    trained = [p for p in network.parameters() if p.requires_grad]
    if not trained:
        raise ValueError("model must have a parameter to train, got none")
    matrices = [p for p in trained if is_matrix(owner[p], p)]
    tables = [p for p in trained if p.ndim >= 2 and not is_matrix(owner[p], p)]
    vectors = [p for p in trained if p.ndim < 2]
    optimizers: list[torch.optim.Optimizer] = []
    if config.optimizer == "muon" and matrices:
        optimizers.append(Muon(matrices, lr=config.muon_lr, weight_decay=config.weight_decay))
        matrices = []
    # Vectors are left alone by weight decay: pulled towards 0 they would switch channels off.
    groups = [
        {"params": [*matrices, *tables], "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if groups:
        fused = device.type in ("cpu", "cuda", "mps")
        adamw = torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.99), fused=fused)
        optimizers.append(adamw)
    return optimizers


def _dropout_states(device: torch.device) -> dict[str, Tensor]:
    """The states of the global generators that networks draw from, uint8 each."""
    states = {"cpu": torch.default_generator.get_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def _set_dropout_state(name: str, state: Tensor, device: torch.device) -> None:
    if name == "cuda":
        torch.cuda.set_rng_state(state, device)
    elif name == "mps":
        torch.mps.set_rng_state(state)
    else:
        torch.default_generator.set_state(state)
