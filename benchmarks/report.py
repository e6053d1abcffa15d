"""What the benchmarks share: their options, and what is written beside their numbers."""

import argparse
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from tutorial_lib import _files, hardware
from tutorial_lib.checkpoints import versions

RESULTS = Path(__file__).parent / "results"


def parser(
    doc: str | None, script: str, *, seeds: Sequence[int] | None = None
) -> argparse.ArgumentParser:
    """Options that every benchmark has: ``--quick``, ``--seed`` or ``--seeds``, ``--json``.

    Args:
        doc: the script's docstring; its first line describes it.
        script: ``__file__`` of the script, for the name of its results.
        seeds: the seeds that a benchmark with several runs of the same kind takes by default; its
            option is ``--seeds``, and ``options.seed`` is a list.
    """
    found = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    found.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    if seeds is None:
        found.add_argument("--seed", type=int, default=0, help="of weights, data and noise")
    else:
        about = "of weights, data and noise, one for each run"
        found.add_argument(
            "--seeds", type=int, nargs="+", default=list(seeds), dest="seed", help=about
        )
    usual = f"{RESULTS / Path(script).stem}.json on a CPU, with --quick none"
    found.add_argument("--json", type=Path, help=f"file for the numbers (default {usual})")
    return found


def about(
    options: argparse.Namespace, script: str, *packages: str, device: str = "auto"
) -> dict[str, Any]:
    """Machine, versions, seed and command, without which a number means nothing.

    Args:
        packages: what else the numbers depend on; their versions are stated too.
        device: where the numbers are measured.
    """
    where = hardware.pick_device(device)
    cpu = torch.device("cpu")
    about_gpu = {"cuda": str(torch.version.cuda)} if where.type == "cuda" else {}
    return {
        "benchmark": Path(script).stem,
        "command": shlex.join(["python", f"benchmarks/{Path(script).name}", *sys.argv[1:]]),
        "seed": options.seed,
        "quick": options.quick,
        "device": hardware.describe_device(where),
        "precision": hardware.pick_precision("auto", where).name,
        "cpu": hardware.describe_device(cpu),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": versions() | {name: _version(name) for name in packages} | about_gpu,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of the same keys as a Markdown table, numbers with four digits."""
    keys = list(rows[0])
    texts = [keys, *([_text(row[key]) for key in keys] for row in rows)]
    widths = [max(len(line[i]) for line in texts) for i in range(len(keys))]
    lines = [" | ".join(t.ljust(w) for t, w in zip(line, widths, strict=True)) for line in texts]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in lines)


def place(options: argparse.Namespace, result: dict[str, Any], *words: str) -> Path | None:
    """Where the numbers go: ``options.json``, else this benchmark's file in the results folder.

    Each kind of device has a file of its own there: ``growth.json``, ``growth-cuda.json``. Numbers
    of the tiny sizes of ``--quick`` are not worth keeping there.

    Args:
        result: begun by ``about``.
        words: added to the file's name, where a benchmark has several results.
    """
    if options.json is not None or options.quick:
        return options.json
    device = result["device"].partition(" ")[0]
    parts = [result["benchmark"], *words, *([] if device == "cpu" else [device])]
    return RESULTS / f"{'-'.join(parts)}.json"


def write(options: argparse.Namespace, result: dict[str, Any], *words: str) -> None:
    """Writes the numbers to their place if they have one, as a whole file or not at all."""
    path = place(options, result, *words)
    if path is None:
        print("not written: --quick without --json")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    _files.write_whole(path, json.dumps(result, indent=2).encode() + b"\n")
    print(f"written: {path}")


def synchronize(device: torch.device) -> None:
    """Waits until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that ``work`` takes, until the device has finished it."""
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
