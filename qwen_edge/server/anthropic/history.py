"""The messages of a request in the form that chat templates take: text, calls in OpenAI's form, and a message of its
own for each result of a tool. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qwen_edge.server.anthropic.blocks import (
    Block,
    BlocksSource,
    Document,
    Message,
    Readable,
    SearchResult,
    Text,
    Thinking,
    ToolResult,
    ToolUse,
)
from qwen_edge.server.chat_request import Plain, plain_call


def plain_messages(system: str | list[Text] | None, messages: Sequence[Message]) -> list[Plain]:
    """All messages of the prompt, the system prompt first."""
    first = [Message("system", list[Block](system) if isinstance(system, list) else system)] if system else []
    return [plain for message in (*first, *messages) for plain in _plain(message)]


def _plain(message: Message) -> Iterator[Plain]:
    blocks = [Text(message.content)] if isinstance(message.content, str) else message.content or []
    yield from _assistants(blocks) if message.role == "assistant" else _others(message.role, blocks)


def _assistants(blocks: Sequence[Block]) -> Iterator[Plain]:
    """The pieces of an answer are joined as the model has written them."""
    plain: Plain = {"role": "assistant", "content": "".join(block.text for block in blocks if isinstance(block, Text))}
    if thoughts := "".join(block.thinking for block in blocks if isinstance(block, Thinking)):
        plain["reasoning_content"] = thoughts
    calls = [block for block in blocks if isinstance(block, ToolUse)]
    if calls:
        plain["tool_calls"] = [plain_call(call.name, call.input, call.id) for call in calls]
    yield plain


def _others(role: str, blocks: Sequence[Block]) -> Iterator[Plain]:
    """Results of tools become messages of their own, in their order; the text around them keeps its place."""
    texts = list[str]()
    for block in blocks:
        if isinstance(block, ToolResult):
            if texts:
                yield {"role": role, "content": "\n".join(texts)}
                texts = []
            yield _result(block)
        elif isinstance(block, Readable):
            texts.append(_text(block))
    if texts or not any(isinstance(block, ToolResult) for block in blocks):
        yield {"role": role, "content": "\n".join(texts)}


def _result(result: ToolResult) -> Plain:
    """Templates have no place for `is_error`, so the text says that the tool has failed."""
    parts = result.content or []
    content = parts if isinstance(parts, str) else "\n".join(_text(part) for part in parts)
    if result.is_error:
        content = f"Error: {content}" if content else "Error"
    return {"role": "tool", "tool_call_id": result.tool_use_id, "content": content}


def _text(block: Readable) -> str:
    if isinstance(block, Text):
        return block.text
    if isinstance(block, SearchResult):
        return "\n".join([*_given(block.title, block.source), *(part.text for part in block.content)])
    return "\n".join([*_given(block.title, block.context), _document(block)])


def _document(document: Document) -> str:
    source = document.source
    if not isinstance(source, BlocksSource):
        return source.data
    return source.content if isinstance(source.content, str) else "\n".join(part.text for part in source.content)


def _given(*texts: str | None) -> list[str]:
    return [text for text in texts if text]
