"""What the solver explorer computes and shows in the browser, against the library's samplers."""

import re

import pytest
import torch
from playwright.sync_api import expect

from tutorial_lib.explorers import SolverExplorer
from tutorial_lib.oracles import GaussianMixtureOracle
from tutorial_lib.samplers import SAMPLERS, karras_spaced
from tutorial_lib.schedules import cosine_schedule, linear_schedule

F64 = torch.float64
SCHEDULES = {"linear": linear_schedule(), "cosine": cosine_schedule()}


def mixture(schedule) -> GaussianMixtureOracle:
    means = torch.tensor([[-1.0, 0.5], [1.0, 1.0], [0.0, -1.2], [2.0, 0.1]], dtype=F64)
    variances = torch.tensor([0.05, 0.2, 0.01, 0.0], dtype=F64)
    return GaussianMixtureOracle(schedule, means, variances, torch.tensor([1.0, 2.0, 0.5, 1.0]))


def world(oracle: GaussianMixtureOracle) -> dict[str, list[float]]:
    schedule = oracle.schedule
    return {
        "means": oracle.means.flatten().tolist(),
        "variances": oracle.variances.tolist(),
        "weights": oracle.weights.tolist(),
        "sigma": (schedule.noise_rate / schedule.signal_rate).tolist(),
    }


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_exact_noise_of_the_script_is_the_oracles(open_script, name):
    page = open_script(SolverExplorer._esm)
    oracle = mixture(SCHEDULES[name])
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=F64) * 1.5
    t = torch.tensor([1, 2, 50, 400, 900, 1000])
    got = page.evaluate(
        "([world, xs, ts]) => ts.map((t, i) => explorer.epsHat(world, xs[i][0], xs[i][1], t))",
        [world(oracle), x.tolist(), t.tolist()],
    )
    assert (torch.tensor(got, dtype=F64) - oracle(x, t)).abs().max() < 1e-9


@pytest.mark.parametrize("solver", ["euler", "heun", "dpm_solver"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_walks_of_the_script_are_the_librarys(open_script, name, solver):
    page = open_script(SolverExplorer._esm)
    schedule = SCHEDULES[name]
    oracle = mixture(schedule)
    start = torch.tensor([[0.4, -0.9]], dtype=F64)
    for count in (1, 2, 3, 12, 40):
        steps = karras_spaced(schedule, count, sigma_max=30.0)
        got = page.evaluate(
            "([s, w, steps, x]) => Array.from(explorer.walk(s, w, steps, x))",
            [solver, world(oracle), steps, start[0].tolist()],
        )
        walk = SAMPLERS[solver](oracle, schedule, start, steps)
        expected = torch.cat([start, *(step.x_t for step in walk)]).flatten()
        assert (torch.tensor(got, dtype=F64) - expected).abs().max() < 1e-7


def test_the_distances_and_orders_of_the_script(open_script):
    page = open_script(SolverExplorer._esm)
    miss = "([walks, ends]) => explorer.missOf(walks, ends)"
    walks = [[9, 9, 0, 0], [9, 9, 1, 1]]
    assert page.evaluate(miss, [walks, [3, 4, 1, 3]]) == pytest.approx((5 + 2) / 2)
    order = page.evaluate("() => explorer.orderOf(0.16, 0.01, 16, 64)")
    assert order == pytest.approx(2)
    steps = page.evaluate("() => [5, 6, 20].map((n) => explorer.stepsFor('heun', n))")
    assert steps == [3, 3, 10]
    assert page.evaluate("() => explorer.stepsFor('euler', 7)") == 7


def test_the_page_shows_the_errors_that_python_computes(browser, tmp_path):
    oracle = mixture(linear_schedule())
    explorer = SolverExplorer(oracle, 6, evaluations=8)
    page = browser.new_page(viewport={"width": 1000, "height": 700})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(explorer.save_html(tmp_path / "page.html").as_uri())
    page.locator(".tx[data-frames]").wait_for()
    slider = page.get_by_role("slider", name="evaluations")
    chart = page.locator("canvas").nth(3)
    for key, evaluations in (("ArrowRight", 9), ("Home", 2), ("End", 64)):
        slider.press(key)
        explorer.evaluations = evaluations
        expect(chart).to_have_attribute("aria-label", re.compile(rf"\. {evaluations} evaluations"))
        check_errors(chart.get_attribute("aria-label") or "", explorer)
    page.get_by_role("combobox").select_option("even")
    explorer.spacing = "even"
    expect(chart).to_have_attribute("aria-label", re.compile("even spacing"))
    check_errors(chart.get_attribute("aria-label") or "", explorer)
    said = page.locator("canvas").nth(1).get_attribute("aria-label") or ""
    assert said.startswith("6 walks of Heun in 32 steps")
    page.close()
    assert errors == []


def check_errors(label: str, explorer: SolverExplorer) -> None:
    found = re.search(r"Euler (\S+), Heun (\S+), DPM-Solver\+\+ (\S+) from the exact ends", label)
    assert found, label
    for text, expected in zip(found.groups(), explorer.errors().values(), strict=True):
        assert float(text) == pytest.approx(expected, rel=0.06)
