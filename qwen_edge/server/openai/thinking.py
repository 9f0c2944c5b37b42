"""Thinking by all the names that clients of OpenAI's two APIs have for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from qwen_edge.core.first import first
from qwen_edge.server.answering import Asked
from qwen_edge.server.openai.chat_body import ChatBody, Reasoning, ThinkingSwitch
from qwen_edge.server.openai.responses.body import ResponsesBody
from qwen_edge.server.thinking import Effort, Thinking, thinking, thinking_when_begun


def asked_thinking(
    body: ChatBody | ResponsesBody,
    asked: Asked,
    messages: Sequence[Mapping[str, Any]],
    *,
    template_switch: bool | None,
    effort: Effort | None,
    effort_parameter: str,
    begun: bool = False,
) -> Thinking:
    """Whether and how long to think. `template_switch`: enable_thinking of chat_template_kwargs. `effort`,
    `effort_parameter`: the effort by the API's own name, which counts more than its other names. Raises
    RequestError."""
    object_, reasoning = body.thinking or ThinkingSwitch(), body.reasoning or Reasoning()
    by_type = {"enabled": True, "disabled": False}.get(object_.type or "")
    think = body.think if isinstance(body.think, bool) else None
    think_effort = body.think if body.think in get_args(Effort) else None
    switch = first(body.enable_thinking, template_switch, think, by_type, reasoning.enabled)
    if begun:
        return thinking_when_begun(switch, "enable_thinking", asked.model.abilities)
    return thinking(
        switch=switch,
        effort=first(effort, body.reasoning_effort, reasoning.effort, think_effort),
        budget=first(body.thinking_budget, body.thinking_budget_tokens, object_.budget_tokens, reasoning.max_tokens),
        effort_parameter=effort_parameter,
        messages=messages,
        defaults=asked.defaults,
        can=asked.model.abilities,
    )


def returns_reasoning(body: ChatBody | ResponsesBody) -> bool:
    """Whether the client wants to see the reasoning."""
    excluded = bool(body.reasoning and body.reasoning.exclude)
    return bool(first(body.return_reasoning, body.include_reasoning, not excluded))
