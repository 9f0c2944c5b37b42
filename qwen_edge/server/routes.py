"""The paths of the API: each dialect lists its own as routes, app.py serves them, /openapi.json describes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import msgspec
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


ALWAYS = (400, 401, 403)
"""The statuses of every path that needs a key: the request is not valid HTTP, the key is wrong, the page is foreign."""

READS_BODY = (*ALWAYS, 408, 413, 415)
"""The statuses of a path that reads a body."""

GENERATES = (*READS_BODY, 404, 429, 500, 503)
"""The statuses of a path that asks the model."""

OPEN_PATHS = frozenset({"/health"})
"""The paths that need no key: supervisors and load balancers send none."""

PAGE_FILES = "/page/"
"""The beginning of the paths of the page's files, which need no key: a browser sends none before the page has asked."""


def is_open(path: str) -> bool:
    """Whether the path needs no key, whoever asks."""
    return path in OPEN_PATHS or path.startswith(PAGE_FILES)


@dataclass(frozen=True)
class Route:
    """One path and method. `path`: in aiohttp's form; `also`: other paths with the same meaning, for clients that leave
    /v1 out or end paths with a slash. `body`: the struct that checks the request's body; `answer`: the type of the
    response's body, of `content_type` or one of `other_types`; None for one that is not described. `answer_at`: the
    statuses with this body. `stream`: the content type of a streamed answer, if the request can ask for one; `event`:
    the type of the data of its events. `errors`: the other statuses that a correct server may send, with an error of
    the dialect."""

    method: str
    path: str
    handler: Handler
    summary: str
    body: type[msgspec.Struct] | None = None
    answer: Any = None
    answer_at: tuple[int, ...] = (200,)
    content_type: str = "application/json"
    other_types: tuple[str, ...] = ()
    stream: str = ""
    event: Any = None
    also: tuple[str, ...] = ()
    errors: tuple[int, ...] = ALWAYS
    query: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def v1(path: str) -> tuple[str, ...]:
    """The other spellings of a path below /v1."""
    bare = path.removeprefix("/v1")
    return (bare, f"{path}/", f"{bare}/")
