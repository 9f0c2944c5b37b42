"""GET /v1/models and /v1/models/{name}, as Anthropic's clients list the model that is served.

The paths are OpenAI's, too: the header `anthropic-version` tells which API a client speaks.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from aiohttp import web

from qwen_edge.server.replies import json_response
from qwen_edge.server.state import STATE, State


async def list_models(request: web.Request) -> web.StreamResponse:
    """The list, which has one model."""
    name, card = request.app[STATE].model_name, _card(request.app[STATE])
    return json_response({"data": [card], "has_more": False, "first_id": name, "last_id": name})


async def show_model(request: web.Request) -> web.StreamResponse:
    """The model, by any name to which it answers."""
    state, name = request.app[STATE], request.match_info["name"]
    state.refuse_other_model(name)
    return json_response(_card(state))


def _card(state: State) -> dict[str, Any]:
    context = state.service.model.context
    created = datetime.fromtimestamp(state.created, timezone.utc)
    return {
        "type": "model",
        "id": state.model_name,
        "display_name": state.model_name,
        "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "max_input_tokens": context,
        "max_tokens": context,
    }
