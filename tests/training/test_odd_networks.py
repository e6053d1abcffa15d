"""Odd networks and data: named before anything is written, or trained on as they should be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from training_cases import bits, same_bits, tiny

from tests.draws import seeded
from tutorial_lib.checkpoints import load_checkpoint
from tutorial_lib.datasets import Dataset
from tutorial_lib.networks import TinyUNet
from tutorial_lib.training import resume, train
from tutorial_lib.training.state import State, fill_module

pytestmark = pytest.mark.plain_errors
X = torch.rand(12, 3, 8, 8, generator=seeded()) * 2 - 1
LABELS = torch.arange(12) % 6
NAMES = tuple("abcdef")


class Says(nn.Module):
    """A network that answers what a function makes of its own answer."""

    def __init__(self, change: Callable[[Tensor], Any], dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.layer, self.change = nn.Conv2d(3, 3, 1, dtype=dtype), change

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Any:
        return self.change(self.layer(x_t))


class Told(nn.Module):
    """A network that has a table of ``classes`` rows and says nothing about it."""

    def __init__(self, classes: int, steps: int = 1001) -> None:
        super().__init__()
        self.label, self.step = nn.Embedding(classes, 3), nn.Embedding(steps, 3)

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return x_t + (self.label(labels) + self.step(t))[:, :, None, None]


def unet(**settings: Any) -> TinyUNet:
    torch.manual_seed(0)
    return TinyUNet(3, widths=(8, 16), **settings)


def frozen() -> nn.Module:
    return Says(lambda x: x).requires_grad_(False)


NETWORKS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "a function": (lambda: lambda x, t: x, TypeError, "model must be a torch.nn.Module, .* functi"),
    "text": (lambda: "unet", TypeError, "model must be a torch.nn.Module, .* got str 'unet'"),
    "a number": (lambda: 3, TypeError, "model must be a torch.nn.Module, .* got int 3"),
    "a class": (lambda: TinyUNet, TypeError, "model must be a torch.nn.Module, .* got type"),
    "half": (lambda: unet().half(), TypeError, "model must have float32 .* got torch.float16"),
    "double": (lambda: unet().double(), TypeError, "model must have float32 .* got torch.float64"),
    "bfloat16": (lambda: unet().bfloat16(), TypeError, "model must have float32 .*bfloat16"),
    "complex": (
        lambda: Says(lambda x: x, dtype=torch.complex64),
        TypeError,
        "model must have float32 weights, got torch.complex64 in layer.weight",
    ),
    "meta": (lambda: unet().to("meta"), TypeError, "of model must hold numbers, .* meta device"),
    "lazy": (lambda: nn.LazyConv2d(3, 1), ValueError, "model must have its weights, call it once"),
    "nothing to train": (lambda: nn.Identity(), ValueError, "model must have weights to train"),
    "frozen": (frozen, ValueError, "model must have weights to train"),
    "complex answers": (
        lambda: Says(lambda x: x + 1j),
        TypeError,
        "model must answer with floating-point numbers, got torch.complex64",
    ),
    "whole answers": (
        lambda: Says(lambda x: x.long()),
        TypeError,
        "model must answer with floating-point numbers, got torch.int64",
    ),
    "true or false": (
        lambda: Says(lambda x: x > 0),
        TypeError,
        "model must answer with floating-point numbers, got torch.bool",
    ),
    "NaN": (
        lambda: Says(lambda x: x * torch.nan),
        ValueError,
        "the answer of model must be finite",
    ),
    "infinity": (lambda: Says(lambda x: x / 0), ValueError, "answer of model must be finite"),
    "a tuple": (
        lambda: Says(lambda x: (x,)),
        TypeError,
        "model must answer with a tensor, got t",
    ),
    "nothing": (lambda: Says(lambda x: None), TypeError, "model must answer with a tensor, got No"),
    "another shape": (
        lambda: Says(lambda x: x[:, :1]),
        ValueError,
        "model must answer with the shape of x_t",
    ),
    "a sparse tensor": (
        lambda: Says(lambda x: x.to_sparse()),
        TypeError,
        "the answer of model must be dense",
    ),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("target", ["eps", "v", "x0", "velocity"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_cannot_be_trained_is_named(
    tmp_path: Path, name: str, target: str, precision: str
) -> None:
    make, error, message = NETWORKS[name]
    config = tiny(tmp_path / "run", target=target, precision=precision)
    with pytest.raises(error, match=message):
        train(config, data=X, model=make())
    assert not (tmp_path / "run").exists()


FEWER: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a network that says so": (
        lambda: unet(num_classes=3),
        "model must know the 6 classes of data, got 3",
    ),
    "a network with more": (
        lambda: unet(num_classes=7),
        "model must know the 6 classes of data, got 7",
    ),
    "a table that is too short": (
        lambda: Told(3),
        "model must know .* conditions up to 5 and no_condition, 6: index out of range",
    ),
    "a table without no condition": (
        lambda: Told(6),
        "model must know .* conditions up to 5 and no_condition, 6: index out of range",
    ),
    "a table of few steps": (
        lambda: Told(7, steps=1000),
        "model must know steps up to 1000, .*: index out of range",
    ),
}


@pytest.mark.parametrize("name", FEWER)
def test_a_network_with_other_classes_than_the_data_is_named(tmp_path: Path, name: str) -> None:
    make, message = FEWER[name]
    config = tiny(tmp_path / "run", conditional=True)
    with pytest.raises(ValueError, match=message):
        train(config, data=Dataset(X, LABELS, NAMES), model=make())
    assert not (tmp_path / "run").exists()


def test_labels_without_names_are_compared_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model must know label 5 of data, got 3 classes"):
        train(tiny(tmp_path / "run", conditional=True), data=(X, LABELS), model=unet(num_classes=3))
    assert not (tmp_path / "run").exists()
    run = train(tiny(tmp_path / "run", conditional=True), data=(X, LABELS))
    assert load_checkpoint(run.path).class_names == ("0", "1", "2", "3", "4", "5")


DATA: dict[str, tuple[Any, str]] = {
    "text": ("mnist", "data must be a Dataset, a tensor"),
    "a number": (3, "data must be a Dataset, a tensor"),
    "a list": ([X, LABELS], "data must be a Dataset, a tensor"),
    "three": ((X, LABELS, LABELS), "data must be a Dataset, a tensor"),
    "half": (X.half(), "data must be float32, got torch.float16"),
    "complex": (X + 0j, "data must be float32, got torch.complex64"),
    "whole": (X.long(), "data must be float32, got torch.int64"),
    "eight bits": (X.to(torch.float8_e5m2), "data must be float32, got torch.float8_e5m2"),
    "sparse": (X.to_sparse(), "data must be dense"),
    "meta": (X.to("meta"), "data must hold numbers, .* meta device"),
    "sparse labels": ((X, LABELS.to_sparse()), "the condition in data must be dense"),
    "meta labels": ((X, LABELS.to("meta")), "the condition in data must hold numbers"),
    "text labels": ((X, "labels"), "the condition in data must be an int64 tensor"),
}


@pytest.mark.parametrize("name", DATA)
def test_odd_data_are_named(tmp_path: Path, name: str) -> None:
    data, message = DATA[name]
    with pytest.raises((TypeError, ValueError), match=message):
        train(tiny(tmp_path / "run"), data=data)
    assert not (tmp_path / "run").exists()


def test_no_gradient_reaches_the_data(tmp_path: Path) -> None:
    plain = train(tiny(tmp_path / "plain"), data=X)
    wanted = X.clone().requires_grad_()
    run = train(tiny(tmp_path / "run"), data=wanted)
    assert wanted.grad is None
    assert run.losses == plain.losses
    train(tiny(tmp_path / "set"), data=Dataset(wanted, LABELS, NAMES))
    assert wanted.grad is None


@pytest.mark.parametrize("conditional", [True, False])
def test_the_default_kind_of_numbers_changes_nothing(tmp_path: Path, conditional: bool) -> None:
    data = Dataset(X, LABELS, NAMES)
    expected = train(tiny(tmp_path / "run", conditional=conditional), data=data)
    torch.set_default_dtype(torch.float64)
    try:
        settings = {"conditional": conditional, "sample_every": 2}
        run = train(tiny(tmp_path / "double", **settings), data=data)
        assert load_checkpoint(run.path).schedule.num_steps == 1000
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(value.dtype == torch.float32 for value in bits(run.network))
    assert len(run.losses) == len(expected.losses)


def test_a_compiled_network_is_trained_compiled_and_saved_plain(tmp_path: Path) -> None:
    calls: list[int] = []

    def counting(module: torch.fx.GraphModule, example: list[Tensor]) -> Callable[..., Any]:
        calls.append(1)
        return module.forward

    expected = train(tiny(tmp_path / "plain"), data=X, model=unet())
    net = unet()
    compiled: Any = torch.compile(net, backend=counting)
    run = train(tiny(tmp_path / "run"), data=X, model=compiled)
    assert calls, "it was compiled"
    assert run.losses == pytest.approx(expected.losses, rel=1e-5)
    assert run.network is net
    loaded = load_checkpoint(run.path)
    assert type(loaded.network) is TinyUNet
    assert same_bits(loaded.network, run.ema_network)


def test_a_state_with_the_names_of_a_compiler_is_still_read(tmp_path: Path) -> None:
    """As earlier versions wrote them."""
    tensors = {f"network._orig_mod.{name}": value for name, value in unet().state_dict().items()}
    other = unet()
    for weight in other.parameters():
        nn.init.ones_(weight)
    fill_module(State(tmp_path / "state", tensors, {}), "network.", other)
    assert same_bits(other, unet())


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda net: torch.compile(net, backend="eager")])
def test_a_run_of_a_wrapped_network_can_be_resumed_without(tmp_path: Path, wrap: Any) -> None:
    settings: dict[str, Any] = {"decay": "constant", "warmup": 0.0}
    whole = train(tiny(tmp_path / "whole", steps=6, **settings), data=X, model=unet())
    train(tiny(tmp_path / "parts", steps=3, **settings), data=X, model=wrap(unet()))
    parts = resume(tmp_path / "parts", data=X, model=unet(), steps=6)
    assert parts.losses == pytest.approx(whole.losses, rel=1e-5)
