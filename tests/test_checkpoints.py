"""Checkpoints: what is loaded is what was saved, and no failure in between loses one."""

import errno
import hashlib
import json
import os
import pickle
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from tests.damage import Code, edit_card, flip_a_bit
from tutorial_lib import checkpoints, predictions, samplers, schedules
from tutorial_lib.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from tutorial_lib.networks.unet import TinyUNet, TwoLevelUNet

pytestmark = pytest.mark.plain_errors
SCHEDULE = schedules.linear_schedule(20)
CARD = {"dataset": {"name": "noise", "image_shape": [1, 8, 8], "class_names": ["a", "b", "c"]}}


def network(seed: int = 0, **settings) -> TinyUNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = TinyUNet(**{"in_channels": 1, "widths": (8, 8), **settings})
        for parameter in net.parameters():  # a layer at zero would hide mistakes
            nn.init.normal_(parameter, std=0.3)
    return net


def save(path: Path, net: nn.Module, **settings) -> Path:
    return save_checkpoint(path, net, SCHEDULE, card=CARD, **settings)


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def noisy(seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 1, 8, 8, generator=generator), torch.tensor([1, 10, 20])


# --- saving and loading ---------------------------------------------------------------------------


@pytest.mark.parametrize("target", predictions.TARGETS)
def test_what_is_loaded_is_what_was_saved(tmp_path: Path, target: str) -> None:
    net = network().eval()
    path = save(tmp_path / "net", net, target=target)
    loaded = load_checkpoint(path)
    assert not loaded.network.training
    assert loaded.network.state_dict().keys() == net.state_dict().keys()
    for name, value in net.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value)
    assert torch.equal(loaded.schedule.alpha_bar, SCHEDULE.alpha_bar)
    wrapped = predictions.TARGETS[target](net, SCHEDULE)
    x_t, t = noisy()
    with torch.no_grad():
        assert torch.equal(loaded.model(x_t, t), wrapped(x_t, t))
        walk = samplers.evenly_spaced(20, 5)
        drawn = [
            samplers.last(samplers.ddim(model, SCHEDULE, x_t, walk))
            for model in (loaded.model, wrapped)
        ]
    assert torch.equal(*drawn)


def test_classes_are_loaded(tmp_path: Path) -> None:
    net = network(num_classes=3).eval()
    save(tmp_path / "net", net)
    loaded = load_checkpoint(tmp_path / "net")
    assert loaded.class_names == ("a", "b", "c")
    assert loaded.image_shape == (1, 8, 8)
    (x_t, t), labels = noisy(), torch.tensor([0, 2, 1])
    with torch.no_grad():
        assert torch.equal(loaded.conditioned(labels)(x_t, t), net(x_t, t, labels))
        assert not torch.equal(loaded.model(x_t, t), net(x_t, t, labels))
    save(tmp_path / "plain", network())
    assert load_checkpoint(tmp_path / "plain").class_names == ()


class ReadsWords(nn.Module):
    """A network for images that is told sentences (B, 2) of words 0..4."""

    no_condition = torch.zeros(2, dtype=torch.int64)

    def __init__(self) -> None:
        super().__init__()
        self.word = nn.Embedding(5, 8)

    def forward(self, x_t: Tensor, t: Tensor, words: Tensor | None = None) -> Tensor:
        words = self.no_condition.expand(len(x_t), -1) if words is None else words
        return x_t + self.word(words).sum(1)[:, None, None]  # (B, 2, 8) -> (B, 1, 1, 8)


@pytest.mark.parametrize("target", ["eps", "v"])
def test_a_condition_may_be_words(tmp_path: Path, target: str) -> None:
    net = ReadsWords()
    save(tmp_path / "net", net, target=target)
    loaded = load_checkpoint(tmp_path / "net", network=ReadsWords())
    assert loaded.class_names == ()
    (x_t, t), words = noisy(), torch.tensor([[1, 4], [0, 0], [4, 1]])
    said = x_t + (net.word.weight[words[:, 0]] + net.word.weight[words[:, 1]])[:, None, None]
    if target == "v":
        signal, noise = (
            rate[t][:, None, None, None] for rate in (SCHEDULE.signal_rate, SCHEDULE.noise_rate)
        )
        said = (signal * said + noise * x_t).float()
    with torch.no_grad():
        assert_close(loaded.conditioned(words)(x_t, t), said)
        same = loaded.conditioned(words)(x_t, t) == loaded.model(x_t, t)
    assert same.flatten(1).all(1).tolist() == [False, True, False]  # [0, 0] is "no condition"


