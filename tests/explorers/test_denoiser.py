"""The denoiser explorer's Python part; its script is compared with torch in tests/browser."""

import pytest
import torch

from tutorial_lib import schedules
from tutorial_lib.explorers import DenoiserExplorer
from tutorial_lib.explorers.denoiser import widget as _denoiser
from tutorial_lib.explorers.shared import wire
from tutorial_lib.losses import epsilon_losses
from tutorial_lib.oracles import DatasetOracle, GaussianMixtureOracle

LINEAR = schedules.linear_schedule()
IMAGES = torch.linspace(-1, 1, 192).reshape(3, 1, 8, 8)
MEANS = torch.tensor([[-1.0, 0.0], [1.0, 0.5]])
ORACLE = GaussianMixtureOracle(LINEAR, MEANS, torch.tensor([0.1, 0.2]), torch.ones(2))
POINTS = ORACLE.sample(20, torch.Generator().manual_seed(0)).float()


def noise(data: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return torch.randn(data.shape, generator=torch.Generator().manual_seed(seed))


def silent(x_t, t):
    """A model that always says 0."""
    return torch.zeros_like(x_t)


def floats(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.float32)


def test_who_knows_the_noise_has_no_loss_and_finds_the_data():
    eps = noise(IMAGES)
    said = _denoiser.answers(lambda x_t, t: eps, LINEAR, IMAGES, eps, [1, 500, 1000])
    assert said.eps_hat.shape == (3, *IMAGES.shape)
    assert (said.losses == 0).all()
    # At t = 1000 a float32 of x_t is divided by a signal rate of 0.006
    assert (said.x0_hat - IMAGES).abs().max() < 2e-4


def test_losses_are_those_of_the_lesson():
    explorer = DenoiserExplorer(ORACLE, LINEAR, POINTS, oracle=silent, timesteps=[3, 100, 900])
    losses, floors = floats(explorer.losses), floats(explorer.floors)
    for k, step in enumerate([3, 100, 900]):
        t = torch.full((20,), step)
        for model, got in ((ORACLE, losses), (silent, floors)):
            expected = epsilon_losses(model, LINEAR, POINTS, t, noise(POINTS)).mean()
            assert abs(got[k] - expected) < 1e-6


def test_one_loss_for_each_image():
    explorer = DenoiserExplorer(silent, LINEAR, IMAGES, timesteps=[10, 20])
    each = floats(explorer.each).reshape(2, 3)
    assert torch.allclose(each, noise(IMAGES).square().mean((1, 2, 3)).expand(2, 3))
    assert torch.allclose(floats(explorer.losses), each.mean(1))


def test_the_field_stands_on_a_grid_over_the_data():
    explorer = DenoiserExplorer(silent, LINEAR, 5 * POINTS, oracle=ORACLE, timesteps=[7, 70])
    assert explorer.reach > (5 * POINTS).abs().max()
    grid = _denoiser.grid_of_points(explorer.reach)
    assert grid.shape == (15 * 15, 2)
    assert torch.allclose(grid.mean(0), torch.zeros(2), atol=1e-5)
    assert grid[1, 0] > grid[0, 0]
    assert grid[1, 1] == grid[0, 1]
    sent = torch.frombuffer(bytearray(explorer.oracle_field), dtype=torch.int16).reshape(2, -1, 2)
    expected = ORACLE(grid, torch.full((len(grid),), 70)).clamp(-8, 8)
    assert (sent[1] / wire.EPS_SCALE - expected).abs().max() < 2e-4


def test_steps_lie_closer_where_there_is_less_noise():
    steps = _denoiser.spread_steps(1000, 40)
    assert (steps[0], steps[-1], len(steps)) == (1, 1000, 40)
    gaps = torch.tensor(steps).diff()
    assert (gaps.diff() >= -1).all()  # rounding
    assert gaps[-1] > 10 * gaps[0]
    assert _denoiser.spread_steps(5, 40) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("data", "count"), [(IMAGES, 100), (torch.zeros(3, 3, 32, 32), 24)])
def test_fewer_steps_for_larger_data(data, count):
    explorer = DenoiserExplorer(silent, LINEAR, data)
    assert len(explorer.timesteps) in (count, count - 1, count - 2)  # those that round to one
    assert len(explorer.eps_hat) + len(explorer.x0_hat) < 500_000


def test_it_begins_at_the_nearest_step_that_was_asked_for():
    explorer = DenoiserExplorer(silent, LINEAR, IMAGES, timesteps=[10, 200, 900], t=300)
    assert explorer.place == 1
    assert "t = 200" in explorer._summary()


