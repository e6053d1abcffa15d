"""``doctor``: what this machine will use, and how long the lessons take on it."""

import re
from pathlib import Path

import pytest
import torch

from tutorial_lib import checkpoints, course, hardware
from tutorial_lib.cli import program as cli

pytestmark = [pytest.mark.plain_errors, pytest.mark.usefixtures("empty_folder")]


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
