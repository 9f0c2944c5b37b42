"""Tool calls in Qwen's Hermes form: `{"name": ..., "arguments": {...}}` between <tool_call> tags."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from qwen_edge.chat.messages import ToolCall
from qwen_edge.messages import Markers

CALL = Markers("<tool_call>", "</tool_call>")


class _Body(msgspec.Struct):
    name: str
    arguments: msgspec.Raw


def parse_call(body: str, names: Collection[str]) -> ToolCall | None:
    """The call between the tags, or None if it is not one: not JSON, no arguments object, or a tool never offered."""
    try:
        call = msgspec.json.decode(body, type=_Body)
        msgspec.json.decode(call.arguments, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    if call.name not in names:
        return None
    return ToolCall(call.name, bytes(call.arguments).decode("utf-8"))


def may_be_call(body: str) -> bool:
    """Whether the text behind an opening tag, so far, can become a call: a JSON object."""
    visible = body.lstrip(" \t\r\n")
    return not visible or visible.startswith("{")


def ends_inside_string(body: str) -> bool:
    """Whether JSON text stops in the middle of a string, so that what looks like the closing tag is part of it."""
    inside = escaped = False
    for char in body:
        if escaped:
            escaped = False
        elif inside and char == "\\":
            escaped = True
        elif char == '"':
            inside = not inside
    return inside
