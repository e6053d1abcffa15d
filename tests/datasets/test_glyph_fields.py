"""Fonts as distance fields: all digits are there, rotated and shifted as requested."""

import functools

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tutorial_lib.datasets import glyph_fields as _glyphs


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


@pytest.mark.plain_errors
def test_missing_fonts_are_reported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_glyphs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="matplotlib's fonts, which are not installed"):
        _glyphs.font_folder()
