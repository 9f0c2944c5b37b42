"""Ollama's API on a real port: answers, streams, errors, and the model's stay in memory."""

import asyncio
import json
import socket
import threading
from typing import Any

import pytest

from qwen_edge.auth.keys import Keys
from tests.server.conftest import Served
from tests.server.raw import post, raw
from tests.waiting import until

HI = [{"role": "user", "content": "hi"}]
CALL = '<tool_call>\n{"name": "set_light", "arguments": {"room": "kitchen"}}\n</tool_call>'
ROOM = {"type": "object", "properties": {"room": {"type": "string"}}}
TOOLS = [{"type": "function", "function": {"name": "set_light", "parameters": ROOM}}]
NO_THINKING = "<|im_start|>assistant\n<think>\n\n</think>\n\n"


async def call(served: Served, path: str, method: str = "POST", **body: Any) -> tuple[int, Any]:
    data = {"json": body} if method == "POST" else {}
    async with served.http.request(method, f"{served.address}{path}", **data) as response:
        return response.status, json.loads(await response.read())


async def stream(served: Served, path: str = "/api/chat", **body: Any) -> list[dict[str, Any]]:
    async with served.http.post(f"{served.address}{path}", json={"messages": HI, **body}) as response:
        assert (response.status, response.content_type) == (200, "application/x-ndjson")
        text = await response.text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


async def test_a_chat_is_streamed_unless_the_client_says_otherwise(serve):
    served = await serve()
    *pieces, last = await stream(served, model="qwen3:0.6b")
    assert "".join(piece["message"]["content"] for piece in pieces) == "Hello!"
    assert all(piece["model"] == "fake:latest" for piece in pieces)
    assert (last["done"], last["done_reason"], last["eval_count"]) == (True, "stop", 7)
    status, whole = await call(served, "/api/chat", messages=HI, stream=False)
    assert (status, whole["message"], whole["done"]) == (200, {"role": "assistant", "content": "Hello!"}, True)
    assert whole["prompt_eval_count"] > 0
    assert whole["total_duration"] >= whole["eval_duration"] > 0


async def test_a_prompt_is_answered_with_the_models_template(serve):
    prompts = []
    served = await serve(lambda prompt: prompts.append(prompt) or "Hello!")
    status, whole = await call(served, "/api/generate", prompt="hi", system="Be brief.", stream=False, think=False)
    assert (status, whole["response"]) == (200, "Hello!")
    assert prompts[0].startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n")
    assert prompts[0].endswith(NO_THINKING)
    async with served.http.post(f"{served.address}/api/generate", json={"prompt": "hi"}) as response:
        lines = [json.loads(line) for line in (await response.text()).splitlines()]
    assert "".join(line["response"] for line in lines) == "Hello!"


async def test_a_raw_prompt_reaches_the_model_as_it_is(serve):
    prompts = []
    served = await serve(lambda prompt: prompts.append(prompt) or "Hello!")
    raw_prompt = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    _, whole = await call(served, "/api/generate", prompt=raw_prompt, raw=True, stream=False)
    assert (whole["response"], prompts) == ("Hello!", [raw_prompt])


async def test_thinking_has_a_field_of_its_own(serve):
    served = await serve(lambda prompt: "<think>\nHm.\n</think>\n\nYes.")
    *pieces, _ = await stream(served, think=True)
    assert "".join(piece["message"].get("thinking", "") for piece in pieces).strip() == "Hm."
    assert "".join(piece["message"]["content"] for piece in pieces).strip() == "Yes."
    _, whole = await call(served, "/api/generate", prompt="hi", stream=False)
    assert (whole["thinking"].strip(), whole["response"].strip()) == ("Hm.", "Yes.")


async def test_a_call_is_one_line_with_an_object(serve):
    served = await serve(lambda prompt: CALL)
    lines = await stream(served, tools=TOOLS)
    calls = [call for line in lines for call in line["message"].get("tool_calls", [])]
    assert calls == [{"function": {"name": "set_light", "arguments": {"room": "kitchen"}}}]
    assert lines[-1]["done_reason"] == "stop"
    _, whole = await call(served, "/api/chat", messages=HI, tools=TOOLS, stream=False)
    assert whole["message"]["tool_calls"] == calls


async def test_a_format_is_kept(serve):
    schema = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
    served = await serve(lambda prompt: "true, I would say.")
    _, whole = await call(served, "/api/chat", messages=HI, format=schema, think=False, stream=False)
    assert json.loads(whole["message"]["content"])["on"] in (True, False)


