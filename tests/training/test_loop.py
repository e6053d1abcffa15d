"""Training: bit for bit repeatable, and each part against a formula or a loop written out."""

import errno
import json
import math
import os
import platform
import random
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tutorial_lib import checkpoints, datasets, losses
from tutorial_lib.datasets import Dataset
from tutorial_lib.hardware import Precision
from tutorial_lib.hardware import devices as hardware
from tutorial_lib.networks import unet
from tutorial_lib.schedules import cosine_schedule
from tutorial_lib.training import TrainConfig, Trainer, TrainingError, batches, train
from tutorial_lib.training import loop as training
from tutorial_lib.training import state as run_state
from tutorial_lib.training.config import weight_of
from tutorial_lib.training.journal import Journal

CPU = torch.device("cpu")
FP32 = Precision("fp32", torch.float32, "a test")
SETTINGS = {
    "widths": (8, 16),
    "batch_size": 16,
    "steps": 4,
    "precision": "fp32",
    "device": "cpu",
    "progress": False,
}


@pytest.fixture(scope="module")
def discs() -> Dataset:
    return datasets.circles(64, size=8, seed=0)


def tiny(out: Path | None, **settings) -> TrainConfig:
    return TrainConfig(**{**SETTINGS, "out": out, **settings})


def trainer_of(data: Dataset, network: nn.Module | None = None, **settings) -> Trainer:
    config = tiny(None, **settings)
    torch.manual_seed(0)
    return Trainer(config, network or training.new_network(config, data), data, CPU, FP32)


def metrics_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def bits(network: nn.Module) -> list[Tensor]:
    return [value.detach().clone() for value in network.state_dict().values()]


def same_bits(left: nn.Module, right: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(bits(left), bits(right), strict=True))


class Answer(nn.Module):
    """A denoiser of one number that answers ``weight * x_t`` and remembers what it was asked."""

    def __init__(self, weight: float = 0.5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[weight]]))
        self.seen: list[tuple[Tensor, ...]] = []

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        self.seen.append((x_t, t) if labels is None else (x_t, t, labels))
        return self.weight * x_t


# --- the same again -------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"precision": "bf16"}, {"conditional": True}])
def test_same_seed_same_bits(tmp_path: Path, discs: Dataset, settings: dict) -> None:
    first = train(tiny(tmp_path / "a", **settings), data=discs)
    torch.manual_seed(999)  # what the global state was before must not matter
    second = train(tiny(tmp_path / "b", **settings), data=discs)
    other = train(tiny(tmp_path / "c", seed=1, **settings), data=discs)
    assert first.losses == second.losses
    assert same_bits(first.network, second.network)
    assert same_bits(first.ema_network, second.ema_network)
    assert first.losses != other.losses
    assert first.checkpoint.read_bytes() == second.checkpoint.read_bytes()


@pytest.mark.plain_errors  # the shape checker draws from Python's random numbers
def test_global_random_states_are_left_as_they_were(tmp_path: Path, discs: Dataset) -> None:
    torch.manual_seed(5)
    random.seed(5)
    numpy_draws = np.random.default_rng(5)
    before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    train(tiny(tmp_path / "run"), data=discs)
    after = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert numpy_draws.random() == np.random.default_rng(5).random()


def test_dropout_of_a_handed_in_network_follows_the_seed(tmp_path: Path, discs: Dataset) -> None:
    def network() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Dropout(0.5), nn.Conv2d(8, 3, 1))

    class Timeless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            return self.inner(x_t)

    torch.manual_seed(1)
    first = Timeless()
    second = Timeless()
    second.load_state_dict(first.state_dict())
    run = train(tiny(tmp_path / "a"), data=discs, model=first)
    torch.manual_seed(77)
    again = train(tiny(tmp_path / "b"), data=discs, model=second)
    assert run.losses == again.losses
    assert run.network is first, "the network that was handed in is the one that is trained"


# --- it learns ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain() -> Dataset:
    """Images of one grey each: what noise hides of them, the other pixels still tell."""
    greys = torch.linspace(-1, 1, 64)[:, None, None, None].expand(64, 1, 8, 8)
    return Dataset(greys.clone(), torch.zeros(64, dtype=torch.int64), ("grey",))


