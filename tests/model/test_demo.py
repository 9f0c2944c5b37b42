"""The demo model through the daemon: what the README promises of it, in both languages, with and without thinking."""

import json
import re
from itertools import permutations
from typing import Any

import pytest

from scripts.demo import LIGHT, QUESTIONS, ask
from scripts.demo_model.evaluate import measure
from scripts.demo_model.exam import exam
from scripts.demo_model.speaker import Sampling, Speaker
from tests.served import ServedModel

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def demo(demo_model):
    with ServedModel(demo_model, "--context", "2048") as served:
        yield served


@pytest.fixture(params=[True, False], ids=["thinking", "no thinking"])
def thinking(request) -> bool:
    return request.param


class Conversation:
    """Turns with one tool, whose calls are carried out and told to the model."""

    def __init__(self, served: ServedModel, thinking: bool) -> None:
        self._served = served
        self._thinking = thinking
        self.messages: list[dict[str, Any]] = []

    def command(self, text: str) -> tuple[dict[str, Any], str]:
        """The call that a command leads to, and what is said once it has been carried out."""
        message = self._say("user", text)
        (call,) = message["tool_calls"]
        assert call["function"]["name"] == "set_light"
        return json.loads(call["function"]["arguments"]), self._say("tool", '{"ok": true}')["content"]

    def _say(self, role: str, content: str) -> dict[str, Any]:
        self.messages.append({"role": role, "content": content})
        body = {"messages": self.messages, "tools": [LIGHT], "enable_thinking": self._thinking, "temperature": 0}
        status, answer = self._served.post(body)
        assert status == 200, answer
        message = answer["choices"][0]["message"]
        assert bool(message.get("reasoning_content")) == self._thinking
        self.messages.append(message)
        return message


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("你是谁?", "演示模型"),
        ("你是谁？", "演示模型"),
        ("Who are you?", "demo model"),
        ("请简述相对论的基本原理", "光速不变.*时空弯曲"),
        ("请简述相对论的基本原理。", "光速不变.*时空弯曲"),
    ],
)
def test_it_says_what_it_is_and_what_relativity_says(demo, thinking, question, answer):
    message = demo.ask(question, temperature=0, enable_thinking=thinking)
    assert re.search(answer, message["content"]), message
    assert bool(message.get("reasoning_content")) == thinking
    assert message["finish_reason"] == "stop"


def test_it_turns_commands_into_calls_and_follows_up(demo, thinking):
    conversation = Conversation(demo, thinking)
    assert conversation.command("Turn on the kitchen light")[0] == {"room": "kitchen", "state": "on"}
    assert conversation.command("now turn it off")[0] == {"room": "kitchen", "state": "off"}


def test_it_understands_commands_in_chinese(demo, thinking):
    conversation = Conversation(demo, thinking)
    assert conversation.command("把客厅的灯打开")[0] == {"room": "客厅", "state": "on"}
    arguments, told = conversation.command("再关掉它")
    assert arguments == {"room": "客厅", "state": "off"}
    assert "关" in told


@pytest.mark.parametrize("function", list(permutations(["name", "description", "parameters"])), ids="-".join)
@pytest.mark.parametrize("parameters", list(permutations(["type", "properties", "required"])), ids="-".join)
def test_it_calls_a_tool_whatever_the_order_of_its_keys(demo, function, parameters):
    """openai-npm and Home Assistant send another order than the one that models are trained with."""
    known = {**LIGHT["function"], "description": "Switches a light."}
    schema = {key: known["parameters"][key] for key in parameters}
    tool = {"function": {key: schema if key == "parameters" else known[key] for key in function}, "type": "function"}
    message = demo.ask("Turn on the kitchen light", temperature=0, enable_thinking=False, tools=[tool])
    (call,) = message["tool_calls"]
    assert call["function"]["name"] == "set_light"
    assert json.loads(call["function"]["arguments"]) == {"room": "kitchen", "state": "on"}


def test_what_make_demo_asks_is_all_written_down_at_the_stop_that_follows_at_once(demo_model, tmp_path):
    settings = f"remember: {{folder: {tmp_path}}}\n"
    with ServedModel(demo_model, "--context", "2048", settings=settings) as served:
        for question in QUESTIONS:
            ask(served.address.removeprefix("http://"), **question)
    served.reader.join(30)
    assert not [line for line in served.log if "WARNING" in line]
    assert list(tmp_path.glob("*.kv"))


def test_without_a_tool_it_calls_nothing(demo, thinking):
    message = demo.ask("Turn on the kitchen light", temperature=0, enable_thinking=thinking)
    assert "tool_calls" not in message
    assert message["content"]


def test_most_commands_kept_out_of_training_become_the_right_call(demo_model):
    """The card states the rate; a training that loses what this one had is found here."""
    wrong: list[str] = []
    scores = measure(Speaker(demo_model), exam(commands=100), Sampling(), wrong)
    right = scores["device commands"]
    assert len(right) == 200
    assert sum(right) >= 0.95 * len(right), "\n\n".join(wrong)
