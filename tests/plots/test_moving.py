"""Animations: the frames in their order and colors, small, and they come to rest."""

import base64
import io

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from tests.plots.pictures import random_images
from tutorial_lib import plots
from tutorial_lib.images import to_bytes
from tutorial_lib.plots import figures, moving

STEPS = 30


def walk(count: int, channels: int = 1, steps: int = STEPS, size: int = 28) -> list[Tensor]:
    """From noise to soft discs, as a walk goes."""
    x, y = torch.meshgrid(*2 * [torch.linspace(-2, 2, size)], indexing="ij")
    discs = torch.exp(-((x**2 + y**2) ** 2)) * 2 - 1
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, channels, size, size, generator=generator)
    tints = torch.linspace(0.2, 1, count * channels).reshape(count, channels, 1, 1)
    return [noise * (1 - s) + tints * discs * s for s in torch.linspace(0, 1, steps).tolist()]


def frames_of(gif: bytes) -> list[np.ndarray]:
    """Each frame as it stands on the screen, (H, W, 4)."""
    with Image.open(io.BytesIO(gif)) as file:
        found = []
        for i in range(getattr(file, "n_frames", 1)):
            file.seek(i)
            found.append(np.asarray(file.convert("RGBA")))
    return found


def seconds_of(gif: bytes) -> float:
    """How long the file moves: all runs, without the rest at the end of the last."""
    with Image.open(io.BytesIO(gif)) as file:
        times = file.info.get("loop", 0) + 1
        total = 0
        for i in range(getattr(file, "n_frames", 1)):
            file.seek(i)
            total += file.info["duration"]
    return times * total / 1000


@pytest.mark.long("packs some millions of pixels of noise, several times")
def test_sixty_four_digits_in_thirty_steps_are_small():
    """At the size at which a grid of them is shown, and the last picture nearly as it should be."""
    frames = walk(64)
    made = plots.animation(frames)
    assert len(made.gif) <= 400_000
    assert (made.width, made.height) == (714, 714)
    first, *_, last = frames_of(made.gif)
    scale = last.shape[1] // 238
    assert scale >= 2
    for picture, images, most in ((first, frames[0], 40), (last, frames[-1], 3)):
        wanted = figures.sheet_of(figures.in_rows(images, None))[0]
        seen = picture[::scale, ::scale].astype(int)
        assert (seen[..., 3] == wanted[..., 3]).all()
        there = wanted[..., 3] == 255
        assert np.abs(seen - wanted)[there][:, :3].max() <= most


def test_a_short_walk_keeps_every_picture_in_order():
    frames = walk(4, steps=6)
    made = plots.animation(frames, 2)
    found = frames_of(made.gif)
    assert len(found) == 6
    scale = found[0].shape[1] // 58
    for picture, images in zip(found, frames, strict=True):
        seen = picture[::scale, ::scale]
        for i, expected in enumerate(to_bytes(images)):
            top, left = i // 2 * 30, i % 2 * 30
            there = seen[top : top + 28, left : left + 28, :1].astype(int)
            assert np.abs(there - expected).max() <= 3, "128 grays"
        assert (seen[28:30, :, 3] == 0).all(), "nothing between the images"


def test_colors_stay_what_they_are():
    frames = walk(4, channels=3, steps=5)
    wanted = np.zeros(())
    found = frames_of(plots.animation(frames, 2).gif)
    scale = found[0].shape[1] // 58
    for picture, images in zip(found, frames, strict=True):
        wanted = figures.sheet_of(figures.in_rows(images, 2))[0]
        off = np.abs(picture[::scale, ::scale].astype(int) - wanted)[..., :3].max(2)
        assert off.mean() < 40, "128 colors of all that noise has"
    assert np.abs(found[-1][::scale, ::scale].astype(int) - wanted).mean() < 6


