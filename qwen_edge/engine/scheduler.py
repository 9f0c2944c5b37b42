"""Who runs in the next step, with how many tokens. Pure: values in, values out.

Decoding sequences come first, each with its one token. What time is left in the step goes to prompts. Among prompts,
and among those that wait for a place, the order is that of arrival plus own cost: a short prompt overtakes a long one
that has just come, but whoever has waited as long as its prompt takes is overtaken by nobody.
"""

from __future__ import annotations

import collections.abc
import math
from dataclasses import dataclass, replace

from qwen_edge.engine.cost_model import CostModel
from qwen_edge.engine.sequence import Sequence
from qwen_edge.engine.speculate import worth
from qwen_edge.kv.slice import Slice
from qwen_edge.protocol.messages import Share

_LOWER_EVERY = 8  # steps: a lower priority never stands quite still while a higher one runs
_TRY_EVERY = 32  # steps: what one guess more costs is then a hundredth at most
_LEAST = 8  # tokens of prompt in a step, however slow the device
_SOON = 128  # tokens of answer: some seconds, in which a larger cache can be made beside the work
_LATER = 256  # where several are decoded: a cache that grows costs all of them, so it should not do so often
_TOGETHER = 4  # tokens that the kernels of a CPU compute at once: one to three left over take as long as four
_BEST = 16  # tokens: those of x86-64 compute so many with one look at the weights; 32 take a twentieth more than 28

Sequences = collections.abc.Iterable[Sequence]


@dataclass(frozen=True, slots=True)
class ScheduledChunk:
    """So many next tokens of a sequence; where it samples, also guesses of what comes after."""

    sequence: Sequence
    count: int
    samples: bool
    guesses: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        return self.count + len(self.guesses)

    @property
    def rows(self) -> int:
        """Tokens whose logits are wanted."""
        return 1 + len(self.guesses) if self.samples else 0

    @property
    def share(self) -> Share:
        """What it is of a step, for whoever counts."""
        decoding = self.sequence.first_token_at is not None
        prompt, decoded = (0, self.size) if decoding else (self.count, len(self.guesses))
        return Share(self.sequence.request.id, prompt, decoded)

    def slice(self) -> Slice:
        assert self.sequence.seq_id is not None
        at = self.sequence.computed
        tokens = [*self.sequence.tokens[at : at + self.count], *self.guesses]
        return Slice(self.sequence.seq_id, at, tokens, self.rows)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a step is at most: `batch` tokens, `rows` rows of logits, `seconds` where answers are decoded in it, so that
    none of them stalls behind a long prompt, and `alone` seconds where there are only prompts."""

    batch: int
    rows: int
    seconds: float
    alone: float = math.inf


def plan(running: list[Sequence], bounds: Bounds, pace: CostModel, *, turn: int, guess: bool) -> list[ScheduledChunk]:
    """The parts of the next batch; `turn` counts the steps. With `guess`, they get guesses: where nobody waits for a
    first word, which comes before the fifth of others."""
    due, batch, rows = _due(running, turn), bounds.batch, bounds.rows
    parts = [ScheduledChunk(one, 1, samples=True) for one in due if one.remaining == 1]
    prompts = [one for one in due if one.remaining > 1]
    streams = len(parts)
    if guess and not prompts:
        parts = _with_guesses(parts, [], batch, rows, streams, pace, least=turn % _TRY_EVERY == 0)
    taken, outputs = sum(part.size for part in parts), sum(part.rows for part in parts)
    seconds = bounds.seconds if parts else bounds.alone
    if seconds < math.inf:
        total = pace.tokens_within(seconds, outputs)
        batch = min(batch, max(taken + _LEAST, _rounded(total)))
    slices = _slices(prompts, batch - taken, pace)
    if guess:
        slices = _with_guesses(slices, parts, batch, rows, max(1, streams), pace)
    return parts + slices


def _rounded(tokens: int) -> int:
    """About so many, as the kernels have them best."""
    best = (tokens + _TOGETHER) // _BEST * _BEST
    return best if best > 0 and tokens - best <= _TOGETHER else tokens - tokens % _TOGETHER


def _slices(waiting: list[Sequence], budget: int, pace: CostModel) -> list[ScheduledChunk]:
    """So many tokens of the prompts that wait, the first one's first."""
    parts, ahead = list[ScheduledChunk](), list[Sequence]()
    for one in in_order(waiting, pace):
        if budget > 0 and not any(_follows(one, other) for other in ahead):
            count = min(budget, one.remaining)
            parts.append(ScheduledChunk(one, count, samples=count == one.remaining))
            budget -= count
        ahead.append(one)
    return parts


def _with_guesses(
    parts: list[ScheduledChunk],
    beside: list[ScheduledChunk],
    batch: int,
    rows: int,
    streams: int,
    pace: CostModel,
    *,
    least: bool = False,
) -> list[ScheduledChunk]:
    """The parts, in a batch with those beside, with guesses where they save time, `streams` answers being decoded; and
    at least one guess now and then where they do not, as only batches that are run tell the pace."""
    tokens, outputs = (sum(part.size for part in parts + beside), sum(part.rows for part in parts + beside))
    guessed = list[ScheduledChunk]()
    for part in parts:
        lookup, most = part.sequence.lookup, min(batch - tokens, rows - outputs)
        possible = lookup.guess(part.sequence.tokens)[:most] if part.samples and most > 0 else []
        best = worth(len(possible), lookup.rate, tokens, outputs, streams, pace)
        guesses = tuple(possible[: best or least])
        tokens, outputs = tokens + len(guesses), outputs + len(guesses)
        guessed.append(replace(part, guesses=guesses))
    return guessed


def cells_ahead(running: list[Sequence]) -> tuple[int, int]:
    """Cells that will be needed soon, and after a while, beyond those that are held. Soon, a prompt needs no more than
    its own: to make room for its answer meanwhile would delay the first word."""
    prompts = sum(_own_cells(one, running[:at]) for at, one in enumerate(running))
    soon = sum(one.to_come(_SOON) for one in running if one.first_token_at is not None)
    later = sum(one.to_come(_LATER if len(running) > 1 else _SOON) for one in running)
    return prompts + soon, prompts + later


def in_order(sequences: Sequences, pace: CostModel) -> list[Sequence]:
    """Who gets a place, or a slice, first."""
    return sorted(sequences, key=lambda one: (one.rank, one.arrived + pace.seconds(one.remaining), one.request.id))


def victim(running: Sequences) -> Sequence:
    """Who gives way when there is not enough for all: the lowest priority, and of these the one that came last."""
    return max(running, key=lambda one: (one.rank, one.arrived, one.request.id))


def _due(running: list[Sequence], turn: int) -> list[Sequence]:
    """All of the highest priority that is there, and the others now and then."""
    best = min((one.rank for one in running), default=0)
    return [one for one in running if turn % _LOWER_EVERY ** (one.rank - best) == 0]


def _own_cells(one: Sequence, ahead: list[Sequence]) -> int:
    """Cells for what is not computed of its tokens, without what it will share with those ahead of it."""
    common = max((one.in_common(other) for other in ahead), default=0) if one.remaining > 1 else 0
    return len(one.tokens) - max(one.computed, common)


def _follows(one: Sequence, other: Sequence) -> bool:
    """Whether the other prompt, which is ahead, is about to compute tokens that this one begins with: it waits for them
    and shares them."""
    return one.in_common(other) > one.computed
