"""The body of a chat completion: every parameter that is accepted, with its type and its limits. Pure.

Reference: https://platform.openai.com/docs/api-reference/chat/create, with parameters that clients of Qwen, vLLM,
llama-server, DeepSeek and OpenRouter send, and our own (priority, wait_seconds, max_seconds, x_...).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from qwen_edge.core.errors import RequestError
from qwen_edge.protocol.messages import Priority
from qwen_edge.renderer.handle import refuse_too_many_messages
from qwen_edge.server.openai.message import UNREADABLE, Message, Tool, ToolFunction
from qwen_edge.server.openai.shapes import ShapeParameters
from qwen_edge.server.parameters import HINT, Group, about, hint, mapped, only, read_as, read_group, read_json
from qwen_edge.server.sampling import FromZero, Limit, Seconds, StopTexts
from qwen_edge.server.thinking import Effort


class _Tools(Group):
    tools: list[Tool | None] | None = None
    functions: list[ToolFunction | None] | None = None


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


_ABSENT: Mapping[str, Any] = {"enum": [None, []]}
_STREAM = about('Server-sent events, ended by `[DONE]`; `{"include_usage": true}` adds a last chunk with the counts.')
_MOST = about("The most tokens of the answer, thinking included; -1 is no limit.")
_LOGPROBS = about(
    "The log probability of each token, and of up to 20 alternatives: after `logit_bias`, before temperature and cuts."
)
_TOOLS = about(
    "Functions the model may call; `strict` is honoured. `tool_choice`: `auto`, `none`, `required`, a function, or "
    "`allowed_tools`. See [tool calls](#tool-calls-that-fit)."
)
_LIMITS = about(
    "503 if the answer has not begun after `wait_seconds`; an answer that takes `max_seconds` ends there, with "
    '`finish_reason: "length"`. The server\'s own limits hold as well.'
)


class ChatBody(ShapeParameters, kw_only=True):
    """The chat"""

    rules: ClassVar[Mapping[str, Any]] = {
        "allOf": [
            # top_logprobs needs logprobs
            {
                "anyOf": [
                    {"properties": {"top_logprobs": {"enum": [None, 0]}}},
                    {"properties": {"logprobs": {"const": True}}, "required": ["logprobs"]},
                ]
            },
            # functions and tools are the same
            {"anyOf": [{"properties": {one: _ABSENT}} for one in ("functions", "tools")]},
        ]
    }

    messages: Annotated[
        list[Message],
        msgspec.Meta(min_length=1),
        about(
            "Roles `system`, `developer` (taken as system), `user`, `assistant`, `tool`, `function` (taken as tool). "
            "Content is text, or a list of text parts."
        ),
    ]
    model: Annotated[
        str | None,
        about(
            "Any name: the one model answers, and the answer carries its own name. With `server.model_names: listed`, "
            "only its own name and `server.model_aliases`. May be left out."
        ),
    ] = None
    stream: Annotated[bool | None, _STREAM] = None
    stream_options: Annotated[StreamOptions | None, _STREAM] = None
    usage: Annotated[UsageWish | None, mapped("stream_options.include_usage")] = None
    max_tokens: Annotated[Limit | None, _MOST] = None
    max_completion_tokens: Annotated[Limit | None, _MOST] = None
    n_predict: Annotated[Limit | None, mapped("max_tokens")] = None
    stop: Annotated[
        StopTexts | None,
        about(
            "Up to 16 texts that end the answer. Only the answer's text is searched for them: not the thinking before "
            "the answer, and not a tool call or the line breaks around a tool call. A stop text also ends an answer "
            "that keeps a shape, which is then not complete."
        ),
    ] = None
    n: Annotated[
        Annotated[int, msgspec.Meta(ge=1, le=16)] | None,
        about("Up to 16 answers; the prompt is computed once, and answer i has seed + i."),
    ] = None
    logprobs: Annotated[bool | None, _LOGPROBS] = None
    top_logprobs: Annotated[Annotated[int, msgspec.Meta(ge=0, le=20)] | None, _LOGPROBS] = None
    tools: Annotated[list[dict[str, Any] | None] | None, _TOOLS, read_as(list[Tool | None] | None)] = None
    tool_choice: Annotated[str | dict[str, Any] | None, _TOOLS] = None
    functions: Annotated[
        list[dict[str, Any] | None] | None, mapped("tools"), read_as(list[ToolFunction | None] | None)
    ] = None
    function_call: Annotated[str | dict[str, Any] | None, mapped("tool_choice")] = None
    parallel_tool_calls: Annotated[bool | None, about("`false`: the answer ends behind its first tool call.")] = None
    # thinking, by all its names
    enable_thinking: Annotated[
        bool | None,
        about(
            "Qwen3's thinking, on or off. Without it `reasoning_effort` counts, and then `/think` or `/no_think` in a "
            "message, the last one."
        ),
    ] = None
    reasoning_effort: Annotated[
        Effort | None,
        about(
            "`none` is no thinking, `minimal`, `low` and `medium` are at most 128, 512 and 2,048 tokens of thinking, "
            "`high` and what is above it have no limit but that of the settings."
        ),
    ] = None
    thinking_budget: Annotated[
        FromZero | None,
        about(
            "The most tokens of thinking; 0 is no thinking, also for a model that always thinks. See "
            "[thinking with an end](#thinking-with-an-end)."
        ),
    ] = None
    return_reasoning: Annotated[
        bool | None,
        about("`true` (the default): the thinking is sent. `false`: the model thinks, but the thinking is not sent."),
    ] = None
    reasoning_format: Annotated[
        Literal["none", "auto", "deepseek"] | None,
        about(
            "`none`: the thinking stands in the content, between `<think>` and `</think>`; `deepseek` or `auto`: in "
            "`reasoning_content`, as without it."
        ),
    ] = None
    think: Annotated[bool | Effort | None, mapped("enable_thinking or reasoning_effort")] = None
    thinking: Annotated[ThinkingSwitch | None, mapped("enable_thinking and thinking_budget")] = None
    thinking_budget_tokens: Annotated[FromZero | None, mapped("thinking_budget")] = None
    reasoning: Annotated[Reasoning | None, mapped("reasoning_effort, thinking_budget and return_reasoning")] = None
    include_reasoning: Annotated[bool | None, mapped("return_reasoning")] = None
    # the prompt, the order of the work, and what is remembered
    chat_template_kwargs: Annotated[
        dict[str, Any] | None,
        about("More variables for the model's chat template; `enable_thinking` works here too."),
    ] = None
    continue_final_message: Annotated[
        bool | None,
        about(
            "If the last message is the assistant's, the model continues its text, and only what is new is returned. "
            "`false`: it begins a new answer."
        ),
    ] = None
    x_prepare: Annotated[
        bool | None,
        about(
            "`true`: no answer; the prompt is computed for the request that will follow. See "
            "[a prompt before its question](#a-prompt-before-its-question)."
        ),
    ] = None
    x_volatile: Annotated[
        bool | None,
        about(
            "`true`: the marked parts of the system prompt, which change often, are moved to the last question; see "
            "[below](#prompts-with-a-clock-in-them)."
        ),
    ] = None
    priority: Annotated[
        Priority | None,
        about(
            "`interactive` (the default), `background` or `idle`: requests of a higher priority are computed first, "
            "and those of a lower one wait."
        ),
    ] = None
    wait_seconds: Annotated[Seconds | None, _LIMITS] = None
    max_seconds: Annotated[Seconds | None, _LIMITS] = None
    prompt_cache_key: Annotated[
        str | None,
        about(
            "A name for the conversation. A named conversation is expected to continue: it stays in memory longer than "
            "unnamed ones, and is written to disk as soon as the engine is idle (`remember`). "
            "[/metrics](#get-metrics) uses the name to find out why a prompt missed the cache."
        ),
    ] = None
    user: Annotated[
        str | None,
        about(
            "Without a `prompt_cache_key`, `user` tells [/metrics](#get-metrics) which prompts belong together. It is "
            "no reason to write a prompt to disk sooner, because Home Assistant sends a new `user` with every "
            "question. If no keys are configured, `user` also names the client whose energy budget is used "
            "([heat.md](heat.md#energy))."
        ),
    ] = None
    prompt_cache_retention: Annotated[
        Literal["in_memory", "in-memory", "24h"] | None,
        about(
            "`24h`: this prompt is pinned for a day, so it is the last to leave memory or disk. Use it for a system "
            "prompt or a manual that is needed seldom but must be fast. A prompt that an admin's key has pinned is "
            "shared with all keys ([why](settings.md#what-keys-share)). `in_memory` is the default."
        ),
    ] = None
    # labels and hints for other servers
    metadata: Annotated[dict[str, Any] | None, HINT] = None
    safety_identifier: Annotated[str | None, HINT] = None
    store: Annotated[bool | None, hint("Accepted; chat completions are not stored.")] = None
    service_tier: Annotated[str | None, HINT] = None
    add_generation_prompt: Annotated[
        bool | None, hint("Accepted; continue_final_message and the last message say whether an answer begins.")
    ] = None
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
    keep_alive: Annotated[Any, hint("Accepted; engine.unload_seconds says when the model is unloaded.")] = None
    spaces_between_special_tokens: Annotated[bool | None, HINT] = None
    xtc_threshold: Annotated[float | None, hint("Accepted; xtc_probability can only be 0.")] = None
    mirostat_tau: Annotated[float | None, hint("Accepted; mirostat can only be 0.")] = None
    mirostat_eta: Annotated[float | None, hint("Accepted; mirostat can only be 0.")] = None
    # only what happens anyway
    modalities: Annotated[list[Literal["text"] | None] | None, only(["text"], by_type=True)] = None
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
    if body.functions and body.tools:
        raise RequestError("functions and tools are the same. Send tools only.", parameter="functions")
    read_group(_Tools, {"tools": body.tools, "functions": body.functions}, ignore_unknown=True)
    return body


def _refuse_unreadable(messages: list[Any]) -> None:
    """Raises RequestError for a message with content that the model would not see."""
    for number, message in enumerate(messages):
        if isinstance(message, Mapping) and (field := next((one for one in UNREADABLE if message.get(one)), None)):
            param = f"messages[{number}].{field}"
            raise RequestError(f"{param} is not supported: remove it.", code="unsupported_value", parameter=param)
