"""llama-server's own paths, as its clients see them, over a real port."""

import asyncio
import json
import threading

import pytest

from tests.fakes import END
from tests.waiting import until


async def post(served, path, **body):
    async with served.http.post(served.address + path, json=body) as response:
        return response.status, await response.json()


async def get(served, path):
    async with served.http.get(served.address + path) as response:
        return response.status, await response.json()


async def stream(served, **body):
    async with served.http.post(f"{served.address}/completion", json={**body, "stream": True}) as response:
        assert response.status == 200
        events = (await response.text()).split("\n\n")[:-1]
    assert all(event.startswith("data: ") for event in events)
    return [json.loads(event[6:]) for event in events]


async def test_a_completion_has_llama_servers_fields(serve):
    served = await serve(str.upper)
    status, body = await post(served, "/completion", prompt="hi\nyou", n_predict=50, seed=7)
    assert status == 200
    assert (body["content"], body["stop"], body["stop_type"]) == ("HI\nYOU", True, "eos")
    assert (body["tokens"], body["has_new_line"], body["truncated"]) == ([], True, False)
    assert (body["tokens_predicted"], body["tokens_evaluated"], body["prompt"]) == (7, 6, "hi\nyou")
    timings = body["timings"]
    assert (timings["cache_n"], timings["prompt_n"], timings["predicted_n"]) == (0, 6, 7)
    settings = body["generation_settings"]
    assert (settings["seed"], settings["n_predict"], settings["logit_bias"]) == (7, 50, [])


async def test_a_streamed_completion_has_the_tokens_of_each_event_and_ends_with_the_whole(serve):
    served = await serve(lambda prompt: "né!")
    *parts, last = await stream(served, prompt="x", n_predict=50)
    assert "".join(part["content"] for part in parts) == "né!"
    assert [token for part in parts for token in part["tokens"]] == [*"né!".encode()]
    assert not any(part["stop"] for part in parts)
    assert (last["stop"], last["content"], last["tokens_predicted"]) == (True, "", 5)


async def test_why_a_completion_stopped_is_told(serve):
    served = await serve(lambda prompt: "one, two")
    _, limited = await post(served, "/completion", prompt="x", n_predict=3)
    assert (limited["stop_type"], limited["content"]) == ("limit", "one")
    _, stopped = await post(served, "/completion", prompt="x", stop=[", "])
    assert (stopped["stop_type"], stopped["stopping_word"], stopped["content"]) == ("word", ", ", "one")


async def test_the_context_ends_a_completion_as_truncated(serve):
    served = await serve(lambda prompt: "y" * 500, context=64)
    _, body = await post(served, "/completion", prompt="x", n_predict=-1)
    assert (body["truncated"], body["tokens_predicted"]) == (True, 63)


async def test_probabilities_and_tokens_are_sent_if_asked(serve):
    served = await serve(lambda prompt: "ab")
    _, body = await post(served, "/completion", prompt="x", n_probs=2, return_tokens=True)
    assert body["tokens"] == [97, 98, END]
    first = body["completion_probabilities"][0]
    assert (first["id"], first["token"], first["bytes"], first["logprob"]) == (97, "a", [97], -0.5)
    assert [one["token"] for one in first["top_logprobs"]] == ["a", "?"]
    parts = await stream(served, prompt="x", n_probs=2)
    assert parts[0]["completion_probabilities"] == [first]


@pytest.mark.parametrize(
    ("prompt", "contents"),
    [
        ([97, 98], "AB"),
        (["a", "b"], ["A", "B"]),
        ([[97], "b", {"prompt_string": "c"}], ["A", "B", "C"]),
        ([97, "b", 99], "ABC"),
        ([97, 98, "c", 100, "e", 102], "ABCDEF"),
        ({"prompt_string": "ab"}, "AB"),
    ],
)
async def test_prompts_have_all_forms_of_llama_server(serve, prompt, contents):
    served = await serve(str.upper, parallel=2)
    _, body = await post(served, "/completion", prompt=prompt)
    assert ([one["content"] for one in body] if isinstance(body, list) else body["content"]) == contents


async def test_only_the_fields_that_are_asked_for_are_sent(serve):
    served = await serve(str.upper)
    fields = ["content", "generation_settings/n_predict", "timings/no_such"]
    _, body = await post(served, "/completion", prompt="a", n_predict=9, response_fields=fields)
    assert body == {"content": "A", "generation_settings/n_predict": 9}


@pytest.mark.parametrize(
    "biases", [{"97": -100, "b": 5}, [[97, -100], ["b", 5]], [["a", False], [98, 5]], [["a", -100.0], ["b", 5]]]
)
async def test_logit_biases_name_tokens_or_texts(serve, biases):
    served = await serve(lambda prompt: "x")
    _, body = await post(served, "/completion", prompt="x", logit_bias=biases)
    assert body["generation_settings"]["logit_bias"] == [{"token": 97, "bias": -100}, {"token": 98, "bias": 5}]


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({"prompt": "x", "n_predict": 0}, "n_predict"),
        ({"prompt": {"prompt_string": "x", "multimodal_data": "AA=="}}, "prompt.multimodal_data"),
        ({"prompt": "x", "mirostat": 2}, "mirostat"),
        ({"prompt": "x", "post_sampling_probs": True}, "post_sampling_probs"),
        ({"prompt": "x", "samplers": ["top_k"]}, "samplers"),
        ({"prompt": "x", "logit_bias": [[1, 2, 3]]}, "logit_bias"),
        ({"prompt": "x", "logit_bias": 5}, "logit_bias"),
        ({"prompt": "x", "logit_bias": {f"a{number}": 1 for number in range(300)}}, "logit_bias"),
        ({"prompt": [10**30]}, "prompt[0]"),
        ({"prompt": "x", "logit_bias": [[[1], 2]]}, "logit_bias"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": [1, "a"] * 1025}, "prompt"),
        ({"prompt": [[1, *["a"] * 600]] * 2}, "prompt"),
        ({"prompt": "x", "max_tokns": 5}, "max_tokns"),
    ],
)
@pytest.mark.parametrize("path", ["/completion", "/completions"])
async def test_what_cannot_be_done_is_refused_in_openais_form(serve, path, body, parameter):
    served = await serve()
    status, refused = await post(served, path, **body)
    assert (status, refused["error"]["param"]) == (400, parameter)


