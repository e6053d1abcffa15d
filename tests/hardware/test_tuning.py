"""Going fast: the same numbers by a faster way."""

import ctypes
import math
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training_cases import CPU, Answer, Silent, tiny

from tutorial_lib import checkpoints, hardware
from tutorial_lib.datasets import Dataset
from tutorial_lib.hardware import Precision, tuning
from tutorial_lib.training import Trainer, train


def test_data_stay_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 4000))
    assert hardware.fits(500, torch.device("cuda"))
    assert not hardware.fits(501, torch.device("cuda"))
    assert hardware.fits(10**15, CPU)


def test_memory_format_is_the_fastest_for_the_network() -> None:
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


@pytest.fixture
def undecided(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that does not say how memory is kept."""
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.usefixtures("undecided")
def test_freed_memory_is_kept_on_request() -> None:
    words = [sys.executable, "-c", FAULTS]
    told = subprocess.run(words, capture_output=True, text=True, check=True)
    before, agreed, after = map(int, told.stdout.split())
    assert agreed == (platform.libc_ver()[0] == "glibc")
    if agreed:
        assert 10 * after <= before  # pages that had to be fetched from the system again


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "131072"),
        ("MALLOC_MMAP_THRESHOLD_", "131072"),
        ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072"),
    ],
)
def test_the_environment_decides_about_freed_memory(
    undecided: pytest.MonkeyPatch, name: str, value: str
) -> None:
    undecided.setenv(name, value)
    libraries: list[object] = []
    undecided.setattr(ctypes, "CDLL", libraries.append)
    assert hardware.keep_freed_memory() is False
    assert not libraries, "the C library is not even looked for"


UNTOUCHED = """
import ctypes, torch

asked = []

class Watched(ctypes.CDLL):
    def __getattr__(self, name):
        if name == "mallopt":
            asked.append(name)
        return super().__getattr__(name)

ctypes.CDLL = Watched
torch.set_num_threads(1)
from pathlib import Path
from tutorial_lib import checkpoints, datasets, hardware, sampling, training

found = checkpoints.load_checkpoint("mnist")
sampling.draw(found, sampling.Recipe(steps=2), range(2))
config = training.TrainConfig(steps=2, batch_size=4, progress=False, device="cpu", out=Path("run"))
training.train(config, data=datasets.circles(4, size=8))
before = len(asked)
agreed = hardware.keep_freed_memory()
print(before, len(asked), int(agreed))
"""


def test_no_library_call_changes_how_the_process_keeps_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither loading nor sampling nor training; the function that does so is seen to do it."""
    monkeypatch.chdir(tmp_path)
    words = [sys.executable, "-W", "error", "-c", UNTOUCHED]
    told = subprocess.run(words, capture_output=True, text=True, check=True)
    before, after, agreed = map(int, told.stdout.split())
    assert before == 0
    assert bool(after) == bool(agreed) == (platform.libc_ver()[0] == "glibc")


def test_a_network_of_small_groups_trains_in_contiguous_memory(
    tmp_path: Path, discs: Dataset
) -> None:
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


def test_an_answer_has_the_memory_layout_of_x_t() -> None:
    def turned(x_t: Tensor, t: Tensor) -> Tensor:
        return (2 * x_t).bfloat16().contiguous(memory_format=torch.channels_last)

    model = hardware.in_precision(turned, CPU, Precision("bf16", torch.bfloat16, "a test"))
    x_t, t = torch.randn(2, 3, 4, 4), torch.ones(2, dtype=torch.int64)
    for layout in (torch.contiguous_format, torch.channels_last):
        laid = x_t.contiguous(memory_format=layout)
        answer = model(laid, t)
        assert answer.dtype == torch.float32
        assert answer.stride() == laid.stride()
        assert torch.equal(answer, (2 * x_t).bfloat16().float())


def attended(
    tokens: int, name: str, query_tokens: int | None = None, **how: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention of few tokens in our way, torch's own, and a loop."""
    generator = torch.Generator().manual_seed(0)
    sizes = (query_tokens or tokens, tokens, tokens)
    q, k, v = (torch.randn(2, 3, size, 8, generator=generator) for size in sizes)
    with torch.autocast("cpu", hardware.DTYPES[name]):
        with tuning.FewTokenAttention():
            ours = F.scaled_dot_product_attention(q, key=k, value=v, **how)
        theirs = F.scaled_dot_product_attention(q, key=k, value=v, **how)
    rows = torch.zeros(q.shape, dtype=torch.float64)
    scale = how.get("scale") or 8**-0.5
    for sample, head, row in np.ndindex(q.shape[:3]):
        logits = scale * (k[sample, head].double() @ q[sample, head, row].double())
        if how.get("is_causal"):
            logits[row + 1 :] = -math.inf
        rows[sample, head, row] = logits.softmax(0) @ v[sample, head].double()
    return ours, theirs, rows


@pytest.fixture
def torchs_own(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often torch's own attention is reached, a 1 each time."""
    reached: list[int] = []
    own = F.scaled_dot_product_attention

    def counted(*args: Any, **kwargs: Any) -> Tensor:
        reached.append(1)
        return own(*args, **kwargs)

    # What ``FewTokenAttention`` falls back on; a network's call is looked up before it.
    monkeypatch.setattr(tuning, "_torch_attention", counted)
    return reached


@pytest.mark.parametrize("name", ["bf16", "fp16"])
@pytest.mark.parametrize(
    ("tokens", "query_tokens", "how"),
    [(1, None, {}), (16, None, {}), (128, None, {}), (16, 5, {}), (16, None, {"scale": 0.1})],
)
def test_attention_of_few_tokens_goes_its_own_way(
    torchs_own: list[int], tokens: int, query_tokens: int | None, how: dict[str, Any], name: str
) -> None:
    """The numbers agree with a loop; see test_workarounds.py for why not torch's own."""
    ours, theirs, exact = attended(tokens, name, query_tokens, **how)
    assert not torchs_own
    assert ours.dtype == theirs.dtype == hardware.DTYPES[name]
    close = {"bf16": 0.03, "fp16": 0.004}[name]
    assert (ours.double() - exact).abs().max() < close
    assert (theirs.double() - exact).abs().max() < close


class Attends(nn.Module):
    """A network for images that calls torch's attention."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        tokens = x_t.flatten(2)
        return self.weight * F.scaled_dot_product_attention(tokens, tokens, tokens).view_as(x_t)


@pytest.mark.parametrize(
    ("network", "name", "native", "replaces"),
    [
        (Attends, "bf16", True, True),
        (Answer, "bf16", True, False),
        (Attends, "bf16", False, False),
        (Attends, "fp16", True, False),
        (Attends, "fp32", True, False),
    ],
)
def test_attention_is_replaced_only_where_it_is_called_and_slow(
    discs: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    network: type[nn.Module],
    name: str,
    native: bool,
    replaces: bool,
) -> None:
    entered: list[int] = []
    enter = tuning.FewTokenAttention.__enter__

    def counted(mode: tuning.FewTokenAttention) -> Any:
        entered.append(1)
        return enter(mode)

    monkeypatch.setattr(tuning.FewTokenAttention, "__enter__", counted)
    monkeypatch.setattr(tuning, "native_bf16", lambda device: (native, "a test"))
    precision = hardware.pick_precision(name, CPU)
    trainer = Trainer(tiny(None, precision=name), network(), discs, CPU, precision)
    trainer.step()
    assert bool(entered) == replaces


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_attention_that_asks_for_more_digits_gets_them(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 16, 8, generator=generator).to(dtype)
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    with (
        torch.autocast("cpu", torch.bfloat16),
        tuning.FewTokenAttention(),
        torch.autocast("cpu", enabled=dtype == torch.float64),  # as the network's own code would
    ):
        found = F.scaled_dot_product_attention(q, k, v)
    assert found.dtype == dtype
    assert (found - exact).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("tokens", "how"),
    [(129, {}), (16, {"is_causal": True}), (16, {"attn_mask": torch.ones(16, 16).bool()})],
)
def test_other_attention_is_left_to_torch(
    torchs_own: list[int], tokens: int, how: dict[str, Any]
) -> None:
    ours, theirs, exact = attended(tokens, "bf16", **how)
    assert torchs_own == [1]
    assert torch.equal(ours, theirs)
    assert (ours.double() - exact).abs().max() < 0.03


@pytest.mark.long("the compiler is slow")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, while it loads itself
@pytest.mark.filterwarnings("ignore:Skipping serialization")  # of torch 2.6
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
@pytest.mark.filterwarnings("ignore:Skipping serialization")  # of torch 2.6
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
