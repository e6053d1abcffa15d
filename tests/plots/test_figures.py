"""Figures: every pixel in its place, alternative text, errors that name the argument."""

import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from tests.plots.pictures import random_images
from tutorial_lib.images import to_bytes
from tutorial_lib.plots import LivePlot
from tutorial_lib.plots import figures as plots


def drawn(figure: Figure) -> Any:
    """The first axes, of any kind: matplotlib's annotations leave most of them open."""
    return figure.axes[0]


def screen(figure: Figure) -> np.ndarray:
    """The figure as a file shows it, (H, W, 4); its texts and axes are in their places then."""
    figure.set_dpi(plots.DPI * plots.SHARPNESS)
    FigureCanvasAgg(figure).draw()
    return np.asarray(plots.painted(figure))


def shown(figure: Figure) -> np.ndarray:
    """The color at the center of every pixel of the figure's sheet, (rows, columns, 4)."""
    seen, axes = screen(figure), drawn(figure)
    rows, columns = axes.images[0].get_array().shape[:2]
    at = [[(x, y) for x in range(columns)] for y in range(rows)]
    places = axes.transData.transform(np.array(at, float).reshape(-1, 2))
    x, y = np.floor(places).astype(int).T
    return seen[len(seen) - 1 - y, x].reshape(rows, columns, 4)


