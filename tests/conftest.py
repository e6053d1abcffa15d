"""What every test shares: one thread, no network, repeatable examples, shapes checked.

Shapes. ``--jaxtyping-packages`` (in pyproject.toml) makes every function of ``tutorial_lib`` check
its annotations whenever a test calls it. A test about *wrong* arguments would then meet the
checker's TypeCheckError before the library's own message, so it carries the marker
``plain_errors``, which calls the library as users do:

    @pytest.mark.plain_errors
    def test_names_the_argument(): ...

    pytestmark = pytest.mark.plain_errors  # or for a whole file
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch loads, so it is set before
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "agg"

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import jaxtyping
import pytest
import torch

if TYPE_CHECKING:
    from tutorial_lib.datasets import Dataset

torch.set_num_threads(1)

hypothesis.settings.register_profile(
    "default",
    derandomize=True,  # the same examples every time, here and in CI
    deadline=None,  # a busy machine is no bug
    print_blob=True,
    database=None,
)
# `pytest --hypothesis-profile=explore` looks for examples that nobody has tried.
hypothesis.settings.register_profile("explore", deadline=None, print_blob=True, max_examples=1000)
hypothesis.settings.load_profile("default")


@pytest.fixture(autouse=True)
def _shapes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Switches the shape checks off for tests that carry ``plain_errors``."""
    plain = request.node.get_closest_marker("plain_errors") is not None
    jaxtyping.config.update("jaxtyping_disable", plain)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def program() -> Callable[..., str]:
    """Runs a command and returns what it printed; it must end well, and within ``seconds``.

    It leads a group of processes, which is killed as a whole where it does not: a child that goes
    on would hold the pipes open, and the tests would wait for it.
    """

    def run(*command: str | Path, seconds: float = 400.0) -> str:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            printed, said = process.communicate(timeout=seconds)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        assert process.returncode == 0, said[-3000:]
        return printed

    return run


@pytest.fixture
def forked(program: Callable[..., str]) -> Callable[[str, Path], dict]:
    """Runs a part of ``forks.py`` in a folder and returns what it found."""
    script = Path(__file__).parent / "training" / "forks.py"
    return lambda what, folder: json.loads(program(sys.executable, script, what, folder))


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    """Every test starts from the same state of torch's default generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """Only this machine can be reached, so no test depends on a server elsewhere."""
    look_up = socket.getaddrinfo

    def only_loopback(host, *args, **kwargs):
        name = host.decode() if isinstance(host, bytes) else host
        if name not in (None, "", "localhost", "127.0.0.1", "::1"):
            raise socket.gaierror(f"tests run without a network, asked for {name}")
        return look_up(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", only_loopback)
        yield


@pytest.fixture(scope="module")
def discs() -> "Dataset":
    """64 images of discs, 8 x 8 RGB, of six classes."""
    from tutorial_lib import datasets  # not above: the shape checks are not in place there yet

    return datasets.circles(64, size=8, seed=0)
