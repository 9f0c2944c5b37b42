"""Reads a request's body: completely, within limits of time and size; decodes its content coding and its JSON."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable
from qwen_edge.server.state import STATE

log = logging.getLogger(__name__)

# zlib's windowBits; a deflate without its two bytes of header is an old mistake of clients that everybody accepts
_GZIP, _ZLIB, _RAW = 31, 15, -15
_GZIP_MAGIC = b"\x1f\x8b"
_MOST_MEMBERS = 1000  # of one gzip body: each takes the event loop some microseconds, even an empty one
_SLICE = 1 << 16  # bytes passed to zlib at once: zlib copies all input behind the end of a member
_BOM = b"\xef\xbb\xbf"  # UTF-8's byte order mark, which some editors and Windows clients write
_MOST_NAMED = 10  # unknown parameters in one line of the log
_DEEPEST = 200  # lists and objects inside each other: what reads, checks and writes a body is recursive


async def read_whole(request: web.Request) -> bytes:
    """The decoded body. Raises RequestError if the body does not arrive within server.body_seconds, or is larger than
    server.max_body_bytes before or after decoding."""
    settings = request.app[STATE].config.server
    try:
        data = await asyncio.wait_for(request.read(), settings.body_seconds)
    except asyncio.TimeoutError:
        raise RequestError(
            f"The body did not arrive within {settings.body_seconds:g} s (server.body_seconds).", "timeout"
        ) from None
    except web.RequestPayloadError as error:
        raise RequestError(f"The body does not match its headers: {printable(_first_line(error))}.") from None
    except web.HTTPRequestEntityTooLarge:
        raise _too_large(settings.max_body_bytes) from None
    return _decoded(data, _codings(request.headers.getall("Content-Encoding", [])), settings.max_body_bytes)


def parse_json(data: bytes) -> Any:
    """The JSON value of a body, with or without a byte order mark. Raises RequestError."""
    try:
        value = msgspec.json.decode(data.removeprefix(_BOM))
    except RecursionError:
        raise _too_deep() from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"The body is not valid JSON: {printable(error)}.") from None
    # almost no body has as many brackets: those that have are searched
    if data.count(b"[") + data.count(b"{") > _DEEPEST and _is_deeper(value, _DEEPEST):
        raise _too_deep()
    return value


def _is_deeper(value: Any, most: int) -> bool:
    """Whether more than `most` lists and objects of a JSON value are inside each other."""
    level = [value]
    for _ in range(most):
        inner = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [one for values in inner for one in values if isinstance(one, dict | list)]
        if not level:
            return False
    return True


def _too_deep() -> RequestError:
    return RequestError(f"The body has more than {_DEEPEST} lists and objects inside each other.")


def pass_over_unknown(names: Sequence[str], *, ignore: bool, advice: str = "Leave the parameter out.") -> None:
    """If unknown parameters are to be ignored, log them; otherwise raise RequestError. `advice`: what to do about the
    first of them."""
    if not names:
        return
    if not ignore:
        raise RequestError(
            f"Unknown parameter: {printable(names[0])!r}. {advice} A server with "
            "server.unknown_parameters: ignore passes over parameters that it does not know.",
            code="unknown_parameter",
            parameter=names[0],
        )
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    log.warning("unknown parameters ignored: %s%s", ", ".join(map(printable, names[:_MOST_NAMED])), more)


def _codings(lines: Sequence[str]) -> list[str]:
    """The content codings of the body, in the order in which they were applied. Repeated headers form one list."""
    names = (name.strip().lower() for line in lines for name in line.split(","))
    return [name for name in names if name not in ("", "identity")]


def _decoded(data: bytes, codings: Sequence[str], most: int) -> bytes:
    if not codings:
        return data
    if codings in (["gzip"], ["x-gzip"]):
        return _inflated(data, codings[0], _GZIP, most)
    if codings == ["deflate"]:
        return _inflated(data, codings[0], _ZLIB if data[:1] and data[0] & 0x0F == 8 else _RAW, most)
    raise RequestError(
        f"Content-Encoding {printable(', '.join(codings))} is not supported: "
        "send the body uncompressed, or as gzip or deflate.",
        "unsupported_encoding",
        code="unsupported_content_encoding",
    )


def _inflated(data: bytes, coding: str, window: int, most: int) -> bytes:
    """The decompressed data. Stops at `most` bytes, because a small body may expand to a very large one. A gzip body
    may have several members, as from `cat a.gz b.gz`. Raises RequestError."""
    whole, rest, members = bytearray(), memoryview(data), 0
    while rest or not members:
        if members and (window != _GZIP or rest[:2] != _GZIP_MAGIC):
            raise _broken(coding, "more bytes follow its end")
        if (members := members + 1) > _MOST_MEMBERS:
            raise _broken(coding, f"it has more than {_MOST_MEMBERS} members")
        inflate = zlib.decompressobj(window)
        while not inflate.eof:
            if not (piece := rest[:_SLICE]):
                raise _broken(coding, "it is cut short")
            try:
                whole += inflate.decompress(piece, most + 1 - len(whole))
            except zlib.error as error:
                raise _broken(coding, str(error)) from None
            if len(whole) > most:
                raise _too_large(most)
            rest = rest[len(piece) - len(inflate.unused_data) :]
    return bytes(whole)


def _broken(encoding: str, why: str) -> RequestError:
    return RequestError(f"The body is not valid {encoding}: {why}.", code="invalid_content_encoding")


def _too_large(most: int) -> RequestError:
    return RequestError(f"The body is larger than {most} bytes (server.max_body_bytes). Send less.", "too_large")


def _first_line(error: BaseException) -> str:
    lines = str(error.__cause__ or error).strip().splitlines()
    return lines[0].rstrip(".:") if lines else type(error).__name__
