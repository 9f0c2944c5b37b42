"""The paths of our own API: what the cache holds, the device, health and metrics."""

from __future__ import annotations

from qwen_edge.server.admin import cache, status
from qwen_edge.server.routes import Route

ROUTES = (
    Route("GET", "/v1/cache", cache.list_kept, "The conversations in memory.", errors=(401, 403, 503)),
    Route("DELETE", "/v1/cache/{key}", cache.forget, "Forget a conversation.", errors=(401, 403, 404, 503)),
    Route("POST", "/v1/cache/{key}/pin", cache.pin, "Keep a conversation.", errors=(400, 401, 403, 404, 503)),
    Route("GET", "/v1/device", status.device, "Heat, watts and joules.", errors=(401, 403)),
    Route("GET", "/health", status.health, "Whether requests are answered.", errors=(503,)),
    Route("GET", "/metrics", status.metrics, "Metrics in Prometheus' format.", errors=(401, 403)),
)
