"""Several processes, and a batch in parts: the same training except for the order of additions."""

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from tutorial_lib import datasets
from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.datasets import Dataset
from tutorial_lib.hardware import parallel
from tutorial_lib.hardware.parallel import Ranks
from tutorial_lib.training import TrainConfig, TrainingError, train
from tutorial_lib.training import loop as training

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
Forked = Callable[[str, Path], dict]


@pytest.fixture(scope="module")
def discs() -> Dataset:
    return datasets.circles(40, size=8, seed=0)


def config_of(out: Path | None, **settings) -> TrainConfig:
    quick = {"size": 8, "batch_size": 8, "steps": 6, "precision": "fp32", "device": "cpu"}
    return TrainConfig(**{**quick, "widths": (8,), "progress": False, "out": out, **settings})


@pytest.mark.long("two processes train in three ways, one after the other")
@needs_fork
def test_two_processes_train_as_one(tmp_path: Path, forked: Forked) -> None:
    """40 steps each; fp32 differs by the rounding of sums, fp16 by its own rounding too.

    Largest differences seen, weights and losses: 3e-7 and 3e-8 in fp32, 3e-3 and 4e-5 in fp16.
    """
    found = forked("ranks", tmp_path)
    for name, tolerance in {"muon": 2e-5, "adamw, parts": 2e-5, "fp16, uniform": 2e-2}.items():
        assert found["differences"][name]["weights"] < tolerance, name
        assert found["differences"][name]["losses"] < tolerance / 10, name
        assert found["differences"][name]["same_files"], "one process writes, once"
    # asked to stop by SIGTERM, both save and end; resumed, both end with the same bits
    assert found["stopped"] == [1, 1]
    assert found["resumed"]
    assert re.search(
        r"stopped and saved at step \d+ of 40; to resume, in each process: "
        r"training.resume\('.*/parts', data=data, model=model\)",
        found["log"],
    )


@needs_fork
def test_a_process_that_dies_ends_the_run_with_an_error(tmp_path: Path, forked: Forked) -> None:
    for survivor in forked("death", tmp_path)["survivors"]:
        assert survivor["code"] == 1
        assert survivor["seconds"] < 60, "it hung"
        assert "ParallelError: another process of this run has ended" in survivor["said"]


@needs_fork
def test_processes_start_from_the_same_state(tmp_path: Path, forked: Forked) -> None:
    found = forked("begin", tmp_path)
    # the networks passed in differ, as do their averages: those of rank 0 count
    assert found["weights"]["codes"] == [0, 0], found["weights"]["log"]
    assert found["weights"]["said"][0] == found["weights"]["said"][1]
    # rank 0 finds the newest state damaged: both resume from the one before, at step 8
    assert found["state"]["codes"] == [0, 0], found["state"]["log"]
    assert [said.endswith("8, 9, 10, 11, 12, 13]") for said in found["state"]["said"]] == [True] * 2
    assert "continuing from step-00000008" in found["state"]["log"]
    # an error that only rank 0 meets is raised on both, at once
    assert found["failing"]["codes"] == [1, 1]
    assert "ValueError: out must be a new or an empty folder" in found["failing"]["log"]
    assert "ParallelError: the first process of this run has ended: " in found["failing"]["log"]
    # the images stay where all ranks have room for them
    assert found["data_device"]["said"] == ["cpu", "cpu"], found["data_device"]["log"]
    # one downloads, then the other reads; where it cannot, nobody waits
    assert found["turns"]["said"] == ["['downloaded']", "['read']"], found["turns"]["log"]
    assert found["turns"]["codes"] == [0, 0]
    assert found["offline"]["codes"] == [1, 1]
    assert "FileNotFoundError: mnist: the download failed" in found["offline"]["log"]
    assert "another process of this run could not read what it needs" in found["offline"]["log"]
    assert found["agreement"]["codes"] == [1, 1]
    assert "ValueError: lr, data must be the same in all proc" in found["agreement"]["log"]


@pytest.mark.long("torchrun starts processes that load torch")
def test_torchrun_from_the_command_line(tmp_path: Path, program: Callable[..., str]) -> None:
    torchrun = shutil.which("torchrun", path=str(Path(sys.executable).parent)) or "torchrun"
    words = ["--size", "8", "--widths", "8", "--steps", "3", "--device", "cpu", "--no-progress"]
    words += ["--precision", "fp32", "--batch-size", "8", "--sample-every", "3", "--out"]
    several = [torchrun, "--nproc-per-node", "2", "-m", "tutorial_lib", "train"]
    printed = program(*several, *words, tmp_path / "two")
    assert re.search(r"^3 steps in [\d.]+ s, \d+ images/s\n", printed)
    assert printed.count("checkpoint: ") == 1, "one process writes messages"
    one = train(config_of(tmp_path / "one", steps=3, sample_every=3))
    two = load_checkpoint(tmp_path / "two")
    for ours, theirs in zip(one.ema_network.parameters(), two.network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)
    names = [sorted(path.name for path in (tmp_path / n).rglob("*")) for n in ("one", "two")]
    assert names[0] == names[1]


