"""The forward explorer's Python part; its script is compared with torch in tests/browser."""

import pytest
import torch

from tutorial_lib import schedules
from tutorial_lib.explorers import ForwardExplorer

IMAGES = torch.linspace(-1, 1, 192).reshape(3, 1, 8, 8)
LINEAR, COSINE = schedules.linear_schedule(), schedules.cosine_schedule()


def test_the_same_seed_sends_the_same_noise():
    first, again, other = (ForwardExplorer(IMAGES, LINEAR, seed=seed) for seed in (1, 1, 2))
    assert first.eps == again.eps
    assert first.eps != other.eps


def test_several_schedules_are_sent_in_their_order():
    explorer = ForwardExplorer(IMAGES, {"a": LINEAR, "b": COSINE}, schedule="b", t=7)
    sent = torch.frombuffer(bytearray(explorer.alpha_bar), dtype=torch.float64).reshape(2, -1)
    assert torch.equal(sent, torch.stack([LINEAR.alpha_bar, COSINE.alpha_bar]))
    assert (explorer.schedule, explorer.t) == ("b", 7)
    assert f"{float(COSINE.signal_rate[7]):.3f}" in explorer._summary()


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    ForwardExplorer(IMAGES, LINEAR)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"t": 1001}, "t must"),
        ({"t": -1}, "t must"),
        ({"schedule": "lniear"}, "schedule.*linear"),
        ({"seed": -3}, "seed"),
    ],
)
def test_what_is_invalid(arguments, words):
    with pytest.raises(ValueError, match=words):
        ForwardExplorer(IMAGES, {"linear": LINEAR}, **arguments)
