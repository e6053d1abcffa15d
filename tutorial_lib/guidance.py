"""Guidance: tell a model what each sample is to be, and choose how strongly to insist.

A *conditional* model is called as ``eps_hat = model(x_t, t, condition)``. Everything here turns one
into an ``EpsModel``, so samplers never need to know about conditions, let alone a guidance scale.

A condition is one int64 tensor with a row a sample: labels (B,) or the words of sentences (B, L).
What a model is told when it is told nothing is one such row, ``no_condition``. For labels it may be
given as an int: the number of classes, since classes are 0..num_classes - 1.
"""

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tutorial_lib import _validate
from tutorial_lib._random import uniform
from tutorial_lib._typing import Condition, EpsModel, States, Steps
from tutorial_lib._validate import InvalidTypeError, InvalidValueError
from tutorial_lib.oracles import GaussianMixtureOracle
from tutorial_lib.predictions import as_eps_model
from tutorial_lib.schedules import NoiseSchedule


@runtime_checkable
class LabeledModel(Protocol):
    """A denoiser that takes a condition: ``eps_hat = model(x_t, t, condition)``.

    ``condition`` is int64 with a row a sample: labels (B,) in 0..num_classes, where ``num_classes``
    means "no class", or words (B, L). ``x_t`` (B, ...), ``t`` (B,) and the answer are as for an
    ``EpsModel``.
    """

    def __call__(self, x_t: Tensor, t: Tensor, condition: Tensor, /) -> Tensor: ...


def drop_condition(
    condition: Condition,
    p: float,
    no_condition: Tensor | int,
    generator: torch.Generator | None = None,
) -> Condition:
    """The condition, each row independently replaced by ``no_condition`` with probability ``p``.

    Trained on these, one network learns both the conditional and the unconditional answer
    (Ho & Salimans 2022, algorithm 1, there p_uncond; they find 0.1 to 0.2 about equally good).

    Args:
        condition: int64, labels (B,) or words (B, L).
        p: in [0, 1]; 0 keeps all rows, 1 drops all.
        no_condition: the row that means "no condition": int64 () or (L,), or an int for labels.
        generator: decides which rows; None uses torch's default generator.

    Returns:
        int64 of the shape of ``condition``, a new tensor.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or range.
    """
    nothing = _no_condition(no_condition, condition)
    p = _validate.number("p", p, low=0.0, high=1.0)
    dropped = uniform(len(condition), generator, condition.device) < p
    return replace_rows(condition, dropped, nothing)


def drop_labels(
    labels: Steps, p: float, num_classes: int, generator: torch.Generator | None = None
) -> Steps:
    """``drop_condition`` for labels (B,): each becomes ``num_classes`` with probability ``p``.

    Raises:
        TypeError, ValueError: as ``drop_condition``; ``num_classes`` below 1.
    """
    num_classes = _validate.whole_number("num_classes", num_classes, at_least=1)
    _check_condition(labels, num_classes, name="labels", row=())
    return drop_condition(labels, p, num_classes, generator)


def replace_rows(condition: Condition, dropped: Tensor, no_condition: Tensor) -> Condition:
    """``condition`` with ``no_condition`` in the rows that ``dropped``, bool (B,), marks."""
    marked = dropped.view(-1, *[1] * (condition.ndim - 1))
    return torch.where(marked, no_condition.to(condition.device), condition)


def labeled(network: nn.Module, schedule: NoiseSchedule, target: str) -> LabeledModel:
    """A conditional model from a network trained to predict ``target``.

    Args:
        network: called as ``network(x_t, t, condition)``.
        schedule: the schedule it was trained for.
        target: "eps", "v", "x0" or "velocity".

    Raises:
        ValueError: ``target`` is none of these.
    """
    as_eps_model(network, schedule, target)  # refuses a wrong target now, not at the first step

    def model(x_t: States, t: Steps, labels: Condition) -> States:
        return as_eps_model(network, schedule, target, labels)(x_t, t)

    return model