async def test_completions_are_openais_if_they_name_a_model(serve):
    served = await serve(str.upper)
    _, ours = await post(served, "/completions", prompt="a")
    _, openais = await post(served, "/completions", prompt="a", model="any")
    assert (ours["content"], openais["choices"][0]["text"]) == ("A", "A")


async def test_text_becomes_tokens_and_tokens_text(serve):
    served = await serve()
    assert await post(served, "/tokenize", content="a<think>") == (200, {"tokens": [97, 258]})
    assert (await post(served, "/tokenize", content="<t", parse_special=False))[1] == {"tokens": [60, 116]}
    assert (await post(served, "/tokenize", content="<think>", parse_special=False))[1]["tokens"][:2] == [60, 116]
    assert (await post(served, "/tokenize", content=["a", 98, "c"]))[1] == {"tokens": [97, 98, 99]}
    assert (await post(served, "/tokenize", content=""))[1] == {"tokens": []}
    _, pieces = await post(served, "/tokenize", content="aé", with_pieces=True)
    assert pieces["tokens"] == [
        {"id": 97, "piece": "a"},
        {"id": 0xC3, "piece": [0xC3]},
        {"id": 0xA9, "piece": [0xA9]},
    ]
    assert await post(served, "/detokenize", tokens=[97, 258, 0xC3, 0xA9]) == (200, {"content": "a<think>é"})
    assert await post(served, "/detokenize", tokens=[]) == (200, {"content": ""})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {}),
        ("/tokenize", {"content": 5}),
        ("/tokenize", {"content": [[1]]}),
        ("/tokenize", {"content": [9999], "with_pieces": True}),
        ("/tokenize", {"content": [10**30]}),
        ("/tokenize", {"content": [-1]}),
        ("/tokenize", {"content": ["a"] * 1025}),
        ("/detokenize", {"tokens": "a"}),
        ("/detokenize", {"tokens": [-1]}),
        ("/detokenize", {"tokens": [9999]}),
        ("/detokenize", {"tokens": [10**12]}),
        ("/apply-template", {"messages": []}),
        ("/v1/chat/completions/input_tokens", {"messages": "hi"}),
    ],
)
async def test_what_is_no_text_and_no_token_is_refused(serve, path, body):
    served = await serve()
    status, refused = await post(served, path, **body)
    assert status == 400
    assert refused["error"]["type"] == "invalid_request_error"


async def test_the_prompt_is_shown_as_text_whatever_it_was_sent_as(serve):
    served = await serve()
    _, body = await post(served, "/completion", prompt=[97, 98, "c", 0xC3, 0xA9, "d", 101])
    assert body["prompt"] == "abcéde"


@pytest.mark.parametrize(("path", "body"), [("/tokenize", {"content": "a"}), ("/detokenize", {"tokens": [97]})])
async def test_questions_about_tokens_are_refused_while_too_many_requests_wait(serve, path, body):
    gate = threading.Event()
    served = await serve(gate=gate, settings="  max_waiting: 0\nengine:\n  parallel: 1\n")
    asking = asyncio.create_task(served.ask())
    await until(lambda: served.supervisor.pending == 1)
    assert (await post(served, path, **body))[0] == 503
    gate.set()
    assert (await asking)[0] == 200
    assert (await post(served, path, **body))[0] == 200


async def test_the_prompt_of_a_chat_is_shown_and_counted(serve):
    served = await serve()
    messages = [{"role": "user", "content": "hi"}]
    _, shown = await post(served, "/apply-template", messages=messages)
    assert shown["prompt"] == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    _, counted = await post(served, "/v1/chat/completions/input_tokens", messages=messages)
    _, answered = await served.ask("hi")
    assert counted["input_tokens"] == answered["usage"]["prompt_tokens"]


async def test_the_props_and_the_slots_are_listed(serve):
    served = await serve(settings="engine:\n  parallel: 3\n", context=128)
    status, props = await get(served, "/props")
    assert status == 200
    assert (props["total_slots"], props["model_alias"], props["is_sleeping"]) == (3, "fake", False)
    assert props["default_generation_settings"]["n_ctx"] == 128
    assert props["default_generation_settings"]["params"]["temperature"] == 0.6
    assert "im_start" in props["chat_template"]
    _, slots = await get(served, "/slots")
    assert slots == [{"id": number, "n_ctx": 128, "is_processing": False} for number in range(3)]


async def test_a_slot_is_busy_while_a_request_runs_and_free_when_its_client_has_gone(serve):
    served = await serve(lambda prompt: "x" * 3000)
    async with served.http.post(
        f"{served.address}/completion", json={"prompt": "a", "stream": True, "n_predict": -1}
    ) as response:
        await response.content.readany()
        assert (await get(served, "/slots"))[1][0]["is_processing"]
    await until(lambda: served.supervisor.pending == 0)
    assert not (await get(served, "/slots"))[1][0]["is_processing"]
