"""Do the time for an image, and the memory, stay the same as data and samples grow?

    python benchmarks/growth.py

Training: seconds per image of ``train`` with 1,000 to 60,000 training images and a small network;
the memory grows by the images themselves, 28 x 28 numbers of four bytes each.
Sampling: seconds per image and peak memory of ``write_shards`` for 100 to 50,000 samples, in two
steps of a small network. Each row is measured in a process of its own, whose memory is its own;
the rows take turns, and the median of the rounds counts.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import report
import torch

from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.datasets import Dataset
from tutorial_lib.sampling import Recipe, write_shards
from tutorial_lib.training import RunFolder, TrainConfig, train

BATCH = 100


def training(images: int, steps: int, seed: int) -> dict[str, float]:
    """Seconds per image after the warm-up, and the peak memory, which includes the images."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(images, 1, 28, 28, generator=generator)
    pixels.mul_(2).sub_(1)  # in place: a copy would set the peak
    data = Dataset(pixels, torch.zeros(images, dtype=torch.int64), ("any",))
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            seed=seed,
            steps=2 * steps,  # the first half warms up
            log_every=steps,
            widths=(8, 8),
            batch_size=BATCH,
            device="cpu",
            progress=False,
            out=Path(folder) / "run",
        )
        run = train(config, data=data)
        lines = RunFolder(run.path).read_metrics()
    seconds = lines[-1]["seconds"] - lines[0]["seconds"]
    return {"seconds_per_image": seconds / (steps * BATCH), "peak_MiB": _peak()}


def sampling(count: int, checkpoint: str, seed: int) -> dict[str, float]:
    """Seconds per sample, and the peak memory."""
    loaded = load_checkpoint(checkpoint)
    recipe = Recipe(steps=2, batch=BATCH, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        write_shards(loaded, recipe, Path(folder) / "warm", BATCH, shard=10 * BATCH)
        done = write_shards(loaded, recipe, Path(folder) / "real", count, shard=10 * BATCH)
    return {"seconds_per_image": done.seconds / done.drawn, "peak_MiB": _peak()}


def _peak() -> float:
    """The most memory that this process has held, in MiB."""
    if sys.platform == "linux":  # getrusage would include the parent process
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


def small_checkpoint(folder: Path, seed: int) -> Path:
    """A small network for digits, trained for one step."""
    data = Dataset(torch.zeros(8, 1, 28, 28), torch.zeros(8, dtype=torch.int64), ("any",))
    config = TrainConfig(
        seed=seed,
        steps=1,
        widths=(8, 8),
        batch_size=8,
        device="cpu",
        progress=False,
        out=folder / "run",
    )
    return train(config, data=data).path


def apart(work: str, count: int, *more: str) -> dict[str, float]:
    """``training`` or ``sampling`` in a process of its own."""
    words = [sys.executable, __file__, "--one", work, str(count), *more]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{work} of {count} failed: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def one(words: list[str]) -> None:
    work, count, *more = words
    if work == "training":
        print(json.dumps(training(int(count), int(more[0]), int(more[1]))))
    else:
        print(json.dumps(sampling(int(count), more[0], int(more[1]))))


def main() -> None:
    parser = report.parser(__doc__, __file__)
    parser.add_argument("--training", type=int, nargs="+", default=[1000, 10_000, 60_000])
    parser.add_argument("--sampling", type=int, nargs="+", default=[100, 1000, 10_000, 50_000])
    parser.add_argument("--steps", type=int, default=250, help="training steps that are timed")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each row")
    options = parser.parse_args()
    if options.quick:
        options.training, options.sampling = [100], [100, 200]
        options.steps, options.rounds = 2, 1
    result = report.about(options, __file__, device="cpu") | {"batch": BATCH}
    found: dict[tuple[str, int], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = str(small_checkpoint(Path(folder), options.seed))
        for done in range(1, options.rounds + 1):
            for count in options.training:
                row = apart("training", count, str(options.steps), str(options.seed))
                found.setdefault(("training", count), []).append(row)
            for count in options.sampling:
                row = apart("sampling", count, checkpoint, str(options.seed))
                found.setdefault(("sampling", count), []).append(row)
            rows = rows_of(found, options)
            raw = [{"work": w, "images": n, "runs": runs} for (w, n), runs in found.items()]
            report.write(options, {**result, "rounds": done, "rows": rows, "runs": raw})
    print(report.table(rows_of(found, options)))


def rows_of(
    found: dict[tuple[str, int], list[dict[str, float]]], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """The medians of the rounds so far, each compared with that of the fewest images."""
    rows: list[dict[str, Any]] = []
    for (work, count), runs in found.items():
        first = found[work, getattr(options, work)[0]]
        time, memory = (
            [[run[key] for run in group] for group in (runs, first)]
            for key in ("seconds_per_image", "peak_MiB")
        )
        rows.append(
            {
                "work": work,
                "images": count,
                "microseconds an image": 1e6 * statistics.median(time[0]),
                "against the first": statistics.median(time[0]) / statistics.median(time[1]),
                "peak MiB": statistics.median(memory[0]),
                "MiB more than the first": statistics.median(memory[0])
                - statistics.median(memory[1]),
            }
        )
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2:])
    else:
        main()
