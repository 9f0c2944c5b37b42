"""The items of the Responses API, of which the input, a stored history and an answer's output consist. Pure.

Reference: https://platform.openai.com/docs/api-reference/responses/create#responses-create-input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable

Status = Literal["in_progress", "completed", "incomplete"]


class InputText(msgspec.Struct, tag_field="type", tag="input_text"):
    text: str


class OutputText(msgspec.Struct, tag_field="type", tag="output_text"):
    text: str
    annotations: list[Any] | None = None


class PlainText(msgspec.Struct, tag_field="type", tag="text"):
    """A part as chat completions have it: some clients mix the two."""

    text: str


class Refusal(msgspec.Struct, tag_field="type", tag="refusal"):
    refusal: str


class SummaryText(msgspec.Struct, tag_field="type", tag="summary_text"):
    text: str


class ReasoningText(msgspec.Struct, tag_field="type", tag="reasoning_text"):
    text: str


Part = InputText | OutputText | PlainText | Refusal


class Message(msgspec.Struct, tag_field="type", tag="message", omit_defaults=True):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Part]
    id: str | None = None
    status: Status | None = None
    phase: str | None = None


class FunctionCall(msgspec.Struct, tag_field="type", tag="function_call", omit_defaults=True):
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: Status | None = None


class FunctionCallOutput(msgspec.Struct, tag_field="type", tag="function_call_output", omit_defaults=True):
    call_id: str
    output: str | list[Part]
    id: str | None = None
    status: Status | None = None


class Reasoning(msgspec.Struct, tag_field="type", tag="reasoning", omit_defaults=True):
    """`encrypted_content`: what this server has sent as such (reasoning_text.py)."""

    summary: list[SummaryText]
    id: str | None = None
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = None
    status: Status | None = None


class ItemReference(msgspec.Struct, tag_field="type", tag="item_reference"):
    """Stands for the item of a stored response with this id."""

    id: str


Item = Message | FunctionCall | FunctionCallOutput | Reasoning | ItemReference

_KINDS = ("message", "function_call", "function_call_output", "reasoning", "item_reference")
_TEXTS = ("input_text", "output_text", "text", "refusal")
_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}
_DIGITS = 4  # hexadecimal, of an item's number


def typed(values: Sequence[Any]) -> list[Any]:
    """The items of a body, each with the type that the reference lets clients leave out. Raises RequestError for an
    item or a part that this server cannot give to the model."""
    return [_typed(value, f"input[{number}]") for number, value in enumerate(values)]


def _typed(value: Any, where: str) -> Any:
    if not isinstance(value, Mapping):
        return value  # the types refuse it
    kind = value.get("type") or ("message" if "role" in value else "item_reference" if "id" in value else None)
    if isinstance(kind, str) and kind not in _KINDS:
        raise RequestError(
            f"{where}: items of type {printable(kind, 60)!r} are not supported here. Leave the item out; supported "
            f"are {', '.join(_KINDS)}.",
            code="unsupported_value",
            parameter=f"{where}.type",
        )
    for field in ("content", "output"):
        for number, part in enumerate(parts if isinstance(parts := value.get(field), list) else ()):
            _refuse_no_text(part, kind, f"{where}.{field}[{number}]")
    typed = {**value, "type": kind} if kind else dict(value)
    if kind == "reasoning" and typed.get("summary") is None:
        typed["summary"] = []
    return typed


def _refuse_no_text(part: Any, kind: Any, where: str) -> None:
    type_ = part.get("type") if isinstance(part, Mapping) else None
    if kind == "reasoning" or not isinstance(type_, str) or type_ in _TEXTS:
        return
    raise RequestError(
        f"{where}: parts of type {printable(type_, 60)!r} are not supported here, because the model reads text only. "
        "Send the content as text, or leave the part out.",
        code="unsupported_value",
        parameter=where,
    )


def new_id(kind: str, response: str, number: int) -> str:
    """The id of the item with this number in a response: it tells in which response the item is."""
    return f"{_PREFIXES[kind]}_{response.partition('_')[2]}{number:0{_DIGITS}x}"


def response_of(item: str) -> str:
    """The id of the response that gave the item its id."""
    return f"resp_{item.partition('_')[2][:-_DIGITS]}"


def named(items: Sequence[Item], response: str) -> list[dict[str, Any]]:
    """The items as they are stored and listed: each with an id and a status, and content as parts."""
    return [_named(item, response, 0x8000 + number) for number, item in enumerate(items)]


def _named(item: Item, response: str, number: int) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.to_builtins(item)
    if isinstance(item, Message):
        answer = item.role == "assistant"
        values["content"] = [_part(part, answer) for part in parts_of(item.content)]
    values["id"] = item.id or new_id(values["type"], response, number)
    if not isinstance(item, Reasoning):
        values["status"] = values.get("status") or "completed"
    return values


def _part(part: Part, answer: bool) -> dict[str, Any]:
    if isinstance(part, Refusal):
        return {"type": "refusal", "refusal": part.refusal}
    return (
        {"type": "output_text", "text": part.text, "annotations": []}
        if answer
        else {"type": "input_text", "text": part.text}
    )


def parts_of(content: str | Sequence[Part]) -> list[Part]:
    return [InputText(content)] if isinstance(content, str) else list(content)


def text_of(content: str | Sequence[Part]) -> str:
    """The text of a message or of a function's output."""
    return "".join(part.refusal if isinstance(part, Refusal) else part.text for part in parts_of(content))
