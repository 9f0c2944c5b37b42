"""From token bytes to text that may be shown, and the decision to stop.

Bytes become characters only when they are whole, `chat/regions.py` says in which region the characters stand, and text
of the answer that may be the beginning of a stop text is held back until that is decided. Stop texts are not searched
in reasoning, in tool calls, or in line breaks beside markers: a client that asks for one line with stop="\\n" means
the answer. Pure; one instance a sequence.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator

from qwen_edge.chat.regions import Regions
from qwen_edge.core.partial_match import unfinished_marker
from qwen_edge.protocol.messages import Markers, Part, Region


class Output:
    """Feed it pieces with `push`, take what may be shown; `stopped` tells that a stop text has been met, `stop_text`
    which."""

    def __init__(
        self,
        stop: tuple[str, ...],
        reasoning: Markers | None = None,
        calls: Markers | None = None,
        *,
        reasons: bool = False,
    ) -> None:
        """`reasoning`, `calls` and `reasons` as for Regions."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._regions = Regions(reasoning, calls, reasons=reasons)
        self._stop = tuple(text for text in stop if text)
        self._held = ""  # the end of the answer's text so far, which may be the beginning of a stop text
        self.stop_text = ""

    @property
    def stopped(self) -> bool:
        return bool(self.stop_text)

    @property
    def region(self) -> Region | None:
        """Where the next token stands; None while the text may still begin with reasoning."""
        return self._regions.region

    def push(self, piece: bytes) -> list[Part]:
        """Add one token's bytes; returns the text that can now be shown, often, but not always, the token's own."""
        parts = self._regions.feed(self._decoder.decode(piece))
        return list(self._until_stop(parts)) if self._stop and parts else parts

    def finish(self) -> list[Part]:
        """No more pieces will come; returns the rest. A character that never became whole shows as U+FFFD. There is no
        rest behind a stop text."""
        if self.stopped:
            return []
        parts = self._regions.feed(self._decoder.decode(b"", final=True)) + self._regions.finish()
        if self._stop:
            parts = list(self._until_stop(parts))
        return parts if self.stopped else [*parts, *self._release()]

    def _until_stop(self, parts: list[Part]) -> Iterator[Part]:
        """The parts up to a stop text: of several stop texts, the one that is complete first."""
        for part in parts:
            if part.region != "answer" or part.mark:
                yield from self._release()  # no stop text goes on behind a marker
                yield part
                continue
            text = self._held + part.text
            found = [(at + len(stop), at, stop) for stop in self._stop if (at := text.find(stop)) >= 0]
            _, shown, self.stop_text = min(found, default=(0, len(text) - unfinished_marker(text, self._stop), ""))
            self._held = text[shown:]
            if shown:
                yield Part("answer", text[:shown])
            if found:
                return

    def _release(self) -> Iterator[Part]:
        text, self._held = self._held, ""
        if text:
            yield Part("answer", text)
