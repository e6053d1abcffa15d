"""Runs in processes of their own, to be killed: a program that tests start, not a test itself.

    python tests/training/forks.py random FOLDER    kills runs at random moments, resumes each
                                                    (KILLS and SEED may follow)
    python tests/training/forks.py calls FOLDER     kills runs at every call that changes a file
    python tests/training/forks.py ranks FOLDER     the same run in one process and in two
    python tests/training/forks.py death FOLDER     kills one of two processes of a run
    python tests/training/forks.py begin FOLDER     two processes that begin from different things

The runs are forked off this process, which has loaded torch and never computed with it: a fork
takes milliseconds, where a new Python takes seconds. The results are printed as JSON.

Nothing waits forever: after ``PATIENCE`` seconds of waiting, the program ends, and all its
processes with it.
"""

import contextlib
import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
import torch._dynamo  # optimizers load it, which would take a second in every fork
import training_cases
from torch import Tensor, nn
from training_cases import Net

from tutorial_lib import _files, datasets, hardware
from tutorial_lib.datasets import Dataset
from tutorial_lib.hardware import parallel
from tutorial_lib.training import TrainConfig, train
from tutorial_lib.training import state as run_state
from tutorial_lib.training.trainer import Trainer, data_device

PATIENCE = 120.0
CHILDREN: list[int] = []
STEPS = 40
SETTINGS = {
    "batch_size": 8,
    "steps": STEPS,
    "num_steps": 5,
    "step_sampler": "importance",
    "conditional": True,
    "checkpoint_every": 4,
    "sample_every": 6,
    "log_every": 3,
    "precision": "fp32",
    "device": "cpu",
    "progress": False,
}


class Plain(nn.Module):
    """Without dropout and batch statistics, which depend on the share that a process sees."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 1)
        self.label = nn.Embedding(7, 8)

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.first(x_t)
        if labels is not None:
            h = h + self.label(labels)[:, :, None, None]
        return self.last(h.relu())


def run(out: Path, data: Dataset, network: type[nn.Module] = Net, **settings: Any) -> None:
    """Trains in ``out``, from the newest state there."""
    torch.manual_seed(0)
    config = TrainConfig(**{**SETTINGS, **settings, "out": out, "resume": True})
    train(config, data=data, model=network())


def fork(work: Callable[[], object], log: Path) -> int:
    """Does ``work`` in a process of its own; its number."""
    number = os.fork()
    if number:
        CHILDREN.append(number)
        return number
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with open(log, "a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def ended(number: int) -> int:
    """Waits for a process: its exit code, or minus the signal that killed it."""
    found: list[int] = []

    def is_over() -> bool:
        found[:] = os.waitpid(number, os.WNOHANG)
        return found[0] == number

    wait_until(is_over, f"the end of process {number}")
    CHILDREN.remove(number)
    return os.waitstatus_to_exitcode(found[1])


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Returns as soon as ``holds()``; after ``PATIENCE`` it gives up."""
    last = time.perf_counter() + PATIENCE
    while not holds():
        if time.perf_counter() > last:
            raise TimeoutError(f"waited {PATIENCE:.0f} s for {what}")
        time.sleep(0.002)


def wait_for_state(out: Path, step: int) -> None:
    """Returns when the run in ``out`` has saved its state at ``step`` or later."""

    def is_there() -> bool:  # the state of that very step may be gone again
        names = [path.stem for path in (out / "state").glob("step-*.safetensors")]
        return any(int(name.removeprefix("step-")) >= step for name in names)

    wait_until(is_there, f"a state of {out.name}")


def left_behind(out: Path) -> dict:
    """What two runs must agree in, bit for bit, and the names of all their files."""
    files = sorted(path.name for path in out.rglob("*"))
    pictures = {path.name: path.read_bytes() for path in out.glob("samples/*.png")}
    return {**training_cases.left_behind(out), "files": files, "pictures": pictures}


def kill_at_random(folder: Path, data: Dataset, kills: int = 20, seed: int = 0) -> dict:
    """Kills ``kills`` runs, each at a random moment of its life; resumes each to its end."""
    log = folder / "log"
    assert ended(fork(lambda: run(folder / "whole", data), log)) == 0
    whole = left_behind(folder / "whole")
    start = time.perf_counter()
    assert ended(fork(lambda: run(folder / "timed", data), log)) == 0
    life = time.perf_counter() - start
    moments, same, killed = random.Random(seed), [], 0
    for number in range(10 * kills):
        if killed == kills:
            break
        out = folder / f"run-{number}"
        child = fork(lambda out=out: run(out, data), log)
        time.sleep(moments.random() * life)
        os.kill(child, signal.SIGKILL)
        if ended(child) != -signal.SIGKILL:  # it was over before
            continue
        killed += 1
        assert ended(fork(lambda out=out: run(out, data), log)) == 0, log.read_text()
        same.append(left_behind(out) == whole)
    return {"killed": killed, "same": same}


