"""The trajectory explorer, its part without a browser."""

import pytest
import torch
from torch import Tensor

from tutorial_lib import schedules
from tutorial_lib.explorers import TrajectoryExplorer
from tutorial_lib.explorers.trajectory.widget import reached, record, settling
from tutorial_lib.images import to_bytes
from tutorial_lib.oracles import DatasetOracle
from tutorial_lib.samplers import ddim, ddpm, evenly_spaced, last, respace

T = 40
SCHEDULE = schedules.linear_schedule(T, beta_end=0.3)
DATA = torch.rand(6, 1, 6, 5, generator=torch.Generator().manual_seed(0)) * 2 - 1
MODEL = DatasetOracle(SCHEDULE, DATA)
X_T = torch.randn(2, 1, 6, 5, generator=torch.Generator().manual_seed(1))


def explorer(**options) -> TrajectoryExplorer:
    return TrajectoryExplorer(MODEL, SCHEDULE, X_T, **{"steps": (5, 8), "frames": 10, **options})


def sent(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


@pytest.mark.parametrize("frames", [1, 3, 5, 1000])
def test_a_recorded_walk_is_the_samplers(frames):
    halts = evenly_spaced(T, 5)
    steps = list(ddim(MODEL, SCHEDULE, X_T, halts))
    walk = record(iter(steps), X_T, halts, frames)
    assert len(walk.t) == min(frames, 5) + 1
    assert walk.t[0] == T
    assert walk.t[-1] == 0
    states = {T: X_T} | {step.t: step.x_t for step in steps}
    guesses = dict(zip(halts[:-1], [step.x0_hat for step in steps], strict=True))
    guesses[0] = steps[-1].x_t
    for i, t in enumerate(walk.t):
        assert torch.equal(walk.x_t[i], states[t])
        assert torch.equal(walk.x0_hat[i], guesses[t])


def test_a_guess_is_of_the_state_beside_it():
    walk = explorer()._walks["DDIM", 8, 0.0]
    for t, x_t, x0_hat in zip(walk.t[:-1], walk.x_t, walk.x0_hat, strict=False):
        eps_hat = MODEL(x_t, torch.full((2,), t))
        expected = (x_t - SCHEDULE.noise_rate[t] * eps_hat) / SCHEDULE.signal_rate[t]
        torch.testing.assert_close(x0_hat, expected.float(), atol=1e-4, rtol=1e-4)


def test_settling_is_the_distance_to_the_end():
    walk = explorer()._walks["DDIM", 5, 0.0]
    found = settling(walk)
    for value, guess in zip(found.tolist(), walk.x0_hat, strict=True):
        assert value == pytest.approx(float(((guess - walk.x_t[-1]) ** 2).mean() ** 0.5), abs=1e-6)
    assert float(found[-1]) == 0


def test_all_walks_are_sent_from_one_x_T():
    made = explorer(etas=(0.0, 0.7))
    counts = [len(walk["t"]) for walk in made.walks]
    assert [(w["name"], w["steps"], w["eta"]) for w in made.walks] == [
        ("DDPM", T, 1.0),
        ("DDIM", 5, 0.0),
        ("DDIM", 5, 0.7),
        ("DDIM", 8, 0.0),
        ("DDIM", 8, 0.7),
    ]
    assert counts == [11, 6, 6, 9, 9]
    x_t, x0_hat = (sent(data).view(-1, 2, 1, 6, 5) for data in (made.x_t, made.x0_hat))
    starts = [sum(counts[:i]) for i in range(len(counts))]
    ends = [start + count - 1 for start, count in zip(starts, counts, strict=True)]
    for start in starts:
        assert torch.equal(x_t[start].permute(0, 2, 3, 1), torch.from_numpy(to_bytes(X_T)))
    dice = torch.Generator().manual_seed(0)
    expected = [
        last(ddpm(MODEL, SCHEDULE, X_T, generator=dice)),
        last(ddim(MODEL, SCHEDULE, X_T, evenly_spaced(T, 5))),
    ]
    for end, picture in zip(ends, expected, strict=False):
        assert torch.equal(x_t[end].permute(0, 2, 3, 1), torch.from_numpy(to_bytes(picture)))
        assert torch.equal(x0_hat[end], x_t[end])
    assert len(made.settled) == 4 * sum(counts)


def test_every_step_with_eta_1_is_ddpm_with_the_same_dice():
    made = explorer(steps=(T,), etas=(1.0,))
    (one, other) = made._walks.values()
    torch.testing.assert_close(one.x_t, other.x_t, atol=2e-4, rtol=0)
    assert "differ by 0.00" in repr(made)


def test_a_shorter_ddpm_walks_the_shortened_schedule():
    made = explorer(ddpm_steps=8, variance="beta", seed=4)
    shorter = respace(MODEL, SCHEDULE, evenly_spaced(T, 8))
    dice = torch.Generator().manual_seed(4)
    expected = last(ddpm(*shorter, X_T, variance="beta", generator=dice))
    walk = made._walks["DDPM", 8, 1.0]
    assert torch.equal(walk.x_t[-1], expected)
    assert walk.t == evenly_spaced(T, 8)


def test_a_shape_draws_x_T_and_a_seed_repeats():
    first, again, other = (
        TrajectoryExplorer(MODEL, SCHEDULE, (1, 1, 6, 5), steps=[4], seed=s) for s in (1, 1, 2)
    )
    assert first.x_t == again.x_t
    assert first.x_t != other.x_t
    assert first.shape == [1, 1, 6, 5]


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    explorer()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_last_halt_reached():
    assert [reached([9, 5, 2, 0], t) for t in (9, 8, 5, 4, 2, 1, 0)] == [0, 0, 1, 1, 2, 2, 3]


def test_the_still_picture_follows_the_choice():
    made = explorer()
    before = made._repr_mimebundle_()[0]
    made.steps, made.eta = 8, 1.0
    after = made._repr_mimebundle_()[0]
    assert after["image/png"] != before["image/png"]
    assert "DDIM in 8 steps with eta = 1" in after["text/plain"]


def test_only_what_was_walked_can_be_chosen():
    made = explorer()
    with pytest.raises(ValueError, match=r"steps must be one of \[5, 8\], got 7"):
        made.steps = 7
    with pytest.raises(ValueError, match=r"eta must be one of \[0.0, 0.5, 1.0\], got 0.2"):
        made.eta = 0.2
    assert (made.steps, made.eta) == (5, 0.0)


@pytest.mark.plain_errors
def test_too_much_is_refused_before_anything_is_sampled():
    def never(x_t: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("asked")

    with pytest.raises(ValueError, match=r"at most 1,400,000 bytes.*give fewer frames"):
        TrajectoryExplorer(never, SCHEDULE, (8, 3, 64, 64), steps=(5,))


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": ()}, ValueError, "steps must hold one value or more"),
        ({"steps": (5, 5)}, ValueError, "steps must hold one value or more, none twice"),
        ({"steps": 5}, TypeError, "steps must be a sequence"),
        ({"steps": (41,)}, ValueError, "an entry of steps must be in 1..40, got 41"),
        ({"steps": (2.5,)}, TypeError, "an entry of steps must be an int"),
        ({"etas": (1.5,)}, ValueError, r"an entry of etas must be in \[0, 1\]"),
        ({"etas": "01"}, TypeError, "etas must be a sequence"),
        ({"ddpm_steps": 0}, ValueError, "ddpm_steps must be at least 1"),
        ({"ddpm_steps": 41}, ValueError, "ddpm_steps"),
        ({"variance": "alpha"}, ValueError, "variance must be one of"),
        ({"frames": 0}, ValueError, "frames must be at least 1"),
        ({"t": 41}, ValueError, r"t must be in \[0, 40\]"),
        ({"seed": -1}, ValueError, "seed"),
    ],
)
def test_wrong_arguments_are_named(options, error, message):
    with pytest.raises(error, match=message):
        explorer(**options)


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("x_T", "error", "message"),
    [
        (torch.zeros(3, 2), ValueError, "x_T must have shape"),
        ((1, 28, 28), TypeError, "x_T must be a tensor or a shape"),
        (None, TypeError, "x_T must be a tensor or a shape"),
        ((1, 1, 0, 4), ValueError, "an entry of x_T must be at least 1"),
        (torch.full((1, 1, 6, 5), float("nan")), ValueError, "x_T must be finite"),
    ],
)
def test_wrong_starts_are_named(x_T, error, message):
    with pytest.raises(error, match=message):
        TrajectoryExplorer(MODEL, SCHEDULE, x_T, steps=(5,))


@pytest.mark.plain_errors
def test_a_schedule_is_expected():
    with pytest.raises(TypeError, match="schedule must be a NoiseSchedule, got list"):
        TrajectoryExplorer(MODEL, [0.1], X_T)  # type: ignore[arg-type]
