"""Programs whose requests are recorded in requests/: Home Assistant's integrations and Open WebUI. The tests read of
the answers what these programs read."""

import json
from pathlib import Path

import httpx
import pytest

ARGUMENTS = {"name": "Kitchen Light", "domain": ["light"]}
TASK = {"count": 1, "names": ["Kitchen Light"]}


class Program:
    """Sends a program's recorded requests. `MODEL` in a body stands for the name that the daemon lists."""

    def __init__(self, name: str, daemon, model: str) -> None:
        self._requests = json.loads((Path(__file__).parent / "requests" / f"{name}.json").read_text())
        self._daemon, self._model = daemon, model

    def send(self, name: str) -> httpx.Response:
        request = json.loads(json.dumps(self._requests[name]).replace('"MODEL"', json.dumps(self._model)))
        headers = {"Authorization": f"Bearer {self._daemon.key}", **request.get("headers", {})}
        url = self._daemon.address + request["path"]
        response = httpx.request(request["method"], url, headers=headers, json=request.get("body"), timeout=60)
        assert response.status_code == 200, response.text
        return response

    def whole(self, name: str) -> dict:
        return self.send(name).json()

    def lines(self, name: str) -> list[dict]:
        return [json.loads(line) for line in self.send(name).text.splitlines()]

    def events(self, name: str) -> list[dict]:
        data = [line.removeprefix("data: ") for line in self.send(name).text.splitlines() if line.startswith("data: ")]
        return [json.loads(one) for one in data if one != "[DONE]"]


@pytest.fixture
def program(scripted):
    return lambda name, daemon=scripted: Program(name, daemon, listed(daemon))


def listed(daemon) -> str:
    return json.loads(daemon.get("/v1/models"))["data"][0]["id"]


