"""Around every request: counting and one log line, errors as JSON, and the key.

The only place where an exception becomes a response.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web
from yarl import URL

from qwen_edge.config import LOOPBACK
from qwen_edge.errors import RequestError, UserError, internal_error, stopping
from qwen_edge.printable import printable
from qwen_edge.server import openai
from qwen_edge.server.state import CLIENT, STATE

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
    """OpenAI's error object for whatever goes wrong. Our own bugs are logged whole and told as such."""
    try:
        return await handler(request)
    except RequestError as error:
        return error_response(error)
    except web.HTTPException as error:
        return error_response(RequestError(f"{_shown(request)}: {error.reason}.", status=error.status))
    except UserError as error:
        log.error("%s: %s", _shown(request), printable(error, 500))
        return error_response(RequestError(str(error), status=500, kind="server_error"))
    except ConnectionError:
        raise  # the client is gone: nobody to answer
    except Exception:
        log.exception("%s failed", _shown(request))
        return error_response(internal_error())


@web.middleware
async def check_key(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Keys are compared in constant time; a server that is stopping takes nothing new."""
    state = request.app[STATE]
    if not state.api_keys:
        _refuse_foreign_page(request)
    elif request.path not in _OPEN_PATHS:
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        # aiohttp keeps bytes that are no UTF-8 as surrogates
        token = given.strip().encode(errors="surrogateescape")
        owner = state.api_keys.owner(token)
        if kind.lower() != "bearer" or owner is None:
            raise RequestError(
                "A valid API key is needed: send 'Authorization: Bearer <key>'.", status=401, code="invalid_api_key"
            )
        request[CLIENT] = owner
    if state.stopping and request.method == "POST":
        raise stopping()
    return await handler(request)


def _refuse_foreign_page(request: web.Request) -> None:
    """Without a key, any web page that somebody on this machine has open could use the server: browsers tell."""
    origin = request.headers.get("Origin")
    if origin and URL(origin).host not in LOOPBACK:
        raise RequestError(
            f"Requests from web pages of {printable(origin)} are refused. Set server.api_keys_file to let pages with a "
            "key in.",
            status=403,
            code="foreign_origin",
        )


def _shown(request: web.Request) -> str:
    return f"{printable(request.method)} {printable(request.path)}"


def error_response(error: RequestError) -> web.Response:
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    body = msgspec.json.encode(openai.error(error))
    return web.Response(body=body, status=error.status, content_type="application/json", headers=headers)
