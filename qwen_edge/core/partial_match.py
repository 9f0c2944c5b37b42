"""Finds the beginning of a marker at the end of text that arrives in pieces: a marker may be divided anywhere."""

from __future__ import annotations

from collections.abc import Iterable


def unfinished_marker(text: str, markers: Iterable[str]) -> int:
    """How many characters at the end of `text` may be the beginning of one of `markers` (the longest such end).

    Complete markers do not count: callers search for them separately."""
    longest = 0
    for marker in markers:
        for length in range(min(len(marker) - 1, len(text)), longest, -1):
            if text.endswith(marker[:length]):
                longest = length
                break
    return longest
