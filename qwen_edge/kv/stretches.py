"""A tree of token stretches: what many copies of cells are of, every shared beginning once.

Matching compares tokens and never hashes alone: a copy that matched by accident would answer from another text's cells.
Unlike a node of `radix`, a stretch has no set of its holders: each of the copies of a long prompt would be in the sets
of all stretches before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qwen_edge.kv.radix import common_prefix


class Stretch:
    """Tokens that come right behind those of `before`; it ends at position `end`, which never changes. What was taken
    out of its tree can still be read back to its beginning."""

    __slots__ = ("after", "before", "end", "tokens", "users")

    def __init__(self, tokens: list[int], before: Stretch | None = None) -> None:
        self.tokens = tokens
        self.before = before
        self.end: int = (before.end if before else 0) + len(tokens)
        self.after: dict[int, Stretch] = {}  # by their first token
        self.users = 0

    @property
    def start(self) -> int:
        return self.end - len(self.tokens)

    def path(self) -> Iterator[Stretch]:
        """This stretch and all before it, back to the beginning."""
        stretch: Stretch | None = self
        while stretch:
            yield stretch
            stretch = stretch.before

    def from_beginning(self) -> list[int]:
        """All tokens from the beginning to the end of this stretch."""
        tokens = list[int]()
        for stretch in reversed(list(self.path())):
            tokens += stretch.tokens
        return tokens


class StretchTree:
    """A stretch stays here until it is released as often as it was held, and as long as another one lies behind it.
    Used by one thread."""

    def __init__(self) -> None:
        self._root = Stretch([])

    def hold(self, tokens: list[int]) -> Stretch:
        """The stretch that ends with these tokens, which are all from the beginning."""
        stretch = self._root
        while stretch.end < len(tokens):
            below = stretch.after.get(tokens[stretch.end])
            if below is None:
                below = stretch.after[tokens[stretch.end]] = Stretch(tokens[stretch.end :], stretch)
            else:
                common = common_prefix(below.tokens, tokens[below.start : below.end])
                below = below if common == len(below.tokens) else self._split(below, common)
            stretch = below
        stretch.users += 1
        return stretch

    def hold_before(self, stretch: Stretch, position: int) -> Stretch:
        """The stretch on the way to this one that ends at this position."""
        while stretch.before and stretch.start >= position:
            stretch = stretch.before
        if stretch.end > position:
            stretch = self._split(stretch, position - stretch.start)
        stretch.users += 1
        return stretch

    def release(self, stretch: Stretch) -> None:
        """Undo one `hold` or `hold_before` of this stretch."""
        stretch.users -= 1
        while stretch.before and not stretch.users and not stretch.after:
            del stretch.before.after[stretch.tokens[0]]
            stretch = stretch.before
        if stretch.before and not stretch.users and len(stretch.after) == 1:  # it is one with what lies behind it
            (below,) = stretch.after.values()
            below.tokens, below.before = stretch.tokens + below.tokens, stretch.before
            stretch.before.after[below.tokens[0]] = below

    def in_common(self, tokens: Sequence[int]) -> dict[Stretch, int]:
        """For every stretch that is held: how many tokens, from the beginning to its end, it has in common with
        these."""
        found, unseen = {self._root: 0}, [self._root]
        while unseen:
            stretch = unseen.pop()
            common = found[stretch]
            unseen += stretch.after.values()
            found.update(dict.fromkeys(stretch.after.values(), common))
            if common == stretch.end and common < len(tokens) and (below := stretch.after.get(tokens[common])):
                found[below] = common + common_prefix(below.tokens, tokens[common : below.end])
        return found

    def _split(self, stretch: Stretch, count: int) -> Stretch:
        """Make two of one; returns the upper, with its first `count` tokens. The lower one stays the same object."""
        assert stretch.before
        upper = Stretch(stretch.tokens[:count], stretch.before)
        stretch.before.after[upper.tokens[0]] = upper
        upper.after[stretch.tokens[count]] = stretch
        stretch.tokens, stretch.before = stretch.tokens[count:], upper
        return upper
