"""``train``: it reports, leaves a run that its own card can repeat, and resumes."""

import json
import math
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.runs import QUICK, assert_one_line, drawn
from tutorial_lib import checkpoints
from tutorial_lib.cli import program as cli
from tutorial_lib.cli.words import parse
from tutorial_lib.training import TrainConfig
from tutorial_lib.training import state as run_state

pytestmark = [pytest.mark.plain_errors, pytest.mark.usefixtures("empty_folder")]


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
    fields = json.loads(Path("run/config.json").read_text())
    Path("run/config.json").write_text(json.dumps({**fields, "stepz": 3}))
    assert cli.main(["train", "--out", "run", "--resume"]) == 2
    assert_one_line(capsys, "stepz is not a field of a training run")
    for damaged in ("{", "[" * 200_000):
        Path("run/config.json").write_text(damaged)
        assert cli.main(["train", "--out", "run", "--resume"]) == 2
        assert_one_line(capsys, "config.json is damaged: ")
    for name in ("widths", "root", "steps"):
        Path("run/config.json").write_text(json.dumps({**fields, name: {}}))
        assert cli.main(["train", "--out", "run", "--resume"]) == 2
        assert_one_line(capsys, f"^error: {name} must be ")


def test_of_several_folders_to_resume_none_is_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--out", "b", "--out=a"], ["--out=b", "--out", "b"]):
        assert cli.main(["train", "--resume", *words]) == 2
        assert_one_line(capsys, "--out must be given once, got it twice")


ODD = ["-run x", "--", "-", "--out=x", "None", "a'b\"c", "$HOME", "~", "a\nb", "=x", "*", "ä"]


@pytest.mark.parametrize("name", ODD)
def test_the_command_that_is_printed_names_odd_folders(name: str) -> None:
    config = TrainConfig(out=Path(name), resume=True)
    words = shlex.split(config.command())
    assert parse(words[3:], {"train": TrainConfig}) == ("train", config)


def test_from_files_to_digits(mnist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dataset", "mnist", "--root", str(mnist), "--conditional", "--out", "run"]
    quick = [word if word != "3" else "12" for word in QUICK]  # of the steps
    assert cli.main(["train", *quick, *words, "--num-steps", "50"]) == 0
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
