"""What the next step computes: which sequences, and how many tokens of each. Pure: values in, values out.

A sequence catches up with its tokens. One that lacks no more than a few is given all of them, before others: a stream,
whose last token is to be computed, is such a sequence. What time is then left in the step goes to sequences that lack
more, most often prompts, a slice each. Among these, and among sequences that wait for a place, the order is that of
arrival plus own cost: a short prompt overtakes a long one that has just come, but a sequence that has waited as long as
its prompt takes is overtaken by none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from qwen_edge.engine.cost_model import CostModel
from qwen_edge.engine.sequence import Sequence
from qwen_edge.engine.speculate import Draft, guesses_that_pay
from qwen_edge.kv.slice import Slice
from qwen_edge.protocol.messages import Share

_LOWER_EVERY = 8  # steps: a lower priority never stands quite still while a higher one runs
_TRY_EVERY = 32  # steps: what one guess more costs is then a hundredth at most
_FEW = 32  # tokens that an answer lacks at most, to be computed at once: tokens that were put there, or its last ones
_LEAST = 8  # tokens of a slice, however slow the device
_SOON = 128  # tokens of answer: some seconds, in which a larger cache can be made beside the work
_LATER = 256  # where several are decoded: a cache that grows costs all of them, so it should not do so often
_TOGETHER = 4  # tokens that the kernels of a CPU compute at once: one to three left over take as long as four
_BEST = 16  # tokens: those of x86-64 compute so many with one look at the weights; 32 take a twentieth more than 28


class ScheduledChunk(NamedTuple):
    """The `length` tokens of a sequence from `start` on. A chunk that ends where the sequence does `samples` the next
    token, and may have guesses of the tokens after its own."""

    sequence: Sequence
    start: int
    length: int
    samples: bool
    guesses: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Tokens in the batch."""
        return self.length + len(self.guesses)

    @property
    def rows(self) -> int:
        """Tokens whose logits are wanted."""
        return 1 + len(self.guesses) if self.samples else 0

    @property
    def share(self) -> Share:
        """What the request has of the step; asked before the step's tokens are chosen."""
        prompt, decoded = (0, self.size) if self.sequence.answering else (self.length, len(self.guesses))
        return Share(self.sequence.request.id, prompt, decoded)

    def slice(self) -> Slice:
        tokens = [*self.sequence.tokens[self.start : self.start + self.length], *self.guesses]
        return Slice(self.sequence.seq_id, self.start, tokens, self.rows)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a step is at most: `batch` tokens, `rows` rows of logits, `seconds` where answers are decoded in it, so that
    none of them stalls behind a long prompt, and `alone` seconds where there are only prompts."""

    batch: int
    rows: int
    seconds: float
    alone: float = math.inf


def plan(
    running: list[Sequence], drafts: Mapping[Sequence, Draft], bounds: Bounds, cost: CostModel, *, turn: int
) -> list[ScheduledChunk]:
    """The chunks of the next batch; `turn` counts the steps. Guesses are taken from `drafts` where they pay. Streams
    get none while anybody waits for a first word, which comes before the fifth word of others."""
    nearly_done, behind = list[Sequence](), list[Sequence]()
    for one in _due(running, turn):
        (nearly_done if _is_nearly_done(one) else behind).append(one)
    chunks = _tails(nearly_done, bounds.batch)
    streams = len(chunks)
    if not behind:
        return _with_guesses(chunks, drafts, [], bounds, streams, cost, least=turn % _TRY_EVERY == 0)
    taken, rows, batch = sum(chunk.size for chunk in chunks), sum(chunk.rows for chunk in chunks), bounds.batch
    seconds = bounds.seconds if chunks else bounds.alone
    if seconds < math.inf:
        batch = min(batch, max(taken + _LEAST, _rounded(cost.tokens_within(seconds, rows))))
    slices = _slices(behind, batch - taken, cost)
    return chunks + _with_guesses(slices, drafts, chunks, replace(bounds, batch=batch), max(1, streams), cost)


def _is_nearly_done(one: Sequence) -> bool:
    """Whether a sequence gets all it lacks in one step: the few tokens of an answer, or, of a prompt that was in the
    cache, the last token."""
    return one.remaining <= (_FEW if one.answering else 1)


def _tails(sequences: list[Sequence], batch: int) -> list[ScheduledChunk]:
    """All tokens that these sequences lack, or, if the batch is too small for all of them, at least one of each."""
    chunks, spare = list[ScheduledChunk](), max(0, batch - len(sequences))
    for one in sequences:
        remaining = one.remaining
        count = min(remaining, 1 + spare)
        spare -= count - 1
        chunks.append(ScheduledChunk(one, one.computed, count, count == remaining))
    return chunks


def _slices(behind: list[Sequence], budget: int, cost: CostModel) -> list[ScheduledChunk]:
    """`budget` tokens of the sequences that lack many, those of the first one first."""
    chunks, ahead = list[ScheduledChunk](), list[Sequence]()
    for one in in_order(behind, cost):
        if budget > 0 and not any(_follows(one, other) for other in ahead):
            count = min(budget, one.remaining)
            chunks.append(ScheduledChunk(one, one.computed, count, count == one.remaining))
            budget -= count
        ahead.append(one)
    return chunks


def _rounded(tokens: int) -> int:
    """A number of tokens about as large, as the kernels have it best."""
    best = (tokens + _TOGETHER) // _BEST * _BEST
    return best if best > 0 and tokens - best <= _TOGETHER else tokens - tokens % _TOGETHER


def _with_guesses(
    chunks: list[ScheduledChunk],
    drafts: Mapping[Sequence, Draft],
    beside: list[ScheduledChunk],
    bounds: Bounds,
    streams: int,
    cost: CostModel,
    *,
    least: bool = False,
) -> list[ScheduledChunk]:
    """The chunks, in a batch with those beside, with guesses where they save time, while `streams` answers are decoded;
    with `least` at least one guess where there is any, as only batches that are run teach the cost."""
    if not drafts:
        return chunks
    tokens, rows = sum(chunk.size for chunk in chunks + beside), sum(chunk.rows for chunk in chunks + beside)
    guessed = list[ScheduledChunk]()
    for chunk in chunks:
        draft = drafts.get(chunk.sequence) if chunk.samples else None
        possible = min(len(draft.tokens), bounds.batch - tokens, bounds.rows - rows) if draft else 0
        if draft and possible > 0:
            count = guesses_that_pay(possible, draft.rate, tokens, rows, streams, cost) or int(least)
            tokens, rows = tokens + count, rows + count
            guessed.append(chunk._replace(guesses=draft.tokens[:count]) if count else chunk)
        else:
            guessed.append(chunk)
    return guessed


def cells_ahead(placed: list[Sequence]) -> tuple[int, int]:
    """Cells that will be needed soon, and after a while, beyond those that are held. Soon, a prompt needs cells for
    itself only: to make room for its answer meanwhile would delay the first word."""
    prompts = sum(_own_cells(one, placed[:at]) for at, one in enumerate(placed))
    soon = sum(one.to_come(_SOON) for one in placed if one.answering)
    later = sum(one.to_come(_LATER if len(placed) > 1 else _SOON) for one in placed)
    return prompts + soon, prompts + later


def in_order(sequences: Iterable[Sequence], cost: CostModel) -> list[Sequence]:
    """Which sequence gets a place, or a slice, first."""
    return sorted(sequences, key=lambda one: (one.rank, one.arrived + cost.seconds(one.remaining), one.request.id))


def victim(placed: Iterable[Sequence]) -> Sequence:
    """Which sequence gives way when there are not cells enough for all: of the lowest priority, the one that came
    last."""
    return max(placed, key=lambda one: (one.rank, one.arrived, one.request.id))


def _due(running: list[Sequence], turn: int) -> list[Sequence]:
    """All sequences of the highest priority that is there, and the others now and then."""
    best = min((one.rank for one in running), default=0)
    return [one for one in running if turn % _LOWER_EVERY ** (one.rank - best) == 0]


def _own_cells(one: Sequence, ahead: list[Sequence]) -> int:
    """Cells for the tokens that a sequence lacks, but for those that sequences ahead of it will share. The last token
    is never shared."""
    if one.remaining <= 1:  # as of every stream, in every step
        return one.remaining
    shared = max((one.in_common(other) for other in ahead), default=0)
    return len(one.tokens) - max(one.computed, min(shared, len(one.tokens) - 1))


def _follows(one: Sequence, other: Sequence) -> bool:
    """Whether the other sequence, which is ahead, is about to compute tokens that this one begins with: this one waits
    for them, and shares them."""
    return one.in_common(other) > one.computed
