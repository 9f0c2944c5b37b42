"""The status endpoints: /v1/device, /health and /metrics."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from qwen_edge.server.state import STATE


async def health(request: web.Request) -> web.Response:
    """200 if a request would be answered, even if the model must be loaded first; else 503. The reason of the engine's
    last crash is included until the daemon ends."""
    state = request.app[STATE]
    engine = state.engine
    status = "stopping" if state.stopping else "ok" if engine.status == "ready" else engine.status
    report: dict[str, Any] = {"status": status, "restarts": engine.restarts, "pending": engine.pending}
    if engine.last_death:
        report["last_death"] = engine.last_death
    if engine.retry_in:
        report["retry_in"] = round(engine.retry_in, 1)
    return web.json_response(report, status=200 if engine.accepts_requests and not state.stopping else 503)


async def metrics(request: web.Request) -> web.Response:
    """The metrics in Prometheus' format."""
    content_type, text = request.app[STATE].metrics.page()
    return web.Response(body=text, headers={"Content-Type": content_type})


async def device(request: web.Request) -> web.Response:
    """Temperatures, watts, the governor's decision and joules, as `qwen-edge status` shows them."""
    state = request.app[STATE]
    body = {
        "object": "device",
        "model": state.model_name,
        "engine": state.engine.status,
        **msgspec.structs.asdict(state.thermal.report),
        "cache": state.metrics.cache,
    }
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
