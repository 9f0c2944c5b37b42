"""What is served, whether it can be, and how it goes: /v1/models, /v1/device, /health and /metrics."""

from __future__ import annotations

import msgspec
from aiohttp import web

from qwen_edge.core.errors import no_such_model, unavailable
from qwen_edge.core.printable import printable
from qwen_edge.server.openai import encode as openai
from qwen_edge.server.state import STATE, State


async def list_models(request: web.Request) -> web.Response:
    return web.json_response({"object": "list", "data": [_card(request.app[STATE])]})


async def show_model(request: web.Request) -> web.Response:
    state, name = request.app[STATE], request.match_info["name"]
    if not state.names_model(name):
        raise no_such_model(printable(name), state.model_name)
    return web.json_response(_card(state))


async def health(request: web.Request) -> web.Response:
    """200 when a request would be answered, if need be by an engine that is only now loaded; 503 when not. What the
    engine died of last is told as long as the daemon lives."""
    state = request.app[STATE]
    engine = state.engine
    status = "stopping" if state.stopping else "ok" if engine.condition == "ready" else engine.condition
    report: openai.Json = {"status": status, "restarts": engine.restarts, "pending": engine.pending}
    if engine.last_death:
        report["last_death"] = engine.last_death
    if engine.retry_in:
        report["retry_in"] = round(engine.retry_in, 1)
    return web.json_response(report, status=200 if engine.takes and not state.stopping else 503)


async def metrics(request: web.Request) -> web.Response:
    """For Prometheus and its like."""
    content_type, text = request.app[STATE].metrics.page()
    return web.Response(body=text, headers={"Content-Type": content_type})


async def device(request: web.Request) -> web.Response:
    """Temperatures, watts, what the governor allows, joules: what `qwen-edge status` shows."""
    state = request.app[STATE]
    body = {
        "object": "device",
        "model": state.model_name,
        "engine": state.engine.condition,
        **msgspec.structs.asdict(state.thermal.report),
        "cache": state.metrics.cache,
    }
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


def _card(state: State) -> openai.Json:
    model = state.engine.model
    if model is None:
        raise unavailable("The model is still loading. Try again in a moment.", retry_after=2)
    return openai.model_card(state.model_name, state.created, model.context)
