"""Which tools a request offers, which of them may be called, and what a call must look like. Pure.

Reference: https://platform.openai.com/docs/guides/function-calling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable
from qwen_edge.protocol.messages import Shape
from qwen_edge.server.shapes import checked

Tool = dict[str, Any]

_REMEDY = 'accept calls that are not held to it: a function without "strict": true'


class Calls(NamedTuple):
    """`tools`: what the model is shown. `shape`: of a call. `required`: the answer must be a call. `strict`: the tools
    whose schemas must be kept. `unenforced`: what of the schemas calls are not held to."""

    tools: tuple[Tool, ...] = ()
    shape: Shape | None = None
    required: bool = False
    strict: tuple[str, ...] = ()
    unenforced: tuple[str, ...] = ()


class _Choice(NamedTuple):
    """`names`: the tools that may be called; None: all that are offered."""

    required: bool = False
    names: tuple[str, ...] | None = None


def call_shape(
    tools: Sequence[Tool | None] | None,
    tool_choice: str | Mapping[str, Any] | None,
    schema_at: str = "tools[{}].function.parameters",
    *,
    choice_at: str = "tool_choice",
) -> Calls:
    """`tools` and `tool_choice` in OpenAI's form; `schema_at`: where the client has put the schema of a tool, by its
    number; `choice_at`: where it has put the choice. All tools are shown, whichever of them may be called: the same
    tools make the same prompt. Raises RequestError."""
    try:
        return _call_shape(tools, tool_choice, schema_at)
    except _ChoiceError as error:
        raise RequestError(f"{choice_at} {error}.", parameter=choice_at) from None


class _ChoiceError(Exception):
    """What is wrong with the choice."""


def _call_shape(
    tools: Sequence[Tool | None] | None, tool_choice: str | Mapping[str, Any] | None, schema_at: str
) -> Calls:
    tools = tuple(tool | {"type": "function"} for tool in tools or () if tool is not None)
    if tool_choice in ("none", {"type": "none"}):
        return Calls()
    choice = _choice(tool_choice or "auto")
    offered = _offered(tools)
    if missing := [name for name in choice.names or () if name not in offered]:
        raise _ChoiceError(f"names {printable(missing[0], 60)!r}, and tools offers no such function")
    if not tools:
        if choice.required:
            raise _ChoiceError("asks for a call, and there are no tools: send tools, or leave tool_choice out")
        return Calls()
    schemas, unenforced = list[tuple[str, Mapping[str, Any]]](), list[str]()
    for name in offered if choice.names is None else choice.names:
        number, function = offered[name]
        parameter = schema_at.format(number)
        schema, ignored = _arguments(function, parameter, required=choice.required)
        schemas.append((name, schema))
        unenforced += [f"{name}: {one}" for one in ignored]
    shape = Shape("calls", msgspec.json.encode(schemas).decode())
    strict = tuple(name for name, _ in schemas if offered[name][1].get("strict") is True)
    return Calls(tools, shape, choice.required, strict, tuple(unenforced))


def _offered(tools: Sequence[Tool]) -> Mapping[str, tuple[int, Mapping[str, Any]]]:
    """Each function and its number, by name. Raises RequestError for a name that a call could not tell apart."""
    offered = dict[str, tuple[int, Mapping[str, Any]]]()
    for number, tool in enumerate(tools):
        function = tool["function"]
        if not (name := function["name"]) or name in offered:
            why = f"{printable(name, 60)!r} is the name of two tools" if name else "the name of a tool is empty"
            raise RequestError(f"tools[{number}]: {why}.", parameter=f"tools[{number}]")
        offered[name] = (number, function)
    return offered


def _choice(value: str | Mapping[str, Any]) -> _Choice:
    if value in ("auto", "required"):
        return _Choice(value == "required")
    if value == "any":  # LangChain's and Mistral's word
        return _Choice(required=True)
    if isinstance(value, Mapping):
        kind, function = value.get("type"), value.get("function")
        if kind in (None, "function") and isinstance(function, Mapping) and isinstance(function.get("name"), str):
            return _Choice(required=True, names=(function["name"],))
        if kind == "function" and isinstance(value.get("name"), str):
            return _Choice(required=True, names=(value["name"],))
        if kind == "allowed_tools":
            return _allowed(value.get("allowed_tools", value))
        if kind in ("auto", "required", "any"):
            return _choice(kind)
    raise _ChoiceError(
        'must be "auto", "none", "required", {"type": "function", "function": {"name": ...}} or allowed_tools'
    )


def _allowed(value: Any) -> _Choice:
    """OpenAI's allowed_tools: a mode, and some of the tools."""
    mode, tools = (value.get("mode", "auto"), value.get("tools")) if isinstance(value, Mapping) else (None, None)
    if mode not in ("auto", "required") or not isinstance(tools, Sequence) or not tools:
        raise _ChoiceError('allowed_tools needs a mode, "auto" or "required", and a list of tools')
    names = []
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise _ChoiceError("allowed_tools.tools must name functions")
        names.append(function["name"])
    return _Choice(mode == "required", tuple(dict.fromkeys(names)))


def _arguments(
    function: Mapping[str, Any], parameter: str, *, required: bool
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """The schema of a function's arguments, and what of it is not enforced. A schema that cannot be used is an error if
    a call is required, or the function is strict; else any object is taken."""
    schema, strict = function.get("parameters"), function.get("strict") is True
    if not schema:
        return {"type": "object", "properties": {}}, ()
    try:
        schema, unenforced = checked(schema, parameter, strict=strict, remedy=_REMEDY)
        if "object" not in (kind := schema.get("type", "object")):
            raise RequestError(
                f"{parameter}: its type must be object, as arguments have names; it is {printable(str(kind), 60)}.",
                parameter=parameter,
            )
        return {**schema, "type": "object"}, unenforced
    except RequestError as error:
        if required or strict:
            raise
        return {"type": "object"}, (f"all of its schema ({printable(error.message, 300)})",)