def condition(model: LabeledModel, condition: Condition) -> EpsModel:
    """The model that knows what each sample of its batch is to be.

    Args:
        model: called with ``condition`` at every step.
        condition: int64 with a row a sample: labels (B,) or words (B, L).

    Raises:
        TypeError, ValueError: ``condition`` is not such a tensor or has entries below 0; during the
            walk, a batch of another size.
    """
    _validate.function("model", model)
    _check_condition(condition)

    def conditioned(x_t: States, t: Steps, /) -> States:
        _check_batch(x_t, condition)
        return model(x_t, t, condition)

    return conditioned


_told = condition  # ``guide`` has an argument of that name


def guided(conditional: EpsModel, unconditional: EpsModel, scale: float) -> EpsModel:
    """Classifier-free guidance: eps = eps_uncond + s (eps_cond - eps_uncond).

    Scale 0 is the unconditional model and 1 the conditional one, exactly, and neither asks the
    other; above 1 the difference between the two is exaggerated. (Ho & Salimans 2022, eq. 6, there
    with w = s - 1.) The answer points along the score of p(x_t) p(c | x_t)^s.

    Args:
        conditional: knows the class.
        unconditional: does not. Any two models with like answers will do.
        scale: s, finite and at least 0.

    Raises:
        TypeError, ValueError: ``scale`` out of range; during the walk, a model that answers in
            another shape.
    """
    _validate.function("conditional", conditional)
    _validate.function("unconditional", unconditional)
    scale = _check_scale(scale)
    if scale in (0.0, 1.0):
        return conditional if scale else unconditional

    def model(x_t: States, t: Steps, /) -> States:
        with_class = _validate.answer("conditional", conditional(x_t, t), x_t)
        without = _validate.answer("unconditional", unconditional(x_t, t), x_t)
        return torch.lerp(without.to(x_t), with_class.to(x_t), scale)

    return model


def guide(
    model: LabeledModel, condition: Condition, scale: float, no_condition: Tensor | int
) -> EpsModel:
    """Classifier-free guidance with one conditional model, in one call on 2 B samples where two
    answers are needed: the same numbers as ``guided`` with its two halves, apart from rounding.

    Args:
        model: called with ``condition``, and with ``no_condition`` for each sample.
        condition: int64 with a row a sample: labels (B,) or words (B, L).
        scale: s, finite and at least 0; at 0 and 1 one call on B samples is enough.
        no_condition: the row that means "no condition": int64 () or (L,); ``network.no_condition``
            where there is one. For labels an int will do, the number of classes.

    Raises:
        TypeError, ValueError: an argument of the wrong type, shape or range; during the walk, a
            batch of another size or an answer of another shape.
    """
    _validate.function("model", model)
    scale = _check_scale(scale)
    nothing = _no_condition(no_condition, condition).to(condition.device).expand_as(condition)
    if scale in (0.0, 1.0):
        return _told(model, condition if scale else nothing)
    both = torch.cat([condition, nothing])  # (2B, ...)

    def twice(x_t: States, t: Steps, /) -> States:
        _check_batch(x_t, condition)
        x_twice = torch.cat([x_t, x_t])  # (2B, ...)
        answer = _validate.answer("model", model(x_twice, t.repeat(2), both), x_twice)
        conditional, unconditional = answer.to(x_t).chunk(2)  # (B, ...) each
        return torch.lerp(unconditional, conditional, scale)

    return twice


