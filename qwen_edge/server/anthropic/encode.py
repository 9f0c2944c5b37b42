"""Encodes deltas as Anthropic's answers: the events of a stream, or one message, which is what a client makes of these
events. Pure.

Reference: https://docs.anthropic.com/en/api/messages-streaming. A message is a list of content blocks: a block of type
thinking, text or tool_use for each run of deltas of the same kind.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from qwen_edge.chat.messages import Content, Delta, Finish, Reasoning, ToolCallArguments, ToolCallEnd, ToolCallStart
from qwen_edge.core.errors import RequestError
from qwen_edge.server.answer_fields import stopped
from qwen_edge.server.anthropic.cut_object import cut_object
from qwen_edge.server.anthropic.errors import error_object
from qwen_edge.server.replies import Json
from qwen_edge.server.sse import EVENTS, named_event

_NO_USAGE = {"input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0}


class Encoder:
    """Encodes the answer to one request. An Encoder of server/answering.py; there is one choice."""

    content_type = EVENTS

    def __init__(self, model: str, *, pinned: bool = False) -> None:
        """`pinned`: the prompt stays in memory because the client has marked it with cache_control."""
        self._model, self._pinned = model, pinned
        self._begun = False
        self._blocks = _Blocks()

    def frames(self, choice: int, event_: Delta | Finish) -> Iterator[bytes]:
        if not self._begun:
            self._begun = True
            yield named_event({"type": "message_start", "message": self._first()})
            yield named_event({"type": "ping"})
        for one in self._events(event_):
            yield named_event(one)

    def end(self) -> bytes:
        return named_event({"type": "message_stop"})

    def error(self, error: RequestError) -> bytes:
        return named_event(error_object(error))

    def whole(self, events: Sequence[tuple[int, Delta | Finish]]) -> Json:
        """The body of an answer without streaming, from the same events."""
        message, content = self._first(), list[Json]()
        for one in (one for _, event_ in events for one in self._events(event_)):
            if one["type"] == "content_block_start":
                content.append({name: [value] for name, value in one["content_block"].items()})
            elif one["type"] == "content_block_delta":
                for name, value in one["delta"].items():
                    content[-1].setdefault(name, []).append(value)
            elif one["type"] == "message_delta":
                message |= {**one["delta"], "usage": one["usage"]}
        return message | {"content": [_block(pieces) for pieces in content]}

    def _first(self) -> Json:
        """The message before its first block."""
        return {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _NO_USAGE,
        }

    def _events(self, event_: Delta | Finish) -> Iterator[Json]:
        """The events of a delta; at the end the last block stops, and the message gets its reason and its usage."""
        if not isinstance(event_, Finish):
            yield from self._blocks.put(event_)
            return
        yield from self._blocks.stop()
        reason = _reason(event_)
        text = event_.stop_text if reason == "stop_sequence" else None
        yield {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": text, **stopped(event_)},
            "usage": self._usage(event_),
        }

    def _usage(self, finish: Finish) -> Json:
        """`input_tokens` are those that were neither in the cache nor are pinned in it now."""
        usage = finish.usage
        computed = usage.prompt_tokens - usage.cached_tokens
        energy = {"energy_joules": usage.joules} if usage.joules else {}
        return {
            "input_tokens": 0 if self._pinned else computed,
            "cache_creation_input_tokens": computed if self._pinned else 0,
            "cache_read_input_tokens": usage.cached_tokens,
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
            **energy,
        }


_Kind = Literal["thinking", "text", "tool_use"]


class _Blocks:
    """Turns the deltas of one answer into the events of its content blocks."""

    def __init__(self) -> None:
        self._index = -1
        self._open: _Kind | None = None
        self._thought = hashlib.sha256()

    def put(self, delta: Delta) -> Iterator[Json]:
        if isinstance(delta, ToolCallStart):
            yield from self.stop()
            id_ = f"toolu_{secrets.token_hex(12)}"
            yield self._start("tool_use", {"id": id_, "name": delta.name, "input": {}})
        elif isinstance(delta, ToolCallEnd):
            yield from self.stop()
        elif not delta.text:  # the text of its tokens is still held back
            return
        elif isinstance(delta, ToolCallArguments):
            yield self._delta({"type": "input_json_delta", "partial_json": delta.text})
        elif isinstance(delta, Content):
            if self._open != "text":
                yield from self.stop()
                yield self._start("text", {"text": ""})
            yield self._delta({"type": "text_delta", "text": delta.text})
        elif isinstance(delta, Reasoning):
            if self._open != "thinking":
                yield from self.stop()
                yield self._start("thinking", {"thinking": "", "signature": ""})
            self._thought.update(delta.text.encode("utf-8", "surrogatepass"))
            yield self._delta({"type": "thinking_delta", "thinking": delta.text})

    def stop(self) -> Iterator[Json]:
        """End the open block, if there is one."""
        if self._open == "thinking":
            yield self._delta({"type": "signature_delta", "signature": self._signature()})
        if self._open:
            yield {"type": "content_block_stop", "index": self._index}
        self._open = None

    def _start(self, kind: _Kind, fields: Json) -> Json:
        self._index += 1
        self._open = kind
        return {"type": "content_block_start", "index": self._index, "content_block": {"type": kind, **fields}}

    def _delta(self, delta: Json) -> Json:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    def _signature(self) -> str:
        """Clients keep it with the thinking, and send both back. It is no secret, and is not checked."""
        digest, self._thought = self._thought.digest(), hashlib.sha256()
        return base64.b64encode(digest).decode()


def _block(pieces: dict[str, list[Any]]) -> Json:
    """A content block of a message, of the pieces of its fields: those with which it starts, and those of its
    deltas."""
    kind = pieces["type"][0]
    if kind == "tool_use":
        arguments = "".join(pieces.get("partial_json", ()))
        return {"type": kind, "id": pieces["id"][0], "name": pieces["name"][0], "input": _input(arguments)}
    return {"type": kind, **{name: "".join(texts) for name, texts in pieces.items() if name != "type"}}


def _input(arguments: str) -> Json:
    """The arguments of a call as an object. If the end of the answer has cut them, the values that are complete."""
    try:
        return msgspec.json.decode(arguments, type=dict[str, Any]) if arguments else {}
    except msgspec.DecodeError:
        return cut_object(arguments)


def _reason(finish: Finish) -> str:
    if finish.reason == "tool_calls":
        return "tool_use"
    if finish.reason == "length":
        return "max_tokens"
    return "stop_sequence" if finish.stop_text else "end_turn"
