"""POST /v1/completions."""

from __future__ import annotations

from aiohttp import web

from qwen_edge.server.answering import asked_by, ignores_unknown, respond
from qwen_edge.server.body import read_whole
from qwen_edge.server.openai.completions_body import CompletionBody, to_completion
from qwen_edge.server.openai.completions_encode import CompletionEncoder
from qwen_edge.server.parameters import read_group, read_json
from qwen_edge.server.prompts import Raw
from qwen_edge.server.state import STATE
from qwen_edge.service.pipeline import ChatService


async def completions(request: web.Request) -> web.StreamResponse:
    """Continue the prompts, as server-sent events or as one body."""
    body = read_group(CompletionBody, read_json(await read_whole(request)), ignore_unknown=ignores_unknown(request))
    wanted = to_completion(body, asked_by(request, body.model, body.user))
    state = request.app[STATE]
    encoder = CompletionEncoder(
        state.model_name,
        choices=body.n or 1,
        echoed=[await _text(state.service, prompt) for prompt in wanted.echoed],
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
    )
    return await respond(request, wanted.chats, encoder, stream=bool(body.stream))


async def _text(service: ChatService, prompt: Raw) -> str:
    """The prompt as text. Raises RequestError for tokens that the model does not have."""
    texts = [
        part if isinstance(part, str) else b"".join(await service.pieces(part)).decode("utf-8", "replace")
        for part in prompt
    ]
    return "".join(texts)
