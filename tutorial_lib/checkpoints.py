"""Saving a denoiser and getting it back: weights as safetensors, and a JSON card beside them.

``NAME.safetensors`` holds the weights and alpha_bar, ``NAME.json`` says everything else: the
network's class and arguments, what it was trained to say, on what, how long, with which command.
Loading runs no code from the files: safetensors holds numbers only, and the card names a class
from a fixed list.

The two files change together. Both are first written in full beside their place (``.tmp``), then
the weights are moved into it, then the card. A crash before the moves leaves the old pair; a crash
between them leaves new weights with the new card still called ``NAME.json.tmp``, where loading
finds it by the checksum.
"""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutorial_lib import _files, _sealed, _validate, hardware
from tutorial_lib._typing import Condition, EpsModel
from tutorial_lib._validate import UserError
from tutorial_lib.networks.unet import TinyUNet, TwoLevelUNet
from tutorial_lib.predictions import TARGETS, as_eps_model
from tutorial_lib.schedules import NoiseSchedule

NETWORKS: dict[str, type[nn.Module]] = {"TinyUNet": TinyUNet, "TwoLevelUNet": TwoLevelUNet}
"""The networks that a card can name."""

_PACKAGE = Path(__file__).resolve().parent
SHIPPED = next(
    (place for place in (_PACKAGE / "_shipped", _PACKAGE.parent / "data") if place.is_dir()),
    _PACKAGE.parent / "data",
)
"""The folder of checkpoints that come with the course: inside an installed package, or the
repository's ``data/``."""

FORMAT = 1
_ALPHA_BAR, _NETWORK = "schedule.alpha_bar", "network."
_PICKLE_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be found, read or believed; the message names the file."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained denoiser, ready to sample.

    Attributes:
        path: the weights file.
        card: what the JSON card says.
        network: the network with its averaged (EMA) weights, in eval mode.
        model: ``network`` as ``eps_hat = model(x_t, t)``, whatever it was trained to say.
        schedule: the noise schedule it was trained for.
    """

    path: Path
    card: dict[str, Any]
    network: nn.Module
    model: EpsModel
    schedule: NoiseSchedule

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that the network can be asked for; empty where it knows none."""
        known = getattr(self.network, "config", {}).get("num_classes")
        return tuple(self.card["dataset"]["class_names"]) if known else ()

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of one example that it was trained on: (C, H, W) for images."""
        return tuple(self.card["dataset"]["image_shape"])

    def conditioned(self, condition: Condition) -> EpsModel:
        """The model that is told what each sample of its batch is to be.

        Args:
            condition: int64 with a row a sample: labels (B,) or words (B, L).
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
        path: without suffix; its folder must exist.
        network: whose weights are saved; its ``config`` (arguments of its class) goes on the card.
        schedule: what the network was trained for.
        target: what the network says: "eps", "v" or "x0".
        card: anything else that JSON can hold; ``dataset`` must give ``name``, ``image_shape``
            and ``class_names``.

    Returns:
        The weights file.

    Raises:
        CheckpointError: it cannot be written (no space, no right to); what was there before is
            still there, whole.
        ValueError: another word for ``target``.
    """
    _validate.one_of("target", target, TARGETS)
    weights_path, card_path = _pair(Path(path))
    tensors = {_NETWORK + name: t for name, t in network.state_dict().items()}
    weights = _sealed.plain_content({**tensors, _ALPHA_BAR: schedule.alpha_bar})
    full_card = {
        "format": FORMAT,
        "weights": {"file": weights_path.name, **_sealed.fingerprint(weights)},
        "network": {
            "class": type(network).__name__,
            "config": getattr(network, "config", None),
            "parameters": sum(p.numel() for p in network.parameters()),
        },
        "target": target,
        **card,
        "versions": versions(),
    }
    _commit(weights_path, weights, card_path, json.dumps(full_card, indent=2).encode() + b"\n")
    return weights_path


def load_checkpoint(
    path: Path | str, *, network: nn.Module | None = None, device: torch.device | str = "cpu"
) -> Checkpoint:
    """The checkpoint at ``path``, checked and ready to sample.

    Args:
        path: see ``find_checkpoint``.
        network: filled with the weights, for a class that is not the library's own; None builds
            the network that the card names.
        device: where the network goes, laid out in memory as is fastest there.

    Raises:
        CheckpointError: missing, truncated or corrupt files, a pickle, a card that is missing or
            broken, weights that do not fit the network.
    """
    weights_path = find_checkpoint(path)
    try:
        weights = _sealed.read_bytes(weights_path)
        card = _believed_card(weights_path, weights)
        tensors = _sealed.plain_tensors(weights_path, weights)
    except _sealed.SealError as error:
        raise CheckpointError(str(error)) from error
    schedule = _schedule(weights_path, tensors)
    own = {k.removeprefix(_NETWORK): v for k, v in tensors.items() if k.startswith(_NETWORK)}
    filled = _with_weights(weights_path, card["network"], own, network)
    filled = hardware.laid_out(filled, torch.device(device)).eval()
    schedule = schedule.to(device)
    model = as_eps_model(filled, schedule, card["target"])
    return Checkpoint(weights_path, card, filled, model, schedule)


def find_checkpoint(path: Path | str) -> Path:
    """The weights file that ``path`` means.

    That is a file, with or without its suffix; or the newest checkpoint of a run folder; or, where
    neither exists, the name of one that comes with the course (``shipped()``).

    Raises:
        CheckpointError: nothing there, a pickle, or a folder whose newest cannot be told.
    """
    path = Path(path)
    if path.is_dir():
        return _newest(path)
    if path.suffix in _PICKLE_SUFFIXES and path.exists():
        raise CheckpointError(_sealed.pickle_message(path))
    weights_path, card_path = _pair(path)
    if weights_path.exists():
        return weights_path
    if card_path.exists():
        raise CheckpointError(f"{weights_path} is missing, though {card_path.name} is there")
    known = shipped()
    if str(path) in known:
        return known[str(path)]
    names = ", ".join(known) or "none"
    raise CheckpointError(f"no checkpoint at {path}; those that come with the course: {names}")


def shipped() -> dict[str, Path]:
    """The checkpoints that come with the course: short name to weights file."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.safetensors"))}