def opaque(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 1 or 3) as (H, W, 4)."""
    return np.concatenate(
        [np.broadcast_to(pixels, (*pixels.shape[:2], 3)), pixels[..., :1] * 0 + 255], 2
    )


def on(ground: int, picture: np.ndarray) -> np.ndarray:
    """A picture (H, W, 4) as it looks on a gray ground, (H, W, 3)."""
    alpha = picture[..., 3:] / 255
    return picture[..., :3] * alpha + ground * (1 - alpha)


WHITE, DARK = 0xFF, 0x11
"""The grounds of light and dark themes."""


def luminance(color: str) -> float:
    values = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(color: str, ground: int) -> float:
    """By WCAG 2.2."""
    both = sorted((luminance(color), luminance(f"#{ground:02x}{ground:02x}{ground:02x}")))
    return (both[1] + 0.05) / (both[0] + 0.05)


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in drawn(figure).texts]


@pytest.mark.parametrize("channels", [1, 3])
def test_every_pixel_of_a_grid_is_on_the_screen(channels: int):
    images = random_images(5, channels)
    seen = shown(plots.image_grid(images, 3))
    assert seen.shape == (2 * 7 + 2, 3 * 9 + 4, 4)
    for i, expected in enumerate(to_bytes(images)):
        top, left = i // 3 * 9, i % 3 * 11
        assert np.array_equal(seen[top : top + 7, left : left + 9], opaque(expected))
    assert (seen[7:9, :, 3] == 0).all()  # nothing between the rows
    assert (seen[9:, 22:, 3] == 0).all()  # nor in the empty sixth place


def test_every_pixel_of_a_filmstrip_is_on_the_screen_with_its_labels():
    strips = [random_images(4), random_images(4)]
    figure = plots.filmstrip(strips, labels=list("abcd"), rows=["above", "below"])
    seen = shown(figure)
    head = seen.shape[0] - 2 * 7 - 2
    for top, strip in zip((head, head + 9), strips, strict=True):
        for i, expected in enumerate(to_bytes(strip)):
            assert np.array_equal(seen[top : top + 7, 11 * i : 11 * i + 9], opaque(expected))
    assert words(figure) == ["a", "b", "c", "d", "above", "below"]


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 64, 64), (3, 40, 16)])
@pytest.mark.parametrize("columns", [1, 8, 20])
def test_labels_fit_on_the_card_and_do_not_overlap(shape: tuple[int, int, int], columns: int):
    images = random_images(columns, *shape)
    labels = [f"t = {1000 - t}" for t in range(columns)]
    figure = plots.filmstrip([images, images], labels=labels, rows=["x_t", "the model's guess"])
    screen(figure)
    card = figure.bbox
    boxes = [text.get_window_extent() for text in drawn(figure).texts]
    for box in boxes:
        assert box.x0 >= card.x0 - 1
        assert box.x1 <= card.x1 + 1
        assert box.y0 >= card.y0 - 1
        assert box.y1 <= card.y1 + 1
    for left, right in zip(boxes[: columns - 1], boxes[1:columns], strict=True):
        assert left.x1 <= right.x0 + 1
    picture = drawn(figure).get_window_extent()
    assert all(box.x1 <= picture.x0 for box in boxes[columns:])
    assert figure.get_size_inches()[0] * plots.DPI <= plots.WIDTH or shape[2] * columns > 800


def test_titles_are_above_their_images():
    figure = plots.image_grid(random_images(4), 2, titles=["a", "b", "c", "d"])
    assert words(figure) == ["a", "b", "c", "d"]
    places = [text.get_position() for text in drawn(figure).texts]
    assert places[0][0] == places[2][0] < places[1][0]
    assert places[0][1] < 0.5 * drawn(figure).images[0].get_array().shape[0] < places[2][1]


def test_a_grid_is_square_by_default():
    assert shown(plots.image_grid(random_images(9))).shape[:2] == (3 * 7 + 4, 3 * 9 + 4)
    assert shown(plots.image_grid(random_images(1))).shape[:2] == (7, 9)


def test_curves_draw_what_they_are_given():
    x = torch.linspace(0.1, 1, 20)
    figure = plots.curves(x, {"a": x**2, "b": (x**3).tolist()}, x_label="x", y_label="y", title="t")
    axes = drawn(figure)
    for line, expected in zip(axes.lines, (x**2, x**3), strict=True):
        np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-6)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title(loc="left")) == ("x", "y", "t")
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 2


def test_runs_become_a_mean_and_a_band():
    runs = torch.tensor([[1.0, 2.0, 6.0], [3.0, 2.0, 0.0]])
    figure = plots.curves([0, 1, 2], {"a": runs}, x_label="x", y_label="y")
    axes = drawn(figure)
    assert axes.lines[0].get_ydata().tolist() == [2, 2, 3]
    (band,) = axes.collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices}
    assert {(0, 1), (0, 3), (2, 0), (2, 6)} <= corners
    assert axes.get_legend() is None  # one curve needs none


def test_curves_can_be_logarithmic_and_share_a_figure():
    whole = Figure()
    left, right = whole.subplots(1, 2)
    lines = {"a": [1.0, 10.0]}
    figure = plots.curves([1, 100], lines, x_label="x", y_label="y", log_x=True, axes=left)
    assert figure is whole
    plots.curves([1, 100], lines, x_label="x", y_label="y", log_y=True, axes=right)
    assert (left.get_xscale(), left.get_yscale()) == ("log", "linear")
    assert (right.get_xscale(), right.get_yscale()) == ("linear", "log")


def test_panels_are_side_by_side_in_the_requested_size():
    figure, parts = plots.panels(3, width=6, height=2)
    assert figure.axes == parts
    assert figure.get_size_inches().tolist() == [6, 2]
    screen(figure)
    boxes = [part.get_window_extent() for part in parts]
    assert len({round(box.y0) for box in boxes}) == 1
    assert boxes[0].x1 < boxes[1].x0 < boxes[1].x1 < boxes[2].x0
    for part in parts:
        assert not part.spines["top"].get_visible()
        assert part.spines["left"].get_visible()


@pytest.mark.parametrize("share_x", [True, False])
@pytest.mark.parametrize("share_y", [True, False])
def test_panels_share_ranges_only_on_request(share_x: bool, share_y: bool):
    _, (left, right) = plots.panels(2, share_x=share_x, share_y=share_y)
    left.plot([0, 5], [0, 7])
    right.plot([0, 1], [0, 2])
    assert (left.get_xlim() == right.get_xlim()) == share_x
    assert (left.get_ylim() == right.get_ylim()) == share_y


def test_one_panel_is_a_list_too():
    figure, (only,) = plots.panels(1)
    assert figure.axes == [only]


def test_colors_are_distinct_for_color_blind_readers_too():
    """Machado et al. 2009, severity 1: everybody can tell any two of the colors apart."""
    blindness = {
        "none": np.eye(3),
        "protan": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        "deutan": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
        "tritan": [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ],
    }
    colors = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in plots.COLORS])
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    for matrix in blindness.values():
        seen = np.clip(linear @ np.array(matrix).T, 0, 1)
        seen = np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
        apart = np.abs(seen[:, None] - seen[None]).max(2) + np.eye(len(seen))
        assert apart.min() > 0.1
    assert len(plots.DASHES) == len(set(map(str, plots.DASHES))) == len(plots.COLORS)


@pytest.mark.parametrize("color", [*plots.COLORS, plots.GRAY])
@pytest.mark.parametrize("ground", [WHITE, DARK])
def test_lines_can_be_seen_in_both_themes(color: str, ground: int):
    assert contrast(color, ground) >= 3


def test_text_can_be_read_in_both_themes():
    """At the contrast that WCAG asks for in the light one; no gray has it in both."""
    assert contrast(plots.INK, WHITE) >= 4.5
    assert contrast(plots.INK, DARK) >= 4
    grays = [f"#{gray:02x}{gray:02x}{gray:02x}" for gray in range(256)]
    assert max(min(contrast(gray, ground) for ground in (WHITE, DARK)) for gray in grays) < 4.5
    assert (contrast("#000000", WHITE), contrast("#ffffff", WHITE)) == pytest.approx((21, 1))


def busy() -> Figure:
    """Everything that matplotlib draws in black or white unless told otherwise."""
    figure, (left, right) = plots.panels(2)
    left.plot([0, 1], [0, 1], label="by default")
    left.plot([0, 1], [1, 0], "s-", color="black", label="black")
    left.set(title="a title", xlabel="x", ylabel="y", xscale="symlog")
    left.legend(title="a legend")
    left.text(0.5, 0.5, "in the middle")
    left.annotate("an arrow", (0, 0), (0.5, 0.2), arrowprops={"arrowstyle": "->"})
    right.scatter([0, 1], [0, 1], color="black")
    right.fill_between([0, 1], [0, 1], color="black", alpha=0.3)
    right.bar([0, 1], [1, 2], facecolor="none", edgecolor="black")
    right.errorbar([0, 1], [1, 1], [0.1, 0.2], color="k")
    shown = right.imshow(np.eye(3), cmap="cividis", alpha=0.0)
    figure.colorbar(shown, ax=right)
    figure.suptitle("both")
    return figure


def test_nothing_is_black_or_white_in_a_figure():
    """On white and on #111 everything that is drawn stands out, whoever chose its color."""
    seen = np.asarray(plots.painted(busy()))
    assert (seen[[0, 0, -1, -1], [0, -1, 0, -1]] == 0).all(), "the ground is transparent"
    solid = seen[seen[..., 3] == 255][:, :3].astype(int)
    colors, count = np.unique(solid, axis=0, return_counts=True)
    known = [color for color, n in zip(colors, count, strict=True) if n >= 20]
    assert [int(plots.INK[1:3], 16)] * 3 in [list(color) for color in known]
    for color in known:
        text = "#{:02x}{:02x}{:02x}".format(*color)
        assert contrast(text, WHITE) > 1.5, text
        assert contrast(text, DARK) > 1.5, text


