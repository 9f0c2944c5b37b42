"""The middlewares of every request: counting and one log line, errors as responses, and access by key or by origin.

Exceptions become responses here and nowhere else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from qwen_edge.auth.keys import Keys
from qwen_edge.core.errors import RequestError, UserError, internal_error, stopping
from qwen_edge.core.printable import printable
from qwen_edge.protocol.messages import Caller
from qwen_edge.server import origin
from qwen_edge.server.dialects import DIALECTS, ErrorForm
from qwen_edge.server.page.routes import asks_for_page
from qwen_edge.server.routes import OPEN_PATHS, is_open
from qwen_edge.server.spelling import other_path
from qwen_edge.server.state import CALLER, STATE

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# polled all the time: they would outnumber all other requests
_UNCOUNTED = {"/health", "/metrics", "/v1/device", "/v1/device/history"}


@web.middleware
async def count_and_log(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count the requests in flight, for which a stop waits. A request whose client disconnects counts as 499, as in
    nginx."""
    state = request.app[STATE]
    state.in_flight += 1
    state.idle.clear()
    began, status = time.monotonic(), 499
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        state.in_flight -= 1
        if state.in_flight == 0:
            state.idle.set()
        if request.path not in _UNCOUNTED:
            state.metrics.ended(status)
        log.debug("%s %d %.3f s", _shown(request), status, time.monotonic() - began)


@web.middleware
async def errors_as_responses(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every exception into an error of the path's dialect. A bug in qwen-edge is logged with its traceback, and
    the error says that it is a bug."""
    form = request.app[DIALECTS].at(request.path, request.headers)
    try:
        return await handler(request)
    except RequestError as error:
        return form.error_response(error)
    except web.HTTPException as error:
        return form.http_error_response(error, f"{_shown(request)}: {error.reason}. {_instead(request, error, form)}")
    except UserError as error:
        log.error("%s: %s", _shown(request), printable(error, 500))
        return form.error_response(RequestError(str(error), "internal"))
    except ConnectionError:
        raise  # the client has disconnected
    except Exception:
        log.exception("%s failed", _shown(request))
        return form.error_response(internal_error())


@web.middleware
async def check_key(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Check the key, or without keys the origin. Refuse all requests while the server is stopping."""
    state = request.app[STATE]
    server = state.config.server
    if not state.api_keys:
        origin.refuse_foreign_page(request, server)
        if request.path not in OPEN_PATHS:
            origin.refuse_foreign_host(request, server)
    if answer := origin.preflight(request, server):
        return answer
    if state.api_keys and not is_open(request.path) and not asks_for_page(request):
        request[CALLER] = _who_asks(request, state.api_keys)
    if state.stopping and request.method == "POST":
        raise stopping()
    return await handler(request)


def _instead(request: web.Request, error: web.HTTPException, form: ErrorForm) -> str:
    """The hint for an unknown path or method: what to request instead."""
    if isinstance(error, web.HTTPNotFound):
        paths = {resource.canonical for resource in request.app.router.resources()}
        return other_path(request.path, paths) or form.what_there_is
    return f"Send {' or '.join(sorted(error.allowed_methods))}." if isinstance(error, web.HTTPMethodNotAllowed) else ""


def _who_asks(request: web.Request, keys: Keys) -> Caller:
    """The owner of the key that was sent. Raises RequestError."""
    kind, _, bearer = request.headers.get("Authorization", "").partition(" ")
    given = [bearer] if kind.lower() == "bearer" else []
    for key in [*given, *request.headers.getall("X-API-Key", [])]:
        # aiohttp decodes bytes that are not UTF-8 to surrogates
        if caller := keys.caller(key.strip().encode(errors="surrogateescape")):
            return caller
    raise RequestError(
        "A valid API key is needed: send 'Authorization: Bearer <key>' or 'x-api-key: <key>'.",
        "authentication",
        code="invalid_api_key",
    )


async def let_pages_read(request: web.Request, response: web.StreamResponse) -> None:
    """Called before the headers of every response are sent, streamed or not."""
    origin.let_page_read(request, response, request.app[STATE].config.server.origins)


def _shown(request: web.Request) -> str:
    return f"{printable(request.method)} {printable(request.path)}"
