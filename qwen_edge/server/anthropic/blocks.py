"""The messages of a request: their content blocks, with the fields that count here. Other fields are ignored. Pure.

Reference: https://docs.anthropic.com/en/api/messages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable


class CacheControl(msgspec.Struct):
    """The prompt is to stay in memory for `ttl`; without it for five minutes."""

    type: Literal["ephemeral"] = "ephemeral"
    ttl: Literal["5m", "1h"] | None = None

    @property
    def seconds(self) -> float:
        return 3600.0 if self.ttl == "1h" else 300.0


class Text(msgspec.Struct, tag_field="type", tag="text"):
    text: str
    cache_control: CacheControl | None = None


class Thinking(msgspec.Struct, tag_field="type", tag="thinking"):
    """The signature is not checked: whoever sends the history may write what it likes."""

    thinking: str
    signature: str | None = None


class RedactedThinking(msgspec.Struct, tag_field="type", tag="redacted_thinking"):
    """Thinking that only the server that has written it can read. It is left out."""

    data: str | None = None


class ToolUse(msgspec.Struct, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any]
    cache_control: CacheControl | None = None


class PlainSource(msgspec.Struct, tag_field="type", tag="text"):
    data: str


class BlocksSource(msgspec.Struct, tag_field="type", tag="content"):
    content: str | list[Text]


class Document(msgspec.Struct, tag_field="type", tag="document"):
    """A document whose content is text."""

    source: PlainSource | BlocksSource
    title: str | None = None
    context: str | None = None
    cache_control: CacheControl | None = None


class SearchResult(msgspec.Struct, tag_field="type", tag="search_result"):
    content: list[Text]
    source: str | None = None
    title: str | None = None
    cache_control: CacheControl | None = None


class ToolResult(msgspec.Struct, tag_field="type", tag="tool_result"):
    tool_use_id: str
    content: str | list[Text | Document | SearchResult] | None = None
    is_error: bool | None = None
    cache_control: CacheControl | None = None


Readable = Text | Document | SearchResult
Block = Text | Thinking | RedactedThinking | ToolUse | ToolResult | Document | SearchResult


class Message(msgspec.Struct):
    """One turn. `system` may stand between others, too."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block] | None = None


_KNOWN = frozenset(kind.__struct_config__.tag for kind in (Text, Thinking, RedactedThinking, ToolUse, ToolResult,
                                                           Document, SearchResult))  # fmt: skip
_IN_RESULTS = frozenset({"text", "document", "search_result"})
_PICTURES = ("image", "audio", "video")


def refuse_unreadable(messages: Sequence[Any]) -> None:
    """Raises RequestError for a block that the model cannot read. It names the block's place. `messages` are as the
    client has sent them; what has another form than blocks have is left to the types."""
    for number, message in enumerate(messages):
        content = message.get("content") if isinstance(message, Mapping) else None
        for place, block, known in _places(content, f"messages[{number}].content", _KNOWN):
            kind = block.get("type")
            if isinstance(kind, str) and kind not in known:
                raise _unreadable(place, kind)
            source = block.get("source")
            if kind == "document" and isinstance(source, Mapping) and source.get("type") not in ("text", "content"):
                raise _unreadable(place, f"document with a source of type {source.get('type')}")


def _places(content: Any, place: str, known: frozenset[Any]) -> Iterator[tuple[str, Mapping[str, Any], frozenset[Any]]]:
    """The blocks of a content, and those in tool results and documents, with their places and the types that may stand
    there."""
    for number, block in enumerate(content if isinstance(content, list) else ()):
        if not isinstance(block, Mapping):
            continue
        here = f"{place}[{number}]"
        yield here, block, known
        if block.get("type") == "tool_result":
            yield from _places(block.get("content"), f"{here}.content", _IN_RESULTS)
        elif block.get("type") == "document" and isinstance(source := block.get("source"), Mapping):
            yield from _places(source.get("content"), f"{here}.source.content", frozenset({"text"}))


def _unreadable(place: str, kind: str) -> RequestError:
    why = "this model reads text only" if kind.startswith((*_PICTURES, "document")) else "it cannot be used here"
    return RequestError(
        f"{place}: a block of type {printable(kind, 80)} is not supported: {why}. Remove it.",
        code="unsupported_value",
        parameter=place,
    )
