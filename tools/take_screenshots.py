"""Takes the README's pictures of explorers, as JupyterLab shows them, in both themes.

    python tools/take_screenshots.py          # writes docs/*-light.png and docs/*-dark.png

It needs a Chromium, as the browser tests do.
"""

import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools" / "browser"))

from jupyter_lab import opener, running_chromium, running_lab, write_notebook  # noqa: E402
from playwright.sync_api import Locator, expect  # noqa: E402

FORWARD = """\
import torch
from tutorial_lib import checkpoints, explorers, predictions, samplers
drawer = checkpoints.load_checkpoint("mnist")
wishes, generator = torch.arange(8), torch.Generator().manual_seed(0)
x_T = torch.randn(8, 1, 28, 28, generator=generator)
model = predictions.clip_x0(drawer.conditioned(wishes), drawer.schedule)
walk = samplers.evenly_spaced(1000, 50)
digits = samplers.last(samplers.ddim(model, drawer.schedule, x_T, walk))
explorers.ForwardExplorer(digits, drawer.schedule, t=250)"""
PLAYGROUND = """\
from tutorial_lib import explorers
explorers.Playground(shape="eight blobs")"""


def leave(root: Locator) -> None:
    """Shows an explorer as it opens."""


def train(root: Locator) -> None:
    """Trains the playground and stops its particles on their way."""
    root.get_by_role("checkbox", name="exact oracle").check()
    root.get_by_role("checkbox", name="paths of 20").check()
    root.get_by_role("combobox", name="walk back by").select_option("DDIM, 50 steps")
    root.get_by_role("combobox", name="for", exact=True).select_option("10 seconds")
    root.get_by_role("button", name="Train", exact=True).click()
    expect(root.get_by_role("status")).to_have_text(re.compile("Play, or drag t"), timeout=120_000)
    root.get_by_role("button", name="Pause", exact=True).click()
    root.get_by_role("slider", name="timestep t").fill("90")


PICTURES: dict[str, tuple[str, Callable[[Locator], None]]] = {
    "forward-explorer": (FORWARD, leave),
    "playground": (PLAYGROUND, train),
}


def main() -> None:
    """Takes every picture twice."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        running_lab(Path(scratch)) as lab,
        running_chromium() as chromium,
        opener(lab, chromium) as open_one,
    ):
        for name, (code, prepare) in PICTURES.items():
            notebook = open_one(write_notebook(lab, name, [code]))
            notebook.run_all()
            root = notebook.page.locator(".tx[data-frames]")
            root.wait_for()
            prepare(root)
            for theme in ("Light", "Dark"):
                notebook.page.evaluate(
                    "theme => jupyterapp.commands.execute('apputils:change-theme', { theme })",
                    f"JupyterLab {theme}",
                )
                notebook.page.mouse.move(0, 0)
                notebook.page.wait_for_timeout(1500)  # its style sheet arrives after its name
                path = ROOT / "docs" / f"{name}-{theme.lower()}.png"
                root.screenshot(path=path)
                print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
