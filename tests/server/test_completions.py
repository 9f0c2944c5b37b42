"""Completions as clients see them, streamed and not, over a real port."""

import asyncio
import json
import threading

import pytest

from tests.waiting import until


async def post(served, path="/v1/completions", **body):
    async with served.http.post(served.address + path, json=body) as response:
        return response.status, await response.json()


async def stream(served, **body):
    """The chunks of a streamed completion, and whether it ended with [DONE]."""
    async with served.http.post(f"{served.address}/v1/completions", json={**body, "stream": True}) as response:
        assert response.status == 200
        events = (await response.text()).split("\n\n")[:-1]
    done = events[-1] == "data: [DONE]"
    return [json.loads(event[6:]) for event in (events[:-1] if done else events)], done


def joined(chunks, index=0):
    return "".join(one["text"] for chunk in chunks for one in chunk["choices"] if one["index"] == index)


async def test_a_prompt_is_continued_as_it_is_and_no_template_renders_it(serve):
    served = await serve(lambda prompt: f"[{prompt}]")
    status, body = await post(served, prompt="Once upon", max_tokens=50)
    assert status == 200
    assert body["object"] == "text_completion"
    assert body["id"].startswith("cmpl-")
    choice = {"text": "[Once upon]", "index": 0, "logprobs": None, "finish_reason": "stop"}
    assert body["choices"] == [choice]
    assert (body["usage"]["prompt_tokens"], body["usage"]["total_tokens"]) == (9, 9 + 12)


async def test_special_tokens_in_a_prompt_are_read_as_tokens(serve):
    served = await serve(lambda prompt: "x")
    _, body = await post(served, prompt="<|im_start|>user\nhi<|im_end|>")
    assert body["usage"]["prompt_tokens"] == 2 + len("user\nhi")


async def test_markers_in_the_answer_to_a_prompt_are_text(serve):
    text = 'a <think>b</think> <tool_call>{"name": "c"}</tool_call>'
    served = await serve(lambda prompt: text)
    _, body = await post(served, prompt="x", max_tokens=100)
    assert body["choices"][0]["text"] == text