def test_targets_keep_their_old_import_path() -> None:
    assert checkpoints.TARGETS is predictions.TARGETS
    assert checkpoints.as_eps_model is predictions.as_eps_model


def test_a_network_that_is_passed_is_filled_in_place(tmp_path: Path) -> None:
    """An optimizer made before the load still holds the network's parameters."""
    net, own = network(), network(seed=1)
    save(tmp_path / "net", net)
    before = list(own.parameters())
    loaded = load_checkpoint(tmp_path / "net", network=own)
    assert loaded.network is own
    for old, new, saved in zip(before, own.parameters(), net.parameters(), strict=True):
        assert new is old
        assert torch.equal(new, saved)


def test_the_card_is_correct(tmp_path: Path) -> None:
    net = network()
    path = save(tmp_path / "net", net, target="v")
    card = json.loads((tmp_path / "net.json").read_text())
    content = path.read_bytes()
    own = card["weights"].pop("card_sha256")
    text = json.dumps(card, sort_keys=True, separators=(",", ":"))
    assert own == hashlib.sha256(text.encode()).hexdigest()
    assert card["weights"] == {
        "file": "net.safetensors",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    assert card["network"]["class"] == "TinyUNet"
    assert TinyUNet(**card["network"]["config"]).config == net.config
    assert card["network"]["parameters"] == sum(p.numel() for p in net.parameters())
    assert card["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert card["target"] == "v"
    assert card["dataset"] == CARD["dataset"]


def test_global_random_state_is_left_alone(tmp_path: Path) -> None:
    net = network()
    before = torch.get_rng_state()
    save(tmp_path / "net", net)
    load_checkpoint(tmp_path / "net")
    assert torch.equal(torch.get_rng_state(), before)


def test_every_way_to_name_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "v1.5", network())
    for name in ("v1.5", "v1.5.safetensors", "v1.5.json", ""):  # "" is the folder
        assert load_checkpoint(tmp_path / name).path == path
        assert load_checkpoint(str(tmp_path / name)).path == path
    monkeypatch.setattr(checkpoints, "SHIPPED", tmp_path)
    monkeypatch.chdir("/")
    assert load_checkpoint("v1.5").path == path
    assert checkpoints.shipped() == {"v1.5": path}


def test_newest_of_a_run_folder(tmp_path: Path) -> None:
    for steps in (2000, 300, 10000):
        save(tmp_path / f"step-{steps:08d}", network(steps))
    assert load_checkpoint(tmp_path).path.stem == "step-00010000"
    save(tmp_path / "best", network())
    with pytest.raises(CheckpointError, match=r"several checkpoints \(best, .*: name one of them"):
        load_checkpoint(tmp_path)


def test_a_network_of_another_class_is_passed(tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
            return self.layer(x_t)

    net = Own()
    save(tmp_path / "own", net)
    with pytest.raises(CheckpointError, match=r"own.safetensors holds a Own, .*network=\.\.\."):
        load_checkpoint(tmp_path / "own")
    other = Own()
    loaded = load_checkpoint(tmp_path / "own", network=other)
    assert loaded.network is other
    assert torch.equal(other.layer.weight, net.layer.weight)


# --- damaged and foreign files --------------------------------------------------------------------


def restate_weights(path: Path) -> None:
    """Makes the card state the checksum and the size of the weights file as it is now."""
    content = path.read_bytes()
    stated = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    edit_card(lambda card: card["weights"].update(stated))(path)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights missing": (lambda p: p.unlink(), r"net.safetensors is missing, though net.json"),
    "card missing": (lambda p: p.with_suffix(".json").unlink(), r"net.json is missing, the card"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-5]), r"net.safetensors is truncated"),
    "empty": (lambda p: p.write_bytes(b""), r"net.safetensors is truncated: 0 of \d+ bytes"),
    "a bit flipped": (flip_a_bit, r"net.safetensors is corrupt: its checksum"),
    "longer": (lambda p: p.write_bytes(p.read_bytes() + b"x"), r"net.safetensors is corrupt"),
    "a pickle": (lambda p: p.write_bytes(pickle.dumps(Code())), r"net.safetensors is a pickle"),
    "torch.save": (lambda p: torch.save({"a": 1}, p), r"net.safetensors is a pickle"),
    "card cut": (
        lambda p: p.with_suffix(".json").write_text('{"format": 1, "wei'),
        r"net.json is not the card of net.safetensors: Unterminated string",
    ),
    "card a list": (
        lambda p: p.with_suffix(".json").write_text("[]"),
        r"net.json is not the card of net.safetensors: list indices",
    ),
    "card not text": (
        lambda p: p.with_suffix(".json").write_bytes(b"\xff\xfe\x00"),
        r"net.json is not the card of net.safetensors: .*codec can't decode",
    ),
    "card without network": (edit_card(lambda c: c.pop("network")), r"net.json .* lacks 'network'"),
    "card of the future": (edit_card(lambda c: c.update(format=9)), r"net.json has format 9"),
    "unknown target": (
        edit_card(lambda c: c.update(target="w")),
        r"net.json .* target must be one of eps, v, x0, velocity, got str 'w'",
    ),
    "unknown class": (
        edit_card(lambda c: c["network"].update({"class": "os.system"})),
        r"net.safetensors holds a os.system, not one of TinyUNet, TwoLevelUNet",
    ),
    "config of another": (
        edit_card(lambda c: c["network"]["config"].update(depth=3)),
        r"does not describe a TinyUNet: .*'depth'",
    ),
    "config no dict": (
        edit_card(lambda c: c["network"].update(config=None)),
        r"does not describe a TinyUNet",
    ),
    "another architecture": (
        edit_card(lambda c: c["network"]["config"].update(widths=[8, 16])),
        r"net.safetensors is for another architecture than this TinyUNet: .* has shape .* more",
    ),
    "class a list": (
        edit_card(lambda c: c["network"].update({"class": ["TinyUNet"]})),
        r"net.json .* class of network is list \['TinyUNet'\]",
    ),
    "target a list": (
        edit_card(lambda c: c.update(target=["eps"])),
        r"net.json .* target must be one of eps, v, x0, velocity, got list \['eps'\]",
    ),
    "too many classes": (
        edit_card(lambda c: c["network"]["config"].update(num_classes=10**18)),
        r"does not describe a TinyUNet",
    ),
    "card too deep": (
        lambda p: p.with_suffix(".json").write_text("[" * 100_000),
        r"net.json is not the card of net.safetensors: .*recursion",
    ),
    "endless weights": (
        edit_card(lambda c: c["weights"].update(bytes=float("inf"))),
        r"net.json is not the card of net.safetensors: it states bytes: float inf",
    ),
    "another depth": (
        edit_card(lambda c: c["network"]["config"].update(widths=[8])),
        r"for another architecture than this TinyUNet: levels\..* (missing|not part of it)",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files_are_named_and_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "net", network())
    damage, message = DAMAGES[name]
    damage(path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pickle-ran").exists()


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1)}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"model.pt is a pickle, which could run code"):
        load_checkpoint(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nothing; those that ship with"):
        load_checkpoint(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"empty holds no checkpoint"):
        load_checkpoint(tmp_path / "empty")
    path = save(tmp_path / "net", TwoLevelUNet(1, 8))
    safetensors.torch.save_file({"network.stem.weight": torch.ones(1)}, path)
    restate_weights(path)
    with pytest.raises(CheckpointError, match=r"lacks 'schedule.alpha_bar'"):
        load_checkpoint(path)
    rising = {"schedule.alpha_bar": torch.tensor([1.0, 0.5, 0.7])}
    safetensors.torch.save_file(rising, path)
    restate_weights(path)
    with pytest.raises(CheckpointError, match=r"hold a valid noise schedule: alpha_bar must fall"):
        load_checkpoint(path)
    path = save(tmp_path / "net", network())
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file(
        tensors | {"network.stem.weight": tensors["network.stem.weight"] > 0}, path
    )
    restate_weights(path)
    with pytest.raises(CheckpointError, match=r"stem.weight has dtype torch.bool, expected torch"):
        load_checkpoint(path)


def test_a_header_length_that_looks_like_a_pickle_is_not_one(tmp_path: Path) -> None:
    """A safetensors header of 640 bytes makes the file begin with the first bytes of a pickle."""
    for width in range(1, 600):
        net = nn.Module()
        net.register_parameter("w" * width, nn.Parameter(torch.ones(1)))
        path = save(tmp_path / "net", net)
        if path.read_bytes().startswith(b"\x80\x02"):
            break
    else:
        pytest.fail("no name makes a header of 640 bytes")
    assert load_checkpoint(path, network=net).network is net


# --- saving that fails ----------------------------------------------------------------------------


def replaces(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets ``count`` moves happen, then interrupts."""
    real, left = os.replace, iter(range(count))

    def replace(source, target) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)


@pytest.mark.parametrize("moves", [0, 1])
@pytest.mark.parametrize("there_before", [True, False])
def test_a_save_interrupted_between_its_moves_leaves_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int, there_before: bool
) -> None:
    old, new, newest = network(1), network(2), network(3)
    if there_before:
        save(tmp_path / "net", old)
    with monkeypatch.context() as patch:
        replaces(moves, patch)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path / "net", new)
    expected = new if moves else old
    if not there_before and not moves:
        with pytest.raises(CheckpointError, match="no checkpoint at"):
            load_checkpoint(tmp_path / "net")
    else:
        loaded = load_checkpoint(tmp_path / "net")
        assert torch.equal(loaded.network.state_dict()["stem.weight"], expected.stem.weight)
        # even if the next save finds the disk full
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", no_space)
            with pytest.raises(CheckpointError, match="No space left"):
                save(tmp_path / "net", newest)
        loaded = load_checkpoint(tmp_path / "net")
        assert torch.equal(loaded.network.state_dict()["stem.weight"], expected.stem.weight)
    save(tmp_path / "net", newest)
    loaded = load_checkpoint(tmp_path / "net")
    assert torch.equal(loaded.network.state_dict()["stem.weight"], newest.stem.weight)
    assert files_in(tmp_path).keys() == {"net.safetensors", "net.json"}


def no_space(*args: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("good_writes", [0, 1])
def test_no_space_while_saving_keeps_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good_writes: int
) -> None:
    """There is no space for the weights, or none for the card."""
    save(tmp_path / "net", network(1))
    before = files_in(tmp_path)
    real, left = os.fsync, iter(range(good_writes))

    def fsync(handle: int) -> None:
        (real if next(left, None) is not None else no_space)(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    message = r"cannot write .*net.safetensors: No space left .* the checkpoint before it is whole"
    with pytest.raises(CheckpointError, match=message):
        save(tmp_path / "net", network(2))
    assert files_in(tmp_path) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 192 KiB, if this machine allows mounting one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", str(place)]
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def free_pages(folder: Path) -> int:
    return os.statvfs(folder).f_bavail * os.statvfs(folder).f_bsize // 4096


def test_a_full_disk_keeps_the_checkpoint_before(small_disk: Path) -> None:
    save(small_disk / "net", network(1))
    before = files_in(small_disk)
    pages = -(-len(before["net.safetensors"]) // 4096)  # of 4096 bytes, as tmpfs counts
    # space for the weights but not the card, for half of the weights, for nothing
    for left in (pages, pages // 2, 0):
        (small_disk / "filler").write_bytes(bytes(4096 * (free_pages(small_disk) - left)))
        assert free_pages(small_disk) == left
        with pytest.raises(CheckpointError, match="No space left"):
            save(small_disk / "net", network(2))
        (small_disk / "filler").unlink()
        assert files_in(small_disk) == before
    save(small_disk / "net", network(2))
    load_checkpoint(small_disk / "net")


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot write .*net.safetensors: No such file"):
        save(tmp_path / "nowhere" / "net", network())
    with pytest.raises(ValueError, match="target must be one of eps, v, x0, velocity; got 'noise'"):
        save(tmp_path / "net", network(), target="noise")
    assert not list(tmp_path.iterdir())
