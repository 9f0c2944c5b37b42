"""OpenAI-compatible servers whose answers a test writes, on real ports."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

Answer = Callable[[dict[str, Any]], Any]


class Scripted:
    """A server. `answer` makes a text of a request's body, or a status and an error, or a list of the events to send;
    or a coroutine that returns one of these. `asked`: the bodies so far. `refused`: parameters that this server does
    not know. `finish`: the reason at the end of an answer."""

    def __init__(self, answer: Answer, model: str) -> None:
        self.answer, self.model = answer, model
        self.asked: list[dict[str, Any]] = []
        self.refused: set[str] = set()
        self.finish = "stop"
        self.url = ""
        self.came = asyncio.Condition()

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": self.model}]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if unknown := self.refused & set(body):
            return web.json_response({"error": {"message": f"unknown parameter {min(unknown)}"}}, status=400)
        self.asked.append(body)
        async with self.came:
            self.came.notify_all()
        found = self.answer(body)
        found = await found if inspect.isawaitable(found) else found
        if isinstance(found, tuple):
            return web.json_response({"error": {"message": found[1]}}, status=found[0])
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        whole = [
            {"choices": [{"delta": {"content": found}, "finish_reason": None}]},
            {"choices": [{"delta": {}, "finish_reason": self.finish}]},
            {"choices": [], "usage": {"completion_tokens": 7, "prompt_tokens": 9}},
        ]
        for event in whole if isinstance(found, str) else found:
            await response.write(f"data: {json.dumps(event)}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    async def has_been_asked(self, times: int) -> None:
        async with self.came:
            await self.came.wait_for(lambda: len(self.asked) >= times)


@asynccontextmanager
async def scripted(answer: Answer, model: str = "m", port: int = 0) -> AsyncIterator[Scripted]:
    """A server until the context is left."""
    server, app = Scripted(answer, model), web.Application()
    app.router.add_get("/v1/models", server.models)
    app.router.add_post("/v1/chat/completions", server.chat)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


def question_of(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])
