"""The answers of a chat completion as types, for /openapi.json: the whole answer, and the chunks of a stream.

`encode.py` writes them; tests hold its output to these types.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from qwen_edge.protocol.messages import StoppedBy

Finish = Literal["stop", "length", "tool_calls", "function_call"]


class Answer(msgspec.Struct, forbid_unknown_fields=True):
    """What all structs of this file have in common: they have no other fields."""


class Token(Answer):
    """A token that was possible here. `bytes`: its text, which may be a part of a character."""

    token: str
    logprob: float
    bytes: list[int]


class ChosenToken(Token):
    """A token of the answer, and the likeliest ones in its place."""

    top_logprobs: list[Token]


class Logprobs(Answer):
    """The log probabilities of an answer's tokens, or of those of a chunk."""

    content: list[ChosenToken]
    refusal: None


class CalledFunction(Answer):
    """A call's function. `arguments` is the text of a JSON object."""

    name: str
    arguments: str


class AnswerCall(Answer):
    """A tool call."""

    id: str
    function: CalledFunction
    type: Literal["function"]


class AnswerMessage(Answer):
    """`function_call` stands in place of `tool_calls` if the request has `functions`."""

    role: Literal["assistant"]
    content: str | None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[AnswerCall] | UnsetType = UNSET
    function_call: CalledFunction | UnsetType = UNSET


class Choice(Answer):
    """One answer. `x_stopped`: what ended the answer, if neither the model nor a limit did."""

    index: int
    message: AnswerMessage
    logprobs: Logprobs | None
    finish_reason: Finish
    x_stopped: StoppedBy | UnsetType = UNSET


class PromptDetails(Answer):
    """`cached_tokens`: tokens of the prompt that were in the KV cache."""

    cached_tokens: int


class CompletionDetails(Answer):
    """`x_forced_tokens`: tokens that a shape left no choice for."""

    reasoning_tokens: int
    x_forced_tokens: int


class UsageCounts(Answer):
    """Tokens, and, where power is measured, joules."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails
    energy_joules: float | UnsetType = UNSET
    tokens_per_joule: float | UnsetType = UNSET


class Timings(Answer):
    """llama-server's: tokens and milliseconds. Of the prompt, `prompt_n` were computed, `cache_n` in the KV cache."""

    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float
    predicted_per_second: float


class ChatCompletion(Answer, tag_field="object", tag="chat.completion"):
    """The whole answer. `created`: seconds since 1970."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: list[Choice]
    usage: UsageCounts
    timings: Timings


class PreparedChat(Answer, tag_field="object", tag="chat.completion.prepared"):
    """The answer to x_prepare, sent at once: how many tokens the prompt has that is being computed."""

    prompt_tokens: int


class FunctionPiece(Answer):
    """The name comes first, then pieces of the arguments."""

    arguments: str
    name: str | UnsetType = UNSET


class CallPiece(Answer):
    """A piece of the call with this index; the first one has `id` and `type`."""

    index: int
    function: FunctionPiece
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class ChunkDelta(Answer):
    """What is new in a chunk."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[CallPiece] | UnsetType = UNSET
    function_call: FunctionPiece | UnsetType = UNSET


class ChunkChoice(Answer):
    """As Choice; only the last chunk of an answer has a `finish_reason`."""

    index: int
    delta: ChunkDelta
    logprobs: Logprobs | None
    finish_reason: Finish | None
    x_stopped: StoppedBy | UnsetType = UNSET


class ChatChunk(Answer):
    """The data of an event. The last chunk has the usage instead of choices, if the request asks for the usage."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    object: Literal["chat.completion.chunk"]
    choices: list[ChunkChoice]
    usage: UsageCounts | UnsetType = UNSET
    timings: Timings | UnsetType = UNSET
