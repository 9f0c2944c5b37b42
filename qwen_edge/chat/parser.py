"""Generated text, as it streams in, to reasoning, answer and tool calls.

A marker may be cut anywhere between two pieces, so text that may be the beginning of one waits. What turns out not to
be a call is handed on as the text it is: nothing the model said is ever lost, but the newlines next to markers, which
belong to the format (Qwen's chat template drops them from the history too). Pure; one instance an answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from enum import Enum, auto

from qwen_edge.chat.messages import Content, Delta, Reasoning
from qwen_edge.chat.tools import CLOSE, OPEN, ends_inside_string, parse_call
from qwen_edge.markers import unfinished_marker
from qwen_edge.messages import Markers


class _Part(Enum):
    START = auto()  # nothing visible yet: reasoning may open here, and only here
    REASONING = auto()
    ANSWER = auto()
    CALL = auto()  # behind an opening tag


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
                yield from self._text(Reasoning, self._reasoning.close, _Part.ANSWER, final=final)
            elif self._part is _Part.ANSWER:
                yield from self._text(Content, OPEN if self._tools else "", _Part.CALL, final=final)
            else:
                yield from self._call(final=final)

    def _open(self, *, final: bool) -> None:
        assert self._reasoning
        visible = self._held.lstrip()
        if visible.startswith(self._reasoning.open):
            self._enter(_Part.REASONING, visible[len(self._reasoning.open) :])
        elif final or not self._reasoning.open.startswith(visible):
            self._enter(_Part.ANSWER, self._held, behind_marker=False)

    def _text(self, kind: type[Reasoning] | type[Content], marker: str, then: _Part, *, final: bool) -> Iterator[Delta]:
        """Hand on text up to `marker`, behind which `then` begins."""
        if self._behind_marker:
            self._held = self._held.lstrip("\n")
            self._behind_marker = not self._held
        end = self._held.find(marker) if marker else -1
        whole = self._held if end < 0 else self._held[:end]
        if end >= 0:
            text = whole.rstrip("\n")
        elif final or not marker:
            text = whole
        else:
            text = whole[: len(whole) - unfinished_marker(whole, (marker,))].rstrip("\n")
        if text:
            yield kind(text)
        if end >= 0:
            self._gap = whole[len(text) :]
            self._enter(then, self._held[end + len(marker) :])
        else:
            self._held = self._held[len(text) :]

    def _call(self, *, final: bool) -> Iterator[Delta]:
        """Wait for the closing tag, or for the end of the text, and see whether a call stands before it."""
        end = self._held.find(CLOSE, self._searched)
        if end < 0 and not final:
            return
        body, tag = (self._held, "") if end < 0 else (self._held[:end], CLOSE)
        call = parse_call(body, self._tools)
        if call is None and tag and ends_inside_string(body):
            self._searched = end + 1
            return
        self._searched = 0
        rest = self._held[len(body) + len(tag) :]
        if call is not None:
            yield call
            self._enter(_Part.ANSWER, rest)
        else:
            yield Content(self._gap + OPEN + body + tag)
            self._enter(_Part.ANSWER, rest, behind_marker=False)

    def _enter(self, part: _Part, rest: str, *, behind_marker: bool = True) -> None:
        self._part, self._held, self._behind_marker = part, rest, behind_marker
