"""The paths of our own API: its description, what the cache holds, the device, health and metrics."""

from __future__ import annotations

from qwen_edge.server.admin import cache, description, device_history, status
from qwen_edge.server.routes import ALWAYS, READS_BODY, Route

_FROM_ENGINE = (*ALWAYS, 503)

ROUTES = (
    Route("GET", "/openapi.json", description.openapi, "This description, in OpenAPI 3.1.", answer=dict),
    Route(
        "GET",
        "/v1/cache",
        cache.list_kept,
        "The remembered conversations.",
        answer=cache.Conversations,
        errors=_FROM_ENGINE,
    ),
    Route(
        "DELETE",
        "/v1/cache/{key}",
        cache.forget,
        "Forget a conversation.",
        answer=cache.Conversations,
        errors=(*_FROM_ENGINE, 404),
    ),
    Route(
        "POST",
        "/v1/cache/{key}/pin",
        cache.pin,
        "Keep a conversation for some hours.",
        body=cache.Pin,
        answer=cache.Conversations,
        errors=(*READS_BODY, 404, 503),
    ),
    Route("GET", "/v1/device", status.device, "Heat, watts and joules.", answer=status.DeviceReport),
    Route(
        "GET",
        "/v1/device/history",
        device_history.history,
        "Heat, watts and speed of the last minutes or days.",
        answer=device_history.DeviceHistory,
        query=device_history.QUERY,
    ),
    Route(
        "GET",
        "/health",
        status.health,
        "Whether requests are answered.",
        answer=status.Health,
        answer_at=(200, 503),
        errors=(400, 403),
    ),
    Route("GET", "/metrics", status.metrics, "Metrics in Prometheus' format.", answer=str, content_type="text/plain"),
)
