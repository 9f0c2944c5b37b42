"""The host tier: copies of cells in ordinary memory, of what had to leave the KV cache and may be wanted again.

A copy holds a stretch of tokens behind others; from several copies, one behind the other, a long beginning comes back.
Copying takes a hundredth of the time it takes to compute. The tokens of all copies lie in one tree (`stretches`), so
that the copies of a long prompt have its beginning once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from qwen_edge.kv.cell_store import FEW
from qwen_edge.kv.eviction_score import score
from qwen_edge.kv.pins import Pins
from qwen_edge.kv.stretches import Stretch, StretchTree
from qwen_edge.protocol.messages import EVERYBODY, Caller


class Copy:
    """The cells of `tokens` from `start` on, in the cache's own form. `tokens` are all from the beginning, as what a
    cell holds depends on all before it. `hits` counts the requests for the tokens or for a beginning of them,
    `whole_hits` those for all of them. The copy belongs to `caller`: others may use only what is pinned for all. A copy
    equals only itself."""

    def __init__(
        self, tokens: list[int], start: int, cells: Any, hits: int, *, whole_hits: int = 1, caller: Caller = EVERYBODY
    ) -> None:
        self.stretch = Stretch(tokens)  # that ends where the cells end; a tier that takes the copy has it in a tree
        self.start = start
        self.cells = cells
        self.hits = hits
        self.whole_hits = whole_hits
        self.caller = caller
        self.score = 0.0

    @property
    def tokens(self) -> list[int]:
        """All from the beginning: a new list, put together of all stretches."""
        return self.stretch.from_beginning()

    @property
    def end(self) -> int:
        """How many tokens there are from the beginning to where the cells end."""
        return self.stretch.end

    @property
    def size(self) -> int:
        return self.end - self.start


class Prompt(NamedTuple):
    """Tokens that may be asked for again, and whose they are."""

    tokens: list[int]
    caller: Caller


class Replaced(NamedTuple):
    """Copies that have left a tier for a new one: those that are part of it, and those that had to make room."""

    covered: list[Copy]
    evicted: list[Copy]


Lead = tuple[Copy, int]  # a copy, and how many of some prompt's tokens it leads to


class HostTier:
    """Copies of up to `limit` tokens in all. Pure; used by the engine's thread."""

    def __init__(self, limit: int, pins: Pins) -> None:
        self._limit = limit
        self._pins = pins
        self._tree = StretchTree()
        self._copies: dict[Copy, Stretch] = {}  # the stretch that ends where the cells of the copy begin
        self._age = 0.0  # the score of what went last

    def __contains__(self, copy: Copy) -> bool:
        return copy in self._copies

    @property
    def copies(self) -> list[Copy]:
        return list(self._copies)

    @property
    def size(self) -> int:
        """Tokens whose cells are here."""
        return sum(copy.size for copy in self._copies)

    def wanted(self, tokens: Sequence[int], start: int, scope: str | None = "") -> int:
        """How many tokens from position `start` on should be put here; 0 if they are here for this scope, or not worth
        a copy. Of what is longer than the tier, only the beginning is wanted."""
        count = min(len(tokens), self._limit) - start
        if len(tokens) < FEW or count <= 0:
            return 0
        there = any(copy.start <= start and until >= start + count for copy, until in self.leads(tokens, scope))
        return 0 if there else count

    def needed_by_copies(self, tokens: Sequence[int]) -> int:
        """How many of these tokens, from the beginning, lie before the cells of a copy, which is of no use without
        them."""
        common = self._tree.in_common(tokens)
        return max((copy.start for copy in self._copies if copy.start <= common[copy.stretch]), default=0)

    def put(self, copy: Copy) -> Replaced:
        """Take a copy that was wanted. Copies of the least worth make room for it."""
        stretch = self._tree.hold(copy.tokens)
        before = self._tree.hold_before(stretch, copy.start)
        copy.stretch = stretch
        beginnings, owner = set(stretch.path()), copy.caller.owner
        mine = [one for one in self._copies if one.caller.owner == owner and one.start >= copy.start]
        covered, evicted = [one for one in mine if one.stretch in beginnings], list[Copy]()
        for one in covered:
            self.remove(one)
        self._copies[copy] = before
        while self.size > self._limit and (least := self.give_up(copy)):
            evicted.append(least)
        copy.score = score(self._age, copy.hits, copy.start)
        return Replaced(covered, evicted)

    def give_up(self, staying: Copy | None) -> Copy | None:
        """Let the copy of the least worth go, but not the one that stays; None if there is no other. A copy that lies
        right before another goes after it, as the other one is of no use without it."""
        others = [one for one in self._copies if one is not staying]
        if not others:
            return None
        needed = set(self._copies.values())
        ends = [one for one in others if needed.isdisjoint(_held(one))]
        ranked = sorted(ends or others, key=lambda one: one.score)
        unpinned = (one for one in ranked if not (self._pins.any and self._pins.holds(one.tokens, one.caller.owner)))
        least = next(unpinned, ranked[0])
        self._age = max(self._age, least.score)
        self.remove(least)
        return least

    def remove(self, copy: Copy) -> None:
        """The copy is of no use any more."""
        before = self._copies.pop(copy)
        self._tree.release(copy.stretch)
        self._tree.release(before)

    def leads(self, tokens: Sequence[int], scope: str | None = "") -> list[Lead]:
        """The copies that hold some of these tokens, and how far this scope may use them; None is all scopes."""
        common, public = self._tree.in_common(tokens), self._pins.public(tokens)
        known = ((copy, common[copy.stretch], scope is None or copy.caller.owner == scope) for copy in self._copies)
        usable = ((copy, until if own else min(until, public)) for copy, until, own in known)
        return [(copy, until) for copy, until in usable if until > copy.start]

    def parts(self, tokens: Sequence[int], owner: str) -> list[Copy]:
        """The owner's copies of which all tokens, from the beginning, are among these."""
        common = self._tree.in_common(tokens)
        return [one for one in self._copies if one.caller.owner == owner and common[one.stretch] == one.end]

    def use(self, copy: Copy, until: int, *, for_client: bool) -> None:
        """A copy has been brought back as far as `until`. `for_client`: because a client has asked for it, and
        not to compute ahead."""
        copy.hits += for_client
        copy.whole_hits += for_client and until == copy.end
        copy.score = score(self._age, copy.hits, copy.start)


