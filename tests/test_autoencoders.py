"""Autoencoders as files: what is saved comes back, and every damage is noticed."""

import json
from pathlib import Path

import pytest
import torch

from tests.draws import seeded
from tutorial_lib.autoencoders import (
    find_autoencoder,
    load_autoencoder,
    save_autoencoder,
    shipped_autoencoders,
)
from tutorial_lib.checkpoints import CheckpointError
from tutorial_lib.latents import Codec
from tutorial_lib.networks import Autoencoder


def codec(seed: int = 0) -> Codec:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Autoencoder(widths=(8, 16))
    return Codec(network, torch.arange(4.0), torch.arange(1.0, 5.0))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_autoencoder(tmp_path / "small", codec(), card={"steps": 3})


def test_what_is_saved_comes_back(saved: Path):
    expected = codec()
    for name in (saved, saved.with_suffix(""), str(saved.with_suffix(".json"))):
        found = load_autoencoder(name)
        assert found.path == saved
        assert found.card["steps"] == 3
        assert found.card["autoencoder"]["config"] == expected.autoencoder.config
        assert found.checksum == found.card["weights"]["sha256"]
        x = torch.rand(2, 3, 16, 16, generator=seeded())
        assert torch.equal(found.codec.encode(x), expected.encode(x))
        assert torch.equal(
            found.codec.decode(expected.encode(x)), expected.decode(expected.encode(x))
        )
        assert not found.codec.autoencoder.training


def test_the_checksum_is_that_of_weights_and_scale(tmp_path: Path, saved: Path):
    first = load_autoencoder(saved).checksum
    again = save_autoencoder(tmp_path / "again", codec(), card={"steps": 4})
    other = save_autoencoder(tmp_path / "other", codec(1), card={})
    scaled = codec()
    scaled = Codec(scaled.autoencoder, scaled.shift, 2 * scaled.scale)
    double = save_autoencoder(tmp_path / "double", scaled, card={})
    assert load_autoencoder(again).checksum == first
    assert len({first, load_autoencoder(other).checksum, load_autoencoder(double).checksum}) == 3


def test_loading_draws_no_random_numbers(saved: Path):
    before = torch.get_rng_state()
    load_autoencoder(saved)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("place", [0, 40, 0.3, 0.6, -1])
def test_a_changed_byte_is_noticed(saved: Path, place: float):
    content = bytearray(saved.read_bytes())
    at = place if isinstance(place, int) else int(place * len(content))
    content[at] ^= 1
    saved.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"small\.(safetensors|json)"):
        load_autoencoder(saved)


def test_a_truncated_file_and_a_missing_card_are_named(saved: Path):
    content = saved.read_bytes()
    saved.write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match="is truncated"):
        load_autoencoder(saved)
    saved.write_bytes(content)
    saved.with_suffix(".json").unlink()
    with pytest.raises(CheckpointError, match=r"small.json is missing, the card of small"):
        load_autoencoder(saved)


@pytest.mark.filterwarnings("ignore:.*earlier version")
@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("format", 9, "format 9, this version reads 1"),
        ("autoencoder", {"config": 3}, "config must hold arguments"),
        ("autoencoder", {}, "it lacks 'config'"),
        ("autoencoder", {"config": {"widths": [8, 200]}}, "describes .* weights, the file holds"),
        ("autoencoder", {"config": {"widths": [8, 16], "blocks": 200}}, "weights, the file holds"),
        ("autoencoder", {"config": {"wides": [8, 16]}}, "wides"),
        (
            "autoencoder",
            {"config": {"widths": [8, 15]}},
            "does not hold the autoencoder on its car",
        ),
    ],
)
def test_a_card_is_not_believed(saved: Path, part: str, value: object, message: str):
    """As somebody who also makes its checksum anew, or leaves it out, may write it."""
    path = saved.with_suffix(".json")
    card = json.loads(path.read_text())
    del card["weights"]["card_sha256"]
    card[part] = value
    path.write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match=message):
        load_autoencoder(saved)


def test_what_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(CheckpointError, match=r"^no autoencoder at .*/none; those that ship"):
        load_autoencoder(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"no autoencoder at n{300}"):
        find_autoencoder("n" * 300)
    monkeypatch.setattr("tutorial_lib.autoencoders.FOLDER", tmp_path)
    save_autoencoder(tmp_path / "mine", codec(), card={})
    assert shipped_autoencoders() == {"mine": tmp_path / "mine.safetensors"}
    assert load_autoencoder("mine").path == tmp_path / "mine.safetensors"


@pytest.mark.plain_errors
def test_what_cannot_be_saved_is_refused(tmp_path: Path):
    with pytest.raises(TypeError, match="codec must be a Codec"):
        save_autoencoder(tmp_path / "a", Autoencoder(widths=(8, 16)), card={})  # pyright: ignore
    half = codec()
    half.autoencoder.half()
    with pytest.raises(ValueError, match=r"float32 numbers, got torch.float16 in autoencoder\.enc"):
        save_autoencoder(tmp_path / "a", half, card={})
    broken = codec()
    with torch.no_grad():
        next(broken.autoencoder.parameters())[0] = float("nan")
    with pytest.raises(ValueError, match=r"autoencoder\.encoder\.\S+ of codec must be finite"):
        save_autoencoder(tmp_path / "a", broken, card={})
    with pytest.raises(CheckpointError, match=r"cannot write .*/no/a.safetensors"):
        save_autoencoder(tmp_path / "no" / "a", codec(), card={})
    assert not list(tmp_path.iterdir())
