"""A web page of another origin asks the model, in a real browser, where the settings list its origin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from qwen_edge.auth.keys import Keys

_PAGE = """<!doctype html><link rel="icon" href="data:,"><title>Another site</title><script>
const headers = {"Content-Type": "application/json", "Authorization": "Bearer secret"};
const ask = (path, body) => fetch("ADDRESS" + path, {method: "POST", headers, body: JSON.stringify(body)});
const messages = [{role: "user", content: "hi"}];
(async () => {
  const found = {};
  try {
    const whole = await ask("/v1/chat/completions", {messages});
    found.whole = (await whole.json()).choices[0].message.content;
    const streamed = await ask("/v1/chat/completions", {messages, stream: true});
    const reader = streamed.body.pipeThrough(new TextDecoderStream()).getReader();
    found.events = "";
    for (let part; !(part = await reader.read()).done;) found.events += part.value;
    const refused = await ask("/v1/chat/completions", {messages, temperature: 99});
    found.refused = (await refused.json()).error.param;
    const models = await fetch("ADDRESS/v1/models", {headers});
    found.models = (await models.json()).data.length;
  } catch (error) { found.error = String(error); }
  await fetch("/", {method: "POST", body: JSON.stringify(found)});
})();
</script>"""


class Site:
    """Another web server, with one page, which posts what it has found to its own server."""

    def __init__(self) -> None:
        self.origin = self.page = ""
        self.found: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def show(self, _: web.Request) -> web.Response:
        return web.Response(text=self.page, content_type="text/html", charset="utf-8")

    async def hear(self, request: web.Request) -> web.Response:
        self.found.set_result(await request.json())
        return web.Response()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site, app = Site(), web.Application()
    app.router.add_get("/", site.show)
    app.router.add_post("/", site.hear)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    site.origin = f"http://elsewhere.localhost:{runner.addresses[0][1]}"
    yield site
    await runner.cleanup()


@pytest.mark.parametrize("keys", [True, False])
async def test_a_page_of_a_listed_origin_asks_reads_streams_and_sees_errors(serve, site, visit, keys):
    served = await serve(
        lambda prompt: "Hello, 世界",
        settings=f'  origins: ["{site.origin}"]',
        keys=Keys({"secret": "page"} if keys else {}),
    )
    site.page = _PAGE.replace("ADDRESS", served.address)
    visit.forgive("400 (Bad Request)")
    await visit(site.origin, hosts=(served.address.removeprefix("http://"),))
    found = await site.found
    assert found.get("error") is None, found
    assert found["whole"] == "Hello, 世界" and found["refused"] == "temperature" and found["models"] == 1
    assert found["events"].endswith("data: [DONE]\n\n")


async def test_a_page_of_an_origin_that_is_not_listed_reads_nothing(serve, site, visit):
    settings = '  origins: ["https://home.example"]'
    served = await serve(lambda prompt: "Hello", settings=settings, keys=Keys({"secret": "page"}))
    site.page = _PAGE.replace("ADDRESS", served.address)
    visit.forgive("blocked by CORS policy")
    visit.forgive("Failed to load resource")
    await visit(site.origin, hosts=(served.address.removeprefix("http://"),))
    found = await site.found
    assert "Failed to fetch" in found["error"] and "whole" not in found
