"""In the notebook's process: the answer that ``check`` was given, lent to the judge.

What this module says is no verdict and is not believed as one; the judge compares the values.
"""

import contextlib
import dataclasses
import functools
import importlib
import inspect
import os
import socket
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tutorial_lib.checks.framework import run, touched
from tutorial_lib.checks.framework.remote import wire
from tutorial_lib.checks.framework.remote.channel import (
    Channel,
    GoneError,
    MalformedError,
    TooLargeError,
)

GRADER_VARIABLE = "TUTORIAL_GRADER"
"""Environment variable that says where the judge listens: its port, a colon, and a password."""

LONGEST_WAIT = 120.0
"""How long to wait for the judge (seconds)."""

LONGEST_SOURCE = 20_000
"""Longest source of an answer that is sent (characters)."""


def hand_over(task: Any, answer: object) -> None:
    """Lends ``answer`` to the judge, if one listens, until it has asked for all that it needs.

    Args:
        task: the exercise or question, as this process knows it.
        answer: what ``check`` was given.
    """
    place = os.environ.get(GRADER_VARIABLE)
    if not place:
        return
    try:
        port, _, password = place.partition(":")
        connection = socket.create_connection(("127.0.0.1", int(port)), timeout=LONGEST_WAIT)
    except (OSError, ValueError) as error:
        text = f"{GRADER_VARIABLE} is {place!r}, but no judge answers there ({error})"
        warnings.warn(text, stacklevel=3)
        return
    channel = Channel(connection)
    try:
        _Lender(channel, task, answer).serve(password)
    except (GoneError, MalformedError, TooLargeError):
        return  # the judge has seen enough, or nothing that it could use
    finally:
        channel.close()


class _Lender:
    """One answer, what it has returned so far, and the judge's objects that it may ask."""

    def __init__(self, channel: Channel, task: Any, answer: object) -> None:
        self._channel, self._task = channel, task
        self._answer = task.prepared(answer)
        self._lent: list[Any] = []
        self._asked: list[Tensor] = []  # what models answered, where it carries a gradient
        self._given: list[Tensor] = []  # what the answer returned, where it carries one
        self._anchor = torch.zeros((), requires_grad=True)

    def serve(self, password: str) -> None:
        """Answers the judge's requests until it has no more."""
        hello = {"password": password, "exercise": self._task.id, **_origin(self._answer)}
        self._channel.send({**hello, "answer": self._encoded(self._answer)})
        with contextlib.ExitStack() as world:
            while True:
                request = self._channel.receive(LONGEST_WAIT)
                match request.get("do"):
                    case "begin":  # a case: the answer meets the same random state in each
                        world.close()
                        world.enter_context(run.unchanged_world())
                    case "call":
                        self._call(request)
                    case "use":
                        self._use(request)
                    case "backward":
                        self._backward(request)
                    case _:
                        return

    def _call(self, request: dict) -> None:
        function = self._lent[request["handle"]]
        arguments = [wire.decode(part, self._made) for part in request["arguments"]]
        keywords = {k: wire.decode(v, self._made) for k, v in request["keywords"].items()}
        before = [touched.copy_of(a) for a in arguments]
        self._asked.clear()
        given = self._run(lambda: function(*arguments, **keywords), function, request["seconds"])
        given["changed"] = [
            _state(a) if isinstance(a, torch.Generator) else _if_changed(a, b)
            for a, b in zip(arguments, before, strict=True)
        ]
        self._reply(given)

    def _use(self, request: dict) -> None:
        task = dataclasses.replace(self._task, seed=request["seed"])
        case = task.all_cases()[request["case"]]
        watch = touched.Watch(list(inspect.signature(task.model_answer).parameters))
        used = functools.partial(task.watched_use, self._answer, case, watch)
        given = self._run(used, self._answer, request["seconds"])
        self._reply(given | {"touched": watch.touched})

    def _reply(self, message: dict) -> None:
        try:
            self._channel.send(message)
        except TooLargeError as error:
            text = f"the result is far too large to be compared ({error})"
            self._channel.send({"raised": ["ValueError", text, None, ""]})

    def _run(self, function: Callable[[], object], answer: object, seconds: float) -> dict:
        """The message about what ``function`` gives or raises."""

        def given() -> tuple[object, Any]:
            value = function()
            return value, wire.encode(value, self._lend)

        file = run.file_of(answer)
        ran = run.run(given, seconds=seconds, own_file=file, world=contextlib.nullcontext)
        failure = ran.failure
        if failure is None:
            assert isinstance(ran.value, tuple)
            value, encoded = ran.value
            told: dict[str, Any] = {"gave": encoded}
            if isinstance(value, Tensor) and value.requires_grad:
                self._given.append(value)
                told["graph"] = len(self._given) - 1
            return told
        if failure.kind == "TimeUp":  # perhaps in the middle of a message
            raise GoneError("out of time")
        told = {
            "raised": [failure.kind, failure.text[:2000], failure.line_number, failure.line[:500]]
        }
        if isinstance(ran.error, _AskedError):
            told["asked"] = ran.error.number
        if failure.kind == "Wrong":
            told["wrong"] = [getattr(ran.error, n, None) for n in ("stage", "message", "mistake")]
        return told

    def _encoded(self, value: object) -> Any:
        try:
            return wire.encode(value, self._lend)
        except Exception:  # an object that cannot even be looked at
            return {"opaque": type(value).__name__}

    def _backward(self, request: dict) -> None:
        """The gradients at all that models answered, for one at what the answer returned."""
        given, gradient = self._given[request["graph"]], wire.decode(request["gradient"])
        found: tuple[Tensor | None, ...] = ()
        if self._asked:
            found = torch.autograd.grad(
                given, self._asked, gradient, retain_graph=True, allow_unused=True
            )
        self._channel.send({"gave": wire.encode(list(found))})

    def ask(self, handle: int, arguments: tuple, keywords: dict) -> object:
        """What an object of the judge answers to these arguments."""
        encoded = [wire.encode(part, self._lend) for part in arguments]
        named = {key: wire.encode(part, self._lend) for key, part in keywords.items()}
        tensors = [a for a in (*arguments, *keywords.values()) if isinstance(a, Tensor)]
        traced = [a.requires_grad and torch.is_grad_enabled() for a in tensors]
        self._channel.send(
            {"ask": handle, "arguments": encoded, "keywords": named, "traced": traced}
        )
        reply = self._channel.receive(LONGEST_WAIT)
        if "raised" in reply:
            kind, text = reply["raised"]
            raise _asked_error(kind, text, reply["number"])
        value = wire.decode(reply["gave"], self._made)
        if "graph" in reply:
            inputs = [a for a, t in zip(tensors, traced, strict=True) if t]
            value = _Grafted.apply(self, reply["graph"], value, self._anchor, *inputs)
            assert isinstance(value, Tensor)
            if value.requires_grad:
                self._asked.append(value)
                self._channel.send({"kept": reply["graph"]})
        return value

    def ask_back(self, graph: int, gradient: Tensor) -> list[Tensor | None]:
        """The gradients at the arguments of a question, for one at the answer to it."""
        self._channel.send({"ask back": graph, "gradient": wire.encode(gradient)})
        return wire.decode(self._channel.receive(LONGEST_WAIT)["gave"])

    def _lend(self, value: Any) -> dict | None:
        if isinstance(value, (_StandIn, _StandInModule)):
            return {"yours": value.handle}
        if not callable(value):
            return None
        self._lent.append(value)
        return {"function": len(self._lent) - 1, "name": type(value).__name__}

    def _made(self, message: dict) -> object:
        """An argument that is more than numbers: the judge is trusted here, so it may name one."""
        if "generator" in message:
            generator = torch.Generator()
            generator.set_state(wire.decode(message["generator"]))
            return generator
        if "made" in message:
            module, _, name = message["made"].rpartition(".")
            fields = {key: wire.decode(v, self._made) for key, v in message["fields"].items()}
            return getattr(importlib.import_module(module), name)(**fields)
        kind = _StandInModule if message["module"] else _StandIn
        return kind(self, message["object"], message["facts"])


