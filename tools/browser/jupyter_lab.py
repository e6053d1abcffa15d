"""A real JupyterLab on this machine, and a headless Chromium that uses it as a learner would.

Context managers and plain functions: the browser tests use them as fixtures, and so does the
benchmark of the explorers.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.client import HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "build" / "screenshots"
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_OPTIONS = [
    "--no-sandbox",  # containers run as root
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
LAB_SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false"},
    # A saved notebook shows its widgets when it is opened again, also without a kernel.
    "@jupyter-widgets/jupyterlab-manager/plugin": {"saveState": True},
    # Every cell is in the page, also those far below, so that a test can find them.
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}
# It logs an error where a kernel is restarted before the debugger has had its answer.
DISABLED = ("@jupyterlab/debugger-extension",)
# What no lesson links to: hidden folders, what was built, downloads.
NOT_COPIED = (".*", "build", "runs", "*.egg-info", "__pycache__", "*MNIST", "cifar-10*")
START_SECONDS = 180  # to find what hangs, on a busy machine as well
RUN_SECONDS = 900  # to find what hangs: no notebook takes nearly as long, however busy the machine
PORTS_TRIED = 5

# Callbacks of a frame run in the order in which they were asked for, so that after two frames
# everything that was due to be painted when this was called is painted.
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
KERNEL = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
KERNEL_IDLE = """() => {
  const session = window.jupyterapp?.shell.currentWidget?.sessionContext;
  return session?.isReady && session.session?.kernel?.status === "idle";
}"""
START_ALL_CELLS = """() => {
  window.allCells = "running";
  window.jupyterapp.commands.execute("notebook:run-all-cells")
    .then(() => { window.allCells = "done"; }, (error) => { window.allCells = String(error); });
}"""
RUN_CELL = """async (index) => {
  jupyterapp.shell.currentWidget.content.activeCellIndex = index;
  await jupyterapp.commands.execute("notebook:run-cell");
}"""
ASK = f"""async (code) => {{
  const future = {KERNEL}.requestExecute({{ code, store_history: false }});
  let text = "";
  future.onIOPub = ({{ content }}) => {{ text += content.text ?? content.evalue ?? ""; }};
  await future.done;
  return text;
}}"""
CODE_CELLS = """() => {
  const cells = [...window.jupyterapp.shell.currentWidget.content.model.cells];
  return cells.map((cell) => cell.toJSON()).filter((cell) => cell.cell_type === "code");
}"""


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: its address, its token, and the folder that it serves."""

    address: str
    token: str
    notebooks: Path

    def page_of(self, name: str) -> str:
        """Where a notebook opens, in a workspace of its own.

        Pages that share one write their layouts over each other's, and a reloaded page would show
        what another had open.
        """
        workspace = secrets.token_hex(4)
        path = f"lab/workspaces/{workspace}/tree/notebooks/{name}"
        return f"{self.address}/{path}?reset&token={self.token}"

    def end_kernel(self, name: str) -> None:
        """Ends the kernel of a notebook, whose memory is wanted for the next."""
        for session in json.load(self._asked("GET", "api/sessions")):
            if session["path"].endswith(f"notebooks/{name}"):
                self._asked("DELETE", f"api/sessions/{session['id']}").close()

    def _asked(self, method: str, path: str) -> HTTPResponse:
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.address}/{path}", headers=headers, method=method)
        return urllib.request.urlopen(request, timeout=START_SECONDS)


