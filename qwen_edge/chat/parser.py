"""Makes deltas of the parts of an answer (chat/regions.py): reasoning, answer and tool calls.

A call that is held to a schema is handed on as it is written, any other call when it is complete. Text that turns out
not to be a call is yielded as text: nothing that the model wrote is lost except the line breaks next to markers, which
belong to the format (Qwen's chat template drops them from the history too). A call inside reasoning that never ends is
yielded as a call; if the reasoning ends behind the call, the call is part of the reasoning. Pure; one instance an
answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from qwen_edge.chat.call_stream import CallStream
from qwen_edge.chat.messages import (
    Content,
    Delta,
    Reasoning,
    ToolCall,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
)
from qwen_edge.chat.tools import parse_call
from qwen_edge.protocol.messages import Part


class Parser:
    """Call `feed` with the parts as they come, then `finish`. Both return the deltas that are certain by then."""

    def __init__(self, tools: Collection[str], *, streams_calls: bool = False) -> None:
        """`tools`: the names that may be called. `streams_calls`: a call in the answer is handed on piece by piece, as
        it is written. Only for calls that are held to their schemas."""
        self._tools = tools
        self._streams_calls = streams_calls
        self._stream: CallStream | None = None  # of the open call
        # From the opening tag of a call on, until it is known whether the text is a call; and line breaks behind a call
        # that was none, which are text unless a marker follows.
        self._held = list[Part]()
        self._thought = False  # the held parts begin with a complete call inside the reasoning
        self._behind_text = False  # the closing tag before was text, so line breaks behind it are text too
        self._final = False

    def feed(self, parts: Iterable[Part]) -> list[Delta]:
        return [delta for part in parts for delta in self._take(part)]

    def finish(self) -> list[Delta]:
        """No more parts will come; returns the rest. Of a call that is held to a schema and was cut before its name was
        known, nothing is left: it is no text for a reader."""
        stream, self._stream, self._final = self._stream, None, True
        if stream and not stream.closed and (self._held or stream.begun):
            self._held = []
            return [ToolCallEnd()] if stream.complete else []
        parts, self._held, self._thought = self._held, [], False
        return [*self.feed(parts), *self._settle()]

    def _take(self, part: Part) -> Iterator[Delta]:
        if self._streams_calls and part.region == "call" and not self._thought and not self._final:
            yield from self._stream_call(part)
            if self._stream and self._stream.begun:
                return
        yield from self._take_whole(part)

    def _stream_call(self, part: Part) -> Iterator[Delta]:
        """Hand on what is new of the call, if it is one."""
        if part.mark == "open":
            self._stream = CallStream(self._tools)
        elif part.mark == "close" and self._stream:
            self._stream.closed = True
            if self._stream.begun:
                yield ToolCallEnd()
        elif part.mark == "" and self._stream:
            yield from self._stream.feed(part.text)
            if self._stream.begun:
                self._held = []

    def _take_whole(self, part: Part) -> Iterator[Delta]:
        if part.region == "reasoning" and part.mark == "close":
            yield from self._end_reasoning()
        elif self._thought or part.region in ("call", "thought_call"):
            if part.mark == "open" and not self._thought and any(one.mark == "open" for one in self._held):
                yield from self._text(self._held)  # the tag before was only mentioned
                self._held = []
            self._held.append(part)
            if part.mark == "close" and not self._thought:
                yield from self._close_call(part)
        elif part.mark == "":
            yield from self._text(self._held)
            yield from self._text([part])
            self._held, self._behind_text = [], False
        elif part.mark == "break" and self._behind_text:
            self._held.append(part)

    def _end_reasoning(self) -> Iterator[Delta]:
        """What is held belongs to the reasoning, but for line breaks before its closing marker."""
        if text := _joined(self._held).rstrip("\n"):
            yield Reasoning(text)
        self._held, self._thought, self._behind_text = [], False, False

    def _close_call(self, tag: Part) -> Iterator[Delta]:
        if tag.region == "thought_call" and not self._final and self._call():
            self._thought = True
            return
        self._behind_text = self._call() is None
        yield from self._settle()

    def _settle(self) -> Iterator[Delta]:
        """No more text can belong to the held parts: they are a call, or text."""
        held, call, self._held = self._held, self._call(), []
        yield from _pieces(call) if call else self._text(held)

    def _call(self) -> ToolCall | None:
        """The call that the held parts are, with or without its closing tag."""
        return parse_call(_joined(part for part in self._held if part.mark == ""), self._tools)

    def _text(self, parts: list[Part]) -> Iterator[Delta]:
        """The parts as text of the reasoning or the answer, in which they stand."""
        if text := _joined(parts):
            yield Reasoning(text) if parts[-1].region in ("reasoning", "thought_call") else Content(text)


def _joined(parts: Iterable[Part]) -> str:
    return "".join(part.text for part in parts)


def _pieces(call: ToolCall) -> Iterator[Delta]:
    """The deltas of a complete call. An incomplete call may still turn out to be text, so it yields nothing."""
    yield ToolCallStart(call.name)
    yield ToolCallArguments(call.arguments)
    yield ToolCallEnd()
