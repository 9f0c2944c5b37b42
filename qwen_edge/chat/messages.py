"""The values of a chat: the request, and the deltas of an answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from qwen_edge.protocol.messages import (
    EVERYBODY,
    Caller,
    Logprob,
    MissReason,
    Priority,
    Sampling,
    Shape,
    Steered,
    StoppedBy,
)

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True)
class ChatRequest:
    """One chat completion request, checked and in the model's terms.

    `messages`, `tools`: in the form that the chat template takes (content is always a string). `thinking`: None leaves
    the choice to the template. `max_tokens`: None for the rest of the context. `choices`: the number of answers.
    `wait_seconds`: within which the answer must begin; `max_seconds`: the longest time that it may take; None for the
    server's limits. `client`: the client's name; `caller`: the owner of the key; `conversation`: the client's name for
    the conversation; names may be empty. `goes_on`: whether that name announces further turns. `pin_seconds`: how long
    the conversation should stay in memory. `volatile`: whether the marked text of system messages is rendered with the
    last question (chat/volatile.py).

    `raw`: if it is not empty, the prompt, instead of messages: texts, in which special tokens are recognised, and lists
    of tokens. No template renders it, and the answer is text: neither reasoning nor calls are searched in it.

    `begun`: the beginning of the answer, which the model continues; it is no part of the answer that is returned.

    `shape`: what the answer must look like; `shape_parameter`: what the client calls it; `shown_schema`: JSON that the
    model is shown of it. `call_shape`: what a tool call must look like. `requires_call`: the answer must be a call.
    `strict_calls`: the tools whose schemas must be kept, or the request is refused. `thinking_budget`: tokens after
    which the reasoning is ended. `stops_loops`: whether text that repeats itself without end is ended. `unenforced`:
    what of the schemas answers are not held to. `prepares`: nobody waits for the
    answer: a request with the same beginning is expected soon."""

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
    raw: tuple[str | tuple[int, ...], ...] = ()
    begun: str = ""
    shape: Shape | None = None
    shape_parameter: str | None = None
    shown_schema: str = ""
    call_shape: Shape | None = None
    requires_call: bool = False
    strict_calls: tuple[str, ...] = ()
    thinking_budget: int | None = None
    stops_loops: bool = False
    unenforced: tuple[str, ...] = ()
    prepares: bool = False

    @property
    def must_keep_shape(self) -> bool:
        """Whether the answer cannot be any text."""
        return self.shape is not None or self.requires_call


@dataclass(frozen=True)
class Reasoning:
    """A piece of the model's reasoning before the answer. `logprobs`, here and below: of the tokens of this piece."""

    text: str
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True)
class Content:
    """A piece of the answer."""

    text: str
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True)
class ToolCallStart:
    """A call of the named tool begins. Its ToolCallArguments follow, then ToolCallEnd, with no other delta between."""

    name: str
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True)
class ToolCallArguments:
    """A piece of a call's arguments. The joined pieces are a JSON object, exactly as the model wrote it."""

    text: str
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True)
class ToolCallEnd:
    """The call is complete."""

    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True)
class ToolCall:
    """One complete tool call, as in the history of a conversation. `logprobs`: of all its tokens."""

    name: str
    arguments: str
    logprobs: tuple[Logprob, ...] = ()


@dataclass(frozen=True)
class Usage:
    """The usage of one answer. `cached_tokens`: tokens of the prompt that were in the KV cache. `missed`: why not more
    of them were, if more were possible. `joules`: None if power is not measured. `reasoning_tokens`: how many of the
    answer's tokens are reasoning. `steered`: the work of shapes. `prefill_seconds`: until the first token of the
    answer; `decode_seconds`: from then on."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    missed: MissReason | Literal[""] = ""
    joules: float | None = None
    reasoning_tokens: int = 0
    steered: Steered = field(default_factory=Steered)
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0


@dataclass(frozen=True)
class Finish:
    """The end of an answer, and its reason. `logprobs`: of tokens that belong to no delta. `stopped_by`, `stop_text`:
    as in Done."""

    reason: FinishReason
    usage: Usage
    logprobs: tuple[Logprob, ...] = ()
    stopped_by: StoppedBy | Literal[""] = ""
    stop_text: str = ""


ToolCallDelta = ToolCallStart | ToolCallArguments | ToolCallEnd
Delta = Reasoning | Content | ToolCallDelta


class CallBuilder:
    """Builds tool calls from the deltas of one answer. `add` returns a call at its ToolCallEnd, and None otherwise. A
    call whose ToolCallEnd has not come is `unfinished`: the end of the answer has cut its arguments."""

    def __init__(self) -> None:
        self._name, self._arguments, self._logprobs = "", list[str](), list[Logprob]()
        self._open = False

    @property
    def unfinished(self) -> ToolCall | None:
        return self._call() if self._open else None

    def add(self, delta: Delta) -> ToolCall | None:
        if isinstance(delta, ToolCallStart):
            self._open = True
            self._name, self._arguments, self._logprobs = delta.name, [], [*delta.logprobs]
        elif isinstance(delta, ToolCallArguments):
            self._arguments.append(delta.text)
            self._logprobs += delta.logprobs
        elif isinstance(delta, ToolCallEnd):
            self._logprobs += delta.logprobs
            self._open = False
            return self._call()
        return None

    def _call(self) -> ToolCall:
        return ToolCall(self._name, "".join(self._arguments), tuple(self._logprobs))


def whole_calls(deltas: Iterable[Delta]) -> tuple[ToolCall, ...]:
    """The complete tool calls of one answer."""
    builder = CallBuilder()
    return tuple(call for delta in deltas if (call := builder.add(delta)) is not None)


def combined_usage(usages: Sequence[Usage]) -> Usage:
    """The usage of all answers to one request, which share its prompt. `usages` has at least one element."""
    joules = [usage.joules for usage in usages if usage.joules is not None]
    return Usage(
        prompt_tokens=usages[0].prompt_tokens,
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        cached_tokens=min(usage.cached_tokens for usage in usages),
        missed=next((usage.missed for usage in usages if usage.missed), ""),
        joules=sum(joules) if len(joules) == len(usages) else None,
        reasoning_tokens=sum(usage.reasoning_tokens for usage in usages),
        steered=Steered(
            sum(usage.steered.forced for usage in usages),
            sum(usage.steered.masks for usage in usages),
            sum(usage.steered.seconds for usage in usages),
        ),
        prefill_seconds=max(usage.prefill_seconds for usage in usages),
        decode_seconds=max(usage.decode_seconds for usage in usages),
    )


def summed_usage(usages: Sequence[Usage]) -> Usage:
    """The usage of requests with prompts of their own, which came in one HTTP request. `usages` has at least one
    element."""
    return replace(
        combined_usage(usages),
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in usages),
    )
