"""One training step, with all that it carries to the next: ``Trainer``."""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tutorial_lib import _memory, _validate, flows, hardware, losses
from tutorial_lib._random import uniform
from tutorial_lib._typing import Condition, EpsModel, PerSample, States, Steps
from tutorial_lib._validate import InvalidTypeError, InvalidValueError
from tutorial_lib.cards import class_count
from tutorial_lib.forward import at_steps
from tutorial_lib.guidance import replace_rows
from tutorial_lib.hardware import parallel
from tutorial_lib.hardware.parallel import ONE_PROCESS, Ranks
from tutorial_lib.networks.text_unet import TextUNet
from tutorial_lib.networks.unet import TinyUNet
from tutorial_lib.networks.wrappers import is_compiled, unwrapped
from tutorial_lib.predictions import as_eps_model, told
from tutorial_lib.training import state as states
from tutorial_lib.training.batches import DataStore, Examples, Shuffled, check_batch_size
from tutorial_lib.training.config import DECAYS, SCHEDULES, STEP_SAMPLERS, TrainConfig, weight_of
from tutorial_lib.training.journal import TrainingError
from tutorial_lib.training.optimizers import OPTIMIZERS, AllOrNone, Groups, Rates, scale_rates
from tutorial_lib.training.randomness import dropout_states, set_dropout_state
from tutorial_lib.training.rewind import Rewind
from tutorial_lib.training.state import State

_MOST_KEPT = 4096
"""Networks keep less than this many times the size of their input, or batches must be small."""
SMALLEST_SCALE = 2.0**-14
"""Of fp16 losses; where gradients overflow even at this scale, they really are infinite."""


class Batch(NamedTuple):
    """What a training step works on: examples, how far to noise each, and with what.

    Attributes:
        x0: (B, ...).
        t: int64 (B,).
        eps: of the shape of ``x0``.
        factor: (B,), how much each loss counts, for the way ``t`` was drawn.
        condition: int64, labels (B,) or words (B, L), some rows hidden; None without conditions.
    """

    x0: States
    t: Steps
    eps: States
    factor: PerSample
    condition: Condition | None

    def parts(self, count: int) -> "list[Batch]":
        """The batch in ``count`` equal parts, in order."""
        pieces = [(None,) * count if x is None else x.chunk(count) for x in self]
        return [Batch(*part) for part in zip(*pieces, strict=True)]