async def test_a_limit_of_tokens_ends_an_answer_with_length(serve):
    served = await serve(lambda prompt: "x" * 100)
    lines = await stream(served, options={"num_predict": 5})
    assert (lines[-1]["done_reason"], lines[-1]["eval_count"]) == ("length", 5)


async def test_logprobs_come_with_their_pieces(serve):
    served = await serve()
    *pieces, _ = await stream(served, logprobs=True, top_logprobs=1)
    tokens = [one["token"] for piece in pieces for one in piece.get("logprobs", [])]
    assert "".join(tokens) == "Hello!"


@pytest.mark.parametrize("text", ["你好，世界！", "a😀b👩‍👩‍👧c", "é" * 40])
async def test_no_character_is_split(serve, text):
    served = await serve(lambda prompt: text)  # a token is a byte
    pieces = [line["message"]["content"] for line in await stream(served)]
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/api/chat", {"messages": HI, "options": {"num_ctx": 10**6}}, 400, "options.num_ctx"),
        ("/api/chat", {"messages": HI, "nonsense": 1}, 400, "nonsense"),
        ("/api/chat", {"messages": [{"role": "user", "images": ["aGk="]}]}, 400, "messages[0].images"),
        ("/api/chat", {"messages": HI, "keep_alive": "soon"}, 400, "keep_alive"),
        ("/api/chat", {"messages": HI, "format": "xml"}, 400, "format"),
        ("/api/chat", {"messages": [{"role": "user", "content": "x" * 9000}]}, 400, "context"),
        ("/api/generate", {"prompt": "hi", "raw": True, "system": "x"}, 400, "system"),
        ("/api/generate", {"prompt": "", "keep_alive": "soon"}, 400, "keep_alive"),
        ("/api/show", {}, 400, "model"),
        ("/api/pull", {"model": 5}, 400, "model"),
        ("/api/nothing", {}, 404, "Not Found"),
        ("/api/tags", {}, 405, "Send GET"),
        ("/api/create", {"model": "x"}, 400, "qwen-edge convert"),
        ("/api/copy", {"source": "a", "destination": "b"}, 400, "qwen-edge convert"),
        ("/api/push", {"model": "x"}, 400, "qwen-edge convert"),
        ("/api/blobs/sha256:12", {}, 400, "qwen-edge convert"),
    ],
)
async def test_an_error_is_a_text(serve, path, body, status, words):
    served = await serve()
    found, answer = await call(served, path, **body)
    assert (found, answer.keys()) == (status, {"error"})
    assert words in answer["error"]


@pytest.mark.parametrize("data", [b"{", b"[]", b"\xff", b"", b'{"messages": null, "model": 5}'])
@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/show", "/api/pull"])
async def test_a_broken_body_is_an_error_of_the_client(serve, path, data):
    served = await serve()
    async with served.http.post(f"{served.address}{path}", data=data) as response:
        answer = await response.json()
    assert (response.status, answer.keys()) == (400, {"error"})


async def test_without_a_key_the_error_has_the_same_form(serve):
    served = await serve(keys=Keys({"secret": "one"}))
    status, answer = await call(served, "/api/tags", "GET")
    assert (status, answer.keys()) == (401, {"error"})
    headers = {"Authorization": "Bearer secret"}
    async with served.http.get(f"{served.address}/api/tags", headers=headers) as response:
        assert response.status == 200


async def test_other_names_are_refused_where_the_settings_list_names(serve):
    served = await serve(settings="  model_names: listed\n  model_aliases: ['qwen3:0.6b']\n")
    for path in ("/api/show", "/api/pull"):
        assert (await call(served, path, model="llama3.2:latest"))[0] == 404
        for name in ("fake", "fake:latest", "qwen3:0.6b"):
            async with served.http.post(f"{served.address}{path}", json={"model": name}) as response:
                assert response.status == 200
    status, answer = await call(served, "/api/chat", model="llama3.2", messages=HI)
    assert (status, "llama3.2" in answer["error"]) == (404, True)
    assert (await call(served, "/api/chat", model="fake:latest", messages=HI, stream=False))[0] == 200


