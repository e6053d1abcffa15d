"""Saving and loading a denoiser: weights as safetensors, and a JSON card beside them.

``NAME.safetensors`` holds the weights and alpha_bar. ``NAME.json`` holds everything else: the
network's class and arguments, what it was trained to predict, on which data, for how long and with
which command. Loading runs no code from the files: safetensors holds only numbers, and the card
names a class from a fixed list.

The two files change together, see ``_sealed.write_with_card``.
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutorial_lib import _sealed, _validate, hardware
from tutorial_lib._typing import Condition, EpsModel
from tutorial_lib._validate import UserError
from tutorial_lib.networks.unet import TinyUNet, TwoLevelUNet
from tutorial_lib.predictions import TARGETS, as_eps_model
from tutorial_lib.schedules import NoiseSchedule

NETWORKS: dict[str, type[nn.Module]] = {"TinyUNet": TinyUNet, "TwoLevelUNet": TwoLevelUNet}
"""The networks that a card can name: class name to class."""

_PACKAGE = Path(__file__).resolve().parent
SHIPPED = next(
    (place for place in (_PACKAGE / "_shipped", _PACKAGE.parent / "data") if place.is_dir()),
    _PACKAGE.parent / "data",
)
"""The folder of the checkpoints that ship with the course: inside an installed package, or
``data/`` at the top of the repository."""

FORMAT = 1
_ALPHA_BAR, _NETWORK = "schedule.alpha_bar", "network."  # names of tensors
_WEIGHTS = "weights"  # the entry of the card that states the checksum
_PICKLE_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be found, read or written; the message names the file."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained denoiser, ready to sample.

    Attributes:
        path: the weights file.
        card: what the JSON card says.
        network: the network with its averaged (EMA) weights, in eval mode.
        model: ``network`` as ``eps_hat = model(x_t, t)``, whatever it was trained to predict.
        schedule: the noise schedule it was trained for.
    """

    path: Path
    card: dict[str, Any]
    network: nn.Module
    model: EpsModel
    schedule: NoiseSchedule

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that the network can draw on request; empty if it was trained without."""
        known = getattr(self.network, "config", {}).get("num_classes")
        return tuple(self.card["dataset"]["class_names"]) if known else ()

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of one of the examples it was trained on: (C, H, W) for images."""
        return tuple(self.card["dataset"]["image_shape"])

    def conditioned(self, condition: Condition) -> EpsModel:
        """``model`` with a condition for each sample: ``eps_hat = model(x_t, t)`` for batches of B.

        Args:
            condition: int64 with one row per sample: labels (B,) or words (B, L). The network gets
                it as its third argument.
        """
        return as_eps_model(self.network, self.schedule, self.card["target"], condition)


def save_checkpoint(
    path: Path | str,
    network: nn.Module,
    schedule: NoiseSchedule,
    *,
    target: str = "eps",
    card: Mapping[str, Any],
) -> Path:
    """Writes ``path``.safetensors and ``path``.json, both or neither.

    Args:
        path: without a suffix; its folder must exist.
        network: its weights are saved; its attribute ``config``, the arguments of its class, goes
            on the card.
        schedule: the one that the network was trained for.
        target: what the network predicts, a name in ``predictions.TARGETS``.
        card: anything else that JSON can hold; ``dataset`` must give ``name``, ``image_shape``
            and ``class_names``.

    Returns:
        The weights file.

    Raises:
        CheckpointError: it cannot be written (no space, no permission); what was there before is
            still there, whole.
        ValueError: ``target`` is not a name in ``TARGETS``.
    """
    _validate.one_of("target", target, TARGETS)
    weights_path, _ = _weights_and_card(Path(path))
    tensors = {_NETWORK + name: tensor for name, tensor in network.state_dict().items()}
    full_card = {
        "format": FORMAT,
        _WEIGHTS: {"file": weights_path.name},
        "network": {
            "class": type(network).__name__,
            "config": getattr(network, "config", None),
            "parameters": sum(p.numel() for p in network.parameters()),
        },
        "target": target,
        **card,
        "versions": versions(),
    }
    tensors[_ALPHA_BAR] = schedule.alpha_bar
    try:
        _sealed.write_with_card(weights_path, tensors, full_card, _WEIGHTS)
    except OSError as error:
        kept = "; the checkpoint before it is whole" if weights_path.exists() else ""
        raise CheckpointError(f"cannot write {weights_path}: {error.strerror}{kept}") from error
    return weights_path


def load_checkpoint(
    path: Path | str, *, network: nn.Module | None = None, device: torch.device | str = "cpu"
) -> Checkpoint:
    """The checkpoint at ``path``, checked and ready to sample.

    Args:
        path: see ``find_checkpoint``.
        network: gets the weights; for a class that is not one of the library's own. None builds
            the network that the card names.
        device: where the network goes. It is moved and laid out in memory as is fastest there, both
            in place: a ``network`` passed in may come back with another memory format (its
            strides), never with other numbers than the file's.

    Raises:
        CheckpointError: missing, truncated or corrupt files, a pickle, a card that is missing or
            broken, weights that do not fit the network.
    """
    weights_path = find_checkpoint(path)
    try:
        tensors, card, card_path = _sealed.read_with_card(weights_path, _WEIGHTS)
    except _sealed.SealError as error:
        raise CheckpointError(str(error)) from error
    _check_card(card_path, card)
    schedule = _schedule(weights_path, tensors).to(device)
    weights = {k.removeprefix(_NETWORK): v for k, v in tensors.items() if k.startswith(_NETWORK)}
    network = _with_weights(weights_path, card["network"], weights, network)
    network = hardware.laid_out(network, torch.device(device)).eval()
    model = as_eps_model(network, schedule, card["target"])
    return Checkpoint(weights_path, card, network, model, schedule)


