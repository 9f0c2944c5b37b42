"""Splits the text of an answer, as it comes, into its regions: reasoning, answer and tool calls.

The engine uses it token by token: stop texts count in the answer only, and what a token may be depends on its region.
The daemon makes deltas of the parts (chat/parser.py) and searches for no markers itself.

A marker may be divided between two pieces of text. What may be the beginning of a marker is held back, and so are line
breaks that belong to a marker if one follows. No text is lost: the joined parts are the joined pieces. How the text is
cut into pieces changes neither the regions nor their text. Pure; one instance an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from qwen_edge.chat.tools import ends_inside_string, may_be_call
from qwen_edge.core.partial_match import unfinished_marker
from qwen_edge.protocol.messages import Mark, Markers, Part, Region

_CALLS: dict[Region | None, Region] = {"call": "answer", "thought_call": "reasoning"}  # and the region around each


class _Boundary(NamedTuple):
    """A marker that ends a region: the part that the marker is, and the region behind it."""

    marker: str
    region: Region
    mark: Mark
    behind: Region


class Regions:
    """Call `feed` with each piece of text, then `finish`. Both return the parts that are certain by then."""

    def __init__(self, reasoning: Markers | None, calls: Markers | None, *, reasons: bool = False) -> None:
        """`reasoning`, `calls`: the markers around reasoning and tool calls; with None, these texts are ordinary text.
        `reasons`: the text begins inside the reasoning, whose opening marker stands in the prompt."""
        self._reasoning = reasoning
        self._region: Region | None = None if reasoning else "answer"  # None: not decided yet
        if reasoning and reasons:
            self._region = "reasoning"
        self._boundaries = _boundaries(reasoning, calls)
        self._firsts = {region: _first_letters(ends) for region, ends in self._boundaries.items()}
        self._held = ""
        self._behind_marker = self._region == "reasoning"  # line breaks that come now belong to the marker
        self._body = ""  # of the open call, as far as it has been returned

    @property
    def region(self) -> Region | None:
        """Where the next token stands. None while the text may still begin with reasoning: no visible text has come, or
        only half an opening marker."""
        return self._region

    def feed(self, text: str) -> list[Part]:
        region = self._region
        if not (self._held or self._behind_marker or region is None or region in _CALLS):
            first = self._firsts[region]
            if text and not (first and first.search(text)):  # nearly every token
                return [Part(region, text)]
        self._held += text
        return list(self._split(final=False))

    def finish(self) -> list[Part]:
        """No more text will come; returns the rest."""
        return list(self._split(final=True))

    def _split(self, *, final: bool) -> Iterator[Part]:
        """Return the held text, part by part, as far as it is certain."""
        if self._region is None:
            yield from self._begin(final=final)
        while self._region and self._held:
            if self._behind_marker:
                yield from self._breaks()
            elif self._region in _CALLS and not self._body and not may_be_call(self._held):
                self._region = _CALLS[self._region]  # the tag was only mentioned
            elif (found := self._next_boundary()) is None:
                yield from self._certain(final=final)
                return
            else:
                yield from self._pass(*found)

    def _begin(self, *, final: bool) -> Iterator[Part]:
        """Wait until the first visible text either is the opening marker or cannot become it."""
        assert self._reasoning
        marker, visible = self._reasoning.open, self._held.lstrip()
        if visible.startswith(marker):
            yield from self._take(len(self._held) - len(visible) + len(marker), "reasoning", "open")
            self._region, self._behind_marker = "reasoning", True
        elif final or not marker.startswith(visible):
            self._region = "answer"

    def _breaks(self) -> Iterator[Part]:
        assert self._region
        yield from self._take(len(self._held) - len(self._held.lstrip("\n")), self._region, "break")
        self._behind_marker = not self._held

    def _next_boundary(self) -> tuple[int, _Boundary] | None:
        """The marker that comes first, and where it begins."""
        assert self._region
        ends = self._boundaries[self._region]
        found = [(at, end) for end in ends if (at := self._held.find(end.marker)) >= 0]
        return min(found, key=lambda one: one[0], default=None)

    def _pass(self, at: int, end: _Boundary) -> Iterator[Part]:
        """Return the text before a marker, and the marker."""
        assert self._region
        length = len(end.marker)
        if self._region in _CALLS and end.region == self._region and ends_inside_string(self._body + self._held[:at]):
            yield from self._take_body(at + length)
            return
        if self._region in _CALLS:
            yield from self._take(at, self._region)
        else:
            text = self._held[:at].rstrip("\n")
            yield from self._take(len(text), self._region)
            length += at - len(text)
        yield from self._take(length, end.region, end.mark)
        self._region, self._behind_marker, self._body = end.behind, end.behind not in _CALLS, ""

    def _certain(self, *, final: bool) -> Iterator[Part]:
        """The held text, in which there is no whole marker, but for what may be half of one."""
        assert self._region
        markers = [end.marker for end in self._boundaries[self._region]]
        text = self._held if final else self._held[: len(self._held) - unfinished_marker(self._held, markers)]
        if self._region in _CALLS:
            if final or self._body or not text.isspace():  # white space does not yet tell whether this is a call
                yield from self._take_body(len(text))
            return
        if markers and not final:
            text = text.rstrip("\n")
        yield from self._take(len(text), self._region)

    def _take_body(self, length: int) -> Iterator[Part]:
        assert self._region
        self._body += self._held[:length]
        yield from self._take(length, self._region)

    def _take(self, length: int, region: Region, mark: Mark = "") -> Iterator[Part]:
        if length:
            text, self._held = self._held[:length], self._held[length:]
            yield Part(region, text, mark)


def _boundaries(reasoning: Markers | None, calls: Markers | None) -> dict[Region, tuple[_Boundary, ...]]:
    """Which markers end each region."""
    thought = (_Boundary(reasoning.close, "reasoning", "close", "answer"),) if reasoning else ()
    if not calls:
        return {"reasoning": thought, "answer": ()}
    return {
        "reasoning": (*thought, _Boundary(calls.open, "thought_call", "open", "thought_call")),
        "answer": (_Boundary(calls.open, "call", "open", "call"),),
        "call": (_Boundary(calls.close, "call", "close", "answer"),),
        "thought_call": (*thought, _Boundary(calls.close, "thought_call", "close", "reasoning")),
    }


def _first_letters(ends: tuple[_Boundary, ...]) -> re.Pattern[str] | None:
    """Finds where a marker, or the line breaks before it, may begin; None if no marker counts."""
    letters = {end.marker[0] for end in ends} | {"\n"}
    return re.compile("[" + re.escape("".join(sorted(letters))) + "]") if ends else None