def streamed_text(chunks: list[dict]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def streamed_calls(chunks: list[dict]) -> list[tuple[str, dict]]:
    """As Home Assistant puts them together: the name and the id stand in the first piece of a call."""
    calls: dict[int, dict] = {}
    for delta in (choice["delta"] for chunk in chunks for choice in chunk["choices"]):
        for piece in delta.get("tool_calls") or []:
            if piece["index"] in calls:
                calls[piece["index"]]["arguments"] += piece["function"].get("arguments") or ""
            else:
                assert piece["id"]
                calls[piece["index"]] = dict(piece["function"])
    return [(call["name"], json.loads(call["arguments"])) for call in calls.values()]


@pytest.mark.parametrize("integration", ["home_assistant_open_router", "home_assistant_llama_cpp"])
class TestHomeAssistantByChatCompletions:
    def test_it_is_set_up(self, program, integration):
        assert [model["id"] for model in program(integration).whole("set up")["data"]]

    def test_a_conversation_switches_a_device(self, program, integration):
        home = program(integration)
        asked = home.events("ask")
        assert streamed_calls(asked) == [("HassTurnOn", ARGUMENTS)]
        assert asked[-1]["choices"][0]["finish_reason"] == "tool_calls"
        assert streamed_text(home.events("tell the result")) == "Turned on the light"

    def test_an_ai_task_gets_its_structure(self, program, integration):
        answer = json.loads(streamed_text(program(integration).events("AI task")))
        assert answer == {**TASK, "note": None}


def test_home_assistants_llama_cpp_tries_the_model(program):
    home = program("home_assistant_llama_cpp")
    assert home.whole("try")["choices"][0]["finish_reason"] == "length"
    assert home.events("try a stream")[-1]["choices"][0]["finish_reason"] == "length"


class TestHomeAssistantByResponses:
    NAME = "home_assistant_openai_conversation"

    def test_it_is_set_up(self, program):
        assert program(self.NAME).whole("set up")["object"] == "list"

    @pytest.mark.parametrize("ask", ["ask", "ask a model that reasons"])
    def test_a_conversation_switches_a_device(self, program, ask):
        home = program(self.NAME)
        asked = home.events(ask)
        added = [event["item"] for event in asked if event["type"] == "response.output_item.added"]
        (call,) = [item for item in added if item["type"] == "function_call"]
        assert call["name"] == "HassTurnOn"
        assert call["call_id"]
        pieces = [event["delta"] for event in asked if event["type"] == "response.function_call_arguments.delta"]
        assert json.loads(call["arguments"] + "".join(pieces)) == ARGUMENTS
        assert "response.function_call_arguments.done" in [event["type"] for event in asked]
        assert asked[-1]["type"] == "response.completed"
        assert asked[-1]["response"]["usage"]["output_tokens"] > 0
        told = home.events("tell the result")
        text = "".join(event["delta"] for event in told if event["type"] == "response.output_text.delta")
        assert text == "Turned on the light"

    def test_an_ai_task_gets_its_structure(self, program):
        told = program(self.NAME).events("AI task")
        text = "".join(event["delta"] for event in told if event["type"] == "response.output_text.delta")
        assert json.loads(text) == {**TASK, "note": None}


class TestHomeAssistantByOllama:
    NAME = "home_assistant_ollama"

    def test_it_is_set_up(self, program):
        home = program(self.NAME)
        assert [model["model"] for model in home.whole("set up")["models"]]
        assert home.whole("pull")["status"] == "success"

    def test_a_conversation_switches_a_device(self, program):
        home = program(self.NAME)
        asked = home.lines("ask")
        calls = [call["function"] for line in asked for call in line["message"].get("tool_calls") or []]
        assert [(call["name"], call["arguments"]) for call in calls] == [("HassTurnOn", ARGUMENTS)]
        assert asked[-1]["done"] is True
        told = home.lines("tell the result")
        assert "".join(line["message"].get("content") or "" for line in told) == "Turned on the light"

    def test_an_ai_task_gets_its_structure(self, program):
        told = program(self.NAME).lines("AI task")
        assert json.loads("".join(line["message"].get("content") or "" for line in told)) == TASK


class TestOpenWebUiByOpenAi:
    NAME = "open_webui_openai"

    def test_it_lists_the_model(self, program):
        (model,) = program(self.NAME).whole("list models")["data"]
        assert model["object"] == "model"

    @pytest.mark.parametrize("chat", ["chat", "chat with advanced parameters"])
    def test_a_chat_streams(self, program, chat):
        assert streamed_text(program(self.NAME).events(chat)) == "It is 好 🙂"

    def test_the_usage_comes_last(self, program):
        assert program(self.NAME).events("chat")[-1]["usage"]["total_tokens"] > 0

    def test_a_title_is_made(self, program):
        answer = program(self.NAME).whole("title")["choices"][0]["message"]["content"]
        assert json.loads(answer) == {"title": "A light"}

    def test_texts_are_embedded(self, program, demo):
        assert len(program(self.NAME, demo).whole("embed")["data"]) == 2


class TestOpenWebUiByOllama:
    NAME = "open_webui_ollama"

    def test_it_finds_the_server_and_its_model(self, program):
        web = program(self.NAME)
        assert web.whole("version")["version"]
        (model,) = web.whole("list models")["models"]
        assert {"name", "model", "modified_at", "size", "digest", "details"} <= set(model)
        assert web.whole("list loaded models")["models"]
        assert "completion" in web.whole("show")["capabilities"]

    @pytest.mark.parametrize("chat", ["chat", "chat with advanced parameters"])
    def test_a_chat_streams(self, program, chat):
        lines = program(self.NAME).lines(chat)
        assert "".join(line["message"].get("content") or "" for line in lines) == "It is 好 🙂"
        assert lines[-1]["eval_count"] > 0

    def test_texts_are_embedded(self, program, demo):
        assert len(program(self.NAME, demo).whole("embed")["embeddings"]) == 2
