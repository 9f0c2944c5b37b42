"""What is remembered of conversations: /v1/cache, for `qwen-edge cache` and for whoever wants to see it.

Each key sees its own; what others have asked is not there for it. An admin's key sees all, as everybody does where
there are no keys.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from qwen_edge.config.schema import MOST_PIN_HOURS
from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable
from qwen_edge.protocol.messages import CacheReport, InspectCache
from qwen_edge.server.body import read_whole
from qwen_edge.server.state import STATE, caller_of


class _Pin(msgspec.Struct, forbid_unknown_fields=True):
    """For how long; 0 ends a pin."""

    hours: Annotated[float, msgspec.Meta(ge=0, le=MOST_PIN_HOURS)] = 24.0


async def list_kept(request: web.Request) -> web.Response:
    return _as_json(await _look(request, InspectCache(0)))


async def forget(request: web.Request) -> web.Response:
    key = request.match_info["key"]
    return _found(await _look(request, InspectCache(0, key, forget=True)), key)


async def pin(request: web.Request) -> web.Response:
    key, body = request.match_info["key"], await read_whole(request)
    try:
        hours = msgspec.json.decode(body or b"{}", type=_Pin).hours
    except msgspec.DecodeError as error:
        raise RequestError(f'The body must be like {{"hours": 24}}: {printable(error)}.') from None
    return _found(await _look(request, InspectCache(0, key, pin_seconds=3600 * hours)), key)


async def _look(request: web.Request, wanted: InspectCache) -> CacheReport:
    return await request.app[STATE].engine.inspect_cache(msgspec.structs.replace(wanted, caller=caller_of(request)))


def _found(kept: CacheReport, key: str) -> web.Response:
    if not kept.found:
        raise RequestError(
            f"Nothing is remembered as {printable(key)!r}. A conversation that goes on gets another key: "
            "see `qwen-edge cache ls` or GET /v1/cache.",
            status=404,
            code="not_found",
        )
    return _as_json(kept)


def _as_json(kept: CacheReport) -> web.Response:
    body = {"object": "list", "data": kept.conversations, **({"warning": kept.warning} if kept.warning else {})}
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
