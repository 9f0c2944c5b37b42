"""What is served, whether it can be, and how it goes: /v1/models, /health and /metrics."""

from __future__ import annotations

from aiohttp import web

from qwen_edge.errors import no_such_model, unavailable
from qwen_edge.server import openai
from qwen_edge.server.state import STATE, State


async def list_models(request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [_card(request.app[STATE])]})


async def show_model(request: web.Request) -> web.Response:
    state, name = request.app[STATE], request.match_info["name"]
    if not state.names_model(name):
        raise no_such_model(name, state.model_name)
    return web.json_response(_card(state))


async def health(request: web.Request) -> web.Response:
    """200 when a request would be answered, 503 with the reason when not."""
    state = request.app[STATE]
    status = "stopping" if state.stopping else "ok" if state.engine.state == "ready" else state.engine.state
    report = {"status": status, "restarts": state.engine.restarts, "pending": state.engine.pending}
    return web.json_response(report, status=200 if status == "ok" else 503)


async def metrics(request: web.Request) -> web.Response:
    """For Prometheus and its like."""
    content_type, text = request.app[STATE].metrics.page()
    return web.Response(body=text, headers={"Content-Type": content_type})


def _card(state: State) -> openai.Json:
    model = state.engine.model
    if model is None:
        raise unavailable("The model is still loading. Try again in a moment.", retry_after=2)
    return openai.model_card(state.model_name, state.created, model.context)
