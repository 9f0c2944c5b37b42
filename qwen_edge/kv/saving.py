"""What of the cells and their copies is written to files, and when.

While the engine is idle: what was asked for twice, or is pinned. When it goes: everything, what is worth most first.
A prompt is written from its beginning on, a stretch a file: none is of use without what comes before it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from qwen_edge.kv.cell_store import Cache
from qwen_edge.kv.disk_tier import DiskTier
from qwen_edge.kv.host_tier import Copy, HostTier, Prompt, covers, next_of
from qwen_edge.kv.owners import Owners
from qwen_edge.kv.pins import Pins
from qwen_edge.kv.radix import Radix

log = logging.getLogger(__name__)

PIECE = 256  # tokens of a file, at most: a stretch that is loaded between two steps
FEW = 16  # tokens that are sooner computed than read from a file


class Saving:
    """Writes parked sequences (`prompts` has the lengths of their prompts) and copies of the stash. Used by the
    engine's thread."""

    def __init__(
        self,
        cache: Cache,
        tree: Radix,
        owners: Owners,
        prompts: Mapping[int, int],
        *,
        stash: HostTier,
        pins: Pins,
        disk: DiskTier | None,
    ) -> None:
        self.disk = disk
        self._cache = cache
        self._tree = tree
        self._owners = owners
        self._prompts = prompts
        self._stash = stash
        self._pins = pins
        self._sequences = set[int]()  # of which something may not be in a file yet
        self._copies: list[Copy] = []  # and copies
        self._no_memory = self._no_room = False  # some cells could not be copied to be written; or there were too many
        self._renewed = 0

    def see_to(self, sequences: set[int]) -> None:
        """Something of these parked sequences may be to write."""
        self._sequences |= sequences

    def see_to_all(self) -> None:
        """Anything may be to write: something was pinned, or the files have gone."""
        self._sequences, self._copies = set(self._prompts), self._stash.copies

    def forget(self, sequence: int) -> None:
        """It is parked no more."""
        self._sequences.discard(sequence)

    def copied(self, copy: Copy, gone: Sequence[Copy]) -> None:
        """A copy has been put into the stash, and those in `gone` had to leave. What may be wanted again of these is
        written now, as nothing will hold it later."""
        self._copies = [one for one in (*self._copies, copy) if one not in gone]
        for one in gone:
            if self.disk and self.disk.ready and self._asked(one, 2) and not covers(copy, one):
                reach = self.disk.reach(one.tokens, one.caller.scope)
                if one.start <= reach <= len(one.tokens) - FEW:
                    self.disk.put(one)

    def write(self, least: int = 2) -> bool:
        """Between two requests: have a stretch written that was asked for so often, at least, and that is in no file.
        False if there is none, or the disk is not ready."""
        if not self.disk or not self.disk.ready:
            return False
        if self.disk.renewed != self._renewed:  # somebody has deleted all of it
            self._renewed = self.disk.renewed
            self.see_to_all()
        while self._sequences:
            sequence = max(self._sequences, key=self._tree.length)  # others may be beginnings of it
            prompt, asked = self.prompt(sequence), self._asked_until(sequence, least)
            if (
                len(prompt) - asked > 1
            ):  # a prompt's last token is computed anew also when all of it was asked for before
                prompt = prompt[:asked]
            if self._write_next(Prompt(prompt, self._owners[sequence])):
                return True
            self._sequences.discard(sequence)
        while self._copies:
            copy = self._copies[0]
            if self._asked(copy, least) and self._write_next(Prompt(copy.tokens, copy.caller)):
                return True
            self._copies.pop(0)
        return False

    def leave(self, seconds: float, clock: Callable[[], float]) -> None:
        """The engine is about to go: write all that is remembered, for so long, and tell what was not written."""
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
            late = f"{seconds:.0f} s were too short for it" if clock() >= until or self.disk.busy else ""
            memory = "there was no memory to copy their cells into" if self._no_memory else ""
            room = "remember.bytes is too small for it" if self._no_room else ""
            why = self.disk.refuses or late or memory or room or "the tokens before them have left memory"
            log.warning("%d tokens of %d conversations are not written down: %s", count, len(lost), why)
        self.disk.close()

    def prompt(self, sequence: int) -> list[int]:
        """A parked sequence's prompt; or, if it parts from others of its owner only just before its end, so far: the
        few tokens that ask for the answer are no part of the next prompt. A short prompt, which parts from others
        right at its beginning, is whole."""
        end, owner = min(self._prompts[sequence], self._tree.length(sequence)), self._owners[sequence]
        tokens = self._tree.tokens(self._tree.end(sequence))
        for node in self._tree.path(sequence):
            others = node.parent.sequences - node.sequences if node.parent else set()
            if max(FEW, end - FEW + 1) <= node.depth < end and any(
                self._owners.is_theirs(one, owner) for one in others
            ):
                return tokens[: node.depth]
        return tokens[:end]

    def hits(self, sequence: int, position: int, scope: str | None) -> int:
        """How often what a sequence holds there was asked for, in this scope. The first few tokens, which many prompts
        have in common, count as those behind them."""
        position = max(position, FEW - 1)
        return next(node.hits.get(scope, 0) for node in self._tree.path(sequence) if node.depth <= position)

    def _by_worth(self) -> list[Prompt]:
        """All prompts that are in the cache or in copies; the pinned first, then what is worth most."""
        worths = [(self._tree.end(one).score, Prompt(self.prompt(one), self._owners[one])) for one in self._prompts]
        worths += [(copy.score, Prompt(copy.tokens, copy.caller)) for copy in self._stash.copies]
        pinned = [(self._pins.holds(one.tokens, one.caller.owner), score, one) for score, one in worths]
        pinned.sort(key=lambda one: one[:2], reverse=True)
        return [prompt for _, _, prompt in pinned if len(prompt.tokens) >= FEW]

    def _write_next(self, prompt: Prompt, few: int = FEW, beside: Sequence[Prompt] = ()) -> bool:
        """Have the first stretch of this prompt written that is in no file for its owner. False if there is none,
        or it has fewer than `few` tokens, or no room beside the files that this prompt and those `beside` it need."""
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
        """Of this prompt, what comes from there on: from the cache, or else as it lies in the stash."""
        tokens, caller = prompt
        known, holder = self._tree.match(tokens)  # whoever has computed it: the prompt's owner has sent it
        if holder is not None and at < known:
            end = min(known, (at // PIECE + 1) * PIECE)
            if (saved := self._cache.save(holder, at, end)) is not None:
                return Copy(tokens[:end], at, saved, self.hits(holder, at, caller.scope), caller=caller)
            self._no_memory = True
        found = next_of(self._stash.leads(tokens, caller.scope), at)
        return found[0] if found else None

    def _asked(self, copy: Copy, least: int) -> bool:
        return copy.asked >= least or self._pins.holds(copy.tokens, copy.caller.owner)

    def _asked_until(self, sequence: int, least: int) -> int:
        """How many of a parked sequence's tokens were asked for so often, or are pinned."""
        caller, path = self._owners[sequence], self._tree.path(sequence)
        asked = max((node.end for node in path if node.hits.get(caller.scope, 0) >= least), default=0)
        if not self._pins.any:
            return asked
        return max(asked, self._pins.reach(self._tree.tokens(self._tree.end(sequence)), caller.owner))
