"""A body may be encoded, and is refused for what is wrong with it."""

import codecs
import gzip
import json
import random
import zlib

import pytest

MESSAGES = [{"role": "user", "content": "hi"}]
BODY = json.dumps({"messages": MESSAGES}).encode()
URL = "/v1/chat/completions"


def raw_deflate(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return deflate.compress(data) + deflate.flush()


async def send(served, data, encoding, path=URL):
    """`encoding`: None, a header's value, or those of several headers."""
    lines = [encoding] if isinstance(encoding, str) else encoding or ()
    headers = [("Content-Encoding", line) for line in lines]
    async with served.http.post(f"{served.address}{path}", data=data, headers=headers) as response:
        return response.status, await response.json()


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        (None, BODY),
        ("identity", BODY),
        ("gzip", gzip.compress(BODY)),
        ("GZIP", gzip.compress(BODY)),
        ("x-gzip", gzip.compress(BODY)),
        ("deflate", zlib.compress(BODY)),
        ("deflate", raw_deflate(BODY)),
        ("", BODY),
        (", identity,", BODY),
        ("identity, gzip", gzip.compress(BODY)),
        (["identity", "gzip"], gzip.compress(BODY)),
        (["gzip", "identity"], gzip.compress(BODY)),
        (["identity", "identity"], BODY),
        ("gzip", gzip.compress(BODY[:10]) + gzip.compress(BODY[10:])),
        ("gzip", b"".join(gzip.compress(BODY[at : at + 1]) for at in range(len(BODY)))),
        ("gzip", gzip.compress(b"") + gzip.compress(BODY) + gzip.compress(b"")),
    ],
    ids=str,
)
async def test_a_body_that_is_encoded_is_read(serve, encoding, data):
    status, answer = await send(await serve(), data, encoding)
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "Hello!")


@pytest.mark.parametrize("path", [URL, "/v1/cache/abc/pin"])
@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "nonsense", "gzip, gzip", "x" * 5000, "utf-8"])
@pytest.mark.parametrize("lines", [1, 2])
async def test_a_coding_that_is_unknown_is_415_wherever_it_stands(serve, encoding, path, lines):
    headers = encoding if lines == 1 else ["gzip", encoding]
    status, answer = await send(await serve(), gzip.compress(BODY), headers, path)
    assert (status, answer["error"]["code"]) == (415, "unsupported_content_encoding")
    assert "gzip or deflate" in answer["error"]["message"]
    assert len(answer["error"]["message"]) < 300


@pytest.mark.parametrize("path", [URL, "/v1/cache/abc/pin"])
@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip", BODY),
        ("gzip", b""),
        ("gzip", gzip.compress(BODY)[:-9]),
        ("gzip", gzip.compress(BODY) + b"more"),
        ("gzip", gzip.compress(BODY) + b"\x1f"),
        ("gzip", gzip.compress(BODY) + gzip.compress(BODY)[:-9]),
        ("gzip", gzip.compress(BODY) + gzip.compress(b"") * 1000),
        ("gzip", gzip.compress(BODY)[:-8] + bytes(8)),
        ("gzip", zlib.compress(BODY)),
        ("deflate", zlib.compress(BODY)[:-3]),
        ("deflate", zlib.compress(BODY) + zlib.compress(b"")),
        ("deflate", BODY),
        ("deflate", gzip.compress(BODY)),
    ],
)
async def test_a_body_that_is_not_what_its_coding_says_is_400(serve, encoding, data, path):
    status, answer = await send(await serve(), data, encoding, path)
    assert (status, answer["error"]["code"]) == (400, "invalid_content_encoding")
    assert encoding in answer["error"]["message"]


@pytest.mark.parametrize("encode", [gzip.compress, zlib.compress, raw_deflate])
async def test_a_small_body_that_is_a_very_large_one_is_413(serve, encode):
    served = await serve(settings="  max_body_bytes: 20000\n")
    bomb = encode(bytes(10_000_000))
    assert len(bomb) < 20_000
    encoding = "gzip" if encode is gzip.compress else "deflate"
    status, answer = await send(served, bomb, encoding)
    assert status == 413
    assert "server.max_body_bytes" in answer["error"]["message"]


