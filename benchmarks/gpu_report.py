"""What this machine's GPU does with the course, in one command, one JSON file and one table.

    make gpu-report                                  or: python benchmarks/gpu_report.py
    python benchmarks/gpu_report.py --only waits precisions
    python benchmarks/gpu_report.py --dry-run        tiny, on the CPU: does the report work at all?

Needs a CUDA device and this checkout, no network, and at most ``--minutes`` (8). Each part is a
process of its own with a time of its own; one that fails, hangs or lacks a package costs its own
row and no other. The results go to benchmarks/results/gpu/, named after the GPU.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works where the course is not installed, too

import report  # noqa: E402
import roofline  # noqa: E402
import time_to_quality  # noqa: E402
import torch  # noqa: E402

from tutorial_lib import datasets, hardware, training  # noqa: E402
from tutorial_lib.checkpoints import load_checkpoint  # noqa: E402
from tutorial_lib.metrics.digit_features import load_digit_classifier  # noqa: E402
from tutorial_lib.predictions import clip_x0  # noqa: E402
from tutorial_lib.samplers import ddim, evenly_spaced, last  # noqa: E402

FOLDER = report.RESULTS / "gpu"
BENCHMARKS = Path(__file__).resolve().parent
SUMMARY = re.compile(r"^(?:=+ )?((?:\d+ \w+,? ?)+) in [\d.]+", re.MULTILINE)
SEED = 0


@dataclass(frozen=True)
class Part:
    """One question of the report.

    Attributes:
        about: the question, as the table has it.
        seconds: after which it is stopped.
        says: its result in a few words.
        work: measures in a process of its own; its argument says whether it is a dry run.
        command: or another program, after ``python``; ``{json}`` stands for the file of its result.
        needs: packages without which it is left out.
    """

    about: str
    seconds: int
    says: Callable[[Any], str]
    work: Callable[[bool], Any] | None = None
    command: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """The packages it needs that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


def device() -> torch.device:
    """Where everything is measured."""
    return hardware.pick_device()


def precisions(dry: bool) -> list[dict[str, Any]]:
    """Training speed in each precision, plain and compiled; what fails says why."""
    options = SimpleNamespace(batch=256, widths=[32, 64], steps=20, repeats=3, seed=SEED)
    if dry:
        options = SimpleNamespace(batch=4, widths=[8, 8], steps=1, repeats=1, seed=SEED)
    rows = []
    for compiled in (False,) if dry else (False, True):
        options.compile = compiled
        for name in hardware.PRECISIONS:
            if name == "auto":
                continue
            row: dict[str, Any] = {"precision": name, "compiled": compiled}
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    chosen = hardware.pick_precision(name, device())
                    step = roofline.training_step(options, device(), chosen)
                row["images/s"] = options.batch / step["seconds"]
                row["warnings"] = sorted({str(warning.message) for warning in caught})
            except Exception as error:
                row["error"] = f"{type(error).__name__}: {error}"
            rows.append(row)
    return rows


def waits(dry: bool) -> dict[str, int | None]:
    """How often the host waits for the GPU in three training steps; None where none is there."""
    found: dict[str, int | None] = {}
    on_cuda = device().type == "cuda"
    data = datasets.circles(64, size=8 if dry else 32, seed=SEED)
    settings: list[dict[str, Any]] = [{}, {"step_sampler": "importance"}, {"accumulate": 4}]
    for more in settings:
        batch, widths = (8, (8, 8)) if dry else (32, (32, 64))
        config = training.TrainConfig(
            batch_size=batch, widths=widths, conditional=True, progress=False, **more
        )
        torch.manual_seed(SEED)
        network = training.new_network(config, data)
        chosen = hardware.pick_precision("bf16", device())
        trainer = training.Trainer(config, network, data, device(), chosen)
        for _ in range(1 if dry else 3):  # first calls load kernels, which waits
            trainer.step()
        with warnings.catch_warnings(record=True) as caught, synchronizations_warn(on_cuda):
            warnings.simplefilter("always")
            for _ in range(1 if dry else 3):
                trainer.step()
                trainer.update_lr()
        name = ", ".join(f"{key}={value}" for key, value in more.items()) or "as by default"
        waited = sum("synchroniz" in str(warning.message) for warning in caught)
        found[name] = waited if on_cuda else None
    return found


@contextlib.contextmanager
def synchronizations_warn(on_cuda: bool):
    """Has torch warn of each synchronization, on CUDA."""
    if not on_cuda:
        yield
        return
    torch.cuda.set_sync_debug_mode("warn")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def discs(dry: bool) -> list[dict[str, Any]]:
    """The share of samples that are discs, by seconds of training; see time_to_quality.py."""
    data = datasets.load("circles") if not dry else datasets.circles(64, seed=SEED)
    sampling = time_to_quality.QUICK_SAMPLING if dry else time_to_quality.SAMPLING
    rows = []
    for seconds in (0.1,) if dry else (5.0, 15.0):
        trained = time_to_quality.tiny(data, seconds, SEED)
        images = time_to_quality.sample(trained, **sampling).cpu()
        share = time_to_quality._judge(images)["discs"]
        rows.append({"seconds": seconds, "steps": trained[2]["steps"], "discs": share})
    return rows


