"""Digits on demand: labels, dropping them, and exaggerating what they change."""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.checks.framework import (
    Choice,
    Exercise,
    Mistake,
    Number,
    Property,
    Wrong,
    per_sample,
    tensor_like,
)
from tutorial_lib.forward import diffuse
from tutorial_lib.predictions import velocity
from tutorial_lib.schedules import cosine_schedule, linear_schedule

# --- the row of a class ---------------------------------------------------------------------------


def _add_class(table, step_vector, labels):
    rows = table[-1] if labels is None else table[labels]
    return step_vector + rows


def _add_class_cases(generator: torch.Generator):
    for num_classes, width, labels in (
        (10, 8, [3, 10, 0, 7, 3]),
        (3, 4, [0]),
        (3, 4, [3]),
        (2, 3, [1, 0, 2]),  # as many samples as rows and as numbers in a row
        (4, 6, [4, 4, 1, 0, 2, 3]),
        (10, 8, None),
        (3, 4, None),
        (5, 2, None),
    ):
        count = len(labels) if labels is not None else num_classes % 4 + 1
        table = torch.randn(num_classes + 1, width, generator=generator)
        step_vector = torch.randn(count, width, generator=generator)
        yield table, step_vector, None if labels is None else torch.tensor(labels)


def _with_gradients(answer: Callable, table: Tensor, step_vector: Tensor, labels) -> object:
    """The vector, and what reaches the table and the step's vector of a gradient sent back."""
    leaves = [x.clone().requires_grad_() for x in (table, step_vector)]
    came = answer(leaves[0], leaves[1] * 1, labels)  # times 1, so that it may be written into
    if came is ...:
        return ...
    vector = tensor_like(came, step_vector)
    gradients = [torch.zeros_like(x) for x in leaves]
    if isinstance(came, Tensor) and came.requires_grad:
        sent = torch.sin(torch.arange(came.numel()) + 1.0).reshape(came.shape).to(came)
        found = torch.autograd.grad(came, leaves, sent, allow_unused=True)
        gradients = [z if g is None else g for g, z in zip(found, gradients, strict=True)]
    return vector, *gradients


def _one_hot(table, step_vector, labels):
    if labels is None:
        labels = torch.full((len(step_vector),), len(table) - 1)
    return step_vector + F.one_hot(labels, len(table)).to(table) @ table


def _row_by_row(table, step_vector, labels):
    last = len(table) - 1
    names = [last] * len(step_vector) if labels is None else labels.tolist()
    return torch.stack([v + table[n] for v, n in zip(step_vector, names, strict=True)])


def _added_in_place(table, step_vector, labels):
    step_vector += F.embedding(torch.tensor([len(table) - 1]) if labels is None else labels, table)
    return step_vector


add_class = Exercise(
    "lesson08.add_class",
    "Add the row of the class",
    difficulty=1,
    minutes=6,
    hints=(
        "`table[labels]` takes one row for each label: (B, width), as many numbers as "
        "`step_vector` has.",
        "First ask whether `labels is None`. Then every sample gets the same row, the last one: "
        "`table[-1]`, and broadcasting does the rest.",
    ),
    model_answer=_add_class,
    cases=_add_class_cases,
    use=_with_gradients,
    together=True,  # gradients go back to the table
    parts=("the sum", "gradient at the table", "gradient at step_vector"),
    mistakes=(
        Mistake(
            "None not handled",
            lambda table, step_vector, labels: step_vector + table[labels],
            "Right where there are labels. But `labels` may be None, and `table[None]` is the "
            "whole table with one more axis. Then each sample gets the last row.",
        ),
        Mistake(
            "None adds nothing",
            lambda table, step_vector, labels: (
                step_vector + (0 * table[0] if labels is None else table[labels])
            ),
            "Without labels you add nothing. 'No class' has a row of its own, the last one, and it "
            "is learned like the others.",
        ),
        Mistake(
            "None is class 0",
            lambda table, step_vector, labels: (
                step_vector + (table[0] if labels is None else table[labels])
            ),
            "Without labels you add the row of class 0. 'No class' is the last row.",
        ),
        Mistake(
            "None is the mean",
            lambda table, step_vector, labels: (
                step_vector + (table.mean(0) if labels is None else table[labels])
            ),
            "Without labels you add the mean of all rows. 'No class' has a row of its own.",
        ),
        Mistake(
            "None is the last class",
            lambda table, step_vector, labels: (
                step_vector + (table[-2] if labels is None else table[labels])
            ),
            "Without labels you add the row of the last class. 'No class' comes after all the "
            "classes: it is the last row of the table.",
        ),
        Mistake(
            "never told",
            lambda table, step_vector, labels: step_vector + table[-1],
            "Every sample gets the row for 'no class', whatever its label says.",
        ),
        Mistake(
            "nothing added",
            lambda table, step_vector, labels: step_vector * 1,
            "You return step_vector as it came: nothing says the class. Add the row of each label.",
        ),
        Mistake(
            "the rows alone",
            lambda table, step_vector, labels: (
                table[-1].expand(len(step_vector), -1) if labels is None else table[labels]
            ),
            "You return the rows of the classes, and the step is lost: add them to `step_vector`.",
        ),
        Mistake(
            "multiplied",
            lambda table, step_vector, labels: (
                step_vector * (table[-1] if labels is None else table[labels])
            ),
            "You multiply the step's vector by the row. The two are added.",
        ),
        Mistake(
            "subtracted",
            lambda table, step_vector, labels: (
                step_vector - (table[-1] if labels is None else table[labels])
            ),
            "You subtract the row from the step's vector. The two are added.",
        ),
        Mistake(
            "side by side",
            lambda table, step_vector, labels: torch.cat(
                [
                    step_vector,
                    table[-1:].expand(len(step_vector), -1) if labels is None else table[labels],
                ],
                dim=1,
            ),
            "You put the two side by side, so the vector is twice as wide as the blocks expect. "
            "Add them.",
        ),
        Mistake(
            "one row off",
            lambda table, step_vector, labels: (
                step_vector + (table[-1] if labels is None else table[labels - 1])
            ),
            "You take the row before the right one: label 0 belongs to row 0.",
        ),
        Mistake(
            "one row for all",
            lambda table, step_vector, labels: (
                step_vector + (table[-1] if labels is None else table[labels[0]])
            ),
            "All samples get the row of the first label. Each has its own label.",
        ),
        Mistake(
            "the mean of the rows",
            lambda table, step_vector, labels: (
                step_vector + (table[-1] if labels is None else table[labels].mean(0))
            ),
            "You average the rows of the batch. Each sample gets the row of its own label.",
        ),
        Mistake(
            "a column",
            lambda table, step_vector, labels: (
                step_vector + (table[-1] if labels is None else table[:, labels].T)
            ),
            "You take columns of the table. A class has a row: the label goes first, "
            "`table[labels]`.",
        ),
        Mistake(
            "the number of the class",
            lambda table, step_vector, labels: (
                step_vector + (len(table) - 1 if labels is None else labels[:, None])
            ),
            "You add the number of the class. Is a nine nine times a one? Look its row up in the "
            "table.",
        ),
        Mistake(
            "no class is the last class",
            lambda table, step_vector, labels: (
                step_vector
                + (table[-2] if labels is None else table[labels.clamp(max=len(table) - 2)])
            ),
            "Label num_classes gets the row of the last class. It means 'no class', and its row is "
            "the last of the table.",
        ),
        Mistake(
            "None for label 0",
            lambda table, step_vector, labels: (
                step_vector + (table[-1] if labels is None or not labels.any() else table[labels])
            ),
            "A batch of label 0 counts as 'no labels' in yours: 0 is false for Python. Ask "
            "`labels is None`.",
        ),
        Mistake(
            "table cut off",
            lambda table, step_vector, labels: (
                step_vector + (table[-1] if labels is None else table[labels]).detach()
            ),
            "The sum is right, but no gradient reaches the table, so its rows could never learn. "
            "Leave out `.detach()`, `.data`, `no_grad` and `torch.tensor(...)`.",
        ),
        Mistake(
            "step cut off",
            lambda table, step_vector, labels: (
                step_vector.detach() + (table[-1] if labels is None else table[labels])
            ),
            "The sum is right, but no gradient reaches `step_vector`, so the layers that made it "
            "from t could not learn.",
        ),
        Mistake(
            "both cut off",
            lambda table, step_vector, labels: (
                step_vector + (table[-1] if labels is None else table[labels])
            ).detach(),
            "The sum is right, but it carries no gradient, so nothing could learn from it. Leave "
            "out `.detach()`, `torch.no_grad()` and `torch.tensor(...)`.",
        ),
    ),
    alternatives=(_one_hot, _row_by_row, _added_in_place),
    passed="Every block of the network will see this sum.",
)


