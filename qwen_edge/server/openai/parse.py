"""Makes a ChatRequest of the body of a chat completion. Every error names the parameter. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qwen_edge.chat.messages import ChatRequest
from qwen_edge.core.errors import RequestError
from qwen_edge.core.first import first
from qwen_edge.server.answering import Asked
from qwen_edge.server.chat_request import (
    Plain,
    alternatives,
    basic_chat,
    continued,
    conversation_name,
    most_tokens,
    plain_call,
)
from qwen_edge.server.openai.chat_body import ChatBody
from qwen_edge.server.openai.message import Function, Message, Part, Refusal, Text, ThinkingPart
from qwen_edge.server.openai.shapes import wanted_shapes
from qwen_edge.server.openai.thinking import asked_thinking, returns_reasoning
from qwen_edge.server.sampling import sampling, stop_texts
from qwen_edge.server.shapes import answer_shape
from qwen_edge.server.tool_choice import Calls, call_shape

_DAY = 86400.0  # seconds


def to_request(body: ChatBody, asked: Asked) -> ChatRequest:
    """The request. Missing values come from the configuration first, then from the model's own defaults. Raises
    RequestError."""
    defaults = asked.defaults
    messages, begun = _beginning(body, [plain_message(message) for message in body.messages])
    arguments, switch = template_arguments(body.chat_template_kwargs)
    think = asked_thinking(
        body,
        asked,
        messages,
        template_switch=switch,
        effort=body.reasoning_effort,
        effort_parameter="reasoning_effort",
        begun=bool(begun),
    )
    answer = answer_shape(
        wanted_shapes(body), whitespace=bool(body.x_json_whitespace), shown=body.x_schema_in_prompt is not False
    )
    request = basic_chat(
        asked,
        sampling(body, asked.model.sampling, defaults, alternatives(body.logprobs, body.top_logprobs)),
        messages,
        think,
        answer,
        _calls(body),
    )
    return replace(
        request,
        return_reasoning=returns_reasoning(body),
        template_arguments=arguments,
        max_tokens=most_tokens(body, ("max_completion_tokens", "max_tokens", "n_predict"), defaults.max_tokens),
        stop=stop_texts(body.stop),
        parallel_calls=body.parallel_tool_calls is not False and not body.functions,
        priority=body.priority or "interactive",
        choices=body.n or 1,
        wait_seconds=body.wait_seconds,
        max_seconds=body.max_seconds,
        conversation=conversation_name(body.prompt_cache_key, body.user),
        goes_on=bool(body.prompt_cache_key),
        pin_seconds=_DAY if body.prompt_cache_retention == "24h" else 0.0,
        volatile=first(body.x_volatile, defaults.volatile),
        begun=begun,
    )


def _beginning(body: ChatBody, messages: list[Plain]) -> tuple[list[Plain], str]:
    """The messages, and the beginning of the answer: the content of an assistant's message that comes last, which the
    model continues, as with llama-server. vLLM's continue_final_message asks for that in words, or for the opposite:
    false lets a new answer begin."""
    for number, message in enumerate(body.messages):
        is_last = 0 < number == len(messages) - 1
        if message.prefix and not (is_last and message.role == "assistant"):
            raise RequestError(
                f"messages[{number}].prefix: only the last message, of the assistant and behind others, can begin the "
                "answer.",
                parameter=f"messages[{number}].prefix",
            )
    if body.continue_final_message and body.add_generation_prompt:
        raise RequestError(
            "add_generation_prompt begins a new answer, and continue_final_message none. Send one of them.",
            parameter="continue_final_message",
        )
    before, begun = continued(messages)
    if body.continue_final_message and not begun:
        raise RequestError(
            "continue_final_message needs a message of the assistant behind all others, with text and without calls.",
            parameter="continue_final_message",
        )
    return (messages, "") if body.continue_final_message is False else (before, begun)


def template_arguments(given: Mapping[str, Any] | None) -> tuple[dict[str, Any], bool | None]:
    """The arguments for the chat template of chat_template_kwargs, and its switch of thinking, which is among them.
    Raises RequestError."""
    arguments = dict(given or {})
    ours = {name: arguments.pop(name, None) for name in ("add_generation_prompt", "messages", "tools")}
    if taken := [name for name, value in ours.items() if value is not None]:
        raise RequestError(
            f"chat_template_kwargs may not set {taken[0]!r}: the server does.", parameter="chat_template_kwargs"
        )
    switch = arguments.pop("enable_thinking", None)
    if not isinstance(switch, bool | None):
        raise RequestError("enable_thinking must be true or false.", parameter="chat_template_kwargs")
    return arguments, switch


def _calls(body: ChatBody) -> Calls:
    """The tools, and which of them to call, also as clients sent them before there were tools. Raises RequestError."""
    call = body.function_call
    choice = first(body.tool_choice, {"function": call} if isinstance(call, dict) else call)
    named = "tool_choice" if body.tool_choice is not None or call is None else "function_call"
    if not body.functions:
        return call_shape(body.tools, choice, choice_at=named)
    tools = [None if one is None else {"function": one} for one in body.functions]
    return call_shape(tools, choice, "functions[{}].parameters", choice_at=named)


def plain_message(message: Message) -> Plain:
    """The message in the form that chat templates take."""
    parts = [Text(message.content)] if isinstance(message.content, str) else message.content or []
    content = "".join(_text(part) for part in parts if part is not None) or message.refusal or ""
    thoughts = "".join(part.thinking or "" for part in parts if isinstance(part, ThinkingPart))
    roles = {"developer": "system", "function": "tool"}
    plain: Plain = {"role": roles.get(message.role, message.role), "content": content}
    reasoning = first(message.reasoning_content, message.reasoning, thoughts or None)
    if reasoning is not None and message.role == "assistant":
        plain["reasoning_content"] = reasoning
    if calls := [_call(call.function, call.id) for call in message.tool_calls or () if call is not None]:
        plain["tool_calls"] = calls
    elif message.function_call is not None:
        plain["tool_calls"] = [_call(message.function_call)]
    if message.tool_call_id is not None:
        plain["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        plain["name"] = message.name
    return plain


def _text(part: Part) -> str:
    if isinstance(part, ThinkingPart):
        return ""
    return (part.refusal if isinstance(part, Refusal) else part.text) or ""


def _call(function: Function, id_: str | None = None) -> Plain:
    return plain_call(function.name, function.arguments, id_)
