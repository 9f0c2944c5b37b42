"""Whether the model can be asked, and how it goes: /v1/device, /health and /metrics."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from qwen_edge.server.state import STATE


async def health(request: web.Request) -> web.Response:
    """200 when a request would be answered, if need be by an engine that is only now loaded; 503 when not. What the
    engine died of last is told as long as the daemon lives."""
    state = request.app[STATE]
    engine = state.engine
    status = "stopping" if state.stopping else "ok" if engine.condition == "ready" else engine.condition
    report: dict[str, Any] = {"status": status, "restarts": engine.restarts, "pending": engine.pending}
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
