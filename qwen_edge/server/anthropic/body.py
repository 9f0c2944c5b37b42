"""The body of a message: every parameter that is accepted, with its type and its limits. Pure.

Reference: https://docs.anthropic.com/en/api/messages and the betas, with our own (priority, wait_seconds, max_seconds)
and the parameters of sampling that other dialects have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable
from qwen_edge.protocol.messages import Priority
from qwen_edge.renderer.handle import refuse_too_many_messages
from qwen_edge.server.anthropic.blocks import CacheControl, Message, Text, refuse_unreadable
from qwen_edge.server.parameters import HINT, Group, hint, mapped, only, read_group, read_json
from qwen_edge.server.sampling import Count, FromZero, SamplingParameters, Seconds, StopTexts
from qwen_edge.server.thinking import Effort

_Body = TypeVar("_Body", bound="PromptBody")


class Tool(msgspec.Struct):
    """A tool of the client's own. Anthropic's other fields of a tool (defer_loading, input_examples, ...) are
    ignored."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    input_schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None
    type: Literal["custom"] | None = None
    cache_control: CacheControl | None = None


class ToolChoice(msgspec.Struct):
    """`name`: of the tool that must be called, with the type `tool`."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingWish(Group):
    """`adaptive`: the model thinks as long as `output_config.effort` says. `display`: `omitted` sends no thinking."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: FromZero | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(msgspec.Struct):
    """Structured output. Other fields are ignored."""

    schema: dict[str, Any]
    type: Literal["json_schema"] = "json_schema"


class OutputConfig(Group):
    """How the answer is to be."""

    effort: Effort | None = None
    format: OutputFormat | None = None
    task_budget: Annotated[Any, HINT] = None


class Metadata(msgspec.Struct):
    """`user_id`: the client's name for its user. Other fields are ignored."""

    user_id: str | None = None


class PromptBody(SamplingParameters, kw_only=True):
    """The body of a request to count tokens: all that a message may have, and `max_tokens` is optional."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    model: str | None = None
    max_tokens: Count | None = None
    system: str | list[Text] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: ThinkingWish | None = None
    stop_sequences: StopTexts | None = None
    stream: bool | None = None
    output_config: OutputConfig | None = None
    output_format: Annotated[OutputFormat | None, mapped("output_config.format")] = None
    cache_control: CacheControl | None = None
    metadata: Metadata | None = None
    priority: Priority | None = None
    wait_seconds: Seconds | None = None
    max_seconds: Seconds | None = None
    # hints
    service_tier: Annotated[str | None, HINT] = None
    speed: Annotated[str | None, HINT] = None
    inference_geo: Annotated[str | None, hint("Accepted; the answer is computed on this device.")] = None
    context_management: Annotated[Any, hint("Accepted; nothing is taken out of the messages.")] = None
    compaction: Annotated[Any, hint("Accepted; nothing is taken out of the messages.")] = None
    fallbacks: Annotated[Any, hint("Accepted; there is one model.")] = None
    fallback_credit_token: Annotated[Any, HINT] = None
    diagnostics: Annotated[Any, HINT] = None
    billing_policy: Annotated[Any, HINT] = None
    user_profile_id: Annotated[str | None, HINT] = None
    workspace_id: Annotated[str | None, HINT] = None
    anthropic_version: Annotated[str | None, HINT] = None
    anthropic_beta: Annotated[Any, HINT] = None
    betas: Annotated[Any, HINT] = None
    # only what happens anyway
    container: Annotated[Any, only(instead="There is no code execution here; leave container out.")] = None
    mcp_servers: Annotated[Any, only([], instead="Let your program call the MCP server, and offer its tools.")] = None
    thread: Annotated[Any, only()] = None

    @property
    def user(self) -> str | None:
        """The client's name for its user."""
        return self.metadata.user_id if self.metadata else None

    def cache_controls(self) -> Iterator[CacheControl]:
        """Where the client has marked the prompt as worth keeping."""
        system = self.system if isinstance(self.system, list) else []
        marked: list[Any] = [self, *(self.tools or ()), *system, *self.messages]
        while marked:
            one = marked.pop()
            if isinstance(control := getattr(one, "cache_control", None), CacheControl):
                yield control
            if isinstance(content := getattr(one, "content", None), list):
                marked += content


class MessageBody(PromptBody, kw_only=True):
    """The body of a request for a message."""

    max_tokens: Count


def read_body(kind: type[_Body], data: bytes, *, ignore_unknown: bool) -> _Body:
    """Parse and check the body. Raises RequestError."""
    values = read_json(data)
    messages, tools = values.get("messages"), values.get("tools")
    if isinstance(messages, list):
        refuse_too_many_messages(len(messages))
        refuse_unreadable(messages)
    if values.get("thread") is not None:
        raise RequestError(
            "thread: conversations are not stored here. Leave thread out, and send the whole conversation as messages.",
            code="thread_unsupported_request",  # the helpers of Anthropic's SDKs then do so themselves
            parameter="thread",
        )
    for number, tool in enumerate(tools if isinstance(tools, list) else ()):
        _refuse_servers_tool(tool, f"tools[{number}]")
    return read_group(kind, values, ignore_unknown=ignore_unknown)


def _refuse_servers_tool(tool: Any, place: str) -> None:
    """Raises RequestError for a tool that Anthropic's servers run, or whose schema Anthropic's models know by heart."""
    kind = tool.get("type") if isinstance(tool, Mapping) else None
    if isinstance(kind, str) and kind != "custom":
        raise RequestError(
            f"{place}: a tool of type {printable(kind, 80)} is not supported here. Leave it out, or offer a tool of "
            "your own with a name, a description and an input_schema.",
            code="unsupported_value",
            parameter=f"{place}.type",
        )