class _Grafted(torch.autograd.Function):
    """What a model of the judge answered, with a way back to what it was asked."""

    @staticmethod
    def forward(ctx, lender, graph, value, anchor, *inputs):
        ctx.lender, ctx.graph = lender, graph
        return value.clone()

    @staticmethod
    def backward(ctx, *gradients):
        return (None, None, None, None, *ctx.lender.ask_back(ctx.graph, gradients[0]))


class _StandIn:
    """A function of the judge: calling it asks the judge."""

    def __init__(self, lender: _Lender, handle: int, facts: dict) -> None:
        vars(self).update(facts)
        self.lender, self.handle = lender, handle

    def __call__(self, *arguments: object, **keywords: object) -> object:
        return self.lender.ask(self.handle, arguments, keywords)

    def __repr__(self) -> str:
        return "a function to ask"


class _StandInModule(nn.Module):
    """A network of the judge: calling it asks the judge."""

    def __init__(self, lender: _Lender, handle: int, facts: dict) -> None:
        super().__init__()
        vars(self).update(facts)
        self.lender, self.handle = lender, handle
        self.weight = nn.Parameter(torch.zeros(()))  # some ask the first one for its device

    def forward(self, *arguments: object, **keywords: object) -> object:
        return self.lender.ask(self.handle, arguments, keywords)


class _AskedError(Exception):
    """An object of the judge raised; ``number`` says which of its errors it was."""

    number = -1


def _asked_error(kind: str, text: str, number: int) -> BaseException:
    base = run.PLAIN_ERRORS.get(kind)
    error = type(kind, (_AskedError, base) if base else (_AskedError,), {})(text)
    error.number = number
    return error


def _state(generator: torch.Generator) -> dict:
    return {"state": wire.encode(generator.get_state())}


def _if_changed(value: object, before: object) -> object:
    """The new numbers of an argument that the answer wrote to; None if it did not."""
    if before is None:
        return None
    new, old = wire.encode(value), wire.encode(before)
    return None if new == old else new


def _origin(answer: object) -> dict[str, str]:
    """Where an answer was written, and its source, if it can be found."""
    if not callable(answer):
        return {"module": "", "source": ""}
    try:
        source = inspect.getsource(inspect.unwrap(answer))  # type: ignore[arg-type]
    except Exception:  # classes and objects of all kinds: the source is a courtesy
        source = ""
    return {
        "module": str(getattr(answer, "__module__", "") or "")[:200],
        "source": source.encode("utf-8", "replace").decode()[:LONGEST_SOURCE],
    }
