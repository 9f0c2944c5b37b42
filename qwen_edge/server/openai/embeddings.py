"""POST /v1/embeddings: texts to vectors.

Reference: https://platform.openai.com/docs/api-reference/embeddings/create.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web

from qwen_edge.core.errors import RequestError
from qwen_edge.protocol.messages import Priority
from qwen_edge.server.answering import asked_by, read_request
from qwen_edge.server.parameters import HINT, Group
from qwen_edge.server.replies import json_response
from qwen_edge.server.sampling import Count
from qwen_edge.server.state import STATE
from qwen_edge.service.embedding import Embedded, EmbeddingRequest

_MOST_INPUTS = 256

_Inputs = Annotated[list[str | int | list[int]], msgspec.Meta(min_length=1, max_length=_MOST_INPUTS)]


class EmbeddingsBody(Group, kw_only=True):
    """`input`: a text, several texts, the token ids of a text, or of several. `dimensions`: only the model's own number
    can be had."""

    input: str | _Inputs
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = None
    user: str | None = None
    priority: Priority | None = None
    embd_normalize: Annotated[int | None, HINT] = None


async def embeddings(request: web.Request) -> web.Response:
    """Embed the texts of a request."""
    body = await read_request(request, EmbeddingsBody)
    asked = asked_by(request, body.model, body.user)
    state = request.app[STATE]
    wanted = EmbeddingRequest(_inputs(body.input), asked.client, body.priority or "interactive", body.dimensions)
    embedded = await state.service.embed(wanted)
    return json_response(_encoded(embedded, state.model_name, body.encoding_format or "float"))


def _inputs(given: str | list[str | int | list[int]]) -> tuple[str | tuple[int, ...], ...]:
    """The inputs, each a text or token ids. Raises RequestError for what is empty, or a mixture."""
    if isinstance(given, str):
        given = [given]
    if all(isinstance(one, int) for one in given):
        return (tuple(one for one in given if isinstance(one, int)),)
    found = list[str | tuple[int, ...]]()
    for number, one in enumerate(given):
        if isinstance(one, int) or not one:
            raise RequestError(
                f"input[{number}] must be a text, or a list of token ids, that is not empty.",
                parameter=f"input[{number}]",
            )
        found.append(one if isinstance(one, str) else tuple(one))
    return tuple(found)


def _encoded(embedded: Sequence[Embedded], model: str, form: Literal["float", "base64"]) -> dict[str, Any]:
    """The answer's body. base64 holds little-endian 32-bit numbers, as OpenAI's clients decode them."""
    tokens = sum(one.tokens for one in embedded)
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": number,
                "embedding": one.vector if form == "float" else _base64(one.vector),
            }
            for number, one in enumerate(embedded)
        ],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
