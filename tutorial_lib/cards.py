"""What the card of a checkpoint must say, and how it must fit the network.

A card may come from anywhere, so nothing on it is believed: each entry that is read later has a
kind and a size, and what both the card and the weights say is compared.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tutorial_lib import _validate
from tutorial_lib._validate import InvalidValueError
from tutorial_lib.datasets.vocabulary import Vocabulary
from tutorial_lib.networks.text_unet import TextUNet
from tutorial_lib.networks.unet import TinyUNet, TwoLevelUNet
from tutorial_lib.networks.wrappers import unwrapped
from tutorial_lib.predictions import TARGETS

NETWORKS: dict[str, type[TextUNet] | type[TinyUNet] | type[TwoLevelUNet]] = {
    "TinyUNet": TinyUNet,
    "TwoLevelUNet": TwoLevelUNet,
    "TextUNet": TextUNet,
}
"""The networks that a card can name: class name to class."""

LARGEST_EXAMPLE = 2**26
"""Numbers in one example, at most: as many as an image of 4096 x 4096 in RGBA has."""


def check_card(card: Mapping[str, Any]) -> None:
    """Raises ValueError unless each entry that is read later is there and of the right kind."""
    if not isinstance(card.get("target"), str) or card["target"] not in TARGETS:
        known = ", ".join(TARGETS)
        raise InvalidValueError(
            f"target must be one of {known}, got {_validate.describe(card.get('target'))}"
        )
    _entry(card, "network", "class", str)
    _entry(card, "network", "config", (dict, type(None)))
    _entry(card, "dataset", "name", str)
    _check_shape(_entry(card, "dataset", "image_shape", (list, tuple)))
    _validate.names("class_names", _entry(card, "dataset", "class_names", (list, tuple)))
    if "vocabulary" in card["dataset"]:
        vocabulary_of(card)
    if "latents" in card["dataset"]:
        _check_latents(card["dataset"])


def _check_shape(shape: Sequence[Any]) -> None:
    if not shape or not all(type(side) is int and side >= 1 for side in shape):
        got = _validate.describe(shape)
        raise InvalidValueError(f"image_shape must hold whole numbers of 1 or more, got {got}")
    if len(shape) > 8 or math.prod(shape) > LARGEST_EXAMPLE:
        got = _validate.describe(shape)
        raise InvalidValueError(f"image_shape must hold at most {LARGEST_EXAMPLE} numbers: {got}")


def vocabulary_of(card: Mapping[str, Any]) -> Vocabulary | None:
    """The words that a network was trained with, as its card says; None where it knows none.

    Raises:
        TypeError, ValueError: the card describes no vocabulary.
    """
    if "vocabulary" not in card["dataset"]:
        return None
    words = _entry(card["dataset"], "vocabulary", "words", (list, tuple))
    length = _entry(card["dataset"], "vocabulary", "length", int)
    _validate.whole_number("length of vocabulary", length, at_least=1, at_most=LARGEST_EXAMPLE)
    return Vocabulary(_validate.names("words of vocabulary", words), length)


def _check_latents(dataset: Mapping[str, Any]) -> None:
    """Raises ValueError unless the entry names an autoencoder, its checksum and its pictures."""
    _entry(dataset, "latents", "autoencoder", str)
    checksum = _entry(dataset, "latents", "sha256", str)
    if not re.fullmatch("[0-9a-f]{64}", checksum):
        raise InvalidValueError(f"sha256 of latents must be 64 hex digits, got {checksum!r:.70}")
    shape = _entry(dataset, "latents", "image_shape", (list, tuple))
    _check_shape(shape)
    if len(shape) != 3 or shape[0] not in (1, 3):
        got = _validate.describe(shape)
        raise InvalidValueError(f"image_shape of latents must be (1 or 3, H, W), got {got}")


def check_fits(card: Mapping[str, Any], network: nn.Module, num_steps: int) -> None:
    """Raises ValueError unless a card that ``check_card`` accepts describes this network.

    Args:
        card: of the checkpoint.
        network: with the checkpoint's weights, or one like it.
        num_steps: T of the schedule that is stored with the weights.
    """
    network = unwrapped(network)
    classes, names = class_count(network), card["dataset"]["class_names"]
    if classes and names and len(names) != classes:
        raise InvalidValueError(f"class_names has {len(names)} names for {classes} classes")
    vocabulary = vocabulary_of(card)
    if isinstance(network, TextUNet):
        known = network.config["vocabulary"], network.config["length"]
        stated = (len(vocabulary), vocabulary.length) if vocabulary is not None else None
        if stated != known:
            words = f"{known[0]} words, at most {known[1]} in a sentence"
            raise InvalidValueError(f"vocabulary must be of {words}, as the network knows them")
    shape = card["dataset"]["image_shape"]
    if isinstance(network, tuple(NETWORKS.values())):
        channels = network.config["in_channels"]
        if len(shape) != 3 or shape[0] != channels:
            got = _validate.describe(shape)
            raise InvalidValueError(f"image_shape must be ({channels}, H, W), got {got}")
    if "parameters" in card["network"]:
        count, stated = _parameters(network), card["network"]["parameters"]
        if type(stated) is not int or stated != count:
            got = _validate.describe(stated)
            raise InvalidValueError(f"parameters of network must be {count}, got {got}")
    if "schedule" in card:
        stated = _entry(card, "schedule", "num_steps", int)
        if type(stated) is not int or stated != num_steps:
            got = _validate.describe(stated)
            raise InvalidValueError(f"num_steps of schedule must be {num_steps}, got {got}")


def describe_network(network: nn.Module) -> dict[str, Any]:
    """The entry ``network`` of a card."""
    network = unwrapped(network)
    return {
        "class": type(network).__name__,
        "config": getattr(network, "config", None),
        "parameters": _parameters(network),
    }


def class_count(network: nn.Module) -> int:
    """How many classes a network knows by its own word, ``config``; 0 for one that says nothing."""
    config = getattr(unwrapped(network), "config", None)
    count = config.get("num_classes") if isinstance(config, Mapping) else None
    return count if type(count) is int and count > 0 else 0


def build_network(described: Mapping[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    """The network that a card describes, without memory for its weights, which ``weights`` bring.

    Before anything is built, its size is compared with that of ``weights``: numbers on a card may
    be absurd.

    Raises:
        TypeError, ValueError: the description is not one of its class, or is of a larger network.
    """
    network_class, config = NETWORKS[described["class"]], described["config"]
    if not isinstance(config, dict):
        raise InvalidValueError(f"config must hold arguments, got {_validate.describe(config)}")
    numbers = sum(tensor.numel() for tensor in weights.values())
    for name, value in config.items():
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, int) and part > numbers:
                raise InvalidValueError(
                    f"{name} must be at most {numbers}, as many weights as the file holds"
                )
    fewest = network_class.fewest_tensors(**config)
    if fewest > len(weights):
        raise InvalidValueError(
            f"such a network has at least {fewest} tensors, the file has {len(weights)}"
        )
    with torch.device("meta"):  # also spares the global random state
        return network_class(**config).float()


def _entry(card: Mapping[str, Any], part: str, name: str, kind: type | tuple[type, ...]) -> Any:
    """``card[part][name]`` if it is of this kind.

    Raises:
        LookupError: it is missing.
        ValueError: it is of another kind.
    """
    held = card[part]
    if not isinstance(held, Mapping):
        raise InvalidValueError(f"{part} must hold entries, got {_validate.describe(held)}")
    value = held[name]
    if not isinstance(value, kind):
        raise InvalidValueError(f"{name} of {part} is {_validate.describe(value)}")
    return value


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