@pytest.mark.parametrize(
    ("target", "weight"), [("eps", "none"), ("v", "v"), ("v", "min_snr"), ("x0", "x0")]
)
def test_loss_falls(tmp_path: Path, plain: Dataset, target: str, weight: str) -> None:
    run = train(tiny(tmp_path / "run", steps=100, target=target, weight=weight), data=plain)
    early, late = sum(run.losses[:10]) / 10, sum(run.losses[-20:]) / 20
    assert late < 0.6 * early
    # and so does the plain eps loss of the averaged network, whatever it was trained to say
    t = torch.arange(100, 1000, 14)[:64]
    eps = torch.randn(plain.images.shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        judged = losses.epsilon_losses(run.model, run.schedule, plain.images, t, eps).mean()
    assert judged < 0.35, "an answer of 0 would score 1"


@pytest.mark.parametrize("step_sampler", ["uniform", "stratified", "importance"])
@pytest.mark.parametrize("weight", ["none", "p2", "min_snr", "v", "x0"])
def test_every_weight_and_step_sampler_trains(
    tmp_path: Path, discs: Dataset, weight: str, step_sampler: str
) -> None:
    config = tiny(tmp_path / "run", weight=weight, step_sampler=step_sampler, steps=2)
    assert all(math.isfinite(loss) for loss in train(config, data=discs).losses)


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


# --- the parts of a step --------------------------------------------------------------------------


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


def test_shuffled_brings_every_number_equally_often() -> None:
    order = batches.Shuffled(10, torch.Generator().manual_seed(0))
    taken = torch.cat([order.take(count) for count in (3, 4, 7, 25, 1)])  # 40 = 4 rounds
    assert taken.bincount().tolist() == [4] * 10
    rounds = taken.view(4, 10)
    assert all(len(part.unique()) == 10 for part in rounds)
    assert not torch.equal(rounds[0], rounds[1])


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


# --- how long, and what is left -------------------------------------------------------------------


def test_time_budget_ends_the_run_with_the_rate_near_zero(tmp_path: Path, discs: Dataset) -> None:
    settings = {"steps": None, "max_seconds": 1.5, "log_every": 1, "warmup": 0.0}
    run = train(tiny(tmp_path / "run", decay="linear", **settings), data=discs)
    lines = metrics_of(tmp_path / "run")
    passed = np.array([line["seconds"] for line in lines])
    assert 1.5 <= run.seconds <= 1.5 + 2 * np.diff(passed).max()
    k = np.arange(1, len(lines))  # steps done before; half a mean step is added to the clock
    middle = np.minimum(1, passed[:-1] * (k + 0.5) / k / 1.5)
    expected = run.config.muon_lr * np.array([1, *(1 - middle)])
    np.testing.assert_allclose([line["lr"] for line in lines], expected, atol=2e-5)
    assert lines[-1]["lr"] < 0.3 * run.config.muon_lr


def test_an_accelerator_is_asked_for_losses_where_a_line_or_a_checkpoint_is_due(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"steps": 11, "log_every": 3, "checkpoint_every": 5}
    often = train(tiny(tmp_path / "often", **settings), data=discs)
    looks: list[int] = []
    read = Journal.read

    def counted(journal: Journal) -> float:
        looks.append(journal.unread)
        return read(journal)

    monkeypatch.setattr(Journal, "read", counted)
    monkeypatch.setattr(training, "_read_every", lambda device: training.READ_EVERY)
    seldom = train(tiny(tmp_path / "seldom", **settings), data=discs)
    assert looks == [3, 2, 1, 3, 1, 1]  # at steps 3, 5, 6, 9, 10, 11
    assert seldom.losses == often.losses
    ours, theirs = metrics_of(tmp_path / "seldom"), metrics_of(tmp_path / "often")
    assert [line["loss"] for line in ours] == [line["loss"] for line in theirs]
    assert [line["step"] for line in ours] == [3, 6, 9, 11]
    assert np.diff([line["seconds"] for line in ours]).min() > 0
    assert ours[-1]["seconds"] == round(seldom.seconds, 3)


def test_whichever_of_steps_and_seconds_ends_first_decides(tmp_path: Path, discs: Dataset) -> None:
    short = train(tiny(tmp_path / "a", steps=3, max_seconds=600.0), data=discs)
    assert len(short.losses) == 3
    long = train(tiny(tmp_path / "b", steps=10**7, max_seconds=0.3), data=discs, model=Answer())
    assert len(long.losses) < 10**5


def test_run_folder_holds_config_metrics_and_checkpoints(tmp_path: Path, discs: Dataset) -> None:
    config = tiny(tmp_path / "run", steps=7, checkpoint_every=3, log_every=2)
    run = train(config, data=discs)
    assert run.path == tmp_path / "run"
    assert sorted(path.name for path in run.path.iterdir()) == [
        "config.json",
        "metrics.jsonl",
        "state",
        *(f"step-{n:08d}.{s}" for n in (3, 6, 7) for s in ("json", "safetensors")),
    ]
    assert json.loads((run.path / "config.json").read_text())["checkpoint_every"] == 3
    newest = [path.name for path in (run.path / "state").iterdir()]
    assert sorted(newest) == [f"step-{n:08d}.safetensors" for n in (6, 7)]
    lines = metrics_of(run.path)
    assert [line["step"] for line in lines] == [2, 4, 6, 7]
    for line, part in zip(lines, ((0, 2), (2, 4), (4, 6), (6, 7)), strict=True):
        recent = run.losses[slice(*part)]
        assert line["loss"] == pytest.approx(sum(recent) / len(recent))
    saved = checkpoints.load_checkpoint(run.path)
    assert saved.path == run.checkpoint
    assert same_bits(saved.network, run.ema_network)
    assert not same_bits(saved.network, run.network)
    card = saved.card
    assert (card["steps"], card["seed"], card["target"]) == (7, 0, "v")
    assert card["dataset"]["image_shape"] == [3, 8, 8]
    assert card["metrics"]["loss"] == pytest.approx(sum(run.losses) / 7)
    assert card["command"].startswith("python -m tutorial_lib train --steps 7 ")


def test_default_folders_are_numbered(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        train(tiny(None, steps=1), data=discs, model=Answer())
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["circles-1", "circles-2"]


# --- what goes wrong ------------------------------------------------------------------------------


class Breaks(Answer):
    """Answers NaN at one training step."""

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        answer = super().forward(x_t, t)
        training_steps = len(self.seen) - 1  # the first question is the trainer's own, at the start
        return answer * float("nan") if training_steps == 5 else answer


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    "settings", [{}, {"target": "x0"}, {"step_sampler": "importance", "num_steps": 10}]
)
def test_a_loss_that_is_not_finite_stops_the_run_naming_the_step(
    tmp_path: Path, discs: Dataset, settings: dict
) -> None:
    config = tiny(tmp_path / "run", steps=9, checkpoint_every=4, **settings)
    with pytest.raises(TrainingError, match="at step 5"):
        train(config, data=discs, model=Breaks())
    assert [path.stem for path in (tmp_path / "run").glob("*.safetensors")] == ["step-00000004"]


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, discs: Dataset) -> None:
    network = Answer()
    network.weight.register_hook(lambda grad: grad * float("nan"))
    with pytest.raises(TrainingError, match="weight is not finite at step 1"):
        train(tiny(tmp_path / "run", steps=1), data=discs, model=network)
    assert not list((tmp_path / "run").glob("step-*"))


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "cosin"}, "schedule .* did you mean 'cosine'"),
        ({"target": "epsilon"}, "target must be one of eps, v, x0; got 'epsilon'"),
        ({"weight": "min-snr"}, "weight .* did you mean 'min_snr'"),
        ({"step_sampler": "stratifed"}, "step_sampler .* did you mean 'stratified'"),
        ({"optimizer": "adam"}, "optimizer must be one of muon, adamw; got 'adam'"),
        ({"warmup": 100}, r"warmup must be in \[0, 1\], got 100"),
        ({"muon_lr": -0.1}, "muon_lr must be in .* got -0.1"),
        ({"decay": "cos"}, "decay must be one of .* got 'cos'"),
        ({"device": "gpu"}, "device must be one of auto, cpu, cuda, mps; got 'gpu'"),
        ({"precision": "fp8"}, "precision must be one of .* got 'fp8'"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": None}, "steps and max_seconds must not both be None"),
        ({"max_seconds": 0.0}, "max_seconds must be .* got 0.0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"lr": float("nan")}, "lr must be in .* got nan"),
        ({"lr": -1.0}, "lr must be in .* got -1.0"),
        ({"ema": 1.5}, r"ema must be in \[0, 1\], got 1.5"),
        ({"label_drop": -0.1}, "label_drop must be .* got -0.1"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"seed": 2**32}, r"seed must be below 2\^32, got 4294967296"),
        ({"seed": True}, "seed must be an int, got bool True"),
        ({"steps": True}, "steps must be an int, got bool True"),
        ({"keep": False}, "keep must be an int, got bool False"),
        ({"blocks": "2"}, "blocks must be an int, got str '2'"),
        ({"bottom_blocks": 0}, "bottom_blocks must be at least 1, got 0"),
        ({"lr": True}, "lr must be a number, got bool True"),
        ({"conditional": "yes"}, "conditional must be True or False, got str 'yes'"),
        ({"resume": 1}, "resume must be True or False, got int 1"),
        ({"progress": None}, "progress must be True or False, got NoneType None"),
        ({"out": 3}, "out must be a path, got int 3"),
        ({"root": b"data"}, "root must be a path, got bytes b'data'"),
        ({"widths": ()}, "widths must be .* got tuple"),
        ({"widths": (8, 0)}, "widths must be at least 1, got 0"),
        ({"dataset": ""}, "dataset must be a name"),
    ],
)
def test_config_names_the_field_that_cannot_be_meant(settings: dict, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        TrainConfig(**{**SETTINGS, **settings})


@pytest.mark.plain_errors
def test_config_takes_words_for_paths_and_numbers_of_numpy() -> None:
    given = {"steps": np.int64(3), "lr": np.float32(0.5), "warmup": 0, "widths": (np.int32(8),)}
    config = TrainConfig(out="runs/a", root="data", **given)  # type: ignore[arg-type]
    assert (config.out, config.root) == (Path("runs/a"), Path("data"))
    assert TrainConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config
    assert [type(v) for v in (config.steps, config.lr, config.warmup)] == [int, float, float]
    assert TrainConfig(seed=2**32 - 1).seed == 2**32 - 1


def test_a_network_is_built_as_the_config_says(tmp_path: Path, discs: Dataset) -> None:
    asked = {"widths": (8, 16, 16), "blocks": 2, "bottom_blocks": 3, "patch": 1}
    run = train(tiny(tmp_path / "run", steps=1, **asked), data=discs)
    same = unet.TinyUNet(3, **asked)
    shapes = {name: tensor.shape for name, tensor in same.state_dict().items()}
    assert {name: tensor.shape for name, tensor in run.network.state_dict().items()} == shapes
    loaded = checkpoints.load_checkpoint(tmp_path / "run").model
    x_t, t = torch.randn(2, 3, 8, 8), torch.tensor([1, 900])
    assert torch.equal(loaded(x_t, t), run.model(x_t, t))


@pytest.mark.plain_errors
def test_nothing_is_written_where_the_run_cannot_start(tmp_path: Path, discs: Dataset) -> None:
    class Wrong(Answer):
        def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
            return super().forward(x_t, t)[:, :, :4]

    with pytest.raises(ValueError, match=r"shape of x_t, \(1, 3, 8, 8\); got \(1, 3, 4, 8\)"):
        train(tiny(tmp_path / "run"), data=discs, model=Wrong())
    grey = training.new_network(tiny(None), datasets.circles(4, size=8, channels=1))
    with pytest.raises(ValueError, match=r"\(batch, 1, height, width\), got \(1, 3, 8, 8\)"):
        train(tiny(tmp_path / "run"), data=discs, model=grey)
    with pytest.raises(ValueError, match="circels"):
        train(tiny(tmp_path / "run", dataset="circels"))
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device 'cuda' is not there"):
            train(tiny(tmp_path / "run", device="cuda"), data=discs)
    assert not (tmp_path / "run").exists()


@pytest.mark.plain_errors
def test_a_folder_that_is_taken_or_cannot_be_is_named(tmp_path: Path, discs: Dataset) -> None:
    train(tiny(tmp_path / "run", steps=1), data=discs, model=Answer())
    with pytest.raises(ValueError, match=r"out must be a new or an empty folder, got .*run"):
        train(tiny(tmp_path / "run", steps=1), data=discs, model=Answer())
    below_a_file = tmp_path / "run" / "config.json" / "deeper"
    with pytest.raises(ValueError, match=r"out cannot be written: .*deeper: Not a directory"):
        train(tiny(below_a_file, steps=1), data=discs, model=Answer())


def test_a_full_disk_leaves_no_empty_folder(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    (tmp_path / "mine").mkdir()
    for name in ("new", "mine"):
        with pytest.raises(ValueError, match=rf"out cannot be written: .*{name}: No space left"):
            train(tiny(tmp_path / name), data=discs)
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


class Silent(nn.Module):
    """``Answer`` without a memory, which a compiler does not follow."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.5]]))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.weight * x_t


# --- precision, memory, compilers -----------------------------------------------------------------


def test_precisions_agree_in_loss(tmp_path: Path, discs: Dataset) -> None:
    """Each loss within 5 % of fp32's over 30 steps, their mean within 1 %; none is fp32's."""
    runs = {
        name: train(tiny(tmp_path / name, precision=name, steps=30), data=discs)
        for name in ("fp32", "bf16", "fp16")
    }
    wide = np.array(runs["fp32"].losses)
    for name in ("bf16", "fp16"):
        narrow = np.array(runs[name].losses)
        assert (narrow != wide).any(), f"{name} was not used"
        np.testing.assert_allclose(narrow, wide, rtol=0.05)
        np.testing.assert_allclose(narrow.mean(), wide.mean(), rtol=0.01)
        assert all(p.dtype == torch.float32 for p in runs[name].network.parameters())


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
    assert not same_as(trainer.network, before), "and it goes on"
    assert all(p.isfinite().all() for p in trainer.network.parameters())


def same_as(network: nn.Module, before: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(bits(network), before, strict=True))


def test_gradients_that_overflow_at_every_scale_end_the_run(tmp_path: Path, discs: Dataset) -> None:
    network = Answer()
    network.weight.register_hook(lambda grad: grad + torch.inf)
    config = tiny(tmp_path / "run", precision="fp16", steps=100, log_every=10)
    with pytest.raises(TrainingError, match="gradients overflow at every scale by step 31"):
        train(config, data=discs, model=network)


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("capability", "native", "expected"),
    [
        ((9, 0), True, "bf16"),
        ((8, 0), True, "bf16"),
        ((7, 5), False, "fp16"),
        ((6, 1), False, "fp32"),
    ],
)
def test_auto_precision_follows_the_gpu(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], native: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert hardware.pick_precision("auto", torch.device("cuda")).name == expected


def test_data_stay_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 4000))
    assert hardware.fits(500, torch.device("cuda"))
    assert not hardware.fits(501, torch.device("cuda"))
    assert hardware.fits(10**15, CPU)


def test_images_read_from_memory_are_the_same_images(
    discs: Dataset,
) -> None:
    index = torch.tensor([3, 60, 3])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for home in {device, CPU}:
        store = batches.Store(discs.images, discs.labels, device, home)
        for numbers in (index, index.to(device)):
            x0, labels = store.pick(numbers)
            assert x0.device.type == device.type
            assert torch.equal(x0.cpu(), discs.images[index])
            assert labels is not None
            assert torch.equal(labels.cpu(), discs.labels[index])
            assert x0.is_contiguous(memory_format=torch.channels_last)
    plain = batches.Store(discs.images, None, device, CPU, torch.contiguous_format)
    assert plain.pick(index)[0].is_contiguous()


def test_pixels_lie_as_the_network_is_fastest() -> None:
    big, small = nn.GroupNorm(2, 32), nn.GroupNorm(4, 32)
    last, plain = torch.channels_last, torch.contiguous_format
    assert hardware.memory_format(nn.Sequential(big, nn.Conv2d(32, 3, 1)), CPU) == last
    assert hardware.memory_format(nn.Sequential(big, small), CPU) == plain
    assert hardware.memory_format(nn.Sequential(big, small), torch.device("cuda")) == last


FAULTS = """
import resource, torch
from torch import nn
from tutorial_lib import hardware

layers = [nn.Conv2d(32, 32, 3, padding=1) for _ in range(6)]
net = nn.Sequential(*layers)
x = torch.randn(16, 32, 32, 32)  # 2 MiB, as are the answers

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        net(x).sum().backward()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
agreed = hardware.keep_freed_memory()
faults()  # takes what the last ones keep
print(before, int(agreed), faults())
"""


@pytest.mark.parametrize(
    "settled",
    [
        {},
        {"MALLOC_TRIM_THRESHOLD_": "131072"},
        {"MALLOC_MMAP_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"},
    ],
    ids=lambda settled: "".join(settled) or "free to choose",
)
def test_freed_memory_is_kept_unless_somebody_has_settled_that(settled: dict[str, str]) -> None:
    variables = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
    others = {name: value for name, value in os.environ.items() if name not in variables}
    told = subprocess.run(
        [sys.executable, "-c", FAULTS],
        env={**others, **settled},
        capture_output=True,
        text=True,
        check=True,
    )
    before, agreed, after = map(int, told.stdout.split())
    assert agreed == (platform.libc_ver()[0] == "glibc" and not settled)
    if agreed:
        assert 10 * after <= before  # pages that had to be fetched from the system again


def test_a_network_on_the_cpu_has_its_memory_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(hardware, "keep_freed_memory", lambda: asked.append(True))
    hardware.placed(nn.Conv2d(1, 1, 3), torch.device("meta"))
    assert not asked
    hardware.placed(nn.Conv2d(1, 1, 3), CPU)
    assert asked


def test_a_network_of_small_groups_trains_as_it_lies_best(tmp_path: Path, discs: Dataset) -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.widen, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(4, 8)
            self.narrow = nn.Conv2d(8, 3, 3, padding=1)
            self.seen: set[bool] = set()

        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            self.seen.add(x_t.is_contiguous() and self.widen.weight.is_contiguous())
            return self.narrow(self.norm(self.widen(x_t)))

    network = Small().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    train(tiny(tmp_path / "run", steps=2, device="cpu"), data=discs, model=network)
    assert network.seen == {True}


def test_an_answer_lies_as_x_t_does() -> None:
    def turned(x_t: Tensor, t: Tensor) -> Tensor:
        return (2 * x_t).bfloat16().contiguous(memory_format=torch.channels_last)

    model = hardware.in_precision(turned, CPU, Precision("bf16", torch.bfloat16, "a test"))
    x_t, t = torch.randn(2, 3, 4, 4), torch.ones(2, dtype=torch.int64)
    for layout in (torch.contiguous_format, torch.channels_last):
        lies = x_t.contiguous(memory_format=layout)
        answer = model(lies, t)
        assert answer.dtype == torch.float32
        assert answer.stride() == lies.stride()
        assert torch.equal(answer, (2 * x_t).bfloat16().float())


class Operators(TorchDispatchMode):
    """Writes down which operators torch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def attended(
    tokens: int, name: str, query_tokens: int | None = None, **how: Any
) -> tuple[Tensor, Tensor, Tensor, set[str]]:
    """Attention in a precision of ours, in torch's, by a loop; and the first's operators."""
    generator = torch.Generator().manual_seed(0)
    sizes = (query_tokens or tokens, tokens, tokens)
    q, k, v = (torch.randn(2, 3, size, 8, generator=generator) for size in sizes)
    precision = hardware.pick_precision(name, CPU)
    answers = []

    def attend(x_t: Tensor, t: Tensor) -> Tensor:
        answers.append(F.scaled_dot_product_attention(q, key=k, value=v, **how))
        return x_t

    with Operators() as operators:
        hardware.in_precision(attend, CPU, precision)(q, torch.ones(2, dtype=torch.int64))
    with torch.autocast("cpu", precision.dtype):
        attend(q, torch.ones(2, dtype=torch.int64))
    rows = torch.zeros(q.shape, dtype=torch.float64)
    scale = how.get("scale") or 8**-0.5
    for sample, head, row in np.ndindex(q.shape[:3]):
        logits = scale * (k[sample, head].double() @ q[sample, head, row].double())
        if how.get("is_causal"):
            logits[row + 1 :] = -math.inf
        rows[sample, head, row] = logits.softmax(0) @ v[sample, head].double()
    return answers[0], answers[1], rows, operators.seen


@pytest.mark.parametrize("name", ["bf16", "fp16"])
@pytest.mark.parametrize(
    ("tokens", "query_tokens", "how"),
    [(1, None, {}), (16, None, {}), (128, None, {}), (16, 5, {}), (16, None, {"scale": 0.1})],
)
def test_on_a_cpu_attention_of_few_tokens_is_two_products(
    tokens: int, query_tokens: int | None, how: dict[str, Any], name: str
) -> None:
    """Torch's own has a gradient that is many times slower in bf16; see hardware."""
    ours, theirs, exact, operators = attended(tokens, name, query_tokens, **how)
    assert not any("scaled_dot_product" in operator for operator in operators)
    assert "bmm" in operators
    assert ours.dtype == theirs.dtype == hardware.DTYPES[name]
    close = {"bf16": 0.03, "fp16": 0.004}[name]
    assert (ours.double() - exact).abs().max() < close
    assert (theirs.double() - exact).abs().max() < close


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attention_that_asks_for_more_digits_gets_them(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 16, 8, generator=generator).to(dtype)
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    found = []

    def attend(x_t: Tensor, t: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=dtype == torch.float64):
            found.append(F.scaled_dot_product_attention(q, k, v))
        return x_t

    bf16 = hardware.pick_precision("bf16", CPU)
    hardware.in_precision(attend, CPU, bf16)(q, torch.ones(2, dtype=torch.int64))
    assert found[0].dtype == dtype
    assert (found[0] - exact).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("tokens", "how"),
    [(129, {}), (16, {"is_causal": True}), (16, {"attn_mask": torch.ones(16, 16).bool()})],
)
def test_other_attention_is_left_to_torch(tokens: int, how: dict[str, Any]) -> None:
    ours, theirs, exact, operators = attended(tokens, "bf16", **how)
    assert any("scaled_dot_product" in operator for operator in operators)
    assert torch.equal(ours, theirs)
    assert (ours.double() - exact).abs().max() < 0.03


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, while it loads itself
@pytest.mark.plain_errors  # the compiler cannot see through the shape checker
def test_compile_trains_alike(tmp_path: Path, discs: Dataset) -> None:
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("no C++ compiler here")
    plain = train(tiny(tmp_path / "plain", steps=3), data=discs, model=Answer())
    network = Silent()
    fast = train(tiny(tmp_path / "fast", steps=3, compile=True), data=discs, model=network)
    assert fast.losses == pytest.approx(plain.losses, rel=1e-4)
    card = checkpoints.load_checkpoint(tmp_path / "fast", network=Silent()).card
    assert card["network"]["class"] == "Silent", "the compiled one is the network itself"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, while it loads itself
@pytest.mark.plain_errors  # the compiler cannot see through the shape checker
def test_compile_falls_back_where_there_is_no_compiler(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    torch._dynamo.reset()
    plain = train(tiny(tmp_path / "plain", steps=3), data=discs, model=Answer())
    with pytest.warns(UserWarning, match="compile does not work here, going on without"):
        run = train(tiny(tmp_path / "run", steps=3, compile=True), data=discs, model=Silent())
    assert run.losses == plain.losses


# --- TensorBoard ----------------------------------------------------------------------------------


def test_tensorboard_gets_what_the_metrics_say(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in with the methods of TensorBoard's writer, which is not among our requirements."""
    written: list[tuple] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            written.append(("open", Path(folder).name, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((name, value, step))

        def add_image(self, name: str, pixels: np.ndarray, step: int, dataformats: str) -> None:
            written.append((name, pixels.shape, step, dataformats))

        def close(self) -> None:
            written.append(("close",))

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    settings = {"steps": 4, "log_every": 2, "sample_every": 3, "tensorboard": True}
    train(tiny(tmp_path / "run", **settings), data=discs)
    assert written[0] == ("open", "tensorboard", 1)
    assert written[-1] == ("close",)
    for line in metrics_of(tmp_path / "run"):
        for name in ("loss", "lr", "images_per_second"):
            assert (name, line[name], line["step"]) in written
    assert ("samples", (78, 78, 3), 3, "HWC") in written


@pytest.mark.plain_errors
def test_tensorboard_that_is_missing_is_named(
    tmp_path: Path, discs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="tensorboard is not installed: pip install tensorboard"):
        train(tiny(tmp_path / "run", tensorboard=True), data=discs)
    assert not (tmp_path / "run").exists()


def test_import_brings_no_plotting_and_no_widgets() -> None:
    code = (
        "import sys, tutorial_lib.training;"
        "print([m for m in ('matplotlib', 'ipywidgets', 'IPython') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


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


def test_min_snr_gamma_is_where_the_weight_stops_growing():
    schedule, t = cosine_schedule(), torch.arange(1, 1001)
    snr = schedule.alpha_bar[1:] / (1 - schedule.alpha_bar[1:])
    for gamma in (0.5, 2.0, 5.0):
        weight = weight_of(TrainConfig(min_snr_gamma=gamma))
        assert weight is not None
        expected = torch.minimum(snr, torch.tensor(gamma)) / snr
        assert (weight(schedule, t) - expected).abs().max() < 1e-6
    assert weight_of(TrainConfig(weight="none")) is None
    with pytest.raises(ValueError, match="min_snr_gamma"):
        TrainConfig(min_snr_gamma=0.0)
