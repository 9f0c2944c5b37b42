"""The status endpoints: /v1/device, /health and /metrics."""

from __future__ import annotations

import os

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from qwen_edge.device.host.memory import total_bytes
from qwen_edge.device.report import Report
from qwen_edge.server.replies import json_response
from qwen_edge.server.state import STATE


class Health(msgspec.Struct, forbid_unknown_fields=True):
    """Whether requests are answered. `restarts`: engines that died; `last_death`: why the last one did, until the
    daemon ends. `pending`: answers that are being computed or waiting. `retry_in`: seconds until an engine starts."""

    status: str
    restarts: int
    pending: int
    last_death: str | UnsetType = UNSET
    retry_in: float | UnsetType = UNSET


class CacheCounts(msgspec.Struct, forbid_unknown_fields=True):
    """Tokens of prompts since the start, and how many of them were in the KV cache."""

    prompt_tokens: int
    cached_tokens: int


class DeviceReport(Report, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the daemon knows of the device now. Units: Celsius, watts, hertz, joules, seconds; loads are 0 to 1.
    `restarts`: engines that died; `last_death`: why the last one did, until the daemon ends. `context`: tokens of all
    requests together, None before the model is loaded. `memory`: bytes of the daemon and its engine; the telemetry has
    that of the whole device."""

    object: str
    model: str
    engine: str
    restarts: int
    last_death: str | None
    context: int | None
    memory: int | None
    cache: CacheCounts


async def health(request: web.Request) -> web.Response:
    """200 if a request would be answered, even if the model must be loaded first; else 503. The reason of the engine's
    last crash is included until the daemon ends."""
    state = request.app[STATE]
    engine = state.engine
    opened = state.renderer.has_template
    status = "stopping" if state.stopping else engine.status
    if status == "ready":
        status = "ok" if opened else "loading"
    report = Health(
        status,
        engine.restarts,
        engine.pending,
        engine.last_death or UNSET,
        round(engine.retry_in, 1) if engine.retry_in else UNSET,
    )
    return json_response(report, status=200 if engine.accepts_requests and opened and not state.stopping else 503)


async def metrics(request: web.Request) -> web.Response:
    """The metrics in Prometheus' format."""
    content_type, text = request.app[STATE].metrics.page()
    return web.Response(body=text, headers={"Content-Type": content_type})


async def device(request: web.Request) -> web.Response:
    """Temperatures, watts, the governor's decision and joules, as `qwen-edge status` shows them."""
    state = request.app[STATE]
    report = DeviceReport(
        object="device",
        model=state.model_name,
        engine=state.engine.status,
        restarts=state.engine.restarts,
        last_death=state.engine.last_death,
        context=state.engine.model.context if state.engine.model else None,
        memory=total_bytes(os.getpid(), state.engine.pid),
        cache=CacheCounts(**state.metrics.cache),
        **msgspec.structs.asdict(state.thermal.report),
    )
    return json_response(report)
