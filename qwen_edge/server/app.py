"""The aiohttp application: paths, their handlers, the dialects that they belong to, and the middlewares."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from qwen_edge.server import middleware
from qwen_edge.server.admin.routes import ROUTES as OUR_OWN
from qwen_edge.server.dialects import DIALECTS, Dialects
from qwen_edge.server.llama_server.routes import ROUTES as LLAMA_SERVER
from qwen_edge.server.openai import errors
from qwen_edge.server.openai.routes import ROUTES as OPENAI
from qwen_edge.server.state import STATE, State

# a further dialect gets a line here, the beginning of its paths and its module `errors`, and one in ROUTES
ALL_DIALECTS = Dialects(errors, {})

ROUTES = (*OPENAI, *LLAMA_SERVER, *OUR_OWN)


def make_app(state: State, dialects: Dialects = ALL_DIALECTS) -> web.Application:
    """The application with all paths. It belongs to one event loop."""
    app = web.Application(
        middlewares=[middleware.count_and_log, middleware.errors_as_responses, middleware.check_key],
        client_max_size=state.config.server.max_body_bytes,
    )
    app[STATE] = state
    app[DIALECTS] = dialects
    app.on_response_prepare.append(middleware.let_pages_read)
    for route in ROUTES:
        for path in (route.path, *route.also):
            # aiohttp answers HEAD for each GET
            add = app.router.add_get if route.method == "GET" else partial(app.router.add_route, route.method)
            add(path, route.handler)
    return app
