"""Attacks on runs, files and grades, for minutes; prints what was tried and what went wrong.

    make siege          # or: python tools/siege.py --kills 40 --flips 400 --notebooks 12

- Kills: a training run is killed by SIGKILL at a random moment and resumed; the folder must end as
  that of a run that was never stopped, file by file.
- Flips: one random bit of a file is flipped; the file must be refused, or hold what it held.
- Full disks: a run fills a small disk; what it leaves must resume to the run with a large one.
- Notebooks: a wrong answer, with an attempt to have it pass; it must not.

The table goes to benchmarks/results/siege.json, with seed and machine. Small disks need Linux and
root: elsewhere they are not tried, and the table says so.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import torch

ROOT = Path(__file__).resolve().parents[1]
FORKS = ROOT / "tests" / "training" / "forks.py"
RESULT = ROOT / "benchmarks" / "results" / "siege.json"
sys.path[:0] = [str(ROOT), str(FORKS.parent), str(ROOT / "benchmarks")]

import report  # noqa: E402
import training_cases  # noqa: E402

from tutorial_lib import datasets, sampling  # noqa: E402
from tutorial_lib._validate import UserError  # noqa: E402
from tutorial_lib.checkpoints import SHIPPED, load_checkpoint  # noqa: E402
from tutorial_lib.cli.progress import progress  # noqa: E402
from tutorial_lib.training import resume, train  # noqa: E402
from tutorial_lib.training.state import newest_state  # noqa: E402

KILLS_EACH = 20
CELL_SECONDS = 20
DISKS = range(48, 320, 16)
"""Sizes of the small disks (KiB)."""


def kills(count: int, seed: int, folder: Path) -> dict[str, Any]:
    tried = wrong = 0
    while tried < count:
        words = [str(KILLS_EACH), str(seed + tried)]
        done = subprocess.run(
            [sys.executable, FORKS, "random", folder / f"kills-{tried}", *words],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        same = json.loads(done.stdout)["same"]
        tried, wrong = tried + len(same), wrong + same.count(False)
    return {"attack": "SIGKILL at a random moment, then resumed", "tried": tried, "wrong": wrong}


def flips(count: int, seed: int, folder: Path) -> list[dict[str, Any]]:
    numbers = random.Random(seed)
    rows = []
    targets = list(_targets(folder))
    for name, path, read in targets:
        whole, content = read(), path.read_bytes()
        row = {"attack": f"a bit flipped in {name}", "tried": count // len(targets), "wrong": 0}
        for _ in range(row["tried"]):
            place = numbers.randrange(len(content))
            flipped = bytearray(content)
            flipped[place] ^= 1 << numbers.randrange(8)
            path.write_bytes(flipped)
            with contextlib.suppress(UserError):
                row["wrong"] += read() != whole
        path.write_bytes(content)
        rows.append(row)
    return rows


def _targets(folder: Path) -> Iterator[tuple[str, Path, Callable[[], Any]]]:
    """Files to damage, each with what reads it back in a form that can be compared."""
    for name in ("mnist.json", "mnist.safetensors"):
        shutil.copy(SHIPPED / name, folder)

    def checkpoint() -> Any:
        found = load_checkpoint(folder / "mnist.safetensors")
        weights = [value.numpy().tobytes() for value in found.network.state_dict().values()]
        return repr(found.card), weights, found.class_names, found.schedule.alpha_bar.tolist()

    yield "a card", folder / "mnist.json", checkpoint
    yield "weights", folder / "mnist.safetensors", checkpoint

    run = folder / "run"
    train(_config(run, steps=3), data=_discs(), model=_net())
    [newest] = (run / "state").glob("step-00000003.safetensors")

    def state() -> Any:
        found = newest_state(run)
        return found and (repr(found.facts), {n: t.tolist() for n, t in found.tensors.items()})

    yield "a state", newest, state

    shards = folder / "shards"
    recipe = sampling.Recipe(steps=2, batch=8)
    sampling.write_shards(load_checkpoint("mnist"), recipe, shards, 16, progress=False)

    def images() -> Any:
        found = [(s.images.tolist(), str(s.labels)) for s in sampling.read_shards(shards)]
        return found, (shards / "samples.json").exists()

    yield "a shard", next(shards.glob("*.safetensors")), images


def full_disks(folder: Path) -> dict[str, Any]:
    row = {"attack": "a full disk, then resumed on a large one", "tried": 0, "wrong": 0}
    if sys.platform != "linux" or os.geteuid():
        return row
    settings = {"steps": 12, "checkpoint_every": 1, "sample_every": 3}
    train(_config(folder / "whole", **settings), data=_discs(), model=_net())
    whole = training_cases.left_behind(folder / "whole")
    for size in DISKS:
        disk, out = folder / f"disk-{size}", folder / f"run-{size}"
        disk.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk)]
        subprocess.run(words, check=True, capture_output=True)
        try:
            with contextlib.suppress(UserError):
                train(_config(disk / "run", **settings), data=_discs(), model=_net())
            if not (disk / "run" / "config.json").exists():
                continue  # it could not even begin
            shutil.copytree(disk / "run", out)
        finally:
            subprocess.run(["umount", str(disk)], check=True)
        row["tried"] += 1
        resume(out, data=_discs(), model=_net())
        row["wrong"] += training_cases.left_behind(out) != whole
    return row


def _config(out: Path, **settings: Any) -> Any:
    settings = {"batch_size": 8, "num_steps": 5, "log_every": 3, **settings}
    return training_cases.tiny(out, **settings)


def _discs() -> Any:
    return datasets.circles(40, size=8, seed=0)


def _net() -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return training_cases.Net()


def notebooks(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Every wrong answer with every trick, in turn, until there are ``count`` notebooks."""
    wishes: list[tuple[Path, str]] = []
    tricks = [(trick, wrong) for wrong in WRONG for trick in TRICKS]
    for number in range(count):
        trick, exercise = tricks[number % len(tricks)]
        lesson = exercise.partition(".")[0].removeprefix("lesson")
        path = folder / f"{lesson}_learner_{number:02d}.ipynb"
        code = [IMPORTS, TRICKS[trick], WRONG[exercise], AFTERWARDS.get(trick, "")]
        cells = [nbformat.v4.new_code_cell(source) for source in code]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
        wishes.append((path, exercise))
    honest = folder / "00_honest.ipynb"
    cells = [nbformat.v4.new_code_cell(source) for source in (IMPORTS, RIGHT)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), honest)
    grades = folder / "grades.json"
    with contextlib.redirect_stdout(io.StringIO()):
        progress(
            [honest, *(path for path, _ in wishes)],
            json=grades,
            seed=seed,
            cell_seconds=CELL_SECONDS,
        )
    found = {r["path"]: r["exercises"] for r in json.loads(grades.read_text())["notebooks"]}
    wrong = sum(
        entry["status"] == "passed"
        for path, exercise in wishes
        for entry in found[str(path)]
        if entry["id"] == exercise
    )
    missing = sum(str(path) not in found for path, _ in wishes)
    if not any(entry["status"] == "passed" for entry in found[str(honest)]):
        raise RuntimeError("the honest notebook among them did not pass")
    return {
        "attack": "a hostile notebook with a wrong answer",
        "tried": count,
        "wrong": wrong + missing,
    }


