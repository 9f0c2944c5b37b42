"""POST /v1/completions."""

from __future__ import annotations

from aiohttp import web

from qwen_edge.server.answering import asked_by, ignores_unknown, respond
from qwen_edge.server.body import read_whole
from qwen_edge.server.openai.completions_body import CompletionBody, to_completion
from qwen_edge.server.openai.completions_encode import CompletionEncoder
from qwen_edge.server.parameters import read_group, read_json
from qwen_edge.server.prompts import prompt_text
from qwen_edge.server.replies import Json
from qwen_edge.server.state import STATE


async def completions(request: web.Request) -> web.StreamResponse:
    """Continue the prompts, as server-sent events or as one body."""
    return await complete(request, read_json(await read_whole(request)))


async def complete(request: web.Request, values: Json) -> web.StreamResponse:
    """The same, of a body that has been read. Raises RequestError."""
    body = read_group(CompletionBody, values, ignore_unknown=ignores_unknown(request))
    wanted = to_completion(body, asked_by(request, body.model, body.user))
    state = request.app[STATE]
    encoder = CompletionEncoder(
        state.model_name,
        choices=body.n or 1,
        echoed=[await prompt_text(state.service, prompt) for prompt in wanted.echoed],
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
    )
    return await respond(request, wanted.chats, encoder, stream=bool(body.stream))
