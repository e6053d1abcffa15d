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

import socket
from collections.abc import Iterator

import hypothesis
import jaxtyping
import pytest
import torch

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