def digits(dry: bool) -> list[dict[str, Any]]:
    """The share of drawn digits that the shipped judge reads as asked; of real ones in the end."""
    judge = load_digit_classifier()
    count, budgets, steps = (10, (0.1,), 2) if dry else (500, (10.0, 30.0), 50)
    rows = []
    for seconds in budgets:
        with tempfile.TemporaryDirectory() as folder:
            config = training.TrainConfig(
                dataset="glyphs",
                steps=None,
                max_seconds=seconds,
                conditional=True,
                seed=SEED,
                widths=(8, 8) if dry else (32, 64),
                out=Path(folder) / "run",
                progress=False,
            )
            run = training.train(config, data=datasets.glyphs(100, seed=SEED) if dry else None)
            checkpoint = load_checkpoint(run.checkpoint, device=device())
        labels = torch.arange(count) % 10
        noise = torch.randn(
            count, *checkpoint.image_shape, generator=torch.Generator().manual_seed(SEED)
        ).to(device())
        schedule = checkpoint.schedule
        model = clip_x0(checkpoint.conditioned(labels.to(device())), schedule)
        images = last(ddim(model, schedule, noise, evenly_spaced(schedule.num_steps, steps)))
        read = judge.probabilities(images.float().cpu()).argmax(1)
        share = float((read == labels).float().mean())
        rows.append({"seconds": seconds, "steps": len(run.losses), "read as asked": share})
    real = datasets.glyphs(count, seed=SEED + 1)
    read = judge.probabilities(real.images).argmax(1)
    rows.append({"real": float((read == real.labels).float().mean())})
    return rows


def _says_precisions(rows: list[dict[str, Any]]) -> str:
    return "; ".join(
        f"{row['precision']}{' compiled' * row['compiled']} "
        + (f"{row['images/s']:,.0f} images/s" if "images/s" in row else "failed")
        for row in rows
    )


def _says_waits(found: dict[str, int | None]) -> str:
    if None in found.values():
        return "not counted: no CUDA"
    return "; ".join(f"{name}: {count}" for name, count in found.items())


def _says_discs(rows: list[dict[str, Any]]) -> str:
    return "; ".join(f"{row['discs']:.0%} discs after {row['seconds']:g} s" for row in rows)


def _says_digits(rows: list[dict[str, Any]]) -> str:
    *trained, floor = rows
    found = [f"{row['read as asked']:.0%} after {row['seconds']:g} s" for row in trained]
    return f"{'; '.join(found)}; real ones {floor['real']:.0%}"


def _says_rows(result: dict[str, Any]) -> str:
    rows = [row for row in result["rows"] if row["ours is faster by"] != 1]
    return "; ".join(f"{row['ours is faster by']:.2f} x {row['contender']}" for row in rows)


def _says_roofline(result: dict[str, Any]) -> str:
    limit = "of_matrix_rate" if result["binds"] == "matrix rate" else "of_bandwidth"
    return f"{result['shares'][limit]:.0%} of the {result['binds']}"


TESTS = ("training/test_trainer.py", "training/test_batches.py", "hardware")
PARTS: dict[str, Part] = {
    "waits": Part("waits of the host in 3 steps (must be 0)", 60, _says_waits, waits),
    "precisions": Part("training speed of TinyUNet, batch 256", 120, _says_precisions, precisions),
    "roofline": Part(
        "share of the limit that binds a training step",
        60,
        _says_roofline,
        command=(f"{BENCHMARKS}/roofline.py", "--batch", "256", "--json", "{json}"),
    ),
    "tests": Part(
        "tests of training and hardware on CUDA",
        90,
        str,
        command=(
            *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "cuda or gpu or device"),
            *(f"{ROOT}/tests/{name}" for name in TESTS),
        ),
        needs=("pytest", "beartype", "hypothesis"),
    ),
    "discs": Part("time to quality: discs", 75, _says_discs, discs),
    "digits": Part("time to quality: digits read as asked", 90, _says_digits, digits),
    "sampling": Part(
        "sampling: ours is faster than diffusers by",
        90,
        _says_rows,
        command=(f"{BENCHMARKS}/sample_speed.py", "--rounds", "3", "--json", "{json}"),
        needs=("diffusers",),
    ),
    "training, diffusers": Part(
        "training: ours is faster than diffusers' example by",
        75,
        _says_rows,
        command=(
            *(f"{BENCHMARKS}/train_speed.py", "--networks", "UNet2DModel"),
            *("--rounds", "3", "--json", "{json}"),
        ),
        needs=("diffusers", "accelerate"),
    ),
    "training, ddp": Part(
        "training: ours is faster than denoising-diffusion-pytorch by",
        75,
        _says_rows,
        command=(
            *(f"{BENCHMARKS}/train_speed.py", "--networks", "Unet"),
            *("--rounds", "3", "--json", "{json}"),
        ),
        needs=("denoising_diffusion_pytorch",),
    ),
}
"""The questions, the most important ones first: a short time answers them."""


