"""Deltas to OpenAI's answers: a chunk each for a stream, or all folded into one body. Pure.

Reference: https://platform.openai.com/docs/api-reference/chat/streaming. Reasoning goes into `reasoning_content`, as
DeepSeek, Qwen and vLLM do it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping
from typing import Any

from qwen_edge.chat.messages import Content, Delta, Finish, Reasoning, ToolCall
from qwen_edge.errors import RequestError
from qwen_edge.messages import Done

Json = dict[str, Any]


class Encoder:
    """One answer's chunks: they share an id, a time and a model, and count the tool calls."""

    def __init__(self, model: str) -> None:
        self._shared = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}
        self._calls = 0

    def first(self) -> Json:
        """The chunk that says who speaks."""
        return self._chunk({"role": "assistant", "content": ""})

    def delta(self, delta: Delta) -> Json:
        if isinstance(delta, Reasoning):
            return self._chunk({"reasoning_content": delta.text})
        if isinstance(delta, Content):
            return self._chunk({"content": delta.text})
        call = {"index": self._calls, **_call(delta)}
        self._calls += 1
        return self._chunk({"tool_calls": [call]})

    def finish(self, finish: Finish) -> Json:
        return self._chunk({}, finish.reason)

    def usage(self, finish: Finish) -> Json:
        """The extra chunk of stream_options.include_usage: no choices, only the counts."""
        return {**self._shared, "object": "chat.completion.chunk", "choices": [], "usage": usage(finish.done)}

    def whole(self, events: Iterable[Delta | Finish]) -> Json:
        """A non-streaming body, from the same events."""
        reasoning, content, calls = [], [], []
        reason, done = "stop", None
        for event in events:
            if isinstance(event, Reasoning):
                reasoning.append(event.text)
            elif isinstance(event, Content):
                content.append(event.text)
            elif isinstance(event, ToolCall):
                calls.append(_call(event))
            else:
                reason, done = event.reason, event.done
        message: Json = {"role": "assistant", "content": "".join(content) or (None if calls else "")}
        if reasoning:
            message["reasoning_content"] = "".join(reasoning)
        if calls:
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        assert done, "a finished answer has counts"
        return {**self._shared, "object": "chat.completion", "choices": [choice], "usage": usage(done)}

    def _chunk(self, delta: Mapping[str, Any], reason: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return {**self._shared, "object": "chat.completion.chunk", "choices": [choice]}


def usage(done: Done) -> Json:
    return {
        "prompt_tokens": done.prompt_tokens,
        "completion_tokens": done.completion_tokens,
        "total_tokens": done.prompt_tokens + done.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": done.cached_tokens},
    }


def error(failure: RequestError) -> Json:
    """OpenAI's error object."""
    return {
        "error": {
            "message": failure.message,
            "type": failure.kind,
            "param": failure.param,
            "code": failure.code,
        }
    }


def model_card(name: str, created: int, context: int) -> Json:
    return {"id": name, "object": "model", "created": created, "owned_by": "qwen-edge", "context_length": context}


def _call(call: ToolCall) -> Json:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