async def test_sixteen_tokens_are_the_default_and_minus_one_is_no_limit(serve):
    served = await serve(lambda prompt: "y" * 100)
    _, short = await post(served, prompt="x")
    assert (len(short["choices"][0]["text"]), short["choices"][0]["finish_reason"]) == (16, "length")
    _, whole = await post(served, prompt="x", max_tokens=-1)
    assert len(whole["choices"][0]["text"]) == 100
    status, refused = await post(served, prompt="x", max_tokens=0)
    assert (status, refused["error"]["param"]) == (400, "max_tokens")


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("ab", ["AB"]),
        ([97, 98], ["AB"]),
        (["ab", "cd"], ["AB", "CD"]),
        ([[97, 98], [99]], ["AB", "C"]),
        ([97, "bc", 100], ["ABCD"]),
        ([[97], "bc"], ["A", "BC"]),
    ],
)
async def test_a_prompt_may_be_texts_or_tokens_or_several(serve, prompt, texts):
    served = await serve(str.upper)
    _, body = await post(served, prompt=prompt)
    assert [one["text"] for one in body["choices"]] == texts
    assert [one["index"] for one in body["choices"]] == list(range(len(texts)))
    assert body["usage"]["prompt_tokens"] == body["usage"]["completion_tokens"] - len(texts)  # END is a token
    chunks, done = await stream(served, prompt=prompt)
    assert done
    assert [joined(chunks, index) for index in range(len(texts))] == texts


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": [1, [2]]}, "prompt[1]"),
        ({"prompt": ["a", ""]}, "prompt[1]"),
        ({"prompt": [[1.5]]}, "prompt[0][0]"),
        ({"prompt": "x", "suffix": "y"}, "suffix"),
        ({"prompt": "x", "best_of": 3}, "best_of"),
        ({"prompt": "x", "n": 2, "best_of": 3}, "best_of"),
        ({"prompt": "x", "logprobs": True}, "logprobs"),
        ({"prompt": "x", "logprobs": 21}, "logprobs"),
        ({"prompt": "x", "logprobs": 1, "echo": True}, "echo"),
        ({"prompt": "x", "messages": []}, "messages"),
        ({"prompt": "x", "guided_regex": "(", "max_tokens": 1}, "guided_regex"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_what_cannot_be_done_is_refused_by_name(serve, body, parameter, streamed):
    served = await serve()
    status, refused = await post(served, **body, stream=streamed)
    assert (status, refused["error"]["param"]) == (400, parameter)
    assert refused["error"]["type"] == "invalid_request_error"


async def test_tokens_that_the_model_does_not_have_are_refused(serve):
    served = await serve()
    for more in ({}, {"echo": True}):
        status, refused = await post(served, prompt=[97, 9999], **more)
        assert status == 400
        assert "no token 9999" in refused["error"]["message"]


async def test_the_prompt_is_echoed_before_each_answer(serve):
    served = await serve(str.upper, parallel=2)
    _, body = await post(served, prompt=["ab", [99, "d<think>"][:1]], echo=True, n=2)
    assert [one["text"] for one in body["choices"]] == ["abAB", "abAB", "cC", "cC"]
    assert body["usage"]["prompt_tokens"] == 3
    chunks, _ = await stream(served, prompt=[104, 105], echo=True)
    assert chunks[0]["choices"][0]["text"] == "hi"
    assert joined(chunks) == "hiHI"


async def test_logprobs_have_the_form_of_completions(serve):
    served = await serve(lambda prompt: "né")
    _, body = await post(served, prompt="x", logprobs=2)
    logprobs = body["choices"][0]["logprobs"]
    assert logprobs["tokens"] == ["n", "bytes:\\xc3", "bytes:\\xa9", "<|im_end|>"]
    assert logprobs["token_logprobs"] == [-0.5] * 4
    assert logprobs["top_logprobs"][0] == {"n": -0.5, "?": -1.0}
    assert logprobs["text_offset"] == [0, 1, 11, 21]
    chunks, _ = await stream(served, prompt="x", logprobs=2)
    parts = [one["logprobs"] for chunk in chunks for one in chunk["choices"] if one["logprobs"]]
    assert {key: [item for part in parts for item in part[key]] for key in logprobs} == logprobs
    assert joined(chunks) == "né"


async def test_a_shape_and_stop_texts_hold_for_completions(serve):
    served = await serve(lambda prompt: "yes, and no")
    _, body = await post(served, prompt="x", guided_choice=["no", "never"])
    assert body["choices"][0]["text"] in ("no", "never")
    _, body = await post(served, prompt="x", stop=", ")
    assert (body["choices"][0]["text"], body["choices"][0]["finish_reason"]) == ("yes", "stop")


async def test_a_streamed_completion_ends_with_its_usage_if_asked(serve):
    served = await serve(lambda prompt: "Hello!")
    chunks, done = await stream(served, prompt="hi", stream_options={"include_usage": True})
    assert done
    *texts, last = chunks
    assert joined(texts) == "Hello!"
    assert [one["finish_reason"] for chunk in texts for one in chunk["choices"]][-1] == "stop"
    assert last["choices"] == []
    assert last["usage"]["prompt_tokens"] == 2


async def test_what_an_earlier_prompt_computed_is_used_for_the_next(serve):
    served = await serve(str.upper)
    await post(served, prompt="a long beginning of a text, ")
    _, body = await post(served, prompt="a long beginning of a text, and more")
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] >= 27


async def test_who_hangs_up_ends_all_completions_of_the_request(serve):
    served = await serve(lambda prompt: "x" * 3000, parallel=2)
    body = {"prompt": ["a", "b"], "stream": True, "max_tokens": -1}
    async with served.http.post(f"{served.address}/v1/completions", json=body) as response:
        await response.content.readany()
    await until(lambda: served.supervisor.pending == 0)


async def test_an_error_in_the_middle_of_a_streamed_completion_is_an_event(serve):
    gate = threading.Event()
    gate.set()
    served = await serve(lambda prompt: "x" * 3000, gate=gate)
    body = {"prompt": "a", "stream": True, "max_tokens": -1}
    async with served.http.post(f"{served.address}/v1/completions", json=body) as response:
        await response.content.readany()
        served.backend.failing = True
        text = await asyncio.wait_for(response.text(), 10)
    last = json.loads(text.strip().split("\n\n")[-1].removeprefix("data: "))
    assert last["error"]["type"] == "server_error"


async def test_a_prompt_that_is_too_long_is_called_prompt(serve):
    served = await serve(context=64)
    status, refused = await post(served, prompt="x" * 100)
    assert (status, refused["error"]["param"], refused["error"]["code"]) == (400, "prompt", "context_length_exceeded")


async def test_all_prompts_of_a_request_count_in_the_metrics(serve):
    served = await serve(str.upper, parallel=2)
    await post(served, prompt=["ab", "cde"], n=2)
    async with served.http.get(f"{served.address}/metrics") as response:
        page = await response.text()
    assert "qwen_edge_prompt_tokens_total 5.0" in page
    assert "qwen_edge_completion_tokens_total 14.0" in page


async def test_text_that_repeats_itself_is_not_cut_in_a_completion(serve):
    served = await serve(lambda prompt: "ha " * 300, stops_loops=True)
    _, body = await post(served, prompt="x", max_tokens=-1)
    assert body["choices"][0]["text"] == "ha " * 300
