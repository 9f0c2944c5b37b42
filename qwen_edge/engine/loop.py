"""Engine.step: schedule, run, postprocess. All that happens to a request in the engine, from top to bottom.

Many sequences at once. The cells that they compute stay in the KV cache for every prompt that begins with the same
tokens (`kv.manager`); `scheduler` says which sequence computes how many tokens. Synchronous and free of I/O: the
process around the engine is `main.py`, and tests and benchmarks drive it directly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Literal

from qwen_edge.core.errors import EngineError
from qwen_edge.engine import inspect_cache
from qwen_edge.engine.backend import Backend
from qwen_edge.engine.cell_budget import CellBudget
from qwen_edge.engine.cost_model import CostModel
from qwen_edge.engine.duty import Duty
from qwen_edge.engine.embeddings import Embeddings
from qwen_edge.engine.idle_prefill import IdlePrefill
from qwen_edge.engine.misses import Misses
from qwen_edge.engine.places import Places
from qwen_edge.engine.restoring import Restorer
from qwen_edge.engine.running_clock import RunningClock
from qwen_edge.engine.scheduler import Bounds, ScheduledChunk, in_order, plan, victim
from qwen_edge.engine.sequence import Running, Sequence
from qwen_edge.engine.speculate import Answers, Draft
from qwen_edge.engine.step_result import StepResult
from qwen_edge.engine.thread_choice import ThreadChoice
from qwen_edge.engine.tokenizing import Tokenizing
from qwen_edge.kv.disk_tier import DiskTier
from qwen_edge.kv.manager import KvCacheManager
from qwen_edge.protocol.messages import (
    Abort,
    CacheReport,
    Embed,
    Failed,
    InspectCache,
    Limits,
    Outbound,
    Pieces,
    Share,
    Started,
    StepStats,
    Submit,
    Tokenize,
    Tokens,
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
        """A step of more than `longest_step` seconds means that the whole process stood still: the seconds above it
        count for no deadline. With `speculates`, tokens are guessed from earlier text, which changes no answer
        (`speculate`), if the memory of the model lets wrong guesses be cut off. While there is nothing else to do, up
        to `ahead_per_hour` tokens of expected prompts are computed (`idle_prefill`). `disk` holds what outlives the
        engine."""
        self._backend = backend
        self._speculates = speculates and backend.cells.memory.cuts_anywhere
        self._wall, self.clock = clock, RunningClock(longest_step, clock)
        self._kv_cache = KvCacheManager(backend.cells, disk, model_id=backend.model_id)
        self._cell_budget = CellBudget(backend.cells, self._kv_cache, backend.parallel, self.clock)
        self._tokenizing = Tokenizing(backend.vocabulary, backend.shapes, backend.cells.size - 1, self.clock)
        self._cost = CostModel()
        self._threads = ThreadChoice(backend.threads)
        self._answers, self._misses = Answers(), Misses()
        self._restorer = Restorer(self._kv_cache, self._cost, self._misses, backend.batch, self.clock)
        self._idle_prefill = IdlePrefill(
            backend, self._cell_budget, self._cost, self._misses, ahead_per_hour, clock=self.clock
        )
        self._embeddings = Embeddings(backend.embedder, self.clock)
        self._places = Places(self._kv_cache, self._restorer)
        self._turn = 0
        self._tidied = 0  # the turn after which memory was last given back
        self.duty = Duty()

    @property
    def busy(self) -> bool:
        return bool(self._places.sequences or self._tokenizing.awaited or self._embeddings.busy)

    @property
    def waits(self) -> bool:
        """Whether nothing can be done before a prompt has been tokenized."""
        return self.busy and not (self._places.sequences or self._tokenizing.ready or self._embeddings.busy)

    @property
    def hung(self) -> bool:
        """Whether a thread of this process computes without end: the engine should be replaced when it is idle."""
        return self._tokenizing.hung

    @property
    def writing(self) -> bool:
        """Whether a file is being written: there may be more to write after it."""
        return self._kv_cache.writing

    @property
    def pause(self) -> float:
        """Seconds for which `prepare` leaves the cores to other programs."""
        return self._idle_prefill.pause

    @property
    def open_cells(self) -> int:
        """Cells of the KV cache that requests hold. Cells of finished requests can be freed, and do not count."""
        return self._kv_cache.size - self._kv_cache.available

    # messages

    def submit(self, request: Submit) -> None:
        """Take a request in. One that cannot be answered is refused in the next step."""
        self._tokenizing.add(request)

    def abort(self, message: Abort) -> None:
        """Forget a request, in any phase, or an inquiry. The cells that a request computed stay in the cache."""
        self._tokenizing.abort(message.id)
        self._embeddings.drop(message.id)
        for sequence in self._places.sequences:
            if sequence.request.id == message.id:
                self._places.finish(sequence)

    def warm(self, message: Warm) -> None:
        """Compute a prompt when there is nothing else to do."""
        self._tokenizing.add(message)
        self._expect_prompts()

    def allow(self, limits: Limits) -> None:
        """From now on, do no more than this."""
        self.duty.allow(limits)
        self._threads.allow(max(1, round(limits.threads * self._backend.threads)))
        self._backend.use_threads(self._threads.count)

    def inspect(self, message: InspectCache) -> CacheReport:
        """Forget or pin a conversation, if the message says so, then list the conversations in the cache."""
        return inspect_cache.report(self._kv_cache, self._backend.vocabulary, message)

    def ask(self, message: Tokenize | Pieces | Embed) -> None:
        """Take in an inquiry. `admit` returns the reply about text and tokens when it is ready, `embed` a vector."""
        if isinstance(message, Embed):
            self._embeddings.add(message)
        else:
            self._tokenizing.add(message)

    def embed(self) -> StepResult | None:
        """Compute a piece of an embedding; None if none is wanted. Not while nothing may be computed."""
        if self.duty.limits.duty <= 0 or (piece := self._embeddings.step()) is None:
            return None
        self._turn += 1
        stats = self._stats(piece.seconds, 0, (Share(piece.id, piece.tokens, 0),))
        answer = [piece.answer] if piece.answer else []
        return StepResult((stats, *answer), computed=piece.tokens, seconds=piece.seconds)

    # idle work

    def prepare(self) -> StepResult | None:
        """Do a piece of work that would otherwise delay the next request; or, after `tidy`, of writing to disk. None if
        there is none. Raises EngineError."""
        self._expect_prompts()
        if self.duty.limits.idle_work and (piece := self._idle_prefill.step()):
            self._turn += 1
            if not piece.computed:
                return StepResult()
            stats = self._stats(piece.seconds, 0, (Share(0, piece.computed, 0),))
            return StepResult((stats,), computed=piece.computed, seconds=piece.seconds)
        if self._kv_cache.prepare() or (self._tidied == self._turn and self._kv_cache.write()):
            return StepResult()
        return None

    def tidy(self) -> None:
        """There has been nothing to do for a while: give back memory that is not needed. From now on, until the next
        step, `prepare` also writes to disk. Raises EngineError."""
        if self._tidied != self._turn:
            self._tidied = self._turn
            self._embeddings.tidy()
            self._backend.cells.fit(self._kv_cache.used)

    def leave(self, seconds: float) -> None:
        """End all requests, and write what is remembered to disk for at most `seconds`. Raises EngineError."""
        for sequence in self._places.sequences:
            self._places.finish(sequence)
        self._kv_cache.leave(seconds, self.clock)

    # a step

    def admit(self) -> list[Outbound]:
        """Refuse requests that cannot be answered, end those that have taken too long, give places to others, and reply
        to inquiries. Returns the messages: the daemon should hear that a request has started before any of its tokens
        is computed. What has started is lost if the engine dies, so nothing starts while nothing may be computed.
        Raises EngineError, after which the contents of the KV cache are not known."""
        self._expect_prompts()
        refused = self._take_in()
        self._cell_budget.refresh()
        started = self._give_places() if self.duty.limits.duty > 0 else []
        return [*refused, *started, *self._expire(), *self._tokenizing.replies()]

    def step(self, *, admit: bool = True) -> StepResult:
        """Let the sequences catch up with their tokens by one decode. With `admit` False, the caller has just called
        `admit` and told the daemon; else it raises what `admit` raises. A failed decode raises nothing: all requests
        end in Failed."""
        admitted, began = self.admit() if admit else [], self.clock()
        if not (placed := self._places.placed):
            return StepResult(tuple(admitted))
        self._turn += 1
        try:
            if chunks := self._schedule(placed):
                self._run(chunks)
        except EngineError as error:
            return self._break_down(admitted, error)
        if not chunks:  # stored cells are still being read, or no sequence can go on for lack of memory
            self.duty.rested(self._restorer.wait(self._places.placed), busy=True)
            return StepResult(tuple(admitted))
        return self._postprocess(admitted, chunks, began)

    def _schedule(self, placed: list[Sequence]) -> list[ScheduledChunk]:
        """What to compute in this step, with cells for it. If there are not cells enough, the last sequence to come
        gives way. Nothing if no sequence can go on now. Raises EngineError."""
        limits = self.duty.limits
        self._restorer.step(placed)
        seconds = limits.step_seconds - self._cell_budget.make_ready(placed)
        bounds = Bounds(self._backend.batch, self._backend.rows, seconds, limits.prompt_seconds)
        drafts = self._drafts(placed) if self._speculates and limits.speculate else {}
        attempts: list[dict[Sequence, Draft]] = [drafts, {}] if drafts else [{}]  # without guesses if cells lack
        while placed:
            for one in placed:
                if one.remaining > 1:  # the last token is computed in any case
                    one.computed = self._kv_cache.adopt(one.seq_id, one.tokens)
            running = [one for one in placed if isinstance(one.phase, Running)]
            for drafted in attempts:
                chunks = plan(running, drafted, bounds, self._cost, turn=self._turn)
                if self._cell_budget.reserve(sum(chunk.size for chunk in chunks)):
                    return chunks
            self._places.put_back_for_lack_of_cells(victim(placed))
            placed = self._places.placed
        return []

    def _run(self, chunks: list[ScheduledChunk]) -> None:
        """Compute the chunks. Raises EngineError."""
        tokens, rows = sum(chunk.size for chunk in chunks), sum(chunk.rows for chunk in chunks)
        began, before = self.clock(), self._backend.preempted
        self._threads.begin(began)
        self._backend.use_threads(self._threads.count)
        self._backend.decode([chunk.slice() for chunk in chunks])
        ended = self.clock()
        self._cost.learn(tokens, rows, ended - began)
        taken, usual = self._backend.preempted - before, self._cost.usual(tokens, rows)
        self._threads.ran(ended - began, usual, taken, ended)

    def _postprocess(self, admitted: list[Outbound], chunks: list[ScheduledChunk], began: float) -> StepResult:
        """Note what is computed, choose the next tokens, and tell the daemon."""
        shares = tuple(chunk.share for chunk in chunks)
        for chunk in chunks:
            self._commit(chunk)
        events, chosen, first_word, computed = list[Outbound](), 0, False, 0
        for chunk in chunks:
            computed += chunk.size
            if not chunk.samples:
                continue
            sequence = chunk.sequence
            spoke, (count, said) = sequence.spoke, self._choose(chunk, computed - chunk.rows)
            events += [*said, *self._finish(sequence, sequence.ended)] if sequence.ended else said
            chosen, first_word = chosen + count, first_word or sequence.spoke > spoke
        seconds = self.clock() - began
        stats = self._stats(seconds, chosen, shares)
        return StepResult((*admitted, stats, *events), computed, chosen, seconds, first_word)

    def _break_down(self, admitted: list[Outbound], error: EngineError) -> StepResult:
        """A decode has failed, and what the cache and the driver hold is not known: a new process knows. All requests
        end here."""
        ids = [one.request.id for one in self._places.abandon()] + self._tokenizing.drop()
        return StepResult((*admitted, *(Failed(one, "engine", str(error)) for one in [*ids, None])), broken=True)

    # admission

    def _expect_prompts(self) -> None:
        for one in self._tokenizing.collect(Warm):
            self._idle_prefill.add(one.tokens, one.message.caller)

    def _take_in(self) -> list[Outbound]:
        """Make sequences of the requests whose prompts have been tokenized; returns the refusals."""
        refused = list[Outbound]()
        for prepared in self._tokenizing.collect(Submit):
            taken = Sequence.from_request(prepared, self._backend, self._answers)
            if isinstance(taken, Failed):
                refused.append(taken)
            else:
                self._places.add(taken)
        return refused

    def _expire(self) -> list[Outbound]:
        """End the requests that have waited or taken as long as they may. Tell of tokens that were forced since the
        last step, and end the answers that are complete with them."""
        now, events = self.clock(), list[Outbound]()
        dropped = self._tokenizing.drop(lambda request, seconds: seconds >= request.wait_seconds)
        events += [Failed(one, "waited", "") for one in dropped]
        for sequence in self._places.sequences:
            sequence.end_if_late(now, self.duty.slept)
            if sequence.started is not None:
                events += self._finish(sequence, sequence.ended) if sequence.ended else sequence.say()
            elif sequence.waited_too_long(now):
                self._places.finish(sequence)
                events.append(Failed(sequence.request.id, "waited", ""))
        return events

    def _give_places(self) -> list[Outbound]:
        """Give places to waiting sequences, while there are places and cells. A higher priority takes the place of a
        lower one."""
        events = list[Outbound]()
        for sequence in in_order(self._places.waiting, self._cost):
            if refusal := self._cell_budget.refusal(sequence):
                events += self._give_up(sequence, refusal)
                continue
            displaced = self._cell_budget.who_gives_way(sequence, self._places.placed, crowded=self._places.crowded)
            if displaced is None:
                break
            for one in displaced:
                self._places.put_back(one)
            first = sequence.started is None  # a sequence that had to give way has not been asked for again
            self._places.enter(sequence, for_client=first and sequence.request.asked > 0)
            if first:
                sequence.started, sequence.rested_before = self.clock(), self.duty.slept
                events.append(Started(sequence.request.id))
        return events

    # schedule

    def _drafts(self, placed: list[Sequence]) -> dict[Sequence, Draft]:
        """Guesses of the tokens that follow, for each sequence that may choose one in this step."""
        choosing = [one for one in placed if isinstance(one.phase, Running) and one.remaining <= self._backend.batch]
        drafts = {one: one.lookup.draft(one.tokens) for one in choosing}
        return {one: draft.cut(one.steering.agrees(draft.tokens)) for one, draft in drafts.items()}

    # postprocess

    def _commit(self, chunk: ScheduledChunk) -> None:
        """The tokens of a chunk have been computed."""
        sequence, seq_id = chunk.sequence, chunk.sequence.seq_id
        sequence.computed = chunk.start + chunk.length
        if not sequence.answering:
            sequence.prompt_computed += max(0, min(sequence.computed, sequence.prompt_length) - chunk.start)
        self._kv_cache.compute(seq_id, sequence.computed)  # first without the guesses, which are not published
        if chunk.length > 1 or sequence.computed == sequence.prompt_length:
            self._kv_cache.publish(seq_id, sequence.tokens[: sequence.computed])
        self._kv_cache.compute(seq_id, sequence.computed + len(chunk.guesses))

    def _choose(self, chunk: ScheduledChunk, row: int) -> tuple[int, list[Tokens]]:
        """Choose the next token of a sequence, and those after it for as long as they were guessed. The chunk's logits
        begin at `row`. Returns as `Sequence.choose`."""
        sequence = chunk.sequence
        if not sequence.answering:
            sequence.first_token_at = self.clock()
            self._misses.remember(sequence.prompt)
        chosen, said = sequence.choose(
            row, chunk.guesses, self._backend.vocabulary, self._kv_cache.size, self.clock(), self.duty.slept
        )
        self._kv_cache.shrink(sequence.seq_id, sequence.computed)
        return chosen, said

    def _stats(self, seconds: float, chosen: int, shares: tuple[Share, ...]) -> StepStats:
        """For the daemon, which counts energy and work: a step has just been computed."""
        return self.duty.ran(self._wall() - seconds, seconds, chosen, shares)

    # ends

    def _give_up(self, sequence: Sequence, refusal: Failed) -> list[Outbound]:
        """There is no memory for the cells that a request needs: it ends with the answer it has, or is refused."""
        if sequence.generated and sequence.started is not None:
            return self._finish(sequence, "length")
        self._places.finish(sequence)
        return [refusal]

    def _finish(self, sequence: Sequence, reason: Literal["stop", "length"]) -> list[Outbound]:
        self._places.finish(sequence)
        if self._speculates:
            self._answers.learn(sequence.tokens, sequence.prompt_length, sequence.scope)
        return [*sequence.say_last(), sequence.done(reason, self.clock())]