def test_colors_that_a_lesson_chose_stay():
    figure, (plot,) = plots.panels(1)
    plot.tick_params(colors="#0072B2")
    plot.set_title("t", color="#D55E00")
    (line,) = plot.plot([0, 1], color="#009E73")
    (white,) = plot.plot([1, 0], color="white")  # on a picture, for example
    dots: Any = plot.scatter([0, 1], [0, 1], c=[0.0, 1.0], cmap="gray")
    plot.set_facecolor("#abcdef")
    plots.painted(figure)
    assert plot.xaxis.get_ticklabels()[0].get_color() == "#0072B2"
    assert plot.title.get_color() == "#D55E00"
    assert (line.get_color(), white.get_color()) == ("#009E73", "white")
    assert dots.get_facecolor()[:, :3].tolist() == [[0, 0, 0], [1, 1, 1]]
    assert plot.get_facecolor()[:3] == pytest.approx((0xAB / 255, 0xCD / 255, 0xEF / 255))


# --- show


def test_show_sends_a_picture_and_its_text(monkeypatch: pytest.MonkeyPatch):
    sent: list[tuple[dict, dict]] = []
    monkeypatch.setattr(plots, "get_ipython", object)
    monkeypatch.setattr(plots, "display", lambda data, raw, metadata: sent.append((data, metadata)))
    alt = 'Six "small" pictures & more'
    plots.show(plots.image_grid(random_images(6)), alt=alt)
    ((data, metadata),) = sent
    with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as picture:
        size = metadata["image/png"]["width"], metadata["image/png"]["height"]
        assert picture.size == tuple(plots.SHARPNESS * side for side in size)
        assert picture.info["Description"] == alt
    assert metadata["image/png"]["alt"] == data["text/plain"] == alt
    assert 'alt="Six &quot;small&quot; pictures &amp; more"' in data["text/html"]


