"""What the denoiser explorer computes in the browser, against torch; and its new noise."""

import base64

import pytest
import torch
from explorer_cases import SETUP

from tutorial_lib import schedules
from tutorial_lib.explorers import DenoiserExplorer
from tutorial_lib.explorers.denoiser import widget as _denoiser
from tutorial_lib.forward import diffuse, predict_x0
from tutorial_lib.images import to_bytes

TO_BYTES = "(text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0))"
LINEAR = schedules.linear_schedule()
STEPS = [1, 30, 250, 700, 1000]


def sent(data: bytes) -> str:
    return base64.b64encode(data).decode()


def wrong(x_t, t):
    """A denoiser that is wrong in its own way for each number, large ones too."""
    return 1.4 * x_t.sin() + 0.3 * x_t - 0.2


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_differ_by_one_gray_level_at_most(open_script, channels):
    images = torch.rand(2, channels, 9, 7, generator=torch.Generator().manual_seed(1)) * 2 - 1
    explorer = DenoiserExplorer(wrong, LINEAR, images, timesteps=STEPS, seed=5)
    page = open_script(explorer._esm)
    eps = torch.randn(images.shape, generator=torch.Generator().manual_seed(5))
    for k, step in enumerate(STEPS):
        t = torch.full((2,), step)
        x_t = diffuse(LINEAR, images, t, eps)
        eps_hat = wrong(x_t, t)
        expected = {
            "x_t": x_t,
            "eps": eps / 3,
            "eps_hat": eps_hat / 3,
            "error": (eps_hat - eps) / 3,
            "x0_hat": predict_x0(LINEAR, x_t, t, eps_hat),
        }
        got = page.evaluate(
            f"""([x0, eps, eps_hat, x0_hat, bar, k]) => {{
              const bytes = {TO_BYTES}, size = bytes(x0).length;
              const data = {{ x0: bytes(x0), eps: new Int16Array(bytes(eps).buffer),
                eps_hat: bytes(eps_hat), x0_hat: bytes(x0_hat) }};
              const rates = [Math.sqrt(bar), Math.sqrt(1 - bar)];
              return ["x_t", "eps", "eps_hat", "error", "x0_hat"].map((which) => {{
                const grays = new Uint8ClampedArray(size);
                for (let p = 0; p < size; p++) {{
                  grays[p] = (explorer.pictureValue(which, data, rates, k * size, p) + 1) * 127.5;
                }}
                return Array.from(grays);
              }});
            }}""",
            [
                *(sent(v) for v in (explorer.x0, explorer.eps, explorer.eps_hat, explorer.x0_hat)),
                float(LINEAR.alpha_bar[step]),
                k,
            ],
        )
        for (which, picture), grays in zip(expected.items(), got, strict=True):
            grays = torch.tensor(grays).reshape(images.shape).permute(0, 2, 3, 1)
            off = (grays - torch.from_numpy(to_bytes(picture)).int()).abs().max()
            assert off <= 1, f"{which} at t = {step}: {off} gray levels off"


def test_points_and_their_grid(open_script):
    points = torch.randn(50, 2, generator=torch.Generator().manual_seed(2))
    explorer = DenoiserExplorer(wrong, LINEAR, points, timesteps=STEPS, seed=5)
    page = open_script(explorer._esm)
    eps = torch.randn(points.shape, generator=torch.Generator().manual_seed(5))
    for k, step in enumerate(STEPS):
        t = torch.full((50,), step)
        x_t = diffuse(LINEAR, points, t, eps)
        bar = float(LINEAR.alpha_bar[step])
        got = page.evaluate(
            f"""([x0, eps, epsHat, bar, k]) => {{
              const bytes = {TO_BYTES}, data = new Float32Array(bytes(x0).buffer);
              const [e, h] = [eps, epsHat].map((v) => new Int16Array(bytes(v).buffer));
              const found = explorer.pointsAt(data, e, h, k * data.length, Math.sqrt(bar),
                Math.sqrt(1 - bar));
              return [Array.from(found.x_t), Array.from(found.x0_hat)];
            }}""",
            [*(sent(v) for v in (explorer.x0, explorer.eps, explorer.eps_hat)), bar, k],
        )
        got_x_t, got_x0_hat = (torch.tensor(v).reshape(50, 2) for v in got)
        assert (got_x_t - x_t).abs().max() < 2e-4
        # int16 keeps eps_hat to 1.3e-4, and x_t as well; the division makes that larger
        bound = 3e-4 / bar**0.5
        assert (got_x0_hat - predict_x0(LINEAR, x_t, t, wrong(x_t, t))).abs().max() < bound
    grid = page.evaluate("(reach) => Array.from(explorer.gridOfPoints(reach, 15))", explorer.reach)
    assert torch.allclose(
        torch.tensor(grid).reshape(-1, 2), _denoiser.grid_of_points(explorer.reach), atol=1e-5
    )


@pytest.mark.parametrize(
    ("values", "ends"),
    [([1.0, 0.02], [-2, 0]), ([1.2, 0.5], [-1, 1]), ([0, 1e-9, 1], [-6, 0]), ([3e5, 1], [-1, 4])],
)
def test_the_axis_of_the_loss(open_script, values, ends):
    page = open_script(DenoiserExplorer._esm)
    assert page.evaluate("(values) => explorer.decades(values)", values) == ends


# A model that answers only while no file bids it wait. (A kernel that is busy with a cell may
# answer at once all the same: recent ones hear widgets in a thread of their own.)
SLOW = """\
import pathlib, time
def model(x_t, t):
    while pathlib.Path("wait").exists():
        time.sleep(0.05)
    return x_t
explorers.DenoiserExplorer(model, linear, glyphs.images[:2], timesteps=[10, 100, 1000])"""
READY = "button => button.getAttribute('aria-disabled') === 'false'"


def test_new_noise_comes_from_the_kernel_and_is_waited_for(open_cells, lab):
    notebook = open_cells("noise", SETUP, SLOW)
    notebook.run_all()
    page, root = notebook.page, notebook.page.locator(".tx")
    button, note = root.get_by_role("button", name="New noise"), root.get_by_role("status")
    page.wait_for_function(READY, arg=button.element_handle())
    eps = root.locator("canvas").nth(1)
    read = "canvas => canvas.toDataURL()"
    before = eps.evaluate(read)

    (lab.notebooks / "wait").touch()
    button.focus()
    page.keyboard.press("Enter")
    note.filter(has_text="waiting for the kernel").wait_for()
    assert button.get_attribute("aria-disabled") == "true"
    assert button.evaluate("button => button === document.activeElement")
    assert eps.evaluate(read) == before

    (lab.notebooks / "wait").unlink()
    page.wait_for_function(READY, arg=button.element_handle())
    changed = "([canvas, before]) => canvas.toDataURL() !== before"
    page.wait_for_function(changed, arg=[eps.element_handle(), before])
    assert note.text_content() == ""


def test_a_page_of_its_own_offers_no_new_noise(browser, tmp_path):
    explorer = DenoiserExplorer(wrong, LINEAR, torch.zeros(1, 1, 8, 8), timesteps=STEPS)
    page = browser.new_page()
    page.goto(explorer.save_html(tmp_path / "page.html").as_uri())
    page.locator(".tx[data-frames]").wait_for()
    assert page.get_by_role("button", name="Play").count() == 1
    assert page.get_by_role("button", name="New noise").count() == 0
    page.close()
