"""Digits on demand: labels, dropping them, and exaggerating what they change."""

import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tutorial_lib.checks.framework import (
    Choice,
    Exercise,
    Mistake,
    Number,
    Property,
    Wrong,
    tensor_like,
)


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
        for name, part in (("t", t), ("labels", labels)):
            if part.shape != x_t.shape[:1]:
                got = f"x_t of {len(x_t)} samples and {name} of shape {tuple(part.shape)}"
                raise ValueError(f"{name} must be one number for each sample, got {got}")
        outside = labels[(labels < 0) | (labels > self.num_classes)]
        if len(outside):
            raise ValueError(f"labels must be in 0..{self.num_classes}, got {int(outside[0])}")
        self.calls.append(len(x_t))
        each = (-1, *[1] * (x_t.ndim - 1))
        shift = self.table.to(x_t)[labels].reshape(each)
        return torch.sin(x_t * (1 + 0.3 * shift)) + shift + 1e-3 * t.reshape(each)


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


# --- a row of each digit --------------------------------------------------------------------------


def _label_grid(num_classes, columns):
    return torch.arange(num_classes).repeat_interleave(columns)


label_grid = Exercise(
    "lesson08.label_grid",
    "A row for each digit",
    difficulty=1,
    minutes=3,
    hints=(
        "Begin with one label for each class: `torch.arange(num_classes)`.",
        "`repeat` writes the whole list again and again; `repeat_interleave` repeats each entry.",
    ),
    model_answer=_label_grid,
    cases=lambda _generator: iter(((10, 8), (3, 2), (1, 4), (5, 1), (4, 4))),
    mistakes=(
        Mistake(
            "columns",
            lambda num_classes, columns: torch.arange(num_classes).repeat(columns),
            "You run through all classes again and again: each class becomes a column. Here the "
            "first row is all class 0, the second all class 1.",
        ),
        Mistake(
            "from one",
            lambda num_classes, columns: torch.arange(1, num_classes + 1).repeat_interleave(
                columns
            ),
            "Your labels run from 1 and so end on the label that means no class. They run from 0.",
        ),
        Mistake(
            "no class as a row",
            lambda num_classes, columns: torch.arange(num_classes + 1).repeat_interleave(columns),
            "One row too many: label num_classes means no class, and is not wanted here.",
        ),
        Mistake(
            "numbered within a row",
            lambda num_classes, columns: torch.arange(num_classes * columns) % columns,
            "You count along each row. All samples of a row have one label, that of the row.",
        ),
        Mistake(
            "last class missing",
            lambda num_classes, columns: torch.arange(num_classes - 1).repeat_interleave(columns),
            "The last class is missing: `torch.arange(n)` ends at n - 1 by itself.",
        ),
        Mistake(
            "rows and columns swapped",
            lambda num_classes, columns: torch.arange(columns).repeat_interleave(num_classes),
            "You draw `columns` classes, `num_classes` times each: the two numbers are swapped.",
        ),
        Mistake(
            "a table",
            lambda num_classes, columns: torch.arange(num_classes)[:, None].repeat(1, columns),
            "The right labels, but as a table: a batch wants one label for each sample, in one "
            "row of num_classes * columns numbers.",
        ),
        Mistake(
            "floats",
            lambda num_classes, columns: torch.arange(num_classes).repeat_interleave(columns) / 1.0,
            "Right numbers, of the wrong kind: labels are whole numbers (int64), as they look up "
            "rows of a table.",
        ),
    ),
    alternatives=(
        lambda num_classes, columns: torch.tensor(
            [label for label in range(num_classes) for _ in range(columns)]
        ),
        lambda num_classes, columns: np.repeat(np.arange(num_classes), columns),
        lambda num_classes, columns: torch.arange(num_classes * columns) // columns,
    ),
)


# --- a model that knows its labels ----------------------------------------------------------------


def _condition(model, labels):
    def conditioned(x_t, t):
        return model(x_t, t, labels)

    return conditioned


def _condition_cases(generator: torch.Generator):
    for num_classes, shape in ((10, (4, 1, 3, 3)), (3, (1, 2)), (5, (6, 2)), (4, (3, 3, 2, 2))):
        model = _Labeled(num_classes, shape, generator)
        yield model, _labels_for(model, generator)


def _ask_twice(answer: Callable, model: _Labeled, labels: Tensor) -> Tensor:
    """The answers at two different states: the function must work at every step of a walk."""
    denoiser = answer(model, labels)
    first = _ask(denoiser, model)
    model.x_t, model.t = 0.5 * model.x_t + 1, (model.t + 1) // 2
    return torch.stack([first, _ask(denoiser, model)])


condition = Exercise(
    "lesson08.condition",
    "A model that knows its labels",
    difficulty=1,
    minutes=4,
    hints=(
        "A function may be defined inside a function. The inner one sees the outer one's `model` "
        "and `labels`, also later, when the sampler calls it.",
        "The inner function takes (x_t, t) and returns model(x_t, t, labels); the outer one "
        "returns the inner one, without calling it.",
    ),
    model_answer=_condition,
    cases=_condition_cases,
    use=_ask_twice,
    mistakes=(
        Mistake(
            "the model itself",
            lambda model, labels: model,
            "You return the model unchanged, and it still waits for labels. Return a function of "
            "(x_t, t) that passes them on.",
        ),
        Mistake(
            "t and labels swapped",
            lambda model, labels: lambda x_t, t: model(x_t, labels, t),
            "The model takes (x_t, t, labels), in this order; yours gets the labels as steps.",
        ),
        Mistake(
            "called too early",
            lambda model, labels: model(labels),
            "You call the model inside `condition`, where there is no x_t yet. Define a function "
            "that will call it, and return that.",
        ),
        Mistake(
            "one label for all",
            lambda model, labels: lambda x_t, t: model(x_t, t, labels[:1].expand(len(t))),
            "All samples get the first label; each has its own.",
        ),
        Mistake(
            "never told",
            lambda model, labels: (
                lambda x_t, t: model(x_t, t, torch.full_like(labels, model.num_classes))
            ),
            "Your function passes the label for no class, so `labels` has no effect.",
        ),
    ),
    alternatives=(
        lambda model, labels: lambda x_t, t: model(x_t, t, labels),
        lambda model, labels: functools.partial(model, labels=labels),
        lambda model, labels: (
            lambda x_t, t: torch.cat(
                [model(x_t[i : i + 1], t[i : i + 1], labels[i : i + 1]) for i in range(len(t))]
            )
        ),
    ),
    passed="Whatever samples with a model (x_t, t) now samples with yours.",
)