@pytest.mark.parametrize("step_sampler", ["stratified", "importance"])
@pytest.mark.parametrize(("optimizer", "rounding"), [("muon", 2e-4), ("adamw", 1e-5)])
def test_a_batch_in_parts_is_the_batch(
    tmp_path: Path, discs: Dataset, step_sampler: str, optimizer: str, rounding: float
) -> None:
    """Muon scales small singular values up to the others, and their rounding errors with them."""
    settings = {"step_sampler": step_sampler, "optimizer": optimizer, "num_steps": 4}
    settings |= {"conditional": True, "batch_size": 24}
    whole = train(config_of(tmp_path / "whole", **settings), data=discs)
    parts = train(config_of(tmp_path / "parts", accumulate=4, **settings), data=discs)
    assert parts.losses == pytest.approx(whole.losses, abs=rounding / 10)
    for ours, theirs in zip(parts.network.parameters(), whole.network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=rounding)


def test_the_network_gets_one_part_at_a_time(tmp_path: Path, discs: Dataset) -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.seen = nn.Conv2d(3, 3, 1), []

        def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            self.seen.append(len(x_t))
            return self.layer(x_t)

    network = Counts()
    train(config_of(tmp_path / "run", steps=2, accumulate=4), data=discs, model=network)
    assert network.seen[1:] == [2] * 8


@pytest.mark.plain_errors
def test_batches_that_do_not_divide_are_refused(discs: Dataset) -> None:
    with pytest.raises(ValueError, match="accumulate must divide batch_size, 8; got 3"):
        config_of(None, accumulate=3)
    config, ranks = config_of(None, accumulate=2), Ranks(0, 3)
    network = training.new_network(config, discs)
    precision = training.hardware.pick_precision("fp32", torch.device("cpu"))
    with pytest.raises(ValueError, match="batch_size must divide into 2 parts in 3 processes"):
        training.Trainer(config, network, discs, torch.device("cpu"), precision, ranks)


def test_shares_make_up_the_batch() -> None:
    batch = torch.arange(12)
    assert torch.equal(torch.cat([Ranks(rank, 3).share(batch) for rank in range(3)]), batch)


def test_the_launch_command_is_the_one_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parallel.launch_words() == ["python", "-m"]
    for name, value in {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_WORLD_SIZE": "4",
        "GROUP_WORLD_SIZE": "2",
    }.items():
        monkeypatch.setenv(name, value)
    words = "torchrun --nnodes 2 --rdzv-backend c10d --rdzv-endpoint HOST:29500 --nproc-per-node 4"
    assert parallel.launch_words() == [*words.split(), "-m"]


SILENT = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer"


@pytest.mark.parametrize(
    ("error", "about_others"),
    [
        (RuntimeError(f"{SILENT} [127.0.0.1]:15771"), True),
        (RuntimeError("[gloo/transport/tcp/pair.cc:538] Read error: reset by peer"), True),
        (RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 6ms"), True),
        (dist.DistBackendError("ncclRemoteError: remote process exited"), True),
        (dist.DistStoreError("Timed out after 601 seconds, 1/2 clients joined."), True),
        (dist.DistBackendError("Duplicate GPU detected : rank 1 and rank 0 both on 1B000"), False),
        (dist.DistBackendError("ncclUnhandledCudaError: out of memory"), False),
        (dist.DistNetworkError("The server socket has failed to listen: EADDRINUSE"), False),
        (TrainingError("cannot write /data/gloo/run/metrics.jsonl: timed out"), False),
        (TrainingError(f"cannot write {SILENT}"), False),
        (RuntimeError("the loader of process group 3: connection closed by peer"), False),
        (RuntimeError("enforce fail at ../gloo/allreduce.cc op.preamble.length 8 vs 4"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
    ids=str,
)
def test_only_the_silence_of_other_processes_is_reported_as_such(
    error: RuntimeError, about_others: bool
) -> None:
    assert parallel.is_about_others(error) is about_others


def test_a_stale_environment_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """One variable without the other is left over: nobody has started other processes."""
    for name, value in (("WORLD_SIZE", "4"), ("RANK", "3")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert parallel.launched() == (0, 1)
            assert parallel.is_first()
            assert parallel.launch_words() == ["python", "-m"]
            with parallel.processes(torch.device("cpu")) as ranks:
                assert (ranks.rank, ranks.count) == (0, 1)


@pytest.mark.parametrize(("rank", "count"), [("4", "4"), ("-1", "2"), ("0", "two"), ("0", "0")])
def test_invalid_ranks_are_named(monkeypatch: pytest.MonkeyPatch, rank: str, count: str) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", count)
    with pytest.raises(ValueError, match=rf"0 <= RANK < WORLD_SIZE.* got RANK='{rank}'"):
        parallel.launched()
