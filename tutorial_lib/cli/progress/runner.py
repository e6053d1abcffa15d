"""Runs one notebook in a kernel, and sees to it that nothing outlives it.

``running`` starts this program as a process of its own, so that a notebook that fills the memory,
kills its parent or speaks nonsense harms nobody else. It reads what to do as JSON from stdin and
writes what happened to stdout. It imports nothing of the library, which makes it start quickly,
and reads nothing of the kernel but its replies: no output, no display, no widget.
"""

import ctypes
import json
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any

import psutil
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import KernelManager

START_SECONDS = 120.0
"""How long a kernel may take to start."""

LONGEST_ERROR = 200
"""Characters kept of an error's text."""

SUBREAPER, PARENT_DEATH = 36, 1
"""Numbers of Linux's prctl: adopt orphaned descendants; a signal for when the parent dies."""


class StoppedError(Exception):
    """The notebook cannot go on; the text says why."""


class _OwnPython(KernelSpecManager):
    """Knows one kernel: this Python, whatever kernels are installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        # -P and ignore_cwd: no file beside the notebook takes the place of an installed package
        words = [sys.executable, "-P", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        words += ["--IPKernelApp.ignore_cwd=True", "--HistoryManager.enabled=False"]
        return KernelSpec(argv=words, display_name="Python", language="python")


def main() -> None:
    """Runs what stdin asks for."""
    order = json.load(sys.stdin)
    happened: dict[str, Any] = {"errors": [], "ended": None}
    _prepare()
    try:
        run(order, happened)
    except StoppedError as stop:
        happened["ended"] = str(stop)
    finally:
        kill_descendants()
    json.dump(happened, sys.stdout)


def run(order: dict[str, Any], happened: dict[str, Any]) -> None:
    """Runs the cells one after the other.

    Args:
        order: ``cells``, their sources; ``folder``, where the kernel runs; ``environment``;
            ``cell_seconds`` and ``notebook_seconds``, how long a cell and all of them may take;
            ``stop_seconds``, how long a cell may take to stop after it was interrupted.
        happened: ``errors`` grows by the index and the text of each cell that raised.

    Raises:
        StoppedError: the kernel died, or time is over.
    """
    end = time.monotonic() + order["notebook_seconds"]
    manager = KernelManager(kernel_name="python", kernel_spec_manager=_OwnPython())
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    manager.start_kernel(cwd=order["folder"], env=order["environment"], **quiet)
    client = manager.blocking_client()
    client.start_channels(iopub=False, stdin=False, hb=False, control=False)
    kernel = _Kernel(manager, client, order["stop_seconds"])
    # helper modules beside the notebook are found, after all that is installed
    first = f"(lambda: __import__('sys').path.append({order['folder']!r}))()"
    kernel.execute(first, START_SECONDS, silent=True)
    for number, source in enumerate(order["cells"]):
        if source is None:  # not code
            continue
        left = end - time.monotonic()
        seconds = order["cell_seconds"]
        error = kernel.execute(source, min(seconds, max(left, 0.0)), name=f"cell {number + 1}")
        if error:
            happened["errors"].append({"cell": number, "error": error})
        if time.monotonic() >= end:
            raise StoppedError(f"stopped after {order['notebook_seconds']:g} seconds")


class _Kernel:
    """A kernel that executes one thing after the other."""

    def __init__(
        self, manager: KernelManager, client: BlockingKernelClient, stop_seconds: float
    ) -> None:
        self._manager, self._client, self._stop_seconds = manager, client, stop_seconds

    def execute(
        self, source: str, seconds: float, *, silent: bool = False, name: str = "the kernel"
    ) -> str | None:
        """The error that ``source`` raises as text, or None; interrupted after ``seconds``.

        Raises:
            StoppedError: the kernel died, or took no notice of being interrupted.
        """
        sent = self._client.execute(source, silent=silent, allow_stdin=False, stop_on_error=False)
        reply = self._reply(sent, seconds)
        if reply is None:
            self._manager.interrupt_kernel()
            reply = self._reply(sent, self._stop_seconds)
        if reply is None:
            text = f"{name} ran out of time: it did not stop when it was interrupted"
            raise StoppedError(f"{text} after {seconds:g} seconds")
        if reply.get("status") == "ok":
            return None
        text = f"{reply.get('ename', 'Error')}: {reply.get('evalue', '')}"
        return textwrap.shorten(text[:10_000], LONGEST_ERROR)

    def _reply(self, sent: str, seconds: float) -> dict[str, Any] | None:
        """The content of the reply to the message ``sent``; None if it does not come in time."""
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            alive = self._manager.is_alive()
            if self._client.shell_channel.socket.poll(int(1000 * min(max(left, 0.0), 0.5))):
                message = self._client.get_shell_msg(timeout=1)
                if message["parent_header"].get("msg_id") == sent:
                    return message["content"]
            elif not alive:
                raise StoppedError("the kernel died")
            elif left <= 0:
                return None


def _prepare() -> None:
    """Adopts what the kernel leaves behind, dies with the parent, and is the first to go when
    memory runs out; the last two hold on Linux only."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if adopt_orphans(True):
        ctypes.CDLL(None).prctl(PARENT_DEATH, int(signal.SIGTERM), 0, 0, 0)
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")


def adopt_orphans(yes: bool) -> bool:
    """Whether this process becomes the parent of descendants whose parent has died.

    Returns:
        Whether the system can do that; only Linux can.
    """
    if sys.platform != "linux":
        return False
    ctypes.CDLL(None).prctl(SUBREAPER, int(yes), 0, 0, 0)
    return True


def descendants() -> set[psutil.Process]:
    """The processes that this one has started or adopted, and theirs."""
    return set(psutil.Process().children(recursive=True))


def kill_descendants(
    spared: frozenset[psutil.Process] = frozenset(), seconds: float = 10.0
) -> None:
    """Kills every descendant but ``spared``, again and again until there is none."""
    end = time.monotonic() + seconds
    while (left := descendants() - spared) and time.monotonic() < end:
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(list(left), timeout=0.5)


if __name__ == "__main__":
    main()
