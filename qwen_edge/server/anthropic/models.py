"""The model that is served, as Anthropic's clients list it. The paths are OpenAI's: the header `anthropic-version`
tells which API a client speaks."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from aiohttp import web

from qwen_edge.server.state import State

VERSION = "anthropic-version"


def speaks_anthropic(request: web.Request) -> bool:
    """Whether the client speaks Anthropic's API, where the path does not tell."""
    return VERSION in request.headers


def listed(state: State) -> dict[str, Any]:
    """The list of all models."""
    name = state.model_name
    return {"data": [card(state)], "has_more": False, "first_id": name, "last_id": name}


def card(state: State) -> dict[str, Any]:
    """The one model."""
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
