"""A connection to a broker: a preamble once, then frames, over a Unix socket.

A frame is its length, four bytes, the lowest first, and a message of exactly that length.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from typing import Optional

from . import _postcard
from ._messages import ClientMessage, ServerMessage
from .errors import NoBroker, ProtocolError, WrongVersion

PROTOCOL_VERSION = 1
FRAME_BYTES_MAX = 256 * 1024

_MAGIC = b"GATE"
_PREAMBLE = _MAGIC + struct.pack("<I", PROTOCOL_VERSION)
_LENGTH = struct.Struct("<I")
_READ_BYTES = 64 * 1024
#: Bytes of the longest path that the address of a socket holds.
_SOCKET_PATH_BYTES_MAX = 107
#: Seconds that a broker may leave what was said unread.
_SEND_PATIENCE = 10.0


def encode(message: ClientMessage) -> bytes:
    """Returns a message as a frame."""
    body = _postcard.encode(ClientMessage, message)
    if len(body) > FRAME_BYTES_MAX:
        raise ValueError(f"a message has more than {FRAME_BYTES_MAX} bytes: take fewer paths")
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Bytes that came in, cut into messages."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._is_greeted = False

    def push(self, data: bytes) -> None:
        self._bytes += data

    def next(self) -> Optional[ServerMessage]:
        """Takes the next message, if all of it is here."""
        if not self._is_greeted and not self._greet():
            return None
        if len(self._bytes) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._bytes)
        if length > FRAME_BYTES_MAX:
            raise ProtocolError(f"a frame is longer than {FRAME_BYTES_MAX} bytes")
        end = _LENGTH.size + length
        if len(self._bytes) < end:
            return None
        body = bytes(self._bytes[_LENGTH.size : end])
        del self._bytes[:end]
        return _postcard.decode(ServerMessage, body)

    def _greet(self) -> bool:
        if len(self._bytes) < len(_PREAMBLE):
            return False
        preamble = bytes(self._bytes[: len(_PREAMBLE)])
        if not preamble.startswith(_MAGIC):
            raise ProtocolError("what listens there does not speak Gate's frames")
        (theirs,) = _LENGTH.unpack_from(preamble, len(_MAGIC))
        if theirs != PROTOCOL_VERSION:
            raise WrongVersion(
                f"the broker speaks version {theirs}, this is version {PROTOCOL_VERSION}"
            )
        del self._bytes[: len(_PREAMBLE)]
        self._is_greeted = True
        return True


class Link:
    """A living connection. One thread receives; sending is for one thread at a time."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._decoder = Decoder()
        self._write(_PREAMBLE)

    @classmethod
    def to(cls, path: str) -> Link:
        """Connects to the broker whose socket lies there."""
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.settimeout(_SEND_PATIENCE)
        try:
            _connect(stream, path)
        except OSError as error:
            stream.close()
            nobody = isinstance(error, (ConnectionRefusedError, FileNotFoundError))
            reason = "nobody listens" if nobody else error.strerror or error
            raise NoBroker(f"no broker at {path}: {reason}") from error
        return cls(stream)

    def send(self, message: ClientMessage) -> None:
        """Sends. That a connection is broken shows on the way back."""
        self._write(encode(message))

    def receive(self, patience: float) -> Optional[ServerMessage]:
        """Waits for a message; None if none came in so many seconds. OSError: it is broken."""
        while True:
            message = self._decoder.next()
            if message is not None:
                return message
            poll = select.poll()
            poll.register(self._stream, select.POLLIN)
            if not poll.poll(max(patience, 0) * 1000):
                return None
            data = self._stream.recv(_READ_BYTES)
            if not data:
                raise ConnectionResetError("the broker closed the connection")
            self._decoder.push(data)

    def end(self) -> None:
        """Says no more; the broker then closes its side."""
        try:
            self._stream.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # It is broken already.

    def close(self) -> None:
        self._stream.close()

    def _write(self, data: bytes) -> None:
        try:
            self._stream.sendall(data)
        except OSError:
            # Part of it may be out: nothing that follows would be understood.
            self.end()


def _connect(stream: socket.socket, path: str) -> None:
    if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES_MAX:
        return stream.connect(path)
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        stream.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
    finally:
        os.close(folder)