def asked(name: str, deadline: float, *, dry: bool) -> dict[str, Any]:
    """What became of one part: its status, seconds, and its result or why there is none."""
    part, begun = PARTS[name], time.monotonic()
    if missing := part.missing():
        return {"status": "left out", "why": f"not installed: {', '.join(missing)}"}
    if dry and part.work is None:
        return {"status": "left out", "why": "a dry run starts no other program"}
    left = deadline - begun
    if left < 5:
        return {"status": "left out", "why": "the report's time is over"}
    try:
        if dry:
            assert part.work is not None
            result = part.work(True)
        else:
            result = _apart(name, part, min(part.seconds, left))
        found = {"status": "ok", "says": part.says(result), "result": result}
    except subprocess.TimeoutExpired as error:
        found = {"status": "out of time", "why": f"stopped after {error.timeout:.0f} s"}
    except Exception as error:
        found = {"status": "failed", "why": f"{type(error).__name__}: {error}"}
    return {**found, "seconds": round(time.monotonic() - begun, 1)}


def _apart(name: str, part: Part, seconds: float) -> Any:
    """The result of a part that runs in a process of its own, which is ended with all it started.

    Raises:
        TimeoutExpired: it took longer than ``seconds``.
        RuntimeError: it failed; the message is the end of what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        words = part.command or (str(Path(__file__)), "--part", name, "--json", "{json}")
        process = subprocess.Popen(
            [sys.executable, *(word.replace("{json}", str(out)) for word in words)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{BENCHMARKS}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=seconds)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        if process.returncode != 0:
            raise RuntimeError(f"exit code {process.returncode}\n{said.strip()[-1500:]}")
        if "{json}" in words:
            return json.loads(out.read_text(encoding="utf-8"))
        summary = SUMMARY.findall(said)
        return summary[-1] if summary else said.strip()[-200:]


def table(parts: dict[str, dict[str, Any]]) -> str:
    """What became of the parts, as a Markdown table."""
    rows = []
    for name, found in parts.items():
        text = found.get("says") or f"{found['status']}: {found['why'].splitlines()[0]}"
        rows.append({"what": PARTS[name].about, "found": text, "s": found.get("seconds", 0.0)})
    return report.table(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes, also on a CPU")
    parser.add_argument("--minutes", type=float, default=8, help="the most it may take")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--out", type=Path, help=f"folder for the results (default {FOLDER})")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.seed, options.quick = SEED, options.dry_run
    if options.part:
        hardware.keep_freed_memory()
        work = PARTS[options.part].work
        assert work is not None
        options.json.write_text(json.dumps(work(False)), encoding="utf-8")
        return 0
    if device().type != "cuda" and not options.dry_run:
        print("error: no CUDA device is here; --dry-run tries the report on the CPU")
        return 2
    begun, found = time.monotonic(), {}
    result = report.about(options, __file__, "diffusers", "accelerate")
    slug = re.sub(r"[^a-z0-9]+", "-", result["device"].partition(",")[0].lower()).strip("-")
    folder = options.out or (None if options.dry_run else FOLDER)
    for name in options.only:
        print(f"{name} ...", flush=True)
        found[name] = asked(name, begun + 60 * options.minutes, dry=options.dry_run)
        if found[name]["status"] in ("failed", "out of time"):
            print(f"{name} {found[name]['status']}: {found[name]['why']}", flush=True)
        if folder is not None:  # after each part: what is known survives whatever comes
            folder.mkdir(parents=True, exist_ok=True)
            whole = {**result, "parts": found, "seconds": round(time.monotonic() - begun, 1)}
            (folder / f"{slug}.json").write_text(json.dumps(whole, indent=2) + "\n")
            head = f"# {result['device']}\n\n"
            versions = ", ".join(f"{key} {value}" for key, value in result["versions"].items())
            text = f"{head}`{result['command']}`; {versions}\n\n{table(found)}\n"
            (folder / f"{slug}.md").write_text(text, encoding="utf-8")
    print(table(found))
    if folder is not None:
        print(f"written: {folder / slug}.json and .md")
    return int(any(part["status"] in ("failed", "out of time") for part in found.values()))


if __name__ == "__main__":
    sys.exit(main())
