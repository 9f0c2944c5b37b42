"""Guesses the next tokens of a sequence from its own text, and how many guesses are worth computing.

Text that quotes, edits or lists repeats itself (prompt lookup, Saxena 2023,
https://github.com/apoorvumang/prompt-lookup-decoding). A guess costs a token more in the batch and saves a whole step
when it is right. Which guesses would have been right is known soon after, computed or not, so the rate of right ones
costs nothing to watch. The sampler decides about every token as ever: what comes out is what would have come anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

from qwen_edge.engine.pace import Pace

_GRAM = 3  # tokens that must be the same as before for a guess to be made
_LONGEST = 7
_MEMORY = 0.1  # weight of the newest guess in the rate


class Lookup:
    """Of one sequence; used by the engine's thread. Feed it by calling `guess` with all tokens, as they grow."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, ...], int] = {}  # where what followed these tokens stands
        self._read = 0
        self._expected: int | None = None
        self.rate = 0.5  # of first guesses that come true

    def guess(self, tokens: Sequence[int]) -> list[int]:
        """What followed when the last tokens stood here before; empty if they never did."""
        self._learn(tokens)
        at = self._seen.get(tuple(tokens[-_GRAM:]))
        guess = list(tokens[at : at + _LONGEST]) if at is not None else []
        self._expected = guess[0] if guess else None
        return guess

    def _learn(self, tokens: Sequence[int]) -> None:
        """Take note of the tokens that are new. The last ones are not: nothing has followed them yet."""
        if self._expected is not None and self._read < len(tokens):
            right = tokens[self._read] == self._expected
            self.rate += _MEMORY * (right - self.rate)
        for at in range(max(self._read, _GRAM), len(tokens)):
            self._seen[tuple(tokens[at - _GRAM : at])] = at
        self._read = len(tokens)


def worth(guesses: int, rate: float, tokens: int, rows: int, pace: Pace) -> int:
    """How many of the guesses to compute in a batch of so many tokens, which makes one token for each of its rows of
    logits: as many as give the most tokens a second, none if the plain batch does. Each guess is right at the rate, if
    those before it were."""
    best, most = 0, rows / pace.seconds(tokens, rows)
    made, chance = float(rows), 1.0
    for count in range(1, guesses + 1):
        chance *= rate
        made += chance
        if made / pace.seconds(tokens + count, rows + count) > most:
            best, most = count, made / pace.seconds(tokens + count, rows + count)
    return best
