"""Generated text, as it streams in, to reasoning, answer and tool calls.

A marker may be cut anywhere between two pieces, so text that may be the beginning of one waits. What turns out not to
be a call is handed on as the text it is: nothing the model said is ever lost, but the newlines next to markers, which
belong to the format (Qwen's chat template drops them from the history too). A call inside reasoning that never ends
is handed on as a call; where the reasoning ends behind it, the model has only thought of it. Pure; one instance an
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
    START = auto()  # nothing visible yet: reasoning may open here, and only here
    REASONING = auto()
    ANSWER = auto()
    CALL = auto()  # behind an opening tag
    THOUGHT_CALL = auto()  # behind an opening tag inside the reasoning


class Parser:
    """`feed` it text, then `finish`; both return the deltas that have become certain."""

    def __init__(self, reasoning: Markers | None, tools: Collection[str], *, reasons: bool = False) -> None:
        """`tools` are the names that may be called (none: tags are text); `reasons`: the text begins as reasoning."""
        self._reasoning = reasoning
        self._tools = tools
        self._part = _Part.REASONING if reasons else _Part.START if reasoning else _Part.ANSWER
        self._held = ""
        self._behind_marker = reasons  # newlines that come now belong to the format
        self._gap = ""  # the newlines before an opening tag, in case it opens nothing
        self._searched = 0  # so far the body of a call has no closing tag of its own

    def feed(self, text: str) -> list[Delta]:
        self._held += text
        return list(self._advance(final=False))

    def finish(self) -> list[Delta]:
        return list(self._advance(final=True))

    def _advance(self, *, final: bool) -> Iterator[Delta]:
        """Work on what is held until nothing moves any more."""
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
        """Hand on text up to the first marker of `ends`, behind which its part begins."""
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
        """Wait for the closing tag, or for the end of the text, and see whether a call stands before it."""
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
        """Wait until it is known whether the reasoning ends behind what may be a call."""
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
            return None, "", self._held  # text that mentions the tag: nobody waits for its closing tag
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
    """A call comes when it is whole: before that it may turn out to be text."""
    yield ToolCallStart(call.name)
    yield ToolCallArguments(call.arguments)
    yield ToolCallEnd()
