"""The page as browsers get it: by a real port, with and without keys, and behind a proxy that removes a path."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from qwen_edge.auth.keys import Keys
from tests.server.test_origin import raw

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
KEYS = Keys({"secret": "one"})
OFF = "  page: false\n"
ASKS = {"messages": [{"role": "user", "content": "hi"}]}


def get(served, path="/", **headers: str):
    return served.http.get(f"{served.address}{path}", headers=headers)


@pytest.mark.parametrize("keys", [None, KEYS])
async def test_a_browser_gets_the_page_without_a_key(serve, keys):
    served = await serve(keys=keys)
    async with get(served, **BROWSER) as response:
        assert (response.status, response.content_type, response.charset) == (200, "text/html", "utf-8")
        assert "<!doctype html>" in await response.text()
        assert response.headers["Content-Security-Policy"] == (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Vary"] == "Accept, Accept-Encoding"
        assert response.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    "accept", ["*/*", "application/json", "text/plain", "text/*", "text/html;q=0", "text/html; q=0.00, */*", ""]
)
async def test_other_clients_are_told_that_ollama_is_running(serve, accept):
    served = await serve()
    async with get(served, Accept=accept) as response:
        assert (response.status, response.content_type) == (200, "text/plain")
        assert await response.text() == "Ollama is running"
        assert response.headers["Vary"] == "Accept"  # else a cache gives it to browsers


async def test_a_client_that_sends_no_accept_header_is_told_that_ollama_is_running(serve):
    served = await serve()
    assert b"text/plain" in await raw(served, b"GET / HTTP/1.1\nHost: localhost\nConnection: close\n\n")


async def test_other_clients_need_a_key_at_the_same_path_as_before(serve):
    served = await serve(keys=KEYS)
    async with get(served) as response:
        assert response.status == 401
    async with get(served, Authorization="Bearer secret") as response:
        assert await response.text() == "Ollama is running"


@pytest.mark.parametrize("keys", [None, KEYS])
async def test_switched_off_there_is_no_page_and_none_of_its_files(serve, keys):
    served = await serve(settings=OFF, keys=keys)
    async with get(served, **BROWSER) as response:
        assert response.status == (401 if keys else 200)
        assert "html" not in response.content_type
    async with get(served, "/page/index.html", **BROWSER) as response:
        assert response.status == 404
        assert "server.page" in (await response.json())["error"]["message"]


@pytest.mark.parametrize(
    "name",
    [
        "nothing.js",
        "..%2f..%2f..%2f__init__.py",
        "%2e%2e/routes.py",
        "..%5croutes.py",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "index.html/",
        "INDEX.HTML",
        "index.html%00.js",
        "x" * 3000,
        "%ff%fe",
    ],
)
async def test_a_name_that_is_none_of_the_files_leads_nowhere(serve, name):
    served = await serve()
    answer = await raw(served, f"GET /page/{name} HTTP/1.1\nHost: localhost\n\n".encode())
    assert answer.split()[1] == b"404"


@pytest.mark.parametrize("path", ["/page/../page/index.html", "/page/../v1/models", "/page//../v1/models"])
async def test_no_path_that_begins_like_a_file_of_the_page_leads_to_the_api_without_a_key(serve, path):
    served = await serve(keys=KEYS)
    answer = await raw(served, f"GET {path} HTTP/1.1\nHost: localhost\n\n".encode())
    assert answer.split()[1] in (b"401", b"404")


async def test_files_come_compressed_to_who_accepts_it_and_whole_to_others(serve):
    served = await serve()
    url = f"{served.address}/page/index.html"
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        async with http.get(url, headers={"Accept-Encoding": "br, gzip;q=0.5"}) as response:
            assert (response.headers["Content-Encoding"], response.content_type) == ("gzip", "text/html")
            short = await response.read()
        for refused in ("identity", "gzip;q=0", "gzip; q=0.000", "deflate", "xgzip"):
            async with http.get(url, headers={"Accept-Encoding": refused}) as response:
                assert "Content-Encoding" not in response.headers
                whole = await response.read()
    assert gzip.decompress(short) == whole
    assert len(short) < len(whole)


@pytest.mark.parametrize("path", ["/", "/page/index.html"])
@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_a_browser_that_has_a_file_is_not_sent_it_again(serve, path, encoding):
    served = await serve()
    headers = {**BROWSER, "Accept-Encoding": encoding}
    async with get(served, path, **headers) as response:
        tag = response.headers["ETag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        async with get(served, path, **headers, **{"If-None-Match": known}) as response:
            assert (response.status, await response.read()) == (304, b"")
            assert response.headers["ETag"] == tag
            assert "Accept-Encoding" in response.headers["Vary"]
    for unknown in ('"other"', tag.strip('"'), "nonsense, W/x"):
        async with get(served, path, **headers, **{"If-None-Match": unknown}) as response:
            assert response.status == 200


async def test_the_tags_of_both_encodings_differ(serve):
    served = await serve()
    tags = set()
    for encoding in ("gzip", "identity"):
        async with get(served, **BROWSER, **{"Accept-Encoding": encoding}) as response:
            tags.add(response.headers["ETag"])
    assert len(tags) == 2


@pytest.mark.parametrize("path", ["/", "/page/index.html"])
async def test_head_tells_of_a_file_what_get_tells(serve, path):
    served = await serve(keys=KEYS)
    async with get(served, path, **BROWSER) as response:
        told = {name: value for name, value in response.headers.items() if name != "Date"}
    async with served.http.head(f"{served.address}{path}", headers=BROWSER) as response:
        assert {name: value for name, value in response.headers.items() if name != "Date"} == told
        assert await response.read() == b""


async def test_nothing_can_be_written_to_the_page(serve):
    served = await serve()
    async with served.http.post(f"{served.address}/page/index.html") as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET,HEAD")


async def test_the_page_may_ask_the_server_that_it_comes_from(serve):
    served = await serve()
    async with served.post(ASKS, headers={"Origin": served.address}) as response:
        assert response.status == 200


async def test_a_foreign_name_for_this_machine_gets_no_page_without_keys(serve):
    served = await serve()
    async with get(served, **BROWSER, Host="evil.example") as response:
        assert response.status == 403


async def test_listed_origins_are_told_to_caches_beside_what_the_page_varies_by(serve):
    served = await serve(settings="  origins: ['https://home.example']\n")
    async with get(served, **BROWSER, Origin="https://home.example") as response:
        assert response.headers["Vary"] == "Accept, Accept-Encoding, Origin"


@asynccontextmanager
async def proxy_below(prefix: str, target: str, **sent: str) -> AsyncIterator[str]:
    """A reverse proxy that removes the prefix and passes headers on, as nginx and Caddy do; `sent` replaces some."""

    async def pass_on(request: web.Request) -> web.Response:
        headers = {**{name: value for name, value in request.headers.items() if name != "Accept-Encoding"}, **sent}
        url = target + str(request.rel_url).removeprefix(prefix)
        async with http.request(request.method, url, headers=headers, data=await request.read()) as answer:
            kept = {name: answer.headers[name] for name in ("Content-Type", "ETag") if name in answer.headers}
            return web.Response(status=answer.status, headers=kept, body=await answer.read())

    app = web.Application()
    app.router.add_route("*", prefix + "/{rest:.*}", pass_on)
    runner = web.AppRunner(app)
    await runner.setup()
    async with aiohttp.ClientSession() as http:
        server = await asyncio.get_running_loop().create_server(runner.server, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{prefix}"
        finally:
            server.close()
            await runner.cleanup()


async def test_behind_a_proxy_that_removes_a_path_the_page_loads_and_asks_with_a_key(serve):
    served = await serve(keys=KEYS)
    page = {"Host": "home.example", "Origin": "https://home.example"}
    async with proxy_below("/qwen", served.address) as address:
        async with served.http.get(f"{address}/", headers={**BROWSER, "Host": "home.example"}) as response:
            assert (response.status, response.content_type) == (200, "text/html")
            assert 'href="/' not in (text := await response.text())
            assert 'src="/' not in text
        async with served.http.get(f"{address}/page/index.html", headers={"Host": "home.example"}) as response:
            assert response.status == 200
        url = f"{address}/v1/chat/completions"
        async with served.http.post(url, json=ASKS, headers=page) as response:
            assert response.status == 401
        async with served.http.post(url, json=ASKS, headers={**page, "Authorization": "Bearer secret"}) as response:
            assert response.status == 200


async def test_without_keys_a_proxy_that_says_localhost_and_no_origin_lets_the_page_ask(serve):
    served = await serve()
    page = {"Host": "home.example", "Origin": "https://home.example"}
    async with (
        proxy_below("/qwen", served.address, Host="localhost", Origin="http://localhost") as address,
        served.http.post(f"{address}/v1/chat/completions", json=ASKS, headers=page) as response,
    ):
        assert response.status == 200