@pytest.mark.parametrize(("channels", "off"), [(1, 1), (3, 0)])
def test_the_file_of_images_has_their_exact_colors(channels: int, off: int):
    """Beside 256 grays a palette has no place for nothing, so two of them become one."""
    figure = plots.image_grid(random_images(40, channels, 12, 12))
    with Image.open(io.BytesIO(plots._png(figure, "forty images"))) as picture:
        assert picture.mode == ("P" if channels == 1 else "RGBA")
        file, wanted = np.asarray(picture.convert("RGBA")), screen(figure)
    assert np.abs(file.astype(int) - wanted).max() <= off
    assert (file != wanted).any(2).mean() < 0.02


def test_the_file_of_curves_is_small_and_looks_the_same():
    x = torch.linspace(0, 20, 500)
    lines = {str(k): (x + k).sin() for k in range(2)}
    figure = plots.curves(x, lines, x_label="x", y_label="y")
    file, plain = plots._png(figure, "two waves"), io.BytesIO()
    figure.savefig(plain, format="png", dpi=plots.DPI * plots.SHARPNESS)
    assert len(file) < 0.6 * len(plain.getvalue())
    with Image.open(io.BytesIO(file)) as picture:
        pixels, wanted = np.asarray(picture.convert("RGBA")), screen(figure)
    for ground in (WHITE, DARK):
        off = np.abs(on(ground, pixels) - on(ground, wanted))
        assert off.mean() < 0.2
        assert off.max() <= 8


def test_a_note_is_at_the_foot():
    figure = plots.image_grid(random_images(6))
    with_note, _ = plots.bundle(figure, "six pictures", "run me")
    without, _ = plots.bundle(figure, "six pictures")
    with Image.open(io.BytesIO(base64.b64decode(with_note["image/png"]))) as picture:
        pixels = np.asarray(picture.convert("RGBA"))
    with Image.open(io.BytesIO(base64.b64decode(without["image/png"]))) as picture:
        above = np.asarray(picture.convert("RGBA"))
    assert np.abs(pixels[: len(above)].astype(int) - above).max() <= 4
    foot = pixels[len(above) :]
    assert len(foot) == plots._FOOT * plots.SHARPNESS
    assert (foot[foot[..., 3] > 200][:, :3] == int(plots.INK[1:3], 16)).all()
    assert 0.005 < (foot[..., 3] > 0).mean() < 0.5


