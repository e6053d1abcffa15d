"""The command line: it does what it says, and says in one line what it cannot do."""

import gzip
import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from tutorial_lib import checkpoints, course, hardware
from tutorial_lib.cli import program as cli
from tutorial_lib.cli.words import parse
from tutorial_lib.training import TrainConfig
from tutorial_lib.training import config as train_config
from tutorial_lib.training import state as run_state

pytestmark = pytest.mark.plain_errors
QUICK = ["--widths", "8", "8", "--batch-size", "8", "--steps", "3", "--device", "cpu"]
QUICK += ["--no-progress"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: small discs, three steps, with classes."""
    out = tmp_path_factory.mktemp("trained") / "run"
    words = ["train", *QUICK, "--size", "8", "--conditional", "--num-steps", "20"]
    assert cli.main([*words, "--out", str(out)]) == 0
    return out


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUTORIAL_DEBUG", raising=False)


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def drawn(run: Path, *words: str) -> torch.Tensor:
    assert cli.main(["sample", str(run), *words, "--tensors", "x.safetensors"]) == 0
    return safetensors.torch.load_file("x.safetensors")["images"]


# --- train and sample -----------------------------------------------------------------------------


def test_train_says_how_it_went_and_leaves_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", *QUICK, "--size", "8", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"3 steps in [\d.]+ s, \d+ images/s", out)
    assert re.search(r"loss \d+\.\d+ \(mean of the last 3 steps\)", out)
    card = checkpoints.load_checkpoint("runs/circles-1").card
    assert f"checkpoint: {Path('runs/circles-1/step-00000003.safetensors')}" in out
    assert (card["steps"], card["seed"], card["dataset"]["image_shape"]) == (3, 3, [3, 8, 8])
    # the command on the card makes the same weights again
    words = card["command"].split()
    assert words[:4] == ["python", "-m", "tutorial_lib", "train"]
    assert cli.main([*words[3:], "--out", "again"]) == 0
    again = checkpoints.load_checkpoint("again").card
    assert again["weights"]["sha256"] == card["weights"]["sha256"]


def test_every_field_of_a_config_survives_the_command_line() -> None:
    config = TrainConfig(
        dataset="folder:my pictures",
        size=16,
        root=Path("some where"),
        steps=None,
        max_seconds=2.5,
        lr=1e-4,
        widths=(8, 16, 32),
        bottom_blocks=2,
        conditional=True,
        progress=False,
        out=Path("a b"),
        target="eps",
        weight="none",
    )
    shell = subprocess.run(
        ["sh", "-c", f'for word in {config.command()}; do echo "$word"; done'],
        capture_output=True,
        text=True,
        check=True,
    )
    assert parse(shell.stdout.splitlines()[3:], {"train": TrainConfig}) == ("train", config)


def test_resume_keeps_what_the_words_leave_out_and_takes_what_they_change(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--size", "8", "--seed", "3", "--decay", "constant", "--warmup", "0", "--keep", "2"]
    assert cli.main(["train", *QUICK, *words, "--out", "run"]) == 0
    assert cli.main(["train", "--out=run", "--resume", "--steps", "5", "--log-every", "1"]) == 0
    state = run_state.newest_state(Path("run"))
    assert state is not None
    now, card = state.facts["config"], checkpoints.load_checkpoint("run").card
    assert (card["steps"], now["steps"], now["log_every"]) == (5, 5, 1)
    assert (now["seed"], now["keep"], now["widths"], now["batch_size"]) == (3, 2, [8, 8], 8)
    # the next time these are what was asked for before
    assert cli.main(["train", "--resume", "--out", "run"]) == 0
    assert json.loads(Path("run/config.json").read_text())["steps"] == 5
    capsys.readouterr()
    for name, value in {"seed": "0", "batch-size": "32", "size": "16"}.items():
        assert cli.main(["train", "--out", "run", "--resume", f"--{name}", value]) == 1
        assert_one_line(capsys, f"{name.replace('-', '_')} must be .*, as in the run to resume")
    assert cli.main(["train", "--out", "run", "--resume", "--steps", "4"]) == 1
    assert_one_line(capsys, "steps must be at least 5, which the run has done; got 4")
    assert cli.main(["train", "--out", "run", "--resume", "--stepps", "9"]) == 2
    assert_one_line(capsys, "not understood: --stepps 9; did you mean --steps")
    Path("run/config.json").write_text("{")
    assert cli.main(["train", "--out", "run", "--resume"]) == 2
    assert_one_line(capsys, "config.json is damaged: ")


def test_of_several_folders_to_resume_the_last_counts(capsys: pytest.CaptureFixture[str]) -> None:
    for name, steps in {"a": "3", "b": "4"}.items():
        words = [*QUICK, "--size", "8", "--seed", steps, "--steps", steps]
        assert cli.main(["train", *words, "--out", name]) == 0
    for words in (["--out", "b", "--out=a"], ["--out=b", "--out", "a"], ["--out=b", "--out=a"]):
        assert cli.main(["train", "--resume", *words]) == 0
        assert json.loads(Path("a/config.json").read_text())["steps"] == 3
        assert f"checkpoint: {Path('a/step-00000003.safetensors')}" in capsys.readouterr().out


def test_sample_draws_a_grid_and_numbers(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = drawn(trained, "--count", "5", "--steps", "4", "--out", "grid.png")
    assert images.shape == (5, 3, 8, 8)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1
    with Image.open("grid.png") as file:
        picture = np.asarray(file)
    assert picture.ndim == 3
    corner = (images[0].permute(1, 2, 0).numpy() + 1) * 127.5
    np.testing.assert_allclose(picture[:8, :8], corner, atol=0.51)
    assert re.search(r"5 images in [\d.]+ s, [\d.]+ images/s", capsys.readouterr().out)
    assert sorted(os.listdir()) == ["grid.png", "x.safetensors"]


@pytest.mark.parametrize(("precision", "rounding"), [("fp32", 2e-5), ("bf16", 0.1)])
def test_same_seed_same_images(trained: Path, precision: str, rounding: float) -> None:
    words = ("--steps", "4", "--device", "cpu", "--precision", precision)
    whole = drawn(trained, *words, "--count", "8")
    assert torch.equal(drawn(trained, *words, "--count", "8"), whole)
    fewer = drawn(trained, *words, "--count", "3")
    torch.testing.assert_close(fewer, whole[:3], rtol=0, atol=rounding)
    parts = drawn(trained, *words, "--count", "8", "--batch", "3")
    torch.testing.assert_close(parts, whole, rtol=0, atol=rounding)
    other = drawn(trained, *words, "--count", "8", "--seed", "1")
    assert (other - whole).abs().max() > 0.5


@pytest.mark.parametrize(
    "words",
    [
        "--sampler ddpm",
        "--sampler ddpm --steps 7 --variance beta",
        "--eta 1",
        "--steps 20 --no-clip",
    ],
)
def test_every_walk_repeats_itself(trained: Path, words: str) -> None:
    first = drawn(trained, "--count", "4", *words.split())
    assert first.isfinite().all()
    assert torch.equal(drawn(trained, "--count", "4", *words.split()), first)


def test_walks_differ_and_labels_matter(trained: Path) -> None:
    choices = ["", "--sampler ddpm", "--eta 1", "--label red", "--label blue", "--no-clip"]
    images = [drawn(trained, "--count", "2", *words.split()) for words in choices]
    for i, one in enumerate(images):
        assert not any(torch.equal(one, other) for other in images[i + 1 :])
    assert torch.equal(drawn(trained, "--count", "2", "--label", "0"), images[3])


def test_the_grid_has_the_columns_asked_for(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    words = f"--count 6 --steps 2 --columns 6 --enlarge 2 --out {out}"
    assert cli.main(["sample", str(trained), *words.split()]) == 0
    side = drawn(trained, "--count", "1", "--steps", "2").shape[-1]
    with Image.open(out) as file:
        width, height = file.size
    assert height == 2 * side
    assert width > 6 * height  # six images and the gaps between them


def test_without_a_label_the_classes_take_turns(trained: Path) -> None:
    turns = drawn(trained, "--count", "8", "--batch", "4")
    for i, label in [(0, 0), (1, 1), (5, 5), (6, 0), (7, 1)]:  # six classes, also over batches
        same = drawn(trained, "--count", "8", "--batch", "4", "--label", str(label))[i]
        torch.testing.assert_close(turns[i], same, atol=0.1, rtol=0)
    chance = drawn(trained, "--count", "8", "--batch", "4", "--label", "none")
    assert not torch.equal(chance, turns)


def test_global_random_state_is_left_alone(trained: Path) -> None:
    before = torch.get_rng_state()
    drawn(trained, "--count", "2", "--sampler", "ddpm")
    assert torch.equal(torch.get_rng_state(), before)


def idx_file(path: Path, array: np.ndarray) -> None:
    """The format of the MNIST files: two zeros, type 8 (bytes), axes, lengths, numbers."""
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


@pytest.fixture(scope="session")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real MNIST where it is on this machine, else a small set of the same format."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "datasets"
    for place in (os.environ.get("TUTORIAL_DATA"), beside):
        if place and (Path(place) / "MNIST/raw/train-images-idx3-ubyte").is_file():
            return Path(place)
    root = tmp_path_factory.mktemp("data")
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    draws = np.random.default_rng(0)
    for part, count in (("train", 200), ("t10k", 50)):
        idx_file(raw / f"{part}-images-idx3-ubyte", draws.integers(0, 256, (count, 28, 28)))
        idx_file(raw / f"{part}-labels-idx1-ubyte", np.arange(count) % 10)
    return root


def test_from_files_to_digits(mnist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dataset", "mnist", "--root", str(mnist), "--conditional", "--out", "run"]
    assert cli.main(["train", *QUICK, *words, "--num-steps", "50", "--steps", "12"]) == 0
    images = drawn(Path("run"), "--count", "3", "--label", "7", "--out", "sevens.png")
    assert images.shape == (3, 1, 28, 28)
    with Image.open("sevens.png") as picture:
        assert picture.mode == "L"
    card = checkpoints.load_checkpoint("run").card
    assert len(card["dataset"]["class_names"]) == 10
    first, last = (
        json.loads(Path("run/metrics.jsonl").read_text().splitlines()[i]) for i in (0, -1)
    )
    assert math.isfinite(first["loss"])
    assert last["step"] == 12
    capsys.readouterr()


# --- doctor, help, progress -----------------------------------------------------------------------


def test_doctor_tells_what_there_is(
    mnist: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "SHIPPED", Path.cwd())
    before = torch.get_rng_state()
    assert cli.main(["doctor", "--root", str(mnist), "--seconds", "0.1"]) == 0
    assert torch.equal(torch.get_rng_state(), before)
    out = capsys.readouterr().out
    device = hardware.pick_device()
    assert hardware.describe_device(device) in out
    precision = hardware.pick_precision("auto", device)
    assert f"precision   {precision.name}: {precision.reason}" in out
    assert f"torch {torch.__version__.partition('+')[0]}" in out
    assert f"mnist: here, in {mnist}" in out
    assert "circles: drawn here" in out
    assert "checkpoint  none" in out
    ((steps,), (images,)) = (re.findall(rf"([\d.]+) {unit}/s", out) for unit in ("steps", "images"))
    steps, images = float(steps), float(images)
    assert steps > 0
    for lesson in course.LESSONS:
        seconds = lesson.train_steps / steps + lesson.images / images
        words = rf"{lesson.name}: {lesson.minutes} min, of which (\d+) s are computing"
        said = re.search(words, out)
        assert said
        assert float(said[1]) == pytest.approx(seconds, abs=0.51 + 0.05 * seconds)


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


# --- what cannot be done --------------------------------------------------------------------------

USAGE = {
    "": "expected a command, one of train, sample, doctor, progress",
    "sampel": "command must be one of train, .*; got 'sampel'; did you mean 'sample'",
    "sample --seed -1": "seed must be at least 0, got -1",
    f"sample --seed {2**63}": "seed must be below 2.63, got 9223372036854775808",
    f"train --seed {2**32}": "seed must be below 2.32, got 4294967296",
    "sample --stps 3": "not understood: --stps; did you mean --steps?",
    "sample --sampler dimm": "sampler must be one of ddim, ddpm; .* did you mean 'ddim'",
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
    f"sample --out {'long/' * 60}x.jpg": f"out must end in .png, got {'long/' * 60}x.jpg",
}


@pytest.mark.parametrize("words", USAGE)
def test_usage_errors_are_one_line_and_code_2(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words.split()) == 2
    assert_one_line(capsys, f"^error: {USAGE[words]}")
    assert not os.listdir()


def assert_one_line(capsys: pytest.CaptureFixture[str], message: str) -> None:
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"error: [^\n]*\n", said.err), said.err
    assert re.search(message, said.err), said.err


FAILURES = {
    "sample nowhere": "no checkpoint at nowhere",
    "sample {run} --device cuda": "device 'cuda' is not there",
    "sample {run} --steps 21": "steps must be at most 20, the checkpoint's T; got 21",
    "sample {run} --label pink": "label must be one of red, .*; got 'pink'",
    "sample {run} --label 6": "label must be one of red, .*; got '6'",
    "sample {run} --guidance 2 --label none": "guidance must be 1, got 2: no class is asked for",
    "sample {run} --out missing/grid.png": "cannot write missing/grid.png: missing is no folder",
    "sample {run} --out {run}/config.json/grid.png": "cannot write .*grid.png: .* is no folder",
    "sample {run} --tensors missing/x.safetensors": "cannot write missing/x.safetensors",
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
}


@pytest.mark.parametrize("words", FAILURES)
def test_failures_are_one_line_code_1_and_leave_nothing_half_written(
    words: str, trained: Path, tmp_path_factory, capsys: pytest.CaptureFixture[str]
) -> None:
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    scratch = tmp_path_factory.mktemp("scratch")
    places = {"run": trained, "empty": scratch / "empty"}
    places["empty"].mkdir()
    for name in ("cut", "flipped", "cardless", "other", "pickled"):
        places[name] = shutil.copytree(trained, scratch / name)
        damage(name, places[name] / "step-00000003.safetensors")
    before = everything_in(trained), everything_in(scratch)
    capsys.readouterr()
    assert cli.main([word.format(**places) for word in words.split()]) == 1
    assert_one_line(capsys, FAILURES[words])
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
        card.write_text(re.sub(r'"patch": 2', '"patch": 4', card.read_text()))
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
        assert {p.name for p in (disk / "run").iterdir()} == {"config.json", "metrics.jsonl"}
    finally:
        subprocess.run(["umount", str(disk)], check=True)


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
