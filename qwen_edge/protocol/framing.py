"""How messages cross between the daemon and the engine process: as frames of msgpack on a socket pair."""

from __future__ import annotations

import struct
from typing import Generic, TypeVar

import msgspec

from qwen_edge.protocol.messages import Inbound, Outbound

_LENGTH = struct.Struct("<I")
_Message = TypeVar("_Message")


def encode(messages: list[Inbound] | list[Outbound]) -> bytes:
    """One frame: four bytes of length, then msgpack."""
    body = msgspec.msgpack.encode(messages)
    return _LENGTH.pack(len(body)) + body


class Frames(Generic[_Message]):
    """Cuts a byte stream into the messages of one direction. For one thread."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[list[_Message]]) -> None:
        self._decoder = decoder
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[_Message]:
        """The messages that are whole now; a part of a frame waits for the rest."""
        self._buffer += data
        messages: list[_Message] = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                break
            messages += self._decoder.decode(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
        return messages


def inbound_frames() -> Frames[Inbound]:
    """For the engine's end."""
    return Frames(msgspec.msgpack.Decoder(list[Inbound]))


def outbound_frames() -> Frames[Outbound]:
    """For the daemon's end."""
    return Frames(msgspec.msgpack.Decoder(list[Outbound]))
