"""From token bytes to text that may be shown, and the decision to stop.

Bytes become characters only when they are whole, and text that may be the beginning of a stop text waits until it is
known. Stop texts are looked for in the answer only, not in the reasoning before it: a client that asks for one line
with stop="\\n" means the answer. Pure; one instance a sequence.
"""

from __future__ import annotations

import codecs

from qwen_edge.markers import unfinished_marker
from qwen_edge.messages import Markers


class Output:
    """Feed it pieces with `push`, take what may be shown; `stopped` tells that a stop text has been met."""

    def __init__(self, stop: tuple[str, ...], reasoning: Markers | None = None, *, reasons: bool = False) -> None:
        """`reasons` tells that the text begins inside the reasoning (its opening marker stands in the prompt)."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(text for text in stop if text)
        self._reasoning = reasoning
        self._held = ""
        self.stopped = False
        # what is looked for now: None while it is open whether the text begins with reasoning
        self._behind_reasoning = False
        self._in_reasoning: bool | None = reasons if reasons or not reasoning or not self._stop else None

    def push(self, piece: bytes) -> str:
        """Add one token's bytes; returns the text that can be shown because of it (often, but not always, its own)."""
        self._held += self._decoder.decode(piece)
        return self._release(final=False)

    def finish(self) -> str:
        """No more pieces will come; returns the rest. A character that never became whole shows as U+FFFD."""
        self._held += self._decoder.decode(b"", final=True)
        return self._release(final=True)

    def _release(self, *, final: bool) -> str:
        if self.stopped:
            return ""
        shown = ""
        if self._in_reasoning is None:
            shown += self._decide_reasoning(final=final)
        if self._in_reasoning:
            shown += self._pass_reasoning(final=final)
        if self._in_reasoning is False:
            shown += self._pass_answer(final=final)
        return shown

    def _decide_reasoning(self, *, final: bool) -> str:
        """Wait until the first visible text either is the opening marker or cannot become it."""
        assert self._reasoning
        start = self._held.lstrip()
        if start.startswith(self._reasoning.open):
            self._in_reasoning = True
        elif final or not self._reasoning.open.startswith(start):
            self._in_reasoning = False
        return ""

    def _pass_reasoning(self, *, final: bool) -> str:
        assert self._reasoning
        close = self._reasoning.close
        end = self._held.find(close)
        if end < 0:
            return self._take(len(self._held) if final else len(self._held) - unfinished_marker(self._held, (close,)))
        self._in_reasoning, self._behind_reasoning = False, True
        return self._take(end + len(close))

    def _pass_answer(self, *, final: bool) -> str:
        if self._behind_reasoning:
            # the blank line after a think block is the format's, not the answer's first line
            answer = self._held.lstrip("\n")
            self._behind_reasoning = not answer
            return self._take(len(self._held) - len(answer)) + (self._pass_answer(final=final) if answer else "")
        found = [at for text in self._stop if (at := self._held.find(text)) >= 0]
        if found:
            self.stopped = True
            return self._take(min(found))
        return self._take(len(self._held) if final else len(self._held) - unfinished_marker(self._held, self._stop))

    def _take(self, length: int) -> str:
        taken, self._held = self._held[:length], self._held[length:]
        return taken
