"""Lists the conversations that the cache holds, as the daemon shows them to people; forgets or pins one of them."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_edge.engine.backend import Vocabulary
from qwen_edge.kv.holdings import Holding, forget, holdings
from qwen_edge.kv.manager import KvCacheManager
from qwen_edge.protocol.messages import CacheReport, Caller, Conversation, InspectCache

_PATIENCE = 1.0  # seconds that are waited for the disk
_NOT_WRITTEN = (
    "The pin could not be written down: it holds only as long as the engine lives. The server's log has the reason, "
    "unless remember.where is off."
)
_LAST_WORDS = 24  # tokens of a prompt that tell people which it is


def report(kv_cache: KvCacheManager, vocabulary: Vocabulary, message: InspectCache) -> CacheReport:
    """Forget or pin the conversation that the message names, then list the conversations. In the engine's thread,
    between two steps."""
    caller = message.caller
    found = next((one for one in holdings(kv_cache, caller) if one.key == message.key), None)
    warning = ""
    if found and message.pin_seconds is not None:
        kv_cache.pins.pin(found.tokens, message.pin_seconds, caller)
        kv_cache.review()
        if message.pin_seconds and not kv_cache.pins.written(_PATIENCE):
            warning = _NOT_WRITTEN
    if found and message.forget:
        forget(kv_cache, found, caller)
    return CacheReport(
        message.id,
        found is not None,
        tuple(_described(one, vocabulary, caller) for one in holdings(kv_cache, caller)),
        warning,
    )


def said(tokens: Sequence[int], vocabulary: Vocabulary) -> Sequence[int]:
    """The tokens, without the opening of a turn in which nothing has been said: one word, the role, behind the end of
    another turn."""
    behind = next((at for at, token in enumerate(reversed(tokens)) if vocabulary.is_end(token)), 0)
    opening = tokens[len(tokens) - behind :]
    words = sum(not vocabulary.is_mark(token) for token in opening)
    return tokens[: len(tokens) - behind] if words <= 1 else tokens


def _described(one: Holding, vocabulary: Vocabulary, caller: Caller) -> Conversation:
    last = said(one.tokens[-_LAST_WORDS:], vocabulary)
    ends = b"".join(map(vocabulary.piece, last)).decode(errors="ignore")
    return Conversation(
        key=one.key,
        tokens=len(one.tokens),
        cached=one.cached,
        copied=one.copied,
        written=one.written,
        file_bytes=one.file_bytes,
        pinned_until=one.pinned_until,
        ends=" ".join(ends.split()),
        owner=one.owner if caller.admin else "",
    )
