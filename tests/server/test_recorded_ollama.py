"""The requests of Home Assistant's and Open WebUI's clients of Ollama, word for word, on a real port."""

import json

import pytest

from tests.recorded import recorded

HOME, WEB = recorded("home_assistant_ollama"), recorded("open_webui_ollama")
LIGHT = '<tool_call>\n{"name": "HassTurnOn", "arguments": {"name": "Kitchen light", "domain": ["light"]}}\n</tool_call>'


async def lines(served, body, path="/api/chat"):
    async with served.http.post(f"{served.address}{path}", json=body) as response:
        text = await response.text()
        assert response.status == 200, text
    return [json.loads(line) for line in text.splitlines()]


async def test_home_assistant_can_be_set_up(serve):
    served = await serve()
    async with served.http.get(f"{served.address}{HOME['list']['path']}") as response:
        assert [model["model"] for model in (await response.json())["models"]] == ["fake:latest"]
    assert await lines(served, HOME["pull"]["body"], HOME["pull"]["path"]) == [{"status": "success"}]


@pytest.mark.parametrize("tools", [HOME["chat"]["body"]["tools"], HOME["tools_as_written"]], ids=["sent", "written"])
async def test_home_assistants_conversation_calls_a_tool_and_hears_of_its_result(serve, tools):
    served = await serve(lambda prompt: "It is on." if '"error":null' in prompt else LIGHT, context=8192)
    *pieces, last = await lines(served, {**HOME["chat"]["body"], "tools": tools})
    calls = [call for piece in pieces for call in piece["message"].get("tool_calls", [])]
    assert calls == [{"function": {"name": "HassTurnOn", "arguments": {"name": "Kitchen light", "domain": ["light"]}}}]
    assert last["done"]
    answer = await lines(served, HOME["chat_after_the_call"]["body"])
    assert "".join(line["message"]["content"] for line in answer) == "It is on."


async def test_home_assistants_ai_task_gets_its_structure(serve):
    served = await serve(lambda prompt: '{"name":"Robbie","speed":3}', context=8192)
    answer = await lines(served, HOME["ai_task"]["body"])
    assert json.loads("".join(line["message"]["content"] for line in answer)) == {"name": "Robbie", "speed": 3}


@pytest.mark.parametrize("name", ["chat", "chat_with_tools", "title"])
async def test_open_webuis_chats_are_answered(serve, name):
    served = await serve()
    answer = await lines(served, WEB[name])
    assert "".join(line["message"]["content"] for line in answer) == "Hello!"
    assert answer[-1]["done_reason"] == "stop"


async def test_open_webui_finds_its_model_in_the_list_and_unloads_it(serve):
    served = await serve()
    for path in ("/api/tags", "/api/ps"):
        async with served.http.get(f"{served.address}{path}") as response:
            assert [model["model"] for model in (await response.json())["models"]] == [WEB["chat"]["model"]]
    [answer] = await lines(served, WEB["unload"], "/api/generate")
    assert answer["done_reason"] == "unload"
