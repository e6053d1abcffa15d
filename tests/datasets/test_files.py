"""The data sets: drawn ones against loops and colorsys, files through torchvision, folders."""

import colorsys
import contextlib
import functools
import gzip
import hashlib
import http.server
import io
import os
import pickle
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import urllib.error
import urllib.request
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

from tutorial_lib.datasets import Dataset, circles, glyphs, load
from tutorial_lib.datasets import files as datasets
from tutorial_lib.datasets import glyph_fields as _glyphs

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
    """Where MNIST lies on this machine; where it does not, a small set of the same format."""
    for place in (os.environ.get("TUTORIAL_DATA"), ROOT.parent / "shared" / "datasets"):
        if place and datasets.is_here("mnist", place):
            return Path(place)
    root = tmp_path_factory.mktemp("mnist")
    idx_files(root / "MNIST" / "raw", {"train": 60, "test": 30})
    return root


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every download fails; the list says what was asked for."""
    asked: list[str] = []

    def refuse(request, *args, **kwargs):
        asked.append(request.full_url)
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked


# --- circles


def test_same_seed_same_bits_whatever_the_count():
    torch.manual_seed(1)
    first = circles(3000, size=16, seed=5)
    torch.manual_seed(2)
    again, fewer = circles(3000, size=16, seed=5), circles(7, size=16, seed=5)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)
    assert torch.equal(first.images[:7], fewer.images)
    assert not torch.equal(first.images, circles(3000, size=16, seed=6).images)


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    circles(3), glyphs(3)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("size", [8, 32, 64])
def test_a_disc_is_the_disc_that_its_numbers_say(size: int):
    """Area, centre and colour, measured on the pixels, against the draws in plain Python."""
    data = circles(200, size=size, seed=3)
    rows = np.random.default_rng([3, 0]).random((200, 6))
    light = ((data.images + 1) / 2).amax(1)
    place = torch.arange(size) + 0.5
    for i, (a, b, c, hue, saturation, value) in enumerate(rows):
        radius = (0.15 + 0.2 * a) * size
        x, y = radius + b * (size - 2 * radius), radius + c * (size - 2 * radius)
        r, g, b_ = colorsys.hsv_to_rgb(hue, 0.6 + 0.4 * saturation, 0.7 + 0.3 * value)
        at = data.images[i, :, int(y), int(x)]
        assert_close((at + 1) / 2, torch.tensor([r, g, b_]).float(), atol=1e-6, rtol=0)
        covered = light[i] / max(r, g, b_)
        # A ramp from 1 to 0 around the radius covers pi / 12 more than the disc.
        area = np.pi * (radius**2 + 1 / 12)
        assert_close(float(covered.sum()), area, atol=0, rtol=0.05)
        assert_close(float((covered.sum(0) * place).sum() / covered.sum()), x, atol=0.1, rtol=0)
        assert_close(float((covered.sum(1) * place).sum() / covered.sum()), y, atol=0.1, rtol=0)


def test_the_rim_is_near_the_exact_coverage():
    """Against 64 x 64 points a pixel. The ramp along the distance is exact for upright edges; at
    45 degrees it is off by up to (sqrt(2) - 1)^2 / 2 = 0.086, the small radius adds a little."""
    x, y, radius = torch.tensor([9.3, 16.0]), torch.tensor([12.8, 16.0]), torch.tensor([4.8, 11.2])
    drawn = datasets._disc_coverage(x, y, radius, 32, 32)
    fine = (torch.arange(32 * 64) + 0.5) / 64
    for i in range(2):
        inside = (fine - x[i]) ** 2 + (fine[:, None] - y[i]) ** 2 < radius[i] ** 2
        exact = inside.float().view(32, 64, 32, 64).mean((1, 3))
        assert (drawn[i] - exact).abs().max() < 0.11
        assert (drawn[i] - exact).abs().mean() < 0.002


def test_hue_classes_are_the_nearest_hue():
    data = circles(600, seed=1)
    assert data.class_names == ("red", "yellow", "green", "cyan", "blue", "magenta")
    brightest = data.images.flatten(2).sum(1).argmax(1)
    for image, label, at in zip(data.images, data.labels, brightest, strict=True):
        r, g, b = ((image.flatten(1)[:, at] + 1) / 2).tolist()
        away = abs(colorsys.rgb_to_hsv(r, g, b)[0] * 6 - int(label))
        assert min(away, 6 - away) < 0.5 + 1e-4


def test_grey_discs_are_sorted_by_radius():
    data = circles(600, channels=1, size=32, seed=1)
    assert data.images.shape == (600, 1, 32, 32)
    assert data.class_names == ("small", "medium", "large")
    level = (data.images + 1).flatten(1)
    radius = ((level.sum(1) / level.amax(1)) / np.pi).sqrt() / 32
    expected = ((radius - 0.15) / 0.2 * 3).clamp(0, 2.999)
    off = (expected - data.labels - 0.5).abs()
    assert off.max() < 0.55  # half a class, and what pixels blur
    assert data.labels.bincount().min() > 150


def test_another_size_shows_the_same_discs():
    """Averaging pairs of pixels of the large ones gives the small ones, but for the rim."""
    large, small = circles(100, size=64, seed=2).images, circles(100, size=32, seed=2).images
    pooled = torch.nn.functional.avg_pool2d(large, 2)
    assert (pooled - small).abs().mean() < 0.003
    assert (pooled - small).abs().max() < 0.35


# --- glyphs


def test_glyphs_are_repeatable_and_begin_alike():
    first, again, fewer = glyphs(1500, seed=4), glyphs(1500, seed=4), glyphs(5, seed=4)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.images[:5], fewer.images)
    assert torch.equal(first.labels[:5], fewer.labels)
    assert not torch.equal(first.images, glyphs(1500, seed=5).images)


def test_glyphs_lie_inside_are_white_on_black_and_balanced():
    data = glyphs(4000, seed=0)
    assert data.images.shape == (4000, 1, 28, 28)
    frame = torch.ones(28, 28, dtype=torch.bool)
    frame[1:-1, 1:-1] = False
    assert (data.images[:, 0, frame] == -1).all()
    # A hairline is half a pixel wide and grey; none is so faint that a digit would vanish.
    assert data.images.amax((1, 2, 3)).min() > 0.5
    assert (data.images.amax((1, 2, 3)) == 1).float().mean() > 0.9
    assert data.labels.bincount(minlength=10).min() > 320
    assert data.class_names == tuple("0123456789")


def test_the_labels_of_glyphs_are_what_they_show():
    """The nearest of 2000 other glyphs has the same label in more than 95 of 100 cases."""
    known, asked = load("glyphs", seed=0), load("glyphs", split="test", seed=0)
    pixels, labels = known.images[:2000].flatten(1), known.labels[:2000]
    nearest = torch.cdist(asked.images[:500].flatten(1), pixels).argmin(1)
    assert (labels[nearest] == asked.labels[:500]).float().mean() > 0.95


def test_glyphs_vary():
    data = glyphs(2000, seed=0)
    zeros = data.images[data.labels == 0].flatten(1)
    assert len(torch.unique(zeros, dim=0)) == len(zeros)
    ink = ((zeros + 1) / 2).mean(1)
    assert ink.quantile(0.95) > 1.8 * ink.quantile(0.05)  # hairlines and bold faces


def test_another_size_shows_the_same_glyphs():
    large, small = glyphs(100, size=56, seed=1).images, glyphs(100, size=28, seed=1).images
    assert (torch.nn.functional.avg_pool2d(large, 2) - small).abs().mean() < 0.03


def test_every_font_has_ten_different_digits():
    """Each field equals itself only: a font without a digit would show the same empty box."""
    fields = _glyphs.distance_fields()
    assert fields.shape[:2] == (len(_glyphs.FONTS), 10)
    ink = (fields > 0).flatten(2).float()
    assert ink.mean(2).min() > 0.02
    for digits in ink:
        apart = torch.cdist(digits, digits, p=1) + 1e6 * torch.eye(10)
        assert apart.min() > 150  # of 9216 pixels


def test_distances_against_a_loop_over_all_pixels():
    start = torch.rand(1, 12, 9) * 4
    places = torch.cartesian_prod(torch.arange(12.0), torch.arange(9.0))
    brute = (torch.cdist(places, places) ** 2 + start.view(1, -1) ** 2).amin(1).sqrt()
    assert_close(_glyphs._spread(start).flatten(), brute, atol=1e-5, rtol=0)


def test_a_turned_shifted_glyph_is_the_picture_turned_and_shifted():
    def draw(turn: float = 0.0, right: float = 0.0, slant: float = 0.0) -> Tensor:
        number = functools.partial(torch.full, (1,), dtype=torch.float64)
        which = torch.tensor([7])
        return _glyphs.draw(
            torch.tensor([0]),
            which,
            56,
            scale=number(0.6),
            turn=number(turn),
            slant=number(slant),
            shift=torch.tensor([[right, 0.0]], dtype=torch.float64),
            stroke=number(0.01),
        )[0, 0]

    upright = draw()
    # A quarter clockwise: what was at the top is at the right, as torch's rot90 with k = -1.
    assert_close(draw(turn=np.pi / 2), torch.rot90(upright, -1), atol=1e-3, rtol=0)
    assert_close(draw(right=0.125), upright.roll(7, 1), atol=1e-3, rtol=0)  # 7 of 56 pixels
    leaning, columns = draw(slant=0.4), torch.arange(56.0)

    def middle(picture: Tensor, rows: slice) -> float:
        return float((picture[rows] * columns).sum() / picture[rows].sum())

    top, bottom = slice(12, 24), slice(32, 44)
    assert middle(leaning, top) - middle(upright, top) > 2
    assert middle(leaning, bottom) - middle(upright, bottom) < -2


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


def test_drawn_sets_are_drawn_at_the_size_asked_for():
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


def test_where_data_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
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


def test_outside_a_repository_data_lies_where_python_runs(
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
    """A web server on this machine with the files of ``folder``; gives its address."""

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
    maker, root = torchvision.datasets.FashionMNIST, tmp_path / "root"
    with serving(small_fashion) as address:
        monkeypatch.setattr(maker, "mirrors", [f"{address}/"])
        assert len(load("fashion_mnist", root=root)) == 12
    assert datasets.is_here("fashion_mnist", root)
    assert len(load("fashion_mnist", split="test", root=root)) == 10  # without a server
    assert socket.getdefaulttimeout() is None


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
    assert socket.getdefaulttimeout() is None


@pytest.mark.plain_errors
def test_a_silent_server_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets, "_PATIENCE", 0.2)
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


def write_image(path: Path, mode: str = "RGB", size: tuple[int, int] = (40, 30), colour=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if colour is None:
        colour = {"RGB": (255, 128, 0), "L": 200, "1": 1, "RGBA": (0, 0, 0, 0)}[mode]
    Image.new(mode, size, colour).save(path)


def test_a_folder_with_classes(tmp_path: Path):
    write_image(tmp_path / "dogs" / "b.png", colour=(0, 0, 0))
    write_image(tmp_path / "cats" / "young" / "a.jpg", colour=(255, 255, 255))
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


def test_grey_files_stay_grey_and_turn_rgb_beside_colour(tmp_path: Path):
    write_image(tmp_path / "a.png", "L")
    write_image(tmp_path / "b.png", "1")
    grey = load(f"folder:{tmp_path}", size=8)
    assert grey.images.shape == (2, 1, 8, 8)
    assert_close(grey.images[:, 0, 0, 0], torch.tensor([200 / 127.5 - 1, 1.0]))
    write_image(tmp_path / "c.png")
    mixed = load(f"folder:{tmp_path}", size=8)
    assert mixed.images.shape == (3, 3, 8, 8)
    assert_close(mixed.images[:2], grey.images.expand(2, 3, 8, 8))


def test_every_tenth_image_of_a_folder_is_for_testing(tmp_path: Path):
    for i in range(25):
        write_image(tmp_path / f"{i:02}.png", "L", colour=i)
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
    with pytest.warns(UserWarning, match="2 of 3 images in .* cannot be read") as caught:
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
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"count": 0}, ValueError, "count must be at least 1, got 0"),
        ({"count": 2.5}, TypeError, "count must be an int"),
        ({"count": 2, "size": 4}, ValueError, "size must be at least 8, got 4"),
        ({"count": 2, "channels": 2}, ValueError, "channels must be 1 or 3, got int 2"),
        ({"count": 2, "seed": -3}, ValueError, "seed must be at least 0, got -3"),
    ],
)
def test_circles_name_the_wrong_argument(arguments: dict, error: type, message: str):
    with pytest.raises(error, match=message):
        circles(**arguments)


ONE = torch.zeros(1, 3, 8, 8)
LABEL = torch.zeros(1, dtype=torch.int64)


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ((ONE.numpy(), LABEL, ("a",)), TypeError, "images must be a tensor"),
        ((ONE.double(), LABEL, ("a",)), TypeError, "images must be float32, got torch.float64"),
        ((ONE[0], LABEL, ("a",)), ValueError, r"images must have shape .* got \(3, 8, 8\)"),
        ((ONE[:, :2], LABEL, ("a",)), ValueError, r"1 or 3.* got \(1, 2, 8, 8\)"),
        ((ONE[:0], LABEL[:0], ("a",)), ValueError, "N >= 1"),
        ((ONE + 1.5, LABEL, ("a",)), ValueError, r"images must lie in \[-1, 1\].* 1.5 to 1.5"),
        ((ONE * float("nan"), LABEL, ("a",)), ValueError, r"images must lie in \[-1, 1\]"),
        ((ONE, LABEL.int(), ("a",)), TypeError, "labels must be an int64 tensor"),
        ((ONE, LABEL.expand(2), ("a",)), ValueError, r"labels must have shape \(1,\)"),
        ((ONE, LABEL + 1, ("a",)), ValueError, "labels must be in 0..0, .* got 1"),
        ((ONE, LABEL - 1, ("a",)), ValueError, "labels must be in 0..0, .* got -1"),
    ],
)
def test_a_dataset_refuses_what_it_is_not(fields: tuple, error: type, message: str):
    with pytest.raises(error, match=message):
        Dataset(*fields)


def test_a_dataset_says_what_it_is():
    data = circles(5)
    assert len(data) == 5
    assert "5 x 3 x 32 x 32 float32 in [-1, 1]" in repr(data)
    assert "red, yellow" in repr(data)
    many = Dataset(ONE, LABEL, tuple(f"c{i}" for i in range(50)))
    assert "(50)" in repr(many)
    assert "c49" not in repr(many)
    with pytest.raises(AttributeError):
        setattr(data, "images", ONE)  # noqa: B010 (a checker of types refuses the plain way)


def test_importing_datasets_loads_neither_torchvision_nor_matplotlib():
    code = (
        "import sys; from tutorial_lib import datasets; datasets.glyphs(1); "
        "print(sorted({'torchvision', 'matplotlib'} & sys.modules.keys()))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.plain_errors
def test_without_fonts_glyphs_say_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_glyphs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="matplotlib's fonts, which are not installed"):
        _glyphs.font_folder()


def test_drawing_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _glyphs.distance_fields.cache_clear()
        glyphs(2)
        circles(2)
