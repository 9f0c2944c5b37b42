"""Reading a request's body: whole, in time, of a bearable size, and without its content coding."""

from __future__ import annotations

import asyncio
import zlib

from aiohttp import web

from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable
from qwen_edge.server.state import STATE

# zlib's windowBits; a deflate without its two bytes of header is an old mistake of clients that everybody accepts
_GZIP, _ZLIB, _RAW = 31, 15, -15


async def read_whole(request: web.Request) -> bytes:
    """The body as it was before it was encoded. One that does not come in server.body_seconds, or is larger than
    server.max_body_bytes, before or after decoding, is refused. Raises RequestError."""
    settings = request.app[STATE].config.server
    try:
        data = await asyncio.wait_for(request.read(), settings.body_seconds)
    except asyncio.TimeoutError:
        raise RequestError(f"The body did not come within {settings.body_seconds:g} s.", status=408) from None
    except web.RequestPayloadError as error:
        raise RequestError(f"The body is not as its headers say: {printable(_first_line(error))}.") from None
    except web.HTTPRequestEntityTooLarge:
        raise _too_large(settings.max_body_bytes) from None
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    return _decoded(data, encoding, settings.max_body_bytes)


def _decoded(data: bytes, encoding: str, most: int) -> bytes:
    if encoding in ("", "identity"):
        return data
    if encoding in ("gzip", "x-gzip"):
        window = _GZIP
    elif encoding == "deflate":
        window = _ZLIB if data[:1] and data[0] & 0x0F == 8 else _RAW
    else:
        raise RequestError(
            f"Content-Encoding {printable(encoding)} is not known here: send the body as it is, or as gzip or deflate.",
            status=415,
            code="unsupported_content_encoding",
        )
    inflate = zlib.decompressobj(window)
    try:
        whole = inflate.decompress(data, most + 1)  # and not a byte more: a small body may be a very large one
    except zlib.error as error:
        raise _broken(encoding, str(error)) from None
    if len(whole) > most:
        raise _too_large(most)
    if not inflate.eof or inflate.unused_data:
        raise _broken(encoding, "it is cut short" if not inflate.eof else "something follows its end")
    return whole


def _broken(encoding: str, why: str) -> RequestError:
    return RequestError(f"The body is no valid {encoding}: {why}.", code="invalid_content_encoding")


def _too_large(most: int) -> RequestError:
    return RequestError(f"The body is larger than {most} bytes (server.max_body_bytes).", status=413)


def _first_line(error: BaseException) -> str:
    lines = str(error.__cause__ or error).strip().splitlines()
    return lines[0].rstrip(".:") if lines else type(error).__name__
