"""Lesson 5b: a step with loss scaling, and why bf16 needs none."""

import copy

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from tutorial_lib.checks.framework import Choice, Exercise, Mistake, Wrong, tensor_like
from tutorial_lib.checks.lesson05_steps import some_seed, unanswered, weights_of

# A step with loss scaling


class _HalfPrecision(nn.Module):
    """A linear layer whose output, or only its product, passes through fp16 on the way."""

    def __init__(self, seed: int, all_in_half: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.bias = nn.Parameter(torch.zeros(1))
        self.weight = nn.Parameter(0.3 * torch.randn(3, 1, generator=generator))
        self.all_in_half = all_in_half

    def forward(self, x: Tensor) -> Tensor:
        if self.all_in_half:
            return (x @ self.weight + self.bias).half().float()
        return (x @ self.weight).half().float() + self.bias

    def __repr__(self) -> str:
        return "a network in fp16"


class _FitLine:
    """Its loss on fresh data; ``twins`` are two equal inputs that want opposite answers."""

    def __init__(self, seed: int, twins: bool, far: float = 0.0) -> None:
        self.generator, self.twins = torch.Generator().manual_seed(seed), twins
        self.far = far

    def __call__(self, network: nn.Module) -> Tensor:
        if self.twins:
            x = torch.ones(2, 3)
            y = torch.tensor([[2.0], [-1.5]])
        else:
            x = 0.5 + torch.rand(1, 3, generator=self.generator)
            y = x.sum(1, keepdim=True) - 0.8 + self.far
        return (network(x) - y).square().mean()

    def __repr__(self) -> str:
        return "a loss on fresh batches"


def _scaled_step(network, optimizer, loss_of, scale, max_norm):
    optimizer.zero_grad()
    (loss_of(network) * scale).backward()
    for parameter in network.parameters():
        parameter.grad /= scale
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), max_norm)
    if not norm.isfinite():
        return scale / 2
    optimizer.step()
    return scale


def _scale_cases(generator: torch.Generator):
    for all_in_half, twins, scale, max_norm, far in (
        (True, False, 2.0**18, 0.5, 0.0),
        (False, True, 2.0**18, 0.5, 0.0),
        (False, False, 2.0**18, 100.0, 0.0),
        (True, False, 1024.0, 0.5, 0.0),
        (True, False, 4.0, 100.0, 0.0),
        (True, False, 2.0**-15, 100.0, 0.0),
        (True, False, 2.0**-7, 100.0, 1e9),
    ):
        seed = some_seed(generator)
        network = _HalfPrecision(seed, all_in_half)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        yield network, optimizer, _FitLine(seed, twins, far), scale, max_norm


def _seven_steps(answer, network, optimizer, loss_of, scale, max_norm):
    """The scale after each of seven steps, and the weights in the end.

    The first step that differs from the right ones is answered with what it found.
    """
    twin = copy.deepcopy(network)
    right = torch.optim.SGD(twin.parameters(), lr=0.1)
    twin_loss = copy.deepcopy(loss_of)
    scales, first_scale, trouble = [], scale, ""
    wanted_scale = scale
    for step in range(1, 8):
        given = answer(network, optimizer, loss_of, scale, max_norm)
        if unanswered(given):
            return given
        scale = float(tensor_like(given, torch.zeros(())))
        if scale <= 0:
            raise Wrong("values", f"You return the scale {scale:g}; a scale is above 0.")
        scales.append(scale)
        before = wanted_scale
        wanted_scale = _scaled_step(twin, right, twin_loss, before, max_norm)
        if trouble:
            continue
        found = "were not all finite" if wanted_scale < before else "were finite"
        where = f"Step {step}, scale {before:g}: the gradients {found}"
        if scale != wanted_scale:
            trouble = f"{where}. You return {scale:g}; it should be {wanted_scale:g}."
        elif not weights_of(network).isfinite().all():
            trouble = f"{where}. After your step the weights are not."
        elif not torch.allclose(weights_of(network), weights_of(twin), rtol=1e-4, atol=1e-6):
            trouble = (
                f"{where}, and you return the right scale, {scale:g}; but your weights are not "
                "where they should be. Look at wiping, dividing and clipping."
            )
    if trouble:
        norm = float(weights_of(network).norm())
        raise Wrong(
            "values",
            f"max_norm {max_norm:g}, first scale {first_scale:g}. {trouble} (Your scales: "
            f"{', '.join(f'{one:g}' for one in scales)}; norm of your last weights {norm:.4g}.)",
        )
    return torch.tensor(scales, dtype=torch.float64), weights_of(network)


def _returns_the_loss(network, optimizer, loss_of, scale, max_norm):
    batch = loss_of(network)
    _scaled_step(network, optimizer, lambda _: batch, scale, max_norm)
    return batch.item()


