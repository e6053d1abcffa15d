"""The command line as a whole: help, mistakes in one line, bugs with their traceback."""

import gzip
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.cli.runs import QUICK, assert_one_line, everything_in
from tests.damage import edit_card
from tutorial_lib import _validate, checkpoints, hardware
from tutorial_lib.cli import program as cli
from tutorial_lib.training import config as train_config

pytestmark = [pytest.mark.plain_errors, pytest.mark.usefixtures("empty_folder")]


@pytest.mark.parametrize("command", ["train", "sample", "doctor", "progress"])
def test_help_explains_every_field(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    import dataclasses

    assert cli.main([command, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    config, _ = cli.COMMANDS[command]
    for field in dataclasses.fields(config):
        bodies = [
            Path(sys.modules[kind.__module__].__file__ or "")
            .read_text()
            .partition(f"class {kind.__name__}")[2]
            .partition("def __post_init__")[0]
            for kind in config.__mro__
            if dataclasses.is_dataclass(kind)
        ]
        body = "".join(bodies).partition(f"    {field.name}: ")[2]
        words = " ".join(body.partition('"""')[2].partition('"""')[0].split())
        assert words in text, f"{field.name} is not explained"
    assert "(default:" in text


def test_units_are_named() -> None:
    source = Path(train_config.__file__).read_text()
    for field, unit in {
        "size": "(pixels)",
        "steps": "(training steps)",
        "max_seconds": "(seconds)",
        "batch_size": "(images)",
        "num_steps": "(noise steps)",
        "widths": "(channels)",
        "checkpoint_every": "(training steps)",
    }.items():
        assert unit in source.partition(f"    {field}: ")[2].partition('"""\n')[0]


USAGE = {
    "": "expected a command, one of train, sample, doctor, progress",
    "sampel": "command must be one of train, .*; got 'sampel'; did you mean 'sample'",
    "sample --seed -1": "seed must be at least 0, got -1",
    f"sample --seed {2**63}": "seed must be below 2.63, got 9223372036854775808",
    f"train --seed {2**32}": "seed must be below 2.32, got 4294967296",
    "sample --stps 3": "not understood: --stps; did you mean --steps?",
    "sample --sampler dimm": "sampler must be one of ddim, ddpm, .* did you mean 'ddim'",
    "sample --count 0": "count must be at least 1, got 0",
    "sample --count many": "--count must be an int, got 'many'",
    "sample --guidance -1": "guidance must be finite and at least 0, got -1",
    "sample --guidance strong": "--guidance must be a number, got 'strong'",
    "sample --eta 2": r"eta must be in \[0, 1\], got 2",
    "sample --variance betas": "variance must be one of .* did you mean 'beta'",
    "sample --out grid.jpg": "out must end in .png, got grid.jpg",
    "sample --tensors x.pt": "tensors must end in .safetensors, got x.pt",
    "train --schedule cosin": "schedule .* got 'cosin'; did you mean 'cosine'",
    "train --steps 0": "steps must be at least 1, got 0",
    "train --steps None": "steps and max_seconds must not both be None",
    "train --lr nan": "lr must be .* got nan",
    "train --batch-size": "argument --batch-size: expected one argument",
    "train --device gpu": "device must be one of .* got 'gpu'",
    "doctor --seconds 0": "seconds must be in .* got 0",
    "train --num-steps 10000000000": "num_steps must be at most 16777216, got 10000000000",
    "train --widths": "argument --widths: expected at least one argument",
    f"train --steps {'9' * 400}": r"steps must be at most 9007199254740992, got about 10\^400",
    f"train --steps {'9' * 5000}": "--steps must be an int, got '9{60}' and 4940 more",
    f"train --lr {'9' * 400}": r"lr must be in \[0, 1e\+06\], got inf",
    f"sample --count {'9' * 400}": r"count must be at most 18446744073709551616, got about",
    "sample --count 3 --count=3": "--count must be given once, got it twice",
    f"sample --out {'long/' * 60}x.jpg": f"out must end in .png, got {'long/' * 60}x.jpg",
}


@pytest.mark.parametrize("words", USAGE)
def test_usage_errors_are_one_line_and_code_2(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words.split()) == 2
    assert_one_line(capsys, f"^error: {USAGE[words]}")
    assert not os.listdir()


FAILURES = {
    "sample nowhere": "no checkpoint at nowhere",
    "sample {run} --device cuda": "device 'cuda' is not there",
    "sample {run} --steps 21": "steps must be at most 20, the checkpoint's T; got 21",
    "sample {run} --label pink": "label must be one of red, .*; got 'pink'",
    "sample {run} --label 6": "label must be one of red, .*; got '6'",
    "sample {run} --guidance 2 --label none": "guidance must be 1, got 2: no class is asked for",
    "sample {run} --out missing/grid.png": "missing/grid.png: its folder does not exist",
    "sample {run} --out {run}/config.json/grid.png": "out .* .*grid.png: Not a directory",
    "sample {run} --tensors missing/x.safetensors": "tensors cannot be written: missing/x",
    "sample {cut}": "step-00000003.safetensors is truncated",
    "sample {flipped}": "step-00000003.safetensors is corrupt",
    "sample {cardless}": "step-00000003.json is missing",
    "sample {other}": "step-00000003.safetensors is for another architecture",
    "sample {pickled}": "step-00000003.safetensors is a pickle",
    "train --dataset mnits": "got 'mnits'; did you mean 'mnist'",
    "train --dataset folder:{empty}": "empty",
    "train --dataset folder:nowhere": "nowhere",
    "train --device cuda": "device 'cuda' is not there",
    "train --out {run} --size 8 --device cpu": "out must be a new or an empty folder, got .*run",
    "train --out {run}/config.json/x --size 8 --device cpu": "out cannot be written: .*config.json",
    "progress nowhere.ipynb": "nowhere.ipynb",
    "sample {run} --out {dots}.png": r"out cannot be written: .*png: File name too long",
    "sample {run} --shards {dots}": "shards cannot be written: .* File name too long",
    "sample {run} --out x.png --tensors x.png/y.safetensors": "tensors cannot be written: x.png/y",
    "sample {run} --tensors {run}/step-00000003.safetensors": "tensors must not replace the ch",
    "sample {run} --enlarge 100000": "enlarge must fit in memory, got 100000: the picture takes",
    "sample {run} --count 1000000000000000000": "count must fit on the disk, got 10000",
    "sample {run} --out x.png --count 1000000000000000000": "count gives a picture of",
    "sample {run} --shards s --batch 10000000 --count 3": "batch must be at most 1024, got 1000",
    "sample {run} --batch 1000000000000 --count 1000000000000 --out x.png": "must fit in memory",
    "train {small} --batch-size 1000000000000": "batch_size must fit in memory, got 1000000000000",
    "train {small} --batch-size 655360001": "batch_size must .*, got 655360001",
    "train {small} --blocks 1000000": "blocks must be at most 1024, got 1000000",
    "train {small} --widths 100000000": "widths must fit in memory, got tuple",
    "train {small} --patch 100000000": "patch must fit in memory, got 100000000: the network takes",
    "train --size 100000 --device cpu": "size must fit in memory, got 100000: a set of",
    "train {small} --out {dots} --resume": "out cannot be written: .*: File name too",
    "train --out /dev/null/x --size 8": "out cannot be written: /dev/null/x: /dev/null is not a",
    "train --root ~nosuchuser/x --dataset mnist": "root: no home folder is known for",
    "train --root {dots} --dataset mnist": "root cannot be written: .*: File name too long",
    "train --dataset folder:~nosuchuser/x": "data set name: no home folder is known for",
    "train --dataset folder:{dots}": "data set name must be folder:PATH with a folder that exists",
    "doctor --root ~nosuchuser --seconds 0.1": "root: no home folder is known for '~nosuchuser'",
}


@pytest.mark.parametrize("words", FAILURES)
def test_failures_are_one_line_code_1_and_leave_nothing_half_written(
    words: str, trained: Path, tmp_path_factory, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = FAILURES[words]
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    scratch = tmp_path_factory.mktemp("scratch")
    places = {"run": trained, "empty": scratch / "empty"}
    places["empty"].mkdir()
    for name in ("cut", "flipped", "cardless", "other", "pickled"):
        places[name] = shutil.copytree(trained, scratch / name)
        damage(name, places[name] / "step-00000003.safetensors")
    places["dots"] = Path("." * 300)  # a name that no disk takes
    words = words.replace("{small}", "--size 8 --device cpu")
    before = everything_in(trained), everything_in(scratch)
    capsys.readouterr()
    assert cli.main([word.format(**places) for word in words.split()]) == 1
    assert_one_line(capsys, expected)
    assert not os.listdir()
    assert (everything_in(trained), everything_in(scratch)) == before


def damage(how: str, weights: Path) -> None:
    content, card = weights.read_bytes(), weights.with_suffix(".json")
    if how == "cut":
        weights.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif how == "cardless":
        card.unlink()
    elif how == "other":
        edit_card(lambda said: said["network"]["config"].update(patch=4))(weights)
    else:
        weights.write_bytes(gzip.decompress(gzip.compress(b"\x80\x04N.")))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting a disk needs root")
def test_a_full_disk_is_named_and_keeps_what_was_there(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets us mount no small disk")
    try:
        (disk / "grid.png").write_bytes(b"the picture before")
        words = ["sample", str(trained), "--count", "64", "--steps", "2"]
        words += ["--out", str(disk / "grid.png"), "--tensors", str(disk / "x.safetensors")]
        capsys.readouterr()
        assert cli.main(words) == 1
        assert_one_line(capsys, "cannot write .*grid.png.*No space left on device")
        assert everything_in(disk) == {"grid.png": b"the picture before"}
        small = ["--size", "8", "--device", "cpu", "--widths", "32", "32", "--steps", "1"]
        assert cli.main(["train", *small, "--no-progress", "--out", str(disk / "run")]) == 1
        assert_one_line(capsys, "cannot write .*step-00000001.safetensors: No space left on device")
        assert everything_in(disk / "run").keys() == {"config.json", "metrics.jsonl"}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_only_the_command_line_asks_to_keep_freed_memory(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(hardware, "keep_freed_memory", lambda: asked.append(True))
    assert cli.main(["sample", "--help"]) == 0
    assert cli.main(["sample", "--seed", "-1"]) == 2
    assert not asked
    assert cli.main(["sample", str(trained), "--count", "1", "--steps", "1"]) == 0
    assert asked == [True]


@pytest.mark.parametrize("error", [ValueError, TypeError, OSError, RuntimeError, KeyError])
@pytest.mark.parametrize("command", ["train", "sample", "sample into shards"])
def test_a_bug_shows_its_traceback(
    trained: Path, monkeypatch: pytest.MonkeyPatch, command: str, error: type[Exception]
) -> None:
    """Only our own classes are mistakes of the user's; what torch raises is not."""

    def broken(*args: object, **options: object) -> torch.Tensor:
        raise error("planted")

    words = {
        "train": ["train", *QUICK, "--size", "8"],
        "sample": ["sample", str(trained), "--count", "2"],
        "sample into shards": ["sample", str(trained), "--count", "2", "--shards", "s"],
    }[command]
    monkeypatch.setattr(torch.nn.functional, "silu", broken)
    with pytest.raises(error, match="planted"):
        cli.main(words)


@pytest.mark.parametrize("error", [ValueError, TypeError])
def test_a_bug_in_reading_the_words_shows_its_traceback(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def broken(*args: object, **options: object) -> int:
        raise error("planted")

    monkeypatch.setattr(_validate, "seed", broken)
    with pytest.raises(error, match="planted"):
        cli.main(["sample"])


def test_debug_shows_where_an_error_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTORIAL_DEBUG", "1")
    with pytest.raises(checkpoints.CheckpointError, match="nowhere"):
        cli.main(["sample", "nowhere"])


def test_a_warning_is_one_line_too(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    words = ["train", *QUICK, "--size", "8", "--dataset", f"folder:{tmp_path}", "--out", "run"]
    done = subprocess.run(
        [sys.executable, "-m", "tutorial_lib", *words], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"warning: 1 of 2 images in .* are left out\n", done.stderr), done.stderr


def test_ctrl_c_while_the_program_loads_is_no_traceback() -> None:
    code = "import runpy, sys\nclass Stop:\n    def find_spec(self, name, *rest):\n"
    code += "        if name == 'torch':\n            raise KeyboardInterrupt\n"
    code += "sys.meta_path.insert(0, Stop())\n"
    code += "runpy.run_module('tutorial_lib', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "error: interrupted\n")


def test_as_a_program_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tutorial_lib", "sample", "nowhere"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: no checkpoint at nowhere")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
