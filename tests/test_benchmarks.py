"""Every benchmark runs, at tiny sizes, and writes what its numbers need beside them."""

import importlib
import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
KNOWN = {
    "sample_speed": ["pipeline", "pipeline, bf16", "ours, fp32", "ours"],
    "growth": ["training", "sampling", "sampling"],
    "quality": ["DDIM", "DDPM"],
    "two_processes": [1, 2],
    "train_speed": [
        "example, fp32",
        "example, bf16",
        "ours, its network",
        "Trainer, fp32",
        "Trainer, bf16",
        "ours, this network",
    ],
}
PEERS = ("accelerate", "denoising_diffusion_pytorch")
MISSING = [name for name in PEERS if importlib.util.find_spec(name) is None]
BESIDE = ("benchmark", "command", "seed", "device", "precision", "threads", "versions")


def run(script: str, out: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, FOLDER / f"{script}.py", "--quick", "--json", out]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=out.parent)
    left = set(os.listdir(out.parent)) - {out.name}
    assert not left, f"{script} leaves {left}"
    return done


@pytest.mark.parametrize("script", KNOWN)
def test_a_benchmark_runs_and_says_under_which_conditions(script: str, tmp_path: Path):
    if script == "train_speed" and MISSING:
        pytest.skip(f"not installed: {', '.join(MISSING)}; pip install -e '.[benchmarks]'")
    done = run(script, tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert set(BESIDE) <= set(result)
    assert result["benchmark"] == script
    assert result["command"].startswith(f"python benchmarks/{script}.py --quick")
    assert [next(iter(named(row))) for row in result["rows"]] == KNOWN[script]
    numbers = [x for row in result["rows"] for x in row.values() if isinstance(x, float)]
    assert numbers
    assert all(math.isfinite(number) for number in numbers)
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(table) >= len(result["rows"]) + 2


def named(row: dict) -> list:
    """The value that tells a row from the others."""
    return [row[key] for key in ("contender", "work", "sampler", "processes") if key in row]


def test_the_roofline_runs_and_says_what_binds(tmp_path: Path):
    done = run("roofline", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert result["binds"] in ("matrix rate", "memory bandwidth")
    assert 0 < result["shares"]["of_matrix_rate"] < 1
    assert result["step"]["flops"] > 0
    assert result["step"]["bytes"] > 0


def test_traffic_counts_each_tensor_that_is_read_or_written(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    roofline = importlib.import_module("roofline")
    a, b = torch.ones(8, 4), torch.ones(4, 2)
    with roofline.Traffic() as traffic:
        product = a @ b
        product.view(16).unsqueeze(0)  # moves nothing
        product.to(torch.bfloat16)
    assert traffic.bytes == 4 * (32 + 8 + 16) + 16 * (4 + 2)


def test_a_missing_peer_is_named(tmp_path: Path):
    """Also where the peers are installed: they are hidden from this process."""
    code = "import importlib.util as u, runpy, sys\nfound = u.find_spec\n"
    code += "u.find_spec = lambda name, *a: None if name == 'accelerate' else found(name, *a)\n"
    code += f"sys.path.insert(0, {str(FOLDER)!r})\n"
    code += f"runpy.run_path({str(FOLDER / 'train_speed.py')!r}, run_name='__main__')"
    words = [sys.executable, "-c", code, "--quick", "--json", str(tmp_path / "out.json")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: not installed: accelerate" in done.stderr
    assert "pip install -e '.[benchmarks]'" in done.stderr
    assert not (tmp_path / "out.json").exists()
