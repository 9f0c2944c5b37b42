"""/v1/cache: lists, pins and deletes remembered conversations, for `qwen-edge cache` and for other clients.

Each key sees only its own conversations; those of other keys do not exist for it. An admin key sees all, and so does
every client of a server without keys.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from qwen_edge.config.schema import MOST_PIN_HOURS
from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable
from qwen_edge.protocol.events import Conversation
from qwen_edge.protocol.messages import CacheReport, InspectCache
from qwen_edge.server.answering import ignores_unknown
from qwen_edge.server.body import read_whole
from qwen_edge.server.parameters import Group, read_group, read_json
from qwen_edge.server.replies import json_response
from qwen_edge.server.state import STATE, caller_of

_PIN_HOURS = 24.0  # if the body of a pin names no time


class Pin(Group):
    """How long to pin a conversation; 0 ends a pin. Without a time, a day."""

    hours: Annotated[float, msgspec.Meta(ge=0, le=MOST_PIN_HOURS)] | None = None


class Conversations(msgspec.Struct, forbid_unknown_fields=True):
    """The remembered conversations that the key may see. `warning`: what could not be done."""

    data: tuple[Conversation, ...]
    object: Literal["list"] = "list"
    warning: str | UnsetType = UNSET


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
    hours = read_group(Pin, read_json(data or b"{}"), ignore_unknown=ignores_unknown(request)).hours
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
    return json_response(Conversations(kept.conversations, warning=kept.warning or UNSET))
