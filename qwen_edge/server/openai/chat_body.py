"""The body of a chat completion: every parameter that is accepted, with its type and its limits. Pure.

Reference: https://platform.openai.com/docs/api-reference/chat/create, with parameters that clients of Qwen, vLLM,
llama-server, DeepSeek and OpenRouter send, and our own (priority, wait_seconds, max_seconds, x_...).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from qwen_edge.core.errors import RequestError
from qwen_edge.protocol.messages import Priority
from qwen_edge.renderer.handle import refuse_too_many_messages
from qwen_edge.server.openai.shapes import ShapeParameters
from qwen_edge.server.parameters import HINT, Group, hint, mapped, only, read_group, read_json
from qwen_edge.server.sampling import FromZero, StopTexts
from qwen_edge.server.thinking import Effort

Seconds = Annotated[float, msgspec.Meta(gt=0, le=1_000_000)]
Limit = Annotated[int, msgspec.Meta(ge=-1, le=2**31 - 1)]  # -1: none


class Text(msgspec.Struct, tag_field="type", tag="text"):
    text: str | None


class InputText(msgspec.Struct, tag_field="type", tag="input_text"):
    text: str | None


class OutputText(msgspec.Struct, tag_field="type", tag="output_text"):
    text: str | None


class Refusal(msgspec.Struct, tag_field="type", tag="refusal"):
    refusal: str | None


class ThinkingPart(msgspec.Struct, tag_field="type", tag="thinking"):
    """Reasoning of an earlier turn, as some clients keep it among the content."""

    thinking: str | None = None


Part = Text | InputText | OutputText | Refusal | ThinkingPart


class Function(msgspec.Struct):
    name: str
    arguments: str | dict[str, Any] | None = None


class Call(msgspec.Struct):
    function: Function
    id: str | None = None
    type: Literal["function"] | None = None


class Message(msgspec.Struct):
    """The fields of a message that a template can render. Others are ignored, except those in `_UNREADABLE`.
    `reasoning` is OpenRouter's and Ollama's name for `reasoning_content`; `function_call` and the role `function` are
    of clients from before there were tools."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part | None] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Call | None] | None = None
    function_call: Function | None = None
    tool_call_id: str | None = None
    name: str | None = None
    refusal: str | None = None
    prefix: bool | None = None
    """DeepSeek's: the message is the beginning of the answer."""


# fields with content for the model that no template here can render: they are refused
_UNREADABLE = ("audio", "images", "partial", "videos")


