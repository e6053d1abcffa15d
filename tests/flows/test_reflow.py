"""Straightness and reflow against closed forms."""

# pyright: reportArgumentType=false
# (part of this file passes what the annotations forbid)

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tests.draws import normal
from tests.flows.exact import F64, runge_kutta, shaped, smooth_mixture
from tutorial_lib.flows import euler, flow_losses, reflow_pairs, straightness, uniform_times

MEAN, DEVIATION = 1.5, 0.3
FINE = torch.linspace(1, 0, 1001, dtype=F64)


def gaussian(x: Tensor, time: Tensor) -> Tensor:
    """The flow of one Gaussian: its paths are (1 - s) mean + sqrt(V) z, V as below."""
    s = shaped(time, x)
    variance = (1 - s) ** 2 * DEVIATION**2 + s**2
    return (s - (1 - s) * DEVIATION**2) / variance * (x - (1 - s) * MEAN) - MEAN


def straightened(x: Tensor, time: Tensor) -> Tensor:
    """The flow of the pairs (mean + deviation z, z): x = (1 - s) mean + ((1 - s) d + s) z."""
    s = shaped(time, x)
    z = (x - (1 - s) * MEAN) / ((1 - s) * DEVIATION + s)
    return z - (MEAN + DEVIATION * z)


def test_the_straightness_of_a_gaussian():
    """Along a path the velocity is -mean + V' / (2 sqrt(V)) z; integrated on a fine grid."""
    z = normal(400, 1)
    s = (torch.arange(100_000, dtype=F64) + 0.5) / 100_000
    variance = (1 - s) ** 2 * DEVIATION**2 + s**2
    speed = (s - (1 - s) * DEVIATION**2) / variance.sqrt()
    bent = float((speed - (1 - DEVIATION)).square().mean() * z.square().mean())
    chord = float(((1 - DEVIATION) * z - MEAN).square().mean())
    assert straightness(gaussian, z, FINE) == pytest.approx(bent / chord, rel=0.01)


def test_straightness_against_a_loop():
    x, times = normal(3, 2), [1.0, 0.7, 0.6, 0.1]
    steps = list(euler(smooth_mixture(), x, times))
    bent = straight = 0.0
    for i in range(3):
        for d in range(2):
            chord = (float(x[i, d]) - float(steps[-1].x[i, d])) / 0.9
            for step, h in zip(steps, (0.3, 0.1, 0.5), strict=True):
                bent += h * (float(step.velocity[i, d]) - chord) ** 2
                straight += h * chord**2
    assert straightness(smooth_mixture(), x, times) == pytest.approx(bent / straight, rel=1e-9)


def test_a_straight_flow_has_straightness_0_and_is_walked_in_one_step():
    z = normal(50, 1)
    assert straightness(straightened, z, FINE) < 1e-20
    (step,) = euler(straightened, z, [1, 0])
    assert_close(step.x, MEAN + DEVIATION * z, atol=1e-12, rtol=0)
    assert straightness(lambda x, time: torch.ones_like(x), z.float(), [1.0, 0.3, 0.0]) < 1e-12


def test_straightness_does_not_depend_on_the_scale_and_has_no_nan():
    z = normal(50, 2)

    def scaled(x: Tensor, time: Tensor) -> Tensor:
        return 7 * smooth_mixture()(x / 7, time)

    times = FINE[::100]
    expected = straightness(smooth_mixture(), z, times)
    assert straightness(scaled, 7 * z, times) == pytest.approx(expected, rel=1e-9)
    assert straightness(lambda x, time: 0 * x, z, times) == 0
    back = straightness(lambda x, time: (shaped(time, x) - 0.75).sign() + 0 * x, z, [1, 0.5, 0.0])
    assert back == math.inf


def test_pairs_are_joined_by_the_flow():
    z = normal(100, 2)
    x0, eps = reflow_pairs(smooth_mixture(), z, FINE)
    assert torch.equal(eps, z)
    assert_close(x0, runge_kutta(smooth_mixture(), z, FINE.tolist()), atol=5e-3, rtol=0)


def test_a_flow_trained_on_the_pairs_of_a_gaussian_is_straight():
    """The straight flow fits each pair, so its loss is 0; chance pairs leave a loss."""
    x0, eps = reflow_pairs(gaussian, normal(200, 1), torch.linspace(1, 0, 4001, dtype=F64))
    time = uniform_times(200).double()
    assert float(flow_losses(straightened, x0, time, eps).max()) < 1e-5
    assert float(flow_losses(straightened, x0.roll(1, 0), time, eps).mean()) > 0.1


@pytest.mark.plain_errors
def test_wrong_arguments_are_named():
    z = normal(2, 2)
    with pytest.raises(ValueError, match=r"times must end at 0 \(clean data\), got 0.1"):
        reflow_pairs(gaussian, z, [1.0, 0.1])
    with pytest.raises(ValueError, match="noise must be finite"):
        reflow_pairs(gaussian, z / 0, [1.0, 0.0])
    with pytest.raises(ValueError, match="x must hold at least one sample"):
        straightness(gaussian, z[:0], [1.0, 0.0])
    with pytest.raises(ValueError, match="times must fall strictly"):
        straightness(gaussian, z, [0.0, 1.0])
    with pytest.raises(ValueError, match="the answer of model at time 1 must have the shape"):
        straightness(lambda x, time: x[:1], z, [1.0, 0.0])
