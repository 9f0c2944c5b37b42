"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

from aiohttp import web

from qwen_edge.chat.messages import ChatRequest
from qwen_edge.server.answering import asked_by, ignores_unknown, respond
from qwen_edge.server.anthropic.body import MessageBody, PromptBody, read_body
from qwen_edge.server.anthropic.encode import Encoder
from qwen_edge.server.anthropic.parse import to_request
from qwen_edge.server.body import read_whole
from qwen_edge.server.replies import json_response
from qwen_edge.server.state import STATE


async def create_message(request: web.Request) -> web.StreamResponse:
    """Answer the messages, as server-sent events or as one body."""
    body = read_body(MessageBody, await read_whole(request), ignore_unknown=ignores_unknown(request))
    chat = _chat(request, body)
    encoder = Encoder(request.app[STATE].model_name, pinned=chat.pin_seconds > 0)
    return await respond(request, [chat], encoder, stream=bool(body.stream))


async def count_tokens(request: web.Request) -> web.StreamResponse:
    """The number of tokens of the prompt that the messages make."""
    body = read_body(PromptBody, await read_whole(request), ignore_unknown=ignores_unknown(request))
    count = await request.app[STATE].service.count(_chat(request, body))
    return json_response({"input_tokens": count})


def _chat(request: web.Request, body: PromptBody) -> ChatRequest:
    return to_request(body, asked_by(request, body.model, body.user))
