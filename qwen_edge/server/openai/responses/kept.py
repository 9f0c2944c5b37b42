"""The paths of one stored response: show it, delete it, list its input, cancel it."""

from __future__ import annotations

from aiohttp import web

from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable
from qwen_edge.server.openai.responses.store import RESPONSES, Stored
from qwen_edge.server.openai.responses.stored import page
from qwen_edge.server.replies import json_response
from qwen_edge.server.state import caller_of


async def show(request: web.Request) -> web.Response:
    """The response as it was answered."""
    if request.query.get("stream") in ("true", "1"):
        raise RequestError(
            "stream: a stored response cannot be streamed, as it is complete. Leave stream out.",
            code="unsupported_value",
            parameter="stream",
        )
    return json_response((await _found(request)).response)


async def delete(request: web.Request) -> web.Response:
    id_ = _id(request)
    if not await request.app[RESPONSES].delete(id_, caller_of(request).owner):
        raise _none(id_)
    return json_response({"id": id_, "object": "response", "deleted": True})


async def list_input(request: web.Request) -> web.Response:
    """The items of which the response was made, those of its conversation before it included."""
    return json_response(page((await _found(request)).input, request.query))


async def cancel(request: web.Request) -> web.Response:
    """Only what runs in the background can be cancelled, and nothing does here."""
    await _found(request)
    raise RequestError(
        "Only a response with background: true can be cancelled, and there are none here. To stop an answer, close "
        "its connection.",
        parameter="response_id",
    )


async def _found(request: web.Request) -> Stored:
    id_ = _id(request)
    stored = await request.app[RESPONSES].get(id_, caller_of(request).owner)
    if stored is None:
        raise _none(id_)
    return stored


def _id(request: web.Request) -> str:
    return request.match_info["id"]


def _none(id_: str) -> RequestError:
    return RequestError(
        f"There is no stored response {printable(id_, 80)!r}: it was not stored, has expired or was deleted, or it is "
        "of another key.",
        "not_found",
        code="not_found",
        parameter="response_id",
    )
