"""Tools as templates get them, and calls in Qwen's Hermes form: `{"name": ..., "arguments": {...}}` between <tool_call>
tags."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from qwen_edge.chat.messages import ToolCall
from qwen_edge.protocol.messages import Markers

CALL = Markers("<tool_call>", "</tool_call>")

_TOOL_KEYS = ("type", "function")
_FUNCTION_KEYS = ("name", "description", "parameters")
_SCHEMA_KEYS = ("type", "properties", "required")


class _Body(msgspec.Struct):
    name: str
    arguments: msgspec.Raw


def in_order(tools: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The tools with their keys in the one order in which models were trained to read them, whatever order the client
    sent: the demo model makes no call of a tool that is described the other way round, and two clients with the same
    tools share their prompt. Keys that are null are left out, as if they had not been sent.

    The order within `properties` and below stays as it is: there it is the author's own, and models write arguments in
    it."""
    return tuple(_ordered(tool, _TOOL_KEYS, function=_function) for tool in tools)


def _function(value: Any) -> Any:
    return _ordered(value, _FUNCTION_KEYS, parameters=_schema) if isinstance(value, Mapping) else value


def _schema(value: Any) -> Any:
    return _ordered(value, _SCHEMA_KEYS) if isinstance(value, Mapping) else value


def _ordered(value: Mapping[str, Any], first: Sequence[str], **inner: Callable[[Any], Any]) -> dict[str, Any]:
    """The mapping with these keys first; `inner` puts the value of a key in order."""
    keys = [*(key for key in first if key in value), *(key for key in value if key not in first)]
    return {key: inner.get(key, _as_it_is)(value[key]) for key in keys if value[key] is not None}


def _as_it_is(value: Any) -> Any:
    return value


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
