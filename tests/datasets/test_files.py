"""Data sets from files: through torchvision, from folders, and downloads that fail."""

import contextlib
import functools
import gzip
import hashlib
import http.server
import io
import os
import pickle
import shutil
import socket
import struct
import tarfile
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from torch.testing import assert_close

from tutorial_lib.datasets import Dataset, circles, downloads, glyphs, load
from tutorial_lib.datasets import files as datasets

ROOT = Path(__file__).resolve().parents[2]
IDX_NAMES = {"train": "train", "test": "t10k"}


def idx(values: np.ndarray) -> bytes:
    """An array of bytes in the format of the MNIST files."""
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return header + values.astype(np.uint8).tobytes()


def idx_files(folder: Path, counts: dict[str, int]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Writes four small MNIST-like files; returns their pixels and labels by split."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, written = np.random.default_rng(0), {}
    for split, count in counts.items():
        pixels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        (folder / f"{IDX_NAMES[split]}-images-idx3-ubyte").write_bytes(idx(pixels))
        (folder / f"{IDX_NAMES[split]}-labels-idx1-ubyte").write_bytes(idx(labels))
        written[split] = (pixels, labels)
    return written


@pytest.fixture(scope="module")
def mnist_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of MNIST on this machine, or else of a small set in the same format."""
    for place in (os.environ.get("TUTORIAL_DATA"), ROOT.parent / "shared" / "datasets"):
        if place and datasets.is_here("mnist", place):
            return Path(place)
    root = tmp_path_factory.mktemp("mnist")
    idx_files(root / "MNIST" / "raw", {"train": 60, "test": 30})
    return root


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every download fails; the list contains the addresses that were requested."""
    asked: list[str] = []

    def refuse(request, *args, **kwargs):
        asked.append(request.full_url)
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked


# --- load


@pytest.mark.parametrize(("name", "shape"), [("circles", (3, 32, 32)), ("glyphs", (1, 28, 28))])
def test_drawn_sets_have_the_promised_counts_and_splits(name: str, shape: tuple[int, ...]):
    train, test = load(name), load(name, split="test")
    assert train.images.shape == (10_000, *shape)
    assert test.images.shape == (2_000, *shape)
    assert not (test.images[:100, None] == train.images[None, :100]).flatten(2).all(2).any()
    assert torch.equal(load(name, split="test", seed=0).images, test.images)
    assert not torch.equal(load(name, split="test", seed=1).images, test.images)
    direct = {"circles": circles, "glyphs": glyphs}[name]
    assert torch.equal(train.images[:50], direct(50).images)


def test_a_set_of_your_own_loads_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    asked = []

    def mine(*, size: int | None, split: str, root: Path, seed: int) -> Dataset:
        asked.append((size, split, root, seed))
        return circles(3, size=8)

    monkeypatch.setitem(datasets.DATASETS, "mine", mine)
    assert len(load("mine", split="test", root=tmp_path, seed=4)) == 3
    assert asked == [(None, "test", tmp_path, 4)]
    assert datasets.is_here("mine")


def test_drawn_sets_have_the_requested_size():
    assert torch.equal(load("glyphs", size=12).images[:20], glyphs(20, size=12).images)
    assert torch.equal(load("circles", size=12).images[:20], circles(20, size=12).images)


@pytest.mark.parametrize("split", ["train", "test"])
def test_mnist_is_what_the_files_hold(mnist_root: Path, split: str):
    data = load("mnist", split=split, root=mnist_root)
    raw = mnist_root / "MNIST" / "raw"
    content = (raw / f"{IDX_NAMES[split]}-images-idx3-ubyte").read_bytes()
    pixels = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 1, 28, 28)
    expected = (pixels[:50] / 127.5 - 1).astype(np.float32)
    assert len(data) == len(pixels)
    assert_close(data.images[:50], torch.from_numpy(expected), atol=1e-6, rtol=0)
    content = (raw / f"{IDX_NAMES[split]}-labels-idx1-ubyte").read_bytes()
    assert data.labels.tolist() == list(content[8:])
    assert data.class_names == tuple("0123456789")


def test_mnist_is_resized_with_anti_aliasing(mnist_root: Path):
    """Against Pillow's resize of floating-point pixels, both clamped."""
    native = load("mnist", split="test", root=mnist_root).images[:20, 0]
    small = load("mnist", split="test", root=mnist_root, size=14).images[:20, 0]
    for image, mine in zip(native, small, strict=True):
        picture = Image.fromarray(image.numpy()).resize((14, 14), Image.Resampling.BICUBIC)
        assert_close(mine, torch.from_numpy(np.array(picture)).clamp(-1, 1), atol=1e-5, rtol=0)


