"""Networks in wrappers: what is saved and trained is what is inside, under its own names."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from tutorial_lib import schedules
from tutorial_lib.checkpoints import load_checkpoint, save_checkpoint
from tutorial_lib.networks import TinyUNet
from tutorial_lib.networks.wrappers import is_compiled, plain_names, unwrapped, without_wrappers

SCHEDULE = schedules.linear_schedule(20)
CARD = {"dataset": {"name": "noise", "image_shape": [1, 8, 8], "class_names": []}}


def unet(seed: int = 0) -> TinyUNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = TinyUNet(1, widths=(8, 8))
        for weight in net.parameters():  # a layer at zero would hide mistakes
            nn.init.normal_(weight, std=0.3)
    return net


def compiled(network: nn.Module) -> Any:
    return torch.compile(network, backend="eager")


def distributed(network: nn.Module) -> nn.Module:
    """As a process of several has it; made without a process group."""
    wrapper = DistributedDataParallel.__new__(DistributedDataParallel)
    nn.Module.__init__(wrapper)
    wrapper.module = network
    return wrapper


WRAPPERS: dict[str, Callable[[nn.Module], Any]] = {
    "none": lambda network: network,
    "compile": compiled,
    "DataParallel": nn.DataParallel,
    "DDP": distributed,
    "average": lambda network: AveragedModel(network),
    "compile of DataParallel": lambda network: compiled(nn.DataParallel(network)),
    "DDP of compile": lambda network: distributed(compiled(network)),
}
each_wrapper = pytest.mark.parametrize("name", WRAPPERS)


@each_wrapper
def test_what_is_saved_is_the_network_inside(tmp_path: Path, name: str) -> None:
    net = unet()
    wrapped = WRAPPERS[name](net)
    path = save_checkpoint(tmp_path / "net", wrapped, SCHEDULE, card=CARD)
    assert save_checkpoint(tmp_path / "plain", net, SCHEDULE, card=CARD)
    assert path.read_bytes() == (tmp_path / "plain.safetensors").read_bytes()
    loaded = load_checkpoint(path)
    assert type(loaded.network) is TinyUNet
    assert loaded.card["network"]["class"] == "TinyUNet"
    x_t, t = torch.ones(2, 1, 8, 8), torch.tensor([1, 20])
    with torch.no_grad():
        assert torch.equal(loaded.model(x_t, t), net.eval()(x_t, t))


@each_wrapper
def test_a_network_in_a_wrapper_gets_the_weights(tmp_path: Path, name: str) -> None:
    path = save_checkpoint(tmp_path / "net", unet(), SCHEDULE, card=CARD)
    own = WRAPPERS[name](unet(seed=1))
    assert load_checkpoint(path, network=own).network is own
    for key, value in unwrapped(own).state_dict().items():
        assert torch.equal(value, unet().state_dict()[key])


class Partly(nn.Module):
    """A network of which only parts are wrapped."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = compiled(nn.Sequential(nn.Conv2d(1, 2, 1), nn.DataParallel(nn.ReLU())))
        self.module = nn.DataParallel(nn.Conv2d(2, 1, 1))  # the word is a name of its own here

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.module(self.inside(x_t))


def test_parts_in_wrappers_have_plain_names_too(tmp_path: Path) -> None:
    net, other = Partly(), Partly()
    names = plain_names(net)
    assert list(names) == ["inside.0.weight", "inside.0.bias", "module.weight", "module.bias"]
    assert set(names.values()) == set(net.state_dict())
    path = save_checkpoint(tmp_path / "net", net, SCHEDULE, card=CARD)
    held = set(safetensors.torch.load_file(path)) - {"schedule.alpha_bar"}
    assert held == {f"network.{name}" for name in names}
    load_checkpoint(path, network=other)
    for key, value in net.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_files_with_a_wrappers_names_are_still_read(tmp_path: Path, prefix: str) -> None:
    """As earlier versions wrote them."""
    net = nn.Sequential(nn.Conv2d(1, 1, 1))

    class Named(nn.Module):
        def state_dict(self, *args: Any, **kwargs: Any) -> Any:
            return {prefix + name: value for name, value in net.state_dict().items()}

    path = save_checkpoint(tmp_path / "net", Named(), SCHEDULE, card=_without_count(CARD, net))
    own = nn.Sequential(nn.Conv2d(1, 1, 1))
    load_checkpoint(path, network=own)
    for value, expected in zip(own.parameters(), net.parameters(), strict=True):
        assert torch.equal(value, expected)


def _without_count(card: dict, net: nn.Module) -> dict:
    config = {"class": "Named", "config": None}
    return {**copy.deepcopy(card), "network": config}


def test_names_that_would_become_one_stay_as_they_are() -> None:
    names = ["a", "_orig_mod.a"]
    assert without_wrappers(names, ["a"]) == {name: name for name in names}
    assert without_wrappers(["module.a"], ["module.a"]) == {"module.a": "module.a"}
    assert without_wrappers([], ["a"]) == {}


def test_only_what_torch_compiled_is_compiled() -> None:
    assert is_compiled(compiled(unet()))
    assert not is_compiled(unet())
    assert not is_compiled(nn.DataParallel(compiled(unet())))
    assert not is_compiled(compiled(nn.DataParallel(unet())))
