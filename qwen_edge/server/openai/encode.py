"""Encodes deltas as OpenAI's answers: one chunk for each delta of a stream, or one body for all. Pure.

Reference: https://platform.openai.com/docs/api-reference/chat/streaming. Reasoning goes into `reasoning_content`, as
DeepSeek, Qwen and vLLM do.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from qwen_edge.chat.messages import (
    CallBuilder,
    Content,
    Delta,
    Finish,
    Reasoning,
    ToolCallEnd,
    ToolCallStart,
    Usage,
    combined_usage,
)
from qwen_edge.core.errors import RequestError
from qwen_edge.protocol.messages import Logprob
from qwen_edge.server.answer_fields import energy, logprob
from qwen_edge.server.openai.framing import DONE, FINGERPRINT, error_event
from qwen_edge.server.replies import Json
from qwen_edge.server.sse import EVENTS, data_event
from qwen_edge.server.timings import timings


class Encoder:
    """Encodes the chunks of one request, which share an id, a time and a model. `choice`: the number of the answer. An
    Encoder of server/answering.py."""

    content_type = EVENTS

    def __init__(
        self, model: str, *, include_usage: bool = False, inline_reasoning: bool = False, functions: bool = False
    ) -> None:
        """`include_usage`: the last chunk of a stream has the usage. `inline_reasoning`: reasoning stands in the
        content, between <think> and </think> (llama-server's reasoning_format "none"). `functions`: a call has the form
        that it had before there were tools."""
        self._shared = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": FINGERPRINT,
        }
        self._include_usage, self._functions = include_usage, functions
        self._inline = inline_reasoning
        self._thoughts = defaultdict[int, InlineReasoning](InlineReasoning)
        self._calls = Counter[int]()
        self._begun, self._finishes = set[int](), list[Finish]()

    def frames(self, choice: int, event: Delta | Finish) -> Iterator[bytes]:
        if choice not in self._begun:
            self._begun.add(choice)
            yield data_event(self.first(choice))
        for one in self._thoughts[choice].put(event) if self._inline else (event,):
            if isinstance(one, Finish):
                self._finishes.append(one)
                yield data_event(self.finish(choice, one))
            elif chunk := self.delta(choice, one):
                yield data_event(chunk)

    def end(self) -> bytes:
        return (data_event(self.usage(self._finishes)) if self._include_usage else b"") + DONE

    def error(self, error: RequestError) -> bytes:
        return error_event(error)

    def first(self, choice: int) -> Json:
        """The first chunk, with the role."""
        return self._chunk(choice, {"role": "assistant", "content": ""})

    def delta(self, choice: int, delta: Delta) -> Json | None:
        """The chunk of a delta. Of a tool call first the name comes, then pieces of the arguments; its end has none."""
        if isinstance(delta, Reasoning):
            return self._chunk(choice, {"reasoning_content": delta.text}, _logprobs(delta.logprobs))
        if isinstance(delta, Content):
            return self._chunk(choice, {"content": delta.text}, _logprobs(delta.logprobs))
        if isinstance(delta, ToolCallEnd):
            self._calls[choice] += 1
            return self._chunk(choice, {}, logprobs) if (logprobs := _logprobs(delta.logprobs)) else None
        piece = _call_start(delta.name) if isinstance(delta, ToolCallStart) else {"function": {"arguments": delta.text}}
        if self._functions:
            return self._chunk(choice, {"function_call": piece["function"]}, _logprobs(delta.logprobs))
        numbered = {"index": self._calls[choice], **piece}
        return self._chunk(choice, {"tool_calls": [numbered]}, _logprobs(delta.logprobs))

    def finish(self, choice: int, finish: Finish) -> Json:
        return self._chunk(choice, {}, _logprobs(finish.logprobs), self._reason(finish.reason), finish.stopped_by)

    def usage(self, finishes: Sequence[Finish]) -> Json:
        """The last chunk with stream_options.include_usage: no choices, only the usage."""
        return {**self._shared, "object": "chat.completion.chunk", "choices": [], **_usage(finishes)}

    def whole(self, events: Iterable[tuple[int, Delta | Finish]]) -> Json:
        """The body of an answer without streaming, from the same events."""
        answers = defaultdict[int, list[Delta | Finish]](list)
        for choice, event in events:
            answers[choice] += self._thoughts[choice].put(event) if self._inline else (event,)
        choices = [self._choice(choice, answers[choice]) for choice in sorted(answers)]
        finishes = [event for answer in answers.values() for event in answer if isinstance(event, Finish)]
        return {**self._shared, "object": "chat.completion", "choices": choices, **_usage(finishes)}

    def _choice(self, index: int, events: Iterable[Delta | Finish]) -> Json:
        """The message of one answer, from all its events."""
        reasoning, content, calls, logprobs = [], [], [], list[Logprob]()
        reason, stopped_by, builder = "stop", "", CallBuilder()
        for event in events:
            logprobs += event.logprobs
            if isinstance(event, Reasoning):
                reasoning.append(event.text)
            elif isinstance(event, Content):
                content.append(event.text)
            elif isinstance(event, Finish):
                reason, stopped_by = event.reason, event.stopped_by
            elif call := builder.add(event):
                calls.append(_call_start(call.name, call.arguments))
        if cut := builder.unfinished:
            calls.append(_call_start(cut.name, cut.arguments))
        message: Json = {"role": "assistant", "content": "".join(content) or (None if calls else "")}
        if reasoning:
            message["reasoning_content"] = "".join(reasoning)
        if calls:
            message |= {"function_call": calls[0]["function"]} if self._functions else {"tool_calls": calls}
        choice = {
            "index": index,
            "message": message,
            "logprobs": _logprobs(logprobs),
            "finish_reason": self._reason(reason),
        }
        return {**choice, **_stopped(stopped_by)}

    def _reason(self, reason: str) -> str:
        return "function_call" if self._functions and reason == "tool_calls" else reason

    def _chunk(
        self,
        index: int,
        delta: Mapping[str, Any],
        logprobs: Json | None = None,
        reason: str | None = None,
        stopped_by: str = "",
    ) -> Json:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason, **_stopped(stopped_by)}
        return {**self._shared, "object": "chat.completion.chunk", "choices": [choice]}


class InlineReasoning:
    """Turns the reasoning of one answer into content, between <think> and </think>, as the model wrote it. Reasoning
    that the length of the answer has cut stays open."""

    def __init__(self) -> None:
        self._open = False

    def put(self, event: Delta | Finish) -> Iterator[Delta | Finish]:
        if isinstance(event, Reasoning):
            text = event.text if self._open else f"<think>{event.text}"
            self._open = True
            yield Content(text, event.logprobs)
            return
        if self._open:
            self._open = False
            if not isinstance(event, Finish) or event.reason != "length":
                yield Content("</think>")
        yield event


def _usage(finishes: Sequence[Finish]) -> Json:
    """The usage of all answers to a request, and llama-server's `timings`."""
    usage = combined_usage([finish.usage for finish in finishes])
    return {"usage": usage_object(usage), "timings": timings(usage)}


def usage_object(usage: Usage) -> Json:
    """The usage in OpenAI's form, with our energy."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "x_forced_tokens": usage.steered.forced,
        },
        **energy(usage),
    }


def _logprobs(logprobs: Sequence[Logprob]) -> Json | None:
    if not logprobs:
        return None
    return {"content": [logprob(one) for one in logprobs], "refusal": None}


def _stopped(by: str) -> Json:
    """What ended an answer, if neither the model nor a limit did."""
    return {"x_stopped": by} if by else {}


def _call_start(name: str, arguments: str = "") -> Json:
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
