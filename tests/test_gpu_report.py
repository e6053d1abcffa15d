"""The report from a GPU: it runs on a CPU in a dry run, and no part takes another with it."""

import importlib
import json
import re
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
LONG = 3600.0  # seconds; a part of these tests is stopped by its own limit


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("gpu_report")


def ask(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, **about: object) -> dict:
    """What becomes of a part that is made for the test."""
    part = gpu.Part(**{"about": "a test", "seconds": 60, "says": str, **about})
    monkeypatch.setitem(gpu.PARTS, "made", part)
    return gpu.asked("made", time.monotonic() + LONG, dry=False)


def test_a_dry_run_answers_every_question_on_a_cpu(gpu, monkeypatch, tmp_path, capsys):
    words = ["gpu_report.py", "--dry-run", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    assert gpu.main() == 0, capsys.readouterr().out
    (written,) = tmp_path.glob("*.json")
    result = json.loads(written.read_text(encoding="utf-8"))
    assert {"device", "versions", "command", "parts"} <= set(result)
    assert list(result["parts"]) == list(gpu.PARTS)
    status = {name: found["status"] for name, found in result["parts"].items()}
    assert all(status[name] == "ok" for name, part in gpu.PARTS.items() if part.work)
    assert set(status.values()) == {"ok", "left out"}
    assert all(row["images/s"] > 0 for row in result["parts"]["precisions"]["result"])
    shown = written.with_suffix(".md").read_text(encoding="utf-8")
    assert all(part.about in shown for part in gpu.PARTS.values())
    assert shown.splitlines()[-1] in capsys.readouterr().out


def test_without_a_gpu_it_says_so(gpu, monkeypatch, capsys):
    monkeypatch.setattr(gpu.hardware, "pick_device", lambda: gpu.torch.device("cpu"))
    monkeypatch.setattr(sys, "argv", ["gpu_report.py"])
    assert gpu.main() == 2
    assert "no CUDA device is here; --dry-run" in capsys.readouterr().out


def test_a_part_brings_its_result(gpu, monkeypatch):
    code = "import json, sys; json.dump([1, 2], open(sys.argv[1], 'w'))"
    found = ask(gpu, monkeypatch, command=("-c", code, "{json}"), says=lambda rows: f"{rows[1]}")
    assert (found["status"], found["says"], found["result"]) == ("ok", "2", [1, 2])
    text = "print('.. [100%]'); print('3 passed, 1 skipped, 20 deselected in 4.20s')"
    found = ask(gpu, monkeypatch, command=("-c", text))
    assert found["says"] == "3 passed, 1 skipped, 20 deselected"


def test_a_part_that_fails_says_why(gpu, monkeypatch):
    found = ask(gpu, monkeypatch, command=("-c", "raise ValueError('no kernel image')"))
    assert found["status"] == "failed"
    assert "exit code 1" in found["why"]
    assert "no kernel image" in found["why"]
    assert "failed: RuntimeError: exit code 1" in gpu.table({"made": found})


def test_a_part_that_hangs_is_ended(gpu, monkeypatch):
    found = ask(gpu, monkeypatch, command=("-c", "import time; time.sleep(600)"), seconds=1)
    assert found["status"] == "out of time"
    assert found["why"] == "stopped after 1 s"


def test_what_is_not_installed_is_left_out(gpu, monkeypatch):
    found = ask(gpu, monkeypatch, command=("-c", "1 / 0"), needs=("json", "no_such_package"))
    assert found == {"status": "left out", "why": "not installed: no_such_package"}


def test_the_time_of_the_report_ends(gpu):
    found = gpu.asked("waits", time.monotonic() + 1, dry=True)
    assert found == {"status": "left out", "why": "the report's time is over"}


def test_its_words_for_other_programs_are_options_there(gpu):
    shared = (FOLDER / "report.py").read_text(encoding="utf-8")
    for part in gpu.PARTS.values():
        script = Path(part.command[0]) if part.command else None
        if script is None or script.suffix != ".py":
            continue
        text = script.read_text(encoding="utf-8") + shared
        for word in part.command:
            if re.match("--", word):
                assert f'"{word}"' in text, (script.name, word)
    assert all(Path(word).exists() for word in gpu.PARTS["tests"].command if word.startswith("/"))


def test_peers_are_compared_in_words(gpu):
    rows = [
        {"contender": "pipeline", "images/s": 3.5, "ours is faster by": 2.089},
        {"contender": "ours", "images/s": 7.3, "ours is faster by": 1},
    ]
    assert gpu.PARTS["sampling"].says({"rows": rows}) == "2.09 x pipeline"
    limits = {"binds": "memory bandwidth", "shares": {"of_bandwidth": 0.7, "of_matrix_rate": 0.2}}
    assert gpu.PARTS["roofline"].says(limits) == "70% of the memory bandwidth"