async def test_a_body_of_just_the_size_that_is_allowed_is_read(serve):
    served = await serve(settings="  max_body_bytes: 2000\n")
    exactly = BODY + b" " * (2000 - len(BODY))
    assert (await send(served, gzip.compress(exactly), "gzip"))[0] == 200
    assert (await send(served, gzip.compress(exactly + b" "), "gzip"))[0] == 413
    assert (await send(served, gzip.compress(exactly) + gzip.compress(b" "), "gzip"))[0] == 413
    assert (await send(served, exactly, None))[0] == 200
    assert (await send(served, exactly + b" ", None))[0] == 413


@pytest.mark.parametrize("size", [(1 << 16) - 1, 1 << 16, (1 << 16) + 1, 1 << 18])
async def test_an_encoded_body_of_any_length_is_read(serve, size):
    """What zlib is given at once is shorter."""
    served, text = await serve(), random.Random(size).randbytes(size // 2).hex()
    body = json.dumps({"messages": MESSAGES, "metadata": {"text": text}}).encode()
    for data, encoding in ((gzip.compress(body, 0), "gzip"), (zlib.compress(body, 0), "deflate")):
        assert len(data) > size
        assert (await send(served, data, encoding))[0] == 200
        assert (await send(served, data[:-1], encoding))[0] == 400
    two = gzip.compress(body[:size], 0) + gzip.compress(body[size:], 0)
    assert (await send(served, two, "gzip"))[0] == 200


@pytest.mark.parametrize("encode", [bytes, gzip.compress])
async def test_a_byte_order_mark_before_the_body_is_passed_over(serve, encode):
    served, encoding = await serve(), None if encode is bytes else "gzip"
    status, answer = await send(served, encode(codecs.BOM_UTF8 + BODY), encoding)
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "Hello!")
    pin = encode(codecs.BOM_UTF8 + b'{"hours": 1}')
    assert (await send(served, pin, encoding, "/v1/cache/abc/pin"))[1]["error"]["code"] == "not_found"
    for broken in (codecs.BOM_UTF8 * 2 + BODY, BODY + codecs.BOM_UTF8, codecs.BOM_UTF8):
        status, answer = await send(served, encode(broken), encoding)
        assert (status, "not valid JSON" in answer["error"]["message"]) == (400, True)


@pytest.mark.parametrize("path", [URL, "/v1/cache/abc/pin"])
@pytest.mark.parametrize(
    "data", [b"{", b'"\xff"', b'{"hours": "\xff"}', b"[" * 100_000, b"1e", b"\x00", b"[1]", b'"x"']
)
async def test_a_body_that_is_no_json_object_is_400_on_every_path(serve, data, path):
    status, answer = await send(await serve(), data, None, path)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    assert "body" in answer["error"]["message"]


DEEP = [
    ("/v1/chat/completions", '{"messages": %s}'),
    ("/v1/chat/completions", '{"messages": [{"role": "user", "content": "hi"}], "stop_token_ids": %s}'),
    ("/v1/completions", '{"prompt": "a", "stop_token_ids": %s}'),
    ("/completion", '{"prompt": %s}'),
    ("/completions", '{"prompt": "a", "structured_outputs": {"choice": %s}}'),
    ("/tokenize", '{"content": %s}'),
    ("/detokenize", '{"tokens": %s}'),
    ("/apply-template", '{"messages": [], "stop_token_ids": %s}'),
    ("/v1/embeddings", '{"input": %s}'),
    ("/v1/responses", '{"input": "a", "metadata": {"a": %s}}'),
    ("/v1/messages", '{"model": "a", "max_tokens": 5, "messages": [], "tools": %s}'),
    ("/api/chat", '{"model": "a", "messages": %s}'),
    ("/api/embed", '{"model": "a", "input": %s}'),
    ("/v1/cache/abc/pin", '{"hours": %s}'),
]


@pytest.mark.parametrize("nested", ["[%s]", '{"a": %s}'])
@pytest.mark.parametrize(("path", "body"), DEEP)
async def test_a_body_nested_too_deeply_is_400_on_every_path(serve, path, body, nested):
    served = await serve()
    start, end = nested.split("%s")
    for depth in (250, 400, 900, 5000):
        data = body % (start * depth + "1" + end * depth)
        async with served.http.post(served.address + path, data=data) as response:
            assert response.status == 400, depth
            assert "inside each other" in await response.text()
