"""Tensors to picture files and back."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib import images


def test_bytes_round_trip_exactly():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    values = images.from_bytes(levels)
    assert values.dtype == torch.float32
    assert (float(values.min()), float(values.max())) == (-1.0, 1.0)
    assert np.array_equal(images.to_bytes(values)[0, :, :, 0], levels[0, 0].numpy())


def test_values_outside_the_range_are_clamped():
    pixels = images.to_bytes(torch.tensor([-3.0, -1.0, 0.001, 7.0]).view(1, 1, 2, 2))
    assert pixels.flatten().tolist() == [0, 0, 128, 255]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_a_grid_holds_each_image_in_its_place(channels: int, mode: str):
    batch = torch.rand(5, channels, 4, 6) * 2 - 1
    picture = images.to_pil(batch, 3)
    assert picture.mode == mode
    assert picture.size == (3 * 6 + 2 * 2, 2 * 4 + 2)
    pixels = np.asarray(picture).reshape(10, 22, channels)
    for i, expected in enumerate(images.to_bytes(batch)):
        top, left = i // 3 * 6, i % 3 * 8
        assert np.array_equal(pixels[top : top + 4, left : left + 6], expected)
    assert (pixels[4:6] == images.GAP_GRAY).all()
    assert (pixels[:, 6:8] == images.GAP_GRAY).all()
    assert (pixels[6:, 16:] == images.GAP_GRAY).all()  # the empty sixth place


def test_a_grid_is_square_by_default_and_no_wider_than_needed():
    assert images.to_pil(torch.zeros(9, 1, 8, 8)).size == (28, 28)
    assert images.to_pil(torch.zeros(1, 1, 8, 8)).size == (8, 8)
    assert images.to_pil(torch.zeros(2, 1, 8, 8), 16).size == (18, 8)


def test_enlarged_pixels_are_squares():
    picture = np.asarray(images.to_pil(torch.tensor([[-1.0, 1.0]]).view(1, 1, 1, 2), enlarge=3))
    assert picture.tolist() == [[0, 0, 0, 255, 255, 255]] * 3


def test_a_saved_grid_is_the_picture(tmp_path: Path):
    batch = torch.rand(4, 3, 8, 8) * 2 - 1
    images.save_grid(batch, tmp_path / "grid.png", 2, enlarge=2)
    with Image.open(tmp_path / "grid.png") as saved:
        assert np.array_equal(np.asarray(saved), np.asarray(images.to_pil(batch, 2, enlarge=2)))
    assert [file.name for file in tmp_path.iterdir()] == ["grid.png"]


@pytest.mark.plain_errors
def test_errors_name_invalid_images_and_paths(tmp_path: Path):
    good = torch.zeros(1, 1, 8, 8)
    for wrong, error, message in (
        (good.int(), TypeError, "images must hold floating-point numbers"),
        (good[0], ValueError, r"images must have shape .* got \(1, 8, 8\)"),
        (good[:0], ValueError, "N >= 1"),
        (good / 0, ValueError, "images must be finite"),
    ):
        with pytest.raises(error, match=message):
            images.to_pil(wrong)
    with pytest.raises(ValueError, match="columns must be at least 1"):
        images.to_pil(good, 0)
    with pytest.raises(ValueError, match="enlarge must be at least 1"):
        images.to_pil(good, enlarge=0)
    with pytest.raises(ValueError, match=r"path must end in .png, got .*grid.jpg"):
        images.save_grid(good, tmp_path / "grid.jpg")
    with pytest.raises(OSError, match="nowhere"):
        images.save_grid(good, tmp_path / "nowhere" / "grid.png")


def test_read_square_takes_the_middle_of_an_image(tmp_path: Path):
    pixels = np.zeros((10, 30), np.uint8)
    pixels[:, 10:20] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert (images.read_square(tmp_path / "wide.png", 10) == 255).all()


def test_orientation_transparency_and_16_bit_grays_are_handled(tmp_path: Path):
    turned = Image.new("L", (8, 8))
    turned.paste(255, (0, 0, 8, 4))  # white above black
    exif = turned.getexif()
    exif[0x0112] = 3  # upside down
    turned.save(tmp_path / "turned.png", exif=exif)
    square = images.read_square(tmp_path / "turned.png", 8)
    assert square[0, 0].max() == 0
    assert square[0, 7].min() == 255

    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert images.read_square(tmp_path / "clear.png", 8).tolist() == [[[255] * 8] * 8] * 3

    Image.fromarray(np.full((8, 8), 257 * 100, np.uint16)).save(tmp_path / "deep.png")
    assert (images.read_square(tmp_path / "deep.png", 8) == 100).all()


def test_large_jpegs_keep_their_colors(tmp_path: Path):
    Image.new("RGB", (1600, 1200), (200, 100, 50)).save(tmp_path / "large.jpg", quality=95)
    square = images.read_square(tmp_path / "large.jpg", 16).float()
    assert square.shape == (3, 16, 16)
    assert (square - torch.tensor([200.0, 100, 50])[:, None, None]).abs().max() <= 3


@pytest.mark.plain_errors
def test_pixels_without_a_known_range_are_rejected(tmp_path: Path):
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(ValueError, match="images of mode F have no known range"):
        images.read_square(tmp_path / "float.tiff", 8)


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path: Path):
    """A few kilobytes that would take gigabytes; nothing is decoded."""
    side = 8200
    Image.new("1", (side, side)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 20_000
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="8200 x 8200 pixels are more than the 67,108,864"):
            images.read_square(tmp_path / "bomb.png", 32)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


GRIDS = [
    ({"enlarge": 10**5}, r"^enlarge must fit in memory, got 100000: the picture takes"),
    ({"enlarge": 10**12}, r"^enlarge gives a picture of 28000000000002 x 28000000000002 pixels"),
    ({"enlarge": 10**400}, r"^enlarge gives a picture of about 10\^401 x about"),
    ({"count": 10**12}, r"^count must fit in memory, got 1000000000000: the picture takes"),
    ({"count": 10**8, "columns": 1}, r"^count gives a picture of 30 x 3000000000 pixels, .* side"),
]


@pytest.mark.plain_errors
@pytest.mark.parametrize(("given", "message"), GRIDS)
def test_a_picture_that_is_too_large_is_refused_before_it_is_drawn(given: dict, message: str):
    arguments = {"count": 1, "shape": (1, 28, 28), "columns": None, "enlarge": 1, **given}
    with pytest.raises(ValueError, match=message):
        images.check_grid(**arguments)


@pytest.mark.plain_errors
def test_a_grid_too_large_is_refused_where_it_is_made():
    with pytest.raises(ValueError, match=r"^enlarge must fit in memory"):
        images.to_pil(torch.zeros(1, 1, 8, 8), enlarge=10**6)


@pytest.mark.parametrize("count", [1, 2, 4, 5, 9, 10, 4096])
def test_a_square_grid_has_the_least_columns_that_make_it_square(count: int):
    columns = images._columns(count, None)
    assert (columns - 1) ** 2 < count <= columns**2
