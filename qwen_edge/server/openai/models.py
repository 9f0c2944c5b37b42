"""GET /v1/models: the one model that is served here, as OpenAI's clients list it."""

from __future__ import annotations

from typing import Literal

import msgspec
from aiohttp import web

from qwen_edge.server.replies import json_response
from qwen_edge.server.state import STATE, State


class ModelCard(msgspec.Struct, forbid_unknown_fields=True):
    """A model. `created`: when the daemon started, in seconds since 1970. `context_length`: in tokens."""

    id: str
    created: int
    context_length: int
    object: Literal["model"] = "model"
    owned_by: str = "qwen-edge"


class ModelList(msgspec.Struct, forbid_unknown_fields=True):
    """All models that are served."""

    data: list[ModelCard]
    object: Literal["list"] = "list"


async def list_models(request: web.Request) -> web.Response:
    return json_response(ModelList([_card(request.app[STATE])]))


async def show_model(request: web.Request) -> web.Response:
    state, name = request.app[STATE], request.match_info["name"].removesuffix("/")
    state.refuse_other_model(name)
    return json_response(_card(state))


def _card(state: State) -> ModelCard:
    return ModelCard(state.model_name, state.created, state.service.model.context)
