"""POST /v1/responses and POST /v1/responses/input_tokens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

from aiohttp import web

from qwen_edge.chat.messages import ChatRequest
from qwen_edge.core.errors import RequestError
from qwen_edge.server.answering import asked_by, ignores_unknown, respond
from qwen_edge.server.body import read_whole
from qwen_edge.server.openai.responses.body import ResponsesBody, read_body
from qwen_edge.server.openai.responses.encode import Encoder
from qwen_edge.server.openai.responses.items import Item, named
from qwen_edge.server.openai.responses.parse import includes, logprobs, to_request
from qwen_edge.server.openai.responses.response import begun
from qwen_edge.server.openai.responses.store import RESPONSES, Stored
from qwen_edge.server.openai.responses.stored import whole_conversation
from qwen_edge.server.openai.responses.truncate import truncated
from qwen_edge.server.replies import json_response
from qwen_edge.server.state import STATE


async def create(request: web.Request) -> web.StreamResponse:
    """Answer, as server-sent events or as one body, and store the response before the client can know that it is
    complete."""
    with _naming_input():
        return await _create(request)


async def _create(request: web.Request) -> web.StreamResponse:
    body, items, chat = await _read(request)
    response = begun(body, chat, request.app[STATE].model_name)
    encoder = Encoder(
        response,
        encrypted=includes(body, "reasoning.encrypted_content"),
        logprobs=logprobs(body) is not None,
    )
    keep = None if body.store is False else partial(_keep, request, encoder, items, chat)
    return await respond(request, [chat], encoder, stream=bool(body.stream), finished=keep)


async def count_tokens(request: web.Request) -> web.Response:
    """How many tokens the prompt of a response would have."""
    with _naming_input():
        _, _, chat = await _read(request)
        tokens = await request.app[STATE].service.count(chat)
    return json_response({"object": "response.input_tokens", "input_tokens": tokens})


@contextlib.contextmanager
def _naming_input() -> Iterator[None]:
    """Errors of the messages are errors of `input`: that is what a client of this API has sent."""
    try:
        yield
    except RequestError as error:
        if error.parameter == "messages" and error.code != "unknown_parameter":
            error.parameter = "input"
        raise


async def _read(request: web.Request) -> tuple[ResponsesBody, list[Item], ChatRequest]:
    """The body, all items of the conversation, and the request that they make. Raises RequestError."""
    body = read_body(await read_whole(request), ignore_unknown=ignores_unknown(request))
    asked = asked_by(request, body.model, body.user)
    items, stored = await whole_conversation(body, request.app[RESPONSES], asked.caller.owner)
    chat = to_request(body, items, asked, stored)
    if body.truncation == "auto":
        chat = await truncated(chat, asked.model.context, request.app[STATE].service.count)
    return body, items, chat


async def _keep(request: web.Request, encoder: Encoder, items: list[Item], chat: ChatRequest) -> None:
    response = encoder.response
    stored = Stored(response, named(items, response["id"]))
    await request.app[RESPONSES].put(response["id"], chat.caller.owner, stored)