class ToolFunction(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(msgspec.Struct):
    """A tool. `type` may be missing, because there is only one type."""

    function: ToolFunction
    type: Literal["function"] | None = None


class _Tools(Group):
    tools: list[Tool | None]


class StreamOptions(Group):
    include_usage: bool | None = None
    include_obfuscation: Annotated[bool | None, HINT] = None
    continuous_usage_stats: Annotated[bool | None, hint("Accepted; the usage comes once, in the last chunk.")] = None


class Reasoning(Group):
    """OpenRouter's. `max_tokens` is a thinking budget; `exclude`: do not return the reasoning."""

    max_tokens: FromZero | None = None
    effort: Effort | None = None
    enabled: bool | None = None
    exclude: bool | None = None
    summary: Annotated[Any, HINT] = None


class ThinkingSwitch(Group):
    """DeepSeek's and Anthropic's."""

    type: Literal["enabled", "disabled", "adaptive"] | None = None
    budget_tokens: FromZero | None = None


class UsageWish(Group):
    """OpenRouter's: include the usage in a stream."""

    include: bool | None = None


class ChatBody(ShapeParameters, kw_only=True):
    """The body, with OpenAI's names."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: Limit | None = None
    max_tokens: Limit | None = None
    n_predict: Annotated[Limit | None, mapped("max_tokens")] = None
    stop: StopTexts | None = None
    tools: list[dict[str, Any] | None] | None = None
    tool_choice: str | dict[str, Any] | None = None
    functions: Annotated[list[dict[str, Any]] | None, mapped("tools")] = None
    function_call: Annotated[str | dict[str, Any] | None, mapped("tool_choice")] = None
    parallel_tool_calls: bool | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=16)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    priority: Priority | None = None
    wait_seconds: Seconds | None = None
    max_seconds: Seconds | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: Annotated[
        bool | None, hint("Accepted; continue_final_message and the last message say whether an answer begins.")
    ] = None
    x_volatile: bool | None = None
    # thinking, by all its names
    enable_thinking: bool | None = None
    think: Annotated[bool | Effort | None, mapped("enable_thinking or reasoning_effort")] = None
    thinking: Annotated[ThinkingSwitch | None, mapped("enable_thinking and thinking_budget")] = None
    thinking_budget: FromZero | None = None
    thinking_budget_tokens: Annotated[FromZero | None, mapped("thinking_budget")] = None
    reasoning_effort: Effort | None = None
    reasoning: Annotated[Reasoning | None, mapped("reasoning_effort, thinking_budget and return_reasoning")] = None
    return_reasoning: bool | None = None
    include_reasoning: Annotated[bool | None, mapped("return_reasoning")] = None
    reasoning_format: Literal["none", "auto", "deepseek"] | None = None
    # labels for the caller's own books, and what says which conversation this is
    user: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    metadata: Annotated[dict[str, Any] | None, HINT] = None
    safety_identifier: Annotated[str | None, HINT] = None
    store: Annotated[bool | None, hint("Accepted; chat completions are not stored.")] = None
    service_tier: Annotated[str | None, HINT] = None
    # hints for other servers
    cache_prompt: Annotated[bool | None, hint("Accepted; whatever is in the KV cache is used.")] = None
    id_slot: Annotated[int | None, HINT] = None
    n_keep: Annotated[int | None, HINT] = None
    n_cache_reuse: Annotated[int | None, HINT] = None
    timings_per_token: Annotated[bool | None, HINT] = None
    return_progress: Annotated[bool | None, HINT] = None
    verbosity: Annotated[str | None, HINT] = None
    prediction: Annotated[Any, hint("Accepted; tokens are guessed from the prompt anyway.")] = None
    provider: Annotated[Any, HINT] = None
    route: Annotated[str | None, HINT] = None
    models: Annotated[list[str] | None, hint("Accepted; there is one model.")] = None
    transforms: Annotated[Any, hint("Accepted; no message is left out.")] = None
    usage: Annotated[UsageWish | None, mapped("stream_options.include_usage")] = None
    keep_alive: Annotated[Any, hint("Accepted; engine.unload_seconds says when the model is unloaded.")] = None
    spaces_between_special_tokens: Annotated[bool | None, HINT] = None
    xtc_threshold: Annotated[float | None, hint("Accepted; xtc_probability can only be 0.")] = None
    mirostat_tau: Annotated[float | None, hint("Accepted; mirostat can only be 0.")] = None
    mirostat_eta: Annotated[float | None, hint("Accepted; mirostat can only be 0.")] = None
    # only what happens anyway
    modalities: Annotated[list[Literal["text"] | None] | None, hint("Only text.")] = None
    audio: Annotated[Any, only()] = None
    web_search_options: Annotated[Any, only()] = None
    best_of: Annotated[int | None, only(1)] = None
    use_beam_search: Annotated[bool | None, only(False)] = None
    echo: Annotated[bool | None, only(False)] = None
    mirostat: Annotated[int | None, only(0)] = None
    xtc_probability: Annotated[float | None, only(0)] = None
    tfs_z: Annotated[float | None, only(1)] = None
    top_n_sigma: Annotated[float | None, only(-1, 0)] = None
    dynatemp_range: Annotated[float | None, only(0)] = None
    samplers: Annotated[Any, only([], "", instead="The order of the samplers is llama.cpp's; leave samplers out.")] = (
        None
    )
    stop_token_ids: Annotated[list[int] | None, only([], instead="Send the texts of these tokens as stop.")] = None
    skip_special_tokens: Annotated[bool | None, only(True)] = None
    prompt_logprobs: Annotated[int | None, only(0)] = None


def read_body(data: bytes, *, ignore_unknown: bool) -> ChatBody:
    """Parse and check the body. Raises RequestError."""
    values = read_json(data)
    messages = values.get("messages")
    if isinstance(messages, list):
        refuse_too_many_messages(len(messages))
        _refuse_unreadable(messages)
    body = read_group(ChatBody, values, ignore_unknown=ignore_unknown)
    tools = body.tools if body.functions is None else [{"function": one} for one in body.functions]
    if body.functions is not None and body.tools:
        raise RequestError("functions and tools are the same. Send tools only.", parameter="functions")
    read_group(_Tools, {"tools": tools or []}, ignore_unknown=True)
    return body


def _refuse_unreadable(messages: list[Any]) -> None:
    """Raises RequestError for a message with content that the model would not see."""
    for number, message in enumerate(messages):
        if isinstance(message, Mapping) and (field := next((one for one in _UNREADABLE if message.get(one)), None)):
            param = f"messages[{number}].{field}"
            raise RequestError(f"{param} is not supported: remove it.", code="unsupported_value", parameter=param)
