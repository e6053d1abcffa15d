"""How fast the explorers answer, in a real JupyterLab in headless Chromium.

    python benchmarks/explorers.py --json benchmarks/results/explorers.json

Each is dragged for some seconds by its main slider, and then keyed; the playground once its network
and the oracle have walked, so that 1000 particles move. A line says how many updates a
second the drag brought, the longest gap between two of them, and how long a key press took until
its frame was painted (median and 95th percentile). Chromium paints 60 frames a second at most.
Exit code 1 where one misses its limits. Needs the test requirements and a Chromium.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools" / "browser"))

from explorer_cases import CASES, DRAGGED, SETUP  # noqa: E402
from jupyter_lab import opener, running_chromium, running_lab, write_notebook  # noqa: E402
from playwright.sync_api import Locator, ViewportSize  # noqa: E402

from tutorial_lib import hardware  # noqa: E402
from tutorial_lib.checkpoints import versions  # noqa: E402

UPDATES, LONGEST_GAP, KEY_MEDIAN, KEY_P95 = 55.0, 50.0, 40.0, 60.0
SCREEN = ViewportSize(width=1366, height=768)  # of a small laptop (pixels)
MOUSE_REPORTS = 1 / 125  # seconds between two places that a mouse tells, as USB mice do
PLAYGROUND_UPDATES = 30.0  # the one limit for the playground, which draws two clouds of particles

# `frames`: when each frame was there, painted and handed on: a message that is sent while a frame
# is drawn arrives after it.
WATCH = """root => {
  window.frames_at = [];
  window.keys_at = [];
  const channel = new MessageChannel();
  channel.port1.onmessage = () => frames_at.push(performance.now());
  new MutationObserver(() => channel.port2.postMessage(0))
    .observe(root, { attributes: true, attributeFilter: ["data-frames"] });
  root.addEventListener("keydown", (event) => keys_at.push(event.timeStamp), true);
}"""


def drag(handle: Locator, seconds: float) -> dict[str, float]:
    """Drags a slider back and forth; updates a second and the longest gap (ms)."""
    page = handle.page
    handle.scroll_into_view_if_needed()
    box = handle.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    places = [box["x"] + box["width"] * share for share in (0.05, 0.95)]
    page.mouse.move(places[0], y)
    page.mouse.down()
    page.mouse.move(places[0] + 5, y)
    page.wait_for_timeout(200)
    page.evaluate("() => { frames_at.length = 0; }")
    to, position = 1, places[0]
    # Every move reaches another place of the slider: a frame is due each time.
    stops = handle.evaluate("node => (node.max - node.min) / (node.step || 1)")
    step = (places[1] - places[0]) / min(60, 0.9 * stops)
    due = time.monotonic()
    end = due + seconds
    while (now := time.monotonic()) < end:
        time.sleep(max(0.0, due - now))
        due = max(due, now) + MOUSE_REPORTS
        position += step if to else -step
        if not places[0] < position < places[1]:
            to, position = 1 - to, min(max(position, places[0]), places[1])
        page.mouse.move(position, y)
    frames = page.evaluate("() => frames_at")
    page.mouse.up()
    gaps = [after - before for before, after in zip(frames, frames[1:], strict=False)]
    return {
        "updates_per_second": (len(frames) - 1) / (frames[-1] - frames[0]) * 1000,
        "longest_gap_ms": max(gaps),
        "frames": len(frames),
    }


def drags(handle: Locator, seconds: float) -> dict[str, float]:
    """The medians of three drags, and the longest gap of all, with whatever else ran then."""
    each = [drag(handle, seconds) for _ in range(3)]
    medians = {name: statistics.median(one[name] for one in each) for name in each[0]}
    return {**medians, "longest_gap_of_three_ms": max(one["longest_gap_ms"] for one in each)}


def key(handle: Locator, presses: int) -> dict[str, float]:
    """Presses arrow keys; milliseconds from the press until its frame is there."""
    page = handle.page
    handle.focus()
    waits = []
    for press in range(presses):
        page.evaluate("() => { frames_at.length = keys_at.length = 0; }")
        page.keyboard.press("ArrowLeft" if press % 2 else "ArrowRight")
        page.wait_for_function("() => keys_at.length && frames_at.some(at => at > keys_at[0])")
        waits.append(page.evaluate("() => frames_at.find(at => at > keys_at[0]) - keys_at[0]"))
        page.wait_for_timeout(40 + 7 * (press % 5))  # not in step with the frames
    waits.sort()
    return {
        "key_median_ms": statistics.median(waits),
        "key_p95_ms": waits[max(0, round(0.95 * len(waits)) - 1)],
        "presses": presses,
    }


def walk(root: Locator) -> None:
    """Has the playground train, and its particles and the oracle's walk."""
    root.get_by_role("combobox", name="for").select_option("2 seconds")
    root.get_by_role("checkbox", name="exact oracle").check()
    root.get_by_role("button", name="Train").click()
    pause = root.get_by_role("button", name="Pause")
    pause.wait_for(timeout=120_000)  # it plays when all have walked
    pause.click()


