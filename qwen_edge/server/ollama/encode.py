"""Encodes deltas as Ollama's answers: a line for each delta of a stream, or one body for all. Pure, except for the
clocks that it reads.

Reference: https://docs.ollama.com/api. A tool call comes whole, because its arguments are an object.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from qwen_edge.chat.messages import CallBuilder, Content, Delta, Finish, Reasoning, ToolCall
from qwen_edge.core.errors import RequestError
from qwen_edge.protocol.messages import Logprob
from qwen_edge.server.answer_fields import logprob, token
from qwen_edge.server.ollama.errors import error_object
from qwen_edge.server.ollama.framing import line, nanoseconds, timestamp
from qwen_edge.server.replies import Json
from qwen_edge.server.sse import LINES

Said = Callable[[str, str, Sequence[ToolCall]], Json]  # of text, thinking and calls: `message` or `response`


class Encoder:
    """Encodes the answer to one request. Make it when the request has come: its durations begin then. An Encoder of
    server/answering.py."""

    content_type = LINES

    def __init__(
        self,
        model: str,
        said: Said,
        *,
        loaded_at: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`said` is `message` or `response`. `loaded_at`: when an engine has loaded the model, in the time of
        `clock`."""
        self._model, self._said = model, said
        self._loaded_at, self._clock, self._now = loaded_at, clock, now
        self._began = clock()
        self._first: float | None = None  # when the first delta came
        self._calls = CallBuilder()

    def frames(self, choice: int, event: Delta | Finish) -> Iterator[bytes]:
        if isinstance(event, Finish):
            yield line({**self._chunk(logprobs=event.logprobs), **self._done(event)})
        elif isinstance(event, Reasoning):
            yield line(self._chunk(thinking=event.text, logprobs=event.logprobs))
        elif isinstance(event, Content):
            yield line(self._chunk(event.text, logprobs=event.logprobs))
        elif call := self._calls.add(event):
            yield line(self._chunk(calls=[call], logprobs=call.logprobs))

    def end(self) -> bytes:
        return b""

    def error(self, error: RequestError) -> bytes:
        return line(dict(error_object(error)))

    def whole(self, events: Sequence[tuple[int, Delta | Finish]]) -> Json:
        content, thinking, calls, logprobs, done = list[str](), list[str](), list[ToolCall](), list[Logprob](), Json()
        for _, event in events:
            logprobs += event.logprobs
            if isinstance(event, Content):
                content.append(event.text)
            elif isinstance(event, Reasoning):
                thinking.append(event.text)
            elif isinstance(event, Finish):
                done = self._done(event)
            elif call := self._calls.add(event):
                calls.append(call)
        return {**self._chunk("".join(content), "".join(thinking), calls, logprobs), **done}

    def notice(self) -> None:
        """An event has come. The first one ends the evaluation of the prompt."""
        if self._first is None:
            self._first = self._clock()

    def empty(self, reason: str) -> Json:
        """The body for a request without a question, which loads or unloads the model."""
        return {**self._chunk(), "done": True, "done_reason": reason}

    def _chunk(
        self, text: str = "", thinking: str = "", calls: Sequence[ToolCall] = (), logprobs: Sequence[Logprob] = ()
    ) -> Json:
        chunk = {"model": self._model, "created_at": timestamp(self._now()), **self._said(text, thinking, calls)}
        return {**chunk, "done": False, **({"logprobs": [_logprob(one) for one in logprobs]} if logprobs else {})}

    def _done(self, finish: Finish) -> Json:
        """What the last line says: why the answer has ended, its tokens, and its durations in nanoseconds. Loading is
        the part of the time until an engine had loaded the model; the wait for other requests counts as evaluation of
        the prompt."""
        end, began = self._clock(), self._began
        first = end if self._first is None else self._first
        loaded = min(max(began, self._loaded_at()), first)
        return {
            "done": True,
            "done_reason": "length" if finish.reason == "length" else "stop",
            "total_duration": nanoseconds(end - began),
            "load_duration": nanoseconds(loaded - began),
            "prompt_eval_count": finish.usage.prompt_tokens,
            "prompt_eval_duration": nanoseconds(first - loaded),
            "eval_count": finish.usage.completion_tokens,
            "eval_duration": nanoseconds(end - first),
        }


def message(text: str, thinking: str, calls: Sequence[ToolCall]) -> Json:
    """What an answer of /api/chat says."""
    said: Json = {"role": "assistant", "content": text}
    if thinking:
        said["thinking"] = thinking
    if calls:
        said["tool_calls"] = [_call(call) for call in calls]
    return {"message": said}


def response(text: str, thinking: str, _calls: Sequence[ToolCall]) -> Json:
    """What an answer of /api/generate says; there are no tools."""
    return {"response": text, **({"thinking": thinking} if thinking else {})}


def _call(call: ToolCall) -> Json:
    """The arguments stay as the model wrote them, without the line breaks between values: numbers lose no digits."""
    arguments = msgspec.Raw(msgspec.json.format(call.arguments.encode(), indent=-1))
    return {"function": {"name": call.name, "arguments": arguments}}


def _logprob(one: Logprob) -> Json:
    return logprob(one) if one.top else token(one.chosen)
