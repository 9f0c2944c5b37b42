"""Tools in the form that templates take, and tool calls in Qwen's Hermes form: `{"name": ..., "arguments": {...}}`
between <tool_call> tags."""

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
    """Sort the keys of each tool into the order of the models' training data, whatever order the client sent. The demo
    model calls no tool that is described in another order; and clients with the same tools share their prompt. Keys
    with null values are left out.

    The order within `properties` and below is kept: the tool's author chose it, and models write arguments in it."""
    return tuple(_ordered(tool, _TOOL_KEYS, function=_function) for tool in tools)


def _function(value: Any) -> Any:
    return _ordered(value, _FUNCTION_KEYS, parameters=_schema) if isinstance(value, Mapping) else value


def _schema(value: Any) -> Any:
    return _ordered(value, _SCHEMA_KEYS) if isinstance(value, Mapping) else value


def _ordered(value: Mapping[str, Any], first: Sequence[str], **inner: Callable[[Any], Any]) -> dict[str, Any]:
    """The mapping with the keys `first` at the front. `inner` has a function for each key whose value is sorted too."""
    keys = [*(key for key in first if key in value), *(key for key in value if key not in first)]
    return {key: inner.get(key, _as_it_is)(value[key]) for key in keys if value[key] is not None}


def _as_it_is(value: Any) -> Any:
    return value


def parse_call(body: str, names: Collection[str]) -> ToolCall | None:
    """The call between the tags. None if `body` is not JSON, has no arguments object, or names a tool that was not
    offered."""
    try:
        call = msgspec.json.decode(body, type=_Body)
        msgspec.json.decode(call.arguments, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    if call.name not in names:
        return None
    return ToolCall(call.name, bytes(call.arguments).decode("utf-8"))


def may_be_call(body: str) -> bool:
    """Whether the text behind an opening tag may still become a call, that is, a JSON object."""
    visible = body.lstrip(" \t\r\n")
    return not visible or visible.startswith("{")


def ends_inside_string(body: str) -> bool:
    """Whether the JSON text stops inside a string. A closing tag there is part of the string."""
    inside = escaped = False
    for char in body:
        if escaped:
            escaped = False
        elif inside and char == "\\":
            escaped = True
        elif char == '"':
            inside = not inside
    return inside