def test_where_data_is_stored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("TUTORIAL_DATA", raising=False)
    assert datasets.data_root() == ROOT / "data"
    monkeypatch.setenv("TUTORIAL_DATA", str(tmp_path / "there"))
    assert datasets.data_root() == tmp_path / "there"
    assert datasets.data_root(tmp_path) == tmp_path
    idx_files(tmp_path / "there" / "FashionMNIST" / "raw", {"train": 11, "test": 10})
    assert datasets.is_here("fashion_mnist")
    assert not datasets.is_here("fashion_mnist", tmp_path)
    assert datasets.is_here("circles", tmp_path)
    data = load("fashion_mnist")
    assert len(data) == 11
    assert data.class_names[9] == "Ankle boot"


def test_outside_a_repository_data_is_stored_in_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.delenv("TUTORIAL_DATA", raising=False)
    monkeypatch.setattr(
        datasets, "__file__", str(tmp_path / "site" / "lib" / "datasets" / "files.py")
    )
    monkeypatch.chdir(tmp_path)
    assert datasets.data_root() == tmp_path / "data"


def test_cifar10_keeps_channels_and_class_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A small set in the same format, downloaded as an archive from a server on this machine."""
    rng, archive = np.random.default_rng(0), io.BytesIO()
    pixels = rng.integers(0, 256, (6, 2, 3 * 32 * 32), dtype=np.uint8)
    batches = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    contents = {
        name: pickle.dumps({"data": pixels[i], "labels": [i, 9 - i]})
        for i, name in enumerate(batches)
    }
    contents["batches.meta"] = pickle.dumps({"label_names": [f"thing {i}" for i in range(10)]})
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in contents.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    served = tmp_path / "served"
    served.mkdir()
    (served / "small.tar.gz").write_bytes(archive.getvalue())
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    maker = torchvision.datasets.CIFAR10
    monkeypatch.setattr(maker, "train_list", [[name, md5[name]] for name in batches[:5]])
    monkeypatch.setattr(maker, "test_list", [[batches[5], md5[batches[5]]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5["batches.meta"]}
    monkeypatch.setattr(maker, "meta", meta)
    monkeypatch.setattr(maker, "filename", "small.tar.gz")
    monkeypatch.setattr(maker, "tgz_md5", hashlib.md5(archive.getvalue()).hexdigest())
    with serving(served) as address:
        monkeypatch.setattr(maker, "url", f"{address}/small.tar.gz")
        train = load("cifar10", root=tmp_path / "root")
    test = load("cifar10", split="test", root=tmp_path / "root")  # the server is gone by now
    assert train.images.shape == (10, 3, 32, 32)
    expected = pixels[:5].reshape(10, 3, 32, 32) / 127.5 - 1
    assert_close(train.images, torch.from_numpy(expected).float(), atol=1e-6, rtol=0)
    assert train.labels.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    assert test.labels.tolist() == [5, 4]
    assert test.class_names[3] == "thing 3"


# --- downloads


@contextlib.contextmanager
def serving(folder: Path):
    """A web server on this machine for the files of ``folder``; yields its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):  # noqa: A002 (the name in the base class)
            """Says nothing: requests are not what a test prints."""

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def small_fashion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to serve: a small Fashion-MNIST whose checksums torchvision expects."""
    idx_files(tmp_path / "made", {"train": 12, "test": 10})
    served, resources = tmp_path / "served", []
    served.mkdir()
    for file in sorted((tmp_path / "made").iterdir()):
        content = gzip.compress(file.read_bytes())
        (served / f"{file.name}.gz").write_bytes(content)
        resources.append((f"{file.name}.gz", hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", resources)
    return served


def test_a_missing_set_is_downloaded_once(
    small_fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(seconds: float | None) -> None:
        raise AssertionError("this would change every connection of the process")

    monkeypatch.setattr(socket, "setdefaulttimeout", refuse)
    maker, root = torchvision.datasets.FashionMNIST, tmp_path / "root"
    with serving(small_fashion) as address:
        monkeypatch.setattr(maker, "mirrors", [f"{address}/"])
        assert len(load("fashion_mnist", root=root)) == 12
    assert datasets.is_here("fashion_mnist", root)
    assert len(load("fashion_mnist", split="test", root=root)) == 10  # without a server


def test_mirrors_with_no_file_or_a_wrong_one_are_skipped(
    small_fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "train-images-idx3-ubyte.gz").write_bytes(b"something else")
    root = tmp_path / "root"
    with serving(small_fashion) as good, serving(tmp_path / "wrong") as wrong:
        mirrors = [f"{wrong}/", f"{good}/"]  # the other three files are not on the first
        monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", mirrors)
        assert len(load("fashion_mnist", root=root)) == 12
    assert not list(root.rglob("*.tmp"))


def test_a_file_that_is_there_is_not_downloaded_again(
    small_fashion: Path, tmp_path: Path, no_server: list[str], monkeypatch: pytest.MonkeyPatch
):
    """Archives that somebody put into the folder are unpacked without a connection."""
    raw = tmp_path / "root" / "FashionMNIST" / "raw"
    shutil.copytree(small_fashion, raw)
    assert len(load("fashion_mnist", root=tmp_path / "root")) == 12
    assert not no_server


@pytest.mark.plain_errors
def test_a_download_with_a_wrong_checksum_is_refused(
    small_fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = small_fashion / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes() + b"one byte too many")
    with serving(small_fashion) as address:
        monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [f"{address}/"])
        with pytest.raises(FileNotFoundError, match=r"fashion_mnist.*download failed.*corrupted"):
            load("fashion_mnist", root=tmp_path / "root")


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mnist", "MNIST/raw"),
        ("fashion_mnist", "FashionMNIST/raw"),
        ("cifar10", "cifar-10-batches-py"),
    ],
)
def test_a_failed_download_says_what_was_tried_and_what_helps(
    name: str, folder: str, tmp_path: Path, no_server: list[str]
):
    with pytest.raises(FileNotFoundError) as caught:
        load(name, root=tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for part in (name, str(tmp_path / folder), "no route to host", "TUTORIAL_DATA", "glyphs"):
        assert part in message
    for url in no_server:
        assert url.rpartition("/")[0].partition("://")[2] in message or name == "cifar10"
    assert no_server
    assert not (tmp_path / folder).exists()  # nothing half made is left


@pytest.mark.plain_errors
def test_a_silent_server_is_abandoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(downloads, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes calls and never answers
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [address])
        with pytest.raises(FileNotFoundError, match=r"download failed.*timed out"):
            load("fashion_mnist", root=tmp_path)


@pytest.mark.plain_errors
@pytest.mark.parametrize("harm", ["cut", "not idx", "empty"])
def test_broken_files_are_named(harm: str, tmp_path: Path, no_server: list[str]):
    folder = tmp_path / "MNIST" / "raw"
    idx_files(folder, {"train": 12, "test": 10})
    file = folder / "train-images-idx3-ubyte"
    content = {"cut": file.read_bytes()[:-100], "not idx": b"<html>sorry</html>", "empty": b""}
    file.write_bytes(content[harm])
    with pytest.raises(FileNotFoundError, match=r"mnist: the files in .* cannot be read") as caught:
        load("mnist", root=tmp_path)
    assert str(folder) in str(caught.value)
    assert not no_server  # the files are there, so nothing is asked for


# --- folders


def write_image(path: Path, mode: str = "RGB", size: tuple[int, int] = (40, 30), color=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if color is None:
        color = {"RGB": (255, 128, 0), "L": 200, "1": 1, "RGBA": (0, 0, 0, 0)}[mode]
    Image.new(mode, size, color).save(path)


def test_a_folder_with_classes(tmp_path: Path):
    write_image(tmp_path / "dogs" / "b.png", color=(0, 0, 0))
    write_image(tmp_path / "cats" / "young" / "a.jpg", color=(255, 255, 255))
    write_image(tmp_path / "dogs" / ".thumbs" / "b.png")
    (tmp_path / "dogs" / "notes.txt").write_text("no image")
    data = load(f"folder:{tmp_path}")
    assert data.class_names == ("cats", "dogs")
    assert data.labels.tolist() == [0, 1]
    assert data.images.shape == (2, 3, 32, 32)
    assert_close(data.images[0], torch.ones(3, 32, 32))
    assert_close(data.images[1], -torch.ones(3, 32, 32))


def test_a_folder_without_classes_is_one_class(tmp_path: Path):
    folder = tmp_path / "my pictures"
    write_image(folder / "a.png")
    data = load(f"folder:{folder}", size=16)
    assert data.class_names == ("my pictures",)
    assert_close(data.images[0, :, 8, 8], torch.tensor([255, 128, 0]) / 127.5 - 1)


def test_gray_files_stay_gray_and_turn_rgb_beside_color(tmp_path: Path):
    write_image(tmp_path / "a.png", "L")
    write_image(tmp_path / "b.png", "1")
    gray = load(f"folder:{tmp_path}", size=8)
    assert gray.images.shape == (2, 1, 8, 8)
    assert_close(gray.images[:, 0, 0, 0], torch.tensor([200 / 127.5 - 1, 1.0]))
    write_image(tmp_path / "c.png")
    mixed = load(f"folder:{tmp_path}", size=8)
    assert mixed.images.shape == (3, 3, 8, 8)
    assert_close(mixed.images[:2], gray.images.expand(2, 3, 8, 8))


def test_every_tenth_image_of_a_folder_is_for_testing(tmp_path: Path):
    for i in range(25):
        write_image(tmp_path / f"{i:02}.png", "L", color=i)
    train, test = load(f"folder:{tmp_path}"), load(f"folder:{tmp_path}", split="test")
    shown = [
        ((data.images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist() for data in (train, test)
    ]
    assert shown[1] == [9, 19]
    assert sorted(shown[0] + shown[1]) == list(range(25))


def test_unreadable_files_are_counted_named_and_left_out(tmp_path: Path):
    write_image(tmp_path / "good.png")
    write_image(tmp_path / "cut.png", size=(300, 300))
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("not a picture")
    with pytest.warns(UserWarning, match=r"2 of 3 images in .* cannot be read") as caught:
        data = load(f"folder:{tmp_path}")
    assert len(caught) == 1
    assert "cut.png" in str(caught[0].message)
    assert "text.jpg" in str(caught[0].message)
    assert len(data) == 1


@pytest.mark.plain_errors
def test_folders_without_images_are_refused(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=f"{tmp_path} holds no images"):
        load(f"folder:{tmp_path}")
    with pytest.raises(ValueError, match="PATH with a folder that exists, got PATH '/no/such'"):
        load("folder:/no/such")
    with pytest.raises(ValueError, match="got PATH ''"):
        load("folder:")
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"1 of 1 images in .* cannot be read: a.png"):
        load(f"folder:{tmp_path}")
    with pytest.raises(ValueError, match=f"{tmp_path} holds 1 images; every tenth is for testing"):
        load(f"folder:{tmp_path}", split="test")


# --- wrong arguments


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "mnits"}, ValueError, "name must be one of .*'mnits'; did you mean 'mnist'"),
        ({"name": 3}, ValueError, "name must be one of .*folder:PATH; got 3"),
        ({"name": "circles", "split": "valid"}, ValueError, "split must be one of train, test"),
        ({"name": "circles", "size": 7}, ValueError, "size must be at least 8, got 7"),
        ({"name": "circles", "size": 28.0}, TypeError, "size must be an int, got float 28.0"),
        ({"name": "glyphs", "seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"name": "mnist", "seed": "x"}, TypeError, "seed must be an int"),
    ],
)
def test_load_names_the_wrong_argument(arguments: dict, error: type, message: str):
    with pytest.raises(error, match=message):
        load(**arguments)


@pytest.mark.plain_errors
@pytest.mark.parametrize("name", datasets.NAMES)
def test_a_size_that_does_not_fit_in_memory_is_refused_before_any_download(
    name: str, tmp_path: Path
):
    with pytest.raises(ValueError, match=r"^size must fit in memory, got 100000: a set of 10000"):
        load(name, size=100_000, root=tmp_path)
    assert not os.listdir(tmp_path)


@pytest.mark.plain_errors
def test_a_bomb_in_a_folder_is_left_out_and_named(tmp_path: Path):
    Image.new("L", (8, 8)).save(tmp_path / "good.png")
    Image.new("1", (8200, 8200)).save(tmp_path / "bomb.png")
    with pytest.warns(UserWarning, match=r"1 of 2 .* bomb.png \(8200 x 8200 pixels are more than"):
        assert len(load(f"folder:{tmp_path}", size=8)) == 1
    with pytest.raises(ValueError, match=r"^size must fit in memory, got 1000000"):
        load(f"folder:{tmp_path}", size=10**6)


@pytest.mark.plain_errors
@pytest.mark.parametrize("name", ["~nosuchuser/x", "n" * 300, "d/" * 3000])
def test_paths_that_cannot_be_are_refused_by_name(name: str, tmp_path: Path):
    with pytest.raises(ValueError, match=r"^data set name"):
        load(f"folder:{name}")
    assert name.startswith("~") or not datasets.is_here("mnist", name)


@pytest.mark.plain_errors
def test_a_root_below_an_unknown_home_is_refused_by_name(monkeypatch: pytest.MonkeyPatch):
    for call in (lambda: load("mnist", root="~nosuchuser/x"), datasets.data_root):
        monkeypatch.setenv("TUTORIAL_DATA", "~nosuchuser/x")
        with pytest.raises(ValueError, match=r"^root: no home folder is known for '~nosuchuser/x'"):
            call()
    with pytest.raises(TypeError, match=r"^root must be a path, got int 3"):
        load("mnist", root=3)  # pyright: ignore[reportArgumentType]
