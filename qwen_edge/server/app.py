"""The aiohttp application: paths, their handlers, the dialects that they belong to, and the middlewares."""

from __future__ import annotations

from aiohttp import web

from qwen_edge.server import middleware
from qwen_edge.server.admin import cache
from qwen_edge.server.admin import status as admin
from qwen_edge.server.dialects import DIALECTS, Dialects
from qwen_edge.server.openai import chat, errors, models
from qwen_edge.server.state import STATE, State

# a further dialect gets a line here, the beginning of its paths and its module `errors`; and its routes in make_app
ALL_DIALECTS = Dialects(errors, {})


def make_app(state: State, dialects: Dialects = ALL_DIALECTS) -> web.Application:
    """The application with all paths. It belongs to one event loop."""
    app = web.Application(
        middlewares=[middleware.count_and_log, middleware.errors_as_responses, middleware.check_key],
        client_max_size=state.config.server.max_body_bytes,
    )
    app[STATE] = state
    app[DIALECTS] = dialects
    app.on_response_prepare.append(middleware.let_pages_read)
    app.router.add_post("/v1/chat/completions", chat.chat_completions)
    app.router.add_get("/v1/models", models.list_models)
    app.router.add_get("/v1/models/{name:.+}", models.show_model)
    app.router.add_get("/v1/cache", cache.list_kept)
    app.router.add_delete("/v1/cache/{key}", cache.forget)
    app.router.add_post("/v1/cache/{key}/pin", cache.pin)
    app.router.add_get("/v1/device", admin.device)
    app.router.add_get("/health", admin.health)
    app.router.add_get("/metrics", admin.metrics)
    return app
