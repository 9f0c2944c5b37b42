"""What is remembered, as the daemon tells it to people; and what they want forgotten, or kept for a time."""

from __future__ import annotations

from qwen_edge.engine.backend import Backend
from qwen_edge.kv.cells import Cells
from qwen_edge.kv.holdings import Holding, forget, holdings
from qwen_edge.messages import Conversation, Kept, Look

_LAST_WORDS = 24  # tokens of a prompt that tell people which it is


def look(cells: Cells, backend: Backend, message: Look) -> Kept:
    """Do what is asked, and tell what is remembered then. In the engine's thread, between two steps."""
    found = next((one for one in holdings(cells) if one.key == message.key), None)
    if found and message.pin_seconds is not None:
        cells.pins.pin(found.tokens, message.pin_seconds)
        cells.wish(found.tokens)
    if found and message.forget:
        forget(cells, found)
    return Kept(message.id, found is not None, tuple(_described(one, backend) for one in holdings(cells)))


def _described(one: Holding, backend: Backend) -> Conversation:
    ends = b"".join(backend.piece(token) for token in one.tokens[-_LAST_WORDS:]).decode(errors="ignore")
    return Conversation(
        key=one.key,
        tokens=len(one.tokens),
        cached=one.cached,
        copied=one.copied,
        written=one.written,
        file_bytes=one.file_bytes,
        pinned_until=one.pinned_until,
        ends=" ".join(ends.split()),
    )
