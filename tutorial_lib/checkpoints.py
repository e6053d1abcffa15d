"""Saving and loading a denoiser: weights as safetensors, and a JSON card beside them.

``NAME.safetensors`` holds the weights and alpha_bar. ``NAME.json`` holds everything else: the
network's class and arguments, what it was trained to predict, on which data, for how long and with
which command. Loading runs no code from the files: safetensors holds only numbers, and the card
names a class from a fixed list. Both carry checksums, and nothing that the card says is believed
before it is compared with the weights, see ``cards``.

The two files change together, see ``_sealed.write_with_card``.
"""

import contextlib
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tutorial_lib import _sealed, _validate, cards, hardware
from tutorial_lib._typing import Condition, EpsModel
from tutorial_lib._validate import InvalidTypeError, InvalidValueError, UserError
from tutorial_lib.cards import NETWORKS
from tutorial_lib.datasets.vocabulary import Vocabulary
from tutorial_lib.latents import Codec
from tutorial_lib.networks.wrappers import plain_names, unwrapped, without_wrappers
from tutorial_lib.predictions import TARGETS, as_eps_model
from tutorial_lib.schedules import NoiseSchedule

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
        codec: for a network that draws latents, what turns them into pictures; see
            ``autoencoders.with_autoencoder``. None until then, and for networks that draw pictures.
    """

    path: Path
    card: dict[str, Any]
    network: nn.Module
    model: EpsModel
    schedule: NoiseSchedule
    codec: Codec | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that the network can draw on request; empty if it was trained without.

        Classes without names, of data that gave none, are named by their numbers.
        """
        count = cards.class_count(self.network)
        names = self.card["dataset"]["class_names"] or [str(number) for number in range(count)]
        return tuple(names) if count else ()

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of one of the examples it was trained on: (C, H, W) for images."""
        return tuple(self.card["dataset"]["image_shape"])

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The words that the network reads; None if it was trained without text."""
        return cards.vocabulary_of(self.card)

    @property
    def latents(self) -> Mapping[str, Any] | None:
        """For a network that draws latents, the name of the autoencoder that made them, its
        ``sha256``, and the ``image_shape`` of the pictures; None for one that draws pictures."""
        return self.card["dataset"].get("latents")

    @property
    def picture_shape(self) -> tuple[int, ...]:
        """The shape of what it draws in the end: ``image_shape``, or that of decoded latents."""
        return self.image_shape if self.latents is None else tuple(self.latents["image_shape"])

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
            on the card. One in a wrapper, as ``torch.compile`` and ``DataParallel`` put it, is
            saved as if it had none.
        schedule: the one that the network was trained for.
        target: what the network predicts, a name in ``predictions.TARGETS``.
        card: anything else that JSON can hold; ``dataset`` must give ``name``, ``image_shape``
            and ``class_names``, which must fit the network.

    Returns:
        The weights file.

    Raises:
        CheckpointError: it cannot be written (no space, no permission); what was there before is
            still there, whole.
        TypeError, ValueError: an argument that could not be loaded again, such as a network of the
            library's own whose weights are not float32.
    """
    weights_path, _ = _weights_and_card(_validate.path("path", path))
    _validate.instance("network", network, nn.Module)
    _validate.instance("schedule", schedule, NoiseSchedule)
    _validate.one_of("target", target, TARGETS)
    full_card = {
        "format": FORMAT,
        _WEIGHTS: {"file": weights_path.name},
        "network": cards.describe_network(network),
        "target": target,
        **_validate.instance("card", card, Mapping),
        "versions": versions(),
    }
    try:
        cards.check_card(full_card)
        cards.check_fits(full_card, network, schedule.num_steps)
    except LookupError as error:
        raise InvalidValueError(f"card lacks {error}") from error
    except ValueError as error:
        raise InvalidValueError(f"card does not fit: {error}") from error
    tensors = {_NETWORK + name: value for name, value in _weights_of(network).items()}
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

    Warns where its card is of an earlier version, which gave cards no checksum.

    Args:
        path: see ``find_checkpoint``.
        network: gets the weights; for a class that is not one of the library's own. None builds
            the network that the card names.
        device: where the network goes. It is moved and laid out in memory as is fastest there, both
            in place: a ``network`` passed in may come back with another memory format (its
            strides), never with other numbers than the file's.

    Raises:
        CheckpointError: missing, truncated or corrupt files, a pickle, a card that is missing,
            broken or of something else, weights that do not fit the network.
        TypeError, ValueError: ``network`` is no module, ``device`` no device of this machine.
    """
    if network is not None:
        _validate.instance("network", network, nn.Module)
    place = _validate.device("device", device)
    weights_path = find_checkpoint(path)
    try:
        tensors, card, card_path = _sealed.read_with_card(weights_path, _WEIGHTS)
    except _sealed.SealError as error:
        raise CheckpointError(str(error)) from error
    with _card_errors(card_path):
        if type(card["format"]) is not int or card["format"] != FORMAT:
            message = f"{card_path} has format {card['format']!r:.40}; this version reads {FORMAT}"
            raise CheckpointError(message)
        cards.check_card(card)
    schedule = _schedule(weights_path, tensors)
    weights = _weights_in(weights_path, tensors)
    network = _with_weights(weights_path, card["network"], weights, network)
    with _card_errors(card_path):
        cards.check_fits(card, network, schedule.num_steps)
    schedule = schedule.to(place)
    network = hardware.laid_out(network, place).eval()
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
    path = _validate.path("path", path)
    try:
        if path.is_dir():
            return _newest(path)
        if path.suffix in _PICKLE_SUFFIXES and path.exists():
            raise CheckpointError(_sealed.pickle_message(path))
        weights_path, card_path = _weights_and_card(path)
        if weights_path.exists():
            return weights_path
        if card_path.exists():
            raise CheckpointError(f"{weights_path} is missing, though {card_path.name} is there")
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
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


