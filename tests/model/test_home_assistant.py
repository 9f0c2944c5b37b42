"""Home Assistant's integration 'ollama' holds a conversation that switches a device, with its recorded requests."""

import json
import urllib.request
from typing import Any

import pytest

from tests.recorded import recorded
from tests.served import ServedModel

pytestmark = pytest.mark.model

HOME = recorded("home_assistant_ollama")
INTENTS, SCRIPT = HOME["chat"]["body"]["tools"], HOME["script_as_tool"]


@pytest.fixture(scope="module")
def served(demo_model):
    with ServedModel(demo_model, "--context", "8192") as served:
        yield served


class House:
    """The part of Home Assistant that talks to the model: asks, carries out calls, tells their results."""

    def __init__(self, served: ServedModel, tools: list[dict[str, Any]]) -> None:
        self._served, self._tools = served, tools
        self.lights = {"Kitchen light": "off", "Bedroom light": "on"}

    def say(self, text: str) -> None:
        """A conversation of one command: the answer says what has been done, in words of which this model knows few."""
        messages = [HOME["chat"]["body"]["messages"][0], {"role": "user", "content": text}]
        message = self._ask(messages)
        messages.append(message)
        for call in message["tool_calls"]:
            messages.append({"role": "tool", "content": json.dumps(self._carry_out(**call["function"]))})
        assert self._ask(messages)["content"]

    def _ask(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        options = {**HOME["chat"]["body"]["options"], "temperature": 0, "num_predict": 64}  # what is not recorded
        body = {**HOME["chat"]["body"], "messages": messages, "tools": self._tools, "options": options}
        request = urllib.request.Request(f"{self._served.address}/api/chat", json.dumps(body).encode())
        with urllib.request.urlopen(request) as response:
            pieces = [json.loads(line)["message"] for line in response]
        calls = [call for piece in pieces for call in piece.get("tool_calls", [])]
        content = "".join(piece["content"] for piece in pieces)
        return {"role": "assistant", "content": content, "tool_calls": calls}

    def _carry_out(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        state = {"HassTurnOn": "on", "set_light": arguments.get("state")}[name]
        wanted = (arguments.get("name") or arguments["room"]).lower()
        found = [light for light in self.lights if wanted in light.lower()]
        self.lights.update(dict.fromkeys(found, state))
        success = [{"name": light, "type": "entity", "id": light} for light in found]
        return {"data": {"response_type": "action_done", "data": {"success": success, "failed": []}}, "error": None}


def test_a_conversation_switches_the_device_that_was_named(served):
    """The model is a toy that has never seen Home Assistant: it chooses the right intent where few are offered."""
    house = House(served, [intent for intent in INTENTS if intent["function"]["name"] != "HassTurnOff"])
    house.say("Turn on the kitchen light")
    assert house.lights == {"Kitchen light": "on", "Bedroom light": "on"}


def test_a_script_that_the_assistant_may_use_switches_devices_on_and_off(served):
    house = House(served, [SCRIPT])
    house.say("Turn on the kitchen light")
    assert house.lights == {"Kitchen light": "on", "Bedroom light": "on"}
    house.say("turn off the bedroom light")
    assert house.lights == {"Kitchen light": "on", "Bedroom light": "off"}
