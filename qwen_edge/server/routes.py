"""The paths of the API: each dialect lists its own as routes, app.py serves them, /openapi.json describes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import msgspec
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Route:
    """One path and method. `path`: in aiohttp's form; `also`: other paths with the same meaning, for clients that leave
    /v1 out or end paths with a slash. `body`: the struct that checks the request's body; `answer`: the type of the
    response's body; None for no JSON. `stream`: the content type of a streamed answer, if the request can ask for one.
    `errors`: the statuses, besides 200, that a correct server may send."""

    method: str
    path: str
    handler: Handler
    summary: str
    body: type[msgspec.Struct] | None = None
    answer: Any = None
    stream: str = ""
    also: tuple[str, ...] = ()
    errors: tuple[int, ...] = (400, 401, 403)
    query: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


GENERATES = (400, 401, 403, 404, 408, 413, 415, 429, 500, 503)
"""The statuses of a path that asks the model."""


def v1(path: str) -> tuple[str, ...]:
    """The other spellings of a path below /v1."""
    bare = path.removeprefix("/v1")
    return (bare, f"{path}/", f"{bare}/")