def kill_at_calls(folder: Path, data: Dataset) -> dict:
    """Kills runs of few steps at the first, the second, ... call that changes a file."""
    log = folder / "log"
    settings: dict[str, Any] = {"steps": 20, "checkpoint_every": 5, "log_every": 10, "keep": 2}
    settings["sample_every"] = 5
    assert ended(fork(lambda: run(folder / "whole", data, **settings), log)) == 0
    whole, same, torn = left_behind(folder / "whole"), [], 0
    for call in range(1, 200):
        out = folder / f"run-{call}"
        code = ended(fork(lambda out=out, call=call: _dying(out, data, call, settings), log))
        if code == 0:
            return {"calls": call - 1, "same": same, "torn": torn}
        assert code == -signal.SIGKILL, log.read_text()
        torn += any(out.rglob("*.tmp"))
        assert ended(fork(lambda out=out: run(out, data, **settings), log)) == 0, log.read_text()
        same.append(left_behind(out) == whole)
    raise AssertionError("the run never ended")


def _dying(out: Path, data: Dataset, call: int, settings: dict) -> None:
    """A run that is killed at its ``call``-th change of a file; writes are killed half-way."""
    left = iter(range(call - 1))

    def alive() -> bool:
        return next(left, None) is not None

    def write(file: BinaryIO, content: bytes) -> None:
        if not alive():
            file.write(content[: len(content) // 2])
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        real_write(file, content)

    def dies(real: Callable) -> Callable:
        def call_or_die(*args, **kwargs):
            if not alive():
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call_or_die

    real_write = _files._write_synced
    _files._write_synced = write  # type: ignore[assignment]
    os.replace = dies(os.replace)
    os.unlink = dies(os.unlink)
    os.mkdir = dies(os.mkdir)
    run(out, data, **settings)


def as_rank(rank: int, count: int, port: int, work: Callable[[], object]) -> None:
    """Does ``work`` as torchrun would have it done by one of ``count`` processes."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    work()


def together(work: Callable[[int], object], log: Path, count: int = 2) -> list[int]:
    """Does ``work(rank)`` in ``count`` processes that know of each other; their numbers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return [
        fork(lambda rank=rank: as_rank(rank, count, port, lambda: work(rank)), log)
        for rank in range(count)
    ]


def compare_ranks(folder: Path, data: Dataset) -> dict:
    """The same runs in one process and in two; also stopped after a while and resumed."""
    log, found = folder / "log", {}
    for name, settings in {
        "muon": {},
        "adamw, parts": {"optimizer": "adamw", "accumulate": 2},
        "fp16, uniform": {"precision": "fp16", "step_sampler": "uniform"},
    }.items():
        one, two = folder / f"{name} 1", folder / f"{name} 2"
        alone = fork(lambda out=one, s=settings: run(out, data, Plain, **s), log)
        assert ended(alone) == 0, log.read_text()
        pair = together(lambda _, out=two, s=settings: run(out, data, Plain, **s), log)
        assert [ended(number) for number in pair] == [0, 0], log.read_text()
        found[name] = _difference(one, two)
    whole, parts = folder / "muon 2", folder / "parts"
    killed = together(lambda _: run(parts, data, Plain), log)
    wait_for_state(parts, 8)
    for number in killed:
        os.kill(number, signal.SIGTERM)
    codes = [ended(number) for number in killed]
    pair = together(lambda _: run(parts, data, Plain), log)
    ends = [ended(number) for number in pair]
    assert ends == [0, 0], (codes, ends, log.read_text())
    resumed = left_behind(parts)["tensors"] == left_behind(whole)["tensors"]
    return {"differences": found, "stopped": codes, "resumed": resumed, "log": log.read_text()}


def _difference(one: Path, two: Path) -> dict:
    """The largest absolute differences between two runs' weights and losses."""
    states = [run_state.newest_state(out) for out in (one, two)]
    tensors = [state.tensors for state in states if state is not None]
    weights = [name for name in tensors[0] if name.startswith(("network.", "ema."))]
    apart = max(float((tensors[0][n] - tensors[1][n]).abs().max()) for n in weights)
    losses = float((tensors[0]["losses"] - tensors[1]["losses"]).abs().max())
    folders = [sorted(path.name for path in out.rglob("*")) for out in (one, two)]
    return {"weights": apart, "losses": losses, "same_files": folders[0] == folders[1]}


def kill_a_rank(folder: Path, data: Dataset) -> dict:
    """Kills each rank of a run in two processes; how the other ended and after how long."""
    found = []
    for victim in (0, 1):
        out, log = folder / f"run-{victim}", folder / f"log-{victim}"
        pair = together(lambda _, out=out: run(out, data, Plain, steps=10**6), log)
        wait_for_state(out, 8)
        os.kill(pair[victim], signal.SIGKILL)
        start = time.perf_counter()
        ended(pair[victim])
        code = ended(pair[1 - victim])
        seconds = time.perf_counter() - start
        found.append({"code": code, "seconds": seconds, "said": log.read_text()[-2000:]})
    return {"survivors": found}


def begin_apart(folder: Path, data: Dataset) -> dict:
    """What happens to two ranks that would diverge if each decided by itself."""
    found: dict[str, Any] = {}
    for name, work in {
        "weights": _begin_with_other_weights,
        "state": _begin_with_a_damaged_state,
        "failing": _let_the_first_fail,
        "data_device": _see_less_memory,
        "turns": _take_turns,
        "offline": _fail_to_download,
        "agreement": _ask_for_another_run,
    }.items():
        place = folder / name
        place.mkdir()
        if name == "state":  # in one process: two groups in a row would share a port, and mix
            before = fork(
                lambda: run(folder / "state" / "run", data, Plain, steps=11), place / "log"
            )
            assert ended(before) == 0, (place / "log").read_text()
        pair = together(lambda rank, work=work, place=place: work(rank, place, data), place / "log")
        codes = [ended(number) for number in pair]
        said = [path.read_text() for path in sorted(place.glob("said-*"))]
        found[name] = {"codes": codes, "said": said, "log": (place / "log").read_text()}
    return found


def _say(place: Path, rank: int, what: object) -> None:
    (place / f"said-{rank}").write_text(str(what))


def _begin_with_other_weights(rank: int, place: Path, data: Dataset) -> None:
    torch.manual_seed(rank)
    config = TrainConfig(**{**SETTINGS, "steps": 3, "out": place / "run"})
    trained = train(config, data=data, model=Plain())
    both = (trained.network, trained.ema_network)
    _say(place, rank, [p.tolist() for network in both for p in network.parameters()])


def _begin_with_a_damaged_state(rank: int, place: Path, data: Dataset) -> None:
    """Rank 0 cannot read the newest state of a run, rank 1 can."""
    if rank == 0:
        real = run_state.read_state

        def read(path: Path) -> run_state.State:
            if path.stem == "step-00000011":
                raise run_state.CheckpointError(f"{path} is damaged: says this disk")
            return real(path)

        run_state.read_state = read
    began = []
    real_step = Trainer.step

    def step(trainer: Trainer) -> Tensor:
        began.append(trainer.steps_done)
        return real_step(trainer)

    Trainer.step = step  # type: ignore[method-assign]
    run(place / "run", data, Plain, steps=14)
    _say(place, rank, began)


def _let_the_first_fail(rank: int, place: Path, data: Dataset) -> None:
    """Only rank 0 opens the folder, and finds it in use."""
    (place / "run").mkdir(exist_ok=True)
    (place / "run" / "thesis.txt").write_text("mine")
    run(place / "run", data, Plain)


def _see_less_memory(rank: int, place: Path, data: Dataset) -> None:
    """The images fit on the GPU of rank 0 alone."""
    hardware.fits = lambda size, device: rank == 0
    with parallel.processes(torch.device("cpu")) as ranks:
        _say(place, rank, data_device(1, torch.device("cuda"), ranks))


def _take_turns(rank: int, place: Path, data: Dataset) -> None:
    """Only rank 0 downloads."""
    datasets.is_here = lambda name, root=None: (place / "mnist").exists()
    loaded = []

    def load(name: str, **_: object) -> Dataset:
        if not datasets.is_here(name):
            assert rank == 0, "it downloads what another is downloading"
            time.sleep(0.3)
            (place / "mnist").write_text("here")
            loaded.append("downloaded")
        else:
            loaded.append("read")
        return data

    datasets.load = load
    config = TrainConfig(**{**SETTINGS, "dataset": "mnist", "steps": 2, "out": place / "run"})
    train(config, model=Plain())
    _say(place, rank, loaded)


def _fail_to_download(rank: int, place: Path, data: Dataset) -> None:
    """Rank 0 cannot download, and no rank waits for it."""

    def fail(name: str, **_: object) -> Dataset:
        raise FileNotFoundError("mnist: the download failed")

    datasets.load = fail
    datasets.is_here = lambda name, root=None: False
    config = TrainConfig(**{**SETTINGS, "dataset": "mnist", "steps": 2, "out": place / "run"})
    train(config, model=Plain())


def _ask_for_another_run(rank: int, place: Path, data: Dataset) -> None:
    shown = data if rank == 0 else Dataset(data.images, data.labels.flip(0), data.class_names)
    run(place / "run", shown, Plain, lr=0.1 * (rank + 1))


def end_all(*_: object) -> None:
    """Leaves no process behind when this one is told to end."""
    kill_children()
    os._exit(1)


def kill_children() -> None:
    for number in CHILDREN:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


def main() -> None:
    signal.signal(signal.SIGTERM, end_all)
    what, folder, numbers = sys.argv[1], Path(sys.argv[2]), map(int, sys.argv[3:])
    folder.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    os.fsync = lambda handle: None  # waits for the disk, which only a power cut would show
    data = datasets.circles(64, size=8, seed=0)
    programs: dict[str, Callable[..., dict]] = {
        "random": kill_at_random,
        "calls": kill_at_calls,
        "ranks": compare_ranks,
        "death": kill_a_rank,
        "begin": begin_apart,
    }
    try:
        print(json.dumps(programs[what](folder, data, *numbers)))
    finally:
        kill_children()


if __name__ == "__main__":
    main()