def versions() -> dict[str, str]:
    """What is running: Python and the packages that decide about numbers."""
    packages = ("tutorial_lib", "torch", "numpy", "safetensors")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _pair(path: Path) -> tuple[Path, Path]:
    """The weights file and the card that belong to ``path``, with or without suffix."""
    if path.suffix in (".safetensors", ".json"):
        path = path.with_suffix("")
    return path.with_name(path.name + ".safetensors"), path.with_name(path.name + ".json")


def _commit(weights_path: Path, weights: bytes, card_path: Path, card: bytes) -> None:
    """Puts both files in place; if anything fails before the first move, neither."""
    try:
        _finish_commit(weights_path, card_path)
        _files.write_all({weights_path: weights, card_path: card})
    except OSError as error:
        kept = "; the checkpoint before it is whole" if weights_path.exists() else ""
        raise CheckpointError(f"cannot write {weights_path}: {error.strerror}{kept}") from error


def _finish_commit(weights_path: Path, card_path: Path) -> None:
    """Moves the card of a save that was cut off between its two moves."""
    waiting = _files.temporary(card_path)
    if not waiting.exists() or not weights_path.exists():
        return
    if _is_card_of(waiting, _sealed.fingerprint(weights_path.read_bytes())):
        os.replace(waiting, card_path)


def _is_card_of(card_path: Path, fingerprint: Mapping[str, Any]) -> bool:
    """Whether the card at ``card_path`` is whole and speaks of weights with this fingerprint."""
    try:
        said = json.loads(card_path.read_bytes())["weights"]
        return {key: said[key] for key in fingerprint} == fingerprint
    except (OSError, ValueError, LookupError, TypeError):  # a card cut off: not this one
        return False


