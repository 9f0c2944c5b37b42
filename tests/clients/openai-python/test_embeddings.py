"""Embeddings with the openai package, which asks for base64 by itself."""

import math

import openai
import pytest


@pytest.fixture
def client(demo):
    with openai.OpenAI(base_url=demo.v1, api_key=demo.key) as client:
        yield client


def test_texts_get_numbered_vectors_of_length_one(client):
    answer = client.embeddings.create(model="any", input=["the kitchen light", "the bath fan"])
    assert [one.index for one in answer.data] == [0, 1]
    assert len({len(one.embedding) for one in answer.data}) == 1
    for one in answer.data:
        assert math.isclose(math.hypot(*one.embedding), 1, rel_tol=1e-3)
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens


def test_base64_and_numbers_are_the_same_vector(client):
    (base64,) = client.embeddings.create(model="any", input="the kitchen light").data
    (numbers,) = client.embeddings.create(model="any", input="the kitchen light", encoding_format="float").data
    assert base64.embedding == pytest.approx(numbers.embedding, abs=1e-5)


async def test_the_async_client_embeds_tokens(demo):
    async with openai.AsyncOpenAI(base_url=demo.v1, api_key=demo.key) as client:
        answer = await client.embeddings.create(model="any", input=[[1, 2, 3]])
    assert answer.usage.prompt_tokens == 3
