"""A reverse proxy as people put one before the daemon: below a path, with TLS. It can also say what no model says."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"}


class Front:
    """Passes what is asked below `prefix` to the daemon at `behind`, except the paths of `instead`, which it answers
    by itself. `path` has the prefix stripped."""

    def __init__(self, behind: str, prefix: str) -> None:
        self.behind, self.prefix = behind, prefix
        self.instead: dict[str, Answer] = {}
        self.heard: list[tuple[str, Any]] = []  # path and body of each POST
        self.address = ""
        self.http = aiohttp.ClientSession(auto_decompress=False)

    async def pass_on(self, request: web.Request) -> web.StreamResponse:
        if not request.path.startswith(f"{self.prefix}/"):
            return web.Response(status=404, text="nothing is served outside the prefix")
        path = request.path.removeprefix(self.prefix)
        body = await request.read()
        if request.method == "POST":
            self.heard.append((path, json.loads(body or b"null")))
        if answer := self.instead.get(path):
            return await answer(request)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        url = self.behind + str(request.rel_url).removeprefix(self.prefix)
        async with self.http.request(request.method, url, data=body, headers=headers) as found:
            passed = [(name, value) for name, value in found.headers.items() if name.lower() not in _HOP]
            response = web.StreamResponse(status=found.status, headers=dict(passed))
            await response.prepare(request)
            async for piece in found.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response


@asynccontextmanager
async def front(behind: str, prefix: str = "", tls: ssl.SSLContext | None = None) -> AsyncIterator[Front]:
    """A proxy on a port of its own; `address` ends with the prefix and a slash."""
    proxy, app = Front(behind, prefix), web.Application(client_max_size=1 << 22)
    app.router.add_route("*", "/{path:.*}", proxy.pass_on)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    scheme = "https" if tls else "http"
    proxy.address = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}{prefix}/"
    try:
        yield proxy
    finally:
        await runner.cleanup()
        await proxy.http.close()


def self_signed(folder: Path) -> ssl.SSLContext:
    """A certificate for 127.0.0.1 that nobody trusts."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    made = ["-newkey", "rsa:2048", "-nodes", "-keyout", key, "-x509", "-days", "2", "-subj", "/CN=127.0.0.1"]
    subprocess.run(["openssl", "req", *made, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


Piece = str | dict[str, Any]


def streamed(pieces: Callable[[], AsyncIterator[Piece]] | Iterable[Piece], *, ends: str | None = "stop") -> Answer:
    """A streamed chat completion of these pieces: texts of the answer, or whole deltas. `ends` None: it breaks off."""

    async def given() -> AsyncIterator[Piece]:
        if callable(pieces):
            async for piece in pieces():
                yield piece
            return
        for piece in pieces:
            yield piece
            await asyncio.sleep(0)

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)

        async def send(delta: dict[str, Any], finish: str | None = None) -> None:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "fake"}
            await response.write(b"data: " + json.dumps({**chunk, "choices": [choice]}).encode() + b"\n\n")

        await send({"role": "assistant", "content": ""})
        async for piece in given():
            await send({"content": piece} if isinstance(piece, str) else piece)
        if ends is None:
            request.transport.abort()
            return response
        await send({}, ends)
        await response.write(b"data: [DONE]\n\n")
        return response

    return answer
