"""Lesson 5: the training loop, and what makes it hold: rates, clipping, averages."""

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn

from tutorial_lib.checks.framework import Exercise, Mistake, Number, Wrong, tensor_like
from tutorial_lib.checks.lesson05_steps import some_seed, unanswered, weights_of
from tutorial_lib.training import lr_factor

# One training step


class _Batches:
    """A loss on fresh data at every call, which notes whether it was traced back to the weights."""

    def __init__(self, seed: int, batch: int, share: float = 1.0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.batch, self.share, self.backwards = batch, share, 0
        self.x = torch.zeros(batch, 3)

    def __call__(self, network: nn.Module) -> Tensor:
        self.x = torch.randn(self.batch, 3, generator=self.generator)
        loss = self.loss_now(network)
        if loss.requires_grad:
            loss.register_hook(self._note)
        return loss

    def loss_now(self, network: nn.Module) -> Tensor:
        """The loss on the latest batch, once more."""
        return self.share * (network(self.x) - self.x.sum(1, keepdim=True)).square().mean()

    def _note(self, gradient: Tensor) -> None:
        self.backwards += 1

    def __repr__(self) -> str:
        return "a loss on fresh batches"


def _small_network(seed: int) -> nn.Module:
    """A network whose weights come from ``seed``, not from global random numbers."""
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return network


def _train_step(network, optimizer, loss_of):
    loss = loss_of(network)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def _step_cases(generator: torch.Generator):
    for batch in (4, 1, 8):
        seed = some_seed(generator)
        network = _small_network(seed)
        if batch == 1:
            optimizer = torch.optim.AdamW(network.parameters(), lr=0.05)
        else:
            optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.5)
        yield network, optimizer, _Batches(seed, batch)
    seed = some_seed(generator)
    network = _small_network(seed)
    yield network, torch.optim.AdamW(network.parameters(), lr=0.05), _Batches(seed, 2, share=1e-5)


_STEP_MESSAGES = {
    "no backward": "No gradient was ever calculated: call `loss.backward()`, on the loss itself.",
    "step before backward": "Your optimizer moves before the gradient is there: at the first step "
    "it has none to go by. First `backward()`, then `step()`.",
    "two steps": "Your optimizer makes more than one step per call: `step()` once, after "
    "`backward()`.",
    "no step": "The optimizer never made a step: it is `optimizer.step()` that moves the weights.",
    "another optimizer": "Your weights moved, but not by the optimizer that you were given. A new "
    "one at each step forgets its running means: use the one you were given.",
    "keeps the graph": "The loss you return still carries its graph. A list of such losses keeps "
    "the activations of every step in memory: return `loss.item()` or `loss.detach()`.",
}


def _gradient_trouble(network: nn.Module, loss_of: _Batches, older: dict[str, Tensor]) -> str:
    """Which gradients are not those of the latest batch, as the optimizer is about to step.

    Args:
        older: the sums of the right gradients of earlier steps, by parameter; gets these too.
    """
    twin = copy.deepcopy(network)
    with torch.enable_grad():
        right = torch.autograd.grad(loss_of.loss_now(twin), list(twin.parameters()))
    trouble: dict[str, list[str]] = {}
    small = 1e-6 * max(float(one.abs().max()) for one in right)
    for (name, parameter), wanted in zip(network.named_parameters(), right, strict=True):
        given, before = parameter.grad, older.get(name)
        older[name] = wanted if before is None else before + wanted
        if given is None or not given.any():
            what = "is missing"
        elif torch.allclose(given, wanted, rtol=1e-4, atol=small):
            continue
        elif torch.allclose(given, older[name], rtol=1e-4, atol=small):
            what = "is the sum over all batches so far"
        elif torch.allclose(given, -wanted, rtol=1e-4, atol=small):
            what = "has the opposite sign"
        else:
            what = "is not that of the batch"
        trouble.setdefault(what, []).append(name)
    count = len(right)
    return "; ".join(
        f"the gradient of {'every parameter' if len(names) == count else ', '.join(names)} {what}"
        for what, names in trouble.items()
    )


def _three_steps(answer, network, optimizer, loss_of):
    """The losses of three steps, and the weights after the first and the last of them."""
    before, made, losses, weights = weights_of(network), [], [], []
    older: dict[str, Tensor] = {}
    trouble: list[str] = []

    def look(optimizer: torch.optim.Optimizer, arguments: tuple, named: dict) -> None:
        if not arguments and not named:  # a closure calculates the gradients later
            found = _gradient_trouble(network, loss_of, older)
            if found and not trouble:
                trouble.append(f"At step {len(losses) + 1}, when the optimizer moves: {found}.")

    optimizer.register_step_pre_hook(look)
    optimizer.register_step_post_hook(lambda *_: made.append(loss_of.backwards))
    for _ in range(3):
        loss = answer(network, optimizer, loss_of)
        if unanswered(loss):
            return loss
        if isinstance(loss, Tensor) and loss.requires_grad:
            raise Wrong("properties", _STEP_MESSAGES["keeps the graph"], "keeps the graph")
        losses.append(tensor_like(loss, torch.zeros(())).double())
        weights.append(weights_of(network))
    name = None
    if not loss_of.backwards:
        name = "no backward"
    elif not made:
        name = "no step" if torch.equal(before, weights[-1]) else "another optimizer"
    elif not made[0]:
        name = "step before backward"
    elif len(made) > len(losses):
        name = "two steps"
    if name:
        raise Wrong("values", _STEP_MESSAGES[name], name)
    if trouble:
        raise Wrong("values", trouble[0])
    return losses[0], weights[0], torch.stack(losses), weights[-1]


def _gradients_pile_up(network, optimizer, loss_of):
    loss = loss_of(network)
    loss.backward()
    optimizer.step()
    return loss.item()


def _one_layer_wiped(network, optimizer, loss_of):
    network[0].zero_grad()
    return _gradients_pile_up(network, optimizer, loss_of)


def _number_first(network, optimizer, loss_of):
    loss = loss_of(network).item()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def _zeros(network, optimizer, loss_of):
    optimizer.zero_grad(set_to_none=False)
    loss = loss_of(network)
    loss.backward()
    optimizer.step()
    return float(loss)


def _wiped_too_late(network, optimizer, loss_of):
    loss = loss_of(network)
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss.item()


