"""Saving and loading an autoencoder with the scale of its latents: weights, and a JSON card.

As with checkpoints, loading runs no code from the files, and both carry checksums, see
``_sealed.write_with_card``. The checksum of the weights tells autoencoders apart: a model of
latents says on its card which autoencoder made them, since no other can decode them.
"""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutorial_lib import _sealed, _validate, hardware
from tutorial_lib._validate import InvalidValueError
from tutorial_lib.checkpoints import SHIPPED, Checkpoint, CheckpointError, misfits, versions
from tutorial_lib.latents import Codec
from tutorial_lib.networks.autoencoder import Autoencoder, autoencoder_parameters

FOLDER = SHIPPED / "autoencoders"
"""Those that ship with the course, apart from checkpoints of denoisers."""
FORMAT = 1
_WEIGHTS = "weights"  # the entry of the card that states the checksum
_NETWORK, _SHIFT, _SCALE = "autoencoder.", "latents.shift", "latents.scale"  # names of tensors


@dataclass(frozen=True, eq=False)
class TrainedAutoencoder:
    """An autoencoder as it was saved.

    Attributes:
        path: the weights file.
        card: what the JSON card says.
        codec: pictures to scaled latents and back.
        checksum: SHA-256 of the weights file, by which models of its latents know it.
    """

    path: Path
    card: dict[str, Any]
    codec: Codec
    checksum: str


def save_autoencoder(path: Path | str, codec: Codec, *, card: Mapping[str, Any]) -> Path:
    """Writes ``path``.safetensors and ``path``.json, both or neither.

    Args:
        path: without a suffix; its folder must exist.
        codec: autoencoder and scale.
        card: anything else that JSON can hold, such as how it was trained.

    Returns:
        The weights file.

    Raises:
        CheckpointError: it cannot be written; what was there before is still there, whole.
        TypeError, ValueError: weights that are not float32, a card that JSON cannot hold.
    """
    weights_path = _weights_file(_validate.path("path", path))
    autoencoder = _validate.instance("codec", codec, Codec).autoencoder
    tensors = {_NETWORK + name: value for name, value in autoencoder.state_dict().items()}
    tensors |= {_SHIFT: codec.shift, _SCALE: codec.scale}
    for name, value in tensors.items():
        if value.dtype != torch.float32:
            raise InvalidValueError(f"codec must hold float32 numbers, got {value.dtype} in {name}")
        _validate.finite(f"{name} of codec", value)
    full_card = {
        "format": FORMAT,
        _WEIGHTS: {"file": weights_path.name},
        "autoencoder": {
            "config": autoencoder.config,
            "parameters": autoencoder_parameters(autoencoder.config),
        },
        **_validate.instance("card", card, Mapping),
        "versions": versions(),
    }
    try:
        _sealed.write_with_card(weights_path, tensors, full_card, _WEIGHTS)
    except OSError as error:
        raise CheckpointError(f"cannot write {weights_path}: {error.strerror}") from error
    return weights_path


def load_autoencoder(path: Path | str, *, device: torch.device | str = "cpu") -> TrainedAutoencoder:
    """The autoencoder at ``path``, checked and ready to encode and decode.

    Args:
        path: a file, with or without its suffix, or the name of one that ships with the course.
        device: where it goes.

    Raises:
        CheckpointError: missing, truncated or corrupt files, a card that is missing, broken or of
            something else, weights that do not fit.
        TypeError, ValueError: ``device`` is no device of this machine.
    """
    place = _validate.device("device", device)
    weights_path = find_autoencoder(path)
    try:
        tensors, card, card_path = _sealed.read_with_card(weights_path, _WEIGHTS)
    except _sealed.SealError as error:
        raise CheckpointError(str(error)) from error
    try:
        if type(card["format"]) is not int or card["format"] != FORMAT:
            raise InvalidValueError(f"format {card['format']!r:.40}, this version reads {FORMAT}")
        autoencoder = _built(card["autoencoder"]["config"], tensors)
    except LookupError as error:
        message = f"{card_path} is not a card of an autoencoder: it lacks {error}"
        raise CheckpointError(message) from error
    except (TypeError, ValueError, RecursionError) as error:
        why = _sealed.first_line(error)
        raise CheckpointError(f"{card_path} is not a card of an autoencoder: {why}") from error
    codec = _filled(weights_path, autoencoder, tensors)
    codec = Codec(hardware.laid_out(codec.autoencoder, place), codec.shift, codec.scale)
    return TrainedAutoencoder(weights_path, card, codec, card[_WEIGHTS]["sha256"])


def find_autoencoder(path: Path | str) -> Path:
    """The weights file that ``path`` refers to; see ``load_autoencoder``.

    Raises:
        CheckpointError: nothing is there.
    """
    path = _validate.path("path", path)
    file = _weights_file(path)
    if os.path.isfile(file):  # False also for a name that cannot be
        return file
    known = shipped_autoencoders()
    if str(path) in known:
        return known[str(path)]
    names = ", ".join(known) or "none"
    raise CheckpointError(f"no autoencoder at {path}; those that ship with the course: {names}")


