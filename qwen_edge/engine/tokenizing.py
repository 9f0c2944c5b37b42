"""Turns prompts into tokens: short ones at once, long ones in a thread beside the decoding.

A megabyte of text takes up to a second. Meanwhile streams go on and signs of life are given; a prompt that is read by
the thread has no place yet, and can be forgotten. The order is that of arrival plus own cost: a short prompt overtakes
a long one that has just come, and no prompt waits for ever.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from qwen_edge.core.errors import PromptTooLongError
from qwen_edge.device.host.cpu import lower_priority
from qwen_edge.engine.backend import Backend
from qwen_edge.protocol.messages import Segment, Submit

_AT_ONCE = 1 << 14  # characters: some milliseconds
_PER_SECOND = 1e6  # characters that are read, about

Tokens = list[int] | PromptTooLongError | KeyError
"""Of a prompt; or that it has more than the context holds, or names a token that the model does not have."""


class _ForgottenError(Exception):
    """Nobody wants it any more."""


@dataclass(eq=False)
class _Job:
    prompt: Sequence[Segment]
    then: Callable[[Tokens], None]
    request: Submit | None
    arrived: float
    cost: float
    forgotten: bool = False
    tokens: Tokens | Exception | None = None

    def look(self) -> None:
        if self.forgotten:
            raise _ForgottenError


class Tokenizing:
    """Prompts on their way. Used by the engine's thread; the one that reads is started by the first long prompt."""

    def __init__(self, backend: Backend, clock: Callable[[], float]) -> None:
        self._backend, self._clock = backend, clock
        self._jobs: list[_Job] = []  # what has not been handed over
        self._changed = threading.Condition()  # of the list
        self._thread: threading.Thread | None = None

    @property
    def requests(self) -> list[Submit]:
        """Those whose prompts are being turned into tokens, or wait for that."""
        return [job.request for job in self._jobs if job.request]

    def add(self, prompt: Sequence[Segment], then: Callable[[Tokens], None], request: Submit | None = None) -> None:
        """Call `then` with the prompt's tokens: now, or from `collect`. `request` None: to compute it ahead."""
        unread = self._backend.unread(prompt)
        if unread <= _AT_ONCE:
            then(_settled(partial(self._backend.tokenize, prompt)))
            return
        with self._changed:
            self._jobs.append(_Job(prompt, then, request, self._clock(), unread / _PER_SECOND))
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tokenizing", daemon=True)
            self._thread.start()

    def collect(self) -> None:
        """Hand over what has been read meanwhile. Raises what reading raised by a fault of ours."""
        for job in [job for job in self._jobs if job.tokens is not None]:
            self._drop(job)
            if isinstance(job.tokens, list | PromptTooLongError | KeyError):
                job.then(job.tokens)
            elif job.tokens is not None:
                raise job.tokens

    def forget(self, which: Callable[[Submit, float], bool] = lambda _, __: True) -> list[int]:
        """Drop the requests for which `which` is true, called with each and the seconds since it came; returns their
        ids."""
        now = self._clock()
        gone = [(job, job.request.id) for job in self._jobs if job.request and which(job.request, now - job.arrived)]
        for job, _ in gone:
            self._drop(job)
        return [request for _, request in gone]

    def _drop(self, job: _Job) -> None:
        job.forgotten = True
        with self._changed:
            self._jobs.remove(job)

    def _run(self) -> None:
        lower_priority()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: any(job.tokens is None for job in self._jobs))
                job = min((job for job in self._jobs if job.tokens is None), key=lambda job: job.arrived + job.cost)
            read = partial(self._backend.tokenize, job.prompt, self._backend.context - 1, job.look)
            try:
                job.tokens = _settled(read)
            except _ForgottenError:
                pass
            except Exception as error:  # for the engine's thread, where it is seen
                job.tokens = error


def _settled(tokenize: Callable[[], list[int]]) -> Tokens:
    try:
        return tokenize()
    except (PromptTooLongError, KeyError) as error:
        return error
