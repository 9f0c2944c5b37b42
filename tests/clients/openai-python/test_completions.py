"""Text completions with the openai package: a prompt that no chat template renders."""

import openai
import pytest


@pytest.fixture
def client(scripted):
    with openai.OpenAI(base_url=scripted.v1, api_key=scripted.key) as client:
        yield client


@pytest.fixture
def demo_client(demo):
    with openai.OpenAI(base_url=demo.v1, api_key=demo.key) as client:
        yield client


def test_a_completion_has_text_reason_and_usage(client):
    answer = client.completions.create(model="any", prompt="Once", max_tokens=8)
    assert (answer.object, len(answer.choices)) == ("text_completion", 1)
    assert answer.choices[0].text == "Hello!"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens == len("Once")


def test_a_list_of_prompts_gets_numbered_answers(client):
    answer = client.completions.create(model="any", prompt=["Once", "Twice"], n=2, max_tokens=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in answer.choices] == ["Hel"] * 4
    assert {choice.finish_reason for choice in answer.choices} == {"length"}


def test_a_prompt_may_be_echoed(client):
    assert client.completions.create(model="any", prompt="Once ", echo=True).choices[0].text == "Once Hello!"


def test_a_completion_streams_the_same_text(client):
    chunks = list(client.completions.create(model="any", prompt="Once", stream=True))
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == "Hello!"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_logprobs_have_a_token_for_each_step(demo_client):
    answer = demo_client.completions.create(model="any", prompt="The light", max_tokens=4, logprobs=2, temperature=0)
    logprobs = answer.choices[0].logprobs
    assert "".join(logprobs.tokens) == answer.choices[0].text
    assert all(value <= 0 for value in logprobs.token_logprobs)
    assert all(len(top) >= 2 for top in logprobs.top_logprobs)


def test_what_the_model_cannot_do_is_refused_by_name(client):
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model="any", prompt="def f(", suffix="return")
    assert error.value.param == "suffix"


def test_a_completion_that_is_left_frees_its_place(client, broken_off):
    asked = {"prompt": "@words 5000", "max_tokens": 30000}
    with client.completions.create(model="any", **asked, stream=True) as stream:
        for _ in range(3):
            next(stream)
    broken_off()
