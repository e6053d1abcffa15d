"""In the judge's process: a learner's answer as a function whose body runs elsewhere.

Whatever comes from there is decoded by ``wire``, limited in size, and waited for no longer than the
exercise allows.
"""

import contextlib
import dataclasses
import hmac
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tutorial_lib.checks.framework import run
from tutorial_lib.checks.framework.remote import wire
from tutorial_lib.checks.framework.remote.channel import Channel, GoneError, MalformedError
from tutorial_lib.checks.framework.task import STAGES, Wrong
from tutorial_lib.checks.framework.time_limit import TimeUp

GRACE = 3.0
"""How much longer than the exercise allows to wait for the notebook (seconds), as it has its own
clock, which also knows the line that takes so long."""

HELLO = 20.0
"""How long to wait for the first message (seconds)."""

MOST_NUMBERS = 20_000
"""How many numbers a model of the judge takes at once: broadcasting them fills no memory."""


class BadMessageError(Exception):
    """The notebook's process said something that no answer says."""


@dataclasses.dataclass(frozen=True)
class Handed:
    """An answer that a notebook handed over.

    Attributes:
        exercise: the id that it names; any text.
        answer: the value, or a ``RemoteAnswer`` for a function or class.
        module: the module in which it says it was written.
        source: what it says is the source.
    """

    exercise: str
    answer: object
    module: str
    source: str


