"""A real model that was never trained for tools or JSON: every answer fits the schema that it was asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.served import ServedModel

FOLDER = os.environ.get("QE_MODELS", "")
pytestmark = pytest.mark.skipif(not FOLDER, reason="QE_MODELS names no folder with real models")

_COMMAND: dict[str, Any] = {
    "type": "object",
    "properties": {
        "device": {"enum": ["light", "heating", "blind", "fan"]},
        "room": {"type": "string", "maxLength": 30},
        "action": {"enum": ["on", "off", "set"]},
        "percent": {"type": "integer", "minimum": 0, "maximum": 100},
        "time": {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"},
        "note": {"anyOf": [{"type": "string", "maxLength": 40}, {"type": "null"}]},
    },
    "required": ["device", "room", "action", "percent", "time", "note"],
}
_SHAPE = {"type": "json_schema", "json_schema": {"name": "command", "schema": _COMMAND, "strict": True}}
_WORDS = [
    f"{deed} the {room} {device} at {hour}:30."
    for hour, room in enumerate(["kitchen", "hall", "office", "garage"], 7)
    for deed, device in [("Dim", "light"), ("Turn off", "fan"), ("Close", "blind")]
]


@pytest.fixture(scope="module")
def smollm() -> Iterator[ServedModel]:
    found = sorted(Path(FOLDER).glob("SmolLM2-*.gguf"))
    if not found:
        pytest.skip(f"there is no SmolLM2 in {FOLDER}")
    with ServedModel(found[0], "--context", "2048", settings="engine: {calibrate: false, threads: 1}") as served:
        yield served


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_every_command_fits_its_schema(smollm: ServedModel, temperature: float) -> None:
    for seed, words in enumerate(_WORDS):
        answer = smollm.ask(words, temperature=temperature, seed=seed, response_format=_SHAPE, max_tokens=250)
        assert answer["finish_reason"] == "stop", answer
        Draft202012Validator(_COMMAND).validate(json.loads(answer["content"]))


def test_a_stream_has_the_same_text_as_a_whole_answer(smollm: ServedModel) -> None:
    asked: dict[str, Any] = {"temperature": 0, "response_format": _SHAPE, "max_tokens": 250}
    assert smollm.streamed(_WORDS[0], **asked)[1] == smollm.ask(_WORDS[0], **asked)["content"]
