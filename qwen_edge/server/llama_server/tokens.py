"""POST /tokenize, /detokenize and /apply-template: text, tokens and prompts, without an answer."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from qwen_edge.server.answering import read_request
from qwen_edge.server.openai.chat import read_chat
from qwen_edge.server.parameters import Group
from qwen_edge.server.prompts import refuse_many_texts
from qwen_edge.server.replies import json_response
from qwen_edge.server.state import STATE

Token = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class TokenizeBody(Group, kw_only=True):
    """`add_special`: with the token that every prompt begins with. `parse_special`: texts of special tokens are these
    tokens, unless it is false. `with_pieces`: the text of each token, or its bytes if they are no whole characters."""

    content: str | list[str | Token]
    add_special: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None


class DetokenizeBody(Group, kw_only=True):
    tokens: list[Token]


async def tokenize(request: web.Request) -> web.Response:
    """The tokens of a text, or of texts and tokens in turn."""
    body = await read_request(request, TokenizeBody)
    service = request.app[STATE].service
    tokens = list[int]()
    parts = [body.content] if isinstance(body.content, str) else body.content
    refuse_many_texts(parts, "content")
    for number, part in enumerate(parts):
        if isinstance(part, int):
            tokens.append(part)
        else:
            begin = bool(body.add_special) and number == 0
            tokens += await service.tokenize(part, special=body.parse_special is not False, begin=begin)
    if not body.with_pieces:
        return json_response({"tokens": tokens})
    pieces = await service.pieces(tokens)
    return json_response(
        {"tokens": [{"id": one, "piece": _piece(piece)} for one, piece in zip(tokens, pieces, strict=True)]}
    )


async def detokenize(request: web.Request) -> web.Response:
    body = await read_request(request, DetokenizeBody)
    pieces = await request.app[STATE].service.pieces(body.tokens)
    return json_response({"content": b"".join(pieces).decode("utf-8", "replace")})


async def apply_template(request: web.Request) -> web.Response:
    """The prompt that a chat completion with this body would have."""
    _, chat = await read_chat(request)
    return json_response({"prompt": await request.app[STATE].service.prompt(chat)})


def _piece(piece: bytes) -> str | list[int]:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return list(piece)
