"""The paths of the page. Everything is relative, so that a proxy may serve the page below a path of its own.

The files contain no secret and need no key. What they request below /v1 needs one, if the server has keys.
"""

from __future__ import annotations

from aiohttp import web

from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable
from qwen_edge.server.page.files import INDEX, NAME, TYPES, PageFile, accepts, response_of
from qwen_edge.server.routes import PAGE_FILES, Handler, Route

PAGE = web.AppKey("page", dict[str, PageFile])
"""The files by name; none if the page is switched off."""


def asks_for_page(request: web.Request) -> bool:
    """Whether a browser asks for the page. Other clients ask at the same path whether Ollama is running."""
    reads = request.path == "/" and request.method in ("GET", "HEAD")
    return reads and INDEX in request.app[PAGE] and accepts(request.headers.getall("Accept", []), "text/html")


def page_or(other: Handler) -> Handler:
    """The handler of `/`: the page for browsers, and `other` for all other clients."""

    async def by_accept(request: web.Request) -> web.StreamResponse:
        if not asks_for_page(request):
            plain = await other(request)
            plain.headers["Vary"] = "Accept"  # a cache must not give it to browsers
            return plain
        response = response_of(request.app[PAGE][INDEX], request)
        response.headers["Vary"] = "Accept, Accept-Encoding"
        return response

    return by_accept


async def file(request: web.Request) -> web.Response:
    """One of the page's files."""
    name = request.match_info["name"]
    if found := request.app[PAGE].get(name):
        return response_of(found, request)
    message = f"The page has no file {printable(name)!r}."
    if not request.app[PAGE]:
        message = "The page is switched off: the setting server.page is false."
    raise RequestError(message, "not_found", code="not_found")


_CONTENT_TYPES = [content_type.partition(";")[0] for content_type in TYPES.values()]

ROUTES = (
    Route(
        "GET",
        f"{PAGE_FILES}{{name:{NAME}}}",
        file,
        "A file of the page.",
        content_type=_CONTENT_TYPES[0],
        other_types=tuple(_CONTENT_TYPES[1:]),
        errors=(304, 400, 403, 404),
    ),
)
