"""Messages through a socket: JSON, each with its length before it."""

import json
import socket
import time

LARGEST = 8_000_000
"""Longest message that is read (bytes): no exercise needs a tenth of it."""


class GoneError(Exception):
    """The other side is gone, or has not said anything in time."""


class MalformedError(Exception):
    """What came is no message."""


class TooLargeError(Exception):
    """A message that is too long to be read; it was not sent."""


class Channel:
    """One end of a conversation. Only this module knows that it is a socket.

    Args:
        connection: a connected TCP socket; ``close`` closes it.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # many small messages

    def send(self, message: dict, seconds: float = 30.0) -> None:
        """Sends ``message``.

        Raises:
            GoneError: the other side does not read it within ``seconds``.
            TooLargeError: the other side would not read it.
        """
        content = json.dumps(message).encode()
        if len(content) > LARGEST:
            raise TooLargeError(f"{len(content)} bytes; at most {LARGEST} are read")
        try:
            self._connection.settimeout(seconds)
            self._connection.sendall(len(content).to_bytes(8, "big") + content)
        except OSError as error:
            raise GoneError(str(error)) from None

    def receive(self, seconds: float) -> dict:
        """The next message.

        Raises:
            GoneError: the other side is gone, or nothing complete came within ``seconds``.
            MalformedError: it is too long, or no JSON object.
        """
        end = time.monotonic() + seconds
        length = int.from_bytes(self._exactly(8, end), "big")
        if length > LARGEST:
            raise MalformedError(f"a message of {length} bytes; at most {LARGEST} are read")
        content = self._exactly(length, end)
        try:
            message = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise MalformedError(f"a message that is no JSON: {type(error).__name__}") from None
        if not isinstance(message, dict):
            raise MalformedError(f"a message that is a {type(message).__name__}, not an object")
        return message

    def close(self) -> None:
        """Ends the conversation; the other side sees that it is over."""
        self._connection.close()

    def _exactly(self, count: int, end: float) -> bytes:
        content = bytearray()
        while len(content) < count:
            left = end - time.monotonic()
            try:
                self._connection.settimeout(max(left, 1e-6))
                piece = self._connection.recv(min(count - len(content), 1 << 20))
            except TimeoutError:
                raise GoneError("nothing came in time") from None
            except OSError as error:
                raise GoneError(str(error)) from None
            if not piece:
                raise GoneError("the other side is gone")
            content += piece
        return bytes(content)
