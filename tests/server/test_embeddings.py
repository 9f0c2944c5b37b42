"""POST /v1/embeddings over a real port."""

from __future__ import annotations

import asyncio
import base64
import struct

import pytest

from tests.waiting import until


async def embed(served, path="/v1/embeddings", **body):
    async with served.http.post(f"{served.address}{path}", json=body) as response:
        return response.status, await response.json()


async def test_every_form_of_input_is_embedded_in_its_order(serve):
    served = await serve()
    status, several = await embed(served, input=["light", "heating", [1, 2, 3]])
    assert status == 200 and several["object"] == "list" and several["model"] == "fake"
    assert [one["index"] for one in several["data"]] == [0, 1, 2]
    assert several["usage"] == {"prompt_tokens": 15, "total_tokens": 15}
    for given, one in zip(["light", "heating", [1, 2, 3]], several["data"], strict=True):
        _, alone = await embed(served, input=given)
        assert alone["data"][0]["embedding"] == one["embedding"]


@pytest.mark.parametrize("path", ["/embeddings", "/v1/embeddings/", "/embeddings/"])
async def test_the_path_has_other_spellings(serve, path):
    assert (await embed(await serve(), path, input="light"))[0] == 200


async def test_base64_holds_the_same_numbers(serve):
    served = await serve()
    (plain,) = (await embed(served, input="light"))[1]["data"]
    (packed,) = (await embed(served, input="light", encoding_format="base64"))[1]["data"]
    data = base64.b64decode(packed["embedding"])
    assert struct.unpack(f"<{len(data) // 4}f", data) == pytest.approx(plain["embedding"])


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": ""}, "input[0]"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": ["a", 5]}, "input[1]"),
        ({"input": [[]]}, "input[0]"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": "a", "dimensions": 5}, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a" * 5000}, "input[0]"),
        ({"input": [[1, 10**9]]}, "input[0]"),
        ({"input": "a", "inputs": "b"}, "inputs"),
    ],
)
async def test_what_cannot_be_embedded_is_refused_by_name(serve, body, parameter):
    served = await serve()
    status, answer = await embed(served, **body)
    assert (status, answer["error"]["param"]) == (400, parameter)
    assert (await embed(served, input="a"))[0] == 200


async def test_a_client_that_goes_away_ends_the_work(serve):
    served = await serve()
    asking = asyncio.create_task(embed(served, input=["a" * 2000] * 100))
    await until(lambda: len(served.supervisor._requests) > 0)
    asking.cancel()
    await until(lambda: len(served.supervisor._requests) == 0)
    assert (await embed(served, input="a"))[0] == 200
