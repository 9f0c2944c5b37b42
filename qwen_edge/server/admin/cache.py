"""/v1/cache: lists, pins and deletes remembered conversations, for `qwen-edge cache` and for other clients.

Each key sees only its own conversations; those of other keys do not exist for it. An admin key sees all, and so does
every client of a server without keys.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from qwen_edge.config.schema import MOST_PIN_HOURS
from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable
from qwen_edge.protocol.messages import CacheReport, InspectCache
from qwen_edge.server.body import parse_json, pass_over_unknown, read_whole
from qwen_edge.server.state import STATE, caller_of

_PIN_HOURS = 24.0  # if the body of a pin names no time


class _Pin(msgspec.Struct):
    """How long to pin a conversation; 0 ends a pin. Null means the same as a missing value, as in every body."""

    hours: Annotated[float, msgspec.Meta(ge=0, le=MOST_PIN_HOURS)] | None = None


async def list_kept(request: web.Request) -> web.Response:
    return _as_json(await _look(request, InspectCache(0)))


async def forget(request: web.Request) -> web.Response:
    key = request.match_info["key"]
    return _found(await _look(request, InspectCache(0, key, forget=True)), key)


async def pin(request: web.Request) -> web.Response:
    key, hours = request.match_info["key"], _pin_hours(request, await read_whole(request))
    return _found(await _look(request, InspectCache(0, key, pin_seconds=3600 * hours)), key)


def _pin_hours(request: web.Request, data: bytes) -> float:
    """Parse the body of a pin. Raises RequestError."""
    values = parse_json(data or b"{}")
    if isinstance(values, dict):
        unknown = [name for name, value in values.items() if value is not None and name not in _Pin.__struct_fields__]
        pass_over_unknown(sorted(unknown), ignore=request.app[STATE].config.server.unknown_parameters == "ignore")
    try:
        hours = msgspec.convert(values, _Pin).hours
    except msgspec.ValidationError as error:
        raise RequestError(f'The body must be like {{"hours": 24}}: {printable(error)}.') from None
    return _PIN_HOURS if hours is None else hours


async def _look(request: web.Request, wanted: InspectCache) -> CacheReport:
    wanted = msgspec.structs.replace(wanted, caller=caller_of(request))
    return await request.app[STATE].engine.ask(wanted, CacheReport)


def _found(kept: CacheReport, key: str) -> web.Response:
    if not kept.found:
        raise RequestError(
            f"No conversation is remembered as {printable(key)!r}. A conversation that goes on gets another key: "
            "see `qwen-edge cache ls` or GET /v1/cache.",
            "not_found",
            code="not_found",
        )
    return _as_json(kept)


def _as_json(kept: CacheReport) -> web.Response:
    body = {"object": "list", "data": kept.conversations, **({"warning": kept.warning} if kept.warning else {})}
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