@dataclass
class OpenNotebook:
    """A notebook in the browser, with what went wrong on its page so far."""

    name: str
    page: Page
    errors: list[str] = field(default_factory=list)

    def run_all(self, seconds: float = RUN_SECONDS) -> None:
        """*Run All Cells*, and wait for the last.

        Fails where a cell did not run, or raised without the tag ``raises-exception``.
        """
        self.page.evaluate(START_ALL_CELLS)
        self.page.wait_for_function("() => window.allCells !== 'running'", timeout=seconds * 1000)
        for number, cell in enumerate(self.cells(), start=1):
            raised = [o for o in cell["outputs"] if o["output_type"] == "error"]
            if "raises-exception" not in cell["metadata"].get("tags", []):
                assert not raised, f"{self.name}, code cell {number}: {raised[0]['evalue']}"
            if "".join(cell["source"]).strip():
                assert cell["execution_count"], f"{self.name}, code cell {number} did not run"
        assert self.page.evaluate("window.allCells") == "done"

    def cells(self) -> list[dict]:
        """The code cells as the notebook holds them now, outputs included."""
        return self.page.evaluate(CODE_CELLS)

    def ask(self, code: str) -> str:
        """What the kernel prints for `code`, or the message of what it raises."""
        return self.page.evaluate(ASK, code)

    def restart_kernel(self) -> None:
        """Restarts the kernel once it has nothing to do, and waits until the new one answers."""
        self.page.wait_for_function(KERNEL_IDLE)
        self.page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
        assert self.ask("print('up')").strip() == "up"

    @contextlib.contextmanager
    def deaf_kernel(self) -> Iterator[None]:
        """Meanwhile the kernel hears and says nothing, as in a long cell of foreign code."""
        kernel = int(self.ask("import os; print(os.getpid())"))
        os.kill(kernel, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(kernel, signal.SIGCONT)

    def screenshot(self, suffix: str = "") -> Path:
        """A picture of the whole notebook, from its first cell to its last."""
        height = self.page.evaluate(
            "() => Math.ceil(document.querySelector('.jp-WindowedPanel-inner').scrollHeight)"
        )
        size = self.page.viewport_size
        assert size is not None
        self.page.set_viewport_size({"width": size["width"], "height": min(height + 150, 16_000)})
        self.page.evaluate(
            "() => { document.querySelector('.jp-WindowedPanel-outer').scrollTop = 0; }"
        )
        painted(self.page)
        path = SCREENSHOTS / f"{Path(self.name).stem}{suffix}.png"
        self.page.screenshot(path=path)
        self.page.set_viewport_size(size)
        return path


def painted(page: Page) -> None:
    """Waits until all is painted that is due now: what changes later was not due."""
    page.evaluate(TWO_FRAMES)


def in_time(holds: Callable[[], bool]) -> bool:
    """Whether it holds, now or within START_SECONDS: asked again and again until it does."""
    end = time.monotonic() + START_SECONDS
    while not (held := holds()) and time.monotonic() < end:
        time.sleep(0.05)
    return held


@contextlib.contextmanager
def running_lab(scratch: Path) -> Iterator[Lab]:
    """A JupyterLab that serves a copy of the course, made under ``scratch``.

    A copy, because JupyterLab saves what is opened; in a folder with a space, because some have.
    """
    course = scratch / "my course"
    shutil.copytree(ROOT, course, ignore=shutil.ignore_patterns(*NOT_COPIED))
    settings = scratch / "settings"
    for plugin, value in LAB_SETTINGS.items():
        file = settings / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value))
    page_config = settings / "config" / "labconfig" / "page_config.json"
    page_config.parent.mkdir(parents=True)
    page_config.write_text(json.dumps({"disabledExtensions": dict.fromkeys(DISABLED, True)}))
    # Kernels listen on sockets in this folder: a port that is free when a kernel is told of it may
    # be taken by the time it starts. In /tmp, since the path of a socket has room for 100 letters.
    with tempfile.TemporaryDirectory(prefix="lab", dir="/tmp") as runtime:
        server, address, token = _started_lab(course, settings, runtime)
        try:
            yield Lab(address, token, course / "notebooks")
        finally:
            server.terminate()
            server.wait(timeout=20)