def _asks_the_loss(network, optimizer, loss_of, scale, max_norm):
    optimizer.zero_grad()
    loss = loss_of(network)
    (loss * scale).backward()
    for parameter in network.parameters():
        parameter.grad /= scale
    nn.utils.clip_grad_norm_(network.parameters(), max_norm)
    if not loss.isfinite():
        return scale / 2
    optimizer.step()
    return scale


def _skips_what_is_clipped(network, optimizer, loss_of, scale, max_norm):
    optimizer.zero_grad()
    (loss_of(network) * scale).backward()
    for parameter in network.parameters():
        parameter.grad /= scale
    norm = nn.utils.clip_grad_norm_(network.parameters(), max_norm)
    if not norm <= max_norm:
        return scale / 2
    optimizer.step()
    return scale


def _tries_again(network, optimizer, loss_of, scale, max_norm):
    while (after := _scaled_step(network, optimizer, loss_of, scale, max_norm)) < scale:
        scale = after
    return scale


def _scaling(
    *,
    wipe=True,
    scaled=True,
    unscale=lambda gradient, scale: gradient / scale,
    clip="after",
    overflow=None,
    on_overflow=lambda scale: scale / 2,
    on_success=lambda scale: scale,
    step_anyway=False,
    wipe_late=False,
):
    """The step with something changed."""

    def found_overflow(network):
        gradients = [p.grad for p in network.parameters()]
        if overflow is not None:
            return overflow(gradients)
        return not all(g.isfinite().all() for g in gradients)

    def scaled_step(network, optimizer, loss_of, scale, max_norm):
        parameters = list(network.parameters())
        if wipe:
            optimizer.zero_grad()
        (loss_of(network) * (scale if scaled else 1)).backward()
        if clip == "before":
            nn.utils.clip_grad_norm_(parameters, max_norm)
        for parameter in parameters:
            parameter.grad = unscale(parameter.grad, scale)
        bad = found_overflow(network)
        if clip == "after":
            nn.utils.clip_grad_norm_(parameters, max_norm)
        if bad and not step_anyway:
            return on_overflow(scale)
        optimizer.step()
        if wipe_late:
            optimizer.zero_grad()
        return on_overflow(scale) if bad else on_success(scale)

    return scaled_step


def _by_grad_scaler(network, optimizer, loss_of, scale, max_norm):
    scaler = GradScaler("cpu", init_scale=scale, growth_interval=10**6)
    optimizer.zero_grad()
    scaler.scale(loss_of(network)).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(network.parameters(), max_norm)
    scaler.step(optimizer)
    scaler.update()
    return scaler.get_scale()


