"""Answers that run in a process of their own, for ``test_remote``: it imports the exercises, and
runs this file, which hands over the answers in the order of ``ANSWERS``."""

import os
import sys
import time

import torch
from torch import Tensor, nn

from tutorial_lib.checks import all_exercises
from tutorial_lib.checks.framework import Choice, Exercise, Mistake, Task, Wrong
from tutorial_lib.checks.framework.remote.answering import hand_over


class Model(nn.Module):
    """A model with a weight, which rejects negative numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0))
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += 1
        if (x < 0).any():
            raise Wrong("values", "The model was shown a negative number.", "negative")
        return self.weight * x**2


def _numbers(generator: torch.Generator):
    for size in (1, 3):
        yield (torch.rand(size, generator=generator),)


def _double(x):
    return 2 * x


def _loss(model, x):
    return model(x).sum()


def _slope(model, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(model(x).sum(), x)[0]


def _trained(answer, model, x):
    """The loss, and its gradient at the model's weight."""
    loss = answer(model, x)
    loss.backward()
    return loss.detach(), model.weight.grad


def _untouched(answer, x):
    before = x.clone()
    result = answer(x)
    if not torch.equal(x, before):
        raise Wrong("properties", "You changed x.", "in place")
    return result


def _draws_on(answer, generator):
    return torch.stack([answer(generator), answer(generator)])


def _halve(network):
    with torch.no_grad():
        network.weight.mul_(0.5)


def _halved(answer, network):
    if answer(network) is ...:
        return ...
    return network.weight.detach()


def _networks(generator: torch.Generator):
    network = nn.Linear(2, 1)
    with torch.no_grad():
        network.weight.copy_(torch.rand(1, 2, generator=generator))
    yield (network,)


def _exercise(name: str, answer, **fields) -> Exercise:
    fields = {"cases": _numbers, "hints": ("Try.",), "seconds": 4.0, **fields}
    return Exercise(f"lesson99.{name}", name, model_answer=answer, **fields)


def _models(generator: torch.Generator):
    yield Model(), torch.rand(3, generator=generator)


def _lists(generator: torch.Generator):
    yield ([int(torch.randint(9, (), generator=generator)), 10],)


DOUBLE = _exercise("double", _double, mistakes=(Mistake("tripled", lambda x: 3 * x, "Thrice."),))
SHORT = _exercise("short", _double, seconds=0.5)
UNTOUCHED = _exercise("untouched", _double, use=_untouched)
TRAINED = _exercise("trained", _loss, cases=_models, use=_trained, parts=("loss", "gradient"))
SLOPE = _exercise("slope", _slope, cases=_models)
DRAWS = _exercise(
    "draws",
    lambda generator: torch.rand(2, generator=generator),
    cases=lambda generator: [(torch.Generator().manual_seed(generator.initial_seed()),)],
    use=_draws_on,
)
MAKER = _exercise("maker", lambda x: lambda y: x + y, use=lambda answer, x: answer(x)(x))
HALVED = _exercise("halved", _halve, cases=_networks, use=_halved, together=True)
DOUBLE_BESIDE = _exercise("double_beside", _double, together=True)
TURNED = _exercise("turned", lambda x: x[::-1], cases=_lists)
QUESTION = Choice("lesson99.q", "q", hints=("h",), right="b", options={"a": "no", "b": "y"})
TASKS: dict[str, Task] = {
    task.id: task
    for task in (
        DOUBLE,
        DOUBLE_BESIDE,
        SHORT,
        TURNED,
        UNTOUCHED,
        TRAINED,
        SLOPE,
        DRAWS,
        MAKER,
        HALVED,
        QUESTION,
    )
}


def _raises(x):
    raise KeyError("nothing here")


def _endless(x):
    while True:
        x = x


def _swallows_everything(x):
    while True:
        try:
            time.sleep(0.01)
        except BaseException:
            continue


def _adds_in_place(x):
    return x.add_(x)


def _turns_in_place(x):
    x.reverse()
    return list(x)


def _stub(x): ...


class Halves:
    """An answer that is an object with a call."""

    def __call__(self, x):
        return x + x


ANSWERS: dict[str, tuple[Task, object]] = {
    "right": (DOUBLE, _double),
    "an object": (DOUBLE, Halves()),
    "a NumPy array": (DOUBLE, lambda x: 2 * x.numpy()),
    "a list": (DOUBLE, lambda x: (2 * x).tolist()),
    "by name": (DOUBLE, lambda *, x: x + x),
    "wrong": (DOUBLE, lambda x: x + 0.01),
    "a known mistake": (DOUBLE, lambda x: x + 2 * x),
    "a stub": (DOUBLE, _stub),
    "dots": (DOUBLE, ...),
    "no function": (DOUBLE, 3.5),
    "a set": (DOUBLE, lambda x: {1, 2}),
    "a function": (DOUBLE, lambda x: _double),
    "raises": (DOUBLE, _raises),
    "quits": (DOUBLE, lambda x: sys.exit(3)),
    "huge": (DOUBLE, lambda x: torch.zeros(3_000_000)),
    "endless": (SHORT, _endless),
    "swallows": (SHORT, _swallows_everything),
    "copies": (UNTOUCHED, _double),
    "in place": (UNTOUCHED, _adds_in_place),
    "overwrites": (DOUBLE, _adds_in_place),
    "overwrites a list": (TURNED, _turns_in_place),
    "overwrites beside": (DOUBLE_BESIDE, _adds_in_place),
    "a gradient": (TRAINED, _loss),
    "a gradient by pieces": (TRAINED, lambda model, x: sum(model(one) for one in x)),
    "no gradient": (TRAINED, lambda model, x: model(x).sum().detach()),
    "half a gradient": (TRAINED, lambda m, x: 0.5 * m(x).sum() + 0.5 * m(x).sum().detach()),
    "asks for a negative": (TRAINED, lambda model, x: model(-x).sum()),
    "asks for too much": (TRAINED, lambda model, x: model(torch.zeros(99_999)).sum()),
    "a slope": (SLOPE, _slope),
    "a slope by backward": (SLOPE, lambda model, x: _by_backward(model, x)),
    "draws": (DRAWS, lambda generator: torch.rand(2, generator=generator)),
    "draws twice": (DRAWS, lambda generator: torch.rand(2, 2, generator=generator)[1]),
    "makes a function": (MAKER, lambda x: lambda y: y + x),
    "halves": (HALVED, _halve),
    "quarters": (HALVED, lambda network: [_halve(network), _halve(network)]),
    "a letter": (QUESTION, "B)"),
    "another letter": (QUESTION, "a"),
    "dies": (DOUBLE, lambda x: os._exit(3)),
}


def _by_backward(model, x):
    x = x.clone().requires_grad_()
    model(x).sum().backward()
    return x.grad


def last_right_answer(task: Task) -> tuple[str, object]:
    """The name of a right answer, and the answer: the last one is often NumPy's, or one by one."""
    return list(task.right_answers().items())[-1]


def main() -> None:
    """Hands over the answers of this file, or with "course" right ones of the whole course."""
    torch.set_num_threads(1)
    if sys.argv[1:] == ["course"]:
        for task in all_exercises():
            hand_over(task, last_right_answer(task)[1])
    else:
        for task, answer in ANSWERS.values():
            hand_over(task, answer)


if __name__ == "__main__":
    main()