def find_checkpoint(path: Path | str) -> Path:
    """The weights file that ``path`` refers to.

    ``path`` is a file, with or without its suffix; or a run folder, which means its newest
    checkpoint; or, if neither exists, the name of a checkpoint that ships with the course, see
    ``shipped``.

    Raises:
        CheckpointError: nothing is there, a pickle is, or a folder holds several checkpoints and
            their names do not say which is the newest.
    """
    path = Path(path)
    if path.is_dir():
        return _newest(path)
    if path.suffix in _PICKLE_SUFFIXES and path.exists():
        raise CheckpointError(_sealed.pickle_message(path))
    weights_path, card_path = _weights_and_card(path)
    if weights_path.exists():
        return weights_path
    if card_path.exists():
        raise CheckpointError(f"{weights_path} is missing, though {card_path.name} is there")
    known = shipped()
    if str(path) in known:
        return known[str(path)]
    names = ", ".join(known) or "none"
    raise CheckpointError(f"no checkpoint at {path}; those that ship with the course: {names}")


def shipped() -> dict[str, Path]:
    """The checkpoints that ship with the course: short name to weights file."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.safetensors"))}


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that affect the numbers."""
    packages = ("tutorial_lib", "torch", "numpy", "safetensors")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _weights_and_card(path: Path) -> tuple[Path, Path]:
    """The two files of the checkpoint at ``path``, which may have the suffix of either or none."""
    if path.suffix in (".safetensors", ".json"):
        path = path.with_suffix("")
    return path.with_name(path.name + ".safetensors"), path.with_name(path.name + ".json")


def _check_card(card_path: Path, card: Mapping[str, Any]) -> None:
    """Raises unless the card describes a checkpoint that this version can read."""
    try:
        known_format, target = card["format"] == FORMAT, card["target"]
        _ = card["network"]["class"], card["network"]["config"]
        _ = [card["dataset"][key] for key in ("name", "image_shape", "class_names")]
    except (LookupError, TypeError) as error:
        why = f"it lacks {error}" if isinstance(error, LookupError) else error
        raise CheckpointError(f"{card_path} is not a card of a checkpoint: {why}") from error
    if not known_format:
        found = card["format"]
        raise CheckpointError(f"{card_path} has format {found}; this version reads {FORMAT}")
    if target not in list(TARGETS):  # a list, since a broken card may name something unhashable
        raise CheckpointError(f"{card_path} names an unknown target, {target!r}")


def _schedule(path: Path, tensors: Mapping[str, Tensor]) -> NoiseSchedule:
    if _ALPHA_BAR not in tensors:
        raise CheckpointError(f"{path} lacks {_ALPHA_BAR!r}: it was not written by this library")
    try:
        return NoiseSchedule(tensors[_ALPHA_BAR])
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path} does not hold a valid noise schedule: {error}") from error


def _with_weights(
    path: Path, described: Mapping[str, Any], tensors: dict[str, Tensor], network: nn.Module | None
) -> nn.Module:
    """``network``, or the one that the card describes, with these weights.

    Raises:
        CheckpointError: some do not fit; the message lists them.
    """
    built = network is None
    if network is None:
        network = _described_network(path, described)
    wrong = misfits(network.state_dict(), tensors)
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        shown = "; ".join(wrong[:3]) + more
        name = type(network).__name__
        raise CheckpointError(f"{path} is for another architecture than this {name}: {shown}")
    network.load_state_dict(tensors, assign=built)
    return network


def _described_network(path: Path, described: Mapping[str, Any]) -> nn.Module:
    """The network that a card describes, without memory for its weights, which the file brings."""
    name = described["class"]
    if name not in list(NETWORKS):
        known = ", ".join(NETWORKS)
        hint = "build it and pass it, load_checkpoint(path, network=...)"
        raise CheckpointError(f"{path} holds a {name}, not one of {known}: {hint}")
    try:
        with torch.device("meta"):  # also spares the global random state
            return NETWORKS[name](**described["config"])
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(f"the card of {path} does not describe a {name}: {error}") from error


def misfits(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """The differences in names, shapes and kinds of numbers, one phrase each."""
    wrong = [f"{name} is missing" for name in expected if name not in given]
    wrong += [f"{name} is not part of it" for name in given if name not in expected]
    for name in expected.keys() & given.keys():
        if expected[name].shape != given[name].shape:
            shapes = f"{tuple(given[name].shape)}, expected {tuple(expected[name].shape)}"
            wrong.append(f"{name} has shape {shapes}")
        elif expected[name].is_floating_point() != given[name].is_floating_point():
            kinds = f"{given[name].dtype}, expected {expected[name].dtype}"
            wrong.append(f"{name} has dtype {kinds}")
    return sorted(wrong)


def step_name(step: int) -> str:
    """The name, without a suffix, of what a run saves after ``step`` steps."""
    return f"step-{step:08d}"


def step_of(path: Path) -> int:
    """The step in the name of a file named by ``step_name``."""
    return int(path.stem.removeprefix("step-"))


def checkpoints_in(folder: Path) -> list[Path]:
    """The weights files of the checkpoints of a run in ``folder``, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def _newest(folder: Path) -> Path:
    """The newest checkpoint of a run folder: the one whose name counts the most steps."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise CheckpointError(f"{folder} holds no checkpoint (no .safetensors file)")
    if len(weights) > 1 and weights != checkpoints_in(folder):
        names = ", ".join(path.stem for path in weights)
        raise CheckpointError(f"{folder} holds several checkpoints ({names}): name one of them")
    return weights[-1]
