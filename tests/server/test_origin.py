"""Where requests may come from: which host they name, which web page sends them, and what pages may read."""

import asyncio
import contextlib

import pytest

from qwen_edge.auth.keys import Keys

MESSAGES = [{"role": "user", "content": "hi"}]
HOME = "https://home.example"
LISTED = f"  origins: ['{HOME}', 'http://192.168.1.5:8123']\n"


async def asked(served, headers):
    """Status and error code of a question with these headers."""
    async with served.post({"messages": MESSAGES}, headers=headers) as response:
        answer = await response.json()
        return response.status, answer.get("error", {}).get("code")


async def raw(served, request: bytes) -> bytes:
    """The whole answer to bytes that no HTTP client would send."""
    host, port = served.address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request.replace(b"\n", b"\r\n"))
    answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return answer


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8080",
        "127.9.9.9:1",
        "localhost",
        "LOCALHOST:80",
        "localhost.",
        "kitchen.localhost:8080",
        "[::1]",
        "[::1]:8080",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]:8080",
    ],
)
async def test_names_of_this_machine_are_answered_without_a_key(serve, host):
    served = await serve()
    assert await asked(served, {"Host": host}) == (200, None)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evillocalhost",
        "192.168.1.5:8080",
        "[2001:db8::1]:8080",
        "[::ffff:192.168.1.5]",
        "0.0.0.0:8080",
        "::1",
        "[::1",
        "[::1]x",
        "localhost:80:80",
        "user@localhost",
        "localhost/x",
        "localhost, evil.example",
        "local host",
        "",
        ":8080",
        "[]",
        "x" * 5000,
        "127.0.0.1:port",
    ],
)
async def test_a_name_that_is_not_this_machines_is_refused_without_a_key(serve, host):
    served = await serve()
    assert await asked(served, {"Host": host}) == (403, "foreign_host")
    async with served.http.get(f"{served.address}/v1/cache", headers={"Host": host}) as response:
        assert response.status == 403
        assert len((await response.json())["error"]["message"]) < 600


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /v1/cache HTTP/1.0\n\n", b"403"),
        (b"GET /v1/cache HTTP/1.1\n\n", b"400"),
        (b"GET /v1/cache HTTP/1.1\nHost: localhost\nHost: evil.example\n\n", b"400"),
        (b"GET http://evil.example/v1/cache HTTP/1.1\nHost: localhost\n\n", b"403"),
        (b"GET http://localhost/v1/cache HTTP/1.1\nHost: evil.example\n\n", b"403"),
        (b"GET /v1/cache HTTP/1.1\nHost: \xff\xfe\n\n", b"403"),
        (b"GET /v1/cache HTTP/1.1\nHost: localhost\nOrigin: http://\xff\xfe\n\n", b"403"),
        (b"GET /v1/cache HTTP/1.1\nHost: localhost\nOrigin: http://localhost\nOrigin: http://evil.example\n\n", b"403"),
    ],
)
async def test_requests_that_no_client_sends_are_refused_and_are_no_bug_of_ours(serve, request_, status):
    answer = await raw(await serve(), request_)
    assert answer.split()[1] == status


async def test_with_keys_the_name_does_not_matter(serve):
    served = await serve(keys=Keys({"secret": "one"}))
    assert await asked(served, {"Host": "edge.example", "Authorization": "Bearer secret"}) == (200, None)


async def test_health_is_answered_by_whatever_name(serve):
    served = await serve()
    async with served.http.get(f"{served.address}/health", headers={"Host": "balancer.example"}) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:5173", "http://a.localhost"]
)
async def test_pages_of_this_machine_may_ask_without_a_key(serve, origin):
    assert await asked(await serve(), {"Origin": origin}) == (200, None)


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "nonsense",
        "http://",
        "http://[::1",
        "http://::1:80",
        "http://localhost:99:99",
        "http://localhost@evil.example",
        "http://[evil]",
        "http://127.0.0.1.evil.example",
        "localhost",
        "//localhost",
        "http://localhost/path",
        "http://[::1%25eth0]",
        "http://" + "x" * 6000,
        "http://[" * 100,
        "file://",
    ],
)
async def test_pages_of_elsewhere_and_origins_that_are_none_are_refused_without_a_key(serve, origin):
    served = await serve()
    async with served.post({"messages": MESSAGES}, headers={"Origin": origin}) as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"]) == (403, "foreign_origin")
        assert origin[:50] in error["message"]
        assert "server.origins" in error["message"]
        assert len(error["message"]) < 400


