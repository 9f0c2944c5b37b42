"""A body may be encoded, and is refused for what is wrong with it."""

import gzip
import json
import zlib

import pytest

MESSAGES = [{"role": "user", "content": "hi"}]
BODY = json.dumps({"messages": MESSAGES}).encode()
URL = "/v1/chat/completions"


def raw_deflate(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return deflate.compress(data) + deflate.flush()


async def send(served, data, encoding, path=URL):
    headers = {} if encoding is None else {"Content-Encoding": encoding}
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
    ],
)
async def test_a_body_that_is_encoded_is_read(serve, encoding, data):
    status, answer = await send(await serve(), data, encoding)
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "Hello!")


@pytest.mark.parametrize("path", [URL, "/v1/cache/abc/pin"])
@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "nonsense", "gzip, gzip", "x" * 5000, "utf-8"])
async def test_a_coding_that_is_unknown_is_415(serve, encoding, path):
    status, answer = await send(await serve(), gzip.compress(BODY), encoding, path)
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
        ("gzip", gzip.compress(BODY)[:-8] + bytes(8)),
        ("gzip", zlib.compress(BODY)),
        ("deflate", zlib.compress(BODY)[:-3]),
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
    status, answer = await send(served, bomb, "gzip" if encode is gzip.compress else "deflate")
    assert status == 413
    assert "server.max_body_bytes" in answer["error"]["message"]


async def test_a_body_of_just_the_size_that_is_allowed_is_read(serve):
    served = await serve(settings="  max_body_bytes: 2000\n")
    exactly = BODY + b" " * (2000 - len(BODY))
    assert (await send(served, gzip.compress(exactly), "gzip"))[0] == 200
    assert (await send(served, gzip.compress(exactly + b" "), "gzip"))[0] == 413
    assert (await send(served, exactly, None))[0] == 200
    assert (await send(served, exactly + b" ", None))[0] == 413
