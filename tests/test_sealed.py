"""Files with checksums: nothing is lost, no damage goes unnoticed, older files are still read."""

import errno
import hashlib
import json
import os
import pickle
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import safetensors.torch
import torch
from torch import Tensor

from tests.damage import Code, edit_card
from tests.sealed_forms import FORMS, ZEROS, put_together, with_checksum
from tutorial_lib import _files, _sealed
from tutorial_lib._sealed import SealError

FACTS: dict[str, Any] = {"step": 3, "text": 'a "quoted" \\ ümlaut', "deep": {"list": [1.25, None]}}


def tensors() -> dict[str, Tensor]:
    """Every kind of tensor that a state may hold."""
    numbers = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    return {
        "float32": numbers,
        "bfloat16": numbers.bfloat16(),
        "float64": numbers.double(),
        "int64": torch.arange(5),
        "uint8": torch.arange(7, dtype=torch.uint8),
        "bool": numbers > 0,
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "transposed": numbers.T,
        "part": numbers[1:3],
        "parameter": torch.nn.Parameter(numbers + 1),
    }


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], value) and found[name].dtype == value.dtype
        for name, value in expected.items()
    )


# --- sealed files ---------------------------------------------------------------------------------


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "sealed.safetensors"
    _sealed.write(path, tensors(), FACTS)
    found = _sealed.read(path)
    assert same(found.tensors, tensors())
    assert found.facts == FACTS
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_tied_weights_are_both_written_and_stay_tied(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    tied = {"first": weight, "second": weight, "view": weight[:2]}
    _sealed.write(tmp_path / "tied", tied, {})
    expected = {"first": torch.ones(3), "second": torch.ones(3), "view": torch.ones(2)}
    assert same(_sealed.read(tmp_path / "tied").tensors, expected)
    assert tied["first"] is tied["second"]


def test_the_same_tensors_and_facts_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        _sealed.write(tmp_path / name, tensors(), FACTS)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_checksum_is_that_of_the_file_with_zeros_in_its_place(tmp_path: Path) -> None:
    """So that anybody can verify one; and other programs can read the tensors."""
    path = tmp_path / "sealed.safetensors"
    _sealed.write(path, tensors(), FACTS)
    content = path.read_bytes()
    with safetensors.safe_open(path, "pt") as file:
        entry = json.loads(file.metadata()["sealed"])
    assert entry["facts"] == FACTS
    stated = entry["sha256"].encode()
    assert content.count(stated) == 1
    zeroed = content.replace(stated, b"0" * 64)
    assert hashlib.sha256(zeroed).hexdigest().encode() == stated
    assert same(safetensors.torch.load_file(path), tensors())


def test_zeros_in_the_facts_are_not_taken_for_the_checksum(tmp_path: Path) -> None:
    facts = {"0" * 64: "0" * 64, "sha256": "0" * 64}
    _sealed.write(tmp_path / "zeros", {"0" * 64: torch.zeros(64)}, facts)
    assert _sealed.read(tmp_path / "zeros").facts == facts


def test_writing_holds_no_more_than_two_copies_in_memory(tmp_path: Path) -> None:
    """The serialized tensors, and the file's bytes with the checksum in them."""
    size = 2**24
    zeros = {"zeros": torch.zeros(size, dtype=torch.uint8)}
    tracemalloc.start()
    try:
        _sealed.write(tmp_path / "large", zeros, {})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < peak < 2.1 * size


# --- older forms ----------------------------------------------------------------------------------


BODY = bytes([3, 1, 4, 1, 5])
HEADER = {"x": {"dtype": "U8", "shape": [5], "data_offsets": [0, 5]}}


def by_hand(form: str) -> bytes:
    """A small sealed file that no function of the library had a part in."""
    metadata = FORMS[form]({"format": 1, "step": 8})
    return with_checksum(put_together(metadata, HEADER, BODY))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(tmp_path: Path, form: str) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(by_hand(form))
    found = _sealed.read(path)
    assert found.facts == {"format": 1, "step": 8}
    assert found.tensors["x"].tolist() == list(BODY)


# --- damage ---------------------------------------------------------------------------------------


def flips(content: bytes) -> Iterator[tuple[int, bytes]]:
    """``content`` with each of its bits flipped, one at a time; and the place of its byte."""
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            yield place, bytes(flipped)


def check_that_all_damage_is_noticed(content: bytes) -> None:
    path = Path("file")
    for _, flipped in flips(content):
        with pytest.raises(SealError):
            _sealed.opened(path, flipped)
    for size in range(len(content)):
        with pytest.raises(SealError):
            _sealed.opened(path, content[:size])
    with pytest.raises(SealError, match="is damaged: its checksum"):
        _sealed.opened(path, content + b"\0")


@pytest.mark.parametrize("form", FORMS)
def test_every_flipped_bit_and_every_cut_is_noticed(form: str) -> None:
    content = by_hand(form)
    assert _sealed.opened(Path("file"), content).facts["step"] == 8
    check_that_all_damage_is_noticed(content)


def test_every_flipped_bit_and_every_cut_of_a_written_file_is_noticed(tmp_path: Path) -> None:
    _sealed.write(tmp_path / "file", {"a": torch.ones(2, 3), "b": torch.arange(2)}, FACTS)
    check_that_all_damage_is_noticed((tmp_path / "file").read_bytes())


def test_flipped_bits_of_a_larger_file_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    _sealed.write(path, {"x": torch.arange(50_000)}, FACTS)
    content = path.read_bytes()
    chosen = torch.randint(8 * len(content), (300,), generator=torch.Generator().manual_seed(0))
    for place, bit in (divmod(number, 8) for number in chosen.tolist()):
        flipped = bytearray(content)
        flipped[place] ^= 1 << bit
        with pytest.raises(SealError, match="file is damaged"):
            _sealed.opened(path, bytes(flipped))


def plain(header: dict[str, str]) -> bytes:
    return safetensors.torch.save({"x": torch.ones(2)}, metadata=header)


FOREIGN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is damaged: its header cannot be read"),
    "text": (b"once upon a time", "is damaged: its header cannot be read"),
    "safetensors": (plain({}), "is damaged: its header cannot be read"),
    "other header": (plain({"made": "elsewhere"}), "is damaged: its header cannot be read"),
    "list": (plain({"sealed": "[]"}), "is damaged: its header cannot be read"),
    "number": (plain({"about": "5"}), "is damaged: its header cannot be read"),
    "deep": (plain({"sealed": "[" * 100_000}), "is damaged: its header cannot be read"),
    "not ASCII": (
        plain({"sealed": '{"sha256": "\\ud800", "facts": {}}'}),
        "is damaged: its header cannot be read",
    ),
    "facts a list": (
        with_checksum(plain({"sealed": json.dumps({"sha256": ZEROS, "facts": []})})),
        "is damaged: it holds no facts",
    ),
    "not safetensors": (
        with_checksum(put_together(FORMS["sealed"]({}), HEADER, BODY + b"0")),
        "is not a safetensors file",
    ),
    "pickle": (pickle.dumps(Code()), "is a pickle, which could run code"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_named_and_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.safetensors"
    content, message = FOREIGN[name]
    path.write_bytes(content)
    with pytest.raises(SealError, match=rf"file\.safetensors {message}"):
        _sealed.read(path)
    assert not (tmp_path / "pickle-ran").exists()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SealError, match=r"cannot read .*nowhere: No such file"):
        _sealed.read(tmp_path / "nowhere")
    with pytest.raises(SealError, match=r"cannot read .*: Is a directory"):
        _sealed.read(tmp_path)


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    _sealed.write(path, {"x": torch.ones(3)}, {"which": "old"})

    def full(file: BinaryIO, content: bytes) -> None:
        file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_files, "_write_synced", full)
    with pytest.raises(OSError, match="No space left"):
        _sealed.write(path, {"x": torch.zeros(3)}, {"which": "new"})
    assert _sealed.read(path).facts == {"which": "old"}
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


