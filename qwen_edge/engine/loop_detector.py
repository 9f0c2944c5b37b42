"""Notices that an answer repeats itself: a small model that has lost its way writes the same words for ever. Pure."""

from __future__ import annotations

import numpy as np

_LONGEST = 32  # tokens of what is repeated
_REPEATS = 3  # times that as many tokens as that follow each other, whatever the length of what is repeated


class LoopDetector:
    """Feed it the tokens of one text with `add`; some 5 us each."""

    def __init__(self) -> None:
        self._latest = np.full(_LONGEST, -1, np.int64)  # the latest tokens, the last one first
        self._runs = np.zeros(_LONGEST, np.int64)  # for each distance, how many tokens equal the one so far before

    def add(self, token: int) -> bool:
        """Whether the text has become a loop: its last 96 tokens repeat a stretch of at most 32 tokens."""
        self._runs = np.where(self._latest == token, self._runs + 1, 0)
        self._latest[1:] = self._latest[:-1]
        self._latest[0] = token
        return bool(self._runs.max() >= (_REPEATS - 1) * _LONGEST)