def _step_before_backward(network, optimizer, loss_of):
    loss = loss_of(network)
    optimizer.step()
    optimizer.zero_grad()
    loss.backward()
    return loss.item()


def _two_steps(network, optimizer, loss_of):
    loss = _train_step(network, optimizer, loss_of)
    optimizer.step()
    return loss


def _without_backward(network, optimizer, loss_of):
    loss = loss_of(network)
    optimizer.zero_grad()
    optimizer.step()
    return loss.item()


def _without_step(network, optimizer, loss_of):
    loss = loss_of(network)
    optimizer.zero_grad()
    loss.backward()
    return loss.item()


def _detached(network, optimizer, loss_of):
    loss = loss_of(network).detach()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def _own_optimizer(network, optimizer, loss_of):
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    return _train_step(network, optimizer, loss_of)


def _asked_twice(network, optimizer, loss_of):
    optimizer.zero_grad()
    loss_of(network).backward()
    optimizer.step()
    return loss_of(network).item()


def _with_graph(network, optimizer, loss_of):
    loss = loss_of(network)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def _uphill(network, optimizer, loss_of):
    loss = loss_of(network)
    optimizer.zero_grad()
    (-loss).backward()
    optimizer.step()
    return loss.item()


def _by_closure(network, optimizer, loss_of):
    def closure():
        for parameter in network.parameters():
            parameter.grad = None
        loss = loss_of(network)
        loss.backward()
        return loss

    return optimizer.step(closure).detach()


def _wipes_afterwards(network, optimizer, loss_of):
    loss = loss_of(network)
    loss.backward()
    optimizer.step()
    network.zero_grad()
    return np.float32(loss.detach().numpy())


train_step = Exercise(
    "lesson05.train_step",
    "One training step",
    difficulty=1,
    minutes=6,
    hints=(
        "Ask for the loss once and keep it. Then three calls follow: wipe the old gradients, "
        "calculate the new ones, let the optimizer move the weights.",
        "`optimizer.zero_grad()`, `loss.backward()`, `optimizer.step()`, in this order.",
        "Return the number without its graph: `loss.item()`.",
    ),
    model_answer=_train_step,
    cases=_step_cases,
    use=_three_steps,
    together=True,
    atol=1e-7,
    reference=lambda *case: _three_steps(_train_step, *case),
    parts=("first loss", "weights after one step", "three losses", "weights after three steps"),
    mistakes=(
        Mistake(
            "a number too early",
            _number_first,
            "`.item()` makes a plain number of the loss, and a number has no `backward()`. Keep "
            "the tensor until the step is made; `.item()` is for the return.",
        ),
        Mistake(
            "one layer wiped",
            _one_layer_wiped,
            "Some gradients are wiped and others pile up: at the second step those of the other "
            "layers are sums. Wipe all of them, with `optimizer.zero_grad()`.",
        ),
        Mistake(
            "gradients pile up",
            _gradients_pile_up,
            "The first step is right, later ones are not: gradients pile up. `backward()` adds to "
            "what `.grad` already holds; wipe it at every step.",
        ),
        Mistake(
            "wiped too late",
            _wiped_too_late,
            "You wipe the gradients between `backward()` and `step()`, so the optimizer finds "
            "nothing to go by and your weights stay where they are.",
        ),
        Mistake(
            "step before backward",
            _step_before_backward,
            _STEP_MESSAGES["step before backward"],
        ),
        Mistake("two steps", _two_steps, _STEP_MESSAGES["two steps"]),
        Mistake("no backward", _without_backward, _STEP_MESSAGES["no backward"]),
        Mistake("no step", _without_step, _STEP_MESSAGES["no step"]),
        Mistake(
            "detached",
            _detached,
            "`backward()` finds no way back: the loss was cut off from its graph, by `.detach()` "
            "or `torch.no_grad()`. Cut it off at the end, for the return.",
        ),
        Mistake("another optimizer", _own_optimizer, _STEP_MESSAGES["another optimizer"]),
        Mistake(
            "two losses",
            _asked_twice,
            "You call `loss_of` twice. Each call draws a fresh batch, so you return another loss "
            "than the one you trained on, and pay twice. Keep the first in a variable.",
        ),
        Mistake("keeps the graph", _with_graph, _STEP_MESSAGES["keeps the graph"]),
        Mistake(
            "uphill",
            _uphill,
            "Your weights walk uphill: the sign is wrong. The optimizer subtracts by itself.",
        ),
    ),
    alternatives=(_by_closure, _wipes_afterwards, _zeros),
    passed="Three steps in a row end at the right weights, with SGD and with AdamW.",
)


# The learning rate


def _lr_at(step, steps, warmup, peak):
    fraction = (step + 0.5) / steps
    grown = min(1, fraction / warmup) if warmup > 0 else 1
    return peak * grown * (1 - fraction)


def _lr_cases(generator: torch.Generator):
    yield 0, 100, 0.1, 3e-3
    yield 4, 100, 0.1, 3e-3
    yield 9, 100, 0.1, 3e-3
    yield 10, 100, 0.1, 3e-3
    yield 57, 100, 0.1, 2e-2
    yield 99, 100, 0.1, 3e-3
    yield 0, 40, 0.0, 1.0
    yield 20, 40, 0.0, 0.5
    yield 3, 8, 1.0, 1.0
    yield 0, 8, 1.0, 1.0
    yield 0, 1, 0.5, 1.0
    yield 0, 1, 0.0, 1.0
    yield 2, 37, 0.1, 1.0
    yield 3, 37, 0.1, 1.0
    yield 4, 37, 0.1, 1.0
    yield 3, 37, 0.0865, 2.0
    yield 30, 37, 0.9, 1e-4
    yield 0, 1000, 0.5, 1.0
    yield 99, 1000, 0.1, 1.0
    yield 0, 1000, 0.002, 1.0


def _rate(answer, step, steps, warmup, peak):
    """The rate; a wrong one is answered with where in the run it is, and its two factors."""
    given = answer(step, steps, warmup, peak)
    if unanswered(given):
        return given
    rate = tensor_like(given, torch.zeros((), dtype=torch.float64)).double()
    wanted = _lr_at(step, steps, warmup, peak)
    if not math.isclose(float(rate), wanted, rel_tol=1e-5, abs_tol=1e-9):
        f = (step + 0.5) / steps
        where = "in the warm-up" if f < warmup else "after the warm-up" if warmup else "no warm-up"
        rise, share = min(1.0, f / warmup) if warmup else 1.0, float(rate) / peak
        raise Wrong(
            "values",
            f"Step {step} of {steps}, warmup {warmup:g} ({where}): f is {f:.4g}, so the rise is "
            f"{rise:.4g} and the fall {1 - f:.4g}. Your rate is {share:.4g} times the peak.",
        )
    return rate


