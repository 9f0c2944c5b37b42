"""Which dialect's form an error gets: every path belongs to one dialect, a folder of `server/`.

The table of the dialects is in app.py. The middlewares and the connections use it for errors that no handler of a
dialect has turned into a response.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, Protocol

from aiohttp import web

from qwen_edge.core.errors import RequestError


class ErrorForm(Protocol):
    """Writes errors as the clients of one API expect them. The module `errors` of a dialect's folder is one. Pure."""

    @property
    def error_type(self) -> Any:
        """The type of an error's body, for /openapi.json."""

    @property
    def what_there_is(self) -> str:
        """A sentence for a client that asks for a path that does not exist: where questions go."""

    def error_response(self, error: RequestError) -> web.Response:
        """The response for an error of a request that has no response yet. Its body is bytes or text."""

    def http_error_response(self, error: web.HTTPException, message: str) -> web.Response:
        """The response that replaces aiohttp's own, for an unknown path for example. It keeps the status, and headers
        such as Allow."""


class Dialects:
    """The error forms of all dialects, by path."""

    def __init__(
        self, default: ErrorForm, others: Mapping[str, ErrorForm], headers: Mapping[str, ErrorForm] | None = None
    ) -> None:
        """`others`: by the beginning of their paths, in whole segments ("/api", for /api and all below it). `headers`:
        on all other paths, by the name of a header that only the clients of that API send. `default`: for all other
        requests, and for those whose path cannot be read."""
        self.default = default
        self._headers = dict(headers or {})
        self._others = sorted(others.items(), key=lambda other: -len(other[0]))

    def at(self, path: str, headers: Container[str] = ()) -> ErrorForm:
        """The error form of the path: that of the longest beginning. If there is none, the headers tell."""
        by_header = next((form for name, form in self._headers.items() if name in headers), self.default)
        return next((form for start, form in self._others if f"{path}/".startswith(f"{start}/")), by_header)


DIALECTS = web.AppKey("dialects", Dialects)
