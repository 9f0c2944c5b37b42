"""`encrypted_content` of a reasoning item: reasoning as opaque text, for clients that keep the conversation themselves
and send it back. Compressed, not encrypted: what is inside is the client's own answer. Pure."""

from __future__ import annotations

import base64
import binascii
import zlib

from qwen_edge.core.errors import RequestError

_MARK = "qwen-edge-1."
MOST_UNPACKED = 4_000_000  # bytes of reasoning in a request: a small text may expand to a very large one


def packed(text: str) -> str:
    """The opaque text."""
    return _MARK + base64.urlsafe_b64encode(zlib.compress(text.encode(), 6)).decode()


def unpacked(content: str, parameter: str, most: int = MOST_UNPACKED) -> str:
    """The reasoning. `parameter`: where the client has sent it. `most`: how many bytes it may have. Raises RequestError
    if it has more, or if this server has not made the text."""
    inflate = zlib.decompressobj()
    try:
        if not content.startswith(_MARK):
            raise ValueError
        data = inflate.decompress(base64.b64decode(content[len(_MARK) :], b"-_", validate=True), most + 1)
        if len(data) > most:
            raise _too_much(parameter)
        if not inflate.eof:
            raise ValueError
        return data.decode()
    except (ValueError, binascii.Error, zlib.error):
        raise RequestError(
            f"{parameter} is not from this server, or is damaged. Leave the item out, or send the reasoning as its "
            "summary.",
            code="invalid_encrypted_content",
            parameter=parameter,
        ) from None


def _too_much(parameter: str) -> RequestError:
    return RequestError(
        f"{parameter}: the reasoning of the request has more than {MOST_UNPACKED} bytes. Leave the oldest items out.",
        parameter=parameter,
    )
