"""The Responses API as clients see it, over a real port: answers, streams, what is stored, and for whom."""

import asyncio
import json
import os
import signal
import threading
from itertools import count

import pytest

from qwen_edge.auth.keys import Keys
from tests.server.test_chat import CALL, THOUGHT
from tests.waiting import until

TOOLS = [{"type": "function", "name": "set_light", "parameters": {"type": "object"}}]
KEYS = {"key-of-one": "one", "key-of-two": "two"}


class Client:
    """Speaks to /v1/responses of a server, with a key."""

    def __init__(self, served, key: str = "one") -> None:
        self.served, self.headers = served, {"Authorization": f"Bearer key-of-{key}"}

    async def call(self, method: str, path: str = "", **options):
        url = f"{self.served.address}/v1/responses{path}"
        async with self.served.http.request(method, url, headers=self.headers, **options) as response:
            return response.status, await response.json()

    async def ask(self, input="hi", **body):
        return await self.call("POST", json={"input": input, **body})

    async def answer(self, input="hi", **body):
        status, response = await self.ask(input, **body)
        assert status == 200, response
        return response

    async def stream(self, input="hi", **body):
        body = {"input": input, "stream": True, **body}
        url = f"{self.served.address}/v1/responses"
        async with self.served.http.post(url, json=body, headers=self.headers) as response:
            assert response.status == 200
            assert response.content_type == "text/event-stream"
            return events(await response.text())


def events(text: str) -> list[dict]:
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def text_of(response) -> str:
    return "".join(part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"])


async def stopped(served) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    await served.task


async def test_an_answer_has_its_reasoning_its_text_and_its_usage(serve):
    client = Client(await serve(lambda prompt: THOUGHT))
    response = await client.answer(metadata={"a": "b"})
    assert [item["type"] for item in response["output"]] == ["reasoning", "message"]
    assert response["output"][0]["summary"] == [{"type": "summary_text", "text": "Hm."}]
    assert text_of(response) == "Yes."
    assert (response["object"], response["status"], response["metadata"]) == ("response", "completed", {"a": "b"})
    usage = response["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["output_tokens_details"]["reasoning_tokens"] > 0


async def test_a_stream_holds_the_same_answer_and_it_is_stored_when_the_last_event_comes(serve):
    client = Client(await serve(lambda prompt: THOUGHT))
    got = await client.stream()
    assert [event["sequence_number"] for event in got] == list(range(len(got)))
    assert "".join(event["delta"] for event in got if event["type"] == "response.output_text.delta") == "Yes."
    last = got[-1]
    assert last["type"] == "response.completed"
    assert await client.call("GET", f"/{last['response']['id']}") == (200, last["response"])


@pytest.mark.parametrize("path", ["/v1/responses", "/responses", "/v1/responses/", "/responses/"])
async def test_the_path_has_the_same_spellings_as_others(serve, path):
    served = await serve()
    async with served.http.post(served.address + path, json={"input": "hi"}) as response:
        assert response.status == 200


async def test_characters_are_never_split(serve):
    said = "Grüße 🌶️ 漢字"
    client = Client(await serve(lambda prompt: said))
    deltas = [event["delta"] for event in await client.stream() if event["type"] == "response.output_text.delta"]
    assert "".join(deltas) == said
    assert "\ufffd" not in "".join(deltas)
    assert len(deltas) > 3


async def test_a_limit_makes_an_answer_incomplete(serve):
    client = Client(await serve(lambda prompt: "x" * 100))
    response = await client.answer(max_output_tokens=3)
    assert (response["status"], text_of(response)) == ("incomplete", "xxx")
    assert (await client.stream(max_output_tokens=3))[-1]["type"] == "response.incomplete"


async def test_a_conversation_goes_on_from_a_stored_response(serve):
    prompts, number = [], count()
    client = Client(await serve(lambda prompt: prompts.append(prompt) or f"answer {next(number)}"))
    first = await client.answer("one", instructions="Old.")
    second = await client.answer("two", previous_response_id=first["id"], instructions="New.")
    third = await client.answer("three", previous_response_id=second["id"])
    assert third["previous_response_id"] == second["id"]
    assert "Old." not in prompts[1] and "New." in prompts[1] and "New." not in prompts[2]
    said = ["one", "answer 0", "two", "answer 1", "three"]
    assert [word for word in said if word in prompts[2]] == said
    _, listed = await client.call("GET", f"/{third['id']}/input_items", params={"order": "asc"})
    assert [item["content"][0]["text"] for item in listed["data"]] == said
    assert await client.call("DELETE", f"/{first['id']}") == (
        200,
        {"id": first["id"], "object": "response", "deleted": True},
    )
    assert (await client.call("GET", f"/{first['id']}"))[0] == 404
    assert (await client.ask("four", previous_response_id=first["id"]))[0] == 404
    assert (await client.ask("four", previous_response_id=third["id"]))[0] == 200


async def test_a_tool_call_goes_back_by_items_by_reference_and_by_the_response_before(serve):
    client = Client(await serve(lambda prompt: "It is on." if "<|im_start|>tool\ndone" in prompt else CALL))
    response = await client.answer(tools=TOOLS)
    [call] = response["output"]
    assert json.loads(call["arguments"]) == {"room": "kitchen"}
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "done"}
    question = {"role": "user", "content": "hi"}
    for items, more in [
        ([question, call, output], {}),
        ([question, {"type": "item_reference", "id": call["id"]}, output], {}),
        ([question, {"id": call["id"]}, output], {"store": False}),
        ([output], {"previous_response_id": response["id"]}),
    ]:
        assert text_of(await client.answer(items, tools=TOOLS, **more)) == "It is on."
    arguments = [event for event in await client.stream(tools=TOOLS) if "function_call_arguments" in event["type"]]
    assert "".join(event.get("delta", "") for event in arguments) == arguments[-1]["arguments"] == call["arguments"]


async def test_what_another_key_has_stored_is_not_there(serve):
    served = await serve(keys=Keys(KEYS, admins={"key-of-two"}))
    one, two = Client(served, "one"), Client(served, "two")
    response = await one.answer()
    reference = {"type": "item_reference", "id": response["output"][0]["id"]}
    assert (await two.call("GET", f"/{response['id']}"))[0] == 404
    assert (await two.call("GET", f"/{response['id']}/input_items"))[0] == 404
    assert (await two.call("POST", f"/{response['id']}/cancel"))[0] == 404
    assert (await two.call("DELETE", f"/{response['id']}"))[0] == 404
    status, answer = await two.ask(previous_response_id=response["id"])
    assert (status, answer["error"]["code"]) == (404, "previous_response_not_found")
    status, answer = await two.ask([reference])
    assert (status, answer["error"]["param"]) == (404, "input[0].id")
    assert (await one.ask([reference, {"role": "user", "content": "hi"}]))[0] == 200
    assert (await Client(served, "nobody").ask())[0] == 401


async def test_a_response_that_shall_not_be_stored_is_not(serve):
    client = Client(await serve())
    response = await client.answer(store=False)
    assert response["store"] is False
    status, answer = await client.call("GET", f"/{response['id']}")
    assert (status, answer["error"]["code"]) == (404, "not_found")


async def test_stored_responses_outlive_the_daemon(serve):
    served = await serve()
    response = await Client(served).answer()
    await stopped(served)
    client = Client(await serve())
    assert await client.call("GET", f"/{response['id']}") == (200, response)
    assert (await client.ask("more", previous_response_id=response["id"]))[0] == 200


async def test_a_state_folder_that_cannot_be_used_costs_the_restart_only(serve, tmp_path, monkeypatch, caplog):
    (tmp_path / "a file").touch()
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "a file"))
    client = Client(await serve())
    response = await client.answer()
    assert (await client.call("GET", f"/{response['id']}"))[0] == 200
    assert caplog.text.count("in memory only") == 1