async def test_a_listed_page_is_let_in_without_a_key_and_reads_answers_and_errors(serve):
    served = await serve(settings=LISTED)
    for headers in ({"Origin": HOME}, {"Origin": "http://192.168.1.5:8123"}):
        async with served.post({"messages": MESSAGES}, headers=headers) as response:
            assert response.status == 200
            assert response.headers["Access-Control-Allow-Origin"] == headers["Origin"]
            assert response.headers["Vary"] == "Origin"
        async with served.post({"messages": MESSAGES, "stream": True}, headers=headers) as response:
            assert response.headers["Access-Control-Allow-Origin"] == headers["Origin"]
            assert b"[DONE]" in await response.read()
        async with served.post({}, headers=headers) as response:
            assert response.status == 400
            assert response.headers["Access-Control-Allow-Origin"] == headers["Origin"]
            exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
            assert {"Retry-After", "X-Unenforced", "request-id"} <= set(exposed)
    assert await asked(served, {"Origin": "https://evil.example"}) == (403, "foreign_origin")


async def test_a_browser_may_ask_before_a_listed_page_sends_its_key(serve):
    served = await serve(settings=LISTED, keys=Keys({"secret": "one"}))
    question = {
        "Origin": HOME,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, x-stainless-os",
        "Access-Control-Request-Private-Network": "true",
    }
    for path in ("/v1/chat/completions", "/v1/cache/abc/pin", "/v1/models"):
        async with served.http.options(f"{served.address}{path}", headers=question) as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Origin"] == HOME
            assert response.headers["Access-Control-Allow-Headers"] == question["Access-Control-Request-Headers"]
            assert response.headers["Access-Control-Allow-Private-Network"] == "true"
            assert {"GET", "POST", "DELETE"} <= set(response.headers["Access-Control-Allow-Methods"].split(", "))
            assert int(response.headers["Access-Control-Max-Age"]) > 0
            assert "Origin" in response.headers["Vary"]
    async with served.post({"messages": MESSAGES}, headers={"Origin": HOME}) as response:
        assert response.status == 401  # and the page can read why
        assert response.headers["Access-Control-Allow-Origin"] == HOME
    assert await asked(served, {"Origin": HOME, "Authorization": "Bearer secret"}) == (200, None)


@pytest.mark.parametrize("keys", [None, Keys({"secret": "one"})])
async def test_a_page_that_is_not_listed_hears_no(serve, keys):
    served = await serve(settings=LISTED, keys=keys)
    question = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    async with served.http.options(f"{served.address}/v1/chat/completions", headers=question) as response:
        assert response.status == 403
        assert "Access-Control-Allow-Origin" not in response.headers
        assert response.headers["Vary"] == "Origin"


async def test_a_program_with_a_key_may_send_any_origin_but_no_page_reads_the_answer(serve):
    served = await serve(keys=Keys({"secret": "one"}))
    headers = {"Origin": "https://desktop.example", "Authorization": "Bearer secret"}
    async with served.post({"messages": MESSAGES}, headers=headers) as response:
        assert response.status == 200
        assert not [name for name in response.headers if name.startswith("Access-Control")]


async def test_all_pages_may_be_let_in_and_a_broken_origin_is_still_no_bug_of_ours(serve):
    served = await serve(settings="  origins: ['*']\n")
    async with served.post({"messages": MESSAGES}, headers={"Origin": "https://any.example"}) as response:
        assert response.status == 200
        assert response.headers["Access-Control-Allow-Origin"] == "https://any.example"
    answer = await raw(served, b"GET /v1/models HTTP/1.1\nHost: localhost\nOrigin: \xff\n\n")
    assert answer.split()[1] == b"403"
    question = (
        b"OPTIONS /v1/models HTTP/1.1\nHost: localhost\nOrigin: http://a\nAccess-Control-Request-Headers: \xff\n\n"
    )
    answer = await raw(served, question)
    assert answer.split()[1] == b"204"


async def test_an_options_request_that_no_browser_sends_is_told_what_may_be_sent(serve):
    served = await serve()
    async with served.http.options(f"{served.address}/v1/chat/completions") as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")