class LabeledMixture:
    """The exact labeled model for a mixture of Gaussians whose components carry labels.

    Asked with a class it answers for that class's components alone, asked with "no class" for the
    whole mixture: what a perfectly trained class-conditional network would say.

    Args:
        schedule: the schedule that noises the data.
        means: (K, ...), one mean a component.
        variances: (K,), 0 or more.
        weights: (K,), above 0; they are scaled to sum to 1.
        labels: int64 (K,), the class of each component; classes 0..C-1, each with at least one.

    Attributes:
        num_classes: C, the label that means "no class".
        oracles: C + 1 oracles, one for each class and then the one for all.

    Raises:
        TypeError, ValueError: as ``GaussianMixtureOracle``; labels of another kind or with a gap.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        means: Tensor,
        variances: Tensor,
        weights: Tensor,
        labels: Tensor,
    ) -> None:
        everything = GaussianMixtureOracle(schedule, means, variances, weights)
        _check_condition(labels, name="labels", row=())
        if len(labels) != len(means):
            raise InvalidValueError(f"labels must be {len(means)}, one a mean; got {len(labels)}")
        counts = labels.bincount()
        if (counts == 0).any():
            gap = int((counts == 0).nonzero()[0])
            raise InvalidValueError(
                f"labels must be 0..{len(counts) - 1} without a gap; {gap} is missing"
            )
        self.num_classes = len(counts)
        members = [labels == label for label in range(self.num_classes)]
        self.oracles = [
            GaussianMixtureOracle(schedule, means[m], variances[m], weights[m]) for m in members
        ]
        self.oracles.append(everything)

    def __call__(self, x_t: States, t: Steps, labels: Steps) -> States:
        """The best eps_hat for ``x_t`` (B, ...) at steps ``t`` (B,), each knowing its label."""
        _check_condition(labels, self.num_classes, name="labels", row=())
        _check_batch(x_t, labels)
        eps_hat = torch.empty_like(x_t)
        for label in labels.unique().tolist():
            own = labels == label
            eps_hat[own] = self.oracles[label](x_t[own], t[own])
        return eps_hat


def _check_scale(scale: float) -> float:
    return _validate.number("scale", scale, low=0.0, high=math.inf)


def _check_condition(
    condition: object,
    high: int = torch.iinfo(torch.int64).max,
    *,
    name: str = "condition",
    row: tuple[int, ...] | None = None,
) -> None:
    """Raises unless ``condition`` is int64, labels (B,) or words (B, L), with entries in 0..high.

    ``row`` is the shape that each row must have, where only one will do. Values are looked at on
    the CPU only, for the reason given in ``_validate.steps``.
    """
    kinds = "labels (B,) or words (B, L)" if row is None else "(B,), one a sample"
    if not isinstance(condition, Tensor):
        raise InvalidTypeError(
            f"{name} must be an int64 tensor {kinds}, got {_validate.describe(condition)}"
        )
    if condition.dtype != torch.int64:
        raise InvalidTypeError(f"{name} must be int64, got {condition.dtype}")
    _validate.held(name, condition)
    shape = tuple(condition.shape)
    if condition.ndim not in (1, 2) or (row is not None and shape[1:] != row):
        raise InvalidValueError(f"{name} must have shape {kinds}; got {shape}")
    if condition.device.type == "cpu" and condition.numel():
        low, top = int(condition.min()), int(condition.max())
        if low < 0 or top > high:
            limit = f"in 0..{high}" if high < torch.iinfo(torch.int64).max else "at least 0"
            raise InvalidValueError(f"{name} must be {limit}, got {low if low < 0 else top}")


def _no_condition(no_condition: object, condition: Tensor) -> Tensor:
    """``no_condition`` as a row of ``condition``, which is checked too; an error if it is none."""
    if not isinstance(no_condition, Tensor):
        top = _validate.whole_number("no_condition", no_condition, at_least=1)
        _check_condition(condition, top)
        if condition.ndim != 1:
            raise InvalidValueError(
                "no_condition must be a tensor (L,) for words (B, L), got an int"
            )
        return torch.tensor(top)
    _check_condition(condition)
    _validate.held("no_condition", no_condition)
    if no_condition.dtype != torch.int64:
        raise InvalidTypeError(f"no_condition must be int64, got {no_condition.dtype}")
    if no_condition.shape != condition.shape[1:]:
        expected, got = tuple(condition.shape[1:]), tuple(no_condition.shape)
        raise InvalidValueError(
            f"no_condition must be one row of condition, of shape {expected}; got {got}"
        )
    return no_condition


def _check_batch(x_t: Tensor, condition: Tensor) -> None:
    if len(x_t) != len(condition):
        raise InvalidValueError(
            f"condition must have a row for each of {len(x_t)} samples; got {len(condition)}"
        )


LabelledModel, LabelledMixture, labelled = LabeledModel, LabeledMixture, labeled
"""The names of earlier versions."""
