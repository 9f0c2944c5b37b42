"""Moves text that changes from one request to the next (a clock, sensor readings) out of the system prompt.

The KV cache covers a prompt up to its first difference from an earlier prompt. If the system prompt begins with a
clock, the whole prompt is recomputed whenever the clock changes. So text between the marks in system messages is
moved to the last user message, after which little is left to compute. Pure; ChatTemplate calls it when a request asks
for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from qwen_edge.core.errors import RequestError

_Messages = tuple[Mapping[str, Any], ...]

_OPEN, _CLOSE = "<volatile>", "</volatile>"
_MARK = re.compile(f"({_OPEN}|{_CLOSE}\n?)")  # with the line break behind it, so that no empty line is left


def moved(messages: Sequence[Mapping[str, Any]]) -> _Messages:
    """The messages with the marked text at the beginning of the last user message; if there is none, at the end of the
    last system message. A blank line separates the two texts. Raises RequestError if a mark has no partner."""
    kept, text = taken_out(messages)
    roles = [message["role"] for message in kept]
    if not text:
        return kept
    role = "user" if "user" in roles else "system"
    place = len(roles) - 1 - roles[::-1].index(role)
    own = kept[place]["content"]
    parts = (text, own) if role == "user" else (own, text)
    changed = {**kept[place], "content": "\n\n".join(part for part in parts if part)}
    return (*kept[:place], changed, *kept[place + 1 :])


def taken_out(messages: Sequence[Mapping[str, Any]]) -> tuple[_Messages, str]:
    """The messages without the marked text of system messages, and that text: its parts in order, joined by line
    breaks. Raises RequestError if a mark has no partner."""
    kept, stretches = list[Mapping[str, Any]](), list[str]()
    for number, message in enumerate(messages):
        if message["role"] == "system":
            text, found = _cut(message["content"], f"messages[{number}]")
            stretches += found
            kept.append({**message, "content": text})
        else:
            kept.append(message)
    return tuple(kept), "\n".join(stretch for stretch in stretches if stretch)


def _cut(text: str, where: str) -> tuple[str, list[str]]:
    """The text outside the marks, and the parts inside, each without line breaks at its ends."""
    pieces = _MARK.split(text)  # text, mark, text, mark, ... text
    for number, mark in enumerate(pieces[1::2]):
        if number % 2 == 0 and mark != _OPEN:
            raise _lonely(f"{where}: there is a {_CLOSE} with no {_OPEN} before it.")
        if number % 2 == 1 and mark == _OPEN:
            raise _lonely(f"{where}: there is a {_OPEN} inside another; they cannot be nested.")
    if len(pieces) % 4 == 3:
        raise _lonely(f"{where}: a {_OPEN} is never closed: write {_CLOSE} where the part that changes ends.")
    return "".join(pieces[::4]), [stretch.strip("\n") for stretch in pieces[2::4]]


def _lonely(what: str) -> RequestError:
    return RequestError(what, parameter="messages")
