"""Splits streamed text into reasoning, answer and tool calls.

A marker may be divided between two pieces, so text that may be the beginning of a marker is held back. Text that turns
out not to be a call is yielded as text: nothing that the model wrote is lost except the newlines next to markers, which
belong to the format (Qwen's chat template drops them from the history too). A call inside reasoning that never ends is
yielded as a call; if the reasoning ends behind the call, the call is part of the reasoning. Pure; one instance per
answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from enum import Enum, auto

from qwen_edge.chat.messages import (
    Content,
    Delta,
    Reasoning,
    ToolCall,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
)
from qwen_edge.chat.tools import CALL, ends_inside_string, may_be_call, parse_call
from qwen_edge.core.partial_match import unfinished_marker
from qwen_edge.protocol.messages import Markers


class _Part(Enum):
    START = auto()  # no visible text yet: only here may reasoning begin
    REASONING = auto()
    ANSWER = auto()
    CALL = auto()  # behind an opening tag
    THOUGHT_CALL = auto()  # behind an opening tag inside the reasoning


class Parser:
    """Call `feed` with each piece of text, then `finish`. Both return the deltas that are certain by then."""

    def __init__(self, reasoning: Markers | None, tools: Collection[str], *, reasons: bool = False) -> None:
        """`tools`: the names that may be called; if empty, tags are text. `reasons`: the text begins with reasoning."""
        self._reasoning = reasoning
        self._tools = tools
        self._part = _Part.REASONING if reasons else _Part.START if reasoning else _Part.ANSWER
        self._held = ""
        self._behind_marker = reasons  # whether newlines at this position belong to the format
        self._gap = ""  # the newlines before an opening tag, which are text if the tag opens no call
        self._searched = 0  # up to this index the body of the call has no closing tag

    def feed(self, text: str) -> list[Delta]:
        self._held += text
        return list(self._advance(final=False))

    def finish(self) -> list[Delta]:
        return list(self._advance(final=True))

    def _advance(self, *, final: bool) -> Iterator[Delta]:
        """Parse the held text until no further part of it is certain."""
        before = None
        while before != (before := (self._part, len(self._held), self._searched)):
            if self._part is _Part.START:
                self._open(final=final)
            elif self._part is _Part.REASONING:
                assert self._reasoning
                ends = {self._reasoning.close: _Part.ANSWER}
                yield from self._text(Reasoning, ends | ({CALL.open: _Part.THOUGHT_CALL} if self._tools else {}), final)
            elif self._part is _Part.ANSWER:
                yield from self._text(Content, {CALL.open: _Part.CALL} if self._tools else {}, final)
            elif self._part is _Part.CALL:
                yield from self._call(final=final)
            else:
                yield from self._thought_call(final=final)

    def _open(self, *, final: bool) -> None:
        assert self._reasoning
        visible = self._held.lstrip()
        if visible.startswith(self._reasoning.open):
            self._enter(_Part.REASONING, visible[len(self._reasoning.open) :])
        elif final or not self._reasoning.open.startswith(visible):
            self._enter(_Part.ANSWER, self._held, behind_marker=False)

    def _text(self, kind: type[Reasoning] | type[Content], ends: Mapping[str, _Part], final: bool) -> Iterator[Delta]:
        """Yield text up to the first marker of `ends`, then enter the part that this marker begins."""
        if self._behind_marker:
            self._held = self._held.lstrip("\n")
            self._behind_marker = not self._held
        found = {at: marker for marker in ends if (at := self._held.find(marker)) >= 0}
        end = min(found, default=-1)
        whole = self._held if end < 0 else self._held[:end]
        if end >= 0:
            text = whole.rstrip("\n")
        elif final or not ends:
            text = whole
        else:
            text = whole[: len(whole) - unfinished_marker(whole, ends)].rstrip("\n")
        if text:
            yield kind(text)
        if end >= 0:
            self._gap = whole[len(text) :]
            self._enter(ends[found[end]], self._held[end + len(found[end]) :])
        else:
            self._held = self._held[len(text) :]

    def _call(self, *, final: bool) -> Iterator[Delta]:
        """Wait for the closing tag, or for the end of the text; then yield the call, or the text if it is no call."""
        if (region := self._call_region(final=final)) is None:
            return
        call, text, rest = region
        if call is not None:
            yield from _pieces(call)
            self._enter(_Part.ANSWER, rest)
        else:
            yield Content(self._gap + CALL.open + text)
            self._enter(_Part.ANSWER, rest, behind_marker=False)

    def _thought_call(self, *, final: bool) -> Iterator[Delta]:
        """Wait until it is known whether the reasoning ends behind the possible call."""
        assert self._reasoning
        end = self._held.find(self._reasoning.close)
        if end >= 0:
            yield Reasoning((self._gap + CALL.open + self._held[:end]).rstrip("\n"))
            self._enter(_Part.ANSWER, self._held[end + len(self._reasoning.close) :])
            return
        if (region := self._call_region(final=final)) is None:
            return
        call, text, rest = region
        if call is None:
            yield Reasoning(self._gap + CALL.open + text)
            self._enter(_Part.REASONING, rest, behind_marker=False)
        elif final:
            yield from _pieces(call)
            self._enter(_Part.REASONING, rest)

    def _call_region(self, *, final: bool) -> tuple[ToolCall | None, str, str] | None:
        """The call at the beginning of the held text (None: there is no call), what of the held text it took, with the
        closing tag, and the text behind it. None while that is not known."""
        if not may_be_call(self._held):
            return None, "", self._held  # text that mentions the tag: do not wait for a closing tag
        end = self._held.find(CALL.close, self._searched)
        if end < 0 and not final:
            return None
        body, tag = (self._held, "") if end < 0 else (self._held[:end], CALL.close)
        call = parse_call(body, self._tools)
        if call is None and tag and ends_inside_string(body):
            self._searched = end + 1
            return None
        return call, body + tag, self._held[len(body) + len(tag) :]

    def _enter(self, part: _Part, rest: str, *, behind_marker: bool = True) -> None:
        self._part, self._held, self._behind_marker, self._searched = part, rest, behind_marker, 0


def _pieces(call: ToolCall) -> Iterator[Delta]:
    """The deltas of a complete call. An incomplete call may still turn out to be text, so it yields nothing."""
    yield ToolCallStart(call.name)
    yield ToolCallArguments(call.arguments)
    yield ToolCallEnd()
