"""The receptive-field explorer, its part without a browser."""

import pytest
import torch
from torch import nn

from tutorial_lib.explorers import ReceptiveFieldExplorer
from tutorial_lib.explorers.receptive.widget import influence_bytes, receptive_fields
from tutorial_lib.explorers.shared import base
from tutorial_lib.networks.unet import TinyUNet, TwoLevelUNet

IMAGE = torch.rand(1, 3, 12, 10, generator=torch.Generator().manual_seed(3)) * 2 - 1


def woken(net: nn.Module) -> nn.Module:
    """The net with its weights moved a little: a fresh TinyUNet answers 0 whatever comes."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return net


class Neighbors:
    """A model whose field is known: three times the pixel, minus half the one on its left."""

    def __call__(self, x_t, t):
        left = torch.zeros_like(x_t)
        left[..., 1:] = x_t[..., :-1]
        return 3 * x_t - 0.5 * left


@pytest.mark.parametrize("make", [TwoLevelUNet, TinyUNet])
def test_each_map_is_one_gradient_by_itself(make):
    net = woken(make(3, 16) if make is TwoLevelUNet else make(3, (16, 16)))
    found = receptive_fields(net, IMAGE, 300)
    assert found.shape == (12, 10, 12, 10)
    for row, column in ((0, 0), (5, 7), (11, 9), (6, 4)):
        x = IMAGE.clone().requires_grad_()
        net(x, torch.tensor([300]))[:, :, row, column].sum().backward()
        assert x.grad is not None
        torch.testing.assert_close(found[row, column], x.grad.abs().sum((0, 1)))


def test_a_known_field():
    found = receptive_fields(Neighbors(), IMAGE, 1)
    expected = torch.zeros(12, 10, 12, 10)
    for row in range(12):
        for column in range(10):
            expected[row, column, row, column] = 3 * 3  # three channels
            if column:
                expected[row, column, row, column - 1] = 3 * 0.5
    assert torch.equal(found, expected)


def test_the_two_level_net_sees_15_by_15_and_tiny_unet_all():
    image = torch.zeros(1, 1, 24, 24)
    torch.manual_seed(0)
    two = receptive_fields(woken(TwoLevelUNet(1, 16)), image, 500)[12, 12]
    assert two.any(0).sum() == two.any(1).sum() == 15
    assert (receptive_fields(woken(TinyUNet(1, (16, 32))), image, 500)[12, 12] > 0).all()


def test_influence_on_a_logarithmic_scale():
    fields = torch.zeros(2, 3, 2, 3)
    fields[1, 2] = torch.tensor([[2.0, 0.2, 0.02], [0.002, 0.00001, 0.0]])
    found = influence_bytes(fields)
    expected = [255, round(1 + 254 * 2 / 3), round(1 + 254 / 3), 1, 1, 0]
    assert found[1, 2].flatten().tolist() == expected
    found[1, 2] = 0
    assert not found.any()  # what sees nothing shows nothing


def test_a_fresh_tiny_unet_sees_nothing_and_says_so():
    explorer = ReceptiveFieldExplorer(TinyUNet(3, (16, 16)), IMAGE)
    assert not any(explorer.fields)
    assert "this model sees 0%" in repr(explorer)


def test_what_it_says_and_sends():
    models = {"one": Neighbors(), "two": woken(TinyUNet(3, (16, 16)))}
    explorer = ReceptiveFieldExplorer(models, IMAGE[0], row=3, column=0)
    assert explorer.shape == [3, 12, 10]
    assert len(explorer.fields) == 2 * 120**2
    assert "row 3, column 0: one sees 1%, two sees 100%" in repr(explorer)
    data, _ = explorer._repr_mimebundle_()
    assert explorer.pixel == 3 * 10
    explorer.pixel = 97
    assert "row 9, column 7" in repr(explorer)
    assert explorer._repr_mimebundle_()[0]["image/png"] != data["image/png"]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_taken_also_where_they_are_off(mode):
    with mode():
        assert receptive_fields(Neighbors(), IMAGE, 1).any()


@pytest.mark.plain_errors
def test_too_large_an_image_is_refused_with_the_largest_size():
    side = 28
    assert 2 * side**4 <= base.MAX_BYTES < 2 * (side + 1) ** 4
    message = "at most about 28 x 28 pixels for 2 models"
    with pytest.raises(ValueError, match=message):
        ReceptiveFieldExplorer({"a": Neighbors(), "b": Neighbors()}, torch.zeros(1, 29, 29))


@pytest.mark.plain_errors
@pytest.mark.parametrize(
    ("models", "options", "error", "message"),
    [
        ({}, {}, ValueError, "at least one model"),
        ({"a": 3}, {}, TypeError, "'a' is int 3"),
        (None, {}, TypeError, "models must be callable"),
        (lambda x, t: x[:, :1], {}, ValueError, "model must answer with the shape of x_t"),
        (lambda x, t: torch.zeros_like(x), {}, ValueError, "let gradients through"),
        (lambda x, t: x * float("nan"), {}, ValueError, "gradient of model must be finite"),
        (Neighbors(), {"t": -1}, ValueError, "t must be at least 0"),
        (Neighbors(), {"row": 12}, ValueError, r"row must be in \[0, 11\]"),
        (Neighbors(), {"column": 10}, ValueError, r"column must be in \[0, 9\]"),
        (Neighbors(), {"row": 1.5}, TypeError, "row must be an int"),
    ],
)
def test_wrong_arguments_are_named(models, options, error, message):
    with pytest.raises(error, match=message):
        ReceptiveFieldExplorer(models, IMAGE, **options)


@pytest.mark.plain_errors
def test_wrong_images_are_named():
    with pytest.raises(ValueError, match="image must be one image, got 2"):
        ReceptiveFieldExplorer(Neighbors(), torch.zeros(2, 1, 8, 8))
    with pytest.raises(ValueError, match="image must have shape"):
        ReceptiveFieldExplorer(Neighbors(), torch.zeros(1, 2, 8, 8))
