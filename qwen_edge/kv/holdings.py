"""What is remembered, prompt by prompt, wherever it is: for people who want to see it, keep it or be rid of it.

A prompt is its owner's: who has sent the same has one of its own, though both may be in the same cells.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import xxhash

from qwen_edge.kv.host_tier import Copy
from qwen_edge.kv.manager import KvCacheManager
from qwen_edge.kv.radix import Tokens, common_prefix
from qwen_edge.protocol.messages import EVERYBODY, Caller


@dataclass(frozen=True)
class Holding:
    """The tokens of an owner's prompt that nothing longer of its own begins with; how many of them are in the cache, in
    copies, in files; and the bytes of these files, which others may share. Times are those of the wall clock."""

    owner: str
    tokens: list[int]
    cached: int
    copied: int
    written: int
    file_bytes: int
    pinned_until: float

    @property
    def key(self) -> str:
        """A name for it, as long as it does not go on."""
        whose = f"{self.owner}\n".encode() if self.owner else b""
        return xxhash.xxh3_64_hexdigest(whose + array("i", self.tokens).tobytes())[:10]


def holdings(cells: KvCacheManager, caller: Caller = EVERYBODY) -> list[Holding]:
    """All prompts that the caller may see, the longest first. Between two steps of the engine."""
    copies, files = cells.host_tier.copies, cells.disk.copies if cells.disk else []
    known = [*cells.prompts(), *((copy.caller.owner, copy.tokens) for copy in (*copies, *files))]
    longest = list[tuple[str, list[int]]]()
    for owner, tokens in sorted(known, key=lambda one: len(one[1]), reverse=True):
        seen = caller.admin or owner == caller.owner
        if seen and not any(other == owner and _begins(one, tokens) for other, one in longest):
            longest.append((owner, tokens))
    return [_holding(cells, owner, tokens, copies, files) for owner, tokens in longest]


def forget(cells: KvCacheManager, holding: Holding, caller: Caller = EVERYBODY) -> None:
    """Let go of a prompt and what only it needs of its owner's, wherever it is; the caller's pin of it ends."""
    cells.pins.pin(holding.tokens, 0, caller)
    owner = holding.owner
    others = [one.tokens for one in holdings(cells) if one.owner == owner and one.tokens != holding.tokens]

    def only_its(tokens: Tokens) -> bool:
        return _begins(holding.tokens, tokens) and not any(_begins(one, tokens) for one in others)

    cells.drop_if(only_its, owner)
    for copy in cells.host_tier.copies:
        if copy.caller.owner == owner and only_its(copy.tokens):
            cells.host_tier.remove(copy)
    for copy in cells.disk.copies if cells.disk else []:
        if cells.disk and copy.caller.owner == owner and only_its(copy.tokens):
            cells.disk.remove(copy)


def _holding(cells: KvCacheManager, owner: str, tokens: list[int], copies: list[Copy], files: list[Copy]) -> Holding:
    def hold(copy: Copy) -> bool:
        return copy.caller.owner == owner and _begins(tokens, copy.tokens)

    written = [file for file in files if hold(file)]
    return Holding(
        owner=owner,
        tokens=tokens,
        cached=cells.known(tokens, owner),
        copied=sum(copy.size for copy in copies if hold(copy)),
        written=sum(file.size for file in written),
        file_bytes=sum(cells.disk.file_bytes(file) for file in written) if cells.disk else 0,
        pinned_until=cells.pins.until(tokens, owner),
    )


def _begins(tokens: Tokens, beginning: Tokens) -> bool:
    """Whether the tokens begin with these."""
    return common_prefix(tokens, beginning) == len(beginning)