# --- dropping labels ------------------------------------------------------------------------------

_MANY = 4000


def _drop_labels(labels, p, num_classes, generator):
    dropped = torch.rand(len(labels), generator=generator) < p
    return torch.where(dropped, num_classes, labels)


def _drop_cases(generator: torch.Generator):
    for p, num_classes in ((0.25, 10), (0.3, 3), (0.8, 5), (0.0, 4), (1.0, 10), (0.03, 7)):
        # class 0 is left out, so that a label 0 in the answer shows
        labels = torch.randint(1, num_classes, (_MANY,), generator=generator)
        yield labels, p, num_classes, torch.Generator().manual_seed(num_classes)


def _drop_figures(answer: Callable, labels, p, num_classes, generator) -> tuple:
    """Shares that do not depend on the order of draws: how many are dropped, in each half and
    for batches of one; how many of the others are kept as they were; whether neighbors fall
    together."""
    before = labels.clone()
    came = answer(labels, p, num_classes, generator)
    if isinstance(came, Tensor) and came.ndim == 1 and len(came) < len(before):
        raise Wrong("shape", _REMOVED, "removed")
    kind = getattr(came, "dtype", None)
    came = tensor_like(came, before)
    if kind is not None and came.dtype != torch.int64:
        raise Wrong("shape", _NOT_INT64.format(kind), "not int64")
    if not torch.equal(labels, before):
        raise Wrong("properties", _IN_PLACE, mistake="in place")
    strange = came[(came != before) & (came != num_classes)].unique().tolist()
    if strange:
        name = "another class for no class"
        if len(strange) == 1:
            name = {0: "class 0 for no class", num_classes - 1: "last class for no class"}.get(
                strange[0], "another label for no class"
            )
            if strange[0] == num_classes + 1:
                name = "one label too high"
        raise Wrong("values", _STRANGE[name], name)
    gone = came == num_classes
    singles = [
        tensor_like(answer(before[i : i + 1], p, num_classes, generator), before[:1])
        for i in range(_SINGLES)
    ]
    alone = (torch.cat(singles).flatten() == num_classes).double().mean()
    shares = [gone.double().mean(), gone[: _MANY // 2].double().mean(), alone]
    together = (gone[1:] & gone[:-1]).double().mean()
    shares += [(gone | (came == before)).double().mean(), together]
    _judge_closely(p, gone, before, shares)
    return tuple(shares)


def _judge_closely(p: float, gone: Tensor, before: Tensor, shares: list[Tensor]) -> None:
    """Rejects what is only nearly right: shares that are off by five standard deviations.

    What is far from right is left to the comparison with the known mistakes.
    """
    if any(abs(float(x) - y) > _FAR for x, y in zip(shares, (p, p, p, 1, p * p), strict=True)):
        return
    one = math.sqrt(p * (1 - p))
    counts = (_MANY, _MANY // 2, _SINGLES)
    for share, count, where in zip(shares, counts, _PLACES, strict=False):
        if abs(float(share) - p) > 5 * one / math.sqrt(count):
            text = f"With p = {p:g} the share dropped {where} is {float(share):.4g}: "
            raise Wrong(
                "values",
                text + "farther off than chance allows. Compare uniform numbers "
                "with p itself, without rounding.",
                "nearly p",
            )
    for label in before.unique():
        own = gone[before == label].double()
        if abs(float(own.mean()) - p) > 5.5 * one / math.sqrt(len(own)):
            text = f"With p = {p:g} you drop {float(own.mean()):.2g} of the labels {int(label)}. "
            raise Wrong("values", text + "The chance must not depend on the class.", "by class")
    deviation = math.sqrt(p**2 * (1 - p) * (1 + 3 * p) / _MANY)  # of the share of pairs
    for lag in (1, 2, 3, 4, _MANY // 2):
        pairs = float((gone[lag:] & gone[:-lag]).double().mean())
        if abs(pairs - p * p) > 5 * deviation * math.sqrt(_MANY / (_MANY - lag)):
            raise Wrong("values", _IN_GROUPS, "in groups")


_FAR, _SINGLES = 0.14, 300
_PLACES = ("in a large batch", "in half of a batch", "in batches of one")
_NOT_INT64 = "Right labels, of the wrong kind: {}. They look up rows of a table, so return int64."
_IN_GROUPS = (
    "The share is right, but labels fall in groups: several places of a batch share one draw. Draw "
    "one number for each label."
)
_STRANGE = {
    "class 0 for no class": "Dropped labels become 0, and 0 is a class. No class has a label of "
    "its own: num_classes.",
    "last class for no class": "Dropped labels become num_classes - 1, the last class. Classes "
    "count from 0, so num_classes itself is free.",
    "another class for no class": "Dropped labels become other classes at random: that teaches "
    "wrong labels. They should become num_classes, which means no class.",
    "another label for no class": "Dropped labels become a label that the network's table does "
    "not hold. No class is num_classes, whatever that number is.",
}
_STRANGE["one label too high"] = (
    "Dropped labels become num_classes + 1. The table has num_classes + 1 rows, so its last "
    "row is number num_classes."
)
_REMOVED = (
    "Your answer has fewer labels than came in. A dropped label stays in its place and becomes "
    "num_classes: its image is still in the batch."
)
_IN_PLACE = (
    "You write into the `labels` you were given. They belong to the data set: the next epoch would "
    "find them dropped. Make a new tensor."
)
_NOT_HANDED_IN = (
    "The same seed should drop the same labels, and the next call others: draw from the generator "
    "that you are given."
)


def _obeys_its_generator(answer: Callable) -> bool:
    labels = torch.arange(200) % 10

    def drawn(seed: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return [torch.as_tensor(answer(labels.clone(), 0.5, 10, generator)) for _ in range(2)]

    first, again, other = drawn(1), drawn(1), drawn(2)
    same = all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    return same and not torch.equal(first[0], other[0]) and not torch.equal(*first)


def _drop_with_global_randomness(labels, p, num_classes, generator):
    return torch.where(torch.rand(len(labels)) < p, num_classes, labels)


def _a_fixed_number(labels, p, num_classes, generator):
    labels = labels.clone()
    order = torch.randperm(len(labels), generator=generator)
    labels[order[: int(p * len(labels))]] = num_classes
    return labels


def _drop_in_place(labels, p, num_classes, generator):
    labels[torch.rand(len(labels), generator=generator) < p] = num_classes
    return labels


def _drop_loop(labels, p, num_classes, generator):
    draws = torch.rand(len(labels), generator=generator, dtype=torch.float64).tolist()
    return torch.tensor(
        [num_classes if u < p else int(label) for u, label in zip(draws, labels, strict=True)]
    )


def _drop_bernoulli(labels, p, num_classes, generator):
    labels = labels.clone()
    labels[torch.bernoulli(torch.full(labels.shape, float(p)), generator=generator).bool()] = (
        num_classes
    )
    return labels


def _drop_kept(labels, p, num_classes, generator):
    kept = torch.rand(labels.shape, generator=generator) >= p
    return labels * kept + num_classes * ~kept


drop_labels = Exercise(
    "lesson08.drop_labels",
    "Dropping the label",
    difficulty=2,
    minutes=6,
    hints=(
        "`torch.rand(n, generator=generator)` gives n numbers, uniform between 0 and 1. What share "
        "of them lies below p?",
        "Compare them with p: that is a mask, True where a label falls. "
        "`torch.where(mask, a, b)` takes a where it is True and b elsewhere.",
    ),
    model_answer=_drop_labels,
    cases=_drop_cases,
    use=_drop_figures,
    reference=lambda labels, p, num_classes, generator: tuple(
        torch.tensor(share, dtype=torch.float64) for share in (p, p, p, 1.0, p * p)
    ),
    parts=(
        "share dropped",
        "share dropped in the first half of a batch",
        "share dropped in batches of one",
        "share that is the label that came in, or no class",
        "share dropped together with its neighbor",
    ),
    rtol=0.0,
    atol=_FAR,  # coarse: _judge_closely knows the sampling error of each share
    properties=(Property(_NOT_HANDED_IN, _obeys_its_generator, mistake="generator not used"),),
    mistakes=(
        Mistake(
            "mask inverted",
            lambda labels, p, num_classes, generator: torch.where(
                torch.rand(len(labels), generator=generator) < p, labels, num_classes
            ),
            "You keep a share p of the labels and drop the rest. With p = 0.1 the network would "
            "hardly ever be told a class.",
        ),
        Mistake(
            "nothing dropped",
            lambda labels, p, num_classes, generator: _drop_labels(
                labels, 0, num_classes, generator
            ),
            "You drop nothing. A label falls where its uniform number is below p.",
        ),
        Mistake(
            "everything dropped",
            lambda labels, p, num_classes, generator: _drop_labels(
                labels, 1, num_classes, generator
            ),
            "You drop all labels, whatever p is. A label falls where its uniform number is below "
            "p.",
        ),
        Mistake(
            "a fixed number, rounded down",
            _a_fixed_number,
            "You drop int(p * B) labels of each batch, and of a batch of one none at all. Each "
            "label is dropped with probability p, whatever becomes of the others.",
        ),
        Mistake(
            "one coin for the batch",
            lambda labels, p, num_classes, generator: (
                torch.full_like(labels, num_classes)
                if torch.rand((), generator=generator) < p
                else labels.clone()
            ),
            "One draw decides for the whole batch, so its labels are all kept or all dropped. "
            "Each label needs its own draw.",
        ),
        Mistake(
            "class 0 for no class",
            lambda labels, p, num_classes, generator: _drop_labels(labels, p, 0, generator),
            _STRANGE["class 0 for no class"],
        ),
        Mistake(
            "another label for no class",
            lambda labels, p, num_classes, generator: _drop_labels(labels, p, -1, generator),
            _STRANGE["another label for no class"],
        ),
        Mistake(
            "another class for no class",
            lambda labels, p, num_classes, generator: torch.where(
                torch.rand(len(labels), generator=generator) < p,
                torch.randint(num_classes, labels.shape, generator=generator),
                labels,
            ),
            _STRANGE["another class for no class"],
        ),
        Mistake(
            "removed",
            lambda labels, p, num_classes, generator: labels[
                torch.rand(len(labels), generator=generator) >= p
            ],
            _REMOVED,
        ),
        Mistake(
            "always one in ten",
            lambda labels, p, num_classes, generator: _drop_labels(
                labels, 0.1, num_classes, generator
            ),
            "You drop one label in ten, whatever p is. Use the argument.",
        ),
        Mistake(
            "a fixed number",
            lambda labels, p, num_classes, generator: labels.index_fill(
                0,
                torch.randperm(len(labels), generator=generator)[: round(p * len(labels))],
                num_classes,
            ),
            "You drop the same number of labels in each batch. Then they are not dropped "
            "independently: a batch of one, for example, cannot lose a share p of its labels.",
        ),
        Mistake(
            "last class for no class",
            lambda labels, p, num_classes, generator: _drop_labels(
                labels, p, num_classes - 1, generator
            ),
            _STRANGE["last class for no class"],
        ),
        Mistake(
            "normal draws",
            lambda labels, p, num_classes, generator: torch.where(
                torch.randn(len(labels), generator=generator) < p, num_classes, labels
            ),
            "You compare normal numbers (`randn`) with p; more than half of them are below 0. "
            "Uniform ones (`rand`) are below p with probability p.",
        ),
        Mistake(
            "always the first",
            lambda labels, p, num_classes, generator: torch.where(
                torch.arange(len(labels)) < p * len(labels), num_classes, labels
            ),
            "Your share is right and nothing is random: the same places of a batch always lose "
            "their label.",
        ),
        Mistake(
            "not int64",
            lambda labels, p, num_classes, generator: _drop_labels(
                labels, p, num_classes, generator
            ).int(),
            _NOT_INT64.format("torch.int32"),
        ),
        Mistake(
            "in groups",
            lambda labels, p, num_classes, generator: torch.where(
                (torch.rand(len(labels) // 2 + 1, generator=generator) < p).repeat_interleave(2)[
                    : len(labels)
                ],
                num_classes,
                labels,
            ),
            _IN_GROUPS,
        ),
        Mistake(
            "one label too high",
            lambda labels, p, num_classes, generator: _drop_labels(
                labels, p, num_classes + 1, generator
            ),
            _STRANGE["one label too high"],
        ),
        Mistake("in place", _drop_in_place, _IN_PLACE),
        Mistake("generator not used", _drop_with_global_randomness, _NOT_HANDED_IN),
    ),
    alternatives=(_drop_loop, _drop_bernoulli, _drop_kept),
    passed="This line is all that training for guidance needs.",
)


# --- the loss of a network that is told the class -------------------------------------------------


def _class_loss(network, schedule, x0, labels, t, eps):
    x_t = diffuse(schedule, x0, t, eps)
    v = velocity(schedule, x0, t, eps)
    return (network(x_t, t, labels) - v).square().mean()


class _Net(nn.Module):
    """A small network with a table of classes, which says when it is asked wrongly."""

    def __init__(
        self, num_classes: int, generator: torch.Generator, right: Tensor | None = None
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.right = right  # what it says all but a hundredth of, so that its loss is small
        self.table = nn.Parameter(torch.randn(num_classes + 1, generator=generator))
        self.scale = nn.Parameter(torch.rand((), generator=generator) + 0.5)

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        if labels is None:
            labels = torch.full_like(t, self.num_classes)
        for name, part in (("t", t), ("labels", labels)):
            if part.dtype != torch.int64 or part.shape != x_t.shape[:1]:
                got = f"{part.dtype} {tuple(part.shape)} with {len(x_t)} samples"
                raise ValueError(f"{name} must be int64, one for each sample; got {got}")
        outside = labels[(labels < 0) | (labels > self.num_classes)]
        if len(outside):
            raise ValueError(f"labels must be in 0..{self.num_classes}, got {int(outside[0])}")
        shift = per_sample(self.table[labels], x_t)
        answer = torch.sin(self.scale * x_t + shift) + 1e-3 * per_sample(t, x_t)
        return answer if self.right is None else self.right + 0.01 * answer

    def __repr__(self) -> str:
        return "a test network"


def _class_loss_cases(generator: torch.Generator):
    linear, cosine = linear_schedule(1000), cosine_schedule(1000)
    for schedule, num_classes, shape, steps in (
        (linear, 10, (4, 1, 4, 4), [1, 2, 500, 1000]),
        (cosine, 10, (4, 1, 4, 4), [1, 2, 500, 1000]),
        (cosine, 3, (1, 2), [700]),
        (linear, 5, (3, 3, 2, 2), [300, 40, 999]),
        (cosine_schedule(20), 4, (2, 2, 5), [20, 7]),
        (linear_schedule(50), 4, (5, 3, 2, 2, 2), [50, 1, 2, 30, 17]),
    ):
        network = _Net(num_classes, generator)
        x0, eps = torch.randn(2, *shape, generator=generator)
        labels = torch.randint(num_classes + 1, shape[:1], generator=generator)
        yield network, schedule, x0.clamp(-1, 1), labels, torch.tensor(steps), eps
    x0, eps = torch.randn(2, 1, 2, 3, generator=generator).clamp(-1, 1)[:, None]
    t = torch.tensor([30])
    trained = _Net(3, generator, right=velocity(cosine, x0, t, eps))
    yield trained, cosine, x0, torch.tensor([2]), t, eps


def _loss_and_gradient(answer: Callable, network: _Net, *case) -> object:
    """The loss, and the gradients that it sends to the network's weights."""
    came = answer(network, *case)
    if came is ...:
        return ...
    loss = tensor_like(came, torch.zeros(()))
    weights = [network.table, network.scale]
    gradients = [torch.zeros_like(w) for w in weights]
    if isinstance(came, Tensor) and came.requires_grad:
        found = torch.autograd.grad(came, weights, torch.ones_like(came), allow_unused=True)
        gradients = [z if g is None else g for g, z in zip(found, gradients, strict=True)]
    return loss, torch.cat([g.flatten() for g in gradients])


def _loss_with(
    *,
    sees: Callable = lambda x0, x_t: x_t,
    target: Callable = lambda schedule, x0, t, eps, x_t: velocity(schedule, x0, t, eps),
    ask: Callable = lambda network, x, t, labels: network(x, t, labels),
    noise: Callable = lambda eps: eps,
    join: Callable = lambda error: error.square().mean(),
) -> Callable:
    """The answer with something changed."""

    def answer(network, schedule, x0, labels, t, eps):
        x_t = diffuse(schedule, x0, t, noise(eps))
        said = ask(network, sees(x0, x_t), t, labels)
        return join(said - target(schedule, x0, t, eps, x_t))

    return answer


def _loss_by_hand(network, schedule, x0, labels, t, eps):
    signal, noise = (
        per_sample(r[t], x0).to(x0) for r in (schedule.signal_rate, schedule.noise_rate)
    )
    said = network(signal * x0 + noise * eps, t, labels)
    return F.mse_loss(said, signal * eps - noise * x0)


def _loss_one_by_one(network, schedule, x0, labels, t, eps):
    total = 0.0
    for i in reversed(range(len(x0))):
        part = slice(i, i + 1)
        x_t = diffuse(schedule, x0[part], t[part], eps[part])
        said = network(x_t, t[part], labels[part])
        total = total + (said - velocity(schedule, x0[part], t[part], eps[part])).pow(2).mean()
    return total / len(x0)


_NO_GRADIENT = (
    "The number is right, but no gradient of it reaches the network, so nothing could learn. "
    "Leave out `.item()`, `.detach()`, `float(...)` and `no_grad`; `requires_grad_()` afterwards "
    "does not bring it back."
)

class_loss = Exercise(
    "lesson08.class_loss",
    "The loss of a network that is told",
    difficulty=1,
    minutes=4,
    hints=(
        "Three lines: noise the images, find out what the network should say, compare.",
        "`x_t = diffuse(schedule, x0, t, eps)` and `v = velocity(schedule, x0, t, eps)`; the "
        "network is asked about x_t, with t and labels.",
        "The error is `network(x_t, t, labels) - v`; return the mean of its square.",
    ),
    model_answer=_class_loss,
    cases=_class_loss_cases,
    use=_loss_and_gradient,
    parts=("loss", "gradient at the network's weights"),
    mistakes=(
        Mistake(
            "never told",
            _loss_with(ask=lambda network, x, t, labels: network(x, t)),
            "Your network never gets the labels, and counts each sample as 'no class'. They are "
            "its third argument.",
        ),
        Mistake(
            "t and labels swapped",
            _loss_with(ask=lambda network, x, t, labels: network(x, labels, t)),
            "The network is asked as `network(x_t, t, labels)`, in this order; yours gets the "
            "steps as labels.",
        ),
        Mistake(
            "sees x_0",
            _loss_with(sees=lambda x0, x_t: x0),
            "Your network is shown the clean x0. It is asked about the noised x_t.",
        ),
        Mistake(
            "target eps",
            _loss_with(target=lambda schedule, x0, t, eps, x_t: eps),
            "You compare the answer with eps. This network is trained to say v: "
            "`velocity(schedule, x0, t, eps)`.",
        ),
        Mistake(
            "target x_0",
            _loss_with(target=lambda schedule, x0, t, eps, x_t: x0),
            "You compare the answer with x0. This network is trained to say v: "
            "`velocity(schedule, x0, t, eps)`.",
        ),
        Mistake(
            "target x_t",
            _loss_with(target=lambda schedule, x0, t, eps, x_t: x_t),
            "You compare the answer with x_t, which the network was shown. Compare it with v.",
        ),
        Mistake(
            "v of x_t",
            _loss_with(target=lambda schedule, x0, t, eps, x_t: velocity(schedule, x_t, t, eps)),
            "You call `velocity` with x_t. It is made of the clean image and the noise: "
            "`velocity(schedule, x0, t, eps)`.",
        ),
        Mistake(
            "x0 and eps swapped in v",
            _loss_with(target=lambda schedule, x0, t, eps, x_t: velocity(schedule, eps, t, x0)),
            "x0 and eps have changed places in `velocity(schedule, x0, t, eps)`.",
        ),
        Mistake(
            "x0 and eps swapped in the jump",
            lambda network, schedule, x0, labels, t, eps: (
                (network(diffuse(schedule, eps, t, x0), t, labels) - velocity(schedule, x0, t, eps))
                .square()
                .mean()
            ),
            "x0 and eps have changed places in `diffuse(schedule, x0, t, eps)`.",
        ),
        Mistake(
            "noise drawn anew",
            _loss_with(noise=torch.randn_like),
            "You noise with numbers of your own, and the target is made of `eps`: the network "
            "would be asked for noise that it was not shown. Use `eps` for both.",
        ),
        Mistake(
            "x_t one step off",
            lambda network, schedule, x0, labels, t, eps: (
                (
                    network(diffuse(schedule, x0, t - 1, eps), t, labels)
                    - velocity(schedule, x0, t, eps)
                )
                .square()
                .mean()
            ),
            "Your x_t was noised t - 1 times. Steps run from 1 to T here, and entry t of "
            "`alpha_bar` belongs to step t.",
        ),
        Mistake(
            "v one step off",
            _loss_with(target=lambda schedule, x0, t, eps, x_t: velocity(schedule, x0, t - 1, eps)),
            "Your v is that of step t - 1. Steps run from 1 to T here; `velocity` takes t itself.",
        ),
        Mistake(
            "everything one step off",
            lambda network, schedule, x0, labels, t, eps: (
                (
                    network(diffuse(schedule, x0, t - 1, eps), t, labels)
                    - velocity(schedule, x0, t - 1, eps)
                )
                .square()
                .mean()
            ),
            "Your x_t and v are those of step t - 1. Steps run from 1 to T here, and entry t of "
            "`alpha_bar` belongs to step t.",
        ),
        Mistake(
            "added",
            lambda network, schedule, x0, labels, t, eps: (
                (network(diffuse(schedule, x0, t, eps), t, labels) + velocity(schedule, x0, t, eps))
                .square()
                .mean()
            ),
            "You add answer and v. The error is their difference.",
        ),
        Mistake(
            "told t - 1",
            _loss_with(ask=lambda network, x, t, labels: network(x, t - 1, labels)),
            "Your network is told t - 1, and x_t was made with t. Steps run from 1 to T here, also "
            "for the network.",
        ),
        Mistake(
            "labels one off",
            _loss_with(
                ask=lambda network, x, t, labels: network(
                    x, t, (labels + 1) % (network.num_classes + 1)
                )
            ),
            "Your network gets each label moved by one. Pass `labels` as they are.",
        ),
        Mistake(
            "not averaged",
            _loss_with(join=lambda error: error.square()),
            "You return many numbers. The loss is one: the mean over samples and pixels.",
        ),
        Mistake(
            "averaged within samples",
            _loss_with(join=lambda error: error.square().flatten(1).mean(1)),
            "You return one loss for each sample, (B,). Take the mean over the samples, too.",
        ),
        Mistake(
            "summed",
            _loss_with(join=lambda error: error.square().sum()),
            "You add up the squares. The loss is their mean, so that it does not grow with the "
            "batch.",
        ),
        Mistake(
            "summed over pixels",
            _loss_with(join=lambda error: error.square().flatten(1).sum(1).mean()),
            "You add up the squares of a sample and average over samples. Take the mean over both.",
        ),
        Mistake(
            "absolute error",
            _loss_with(join=lambda error: error.abs().mean()),
            "You average absolute errors; this loss averages squares.",
        ),
        Mistake(
            "root",
            _loss_with(join=lambda error: error.square().mean().sqrt()),
            "You take the root of the mean squared error. This loss has no root.",
        ),
        Mistake(
            "half of it",
            _loss_with(join=lambda error: error.square().mean() / 2),
            "Your loss is half of what it should be: no factor 1/2 here.",
        ),
        Mistake(
            "squared mean",
            _loss_with(join=lambda error: error.mean().square()),
            "You square the mean error, in which errors of both signs cancel. Square first, then "
            "take the mean.",
        ),
        Mistake(
            "not squared",
            _loss_with(join=lambda error: error.mean()),
            "You average the errors themselves, so those of both signs cancel. Square them first.",
        ),
        Mistake(
            "no gradient",
            _loss_with(join=lambda error: error.square().mean().detach()),
            _NO_GRADIENT,
        ),
    ),
    alternatives=(_loss_by_hand, _loss_one_by_one),
    passed="Lesson 3's loss with one argument more: nothing else changes in training.",
)


# --- the guided answer ----------------------------------------------------------------------------


def _guided_eps(eps_cond, eps_uncond, scale):
    return eps_uncond + scale * (eps_cond - eps_uncond)


def _guided_cases(generator: torch.Generator):
    shapes = ((1, 2), (2, 1, 4, 4), (3, 3), (4, 2), (2, 3, 5), (3, 3, 2, 2))
    for shape, scale in zip(shapes, (3.5, 0.0, 1, 0.4, 2, 12.0), strict=True):
        yield (*torch.randn(2, *shape, generator=generator), scale)
    yield (*torch.randn(2, 2, 3, 2, 2, generator=generator), 7.5)


def _guided_in_place(eps_cond, eps_uncond, scale):
    eps_cond -= eps_uncond
    eps_cond *= scale
    eps_cond += eps_uncond
    return eps_cond


guided_eps = Exercise(
    "lesson08.guided_eps",
    "Exaggerate the difference",
    difficulty=1,
    minutes=4,
    hints=(
        "Try the two ends: at scale 0 only eps_uncond may be left, at scale 1 only eps_cond.",
        "Start at eps_uncond and go `scale` times the way to eps_cond.",
    ),
    model_answer=_guided_eps,
    cases=_guided_cases,
    mistakes=(
        Mistake(
            "w for s",
            lambda eps_cond, eps_uncond, scale: eps_cond + scale * (eps_cond - eps_uncond),
            "Your scale counts from eps_cond, where 0 is the conditional answer: that is w, the "
            "paper's way, (1 + w) eps_cond - w eps_uncond. Here scale 1 must give eps_cond.",
        ),
        Mistake(
            "swapped",
            lambda eps_cond, eps_uncond, scale: eps_cond + scale * (eps_uncond - eps_cond),
            "The two are swapped: your scale 1 is the unconditional answer, and above 1 you walk "
            "away from the class.",
        ),
        Mistake(
            "scale on the wrong term",
            lambda eps_cond, eps_uncond, scale: eps_uncond + scale * eps_cond,
            "You scale eps_cond itself. What is exaggerated is the difference between the two.",
        ),
        Mistake(
            "eps_uncond cancels",
            lambda eps_cond, eps_uncond, scale: scale * (eps_uncond + (eps_cond - eps_uncond)),
            "Your answer is scale * eps_cond: eps_uncond cancels out. Look at the brackets. They "
            "belong around the difference, and the scale before them.",
        ),
        Mistake(
            "difference alone",
            lambda eps_cond, eps_uncond, scale: scale * (eps_cond - eps_uncond),
            "This is the exaggerated difference only. It has to be added to eps_uncond.",
        ),
        Mistake(
            "scale not used",
            lambda eps_cond, eps_uncond, scale: eps_uncond + (eps_cond - eps_uncond),
            "Your answer is eps_cond, whatever the scale is. Multiply the difference by it.",
        ),
        Mistake(
            "scale on eps_uncond",
            lambda eps_cond, eps_uncond, scale: eps_cond - scale * eps_uncond,
            "You scale eps_uncond alone. What is exaggerated is the difference between the two.",
        ),
        Mistake(
            "eps_cond not scaled",
            lambda eps_cond, eps_uncond, scale: (1 - scale) * eps_uncond + eps_cond,
            "(1 - scale) * eps_uncond is right, and eps_cond must then be multiplied by the scale.",
        ),
        Mistake(
            "scale on eps_uncond, then the difference",
            lambda eps_cond, eps_uncond, scale: scale * eps_uncond + (eps_cond - eps_uncond),
            "You scale the eps_uncond where you start. The scale belongs to the difference.",
        ),
        Mistake(
            "whole scales only",
            lambda eps_cond, eps_uncond, scale: eps_uncond + int(scale) * (eps_cond - eps_uncond),
            "You cut the scale to a whole number. It may be 3.5, too.",
        ),
        Mistake(
            "clamped",
            lambda eps_cond, eps_uncond, scale: (
                eps_uncond + scale * (eps_cond - eps_uncond)
            ).clamp(-1, 1),
            "You clamp the answer to [-1, 1]. It is noise, which knows no such range; what may be "
            "clipped is the picture, x0_hat.",
        ),
        Mistake(
            "away from the class",
            lambda eps_cond, eps_uncond, scale: eps_uncond - scale * (eps_cond - eps_uncond),
            "Your step goes away from eps_cond: look at the sign.",
        ),
        Mistake(
            "w from the wrong end",
            lambda eps_cond, eps_uncond, scale: eps_uncond + (scale - 1) * (eps_cond - eps_uncond),
            "You go scale - 1 times the way from eps_uncond. Scale - 1 counts from eps_cond; from "
            "eps_uncond it is the scale itself.",
        ),
        Mistake(
            "never beyond",
            lambda eps_cond, eps_uncond, scale: (
                eps_uncond + min(scale, 1) * (eps_cond - eps_uncond)
            ),
            "Your answer never goes beyond eps_cond. Guidance is what happens above scale 1.",
        ),
    ),
    alternatives=(
        lambda eps_cond, eps_uncond, scale: torch.lerp(eps_uncond, eps_cond, float(scale)),
        lambda eps_cond, eps_uncond, scale: scale * eps_cond + (1 - scale) * eps_uncond,
        lambda eps_cond, eps_uncond, scale: (
            eps_cond.numpy() + (scale - 1) * (eps_cond.numpy() - eps_uncond.numpy())
        ),
        _guided_in_place,
    ),
)


# --- two answers out of one call ------------------------------------------------------------------


class _Labeled:
    """A labeled model whose answer for a sample depends on all that it is told about it.

    It brings a state to be asked about, and keeps count of the calls.
    """

    def __init__(self, num_classes: int, shape: tuple[int, ...], generator: torch.Generator):
        self.num_classes = num_classes
        self.x_t = torch.randn(shape, generator=generator)
        self.t = torch.randint(1, 1001, shape[:1], generator=generator)
        self.table = torch.randn(num_classes + 1, generator=generator)
        self.calls: list[int] = []

    def __call__(self, x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        if x_t.shape[1:] != self.x_t.shape[1:]:
            wanted = ", ".join(["n", *map(str, self.x_t.shape[1:])])
            raise ValueError(f"x_t must have shape ({wanted}), got {tuple(x_t.shape)}")
        for name, part in (("t", t), ("labels", labels)):
            if part.shape != x_t.shape[:1]:
                got = f"x_t of {len(x_t)} samples and {name} of shape {tuple(part.shape)}"
                raise ValueError(f"{name} must be one number for each sample, got {got}")
        outside = labels[(labels < 0) | (labels > self.num_classes)]
        if len(outside):
            raise ValueError(f"labels must be in 0..{self.num_classes}, got {int(outside[0])}")
        self.calls.append(len(x_t))
        shift = per_sample(self.table.to(x_t)[labels], x_t)
        return torch.sin(x_t * (1 + 0.3 * shift)) + shift + 1e-3 * per_sample(t, x_t)

    def __repr__(self) -> str:
        return "a test model"


def _labels_for(model: _Labeled, generator: torch.Generator) -> Tensor:
    return torch.randint(model.num_classes, model.t.shape, generator=generator)


_NO_FUNCTION = (
    "You return an answer; the sampler needs something to ask at each step: define a function of "
    "(x_t, t) inside yours and return that function."
)


def _ask(denoiser: object, model: _Labeled) -> Tensor:
    """What a returned denoiser says about the model's state."""
    if denoiser is None or denoiser is ...:
        return tensor_like(denoiser, model.x_t)  # says what is wrong
    if not callable(denoiser):
        raise Wrong("shape", _NO_FUNCTION)
    answer = denoiser(model.x_t.clone(), model.t.clone())
    if answer is None:
        raise Wrong("shape", "The function that you return gives None: does it have a `return`?")
    return tensor_like(answer, model.x_t)


def _two_in_one(model, labels, scale, num_classes):
    no_class = torch.full_like(labels, num_classes)
    both_labels = torch.cat([labels, no_class])

    def guided(x_t, t):
        eps_both = model(torch.cat([x_t, x_t]), torch.cat([t, t]), both_labels)
        eps_cond, eps_uncond = eps_both.chunk(2)
        return eps_uncond + scale * (eps_cond - eps_uncond)

    return guided


def _two_cases(generator: torch.Generator):
    for num_classes, shape, scale in (
        (10, (3, 1, 2, 2), 3.0),
        (3, (1, 2), 1.5),
        (5, (2, 2), 0.5),
        (4, (4, 3, 2, 2), 7.5),
        (6, (5, 2), 0.0),
        (6, (2, 3), 1.0),
        (10, (3, 3, 2, 2), 12.0),
        (3, (2, 4, 3), 2),
        (3, (4, 2, 2, 2, 2), 1.3),
    ):
        model = _Labeled(num_classes, shape, generator)
        yield model, _labels_for(model, generator), scale, num_classes


_TWO_CALLS = (
    "Right numbers, in two calls of B each step. Put both questions into one batch of 2B: cat "
    "x_t, t and the labels, and call the model once."
)


def _ask_once(answer: Callable, model: _Labeled, labels, scale, num_classes) -> tuple:
    """The answers at two states, and how many calls each of them took."""
    denoiser = answer(model, labels, scale, num_classes)
    first = _ask(denoiser, model)
    model.x_t, model.t = 0.5 * model.x_t + 1, (model.t + 1) // 2
    second = _ask(denoiser, model)
    if torch.equal(first, second):
        raise Wrong("values", _REMEMBERED, "first answer remembered")
    return first, second, torch.tensor(len(model.calls) / 2)


_REMEMBERED = (
    "At the second step of a walk your function gives the answer of the first again. It must ask "
    "the model with the x_t and t that *it* gets, each time."
)


def _two_reference(model, labels, scale, num_classes) -> tuple[Tensor, Tensor, Tensor]:
    nobody, parts = torch.full_like(labels, num_classes), []
    for _ in range(2):
        without = model(model.x_t, model.t, nobody)
        parts.append(without + scale * (model(model.x_t, model.t, labels) - without))
        model.x_t, model.t = 0.5 * model.x_t + 1, (model.t + 1) // 2
    return parts[0], parts[1], torch.tensor(1.0)


def _two(
    *,
    no_class: Callable = lambda labels, num_classes: torch.full_like(labels, num_classes),
    double: Callable = lambda x: torch.cat([x, x]),
    double_t: Callable | None = None,
    split: Callable = lambda both: both.chunk(2),
    join: Callable = lambda cond, uncond, s: uncond + s * (cond - uncond),
    both: Callable = lambda labels, nobody: torch.cat([labels, nobody]),
) -> Callable:
    """The answer with something changed."""

    def answer(model, labels, scale, num_classes):
        def guided(x_t, t):
            told = both(labels, no_class(labels, num_classes))
            return join(*split(model(double(x_t), (double_t or double)(t), told)), scale)

        return guided

    return answer


def _two_calls(model, labels, scale, num_classes):
    def guided(x_t, t):
        eps_uncond = model(x_t, t, torch.full_like(labels, num_classes))
        return eps_uncond + scale * (model(x_t, t, labels) - eps_uncond)

    return guided


def _two_remembered(model, labels, scale, num_classes):
    kept = []

    def guided(x_t, t):
        if not kept:
            kept.append(_two_in_one(model, labels, scale, num_classes)(x_t, t))
        return kept[0]

    return guided


def _two_interleaved(model, labels, scale, num_classes):
    def guided(x_t, t):
        told = torch.stack([labels, torch.full_like(labels, num_classes)], 1).flatten()
        answers = model(x_t.repeat_interleave(2, 0), t.repeat_interleave(2), told)
        return torch.lerp(answers[1::2], answers[::2], float(scale))

    return guided


def _two_lazily(model, labels, scale, num_classes):
    """As the library does it: where one answer is enough, it asks for one."""
    if scale == 1:
        return lambda x_t, t: model(x_t, t, labels)
    if scale == 0:
        return lambda x_t, t: model(x_t, t, torch.full_like(labels, num_classes))
    return _two_in_one(model, labels, scale, num_classes)


two_in_one = Exercise(
    "lesson08.two_in_one",
    "Two answers out of one call",
    difficulty=3,
    minutes=12,
    hints=(
        "The network treats the samples of a batch one by one. So a batch of 2B may hold each "
        "sample twice: once with its label, once without.",
        "`torch.cat([x_t, x_t])` is the batch, `t` needs the same, and the labels are "
        "`torch.cat([labels, no_class])` with no_class = torch.full_like(labels, num_classes).",
        "`eps_both.chunk(2)` gives the halves in the order in which they went in. Then combine "
        "them as before. All of it happens inside a function of (x_t, t) that you return.",
    ),
    model_answer=_two_in_one,
    cases=_two_cases,
    use=_ask_once,
    reference=_two_reference,
    parts=("eps_hat", "eps_hat at the next step", "calls of the model at each step"),
    mistakes=(
        Mistake("two calls", _two_calls, _TWO_CALLS),
        Mistake(
            "t not doubled",
            _two(double_t=lambda t: t),
            "The batch is twice as long and `t` is not: each of the 2B samples needs its step.",
        ),
        Mistake(
            "labels not doubled",
            _two(both=lambda labels, nobody: labels),
            "The batch is twice as long and the labels are not: the second half needs the label "
            "num_classes for each sample.",
        ),
        Mistake(
            "-1 for no class",
            _two(no_class=lambda labels, num_classes: torch.full_like(labels, -1)),
            "You mark no class by -1. A network that looks labels up in a table has no row -1; no "
            "class is num_classes.",
        ),
        Mistake(
            "halves swapped",
            _two(split=lambda both: both.chunk(2)[::-1]),
            "The conditional and the unconditional answer have changed places. The halves come "
            "back in the order in which you put them in.",
        ),
        Mistake(
            "class 0 for no class",
            _two(no_class=lambda labels, num_classes: torch.zeros_like(labels)),
            "Your unconditional half is asked for class 0. The label that means no class is "
            "num_classes.",
        ),
        Mistake(
            "last class for no class",
            _two(no_class=lambda labels, num_classes: torch.full_like(labels, num_classes - 1)),
            "Your unconditional half is asked for class num_classes - 1, the last one. No class "
            "is num_classes.",
        ),
        Mistake(
            "labels twice",
            _two(both=lambda labels, nobody: torch.cat([labels, labels])),
            "What comes out is the conditional answer, whatever the scale is. Are both halves told "
            "the class, or is the scale not used?",
        ),
        Mistake(
            "twins side by side",
            _two(double=lambda x: x.repeat_interleave(2, 0)),
            "Your samples come in pairs (a, a, b, b), but your labels and halves do not. "
            "`torch.cat([x_t, x_t])` gives a, b, a, b.",
        ),
        Mistake(
            "w for s",
            _two(join=lambda cond, uncond, s: cond + s * (cond - uncond)),
            "One call, well done; but your scale counts from the conditional answer (the paper's "
            "w). Here scale 1 is the conditional one.",
        ),
        Mistake(
            "eps_uncond cancels",
            _two(join=lambda cond, uncond, s: s * cond),
            "Your answer is scale * eps_cond: eps_uncond cancels out. Look at the brackets around "
            "the difference.",
        ),
        Mistake(
            "scale on the wrong term",
            _two(join=lambda cond, uncond, s: uncond + s * cond),
            "One call, well done; but you scale eps_cond itself. What is exaggerated is the "
            "difference between the two.",
        ),
        Mistake(
            "difference alone",
            _two(join=lambda cond, uncond, s: s * (cond - uncond)),
            "You return the exaggerated difference only. It has to be added to eps_uncond.",
        ),
        Mistake(
            "joined along the channels",
            _two(double=lambda x: torch.cat([x, x], dim=1), double_t=lambda t: torch.cat([t, t])),
            "You join the two copies of x_t along axis 1, so each sample gets longer. They must "
            "become further samples: join x_t, t and labels along axis 0.",
        ),
        Mistake(
            "stacked",
            _two(double=lambda x: torch.stack([x, x]), double_t=lambda t: torch.stack([t, t])),
            "`torch.stack` makes a new axis in front. A batch of 2B has the axes of a batch of B: "
            "`torch.cat`.",
        ),
        Mistake("first answer remembered", _two_remembered, _REMEMBERED),
        Mistake(
            "a batch of 2B returned",
            _two(join=lambda cond, uncond, s: torch.cat([cond, uncond])),
            "You return the answers of all 2B questions. Combine the two halves into one guided "
            "answer of B samples.",
        ),
    ),
    alternatives=(_two_interleaved, _two_lazily, _two(split=lambda both: both.tensor_split(2))),
    passed="The same numbers as two calls, in one. This is how the library's `guide` does it.",
)


# --- how different are samples of a class? --------------------------------------------------------


def _spread(features, labels):
    means = []
    for label in labels.unique():
        own = features[labels == label]
        distances = torch.cdist(own, own)
        pairs = len(own) * (len(own) - 1)
        means.append(distances.sum() / pairs)
    return torch.stack(means).mean()


def _spread_cases(generator: torch.Generator):
    for sizes, width in (((2,), 3), ((2, 5, 3), 4), ((6, 0, 2, 3), 2), ((3, 3), 64), ((4, 9), 1)):
        labels = torch.cat([torch.full((n,), label) for label, n in enumerate(sizes)])
        features = torch.randn(len(labels), width, generator=generator)
        features = features * (1 + labels[:, None]) + 3 * labels[:, None]
        order = torch.randperm(len(labels), generator=generator)
        yield features[order], labels[order]
    labels = torch.tensor([1, 0, 0, 1, 1])
    yield 2e-5 * torch.randn(5, 2, generator=generator), labels  # nearly the same image


def _spread_with(one: Callable[[Tensor], Tensor], join: Callable = lambda m: torch.stack(m).mean()):
    return lambda features, labels: join([one(features[labels == c]) for c in labels.unique()])


def _triangle(own: Tensor) -> Tensor:
    return torch.cdist(own, own).triu(1).sum()


def _count(own: Tensor) -> int:
    return len(own) * (len(own) - 1)


def _spread_loop(features, labels):
    total, classes = 0.0, sorted(set(labels.tolist()))
    for label in classes:
        own = [f for f, c in zip(features, labels, strict=True) if c == label]
        pairs = [(a - b).norm() for i, a in enumerate(own) for b in own[:i]]
        total += float(sum(pairs) / len(pairs)) / len(classes)
    return total


def _spread_numpy(features, labels):
    f, c = features.double().numpy(), labels.numpy()
    means = []
    for label in np.unique(c):
        own = f[c == label]
        d = np.sqrt(((own[:, None] - own[None]) ** 2).sum(-1))
        means.append(d[np.triu_indices(len(own), 1)].mean())
    return np.mean(means)


spread = Exercise(
    "lesson08.spread",
    "How different are samples of one class?",
    difficulty=2,
    minutes=8,
    hints=(
        "One class at a time: `features[labels == label]`, for each label of `labels.unique()`.",
        "`torch.cdist(own, own)` holds the distances of all n by n pairs, 0 on the diagonal. "
        "How many of them are pairs of two different samples?",
        "The sum of the table divided by n (n - 1) is a class's mean; average over the classes.",
    ),
    model_answer=_spread,
    cases=_spread_cases,
    mistakes=(
        Mistake(
            "diagonal counted",
            _spread_with(lambda own: torch.cdist(own, own).mean()),
            "Your mean counts the distance of each sample to itself, which is 0: of n by n "
            "entries n are no pairs.",
        ),
        Mistake(
            "labels not used",
            lambda features, labels: (
                torch.cdist(features, features).sum() / (len(labels) * (len(labels) - 1))
            ),
            "You compare samples of different classes too. A four is far from a seven in any set: "
            "look at the pairs within a class.",
        ),
        Mistake(
            "squared",
            _spread_with(lambda own: torch.cdist(own, own).square().sum() / _count(own)),
            "These are means of squared distances: a root is missing.",
        ),
        Mistake(
            "divided by ten",
            lambda features, labels: _spread(features, labels) * len(labels.unique()) / 10,
            "You divide by 10, as if all ten classes occurred. Divide by the number of those that "
            "do.",
        ),
        Mistake(
            "half",
            _spread_with(lambda own: _triangle(own) / _count(own)),
            "You add up each pair once and divide as if you had added it twice, so you get half "
            "of the mean.",
        ),
        Mistake(
            "double",
            _spread_with(lambda own: 2 * torch.cdist(own, own).sum() / _count(own)),
            "The table of distances holds each pair twice already, and n (n - 1) counts them "
            "twice: no further factor.",
        ),
        Mistake(
            "large classes count more",
            lambda features, labels: (
                sum(torch.cdist(f, f).sum() for f in _classes(features, labels))
                / sum(_count(f) for f in _classes(features, labels))
            ),
            "You average over all pairs at once, so a large class counts more. First a mean for "
            "each class, then the mean of these.",
        ),
        Mistake(
            "classes that do not occur",
            lambda features, labels: torch.stack(
                [
                    torch.cdist(own, own).sum() / _count(own)
                    for own in (features[labels == c] for c in range(int(labels.max()) + 1))
                ]
            ).mean(),
            "One of the labels does not occur, and its mean over no pairs is NaN. Go through "
            "`labels.unique()`.",
        ),
        Mistake(
            "always ten classes",
            lambda features, labels: torch.stack(
                [
                    torch.cdist(own, own).sum() / _count(own)
                    for own in (features[labels == c] for c in range(10))
                ]
            ).mean(),
            "You go through ten classes, and a mean over no pairs is NaN. Take those that occur: "
            "`labels.unique()`.",
        ),
        Mistake(
            "median",
            _spread_with(lambda own: torch.nn.functional.pdist(own).quantile(0.5)),
            "You take the median of the distances. Use their mean.",
        ),
        Mistake(
            "classes weighed by size",
            lambda features, labels: (
                sum(len(f) * torch.pdist(f).mean() for f in _classes(features, labels))
                / len(labels)
            ),
            "You weigh the classes by their size. Each class counts once in the mean.",
        ),
        Mistake(
            "distance to the middle",
            _spread_with(lambda own: (own - own.mean(0)).norm(dim=1).mean()),
            "These are distances to the mean of a class. Use the distances between its samples, "
            "pair by pair.",
        ),
        Mistake(
            "diagonal in the half",
            _spread_with(lambda own: _triangle(own) / (len(own) * (len(own) + 1) / 2)),
            "Your half of the table still has its diagonal, and you count it: n samples have "
            "n (n - 1) / 2 pairs.",
        ),
        Mistake(
            "standard deviation",
            _spread_with(lambda own: own.var(0).sum().sqrt()),
            "This is a standard deviation around the mean of a class. Use the distances between "
            "its samples, pair by pair.",
        ),
        Mistake(
            "the largest distance",
            _spread_with(lambda own: torch.cdist(own, own).max()),
            "You take the largest distance in a class. Take the mean over its pairs.",
        ),
        Mistake(
            "city-block distance",
            _spread_with(lambda own: torch.cdist(own, own, p=1).sum() / _count(own)),
            "You add up absolute differences (p = 1). The usual distance is the root of the sum of "
            "squares, p = 2.",
        ),
        Mistake(
            "summed over classes",
            _spread_with(
                lambda own: torch.cdist(own, own).sum() / _count(own),
                join=lambda means: torch.stack(means).sum(),
            ),
            "You add up the classes' means; take the mean of them.",
        ),
    ),
    alternatives=(
        _spread_loop,
        _spread_numpy,
        _spread_with(lambda own: torch.nn.functional.pdist(own).mean()),
    ),
)


def _classes(features: Tensor, labels: Tensor) -> list[Tensor]:
    return [features[labels == label] for label in labels.unique()]


# --- questions ------------------------------------------------------------------------------------

scale_zero = Choice(
    "lesson08.scale_zero",
    "A seven at scale 0",
    difficulty=1,
    minutes=1,
    hints=("Put s = 0 into the formula. Where does the label still stand?",),
    right="b",
    options={
        "a": "At s = 0 the term with eps_cond is gone, so nothing in the answer knows of the "
        "seven, not even faintly.",
        "b": "Right: at s = 0 only eps_uncond is left, the model that was told no class. About one "
        "in ten is a seven by chance.",
        "c": "Away from the class is where a negative s would lead. At 0 the class has no say.",
        "d": "eps_uncond is a complete denoiser: it draws clean digits, whichever it likes.",
    },
)

paper_scale = Number(
    "lesson08.paper_scale",
    "The same picture in two conventions",
    difficulty=1,
    minutes=2,
    hints=("Write (1 + w) eps_cond - w eps_uncond as eps_uncond + s (eps_cond - eps_uncond).",),
    value=5.0,
    rtol=1e-6,
    mistakes=(
        Mistake(
            "the same number",
            4.0,
            "w = 4 is not s = 4: at w = 0 nothing is exaggerated, and that is s = 1.",
        ),
        Mistake("the other way", 3.0, "You went the other way: s is larger than w by one."),
        Mistake(
            "sum of factors",
            9.0,
            "1 + 2w is the sum of both factors' sizes. Compare what stands before eps_cond alone.",
        ),
    ),
    why="Before eps_cond stands 1 + w in one formula and s in the other: s = 1 + w.",
)

better_than_real = Choice(
    "lesson08.better_than_real",
    "More readable than handwriting",
    difficulty=2,
    minutes=2,
    hints=(
        "Which real digits does the judge misread, and would the guided model draw those?",
        "Look at the spread at that scale, beside that of real digits.",
    ),
    right="c",
    options={
        "a": "A set of pictures can be easy to read and still be unlike the data: the spread says "
        "that it holds too little of it.",
        "b": "The judge learned from real training images only and is tested on images it has not "
        "seen; it has never met a sample.",
        "c": "Right. Handwriting that can be mistaken exists, and guidance moves away from exactly "
        "that. What is left is easier to read than the truth, and there is less of it.",
        "d": "Chance gives one in ten; a hundred right answers in a row are no accident.",
    },
)