def shipped_autoencoders() -> dict[str, Path]:
    """The autoencoders that ship with the course: short name to weights file."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.safetensors"))}


def with_autoencoder(checkpoint: Checkpoint, path: Path | str | None = None) -> Checkpoint:
    """The checkpoint, ready to draw pictures: if it draws latents, with what decodes them.

    Only the autoencoder that made the latents of the training can; it is known by its checksum.

    Args:
        checkpoint: from ``load_checkpoint``; its device is where the autoencoder goes.
        path: of the autoencoder, see ``load_autoencoder``. None looks for it where the training
            found it, and among those that ship with the course.

    Raises:
        CheckpointError: it is not there, broken, or another one.
        ValueError: a ``path`` for a checkpoint that draws pictures.
    """
    latents = checkpoint.latents
    if latents is None:
        if path is not None:
            name = checkpoint.path.name
            raise InvalidValueError(f"autoencoder: {name} draws pictures and needs none")
        return checkpoint
    device = checkpoint.schedule.alpha_bar.device
    trained = _recorded(checkpoint, latents, device) if path is None else None
    if path is not None:
        trained = load_autoencoder(path, device=device)
        if trained.checksum != latents["sha256"]:
            raise CheckpointError(
                f"autoencoder must be {latents['autoencoder']} with the checksum "
                f"{latents['sha256'][:12]}, which made the latents of {checkpoint.path.name}; "
                f"{trained.path} has {trained.checksum[:12]}"
            )
    assert trained is not None, "found, or an error"
    try:
        shape = trained.codec.image_shape(checkpoint.image_shape)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path} does not fit its autoencoder: {error}") from error
    if shape != checkpoint.picture_shape:
        stated = checkpoint.picture_shape
        raise CheckpointError(f"{checkpoint.path} draws pictures {shape}, its card says {stated}")
    return dataclasses.replace(checkpoint, codec=trained.codec)


def _recorded(
    checkpoint: Checkpoint, latents: Mapping[str, Any], device: torch.device
) -> TrainedAutoencoder:
    """The autoencoder with the checksum on the card, from where it may be.

    Raises:
        CheckpointError: it is at none of these places.
    """
    config = checkpoint.card.get("config")
    used = config.get("latent") if isinstance(config, Mapping) else None
    places: list[Path | str] = [*([used] if isinstance(used, str) and used else [])]
    places += shipped_autoencoders().values()
    for place in places:
        try:
            found = load_autoencoder(place, device=device)
        except CheckpointError:  # not there, or broken: it may be at the next place
            continue
        if found.checksum == latents["sha256"]:
            return found
    name, digits = latents["autoencoder"], latents["sha256"][:12]
    looked = ", ".join(map(str, places)) or "nowhere to look"
    raise CheckpointError(
        f"{checkpoint.path} draws latents of the autoencoder {name} with the checksum {digits}, "
        f"which was not found ({looked}); say where it is with autoencoder"
    )


def _weights_file(path: Path) -> Path:
    if path.suffix in (".safetensors", ".json"):
        path = path.with_suffix("")
    return path.with_name(path.name + ".safetensors")


def _built(config: object, tensors: Mapping[str, Tensor]) -> Autoencoder:
    """The autoencoder of this config, without memory for its weights, if the file may hold it."""
    if not isinstance(config, dict):
        raise InvalidValueError(f"config must hold arguments, got {_validate.describe(config)}")
    config = Autoencoder.checked(**config)
    stated, there = autoencoder_parameters(config), sum(t.numel() for t in tensors.values())
    if stated > there:
        raise InvalidValueError(f"it describes {stated} weights, the file holds {there}")
    if (fewest := Autoencoder.fewest_tensors(**config)) > len(tensors):
        raise InvalidValueError(f"it describes {fewest} tensors or more, not {len(tensors)}")
    with torch.device("meta"):
        return Autoencoder(**config).float()


def _filled(path: Path, autoencoder: Autoencoder, tensors: dict[str, Tensor]) -> Codec:
    """The autoencoder with its weights, and its scale."""
    expected = {_NETWORK + name: value for name, value in autoencoder.state_dict().items()}
    channels = torch.empty(autoencoder.config["latent_channels"], device="meta")
    wrong = misfits({**expected, _SHIFT: channels, _SCALE: channels}, tensors)
    if wrong:
        shown = "; ".join(wrong[:3])
        raise CheckpointError(f"{path} does not hold the autoencoder on its card: {shown}")
    weights = {name.removeprefix(_NETWORK): tensors[name] for name in expected}
    autoencoder.load_state_dict(weights, assign=True)
    try:
        return Codec(autoencoder, tensors[_SHIFT], tensors[_SCALE])
    except ValueError as error:
        raise CheckpointError(f"{path} is no autoencoder: {error}") from error
