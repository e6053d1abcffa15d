"""The schedule explorer's Python part; its script is compared with torch in tests/browser."""

import pytest
import torch

from tutorial_lib import schedules
from tutorial_lib.explorers import ScheduleExplorer

IMAGE = torch.linspace(-1, 1, 64).reshape(1, 8, 8)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("linear", schedules.linear_schedule(500, beta_start=1e-3, beta_end=0.05)),
        ("quadratic", schedules.quadratic_schedule(500, beta_start=1e-3, beta_end=0.05)),
        ("cosine", schedules.cosine_schedule(500)),
    ],
)
def test_it_gives_the_schedule_that_it_shows(family, expected):
    explorer = ScheduleExplorer(
        IMAGE, family=family, num_steps=500, beta_start=1e-3, beta_end=0.05, t=0
    )
    assert torch.equal(explorer.schedule().alpha_bar, expected.alpha_bar)


def test_a_schedule_of_ones_own_travels_in_full_precision():
    mine = schedules.cosine_schedule(300)
    explorer = ScheduleExplorer(IMAGE[None], {"mine": mine}, family="mine", t=300)
    sent = torch.frombuffer(bytearray(explorer.own), dtype=torch.float64)
    assert torch.equal(sent, mine.alpha_bar)
    assert explorer.schedule() is not None
    assert "mine schedule of 300 steps" in explorer._summary()


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"image": torch.zeros(2, 1, 8, 8)}, ValueError, "image must be one image, got 2"),
        ({"family": "linaer"}, ValueError, "family.*linear"),
        ({"num_steps": 9}, ValueError, "num_steps"),
        ({"num_steps": 2001}, ValueError, "num_steps"),
        ({"num_steps": 100.0}, TypeError, "num_steps"),
        ({"t": 1001}, ValueError, "t must"),
        ({"t": -1}, ValueError, "t must"),
        ({"beta_end": 0.9}, ValueError, "beta_end"),
        ({"beta_start": float("nan")}, ValueError, "beta_start"),
        ({"seed": -1}, ValueError, "seed"),
        (
            {"schedules": {"cosine": schedules.cosine_schedule()}},
            ValueError,
            "the name of a family",
        ),
    ],
)
def test_what_is_invalid(arguments, error, words):
    with pytest.raises(error, match=words):
        ScheduleExplorer(**{"image": IMAGE, **arguments})


@pytest.mark.parametrize("family", ["linear", "quadratic"])
def test_ends_that_leave_nothing_are_still_drawn(family):
    explorer = ScheduleExplorer(
        IMAGE, family=family, num_steps=2000, beta_start=0.5, beta_end=0.5, t=2000
    )
    with pytest.raises(ValueError, match="alpha_bar"):
        explorer.schedule()
    assert "at t = 2000 alpha_bar is 1e-60" in repr(explorer)
    data, _ = explorer._repr_mimebundle_()
    assert "image/png" in data