class Trainer:
    """What a run carries from one training step to the next.

    Args:
        config: everything that decides the run.
        network: the network to train; it moves to ``device``, laid out as is fastest there.
        data: what to train on, as ``train`` takes it; it stays on ``device`` for the whole run
            where it fits.
        device: where to train.
        precision: what the network computes in.
        ranks: the processes that share each batch.

    Raises:
        TypeError, ValueError: the data are of the wrong type or lack conditions that the config
            asks for, the network cannot be trained or does not know the conditions, its answer does
            not hold finite numbers in the shape of the data, or the batch cannot be shared evenly.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: nn.Module,
        data: object,
        device: torch.device,
        precision: hardware.Precision,
        ranks: Ranks = ONE_PROCESS,
    ) -> None:
        self.config, self.device, self.precision, self.ranks = config, device, precision, ranks
        if config.batch_size % (ranks.count * config.accumulate):
            parts = f"{config.accumulate} parts in {ranks.count} processes"
            raise InvalidValueError(f"batch_size must divide into {parts}, got {config.batch_size}")
        examples = Examples.of(data)
        check_batch_size(config.batch_size, examples, device)
        plain = _trainable(network)
        _check_classes(plain, examples)
        self.network = hardware.laid_out(plain, device)
        self.schedule = SCHEDULES[config.schedule](config.num_steps).to(device)
        self.step_sampler = STEP_SAMPLERS[config.step_sampler](self.schedule)
        kept_on = data_device(examples.x.nbytes, device, ranks)
        self.no_condition = _no_condition(config, self.network, examples, device)
        condition = examples.condition if config.conditional else None
        layout = hardware.memory_format(self.network, device)
        self.store = DataStore(examples.x, condition, device, kept_on, layout)
        # On the device, so that drawing t, noise and examples never waits for the CPU.
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self._draw_order(with_noise=kept_on == device)
        self._calls_attention = False  # until ``_check_answer`` has looked
        self._check_answer()
        self._check_memory()
        self.network.train()
        self._wrapped = ranks.wrap(self.network)
        self.ema = AveragedModel(self.network)  # of the weights that all ranks have by now
        self.steps_done, self.seconds = 0, 0.0
        self.is_between_steps = True  # False while weights change: then there is nothing to save
        self._rewind = Rewind(self.network, device)
        rates = Rates(config.lr, config.muon_lr, config.weight_decay)
        self.optimizers = OPTIMIZERS[config.optimizer](Groups.of(self.network), rates, device)
        self.scaler = hardware.grad_scaler(device, precision)
        self._forward = self._compiled(network)
        self.update_lr()

    def _compiled(self, given: nn.Module) -> Callable[..., Tensor]:
        """What computes the network's answers: compiled where that is asked for, or where the
        network ``given`` was compiled already, with options of its caller's."""
        if is_compiled(given) and self.ranks.count == 1:
            return given
        if is_compiled(given) or self.config.compile:
            return hardware.compiled(self._wrapped)
        return self._wrapped

    def _draw_order(self, *, with_noise: bool) -> None:
        """Draws the order of the examples where the noise is drawn, or else on the CPU."""
        own = torch.Generator().manual_seed(self.config.seed)
        self.order = Shuffled(len(self.store), self.generator if with_noise else own)

    def step(self) -> Tensor:
        """One training step; its loss, a scalar that stays on the device.

        Where the network or its loss raises, everything is as it was before the step.
        """
        self._rewind.remember(self.generator, self.order)
        try:
            batch = self._next_batch()
            each = self._backward(batch)
            self._learn_steps(batch.t, each)
        except BaseException:
            self._zero_grad()
            self._rewind.put_back()
            raise
        self.is_between_steps = False
        together = AllOrNone(self.optimizers)  # an overflow anywhere leaves out the whole step
        self.scaler.unscale_(together)  # type: ignore[arg-type]
        if self.config.grad_clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.config.grad_clip)
        self.scaler.step(together)  # type: ignore[arg-type]
        self.scaler.update()
        self._zero_grad()
        update_ema(self.ema, self.network, ema_decay(self.steps_done, self.config.ema))
        self.steps_done += 1
        self.is_between_steps = True
        return (batch.factor * each).mean()

    def _zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def _next_batch(self) -> Batch:
        """This rank's share of the next batch; the random numbers are those of the whole one."""
        count, share = self.config.batch_size, self.ranks.share
        x0, condition = self.store.pick(share(self.order.take(count)))
        if condition is not None and self.no_condition is not None:
            hidden = uniform(count, self.generator, self.device) < self.config.label_drop
            condition = replace_rows(condition, share(hidden), self.no_condition)
        t, factor = self.step_sampler.draw(count, generator=self.generator, device=self.device)
        shape = (count, *x0.shape[1:])
        eps = torch.randn(shape, generator=self.generator, device=self.device, dtype=x0.dtype)
        return Batch(x0, share(t), share(eps), share(factor), condition)

    def _backward(self, batch: Batch) -> PerSample:
        """Adds up the gradients of the mean loss, part by part; the losses of the samples (B,)."""
        parts = batch.parts(self.config.accumulate)
        seen = []
        for number, part in enumerate(parts, 1):
            is_last = number == len(parts)
            with contextlib.nullcontext() if is_last else parallel.without_average(self._wrapped):
                each = self._losses(part)
                loss = (part.factor * each).mean() / len(parts)
                self.scaler.scale(loss).backward()
            seen.append(each.detach())
        return torch.cat(seen)

    def _losses(self, batch: Batch) -> PerSample:
        """The weighted loss of each sample, (B,)."""
        try:
            if self.config.target == self.config.weight == "velocity":
                return self._flow_losses(batch)
            model = self._eps_model(self._forward, batch.condition)
            each = losses.epsilon_losses(model, self.schedule, batch.x0, batch.t, batch.eps)
        except ValueError as error:  # an answer that is not finite, met on the way to the loss
            raise TrainingError(f"at step {self.steps_done + 1}: {error}") from error
        weight = weight_of(self.config)
        return each if weight is None else weight(self.schedule, batch.t).to(each) * each

    def _flow_losses(self, batch: Batch) -> PerSample:
        """The eps losses with the weight velocity, (B,), not by way of eps: near time 1 the error
        of eps is a small difference, the weight is up to 4e8, and the digits would be lost."""
        network = self._in_precision(told(self._forward, batch.condition))
        time = at_steps(flows.times_of(self.schedule), batch.t, batch.x0).flatten()
        return flows.flow_losses(lambda x, time: network(x, batch.t), batch.x0, time, batch.eps)

    def _eps_model(self, network: Callable[..., Tensor], condition: Condition | None) -> EpsModel:
        model = as_eps_model(network, self.schedule, self.config.target, condition)
        return self._in_precision(model)

    def _in_precision(self, model: EpsModel) -> EpsModel:
        few = self._calls_attention
        return hardware.in_precision(model, self.device, self.precision, few_token_attention=few)

    def _learn_steps(self, t: Steps, each: PerSample) -> None:
        """Tells a step sampler that learns the losses of the whole batch."""
        if not self.step_sampler.learns:
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
        scale_rates(self.optimizers, self._lr_factor(self.steps_done))

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

    def conditions_for(self, count: int) -> Condition | None:
        """Conditions for ``count`` samples, on the device: every label of the data in turn, or the
        words of the first examples; None without conditions."""
        condition = self.store.condition
        if condition is None:
            return None
        rows = condition.unique() if condition.ndim == 1 else condition
        return rows[torch.arange(count, device=rows.device) % len(rows)].to(self.device)

    @torch.no_grad()
    def _check_answer(self) -> None:
        """Calls the network once, so that one that does not fit is known before anything is
        written: for the first and the last step, the highest label or word, and no condition."""
        chosen = torch.zeros(3, dtype=torch.int64, device=self.store.kept_on)
        if self.store.condition is not None:
            rows = self.store.condition.reshape(len(self.store), -1)  # (N, 1) or (N, L)
            chosen[1] = rows.amax(1).argmax()
        x0, condition = self.store.pick(chosen)
        last = self.schedule.num_steps
        t = torch.tensor([1, last, last], device=self.device)
        told = f"steps up to {last}"
        if condition is not None:
            told += f", conditions up to {int(condition.max())}"
            if self.no_condition is not None and self.config.label_drop:
                condition = replace_rows(condition, t.new_tensor([0, 0, 1]) > 0, self.no_condition)
                told += f" and no_condition, {self.no_condition.tolist()}"

        def answered(x_t: Tensor, t: Tensor, *condition: Tensor) -> Tensor:
            answer = _validate.answer("model", self.network(x_t, t, *condition), x_t)
            return _validate.finite("the answer of model", answer)

        self.network.eval()
        model = self._eps_model(answered, condition)
        try:
            self._calls_attention = hardware.calls_attention(lambda: model(x0, t))
        except IndexError as error:  # from a table of steps or conditions
            raise InvalidValueError(f"model must know {told}: {error}") from error

    def _check_memory(self) -> None:
        """Raises ValueError where what the network keeps of a batch, to compute gradients from it,
        cannot fit in memory. Measured on one example, and only where the batch is large."""
        parts = self.config.accumulate * self.ranks.count
        count = self.config.batch_size // parts
        if count * self.store.x[0].nbytes * _MOST_KEPT < _memory.total(self.device):
            return
        index = torch.zeros(1, dtype=torch.int64, device=self.store.kept_on)
        x0, condition = self.store.pick(index)
        model = self._eps_model(self.network.eval(), condition)
        t = torch.ones(1, dtype=torch.int64, device=self.device)
        weights = {weight.untyped_storage().data_ptr() for weight in self.network.parameters()}
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            answer = model(x0, t)  # held, so that no storage is used a second time
        del answer
        needed, size = count * sum(kept.values()), self.config.batch_size
        what = "what the network keeps of a batch for its gradients"
        _memory.check_fits("batch_size", size, needed, what, self.device)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the next step depends on: tensors by name, and what JSON can hold.

        Every rank must call this: each has random numbers of its own, for dropout.
        """
        tensors = {
            **states.module_tensors("network.", self.network),
            **states.module_tensors("ema.", self.ema),
            **states.optimizer_tensors(self.optimizers),
            "order": self.order.rest,
            "random.order": self.order.generator.get_state(),
            "random.run": self.generator.get_state(),
        }
        for name, own in dropout_states(self.device).items():
            tensors[f"random.{name}"] = self.ranks.gather(own[None])  # (ranks, bytes)
        for name, value in self.step_sampler.state_dict().items():
            tensors[f"step_sampler.{name}"] = value
        facts = {"steps": self.steps_done, "seconds": self.seconds}
        facts["data_on"] = self.order.generator.device.type  # where the run began decides the order
        return tensors, {**facts, "scaler": self.scaler.state_dict()}

    def restore(self, state: State) -> None:
        """Continues the run from ``state``.

        Raises:
            CheckpointError: the state is of another network.
        """
        tensors, facts = state.tensors, state.facts
        states.fill_module(state, "network.", self.network)
        states.fill_module(state, "ema.", self.ema)
        states.fill_optimizers(self.optimizers, tensors)
        self.scaler.load_state_dict(facts["scaler"])
        # the same order as before, even if the data are kept elsewhere now
        self._draw_order(with_noise=facts["data_on"] == self.device.type)
        self.order.generator.set_state(tensors["random.order"])
        self.order.resume(tensors["order"])
        self.generator.set_state(tensors["random.run"])
        for name in dropout_states(self.device):
            kept = tensors[f"random.{name}"]
            if self.ranks.rank < len(kept):  # a rank that was not there keeps its fresh numbers
                set_dropout_state(name, kept[self.ranks.rank], self.device)
        learned = {name: tensors[f"step_sampler.{name}"] for name in self.step_sampler.state_dict()}
        self.step_sampler.load_state_dict(learned)
        self.steps_done, self.seconds = facts["steps"], facts["seconds"]
        self.update_lr()

    def check_scale(self) -> None:
        """Raises TrainingError where fp16 gradients overflow however small the loss is made."""
        if self.scaler.is_enabled() and self.scaler.get_scale() < SMALLEST_SCALE:
            advice = "they are not finite; try a smaller lr or precision fp32"
            raise TrainingError(
                f"gradients overflow at every scale by step {self.steps_done}: {advice}"
            )


def data_device(size: int, device: torch.device, ranks: Ranks) -> torch.device:
    """Where data of ``size`` bytes stay: on ``device`` if they fit there on every rank.

    The order of the examples is drawn where they are, so all ranks must keep them on the same kind
    of device: otherwise each would go through an order of its own.
    """
    return device if ranks.all(hardware.fits(size, device)) else torch.device("cpu")


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


def _trainable(network: object) -> nn.Module:
    """``network`` without the wrappers of compilers and of several GPUs, if it can be trained.

    Raises:
        TypeError, ValueError: it is no module, has nothing to train, or its weights are not
            float32, which they stay while it computes in another precision.
    """
    if not isinstance(network, nn.Module):
        got = _validate.describe(network)
        raise InvalidTypeError(f"model must be a torch.nn.Module, whose weights train; got {got}")
    plain = unwrapped(network)
    for name, weight in plain.named_parameters():
        if isinstance(weight, UninitializedParameter):
            raise InvalidValueError(f"model must have its weights, call it once: {name} has none")
        _validate.held(f"{name} of model", weight)
        if weight.dtype != torch.float32:
            advice = "call model.float(); config.precision says what it computes in"
            raise InvalidTypeError(
                f"model must have float32 weights, got {weight.dtype} in {name}: {advice}"
            )
    if not any(weight.requires_grad for weight in plain.parameters()):
        raise InvalidValueError("model must have weights to train, got none with requires_grad")
    return plain


def _check_classes(network: nn.Module, data: Examples) -> None:
    """Raises ValueError where a network says how many classes it knows, and the data have others.

    Its checkpoints could not say which class is which.
    """
    count, names = class_count(network), data.class_names
    if count and names and count != len(names):
        raise InvalidValueError(f"model must know the {len(names)} classes of data, got {count}")
    condition = data.condition
    if count and condition is not None and condition.ndim == 1 and condition.max() >= count:
        most = int(condition.max())
        raise InvalidValueError(f"model must know label {most} of data, got {count} classes")


def network_arguments(config: TrainConfig) -> dict[str, Any]:
    """The arguments of a ``TinyUNet`` that ``config`` decides."""
    names = ("widths", "blocks", "patch", "bottom_blocks")
    return {name: getattr(config, name) for name in names}


def new_network(config: TrainConfig, data: object) -> TinyUNet | TextUNet:
    """An untrained network as ``config`` describes it, for the images and classes of ``data``: a
    ``TextUNet`` where ``config.text``, which takes captions.

    Its first weights come from torch's global random state.

    Args:
        config: gives widths, blocks, patch, and whether the network is told classes or captions.
        data: as ``train`` takes it: (N, C, H, W), with labels (N,) where ``config.conditional``, or
            with captions and their vocabulary where ``config.text``.

    Raises:
        ValueError: the data are not images or latents, have no captions where ``config.text`` asks
            for them, or words for conditions that have no vocabulary: a network for them has to be
            passed to ``train`` as ``model``.
    """
    examples = Examples.of(data)
    if examples.x.ndim != 4:
        shape = tuple(examples.x.shape)
        raise InvalidValueError(f"model must be given for data that are not (N, C, H, W): {shape}")
    if config.text:
        return _new_text_network(config, examples)
    return TinyUNet(
        examples.x.shape[1],
        num_classes=_class_count(examples) if config.conditional else None,
        **network_arguments(config),
    ).float()  # whatever torch's default is


def _new_text_network(config: TrainConfig, examples: Examples) -> TextUNet:
    vocabulary = examples.vocabulary
    if vocabulary is None:
        raise InvalidValueError("text needs a data set with captions, such as scenes")
    return TextUNet(
        examples.x.shape[1],
        len(vocabulary),
        vocabulary.length,
        text_width=config.text_width,
        text_layers=config.text_layers,
        **network_arguments(config),
    ).float()


def _class_count(data: Examples) -> int:
    """How many classes the labels of ``data`` have."""
    labels = _condition_of(data)
    if data.vocabulary is not None:
        raise InvalidValueError("conditional needs labels; for captions ask for text")
    if labels.ndim != 1:
        shape = tuple(labels.shape)
        raise InvalidValueError(
            f"model must be given for conditions that are not labels (N,), got {shape}"
        )
    return len(data.class_names) or int(labels.max()) + 1


def _condition_of(data: Examples) -> Condition:
    if data.condition is None:
        raise InvalidValueError("conditional needs data with conditions: a pair (x, condition)")
    return data.condition


def _no_condition(
    config: TrainConfig, network: nn.Module, data: Examples, device: torch.device
) -> Tensor | None:
    """The row that means "no condition", on ``device``; None for an unconditional run."""
    if not config.conditional:
        return None
    condition = _condition_of(data)
    row = getattr(network, "no_condition", None)
    if row is None and data.class_names:
        row = torch.tensor(len(data.class_names))
    if row is None:
        message = "model must have no_condition, the row that means no condition"
        raise InvalidValueError(f"{message}, of shape {tuple(condition.shape[1:])}")
    if not isinstance(row, Tensor) or row.dtype != torch.int64:
        raise InvalidTypeError("no_condition of model must be an int64 tensor")
    if row.shape != condition.shape[1:]:
        expected, got = tuple(condition.shape[1:]), tuple(row.shape)
        raise InvalidValueError(f"no_condition of model must have shape {expected}; got {got}")
    return row.to(device)
