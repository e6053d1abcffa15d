"""Cards: every entry is checked and compared with the weights, before anything is built."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from tests.damage import as_before_checksums, edit_card
from tutorial_lib import cards, schedules
from tutorial_lib.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from tutorial_lib.networks.text_unet import TextUNet
from tutorial_lib.networks.unet import TinyUNet, TwoLevelUNet

pytestmark = pytest.mark.plain_errors
SCHEDULE = schedules.linear_schedule(20)
NAMES = ["a", "b", "c"]


def full_card() -> dict[str, Any]:
    """With everything that a run writes and that is compared with the weights."""
    return {
        "dataset": {"name": "noise", "image_shape": [1, 8, 8], "class_names": list(NAMES)},
        "schedule": {"name": "linear", "num_steps": 20},
        "seed": 0,
    }


def saved(folder: Path, **settings: Any) -> Path:
    net = TinyUNet(1, widths=(8, 8), **{"num_classes": 3, **settings})
    return save_checkpoint(folder / "net", net, SCHEDULE, card=full_card())


def refused(path: Path) -> str:
    """The one line with which a checkpoint is refused."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert "net." in str(caught.value)
    assert str(caught.value).isprintable(), "more than one line"
    return str(caught.value)


# --- words and latents ----------------------------------------------------------------------------


def saved_reader(folder: Path) -> Path:
    """A network that reads three words, of latents."""
    card = full_card()
    card["dataset"] |= {
        "image_shape": [4, 4, 4],
        "class_names": [],
        "vocabulary": {"words": ["", "a", "red", "disc"], "length": 3},
        "latents": {"autoencoder": "ae", "sha256": "0" * 64, "image_shape": [3, 16, 16]},
    }
    network = TextUNet(4, 4, 3, widths=(8, 8), text_width=8)
    return save_checkpoint(folder / "net", network, SCHEDULE, card=card)


def test_words_and_latents_come_back(tmp_path: Path):
    found = load_checkpoint(saved_reader(tmp_path))
    assert found.vocabulary is not None
    assert found.vocabulary.words == ("", "a", "red", "disc")
    assert found.latents is not None
    assert (found.image_shape, found.picture_shape) == ((4, 4, 4), (3, 16, 16))
    plain = load_checkpoint(saved(tmp_path))
    assert (plain.vocabulary, plain.latents) == (None, None)
    assert plain.picture_shape == plain.image_shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("vocabulary", {"words": ["", "a", "red"]}, "vocabulary must be of 4 words, at most 3 in"),
        ("vocabulary", {"length": 4}, "vocabulary must be of 4 words, at most 3 in a sentence"),
        ("vocabulary", {"words": ["", "a", "a", "b"]}, "words of vocabulary must differ"),
        ("vocabulary", {"words": ["b", "a", "c", "d"]}, "words must begin with the empty word"),
        ("vocabulary", {"words": [1, 2, 3, 4]}, "words of vocabulary must be a sequence of str"),
        ("vocabulary", {"words": 4}, "words of vocabulary is int 4"),
        ("vocabulary", {"length": 0}, "length of vocabulary must be at least 1, got 0"),
        ("vocabulary", {"length": 10**12}, "length of vocabulary must be at most"),
        ("vocabulary", {"length": "3"}, "length of vocabulary is str '3'"),
        ("latents", {"sha256": "0" * 63}, "sha256 of latents must be 64 hex digits"),
        ("latents", {"sha256": None}, "sha256 of latents is NoneType None"),
        ("latents", {"autoencoder": 3}, "autoencoder of latents is int 3"),
        ("latents", {"image_shape": [3, 16]}, r"image_shape of latents must be \(1 or 3, H, W\)"),
        (
            "latents",
            {"image_shape": [3, 0, 16]},
            "image_shape must hold whole numbers of 1 or more",
        ),
        ("latents", {"image_shape": [3, 10**6, 10**6]}, "image_shape must hold at most"),
    ],
)
def test_words_and_latents_are_checked(tmp_path: Path, part: str, change: dict, message: str):
    path = saved_reader(tmp_path)
    edit_card(lambda card: card["dataset"][part].update(change))(path)
    assert re.search(message, refused(path))