# --- files with a card ----------------------------------------------------------------------------


def written(folder: Path) -> Path:
    path = folder / "net.v2.safetensors"
    card = {"format": 1, "file": {"name": path.name}, "what": "numbers"}
    _sealed.write_with_card(path, tensors(), card, "file")
    return path


def test_a_file_and_its_card_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = written(tmp_path)
    found = _sealed.read_with_card(path, "file")
    assert same(found.tensors, tensors())
    content = path.read_bytes()
    stated = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert found.card == {"format": 1, "file": {"name": path.name, **stated}, "what": "numbers"}
    assert list(found.card) == ["format", "file", "what"]
    assert found.card_path == tmp_path / "net.v2.json"
    assert json.loads(found.card_path.read_bytes()) == found.card
    assert {file.name for file in tmp_path.iterdir()} == {path.name, "net.v2.json"}


def small(folder: Path) -> Path:
    path = folder / "net.safetensors"
    card = {"format": 1, "file": {"name": path.name}, "what": "numbers"}
    _sealed.write_with_card(path, {"x": torch.arange(3)}, card, "file")
    return path


def test_every_flipped_bit_and_every_cut_of_a_file_with_a_card_is_noticed(tmp_path: Path) -> None:
    path = small(tmp_path)
    content = path.read_bytes()
    for _, flipped in flips(content):
        path.write_bytes(flipped)
        with pytest.raises(SealError, match=r"net\.safetensors is (corrupt|a pickle)"):
            _sealed.read_with_card(path, "file")
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(SealError, match=rf"net\.safetensors is truncated: {size} of"):
            _sealed.read_with_card(path, "file")


