"""The cells of the KV cache: who holds which, what is shared, and what goes when there are too few.

A sequence is open while a request uses it and parked after; its cells stay for whoever begins with the same tokens.
What open sequences have computed is published into the tree, so that others who may (`owners`) share it at once, and
the same tokens that two have computed are in the same cells from then on, whoever they are. What nobody uses goes
first, the least worth of it (`score`), and leaves a copy in the stash, from where it comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from qwen_edge.kv.cell_store import Cache
from qwen_edge.kv.disk_tier import DiskTier
from qwen_edge.kv.eviction_score import score
from qwen_edge.kv.host_tier import LEAST, Copy, HostTier
from qwen_edge.kv.owners import Owners
from qwen_edge.kv.pins import Pins
from qwen_edge.kv.radix import Node, Radix, common_prefix
from qwen_edge.kv.saving import PIECE, Saving
from qwen_edge.protocol.messages import EVERYBODY, Caller

_PIECE = PIECE  # cells that go at once: a full cache is not tidied at every step
_PIECES = 4  # are copied between two steps, 15 ms each: as long as they stay, every token takes longer
_MARKS = 4  # tokens at the end of a prompt that say how to answer, and are shown no more when it has been


class KvCacheManager:
    """Of `size` cells and as many `sequences`. While some are open, parked ones keep no more than `spare` cells for
    themselves. Copies of up to `stash` cells are kept of what has to go, and on `disk` what is wanted again. Used by
    the engine's thread."""

    def __init__(
        self, cache: Cache, size: int, sequences: int, spare: int, stash: int = 0, disk: DiskTier | None = None
    ) -> None:
        self.size = size
        self.disk = disk
        self.pins = disk.pins if disk else Pins()
        self.stash = HostTier(stash, self.pins)
        self._spare = spare
        self._cache = cache
        self._tree = Radix()
        self._owners = Owners(self._tree, self.pins)
        self._open: dict[int, int] = {}  # how many tokens each open sequence holds
        self._prompts: dict[int, int] = {}  # how many of a parked sequence's tokens may well be asked for again
        self._left: dict[int, int] = {}  # how many of an open one's tokens are the prompt of others that were given up
        self._idle = list(reversed(range(sequences)))
        self._ahead: list[tuple[int, int, int]] = []  # sequence, start and end of what is to be copied before it must
        self._age = 0.0
        self._saving = Saving(
            cache, self._tree, self._owners, self._prompts, stash=self.stash, pins=self.pins, disk=disk
        )

    @property
    def used(self) -> int:
        return self._tree.cells + sum(length - self._tree.length(one) for one, length in self._open.items())

    @property
    def available(self) -> int:
        """How many cells could be free: all but those that open sequences hold."""
        return self.size - self.used + self._parked()

    @property
    def going(self) -> int:
        """Cells that parked sequences hold and may not keep while others run."""
        return max(0, self._parked() - self._spare) if self._open else 0

    def open(self, tokens: Sequence[int], caller: Caller = EVERYBODY, *, asked: bool = True) -> tuple[int, int] | None:
        """A sequence of this caller for these tokens, and how many of them it holds already (never all: the last is
        computed anew, for its logits); more may come back from copies (`restore`). None if all sequences are open. What
        is computed ahead has not been asked for, and is worth no more for it."""
        self._ahead.clear()
        length, holder = self._owners.match(tokens, caller.scope)
        if holder is not None and asked:
            self._touch(holder, length, caller)
        if not self._idle and not self._drop_least():
            return None
        sequence = self._idle.pop()
        self._open[sequence] = 0
        self._owners.take(sequence, caller)
        self.adopt(sequence, tokens)
        return sequence, self._open[sequence]

    def adopt(self, sequence: int, tokens: Sequence[int]) -> int:
        """Share what others have computed of these tokens meanwhile; returns how many the sequence holds now."""
        length, holder = self._owners.match(tokens[:-1], self._owners[sequence].scope)
        if holder is not None and length > self._open[sequence]:
            self._replace(sequence, holder, length)
            self._tree.insert(sequence, tokens[:length])
            self._open[sequence] = length
        return self._open[sequence]

    def reserve(self, count: int) -> bool:
        """Make `count` cells free. False if open sequences hold too many: nothing has gone then."""
        if self.size - self.used < count and self.available < count:
            return False
        while (short := count - (self.size - self.used)) > 0:
            self._trim_least(short)
        return True

    def scope(self, sequence: int) -> str | None:
        """Whose prompts an open sequence may use; None: those of all."""
        return self._owners[sequence].scope

    def shared(self, tokens: Sequence[int], scope: str | None = "") -> int:
        """How many of these tokens cost no cell: open sequences hold them, and they may be used."""
        return self._owners.match(tokens, scope, self._open.keys())[0]

    def known(self, tokens: Sequence[int], scope: str | None = "") -> int:
        """How many of these tokens, from the beginning, are in the cache and may be used."""
        return self._owners.match(tokens, scope)[0]

    def prompts(self) -> list[tuple[str, list[int]]]:
        """The prompts of parked sequences, without the few tokens at the end that ask for the answer, and whose they
        are."""
        return [(self._owners[one].owner, self._saving.prompt(one)) for one in self._prompts]

    def wish(self) -> None:
        """Something is pinned: it is to be written, wherever it is."""
        self._saving.see_to_all()

    def drop_if(self, forgotten: Callable[[Sequence[int]], bool], owner: str | None = None) -> None:
        """Give up the parked sequences, of this owner or of all, whose prompts are to be forgotten."""
        for sequence, (whose, prompt) in zip(list(self._prompts), self.prompts(), strict=True):
            if owner in (None, whose) and forgotten(prompt):
                self._drop(sequence)

    def compute(self, sequence: int, length: int) -> None:
        """The sequence holds so many tokens now, the last ones in cells of its own."""
        self._open[sequence] = length

    def shrink(self, sequence: int, length: int) -> None:
        """The sequence gives up the cells behind its first `length` tokens, which it has not published."""
        if length < self._open[sequence]:
            self._cache.forget(sequence, length, self._open[sequence])
            self._open[sequence] = length

    def publish(self, sequence: int, tokens: Sequence[int]) -> None:
        """Let others share what the sequence holds. Where any hold the same already, its own cells become free."""
        assert len(tokens) == self._open[sequence]
        length, holder = self._tree.match(tokens)
        if holder is not None and length > self._tree.length(sequence):
            self._replace(sequence, holder, length)
        self._tree.insert(sequence, tokens)

    def park(self, sequence: int, tokens: Sequence[int], prompt: int, *, asked: int = 1) -> None:
        """The request is over, or waits again; these tokens are kept until their cells are needed. After that, copies
        are kept of the prompt, the first so many of them: an answer is no part of what comes next as it stands (chat
        templates drop the reasoning), and was computed one by one, so that its cells lie scattered among those of
        others and take as long to copy as to compute."""
        self.publish(sequence, tokens)
        del self._open[sequence]
        self._prompts[sequence] = max(prompt, self._left.pop(sequence, 0))
        self._touch(sequence, len(tokens), self._owners[sequence], asked)
        nodes = list(self._tree.path(sequence))
        self._saving.see_to(nodes[0].sequences - self._open.keys() if nodes else set())  # whoever holds the same
        if not nodes or not self._owners.is_alone(sequence, nodes[0]):
            self._merge(sequence)
            return
        for node in nodes[1:]:
            for other in self._tree.ends_in(node):
                if other not in self._open and self._owners.is_theirs(other, self._owners[sequence]):
                    self._merge(other)
        if not self._open and self._parked() > self._spare:
            ends = ((one, min(self._prompts[one], self._tree.length(one))) for one in self._prompts)
            self._ahead = [(one, at, min(end, at + _PIECE)) for one, end in ends for at in range(0, end, _PIECE)][::-1]

    def make_way(self, tokens: Sequence[int], caller: Caller = EVERYBODY) -> None:
        """These are about to be computed ahead. Where parked cells have a price, answers of this caller that they part
        from (templates show them otherwise than they were generated) go now, and not when the next request runs."""
        if self._spare >= self.size:
            return
        for sequence, prompt in list(self._prompts.items()):
            held = self._tree.tokens(self._tree.end(sequence))
            common = common_prefix(held, tokens) if self._owners.is_theirs(sequence, caller) else 0
            if max(prompt - _MARKS, prompt // 2) <= common < min(len(held), len(tokens)):
                if self.stash.leads_on(held) > common:
                    self._keep(self._tree.end(sequence), common, [caller])
                self._cut(sequence, common)

    def close(self, sequence: int) -> None:
        """Forget an open sequence and what only it holds."""
        self._cache.forget(sequence, self._tree.length(sequence), self._open.pop(sequence))
        self._drop(sequence)

    def _replace(self, sequence: int, holder: int, length: int) -> None:
        """Of its first `length` tokens the sequence holds the holder's cells instead of its own unpublished ones."""
        start, held = self._tree.length(sequence), self._open[sequence]
        if start < min(held, length):
            self._cache.forget(sequence, start, min(held, length))
        self._cache.share(holder, sequence, start, length)

    def bring_back(self, sequence: int, tokens: Sequence[int], copy: Copy, cells: Any, until: int) -> bool:
        """The sequence holds the first `until` of these tokens: the last ones from a copy. False if there are not cells
        enough, or no memory for them."""
        held = self._open[sequence]
        if not self.reserve(copy.size):
            return False
        # for all of them, as far as can be told: a cache grows the quicker the less it holds
        if not self._cache.make_room(min(self.size, self.used + max(copy.size, len(tokens) - copy.start))):
            return False
        self._cache.load(cells, sequence, held, until)
        self._open[sequence] = until
        self.publish(sequence, tokens[:until])
        return True

    def prepare(self) -> bool:
        """While no sequence is open: copy a piece of what will have to go when one is. False if all is copied."""
        if not self._ahead:
            return False
        sequence, start, end = self._ahead.pop()
        tokens = self._tree.tokens(self._tree.end(sequence))[:end] if sequence in self._tree else []
        if tokens and self.stash.wanted(tokens, start, self.scope(sequence)) == end - start:
            self._copy(self._copy_of(sequence, tokens, start, self._owners[sequence]))
        return True

    def write(self, least: int = 2) -> bool:
        """Between two requests: have a stretch written that was asked for so often, at least, and that is in no file.
        False if there is none, or the disk is not ready."""
        return self._saving.write(least)

    @property
    def writing(self) -> bool:
        return self.disk is not None and self.disk.busy

    def leave(self, seconds: float, clock: Callable[[], float]) -> None:
        """The engine is about to go: write what is remembered, also what was asked for only once, for so long."""
        self._saving.leave(seconds, clock)

    def _copy_of(self, sequence: int, tokens: list[int], start: int, caller: Caller) -> Copy | None:
        """A copy, for one who holds it, of what the sequence holds of these tokens, from `start` on; None if there is
        no memory for it."""
        if (saved := self._cache.save(sequence, start, len(tokens))) is None:
            return None
        hits, asked = (self._saving.hits(sequence, at, caller.scope) for at in (start, len(tokens) - 1))
        return Copy(tokens, start, saved, hits, asked=asked, caller=caller)

    def _copy(self, copy: Copy | None) -> None:
        """Put a copy, if there was memory for it, into the stash. What has to go for it is written, if it may be wanted
        again."""
        if copy:
            self._saving.copied(copy, self.stash.put(copy))

    def _keeps(self, node: Node, start: int, callers: Sequence[Caller]) -> int:
        """How many of a node's cells from `start` on are to be copied into the stash before these callers lose them."""
        tokens = self._tree.tokens(node)[: self._worth_keeping(node)]
        return max(self.stash.wanted(tokens, start, caller.scope) for caller in callers)

    def _keep(self, node: Node, start: int, callers: Sequence[Caller]) -> bool:
        """Put copies of them there, a piece each, as far as there are none for these callers. The few tokens before the
        first piece are in its copy, too: they are not copied when they have to go, and the piece is of no use then."""
        start = 0 if start < LEAST else start
        count, tokens = self._keeps(node, start, callers), self._tree.tokens(node)
        sequence = next(iter(node.sequences))
        for at in (start, *range((start // _PIECE + 1) * _PIECE, start + count, _PIECE)):
            end = min(start + count, (at // _PIECE + 1) * _PIECE)
            for caller in callers:
                if at < end and self.stash.wanted(tokens[:end], at, caller.scope):
                    self._copy(self._copy_of(sequence, tokens[:end], at, caller))
        return count > 0

    def _is_pinned(self, node: Node) -> bool:
        if not self.pins.any:
            return False
        tokens = self._tree.tokens(node)[: self._worth_keeping(node)]
        return any(self.pins.holds(tokens, caller.owner) for caller in self._owners.of(node))

    def _worth_keeping(self, node: Node) -> int:
        """How many tokens, from the beginning, are the prompt of some parked sequence that holds this node."""
        return max((self._prompts[one] for one in node.sequences if one in self._prompts), default=0)

    def _parked(self) -> int:
        """Cells that only parked sequences hold."""
        return sum(len(node.tokens) for node in self._tree.nodes() if node.sequences.isdisjoint(self._open))

    def tidy(self) -> None:
        """Between two steps: let go of what is `going`, or of so much that few copies are made and a step has room."""
        copied = 0
        while self.going and (copied < _PIECES or self.used + _PIECE > self._cache.room):
            copied += self._trim_least(self.going)

    def _trim_least(self, short: int) -> bool:
        """Take cells from the end of the stretch of least worth that only parked sequences hold. True if they had to be
        copied."""
        ends = (n for n in self._tree.nodes() if not n.children and n.sequences.isdisjoint(self._open))
        node = min(ends, key=lambda node: (self._is_pinned(node), node.score))
        self._age = max(self._age, node.score)
        length = node.end - min(len(node.tokens), max(short, _PIECE))
        callers = self._owners.of(node)
        if self._keeps(node, length, callers):
            length = max(length, (min(node.end, self._worth_keeping(node)) - 1) // _PIECE * _PIECE)
        copied = self._keep(node, length, callers)
        for sequence in list(node.sequences):
            self._cut(sequence, length)
        return copied

    def _cut(self, sequence: int, length: int) -> None:
        """A parked sequence holds no more than so much; one that then holds nothing alone, of its owner's, is given
        up."""
        self._cache.forget(sequence, length, self._tree.length(sequence))
        self._tree.cut(sequence, length)
        if sequence not in self._tree or not self._owners.is_alone(sequence, self._tree.end(sequence)):
            self._merge(sequence)

    def _drop_least(self) -> bool:
        """Give up a parked sequence, for its number: one that holds nothing alone, of its owner's, or else that of the
        least worth."""
        ends = ((one, node) for node in self._tree.nodes() for one in self._tree.ends_in(node) if one not in self._open)
        is_alone = self._owners.is_alone
        least = min(ends, key=lambda end: (is_alone(*end), self._is_pinned(end[1]), end[1].score), default=None)
        if least is None:
            return False
        sequence, node = least
        if own := [one for one in self._tree.path(sequence) if is_alone(sequence, one)]:
            self._age = max(self._age, node.score)
            self._keep(node, own[-1].depth, [self._owners[sequence]])
        self._merge(sequence)
        return True

    def _merge(self, sequence: int) -> None:
        """Give up a parked sequence. What others of its owner hold of its prompt, which may be an answer to them, is
        from now on as if they had asked for it."""
        for node in self._tree.path(sequence):
            others = {one for one in node.sequences if one != sequence}
            heirs = [one for one in others if self._owners.is_theirs(one, self._owners[sequence])]
            for heir in heirs:
                prompts = self._left if heir in self._open else self._prompts
                prompts[heir] = max(prompts.get(heir, 0), min(self._prompts[sequence], node.end))
            if heirs:
                self._saving.see_to(set(heirs) - self._open.keys())
                break
        self._drop(sequence)

    def _drop(self, sequence: int) -> None:
        self._cache.forget(sequence, 0, self._tree.length(sequence))
        self._tree.cut(sequence)
        self._prompts.pop(sequence, None)
        self._left.pop(sequence, None)
        self._saving.forget(sequence)
        self._owners.release(sequence)
        self._idle.append(sequence)

    def _touch(self, sequence: int, length: int, caller: Caller, hits: int = 1) -> None:
        """The caller has asked for the first `length` tokens, or is expected to, and not for what comes behind them."""
        self._tree.part(sequence, length)
        for node in self._tree.path(sequence):
            if node.depth < length:
                node.hits[caller.scope] = node.hits.get(caller.scope, 0) + hits
                node.score = score(self._age, max(1, sum(node.hits.values())), node.depth)