def test_a_network_that_reads_needs_its_words(tmp_path: Path):
    path = saved_reader(tmp_path)
    edit_card(lambda card: card["dataset"].pop("vocabulary"))(path)
    assert "vocabulary must be of 4 words" in refused(path)


def test_a_network_that_reads_is_not_built_from_an_absurd_card(tmp_path: Path):
    path = saved_reader(tmp_path)
    before = path.with_suffix(".json").read_text()
    for change in ({"text_layers": 10**9}, {"text_width": 10**9}, {"widths": [8] * 15}):
        edit_card(lambda card, change=change: card["network"]["config"].update(change))(path)
        refused(path)
        path.with_suffix(".json").write_text(before)
    load_checkpoint(path)


# --- every entry ----------------------------------------------------------------------------------


def deep(depth: int) -> list:
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


ODD: dict[str, Any] = {
    "null": None,
    "true": True,
    "zero": 0,
    "negative": -1,
    "fraction": 1.5,
    "infinity": math.inf,
    "nan": math.nan,
    "10**9": 10**9,
    "10**18": 10**18,
    "10**400": 10**400,
    "text": "x",
    "control": "a\nb\x1b[2J",
    "empty": "",
    "list": [],
    "list of 10**9": [10**9] * 3,
    "list of text": ["x"],
    "long list": [8] * 5000,
    "deep list": deep(300),
    "object": {},
}


