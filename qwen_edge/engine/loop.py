"""Engine.step: hand out places, run a batch, choose tokens, tell the daemon. The whole engine in one screen.

Many sequences at once. What they computed stays in the KV cache for whoever begins with the same tokens (`kv.cells`);
who runs with how many tokens is `scheduler`'s to say. Synchronous and free of I/O: the process around it is `main.py`,
and tests and benchmarks drive it directly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Literal

from qwen_edge.core.errors import EngineError
from qwen_edge.engine.backend import Backend
from qwen_edge.engine.cost_model import CostModel
from qwen_edge.engine.duty import Duty
from qwen_edge.engine.idle_prefill import IdlePrefill
from qwen_edge.engine.inspect_cache import look
from qwen_edge.engine.intake import take_in
from qwen_edge.engine.misses import Misses
from qwen_edge.engine.recall import Recall
from qwen_edge.engine.room import Room
from qwen_edge.engine.running_clock import RunningClock
from qwen_edge.engine.scheduler import Bounds, ScheduledChunk, cells_ahead, in_order, plan, victim
from qwen_edge.engine.sequence import Sequence
from qwen_edge.engine.speculate import Answers
from qwen_edge.engine.tokenizing import Tokenizing, Tokens
from qwen_edge.kv.disk_tier import DiskTier
from qwen_edge.kv.manager import KvCacheManager
from qwen_edge.protocol.messages import (
    Abort,
    CacheReport,
    Failed,
    InspectCache,
    Limits,
    Outbound,
    Share,
    Started,
    Submit,
    Warm,
)


class Engine:
    """Owns the backend. `step()` does at most one decode, so messages are heard at least that often. Times are
    those of its `clock`."""

    def __init__(
        self,
        backend: Backend,
        clock: Callable[[], float] = time.monotonic,
        *,
        longest_step: float = math.inf,
        speculates: bool = True,
        ahead_per_hour: float = 0.0,
        disk: DiskTier | None = None,
    ) -> None:
        """In more than `longest_step` seconds a step has stood still, with all the process: they count for no deadline.
        With `speculates`, tokens are guessed from the text so far, which changes none of them (`speculate`). Up to
        `ahead_per_hour` tokens are computed while there is nothing else to do, for turns to come (`ahead`). On `disk`
        is kept what outlives the engine."""
        self._backend = backend
        self._speculates = speculates
        self._wall, self.clock = clock, RunningClock(longest_step, clock)
        self._cells = KvCacheManager(
            backend,
            backend.context,
            backend.sequences,
            backend.spare,
            backend.stash,
            disk,
            model_id=backend.model_id,
        )
        self._room = Room(backend, self._cells, self.clock)
        self._tokenizing = Tokenizing(backend, self.clock)
        self._pace = CostModel()
        self._answers, self._misses = Answers(), Misses()
        self._recall = Recall(self._cells, self._pace, self._misses, backend.batch, self.clock)
        self._ahead = IdlePrefill(
            backend, self._room, self._pace, self._misses, ahead_per_hour, clock=self.clock, note=self._note
        )
        self._waiting, self._running = list[Sequence](), list[Sequence]()
        self._news: list[Outbound] = []  # what has happened and has not been told
        self._crowded = False  # somebody had to give way: nobody comes in before somebody has finished
        self._turn = 0
        self._tidied = 0  # the turn after which memory was last given back
        self._chosen = 0  # tokens since the last step that was told
        self.duty = Duty()
        self.first_word = self.broken = False  # the last step brought somebody's; a decode failed: the process must end

    @property
    def busy(self) -> bool:
        return bool(self._running or self._waiting or self._news or self._tokenizing.requests)

    @property
    def waits(self) -> bool:
        """Whether nothing can be done before a prompt has been turned into tokens."""
        return self.busy and not (self._running or self._waiting or self._news)

    @property
    def writing(self) -> bool:
        """Whether a file is being written: there may be more to write when it is."""
        return self._cells.writing

    @property
    def pause(self) -> float:
        """Seconds for which `prepare` leaves the cores to others."""
        return self._ahead.pause

    @property
    def open_cells(self) -> int:
        """Cells of the KV cache that requests hold; those of finished ones, which can go, not counted."""
        return self._cells.size - self._cells.available

    def submit(self, request: Submit) -> None:
        """Take a request in. What cannot be answered is refused with the next step."""
        self._tokenizing.add(request.prompt, partial(self._take, request, self.clock()), request)

    def _take(self, request: Submit, arrived: float, tokens: Tokens) -> None:
        taken = take_in(request, tokens, self._backend, self._answers, arrived)
        if isinstance(taken, Failed):
            self._news.append(taken)
        else:
            self._waiting.append(taken)

    def abort(self, message: Abort) -> None:
        """Forget a request, wherever it is. What it computed stays in the cache for the next one."""
        self._tokenizing.forget(lambda request, _: request.id == message.id)
        for sequence in [*self._waiting, *self._running]:
            if sequence.request.id == message.id:
                self._release(sequence)

    def warm(self, message: Warm) -> None:
        """Compute a prompt when there is nothing else to do."""
        self._tokenizing.add(message.prompt, partial(self._ahead.add, caller=message.caller))

    def allow(self, limits: Limits) -> None:
        """From now on, do no more than this."""
        self.duty.allow(limits)
        self._backend.use_threads(limits.threads)

    def look(self, message: InspectCache) -> CacheReport:
        """Tell what is remembered, and forget or pin some of it before."""
        return look(self._cells, self._backend, message)

    def prepare(self) -> bool:
        """Do a piece of what the next request would have to wait for. False if there is none. Raises EngineError."""
        if self.duty.limits.idle_work and self._ahead.step():
            self._turn += 1
            return True
        return self._cells.prepare() or (self._tidied == self._turn and self._cells.write())

    def tidy(self) -> None:
        """There has been nothing to do for a while: have as much memory as is needed, and begin to write down what is
        remembered. Raises EngineError."""
        if self._tidied != self._turn:
            self._tidied = self._turn
            self._backend.fit(self._cells.used)

    def leave(self, seconds: float) -> None:
        """Write down what is remembered, of requests that are cut off, too, for so long. Raises EngineError."""
        for sequence in [*self._waiting, *self._running]:
            self._release(sequence)
        self._cells.leave(seconds, self.clock)

    def admit(self) -> list[Outbound]:
        """Refuse what cannot be answered, end what has taken too long, and let in what there is room for. Returns what
        happened: the daemon should hear of a request that begins before anything is computed of it."""
        self._tokenizing.collect()
        self._room.look()
        begun = self._let_in() if self.duty.limits.duty > 0 else []  # what is begun is lost if the engine dies
        return [*self._told(), *self._expire(), *begun]

    def step(self) -> list[Outbound]:
        """Advance by one decode; returns what happened. Raises nothing: a request that cannot go on ends in Failed."""
        events, self.first_word = self.admit(), False
        if not self._running:
            return events
        self._turn, began = self._turn + 1, self.clock()
        try:
            self._recall.step(self._running)
            parts = self._next_batch(self.duty.limits.step_seconds - self._look_ahead())
            if not parts:
                self.duty.rested(self._recall.wait(), busy=True)
                return [*events, *self._told()]
            self._decode(parts)
        except EngineError as error:
            # what a failed decode left in the cache and in the driver is not known: a new process knows
            self.broken = True
            ids = [one.request.id for one in [*self._running, *self._waiting]] + self._tokenizing.forget()
            lost = [Failed(one, "engine", str(error)) for one in ids]
            for sequence in [*self._running, *self._waiting]:
                sequence.sampler.close()
            self._running, self._waiting = [], []
            return [*events, *lost, Failed(None, "engine", str(error))]
        shares, came, end = tuple(part.share for part in parts), list[Outbound](), 0
        for part in parts:
            end += part.size
            if part.samples:
                came += self._sample(part, end - part.rows)
        self._note(self.clock() - began, shares)
        return [*events, *self._told(), *came]

    def _told(self) -> list[Outbound]:
        news, self._news = self._news, []
        return news

    def _note(self, seconds: float, shares: tuple[Share, ...]) -> None:
        """A step has just been computed: whoever counts energy and work is to hear of it."""
        self._news.append(self.duty.ran(self._wall() - seconds, seconds, self._chosen, shares))
        self._chosen = 0

    def _expire(self) -> list[Outbound]:
        """End what has taken as long as it may."""
        now, events = self.clock(), list[Outbound]()
        late = self._tokenizing.forget(lambda request, seconds: seconds >= request.wait_seconds)
        events += [Failed(one, "waited", "") for one in late]
        for sequence in [*self._waiting, *self._running]:
            if sequence.waited_too_long(now):
                self._release(sequence)
                events.append(Failed(sequence.request.id, "waited", ""))
            elif sequence.late(now, self.duty.slept):
                events += self._finish(sequence, "length", sequence.output.finish())
        return events

    def _let_in(self) -> list[Outbound]:
        """Give places to those that wait, while there are places and cells. A higher priority takes a lower one's."""
        events = list[Outbound]()
        for sequence in in_order(self._waiting, self._pace):
            if refusal := self._room.refusal(sequence):
                events += self._give_up(sequence, refusal)
                continue
            lower = self._room.in_its_way(sequence, self._running, crowded=self._crowded)
            if lower is None:
                break
            for one in lower:
                self._put_back(one)
            first = sequence.started is None  # who had to give way has not asked again
            asked = first and sequence.request.asked > 0
            opened = self._cells.open(sequence.tokens, sequence.request.caller, asked=asked)
            assert opened, "there are more sequences in the cache than places"
            sequence.seq_id, sequence.computed = opened
            if first:
                sequence.started, sequence.rested = self.clock(), self.duty.slept
                events.append(Started(sequence.request.id))
            self._waiting.remove(sequence)
            self._running.append(sequence)
            self._recall.begin(sequence, asked=asked)
        return events

    def _put_back(self, sequence: Sequence) -> None:
        """Let a running sequence wait; what it computed stays as long as the cells are not needed."""
        assert sequence.seq_id is not None
        self._recall.drop(sequence)
        self._cells.park(sequence.seq_id, sequence.tokens[: sequence.computed], sequence.prompt_length, asked=0)
        sequence.seq_id, sequence.computed = None, 0
        self._running.remove(sequence)
        self._waiting.append(sequence)

    def _look_ahead(self) -> float:
        """See to the cells of the next steps; returns the seconds that took. Raises EngineError."""
        began = self.clock()
        self._cells.tidy()
        going = self._cells.going
        self._backend.expect(self._cells.used - going, going, *cells_ahead(self._running))
        return self.clock() - began

    def _next_batch(self, seconds: float) -> list[ScheduledChunk]:
        """What to run now, with the cells for it; if these cannot be had, the last to come gives way. Nothing if not
        even one request can go on, for lack of memory. Raises EngineError."""
        bounds = Bounds(self._backend.batch, self._backend.rows, seconds, self.duty.limits.prompt_seconds)
        while self._running:
            for one in self._running:
                if one.seq_id is not None and one.remaining > 1:
                    one.computed = self._cells.adopt(one.seq_id, one.tokens)
            for guess in (True, False) if self._speculates and self.duty.limits.speculate else (False,):
                parts = plan(self._recall.done_with(self._running), bounds, self._pace, turn=self._turn, guess=guess)
                if self._room.reserve(sum(part.size for part in parts)):
                    return parts
            self._put_back(victim(self._running))
            self._crowded = True
        self._crowded = False
        return []

    def _decode(self, parts: list[ScheduledChunk]) -> None:
        began = self.clock()
        self._backend.decode([part.slice() for part in parts])
        seconds, rows = self.clock() - began, sum(part.rows for part in parts)
        self._pace.learn(sum(part.size for part in parts), rows, seconds)
        for part in parts:
            sequence = part.sequence
            assert sequence.seq_id is not None
            sequence.computed += part.count
            if sequence.first_token_at is None:
                sequence.ran += part.count
            self._cells.compute(sequence.seq_id, sequence.computed)
            if part.count > 1 or sequence.computed == sequence.prompt_length:
                self._cells.publish(sequence.seq_id, sequence.tokens[: sequence.computed])
            self._cells.compute(sequence.seq_id, sequence.computed + len(part.guesses))

    def _sample(self, part: ScheduledChunk, row: int) -> list[Outbound]:
        """Choose the next token, and those after it as long as it is what was guessed. The logits begin at `row`."""
        sequence, events = part.sequence, list[Outbound]()
        assert sequence.seq_id is not None
        chosen, logprobs = sequence.choose(row, part.guesses, self._backend.is_end)
        sequence.computed += len(chosen) - 1
        self._cells.shrink(sequence.seq_id, sequence.computed)
        for number, token in enumerate(chosen):
            sequence.unsaid += logprobs[number : number + 1]
            events += self._extend(sequence, token)
            if sequence.seq_id is None:
                break
        return events

    def _extend(self, sequence: Sequence, token: int) -> list[Outbound]:
        """Take a sampled token into the sequence, or end it there."""
        self._chosen += 1
        if sequence.first_token_at is None:
            sequence.first_token_at = self.clock()
            self._misses.remember(sequence.prompt)
        sequence.tokens.append(token)
        if self._backend.is_end(token):
            return self._finish(sequence, "stop", sequence.output.finish())
        if not sequence.spoke and not self._backend.is_mark(token):
            sequence.spoke = self.first_word = True
        text = sequence.output.push(self._backend.piece(token))
        if sequence.output.stopped:
            return self._finish(sequence, "stop", text)
        if sequence.exhausted(self._cells.size, self.clock(), self.duty.slept):
            return self._finish(sequence, "length", text + sequence.output.finish())
        return [*sequence.say(text)]

    def _give_up(self, sequence: Sequence, refusal: Failed) -> list[Outbound]:
        """A request needs more cells than there is memory for: what it has said, if anything, is its answer."""
        if sequence.generated:
            return self._finish(sequence, "length", sequence.output.finish())
        self._release(sequence)
        return [refusal]

    def _finish(self, sequence: Sequence, reason: Literal["stop", "length"], text: str) -> list[Outbound]:
        self._release(sequence)
        if self._speculates:
            self._answers.learn(sequence.tokens, sequence.prompt_length, sequence.scope)
        return [*sequence.say(text), sequence.done(reason, self.clock())]

    def _release(self, sequence: Sequence) -> None:
        sequence.sampler.close()
        if sequence.seq_id is None:
            self._waiting.remove(sequence)
            return
        # a text may end before the last of the guesses that were right
        sequence.computed = min(sequence.computed, len(sequence.tokens))
        self._cells.shrink(sequence.seq_id, sequence.computed)
        request, tokens = sequence.request, sequence.tokens[: sequence.computed]
        if request.pin_seconds:
            self._cells.pins.pin(sequence.tokens[: sequence.prompt_length], request.pin_seconds, request.caller)
        self._recall.drop(sequence)
        self._cells.park(sequence.seq_id, tokens, sequence.prompt_length, asked=request.asked)
        sequence.seq_id = None
        self._running.remove(sequence)
        self._crowded = False