def _lr_like(*, place=0.5, fraction=None, grow=None, fall=None, together=lambda a, b: a * b):
    """The rate with something changed: where in a step it is taken, its rise, its fall."""
    fraction_of = fraction or (lambda step, steps: (step + place) / steps)

    def lr_at(step, steps, warmup, peak):
        fraction = fraction_of(step, steps)
        grown = min(1, fraction / warmup) if warmup > 0 else 1
        if grow is not None and warmup > 0:
            grown = grow(fraction, warmup, step)
        fallen = 1 - fraction if fall is None else fall(fraction, warmup)
        return peak * together(grown, fallen)

    return lr_at


def _lr_divides_by_nothing(step, steps, warmup, peak):
    fraction = (step + 0.5) / steps
    return peak * min(1, fraction / warmup) * (1 - fraction)


lr_at = Exercise(
    "lesson05.lr_at",
    "Warm-up and decay",
    difficulty=1,
    minutes=6,
    hints=(
        "First f, the share of the run that is over in the middle of this step. Everything else "
        "is written in f.",
        "Two factors: `min(1, f / warmup)` and `1 - f`. What if warmup is 0?",
    ),
    model_answer=_lr_at,
    cases=_lr_cases,
    use=_rate,
    atol=1e-9,
    mistakes=(
        Mistake(
            "warm-up in whole steps",
            lambda step, steps, warmup, peak: (
                peak
                * (min(1, (step + 0.5) / w) if (w := int(warmup * steps)) else 1)
                * (1 - (step + 0.5) / steps)
            ),
            "You round the warm-up to whole steps, so it ends too early where warmup * steps is "
            "not whole. Compare shares of the run: f / warmup.",
        ),
        Mistake(
            "asks at the start of the step",
            lambda step, steps, warmup, peak: (
                peak
                * ((step + 0.5) / steps / warmup if step < warmup * steps else 1)
                * (1 - (step + 0.5) / steps)
            ),
            "You ask whether the warm-up is over at the start of the step, but take f in its "
            "middle. Where it ends in between, your rise goes above 1: use min(1, f / warmup).",
        ),
        Mistake(
            "first step to last",
            _lr_like(
                fraction=lambda step, steps: step / (steps - 1) if steps > 1 else 0.5,
            ),
            "Your f runs from 0 at the first step to 1 at the last, so both have rate 0 and are "
            "wasted. It is (step + 0.5) / steps.",
        ),
        Mistake(
            "whole division",
            _lr_like(fraction=lambda step, steps: step // steps),
            "`//` divides without a remainder: step // steps is 0 in every step. Use `/`.",
        ),
        Mistake(
            "cosine decay",
            _lr_like(fall=lambda f, warmup: 0.5 * (1 + math.cos(math.pi * f))),
            "Your fall is a cosine. Many people train so; the rule here is the line 1 - f.",
        ),
        Mistake(
            "start of the step",
            _lr_like(place=0),
            "You take f at the start of the step, step / steps. Then the first step has rate 0 and "
            "is wasted. Take the middle of the step.",
        ),
        Mistake(
            "end of the step",
            _lr_like(place=1),
            "You take f at the end of the step, (step + 1) / steps. Then the last step has rate 0 "
            "and is wasted. Take the middle of the step.",
        ),
        Mistake(
            "warm-up never ends",
            _lr_like(grow=lambda f, warmup, step: f / warmup),
            "Your warm-up goes on growing after it should be over: f / warmup must not go above 1.",
        ),
        Mistake(
            "max for min",
            _lr_like(grow=lambda f, warmup, step: max(1, f / warmup)),
            "Your warm-up factor is never below 1. The smaller of 1 and f / warmup is wanted.",
        ),
        Mistake(
            "warm-up counted in steps",
            _lr_like(grow=lambda f, warmup, step: min(1, (step + 0.5) / warmup)),
            "You divide the number of the step by `warmup`, but warmup is a share of the run, as f "
            "is. Divide f by it.",
        ),
        Mistake(
            "no warm-up",
            _lr_like(grow=lambda f, warmup, step: 1),
            "The fall is right, the rise is missing: multiply by min(1, f / warmup) too.",
        ),
        Mistake(
            "no decay",
            _lr_like(fall=lambda f, warmup: 1),
            "The rise is right, the fall is missing: multiply by 1 - f too.",
        ),
        Mistake(
            "fall upside down",
            _lr_like(fall=lambda f, warmup: f),
            "Your second factor grows from 0 to 1. It should fall from 1 to 0.",
        ),
        Mistake(
            "fall begins after the warm-up",
            _lr_like(fall=lambda f, w: min(1, (1 - f) / (1 - w)) if w < 1 else 1),
            "You let the fall begin where the warm-up ends. People do that too, but here both "
            "factors hold from the start: rise times (1 - f).",
        ),
        Mistake(
            "rise or fall",
            lambda step, steps, w, peak: (
                peak * (f / w if (f := (step + 0.5) / steps) < w else 1 - f)
            ),
            "You take the rise while the warm-up lasts and the fall afterwards. Both factors hold "
            "all the time: multiply them.",
        ),
        Mistake(
            "no rate without warm-up",
            lambda step, steps, w, peak: _lr_at(step, steps, w, peak) if w else 0.0,
            "With warmup = 0 your rate is 0, and nothing is learned. It means that the rise is "
            "over at once: factor 1.",
        ),
        Mistake(
            "smaller of the two",
            _lr_like(together=min),
            "You take the smaller of rise and fall. Here they are multiplied.",
        ),
        Mistake(
            "peak forgotten",
            lambda step, steps, warmup, peak: _lr_at(step, steps, warmup, 1.0),
            "This is the factor between 0 and 1. The rate is the factor times `peak`.",
        ),
        Mistake(
            "division by zero",
            _lr_divides_by_nothing,
            "With warmup = 0 you divide by zero. It means that there is no warm-up: factor 1.",
        ),
    ),
    alternatives=(
        lambda step, steps, warmup, peak: peak * lr_factor((step + 0.5) / steps, warmup, "linear"),
        lambda step, steps, warmup, peak: (
            torch.tensor(peak).double()
            * (1 if (2 * step + 1) >= 2 * steps * warmup else (2 * step + 1) / steps / warmup / 2)
            * (steps - step - 0.5)
            / steps
        ),
        lambda step, steps, warmup, peak: (
            (peak * np.interp((step + 0.5) / steps, [0, max(warmup, 1e-12)], [0, 1]))
            * (1 - (step + 0.5) / steps)
        ),
    ),
)

first_step = Number(
    "lesson05.first_step",
    "Adam's first step",
    difficulty=2,
    minutes=3,
    hints=(
        "At the first step the corrected means hold one gradient each: m = g and v = g squared.",
        "The step is lr times m over the root of v. What is g over the root of g squared?",
    ),
    value=0.01,
    mistakes=(
        Mistake(
            "plain gradient descent",
            0.01 * 0.0003,
            "That is lr times the gradient: plain gradient descent. Adam divides by the root of v.",
        ),
        Mistake("the gradient", 0.0003, "That is the gradient. How long a step does Adam make?"),
        Mistake(
            "only m uncorrected",
            0.001,
            "You kept the factor 1 - beta_1 = 0.1 in m. The corrected mean has it divided out.",
        ),
        Mistake(
            "nothing corrected",
            0.01 * 0.1 / math.sqrt(0.001),
            "That is what comes without the correction of m and v. With it both factors go out.",
        ),
        Mistake(
            "only v uncorrected",
            0.01 / math.sqrt(0.001),
            "You kept the factor 1 - beta_2 = 0.001 in v. The corrected mean has it divided out.",
        ),
        Mistake(
            "not rooted",
            0.01 / 0.0003,
            "You divide by v itself. Adam divides by its root.",
        ),
    ),
    why="g over the root of g squared is 1 or -1: a first step has the size lr, however small the "
    "gradient. Adam strides out fully before it knows anything, which is what warm-up tames.",
)


# Clipping


def _clip_gradients(gradients, max_norm):
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    factor = min(1.0, max_norm / norm)  # where norm is 0, this is infinity, and so 1
    return [factor * g for g in gradients]


def _clip_cases(generator: torch.Generator):
    shapes = ((4,), (3, 4), (2, 2, 3))
    norms = (
        (16.0, 1.0),
        (0.25, 1.0),
        (2.5, 0.3),
        (21.0, 7.0),
        (2.0, 7.0),
        (0.6, 0.2),
        (30.0, 40.0),
        (0.008, 0.005),
        (4000.0, 2.0),
    )
    for norm, max_norm in norms:
        drawn = [torch.randn(shape, generator=generator) for shape in shapes]
        size = norm / float(torch.cat([one.flatten() for one in drawn]).norm())
        yield [size * one for one in drawn], max_norm
    yield [2 + torch.rand(1, generator=generator)], 0.5
    yield [torch.zeros(2, 2), torch.zeros(3)], 1.0
    yield [torch.tensor([0.3, -0.2]), torch.tensor([[0.1]])], 2.0


def _joined(answer, gradients, max_norm):
    """All numbers of the answer in one tensor."""
    likes = [g.clone() for g in gradients]
    result = answer(gradients, max_norm)
    if unanswered(result):
        return result
    if not isinstance(result, (list, tuple)) or len(result) != len(likes):
        text = f"Return a list of {len(likes)} tensors, one for each that came."
        raise Wrong("shape", text + " A scale for all is found first, then each is multiplied.")
    parts = [tensor_like(one, like) for one, like in zip(result, likes, strict=True)]
    found = torch.cat([part.double().flatten() for part in parts])
    _compare_arrows(torch.cat([like.double().flatten() for like in likes]), found, max_norm)
    return found


def _compare_arrows(given: Tensor, found: Tensor, max_norm: float) -> None:
    """Raises Wrong with what happened to the one long arrow of all gradients, if it is wrong."""
    norm = float(given.norm())
    factor = min(1.0, max_norm / norm) if norm else 1.0
    if torch.allclose(found, factor * given, rtol=5e-4, atol=1e-7) or not found.isfinite().all():
        return
    yours = float(found @ given) / norm**2 if norm else 0.0
    if not torch.allclose(found, yours * given, rtol=1e-3, atol=1e-5):
        cosine = float(found @ given / (found.norm() * norm).clamp(min=1e-30)) if norm else 0.0
        raise Wrong(
            "values",
            f"You turn the arrow of all gradients by {math.degrees(math.acos(min(1, cosine))):.3g} "
            f"degrees; its norm goes from {norm:.4g} to {float(found.norm()):.4g}. One factor for "
            "all tensors keeps its direction.",
        )
    raise Wrong(
        "values",
        f"All tensors together have the norm {norm:.4g}, and max_norm is {max_norm:g}. You "
        f"multiply by {yours:.4g}, and the norm becomes {abs(yours) * norm:.4g}; "
        + ("it should stay." if factor == 1 else f"it should become {max_norm:g}."),
    )


def _scaled_by(factor_of):
    """An answer that multiplies all gradients by ``factor_of(total norm, max_norm, gradients)``."""

    def clip_gradients(gradients, max_norm):
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        return [factor_of(norm, max_norm, gradients) * g for g in gradients]

    return clip_gradients


def _cut(norm, max_norm):
    return (max_norm / norm).clamp(max=1.0)


def _in_place(gradients, max_norm):
    total = math.sqrt(sum(float(x) ** 2 for g in gradients for x in g.flatten()))
    if total > max_norm:
        for g in gradients:
            g.mul_(max_norm / total)
    return gradients


def _by_torch(gradients, max_norm):
    parameters = [nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for parameter, g in zip(parameters, gradients, strict=True):
        parameter.grad = g
    nn.utils.clip_grad_norm_(parameters, max_norm)
    return [parameter.grad for parameter in parameters]


def _by_numpy(gradients, max_norm):
    arrays = [g.double().numpy() for g in gradients]
    norm = np.sqrt(sum((a**2).sum() for a in arrays))
    return tuple(a / max(norm / max_norm, 1) for a in arrays)


clip_gradients = Exercise(
    "lesson05.clip_gradients",
    "Clipping by the global norm",
    difficulty=2,
    minutes=6,
    hints=(
        "One norm for all tensors together, so one factor for all. The direction stays.",
        "Add up `g.square().sum()` over all tensors, then take one root.",
        "The factor is max_norm / norm, but never above 1: small gradients stay as they are.",
    ),
    model_answer=_clip_gradients,
    cases=_clip_cases,
    use=_joined,
    reference=lambda *case: _joined(_by_torch, *case),
    mistakes=(
        Mistake(
            "each tensor on its own",
            lambda gradients, max_norm: [g * _cut(g.norm(), max_norm) for g in gradients],
            "You clip every tensor by its own norm, which bends the direction of the step. Take "
            "the norm of all of them together.",
        ),
        Mistake(
            "values clipped",
            lambda gradients, max_norm: [g.clamp(-max_norm, max_norm) for g in gradients],
            "You cut off single numbers. That bends the direction; multiply all by one factor.",
        ),
        Mistake(
            "small gradients scaled up",
            _scaled_by(lambda norm, max_norm, _: max_norm / norm),
            "You bring every gradient to norm max_norm, so small ones are blown up (and zeros "
            "become NaN). The factor must never be above 1.",
        ),
        Mistake(
            "zero by zero",
            _scaled_by(
                lambda norm, max_norm, _: torch.minimum(norm, torch.tensor(max_norm)) / norm
            ),
            "Where all gradients are 0, so is their norm, and you divide by it: 0 / 0 is NaN. "
            "Zeros should come back as zeros.",
        ),
        Mistake(
            "only small ones scaled",
            _scaled_by(lambda norm, max_norm, _: (max_norm / norm).clamp(min=1.0)),
            "You leave the large gradients alone and blow up the small ones: min and max have "
            "changed places.",
        ),
        Mistake(
            "no root",
            _scaled_by(lambda norm, max_norm, _: _cut(norm**2, max_norm)),
            "You compare the sum of squares with max_norm. The norm is its root.",
        ),
        Mistake(
            "compared with 1",
            _scaled_by(lambda norm, max_norm, _: max_norm / norm if norm > 1 else 1.0),
            "You clip where the norm is above 1, whatever max_norm is: some gradients grow, others "
            "stay too long. Compare the norm with max_norm.",
        ),
        Mistake(
            "mean of norms",
            _scaled_by(lambda n, max_norm, gs: _cut(sum(g.norm() for g in gs) / len(gs), max_norm)),
            "You take the mean of the tensors' norms. One norm counts all numbers: add up the "
            "squares of all tensors, then take one root.",
        ),
        Mistake(
            "largest of the norms",
            _scaled_by(lambda n, max_norm, gs: _cut(max(g.norm() for g in gs), max_norm)),
            "You go by the tensor with the largest norm. The others count too: add up the squares "
            "of all tensors, then take one root.",
        ),
        Mistake(
            "norm of the first",
            _scaled_by(lambda n, max_norm, gs: _cut(gs[0].norm(), max_norm)),
            "You take the norm of the first tensor only. All tensors together are one long arrow.",
        ),
        Mistake(
            "sum of norms",
            _scaled_by(lambda n, max_norm, gs: _cut(sum(g.norm() for g in gs), max_norm)),
            "You add up the norms of the tensors. Add up their squares, then take one root.",
        ),
        Mistake(
            "sum of absolute values",
            _scaled_by(lambda n, max_norm, gs: _cut(sum(g.abs().sum() for g in gs), max_norm)),
            "You add up absolute values. The norm is the root of the sum of squares.",
        ),
        Mistake(
            "largest number",
            _scaled_by(lambda n, m, gs: _cut(torch.stack([g.abs().max() for g in gs]).max(), m)),
            "You go by the largest single number. The norm counts them all.",
        ),
        Mistake(
            "mean for sum",
            _scaled_by(
                lambda norm, max_norm, gs: _cut(
                    norm / math.sqrt(sum(g.numel() for g in gs)), max_norm
                )
            ),
            "You take the root of the mean square. The norm is the root of the sum.",
        ),
        Mistake(
            "norm 1 instead of max_norm",
            _scaled_by(lambda norm, m, _: 1 / norm if norm > m else 1.0),
            "What is too large ends with norm 1. It should end with norm max_norm.",
        ),
        Mistake(
            "norm in the wrong place",
            _scaled_by(lambda norm, max_norm, _: (norm / max_norm).clamp(max=1.0)),
            "Your fraction is upside down: norm / max_norm shrinks the small gradients and leaves "
            "the large ones alone.",
        ),
        Mistake(
            "nothing clipped",
            lambda gradients, max_norm: list(gradients),
            "The gradients come back as they went in, also the large ones.",
        ),
    ),
    alternatives=(_in_place, _by_torch, _by_numpy),
)


# The average of the weights


class _WithBuffer(nn.Module):
    """Two parameters and three buffers: a table, a counter, and one that is not saved."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3, generator=generator))
        self.bias = nn.Parameter(torch.randn(2, generator=generator))
        self.register_buffer("rates", torch.rand(4, generator=generator))
        self.register_buffer("calls", torch.tensor(7))  # as batch norm's num_batches_tracked
        self.register_buffer("table", torch.rand(2, 2, generator=generator), persistent=False)

    @torch.no_grad()
    def move(self, size: float) -> None:
        """Changes everything in place, as training does."""
        for number, tensor in enumerate((*self.parameters(), *self.buffers()), start=1):
            tensor.add_(size * number if tensor.is_floating_point() else 1)

    def everything(self) -> tuple[Tensor, ...]:
        return weights_of(self), *(buffer.double() for buffer in self.buffers())


def _ema_update(averaged, network, decay):
    with torch.no_grad():
        for kept, now in zip(averaged.parameters(), network.parameters(), strict=True):
            kept.mul_(decay).add_(now, alpha=1 - decay)
        for kept, now in zip(averaged.buffers(), network.buffers(), strict=True):
            kept.copy_(now)


def _ema_cases(generator: torch.Generator):
    for decay in (0.9, 0.75, 0.99):
        network = _WithBuffer(generator)
        averaged = copy.deepcopy(network)
        network.move(0.5)
        yield averaged, network, decay


_EMA_MESSAGES = {
    "moves the network": "Your function changes `network`, the one in training. It is only looked "
    "at here; what changes is `averaged`.",
    "a name for a new tensor": "The weights in `averaged` stay as they were: `kept = ...` only "
    "gives a name to a new tensor, and methods without an underscore (`lerp`, `add`) make new "
    "ones too. Change the tensor itself, with `mul_`, `add_`, `copy_`.",
    "alias": "Afterwards `averaged` shares its memory with `network`: when training moves on, "
    "your average moves along. Copy numbers (`copy_`, `mul_`, `add_`), instead of "
    "assigning tensors.",
}


def _three_updates(answer, averaged, network, decay):
    """The averaged weights and buffers after three updates, with training between them."""
    start, after_one = weights_of(averaged), None
    for size in (0.0, 0.3, -0.7):
        network.move(size)
        before = [x.clone() for x in network.everything()]
        if answer(averaged, network, decay) is ...:
            return ...
        after = network.everything()
        if not all(torch.equal(a, b) for a, b in zip(before, after, strict=True)):
            raise Wrong("values", _EMA_MESSAGES["moves the network"], "moves the network")
        if after_one is None:
            after_one = before[0], weights_of(averaged)
    result = tuple(x.clone() for x in averaged.everything())
    network.move(1.0)
    if not all(torch.equal(a, b) for a, b in zip(result, averaged.everything(), strict=True)):
        raise Wrong("properties", _EMA_MESSAGES["alias"], "alias")
    if torch.equal(result[0], start):
        name = "a name for a new tensor"
        raise Wrong("values", _EMA_MESSAGES[name], name)
    assert after_one is not None
    _compare_shares(start, *after_one, decay)
    return result


def _compare_shares(old: Tensor, new: Tensor, found: Tensor, decay: float) -> None:
    """Raises Wrong with the shares of old and new weights in the average, if they are others."""
    ones = torch.ones_like(old)
    columns = torch.stack([old, new, ones], dim=1).double()
    shares = torch.linalg.lstsq(columns, found.double()[:, None]).solution[:, 0]
    wanted = torch.tensor([decay, 1 - decay, 0], dtype=torch.float64)
    off = (columns @ shares - found).abs().max()
    if off > 1e-4 or not found.isfinite().all() or torch.allclose(shares, wanted, atol=1e-3):
        return
    a, b, c = (round(float(share), 3) + 0.0 for share in shares)
    more = f" plus {c:g}" if c else ""
    raise Wrong(
        "values",
        f"With decay {decay:g}, your average after one update is {a:g} times the old one plus "
        f"{b:g} times the weights{more}. It should be {decay:g} and {1 - decay:.2g}.",
    )


def _ema_like(weight_of, *, buffers=lambda kept, now: kept.copy_(now)):
    """An update with something changed: how weights are mixed, what happens to buffers."""

    @torch.no_grad()
    def ema_update(averaged, network, decay):
        for kept, now in zip(averaged.parameters(), network.parameters(), strict=True):
            kept.copy_(weight_of(kept, now, decay))
        for kept, now in zip(averaged.buffers(), network.buffers(), strict=True):
            buffers(kept, now)

    return ema_update


def _mixed(kept, now, decay):
    return decay * kept + (1 - decay) * now


@torch.no_grad()
def _buffers_averaged(averaged, network, decay):
    now = network.state_dict()
    for name, kept in averaged.state_dict().items():
        kept.copy_(_mixed(kept, now[name], decay))


@torch.no_grad()
def _aliased(averaged, network, decay):
    for kept, now in zip(averaged.parameters(), network.parameters(), strict=True):
        kept.data = now.data


@torch.no_grad()
def _wrong_one(averaged, network, decay):
    for kept, now in zip(averaged.parameters(), network.parameters(), strict=True):
        now.copy_(_mixed(kept, now, decay))


def _with_gradients(averaged, network, decay):
    for kept, now in zip(averaged.parameters(), network.parameters(), strict=True):
        kept.mul_(decay).add_(now, alpha=1 - decay)


@torch.no_grad()
def _by_names(averaged, network, decay):
    old, new = dict(averaged.named_parameters()), dict(network.named_parameters())
    for name in old:
        old[name].set_(old[name].lerp(new[name], 1 - decay))
    new = dict(network.named_buffers())
    for name, buffer in averaged.named_buffers():
        buffer.fill_(0).add_(new[name])


@torch.no_grad()
def _by_state_dict(averaged, network, decay):
    trained = dict(network.named_parameters())
    state = network.state_dict()
    for name, kept in averaged.state_dict().items():
        state[name] = kept.lerp(state[name], 1 - decay) if name in trained else state[name]
    averaged.load_state_dict(state)


def _by_data(averaged, network, decay):
    for kept, now in zip(averaged.parameters(), network.parameters(), strict=True):
        mixed = decay * kept.detach().double().numpy() + (1 - decay) * now.detach().numpy()
        kept.data = torch.from_numpy(mixed).float()
    for name, now in network.named_buffers():
        setattr(averaged, name, now.clone())
    return averaged


ema_update = Exercise(
    "lesson05.ema_update",
    "The moving average of the weights",
    difficulty=2,
    minutes=8,
    hints=(
        "Walk through both networks side by side: `zip(averaged.parameters(), "
        "network.parameters())`. Of each pair, the first is changed.",
        "`kept.mul_(decay).add_(now, alpha=1 - decay)` changes a tensor in place. All of it stands "
        "under `with torch.no_grad():`.",
        "Then the buffers, in the same way, with `kept.copy_(now)`.",
    ),
    model_answer=_ema_update,
    cases=_ema_cases,
    use=_three_updates,
    together=True,
    reference=lambda *case: _three_updates(_by_names, *case),
    parts=("averaged weights", "buffer rates", "buffer calls", "buffer table"),
    mistakes=(
        Mistake(
            "decay swapped",
            _ema_like(lambda kept, now, decay: (1 - decay) * kept + decay * now),
            "The shares are swapped: `decay`, near 1, is what the old average keeps, 1 - decay is "
            "what the new weights bring.",
        ),
        Mistake(
            "starts from zero",
            _ema_like(lambda kept, now, decay: (1 - decay) * now),
            "What was in `averaged` before is lost: each update starts from zero. Keep `decay` "
            "times the old average.",
        ),
        Mistake(
            "adds without forgetting",
            _ema_like(lambda kept, now, decay: kept + (1 - decay) * now),
            "You add the new weights but shrink nothing, so the average grows and grows. The two "
            "shares must sum to 1.",
        ),
        Mistake(
            "plain copy",
            _ema_like(lambda kept, now, decay: now),
            "Your average is a plain copy of the latest weights; the decay plays no part.",
        ),
        Mistake(
            "half and half",
            _ema_like(lambda kept, now, decay: (kept + now) / 2),
            "You take the mean of old and new, half and half, whatever `decay` says.",
        ),
        Mistake(
            "averages buffers",
            _buffers_averaged,
            "You average the buffers too (`state_dict()` holds them along with the weights). They "
            "are tables and counters, not learned: copy them as they are.",
        ),
        Mistake(
            "buffers forgotten",
            _ema_like(_mixed, buffers=lambda kept, now: None),
            "The weights are right; the buffers stayed as they were. Copy them from `network`.",
        ),
        Mistake(
            "a name for a new tensor",
            lambda averaged, network, decay: [
                _mixed(kept, now, decay)
                for kept, now in zip(averaged.parameters(), network.parameters(), strict=True)
            ].clear(),
            _EMA_MESSAGES["a name for a new tensor"],
        ),
        Mistake(
            "buffers left out by state_dict",
            _by_state_dict,
            "The weights are right, and so are most buffers. `state_dict()` leaves out those that "
            "are not saved (persistent=False); `.buffers()` walks through all of them.",
        ),
        Mistake(
            "slices of buffers",
            _ema_like(_mixed, buffers=lambda kept, now: kept.__setitem__(slice(None), now)),
            "`kept[:] = now` needs an axis, and a counter has none (shape ()). `kept.copy_(now)` "
            "works for every shape.",
        ),
        Mistake(
            "the sum thrown away",
            _ema_like(lambda kept, now, decay: decay * kept),
            "The old average shrinks and nothing is added. In `kept.mul_(decay) + ...` the sum is "
            "a new tensor that nobody keeps: use `add_`.",
        ),
        Mistake(
            "only a number added",
            _ema_like(lambda kept, now, decay: kept + (1 - decay)),
            "You add the number 1 - decay itself: `kept.add_(1 - decay) * now` adds first, and the "
            "product is thrown away. `kept.add_(now, alpha=1 - decay)` multiplies first.",
        ),
        Mistake(
            "added before shrinking",
            _ema_like(lambda kept, now, decay: decay * (kept + (1 - decay) * now)),
            "You add the new weights first and shrink the sum afterwards, so the new ones shrink "
            "too. First `mul_(decay)`, then `add_`.",
        ),
        Mistake(
            "too much of the new",
            _ema_like(lambda kept, now, decay: decay * kept + now),
            "The new weights count fully, so the average grows far too large. Their share is "
            "1 - decay.",
        ),
        Mistake("alias", _aliased, _EMA_MESSAGES["alias"]),
        Mistake("moves the network", _wrong_one, _EMA_MESSAGES["moves the network"]),
        Mistake(
            "with gradients",
            _with_gradients,
            "Autograd watches, and forbids changing a weight in place. Averaging is no part of the "
            "loss: do it under `with torch.no_grad():`.",
        ),
    ),
    alternatives=(_by_names, _by_data, _ema_like(_mixed)),
)

ema_from_zero = Number(
    "lesson05.ema_from_zero",
    "An average that starts from zero",
    difficulty=2,
    minutes=3,
    hints=(
        "What the start still counts after n updates: decay, n times over. The start was zero.",
        "1 - 0.999 to the power of 2000.",
    ),
    value=1 - 0.999**2000,
    rtol=0.003,
    mistakes=(
        Mistake(
            "what is missing",
            0.999**2000,
            "That is what is missing: the share that the zeros of the start still hold.",
        ),
        Mistake(
            "one share",
            0.001,
            "0.001 is what a single update brings. There were 2000 of them.",
        ),
        Mistake(
            "as if nothing",
            1.0,
            "As if the zeros were forgotten. After 2000 updates they still count 0.999 ** 2000 "
            "(0.999 is what one update keeps).",
        ),
        Mistake(
            "shares added up",
            2.0,
            "2000 times 0.001 counts every update fully, but the early ones have faded since.",
        ),
    ),
    why="Every weight is 13.5 % too small, and a network with shrunken weights is another network. "
    "A copy as the start, and less decay in the first steps, avoid it.",
)


# Loss by step


def _loss_by_bin(t, losses, num_steps, bins):
    place = (t - 1) * bins // num_steps
    total = torch.zeros(bins).index_add(0, place, losses)
    return total / torch.bincount(place, minlength=bins)


def _bin_cases(generator: torch.Generator):
    sizes = ((1000, 10, 90), (12, 4, 9), (6, 6, 7), (8, 1, 3), (100, 5, 0), (1000, 100, 200))
    for num_steps, bins, more in sizes:
        width = num_steps // bins
        start = torch.arange(bins) * width
        first = min(2, width) if bins < 100 else 1  # the smallest t need not be 1
        draw = torch.randint(first, width + 1, (bins,), generator=generator)
        others = torch.randint(first, num_steps + 1, (more,), generator=generator)
        edges = torch.cat([start + first, start[1:] + 1, start + width])
        edges = edges if more else torch.tensor([num_steps])
        t = torch.cat([start + draw, others, edges])
        t = t[torch.randperm(len(t), generator=generator)]
        losses = 0.1 + torch.rand(len(t), generator=generator) + t / num_steps
        yield t, losses if bins > 4 else 1e-4 * losses, num_steps, bins


def _bins(answer, t, losses, num_steps, bins):
    """The means; a wrong one is answered with its bin, the steps in it, and both numbers."""
    given = answer(t.clone(), losses.clone(), num_steps, bins)
    if unanswered(given):
        return given
    if isinstance(given, (list, tuple)) and len(given) == bins:
        given = torch.stack([tensor_like(one, losses[0]).double() for one in given])
    try:
        found = tensor_like(given, losses.new_zeros(bins))
    except Wrong as wrong:
        if wrong.stage != "finite":
            raise
        found = torch.as_tensor(given).double()
    wanted = torch.tensor(_by_masks(t, losses, num_steps, bins))
    bad = (~torch.isclose(found.double(), wanted.double(), rtol=1e-4, atol=1e-9)).nonzero()
    if not len(bad):
        return found
    k, width = int(bad[0]), num_steps // bins
    what = f"bin {k} (from 0) holds t = {k * width + 1} to {(k + 1) * width}"
    yours = float(found[k])
    if not math.isfinite(yours):
        told = f"In yours no sample has fallen into it: its mean is {yours:g}."
    else:
        told = f"The mean of its losses is {float(wanted[k]):.4g}, yours {yours:.4g}."
    others = ", ".join(f"{float(x):.4g}" for x in found[bad[1:5, 0]])
    more = f" Others that are wrong: {others}{', ...' if len(bad) > 5 else ''}." if others else ""
    raise Wrong(
        "values",
        f"With num_steps = {num_steps} and bins = {bins}, {what}. {told} {bins - len(bad)} of "
        f"{bins} bins are right.{more}",
    )


def _by_place(place_of, *, divide=lambda total, count, batch: total / count):
    """An answer with something changed: which bin a step falls in, or what sums are divided by."""

    def loss_by_bin(t, losses, num_steps, bins):
        place = place_of(t, num_steps, bins)
        total = torch.zeros(bins).index_add(0, place, losses)
        return divide(total, torch.bincount(place, minlength=bins), len(t))

    return loss_by_bin


def _right_place(t, num_steps, bins):
    return (t - 1) * bins // num_steps


def _edges_off(t, losses, num_steps, bins):
    edges = torch.arange(bins + 1) * num_steps / bins
    inside = [(t >= edges[k]) & (t < edges[k + 1]) for k in range(bins)]
    return torch.stack([losses[here].mean() for here in inside])


def _equal_counts(t, losses, num_steps, bins):
    return torch.stack([part.mean() for part in losses[t.argsort()].tensor_split(bins)])


def _by_masks(t, losses, num_steps, bins):
    width = num_steps / bins
    means = []
    for k in range(bins):
        inside = (t > k * width) & (t <= (k + 1) * width)
        means.append(float(losses[inside].double().mean()))
    return means


def _by_bucketize(t, losses, num_steps, bins):
    edges = torch.arange(1, bins) * num_steps / bins
    place = torch.bucketize(t, edges).numpy()
    return np.bincount(place, losses.numpy(), bins) / np.bincount(place, minlength=bins)


loss_by_bin = Exercise(
    "lesson05.loss_by_bin",
    "Loss by step, in bins",
    difficulty=2,
    minutes=6,
    hints=(
        "A loop over the bins will do: which samples fall into this one? Mean of their losses.",
        "Bin k (from 0) holds the steps with k w < t <= (k + 1) w, where w = num_steps / bins.",
        "Without a loop: `place = (t - 1) * bins // num_steps`, then `index_add` for the sums and "
        "`torch.bincount` for how many.",
    ),
    model_answer=_loss_by_bin,
    cases=_bin_cases,
    use=_bins,
    atol=1e-9,
    reference=lambda *case: torch.tensor(_by_masks(*case)),
    mistakes=(
        Mistake(
            "fractions",
            _by_place(lambda t, T, bins: ((t - 1) / T * bins).long()),
            "You go by way of a fraction, and rounding puts some first steps of a bin into the "
            "one before (t = 531 of 1000 in 100 bins, for example). Stay with whole numbers: `//`.",
        ),
        Mistake(
            "fractions rounded up",
            _by_place(lambda t, T, bins: (t / T * bins).ceil().long() - 1),
            "You round a fraction up, and its own rounding puts some last steps of a bin into the "
            "next one. Stay with whole numbers and `//`.",
        ),
        Mistake(
            "upper edge lost",
            lambda t, losses, num_steps, bins: torch.stack(
                [
                    losses[
                        (t >= k * (num_steps // bins) + 1) & (t < (k + 1) * (num_steps // bins))
                    ].mean()
                    for k in range(bins)
                ]
            ),
            "The last step of each bin is in none of yours: with `<` the upper edge is lost. A bin "
            "holds it, so use `<=`.",
        ),
        Mistake(
            "counted from 0",
            _by_place(lambda t, T, bins: t * bins // T),
            "Steps run from 1 to T, and you count them from 0: t = T would need one bin more, and "
            "the last step of each bin lands in the next. Use t - 1.",
        ),
        Mistake(
            "edges one step off",
            _edges_off,
            "Your bins begin at 0 and leave out T. Steps run from 1 to T: a bin holds its upper "
            "edge, and not its lower one.",
        ),
        Mistake(
            "T squeezed in",
            _by_place(lambda t, T, bins: (t * bins // T).clamp(max=bins - 1)),
            "Steps on an edge land one bin too far, since you count t from 0 (and squeeze T in). "
            "Use t - 1.",
        ),
        Mistake(
            "summed",
            _by_place(_right_place, divide=lambda total, count, batch: total),
            "You add the losses of a bin up. Divide by how many there are.",
        ),
        Mistake(
            "divided by the batch",
            _by_place(_right_place, divide=lambda total, count, batch: total / batch),
            "You divide by the whole batch. Divide each sum by the number of samples in its bin.",
        ),
        Mistake(
            "bins taken to be equally full",
            _by_place(_right_place, divide=lambda total, _, batch: total * len(total) / batch),
            "You divide every sum by the same number, as if all bins were equally full. Count.",
        ),
        Mistake(
            "equal counts",
            _equal_counts,
            "Your bins hold equally many samples. They should be equally wide in t.",
        ),
        Mistake(
            "both edges",
            lambda t, losses, num_steps, bins: torch.stack(
                [
                    losses[(t >= k * num_steps / bins) & (t <= (k + 1) * num_steps / bins)].mean()
                    for k in range(bins)
                ]
            ),
            "A step on an edge counts in two bins of yours. It belongs to the lower one only.",
        ),
        Mistake(
            "width and number mixed up",
            lambda t, losses, num_steps, bins: torch.stack(
                [losses[(t - 1) // bins == k].mean() for k in range(bins)]
            ),
            "Your bins are `bins` steps wide. `bins` is how many there are: each is "
            "num_steps // bins wide.",
        ),
        Mistake(
            "median",
            lambda t, losses, num_steps, bins: torch.stack(
                [losses[(t - 1) * bins // num_steps == k].median() for k in range(bins)]
            ),
            "You take the median of a bin. Use the mean.",
        ),
        Mistake(
            "bins over what was drawn",
            _by_place(lambda t, T, bins: (t - t.min()) * bins // (t.max() - t.min() + 1)),
            "Your bins begin at the smallest t that was drawn. They should cover 1..T, whatever "
            "the batch.",
        ),
        Mistake(
            "reversed",
            _by_place(lambda t, T, bins: (T - t) * bins // T),
            "Your bins run from T down. The first should hold the smallest t.",
        ),
    ),
    alternatives=(_by_masks, _by_bucketize),
)
