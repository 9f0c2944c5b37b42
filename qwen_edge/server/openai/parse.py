"""Makes a ChatRequest of the body of a chat completion. Every error names the parameter. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from qwen_edge.chat.messages import ChatRequest
from qwen_edge.core.errors import RequestError
from qwen_edge.core.first import first
from qwen_edge.server.answering import Asked
from qwen_edge.server.openai.chat_body import (
    ChatBody,
    Function,
    Message,
    Part,
    Reasoning,
    Refusal,
    Text,
    ThinkingPart,
    ThinkingSwitch,
)
from qwen_edge.server.openai.shapes import wanted_shapes
from qwen_edge.server.parameters import Group
from qwen_edge.server.sampling import sampling, stop_texts
from qwen_edge.server.shapes import answer_shape
from qwen_edge.server.thinking import Effort, Thinking, thinking
from qwen_edge.server.tool_choice import Calls, call_shape

_DAY = 86400.0  # seconds
LONGEST_NAME = 200  # characters of a conversation's name, which the engine stores


def to_request(body: ChatBody, asked: Asked) -> ChatRequest:
    """The request. Missing values come from the configuration first, then from the model's own defaults. Raises
    RequestError."""
    defaults = asked.defaults
    messages, begun = _beginning(body, [plain_message(message) for message in body.messages])
    arguments, switch = template_arguments(body.chat_template_kwargs)
    think = _thinking(body, asked, messages, switch, begun=bool(begun))
    answer = answer_shape(
        wanted_shapes(body), whitespace=bool(body.x_json_whitespace), shown=body.x_schema_in_prompt is not False
    )
    calls = _calls(body)
    reasoning = body.reasoning or Reasoning()
    return ChatRequest(
        messages=tuple(messages),
        sampling=sampling(body, asked.model.sampling, defaults, _logprobs(body)),
        tools=calls.tools,
        thinking=think.on,
        return_reasoning=first(body.return_reasoning, body.include_reasoning, not reasoning.exclude),
        template_arguments=arguments,
        max_tokens=most_tokens(body, ("max_completion_tokens", "max_tokens", "n_predict"), defaults.max_tokens),
        stop=stop_texts(body.stop),
        parallel_calls=body.parallel_tool_calls is not False and not body.functions,
        priority=body.priority or "interactive",
        choices=body.n or 1,
        wait_seconds=body.wait_seconds,
        max_seconds=body.max_seconds,
        client=asked.client,
        caller=asked.caller,
        conversation=(body.prompt_cache_key or body.user or "")[:LONGEST_NAME],
        goes_on=bool(body.prompt_cache_key),
        pin_seconds=_DAY if body.prompt_cache_retention == "24h" else 0.0,
        volatile=first(body.x_volatile, defaults.volatile),
        begun=begun,
        shape=answer.shape,
        shape_parameter=answer.parameter,
        shown_schema=answer.shown,
        call_shape=calls.shape,
        requires_call=calls.required,
        strict_calls=calls.strict,
        thinking_budget=think.budget,
        stops_loops=defaults.stop_loops,
        unenforced=(*answer.unenforced, *calls.unenforced),
    )


def _beginning(body: ChatBody, messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """The messages, and the beginning of the answer: the content of an assistant's message that comes last, which the
    model continues, as with llama-server. vLLM's continue_final_message asks for that in words, or for the opposite:
    false lets a new answer begin."""
    for number, message in enumerate(body.messages):
        if message.prefix and (number + 1 < len(messages) or message.role != "assistant"):
            raise RequestError(
                f"messages[{number}].prefix: only the last message, of the assistant, can begin the answer.",
                parameter=f"messages[{number}].prefix",
            )
    if body.continue_final_message and body.add_generation_prompt:
        raise RequestError(
            "add_generation_prompt begins a new answer, and continue_final_message none. Send one of them.",
            parameter="continue_final_message",
        )
    last = messages[-1]
    has_text = last["role"] == "assistant" and last["content"] and not last.get("tool_calls")
    if body.continue_final_message and not has_text:
        raise RequestError(
            "continue_final_message needs a last message of the assistant, with text and without calls.",
            parameter="continue_final_message",
        )
    if body.continue_final_message is False or not has_text:
        return messages, ""
    return messages[:-1], last["content"]


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


def _thinking(
    body: ChatBody, asked: Asked, messages: Sequence[Mapping[str, Any]], switch: bool | None, *, begun: bool
) -> Thinking:
    """Whether and how long to think, from all the names that clients have for it."""
    object_, reasoning = body.thinking or ThinkingSwitch(), body.reasoning or Reasoning()
    types = {"enabled": True, "disabled": False}
    think = body.think if isinstance(body.think, bool) else None
    effort: Effort | None = first(
        body.reasoning_effort, reasoning.effort, body.think if body.think in get_args(Effort) else None
    )
    switch = first(body.enable_thinking, switch, think, types.get(object_.type or ""), reasoning.enabled)
    if begun and switch:
        raise RequestError(
            "The last message begins the answer, so the model cannot think before it: leave enable_thinking out, or "
            "end the messages with a question.",
            parameter="enable_thinking",
        )
    found = thinking(
        switch=switch,
        effort=effort,
        budget=first(body.thinking_budget, body.thinking_budget_tokens, object_.budget_tokens, reasoning.max_tokens),
        messages=messages,
        defaults=asked.defaults,
        can=asked.model.abilities,
    )
    return Thinking(False if asked.model.abilities.thinking == "optional" else None) if begun else found


def _calls(body: ChatBody) -> Calls:
    """The tools, and which of them to call, also as clients sent them before there were tools. Raises RequestError."""
    call = body.function_call
    choice = first(body.tool_choice, {"function": call} if isinstance(call, dict) else call)
    named = "tool_choice" if body.tool_choice is not None or call is None else "function_call"
    if not body.functions:
        return call_shape(body.tools, choice, choice_at=named)
    tools = [None if one is None else {"function": one} for one in body.functions]
    return call_shape(tools, choice, "functions[{}].parameters", choice_at=named)


def most_tokens(body: Group, names: Sequence[str], default: int | None) -> int | None:
    """The first of the body's parameters `names` that is given; -1 asks for all that the context has room for. Raises
    RequestError."""
    asked = {name: getattr(body, name) for name in names}
    if zero := [name for name, value in asked.items() if value == 0]:
        raise RequestError(f"{zero[0]} must be 1 or more, or -1 for no limit.", parameter=zero[0])
    most: int | None = first(*asked.values(), default)
    return None if most == -1 else most


def _logprobs(body: ChatBody) -> int | None:
    if body.top_logprobs and not body.logprobs:
        raise RequestError("top_logprobs needs logprobs: true.", parameter="top_logprobs")
    return (body.top_logprobs or 0) if body.logprobs else None


def plain_message(message: Message) -> dict[str, Any]:
    """The message in the form that chat templates take: content is text, calls are in OpenAI's form, missing fields are
    left out."""
    parts = [Text(message.content)] if isinstance(message.content, str) else message.content or []
    content = "".join(_text(part) for part in parts if part is not None) or message.refusal or ""
    thoughts = "".join(part.thinking or "" for part in parts if isinstance(part, ThinkingPart))
    roles = {"developer": "system", "function": "tool"}
    plain: dict[str, Any] = {"role": roles.get(message.role, message.role), "content": content}
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


def _call(function: Function, id_: str | None = None) -> Mapping[str, Any]:
    """A tool call of the history, in OpenAI's form. Missing or empty arguments become `{}`."""
    plain = {"type": "function", "function": {"name": function.name, "arguments": function.arguments or "{}"}}
    return {"id": id_, **plain} if id_ else plain