def reach(leads: list[Lead], held: int) -> int:
    """How far the copies lead, one behind the other, where `held` tokens are there."""
    while (until := max((until for copy, until in leads if copy.start <= held), default=0)) > held:
        held = until
    return held


def next_of(leads: list[Lead], held: int) -> Lead | None:
    """The copy to bring back next: the one that leads farthest. None if that is not worth it: all copies together would
    save only a few tokens, and this one would be used in part."""
    here = [lead for lead in leads if lead[0].start <= held < lead[1]]
    best = max(here, key=lambda lead: lead[1], default=None)
    if best and (reach(leads, held) - held >= FEW or best[1] == best[0].end):
        return best
    return None


def without_beginnings(copies: Iterable[Copy]) -> list[Copy]:
    """Copies of one tier in their order, without those whose tokens an earlier copy of the same owner begins with."""
    begun, longest = set[tuple[str, Stretch]](), list[Copy]()
    for copy in copies:
        owner = copy.caller.owner
        if (owner, copy.stretch) not in begun:
            begun.update((owner, one) for one in copy.stretch.path())
            longest.append(copy)
    return longest


def _held(copy: Copy) -> Iterable[Stretch]:
    """The stretches whose cells a copy in a tier holds."""
    return (stretch for stretch in copy.stretch.path() if stretch.end > copy.start)