async def test_the_model_is_listed_and_shown(serve):
    served = await serve()
    _, listed = await call(served, "/api/tags", "GET")
    [model] = listed["models"]
    assert (model["name"], model["model"], len(model["digest"])) == ("fake:latest", "fake:latest", 64)
    status, shown = await call(served, "/api/show", model=model["name"], verbose=True)
    assert status == 200
    assert shown["capabilities"] == ["completion", "tools", "thinking"]
    assert shown["template"]
    assert next(value for key, value in shown["model_info"].items() if key.endswith(".context_length")) == 4096
    assert (await call(served, "/api/show", name="fake"))[1]["details"] == model["details"]


async def test_a_model_that_can_neither_think_nor_call_is_shown_as_such(serve):
    plain = "{% for message in messages %}{{ message.content }}{% endfor %}"
    served = await serve(template=plain)
    assert (await call(served, "/api/show", model="x"))[1]["capabilities"] == ["completion"]
    assert (await call(served, "/api/chat", messages=HI, think=False, stream=False))[0] == 200
    status, answer = await call(served, "/api/chat", messages=HI, think=True)
    assert (status, "cannot think" in answer["error"]) == (400, True)


async def test_a_pull_says_that_the_model_is_there(serve):
    served = await serve()
    async with served.http.post(f"{served.address}/api/pull", json={"model": "llama3.2"}) as response:
        assert json.loads((await response.text()).splitlines()[-1]) == {"status": "success"}
    assert await call(served, "/api/pull", model="llama3.2", stream=False) == (200, {"status": "success"})


async def test_texts_become_vectors(serve):
    served = await serve()
    status, answer = await call(served, "/api/embed", model="fake", input=["one", "two"])
    assert (status, len(answer["embeddings"]), answer["model"]) == (200, 2, "fake:latest")
    assert answer["prompt_eval_count"] > 0
    _, alone = await call(served, "/api/embeddings", model="fake", prompt="one")
    assert alone["embedding"] == pytest.approx(answer["embeddings"][0])
    assert (await call(served, "/api/embed", model="fake", input=""))[1]["embeddings"] == []
    assert (await call(served, "/api/embeddings", model="fake", prompt=""))[1] == {"embedding": []}


async def test_of_a_text_that_is_too_long_the_beginning_is_embedded_unless_the_client_wants_an_error(serve):
    served = await serve()
    found = []
    for more in ({}, {"truncate": True}, {"truncate": False}):
        async with served.http.post(f"{served.address}/api/embed", json={"input": "a" * 5000, **more}) as response:
            found.append((response.status, await response.json()))
    statuses, (first, second, refused) = zip(*found, strict=True)
    assert statuses == (200, 200, 400) and first["embeddings"] == second["embeddings"]
    assert first["prompt_eval_count"] == 2048 and "tokens" in refused["error"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/embed", {"input": 5}),
        ("/api/embed", {}),
        ("/api/embed", {"input": ["a", 5]}),
        ("/api/embed", {"input": ["a", ""]}),
        ("/api/embed", {"input": "a", "dimensions": 1}),
        ("/api/embed", {"input": "a", "options": {"num_ctx": 10**6}}),
        ("/api/embeddings", {"prompt": ["a"]}),
        ("/api/embeddings", {"prompt": "a", "keep_alive": "soon"}),
    ],
)
async def test_a_mistake_about_vectors_is_the_clients(serve, path, body):
    served = await serve()
    status, answer = await call(served, path, **body)
    assert (status, answer.keys()) == (400, {"error"})


async def test_it_says_that_it_is_there(serve):
    served = await serve()
    async with served.http.get(f"{served.address}/") as response:
        assert await response.text() == "Ollama is running"
    for path in ("/", "/api/version", "/api/tags"):
        async with served.http.head(f"{served.address}{path}") as response:
            assert response.status == 200
    async with served.http.head(f"{served.address}/api/blobs/sha256:12") as response:
        assert response.status == 404
    assert (await call(served, "/api/version", "GET"))[1]["version"]


async def test_before_the_first_load_the_list_of_models_is_not_known(serve):
    served = await serve()
    served.supervisor.model = None
    for path in ("/api/tags", "/api/ps", "/v1/models"):
        status, answer = await call(served, path, "GET")
        assert (status, answer) == (200, {"models": []}) if path == "/api/ps" else status == 503, answer


