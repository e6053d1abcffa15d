"""Every benchmark runs, at tiny sizes, and writes the conditions beside its numbers."""

import importlib
import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

from tutorial_lib.datasets.scene_captions import VOCABULARY
from tutorial_lib.networks import Autoencoder, TextUNet
from tutorial_lib.networks.autoencoder import autoencoder_parameters
from tutorial_lib.networks.text_unet import text_unet_parameters

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
KNOWN = {
    "sampler_overhead": [2, 1],
    "time_to_quality": ["TinyUNet, train()", "TwoLevelUNet, plain loop", "diffusers, plain loop"],
    "sample_speed": ["pipeline", "pipeline, bf16", "ours, fp32", "ours"],
    "growth": ["training", "sampling", "sampling"],
    "quality": ["DDIM", "DDPM"],
    "few_steps": [
        "DDIM",
        "Euler, Karras",
        "Euler, EDM",
        "Heun",
        "Heun, EDM",
        "DPM-Solver++",
        "DPM-Solver++, Karras",
        "DPM-Solver++, EDM",
        "DDPM",
        "Euler ancestral, EDM",
    ],
    "flows": ["eps", "v, min-SNR", "velocity, min-SNR", "flow", "flow, logit-normal"],
    "student": ["teacher", "student"] * 3,
    "two_processes": [4],
    "contrastive": ["combinations seen", "combinations held out"],
    "word_settings": [
        "as shipped",
        "no cross-attention: the mean of the words",
        "words not read together: no text layers",
        "places not told where they are",
        "text encoder trained to the end",
        "layout not first",
    ],
    "words": ["autoencoder", "guidance 2, seen", "guidance 2, held out"],
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
BESIDE = ("benchmark", "command", "seed", "device", "precision", "cpu", "threads", "versions")


def run(script: str, out: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, FOLDER / f"{script}.py", "--quick", "--json", out]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=out.parent)
    left = set(os.listdir(out.parent)) - {out.name}
    assert not left, f"{script} leaves {left}"
    return done


