"""Training: bit for bit repeatable, and each part against a formula or a loop written out."""

import itertools
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_cases import (
    Answer,
    metrics_of,
    same_bits,
    tiny,
)

from tutorial_lib import datasets, losses
from tutorial_lib.datasets import Dataset
from tutorial_lib.training import Run, TrainingError, train

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


def test_dropout_of_the_network_passed_in_follows_the_seed(tmp_path: Path, discs: Dataset) -> None:
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
    assert run.network is first, "the network that was passed in is trained"


# --- it learns ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain() -> Dataset:
    """Images of one gray each: what noise hides of them, the other pixels still tell."""
    grays = torch.linspace(-1, 1, 64)[:, None, None, None].expand(64, 1, 8, 8)
    return Dataset(grays.clone(), torch.zeros(64, dtype=torch.int64), ("gray",))


@pytest.mark.parametrize(
    ("target", "weight"),
    [
        *[("eps", "none"), ("v", "v"), ("v", "min_snr"), ("x0", "x0")],
        *[("velocity", "velocity"), ("velocity", "min_snr")],
    ],
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


# --- how long, and what is left -------------------------------------------------------------------


def test_time_budget_ends_the_run_with_the_rate_near_zero(tmp_path: Path, discs: Dataset) -> None:
    """By a clock that advances a little whenever it is read, three times a step."""
    reads = itertools.count()
    settings = {"steps": None, "max_seconds": 1.5, "log_every": 1, "warmup": 0.0}
    config = tiny(tmp_path / "run", decay="linear", **settings)
    run = train(config, data=discs, clock=lambda: 0.01 * next(reads))
    lines = metrics_of(tmp_path / "run")
    passed = np.array([line["seconds"] for line in lines])
    assert len(lines) > 20
    assert 1.5 <= run.seconds <= 1.5 + 2 * np.diff(passed).max()
    k = np.arange(1, len(lines))  # steps done before; half a mean step is added to the clock
    middle = np.minimum(1, passed[:-1] * (k + 0.5) / k / 1.5)
    expected = run.config.muon_lr * np.array([1, *(1 - middle)])
    np.testing.assert_allclose([line["lr"] for line in lines], expected, atol=2e-5)
    assert lines[-1]["lr"] < 0.05 * run.config.muon_lr


def test_whichever_of_steps_and_seconds_ends_first_decides(tmp_path: Path, discs: Dataset) -> None:
    """By a clock that advances by a second whenever it is read."""
    reads = itertools.count()

    def run(name: str, **settings) -> Run:
        config = tiny(tmp_path / name, **settings)
        return train(config, data=discs, model=Answer(), clock=lambda: float(next(reads)))

    assert len(run("a", steps=3, max_seconds=1000.0).losses) == 3
    timed = run("b", steps=1000, max_seconds=60.0)
    assert 10 < len(timed.losses) < 60
    assert timed.seconds >= 60


# --- what goes wrong ------------------------------------------------------------------------------


class Breaks(Answer):
    """Answers NaN at one training step."""

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        answer = super().forward(x_t, t)
        training_steps = len(self.seen) - 1  # the first question is the trainer's own, at the start
        return answer * float("nan") if training_steps == 5 else answer


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    "settings",
    [
        *[{}, {"target": "x0"}, {"target": "velocity"}],
        {"target": "velocity", "weight": "velocity"},
        {"step_sampler": "importance", "num_steps": 10},
    ],
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


# --- what importing loads -------------------------------------------------------------------------


def test_import_brings_no_plotting_and_no_widgets() -> None:
    code = (
        "import sys, tutorial_lib.training;"
        "print([m for m in ('matplotlib', 'ipywidgets', 'IPython') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 10**12}, "batch_size must fit in memory, got 1000000000000: a batch of"),
        ({"blocks": 10**6}, "blocks must be at most 1024, got 1000000"),
        ({"bottom_blocks": 10**6}, "bottom_blocks must be at most 1024, got 1000000"),
        ({"widths": (10**8, 10**8)}, r"widths must fit in memory, got tuple"),
        ({"patch": 10**7}, "patch must fit in memory, got 10000000: the network"),
    ],
)
def test_sizes_that_cannot_work_are_refused_before_data_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict, message: str
) -> None:
    monkeypatch.setattr(datasets, "load", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=f"^{message}"):
        train(tiny(tmp_path / "run", dataset="glyphs", **settings))
    assert not (tmp_path / "run").exists()
