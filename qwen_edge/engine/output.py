"""From token bytes to text that may be shown, and the decision to stop.

Bytes become characters only when they are whole, and text that may be the beginning of a stop text is held back until
that is decided. Stop texts are searched in the answer only. A client that asks for one line with stop="\\n" means the
answer: neither the reasoning before it, nor a tool call in it, nor the line breaks that belong to their markers
(the parser of answers, chat/parser.py, drops the same line breaks). Pure; one instance a sequence.
"""

from __future__ import annotations

import codecs
from enum import Enum, auto

from qwen_edge.chat.tools import ends_inside_string, may_be_call
from qwen_edge.core.partial_match import unfinished_marker
from qwen_edge.protocol.messages import Markers


class _Region(Enum):
    START = auto()  # not decided yet whether the text begins with reasoning
    REASONING = auto()
    ANSWER = auto()
    CALL = auto()  # from the opening marker of a tool call to its closing one


class Output:
    """Feed it pieces with `push`, take what may be shown; `stopped` tells that a stop text has been met."""

    def __init__(
        self,
        stop: tuple[str, ...],
        reasoning: Markers | None = None,
        calls: Markers | None = None,
        *,
        reasons: bool = False,
    ) -> None:
        """`reasoning` and `calls` are the markers between which no stop text counts. `reasons` tells that the text
        begins inside the reasoning (its opening marker stands in the prompt)."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(text for text in stop if text)
        self._reasoning = reasoning if self._stop else None
        self._calls = calls if self._stop else None
        self._held = ""
        self._call = ""  # the shown part of the body of the open call
        self._behind_marker = False  # line breaks that come now belong to the format
        self._region = _Region.START if self._reasoning else _Region.ANSWER
        if reasons and self._reasoning:
            self._region = _Region.REASONING
        self.stopped = False

    def push(self, piece: bytes) -> str:
        """Add one token's bytes; returns the text that can now be shown, often, but not always, the token's own."""
        self._held += self._decoder.decode(piece)
        return self._release(final=False)

    def finish(self) -> str:
        """No more pieces will come; returns the rest. A character that never became whole shows as U+FFFD."""
        self._held += self._decoder.decode(b"", final=True)
        return self._release(final=True)

    def _release(self, *, final: bool) -> str:
        """Go through the held text, region by region, until more text is needed."""
        shown, before = "", None
        while not self.stopped and before != (before := (self._region, len(self._held), self._behind_marker)):
            if self._region is _Region.START:
                self._decide_reasoning(final=final)
            elif self._region is _Region.REASONING:
                shown += self._pass_reasoning(final=final)
            elif self._region is _Region.ANSWER:
                shown += self._pass_answer(final=final)
            else:
                shown += self._pass_call(final=final)
        return shown

    def _decide_reasoning(self, *, final: bool) -> None:
        """Wait until the first visible text either is the opening marker or cannot become it."""
        assert self._reasoning
        start = self._held.lstrip()
        if start.startswith(self._reasoning.open):
            self._region = _Region.REASONING
        elif final or not self._reasoning.open.startswith(start):
            self._region = _Region.ANSWER

    def _pass_reasoning(self, *, final: bool) -> str:
        assert self._reasoning
        close = self._reasoning.close
        end = self._held.find(close)
        if end < 0:
            return self._take(len(self._held) - (0 if final else unfinished_marker(self._held, (close,))))
        self._region, self._behind_marker = _Region.ANSWER, True
        return self._take(end + len(close))

    def _pass_answer(self, *, final: bool) -> str:
        """Text of the answer, up to a stop text or to a tool call, whichever comes first."""
        if self._behind_marker:
            breaks = len(self._held) - len(self._held.lstrip("\n"))
            self._behind_marker = breaks == len(self._held) and not final
            return self._take(breaks)
        markers = (self._calls.open,) if self._calls else ()
        opening = self._held.find(markers[0]) if markers else -1
        text = self._held if opening < 0 else self._held[:opening].rstrip("\n")
        undecided = 0 if final or opening >= 0 else unfinished_marker(text, markers)
        if markers and not final and opening < 0:
            # line breaks at the end are a marker's, if one follows
            undecided = len(text) - len(text[: len(text) - undecided].rstrip("\n"))
        found = min((at for stop in self._stop if (at := text.find(stop)) >= 0), default=len(text))
        if any(text.startswith(stop, found) and found + len(stop) <= len(text) - undecided for stop in self._stop):
            self.stopped = True
            return self._take(found)
        if opening >= 0:
            assert self._calls
            self._region, self._call = _Region.CALL, ""
            return self._take(opening + len(self._calls.open))
        held_back = 0 if final else unfinished_marker(text, (*self._stop, *markers))
        return self._take(min(found, len(text) - held_back))

    def _pass_call(self, *, final: bool) -> str:
        """The body of a tool call, up to its closing marker; one inside a string of its JSON closes nothing. Text that
        only mentions the opening marker is text again."""
        assert self._calls
        if not may_be_call(self._call + self._held):
            self._region = _Region.ANSWER
            return ""
        close = self._calls.close
        end = self._held.find(close)
        if end < 0:
            taken = self._take(len(self._held) - (0 if final else unfinished_marker(self._held, (close,))))
            self._call += taken
            return taken
        self._call += self._held[:end]
        if ends_inside_string(self._call):
            self._call += close
        else:
            self._region, self._behind_marker = _Region.ANSWER, True
        return self._take(end + len(close))

    def _take(self, length: int) -> str:
        taken, self._held = self._held[:length], self._held[length:]
        return taken
