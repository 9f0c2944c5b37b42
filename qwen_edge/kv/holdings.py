"""What is remembered in the cache and in the tiers, prompt by prompt, for people who want to see, pin or forget it.

Each owner has prompts of its own: if two have sent the same tokens, these are two prompts, though in the same manager.
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
    """A prompt of an owner that is not the beginning of another one of the same owner. `cached`, `copied` and `written`
    are how many of its tokens are in the cache, in the host tier and in files; `file_bytes` is the size of these files,
    which other prompts may need as well. `pinned_until` is a time of the wall clock, 0 for no pin."""

    owner: str
    tokens: list[int]
    cached: int
    copied: int
    written: int
    file_bytes: int
    pinned_until: float

    @property
    def key(self) -> str:
        """A name for the prompt; one that has become longer has another name."""
        whose = f"{self.owner}\n".encode() if self.owner else b""
        return xxhash.xxh3_64_hexdigest(whose + array("i", self.tokens).tobytes())[:10]


def holdings(manager: KvCacheManager, caller: Caller = EVERYBODY) -> list[Holding]:
    """All prompts that the caller may see, the longest first. Between two steps of the engine."""
    known = manager.prompts()
    for tier in _tiers(manager):
        copies = without_beginnings(sorted(tier.copies, key=lambda copy: copy.end, reverse=True))
        known += [(copy.caller.owner, copy.tokens) for copy in copies]
    longest = list[tuple[str, list[int]]]()
    for owner, tokens in sorted(known, key=lambda one: len(one[1]), reverse=True):
        seen = caller.admin or owner == caller.owner
        if seen and not any(other == owner and _begins(one, tokens) for other, one in longest):
            longest.append((owner, tokens))
    return [_holding(manager, owner, tokens) for owner, tokens in longest]


def forget(manager: KvCacheManager, holding: Holding, caller: Caller = EVERYBODY) -> None:
    """Forget a prompt wherever it is held, except beginnings that other prompts of its owner need. The caller's pin of
    the prompt ends."""
    manager.pins.pin(holding.tokens, 0, caller)
    owner = holding.owner
    others = [one.tokens for one in holdings(manager) if one.owner == owner and one.tokens != holding.tokens]

    def only_its(tokens: Tokens) -> bool:
        return _begins(holding.tokens, tokens) and not any(_begins(one, tokens) for one in others)

    manager.drop_if(only_its, owner)
    for tier in _tiers(manager):
        for copy in tier.parts(holding.tokens, owner):
            if only_its(copy.tokens):
                tier.remove(copy)


def _tiers(manager: KvCacheManager) -> list[HostTier | DiskTier]:
    return [manager.host_tier, manager.disk] if manager.disk else [manager.host_tier]


def _holding(manager: KvCacheManager, owner: str, tokens: list[int]) -> Holding:
    written = manager.disk.parts(tokens, owner) if manager.disk else []
    return Holding(
        owner=owner,
        tokens=tokens,
        cached=manager.known(tokens, owner),
        copied=sum(copy.size for copy in manager.host_tier.parts(tokens, owner)),
        written=sum(file.size for file in written),
        file_bytes=sum(manager.disk.file_bytes(file) for file in written) if manager.disk else 0,
        pinned_until=manager.pins.until(tokens, owner),
    )


def _begins(tokens: Tokens, beginning: Tokens) -> bool:
    """Whether the tokens begin with these."""
    return common_prefix(tokens, beginning) == len(beginning)
