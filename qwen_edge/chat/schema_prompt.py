"""Shows a model the JSON schema that its answer will be held to. A shape alone makes a small model guess. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_TEXT = "Answer with one JSON value that fits this JSON schema:\n"


def with_schema(messages: Sequence[Mapping[str, Any]], schema: str, *, system: bool) -> tuple[Mapping[str, Any], ...]:
    """The messages with the schema behind the first system message's text, or in a system message of its own. If the
    template has no place for `system` messages: before the last user message's text."""
    shown = _TEXT + schema
    role = "system" if system else "user"
    found = [number for number, message in enumerate(messages) if message["role"] == role]
    if not found:
        return ({"role": "system", "content": shown}, *messages) if system else tuple(messages)
    at = found[0] if system else found[-1]
    content = messages[at]["content"]
    texts = (content, shown) if system else (shown, content)
    changed = {**messages[at], "content": "\n\n".join(text for text in texts if text)}
    return (*messages[:at], changed, *messages[at + 1 :])
