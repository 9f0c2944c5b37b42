"""Makes a ChatRequest of the body of a message. Every error names the parameter. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from qwen_edge.chat.messages import ChatRequest
from qwen_edge.core.errors import RequestError
from qwen_edge.server.answering import Asked
from qwen_edge.server.anthropic.blocks import Thinking as ThinkingBlock
from qwen_edge.server.anthropic.body import OutputConfig, PromptBody, Tool, ToolChoice
from qwen_edge.server.anthropic.history import Plain, plain_messages
from qwen_edge.server.sampling import sampling, stop_texts
from qwen_edge.server.shapes import Wanted, answer_shape
from qwen_edge.server.thinking import Thinking, thinking
from qwen_edge.server.tool_choice import call_shape

_NAME = 200  # characters of a conversation's name, which the engine stores
_REMEDY = "check the answer for it in your program"


def to_request(body: PromptBody, asked: Asked) -> ChatRequest:
    """The request. Missing values come from the configuration first, then from the model's own defaults. Raises
    RequestError."""
    messages, begun = _beginning(body, plain_messages(body.system, body.messages))
    think = _thinking(body, asked, messages, begun=bool(begun))
    shape = answer_shape(_wanted(body), remedy=_REMEDY)
    choice = body.tool_choice
    calls = call_shape([_tool(tool) for tool in body.tools or ()], _choice(choice), "tools[{}].input_schema")
    pin_seconds = max((control.seconds for control in body.cache_controls()), default=0.0)
    return ChatRequest(
        messages=tuple(messages),
        sampling=sampling(body, asked.model.sampling, asked.defaults),
        tools=calls.tools,
        thinking=think.on,
        return_reasoning=_shows_thinking(body, asked),
        max_tokens=body.max_tokens,
        stop=stop_texts(body.stop_sequences),
        parallel_calls=not (choice and choice.disable_parallel_tool_use),
        priority=body.priority or "interactive",
        wait_seconds=body.wait_seconds,
        max_seconds=body.max_seconds,
        client=asked.client,
        # clients mark their prompts by default: that is no wish of an administrator to share a prompt with all keys
        caller=msgspec.structs.replace(asked.caller, admin=False) if pin_seconds else asked.caller,
        conversation=(body.user or "")[:_NAME],
        pin_seconds=pin_seconds,
        volatile=asked.defaults.volatile,
        begun=begun,
        shape=shape.shape,
        shape_parameter=shape.parameter,
        shown_schema=shape.shown,
        call_shape=calls.shape,
        requires_call=calls.required,
        strict_calls=calls.strict,
        thinking_budget=think.budget,
        stops_loops=asked.defaults.stop_loops,
        unenforced=(*shape.unenforced, *calls.unenforced),
    )


def _beginning(body: PromptBody, messages: list[Plain]) -> tuple[list[Plain], str]:
    """The messages, and the beginning of the answer: the text of an assistant's message that comes last."""
    last, content = messages[-1], body.messages[-1].content
    if last["role"] != "assistant" or last.get("tool_calls") or not last["content"]:
        return messages, ""
    if isinstance(content, list) and any(isinstance(block, ThinkingBlock) for block in content):
        raise RequestError(
            f"messages[{len(body.messages) - 1}]: a last message of the assistant begins the answer, behind the "
            "thinking: leave its block of type thinking out.",
            parameter=f"messages[{len(body.messages) - 1}].content",
        )
    return messages[:-1], last["content"]


def _thinking(body: PromptBody, asked: Asked, messages: Sequence[Mapping[str, Any]], *, begun: bool) -> Thinking:
    """Whether and how long to think. Clients of this API read the first block as the answer unless they have asked for
    thinking: so without a wish in the request, in a message (/think) or in the settings, the model does not think."""
    wish, can = body.thinking, asked.model.abilities.thinking
    kind = wish.type if wish else None
    if kind == "disabled" and can == "always":
        raise RequestError("thinking: this model always thinks. Leave thinking out.", parameter="thinking.type")
    if kind == "enabled" and can == "never":
        raise RequestError("thinking: this model cannot think. Leave thinking out.", parameter="thinking.type")
    if begun and kind == "enabled":
        raise RequestError(
            "thinking: the last message begins the answer, so the model cannot think before it. Leave thinking out, or "
            "end the messages with a question.",
            parameter="thinking.type",
        )
    off = False if can == "optional" else None
    if begun:
        return Thinking(off)
    effort = (body.output_config or OutputConfig()).effort if kind else None
    found = thinking(
        switch={"enabled": True, "disabled": False}.get(kind or ""),
        effort=effort or ("high" if kind == "adaptive" else None),
        budget=wish.budget_tokens if wish else None,
        effort_parameter="output_config.effort",
        messages=messages,
        defaults=asked.defaults,
        can=asked.model.abilities,
    )
    return Thinking(off, found.budget) if found.on is None and not kind else found


def _shows_thinking(body: PromptBody, asked: Asked) -> bool:
    """A model that always thinks does so unseen, unless the request or the settings ask for thinking."""
    if body.thinking:
        return body.thinking.display != "omitted"
    return asked.model.abilities.thinking != "always" or bool(asked.defaults.thinking)


def _wanted(body: PromptBody) -> list[Wanted]:
    """All shapes that the body asks for; a request may ask for one."""
    form = body.output_config.format if body.output_config else None
    forms = {"output_config.format.schema": form, "output_format.schema": body.output_format}
    return [Wanted(parameter, "json_schema", form.schema) for parameter, form in forms.items() if form]


def _tool(tool: Tool) -> dict[str, Any]:
    """In OpenAI's form, which the templates take."""
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"function": function}


def _choice(choice: ToolChoice | None) -> str | Mapping[str, Any] | None:
    """In OpenAI's form. Raises RequestError."""
    if choice is None:
        return None
    if choice.type != "tool":
        return choice.type
    if not choice.name:
        raise RequestError('tool_choice.name is missing: with the type "tool" it names the tool.',
                           parameter="tool_choice.name")  # fmt: skip
    return {"type": "function", "function": {"name": choice.name}}
