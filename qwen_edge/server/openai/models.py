"""GET /v1/models: the one model that is served here, as OpenAI's clients list it."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from qwen_edge.core.errors import no_such_model
from qwen_edge.core.printable import printable
from qwen_edge.server.state import STATE, State


async def list_models(request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [_card(request.app[STATE])]})


async def show_model(request: web.Request) -> web.Response:
    state, name = request.app[STATE], request.match_info["name"]
    if not state.names_model(name):
        raise no_such_model(printable(name), state.model_name)
    return web.json_response(_card(state))


def _card(state: State) -> dict[str, Any]:
    return {
        "id": state.model_name,
        "object": "model",
        "created": state.created,
        "owned_by": "qwen-edge",
        "context_length": state.service.model.context,
    }
