"""How close is a training step to the machine's limits, and which limit holds it back?

    python benchmarks/roofline.py
    python benchmarks/roofline.py --batch 256        # on a GPU

Two limits are measured in the same run, in the precision that training uses: the rate of large
matrix products, and the bandwidth of memory. A step's arithmetic is counted operator by operator
(``torch.utils.flop_counter``), and so are the bytes that each operator reads and writes, as if
nothing stayed in a cache between two operators. Each gives a shortest possible time for a step;
the longer of the two binds. A share above 100 % of the memory limit means that caches or fused
operators saved some of the traffic that was counted.
"""

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import report
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from tutorial_lib import datasets, hardware
from tutorial_lib.training import TrainConfig, Trainer, new_network

VIEWS = ("view", "reshape", "expand", "permute", "transpose", "slice", "select", "split", "detach")
VIEWS += ("alias", "unsqueeze", "squeeze", "as_strided", "unbind", "chunk", "t.", "empty", "_to_")
"""How the names of operators that move no data begin; ``_to_copy`` is an exception."""


class Traffic(TorchDispatchMode):
    """Counts the bytes of the tensors that each operator reads and writes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.__name__
        if name.startswith("_to_copy") or not name.startswith(VIEWS):
            self.bytes += _bytes(tree_leaves((args, kwargs))) + _bytes(tree_leaves(out))
        return out


def _bytes(leaves: Iterable[Any]) -> int:
    """The bytes of the tensors among ``leaves``, each counted once."""
    tensors = {id(leaf): leaf for leaf in leaves if isinstance(leaf, Tensor)}
    return sum(t.numel() * t.element_size() for t in tensors.values())


def best_seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """The shortest of ``repeats`` runs, after one to warm up."""
    spent = []
    for _ in range(repeats + 1):
        report.synchronize(device)
        start = time.perf_counter()
        work()
        report.synchronize(device)
        spent.append(time.perf_counter() - start)
    return min(spent[1:])


def matrix_rate(device: torch.device, dtype: torch.dtype, sizes: list[int]) -> dict[str, float]:
    """Operations a second of square matrix products, by size; the largest is the limit."""
    rates = {}
    for size in sizes:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = torch.empty(size, size, device=device, dtype=dtype)
        seconds = best_seconds(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), device, 5)
        rates[str(size)] = 2 * size**3 / seconds
    return rates


def bandwidth(device: torch.device, mebibytes: int) -> float:
    """Bytes a second, read and written, of copying a tensor too large for any cache."""
    source = torch.ones(mebibytes * 2**18, device=device)
    target = torch.empty_like(source)
    seconds = best_seconds(lambda: target.copy_(source), device, 5)
    return 2 * source.numel() * source.element_size() / seconds


def training_step(options: Any, device: torch.device, precision: hardware.Precision) -> dict:
    """What a training step of TinyUNet costs: operations, bytes, seconds."""
    data = datasets.circles(max(2 * options.batch, 64), seed=options.seed)
    config = TrainConfig(
        seed=options.seed,
        batch_size=options.batch,
        widths=tuple(options.widths),
        compile=options.compile,
        progress=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        trainer = Trainer(config, new_network(config, data), data, device, precision)
    trainer.step()
    spent = []
    for _ in range(options.repeats):
        report.synchronize(device)
        start = time.perf_counter()
        for _ in range(options.steps):
            trainer.step()
        report.synchronize(device)
        spent.append((time.perf_counter() - start) / options.steps)
    # Counted last: the counters would slow the clock, and compiled code hides from them.
    trainer._forward = trainer._wrapped
    with FlopCounterMode(display=False) as flops:
        trainer.step()
    with Traffic() as traffic:
        trainer.step()
    return {
        "flops": flops.get_total_flops(),
        "bytes": traffic.bytes,
        "seconds": statistics.median(spent),
        "runs": spent,
    }


def main() -> None:
    parser = report.parser(__doc__, __file__)
    parser.add_argument("--batch", type=int, default=256, help="images in a step")
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64], help="of TinyUNet")
    parser.add_argument("--steps", type=int, default=5, help="steps in a measurement")
    parser.add_argument("--repeats", type=int, default=5, help="measurements")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--copy", type=int, default=512, help="of the copied tensor (MiB)")
    parser.add_argument("--compile", action="store_true", help="with torch.compile")
    options = parser.parse_args()
    if options.quick:
        options.batch, options.steps, options.repeats = 4, 1, 1
        options.sizes, options.copy = [64], 1
    result = report.about(options, __file__)
    device = hardware.pick_device()
    precision = hardware.pick_precision("auto", device)
    rates = matrix_rate(device, precision.dtype, options.sizes)
    rate, width = max(rates.values()), bandwidth(device, options.copy)
    step = training_step(options, device, precision)
    by_matrix, by_memory = step["flops"] / rate, step["bytes"] / width
    binds = "matrix rate" if by_matrix > by_memory else "memory bandwidth"
    rows = [
        {
            "limit": f"matrix rate, {precision.name}",
            "of the machine": f"{rate / 1e9:,.0f} Gflop/s",
            "of a step": f"{step['flops'] / 1e9:.2f} Gflop",
            "shortest time": f"{1e3 * by_matrix:.2f} ms",
            "share reached": f"{by_matrix / step['seconds']:.1%}",
        },
        {
            "limit": "memory bandwidth",
            "of the machine": f"{width / 1e9:,.1f} GB/s",
            "of a step": f"{step['bytes'] / 1e9:.2f} GB",
            "shortest time": f"{1e3 * by_memory:.2f} ms",
            "share reached": f"{by_memory / step['seconds']:.1%}",
        },
    ]
    print(report.table(rows))
    images = options.batch / step["seconds"]
    print(f"a step takes {1e3 * step['seconds']:.2f} ms, {images:,.0f} images/s; {binds} binds")
    limits = {"matrix_flops_per_second": rates, "bytes_per_second": width}
    shares = {"of_matrix_rate": by_matrix / step["seconds"]}
    shares["of_bandwidth"] = by_memory / step["seconds"]
    keys = ("batch", "widths", "steps", "repeats", "copy", "compile")
    sizes = {key: getattr(options, key) for key in keys}
    report.write(
        options,
        {**result, **sizes, "limits": limits, "step": step, "shares": shares, "binds": binds},
    )


if __name__ == "__main__":
    main()