def test_figures_and_pictures_move_too():
    def drawn(k: int) -> Figure:
        figure, (plot,) = plots.panels(1, width=3, height=2)
        plot.plot([0, 1], [0, k], color=plots.COLORS[0], lw=3)
        plot.set(xlim=(0, 1), ylim=(0, 3))
        return figure

    made = plots.animation([drawn(k) for k in range(3)])
    assert (made.width, made.height) == (300, 200)
    found = frames_of(made.gif)
    for k, picture in enumerate(found):
        wanted = np.asarray(figures.painted(drawn(k)))
        assert ((picture[..., 3] == 255) == (wanted[..., 3] >= 128)).all(), "what was is cleared"
        solid = wanted[..., 3] == 255
        assert np.abs(picture[solid].astype(int) - wanted[solid]).max() <= 24
    colors = ("#0072B2", "#D55E00")
    pictures = plots.animation([Image.new("RGB", (30, 20), color) for color in colors])
    assert (pictures.width, pictures.height) == (30, 20)
    for picture, color in zip(frames_of(pictures.gif), colors, strict=True):
        wanted = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
        assert np.abs(picture[..., :3].astype(int) - wanted).max() <= 4


@pytest.mark.parametrize(("seconds", "times"), [(2.5, 2), (5, 1), (1, 4)])
def test_it_comes_to_rest_within_five_seconds(seconds: float, times: int):
    made = plots.animation(walk(1, steps=9), seconds=seconds, times=times)
    assert seconds_of(made.gif) == pytest.approx(times * seconds, rel=0.1)


def test_the_still_is_the_last_picture():
    made = plots.animation(walk(4, steps=4))
    with Image.open(io.BytesIO(made.still())) as still:
        assert np.array_equal(np.asarray(still), frames_of(made.gif)[-1])


def test_the_same_frames_have_the_same_bytes():
    first, second = (plots.animation(walk(2, steps=4)).gif for _ in range(2))
    assert first == second


def test_show_sends_the_animation_and_its_still(monkeypatch: pytest.MonkeyPatch):
    sent: list[tuple[dict, dict]] = []
    monkeypatch.setattr(figures, "get_ipython", object)
    monkeypatch.setattr(
        figures, "display", lambda data, raw, metadata: sent.append((data, metadata))
    )
    made = plots.animation(walk(1, steps=3))
    plots.show(made, alt='Noise becomes a "disc"')
    ((data, about),) = sent
    assert base64.b64decode(data["image/gif"]) == made.gif
    size = {"width": made.width, "height": made.height}
    assert about == {"image/gif": {"alt": 'Noise becomes a "disc"', **size}}
    still = base64.b64encode(made.still()).decode()
    assert (
        f'<source media="(prefers-reduced-motion: reduce)" srcset="data:image/png;base64,{still}">'
        in data["text/html"]
    )
    assert 'alt="Noise becomes a &quot;disc&quot;"' in data["text/html"]
    assert data["text/plain"] == 'Noise becomes a "disc"'


@pytest.mark.plain_errors
def test_wrong_arguments_are_named():
    one, two = random_images(4), random_images(9)
    for frames, message in (
        ([], "frames must be at least 2 .* got 0"),
        ([one], "frames must be at least 2 .* got 1"),
        ([one, two], "one size; got 2 of 1 kinds, in pixels 20 x 16, 31 x 25"),
        ([one, figures.image_grid(one)], "of 2 kinds"),
        ([one, one / 0], "images must be finite"),
        ([one[0], one[0]], "images must have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            plots.animation(frames)
    with pytest.raises(TypeError, match=r"each of frames must be a tensor, .*, got str 'a'"):
        plots.animation(["a", "b"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="columns must be at least 1"):
        plots.animation([one, one], 0)
    with pytest.raises(ValueError, match="seconds must be"):
        plots.animation([one, one], seconds=6)
    with pytest.raises(ValueError, match="times must be at least 1"):
        plots.animation([one, one], times=0)
    with pytest.raises(ValueError, match=r"times must give at most 5 seconds, .*; got 3 times 2 "):
        plots.animation([one, one], seconds=2, times=3)
    with pytest.raises(ValueError, match="alt must say in words"):
        plots.show(plots.animation([one, one]), alt=" ")


@pytest.mark.plain_errors
def test_what_cannot_be_small_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(moving, "MOST_BYTES", 2000)
    with pytest.raises(ValueError, match="frames must make a file of at most 2,000 bytes; 3 pict"):
        plots.animation(walk(9, steps=3))
