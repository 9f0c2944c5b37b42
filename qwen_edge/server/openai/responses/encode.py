"""Encodes deltas as the events of a response, or as the response: the same events, not sent. Pure.

Reference: https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qwen_edge.chat.messages import Content, Delta, Finish, Reasoning, ToolCallArguments, ToolCallEnd, ToolCallStart
from qwen_edge.core.errors import RequestError
from qwen_edge.server.openai.errors import error_object
from qwen_edge.server.openai.responses.items import new_id
from qwen_edge.server.openai.responses.open_items import OpenCall, OpenItem, OpenMessage, OpenReasoning
from qwen_edge.server.openai.responses.response import ended, failed
from qwen_edge.server.replies import Json
from qwen_edge.server.sse import EVENTS, named_event


class Encoder:
    """Encodes one response. An Encoder of server/answering.py. `response`: the response object, complete once the
    Finish has come."""

    content_type = EVENTS

    def __init__(self, begun: Json, *, encrypted: bool = False, logprobs: bool = False) -> None:
        """`begun`: the response before its first item. `encrypted`: reasoning is also sent as opaque text. `logprobs`:
        the text carries them."""
        self.response = begun
        self._encrypted, self._logprobs = encrypted, logprobs
        self._output = list[Json]()  # complete items
        self._open: OpenItem | None = None
        self._number = 0  # of the next event
        self._begun = False

    def frames(self, choice: int, event: Delta | Finish) -> Iterator[bytes]:
        yield from map(self._frame, self._events(event))

    def end(self) -> bytes:
        return self._frame({"type": f"response.{self.response['status']}", "response": self.response})

    def error(self, error: RequestError) -> bytes:
        """An `error` event, which clients raise, and response.failed, with which a response ends."""
        events = [*([] if self._begun else self._beginning()), *self._close(cut=True)]
        self.response = failed(self.response, self._output, error)
        object_ = error_object(error)["error"]
        flat = {"code": object_["code"], "message": object_["message"], "param": object_["param"]}
        events += [
            {"type": "error", **flat, "error": object_},
            {"type": "response.failed", "response": self.response},
        ]
        return b"".join(map(self._frame, events))

    def whole(self, events: Sequence[tuple[int, Delta | Finish]]) -> Json:
        for _, event in events:
            for _event in self._events(event):
                pass
        return self.response

    def _events(self, event: Delta | Finish) -> Iterator[Json]:
        """The events of one delta, without their sequence numbers."""
        if not self._begun:
            yield from self._beginning()
        if isinstance(event, Reasoning):
            yield from self._become(OpenReasoning)
            assert isinstance(self._open, OpenReasoning)
            yield from self._placed(self._open.add(event.text))
        elif isinstance(event, Content):
            yield from self._become(OpenMessage)
            assert isinstance(self._open, OpenMessage)
            yield from self._placed(self._open.add(event.text, event.logprobs))
        elif isinstance(event, ToolCallStart):
            yield from self._close()
            yield from self._begin(OpenCall(self._id("function_call"), event.name))
        elif isinstance(event, ToolCallArguments):
            assert isinstance(self._open, OpenCall)
            yield from self._placed(self._open.add(event.text))
        elif isinstance(event, ToolCallEnd):
            yield from self._close()
        else:
            yield from self._finish(event)

    def _beginning(self) -> Iterator[Json]:
        self._begun = True
        yield {"type": "response.created", "response": self.response}
        yield {"type": "response.in_progress", "response": self.response}

    def _become(self, kind: type[OpenReasoning] | type[OpenMessage]) -> Iterator[Json]:
        """Let an item of this kind be open: the one that is, or a new one."""
        if isinstance(self._open, kind):
            return
        yield from self._close()
        if kind is OpenReasoning:
            yield from self._begin(OpenReasoning(self._id("reasoning"), encrypted=self._encrypted))
        else:
            yield from self._begin(OpenMessage(self._id("message"), logprobs=self._logprobs))

    def _begin(self, item: OpenItem) -> Iterator[Json]:
        self._open = item
        yield from self._placed(item.begin())

    def _close(self, *, cut: bool = False) -> Iterator[Json]:
        if self._open:
            yield from self._placed(self._open.end(cut=cut))
            self._output.append(self._open.item)
            self._open = None

    def _finish(self, finish: Finish) -> Iterator[Json]:
        """The events before the last, which `end` writes. An answer without a word is an empty message: clients look
        for one."""
        cut = finish.reason == "length"
        yield from self._close(cut=cut or isinstance(self._open, OpenCall))
        if not cut and all(item["type"] == "reasoning" for item in self._output):
            yield from self._become(OpenMessage)
            yield from self._close()
        self.response = ended(self.response, self._output, finish)

    def _placed(self, events: Iterator[Json]) -> Iterator[Json]:
        place = len(self._output)
        for event in events:
            yield {**event, "output_index": place}

    def _id(self, kind: str) -> str:
        return new_id(kind, self.response["id"], len(self._output))

    def _frame(self, event: Json) -> bytes:
        numbered = {**event, "sequence_number": self._number}
        self._number += 1
        return named_event(numbered)