def test_new_noise_asks_again_and_keeps_the_field():
    explorer = DenoiserExplorer(ORACLE, LINEAR, POINTS, timesteps=[5, 500], seed=3)
    before = {name: getattr(explorer, name) for name in ("eps", "eps_hat", "losses", "model_field")}
    explorer.new_noise()
    same = {name for name, value in before.items() if getattr(explorer, name) == value}
    assert same == {"model_field"}
    assert explorer.noise == 1
    other = DenoiserExplorer(ORACLE, LINEAR, POINTS, timesteps=[5, 500], seed=4)
    assert (explorer.eps, explorer.losses) == (other.eps, other.losses)


def test_the_browser_gets_an_answer(monkeypatch):
    asked, answered = [], []

    def model(x_t, t):
        asked.append(len(x_t))
        if len(asked) > 2:
            raise RuntimeError("out of memory")
        return torch.zeros_like(x_t)

    explorer = DenoiserExplorer(model, LINEAR, IMAGES, timesteps=[5, 500])
    monkeypatch.setattr(explorer, "send", answered.append)
    explorer._handle_custom_msg({"kind": "hello"}, [])
    assert answered == [{"kind": "heard"}]
    before = explorer.eps
    explorer._handle_custom_msg({"kind": "noise"}, [])
    assert answered[1:] == [{"kind": "failed", "text": "RuntimeError: out of memory"}]
    assert (explorer.eps, explorer.noise) == (before, 0)
    explorer._handle_custom_msg({"kind": "bye"}, [])
    assert len(answered) == 2  # nobody is left to be answered


def test_the_model_is_asked_once_a_step_without_a_gradient():
    asked = []
    layer = torch.nn.Linear(8, 8)

    def model(x_t, t):
        asked.append((len(x_t), int(t[0]), torch.is_grad_enabled()))
        return layer(x_t)

    DenoiserExplorer(model, LINEAR, IMAGES, timesteps=[5, 50, 500])
    assert asked == [(3, 5, False), (3, 50, False), (3, 500, False)]


@pytest.mark.parametrize("data", [IMAGES, POINTS])
@pytest.mark.parametrize("oracle", [None, silent])
def test_a_still_picture_stands_for_it(data, oracle):
    memory = DatasetOracle(LINEAR, data)
    explorer = DenoiserExplorer(memory, LINEAR, data, oracle=oracle, t=400)
    bundle, _ = explorer._repr_mimebundle_()
    assert len(bundle["image/png"]) < 400_000
    assert "its loss is" in repr(explorer)
    assert ("oracle" in repr(explorer)) == (oracle is not None)


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"model": 3}, TypeError, "model must be callable, got int 3"),
        ({"oracle": "yes"}, TypeError, "oracle must be callable"),
        ({"schedule": None}, TypeError, "schedule must be a NoiseSchedule"),
        ({"data": torch.zeros(4, 3)}, ValueError, r"data must be images .* or points .*\(4, 3\)"),
        ({"data": torch.zeros(0, 2)}, ValueError, "data must"),
        ({"data": torch.full((4, 2), torch.nan)}, ValueError, "data must be finite"),
        ({"data": torch.zeros(2, 2, 8, 8)}, ValueError, "data must have shape"),
        ({"timesteps": 1}, ValueError, "timesteps must be at least 2"),
        ({"timesteps": [5]}, ValueError, "timesteps must be at least two"),
        ({"timesteps": [0, 5]}, ValueError, "at least 1, got 0"),
        ({"timesteps": [9, 5]}, ValueError, "timesteps must rise within 1..1000"),
        ({"timesteps": [5, 1001]}, ValueError, "timesteps must rise within 1..1000"),
        ({"timesteps": 0.5}, TypeError, "timesteps must be a number or a list"),
        ({"t": 1001}, ValueError, "t must be in"),
        ({"seed": -1}, ValueError, "seed must"),
        ({"model": lambda x_t, t: x_t[:1]}, ValueError, "model must answer with the shape"),
        ({"model": lambda x_t, t: x_t / 0}, ValueError, "finite numbers, got .* at t = 1"),
        ({"data": torch.zeros(90, 3, 32, 32)}, ValueError, "fewer timesteps"),
    ],
)
def test_what_is_invalid(change, error, words):
    arguments = {"model": silent, "schedule": LINEAR, "data": IMAGES, **change}
    with pytest.raises(error, match=words):
        DenoiserExplorer(**arguments)