class Session:
    """The conversation with a notebook's process about one answer."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._end = 0.0
        self._begun = True
        self._objects: list[Any] = []
        self._errors: list[BaseException] = []
        self._graphs: list[tuple[Tensor, list[Tensor]]] = []
        self._asked: list[Tensor] = []
        self.touched: dict[str, str] = {}
        """What the last ``use`` overwrote."""
        self.broken: BadMessageError | GoneError | None = None
        """Why the conversation cannot go on, if so."""

    def open(self, password: str) -> Handed:
        """The answer that the other side has.

        Raises:
            BadMessageError: its first message is none.
            GoneError: it says nothing, or not the password.
        """
        try:
            hello = self._channel.receive(HELLO)
        except MalformedError as error:
            raise BadMessageError(str(error)) from None
        given = hello.get("password")
        if not isinstance(given, str) or not hmac.compare_digest(
            given.encode("utf-8", "replace"), password.encode()
        ):
            raise GoneError("somebody who does not know the password")
        texts = [hello.get(name) for name in ("exercise", "module", "source")]
        if not all(isinstance(text, str) for text in texts) or "answer" not in hello:
            raise BadMessageError("an answer without its exercise")
        try:
            answer = wire.decode(hello["answer"], self._theirs)
        except wire.WireError as error:
            raise BadMessageError(str(error)) from None
        exercise, module, source = texts
        return Handed(exercise, answer, module, source)  # type: ignore[arg-type]

    def start(self, seconds: float) -> None:
        """A case begins: the notebook has ``seconds`` for it."""
        self._end, self._begun = time.monotonic() + seconds, False

    def close(self) -> None:
        """Ends the conversation."""
        if self.broken is None:
            with contextlib.suppress(GoneError):  # it has ended it
                self._channel.send({"do": "end"}, seconds=1.0)
        self._channel.close()

    def call(self, handle: int, arguments: tuple, keywords: dict) -> object:
        """What a function over there gives."""
        self._asked = []
        encoded = [wire.encode(part, self._ours) for part in arguments]
        named = {key: wire.encode(part, self._ours) for key, part in keywords.items()}
        reply = self._request(
            {"do": "call", "handle": handle, "arguments": encoded, "keywords": named}
        )
        self._write_back(arguments, reply.get("changed"))
        return self._value(reply)

    def use(self, number: int, seed: int) -> object:
        """What the exercise's ``use`` gives over there, in the case of this number."""
        reply = self._request({"do": "use", "case": number, "seed": seed})
        told = reply.get("touched")
        pairs = told.items() if isinstance(told, dict) else ()
        self.touched = {str(name)[:60]: str(kind)[:20] for name, kind in pairs}
        return self._value(reply)

    def backward(self, graph: int, gradient: Tensor) -> list[Tensor | None]:
        """The gradients at what our models answered, for one at what the answer returned."""
        message = {"do": "backward", "graph": graph, "gradient": wire.encode(gradient)}
        found = self._decoded(self._request(message).get("gave"))
        shapes = [x.shape for x in self._asked]
        if not isinstance(found, list) or len(found) != len(shapes):
            return [None] * len(shapes)
        fits = [isinstance(g, Tensor) and g.shape == s for g, s in zip(found, shapes, strict=True)]
        return [g if fit else None for g, fit in zip(found, fits, strict=True)]

    def _request(self, message: dict) -> dict:
        """Sends a request, answers questions that come back, and returns the reply."""
        if self.broken is not None:
            raise self.broken
        try:
            if not self._begun:
                self._channel.send({"do": "begin"})
                self._begun = True
            left = self._end - time.monotonic()
            self._channel.send({**message, "seconds": max(left, 0.01)})
            while True:
                left = self._end - time.monotonic()
                reply = self._channel.receive(max(left, 0.0) + GRACE)
                if "ask" in reply:
                    self._channel.send(self._answer(reply))
                elif "ask back" in reply:
                    self._channel.send({"gave": wire.encode(self._gradients(reply))})
                elif "kept" in reply:
                    self._asked.append(self._graph(reply["kept"])[0])
                else:
                    return reply
                if left < -GRACE:  # it could go on asking for ever
                    raise GoneError("out of time")
        except (MalformedError, wire.WireError) as error:
            self.broken = BadMessageError(str(error))
            raise self.broken from None
        except GoneError as error:
            self.broken = error
            if time.monotonic() >= self._end:
                raise TimeUp from None
            text = "The notebook's process ended in the middle of your answer."
            raise run.Reported(run.Failure("GoneError", text)) from None

    def _value(self, reply: dict) -> object:
        if "gave" in reply:
            value = self._decoded(reply["gave"])
            graph = reply.get("graph")
            if type(graph) is int and isinstance(value, Tensor) and value.is_floating_point():
                return _Returned.apply(self, graph, value, *self._asked)
            return value
        number = reply.get("asked")
        if type(number) is int and 0 <= number < len(self._errors):
            raise self._errors[number]  # our own model rejected what it was asked
        wrong = reply.get("wrong")
        if isinstance(wrong, list) and len(wrong) == 3 and wrong[0] in STAGES[:-1]:
            stage, message, mistake = wrong
            raise Wrong(stage, str(message)[:300], None if mistake is None else str(mistake)[:100])
        raise run.reported(self._failure(reply.get("raised")))

    def _failure(self, told: object) -> run.Failure:
        if isinstance(told, list) and len(told) == 4:
            kind, text, number, line = told
            plain = isinstance(kind, str) and isinstance(text, str) and isinstance(line, str)
            if plain and (number is None or type(number) is int):
                return run.Failure(kind[:100], text[:2000], number, line[:500])
        self.broken = BadMessageError("a reply that is neither a value nor an error")
        raise self.broken

    def _decoded(self, message: object) -> object:
        try:
            return wire.decode(message, self._theirs)
        except wire.WireError as error:
            self.broken = BadMessageError(str(error))
            raise self.broken from None

    def _write_back(self, arguments: tuple, changed: object) -> None:
        """What the answer wrote into its arguments: tensors, lists and random states."""
        if not isinstance(changed, list) or len(changed) != len(arguments):
            return
        for argument, new in zip(arguments, changed, strict=True):
            state = new.get("state") if isinstance(new, dict) else None
            value = None if new is None else self._decoded(state or new)
            if type(argument) is list and isinstance(value, list):
                argument[:] = value
            if not isinstance(value, Tensor):
                continue
            if isinstance(argument, torch.Generator) and state is not None:
                try:
                    argument.set_state(value)
                except (RuntimeError, TypeError):
                    self.broken = BadMessageError("a random state that is none")
                    raise self.broken from None
            elif isinstance(argument, Tensor) and (argument.shape, argument.dtype) == (
                value.shape,
                value.dtype,
            ):
                with torch.no_grad():
                    argument.copy_(value)

    def _answer(self, question: dict) -> dict:
        """What one of our models says to a question; its errors are kept."""
        target = self._ours_at(question.get("ask"))
        arguments, keywords = question.get("arguments"), question.get("keywords")
        if not isinstance(arguments, list) or not isinstance(keywords, dict):
            raise MalformedError("a question without arguments")
        values = [wire.decode(part, self._known) for part in arguments]
        named = {key: wire.decode(part, self._known) for key, part in keywords.items()}
        tensors = [v for v in (*values, *named.values()) if isinstance(v, Tensor)]
        traced = question.get("traced")
        if not isinstance(traced, list) or len(traced) != len(tensors):
            raise MalformedError("a question whose gradients are unclear")
        try:
            if sum(tensor.numel() for tensor in tensors) > MOST_NUMBERS:
                raise ValueError(f"at most {MOST_NUMBERS} numbers can be asked about at once")
            inputs = [t for t, is_traced in zip(tensors, traced, strict=True) if is_traced is True]
            for tensor in inputs:
                tensor.requires_grad_()
            value = target(*values, **named)
        except Exception as error:  # it is the answer's fault, and the answer is told
            self._errors.append(error)
            text = str(error)[:2000]
            return {"raised": [type(error).__name__, text], "number": len(self._errors) - 1}
        if isinstance(value, Tensor) and value.requires_grad:
            self._graphs.append((value, inputs))
            graph = len(self._graphs) - 1
            return {"gave": wire.encode(value, self._ours), "graph": graph}
        return {"gave": wire.encode(value, self._ours)}

    def _gradients(self, question: dict) -> list[Tensor | None]:
        value, inputs = self._graph(question.get("ask back"))
        gradient = wire.decode(question.get("gradient"))
        if not isinstance(gradient, Tensor) or gradient.shape != value.shape:
            raise MalformedError("a gradient of another shape")
        if not inputs:
            return []
        return list(
            torch.autograd.grad(value, inputs, gradient, retain_graph=True, allow_unused=True)
        )

    def _graph(self, number: object) -> tuple[Tensor, list[Tensor]]:
        if type(number) is not int or not 0 <= number < len(self._graphs):
            raise MalformedError("a gradient for nothing")
        return self._graphs[number]

    def _ours(self, value: Any) -> dict | None:
        """How an argument goes over that is more than numbers."""
        if isinstance(value, RemoteAnswer):
            raise TypeError("an answer cannot be sent back to where it is")
        if isinstance(value, torch.Generator):
            return {"generator": wire.encode(value.get_state())}
        kind = type(value)
        if dataclasses.is_dataclass(value) and kind.__module__.startswith("tutorial_lib."):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            encoded = {name: wire.encode(part, self._ours) for name, part in fields.items()}
            return {"made": f"{kind.__module__}.{kind.__qualname__}", "fields": encoded}
        if not callable(value):
            raise TypeError(f"an argument of type {kind.__name__} cannot be sent: together=True")
        self._objects.append(value)
        facts = {
            name: fact
            for name, fact in getattr(value, "__dict__", {}).items()
            if not name.startswith("_") and isinstance(fact, (bool, int, float, str))
        }
        is_module = isinstance(value, nn.Module)
        return {"object": len(self._objects) - 1, "module": is_module, "facts": facts}

    def _ours_at(self, handle: object) -> Callable:
        if type(handle) is not int or not 0 <= handle < len(self._objects):
            raise MalformedError("a question to nobody")
        return self._objects[handle]

    def _known(self, message: dict) -> object:
        """An argument of a question: one of our objects, or something that we do not call."""
        if "yours" in message:
            return self._ours_at(message["yours"])
        return wire.opaque(str(message.get("name", "function")))

    def _theirs(self, message: dict) -> object:
        """A result that is more than numbers: a function to call, or one of our objects."""
        handle = message.get("function")
        if type(handle) is int and 0 <= handle < 2**31:
            kind = wire.named(str(message.get("name", "function")), RemoteAnswer)
            return kind(self, handle)
        if "yours" in message:
            try:
                return self._ours_at(message["yours"])
            except MalformedError as error:
                raise wire.WireError(str(error)) from None
        raise wire.WireError("a value of an unknown kind")


class RemoteAnswer(run.Elsewhere):
    """A function or class of the learner: calling it asks the notebook's process."""

    def __init__(self, session: Session, handle: int) -> None:
        self._session, self._handle = session, handle

    def __call__(self, *arguments: object, **keywords: object) -> object:
        return self._session.call(self._handle, arguments, keywords)

    def start(self, seconds: float) -> None:
        """Starts the clock of a case."""
        self._session.start(seconds)

    def use(self, number: int, seed: int) -> object:
        """What the exercise's ``use`` gives beside the answer."""
        return self._session.use(number, seed)

    @property
    def touched(self) -> dict[str, str]:
        """Arguments that the answer overwrote there."""
        return self._session.touched

    def __repr__(self) -> str:
        return "your answer"


class _Returned(torch.autograd.Function):
    """What the answer returned, with a way back, through it, to what our models answered."""

    @staticmethod
    def forward(ctx, session, graph, value, *asked):
        ctx.session, ctx.graph = session, graph
        return value.clone()

    @staticmethod
    def backward(ctx, *gradients):
        return (None, None, None, *ctx.session.backward(ctx.graph, gradients[0]))