def entries(card: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path of each entry of a card, of parts and of single numbers and names."""
    if path:
        yield path
    for key in card if isinstance(card, dict) else range(len(card) if type(card) is list else 0):
        yield from entries(card[key], (*path, key))


def change_at(path: tuple, value: Any) -> Callable[[dict], None]:
    def change(card: Any) -> None:
        for key in path[:-1]:
            card = card[key]
        card[path[-1]] = value

    return change


FREE = {"seed", "versions", "name", "file"}
"""Entries that are only shown."""


@pytest.mark.parametrize("odd", ODD)
def test_no_odd_entry_is_believed(tmp_path: Path, odd: str) -> None:
    """A forger states the right checksums. Either one line says no, or nothing was changed."""
    path = saved(tmp_path)
    content = path.with_suffix(".json").read_bytes()
    paths = list(entries(json.loads(content)))
    assert len(paths) > 30
    for entry in paths:
        if FREE & set(entry) or entry[-1] in ("card_sha256", "schedule"):
            continue
        path.with_suffix(".json").write_bytes(content)
        edit_card(change_at(entry, ODD[odd]))(path)
        if is_right(entry, ODD[odd], json.loads(content)):
            load_checkpoint(path)
        else:
            refused(path)


def is_right(entry: tuple, value: Any, before: Any) -> bool:
    """Whether an odd value happens to be right there: it was there before, or names classes."""
    for key in entry:
        before = before[key]
    if entry[:2] == ("dataset", "class_names"):
        return value == [] if len(entry) == 2 else isinstance(value, str)
    return repr(value) == repr(before)


def text_of(card: str) -> Callable[[Path], object]:
    return lambda path: path.with_suffix(".json").write_text(card)


TEXTS = {
    "nested lists": "[" * 200_000,
    "nested objects": '{"a":' * 200_000,
    "nested within": '{"weights": {"sha256": "0", "bytes": ' + "[" * 900 + "]" * 900 + "}}",
    "many digits": '{"weights": {"sha256": "0", "bytes": ' + "9" * 400 + "}}",
    "very many digits": '{"weights": {"sha256": "0", "bytes": ' + "9" * 10_000 + "}}",
    "a lone surrogate": '{"weights": {"sha256": "\\ud800", "bytes": 1}}',
    "nothing": "",
    "null": "null",
    "number": "3",
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_that_is_no_card_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path)
    text_of(TEXTS[name])(path)
    refused(path)


FORGED: dict[str, tuple[Callable[[dict], object], str]] = {
    "too few names": (
        lambda c: c["dataset"].update(class_names=["a", "b"]),
        "class_names has 2 names for 3 classes",
    ),
    "a name twice": (
        lambda c: c["dataset"].update(class_names=["a", "b", "a"]),
        "class_names must differ from each other, got 'a' twice",
    ),
    "names in one word": (
        lambda c: c["dataset"].update(class_names="abc"),
        "class_names of dataset is str 'abc'",
    ),
    "another number of channels": (
        lambda c: c["dataset"].update(image_shape=[3, 8, 8]),
        r"image_shape must be \(1, H, W\), got list \[3, 8, 8\]",
    ),
    "a huge image": (
        lambda c: c["dataset"].update(image_shape=[1, 2**14, 2**14]),
        "image_shape must hold at most 67108864 numbers",
    ),
    "another T": (
        lambda c: c["schedule"].update(num_steps=21),
        "num_steps of schedule must be 20, got int 21",
    ),
    "another count": (
        lambda c: c["network"].update(parameters=7),
        "parameters of network must be [0-9]+, got int 7",
    ),
    "many blocks": (
        lambda c: c["network"]["config"].update(blocks=700),
        "such a network has at least 21010 tensors, the file has 63",
    ),
    "many levels": (
        lambda c: c["network"]["config"].update(widths=[1] * 5000),
        "widths must hold the channels of at most 16 levels",
    ),
    "a large width": (
        lambda c: c["network"]["config"].update(widths=[8, 10**9]),
        "widths must be at most [0-9]+, as many weights as the file holds",
    ),
    "many classes": (
        lambda c: c["network"]["config"].update(num_classes=10**18),
        "num_classes must be at most [0-9]+, as many weights",
    ),
    "a large patch": (
        lambda c: c["network"]["config"].update(patch=10**9),
        "patch must be at most [0-9]+, as many weights",
    ),
}


@pytest.mark.parametrize("name", FORGED)
def test_what_does_not_fit_the_weights_is_named(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path)
    change, message = FORGED[name]
    edit_card(change)(path)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_an_absurd_network_is_refused_before_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path)
    monkeypatch.setattr(TinyUNet, "__init__", lambda *_, **__: pytest.fail("it was built"))
    for name, value in {
        "blocks": 10**9,
        "bottom_blocks": 10**400,
        "widths": [10**9, 8],
        "num_classes": 10**18,
        "patch": 10**6,
        "in_channels": 10**7,
    }.items():
        edit_card(change_at(("network", "config", name), value))(path)
        assert name in refused(path)
        edit_card(change_at(("network", "config", name), 1))(path)


@pytest.mark.parametrize(
    "settings",
    [{"widths": (8,)}, {"widths": (8, 16, 24), "blocks": 2}, {"bottom_blocks": 3, "patch": 1}],
    ids=str,
)
def test_a_network_has_no_fewer_tensors_than_it_says(settings: dict) -> None:
    for extra in ({}, {"num_classes": 2}):
        config = {"in_channels": 1, "widths": (8, 8), **settings, **extra}
        assert TinyUNet.fewest_tensors(**config) <= len(TinyUNet(**config).state_dict())
    assert TwoLevelUNet.fewest_tensors(1, 8) == len(TwoLevelUNet(1, 8).state_dict())


def test_a_card_of_an_earlier_version_is_compared_all_the_same(tmp_path: Path) -> None:
    path = saved(tmp_path)
    edit_card(as_before_checksums)(path)
    with pytest.warns(UserWarning, match="no checksum of its own"):
        assert load_checkpoint(path).class_names == ("a", "b", "c")
    edit_card(lambda card: card["dataset"].update(class_names=["a"]))(path)
    with (
        pytest.warns(UserWarning, match="no checksum of its own"),
        pytest.raises(CheckpointError, match="class_names has 1 names for 3 classes"),
    ):
        load_checkpoint(path)


def test_classes_without_names_are_named_by_their_numbers(tmp_path: Path) -> None:
    """As those of a pair (x, labels), which gives none."""
    card = full_card()
    card["dataset"]["class_names"] = []
    net = TinyUNet(1, widths=(8, 8), num_classes=3)
    path = save_checkpoint(tmp_path / "net", net, SCHEDULE, card=card)
    assert load_checkpoint(path).class_names == ("0", "1", "2")


# --- every tensor ---------------------------------------------------------------------------------


def change_tensors(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Changes the weights file, and lets the card state its new checksum and size."""
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    content = safetensors.torch.save(tensors)
    path.write_bytes(content)
    stated = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    edit_card(lambda card: card["weights"].update(stated))(path)


DTYPES = [
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.complex64,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.int64,
    torch.float8_e4m3fn,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("passed", [True, False])
def test_weights_of_another_kind_are_refused(
    tmp_path: Path, dtype: torch.dtype, passed: bool
) -> None:
    """Also where only one is: drawing would fail, or give other numbers."""
    path = saved(tmp_path)
    own = TinyUNet(1, widths=(8, 8), num_classes=3) if passed else None
    content = path.read_bytes(), path.with_suffix(".json").read_bytes()
    for chosen in ("network.head.bias", "network."):
        path.write_bytes(content[0])
        path.with_suffix(".json").write_bytes(content[1])

        def cast(tensors: dict[str, Tensor], chosen: str = chosen) -> None:
            for name in tensors:
                if name.startswith(chosen):
                    tensors[name] = tensors[name].to(dtype)

        change_tensors(path, cast)
        with pytest.raises(CheckpointError, match=f"has dtype {dtype}, expected torch.float32"):
            load_checkpoint(path, network=own)


ALPHA_BAR = "schedule.alpha_bar"
TENSORS: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "one more": (
        lambda t: t.update(extra=torch.ones(1)),
        "holds 'extra', which is not part of a checkpoint",
    ),
    "one more in the network": (
        lambda t: t.update({"network.extra": torch.ones(1)}),
        "extra is not part of it",
    ),
    "one less": (lambda t: t.pop("network.head.bias"), "head.bias is missing"),
    "a shape": (
        lambda t: t.update({"network.head.bias": torch.ones(4, 1)}),
        r"head.bias has shape \(4, 1\), expected \(4,\)",
    ),
    "no schedule": (lambda t: t.pop(ALPHA_BAR), "lacks 'schedule.alpha_bar'"),
    "a schedule of another T": (
        lambda t: t.update({ALPHA_BAR: schedules.linear_schedule(21).alpha_bar}),
        "num_steps of schedule must be 21, got int 20",
    ),
    "a schedule of whole numbers": (
        lambda t: t.update({ALPHA_BAR: torch.arange(5)}),
        "does not hold a valid noise schedule: alpha_bar must hold floating-point",
    ),
    "a schedule of complex numbers": (
        lambda t: t.update({ALPHA_BAR: torch.ones(21, dtype=torch.complex64)}),
        "does not hold a valid noise schedule",
    ),
    "an empty schedule": (
        lambda t: t.update({ALPHA_BAR: torch.ones(0)}),
        "does not hold a valid noise schedule: alpha_bar must have shape",
    ),
}


@pytest.mark.parametrize("name", TENSORS)
def test_other_tensors_are_named(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path)
    change, message = TENSORS[name]
    change_tensors(path, change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


# --- saving ---------------------------------------------------------------------------------------


class Own(nn.Module):
    """A network of somebody else's."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 1)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.layer(x_t)


def unet() -> TinyUNet:
    return TinyUNet(1, widths=(8, 8), num_classes=3)


def card_with(**dataset: Any) -> dict[str, Any]:
    card = full_card()
    card["dataset"].update(dataset)
    return card


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "path": ({"path": 3}, TypeError, "path must be a path or a str, got int 3"),
    "path of bytes": ({"path": b"net"}, TypeError, "path must be a path or a str, got bytes"),
    "network": ({"network": lambda x, t: x}, TypeError, "network must be a Module, got function"),
    "network, text": ({"network": "net"}, TypeError, "network must be a Module, got str 'net'"),
    "schedule": ({"schedule": 20}, TypeError, "schedule must be a NoiseSchedule, got int 20"),
    "target": ({"target": None}, ValueError, "target must be one of"),
    "card": ({"card": None}, TypeError, "card must be a Mapping, got NoneType"),
    "card, empty": ({"card": {}}, ValueError, "card lacks 'dataset'"),
    "card, text": ({"card": {"dataset": "x"}}, ValueError, "card .* dataset must hold entries"),
    "card, tensor": (
        {"card": {**full_card(), "x": torch.ones(1)}},
        ValueError,
        "card must be what JSON can hold",
    ),
    "names": ({"card": card_with(class_names=["a"])}, ValueError, "card .* 1 names for 3 classes"),
    "names twice": (
        {"card": card_with(class_names=["a", "a", "b"])},
        ValueError,
        "card .* class_names must differ",
    ),
    "shape": (
        {"card": card_with(image_shape=[3, 8, 8])},
        ValueError,
        "card .* image_shape must be",
    ),
    "T": ({"schedule": schedules.linear_schedule(9)}, ValueError, "card .* num_steps .* must be 9"),
    "half": ({"network": unet().half()}, TypeError, "network must hold float32 weights, .*float16"),
    "double": (
        {"network": unet().double()},
        TypeError,
        "network must hold float32 weights, .*float64",
    ),
    "meta": ({"network": Own().to("meta")}, TypeError, "layer.weight of network .* meta device"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_could_not_be_loaded_again_is_not_saved(tmp_path: Path, name: str) -> None:
    wrong, error, message = WRONG[name]
    arguments = {
        "path": tmp_path / "net",
        "network": unet(),
        "schedule": SCHEDULE,
        "card": full_card(),
        **wrong,
    }
    path, network, schedule = (arguments.pop(key) for key in ("path", "network", "schedule"))
    with pytest.raises(error, match=message):
        save_checkpoint(path, network, schedule, **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16], ids=str)
def test_a_network_of_another_class_keeps_its_kind_of_numbers(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    net = Own().to(dtype)
    save_checkpoint(tmp_path / "net", net, SCHEDULE, card=full_card())
    own = Own().to(dtype)
    load_checkpoint(tmp_path / "net", network=own)
    assert torch.equal(own.layer.weight, net.layer.weight)
    with pytest.raises(CheckpointError, match=f"has dtype {dtype}, expected torch.float32"):
        load_checkpoint(tmp_path / "net", network=Own())


def test_a_checkpoint_is_loaded_as_float32_whatever_the_default_is(tmp_path: Path) -> None:
    path = saved(tmp_path)
    torch.set_default_dtype(torch.float64)
    try:
        loaded = load_checkpoint(path)
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(value.dtype == torch.float32 for value in loaded.network.state_dict().values())


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("x" * 300, CheckpointError, "cannot read x+: File name too long"),
        (Path("x" * 300 + ".pt"), CheckpointError, "cannot read x+.pt: File name too long"),
        ("a\0b", CheckpointError, "no checkpoint at a"),
        (3, TypeError, "path must be a path or a str, got int 3"),
        (None, TypeError, "path must be a path or a str, got NoneType None"),
        (b"mnist", TypeError, "path must be a path or a str, got bytes"),
    ],
)
def test_a_path_that_is_none_is_named(path: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_checkpoint(path)


@pytest.mark.parametrize("device", [3, None, "gpu", "cuda:x"])
def test_a_device_that_is_none_is_named(tmp_path: Path, device: Any) -> None:
    path = saved(tmp_path)
    with pytest.raises((TypeError, ValueError), match=r"^device must"):
        load_checkpoint(path, device=device)


def test_class_count_is_what_a_network_says() -> None:
    assert cards.class_count(unet()) == 3
    assert cards.class_count(TinyUNet(1, widths=(8,))) == 0
    for config in (None, 3, {"num_classes": "many"}, {"num_classes": True}, {"num_classes": -1}):
        net = Own()
        net.config = config  # type: ignore[assignment]
        assert cards.class_count(net) == 0
