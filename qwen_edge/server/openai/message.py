"""The messages and the tools in the body of a chat completion: the fields that a template can render. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import msgspec


class Text(msgspec.Struct, tag_field="type", tag="text"):
    text: str | None


class InputText(msgspec.Struct, tag_field="type", tag="input_text"):
    text: str | None


class OutputText(msgspec.Struct, tag_field="type", tag="output_text"):
    text: str | None


class Refusal(msgspec.Struct, tag_field="type", tag="refusal"):
    refusal: str | None


class ThinkingPart(msgspec.Struct, tag_field="type", tag="thinking"):
    """Reasoning of an earlier turn, as some clients keep it among the content."""

    thinking: str | None = None


Part = Text | InputText | OutputText | Refusal | ThinkingPart


class Function(msgspec.Struct):
    name: str
    arguments: str | dict[str, Any] | None = None


class Call(msgspec.Struct):
    function: Function
    id: str | None = None
    type: Literal["function"] | None = None


# fields with content for the model that no template here can render: they are refused
UNREADABLE = ("audio", "images", "partial", "videos")


class Message(msgspec.Struct):
    """The fields of a message that a template can render. Others are ignored, except `audio`, `images` and the like.
    `reasoning` is OpenRouter's and Ollama's name for `reasoning_content`; `function_call` and the role `function` are
    of clients from before there were tools."""

    rules: ClassVar[Mapping[str, Any]] = {
        "allOf": [{"properties": {name: {"enum": [None, False, 0, "", [], {}]} for name in UNREADABLE}}]
    }

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part | None] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Call | None] | None = None
    function_call: Function | None = None
    tool_call_id: str | None = None
    name: str | None = None
    refusal: str | None = None
    prefix: bool | None = None
    """DeepSeek's: the message is the beginning of the answer."""


class ToolFunction(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(msgspec.Struct):
    """A tool. `type` may be missing, because there is only one type."""

    function: ToolFunction
    type: Literal["function"] | None = None
