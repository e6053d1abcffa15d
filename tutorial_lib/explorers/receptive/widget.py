"""The receptive-field explorer of lesson 4."""

import math
from collections.abc import Mapping
from typing import Any

import torch
import traitlets
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from tutorial_lib import _validate, plots
from tutorial_lib._typing import EpsModel, Images
from tutorial_lib.explorers.shared import base, wire

Fields = Float[Tensor, "height width height width"]
"""[i, j, k, l]: how strongly the output at row i, column j depends on the input at k, l."""

_AT_ONCE = 64  # output pixels whose gradients are computed together


def receptive_fields(model: EpsModel, image: Images, t: int) -> Fields:
    """What every output pixel sees: the absolute gradient of each with respect to the input.

    An output pixel is the sum of its channels; the absolute gradients are summed over the input's
    channels (Luo et al. 2016, sec. 2). A batch holds the picture once for each output pixel, so the
    model must treat each sample of a batch by itself, as networks without batch norm do.

    Args:
        image: (1, C, H, W), where the gradient is taken.
        t: the step to ask about.

    Returns:
        (H, W, H, W), first the output pixel, then the input pixel.

    Raises:
        ValueError: the model answers in another shape, with NaN or without a gradient.
    """
    height, width = image.shape[2:]
    with torch.inference_mode(False), torch.enable_grad():  # the caller may have gradients off
        fields = [
            _gradients(model, image, t, pixels)
            for pixels in torch.arange(height * width).split(_AT_ONCE)
        ]
    return torch.cat(fields).view(height, width, height, width)


def _gradients(model: EpsModel, image: Images, t: int, pixels: Tensor) -> Tensor:
    """The fields of the output pixels with these numbers, (len(pixels), H, W)."""
    count = len(pixels)
    x = image.expand(count, *image.shape[1:]).clone().requires_grad_()
    steps = torch.full((count,), t, device=x.device)
    eps_hat = _validate.answer("model", model(x, steps), x)
    if not eps_hat.requires_grad:
        raise ValueError("model must let gradients through from its answer to x_t, got none")
    chosen = eps_hat.flatten(2)[torch.arange(count), :, pixels.to(x.device)]
    (gradient,) = torch.autograd.grad(chosen.sum(), x)
    return _validate.finite("the gradient of model", gradient.cpu()).abs().sum(1)


def influence_bytes(fields: Fields) -> Tensor:
    """Fields on a logarithmic scale, uint8 of the same shape, each relative to its largest value.

    0 is no influence at all, 1 a thousandth of the largest or less, 255 the largest; between them
    are equal steps of the logarithm.
    """
    largest = fields.flatten(2).amax(2)[:, :, None, None]
    share = fields / largest.clamp(min=torch.finfo(fields.dtype).tiny)
    decades = wire.INFLUENCE_DECADES
    level = (share.clamp(min=10.0**-decades).log10() + decades) / decades  # 0 to 1
    places = 1 + level * wire.INFLUENCE_LEVELS
    return torch.where(fields > 0, places.round(), 0.0).to(torch.uint8)


