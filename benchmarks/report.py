"""What the benchmarks share: their options, and what stands beside the numbers that they write."""

import argparse
import json
import os
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from tutorial_lib import hardware
from tutorial_lib.checkpoints import versions

RESULTS = Path(__file__).parent / "results"


def parser(doc: str | None, script: str) -> argparse.ArgumentParser:
    """Options that every benchmark has: ``--quick``, ``--seed``, ``--json``.

    Args:
        doc: the script's docstring; its first line describes it.
        script: ``__file__`` of the script, for the name of its results.
    """
    found = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    found.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all?")
    found.add_argument("--seed", type=int, default=0, help="of weights, data and noise")
    place = RESULTS / f"{Path(script).stem}.json"
    found.add_argument("--json", type=Path, default=place, help=f"the numbers (default {place})")
    return found


def about(options: argparse.Namespace, script: str, *packages: str) -> dict[str, Any]:
    """Machine, versions, seed and command: what a number means nothing without."""
    device = hardware.pick_device()
    return {
        "benchmark": Path(script).stem,
        "command": shlex.join(["python", f"benchmarks/{Path(script).name}", *sys.argv[1:]]),
        "seed": options.seed,
        "quick": options.quick,
        "device": hardware.describe_device(device),
        "precision": hardware.pick_precision("auto", device).name,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": versions() | {name: _version(name) for name in packages},
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of the same keys as a Markdown table, numbers with four digits."""
    keys = list(rows[0])
    texts = [keys, *([_text(row[key]) for key in keys] for row in rows)]
    widths = [max(len(line[i]) for line in texts) for i in range(len(keys))]
    lines = [" | ".join(t.ljust(w) for t, w in zip(line, widths, strict=True)) for line in texts]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in lines)


def write(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """Writes the numbers to ``options.json``."""
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written: {options.json}")


def synchronize(device: torch.device) -> None:
    """Waits until the device has done all that it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