# --- dropping labels ------------------------------------------------------------------------------

_MANY = 4000


def _drop_labels(labels, p, num_classes, generator):
    dropped = torch.rand(len(labels), generator=generator) < p
    return torch.where(dropped, num_classes, labels)


def _drop_cases(generator: torch.Generator):
    for p, num_classes in ((0.1, 10), (0.3, 3), (0.8, 5), (0.0, 4), (1.0, 10)):
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
    came = tensor_like(came, before)
    if not torch.equal(labels, before):
        raise Wrong("properties", _IN_PLACE, mistake="in place")
    strange = came[(came != before) & (came != num_classes)].unique().tolist()
    if strange:
        name = "another class for no class"
        if len(strange) == 1:
            name = {0: "class 0 for no class", num_classes - 1: "last class for no class"}.get(
                strange[0], "another label for no class"
            )
        raise Wrong("values", _STRANGE[name], name)
    gone = came == num_classes
    singles = [
        tensor_like(answer(before[i : i + 1], p, num_classes, generator), before[:1])
        for i in range(300)
    ]
    alone = (torch.cat(singles).flatten() == num_classes).float().mean()
    shares = [gone.float().mean(), gone[: _MANY // 2].float().mean(), alone]
    shares += [(gone | (came == before)).float().mean(), (gone[1:] & gone[:-1]).float().mean()]
    return tuple(shares)


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
        torch.tensor(share) for share in (p, p, p, 1.0, p * p)
    ),
    parts=(
        "share dropped",
        "share dropped in the first half of a batch",
        "share dropped in batches of one",
        "share that is the label that came in, or no class",
        "share dropped together with its neighbor",
    ),
    rtol=0.0,
    # five standard deviations of the share of 300 single labels are 0.14, of the others 0.06
    atol=0.14,
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
            lambda labels, p, num_classes, generator: torch.where(
                torch.rand(len(labels), generator=generator) < p, 0, labels
            ),
            _STRANGE["class 0 for no class"],
        ),
        Mistake(
            "another label for no class",
            lambda labels, p, num_classes, generator: torch.where(
                torch.rand(len(labels), generator=generator) < p, -1, labels
            ),
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
            lambda labels, p, num_classes, generator: torch.where(
                torch.rand(len(labels), generator=generator) < 0.1, num_classes, labels
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
            lambda labels, p, num_classes, generator: torch.where(
                torch.rand(len(labels), generator=generator) < p, num_classes - 1, labels
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
        Mistake("in place", _drop_in_place, _IN_PLACE),
        Mistake("generator not used", _drop_with_global_randomness, _NOT_HANDED_IN),
    ),
    alternatives=(_drop_loop, _drop_bernoulli, _drop_kept),
    passed="This one line is all that training for guidance needs.",
)


# --- the guided answer ----------------------------------------------------------------------------


def _guided_eps(eps_cond, eps_uncond, scale):
    return eps_uncond + scale * (eps_cond - eps_uncond)


def _guided_cases(generator: torch.Generator):
    for shape, scale in (((1, 2), 3.5), ((2, 1, 4, 4), 0.0), ((3, 3), 1), ((4, 2), 0.4)):
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
            "You start at eps_cond and go on from there: that is w, the paper's way of counting, "
            "where 0 is conditional. Here scale 1 must give eps_cond.",
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
            "scale on everything",
            lambda eps_cond, eps_uncond, scale: scale * (eps_uncond + (eps_cond - eps_uncond)),
            "The scale reaches both terms, so eps_uncond cancels out. It belongs to the "
            "difference alone.",
        ),
        Mistake(
            "difference alone",
            lambda eps_cond, eps_uncond, scale: scale * (eps_cond - eps_uncond),
            "This is the exaggerated difference only. It has to be added to eps_uncond.",
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
    eps_hat = _ask(denoiser, model)
    model.x_t, model.t = 0.5 * model.x_t + 1, (model.t + 1) // 2
    eps_hats = torch.stack([eps_hat, _ask(denoiser, model)])
    return eps_hats, torch.tensor(len(model.calls) / 2)


def _two_reference(model, labels, scale, num_classes) -> tuple[Tensor, Tensor]:
    nobody, parts = torch.full_like(labels, num_classes), []
    for _ in range(2):
        without = model(model.x_t, model.t, nobody)
        parts.append(without + scale * (model(model.x_t, model.t, labels) - without))
        model.x_t, model.t = 0.5 * model.x_t + 1, (model.t + 1) // 2
    return torch.stack(parts), torch.tensor(1.0)


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
    parts=("eps_hat", "calls of the model at each step"),
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
            "The halves come back in the order in which you put them in; you name them the other "
            "way around.",
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
            "Both halves are told the class, so their difference is 0 and the scale does nothing.",
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
        "d": "Chance gives one in ten; several hundred right answers in a row are no accident.",
    },
)
