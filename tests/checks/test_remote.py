"""Answers that are judged in another process than they run in, and the values between the two."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.checks import elsewhere
from tutorial_lib.checks import Result, all_exercises
from tutorial_lib.checks.framework import Exercise, Task
from tutorial_lib.checks.framework.asking import BadMessageError, Session
from tutorial_lib.checks.framework.remote import wire
from tutorial_lib.checks.framework.remote.channel import Channel, GoneError, MalformedError

pytestmark = pytest.mark.plain_errors
ROOT = Path(__file__).resolve().parents[2]
SEED = 20


@contextmanager
def answers_elsewhere(*words: str) -> Iterator[socket.socket]:
    """A process that hands over answers at the door that this gives; the password is "open"."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(120)
        place = f"{door.getsockname()[1]}:open"
        environment = os.environ | {"TUTORIAL_GRADER": place, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tests.checks.elsewhere", *words]
        with subprocess.Popen(command, cwd=ROOT, env=environment) as child:
            try:
                yield door
            finally:
                child.kill()


def verdict(door: socket.socket, task: Task) -> Result:
    if isinstance(task, Exercise):
        task = dataclasses.replace(task, seed=SEED)
    connection, _ = door.accept()
    session = Session(Channel(connection))
    try:
        handed = session.open("open")
        assert handed.exercise == task.id
        result = task.judge(handed.answer)
        if isinstance(session.broken, BadMessageError):
            raise session.broken
        return result
    finally:
        session.close()


@pytest.fixture(scope="module")
def heard() -> dict[str, Result]:
    """What the judge thinks of each answer of ``elsewhere``."""
    with answers_elsewhere() as door:
        return {name: verdict(door, task) for name, (task, _) in elsewhere.ANSWERS.items()}


@pytest.mark.parametrize(
    "name",
    [
        "right",
        "an object",
        "a NumPy array",
        "a list",
        "by name",
        "copies",
        "a gradient",
        "a gradient by pieces",
        "a slope",
        "a slope by backward",
        "draws",
        "makes a function",
        "halves",
        "a letter",
    ],
)
def test_a_right_answer_passes(heard, name: str):
    assert heard[name].passed, heard[name]


@pytest.mark.parametrize("name", ["overwrites", "overwrites a list", "overwrites beside"])
def test_a_right_answer_that_overwrites_its_argument_passes_with_a_warning(heard, name: str):
    assert heard[name].passed, heard[name]
    assert "overwrites its argument `x`" in heard[name].message


@pytest.mark.parametrize(
    ("name", "stage", "message"),
    [
        ("wrong", "values", "differ"),
        ("a known mistake", "values", "Thrice."),
        ("no function", "shape", "This is the number 3.5"),
        ("a set", "shape", "yours is a set"),
        ("a function", "shape", "yours is a function"),
        ("raises", "raised", "Your code raised KeyError: 'nothing here'\nLine"),
        ("quits", "raised", "asked Python to quit"),
        ("endless", "raised", "Stopped after 0.5 seconds"),
        ("swallows", "raised", "Stopped after 0.5 seconds"),
        ("in place", "properties", "You changed x."),
        ("no gradient", "raised", "does not require grad"),
        ("half a gradient", "values", "`gradient`"),
        ("asks for a negative", "values", "shown a negative number"),
        ("asks for too much", "raised", "at most 20000 numbers"),
        ("draws twice", "values", "differ"),
        ("quarters", "values", "numbers differ"),
        ("another letter", "values", "no"),
        ("huge", "raised", "far too large to be compared"),
        ("dies", "raised", "ended in the middle of your answer"),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(heard, name: str, stage: str, message: str):
    assert heard[name].outcome == "failed"
    assert heard[name].stage == stage
    assert message in heard[name].message


@pytest.mark.parametrize("name", ["a stub", "dots"])
def test_a_stub_is_not_attempted(heard, name: str):
    assert heard[name].outcome == "not attempted"


def test_a_mistake_is_named(heard):
    assert heard["a known mistake"].mistake == "tripled"
    assert heard["asks for a negative"].mistake == "negative"


@pytest.mark.long("asks another process for answers to all exercises of the course")
def test_a_right_answer_to_every_exercise_of_the_course_passes_from_another_process():
    with answers_elsewhere("course") as door:
        for task in all_exercises():
            name, _ = elsewhere.last_right_answer(task)
            result = verdict(door, task)
            assert result.passed, f"{task.id}, {name}: {result}"


def test_without_a_judge_a_check_goes_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TUTORIAL_GRADER", "1:nobody is at this port")
    with pytest.warns(UserWarning, match="no judge answers there"):
        assert elsewhere.DOUBLE.check(lambda x: 2 * x).passed


# --- the values -----------------------------------------------------------------------------------

DTYPES = [wire._DTYPES[name] for name in sorted(wire._DTYPES)]
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.just(...),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(
                ("tensor", "array", "number", "shape", "data", "list", "dict", "complex", "float")
            )
            | st.text(),
            inner,
        )
    ),
    max_leaves=12,
)


