"""The page for raters: a small HTTP server of its own, with static files and three requests of JSON.

    GET  api/standing?rater=NAME          how far the rater is
    GET  api/item?rater=NAME&number=N     an answer to rate (from 0), and what the rater has said of it so far
    POST api/rating                       a rating; answered as api/standing, with the next answer after this one

Nothing that is sent tells which model has answered. Whoever reaches the port may rate under any name, so the server
listens on this machine unless told otherwise. A page of another site cannot use it: requests must name this machine by
an address or by its own name, and ratings must be JSON of the page's own origin.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
import psutil
from aiohttp import web

from qwen_edge.core.errors import NotNowError, UserError
from qwen_edge.core.page_headers import SAFE_PAGE
from qwen_edge.rate.answers import Answers
from qwen_edge.rate.blind import Session
from qwen_edge.rate.ratings import CRITERIA, LONGEST_NAME, LONGEST_REMARK, Rater, Scores, checked_name

_FILES = {
    "": "text/html",
    "icon.svg": "image/svg+xml",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "words.js": "text/javascript",
}
_HEADERS = {**SAFE_PAGE, "Cache-Control": "no-store"}
_MOST_BODY = 64 * 1024  # bytes
_MOST_SESSIONS = 100  # in memory; with many questions, one takes a moment to make


class RatingBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST api/rating. `answer`: the item's code. `scores`: null skips the answer."""

    rater: Annotated[str, msgspec.Meta(max_length=4 * LONGEST_NAME)]
    answer: Annotated[str, msgspec.Meta(max_length=100)]
    scores: Scores | None
    remark: Annotated[str, msgspec.Meta(max_length=LONGEST_REMARK)] = ""


@asynccontextmanager
async def serving(answers: Answers, host: str, port: int) -> AsyncIterator[list[str]]:
    """Serve the page until the context is left; yields the URLs under which it answers. Port 0 takes a free one.
    Raises NotNowError."""
    runner = web.AppRunner(make_app(answers), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            words = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise NotNowError(f"Cannot listen on {host}:{port}: {words}. Choose another --host or --port.") from None
        taken = runner.addresses[0][1]
        yield [f"http://[{one}]:{taken}/" if ":" in one else f"http://{one}:{taken}/" for one in _addresses(host)]
    finally:
        await runner.cleanup()


def make_app(answers: Answers) -> web.Application:
    """The application that lets people rate these answers."""
    app = web.Application(middlewares=[_answer_errors], client_max_size=_MOST_BODY)
    page = _Page(answers)
    app.router.add_get("/{file:[a-z.]*}", page.file)
    app.router.add_get("/api/standing", page.standing)
    app.router.add_get("/api/item", page.item)
    app.router.add_post("/api/rating", page.rating)
    return app


def _addresses(host: str) -> list[str]:
    """The host itself; if it stands for all addresses of this machine, those in IPv4."""
    if host not in ("0.0.0.0", "::", ""):  # noqa: S104 - only compared
        return [host]
    found = [one.address for card in psutil.net_if_addrs().values() for one in card if one.family == socket.AF_INET]
    return sorted(found, key=lambda address: address.startswith("127."))


class _Page:
    """The handlers. A session reads the rater's file anew each time, because the rater may have another session."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._sessions = dict[str, Session]()
        folder = resources.files("qwen_edge.rate").joinpath("page")
        self._files = {name: folder.joinpath(name or "index.html").read_bytes() for name in _FILES}

    async def file(self, request: web.Request) -> web.Response:
        name = request.match_info["file"]
        if name not in self._files:
            raise web.HTTPNotFound
        return web.Response(body=self._files[name], content_type=_FILES[name], charset="utf-8")

    async def standing(self, request: web.Request) -> web.Response:
        session = self._session(request.query.get("rater", ""))
        return _json(await asyncio.to_thread(session.standing))

    async def item(self, request: web.Request) -> web.Response:
        session = self._session(request.query.get("rater", ""))
        text = request.query.get("number", "")
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
        if not 0 <= number < len(session.items):
            raise UserError(f"number must be from 0 to {len(session.items) - 1}.")
        item = session.items[number]
        rating = await asyncio.to_thread(session.rating, item)
        shown = {
            "number": number,
            "of": len(session.items),
            "question": item.question.question,
            "language": item.question.language,
            "reference": item.question.reference,
            "answer": item.code,
            "text": item.text,
            "cut": item.cut,
            "place": item.place,
            "places": item.places,
            "scores": rating.scores if rating else None,
            "remark": rating.remark if rating else "",
            "skipped": rating is not None and rating.scores is None,
        }
        return _json(shown)

    async def rating(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="A rating is sent as application/json.")
        try:
            body = msgspec.json.decode(await request.read(), type=RatingBody)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise UserError(f"This is no rating: {error}.") from None
        session = self._session(body.rater)
        return _json(await asyncio.to_thread(session.rate, body.answer, body.scores, body.remark))

    def _session(self, name: str) -> Session:
        name = checked_name(name)
        if name not in self._sessions:
            if len(self._sessions) >= _MOST_SESSIONS:
                self._sessions.clear()  # they are made again when they are needed
            self._sessions[name] = Session(self._answers, Rater(self._answers.path, name))
        return self._sessions[name]


@web.middleware
async def _answer_errors(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        if not _is_ours(request.host) or _is_foreign(request):
            raise web.HTTPForbidden(text="Open this page under the address of this machine.")
        response: web.StreamResponse = await handler(request)
    except UserError as error:
        response = web.json_response({"error": str(error)}, status=400)
    except web.HTTPException as error:
        response = web.json_response({"error": error.text or error.reason}, status=error.status)
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
    response.headers.update(_HEADERS)
    return response


def _is_ours(authority: str) -> bool:
    """Whether a Host header names an address, or this machine: a page of another site that lets its own domain point
    to this machine (DNS rebinding) names its domain."""
    try:
        host = (urlsplit(f"//{authority}").hostname or "").rstrip(".")
    except ValueError:
        return False
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    own = socket.gethostname().lower()
    return host == "localhost" or host.endswith(".localhost") or host in (own, f"{own.partition('.')[0]}.local")


def _is_foreign(request: web.Request) -> bool:
    """Whether a page of another origin sends the request."""
    origin = request.headers.get("Origin")
    try:
        return origin is not None and urlsplit(origin).netloc != request.host
    except ValueError:  # no origin of a browser
        return True


def _json(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


assert set(Scores.__struct_fields__) == set(CRITERIA)