scaled_step = Exercise(
    "lesson05b.scaled_step",
    "A training step with loss scaling",
    difficulty=3,
    minutes=15,
    hints=(
        "Five moves: wipe; backward from loss * scale; divide every gradient by scale; clip; then "
        "look whether all is finite, and only then step.",
        "`for p in network.parameters(): p.grad /= scale`, and after that the clipping: max_norm "
        "is meant for the true gradients.",
        "`clip_grad_norm_` returns the norm that it found. If one gradient is infinite or NaN, so "
        "is the norm: `norm.isfinite()`.",
        "If it is not finite: return scale / 2 without a step. Else step, and return scale.",
    ),
    model_answer=_scaled_step,
    cases=_scale_cases,
    use=_seven_steps,
    together=True,
    atol=1e-9,
    reference=lambda *case: _seven_steps(_by_grad_scaler, *case),
    parts=("scale", "weights"),
    mistakes=(
        Mistake(
            "no look at the gradients",
            _scaling(overflow=lambda gradients: False),
            "You step into infinite gradients, and the weights are NaN ever after. Look at the "
            "gradients, all of them, before the step (a look at the loss will not tell: it is "
            "finite).",
        ),
        Mistake(
            "steps all the same",
            _scaling(step_anyway=True),
            "You notice the overflow and halve the scale, but you step all the same, and the "
            "weights become NaN. Skip the step.",
        ),
        Mistake(
            "skipped when clipped",
            _skips_what_is_clipped,
            "You skip the step wherever the norm is above max_norm. Such a step is shortened and "
            "made; only an infinite norm or NaN means overflow: `norm.isfinite()`.",
        ),
        Mistake(
            "only NaN",
            _scaling(overflow=lambda gs: any(bool(g.isnan().any()) for g in gs)),
            "You look for NaN only. An overflow in fp16 is infinity; NaN comes where two of them "
            "meet. Ask `isfinite()`.",
        ),
        Mistake(
            "only infinity",
            _scaling(overflow=lambda gs: any(bool(g.isinf().any()) for g in gs)),
            "You look for infinity only. Where +inf and -inf meet in a sum there is NaN. Ask "
            "`isfinite()`.",
        ),
        Mistake(
            "first parameter only",
            _scaling(overflow=lambda gradients: not gradients[0].isfinite().all()),
            "You look at one parameter only. Another may overflow while that one is fine: look at "
            "all of them (the norm does).",
        ),
        Mistake(
            "never unscaled",
            _scaling(unscale=lambda gradient, scale: gradient),
            "The gradients are not divided by the scale, so the steps have the wrong size. "
            "(`g = g / scale` changes none: it gives a new tensor the old name.)",
        ),
        Mistake(
            "never scaled",
            _scaling(scaled=False),
            "You divide the gradients by the scale, but the loss was never multiplied by it: they "
            "come out far too small. `backward()` belongs to loss * scale.",
        ),
        Mistake(
            "the loss asked",
            _asks_the_loss,
            "You look whether the loss is finite. It is: what overflows is the way back. Look at "
            "the gradients, or at their norm.",
        ),
        Mistake(
            "infinite numbers replaced",
            _scaling(
                unscale=lambda gradient, scale: torch.nan_to_num(gradient / scale),
            ),
            "You replace infinite gradients by finite numbers. Such a step goes somewhere at "
            "random: skip it.",
        ),
        Mistake(
            "tried again at once",
            _tries_again,
            "You try again within one call until it works. A skipped step is skipped: return "
            "half the scale, and let the next call take the next batch.",
        ),
        Mistake(
            "the loss returned",
            _returns_the_loss,
            "You return the loss, as in lesson 5. Here return the scale for the next step.",
        ),
        Mistake(
            "grows after good steps",
            _scaling(on_success=lambda scale: scale * 2),
            "Your scale grows after a good step. GradScaler does that once in 2000 steps; here a "
            "good step returns the scale as it was.",
        ),
        Mistake(
            "scaled twice",
            _scaling(unscale=lambda gradient, scale: gradient * scale),
            "You multiply the gradients by the scale once more. Divide, to take it out again.",
        ),
        Mistake(
            "clipped while scaled",
            _scaling(clip="before"),
            "You clip before you unscale. There the norm is `scale` times too large, so "
            "everything is clipped, and then divided by the scale: hardly any step is left.",
        ),
        Mistake(
            "not clipped",
            _scaling(clip=""),
            "The scaling is right; the clipping to `max_norm` is missing.",
        ),
        Mistake(
            "scale kept",
            _scaling(on_overflow=lambda scale: scale),
            "You skip the step but keep the scale, so the next step overflows as well, and every "
            "one after it. Return half the scale.",
        ),
        Mistake(
            "scale doubled",
            _scaling(on_overflow=lambda scale: scale * 2),
            "On overflow your scale grows. It was too large: halve it.",
        ),
        Mistake(
            "scale always halved",
            _scaling(on_success=lambda scale: scale / 2),
            "You halve the scale after good steps too. Halve it only when a step was skipped.",
        ),
        Mistake(
            "gradients pile up",
            _scaling(wipe=False),
            "Gradients pile up from step to step; once one is infinite it stays so. Start with "
            "`optimizer.zero_grad()`.",
        ),
        Mistake(
            "not wiped after a skip",
            _scaling(wipe=False, wipe_late=True),
            "You wipe after a good step only. When a step is skipped its infinite gradients stay, "
            "and every later step is skipped too. Wipe first thing.",
        ),
    ),
    alternatives=(_by_grad_scaler, _scaling()),
    passed="It agrees with torch.amp.GradScaler, also where it had to skip.",
)

why_bf16 = Choice(
    "lesson05b.why_bf16",
    "No scaling for bf16",
    minutes=1,
    hints=("Look at the table: in which column is bf16 like fp32, in which is it poorer?",),
    right="b",
    options={
        "a": "It is the other way around: bf16 keeps about 2 decimal digits, fp16 about 3.",
        "b": "Right. bf16 spends 8 bits on the exponent, as fp32 does, so small gradients stay "
        "above zero. It pays with digits.",
        "c": "Autocast never scales the loss; that is GradScaler's work, and only fp16 needs it.",
        "d": "The gradients of the activations are bf16 too. They just stay within its range.",
    },
)

only_weights = Choice(
    "lesson05b.only_weights",
    "Only the weights",
    difficulty=2,
    minutes=2,
    hints=("What else does a step of Adam read, beside the weights and a batch?",),
    right="b",
    options={
        "a": "A step also reads Adam's means, the rate, the next batch and the next noise. None of "
        "them is in the weights.",
        "b": "Right. It works, and people do it to fine-tune. But the first steps have full "
        "length in the direction of single batches, and no number is that of the run that went on.",
        "c": "Weights are weights: averaged ones can be trained like any others.",
        "d": "The network still knows what it knew; the loss starts about where it was.",
    },
)