def sent(value: object) -> object:
    """``value`` after its way over."""
    return wire.decode(json.loads(json.dumps(wire.encode(value))))


@given(plain)
def test_plain_values_arrive(value: object):
    assert repr(sent(value)) == repr(value).encode("utf-8", "replace").decode()


@given(hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, min_side=0)))
def test_arrays_arrive_or_are_named(array: np.ndarray):
    arrived = sent(array)
    if str(array.dtype.newbyteorder("=")) in wire._ARRAYS:
        assert isinstance(arrived, np.ndarray)
        assert arrived.shape == array.shape
        assert arrived.tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes()
    else:
        assert isinstance(arrived, wire.Opaque)


@given(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, min_side=0), st.integers(0, 2**32))
def test_tensors_of_every_type_arrive(dtype: torch.dtype, shape: tuple[int, ...], seed: int):
    generator = torch.Generator().manual_seed(seed)
    tensor = (300 * torch.randn(shape, generator=generator)).to(dtype)
    arrived = sent(tensor.mT if tensor.ndim == 2 else tensor)
    assert isinstance(arrived, torch.Tensor)
    assert arrived.dtype == dtype
    assert torch.equal(arrived, tensor.mT if tensor.ndim == 2 else tensor)


def test_not_a_number_arrives():
    for value in (float("nan"), torch.tensor(float("nan")), np.float32("nan")):
        assert np.isnan(float(sent(value)))  # type: ignore[arg-type]
    assert type(sent(np.float32(2))) is np.float32
    meta = sent(torch.ones(2, 3, device="meta"))
    assert isinstance(meta, torch.Tensor)
    assert (meta.device.type, meta.shape) == ("meta", (2, 3))


@pytest.mark.parametrize("value", [object(), {1}, 10**500, torch.eye(2).to_sparse(), type])
def test_what_cannot_go_over_is_named(value: object):
    assert isinstance(sent(value), wire.Opaque)


@given(anything)
def test_whatever_comes_is_a_value_or_refused(message: object):
    try:
        value = wire.decode(message)
    except wire.WireError:
        return
    wire.encode(value)


@pytest.mark.parametrize(
    "message",
    [
        {"tensor": "float32", "shape": [2], "data": "AAAA"},
        {"tensor": "float32", "shape": [-1], "data": ""},
        {"tensor": "float32", "shape": [2**50], "device": "meta"},
        {"tensor": "float32", "shape": [2**39, 2**39], "device": "meta"},
        {"tensor": "object", "shape": [], "data": ""},
        {"tensor": ["float32"], "shape": []},
        {"array": "object", "shape": [1], "data": "AAAAAAAAAAA="},
        {"array": "O", "shape": [1], "data": "AAAAAAAAAAA="},
        {"array": ["float32"], "shape": []},
        {"number": "float32", "shape": [1], "data": "AAAAAA=="},
        {"made": "os.system", "fields": {}},
        {"list": {}},
        {"dict": [["a"]]},
        {"dict": [[[], 1]]},
        {"complex": "1"},
        {"float": "1e9"},
        {},
        [],
    ],
)
def test_a_message_that_is_no_value_is_refused(message: object):
    with pytest.raises(wire.WireError):
        wire.decode(message)


