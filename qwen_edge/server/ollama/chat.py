"""POST /api/chat and POST /api/generate."""

from __future__ import annotations

from aiohttp import web

from qwen_edge.chat.messages import ChatRequest
from qwen_edge.protocol.messages import CacheReport, InspectCache
from qwen_edge.server.answering import asked_by, ignores_unknown, respond
from qwen_edge.server.body import read_whole
from qwen_edge.server.ollama.bodies import OllamaChatBody, OllamaGenerateBody, OllamaQuestion
from qwen_edge.server.ollama.encode import Encoder, Said, message, response
from qwen_edge.server.ollama.keep_alive import keep_seconds, kept
from qwen_edge.server.ollama.models import listed_name
from qwen_edge.server.ollama.parse import chat_request, generate_request, read_question, refuse_larger_context
from qwen_edge.server.replies import json_response
from qwen_edge.server.state import STATE, caller_of


async def chat(request: web.Request) -> web.StreamResponse:
    """Answer a chat, as lines of JSON or as one body. Without messages, load or unload the model."""
    encoder = _encoder(request, message)
    body = read_question(OllamaChatBody, await read_whole(request), ignore_unknown=ignores_unknown(request))
    if not body.messages:
        return await _load_or_unload(request, body, encoder)
    return await _answer(request, body, chat_request(body, asked_by(request, body.model)), encoder)


async def generate(request: web.Request) -> web.StreamResponse:
    """Answer one prompt, as lines of JSON or as one body. Without a prompt, load or unload the model."""
    encoder = _encoder(request, response)
    body = read_question(OllamaGenerateBody, await read_whole(request), ignore_unknown=ignores_unknown(request))
    if not body.prompt:
        return await _load_or_unload(request, body, encoder)
    return await _answer(request, body, generate_request(body, asked_by(request, body.model)), encoder)


async def _answer(
    request: web.Request, body: OllamaQuestion, wanted: ChatRequest, encoder: Encoder
) -> web.StreamResponse:
    with kept(request, body.keep_alive):
        return await respond(request, [wanted], encoder, stream=body.stream is not False, on_event=encoder.notice)


def _encoder(request: web.Request, said: Said) -> Encoder:
    state = request.app[STATE]
    return Encoder(listed_name(state), said, loaded_at=lambda: state.engine.idle.loaded_at)


async def _load_or_unload(request: web.Request, body: OllamaQuestion, encoder: Encoder) -> web.Response:
    """Answer a request without a question, as `ollama run` and `ollama stop` send it: keep_alive 0 unloads the model as
    soon as no request runs, anything else loads it. Raises RequestError."""
    refuse_larger_context(body.options, asked_by(request, body.model))
    with kept(request, body.keep_alive):
        reason = "unload" if keep_seconds(body.keep_alive) == 0 else "load"
        if reason == "load":  # an inspection waits until an engine has loaded the model
            await request.app[STATE].engine.ask(InspectCache(0, caller=caller_of(request)), CacheReport)
    return json_response(encoder.empty(reason))
