"""Which dialect's form an error gets: every path belongs to one dialect, a folder of `server/`.

The table of the dialects is in app.py. The middlewares and the connections use it for errors that no handler of a
dialect has turned into a response.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from aiohttp import web

from qwen_edge.core.errors import RequestError


class ErrorForm(Protocol):
    """Writes errors as the clients of one API expect them. The module `errors` of a dialect's folder is one. Pure."""

    @property
    def error_type(self) -> Any:
        """The type of an error's body, for /openapi.json."""

    def error_response(self, error: RequestError) -> web.Response:
        """The response for an error of a request that has no response yet. Its body is bytes or text."""

    def http_error_response(self, error: web.HTTPException, message: str) -> web.Response:
        """The response that replaces aiohttp's own, for an unknown path for example. It keeps the status, and headers
        such as Allow."""


class Dialects:
    """The error forms of all dialects, by path."""

    def __init__(self, default: ErrorForm, others: Mapping[str, ErrorForm]) -> None:
        """`others`: by the beginning of their paths, in whole segments ("/api", for /api and all below it). `default`:
        for all other paths, and for requests whose path cannot be read."""
        self.default = default
        self._others = sorted(others.items(), key=lambda other: -len(other[0]))

    def at(self, path: str) -> ErrorForm:
        """The error form of the path: that of the longest beginning."""
        return next((form for start, form in self._others if f"{path}/".startswith(f"{start}/")), self.default)


DIALECTS = web.AppKey("dialects", Dialects)