def test_lists_without_end_are_refused():
    message: object = 1
    for _ in range(wire.DEEPEST + 2):
        message = {"list": [message]}
    with pytest.raises(wire.WireError, match="without end"):
        wire.decode(message)


# --- the channel ----------------------------------------------------------------------------------


@contextmanager
def a_pair() -> Iterator[tuple[socket.socket, Channel]]:
    """Somebody who may send anything, and the channel that reads it."""
    with (
        socket.create_server(("127.0.0.1", 0)) as door,
        socket.create_connection(door.getsockname()) as outside,
        door.accept()[0] as connection,
    ):
        yield outside, Channel(connection)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"[1]", b"7", b"{", b"[" * 100_000, b'{"a": 1' + b"0" * 5000 + b"}"]
)
def test_what_is_no_message_is_refused(content: bytes):
    with a_pair() as (outside, channel):
        outside.sendall(len(content).to_bytes(8, "big") + content)
        with pytest.raises(MalformedError):
            channel.receive(10)


def test_a_message_may_not_be_too_long():
    with a_pair() as (outside, channel):
        outside.sendall((10**9).to_bytes(8, "big"))
        with pytest.raises(MalformedError, match="1000000000 bytes"):
            channel.receive(10)


def test_half_a_message_and_none_are_noticed():
    with a_pair() as (outside, channel):
        outside.sendall((9).to_bytes(8, "big") + b"{")
        with pytest.raises(GoneError, match="in time"):
            channel.receive(0.01)
        outside.close()
        with pytest.raises(GoneError, match="gone"):
            channel.receive(10)


def test_who_does_not_know_the_password_is_not_heard():
    with a_pair() as (outside, channel):
        Channel(outside).send({"password": "\ud800", "exercise": "lesson99.double", "answer": 1})
        with pytest.raises(GoneError, match="password"):
            Session(channel).open("open")


# --- a process that lies --------------------------------------------------------------------------

values = (
    st.none() | st.integers(-1, 3) | st.sampled_from([{"tuple": []}, {"function": 0}, "passed"])
    | st.sampled_from([wire.encode(torch.zeros(n)) for n in (1, 3)]) | anything
)  # fmt: skip
replies = st.one_of(
    st.fixed_dictionaries({"gave": values}, optional={"graph": values, "changed": values}),
    st.fixed_dictionaries(
        {"raised": values | st.tuples(st.text(), st.text(), st.none() | st.integers(), st.text())},
        optional={
            "wrong": values | st.tuples(st.sampled_from(["passed", "values"]), values, values),
            "asked": values,
        },
    ),
    st.fixed_dictionaries(
        {"ask": values, "arguments": st.lists(values), "keywords": st.just({}) | values},
        optional={"traced": st.lists(st.booleans())},
    ),
    st.fixed_dictionaries({"ask back": values}, optional={"gradient": values}),
    st.fixed_dictionaries({"kept": values}),
    anything.map(lambda value: value if isinstance(value, dict) else {"outcome": value}),
)


@pytest.mark.parametrize("task", [elsewhere.DOUBLE, elsewhere.TRAINED, elsewhere.HALVED])
@settings(max_examples=60)
@given(lies=st.lists(replies, max_size=6))
def test_no_lie_passes_and_none_hurts(task: Exercise, lies: list[dict]):
    hello = {"password": "open", "exercise": task.id, "module": "", "source": ""}
    with a_pair() as (outside, channel):
        liar = Channel(outside)
        for message in ({**hello, "answer": {"function": 0}}, *lies):
            liar.send(message)
        outside.shutdown(socket.SHUT_WR)
        session = Session(channel)
        result = task.judge(session.open("open").answer)
    assert result.outcome in ("failed", "not attempted")
