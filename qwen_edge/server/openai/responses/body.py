"""The body of POST /v1/responses: every parameter that is accepted, with its type and its limits. Pure.

Reference: https://platform.openai.com/docs/api-reference/responses/create, with the further parameters of chat
completions (chat_body.py) that mean something here, and the names that the parameters have there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable
from qwen_edge.protocol.messages import Priority
from qwen_edge.renderer.handle import refuse_too_many_messages
from qwen_edge.server.openai.chat_body import ThinkingSwitch
from qwen_edge.server.openai.responses.items import Item, typed
from qwen_edge.server.openai.shapes import ShapeParameters
from qwen_edge.server.parameters import HINT, Group, hint, mapped, only, read_group, read_json
from qwen_edge.server.sampling import FromZero, Limit, Seconds, StopTexts
from qwen_edge.server.thinking import Effort

_Summary = Literal["auto", "concise", "detailed"]
Include = Literal[
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
    # of things that do not occur here
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]
WHOLE = hint("Accepted; the summary is the whole reasoning.")


class StreamOptions(Group):
    include_obfuscation: Annotated[bool | None, hint("Accepted; events are not padded.")] = None
    include_usage: Annotated[bool | None, hint("Accepted; the last event has the usage.")] = None


class ReasoningOptions(Group):
    """`max_tokens`, `enabled` and `exclude` are OpenRouter's, as in chat completions."""

    effort: Effort | None = None
    summary: Annotated[_Summary | None, WHOLE] = None
    generate_summary: Annotated[_Summary | None, WHOLE] = None
    context: Annotated[Literal["auto", "current_turn", "all_turns"] | None, hint("The chat template decides.")] = None
    mode: Annotated[str | None, only("standard", "auto")] = None
    max_tokens: FromZero | None = None
    enabled: bool | None = None
    exclude: bool | None = None


class Format(Group):
    """What the answer must look like. `type`: text, json_object or json_schema."""

    type: str | None = None
    name: str | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class TextOptions(Group):
    format: Format | None = None
    verbosity: Annotated[Literal["low", "medium", "high"] | None, HINT] = None


class FunctionTool(msgspec.Struct):
    """A function that the model may call. `strict`: true, the default, holds calls to the schema, and true in the body
    refuses a schema that cannot be kept in full."""

    name: str
    type: Literal["function"] | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ResponsesBody(ShapeParameters, kw_only=True):
    """The body, with OpenAI's names."""

    input: str | list[Item] | None = None
    instructions: str | None = None
    model: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_output_tokens: Limit | None = None
    max_tokens: Annotated[Limit | None, mapped("max_output_tokens")] = None
    max_completion_tokens: Annotated[Limit | None, mapped("max_output_tokens")] = None
    tools: list[FunctionTool | None] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: Annotated[int | None, hint("Accepted; it counts calls of built-in tools, and there are none.")] = (
        None
    )
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    include: list[Include | None] | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: dict[str, Any] | None = None
    stop: StopTexts | None = None
    # thinking, by its other names
    enable_thinking: bool | None = None
    think: Annotated[bool | Effort | None, mapped("enable_thinking or reasoning.effort")] = None
    thinking: Annotated[ThinkingSwitch | None, mapped("enable_thinking and thinking_budget")] = None
    thinking_budget: FromZero | None = None
    thinking_budget_tokens: Annotated[FromZero | None, mapped("thinking_budget")] = None
    reasoning_effort: Annotated[Effort | None, mapped("reasoning.effort")] = None
    return_reasoning: bool | None = None
    include_reasoning: Annotated[bool | None, mapped("return_reasoning")] = None
    # this server's own
    priority: Priority | None = None
    wait_seconds: Seconds | None = None
    max_seconds: Seconds | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    x_volatile: bool | None = None
    # labels for the caller's own books, and what says which conversation this is
    user: str | None = None
    prompt_cache_key: str | None = None
    # Home Assistant sends 24h with every question: a pin for each would leave no room for what was pinned on purpose
    prompt_cache_retention: Annotated[
        Literal["in_memory", "in-memory", "24h"] | None,
        hint("Accepted; prompts are kept as long as there is room. Chat completions take it as a pin."),
    ] = None
    prompt_cache_options: Annotated[Any, hint("Accepted; whatever is in the KV cache is used.")] = None
    safety_identifier: Annotated[str | None, HINT] = None
    service_tier: Annotated[str | None, HINT] = None
    background_options: Annotated[Any, hint("Accepted; background can only be false.")] = None
    # hints for other servers
    verbosity: Annotated[str | None, HINT] = None
    cache_prompt: Annotated[bool | None, hint("Accepted; whatever is in the KV cache is used.")] = None
    keep_alive: Annotated[Any, hint("Accepted; engine.unload_seconds says when the model is unloaded.")] = None
    provider: Annotated[Any, HINT] = None
    # only what happens anyway
    background: Annotated[
        bool | None, only(False, instead="Answers are computed while the client waits: leave background out.")
    ] = None
    conversation: Annotated[
        Any, only(instead="There are no conversation objects here: send previous_response_id, or all items as input.")
    ] = None
    prompt: Annotated[Any, only(instead="There are no stored prompts here: send instructions and input.")] = None
    context_management: Annotated[Any, only([], instead="There is no compaction here: send truncation.")] = None
    moderation: Annotated[Any, only()] = None
    n: Annotated[int | None, only(1)] = None


def read_body(data: bytes, *, ignore_unknown: bool) -> ResponsesBody:
    """Parse and check the body. Raises RequestError."""
    values = read_json(data)
    if isinstance(given := values.get("input"), list):
        refuse_too_many_messages(len(given))
        values["input"] = typed(given)
    if isinstance(tools := values.get("tools"), list):
        values["tools"] = [_function(tool, number) for number, tool in enumerate(tools)]
    return read_group(ResponsesBody, values, ignore_unknown=ignore_unknown)


def _function(tool: Any, number: int) -> Any:
    """The tool, if it is a function; chat completions' form of one is accepted, too. Raises RequestError for other
    kinds of tools."""
    if not isinstance(tool, Mapping):
        return tool  # the types refuse it
    kind = tool.get("type") or "function"
    if isinstance(kind, str) and kind != "function":
        raise RequestError(
            f"tools[{number}]: tools of type {printable(kind, 60)!r} are not supported here. Send functions, which the "
            "client runs itself.",
            code="unsupported_value",
            parameter=f"tools[{number}].type",
        )
    inner = tool.get("function")
    return {**inner, "type": kind} if "name" not in tool and isinstance(inner, Mapping) else dict(tool)