def _believed_card(weights_path: Path, weights: bytes) -> dict[str, Any]:
    """The card of these weights, or an error that says what is wrong with which file."""
    _, card_path = _pair(weights_path)
    fingerprint = _sealed.fingerprint(weights)
    waiting = _files.temporary(card_path)
    if not _is_card_of(card_path, fingerprint) and _is_card_of(waiting, fingerprint):
        card_path = waiting  # the save was cut off between its two moves
    if not card_path.exists():
        raise CheckpointError(f"{card_path} is missing, the card of {weights_path.name}")
    try:
        card = json.loads(_sealed.read_bytes(card_path))
        said = card["weights"]
        size, digest = int(said["bytes"]), str(said["sha256"])
        needed = card["format"], card["network"]["class"], card["network"]["config"], card["target"]
        _, _, _ = (card["dataset"][key] for key in ("name", "image_shape", "class_names"))
    except LookupError as error:
        raise CheckpointError(f"{card_path} is no checkpoint card: it lacks {error}") from error
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{card_path} is no checkpoint card: {error}") from error
    if len(weights) < size:
        raise CheckpointError(f"{weights_path} is truncated: {len(weights)} of {size} bytes")
    if digest != fingerprint["sha256"]:
        raise CheckpointError(f"{weights_path} is corrupt: its checksum is not what its card says")
    if needed[0] != FORMAT:
        raise CheckpointError(f"{card_path} has format {needed[0]}; this version reads {FORMAT}")
    if needed[3] not in TARGETS:
        raise CheckpointError(f"{card_path} names an unknown target, {needed[3]!r}")
    return card


def _schedule(path: Path, tensors: Mapping[str, Tensor]) -> NoiseSchedule:
    if _ALPHA_BAR not in tensors:
        raise CheckpointError(f"{path} lacks {_ALPHA_BAR!r}: it was not written by this library")
    try:
        return NoiseSchedule(tensors[_ALPHA_BAR])
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path} holds no valid noise schedule: {error}") from error


def _with_weights(
    path: Path, about: Mapping[str, Any], tensors: dict[str, Tensor], network: nn.Module | None
) -> nn.Module:
    """The network with its weights; an error that lists what does not fit."""
    built = network is None
    if network is None:
        network = _network_of(path, about)
    wrong = misfits(network.state_dict(), tensors)
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        shown = "; ".join(wrong[:3]) + more
        name = type(network).__name__
        raise CheckpointError(f"{path} is for another architecture than this {name}: {shown}")
    network.load_state_dict(tensors, assign=built)
    return network


def _network_of(path: Path, about: Mapping[str, Any]) -> nn.Module:
    """The network that a card names, without memory for its weights: they come from the file."""
    name = about["class"]
    if name not in NETWORKS:
        known = ", ".join(NETWORKS)
        hint = "build it and hand it in, load_checkpoint(path, network=...)"
        raise CheckpointError(f"{path} holds a {name}, not one of {known}: {hint}")
    try:
        with torch.device("meta"):  # also spares the global random state
            return NETWORKS[name](**about["config"])
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the card of {path} does not describe a {name}: {error}") from error


def misfits(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """What keeps the given tensors from being the expected ones, a phrase each."""
    wrong = [f"{name} is missing" for name in expected if name not in given]
    wrong += [f"{name} is not part of it" for name in given if name not in expected]
    for name in expected.keys() & given.keys():
        if expected[name].shape != given[name].shape:
            shapes = f"{tuple(given[name].shape)}, expected {tuple(expected[name].shape)}"
            wrong.append(f"{name} has shape {shapes}")
    return sorted(wrong)


def step_name(step: int) -> str:
    """The name, without suffix, of what a run saves after ``step`` steps."""
    return f"step-{step:08d}"


def step_of(path: Path) -> int:
    """The step in the name of a file that ``step_name`` named."""
    return int(path.stem.removeprefix("step-"))


def checkpoints_in(folder: Path) -> list[Path]:
    """The weights files of the checkpoints that a run left in ``folder``, oldest first."""
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
