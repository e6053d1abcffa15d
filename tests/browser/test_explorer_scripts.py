"""What the schedule and forward explorers compute in the browser, against torch."""

import base64

import pytest
import torch
from explorer_cases import make

from tutorial_lib import schedules
from tutorial_lib.explorers import ForwardExplorer, ScheduleExplorer
from tutorial_lib.forward import diffuse
from tutorial_lib.images import to_bytes

TO_BYTES = "(text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0))"


def sent(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("steps", [10, 512, 1000, 2000])
@pytest.mark.parametrize("family", ["linear", "quadratic", "cosine"])
def test_schedules(open_script, family, steps):
    page = open_script(ScheduleExplorer._esm)
    start, end = 3e-4, 0.04
    got = page.evaluate(
        "([f, n, a, b]) => Array.from(explorer.alphaBar(f, n, a, b))", [family, steps, start, end]
    )
    if family == "cosine":
        expected = schedules.cosine_schedule(steps)
    else:
        build = getattr(schedules, f"{family}_schedule")
        expected = build(steps, beta_start=start, beta_end=end)
    got = torch.tensor(got, dtype=torch.float64)
    assert (got - expected.alpha_bar).abs().max() < 1e-12
    ratio = got / expected.alpha_bar
    assert (ratio - 1).abs().max() < 1e-8
    crossing = page.evaluate("(bars) => explorer.crossing(bars)", got.tolist())
    betas = page.evaluate(
        "([f, n, a, b]) => Array.from(explorer.betasOf(f, n, a, b)).slice(1)",
        [family, steps, start, end],
    )
    assert (torch.tensor(betas, dtype=torch.float64) - expected.beta).abs().max() < 1e-12
    below = (expected.snr < 1).nonzero()
    assert crossing == (int(below[0]) if len(below) else steps + 1)


def test_ends_that_leave_nothing_stay_numbers(open_script):
    page = open_script(ScheduleExplorer._esm)
    bars = page.evaluate("() => Array.from(explorer.alphaBar('linear', 2000, 0.5, 0.5))")
    assert min(bars) == 1e-60
    betas = page.evaluate("() => Array.from(explorer.betasOf('linear', 2000, 0.5, 0.5)).slice(1)")
    assert set(betas) == {0.5}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("t", [0, 1, 250, 999, 1000])
def test_pixels_differ_by_one_gray_level_at_most(open_script, channels, t):
    generator = torch.Generator().manual_seed(t + channels)
    images = torch.rand(2, channels, 9, 7, generator=generator) * 2 - 1
    schedule = schedules.linear_schedule()
    explorer = ForwardExplorer(images, schedule, seed=5)
    page = open_script(explorer._esm)
    got = page.evaluate(
        f"""([x0, eps, alphaBar, shape]) => {{
          const bytes = {TO_BYTES};
          const [n, c, h, w] = shape, noise = new Int16Array(bytes(eps).buffer);
          const x_t = new Float32Array(n * c * h * w);
          explorer.noisedBatch(x_t, bytes(x0), noise, alphaBar);
          const image = new Uint8ClampedArray(4 * n * h * w);
          for (let i = 0; i < n; i++) {{
            explorer.paintImage(image, w, 0, i * h, [c, h, w], i, (p) => x_t[p]);
          }}
          return Array.from(image);
        }}""",
        [
            sent(explorer.x0),
            sent(explorer.eps),
            float(schedule.alpha_bar[t]),
            list(images.shape),
        ],
    )
    eps = torch.randn(images.shape, generator=torch.Generator().manual_seed(5))
    steps = torch.full((2,), t)
    expected = torch.from_numpy(to_bytes(diffuse(schedule, images, steps, eps)))
    rgba = torch.tensor(got).reshape(2, 9, 7, 4)
    assert (rgba[..., 3] == 255).all()
    assert (rgba[..., :channels] - expected.int()).abs().max() <= 1
    if channels == 1:
        assert (rgba[..., :1] == rgba[..., :3]).all()


def test_histogram_and_moments(open_script):
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    page = open_script(make("forward")._esm)
    density, moments = page.evaluate(
        """(values) => [Array.from(explorer.histogram(new Float64Array(16), values, 0,
          values.length, -4, 4)), explorer.moments(values, 0, values.length)]""",
        values.tolist(),
    )
    counts = torch.histc(values, 16, -4, 4)
    assert torch.allclose(torch.tensor(density), counts / len(values) / 0.5, atol=1e-6)
    assert abs(moments["mean"] - values.double().mean()) < 1e-6
    assert abs(moments["deviation"] - values.double().std(correction=0)) < 1e-6


def test_new_noise_is_normal_and_the_same_for_a_seed(open_script):
    page = open_script(make("forward")._esm)
    draw = "(seed) => Array.from(explorer.normalNumbers(seed, 40000))"
    first, again, other = (torch.tensor(page.evaluate(draw, seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert abs(torch.corrcoef(torch.stack([first, other]))[0, 1]) < 4 / 40000**0.5
    assert abs(first.mean()) < 4 / 40000**0.5
    assert abs(first.var() - 1) < 4 * (2 / 40000) ** 0.5
    within = (first.abs() < 1).double().mean()
    assert abs(within - 0.6827) < 4 * (0.6827 * 0.3173 / 40000) ** 0.5
