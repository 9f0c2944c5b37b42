"""Encodes deltas as the answers of llama-server's /completion: one event for each delta of a stream, or one body. Pure.

Reference: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from qwen_edge.chat.messages import Content, Delta, Finish, Reasoning
from qwen_edge.core.errors import RequestError
from qwen_edge.protocol.messages import Alternative, Logprob
from qwen_edge.server.answer_fields import token
from qwen_edge.server.openai.framing import error_event
from qwen_edge.server.replies import Json
from qwen_edge.server.sse import EVENTS, data_event
from qwen_edge.server.timings import timings


@dataclass(frozen=True)
class Described:
    """What an answer repeats of the request: the text of its prompt, and how it is generated."""

    prompt: str
    settings: Json


@dataclass
class _Answer:
    """What has come of one answer."""

    text: list[str] = field(default_factory=list)
    logprobs: list[Logprob] = field(default_factory=list)


class CompletionEncoder:
    """Encodes the answers to one request. An Encoder of server/answering.py. There is no mark at the end of a stream:
    the last event of each answer says that it has stopped."""

    content_type = EVENTS

    def __init__(
        self,
        model: str,
        context: int,
        described: Sequence[Described],
        *,
        fields: Sequence[str] = (),
        tokens: bool = False,
        probabilities: bool = False,
    ) -> None:
        """`described`: of each answer. `fields`: which fields of the whole answer are sent; none: all. `tokens`: a body
        has the tokens. `probabilities`: answers have those of their tokens."""
        self._model, self._context, self._described = model, context, described
        self._fields, self._tokens, self._probabilities = fields, tokens, probabilities
        self._answers = defaultdict[int, _Answer](_Answer)

    def frames(self, choice: int, event: Delta | Finish) -> Iterator[bytes]:
        text, answer = _text(event), self._answers[choice]
        self._note(answer, event)
        if (event.logprobs and not isinstance(event, Finish)) or text:
            yield data_event(self._part(choice, text, event.logprobs, len(answer.logprobs)))
        if isinstance(event, Finish):
            yield data_event(self._last(choice, event, streamed=True))

    def end(self) -> bytes:
        return b""

    def error(self, error: RequestError) -> bytes:
        return error_event(error)

    def whole(self, events: Iterable[tuple[int, Delta | Finish]]) -> Json | list[Json]:
        """One answer, or a list of several."""
        finishes = dict[int, Finish]()
        for choice, event in events:
            self._note(self._answers[choice], event)
            if isinstance(event, Finish):
                finishes[choice] = event
        answers = [self._last(choice, finishes[choice], streamed=False) for choice in sorted(finishes)]
        return answers[0] if len(self._described) == 1 else answers

    @staticmethod
    def _note(answer: _Answer, event: Delta | Finish) -> None:
        answer.text.append(_text(event))
        answer.logprobs += event.logprobs

    def _part(self, choice: int, text: str, logprobs: Sequence[Logprob], predicted: int) -> Json:
        part: Json = {
            "index": choice,
            "content": text,
            "tokens": [one.chosen.token for one in logprobs],
            "stop": False,
            "tokens_predicted": predicted,
        }
        return part | ({"completion_probabilities": list(map(_probability, logprobs))} if self._probabilities else {})

    def _last(self, choice: int, finish: Finish, *, streamed: bool) -> Json:
        """The whole answer, or the last event, which repeats no text."""
        usage, answer, described = finish.usage, self._answers[choice], self._described[choice]
        text = "".join(answer.text)
        whole: Json = {
            "index": choice,
            "content": "" if streamed else text,
            "tokens": [one.chosen.token for one in answer.logprobs] if self._tokens and not streamed else [],
            "id_slot": -1,
            "stop": True,
            "model": self._model,
            "tokens_predicted": usage.completion_tokens,
            "tokens_evaluated": usage.prompt_tokens,
            "generation_settings": described.settings,
            "prompt": described.prompt,
            "has_new_line": "\n" in text,
            "truncated": usage.prompt_tokens + usage.completion_tokens >= self._context,
            "stop_type": _stop_type(finish),
            "stopping_word": finish.stop_text,
            "tokens_cached": usage.prompt_tokens + usage.completion_tokens,
            "timings": timings(usage),
        }
        if self._probabilities and not streamed:
            whole["completion_probabilities"] = list(map(_probability, answer.logprobs))
        return _chosen(whole, self._fields) if self._fields else whole


def _stop_type(finish: Finish) -> str:
    if finish.reason == "length" or finish.stopped_by:
        return "limit"
    return "word" if finish.stop_text else "eos"


def _chosen(whole: Json, fields: Sequence[str]) -> Json:
    """The fields that were asked for; "a/b" is the field b of the object a. Unknown ones are left out."""
    chosen: Json = {}
    for name in fields:
        value: Any = whole
        for step in name.split("/"):
            value = value.get(step) if isinstance(value, dict) else None
        if value is not None:
            chosen[name] = value
    return chosen


def _text(event: Delta | Finish) -> str:
    return event.text if isinstance(event, Content | Reasoning) else ""


def _probability(one: Logprob) -> Json:
    return {**_token(one.chosen), "top_logprobs": [_token(other) for other in one.top]}


def _token(one: Alternative) -> Json:
    return {"id": one.token, **token(one)}