def test_show_prints_the_text_outside_a_notebook(capsys: pytest.CaptureFixture[str]):
    plots.show(plots.image_grid(random_images(1)), alt="one gray picture")
    assert capsys.readouterr().out == "one gray picture\n"


def test_the_same_figure_has_the_same_bytes(monkeypatch: pytest.MonkeyPatch):
    """A rebuilt notebook must not differ, so nothing like a date may be in the file."""
    sent: list[dict] = []
    monkeypatch.setattr(plots, "get_ipython", object)
    monkeypatch.setattr(plots, "display", lambda data, raw, metadata: sent.append(data))
    images = random_images(4)
    for _ in range(2):
        plots.show(plots.filmstrip([images], labels=list("abcd")), alt="four pictures")
    assert sent[0] == sent[1]


def test_neighbors_are_below_their_samples():
    samples, train = random_images(3), random_images(9)
    figure = plots.neighbors(samples, train, torch.tensor([[4, 0], [8, 1], [4, 7]]))
    seen = shown(figure)
    for row, batch in enumerate((samples, train[[4, 8, 4]], train[[0, 1, 7]])):
        for i, expected in enumerate(to_bytes(batch)):
            there = seen[9 * row : 9 * row + 7, 11 * i : 11 * i + 9]
            assert np.array_equal(there, opaque(expected))
    assert words(figure) == ["sample", "nearest", "2. nearest"]


# --- wrong arguments


@pytest.mark.plain_errors
def test_wrong_arguments_are_named():
    images = torch.zeros(3, 1, 8, 8)
    with pytest.raises(ValueError, match="alt must say in words"):
        plots.show(plots.image_grid(images), alt="  ")
    with pytest.raises(ValueError, match=r"images must have shape .* got \(1, 8, 8\)"):
        plots.image_grid(images[0])
    with pytest.raises(ValueError, match="images must be finite"):
        plots.image_grid(images / 0)
    with pytest.raises(ValueError, match="columns must be at least 1"):
        plots.image_grid(images, 0)
    with pytest.raises(ValueError, match="titles must be 3, one for each image; got 2"):
        plots.image_grid(images, titles=["a", "b"])
    with pytest.raises(ValueError, match="strips must hold at least one"):
        plots.filmstrip([])
    with pytest.raises(ValueError, match="strips must all have the same shape"):
        plots.filmstrip([images, images[:2]])
    with pytest.raises(ValueError, match="labels must be 3, one for each column; got 1"):
        plots.filmstrip([images], labels=["a"])
    with pytest.raises(ValueError, match="rows must be 1, one for each strip; got 2"):
        plots.filmstrip([images], rows=["a", "b"])
    with pytest.raises(ValueError, match=r"lines\['a'\] must have shape .* got \(1, 3\)"):
        plots.curves([1, 2], {"a": [1, 2, 3]}, x_label="x", y_label="y")
    with pytest.raises(ValueError, match="count must be at least 1"):
        plots.panels(0)
    with pytest.raises(ValueError, match="lines must hold 1 to 7 curves, got 0"):
        plots.curves([1, 2], {}, x_label="x", y_label="y")
    with pytest.raises(ValueError, match=r"places must have shape \(3, K\), K >= 1; got \(2, 1\)"):
        plots.neighbors(images, images, torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        LivePlot(0)
    with pytest.raises(ValueError, match="interval must be"):
        LivePlot(interval=-1)
    live = LivePlot()
    with pytest.raises(ValueError, match="step must be at least 0"):
        live.update(-1, 1.0)
    with pytest.raises(ValueError, match=r"loss must be one number, got shape \(2,\)"):
        live.update(1, torch.zeros(2))
    with pytest.raises(TypeError, match="loss must be a number, got str 'low'"):
        live.update(1, "low")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="images must have shape"):
        live.update(1, images=images[0])