async def test_input_items_come_in_pages(serve):
    client = Client(await serve())
    items = [{"role": "user", "content": str(number)} for number in range(5)]
    response = await client.answer(items)

    async def texts(**params):
        status, page = await client.call("GET", f"/{response['id']}/input_items", params=params)
        assert status == 200
        assert (page["object"], page["first_id"]) == ("list", page["data"][0]["id"])
        return [item["content"][0]["text"] for item in page["data"]], page["last_id"], page["has_more"]

    assert (await texts())[0] == ["4", "3", "2", "1", "0"]
    shown, last, more = await texts(order="asc", limit=2)
    assert (shown, more) == (["0", "1"], True)
    shown, _, more = await texts(order="asc", limit=3, after=last)
    assert (shown, more) == (["2", "3", "4"], False)
    for params in ({"limit": 0}, {"limit": "x"}, {"limit": 101}, {"order": "up"}, {"after": "msg_x"}):
        status, answer = await client.call("GET", f"/{response['id']}/input_items", params=params)
        assert (status, answer["error"]["param"]) == (400, next(iter(params)))


async def test_only_what_runs_in_the_background_could_be_cancelled_or_streamed_again(serve):
    client = Client(await serve())
    response = await client.answer()
    status, answer = await client.call("POST", f"/{response['id']}/cancel")
    assert status == 400
    assert "background" in answer["error"]["message"]
    status, answer = await client.call("GET", f"/{response['id']}", params={"stream": "true"})
    assert (status, answer["error"]["param"]) == (400, "stream")
    assert (await client.call("GET", "/resp_none"))[0] == 404


async def test_tokens_are_counted_as_the_answer_has_them(serve):
    client = Client(await serve())
    status, counted = await client.call("POST", "/input_tokens", json={"input": "hi", "instructions": "Be brief."})
    assert status == 200
    response = await client.answer("hi", instructions="Be brief.")
    assert counted == {"object": "response.input_tokens", "input_tokens": response["usage"]["input_tokens"]}


