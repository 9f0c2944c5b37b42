"""A prompt that is sent ahead is computed before its question comes."""

from __future__ import annotations

import jsonschema
import pytest

from tests.waiting import until

SYSTEM = {"role": "system", "content": "You are the voice of a house with many rooms and lamps. " * 8}


def house(words: str, **more):
    return {"messages": [SYSTEM, {"role": "user", "content": words}], "prompt_cache_key": "house", **more}


async def prepare(served, body, path="/v1/chat/completions/prepare"):
    async with served.http.post(f"{served.address}{path}", json=body) as response:
        return response.status, await response.json()


async def computed(served):
    """Something has been computed, and nothing is left to do."""
    await until(lambda: served.backend.decodes and not served.supervisor.pending)


async def test_what_was_sent_ahead_is_in_the_cache_when_the_question_comes(serve):
    served = await serve()
    status, told = await prepare(served, house("Turn on the"))
    assert (status, told["object"]) == (200, "chat.completion.prepared")
    await computed(served)
    async with served.post(house("Turn on the light in the kitchen")) as response:
        usage = (await response.json())["usage"]
    ahead, cached = told["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"]
    assert 400 < cached < ahead < usage["prompt_tokens"]


async def test_the_parameter_does_the_same_as_the_path_and_no_model_speaks(serve):
    asked = []
    served = await serve(lambda prompt: asked.append(prompt) or "yes")
    status, told = await prepare(served, house("hi", x_prepare=True, stream=True, n=3), "/v1/chat/completions")
    assert (status, set(told)) == (200, {"object", "prompt_tokens"})
    await computed(served)
    async with served.http.get(f"{served.address}/metrics") as response:
        assert "qwen_edge_completion_tokens_total 0.0" in await response.text()


@pytest.mark.parametrize("body", [house("hi"), house("hi", x_prepare=True)])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/chat/completions/prepare"])
async def test_the_answer_is_as_described(serve, path, body):
    served = await serve()
    async with served.http.get(f"{served.address}/openapi.json") as response:
        described = await response.json()
    _, told = await prepare(served, body, path)
    answer = described["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(told, {**answer, "components": described["components"]})


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (house("word " * 2000), 400, "context_length_exceeded"),
        ({"messages": []}, 400, None),
        (house("hi", temprature=1), 400, "unknown_parameter"),
    ],
)
async def test_what_cannot_be_asked_cannot_be_prepared(serve, body, status, word):
    served = await serve()
    got, told = await prepare(served, body)
    assert (got, told["error"]["code"]) == (status, word)
    assert served.supervisor.pending == 0