@pytest.mark.long("each is a program that loads torch; some start others")
@pytest.mark.parametrize("script", KNOWN)
def test_a_benchmark_runs_and_states_its_conditions(script: str, tmp_path: Path):
    if script == "train_speed" and MISSING:
        pytest.skip(f"not installed: {', '.join(MISSING)}; pip install -e '.[benchmarks]'")
    done = run(script, tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert set(BESIDE) <= set(result)
    assert result["benchmark"] == script
    assert result["command"].startswith(f"python benchmarks/{script}.py --quick")
    assert [next(iter(named(row))) for row in result["rows"]] == KNOWN[script]
    leaves = tree_leaves(result["rows"])
    numbers = [leaf for leaf in leaves if isinstance(leaf, float)]
    assert numbers
    assert all(math.isfinite(number) for number in numbers)
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(table) >= len(result["rows"]) + 2


def named(row: dict) -> list:
    """The value that tells a row from the others."""
    keys = ("contender", "work", "sampler", "batch", "scale", "model")
    return [row[key] for key in keys if key in row]


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Loads a benchmark as a module."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def test_the_models_of_words_are_small_enough_to_ship(scripts: Callable[[str], Any]):
    network = TextUNet.checked(
        in_channels=4,
        vocabulary=len(VOCABULARY),
        length=VOCABULARY.length,
        widths=scripts("words").WIDTHS,
    )
    count = text_unet_parameters(network) + autoencoder_parameters(Autoencoder.checked())
    assert 4 * count < 4.95e6, "bytes; names and the schedule take some, too"


def test_quick_numbers_are_not_kept_in_the_results(scripts: Callable[[str], Any], tmp_path: Path):
    report = scripts("report")
    parser = report.parser("About.", "growth.py")
    about = {"benchmark": "growth", "device": "cpu (some, 2 cores)"}
    assert report.place(parser.parse_args([]), about) == FOLDER / "results" / "growth.json"
    quick = parser.parse_args(["--quick"])
    assert report.place(quick, about) is None
    report.write(quick, about)
    out = tmp_path / "folder" / "out.json"
    asked = parser.parse_args(["--quick", "--json", str(out)])
    report.write(asked, about)
    assert json.loads(out.read_text()) == about
    assert os.listdir(out.parent) == ["out.json"]


def test_devices_and_checkpoints_have_results_of_their_own(scripts: Callable[[str], Any]):
    report, quality = scripts("report"), scripts("quality")
    options = report.parser("About.", "quality.py").parse_args([])
    names = {
        report.place(
            options,
            {"benchmark": "quality", "device": device},
            *quality.file_words(checkpoint),
        ).name
        for device in ("cpu (some, 2 cores)", "cuda (some, 80 GiB)")
        for checkpoint in ("mnist", "runs/long", "runs/long.safetensors/", "short.safetensors")
    }
    stems = ("quality", "quality-long", "quality-short")
    assert names == {f"{stem}{device}.json" for stem in stems for device in ("", "-cuda")}


def test_rows_of_another_device_or_checkpoint_are_not_reused(
    scripts: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    quality, path = scripts("quality"), tmp_path / "quality.json"
    same = {"checkpoint": "a", "device": "cpu", "versions": {"torch": "1"}}
    assert quality.rows_there(None, same) == quality.rows_there(path, same) == []
    path.write_text(json.dumps({**same, "rows": [1, 2]}))
    assert quality.rows_there(path, same) == [1, 2]
    assert capsys.readouterr().out == ""
    for key, value in {"checkpoint": "b", "device": "cuda", "versions": {"torch": "2"}}.items():
        assert quality.rows_there(path, {**same, key: value}) == []
        assert f"is started afresh: its rows have another {key}\n" in capsys.readouterr().out


def test_the_rounds_before_an_interruption_are_kept(
    scripts: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    benchmark, rates = scripts("two_processes"), iter([10.0, 18.0, 10.0, 19.0, 11.0])

    def rate(*_: object) -> float:
        try:
            return next(rates)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(benchmark, "rate", rate)
    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["two_processes.py", "--rounds", "3", "--json", str(out)])
    with pytest.raises(KeyboardInterrupt):
        benchmark.main()
    result = json.loads(out.read_text())
    assert result["rounds"] == 1
    assert [row["ratio"] for row in result["rows"]] == [1.8, 1.9]


def test_training_speeds_are_compared_round_by_round(
    scripts: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Without the peers: contenders of known speed, the last round cut off."""
    benchmark = scripts("train_speed")
    rounds = [4.0, 2.0, 3.0]  # the first warms up

    class Contender:
        def __init__(self, name: str, *_: object) -> None:
            self.name, self.seconds = name, iter(rounds)

        def run(self, steps: int) -> float:
            slower = 1 if self.name.startswith("ours") else 2 if "bf16" in self.name else 3
            if (seconds := next(self.seconds, None)) is None:
                raise KeyboardInterrupt
            return slower * seconds

        def end(self) -> None: ...

    monkeypatch.setattr(scripts("workers"), "Worker", Contender)
    monkeypatch.setattr(benchmark, "PEERS", ())
    out = tmp_path / "out.json"
    words = ["--rounds", "3", "--steps", "10", "--batch", "16", "--json", str(out)]
    monkeypatch.setattr(sys, "argv", ["train_speed.py", *words])
    with pytest.raises(KeyboardInterrupt):
        benchmark.main()
    result = json.loads(out.read_text())
    assert result["rounds"] == 2
    assert [row["contender"] for row in result["rows"]] == KNOWN["train_speed"]
    assert [row["ours is faster by"] for row in result["rows"]] == 2 * [3.0, 2.0, 1.0]
    assert result["rows"][2]["images/s"] == 16 * 10 / 2.5


def test_the_peak_is_that_of_the_process_alone():
    """On Linux, getrusage also counts the memory of the parent process at the start."""
    code = f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import growth; print(growth._peak())"
    peaks, ballast = [], []
    for _ in range(2):
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        peaks.append(float(done.stdout))
        ballast = ballast or [b"1" * 2**29]  # 512 MiB, held when the second is started
    assert abs(peaks[1] - peaks[0]) < 50, peaks


def test_the_roofline_runs_and_says_what_binds(tmp_path: Path):
    done = run("roofline", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    limits, step = result["limits"], result["step"]
    assert step["flops"] > 0
    assert step["bytes"] > 0
    # How large the shares are depends on the machine and its load. That they are the shortest times
    # over the measured time does not.
    by_matrix = step["flops"] / max(limits["matrix_flops_per_second"].values())
    by_memory = step["bytes"] / limits["bytes_per_second"]
    assert result["shares"]["of_matrix_rate"] == pytest.approx(by_matrix / step["seconds"])
    assert result["shares"]["of_bandwidth"] == pytest.approx(by_memory / step["seconds"])
    assert result["binds"] == ("matrix rate" if by_matrix > by_memory else "memory bandwidth")


def test_traffic_counts_each_tensor_that_is_read_or_written(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    roofline = importlib.import_module("roofline")
    a, b = torch.ones(8, 4), torch.ones(4, 2)
    with roofline.Traffic() as traffic:
        product = a @ b
        product.view(16).unsqueeze(0)  # moves nothing
        product.to(torch.bfloat16)
    assert traffic.bytes == 4 * (32 + 8 + 16) + 16 * (4 + 2)


def test_a_contender_that_ends_is_quoted(scripts: Callable[[str], Any], tmp_path: Path):
    workers, script = scripts("workers"), tmp_path / "contender.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(FOLDER)!r})\n"
        "from workers import serve\n"
        "def ready():\n"
        "    print('set up')\n"
        "    if sys.argv[1] == 'never':\n"
        "        sys.exit('no such peer')\n"
        "    return lambda count: 1 / (3 - count)\n"
        "serve(ready)\n"
    )
    worker = workers.Worker("mine", str(script), ["ready"], tmp_path)
    assert [worker.run(1), worker.run(2)] == [0.5, 1.0]
    with pytest.raises(RuntimeError, match=r"(?s)mine ended: set up.*ZeroDivisionError"):
        worker.run(3)
    worker.end()
    with pytest.raises(RuntimeError, match=r"(?s)yours ended: set up.*no such peer"):
        workers.Worker("yours", str(script), ["never"], tmp_path)


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