async def test_a_conversation_that_is_too_long_is_cut_only_if_the_client_says_so(serve):
    prompts = []
    client = Client(await serve(lambda prompt: prompts.append(prompt) or "ok", context=400))
    items = [{"role": "user" if number % 2 == 0 else "assistant", "content": f"<{number}>" * 20} for number in range(9)]
    status, answer = await client.ask(items)
    assert (status, answer["error"]["code"], answer["error"]["param"]) == (400, "context_length_exceeded", "input")
    assert (await client.answer(items, truncation="auto"))["truncation"] == "auto"
    assert "<8>" in prompts[-1] and "<0>" not in prompts[-1]


async def test_an_answer_keeps_the_shape_that_text_format_asks_for(serve):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    client = Client(await serve(lambda prompt: "no JSON at all"))
    response = await client.answer(
        text={"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}},
        max_output_tokens=40,
        enable_thinking=False,
    )
    assert text_of(response).startswith('{"a":')
    assert response["text"]["format"]["schema"] == schema


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"nonsense": 1}, "nonsense"),
        ({"temperature": "hot"}, "temperature"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content[0]"),
        ({"background": True}, "background"),
    ],
)
async def test_what_is_wrong_is_named_in_openais_form(serve, body, param):
    status, answer = await Client(await serve()).ask(**{"input": "hi", **body})
    assert (status, answer["error"]["param"], answer["error"]["type"]) == (400, param, "invalid_request_error")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'"x"', b"\xff", b"null"])
async def test_a_body_that_is_no_object_is_a_mistake_of_the_client(serve, data):
    assert (await Client(await serve()).call("POST", data=data))[0] == 400


async def test_a_method_that_a_path_does_not_take_is_told(serve):
    client = Client(await serve())
    assert (await client.call("GET"))[0] == 405
    assert (await client.call("GET", "/input_tokens"))[0] == 404
    assert (await client.call("PUT", "/resp_1"))[0] == 405


async def test_a_client_that_goes_away_frees_its_place_and_nothing_is_stored(serve):
    gate = threading.Event()
    gate.set()
    served = await serve(lambda prompt: "x" * 3000, gate=gate)
    async with served.http.post(f"{served.address}/v1/responses", json={"input": "hi", "stream": True}) as response:
        await response.content.readline()
        begun = json.loads((await response.content.readline()).removeprefix(b"data: "))
        gate.clear()
    await until(lambda: not served.supervisor.pending)
    gate.set()
    client = Client(served)
    assert (await client.call("GET", f"/{begun['response']['id']}"))[0] == 404
    assert (await client.ask("next", max_output_tokens=1))[0] == 200


async def test_an_engine_that_dies_during_a_stream_ends_it_with_an_error_and_a_failed_response(serve):
    gate = threading.Event()
    gate.set()
    served = await serve(lambda prompt: "x" * 3000, gate=gate)
    async with served.http.post(f"{served.address}/v1/responses", json={"input": "hi", "stream": True}) as response:
        head = await response.content.readline()
        while b"output_text.delta" not in head:
            head = await response.content.readline()
        gate.clear()
        served.engines[0].kill()
        gate.set()
        rest = events((head + await response.read()).decode())
    error, failed = rest[-2:]
    assert (error["type"], error["code"], failed["type"]) == ("error", "engine_failed", "response.failed")
    assert failed["response"]["status"] == "failed"
    assert set(text_of(failed["response"])) == {"x"}, "what there was of the answer"


async def test_an_engine_that_dies_before_the_first_token_is_a_status(serve):
    gate = threading.Event()
    served = await serve(gate=gate)
    asking = asyncio.create_task(Client(served).ask(stream=True))
    await until(lambda: served.begun)
    served.engines[0].kill()
    gate.set()
    status, answer = await asking
    assert (status, answer["error"]["code"]) == (503, "engine_failed")


async def test_a_failure_after_a_comment_is_a_whole_stream(serve):
    gate = threading.Event()
    served = await serve(gate=gate, settings="  comment_seconds: 0.05\n")
    async with served.http.post(f"{served.address}/v1/responses", json={"input": "hi", "stream": True}) as response:
        assert (await response.content.readline()).startswith(b":")
        served.engines[0].kill()
        gate.set()
        got = events(await response.text())
    kinds = ["response.created", "response.in_progress", "error", "response.failed"]
    assert [event["type"] for event in got] == kinds


async def test_the_openai_package_and_langchain_go_through_a_conversation(serve):
    openai = pytest.importorskip("openai")
    langchain = pytest.importorskip("langchain_openai")
    served = await serve(lambda prompt: THOUGHT)
    base = f"{served.address}/v1"
    async with openai.AsyncOpenAI(base_url=base, api_key="none") as client:
        first = await client.responses.create(model="m", input="hi")
        assert first.output_text == "Yes."
        async with client.responses.stream(model="m", input="more", previous_response_id=first.id) as stream:
            final = await stream.get_final_response()
        assert final.output_text == "Yes."
        assert (await client.responses.retrieve(final.id)).output_text == "Yes."
        listed = client.responses.input_items.list(final.id, limit=1)
        assert {item.type async for item in listed} == {"message", "reasoning"}
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve("resp_none")
    model = langchain.ChatOpenAI(base_url=base, api_key="none", model="m", use_responses_api=True)
    assert (await model.ainvoke("hi")).text == "Yes."