@contextlib.contextmanager
def _card_errors(card_path: Path) -> Iterator[None]:
    """Errors about what a card says, as a ``CheckpointError`` that names the card."""
    try:
        yield
    except CheckpointError:
        raise
    except LookupError as error:
        message = f"{card_path} is not a card of a checkpoint: it lacks {error}"
        raise CheckpointError(message) from error
    except (TypeError, ValueError, RecursionError) as error:
        message = f"{card_path} is not a card of a checkpoint: {_sealed.first_line(error)}"
        raise CheckpointError(message) from error


def _schedule(path: Path, tensors: Mapping[str, Tensor]) -> NoiseSchedule:
    if _ALPHA_BAR not in tensors:
        raise CheckpointError(f"{path} lacks {_ALPHA_BAR!r}: it was not written by this library")
    try:
        return NoiseSchedule(tensors[_ALPHA_BAR])
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path} does not hold a valid noise schedule: {error}") from error


def _weights_of(network: nn.Module) -> dict[str, Tensor]:
    """The weights of a network by their names without wrappers, if they can be loaded again."""
    network = unwrapped(network)
    state = network.state_dict()
    weights = {plain: state[name] for plain, name in plain_names(network).items()}
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            got = _validate.describe(value)
            raise InvalidTypeError(f"network must hold tensors only, got {got} in {name}")
        _validate.held(f"{name} of network", value)
        if type(network) in NETWORKS.values() and value.dtype != torch.float32:
            advice = "call network.float() first"
            raise InvalidTypeError(
                f"network must hold float32 weights, got {value.dtype} in {name}: {advice}"
            )
    return weights


def _weights_in(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights among the tensors of a file, which holds the schedule besides, and no more."""
    other = [name for name in tensors if not name.startswith(_NETWORK) and name != _ALPHA_BAR]
    if other:
        raise CheckpointError(f"{path} holds {other[0]!r:.60}, which is not part of a checkpoint")
    return {k.removeprefix(_NETWORK): v for k, v in tensors.items() if k.startswith(_NETWORK)}


def _with_weights(
    path: Path, described: Mapping[str, Any], tensors: dict[str, Tensor], network: nn.Module | None
) -> nn.Module:
    """``network``, or the one that the card describes, with these weights.

    Raises:
        CheckpointError: some do not fit; the message lists them.
    """
    built = network is None
    if network is None:
        network = _described_network(path, described, tensors)
    inner = unwrapped(network)
    state, names = inner.state_dict(), plain_names(inner)
    plain = without_wrappers(tensors, names)
    tensors = {plain[name]: tensor for name, tensor in tensors.items()}
    wrong = misfits({name: state[own] for name, own in names.items()}, tensors)
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        shown = "; ".join(wrong[:3]) + more
        name = type(inner).__name__
        raise CheckpointError(f"{path} is for another architecture than this {name}: {shown}")
    inner.load_state_dict({names[name]: value for name, value in tensors.items()}, assign=built)
    return network


def _described_network(
    path: Path, described: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> nn.Module:
    """The network that a card describes, without memory for its weights, which the file brings."""
    name = described["class"]
    if name not in NETWORKS:
        known, shown = ", ".join(NETWORKS), name if name.isprintable() else repr(name)
        hint = "build it and pass it, load_checkpoint(path, network=...)"
        raise CheckpointError(f"{path} holds a {shown:.60}, not one of {known}: {hint}")
    try:
        return cards.build_network(described, weights)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        why = _sealed.first_line(error)
        raise CheckpointError(f"the card of {path} does not describe a {name}: {why}") from error


def misfits(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """The differences in names, shapes and kinds of numbers, one phrase each."""
    wrong = [f"{name} is missing" for name in expected if name not in given]
    wrong += [f"{name} is not part of it" for name in given if name not in expected]
    for name in expected.keys() & given.keys():
        if expected[name].shape != given[name].shape:
            shapes = f"{tuple(given[name].shape)}, expected {tuple(expected[name].shape)}"
            wrong.append(f"{name} has shape {shapes}")
        elif expected[name].dtype != given[name].dtype:
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
