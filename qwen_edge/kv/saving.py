"""Writing cells and copies to the disk tier: what, and when.

While the engine is idle, prompts that were asked for twice or are pinned; when the engine stops, all prompts, those of
the highest score first. A prompt is written from its beginning on, a stretch a file, as no stretch is of use without
those before it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from qwen_edge.kv.allocation import Allocation
from qwen_edge.kv.cell_store import FEW, PIECE, CellStore
from qwen_edge.kv.disk_tier import DiskTier
from qwen_edge.kv.host_tier import Copy, HostTier, Prompt, Replaced, next_of, without_beginnings
from qwen_edge.kv.pins import Pins

log = logging.getLogger(__name__)


class Saving:
    """Writes the prompts of parked sequences and the copies of the host tier. Used by the engine's thread."""

    def __init__(
        self, store: CellStore, allocation: Allocation, host_tier: HostTier, pins: Pins, disk: DiskTier | None
    ) -> None:
        self.disk = disk
        self._store = store
        self._allocation = allocation
        self._host_tier = host_tier
        self._pins = pins
        self._copies: list[Copy] = []  # those that may hold something which no file holds
        self._no_memory = self._no_room = False  # why not all could be written: no memory for a copy; `limit` reached
        self._renewed = 0

    def review(self) -> None:
        """Look through everything for what is to be written: something was pinned, or the files have gone."""
        self._allocation.changed |= self._allocation.prompts.keys()
        self._copies = self._host_tier.copies

    def copied(self, copy: Copy, replaced: Replaced) -> None:
        """The host tier has taken a copy, and others have left it. Of the evicted ones, what may be wanted again is
        written now, as nothing will hold it later."""
        self._copies = [one for one in (*self._copies, copy) if one in self._host_tier]
        for one in replaced.evicted:
            if self.disk and self.disk.ready and self._is_worth_writing(one, 2):
                reach = self.disk.reach(one.tokens, one.caller.scope)
                if one.start <= reach <= one.end - FEW:
                    self.disk.put(one)

    def write(self, least: int = 2) -> bool:
        """Between two requests: have a stretch written that was asked for at least `least` times and is in no file.
        False if there is none, or the disk is not ready."""
        if not self.disk or not self.disk.ready:
            return False
        if self.disk.renewed != self._renewed:  # somebody has deleted all files
            self._renewed = self.disk.renewed
            self.review()
        changed = self._allocation.changed
        while changed:
            sequence = max(changed, key=self._allocation.tree.length)  # the others may be beginnings of this one
            prompt, count = self._allocation.prompt(sequence), self._worth_writing(sequence, least)
            # a prompt's last token is computed anew also when all of it was asked for before
            if len(prompt) - count > 1:
                prompt = prompt[:count]
            if self._write_next(Prompt(prompt, self._allocation.owners[sequence])):
                return True
            changed.discard(sequence)
        while self._copies:
            copy = self._copies[0]
            if self._is_worth_writing(copy, least) and self._write_next(Prompt(copy.tokens, copy.caller)):
                return True
            self._copies.pop(0)
        return False

    def leave(self, seconds: float, clock: Callable[[], float]) -> None:
        """The engine is about to stop: write all that is remembered, for no longer than `seconds`, and log what
        was not written."""
        if not self.disk:
            return
        until, prompts, done = clock() + seconds, self._by_worth(), list[Prompt]()
        self._no_memory = self._no_room = False
        self.disk.wait(seconds)
        for prompt in prompts:
            while self.disk.ready and clock() < until and self._write_next(prompt, few=1, beside=done):
                self.disk.wait(until - clock())
            done.append(prompt)
        missing = [len(one.tokens) - self.disk.reach(one.tokens, one.caller.scope) for one in prompts]
        if lost := [count for count in missing if count]:
            count = sum(lost)
            late = f"{seconds:.0f} s were too short to write them" if clock() >= until or self.disk.busy else ""
            memory = "there was no memory to copy their cells into" if self._no_memory else ""
            room = "remember.bytes is too small for them" if self._no_room else ""
            why = self.disk.refuses or late or memory or room or "the tokens before them have left memory"
            log.warning("%d tokens of %d conversations are not written down: %s", count, len(lost), why)
        self.disk.close()

    def _by_worth(self) -> list[Prompt]:
        """All prompts of the cache and the host tier: first the pinned ones, then those of the highest score."""
        parked = self._allocation
        worths = [
            (parked.tree.end(one).score, Prompt(parked.prompt(one), parked.owners[one])) for one in parked.prompts
        ]
        copies = sorted(self._host_tier.copies, key=lambda one: (self._is_pinned(one), one.score), reverse=True)
        # the tokens of a prompt are put together only once, not for each of its copies
        worths += [(one.score, Prompt(one.tokens, one.caller)) for one in without_beginnings(copies)]
        pinned = [(self._is_pinned(one), score, one) for score, one in worths]
        pinned.sort(key=lambda one: one[:2], reverse=True)
        return [prompt for _, _, prompt in pinned if len(prompt.tokens) >= FEW]

    def _write_next(self, prompt: Prompt, few: int = FEW, beside: Sequence[Prompt] = ()) -> bool:
        """Have the first stretch of this prompt written that is in no file for its owner. False if there is none, if
        fewer than `few` tokens are in no file, or if there is no room beside the files that this prompt and the prompts
        in `beside` need."""
        assert self.disk
        at = self.disk.reach(prompt.tokens, prompt.caller.scope)
        copy = self._stretch(prompt, at) if len(prompt.tokens) - at >= few else None
        if copy is None:
            return False
        if not self.disk.fits(copy, [prompt, *beside]):
            self._no_room = True
            return False
        self.disk.put(copy)
        return True

    def _stretch(self, prompt: Prompt, at: int) -> Copy | None:
        """A stretch of this prompt from position `at` on: a piece from the cache, or else a copy of the host tier."""
        tokens, caller = prompt
        # the holder may belong to another owner: the prompt's owner has sent the same tokens
        known, holder = self._allocation.tree.match(tokens)
        if holder is not None and at < known:
            end = min(known, (at // PIECE + 1) * PIECE)
            if (saved := self._store.save(holder, at, end)) is not None:
                return Copy(tokens[:end], at, saved, self._allocation.hits(holder, at, caller.scope), caller=caller)
            self._no_memory = True
        found = next_of(self._host_tier.leads(tokens, caller.scope), at)
        return found[0] if found else None

    def _is_worth_writing(self, copy: Copy, least: int) -> bool:
        return copy.whole_hits >= least or self._is_pinned(copy)

    def _is_pinned(self, one: Prompt | Copy) -> bool:
        return self._pins.any and self._pins.holds(one.tokens, one.caller.owner)

    def _worth_writing(self, sequence: int, least: int) -> int:
        """How many of a parked sequence's tokens were asked for at least `least` times, or are pinned."""
        caller, path = self._allocation.owners[sequence], self._allocation.tree.path(sequence)
        count = max((node.end for node in path if node.hits.get(caller.scope, 0) >= least), default=0)
        if not self._pins.any:
            return count
        return max(count, self._pins.reach(self._allocation.tokens(sequence), caller.owner))
