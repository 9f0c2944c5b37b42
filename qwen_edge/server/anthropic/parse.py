"""Makes a ChatRequest of the body of a message. Every error names the parameter. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from qwen_edge.chat.messages import ChatRequest
from qwen_edge.core.errors import RequestError
from qwen_edge.server.answering import Asked
from qwen_edge.server.anthropic.blocks import Thinking as ThinkingBlock
from qwen_edge.server.anthropic.body import OutputConfig, PromptBody, Tool, ToolChoice
from qwen_edge.server.anthropic.history import plain_messages
from qwen_edge.server.chat_request import Plain, basic_chat, continued, conversation_name
from qwen_edge.server.sampling import sampling, stop_texts
from qwen_edge.server.shapes import Wanted, answer_shape
from qwen_edge.server.thinking import Thinking, thinking, thinking_when_begun
from qwen_edge.server.tool_choice import call_shape

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
    request = basic_chat(asked, sampling(body, asked.model.sampling, asked.defaults), messages, think, shape, calls)
    return replace(
        request,
        return_reasoning=_shows_thinking(body, asked),
        max_tokens=body.max_tokens,
        stop=stop_texts(body.stop_sequences),
        parallel_calls=not (choice and choice.disable_parallel_tool_use),
        priority=body.priority or "interactive",
        wait_seconds=body.wait_seconds,
        max_seconds=body.max_seconds,
        # clients mark their prompts by default: that is no wish of an administrator to share a prompt with all keys
        caller=msgspec.structs.replace(asked.caller, admin=False) if pin_seconds else asked.caller,
        conversation=conversation_name(body.user),
        pin_seconds=pin_seconds,
        begun=begun,
    )


def _beginning(body: PromptBody, messages: list[Plain]) -> tuple[list[Plain], str]:
    """The messages, and the beginning of the answer: the text of an assistant's message that comes last."""
    before, begun = continued(messages)
    content = body.messages[-1].content
    if begun and isinstance(content, list) and any(isinstance(block, ThinkingBlock) for block in content):
        raise RequestError(
            f"messages[{len(body.messages) - 1}]: a last message of the assistant begins the answer, behind the "
            "thinking: leave its block of type thinking out.",
            parameter=f"messages[{len(body.messages) - 1}].content",
        )
    return before, begun


def _thinking(body: PromptBody, asked: Asked, messages: Sequence[Mapping[str, Any]], *, begun: bool) -> Thinking:
    """Whether and how long to think. Clients of this API read the first block as the answer unless they have asked for
    thinking: so without a wish in the request, in a message (/think) or in the settings, the model does not think."""
    wish, can = body.thinking, asked.model.abilities.thinking
    kind = wish.type if wish else None
    if kind == "disabled" and can == "always":
        raise RequestError("thinking: this model always thinks. Leave thinking out.", parameter="thinking.type")
    if kind == "enabled" and can == "never":
        raise RequestError("thinking: this model cannot think. Leave thinking out.", parameter="thinking.type")
    off = False if can == "optional" else None
    if begun:
        return thinking_when_begun(kind == "enabled", "thinking.type", asked.model.abilities)
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