class ReceptiveFieldExplorer(base.Explorer, folder="receptive"):
    """Which input pixels reach an output pixel: click one, move its row and column, or play.

    Args:
        models: a network, or several by name, called as ``model(x_t, t)``. A network whose last
            layer is still 0 sees nothing, so train it or change its weights first.
        image: (C, H, W) or (1, C, H, W), values in [-1, 1]: where the gradients are taken. The maps
            of one model take (H x W)^2 bytes, so two can see 28 x 28 pixels at most.
        t: the step to ask about.
        row, column: the output pixel to begin with; by default the middle one.

    Raises:
        TypeError, ValueError: invalid models, image or numbers, or an image too
            large for its maps to be sent.
    """

    fields = traitlets.Bytes().tag(sync=True)
    x_t = traitlets.Bytes().tag(sync=True)
    model_names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    shape = traitlets.List(traitlets.Int()).tag(sync=True)
    pixel = traitlets.Int(0, min=0).tag(sync=True)

    def __init__(
        self,
        models: EpsModel | Mapping[str, EpsModel],
        image: Tensor,
        *,
        t: int = 500,
        row: int | None = None,
        column: int | None = None,
    ) -> None:
        image = image[None] if isinstance(image, Tensor) and image.ndim == 3 else image
        self._image = base.check_images("image", image)
        if len(self._image) != 1:
            raise ValueError(f"image must be one image, got {len(self._image)}")
        named = _named_models(models)
        height, width = self._image.shape[2:]
        side = math.isqrt(math.isqrt(base.MAX_BYTES // len(named)))
        if (height * width) ** 2 * len(named) > base.MAX_BYTES:
            raise ValueError(
                f"image must be at most about {side} x {side} pixels for {len(named)} models, "
                f"(height x width)^2 bytes each; got {width} x {height}: give a smaller one"
            )
        _validate.whole_number("t", t, at_least=0)
        row = height // 2 if row is None else _validate.whole_number("row", row, at_least=0)
        column = (
            width // 2 if column is None else _validate.whole_number("column", column, at_least=0)
        )
        _validate.number("row", row, low=0, high=height - 1)
        _validate.number("column", column, low=0, high=width - 1)
        given = image.device
        self._maps = torch.stack(
            [
                influence_bytes(receptive_fields(model, self._image.to(_device(model, given)), t))
                for model in named.values()
            ]
        )
        super().__init__(
            fields=self._maps.numpy().tobytes(),
            x_t=base.gray_bytes(self._image),
            model_names=list(named),
            shape=list(self._image.shape[1:]),
            pixel=row * width + column,
        )

    def _place(self) -> tuple[int, int]:
        """Row and column of the output pixel: ``pixel`` counts along the rows."""
        height, width = self._image.shape[2:]
        return divmod(min(self.pixel, height * width - 1), width)

    def _summary(self) -> str:
        row, column = self._place()
        height, width = self._image.shape[2:]
        shares = (
            f"{name} sees {float((maps[row, column] > 0).float().mean()):.0%}"
            for name, maps in zip(self.model_names, self._maps, strict=True)
        )
        return (
            f"Which of the {width} x {height} input pixels reach the output pixel at row {row}, "
            f"column {column}: {', '.join(shares)}."
        )

    def _still(self) -> Figure:
        row, column = self._place()
        decades = wire.INFLUENCE_DECADES
        figure, axes = plots.panels(1 + len(self.model_names), height=3.0)
        picture = (self._image[0].clamp(-1, 1) + 1) / 2
        axes[0].imshow(picture.permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=1)
        axes[0].set_title("the input")
        drawn = []
        for axis, name, maps in zip(axes[1:], self.model_names, self._maps, strict=True):
            seen = maps[row, column].float()
            logarithm = (seen - 1) / wire.INFLUENCE_LEVELS * decades - decades
            shown = torch.where(seen > 0, logarithm, torch.nan)
            drawn.append(axis.imshow(shown.numpy(), cmap="cividis", vmin=-decades, vmax=0))
            axis.set_title(name)
        figure.colorbar(drawn[0], ax=axes[1:], shrink=0.7, label="log10 of the influence")
        for axis in axes:
            axis.plot(column, row, "+", color=plots.COLORS[1], ms=10, mew=2)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(True)
        return figure


def _named_models(models: Any) -> dict[str, EpsModel]:
    """One model or several, by name; raises TypeError or ValueError where there is none."""
    found = models if isinstance(models, Mapping) else {"this model": models}
    if not found:
        raise ValueError("models must hold at least one model, got none")
    for name, model in found.items():
        if not callable(model):
            came = _validate.describe(model)
            raise TypeError(f"models must be callable as model(x_t, t); {name!r} is {came}")
    return {str(name): model for name, model in found.items()}


def _device(model: EpsModel, given: torch.device) -> torch.device:
    """The device of a network's first parameter; for any other callable, that of the image."""
    parameters = model.parameters() if isinstance(model, torch.nn.Module) else iter(())
    first = next(parameters, None)
    return given if first is None else first.device