def _started_lab(
    course: Path, settings: Path, runtime: str
) -> tuple[subprocess.Popen[bytes], str, str]:
    """A JupyterLab that answers, its address and its token.

    Another program may take the port between our look at it and the server's start: then the
    server ends, and another port is tried.
    """
    token, log = secrets.token_hex(16), settings / "lab.log"
    for _ in range(PORTS_TRIED):
        port = _free_port()
        with log.open("w") as out:
            server = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "jupyterlab",
                    "--no-browser",
                    "--allow-root",
                    "--ServerApp.ip=127.0.0.1",
                    f"--ServerApp.port={port}",
                    "--ServerApp.port_retries=0",
                    f"--ServerApp.root_dir={course}",
                    f"--IdentityProvider.token={token}",
                    "--KernelManager.transport=ipc",
                    "--LabApp.expose_app_in_browser=True",  # as window.jupyterapp
                    "--LabApp.extension_manager=readonly",  # the other one asks a server elsewhere
                ],
                stdout=out,
                stderr=out,
                env={
                    # Without the tests' own choice of a backend: kernels draw into the notebook.
                    **{key: value for key, value in os.environ.items() if key != "MPLBACKEND"},
                    "JUPYTERLAB_SETTINGS_DIR": str(settings),
                    "JUPYTERLAB_WORKSPACES_DIR": str(settings / "workspaces"),
                    "JUPYTER_RUNTIME_DIR": runtime,
                    "JUPYTER_CONFIG_DIR": str(settings / "config"),
                },
            )
        if _answers(f"http://127.0.0.1:{port}/api?token={token}", server):
            return server, f"http://127.0.0.1:{port}", token
        server.kill()
        server.wait()
        if "already in use" not in log.read_text():
            break
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()}")


@contextlib.contextmanager
def running_chromium() -> Iterator[Browser]:
    """A headless Chromium: $CHROMIUM, or the first found on the PATH."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), "")
    if not found:
        raise RuntimeError("no Chromium: install one (apt install chromium) or set CHROMIUM to it")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=CHROMIUM_OPTIONS)
        yield chromium
        chromium.close()


def write_notebook(lab: Lab, name: str, cells: Sequence[str]) -> str:
    """A notebook of code cells in the folder that the lab serves; returns its file's name."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, lab.notebooks / f"{name}.ipynb")
    return f"{name}.ipynb"


@contextlib.contextmanager
def opener(lab: Lab, browser: Browser) -> Iterator[Callable[[str], OpenNotebook]]:
    """What opens notebooks; at the end it takes screenshots, closes, and fails on any error."""
    opened: list[OpenNotebook] = []

    def open_one(name: str) -> OpenNotebook:
        page = browser.new_page(viewport={"width": 1280, "height": 1600})
        notebook = OpenNotebook(name, page)
        opened.append(notebook)

        def on_console(message: ConsoleMessage) -> None:
            if message.type == "error":
                notebook.errors.append(f"{message.text} ({message.location.get('url', '')})")

        def refuse(route: Route) -> None:
            notebook.errors.append(f"asked for {route.request.url}, but the course works offline")
            route.abort()

        page.set_default_timeout(START_SECONDS * 1000)
        page.on("console", on_console)
        page.on("pageerror", lambda error: notebook.errors.append(str(error)))
        page.route(lambda url: urlsplit(url).hostname not in ("127.0.0.1", None), refuse)
        page.goto(lab.page_of(name))
        page.wait_for_function(KERNEL_IDLE)
        return notebook

    yield open_one
    for notebook in opened:
        notebook.screenshot()
        notebook.page.close()
        lab.end_kernel(notebook.name)
    errors = [f"{notebook.name}: {error}" for notebook in opened for error in notebook.errors]
    assert not errors, "\n".join(errors)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _answers(address: str, server: subprocess.Popen[bytes]) -> bool:
    """Whether the server answers, within START_SECONDS and before it ends."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return True
        except OSError:
            time.sleep(0.1)
    return False
