"""Guidance: ask a model for a class, and say how much it is to insist.

A *labelled* model is called as ``eps_hat = model(x_t, t, labels)``. Everything here turns one into
an ``EpsModel``, so the samplers never learn that there are classes, let alone a guidance scale.
"""

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tutorial_lib import _validate
from tutorial_lib._random import uniform
from tutorial_lib._typing import EpsModel, States, Steps
from tutorial_lib.checkpoints import as_eps_model
from tutorial_lib.oracles import GaussianMixtureOracle
from tutorial_lib.schedules import NoiseSchedule


@runtime_checkable
class LabelledModel(Protocol):
    """A denoiser that can be told the class: ``eps_hat = model(x_t, t, labels)``.

    ``labels`` is int64 (B,), one for each sample, in 0..num_classes; label ``num_classes`` means
    "no class". ``x_t`` (B, ...), ``t`` (B,) and the answer are as for an ``EpsModel``.
    """

    def __call__(self, x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor: ...


def drop_labels(
    labels: Steps, p: float, num_classes: int, generator: torch.Generator | None = None
) -> Steps:
    """The labels, each on its own replaced by "no class" with probability ``p``.

    Trained on these, one network learns both the conditional and the unconditional answer
    (Ho & Salimans 2022, algorithm 1, there p_uncond; they find 0.1 to 0.2 about equally good).

    Args:
        labels: int64 (B,), in 0..num_classes.
        p: in [0, 1]; 0 keeps all labels, 1 drops all.
        num_classes: the label that means "no class".
        generator: decides which; None is torch's default one.

    Returns:
        int64 (B,), a new tensor.

    Raises:
        TypeError, ValueError: an argument of another kind, shape or range.
    """
    num_classes = _validate.whole_number("num_classes", num_classes, at_least=1)
    _check_labels(labels, num_classes)
    p = _validate.number("p", p, low=0.0, high=1.0)
    dropped = uniform(len(labels), generator, labels.device) < p
    return labels.masked_fill(dropped, num_classes)


def labelled(network: nn.Module, schedule: NoiseSchedule, target: str) -> LabelledModel:
    """A labelled model out of a class-conditional network trained to say ``target``.

    Args:
        network: called as ``network(x_t, t, labels)``.
        schedule: the schedule it was trained for.
        target: "eps", "v" or "x0".

    Raises:
        ValueError: another word for ``target``.
    """
    as_eps_model(network, schedule, target)  # refuses a wrong target now, not at the first step

    def model(x_t: States, t: Steps, labels: Steps) -> States:
        return as_eps_model(network, schedule, target, labels)(x_t, t)

    return model


def condition(model: LabelledModel, labels: Steps) -> EpsModel:
    """The model that knows which class each sample of its batch is to be.

    Args:
        model: asked with ``labels`` at every step.
        labels: int64 (B,), one for each sample of the walk.

    Raises:
        TypeError, ValueError: ``labels`` no int64 tensor (B,) or below 0; during the walk, a batch
            of another size.
    """
    _check_labels(labels)

    def conditioned(x_t: States, t: Steps, /) -> States:
        _check_batch(x_t, labels)
        return model(x_t, t, labels)

    return conditioned


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
    scale = _check_scale(scale)
    if scale in (0.0, 1.0):
        return conditional if scale else unconditional

    def model(x_t: States, t: Steps, /) -> States:
        with_class = _validate.answer("conditional", conditional(x_t, t), x_t)
        without = _validate.answer("unconditional", unconditional(x_t, t), x_t)
        return torch.lerp(without.to(x_t), with_class.to(x_t), scale)

    return model


def guide(model: LabelledModel, labels: Steps, scale: float, num_classes: int) -> EpsModel:
    """Classifier-free guidance by one labelled model, in one call of 2 B where two answers are
    needed: the same numbers as ``guided`` of its two halves, apart from rounding.

    Args:
        model: asked with ``labels``, and with "no class" for each sample.
        labels: int64 (B,), in 0..num_classes, one for each sample of the walk.
        scale: s, finite and at least 0; at 0 and 1 one call of B does.
        num_classes: the label that means "no class".

    Raises:
        TypeError, ValueError: an argument of another kind, shape or range; during the walk, a batch
            of another size or an answer in another shape.
    """
    scale = _check_scale(scale)
    num_classes = _validate.whole_number("num_classes", num_classes, at_least=1)
    _check_labels(labels, num_classes)
    no_class = torch.full_like(labels, num_classes)
    if scale in (0.0, 1.0):
        return condition(model, labels if scale else no_class)
    both_labels = torch.cat([labels, no_class])  # (2B,)

    def twice(x_t: States, t: Steps, /) -> States:
        _check_batch(x_t, labels)
        x_twice = torch.cat([x_t, x_t])  # (2B, ...)
        answer = _validate.answer("model", model(x_twice, t.repeat(2), both_labels), x_twice)
        with_class, without = answer.to(x_t).chunk(2)  # (B, ...) each
        return torch.lerp(without, with_class, scale)

    return twice


class LabelledMixture:
    """The exact labelled model for a mixture of Gaussians whose components carry labels.

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
        _check_labels(labels)
        if len(labels) != len(means):
            raise ValueError(f"labels must be {len(means)}, one a mean; got {len(labels)}")
        counts = labels.bincount()
        if (counts == 0).any():
            gap = int((counts == 0).nonzero()[0])
            raise ValueError(f"labels must be 0..{len(counts) - 1} without a gap; {gap} is missing")
        self.num_classes = len(counts)
        members = [labels == label for label in range(self.num_classes)]
        self.oracles = [
            GaussianMixtureOracle(schedule, means[m], variances[m], weights[m]) for m in members
        ]
        self.oracles.append(everything)

    def __call__(self, x_t: States, t: Steps, labels: Steps) -> States:
        """The best eps_hat for ``x_t`` (B, ...) at steps ``t`` (B,), each knowing its label."""
        _check_labels(labels, self.num_classes)
        _check_batch(x_t, labels)
        eps_hat = torch.empty_like(x_t)
        for label in labels.unique().tolist():
            own = labels == label
            eps_hat[own] = self.oracles[label](x_t[own], t[own])
        return eps_hat


def _check_scale(scale: float) -> float:
    return _validate.number("scale", scale, low=0.0, high=math.inf)


def _check_labels(labels: object, num_classes: int = torch.iinfo(torch.int64).max) -> None:
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels must be an int64 tensor (B,), got {_validate.describe(labels)}")
    if labels.ndim != 1:
        raise ValueError(f"labels must have shape (B,), one a sample; got {tuple(labels.shape)}")
    _validate.steps("labels", labels, batch=len(labels), low=0, high=num_classes)


def _check_batch(x_t: Tensor, labels: Tensor) -> None:
    if len(x_t) != len(labels):
        raise ValueError(f"labels must be one for each of {len(x_t)} samples; got {len(labels)}")
