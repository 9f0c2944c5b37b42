"""What is remembered, prompt by prompt, wherever it is: for people who want to see it, keep it or be rid of it."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import xxhash

from qwen_edge.kv.cells import Cells
from qwen_edge.kv.radix import common_prefix
from qwen_edge.kv.stash import Copy

Tokens = Sequence[int]


@dataclass(frozen=True)
class Holding:
    """The tokens of a prompt that nothing longer begins with; how many of them are in the cache, in copies, in files;
    and the bytes of these files, which others may share. Times are those of the wall clock."""

    tokens: list[int]
    cached: int
    copied: int
    written: int
    file_bytes: int
    pinned_until: float

    @property
    def key(self) -> str:
        """A name for it, as long as it does not go on."""
        return xxhash.xxh3_64_hexdigest(array("i", self.tokens).tobytes())[:10]


def holdings(cells: Cells) -> list[Holding]:
    """All prompts, the longest first. Between two steps of the engine."""
    copies, files = cells.stash.copies, cells.disk.copies if cells.disk else []
    known = [*cells.prompts(), *(copy.tokens for copy in (*copies, *files))]
    longest = list[list[int]]()
    for tokens in sorted(known, key=len, reverse=True):
        if not any(_begins(one, tokens) for one in longest):
            longest.append(tokens)
    return [_holding(cells, tokens, copies, files) for tokens in longest]


def forget(cells: Cells, holding: Holding) -> None:
    """Let go of a prompt and what only it needs, wherever it is; its pin ends."""
    cells.pins.pin(holding.tokens, 0)
    others = [one.tokens for one in holdings(cells) if one.tokens != holding.tokens]

    def only_its(tokens: Tokens) -> bool:
        return _begins(holding.tokens, tokens) and not any(_begins(one, tokens) for one in others)

    cells.drop_if(only_its)
    for copy in cells.stash.copies:
        if only_its(copy.tokens):
            cells.stash.remove(copy)
    for copy in cells.disk.copies if cells.disk else []:
        if cells.disk and only_its(copy.tokens):
            cells.disk.remove(copy)


def _holding(cells: Cells, tokens: list[int], copies: list[Copy], files: list[Copy]) -> Holding:
    written = [file for file in files if _begins(tokens, file.tokens)]
    return Holding(
        tokens=tokens,
        cached=cells.known(tokens),
        copied=sum(copy.size for copy in copies if _begins(tokens, copy.tokens)),
        written=sum(file.size for file in written),
        file_bytes=sum(cells.disk.file_bytes(file) for file in written) if cells.disk else 0,
        pinned_until=cells.pins.until(tokens),
    )


def _begins(tokens: Tokens, beginning: Tokens) -> bool:
    """Whether the tokens begin with these."""
    return common_prefix(tokens, beginning) == len(beginning)
