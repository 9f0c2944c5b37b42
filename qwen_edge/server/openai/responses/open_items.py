"""The items of an answer while they are written: each gives the events of its beginning, its pieces and its end. Pure.

Reference: https://platform.openai.com/docs/api-reference/responses-streaming. An item knows nothing of the sequence
numbers and of the item's place in the output: encode.py adds both.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import Protocol

from qwen_edge.protocol.messages import Logprob
from qwen_edge.server.answer_fields import logprob
from qwen_edge.server.openai.responses.reasoning_text import packed
from qwen_edge.server.replies import Json


class OpenItem(Protocol):
    """`item`: as it is now; complete, after `end`."""

    item: Json

    def begin(self) -> Iterator[Json]:
        """The events that announce the item."""

    def end(self, *, cut: bool) -> Iterator[Json]:
        """The events that complete it. `cut`: the answer has ended before the item was complete."""


class OpenReasoning:
    """`encrypted`: whether the item also carries the reasoning as opaque text."""

    def __init__(self, id_: str, *, encrypted: bool) -> None:
        self.item: Json = {"id": id_, "type": "reasoning", "summary": []}
        self._encrypted, self._pieces = encrypted, list[str]()
        self._at = {"item_id": id_, "summary_index": 0}

    def begin(self) -> Iterator[Json]:
        yield {"type": "response.output_item.added", "item": self.item}
        yield {"type": "response.reasoning_summary_part.added", **self._at, "part": _summary("")}

    def add(self, text: str) -> Iterator[Json]:
        self._pieces.append(text)
        yield {"type": "response.reasoning_summary_text.delta", **self._at, "delta": text}

    def end(self, *, cut: bool) -> Iterator[Json]:
        text = "".join(self._pieces)
        self.item = {**self.item, "summary": [_summary(text)]}
        if self._encrypted:
            self.item["encrypted_content"] = packed(text)
        yield {"type": "response.reasoning_summary_text.done", **self._at, "text": text}
        yield {"type": "response.reasoning_summary_part.done", **self._at, "part": _summary(text)}
        yield {"type": "response.output_item.done", "item": self.item}


class OpenMessage:
    """`logprobs`: whether the client asks for them."""

    def __init__(self, id_: str, *, logprobs: bool) -> None:
        self.item: Json = {"id": id_, "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        self._wants, self._pieces, self._logprobs = logprobs, list[str](), list[Json]()
        self._at = {"item_id": id_, "content_index": 0}

    def begin(self) -> Iterator[Json]:
        yield {"type": "response.output_item.added", "item": self.item}
        yield {"type": "response.content_part.added", **self._at, "part": _output_text("", [])}

    def add(self, text: str, logprobs: Sequence[Logprob]) -> Iterator[Json]:
        own = logprobs if self._pieces else _without_markers(text, logprobs)
        shown = [logprob(one) for one in own] if self._wants else []
        self._pieces.append(text)
        self._logprobs += shown
        yield {"type": "response.output_text.delta", **self._at, "delta": text, "logprobs": shown}

    def end(self, *, cut: bool) -> Iterator[Json]:
        text = "".join(self._pieces)
        part = _output_text(text, self._logprobs)
        self.item = {**self.item, "status": _status(cut), "content": [part]}
        yield {"type": "response.output_text.done", **self._at, "text": text, "logprobs": self._logprobs}
        yield {"type": "response.content_part.done", **self._at, "part": part}
        yield {"type": "response.output_item.done", "item": self.item}


class OpenCall:
    """A call of a function."""

    def __init__(self, id_: str, name: str) -> None:
        self.item: Json = {
            "id": id_,
            "type": "function_call",
            "status": "in_progress",
            "arguments": "",
            "call_id": f"call_{secrets.token_hex(12)}",
            "name": name,
        }
        self._pieces = list[str]()
        self._at = {"item_id": id_}

    def begin(self) -> Iterator[Json]:
        yield {"type": "response.output_item.added", "item": self.item}

    def add(self, text: str) -> Iterator[Json]:
        self._pieces.append(text)
        yield {"type": "response.function_call_arguments.delta", **self._at, "delta": text}

    def end(self, *, cut: bool) -> Iterator[Json]:
        if not self._pieces and not cut:
            yield from self.add("{}")  # clients parse the joined pieces
        arguments = "".join(self._pieces)
        self.item = {**self.item, "status": _status(cut), "arguments": arguments}
        named = {"name": self.item["name"], "arguments": arguments}
        yield {"type": "response.function_call_arguments.done", **self._at, **named}
        yield {"type": "response.output_item.done", "item": self.item}


def _status(cut: bool) -> str:
    return "incomplete" if cut else "completed"


def _summary(text: str) -> Json:
    return {"type": "summary_text", "text": text}


def _output_text(text: str, logprobs: Sequence[Json]) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(logprobs)}


def _without_markers(text: str, logprobs: Sequence[Logprob]) -> Sequence[Logprob]:
    """The last tokens that the first piece of a text consists of: those before them are of the mark that ended the
    reasoning, and of no text."""
    for first in range(len(logprobs) - 1, -1, -1):
        if b"".join(one.chosen.piece for one in logprobs[first:]).endswith(text.encode()):
            return logprobs[first:]
    return logprobs  # a part of the last token's text is held back
