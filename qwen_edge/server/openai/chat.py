"""POST /v1/chat/completions."""

from __future__ import annotations

from aiohttp import web

from qwen_edge.chat.messages import ChatRequest
from qwen_edge.server.answering import asked_by, ignores_unknown, respond
from qwen_edge.server.body import read_whole
from qwen_edge.server.openai.chat_body import ChatBody, read_body
from qwen_edge.server.openai.encode import Encoder
from qwen_edge.server.openai.parse import to_request
from qwen_edge.server.replies import json_response
from qwen_edge.server.state import STATE


async def read_chat(request: web.Request) -> tuple[ChatBody, ChatRequest]:
    """The body, and the request that it asks for. Raises RequestError."""
    body = read_body(await read_whole(request), ignore_unknown=ignores_unknown(request))
    return body, to_request(body, asked_by(request, body.model, body.user))


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """Answer a chat, as server-sent events or as one body."""
    body, chat = await read_chat(request)
    if body.x_prepare:
        return await _prepared(request, chat)
    encoder = Encoder(
        request.app[STATE].model_name,
        include_usage=_wants_usage(body),
        inline_reasoning=body.reasoning_format == "none",
        functions=bool(body.functions),
    )
    return await respond(request, [chat], encoder, stream=bool(body.stream))


async def prepare(request: web.Request) -> web.Response:
    """Compute the prompt of a chat that will be asked for soon. Answers at once."""
    _, chat = await read_chat(request)
    return await _prepared(request, chat)


async def _prepared(request: web.Request, chat: ChatRequest) -> web.Response:
    tokens = await request.app[STATE].service.prepare(chat)
    return json_response({"object": "chat.completion.prepared", "prompt_tokens": tokens})


async def count_input_tokens(request: web.Request) -> web.Response:
    """How many tokens the prompt of a chat with this body has."""
    _, chat = await read_chat(request)
    count = await request.app[STATE].service.count(chat)
    return json_response({"object": "response.input_tokens", "input_tokens": count})


def _wants_usage(body: ChatBody) -> bool:
    options, usage = body.stream_options, body.usage
    return bool((options and options.include_usage) or (usage and usage.include))
