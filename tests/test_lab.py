"""What the first cell of a lesson calls: it says where one is, and leaves the process alone."""

import os
import random
import signal
import subprocess
import sys
import warnings

import pytest
import torch

import tutorial_lib
from tutorial_lib import hardware, lab
from tutorial_lib.course import LESSONS


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_every_lesson_starts_with_two_lines(lesson, capsys: pytest.CaptureFixture[str]):
    device = lab.start(lesson.number)
    assert device == hardware.pick_device()
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"Lesson {lesson.number} · {lesson.title}"
    for part in (tutorial_lib.__version__, torch.__version__, hardware.describe_device(device)):
        assert part in second


def test_a_number_may_be_an_int(capsys: pytest.CaptureFixture[str]):
    lab.start(3)
    as_int = capsys.readouterr().out
    lab.start("3")
    assert capsys.readouterr().out == as_int


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), torch.device("meta")])
def test_a_device_may_be_given(device: torch.device | str, capsys: pytest.CaptureFixture[str]):
    assert lab.start(0, device) == torch.device(device)
    assert str(torch.device(device)) in capsys.readouterr().out


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("number", "got"),
    [
        (99, "99"),
        (-1, "-1"),
        ("05", "'05'; did you mean '5'?"),
        ("5z", "'5z'; did you mean '5"),
        (True, "True"),
        (3.0, r"3\.0"),
        (None, "None"),
        ([3], r"\[3\]"),
    ],
)
def test_an_unknown_lesson_is_refused(number, got: str):
    with pytest.raises(ValueError, match=f"number must be one of 0, 1, 2, .*; got {got}"):
        lab.start(number)


@pytest.mark.plain_errors
def test_an_unknown_device_is_refused():
    with pytest.raises(ValueError, match="device must be one of"):
        lab.start(0, "gpu")


STATE = {
    "torch's randomness": lambda: torch.get_rng_state().tolist(),
    "Python's randomness": random.getstate,
    "threads": lambda: (torch.get_num_threads(), torch.get_num_interop_threads()),
    "dtype": torch.get_default_dtype,
    "gradients": torch.is_grad_enabled,
    "determinism": torch.are_deterministic_algorithms_enabled,
    "matrix products": torch.get_float32_matmul_precision,
    "warnings": lambda: list(warnings.filters),
    "environment": lambda: dict(os.environ),
    "folder": os.getcwd,
    "signals": lambda: signal.getsignal(signal.SIGINT),
}


@pytest.mark.plain_errors  # the shape checks draw what they look at
def test_nothing_else_in_the_process_changes():
    before = {name: state() for name, state in STATE.items()}
    lab.start(0)
    lab.seeded(7)
    assert {name: state() for name, state in STATE.items()} == before


def test_seeded_starts_the_same_way_every_time():
    first, second, other = (torch.randn(5, generator=lab.seeded(seed)) for seed in (3, 3, 4))
    assert first.equal(second)
    assert not first.equal(other)
    assert first.equal(torch.randn(5, generator=torch.Generator().manual_seed(3)))


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("seed", "error"), [(-1, ValueError), (2**63, ValueError), (1.0, TypeError)]
)
def test_a_wrong_seed_is_refused(seed, error: type[Exception]):
    with pytest.raises(error, match="seed must be"):
        lab.seeded(seed)


def test_it_loads_without_drawing():
    code = "import sys, tutorial_lib.lab; print('matplotlib' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"


def test_a_number_of_many_digits_is_refused_like_any_other():
    with pytest.raises(ValueError, match=r"number must be one of .*; got about 10\^5000"):
        lab.start(10**5000)
