"""The values of a chat: what is asked for, and the pieces an answer comes in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from qwen_edge.protocol.messages import EVERYBODY, Caller, Logprob, MissReason, Priority, Sampling

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True)
class ChatRequest:
    """One chat completion, checked and in the model's terms.

    `messages` and `tools` are as the chat template wants them (content is always a string). `thinking` None leaves
    the choice to the model's template, `max_tokens` None to the room in the context. `choices` answers are wanted. The
    answer must begin within `wait_seconds` and takes no more than `max_seconds`; None leaves it to the server.
    `client` is the name of whoever asks, `caller` whose key it was, and `conversation` the client's name for the
    conversation; names may be empty. It `goes_on` if the client names it for the sake of what is remembered. For
    `pin_seconds` it should stay in memory. What is marked `volatile` in system messages is rendered with the last
    question (chat/volatile.py)."""

    messages: tuple[Mapping[str, Any], ...]
    sampling: Sampling
    tools: tuple[Mapping[str, Any], ...] = ()
    thinking: bool | None = None
    return_reasoning: bool = True
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    parallel_calls: bool = True
    priority: Priority = "interactive"
    choices: int = 1
    wait_seconds: float | None = None
    max_seconds: float | None = None
    client: str = ""
    caller: Caller = EVERYBODY
    conversation: str = ""
    goes_on: bool = False
    pin_seconds: float = 0.0
    volatile: bool = False


@dataclass(frozen=True)
class Reasoning:
    """A piece of what the model thinks before it answers. `logprobs`, here and below, of the tokens it came from."""

    text: str
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True)
class Content:
    """A piece of the answer."""

    text: str
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True)
class ToolCallStart:
    """A call of this tool begins. The pieces of its arguments follow, then its end, and no other delta between them."""

    name: str
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True)
class ToolCallArguments:
    """A piece of a call's arguments. All pieces together are a JSON object, letter for letter as the model wrote it."""

    text: str
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True)
class ToolCallEnd:
    """The call is whole."""

    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True)
class ToolCall:
    """One whole call, as a conversation's history has it. `logprobs` of all its pieces."""

    name: str
    arguments: str
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True)
class Usage:
    """What one answer took. `cached_tokens` of the prompt needed no computing; where more of them might have been
    spared, `missed` says why they were not. `joules` where they are measured."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    missed: MissReason | Literal[""] = ""
    joules: float | None = None


@dataclass(frozen=True)
class Finish:
    """The end of an answer, and why it ends. `logprobs` of tokens that belong to no delta."""

    reason: FinishReason
    usage: Usage
    logprobs: tuple[Logprob, ...] = ()


ToolCallDelta = ToolCallStart | ToolCallArguments | ToolCallEnd
Delta = Reasoning | Content | ToolCallDelta


class CallBuilder:
    """`add` the deltas of one answer in their order: the call comes with its last one, None with every other."""

    def __init__(self) -> None:
        self._name, self._arguments, self._logprobs = "", list[str](), list[Logprob]()

    def add(self, delta: Delta) -> ToolCall | None:
        if isinstance(delta, ToolCallStart):
            self._name, self._arguments, self._logprobs = delta.name, [], [*delta.logprobs]
        elif isinstance(delta, ToolCallArguments):
            self._arguments.append(delta.text)
            self._logprobs += delta.logprobs
        elif isinstance(delta, ToolCallEnd):
            self._logprobs += delta.logprobs
            return ToolCall(self._name, "".join(self._arguments), tuple(self._logprobs))
        return None


def whole_calls(deltas: Iterable[Delta]) -> tuple[ToolCall, ...]:
    """The calls of one answer."""
    builder = CallBuilder()
    return tuple(call for delta in deltas if (call := builder.add(delta)) is not None)


def together(usages: Sequence[Usage]) -> Usage:
    """What all answers to one request took, of which there is one at least: they have its prompt in common."""
    joules = [usage.joules for usage in usages if usage.joules is not None]
    return Usage(
        prompt_tokens=usages[0].prompt_tokens,
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        cached_tokens=min(usage.cached_tokens for usage in usages),
        missed=next((usage.missed for usage in usages if usage.missed), ""),
        joules=sum(joules) if len(joules) == len(usages) else None,
    )
