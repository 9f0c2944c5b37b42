"""What is remembered, prompt by prompt, wherever it is: for people who want to see it, keep it or be rid of it.

A prompt is its owner's: who has sent the same has one of its own, though both may be in the same cells.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import xxhash

from qwen_edge.kv.disk_tier import DiskTier
from qwen_edge.kv.host_tier import HostTier, without_beginnings
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
    known = cells.prompts()
    for tier in _tiers(cells):
        copies = without_beginnings(sorted(tier.copies, key=lambda copy: copy.end, reverse=True))
        known += [(copy.caller.owner, copy.tokens) for copy in copies]
    longest = list[tuple[str, list[int]]]()
    for owner, tokens in sorted(known, key=lambda one: len(one[1]), reverse=True):
        seen = caller.admin or owner == caller.owner
        if seen and not any(other == owner and _begins(one, tokens) for other, one in longest):
            longest.append((owner, tokens))
    return [_holding(cells, owner, tokens) for owner, tokens in longest]


def forget(cells: KvCacheManager, holding: Holding, caller: Caller = EVERYBODY) -> None:
    """Let go of a prompt and what only it needs of its owner's, wherever it is; the caller's pin of it ends."""
    cells.pins.pin(holding.tokens, 0, caller)
    owner = holding.owner
    others = [one.tokens for one in holdings(cells) if one.owner == owner and one.tokens != holding.tokens]

    def only_its(tokens: Tokens) -> bool:
        return _begins(holding.tokens, tokens) and not any(_begins(one, tokens) for one in others)

    cells.drop_if(only_its, owner)
    for tier in _tiers(cells):
        for copy in tier.parts(holding.tokens, owner):
            if only_its(copy.tokens):
                tier.remove(copy)


def _tiers(cells: KvCacheManager) -> list[HostTier | DiskTier]:
    return [cells.host_tier, cells.disk] if cells.disk else [cells.host_tier]


def _holding(cells: KvCacheManager, owner: str, tokens: list[int]) -> Holding:
    written = cells.disk.parts(tokens, owner) if cells.disk else []
    return Holding(
        owner=owner,
        tokens=tokens,
        cached=cells.known(tokens, owner),
        copied=sum(copy.size for copy in cells.host_tier.parts(tokens, owner)),
        written=sum(file.size for file in written),
        file_bytes=sum(cells.disk.file_bytes(file) for file in written) if cells.disk else 0,
        pinned_until=cells.pins.until(tokens, owner),
    )


def _begins(tokens: Tokens, beginning: Tokens) -> bool:
    """Whether the tokens begin with these."""
    return common_prefix(tokens, beginning) == len(beginning)
