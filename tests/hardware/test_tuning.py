"""Going fast: the same numbers by a faster way."""

import math
import os
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
from torch.utils._python_dispatch import TorchDispatchMode
from training_cases import CPU, Answer, Silent, tiny

from tutorial_lib import checkpoints
from tutorial_lib.datasets import Dataset
from tutorial_lib.hardware import Precision
from tutorial_lib.hardware import devices as hardware
from tutorial_lib.training import train


def test_data_stay_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 4000))
    assert hardware.fits(500, torch.device("cuda"))
    assert not hardware.fits(501, torch.device("cuda"))
    assert hardware.fits(10**15, CPU)


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
