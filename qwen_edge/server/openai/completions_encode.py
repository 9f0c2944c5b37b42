"""Encodes deltas as OpenAI's completions: one chunk for each delta of a stream, or one body for all. Pure.

Reference: https://platform.openai.com/docs/api-reference/completions/object.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from qwen_edge.chat.messages import Content, Delta, Finish, Reasoning, combined_usage, summed_usage
from qwen_edge.core.errors import RequestError
from qwen_edge.protocol.messages import Alternative, Logprob
from qwen_edge.server.answer_fields import stopped
from qwen_edge.server.openai.encode import usage_object
from qwen_edge.server.openai.framing import DONE, FINGERPRINT, error_event
from qwen_edge.server.replies import Json
from qwen_edge.server.sse import EVENTS, data_event
from qwen_edge.server.timings import timings


class CompletionEncoder:
    """Encodes the answers to one request, which may have several prompts, with `choices` answers to each. An Encoder of
    server/answering.py."""

    content_type = EVENTS

    def __init__(
        self, model: str, *, choices: int = 1, echoed: Sequence[str] = (), include_usage: bool = False
    ) -> None:
        """`echoed`: the texts of the prompts, if they stand before the answers. `include_usage`: the last chunk of a
        stream has the usage."""
        self._shared = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": FINGERPRINT,
        }
        self._choices, self._echoed, self._include_usage = choices, echoed, include_usage
        self._begun = set[int]()
        self._offsets = Counter[int]()  # characters of each answer whose tokens have been written
        self._finishes = dict[int, Finish]()

    def frames(self, choice: int, event: Delta | Finish) -> Iterator[bytes]:
        if choice not in self._begun and (echo := self._echo(choice)):
            yield data_event(self._chunk(choice, echo))
        self._begun.add(choice)
        logprobs = self._logprobs(choice, event.logprobs)
        if isinstance(event, Finish):
            self._finishes[choice] = event
            yield data_event(self._chunk(choice, "", logprobs, event))
        elif (text := _text(event)) or logprobs:
            yield data_event(self._chunk(choice, text, logprobs))

    def end(self) -> bytes:
        usage = data_event({**self._shared, "choices": [], **self._usage()}) if self._include_usage else b""
        return usage + DONE

    def error(self, error: RequestError) -> bytes:
        return error_event(error)

    def whole(self, events: Iterable[tuple[int, Delta | Finish]]) -> Json:
        answers = defaultdict[int, list[Delta | Finish]](list)
        for choice, event in events:
            answers[choice].append(event)
        choices = [self._choice(choice, answers[choice]) for choice in sorted(answers)]
        return {**self._shared, "choices": choices, **self._usage()}

    def _choice(self, choice: int, events: Sequence[Delta | Finish]) -> Json:
        logprobs = [one for event in events for one in event.logprobs]
        *_, finish = events
        assert isinstance(finish, Finish)
        self._finishes[choice] = finish
        text = self._echo(choice) + "".join(map(_text, events))
        return self._choice_object(choice, text, self._logprobs(choice, logprobs), finish)

    def _chunk(self, choice: int, text: str, logprobs: Json | None = None, finish: Finish | None = None) -> Json:
        return {**self._shared, "choices": [self._choice_object(choice, text, logprobs, finish)]}

    def _choice_object(self, choice: int, text: str, logprobs: Json | None, finish: Finish | None) -> Json:
        ended = {"finish_reason": finish.reason, **stopped(finish)} if finish else {"finish_reason": None}
        return {"text": text, "index": choice, "logprobs": logprobs, **ended}

    def _echo(self, choice: int) -> str:
        return self._echoed[choice // self._choices] if self._echoed else ""

    def _usage(self) -> Json:
        """The usage of all answers, of which those to one prompt share it, and llama-server's `timings`."""
        by_prompt = defaultdict[int, list[Finish]](list)
        for choice, finish in self._finishes.items():
            by_prompt[choice // self._choices].append(finish)
        usage = summed_usage([combined_usage([one.usage for one in each]) for each in by_prompt.values()])
        return {"usage": usage_object(usage), "timings": timings(usage)}

    def _logprobs(self, choice: int, logprobs: Sequence[Logprob]) -> Json | None:
        """In the form of this path: a list of each property. Offsets are of characters of the answer."""
        if not logprobs:
            return None
        offsets = list[int]()
        for one in logprobs:
            offsets.append(self._offsets[choice])
            self._offsets[choice] += len(_shown(one.chosen))
        tops = [{_shown(other): other.logprob for other in one.top} for one in logprobs]
        return {
            "tokens": [_shown(one.chosen) for one in logprobs],
            "token_logprobs": [one.chosen.logprob for one in logprobs],
            "top_logprobs": tops if any(tops) else None,
            "text_offset": offsets,
        }


def _text(event: Delta | Finish) -> str:
    return event.text if isinstance(event, Content | Reasoning) else ""


def _shown(token: Alternative) -> str:
    """OpenAI writes a token that is a part of a character so that its bytes can be seen."""
    try:
        return token.piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.piece)