async def test_a_request_without_a_question_loads_the_model_or_unloads_it(serve):
    served = await serve()
    supervisor = served.supervisor
    status, answer = await call(served, "/api/chat", model="x", messages=[], keep_alive=0)
    assert (status, answer["done_reason"], answer["message"]["content"]) == (200, "unload", "")
    await until(lambda: supervisor.state == "asleep")
    assert (await call(served, "/api/ps", "GET"))[1] == {"models": []}
    status, answer = await call(served, "/api/generate", model="x")
    assert (status, answer["done_reason"], answer["response"], answer["done"]) == (200, "load", "", True)
    assert supervisor.state == "ready"
    [loaded] = (await call(served, "/api/ps", "GET"))[1]["models"]
    assert (loaded["name"], loaded["context_length"], loaded["size_vram"]) == ("fake:latest", 4096, 0)
    assert loaded["expires_at"] > "2300"  # without unload_seconds it stays


@pytest.mark.parametrize("streamed", [True, False])
async def test_keep_alive_zero_unloads_the_model_behind_the_answer_and_the_next_request_loads_it(serve, streamed):
    served = await serve()
    assert (
        await stream(served, keep_alive=0)
        if streamed
        else await call(served, "/api/chat", messages=HI, keep_alive="0s", stream=False)
    )
    await until(lambda: served.supervisor.state == "asleep")
    last = (await stream(served))[-1]
    assert last["load_duration"] > 0
    assert (await stream(served))[-1]["load_duration"] == 0
    assert len(served.engines) == 2
    assert served.supervisor.state == "ready"  # the wish was about the engine that has gone


async def test_a_keep_alive_does_not_unload_what_another_request_needs(serve):
    gate = threading.Event()
    served = await serve(gate=gate, parallel=2)
    asking = asyncio.create_task(served.ask())
    await until(lambda: served.begun)
    assert (await call(served, "/api/generate", keep_alive=0))[1]["done_reason"] == "unload"
    gate.set()
    assert (await asking)[0] == 200
    await until(lambda: served.supervisor.state == "asleep")
    assert len(served.engines) == 1


async def test_the_last_keep_alive_counts_also_if_an_earlier_one_is_still_to_come_true(serve):
    gate = threading.Event()
    served = await serve(gate=gate, parallel=2)
    first = asyncio.create_task(served.ask())
    await until(lambda: served.begun)
    await call(served, "/api/generate", keep_alive=0)  # waits for the first request to end
    last = asyncio.create_task(stream(served, keep_alive=-1))
    await until(lambda: served.supervisor.pending == 2)
    gate.set()
    await first
    assert await last
    assert (await call(served, "/api/ps", "GET"))[1]["models"][0]["expires_at"] > "2300"
    await call(served, "/api/generate", keep_alive=0.001)
    assert (await call(served, "/api/generate", keep_alive="5m"))[1]["done_reason"] == "load"
    assert (served.supervisor.state, len(served.engines)) == ("ready", 1)


async def test_no_client_keeps_the_model_longer_than_the_settings_say(serve):
    served = await serve(idle=0.1)
    await stream(served, keep_alive=-1)
    await until(lambda: served.supervisor.state == "asleep")


async def test_a_client_that_goes_away_frees_its_place(serve):
    gate = threading.Event()
    served = await serve(gate=gate)
    async with raw(served) as (_, writer):
        writer.write(post("/api/chat"))
        await until(lambda: served.begun)
    await until(lambda: not served.supervisor.pending)
    gate.set()
    assert (await stream(served))[-1]["done"]


async def test_a_stream_whose_engine_dies_ends_with_an_error_line(serve):
    gate = threading.Event()
    gate.set()
    served = await serve(lambda prompt: "x" * 3000, gate=gate)
    async with served.http.post(f"{served.address}/api/chat", json={"messages": HI}) as response:
        await response.content.readline()
        gate.clear()
        served.engines[0].kill()
        gate.set()
        last = json.loads((await response.text()).splitlines()[-1])
    assert last.keys() == {"error"}
    assert "engine failed" in last["error"]


async def test_a_busy_server_says_so_with_a_status(serve):
    gate = threading.Event()
    served = await serve(gate=gate, settings="  max_waiting: 0\nengine:\n  parallel: 1\n")
    async with raw(served) as (_, writer):
        writer.write(post("/api/chat"))
        await until(lambda: served.supervisor.pending)
        status, answer = await call(served, "/api/chat", messages=HI)
        assert (status, answer.keys()) == (503, {"error"})
        gate.set()


async def test_all_paths_are_answered_on_ollamas_port_too(serve):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = await serve(settings=f"  ollama_port: {port}\n")
    assert not served.address.endswith(f":{port}")
    for path in ("/api/tags", "/v1/models", "/health"):
        async with served.http.get(f"http://127.0.0.1:{port}{path}") as response:
            assert response.status == 200
    assert (await served.health())[0] == 200