def test_a_flipped_bit_of_a_card_is_noticed_except_in_its_other_entries(tmp_path: Path) -> None:
    """The entries with the checksum and the size, and all punctuation, are safe."""
    path = small(tmp_path)
    tensors, card, card_path = _sealed.read_with_card(path, "file")
    content = card_path.read_bytes()
    unnoticed = set()
    for place, flipped in flips(content):
        card_path.write_bytes(flipped)
        try:
            found = _sealed.read_with_card(path, "file")
        except SealError:
            continue
        unnoticed.add(place)
        assert same(found.tensors, tensors)
        for key in ("sha256", "bytes"):
            assert found.card["file"][key] == card["file"][key]
    not_covered = set()
    for words in (b"format", b"1", b"name", path.name.encode(), b"what", b"numbers"):
        start = content.index(words)
        places = set(range(start, start + len(words)))
        assert places & unnoticed, f"{words!r} are covered"
        not_covered |= places
    assert unnoticed <= not_covered


CARDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "file missing": (lambda p: p.unlink(), r"cannot read .*net\.v2\.safetensors: No such file"),
    "card missing": (
        lambda p: p.with_suffix(".json").unlink(),
        r"net\.v2\.json is missing, the card of net\.v2\.safetensors",
    ),
    "file cut": (
        lambda p: p.write_bytes(p.read_bytes()[:-1]),
        r"net\.v2\.safetensors is truncated: \d+ of \d+ bytes",
    ),
    "no entry": (edit_card(lambda c: c.pop("file")), r"is not the card of .* lacks 'file'"),
    "no checksum": (
        edit_card(lambda c: c["file"].pop("sha256")),
        r"is not the card of .* lacks 'sha256'",
    ),
    "size a word": (
        edit_card(lambda c: c["file"].update(bytes="many")),
        r"is not the card of .* invalid literal",
    ),
    "size too small": (
        edit_card(lambda c: c["file"].update(bytes=c["file"]["bytes"] - 1)),
        r"net\.v2\.json is damaged: it states \d+ bytes; net\.v2\.safetensors has \d+, and",
    ),
    "size too large": (
        edit_card(lambda c: c["file"].update(bytes=c["file"]["bytes"] + 1)),
        r"net\.v2\.json is damaged: it states \d+ bytes; net\.v2\.safetensors has \d+, and",
    ),
    "another's checksum": (
        edit_card(lambda c: c["file"].update(sha256="0" * 64)),
        r"net\.v2\.safetensors is corrupt: its checksum is not what its card says",
    ),
    "card a pickle": (
        lambda p: p.with_suffix(".json").write_bytes(pickle.dumps(Code())),
        r"net\.v2\.json is a pickle",
    ),
    "card a folder": (
        lambda p: (p.with_suffix(".json").unlink(), p.with_suffix(".json").mkdir()),
        r"cannot read .*net\.v2\.json: Is a directory",
    ),
}


@pytest.mark.parametrize("name", CARDS)
def test_a_damaged_pair_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path)
    damage, message = CARDS[name]
    damage(path)
    with pytest.raises(SealError, match=message):
        _sealed.read_with_card(path, "file")
    assert not (tmp_path / "pickle-ran").exists()


@pytest.mark.parametrize("there_before", [True, False])
def test_a_card_that_still_waits_under_its_temporary_name_is_found(
    tmp_path: Path, there_before: bool
) -> None:
    """As after a crash between the two moves; the next write tidies up."""
    path = written(tmp_path)
    card_path = path.with_suffix(".json")
    new_card = card_path.read_bytes()
    card_path.unlink()
    waiting = _files.temporary(card_path)
    waiting.write_bytes(new_card)
    if there_before:
        card_path.write_text(json.dumps({"file": {"sha256": "1" * 64, "bytes": 1}}))
    found = _sealed.read_with_card(path, "file")
    assert found.card_path == waiting
    assert found.card == json.loads(new_card)
    assert written(tmp_path) == path
    assert {file.name for file in tmp_path.iterdir()} == {path.name, card_path.name}
