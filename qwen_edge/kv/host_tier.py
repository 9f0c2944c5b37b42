"""What had to leave the KV cache and may be wanted again: copies of cells in ordinary memory, up to a limit.

A copy is a stretch of tokens behind others; from several of them, one behind the other, a long beginning comes back.
Copying takes a hundredth of the time it takes to compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from qwen_edge.kv.cell_store import FEW
from qwen_edge.kv.eviction_score import score
from qwen_edge.kv.pins import Pins
from qwen_edge.kv.radix import common_prefix
from qwen_edge.protocol.messages import EVERYBODY, Caller


@dataclass(eq=False)
class Copy:
    """The cells of `tokens` from `start` on, in the cache's own form. `tokens` are all from the beginning, as what a
    cell holds depends on all before it. `hits` counts the requests for it or for a beginning of it, `asked` those
    for all of it. It belongs to `caller`: others may use only what is pinned for all."""

    tokens: list[int]
    start: int
    cells: Any
    hits: int
    score: float = 0.0
    asked: int = 1
    caller: Caller = EVERYBODY

    @property
    def size(self) -> int:
        return len(self.tokens) - self.start


class Prompt(NamedTuple):
    """Tokens that may be asked for again, and whose they are."""

    tokens: list[int]
    caller: Caller


Lead = tuple[Copy, int]  # a copy, and how many of some prompt's tokens it leads to


class HostTier:
    """Copies of up to `limit` tokens in all. Pure; used by the engine's thread."""

    def __init__(self, limit: int, pins: Pins) -> None:
        self._limit = limit
        self._pins = pins
        self._copies: list[Copy] = []
        self._age = 0.0

    @property
    def copies(self) -> list[Copy]:
        return list(self._copies)

    @property
    def size(self) -> int:
        return sum(copy.size for copy in self._copies)

    def wanted(self, tokens: Sequence[int], start: int, scope: str | None = "") -> int:
        """How many tokens behind `start` should be put here; none if they are here, for this scope, or not worth it. Of
        what is longer than all there is room for, the beginning."""
        count = min(len(tokens), self._limit) - start
        if len(tokens) < FEW or count <= 0:
            return 0
        there = any(copy.start <= start and until >= start + count for copy, until in self.leads(tokens, scope))
        return 0 if there else count

    def leads_on(self, tokens: Sequence[int]) -> int:
        """How many of these tokens lie before copies, which are of no use without them."""
        starts = (one.start for one in self._copies if one.start <= common_prefix(one.tokens, tokens))
        return max(starts, default=0)

    def put(self, copy: Copy) -> list[Copy]:
        """Take a copy that was wanted; the least worth makes room for it. Returns those that have gone."""
        gone = [one for one in self._copies if covers(copy, one)]
        self._copies = [one for one in self._copies if not covers(copy, one)]
        while self.size + copy.size > self._limit and (least := self.give_up(copy)):
            gone.append(least)
        copy.score = score(self._age, copy.hits, copy.start)
        self._copies.append(copy)
        return gone

    def give_up(self, staying: Copy | None) -> Copy | None:
        """Let the copy of the least worth go, but not the one that stays; None if there is no other."""
        others = [one for one in self._copies if one is not staying]
        # what others lead on from is of no use without it, nor they: the ends go first
        led = [*others, staying] if staying else others
        ends = [one for one in others if not any(_leads_on(one, other) for other in led)]
        if not others:
            return None
        least = min(ends or others, key=lambda one: (self._pins.holds(one.tokens, one.caller.owner), one.score))
        self._age = max(self._age, least.score)
        self._copies.remove(least)
        return least

    def remove(self, copy: Copy) -> None:
        """It is of no use after all."""
        self._copies.remove(copy)

    def leads(self, tokens: Sequence[int], scope: str | None = "") -> list[Lead]:
        """The copies that hold some of these tokens, and how far this scope may use them; None is all of them."""
        public = self._pins.public(tokens)
        known = (
            (copy, common_prefix(copy.tokens, tokens), scope is None or copy.caller.owner == scope)
            for copy in self._copies
        )
        usable = ((copy, until if own else min(until, public)) for copy, until, own in known)
        return [(copy, until) for copy, until in usable if until > copy.start]

    def use(self, copy: Copy, until: int, *, asked: bool) -> None:
        """A copy has been brought back as far as `until`; because somebody has asked for it, or was expected to."""
        copy.hits += asked
        copy.asked += asked and until == len(copy.tokens)
        copy.score = score(self._age, copy.hits, copy.start)


def reach(leads: list[Lead], held: int) -> int:
    """How far they lead, one behind the other, where `held` tokens are there."""
    while (until := max((until for copy, until in leads if copy.start <= held), default=0)) > held:
        held = until
    return held


def next_of(leads: list[Lead], held: int) -> Lead | None:
    """The copy to bring back next: the one that leads farthest. None if that is not worth it: all copies together would
    save only a few tokens, and this one would be used in part."""
    here = [lead for lead in leads if lead[0].start <= held < lead[1]]
    best = max(here, key=lambda lead: lead[1], default=None)
    if best and (reach(leads, held) - held >= FEW or best[1] == len(best[0].tokens)):
        return best
    return None


def _leads_on(one: Copy, other: Copy) -> bool:
    """Whether this one holds what comes right before the other, which is of no use without that."""
    return one.start < other.start <= len(one.tokens) and common_prefix(one.tokens, other.tokens) >= other.start


def covers(one: Copy, other: Copy) -> bool:
    """Whether all that the other copy holds is in this one, for the same owner."""
    same = one.caller.owner == other.caller.owner and one.start <= other.start
    return same and common_prefix(one.tokens, other.tokens) == len(other.tokens)
