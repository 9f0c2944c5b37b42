"""Turns prompts into tokens: short prompts at once, long ones in a thread beside the decoding. The same thread compiles
shapes of answers that are new (`constraints`), and answers long inquiries about text and tokens.

A megabyte of text takes up to a second. Meanwhile streams go on and the engine gives signs of life; a request whose
prompt is being tokenized has no place in the KV cache yet, and can be dropped. Of the long prompts, the order is that
of arrival plus own cost: a shorter prompt overtakes a longer one that has just come, and none waits for ever.

Short prompts, of a few milliseconds at most, are tokenized by the engine's thread when they come: the other thread
would first have to get a core, and llama.cpp computes on all of them. That was measured to delay the first word by more
than the decoding gains.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar, cast

from qwen_edge.core.errors import PromptTooLongError
from qwen_edge.device.host.cpu import lower_priority
from qwen_edge.engine.backend import Shapes, Vocabulary
from qwen_edge.engine.constraints import Constraints, UnusableShape, compiled, known
from qwen_edge.protocol.messages import Failed, Pieces, Submit, TokenIds, Tokenize, TokenPieces, Warm

_AT_ONCE = 1 << 14  # characters: some milliseconds
_PER_SECOND = 1e6  # characters that are tokenized, about
_PER_TOKEN = 4  # turning a token into text takes as long as tokenizing so many characters, about
_LONGEST_COMPILATION = 10.0  # seconds; the bounds of structured/ keep the ones that are known well below
_STACK = 1 << 26  # bytes of the thread's stack, which take memory when they are used: shapes are compiled recursively

Tokenized = list[int] | PromptTooLongError | KeyError
"""The tokens of a prompt; or that it has more than the context holds, or names a token that the model does not have."""

Message = TypeVar("Message", Submit, Warm)


class _DroppedError(Exception):
    """Nobody wants the tokens any more."""


@dataclass(frozen=True)
class Prepared(Generic[Message]):
    """A message whose prompt has been tokenized and whose shapes have been compiled. `arrived` is when it came."""

    message: Message
    arrived: float
    tokens: Tokenized
    constraints: Constraints | UnusableShape


@dataclass(eq=False)
class _Job:
    """A message whose prompt is or will be tokenized, or an inquiry; `result` is an Exception of another kind after a
    fault of ours. `constraints` are None until its shapes have been compiled."""

    message: Submit | Warm | Tokenize | Pieces
    arrived: float
    cost: float
    constraints: Constraints | UnusableShape | None
    dropped: bool = False
    result: Tokenized | list[bytes] | Exception | None = None

    def check(self) -> None:
        if self.dropped:
            raise _DroppedError


class Tokenizing:
    """Messages whose prompts are being tokenized, or have been and were not collected. Used by the engine's thread; the
    first long prompt starts the other thread.

    `hung`: whether the compilation of a shape does not end. Its request is refused, and a new thread does the rest, but
    nothing can stop the old thread: only the end of the process does."""

    def __init__(self, vocabulary: Vocabulary, shapes: Shapes, most: int, clock: Callable[[], float]) -> None:
        """A long prompt that has more than `most` tokens is not read to its end."""
        self._vocabulary, self._shapes, self._most, self._clock = vocabulary, shapes, most, clock
        self._jobs: list[_Job] = []
        self._changed = threading.Condition()  # of the list
        self._thread: threading.Thread | None = None
        self._compiling: _Job | None = None  # the other thread sets it
        self._watched: tuple[_Job | None, float] = (None, 0.0)  # what was being compiled when it was first seen
        self.hung = False

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for a message's tokens or text."""
        return any(not isinstance(job.message, Warm) for job in self._jobs)

    @property
    def ready(self) -> bool:
        """Whether there is something to collect."""
        return any(job.result is not None for job in self._jobs)

    def add(self, message: Submit | Warm | Tokenize | Pieces) -> None:
        """Tokenize the prompt of a message: `collect` gives the tokens, or `replies` the reply to an inquiry."""
        if isinstance(message, Pieces):
            unread = _PER_TOKEN * len(message.tokens)
        else:
            unread = self._vocabulary.unread(message.prompt)
        constraints = Constraints() if isinstance(message, Tokenize | Pieces) else known(message, self._shapes)
        job = _Job(message, self._clock(), unread / _PER_SECOND, constraints)
        if unread <= _AT_ONCE and job.constraints is not None:
            job.result = _caught(partial(self._read, message))
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()
        if job.result is None and self._thread is None:
            self._start()

    def collect(self, kind: type[Message]) -> list[Prepared[Message]]:
        """The messages of this kind that have been prepared. Raises what tokenizing raised by a fault of ours."""
        self._give_up_compilation()
        collected = list[Prepared[Message]]()
        if not self._jobs:
            return collected
        for job in self._jobs[:]:
            if job.result is None or not isinstance(job.message, kind):
                continue
            self._drop(job)
            if not isinstance(job.result, list | PromptTooLongError | KeyError):
                raise job.result
            assert job.constraints is not None
            tokens = cast(Tokenized, job.result)  # pieces are of inquiries only
            collected.append(Prepared(job.message, job.arrived, tokens, job.constraints))
        return collected

    def replies(self) -> list[TokenIds | TokenPieces | Failed]:
        """The replies to inquiries that are ready. Raises what was raised by a fault of ours."""
        replies = list[TokenIds | TokenPieces | Failed]()
        for job in self._jobs[:] if self._jobs else ():
            message, result = job.message, job.result
            if result is None or not isinstance(message, Tokenize | Pieces):
                continue
            self._drop(job)
            if isinstance(result, KeyError):
                replies.append(Failed(message.id, "bad_request", f"the model has no token {result}"))
            elif isinstance(result, Exception):
                raise result
            elif isinstance(message, Tokenize):
                replies.append(TokenIds(message.id, tuple(cast("list[int]", result))))
            else:
                replies.append(TokenPieces(message.id, tuple(cast("list[bytes]", result))))
        return replies

    def abort(self, number: int) -> None:
        """Drop the request or the inquiry with this id, if there is one."""
        for job in self._jobs[:]:
            if not isinstance(job.message, Warm) and job.message.id == number:
                self._drop(job)

    def drop(self, which: Callable[[Submit, float], bool] = lambda _, __: True) -> list[int]:
        """Drop the requests for which `which` is true, called with each and the seconds since it came; returns their
        ids."""
        dropped = list[int]()
        if not self._jobs:
            return dropped
        now = self._clock()
        for job in self._jobs[:]:
            if isinstance(job.message, Submit) and which(job.message, now - job.arrived):
                self._drop(job)
                dropped.append(job.message.id)
        return dropped

    def _give_up_compilation(self) -> None:
        """Refuse the request whose shape takes too long to compile."""
        job, now = self._compiling, self._clock()
        if job is None or job is not self._watched[0]:
            self._watched = (job, now)
        if job is None or now - self._watched[1] < _LONGEST_COMPILATION:
            return
        self._compiling, self.hung = None, True
        submit = job.message
        of_call = isinstance(submit, Submit) and submit.shape is None
        why = f"it takes longer than {_LONGEST_COMPILATION:.0f} s to compile"
        job.constraints = UnusableShape("bad_call_shape" if of_call else "bad_shape", why)
        job.result = []
        self._start()

    def _start(self) -> None:
        before = threading.stack_size(_STACK)
        try:
            self._thread = threading.Thread(target=self._run, name="tokenizing", daemon=True)
            self._thread.start()
        finally:
            threading.stack_size(before)

    def _drop(self, job: _Job) -> None:
        job.dropped = True
        with self._changed:
            self._jobs.remove(job)

    def _run(self) -> None:
        lower_priority()
        thread = threading.current_thread()
        while self._thread is thread:
            with self._changed:
                self._changed.wait_for(lambda: any(job.result is None for job in self._jobs))
                job = min((job for job in self._jobs if job.result is None), key=lambda job: job.arrived + job.cost)
            try:
                if job.constraints is None and isinstance(job.message, Submit | Warm):
                    self._compiling = job
                    constraints = compiled(job.message, self._shapes)
                    if self._thread is not thread:  # it took too long
                        return
                    job.constraints, self._compiling = constraints, None
                job.result = _caught(partial(self._read, job.message, self._most, job.check))
            except _DroppedError:
                pass
            except Exception as error:  # for the engine's thread, where it is seen
                job.result, self._compiling = error, None

    def _read(
        self,
        message: Submit | Warm | Tokenize | Pieces,
        most: float = math.inf,
        between: Callable[[], None] = lambda: None,
    ) -> list[int] | list[bytes]:
        """The tokens of a prompt, of which more than `most` are of use to an inquiry only; or the pieces of tokens."""
        if isinstance(message, Pieces):
            return self._vocabulary.pieces(message.tokens, between)
        if isinstance(message, Tokenize):
            return self._vocabulary.tokenize(message.prompt, math.inf, between, begin=message.begin)
        return self._vocabulary.tokenize(message.prompt, most, between)


def _caught(read: Callable[[], list[int] | list[bytes]]) -> Tokenized | list[bytes]:
    try:
        return read()
    except (PromptTooLongError, KeyError) as error:
        return error
