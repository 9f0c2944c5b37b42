"""Cuts text that no template has rendered into segments: the client has written the special tokens itself. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from qwen_edge.protocol.messages import Segment


def marked(text: str, specials: Sequence[str]) -> tuple[Segment, ...]:
    """The text as segments, in which each text of a special token is that token."""
    return tuple(_segments(text, _pattern(tuple(specials))))


def raw_prompt(parts: Sequence[str | Sequence[int]], specials: Sequence[str]) -> tuple[Segment, ...]:
    """The prompt of a ChatRequest's `raw`."""
    segments = list[Segment]()
    for part in parts:
        segments += marked(part, specials) if isinstance(part, str) else [Segment(tokens=tuple(part))]
    return tuple(segments)


def _segments(text: str, specials: re.Pattern[str]) -> Iterator[Segment]:
    end = 0
    for match in specials.finditer(text):
        if plain := text[end : match.start()]:
            yield Segment(plain)
        yield Segment(match[0], special=True)
        end = match.end()
    if plain := text[end:]:
        yield Segment(plain)


@lru_cache(maxsize=2)
def _pattern(specials: tuple[str, ...]) -> re.Pattern[str]:
    """Finds special tokens; of two that begin alike, the longer one."""
    texts = sorted((text for text in specials if text), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, texts)) or "(?!)")
