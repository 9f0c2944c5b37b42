"""Prompts that are computed before they are asked for: a voice assistant sends its system prompt at the wake word, and
the words of the question as they come, so that the real request has little left to compute.

A preparation is a request whose answer nobody reads: its prompt stays in the KV cache, and it ends behind the first
token. Used on the daemon's event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from msgspec.structs import replace as with_fields

from qwen_edge.chat.messages import ChatRequest, Delta, Finish
from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable

log = logging.getLogger(__name__)

_MOST = 4  # conversations that are prepared at once
_SECONDS = 60.0  # that one may take

Answer = Callable[[ChatRequest], AsyncGenerator[Delta | Finish, None]]


class Preparations:
    """The running preparations: one for each conversation of an owner; those without a name are one conversation."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._tasks = dict[tuple[str, str], asyncio.Task[None]]()

    def start(self, request: ChatRequest) -> None:
        """Compute the prompt. The conversation's preparation before it ends, or the oldest one if there are too many;
        what they have computed stays in the KV cache."""
        self.end(request)
        if len(self._tasks) >= _MOST:
            self._tasks.pop(next(iter(self._tasks))).cancel()
        key = _key(request)
        task = self._tasks[key] = asyncio.create_task(self._run(as_preparation(request)))
        task.add_done_callback(lambda done: self._forget(key, done))

    def end(self, request: ChatRequest) -> None:
        """The conversation's next request has come: end its preparation, if one is running."""
        if task := self._tasks.pop(_key(request), None):
            task.cancel()

    def __len__(self) -> int:
        return len(self._tasks)

    async def _run(self, request: ChatRequest) -> None:
        try:
            async with aclosing(self._answer(request)) as events:
                async for _ in events:
                    pass
        except RequestError as error:  # nobody waits for it
            log.debug("a prompt was not prepared: %s", printable(error.message, 300))

    def _forget(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        if not task.cancelled() and (error := task.exception()):
            log.error("preparing a prompt failed", exc_info=error)


def as_preparation(request: ChatRequest) -> ChatRequest:
    """The request that computes the same prompt, and one token of an answer."""
    return replace(
        request,
        sampling=with_fields(request.sampling, temperature=0.0, logprobs=None, min_tokens=0),
        max_tokens=1,
        max_seconds=min(request.max_seconds or _SECONDS, _SECONDS),
        choices=1,
        stop=(),
        shape=None,
        call_shape=None,
        requires_call=False,
        strict_calls=(),
        thinking_budget=None,
        pin_seconds=0.0,
        prepares=True,
    )


def _key(request: ChatRequest) -> tuple[str, str]:
    return request.caller.owner, request.conversation
