"""The embedding explorer, its part without a browser."""

import math

import pytest
import torch

from tutorial_lib.explorers import EmbeddingExplorer
from tutorial_lib.explorers.embedding.widget import similarities


@pytest.mark.parametrize(("dim", "max_period"), [(4, 10.0), (64, 10000.0), (128, 100000.0)])
def test_similarity_is_the_mean_cosine_of_the_hands_angles_apart(dim: int, max_period: float):
    half = dim // 2
    wanted = [
        sum(math.cos((t - 250) * max_period ** (-i / half)) for i in range(half)) / half
        for t in range(1001)
    ]
    found = similarities(250, 1000, dim, max_period)
    torch.testing.assert_close(found, torch.tensor(wanted), atol=2e-4, rtol=0)
    assert float(found[250]) == pytest.approx(1, abs=1e-5)


def test_what_it_says_are_its_numbers():
    explorer = EmbeddingExplorer(500, dim=32, max_period=1000, t=420)
    similar = similarities(420, 500, 32, 1000.0)
    assert f"{similar[421]:.2f} to step 421, {similar[430]:.2f} to step 430." in repr(explorer)
    assert "520" not in repr(explorer)  # past the last step


def test_at_the_last_step_nothing_follows():
    assert "similar" not in repr(EmbeddingExplorer(100, t=100))


def test_the_still_picture_moves_with_t():
    explorer = EmbeddingExplorer(100)
    data, metadata = explorer._repr_mimebundle_()
    explorer.t = 90
    assert explorer._repr_mimebundle_()[0]["image/png"] != data["image/png"]
    assert metadata["image/png"]["alt"]


def test_it_sends_no_data():
    explorer = EmbeddingExplorer()
    assert not [name for name in explorer.keys if isinstance(getattr(explorer, name), bytes)]


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_steps": 9}, ValueError, "num_steps"),
        ({"num_steps": 4001}, ValueError, r"num_steps must be in \[10, 4000\]"),
        ({"num_steps": 100.0}, TypeError, "num_steps must be an int"),
        ({"dim": 7}, ValueError, "dim must be even"),
        ({"dim": 2}, ValueError, "dim"),
        ({"dim": 130}, ValueError, "dim"),
        ({"max_period": 1.0}, ValueError, "max_period"),
        ({"max_period": float("nan")}, ValueError, "max_period"),
        ({"t": 1001}, ValueError, r"t must be in \[0, 1000\]"),
        ({"t": "now"}, TypeError, "t must be an int"),
    ],
)
def test_wrong_arguments_are_named(options: dict, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        EmbeddingExplorer(**options)


def test_the_page_holds_the_values(tmp_path):
    page = EmbeddingExplorer(200, dim=16, t=7).save_html(tmp_path / "page.html").read_text()
    assert '"dim": 16' in page
    assert '"num_steps": 200' in page
