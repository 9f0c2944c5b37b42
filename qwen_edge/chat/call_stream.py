"""Reads a tool call while it is being written: its name, then its arguments piece by piece.

Only for a call that is held to a schema (`structured`): its text is known to be one JSON object with a name and
arguments, in this order. Pure; one instance a call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

from qwen_edge.chat.messages import Delta, ToolCallArguments, ToolCallStart

_BEGINNING = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\{)', re.DOTALL)


class CallStream:
    """Call `feed` with the text between the markers, as it comes."""

    def __init__(self, tools: Collection[str]) -> None:
        """`tools`: the names that may be called."""
        self._tools = tools
        self._beginning = ""  # until the arguments begin
        self._depth = 0  # of the braces and brackets of the arguments that are open
        self._in_string = self._escaped = False
        self.begun = False  # the name has been handed on
        self.complete = False  # so have all arguments
        self.closed = False  # the closing marker has come

    def feed(self, text: str) -> Iterator[Delta]:
        """The deltas of this piece. Nothing comes of a text that is no call: `begun` stays False."""
        if not self.begun:
            self._beginning += text
            match = _BEGINNING.match(self._beginning)
            if match is None or (name := _name(match[1])) not in self._tools:
                return
            self.begun, text = True, self._beginning[match.end() :]
            yield ToolCallStart(name)
        if (arguments := text[: self._end(text)]) and not self.complete:
            yield ToolCallArguments(arguments)
        self.complete = self.complete or self._depth == 0

    def _end(self, text: str) -> int:
        """How much of the text belongs to the arguments."""
        for at, char in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._in_string and char == "\\":
                self._escaped = True
            elif char == '"':
                self._in_string = not self._in_string
            elif not self._in_string:
                self._depth += (char in "{[") - (char in "}]")
                if self._depth == 0:
                    return at + 1
        return len(text)


def _name(text: str) -> Any:
    """What the JSON text of a name says; None if it is no JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return None
