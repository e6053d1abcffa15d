"""A data set: the fields it accepts, and its description."""

import pytest
import torch

from tutorial_lib.datasets import Dataset, circles

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
def test_a_dataset_refuses_invalid_fields(fields: tuple, error: type, message: str):
    with pytest.raises(error, match=message):
        Dataset(*fields)


def test_a_dataset_describes_itself():
    data = circles(5)
    assert len(data) == 5
    assert "5 x 3 x 32 x 32 float32 in [-1, 1]" in repr(data)
    assert "red, yellow" in repr(data)
    many = Dataset(ONE, LABEL, tuple(f"c{i}" for i in range(50)))
    assert "(50)" in repr(many)
    assert "c49" not in repr(many)
    with pytest.raises(AttributeError):
        setattr(data, "images", ONE)  # noqa: B010 (a checker of types refuses the plain way)
