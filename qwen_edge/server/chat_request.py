"""What the parsers of all dialects have in common: a ChatRequest of its parts, and the rules for parameters that
dialects share under other names. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from qwen_edge.chat.messages import ChatRequest
from qwen_edge.core.errors import RequestError
from qwen_edge.core.first import first
from qwen_edge.protocol.messages import Sampling
from qwen_edge.server.answering import Asked
from qwen_edge.server.parameters import Group
from qwen_edge.server.shapes import AnswerShape
from qwen_edge.server.thinking import Thinking
from qwen_edge.server.tool_choice import Calls

Plain = dict[str, Any]
"""A message in the form that chat templates take: content is text, calls are in OpenAI's form, and missing fields are
left out."""

_LONGEST_NAME = 200  # characters of a conversation's name, which the engine stores


def basic_completion(asked: Asked, sampling: Sampling, shape: AnswerShape) -> ChatRequest:
    """A request to continue a prompt. The parser adds what is the dialect's own with `replace`, the prompt too (as
    `raw`). The settings `chat.volatile` and `chat.stop_loops` are for chats."""
    return ChatRequest(
        messages=(),
        sampling=sampling,
        client=asked.client,
        caller=asked.caller,
        shape=shape.shape,
        shape_parameter=shape.parameter,
        shown_schema=shape.shown,
        unenforced=shape.unenforced,
    )


def basic_chat(
    asked: Asked,
    sampling: Sampling,
    messages: Sequence[Mapping[str, Any]],
    think: Thinking,
    shape: AnswerShape,
    calls: Calls,
) -> ChatRequest:
    """A request to answer messages. The parser adds what is the dialect's own with `replace`."""
    return replace(
        basic_completion(asked, sampling, shape),
        messages=tuple(messages),
        thinking=think.on,
        thinking_budget=think.budget,
        tools=calls.tools,
        call_shape=calls.shape,
        requires_call=calls.required,
        strict_calls=calls.strict,
        unenforced=(*shape.unenforced, *calls.unenforced),
        volatile=asked.defaults.volatile,
        stops_loops=asked.defaults.stop_loops,
    )


def continued(messages: list[Plain]) -> tuple[list[Plain], str]:
    """The messages, and the beginning of the answer, which the model continues: the text of an assistant's message
    that comes last, without calls, and behind other messages."""
    *before, last = messages
    if before and last["role"] == "assistant" and last["content"] and not last.get("tool_calls"):
        return before, last["content"]
    return messages, ""


def plain_call(name: str, arguments: Any, id_: str | None) -> Plain:
    """A call of the history, in OpenAI's form. Missing or empty arguments become `{}`."""
    plain = {"type": "function", "function": {"name": name, "arguments": arguments or "{}"}}
    return {"id": id_, **plain} if id_ else plain


def conversation_name(*names: str | None) -> str:
    """The client's name for its conversation: the first of these that is not empty."""
    return next((name for name in names if name), "")[:_LONGEST_NAME]


def most_tokens(body: Group, names: Sequence[str], default: int | None) -> int | None:
    """The first of the body's parameters `names` that is given; -1 asks for all that the context has room for. Raises
    RequestError."""
    asked = {name: getattr(body, name) for name in names}
    if zero := [name for name, value in asked.items() if value == 0]:
        raise RequestError(f"{zero[0]} must be 1 or more, or -1 for no limit.", parameter=zero[0])
    most: int | None = first(*asked.values(), default)
    return None if most == -1 else most


def alternatives(logprobs: bool | None, top_logprobs: int | None) -> int | None:
    """The number of alternatives to report for each token; None for no logprobs. Raises RequestError."""
    if top_logprobs and not logprobs:
        raise RequestError("top_logprobs needs logprobs: true.", parameter="top_logprobs")
    return (top_logprobs or 0) if logprobs else None