IMPORTS = """import json, os, sys
import numpy as np, torch
from tutorial_lib.checks import lesson00, lesson01, lesson02
from tutorial_lib.checks.framework import compare, exercise, questions, run, task"""

RIGHT = "lesson00.to_range.check(lambda pixels: (pixels.double() - 127.5) / 127.5)"

WRONG = {
    "lesson00.to_range": "lesson00.to_range.check(lambda pixels: pixels.float() / 255)",
    "lesson01.alpha_bar": "lesson01.alpha_bar.check(lambda beta: 1 - beta)",
    "lesson01.counting": "lesson01.counting.check(7)",
    "lesson02.jump": "lesson02.jump.check(lambda *_: torch.zeros(2, 1, 4, 4))",
}

TRICKS = {
    "a table of its own": "print('lesson00.to_range  passed\\n5 passed')",
    "a result that is always passed": """
def passed(self, answer):
    return self._result("passed", "passed", "of course")
for kind in (exercise.Exercise, questions.Number, questions.Choice):
    kind._judge = passed
task.Task.check = lambda self, answer: passed(self, answer)""",
    "comparisons that find nothing": """
compare.compare = compare._shape = compare._finite = compare._values = lambda *_: None
exercise.compare.compare = compare.compare
torch.isclose = torch.allclose = torch.equal = lambda *_, **__: torch.tensor(True)
np.isclose = np.allclose = lambda *_, **__: True""",
    "numbers that equal everything": """
class Always(float):
    __eq__ = lambda self, other: True
    __le__ = __lt__ = __ge__ = __gt__ = __eq__
    __hash__ = float.__hash__
abs = lambda x: Always(0)
import builtins
builtins.abs = abs""",
    "a log, as graders once read": """
line = {"exercise": "lesson00.to_range", "outcome": "passed", "stage": "passed", "message": ""}
for name, value in list(os.environ.items()):
    if name.startswith("TUTORIAL") and os.path.sep in value:
        open(value, "a").write(json.dumps(line) + "\\n")""",
    "tolerances without end": """
for one in (lesson00.to_range, lesson01.alpha_bar, lesson01.counting, lesson02.jump):
    for name in ("atol", "rtol"):
        object.__setattr__(one, name, float("inf"))
    object.__setattr__(one, "value", 7)""",
    "other expected values": """
for one in (lesson00.to_range, lesson01.alpha_bar, lesson02.jump):
    object.__setattr__(one, "reference", lambda *a: a[0])
    one.__dict__.pop("_expected", None)""",
    "a library on the disk": """
import tutorial_lib
path = compare.__file__
try:
    text = open(path).read().replace("if problem:", "if False:")
    open(path, "w").write(text)
except OSError as error:
    print(error)""",
    "modules in the way": """
for name in ("torch", "tutorial_lib", "numpy", "json"):
    open(name + ".py", "w").write("isclose = allclose = lambda *a, **k: True")""",
    "messages to the grader": """
import socket
port, _, password = os.environ.get("TUTORIAL_GRADER", "0::").partition(":")
words = {"password": password, "exercise": "lesson00.to_range", "outcome": "passed",
         "status": "passed", "answer": 1, "module": "", "source": ""}
content = json.dumps(words).encode()
try:
    with socket.create_connection(("127.0.0.1", int(port)), timeout=5) as connection:
        connection.sendall(len(content).to_bytes(8, "big") + content)
except (OSError, ValueError) as error:
    print(error)""",
    "grades written by a process that stays": """
import subprocess
code = "import time, glob\\nfor _ in range(600):\\n    time.sleep(0.05)\\n    "
code += "[open(p, 'w').write('forged') for p in glob.glob('**/grades.json', recursive=True)]"
subprocess.Popen([sys.executable, "-c", code], start_new_session=True)""",
    "a kernel that answers for its check": """
from IPython import get_ipython
shell = get_ipython()
shell.run_cell = lambda *a, **k: None""",
    "a sudden end": "",
    "an endless exit": """
import atexit
atexit.register(lambda: [None for _ in iter(int, 1)])""",
    "signals to its parent": """
import signal
try:
    os.kill(os.getppid(), signal.SIGSTOP)
except OSError as error:
    print(error)""",
}

AFTERWARDS = {
    "a sudden end": "os._exit(0)",
    "a result that is always passed": "lesson00.to_range.check(lambda pixels: None)",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="runs to kill")
    parser.add_argument("--flips", type=int, default=2000, help="bits to flip")
    parser.add_argument("--notebooks", type=int, default=60, help="hostile notebooks to grade")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=RESULT, help="where the table goes")
    options = parser.parse_args()
    options.quick = False
    about = report.about(options, __file__, device="cpu")
    about["command"] = f"python tools/siege.py {' '.join(sys.argv[1:])}".strip()
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="siege-") as name:
        for part, attack in {
            "kills": lambda folder: [kills(options.kills, options.seed, folder)],
            "flips": lambda folder: flips(options.flips, options.seed, folder),
            "disks": lambda folder: [full_disks(folder)],
            "notebooks": lambda folder: [notebooks(options.notebooks, options.seed, folder)],
        }.items():
            folder, start = Path(name) / part, time.perf_counter()
            folder.mkdir()
            rows += attack(folder)
            print(f"{part}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    print(report.table(rows))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n", encoding="utf-8")
    return int(any(row["wrong"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
