"""POST /api/embed and POST /api/embeddings: texts to vectors."""

from __future__ import annotations

import time

from aiohttp import web

from qwen_edge.core.errors import RequestError
from qwen_edge.server.answering import Asked, asked_by, read_request
from qwen_edge.server.ollama.bodies import OllamaEmbedBody, OllamaEmbeddingsBody
from qwen_edge.server.ollama.framing import nanoseconds
from qwen_edge.server.ollama.keep_alive import kept
from qwen_edge.server.ollama.models import listed_name
from qwen_edge.server.ollama.parse import refuse_larger_context
from qwen_edge.server.replies import json_response
from qwen_edge.server.state import STATE
from qwen_edge.service.embedding import Embedded, EmbeddingRequest


async def embed(request: web.Request) -> web.Response:
    """The vectors of one text, or of several."""
    began = time.monotonic()
    body = await read_request(request, OllamaEmbedBody)
    asked = asked_by(request, body.model)
    refuse_larger_context(body.options, asked)
    texts = [body.input] if isinstance(body.input, str) else body.input
    with kept(request, body.keep_alive):
        embedded = await _embedded(request, asked, texts, body.dimensions, truncate=body.truncate is not False)
    state = request.app[STATE]
    end, loaded_at = time.monotonic(), state.engine.idle.loaded_at
    return json_response(
        {
            "model": listed_name(state),
            "embeddings": [one.vector for one in embedded],
            "total_duration": nanoseconds(end - began),
            "load_duration": nanoseconds(loaded_at - began),
            "prompt_eval_count": sum(one.tokens for one in embedded),
        }
    )


async def embeddings(request: web.Request) -> web.Response:
    """The vector of one text, as clients from before /api/embed ask for it."""
    body = await read_request(request, OllamaEmbeddingsBody)
    asked = asked_by(request, body.model)
    refuse_larger_context(body.options, asked)
    with kept(request, body.keep_alive):
        embedded = await _embedded(request, asked, [body.prompt])
    return json_response({"embedding": embedded[0].vector if embedded else ()})


async def _embedded(
    request: web.Request, asked: Asked, texts: list[str], dimensions: int | None = None, *, truncate: bool = True
) -> tuple[Embedded, ...]:
    """One vector for each text. For nothing, Ollama returns nothing. Raises RequestError."""
    if texts in ([], [""]):
        return ()
    if "" in texts:
        parameter = f"input[{texts.index('')}]"
        raise RequestError(f"{parameter} must be a text that is not empty.", parameter=parameter)
    wanted = EmbeddingRequest(tuple(texts), asked.client, dimensions=dimensions, truncate=truncate)
    return await request.app[STATE].service.embed(wanted)
