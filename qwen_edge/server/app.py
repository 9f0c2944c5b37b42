"""The aiohttp application: paths, their handlers, the dialects that they belong to, and the middlewares."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from qwen_edge.server import middleware
from qwen_edge.server.admin.routes import ROUTES as OUR_OWN
from qwen_edge.server.anthropic import errors as anthropic_errors
from qwen_edge.server.anthropic import routes as anthropic
from qwen_edge.server.dialects import DIALECTS, Dialects
from qwen_edge.server.llama_server.routes import ROUTES as LLAMA_SERVER
from qwen_edge.server.ollama import errors as ollama_errors
from qwen_edge.server.ollama.routes import ROUTES as OLLAMA
from qwen_edge.server.openai import errors
from qwen_edge.server.openai.responses.store import RESPONSES, store_of
from qwen_edge.server.openai.routes import ROUTES as OPENAI
from qwen_edge.server.openapi import DESCRIPTION, Description
from qwen_edge.server.page import routes as page
from qwen_edge.server.page.files import read_files
from qwen_edge.server.routes import Handler, Route
from qwen_edge.server.state import STATE, State

# a further dialect gets a line here, the beginning of its paths and its module `errors`, and one in ROUTES
ALL_DIALECTS = Dialects(
    errors,
    {"/api": ollama_errors, **dict.fromkeys(anthropic.PATHS, anthropic_errors)},
    {anthropic.VERSION: anthropic_errors},
)

ROUTES = (*OPENAI, *LLAMA_SERVER, *anthropic.ROUTES, *OLLAMA, *OUR_OWN, *page.ROUTES)


def make_app(state: State, dialects: Dialects = ALL_DIALECTS) -> web.Application:
    """The application with all paths. It belongs to one event loop."""
    app = web.Application(
        middlewares=[middleware.count_and_log, middleware.errors_as_responses, middleware.check_key],
        client_max_size=state.config.server.max_body_bytes,
    )
    app[STATE] = state
    app[DIALECTS] = dialects
    server = state.config.server
    app[DESCRIPTION] = Description(
        ROUTES, dialects, keys=bool(state.api_keys), ignores_unknown=server.unknown_parameters == "ignore"
    )
    app[page.PAGE] = read_files() if server.page else {}
    app[RESPONSES] = responses = store_of(state.config)
    app.on_cleanup.append(lambda _app: responses.close())
    app.on_response_prepare.append(middleware.let_pages_read)
    for route in ROUTES:
        for path in (route.path, *route.also):
            # aiohttp answers HEAD for each GET
            add = app.router.add_get if route.method == "GET" else partial(app.router.add_route, route.method)
            add(path, _handler(route))
    return app


def _handler(route: Route) -> Handler:
    """The route's handler; on a path that dialects share, the one of the dialect that the client speaks, and on that of
    the page, the one for a browser or for another client."""
    if route.path == "/":
        return page.page_or(route.handler)
    if (other := anthropic.SHARED.get(route.path)) is None:
        return route.handler

    async def by_header(request: web.Request) -> web.StreamResponse:
        return await (other if anthropic.VERSION in request.headers else route.handler)(request)

    return by_header
