"""The values of a chat: what is asked for, and the pieces an answer comes in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qwen_edge.messages import Done, Sampling


@dataclass(frozen=True)
class ChatRequest:
    """One chat completion, checked and in the model's terms.

    `messages` and `tools` are as the chat template wants them (content is always a string). `thinking` None leaves
    the choice to the model's template, `max_tokens` None to the room in the context."""

    messages: tuple[Mapping[str, Any], ...]
    sampling: Sampling
    tools: tuple[Mapping[str, Any], ...] = ()
    thinking: bool | None = None
    return_reasoning: bool = True
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    parallel_calls: bool = True


@dataclass(frozen=True)
class Reasoning:
    """A piece of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True)
class Content:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class ToolCall:
    """One whole call; `arguments` is a JSON object, letter for letter as the model wrote it."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Finish:
    """The end of an answer. `reason` is OpenAI's finish_reason: stop, length or tool_calls."""

    reason: str
    done: Done


Delta = Reasoning | Content | ToolCall
