"""Around every request: counting and one log line, errors as JSON, and who may ask: by key, or else from where.

The only place where an exception becomes a response.
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
from qwen_edge.server.openai.errors import error_response, http_error_response
from qwen_edge.server.state import CALLER, STATE

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_OPEN_PATHS = {"/health"}  # supervisors and load balancers ask without a key
_UNCOUNTED = {"/health", "/metrics", "/v1/device"}  # asked all day long, they would drown others


@web.middleware
async def count_and_log(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Know what is in flight, so that a stop can wait for it. A client that goes away shows as 499, as nginx has it."""
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
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """An error of the dialect for whatever goes wrong. Our own bugs are logged whole and told as such."""
    try:
        return await handler(request)
    except RequestError as error:
        return error_response(error)
    except web.HTTPException as error:
        return http_error_response(error, f"{_shown(request)}: {error.reason}.{_what_there_is(error)}")
    except UserError as error:
        log.error("%s: %s", _shown(request), printable(error, 500))
        return error_response(RequestError(str(error), "internal"))
    except ConnectionError:
        raise  # the client is gone: nobody to answer
    except Exception:
        log.exception("%s failed", _shown(request))
        return error_response(internal_error())


@web.middleware
async def check_key(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Keys are compared in constant time; a server that is stopping takes nothing new."""
    state = request.app[STATE]
    server = state.config.server
    if not state.api_keys:
        origin.refuse_foreign_page(request, server)
        if request.path not in _OPEN_PATHS:
            origin.refuse_foreign_host(request, server)
    if answer := origin.preflight(request, server):
        return answer
    if state.api_keys and request.path not in _OPEN_PATHS:
        request[CALLER] = _who_asks(request, state.api_keys)
    if state.stopping and request.method == "POST":
        raise stopping()
    return await handler(request)


def _what_there_is(error: web.HTTPException) -> str:
    """What to ask instead, for a path or a method that this server does not have."""
    if isinstance(error, web.HTTPNotFound):
        return " Questions go to POST /v1/chat/completions; docs/api.md has all paths."
    return f" Send {' or '.join(sorted(error.allowed_methods))}." if isinstance(error, web.HTTPMethodNotAllowed) else ""


def _who_asks(request: web.Request, keys: Keys) -> Caller:
    """Whose key was sent. Raises RequestError."""
    kind, _, bearer = request.headers.get("Authorization", "").partition(" ")
    given = [bearer] if kind.lower() == "bearer" else []
    for key in [*given, *request.headers.getall("X-API-Key", [])]:
        # aiohttp keeps bytes that are no UTF-8 as surrogates
        if caller := keys.caller(key.strip().encode(errors="surrogateescape")):
            return caller
    raise RequestError(
        "A valid API key is needed: send 'Authorization: Bearer <key>' or 'x-api-key: <key>'.",
        "authentication",
        code="invalid_api_key",
    )


async def let_pages_read(request: web.Request, response: web.StreamResponse) -> None:
    """Called for every response, whole or streamed, before its headers go out."""
    origin.let_page_read(request, response, request.app[STATE].config.server.origins)


def _shown(request: web.Request) -> str:
    return f"{printable(request.method)} {printable(request.path)}"
