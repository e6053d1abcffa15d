"""The trainer: each part of a step against a formula or a loop written out."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_cases import CPU, Answer, bits, metrics_of, tiny, trainer_of

from tutorial_lib import _memory, checkpoints, losses
from tutorial_lib.datasets import Dataset
from tutorial_lib.hardware import Precision
from tutorial_lib.hardware import devices as hardware
from tutorial_lib.networks import unet
from tutorial_lib.training import Trainer, TrainingError, train
from tutorial_lib.training import loop as training
from tutorial_lib.training import state as run_state
from tutorial_lib.training.config import STEP_SAMPLERS, WEIGHTS
from tutorial_lib.training.trainer import Batch


@pytest.mark.parametrize("step_sampler", STEP_SAMPLERS)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_a_step_is_the_weighted_loss_written_out(
    discs: Dataset, monkeypatch: pytest.MonkeyPatch, weight: str, step_sampler: str
) -> None:
    """The loss of a step and how far plain descent moves, against numbers from alpha_bar alone.

    With three steps and 96 samples, a second step has drawn every t often enough for importance.
    """
    network = Answer(0.3)
    choices = {"weight": weight, "step_sampler": step_sampler, "target": "eps", "grad_clip": 0.0}
    trainer = trainer_of(discs, network, num_steps=3, batch_size=96, **choices)
    trainer.optimizers[:] = [torch.optim.SGD(network.parameters(), lr=0.01)]
    batches: list[Batch] = []
    draw = trainer._next_batch

    def recorded() -> Batch:
        batches.append(draw())
        return batches[-1]

    monkeypatch.setattr(trainer, "_next_batch", recorded)
    losses_of_t: dict[int, list[float]] = {1: [], 2: [], 3: []}
    for _ in range(2):
        before = network.weight.item()
        loss = trainer.step().item()
        x_t, t = (seen.double() for seen in network.seen[-1])
        eps, factor = batches[-1].eps.double(), batches[-1].factor.double()
        kept = trainer.schedule.alpha_bar[batches[-1].t].double()
        snr = kept / (1 - kept)
        weights = {
            "none": torch.ones_like(snr),
            "p2": 1 / (1 + snr),
            "min_snr": snr.clamp(max=5) / snr,
            "v": 1 / kept,
            "x0": 1 / snr,
            "velocity": (1 + snr**-0.5) ** 2,
        }[weight]
        if step_sampler == "importance" and losses_of_t[1]:
            sizes = [math.sqrt(np.square(seen[-10:]).mean()) for seen in losses_of_t.values()]
            size = torch.tensor(sizes, dtype=torch.float64)
            p = 0.999 * size / size.sum() + 0.001 / 3
            expected = 1 / (3 * p[batches[-1].t - 1])
            torch.testing.assert_close(factor, expected, rtol=1e-4, atol=0.0)
        else:
            assert factor.eq(1).all()
        error = before * x_t - eps
        each = weights * error.square().flatten(1).mean(1)
        assert loss == pytest.approx((factor * each).mean().item(), rel=1e-4)
        slope = (factor * weights * (2 * error * x_t).flatten(1).mean(1)).mean().item()
        assert network.weight.item() == pytest.approx(before - 0.01 * slope, rel=1e-3, abs=1e-5)
        for number, value in zip(t.int().tolist(), each.tolist(), strict=True):
            losses_of_t[number].append(value)
        if step_sampler == "importance":
            assert all(len(seen) >= 10 for seen in losses_of_t.values())


def test_v_target_with_v_weight_is_the_squared_error_of_v(discs: Dataset) -> None:
    network = Answer(0.3)
    trainer = trainer_of(discs, network, target="v", weight="v", schedule="linear")
    network.seen.clear()
    batch = trainer._next_batch()
    x0, loss = batch.x0, trainer._losses(batch).mean()
    ((x_t, t),) = network.seen
    assert torch.equal(t, batch.t)
    abar = trainer.schedule.alpha_bar[t].float()[:, None, None, None]
    eps = (x_t - abar.sqrt() * x0) / (1 - abar).sqrt()
    v = abar.sqrt() * eps - (1 - abar).sqrt() * x0
    torch.testing.assert_close(loss, (0.3 * x_t - v).square().mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("condition", [False, True])
def test_velocity_target_with_velocity_weight_is_the_loss_of_flow_matching(
    discs: Dataset, condition: bool
) -> None:
    """Against the straight path written out; by way of eps the float32 loss would miss at T."""
    network = Answer(0.3)
    flow = {"target": "velocity", "weight": "velocity", "conditional": condition}
    trainer = trainer_of(discs, network, schedule="cosine", **flow)
    network.seen.clear()
    batch = trainer._next_batch()
    batch = batch._replace(t=torch.tensor([1, 1000]).repeat(len(batch.t) // 2))
    each = trainer._losses(batch)
    ((x, t, *told),) = network.seen
    assert len(told) == condition
    assert torch.equal(t, batch.t)
    bar = trainer.schedule.alpha_bar[t][:, None, None, None]
    time = (1 - bar).sqrt() / (bar.sqrt() + (1 - bar).sqrt())
    expected = (1 - time) * batch.x0.double() + time * batch.eps.double()
    torch.testing.assert_close(x.double(), expected, rtol=0, atol=1e-6)
    error = 0.3 * expected - (batch.eps.double() - batch.x0.double())
    torch.testing.assert_close(each.double(), error.square().flatten(1).mean(1), rtol=1e-5, atol=0)


def test_the_velocity_weight_of_the_eps_loss_is_the_same_where_digits_allow(discs: Dataset) -> None:
    """The direct loss against the weighted eps loss, in float64, at all but the last steps."""
    trainer = trainer_of(discs, Answer(0.3), target="velocity", weight="velocity")
    batch = trainer._next_batch()
    t = torch.linspace(1, 900, len(batch.t)).long()
    double = batch._replace(x0=batch.x0.double(), eps=batch.eps.double(), t=t)
    model = trainer._eps_model(trainer._forward, None)
    by_eps = losses.epsilon_losses(model, trainer.schedule, double.x0, t, double.eps)
    by_eps = losses.velocity_weight(trainer.schedule, t) * by_eps
    torch.testing.assert_close(trainer._losses(double), by_eps, rtol=1e-6, atol=0)


def test_ema_is_the_recurrence_written_out(discs: Dataset) -> None:
    trainer = trainer_of(discs, ema=0.5)
    expected = [p.detach().double().clone() for p in trainer.network.parameters()]
    for step in range(15):
        trainer.step()
        keep = min(0.5, (1 + step) / (10 + step))  # 0.1 at first, 0.5 from step 8 on
        for average, now in zip(expected, trainer.network.parameters(), strict=True):
            average.mul_(keep).add_(now.detach().double(), alpha=1 - keep)
    for average, kept in zip(expected, trainer.ema.module.parameters(), strict=True):
        torch.testing.assert_close(kept.detach().double(), average, rtol=1e-5, atol=1e-6)
    assert int(trainer.ema.n_averaged) == 15


def test_ema_copies_buffers_and_does_not_average_them(discs: Dataset) -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            return self.norm(self.conv(x_t))

    trainer = trainer_of(discs, Normed())
    for _ in range(3):
        trainer.step()
    for kept, now in zip(trainer.ema.module.buffers(), trainer.network.buffers(), strict=True):
        assert torch.equal(kept, now)
    averaged, trained = (
        trainer.ema.module.get_submodule("norm"),
        trainer.network.get_submodule("norm"),
    )
    assert int(averaged.num_batches_tracked) == 3  # type: ignore[arg-type]
    assert not torch.equal(averaged.weight, trained.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize(("grad_clip", "expected"), [(0.01, 0.01), (0.0, None), (1e6, None)])
def test_clipping_limits_the_norm_of_all_gradients_together(
    discs: Dataset, grad_clip: float, expected: float | None
) -> None:
    trainer = trainer_of(discs, grad_clip=grad_clip)
    free = trainer_of(discs, grad_clip=0.0)
    free._losses(free._next_batch()).mean().backward()
    grads = [p.grad for p in free.network.parameters() if p.grad is not None]
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in grads))
    assert norm > 0.1, "nothing to clip"
    # plain descent at rate 1 moves the weights by the gradient itself
    trainer.optimizers[:] = [torch.optim.SGD(trainer.network.parameters(), lr=1.0)]
    before = [p.detach().clone() for p in trainer.network.parameters()]
    trainer.step()
    moved = zip(trainer.network.parameters(), before, strict=True)
    distance = math.sqrt(sum(float((p.detach() - b).double().square().sum()) for p, b in moved))
    assert distance == pytest.approx(expected or norm, rel=1e-3)


@pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
@pytest.mark.parametrize(("optimizer", "top"), [("muon", 3e-2), ("adamw", 2e-3)])
def test_learning_rate_grows_then_falls_as_the_formula_says(
    tmp_path: Path, discs: Dataset, decay: str, optimizer: str, top: float
) -> None:
    rates = {"optimizer": optimizer, "lr": 2e-3, "muon_lr": 3e-2}
    config = tiny(tmp_path / "run", steps=20, warmup=0.2, decay=decay, log_every=1, **rates)
    train(config, data=discs, model=Answer())
    lines = metrics_of(tmp_path / "run")
    f = (np.arange(20) + 0.5) / 20  # the middle of each step
    falls = {"constant": 1, "linear": 1 - f, "cosine": np.cos(np.pi / 2 * f) ** 2}[decay]
    expected = top * np.minimum(1, f / 0.2) * falls
    np.testing.assert_allclose([line["lr"] for line in lines], expected, rtol=1e-12)
    assert [line["step"] for line in lines] == list(range(1, 21))


def test_both_optimizers_follow_one_rate(discs: Dataset) -> None:
    trainer = trainer_of(discs, optimizer="muon", lr=1e-3, muon_lr=1e-2, steps=10, warmup=0.0)
    assert len(trainer.optimizers) == 2
    for step in range(10):
        rates = [group["lr"] for o in trainer.optimizers for group in o.param_groups]
        assert rates == pytest.approx([1e-2 * (9.5 - step) / 10, 1e-3 * (9.5 - step) / 10])
        trainer.step()
        trainer.update_lr()


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("conditional", [False, True])
def test_every_parameter_moves(discs: Dataset, optimizer: str, conditional: bool) -> None:
    trainer = trainer_of(discs, optimizer=optimizer, conditional=conditional, label_drop=0.5)
    before = [p.detach().clone() for p in trainer.network.parameters()]
    for _ in range(4):  # behind layers that start at zero, the first steps move nothing
        trainer.step()
    for (name, p), old in zip(trainer.network.named_parameters(), before, strict=True):
        assert not torch.equal(p, old), name
    inside = [p for o in trainer.optimizers for group in o.param_groups for p in group["params"]]
    assert len(inside) == len({id(p) for p in inside}) == len(before)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_weight_decay_spares_norms_and_biases(discs: Dataset, optimizer: str) -> None:
    trainer = trainer_of(discs, weight_decay=0.1, optimizer=optimizer)
    for group in (group for o in trainer.optimizers for group in o.param_groups):
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.1 if parameter.ndim >= 2 else 0.0)


def test_classes_are_hidden_now_and_then_and_belong_to_their_images(discs: Dataset) -> None:
    network = Answer()
    trainer = trainer_of(discs, network, conditional=True, label_drop=0.25, batch_size=64)
    network.seen.clear()
    for _ in range(40):
        x0, _, _, _, labels = trainer._next_batch()
        assert labels is not None
        known = labels != len(discs.class_names)
        nearest = (x0[:, None] - discs.images[None]).flatten(2).square().sum(2).argmin(1)
        assert torch.equal(labels[known], discs.labels[nearest][known])
        network.seen.append((labels,))
    share = torch.cat([labels for (labels,) in network.seen]).eq(len(discs.class_names))
    # 2560 draws: five standard errors
    assert float(share.double().mean()) == pytest.approx(0.25, abs=5 * math.sqrt(0.1875 / 2560))
    trainer.step()
    assert len(network.seen[-1]) == 3, "the network is told the classes"


def test_a_network_is_built_as_the_config_says(tmp_path: Path, discs: Dataset) -> None:
    asked = {"widths": (8, 16, 16), "blocks": 2, "bottom_blocks": 3, "patch": 1}
    run = train(tiny(tmp_path / "run", steps=1, **asked), data=discs)
    same = unet.TinyUNet(3, **asked)
    shapes = {name: tensor.shape for name, tensor in same.state_dict().items()}
    assert {name: tensor.shape for name, tensor in run.network.state_dict().items()} == shapes
    loaded = checkpoints.load_checkpoint(tmp_path / "run").model
    x_t, t = torch.randn(2, 3, 8, 8), torch.tensor([1, 900])
    assert torch.equal(loaded(x_t, t), run.model(x_t, t))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("where", ["matrix", "vector"])
def test_an_overflow_is_skipped_and_the_scale_halved(
    discs: Dataset, optimizer: str, where: str
) -> None:
    """Planted in one gradient, of either optimizer: no weight moves, and no memory of any."""
    config = tiny(None, precision="fp16", optimizer=optimizer)
    precision = hardware.pick_precision("fp16", CPU)
    torch.manual_seed(0)
    trainer = Trainer(config, training.new_network(config, discs), discs, CPU, precision)
    trainer.step()
    before, scale = bits(trainer.network), trainer.scaler.get_scale()
    memory = {n: t.clone() for n, t in run_state.optimizer_tensors(trainer.optimizers).items()}
    victim = next(p for p in trainer.network.parameters() if (p.ndim == 1) == (where == "vector"))
    hook = victim.register_hook(lambda grad: grad + torch.inf)
    assert trainer.step().isfinite()
    assert all(torch.equal(a, b) for a, b in zip(bits(trainer.network), before, strict=True))
    after = run_state.optimizer_tensors(trainer.optimizers)
    assert all(torch.equal(after[name], memory[name]) for name in memory)
    assert trainer.scaler.get_scale() == scale / 2
    hook.remove()
    trainer.step()
    assert not same_as(trainer.network, before), "the next step moves them"
    assert all(p.isfinite().all() for p in trainer.network.parameters())


def same_as(network: nn.Module, before: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(bits(network), before, strict=True))


def test_gradients_that_overflow_at_every_scale_end_the_run(tmp_path: Path, discs: Dataset) -> None:
    network = Answer()
    network.weight.register_hook(lambda grad: grad + torch.inf)
    config = tiny(tmp_path / "run", precision="fp16", steps=100, log_every=10)
    with pytest.raises(TrainingError, match="gradients overflow at every scale by step 31"):
        train(config, data=discs, model=network)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "settings", [{}, {"step_sampler": "importance"}, {"accumulate": 4}, {"pinned": True}], ids=str
)
def test_a_step_on_cuda_never_waits_for_the_gpu(
    discs: Dataset, monkeypatch: pytest.MonkeyPatch, settings: dict
) -> None:
    device = torch.device("cuda")
    if settings.get("pinned"):
        monkeypatch.setattr("tutorial_lib.hardware.fits", lambda size, device: False)
        settings = {}
    config = tiny(None, device="cuda", conditional=True, **settings)
    torch.manual_seed(0)
    network = training.new_network(config, discs)
    precision = Precision("bf16", torch.bfloat16, "a test")
    trainer = Trainer(config, network, discs, device, precision)
    for _ in range(3):  # first calls load kernels, which waits
        trainer.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            trainer.step()
            trainer.update_lr()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.plain_errors
@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_batch_whose_gradients_need_more_than_the_memory_is_refused(
    discs: Dataset, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    """What autograd keeps of a whole batch, counted here, is foretold from one example."""
    network = training.new_network(tiny(None), discs)
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    size = 64 // accumulate
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        answer = network(discs.images[:size], torch.ones(size, dtype=torch.int64))
    del answer
    weights = sum(weight.numel() * 4 for weight in network.parameters())
    needed = sum(kept.values()) - weights
    settings = {"batch_size": 64, "accumulate": accumulate, "target": "eps"}
    for total, is_refused in ((needed * 0.8, True), (needed * 1.2, False)):
        monkeypatch.setattr(_memory, "total", lambda device=None, total=total: int(total))
        if is_refused:
            with pytest.raises(ValueError, match=r"^batch_size must fit in memory, got 64: what"):
                trainer_of(discs, network, **settings)
        else:
            trainer_of(discs, network, **settings)
