"""The cells of the KV cache: who holds which, what is shared, and what goes when there are too few.

A sequence is open while a request uses it and parked after; its cells stay for whoever begins with the same tokens.
What open sequences have computed is published into the tree, so that others share it at once. What nobody uses goes
first, the least worth of it (`worth`), and leaves a copy in the stash, from where it comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qwen_edge.kv.cache import Cache
from qwen_edge.kv.disk import Disk
from qwen_edge.kv.pins import Pins
from qwen_edge.kv.radix import Node, Radix, common_prefix
from qwen_edge.kv.stash import Copy, Stash, covers
from qwen_edge.kv.worth import worth

# cells that go at once: a full cache is not tidied at every step; copies begin at multiples, so that beginnings agree
_PIECE = 256
_PIECES = 4  # are copied between two steps, 15 ms each: as long as they stay, every token takes longer
_FEW = 16  # tokens that are sooner computed than read from a file
_MARKS = 4  # tokens at the end of a prompt that say how to answer, and are shown no more when it has been


class Cells:
    """Of `size` cells and as many `sequences`. While some are open, parked ones keep no more than `spare` cells for
    themselves. Copies of up to `stash` cells are kept of what has to go, and on `disk` what is wanted again. Used by
    the engine's thread."""

    def __init__(
        self, cache: Cache, size: int, sequences: int, spare: int, stash: int = 0, disk: Disk | None = None
    ) -> None:
        self.size = size
        self.disk = disk
        self.pins = disk.pins if disk else Pins()
        self.stash = Stash(stash, self.pins)
        self._unwritten = set[int]()  # parked sequences of which something may not be in a file yet
        self._loose: list[Copy] = []  # and copies
        self._spare = spare
        self._cache = cache
        self._tree = Radix()
        self._open: dict[int, int] = {}  # how many tokens each open sequence holds
        self._prompts: dict[int, int] = {}  # how many of a parked sequence's tokens may well be asked for again
        self._idle = list(reversed(range(sequences)))
        self._ahead: list[tuple[int, int, int]] = []  # sequence, start and end of what is to be copied before it must
        self._age = 0.0

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

    def open(self, tokens: Sequence[int], *, asked: bool = True) -> tuple[int, int] | None:
        """A sequence for these tokens, and how many of them it holds already (never all: the last is computed anew, for
        its logits). None if all sequences are open. What is computed ahead has not been asked for, and is worth no more
        for it."""
        self._ahead.clear()
        length, holder = self._tree.match(tokens[:-1])
        if holder is not None and asked:
            self._touch(holder, length)
        if not self._idle and not self._drop_least():
            return None
        sequence = self._idle.pop()
        self._open[sequence] = 0
        self.adopt(sequence, tokens)
        self._restore(sequence, tokens)
        return sequence, self._open[sequence]

    def adopt(self, sequence: int, tokens: Sequence[int]) -> int:
        """Share what others have computed of these tokens meanwhile; returns how many the sequence holds now."""
        length, holder = self._tree.match(tokens[:-1])
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

    def shared(self, tokens: Sequence[int]) -> int:
        """How many of these tokens cost no cell: open sequences hold them."""
        return self._tree.match(tokens, self._open.keys())[0]

    def known(self, tokens: Sequence[int]) -> int:
        """How many of these tokens, from the beginning, are in the cache."""
        return self._tree.match(tokens)[0]

    def prompts(self) -> list[list[int]]:
        """The prompts of parked sequences, without the few tokens at the end that ask for the answer."""
        return [self._tree.tokens(self._tree.end(one))[: self._shared_end(one)] for one in self._prompts]

    def wish(self, tokens: Sequence[int]) -> None:
        """What a parked sequence holds of these tokens is to be written, if it is pinned or worth it by now."""
        self._unwritten |= {one for one, prompt in zip(self._prompts, self.prompts(), strict=True) if prompt == tokens}

    def drop_if(self, forgotten: Callable[[Sequence[int]], bool]) -> None:
        """Give up the parked sequences whose prompts are to be forgotten."""
        for sequence, prompt in zip(list(self._prompts), self.prompts(), strict=True):
            if forgotten(prompt):
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
        """Let others share what the sequence holds. Where they hold the same already, its own cells become free."""
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
        self._prompts[sequence] = prompt
        self._touch(sequence, len(tokens), asked)
        nodes = list(self._tree.path(sequence))
        self._unwritten |= nodes[0].sequences - self._open.keys() if nodes else set()  # whoever holds the same
        if not nodes or len(nodes[0].sequences) > 1:
            self._drop(sequence)  # it holds nothing that others do not
            return
        for node in nodes[1:]:
            for other in self._tree.ends_in(node):
                if other not in self._open:
                    self._drop(other)
        if not self._open and self._parked() > self._spare:
            ends = ((one, min(self._prompts[one], self._tree.length(one))) for one in self._prompts)
            self._ahead = [(one, at, min(end, at + _PIECE)) for one, end in ends for at in range(0, end, _PIECE)][::-1]

    def make_way(self, tokens: Sequence[int]) -> None:
        """These are about to be computed ahead. Where parked cells have a price, answers that they part from (templates
        show them otherwise than they were generated) go now, and not when the next request runs."""
        if self._spare >= self.size:
            return
        for sequence, prompt in list(self._prompts.items()):
            held = self._tree.tokens(self._tree.end(sequence))
            common = common_prefix(held, tokens)
            if max(prompt - _MARKS, prompt // 2) <= common < min(len(held), len(tokens)):
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

    def _restore(self, sequence: int, tokens: Sequence[int]) -> None:
        """Bring back from the stash what it has of these tokens, and then from the disk."""
        wanted = tokens[:-1]
        while found := self.stash.find(wanted, held := self._open[sequence]) or (
            self.disk.find(wanted, held) if self.disk else None
        ):
            copy, until = found
            # for all of them, as far as can be told: a cache grows the quicker the less it holds
            room = min(self.size, self.used + max(copy.size, len(tokens) - copy.start))
            if not (self.reserve(copy.size) and self._cache.make_room(room)):
                return
            self._cache.load(copy.cells, sequence, held, until)
            self._open[sequence] = until
            self.publish(sequence, tokens[:until])

    def prepare(self) -> bool:
        """While no sequence is open: copy a piece of what will have to go when one is. False if all is copied."""
        if not self._ahead:
            return False
        sequence, start, end = self._ahead.pop()
        tokens = self._tree.tokens(self._tree.end(sequence))[:end] if sequence in self._tree else []
        if self.stash.wanted(tokens, start) == end - start:
            self._copy(Copy(tokens, start, self._cache.save(sequence, start, end), self._hits(sequence, start)))
        return True

    def write(self, least: int = 2) -> bool:
        """Between two requests: have a stretch written that was asked for so often, at least, and that is in no file.
        False if there is none, or the disk is not ready."""
        if not self.disk or not self.disk.ready:
            return False
        while self._unwritten:
            sequence = max(self._unwritten, key=self._tree.length)  # others may be beginnings of it
            if self._write_stretch(sequence, least):
                return True
            self._unwritten.discard(sequence)
        # copies may be ends of those; in their order: none is of use without what comes before it
        return any(self._write(self._loose.pop(0), least) for _ in range(len(self._loose)))

    @property
    def writing(self) -> bool:
        return self.disk is not None and self.disk.busy

    def leave(self, seconds: float, clock: Callable[[], float]) -> None:
        """The engine is about to go: write what is remembered, also what was asked for only once, for so long."""
        if not self.disk:
            return
        until = clock() + seconds
        self._unwritten, self._loose = set(self._prompts), self.stash.copies
        self.disk.wait(seconds)
        while clock() < until and self.write(least=0):
            self.disk.wait(until - clock())
        self.disk.close()

    def _write(self, copy: Copy, least: int = 2) -> bool:
        if self.disk is None or not self.disk.ready or copy.size < _FEW:
            return False
        asked = copy.hits >= least or self.pins.holds(copy.tokens)
        if not asked or self.disk.wanted(copy.tokens, copy.start) != copy.size:
            return False
        self.disk.put(copy)
        return True

    def _write_stretch(self, sequence: int, least: int) -> bool:
        """Have the first of a parked sequence's stretches written that should be."""
        assert self.disk
        tokens = self._tree.tokens(self._tree.end(sequence))[: self._shared_end(sequence)]
        for start in range(0, len(tokens), _PIECE):
            end = min(len(tokens), start + _PIECE)
            hits = self._hits(sequence, start)
            asked = hits >= least or self.pins.holds(tokens[:end])
            if asked and self.disk.wanted(tokens[:end], start) == end - start:
                self.disk.put(Copy(tokens[:end], start, self._cache.save(sequence, start, end), hits))
                return True
        return False

    def _shared_end(self, sequence: int) -> int:
        """Where a parked sequence's prompt ends; or, if it parts from others only just before, where it does: the few
        tokens that ask for the answer are no part of the next prompt."""
        end = min(self._prompts[sequence], self._tree.length(sequence))
        last = next(node for node in self._tree.path(sequence) if node.depth < end)
        parts = last.parent is not None and len(last.parent.sequences) > len(last.sequences)
        return last.depth if parts and end - last.depth < _FEW else end

    def _hits(self, sequence: int, position: int) -> int:
        """How often what a sequence holds there was asked for."""
        return next(node.hits for node in self._tree.path(sequence) if node.depth <= position)

    def _copy(self, copy: Copy) -> None:
        """Put a copy into the stash. What has to go for it is written, if it may be wanted again, and is not in it."""
        gone = self.stash.put(copy)
        self._loose = [one for one in (*self._loose, copy) if one not in gone]
        for one in gone:
            if not covers(copy, one):
                self._write(one)

    def _keeps(self, node: Node, start: int) -> int:
        """How many of a node's cells from `start` on are to be copied into the stash before they go."""
        return self.stash.wanted(self._tree.tokens(node)[: self._worth_keeping(node)], start)

    def _keep(self, node: Node, start: int) -> bool:
        """Put a copy of them there, if there is none."""
        if count := self._keeps(node, start):
            saved = self._cache.save(next(iter(node.sequences)), start, start + count)
            self._copy(Copy(self._tree.tokens(node)[: start + count], start, saved, node.hits))
        return count > 0

    def _is_pinned(self, node: Node) -> bool:
        return self.pins.any and self.pins.holds(self._tree.tokens(node)[: self._worth_keeping(node)])

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
        node = min(ends, key=lambda node: (self._is_pinned(node), node.worth))
        self._age = max(self._age, node.worth)
        length = node.end - min(len(node.tokens), max(short, _PIECE))
        if self._keeps(node, length):
            length = max(length, (min(node.end, self._worth_keeping(node)) - 1) // _PIECE * _PIECE)
        copied = self._keep(node, length)
        for sequence in list(node.sequences):
            self._cut(sequence, length)
        return copied

    def _cut(self, sequence: int, length: int) -> None:
        """A parked sequence holds no more than so much; one that then holds nothing alone is given up."""
        self._cache.forget(sequence, length, self._tree.length(sequence))
        self._tree.cut(sequence, length)
        if sequence not in self._tree or len(self._tree.end(sequence).sequences) > 1:
            self._drop(sequence)

    def _drop_least(self) -> bool:
        """Give up a parked sequence, for its number: one that holds nothing alone, or else that of the least worth."""
        nodes = sorted(self._tree.nodes(), key=lambda node: (not node.children, self._is_pinned(node), node.worth))
        for node in nodes:
            for sequence in self._tree.ends_in(node):
                if sequence not in self._open:
                    self._age = max(self._age, 0.0 if node.children else node.worth)
                    if own := [one for one in self._tree.path(sequence) if len(one.sequences) == 1]:
                        self._keep(node, own[-1].depth)
                    self._drop(sequence)
                    return True
        return False

    def _drop(self, sequence: int) -> None:
        self._cache.forget(sequence, 0, self._tree.length(sequence))
        self._tree.cut(sequence)
        self._prompts.pop(sequence, None)
        self._unwritten.discard(sequence)
        self._idle.append(sequence)

    def _touch(self, sequence: int, length: int, hits: int = 1) -> None:
        """Somebody wanted these tokens, or is expected to."""
        for node in self._tree.path(sequence):
            if node.depth < length:
                node.hits += hits
                node.worth = worth(self._age, max(1, node.hits), node.depth)