def measure(names: list[str], seconds: float, presses: int) -> list[dict]:
    """One row for each explorer."""
    rows = []
    with (
        tempfile.TemporaryDirectory() as scratch,
        running_lab(Path(scratch)) as lab,
        running_chromium() as browser,
    ):
        for name in names:
            with opener(lab, browser) as open_one:
                notebook = open_one(write_notebook(lab, f"speed-{name}", [SETUP, CASES[name]]))
                notebook.page.set_viewport_size(SCREEN)
                notebook.run_all()
                root = notebook.page.locator(".tx[data-frames]").first
                root.wait_for()
                if name == "playground":
                    walk(root)
                root.evaluate(WATCH)
                handle = root.get_by_role("slider", name=DRAGGED[name], exact=True)
                handle.focus()
                drag(handle, 0.5)  # warm
                row = {"explorer": name, **drags(handle, seconds)}
                handle.press("Home")
                rows.append({**row, **key(handle, presses)})
                _print(rows[-1])
    return rows


def _print(row: dict) -> None:
    verdict = "" if _good(row) else "  misses a limit"
    print(
        f"{row['explorer']:18}{row['updates_per_second']:9.1f}{row['longest_gap_ms']:11.1f}"
        f"{row['key_median_ms']:12.1f}{row['key_p95_ms']:10.1f}{verdict}",
        flush=True,
    )


def _good(row: dict) -> bool:
    if row["explorer"] == "playground":
        return row["updates_per_second"] >= PLAYGROUND_UPDATES
    return (
        row["updates_per_second"] >= UPDATES
        and row["longest_gap_ms"] <= LONGEST_GAP
        and row["key_median_ms"] <= KEY_MEDIAN
        and row["key_p95_ms"] <= KEY_P95
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", default=list(CASES), help="explorers, by default all")
    parser.add_argument("--seconds", type=float, default=5.0, help="of dragging (seconds)")
    parser.add_argument("--presses", type=int, default=40, help="of an arrow key")
    parser.add_argument("--json", type=Path, help="file for the rows and the machine")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(CASES))
    if unknown:
        parser.error(f"unknown explorer {unknown[0]!r}; there are {', '.join(CASES)}")
    limits = f"limits: {UPDATES:g} updates/s, {LONGEST_GAP:g} ms, {KEY_MEDIAN:g} ms, {KEY_P95:g} ms"
    print(limits)
    print(f"{'explorer':18}{'updates/s':>9}{'gap (ms)':>11}{'key median':>12}{'key p95':>10}")
    rows = measure(options.names, options.seconds, options.presses)
    if options.json:
        report = {
            "command": " ".join(["python", "benchmarks/explorers.py", *sys.argv[1:]]),
            "device": hardware.describe_device(hardware.pick_device("cpu")),
            "versions": versions(),
            "rows": rows,
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    sys.exit(0 if all(map(_good, rows)) else 1)


if __name__ == "__main__":
    main()
